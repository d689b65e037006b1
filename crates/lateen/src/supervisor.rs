//! Keeps the processes of a mesh running: the control plane, and workloads with their sidecars.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use agent::certificates::authority::CertificateAuthority;
use agent::{
    CertificateSource, Control, Mesh, MeshIdentity, Programs, Restarts, Spec, Workload, WorkloadEvent, Xds,
};
use anyhow::Context as _;
use identity::KeyKind;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xds::grpc::client::Target;

use crate::INSIDE;
use crate::limits::{CONTROL_PLANE_POLL, CONTROL_PLANE_TIMEOUT, DEMO_DRAIN};
use crate::ports::{Ports, loopback};
use crate::state::{Home, MeshRecord, Process, WorkloadRecord};

/// How this program starts itself.
pub(crate) fn programs() -> anyhow::Result<Programs> {
    let program: OsString = std::env::current_exe()
        .context("find this program's file")?
        .into();
    Ok(Programs {
        proxy: vec![program.clone(), "proxy".into()],
        inside: vec![program, INSIDE.into()],
    })
}

/// The running mesh, for workloads that join it: agents are known by their user, on the control plane's socket.
pub(crate) fn joined(home: &Home, record: &MeshRecord) -> anyhow::Result<Mesh> {
    Ok(Mesh {
        xds: Xds {
            address: record.secure,
            server_name: CONTROL_PLANE_NAME.to_owned(),
        },
        control: Control::Open(Target::Unix(home.agent_socket())),
        identity: MeshIdentity {
            source: CertificateSource::Authority(CertificateAuthority::Unix(home.agent_socket())),
            roots: Some(home.roots()),
            revocations: Some(home.revocations()),
            trust_domain: None,
            key: KeyKind::default(),
            lifetime: agent::limits::CERTIFICATE_LIFETIME,
        },
        workload_api: Some(home.workload_api()),
        folder: home.run(),
        logs: home.logs(),
        programs: programs()?,
    })
}

/// The name in the control plane's certificate (istiod's).
const CONTROL_PLANE_NAME: &str = "istiod.istio-system.svc";

/// The control plane's process.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    home: Home,
    ports: Ports,
    child: Child,
}

impl ControlPlane {
    /// Starts it. Its output goes to `control-plane.log`.
    pub(crate) fn start(home: &Home, ports: Ports) -> anyhow::Result<Self> {
        let child = Self::spawn(home, ports).context("start the control plane")?;
        Ok(Self {
            home: home.clone(),
            ports,
            child,
        })
    }

    fn spawn(home: &Home, ports: Ports) -> std::io::Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(home.log("control-plane"))?;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .arg("control-plane")
            .arg("--state-dir")
            .arg(home.control_plane());
        // Every sidecar and agent of this mesh proves who it is.
        command.arg("--no-plaintext-xds");
        for (flag, port) in [
            ("--secure-port", ports.secure),
            ("--http-port", ports.debug),
            ("--api-port", ports.api),
        ] {
            command.arg(flag).arg(port.to_string());
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        net::process::die_with_parent(&mut command, Signal::KILL);
        Command::from(command).kill_on_drop(true).spawn()
    }

    pub(crate) fn process(&self) -> Option<Process> {
        self.child.id().and_then(Process::of)
    }

    /// Waits until its API and its secure port answer; returns a client of the API.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<control_sources::Client> {
        let log = self.home.log("control-plane");
        let (home, ports) = (self.home.clone(), self.ports);
        tokio::select! {
            client = tokio::time::timeout(CONTROL_PLANE_TIMEOUT, answer(&home, ports)) => client.with_context(|| {
                format!("the control plane does not answer after {CONTROL_PLANE_TIMEOUT:?}; see {}", log.display())
            }),
            ended = self.child.wait() => {
                anyhow::bail!("the control plane ended ({}); see {}", ended?, log.display())
            }
        }
    }

    /// Starts it again whenever it ends, until `stop`; then ends it.
    pub(crate) async fn keep(mut self, record: Rc<RefCell<MeshRecord>>, mut stop: watch::Receiver<bool>) {
        let mut restarts = Restarts::default();
        loop {
            tokio::select! {
                () = stopping(&mut stop) => return end(&mut self.child).await,
                ended = self.child.wait() => {
                    tracing::warn!(status = ?ended, "the control plane ended, starting it again");
                    if !wait(&mut restarts, &mut stop).await {
                        return;
                    }
                    match Self::spawn(&self.home, self.ports) {
                        Ok(child) => self.child = child,
                        Err(error) => tracing::error!(%error, "the control plane cannot be started"),
                    }
                    let mut record = record.borrow_mut();
                    record.control_plane_restarts = restarts.total();
                    record.control_plane = self.process();
                    let _ = record.write(&self.home);
                }
            }
        }
    }
}

/// A client of the API, as soon as both servers answer.
async fn answer(home: &Home, ports: Ports) -> control_sources::Client {
    loop {
        if let Ok(client) = try_answer(home, ports).await {
            return client;
        }
        tokio::time::sleep(CONTROL_PLANE_POLL).await;
    }
}

