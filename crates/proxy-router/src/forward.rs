//! Forwarding to a cluster (`envoy.config.route.v3.RouteAction`).

use api_envoy::envoy::config::core::v3::{RoutingPriority, proxy_protocol_config};
use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::route_action::upgrade_config::ConnectConfig;
use api_envoy::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, InternalRedirectAction,
};
use api_envoy::wkt;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::proxy_protocol::Version;
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::HeaderName;

use crate::cluster_ref::{ClusterSource, NamedCluster};
use crate::filter_config::RouteContext;
use crate::hash_policy::HashPolicies;
use crate::limits;
use crate::mirror::MirrorPolicy;
use crate::retry::RetryPolicy;
use crate::rewrite::{HostRewrite, PathRewrite};
use crate::timeout::{MaxStreamDuration, RouteTimeouts};
use crate::weighted_cluster::WeightedClusters;

/// Forwards to a cluster.
#[derive(Clone, Debug)]
pub struct Forward {
    pub(crate) target: Target,
    pub(crate) path_rewrite: PathRewrite,
    pub(crate) host_rewrite: HostRewrite,
    pub(crate) append_forwarded_host: bool,
    /// The status when the cluster does not exist: 503, 404 or 500.
    pub cluster_not_found_status: u16,
    /// Timeouts.
    pub timeouts: RouteTimeouts,
    /// The route's own retry policy; see [`Match::retry_policy`](crate::Match::retry_policy).
    pub(crate) retry: Option<RetryPolicy>,
    /// How the request is hashed for consistent hashing.
    pub hash_policies: HashPolicies,
    /// The route's own mirror policies; see [`Match::mirrors`](crate::Match::mirrors).
    pub(crate) mirrors: Vec<MirrorPolicy>,
    /// Whether the request counts against the cluster's thresholds of priority `HIGH`.
    pub high_priority: bool,
    /// Upgrades that the route allows or forbids, other than the connection manager says.
    pub upgrades: Vec<UpgradeRule>,
}

/// `RouteAction.UpgradeConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRule {
    /// The upgrade, lower-cased: `websocket`, `connect`.
    pub upgrade: Box<str>,
    /// Whether it is allowed.
    pub enabled: bool,
    /// The tunnel that CONNECT asks for ends here; else the request is passed on.
    pub terminate: Option<Terminate>,
}

/// `RouteAction.UpgradeConfig.ConnectConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminate {
    /// Whether and how the host is told of the client (PROXY protocol) before anything else.
    pub announces: Option<Version>,
}

impl Terminate {
    fn compile(proto: &ConnectConfig) -> ConfigResult<Self> {
        refuse_unsupported(&[("allow_post", proto.allow_post)])?;
        let announces = proto.proxy_protocol_config.as_ref().map(|config| {
            refuse_unsupported(&[
                ("pass_through_tlvs", config.pass_through_tlvs.is_some()),
                ("added_tlvs", !config.added_tlvs.is_empty()),
            ])?;
            match proxy_protocol_config::Version::try_from(config.version) {
                Ok(proxy_protocol_config::Version::V1) => Ok(Version::V1),
                Ok(proxy_protocol_config::Version::V2) => Ok(Version::V2),
                Err(_) => Err(ConfigError::at("version", "unknown value")),
            }
        });
        Ok(Self {
            announces: announces.transpose().within("proxy_protocol_config")?,
        })
    }
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    One(ClusterSource),
    Weighted(WeightedClusters),
}

impl Forward {
    /// What the route says of an upgrade.
    #[must_use]
    pub fn upgrade_rule(&self, upgrade: &[u8]) -> Option<&UpgradeRule> {
        self.upgrades
            .iter()
            .find(|rule| rule.upgrade.as_bytes().eq_ignore_ascii_case(upgrade))
    }

    pub(crate) fn compile(proto: &pb::RouteAction, context: &mut dyn RouteContext) -> ConfigResult<Self> {
        refuse_what_is_not_enforced(proto)?;
        Ok(Self {
            target: target(proto, context)?,
            path_rewrite: PathRewrite::compile(proto)?,
            host_rewrite: HostRewrite::compile(proto)?,
            append_forwarded_host: proto.append_x_forwarded_host,
            cluster_not_found_status: match ClusterNotFoundResponseCode::try_from(
                proto.cluster_not_found_response_code,
            ) {
                Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => 503,
                Ok(ClusterNotFoundResponseCode::NotFound) => 404,
                Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
                Err(_) => {
                    return Err(ConfigError::at(
                        "cluster_not_found_response_code",
                        "not a response code",
                    ));
                }
            },
            timeouts: timeouts(proto),
            retry: proto
                .retry_policy
                .as_ref()
                .map(RetryPolicy::compile)
                .transpose()
                .within("retry_policy")?,
            hash_policies: HashPolicies::compile(&proto.hash_policy)?,
            mirrors: MirrorPolicy::compile_all(&proto.request_mirror_policies, context)?,
            high_priority: proto.priority == RoutingPriority::High as i32,
            upgrades: upgrades(&proto.upgrade_configs)?,
        })
    }
}

