//! `envoy.filters.listener.proxy_protocol`
//! (`envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`): which headers are accepted, and what becomes of
//! their extensions.

use api_envoy::any;
use api_envoy::envoy::config::core::v3::proxy_protocol_config::Version as VersionProto;
use api_envoy::envoy::extensions::filters::listener::proxy_protocol::v3::{
    ProxyProtocol as Proto,
    proxy_protocol::{KeyValuePair, TlvLocation, key_value_pair::ValueStringEncoding},
};
use base64::Engine as _;
use proxy_core::error::ConfigContext as _;
use proxy_core::proxy_protocol::{Received, Tlv, Version, may_begin};
use proxy_core::{ConfigError, ConfigResult};
use proxy_upstream::PassThrough;
use telemetry::stats::{Counter, Registry, Scope};

/// Where the dynamic metadata of a rule goes that names no namespace.
const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

/// The filter, ready to run.
#[derive(Debug)]
pub struct ProxyProtocol {
    allows_absence: bool,
    disallowed: Vec<Version>,
    rules: Vec<Rule>,
    to_filter_state: bool,
    pass_through: PassThrough,
    /// Counters.
    pub stats: ProxyProtocolStats,
}

/// What becomes of the extensions of one type.
#[derive(Debug)]
struct Rule {
    kind: u8,
    namespace: Box<str>,
    key: Box<str>,
    base64: bool,
}

/// `proxy_proto.` statistics, and an older one.
#[derive(Debug)]
pub struct ProxyProtocolStats {
    /// Keeps the handles valid.
    pub scope: Scope,
    /// Keeps the older one valid.
    pub older: Scope,
    /// Connections without a header that were let in.
    pub not_found_allowed: Counter,
    /// Connections without a header that were closed.
    pub not_found_disallowed: Counter,
    /// Connections that were closed because of their header, or because they had none; it has no prefix at all.
    pub downstream_cx_proxy_proto_error: Counter,
    v1: VersionStats,
    v2: VersionStats,
}

/// What came of the headers of one version.
#[derive(Debug)]
pub struct VersionStats {
    /// Headers, but for malformed ones.
    pub found: Counter,
    /// Connections that were closed because of the version; these were found too.
    pub disallowed: Counter,
    /// Connections that were closed because their header is malformed.
    pub error: Counter,
}

impl ProxyProtocolStats {
    fn new(prefix: &str, registry: &Registry) -> Self {
        let prefix = match prefix {
            "" => "proxy_proto.".to_owned(),
            prefix => format!("proxy_proto.{}.", prefix.replace(':', "_")),
        };
        let (scope, older) = (registry.scope(&prefix), registry.scope(""));
        let version = |name: &str| VersionStats {
            found: scope.counter(&format!("versions.{name}.found")),
            disallowed: scope.counter(&format!("versions.{name}.disallowed")),
            error: scope.counter(&format!("versions.{name}.error")),
        };
        Self {
            not_found_allowed: scope.counter("not_found_allowed"),
            not_found_disallowed: scope.counter("not_found_disallowed"),
            downstream_cx_proxy_proto_error: older.counter("downstream_cx_proxy_proto_error"),
            v1: version("v1"),
            v2: version("v2"),
            scope,
            older,
        }
    }

    /// Those of one version.
    #[must_use]
    pub fn of(&self, version: Version) -> &VersionStats {
        match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        }
    }
}

impl ProxyProtocol {
    /// Reads the filter's configuration; nothing is all defaults.
    ///
    /// # Errors
    /// A malformed value.
    pub(crate) fn compile(typed: Option<&api_envoy::Any>, registry: &Registry) -> ConfigResult<Self> {
        let proto: Proto = match typed {
            None => Proto::default(),
            Some(typed) => any::unpack(typed).map_err(|e| ConfigError::new(e.to_string()))?,
        };
        let location = TlvLocation::try_from(proto.tlv_location)
            .map_err(|_| ConfigError::at("tlv_location", "unknown value"))?;
        let rules = proto.rules.iter().enumerate();
        let rules = rules.map(|(i, rule)| {
            let kind =
                u8::try_from(rule.tlv_type).map_err(|_| ConfigError::at("tlv_type", "must be below 256"));
            let compiled = kind.and_then(|kind| Rule::compile(kind, rule.on_tlv_present.as_ref()));
            compiled.within_index("rules", i)
        });
        let disallowed = proto.disallowed_versions.iter().enumerate();
        Ok(Self {
            allows_absence: proto.allow_requests_without_proxy_protocol,
            disallowed: disallowed
                .map(|(i, version)| match VersionProto::try_from(*version) {
                    Ok(VersionProto::V1) => Ok(Version::V1),
                    Ok(VersionProto::V2) => Ok(Version::V2),
                    Err(_) => Err(ConfigError::new("unknown value")).within_index("disallowed_versions", i),
                })
                .collect::<ConfigResult<_>>()?,
            rules: rules.collect::<ConfigResult<_>>()?,
            to_filter_state: location == TlvLocation::FilterState,
            pass_through: PassThrough::compile(proto.pass_through_tlvs.as_ref())
                .within("pass_through_tlvs")?,
            stats: ProxyProtocolStats::new(&proto.stat_prefix, registry),
        })
    }

