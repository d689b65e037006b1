//! Which transport socket a host gets (`Cluster.transport_socket`, `Cluster.transport_socket_matches`).
//!
//! Plaintext and TLS. A cluster whose every host would need another transport, or a secret, is refused; where matches
//! decide per host, a host that needs one is kept, and connecting to it fails with the reason.

use std::sync::Arc;
use std::time::SystemTime;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::transport_socket::ConfigType;
use api_envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use api_envoy::{Struct, any};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::Scope;
use tls::ClientContext;
use tls::settings::UpstreamTlsContext;

use crate::ssl_stats::SslStats;
use crate::tls_context;

/// The metadata that `transport_socket_matches` looks at.
const MATCH_METADATA: &str = "envoy.transport_socket_match";

/// What HTTP/2 is called in a handshake (RFC 9113, section 3.2).
pub const ALPN_HTTP_2: &str = "h2";

/// What HTTP/1.1 is called in a handshake.
pub const ALPN_HTTP_11: &str = "http/1.1";

/// The transport socket of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `envoy.transport_sockets.raw_buffer`.
    Plaintext,
    /// `envoy.transport_sockets.tls`.
    Tls(Arc<TlsTransport>),
    /// One that this proxy does not have; the reason goes into `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    Unavailable(Arc<str>),
}

/// TLS towards hosts. Equal where the settings are.
#[derive(Debug)]
pub struct TlsTransport {
    settings: UpstreamTlsContext,
    context: ClientContext,
    /// What is offered where HTTP/1 will be spoken, when that differs from the settings.
    http1_alpn: Vec<String>,
    stats: SslStats,
}

impl PartialEq for TlsTransport {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for TlsTransport {}

impl TlsTransport {
    fn compile(settings: UpstreamTlsContext, scope: &Scope) -> ConfigResult<Self> {
        let context = ClientContext::new(&settings, SystemTime::now())
            .map_err(|error| ConfigError::new(error.to_string()))?;
        if !context.left_out().is_empty() {
            tracing::info!(names = ?context.left_out(), "left out of a TLS context, as nothing here offers them");
        }
        Ok(Self {
            http1_alpn: http1_alpn(&settings.common.alpn_protocols),
            context,
            settings,
            stats: SslStats::new(scope),
        })
    }

    /// What handshakes are done with.
    #[must_use]
    pub fn context(&self) -> &ClientContext {
        &self.context
    }

    /// What a connection for HTTP/1 offers in place of the context's own protocols; empty when there is no difference.
    #[must_use]
    pub fn http1_alpn(&self) -> &[String] {
        &self.http1_alpn
    }

    /// Whether the settings name no application protocol, so that those are offered that will be spoken.
    #[must_use]
    pub fn names_no_alpn(&self) -> bool {
        self.settings.common.alpn_protocols.is_empty()
    }

