//! What DestinationRules say about TLS that cannot work, or is weaker than it looks: clients that would be refused by
//! what PeerAuthentication demands of the servers, and servers whose certificates nobody verifies.

use api_istio::networking::{ClientTlsMode, ClientTlsSettings, DestinationRule, TrafficPolicy};
use diagnostics::{Code, Diagnostic};

use crate::destination_rules::{DestinationRules, Rule};
use crate::host;
use crate::kubernetes::{Labels, selects};
use crate::peer_authentication::{PeerAuthentications, PeerMode};
use crate::registry::Registry;
use crate::service::{Address, Endpoint, Service};

/// Adds a diagnostic for every such setting.
pub(crate) fn check(
    registry: &Registry,
    rules: &DestinationRules,
    peers: &PeerAuthentications,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for rule in rules.iter() {
        for setting in settings(&rule.config.spec) {
            diagnostics.extend(unverified(rule, &setting));
            for service in registry.services.iter().filter(|s| concerns(rule, s)) {
                diagnostics.extend(conflict(registry, peers, rule, service, &setting));
            }
        }
    }
}

/// One place of a rule that says something about TLS.
pub(crate) struct Setting<'a> {
    /// What it says.
    pub(crate) tls: &'a ClientTlsSettings,
    /// The path of the field.
    pub(crate) field: String,
    /// The labels of the subset it is for; `None` for all endpoints.
    subset: Option<&'a Labels>,
    /// The port of the service it is for; `None` for all.
    port: Option<u32>,
}

/// Everything that a rule says about TLS.
pub(crate) fn settings(spec: &DestinationRule) -> Vec<Setting<'_>> {
    let mut all = Vec::new();
    if let Some(policy) = &spec.traffic_policy {
        collect(policy, "spec.trafficPolicy", None, &mut all);
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            let path = format!("spec.subsets[{index}].trafficPolicy");
            collect(policy, &path, Some(&subset.labels), &mut all);
        }
    }
    all
}

fn collect<'a>(
    policy: &'a TrafficPolicy,
    path: &str,
    subset: Option<&'a Labels>,
    all: &mut Vec<Setting<'a>>,
) {
    all.extend(policy.tls.iter().map(|tls| Setting {
        tls,
        field: format!("{path}.tls"),
        subset,
        port: None,
    }));
    for (index, at_port) in policy.port_level_settings.iter().enumerate() {
        all.extend(at_port.tls.iter().map(|tls| Setting {
            tls,
            field: format!("{path}.portLevelSettings[{index}].tls"),
            subset,
            port: at_port.port.as_ref().map(|port| port.number),
        }));
    }
}

fn concerns(rule: &Rule, service: &Service) -> bool {
    let pattern = &rule.config.spec.host;
    let short = !pattern.contains('.') && !host::is_wildcard(pattern);
    if short {
        return *service.name == **pattern && *service.namespace == *rule.config.meta.namespace;
    }
    host::is_subset(&service.hostname, pattern)
}

/// TLS towards a server whose certificate nobody has said how to verify.
fn unverified(rule: &Rule, setting: &Setting<'_>) -> Option<Diagnostic> {
    let tls = setting.tls;
    let own = matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    let skipped = tls.insecure_skip_verify == Some(true);
    let said = !tls.ca_certificates.is_empty() || !tls.credential_name.is_empty();
    if !own || (said && !skipped) {
        return None;
    }
    let code = match setting.port {
        Some(_) => Code::NoServerCertificateVerificationPortLevel,
        None => Code::NoServerCertificateVerificationDestinationLevel,
    };
    let message = if skipped {
        format!(
            "TLS mode {} with insecureSkipVerify: whoever answers is taken for the server",
            tls.mode
        )
    } else {
        format!(
            "TLS mode {} without caCertificates: every authority of the operating system may vouch for the server",
            tls.mode
        )
    };
    Some(
        Diagnostic::new(code, rule.config.resource(), message)
            .at(setting.field.clone())
            .hint("name the server's authorities in caCertificates, or a Secret or ConfigMap that holds them in credentialName"),
    )
}

/// Clients that do what the rule says, against servers that do what PeerAuthentication says.
fn conflict(
    registry: &Registry,
    peers: &PeerAuthentications,
    rule: &Rule,
    service: &Service,
    setting: &Setting<'_>,
) -> Option<Diagnostic> {
    if service.external {
        return None;
    }
    let endpoints = registry.endpoints_of(service)?;
    let mut ports = endpoints.ports.iter();
    let refusing = ports.find_map(|(number, list)| {
        let here = setting.port.is_none_or(|port| port == *number);
        let selected = list.iter().filter(|endpoint| {
            here && setting
                .subset
                .is_none_or(|labels| selects(labels, &endpoint.workload.labels))
        });
        selected
            .filter_map(|endpoint| Some((endpoint, refusal(setting.tls.mode, endpoint, peers)?)))
            .next()
    });
    let (endpoint, reason) = refusing?;
    let message = format!(
        "TLS mode {} towards {}: workload {} {reason}",
        setting.tls.mode, service.hostname, endpoint.workload.name
    );
    Some(
        Diagnostic::new(Code::MtlsPolicyConflict, rule.config.resource(), message)
            .at(format!("{}.mode", setting.field))
            .hint("its connections fail; leave the mode out, and each workload gets what it takes"),
    )
}

