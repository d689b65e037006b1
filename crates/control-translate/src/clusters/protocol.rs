//! Which HTTP version a cluster speaks (`envoy.extensions.upstreams.http.v3.HttpProtocolOptions`).

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
    UpstreamHttpProtocolOptions,
};
use api_envoy::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    },
};
use api_envoy::wkt;
use api_istio::mesh::MeshH2UpgradePolicy;
use api_istio::networking::{H2UpgradePolicy, HttpSettings, TrafficPolicy};
use control_snapshot::{Mesh, Protocol};

use crate::features::connection_pool;
use crate::role::Role;

/// The key in `typed_extension_protocol_options`.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The HTTP version of requests to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1, or none: bytes.
    Http1,
    /// HTTP/2.
    Http2,
    /// The version the request came in.
    AsDownstream,
}

/// The version the request came in.
pub(super) fn as_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(config),
    })
}

/// Sets the options; without any, Envoy's default (HTTP/1.1) stays.
pub(super) fn set(
    cluster: &mut Cluster,
    common: Option<CommonOptions>,
    version: Option<UpstreamProtocolOptions>,
) {
    if common.is_none() && version.is_none() {
        return;
    }
    // Options without a version would be refused; HTTP/1.1 is what no version means.
    let version = version.unwrap_or_else(|| {
        explicit(ProtocolConfig::HttpProtocolOptions(
            Http1ProtocolOptions::default(),
        ))
    });
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(version),
        ..HttpProtocolOptions::default()
    };
    cluster
        .typed_extension_protocol_options
        .insert(KEY.to_owned(), any::pack(&options));
}

/// The host of a request is the server name that is asked for, and, with `verify`, the name that the server's
/// certificate must have (`auto_sni`, `auto_san_validation`).
pub(super) fn name_servers_by_request(cluster: &mut Cluster, verify: bool) {
    let known = cluster.typed_extension_protocol_options.get(KEY);
    let mut options: HttpProtocolOptions =
        known
            .and_then(|any| any::unpack(any).ok())
            .unwrap_or_else(|| HttpProtocolOptions {
                upstream_protocol_options: Some(explicit(ProtocolConfig::HttpProtocolOptions(
                    Http1ProtocolOptions::default(),
                ))),
                ..HttpProtocolOptions::default()
            });
    options.upstream_http_protocol_options = Some(UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: verify,
        ..UpstreamHttpProtocolOptions::default()
    });
    cluster
        .typed_extension_protocol_options
        .insert(KEY.to_owned(), any::pack(&options));
}

/// Sets the options for a port of this protocol under this policy; says which version that is.
pub(super) fn apply(
    cluster: &mut Cluster,
    role: Role,
    protocol: Protocol,
    policy: &TrafficPolicy,
    mesh: &Mesh,
) -> Version {
    let http = policy
        .connection_pool
        .as_ref()
        .and_then(|pool| pool.http.as_ref());
    let outbound = !role.is_inbound();
    let http2 = protocol.is_http2() || (outbound && protocol == Protocol::Http && upgrades(http, mesh));
    let as_client = (protocol.is_sniffed() && role != Role::Gateway)
        || (outbound && protocol == Protocol::Http && http.is_some_and(|h| h.use_client_protocol));
    let (version, options) = if http2 {
        let options = http2_options(http.filter(|_| outbound));
        (
            Version::Http2,
            Some(explicit(ProtocolConfig::Http2ProtocolOptions(options))),
        )
    } else if as_client {
        (Version::AsDownstream, Some(as_downstream()))
    } else {
        (Version::Http1, None)
    };
    set(cluster, connection_pool::common_options(policy), options);
    version
}

/// Whether HTTP/1 is carried in HTTP/2: the policy decides, else the mesh.
fn upgrades(http: Option<&HttpSettings>, mesh: &Mesh) -> bool {
    match http.map(|h| h.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        _ => mesh.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade,
    }
}

fn http2_options(http: Option<&HttpSettings>) -> Http2ProtocolOptions {
    let Some(http) = http else {
        return Http2ProtocolOptions::default();
    };
    Http2ProtocolOptions {
        max_concurrent_streams: u32::try_from(http.max_concurrent_streams).ok().filter(|n| *n > 0),
        connection_keepalive: http.http2_keep_alive.as_ref().map(|k| KeepaliveSettings {
            interval: k.interval.map(|d| wkt::duration(d.0)),
            timeout: k.timeout.map(|d| wkt::duration(d.0)),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    }
}
