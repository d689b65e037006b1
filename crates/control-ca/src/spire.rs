//! What Istio's certificate service has no word for, in SPIRE's words: a JWT-SVID
//! (`spire.api.server.svid.v1.SVID/MintJWTSVID`), and what the trust domain is verified against
//! (`spire.api.server.bundle.v1.Bundle/GetBundle`). SPIRE's other methods are not served.
//!
//! Whoever may have a certificate of an identity may have a token of it, and nobody else: [`authorise`] decides both.

use std::sync::Arc;
use std::time::SystemTime;

use api_spiffe::spire::api::server::bundle::v1::GetBundleRequest;
use api_spiffe::spire::api::server::bundle::v1::bundle_server::{Bundle as BundleRpc, BundleServer};
use api_spiffe::spire::api::server::svid::v1::svid_server::{Svid as SvidRpc, SvidServer};
use api_spiffe::spire::api::server::svid::v1::{MintJwtsvidRequest, MintJwtsvidResponse};
use api_spiffe::spire::api::types;
use arc_swap::ArcSwap;
use identity::{Certificate, SpiffeId, TrustDomain};
use telemetry::logging::chain;
use tonic::{Request as Call, Response, Status};

use crate::authenticate::{Authenticator, Credentials, authenticate};
use crate::authorise::{Caller, Denied, Inventory, Request, Rules, authorise, identities};
use crate::authority::Authority;
use crate::jwt_keys::{JwtKeys, seconds};
use crate::jwt_svid::{JwtSvid, JwtSvidError};
use crate::limits::{BUNDLE_REFRESH_HINT, MAX_CALL_BYTES};

/// What the services work with. What is behind an [`ArcSwap`] may be replaced while they run.
#[derive(Clone)]
pub struct SpireSettings {
    /// Whose roots are told.
    pub authority: Arc<ArcSwap<Authority>>,
    /// What signs; nothing before there are keys.
    pub keys: Arc<ArcSwap<Option<JwtKeys>>>,
    /// Who may have what.
    pub rules: Arc<ArcSwap<Rules>>,
    /// What runs where.
    pub inventory: Arc<dyn Inventory>,
    /// How callers prove who they are, in the order in which they are asked.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Now.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// The two services.
#[derive(Clone)]
pub struct SpireServices(SpireSettings);

/// Why there is no token.
enum Failure {
    NoId(String),
    Denied(Denied),
    Sign(JwtSvidError),
    NoKeys,
}

impl SpireServices {
    /// The services as tonic's server takes them, with their limit on the size of calls.
    pub fn servers(settings: SpireSettings) -> (SvidServer<Self>, BundleServer<Self>) {
        let services = Self(settings);
        (
            SvidServer::new(services.clone()).max_decoding_message_size(MAX_CALL_BYTES),
            BundleServer::new(services).max_decoding_message_size(MAX_CALL_BYTES),
        )
    }

    fn mint(&self, caller: &Caller, request: &MintJwtsvidRequest) -> Result<(SpiffeId, JwtSvid), Failure> {
        let asked = request.id.clone().unwrap_or_default();
        let domain =
            TrustDomain::new(&asked.trust_domain).map_err(|error| Failure::NoId(error.to_string()))?;
        let id = SpiffeId::new(domain, &asked.path).map_err(|error| Failure::NoId(error.to_string()))?;
        self.allow(caller, &id).map_err(Failure::Denied)?;
        let keys = self.0.keys.load();
        let keys = keys.as_ref().as_ref().ok_or(Failure::NoKeys)?;
        let signed = keys.sign(&id, &request.audience, request.ttl, (self.0.clock)());
        Ok((id, signed.map_err(Failure::Sign)?))
    }

    fn allow(&self, caller: &Caller, id: &SpiffeId) -> Result<(), Denied> {
        let (rules, inventory) = (self.0.rules.load(), self.0.inventory.as_ref());
        // Who proves one identity need not say which; asking for it by name is no asking on behalf of others.
        if identities(caller, &rules, inventory).is_ok_and(|own| own.contains(id)) {
            return Ok(());
        }
        let asked = Request {
            identity: id.to_string(),
        };
        authorise(caller, &asked, &rules, inventory).map(drop)
    }

