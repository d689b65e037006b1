//! A control plane with identities, and clients of it.

#![allow(unreachable_pub, reason = "the other files of this test use it")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api_envoy::istio::v1::auth::IstioCertificateRequest;
use api_envoy::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use api_envoy::wkt;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_apiserver::{ApiServer, Config, Handle};
use control_ca::{Authority, Lifetimes, RootRotation, SelfSigned};
use control_discovery::debug::{Caller, Pages, router};
use control_discovery::identities::{Issuer, SecureListeners, Settings};
use control_discovery::{Discovery, Identities, World};
use control_snapshot::{Kind, Settings as WorldSettings};
use control_sources::watch::watch_all;
use control_sources::write::{self, ObjectRef};
use control_sources::{Client, apply, client};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use identity::{KeyKind, PrivateKey, SubjectName, TrustDomain, request_certificate};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

/// A root that nobody renews while a test runs.
pub const STABLE: RootRotation = RootRotation {
    check_interval: Duration::from_secs(3600),
    grace_percent: 20,
    lifetime: Duration::from_secs(10 * 24 * 3600),
};
const ROOT: &str = "istio-system";

pub struct Mesh {
    pub api: Handle,
    pub client: Client,
    pub discovery: Discovery,
    pub identities: Identities,
    pub secure: SocketAddr,
    pub plaintext: SocketAddr,
    /// What processes of this host find.
    pub folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("in time")
}

/// Asks again and again until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not happen")
}

pub fn secret(namespace: &str, name: &str, kind: &str, entries: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = entries
        .iter()
        .map(|(entry, text)| ((*entry).to_owned(), STANDARD.encode(text).into()))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": namespace}, "data": data,
    })
}

/// An API server with the mesh's namespaces, and a client of it.
pub async fn api_server(directory: &std::path::Path) -> (Handle, Client) {
    let api = ApiServer::start(Config::new(directory))
        .await
        .expect("the API server starts");
    let client = client::in_process(api.service());
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let account = |namespace: &str, name: &str| {
        let meta = json!({"name": name, "namespace": namespace});
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    };
    let mesh = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": ROOT},
        "data": {"mesh": "trustDomain: cluster.local\n"},
    });
    let labels = json!({"istio": "ingress"});
    let group = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
        "metadata": {"name": "gateway", "namespace": ROOT},
        "spec": {"metadata": {"labels": labels}, "template": {"serviceAccount": "gateway"}},
    });
    let port = json!({"number": 443, "name": "https", "protocol": "TCP"});
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "door", "namespace": "shop"},
        "spec": {"selector": labels, "servers": [{"port": port, "hosts": ["*"]}]},
    });
    let objects = [
        namespace(ROOT),
        namespace("shop"),
        account("shop", "reviews"),
        account("shop", "other"),
        account(ROOT, "gateway"),
        mesh,
        group,
        gateway,
    ];
    apply(&client, &objects).await.expect("stored");
    (api, client)
}

/// Who this process is: the owner of what it makes.
fn owner(folder: &std::path::Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder).expect("a folder").uid()
}

impl Mesh {
    /// Starts a control plane on an API server that may hold a mesh's authority already.
    pub async fn start(api: Handle, client: Client, rotation: RootRotation) -> Self {
        Self::start_with(api, client, rotation, None).await
    }

    /// One whose host's workloads are started by these users.
    #[allow(dead_code, reason = "not every program of tests that has this file uses it")]
    pub async fn start_for_users(api: Handle, client: Client, users: BTreeSet<u32>) -> Self {
        Self::start_changed(api, client, |settings| settings.host_users = users).await
    }

    /// One that takes the JWTs of an issuer as well.
    pub async fn start_with(
        api: Handle,
        client: Client,
        rotation: RootRotation,
        issuer: Option<Issuer>,
    ) -> Self {
        let change = |settings: &mut Settings| {
            settings.rotation = rotation;
            settings.issuer = issuer;
        };
        Self::start_changed(api, client, change).await
    }

