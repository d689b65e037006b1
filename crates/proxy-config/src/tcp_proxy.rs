//! The TCP proxy (`envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`).

use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::{
    ProxyProtocolTlvMergePolicy, TcpProxy as Proto, UpstreamConnectMode, tcp_proxy::ClusterSpecifier,
};
use api_envoy::envoy::r#type::v3::hash_policy::PolicySpecifier;
use api_envoy::wkt::std_duration;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::proxy_protocol::Tlv;
use proxy_core::{ClusterSlot, ConfigError, ConfigResult};
use proxy_upstream::MetadataExchange;
use proxy_upstream::proxy_protocol::tlvs;
use telemetry::stats::{Counter, Scope};

use crate::access_log::AccessLogConfig;
use crate::context::CompileContext;
use crate::limits::{DEFAULT_TCP_IDLE_TIMEOUT_SECONDS, TCP_BACKOFF_MAX_MULTIPLE};

/// A TCP proxy, ready to run.
#[derive(Debug)]
pub struct TcpProxy {
    /// Where connections go.
    pub clusters: WeightedClusters,
    /// Whether the server name that the client asks for is the cluster's name, where there is one
    /// (`envoy.filters.network.sni_cluster` before it).
    pub by_server_name: bool,
    /// Whether proxies tell each other of themselves (`istio.metadata_exchange` before it).
    pub metadata_exchange: Option<MetadataExchange>,
    /// How long neither side may send anything; none is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a downstream connection may live.
    pub max_connection_duration: Option<MaxDuration>,
    /// How many hosts are tried.
    pub max_connect_attempts: u32,
    /// How long to wait between them; none is not at all.
    pub backoff: Option<Backoff>,
    /// Whether the client's address chooses the host, where the load balancing policy goes by hashes.
    pub hashes_source: bool,
    /// Extensions that hosts are told, where the transport socket tells them (PROXY protocol).
    pub tlvs: AddedTlvs,
    /// Who records connections.
    pub access_logs: Vec<AccessLogConfig>,
    /// When connections are recorded besides their end.
    pub records: Records,
    /// Counters.
    pub stats: TcpProxyStats,
}

/// `max_downstream_connection_duration` and its jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxDuration {
    least: Duration,
    jitter_percent: f64,
}

impl MaxDuration {
    /// For one connection; `random` is uniform over all values.
    #[must_use]
    pub fn draw(&self, random: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "a share needs no precision")]
        let share = random as f64 / u64::MAX as f64;
        self.least + self.least.mul_f64(self.jitter_percent / 100.0 * share)
    }
}

/// Fully jittered exponential backoff (`envoy.config.core.v3.BackoffStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// The wait before a further attempt, after so many; `random` is uniform over all values.
    #[must_use]
    pub fn draw(&self, attempts: u32, random: u64) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let interval = self.base.saturating_mul(doubled).min(self.max);
        let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(random % milliseconds)
    }
}

/// When connections are recorded besides their end (`TcpAccessLogOptions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Again and again, as long as they last.
    pub interval: Option<Duration>,
    /// When the host is connected.
    pub on_connected: bool,
    /// When they begin.
    pub on_start: bool,
}

/// `proxy_protocol_tlvs`, and what becomes of those that the client's header brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedTlvs {
    tlvs: Vec<Tlv>,
    policy: MergePolicy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MergePolicy {
    /// Only where there is no header of the client's.
    #[default]
    AddIfAbsent,
    /// Instead of those of their types.
    Overwrite,
    /// Beside them.
    Append,
}

impl AddedTlvs {
    /// The extensions for a connection whose header brought these, or that had none.
    #[must_use]
    pub fn merge(&self, received: Option<&[Tlv]>) -> Vec<Tlv> {
        let came = received.unwrap_or_default();
        let kept = |tlv: &&Tlv| {
            self.policy != MergePolicy::Overwrite || self.tlvs.iter().all(|own| own.kind != tlv.kind)
        };
        if self.policy == MergePolicy::AddIfAbsent && received.is_some() {
            return came.to_vec();
        }
        came.iter().filter(kept).chain(&self.tlvs).cloned().collect()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tlvs.is_empty()
    }
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
        refuse_what_is_not_enforced(proto)?;
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
            by_server_name: false,
            metadata_exchange: None,
            idle_timeout: Some(idle).filter(|timeout| !timeout.is_zero()),
            max_connection_duration: max_duration(proto)?,
            max_connect_attempts,
            backoff: backoff(proto).within("backoff_options")?,
            hashes_source: hashes_source(proto)?,
            tlvs: added_tlvs(proto)?,
            access_logs: context.access_logs("access_log", &proto.access_log)?,
            records: records(proto)?,
            stats: TcpProxyStats::new(context.stats().tcp_scope(&proto.stat_prefix)),
        })
    }
}

