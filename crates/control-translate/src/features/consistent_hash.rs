//! What requests are hashed by (`trafficPolicy.loadBalancer.consistentHash`); the ring itself is part of the cluster.

use api_envoy::envoy::config::route::v3::route_action::{
    HashPolicy,
    hash_policy::{ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter},
};
use api_envoy::wkt;
use api_istio::networking::ConsistentHashLb;
use control_snapshot::{ServiceView, spread::effective_policy};

/// The hash policy of a route to a subset and port of a service.
pub(crate) fn of_destination(service: &ServiceView, subset: &str, port: u32) -> Option<HashPolicy> {
    let policy = effective_policy(service.rule.as_deref(), subset, port);
    policy
        .load_balancer
        .as_ref()
        .and_then(|lb| lb.consistent_hash.as_ref())
        .and_then(build)
}

fn build(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header {
            header_name: name.clone(),
            ..Header::default()
        })
    } else if let Some(cookie) = &hash.http_cookie {
        let attribute = |a: &api_istio::networking::CookieAttribute| CookieAttribute {
            name: a.name.clone(),
            value: a.value.clone(),
        };
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(|d| wkt::duration(d.0)),
            path: cookie.path.clone(),
            attributes: cookie.attributes.iter().map(attribute).collect(),
        })
    } else if let Some(name) = &hash.http_query_parameter_name {
        PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
    } else if hash.use_source_ip == Some(true) {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        return None;
    };
    Some(HashPolicy {
        policy_specifier: Some(specifier),
        ..HashPolicy::default()
    })
}
