//! Checks of TLS at gateways that hold for the whole world: settings that cannot work, and Secrets that are not there,
//! hold something else, or were refused (Istio's analyzers `gateway.SecretAnalyzer` and `gateway.CertificateAnalyzer`).

use std::collections::{BTreeMap, BTreeSet};

use api_istio::networking::{DestinationRule, Gateway, TrafficPolicy};
use diagnostics::{Code, Diagnostic, ResourceRef};

use crate::config::Config;
use crate::credential_name::{self, CredentialName};
use crate::credentials::CredentialError;
use crate::grants;
use crate::kind::Kind;
use crate::kubernetes::selects;
use crate::objects::{Key, Objects};
use crate::protocol::Protocol;
use crate::server_tls::{Finding, ServerTls};

/// Adds what is wrong.
pub(crate) fn check(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    let mut refused = Refused::new(objects);
    for gateway in objects.gateways.values() {
        check_gateway(objects, gateway, &mut refused, diagnostics);
    }
    for rule in objects.destination_rules.values() {
        for name in credentials_of(&rule.spec) {
            refused.mention_anywhere(&name);
        }
    }
    diagnostics.extend(refused.diagnostics());
    shared_certificates(objects, diagnostics);
}

fn check_gateway(
    objects: &Objects,
    gateway: &Config<Gateway>,
    refused: &mut Refused<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let namespaces = namespaces_of_workloads(objects, gateway);
    for (index, server) in gateway.spec.servers.iter().enumerate() {
        let protocol = server.port.as_ref().map_or("", |p| p.protocol.as_str());
        let (tls, findings) = ServerTls::read(server, Protocol::parse(protocol));
        diagnostics.extend(findings.into_iter().map(|finding| said(gateway, index, finding)));
        let Some(tls) = tls else { continue };
        for name in tls.secrets().filter_map(CredentialName::parse) {
            let places = match name.namespace {
                "" => namespaces.iter().copied().collect(),
                said => vec![said],
            };
            let foreign = |beside: &&&str| !name.namespace.is_empty() && **beside != name.namespace;
            for beside in namespaces.iter().filter(foreign) {
                if !grants::grants(objects, beside, &name) {
                    diagnostics.push(not_granted(gateway, index, &name, beside));
                }
            }
            for namespace in places {
                if refused.mention(namespace, name.name) {
                    continue;
                }
                if let Some(reason) = unusable(objects, namespace, &name) {
                    let secret = format!("{namespace}/{}", name.name);
                    diagnostics.push(missing(
                        gateway,
                        index,
                        &secret,
                        name.authorities,
                        reason.as_ref(),
                    ));
                }
            }
        }
    }
}

fn said(gateway: &Config<Gateway>, index: usize, finding: Finding) -> Diagnostic {
    let (code, hint) = match finding.fatal {
        true => (
            Code::SchemaValidationError,
            "the server is left out until it is corrected",
        ),
        false => (Code::SchemaWarning, ""),
    };
    let dot = if finding.field.is_empty() { "" } else { "." };
    let field = format!("spec.servers[{index}].tls{dot}{}", finding.field);
    let diagnostic = Diagnostic::new(code, gateway.resource(), finding.message).at(field);
    if hint.is_empty() {
        diagnostic
    } else {
        diagnostic.hint(hint)
    }
}

/// Where the workloads are that a Gateway selects: Secrets are looked up beside them.
fn namespaces_of_workloads<'o>(objects: &'o Objects, gateway: &Config<Gateway>) -> BTreeSet<&'o str> {
    let selector = &gateway.spec.selector;
    let all = objects.labelled();
    let selected = all.filter(|(_, labels)| !selector.is_empty() && selects(selector, labels));
    selected.map(|(namespace, _)| namespace).collect()
}

/// What a name stands for: a Secret of that name, or for authorities one of the whole name first.
///
/// `Some` when there is none, or none of use, with the reason.
fn unusable(
    objects: &Objects,
    namespace: &str,
    name: &CredentialName<'_>,
) -> Option<Option<CredentialError>> {
    let secret = |name: String| objects.secrets.get(&(namespace.to_owned(), name));
    let whole = secret(name.name.to_owned());
    let result = if name.authorities {
        let alone = secret(name.of_authorities_alone()).or(whole);
        alone.map(|credential| credential.authorities().map(drop))
    } else {
        whole.map(|credential| credential.key_pair().map(drop))
    };
    match result {
        Some(Ok(())) => None,
        Some(Err(reason)) => Some(Some(reason)),
        None => Some(None),
    }
}

