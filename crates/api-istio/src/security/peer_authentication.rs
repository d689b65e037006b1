//! PeerAuthentication: `security/v1beta1/peer_authentication.proto`.

use std::collections::BTreeMap;

use crate::proto::{message, proto_enum};
use crate::selector::WorkloadSelector;

message! {
    /// Says whether workloads demand mutual TLS of their clients.
    pub struct PeerAuthentication [
        Cel("has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
            "portLevelMtls requires selector"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// Mutual TLS of all ports; as the parent says by default.
        pub mtls: Option<MutualTls>,
        /// Mutual TLS of single ports of the workload.
        pub port_level_mtls: BTreeMap<u32, MutualTls> [
            MinProperties(1),
            Cel("self.all(key, 0 < int(key) && int(key) <= 65535)", "port must be between 1-65535"),
        ],
    }
}

message! {
    /// Whether mutual TLS is demanded.
    pub struct MutualTls {
        /// The mode.
        pub mode: MutualTlsMode,
    }
}

proto_enum! {
    /// Whether mutual TLS is demanded.
    pub enum MutualTlsMode {
        /// As the parent says: port, workload, namespace, mesh; PERMISSIVE when nobody does.
        Unset = "UNSET" = 0,
        /// Plain text.
        Disable = "DISABLE" = 1,
        /// Either.
        Permissive = "PERMISSIVE" = 2,
        /// Mutual TLS.
        Strict = "STRICT" = 3,
    }
}
