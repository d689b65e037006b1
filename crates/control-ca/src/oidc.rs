//! Callers with a JSON Web Token of somebody else than Kubernetes (OpenID Connect): a workload outside of a cluster, whose
//! platform says who it is.
//!
//! What the signature proves is decided here; whether the issuer, the audience and the subject are worth an identity, by
//! [`crate::authorise`]. Only signatures with public keys count: a key that both sides know would let the issuer's other
//! clients make tokens. Sources: RFC 7515, RFC 7517, RFC 7519; istiod's `security/pkg/server/ca/authenticate/oidc.go`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::Value;

use crate::authenticate::{Authenticator, Credentials, NotAuthenticated, bearer_token};
use crate::authorise::Caller;
use crate::limits::{MAX_ISSUER_KEYS, MAX_JWT_BYTES, NOT_BEFORE_LEEWAY};

/// The public keys of an issuer (JWKS). `Debug` shows how many.
pub struct IssuerKeys(Vec<IssuerKey>);

struct IssuerKey {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<String>,
    key: DecodingKey,
}

impl std::fmt::Debug for IssuerKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "IssuerKeys({})", self.0.len())
    }
}

/// Why keys or a token are refused. Nothing of the token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The keys cannot be read.
    #[error("the issuer's keys: {0}")]
    Keys(String),
    /// There is no key for signatures among them.
    #[error("the issuer's keys have none for signatures with RSA, ECDSA or EdDSA")]
    NoKeys,
    /// There are too many.
    #[error("the issuer has {0} keys, more than {MAX_ISSUER_KEYS}")]
    TooManyKeys(usize),
    /// The token is no signed JWT.
    #[error("the JWT is damaged: {0}")]
    Damaged(String),
    /// The token is signed with a key that both sides know, or not at all.
    #[error("the JWT's algorithm is not one of public keys")]
    Algorithm,
    /// Its header demands something that nobody here understands.
    #[error("the JWT's header demands something that is not understood here (crit)")]
    Critical,
    /// Nobody knows its key.
    #[error("the JWT was not signed by any of the issuer's keys")]
    Signature,
    /// It says nothing about its end, or has ended.
    #[error("the JWT has expired, or does not say when it does")]
    Expired,
    /// It is for later.
    #[error("the JWT is not valid yet")]
    NotYet,
    /// It lacks a claim.
    #[error("the JWT has no {0}")]
    Missing(&'static str),
}

impl IssuerKeys {
    /// Reads a JSON Web Key Set. Keys for other purposes and of other kinds are passed over.
    ///
    /// # Errors
    /// When it is none, or no usable key is in it, or too many keys are.
    pub fn from_json(text: &[u8]) -> Result<Self, OidcError> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|error| OidcError::Keys(error.to_string()))?;
        if set.keys.len() > MAX_ISSUER_KEYS {
            return Err(OidcError::TooManyKeys(set.keys.len()));
        }
        let keys: Vec<IssuerKey> = set.keys.iter().filter_map(usable).collect();
        match keys.is_empty() {
            true => Err(OidcError::NoKeys),
            false => Ok(Self(keys)),
        }
    }

    /// What a token says, if one of these keys signed it and it is valid at `now`.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Caller, OidcError> {
        let damaged = |error: jsonwebtoken::errors::Error| OidcError::Damaged(error.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(damaged)?;
        if AlgorithmFamily::Hmac.algorithms().contains(&header.alg) {
            return Err(OidcError::Algorithm);
        }
        // Whoever does not understand all that it names must refuse (RFC 7515, section 4.1.11), and nothing is understood.
        if header.crit.is_some() {
            return Err(OidcError::Critical);
        }
        let mut validation = Validation::new(header.alg);
        // Time is judged below, by our clock; issuer, audience and subject by `authorise`.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let named = |key: &&IssuerKey| header.kid.is_none() || key.id.is_none() || header.kid == key.id;
        let candidates = self.0.iter().filter(named).filter(|key| key.fits(header.alg));
        let mut verified =
            candidates.filter_map(|key| jsonwebtoken::decode::<Value>(token, &key.key, &validation).ok());
        let claims = verified.next().ok_or(OidcError::Signature)?.claims;
        check_time(&claims, now)?;
        let text = |name: &'static str| match claims[name].as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(OidcError::Missing(name)),
        };
        Ok(Caller::OidcToken {
            issuer: text("iss")?,
            audiences: audiences(&claims["aud"]),
            subject: text("sub")?,
        })
    }
}

impl IssuerKey {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let family = self.key.family();
        let own = self.algorithm.as_ref();
        family.algorithms().contains(&algorithm) && own.is_none_or(|own| *own == format!("{algorithm:?}"))
    }
}

fn usable(key: &Jwk) -> Option<IssuerKey> {
    let secret = matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
    let signs = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let decoding = DecodingKey::from_jwk(key).ok().filter(|_| signs && !secret)?;
    Some(IssuerKey {
        id: key.common.key_id.clone(),
        algorithm: key.common.key_algorithm.map(|algorithm| format!("{algorithm:?}")),
        key: decoding,
    })
}

/// `exp` must be there, and has no leeway; `nbf` has some, because clocks differ.
fn check_time(claims: &Value, now: SystemTime) -> Result<(), OidcError> {
    let moment = |name: &str| {
        let seconds = Duration::try_from_secs_f64(claims[name].as_f64()?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    if moment("exp").is_none_or(|expires| now >= expires) {
        return Err(OidcError::Expired);
    }
    if claims["nbf"].is_null() {
        return Ok(());
    }
    match moment("nbf") {
        Some(begins) if begins <= now + NOT_BEFORE_LEEWAY => Ok(()),
        _ => Err(OidcError::NotYet),
    }
}

/// One audience, or a list of them.
fn audiences(claim: &Value) -> Vec<String> {
    let one = claim.as_str().into_iter();
    let several = claim.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(several).map(str::to_owned).collect()
}

/// Authenticates by JWTs of one issuer. Tokens of others are left to others.
pub struct OidcTokens {
    issuer: String,
    keys: Arc<ArcSwap<Option<IssuerKeys>>>,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl OidcTokens {
    /// The keys may be replaced while it runs; as long as there are none, nobody is believed.
    #[must_use]
    pub fn new(
        issuer: String,
        keys: Arc<ArcSwap<Option<IssuerKeys>>>,
        clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Self {
        Self { issuer, keys, clock }
    }

    fn caller(&self, token: &str) -> Result<Option<Caller>, NotAuthenticated> {
        if token.len() > MAX_JWT_BYTES {
            let why = format!("a token of {} bytes is too long", token.len());
            return Err(NotAuthenticated(why));
        }
        // What is read before the signature decides only who looks at the token.
        let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token);
        if !claims.is_ok_and(|token| token.claims["iss"] == self.issuer.as_str()) {
            return Ok(None);
        }
        let keys = self.keys.load();
        let Some(keys) = keys.as_ref() else {
            return Err(NotAuthenticated("the issuer's keys are not known".to_owned()));
        };
        let caller = keys.verify(token, (self.clock)());
        caller
            .map(Some)
            .map_err(|error| NotAuthenticated(error.to_string()))
    }
}

impl Authenticator for OidcTokens {
    fn name(&self) -> &'static str {
        "OIDC token"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        let token = bearer_token(credentials.metadata);
        let caller = token.map_or(Ok(None), |token| self.caller(token));
        Box::pin(std::future::ready(caller))
    }
}
