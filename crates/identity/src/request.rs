//! Signing requests (PKCS #10, RFC 2986): made by whoever wants a certificate, read by the authority.

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SanType, SigningKey};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use crate::certificate::{CertificateError, SubjectName, subject_names};
use crate::envelope::is_strict;
use crate::key::{KeyError, PrivateKey, SignatureAlgorithm};
use crate::limits::{MAX_REQUEST_PEM_BYTES, MAX_SINGLE_PEM_BLOCKS};
use crate::pem::{self, PemError};
use crate::public_key::PublicKey;

/// Why a signing request is refused, or could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Its PEM text is empty, damaged, too large, or something else.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// There is more than one.
    #[error("the PEM text holds {0} blocks where one signing request is expected")]
    Several(usize),
    /// It is not DER, or has bytes after its end.
    #[error("the signing request is damaged: {0}")]
    Damaged(String),
    /// It was not signed by the key that it holds, or with an algorithm that is not believed.
    #[error("the signing request's own signature does not verify")]
    Signature,
    /// Its key gets no certificate.
    #[error("{0}")]
    Weak(String),
    /// One of the names cannot be written.
    #[error("the name {0} cannot be written into a signing request")]
    Name(SubjectName),
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The library failed.
    #[error("the signing request could not be written: {0}")]
    Writing(String),
}

/// A signing request whose own signature has been checked: the sender has the key.
///
/// Everything but the key is what the sender wishes for. An authority decides by who the sender is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    public_key: PublicKey,
    names: Vec<SubjectName>,
    subject: String,
    wants_authority: bool,
}

impl CertificateRequest {
    /// Reads and checks one request of at most [`MAX_REQUEST_PEM_BYTES`].
    ///
    /// # Errors
    /// When it is oversized, damaged, not signed by its own key, or its key is weak.
    pub fn from_pem(text: &[u8]) -> Result<Self, RequestError> {
        let found = pem::blocks(text, MAX_REQUEST_PEM_BYTES, MAX_SINGLE_PEM_BLOCKS)?;
        match found.as_slice() {
            [] => Err(PemError::Empty(pem::REQUEST).into()),
            [block] if [pem::REQUEST, pem::OLD_REQUEST].contains(&block.label.as_str()) => {
                Self::from_der(&block.der)
            }
            [other] => Err(RequestError::Pem(PemError::Unexpected {
                found: other.label.clone(),
                expected: pem::REQUEST,
            })),
            several => Err(RequestError::Several(several.len())),
        }
    }

    /// Reads and checks one request in DER.
    ///
    /// # Errors
    /// As [`CertificateRequest::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_PEM_BYTES {
            return Err(RequestError::Pem(PemError::TooLarge {
                bytes: der.len(),
                maximum: MAX_REQUEST_PEM_BYTES,
            }));
        }
        let (rest, parsed) =
            X509CertificationRequest::from_der(der).map_err(|e| RequestError::Damaged(e.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Damaged("bytes follow it".to_owned()));
        }
        let info = &parsed.certification_request_info;
        // The kind is looked at before the signature, whose checking costs more the longer the key is.
        let public_key = PublicKey::read(&info.subject_pki);
        if let Some(weakness) = public_key.kind().weakness() {
            return Err(RequestError::Weak(weakness));
        }
        let (algorithm, signature) = (&parsed.signature_algorithm, &parsed.signature_value);
        if !is_strict(der, info.raw, algorithm, signature) || parsed.verify_signature().is_err() {
            return Err(RequestError::Signature);
        }
        let mut request = Self {
            public_key,
            names: Vec::new(),
            subject: info.subject.to_string(),
            wants_authority: false,
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            request.extend(extension)?;
        }
        Ok(request)
    }

    fn extend(&mut self, extension: &ParsedExtension<'_>) -> Result<(), RequestError> {
        match extension {
            ParsedExtension::ParseError { .. } => {
                return Err(RequestError::Damaged("an extension cannot be read".to_owned()));
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                let read = subject_names(&names.general_names).map_err(|e| match e {
                    CertificateError::Damaged(what) => RequestError::Damaged(what),
                    other => RequestError::Damaged(other.to_string()),
                })?;
                self.names.extend(read);
            }
            ParsedExtension::BasicConstraints(constraints) => self.wants_authority |= constraints.ca,
            ParsedExtension::KeyUsage(usage) => self.wants_authority |= usage.key_cert_sign(),
            _ => {}
        }
        Ok(())
    }

    /// The key to be certified.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The names that are wished for.
    pub fn names(&self) -> &[SubjectName] {
        &self.names
    }

    /// The subject that is wished for, as text.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Whether the sender wants to be an authority.
    pub fn wants_authority(&self) -> bool {
        self.wants_authority
    }
}

/// Writes a signing request for `names`, with an empty subject, signed by `key`, in PEM.
///
/// # Errors
/// When a name is not ASCII, or the key cannot sign.
pub fn request_certificate(key: &PrivateKey, names: &[SubjectName]) -> Result<String, RequestError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        let text = |text: &str| {
            text.try_into()
                .map_err(|_: rcgen::Error| RequestError::Name(name.clone()))
        };
        params.subject_alt_names.push(match name {
            SubjectName::Uri(uri) => SanType::URI(text(uri)?),
            SubjectName::Dns(dns) => SanType::DnsName(text(dns)?),
            SubjectName::Email(email) => SanType::Rfc822Name(text(email)?),
            SubjectName::Ip(address) => SanType::IpAddress(*address),
        });
    }
    let request = params
        .serialize_request(&Signer(key))
        .map_err(|e| RequestError::Writing(e.to_string()))?;
    Ok(pem::encode(pem::REQUEST, request.der()))
}

/// Our key in rcgen's eyes. rcgen's own would keep the bytes in memory that is not wiped.
struct Signer<'k>(&'k PrivateKey);

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.raw_public()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.0.algorithm() {
            SignatureAlgorithm::EcdsaSha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaSha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::RsaSha256 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}
