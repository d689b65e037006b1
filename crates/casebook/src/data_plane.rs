//! The proxy under test as a process: its bootstrap, its start, its readiness, its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::DataPlane;
use crate::client::{self, Answer, Way};
use crate::control_plane::ADS;
use crate::limits::{LOG_LINES, READY_TIME};
use crate::page::traffic::Request;
use crate::relay;
use crate::world::World;

/// Where the proxy's admin interface listens inside the namespace.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Where the agent serves the identity of the proxy's workload, within the stage's folder.
pub const SECRETS_SOCKET: &str = "sds.sock";

/// Time between two looks at whether the proxy is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How often the access log is written to its file, in milliseconds.
const LOG_FLUSH_MILLISECONDS: &str = "20";

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: PathBuf,
}

/// The node id of the proxy under test, in Istio's form.
pub fn node_id(world: &World) -> String {
    let pod = world.proxy_pod();
    let kind = if world.is_gateway() { "router" } else { "sidecar" };
    format!(
        "{kind}~{}~{}.{}~{}.svc.cluster.local",
        pod.address, pod.name, pod.namespace, pod.namespace
    )
}

impl Proxy {
    /// Starts a proxy for this world; `scratch` takes its bootstrap and its log.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Path, world: &World, scratch: &Path) -> Result<Self> {
        Self::start_with(
            program,
            &bootstrap(world, scratch),
            scratch,
            &["--drain-time-s", "1"],
        )
    }

    /// Starts a proxy with this bootstrap and more flags.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with(program: &Path, bootstrap: &Value, scratch: &Path, flags: &[&str]) -> Result<Self> {
        let bootstrap_file = scratch.join("bootstrap.json");
        std::fs::write(&bootstrap_file, bootstrap.to_string())?;
        let log = scratch.join("proxy.log");
        let log_file = File::create(&log)?;
        let mut command = Command::new(program);
        command
            .current_dir(scratch)
            .arg("-c")
            .arg(&bootstrap_file)
            .args([
                "--concurrency",
                "1",
                "--log-level",
                "info",
                "--disable-hot-restart",
            ])
            .args(["--file-flush-interval-msec", LOG_FLUSH_MILLISECONDS])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file);
        net::process::die_with_parent(&mut command, rustix::process::Signal::KILL);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Waits until the proxy says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the message has the end of its log.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_TIME;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the data plane ended with {status}:\n{}", self.log_tail());
            }
            let ready = admin("/ready").await;
            if matches!(&ready, Ok(answer) if answer.status == 200) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the data plane is not ready within {READY_TIME:?}:\n{}",
                    self.log_tail()
                );
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Its log, whole.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the admin interface of the proxy in this namespace.
///
/// # Errors
/// It does not answer.
pub async fn admin(path: &str) -> Result<Answer> {
    let request = Request::Http {
        method: "GET".to_owned(),
        authority: ADMIN.to_string(),
        path: path.to_owned(),
        headers: Vec::new(),
        said: None,
        http2: false,
    };
    let way = Way {
        source: Ipv4Addr::LOCALHOST,
        target: ADMIN,
        secured: None,
    };
    let outcome = client::send(&way, &request, "admin").await;
    outcome.answer.map_err(anyhow::Error::msg)
}

/// The program of a data plane: `LATEEN_PROXY` or the one beside this program, `LATEEN_ENVOY`.
///
/// # Errors
/// It is not there; the message says how to get it.
pub fn program(data_plane: DataPlane) -> Result<PathBuf> {
    let (variable, hint) = match data_plane {
        DataPlane::Lateen => ("LATEEN_PROXY", "`cargo build -p lateen-proxy` makes it"),
        DataPlane::Envoy => (
            "LATEEN_ENVOY",
            "set it to an Envoy binary; `cargo xtask tools` installs one and prints its path",
        ),
    };
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("lateen-proxy"));
    let given = std::env::var_os(variable).map(PathBuf::from);
    let path = given.or_else(|| beside().filter(|_| data_plane == DataPlane::Lateen));
    path.filter(|path| path.is_file())
        .with_context(|| format!("no program for {data_plane} ({variable}): {hint}"))
}

/// A bootstrap with nothing but the way to the control plane, and to the agent that has the workload's identity.
fn bootstrap(world: &World, scratch: &Path) -> Value {
    let http2 = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let cluster = |name: &str, address: Value| {
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": http2,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
            },
        })
    };
    let control_plane = if world.has_identity() { relay::ADDRESS } else { ADS };
    let socket = scratch.join(SECRETS_SOCKET);
    let clusters = [
        cluster("xds-grpc", socket_address(control_plane)),
        // Nobody listens where workloads have no identities: who needs one waits.
        cluster("sds-grpc", json!({ "pipe": { "path": socket } })),
    ];
    let ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    json!({
        "node": node(world),
        "admin": { "address": socket_address(ADMIN) },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": { "clusters": clusters },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// The node of the proxy under test, as its agent writes it.
pub fn identity(world: &World) -> agent::bootstrap::Identity {
    let node = node(world);
    let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
    agent::bootstrap::Identity {
        id: text("id"),
        cluster: text("cluster"),
        metadata: node["metadata"].clone(),
    }
}

fn node(world: &World) -> Value {
    let pod = world.proxy_pod();
    let mut labels: BTreeMap<String, String> = pod.all_labels();
    labels.insert("service.istio.io/canonical-name".to_owned(), pod.name.clone());
    let mut metadata = json!({
        "NAME": pod.name,
        "NAMESPACE": pod.namespace,
        "WORKLOAD_NAME": pod.name,
        "SERVICE_ACCOUNT": pod.account,
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": "cluster.local",
        "NODE_NAME": "machine",
        "ISTIO_VERSION": "1.31.0",
        "LABELS": labels,
        "INSTANCE_IPS": pod.address.to_string(),
        "INTERCEPTION_MODE": "REDIRECT",
    });
    for (key, value) in &world.metadata {
        metadata[key] = value.clone();
    }
    json!({ "id": node_id(world), "cluster": format!("{}.{}", pod.name, pod.namespace), "metadata": metadata })
}
