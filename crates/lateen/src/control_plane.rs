//! The control plane's assembly: API server (embedded, or one given by a kubeconfig), watches, discovery, registration.

mod embedded;
mod findings;
mod identities;
mod workloads;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::builder::FalseyValueParser;
use control_ca::OidcRules;
use control_discovery::debug::{Pages, service};
use control_discovery::identities::{Issuer, KeysSource, SecureListeners};
use control_discovery::{Discovery, Identities, World};
use control_snapshot::Settings;
use control_sources::Client;
use control_sources::registration::{self, Registrar};
use control_sources::watch::watch_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::state::{AGENT_SOCKET, Home};

/// Threads of the control plane's runtime: one to translate, one to answer meanwhile.
const WORKER_THREADS: usize = 2;
/// Ports tried, one after the other, when the wanted one is taken and may be moved.
const PORT_TRIES: u16 = 50;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use the Kubernetes API server of this kubeconfig instead of the embedded one.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the embedded API server keeps its objects, keys and kubeconfig.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    state_dir: Option<PathBuf>,
    /// The address all servers listen on.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// ADS for proxies in plaintext, on loopback whatever --bind says, since nobody is asked there who they are; 0 takes
    /// any free port.
    #[arg(long, value_name = "PORT", default_value_t = 15010)]
    xds_port: u16,
    /// Do not serve ADS in plaintext (istiod's --grpcAddr "").
    #[arg(long, conflicts_with = "xds_port")]
    no_plaintext_xds: bool,
    /// Certificates for workloads, and ADS for those that have proven who they are, over TLS; 0 takes any free port.
    #[arg(long, value_name = "PORT", default_value_t = 15012)]
    secure_port: u16,
    /// A Unix socket for agents of this host: whoever may start workloads here gets their certificates and
    /// configuration there, proven by the user that the kernel names. With the embedded API server it is agents.sock in
    /// its folder, beside root-cert.pem with the mesh's roots.
    #[arg(long, value_name = "PATH")]
    agent_socket: Option<PathBuf>,
    /// The issuer of JWTs that are worth the identity of the service account in their subject, beside the tokens of the
    /// API server (TOKEN_ISSUER).
    #[arg(long, value_name = "URL")]
    token_issuer: Option<String>,
    /// Where that issuer's public keys are, a JSON Web Key Set in a file or at an https URL; changes are taken. Otherwise
    /// the issuer is asked (ISSUER/.well-known/openid-configuration).
    #[arg(long, value_name = "FILE|URL", requires = "token_issuer")]
    token_keys: Option<String>,
    /// The authorities that the issuer's web server is verified by, in PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "SSL_CERT_FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    token_ca: PathBuf,
    /// For whom those JWTs must be; repeat it for several (AUDIENCE).
    #[arg(
        long,
        value_name = "AUDIENCE",
        default_value = "istio-ca",
        requires = "token_issuer"
    )]
    token_audience: Vec<String>,
    /// Service accounts of node proxies, which may ask for the identities of pods of their node
    /// (CA_TRUSTED_NODE_ACCOUNTS).
    #[arg(long, value_name = "NAMESPACE/NAME,...", default_value = "")]
    trusted_node_accounts: String,
    /// Debug pages and metrics; 0 takes any free port.
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    http_port: u16,
    /// The embedded Kubernetes API; 0 takes any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    api_port: u16,
    /// Take the next free port where the wanted one is taken, instead of failing.
    #[arg(long)]
    move_ports: bool,
    /// The namespace whose configuration applies everywhere, and where MeshConfig is.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// The name of this Kubernetes cluster, as proxies announce it.
    #[arg(long, value_name = "NAME", default_value = "Kubernetes")]
    cluster_id: String,
    /// Let a Gateway select workloads of its own namespace only (PILOT_SCOPE_GATEWAY_TO_NAMESPACE).
    #[arg(long, env = "PILOT_SCOPE_GATEWAY_TO_NAMESPACE", value_parser = FalseyValueParser::new())]
    scope_gateways_to_namespace: bool,
    /// How long the entry of an auto-registered workload outlives the workload's last connection.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    registration_grace: u64,
}

impl Args {
    /// Where the embedded API server keeps everything.
    fn state_folder(&self) -> anyhow::Result<PathBuf> {
        match &self.state_dir {
            Some(folder) => Ok(folder.clone()),
            None => Ok(Home::find()?.control_plane()),
        }
    }

