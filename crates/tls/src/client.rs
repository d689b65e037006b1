//! Client contexts: Envoy's `UpstreamTlsContext`.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{DnsName, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::alpn;
use crate::certificate::Certificate;
use crate::connection::{self, ConnectionInfo, Known};
use crate::handshake::HandshakeFailure;
use crate::parameters::{Parameters, Side, parameters};
use crate::pem::Identity;
use crate::refusal::ContextError;
use crate::settings::{Awaited, CertificateValidationContext, UpstreamTlsContext};
use crate::signing::{Fixed, narrow};
use crate::verification::{PeerRules, ServerNameRule, Verifier, heard};

/// A TLS stream on a client's side.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Everything that a client needs for its handshakes; immutable, and shared between threads.
pub struct ClientContext {
    configured: Variant,
    /// Asks for the server's name in its certificate besides.
    by_server_name: Variant,
    sni: Option<DnsName<'static>>,
    auto_host_sni: bool,
    local: Option<Arc<Certificate>>,
    left_out: Vec<String>,
}

struct Variant {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// What one connection may ask for beyond its context: Envoy's transport socket options.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions<'a> {
    /// Takes the place of every configured server name (`auto_sni` of the HTTP protocol options).
    pub server_name: Option<&'a str>,
    /// The endpoint's host name, for `auto_host_sni`.
    pub endpoint_hostname: Option<&'a str>,
    /// Takes the place of the configured application protocols, unless empty.
    pub alpn: &'a [String],
    /// The certificate must have the server name besides what is configured (`auto_san_validation`).
    pub verify_server_name: bool,
}

impl std::fmt::Debug for ClientContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClientContext")
            .field("sni", &self.sni)
            .field("local", &self.local.as_ref().map(|leaf| &leaf.subject))
            .finish_non_exhaustive()
    }
}

impl ClientContext {
    /// Makes a context of `settings`, whose certificate and bundles must be good at `now`.
    ///
    /// # Errors
    /// What is wrong, by field; nothing is left out silently but what [`ClientContext::left_out`] names.
    pub fn new(settings: &UpstreamTlsContext, now: SystemTime) -> Result<Self, ContextError> {
        let identities = Identity::load_all(&settings.common.tls_certificates, now)?;
        let validation = settings.common.validation_context.as_ref();
        Self::assemble(settings, &identities, validation, now)
    }

    /// Makes a context of `settings` with this certificate and this validation in place of those in them.
    pub(crate) fn assemble(
        settings: &UpstreamTlsContext,
        identities: &[Identity],
        validation: Option<&CertificateValidationContext>,
        now: SystemTime,
    ) -> Result<Self, ContextError> {
        let parameters = parameters(&settings.common.tls_params, Side::Client)?;
        let identity = one(identities, &parameters)?;
        let sni = sni(settings)?;
        let rules = Arc::new(rules(settings, validation, &parameters, now)?);
        let variant = |rule| variant(settings, &parameters, &rules, identity.as_ref(), rule);
        let configured = match settings.auto_sni_san_validation {
            true => ServerNameRule::Required,
            false => ServerNameRule::Ignored,
        };
        Ok(Self {
            configured: variant(configured)?,
            by_server_name: variant(ServerNameRule::Required)?,
            sni,
            auto_host_sni: settings.auto_host_sni,
            local: identity.map(|identity| identity.leaf),
            left_out: parameters.left_out,
        })
    }

