//! Which certificate a server presents, and what it agrees to.

use tls::settings::{DownstreamTlsContext, TlsVersion, UpstreamTlsContext};
use tls::{ConnectOptions, ContextError, HandshakeFailure, ServerContext};

use crate::support::{Authority, Leaf, Says, client, client_context, meet, now, server, server_context};

fn named(authority: &Authority, name: &'static str, dns: &'static [&'static str], rsa: bool) -> Leaf {
    authority.leaf(&Says {
        name,
        rsa,
        ..Says::dns(dns)
    })
}

fn asking(sni: &str) -> UpstreamTlsContext {
    UpstreamTlsContext {
        sni: sni.to_owned(),
        ..client(None)
    }
}

/// The subject that the server presented.
async fn presented(server: &ServerContext, client: &UpstreamTlsContext) -> Result<String, HandshakeFailure> {
    let (served, connected) = meet(server, &client_context(client), ConnectOptions::default()).await;
    let seen = connected?.peer.unwrap().leaf().subject.clone();
    assert_eq!(served?.local.unwrap().subject, seen);
    Ok(seen)
}

#[tokio::test]
async fn the_exact_name_is_served_before_the_wildcard_and_the_first_for_others() {
    let authority = Authority::root("root");
    let leaves = [
        named(&authority, "first", &["first.example.org"], false),
        named(&authority, "wild", &["*.example.com"], false),
        named(&authority, "exact", &["A.example.com"], false),
        named(&authority, "common.example.net", &[], false),
    ];
    let server = server_context(&server(&leaves.iter().collect::<Vec<_>>()));
    for (sni, subject) in [
        ("a.example.com", "CN=exact"),
        ("b.example.com", "CN=wild"),
        ("c.b.example.com", "CN=first"),
        ("example.com", "CN=first"),
        ("common.example.net", "CN=common.example.net"),
        ("unknown.example.org", "CN=first"),
        ("", "CN=first"),
    ] {
        assert_eq!(presented(&server, &asking(sni)).await.unwrap(), subject, "{sni}");
    }
}

#[tokio::test]
async fn an_elliptic_key_is_presented_to_clients_that_can_verify_it() {
    let authority = Authority::root("root");
    let rsa = named(&authority, "rsa", &["a.example.com"], true);
    let elliptic = named(&authority, "elliptic", &["a.example.com"], false);
    let server = server_context(&server(&[&rsa, &elliptic]));
    let mut client = asking("a.example.com");
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        client.common.tls_params.minimum_version = Some(version);
        client.common.tls_params.maximum_version = Some(version);
        client.common.tls_params.signature_algorithms.clear();
        assert_eq!(presented(&server, &client).await.unwrap(), "CN=elliptic");
        client.common.tls_params.signature_algorithms = vec!["rsa_pss_rsae_sha256".to_owned()];
        assert_eq!(presented(&server, &client).await.unwrap(), "CN=rsa");
    }
}

#[tokio::test]
async fn an_unknown_name_looks_at_all_certificates_only_when_told_to() {
    let authority = Authority::root("root");
    let rsa = named(&authority, "rsa", &["a.example.com"], true);
    let elliptic = named(&authority, "elliptic", &["b.example.com"], false);
    let mut settings = server(&[&rsa, &elliptic]);
    let unknown = asking("unknown.example.com");
    assert_eq!(
        presented(&server_context(&settings), &unknown).await.unwrap(),
        "CN=rsa"
    );
    settings.full_scan_certs_on_sni_mismatch = true;
    assert_eq!(
        presented(&server_context(&settings), &unknown).await.unwrap(),
        "CN=elliptic"
    );
    settings.full_scan_certs_on_sni_mismatch = false;
    assert_eq!(
        presented(&server_context(&settings), &asking("")).await.unwrap(),
        "CN=elliptic"
    );
}

#[tokio::test]
async fn where_a_name_is_required_only_served_names_are_served() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &["*.example.com"], false);
    let settings = DownstreamTlsContext {
        require_sni: true,
        ..server(&[&leaf])
    };
    let server = server_context(&settings);
    assert!(presented(&server, &asking("a.example.com")).await.is_ok());
    for sni in ["a.example.org", ""] {
        let (served, _) = meet(&server, &client_context(&asking(sni)), ConnectOptions::default()).await;
        assert_eq!(served.unwrap_err(), HandshakeFailure::UnknownServerName, "{sni}");
    }
}

async fn agreed_protocol(ours: &[&str], theirs: &[&str]) -> Option<String> {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let mut server = server(&[&leaf]);
    server.common.alpn_protocols = strings(ours);
    let mut client = client(None);
    client.common.alpn_protocols = strings(theirs);
    let (served, connected) = meet(
        &server_context(&server),
        &client_context(&client),
        ConnectOptions::default(),
    )
    .await;
    let alpn = served.unwrap().alpn;
    assert_eq!(connected.unwrap().alpn, alpn);
    alpn
}

#[tokio::test]
async fn the_servers_best_protocol_is_agreed_on_and_none_is_no_reason_to_refuse() {
    assert_eq!(
        agreed_protocol(&["h2", "http/1.1"], &["http/1.1", "h2"])
            .await
            .as_deref(),
        Some("h2")
    );
    assert_eq!(
        agreed_protocol(&["istio-peer-exchange", "h2"], &["h2"])
            .await
            .as_deref(),
        Some("h2")
    );
    assert_eq!(agreed_protocol(&["h2", "http/1.1"], &["istio"]).await, None);
    assert_eq!(agreed_protocol(&["h2"], &[]).await, None);
    assert_eq!(agreed_protocol(&[], &["h2"]).await, None);
}

