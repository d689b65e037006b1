//! One workload from start to end: an application with its sidecar, or a gateway.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use net::process::Watched;
use rustix::process::{Pid, Signal};
use tokio::task::JoinHandle;

use crate::AgentError;
use crate::address::Claim;
use crate::bootstrap::{ADMIN_PORT, Identity, bootstrap};
use crate::capture::{self, Capture, Exit, Output};
use crate::discovery::{Discovery, Health, Names};
use crate::dns::{self, Resolver};
use crate::explicit_ports::{self, AppPort};
use crate::hosts::HostsFile;
use crate::limits::{MAX_PORTS, NAMES_TIMEOUT, SERVICES_POLL_INTERVAL, STOP_TIMEOUT};
use crate::policy::{self, Moved, WorkloadPolicy};
use crate::probe;
use crate::restarts::Restarts;
use crate::sidecar::{self, Sidecar};
use crate::spec::{CaptureMode, Mesh, Role, Spec};

/// Where the host says how names are resolved.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What a user can do where capture by namespace is refused.
pub const NAMESPACE_ADVICE: &str = "For capture by namespace let sysctl user.max_user_namespaces and user.max_net_namespaces be above 0 and, on Ubuntu, \
     kernel.apparmor_restrict_unprivileged_userns be 0; in a container allow unshare(2).";

/// A running workload. Dropping it ends its processes at once; [`Workload::stop`] is kinder.
#[derive(Debug)]
pub struct Workload {
    mesh: Mesh,
    spec: Spec,
    claim: Claim,
    folder: PathBuf,
    captured: Captured,
    /// The application's parent. By ports there is one once the application has been started.
    capture: Option<Rc<Capture>>,
    application: Option<Application>,
    broker: JoinHandle<()>,
    dns: Option<JoinHandle<()>>,
    settings: sidecar::Settings,
    sidecar: Sidecar,
    sidecar_restarts: Restarts,
    discovery: Rc<Discovery>,
    probe: Option<JoinHandle<()>>,
    moved: Moved,
}

/// How the application is captured.
#[derive(Debug)]
enum Captured {
    /// A gateway has no application.
    Nothing,
    InNamespace,
    ByPorts {
        ports: Vec<AppPort>,
        /// Why it has no namespace, unless that was asked for.
        refused: Option<String>,
    },
}

