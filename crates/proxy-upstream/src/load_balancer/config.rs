//! `Cluster.lb_policy`, `lb_config`, `common_lb_config` and `load_balancing_policy`.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use api_envoy::envoy::config::cluster::v3::cluster::{LbConfig as LbConfigProto, LbPolicy as LbPolicyProto};
use api_envoy::envoy::extensions::load_balancing_policies as policies;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use super::slow_start::SlowStart;
use crate::limits;

/// How hosts are chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    /// In turn, weighted.
    RoundRobin,
    /// The least loaded of some chosen at random.
    LeastRequest(LeastRequestConfig),
    /// At random.
    Random,
    /// By hash on a ring (ketama).
    RingHash(RingHashConfig),
    /// By hash in a Maglev table.
    Maglev {
        /// Entries of the table, a prime.
        table_size: u64,
        /// Whether host names are hashed instead of addresses.
        use_hostname: bool,
    },
    /// The cluster itself knows the host (`ORIGINAL_DST`).
    ClusterProvided,
}

/// Parameters of the least-request policy.
#[derive(Clone, Debug, PartialEq)]
pub struct LeastRequestConfig {
    /// Hosts compared per pick, at least 2.
    pub choice_count: u32,
    /// How strongly active requests lower the weight when weights differ.
    pub active_request_bias: f64,
    /// Whether all hosts are compared.
    pub full_scan: bool,
}

/// Parameters of the ring hash policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingHashConfig {
    /// Fewest entries of the ring.
    pub min_size: u64,
    /// Most entries of the ring.
    pub max_size: u64,
    /// Whether host names are hashed instead of addresses.
    pub use_hostname: bool,
}

/// Load balancing of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct LbConfig {
    /// How hosts are chosen.
    pub policy: LbPolicy,
    /// Below this percentage of available hosts all are used. 0 is never.
    pub panic_threshold_percent: f64,
    /// Whether localities are weighted (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// How new hosts get their share; for the policies round robin and least request.
    pub slow_start: Option<SlowStart>,
}

impl LbConfig {
    /// Reads the load balancing fields of a cluster. `provides_hosts` says whether the cluster knows the host by itself
    /// (`ORIGINAL_DST`).
    ///
    /// # Errors
    /// A policy or parameter that is not enforced, or a policy that does not fit the discovery type.
    pub fn compile(proto: &pb::Cluster, provides_hosts: bool) -> ConfigResult<Self> {
        let mut this = Self {
            policy: LbPolicy::RoundRobin,
            panic_threshold_percent: limits::DEFAULT_PANIC_THRESHOLD_PERCENT,
            locality_weighted: false,
            slow_start: None,
        };
        let mut use_hostname = false;
        if let Some(common) = &proto.common_lb_config {
            use_hostname = this.read_common(common).within("common_lb_config")?;
        }
        if let Some(policy) = &proto.load_balancing_policy {
            this.read_extension(policy).within("load_balancing_policy")?;
        } else {
            this.policy = this.read_classic(proto, use_hostname)?;
        }
        let provided = this.policy == LbPolicy::ClusterProvided;
        if provided != provides_hosts {
            return Err(ConfigError::at(
                "lb_policy",
                "CLUSTER_PROVIDED goes with type ORIGINAL_DST and no other",
            ));
        }
        Ok(this)
    }

