//! Server contexts: Envoy's `DownstreamTlsContext`, with its choice of a certificate.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage};
use rustls::{CipherSuite, ServerConfig, SignatureAlgorithm};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;

use crate::alpn;
use crate::certificate::Certificate;
use crate::connection::{self, ConnectionInfo, Known};
use crate::handshake::HandshakeFailure;
use crate::limits::MAX_CERTIFICATES_PER_SERVER;
use crate::parameters::{self, Parameters, Side, parameters};
use crate::pem::Identity;
use crate::refusal::ContextError;
use crate::settings::{Awaited, CertificateValidationContext, DownstreamTlsContext};
use crate::signing::{Fixed, narrow};
use crate::verification::{PeerRules, Verifier, heard};

/// A TLS stream on a server's side.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// Everything that a server needs for its handshakes; immutable, and shared between threads.
pub struct ServerContext {
    certificates: Vec<Presented>,
    /// Certificates by the DNS names for which they are; a wildcard `*.a.b` is here as `.a.b`.
    by_name: HashMap<String, Vec<usize>>,
    /// Refuses every handshake, with an alert.
    refusing: Arc<ServerConfig>,
    verifier: Option<Arc<Verifier>>,
    require_sni: bool,
    full_scan: bool,
    left_out: Vec<String>,
}

/// A certificate with the configurations that present it.
struct Presented {
    identity: Identity,
    elliptic: bool,
    /// For clients that offer one of our application protocols, or none at all.
    with_alpn: Arc<ServerConfig>,
    /// For clients that offer others: Envoy goes on without one, where rustls would refuse.
    without_alpn: Arc<ServerConfig>,
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServerContext")
            .field(
                "certificates",
                &self.certificates().map(|leaf| &leaf.subject).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl ServerContext {
    /// Makes a context of `settings`, whose certificates and bundles must be good at `now`.
    ///
    /// # Errors
    /// What is wrong, by field; nothing is left out silently but what [`ServerContext::left_out`] names.
    pub fn new(settings: &DownstreamTlsContext, now: SystemTime) -> Result<Self, ContextError> {
        let identities = Identity::load_all(&settings.common.tls_certificates, now)?;
        let validation = settings.common.validation_context.as_ref();
        Self::assemble(settings, &identities, validation, now)
    }

    /// Makes a context of `settings` with these certificates and this validation in place of those in them.
    pub(crate) fn assemble(
        settings: &DownstreamTlsContext,
        identities: &[Identity],
        validation: Option<&CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<Self, ContextError> {
        let parameters = parameters(&settings.common.tls_params, Side::Server)?;
        let verifier = verifier(settings, validation, &parameters, now)?;
        let template = template(settings, &parameters, verifier.as_ref())?;
        let mut refusing = template.clone();
        refusing.cert_resolver = Arc::new(Fixed(None));
        let certificates = present(identities, &parameters, &template)?;
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, presented) in certificates.iter().enumerate() {
            for name in served_names(&presented.identity.leaf) {
                by_name.entry(name).or_default().push(index);
            }
        }
        Ok(Self {
            certificates,
            by_name,
            refusing: Arc::new(refusing),
            verifier,
            require_sni: settings.require_sni,
            full_scan: settings.full_scan_certs_on_sni_mismatch,
            left_out: parameters.left_out,
        })
    }

    /// Names in the settings that Envoy takes and nothing here offers, such as cipher suites without forward secrecy.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The leaf certificates that this context presents.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates
            .iter()
            .map(|presented| &*presented.identity.leaf)
    }

    /// The first certificate of the bundle that clients are verified by.
    pub fn authority(&self) -> Option<&Certificate> {
        self.verifier
            .as_deref()
            .and_then(|verifier| verifier.rules().authority())
    }

    /// Does a handshake on `io`. The caller bounds its time.
    ///
    /// # Errors
    /// Why it failed; the alert has been sent then, as far as the peer took it.
    pub async fn accept<IO>(&self, io: IO) -> Result<(ServerStream<IO>, ConnectionInfo), HandshakeFailure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let fail = |error: std::io::Error| HandshakeFailure::from_io(&error);
        let start = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .map_err(fail)?;
        let hello = start.client_hello();
        let server_name = hello.server_name().map(str::to_ascii_lowercase);
        let presented = self.choose(&hello, server_name.as_deref());
        let config = match presented {
            Some(presented) => presented.configuration(&hello),
            None => &self.refusing,
        };
        let now = config.time_provider.current_time();
        let (stream, signature) = heard(pin!(start.into_stream(Arc::clone(config)))).await;
        let stream = stream.map_err(fail)?;
        let known = Known {
            local: presented.map(|presented| Arc::clone(&presented.identity.leaf)),
            server_name,
            verifier: self.verifier.as_deref(),
            expected: None,
            now,
            signature,
        };
        let info = connection::describe(stream.get_ref().1, known)?;
        Ok((stream, info))
    }

