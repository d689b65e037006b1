//! Another's configuration and Secrets, over ADS.

use api_envoy::type_url;
use control_snapshot::Holder;
use control_sources::apply;
use identity::SubjectName;
use std::time::SystemTime;
use tonic::Code;

use crate::log::Log;
use crate::mesh::{Mesh, Shown, eventually, foreign_authority, node, secret};
use crate::own_certificate;

#[tokio::test]
async fn another_proxys_configuration_is_refused_to_a_good_certificate() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    // Another account, another namespace, and its own namespace with the id of another's proxy.
    let mut disguised = node("sidecar", "shop", "reviews");
    disguised.id = disguised.id.replace("pod-1.shop", "pod-1.istio-system");
    for claimed in [
        node("sidecar", "shop", "other"),
        node("router", "istio-system", "gateway"),
        disguised,
    ] {
        let mut stream = mesh.stream(Some(&own), None).await.expect("a connection");
        let id = claimed.id.clone();
        stream.ask(claimed, type_url::CLUSTER, &[]).await;
        let refused = stream.next().await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{id}");
        log.must_say(&[
            "an ADS client asks for another's configuration",
            &id,
            "no identities (spiffe://cluster.local/ns/shop/sa/reviews) matched",
        ])
        .await;
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn secrets_of_others_are_not_sent_to_a_good_certificate() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let names = [SubjectName::Dns("shop.example".to_owned())];
    let pair = Shown::signed(&foreign_authority(), &names, SystemTime::now());
    let entries = [("cert", pair.chain.as_str()), ("key", pair.key.as_str())];
    let objects = ["istio-system", "shop"].map(|namespace| secret(namespace, "theirs", "Opaque", &entries));
    apply(&mesh.client, &objects).await.expect("stored");
    for namespace in ["istio-system", "shop"] {
        eventually("the Secret in the world", || async {
            let publication = mesh.discovery.world().current()?;
            publication
                .snapshot
                .credential(Holder::Secret, namespace, "theirs")
                .map(drop)
        })
        .await;
    }
    let own = own_certificate(&mesh).await;
    for (kind, name, reason) in [
        ("sidecar", "kubernetes://theirs", "may not list secrets"),
        ("router", "kubernetes://theirs", "may not list secrets"),
        (
            "router",
            "kubernetes://istio-system/theirs",
            "may not list secrets",
        ),
        ("router", "default", "none of a Kubernetes Secret"),
    ] {
        let mut stream = mesh.stream(Some(&own), None).await.expect("a connection");
        let me = node(kind, "shop", "reviews");
        stream.ask(me, type_url::SECRET, &[name]).await;
        let answer = stream.next().await.expect("an answer");
        assert_eq!(answer.resources.len(), 0, "{kind} {name}");
        assert_eq!(answer.removed_resources, [name]);
        log.must_say(&["a Secret is not sent", kind, name, reason]).await;
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn secrets_are_refused_to_whoever_proves_nothing() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let mut stream = mesh.plaintext_stream().await;
    let me = node("router", "istio-system", "gateway");
    stream.ask(me, type_url::SECRET, &["kubernetes://theirs"]).await;
    assert!(stream.is_silent().await);
    log.must_say(&["Secrets are sent over the secure port only"])
        .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_closed() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    let mut stream = mesh.stream(Some(&own), None).await.expect("a connection");
    // From here on time jumps to whatever is waited for next.
    tokio::time::pause();
    let refused = stream.next().await.expect_err("refused");
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    log.must_say(&["an ADS stream without a request is closed"]).await;
    tokio::time::resume();
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_process_of_this_host_gets_no_configuration_of_what_is_no_workload_of_it() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let mut stream = mesh.stream_from_host().await;
    let claimed = node("sidecar", "shop", "other");
    let id = claimed.id.clone();
    stream.ask(claimed, type_url::CLUSTER, &[]).await;
    let refused = stream.next().await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    log.must_say(&["an ADS client asks for another's configuration", &id])
        .await;
    mesh.stop().0.shutdown().await;
}
