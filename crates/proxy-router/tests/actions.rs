//! What requests become on the way upstream and answers on the way back. The expectations marked "asked" are what a real
//! Envoy 1.40 did with the same configuration.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::json::Schema;
use proxy_core::substitution::ProcessInfo;
use proxy_core::{Address, ClusterSlot, ConfigError, ConfigResult, ConnectionInfo, StreamInfo};
use proxy_http::{HeaderName, Headers, RequestHead, ResponseHead};
use proxy_router::{ClusterRef, FilterConfig, RouteContext, RouteResult, RouteTable};

struct Context;

impl RouteContext for Context {
    fn cluster(&mut self, name: &str) -> ClusterSlot {
        ClusterSlot(name.len() as u32)
    }

    fn filter_config(&mut self, filter: &str, _: &api_envoy::Any) -> ConfigResult<FilterConfig> {
        match filter {
            "known" => Ok(std::sync::Arc::new(7_u32)),
            _ => Err(ConfigError::new("no such filter")),
        }
    }
}

fn compile(yaml: &str) -> ConfigResult<RouteTable> {
    let proto: RouteConfiguration = Schema::get()
        .parse_yaml(yaml)
        .unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    RouteTable::compile(&proto, &mut Context)
}

/// A table with one virtual host for all authorities and these routes.
fn routes(routes: &str) -> RouteTable {
    compile(&format!(
        "virtual_hosts: [{{ name: v, domains: ['*'], routes: [{routes}] }}]"
    ))
    .unwrap()
}

fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut request = RequestHead::with("GET", "http", "a.test", path);
    fields
        .iter()
        .for_each(|(name, value)| request.headers.append(&HeaderName::new(name), value.as_bytes()));
    request
}

fn info() -> StreamInfo<'static> {
    let address = Address::Ip("10.0.0.1:99".parse().unwrap());
    let connection = Rc::new(ConnectionInfo::new(
        1,
        address.clone(),
        address,
        SystemTime::UNIX_EPOCH,
    ));
    StreamInfo::new(connection, SystemTime::UNIX_EPOCH, Instant::now())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn fields(headers: &Headers) -> Vec<String> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(n, v)| format!("{}: {}", text(n), text(v)))
        .collect();
    fields.sort();
    fields
}

/// The request line's path, the authority and the fields that go upstream.
fn upstream(table: &RouteTable, mut request: RequestHead, random: u64) -> (String, String, Vec<String>) {
    let before = request.clone();
    let RouteResult::Found(found) = table.find(&before, random) else {
        panic!("no route for {before:?}")
    };
    found.rewrite_request(&mut request, &info(), &ProcessInfo::default(), false);
    found.rewrite_host(&mut request, "chosen.host", false);
    (
        text(request.path()).to_owned(),
        text(request.authority()).to_owned(),
        fields(&request.headers),
    )
}

#[test]
fn paths_are_rewritten_and_the_original_is_told() {
    let table = routes(
        "{ match: { safe_regex: { regex: '/rx/.*' } }, route: { cluster: c, prefix_rewrite: /regexed } },
         { match: { prefix: /prw }, route: { cluster: c, prefix_rewrite: /new } },
         { match: { path_separated_prefix: /sep }, route: { cluster: c, prefix_rewrite: /s } },
         { match: { prefix: /rrw }, route: { cluster: c, regex_rewrite: { pattern: { regex: a }, substitution: 'b\\0' } } },
         { match: { prefix: / }, route: { cluster: c } }",
    );
    // Asked.
    for (path, rewritten) in [
        ("/rx/a/b?q", "/regexed?q"),
        ("/prw/a?q", "/new/a?q"),
        ("/prw", "/new"),
        ("/sep/x", "/s/x"),
        ("/rrw/aa?a", "/rrw/baba?a"),
    ] {
        let (got, _, fields) = upstream(&table, request(path, &[]), 0);
        assert_eq!(
            (got.as_str(), fields),
            (rewritten, vec![format!("x-envoy-original-path: {path}")])
        );
    }
    assert_eq!(
        upstream(&table, request("/other", &[]), 0),
        ("/other".into(), "a.test".into(), vec![])
    );
}

