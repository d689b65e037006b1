//! DestinationRules: merging of rules for one host, and which rule applies for whom.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use api_istio::networking::DestinationRule;
use diagnostics::{Code, Diagnostic};

use crate::config::Config;
use crate::hash_tables;
use crate::host;
use crate::kubernetes::{Labels, selects};
use crate::objects::Objects;
use crate::service::{Service, Visibility};
use crate::shared::Shared;

/// A rule as it applies, several objects for one host merged into one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The merged object; its metadata is that of the oldest.
    pub config: Config<DestinationRule>,
    /// Whose clients see it.
    pub visibility: Visibility,
    /// Which clients it is for; empty for all.
    pub workload_selector: Labels,
}

/// All rules, by namespace and then by fully qualified host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationRules {
    by_namespace: BTreeMap<String, BTreeMap<Arc<str>, Vec<Shared<Rule>>>>,
    root_namespace: Arc<str>,
    /// Some rule is for some clients of a namespace only, so that a client's labels matter.
    selective: bool,
}

impl DestinationRules {
    /// Merges all rules, oldest first.
    #[must_use]
    pub fn build(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut all: Vec<_> = objects.destination_rules.values().collect();
        all.sort_by(|a, b| a.meta.cmp(&b.meta));
        let mut drafts: BTreeMap<String, BTreeMap<Arc<str>, Vec<Rule>>> = BTreeMap::new();
        for config in all {
            let namespace = config.meta.namespace.clone();
            let fqdn = host::resolve(&config.spec.host, &namespace, &objects.settings.domain);
            let rules = drafts
                .entry(namespace.clone())
                .or_default()
                .entry(fqdn)
                .or_default();
            let mut own = (**config).clone();
            hash_tables::keep_servable(&mut own.spec, &config.resource(), diagnostics);
            let rule = Rule {
                config: own,
                visibility: Visibility::parse(
                    &config.spec.export_to,
                    &namespace,
                    &objects.mesh.default_destination_rule_export_to,
                ),
                workload_selector: config
                    .spec
                    .workload_selector
                    .as_ref()
                    .map(|s| s.match_labels.clone())
                    .unwrap_or_default(),
            };
            merge_into(rules, rule, diagnostics);
        }
        let mut rules = drafts.values().flat_map(BTreeMap::values).flatten();
        let selective = rules.any(|rule| !rule.workload_selector.is_empty());
        let share = |hosts: BTreeMap<_, Vec<Rule>>| {
            hosts
                .into_iter()
                .map(|(h, rules)| (h, rules.into_iter().map(Shared::new).collect()))
                .collect()
        };
        Self {
            by_namespace: drafts.into_iter().map(|(ns, hosts)| (ns, share(hosts))).collect(),
            root_namespace: objects.mesh.root_namespace.as_str().into(),
            selective,
        }
    }

    /// Takes over from an earlier world what is equal.
    pub(crate) fn reuse(&mut self, earlier: &Self) {
        for (namespace, hosts) in &mut self.by_namespace {
            let before = earlier.by_namespace.get(namespace);
            for (host, rules) in hosts {
                let before = before.and_then(|hosts| hosts.get(host));
                for (rule, before) in rules.iter_mut().zip(before.into_iter().flatten()) {
                    rule.reuse(before);
                }
            }
        }
    }

    /// Whether any rule is for some clients of a namespace only, so that a client's labels matter.
    pub(crate) fn select_workloads(&self) -> bool {
        self.selective
    }

    /// The rule for clients of a namespace with these labels that talk to `service`.
    ///
    /// The client's namespace comes first, then the service's, then the root namespace; rules of other namespaces
    /// count only where they are exported to.
    #[must_use]
    pub fn lookup(&self, namespace: &str, labels: &Labels, service: &Service) -> Option<Shared<Rule>> {
        let own = self.most_specific(namespace, &service.hostname, labels, |_| true);
        let root = &*self.root_namespace;
        let exported = |rule: &Rule| rule.visibility.includes(namespace);
        own.or_else(|| {
            (*service.namespace != *namespace && !service.namespace.is_empty())
                .then(|| self.most_specific(&service.namespace, &service.hostname, labels, exported))?
        })
        .or_else(|| {
            (namespace != root).then(|| self.most_specific(root, &service.hostname, labels, exported))?
        })
        .cloned()
    }

    /// The rule of one namespace with the most specific host; among equals one whose selector matches.
    fn most_specific(
        &self,
        namespace: &str,
        hostname: &str,
        labels: &Labels,
        visible: impl Fn(&Rule) -> bool,
    ) -> Option<&Shared<Rule>> {
        let hosts = self.by_namespace.get(namespace)?;
        let mut wildcards = Vec::new();
        if let Some(rules) = hosts.get(hostname)
            && let Some(rule) = pick(rules, labels, &visible)
        {
            return Some(rule);
        }
        let from_wildcards = (Bound::Included("*"), Bound::Unbounded);
        for (pattern, rules) in hosts
            .range::<str, _>(from_wildcards)
            .take_while(|(h, _)| h.starts_with('*'))
        {
            if host::is_subset(hostname, pattern) {
                wildcards.push((pattern, rules));
            }
        }
        wildcards.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
        wildcards
            .into_iter()
            .find_map(|(_, rules)| pick(rules, labels, &visible))
    }

    /// Every rule of the world.
    pub fn iter(&self) -> impl Iterator<Item = &Shared<Rule>> {
        self.by_namespace
            .values()
            .flat_map(|hosts| hosts.values())
            .flatten()
    }
}

fn pick<'a>(
    rules: &'a [Shared<Rule>],
    labels: &Labels,
    visible: &impl Fn(&Rule) -> bool,
) -> Option<&'a Shared<Rule>> {
    let seen = || rules.iter().filter(|rule| visible(rule));
    let selected = seen().find(|r| !r.workload_selector.is_empty() && selects(&r.workload_selector, labels));
    selected.or_else(|| seen().find(|r| r.workload_selector.is_empty()))
}

/// Rules for one host with the same audience become one: the oldest traffic policy stands, subsets add up.
fn merge_into(rules: &mut Vec<Rule>, rule: Rule, diagnostics: &mut Vec<Diagnostic>) {
    let same_audience = |known: &&mut Rule| {
        known.visibility == rule.visibility && known.workload_selector == rule.workload_selector
    };
    let Some(known) = rules.iter_mut().find(same_audience) else {
        rules.push(rule);
        return;
    };
    let mut spec = known.config.spec.clone();
    let meta = known.config.meta.clone();
    let resource = rule.config.resource();
    for (index, subset) in rule.config.spec.subsets.into_iter().enumerate() {
        if spec.subsets.iter().any(|s| s.name == subset.name) {
            let message = format!(
                "subset {} is already defined by DestinationRule {}",
                subset.name, meta.name
            );
            diagnostics.push(
                Diagnostic::new(Code::SchemaWarning, resource.clone(), message)
                    .at(format!("spec.subsets[{index}]"))
                    .hint("the definition in the older object has effect"),
            );
        } else {
            spec.subsets.push(subset);
        }
    }
    if spec.traffic_policy.is_none() {
        spec.traffic_policy = rule.config.spec.traffic_policy;
    }
    known.config = Config::new(meta, spec);
}
