//! Who signs: Istio's certificate service (`istio.v1.auth.IstioCertificateService/CreateCertificate`), reached over TLS
//! as Istio's agent does, or over a Unix socket of the control plane on the same machine, which proves by itself who
//! asks.
//!
//! A connection is made for each request, since there are hours between two.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::istio::v1::auth::IstioCertificateRequest;
use api_envoy::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use api_envoy::wkt;
use hyper_util::rt::TokioIo;
use identity::{Certificate, ServiceAccount, Svid};
use serde_json::json;
use telemetry::logging::chain;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::roots::{self, RootsError};
use crate::limits::{CA_CALL_TIMEOUT, MAX_ANSWER_BYTES, MAX_SECRET_FILE_BYTES, MAX_TOKEN_BYTES};
use crate::small_file::read;

/// The key of the request's metadata that names whom it is for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// What is asked for.
#[derive(Debug)]
pub struct SigningRequest<'r> {
    /// The signing request, PEM.
    pub csr: String,
    /// How long the certificate is to be valid.
    pub lifetime: Duration,
    /// Whose identity it is to have.
    pub account: &'r ServiceAccount,
    /// What the workload holds already.
    pub held: Option<&'r Svid>,
    /// Now.
    pub now: SystemTime,
}

/// Somebody who signs.
pub trait Authority {
    /// Asks for a certificate. The parts of the answer in PEM: the certificate, what leads to the roots, the roots.
    ///
    /// # Errors
    /// Why there is none.
    fn sign(
        &self,
        request: SigningRequest<'_>,
    ) -> impl Future<Output = Result<Vec<String>, AuthorityError>> + Send;
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The roots that the authority is verified against.
    #[error("its roots")]
    Roots(#[from] RootsError),
    /// The caller's own proof.
    #[error("the caller's proof: {path}: {error}", path = .0.display(), error = .1)]
    Proof(PathBuf, io::Error),
    /// There is nothing to prove oneself with.
    #[error("the caller's proof: there is neither a token nor a certificate")]
    NoProof,
    /// The TLS settings.
    #[error("the TLS settings: {0}")]
    Settings(String),
    /// There is no connection.
    #[error("{0} is not reached: {1}")]
    Unreachable(String, String),
    /// It says no.
    #[error("{0}: {1}")]
    Refused(Code, String),
}

/// Istio's certificate service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateAuthority {
    /// On a Unix socket of the same machine: who asks is who the kernel says, and says for whom.
    Unix(PathBuf),
    /// Over TLS.
    Tls(TlsAuthority),
}

/// The way to an authority over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsAuthority {
    /// `host:port` (`CA_ADDR`).
    pub address: String,
    /// The DNS name that its certificate must have (`ISTIOD_SAN`).
    pub server_name: String,
    /// The file with the roots that it is verified against (`CA_ROOT_CA`); read for each request, since they may change.
    pub roots: PathBuf,
    /// How the workload proves who it is.
    pub proof: Proof,
}

