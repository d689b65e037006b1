//! One workload from start to end: an application with its sidecar, or a gateway.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use net::process::Watched;
use net::socket::Family;
use rustix::process::{Pid, Signal};
use tokio::task::JoinHandle;

use crate::AgentError;
use crate::address::Claim;
use crate::bootstrap::{ADMIN_PORT, Identity, bootstrap};
use crate::capture::{self, Capture, Exit, Output};
use crate::discovery::{Discovery, Health};
use crate::dns::{self, Resolver};
use crate::hosts::HostsFile;
use crate::limits::{
    NAMES_TIMEOUT, PROBE_FAST_PERIOD, PROBE_INTERVAL, PROBE_SLOW_INTERVAL, RESTART_BASE, RESTART_MAX,
    STOP_TIMEOUT,
};
use crate::policy::{Ports, WorkloadPolicy};
use crate::sidecar::{self, Sidecar};

/// Where the host says how names are resolved.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What all workloads of this process share.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// The control plane's ADS port, plaintext, on loopback.
    pub xds: SocketAddr,
    /// The folder for sockets and bootstrap files; each workload makes its own inside.
    pub folder: PathBuf,
    /// The folder for logs: `NAME.NAMESPACE.log` of the application and `NAME.NAMESPACE.sidecar.log`.
    pub logs: PathBuf,
    /// How to start our own programs.
    pub programs: Programs,
}

impl Mesh {
    /// The log of a workload's application, or with a suffix of what belongs to it.
    #[must_use]
    pub fn log(&self, spec: &Spec, suffix: &str) -> PathBuf {
        self.logs
            .join(format!("{}.{}{suffix}.log", spec.name, spec.namespace))
    }
}

/// The command lines of the processes that the agent starts, without the arguments that it adds.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The proxy; it understands Envoy's flags and `--socket-broker`.
    pub proxy: Vec<OsString>,
    /// The program whose `main` is [`capture::inside::main`].
    pub inside: Vec<OsString>,
}

/// Which kind of proxy a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// At the edge, without an application.
    Gateway,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Which kind of proxy.
    pub role: Role,
    /// The namespace of the mesh.
    pub namespace: String,
    /// The workload's name, `reviews-v2`.
    pub name: String,
    /// The WorkloadGroup that it joins.
    pub group: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its labels; services and subsets select them.
    pub labels: BTreeMap<String, String>,
    /// The ports that the application serves.
    pub ports: Vec<u16>,
    /// The application; empty for a gateway.
    pub command: Vec<OsString>,
    /// The application's environment, beyond this process's own.
    pub environment: Vec<(String, String)>,
    /// Whether the application keeps this process's terminal; otherwise its output goes to its log.
    pub inherit_output: bool,
}

impl Spec {
    /// An application that serves `service` in a version, with the labels that bookinfo uses.
    #[must_use]
    pub fn sidecar(namespace: &str, service: &str, version: &str, ports: Vec<u16>) -> Self {
        let name = format!("{service}-{version}");
        let labels = BTreeMap::from([
            ("app".to_owned(), service.to_owned()),
            ("version".to_owned(), version.to_owned()),
        ]);
        Self {
            role: Role::Sidecar,
            namespace: namespace.to_owned(),
            group: name.clone(),
            name,
            service_account: "default".to_owned(),
            labels,
            ports,
            command: Vec::new(),
            environment: Vec::new(),
            inherit_output: false,
        }
    }

    /// A gateway with these labels, which Gateway objects select.
    #[must_use]
    pub fn gateway(namespace: &str, name: &str, labels: BTreeMap<String, String>) -> Self {
        let base = Self::sidecar(namespace, name, "latest", Vec::new());
        let service_account = format!("{name}-service-account");
        Self {
            role: Role::Gateway,
            name: name.to_owned(),
            group: name.to_owned(),
            labels,
            service_account,
            ..base
        }
    }
}

/// A running workload. Dropping it ends its processes at once; [`Workload::stop`] is kinder.
#[derive(Debug)]
pub struct Workload {
    spec: Spec,
    claim: Claim,
    folder: PathBuf,
    capture: Option<Rc<Capture>>,
    application: Option<Application>,
    broker: JoinHandle<()>,
    dns: Option<JoinHandle<()>>,
    settings: sidecar::Settings,
    sidecar: Sidecar,
    sidecar_restarts: u32,
    discovery: Rc<Discovery>,
    probe: Option<JoinHandle<()>>,
    gateway_ports: Ports,
}

