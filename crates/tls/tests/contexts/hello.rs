//! ClientHellos by programs of different makes, and by chance, looked into without an answer.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tls::limits::MAX_CLIENT_HELLO_BYTES;
use tls::{ClientHello, Inspected, Inspector, inspect};

/// What rustls sends first.
fn by_rustls(name: &'static str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut connection = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// What `openssl s_client` sends first.
fn by_openssl(arguments: &[&str]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &listener.local_addr().unwrap().to_string(),
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while inspect(&bytes) == Inspected::NeedMore {
        let count = stream.read(&mut part).expect("a hello comes");
        assert_ne!(count, 0, "openssl closed the connection");
        bytes.extend_from_slice(&part[..count]);
    }
    client.kill().unwrap();
    client.wait().unwrap();
    bytes
}

fn tls(server_name: Option<&str>, alpn: &[&str]) -> Inspected {
    Inspected::Tls(ClientHello {
        server_name: server_name.map(str::to_owned),
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
    })
}

/// `hello`'s message in records of at most `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, part].concat()
    };
    hello[5..].chunks(size).flat_map(record).collect()
}

#[test]
fn a_hello_by_rustls_is_read() {
    let hello = by_rustls("Example.com", &["h2", "http/1.1"]);
    assert_eq!(inspect(&hello), tls(Some("example.com"), &["h2", "http/1.1"]));
    assert_eq!(inspect(&by_rustls("127.0.0.1", &[])), tls(None, &[]));
}

#[test]
fn a_hello_by_openssl_is_read() {
    for version in ["-tls1_2", "-tls1_3"] {
        let hello = by_openssl(&[
            version,
            "-servername",
            "A.example.com",
            "-alpn",
            "istio-http/1.1,istio",
        ]);
        assert_eq!(
            inspect(&hello),
            tls(Some("a.example.com"), &["istio-http/1.1", "istio"])
        );
        assert_eq!(inspect(&by_openssl(&[version, "-noservername"])), tls(None, &[]));
    }
}

#[test]
fn every_prefix_waits_for_more_and_what_follows_changes_nothing() {
    for hello in [
        by_rustls("example.com", &["h2"]),
        in_records(&by_rustls("example.com", &["h2"]), 17),
    ] {
        for end in 0..hello.len() {
            assert_eq!(inspect(&hello[..end]), Inspected::NeedMore, "{end}");
        }
        let followed = [&hello[..], b"anything"].concat();
        assert_eq!(inspect(&followed), tls(Some("example.com"), &["h2"]));
    }
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"\x16\x04",
        b"\x15\x03\x01",
        &[22, 3, 1, 0, 4, 2],
        &[22, 3, 1, 0, 0],
    ] {
        assert_eq!(inspect(bytes), Inspected::NotTls, "{bytes:?}");
    }
}

#[test]
fn a_hello_that_lies_about_its_lengths_is_not_tls() {
    let mut hello = by_rustls("example.com", &[]);
    let session_id = 5 + 4 + 34;
    hello[session_id] = 255;
    assert_eq!(inspect(&hello), Inspected::NotTls);
}

#[test]
fn a_hello_without_end_is_too_long() {
    // BoringSSL takes no message that announces more, so to Envoy that is another protocol.
    let announced = [22, 3, 1, 0x40, 0, 1, 0, 0x40, 1];
    assert_eq!(inspect(&announced), Inspected::NotTls);
    let one_byte_each = [
        22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 1, 0, 22, 3, 1, 0, 1, 0x3f, 22, 3, 1, 0, 1, 0,
    ];
    let rest = [22, 3, 1, 0, 1, 7].repeat(MAX_CLIENT_HELLO_BYTES / 6 + 1);
    let drop_by_drop = [&one_byte_each[..], &rest].concat();
    assert_eq!(
        inspect(&drop_by_drop[..MAX_CLIENT_HELLO_BYTES - 1]),
        Inspected::NeedMore
    );
    assert_eq!(inspect(&drop_by_drop), Inspected::TooLong);
    let mut short = Inspector::up_to(300);
    assert_eq!(short.push(&drop_by_drop), Inspected::TooLong);
    assert_eq!(short.looked_at(), 300);
}

/// Bytes like a ClientHello's, so that chance reaches the inner fields.
fn nearly_a_hello() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let alpn = prop_oneof![Just(&[][..]), Just(&["h2", "http/1.1"][..])];
    (changes, 1..600_usize, alpn).prop_map(|(changes, size, alpn)| {
        let mut bytes = in_records(&by_rustls("a.example.com", alpn), size);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

fn arbitrary_start() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        noise.clone(),
        noise.prop_map(|tail| [&[22, 3, 1, 1, 0, 1, 0, 0, 200][..], &tail].concat()),
        nearly_a_hello(),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_cutting_them_changes_nothing(
        bytes in arbitrary_start(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let whole = inspect(&bytes);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut inspector = Inspector::default();
        let mut begin = 0;
        let mut last = Inspected::NeedMore;
        for end in ends {
            let answer = inspector.push(&bytes[begin..end]);
            prop_assert!(last == Inspected::NeedMore || last == answer);
            last = answer;
            begin = end;
        }
        prop_assert_eq!(last, whole);
    }
}
