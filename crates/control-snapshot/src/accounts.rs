//! What the mesh's objects say of workloads: their namespaces and labels, and the service accounts of those that are no
//! pods.

use std::borrow::Cow;

use crate::kubernetes::{Labels, selects};
use crate::objects::Objects;

impl Objects {
    /// Namespace and name of every account that a WorkloadGroup or a WorkloadEntry names; one may come several times.
    pub fn workload_accounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let groups = self.workload_groups.values().map(|group| {
            let template = group.spec.template.as_ref();
            let account = template.map_or("", |template| &template.service_account);
            (group.meta.namespace.as_str(), account)
        });
        let entries = self.workload_entries.values();
        let entries = entries.map(|entry| {
            let account = entry.spec.service_account.as_str();
            (entry.meta.namespace.as_str(), account)
        });
        groups.chain(entries).filter(|(_, account)| !account.is_empty())
    }

    /// Namespace and labels of every Pod, WorkloadEntry and WorkloadGroup: what selectors may mean.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (&str, Cow<'_, Labels>)> {
        let pods = self.pods.values();
        let pods = pods.map(|pod| {
            let labels = Cow::Borrowed(&pod.metadata.labels);
            (pod.metadata.namespace.as_str(), labels)
        });
        let entries = self.workload_entries.values().map(|entry| {
            let mut labels = entry.spec.labels.clone();
            labels.extend(entry.meta.labels.clone());
            (entry.meta.namespace.as_str(), Cow::Owned(labels))
        });
        let groups = self.workload_groups.values().filter_map(|group| {
            let template = group.spec.metadata.as_ref()?;
            Some((group.meta.namespace.as_str(), Cow::Borrowed(&template.labels)))
        });
        pods.chain(entries).chain(groups)
    }

    /// Whether workloads of this account are gateways: a Gateway selects the labels of a WorkloadGroup or of a Pod that
    /// names the account. A Gateway without a selector applies to every workload, and makes none a gateway.
    #[must_use]
    pub fn is_gateway_account(&self, namespace: &str, account: &str) -> bool {
        let groups = self.workload_groups.values().filter(|group| {
            let template = group.spec.template.as_ref();
            let named = template.map(|template| &*template.service_account);
            group.meta.namespace == namespace && named == Some(account)
        });
        let groups = groups.filter_map(|group| group.spec.metadata.as_ref());
        let pods = self
            .pods
            .values()
            .filter(|pod| pod.metadata.namespace == namespace && pod.spec.service_account_name == account);
        let mut labels = groups
            .map(|metadata| &metadata.labels)
            .chain(pods.map(|pod| &pod.metadata.labels));
        labels.any(|labels| {
            let mut gateways = self.gateways.values().map(|gateway| &gateway.spec.selector);
            gateways.any(|selector| !selector.is_empty() && selects(selector, labels))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{Kind, Objects, Settings};

    fn world(objects: &[(Kind, Value)]) -> Objects {
        let mut world = Objects::new(Settings::default());
        for (kind, object) in objects {
            assert_eq!(world.apply(*kind, object.clone()), None);
        }
        world
    }

    fn group(name: &str, account: &str, labels: Value) -> (Kind, Value) {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"metadata": {"labels": labels}, "template": {"serviceAccount": account}},
        });
        (Kind::WorkloadGroup, object)
    }

    fn gateway(selector: Value) -> (Kind, Value) {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "door", "namespace": "other"},
            "spec": {"selector": selector, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]},
        });
        (Kind::Gateway, object)
    }

    #[test]
    fn accounts_of_groups_and_entries_are_named() {
        let entry = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "one", "namespace": "shop"},
            "spec": {"address": "192.0.2.1", "serviceAccount": "entry"},
        });
        let nobody = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "two", "namespace": "shop"}, "spec": {"address": "192.0.2.2"},
        });
        let world = world(&[
            group("a", "reviews", json!({})),
            (Kind::WorkloadEntry, entry),
            (Kind::WorkloadEntry, nobody),
        ]);
        let named: Vec<_> = world.workload_accounts().collect();
        assert_eq!(named, [("shop", "reviews"), ("shop", "entry")]);
    }

    #[test]
    fn a_pod_that_a_gateway_object_selects_is_a_gateway() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "door-1", "namespace": "shop", "labels": {"istio": "ingress"}},
            "spec": {"serviceAccountName": "door"},
        });
        let selected = world(&[(Kind::Pod, pod.clone()), gateway(json!({"istio": "ingress"}))]);
        assert!(selected.is_gateway_account("shop", "door"));
        assert!(!selected.is_gateway_account("shop", "reviews"));
        assert!(!world(&[(Kind::Pod, pod), gateway(json!({}))]).is_gateway_account("shop", "door"));
    }

    #[test]
    fn a_gateway_is_whom_a_gateway_object_selects() {
        let groups = [
            group("door", "door", json!({"istio": "ingress", "app": "door"})),
            group("reviews", "reviews", json!({"app": "reviews"})),
        ];
        let with = |selector: Value| {
            let mut objects = groups.to_vec();
            objects.push(gateway(selector));
            world(&objects)
        };
        let selected = with(json!({"istio": "ingress"}));
        assert!(selected.is_gateway_account("shop", "door"));
        assert!(!selected.is_gateway_account("shop", "reviews"));
        assert!(
            !selected.is_gateway_account("other", "door"),
            "its namespace counts"
        );
        assert!(!with(json!({"istio": "egress"})).is_gateway_account("shop", "door"));
        assert!(!with(json!({})).is_gateway_account("shop", "door"));
        assert!(!world(&groups).is_gateway_account("shop", "door"));
    }
}
