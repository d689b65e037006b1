//! Values for fields: typical ones, those at the edges, and odd ones. Whether an API server admits them is its business.

use serde_json::{Value, json};

/// Texts that any field may be given.
const TEXTS: &[&str] = &[
    "", "x", "a b", "*", "%", "%NONE%", "ü", "a\nb", "\u{1}", "x.test", "1",
];

/// Times; many fields allow none below a millisecond.
const TIMES: &[&str] = &[
    "0s",
    "1us",
    "1ms",
    "1.5s",
    "30m",
    "87600h",
    "-1s",
    "2562047h47m16.854775807s",
];

/// Texts for fields of these names, the name of what they are part of before them where that says more.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "host",
        &[
            "orders",
            "orders.default.svc.cluster.local",
            "wire",
            "bank.test",
            "*.wild.test",
            "none.test",
            "*",
            "a..b",
        ],
    ),
    (
        "hosts",
        &[
            "orders",
            "shop.test",
            "*.shop.test",
            "*",
            "default/shop.test",
            "./*",
            "*/*",
            "a b",
            "SHOP.test",
            "10.0.0.1",
            "ü.test",
        ],
    ),
    (
        "sniHosts",
        &[
            "wire.test",
            "*.wild.test",
            "*",
            "WIRE.test",
            "wire.test:443",
            "*wire.test",
            "a b",
        ],
    ),
    ("gateways", &["mesh", "edge", "default/edge", "none"]),
    ("exportTo", &[".", "*", "~", "default"]),
    (
        "address",
        &[
            "192.0.2.7",
            "2001:db8::1",
            "one.test",
            "unix:///tmp/s",
            "a b",
            "*.test",
            "999.1.1.1",
            "127.0.0.1",
        ],
    ),
    (
        "addresses",
        &[
            "192.0.2.8",
            "192.0.2.0/24",
            "2001:db8::/64",
            "10.96.0.10",
            "a b",
            "192.0.2.0/99",
        ],
    ),
    (
        "bind",
        &[
            "127.0.0.1",
            "0.0.0.0",
            "::1",
            "unix:///tmp/s",
            "unix://@s",
            "a b",
            "10.96.0.10",
        ],
    ),
    (
        "defaultEndpoint",
        &[
            "127.0.0.1:8080",
            "0.0.0.0:8080",
            "unix:///tmp/s",
            "[::1]:8080",
            "[::]:80",
            "none",
            "127.0.0.1:0",
            "127.0.0.1:99999",
        ],
    ),
    (
        "destinationSubnets",
        &["10.0.0.0/8", "10.1.2.3", "2001:db8::/32", "10.0.0.0/99", "x"],
    ),
    ("sourceSubnet", &["10.0.0.0/8", "x"]),
    (
        "protocol",
        &[
            "HTTP",
            "HTTP2",
            "HTTPS",
            "GRPC",
            "GRPC-WEB",
            "TCP",
            "TLS",
            "MONGO",
            "MYSQL",
            "REDIS",
            "UDP",
            "HTTP_PROXY",
            "x",
            "http",
            "CONNECT",
            "POST",
        ],
    ),
    (
        "cipherSuites",
        &[
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-CHACHA20-POLY1305",
            "AES128-SHA",
            "ECDHE-RSA-AES128-SHA",
            "DES-CBC3-SHA",
            "TLS_AES_128_GCM_SHA256",
            "none",
            "",
            "a b",
        ],
    ),
    (
        "ecdhCurves",
        &["X25519", "P-256", "P-384", "P-521", "X25519MLKEM768", "none", ""],
    ),
    (
        "verifyCertificateSpki",
        &["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=", "x", ""],
    ),
    (
        "verifyCertificateHash",
        &[
            "df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a",
            "x",
            "",
        ],
    ),
    (
        "subjectAltNames",
        &["bank.test", "*.bank.test", "spiffe://x/y", "", "10.0.0.1"],
    ),
    ("sni", &["bank.test", "*.bank.test", "a b", "10.0.0.1", ""]),
    (
        "credentialName",
        &[
            "edge",
            "kubernetes://edge",
            "kubernetes-gateway://default/edge",
            "none",
            "configmap://a/b",
            "sds://x",
            "a b",
            "default/edge",
            "builtin://",
            "invalid://x",
            "",
        ],
    ),
    ("credentialNames", &["edge", "none", ""]),
    ("caCertCredentialName", &["edge", "none", "configmap://a/b", ""]),
    (
        "retryOn",
        &[
            "5xx",
            "5xx,429",
            "gateway-error,reset,retriable-4xx",
            "none",
            "999",
            "retriable-headers",
            "",
            "envoy-ratelimited,internal",
            "http3-post-connect-failure",
        ],
    ),
    ("httpStatus", &["503"]),
    ("grpcStatus", &["UNAVAILABLE", "14", "none", "99"]),
    ("uri", &["/x", "x", "", "http://x/y", "/a b", "/%", "/x?y=z"]),
    ("prefixRewrite", &["/x", "", "x", "/%"]),
    ("authority", &["x.test", "x.test:80", "", "a b", "a\nb", "%"]),
    ("scheme", &["https", "http", "ftp", ""]),
    (
        "regex",
        &[
            "/a.*",
            "(",
            "a{1001}",
            "(a{500}){500}",
            "\\d+",
            "",
            "(?=a)",
            "(?i)x",
            "[[:word:]]",
            "\\C",
            "(?P<n>a)",
            "(?<n>a)",
            "\\p{Greek}",
            "\\bx",
        ],
    ),
    ("rewrite.match", &["^/(a)/(b)", "(", ""]),
    ("uriRegexRewrite.match", &["^/(a)/(b)", "(", "", "a{1001}"]),
    (
        "uriRegexRewrite.rewrite",
        &["/\\1/\\2", "\\3", "\\", "/%", "", "a\nb"],
    ),
    ("allowMethods", &["GET", "x", "", "a b", "*"]),
    ("allowHeaders", &["x-a", "", "a b", "*"]),
    ("exposeHeaders", &["x-a", "", "a b"]),
    ("set", HEADERS),
    ("add", HEADERS),
    ("remove", &["x-a", ":path", "host", "", "a b", "ü"]),
    (
        "targetHost",
        &[
            "far.test",
            "10.0.0.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "",
            "a b",
            "%DOWNSTREAM_LOCAL_ADDRESS%",
            "%",
            "%NONE%",
            "a:b",
        ],
    ),
    ("targetPort", &["443"]),
    ("httpHeaderName", &["x-user", "", "a b", ":path", "host", "ü"]),
    ("httpQueryParameterName", &["user", "", "a b", "%"]),
    ("httpCookie.name", &["user", "", "a b", "a=b", "ü"]),
    ("httpCookie.path", &["/", "", "a;b", "a\nb"]),
    ("attributes.name", &["SameSite", "", "a b", "a;b", "Path"]),
    ("attributes.value", &["Lax", "", "a;b", "a\nb"]),
    ("locality", &["region/zone/subzone", "region", "", "a//b", "*"]),
    ("from", &["region/zone/*", "*", "region", "", "a/b/c/d"]),
    ("to", &["region/zone/*", "*", "elsewhere", ""]),
    (
        "failoverPriority",
        &[
            "topology.kubernetes.io/region",
            "kubernetes.io/hostname",
            "x=y",
            "",
            "a b",
        ],
    ),
    ("subset", &["v1", "none", ""]),
    ("statPrefix", &["x", "a.b", "", "a b", "%"]),
    ("serverCertificate", &["/c", "c", "", "a\nb"]),
    ("bytes", &["", "AAAA", "x"]),
];

