//! What a finished handshake tells: read once, for routing, policies, headers and logs.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CommonState, HandshakeKind, SignatureScheme};

use crate::certificate::{self, Certificate};
use crate::handshake::HandshakeFailure;
use crate::parameters::{cipher_name, group_name, signature_name, version_name};
use crate::verification::{VerificationFailure, Verifier};

/// Whether the peer's certificate proves anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerValidation {
    /// There is no certificate.
    NoCertificate,
    /// There is one, and nothing is configured to check it by.
    NotChecked,
    /// Every check passed.
    Passed,
    /// A check failed, and `ACCEPT_UNTRUSTED` let the peer in.
    Failed(VerificationFailure),
}

/// What the peer presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificates {
    leaf: Certificate,
    chain: Vec<CertificateDer<'static>>,
}

impl PeerCertificates {
    /// Reads a chain of DER, the leaf first.
    ///
    /// # Errors
    /// In words, when it is empty or its leaf is no certificate.
    pub fn from_der(chain: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let leaf = chain.first().ok_or_else(|| "the chain is empty".to_owned())?;
        Ok(Self {
            leaf: Certificate::from_der(leaf)?,
            chain,
        })
    }

    /// The peer's own certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// Every certificate as DER, the leaf first, in the order presented.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Every certificate as PEM, encoded for a header as Envoy does it.
    pub fn url_encoded_chain(&self) -> String {
        self.chain
            .iter()
            .map(|der| certificate::url_encoded_pem(der))
            .collect()
    }
}

/// A TLS connection, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by OpenSSL's name.
    pub cipher: &'static str,
    /// The key exchange group by BoringSSL's name (`X25519`, `P-256`); empty where a session was resumed without one.
    pub group: &'static str,
    /// The scheme of the peer's signature by TLS's name (`ecdsa_secp256r1_sha256`), if the peer signed.
    pub peer_signature: Option<&'static str>,
    /// The application protocol, if one was agreed on.
    pub alpn: Option<String>,
    /// The server name that the client asked for.
    pub server_name: Option<String>,
    /// What the peer presented.
    pub peer: Option<PeerCertificates>,
    /// Whether that proves anything.
    pub validation: PeerValidation,
    /// Our own certificate.
    pub local: Option<Arc<Certificate>>,
    /// Whether an earlier session was resumed instead of a whole handshake.
    pub resumed: bool,
}

impl ConnectionInfo {
    /// The first URI of a peer that passed every check: its SPIFFE identity in a mesh.
    pub fn peer_identity(&self) -> Option<&str> {
        let peer = self
            .peer
            .as_ref()
            .filter(|_| self.validation == PeerValidation::Passed)?;
        peer.leaf.uris.first().map(String::as_str)
    }
}

/// What is known about a connection besides rustls's state.
pub(crate) struct Known<'a> {
    pub(crate) local: Option<Arc<Certificate>>,
    pub(crate) server_name: Option<String>,
    pub(crate) verifier: Option<&'a Verifier>,
    pub(crate) expected: Option<ServerName<'a>>,
    pub(crate) now: Option<UnixTime>,
    /// With which scheme the peer signed, as [`crate::verification::heard`] tells.
    pub(crate) signature: Option<SignatureScheme>,
}

/// Describes a connection after its handshake.
pub(crate) fn describe(state: &CommonState, known: Known<'_>) -> Result<ConnectionInfo, HandshakeFailure> {
    let chain = state.peer_certificates().unwrap_or_default();
    let malformed = |reason| HandshakeFailure::Verification(VerificationFailure::Malformed(reason));
    let peer = match chain {
        [] => None,
        presented => {
            let owned = presented.iter().map(|der| der.clone().into_owned()).collect();
            Some(PeerCertificates::from_der(owned).map_err(malformed)?)
        }
    };
    Ok(ConnectionInfo {
        version: state.protocol_version().map_or("", version_name),
        cipher: state
            .negotiated_cipher_suite()
            .map_or("", |suite| cipher_name(suite.suite())),
        group: state
            .negotiated_key_exchange_group()
            .map_or("", |group| group_name(group.name())),
        peer_signature: known.signature.and_then(signature_name),
        alpn: state
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
        server_name: known.server_name.clone(),
        validation: validation(chain, &known),
        peer,
        local: known.local,
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
    })
}

fn validation(chain: &[CertificateDer<'_>], known: &Known<'_>) -> PeerValidation {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return PeerValidation::NoCertificate;
    };
    let Some(verifier) = known.verifier.filter(|verifier| verifier.asks()) else {
        return PeerValidation::NotChecked;
    };
    if !verifier.rules().accepts_untrusted() {
        return PeerValidation::Passed;
    }
    // The handshake went on whatever the checks said; what they said is asked again, for this connection.
    let now = known.now.unwrap_or_else(UnixTime::now);
    match verifier.believe(leaf, intermediates, known.expected.as_ref(), now) {
        Ok(()) => PeerValidation::Passed,
        Err(failure) => PeerValidation::Failed(failure),
    }
}
