//! Starting and stopping the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tls::{CertificateAuthority, TlsAcceptor};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::service::{Access, ApiService};
use crate::start_error::StartError;
use crate::store::Store;
use crate::trusted::TrustedWriter;
use crate::{controllers, files, limits, seed};

/// Files in the state directory.
const DATABASE: &str = "apiserver.redb";
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const KUBECONFIG: &str = "kubeconfig";
/// The name of cluster, context and user in the kubeconfig.
const CONTEXT: &str = "lateen";

/// What a server is started with.
#[derive(Clone)]
pub struct Config {
    /// Where the database, keys and the kubeconfig are kept; made when missing, with mode 0700.
    pub state_dir: PathBuf,
    /// Where to listen; port 0 takes any, and so does a port that is taken.
    pub bind: SocketAddr,
    /// CRDs that exist from the start, as JSON of `apiextensions.k8s.io/v1`.
    pub custom_resource_definitions: Vec<Value>,
    /// Tells the time.
    pub clock: Clock,
}

impl Config {
    /// Listens on any free port of 127.0.0.1, with Istio's kinds built in.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            custom_resource_definitions: api_istio::crds(),
            clock: Arc::new(SystemTime::now),
        }
    }
}

/// The embedded API server.
pub struct ApiServer;

impl ApiServer {
    /// Starts a server; when this returns it answers, in process and on its socket.
    ///
    /// # Errors
    /// When the state directory cannot be used, or the address cannot be listened on.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        prepare_directory(&config.state_dir)?;
        let authenticator = Authenticator::open(&config.state_dir)?;
        let authority = authority(&config)?;
        let database = config.state_dir.join(DATABASE);
        // The database holds Secrets; it is private before anything is written to it.
        files::make_private(&database)?;
        let store = tokio::task::spawn_blocking(move || Store::open(&database))
            .await
            .map_err(|error| StartError::Store(error.to_string()))??;
        let stopping = CancellationToken::new();
        let api = Arc::new(Api {
            catalog: ArcSwap::from_pointee(Catalog::built_in()),
            store,
            authenticator,
            clock: config.clock.clone(),
            exclusive: tokio::sync::Mutex::default(),
            stopping: stopping.clone(),
        });
        seed::seed(&api, &config.custom_resource_definitions).await?;
        controllers::sweep(&api).await?;
        let (listener, address) = listen(config.bind).await?;
        let acceptor = acceptor(&authority, address, &config.clock)?;
        let url = format!("https://{address}");
        let kubeconfig_path = config.state_dir.join(KUBECONFIG);
        let kubeconfig = kubeconfig(&url, authority.certificate_pem(), api.authenticator.admin_token());
        files::write(&kubeconfig_path, kubeconfig.as_bytes())?;
        let tasks = TaskTracker::new();
        tasks.spawn(controllers::run(Arc::clone(&api)));
        let service = ApiService::new(Arc::clone(&api), Access::Network);
        tasks.spawn(accept(
            listener,
            acceptor,
            service,
            stopping.clone(),
            tasks.clone(),
        ));
        tasks.close();
        Ok(Handle {
            api,
            url,
            kubeconfig_path,
            ca_pem: authority.certificate_pem().to_owned(),
            address,
            stopping,
            tasks,
        })
    }
}

/// A running server. It stops when this is dropped; [`Handle::shutdown`] also waits for it.
pub struct Handle {
    api: Arc<Api>,
    url: String,
    kubeconfig_path: PathBuf,
    ca_pem: String,
    address: SocketAddr,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Handle {
    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig with the administrator's token; the file has mode 0600.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// The certificate that clients must trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The administrator's bearer token.
    pub fn admin_token(&self) -> &str {
        self.api.authenticator.admin_token()
    }

    /// The server without a socket: requests need no token and may write what users may only read.
    /// `kube::Client::new(handle.service(), "default")` is a client over it.
    pub fn service(&self) -> ApiService {
        ApiService::new(Arc::clone(&self.api), Access::InProcess)
    }

    /// Writes for the server side: Pods, Nodes, EndpointSlices, and status.
    pub fn store(&self) -> TrustedWriter {
        TrustedWriter::new(Arc::clone(&self.api))
    }

    /// Ends all connections and watches, and closes the database.
    pub async fn shutdown(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
        self.api.store.close().await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn prepare_directory(directory: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|error| StartError::file(directory, error))
}

/// The stored authority, or a new one.
fn authority(config: &Config) -> Result<CertificateAuthority, StartError> {
    let (certificate, key) = (
        config.state_dir.join(CA_CERTIFICATE),
        config.state_dir.join(CA_KEY),
    );
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let (stored_certificate, stored_key) = (read(&certificate), read(&key));
    if !stored_certificate.is_empty() && !stored_key.is_empty() {
        return Ok(CertificateAuthority::from_pem(&stored_certificate, &stored_key)?);
    }
    let authority = CertificateAuthority::generate("lateen-apiserver", (config.clock)())?;
    files::write(&key, authority.key_pem().as_bytes())?;
    files::write(&certificate, authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

/// Listens where asked, or on any port when that one is taken.
async fn listen(bind: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let fail = |source| StartError::Listen {
        address: bind,
        source,
    };
    let listener = match TcpListener::bind(bind).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(%bind, "the port is taken, another one is used");
            TcpListener::bind(SocketAddr::new(bind.ip(), 0)).await
        }
        other => other,
    };
    let listener = listener.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((listener, address))
}

/// A certificate is made at every start, so it never expires while the state lives on.
fn acceptor(
    authority: &CertificateAuthority,
    address: SocketAddr,
    clock: &Clock,
) -> Result<TlsAcceptor, StartError> {
    let ip = address.ip().to_string();
    let mut names = vec![
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    if !names.contains(&ip.as_str()) && !address.ip().is_unspecified() {
        names.push(&ip);
    }
    let issued = authority.issue_server(&names, clock())?;
    let chain = format!("{}{}", issued.certificate_pem, authority.certificate_pem());
    Ok(tls::server_acceptor(
        &chain,
        &issued.key_pem,
        &["h2", "http/1.1"],
    )?)
}

fn kubeconfig(url: &str, ca_pem: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
        "current-context": CONTEXT,
    });
    // JSON is YAML, and needs no second library to be written.
    format!("{config:#}\n")
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    service: ApiService,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let connections = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(stream, acceptor.clone(), service.clone(), stopping.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close some first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, service: ApiService, stopping: CancellationToken) {
    let _latency_only = stream.set_nodelay(true);
    let stream = match timeout(limits::TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