const HEADERS: &[&str] = &[
    "1",
    "",
    "100%",
    "100%%",
    "%REQ(x-b)%",
    "%REQ(x-b?:path):5%",
    "%REQ()%",
    "%REQ(x",
    "%NO_SUCH_OPERATOR%",
    "%lower%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%START_TIME(%s)%",
    "%START_TIME(%*)%",
    "%UPSTREAM_METADATA([\"a\",\"b\"])%",
    "%DYNAMIC_METADATA(a:b)%",
    "%FILTER_STATE(a:PLAIN)%",
    "%PER_REQUEST_STATE(a)%",
    "%ENVIRONMENT(HOME)%",
    "%HOSTNAME%",
    "%PROTOCOL(x)%",
    "%RESPONSE_CODE:3%",
    "%CEL(request.path)%",
    "%METADATA(ROUTE:a)%",
    "%TRACE_ID%",
    "%QUERY_PARAM(a)%",
    "%PATH(WQ)%",
    "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)%",
    "%UPSTREAM_PEER_CERT_V_END(%Y)%",
    "%UNIQUE_ID%",
    "%CUSTOM_FLAGS%",
    "%COALESCE({\"operators\":[]})%",
    "%DOWNSTREAM_PEER_SUBJECT%",
    "a\nb",
    "ü",
    "%ROUTE_NAME%",
    "% %",
    "%%%",
];

