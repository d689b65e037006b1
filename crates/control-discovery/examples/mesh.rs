//! A mesh of made-up services and the control plane before it, to measure: how long a change takes to reach its proxies,
//! and, for proxies that somebody else starts, what they hold.
//!
//! `mesh push SERVICES ENDPOINTS PROXIES WORKLOADS CHANGES` connects proxies, changes endpoints and then a VirtualService,
//! one at a time, and prints for each how long it took until the last proxy had it, in milliseconds, as one JSON object;
//! and how much of the processor control plane and proxies took together, for each change of a kind on average.
//! The proxies belong to so many workloads, each of a service of its own; those of one workload see the same.
//!
//! `mesh serve SERVICES ENDPOINTS` prints the port of its ADS server and serves until its standard input ends.

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use api_envoy::envoy::config::core::v3::Node;
use api_envoy::{any, type_url, wkt};
use control_discovery::{Discovery, World};
use control_snapshot::{Kind, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use xds::Variant;
use xds::client::{Client, Update};
use xds::grpc::client::{Event, Target, commands, run};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where every service listens.
const PORT: u16 = 9080;
/// How long a change, or the first configuration of all proxies, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing is sent before the next change.
const QUIET: Duration = Duration::from_millis(300);
/// News of proxies that nobody has read yet.
const NEWS: usize = 1 << 16;
/// Namespaces that the services are spread over.
const NAMESPACES: usize = 10;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| -> Result<usize, Failure> {
        Ok(words.get(index).ok_or("a number is missing")?.parse()?)
    };
    match words.first().map(String::as_str) {
        Some("push") => {
            let mesh = Mesh {
                services: number(1)?,
                endpoints: number(2)?,
            };
            push(mesh, number(3)?, number(4)?, number(5)?)
        }
        Some("serve") => serve(Mesh {
            services: number(1)?,
            endpoints: number(2)?,
        }),
        _ => Err(
            "mesh push SERVICES ENDPOINTS PROXIES WORKLOADS CHANGES, or mesh serve SERVICES ENDPOINTS".into(),
        ),
    }
}

/// How large the mesh is.
#[derive(Clone, Copy, Debug)]
struct Mesh {
    services: usize,
    /// Of each service.
    endpoints: usize,
}

impl Mesh {
    fn namespace(service: usize) -> String {
        format!("n{}", service % NAMESPACES)
    }

    fn address(self, service: usize, endpoint: usize) -> String {
        let number = service * self.endpoints + endpoint;
        format!(
            "10.{}.{}.{}",
            1 + number / 62_500,
            number / 250 % 250,
            1 + number % 250
        )
    }

    fn service(service: usize) -> Value {
        let (high, low) = (service / 250, 1 + service % 250);
        json!({
            "metadata": { "name": format!("s{service}"), "namespace": Self::namespace(service) },
            "spec": {
                "clusterIP": format!("10.96.{high}.{low}"), "clusterIPs": [format!("10.96.{high}.{low}")],
                "selector": { "app": format!("s{service}") },
                "ports": [{ "name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP" }],
            },
        })
    }

