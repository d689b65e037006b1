//! Certificates that are none of this mesh, or are none of a workload.

use std::time::{Duration, SystemTime};

use control_snapshot::Kind;
use control_sources::secrets::StoredSecret;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, SanType};
use tonic::Code;

use crate::log::Log;
use crate::mesh::{Mesh, Shown, foreign_authority, workload};
use crate::own_certificate;

/// Shows a certificate together with a token that would be good by itself, and wants it refused for `reason`.
async fn refused(mesh: &Mesh, log: &Log, shown: &Shown, reason: &str) {
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let refused = mesh.certificate(Some(shown), Some(&token)).await;
    let refused = refused.err().expect("refused");
    // The handshake fails, which a client of TLS 1.3 hears of with its first answer.
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Unknown),
        "{refused}"
    );
    log.must_say(&["no TLS connection to the secure port", "127.0.0.1:", reason])
        .await;
}

#[tokio::test]
async fn an_expired_certificate_ends_the_connection() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let now = SystemTime::now();
    // It ended half a minute ago, after an hour; by its owner's clock it is not over yet.
    let from = now - Duration::from_secs(3600 + 30);
    let mut shown = Shown::signed(&*mesh.authority().await, &[workload("shop", "reviews")], from);
    shown.clock = now - Duration::from_secs(60);
    refused(&mesh, &log, &shown, "the certificate has expired").await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_certificate_of_the_future_ends_the_connection() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    let shown = Shown::signed(&*mesh.authority().await, &[workload("shop", "reviews")], tomorrow);
    refused(&mesh, &log, &shown, "the certificate is not valid yet").await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_certificate_of_a_foreign_root_ends_the_connection() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let now = SystemTime::now();
    let shown = Shown::signed(&foreign_authority(), &[workload("shop", "reviews")], now);
    refused(&mesh, &log, &shown, "no trusted authority issued the certificate").await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn an_authoritys_own_certificate_is_no_workloads() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    mesh.authority().await;
    let stored = mesh.get(Kind::Secret, "istio-system", "istio-ca-secret").await;
    let stored = StoredSecret::of(&stored.expect("the Secret"))
        .expect("base64")
        .data;
    let entry = |name: &str| String::from_utf8(stored[name].clone()).expect("PEM");
    let shown = Shown {
        chain: entry("ca-cert.pem"),
        key: entry("ca-key.pem"),
        ..Shown::default()
    };
    refused(&mesh, &log, &shown, "the certificate is an authority's own").await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_workload_signs_for_nobody() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    // With the key of its own certificate it signs one for somebody else.
    let key = KeyPair::from_pem(&own.key).expect("a key");
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    let issuer = Issuer::from_params(&issuer, &key);
    let signed = |params: CertificateParams| {
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &issuer).expect("a certificate");
        Shown {
            chain: format!("{}{}", leaf.pem(), own.chain),
            key: key.serialize_pem(),
            ..Shown::default()
        }
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "other");
    let id = "spiffe://cluster.local/ns/shop/sa/other";
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a name"))];
    params.use_authority_key_identifier_extension = true;
    refused(
        &mesh,
        &log,
        &signed(params),
        "the certificate's issuer is no authority",
    )
    .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn plaintext_to_the_secure_port_is_no_conversation() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    // The port answers once the first certificate is made.
    assert!(mesh.connect(None).await.is_ok());
    let mut stream = tokio::net::TcpStream::connect(mesh.secure)
        .await
        .expect("a connection");
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .expect("written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    log.must_say(&["no TLS connection to the secure port", "does not speak TLS"])
        .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn silent_connections_of_one_address_take_no_place_from_others() {
    use control_discovery::limits::MAX_HANDSHAKES_OF_ADDRESS as MOST;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpSocket, TcpStream};
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    // The port answers once the first certificate is made.
    assert!(mesh.connect(None).await.is_ok());
    let from = async |address: &str| -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(format!("{address}:0").parse().expect("an address"))
            .expect("bound");
        socket.connect(mesh.secure).await.expect("a connection")
    };
    let mut silent = Vec::new();
    for _ in 0..MOST {
        silent.push(from("127.0.0.2").await);
    }
    let mut one_more = from("127.0.0.2").await;
    let closed = tokio::time::timeout(Duration::from_secs(5), one_more.read_u8()).await;
    assert!(closed.expect("closed at once, and not after its time").is_err());
    log.must_say(&[
        "no TLS connection to the secure port",
        "127.0.0.2:",
        "with this address",
    ])
    .await;
    assert!(mesh.connect(None).await.is_ok(), "from another address");
    mesh.stop().0.shutdown().await;
}
