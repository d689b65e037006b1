//! The PROXY protocol: what is believed of clients, and what hosts are told.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::harness::program::{Program, on_both};
use crate::harness::{
    Proxy, bootstrap, cluster, connect, echo_upstream, eventually, http_filters, lines, upstream_with,
};
use crate::world::{chain, listener_with, tcp};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 80 443\r\n";
const IPV4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0, 80, 1, 187];

/// A header of version 2 with this command, family and transport, and rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &[0x20 | command, family], &length, rest].concat()
}

/// A listener filter with these fields, as the field of a listener.
fn filter(fields: &str) -> String {
    format!(
        ", listener_filters_timeout: 0.2s, listener_filters: [{{ name: proxy_protocol, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol {fields} }} }}]"
    )
}

/// A proxy with this filter before an echo.
fn receiving(program: &Program, fields: &str, log: &str) -> Proxy {
    let listener = listener_with("l", &[chain("", &tcp("app", "", log))], &filter(fields));
    program.start(listener, cluster("app", echo_upstream("app")))
}

/// What comes back; nothing when the connection is closed.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    // Envoy drops a connection whose end it sees before it has looked at the beginning, so the first word is waited for.
    let mut answer = vec![0; 1];
    if !matches!(stream.read(&mut answer), Ok(1)) {
        // A reset is an answer too: nothing.
        return Vec::new();
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn the_header_tells_where_a_connection_comes_from_and_goes_to() {
    on_both(
        "the_header_tells_where_a_connection_comes_from_and_goes_to",
        |program| {
            let log = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
            let proxy = receiving(program, "", log);
            let address = proxy.listener("l");
            let ipv6 = [&[0xfd; 16][..], &[0xfc; 16], &[0, 80, 1, 187]].concat();
            let headers = [V1.to_vec(), v2(1, 0x11, &IPV4), v2(1, 0x21, &ipv6), v2(0, 0, b"")];
            for (count, header) in headers.iter().enumerate() {
                let sent = [&header[..], b"hello"].concat();
                assert_eq!(answer(address, &sent), b"app\nhello");
                lines(&proxy, "log", count + 1);
            }
            let log = lines(&proxy, "log", 4);
            let told = "192.0.2.1:80 192.0.2.2:443 127.0.0.1";
            assert_eq!(log[..2], [told, told]);
            let ends = ["fdfd", "fcfc"].map(|group| [group; 8].join(":"));
            assert_eq!(log[2], format!("[{}]:80 [{}]:443 127.0.0.1", ends[0], ends[1]));
            assert!(log[3].starts_with("127.0.0.1:"), "{}", log[3]);
            assert_eq!(proxy.stat("proxy_proto.versions.v1.found"), 1);
            assert_eq!(proxy.stat("proxy_proto.versions.v2.found"), 3);
        },
    );
}

#[test]
fn a_header_may_come_in_pieces() {
    on_both("a_header_may_come_in_pieces", |program| {
        let proxy = receiving(program, "", "%DOWNSTREAM_REMOTE_ADDRESS%");
        let rest = [&IPV4[..], &[4, 0x40, 0], &[b'n'; 0x4000]].concat();
        for header in [V1.to_vec(), v2(1, 0x11, &rest)] {
            let mut stream = connect(proxy.listener("l")).unwrap();
            stream.set_nodelay(true).unwrap();
            let (first, rest) = header.split_at(7);
            let (second, third) = rest.split_at(rest.len() / 2);
            for part in [first, second, third, b"x"] {
                stream.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"app\nx");
        }
        assert_eq!(lines(&proxy, "log", 2), ["192.0.2.1:80"; 2]);
    });
}

#[test]
fn without_a_header_that_is_understood_connections_are_closed_and_counted() {
    let test = "without_a_header_that_is_understood_connections_are_closed_and_counted";
    on_both(test, |program| {
        let proxy = receiving(program, "", "");
        let address = proxy.listener("l");
        let cut = [&IPV4[..], &[2, 0, 9, b'x']].concat();
        for (bytes, stat) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not_found_disallowed"),
            (b"PROXY TCP4 192.0.2.1\r\n".to_vec(), "versions.v1.error"),
            (v2(1, 0x11, &cut), "versions.v2.error"),
            (v2(1, 0x31, &[0; 216]), "versions.v2.error"),
        ] {
            let stat = format!("proxy_proto.{stat}");
            let before = proxy.stat(&stat);
            assert!(answer(address, &bytes).is_empty());
            eventually(&stat, || (proxy.stat(&stat) == before + 1).then_some(()));
        }
        assert_eq!(proxy.stat("downstream_cx_proxy_proto_error"), 4);
        assert!(answer(address, b"PROXY").is_empty(), "waits in vain");
    });
}

