//! ProxyConfig: `networking/v1beta1/proxy_config.proto`, the kind; the mesh-wide settings are [`crate::mesh::ProxyConfig`].

use std::collections::BTreeMap;

use crate::proto::message;
use crate::selector::WorkloadSelector;

message! {
    /// Settings of proxies that need a restart to change.
    pub struct ProxyConfig {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// Worker threads; 0 means one per core.
        pub concurrency: Option<i32> [Nullable, Minimum(0)],
        /// Environment variables of the proxy.
        pub environment_variables: BTreeMap<String, String> [Each(&[MaxLength(2048)])],
        /// The proxy's image.
        pub image: Option<ProxyImage>,
    }
}

message! {
    /// An image of the proxy.
    pub struct ProxyImage {
        /// Its flavour: default, debug or distroless.
        pub image_type: String,
    }
}