    async fn start_changed(api: Handle, client: Client, change: impl FnOnce(&mut Settings)) -> Self {
        let world = World::new(WorldSettings::default(), "test");
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = Settings {
            root_namespace: ROOT.to_owned(),
            names: vec![
                SubjectName::Dns("istiod.istio-system.svc".to_owned()),
                SubjectName::Ip([127, 0, 0, 1].into()),
            ],
            trusted_node_accounts: Default::default(),
            issuer: None,
            host_users: [owner(folder.path())].into(),
            roots_file: Some(folder.path().join("root-cert.pem")),
            revocations_file: Some(folder.path().join("ca-crl.pem")),
            rotation: STABLE,
            jitter: 0.0,
            lifetimes: Lifetimes::default(),
            clock: Arc::new(SystemTime::now),
        };
        change(&mut settings);
        let identities = Identities::new(client.clone(), Arc::clone(&world), settings);
        let discovery = Discovery::new(Arc::clone(&world), "test", None);
        discovery.set_identities(identities.clone());
        let (mut changes, watches) = watch_all(&client, ROOT);
        tokio::spawn(Arc::clone(&world).run());
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                world.take(change);
            }
            drop(watches);
        });
        let secure = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let plaintext = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stop = watch::Sender::new(false);
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await.is_ok();
        };
        let mesh = Self {
            api,
            client,
            discovery: discovery.clone(),
            identities,
            secure: secure.local_addr().expect("an address"),
            plaintext: plaintext.local_addr().expect("an address"),
            folder,
            stop: stop.clone(),
        };
        let server = discovery.clone();
        let ends = stopped(stop.subscribe());
        tokio::spawn(async move { server.serve(plaintext, ends).await });
        let ends = stopped(stop.subscribe());
        let host = xds::grpc::secrets::bind(&mesh.host_socket()).expect("a socket");
        let listeners = SecureListeners {
            secure,
            host: Some(host),
        };
        tokio::spawn(async move { discovery.serve_secure(listeners, ends).await });
        mesh
    }

    /// One with a new self-signed authority.
    pub async fn new(directory: &std::path::Path) -> Self {
        let (api, client) = api_server(directory).await;
        let mesh = Self::start(api, client, STABLE).await;
        mesh.authority().await;
        mesh
    }

    /// Stops the servers; the API server goes on.
    pub fn stop(self) -> (Handle, Client) {
        self.stop.send_replace(true);
        (self.api, self.client)
    }

    pub async fn authority(&self) -> Arc<Authority> {
        eventually("the authority", || async { self.identities.authority() }).await
    }

    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        write::get(&self.client, &ObjectRef::new(kind, namespace, name))
            .await
            .ok()
    }

    /// A token of an account, as the kubelet puts it into a pod.
    pub async fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]},
        });
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(asked.to_string()))
            .expect("a request");
        let answer = self.api.service().oneshot(request).await.expect("an answer");
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// A page of the debug port.
    pub async fn page(&self, path: &str) -> String {
        let pages = Pages {
            discovery: self.discovery.clone(),
            version: "test",
            started: std::time::Instant::now(),
        };
        let request = Request::get(path).extension(ConnectInfo(Caller::ThisHost));
        let request = request.body(Body::empty()).expect("a request");
        let response = router(pages).oneshot(request).await.expect("an answer");
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where processes of this host connect to.
    pub fn host_socket(&self) -> std::path::PathBuf {
        self.folder.path().join("agents.sock")
    }

    /// A connection from this host.
    pub async fn connect_from_host(&self) -> Channel {
        let path = self.host_socket();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://agents");
        within(endpoint.connect_with_connector(connector))
            .await
            .expect("a connection")
    }

    /// Asks from this host for the certificate of an account, `<namespace>/<name>`.
    pub async fn certificate_from_host(&self, account: &str) -> Result<Shown, Status> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
        let call = IstioCertificateRequest {
            csr: request_certificate(&key, &[]).expect("a request"),
            metadata: Some(wkt::structure(&json!({"ImpersonatedIdentity": account}))),
            ..IstioCertificateRequest::default()
        };
        let mut service = IstioCertificateServiceClient::new(self.connect_from_host().await);
        let answer = within(service.create_certificate(call)).await?;
        Ok(Shown {
            chain: answer.into_inner().cert_chain.concat(),
            key: key.to_pem().expect("PEM").to_string(),
            ..Shown::default()
        })
    }

    /// Opens a delta stream from this host.
    pub async fn stream_from_host(&self) -> AdsStream {
        AdsStream::open(self.connect_from_host().await, None)
    }

    /// A connection to the secure port, with a certificate or without.
    pub async fn connect(&self, shown: Option<&Shown>) -> Result<Channel, String> {
        let roots = self.authority().await.roots_pem();
        let settings = UpstreamTlsContext {
            common: CommonTlsContext {
                tls_params: TlsParameters {
                    maximum_version: Some(TlsVersion::V1_3),
                    ..TlsParameters::default()
                },
                tls_certificates: shown.iter().map(|shown| shown.tls()).collect(),
                alpn_protocols: vec!["h2".to_owned()],
                validation_context: Some(CertificateValidationContext {
                    trusted_ca: Some(roots.into_bytes()),
                    ..CertificateValidationContext::default()
                }),
            },
            sni: "istiod.istio-system.svc".to_owned(),
            auto_sni_san_validation: true,
            ..UpstreamTlsContext::default()
        };
        let context = ClientContext::new(&settings, shown.map_or_else(SystemTime::now, |shown| shown.clock));
        let context = Arc::new(context.map_err(|e| e.to_string())?);
        let address = self.secure;
        let connector = tower::service_fn(move |_| {
            let context = Arc::clone(&context);
            async move {
                let stream = TcpStream::connect(address).await?;
                let connected = context.connect(stream, ConnectOptions::default()).await;
                let (stream, _) = connected.map_err(|e| std::io::Error::other(e.to_string()))?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://istiod.istio-system.svc:15012");
        within(endpoint.connect_with_connector(connector))
            .await
            .map_err(|e| format!("{e:?}"))
    }

    /// Asks for a certificate; the chain in PEM, and its key.
    pub async fn certificate(&self, shown: Option<&Shown>, token: Option<&str>) -> Result<Shown, Status> {
        let certificate = shown;
        self.certificate_for("", &Proofs { certificate, token }).await
    }

    /// Asks on behalf of somebody else, unless the identity is empty.
    pub async fn certificate_for(&self, identity: &str, proofs: &Proofs<'_>) -> Result<Shown, Status> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
        let named = wkt::structure(&json!({"ImpersonatedIdentity": identity}));
        let request = IstioCertificateRequest {
            csr: request_certificate(&key, &[]).expect("a request"),
            metadata: (!identity.is_empty()).then_some(named),
            ..IstioCertificateRequest::default()
        };
        self.ask_for_certificate(request, &key, proofs).await
    }

    /// Sends a request for a certificate of this key.
    pub async fn ask_for_certificate(
        &self,
        request: IstioCertificateRequest,
        key: &PrivateKey,
        proofs: &Proofs<'_>,
    ) -> Result<Shown, Status> {
        let channel = self.connect(proofs.certificate).await;
        let channel = channel.map_err(Status::unavailable)?;
        let mut call = tonic::Request::new(request);
        authorise(&mut call, proofs.token);
        let answer = within(IstioCertificateServiceClient::new(channel).create_certificate(call)).await?;
        Ok(Shown {
            chain: answer.into_inner().cert_chain.concat(),
            key: key.to_pem().expect("PEM").to_string(),
            ..Shown::default()
        })
    }

    /// Opens a delta stream over the secure port.
    pub async fn stream(&self, shown: Option<&Shown>, token: Option<&str>) -> Result<AdsStream, String> {
        Ok(AdsStream::open(self.connect(shown).await?, token))
    }

    /// Opens a delta stream in plaintext.
    pub async fn plaintext_stream(&self) -> AdsStream {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.plaintext)).expect("an address");
        AdsStream::open(within(endpoint.connect()).await.expect("a connection"), None)
    }
}

