//! What pods mount to verify the mesh by, in every namespace (Istio's namespace controller): the authority's roots in
//! the ConfigMap `istio-ca-root-cert`, and what it has revoked in `istio-ca-crl`. Whoever changes or removes one has it
//! back.

use std::collections::{BTreeMap, BTreeSet};

use control_snapshot::Kind;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::watch::{Change, Scope, watch_some};
use crate::write::{self, ObjectRef, WriteError};
use crate::{Client, limits};

/// A ConfigMap with one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    name: &'static str,
    entry: &'static str,
}

/// The roots.
pub const ROOT_CERTIFICATES: Published = Published {
    name: "istio-ca-root-cert",
    entry: "root-cert.pem",
};

/// The revocation lists; empty where there are none.
pub const REVOCATIONS: Published = Published {
    name: "istio-ca-crl",
    entry: "ca-crl.pem",
};

/// Namespaces in which no workload of a mesh is.
const LEFT_OUT: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What is known of the namespaces and of the ConfigMaps in them.
#[derive(Debug)]
struct Seen {
    entry: &'static str,
    namespaces: BTreeSet<String>,
    /// What the entry holds, by namespace; nothing where the ConfigMap is without one.
    texts: BTreeMap<String, Option<String>>,
    /// Kinds of which everything that exists has been reported.
    listed: BTreeSet<Kind>,
}

impl Seen {
    fn new(entry: &'static str) -> Self {
        Self {
            entry,
            namespaces: BTreeSet::new(),
            texts: BTreeMap::new(),
            listed: BTreeSet::new(),
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Apply { kind, object } => self.apply(kind, &object),
            Change::Delete {
                kind,
                namespace,
                name,
            } => match kind {
                Kind::Namespace => drop(self.namespaces.remove(&name)),
                _ => drop(self.texts.remove(&namespace)),
            },
            Change::Synced { kind } => drop(self.listed.insert(kind)),
        }
    }

    fn apply(&mut self, kind: Kind, object: &Value) {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if kind != Kind::Namespace {
            let held = object["data"][self.entry].as_str().map(str::to_owned);
            self.texts.insert(text(&meta["namespace"]), held);
        } else if meta["deletionTimestamp"].is_null() && !LEFT_OUT.contains(&&*text(&meta["name"])) {
            self.namespaces.insert(text(&meta["name"]));
        } else {
            // Nothing can be written into a namespace that is going.
            self.namespaces.remove(&text(&meta["name"]));
        }
    }

    /// Where something else than `wanted` is, or nothing. Nothing before all is known: it may be there.
    fn outdated(&self, wanted: Option<&str>) -> Vec<String> {
        let Some(wanted) = wanted.filter(|_| self.listed.len() >= 2) else {
            return Vec::new();
        };
        let held = |namespace: &String| self.texts.get(namespace)?.as_deref();
        let outdated = |namespace: &&String| held(namespace) != Some(wanted);
        self.namespaces.iter().filter(outdated).cloned().collect()
    }
}

/// Keeps the ConfigMaps, for ever. Nothing is written as long as there is no `text`.
pub async fn keep(client: Client, published: Published, mut text: watch::Receiver<Option<String>>) {
    let scope = Scope {
        namespace: String::new(),
        fields: format!("metadata.name={}", published.name),
    };
    let wanted = [(Kind::Namespace, Scope::default()), (Kind::ConfigMap, scope)];
    let (mut changes, _watches) = watch_some(&client, wanted);
    let mut seen = Seen::new(published.entry);
    let mut failed = false;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => seen.take(change),
                None => return,
            },
            changed = text.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(limits::ROOTS_RETRY), if failed => {}
        }
        let text = text.borrow_and_update().clone();
        failed = false;
        for namespace in seen.outdated(text.as_deref()) {
            match put(&client, published, &namespace, text.as_deref()).await {
                // What was written comes back as a change, too; until then it must not be written again.
                Ok(()) => drop(seen.texts.insert(namespace, text.clone())),
                Err(error) => {
                    tracing::warn!(namespace, name = published.name, %error, "a ConfigMap of the mesh's authority cannot be written");
                    failed = true;
                }
            }
        }
    }
}

async fn put(
    client: &Client,
    published: Published,
    namespace: &str,
    text: Option<&str>,
) -> Result<(), WriteError> {
    let labels = json!({"istio.io/config": "true"});
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": published.name, "namespace": namespace, "labels": labels},
        "data": {published.entry: text},
    });
    match write::create(client, &object).await {
        Err(WriteError::Conflict(_)) => {
            let reference = ObjectRef::of(&object)?;
            write::patch(client, &reference, &object).await.map(drop)
        }
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Change {
        let object = json!({"metadata": {"name": name}});
        Change::Apply {
            kind: Kind::Namespace,
            object,
        }
    }

    #[test]
    fn the_text_belongs_into_every_namespace_that_lacks_it() {
        let mut seen = Seen::new(ROOT_CERTIFICATES.entry);
        for name in ["default", "kube-system", "shop"] {
            seen.take(namespace(name));
        }
        let none = Vec::<String>::new();
        assert_eq!(seen.outdated(Some("roots")), none, "not everything is known");
        for kind in [Kind::Namespace, Kind::ConfigMap] {
            seen.take(Change::Synced { kind });
        }
        assert_eq!(seen.outdated(Some("roots")), ["default", "shop"]);
        let object = json!({"metadata": {"namespace": "shop"}, "data": {"root-cert.pem": "roots"}});
        seen.take(Change::Apply {
            kind: Kind::ConfigMap,
            object,
        });
        assert_eq!(seen.outdated(Some("roots")), ["default"]);
        assert_eq!(seen.outdated(Some("new roots")), ["default", "shop"]);
        assert_eq!(
            seen.outdated(Some("")),
            ["default", "shop"],
            "the last list is gone"
        );
        let object = json!({"metadata": {"name": "default", "deletionTimestamp": "2026-11-21T12:00:00Z"}});
        seen.take(Change::Apply {
            kind: Kind::Namespace,
            object,
        });
        assert_eq!(seen.outdated(Some("roots")), none);
        assert_eq!(seen.outdated(None), none, "there is no authority yet");
    }

    #[test]
    fn a_config_map_without_the_entry_is_not_one_whose_entry_is_empty() {
        let mut seen = Seen::new(REVOCATIONS.entry);
        seen.take(namespace("shop"));
        for kind in [Kind::Namespace, Kind::ConfigMap] {
            seen.take(Change::Synced { kind });
        }
        for (data, outdated) in [(json!({}), vec!["shop"]), (json!({"ca-crl.pem": ""}), vec![])] {
            let object = json!({"metadata": {"namespace": "shop"}, "data": data});
            seen.take(Change::Apply {
                kind: Kind::ConfigMap,
                object,
            });
            assert_eq!(seen.outdated(Some("")), outdated);
        }
    }
}
