//! A discovery service: it sends what a test gives it, and keeps what it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::json::{Schema, yaml_to_json};
use api_envoy::type_url;
use parking_lot::Mutex;
use tokio::sync::watch;
use xds::grpc::server::{DeltaConnection, SotwConnection, Streams};

use super::eventually;

type Resources = BTreeMap<(String, String), api_envoy::Any>;

/// The service; it ends with the value.
pub(crate) struct Discovery {
    pub(crate) address: SocketAddr,
    service: Service,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Clone)]
struct Service {
    resources: watch::Sender<Resources>,
    told: Arc<Mutex<Told>>,
}

/// What clients said.
#[derive(Default)]
struct Told {
    streams: usize,
    acks: usize,
    nacks: Vec<String>,
    initial_versions: BTreeMap<String, Vec<String>>,
}

impl Discovery {
    pub(crate) fn start() -> Self {
        let service = Service {
            resources: watch::Sender::new(Resources::new()),
            told: Arc::default(),
        };
        let (runtime, address) = serve(&service, "127.0.0.1:0".parse().unwrap());
        Self {
            address,
            service,
            runtime: Some(runtime),
        }
    }

    /// Ends every stream and stops listening.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Listens again on the same address.
    pub(crate) fn restart(&mut self) {
        self.stop();
        eventually("the address is free", || {
            net::socket::is_free(self.address).then_some(())
        });
        self.runtime = Some(serve(&self.service, self.address).0);
    }

    /// Adds or replaces a resource, written as YAML without its type.
    pub(crate) fn put(&self, type_url: &str, yaml: &str) {
        let mut json = yaml_to_json(yaml).unwrap();
        let name = json["name"]
            .as_str()
            .or(json["cluster_name"].as_str())
            .unwrap()
            .to_owned();
        json["@type"] = type_url.into();
        let resource = Schema::get().parse_any(&json).unwrap();
        self.service
            .resources
            .send_modify(|all| drop(all.insert((type_url.to_owned(), name), resource)));
    }

    /// Removes a resource.
    pub(crate) fn remove(&self, type_url: &str, name: &str) {
        self.service
            .resources
            .send_modify(|all| drop(all.remove(&(type_url.to_owned(), name.to_owned()))));
    }

    pub(crate) fn nacks(&self) -> Vec<String> {
        self.service.told.lock().nacks.clone()
    }

    pub(crate) fn streams(&self) -> usize {
        self.service.told.lock().streams
    }

    /// Names that the last stream said it holds, of a type.
    pub(crate) fn initial_versions(&self, type_url: &str) -> Vec<String> {
        self.service
            .told
            .lock()
            .initial_versions
            .get(type_url)
            .cloned()
            .unwrap_or_default()
    }

