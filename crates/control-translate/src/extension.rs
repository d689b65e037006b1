//! Named, typed extensions in each of the forms Envoy's API has for them.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3 as cluster;
use api_envoy::envoy::config::core::v3::{self as core, ConfigSource, TransportSocket};
use api_envoy::envoy::config::listener::v3::{self as listener, ListenerFilter};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use api_envoy::udpa::r#type::v1::TypedStruct;
use api_envoy::{Any, Duration, Message, Name, wkt};
use serde_json::Value;

/// A network filter.
pub(crate) fn network_filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    network_filter_any(name, any::pack(config))
}

/// A network filter whose configuration is packed already.
pub(crate) fn network_filter_any(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

/// An HTTP filter.
pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    http_filter_any(name, any::pack(config))
}

/// An HTTP filter whose configuration is packed already.
pub(crate) fn http_filter_any(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

/// A listener filter.
pub(crate) fn listener_filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any::pack(
            config,
        ))),
        ..ListenerFilter::default()
    }
}

/// A filter of a cluster.
pub(crate) fn cluster_filter_any(name: &str, config: Any) -> cluster::Filter {
    cluster::Filter {
        name: name.to_owned(),
        typed_config: Some(config),
        ..cluster::Filter::default()
    }
}

/// A transport socket.
pub(crate) fn transport_socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any::pack(config))),
    }
}

/// The configuration of an extension whose message is not part of Envoy's API (`udpa.type.v1.TypedStruct`).
pub(crate) fn typed_struct(type_url: &str, value: &Value) -> Any {
    any::pack(&TypedStruct {
        type_url: type_url.to_owned(),
        value: Some(wkt::structure(value)),
    })
}

/// "Ask the server you got this from."
pub(crate) fn ads() -> ConfigSource {
    source(core::config_source::ConfigSourceSpecifier::Ads(
        core::AggregatedConfigSource {},
    ))
}

/// A source of API version 3 that is waited for as long as it takes.
pub(crate) fn source(specifier: core::config_source::ConfigSourceSpecifier) -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(Duration::default()),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(specifier),
        ..ConfigSource::default()
    }
}

/// A TCP address.
pub(crate) fn socket_address(ip: &str, port: u32) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..core::SocketAddress::default()
        })),
    }
}

/// Metadata of one filter.
pub(crate) fn metadata(filter: &str, value: &Value) -> core::Metadata {
    core::Metadata {
        filter_metadata: [(filter.to_owned(), wkt::structure(value))].into(),
        ..core::Metadata::default()
    }
}
