//! A workload's identity at work: its certificate is kept, and served on a socket of its own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use identity::ServiceAccount;
use tls::{ClientContext, Current};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::authority::{context, shown_by};
use crate::certificates::revocations::{self, Revocations};
use crate::certificates::roots::{self, Roots};
use crate::certificates::{self, Clock, Keeper, Settings, State, mounted};
use crate::metrics::Metrics;
use crate::secrets::{self, Secrets};
use crate::spec::{CertificateSource, MeshIdentity, Spec};
use crate::status;

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Credentials {
    state: watch::Receiver<State>,
    /// Aborted with this value.
    tasks: JoinSet<()>,
}

impl Credentials {
    /// Asks for the certificate of `spec`'s service account, or takes it from files, and serves it at `socket`; what is
    /// counted is on a page at `address`. Must be called inside a tokio runtime.
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
        let account = ServiceAccount {
            namespace: spec.namespace.clone(),
            name: spec.service_account.clone(),
        };
        let state = match &mesh.source {
            CertificateSource::Authority(authority) => {
                let settings = Settings {
                    trust_domain: mesh.trust_domain.clone(),
                    key: mesh.key,
                    lifetime: mesh.lifetime,
                    ..Settings::new(account)
                };
                let (keeper, state) = Keeper::new(
                    authority.clone(),
                    settings,
                    Arc::clone(&clock),
                    Box::new(rand::random::<f64>),
                    Arc::clone(&metrics),
                    roots.clone(),
                );
                tasks.spawn(keeper.run());
                state
            }
            CertificateSource::Files(files) => {
                let (sender, state) = watch::channel(State::default());
                let (files, clock, metrics) = (files.clone(), Arc::clone(&clock), Arc::clone(&metrics));
                tasks.spawn(mounted::follow(files, account, clock, metrics, sender));
                state
            }
        };
        let secrets = Secrets::new(Arc::clone(&metrics));
        let page = status::of_workload(metrics, state.clone(), clock);
        let address = SocketAddr::new(address.into(), status::STATUS_PORT);
        tasks.spawn(status::serve(address, page));
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
        Ok(Self { state, tasks })
    }

    /// What the control plane of this name is spoken to with, as certificate and roots change. Nothing before the first.
    pub(crate) fn contexts(&mut self, server_name: &str) -> Current<ClientContext> {
        let contexts = Current::new(None);
        let (given, server_name) = (contexts.clone(), server_name.to_owned());
        let mut state = self.state.clone();
        self.tasks.spawn(async move {
            loop {
                let held = state.borrow_and_update().held.clone();
                if let Some(held) = held {
                    let made = shown_by(&held.svid).and_then(|certificate| {
                        context(&server_name, &held.roots, Some(certificate), SystemTime::now())
                    });
                    match made {
                        Ok(context) => given.replace(Arc::new(context)),
                        Err(error) => tracing::error!(%error, "the control plane cannot be spoken to with the new certificate"),
                    }
                }
                if state.changed().await.is_err() {
                    return;
                }
            }
        });
        contexts
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
