//! TrafficExtension: `extensions/v1alpha1/traffic_extension.proto`.

use serde_json::{Map, Value};

use super::{FailStrategy, PluginType, PullPolicy, SHA256, VmConfig};
use crate::proto::{message, proto_enum};
use crate::selector::{PolicyTargetReference, PortSelector, WorkloadMode, WorkloadSelector};

message! {
    /// Runs Wasm or Lua code inside proxies.
    pub struct TrafficExtension [
        OneOf(&["wasm", "lua"]),
        Cel("(has(self.selector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or selector can be set"),
        Cel("has(self.wasm) != has(self.lua)", "exactly one of wasm or lua must be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Where in the filter chain it runs.
        pub phase: ExecutionPhase,
        /// Order inside a phase: higher first.
        pub priority: Option<i32> [Nullable],
        /// Which traffic, any of these; all by default.
        pub r#match: Vec<TrafficSelector>,
        /// Wasm.
        pub wasm: Option<WasmConfig>,
        /// Lua.
        pub lua: Option<LuaConfig>,
    }
}

proto_enum! {
    /// Where in the filter chain an extension runs.
    pub enum ExecutionPhase {
        /// Near the end, before the router.
        Unspecified = "UNSPECIFIED" = 0,
        /// Before authentication.
        Authn = "AUTHN" = 1,
        /// After authentication, before authorization.
        Authz = "AUTHZ" = 2,
        /// After authorization, before statistics.
        Stats = "STATS" = 3,
    }
}

message! {
    /// A Wasm module and its settings.
    pub struct WasmConfig {
        /// Where the module is: `oci://`, `file://`, `http://` or `https://`; OCI by default.
        pub url: String [
            Required, MinLength(1),
            Cel("isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"file\", \"oci\"]) : (isURL(\"http://\" + self) &&\nurl(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"file\", \"oci\"])",
                "url must have schema one of [http, https, file, oci]"),
        ],
        /// SHA-256 that the module must have.
        pub sha256: String [SHA256],
        /// When the module is fetched again.
        pub image_pull_policy: PullPolicy,
        /// Secret with the registry's credentials.
        pub image_pull_secret: String [MinLength(1), MaxLength(253)],
        /// Reserved.
        pub verification_key: String,
        /// Settings that the module gets.
        pub plugin_config: Map<String, Value>,
        /// Name by which the module knows itself.
        pub plugin_name: String [MinLength(1), MaxLength(256)],
        /// What happens to traffic when the module fails.
        pub fail_strategy: FailStrategy,
        /// The machine that the module runs in.
        pub vm_config: Option<VmConfig>,
        /// Whether it is an HTTP or a network filter.
        pub r#type: PluginType,
    }
}

message! {
    /// A Lua script.
    pub struct LuaConfig {
        /// The script, with envoy_on_request or envoy_on_response.
        pub inline_code: String [Required, MinLength(1), MaxLength(65536)],
    }
}

message! {
    /// Chooses traffic by side and port; both must match.
    pub struct TrafficSelector {
        /// The workload's side.
        pub mode: WorkloadMode,
        /// Ports, any of these; all by default.
        pub ports: Vec<PortSelector> [ListMap("number")],
    }
}