    /// The statistics of handshakes.
    #[must_use]
    pub fn stats(&self) -> &SslStats {
        &self.stats
    }
}

/// A host that agrees on HTTP/2 would not understand the requests of a connection for HTTP/1.
fn http1_alpn(configured: &[String]) -> Vec<String> {
    let spoken = |name: &&String| *name != ALPN_HTTP_2;
    if !configured.is_empty() && configured.iter().all(|name| spoken(&name)) {
        return Vec::new();
    }
    let left: Vec<String> = configured.iter().filter(spoken).cloned().collect();
    match left.is_empty() {
        true => vec![ALPN_HTTP_11.to_owned()],
        false => left,
    }
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

    /// Reads the transport sockets of a cluster, whose statistics are in `scope`.
    ///
    /// # Errors
    /// The cluster's own transport socket is one that this proxy does not have, or a TLS context is not good.
    pub fn compile(proto: &pb::Cluster, scope: &Scope) -> ConfigResult<Self> {
        let default = match &proto.transport_socket {
            None => Transport::Plaintext,
            Some(socket) => match compiled(socket, scope).within("transport_socket")? {
                Compiled::Transport(transport) => transport,
                Compiled::Unavailable(error) => return Err(error.within("transport_socket")),
            },
        };
        let mut matches = Vec::with_capacity(proto.transport_socket_matches.len());
        for (index, proto) in proto.transport_socket_matches.iter().enumerate() {
            let socket = proto.transport_socket.as_ref();
            let socket = socket.map(|socket| compiled(socket, scope).within("transport_socket"));
            let transport = match socket
                .transpose()
                .within_index("transport_socket_matches", index)?
            {
                None => Transport::Plaintext,
                Some(Compiled::Transport(transport)) => transport,
                Some(Compiled::Unavailable(_)) => Transport::Unavailable(
                    format!("transport socket {:?} is not available", proto.name).into(),
                ),
            };
            matches.push(Match {
                criteria: proto.r#match.clone(),
                transport,
            });
        }
        Ok(Self { matches, default })
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

    /// The transport of hosts that no metadata describes.
    #[must_use]
    pub fn default_transport(&self) -> &Transport {
        &self.default
    }
}

fn satisfies(criteria: Option<&Struct>, labels: Option<&Struct>) -> bool {
    let Some(criteria) = criteria else { return true };
    criteria
        .fields
        .iter()
        .all(|(key, wanted)| labels.and_then(|l| l.fields.get(key)) == Some(wanted))
}

/// A transport socket, or the refusal of one that this proxy cannot provide.
enum Compiled {
    Transport(Transport),
    Unavailable(ConfigError),
}

fn compiled(socket: &core::TransportSocket, scope: &Scope) -> ConfigResult<Compiled> {
    let unavailable = || ConfigError::new(format!("no transport socket {:?}", socket.name));
    let Some(ConfigType::TypedConfig(typed)) = &socket.config_type else {
        let is_plaintext = matches!(&*socket.name, "envoy.transport_sockets.raw_buffer" | "raw_buffer");
        return Ok(match is_plaintext {
            true => Compiled::Transport(Transport::Plaintext),
            false => Compiled::Unavailable(unavailable()),
        });
    };
    if any::is::<RawBuffer>(typed) {
        return Ok(Compiled::Transport(Transport::Plaintext));
    }
    if !any::is::<tls_pb::UpstreamTlsContext>(typed) {
        return Ok(Compiled::Unavailable(unavailable()));
    }
    tls_transport(typed, scope).within("typed_config")
}

fn tls_transport(typed: &api_envoy::Any, scope: &Scope) -> ConfigResult<Compiled> {
    let proto: tls_pb::UpstreamTlsContext =
        any::unpack(typed).map_err(|error| ConfigError::new(error.to_string()))?;
    let translated = tls_context::upstream(&proto)?;
    if let Some(secret) = translated.secret {
        return Ok(Compiled::Unavailable(secret.within("typed_config")));
    }
    let transport = TlsTransport::compile(translated.settings, scope)?;
    Ok(Compiled::Transport(Transport::Tls(Arc::new(transport))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    use api_envoy::wkt;
    use serde_json::json;
    use telemetry::stats::Registry;

    fn scope() -> Scope {
        Registry::new().cluster_scope("c")
    }

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
        TransportSelection::compile(&cluster, &scope()).unwrap()
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
    fn requests_do_not_offer_what_they_are_not_sent_in() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.into()).collect() };
        assert!(http1_alpn(&names(&["http/1.1", "istio"])).is_empty());
        assert_eq!(http1_alpn(&names(&["h2", "istio"])), ["istio"]);
        assert_eq!(http1_alpn(&names(&["h2"])), ["http/1.1"]);
        assert_eq!(http1_alpn(&[]), ["http/1.1"]);
    }

    #[test]
    fn a_cluster_whose_tls_has_no_configuration_is_refused() {
        let cluster = pb::Cluster {
            transport_socket: socket("envoy.transport_sockets.tls"),
            ..Default::default()
        };
        let error = TransportSelection::compile(&cluster, &scope()).unwrap_err();
        assert_eq!(error.path(), "transport_socket");
    }
}