#[tokio::test]
async fn versions_and_suites_are_those_of_the_settings() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let mut settings = server(&[&leaf]);
    settings.common.tls_params.cipher_suites = vec!["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned()];
    let mut old = client(None);
    old.common.tls_params.maximum_version = None;
    for (client, version, cipher) in [
        (client(None), "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        (old.clone(), "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ] {
        let (served, _) = meet(
            &server_context(&settings),
            &client_context(&client),
            ConnectOptions::default(),
        )
        .await;
        let served = served.unwrap();
        assert_eq!((served.version, served.cipher), (version, cipher));
    }
    settings.common.tls_params.minimum_version = Some(TlsVersion::V1_3);
    let (served, _) = meet(
        &server_context(&settings),
        &client_context(&old),
        ConnectOptions::default(),
    )
    .await;
    assert_eq!(served.unwrap_err(), HandshakeFailure::NoCommonVersion);
}

#[tokio::test]
async fn the_servers_order_of_suites_counts_unless_the_clients_is_preferred() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let (strong, fast) = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256");
    let mut settings = server(&[&leaf]);
    settings.common.tls_params.cipher_suites = vec![strong.to_owned(), fast.to_owned()];
    let mut client = client(None);
    client.common.tls_params.maximum_version = None;
    client.common.tls_params.cipher_suites = vec![fast.to_owned(), strong.to_owned()];
    for (prefer_client_ciphers, cipher) in [(false, strong), (true, fast)] {
        settings.prefer_client_ciphers = prefer_client_ciphers;
        let (served, _) = meet(
            &server_context(&settings),
            &client_context(&client),
            ConnectOptions::default(),
        )
        .await;
        assert_eq!(served.unwrap().cipher, cipher);
    }
}

#[tokio::test]
async fn a_key_signs_only_with_the_schemes_of_the_settings() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    for (scheme, fine) in [
        ("ecdsa_secp256r1_sha256", true),
        ("ecdsa_secp384r1_sha384", false),
    ] {
        let mut settings = server(&[&leaf]);
        settings.common.tls_params.signature_algorithms = vec![scheme.to_owned()];
        let server = server_context(&settings);
        let (served, _) = meet(&server, &client_context(&client(None)), ConnectOptions::default()).await;
        match served {
            Ok(_) => assert!(fine, "{scheme}"),
            Err(failure) => {
                assert_eq!(
                    (failure, fine),
                    (HandshakeFailure::NoCommonSignatureScheme, false)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_server_without_a_common_suite_says_so() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let mut settings = server(&[&leaf]);
    settings.common.tls_params.cipher_suites = vec!["ECDHE-ECDSA-AES256-GCM-SHA384".to_owned()];
    let mut client = client(None);
    client.common.tls_params.maximum_version = None;
    client.common.tls_params.cipher_suites = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()];
    let (served, _) = meet(
        &server_context(&settings),
        &client_context(&client),
        ConnectOptions::default(),
    )
    .await;
    assert_eq!(served.unwrap_err(), HandshakeFailure::NoCommonCipherSuite);
}

#[tokio::test]
async fn tickets_are_sent_only_where_they_are_asked_for() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    for (session_tickets, sent) in [(false, 0), (true, 2)] {
        let settings = DownstreamTlsContext {
            session_tickets,
            ..server(&[&leaf])
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (server, client) = (server_context(&settings), client_context(&client(None)));
        let serve = async {
            let (mut stream, _) = server.accept(far).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"x")
                .await
                .unwrap();
            stream
        };
        let connect = async {
            let (mut stream, _) = client.connect(near, ConnectOptions::default()).await.unwrap();
            tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap();
            stream.get_ref().1.tls13_tickets_received()
        };
        let (_open, received) = tokio::join!(serve, connect);
        assert_eq!(received, sent);
    }
}

#[test]
fn settings_that_make_no_server_are_refused_by_field() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let refused = |change: &dyn Fn(&mut DownstreamTlsContext)| {
        let mut settings = server(&[&leaf]);
        change(&mut settings);
        ServerContext::new(&settings, now()).unwrap_err().to_string()
    };
    for (field, error) in [
        (
            "tls_certificates",
            refused(&|s| s.common.tls_certificates.clear()),
        ),
        (
            "require_client_certificate",
            refused(&|s| s.require_client_certificate = true),
        ),
        (
            "alpn_protocols",
            refused(&|s| s.common.alpn_protocols = vec![String::new()]),
        ),
        (
            "alpn_protocols",
            refused(&|s| s.common.alpn_protocols = vec!["a".repeat(256)]),
        ),
        (
            "cipher_suites",
            refused(&|s| s.common.tls_params.cipher_suites = vec!["NULL".to_owned()]),
        ),
    ] {
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn a_suite_that_is_left_out_is_told_of() {
    let authority = Authority::root("root");
    let leaf = named(&authority, "leaf", &[], false);
    let mut settings = server(&[&leaf]);
    settings.common.tls_params.cipher_suites = vec![
        "ECDHE-ECDSA-AES128-GCM-SHA256".to_owned(),
        "AES256-GCM-SHA384".to_owned(),
    ];
    assert_eq!(server_context(&settings).left_out(), ["AES256-GCM-SHA384"]);
    // TLS 1.3 has suites of its own; without it nothing is left.
    settings.common.tls_params.cipher_suites = vec!["AES256-GCM-SHA384".to_owned()];
    assert_eq!(server_context(&settings).left_out(), ["AES256-GCM-SHA384"]);
    settings.common.tls_params.maximum_version = Some(TlsVersion::V1_2);
    assert!(matches!(
        ServerContext::new(&settings, now()),
        Err(ContextError::Unsupported {
            what: "cipher_suites",
            ..
        })
    ));
}
