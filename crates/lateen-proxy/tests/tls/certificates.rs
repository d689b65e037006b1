//! Certificates made for a test, as inline sources of TLS contexts and as files for programs.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// A root of trust.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// A certificate for servers and clients. Names that look like URIs are URIs, the others DNS names.
    pub(crate) fn leaf(&self, subject: &str, names: &[&str]) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        let name = |text: &&str| match text.contains("://") {
            true => SanType::URI((*text).try_into().unwrap()),
            false => SanType::DnsName((*text).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(name).collect();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        let key = key.serialize_pem();
        Leaf { chain, key }
    }

    /// A validation context that trusts this root, with more fields.
    pub(crate) fn validation(&self, more: &str) -> String {
        format!(
            "validation_context: {{ trusted_ca: {{ inline_string: {:?} }} {more} }}",
            self.pem()
        )
    }
}

impl Leaf {
    /// The field `tls_certificates` of a context.
    pub(crate) fn certificates(&self) -> String {
        format!(
            "tls_certificates: [{{ certificate_chain: {{ inline_string: {:?} }}, private_key: {{ inline_string: {:?} }} }}]",
            self.chain, self.key
        )
    }

    /// Writes `<name>.pem` and `<name>.key`.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        std::fs::write(directory.join(format!("{name}.pem")), &self.chain).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), &self.key).unwrap();
    }
}

/// A transport socket for a filter chain. `common` are the fields of the common context, `more` those beside it.
pub(crate) fn downstream(common: &str, more: &str) -> String {
    socket("DownstreamTlsContext", common, more)
}

/// A transport socket for a cluster that speaks TLS 1.3.
pub(crate) fn upstream(common: &str, more: &str) -> String {
    let common = format!("tls_params: {{ tls_maximum_protocol_version: TLSv1_3 }}, {common}");
    socket("UpstreamTlsContext", &common, more)
}

fn socket(kind: &str, common: &str, more: &str) -> String {
    format!(
        "transport_socket: {{ name: envoy.transport_sockets.tls, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}, common_tls_context: {{ {common} }} {more} }} }}"
    )
}
