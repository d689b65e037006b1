//! PeerAuthentication: which workloads demand mutual TLS of their callers, and on which ports.
//!
//! The most specific rule that sets a mode decides: port, workload, namespace, mesh (the root namespace), and
//! PERMISSIVE where nobody does. Of several rules for one scope the oldest counts, as in Istio.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_istio::security::{MutualTls, MutualTlsMode, PeerAuthentication};
use diagnostics::{Code, Diagnostic};

use crate::config::Config;
use crate::kubernetes::{Labels, selects};
use crate::objects::Objects;

/// What a workload demands of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerMode {
    /// Mutual TLS is taken, and so is everything else (`PERMISSIVE`).
    #[default]
    Permissive,
    /// Nothing but mutual TLS (`STRICT`).
    Strict,
    /// No mutual TLS (`DISABLE`).
    Disable,
}

/// What one workload demands, in general and on single ports of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerPolicy {
    /// On every port that is not in `ports`.
    pub mode: PeerMode,
    /// On single ports, by the workload's port number.
    pub ports: BTreeMap<u32, PeerMode>,
}

impl PeerPolicy {
    /// What is demanded on a port of the workload.
    #[must_use]
    pub fn at(&self, port: u32) -> PeerMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// All rules of the world, by what they are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerAuthentications {
    mesh: Option<PeerMode>,
    namespaces: BTreeMap<String, NamespaceRules>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct NamespaceRules {
    /// The mode of the whole namespace, where a rule sets one.
    mode: Option<PeerMode>,
    /// Rules for some of its workloads, the oldest first.
    workloads: Vec<Arc<Config<PeerAuthentication>>>,
}

impl PeerAuthentications {
    /// Joins the rules.
    #[must_use]
    pub fn build(objects: &Objects) -> Self {
        let mut all = Self::default();
        for (namespace, rules) in by_namespace(objects) {
            let root = namespace == objects.mesh.root_namespace;
            let whole = rules.iter().find(|rule| selector(rule).is_none());
            let mode = whole.and_then(|rule| mode(rule.spec.mtls.as_ref()));
            if root {
                all.mesh = mode;
                continue;
            }
            let workloads = rules.into_iter().filter(|rule| selector(rule).is_some());
            let workloads = workloads.cloned().collect();
            all.namespaces
                .insert(namespace.to_owned(), NamespaceRules { mode, workloads });
        }
        all
    }

    /// What a workload of a namespace with these labels demands.
    #[must_use]
    pub fn of_workload(&self, namespace: &str, labels: &Labels) -> PeerPolicy {
        let inherited = self.of_namespace(namespace);
        let rules = self.namespaces.get(namespace).into_iter();
        let own = rules
            .flat_map(|rules| &rules.workloads)
            .find(|rule| selector(rule).is_some_and(|selector| selects(selector, labels)));
        let Some(own) = own else {
            return PeerPolicy {
                mode: inherited,
                ports: BTreeMap::new(),
            };
        };
        let whole = mode(own.spec.mtls.as_ref()).unwrap_or(inherited);
        let ports = own.spec.port_level_mtls.iter();
        PeerPolicy {
            mode: whole,
            ports: ports
                .map(|(port, at)| (*port, mode(Some(at)).unwrap_or(whole)))
                .collect(),
        }
    }