fn authorise<T>(call: &mut tonic::Request<T>, token: Option<&str>) {
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        call.metadata_mut().insert("authorization", value);
    }
}

/// What a caller proves itself with.
#[derive(Clone, Copy, Default)]
pub struct Proofs<'p> {
    pub certificate: Option<&'p Shown>,
    pub token: Option<&'p str>,
}

/// A certificate with its key, to be shown.
pub struct Shown {
    pub chain: String,
    pub key: String,
    /// The time that its owner's clock shows, who would not offer what it takes for expired.
    pub clock: SystemTime,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            chain: String::new(),
            key: String::new(),
            clock: SystemTime::now(),
        }
    }
}

impl Shown {
    /// One that an authority has signed for `names`, an hour from `from` on.
    pub fn signed(authority: &Authority, names: &[SubjectName], from: SystemTime) -> Self {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
        let hour = Duration::from_secs(3600);
        let issued = authority
            .certify(key.public_key(), names, hour, from)
            .expect("a certificate");
        Self {
            chain: issued.leaf().expect("a leaf").pem(),
            key: key.to_pem().expect("PEM").to_string(),
            clock: from,
        }
    }

    fn tls(&self) -> TlsCertificate {
        TlsCertificate {
            certificate_chain: self.chain.clone().into_bytes(),
            private_key: Secret::new(self.key.as_bytes()),
        }
    }
}