    /// Whose JWTs count, beside the API server's.
    fn issuer(&self) -> Option<Issuer> {
        let keys = match &self.token_keys {
            None => KeysSource::Discovery,
            Some(url) if url.contains("://") => KeysSource::Url(url.clone()),
            Some(path) => KeysSource::File(path.into()),
        };
        Some(Issuer {
            rules: OidcRules {
                issuer: self.token_issuer.clone()?,
                audiences: self.token_audience.clone(),
            },
            keys,
            authorities: self.token_ca.clone(),
        })
    }

    /// Where agents of this host connect to, if anywhere.
    fn agent_socket(&self) -> anyhow::Result<Option<PathBuf>> {
        match (&self.agent_socket, &self.kubeconfig) {
            (Some(path), _) => Ok(Some(path.clone())),
            (None, None) => Ok(Some(self.state_folder()?.join(AGENT_SOCKET))),
            (None, Some(_)) => Ok(None),
        }
    }
}

/// Listens for agents of this host. The folder is for this user only, whatever becomes of the socket's own mode.
fn bind_agent_socket(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(folder) = path.parent() {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.with_context(|| format!("make the folder {}", folder.display()))?;
    }
    control_discovery::identities::bind_host(path)
        .with_context(|| format!("listen on {} for agents of this host", path.display()))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // Huge pages would triple the memory of a process whose heap is some megabytes; without them it is a little slower.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(args))?;
    // Watches of a remote API server may hang in a connection attempt; nothing waits for them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// The bound ports. Bound first: a taken one must be reported before anything is written.
struct Listeners {
    /// ADS in plaintext on loopback, unless it is switched off.
    xds: Option<TcpListener>,
    secure: SecureListeners,
    http: TcpListener,
}

impl Listeners {
    async fn bind(args: &Args) -> anyhow::Result<Self> {
        let xds = match args.no_plaintext_xds {
            true => None,
            false => Some(listen(args, Ipv4Addr::LOCALHOST.into(), args.xds_port, "ADS").await?),
        };
        Ok(Self {
            xds,
            secure: SecureListeners {
                secure: listen(args, args.bind, args.secure_port, "certificates and ADS over TLS").await?,
                host: args
                    .agent_socket()?
                    .map(|path| bind_agent_socket(&path))
                    .transpose()?,
            },
            http: listen(args, args.bind, args.http_port, "debug pages").await?,
        })
    }
}

/// A client of the API server, which is in this process unless there is a kubeconfig of another.
async fn api_server(args: &Args) -> anyhow::Result<(Client, Option<embedded::Embedded>)> {
    if let Some(path) = &args.kubeconfig {
        return Ok((control_sources::client::from_kubeconfig(path).await?, None));
    }
    let state = args.state_folder()?;
    let address = SocketAddr::new(args.bind, args.api_port);
    let server = embedded::start(state, address, &args.root_namespace).await?;
    Ok((server.client.clone(), Some(server)))
}

/// The discovery server, and who proves to it who its clients are.
fn discovery(args: &Args, client: &Client, tasks: &mut JoinSet<()>) -> anyhow::Result<Discovery> {
    let settings = Settings {
        root_namespace: args.root_namespace.as_str().into(),
        cluster: args.cluster_id.as_str().into(),
        gateways_of_own_namespace: args.scope_gateways_to_namespace,
        // Workloads get identities here; those that have none say so.
        identity: true,
        ..Settings::default()
    };
    let stamp = OffsetDateTime::now_utc()
        .replace_nanosecond(0)?
        .format(&Rfc3339)?;
    let world = World::new(settings, &stamp);
    let registration = registration::Settings {
        controller: format!("lateen-{}", std::process::id()),
        grace: Duration::from_secs(args.registration_grace),
        ..registration::Settings::default()
    };
    // In a cluster, workloads find both in ConfigMaps.
    let files = match args.kubeconfig {
        None => Some(args.state_folder()?),
        Some(_) => None,
    };
    let accounts = &args.trusted_node_accounts;
    let issuer = args.issuer();
    let identities = identities::settings(&args.root_namespace, args.bind, accounts, files, issuer)?;
    let identities = Identities::new(client.clone(), Arc::clone(&world), identities);
    let (registrar, registering) = Registrar::start(client.clone(), registration);
    tasks.spawn(registering);
    let discovery = Discovery::new(world, &identifier(), Some(registrar));
    discovery.set_identities(identities);
    Ok(discovery)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let Listeners { xds, secure, http } = Listeners::bind(&args).await?;
    let (client, embedded) = api_server(&args).await?;
    let mut tasks = JoinSet::new();
    let discovery = discovery(&args, &client, &mut tasks)?;
    start_tasks(&args, &client, &discovery, embedded.as_ref(), &mut tasks);
    tracing::info!(
        xds = xds.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display),
        secure = %secure.secure.local_addr()?,
        http = %http.local_addr()?,
        api = embedded.as_ref().map(|server| server.handle.url()),
        "control plane started in {:?}",
        started.elapsed()
    );
    let pages = Pages {
        discovery: discovery.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started,
    };
    let stop = tokio::sync::watch::Sender::new(false);
    let stopped = |mut stopping: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stop| *stop).await.is_ok();
    };
    let http = axum::serve(http, service(pages)).with_graceful_shutdown(stopped(stop.subscribe()));
    let signal = async {
        let outcome = terminated().await;
        stop.send_replace(true);
        outcome
    };
    let plaintext = async {
        match xds {
            Some(listener) => discovery.serve(listener, stopped(stop.subscribe())).await,
            None => Ok(()),
        }
    };
    let (xds, secure, http, signal) = tokio::join!(
        plaintext,
        discovery.serve_secure(secure, stopped(stop.subscribe())),
        http.into_future(),
        signal
    );
    // Before the store they write to is closed.
    tasks.shutdown().await;
    if let Some(server) = embedded {
        server.handle.shutdown().await;
    }
    xds.context("serve ADS")?;
    secure.context("serve certificates and ADS over TLS")?;
    http.context("serve the debug pages")?;
    signal
}

