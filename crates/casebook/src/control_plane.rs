//! The control plane under test, in this process: the embedded API server, the watches over it, the ADS server on its
//! usual port, and the registration of workloads. Objects take the way that they take for users: CRD and all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use api_envoy::json::{Schema, Style};
use api_envoy::type_url;
use control_apiserver::{ApiServer, Config, Handle};
use control_ca::{Authority, Lifetimes, RootRotation};
use control_discovery::connections::Connection;
use control_discovery::identities::SecureListeners;
use control_discovery::{Discovery, Identities, World as Objects, identities};
use control_snapshot::{Kind, Settings};
use control_sources::registration::{self, Registrar};
use control_sources::secrets::StoredSecret;
use control_sources::watch::{Change, watch_all};
use control_sources::write::{self, ObjectRef};
use control_sources::{Client, client};
use identity::SubjectName;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use crate::limits::READY_TIME;
use crate::page::fragment::{Fragment, ResourceType};
use crate::relay;

/// Where the ADS server listens inside the namespace: Istio's port for plain text.
pub const ADS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15010);

/// The namespace of objects that say none.
const DEFAULT_NAMESPACE: &str = "default";

/// The namespace whose configuration applies everywhere.
const ROOT_NAMESPACE: &str = "istio-system";

/// Time between two looks at whether a change has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Time for the world to publish what has come in: several times its debounce.
const SETTLE: Duration = Duration::from_millis(60);

/// Types whose refusal fails a page.
const TYPES: [&str; 4] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
];

/// The resource versions that have come in through the watches, by kind, namespace and name.
type Arrived = Arc<Mutex<BTreeMap<(Kind, String, String), String>>>;

/// How the control plane reaches the API server. It must not be able to tell the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the embedded API server's own control plane does.
    InProcess,
    /// As `lateen control-plane --kubeconfig` does.
    Https,
}

/// A running control plane; it ends with the runtime.
pub struct ControlPlane {
    api: Handle,
    client: Client,
    objects: Arc<Objects>,
    arrived: Arrived,
    discovery: Discovery,
    identities: Identities,
}

/// Where the mesh's roots are, for agents: beside the objects that are kept in `state`.
pub fn roots_file(state: &Path) -> PathBuf {
    state.with_extension("roots.pem")
}

/// How the mesh gives out identities, where a page wants any.
fn identity_settings(state: &Path) -> identities::Settings {
    identities::Settings {
        root_namespace: ROOT_NAMESPACE.to_owned(),
        names: vec![SubjectName::Dns(relay::CONTROL_PLANE.to_owned())],
        trusted_node_accounts: BTreeSet::new(),
        host_users: BTreeSet::new(),
        roots_file: Some(roots_file(state)),
        revocations_file: None,
        issuer: None,
        rotation: RootRotation::default(),
        jitter: 0.0,
        lifetimes: Lifetimes::default(),
        clock: Arc::new(SystemTime::now),
    }
}

impl ControlPlane {
    /// Starts one that keeps its objects under `state`, and reads and writes them this way. `identities` says whether the
    /// workloads of its mesh have any.
    ///
    /// # Errors
    /// The API server does not start or cannot be reached, or the ADS port is taken.
    pub async fn start(state: &Path, access: Access, identities: bool) -> Result<Self> {
        let api = ApiServer::start(Config::new(state))
            .await
            .context("start the embedded API server")?;
        let client = match access {
            Access::InProcess => client::in_process(api.service()),
            Access::Https => client::from_kubeconfig(api.kubeconfig_path()).await?,
        };
        let settings = Settings {
            identity: identities,
            ..Settings::default()
        };
        let objects = Objects::new(settings, "casebook");
        let (registrar, registering) = Registrar::start(client.clone(), registration::Settings::default());
        tokio::spawn(registering);
        let discovery = Discovery::new(Arc::clone(&objects), "casebook", Some(registrar));
        let identities = Identities::new(client.clone(), Arc::clone(&objects), identity_settings(state));
        discovery.set_identities(identities.clone());
        tokio::spawn(Arc::clone(&objects).run());
        let listener = TcpListener::bind(ADS)
            .await
            .with_context(|| format!("ADS server on {ADS}"))?;
        let server = discovery.clone();
        tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
        let arrived = Arrived::default();
        let this = Self {
            api,
            client: client.clone(),
            objects: Arc::clone(&objects),
            arrived: Arc::clone(&arrived),
            discovery,
            identities,
        };
        tokio::spawn(feed(client, objects, arrived));
        Ok(this)
    }