/// Values for the field at this path, whose schema is of no compound type.
pub(crate) fn of(path: &[&str], schema: &Value) -> Vec<Value> {
    if let Some(names) = schema["enum"].as_array() {
        return names.clone();
    }
    match schema["type"].as_str() {
        Some("boolean") => vec![true.into(), false.into()],
        Some("integer") => integers(),
        Some("number") => [0.0, 0.1, 1.0, 33.3, 100.0, 101.0, 1e9, -1.0]
            .map(Value::from)
            .into(),
        _ if is_time(path, schema) => texts(TIMES),
        _ => match known(path) {
            Some(values) => texts(values),
            None => texts(TEXTS),
        },
    }
}

/// A value that the field may well have.
pub(crate) fn typical(path: &[&str], schema: &Value) -> Value {
    let values = of(path, schema);
    match schema["type"].as_str() {
        Some("integer") => json!(80),
        Some("number") => json!(1.0),
        Some("boolean") => json!(true),
        _ if is_time(path, schema) => json!("1.5s"),
        _ => values.into_iter().find(|value| *value != "").unwrap_or_default(),
    }
}

/// Keys for the map at this path; the first is one that it may well have.
pub(crate) fn keys(path: &[&str]) -> &'static [&'static str] {
    match path.last() {
        Some(&("set" | "add")) => &[
            "x-a",
            "",
            "a b",
            ":authority",
            "Host",
            ":path",
            "ü",
            "x-envoy-retry-on",
            "connection",
            "content-length",
        ],
        Some(&("headers" | "withoutHeaders")) => {
            &["x-a", "", "a b", ":path", "uri", "host", ":authority", "ü"]
        }
        Some(&"queryParams") => &["q", "", "a b"],
        Some(&"portLevelMtls") => &["80", "0", "4000", "70000", "x"],
        Some(&"ports") => &["http", "none", ""],
        Some(&"to") => &["region/zone/*", "*", "", "a/b/c/d"],
        _ => &["app", "version", "", "a b"],
    }
}

fn integers() -> Vec<Value> {
    let small = [3, 0, 1, 100, 599, 65_536];
    let large = [8_388_609, i64::from(i32::MAX), i64::from(u32::MAX), -1];
    small.into_iter().chain(large).map(Value::from).collect()
}

fn is_time(path: &[&str], schema: &Value) -> bool {
    let rules = schema["x-kubernetes-validations"].to_string();
    let times = [
        "Interval", "Timeout", "Period", "ttl", "interval", "timeout", "maxAge", "backoff", "time",
    ];
    rules.contains("duration(")
        || path
            .last()
            .is_some_and(|name| times.iter().any(|time| name.ends_with(time)))
}

fn known(path: &[&str]) -> Option<&'static [&'static str]> {
    let mut names = path.iter().rev().filter(|name| !["[]", "{}"].contains(name));
    let last = names.next()?;
    let longer = names.next().map(|before| format!("{before}.{last}"));
    let find = |wanted: &str| {
        KNOWN
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, values)| *values)
    };
    longer.and_then(|name| find(&name)).or_else(|| find(last))
}

fn texts(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::from(*text)).collect()
}
