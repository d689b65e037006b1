//! Which transport socket a host gets (`Cluster.transport_socket`, `Cluster.transport_socket_matches`).
//!
//! Plaintext, TLS, and the PROXY protocol before either. A cluster whose every host would need another transport is
//! refused; where matches decide per host, a host that needs one is kept, and connecting to it fails with the reason.

use std::sync::Arc;

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::transport_socket::ConfigType;
use api_envoy::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api_envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls_pb;
use api_envoy::{Struct, any};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::Scope;
use tls::settings::UpstreamTlsContext;
use tls::{ClientContext, Current};

use crate::proxy_protocol::Announcer;
use crate::secrets::{Origins, SecretKey, SecretRefs, SecretStore};
use crate::ssl_stats::SslStats;
use crate::tls_context::{self, Translated};

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
    /// `envoy.transport_sockets.upstream_proxy_protocol`, and the one inside it.
    ProxyProtocol(Arc<Announcing>),
    /// One that this proxy does not have; the reason goes into `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    Unavailable(Arc<str>),
}

/// A transport socket before which the host is told of the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Announcing {
    /// What tells.
    pub announcer: Announcer,
    /// What the connection goes on with.
    pub inner: Transport,
}

impl Transport {
    /// How the TLS handshake with the host is done, where one is.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsTransport>> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::ProxyProtocol(around) => around.inner.tls(),
            Self::Plaintext | Self::Unavailable(_) => None,
        }
    }

    /// Whether a TLS handshake is done with the host.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls().is_some()
    }

    /// Whether a connection tells the host of one downstream connection, and so is for that one alone.
    #[must_use]
    pub fn announces(&self) -> bool {
        matches!(self, Self::ProxyProtocol(_))
    }

    /// The same for a host with that metadata.
    fn for_host(self, host: Option<&core::Metadata>) -> Self {
        match (&self, host) {
            (Self::ProxyProtocol(around), Some(metadata)) => match around.announcer.for_host(metadata) {
                Some(announcer) => Self::ProxyProtocol(Arc::new(Announcing {
                    announcer,
                    inner: around.inner.clone(),
                })),
                None => self,
            },
            _ => self,
        }
    }
}

/// TLS towards hosts. Equal where the settings are; secrets may make another context of them meanwhile.
#[derive(Debug)]
pub struct TlsTransport {
    settings: UpstreamTlsContext,
    secrets: SecretRefs,
    origins: Origins,
    current: Current<ClientContext>,
    /// What is offered where HTTP/1 will be spoken, when that differs from the settings.
    http1_alpn: Vec<String>,
    stats: SslStats,
}

impl PartialEq for TlsTransport {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.secrets == other.secrets
    }
}

impl Eq for TlsTransport {}

/// What Envoy calls the statistics of contexts towards hosts.
const FACTORY: &str = "client_ssl_socket_factory";

impl TlsTransport {
    fn compile(
        translated: Translated<UpstreamTlsContext>,
        scope: &Scope,
        store: &mut SecretStore,
        awaited: &mut Vec<SecretKey>,
    ) -> ConfigResult<Self> {
        let Translated {
            settings,
            secrets,
            origins,
        } = translated;
        let context = store.context(settings.clone(), &secrets, (scope, FACTORY))?;
        awaited.extend(context.secrets);
        Ok(Self {
            http1_alpn: http1_alpn(&settings.common.alpn_protocols),
            current: context.current,
            settings,
            secrets,
            origins,
            stats: SslStats::new(scope, FACTORY),
        })
    }

    /// What handshakes are done with; none as long as its secrets have not come.
    #[must_use]
    pub fn context(&self) -> Option<Arc<ClientContext>> {
        self.current.get()
    }

    /// The same, to be asked before each handshake.
    #[must_use]
    pub fn current(&self) -> &Current<ClientContext> {
        &self.current
    }

    /// Where its certificates came from.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.origins
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
    secrets: Vec<SecretKey>,
}

impl TransportSelection {
    /// Plaintext for every host.
    #[must_use]
    pub const fn plaintext() -> Self {
        Self {
            matches: Vec::new(),
            default: Transport::Plaintext,
            secrets: Vec::new(),
        }
    }