    /// The bootstrap of a proxy that gets everything from here.
    pub(crate) fn bootstrap(&self) -> String {
        format!(
            "node: {{ id: test, cluster: test }}\n\
             dynamic_resources:\n  lds_config: {{ ads: {{}}, resource_api_version: V3 }}\n  \
             cds_config: {{ ads: {{}}, resource_api_version: V3 }}\n  \
             ads_config: {{ api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: \
             [{{ envoy_grpc: {{ cluster_name: xds-grpc }} }}] }}\n\
             static_resources: {{ clusters: [{}] }}\n",
            super::cluster_with("xds-grpc", self.address, super::HTTP2)
        )
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(service: &Service, address: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
    let address = listener.local_addr().unwrap();
    let service = service.clone();
    runtime.spawn(async move {
        let _ = xds::grpc::server::serve(listener, service, std::future::pending()).await;
    });
    (runtime, address)
}

impl Streams for Service {
    async fn delta(&self, mut connection: DeltaConnection) {
        self.told.lock().streams += 1;
        let mut resources = self.resources.subscribe();
        let mut watches: BTreeMap<String, Watch> = BTreeMap::new();
        let mut nonce = 0;
        loop {
            tokio::select! {
                request = connection.receive() => match request {
                    None => return,
                    Some(request) => self.note(&request, &mut watches),
                },
                changed = resources.changed() => if changed.is_err() { return },
            }
            let all = resources.borrow_and_update().clone();
            for kind in [
                type_url::CLUSTER,
                type_url::ENDPOINT,
                type_url::LISTENER,
                type_url::ROUTE,
                type_url::SECRET,
            ] {
                let Some(watch) = watches.get_mut(kind) else {
                    continue;
                };
                let Some(mut response) = watch.response(kind, &all) else {
                    continue;
                };
                nonce += 1;
                response.nonce = nonce.to_string();
                if !connection.send(response).await {
                    return;
                }
            }
        }
    }

    async fn sotw(&self, mut connection: SotwConnection) {
        self.told.lock().streams += 1;
        let mut resources = self.resources.subscribe();
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut sent: BTreeMap<String, Vec<api_envoy::Any>> = BTreeMap::new();
        let mut nonce = 0;
        loop {
            tokio::select! {
                request = connection.receive() => match request {
                    None => return,
                    Some(request) => {
                        self.told.lock().nacks.extend(request.error_detail.map(|error| error.message));
                        wanted.insert(request.type_url, request.resource_names);
                    }
                },
                changed = resources.changed() => if changed.is_err() { return },
            }
            let all = resources.borrow_and_update().clone();
            for (kind, names) in &wanted {
                let has = |name: &String| names.is_empty() || names.contains(name);
                let now = all
                    .iter()
                    .filter(|((k, name), _)| k == kind && has(name))
                    .map(|(_, any)| any.clone());
                let now: Vec<_> = now.collect();
                if sent.insert(kind.clone(), now.clone()).as_ref() == Some(&now) {
                    continue;
                }
                nonce += 1;
                let response = ads::DiscoveryResponse {
                    type_url: kind.clone(),
                    version_info: nonce.to_string(),
                    nonce: nonce.to_string(),
                    resources: now,
                    ..Default::default()
                };
                if !connection.send(response).await {
                    return;
                }
            }
        }
    }
}

/// What one stream wants of a type, and has.
#[derive(Default)]
struct Watch {
    wildcard: bool,
    names: Vec<String>,
    sent: BTreeMap<String, api_envoy::Any>,
    answered: bool,
}

impl Watch {
    fn response(&mut self, kind: &str, all: &Resources) -> Option<ads::DeltaDiscoveryResponse> {
        let wanted = |name: &String| self.wildcard || self.names.contains(name);
        let now: BTreeMap<_, _> = all
            .iter()
            .filter(|((k, name), _)| k == kind && wanted(name))
            .map(|((_, name), resource)| (name.clone(), resource.clone()))
            .collect();
        let changed = now
            .iter()
            .filter(|(name, resource)| self.sent.get(*name) != Some(resource));
        let resources: Vec<_> = changed
            .map(|(name, resource)| ads::Resource {
                name: name.clone(),
                version: "v".to_owned(),
                resource: Some(resource.clone()),
                ..Default::default()
            })
            .collect();
        let removed: Vec<_> = self
            .sent
            .keys()
            .filter(|name| !now.contains_key(*name))
            .cloned()
            .collect();
        self.sent = now;
        // The first answer to a wildcard goes out even if it is empty: the client waits for it.
        if resources.is_empty() && removed.is_empty() && (self.answered || !self.wildcard) {
            return None;
        }
        self.answered = true;
        Some(ads::DeltaDiscoveryResponse {
            type_url: kind.to_owned(),
            resources,
            removed_resources: removed,
            system_version_info: "v".to_owned(),
            ..Default::default()
        })
    }
}

impl Service {
    fn note(&self, request: &ads::DeltaDiscoveryRequest, watches: &mut BTreeMap<String, Watch>) {
        let mut told = self.told.lock();
        match &request.error_detail {
            Some(error) => told.nacks.push(error.message.clone()),
            None if !request.response_nonce.is_empty() => told.acks += 1,
            None => {}
        }
        let first = !watches.contains_key(&request.type_url);
        if first {
            let held = request.initial_resource_versions.keys().cloned().collect();
            told.initial_versions.insert(request.type_url.clone(), held);
        }
        let watch = watches.entry(request.type_url.clone()).or_default();
        if request.resource_names_subscribe.iter().any(|name| name == "*") {
            watch.wildcard = true;
        }
        if first && request.resource_names_subscribe.is_empty() {
            watch.wildcard = true;
        }
        watch.names.extend(
            request
                .resource_names_subscribe
                .iter()
                .filter(|name| *name != "*")
                .cloned(),
        );
        watch
            .names
            .retain(|name| !request.resource_names_unsubscribe.contains(name));
    }
}