    fn read_common(&mut self, common: &pb::cluster::CommonLbConfig) -> ConfigResult<bool> {
        // `update_merge_window`, `ignore_new_hosts_until_first_hc` and `override_host_status` have nothing to act on:
        // updates are cheap, there is no active health checking, and no stateful session.
        refuse_unsupported(&[(
            "close_connections_on_host_set_change",
            common.close_connections_on_host_set_change,
        )])?;
        if let Some(threshold) = &common.healthy_panic_threshold {
            self.panic_threshold_percent = threshold.value.clamp(0.0, 100.0);
        }
        match &common.locality_config_specifier {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => self.locality_weighted = true,
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
                return Err(ConfigError::unsupported("zone_aware_lb_config"));
            }
        }
        let Some(hashing) = &common.consistent_hashing_lb_config else {
            return Ok(false);
        };
        refuse_unsupported(&[("hash_balance_factor", hashing.hash_balance_factor.is_some())])
            .within("consistent_hashing_lb_config")?;
        Ok(hashing.use_hostname_for_hashing)
    }

    /// The first policy of the list that is known, as Envoy does.
    fn read_extension(&mut self, proto: &pb::LoadBalancingPolicy) -> ConfigResult<()> {
        for (index, policy) in proto.policies.iter().enumerate() {
            let typed = policy
                .typed_extension_config
                .as_ref()
                .and_then(|e| e.typed_config.as_ref());
            if let Some(typed) = typed
                && self
                    .read_typed(typed)
                    .within("typed_extension_config")
                    .within_index("policies", index)?
            {
                return Ok(());
            }
        }
        Err(ConfigError::at("policies", "none of these policies is known"))
    }

    #[allow(deprecated)]
    fn read_typed(&mut self, typed: &api_envoy::Any) -> ConfigResult<bool> {
        fn unpack<M: api_envoy::Message + api_envoy::Name + Default>(
            typed: &api_envoy::Any,
        ) -> ConfigResult<M> {
            any::unpack(typed).map_err(|e| ConfigError::new(e.to_string()))
        }
        self.policy = if any::is::<policies::round_robin::v3::RoundRobin>(typed) {
            let config: policies::round_robin::v3::RoundRobin = unpack(typed)?;
            self.slow_start = SlowStart::compile(config.slow_start_config.as_ref())?;
            self.read_locality(config.locality_lb_config.as_ref())?;
            LbPolicy::RoundRobin
        } else if any::is::<policies::least_request::v3::LeastRequest>(typed) {
            let config: policies::least_request::v3::LeastRequest = unpack(typed)?;
            self.slow_start = SlowStart::compile(config.slow_start_config.as_ref())?;
            self.read_locality(config.locality_lb_config.as_ref())?;
            let full_scan = config.enable_full_scan.unwrap_or_default()
                || config.selection_method
                    == policies::least_request::v3::least_request::SelectionMethod::FullScan as i32;
            let bias = config.active_request_bias.as_ref().map(|b| b.default_value);
            least_request(config.choice_count, bias, full_scan)?
        } else if any::is::<policies::random::v3::Random>(typed) {
            let config: policies::random::v3::Random = unpack(typed)?;
            self.read_locality(config.locality_lb_config.as_ref())?;
            LbPolicy::Random
        } else if any::is::<policies::ring_hash::v3::RingHash>(typed) {
            self.read_ring_hash(&unpack(typed)?)?
        } else if any::is::<policies::maglev::v3::Maglev>(typed) {
            self.read_maglev(&unpack(typed)?)?
        } else if any::is::<policies::cluster_provided::v3::ClusterProvided>(typed) {
            LbPolicy::ClusterProvided
        } else {
            return Ok(false);
        };
        Ok(true)
    }

    /// `lb_policy` and `lb_config`.
    fn read_classic(&mut self, proto: &pb::Cluster, use_hostname: bool) -> ConfigResult<LbPolicy> {
        let policy = LbPolicyProto::try_from(proto.lb_policy)
            .map_err(|_| ConfigError::at("lb_policy", format!("no policy {}", proto.lb_policy)))?;
        match policy {
            LbPolicyProto::RoundRobin => {
                if let Some(LbConfigProto::RoundRobinLbConfig(config)) = &proto.lb_config {
                    self.slow_start = SlowStart::compile(config.slow_start_config.as_ref())
                        .within("round_robin_lb_config")?;
                }
                Ok(LbPolicy::RoundRobin)
            }
            LbPolicyProto::LeastRequest => {
                let Some(LbConfigProto::LeastRequestLbConfig(config)) = &proto.lb_config else {
                    return least_request(None, None, false);
                };
                let bias = config.active_request_bias.as_ref().map(|b| b.default_value);
                self.slow_start = SlowStart::compile(config.slow_start_config.as_ref())
                    .within("least_request_lb_config")?;
                least_request(config.choice_count, bias, false).within("least_request_lb_config")
            }
            LbPolicyProto::Random => Ok(LbPolicy::Random),
            LbPolicyProto::RingHash => {
                let Some(LbConfigProto::RingHashLbConfig(config)) = &proto.lb_config else {
                    return ring_hash(None, None, use_hostname);
                };
                let murmur = pb::cluster::ring_hash_lb_config::HashFunction::MurmurHash2 as i32;
                refuse_unsupported(&[("hash_function", config.hash_function == murmur)])
                    .and_then(|()| {
                        ring_hash(config.minimum_ring_size, config.maximum_ring_size, use_hostname)
                    })
                    .within("ring_hash_lb_config")
            }
            LbPolicyProto::Maglev => {
                let Some(LbConfigProto::MaglevLbConfig(config)) = &proto.lb_config else {
                    return maglev(None, use_hostname);
                };
                maglev(config.table_size, use_hostname).within("maglev_lb_config")
            }
            LbPolicyProto::ClusterProvided => Ok(LbPolicy::ClusterProvided),
            LbPolicyProto::LoadBalancingPolicyConfig => {
                Err(ConfigError::at("load_balancing_policy", "missing"))
            }
        }
    }

    fn read_locality(&mut self, config: Option<&policies::common::v3::LocalityLbConfig>) -> ConfigResult<()> {
        use policies::common::v3::locality_lb_config::LocalityConfigSpecifier as Specifier;
        match config.and_then(|c| c.locality_config_specifier.as_ref()) {
            None => Ok(()),
            Some(Specifier::LocalityWeightedLbConfig(_)) => {
                self.locality_weighted = true;
                Ok(())
            }
            Some(Specifier::ZoneAwareLbConfig(_)) => {
                Err(ConfigError::unsupported("zone_aware_lb_config").within("locality_lb_config"))
            }
        }
    }

    #[allow(deprecated)]
    fn read_ring_hash(&mut self, config: &policies::ring_hash::v3::RingHash) -> ConfigResult<LbPolicy> {
        use policies::ring_hash::v3::ring_hash::HashFunction;
        refuse_unsupported(&[
            (
                "hash_function",
                config.hash_function == HashFunction::MurmurHash2 as i32,
            ),
            ("hash_balance_factor", config.hash_balance_factor.is_some()),
        ])?;
        self.locality_weighted |= config.locality_weighted_lb_config.is_some();
        let common = config.consistent_hashing_lb_config.as_ref();
        let use_hostname = config.use_hostname_for_hashing || read_hashing(common)?;
        ring_hash(config.minimum_ring_size, config.maximum_ring_size, use_hostname)
    }

    fn read_maglev(&mut self, config: &policies::maglev::v3::Maglev) -> ConfigResult<LbPolicy> {
        self.locality_weighted |= config.locality_weighted_lb_config.is_some();
        maglev(
            config.table_size,
            read_hashing(config.consistent_hashing_lb_config.as_ref())?,
        )
    }
}

