//! Selectors and references that several kinds share: `istio.type.v1beta1`.

use std::collections::BTreeMap;

use crate::proto::{message, proto_enum};

message! {
    /// Chooses workloads by their labels.
    pub struct WorkloadSelector {
        /// Labels that a workload must all have; none at all chooses every workload of the namespace, or of the mesh
        /// when the policy is in the root namespace.
        pub match_labels: BTreeMap<String, String> [
            MaxProperties(4096),
            Cel("self.all(key, !key.contains(\"*\"))", "wildcard not allowed in label key match"),
            Cel("self.all(key, key.size() != 0)", "key must not be empty"),
            Each(&[MaxLength(63), Cel("!self.contains(\"*\")", "wildcard not allowed in label value match")]),
        ],
    }
}

message! {
    /// Chooses a port by number.
    pub struct PortSelector {
        /// The port.
        pub number: u32 [Required, Minimum(1), Maximum(65535)],
    }
}

proto_enum! {
    /// Which side of a connection a workload is on.
    pub enum WorkloadMode {
        /// Not said.
        Undefined = "UNDEFINED" = 0,
        /// The workload opens the connection.
        Client = "CLIENT" = 1,
        /// The workload accepts the connection.
        Server = "SERVER" = 2,
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" = 3,
    }
}

message! {
    /// Names the resource that a policy is attached to.
    pub struct PolicyTargetReference {
        /// API group of the resource; empty is the core group.
        pub group: String [
            MaxLength(253),
            Pattern("^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ],
        /// Kind of the resource, such as Gateway or Service.
        pub kind: String [
            Required, MinLength(1), MaxLength(63), Pattern("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
        ],
        /// Name of the resource.
        pub name: String [Required, MinLength(1), MaxLength(253)],
        /// Must be empty: the resource is in the policy's own namespace.
        pub namespace: String [
            Cel("self.size() == 0", "cross namespace referencing is not currently supported"),
        ],
    }
}
