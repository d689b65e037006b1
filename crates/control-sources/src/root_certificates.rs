//! The ConfigMap `istio-ca-root-cert` in every namespace: what pods verify the control plane by (Istio's namespace
//! controller). Whoever changes or removes one has it back.

use std::collections::{BTreeMap, BTreeSet};

use control_snapshot::Kind;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::watch::{Change, Scope, watch_some};
use crate::write::{self, ObjectRef, WriteError};
use crate::{Client, limits};

/// The name of the ConfigMap.
pub const ROOT_CERTIFICATES: &str = "istio-ca-root-cert";
/// The entry that holds the roots in PEM.
pub const ROOT_CERTIFICATES_ENTRY: &str = "root-cert.pem";

/// Namespaces in which no workload of a mesh is.
const LEFT_OUT: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What is known of the namespaces and of the ConfigMaps in them.
#[derive(Debug, Default)]
struct Seen {
    namespaces: BTreeSet<String>,
    roots: BTreeMap<String, String>,
    /// Kinds of which everything that exists has been reported.
    listed: BTreeSet<Kind>,
}

impl Seen {
    fn take(&mut self, change: Change) {
        match change {
            Change::Apply { kind, object } => self.apply(kind, &object),
            Change::Delete {
                kind,
                namespace,
                name,
            } => match kind {
                Kind::Namespace => drop(self.namespaces.remove(&name)),
                _ => drop(self.roots.remove(&namespace)),
            },
            Change::Synced { kind } => drop(self.listed.insert(kind)),
        }
    }

    fn apply(&mut self, kind: Kind, object: &Value) {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if kind != Kind::Namespace {
            let roots = text(&object["data"][ROOT_CERTIFICATES_ENTRY]);
            self.roots.insert(text(&meta["namespace"]), roots);
        } else if meta["deletionTimestamp"].is_null() && !LEFT_OUT.contains(&&*text(&meta["name"])) {
            self.namespaces.insert(text(&meta["name"]));
        } else {
            // Nothing can be written into a namespace that is going.
            self.namespaces.remove(&text(&meta["name"]));
        }
    }

    /// Where something else than `roots` is, or nothing. Nothing before all is known: it may be there.
    fn outdated(&self, roots: &str) -> Vec<String> {
        if roots.is_empty() || self.listed.len() < 2 {
            return Vec::new();
        }
        let current = |namespace: &&String| self.roots.get(*namespace).is_none_or(|found| found != roots);
        self.namespaces.iter().filter(current).cloned().collect()
    }
}

/// Keeps the ConfigMaps, for ever. Nothing is written as long as `roots` is empty.
pub async fn keep(client: Client, mut roots: watch::Receiver<String>) {
    let scope = Scope {
        namespace: String::new(),
        fields: format!("metadata.name={ROOT_CERTIFICATES}"),
    };
    let wanted = [(Kind::Namespace, Scope::default()), (Kind::ConfigMap, scope)];
    let (mut changes, _watches) = watch_some(&client, wanted);
    let mut seen = Seen::default();
    let mut failed = false;
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => seen.take(change),
                None => return,
            },
            changed = roots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(limits::ROOTS_RETRY), if failed => {}
        }
        let text = roots.borrow_and_update().clone();
        failed = false;
        for namespace in seen.outdated(&text) {
            match put(&client, &namespace, &text).await {
                // What was written comes back as a change, too; until then it must not be written again.
                Ok(()) => drop(seen.roots.insert(namespace, text.clone())),
                Err(error) => {
                    tracing::warn!(namespace, %error, "the mesh's roots are not in this namespace");
                    failed = true;
                }
            }
        }
    }
}

async fn put(client: &Client, namespace: &str, roots: &str) -> Result<(), WriteError> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": ROOT_CERTIFICATES, "namespace": namespace, "labels": {"istio.io/config": "true"}},
        "data": {ROOT_CERTIFICATES_ENTRY: roots},
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
    fn the_roots_belong_into_every_namespace_that_lacks_them() {
        let mut seen = Seen::default();
        for name in ["default", "kube-system", "shop"] {
            seen.take(namespace(name));
        }
        assert_eq!(
            seen.outdated("roots"),
            Vec::<String>::new(),
            "not everything is known"
        );
        for kind in [Kind::Namespace, Kind::ConfigMap] {
            seen.take(Change::Synced { kind });
        }
        assert_eq!(seen.outdated("roots"), ["default", "shop"]);
        let object = json!({"metadata": {"namespace": "shop"}, "data": {"root-cert.pem": "roots"}});
        seen.take(Change::Apply {
            kind: Kind::ConfigMap,
            object,
        });
        assert_eq!(seen.outdated("roots"), ["default"]);
        assert_eq!(seen.outdated("new roots"), ["default", "shop"]);
        let object = json!({"metadata": {"name": "default", "deletionTimestamp": "2026-11-21T12:00:00Z"}});
        seen.take(Change::Apply {
            kind: Kind::Namespace,
            object,
        });
        assert_eq!(seen.outdated("roots"), Vec::<String>::new());
        assert_eq!(seen.outdated(""), Vec::<String>::new());
    }
}
