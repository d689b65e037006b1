//! Tokens of an issuer that is not Kubernetes: who is believed.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use common::now;
use control_ca::{Authenticator, Caller, Credentials, IssuerKeys, NotAuthenticated, OidcError, OidcTokens};
use identity::{KeyKind, PrivateKey};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonic::Extensions;
use tonic::metadata::MetadataMap;

const ISSUER: &str = "https://issuer.example";
const SUBJECT: &str = "system:serviceaccount:default:reviews";

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// A key of an issuer, and what it publishes of it.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    public: Jwk,
}

impl Signer {
    fn new(kind: KeyKind, algorithm: Algorithm, id: &str) -> Self {
        let private = PrivateKey::generate(kind).expect("a key");
        let der = private.to_pkcs8_der().expect("DER");
        let key = match kind {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => EncodingKey::from_ec_der(&der),
            _ => EncodingKey::from_rsa_der(&pkcs1(&der)),
        };
        let mut public = Jwk::from_encoding_key(&key, algorithm).expect("a public key");
        public.common.key_id = Some(id.to_owned());
        Self {
            key,
            algorithm,
            public,
        }
    }

    fn keys(&self) -> IssuerKeys {
        let set = JwkSet {
            keys: vec![self.public.clone()],
        };
        IssuerKeys::from_json(&serde_json::to_vec(&set).expect("JSON")).expect("keys")
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.public.common.key_id.clone();
        jsonwebtoken::encode(&header, claims, &self.key).expect("a token")
    }
}

/// The RSA key inside PKCS #8 begins after a fixed head: version, algorithm, and the head of an octet string.
fn pkcs1(pkcs8: &[u8]) -> Vec<u8> {
    pkcs8[26..].to_vec()
}

fn claims(now: SystemTime) -> Value {
    json!({
        "iss": ISSUER, "aud": ["other", "istio-ca"], "sub": SUBJECT,
        "exp": seconds(now) + 60, "nbf": seconds(now),
    })
}

fn caller() -> Caller {
    Caller::OidcToken {
        issuer: ISSUER.to_owned(),
        audiences: vec!["other".to_owned(), "istio-ca".to_owned()],
        subject: SUBJECT.to_owned(),
    }
}

#[test]
fn a_token_of_the_issuer_says_who_the_caller_is() {
    let now = now();
    for (kind, algorithm) in [
        (KeyKind::EcdsaP256, Algorithm::ES256),
        (KeyKind::EcdsaP384, Algorithm::ES384),
        (KeyKind::Rsa2048, Algorithm::RS256),
        (KeyKind::Rsa2048, Algorithm::PS256),
    ] {
        let signer = Signer::new(kind, algorithm, "one");
        let said = signer.keys().verify(&signer.sign(&claims(now)), now);
        assert_eq!(said, Ok(caller()), "{algorithm:?}");
    }
    let signer = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    let mut single = claims(now);
    single["aud"] = "istio-ca".into();
    let said = signer.keys().verify(&signer.sign(&single), now);
    assert!(matches!(said, Ok(Caller::OidcToken { audiences, .. }) if audiences == ["istio-ca"]));
}

#[test]
fn time_counts_by_our_clock() {
    let now = now();
    let signer = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    let keys = signer.keys();
    let token = signer.sign(&claims(now));
    let hour = Duration::from_secs(3600);
    assert_eq!(keys.verify(&token, now + Duration::from_secs(59)), Ok(caller()));
    assert_eq!(
        keys.verify(&token, now + Duration::from_secs(60)),
        Err(OidcError::Expired)
    );
    assert_eq!(keys.verify(&token, now - hour), Err(OidcError::NotYet));
    let mut endless = claims(now);
    endless.as_object_mut().expect("claims").remove("exp");
    assert_eq!(keys.verify(&signer.sign(&endless), now), Err(OidcError::Expired));
}

