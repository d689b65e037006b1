//! What a connection tells about itself and its peer, and the header that tells it on.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tls::{
    Certificate, ClientCertDetails, ConnectOptions, PeerCertificates, PeerValidation, client_cert_element,
};

use crate::support::{
    Authority, Says, client, client_context, meet, mutual_server, server_context, trusting,
};

const CLIENT: &[u8] = include_bytes!("recorded/client.pem");
const SERVER: &[u8] = include_bytes!("recorded/server.pem");
/// The header that Envoy 1.40 made of a connection between these two, with every detail switched on.
const HEADER: &str = include_str!("recorded/x-forwarded-client-cert.txt");
const EVERYTHING: ClientCertDetails = ClientCertDetails {
    subject: true,
    cert: true,
    chain: true,
    uri: true,
    dns: true,
};

fn recorded(pem: &[u8]) -> PeerCertificates {
    PeerCertificates::from_der(vec![CertificateDer::from_pem_slice(pem).unwrap()]).unwrap()
}

fn details(subject: bool, uri: bool, dns: bool) -> ClientCertDetails {
    ClientCertDetails {
        subject,
        uri,
        dns,
        ..ClientCertDetails::default()
    }
}

/// The values that Envoy 1.40 printed for `%DOWNSTREAM_PEER_…%` of the same certificate.
#[test]
fn a_certificate_is_read_as_envoy_reads_it() {
    let peer = recorded(CLIENT);
    let leaf = peer.leaf();
    assert_eq!(
        leaf.subject,
        r#"CN=\ client#1,OU=\C3\84 b \<c\>,O=Ac\"me\, Inc.\\,C=DE"#
    );
    assert_eq!(leaf.issuer, "CN=ca,O=Test");
    assert_eq!(leaf.serial, "104310d976aa82d6570224521a8165d5eb18b839");
    assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/default/sa/client"]);
    assert_eq!(leaf.dns_names, ["client.example.com", "two.example.com"]);
    assert_eq!(leaf.emails, ["a@example.com"]);
    assert_eq!(
        leaf.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1", "::1"]
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&leaf.sha256),
        "26d3e45f8645775f56e21bae2f64528cea24d295820b2877213110d724ba4d2e"
    );
    assert_eq!(hex(&leaf.sha1), "7a4bd7808f908f16ee50bbada5afbd85cc308380");
    let since_1970 = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // 2026-11-21T15:45:03Z and a year later.
    assert_eq!(since_1970(leaf.not_before), Duration::from_secs(1_795_275_903));
    assert_eq!(since_1970(leaf.not_after), Duration::from_secs(1_826_811_903));
    assert!(!leaf.is_authority);
}

#[test]
fn the_certificates_of_a_file_are_read_all_or_none() {
    let root = Authority::root("root");
    let chain = root.intermediate("between").leaf(&Says::default()).chain;
    let read = tls::read_certificates(chain.as_bytes()).unwrap();
    assert_eq!(
        read.iter().map(|leaf| leaf.subject.as_str()).collect::<Vec<_>>(),
        ["CN=leaf", "CN=between"]
    );
    assert!(read[1].is_authority && !read[0].is_authority);
    assert!(tls::read_certificates(&chain.as_bytes()[..chain.len() - 30]).is_err());
    assert!(tls::read_certificates(b"").is_err());
}

#[test]
fn the_header_is_the_one_that_envoy_makes() {
    let element = client_cert_element(Some(recorded(SERVER).leaf()), &recorded(CLIENT), EVERYTHING);
    assert_eq!(element, HEADER);
}

