//! Clusters from YAML, one worker, and a random source that repeats.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api_envoy::envoy::config::cluster::v3::Cluster as ClusterProto;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::json::Schema;
use proxy_upstream::{Assignment, Cluster, ClusterConfig, ClusterManager, ClusterSlot, ClusterUpdate};
use telemetry::stats::{Registry, Value};

pub(crate) const SLOT: ClusterSlot = ClusterSlot(0);

/// One worker with one cluster.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) clusters: ClusterManager,
    config: Arc<ClusterConfig>,
    endpoints: Arc<Assignment>,
}

/// A cluster from the YAML of its fields; the name is `app`.
pub(crate) fn config(yaml: &str, registry: &Registry) -> Result<ClusterConfig, String> {
    let text = format!("name: app\n{yaml}");
    let proto: ClusterProto = Schema::get()
        .parse_yaml(&text)
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    ClusterConfig::compile(&proto, registry).map_err(|e| e.to_string())
}

/// Why a cluster is refused.
pub(crate) fn refusal(yaml: &str) -> String {
    config(yaml, &Registry::new()).expect_err("the cluster is refused")
}

/// Endpoints from YAML in flow style: `[{ port: 1, weight: 2, health: UNHEALTHY, mode: x }]` per locality; the mode is
/// what `transport_socket_matches` looks at.
pub(crate) fn endpoints(
    localities: &str,
    config: &ClusterConfig,
    previous: Option<&Assignment>,
) -> Assignment {
    let localities: serde_json::Value = api_envoy::json::yaml_to_json(localities).unwrap();
    let localities: Vec<_> = localities
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(locality)
        .collect();
    let proto = serde_json::json!({ "cluster_name": "app", "endpoints": localities });
    let proto: ClusterLoadAssignment = Schema::get().parse(&proto).unwrap();
    Assignment::compile(&proto, &config.transport, previous).unwrap()
}

fn locality((index, locality): (usize, &serde_json::Value)) -> serde_json::Value {
    let host = |host: &serde_json::Value| {
        serde_json::json!({
            "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": host["port"] } } },
            "load_balancing_weight": host.get("weight").cloned().unwrap_or(1.into()),
            "health_status": host.get("health").cloned().unwrap_or("HEALTHY".into()),
            "metadata": { "filter_metadata": { "envoy.transport_socket_match": match host.get("mode") {
                Some(mode) => serde_json::json!({ "mode": mode }),
                None => serde_json::json!({}),
            } } },
        })
    };
    serde_json::json!({
        "locality": { "region": format!("r{index}") },
        "priority": locality.get("priority").cloned().unwrap_or(0.into()),
        "load_balancing_weight": locality.get("weight").cloned().unwrap_or(1.into()),
        "lb_endpoints": locality["hosts"].as_array().unwrap().iter().map(host).collect::<Vec<_>>(),
    })
}

impl World {
    /// A worker with an EDS cluster.
    pub(crate) fn new(yaml: &str, localities: &str) -> Self {
        let registry = Registry::new();
        let config = Arc::new(config(yaml, &registry).unwrap());
        let endpoints = Arc::new(endpoints(localities, &config, None));
        let mut clusters = ClusterManager::new(registry.shard(), 7, None);
        clusters.report_membership();
        let update = ClusterUpdate::Put {
            slot: SLOT,
            config: Arc::clone(&config),
            endpoints: Arc::clone(&endpoints),
        };
        clusters.apply(update, Instant::now());
        Self {
            registry,
            clusters,
            config,
            endpoints,
        }
    }

    /// A worker with a cluster that needs no discovery.
    pub(crate) fn ready(yaml: &str) -> Self {
        let registry = Registry::new();
        let config = Arc::new(config(yaml, &registry).unwrap());
        let endpoints = config.initial_endpoints().expect("no discovery");
        let mut clusters = ClusterManager::new(registry.shard(), 7, None);
        clusters.report_membership();
        let update = ClusterUpdate::Put {
            slot: SLOT,
            config: Arc::clone(&config),
            endpoints: Arc::clone(&endpoints),
        };
        clusters.apply(update, Instant::now());
        Self {
            registry,
            clusters,
            config,
            endpoints,
        }
    }

    pub(crate) fn cluster(&self) -> &Rc<Cluster> {
        self.clusters.get(SLOT).expect("the cluster is there")
    }

    /// An EDS update.
    pub(crate) fn update(&mut self, localities: &str) {
        self.update_at(localities, Instant::now());
    }

    /// An EDS update at some other time.
    pub(crate) fn update_at(&mut self, localities: &str, now: Instant) {
        self.endpoints = Arc::new(endpoints(localities, &self.config, Some(&self.endpoints)));
        let endpoints = Arc::clone(&self.endpoints);
        let update = ClusterUpdate::Endpoints {
            slot: SLOT,
            endpoints,
        };
        self.clusters.apply(update, now);
    }

    /// The value of a counter or gauge of the cluster.
    pub(crate) fn stat(&self, leaf: &str) -> u64 {
        let name = format!("cluster.app.{leaf}");
        let found = self.registry.snapshot().into_iter().find(|s| s.name == name);
        match found.map(|s| s.value) {
            Some(Value::Counter(n)) => n,
            Some(Value::Gauge(n)) => n,
            other => panic!("{name} is {other:?}"),
        }
    }
}

/// Random numbers, the same each time.
pub(crate) fn random() -> impl FnMut() -> u64 {
    let random = proxy_core::Random::new(42);
    move || random.next()
}

/// The port of a host's address.
pub(crate) fn port(host: &proxy_upstream::Host) -> u16 {
    host.spec().key.parse::<SocketAddr>().unwrap().port()
}
