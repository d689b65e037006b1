//! From the watches to the world.

use std::collections::BTreeSet;
use std::sync::Arc;

use control_discovery::World;
use control_snapshot::Kind;
use control_sources::watch::Change;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Takes changes into the world, and shows those of WorkloadEntries. The world is ready once every kind has been listed.
pub(super) async fn feed(
    mut changes: mpsc::Receiver<Change>,
    watches: JoinSet<()>,
    world: Arc<World>,
    shown: Option<mpsc::Sender<Change>>,
) {
    let mut missing: BTreeSet<Kind> = Kind::ALL.iter().map(|(kind, ..)| *kind).collect();
    while let Some(change) = changes.recv().await {
        if let (Some(shown), true) = (&shown, concerns_workloads(&change)) {
            // Showing workloads must not hold back the mesh; what is dropped is shown with the next change.
            if shown.try_send(change.clone()).is_err() {
                tracing::warn!("workloads change faster than they can be shown");
            }
        }
        match change {
            Change::Apply { kind, object } => drop(world.apply(kind, object)),
            Change::Delete {
                kind,
                namespace,
                name,
            } => world.delete(kind, &namespace, &name),
            Change::Synced { kind } => {
                if missing.remove(&kind) && missing.is_empty() {
                    tracing::info!("configuration read");
                    world.ready();
                }
            }
        }
    }
    drop(watches);
}

fn concerns_workloads(change: &Change) -> bool {
    match change {
        Change::Apply { kind, .. } | Change::Delete { kind, .. } | Change::Synced { kind } => {
            *kind == Kind::WorkloadEntry
        }
    }
}