    /// Serves proven proxies as well, and carries the streams of the workload of this SPIFFE id to that port. The authority
    /// is the mesh's.
    ///
    /// # Errors
    /// The port is taken, or there is no authority in time.
    pub async fn admit(&self, workload: &str) -> Result<Arc<Authority>> {
        let authority = self.serve_secure().await?;
        relay::start(&authority, workload).await?;
        Ok(authority)
    }

    /// Serves certificates, and configuration to proxies that have proven who they are. The authority is the mesh's.
    ///
    /// # Errors
    /// The port is taken, or there is no authority in time.
    pub async fn serve_secure(&self) -> Result<Arc<Authority>> {
        let listener = TcpListener::bind(relay::SECURE)
            .await
            .with_context(|| format!("secure port {}", relay::SECURE))?;
        let listeners = SecureListeners {
            secure: listener,
            host: None,
        };
        let server = self.discovery.clone();
        tokio::spawn(async move { server.serve_secure(listeners, std::future::pending()).await });
        let deadline = Instant::now() + READY_TIME;
        loop {
            match self.identities.authority() {
                Some(authority) => return Ok(authority),
                None if Instant::now() > deadline => bail!("there is no certificate authority"),
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// The entries of a Secret.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let stored = write::get(&self.client, &ObjectRef::new(Kind::Secret, namespace, name)).await?;
        Ok(StoredSecret::of(&stored)?.data)
    }

    /// The authority in force.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.identities.authority()
    }

    /// Puts what a cluster holds by itself, such as pods with their status.
    ///
    /// # Errors
    /// The API server refuses an object.
    pub async fn put_cluster(&self, objects: &[Value]) -> Result<()> {
        let writer = self.api.store();
        for object in objects {
            let stored = writer.put(object).await;
            let stored =
                stored.map_err(|status| anyhow::anyhow!("{}: {status}", object["metadata"]["name"]))?;
            self.wait_for(&stored).await?;
        }
        Ok(())
    }

    /// Applies objects, as `kubectl apply` does; those without a namespace go to `default`.
    ///
    /// # Errors
    /// An object of a kind that the mesh does not read, or one that the API server refuses.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let object = placed(object)?;
            write::apply(&self.client, std::slice::from_ref(&object)).await?;
            let stored = write::get(&self.client, &ObjectRef::of(&object)?).await?;
            self.wait_for(&stored).await?;
        }
        Ok(())
    }

    /// Deletes objects that were applied, the last first, as `kubectl delete` does.
    ///
    /// # Errors
    /// The API server refuses, or the deletion does not come in through the watches.
    pub async fn delete(&self, objects: &[Value]) -> Result<()> {
        for object in objects.iter().rev() {
            let object = placed(object)?;
            write::delete(&self.client, &ObjectRef::of(&object)?).await?;
            self.wait_until(&object, None).await?;
        }
        Ok(())
    }

    /// Waits until a stored object has come in through the watches.
    async fn wait_for(&self, stored: &Value) -> Result<()> {
        let version = stored["metadata"]["resourceVersion"].as_str();
        self.wait_until(stored, Some(version.unwrap_or_default())).await
    }

    /// Waits until the watches hold this version of an object, or no longer hold it.
    async fn wait_until(&self, object: &Value, version: Option<&str>) -> Result<()> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (kind_of(object)?, text("namespace"), text("name"));
        let held = || {
            let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.get(&key).map(String::as_str) == version
        };
        let deadline = Instant::now() + READY_TIME;
        while !held() {
            if Instant::now() > deadline {
                bail!("{} {} has not come in through the watches", key.0.name(), key.2);
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until every kind has been listed and published.
    ///
    /// # Errors
    /// The watches do not get through in time.
    pub async fn ready(&self) -> Result<()> {
        let mut publications = self.objects.subscribe();
        timeout(READY_TIME, publications.wait_for(Option::is_some))
            .await
            .context("the watches have not listed every kind")??;
        Ok(())
    }

    /// Waits until what was applied is published and the proxy holds it.
    ///
    /// # Errors
    /// The proxy refuses a resource, or does not answer in time.
    pub async fn converge(&self, proxy: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        // The world publishes by itself after a moment of quiet; publishing here too would race with that.
        sleep(SETTLE).await;
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
                    Some(connection) => {
                        bail!("not in force within {limit:?}: {}", state(&connection, wanted))
                    }
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
        let Some(translated) = session.translated() else {
            return Ok(None);
        };
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
            let found = session.translated().map(|translated| &translated.diagnostics);
            lines.extend(found.into_iter().flatten().map(ToString::to_string));
        }
        lines
    }
}