fn missing(
    gateway: &Config<Gateway>,
    index: usize,
    secret: &str,
    authorities: bool,
    reason: Option<&CredentialError>,
) -> Diagnostic {
    let what = if authorities {
        "authorities for clients"
    } else {
        "certificate"
    };
    let (code, message) = match reason {
        Some(reason) => {
            let message = format!("Secret {secret} holds no {what}: {reason}");
            (Code::InvalidGatewayCredential, message)
        }
        None => {
            let message = format!("Secret {secret} does not exist");
            (Code::ReferencedResourceNotFound, message)
        }
    };
    Diagnostic::new(code, gateway.resource(), message)
        .at(format!("spec.servers[{index}].tls.credentialName"))
        .hint("TLS handshakes with this server fail until it does; the Secret belongs beside the gateway's workload")
}

fn not_granted(
    gateway: &Config<Gateway>,
    index: usize,
    name: &CredentialName<'_>,
    beside: &str,
) -> Diagnostic {
    let message = format!(
        "Secret {}/{} is of another namespace than the gateway's workload ({beside}), and not granted to it",
        name.namespace, name.name
    );
    Diagnostic::new(Code::InvalidGatewayCredential, gateway.resource(), message)
        .at(format!("spec.servers[{index}].tls.credentialName"))
        .hint("kubernetes-gateway://namespace/name and a ReferenceGrant beside the Secret allow it")
}

/// Secrets that were refused and that somebody refers to. Those of others are nobody's business.
struct Refused<'o> {
    objects: &'o Objects,
    mentioned: BTreeSet<&'o Key>,
}

impl<'o> Refused<'o> {
    fn new(objects: &'o Objects) -> Self {
        Self {
            objects,
            mentioned: BTreeSet::new(),
        }
    }

    /// Notes that a Secret is referred to; whether it is one that was refused, so that there is nothing else to say.
    fn mention(&mut self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.objects.refused_secrets.get_key_value(&key);
        self.mentioned.extend(known.map(|(key, _)| key));
        known.is_some()
    }

    fn mention_anywhere(&mut self, credential: &str) {
        let Ok(resource) = credential_name::resource_name(credential) else {
            return;
        };
        let Some(name) = CredentialName::parse(&resource) else {
            return;
        };
        let fits = |key: &&Key| key.1 == name.name && (name.namespace.is_empty() || key.0 == name.namespace);
        self.mentioned
            .extend(self.objects.refused_secrets.keys().filter(fits));
    }

    fn diagnostics(self) -> impl Iterator<Item = Diagnostic> {
        self.mentioned.into_iter().filter_map(move |key| {
            let reason = self.objects.refused_secrets.get(key)?;
            let resource = ResourceRef::new(Kind::Secret.name(), key.0.as_str(), key.1.as_str());
            let hint = match self.objects.secrets.contains_key(key) {
                true => "refused whole; what the Secret held before stays in force",
                false => "refused whole; TLS handshakes that need it fail until it is corrected",
            };
            Some(
                Diagnostic::new(Code::InvalidGatewayCredential, resource, reason.to_string())
                    .at("data")
                    .hint(hint),
            )
        })
    }
}

/// The credentials that a rule names.
fn credentials_of(rule: &DestinationRule) -> Vec<String> {
    let subsets = rule.subsets.iter().filter_map(|s| s.traffic_policy.as_ref());
    let policies: Vec<&TrafficPolicy> = rule.traffic_policy.iter().chain(subsets).collect();
    let whole = policies.iter().filter_map(|p| p.tls.as_ref());
    let ports = policies
        .iter()
        .flat_map(|p| &p.port_level_settings)
        .filter_map(|p| p.tls.as_ref());
    whole
        .chain(ports)
        .map(|tls| tls.credential_name.clone())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Of two Gateways of one workload with one certificate, a client that keeps its connection gets the wrong one's hosts.
fn shared_certificates(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    let mut users: BTreeMap<String, Vec<(&Config<Gateway>, usize)>> = BTreeMap::new();
    for gateway in objects.gateways.values() {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let credential = server.tls.as_ref().map_or("", |tls| tls.credential_name.as_str());
            if !credential.is_empty() {
                users
                    .entry(credential.to_owned())
                    .or_default()
                    .push((gateway, index));
            }
        }
    }
    for (credential, users) in users {
        for (gateway, index) in &users {
            let overlaps = |other: &Config<Gateway>| {
                let (a, b) = (&gateway.spec.selector, &other.spec.selector);
                selects(a, b) || selects(b, a)
            };
            let others: BTreeSet<String> = users
                .iter()
                .filter(|(other, _)| other.meta != gateway.meta && overlaps(other))
                .map(|(other, _)| format!("{}/{}", other.meta.namespace, other.meta.name))
                .collect();
            if others.is_empty() {
                continue;
            }
            let others: Vec<String> = others.into_iter().collect();
            let message = format!(
                "Gateway {} shows the certificate {credential} too",
                others.join(", ")
            );
            diagnostics.push(
                Diagnostic::new(Code::GatewayDuplicateCertificate, gateway.resource(), message)
                    .at(format!("spec.servers[{index}].tls.credentialName"))
                    .hint(
                        "a client that goes on using one HTTP/2 connection may get 404 for the other's hosts",
                    ),
            );
        }
    }
}
