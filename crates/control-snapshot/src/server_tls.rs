//! What a server of a Gateway does about TLS (`networking.istio.io` `ServerTLSSettings`), read once.
//!
//! What is read cannot contradict itself: each mode has the certificates that it needs. What was written and changes
//! nothing is a [`Finding`]; what cannot be served at all gives no [`ServerTls`], and a finding that says why.

use api_istio::networking::{Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};

use crate::credential_name::CredentialName;
use crate::protocol::Protocol;

/// Cipher suites that Istio takes for TLS 1.2 and below, by OpenSSL name. Others are left out.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// What a server does about TLS.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerTls {
    /// Nothing: what arrives is plain text, or TLS that nobody looks at.
    None,
    /// The server name chooses a TLS route, and the stream is passed on unopened.
    Passthrough,
    /// The server name is that of a cluster of the mesh, and the stream is passed on to it unopened.
    AutoPassthrough,
    /// It ends here.
    Terminated(Box<Termination>),
}

/// TLS that ends at the gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    /// What the gateway shows.
    pub certificates: ServerCertificates,
    /// What clients must show.
    pub clients: ClientCertificates,
    /// Lowest version; [`TlsProtocol::TlsAuto`] leaves it to the mesh.
    pub min_version: TlsProtocol,
    /// Highest version; [`TlsProtocol::TlsAuto`] leaves it to the proxy.
    pub max_version: TlsProtocol,
    /// Cipher suites of TLS 1.2 and below; empty leaves them to the mesh.
    pub cipher_suites: Vec<String>,
    /// Curves of the key exchange; empty leaves them to the mesh.
    pub ecdh_curves: Vec<String>,
}

/// Where a gateway's certificates are.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerCertificates {
    /// The workload's own, of the mesh (`ISTIO_MUTUAL`).
    Mesh,
    /// In Secrets, by SDS name: `kubernetes://shop-cert`.
    Secrets(Vec<String>),
    /// In files of the workload: certificate chain and key.
    Files(Vec<(String, String)>),
}

/// Whether clients show a certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCertificates {
    /// They are not asked.
    NotAsked,
    /// They may; what they show must verify.
    Optional(ClientVerification),
    /// They must.
    Required(ClientVerification),
}

/// How the certificates of clients are verified.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientVerification {
    /// Who may have signed them.
    pub authorities: ClientAuthorities,
    /// Names of which they must have one; empty allows all.
    pub subject_alt_names: Vec<String>,
    /// SHA-256 of their public keys, in base64; empty allows all.
    pub spki: Vec<String>,
    /// SHA-256 of the certificates themselves, in hex; empty allows all.
    pub hashes: Vec<String>,
    /// A file with certificates that were taken back; empty for none.
    pub revocations: String,
    /// Whether clients whose certificate does not verify are served all the same: the destination is told who they say
    /// they are, and decides.
    pub accept_untrusted: bool,
}

/// Who signs the certificates of clients.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAuthorities {
    /// The mesh's roots.
    Mesh,
    /// In a Secret or ConfigMap, by SDS name: `kubernetes://shop-cert-cacert`.
    Secret(String),
    /// In a file of the workload.
    File(String),
}

/// What is wrong with a server's TLS settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field under `tls`; empty for `tls` itself.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
    /// Whether the server is left out for it.
    pub fatal: bool,
}

impl ServerTls {
    /// Reads the settings of a server on a port of this protocol; `None` when it cannot be served.
    pub(crate) fn read(server: &Server, protocol: Protocol) -> (Option<Self>, Vec<Finding>) {
        let mut findings = Vec::new();
        let tls = match placed(server, protocol) {
            Ok(Some(settings)) => Self::of_settings(settings, &mut findings),
            Ok(None) => Ok(Self::None),
            Err(finding) => Err(finding),
        };
        match tls {
            Ok(tls) => (Some(tls), findings),
            Err(finding) => {
                findings.push(finding);
                (None, findings)
            }
        }
    }

