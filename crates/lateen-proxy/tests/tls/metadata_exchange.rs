//! `istio.metadata_exchange`: proxies that agreed on it tell each other of themselves, and applications see nothing of it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::certificates::{Authority, downstream, upstream};
use crate::harness::{cluster, connect, echo_upstream, listener, tcp_filters};
use crate::world::{Program, secure_cluster, secure_listener};

const FILTER: &str = "{ name: istio.metadata_exchange, typed_config: { \"@type\": \
                      type.googleapis.com/udpa.type.v1.TypedStruct, type_url: \
                      type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, value: { protocol: \
                      istio-peer-exchange, enable_discovery: true } } }";

/// What a client behind one proxy receives of a server behind another, when they offer and take these protocols, and
/// have the filter or not. The server speaks first.
fn exchanged((offered, client_filter): (&str, bool), (taken, server_filter): (&str, bool)) -> Vec<u8> {
    let root = Authority::new();
    let certificate = root.leaf("server", &["server.test"]);
    let filters = match server_filter {
        true => tcp_filters("app").replacen('[', &format!("[{FILTER}, "), 1),
        false => tcp_filters("app"),
    };
    let common = format!("{}, alpn_protocols: [{taken}]", certificate.certificates());
    let chain = format!("{}, filters: {filters}", downstream(&common, ""));
    let server = Program::Lateen.start(secure_listener(&chain, ""), cluster("app", echo_upstream("app")));
    let common = format!("{}, alpn_protocols: [{offered}]", root.validation(""));
    let more = if client_filter {
        format!(", filters: [{FILTER}]")
    } else {
        String::new()
    };
    let transport = upstream(&common, ", sni: server.test");
    let client = Program::Lateen.start(
        listener("plain", &tcp_filters("app")),
        secure_cluster(server.listener("web"), &transport, &more),
    );
    let mut stream = connect(client.listener("plain")).unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = greeting.to_vec();
    stream.read_to_end(&mut received).unwrap();
    received
}

#[test]
fn what_peers_tell_each_other_is_not_seen_by_applications() {
    let both = "istio-peer-exchange, istio";
    assert_eq!(exchanged((both, true), (both, true)), b"app\nhello");
}

#[test]
fn nothing_is_told_where_another_protocol_was_agreed_on() {
    let both = "istio-peer-exchange, istio";
    assert_eq!(exchanged(("istio", true), (both, true)), b"app\nhello");
    assert_eq!(exchanged((both, true), ("istio", true)), b"app\nhello");
}

#[test]
fn a_peer_that_agrees_and_tells_nothing_loses_nothing() {
    let both = "istio-peer-exchange, istio";
    let received = exchanged((both, true), (both, false));
    // The other's application gets the frame that nobody took out, as it would of Istio's filter.
    assert_eq!(
        (&received[..4], &received[received.len() - 5..]),
        (&b"app\n"[..], &b"hello"[..])
    );
    assert_eq!(received[4..8], [0x3d, 0x23, 0x04, 0x67]);
}
