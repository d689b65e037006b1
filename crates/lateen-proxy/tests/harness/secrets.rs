//! A secret discovery service on a Unix socket, as an agent serves it to its proxy: each stream asks for one secret.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use api_envoy::json::{Schema, yaml_to_json};
use api_envoy::type_url;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// The service; it ends with the value.
pub(crate) struct Secrets {
    service: Service,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Clone)]
struct Service {
    secrets: watch::Sender<BTreeMap<String, api_envoy::Any>>,
    nacks: Arc<Mutex<Vec<String>>>,
}

impl Secrets {
    pub(crate) fn start(socket: &Path) -> Self {
        let service = Service {
            secrets: watch::Sender::default(),
            nacks: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _entered = runtime.enter();
            UnixListenerStream::new(UnixListener::bind(socket).unwrap())
        };
        let serving = SecretDiscoveryServiceServer::new(service.clone());
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(serving);
            let _ = server.serve_with_incoming(listener).await;
        });
        Self {
            service,
            runtime: Some(runtime),
        }
    }

    /// Adds or replaces a secret, written as YAML without its type.
    pub(crate) fn put(&self, yaml: &str) {
        let mut json = yaml_to_json(yaml).unwrap();
        let name = json["name"].as_str().unwrap().to_owned();
        json["@type"] = type_url::SECRET.into();
        let secret = Schema::get().parse_any(&json).unwrap();
        let put = |all: &mut BTreeMap<_, _>| drop(all.insert(name, secret));
        self.service.secrets.send_modify(put);
    }

    pub(crate) fn nacks(&self) -> Vec<String> {
        self.service.nacks.lock().clone()
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type DeltaSecretsStream = Responses<ads::DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<ads::DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<ads::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let read =
            |request: ads::DeltaDiscoveryRequest| (request.resource_names_subscribe, request.error_detail);
        let written = |version: u32, name: &str, secret| ads::DeltaDiscoveryResponse {
            type_url: type_url::SECRET.to_owned(),
            nonce: version.to_string(),
            resources: vec![ads::Resource {
                name: name.to_owned(),
                version: version.to_string(),
                resource: Some(secret),
                ..Default::default()
            }],
            ..Default::default()
        };
        tokio::spawn(self.clone().serve(request.into_inner(), sender, read, written));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<ads::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        let read = |request: ads::DiscoveryRequest| (request.resource_names, request.error_detail);
        let written = |version: u32, _: &str, secret| ads::DiscoveryResponse {
            type_url: type_url::SECRET.to_owned(),
            version_info: version.to_string(),
            nonce: version.to_string(),
            resources: vec![secret],
            ..Default::default()
        };
        tokio::spawn(self.clone().serve(request.into_inner(), sender, read, written));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch_secrets(
        &self,
        _: Request<ads::DiscoveryRequest>,
    ) -> Result<Response<ads::DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets come on streams"))
    }
}

impl Service {
    /// Sends the secret that a stream asks for when there is one, and whenever it changes. `read` tells what a request
    /// names and refuses; `written` makes a response.
    async fn serve<Q, R>(
        self,
        mut requests: Streaming<Q>,
        responses: mpsc::Sender<Result<R, Status>>,
        read: impl Fn(Q) -> (Vec<String>, Option<api_envoy::google::rpc::Status>),
        written: impl Fn(u32, &str, api_envoy::Any) -> R,
    ) {
        let mut secrets = self.secrets.subscribe();
        let (mut wanted, mut sent, mut version) = (String::new(), None, 0);
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        let (names, refused) = read(request);
                        self.nacks.lock().extend(refused.map(|error| error.message));
                        wanted = names.into_iter().next().unwrap_or(wanted);
                    }
                    _ => return,
                },
                changed = secrets.changed() => if changed.is_err() { return },
            }
            let now = secrets.borrow_and_update().get(&wanted).cloned();
            let Some(secret) = now.filter(|now| sent.as_ref() != Some(now)) else {
                continue;
            };
            sent = Some(secret.clone());
            version += 1;
            if responses
                .send(Ok(written(version, &wanted, secret)))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}
