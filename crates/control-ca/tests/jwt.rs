//! JWT-SVIDs: what is signed, with which key, and who gets it.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_spiffe::spire::api::server::bundle::v1::GetBundleRequest;
use api_spiffe::spire::api::server::bundle::v1::bundle_client::BundleClient;
use api_spiffe::spire::api::server::svid::v1::MintJwtsvidRequest;
use api_spiffe::spire::api::server::svid::v1::svid_client::SvidClient;
use api_spiffe::spire::api::types;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{DAY, HOUR, REVIEWS, now, self_signed, trust_domain};
use control_ca::{
    Inventory, JwtKeys, JwtKeysError, JwtSvidError, PeerCredentials, Pod, Rules, SecretData, SpireServices,
    SpireSettings, UnixPeer,
};
use identity::{PublicKey, ServiceAccount, SpiffeId, TrustDomains};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tonic::Code;
use tonic::service::Routes;

fn reviews() -> SpiffeId {
    REVIEWS.parse().expect("an id")
}

fn audience(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// Reads a token with another's library and a key that is published.
fn verified(token: &str, key: &PublicKey) -> Option<Value> {
    let (x, y) = key.coordinates()?;
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    let key = DecodingKey::from_ec_components(&x, &y).ok()?;
    let mut rules = Validation::new(Algorithm::ES256);
    (rules.validate_exp, rules.validate_aud) = (false, false);
    jsonwebtoken::decode(token, &key, &rules)
        .ok()
        .map(|token| token.claims)
}

fn key_id(token: &str) -> String {
    let header = jsonwebtoken::decode_header(token).expect("a header");
    assert_eq!(
        (header.alg, header.typ.as_deref()),
        (Algorithm::ES256, Some("JWT"))
    );
    header.kid.expect("kid")
}

#[test]
fn a_token_says_who_for_whom_and_until_when() {
    let now = now();
    let keys = JwtKeys::generate(now).expect("keys");
    let signed = keys.sign(&reviews(), &audience("shop"), 0, now).expect("a token");
    let key = keys.signing(now).expect("a key");
    assert_eq!(key_id(&signed.token), key.id());
    let claims = verified(&signed.token, key.public_key()).expect("the key's signature");
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("later")
        .as_secs();
    assert_eq!(claims["sub"], REVIEWS);
    assert_eq!(claims["aud"], serde_json::json!(["shop"]));
    assert_eq!(claims["iat"], since_1970);
    assert_eq!(claims["exp"], since_1970 + 300);
    assert_eq!(signed.expires, now + Duration::from_secs(300));
    let other = JwtKeys::generate(now).expect("keys");
    let other = other.signing(now).expect("a key").public_key().clone();
    assert_eq!(verified(&signed.token, &other), None);
}

#[test]
fn what_is_asked_for_is_bounded() {
    let now = now();
    let keys = JwtKeys::generate(now).expect("keys");
    let refused =
        |audiences: &[String], ttl| keys.sign(&reviews(), audiences, ttl, now).expect_err("refused");
    assert_eq!(refused(&[], 0), JwtSvidError::NoAudience);
    assert_eq!(refused(&audience(""), 0), JwtSvidError::Audience);
    assert_eq!(refused(&audience(&"a".repeat(1000)), 0), JwtSvidError::Audience);
    assert_eq!(refused(&vec!["a".to_owned(); 17], 0), JwtSvidError::Audience);
    assert_eq!(refused(&audience("a"), -1), JwtSvidError::Lifetime(-1));
    let domain: SpiffeId = "spiffe://cluster.local".parse().expect("an id");
    let whole_domain = keys.sign(&domain, &audience("a"), 0, now).expect_err("refused");
    assert_eq!(whole_domain, JwtSvidError::NoWorkload(domain));
    let long = keys
        .sign(&reviews(), &audience("a"), i32::MAX, now)
        .expect("a token");
    assert_eq!(long.expires, now + HOUR);
}

#[test]
fn a_new_key_is_published_before_it_signs_and_the_old_one_until_it_expires() {
    let start = now();
    let first = JwtKeys::generate(start).expect("keys");
    assert_eq!(first.due(start), start + DAY);
    let old = first.signing(start).expect("a key").id().to_owned();
    let both = first.renewed(start + DAY).expect("keys");
    let at = |keys: &JwtKeys, time| keys.signing(time).map(|key| key.id().to_owned());
    assert_eq!(
        at(&both, start + DAY),
        Some(old.clone()),
        "not everybody knows the new one"
    );
    assert_eq!(both.valid(start + DAY).count(), 2);
    let new = at(&both, start + DAY + HOUR).expect("a key");
    assert_ne!(new, old);
    let signed = both
        .sign(&reviews(), &audience("a"), 0, start + DAY + HOUR)
        .expect("a token");
    assert_eq!(key_id(&signed.token), new);
    assert_eq!(both.valid(start + DAY * 2).count(), 1, "the old one has expired");
    let third = both.renewed(start + DAY * 2).expect("keys");
    assert_eq!(third.valid(start + DAY * 2).count(), 2);
}

#[test]
fn keys_that_were_forgotten_for_long_begin_anew() {
    let start = now();
    let first = JwtKeys::generate(start).expect("keys");
    let late = start + DAY * 30;
    assert!(first.signing(late).is_none());
    let error = first
        .sign(&reviews(), &audience("a"), 0, late)
        .expect_err("no key");
    assert_eq!(error, JwtSvidError::NoKey);
    let anew = first.renewed(late).expect("keys");
    assert!(
        anew.signing(late).is_some(),
        "nobody is there who could sign meanwhile"
    );
    assert_eq!(anew.valid(late).count(), 1);
}

#[test]
fn a_key_that_was_made_under_a_clock_that_was_ahead_stops_no_tokens() {
    let start = now();
    let ahead = JwtKeys::generate(start + DAY * 30).expect("keys");
    assert!(ahead.signing(start).is_none());
    assert_eq!(ahead.due(start), start, "at once");
    let mended = ahead.renewed(start).expect("keys");
    assert!(mended.signing(start).is_some());
    assert_eq!(
        mended.valid(start).count(),
        1,
        "nobody is to believe the early one"
    );
    assert_eq!(mended.due(start), start + DAY);
    // Between a good key and one of the future, the good one says when it is time.
    let both = JwtKeys::generate(start)
        .and_then(|keys| keys.renewed(start + DAY))
        .expect("keys");
    assert_eq!(both.due(start), start + DAY);
}

#[test]
fn a_key_of_the_end_of_time_is_no_harm() {
    let start = now();
    let secret = JwtKeys::generate(start)
        .and_then(|keys| Ok(keys.to_secret()?))
        .expect("a Secret");
    let mut keys: Value = serde_json::from_slice(&secret["keys.json"]).expect("JSON");
    for field in ["made", "signsFrom", "expires"] {
        keys[0][field] = i64::MAX.into();
    }
    let secret = SecretData::from([("keys.json".to_owned(), keys.to_string().into_bytes())]);
    let read = JwtKeys::from_secret(&secret).expect("keys");
    assert_eq!(read.due(start), start);
    let mended = read.renewed(start).expect("keys");
    assert_eq!((mended.valid(start).count(), mended.due(start)), (1, start + DAY));
}

#[test]
fn a_token_never_outlives_its_key() {
    let start = now();
    let keys = JwtKeys::generate(start).expect("keys");
    let late = start + DAY * 2 - Duration::from_secs(60);
    let signed = keys
        .sign(&reviews(), &audience("a"), 3600, late)
        .expect("a token");
    assert_eq!(signed.expires, start + DAY * 2);
}

#[test]
fn keys_are_kept_in_a_secret_and_read_back() {
    let now = now();
    let keys = JwtKeys::generate(now)
        .and_then(|keys| keys.renewed(now + DAY))
        .expect("keys");
    let secret = keys.to_secret().expect("a Secret");
    let read = JwtKeys::from_secret(&secret).expect("the same keys");
    let ids = |keys: &JwtKeys| -> Vec<String> { keys.valid(now).map(|key| key.id().to_owned()).collect() };
    assert_eq!(ids(&read), ids(&keys));
    assert_eq!(read.due(now), keys.due(now));
    let signed = read.sign(&reviews(), &audience("a"), 0, now).expect("a token");
    let key = keys.signing(now).expect("a key");
    assert!(verified(&signed.token, key.public_key()).is_some());
    let pem = String::from_utf8(secret["keys.json"].clone()).expect("text");
    let body = pem.split("\\n").nth(1).expect("a line of the key");
    assert!(!format!("{keys:?}").contains(body), "no output shows a key");
}

#[test]
fn a_damaged_secret_is_refused_whole() {
    let now = now();
    let good = JwtKeys::generate(now)
        .expect("keys")
        .to_secret()
        .expect("a Secret");
    let text = String::from_utf8(good["keys.json"].clone()).expect("text");
    let of = |text: &str| SecretData::from([("keys.json".to_owned(), text.as_bytes().to_vec())]);
    let refused = |data: &SecretData| JwtKeys::from_secret(data).expect_err("refused");
    assert!(matches!(refused(&SecretData::new()), JwtKeysError::Damaged(_)));
    assert!(matches!(refused(&of("{")), JwtKeysError::Damaged(_)));
    assert!(matches!(refused(&of("{}")), JwtKeysError::Damaged(_)));
    assert!(matches!(
        refused(&of(r#"[{"kid": "a"}]"#)),
        JwtKeysError::Damaged(_)
    ));
    assert!(matches!(
        refused(&of(&text.replace("\"kid\":\"", "\"kid\":\"x"))),
        JwtKeysError::Damaged(_)
    ));
    assert!(matches!(
        refused(&of(&text.replace("PRIVATE", "PUBLIC"))),
        JwtKeysError::Key(_)
    ));
    let many = format!("[{}]", ["{}"; 9].join(","));
    assert_eq!(refused(&of(&many)), JwtKeysError::TooMany(9));
}

/// A host where user 1000 has one identity, and the control plane's user, 7, every one.
struct Host;

impl Inventory for Host {
    fn pod(&self, _: &str, _: &str) -> Option<Pod> {
        None
    }

    fn runs_on(&self, _: &str, _: &ServiceAccount) -> bool {
        false
    }

    fn registered(&self, uid: u32) -> Vec<SpiffeId> {
        if uid == 1000 { vec![reviews()] } else { Vec::new() }
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        let account = |name: &str| ServiceAccount {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        };
        [account("reviews"), account("ratings")].into()
    }
}

fn services(keys: Option<JwtKeys>, now: SystemTime) -> Routes {
    let rules = Rules {
        trust_domains: TrustDomains::new(trust_domain(), Vec::new()),
        trusted_node_accounts: BTreeSet::new(),
        oidc: None,
        host_users: [7].into(),
    };
    let (svid, bundle) = SpireServices::servers(SpireSettings {
        authority: Arc::new(ArcSwap::from_pointee(self_signed(now))),
        keys: Arc::new(ArcSwap::from_pointee(keys)),
        rules: Arc::new(ArcSwap::from_pointee(rules)),
        inventory: Arc::new(Host),
        authenticators: vec![Arc::new(UnixPeer)],
        clock: Arc::new(move || now),
    });
    Routes::new(svid).add_service(bundle)
}

async fn mint(routes: &Routes, uid: Option<u32>, path: &str) -> Result<types::Jwtsvid, tonic::Status> {
    let mut call = tonic::Request::new(MintJwtsvidRequest {
        id: Some(types::Spiffeid {
            trust_domain: "cluster.local".to_owned(),
            path: path.to_owned(),
        }),
        audience: audience("shop"),
        ttl: 60,
    });
    if let Some(uid) = uid {
        call.extensions_mut().insert(PeerCredentials { uid });
    }
    let answer = SvidClient::new(routes.clone().prepare())
        .mint_jwtsvid(call)
        .await?;
    Ok(answer.into_inner().svid.expect("a token"))
}

#[tokio::test]
async fn whoever_may_have_a_certificate_may_have_a_token_and_nobody_else() {
    let now = now();
    let keys = JwtKeys::generate(now).expect("keys");
    let routes = services(Some(keys.clone()), now);
    let own = "/ns/default/sa/reviews";
    let token = mint(&routes, Some(1000), own).await.expect("its own");
    let key = keys.signing(now).expect("a key").public_key();
    assert_eq!(verified(&token.token, key).expect("verified")["sub"], REVIEWS);
    assert_eq!(token.expires_at, token.issued_at + 60);
    mint(&routes, Some(7), "/ns/default/sa/ratings")
        .await
        .expect("any workload's");
    let code = async |uid, path: &str| mint(&routes, uid, path).await.expect_err("refused").code();
    assert_eq!(
        code(Some(1000), "/ns/default/sa/ratings").await,
        Code::PermissionDenied
    );
    assert_eq!(
        code(Some(7), "/ns/default/sa/nobody").await,
        Code::PermissionDenied
    );
    assert_eq!(code(Some(2000), own).await, Code::PermissionDenied);
    assert_eq!(code(None, own).await, Code::Unauthenticated);
    assert_eq!(code(Some(1000), "no path").await, Code::InvalidArgument);
    let none = services(None, now);
    let error = mint(&none, Some(1000), own).await.expect_err("no keys");
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn the_bundle_has_roots_and_keys_and_is_for_everybody() {
    let now = now();
    let keys = JwtKeys::generate(now).expect("keys");
    let routes = services(Some(keys.clone()), now);
    let ask = |mask| {
        let mut client = BundleClient::new(routes.clone().prepare());
        async move {
            let request = GetBundleRequest { output_mask: mask };
            client.get_bundle(request).await.expect("a bundle").into_inner()
        }
    };
    let all = ask(None).await;
    assert_eq!(all.trust_domain, "cluster.local");
    assert_eq!(all.x509_authorities.len(), 1);
    let [key] = all.jwt_authorities.as_slice() else {
        panic!("one key")
    };
    let signing = keys.signing(now).expect("a key");
    assert_eq!(key.key_id, signing.id());
    assert_eq!(
        PublicKey::from_der(&key.public_key).as_ref(),
        Some(signing.public_key())
    );
    let roots = ask(Some(types::BundleMask {
        x509_authorities: true,
        ..types::BundleMask::default()
    }))
    .await;
    assert_eq!(
        (roots.x509_authorities.len(), roots.jwt_authorities.len()),
        (1, 0)
    );
}
