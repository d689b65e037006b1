//! Workloads outside of Kubernetes, whose platform says who they are (OpenID Connect).

use std::path::PathBuf;
use std::time::SystemTime;

use api_envoy::type_url;
use control_ca::OidcRules;
use control_discovery::identities::{Issuer, KeysSource};
use identity::{Certificate, KeyKind, PrivateKey};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tonic::Code;

use crate::mesh::{Mesh, STABLE, api_server, eventually, node};

const ISSUER: &str = "https://issuer.example";

fn key() -> EncodingKey {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    EncodingKey::from_ec_der(&key.to_pkcs8_der().expect("DER"))
}

fn token(key: &EncodingKey, audience: &str, subject: &str) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let expires = since.expect("after 1970").as_secs() + 600;
    let claims = json!({"iss": ISSUER, "aud": audience, "sub": subject, "exp": expires});
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).expect("a token")
}

#[tokio::test]
async fn a_jwt_of_the_issuer_is_worth_its_service_account() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    let (key, keys) = (key(), directory.path().join("keys.json"));
    let public = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
    let set = JwkSet { keys: vec![public] };
    std::fs::write(&keys, serde_json::to_vec(&set).expect("JSON")).expect("written");
    let issuer = Issuer {
        rules: OidcRules {
            issuer: ISSUER.to_owned(),
            audiences: vec!["istio-ca".to_owned()],
        },
        keys: KeysSource::File(keys),
        authorities: PathBuf::new(),
    };
    let mesh = Mesh::start_with(api, client, STABLE, Some(issuer)).await;
    mesh.authority().await;
    let subject = "system:serviceaccount:shop:reviews";
    let good = token(&key, "istio-ca", subject);
    // The keys are read while the port opens.
    let given = eventually("a certificate", || async {
        mesh.certificate(None, Some(&good)).await.ok()
    })
    .await;
    let chain = Certificate::bundle_from_pem(given.chain.as_bytes()).expect("a chain");
    let id = chain[0].spiffe_id().expect("an id").to_string();
    assert_eq!(id, "spiffe://cluster.local/ns/shop/sa/reviews");
    let mut stream = mesh.stream(None, Some(&good)).await.expect("a connection");
    stream
        .ask(node("sidecar", "shop", "reviews"), type_url::CLUSTER, &[])
        .await;
    assert_eq!(stream.next().await.expect("clusters").type_url, type_url::CLUSTER);
    for bad in [
        token(&key, "somebody-else", subject),
        token(&key, "istio-ca", "alice"),
        token(&self::key(), "istio-ca", subject),
    ] {
        let refused = mesh.certificate(None, Some(&bad)).await.err().expect("refused");
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let kubernetes = mesh.token("shop", "reviews", "istio-ca").await;
    assert!(mesh.certificate(None, Some(&kubernetes)).await.is_ok());
    mesh.stop().0.shutdown().await;
}
