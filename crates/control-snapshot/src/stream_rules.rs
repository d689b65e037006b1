//! TLS and TCP rules of VirtualServices without what no proxy could take. A proxy refuses a listener for one such
//! condition, and with it the chains of everybody who shares the listener; what names it may claim is Istio's rule too
//! (its webhook refuses such objects).

use std::net::IpAddr;

use api_istio::networking::{RouteDestination, VirtualService};
use diagnostics::{Code, Diagnostic, ResourceRef};

use crate::host;

/// Leaves out rules and matches of `spec`, whose hosts are resolved, and says so.
pub(crate) fn keep_servable(
    spec: &mut VirtualService,
    resource: &ResourceRef,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut refuse = |field: String, message: String| {
        let diagnostic = Diagnostic::new(Code::SchemaValidationError, resource.clone(), message);
        diagnostics.push(
            diagnostic
                .at(field)
                .hint("it is left out; the others have effect"),
        );
    };
    let hosts = std::mem::take(&mut spec.hosts);
    let mut index = 0..;
    spec.tls.retain_mut(|rule| {
        let i = index.next().unwrap_or_default();
        let mut inner = 0..;
        rule.r#match.retain(|m| {
            let j = inner.next().unwrap_or_default();
            let at = format!("spec.tls[{i}].match[{j}]");
            let names = server_names(&m.sni_hosts, &hosts).map_err(|why| (".sniHosts", why));
            let problem = names.and_then(|()| ranges(&m.destination_subnets));
            problem
                .map_err(|(field, why)| refuse(format!("{at}{field}"), why))
                .is_ok()
        });
        let destined = destined(&rule.route).map_err(|why| refuse(format!("spec.tls[{i}].route"), why));
        destined.is_ok() && !rule.r#match.is_empty()
    });
    let mut index = 0..;
    spec.tcp.retain_mut(|rule| {
        let i = index.next().unwrap_or_default();
        let is_for_all = rule.r#match.is_empty();
        let mut inner = 0..;
        rule.r#match.retain(|m| {
            let j = inner.next().unwrap_or_default();
            let at = format!("spec.tcp[{i}].match[{j}]");
            let problem = ranges(&m.destination_subnets);
            problem
                .map_err(|(field, why)| refuse(format!("{at}{field}"), why))
                .is_ok()
        });
        let destined = destined(&rule.route).map_err(|why| refuse(format!("spec.tcp[{i}].route"), why));
        // Without a match a rule would take every connection.
        destined.is_ok() && (is_for_all || !rule.r#match.is_empty())
    });
    spec.hosts = hosts;
}

/// Every server name must be one, and one of the object's hosts.
fn server_names(names: &[String], hosts: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err("a TLS rule is chosen by server names, and there are none".to_owned());
    }
    for name in names {
        if !is_server_name(name) {
            return Err(format!(
                "{name:?} is no server name; a name, *. and a domain, or * is"
            ));
        }
        let lower = name.to_ascii_lowercase();
        let is_own = |h: &String| host::is_subset(&lower, &h.to_ascii_lowercase());
        if !hosts.iter().any(is_own) {
            return Err(format!("{name} is none of the object's hosts"));
        }
    }
    Ok(())
}

/// Whether a proxy knows this as a condition on the name that a client asks for.
fn is_server_name(name: &str) -> bool {
    let rest = match name.strip_prefix('*') {
        None => name,
        Some("") => return true,
        Some(rest) => match rest.strip_prefix('.') {
            Some(domain) => domain,
            None => return false,
        },
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !rest.is_empty() && rest.bytes().all(is_part)
}

/// Every range must be an address, or an address and the length of a prefix.
fn ranges(subnets: &[String]) -> Result<(), (&'static str, String)> {
    for subnet in subnets {
        let (address, bits) = match subnet.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (subnet.as_str(), None),
        };
        let longest = match address.parse() {
            Ok(IpAddr::V4(_)) => Some(32),
            Ok(IpAddr::V6(_)) => Some(128),
            Err(_) => None,
        };
        let fits = |longest: u8| bits.is_none_or(|b| b.parse::<u8>().is_ok_and(|b| b <= longest));
        if !longest.is_some_and(fits) {
            let why = format!("{subnet:?} is no range; an address, a slash and a length are");
            return Err((".destinationSubnets", why));
        }
    }
    Ok(())
}

/// Somebody must get the connections.
fn destined(routes: &[RouteDestination]) -> Result<(), String> {
    let somebody = match routes {
        [_] => true,
        routes => routes.iter().any(|route| route.weight > 0),
    };
    somebody
        .then_some(())
        .ok_or_else(|| "no destination gets any connections".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(spec: serde_json::Value) -> (VirtualService, Vec<String>) {
        let mut spec: VirtualService = serde_json::from_value(spec).expect("a VirtualService");
        let mut diagnostics = Vec::new();
        let resource = ResourceRef::new("VirtualService", "ns-b", "b");
        keep_servable(&mut spec, &resource, &mut diagnostics);
        (spec, diagnostics.into_iter().map(|d| d.field).collect())
    }

    fn to(host: &str) -> serde_json::Value {
        serde_json::json!([{ "destination": { "host": host } }])
    }

    #[test]
    fn a_rule_claims_no_names_but_its_objects_own() {
        let (spec, fields) = kept(serde_json::json!({
            "hosts": ["b.example.com", "*.b.test"],
            "tls": [{
                "match": [
                    { "sniHosts": ["bank.example.com"] },
                    { "sniHosts": ["*"] },
                    { "sniHosts": ["B.example.com", "x.b.test", "*.y.b.test"] },
                    { "sniHosts": ["*b.test"] },
                    { "sniHosts": [] },
                ],
                "route": to("b"),
            }],
        }));
        assert_eq!(spec.tls[0].r#match.len(), 1);
        assert_eq!(spec.tls[0].r#match[0].sni_hosts[0], "B.example.com");
        let expected = [0, 1, 3, 4].map(|j| format!("spec.tls[0].match[{j}].sniHosts"));
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_rule_that_lost_its_matches_does_not_take_everything() {
        let (spec, fields) = kept(serde_json::json!({
            "hosts": ["b.example.com"],
            "tcp": [
                { "match": [{ "destinationSubnets": ["10.0.0.0/99"] }], "route": to("b") },
                { "match": [{ "destinationSubnets": ["10.0.0.0/8", "2001:db8::/32", "10.1.2.3"] }], "route": to("b") },
                { "route": [{ "destination": { "host": "b" }, "weight": 0 }, { "destination": { "host": "c" } }] },
                { "route": to("b") },
            ],
        }));
        assert_eq!(spec.tcp.len(), 2);
        assert_eq!(spec.tcp[0].r#match[0].destination_subnets.len(), 3);
        assert_eq!(
            fields,
            ["spec.tcp[0].match[0].destinationSubnets", "spec.tcp[2].route"]
        );
    }
}