    fn of_settings(settings: &ServerTlsSettings, findings: &mut Vec<Finding>) -> Result<Self, Finding> {
        if settings.https_redirect {
            findings.push(ignored("httpsRedirect", "it is for plain HTTP ports"));
        }
        match settings.mode {
            ServerTlsMode::Passthrough => {
                unused(
                    settings,
                    &CERTIFICATE_FIELDS,
                    "TLS is passed on unopened",
                    findings,
                );
                unused(settings, &CLIENT_FIELDS, "TLS is passed on unopened", findings);
                unused(settings, &PROTOCOL_FIELDS, "TLS is passed on unopened", findings);
                Ok(Self::Passthrough)
            }
            ServerTlsMode::AutoPassthrough => {
                unused(
                    settings,
                    &CERTIFICATE_FIELDS,
                    "TLS is passed on unopened",
                    findings,
                );
                unused(settings, &CLIENT_FIELDS, "TLS is passed on unopened", findings);
                unused(settings, &PROTOCOL_FIELDS, "TLS is passed on unopened", findings);
                Ok(Self::AutoPassthrough)
            }
            ServerTlsMode::IstioMutual => mesh(settings, findings).map(Box::new).map(Self::Terminated),
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
                terminated(settings, findings).map(Box::new).map(Self::Terminated)
            }
        }
    }

    /// The SDS names of all Secrets and ConfigMaps that the server needs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let termination = match self {
            Self::Terminated(termination) => Some(&**termination),
            Self::None | Self::Passthrough | Self::AutoPassthrough => None,
        };
        let shown = termination.and_then(|t| match &t.certificates {
            ServerCertificates::Secrets(names) => Some(names.as_slice()),
            ServerCertificates::Mesh | ServerCertificates::Files(_) => None,
        });
        let verified = termination.and_then(|t| match &t.clients.verification()?.authorities {
            ClientAuthorities::Secret(name) => Some(name),
            ClientAuthorities::Mesh | ClientAuthorities::File(_) => None,
        });
        shown.into_iter().flatten().chain(verified).map(String::as_str)
    }
}

impl ClientCertificates {
    /// How what clients show is verified; `None` when they are not asked.
    #[must_use]
    pub fn verification(&self) -> Option<&ClientVerification> {
        match self {
            Self::NotAsked => None,
            Self::Optional(verification) | Self::Required(verification) => Some(verification),
        }
    }
}

/// The settings where TLS settings belong: on ports of HTTPS and TLS. A plain HTTP port may only redirect.
fn placed(server: &Server, protocol: Protocol) -> Result<Option<&ServerTlsSettings>, Finding> {
    match &server.tls {
        None if protocol.is_tls() => Err(fatal("", "a port of HTTPS or TLS needs TLS settings")),
        None => Ok(None),
        Some(_) if protocol.is_tls() => Ok(server.tls.as_ref()),
        Some(settings) if protocol.is_http() && redirects_only(settings) => Ok(None),
        Some(_) => Err(fatal(
            "",
            "a port of plain text cannot have TLS settings; its protocol would have to be HTTPS or TLS",
        )),
    }
}

/// Whether nothing is said beyond `httpsRedirect`. The mode that no mode means is PASSTHROUGH.
fn redirects_only(settings: &ServerTlsSettings) -> bool {
    let passthrough = matches!(
        settings.mode,
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
    );
    let any = |fields: &[Field]| fields.iter().any(|(_, set)| set(settings));
    passthrough && !any(&CERTIFICATE_FIELDS) && !any(&CLIENT_FIELDS) && !any(&PROTOCOL_FIELDS)
}

/// `ISTIO_MUTUAL`: everything comes from the mesh.
fn mesh(settings: &ServerTlsSettings, findings: &mut Vec<Finding>) -> Result<Termination, Finding> {
    if let Some((field, _)) = CERTIFICATE_FIELDS.iter().find(|(_, set)| set(settings)) {
        return Err(fatal(
            field,
            "mode ISTIO_MUTUAL uses the certificates of the mesh",
        ));
    }
    unused(
        settings,
        &PROTOCOL_FIELDS,
        "mode ISTIO_MUTUAL decides it",
        findings,
    );
    Ok(Termination {
        certificates: ServerCertificates::Mesh,
        clients: ClientCertificates::Required(verification(settings, ClientAuthorities::Mesh, findings)),
        min_version: TlsProtocol::TlsAuto,
        max_version: TlsProtocol::TlsAuto,
        cipher_suites: Vec::new(),
        ecdh_curves: Vec::new(),
    })
}

