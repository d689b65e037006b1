//! The TCP proxy (`envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`).

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy as Proto, UpstreamConnectMode, tcp_proxy::ClusterSpecifier,
};
use api_envoy::wkt::std_duration;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use telemetry::stats::{Counter, Scope};

use crate::access_log::AccessLogConfig;
use crate::context::CompileContext;
use crate::limits::DEFAULT_TCP_IDLE_TIMEOUT_SECONDS;

/// A TCP proxy, ready to run.
#[derive(Debug)]
pub struct TcpProxy {
    /// Where connections go.
    pub clusters: WeightedClusters,
    /// How long neither side may send anything; none is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a downstream connection may live.
    pub max_connection_duration: Option<Duration>,
    /// How many hosts are tried.
    pub max_connect_attempts: u32,
    /// Who records connections.
    pub access_logs: Vec<AccessLogConfig>,
    /// Counters.
    pub stats: TcpProxyStats,
}

/// One cluster, or several by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedClusters {
    /// Clusters with the sum of the weights up to and including each.
    entries: Vec<(ClusterSlot, Arc<str>, u64)>,
}

impl WeightedClusters {
    /// The cluster that `random` falls on, and its name.
    #[must_use]
    pub fn pick(&self, random: u64) -> (ClusterSlot, &Arc<str>) {
        let total = self.entries.last().map_or(1, |(_, _, sum)| *sum);
        let at = self.entries.partition_point(|(_, _, sum)| *sum <= random % total);
        let (slot, name, _) = &self.entries[at];
        (*slot, name)
    }
}

/// `tcp.<stat_prefix>.` statistics.
#[derive(Clone, Debug)]
pub struct TcpProxyStats {
    /// Keeps the handles valid.
    pub scope: Scope,
    /// Connections taken.
    pub downstream_cx_total: Counter,
    /// Connections without a cluster.
    pub downstream_cx_no_route: Counter,
    /// Bytes from clients.
    pub downstream_cx_rx_bytes_total: Counter,
    /// Bytes to clients.
    pub downstream_cx_tx_bytes_total: Counter,
    /// Connections closed because neither side sent anything.
    pub idle_timeout: Counter,
    /// Connections closed because of their age.
    pub max_downstream_connection_duration: Counter,
}

impl TcpProxyStats {
    fn new(scope: Scope) -> Self {
        Self {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_no_route: scope.counter("downstream_cx_no_route"),
            downstream_cx_rx_bytes_total: scope.counter("downstream_cx_rx_bytes_total"),
            downstream_cx_tx_bytes_total: scope.counter("downstream_cx_tx_bytes_total"),
            idle_timeout: scope.counter("idle_timeout"),
            max_downstream_connection_duration: scope.counter("max_downstream_connection_duration"),
            scope,
        }
    }
}

impl TcpProxy {
    /// Reads a TCP proxy.
    ///
    /// # Errors
    /// No cluster, weights that do not add up to anything, or a field that is not enforced.
    pub fn compile(proto: &Proto, context: &mut CompileContext<'_>) -> ConfigResult<Self> {
        if proto.stat_prefix.is_empty() {
            return Err(ConfigError::at("stat_prefix", "must not be empty"));
        }
        refuse_unsupported(proto)?;
        let idle = match &proto.idle_timeout {
            Some(timeout) => std_duration(timeout),
            None => Duration::from_secs(DEFAULT_TCP_IDLE_TIMEOUT_SECONDS),
        };
        let max_connect_attempts = proto.max_connect_attempts.unwrap_or(1);
        if max_connect_attempts == 0 {
            return Err(ConfigError::at("max_connect_attempts", "must be at least 1"));
        }
        Ok(Self {
            clusters: clusters(proto, context)?,
            idle_timeout: Some(idle).filter(|timeout| !timeout.is_zero()),
            max_connection_duration: proto
                .max_downstream_connection_duration
                .as_ref()
                .map(std_duration),
            max_connect_attempts,
            access_logs: context.access_logs("access_log", &proto.access_log)?,
            stats: TcpProxyStats::new(context.stats().tcp_scope(&proto.stat_prefix)),
        })
    }
}

