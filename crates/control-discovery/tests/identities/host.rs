//! Processes of this host, which the kernel vouches for.

use api_envoy::type_url;
use api_spiffe::spire::api::server::bundle::v1::GetBundleRequest;
use api_spiffe::spire::api::server::bundle::v1::bundle_client::BundleClient;
use api_spiffe::spire::api::server::svid::v1::MintJwtsvidRequest;
use api_spiffe::spire::api::server::svid::v1::svid_client::SvidClient;
use api_spiffe::spire::api::types;
use control_ca::JWT_KEYS_SECRET;
use control_snapshot::Kind;
use control_sources::apply;
use identity::Certificate;
use serde_json::json;
use tonic::Code;

use crate::mesh::{Mesh, eventually, node};

/// Stores a WorkloadGroup of the account of reviews, and waits until it counts.
pub(crate) async fn register(mesh: &Mesh) {
    let group = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
        "metadata": {"name": "reviews-v1", "namespace": "shop"},
        "spec": {"template": {"serviceAccount": "reviews"}},
    });
    apply(&mesh.client, &[group]).await.expect("stored");
    eventually("the group in the world", || async {
        let accounts = |objects: &control_snapshot::Objects| {
            objects
                .workload_accounts()
                .any(|account| account == ("shop", "reviews"))
        };
        mesh.discovery.world().read(accounts).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_of_this_host_gets_the_identity_of_a_workload_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let refused = mesh
        .certificate_from_host("shop/reviews")
        .await
        .err()
        .expect("refused");
    assert_eq!(
        refused.code(),
        Code::PermissionDenied,
        "there is no such workload yet"
    );
    register(&mesh).await;
    let id = "spiffe://cluster.local/ns/shop/sa/reviews";
    for asked in ["shop/reviews", id] {
        let given = mesh.certificate_from_host(asked).await.expect("a certificate");
        let chain = Certificate::bundle_from_pem(given.chain.as_bytes()).expect("a chain");
        assert_eq!(chain[0].spiffe_id().expect("an id").to_string(), id);
    }
    for asked in [
        "shop/other",
        "istio-system/reviews",
        "spiffe://elsewhere/ns/shop/sa/reviews",
    ] {
        let refused = mesh.certificate_from_host(asked).await.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{asked}");
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_process_of_this_host_gets_the_configuration_of_its_workloads_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let mut own = mesh.stream_from_host().await;
    own.ask(node("sidecar", "shop", "reviews"), type_url::CLUSTER, &[])
        .await;
    assert_eq!(own.next().await.expect("clusters").type_url, type_url::CLUSTER);
    let mut other = mesh.stream_from_host().await;
    other
        .ask(node("sidecar", "shop", "other"), type_url::CLUSTER, &[])
        .await;
    let refused = other.next().await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn the_roots_are_in_a_file_for_processes_of_this_host() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let roots = mesh.authority().await.roots_pem();
    let path = mesh.folder.path().join("root-cert.pem");
    eventually("the file", || async {
        let text = std::fs::read_to_string(&path).ok()?;
        (text == roots).then_some(())
    })
    .await;
    mesh.stop().0.shutdown().await;
}

/// Asks for a token of this account of the namespace `shop`.
async fn token_from_host(mesh: &Mesh, account: &str) -> Result<types::Jwtsvid, tonic::Status> {
    let mut client = SvidClient::new(mesh.connect_from_host().await);
    let request = MintJwtsvidRequest {
        id: Some(types::Spiffeid {
            trust_domain: "cluster.local".to_owned(),
            path: format!("/ns/shop/sa/{account}"),
        }),
        audience: vec!["reports".to_owned()],
        ttl: 0,
    };
    let answer = client.mint_jwtsvid(request).await?.into_inner();
    Ok(answer.svid.expect("a token"))
}

async fn bundle(mesh: &Mesh) -> types::Bundle {
    let mut client = BundleClient::new(mesh.connect_from_host().await);
    let request = GetBundleRequest { output_mask: None };
    client.get_bundle(request).await.expect("a bundle").into_inner()
}

/// The keys of the bundle, once there are others than these.
async fn key_ids(mesh: &Mesh, others_than: &[String]) -> Vec<String> {
    eventually("keys", || async {
        let keys = bundle(mesh).await.jwt_authorities.into_iter();
        let keys: Vec<String> = keys.map(|key| key.key_id).collect();
        (!keys.is_empty() && keys != others_than).then_some(keys)
    })
    .await
}

#[tokio::test]
async fn a_process_of_this_host_gets_a_token_of_a_workload_and_what_verifies_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let keys = key_ids(&mesh, &[]).await;
    let token = token_from_host(&mesh, "reviews").await.expect("a token").token;
    let header = jsonwebtoken::decode_header(&token).expect("a header");
    assert_eq!(header.kid.as_ref(), keys.first());
    let refused = token_from_host(&mesh, "other").await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let roots = bundle(&mesh).await.x509_authorities;
    assert_eq!(&*roots[0].asn1, mesh.authority().await.roots()[0].der());

    let (api, client) = mesh.stop();
    let mesh = Mesh::start(api, client, crate::mesh::STABLE).await;
    assert_eq!(
        key_ids(&mesh, &[]).await,
        keys,
        "the keys are kept in their Secret"
    );
    let secret = mesh.get(Kind::Secret, "istio-system", JWT_KEYS_SECRET).await;
    assert_eq!(secret.expect("the Secret")["type"], "lateen.io/jwt-svid-keys");
    mesh.stop().0.shutdown().await;
}

/// Whether something is wrong with the Secret of the keys.
fn complains(mesh: &Mesh) -> bool {
    let found = mesh.discovery.diagnostics();
    found
        .iter()
        .any(|finding| finding.resource.name == JWT_KEYS_SECRET)
}

#[tokio::test]
async fn broken_keys_of_tokens_change_nothing_and_deleted_ones_are_made_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let keys = key_ids(&mesh, &[]).await;
    let broken = crate::mesh::secret(
        "istio-system",
        JWT_KEYS_SECRET,
        "lateen.io/jwt-svid-keys",
        &[("keys.json", "[{\"kid\": \"a\"}]")],
    );
    apply(&mesh.client, &[broken]).await.expect("stored");
    eventually("a complaint", || async { complains(&mesh).then_some(()) }).await;
    assert_eq!(key_ids(&mesh, &[]).await, keys);
    token_from_host(&mesh, "reviews").await.expect("a token");
    let reference = control_sources::write::ObjectRef::new(Kind::Secret, "istio-system", JWT_KEYS_SECRET);
    control_sources::write::delete(&mesh.client, &reference)
        .await
        .expect("deleted");
    let anew = key_ids(&mesh, &keys).await;
    assert_ne!(anew, keys);
    eventually("no complaint", || async { (!complains(&mesh)).then_some(()) }).await;
    mesh.stop().0.shutdown().await;
}