    fn pod(self, service: usize, endpoint: usize) -> Value {
        let address = self.address(service, endpoint);
        json!({
            "metadata": {
                "name": format!("s{service}-{endpoint}"), "namespace": Self::namespace(service),
                "labels": { "app": format!("s{service}"), "version": "v1" },
            },
            "spec": {
                "nodeName": "machine", "serviceAccountName": format!("s{service}"),
                "containers": [{ "name": "app", "image": "example.test/app:1", "ports": [{ "containerPort": PORT }] }],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    }

    /// The endpoints of a service, the last of them ready or not.
    fn slice(self, service: usize, last_is_ready: bool) -> Value {
        let namespace = Self::namespace(service);
        let endpoint = |index: usize| {
            let ready = last_is_ready || index + 1 < self.endpoints;
            json!({
                "addresses": [self.address(service, index)], "nodeName": "machine",
                "conditions": { "ready": ready, "serving": ready, "terminating": false },
                "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("s{service}-{index}") },
            })
        };
        json!({
            "metadata": {
                "name": format!("s{service}-1"), "namespace": namespace,
                "labels": { "kubernetes.io/service-name": format!("s{service}") },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
            "endpoints": (0..self.endpoints).map(endpoint).collect::<Vec<_>>(),
        })
    }

    /// Everything, published.
    fn world(self) -> Arc<World> {
        let world = World::new(Settings::default(), "mesh");
        for namespace in (0..NAMESPACES).map(Self::namespace) {
            world.apply(Kind::Namespace, json!({ "metadata": { "name": namespace } }));
        }
        world.apply(
            Kind::Node,
            json!({ "metadata": { "name": "machine", "labels": {} } }),
        );
        for service in 0..self.services {
            world.apply(Kind::Service, Self::service(service));
            for endpoint in 0..self.endpoints {
                world.apply(Kind::Pod, self.pod(service, endpoint));
            }
            world.apply(Kind::EndpointSlice, self.slice(service, true));
        }
        world.ready();
        world
    }

    /// The node of a proxy beside an endpoint of a service.
    fn node(self, service: usize, endpoint: usize) -> Node {
        let (namespace, name) = (Self::namespace(service), format!("s{service}-{endpoint}"));
        let address = self.address(service, endpoint);
        let metadata = wkt::structure(&json!({
            "NAME": name, "NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes", "SERVICE_ACCOUNT": format!("s{service}"),
            "ISTIO_VERSION": "1.31.0", "INSTANCE_IPS": address,
            "LABELS": { "app": format!("s{service}"), "version": "v1" },
        }));
        Node {
            id: format!("sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(metadata),
            ..Node::default()
        }
    }
}

/// Where the services send half of the requests that are for another: a different half each time.
fn virtual_service(turn: usize) -> Value {
    let destination = |service: usize, weight: usize| {
        let host = format!("s{service}.{}.svc.cluster.local", Mesh::namespace(service));
        json!({ "destination": { "host": host }, "weight": weight })
    };
    let weight = 10 + turn % 80;
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "split", "namespace": Mesh::namespace(0) },
        "spec": {
            "hosts": [format!("s0.{}.svc.cluster.local", Mesh::namespace(0))],
            "http": [{ "route": [destination(0, weight), destination(1, 100 - weight)] }],
        },
    })
}

/// A control plane on a port of loopback.
async fn control_plane(mesh: Mesh) -> Result<(Arc<World>, std::net::SocketAddr), Failure> {
    let world = mesh.world();
    tokio::spawn(Arc::clone(&world).run());
    let discovery = Discovery::new(Arc::clone(&world), "mesh", None);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { discovery.serve(listener, std::future::pending()).await });
    Ok((world, address))
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn serve(mesh: Mesh) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let (_world, address) = control_plane(mesh).await?;
        println!("{}", address.port());
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        end.await??;
        Ok(())
    })
}

/// What a proxy tells when it has taken something.
#[derive(Debug)]
struct Taken {
    proxy: usize,
    type_url: String,
    at: Instant,
}

/// A proxy that acknowledges everything, and subscribes to the endpoints and routes that it is told of.
fn connect(
    target: &Target,
    node: Node,
    proxy: usize,
    taken: mpsc::Sender<Taken>,
) -> mpsc::Sender<xds::grpc::client::Command> {
    let mut client = Client::new(Variant::Delta, node);
    client.watch_all(type_url::CLUSTER);
    client.watch_all(type_url::LISTENER);
    let (sender, receiver) = commands();
    let handler = move |event: Event, client: &mut Client| {
        let Event::Update(update) = event else { return };
        if update.type_url == type_url::CLUSTER {
            client.subscribe(type_url::ENDPOINT, discovered(&update));
            // Every outbound HTTP listener of this mesh asks for one route configuration, named after its port.
            client.subscribe(type_url::ROUTE, [PORT.to_string()]);
        }
        client.accept(&update);
        let at = Instant::now();
        // The measurement may be over. What does not fit is missed, and then the measurement fails.
        let _ = taken.try_send(Taken {
            proxy,
            type_url: update.type_url,
            at,
        });
    };
    tokio::spawn(run(target.clone(), client, handler, receiver, || 0));
    sender
}

