//! What a client asks for, and whom it believes.

use tls::settings::{SanType, StringPattern, UpstreamTlsContext};
use tls::{
    ClientContext, ConnectOptions, ConnectionInfo, HandshakeFailure, PeerValidation, VerificationFailure,
};

use crate::support::{
    Authority, Says, client, client_context, expecting, meet, mutual_server, now, server, server_context,
    trusting,
};

/// What a client with these settings says about a server for `a.example.com` and `*.example.org`.
async fn met(
    authority: &Authority,
    settings: &UpstreamTlsContext,
    options: ConnectOptions<'_>,
) -> (Option<String>, Result<ConnectionInfo, HandshakeFailure>) {
    let leaf = authority.leaf(&Says::dns(&["a.example.com", "*.example.org"]));
    let server = server_context(&server(&[&leaf]));
    let (served, connected) = meet(&server, &client_context(settings), options).await;
    (served.ok().and_then(|info| info.server_name), connected)
}

#[tokio::test]
async fn the_connections_name_comes_before_the_endpoints_and_that_before_the_configured_one() {
    let authority = Authority::root("root");
    let mut settings = client(None);
    settings.sni = "configured.example.com".to_owned();
    let endpoint = ConnectOptions {
        endpoint_hostname: Some("endpoint.example.com"),
        ..ConnectOptions::default()
    };
    let both = ConnectOptions {
        server_name: Some("connection.example.com"),
        ..endpoint
    };
    let unnamed = ConnectOptions {
        endpoint_hostname: Some(""),
        ..endpoint
    };
    for (auto_host_sni, options, sent) in [
        (false, ConnectOptions::default(), "configured.example.com"),
        (false, endpoint, "configured.example.com"),
        (true, endpoint, "endpoint.example.com"),
        (true, unnamed, "configured.example.com"),
        (true, both, "connection.example.com"),
    ] {
        settings.auto_host_sni = auto_host_sni;
        let (server_name, connected) = met(&authority, &settings, options).await;
        assert_eq!(server_name.as_deref(), Some(sent));
        assert_eq!(connected.unwrap().server_name.as_deref(), Some(sent));
    }
    settings.sni.clear();
    settings.auto_host_sni = false;
    assert_eq!(
        met(&authority, &settings, ConnectOptions::default()).await.0,
        None
    );
}

#[tokio::test]
async fn a_name_of_istios_form_is_sent() {
    let authority = Authority::root("root");
    let name = "outbound_.9080_._.reviews.default.svc.cluster.local";
    let settings = UpstreamTlsContext {
        sni: name.to_owned(),
        ..client(None)
    };
    assert_eq!(
        met(&authority, &settings, ConnectOptions::default())
            .await
            .0
            .as_deref(),
        Some(name)
    );
}

#[tokio::test]
async fn what_is_no_name_is_refused() {
    let authority = Authority::root("root");
    let mut settings = client(None);
    let options = ConnectOptions {
        server_name: Some("not a name"),
        ..ConnectOptions::default()
    };
    let (_, connected) = met(&authority, &settings, options).await;
    assert_eq!(
        connected.unwrap_err(),
        HandshakeFailure::InvalidServerName("not a name".to_owned())
    );
    settings.sni = "a..b".to_owned();
    let error = ClientContext::new(&settings, now()).unwrap_err().to_string();
    assert!(error.starts_with("sni: "), "{error}");
}

#[tokio::test]
async fn a_client_that_verifies_nothing_believes_anyone_and_says_so() {
    let authority = Authority::root("root");
    let (_, connected) = met(&authority, &client(None), ConnectOptions::default()).await;
    let connected = connected.unwrap();
    assert_eq!(connected.validation, PeerValidation::NotChecked);
    assert_eq!(connected.peer_identity(), None);
}

