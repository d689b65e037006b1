//! What the notes of a transcript do to the world.

use std::collections::{BTreeMap, VecDeque};

use control_snapshot::Kind;
use serde_json::Value;

use crate::world::World;

const KINDS: [(&str, Kind); 3] = [
    ("DestinationRule", Kind::DestinationRule),
    ("VirtualService", Kind::VirtualService),
    ("ServiceEntry", Kind::ServiceEntry),
];

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create(Kind),
    Change(Kind),
    ChangeEndpoint(Kind),
    Delete(Kind),
}

/// The changes a note announces, each list a change at one moment.
///
/// A note is prose: clauses name a kind (or "it", the one named before) and what happens to it. Clauses about the
/// client do nothing here; the client's messages are in the transcript.
pub(super) fn of_note(note: &str) -> VecDeque<Vec<Action>> {
    let mut last: Vec<Kind> = Vec::new();
    let mut steps = VecDeque::new();
    let prose = note.replace(" then ", ", ").replace(" and it ", ", it ");
    for clause in prose.split([',', ';']) {
        let named: Vec<_> = KINDS
            .iter()
            .filter(|(name, _)| clause.contains(name))
            .map(|(_, kind)| *kind)
            .collect();
        if !named.is_empty() {
            last = named;
        }
        let verb = |word: &str| clause.contains(word);
        let make: fn(Kind) -> Action = if verb("deleted") {
            Action::Delete
        } else if verb("endpoint") && verb("changes") {
            Action::ChangeEndpoint
        } else if verb("changes") {
            Action::Change
        } else if verb("is created") || verb("adds") {
            Action::Create
        } else {
            continue;
        };
        let step: Vec<_> = last.iter().map(|kind| make(*kind)).collect();
        if !step.is_empty() {
            steps.push_back(step);
        }
    }
    steps
}

/// The objects that a transcript creates and changes.
pub(super) struct Objects {
    templates: BTreeMap<Kind, String>,
    changes: u32,
}

impl Objects {
    pub(super) fn new(templates: &Value) -> Self {
        let templates = templates
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(title, yaml)| {
                let (_, kind) = KINDS.iter().find(|(name, _)| title.starts_with(name))?;
                Some((*kind, yaml.as_str()?.to_owned()))
            });
        Self {
            templates: templates.collect(),
            changes: 0,
        }
    }

    pub(super) fn perform(&mut self, action: &Action, world: &World) {
        self.changes += 1;
        match action {
            Action::Create(kind) | Action::Change(kind) => {
                let object = self.object(*kind);
                world.apply(*kind, object);
            }
            Action::ChangeEndpoint(kind) => {
                let mut object = self.object(*kind);
                object["spec"]["endpoints"][0]["address"] = format!("192.0.2.{}", 100 + self.changes).into();
                world.apply(*kind, object);
            }
            Action::Delete(kind) => {
                let object = self.object(*kind);
                let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                world.delete(*kind, &name("namespace"), &name("name"));
            }
        }
    }

    /// The object, with a value of its own where the template has a hole.
    fn object(&self, kind: Kind) -> Value {
        let template = self.templates.get(&kind).map(String::as_str).unwrap_or_default();
        let yaml = template.replace("%s", &format!("{}s", self.changes));
        api_envoy::json::yaml_to_json(&yaml).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{DestinationRule, ServiceEntry, VirtualService};

    fn check(note: &str, expected: Vec<Vec<Action>>) {
        assert_eq!(Vec::from(of_note(note)), expected, "{note}");
    }

    #[test]
    fn notes_are_read_as_changes() {
        check(
            "2. a DestinationRule with two subsets is created; the client subscribes",
            vec![vec![Action::Create(DestinationRule)]],
        );
        check(
            "4. the VirtualService changes; the client answers with a NACK; then 3 s of silence",
            vec![vec![Action::Change(VirtualService)]],
        );
        check(
            "6. a ServiceEntry is created, its endpoint changes, and it is deleted",
            vec![
                vec![Action::Create(ServiceEntry)],
                vec![Action::ChangeEndpoint(ServiceEntry)],
                vec![Action::Delete(ServiceEntry)],
            ],
        );
        check(
            "15. the DestinationRule and the VirtualService are deleted",
            vec![vec![
                Action::Delete(DestinationRule),
                Action::Delete(VirtualService),
            ]],
        );
        check(
            "12. the stream is closed and opened again; each first request carries versions",
            vec![],
        );
    }
}
