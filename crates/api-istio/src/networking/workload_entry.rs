//! WorkloadEntry: `networking/v1alpha3/workload_entry.proto`.

use std::collections::BTreeMap;

use super::service_entry::PORT;
use crate::proto::message;

message! {
    /// A workload that is not a Pod, such as a virtual machine; also an endpoint of a ServiceEntry.
    pub struct WorkloadEntry {
        /// Its address: an IP, a DNS name when the ServiceEntry resolves by DNS, or a `unix://` path.
        pub address: String [
            MaxLength(256),
            Cel("self.startsWith(\"unix://\") ? (self.substring(7, 8) == \"/\" || self.substring(7, 8) == \"@\") : true",
                "UDS must be an absolute path or abstract socket"),
            Cel("self.startsWith(\"unix://\") ? !self.endsWith(\"/\") : true", "UDS may not be a dir"),
        ],
        /// Its ports, by the name of the service's port; the service's target port where none is given.
        pub ports: BTreeMap<String, u32> [
            MaxProperties(128),
            Cel("self.all(key, size(key) < 63 && key.matches(\"^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$\"))",
                "port name must be valid"),
            Each(&[PORT]),
        ],
        /// Its labels, which Services, ServiceEntries and subsets select by.
        pub labels: BTreeMap<String, String> [MaxProperties(256)],
        /// Its network; workloads of different networks reach each other through gateways.
        pub network: String [MaxLength(2048)],
        /// Its locality, as `region/zone/subzone`.
        pub locality: String [MaxLength(2048)],
        /// Its share of the load, relative to the others.
        pub weight: u32,
        /// Its service account, which gives it its identity.
        pub service_account: String [MaxLength(253)],
    }
}
