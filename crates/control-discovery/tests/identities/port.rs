//! The secure port: who gets which certificate, and whose configuration.

use std::process::Command;
use std::time::{Duration, SystemTime};

use api_envoy::type_url;
use control_snapshot::Kind;
use control_sources::secrets::StoredSecret;
use identity::{Certificate, Svid};
use tonic::Code;

use crate::mesh::{Mesh, Shown, foreign_authority, node, workload};

#[tokio::test]
async fn a_token_is_worth_a_certificate_and_that_its_renewal() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let first = mesh.certificate(None, Some(&token)).await.expect("a certificate");
    let leaf = |shown: &Shown| {
        let chain = Certificate::bundle_from_pem(shown.chain.as_bytes()).expect("a chain");
        chain.into_iter().next().expect("a leaf")
    };
    let id = "spiffe://cluster.local/ns/shop/sa/reviews";
    assert_eq!(leaf(&first).spiffe_id().expect("an id").to_string(), id);
    let shown = Shown {
        chain: leaf(&first).pem(),
        key: first.key,
        ..Shown::default()
    };
    let renewed = mesh.certificate(Some(&shown), None).await.expect("a renewal");
    let svid = Svid::from_pem(leaf(&renewed).pem().as_bytes(), renewed.key.as_bytes()).expect("an SVID");
    assert_eq!(svid.id().to_string(), id);
    let metrics = mesh.page("/metrics").await;
    for sample in [
        "citadel_server_csr_count 2\n",
        "citadel_server_success_cert_issuance_count 2\n",
        "citadel_server_root_cert_expiry_timestamp ",
    ] {
        assert!(metrics.contains(sample), "{sample} is missing in {metrics}");
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn whoever_proves_nothing_gets_neither_certificate_nor_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let other_audience = mesh.token("shop", "reviews", "somebody-else").await;
    for token in [None, Some("nonsense"), Some(other_audience.as_str())] {
        let refused = mesh.certificate(None, token).await.err().expect("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
        let mut stream = mesh.stream(None, token).await.expect("a connection");
        stream
            .ask(node("sidecar", "shop", "reviews"), type_url::CLUSTER, &[])
            .await;
        let refused = stream.next().await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
    let metrics = mesh.page("/metrics").await;
    assert!(
        metrics.contains("citadel_server_authentication_failure_count 3\n"),
        "{metrics}"
    );
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_proxy_gets_its_own_configuration_and_nobody_elses() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let mut own = mesh.stream(None, Some(&token)).await.expect("a connection");
    own.ask(node("sidecar", "shop", "reviews"), type_url::CLUSTER, &[])
        .await;
    assert_eq!(own.next().await.expect("clusters").type_url, type_url::CLUSTER);

    let mut disguised = node("sidecar", "shop", "reviews");
    disguised.id = disguised.id.replace("pod-1.shop", "pod-1.istio-system");
    for claimed in [
        node("sidecar", "shop", "other"),
        node("sidecar", "istio-system", "reviews"),
        node("router", "istio-system", "gateway"),
        disguised,
    ] {
        let mut stream = mesh.stream(None, Some(&token)).await.expect("a connection");
        let id = claimed.id.clone();
        stream.ask(claimed, type_url::CLUSTER, &[]).await;
        let refused = stream.next().await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{id}");
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn bad_certificates_end_the_connection_whatever_else_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let (authority, now) = (mesh.authority().await, SystemTime::now());
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let name = [workload("shop", "reviews")];
    let good = Shown::signed(&authority, &name, now);
    assert!(mesh.certificate(Some(&good), None).await.is_ok());

    let foreign = Shown::signed(&foreign_authority(), &name, now);
    let refused = mesh
        .certificate(Some(&foreign), Some(&token))
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Unknown),
        "{refused}"
    );
    // Another domain's identity, even if this authority has signed it, is nobody's here.
    let stranger = identity::SubjectName::Uri("spiffe://elsewhere/ns/shop/sa/reviews".to_owned());
    let stranger = Shown::signed(&authority, &[stranger], now);
    let refused = mesh
        .certificate(Some(&stranger), None)
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let mut stream = mesh.stream(Some(&stranger), None).await.expect("a connection");
    stream
        .ask(node("sidecar", "shop", "reviews"), type_url::CLUSTER, &[])
        .await;
    assert_eq!(
        stream.next().await.expect_err("refused").code(),
        Code::Unauthenticated
    );
    mesh.stop().0.shutdown().await;
}

/// What openssl says of a connection to the secure port.
fn s_client(test: &str, mesh: &Mesh, directory: &std::path::Path, more: &[&str]) -> Option<String> {
    let address = mesh.secure.to_string();
    let mut arguments = vec![
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        "roots.pem",
        "-alpn",
        "h2",
        "-brief",
    ];
    arguments.extend(["-verify_return_error", "-servername", "istiod.istio-system.svc"]);
    arguments.extend(more);
    let mut command = Command::new("timeout");
    command
        .args(["20", "openssl"])
        .args(arguments)
        .current_dir(directory);
    let output = command.stdin(std::process::Stdio::null()).output();
    match output {
        Ok(output) => Some(format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => {
            let message = format!("NOT RUN {test}: openssl cannot be started: {error}");
            assert!(std::env::var_os("CI").is_none(), "{message}");
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{message}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_verifies_the_control_plane_and_bad_certificates_end_the_handshake() {
    let test = "openssl_verifies_the_control_plane_and_bad_certificates_end_the_handshake";
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(&directory.path().join("api")).await;
    let authority = mesh.authority().await;
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
    write("roots.pem", &authority.roots_pem());
    // The port answers once the first certificate is made.
    assert!(mesh.connect(None).await.is_ok());
    for more in [
        ["-verify_hostname", "istiod.istio-system.svc"],
        ["-verify_ip", "127.0.0.1"],
    ] {
        let Some(said) = s_client(test, &mesh, directory.path(), &more) else {
            return;
        };
        assert!(said.contains("Verification: OK"), "{said}");
    }
    let other = s_client(
        test,
        &mesh,
        directory.path(),
        &["-verify_hostname", "example.com"],
    );
    assert!(other.is_some_and(|said| !said.contains("Verification: OK")));

    let (now, name) = (SystemTime::now(), [workload("shop", "reviews")]);
    let yesterday = now - Duration::from_secs(24 * 3600);
    let stored = mesh.get(Kind::Secret, "istio-system", "istio-ca-secret").await;
    let stored = StoredSecret::of(&stored.expect("the Secret"))
        .expect("base64")
        .data;
    let entry = |name: &str| String::from_utf8(stored[name].clone()).expect("PEM");
    let of_the_authority = Shown {
        chain: entry("ca-cert.pem"),
        key: entry("ca-key.pem"),
        ..Shown::default()
    };
    for (alert, shown) in [
        (None, Shown::signed(&authority, &name, now)),
        (
            Some("certificate expired"),
            Shown::signed(&authority, &name, yesterday),
        ),
        (
            Some("unknown ca"),
            Shown::signed(&foreign_authority(), &name, now),
        ),
        (Some("certificate unknown"), of_the_authority),
    ] {
        write("leaf.pem", &shown.chain);
        write("key.pem", &shown.key);
        let arguments = ["-cert", "leaf.pem", "-key", "key.pem", "-tls1_2"];
        let said = s_client(test, &mesh, directory.path(), &arguments).expect("openssl has run before");
        match alert {
            None => assert!(!said.contains("alert"), "{said}"),
            Some(alert) => assert!(said.contains(alert), "{alert}: {said}"),
        }
    }
    mesh.stop().0.shutdown().await;
}
