//! The five methods of the Workload API.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_envoy::wkt;
use api_spiffe::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use api_spiffe::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse,
};
use identity::{Certificate, ServiceAccount};
use telemetry::logging::chain;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::Inner;
use super::bundle::Bundle;
use super::connections::Caller;
use super::identities::Identity;
use super::spire::{self, SpireError};
use super::token;
use crate::certificates::Held;
use crate::limits::{
    ATTESTATION_INTERVAL, ATTESTATION_TIMEOUT, FIRST_IDENTITY_TIMEOUT, MAX_AUDIENCE_BYTES, MAX_AUDIENCES,
};

/// The metadata that every call must have, so that no program can be made to call by a URL alone.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// The service.
#[derive(Clone)]
pub(super) struct WorkloadApi(pub(super) Arc<Inner>);

/// What one caller may have.
#[derive(Clone)]
struct Entitled {
    caller: Caller,
    accounts: Vec<ServiceAccount>,
    identities: Vec<Arc<Identity>>,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

impl WorkloadApi {
    /// Who calls, and what that process may have.
    async fn entitle<T>(&self, request: &Request<T>) -> Result<Entitled, Status> {
        let header = request.metadata().get(SECURITY_HEADER);
        if header.is_none_or(|value| value != "true") {
            let why = format!("the metadata {SECURITY_HEADER}: true is missing");
            return Err(Status::invalid_argument(why));
        }
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("nobody says who calls"))?;
        let accounts = self.accounts(&caller).await;
        if accounts.is_empty() {
            let peer = &caller.peer;
            tracing::warn!(
                pid = peer.pid,
                uid = peer.uid,
                "a process that is no workload asks for an identity"
            );
            return Err(Status::permission_denied("no identity issued"));
        }
        let identities: Option<Vec<_>> = accounts
            .iter()
            .map(|account| self.0.identities.of(account))
            .collect();
        let identities = identities.ok_or_else(|| Status::resource_exhausted("too many identities"))?;
        Ok(Entitled {
            caller,
            accounts,
            identities,
        })
    }

    /// The accounts of a process. One that has just been started may be known a moment later.
    async fn accounts(&self, caller: &Caller) -> Vec<ServiceAccount> {
        let looking = async {
            let _attesting = caller.attesting.lock().await;
            loop {
                let accounts = self.0.workloads.of(&caller.peer);
                // What was found out about a number was about this process only if it has not ended meanwhile.
                if !caller.peer.is_alive() {
                    return Vec::new();
                }
                if !accounts.is_empty() {
                    return accounts;
                }
                tokio::time::sleep(ATTESTATION_INTERVAL).await;
            }
        };
        let looked = tokio::time::timeout(ATTESTATION_TIMEOUT, looking).await;
        looked.unwrap_or_default()
    }

    /// Whether the process is still what it was. A registration may have been taken back.
    fn still(&self, entitled: &Entitled) -> Result<(), Status> {
        match self.0.workloads.of(&entitled.caller.peer) == entitled.accounts {
            true => Ok(()),
            false => Err(Status::unavailable("the caller's identities have changed")),
        }
    }