#[tokio::test]
async fn the_name_that_was_sent_is_looked_for_only_where_that_is_configured() {
    let authority = Authority::root("root");
    let mut settings = client(None);
    settings.common.validation_context = Some(trusting(&[&authority]));
    let ask = |name: &'static str, verify_server_name| ConnectOptions {
        server_name: Some(name),
        verify_server_name,
        ..ConnectOptions::default()
    };
    assert!(
        met(&authority, &settings, ask("z.example.com", false))
            .await
            .1
            .is_ok()
    );
    assert!(
        met(&authority, &settings, ask("z.example.com", true))
            .await
            .1
            .is_err()
    );
    settings.auto_sni_san_validation = true;
    for (name, fine) in [
        ("a.example.com", true),
        ("A.example.com", true),
        ("b.example.org", true),
        ("b.example.com", false),
        ("c.b.example.org", false),
    ] {
        let (_, connected) = met(&authority, &settings, ask(name, false)).await;
        match connected {
            Ok(info) => assert!(fine && info.validation == PeerValidation::Passed, "{name}"),
            Err(HandshakeFailure::Verification(VerificationFailure::ServerName { expected, presented })) => {
                assert!(!fine, "{name}");
                assert_eq!(expected, name);
                assert_eq!(presented, ["a.example.com", "*.example.org"]);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let (_, connected) = met(&authority, &settings, ConnectOptions::default()).await;
    assert_eq!(
        connected.unwrap_err(),
        HandshakeFailure::Verification(VerificationFailure::NoServerName)
    );
}

#[tokio::test]
async fn the_sent_name_takes_the_place_of_configured_ones_or_comes_besides() {
    let authority = Authority::root("root");
    let mut validation = trusting(&[&authority]);
    validation.match_typed_subject_alt_names = vec![expecting(
        SanType::Uri,
        StringPattern::Exact("spiffe://a/b".to_owned()),
    )];
    let mut settings = client(None);
    settings.common.validation_context = Some(validation);
    let options = ConnectOptions {
        server_name: Some("a.example.com"),
        verify_server_name: true,
        ..ConnectOptions::default()
    };
    let (_, connected) = met(&authority, &settings, options).await;
    assert_eq!(
        connected.unwrap_err().verification().unwrap().check(),
        "subject-alt-names"
    );
    settings.auto_sni_san_validation = true;
    assert!(met(&authority, &settings, options).await.1.is_ok());
}

#[test]
fn names_are_not_looked_for_without_an_authority() {
    let settings = UpstreamTlsContext {
        auto_sni_san_validation: true,
        ..client(None)
    };
    let error = ClientContext::new(&settings, now()).unwrap_err().to_string();
    assert!(error.starts_with("auto_sni_san_validation"), "{error}");
}

#[tokio::test]
async fn a_connection_may_offer_other_protocols() {
    let authority = Authority::root("root");
    let leaf = authority.leaf(&Says::default());
    let mut server = server(&[&leaf]);
    server.common.alpn_protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    let server = server_context(&server);
    let mut settings = client(None);
    settings.common.alpn_protocols = vec!["h2".to_owned()];
    let client = client_context(&settings);
    let only_old = ["istio-http/1.1".to_owned(), "http/1.1".to_owned()];
    for (alpn, agreed) in [(&[][..], "h2"), (&only_old[..], "http/1.1")] {
        let options = ConnectOptions {
            alpn,
            ..ConnectOptions::default()
        };
        let (served, _) = meet(&server, &client, options).await;
        assert_eq!(served.unwrap().alpn.as_deref(), Some(agreed));
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_and_may_be_required() {
    let authority = Authority::root("root");
    let server_leaf = authority.leaf(&Says::default());
    let client_leaf = authority.leaf(&Says::uri(&["spiffe://a/ns/b/sa/c"]));
    let mut settings = mutual_server(&server_leaf, trusting(&[&authority]));
    let (with, without) = (
        client_context(&client(Some(&client_leaf))),
        client_context(&client(None)),
    );
    let nothing = ConnectOptions::default();

    let (served, connected) = meet(&server_context(&settings), &with, nothing).await;
    assert_eq!(served.unwrap().peer_identity(), Some("spiffe://a/ns/b/sa/c"));
    assert_eq!(connected.unwrap().local.unwrap().uris, ["spiffe://a/ns/b/sa/c"]);

    let (served, connected) = meet(&server_context(&settings), &without, nothing).await;
    assert_eq!(served.unwrap_err(), HandshakeFailure::NoCertificate);
    let refused = HandshakeFailure::Refused {
        name: "certificate_required".to_owned(),
        alert: 116,
    };
    assert_eq!(connected.unwrap_err(), refused);

    settings.require_client_certificate = false;
    let (served, _) = meet(&server_context(&settings), &without, nothing).await;
    assert_eq!(served.unwrap().validation, PeerValidation::NoCertificate);
}

#[test]
fn a_client_has_one_certificate_at_most() {
    let authority = Authority::root("root");
    let leaf = authority.leaf(&Says::default());
    let mut settings = client(Some(&leaf));
    settings.common.tls_certificates.push(leaf.material());
    let error = ClientContext::new(&settings, now()).unwrap_err().to_string();
    assert_eq!(error, "tls_certificates has more than 1 entries");
}
