//! Istio's default MeshConfig, and reading one over it. Source: `pkg/config/mesh` of istio/istio.

use std::fmt;

use serde_json::Value;

use super::{
    AuthenticationPolicy, ExtensionProvider, FileAccessLogProvider, IngressControllerMode, MeshConfig,
    MeshOutboundTrafficPolicy, MeshOutboundTrafficPolicyMode, PrometheusMetricsProvider, ProxyConfig,
    StackdriverProvider,
};
use crate::json::Json;
use crate::networking::LocalityLoadBalancerSetting;
use crate::proto::Duration;

/// A MeshConfig is not YAML, or not a MeshConfig; the message names the place.
#[derive(Debug)]
pub struct MeshConfigError(String);

impl fmt::Display for MeshConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MeshConfigError {}

impl MeshConfig {
    /// The configuration of a mesh that says nothing.
    pub fn istio_default() -> Self {
        let everywhere = vec!["*".to_owned()];
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            connect_timeout: Some(Duration::from_secs(10)),
            protocol_detection_timeout: Some(Duration::from_secs(0)),
            ingress_class: "istio".into(),
            ingress_service: "istio-ingressgateway".into(),
            ingress_controller_mode: IngressControllerMode::Strict,
            enable_tracing: true,
            default_config: Some(ProxyConfig::istio_default()),
            outbound_traffic_policy: Some(MeshOutboundTrafficPolicy {
                mode: MeshOutboundTrafficPolicyMode::AllowAny,
                tls: None,
            }),
            inbound_traffic_policy: Some(Default::default()),
            enable_auto_mtls: Some(true),
            trust_domain: "cluster.local".into(),
            default_service_export_to: everywhere.clone(),
            default_virtual_service_export_to: everywhere.clone(),
            default_destination_rule_export_to: everywhere,
            root_namespace: "istio-system".into(),
            locality_lb_setting: Some(LocalityLoadBalancerSetting {
                enabled: Some(true),
                ..Default::default()
            }),
            dns_refresh_rate: Some(Duration::from_secs(60)),
            enable_prometheus_merge: Some(true),
            default_providers: Some(Default::default()),
            extension_providers: default_providers(),
            ..Default::default()
        }
    }

    /// Reads YAML or JSON over Istio's default: maps are merged key by key, lists and scalars replace.
    pub fn from_yaml(text: &str) -> Result<Self, MeshConfigError> {
        Self::istio_default().merged(text)
    }

    /// Reads YAML or JSON over this configuration, as [`Self::from_yaml`].
    pub fn merged(&self, text: &str) -> Result<Self, MeshConfigError> {
        let over: Value = match text.trim() {
            "" => Value::Null,
            text => serde_saphyr::from_str(text).map_err(|error| MeshConfigError(error.to_string()))?,
        };
        if !over.is_object() && !over.is_null() {
            return Err(MeshConfigError(format!(
                "mesh configuration must be a map, not {over}"
            )));
        }
        let mut value = self.write();
        merge_mesh(&mut value, over);
        Self::read(value).map_err(|error| MeshConfigError(error.to_string()))
    }
}

impl ProxyConfig {
    /// The settings of a proxy that says nothing.
    pub fn istio_default() -> Self {
        Self {
            config_path: "./etc/istio/proxy".into(),
            binary_path: "/usr/local/bin/envoy".into(),
            service_cluster: Some("istio-proxy".into()),
            drain_duration: Some(Duration::from_secs(45)),
            termination_drain_duration: Some(Duration::from_secs(5)),
            discovery_address: "istiod.istio-system.svc:15012".into(),
            proxy_admin_port: 15000,
            control_plane_auth_policy: AuthenticationPolicy::MutualTls,
            stat_name_length: 189,
            status_port: 15020,
            ..Default::default()
        }
    }
}

/// The providers that exist in every mesh: prometheus, stackdriver and envoy.
fn default_providers() -> Vec<ExtensionProvider> {
    vec![
        ExtensionProvider {
            name: "prometheus".into(),
            prometheus: Some(PrometheusMetricsProvider {}),
            ..Default::default()
        },
        ExtensionProvider {
            name: "stackdriver".into(),
            stackdriver: Some(StackdriverProvider::default()),
            ..Default::default()
        },
        ExtensionProvider {
            name: "envoy".into(),
            envoy_file_access_log: Some(FileAccessLogProvider {
                path: "/dev/stdout".into(),
                ..Default::default()
            }),
            ..Default::default()
        },
    ]
}

/// Lays one MeshConfig, as JSON, upon another; extension providers are replaced by name and otherwise kept, as Istio does.
pub fn merge_mesh(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(Value::Array(base)) if key == "extensionProviders" && value.is_array() => {
                        merge_named(base, value);
                    }
                    Some(slot) => merge_mesh(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over,
    }
}

fn merge_named(base: &mut Vec<Value>, over: Value) {
    let Value::Array(over) = over else { return };
    for item in over {
        base.retain(|existing| existing.get("name") != item.get("name"));
        base.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_mesh_config_is_istios_default() {
        assert_eq!(
            MeshConfig::from_yaml("").expect("empty"),
            MeshConfig::istio_default()
        );
        assert_eq!(
            MeshConfig::from_yaml("{}").expect("braces"),
            MeshConfig::istio_default()
        );
    }

    #[test]
    fn a_mesh_config_is_merged_over_the_default() {
        let mesh = MeshConfig::from_yaml(
            "accessLogFile: /dev/stdout\noutboundTrafficPolicy:\n  mode: REGISTRY_ONLY\ndefaultConfig:\n  concurrency: 2\n\
             extensionProviders:\n- name: envoy\n  envoyFileAccessLog:\n    path: /tmp/log\n",
        )
        .expect("valid");
        assert_eq!(
            mesh.outbound_traffic_policy.map(|p| p.mode),
            Some(MeshOutboundTrafficPolicyMode::RegistryOnly)
        );
        let proxy = mesh.default_config.expect("default config");
        assert_eq!((proxy.concurrency, proxy.status_port), (Some(2), 15020));
        let names: Vec<_> = mesh.extension_providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["prometheus", "stackdriver", "envoy"]);
        assert_eq!(
            mesh.extension_providers[2]
                .envoy_file_access_log
                .as_ref()
                .map(|l| l.path.as_str()),
            Some("/tmp/log")
        );
    }

    #[test]
    fn a_wrong_mesh_config_is_an_error_with_a_reason() {
        for (text, part) in [
            ("- a", "must be a map"),
            ("connectTimeout: fast", "invalid duration"),
            ("outboundTrafficPolicy: {mode: SOME}", "REGISTRY_ONLY"),
            ("a: [", ""),
            ("extensionProviders: all", "invalid type"),
        ] {
            let error = MeshConfig::from_yaml(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
