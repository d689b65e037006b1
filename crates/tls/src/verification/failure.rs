//! Why a peer was not believed: one name for each check, for access logs and dumps.

use std::fmt;

use rustls::{CertificateError, Error, OtherError};

/// The check that a peer's certificate failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerificationFailure {
    /// The certificate, or one between it and its authority, cannot be read, or is not one for TLS at all.
    Malformed(String),
    /// No trusted authority issued it, or the chain is longer than allowed.
    UntrustedIssuer,
    /// A signature in the chain is not its issuer's, or of an algorithm that is not accepted.
    BadSignature,
    /// A certificate of the chain, or the trusted authority, is past its validity.
    Expired,
    /// A certificate of the chain is not valid yet: one of the clocks is wrong.
    NotYetValid,
    /// It may not be used for this side of a TLS connection.
    WrongPurpose,
    /// An authority's own certificate was presented as a peer's.
    AuthorityAsPeer,
    /// A certificate that is no authority's issued another.
    NotAnAuthority,
    /// The authority may not issue for this name, or so deep.
    Constraints(String),
    /// A revocation list names it.
    Revoked,
    /// A revocation list is configured, and none tells of this issuer.
    RevocationUnknown,
    /// The issuer's revocation list is past its next update, or not to be believed.
    RevocationList(String),
    /// None of its subject alternative names is expected. The names that it has are listed, a few at most.
    SubjectAltNames(Vec<String>),
    /// The server name that was asked for is none of its DNS names; these are.
    ServerName {
        /// The name that was sent as SNI.
        expected: String,
        /// The names of the certificate, a few at most.
        presented: Vec<String>,
    },
    /// The server's certificate must have the name that was sent as SNI, and none was sent.
    NoServerName,
    /// Neither its hash nor its public key is a pinned one.
    Pins,
    /// It is no X.509-SVID: not exactly one URI, or the mark of an authority.
    NotAnSvid,
    /// No bundle is configured for its trust domain.
    NoTrustBundle(String),
}

impl VerificationFailure {
    /// The check, in one word for metrics and dumps.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UntrustedIssuer => "issuer",
            Self::BadSignature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::WrongPurpose => "purpose",
            Self::AuthorityAsPeer => "authority-as-peer",
            Self::NotAnAuthority => "not-an-authority",
            Self::Constraints(_) => "constraints",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::RevocationList(_) => "revocation-list",
            Self::SubjectAltNames(_) => "subject-alt-names",
            Self::ServerName { .. } => "server-name",
            Self::NoServerName => "no-server-name",
            Self::Pins => "pins",
            Self::NotAnSvid => "svid",
            Self::NoTrustBundle(_) => "trust-bundle",
        }
    }

    /// What Envoy says after `verify cert failed: `. The depth at which a chain broke is always given as 0, because
    /// rustls does not tell it.
    pub fn envoy_details(&self) -> String {
        let revocation = |what: &str| {
            chain(&format!(
                "certificate revocation check against provided CRLs failed: {what}"
            ))
        };
        match self {
            Self::Malformed(_) => "DER encoding error".to_owned(),
            Self::UntrustedIssuer => chain("unable to get local issuer certificate"),
            Self::BadSignature => chain("certificate signature failure"),
            Self::Expired => chain("certificate has expired"),
            Self::NotYetValid => chain("certificate is not yet valid"),
            Self::WrongPurpose => chain("unsupported certificate purpose"),
            Self::AuthorityAsPeer => chain("authority certificate presented by a peer"),
            Self::NotAnAuthority => chain("invalid CA certificate"),
            Self::Constraints(_) => chain("permitted subtree violation"),
            Self::Revoked => revocation("certificate revoked"),
            Self::RevocationUnknown => revocation("unable to get certificate CRL"),
            Self::RevocationList(_) => revocation("CRL has expired"),
            Self::SubjectAltNames(presented) => {
                format!("SAN matcher, certificate SANs are [{}]", presented.join(", "))
            }
            Self::ServerName { expected, presented } => format!(
                "verify SAN list, expected SANs: [{expected}], certificate SANs: [{}]",
                presented.join(", ")
            ),
            Self::NoServerName => "verify SAN list, expected SANs: [], certificate SANs: []".to_owned(),
            Self::Pins => "cert hash and spki".to_owned(),
            Self::NotAnSvid => "cert precheck".to_owned(),
            Self::NoTrustBundle(_) => "no trust bundle store".to_owned(),
        }
    }

    /// The failure that a handshake's error carries, if it carries one.
    pub(crate) fn from_tls(error: &CertificateError) -> Self {
        match error {
            CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<Self>() {
                Some(failure) => failure.clone(),
                None => Self::Malformed(inner.to_string()),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer => Self::UntrustedIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            other => Self::Malformed(other.to_string()),
        }
    }

    /// The error that makes rustls send the fitting alert.
    pub(crate) fn into_tls(self) -> Error {
        let error = match self {
            Self::Expired => CertificateError::Expired,
            Self::NotYetValid => CertificateError::NotValidYet,
            Self::UntrustedIssuer => CertificateError::UnknownIssuer,
            Self::Revoked => CertificateError::Revoked,
            Self::RevocationUnknown => CertificateError::UnknownRevocationStatus,
            Self::BadSignature => CertificateError::BadSignature,
            Self::WrongPurpose => CertificateError::InvalidPurpose,
            other => CertificateError::Other(OtherError(std::sync::Arc::new(other))),
        };
        Error::InvalidCertificate(error)
    }
}

fn chain(reason: &str) -> String {
    format!("X509_verify_cert: certificate verification error at depth 0: {reason}")
}

impl fmt::Display for VerificationFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(formatter, "the certificate cannot be used: {reason}"),
            Self::UntrustedIssuer => formatter.write_str("no trusted authority issued the certificate"),
            Self::BadSignature => formatter.write_str("a signature in the certificate chain is wrong"),
            Self::Expired => formatter.write_str("the certificate has expired"),
            Self::NotYetValid => formatter.write_str("the certificate is not valid yet"),
            Self::WrongPurpose => formatter.write_str("the certificate is not for this purpose"),
            Self::AuthorityAsPeer => formatter.write_str("the certificate is an authority's own"),
            Self::NotAnAuthority => formatter.write_str("the certificate's issuer is no authority"),
            Self::Constraints(reason) => {
                write!(
                    formatter,
                    "the authority may not issue this certificate: {reason}"
                )
            }
            Self::Revoked => formatter.write_str("the certificate is revoked"),
            Self::RevocationUnknown => formatter.write_str("no revocation list covers the certificate"),
            Self::RevocationList(reason) => write!(formatter, "the revocation list is not usable: {reason}"),
            Self::SubjectAltNames(presented) => {
                write!(
                    formatter,
                    "no name of the certificate is expected; it has [{}]",
                    presented.join(", ")
                )
            }
            Self::ServerName { expected, presented } => write!(
                formatter,
                "the certificate is not for {expected}; it is for [{}]",
                presented.join(", ")
            ),
            Self::NoServerName => {
                formatter.write_str("no server name was sent to compare the certificate with")
            }
            Self::Pins => formatter.write_str("neither the certificate nor its key is pinned"),
            Self::NotAnSvid => formatter.write_str("the certificate is no X.509-SVID"),
            Self::NoTrustBundle(domain) => write!(formatter, "no bundle for trust domain \"{domain}\""),
        }
    }
}

impl std::error::Error for VerificationFailure {}
