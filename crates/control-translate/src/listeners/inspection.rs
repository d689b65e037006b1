//! Which bytes of a captured connection are looked at before its chain is chosen: those of ports whose chains differ by
//! TLS or by protocol. Elsewhere nothing is waited for, and the server may be the first to speak.

use std::collections::BTreeMap;

use api_envoy::envoy::config::listener::v3::{
    FilterChain, ListenerFilter, listener_filter_chain_match_predicate::Rule,
};

use super::chain::{self, TLS};
use crate::mutual_tls::PLAINTEXT_HTTP_ALPN;

/// Stands for all ports without chains of their own.
const OTHER_PORTS: u32 = 0;

/// What the chains of a port tell apart.
#[derive(Clone, Copy, Default)]
struct Needs {
    tls: bool,
    http: bool,
}

/// The inspectors that these chains need, each switched off where it is not needed.
pub(super) fn inspectors(chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let mut ports: BTreeMap<u32, Needs> = BTreeMap::new();
    for chain in chains {
        let conditions = chain.filter_chain_match.clone().unwrap_or_default();
        let port = conditions.destination_port.unwrap_or(OTHER_PORTS);
        let needs = ports.entry(port).or_default();
        let plain_http = |name: &String| PLAINTEXT_HTTP_ALPN.contains(&name.as_str());
        needs.tls |= conditions.transport_protocol == TLS;
        needs.http |= conditions.application_protocols.iter().any(plain_http);
    }
    let tls = ports
        .values()
        .any(|needs| needs.tls)
        .then(|| tls_inspector(&ports));
    let http = ports.values().any(|needs| needs.http).then(|| {
        let off: Vec<u32> = with(&ports, |needs| !needs.http).collect();
        chain::disabled_on(chain::http_inspector(), &off)
    });
    tls.into_iter().chain(http).collect()
}

/// Where all other ports need it, it is off on single ports; else it is on on single ports.
fn tls_inspector(ports: &BTreeMap<u32, Needs>) -> ListenerFilter {
    let default = ports.get(&OTHER_PORTS).copied().unwrap_or_default();
    let single: Vec<u32> = with(ports, |needs| needs.tls != default.tls)
        .filter(|port| *port != OTHER_PORTS)
        .collect();
    let mut filter = chain::disabled_on(chain::tls_inspector(), &single);
    if !default.tls {
        let on = filter.filter_disabled.take().map(Box::new);
        filter.filter_disabled = on.map(|on| chain::predicate(Rule::NotMatch(on)));
    }
    filter
}

fn with(ports: &BTreeMap<u32, Needs>, wanted: impl Fn(Needs) -> bool) -> impl Iterator<Item = u32> {
    ports
        .iter()
        .filter(move |(_, needs)| wanted(**needs))
        .map(|(port, _)| *port)
}
