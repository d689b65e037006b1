//! Filter chains and listener filters that all listeners share.

use api_envoy::envoy::config::core::v3::{CidrRange, Metadata};
use api_envoy::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
    listener_filter_chain_match_predicate::{MatchSet, Rule},
};
use api_envoy::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use api_envoy::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use api_envoy::envoy::r#type::v3::Int32Range;
use api_envoy::wkt;
use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use control_snapshot::{Protocol, ProxyView};

use crate::extension::listener_filter;
use crate::mutual_tls::PLAINTEXT_HTTP_ALPN;
use crate::role::Role;
use crate::tcp::Stream;
use crate::{limits, names};

/// The chain that takes what no other chain of a service's listener does.
const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";
/// The transport protocol of what is not TLS.
pub(super) const RAW_BUFFER: &str = "raw_buffer";
/// The transport protocol of TLS.
pub(super) const TLS: &str = "tls";

/// ALPN of plain HTTP; HTTP/1.0 where it is accepted.
pub(super) fn plaintext_http(view: &ProxyView) -> Vec<String> {
    let http10 = view.profile.http10.then(|| "http/1.0".to_owned());
    http10
        .into_iter()
        .chain(PLAINTEXT_HTTP_ALPN.map(str::to_owned))
        .collect()
}

/// Everything but the filters: what connections a chain takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conditions {
    /// Server names of TLS.
    pub(super) server_names: Vec<String>,
    /// Destination ranges, `address/bits` or an address.
    pub(super) ranges: Vec<String>,
    /// ALPN or sniffed protocol.
    pub(super) application_protocols: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub(super) transport: &'static str,
    /// The destination port.
    pub(super) port: Option<u32>,
}

impl Conditions {
    /// Whether every connection meets them.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn to_match(&self) -> Option<FilterChainMatch> {
        (!self.is_empty()).then(|| FilterChainMatch {
            destination_port: self.port,
            server_names: self.server_names.clone(),
            prefix_ranges: self.ranges.iter().filter_map(|r| range(r)).collect(),
            transport_protocol: self.transport.to_owned(),
            application_protocols: self.application_protocols.clone(),
            ..FilterChainMatch::default()
        })
    }
}

/// Server names as a condition: none where one of them is any.
pub(super) fn server_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    if names.iter().any(|name| name == "*") {
        return Vec::new();
    }
    names
}

/// `address/bits`, or an address alone, which is a range of one.
pub(super) fn range(text: &str) -> Option<CidrRange> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, bits.parse().ok()?),
        None => (text, if text.contains(':') { 128 } else { 32 }),
    };
    Some(CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: Some(bits),
    })
}

/// A chain of a service's or gateway's listener.
pub(super) fn outbound(
    conditions: &Conditions,
    filters: Vec<Filter>,
    metadata: Option<Metadata>,
) -> FilterChain {
    FilterChain {
        filter_chain_match: conditions.to_match(),
        filters,
        metadata,
        transport_socket_connect_timeout: Some(wkt::seconds(
            limits::TRANSPORT_SOCKET_CONNECT_TIMEOUT_SECONDS,
        )),
        ..FilterChain::default()
    }
}

/// Traffic that no service claims: onwards to where it was going, or nowhere.
pub(super) fn unclaimed(view: &ProxyView) -> Stream<'_> {
    let cluster = match view.outbound {
        OutboundMode::RegistryOnly => names::BLACK_HOLE_CLUSTER,
        OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => names::PASSTHROUGH_CLUSTER,
    };
    Stream {
        view,
        role: Role::SidecarOutbound,
        protocol: Protocol::Tcp,
        stat_prefix: cluster.to_owned(),
        destinations: vec![(cluster.to_owned(), 1)],
        logged: true,
        policy: None,
    }
}

/// The default chain of a service's listener.
pub(super) fn passthrough(view: &ProxyView) -> FilterChain {
    FilterChain {
        name: PASSTHROUGH_CHAIN.to_owned(),
        filter_chain_match: Some(FilterChainMatch::default()),
        filters: unclaimed(view).filters(),
        ..FilterChain::default()
    }
}

/// Reads the ClientHello.
pub(super) fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector {
        initial_read_buffer_size: Some(limits::TLS_INSPECTOR_BUFFER_BYTES),
        ..TlsInspector::default()
    };
    listener_filter("envoy.filters.listener.tls_inspector", &config)
}

/// Tells HTTP from other protocols by the first bytes.
pub(super) fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector {})
}

/// Switches a listener filter off for these destination ports.
pub(super) fn disabled_on(mut filter: ListenerFilter, ports: &[u32]) -> ListenerFilter {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| predicate(Rule::DestinationPortRange(one(*port))))
        .collect();
    filter.filter_disabled = match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(predicate(Rule::OrMatch(MatchSet { rules }))),
    };
    filter
}

/// A condition on a connection.
pub(super) fn predicate(rule: Rule) -> ListenerFilterChainMatchPredicate {
    ListenerFilterChainMatchPredicate { rule: Some(rule) }
}

/// A half-open range of one port.
fn one(port: u32) -> Int32Range {
    let start = i32::try_from(port).unwrap_or(0);
    Int32Range {
        start,
        end: start + 1,
    }
}