    /// Envoy's choice: the exact name, the wildcard, then all certificates or the first one; at each step a certificate
    /// with an elliptic key that the client can verify before one with an RSA key.
    fn choose(&self, hello: &ClientHello<'_>, server_name: Option<&str>) -> Option<&Presented> {
        match server_name {
            Some(name) => {
                let wildcard = name.find('.').map(|dot| &name[dot..]);
                let candidates = [Some(name), wildcard].into_iter().flatten();
                for indices in candidates.filter_map(|name| self.by_name.get(name)) {
                    if let Some(found) = self.fitting(hello, indices.iter().copied()) {
                        return Some(found);
                    }
                }
                if self.require_sni {
                    return None;
                }
                if !self.full_scan {
                    return self.certificates.first();
                }
            }
            None if self.require_sni => return None,
            None => {}
        }
        let all = 0..self.certificates.len();
        self.fitting(hello, all).or(self.certificates.first())
    }

    fn fitting(&self, hello: &ClientHello<'_>, indices: impl Iterator<Item = usize>) -> Option<&Presented> {
        let mut candidate = None;
        for presented in indices.map(|index| &self.certificates[index]) {
            if presented.elliptic && presented.fits(hello) {
                return Some(presented);
            }
            if !presented.elliptic {
                candidate = candidate.or(Some(presented));
            }
        }
        candidate
    }
}

impl Presented {
    /// Whether the client can verify this key, in the version of TLS that it will get.
    fn fits(&self, hello: &ClientHello<'_>) -> bool {
        let suites = &self.with_alpn.crypto_provider().cipher_suites;
        let common = |offered: &CipherSuite| {
            suites.iter().any(|ours| ours.suite() == *offered) && parameters::fits_elliptic_keys(*offered)
        };
        self.identity
            .key
            .key
            .choose_scheme(hello.signature_schemes())
            .is_some()
            && hello.cipher_suites().iter().any(common)
    }

    fn configuration(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let Some(mut offered) = hello.alpn() else {
            return &self.with_alpn;
        };
        let ours = &self.with_alpn.alpn_protocols;
        match offered.any(|name| ours.iter().any(|own| own == name)) {
            true => &self.with_alpn,
            false => &self.without_alpn,
        }
    }
}

/// Refuses settings that could make no context; gives the names in them that nothing here offers.
pub(crate) fn check(
    settings: &DownstreamTlsContext,
    awaited: Awaited,
    now: SystemTime,
) -> Result<Vec<String>, ContextError> {
    let parameters = parameters(&settings.common.tls_params, Side::Server)?;
    alpn::protocols(&settings.common.alpn_protocols)?;
    match &settings.common.validation_context {
        Some(defaults) if awaited.validation => PeerRules::check_defaults(defaults, now)?,
        None if awaited.validation => {}
        validation => drop(verifier(settings, validation.as_ref(), &parameters, now)?),
    }
    Ok(parameters.left_out)
}