    fn bundle(&self, mask: &types::BundleMask) -> types::Bundle {
        let now = (self.0.clock)();
        let authority = self.0.authority.load();
        let keys = self.0.keys.load();
        let keys = keys.iter().flat_map(|keys| keys.valid(now));
        let roots = authority.roots().iter().map(|root| types::X509Certificate {
            asn1: Certificate::der(root).to_vec().into(),
            tainted: false,
        });
        let keys = keys.map(|key| types::JwtKey {
            public_key: key.public_key().der().to_vec().into(),
            key_id: key.id().to_owned(),
            expires_at: timestamp(key.expires()),
            tainted: false,
        });
        let hint = i64::try_from(BUNDLE_REFRESH_HINT.as_secs()).unwrap_or(i64::MAX);
        types::Bundle {
            trust_domain: self.0.rules.load().trust_domains.own().to_string(),
            x509_authorities: roots.filter(|_| mask.x509_authorities).collect(),
            jwt_authorities: keys.filter(|_| mask.jwt_authorities).collect(),
            refresh_hint: if mask.refresh_hint { hint } else { 0 },
            sequence_number: 0,
        }
    }
}

#[tonic::async_trait]
impl SvidRpc for SpireServices {
    async fn mint_jwtsvid(
        &self,
        call: Call<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        let (metadata, extensions, request) = call.into_parts();
        let credentials = Credentials {
            metadata: &metadata,
            extensions: &extensions,
        };
        let caller = authenticate(&self.0.authenticators, credentials).await;
        let caller = caller.map_err(|refusals| {
            tracing::warn!(reason = %refusals, "a caller is not authenticated");
            Status::unauthenticated("the caller is not known")
        })?;
        let minted = self.mint(&caller, &request);
        let (id, svid) = minted.map_err(|failure| refuse(&caller, &failure))?;
        tracing::debug!(?caller, %id, audience = ?request.audience, "a token was issued");
        Ok(Response::new(MintJwtsvidResponse {
            svid: Some(types::Jwtsvid {
                token: svid.token,
                id: request.id,
                expires_at: timestamp(svid.expires),
                issued_at: timestamp(svid.issued),
                hint: String::new(),
            }),
        }))
    }
}

#[tonic::async_trait]
impl BundleRpc for SpireServices {
    /// Roots and public keys are no secret, and whoever asks may have to verify before it has an identity.
    async fn get_bundle(&self, call: Call<GetBundleRequest>) -> Result<Response<types::Bundle>, Status> {
        // Without a mask everything is meant.
        let everything = types::BundleMask {
            x509_authorities: true,
            jwt_authorities: true,
            refresh_hint: true,
            sequence_number: true,
        };
        let mask = call.into_inner().output_mask.unwrap_or(everything);
        Ok(Response::new(self.bundle(&mask)))
    }
}

/// Logs the failure, and says what the caller may know: what is wrong with the request, but not why an identity is
/// refused.
fn refuse(caller: &Caller, failure: &Failure) -> Status {
    match failure {
        Failure::NoId(why) => Status::invalid_argument(format!("the id: {why}")),
        Failure::Denied(denied) => {
            tracing::warn!(?caller, reason = %chain(denied), "a caller may not have a token of this identity");
            Status::permission_denied("the caller may not have this identity")
        }
        Failure::Sign(JwtSvidError::NoKey) | Failure::NoKeys => {
            tracing::error!("there is no key that signs tokens");
            Status::unavailable("there is no key that signs tokens")
        }
        Failure::Sign(error @ (JwtSvidError::Key(_) | JwtSvidError::Signature)) => {
            tracing::error!(reason = %chain(error), "a token could not be signed");
            Status::internal("the token could not be signed")
        }
        Failure::Sign(error) => Status::invalid_argument(error.to_string()),
    }
}

fn timestamp(time: SystemTime) -> i64 {
    i64::try_from(seconds(time)).unwrap_or(i64::MAX)
}
