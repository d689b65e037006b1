//! Why a TLS connection failed, in our words and in those of Envoy's access log.

use std::io;

use rustls::{AlertDescription, Error, PeerIncompatible};

use crate::verification::VerificationFailure;

/// Why a TLS handshake, or the connection after it, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailure {
    /// The peer's certificate failed a check.
    #[error("the peer's certificate was refused: {0}")]
    Verification(VerificationFailure),
    /// A certificate is required, and the client has none.
    #[error("the peer has no certificate")]
    NoCertificate,
    /// The peer refused us: the name of its alert in TLS's words, and its number.
    #[error("the peer refused the connection: {name}")]
    Refused {
        /// `unknown_ca`, `certificate_expired`, …
        name: String,
        /// The number of the alert (RFC 8446, section 6).
        alert: u8,
    },
    /// What came is not TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// No version of TLS is common to both.
    #[error("no common version of TLS")]
    NoCommonVersion,
    /// No cipher suite is common to both.
    #[error("no common cipher suite")]
    NoCommonCipherSuite,
    /// No key exchange group is common to both.
    #[error("no common key exchange group")]
    NoCommonGroup,
    /// No signature scheme fits both the client's offer and our key.
    #[error("no common signature scheme")]
    NoCommonSignatureScheme,
    /// The client named no server, or none that is served, where it must.
    #[error("the client named no server that is served here")]
    UnknownServerName,
    /// The name to ask for is no DNS name.
    #[error("\"{0}\" is no server name")]
    InvalidServerName(String),
    /// The peer closed the connection in the middle of the handshake.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection below failed.
    #[error("the connection failed: {0}")]
    Io(String),
    /// Anything else that is against the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl HandshakeFailure {
    /// Reads an error of a TLS stream. In TLS 1.3 a client learns on its first read only that it was refused.
    pub fn from_io(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(error) => Self::from_tls(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error.to_string()),
        }
    }

    fn from_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::Verification(VerificationFailure::from_tls(error)),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(description) => Self::Refused {
                name: alert_name(*description),
                alert: u8::from(*description),
            },
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(kind) => Self::from_incompatible(kind),
            // The only resolver that resolves nothing is the one for names that are not served.
            Error::General(reason) if reason.contains("no server certificate chain resolved") => {
                Self::UnknownServerName
            }
            other => Self::Protocol(other.to_string()),
        }
    }

    fn from_incompatible(kind: &PeerIncompatible) -> Self {
        match kind {
            PeerIncompatible::NoCipherSuitesInCommon => Self::NoCommonCipherSuite,
            PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
                Self::NoCommonGroup
            }
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => Self::NoCommonSignatureScheme,
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired => Self::NoCommonVersion,
            other => Self::Protocol(format!("the peer is incompatible: {other:?}")),
        }
    }

    /// The check that the peer's certificate failed, if that is why.
    pub fn verification(&self) -> Option<&VerificationFailure> {
        match self {
            Self::Verification(failure) => Some(failure),
            _ => None,
        }
    }

    /// What Envoy shows as `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and `%UPSTREAM_TRANSPORT_FAILURE_REASON%` for the
    /// usual reasons, before the access log puts underscores for spaces. Other reasons are in our words.
    pub fn envoy_reason(&self) -> String {
        match self {
            Self::Verification(failure) => boring(
                125,
                &format!(
                    "CERTIFICATE_VERIFY_FAILED:verify cert failed: {}",
                    failure.envoy_details()
                ),
            ),
            Self::NoCertificate => boring(
                192,
                "PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate",
            ),
            Self::Refused { alert, .. } => match ALERTS.iter().find(|(number, _)| number == alert) {
                Some((number, name)) => boring(ALERT_REASONS + u32::from(*number), name),
                None => format!("TLS_error:|{self}:TLS_error_end"),
            },
            Self::NotTls => boring(247, "WRONG_VERSION_NUMBER"),
            Self::NoCommonVersion => boring(240, "UNSUPPORTED_PROTOCOL"),
            Self::NoCommonCipherSuite => boring(184, "NO_SHARED_CIPHER"),
            Self::NoCommonGroup => boring(266, "NO_SHARED_GROUP"),
            Self::NoCommonSignatureScheme => boring(253, "NO_COMMON_SIGNATURE_ALGORITHMS"),
            Self::Closed => String::new(),
            other => format!("TLS_error:|{other}:TLS_error_end"),
        }
    }
}

