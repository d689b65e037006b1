//! WasmPlugin: `extensions/v1alpha1/wasm.proto`.

use serde_json::{Map, Value};

use super::TrafficSelector;
use crate::proto::{message, proto_enum};
use crate::schema::Rule;
use crate::selector::{PolicyTargetReference, WorkloadSelector};

/// The rule that a text is empty or a SHA-256 in hex.
pub(super) const SHA256: Rule = Rule::Pattern("(^$|^[a-f0-9]{64}$)");

message! {
    /// Runs Wasm code inside proxies.
    pub struct WasmPlugin [
        Cel("(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or selector can be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// One gateway or service that this is for.
        pub target_ref: Option<PolicyTargetReference>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Where the module is: `oci://`, `file://`, `http://` or `https://`; OCI by default.
        pub url: String [
            Required, MinLength(1),
            Cel("isURL(self) ? (url(self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"]) : (isURL(\"http://\" + self) &&\nurl(\"http://\" + self).getScheme() in [\"\", \"http\", \"https\", \"oci\", \"file\"])",
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
        /// Where in the filter chain it runs.
        pub phase: PluginPhase,
        /// Order inside a phase: higher first.
        pub priority: Option<i32> [Nullable],
        /// What happens to traffic when the module fails.
        pub fail_strategy: FailStrategy,
        /// The machine that the module runs in.
        pub vm_config: Option<VmConfig>,
        /// Which traffic, any of these; all by default.
        pub r#match: Vec<TrafficSelector>,
        /// Whether it is an HTTP or a network filter.
        pub r#type: PluginType,
    }
}

proto_enum! {
    /// Whether a module is an HTTP or a network filter.
    pub enum PluginType {
        /// HTTP.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE" = 0,
        /// HTTP.
        Http = "HTTP" = 1,
        /// Network.
        Network = "NETWORK" = 2,
    }
}

proto_enum! {
    /// Where in the filter chain a module runs.
    pub enum PluginPhase {
        /// Near the end, before the router.
        Unspecified = "UNSPECIFIED_PHASE" = 0,
        /// Before authentication.
        Authn = "AUTHN" = 1,
        /// After authentication, before authorization.
        Authz = "AUTHZ" = 2,
        /// After authorization, before statistics.
        Stats = "STATS" = 3,
    }
}

proto_enum! {
    /// When a module is fetched again.
    pub enum PullPolicy {
        /// IfNotPresent; Always for the tag latest.
        Unspecified = "UNSPECIFIED_POLICY" = 0,
        /// When it is not there.
        IfNotPresent = "IfNotPresent" = 1,
        /// Whenever the resource changes.
        Always = "Always" = 2,
    }
}

proto_enum! {
    /// What happens to traffic when a module fails.
    pub enum FailStrategy {
        /// It is refused.
        FailClose = "FAIL_CLOSE" = 0,
        /// It passes.
        FailOpen = "FAIL_OPEN" = 1,
        /// The module is loaded again; refused meanwhile.
        FailReload = "FAIL_RELOAD" = 2,
    }
}

message! {
    /// The machine that a module runs in.
    pub struct VmConfig {
        /// Environment variables.
        pub env: Vec<EnvVar> [MaxItems(256), ListMap("name")],
    }
}

message! {
    /// An environment variable.
    pub struct EnvVar [
        Cel("(has(self.valueFrom) ? self.valueFrom : \"\") != \"HOST\" || !has(self.value)",
            "value may only be set when valueFrom is INLINE"),
    ] {
        /// Its name.
        pub name: String [Required, MinLength(1), MaxLength(256)],
        /// Where its value comes from.
        pub value_from: EnvValueSource,
        /// Its value; for INLINE.
        pub value: String [MaxLength(2048)],
    }
}

proto_enum! {
    /// Where the value of an environment variable comes from.
    pub enum EnvValueSource {
        /// It is given.
        Inline = "INLINE" = 0,
        /// The proxy's environment.
        Host = "HOST" = 1,
    }
}
