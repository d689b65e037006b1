//! The node agent: SPIFFE's Workload API (`SpiffeWorkloadAPI`) on a Unix socket of this host, for all of its workloads.
//!
//! Who calls is the process that the kernel names ([`net::peer::Peer`]), and which workload that process is part of
//! says [`Workloads`]; nothing that a caller sends decides it. For each service account that is asked for, a
//! [`Keeper`] makes a key, which stays in memory, and keeps a certificate; tokens come from the
//! control plane, whose keys sign them ([`spire`]), and so do roots and the keys that verify tokens ([`bundle`]).
//!
//! | method | answer |
//! |---|---|
//! | `FetchX509SVID` | certificates, keys and roots; again at each renewal and when the roots change |
//! | `FetchX509Bundles` | the roots; again when they change |
//! | `FetchJWTSVID` | a token for the audiences that are named |
//! | `FetchJWTBundles` | the keys that verify tokens, a JSON Web Key Set; again when they change |
//! | `ValidateJWTSVID` | whose token it is, and what it says |
//!
//! Source: `standards/SPIFFE_Workload_API.md` and `SPIFFE_Workload_Endpoint.md` of SPIFFE.

mod authority;
mod bundle;
mod connections;
mod identities;
mod server;
mod spire;
mod token;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use identity::{KeyKind, ServiceAccount};
use net::peer::Peer;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::authority::CertificateAuthority;
use crate::certificates::roots::Roots;
use crate::certificates::{Clock, Keeper, revocations};
use crate::limits::{MAX_CONNECTION_STREAMS, MAX_WORKLOAD_CALL_BYTES};
use crate::metrics::Metrics;
use crate::status;
use bundle::Bundle;
use identities::Identities;
use server::WorkloadApi;
use token::Tokens;

/// The environment variable that tells a program where the socket is.
pub const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// The variable's value for a socket at `path`.
#[must_use]
pub fn socket_address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Which workloads the processes of this host are.
pub trait Workloads: Send + Sync + 'static {
    /// The service accounts of the workloads that the process is part of, the most important first; none when it is
    /// part of none.
    fn of(&self, peer: &Peer) -> Vec<ServiceAccount>;
}

/// Where identities come from, and what they are to be like.
#[derive(Clone)]
pub struct Settings {
    /// Who signs certificates and tokens.
    pub authority: CertificateAuthority,
    /// The kind of the workloads' keys.
    pub key: KeyKind,
    /// How long certificates are asked to be valid.
    pub lifetime: Duration,
    /// The file with what the mesh's authorities have revoked, in PEM; there need not be one.
    pub revocations: Option<PathBuf>,
    /// Where there is a page `/metrics` about the certificates, if anywhere.
    pub status: Option<SocketAddr>,
    /// Now.
    pub clock: Clock,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("workload_api::Settings")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// Who may connect to the socket. What they get there is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Processes of this user.
    User,
    /// Every process of this host that finds the path.
    Host,
}

/// What all calls share.
struct Inner {
    settings: Settings,
    workloads: Box<dyn Workloads>,
    identities: Identities,
    tokens: Tokens,
    bundle: watch::Receiver<Option<Arc<Bundle>>>,
    /// What was revoked, each list in DER; nothing as long as that is not known.
    revoked: watch::Receiver<Option<Vec<Bytes>>>,
    /// How often a certificate or the bundle has changed.
    generation: watch::Sender<u64>,
}

/// Listens at `path`. A socket that a killed process left there is replaced; anything else is not.
///
/// # Errors
/// `AlreadyExists` when there is something else at the path, `InvalidInput` when it is longer than the 107 bytes that a
/// Unix address holds, and what `bind` reports.
pub fn bind(path: &Path, reach: Reach) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let why = format!("{} exists and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        _ => {}
    }
    let listener = xds::grpc::secrets::bind(path)?;
    if reach == Reach::Host {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    }
    Ok(listener)
}

/// Serves the Workload API until dropped.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: UnixListener,
    settings: Settings,
    workloads: impl Workloads,
) -> Result<(), tonic::transport::Error> {
    let mut tasks = JoinSet::new();
    let (bundle, followed) = watch::channel(None);
    let (roots, followed_roots) = watch::channel(None);
    let generation = watch::Sender::new(0);
    let changed = generation.clone();
    let following = bundle::follow(settings.clone(), bundle, roots, move || {
        changed.send_modify(|generation| *generation += 1);
    });
    tasks.spawn(following);
    let none = settings.revocations.is_none().then(Vec::new);
    let (revocations, revoked) = watch::channel(none);
    if let Some(path) = settings.revocations.clone() {
        let (lists, following) = revocations::of_file(path);
        tasks.spawn(following);
        tasks.spawn(bundle::follow_revocations(lists, revocations, generation.clone()));
    }
    let inner = Arc::new(Inner {
        revoked,
        identities: Identities::new(settings.clone(), Roots::of(followed_roots), generation.clone()),
        tokens: Tokens::default(),
        settings,
        workloads: Box::new(workloads),
        bundle: followed,
        generation,
    });
    tasks.spawn(identities::forget_unused(Arc::clone(&inner)));
    if let Some(address) = inner.settings.status {
        let shown = Arc::clone(&inner);
        let page: status::Page = Arc::new(move || shown.identities.print((shown.settings.clock)()));
        tasks.spawn(status::serve(address, page));
    }
    let service =
        api_spiffe::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer::new(WorkloadApi(inner))
            .max_decoding_message_size(MAX_WORKLOAD_CALL_BYTES);
    xds::grpc::server::builder()
        .max_concurrent_streams(MAX_CONNECTION_STREAMS)
        .add_service(service)
        .serve_with_incoming(connections::incoming(listener))
        .await
}
