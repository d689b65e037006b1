//! The control plane under test, in this process: the world of objects, and the ADS server on its usual port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api_envoy::json::{Schema, Style};
use api_envoy::type_url;
use control_discovery::connections::Connection;
use control_discovery::{Discovery, World as Objects};
use control_snapshot::{Kind, Settings};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::page::fragment::{Fragment, ResourceType};

/// Where the ADS server listens inside the namespace: Istio's port for plain text.
pub const ADS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15010);

/// Time between two looks at whether a proxy has caught up.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Types whose refusal fails a page.
const TYPES: [&str; 4] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
];

/// A running control plane; it ends with the runtime.
#[derive(Debug)]
pub struct ControlPlane {
    objects: Arc<Objects>,
    discovery: Discovery,
}

impl ControlPlane {
    /// Starts one that knows these objects.
    ///
    /// # Errors
    /// An object of a kind that the mesh does not read, or one that is broken; the port is taken.
    pub async fn start(objects: &[Value]) -> Result<Self> {
        let world = Objects::new(Settings::default(), "casebook");
        let this = Self {
            discovery: Discovery::new(Arc::clone(&world), "casebook", None),
            objects: world,
        };
        this.apply(objects)?;
        this.objects.ready();
        tokio::spawn(Arc::clone(&this.objects).run());
        let listener = TcpListener::bind(ADS)
            .await
            .with_context(|| format!("ADS server on {ADS}"))?;
        let discovery = this.discovery.clone();
        tokio::spawn(async move { discovery.serve(listener, std::future::pending()).await });
        Ok(this)
    }

    /// Applies objects, as `kubectl apply` does; those without a namespace go to `default`.
    ///
    /// # Errors
    /// An object of a kind that the mesh does not read, or one that is broken.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let text = |pointer| {
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (version, name) = (text("/apiVersion"), text("/kind"));
            let kind =
                Kind::parse(version, name).with_context(|| format!("the mesh reads no {version} {name}"))?;
            let mut object = object.clone();
            let cluster_wide = matches!(kind, Kind::Namespace | Kind::Node);
            if !cluster_wide && object.pointer("/metadata/namespace").is_none() {
                object["metadata"]["namespace"] = "default".into();
            }
            if let Some(diagnostic) = self.objects.apply(kind, object) {
                bail!("{diagnostic}");
            }
        }
        Ok(())
    }

    /// Publishes what was applied and waits until the proxy holds it.
    ///
    /// # Errors
    /// The proxy refuses a resource, or does not answer in time.
    pub async fn converge(&self, proxy: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        self.objects.publish();
        let wanted = self
            .objects
            .current()
            .map_or(0, |publication| publication.sequence);
        loop {
            let connection = self.discovery.connections().find(proxy);
            if let Some(connection) = &connection {
                refusals(connection)?;
                if caught_up(connection, wanted) {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                match connection {
                    Some(_) => bail!("the proxy has not answered within {limit:?}"),
                    None => bail!("the proxy has not connected to the control plane within {limit:?}"),
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Fails when the proxy has refused something.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_refusals(&self, proxy: &str) -> Result<()> {
        self.discovery
            .connections()
            .find(proxy)
            .map_or(Ok(()), |connection| refusals(&connection))
    }

    /// The resource that a fragment names, as the proxy gets it, in protobuf's JSON.
    ///
    /// # Errors
    /// The proxy is not connected.
    pub fn resource(&self, proxy: &str, fragment: &Fragment) -> Result<Option<Value>> {
        let connection = self
            .discovery
            .connections()
            .find(proxy)
            .context("the proxy is not connected")?;
        let session = connection.session.lock();
        let translated = session.translated();
        let named =
            |all: &[xds::server::Outgoing]| all.iter().find(|one| *one.name == *fragment.name).cloned();
        let found = match fragment.resource_type {
            ResourceType::Listener => named(&translated.listeners),
            ResourceType::Cluster => named(&translated.clusters),
            ResourceType::Route => translated.routes.get(fragment.name.as_str()).cloned(),
            ResourceType::Endpoints => named(&session.endpoints()),
        };
        let print = |one: xds::server::Outgoing| Schema::get().print_any(&one.body, Style::Canonical);
        Ok(found.map(print).transpose()?)
    }

    /// Everything that is wrong with the objects, one line each, as `istioctl analyze` prints.
    pub fn diagnostics(&self, proxy: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(publication) = self.objects.current() {
            lines.extend(publication.snapshot.diagnostics().iter().map(ToString::to_string));
        }
        if let Some(connection) = self.discovery.connections().find(proxy) {
            let session = connection.session.lock();
            lines.extend(session.translated().diagnostics.iter().map(ToString::to_string));
        }
        lines
    }
}

fn caught_up(connection: &Connection, wanted: u64) -> bool {
    let session = connection.session.lock();
    let answered = session.stream().watches().all(|(_, watch)| !watch.is_pending());
    let listeners = session.stream().watch(type_url::LISTENER).is_some();
    session.publication().sequence >= wanted && listeners && answered
}

fn refusals(connection: &Connection) -> Result<()> {
    let session = connection.session.lock();
    for type_url in TYPES {
        let nack = session.stream().watch(type_url).and_then(|watch| watch.nack());
        if let Some(nack) = nack {
            bail!("the data plane refused {type_url}: {}", nack.reason);
        }
    }
    Ok(())
}
