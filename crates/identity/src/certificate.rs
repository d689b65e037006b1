//! Certificates, read once: what they say, in plain types (RFC 5280).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::limits::{MAX_CERTIFICATE_BYTES, MAX_CHAIN_CERTIFICATES, MAX_PEM_BYTES, MAX_ROOTS};
use crate::pem::{self, PemError};
use crate::public_key::PublicKey;
use crate::spiffe::{SpiffeId, SpiffeIdError};

/// A certificate. Cheap to clone.
#[derive(Clone)]
pub struct Certificate(Arc<Facts>);

pub(crate) struct Facts {
    der: Vec<u8>,
    subject: String,
    subject_der: Vec<u8>,
    issuer: String,
    issuer_der: Vec<u8>,
    names: Vec<SubjectName>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    is_authority: bool,
    path_length: Option<u32>,
    may_sign_certificates: bool,
    unknown_critical: Option<String>,
    subject_key_id: Option<Vec<u8>>,
    public_key: PublicKey,
    public_key_sha256: [u8; 32],
    sha256: [u8; 32],
}

/// One entry of the subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectName {
    /// A URI; a SPIFFE id is one.
    Uri(String),
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
    /// An e-mail address.
    Email(String),
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(f, "URI:{name}"),
            Self::Dns(name) => write!(f, "DNS:{name}"),
            Self::Ip(address) => write!(f, "IP:{address}"),
            Self::Email(name) => write!(f, "email:{name}"),
        }
    }
}

/// Why a certificate is refused, or is no SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Its PEM text is damaged.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// It is too large.
    #[error("the certificate has {0} bytes, more than {MAX_CERTIFICATE_BYTES}")]
    TooLarge(usize),
    /// It is not DER, or has bytes after its end.
    #[error("the certificate is damaged: {0}")]
    Damaged(String),
    /// An X509-SVID has exactly one URI.
    #[error("the certificate of {subject:?} has {uris} URI names; an SVID has one")]
    NotOneUri {
        /// Whose it is.
        subject: String,
        /// How many URIs it has.
        uris: usize,
    },
    /// The URI is no SPIFFE id.
    #[error("the URI {uri} is no SPIFFE id")]
    NotSpiffe {
        /// The URI.
        uri: String,
        /// Why.
        #[source]
        source: SpiffeIdError,
    },
}

