//! `listener.<address>.ssl.` and `cluster.<name>.ssl.`: what came of TLS handshakes (Envoy: "TLS statistics").

use telemetry::stats::{Counter, Scope, Shard};
use tls::{ConnectionInfo, HandshakeFailure, VerificationFailure};

/// The statistics of one listener's or cluster's handshakes.
#[derive(Clone, Debug)]
pub struct SslStats {
    scope: Scope,
    /// Handshakes that succeeded.
    pub handshake: Counter,
    /// Of these, those that resumed a session.
    pub session_reused: Counter,
    /// Of these, those whose peer has no certificate.
    pub no_certificate: Counter,
    /// Handshakes that failed for another reason than verification.
    pub connection_error: Counter,
    /// Peers without a certificate where one is required.
    pub fail_verify_no_cert: Counter,
    /// Certificates that do not verify.
    pub fail_verify_error: Counter,
    /// Certificates without an expected name.
    pub fail_verify_san: Counter,
    /// Certificates that are not pinned.
    pub fail_verify_cert_hash: Counter,
    /// Connections that were wanted before the secrets of their context had come.
    pub secrets_not_ready: Counter,
}

impl SslStats {
    /// The statistics below `scope`, which is the listener's or the cluster's; `factory` is what Envoy calls the side's
    /// maker of contexts: `server_ssl_socket_factory`, `client_ssl_socket_factory`.
    #[must_use]
    pub fn new(scope: &Scope, factory: &str) -> Self {
        let side = match factory {
            "server_ssl_socket_factory" => "downstream",
            _ => "upstream",
        };
        let counter = |leaf: &str| scope.counter(&format!("ssl.{leaf}"));
        Self {
            handshake: counter("handshake"),
            session_reused: counter("session_reused"),
            no_certificate: counter("no_certificate"),
            connection_error: counter("connection_error"),
            fail_verify_no_cert: counter("fail_verify_no_cert"),
            fail_verify_error: counter("fail_verify_error"),
            fail_verify_san: counter("fail_verify_san"),
            fail_verify_cert_hash: counter("fail_verify_cert_hash"),
            secrets_not_ready: scope.counter(&format!("{factory}.{side}_context_secrets_not_ready")),
            scope: scope.clone(),
        }
    }

    /// The listener's or cluster's own statistics, below which these are.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Counts a handshake that succeeded.
    pub fn count_success(&self, shard: &Shard, info: &ConnectionInfo) {
        shard.inc(self.handshake);
        if info.resumed {
            shard.inc(self.session_reused);
        }
        if info.peer.is_none() {
            shard.inc(self.no_certificate);
        }
        for (kind, value) in [
            ("ciphers", info.cipher),
            ("versions", info.version),
            ("curves", info.group),
            ("sigalgs", info.peer_signature.unwrap_or_default()),
        ] {
            if !value.is_empty() {
                shard.inc(self.scope.counter(&format!("ssl.{kind}.{value}")));
            }
        }
    }

    /// Counts a handshake that failed. A peer that merely went away is no error of TLS.
    pub fn count_failure(&self, shard: &Shard, failure: &HandshakeFailure) {
        let counter = match failure {
            HandshakeFailure::Closed | HandshakeFailure::Io(_) => return,
            HandshakeFailure::NoCertificate => self.fail_verify_no_cert,
            HandshakeFailure::Verification(failure) => match failure {
                VerificationFailure::SubjectAltNames(_)
                | VerificationFailure::ServerName { .. }
                | VerificationFailure::NoServerName => self.fail_verify_san,
                VerificationFailure::Pins => self.fail_verify_cert_hash,
                _ => self.fail_verify_error,
            },
            _ => self.connection_error,
        };
        shard.inc(counter);
    }
}