/// How a workload proves who it is before it has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a token of its service account; read for each request, since it is replaced before it expires. Where it is not,
    /// by the certificate that the workload has.
    Token(PathBuf),
    /// By a certificate that it was given (`PROV_CERT`), and from then on by those that it gets.
    Certificate {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

impl Authority for CertificateAuthority {
    async fn sign(&self, request: SigningRequest<'_>) -> Result<Vec<String>, AuthorityError> {
        let mut message = IstioCertificateRequest {
            csr: request.csr,
            validity_duration: i64::try_from(request.lifetime.as_secs()).unwrap_or(i64::MAX),
            ..IstioCertificateRequest::default()
        };
        if let Self::Unix(_) = self {
            let account = request.account.to_string();
            message.metadata = Some(wkt::structure(&json!({ IMPERSONATED_IDENTITY: account })));
        }
        let (channel, proof) = self.connect(request.held, request.now).await?;
        let mut call = tonic::Request::new(message);
        call.set_timeout(CA_CALL_TIMEOUT);
        proof.show(&mut call);
        let mut service =
            IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let answer = service.create_certificate(call).await;
        let answer =
            answer.map_err(|status| AuthorityError::Refused(status.code(), status.message().to_owned()))?;
        Ok(answer.into_inner().cert_chain)
    }
}

type Token = tonic::metadata::AsciiMetadataValue;

/// What a caller shows with each call, where the connection is not proof enough.
pub(crate) struct Shown(Option<Token>);

impl Shown {
    pub(crate) fn show<T>(self, call: &mut tonic::Request<T>) {
        if let Some(token) = self.0 {
            call.metadata_mut().insert("authorization", token);
        }
    }
}

impl CertificateAuthority {
    /// A new connection, for calls that need no proof.
    pub(crate) async fn connect_unproven(&self, now: SystemTime) -> Result<Channel, AuthorityError> {
        match self {
            Self::Unix(path) => connect_unix(path).await,
            Self::Tls(authority) => authority.open(None, now).await,
        }
    }

    /// A new connection, for calls of any service that it has. `held` is what the workload holds already.
    pub(crate) async fn connect(
        &self,
        held: Option<&Svid>,
        now: SystemTime,
    ) -> Result<(Channel, Shown), AuthorityError> {
        match self {
            Self::Unix(path) => Ok((connect_unix(path).await?, Shown(None))),
            Self::Tls(authority) => authority.connect(held, now).await,
        }
    }
}

async fn connect_unix(path: &Path) -> Result<Channel, AuthorityError> {
    let socket = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The authority of the URI is never looked up; HTTP/2 only wants one.
    let connected = Endpoint::from_static("http://ca")
        .connect_with_connector(connector)
        .await;
    connected.map_err(|error| AuthorityError::Unreachable(path.display().to_string(), chain(&error)))
}

impl TlsAuthority {
    async fn connect(
        &self,
        held: Option<&Svid>,
        now: SystemTime,
    ) -> Result<(Channel, Shown), AuthorityError> {
        let (certificate, token) = self.proof(held, now)?;
        Ok((self.open(certificate, now).await?, Shown(token)))
    }

    async fn open(
        &self,
        certificate: Option<TlsCertificate>,
        now: SystemTime,
    ) -> Result<Channel, AuthorityError> {
        let context = Arc::new(self.context(certificate, now)?);
        let address = self.address.clone();
        let connector = tower::service_fn(move |_| {
            let (context, address) = (Arc::clone(&context), address.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let connected = context.connect(stream, ConnectOptions::default()).await;
                let (stream, _) = connected.map_err(|error| io::Error::other(error.to_string()))?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let unreachable = |why: String| AuthorityError::Unreachable(self.address.clone(), why);
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| unreachable(error.to_string()))?;
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map_err(|error| unreachable(chain(&error)))
    }

    /// What this request is proven with.
    fn proof(
        &self,
        held: Option<&Svid>,
        now: SystemTime,
    ) -> Result<(Option<TlsCertificate>, Option<Token>), AuthorityError> {
        let held = held.filter(|held| now <= held.expires());
        match &self.proof {
            Proof::Token(path) => match (token(path, now), held) {
                // Outside of Kubernetes nobody may replace the token in time. A certificate that still holds proves its
                // own renewal, then.
                (Err(_) | Ok((_, Freshness::Expired)), Some(held)) => Ok((Some(shown_by(held)?), None)),
                (Err(error), None) => Err(AuthorityError::Proof(path.clone(), error)),
                (Ok((token, _)), _) => Ok((None, Some(token))),
            },
            Proof::Certificate { chain, key } => {
                if let Some(held) = held {
                    return Ok((Some(shown_by(held)?), None));
                }
                let read = |path: &PathBuf| {
                    read(path, MAX_SECRET_FILE_BYTES)
                        .map_err(|error| AuthorityError::Proof(path.clone(), error))
                };
                let (chain, key) = (read(chain)?, read(key)?);
                Ok((Some(shown(chain.to_vec(), &key)), None))
            }
        }
    }

    fn context(
        &self,
        certificate: Option<TlsCertificate>,
        now: SystemTime,
    ) -> Result<ClientContext, AuthorityError> {
        context(&self.server_name, &roots::read(&self.roots)?, certificate, now)
    }
}

/// Whether a token is worth showing.
enum Freshness {
    /// As far as it can be seen.
    Fresh,
    /// It says itself that it is over.
    Expired,
}

/// Reads a token, and what it says of its end.
fn token(path: &Path, now: SystemTime) -> io::Result<(Token, Freshness)> {
    let bytes = read(path, MAX_TOKEN_BYTES)?;
    let text = String::from_utf8_lossy(bytes.trim_ascii());
    // What is read of it decides only what is shown; whether it is good is for the authority to say.
    let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&*text);
    let ends = claims.ok().and_then(|token| token.claims["exp"].as_u64());
    // An end that no clock reaches is no end.
    let ends = ends.and_then(|ends| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends)));
    let expired = ends.is_some_and(|ends| ends <= now);
    let mut value: Token = format!("Bearer {text}")
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    value.set_sensitive(true);
    let freshness = if expired {
        Freshness::Expired
    } else {
        Freshness::Fresh
    };
    Ok((value, freshness))
}

/// TLS towards a control plane of this name that leads to these roots.
pub(crate) fn context(
    server_name: &str,
    roots: &[Certificate],
    certificate: Option<TlsCertificate>,
    now: SystemTime,
) -> Result<ClientContext, AuthorityError> {
    let roots: String = roots.iter().map(Certificate::pem).collect();
    let settings = UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: TlsParameters {
                minimum_version: Some(TlsVersion::V1_2),
                maximum_version: Some(TlsVersion::V1_3),
                ..TlsParameters::default()
            },
            tls_certificates: certificate.into_iter().collect(),
            alpn_protocols: vec!["h2".to_owned()],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(roots.into_bytes()),
                ..CertificateValidationContext::default()
            }),
        },
        sni: server_name.to_owned(),
        auto_sni_san_validation: true,
        ..UpstreamTlsContext::default()
    };
    ClientContext::new(&settings, now).map_err(|error| AuthorityError::Settings(error.to_string()))
}

/// A certificate as a peer is shown it.
pub(crate) fn shown_by(svid: &Svid) -> Result<TlsCertificate, AuthorityError> {
    let key = svid.key().to_pem().map_err(|_| AuthorityError::NoProof)?;
    Ok(shown(svid.chain_pem().into_bytes(), key.as_bytes()))
}

fn shown(chain: Vec<u8>, key: &[u8]) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: chain,
        private_key: Secret::new(key),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn freshness(ends: &str) -> Freshness {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("istio-token");
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = part(&format!("{{\"exp\":{ends}}}"));
        let written = format!("{}.{claims}.{}", part("{\"alg\":\"RS256\"}"), part("signature"));
        std::fs::write(&path, written).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        token(&path, now).unwrap().1
    }

    #[test]
    fn a_token_says_whether_it_is_over_and_one_that_never_ends_is_fresh() {
        assert!(matches!(freshness("1800000000"), Freshness::Expired));
        assert!(matches!(freshness("1800000001"), Freshness::Fresh));
        assert!(matches!(freshness(&u64::MAX.to_string()), Freshness::Fresh));
    }
}
