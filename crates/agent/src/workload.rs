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
use xds::grpc::client::{Security, Server, Service, Target};

use crate::AgentError;
use crate::address::Claim;
use crate::bootstrap::{ADMIN_PORT, Identity, bootstrap};
use crate::capture::{Capture, Exit};
use crate::certificates::State;
use crate::credentials::Credentials;
use crate::discovery::{Discovery, Health};
use crate::explicit_ports;
use crate::limits::{MAX_PORTS, NAMES_TIMEOUT, SERVICES_POLL_INTERVAL, STOP_TIMEOUT};
use crate::policy::{Moved, WorkloadPolicy};
use crate::probe;
use crate::restarts::Restarts;
use crate::sidecar::{self, Sidecar};
use crate::spec::{CaptureMode, Control, Mesh, Spec};
use crate::surroundings::{
    Captured, capture_application, forward_dns, location, make_folder, serve_broker, settings, start_inside,
};

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
    credentials: Credentials,
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
    /// The workload has a new certificate, or got none.
    IdentityChanged,
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
        let claim = match spec.address {
            Some(address) => Claim::of(address),
            None => Claim::new(&spec.namespace, &spec.name),
        };
        let claim = claim.map_err(|error| AgentError::new(what("address"), error))?;
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
            address: claim.admin(),
        };
        let broker = serve_broker(&settings.broker, policy)
            .map_err(|error| socket_error(what("socket broker"), error))?;
        let secrets = folder.join("sds.sock");
        let mut credentials = Credentials::start(&mesh.identity, &spec, claim.admin(), &secrets)
            .map_err(|error| socket_error(what("socket for secrets"), error))?;
        let identity = Identity::new(&spec, claim.address(), captured.mode());
        let json = bootstrap(&identity, claim.admin(), &mesh.xds, &secrets);
        std::fs::write(&settings.bootstrap, format!("{json:#}\n"))
            .map_err(|error| AgentError::new(what("bootstrap"), error))?;
        let sidecar = Sidecar::start(&settings).map_err(|error| AgentError::new(what("sidecar"), error))?;
        let server = control(mesh, &mut credentials);
        let discovery = Rc::new(Discovery::start(&identity, server, names));
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
            credentials,
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
            () = self.credentials.changed() => Ok(Event::IdentityChanged),
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
        SocketAddr::new(self.claim.admin().into(), ADMIN_PORT)
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

    /// How it stands with the workload's certificate.
    #[must_use]
    pub fn certificate(&self) -> State {
        self.credentials.state()
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

/// The server of the agent's own stream.
fn control(mesh: &Mesh, credentials: &mut Credentials) -> Server {
    match &mesh.control {
        Control::Open(target) => target.clone().into(),
        Control::AsProxy => Server {
            target: Target::Tcp(mesh.xds.address.to_string()),
            service: Service::Aggregated,
            security: Some(Security {
                context: credentials.contexts(&mesh.xds.server_name),
                hostname: None,
            }),
        },
    }
}

/// Waits for the end of the application; forever when there is none.
async fn application_ended(application: Option<&Application>) -> io::Result<()> {
    match application {
        Some(application) => application.watched.ended().await,
        None => std::future::pending().await,
    }
}

/// A socket's path may be too long, which the user can change.
fn socket_error(what: String, error: io::Error) -> AgentError {
    let too_long = error.kind() == io::ErrorKind::InvalidInput;
    let refused = AgentError::new(what, error);
    if too_long {
        refused.mend("Choose a shorter folder with LATEEN_HOME.")
    } else {
        refused
    }
}
