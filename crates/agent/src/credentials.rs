//! A workload's identity at work: its certificate is kept, and served on a socket of its own.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use identity::ServiceAccount;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::revocations::{self, Revocations};
use crate::certificates::roots::{self, Roots};
use crate::certificates::{self, Clock, Keeper, Settings, State};
use crate::metrics::Metrics;
use crate::secrets::{self, Secrets};
use crate::spec::{MeshIdentity, Spec};
use crate::status::{self, Pages};

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Credentials {
    state: watch::Receiver<State>,
    /// Aborted with this value.
    _tasks: JoinSet<()>,
}

impl Credentials {
    /// Asks for the certificate of `spec`'s service account, and serves it at `socket`; what is counted is on a page at
    /// `address`. Must be called inside a tokio runtime.
    pub(crate) fn start(
        mesh: &MeshIdentity,
        spec: &Spec,
        address: Ipv4Addr,
        socket: &Path,
    ) -> io::Result<Self> {
        let listener = secrets::bind(socket)?;
        let mut tasks = JoinSet::new();
        let metrics = Arc::<Metrics>::default();
        let roots = match mesh.roots.clone() {
            Some(path) => {
                let (roots, following) = roots::of_file(path);
                tasks.spawn(following);
                roots
            }
            None => Roots::none(),
        };
        let revocations = match mesh.revocations.clone() {
            Some(path) => {
                let (revocations, following) = revocations::of_file(path);
                tasks.spawn(following);
                revocations
            }
            None => Revocations::none(),
        };
        let clock: Clock = Arc::new(SystemTime::now);
        let settings = Settings {
            key: mesh.key,
            lifetime: mesh.lifetime,
            ..Settings::new(ServiceAccount {
                namespace: spec.namespace.clone(),
                name: spec.service_account.clone(),
            })
        };
        let (keeper, state) = Keeper::new(
            mesh.authority.clone(),
            settings,
            Arc::clone(&clock),
            Box::new(rand::random::<f64>),
            Arc::clone(&metrics),
            roots.clone(),
        );
        let secrets = Secrets::new(Arc::clone(&metrics));
        let pages = Pages {
            metrics,
            state: state.clone(),
            clock,
        };
        tasks.spawn(status::serve(address, pages));
        tasks.spawn(keeper.run());
        tasks.spawn(certificates::serve(
            state.clone(),
            roots,
            revocations,
            secrets.clone(),
        ));
        let name = spec.name.clone();
        tasks.spawn(async move {
            if let Err(error) = secrets::serve(listener, secrets).await {
                tracing::error!(workload = name, %error, "secrets are no longer served");
            }
        });
        Ok(Self { state, _tasks: tasks })
    }

    /// How things stand.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until they stand differently.
    pub(crate) async fn changed(&mut self) {
        // The keeper ends with this value only.
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
