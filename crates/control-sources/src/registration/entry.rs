//! The WorkloadEntry of an auto-registered workload: its name, and its content out of the group's template.

use std::collections::BTreeMap;

use control_snapshot::{Kind, Proxy};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits;
use crate::write::ObjectRef;

/// The group that an entry was made from. Marks entries that belong to the registrar.
pub(super) const GROUP: &str = "istio.io/autoRegistrationGroup";
/// Which control plane holds the workload's stream.
pub(super) const CONTROLLER: &str = "istio.io/workloadController";
/// When the workload connected.
pub(super) const CONNECTED_AT: &str = "istio.io/connectedAt";
/// When its last stream closed.
pub(super) const DISCONNECTED_AT: &str = "istio.io/disconnectedAt";
/// The workload reports its health; until it does, it gets no traffic.
const HEALTH_CHECKED: &str = "proxy.istio.io/health-checks-enabled";

/// What a stream says about its workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The workload's namespace.
    pub namespace: String,
    /// Its group, or its entry.
    pub belonging: Belonging,
    /// Its address.
    pub address: String,
    /// Its network; may be empty.
    pub network: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`; may be empty.
    pub locality: String,
    /// Whether its agent checks its health (`PROXY_CONFIG.readinessProbe`).
    pub health_checked: bool,
}

/// How a workload is bound to the mesh's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// `AUTO_REGISTER_GROUP`: make an entry from this WorkloadGroup.
    Group(String),
    /// `WORKLOAD_ENTRY`: somebody has made this entry; only its health is kept.
    Entry(String),
}

impl Default for Belonging {
    fn default() -> Self {
        Self::Entry(String::new())
    }
}

impl Announcement {
    /// What a proxy says about its workload; `None` for one that belongs to no group and no entry, such as a Pod's.
    #[must_use]
    pub fn of(proxy: &Proxy) -> Option<Self> {
        let belonging = match (&*proxy.auto_register_group, &*proxy.workload_entry) {
            ("", "") => return None,
            ("", entry) => Belonging::Entry(entry.to_owned()),
            (group, _) => Belonging::Group(group.to_owned()),
        };
        let config: Value = serde_json::from_str(&proxy.profile.proxy_config).unwrap_or_default();
        let address = proxy.addresses.first().map(ToString::to_string);
        Some(Self {
            namespace: proxy.profile.namespace.to_string(),
            belonging,
            address: address.unwrap_or_default(),
            network: proxy.network.to_string(),
            labels: proxy.profile.labels.clone(),
            locality: proxy.locality.to_string(),
            health_checked: config["readinessProbe"].is_object(),
        })
    }

    /// The workload's entry, named `group-address[-network]` as Istio names it. An address may hold colons, a name may
    /// not; a name that is too long loses its beginning.
    pub(super) fn entry(&self) -> ObjectRef {
        let name = match &self.belonging {
            Belonging::Entry(name) => name.clone(),
            Belonging::Group(group) => {
                let mut name = format!("{group}-{}", self.address.replace(':', "-"));
                if !self.network.is_empty() {
                    name = format!("{name}-{}", self.network);
                }
                let cut = name.ceil_char_boundary(name.len().saturating_sub(limits::NAME_BYTES));
                name.split_off(cut)
            }
        };
        reference(&self.namespace, &name)
    }
}

/// The WorkloadEntry of this namespace and name.
pub(super) fn reference(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(Kind::WorkloadEntry, namespace, name)
}

/// RFC 3339 with nanoseconds, as Istio writes it.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// The entry that a workload of this group gets: the template, then the group's metadata, then what the proxy says.
pub(super) fn from_group(
    group: &Value,
    workload: &Announcement,
    controller: &str,
    connected_at: &str,
) -> Value {
    let mut spec = group
        .pointer("/spec/template")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut labels = texts(spec.get("labels"));
    labels.extend(texts(group.pointer("/spec/metadata/labels")));
    labels.extend(workload.labels.iter().map(|(k, v)| (k.clone(), v.clone().into())));
    spec.insert("labels".to_owned(), labels.clone().into());
    spec.insert("address".to_owned(), workload.address.clone().into());
    for (field, value) in [("network", &workload.network), ("locality", &workload.locality)] {
        if !value.is_empty() {
            spec.insert(field.to_owned(), value.clone().into());
        }
    }
    let name = |pointer| group.pointer(pointer).cloned().unwrap_or_default();
    let mut annotations = texts(group.pointer("/spec/metadata/annotations"));
    annotations.insert(GROUP.to_owned(), name("/metadata/name"));
    annotations.insert(CONTROLLER.to_owned(), controller.into());
    annotations.insert(CONNECTED_AT.to_owned(), connected_at.into());
    if workload.health_checked || group.pointer("/spec/probe").is_some_and(Value::is_object) {
        annotations.insert(HEALTH_CHECKED.to_owned(), "true".into());
    }
    let reference = workload.entry();
    json!({
        "apiVersion": reference.api_version,
        "kind": reference.kind,
        "metadata": {
            "name": reference.name,
            "namespace": reference.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": name("/apiVersion"),
                "kind": name("/kind"),
                "name": name("/metadata/name"),
                "uid": name("/metadata/uid"),
                "controller": true,
            }],
        },
        "spec": spec,
    })
}

fn texts(map: Option<&Value>) -> Map<String, Value> {
    map.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The conditions with `Healthy` set; its transition time changes only with its status.
pub(super) fn with_health(conditions: &Value, healthy: bool, message: &str, now: &str) -> Value {
    let status = if healthy { "True" } else { "False" };
    let mut all: Vec<Value> = conditions.as_array().cloned().unwrap_or_default();
    let before = all
        .iter()
        .position(|c| c["type"] == "Healthy")
        .map(|index| all.remove(index));
    let transition = before
        .filter(|c| c["status"] == status)
        .map(|c| c["lastTransitionTime"].clone());
    all.push(json!({
        "type": "Healthy",
        "status": status,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": transition.unwrap_or_else(|| now.into()),
    }));
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Announcement {
        Announcement {
            namespace: "default".into(),
            belonging: Belonging::Group("reviews-v1".into()),
            address: "127.66.0.4".into(),
            labels: BTreeMap::from([("version".to_owned(), "v1".to_owned())]),
            ..Announcement::default()
        }
    }

    #[test]
    fn an_entry_is_named_after_group_address_and_network() {
        assert_eq!(workload().entry().name, "reviews-v1-127.66.0.4");
        let far = Announcement {
            address: "fd00::1".into(),
            network: "vm".into(),
            ..workload()
        };
        assert_eq!(far.entry().name, "reviews-v1-fd00--1-vm");
        let long = Announcement {
            belonging: Belonging::Group("g".repeat(300)),
            ..workload()
        };
        assert_eq!(long.entry().name.len(), limits::NAME_BYTES);
        assert!(long.entry().name.ends_with("g-127.66.0.4"));
    }

    #[test]
    fn an_entry_is_the_template_with_what_group_and_proxy_add() {
        let group = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
            "metadata": {"name": "reviews-v1", "namespace": "default", "uid": "u1"},
            "spec": {
                "metadata": {"labels": {"app": "reviews", "version": "v0"}, "annotations": {"note": "x"}},
                "template": {"serviceAccount": "reviews", "ports": {"http": 9080}, "labels": {"tier": "b"}},
                "probe": {"httpGet": {"port": 9080}},
            },
        });
        let entry = from_group(&group, &workload(), "me", "2026-11-21T12:00:00Z");
        assert_eq!(entry["spec"]["address"], "127.66.0.4");
        assert_eq!(entry["spec"]["serviceAccount"], "reviews");
        assert_eq!(entry["spec"]["ports"]["http"], 9080);
        assert_eq!(
            entry["spec"]["labels"],
            json!({"tier": "b", "app": "reviews", "version": "v1"})
        );
        assert_eq!(entry["metadata"]["labels"], entry["spec"]["labels"]);
        assert_eq!(
            entry["metadata"]["annotations"],
            json!({
                "note": "x", GROUP: "reviews-v1", CONTROLLER: "me",
                CONNECTED_AT: "2026-11-21T12:00:00Z", HEALTH_CHECKED: "true",
            })
        );
        assert_eq!(entry["metadata"]["ownerReferences"][0]["uid"], "u1");
    }

    #[test]
    fn health_is_one_condition_and_its_transition_time_survives_repeats() {
        let first = with_health(&json!([{"type": "Other"}]), false, "gone", "t1");
        let again = with_health(&first, false, "gone", "t2");
        assert_eq!(again.as_array().unwrap().len(), 2);
        assert_eq!(
            (&again[1]["lastTransitionTime"], &again[1]["lastProbeTime"]),
            (&json!("t1"), &json!("t2"))
        );
        let healed = with_health(&again, true, "", "t3");
        assert_eq!(
            (&healed[1]["status"], &healed[1]["lastTransitionTime"]),
            (&json!("True"), &json!("t3"))
        );
    }
}
