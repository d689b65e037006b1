//! No key appears in a log of any level, of this program or of a library.

#[allow(dead_code, reason = "this test uses a part")]
#[path = "hostile/log.rs"]
mod log;
#[allow(dead_code, reason = "this test uses a part")]
#[path = "identities/mesh.rs"]
mod mesh;

use std::time::SystemTime;

use api_envoy::type_url;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_snapshot::Kind;
use control_sources::secrets::StoredSecret;
use control_sources::{apply, client};

use log::Log;
use mesh::{Mesh, STABLE, Shown, api_server, eventually, foreign_authority, node, secret, workload};

/// The spellings that a part of a key could have in a log.
fn spellings(key: &str) -> Vec<String> {
    let line = key.lines().nth(1).expect("a line of the key");
    let bytes = format!("{:?}", &line.as_bytes()[..24]);
    vec![
        line.to_owned(),
        STANDARD.encode(key)[40..100].to_owned(),
        bytes.trim_matches(['[', ']']).to_owned(),
    ]
}

#[tokio::test]
async fn no_log_of_any_level_shows_a_key() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .init();
    let directory = tempfile::tempdir().expect("a directory");
    let (api, _) = api_server(directory.path()).await;
    // Over HTTPS, so that the client of the API server has something to log.
    let client = client::from_kubeconfig(api.kubeconfig_path())
        .await
        .expect("a client");
    let mesh = Mesh::start(api, client, STABLE).await;
    mesh.authority().await;
    let host = Shown::signed(
        &foreign_authority(),
        &[workload("shop", "reviews")],
        SystemTime::now(),
    );
    let entries = [("tls.crt", host.chain.as_str()), ("tls.key", host.key.as_str())];
    let stored = secret("istio-system", "shop-cert", "kubernetes.io/tls", &entries);
    apply(&mesh.client, &[stored]).await.expect("stored");
    let token = mesh.token("istio-system", "gateway", "istio-ca").await;
    eventually("the key at the gateway", || async {
        let mut stream = mesh.stream(None, Some(&token)).await.ok()?;
        let me = node("router", "istio-system", "gateway");
        stream
            .ask(me, type_url::SECRET, &["kubernetes://shop-cert"])
            .await;
        let answer = stream.next().await.ok()?;
        (!answer.resources.is_empty()).then_some(())
    })
    .await;
    let issued = mesh.certificate(None, Some(&token)).await.expect("a certificate");
    let own = mesh.get(Kind::Secret, "istio-system", "istio-ca-secret").await;
    let own = StoredSecret::of(&own.expect("the Secret")).expect("base64");
    let own = String::from_utf8(own.data["ca-key.pem"].clone()).expect("PEM");
    let log = log.text();
    assert!(
        log.contains("certificate authority in force"),
        "the log is that of the program"
    );
    for (whose, key) in [
        ("the authority's", &own),
        ("a gateway's", &host.key),
        ("a workload's", &issued.key),
    ] {
        for spelling in spellings(key) {
            assert!(!log.contains(&spelling), "{whose} key is in the log");
        }
    }
    assert!(!log.contains(&token), "a token is in the log");
    mesh.stop().0.shutdown().await;
}
