//! What every scene has: a control plane, an agent, the proxy, and callers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::Xds;
use anyhow::{Context as _, Result};
use identity::ServiceAccount;
use serde_json::{Value, json};
use tls::settings::UpstreamTlsContext;
use tls::{ClientContext, ConnectOptions};
use tokio::time::{Instant, sleep};

use super::Scene;
use super::agent::Agent;
use super::load::{Lane, Load};
use crate::DataPlane;
use crate::client::{self, Secured, Way};
use crate::control_plane::{self, Access, ControlPlane};
use crate::data_plane::{self, Proxy};
use crate::identities::Issuer;
use crate::limits::{CHANGE_TIME, READY_TIME};
use crate::relay;
use crate::stage::Stage;
use crate::world::{STRANGER, World};

/// The port whose connections between sidecars are for one request each.
pub(super) const FRESH: u16 = 9080;

/// The port whose connections are kept.
pub(super) const KEPT: u16 = 9081;

/// The service that the proxy stands before, and that its own pod calls.
pub(super) const HOST: &str = "reviews";

/// Envoy tells of failed handshakes on demand; ours does by itself.
const TELL_OF_HANDSHAKES: [&str; 2] = ["--component-log-level", "connection:debug"];

/// How long a proxy drains what it takes out of force, in seconds: long enough for every kept connection to be told by an
/// answer that it ends. Istio's is 45.
const DRAIN_SECONDS: &str = "4";

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A mesh that runs.
pub(super) struct Mesh<'w> {
    world: &'w World,
    pub(super) control_plane: ControlPlane,
    pub(super) issuer: Arc<Issuer>,
    pub(super) agent: Agent,
    pub(super) proxy: Proxy,
    pub(super) data_plane: DataPlane,
    access_log: PathBuf,
    node: String,
}

impl<'w> Mesh<'w> {
    /// Starts everything, with these objects in force and certificates of this life.
    pub(super) async fn start(
        stage: &Stage,
        world: &'w World,
        scene: &Scene<'_>,
        objects: &[Value],
        lifetime: Duration,
    ) -> Result<Self> {
        let (scratch, state) = (&stage.scratch, stage.scratch.join("api"));
        let access_log = scratch.join("access.log");
        let control_plane = ControlPlane::start(&state, Access::InProcess, true).await?;
        control_plane
            .put_cluster(&world.objects(&access_log.to_string_lossy()))
            .await?;
        control_plane.apply(&[rule(None)]).await?;
        control_plane.apply(objects).await?;
        control_plane.ready().await?;
        let issuer = Arc::new(Issuer::new(control_plane.serve_secure().await?));
        stage.mesh.send_replace(Some(Arc::clone(&issuer)));
        let roots = control_plane::roots_file(&state);
        there(&roots).await?;
        let pod = world.proxy_pod();
        let account = ServiceAccount {
            namespace: pod.namespace,
            name: pod.account,
        };
        let agent = Agent::start(account, &issuer, &roots, scratch, lifetime).await?;
        let bootstrap = agent::bootstrap::bootstrap(
            &data_plane::identity(world),
            Ipv4Addr::LOCALHOST,
            &Xds {
                address: relay::SECURE,
                server_name: relay::CONTROL_PLANE.to_owned(),
            },
            &scratch.join(data_plane::SECRETS_SOCKET),
        );
        let mut flags = vec!["--drain-time-s", DRAIN_SECONDS];
        if scene.data_plane == DataPlane::Envoy {
            flags.extend(TELL_OF_HANDSHAKES);
        }
        let mut proxy = Proxy::start_with(scene.program, &bootstrap, scratch, &flags)?;
        let node = data_plane::node_id(world);
        let ready = async {
            control_plane.converge(&node, READY_TIME).await?;
            proxy.wait_until_ready().await
        };
        if let Err(error) = ready.await {
            return Err(error.context(proxy.log_tail()));
        }
        let data_plane = scene.data_plane;
        let mesh = Self {
            world,
            control_plane,
            issuer,
            agent,
            proxy,
            data_plane,
            access_log,
            node,
        };
        mesh.answers().await?;
        Ok(mesh)
    }

    /// Waits until the proxy's pod gets an answer from its own service, on both ports.
    pub(super) async fn answers(&self) -> Result<()> {
        for port in [FRESH, KEPT] {
            let request = super::load::get(&format!("{HOST}:{port}"));
            let deadline = Instant::now() + READY_TIME;
            loop {
                let outcome = client::send(&self.own_way(port)?, &request, "first").await;
                match outcome.answer {
                    Ok(answer) if answer.status == 200 => break,
                    other if Instant::now() > deadline => {
                        anyhow::bail!(
                            "port {port} does not answer: {other:?}\n{}",
                            self.proxy.log_tail()
                        )
                    }
                    _ => sleep(LOOK_AGAIN).await,
                }
            }
        }
        Ok(())
    }