#[test]
fn hosts_are_rewritten_and_the_original_is_told() {
    let table = routes(
        "{ match: { prefix: /lit }, route: { cluster: c, host_rewrite_literal: b.test, append_x_forwarded_host: true } },
         { match: { prefix: /hdr }, route: { cluster: c, host_rewrite_header: x-host } },
         { match: { prefix: /re }, route: { cluster: c, host_rewrite_path_regex: { pattern: { regex: '^/re/([^/]+).*$' }, substitution: '\\1.test' } } },
         { match: { prefix: /auto }, route: { cluster: c, auto_host_rewrite: true } }",
    );
    let original = "x-envoy-original-host: a.test".to_owned();
    let host = |path, fields: &[(&str, &str)]| {
        let (_, host, fields) = upstream(&table, request(path, fields), 0);
        (host, fields)
    };
    // Asked.
    let forwarded = |list: &str| vec![original.clone(), format!("x-forwarded-host: {list}")];
    assert_eq!(host("/lit", &[]), ("b.test".into(), forwarded("a.test")));
    assert_eq!(
        host("/lit", &[("x-forwarded-host", "z")]),
        ("b.test".into(), forwarded("z,a.test"))
    );
    assert_eq!(
        host("/lit", &[("x-forwarded-host", "z,a.test")]),
        ("b.test".into(), forwarded("z,a.test"))
    );
    assert_eq!(host("/hdr", &[]), ("a.test".into(), vec![]));
    assert_eq!(host("/hdr", &[("x-host", "c.test")]).0, "c.test");
    assert_eq!(
        host("/re/sub/x?y", &[]),
        ("sub.test".into(), vec![original.clone()])
    );
    assert_eq!(host("/auto", &[]), ("chosen.host".into(), vec![original]));
}

const LEVELS: &str = "
request_headers_to_add: [{ header: { key: x-l, value: table }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }]
response_headers_to_add: [{ header: { key: x-r, value: table } }]
virtual_hosts:
- name: v
  domains: ['*']
  request_headers_to_add: [{ header: { key: x-l, value: host }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }]
  response_headers_to_add: [{ header: { key: x-r, value: host } }]
  routes:
  - match: { prefix: / }
    request_headers_to_add: [{ header: { key: x-l, value: route }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }]
    response_headers_to_add: [{ header: { key: x-r, value: 'route %REQ(x-q)%' } }]
    response_headers_to_remove: [x-secret]
    route:
      weighted_clusters:
        clusters:
        - { name: a, weight: 30, response_headers_to_add: [{ header: { key: x-r, value: a } }] }
        - { name: bb, weight: 70, request_headers_to_add: [{ header: { key: x-l, value: bb }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }] }
";