#[allow(deprecated)]
fn refuse_what_is_not_enforced(proto: &pb::RouteAction) -> ConfigResult<()> {
    let handles_redirects =
        proto.internal_redirect_action == InternalRedirectAction::HandleInternalRedirect as i32;
    refuse_unsupported(&[
        (
            "retry_policy_typed_config",
            proto.retry_policy_typed_config.is_some(),
        ),
        ("flush_timeout", proto.flush_timeout.is_some()),
        ("cors", proto.cors.is_some()),
        (
            "internal_redirect_policy",
            proto.internal_redirect_policy.is_some(),
        ),
        ("internal_redirect_action", handles_redirects),
        ("hedge_policy", proto.hedge_policy.as_ref().is_some_and(hedges)),
    ])
}

/// Whether a hedge policy asks for anything: its defaults are one request and no second.
pub(crate) fn hedges(policy: &pb::HedgePolicy) -> bool {
    policy.hedge_on_per_try_timeout
        || policy.initial_requests.is_some_and(|n| n > 1)
        || policy
            .additional_request_chance
            .as_ref()
            .is_some_and(|chance| chance.numerator > 0)
}

fn target(proto: &pb::RouteAction, context: &mut dyn RouteContext) -> ConfigResult<Target> {
    match &proto.cluster_specifier {
        None => Err(ConfigError::at("cluster_specifier", "missing")),
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            Err(ConfigError::at("cluster", "must not be empty"))
        }
        Some(ClusterSpecifier::Cluster(name)) => Ok(Target::One(ClusterSource::Named(NamedCluster::new(
            name, context,
        )))),
        Some(ClusterSpecifier::ClusterHeader(header)) if header.is_empty() => {
            Err(ConfigError::at("cluster_header", "must not be empty"))
        }
        Some(ClusterSpecifier::ClusterHeader(header)) => {
            Ok(Target::One(ClusterSource::Header(HeaderName::new(header))))
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => WeightedClusters::compile(weighted, context)
            .within("weighted_clusters")
            .map(Target::Weighted),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            Err(ConfigError::unsupported("cluster_specifier_plugin"))
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(ConfigError::unsupported("inline_cluster_specifier_plugin"))
        }
    }
}

#[allow(deprecated)]
fn timeouts(proto: &pb::RouteAction) -> RouteTimeouts {
    let duration = |d: &Option<_>| d.as_ref().map(wkt::std_duration);
    RouteTimeouts {
        timeout: duration(&proto.timeout).unwrap_or(limits::DEFAULT_ROUTE_TIMEOUT),
        idle_timeout: duration(&proto.idle_timeout),
        max_grpc_timeout: duration(&proto.max_grpc_timeout),
        grpc_timeout_offset: duration(&proto.grpc_timeout_offset),
        max_stream_duration: proto.max_stream_duration.as_ref().map(|max| MaxStreamDuration {
            limit: duration(&max.max_stream_duration),
            grpc_timeout_header_max: duration(&max.grpc_timeout_header_max),
            grpc_timeout_header_offset: duration(&max.grpc_timeout_header_offset),
        }),
    }
}

fn upgrades(protos: &[pb::route_action::UpgradeConfig]) -> ConfigResult<Vec<UpgradeRule>> {
    let mut rules: Vec<UpgradeRule> = Vec::with_capacity(protos.len());
    for (index, proto) in protos.iter().enumerate() {
        let rule = upgrade_rule(proto, &rules);
        rules.push(rule.within_index("upgrade_configs", index)?);
    }
    Ok(rules)
}

fn upgrade_rule(
    proto: &pb::route_action::UpgradeConfig,
    before: &[UpgradeRule],
) -> ConfigResult<UpgradeRule> {
    let upgrade: Box<str> = proto.upgrade_type.to_ascii_lowercase().into();
    if before.iter().any(|rule| rule.upgrade == upgrade) {
        return Err(ConfigError::at("upgrade_type", "comes twice"));
    }
    if &*upgrade == "connect-udp" {
        return Err(ConfigError::at(
            "upgrade_type",
            "CONNECT-UDP is not supported by this proxy",
        ));
    }
    let terminate = proto.connect_config.as_ref().map(Terminate::compile);
    let terminate = terminate.transpose().within("connect_config")?;
    if terminate.is_some() && &*upgrade != "connect" {
        return Err(ConfigError::at("connect_config", "belongs to CONNECT alone"));
    }
    Ok(UpgradeRule {
        upgrade,
        enabled: proto.enabled.unwrap_or(true),
        terminate,
    })
}