/// Why a workload refuses clients of a mode, if it does. What has no sidecar may end any TLS by itself, but not the
/// mesh's.
fn refusal(mode: ClientTlsMode, endpoint: &Endpoint, peers: &PeerAuthentications) -> Option<&'static str> {
    let workload = &endpoint.workload;
    let policy = peers.of_workload(&workload.namespace, &workload.labels);
    let demanded = match endpoint.address {
        Address::Socket(_, port) => policy.at(port),
        Address::Pipe(_) => policy.mode,
    };
    match (mode, workload.mutual_tls, demanded) {
        (ClientTlsMode::IstioMutual, true, PeerMode::Disable) => {
            Some("takes none, says a PeerAuthentication (DISABLE)")
        }
        (ClientTlsMode::IstioMutual, false, _) if !workload.name.is_empty() => {
            Some("has no identity to show")
        }
        (ClientTlsMode::IstioMutual, ..) => None,
        (_, true, PeerMode::Strict) => {
            Some("takes the mesh's mutual TLS only, says a PeerAuthentication (STRICT)")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Kind, Objects, Settings, Snapshot};
    use serde_json::{Value, json};

    fn diagnose(mode: &str, peers: &str) -> Vec<(&'static str, String, String)> {
        let mut objects = Objects::new(Settings {
            identity: true,
            ..Settings::default()
        });
        let mut apply = |kind, name: &str, spec: Value| {
            let meta = json!({"name": name, "namespace": "custom-ns"});
            assert_eq!(objects.apply(kind, json!({"metadata": meta, "spec": spec})), None);
        };
        apply(
            Kind::Service,
            "shop",
            json!({"clusterIP": "10.96.0.10", "selector": {"app": "shop"}, "ports": [{"name": "http", "port": 80}]}),
        );
        let entry = json!({"address": "10.244.0.1", "labels": {"app": "shop"}, "serviceAccount": "shop"});
        apply(Kind::WorkloadEntry, "shop-v1", entry);
        apply(
            Kind::PeerAuthentication,
            "default",
            json!({"mtls": {"mode": peers}}),
        );
        let policy = json!({"tls": {"mode": mode, "caCertificates": "/ca.pem"}});
        let host = "*.custom-ns.svc.cluster.local";
        apply(
            Kind::DestinationRule,
            "all",
            json!({"host": host, "trafficPolicy": policy}),
        );
        let snapshot = Snapshot::build(&objects);
        let found = snapshot.diagnostics().iter();
        found
            .map(|d| (d.code.id(), d.field.clone(), d.message.clone()))
            .collect()
    }

    #[test]
    fn a_rule_that_what_the_servers_demand_contradicts_is_reported_where_it_stands() {
        let (code, field, message) = diagnose("DISABLE", "STRICT").remove(0);
        assert_eq!((code, &*field), ("IST0113", "spec.trafficPolicy.tls.mode"));
        assert_eq!(
            message,
            "TLS mode DISABLE towards shop.custom-ns.svc.cluster.local: workload shop-v1 takes the mesh's mutual TLS only, \
             says a PeerAuthentication (STRICT)"
        );
        assert_eq!(diagnose("ISTIO_MUTUAL", "DISABLE")[0].0, "IST0113");
        for fits in [
            ("ISTIO_MUTUAL", "STRICT"),
            ("DISABLE", "PERMISSIVE"),
            ("SIMPLE", "DISABLE"),
        ] {
            assert_eq!(diagnose(fits.0, fits.1), [], "{fits:?}");
        }
    }

    #[test]
    fn a_server_that_nobody_said_how_to_verify_is_reported() {
        let mut objects = Objects::default();
        let tls = json!({"mode": "SIMPLE"});
        let policy = json!({"tls": tls, "portLevelSettings": [{"port": {"number": 443}, "tls": tls}]});
        let rule = json!({
            "metadata": {"name": "partner", "namespace": "default"},
            "spec": {"host": "*", "trafficPolicy": policy},
        });
        assert_eq!(objects.apply(Kind::DestinationRule, rule), None);
        let snapshot = Snapshot::build(&objects);
        let found: Vec<_> = snapshot.diagnostics().iter().map(|d| d.code.id()).collect();
        assert!(
            found.contains(&"IST0128") && found.contains(&"IST0129"),
            "{found:?}"
        );
    }
}