#[test]
fn levels_are_applied_from_the_cluster_outwards_or_the_other_way_round() {
    let outwards = compile(LEVELS).unwrap();
    let inwards = compile(&format!("most_specific_header_mutations_wins: true{LEVELS}")).unwrap();
    let last = |table: &RouteTable| upstream(table, request("/", &[]), 99).2;
    assert_eq!(last(&outwards), ["x-l: table"]);
    assert_eq!(last(&inwards), ["x-l: bb"]);

    let answer = |table: &RouteTable| {
        let request = request("/", &[("x-q", "1")]);
        let RouteResult::Found(found) = table.find(&request, 0) else {
            panic!()
        };
        let mut response = ResponseHead::with_status(200);
        response.headers.append("x-secret", b"1");
        found.finalize_response(&mut response, &request, &info(), &ProcessInfo::default());
        response
            .headers
            .iter()
            .map(|(_, v)| text(v).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(answer(&outwards), ["a", "route 1", "host", "table"]);
    assert_eq!(answer(&inwards), ["table", "host", "route 1", "a"]);
}

#[test]
fn weights_decide_by_the_random_number() {
    let table = compile(LEVELS).unwrap();
    let request = request("/", &[]);
    let chosen = (0..200).filter(|random| {
        let RouteResult::Found(found) = table.find(&request, *random) else {
            panic!()
        };
        found.cluster(&request) == Some(ClusterRef::Slot(ClusterSlot(1), "a"))
    });
    assert_eq!(chosen.count(), 60);
}

#[test]
fn a_random_value_and_a_cluster_may_come_from_headers() {
    let table = routes(
        "{ match: { prefix: /w }, route: { weighted_clusters: { header_name: x-random, clusters: [{ name: a, weight: 1 }, { name: bb, weight: 1 }] } } },
         { match: { prefix: / }, route: { cluster_header: x-cluster } }",
    );
    let check = |path, fields: &[(&str, &str)], expected: ClusterRef<'_>| {
        let request = request(path, fields);
        let RouteResult::Found(found) = table.find(&request, 0) else {
            panic!()
        };
        assert_eq!(found.cluster(&request), Some(expected));
    };
    check("/w", &[], ClusterRef::Slot(ClusterSlot(1), "a"));
    check("/w", &[("x-random", "3")], ClusterRef::Slot(ClusterSlot(2), "bb"));
    check("/", &[("x-cluster", "there")], ClusterRef::Header(Some("there")));
    check("/", &[], ClusterRef::Header(None));
}

#[test]
fn a_virtual_host_may_demand_tls() {
    let table = compile(
        "virtual_hosts: [{ name: v, domains: ['*'], require_tls: EXTERNAL_ONLY, routes: [{ match: { prefix: / }, route: { cluster: c } }] }]",
    )
    .unwrap();
    let demanded = |fields: &[(&str, &str)]| {
        matches!(
            table.find(&request("/", fields), 0),
            RouteResult::HttpsRequired(_)
        )
    };
    assert!(demanded(&[("x-forwarded-proto", "http")]));
    assert!(!demanded(&[("x-forwarded-proto", "https")]));
    assert!(!demanded(&[
        ("x-forwarded-proto", "http"),
        ("x-envoy-internal", "true")
    ]));
}

#[test]
fn no_virtual_host_and_no_route_are_not_found() {
    let table = compile(
        "virtual_hosts: [{ name: v, domains: [a.test], routes: [{ match: { path: /only }, route: { cluster: c } }] }]",
    )
    .unwrap();
    assert!(matches!(table.find(&request("/", &[]), 0), RouteResult::NotFound));
    let mut elsewhere = request("/only", &[]);
    elsewhere.set_authority(b"b.test");
    assert!(matches!(table.find(&elsewhere, 0), RouteResult::NotFound));
}

#[test]
fn filter_configuration_comes_from_the_most_specific_level() {
    let table = compile(
        "virtual_hosts: [{ name: v, domains: ['*'], typed_per_filter_config: { known: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } },
          routes: [{ match: { prefix: / }, route: { cluster: c } }] }]",
    )
    .unwrap();
    let RouteResult::Found(found) = table.find(&request("/", &[]), 0).to_owned() else {
        panic!()
    };
    assert_eq!(
        found.filter_config("known").and_then(|c| c.downcast_ref::<u32>()),
        Some(&7)
    );
    assert!(found.filter_config("other").is_none());
}

#[test]
fn what_is_not_enforced_is_refused_with_its_path() {
    let route = |fields: &str| {
        format!(
            "virtual_hosts: [{{ name: v, domains: ['*'], routes: [{{ match: {{ prefix: / }}, {fields} }}] }}]"
        )
    };
    for (yaml, path) in [
        (
            route("route: { cluster: c, internal_redirect_policy: {} }"),
            "virtual_hosts[0].routes[0].route.internal_redirect_policy",
        ),
        (
            route("route: { cluster: c, retry_policy: { retry_host_predicate: [{ name: acme }] } }"),
            "virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[0].name",
        ),
        (
            route("route: { weighted_clusters: { clusters: [{ name: a, weight: 0 }] } }"),
            "virtual_hosts[0].routes[0].route.weighted_clusters.clusters",
        ),
        (
            route(
                "route: { cluster: c }, typed_per_filter_config: { acme: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }",
            ),
            "virtual_hosts[0].routes[0].typed_per_filter_config[\"acme\"]",
        ),
        (
            route("route: { cluster: c }, request_headers_to_add: [{ header: { key: x, value: '%NOPE%' } }]"),
            "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value",
        ),
        (
            route("direct_response: { status: 99 }"),
            "virtual_hosts[0].routes[0].direct_response.status",
        ),
        ("vhds: { config_source: { ads: {} } }".to_owned(), "vhds"),
    ] {
        let error = compile(&yaml).unwrap_err();
        assert_eq!(error.path(), path, "{error}");
    }
}
