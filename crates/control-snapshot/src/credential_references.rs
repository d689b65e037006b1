//! Checks of TLS that hold for the whole world: settings of gateways that cannot work, and Secrets and ConfigMaps that
//! are not there, hold something else, or were refused (Istio's analyzers `gateway.SecretAnalyzer` and
//! `gateway.CertificateAnalyzer`).

use std::collections::{BTreeMap, BTreeSet};

use api_istio::networking::{DestinationRule, Gateway};
use diagnostics::{Code, Diagnostic, ResourceRef};

use crate::config::Config;
use crate::credential_name::{CredentialName, Holder};
use crate::credentials::CredentialError;
use crate::grants;
use crate::kubernetes::selects;
use crate::objects::{Key, Objects};
use crate::protocol::Protocol;
use crate::server_tls::{Finding, ServerTls};
use crate::tls_conflicts::{self, Setting};

/// Adds what is wrong.
pub(crate) fn check(objects: &Objects, diagnostics: &mut Vec<Diagnostic>) {
    let mut refused = Refused::new(objects);
    for gateway in objects.gateways.values() {
        check_gateway(objects, gateway, &mut refused, diagnostics);
    }
    for rule in objects.destination_rules.values() {
        for setting in tls_conflicts::settings(&rule.spec) {
            refused.mention_anywhere(&setting.tls.credential_name);
            diagnostics.extend(missing_config_map(objects, rule, &setting));
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
            let namespaces_of_name = match name.namespace {
                "" => namespaces.iter().copied().collect(),
                said => vec![said],
            };
            // Authorities in ConfigMaps are no secret: they are for everybody, as from istiod.
            let secret = name.holder == Holder::Secret;
            let foreign = |beside: &&&str| secret && !name.namespace.is_empty() && **beside != name.namespace;
            for beside in namespaces.iter().filter(foreign) {
                if !grants::grants(objects, beside, &name) {
                    diagnostics.push(not_granted(gateway, index, &name, beside));
                }
            }
            for namespace in namespaces_of_name {
                if refused.mention(namespace, &name) {
                    continue;
                }
                if let Some(reason) = unusable(objects, namespace, &name) {
                    diagnostics.push(missing(gateway, index, namespace, &name, reason.as_ref()));
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

/// `Some` when what a name stands for is not there, or of no use, with the reason.
fn unusable(
    objects: &Objects,
    namespace: &str,
    name: &CredentialName<'_>,
) -> Option<Option<CredentialError>> {
    let credentials = objects.credentials(name.holder);
    let mut places = name
        .places()
        .map(|place| (namespace.to_owned(), place.to_owned()));
    let found = places.find_map(|key| credentials.get(&key));
    let result = found.map(|credential| match name.authorities {
        true => credential.authorities().map(drop),
        false => credential.key_pair().map(drop),
    });
    match result {
        Some(Ok(())) => None,
        Some(Err(reason)) => Some(Some(reason)),
        None => Some(None),
    }
}

fn missing(
    gateway: &Config<Gateway>,
    index: usize,
    namespace: &str,
    name: &CredentialName<'_>,
    reason: Option<&CredentialError>,
) -> Diagnostic {
    let what = if name.authorities {
        "authorities for clients"
    } else {
        "certificate"
    };
    let object = format!("{} {namespace}/{}", name.holder.kind().name(), name.name);
    let (code, message) = match (reason, name.holder) {
        (Some(reason), _) => {
            let message = format!("{object} holds no {what}: {reason}");
            (Code::InvalidGatewayCredential, message)
        }
        (None, Holder::Secret) => (
            Code::ReferencedResourceNotFound,
            format!("{object} does not exist"),
        ),
        (None, Holder::ConfigMap) => (Code::ReferencedResourceNotFound, absent_authorities(&object)),
    };
    let (field, hint) = match name.holder {
        Holder::Secret => (
            "credentialName",
            "TLS handshakes with this server fail until it does; the Secret belongs beside the gateway's workload",
        ),
        Holder::ConfigMap => (
            "caCertCredentialName",
            "TLS handshakes with this server fail until it does",
        ),
    };
    Diagnostic::new(code, gateway.resource(), message)
        .at(format!("spec.servers[{index}].tls.{field}"))
        .hint(hint)
}

/// ConfigMaps without authorities are not kept, so they cannot be told from those that are not there.
fn absent_authorities(object: &str) -> String {
    format!("{object} does not exist, or has no ca.crt")
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

/// What was refused and somebody refers to. What others hold is nobody's business.
struct Refused<'o> {
    objects: &'o Objects,
    /// Secrets.
    secrets: BTreeSet<&'o Key>,
    /// ConfigMaps.
    authorities: BTreeSet<&'o Key>,
}

impl<'o> Refused<'o> {
    fn new(objects: &'o Objects) -> Self {
        Self {
            objects,
            secrets: BTreeSet::new(),
            authorities: BTreeSet::new(),
        }
    }

    /// Notes that something is referred to; whether it is one that was refused, so that there is nothing else to say.
    fn mention(&mut self, namespace: &str, name: &CredentialName<'_>) -> bool {
        let refused = self.objects.credentials(name.holder).refused();
        let found: Vec<&'o Key> = name
            .places()
            .filter_map(|place| refused.get_key_value(&(namespace.to_owned(), place.to_owned())))
            .map(|(key, _)| key)
            .collect();
        let any = !found.is_empty();
        self.noted(name.holder).extend(found);
        any
    }

    fn mention_anywhere(&mut self, credential: &str) {
        let Ok(resource) = CredentialName::resource(credential) else {
            return;
        };
        let Some(name) = CredentialName::parse(&resource) else {
            return;
        };
        let fits = |key: &&Key| {
            name.places().any(|place| key.1 == place)
                && (name.namespace.is_empty() || key.0 == name.namespace)
        };
        let refused = self.objects.credentials(name.holder).refused();
        let found: Vec<&'o Key> = refused.keys().filter(fits).collect();
        self.noted(name.holder).extend(found);
    }

    fn noted(&mut self, holder: Holder) -> &mut BTreeSet<&'o Key> {
        match holder {
            Holder::Secret => &mut self.secrets,
            Holder::ConfigMap => &mut self.authorities,
        }
    }

    fn diagnostics(self) -> impl Iterator<Item = Diagnostic> {
        let objects = self.objects;
        let secrets = self.secrets.into_iter().map(|key| (Holder::Secret, key));
        let authorities = self.authorities.into_iter().map(|key| (Holder::ConfigMap, key));
        secrets.chain(authorities).filter_map(move |(holder, key)| {
            let credentials = objects.credentials(holder);
            let reason = credentials.refused().get(key)?;
            let resource = ResourceRef::new(holder.kind().name(), key.0.as_str(), key.1.as_str());
            let hint = match credentials.get(key) {
                Some(_) => "refused whole; what it held before stays in force",
                None => "refused whole; TLS handshakes that need it fail until it is corrected",
            };
            Some(
                Diagnostic::new(Code::InvalidGatewayCredential, resource, reason.to_string())
                    .at("data")
                    .hint(hint),
            )
        })
    }
}

/// A ConfigMap that a rule names, and that is not there. Secrets are looked up beside whoever asks, and may differ.
fn missing_config_map(
    objects: &Objects,
    rule: &Config<DestinationRule>,
    setting: &Setting<'_>,
) -> Option<Diagnostic> {
    let resource = CredentialName::authorities_resource(&setting.tls.credential_name).ok()?;
    let name = CredentialName::parse(&resource).filter(|name| name.holder == Holder::ConfigMap)?;
    let mut places = name.places();
    let known = |place: &str| {
        objects
            .authorities
            .knows(&(name.namespace.to_owned(), place.to_owned()))
    };
    if places.any(known) {
        return None;
    }
    let message = absent_authorities(&format!("ConfigMap {}/{}", name.namespace, name.name));
    Some(
        Diagnostic::new(Code::ReferencedResourceNotFound, rule.resource(), message)
            .at(format!("{}.credentialName", setting.field))
            .hint("TLS handshakes with the host fail until it does"),
    )
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