fn terminated(settings: &ServerTlsSettings, findings: &mut Vec<Finding>) -> Result<Termination, Finding> {
    let certificates = certificates(settings)?;
    let clients = match settings.mode {
        ServerTlsMode::Mutual => {
            let authorities = authorities(settings, &certificates, findings)?;
            ClientCertificates::Required(verification(settings, authorities, findings))
        }
        ServerTlsMode::OptionalMutual => {
            let authorities = authorities(settings, &certificates, findings)?;
            ClientCertificates::Optional(ClientVerification {
                accept_untrusted: settings.insecure_skip_verify == Some(true),
                ..checks(settings, authorities)
            })
        }
        _ => {
            unused(
                settings,
                &CLIENT_FIELDS,
                "mode SIMPLE asks clients for nothing",
                findings,
            );
            ClientCertificates::NotAsked
        }
    };
    Ok(Termination {
        certificates,
        clients,
        min_version: settings.min_protocol_version,
        max_version: settings.max_protocol_version,
        cipher_suites: cipher_suites(settings, findings),
        ecdh_curves: settings.ecdh_curves.clone(),
    })
}

/// What the gateway shows. Secrets come first: whoever names them needs no files.
fn certificates(settings: &ServerTlsSettings) -> Result<ServerCertificates, Finding> {
    let mut named = settings
        .credential_names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>();
    if named.is_empty() && !settings.credential_name.is_empty() {
        named.push(&settings.credential_name);
    }
    if !named.is_empty() {
        let field = if settings.credential_names.is_empty() {
            "credentialName"
        } else {
            "credentialNames"
        };
        let names = named
            .into_iter()
            .map(|name| CredentialName::key_pair_resource(name).map_err(|reason| fatal(field, reason)));
        return Ok(ServerCertificates::Secrets(names.collect::<Result<_, _>>()?));
    }
    let files: Vec<(String, String)> = match settings.tls_certificates.as_slice() {
        [] => vec![(settings.server_certificate.clone(), settings.private_key.clone())],
        several => several
            .iter()
            .map(|c| (c.server_certificate.clone(), c.private_key.clone()))
            .collect(),
    };
    if files.iter().any(|(chain, _)| chain.is_empty()) {
        let message = format!(
            "mode {} needs a certificate: a Secret by name, or a file",
            settings.mode
        );
        return Err(fatal("serverCertificate", message));
    }
    if files.iter().any(|(_, key)| key.is_empty()) {
        let message = format!("mode {} needs the private key of the certificate", settings.mode);
        return Err(fatal("privateKey", message));
    }
    Ok(ServerCertificates::Files(files))
}

/// Who signs clients: a Secret of its own, or what is beside the (first) certificate.
fn authorities(
    settings: &ServerTlsSettings,
    certificates: &ServerCertificates,
    findings: &mut Vec<Finding>,
) -> Result<ClientAuthorities, Finding> {
    if !settings.ca_cert_credential_name.is_empty() {
        let name = &settings.ca_cert_credential_name;
        return authorities_of(name, "caCertCredentialName");
    }
    match certificates {
        ServerCertificates::Secrets(names) => {
            if !settings.ca_certificates.is_empty() {
                findings.push(ignored("caCertificates", "the Secret has the authorities"));
            }
            let first = names.first().map(String::as_str).unwrap_or_default();
            authorities_of(first, "credentialName")
        }
        ServerCertificates::Mesh | ServerCertificates::Files(_) if settings.ca_certificates.is_empty() => {
            let message = format!("mode {} needs the authorities that sign clients", settings.mode);
            Err(fatal("caCertificates", message))
        }
        ServerCertificates::Mesh | ServerCertificates::Files(_) => {
            Ok(ClientAuthorities::File(settings.ca_certificates.clone()))
        }
    }
}

fn authorities_of(name: &str, field: &'static str) -> Result<ClientAuthorities, Finding> {
    let resource = CredentialName::authorities_resource(name).map_err(|reason| fatal(field, reason))?;
    Ok(ClientAuthorities::Secret(resource))
}

/// How clients are verified that must show a certificate.
fn verification(
    settings: &ServerTlsSettings,
    authorities: ClientAuthorities,
    findings: &mut Vec<Finding>,
) -> ClientVerification {
    if settings.insecure_skip_verify == Some(true) {
        let reason = format!(
            "mode {} verifies clients; OPTIONAL_MUTUAL may do without",
            settings.mode
        );
        findings.push(ignored("insecureSkipVerify", &reason));
    }
    checks(settings, authorities)
}