fn kind_of(object: &Value) -> Result<Kind> {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    ObjectRef::of(object)?;
    let (version, name) = (text("/apiVersion"), text("/kind"));
    Kind::parse(version, name).with_context(|| format!("the mesh reads no {version} {name}"))
}

/// An object with its namespace, which is `default` unless it says another or its kind has none.
fn placed(object: &Value) -> Result<Value> {
    let cluster_wide = matches!(kind_of(object)?, Kind::Namespace | Kind::Node);
    let mut object = object.clone();
    if !cluster_wide && object.pointer("/metadata/namespace").is_none() {
        object["metadata"]["namespace"] = DEFAULT_NAMESPACE.into();
    }
    Ok(object)
}

/// Takes changes from the watches into the world, and notes that they arrived.
async fn feed(client: Client, objects: Arc<Objects>, arrived: Arrived) {
    let (mut changes, watches) = watch_all(&client, ROOT_NAMESPACE);
    while let Some(change) = changes.recv().await {
        let text =
            |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (key, version) = match &change {
            Change::Apply { kind, object } => (
                (*kind, text(object, "namespace"), text(object, "name")),
                Some(text(object, "resourceVersion")),
            ),
            Change::Delete {
                kind,
                namespace,
                name,
            } => ((*kind, namespace.clone(), name.clone()), None),
            Change::Synced { .. } => {
                objects.take(change);
                continue;
            }
        };
        objects.take(change);
        let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => drop(arrived.insert(key, version)),
            None => drop(arrived.remove(&key)),
        }
    }
    drop(watches);
}

fn caught_up(connection: &Connection, wanted: u64) -> bool {
    let session = connection.session.lock();
    let answered = session.stream().watches().all(|(_, watch)| !watch.is_pending());
    let listeners = session.stream().watch(type_url::LISTENER).is_some();
    session.publication().sequence >= wanted && listeners && answered
}

/// Where a proxy stands, for a message.
fn state(connection: &Connection, wanted: u64) -> String {
    let session = connection.session.lock();
    let watches = session.stream().watches().map(|(type_url, watch)| {
        let short = type_url.rsplit('.').next().unwrap_or(type_url);
        format!(
            "{short} sent {:?} answered {:?}",
            watch.nonce_sent(),
            watch.nonce_acked()
        )
    });
    let watches: Vec<String> = watches.collect();
    format!(
        "the session is at {} of {wanted}; {}",
        session.publication().sequence,
        watches.join(", ")
    )
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
