//! The dynamic forward proxy (`ALLOW_ANY_DYNAMIC_DNS`): its filter and its cluster share one DNS cache.

use api_envoy::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use api_envoy::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;

use crate::limits;

/// The cache; Envoy wants it written the same in both places.
pub(crate) fn dns_cache() -> DnsCacheConfig {
    DnsCacheConfig {
        name: "allow_any_dfp_dns_cache".to_owned(),
        dns_lookup_family: DnsLookupFamily::V4Only.into(),
        max_hosts: Some(limits::DYNAMIC_DNS_MAX_HOSTS),
        ..DnsCacheConfig::default()
    }
}
