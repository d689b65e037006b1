//! Clusters (CDS).

mod builtin;
mod discovery;
mod inbound;
mod metadata;
mod outbound;
mod protocol;
mod upstream_tls;

use api_envoy::envoy::config::cluster::v3::Cluster;
use control_snapshot::{ProxyKind, ProxyView};
use diagnostics::Diagnostic;

/// All clusters of a proxy, sorted by name.
pub(crate) fn build(view: &ProxyView, diagnostics: &mut Vec<Diagnostic>) -> Vec<Cluster> {
    let mut clusters = builtin::build(view);
    clusters.extend(outbound::build(view, diagnostics));
    if view.profile.kind == ProxyKind::Sidecar {
        clusters.extend(inbound::build(view));
    }
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters.dedup_by(|a, b| a.name == b.name);
    clusters
}