fn checks(settings: &ServerTlsSettings, authorities: ClientAuthorities) -> ClientVerification {
    ClientVerification {
        authorities,
        subject_alt_names: settings.subject_alt_names.clone(),
        spki: settings.verify_certificate_spki.clone(),
        hashes: settings.verify_certificate_hash.clone(),
        revocations: settings.ca_crl.clone(),
        accept_untrusted: false,
    }
}

/// The suites that exist, each once.
fn cipher_suites(settings: &ServerTlsSettings, findings: &mut Vec<Finding>) -> Vec<String> {
    let mut suites: Vec<String> = Vec::new();
    for suite in &settings.cipher_suites {
        if !CIPHER_SUITES.contains(&suite.as_str()) {
            findings.push(ignored(
                "cipherSuites",
                &format!("there is no cipher suite {suite}"),
            ));
        } else if !suites.contains(suite) {
            suites.push(suite.clone());
        }
    }
    suites
}

/// A field and whether it is set.
type Field = (&'static str, fn(&ServerTlsSettings) -> bool);

/// Where the gateway's certificates are.
const CERTIFICATE_FIELDS: [Field; 7] = [
    ("serverCertificate", |s| !s.server_certificate.is_empty()),
    ("privateKey", |s| !s.private_key.is_empty()),
    ("caCertificates", |s| !s.ca_certificates.is_empty()),
    ("credentialName", |s| !s.credential_name.is_empty()),
    ("credentialNames", |s| !s.credential_names.is_empty()),
    ("caCertCredentialName", |s| !s.ca_cert_credential_name.is_empty()),
    ("tlsCertificates", |s| !s.tls_certificates.is_empty()),
];

/// How clients are verified.
const CLIENT_FIELDS: [Field; 5] = [
    ("subjectAltNames", |s| !s.subject_alt_names.is_empty()),
    ("verifyCertificateSpki", |s| !s.verify_certificate_spki.is_empty()),
    ("verifyCertificateHash", |s| !s.verify_certificate_hash.is_empty()),
    ("caCrl", |s| !s.ca_crl.is_empty()),
    ("insecureSkipVerify", |s| s.insecure_skip_verify == Some(true)),
];

/// What is agreed on in a handshake.
const PROTOCOL_FIELDS: [Field; 4] = [
    ("minProtocolVersion", |s| {
        s.min_protocol_version != TlsProtocol::TlsAuto
    }),
    ("maxProtocolVersion", |s| {
        s.max_protocol_version != TlsProtocol::TlsAuto
    }),
    ("cipherSuites", |s| !s.cipher_suites.is_empty()),
    ("ecdhCurves", |s| !s.ecdh_curves.is_empty()),
];

/// Reports those of these fields that are set.
fn unused(settings: &ServerTlsSettings, fields: &[Field], reason: &str, findings: &mut Vec<Finding>) {
    let set = fields.iter().filter(|(_, set)| set(settings));
    findings.extend(set.map(|(field, _)| ignored(field, reason)));
}

fn ignored(field: &'static str, reason: &str) -> Finding {
    Finding {
        field,
        message: format!("it has no effect: {reason}"),
        fatal: false,
    }
}

fn fatal(field: &'static str, message: impl Into<String>) -> Finding {
    Finding {
        field,
        message: message.into(),
        fatal: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_istio::json::Json as _;
    use serde_json::{Value, json};

    fn read(protocol: &str, tls: Value) -> (Option<ServerTls>, Vec<(&'static str, bool)>) {
        let port = json!({"number": 443, "name": "x", "protocol": protocol});
        let server = Server::read(json!({"port": port, "hosts": ["a.test"], "tls": tls})).expect("a server");
        let (tls, findings) = ServerTls::read(&server, Protocol::parse(protocol));
        (tls, findings.into_iter().map(|f| (f.field, f.fatal)).collect())
    }

    fn termination(tls: Value) -> Termination {
        match read("HTTPS", tls) {
            (Some(ServerTls::Terminated(termination)), findings) if findings.is_empty() => *termination,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_mode_has_what_it_needs() {
        let simple = termination(json!({"mode": "SIMPLE", "credentialName": "shop"}));
        assert_eq!(
            simple.certificates,
            ServerCertificates::Secrets(vec!["kubernetes://shop".into()])
        );
        assert_eq!(simple.clients, ClientCertificates::NotAsked);
        let mutual = termination(json!({"mode": "MUTUAL", "credentialNames": ["rsa", "ecdsa"]}));
        let verification = mutual.clients.verification().expect("verified").clone();
        assert_eq!(
            verification.authorities,
            ClientAuthorities::Secret("kubernetes://rsa-cacert".into())
        );
        let files = json!({"mode": "OPTIONAL_MUTUAL", "serverCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"});
        let files = termination(files);
        assert_eq!(
            files.certificates,
            ServerCertificates::Files(vec![("/c".into(), "/k".into())])
        );
        let own = json!({"mode": "MUTUAL", "credentialName": "shop", "caCertCredentialName": "partners"});
        let own = termination(own);
        let verification = own.clients.verification().expect("verified");
        assert_eq!(
            verification.authorities,
            ClientAuthorities::Secret("kubernetes://partners-cacert".into())
        );
        let shared = json!({"mode": "MUTUAL", "credentialName": "shop", "caCertCredentialName": "configmap://ns/roots"});
        let shared = termination(shared);
        let verification = shared.clients.verification().expect("verified");
        assert_eq!(
            verification.authorities,
            ClientAuthorities::Secret("configmap://ns/roots".into())
        );
        let mesh = termination(json!({"mode": "ISTIO_MUTUAL"}));
        assert_eq!(mesh.certificates, ServerCertificates::Mesh);
    }

    #[test]
    fn a_server_that_could_not_show_a_certificate_is_left_out() {
        for (tls, field) in [
            (json!({"mode": "SIMPLE"}), "serverCertificate"),
            (json!({"mode": "SIMPLE", "serverCertificate": "/c"}), "privateKey"),
            (
                json!({"mode": "MUTUAL", "serverCertificate": "/c", "privateKey": "/k"}),
                "caCertificates",
            ),
            (
                json!({"mode": "ISTIO_MUTUAL", "credentialName": "shop"}),
                "credentialName",
            ),
            (
                json!({"mode": "SIMPLE", "credentialName": "a/b/c"}),
                "credentialName",
            ),
            (
                json!({"mode": "SIMPLE", "credentialName": "configmap://ns/roots"}),
                "credentialName",
            ),
            (
                json!({"mode": "MUTUAL", "credentialName": "shop", "caCertCredentialName": "configmap://roots"}),
                "caCertCredentialName",
            ),
            (Value::Null, ""),
        ] {
            assert_eq!(read("HTTPS", tls.clone()), (None, vec![(field, true)]), "{tls}");
        }
        let credential = json!({"mode": "SIMPLE", "credentialName": "shop"});
        assert_eq!(read("HTTP", credential), (None, vec![("", true)]));
        assert_eq!(
            read("HTTP", json!({"httpsRedirect": true})),
            (Some(ServerTls::None), vec![])
        );
    }

    #[test]
    fn only_optional_certificates_may_go_unverified() {
        let untrusted = |mode: &str| {
            let tls = json!({"mode": mode, "credentialName": "shop", "insecureSkipVerify": true});
            match read("HTTPS", tls) {
                (Some(ServerTls::Terminated(t)), findings) => {
                    let accepts = t.clients.verification().map(|v| v.accept_untrusted);
                    (accepts, findings)
                }
                other => panic!("{other:?}"),
            }
        };
        let ignored = vec![("insecureSkipVerify", false)];
        assert_eq!(untrusted("OPTIONAL_MUTUAL"), (Some(true), vec![]));
        assert_eq!(untrusted("MUTUAL"), (Some(false), ignored.clone()));
        assert_eq!(untrusted("SIMPLE"), (None, ignored));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let tls = json!({"mode": "SIMPLE", "credentialName": "shop", "subjectAltNames": ["a"],
            "cipherSuites": ["ECDHE-RSA-AES256-GCM-SHA384", "ROT13", "ECDHE-RSA-AES256-GCM-SHA384"]});
        let (read, findings) = read("HTTPS", tls);
        assert_eq!(findings, [("subjectAltNames", false), ("cipherSuites", false)]);
        match read {
            Some(ServerTls::Terminated(t)) => assert_eq!(t.cipher_suites, ["ECDHE-RSA-AES256-GCM-SHA384"]),
            other => panic!("{other:?}"),
        }
    }
}