/// The clusters of an update whose endpoints come by EDS.
fn discovered(update: &Update) -> Vec<String> {
    let clusters = update
        .resources
        .iter()
        .filter_map(|r| any::unpack::<Cluster>(&r.body).ok());
    clusters
        .filter(|c| c.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)))
        .map(|c| c.name)
        .collect()
}

/// Waits until every proxy has taken something of a type; when the last of them had.
async fn everybody(
    taken: &mut mpsc::Receiver<Taken>,
    proxies: usize,
    type_url: &str,
) -> Result<Instant, Failure> {
    let mut missing: std::collections::BTreeSet<usize> = (0..proxies).collect();
    let all = async {
        loop {
            let news = taken.recv().await.ok_or("the proxies are gone")?;
            if news.type_url == type_url && missing.remove(&news.proxy) && missing.is_empty() {
                return Ok::<_, Failure>(news.at);
            }
        }
    };
    let within = tokio::time::timeout(PATIENCE, all).await;
    within.map_err(|_| format!("not every proxy got {type_url} within {PATIENCE:?}"))?
}

/// Waits until nothing has come for a while.
async fn quiet(taken: &mut mpsc::Receiver<Taken>) {
    while tokio::time::timeout(QUIET, taken.recv()).await.is_ok() {}
}

/// How long this process has run on processors, milliseconds.
fn cpu_ms() -> Result<f64, Failure> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total).as_secs_f64() * 1e3)
}

#[allow(clippy::cast_precision_loss)]
fn push(mesh: Mesh, proxies: usize, workloads: usize, changes: usize) -> Result<(), Failure> {
    let served = runtime()?;
    let (world, address) = served.block_on(control_plane(mesh))?;
    runtime()?.block_on(async {
        let target = Target::Tcp(address.to_string());
        let (sender, mut taken) = mpsc::channel(NEWS);
        let began = Instant::now();
        let workloads = workloads.clamp(1, mesh.services);
        let _links: Vec<_> = (0..proxies)
            .map(|proxy| {
                let node = mesh.node(proxy % workloads, proxy / workloads % mesh.endpoints);
                connect(&target, node, proxy, sender.clone())
            })
            .collect();
        let first = everybody(&mut taken, proxies, type_url::ROUTE).await? - began;
        let (mut endpoint, mut route) = (Vec::new(), Vec::new());
        quiet(&mut taken).await;
        let began = cpu_ms()?;
        for turn in 0..changes {
            let changed = Instant::now();
            world.apply(Kind::EndpointSlice, mesh.slice(mesh.services / 2, turn % 2 == 1));
            let all = everybody(&mut taken, proxies, type_url::ENDPOINT).await?;
            endpoint.push((all - changed).as_secs_f64() * 1e3);
            quiet(&mut taken).await;
        }
        let between = cpu_ms()?;
        for turn in 0..changes {
            let changed = Instant::now();
            world.apply(Kind::VirtualService, virtual_service(turn));
            let all = everybody(&mut taken, proxies, type_url::ROUTE).await?;
            route.push((all - changed).as_secs_f64() * 1e3);
            quiet(&mut taken).await;
        }
        let each = |spent: f64| spent / changes.max(1) as f64;
        println!(
            "{}",
            json!({
                "first_ms": first.as_secs_f64() * 1e3, "endpoint_ms": endpoint, "virtual_service_ms": route,
                "endpoint_cpu_ms": each(between - began), "virtual_service_cpu_ms": each(cpu_ms()? - between),
            })
        );
        Ok(())
    })
}
