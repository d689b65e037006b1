//! Tables of connections against filter chains, in Envoy's order of criteria.

use std::rc::Rc;
use std::time::SystemTime;

use api_envoy::envoy::config::listener::v3::FilterChainMatch;
use api_envoy::json::Schema;
use proxy_core::{Address, ConnectionInfo, TransportProtocol};
use serde_json::{Value, json};

use super::*;

fn matcher(chains: &Value) -> ConfigResult<FilterChainMatcher> {
    let schema = Schema::get();
    let parse = |json: &Value| {
        let proto: FilterChainMatch = schema.parse(json).unwrap();
        ChainMatch::compile(Some(&proto))
    };
    FilterChainMatcher::new(
        chains
            .as_array()
            .unwrap()
            .iter()
            .map(parse)
            .collect::<ConfigResult<_>>()?,
    )
}

/// `source > destination [tls] [sni=...] [alpn=a,b]`
fn connection(text: &str) -> ConnectionInfo {
    let mut words = text.split_whitespace();
    let source: std::net::SocketAddr = words.next().unwrap().parse().unwrap();
    assert_eq!(words.next(), Some(">"));
    let destination: std::net::SocketAddr = words.next().unwrap().parse().unwrap();
    let mut info = ConnectionInfo::new(
        1,
        Address::Ip(source),
        Address::Ip(destination),
        SystemTime::UNIX_EPOCH,
    );
    for word in words {
        match word.split_once('=') {
            None => info.transport_protocol = TransportProtocol::Tls,
            Some(("sni", name)) => info.requested_server_name = Some(Rc::from(name)),
            Some((_, list)) => info.application_protocols = list.split(',').map(Rc::from).collect(),
        }
    }
    info
}

fn check(chains: Value, expected: &[(&str, Option<usize>)]) {
    let matcher = matcher(&chains).unwrap();
    for (text, want) in expected {
        assert_eq!(matcher.find(&connection(text)), *want, "{text}");
    }
}

#[test]
fn a_destination_port_that_is_named_shuts_out_chains_without_port() {
    check(
        json!([{}, { "destination_port": 80, "transport_protocol": "tls" }]),
        &[
            ("10.0.0.1:5 > 10.0.0.2:81", Some(0)),
            ("10.0.0.1:5 > 10.0.0.2:80 tls", Some(1)),
            ("10.0.0.1:5 > 10.0.0.2:80", None),
        ],
    );
}