/// The parts that Envoy's documentation shows in its examples: `By`, `Hash`, `Subject`, `URI`, `DNS`, in this order.
#[test]
fn the_header_has_only_the_parts_that_are_asked_for() {
    let (local, peer) = (recorded(SERVER), recorded(CLIENT));
    let by = "By=spiffe://cluster.local/ns/default/sa/server;By=https://second";
    let hash = "Hash=26d3e45f8645775f56e21bae2f64528cea24d295820b2877213110d724ba4d2e";
    let subject = r#"Subject="CN=\ client#1,OU=\C3\84 b \<c\>,O=Ac\"me\, Inc.\\,C=DE""#;
    let uri = "URI=spiffe://cluster.local/ns/default/sa/client";
    let dns = "DNS=client.example.com;DNS=two.example.com";
    for (asked, parts) in [
        (details(false, false, false), vec![by, hash]),
        (details(true, false, false), vec![by, hash, subject]),
        (details(false, true, false), vec![by, hash, uri]),
        (details(true, true, true), vec![by, hash, subject, uri, dns]),
    ] {
        assert_eq!(
            client_cert_element(Some(local.leaf()), &peer, asked),
            parts.join(";")
        );
    }
    let element = client_cert_element(None, &peer, details(false, false, true));
    assert_eq!(element, [hash, dns].join(";"));
}

#[test]
fn a_peer_without_names_still_has_an_empty_uri() {
    let nobody = Authority::root("root").leaf(&Says {
        name: "nobody",
        ..Says::default()
    });
    let element = client_cert_element(
        None,
        &recorded(nobody.chain.as_bytes()),
        details(true, true, true),
    );
    let (hash, rest) = element.split_once(';').unwrap();
    assert_eq!(hash.len(), "Hash=".len() + 64);
    assert_eq!(rest, "Subject=\"CN=nobody\";URI=");
}

#[tokio::test]
async fn both_ends_of_a_connection_describe_it_alike() {
    let root = Authority::root("root");
    let between = root.intermediate("between");
    let server_leaf = root.leaf(&Says {
        name: "server",
        ..Says::dns(&["a.example.com"])
    });
    let client_leaf = between.leaf(&Says {
        name: "client",
        ..Says::uri(&["spiffe://a/b"])
    });
    let mut server = mutual_server(&server_leaf, trusting(&[&root]));
    server.common.alpn_protocols = vec!["h2".to_owned()];
    let mut client = client(Some(&client_leaf));
    client.common.alpn_protocols = vec!["h2".to_owned()];
    client.common.validation_context = Some(trusting(&[&root]));
    client.sni = "A.example.com".to_owned();
    let (served, connected) = meet(
        &server_context(&server),
        &client_context(&client),
        ConnectOptions::default(),
    )
    .await;
    let (served, connected) = (served.unwrap(), connected.unwrap());
    for info in [&served, &connected] {
        assert_eq!((info.version, info.cipher), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"));
        assert_eq!(info.alpn.as_deref(), Some("h2"));
        assert_eq!(info.validation, PeerValidation::Passed);
    }
    assert_eq!(served.server_name.as_deref(), Some("a.example.com"));
    assert_eq!(served.peer_identity(), Some("spiffe://a/b"));
    let subject = |certificate: &Certificate| certificate.subject.clone();
    assert_eq!(subject(&served.local.unwrap()), "CN=server");
    assert_eq!(subject(connected.peer.unwrap().leaf()), "CN=server");
    assert_eq!(subject(&connected.local.unwrap()), "CN=client");
    let peer = served.peer.unwrap();
    assert_eq!(subject(peer.leaf()), "CN=client");
    assert_eq!(peer.chain().len(), 2);
    let chain = peer.url_encoded_chain();
    assert!(chain.starts_with(&peer.leaf().url_encoded_pem()));
    assert_eq!(chain.matches("-----BEGIN%20CERTIFICATE-----").count(), 2);
}

proptest! {
    /// A peer's certificate is read before anything vouches for it.
    #[test]
    fn no_bytes_in_place_of_a_certificate_stop_the_reader(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut der = CertificateDer::from_pem_slice(CLIENT).unwrap().to_vec();
        for (index, value) in changes {
            let at = index.index(der.len());
            der[at] = value;
        }
        if cut {
            der.truncate(end.index(der.len()));
        }
        if let Ok(peer) = PeerCertificates::from_der(vec![der.clone().into()]) {
            prop_assert_eq!(peer.chain()[0].as_ref(), &der[..]);
            let element = client_cert_element(None, &peer, EVERYTHING);
            prop_assert!(element.starts_with("Hash="));
        }
    }
}