/// The number of BoringSSL's library `SSL`, shifted as its error codes have it.
const SSL_LIBRARY: u32 = 16 << 24;
/// BoringSSL's reason for an alert is this and the alert's number.
const ALERT_REASONS: u32 = 1000;

fn boring(reason: u32, text: &str) -> String {
    format!(
        "TLS_error:|{}:SSL routines:OPENSSL_internal:{text}:TLS_error_end",
        SSL_LIBRARY + reason
    )
}

/// BoringSSL's names of the alerts that it may receive.
const ALERTS: &[(u8, &str)] = &[
    (10, "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    (20, "SSLV3_ALERT_BAD_RECORD_MAC"),
    (21, "TLSV1_ALERT_DECRYPTION_FAILED"),
    (22, "TLSV1_ALERT_RECORD_OVERFLOW"),
    (30, "SSLV3_ALERT_DECOMPRESSION_FAILURE"),
    (40, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    (41, "SSLV3_ALERT_NO_CERTIFICATE"),
    (42, "SSLV3_ALERT_BAD_CERTIFICATE"),
    (43, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    (44, "SSLV3_ALERT_CERTIFICATE_REVOKED"),
    (45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    (46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
    (47, "SSLV3_ALERT_ILLEGAL_PARAMETER"),
    (48, "TLSV1_ALERT_UNKNOWN_CA"),
    (49, "TLSV1_ALERT_ACCESS_DENIED"),
    (50, "TLSV1_ALERT_DECODE_ERROR"),
    (51, "TLSV1_ALERT_DECRYPT_ERROR"),
    (60, "TLSV1_ALERT_EXPORT_RESTRICTION"),
    (70, "TLSV1_ALERT_PROTOCOL_VERSION"),
    (71, "TLSV1_ALERT_INSUFFICIENT_SECURITY"),
    (80, "TLSV1_ALERT_INTERNAL_ERROR"),
    (86, "TLSV1_ALERT_INAPPROPRIATE_FALLBACK"),
    (90, "TLSV1_ALERT_USER_CANCELLED"),
    (100, "TLSV1_ALERT_NO_RENEGOTIATION"),
    (110, "TLSV1_ALERT_UNSUPPORTED_EXTENSION"),
    (111, "TLSV1_ALERT_CERTIFICATE_UNOBTAINABLE"),
    (112, "TLSV1_ALERT_UNRECOGNIZED_NAME"),
    (113, "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE"),
    (114, "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE"),
    (115, "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY"),
    (116, "TLSV1_ALERT_CERTIFICATE_REQUIRED"),
    (120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"),
    (121, "TLSV1_ALERT_ECH_REQUIRED"),
];

/// `CertificateExpired` as `certificate_expired`, `UnknownCA` as `unknown_ca`.
fn alert_name(description: AlertDescription) -> String {
    let name = format!("{description:?}");
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for character in name.chars() {
        if character.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = !character.is_ascii_uppercase();
        out.push(character.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from a real Envoy.
    #[test]
    fn the_usual_reasons_read_as_envoys() {
        for (failure, reason) in [
            (
                HandshakeFailure::Verification(VerificationFailure::Expired),
                "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: X509_verify_cert: certificate verification error at depth 0: certificate has expired:TLS_error_end",
            ),
            (
                HandshakeFailure::Verification(VerificationFailure::SubjectAltNames(vec![
                    "spiffe://a/b".into(),
                    "::1".into(),
                ])),
                "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: SAN matcher, certificate SANs are [spiffe://a/b, ::1]:TLS_error_end",
            ),
            (
                HandshakeFailure::NoCertificate,
                "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate:TLS_error_end",
            ),
            (
                HandshakeFailure::NotTls,
                "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
            ),
            (
                HandshakeFailure::NoCommonVersion,
                "TLS_error:|268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end",
            ),
            (
                HandshakeFailure::from_tls(&Error::AlertReceived(AlertDescription::UnknownCA)),
                "TLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end",
            ),
        ] {
            assert_eq!(failure.envoy_reason(), reason);
        }
    }

    #[test]
    fn alerts_are_named_as_in_the_standard() {
        for (description, name) in [
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::CertificateExpired, "certificate_expired"),
            (AlertDescription::NoApplicationProtocol, "no_application_protocol"),
        ] {
            assert_eq!(alert_name(description), name);
        }
    }
}
