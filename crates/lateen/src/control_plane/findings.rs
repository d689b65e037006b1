//! What is wrong with the configuration: logged once, and written as Events on the objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use control_discovery::World;
use control_sources::Client;
use control_sources::findings::{Events, Finding};
use diagnostics::Diagnostic;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) async fn publish(world: Arc<World>, client: Client) {
    let mut publications = world.subscribe();
    let mut events = Events::new(client);
    let mut known: BTreeSet<Diagnostic> = BTreeSet::new();
    while publications.changed().await.is_ok() {
        let Some(publication) = publications.borrow_and_update().clone() else {
            continue;
        };
        let current: BTreeSet<_> = publication.snapshot.diagnostics().iter().cloned().collect();
        drop(publication);
        if current == known {
            continue;
        }
        for diagnostic in current.difference(&known) {
            tracing::warn!("{diagnostic}");
        }
        let now = OffsetDateTime::now_utc()
            .replace_nanosecond(0)
            .ok()
            .and_then(|now| now.format(&Rfc3339).ok());
        events
            .update(current.iter().map(finding), &now.unwrap_or_default())
            .await;
        known = current;
    }
}

fn finding(diagnostic: &Diagnostic) -> Finding {
    let mut message = diagnostic.message.clone();
    if !diagnostic.field.is_empty() {
        message = format!("{}: {message}", diagnostic.field);
    }
    if !diagnostic.hint.is_empty() {
        message = format!("{message} ({})", diagnostic.hint);
    }
    Finding {
        kind: diagnostic.resource.kind.clone(),
        namespace: diagnostic.resource.namespace.clone(),
        name: diagnostic.resource.name.clone(),
        code: diagnostic.code.id().to_string(),
        message,
    }
}