    /// Reads the transport sockets of a cluster, whose statistics are in `scope`. Secrets that they need are asked of
    /// `store`, and are in [`TransportSelection::secrets`].
    ///
    /// # Errors
    /// The cluster's own transport socket is one that this proxy does not have, or a TLS context is not good.
    pub fn compile(proto: &pb::Cluster, scope: &Scope, store: &mut SecretStore) -> ConfigResult<Self> {
        let mut secrets = Vec::new();
        let mut compiled = |socket| compiled(socket, scope, store, &mut secrets);
        let default = match &proto.transport_socket {
            None => Transport::Plaintext,
            Some(socket) => match compiled(socket).within("transport_socket")? {
                Compiled::Transport(transport) => transport,
                Compiled::Unavailable(error) => return Err(error.within("transport_socket")),
            },
        };
        let mut matches = Vec::with_capacity(proto.transport_socket_matches.len());
        for (index, proto) in proto.transport_socket_matches.iter().enumerate() {
            let socket = proto.transport_socket.as_ref();
            let socket = socket.map(|socket| compiled(socket).within("transport_socket"));
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
        Ok(Self {
            matches,
            default,
            secrets,
        })
    }

    /// The secrets that must be there before the hosts can be spoken to.
    #[must_use]
    pub fn secrets(&self) -> &[SecretKey] {
        &self.secrets
    }

    /// Every transport that some host may get.
    pub fn all(&self) -> impl Iterator<Item = &Transport> {
        let matches = self.matches.iter().map(|m| &m.transport);
        matches.chain(std::iter::once(&self.default))
    }

    /// The transport of a host: the first match that its own metadata satisfies, else the first that its locality's
    /// does, else the cluster's own. A match that asks for nothing is satisfied by a host without metadata.
    #[must_use]
    pub fn of(&self, host: Option<&core::Metadata>, locality: Option<&core::Metadata>) -> Transport {
        let found = [host, locality].into_iter().find_map(|metadata| {
            let labels = metadata.and_then(|m| m.filter_metadata.get(MATCH_METADATA));
            self.matches
                .iter()
                .find(|m| satisfies(m.criteria.as_ref(), labels))
        });
        let transport = found.map_or(&self.default, |m| &m.transport);
        transport.clone().for_host(host)
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

fn compiled(
    socket: &core::TransportSocket,
    scope: &Scope,
    store: &mut SecretStore,
    secrets: &mut Vec<SecretKey>,
) -> ConfigResult<Compiled> {
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
    if any::is::<ProxyProtocolUpstreamTransport>(typed) {
        return announcing(typed, scope, store, secrets).within("typed_config");
    }
    if !any::is::<tls_pb::UpstreamTlsContext>(typed) {
        return Ok(Compiled::Unavailable(unavailable()));
    }
    let transport = tls_transport(typed, scope, store, secrets).within("typed_config")?;
    Ok(Compiled::Transport(Transport::Tls(Arc::new(transport))))
}

/// The PROXY protocol around another transport socket.
fn announcing(
    typed: &api_envoy::Any,
    scope: &Scope,
    store: &mut SecretStore,
    secrets: &mut Vec<SecretKey>,
) -> ConfigResult<Compiled> {
    let proto: ProxyProtocolUpstreamTransport =
        any::unpack(typed).map_err(|error| ConfigError::new(error.to_string()))?;
    let inner = proto.transport_socket.as_ref();
    let inner = inner.ok_or_else(|| ConfigError::at("transport_socket", "a transport socket is needed"))?;
    match compiled(inner, scope, store, secrets).within("transport_socket")? {
        Compiled::Unavailable(error) => Ok(Compiled::Unavailable(error.within("transport_socket"))),
        Compiled::Transport(inner) if inner.announces() => Err(ConfigError::at(
            "transport_socket",
            "a connection has one header of the PROXY protocol",
        )),
        Compiled::Transport(inner) => {
            let announcer = Announcer::compile(&proto, scope)?;
            let around = Arc::new(Announcing { announcer, inner });
            Ok(Compiled::Transport(Transport::ProxyProtocol(around)))
        }
    }
}

fn tls_transport(
    typed: &api_envoy::Any,
    scope: &Scope,
    store: &mut SecretStore,
    secrets: &mut Vec<SecretKey>,
) -> ConfigResult<TlsTransport> {
    let proto: tls_pb::UpstreamTlsContext =
        any::unpack(typed).map_err(|error| ConfigError::new(error.to_string()))?;
    TlsTransport::compile(tls_context::upstream(&proto)?, scope, store, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Sources;
    use api_envoy::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    use api_envoy::wkt;
    use serde_json::json;
    use telemetry::stats::Registry;

    fn compiled(cluster: &pb::Cluster) -> ConfigResult<TransportSelection> {
        let registry = Registry::new();
        let mut store = SecretStore::new(&registry, Sources::default());
        TransportSelection::compile(cluster, &registry.cluster_scope("c"), &mut store)
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
        compiled(&cluster).unwrap()
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

    fn selection(criteria: &[serde_json::Value]) -> TransportSelection {
        let matches = criteria.iter().map(|criteria| TransportSocketMatch {
            name: "tls".into(),
            r#match: Some(wkt::structure(criteria)),
            transport_socket: socket("envoy.transport_sockets.tls"),
        });
        let cluster = pb::Cluster {
            transport_socket_matches: matches.collect(),
            ..Default::default()
        };
        compiled(&cluster).unwrap()
    }

    #[test]
    fn the_locality_decides_when_the_host_matches_nothing() {
        let selection = selection(&[json!({ "tlsMode": "istio" })]);
        assert!(matches!(
            selection.of(None, Some(&labels("istio"))),
            Transport::Unavailable(_)
        ));
        assert_eq!(
            istio_auto_mtls().of(None, Some(&labels("istio"))),
            Transport::Plaintext,
            "what asks for nothing is satisfied before the locality is looked at"
        );
    }

    #[test]
    fn a_match_that_asks_for_nothing_is_for_hosts_without_metadata_too() {
        let selection = selection(&[json!({})]);
        assert!(matches!(selection.of(None, None), Transport::Unavailable(_)));
        assert!(matches!(
            selection.of(Some(&labels("other")), None),
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
        let error = compiled(&cluster).unwrap_err();
        assert_eq!(error.path(), "transport_socket");
    }
}
