//! HTTP connection managers, for every role.

use api_envoy::any;
use api_envoy::envoy::config::core::v3::{Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions};
use api_envoy::envoy::config::listener::v3::Filter;
use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, RequestIdExtension,
    http_connection_manager::{
        ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
        UpgradeConfig,
    },
};
use api_envoy::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use api_envoy::{Duration, wkt};
use api_istio::Duration as IstioDuration;
use api_istio::mesh::NormalizationType;
use control_snapshot::{Profile, Protocol, ProxyView};

use crate::extension::{ads, network_filter};
use crate::features::gateway_topology;
use crate::http_filters::{self, Chain};
use crate::role::Role;
use crate::{access_log, names, tracing};

/// The filter's name.
pub(crate) const NAME: &str = "envoy.filters.network.http_connection_manager";
/// The `server` header of proxies that answer for others.
const SERVER_NAME: &str = "istio-envoy";

/// Where the routes come from.
pub(crate) enum Routes {
    /// From RDS, by name.
    Discovered(String),
    /// With the listener.
    Inline(Box<RouteConfiguration>),
}

/// A connection manager.
pub(crate) struct Manager<'a> {
    /// What the proxy sees.
    pub(crate) view: &'a ProxyView,
    /// From whose point of view.
    pub(crate) role: Role,
    /// What the port speaks.
    pub(crate) protocol: Protocol,
    /// The name in statistics, without the closing semicolon.
    pub(crate) stat_prefix: String,
    /// Where the routes come from.
    pub(crate) routes: Routes,
}

impl Manager<'_> {
    /// The network filter.
    pub(crate) fn filter(self) -> Filter {
        network_filter(NAME, &self.build())
    }

    fn build(self) -> HttpConnectionManager {
        let Self {
            view, role, protocol, ..
        } = self;
        let filters = http_filters::list(&Chain { view, role, protocol });
        let mut manager = HttpConnectionManager {
            stat_prefix: names::stat(&self.stat_prefix),
            http_filters: filters,
            access_log: access_log::of_traffic(&view.mesh),
            tracing: tracing::of(view),
            use_remote_address: Some(role == Role::Gateway),
            stream_idle_timeout: Some(Duration::default()),
            proxy_100_continue: true,
            upgrade_configs: vec![UpgradeConfig {
                upgrade_type: "websocket".to_owned(),
                ..Default::default()
            }],
            request_id_extension: Some(request_id()),
            common_http_protocol_options: idle_timeout(view),
            route_specifier: Some(match self.routes {
                Routes::Discovered(name) => RouteSpecifier::Rds(Rds {
                    config_source: Some(ads()),
                    route_config_name: name,
                }),
                Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
            }),
            ..HttpConnectionManager::default()
        };
        normalize_paths(&mut manager, view.mesh.normalization());
        protocol_options(&mut manager, view, role, protocol);
        client_certificates(&mut manager, role, &view.profile);
        manager
    }
}

fn request_id() -> RequestIdExtension {
    let config = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: Some(true),
        ..Default::default()
    };
    RequestIdExtension {
        typed_config: Some(any::pack(&config)),
    }
}

/// The idle timeout that the proxy's metadata asks for.
fn idle_timeout(view: &ProxyView) -> Option<HttpProtocolOptions> {
    let timeout: IstioDuration = view
        .profile
        .idle_timeout
        .parse()
        .ok()
        .filter(|d: &IstioDuration| !d.is_zero())?;
    Some(HttpProtocolOptions {
        idle_timeout: Some(wkt::duration(timeout.0)),
        ..HttpProtocolOptions::default()
    })
}

fn normalize_paths(manager: &mut HttpConnectionManager, normalization: NormalizationType) {
    let action = match normalization {
        NormalizationType::DecodeAndMergeSlashes => PathWithEscapedSlashesAction::UnescapeAndForward,
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    manager.path_with_escaped_slashes_action = action.into();
    manager.normalize_path = Some(normalization != NormalizationType::None);
    manager.merge_slashes = matches!(
        normalization,
        NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes
    );
}

fn protocol_options(manager: &mut HttpConnectionManager, view: &ProxyView, role: Role, protocol: Protocol) {
    if role.is_inbound() && protocol.is_http2() {
        manager.http2_protocol_options = Some(Http2ProtocolOptions::default());
    }
    if role == Role::Gateway || view.profile.http10 {
        manager.http_protocol_options = Some(Http1ProtocolOptions {
            accept_http_10: view.profile.http10,
            ..Http1ProtocolOptions::default()
        });
    }
}

/// What is passed on about the certificate a client showed (`x-forwarded-client-cert`).
fn client_certificates(manager: &mut HttpConnectionManager, role: Role, profile: &Profile) {
    let details = |cert: bool| SetCurrentClientCertDetails {
        subject: Some(true),
        uri: true,
        dns: true,
        cert,
        ..SetCurrentClientCertDetails::default()
    };
    match role {
        Role::SidecarInbound => {
            manager.server_name = SERVER_NAME.to_owned();
            manager.forward_client_cert_details = ForwardClientCertDetails::AppendForward.into();
            manager.set_current_client_cert_details = Some(details(false));
        }
        Role::Gateway => {
            manager.server_name = SERVER_NAME.to_owned();
            gateway_topology::apply(manager, profile);
            manager.set_current_client_cert_details = Some(details(true));
        }
        Role::SidecarOutbound => {}
    }
}
