//! The mesh's identities, put together: the authority as it is kept in Secrets, the secure port where workloads get
//! certificates and configuration, and who may have what there.
//!
//! - [`keeper`]: reads, makes, reloads and renews the authority.
//! - [`jwt_keys`]: the same for the keys that sign JWT-SVIDs.
//! - [`serving`]: the control plane's own certificate.
//! - [`connections`]: TLS connections, and what they prove.
//! - [`places`], [`first_bytes`]: how many there may be, and how long they may say nothing.
//! - [`proof`]: the proofs that need more than the connection, and whose configuration somebody may have.
//! - [`secret_reviews`]: whether an account may have Secrets, asked again and again while it holds some.
//!
//! Nothing of it is there before the world is complete: MeshConfig names the trust domain.

mod connections;
mod first_bytes;
mod issuer;
mod jwt_keys;
mod keeper;
mod places;
mod proof;
mod secret_reviews;
mod serving;
mod web;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use api_envoy::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use arc_swap::ArcSwap;
use control_ca::{
    Authenticator, Authority, Caller, CertificateService, Credentials, Inventory, IssuerKeys, JwtKeys,
    Lifetimes, Metrics, OidcTokens, PeerCertificates, RootRotation, Rules, SpireServices, SpireSettings,
    UnixPeer,
};
use control_snapshot::{Mesh, Proxy};
use control_sources::Client;
use control_sources::authority_config_maps::{self, Published, REVOCATIONS, ROOT_CERTIFICATES};
use diagnostics::{Code, Diagnostic, ResourceRef};
use identity::{ServiceAccount, SpiffeId, SubjectName, TrustDomain, TrustDomainError, TrustDomains};
use telemetry::logging::chain;
use tls::ServerContext;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use xds::grpc::server::{Streams, drain};

use crate::world::World;

pub use connections::SecurePeer;
pub use issuer::{Issuer, KeysSource};
pub(crate) use secret_reviews::{ProvenStream, SecretReviews};

/// Now.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How identities are given out.
#[derive(Clone)]
pub struct Settings {
    /// The namespace where the authority's Secrets are.
    pub root_namespace: String,
    /// What the control plane's own certificate says it is.
    pub names: Vec<SubjectName>,
    /// Accounts of node proxies, which may ask for the identities of pods of their node.
    pub trusted_node_accounts: BTreeSet<ServiceAccount>,
    /// Whose JWTs are worth an identity, beside the API server's.
    pub issuer: Option<Issuer>,
    /// Users of this host whose processes may have the identity of any workload that the mesh's objects name, when they
    /// come over the Unix socket.
    pub host_users: BTreeSet<u32>,
    /// Where the roots are also written, for processes of this host; a file that everybody may read.
    pub roots_file: Option<PathBuf>,
    /// Where the authority's revocation lists are also written; empty when there are none.
    pub revocations_file: Option<PathBuf>,
    /// When a self-signed root is renewed.
    pub rotation: RootRotation,
    /// Which part (0 to 1) of the interval passes before the root's age is looked at first, at random, so that replicas
    /// do not look together.
    pub jitter: f64,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
    /// Now.
    pub clock: Clock,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("identities::Settings")
            .field("root_namespace", &self.root_namespace)
            .finish_non_exhaustive()
    }
}

struct Inner {
    client: Client,
    world: Arc<World>,
    settings: Settings,
    /// The authority in force; nothing before there is one.
    authority: OnceLock<Arc<ArcSwap<Authority>>>,
    /// Tells of each new authority.
    renewed: watch::Sender<Option<Arc<Authority>>>,
    rules: OnceLock<Arc<ArcSwap<Rules>>>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    issuer_keys: Arc<ArcSwap<Option<IssuerKeys>>>,
    /// What signs JWT-SVIDs; nothing before there are keys.
    jwt_keys: Arc<ArcSwap<Option<JwtKeys>>>,
    inventory: Arc<dyn Inventory>,
    metrics: Arc<Metrics>,
}

