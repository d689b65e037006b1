//! Listener filters: what looks at a connection before a filter chain is chosen (`envoy.config.listener.v3.ListenerFilter`).

use std::sync::Arc;

use api_envoy::envoy::config::listener::v3::{
    self as v3, ListenerFilterChainMatchPredicate as Predicate, listener_filter::ConfigType,
    listener_filter_chain_match_predicate::Rule,
};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

use telemetry::stats::Registry;

use crate::filters::{self, Category};
use crate::inspector::{HttpInspectorStats, TlsInspector};
use crate::proxy_protocol::ProxyProtocol;

/// Which filter.
#[derive(Clone, Debug)]
pub enum ListenerFilterKind {
    /// `envoy.filters.listener.original_dst`.
    OriginalDst,
    /// `envoy.filters.listener.http_inspector`.
    HttpInspector(Arc<HttpInspectorStats>),
    /// `envoy.filters.listener.tls_inspector`.
    TlsInspector(Arc<TlsInspector>),
    /// `envoy.filters.listener.proxy_protocol`.
    ProxyProtocol(Arc<ProxyProtocol>),
}

/// A filter and where it is disabled.
#[derive(Clone, Debug)]
pub struct ListenerFilter {
    /// Which filter.
    pub kind: ListenerFilterKind,
    disabled: Option<PortPredicate>,
}

impl ListenerFilter {
    /// The filter, enabled everywhere.
    #[must_use]
    pub fn everywhere(kind: ListenerFilterKind) -> Self {
        Self { kind, disabled: None }
    }

    /// Whether `filter_disabled` holds for a connection to this port; without a port only `any_match` can hold.
    #[must_use]
    pub fn is_disabled(&self, destination_port: Option<u16>) -> bool {
        self.disabled
            .as_ref()
            .is_some_and(|predicate| predicate.holds(destination_port))
    }

    /// Reads a listener filter.
    ///
    /// # Errors
    /// A filter that this proxy does not have, or a field of one that it does not enforce.
    pub fn compile(proto: &v3::ListenerFilter, registry: &Registry) -> ConfigResult<Self> {
        let typed = match &proto.config_type {
            Some(ConfigType::TypedConfig(typed)) => Some(typed),
            Some(ConfigType::ConfigDiscovery(_)) => return Err(ConfigError::unsupported("config_discovery")),
            None => None,
        };
        let type_url = typed.map_or("", |any| any.type_url.as_str());
        let found = filters::find(Category::ListenerFilter, &proto.name, type_url).ok_or_else(|| {
            ConfigError::at(
                "typed_config",
                format!("no listener filter {} ({type_url})", proto.name),
            )
        })?;
        let kind = match found.name {
            "envoy.filters.listener.original_dst" => ListenerFilterKind::OriginalDst,
            "envoy.filters.listener.http_inspector" => {
                ListenerFilterKind::HttpInspector(Arc::new(HttpInspectorStats::new(registry)))
            }
            "envoy.filters.listener.proxy_protocol" => {
                let filter = ProxyProtocol::compile(typed, registry).within("typed_config")?;
                ListenerFilterKind::ProxyProtocol(Arc::new(filter))
            }
            _ => {
                let filter = TlsInspector::compile(typed, registry).within("typed_config")?;
                ListenerFilterKind::TlsInspector(Arc::new(filter))
            }
        };
        let disabled = proto
            .filter_disabled
            .as_ref()
            .map(PortPredicate::compile)
            .transpose();
        Ok(Self {
            kind,
            disabled: disabled.within("filter_disabled")?,
        })
    }
}

/// `ListenerFilterChainMatchPredicate`: a condition on the destination port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PortPredicate {
    Any,
    /// First port, and the port after the last.
    Range(i32, i32),
    Or(Vec<PortPredicate>),
    And(Vec<PortPredicate>),
    Not(Box<PortPredicate>),
}

impl PortPredicate {
    fn compile(proto: &Predicate) -> ConfigResult<Self> {
        let set = |rules: &[Predicate]| -> ConfigResult<Vec<Self>> {
            rules
                .iter()
                .enumerate()
                .map(|(i, rule)| Self::compile(rule).within_index("rules", i))
                .collect()
        };
        match proto.rule.as_ref() {
            Some(Rule::OrMatch(rules)) => Ok(Self::Or(set(&rules.rules).within("or_match")?)),
            Some(Rule::AndMatch(rules)) => Ok(Self::And(set(&rules.rules).within("and_match")?)),
            Some(Rule::NotMatch(rule)) => Ok(Self::Not(Box::new(Self::compile(rule).within("not_match")?))),
            Some(Rule::AnyMatch(true)) => Ok(Self::Any),
            Some(Rule::AnyMatch(false)) => Err(ConfigError::at("any_match", "must be true")),
            Some(Rule::DestinationPortRange(range)) => Ok(Self::Range(range.start, range.end)),
            None => Err(ConfigError::new("a rule is needed")),
        }
    }

    fn holds(&self, port: Option<u16>) -> bool {
        match self {
            Self::Any => true,
            Self::Range(start, end) => port.is_some_and(|port| (*start..*end).contains(&i32::from(port))),
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(port)),
            Self::And(rules) => rules.iter().all(|rule| rule.holds(port)),
            Self::Not(rule) => !rule.holds(port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::json::Schema;
    use serde_json::{Value, json};

    fn filter(json: &Value) -> ConfigResult<ListenerFilter> {
        ListenerFilter::compile(&Schema::get().parse(json).unwrap(), &Registry::new())
    }

    #[test]
    fn a_filter_is_disabled_on_the_ports_that_the_predicate_names() {
        let range = |start: i32| json!({ "destination_port_range": { "start": start, "end": start + 1 } });
        let filter = filter(&json!({
            "name": "envoy.filters.listener.http_inspector",
            "filter_disabled": { "or_match": { "rules": [range(15006), { "not_match": range(9080) }] } }
        }))
        .unwrap();
        assert!(filter.is_disabled(Some(15006)));
        assert!(filter.is_disabled(Some(3306)));
        assert!(!filter.is_disabled(Some(9080)));
    }

    #[test]
    fn an_unknown_filter_is_refused_by_name() {
        let error = filter(&json!({ "name": "envoy.filters.listener.original_src" })).unwrap_err();
        assert!(error.to_string().contains("original_src"), "{error}");
    }

    #[test]
    fn what_the_tls_inspector_cannot_do_is_refused_by_field() {
        for (field, value) in [
            ("enable_ja3_fingerprinting", json!(true)),
            ("max_client_hello_size", json!(255)),
            ("max_client_hello_size", json!(16_385)),
        ] {
            let mut config = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            });
            config[field] = value;
            let error = filter(&json!({ "name": "tls", "typed_config": config })).unwrap_err();
            assert_eq!(error.path(), format!("typed_config.{field}"));
        }
    }
}
