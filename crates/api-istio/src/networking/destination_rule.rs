//! DestinationRule: `networking/v1alpha3/destination_rule.proto`, the kind and its subsets.

use std::collections::BTreeMap;

use super::TrafficPolicy;
use crate::proto::message;
use crate::selector::WorkloadSelector;

message! {
    /// Says how clients treat a service once routing has chosen it.
    pub struct DestinationRule {
        /// Service in the registry, a wildcard as its first label allowed; a short name is completed with the namespace of
        /// this object.
        pub host: String [Required],
        /// Load balancing, connection pools, outlier detection and TLS.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named parts of the service, such as its versions.
        pub subsets: Vec<Subset>,
        /// Namespaces that see this object: `.` for its own, `*` for all, which is also the default.
        pub export_to: Vec<String>,
        /// Client workloads of this namespace that the rule is for; all by default.
        pub workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// A named part of a service.
    pub struct Subset {
        /// Name that routes refer to.
        pub name: String [Required],
        /// Labels that an endpoint must have.
        pub labels: BTreeMap<String, String>,
        /// Differences from the policy of the whole service.
        pub traffic_policy: Option<TrafficPolicy>,
    }
}