/// Everything that runs beside the servers.
fn start_tasks(
    args: &Args,
    client: &Client,
    discovery: &Discovery,
    embedded: Option<&embedded::Embedded>,
    tasks: &mut JoinSet<()>,
) {
    let (mut changes, watches) = watch_all(client, &args.root_namespace);
    let shown = embedded.map(|server| workloads::show(server.handle.store()));
    let world = Arc::clone(discovery.world());
    tasks.spawn(Arc::clone(&world).run());
    tasks.spawn(release_memory(Arc::clone(&world)));
    tasks.spawn(findings::publish(discovery.clone(), client.clone()));
    tasks.spawn(async move {
        while let Some(change) = changes.recv().await {
            if let Some(shown) = &shown {
                workloads::report(shown, &change);
            }
            world.take(change);
        }
        drop(watches);
    });
}

/// Gives back, a moment later, what building and translating a new world took.
async fn release_memory(world: Arc<World>) {
    let mut publications = world.subscribe();
    while publications.changed().await.is_ok() {
        tokio::time::sleep(crate::limits::MEMORY_RELEASE_DELAY).await;
        publications.mark_unchanged();
        net::memory::release_free();
    }
}

async fn listen(args: &Args, bind: IpAddr, port: u16, what: &str) -> anyhow::Result<TcpListener> {
    let tries = if args.move_ports && port != 0 {
        PORT_TRIES
    } else {
        1
    };
    let mut last = None;
    for candidate in (0..tries).filter_map(|step| port.checked_add(step)) {
        match TcpListener::bind((bind, candidate)).await {
            Ok(listener) => {
                if candidate != port && port != 0 {
                    tracing::info!(wanted = port, used = candidate, "port for {what} was taken");
                }
                return Ok(listener);
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.map_or_else(|| anyhow::anyhow!("no port to try"), anyhow::Error::from);
    let hint = "--move-ports takes the next free one";
    Err(error.context(format!("listen on {bind}:{port} for {what} ({hint})")))
}

/// What responses say about the server, in Istio's shape.
fn identifier() -> String {
    let info = serde_json::json!({"version": env!("CARGO_PKG_VERSION")});
    serde_json::json!({"Component": "lateen", "ID": std::process::id().to_string(), "Info": info}).to_string()
}

async fn terminated() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome.context("wait for SIGINT")?,
    }
    Ok(())
}