#[allow(deprecated, reason = "deprecated fields are refused like the others")]
fn refuse_unsupported(proto: &Proto) -> ConfigResult<()> {
    let used = [
        ("on_demand", proto.on_demand.is_some()),
        ("metadata_match", proto.metadata_match.is_some()),
        ("downstream_idle_timeout", proto.downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", proto.upstream_idle_timeout.is_some()),
        ("backoff_options", proto.backoff_options.is_some()),
        ("hash_policy", !proto.hash_policy.is_empty()),
        ("tunneling_config", proto.tunneling_config.is_some()),
        (
            "max_downstream_connection_duration_jitter_percentage",
            proto
                .max_downstream_connection_duration_jitter_percentage
                .is_some(),
        ),
        (
            "access_log_flush_interval",
            proto.access_log_flush_interval.is_some(),
        ),
        (
            "flush_access_log_on_connected",
            proto.flush_access_log_on_connected,
        ),
        ("access_log_options", proto.access_log_options.is_some()),
        ("proxy_protocol_tlvs", !proto.proxy_protocol_tlvs.is_empty()),
        (
            "upstream_connect_mode",
            proto.upstream_connect_mode != UpstreamConnectMode::Immediate as i32,
        ),
        ("check_drain_close", proto.check_drain_close == Some(true)),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((field, _)) => Err(ConfigError::unsupported(field)),
        None => Ok(()),
    }
}

fn clusters(proto: &Proto, context: &mut CompileContext<'_>) -> ConfigResult<WeightedClusters> {
    match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            Err(ConfigError::at("cluster", "must not be empty"))
        }
        Some(ClusterSpecifier::Cluster(name)) => Ok(WeightedClusters {
            entries: vec![(context.cluster(name), name.as_str().into(), 1)],
        }),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let mut sum = 0_u64;
            let mut entries = Vec::with_capacity(weighted.clusters.len());
            for (i, entry) in weighted.clusters.iter().enumerate() {
                if entry.metadata_match.is_some() {
                    return Err(ConfigError::unsupported("metadata_match"))
                        .within_index("clusters", i)
                        .within("weighted_clusters");
                }
                sum += u64::from(entry.weight);
                if entry.weight > 0 {
                    entries.push((context.cluster(&entry.name), entry.name.as_str().into(), sum));
                }
            }
            if sum == 0 {
                return Err(ConfigError::at(
                    "weighted_clusters.clusters",
                    "the weights add up to nothing",
                ));
            }
            Ok(WeightedClusters { entries })
        }
        None => Err(ConfigError::at("cluster", "a cluster is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{LocalNode, NameTables};
    use api_envoy::json::Schema;
    use serde_json::{Value, json};
    use telemetry::stats::Registry;

    fn compile(json: &Value) -> ConfigResult<TcpProxy> {
        let proto: Proto = Schema::get().parse(json).unwrap();
        let (mut names, registry, node) = (NameTables::default(), Registry::new(), LocalNode::default());
        let files = proxy_observe::LogFiles::start(Duration::from_secs(1)).unwrap();
        TcpProxy::compile(
            &proto,
            &mut CompileContext::new(&mut names, &registry, &node, &files),
        )
    }

    #[test]
    fn weights_divide_the_random_numbers() {
        let proxy = compile(&json!({ "stat_prefix": "x", "weighted_clusters": { "clusters": [
            { "name": "a", "weight": 20 }, { "name": "never", "weight": 0 }, { "name": "b", "weight": 80 }
        ] } }))
        .unwrap();
        let names: Vec<&str> = (0..100).map(|random| &**proxy.clusters.pick(random).1).collect();
        assert_eq!(names.iter().filter(|n| **n == "a").count(), 20);
        assert_eq!(names.iter().filter(|n| **n == "b").count(), 80);
    }

    #[test]
    fn the_idle_timeout_is_an_hour_and_zero_is_for_ever() {
        let proxy = compile(&json!({ "stat_prefix": "x", "cluster": "a" })).unwrap();
        assert_eq!(proxy.idle_timeout, Some(Duration::from_secs(3600)));
        let proxy = compile(&json!({ "stat_prefix": "x", "cluster": "a", "idle_timeout": "0s" })).unwrap();
        assert_eq!(proxy.idle_timeout, None);
    }

    #[test]
    fn what_is_not_enforced_is_refused_by_name() {
        let tunnel = json!({ "stat_prefix": "x", "cluster": "a", "tunneling_config": { "hostname": "h:1" } });
        assert_eq!(compile(&tunnel).unwrap_err().path(), "tunneling_config");
        assert_eq!(
            compile(&json!({ "stat_prefix": "x" })).unwrap_err().path(),
            "cluster"
        );
    }
}