fn read_hashing(config: Option<&policies::common::v3::ConsistentHashingLbConfig>) -> ConfigResult<bool> {
    let Some(config) = config else { return Ok(false) };
    refuse_unsupported(&[
        ("hash_balance_factor", config.hash_balance_factor.is_some()),
        ("hash_policy", !config.hash_policy.is_empty()),
    ])
    .within("consistent_hashing_lb_config")?;
    Ok(config.use_hostname_for_hashing)
}

fn least_request(choice_count: Option<u32>, bias: Option<f64>, full_scan: bool) -> ConfigResult<LbPolicy> {
    let choice_count = choice_count.unwrap_or(limits::DEFAULT_CHOICE_COUNT);
    if !(2..=limits::MAX_CHOICE_COUNT).contains(&choice_count) {
        let reason = format!("must be between 2 and {}", limits::MAX_CHOICE_COUNT);
        return Err(ConfigError::at("choice_count", reason));
    }
    let active_request_bias = bias.unwrap_or(1.0);
    if active_request_bias < 0.0 {
        return Err(ConfigError::at("active_request_bias", "must not be negative"));
    }
    Ok(LbPolicy::LeastRequest(LeastRequestConfig {
        choice_count,
        active_request_bias,
        full_scan,
    }))
}

fn ring_hash(min: Option<u64>, max: Option<u64>, use_hostname: bool) -> ConfigResult<LbPolicy> {
    let min_size = min.unwrap_or(limits::DEFAULT_MIN_RING_SIZE);
    let max_size = max.unwrap_or(limits::MAX_RING_SIZE);
    if max_size > limits::MAX_RING_SIZE {
        return Err(ConfigError::at(
            "maximum_ring_size",
            format!("must not be above {}", limits::MAX_RING_SIZE),
        ));
    }
    if min_size > max_size {
        return Err(ConfigError::at(
            "minimum_ring_size",
            "must not be above maximum_ring_size",
        ));
    }
    Ok(LbPolicy::RingHash(RingHashConfig {
        min_size,
        max_size,
        use_hostname,
    }))
}

fn maglev(table_size: Option<u64>, use_hostname: bool) -> ConfigResult<LbPolicy> {
    let table_size = table_size.unwrap_or(limits::DEFAULT_MAGLEV_TABLE_SIZE);
    if table_size > limits::MAX_MAGLEV_TABLE_SIZE {
        let reason = format!("must not be above {}", limits::MAX_MAGLEV_TABLE_SIZE);
        return Err(ConfigError::at("table_size", reason));
    }
    if !is_prime(table_size) {
        return Err(ConfigError::at("table_size", "must be a prime number"));
    }
    Ok(LbPolicy::Maglev {
        table_size,
        use_hostname,
    })
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}
