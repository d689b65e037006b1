//! TLS on either side or both: order, ends, counts.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use tls::settings::{CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate, UpstreamTlsContext};
use tls::{CertificateAuthority, ClientContext, ConnectOptions, ServerContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn tcp() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(connect, listener.accept());
    (Stream::Tcp(near.unwrap()), Stream::Tcp(far.unwrap().0))
}

/// A client's end and a server's end.
async fn tls_over_tcp() -> (Stream, Stream) {
    let (near, far) = tcp().await;
    let now = SystemTime::now();
    let authority = CertificateAuthority::generate("test", now).unwrap();
    let issued = authority.issue_server(&["a.test"], now).unwrap();
    let settings = DownstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: issued.certificate_pem.into_bytes(),
                private_key: Secret::new(issued.key_pem),
            }],
            ..CommonTlsContext::default()
        },
        ..DownstreamTlsContext::default()
    };
    let server = ServerContext::new(&settings, now).unwrap();
    let client = ClientContext::new(&UpstreamTlsContext::default(), now).unwrap();
    let (near, far) = tokio::join!(
        near.connect_tls(&client, ConnectOptions::default()),
        far.accept_tls(&server, &[]),
    );
    (near.unwrap(), far.unwrap())
}

/// Sends `bytes` through a copy to a server that answers at their end; checks order, half-close and counts.
async fn check_copy(
    (mut client, mut downstream): (Stream, Stream),
    (mut upstream, mut server): (Stream, Stream),
    bytes: usize,
) {
    let request: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let counted = Cell::new((0, 0));
    let progress = |side, bytes| {
        let (from_client, from_server) = counted.get();
        counted.set(match side {
            Side::Downstream => (from_client + bytes, from_server),
            Side::Upstream => (from_client, from_server + bytes),
        });
    };
    let proxy = both_ways(
        &mut downstream,
        &mut upstream,
        (b"early", Framed::default()),
        &progress,
    );
    let client_side = async {
        client.write_all(&request).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let server_side = async {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        server.write_all(&received).await.unwrap();
        server.shutdown().await.unwrap();
        received
    };
    let all = async { tokio::join!(proxy, client_side, server_side) };
    let (proxied, answer, received) = tokio::time::timeout(PATIENCE, all).await.expect("in time");
    proxied.unwrap();
    assert_eq!(&received[..5], b"early");
    assert!(received[5..] == request[..], "the bytes differ");
    assert!(answer == received, "the answer differs");
    assert_eq!(counted.get(), (bytes + 5, bytes + 5));
}

#[tokio::test]
async fn tls_downstream_is_copied_with_its_half_closes() {
    for bytes in [0, 10, 3 << 20] {
        check_copy(tls_over_tcp().await, tcp().await, bytes).await;
    }
}

#[tokio::test]
async fn tls_upstream_is_copied_with_its_half_closes() {
    for bytes in [0, 10, 3 << 20] {
        check_copy(tcp().await, tls_over_tcp().await, bytes).await;
    }
}

#[tokio::test]
async fn tls_on_both_sides_is_copied_with_its_half_closes() {
    check_copy(tls_over_tcp().await, tls_over_tcp().await, 3 << 20).await;
}

#[tokio::test]
async fn a_stream_with_plaintext_held_back_is_readable_and_one_without_is_not() {
    let (mut near, mut far) = tls_over_tcp().await;
    let readable = |stream: &Stream| {
        let mut context = Context::from_waker(std::task::Waker::noop());
        stream.poll_readable(&mut context).is_ready()
    };
    near.write_all(b"two bytes and more").await.unwrap();
    near.flush().await.unwrap();
    let mut two = [0; 2];
    tokio::time::timeout(PATIENCE, far.read_exact(&mut two))
        .await
        .unwrap()
        .unwrap();
    assert!(readable(&far), "the rest waits in TLS");
    let mut rest = [0; 16];
    far.read_exact(&mut rest).await.unwrap();
    assert!(!readable(&far));
    drop(near);
    let mut end = Vec::new();
    tokio::time::timeout(PATIENCE, far.read_to_end(&mut end))
        .await
        .unwrap()
        .unwrap();
    assert!(end.is_empty());
    assert!(readable(&far), "the end stays readable");
}