fn verifier(
    settings: &DownstreamTlsContext,
    validation: Option<&CertificateValidationContext>,
    parameters: &Parameters,
    now: SystemTime,
) -> Result<Option<Arc<Verifier>>, ContextError> {
    let nothing = CertificateValidationContext::default();
    let validation = validation.unwrap_or(&nothing);
    let algorithms = parameters.provider.signature_verification_algorithms;
    let rules = PeerRules::load(validation, Side::Server, algorithms, now)?;
    if rules.is_empty() {
        return match settings.require_client_certificate {
            true => Err(ContextError::invalid(
                "require_client_certificate",
                "nothing in validation_context would verify the certificate",
            )),
            false => Ok(None),
        };
    }
    let verifier = Verifier::new(Arc::new(rules), parameters).mandatory(settings.require_client_certificate);
    Ok(Some(Arc::new(verifier)))
}

/// A configuration with everything but a certificate.
fn template(
    settings: &DownstreamTlsContext,
    parameters: &Parameters,
    verifier: Option<&Arc<Verifier>>,
) -> Result<ServerConfig, ContextError> {
    let refuse = |error: rustls::Error| ContextError::invalid("tls_params", error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::new(parameters.provider.clone()))
        .with_protocol_versions(&parameters.versions)
        .map_err(refuse)?;
    let builder = match verifier {
        Some(verifier) => {
            let verifier: Arc<Verifier> = Arc::clone(verifier);
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Fixed(None)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ignore_client_order = !settings.prefer_client_ciphers;
    config.send_tls13_tickets = 0;
    if settings.session_tickets {
        let refuse = |error: rustls::Error| ContextError::invalid("session_tickets", error.to_string());
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(refuse)?;
        config.send_tls13_tickets = TICKETS_PER_CONNECTION;
    }
    config.alpn_protocols = alpn::protocols(&settings.common.alpn_protocols)?;
    Ok(config)
}

/// As BoringSSL sends.
const TICKETS_PER_CONNECTION: usize = 2;

fn present(
    identities: &[Identity],
    parameters: &Parameters,
    template: &ServerConfig,
) -> Result<Vec<Presented>, ContextError> {
    const WHAT: &str = "tls_certificates";
    match identities.len() {
        0 => return Err(ContextError::Empty { what: WHAT }),
        1..=MAX_CERTIFICATES_PER_SERVER => {}
        _ => {
            return Err(ContextError::TooMany {
                what: WHAT,
                limit: MAX_CERTIFICATES_PER_SERVER,
            });
        }
    }
    let present = |identity: &Identity| {
        let identity = narrow(identity.clone(), parameters.signature_schemes.as_deref());
        let elliptic = match identity.key.key.algorithm() {
            SignatureAlgorithm::ECDSA => true,
            SignatureAlgorithm::RSA => false,
            _ => {
                return Err(ContextError::invalid(
                    "private_key",
                    "only ECDSA and RSA keys are served",
                ));
            }
        };
        let mut with_alpn = template.clone();
        with_alpn.cert_resolver = Arc::new(Fixed(Some(Arc::clone(&identity.key))));
        let mut without_alpn = with_alpn.clone();
        without_alpn.alpn_protocols.clear();
        Ok(Presented {
            identity,
            elliptic,
            with_alpn: Arc::new(with_alpn),
            without_alpn: Arc::new(without_alpn),
        })
    };
    identities.iter().map(present).collect()
}

/// The names under which a certificate is looked up: its DNS names, or its common names if it has none.
fn served_names(leaf: &Certificate) -> Vec<String> {
    let names = match leaf.dns_names.is_empty() {
        true => &leaf.common_names,
        false => &leaf.dns_names,
    };
    let key = |name: &String| {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some(domain) if domain.starts_with('.') => domain.to_owned(),
            _ => name,
        }
    };
    names.iter().map(key).collect()
}
