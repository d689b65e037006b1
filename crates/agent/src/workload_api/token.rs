//! JWT-SVIDs: those that were got and are kept for a while, and the verification of others'.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{KeyType, PublicKey, SpiffeId, TrustDomain};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::limits::{MAX_JWT_BYTES, MAX_KEPT_TOKENS, NOT_BEFORE_LEEWAY};

/// A token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) issued: SystemTime,
    pub(super) expires: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Whether at least half of its life is left, as SPIRE's agents want of what they hand out again.
    fn is_fresh(&self, now: SystemTime) -> bool {
        let life = self.expires.duration_since(self.issued).unwrap_or_default();
        now < self.issued + life / 2
    }
}

/// Tokens that were got, so that a caller who asks for each request does not make the control plane sign for each.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, Token>>);

/// Whose token it is and for whom. JSON escapes the line breaks of audiences.
fn name(id: &SpiffeId, audiences: &[String]) -> String {
    format!("{id}\n{}", json!(audiences))
}

impl Tokens {
    /// One that is fresh.
    pub(super) fn get(&self, id: &SpiffeId, audiences: &[String], now: SystemTime) -> Option<Token> {
        let held = self.0.lock();
        let token = held.get(&name(id, audiences))?;
        token.is_fresh(now).then(|| token.clone())
    }

    /// Keeps one. Where there are too many, those that are not fresh go, and then all.
    pub(super) fn put(&self, id: &SpiffeId, audiences: &[String], token: Token, now: SystemTime) {
        let mut held = self.0.lock();
        if held.len() >= MAX_KEPT_TOKENS {
            held.retain(|_, token| token.is_fresh(now));
        }
        if held.len() >= MAX_KEPT_TOKENS {
            held.clear();
        }
        held.insert(name(id, audiences), token);
    }
}

/// A key that verifies tokens.
pub(super) struct VerifyingKey {
    id: String,
    curve: &'static str,
    algorithm: Algorithm,
    x: String,
    y: String,
    key: DecodingKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id)
    }
}

impl VerifyingKey {
    /// `None` for keys that are not elliptic, and for those without an id, which no token could name.
    pub(super) fn new(id: &str, key: &PublicKey) -> Option<Self> {
        let (curve, algorithm) = match key.kind() {
            KeyType::EcdsaP256 => ("P-256", Algorithm::ES256),
            KeyType::EcdsaP384 => ("P-384", Algorithm::ES384),
            KeyType::Rsa { .. } | KeyType::Other(_) => return None,
        };
        let (x, y) = key.coordinates()?;
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        let key = DecodingKey::from_ec_components(&x, &y).ok()?;
        let id = (!id.is_empty()).then(|| id.to_owned())?;
        Some(Self {
            id,
            curve,
            algorithm,
            x,
            y,
            key,
        })
    }
}

/// The keys as a JSON Web Key Set, in SPIFFE's form (`use` says what they verify).
pub(super) fn key_set(keys: &[VerifyingKey]) -> Vec<u8> {
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({
                "kty": "EC", "use": "jwt-svid", "kid": key.id, "crv": key.curve, "x": key.x, "y": key.y,
            })
        })
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

/// Why a token is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Disbelief {
    #[error("a token of more than {MAX_JWT_BYTES} bytes")]
    TooLong,
    #[error("it is no JWT: {0}")]
    Damaged(String),
    #[error("its typ is neither JWT nor JOSE")]
    Type,
    #[error("its header demands something that is not understood here (crit)")]
    Critical,
    #[error("it names no key that is known")]
    Key,
    #[error("its signature is not by the key that it names")]
    Signature,
    #[error("it has expired, or does not say when it does")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it is not for {0:?}")]
    Audience(String),
    #[error("its sub is no SPIFFE id: {0}")]
    Subject(String),
    #[error("it is of another trust domain, {0}")]
    Domain(String),
}