/// Where identities are given out, and configuration to those that have one.
#[derive(Debug)]
pub struct SecureListeners {
    /// Over TLS.
    pub secure: TcpListener,
    /// To processes of this host, which the kernel vouches for.
    pub host: Option<UnixListener>,
}

/// Listens at `path` for processes of this host, those of this user only.
///
/// # Errors
/// `InvalidInput` when the path is longer than the 107 bytes that a Unix address holds, and what `bind` reports.
pub fn bind_host(path: &Path) -> std::io::Result<UnixListener> {
    xds::grpc::secrets::bind(path)
}

/// Everything about identities. Cheap to clone.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities")
    }
}

impl Identities {
    /// Nothing is read or written before [`Identities::serve`].
    #[must_use]
    pub fn new(client: Client, world: Arc<World>, settings: Settings) -> Self {
        let issuer_keys = Arc::new(ArcSwap::from_pointee(None));
        let issuer = settings.issuer.as_ref().map(|issuer| {
            let (name, keys) = (issuer.rules.issuer.clone(), Arc::clone(&issuer_keys));
            let tokens = OidcTokens::new(name, keys, Arc::clone(&settings.clock));
            Arc::new(tokens) as Arc<dyn Authenticator>
        });
        let authenticators = [Arc::new(PeerCertificates) as Arc<dyn Authenticator>]
            .into_iter()
            .chain(issuer)
            .chain([
                Arc::new(proof::TokenReviews::new(client.clone())) as Arc<dyn Authenticator>,
                Arc::new(UnixPeer),
            ]);
        Self(Arc::new(Inner {
            authenticators: authenticators.collect(),
            issuer_keys,
            jwt_keys: Arc::new(ArcSwap::from_pointee(None)),
            inventory: Arc::new(proof::Pods(Arc::clone(&world))),
            client,
            world,
            settings,
            authority: OnceLock::new(),
            renewed: watch::Sender::new(None),
            rules: OnceLock::new(),
            metrics: Arc::default(),
        }))
    }

    /// The authority in force, once there is one.
    #[must_use]
    pub fn authority(&self) -> Option<Arc<Authority>> {
        self.0.authority.get().map(|authority| authority.load_full())
    }

    /// `citadel_server_*` in Prometheus' text format; empty before there is an authority.
    #[must_use]
    pub fn print_metrics(&self) -> String {
        let now = (self.0.settings.clock)();
        self.authority()
            .map(|authority| self.0.metrics.print(&authority, now))
            .unwrap_or_default()
    }

