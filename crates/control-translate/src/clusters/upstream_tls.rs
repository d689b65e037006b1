//! What a cluster does about TLS: the mesh's own where both sides can, or what a DestinationRule says.

use api_envoy::envoy::config::cluster::v3::{
    Cluster,
    cluster::{DiscoveryType, TransportSocketMatch},
};
use api_envoy::envoy::config::core::v3::{
    ProxyProtocolConfig, TransportSocket, proxy_protocol_config::Version as Revision,
};
use api_envoy::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use api_envoy::wkt;
use api_istio::networking::{
    ClientTlsMode, ClientTlsSettings, DestinationRule, PortTrafficPolicy, ProxyProtocolVersion, TrafficPolicy,
};
use control_snapshot::{Protocol, ServiceView};
use diagnostics::{Code, Diagnostic};
use serde_json::json;
use std::sync::Arc;

use super::protocol::{self, Version};
use crate::client::Client;
use crate::extension::transport_socket;
use crate::features::tls_origination::{CREDENTIAL_FIELD, Origination, Refusal};
use crate::mutual_tls::{self, Announced};
use crate::names;

/// What a cluster is for.
pub(super) struct Upstream<'a> {
    pub(super) client: &'a Client,
    pub(super) service: &'a ServiceView,
    pub(super) port: u32,
    pub(super) subset: &'a str,
    pub(super) discovery: DiscoveryType,
    pub(super) protocol: Protocol,
    pub(super) version: Version,
}

/// Sets transport sockets; `false` when the policy asks for TLS that cannot be had, and the cluster must not exist:
/// plain text would be worse than no connection.
pub(super) fn apply(
    cluster: &mut Cluster,
    upstream: &Upstream<'_>,
    policy: &TrafficPolicy,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    match socket(cluster, upstream, policy.tls.as_ref()) {
        Ok(()) => {}
        Err(refusal) => {
            diagnostics.extend(report(upstream, &refusal));
            return false;
        }
    }
    if let Some(settings) = &policy.proxy_protocol {
        announce_client(cluster, settings.version);
    }
    true
}

fn socket(
    cluster: &mut Cluster,
    upstream: &Upstream<'_>,
    tls: Option<&ClientTlsSettings>,
) -> Result<(), Refusal> {
    let Some(tls) = tls else {
        offer(cluster, upstream);
        return Ok(());
    };
    match tls.mode {
        ClientTlsMode::Disable => {}
        ClientTlsMode::IstioMutual if upstream.client.identity => {
            cluster.transport_socket = Some(upstream.mutual(Some(tls)));
        }
        ClientTlsMode::IstioMutual => {
            return Err(Refusal {
                field: "mode",
                message: "mode ISTIO_MUTUAL needs an identity, and this workload has none".to_owned(),
            });
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            let origination = Origination {
                client: upstream.client,
                service: upstream.service,
                tls,
                http2: upstream.version == Version::Http2,
            };
            match origination.socket() {
                Ok(socket) => {
                    cluster.transport_socket = Some(socket);
                    if let Some(verify) = origination.named_by_requests() {
                        protocol::name_servers_by_request(cluster, verify);
                    }
                }
                // The application ends up at the server with the TLS that it speaks by itself.
                Err(refusal) if refusal.field == CREDENTIAL_FIELD && upstream.protocol.is_tls() => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }
    Ok(())
}

/// Without a rule the mesh's mutual TLS is spoken where both sides can.
fn offer(cluster: &mut Cluster, upstream: &Upstream<'_>) {
    let Upstream { client, service, .. } = *upstream;
    if !client.identity || !client.mesh.auto_mtls() || service.service.external || service.refuses_mutual_tls
    {
        return;
    }
    if upstream.discovery == DiscoveryType::OriginalDst {
        // The address is not known beforehand, so all workloads must be able, or none is asked.
        if service.all_mutual_tls {
            cluster.transport_socket = Some(upstream.mutual(None));
        }
    } else {
        cluster.transport_socket_matches = upstream.where_offered();
    }
}

/// Connections begin with the PROXY protocol, whatever else they carry (`trafficPolicy.proxyProtocol`).
fn announce_client(cluster: &mut Cluster, version: ProxyProtocolVersion) {
    let version = match version {
        ProxyProtocolVersion::V1 => Revision::V1,
        ProxyProtocolVersion::V2 => Revision::V2,
    };
    let wrap = |inner: TransportSocket| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                version: version.into(),
                ..ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner),
            ..ProxyProtocolUpstreamTransport::default()
        };
        transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
    };
    if cluster.transport_socket_matches.is_empty() {
        let plain = || TransportSocket {
            name: "raw_buffer".to_owned(),
            ..mutual_tls::raw_buffer()
        };
        cluster.transport_socket = Some(wrap(cluster.transport_socket.take().unwrap_or_else(plain)));
    }
    for socket in &mut cluster.transport_socket_matches {
        socket.transport_socket = socket.transport_socket.take().map(wrap);
    }
}