/// `metadata_match` is for clusters with subsets, which are refused where they are defined; for others Envoy does not
/// look at it either.
fn refuse_what_is_not_enforced(proto: &Proto) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("on_demand", proto.on_demand.is_some()),
        ("downstream_idle_timeout", proto.downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", proto.upstream_idle_timeout.is_some()),
        ("tunneling_config", proto.tunneling_config.is_some()),
        (
            "upstream_connect_mode",
            proto.upstream_connect_mode != UpstreamConnectMode::Immediate as i32,
        ),
        ("check_drain_close", proto.check_drain_close == Some(true)),
    ])
}

fn max_duration(proto: &Proto) -> ConfigResult<Option<MaxDuration>> {
    let field = "max_downstream_connection_duration";
    let Some(least) = &proto.max_downstream_connection_duration else {
        return Ok(None);
    };
    let jitter = &proto.max_downstream_connection_duration_jitter_percentage;
    let jitter_percent = jitter.as_ref().map_or(0.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&jitter_percent) {
        let jitter = format!("{field}_jitter_percentage");
        return Err(ConfigError::at(&jitter, "must be from 0 to 100"));
    }
    Ok(Some(MaxDuration {
        least: at_least_a_millisecond(least).within(field)?,
        jitter_percent,
    }))
}

fn at_least_a_millisecond(proto: &api_envoy::Duration) -> ConfigResult<Duration> {
    let duration = std_duration(proto);
    if duration < Duration::from_millis(1) {
        return Err(ConfigError::new("must be at least 1ms"));
    }
    Ok(duration)
}

fn backoff(proto: &Proto) -> ConfigResult<Option<Backoff>> {
    let Some(options) = &proto.backoff_options else {
        return Ok(None);
    };
    let base = options.base_interval.as_ref();
    let base = base.ok_or_else(|| ConfigError::at("base_interval", "an interval is needed"))?;
    let base = at_least_a_millisecond(base).within("base_interval")?;
    let max = options.max_interval.as_ref().map(std_duration);
    let max = max.unwrap_or(base * TCP_BACKOFF_MAX_MULTIPLE);
    if max < base {
        return Err(ConfigError::at("max_interval", "must not be below base_interval"));
    }
    Ok(Some(Backoff { base, max }))
}

fn hashes_source(proto: &Proto) -> ConfigResult<bool> {
    let policy = match &proto.hash_policy[..] {
        [] => return Ok(false),
        [policy] => &policy.policy_specifier,
        _ => return Err(ConfigError::at("hash_policy", "one policy at most is possible")),
    };
    match policy {
        None => Ok(false),
        Some(PolicySpecifier::SourceIp(_)) => Ok(true),
        Some(PolicySpecifier::FilterState(_)) => {
            Err(ConfigError::unsupported("filter_state")).within_index("hash_policy", 0)
        }
    }
}

fn added_tlvs(proto: &Proto) -> ConfigResult<AddedTlvs> {
    use ProxyProtocolTlvMergePolicy as Policy;
    Ok(AddedTlvs {
        tlvs: tlvs("proxy_protocol_tlvs", &proto.proxy_protocol_tlvs)?,
        policy: match Policy::try_from(proto.proxy_protocol_tlv_merge_policy) {
            Ok(Policy::AddIfAbsent) => MergePolicy::AddIfAbsent,
            Ok(Policy::OverwriteByTypeIfExistsOrAdd) => MergePolicy::Overwrite,
            Ok(Policy::AppendIfExistsOrAdd) => MergePolicy::Append,
            Err(_) => {
                return Err(ConfigError::at(
                    "proxy_protocol_tlv_merge_policy",
                    "unknown value",
                ));
            }
        },
    })
}

