//! Proxies that take configuration as ours does: what a control plane generates for a node goes through the very
//! functions that apply an update from discovery, in a state of its own.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::core::v3::Node;
use api_envoy::json::Schema;
use casebook::data_plane;
use casebook::world::World;
use control_snapshot::{Proxy, Snapshot};
use control_translate::{Packed, Parts};
use proxy_config::LocalNode;
use proxy_config::filters::node_extensions;
use proxy_config::state::{ConfigState, Source};
use proxy_core::ConfigResult;
use proxy_observe::LogFiles;
use proxy_server::http::HttpConfig;
use proxy_upstream::secrets::Sources;
use serde_json::json;
use telemetry::stats::Registry;

/// The cluster that leads to the agent beside a proxy, from which it has its identity.
const AGENT: &str = "sds-grpc";

/// How many resources of each type were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) clusters: usize,
    pub(crate) endpoints: usize,
    pub(crate) listeners: usize,
    pub(crate) routes: usize,
}

impl Taken {
    pub(crate) fn add(&mut self, other: Self) {
        self.clusters += other.clusters;
        self.endpoints += other.endpoints;
        self.listeners += other.listeners;
        self.routes += other.routes;
    }
}

/// What came of a world before one proxy.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) taken: Taken,
    /// Resource, field and message of each that was refused.
    pub(crate) refused: BTreeSet<String>,
    /// Stands for all resources: another one when any of them is another.
    pub(crate) fingerprint: u64,
}

/// Makes proxies, and puts worlds before them.
pub(crate) struct Bench {
    schema: Schema,
    files: Arc<LogFiles>,
    parts: Parts,
    hasher: RandomState,
    /// Clusters with their endpoints, and listeners with their routes, that were taken once are not tried again:
    /// nothing that they depend on changes.
    known: RefCell<HashSet<u64>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self {
            schema: Schema::get(),
            files: Arc::new(LogFiles::start(Duration::from_secs(1)).expect("a thread")),
            parts: Parts::default(),
            hasher: RandomState::new(),
            known: RefCell::default(),
        }
    }

    /// The proxy that announces this node, with the extensions that ours has.
    pub(crate) fn proxy(&self, mut node: Node) -> Proxy {
        node.extensions = node_extensions();
        Proxy::from_node(&node).expect("a node of Istio's")
    }

    /// The proxy under test of a world.
    pub(crate) fn proxy_of(&self, world: &World) -> Proxy {
        let identity = data_plane::identity(world);
        let node = json!({ "id": identity.id, "cluster": identity.cluster, "metadata": identity.metadata });
        self.proxy(self.schema.parse(&node).expect("a node"))
    }

    /// Puts a world before a proxy that has nothing yet.
    pub(crate) fn put(&self, snapshot: &Snapshot, proxy: &Proxy) -> Outcome {
        let view = snapshot.proxy_view(proxy);
        let (translation, _) = control_translate::translate_with(&view, &self.parts);
        let mut update = Update {
            state: ConfigState::new(Registry::new(), LocalNode::default(), Arc::clone(&self.files)),
            refused: BTreeSet::new(),
        };
        update.state.set_secret_sources(Sources {
            ads: true,
            clusters: [AGENT.into()].into(),
        });
        let mut prints = Vec::new();
        let mut taken = Taken::default();
        for cluster in &translation.clusters {
            let endpoints = self.endpoints(snapshot, proxy, cluster);
            let print = self
                .hasher
                .hash_one((&cluster.body.value, endpoints.as_ref().map(|e| &e.body.value)));
            prints.push(print);
            let both = |update: &mut Update| {
                let cluster = update.put("cluster", cluster, |state, source| state.update_cluster(source));
                let put =
                    |e: &Packed| update.put("endpoints", e, |state, source| state.update_endpoints(source));
                (cluster, endpoints.as_ref().map_or(0, put))
            };
            if let Some((clusters, endpoints)) = self.unless_known(print, &mut update, both) {
                taken.clusters += clusters;
                taken.endpoints += endpoints;
            }
        }
        // A proxy takes up the routes that its listeners name, so that these are there first.
        let together = translation.listeners.iter().chain(&translation.routes);
        let bodies: Vec<&[u8]> = together.map(|resource| &*resource.body.value).collect();
        let print = self.hasher.hash_one(bodies);
        prints.push(print);
        let all = |update: &mut Update| {
            let listeners = translation.listeners.iter();
            let listeners = listeners.map(|listener| update.put("listener", listener, put_listener));
            let listeners = listeners.sum::<usize>();
            let put = |routes| update.put("route", routes, |state, source| state.update_routes(source));
            (listeners, translation.routes.iter().map(put).sum::<usize>())
        };
        let (listeners, routes) = self.unless_known(print, &mut update, all).unwrap_or_default();
        taken.listeners += listeners;
        taken.routes += routes;
        Outcome {
            taken,
            refused: update.refused,
            fingerprint: self.hasher.hash_one(prints),
        }
    }

    /// The endpoints of a cluster that has them from discovery.
    fn endpoints(&self, snapshot: &Snapshot, proxy: &Proxy, cluster: &Packed) -> Option<Packed> {
        let message: Cluster = any::unpack(&cluster.body).expect("a cluster");
        message.eds_cluster_config?;
        let assignment = control_translate::endpoints(&snapshot.endpoint_view(proxy, &cluster.name));
        Some(Packed {
            name: Arc::clone(&cluster.name),
            body: Arc::new(any::pack(&assignment)),
        })
    }

    /// Tries what was not taken before; what is refused is tried again.
    fn unless_known<T>(
        &self,
        print: u64,
        update: &mut Update,
        put: impl FnOnce(&mut Update) -> T,
    ) -> Option<T> {
        if self.known.borrow().contains(&print) {
            return None;
        }
        let before = update.refused.len();
        let taken = put(update);
        if update.refused.len() == before {
            self.known.borrow_mut().insert(print);
        }
        Some(taken)
    }
}

/// An update on its way into a proxy.
struct Update {
    state: ConfigState<Arc<HttpConfig>>,
    refused: BTreeSet<String>,
}

impl Update {
    /// 1 when it was taken.
    fn put(
        &mut self,
        kind: &str,
        resource: &Packed,
        put: impl FnOnce(&mut ConfigState<Arc<HttpConfig>>, Source) -> ConfigResult<()>,
    ) -> usize {
        let source = Source {
            resource: Arc::clone(&resource.body),
            version: "1".into(),
            last_updated: SystemTime::UNIX_EPOCH,
        };
        match put(&mut self.state, source) {
            Ok(()) => 1,
            Err(error) => {
                self.refused.insert(format!("{kind} {}: {error}", resource.name));
                0
            }
        }
    }
}

fn put_listener(state: &mut ConfigState<Arc<HttpConfig>>, source: Source) -> ConfigResult<()> {
    state.update_listener(
        source,
        &mut |proto, context| HttpConfig::compile(proto, context).map(Arc::new),
        &mut |_| Ok(()),
    )
}