/// An authority that is not the mesh's.
pub fn foreign_authority() -> Authority {
    let domain = TrustDomain::new("cluster.local").expect("a trust domain");
    Authority::self_signed(&SelfSigned::for_trust_domain(&domain), SystemTime::now()).expect("an authority")
}

pub fn workload(namespace: &str, account: &str) -> SubjectName {
    SubjectName::Uri(format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"))
}

/// The node of a proxy.
pub fn node(kind: &str, namespace: &str, account: &str) -> Node {
    let metadata = json!({"NAMESPACE": namespace, "SERVICE_ACCOUNT": account, "CLUSTER_ID": "Kubernetes"});
    Node {
        id: format!("{kind}~127.66.0.9~pod-1.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(wkt::structure(&metadata)),
        ..Node::default()
    }
}

pub struct AdsStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: mpsc::Receiver<Result<DeltaDiscoveryResponse, Status>>,
}

impl AdsStream {
    fn open(channel: Channel, token: Option<&str>) -> Self {
        let (requests, queue) = mpsc::channel(8);
        let (sender, answers) = mpsc::channel(8);
        let mut call = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(queue));
        authorise(&mut call, token);
        tokio::spawn(async move {
            let mut client = AggregatedDiscoveryServiceClient::new(channel);
            let mut stream = match client.delta_aggregated_resources(call).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => return drop(sender.send(Err(status)).await),
            };
            loop {
                let answer = match stream.message().await {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let ended = answer.is_err();
                if sender.send(answer).await.is_err() || ended {
                    return;
                }
            }
        });
        Self { requests, answers }
    }

    pub async fn ask(&self, node: Node, type_url: &str, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        // A stream that was refused says why in its answer.
        let _ = self.requests.send(request).await.is_ok();
    }

    /// Says that an answer is taken.
    pub async fn acknowledge(&self, answer: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            type_url: answer.type_url.clone(),
            response_nonce: answer.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        let _ = self.requests.send(request).await.is_ok();
    }

    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        within(self.answers.recv()).await.expect("an answer or a reason")
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self) -> bool {
        let answer = tokio::time::timeout(Duration::from_millis(300), self.answers.recv());
        answer.await.is_err()
    }
}
