//! Processes of this host, which the kernel vouches for.

use api_envoy::type_url;
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
