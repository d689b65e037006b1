//! Clusters (CDS).

mod builtin;
mod discovery;
mod inbound;
mod metadata;
mod outbound;
mod protocol;
mod upstream_tls;

use std::sync::Arc;

use control_snapshot::{ProxyKind, ProxyView};
use diagnostics::Diagnostic;

pub(crate) use outbound::{MadeClusters, ServiceClusters};

use crate::memo::Memo;
use crate::packed::Packed;

/// All clusters of a proxy, sorted by name, and the parts that others may share.
pub(crate) fn build(
    view: &ProxyView,
    memo: &Memo<ServiceClusters, MadeClusters>,
    diagnostics: &mut Vec<Diagnostic>,
) -> (Vec<Packed>, Vec<Arc<MadeClusters>>) {
    let parts: Vec<_> = outbound::services(view)
        .map(|service| memo.get(service, ServiceClusters::make))
        .collect();
    let mut own = builtin::build(view);
    let built_in = own.len();
    if view.profile.kind == ProxyKind::Sidecar {
        own.extend(inbound::build(view));
    }
    let own: Vec<_> = own.iter().map(|c| Packed::new(&c.name, c)).collect();
    let (built_in, inbound) = own.split_at(built_in);
    diagnostics.extend(parts.iter().flat_map(|part| &part.diagnostics).cloned());
    let outbound = parts.iter().flat_map(|part| &part.clusters);
    let mut clusters: Vec<Packed> = built_in.iter().chain(outbound).chain(inbound).cloned().collect();
    // The sort is stable, so that of two with one name the first stays.
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters.dedup_by(|a, b| a.name == b.name);
    (clusters, parts)
}
