//! `istio.v1.auth.IstioCertificateService`: a signing request in, a chain out.

use std::sync::Arc;
use std::time::SystemTime;

use api_envoy::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use api_envoy::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use arc_swap::ArcSwap;
use identity::{CertificateRequest, SubjectName};
use prost_types::value::Kind;
use telemetry::logging::chain;
use tonic::{Code, Request as Call, Response, Status};

use crate::authenticate::{Authenticator, Credentials, authenticate};
use crate::authorise::{Caller, Denied, Inventory, Request, Rules, authorise};
use crate::authority::Authority;
use crate::limits::MAX_CALL_BYTES;
use crate::metrics::Metrics;
use crate::sign::{Issued, Lifetimes, SignError};

/// The key of the call's metadata under which a node's proxy names whom it asks for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// What istiod says to whom it does not know.
const NOT_AUTHENTICATED: &str = "request authenticate failure";

/// What the service works with. What is behind an [`ArcSwap`] may be replaced while it runs; a call sees one state of it.
pub struct Settings {
    /// Who signs.
    pub authority: Arc<ArcSwap<Authority>>,
    /// Who may have what.
    pub rules: Arc<ArcSwap<Rules>>,
    /// What runs where.
    pub inventory: Arc<dyn Inventory>,
    /// How callers prove who they are, in the order in which they are asked.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// How long leaves are valid.
    pub lifetimes: Lifetimes,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Now.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// The service. Signing runs on the caller's thread: it takes some ten microseconds, a millisecond with an RSA key.
pub struct CertificateService(Settings);

/// Why a call fails.
enum Failure {
    Denied(Denied),
    Sign(SignError),
}

impl CertificateService {
    /// The service as tonic's server takes it, with its limit on the size of calls.
    pub fn server(settings: Settings) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(Self(settings)).max_decoding_message_size(MAX_CALL_BYTES)
    }

    fn issue(&self, caller: &Caller, request: &IstioCertificateRequest) -> Result<Issued, Failure> {
        let Settings { authority, rules, .. } = &self.0;
        let asked = Request {
            identity: impersonated(request).to_owned(),
        };
        let identities =
            authorise(caller, &asked, &rules.load(), self.0.inventory.as_ref()).map_err(Failure::Denied)?;
        let names: Vec<SubjectName> = identities
            .iter()
            .map(|id| SubjectName::Uri(id.to_string()))
            .collect();
        let sign = || {
            let lifetime = self.0.lifetimes.grant(request.validity_duration)?;
            let request = CertificateRequest::from_pem(request.csr.as_bytes())?;
            authority
                .load()
                .sign(&request, &names, lifetime, (self.0.clock)())
        };
        sign().map_err(Failure::Sign)
    }

    /// Counts and logs the failure, and says what the caller may know: what is wrong with the request, but not why
    /// an identity is refused.
    fn refuse(&self, caller: &Caller, request: &IstioCertificateRequest, failure: &Failure) -> Status {
        match failure {
            Failure::Denied(denied) if denied.is_authentication() => {
                self.0.metrics.authentication_failed();
                tracing::warn!(?caller, reason = %chain(denied), "a caller may not have this identity");
                Status::unauthenticated(if impersonated(request).is_empty() {
                    NOT_AUTHENTICATED
                } else {
                    "request impersonation authentication failure"
                })
            }
            Failure::Denied(denied) => {
                self.0.metrics.identity_denied();
                tracing::warn!(?caller, reason = %chain(denied), "a caller may not have this identity");
                Status::permission_denied("the caller may not have this identity")
            }
            Failure::Sign(error) => {
                self.0.metrics.signing_failed(error);
                tracing::warn!(?caller, reason = %chain(error), "a signing request was refused");
                Status::new(code(error), format!("CSR signing error ({})", chain(error)))
            }
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        call: Call<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let metrics = &self.0.metrics;
        metrics.requested();
        let (metadata, extensions, request) = call.into_parts();
        let credentials = Credentials {
            metadata: &metadata,
            extensions: &extensions,
        };
        let caller = authenticate(&self.0.authenticators, credentials)
            .await
            .map_err(|refusals| {
                metrics.authentication_failed();
                tracing::warn!(reason = %refusals, "a caller is not authenticated");
                Status::unauthenticated(NOT_AUTHENTICATED)
            })?;
        let issued = self
            .issue(&caller, &request)
            .map_err(|failure| self.refuse(&caller, &request, &failure))?;
        let expires = issued.not_after();
        let cert_chain = issued
            .into_pem_chain()
            .map_err(|e| Status::internal(e.to_string()))?;
        metrics.succeeded();
        tracing::debug!(?caller, ?expires, "a certificate was issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// The codes that istiod uses.
fn code(error: &SignError) -> Code {
    match error {
        SignError::Request(_) | SignError::WantsAuthority | SignError::Lifetime(_) => Code::InvalidArgument,
        SignError::Names(_) | SignError::Name(_) | SignError::Expired | SignError::Generation(_) => {
            Code::Internal
        }
    }
}

fn impersonated(request: &IstioCertificateRequest) -> &str {
    let value = request
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.fields.get(IMPERSONATED_IDENTITY))
        .and_then(|value| value.kind.as_ref());
    match value {
        Some(Kind::StringValue(identity)) => identity,
        _ => "",
    }
}
