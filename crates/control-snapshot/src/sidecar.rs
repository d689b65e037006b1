//! The Sidecar resource: which services a workload imports.

use std::sync::Arc;

use api_istio::mesh::MeshOutboundTrafficPolicyMode as OutboundMode;
use api_istio::networking::{CaptureMode, OutboundTrafficPolicyMode, Sidecar};
use diagnostics::{Code, Diagnostic};

use crate::config::Config;
use crate::host;
use crate::kubernetes::selects;
use crate::objects::Objects;
use crate::proxy::Profile;

/// What the Sidecar resource of a proxy says; the default imports everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SidecarScope {
    /// Imported hosts as (namespace, host); `None` imports everything.
    imports: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// What happens to traffic that no service claims, where the resource says so.
    pub outbound: Option<OutboundMode>,
}

impl SidecarScope {
    /// Whether a host of a namespace is imported by a proxy of `own` namespace.
    #[must_use]
    pub fn imports(&self, own: &str, namespace: &str, hostname: &str) -> bool {
        let Some(imports) = &self.imports else { return true };
        imports.iter().any(|(ns, pattern)| {
            let namespace_matches = match &**ns {
                "*" => true,
                "." => namespace == own,
                "~" => false,
                ns => ns == namespace,
            };
            namespace_matches && (&**pattern == "*" || host::is_subset(hostname, pattern))
        })
    }

    /// Whether everything is imported.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.imports.is_none()
    }
}

/// The scope of a proxy: a Sidecar of its namespace that selects it, else one without a selector, else the root
/// namespace's.
pub(crate) fn scope(objects: &Objects, profile: &Profile) -> SidecarScope {
    let own = candidates(objects, &profile.namespace);
    let selector = |s: &&&Config<Sidecar>| {
        s.spec
            .workload_selector
            .as_ref()
            .filter(|w| !w.labels.is_empty())
            .cloned()
    };
    let selected = own
        .iter()
        .find(|s| selector(s).is_some_and(|w| selects(&w.labels, &profile.labels)));
    let of_namespace = || own.iter().find(|s| selector(s).is_none());
    let root = candidates(objects, &objects.mesh.root_namespace);
    let chosen = selected
        .or_else(of_namespace)
        .or_else(|| root.iter().find(|s| selector(s).is_none()));
    chosen.map(|sidecar| read(sidecar)).unwrap_or_default()
}

fn candidates<'a>(objects: &'a Objects, namespace: &str) -> Vec<&'a Config<Sidecar>> {
    let in_namespace = objects
        .sidecars
        .values()
        .filter(|s| s.meta.namespace == namespace);
    let mut all: Vec<&Config<Sidecar>> = in_namespace.map(|s| &**s).collect();
    all.sort_by(|a, b| a.meta.cmp(&b.meta));
    all
}

/// Adds a diagnostic for every part of a Sidecar that has no effect.
pub(crate) fn check(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    for sidecar in objects.sidecars.values() {
        check_one(sidecar, diagnostics);
    }
}

fn check_one(sidecar: &Config<Sidecar>, diagnostics: &mut Vec<Diagnostic>) {
    let mut unsupported = |field: String, what: &str| {
        let message = format!("{what} has no effect in this version");
        diagnostics.push(Diagnostic::new(Code::SchemaWarning, sidecar.resource(), message).at(field));
    };
    if !sidecar.spec.ingress.is_empty() {
        unsupported("spec.ingress".to_owned(), "a custom ingress listener");
    }
    if sidecar.spec.inbound_connection_pool.is_some() {
        unsupported(
            "spec.inboundConnectionPool".to_owned(),
            "an inbound connection pool",
        );
    }
    if sidecar
        .spec
        .outbound_traffic_policy
        .as_ref()
        .is_some_and(|p| p.egress_proxy.is_some())
    {
        unsupported(
            "spec.outboundTrafficPolicy.egressProxy".to_owned(),
            "an egress proxy",
        );
    }
    for (index, listener) in sidecar.spec.egress.iter().enumerate() {
        if listener.port.is_some() || !listener.bind.is_empty() || listener.capture_mode == CaptureMode::None
        {
            unsupported(
                format!("spec.egress[{index}]"),
                "an egress listener with a port, bind or capture mode of its own",
            );
        }
    }
}

fn read(sidecar: &Config<Sidecar>) -> SidecarScope {
    let imports = sidecar
        .spec
        .egress
        .iter()
        .flat_map(|listener| &listener.hosts)
        .filter_map(|host| {
            let (namespace, host) = host.split_once('/')?;
            Some((Arc::from(namespace), Arc::from(host)))
        });
    SidecarScope {
        imports: (!sidecar.spec.egress.is_empty()).then(|| imports.collect()),
        outbound: sidecar
            .spec
            .outbound_traffic_policy
            .as_ref()
            .map(|policy| match policy.mode {
                OutboundTrafficPolicyMode::RegistryOnly => OutboundMode::RegistryOnly,
                OutboundTrafficPolicyMode::AllowAny => OutboundMode::AllowAny,
            }),
    }
}