    /// Whether connections that begin so go on without a header.
    #[must_use]
    pub fn goes_without(&self, bytes: &[u8]) -> bool {
        let may_be = |version| self.allows(version) && may_begin(bytes, version);
        self.allows_absence && !may_be(Version::V1) && !may_be(Version::V2)
    }

    /// Whether headers of that version are accepted.
    #[must_use]
    pub fn allows(&self, version: Version) -> bool {
        !self.disallowed.contains(&version)
    }

    /// What is kept of the extensions.
    #[must_use]
    pub fn keep(&self, tlvs: Vec<Tlv>) -> Received {
        let mut received = Received::default();
        for tlv in &tlvs {
            for rule in self.rules.iter().filter(|rule| rule.kind == tlv.kind) {
                let value = rule.value(&tlv.value);
                if self.to_filter_state {
                    received.filter_state.retain(|(key, _)| *key != rule.key);
                    received.filter_state.push((rule.key.clone(), value));
                } else {
                    received
                        .metadata
                        .push((rule.namespace.clone(), rule.key.clone(), value));
                }
            }
        }
        received.tlvs = tlvs;
        received.tlvs.retain(|tlv| self.pass_through.passes(tlv.kind));
        received
    }
}

impl Rule {
    fn compile(kind: u8, proto: Option<&KeyValuePair>) -> ConfigResult<Self> {
        let proto = proto.cloned().unwrap_or_default();
        if proto.key.is_empty() {
            return Err(ConfigError::at("key", "must not be empty").within("on_tlv_present"));
        }
        let encoding = ValueStringEncoding::try_from(proto.value_string_encoding).map_err(|_| {
            ConfigError::at("value_string_encoding", "unknown value").within("on_tlv_present")
        })?;
        let namespace = match proto.metadata_namespace.as_str() {
            "" => NAMESPACE,
            named => named,
        };
        Ok(Self {
            kind,
            namespace: namespace.into(),
            key: proto.key.into(),
            base64: encoding == ValueStringEncoding::Base64,
        })
    }

    /// A value as text: what is no UTF-8 becomes exclamation marks.
    fn value(&self, bytes: &[u8]) -> Box<str> {
        if self.base64 {
            return base64::engine::general_purpose::STANDARD.encode(bytes).into();
        }
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(std::iter::repeat_n('!', chunk.invalid().len()));
        }
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::json::Schema;
    use serde_json::{Value, json};

    fn compile(json: &Value) -> ConfigResult<ProxyProtocol> {
        let proto: Proto = Schema::get().parse(json).unwrap();
        ProxyProtocol::compile(Some(&any::pack(&proto)), &Registry::new())
    }

    fn tlv(kind: u8, value: &[u8]) -> Tlv {
        Tlv {
            kind,
            value: value.into(),
        }
    }

    #[test]
    fn extensions_become_metadata_as_the_rules_say() {
        let filter = compile(&json!({
            "rules": [
                { "tlv_type": 2, "on_tlv_present": { "key": "name" } },
                { "tlv_type": 3, "on_tlv_present": { "metadata_namespace": "mine", "key": "raw",
                  "value_string_encoding": "BASE64" } }
            ],
            "pass_through_tlvs": { "match_type": "INCLUDE", "tlv_type": [3] }
        }))
        .unwrap();
        let kept = filter.keep(vec![tlv(2, b"a\xffb"), tlv(3, b"\0\x01"), tlv(4, b"other")]);
        assert_eq!(kept.metadata(NAMESPACE, "name"), Some("a!b"));
        assert_eq!(kept.metadata("mine", "raw"), Some("AAE="));
        assert_eq!(kept.tlvs, [tlv(3, b"\0\x01")]);
        assert_eq!(kept.field("name"), None);
    }

    #[test]
    fn extensions_may_go_to_the_filter_state_instead() {
        let rule = json!({ "tlv_type": 2, "on_tlv_present": { "key": "name" } });
        let filter = compile(&json!({ "rules": [rule], "tlv_location": "FILTER_STATE" })).unwrap();
        let kept = filter.keep(vec![tlv(2, b"first"), tlv(2, b"second")]);
        assert_eq!((kept.field("name"), kept.metadata.len()), (Some("second"), 0));
    }

    #[test]
    fn a_disallowed_version_is_no_header_where_none_is_needed() {
        let filter = compile(&json!({
            "allow_requests_without_proxy_protocol": true, "disallowed_versions": ["V1"]
        }))
        .unwrap();
        assert!(filter.goes_without(b"PROXY TCP4") && !filter.goes_without(b"\r\n\r\n"));
        let strict = compile(&json!({ "disallowed_versions": ["V1"] })).unwrap();
        assert!(!strict.goes_without(b"GET") && !strict.allows(Version::V1) && strict.allows(Version::V2));
    }

    #[test]
    fn malformed_settings_are_refused_by_name() {
        let path = |json: Value| compile(&json).unwrap_err().path().to_owned();
        let rule = |json: Value| json!({ "rules": [json] });
        assert_eq!(path(rule(json!({ "tlv_type": 256 }))), "rules[0].tlv_type");
        assert_eq!(
            path(rule(json!({ "tlv_type": 1 }))),
            "rules[0].on_tlv_present.key"
        );
        assert_eq!(
            path(json!({ "pass_through_tlvs": { "tlv_type": [1, 300] } })),
            "pass_through_tlvs.tlv_type[1]"
        );
    }
}