#[test]
fn nobody_else_is_believed() {
    let now = now();
    let signer = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    let keys = signer.keys();
    let stranger = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    assert_eq!(
        keys.verify(&stranger.sign(&claims(now)), now),
        Err(OidcError::Signature)
    );
    let other_id = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "two");
    assert_eq!(
        keys.verify(&other_id.sign(&claims(now)), now),
        Err(OidcError::Signature)
    );
    // The public key as a shared secret: what anybody could sign with who knows the public key.
    let public = serde_json::to_vec(&signer.public).expect("JSON");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".to_owned());
    let shared = jsonwebtoken::encode(&header, &claims(now), &EncodingKey::from_secret(&public));
    assert_eq!(
        keys.verify(&shared.expect("a token"), now),
        Err(OidcError::Algorithm)
    );
    let mut critical = Header::new(Algorithm::ES256);
    critical.kid = Some("one".to_owned());
    critical.crit = Some(vec!["exp".to_owned()]);
    let critical = jsonwebtoken::encode(&critical, &claims(now), &signer.key).expect("a token");
    assert_eq!(keys.verify(&critical, now), Err(OidcError::Critical));
    let token = signer.sign(&claims(now));
    let mut parts = token.split('.');
    let (_, payload) = (parts.next(), parts.next().expect("claims"));
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    assert!(matches!(keys.verify(&unsigned, now), Err(OidcError::Damaged(_))));
    for damaged in ["", "a.b.c", payload, &token[..token.len() - 8]] {
        assert!(keys.verify(damaged, now).is_err(), "{damaged}");
    }
    let mut nobody = claims(now);
    nobody["sub"] = "".into();
    assert_eq!(
        keys.verify(&signer.sign(&nobody), now),
        Err(OidcError::Missing("sub"))
    );
}

#[test]
fn keys_that_prove_nothing_are_no_keys() {
    let secret = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]});
    let read = |json: &Value| IssuerKeys::from_json(json.to_string().as_bytes()).map(|_| ());
    assert_eq!(read(&secret), Err(OidcError::NoKeys));
    assert_eq!(read(&json!({"keys": []})), Err(OidcError::NoKeys));
    assert!(matches!(read(&json!({})), Err(OidcError::Keys(_))));
    let signer = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    let mut encrypts = serde_json::to_value(&signer.public).expect("JSON");
    encrypts["use"] = "enc".into();
    assert_eq!(read(&json!({"keys": [encrypts]})), Err(OidcError::NoKeys));
    let many = vec![serde_json::to_value(&signer.public).expect("JSON"); 100];
    assert_eq!(read(&json!({"keys": many})), Err(OidcError::TooManyKeys(100)));
}

async fn ask(tokens: &OidcTokens, token: Option<&str>) -> Result<Option<Caller>, NotAuthenticated> {
    let mut metadata = MetadataMap::new();
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        metadata.insert("authorization", value);
    }
    let extensions = Extensions::new();
    let credentials = Credentials {
        metadata: &metadata,
        extensions: &extensions,
    };
    tokens.authenticate(credentials).await
}

#[tokio::test]
async fn tokens_of_other_issuers_are_left_to_others() {
    let now = now();
    let signer = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    let keys = Arc::new(ArcSwap::from_pointee(None));
    let tokens = OidcTokens::new(ISSUER.to_owned(), Arc::clone(&keys), Arc::new(move || now));
    let token = signer.sign(&claims(now));
    assert!(ask(&tokens, Some(&token)).await.is_err(), "there are no keys yet");
    keys.store(Arc::new(Some(signer.keys())));
    assert_eq!(ask(&tokens, Some(&token)).await, Ok(Some(caller())));
    assert_eq!(ask(&tokens, None).await, Ok(None));
    let mut other = claims(now);
    other["iss"] = "https://kubernetes.default.svc".into();
    assert_eq!(ask(&tokens, Some(&signer.sign(&other))).await, Ok(None));
    let stranger = Signer::new(KeyKind::EcdsaP256, Algorithm::ES256, "one");
    assert!(ask(&tokens, Some(&stranger.sign(&claims(now)))).await.is_err());
}