async fn try_answer(home: &Home, ports: Ports) -> anyhow::Result<control_sources::Client> {
    tokio::net::TcpStream::connect(loopback(ports.secure)).await?;
    tokio::net::TcpStream::connect(loopback(ports.api)).await?;
    Ok(control_sources::client::from_kubeconfig(&home.kubeconfig()).await?)
}

/// Asks a process to end, and makes it after a while.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(Duration::from_secs(5), child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}

/// Supervised workloads and the switch that stops them.
#[derive(Debug)]
pub(crate) struct Workloads {
    mesh: Mesh,
    stop: watch::Sender<bool>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Workloads {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            stop: watch::Sender::new(false),
            tasks: RefCell::default(),
        }
    }

    /// Tells a task outside to stop together with the workloads.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Adds a task that ends when [`Workloads::stopped`] says so.
    pub(crate) fn add_task(&self, task: JoinHandle<()>) {
        self.tasks.borrow_mut().push(task);
    }

    /// Starts workloads, all at the same time, and keeps them running. The records are in the order of the specs.
    pub(crate) async fn start(&self, specs: Vec<Spec>) -> anyhow::Result<Vec<WorkloadRecord>> {
        let starting: Vec<_> = specs
            .into_iter()
            .map(|spec| {
                let mesh = self.mesh.clone();
                tokio::task::spawn_local(async move { Workload::start(&mesh, spec).await })
            })
            .collect();
        let mut records = Vec::new();
        for started in starting {
            let workload = started.await??;
            let record = WorkloadRecord::of(&workload, 0);
            record.write(workload.folder())?;
            records.push(record);
            let keep = keep(self.mesh.clone(), workload, self.stop.subscribe());
            self.tasks.borrow_mut().push(tokio::task::spawn_local(keep));
        }
        Ok(records)
    }

    /// Starts the gateway; the answer also tells where it listens, once it has a listener for `port`.
    pub(crate) async fn start_gateway(&self, spec: Spec, port: u16) -> anyhow::Result<Gateway> {
        let workload = Workload::start(&self.mesh, spec).await?;
        WorkloadRecord::of(&workload, 0).write(workload.folder())?;
        let listeners = workload.moved_listeners();
        let keep = keep(self.mesh.clone(), workload, self.stop.subscribe());
        self.tasks.borrow_mut().push(tokio::task::spawn_local(keep));
        let asked = (std::net::Ipv4Addr::UNSPECIFIED, port).into();
        Ok(Gateway { listeners, asked })
    }

    /// Stops everything and waits for it.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks.into_inner() {
            let _ = task.await;
        }
    }
}

/// A running gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    listeners: agent::policy::Moved,
    /// The address that its listener asks for.
    asked: std::net::SocketAddr,
}

impl Gateway {
    /// Where it listens for its port; `None` until the configuration has a listener.
    pub(crate) fn address(&self) -> Option<std::net::SocketAddr> {
        self.listeners.borrow().get(&self.asked).copied()
    }
}

/// Waits until everything is told to stop, or nobody is left to tell.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts a restart and waits before it; `false` when it is time to stop instead.
async fn wait(restarts: &mut Restarts, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = stopping(stop) => false,
        () = tokio::time::sleep(restarts.next_wait()) => true,
    }
}

/// Keeps one workload running until `stop`.
async fn keep(mesh: Mesh, mut workload: Workload, mut stop: watch::Receiver<bool>) {
    let mut restarts = Restarts::default();
    loop {
        tokio::select! {
            () = stopping(&mut stop) => {
                let folder = workload.folder().to_owned();
                workload.stop(Signal::TERM, DEMO_DRAIN).await;
                let _ = std::fs::remove_dir_all(folder);
                return;
            }
            event = workload.event() => match event {
                Ok(WorkloadEvent::ApplicationEnded(exit)) => {
                    tracing::warn!(workload = workload.spec().name, %exit, "the application ended, starting it again");
                    note(&workload, &restarts);
                    if !wait(&mut restarts, &mut stop).await {
                        continue;
                    }
                    if workload.run_application().await.is_err() {
                        match replace(&mesh, workload, &mut restarts, &mut stop).await {
                            Some(next) => workload = next,
                            None => return,
                        }
                    }
                }
                Ok(WorkloadEvent::SidecarRestarted | WorkloadEvent::IdentityChanged) => {}
                Err(error) => {
                    tracing::error!(workload = workload.spec().name, %error, "the sidecar cannot be started");
                    if !wait(&mut restarts, &mut stop).await {
                        continue;
                    }
                }
            }
        }
        note(&workload, &restarts);
    }
}

fn note(workload: &Workload, restarts: &Restarts) {
    let _ = WorkloadRecord::of(workload, restarts.total()).write(workload.folder());
}

/// Starts a workload anew whose namespace is gone. `None` when it was told to stop in between.
async fn replace(
    mesh: &Mesh,
    workload: Workload,
    restarts: &mut Restarts,
    stop: &mut watch::Receiver<bool>,
) -> Option<Workload> {
    let spec = workload.spec().clone();
    drop(workload);
    loop {
        tokio::select! {
            () = stopping(stop) => return None,
            started = Workload::start(mesh, spec.clone()) => match started {
                Ok(workload) => return Some(workload),
                Err(error) => tracing::error!(workload = spec.name, %error, "the workload cannot be started"),
            }
        }
        if !wait(restarts, stop).await {
            return None;
        }
    }
}
