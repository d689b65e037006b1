//! HTTP/2 by agreement: TLS handshakes decide which version is spoken, on both sides of the proxy.

use crate::certificates::{Authority, downstream, upstream as transport};
use crate::harness::{HTTP2, Proxy, cluster_with, get, http_upstream, socket};
use crate::peer::{filters, lines, start};

/// A proxy that serves TLS with these application protocols in front of an HTTP/1 upstream.
fn server(root: &Authority, alpn: &str) -> Proxy {
    let leaf = root.leaf("server", &["server.test"]);
    let common = format!("alpn_protocols: [{alpn}], {}", leaf.certificates());
    let listener = format!(
        "{{ name: web, address: {}, filter_chains: [{{ {}, filters: {} }}] }}",
        socket("127.0.0.1:0".parse().unwrap()),
        downstream(&common, ""),
        filters("", "")
    );
    start(&listener, &crate::harness::cluster("app", http_upstream("app")))
}

/// A proxy that serves plain HTTP in front of a TLS server.
fn client(root: &Authority, server: &Proxy, options: &str, alpn: &str, filter: &str) -> Proxy {
    let common = format!("alpn_protocols: [{alpn}], {}", root.validation(""));
    let cluster = cluster_with("app", server.listener("web"), options);
    let fields = cluster.strip_suffix('}').unwrap();
    let cluster = format!("{fields}, {} }}", transport(&common, ", sni: server.test"));
    let filters = filters("", "").replacen("http_filters: [", &format!("http_filters: [{filter}"), 1);
    start(&crate::harness::listener("web", &filters), &cluster)
}

/// Istio's filter that says what is offered by what will be spoken.
const ISTIO_ALPN: &str = "{ name: istio.alpn, typed_config: { \"@type\": \
                          type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, alpn_override: \
                          [{ upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1] }, { \
                          upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2] }] } }, ";

/// What is spoken between the proxies, in the words of both their access logs.
fn spoken(options: &str, offered: &str, accepted: &str, filter: &str) -> (String, String) {
    let root = Authority::new();
    let server = server(&root, accepted);
    let client = client(&root, &server, options, offered, filter);
    for _ in 0..3 {
        let answer = get(client.listener("web"), "GET", "a", "/x").unwrap();
        assert_eq!(answer, (200, "app /x".to_owned()));
    }
    let word = |line: &str, index: usize| line.split(' ').nth(index).unwrap().to_owned();
    (word(&lines(&client, 3)[2], 1), word(&lines(&server, 3)[2], 0))
}

const AUTO: &str = "auto_config: { http_protocol_options: {}, http2_protocol_options: {} }";
const HTTP1: &str = "explicit_http_config: { http_protocol_options: {} }";

#[test]
fn the_handshake_decides_where_the_cluster_leaves_it_open() {
    let both = |version: &str| (version.to_owned(), version.to_owned());
    for (options, offered, accepted, version) in [
        (AUTO, "", "h2, http/1.1", "HTTP/2"),
        (AUTO, "", "http/1.1", "HTTP/1.1"),
        (AUTO, "", "", "HTTP/1.1"),
        (HTTP2, "", "h2, http/1.1", "HTTP/2"),
        (HTTP2, "h2, istio", "h2, http/1.1", "HTTP/2"),
        // Nobody offers what would not be spoken.
        (HTTP1, "h2, http/1.1", "h2, http/1.1", "HTTP/1.1"),
        (HTTP1, "", "h2, http/1.1", "HTTP/1.1"),
    ] {
        let spoken = spoken(options, offered, accepted, "");
        assert_eq!(spoken, both(version), "{options} {offered} {accepted}");
    }
}

#[test]
fn what_is_offered_follows_what_will_be_spoken() {
    // The server takes the first of its own that is offered: with the other version's list it would be the wrong one.
    for (options, accepted, version) in [
        (HTTP2, "http/1.1, h2", "HTTP/2"),
        (HTTP1, "h2, istio-http/1.1", "HTTP/1.1"),
    ] {
        let (up, _) = spoken(options, "", accepted, ISTIO_ALPN);
        assert_eq!(up, version, "{accepted}");
    }
}