#[derive(Debug)]
struct Application {
    pid: Pid,
    watched: Watched,
}

/// What happened to a running workload.
#[derive(Debug)]
pub enum Event {
    /// The application ended.
    ApplicationEnded(Exit),
    /// The sidecar ended and was started again.
    SidecarRestarted,
}

impl Workload {
    /// Starts the namespace, the sidecar and, when that is ready, the application.
    ///
    /// Must run in a `LocalSet` on the thread that lives as long as the process.
    ///
    /// # Errors
    /// What failed, why, and how to mend it.
    pub async fn start(mesh: &Mesh, spec: Spec) -> Result<Self, AgentError> {
        let mut workload = Self::prepare(mesh, spec).await?;
        let name = workload.spec.name.clone();
        workload.sidecar.ready().await.map_err(|error| {
            let log = workload.settings.log.display().to_string();
            AgentError::new(format!("start the sidecar of {name}"), error).mend(format!("See {log}."))
        })?;
        if workload.capture.is_some() {
            let _ = tokio::time::timeout(NAMES_TIMEOUT, workload.discovery.names_received()).await;
            workload.run_application()?;
        } else {
            workload.discovery.report(Health::Healthy).await;
        }
        Ok(workload)
    }

    /// Everything up to the start of the sidecar.
    async fn prepare(mesh: &Mesh, spec: Spec) -> Result<Self, AgentError> {
        let what = |part: &str| format!("{part} of {}", spec.name);
        let claim = Claim::new(&spec.namespace, &spec.name)
            .map_err(|error| AgentError::new(what("address"), error))?;
        let folder = mesh.folder.join(format!("{}.{}", spec.name, spec.namespace));
        make_folder(&folder).map_err(|error| AgentError::new(what("folder"), error))?;
        let hosts_path = folder.join("hosts");
        let hosts = HostsFile::create(&hosts_path, &spec.namespace)
            .map_err(|error| AgentError::new(what("hosts file"), error))?;
        let identity = Identity::new(&spec, claim.address());
        let capture = match spec.role {
            Role::Gateway => None,
            Role::Sidecar => Some(Rc::new(
                start_capture(mesh, &spec, &claim, &folder, hosts_path).await?,
            )),
        };
        let dns = capture.as_ref().map(|capture| forward_dns(capture, &spec.name));
        let gateway_ports = Ports::default();
        let policy = WorkloadPolicy {
            address: claim.address(),
            ports: spec.ports.clone(),
            capture: capture.clone(),
            gateway_ports: Rc::clone(&gateway_ports),
        };
        let settings = sidecar::Settings {
            program: mesh.programs.proxy.clone(),
            bootstrap: folder.join("bootstrap.json"),
            broker: folder.join("broker.sock"),
            log: mesh.log(&spec, ".sidecar"),
            address: claim.address(),
        };
        let broker = serve_broker(&settings.broker, policy).map_err(|error| {
            AgentError::new(what("socket broker"), error).mend("Choose a shorter folder with LATEEN_HOME.")
        })?;
        let json = bootstrap(&identity, claim.address(), mesh.xds);
        std::fs::write(&settings.bootstrap, format!("{json:#}\n"))
            .map_err(|error| AgentError::new(what("bootstrap"), error))?;
        let sidecar = Sidecar::start(&settings).map_err(|error| AgentError::new(what("sidecar"), error))?;
        let hosts = capture.is_some().then_some(hosts);
        let discovery = Rc::new(Discovery::start(&identity, mesh.xds, hosts));
        Ok(Self {
            spec,
            claim,
            folder,
            capture,
            application: None,
            broker,
            dns,
            settings,
            sidecar,
            sidecar_restarts: 0,
            discovery,
            probe: None,
            gateway_ports,
        })
    }

