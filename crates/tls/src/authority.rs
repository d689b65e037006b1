//! A local certificate authority (RFC 5280) for servers that are reached on loopback.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use crate::Error;

/// How long a new authority's own certificate is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a server certificate is valid; servers ask for a new one at every start.
const SERVER_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates begin this long before "now", so that clocks that differ a little still agree.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A self-signed authority: its certificate and private key, both as PEM text.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: String,
}

/// A leaf certificate with its private key, both as PEM text.
pub struct Issued {
    /// The certificate, without the authority's own.
    pub certificate_pem: String,
    /// The private key in PKCS #8. Whoever writes it to disk uses mode 0600.
    pub key_pem: String,
}

impl CertificateAuthority {
    /// Makes a new authority named `common_name`, with a fresh P-256 key.
    ///
    /// # Errors
    /// When key generation or signing fails.
    pub fn generate(common_name: &str, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        set_validity(&mut params, now, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Takes up an authority that was stored as PEM before.
    ///
    /// # Errors
    /// When either text is not what [`CertificateAuthority::generate`] made.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key_pem)?;
        Issuer::from_ca_cert_pem(certificate_pem, &key)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// The authority's certificate, to be trusted by clients.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key, for storing with mode 0600.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a server certificate for `names`, each a DNS name or an IP address.
    ///
    /// # Errors
    /// When a name is neither, or signing fails.
    pub fn issue_server(&self, names: &[&str], now: SystemTime) -> Result<Issued, Error> {
        let authority_key = KeyPair::from_pem(&self.key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, authority_key)?;
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        if let Some(first) = names.first() {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, first.as_str());
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, now, SERVER_LIFETIME);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + lifetime);
}