impl Certificate {
    /// Reads one certificate in DER.
    ///
    /// # Errors
    /// When it is too large, damaged, or has anything after its end.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge(der.len()));
        }
        let damaged = |e: &dyn fmt::Display| CertificateError::Damaged(e.to_string());
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|e| damaged(&e))?;
        if !rest.is_empty() {
            return Err(damaged(&"bytes follow it"));
        }
        let mut facts = Facts {
            der: der.to_vec(),
            subject: parsed.subject().to_string(),
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().to_string(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            names: Vec::new(),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            serial: serial_number(parsed.raw_serial()),
            is_authority: false,
            path_length: None,
            may_sign_certificates: true,
            unknown_critical: None,
            subject_key_id: None,
            public_key: PublicKey::read(parsed.public_key()),
            public_key_sha256: sha256(parsed.public_key().raw),
            sha256: sha256(der),
        };
        // A map refuses two extensions of one kind, of which every reader could choose another.
        parsed.extensions_map().map_err(|e| damaged(&e))?;
        for extension in parsed.extensions() {
            facts.extend(
                extension.parsed_extension(),
                extension.critical,
                &extension.oid.to_id_string(),
            )?;
        }
        Ok(Self(Arc::new(facts)))
    }

    /// Reads a text with exactly one certificate.
    ///
    /// # Errors
    /// When it is empty, damaged, or holds anything else.
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        let found = pem::only(text, pem::CERTIFICATE, MAX_PEM_BYTES, 1)?;
        found.first().map_or(
            Err(CertificateError::Pem(PemError::Empty(pem::CERTIFICATE))),
            |block| Self::from_der(&block.der),
        )
    }

    /// Reads a chain, one certificate at least, [`MAX_CHAIN_CERTIFICATES`] at most, in the order of the text.
    ///
    /// # Errors
    /// When it is empty, damaged, too long, or holds anything but certificates.
    pub fn chain_from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        Self::several_from_pem(text, MAX_CHAIN_CERTIFICATES)
    }

    /// Reads a bundle of roots, one at least, [`MAX_ROOTS`] at most, in the order of the text.
    ///
    /// # Errors
    /// When it is empty, damaged, too long, or holds anything but certificates.
    pub fn bundle_from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        Self::several_from_pem(text, MAX_ROOTS)
    }

    fn several_from_pem(text: &[u8], most: usize) -> Result<Vec<Self>, CertificateError> {
        let found = pem::only(text, pem::CERTIFICATE, MAX_PEM_BYTES, most)?;
        found.iter().map(|block| Self::from_der(&block.der)).collect()
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The certificate in PEM, with a newline at its end.
    pub fn pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.0.der)
    }

    /// The subject as text, as `O=cluster.local`. Empty in an SVID.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The subject in DER, for those who compare or copy it.
    pub fn subject_der(&self) -> &[u8] {
        &self.0.subject_der
    }

    /// The issuer as text.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The issuer in DER.
    pub fn issuer_der(&self) -> &[u8] {
        &self.0.issuer_der
    }

    /// The URI, DNS, IP and e-mail entries of the subject alternative name, in their order.
    pub fn names(&self) -> &[SubjectName] {
        &self.0.names
    }

    /// When it begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last second in which it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Whether it is valid at `now`, both ends included.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        // The end is a whole second that still counts.
        self.0.not_before <= now && now < self.0.not_after + Duration::from_secs(1)
    }

    /// The serial number in lowercase hexadecimal, as `0a1b`.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// Whether it says that it is an authority's.
    pub fn is_authority(&self) -> bool {
        self.0.is_authority
    }

    /// How many authorities may follow it on the way to a leaf.
    pub fn path_length(&self) -> Option<u32> {
        self.0.path_length
    }

    /// Whether its key may sign certificates: it says so, or does not limit what the key may do.
    pub fn may_sign_certificates(&self) -> bool {
        self.0.may_sign_certificates
    }

    /// A critical extension that is unknown here, by its object identifier. Such a certificate is not to be trusted.
    pub fn unknown_critical_extension(&self) -> Option<&str> {
        self.0.unknown_critical.as_deref()
    }

    /// The subject key identifier.
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.0.subject_key_id.as_deref()
    }

    /// The public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// SHA-256 of the whole certificate: Envoy's `verify_certificate_hash`.
    pub fn sha256(&self) -> [u8; 32] {
        self.0.sha256
    }

    /// SHA-256 of the public key as it is written in the certificate: Envoy's `verify_certificate_spki`.
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.0.public_key_sha256
    }

    /// Who the certificate is for, when it is an X509-SVID: it has exactly one URI, which is a SPIFFE id.
    ///
    /// # Errors
    /// When it is not.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        let uris: Vec<&String> = self
            .names()
            .iter()
            .filter_map(|name| match name {
                SubjectName::Uri(uri) => Some(uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse().map_err(|source| CertificateError::NotSpiffe {
                uri: (*uri).clone(),
                source,
            }),
            several => Err(CertificateError::NotOneUri {
                subject: self.subject().to_owned(),
                uris: several.len(),
            }),
        }
    }
}

impl Facts {
    fn extend(
        &mut self,
        extension: &ParsedExtension<'_>,
        critical: bool,
        identifier: &str,
    ) -> Result<(), CertificateError> {
        match extension {
            ParsedExtension::ParseError { .. } => {
                return Err(CertificateError::Damaged(format!("extension {identifier}")));
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.names = subject_names(&names.general_names)?;
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_authority = constraints.ca;
                self.path_length = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => self.may_sign_certificates = usage.key_cert_sign(),
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
            // Name constraints are the verifier's business, which is `tls`; here they are known, not unknown.
            ParsedExtension::ExtendedKeyUsage(_) | ParsedExtension::NameConstraints(_) => {}
            _ if critical => self.unknown_critical = Some(identifier.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// The names that anything here looks at. One that cannot be read makes the whole certificate unreadable: a
/// verifier must not see fewer names than its peer showed.
pub(crate) fn subject_names(names: &[GeneralName<'_>]) -> Result<Vec<SubjectName>, CertificateError> {
    let damaged = || CertificateError::Damaged("a subject alternative name cannot be read".to_owned());
    let mut read = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => read.push(SubjectName::Uri((*uri).to_owned())),
            GeneralName::DNSName(name) => read.push(SubjectName::Dns((*name).to_owned())),
            GeneralName::RFC822Name(name) => read.push(SubjectName::Email((*name).to_owned())),
            GeneralName::IPAddress(bytes) => read.push(SubjectName::Ip(address(bytes).ok_or_else(damaged)?)),
            GeneralName::Invalid(..) => return Err(damaged()),
            _ => {}
        }
    }
    Ok(read)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn system_time(time: ASN1Time) -> SystemTime {
    SystemTime::from(time.to_datetime())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// A serial number as text, without the zero that keeps it positive.
pub(crate) fn serial_number(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    let significant = bytes.get(zeros.min(bytes.len().saturating_sub(1))..);
    hex(significant.unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("issuer", &self.issuer())
            .field("serial", &self.serial())
            .field("names", &self.names())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}