    /// Starts the application, again if it has ended, and reports it healthy as soon as it accepts connections.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn run_application(&mut self) -> Result<(), AgentError> {
        let Some(capture) = &self.capture else {
            return Ok(());
        };
        let command = self
            .spec
            .command
            .first()
            .map(|program| program.to_string_lossy().into_owned());
        let what = format!("start {} for {}", command.unwrap_or_default(), self.spec.name);
        let pid = capture
            .run()
            .map_err(|error| AgentError::command(&*what, error))?;
        let watched = Watched::open(pid).map_err(|error| AgentError::new(&*what, error))?;
        self.application = Some(Application { pid, watched });
        let channel = capture
            .namespace_channel()
            .map_err(|error| AgentError::new(&*what, error))?;
        let probe = probe(
            channel,
            self.claim.address(),
            self.spec.ports.clone(),
            Rc::clone(&self.discovery),
        );
        self.probe = Some(tokio::task::spawn_local(probe));
        Ok(())
    }

    /// Waits for the next thing that happens. The application's death is reported to the mesh before it is returned.
    ///
    /// # Errors
    /// The sidecar cannot be started again.
    pub async fn event(&mut self) -> io::Result<Event> {
        tokio::select! {
            ended = application_ended(self.application.as_ref()) => {
                ended?;
                let exit = self.reap();
                self.discovery.report(Health::Unhealthy(format!("the application ended: {exit}"))).await;
                Ok(Event::ApplicationEnded(exit))
            }
            ended = self.sidecar.ended() => {
                tracing::warn!(workload = self.spec.name, status = ?ended, "the sidecar ended, starting it again");
                let doubled = RESTART_BASE.saturating_mul(1 << self.sidecar_restarts.min(16));
                self.sidecar_restarts += 1;
                tokio::time::sleep(doubled.min(RESTART_MAX)).await;
                self.sidecar = Sidecar::start(&self.settings)?;
                Ok(Event::SidecarRestarted)
            }
        }
    }

    /// How the application ended. When the process inside died with it, the signal is as good as known.
    fn reap(&mut self) -> Exit {
        if let Some(probe) = self.probe.take() {
            probe.abort();
        }
        self.application = None;
        let reaped = self.capture.as_ref().map(|capture| capture.reap());
        reaped.and_then(Result::ok).unwrap_or(Exit::Signal(9))
    }

    /// Passes a signal on to the application.
    pub fn signal(&self, signal: Signal) {
        if let (Some(capture), Some(_)) = (&self.capture, &self.application) {
            let _ = capture.signal(signal);
        }
    }

    /// Leaves the mesh: tells it, waits `drain` for requests under way, ends the application with `signal`, then the
    /// sidecar. Returns how the application ended.
    pub async fn stop(mut self, signal: Signal, drain: Duration) -> Option<Exit> {
        self.discovery
            .report(Health::Unhealthy("the workload is leaving".to_owned()))
            .await;
        if self.application.is_some() {
            tokio::time::sleep(drain).await;
        }
        let mut exit = None;
        if self.application.is_some() {
            self.signal(signal);
            if tokio::time::timeout(STOP_TIMEOUT, application_ended(self.application.as_ref()))
                .await
                .is_err()
            {
                self.signal(Signal::KILL);
                let _ = application_ended(self.application.as_ref()).await;
            }
            exit = Some(self.reap());
        }
        self.sidecar.stop(STOP_TIMEOUT).await;
        exit
    }

    /// What was asked to run.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The workload's address in the mesh.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.claim.address()
    }

    /// The sidecar's administration interface.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.claim.address().into(), ADMIN_PORT)
    }

    /// Where a gateway listens, by the port that the configuration asks for.
    #[must_use]
    pub fn gateway_ports(&self) -> BTreeMap<u16, SocketAddr> {
        RefCell::borrow(&self.gateway_ports).clone()
    }

    /// The same, to look at while the workload is supervised elsewhere.
    #[must_use]
    pub fn gateway_ports_handle(&self) -> Ports {
        Rc::clone(&self.gateway_ports)
    }

    /// The folder with the workload's sockets and files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process of the application.
    #[must_use]
    pub fn application_pid(&self) -> Option<u32> {
        self.application
            .as_ref()
            .map(|application| application.pid.as_raw_nonzero().get().cast_unsigned())
    }

    /// The process of the sidecar.
    #[must_use]
    pub fn sidecar_pid(&self) -> Option<u32> {
        self.sidecar.pid()
    }

    /// The process that holds the namespace.
    #[must_use]
    pub fn capture_pid(&self) -> Option<u32> {
        self.capture.as_ref().map(|capture| capture.pid())
    }

    /// How often the sidecar was started again.
    #[must_use]
    pub fn sidecar_restarts(&self) -> u32 {
        self.sidecar_restarts
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.broker.abort();
        for task in [self.probe.take(), self.dns.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // The remains of a workload of the same name that was killed.
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

async fn start_capture(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    folder: &Path,
    hosts: PathBuf,
) -> Result<Capture, AgentError> {
    let output = if spec.inherit_output {
        Output::Inherited
    } else {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(mesh.log(spec, ""));
        Output::File(log.map_err(|error| AgentError::new(format!("log of {}", spec.name), error))?)
    };
    let mut environment = spec.environment.clone();
    environment.extend([
        ("POD_NAME".to_owned(), spec.name.clone()),
        ("POD_NAMESPACE".to_owned(), spec.namespace.clone()),
        ("INSTANCE_IP".to_owned(), claim.address().to_string()),
        ("SERVICE_ACCOUNT".to_owned(), spec.service_account.clone()),
    ]);
    let resolver = folder.join("resolv.conf");
    std::fs::write(&resolver, Resolver::of_host(RESOLV_CONF.as_ref()).text)
        .map_err(|error| AgentError::new(format!("resolver file of {}", spec.name), error))?;
    let settings = capture::Settings {
        program: mesh.programs.inside.clone(),
        source: claim.source(),
        workload: claim.address(),
        hosts,
        resolver,
        command: spec.command.clone(),
        environment,
        output,
    };
    let refused = |error: io::Error| {
        AgentError::new(format!("capture the traffic of {}", spec.name), error).mend(
            "Capture needs user and network namespaces. Check that sysctl user.max_user_namespaces is not 0 and, on \
             Ubuntu, that kernel.apparmor_restrict_unprivileged_userns is 0; in a container allow unshare(2).",
        )
    };
    let capture = Capture::start(settings).map_err(refused)?;
    capture.entered().await.map_err(refused)?;
    Ok(capture)
}

/// Starts the forwarder for names from outside the mesh. Without one the application still has the mesh's names.
fn forward_dns(capture: &Capture, name: &str) -> JoinHandle<()> {
    let inside = capture
        .datagram(dns::ADDRESS)
        .and_then(|fd| tokio::net::UdpSocket::from_std(fd.into()));
    let nameservers = Resolver::of_host(RESOLV_CONF.as_ref()).nameservers;
    let name = name.to_owned();
    tokio::task::spawn_local(async move {
        let ended = match inside {
            Ok(inside) => dns::serve(inside, nameservers).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(workload = name, %error, "names from outside the mesh do not resolve");
        }
    })
}

fn serve_broker(path: &Path, policy: WorkloadPolicy) -> io::Result<JoinHandle<()>> {
    let server = net::broker::Server::bind(path)?;
    Ok(tokio::task::spawn_local(async move {
        if let Err(error) = server.serve(policy).await {
            tracing::error!(%error, "the socket broker ended");
        }
    }))
}

/// Waits for the end of the application; forever when there is none.
async fn application_ended(application: Option<&Application>) -> io::Result<()> {
    match application {
        Some(application) => application.watched.ended().await,
        None => std::future::pending().await,
    }
}

/// Reports the workload healthy once all its ports accept connections.
async fn probe(channel: std::os::fd::OwnedFd, address: Ipv4Addr, ports: Vec<u16>, discovery: Rc<Discovery>) {
    let started = tokio::time::Instant::now();
    let sockets = net::broker::Sockets::new(channel);
    for port in ports {
        while !accepts(&sockets, SocketAddr::new(address.into(), port)).await {
            let fast = started.elapsed() < PROBE_FAST_PERIOD;
            tokio::time::sleep(if fast { PROBE_INTERVAL } else { PROBE_SLOW_INTERVAL }).await;
        }
    }
    discovery.report(Health::Healthy).await;
}

/// Whether the application accepts a connection that comes from inside its namespace.
async fn accepts(sockets: &net::broker::Sockets, address: SocketAddr) -> bool {
    let Ok(socket) = sockets.socket(Family::V4) else {
        return false;
    };
    let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    tokio::time::timeout(PROBE_SLOW_INTERVAL, socket.connect(address))
        .await
        .is_ok_and(|connected| connected.is_ok())
}