    /// From the proxy's pod to its own service: by way of the proxy, twice.
    pub(super) fn own_way(&self, port: u16) -> Result<Way> {
        Ok(Way {
            source: self.world.proxy_pod().address,
            target: self.world.resolve(HOST, port)?,
            secured: None,
        })
    }

    /// From another pod to the proxy's.
    pub(super) fn way_in(&self, port: u16, context: Option<ClientContext>) -> Way {
        Way {
            source: STRANGER,
            target: SocketAddr::from((self.world.proxy_pod().address, port)),
            secured: context.map(|context| Secured::ByMesh(Arc::new(context))),
        }
    }

    /// What a sidecar of the mesh calls this service's port.
    pub(super) fn server_name(port: u16) -> String {
        format!("outbound_.{port}_._.{HOST}.default.svc.cluster.local")
    }

    /// A caller of the mesh, of this account of the namespace `default`, by the authority that is in force now.
    pub(super) fn caller(&self, account: &str, port: u16) -> Result<ClientContext> {
        let authority = self.control_plane.authority().context("an authority")?;
        Issuer::new(authority).client(("default", account), &Self::server_name(port), true)
    }

    /// The load of the scenes: the proxy's own pod, on fresh and on kept connections, and other callers of the mesh.
    pub(super) fn load(&self) -> Result<Load> {
        let mut load = self.own_load()?;
        let way = self.way_in(FRESH, Some(self.caller("frontend", FRESH)?));
        load.open("callers of the mesh, new connections", Lane::Fresh(way), HOST);
        Ok(load)
    }

    /// The load of the proxy's own pod alone, whose certificates follow the mesh's authority.
    pub(super) fn own_load(&self) -> Result<Load> {
        let mut load = Load::new();
        for port in [FRESH, KEPT] {
            let way = self.own_way(port)?;
            let (source, target) = (way.source, way.target);
            let host = format!("{HOST}:{port}");
            load.open(
                "the pod itself, connections kept",
                Lane::Kept { source, target },
                &host,
            );
            load.open("the pod itself, new connections", Lane::Fresh(way), &host);
        }
        Ok(load)
    }

    /// Applies objects and waits until they are in force.
    pub(super) async fn apply(&self, objects: &[Value]) -> Result<()> {
        self.control_plane.apply(objects).await?;
        self.control_plane.converge(&self.node, CHANGE_TIME).await
    }

    /// The serial number of the certificate that the proxy shows.
    pub(super) async fn shown(&self) -> Result<String> {
        let way = self.way_in(FRESH, None);
        let connection = client::connect(way.source, way.target).await?;
        let context = self.caller("frontend", FRESH)?;
        let (_, about) = context.connect(connection, ConnectOptions::default()).await?;
        let peer = about.peer.context("the proxy shows a certificate")?;
        Ok(identity::Certificate::from_der(peer.leaf().der())?
            .serial()
            .to_owned())
    }

    /// Waits until the proxy shows the certificate that the agent holds.
    pub(super) async fn shows_what_the_agent_holds(&self) -> Result<bool> {
        let deadline = Instant::now() + CHANGE_TIME;
        while Instant::now() < deadline {
            if self.shown().await? == self.agent.serial() {
                return Ok(true);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(false)
    }

    /// The access log so far.
    pub(super) fn access_log(&self) -> String {
        let log = std::fs::read(&self.access_log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits for a line with all of these words in the access log or the proxy's own.
    pub(super) async fn logged(&self, words: &[&str]) -> bool {
        let deadline = Instant::now() + CHANGE_TIME;
        loop {
            let logs = format!("{}{}", self.access_log(), self.proxy.log());
            if logs
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
            {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until the control plane has written its roots.
async fn there(file: &Path) -> Result<()> {
    let deadline = Instant::now() + READY_TIME;
    while !file.is_file() {
        anyhow::ensure!(Instant::now() < deadline, "there is no {}", file.display());
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// How callers connect: connections between sidecars to [`FRESH`] are for one request, so that each has its handshake.
/// A mode of TLS is for all ports; without one it is automatic.
pub(super) fn rule(tls: Option<&str>) -> Value {
    let mut policy = json!({ "portLevelSettings": [{
        "port": { "number": FRESH }, "connectionPool": { "http": { "maxRequestsPerConnection": 1 } },
    }] });
    if let Some(mode) = tls {
        policy["tls"] = json!({ "mode": mode });
        policy["portLevelSettings"][0]["tls"] = json!({ "mode": mode });
    }
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": HOST },
        "spec": { "host": HOST, "trafficPolicy": policy },
    })
}

/// The PeerAuthentication of the namespace.
pub(super) fn mode(mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": { "name": "default" },
        "spec": { "mtls": { "mode": mode } },
    })
}

/// A context of these settings by a clock that shows this time.
pub(super) fn context(settings: &UpstreamTlsContext, clock: SystemTime) -> Result<ClientContext> {
    Ok(ClientContext::new(settings, clock)?)
}