    /// Keeps the authority, and serves certificates and these ADS streams, over TLS and to processes of this host, until
    /// `shutdown` resolves.
    ///
    /// # Errors
    /// A listener fails.
    pub async fn serve(
        &self,
        streams: impl Streams,
        listeners: SecureListeners,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let mut tasks = JoinSet::new();
        let (certificate, mut certificates) = watch::channel(None);
        tasks.spawn(self.clone().keep());
        if let Some(issuer) = &self.0.settings.issuer {
            let keys = Arc::clone(&self.0.issuer_keys);
            tasks.spawn(issuer::follow(issuer.clone(), keys));
        }
        self.publish_for_workloads(&mut tasks);
        tasks.spawn(serving::keep(
            self.authorities(),
            self.0.settings.names.clone(),
            Arc::clone(&self.0.settings.clock),
            certificate,
        ));
        let mut shutdown = std::pin::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            ready = ready(&mut certificates) => if !ready { return Ok(()) },
        }
        let (Some(service), Some(spire)) = (self.certificate_service(), self.spire_settings()) else {
            return Ok(());
        };
        tasks.spawn(jwt_keys::keep(self.clone()));
        let (svids, bundles) = SpireServices::servers(spire);
        let routes = xds::grpc::server::routes(streams)
            .add_service(service)
            .add_service(svids)
            .add_service(bundles);
        let server = || {
            xds::grpc::server::builder()
                .layer(tonic::service::InterceptorLayer::new(connections::tell_of_peer))
                .add_routes(routes.clone())
        };
        let stop = watch::Sender::new(false);
        let stopped = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await.is_ok();
        };
        let incoming = connections::incoming(listeners.secure, certificates, self.authorities());
        let secure = drain(stopped(stop.subscribe()), |ends| {
            server().serve_with_incoming_shutdown(incoming, ends)
        });
        let host = async {
            match listeners.host {
                Some(listener) => {
                    let incoming = UnixListenerStream::new(listener);
                    let serve = |ends| server().serve_with_incoming_shutdown(incoming, ends);
                    drain(stopped(stop.subscribe()), serve).await
                }
                None => Ok(()),
            }
        };
        let ended = async {
            shutdown.await;
            stop.send_replace(true);
        };
        let (secure, host, ()) = tokio::join!(secure, host, ended);
        secure.and(host)
    }

    /// Writes what workloads verify each other by to where they read it.
    fn publish_for_workloads(&self, tasks: &mut JoinSet<()>) {
        let Settings {
            roots_file,
            revocations_file,
            ..
        } = &self.0.settings;
        self.publish_one(tasks, REVOCATIONS, Authority::revocations_pem, revocations_file);
        self.publish_one(tasks, ROOT_CERTIFICATES, Authority::roots_pem, roots_file);
    }

    fn publish_one(
        &self,
        tasks: &mut JoinSet<()>,
        config_map: Published,
        print: fn(&Authority) -> String,
        file: &Option<PathBuf>,
    ) {
        let (text, written) = watch::channel(None);
        let client = self.0.client.clone();
        tasks.spawn(authority_config_maps::keep(client, config_map, written));
        tasks.spawn(publish(self.authorities(), print, text, file.clone()));
    }

    /// Tells of each new authority, and first of the one that is in force already.
    fn authorities(&self) -> watch::Receiver<Option<Arc<Authority>>> {
        let mut authorities = self.0.renewed.subscribe();
        authorities.mark_changed();
        authorities
    }

    /// Follows the world and the Secrets, for ever.
    async fn keep(self) {
        let mut publications = self.0.world.subscribe();
        let mut keeper = None;
        loop {
            let publication = publications.borrow_and_update().clone();
            if let Some(publication) = publication
                && let Some(rules) = self.rules(publication.snapshot.mesh())
                && keeper.is_none()
            {
                let domain = rules.trust_domains.own().clone();
                // Dropped with this task.
                let mut task = JoinSet::new();
                task.spawn(keeper::Keeper::new(self.clone(), domain).run());
                keeper = Some(task);
            }
            if publications.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes over who may have what from MeshConfig. What cannot be read is a diagnostic, and what was stays.
    fn rules(&self, mesh: &Mesh) -> Option<Arc<Rules>> {
        let resource = ResourceRef::new("ConfigMap", self.0.settings.root_namespace.as_str(), "istio");
        let domains = match trust_domains(mesh) {
            Ok(domains) => domains,
            Err((field, error)) => {
                let diagnostic = Diagnostic::new(Code::SchemaValidationError, resource, error.to_string())
                    .at(format!("data.mesh.{field}"))
                    .hint("the trust domains that were in force stay in force");
                self.0.world.note("trust domain", Some(diagnostic));
                return self.0.rules.get().map(|rules| rules.load_full());
            }
        };
        self.0.world.note("trust domain", None);
        let rules = Arc::new(Rules {
            trust_domains: domains,
            trusted_node_accounts: self.0.settings.trusted_node_accounts.clone(),
            oidc: self.0.settings.issuer.as_ref().map(|issuer| issuer.rules.clone()),
            host_users: self.0.settings.host_users.clone(),
        });
        let current = self
            .0
            .rules
            .get_or_init(|| Arc::new(ArcSwap::from(Arc::clone(&rules))));
        current.store(Arc::clone(&rules));
        Some(rules)
    }

    /// Puts an authority in force.
    fn publish(&self, authority: Arc<Authority>) {
        let swap = self
            .0
            .authority
            .get_or_init(|| Arc::new(ArcSwap::from(Arc::clone(&authority))));
        swap.store(Arc::clone(&authority));
        self.0.renewed.send_replace(Some(authority));
    }

    /// Nothing before there is an authority.
    fn certificate_service(&self) -> Option<IstioCertificateServiceServer<CertificateService>> {
        Some(CertificateService::server(control_ca::Settings {
            authority: Arc::clone(self.0.authority.get()?),
            rules: Arc::clone(self.0.rules.get()?),
            inventory: Arc::clone(&self.0.inventory),
            authenticators: self.0.authenticators.clone(),
            lifetimes: self.0.settings.lifetimes,
            metrics: Arc::clone(&self.0.metrics),
            clock: Arc::clone(&self.0.settings.clock),
        }))
    }

    /// Nothing before there is an authority.
    fn spire_settings(&self) -> Option<SpireSettings> {
        Some(SpireSettings {
            authority: Arc::clone(self.0.authority.get()?),
            keys: Arc::clone(&self.0.jwt_keys),
            rules: Arc::clone(self.0.rules.get()?),
            inventory: Arc::clone(&self.0.inventory),
            authenticators: self.0.authenticators.clone(),
            clock: Arc::clone(&self.0.settings.clock),
        })
    }

    /// Who has opened a stream of the secure port.
    ///
    /// # Errors
    /// Whoever has not proven it, or belongs to another mesh, is not served.
    pub(crate) async fn identify(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Vec<SpiffeId>, Status> {
        let refused = || Status::unauthenticated("authentication failure");
        let credentials = Credentials { metadata, extensions };
        let caller: Caller = control_ca::authenticate(&self.0.authenticators, credentials)
            .await
            .map_err(|refusals| {
                tracing::warn!(reason = %refusals, "an ADS client is not authenticated");
                refused()
            })?;
        let rules = self.0.rules.get().ok_or_else(refused)?.load_full();
        control_ca::identities(&caller, &rules, self.0.inventory.as_ref()).map_err(|denied| {
            tracing::warn!(?caller, reason = %chain(&denied), "an ADS client has no identity of this mesh");
            refused()
        })
    }

    /// Whether a proxy may have the configuration that it asks for.
    ///
    /// # Errors
    /// None of its identities is the one that its node names.
    pub(crate) fn check(&self, identities: &[SpiffeId], proxy: &Proxy) -> Result<ServiceAccount, Status> {
        proof::matching(identities, proxy).map_err(|reason| {
            tracing::warn!(proxy = &*proxy.id, %reason, "an ADS client asks for another's configuration");
            Status::permission_denied(format!("authorization failed: {reason}"))
        })
    }
}

/// Waits for the first certificate; false when none will come. The guard of the watched value does not leave here.
async fn ready(certificates: &mut watch::Receiver<Option<Arc<ServerContext>>>) -> bool {
    certificates.wait_for(Option::is_some).await.is_ok()
}

type DomainError = (String, TrustDomainError);

fn trust_domains(mesh: &Mesh) -> Result<TrustDomains, DomainError> {
    let own = TrustDomain::from_mesh_setting(&mesh.trust_domain)
        .map_err(|error| ("trustDomain".to_owned(), error))?;
    let aliases = mesh.trust_domain_aliases.iter().enumerate().map(|(at, alias)| {
        TrustDomain::from_mesh_setting(alias).map_err(|error| (format!("trustDomainAliases[{at}]"), error))
    });
    Ok(TrustDomains::new(own, aliases.collect::<Result<Vec<_>, _>>()?))
}

/// What `print` makes of each new authority, and into a file where there is to be one.
async fn publish(
    mut authorities: watch::Receiver<Option<Arc<Authority>>>,
    print: fn(&Authority) -> String,
    text: watch::Sender<Option<String>>,
    file: Option<PathBuf>,
) {
    while authorities.changed().await.is_ok() {
        let current = authorities.borrow_and_update().clone();
        let Some(pem) = current.map(|authority| print(&authority)) else {
            continue;
        };
        if let Some(path) = &file
            && let Err(error) = write_whole(path, &pem)
        {
            tracing::error!(%error, path = %path.display(), "what the mesh is verified by cannot be written");
        }
        text.send_replace(Some(pem));
    }
}

/// A reader sees the old or the new file, never half of one.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("pem.next");
    std::fs::write(&next, text)?;
    std::fs::rename(next, path)
}