    /// What the workloads of a namespace demand that no rule of their own is for.
    #[must_use]
    pub fn of_namespace(&self, namespace: &str) -> PeerMode {
        let own = self.namespaces.get(namespace).and_then(|rules| rules.mode);
        own.or(self.mesh).unwrap_or_default()
    }
}

/// Adds a diagnostic for every rule of which a part has no effect.
pub(crate) fn check(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    for (namespace, rules) in by_namespace(objects) {
        let root = namespace == objects.mesh.root_namespace;
        let mut whole: Option<&Config<PeerAuthentication>> = None;
        let mut seen: Vec<&Arc<Config<PeerAuthentication>>> = Vec::new();
        for rule in rules {
            let ineffective =
                |message: String| Diagnostic::new(Code::SchemaWarning, rule.resource(), message);
            match (selector(rule), whole) {
                (Some(_), _) if root => diagnostics.push(
                    ineffective("a rule for some workloads has no effect in the root namespace".to_owned())
                        .at("spec.selector")
                        .hint("leave the selector out to set the mode of the mesh"),
                ),
                (Some(selector), _) => {
                    let older = seen.iter().find(|older| self::selector(older) == Some(selector));
                    if let Some(older) = older {
                        let message =
                            format!("PeerAuthentication {} is for the same workloads", older.meta.name);
                        diagnostics.push(ineffective(message).at("spec.selector").hint(OLDER));
                    }
                    seen.push(rule);
                    diagnostics.extend(nobody(objects, rule, selector));
                }
                (None, Some(older)) => {
                    let scope = if root { "the mesh" } else { "the namespace" };
                    let message = format!("PeerAuthentication {} is for {scope} too", older.meta.name);
                    diagnostics.push(ineffective(message).hint(OLDER));
                }
                (None, None) => whole = Some(rule),
            }
            if selector(rule).is_none() && !rule.spec.port_level_mtls.is_empty() {
                diagnostics.push(
                    ineffective("modes of single ports have no effect without a selector".to_owned())
                        .at("spec.portLevelMtls")
                        .hint("name the workloads whose ports these are in spec.selector"),
                );
            }
            if !objects.settings.identity && demands(&rule.spec) {
                diagnostics.push(
                    ineffective("workloads have no identities here, so nobody meets this demand".to_owned())
                        .hint("what asks for STRICT refuses every connection"),
                );
            }
        }
    }
}

/// A diagnostic where no workload of the rule's namespace has the labels, which may be misspelt.
fn nobody(objects: &Objects, rule: &Config<PeerAuthentication>, labels: &Labels) -> Option<Diagnostic> {
    let mut beside = objects
        .labelled()
        .filter(|(namespace, _)| *namespace == rule.meta.namespace);
    if beside.any(|(_, found)| selects(labels, &found)) {
        return None;
    }
    let printed: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let message = format!(
        "No matching workloads for this resource with the following labels: {}",
        printed.join(",")
    );
    let namespace = &rule.meta.namespace;
    Some(
        Diagnostic::new(Code::NoMatchingWorkloadsFound, rule.resource(), message)
            .at("spec.selector.matchLabels")
            .hint(format!(
                "the rule has no effect until namespace {namespace} has a workload with all of them"
            )),
    )
}

/// How a conflict between rules of one scope ends.
const OLDER: &str = "the older object has effect";

/// Whether a rule asks for mutual TLS anywhere.
fn demands(rule: &PeerAuthentication) -> bool {
    let ports = rule.port_level_mtls.values();
    ports
        .chain(&rule.mtls)
        .any(|tls| tls.mode == MutualTlsMode::Strict)
}

/// The rules of each namespace, the oldest first.
fn by_namespace(objects: &Objects) -> BTreeMap<&str, Vec<&Arc<Config<PeerAuthentication>>>> {
    let mut all: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for rule in objects.peer_authentications.values() {
        all.entry(rule.meta.namespace.as_str()).or_default().push(rule);
    }
    for rules in all.values_mut() {
        rules.sort_by(|a, b| a.meta.cmp(&b.meta));
    }
    all
}

/// The labels of the workloads a rule is for; `None` for one that is for all.
fn selector(rule: &Config<PeerAuthentication>) -> Option<&Labels> {
    let selector = rule.spec.selector.as_ref()?;
    Some(&selector.match_labels).filter(|labels| !labels.is_empty())
}

fn mode(tls: Option<&MutualTls>) -> Option<PeerMode> {
    match tls?.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(PeerMode::Disable),
        MutualTlsMode::Permissive => Some(PeerMode::Permissive),
        MutualTlsMode::Strict => Some(PeerMode::Strict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use serde_json::{Value, json};

    fn objects(rules: &[(&str, &str, Value)]) -> Objects {
        let mut objects = Objects::default();
        for (index, (namespace, name, spec)) in rules.iter().enumerate() {
            let created = format!("2026-11-21T12:00:{index:02}Z");
            let meta = json!({"name": name, "namespace": namespace, "creationTimestamp": created});
            let object = json!({"metadata": meta, "spec": spec});
            assert_eq!(objects.apply(Kind::PeerAuthentication, object), None);
        }
        objects
    }

    fn of(objects: &Objects, namespace: &str, app: &str) -> PeerPolicy {
        let labels = Labels::from([("app".to_owned(), app.to_owned())]);
        PeerAuthentications::build(objects).of_workload(namespace, &labels)
    }

    fn rule(mode: &str) -> Value {
        json!({"mtls": {"mode": mode}})
    }

    #[test]
    fn the_most_specific_rule_that_sets_a_mode_decides() {
        let reviews = json!({
            "selector": {"matchLabels": {"app": "reviews"}}, "mtls": {"mode": "UNSET"},
            "portLevelMtls": {"9080": {"mode": "DISABLE"}, "9081": {"mode": "UNSET"}},
        });
        let objects = objects(&[
            ("istio-system", "default", rule("STRICT")),
            ("shop", "default", rule("PERMISSIVE")),
            ("unset", "default", rule("UNSET")),
            ("shop", "reviews", reviews),
        ]);
        assert_eq!(of(&objects, "elsewhere", "x").mode, PeerMode::Strict);
        assert_eq!(of(&objects, "unset", "x").mode, PeerMode::Strict);
        assert_eq!(of(&objects, "shop", "x").mode, PeerMode::Permissive);
        let reviews = of(&objects, "shop", "reviews");
        let at = [9080, 9081, 80].map(|port| reviews.at(port));
        assert_eq!(
            at,
            [PeerMode::Disable, PeerMode::Permissive, PeerMode::Permissive]
        );
        assert_eq!(of(&Objects::default(), "shop", "x"), PeerPolicy::default());
    }

    #[test]
    fn of_rules_for_one_scope_the_oldest_counts_and_the_others_are_reported() {
        let objects = objects(&[
            ("shop", "z-first", rule("STRICT")),
            ("shop", "a-second", rule("DISABLE")),
        ]);
        assert_eq!(of(&objects, "shop", "x").mode, PeerMode::Strict);
        let mut found = Vec::new();
        check(&objects, &mut found);
        let second: Vec<_> = found.iter().filter(|d| d.resource.name == "a-second").collect();
        assert_eq!(second.len(), 1, "{found:?}");
        assert_eq!(
            second[0].message,
            "PeerAuthentication z-first is for the namespace too"
        );
    }

    #[test]
    fn a_rule_for_workloads_that_nobody_has_seen_is_reported_until_there_is_one() {
        let selecting = json!({"selector": {"matchLabels": {"app": "reviews"}}, "mtls": {"mode": "STRICT"}});
        let mut objects = objects(&[("shop", "reviews", selecting)]);
        let reported = |objects: &Objects| {
            let mut found = Vec::new();
            check(objects, &mut found);
            let mut found = found.iter().filter(|d| d.code == Code::NoMatchingWorkloadsFound);
            found.next().map(|d| d.message.clone())
        };
        let message = reported(&objects).expect("nobody is called reviews");
        assert!(message.ends_with("labels: app=reviews"), "{message}");
        let pod = |namespace: &str| {
            let metadata = json!({"name": "a", "namespace": namespace, "labels": {"app": "reviews"}});
            json!({"metadata": metadata, "spec": {}, "status": {}})
        };
        assert_eq!(objects.apply(Kind::Pod, pod("elsewhere")), None);
        assert!(reported(&objects).is_some());
        assert_eq!(objects.apply(Kind::Pod, pod("shop")), None);
        assert_eq!(reported(&objects), None);
    }

    #[test]
    fn a_selector_in_the_root_namespace_is_no_rule_of_the_mesh() {
        let selecting = json!({"selector": {"matchLabels": {"app": "x"}}, "mtls": {"mode": "STRICT"}});
        let objects = objects(&[("istio-system", "x", selecting)]);
        assert_eq!(of(&objects, "shop", "x").mode, PeerMode::Permissive);
        assert_eq!(of(&objects, "istio-system", "x").mode, PeerMode::Permissive);
        let mut found = Vec::new();
        check(&objects, &mut found);
        assert!(found.iter().any(|d| d.field == "spec.selector"), "{found:?}");
    }
}