/// Whose token this is and what it says, if it was signed by one of these keys of `domain`, for `audience`, and is
/// valid at `now` (SPIFFE's JWT-SVID standard, section 5).
pub(super) fn validate(
    token: &str,
    audience: &str,
    domain: &TrustDomain,
    keys: &[VerifyingKey],
    now: SystemTime,
) -> Result<(SpiffeId, Value), Disbelief> {
    if token.len() > MAX_JWT_BYTES {
        return Err(Disbelief::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| Disbelief::Damaged(error.to_string()))?;
    if header
        .typ
        .as_deref()
        .is_some_and(|typ| !["JWT", "JOSE"].contains(&typ))
    {
        return Err(Disbelief::Type);
    }
    // Whoever does not understand all that it names must refuse (RFC 7515, section 4.1.11), and nothing is understood.
    if header.crit.is_some() {
        return Err(Disbelief::Critical);
    }
    let named = keys.iter().find(|key| Some(&key.id) == header.kid.as_ref());
    let key = named
        .filter(|key| key.algorithm == header.alg)
        .ok_or(Disbelief::Key)?;
    let mut rules = Validation::new(key.algorithm);
    // Time is judged below, by our clock, and so are audience and subject.
    (rules.validate_exp, rules.validate_aud) = (false, false);
    rules.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Value>(token, &key.key, &rules);
    let claims = decoded.map_err(|_| Disbelief::Signature)?.claims;
    check_time(&claims, now)?;
    if !audiences(&claims["aud"]).any(|one| one == audience) {
        return Err(Disbelief::Audience(audience.to_owned()));
    }
    let subject = claims["sub"].as_str().unwrap_or_default();
    let id: SpiffeId = subject
        .parse()
        .map_err(|_| Disbelief::Subject(subject.to_owned()))?;
    if id.trust_domain() != domain {
        return Err(Disbelief::Domain(id.trust_domain().to_string()));
    }
    Ok((id, claims))
}

fn check_time(claims: &Value, now: SystemTime) -> Result<(), Disbelief> {
    let moment = |name: &str| {
        let seconds = Duration::try_from_secs_f64(claims[name].as_f64()?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    if moment("exp").is_none_or(|expires| now >= expires) {
        return Err(Disbelief::Expired);
    }
    match moment("nbf") {
        Some(begins) if begins > now + NOT_BEFORE_LEEWAY => Err(Disbelief::NotYet),
        None if !claims["nbf"].is_null() => Err(Disbelief::NotYet),
        _ => Ok(()),
    }
}

/// One audience, or a list of them.
fn audiences(claim: &Value) -> impl Iterator<Item = &str> {
    let several = claim.as_array().into_iter().flatten().filter_map(Value::as_str);
    claim.as_str().into_iter().chain(several)
}

#[cfg(test)]
mod tests {
    use identity::{KeyKind, PrivateKey};
    use jsonwebtoken::{EncodingKey, Header};

    use super::*;

    const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    /// An authority, and what it publishes.
    struct Signer {
        key: EncodingKey,
        public: VerifyingKey,
    }

    impl Signer {
        fn new(id: &str) -> Self {
            let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
            Self {
                public: VerifyingKey::new(id, key.public_key()).unwrap(),
                key: EncodingKey::from_ec_der(&key.to_pkcs8_der().unwrap()),
            }
        }

        fn sign(&self, header: &Header, claims: &Value) -> String {
            jsonwebtoken::encode(header, claims, &self.key).unwrap()
        }
    }

    fn header(id: &str) -> Header {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        header
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn claims() -> Value {
        json!({ "sub": REVIEWS, "aud": ["shop", "reports"], "exp": 1_800_000_300 })
    }

    fn checked(signer: &Signer, token: &str) -> Result<(SpiffeId, Value), Disbelief> {
        let domain = TrustDomain::new("cluster.local").unwrap();
        validate(
            token,
            "shop",
            &domain,
            std::slice::from_ref(&signer.public),
            now(),
        )
    }

    #[test]
    fn a_good_token_says_who_its_bearer_is() {
        let signer = Signer::new("one");
        let (id, said) = checked(&signer, &signer.sign(&header("one"), &claims())).unwrap();
        assert_eq!(id.to_string(), REVIEWS);
        assert_eq!(said, claims());
        let mut one_audience = claims();
        one_audience["aud"] = json!("shop");
        assert!(checked(&signer, &signer.sign(&header("one"), &one_audience)).is_ok());
    }

    #[test]
    fn every_bad_token_is_refused_with_its_reason() {
        let (signer, other) = (Signer::new("one"), Signer::new("one"));
        let refused = |token: &str| checked(&signer, token).unwrap_err();
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            refused(&signer.sign(&header("one"), &claims))
        };
        assert_eq!(
            refused(&other.sign(&header("one"), &claims())),
            Disbelief::Signature
        );
        assert_eq!(refused(&signer.sign(&header("two"), &claims())), Disbelief::Key);
        assert_eq!(
            refused(&signer.sign(&Header::new(Algorithm::ES256), &claims())),
            Disbelief::Key
        );
        let mut typed = header("one");
        typed.typ = Some("at+jwt".to_owned());
        assert_eq!(refused(&signer.sign(&typed, &claims())), Disbelief::Type);
        let mut critical = header("one");
        critical.crit = Some(vec!["exp".to_owned()]);
        assert_eq!(refused(&signer.sign(&critical, &claims())), Disbelief::Critical);
        assert_eq!(with("exp", json!(1_800_000_000)), Disbelief::Expired);
        assert_eq!(with("exp", Value::Null), Disbelief::Expired);
        assert_eq!(with("nbf", json!(1_800_100_000)), Disbelief::NotYet);
        assert_eq!(with("nbf", json!("soon")), Disbelief::NotYet);
        assert_eq!(
            with("aud", json!(["else"])),
            Disbelief::Audience("shop".to_owned())
        );
        assert_eq!(
            with("sub", json!("reviews")),
            Disbelief::Subject("reviews".to_owned())
        );
        let foreign = with("sub", json!("spiffe://elsewhere/ns/default/sa/reviews"));
        assert_eq!(foreign, Disbelief::Domain("elsewhere".to_owned()));
        assert!(matches!(refused("a.b"), Disbelief::Damaged(_)));
        assert_eq!(refused(&"a".repeat(MAX_JWT_BYTES + 1)), Disbelief::TooLong);
        let secret = EncodingKey::from_secret(b"known to both");
        let mut symmetric = Header::new(Algorithm::HS256);
        symmetric.kid = Some("one".to_owned());
        let token = jsonwebtoken::encode(&symmetric, &claims(), &secret).unwrap();
        assert_eq!(refused(&token), Disbelief::Key);
    }

    #[test]
    fn a_key_set_says_what_its_keys_are_for() {
        let signer = Signer::new("one");
        let set: Value = serde_json::from_slice(&key_set(&[signer.public])).unwrap();
        let key = &set["keys"][0];
        assert_eq!(
            (&key["use"], &key["kid"], &key["kty"]),
            (&json!("jwt-svid"), &json!("one"), &json!("EC"))
        );
        assert_eq!(key["crv"], "P-256");
        assert_eq!(key["x"].as_str().unwrap().len(), 43);
        assert_eq!(key_set(&[]), br#"{"keys":[]}"#);
    }

    #[test]
    fn a_token_is_handed_out_again_until_half_of_its_life_is_over() {
        let (tokens, id) = (Tokens::default(), REVIEWS.parse().unwrap());
        let shop = ["shop".to_owned()];
        let token = Token {
            text: "token".to_owned(),
            issued: now(),
            expires: now() + Duration::from_secs(300),
        };
        tokens.put(&id, &shop, token.clone(), now());
        assert_eq!(
            tokens.get(&id, &shop, now() + Duration::from_secs(149)),
            Some(token.clone())
        );
        assert_eq!(tokens.get(&id, &shop, now() + Duration::from_secs(150)), None);
        assert_eq!(tokens.get(&id, &["reports".to_owned()], now()), None);
        for number in 0..2 * MAX_KEPT_TOKENS {
            tokens.put(&id, &[number.to_string()], token.clone(), now());
        }
        assert!(tokens.0.lock().len() <= MAX_KEPT_TOKENS);
    }
}
