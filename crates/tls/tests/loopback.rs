//! A server with an issued certificate is trusted by clients of its authority, and by nobody else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tls::CertificateAuthority;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest time for a handshake on loopback.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that trusts one authority.
fn connector(ca_pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn handshake(
    client_ca: &str,
    server: &tls::Issued,
    name: &'static str,
) -> Result<Option<Vec<u8>>, std::io::Error> {
    let acceptor =
        tls::server_acceptor(&server.certificate_pem, &server.key_pem, &["h2", "http/1.1"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor
            .accept(stream)
            .await
            .map(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = connector(client_ca).connect(name.try_into().unwrap(), stream);
    let connected = timeout(PATIENCE, connecting).await.unwrap();
    let accepted = timeout(PATIENCE, accepted).await.unwrap().unwrap();
    connected.and(accepted)
}

#[tokio::test]
async fn a_client_of_the_authority_trusts_its_server_by_address_and_name() {
    let authority = CertificateAuthority::generate("lateen test", SystemTime::now()).unwrap();
    let restored = CertificateAuthority::from_pem(authority.certificate_pem(), authority.key_pem()).unwrap();
    let server = restored
        .issue_server(&["localhost", "127.0.0.1"], SystemTime::now())
        .unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let alpn = handshake(authority.certificate_pem(), &server, name)
            .await
            .unwrap();
        assert_eq!(alpn.as_deref(), Some(&b"h2"[..]), "{name}");
    }
}

#[tokio::test]
async fn a_client_of_another_authority_refuses_the_server() {
    let authority = CertificateAuthority::generate("lateen test", SystemTime::now()).unwrap();
    let stranger = CertificateAuthority::generate("lateen test", SystemTime::now()).unwrap();
    let server = authority.issue_server(&["localhost"], SystemTime::now()).unwrap();
    assert!(
        handshake(stranger.certificate_pem(), &server, "localhost")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let long_ago = SystemTime::now() - std::time::Duration::from_secs(3 * 365 * 24 * 3600);
    let authority = CertificateAuthority::generate("lateen test", long_ago).unwrap();
    let server = authority.issue_server(&["localhost"], long_ago).unwrap();
    assert!(
        handshake(authority.certificate_pem(), &server, "localhost")
            .await
            .is_err()
    );
}
