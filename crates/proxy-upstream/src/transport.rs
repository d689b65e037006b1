//! Which transport socket a host gets (`Cluster.transport_socket`, `Cluster.transport_socket_matches`).
//!
//! Plaintext is what exists today. A cluster whose every host would need another transport is refused; where matches
//! decide per host, a host that needs another transport is kept, and connecting to it fails with the reason.

use std::sync::Arc;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::transport_socket::ConfigType;
use api_envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api_envoy::{Struct, any};
use proxy_core::{ConfigError, ConfigResult};

/// The metadata that `transport_socket_matches` looks at.
const MATCH_METADATA: &str = "envoy.transport_socket_match";

/// The transport socket of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `envoy.transport_sockets.raw_buffer`.
    Plaintext,
    /// One that this proxy does not have; the reason goes into `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    Unavailable(Arc<str>),
}

#[derive(Clone, Debug)]
struct Match {
    criteria: Option<Struct>,
    transport: Transport,
}

/// Which transport socket a host gets.
#[derive(Clone, Debug)]
pub struct TransportSelection {
    matches: Vec<Match>,
    default: Transport,
}

impl TransportSelection {
    /// Plaintext for every host.
    #[must_use]
    pub const fn plaintext() -> Self {
        Self {
            matches: Vec::new(),
            default: Transport::Plaintext,
        }
    }

    /// Reads the transport sockets of a cluster.
    ///
    /// # Errors
    /// The cluster's own transport socket is one that this proxy does not have.
    pub fn compile(proto: &pb::Cluster) -> ConfigResult<Self> {
        if let Some(socket) = proto.transport_socket.as_ref().filter(|s| !is_plaintext(s)) {
            return Err(ConfigError::at(
                "transport_socket",
                format!("no transport socket {:?}", socket.name),
            ));
        }
        let matches = proto.transport_socket_matches.iter().map(|m| {
            let transport = match &m.transport_socket {
                Some(socket) if !is_plaintext(socket) => {
                    Transport::Unavailable(format!("transport socket {:?} is not available", m.name).into())
                }
                _ => Transport::Plaintext,
            };
            Match {
                criteria: m.r#match.clone(),
                transport,
            }
        });
        Ok(Self {
            matches: matches.collect(),
            default: Transport::Plaintext,
        })
    }

    /// The transport of a host: the first match that its own metadata satisfies, else the first that its locality's
    /// does, else the cluster's own.
    #[must_use]
    pub fn of(&self, host: Option<&core::Metadata>, locality: Option<&core::Metadata>) -> Transport {
        let found = [host, locality].into_iter().flatten().find_map(|metadata| {
            let labels = metadata.filter_metadata.get(MATCH_METADATA);
            self.matches
                .iter()
                .find(|m| satisfies(m.criteria.as_ref(), labels))
        });
        found.map_or_else(|| self.default.clone(), |m| m.transport.clone())
    }
}

fn satisfies(criteria: Option<&Struct>, labels: Option<&Struct>) -> bool {
    let Some(criteria) = criteria else { return true };
    criteria
        .fields
        .iter()
        .all(|(key, wanted)| labels.and_then(|l| l.fields.get(key)) == Some(wanted))
}

fn is_plaintext(socket: &core::TransportSocket) -> bool {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(typed)) => any::is::<RawBuffer>(typed),
        None => matches!(&*socket.name, "envoy.transport_sockets.raw_buffer" | "raw_buffer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    use api_envoy::wkt;
    use serde_json::json;

    fn socket(name: &str) -> Option<core::TransportSocket> {
        Some(core::TransportSocket {
            name: name.to_owned(),
            config_type: None,
        })
    }

    fn istio_auto_mtls() -> TransportSelection {
        let tls = TransportSocketMatch {
            name: "tlsMode-istio".into(),
            r#match: Some(wkt::structure(&json!({ "tlsMode": "istio" }))),
            transport_socket: socket("envoy.transport_sockets.tls"),
        };
        let plaintext = TransportSocketMatch {
            name: "tlsMode-disabled".into(),
            r#match: Some(wkt::structure(&json!({}))),
            transport_socket: socket("envoy.transport_sockets.raw_buffer"),
        };
        let cluster = pb::Cluster {
            transport_socket_matches: vec![tls, plaintext],
            ..Default::default()
        };
        TransportSelection::compile(&cluster).unwrap()
    }

    fn labels(value: &str) -> core::Metadata {
        let labels = wkt::structure(&json!({ "tlsMode": value }));
        core::Metadata {
            filter_metadata: [(MATCH_METADATA.to_owned(), labels)].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_host_that_wants_mutual_tls_is_unavailable_and_the_others_are_plaintext() {
        let selection = istio_auto_mtls();
        assert!(matches!(
            selection.of(Some(&labels("istio")), None),
            Transport::Unavailable(_)
        ));
        assert_eq!(
            selection.of(Some(&labels("disabled")), None),
            Transport::Plaintext
        );
        assert_eq!(selection.of(None, None), Transport::Plaintext);
    }

    #[test]
    fn the_locality_decides_when_the_host_says_nothing() {
        let selection = istio_auto_mtls();
        assert!(matches!(
            selection.of(None, Some(&labels("istio"))),
            Transport::Unavailable(_)
        ));
    }

    #[test]
    fn a_cluster_that_is_tls_for_all_hosts_is_refused() {
        let cluster = pb::Cluster {
            transport_socket: socket("envoy.transport_sockets.tls"),
            ..Default::default()
        };
        let error = TransportSelection::compile(&cluster).unwrap_err();
        assert_eq!(error.path(), "transport_socket");
    }
}
