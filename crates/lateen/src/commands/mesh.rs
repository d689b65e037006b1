//! What `demo` and `up` have in common: control plane, gateway, the record of the mesh, and its end.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use agent::Spec;
use agent::certificates::authority::CertificateAuthority;
use agent::workload_api::{self, Reach};
use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::limits::{FIRST_RESPONSE_POLL, FIRST_RESPONSE_TIMEOUT};
use crate::node_agent::{HostWorkloads, settings};
use crate::objects;
use crate::output::Steps;
use crate::ports::{Moved, Ports, loopback};
use crate::reservation::Reservation;
use crate::state::{Home, MeshRecord, Process};
use crate::supervisor::{ControlPlane, Gateway, Workloads, joined};

/// A mesh that this process runs.
pub(super) struct RunningMesh {
    pub(super) home: Home,
    pub(super) record: Rc<RefCell<MeshRecord>>,
    pub(super) workloads: Workloads,
    pub(super) client: control_sources::Client,
    pub(super) moved: Vec<Moved>,
    _reservation: Reservation,
}

impl RunningMesh {
    /// Starts the control plane of a new mesh.
    pub(super) async fn start(
        home: Home,
        kind: &str,
        fresh: bool,
        steps: &mut Steps,
    ) -> anyhow::Result<Self> {
        home.require_none()?;
        home.create()?;
        let reservation = home.reserve()?;
        let ended = home.clear_remains();
        if ended > 0 {
            steps.note(&format!("ended {ended} processes that a killed mesh had left"));
        }
        if fresh && home.control_plane().exists() {
            std::fs::remove_dir_all(home.control_plane()).context("forget the last mesh's configuration")?;
        }
        let (ports, moved) = Ports::pick()?;
        for Moved { wanted, used } in &moved {
            steps.note(&format!("port {wanted} is taken, using {used}"));
        }
        let mut control_plane = ControlPlane::start(&home, ports)?;
        let client = control_plane.ready().await?;
        let record = MeshRecord {
            kind: kind.to_owned(),
            ready: false,
            supervisor: Process::current(),
            control_plane: control_plane.process(),
            control_plane_restarts: 0,
            secure: loopback(ports.secure),
            debug: loopback(ports.debug),
            kubeconfig: home.kubeconfig(),
            gateway: None,
            summary: Value::Null,
        };
        record.write(&home)?;
        let mesh = joined(&home, &record)?;
        let record = Rc::new(RefCell::new(record));
        let workloads = Workloads::new(mesh);
        let keep = control_plane.keep(Rc::clone(&record), workloads.stopped());
        workloads.add_task(tokio::task::spawn_local(keep));
        let node_agent = serve_identities(&home, workloads.stopped())?;
        workloads.add_task(tokio::task::spawn_local(node_agent));
        steps.done(
            "control plane",
            &format!(
                "127.0.0.1: Kubernetes API {} · xDS {} · debug {}",
                ports.api, ports.secure, ports.debug
            ),
        );
        Ok(Self {
            home,
            record,
            workloads,
            client,
            moved,
            _reservation: reservation,
        })
    }

    /// Applies objects through the API.
    pub(super) async fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        control_sources::apply(&self.client, objects)
            .await
            .context("apply the mesh's objects")?;
        Ok(())
    }

    /// The ingress gateway's workload.
    pub(super) fn gateway_spec() -> Spec {
        Spec::gateway(
            objects::GATEWAY_NAMESPACE,
            objects::GATEWAY_NAME,
            objects::gateway_labels(),
        )
    }

    /// Starts the gateway; it listens once a Gateway object asks for it.
    pub(super) async fn start_gateway(&self) -> anyhow::Result<Gateway> {
        self.workloads
            .start_gateway(Self::gateway_spec(), objects::GATEWAY_PORT)
            .await
    }

    /// Records that everything is started, and what was told about it.
    pub(super) fn ready(&self, gateway: Option<SocketAddr>, summary: Value) -> anyhow::Result<()> {
        let mut record = self.record.borrow_mut();
        record.ready = true;
        record.gateway = gateway.map(|address| format!("http://{address}"));
        record.summary = summary;
        record.write(&self.home)?;
        Ok(())
    }

    /// All processes of the mesh that run now.
    pub(super) fn pids(&self) -> Vec<u32> {
        let workloads = self.home.workloads();
        let workloads = workloads
            .iter()
            .flat_map(|workload| workload.processes().map(|process| process.pid));
        let control_plane = self.record.borrow().control_plane.map(|process| process.pid);
        std::iter::once(std::process::id())
            .chain(control_plane)
            .chain(workloads)
            .collect()
    }

    /// The processes by name, for `--output json`.
    pub(super) fn pids_by_name(&self) -> Value {
        let mut pids = json!({
            "supervisor": std::process::id(),
            "control-plane": self.record.borrow().control_plane.map(|process| process.pid),
        });
        for workload in self.home.workloads() {
            pids[&workload.name] = json!({
                "application": workload.application.map(|process| process.pid),
                "sidecar": workload.sidecar.map(|process| process.pid),
                "parent": workload.parent.map(|process| process.pid),
            });
        }
        pids
    }

    /// Stops everything; the configuration stays in the control plane's folder.
    pub(super) async fn stop(self) {
        let Self { home, workloads, .. } = self;
        workloads.stop().await;
        let _ = std::fs::remove_file(home.mesh_file());
    }
}

/// Listens for workloads that ask for their identities themselves, and serves them until `stop`.
fn serve_identities(
    home: &Home,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let path = home.workload_api();
    let listener =
        workload_api::bind(&path, Reach::User).with_context(|| format!("listen on {}", path.display()))?;
    let authority = CertificateAuthority::Unix(home.agent_socket());
    let workloads = HostWorkloads {
        home: home.clone(),
        registered: Vec::new(),
    };
    let serving = workload_api::serve(listener, settings(authority, Some(home.revocations())), workloads);
    Ok(async move {
        tokio::select! {
            served = serving => tracing::error!(?served, "identities are no longer served to workloads"),
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let _ = std::fs::remove_file(path);
    })
}

/// Waits until the gateway listens.
pub(super) async fn gateway_address(gateway: &Gateway) -> anyhow::Result<SocketAddr> {
    let polling = async {
        loop {
            match gateway.address() {
                Some(address) => return address,
                None => tokio::time::sleep(FIRST_RESPONSE_POLL).await,
            }
        }
    };
    let listening = tokio::time::timeout(FIRST_RESPONSE_TIMEOUT, polling).await;
    listening.context("the ingress gateway has no listener; see `lateen logs --sidecar istio-ingressgateway`")
}