    /// The certificates, once all are there, and the bundle, once it is known what was revoked.
    async fn ready(&self, entitled: &Entitled) -> Result<(Vec<Arc<Held>>, Arc<Bundle>), Status> {
        let mut generation = self.0.generation.subscribe();
        let waiting = async {
            loop {
                let revoked = self.0.revoked.borrow().is_some();
                let bundle = self.0.bundle.borrow().clone().filter(|_| revoked);
                if let (Some(held), Some(bundle)) = (held(entitled), bundle) {
                    return (held, bundle);
                }
                if generation.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let waited = tokio::time::timeout(FIRST_IDENTITY_TIMEOUT, waiting).await;
        waited.map_err(|_| {
            let states = entitled.identities.iter().map(|identity| identity.state());
            let failure = states.filter_map(|state| state.failure).next();
            tracing::warn!(?failure, "a workload waits in vain for its certificate");
            Status::unavailable("the identity is not there yet")
        })
    }

    /// Answers now, and again whenever the answer is another one.
    async fn stream<T>(
        &self,
        entitled: Entitled,
        answer: impl Fn(&[Arc<Held>], &Bundle) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<Answers<T>>, Status>
    where
        T: Clone + PartialEq + Send + Sync + 'static,
    {
        let mut generation = self.0.generation.subscribe();
        let (held, bundle) = self.ready(&entitled).await?;
        let (sender, receiver) = mpsc::channel(1);
        let first = answer(&held, &bundle)?;
        let this = self.clone();
        tokio::spawn(async move {
            let mut last = first.clone();
            if sender.send(Ok(first)).await.is_err() {
                return;
            }
            loop {
                tokio::select! {
                    changed = generation.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
                let next = match (this.still(&entitled), this.ready(&entitled).await) {
                    (Err(status), _) | (Ok(()), Err(status)) => Err(status),
                    (Ok(()), Ok((held, bundle))) => answer(&held, &bundle),
                };
                match next {
                    Ok(next) if next == last => {}
                    Ok(next) => {
                        last.clone_from(&next);
                        if sender.send(Ok(next)).await.is_err() {
                            return;
                        }
                    }
                    // A caller that has gone away does not need to hear it.
                    Err(status) => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// A token of one identity, from those that are kept or from the control plane.
    async fn token(&self, held: &Held, audiences: &[String]) -> Result<Jwtsvid, Status> {
        let (inner, id) = (&self.0, held.svid.id());
        let now = (inner.settings.clock)();
        let token = match inner.tokens.get(id, audiences, now) {
            Some(token) => token,
            None => {
                let asked = spire::token(&inner.settings, &held.svid, audiences).await;
                let token = asked.map_err(|error| not_given(&error))?;
                inner.tokens.put(id, audiences, token.clone(), now);
                token
            }
        };
        Ok(Jwtsvid {
            spiffe_id: id.to_string(),
            svid: token.text,
            hint: String::new(),
        })
    }
}

/// Every certificate of a caller; `None` while one is missing.
fn held(entitled: &Entitled) -> Option<Vec<Arc<Held>>> {
    let states = entitled.identities.iter().map(|identity| identity.state());
    states.map(|state| state.held).collect()
}

/// Says why the control plane gives no token, which is its log's business, too.
fn not_given(error: &SpireError) -> Status {
    tracing::warn!(error = %chain(error), "a workload gets no token");
    match error {
        SpireError::Refused(Code::PermissionDenied | Code::Unauthenticated, _) => {
            Status::permission_denied("the control plane does not give this token")
        }
        SpireError::Refused(Code::InvalidArgument, why) => Status::invalid_argument(why.clone()),
        _ => Status::unavailable("the control plane gives no token"),
    }
}

fn check_audiences(audiences: &[String]) -> Result<(), Status> {
    let wrong = |audience: &String| audience.is_empty() || audience.len() > MAX_AUDIENCE_BYTES;
    if audiences.is_empty() || audiences.len() > MAX_AUDIENCES || audiences.iter().any(wrong) {
        return Err(Status::invalid_argument(format!(
            "1 to {MAX_AUDIENCES} audiences of 1 to {MAX_AUDIENCE_BYTES} bytes each are expected"
        )));
    }
    Ok(())
}

/// The roots of the bundle, and those that came with a certificate, in DER one after the other.
fn roots<'r>(bundle: &'r Bundle, held: impl Iterator<Item = &'r Held>) -> Vec<u8> {
    let mut roots: Vec<&Certificate> = bundle.roots.iter().collect();
    for root in held.flat_map(|held| &held.roots) {
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots.iter().flat_map(|root| root.der()).copied().collect()
}

fn x509(held: &Held, bundle: &Bundle) -> Result<X509svid, Status> {
    let key = held.svid.key().to_pkcs8_der();
    let key = key.map_err(|error| Status::internal(error.to_string()))?;
    let chain: Vec<u8> = held.svid.chain().flat_map(Certificate::der).copied().collect();
    Ok(X509svid {
        spiffe_id: held.svid.id().to_string(),
        x509_svid: chain.into(),
        x509_svid_key: key.to_vec().into(),
        bundle: roots(bundle, std::iter::once(held)).into(),
        hint: String::new(),
    })
}

/// The key under which the bundle of a trust domain is in answers: its SPIFFE id.
fn domain_id(bundle: &Bundle) -> String {
    format!("spiffe://{}", bundle.domain)
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let entitled = self.entitle(&request).await?;
        let revoked = self.0.revoked.clone();
        let answer = move |held: &[Arc<Held>], bundle: &Bundle| {
            let svids = held.iter().map(|held| x509(held, bundle));
            Ok(X509svidResponse {
                svids: svids.collect::<Result<_, Status>>()?,
                crl: revoked.borrow().clone().unwrap_or_default(),
                federated_bundles: BTreeMap::new(),
            })
        };
        self.stream(entitled, answer).await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let entitled = self.entitle(&request).await?;
        let revoked = self.0.revoked.clone();
        let answer = move |held: &[Arc<Held>], bundle: &Bundle| {
            let roots = roots(bundle, held.iter().map(Arc::as_ref));
            Ok(X509BundlesResponse {
                crl: revoked.borrow().clone().unwrap_or_default(),
                bundles: BTreeMap::from([(domain_id(bundle), roots.into())]),
            })
        };
        self.stream(entitled, answer).await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let entitled = self.entitle(&request).await?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        check_audiences(&audience)?;
        let (held, _) = self.ready(&entitled).await?;
        let mut wanted = held.iter().filter(|held| {
            // Nothing in particular is every identity.
            spiffe_id.is_empty() || held.svid.id().to_string() == spiffe_id
        });
        let Some(first) = wanted.next() else {
            tracing::warn!(
                spiffe_id,
                pid = entitled.caller.peer.pid,
                "a workload asks for a token of another"
            );
            return Err(Status::permission_denied(
                "the caller does not have this identity",
            ));
        };
        let mut svids = vec![self.token(first, &audience).await?];
        for held in wanted {
            svids.push(self.token(held, &audience).await?);
        }
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let entitled = self.entitle(&request).await?;
        let answer = |_: &[Arc<Held>], bundle: &Bundle| {
            let set = bundle.key_set.clone().into();
            Ok(JwtBundlesResponse {
                bundles: BTreeMap::from([(domain_id(bundle), set)]),
            })
        };
        self.stream(entitled, answer).await
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let entitled = self.entitle(&request).await?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        check_audiences(std::slice::from_ref(&audience))?;
        let (_, bundle) = self.ready(&entitled).await?;
        let now = (self.0.settings.clock)();
        let validated = token::validate(&svid, &audience, &bundle.domain, &bundle.keys, now);
        let (id, claims) = validated.map_err(|why| Status::invalid_argument(why.to_string()))?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: id.to_string(),
            claims: Some(wkt::structure(&claims)),
        }))
    }
}
