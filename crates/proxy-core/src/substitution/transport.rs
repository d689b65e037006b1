//! The operators that tell of TLS: `%DOWNSTREAM_PEER_SUBJECT%`, `%UPSTREAM_TLS_VERSION%` and their like.

use std::fmt::{Display, Write as _};
use std::rc::Rc;

use tls::{Certificate, ConnectionInfo};

use super::TimeFormat;
use super::operator::{text, without_spaces};
use crate::error::ConfigResult;
use crate::stream_info::StreamInfo;

/// Which connection of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// `DOWNSTREAM_`: with the client.
    Downstream,
    /// `UPSTREAM_`: with the host.
    Upstream,
}

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateOwner {
    /// `PEER_`.
    Peer,
    /// `LOCAL_`: ours.
    Local,
}

/// What of a certificate is printed. Lists are joined by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateField {
    /// `SUBJECT`.
    Subject,
    /// `ISSUER`.
    Issuer,
    /// `SERIAL`.
    Serial,
    /// `URI_SAN`.
    UriSan,
    /// `DNS_SAN`.
    DnsSan,
    /// `IP_SAN`.
    IpSan,
    /// `EMAIL_SAN`.
    EmailSan,
    /// `FINGERPRINT_256`.
    Fingerprint256,
    /// `FINGERPRINT_1`.
    Fingerprint1,
    /// `CERT`: PEM, encoded as for a header.
    Cert,
    /// `CERT_V_START`.
    ValidFrom(TimeFormat),
    /// `CERT_V_END`.
    ValidTo(TimeFormat),
}

/// Something that TLS tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportFact {
    /// `TLS_VERSION`.
    Version(Leg),
    /// `TLS_CIPHER`.
    Cipher(Leg),
    /// Of a certificate that was presented, whether or not it was verified.
    Certificate(Leg, CertificateOwner, CertificateField),
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    DownstreamFailureReason,
}

impl TransportFact {
    /// The fact that an operator without an argument names.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "DOWNSTREAM_TRANSPORT_FAILURE_REASON" {
            return Some(Self::DownstreamFailureReason);
        }
        let (leg, rest) = leg(name)?;
        match rest {
            "TLS_VERSION" => return Some(Self::Version(leg)),
            "TLS_CIPHER" => return Some(Self::Cipher(leg)),
            _ => {}
        }
        let (owner, field) = owner(rest)?;
        let of_peers = owner == CertificateOwner::Peer;
        let field = match field {
            "SUBJECT" => CertificateField::Subject,
            "URI_SAN" => CertificateField::UriSan,
            "DNS_SAN" => CertificateField::DnsSan,
            "IP_SAN" => CertificateField::IpSan,
            "EMAIL_SAN" => CertificateField::EmailSan,
            "ISSUER" if of_peers => CertificateField::Issuer,
            "SERIAL" if of_peers => CertificateField::Serial,
            "FINGERPRINT_256" if of_peers => CertificateField::Fingerprint256,
            "FINGERPRINT_1" if of_peers => CertificateField::Fingerprint1,
            "CERT" if of_peers => CertificateField::Cert,
            _ => return None,
        };
        Some(Self::Certificate(leg, owner, field))
    }

    /// The bound of a peer's validity that an operator names, printed in a format.
    pub(super) fn validity(name: &str, format: &str) -> Option<ConfigResult<Self>> {
        let (leg, rest) = leg(name)?;
        let field = match rest {
            "PEER_CERT_V_START" => CertificateField::ValidFrom,
            "PEER_CERT_V_END" => CertificateField::ValidTo,
            _ => return None,
        };
        let fact = |format| Self::Certificate(leg, CertificateOwner::Peer, field(format));
        Some(TimeFormat::parse(format).map(fact))
    }

    /// Writes the fact; false when there is none.
    pub(super) fn write(&self, info: &StreamInfo<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::DownstreamFailureReason => without_spaces(&info.connection.transport_failure_reason, out),
            Self::Version(leg) => text(of(info, *leg).map(|tls| tls.version), out),
            Self::Cipher(leg) => text(of(info, *leg).map(|tls| tls.cipher), out),
            Self::Certificate(leg, owner, field) => {
                let certificate = of(info, *leg).and_then(|tls| match owner {
                    CertificateOwner::Peer => tls.peer.as_ref().map(tls::PeerCertificates::leaf),
                    CertificateOwner::Local => tls.local.as_deref(),
                });
                certificate.is_some_and(|certificate| field.write(certificate, out))
            }
        }
    }
}

fn leg(name: &str) -> Option<(Leg, &str)> {
    let downstream = name
        .strip_prefix("DOWNSTREAM_")
        .map(|rest| (Leg::Downstream, rest));
    downstream.or_else(|| name.strip_prefix("UPSTREAM_").map(|rest| (Leg::Upstream, rest)))
}

fn owner(rest: &str) -> Option<(CertificateOwner, &str)> {
    let peer = rest
        .strip_prefix("PEER_")
        .map(|field| (CertificateOwner::Peer, field));
    let local = || {
        rest.strip_prefix("LOCAL_")
            .map(|field| (CertificateOwner::Local, field))
    };
    peer.or_else(local)
}

fn of<'a>(info: &'a StreamInfo<'_>, leg: Leg) -> Option<&'a ConnectionInfo> {
    let tls: &Option<Rc<ConnectionInfo>> = match leg {
        Leg::Downstream => &info.connection.tls,
        Leg::Upstream => &info.upstream.tls,
    };
    tls.as_deref()
}

impl CertificateField {
    fn write(&self, certificate: &Certificate, out: &mut Vec<u8>) -> bool {
        let value = match self {
            Self::Subject => certificate.subject.clone(),
            Self::Issuer => certificate.issuer.clone(),
            Self::Serial => certificate.serial.clone(),
            Self::UriSan => list(&certificate.uris),
            Self::DnsSan => list(&certificate.dns_names),
            Self::IpSan => list(&certificate.addresses),
            Self::EmailSan => list(&certificate.emails),
            Self::Fingerprint256 => hex(&certificate.sha256),
            Self::Fingerprint1 => hex(&certificate.sha1),
            Self::Cert => certificate.url_encoded_pem(),
            Self::ValidFrom(format) => return format.write(certificate.not_before, out),
            Self::ValidTo(format) => return format.write(certificate.not_after, out),
        };
        text(Some(value.as_str()).filter(|value| !value.is_empty()), out)
    }
}

fn list(values: &[impl Display]) -> String {
    let mut joined = String::new();
    for (position, value) in values.iter().enumerate() {
        let separator = if position == 0 { "" } else { "," };
        let _ = write!(joined, "{separator}{value}");
    }
    joined
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