#[test]
fn connections_without_a_header_go_on_where_that_is_allowed() {
    on_both(
        "connections_without_a_header_go_on_where_that_is_allowed",
        |program| {
            let fields =
                ", allow_requests_without_proxy_protocol: true, disallowed_versions: [V1], stat_prefix: lax";
            let proxy = receiving(program, fields, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%");
            let address = proxy.listener("l");
            assert_eq!(answer(address, b"hello"), b"app\nhello");
            assert_eq!(answer(address, V1), [b"app\n", V1].concat());
            assert_eq!(answer(address, &v2(1, 0x11, &IPV4)), b"app\n");
            let mut log = lines(&proxy, "log", 3);
            log.sort_unstable();
            assert_eq!(log, ["127.0.0.1", "127.0.0.1", "192.0.2.1"]);
            assert_eq!(proxy.stat("proxy_proto.lax.not_found_allowed"), 2);
        },
    );
}

#[test]
fn a_version_that_is_not_allowed_closes_the_connection() {
    on_both("a_version_that_is_not_allowed_closes_the_connection", |program| {
        let proxy = receiving(program, ", disallowed_versions: [V2]", "");
        let address = proxy.listener("l");
        assert!(answer(address, &v2(1, 0x11, &IPV4)).is_empty());
        assert_eq!(answer(address, V1), b"app\n");
        let stats = ["versions.v2.found", "versions.v2.disallowed", "versions.v1.found"];
        let stats = stats.map(|stat| proxy.stat(&format!("proxy_proto.{stat}")));
        assert_eq!(
            (stats, proxy.stat("downstream_cx_proxy_proto_error")),
            ([1; 3], 0)
        );
    });
}

#[test]
fn extensions_are_told_to_the_access_log() {
    let rules = ", rules: [{ tlv_type: 2, on_tlv_present: { key: name } }, { tlv_type: 224, on_tlv_present: { \
                 metadata_namespace: mine, key: raw, value_string_encoding: BASE64 } }]";
    let rest = [&IPV4[..], &[2, 0, 4, b'a', 0xff, 0xfe, b'b', 224, 0, 2, 0, 1]].concat();
    let log = "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:name)% %DYNAMIC_METADATA(mine:raw)% \
               %FILTER_STATE(envoy.network.proxy_protocol.tlv:FIELD:name)%";
    on_both("extensions_are_told_to_the_access_log", |program| {
        for (fields, logged) in [
            (rules.to_owned(), "a!!b AAE= -"),
            (format!("{rules}, tlv_location: FILTER_STATE"), "- - a!!b"),
        ] {
            let proxy = receiving(program, &fields, log);
            assert_eq!(answer(proxy.listener("l"), &v2(1, 0x11, &rest)), b"app\n");
            assert_eq!(lines(&proxy, "log", 1), [logged]);
        }
    });
}

/// An upstream that takes a header of version 2, or a line of version 1, and answers with it: at once, or each HTTP
/// request behind it.
fn telling_upstream(speaks_http: bool) -> SocketAddr {
    upstream_with(move |mut stream| {
        let mut head = vec![0; 16];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let mut byte = [0];
        if head.starts_with(b"PROXY ") {
            while !head.ends_with(b"\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
        } else {
            let mut rest = vec![0; usize::from(head[14]) << 8 | usize::from(head[15])];
            stream.read_exact(&mut rest).unwrap();
            head.extend(rest);
        }
        let head: String = head.iter().map(|byte| byte.escape_ascii().to_string()).collect();
        if !speaks_http {
            let _ = stream.write_all(head.as_bytes());
        }
        let mut request = Vec::new();
        while matches!(stream.read(&mut byte), Ok(1)) {
            request.push(byte[0]);
            if speaks_http && request.ends_with(b"\r\n\r\n") {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
                stream.write_all(answer.as_bytes()).unwrap();
                request.clear();
            }
        }
    })
}

/// A cluster that tells its hosts of clients.
fn telling_cluster(config: &str, address: SocketAddr) -> String {
    let plain = cluster("app", address);
    format!(
        "{}, transport_socket: {{ name: proxy, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         config: {{ {config} }}, transport_socket: {{ name: raw, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer }} }} }} }} }}",
        plain.strip_suffix('}').unwrap()
    )
}

#[test]
fn hosts_are_told_of_the_client_and_of_its_extensions() {
    on_both("hosts_are_told_of_the_client_and_of_its_extensions", |program| {
        let came = [&IPV4[..], &[1, 0, 1, b'c', 2, 0, 1, b'd']].concat();
        let escaped = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let cases = [
            ("version: V1", "", escaped(V1)),
            ("version: V2", "", escaped(&v2(1, 0x11, &IPV4))),
            (
                "version: V2, pass_through_tlvs: {}, added_tlvs: [{ type: 2, value: bWluZQ== }]",
                "",
                escaped(&v2(
                    1,
                    0x11,
                    &[&IPV4[..], &[2, 0, 4], b"mine", &[1, 0, 1, b'c']].concat(),
                )),
            ),
            (
                "version: V2, pass_through_tlvs: { match_type: INCLUDE, tlv_type: [1, 9] }",
                ", proxy_protocol_tlvs: [{ type: 9, value: YQ== }, { type: 8, value: YQ== }], \
                 proxy_protocol_tlv_merge_policy: APPEND_IF_EXISTS_OR_ADD",
                escaped(&v2(
                    1,
                    0x11,
                    &[&IPV4[..], &[1, 0, 1, b'c', 9, 0, 1, b'a']].concat(),
                )),
            ),
        ];
        for (config, fields, told) in cases {
            let listener = listener_with(
                "l",
                &[chain("", &tcp("app", fields, ""))],
                &filter(", pass_through_tlvs: {}"),
            );
            let proxy = program.start(listener, telling_cluster(config, telling_upstream(false)));
            let answer = answer(proxy.listener("l"), &v2(1, 0x11, &came));
            assert_eq!(String::from_utf8(answer).unwrap(), told, "{config}");
        }
    });
}

#[test]
fn hosts_are_told_of_the_socket_where_no_header_came() {
    on_both("hosts_are_told_of_the_socket_where_no_header_came", |program| {
        let listener = listener_with("l", &[chain("", &tcp("app", "", ""))], "");
        let proxy = program.start(listener, telling_cluster("version: V1", telling_upstream(false)));
        let mut client = connect(proxy.listener("l")).unwrap();
        let ends = (
            client.local_addr().unwrap().port(),
            client.peer_addr().unwrap().port(),
        );
        client.shutdown(Shutdown::Write).unwrap();
        let mut told = String::new();
        client.read_to_string(&mut told).unwrap();
        assert_eq!(
            told,
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\\r\\n", ends.0, ends.1)
        );
    });
}

#[test]
fn a_host_is_told_of_one_client_on_one_connection() {
    on_both("a_host_is_told_of_one_client_on_one_connection", |program| {
        let listener = listener_with("l", &[chain("", &http_filters("app"))], &filter(""));
        let cluster = telling_cluster("version: V1", telling_upstream(true));
        let proxy = program.launch(&bootstrap(&[listener], &[cluster]));
        let told = |client: u8| {
            let mut stream = connect(proxy.listener("l")).unwrap();
            let header = format!("PROXY TCP4 192.0.2.{client} 192.0.2.9 80 443\r\n");
            let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(format!("{header}{request}").as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let body = answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
            assert_eq!(body, header.escape_default().to_string());
        };
        [1, 1, 2, 1].into_iter().for_each(told);
        assert_eq!(proxy.stat("cluster.app.upstream_cx_total"), 2);
    });
}
