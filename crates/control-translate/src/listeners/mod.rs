//! Listeners (LDS).

mod chain;
mod gateway;
mod inbound;
mod outbound;
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
            // Without interception nothing arrives at the capture ports.
            if view.profile.interception != Interception::None {
                listeners.push(virtual_outbound::build(view));
                listeners.push(inbound::build(view));
            }
            listeners
        }
    };
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    listeners
}
