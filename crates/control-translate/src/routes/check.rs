//! What a proxy would refuse of a VirtualService's route, and with it the whole route configuration: every host of the
//! port, whoever it belongs to. Istio's webhook refuses most of it when it is written; here the route is left out.

use api_istio::networking::{HeaderOperations, Headers, HttpMatchRequest, HttpRoute};

use super::format;
use crate::features::{header_operations, request_matching};

/// Why a route is left out.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    /// The field below the route, with a dot.
    pub(super) field: &'static str,
    /// What is wrong with it.
    pub(super) message: String,
}

fn problem(field: &'static str, message: impl Into<String>) -> Problem {
    Problem {
        field,
        message: message.into(),
    }
}

/// Finds what no proxy takes in a route, as far as it is for requests of this match.
pub(super) fn servable(http: &HttpRoute, request: Option<&HttpMatchRequest>) -> Result<(), Problem> {
    if let Some(request) = request {
        let headers = request.headers.keys().chain(request.without_headers.keys());
        if headers.chain(request.query_params.keys()).any(String::is_empty) {
            return Err(problem(".match", "a header or query parameter has no name"));
        }
    }
    regular_expressions(http, request)?;
    if let Some(rewrite) = http.rewrite.as_ref().and_then(|r| r.uri_regex_rewrite.as_ref()) {
        substitution(&rewrite.r#match, &rewrite.rewrite)
            .map_err(|why| problem(".rewrite.uriRegexRewrite.rewrite", why))?;
    }
    if let Some(headers) = &http.headers {
        changes(headers).map_err(|why| problem(".headers", why))?;
    }
    for headers in http.route.iter().filter_map(|d| d.headers.as_ref()) {
        changes(headers).map_err(|why| problem(".route.headers", why))?;
    }
    let port = http.redirect.as_ref().and_then(|r| r.port);
    if let Some(port) = port.filter(|port| *port > u32::from(u16::MAX)) {
        return Err(problem(".redirect.port", format!("{port} is not a port")));
    }
    let direct = http.direct_response.as_ref().map(|r| r.status);
    if let Some(status) = direct.filter(|s| !(200..600).contains(s)) {
        let message = format!("{status} is not a final status code");
        return Err(problem(".directResponse.status", message));
    }
    if http.redirect.is_none() && http.direct_response.is_none() {
        let positive = http.route.iter().any(|d| d.weight > 0);
        if http.route.is_empty() || (http.route.len() > 1 && !positive) {
            return Err(problem(".route", "no destination gets any requests"));
        }
    }
    Ok(())
}

fn regular_expressions(http: &HttpRoute, request: Option<&HttpMatchRequest>) -> Result<(), Problem> {
    let rewrite = http
        .rewrite
        .as_ref()
        .and_then(|r| r.uri_regex_rewrite.as_ref())
        .map(|r| r.r#match.as_str());
    let origins = http
        .cors_policy
        .iter()
        .flat_map(|c| &c.allow_origins)
        .filter_map(|o| o.regex.as_deref());
    let of_match = request
        .into_iter()
        .flat_map(request_matching::regexes)
        .map(|r| (".match", r));
    let all = of_match
        .chain(rewrite.map(|r| (".rewrite.uriRegexRewrite.match", r)))
        .chain(origins.map(|r| (".corsPolicy.allowOrigins", r)));
    for (field, regex) in all {
        // As the proxies do, so that what is too large for them is left out, too.
        if let Err(reason) = re2::whole(regex) {
            let message = format!("invalid regular expression {regex:?}: {reason}");
            return Err(problem(field, message));
        }
    }
    Ok(())
}

/// A backslash and a digit stand for a group that the expression must have, `\0` for the whole, two backslashes for one;
/// RE2 knows no more.
fn substitution(regex: &str, text: &str) -> Result<(), String> {
    let groups = re2::anywhere(regex).map_or(0, |compiled| compiled.captures_len() - 1);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            continue;
        }
        match bytes.next() {
            Some(b'\\') => {}
            Some(digit @ b'0'..=b'9') if usize::from(digit - b'0') <= groups => {}
            Some(digit @ b'0'..=b'9') => {
                let group = char::from(digit);
                return Err(format!("the expression {regex:?} has no group {group}"));
            }
            _ => return Err("a backslash must be followed by a digit or a backslash".to_owned()),
        }
    }
    Ok(())
}

