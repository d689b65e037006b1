//! What is wrong with an object, as a Kubernetes Event on it, so that `kubectl describe` shows it.

use std::collections::{BTreeMap, BTreeSet};

use control_snapshot::Kind;
use serde_json::{Value, json};

use crate::Client;
use crate::write::{self, ObjectRef, WriteError};

/// Something wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The kind of an object that the mesh reads, for example `VirtualService`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The code, for example `IST0101`; the Event's reason.
    pub code: String,
    /// What is wrong, and where.
    pub message: String,
}

/// Keeps Events in step with findings: one Event per finding, removed when the finding is gone.
#[derive(Debug)]
pub struct Events {
    client: Client,
    written: BTreeMap<Finding, ObjectRef>,
}

impl Events {
    /// No Events yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            written: BTreeMap::new(),
        }
    }

    /// Writes and removes Events until they are what `findings` says. `now` is RFC 3339 with whole seconds.
    pub async fn update(&mut self, findings: impl IntoIterator<Item = Finding>, now: &str) {
        let findings: BTreeSet<_> = findings.into_iter().collect();
        let gone: Vec<_> = self
            .written
            .keys()
            .filter(|f| !findings.contains(f))
            .cloned()
            .collect();
        for finding in gone {
            if let Some(event) = self.written.remove(&finding)
                && let Err(error) = write::delete(&self.client, &event).await
            {
                tracing::debug!(%event, %error, "event not removed");
            }
        }
        for finding in findings {
            if !self.written.contains_key(&finding) {
                match self.write(&finding, now).await {
                    Ok(event) => drop(self.written.insert(finding, event)),
                    Err(error) => {
                        tracing::debug!(kind = finding.kind, name = finding.name, %error, "no event")
                    }
                }
            }
        }
    }

    async fn write(&self, finding: &Finding, now: &str) -> Result<ObjectRef, WriteError> {
        let kind = Kind::named(&finding.kind).ok_or_else(|| WriteError::NotFound(finding.kind.clone()))?;
        let object = ObjectRef::new(kind, &finding.namespace, &finding.name);
        let found = write::get(&self.client, &object).await?;
        let event = event(finding, &found, now);
        let reference = ObjectRef::of(&event)?;
        match write::create(&self.client, &event).await {
            // An Event of an earlier life of this process says the same.
            Ok(_) | Err(WriteError::Conflict(_)) => Ok(reference),
            Err(error) => Err(error),
        }
    }
}

fn event(finding: &Finding, object: &Value, now: &str) -> Value {
    // The same finding has the same name in every run, so that a restart does not multiply Events.
    let digest = finding
        .message
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let name = format!("{}.{}.{digest:016x}", finding.name, finding.code.to_lowercase());
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": finding.namespace},
        "involvedObject": {
            "apiVersion": object["apiVersion"],
            "kind": finding.kind,
            "namespace": finding.namespace,
            "name": finding.name,
            "uid": object["metadata"]["uid"],
            "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "type": "Warning",
        "reason": finding.code,
        "message": finding.message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": "lateen"},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_a_finding_has_one_name_and_points_at_its_object() {
        let finding = Finding {
            kind: "VirtualService".into(),
            namespace: "default".into(),
            name: "reviews".into(),
            code: "IST0101".into(),
            message: "spec.http[0].route[0].destination.subset: no subset v9".into(),
        };
        let object = json!({"apiVersion": "networking.istio.io/v1", "metadata": {"uid": "u7", "resourceVersion": "4"}});
        let first = event(&finding, &object, "2026-11-21T12:00:00Z");
        let again = event(&finding, &object, "2026-11-21T13:00:00Z");
        assert_eq!(first["metadata"]["name"], again["metadata"]["name"]);
        assert_eq!(first["involvedObject"]["uid"], "u7");
        assert_eq!(first["reason"], "IST0101");
    }
}