impl Upstream<'_> {
    /// The mesh's mutual TLS. A rule may name the server and its identities otherwise, as for calls through a gateway.
    fn mutual(&self, tls: Option<&ClientTlsSettings>) -> TransportSocket {
        let asked = tls.map(|tls| tls.sni.as_str()).filter(|sni| !sni.is_empty());
        let sni = asked.map_or_else(
            || names::server_name(self.port, self.subset, &self.service.service.hostname),
            str::to_owned,
        );
        let expected = tls
            .map(|tls| &tls.subject_alt_names)
            .filter(|names| !names.is_empty());
        let announced = (self.announced(), self.client.exchanges_metadata);
        match expected {
            Some(names) => {
                let names: Vec<Arc<str>> = names.iter().map(|name| name.as_str().into()).collect();
                mutual_tls::client(sni, &names, announced)
            }
            None => mutual_tls::client(sni, &self.service.identities, announced),
        }
    }

    /// A proxy that cannot say per request what it speaks says it for the whole cluster, where that is known.
    fn announced(&self) -> Announced {
        match (self.version, self.client.announces_protocols) {
            (Version::Http1, false) if self.protocol.is_http() => Announced::Http1,
            (Version::Http2, false) => Announced::Http2,
            (Version::Http2, true) => Announced::Http2Stream,
            (Version::Http1 | Version::AsDownstream, _) => Announced::Stream,
        }
    }

    /// Mutual TLS to endpoints that offer it, plain text to the others.
    fn where_offered(&self) -> Vec<TransportSocketMatch> {
        vec![
            TransportSocketMatch {
                name: "tlsMode-istio".to_owned(),
                r#match: Some(wkt::structure(&json!({"tlsMode": "istio"}))),
                transport_socket: Some(self.mutual(None)),
            },
            TransportSocketMatch {
                name: "tlsMode-disabled".to_owned(),
                r#match: Some(wkt::structure(&json!({}))),
                transport_socket: Some(mutual_tls::raw_buffer()),
            },
        ]
    }
}

fn report(upstream: &Upstream<'_>, refusal: &Refusal) -> Option<Diagnostic> {
    let rule = upstream.service.rule.as_ref()?;
    let host = &upstream.service.service.hostname;
    let message = format!("TLS towards {host}: {}", refusal.message);
    Some(
        Diagnostic::new(Code::SchemaWarning, rule.config.resource(), message)
            .at(format!("{}.{}", field(&rule.config.spec, upstream), refusal.field))
            .hint("the cluster is left out, so that nothing is sent in plain text; requests are answered with 503"),
    )
}

/// Where a rule says what TLS a cluster has: the subset's port, the subset, the host's port or the host.
fn field(rule: &DestinationRule, upstream: &Upstream<'_>) -> String {
    let subset = rule
        .subsets
        .iter()
        .enumerate()
        .filter(|(_, subset)| subset.name == upstream.subset);
    let of_subset = subset.filter_map(|(index, subset)| {
        let path = format!("spec.subsets[{index}].trafficPolicy");
        Some((path, subset.traffic_policy.as_ref()?))
    });
    let of_host = rule
        .traffic_policy
        .iter()
        .map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let found = of_subset.chain(of_host).find_map(|(path, policy)| {
        let here = |at: &PortTrafficPolicy| at.port.as_ref().is_some_and(|p| p.number == upstream.port);
        match policy.port_level_settings.iter().position(here) {
            Some(index) => {
                let settings = policy.port_level_settings.get(index)?;
                let path = format!("{path}.portLevelSettings[{index}].tls");
                settings.tls.as_ref().map(|_| path)
            }
            None => policy.tls.as_ref().map(|_| format!("{path}.tls")),
        }
    });
    found.unwrap_or_else(|| "spec.trafficPolicy.tls".to_owned())
}