fn changes(headers: &Headers) -> Result<(), String> {
    let operations = [&headers.request, &headers.response];
    operations.into_iter().flatten().try_for_each(operation)
}

fn operation(operations: &HeaderOperations) -> Result<(), String> {
    let set = || operations.set.iter().chain(&operations.add);
    let names = set().map(|(name, _)| name).chain(&operations.remove);
    for name in names.filter(|name| !header_operations::is_internal(name)) {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("{name:?} is not the name of a header"));
        }
    }
    for (name, value) in set().filter(|(name, _)| !header_operations::is_internal(name)) {
        format::check(value).map_err(|why| format!("header {name}: {why}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(route: serde_json::Value) -> Option<&'static str> {
        let route: HttpRoute = serde_json::from_value(route).expect("a route");
        servable(&route, None).err().map(|problem| problem.field)
    }

    #[test]
    fn what_every_proxy_takes_is_served() {
        let value = "100%% of %DOWNSTREAM_REMOTE_ADDRESS% %REQ(X-B?:PATH):10% %START_TIME(%Y)%";
        let headers =
            json!({ "request": { "set": { "x-a": value, ":authority": "a %" }, "remove": ["x-c"] } });
        let route = json!({
            "route": [{ "destination": { "host": "a" }, "headers": headers }],
            "rewrite": { "uriRegexRewrite": { "match": r"^/(a)/(?P<1>\Qb\E)", "rewrite": r"/\2/\1\0\\" } },
            "headers": headers,
        });
        assert_eq!(field(route), None);
    }

    #[test]
    fn a_match_without_a_name_is_named() {
        let route: HttpRoute =
            serde_json::from_value(json!({ "route": [{ "destination": { "host": "a" } }] }))
                .expect("a route");
        for field in ["headers", "withoutHeaders", "queryParams"] {
            let of = |name: &str| -> HttpMatchRequest {
                serde_json::from_value(json!({ field: { name: { "exact": "1" } } })).expect("a match")
            };
            let nameless = servable(&route, Some(&of(""))).map_err(|problem| problem.field);
            assert_eq!(nameless, Err(".match"), "{field}");
            assert_eq!(servable(&route, Some(&of("x"))), Ok(()), "{field}");
        }
    }

    #[test]
    fn what_no_proxy_takes_is_named() {
        let to = json!([{ "destination": { "host": "a" } }]);
        let value = |value: &str| json!({ "response": { "add": { "x-a": value } } });
        for headers in [
            value("100%"),
            value("%lower%"),
            value("%REQ(x%"),
            value("a\nb"),
            json!({ "request": { "set": { "x a": "1" } } }),
            json!({ "request": { "remove": [""] } }),
        ] {
            let route = json!({ "route": to, "headers": headers });
            assert_eq!(field(route), Some(".headers"), "{headers}");
            let route = json!({ "route": [{ "destination": { "host": "a" }, "headers": headers }] });
            assert_eq!(field(route), Some(".route.headers"), "{headers}");
        }
        let large = r"\PL{1000}".repeat(50);
        for regex in ["(", "a**", "(?x)a", "((a{100}){100}){100}", &large] {
            let rewrite = json!({ "uriRegexRewrite": { "match": regex, "rewrite": "" } });
            let route = json!({ "route": to, "rewrite": rewrite });
            assert_eq!(field(route), Some(".rewrite.uriRegexRewrite.match"), "{regex}");
        }
        for rewrite in [r"\2", r"\", r"\x"] {
            let rewrite = json!({ "uriRegexRewrite": { "match": "(a)", "rewrite": rewrite } });
            let route = json!({ "route": to, "rewrite": rewrite });
            assert_eq!(field(route), Some(".rewrite.uriRegexRewrite.rewrite"));
        }
        let route = json!({ "redirect": { "port": 70000 } });
        assert_eq!(field(route), Some(".redirect.port"));
    }
}