#[allow(deprecated, reason = "the older fields count where they are set")]
fn records(proto: &Proto) -> ConfigResult<Records> {
    let options = proto.access_log_options.unwrap_or_default();
    let (field, interval) = match &proto.access_log_flush_interval {
        Some(older) => ("access_log_flush_interval", Some(older)),
        None => (
            "access_log_options.access_log_flush_interval",
            options.access_log_flush_interval.as_ref(),
        ),
    };
    Ok(Records {
        interval: interval.map(at_least_a_millisecond).transpose().within(field)?,
        on_connected: proto.flush_access_log_on_connected || options.flush_access_log_on_connected,
        on_start: options.flush_access_log_on_start,
    })
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
            for entry in &weighted.clusters {
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
        let path = |field: &str, value: Value| {
            let error = compile(&json!({ "stat_prefix": "x", "cluster": "a", field: value })).unwrap_err();
            error.path().to_owned()
        };
        for (field, value, refused) in [
            (
                "tunneling_config",
                json!({ "hostname": "h:1" }),
                "tunneling_config",
            ),
            (
                "hash_policy",
                json!([{ "filter_state": { "key": "k" } }]),
                "hash_policy[0].filter_state",
            ),
            (
                "access_log_options",
                json!({ "access_log_flush_interval": "0s" }),
                "access_log_options.access_log_flush_interval",
            ),
            (
                "max_downstream_connection_duration",
                json!("0s"),
                "max_downstream_connection_duration",
            ),
            (
                "backoff_options",
                json!({ "base_interval": "2s", "max_interval": "1s" }),
                "backoff_options.max_interval",
            ),
            (
                "upstream_connect_mode",
                json!("ON_DOWNSTREAM_DATA"),
                "upstream_connect_mode",
            ),
        ] {
            assert_eq!(path(field, value), refused);
        }
        assert_eq!(
            compile(&json!({ "stat_prefix": "x" })).unwrap_err().path(),
            "cluster"
        );
    }

    #[test]
    fn waits_between_attempts_grow_and_are_jittered() {
        let proxy = compile(&json!({ "stat_prefix": "x", "cluster": "a",
            "backoff_options": { "base_interval": "0.1s", "max_interval": "0.3s" } }))
        .unwrap();
        let backoff = proxy.backoff.unwrap();
        let longest = |attempts| {
            (0..1000)
                .map(|random| backoff.draw(attempts, random))
                .max()
                .unwrap()
        };
        let milliseconds = [1, 2, 3, 9].map(|attempts| longest(attempts).as_millis());
        assert_eq!(milliseconds, [99, 199, 299, 299]);
    }

    #[test]
    fn the_jitter_lengthens_the_life_of_a_connection_by_its_share_at_most() {
        let proxy = compile(&json!({ "stat_prefix": "x", "cluster": "a",
            "max_downstream_connection_duration": "10s",
            "max_downstream_connection_duration_jitter_percentage": { "value": 50 } }))
        .unwrap();
        let duration = proxy.max_connection_duration.unwrap();
        assert_eq!(duration.draw(0), Duration::from_secs(10));
        assert_eq!(duration.draw(u64::MAX), Duration::from_secs(15));
    }

    #[test]
    fn extensions_are_merged_with_those_of_the_client_as_the_policy_says() {
        let merged = |policy: &str, received: Option<&[Tlv]>| -> Vec<u8> {
            let proxy = compile(&json!({ "stat_prefix": "x", "cluster": "a",
                "proxy_protocol_tlvs": [{ "type": 1, "value": "bQ==" }],
                "proxy_protocol_tlv_merge_policy": policy }))
            .unwrap();
            proxy
                .tlvs
                .merge(received)
                .iter()
                .map(|tlv| tlv.value[0])
                .collect()
        };
        let came = |kind, value: u8| Tlv {
            kind,
            value: [value].into(),
        };
        let received = [came(1, b'a'), came(2, b'b')];
        assert_eq!(merged("ADD_IF_ABSENT", None), b"m");
        assert_eq!(merged("ADD_IF_ABSENT", Some(&received)), b"ab");
        assert_eq!(
            merged("OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD", Some(&received)),
            b"bm"
        );
        assert_eq!(merged("APPEND_IF_EXISTS_OR_ADD", Some(&received)), b"abm");
    }
}