    /// Names in the settings that Envoy takes and nothing here offers, such as cipher suites without forward secrecy.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The leaf certificate that this context presents.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.local.as_deref()
    }

    /// The first certificate of the bundle that servers are verified by.
    pub fn authority(&self) -> Option<&Certificate> {
        self.configured.verifier.rules().authority()
    }

    /// Does a handshake on `io`. The caller bounds its time.
    ///
    /// In TLS 1.3 it may succeed here although the server refuses our certificate: the first read fails then, and
    /// [`HandshakeFailure::from_io`] tells why.
    ///
    /// # Errors
    /// Why it failed; the alert has been sent then, as far as the peer took it.
    pub async fn connect<IO>(
        &self,
        io: IO,
        options: ConnectOptions<'_>,
    ) -> Result<(ClientStream<IO>, ConnectionInfo), HandshakeFailure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let asked = self.server_name(options)?;
        let variant = match options.verify_server_name {
            true => &self.by_server_name,
            false => &self.configured,
        };
        // rustls sends no server name for an address, whichever it is.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let name = asked.clone().map_or(nobody, ServerName::DnsName);
        let connector = TlsConnector::from(Arc::clone(&variant.config));
        let connect = match options.alpn {
            [] => connector.connect(name.clone(), io),
            names => {
                let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
                connector.with_alpn(names).connect(name.clone(), io)
            }
        };
        let (stream, signature) = heard(pin!(connect)).await;
        let stream = stream.map_err(|error| HandshakeFailure::from_io(&error))?;
        let known = Known {
            local: self.local.clone(),
            server_name: asked.map(|name| name.as_ref().to_owned()),
            verifier: Some(&variant.verifier),
            expected: Some(name),
            now: variant.config.time_provider.current_time(),
            signature,
        };
        let info = connection::describe(stream.get_ref().1, known)?;
        Ok((stream, info))
    }

    /// Envoy's order: the connection's own name, the endpoint's, the configured one.
    fn server_name(&self, options: ConnectOptions<'_>) -> Result<Option<DnsName<'static>>, HandshakeFailure> {
        let hostname = options
            .endpoint_hostname
            .filter(|name| self.auto_host_sni && !name.is_empty());
        match options.server_name.or(hostname) {
            Some("") => Ok(None),
            Some(name) => match dns_name(name) {
                Some(name) => Ok(Some(name)),
                None => Err(HandshakeFailure::InvalidServerName(name.to_owned())),
            },
            None => Ok(self.sni.clone()),
        }
    }
}

fn sni(settings: &UpstreamTlsContext) -> Result<Option<DnsName<'static>>, ContextError> {
    let refuse = |name| ContextError::invalid("sni", format!("\"{name}\" is no DNS name"));
    match settings.sni.as_str() {
        "" => Ok(None),
        name => dns_name(name).map(Some).ok_or_else(|| refuse(name)),
    }
}

/// Refuses settings that could make no context; gives the names in them that nothing here offers.
pub(crate) fn check(
    settings: &UpstreamTlsContext,
    awaited: Awaited,
    now: SystemTime,
) -> Result<Vec<String>, ContextError> {
    let parameters = parameters(&settings.common.tls_params, Side::Client)?;
    alpn::protocols(&settings.common.alpn_protocols)?;
    sni(settings)?;
    match &settings.common.validation_context {
        Some(defaults) if awaited.validation => PeerRules::check_defaults(defaults, now)?,
        None if awaited.validation => {}
        validation => drop(rules(settings, validation.as_ref(), &parameters, now)?),
    }
    Ok(parameters.left_out)
}

fn dns_name(name: &str) -> Option<DnsName<'static>> {
    DnsName::try_from(name.to_owned()).ok()
}

fn one(identities: &[Identity], parameters: &Parameters) -> Result<Option<Identity>, ContextError> {
    match identities {
        [] => Ok(None),
        [identity] => Ok(Some(narrow(
            identity.clone(),
            parameters.signature_schemes.as_deref(),
        ))),
        _ => Err(ContextError::TooMany {
            what: "tls_certificates",
            limit: 1,
        }),
    }
}

fn rules(
    settings: &UpstreamTlsContext,
    validation: Option<&CertificateValidationContext>,
    parameters: &Parameters,
    now: SystemTime,
) -> Result<PeerRules, ContextError> {
    let nothing = CertificateValidationContext::default();
    let validation = validation.unwrap_or(&nothing);
    let trusts = validation.trusted_ca.is_some() || validation.spiffe.is_some();
    if settings.auto_sni_san_validation && !trusts {
        return Err(ContextError::invalid(
            "auto_sni_san_validation",
            "names prove nothing without trusted_ca",
        ));
    }
    let algorithms = parameters.provider.signature_verification_algorithms;
    let rules = PeerRules::load(validation, Side::Client, algorithms, now)?;
    Ok(match settings.auto_sni_san_validation {
        true => rules.without_names(),
        false => rules,
    })
}

fn variant(
    settings: &UpstreamTlsContext,
    parameters: &Parameters,
    rules: &Arc<PeerRules>,
    identity: Option<&Identity>,
    rule: ServerNameRule,
) -> Result<Variant, ContextError> {
    let refuse = |error: rustls::Error| ContextError::invalid("tls_params", error.to_string());
    let verifier = Arc::new(Verifier::new(Arc::clone(rules), parameters).server_name(rule));
    let mut config = ClientConfig::builder_with_provider(Arc::new(parameters.provider.clone()))
        .with_protocol_versions(&parameters.versions)
        .map_err(refuse)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier))
        .with_client_cert_resolver(Arc::new(Fixed(
            identity.map(|identity| Arc::clone(&identity.key)),
        )));
    // A resumed session would keep the identity that the server had before.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn::protocols(&settings.common.alpn_protocols)?;
    Ok(Variant {
        config: Arc::new(config),
        verifier,
    })
}
