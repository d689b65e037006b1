//! OpenSSL's own client and server as the peer.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tls::{ConnectOptions, HandshakeFailure, PeerValidation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Authority, Says, client, client_context, mutual_server, server_context, trusting};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with the files that OpenSSL's commands want.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Ends a process that a test started, also when the test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn openssls_client_verifies_our_chain_and_is_verified() {
    let root = Authority::root("root");
    let between = root.intermediate("between");
    let server_leaf = between.leaf(&Says::dns(&["a.example.com"]));
    let client_leaf = between.leaf(&Says::uri(&["spiffe://a/b"]));
    let files = Files::new(&[
        ("root.pem", &root.pem()),
        ("chain.pem", &client_leaf.chain),
        ("key.pem", &client_leaf.key),
    ]);
    let mut settings = mutual_server(&server_leaf, trusting(&[&root]));
    settings.common.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    let context = server_context(&settings);
    for (version, name, cipher) in [
        ("-tls1_3", "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_2", "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let child = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &address,
                version,
                "-servername",
                "a.example.com",
            ])
            .args([
                "-verify_hostname",
                "a.example.com",
                "-verify_return_error",
                "-CAfile",
                &files.path("root.pem"),
            ])
            .args([
                "-cert",
                &files.path("chain.pem"),
                "-cert_chain",
                &files.path("chain.pem"),
            ])
            .args([
                "-key",
                &files.path("key.pem"),
                "-alpn",
                "istio,http/1.1",
                "-ign_eof",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut child = Ended(child);
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut stream, info) = context.accept(stream).await.unwrap();
            stream.write_all(b"hello from here\n").await.unwrap();
            stream.shutdown().await.unwrap();
            info
        };
        let info = tokio::time::timeout(PATIENCE, serve)
            .await
            .expect("a handshake ends");
        assert_eq!((info.version, info.cipher), (name, cipher));
        assert_eq!(info.alpn.as_deref(), Some("http/1.1"));
        assert_eq!(info.server_name.as_deref(), Some("a.example.com"));
        assert_eq!(info.peer_identity(), Some("spiffe://a/b"));
        let said = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("hello from here"), "{said}");
        assert!(
            said.contains("CN = root"),
            "the authorities that a client may choose by: {said}"
        );
    }
}

/// OpenSSL's server, on a port of its choice.
fn openssl_server(files: &Files, arguments: &[&str]) -> (Ended, String) {
    let mut child = Command::new("openssl")
        .args([
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-www",
            "-cert",
            &files.path("chain.pem"),
        ])
        .args([
            "-cert_chain",
            &files.path("chain.pem"),
            "-key",
            &files.path("key.pem"),
        ])
        .args([
            "-CAfile",
            &files.path("root.pem"),
            "-Verify",
            "3",
            "-verify_return_error",
        ])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned))
        .unwrap();
    // The rest is read away, so that the server is never blocked by a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (Ended(child), address)
}

#[tokio::test]
async fn our_client_verifies_openssls_server_and_is_verified() {
    let root = Authority::root("root");
    let between = root.intermediate("between");
    let server_leaf = between.leaf(&Says::dns(&["a.example.com"]));
    let client_leaf = between.leaf(&Says::uri(&["spiffe://a/b"]));
    let files = Files::new(&[
        ("root.pem", &root.pem()),
        ("chain.pem", &server_leaf.chain),
        ("key.pem", &server_leaf.key),
    ]);
    let (_server, address) = openssl_server(&files, &["-alpn", "http/1.1"]);
    let mut settings = client(Some(&client_leaf));
    settings.common.validation_context = Some(trusting(&[&root]));
    settings.common.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    settings.sni = "a.example.com".to_owned();
    settings.auto_sni_san_validation = true;
    let context = client_context(&settings);
    let talk = async {
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut stream, info) = context.connect(stream, ConnectOptions::default()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut page = Vec::new();
        // OpenSSL's page ends with the connection, now and then without the closing alert.
        let _ = stream.read_to_end(&mut page).await;
        (info, String::from_utf8_lossy(&page).into_owned())
    };
    let (info, page) = tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("the page comes");
    assert_eq!(info.validation, PeerValidation::Passed);
    assert_eq!(info.alpn.as_deref(), Some("http/1.1"));
    assert_eq!(info.peer.unwrap().leaf().dns_names, ["a.example.com"]);
    assert!(page.contains("Verify return code: 0 (ok)"), "{page}");
    assert!(page.contains("Reused") || page.contains("New, TLSv1.3"), "{page}");
}

#[tokio::test]
async fn openssls_refusal_of_our_certificate_is_told_with_its_alert() {
    let root = Authority::root("root");
    let server_leaf = root.leaf(&Says::dns(&["a.example.com"]));
    let stranger = Authority::root("stranger").leaf(&Says::uri(&["spiffe://a/b"]));
    let files = Files::new(&[
        ("root.pem", &root.pem()),
        ("chain.pem", &server_leaf.chain),
        ("key.pem", &server_leaf.key),
    ]);
    let (_server, address) = openssl_server(&files, &[]);
    let context = client_context(&client(Some(&stranger)));
    let talk = async {
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut stream, _) = context.connect(stream, ConnectOptions::default()).await?;
        match stream.read_u8().await {
            Ok(_) => Ok(()),
            Err(error) => Err(HandshakeFailure::from_io(&error)),
        }
    };
    let failure = tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("an alert comes")
        .unwrap_err();
    let reason = failure.envoy_reason();
    assert_eq!(
        reason,
        "TLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end"
    );
}

#[tokio::test]
async fn what_is_no_tls_is_told_apart() {
    let root = Authority::root("root");
    let context = server_context(&crate::support::server(&[&root.leaf(&Says::default())]));
    let failure = async |bytes: &[u8]| {
        let (mut near, far) = tokio::io::duplex(4096);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        context.accept(far).await.map(|_| ()).unwrap_err()
    };
    assert_eq!(
        failure(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await,
        HandshakeFailure::NotTls
    );
    assert_eq!(failure(b"").await, HandshakeFailure::Closed);
    assert_eq!(failure(&[22, 3, 1]).await, HandshakeFailure::Closed);
}