#[test]
fn the_longest_destination_prefix_decides() {
    check(
        json!([
            { "prefix_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] },
            { "prefix_ranges": [{ "address_prefix": "10.1.0.0", "prefix_len": 16 },
                                { "address_prefix": "fd00::", "prefix_len": 8 }] },
            {}
        ]),
        &[
            ("1.1.1.1:5 > 10.9.0.1:80", Some(0)),
            ("1.1.1.1:5 > 10.1.0.1:80", Some(1)),
            ("[::1]:5 > [fd01::1]:80", Some(1)),
            ("1.1.1.1:5 > [::ffff:10.1.0.1]:80", Some(1)),
            ("1.1.1.1:5 > 11.0.0.1:80", Some(2)),
        ],
    );
}

#[test]
fn server_names_match_exactly_then_by_longest_suffix() {
    check(
        json!([
            { "server_names": ["www.example.com"] },
            { "server_names": ["*.example.com"] },
            { "server_names": ["*.com", "example.org"] },
            {}
        ]),
        &[
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=www.example.com", Some(0)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=api.example.com", Some(1)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=a.b.example.com", Some(1)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=example.com", Some(2)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=example.org", Some(2)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls sni=example.net", Some(3)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls", Some(3)),
        ],
    );
}

#[test]
fn there_is_no_way_back_to_a_wider_server_name() {
    check(
        json!([
            { "server_names": ["www.example.com"], "transport_protocol": "raw_buffer" },
            { "server_names": ["*.example.com"] }
        ]),
        &[("1.1.1.1:5 > 2.2.2.2:443 tls sni=www.example.com", None)],
    );
}

#[test]
fn permissive_inbound_chains_part_by_transport_and_application_protocol() {
    let http = ["http/1.0", "http/1.1", "h2c"];
    let mesh = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
    check(
        json!([
            { "destination_port": 9080, "transport_protocol": "tls", "application_protocols": mesh },
            { "destination_port": 9080, "transport_protocol": "raw_buffer", "application_protocols": http },
            { "destination_port": 9080, "transport_protocol": "tls",
              "application_protocols": ["istio-peer-exchange", "istio"] },
            { "destination_port": 9080, "transport_protocol": "raw_buffer" },
            { "destination_port": 9080, "transport_protocol": "tls" }
        ]),
        &[
            (
                "1.1.1.1:5 > 2.2.2.2:9080 tls alpn=istio-http/1.1,istio,http/1.1",
                Some(0),
            ),
            ("1.1.1.1:5 > 2.2.2.2:9080 alpn=http/1.1", Some(1)),
            ("1.1.1.1:5 > 2.2.2.2:9080 tls alpn=istio", Some(2)),
            ("1.1.1.1:5 > 2.2.2.2:9080", Some(3)),
            ("1.1.1.1:5 > 2.2.2.2:9080 tls alpn=h2", Some(4)),
            ("1.1.1.1:5 > 2.2.2.2:9081", None),
        ],
    );
}

#[test]
fn the_first_offered_application_protocol_that_a_chain_names_decides() {
    check(
        json!([{ "application_protocols": ["h2"] }, { "application_protocols": ["http/1.1"] }]),
        &[
            ("1.1.1.1:5 > 2.2.2.2:443 tls alpn=http/1.1,h2", Some(1)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls alpn=foo,h2", Some(0)),
            ("1.1.1.1:5 > 2.2.2.2:443 tls", None),
        ],
    );
}

#[test]
fn source_type_address_and_port_come_last() {
    check(
        json!([
            { "source_type": "SAME_IP_OR_LOOPBACK" },
            { "source_type": "EXTERNAL", "source_prefix_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] },
            { "source_type": "EXTERNAL", "source_ports": [7] },
            { "source_type": "EXTERNAL" }
        ]),
        &[
            ("127.0.0.1:5 > 2.2.2.2:80", Some(0)),
            ("2.2.2.2:5 > 2.2.2.2:80", Some(0)),
            ("10.1.1.1:5 > 2.2.2.2:80", Some(1)),
            ("11.1.1.1:7 > 2.2.2.2:80", Some(2)),
            ("11.1.1.1:8 > 2.2.2.2:80", Some(3)),
        ],
    );
}

#[test]
fn the_direct_source_is_the_peer_of_the_socket() {
    let matcher = matcher(&json!([
        { "direct_source_prefix_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] }
    ]))
    .unwrap();
    let mut info = connection("10.0.0.1:5 > 2.2.2.2:80");
    info.remote_address = Address::Ip("9.9.9.9:1".parse().unwrap());
    assert_eq!(matcher.find(&info), Some(0));
    info.direct_remote_address = info.remote_address.clone();
    assert_eq!(matcher.find(&info), None);
}

#[test]
fn chains_that_match_equally_well_are_refused() {
    let error = matcher(&json!([
        { "server_names": ["a", "b"] }, { "server_names": ["c"] }, { "server_names": ["B"] }
    ]))
    .unwrap_err();
    assert_eq!(error.path(), "filter_chains[2].filter_chain_match");
}

#[test]
fn partial_wildcards_are_refused() {
    let error = matcher(&json!([{ "server_names": ["ok", "w*.example.com"] }])).unwrap_err();
    assert_eq!(error.path(), "server_names[1]");
}

/// A thousand services, each with a name of its own and three chains behind it.
#[test]
fn thousands_of_chains_are_compiled_and_found_quickly() {
    let chain = |service: usize, rest: Value| {
        let mut chain = json!({ "server_names": [format!("s{service}.test"), format!("*.s{service}.test")],
            "prefix_ranges": [{ "address_prefix": format!("10.{}.{}.0", service / 256, service % 256), "prefix_len": 24 }] });
        chain
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        chain
    };
    let variants = [
        json!({}),
        json!({ "transport_protocol": "tls" }),
        json!({ "application_protocols": ["h2"] }),
    ];
    let chains: Vec<Value> = (0..1000)
        .flat_map(|service| {
            variants
                .iter()
                .map(move |rest| chain(service, rest.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    let start = std::time::Instant::now();
    let matcher = matcher(&Value::Array(chains)).unwrap();
    let connections: Vec<_> = (0..1000)
        .map(|s| {
            connection(&format!(
                "1.1.1.1:5 > 10.{}.{}.9:443 tls sni=a.s{s}.test",
                s / 256,
                s % 256
            ))
        })
        .collect();
    let found: Vec<_> = connections
        .iter()
        .map(|connection| matcher.find(connection))
        .collect();
    assert!(
        start.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(service, found)| *found == Some(3 * service + 1))
    );
    assert_eq!(
        matcher.find(&connection("1.1.1.1:5 > 10.0.1.9:443 tls sni=s2.test")),
        None
    );
}

#[test]
fn a_catch_all_range_takes_what_no_other_takes() {
    let everywhere = json!({ "prefix_ranges": [{ "address_prefix": "0.0.0.0", "prefix_len": 0 }] });
    let narrow = json!({ "prefix_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }] });
    check(
        json!([everywhere, narrow]),
        &[
            ("1.1.1.1:5 > 10.9.0.1:80", Some(1)),
            ("[::1]:5 > [fd01::1]:80", Some(0)),
        ],
    );
}
