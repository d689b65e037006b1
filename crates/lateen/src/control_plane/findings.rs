//! What is wrong with the configuration: logged once, and written as Events on the objects.

use std::collections::BTreeSet;
use std::time::Duration;

use control_discovery::Discovery;
use control_sources::Client;
use control_sources::findings::{Events, Finding};
use diagnostics::Diagnostic;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Time for what follows a publication or a new proxy to be translated, so that it is looked at once.
const GATHER: Duration = Duration::from_millis(100);

/// Publishes what is wrong with the world, and with what connected proxies get of it.
pub(super) async fn publish(discovery: Discovery, client: Client) {
    let mut publications = discovery.world().subscribe();
    let mut translations = discovery.cache().subscribe();
    let mut events = Events::new(client);
    let mut known: BTreeSet<Diagnostic> = BTreeSet::new();
    loop {
        let changed = tokio::select! {
            changed = publications.changed() => changed,
            changed = translations.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
        publications.mark_unchanged();
        translations.mark_unchanged();
        let current = discovery.diagnostics();
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
