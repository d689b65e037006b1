//! Listeners (LDS).

mod chain;
mod gateway;
mod gateway_streams;
mod inbound;
mod inspection;
mod outbound;
mod peer_chains;
mod service_chains;
mod virtual_outbound;

use api_envoy::envoy::config::listener::v3::Listener;
use control_snapshot::{Interception, ProxyKind, ProxyView};
use diagnostics::Diagnostic;

/// All listeners of a proxy, sorted by name.
pub(crate) fn build(view: &ProxyView, diagnostics: &mut Vec<Diagnostic>) -> Vec<Listener> {
    let mut listeners = match view.profile.kind {
        ProxyKind::Gateway => gateway::build(view, diagnostics),
        ProxyKind::Sidecar => {
            let mut listeners = outbound::build(view);
            let (outbound, inbound) = captured(view.profile.interception);
            if outbound {
                listeners.push(virtual_outbound::build(view));
            }
            if inbound {
                listeners.push(inbound::build(view));
            }
            listeners
        }
    };
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    listeners
}

/// Whether anything arrives at the ports of captured outbound and inbound connections. By explicit ports only callers
/// from the mesh do: they dial the proxy in any case.
fn captured(interception: Interception) -> (bool, bool) {
    match interception {
        Interception::Redirect | Interception::Tproxy => (true, true),
        Interception::Ports => (false, true),
        Interception::None => (false, false),
    }
}