impl Captured {
    fn mode(&self) -> Option<CaptureMode> {
        match self {
            Self::Nothing => None,
            Self::InNamespace => Some(CaptureMode::Namespace),
            Self::ByPorts { .. } => Some(CaptureMode::Ports),
        }
    }
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
    /// Starts the namespace, if it is granted, the sidecar and, when that is ready, the application.
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
        if let Captured::Nothing = workload.captured {
            workload.discovery.report(Health::Healthy).await;
        } else {
            let _ = tokio::time::timeout(NAMES_TIMEOUT, workload.discovery.names_received()).await;
            workload.run_application().await?;
        }
        Ok(workload)
    }

    /// Everything up to the start of the sidecar.
    async fn prepare(mesh: &Mesh, spec: Spec) -> Result<Self, AgentError> {
        let what = |part: &str| format!("{part} of {}", spec.name);
        if spec.ports.len() > MAX_PORTS {
            let why = format!("{} are more than {MAX_PORTS}", spec.ports.len());
            return Err(AgentError::new(what("ports"), why));
        }
        let claim = Claim::new(&spec.namespace, &spec.name)
            .map_err(|error| AgentError::new(what("address"), error))?;
        let folder = mesh.folder.join(format!("{}.{}", spec.name, spec.namespace));
        make_folder(&folder).map_err(|error| AgentError::new(what("folder"), error))?;
        let (captured, capture, names) = capture_application(mesh, &spec, &claim, &folder).await?;
        let dns = capture.as_ref().map(|capture| forward_dns(capture, &spec.name));
        let moved = Moved::default();
        let policy = WorkloadPolicy {
            address: claim.address(),
            ports: spec.ports.clone(),
            application: location(&captured, capture.as_ref()),
            moved: Rc::clone(&moved),
        };
        let settings = sidecar::Settings {
            program: mesh.programs.proxy.clone(),
            bootstrap: folder.join("bootstrap.json"),
            broker: folder.join("broker.sock"),
            log: mesh.log(&spec, ".sidecar"),
            address: claim.address(),
        };
        let broker = serve_broker(&settings.broker, policy).map_err(|error| {
            let too_long = error.kind() == io::ErrorKind::InvalidInput;
            let refused = AgentError::new(what("socket broker"), error);
            if too_long {
                refused.mend("Choose a shorter folder with LATEEN_HOME.")
            } else {
                refused
            }
        })?;
        let identity = Identity::new(&spec, claim.address(), captured.mode());
        let json = bootstrap(&identity, claim.address(), mesh.xds);
        std::fs::write(&settings.bootstrap, format!("{json:#}\n"))
            .map_err(|error| AgentError::new(what("bootstrap"), error))?;
        let sidecar = Sidecar::start(&settings).map_err(|error| AgentError::new(what("sidecar"), error))?;
        let discovery = Rc::new(Discovery::start(&identity, mesh.xds, names));
        Ok(Self {
            mesh: mesh.clone(),
            spec,
            claim,
            folder,
            captured,
            capture,
            application: None,
            broker,
            dns,
            settings,
            sidecar,
            sidecar_restarts: Restarts::default(),
            discovery,
            probe: None,
            moved,
        })
    }

    /// Starts the application, again if it has ended, and reports it healthy as soon as it accepts connections.
    ///
    /// # Errors
    /// The command cannot be started.
    pub async fn run_application(&mut self) -> Result<(), AgentError> {
        if let Captured::ByPorts { .. } = self.captured {
            // A new parent each time, because the services that are told are those of now.
            let environment = self.explicit_environment().await;
            let settings = settings(&self.mesh, &self.spec, &self.claim, environment)?;
            let capture = start_inside(settings, &self.spec).await?;
            self.capture = Some(Rc::new(capture));
        }
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
        let target = self
            .probe_target(capture)
            .map_err(|error| AgentError::new(&*what, error))?;
        let probe = probe::report_when_healthy(target, Rc::clone(&self.discovery));
        self.probe = Some(tokio::task::spawn_local(probe));
        Ok(())
    }

    /// What an application on the host is told: its own ports, and where the services are. Those that it calls are
    /// waited for, since it cannot be told later.
    async fn explicit_environment(&self) -> Vec<(String, String)> {
        let services = || {
            let names = self.discovery.names();
            explicit_ports::variables(&names, &self.moved.borrow(), &self.spec.namespace)
        };
        let known = |services: &BTreeMap<String, String>, name: &String| {
            let name = explicit_ports::host_variable(name);
            services.contains_key(&name)
        };
        let all = async {
            loop {
                let services = services();
                if self.spec.calls.iter().all(|name| known(&services, name)) {
                    return services;
                }
                tokio::time::sleep(SERVICES_POLL_INTERVAL).await;
            }
        };
        let services = match tokio::time::timeout(NAMES_TIMEOUT, all).await {
            Ok(services) => services,
            Err(_elapsed) => {
                tracing::warn!(workload = self.spec.name, calls = ?self.spec.calls, "not all services are there");
                services()
            }
        };
        let own = self.application_ports();
        let own = own.into_iter().map(|(port, real)| (port, real.port()));
        let mut environment = explicit_ports::listening(own);
        environment.extend(services);
        environment
    }

    fn probe_target(&self, capture: &Capture) -> io::Result<probe::Target> {
        let sockets = match self.captured {
            Captured::InNamespace => Some(net::broker::Sockets::new(capture.namespace_channel()?)),
            Captured::Nothing | Captured::ByPorts { .. } => None,
        };
        Ok(probe::Target {
            workload: self.spec.name.clone(),
            addresses: self.application_ports().into_values().collect(),
            sockets,
        })
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
                tokio::time::sleep(self.sidecar_restarts.next_wait()).await;
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

    /// Where its listeners are that are elsewhere than the configuration asks for, a gateway's for instance; to look at
    /// while the workload is supervised.
    #[must_use]
    pub fn moved_listeners(&self) -> Moved {
        Rc::clone(&self.moved)
    }

    /// How the application is captured; `None` for a gateway.
    #[must_use]
    pub fn capture_mode(&self) -> Option<CaptureMode> {
        self.captured.mode()
    }

    /// Why the application is captured by ports, in one line, when a namespace was refused.
    #[must_use]
    pub fn namespace_refused(&self) -> Option<&str> {
        match &self.captured {
            Captured::ByPorts { refused, .. } => refused.as_deref(),
            Captured::Nothing | Captured::InNamespace => None,
        }
    }

    /// Where the application listens, in its namespace or on the host, by port of the service.
    #[must_use]
    pub fn application_ports(&self) -> BTreeMap<u16, SocketAddr> {
        match &self.captured {
            Captured::ByPorts { ports, .. } => ports
                .iter()
                .map(|port| (port.service_port, port.address()))
                .collect(),
            Captured::Nothing | Captured::InNamespace => {
                let own = |port: &u16| (*port, SocketAddr::new(self.claim.address().into(), *port));
                self.spec.ports.iter().map(own).collect()
            }
        }
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

    /// The parent of the application, which holds its namespace if it has one.
    #[must_use]
    pub fn capture_pid(&self) -> Option<u32> {
        self.capture.as_ref().map(|capture| capture.pid())
    }

    /// How often the sidecar was started again.
    #[must_use]
    pub fn sidecar_restarts(&self) -> u32 {
        self.sidecar_restarts.total()
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

/// Puts the application into a namespace or, where that is refused or not wanted, prepares its ports.
async fn capture_application(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    folder: &Path,
) -> Result<(Captured, Option<Rc<Capture>>, Names), AgentError> {
    if spec.role == Role::Gateway {
        return Ok((Captured::Nothing, None, Names::Unwanted));
    }
    let refused = if spec.capture == Some(CaptureMode::Ports) {
        None
    } else {
        let (settings, hosts) = namespace_settings(mesh, spec, claim, folder)?;
        match start_inside(settings, spec).await {
            Ok(capture) => {
                return Ok((Captured::InNamespace, Some(Rc::new(capture)), Names::Hosts(hosts)));
            }
            // A slow machine has refused nothing.
            Err(error) if spec.capture == Some(CaptureMode::Namespace) || is_timeout(&error) => {
                return Err(error.mend(NAMESPACE_ADVICE));
            }
            Err(error) => Some(error.why.to_string()),
        }
    };
    let claimed = spec
        .ports
        .iter()
        .map(|port| AppPort::claim(&spec.namespace, &spec.name, *port));
    let ports = claimed
        .collect::<io::Result<_>>()
        .map_err(|error| AgentError::new(format!("port of {}", spec.name), error))?;
    Ok((Captured::ByPorts { ports, refused }, None, Names::Kept))
}

fn is_timeout(error: &AgentError) -> bool {
    let error = error.why.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Where the sidecar finds the application.
fn location(captured: &Captured, capture: Option<&Rc<Capture>>) -> policy::Application {
    match (captured, capture) {
        (Captured::ByPorts { ports, .. }, _) => {
            let ports = ports.iter().map(|port| (port.service_port, port.address()));
            policy::Application::OnHost(ports.collect())
        }
        (_, Some(capture)) => policy::Application::InNamespace(Rc::clone(capture)),
        (_, None) => policy::Application::None,
    }
}

/// The settings for an application in a namespace, with the hosts file that it will see.
fn namespace_settings(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    folder: &Path,
) -> Result<(capture::Settings, HostsFile), AgentError> {
    let path = folder.join("hosts");
    let hosts = HostsFile::create(&path, &spec.namespace)
        .map_err(|error| AgentError::new(format!("hosts file of {}", spec.name), error))?;
    let resolver = folder.join("resolv.conf");
    std::fs::write(&resolver, Resolver::of_host(RESOLV_CONF.as_ref()).text)
        .map_err(|error| AgentError::new(format!("resolver file of {}", spec.name), error))?;
    let ports = explicit_ports::listening(spec.ports.iter().map(|port| (*port, *port)));
    let namespace = capture::Namespace {
        source: claim.source(),
        workload: claim.address(),
        hosts: path,
        resolver,
    };
    let settings = capture::Settings {
        namespace: Some(namespace),
        ..settings(mesh, spec, claim, ports)?
    };
    Ok((settings, hosts))
}

/// The settings for an application on the host, which is told these variables beside those that every one has.
fn settings(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    mut environment: Vec<(String, String)>,
) -> Result<capture::Settings, AgentError> {
    let output = if spec.inherit_output {
        Output::Inherited
    } else {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(mesh.log(spec, ""));
        Output::File(log.map_err(|error| AgentError::new(format!("log of {}", spec.name), error))?)
    };
    environment.extend([
        ("POD_NAME".to_owned(), spec.name.clone()),
        ("POD_NAMESPACE".to_owned(), spec.namespace.clone()),
        ("INSTANCE_IP".to_owned(), claim.address().to_string()),
        ("SERVICE_ACCOUNT".to_owned(), spec.service_account.clone()),
    ]);
    environment.extend(spec.environment.iter().cloned());
    Ok(capture::Settings {
        program: mesh.programs.inside.clone(),
        namespace: None,
        command: spec.command.clone(),
        environment,
        output,
    })
}

/// Starts the process inside and waits until it answers.
async fn start_inside(settings: capture::Settings, spec: &Spec) -> Result<Capture, AgentError> {
    let failed = |error: io::Error| AgentError::new(format!("capture the traffic of {}", spec.name), error);
    let capture = Capture::start(settings).map_err(failed)?;
    capture.entered().await.map_err(failed)?;
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
