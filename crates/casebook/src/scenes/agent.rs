//! The agent beside the proxy: the one of every workload, with a way to its authority that can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use agent::certificates::authority::{CertificateAuthority, Proof, TlsAuthority};
use agent::certificates::revocations::Revocations;
use agent::certificates::{self, Clock, Keeper, Settings, State, roots};
use agent::metrics::Metrics;
use agent::secrets::{self, Secrets};
use anyhow::{Context as _, Result};
use identity::ServiceAccount;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::data_plane::SECRETS_SOCKET;
use crate::identities::Issuer;
use crate::relay;

/// Where the agent finds its authority.
const AUTHORITY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15019);

/// Time between two looks at how things stand.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running agent.
pub(super) struct Agent {
    pub(super) state: watch::Receiver<State>,
    metrics: Arc<Metrics>,
    away: Arc<AtomicBool>,
}

impl Agent {
    /// Starts an agent that asks for certificates of this life. Its first proof is a certificate that the workload is
    /// given; from then on it shows what it holds.
    pub(super) async fn start(
        account: ServiceAccount,
        issuer: &Issuer,
        roots_file: &Path,
        scratch: &Path,
        lifetime: Duration,
    ) -> Result<Self> {
        let away = Arc::<AtomicBool>::default();
        let listener = TcpListener::bind(AUTHORITY)
            .await
            .context("the way to the authority")?;
        tokio::spawn(carry(listener, Arc::clone(&away)));
        let given = issuer.svid(&account.namespace, &account.name)?;
        let (chain, key) = (scratch.join("given.pem"), scratch.join("given.key"));
        std::fs::write(&chain, given.chain_pem())?;
        std::fs::write(&key, given.key().to_pem()?.as_bytes())?;
        let authority = CertificateAuthority::Tls(TlsAuthority {
            address: AUTHORITY.to_string(),
            server_name: relay::CONTROL_PLANE.to_owned(),
            roots: roots_file.to_owned(),
            proof: Proof::Certificate { chain, key },
        });
        let (roots, following) = roots::of_file(roots_file.to_owned());
        tokio::spawn(following);
        let settings = Settings {
            lifetime,
            ..Settings::new(account)
        };
        let clock: Clock = Arc::new(SystemTime::now);
        let metrics = Arc::<Metrics>::default();
        let (keeper, state) = Keeper::new(
            authority,
            settings,
            clock,
            Box::new(|| 0.5),
            Arc::clone(&metrics),
            roots.clone(),
        );
        tokio::spawn(keeper.run());
        let secrets = Secrets::new(Arc::clone(&metrics));
        tokio::spawn(certificates::serve(
            state.clone(),
            roots,
            Revocations::none(),
            secrets.clone(),
        ));
        let listener = secrets::bind(&scratch.join(SECRETS_SOCKET))?;
        tokio::spawn(secrets::serve(listener, secrets));
        Ok(Self { state, metrics, away })
    }

    /// Takes the authority away, or brings it back.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// What the agent counts, as its page shows it.
    pub(super) fn page(&self) -> String {
        self.metrics
            .print(&self.state.borrow().expiries(), SystemTime::now())
    }

    /// The serial number of the certificate in force; empty before the first.
    pub(super) fn serial(&self) -> String {
        let state = self.state.borrow();
        let held = state.held.as_ref();
        held.map(|held| held.svid.leaf().serial().to_owned())
            .unwrap_or_default()
    }

    /// Waits until things stand like this.
    pub(super) async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&State) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !holds(&self.state.borrow()) {
            anyhow::ensure!(Instant::now() < deadline, "{what}: not within {limit:?}");
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Carries connections to the authority, unless it is away.
async fn carry(listener: TcpListener, away: Arc<AtomicBool>) {
    while let Ok((mut agent, _)) = listener.accept().await {
        if away.load(Ordering::Relaxed) {
            continue;
        }
        tokio::spawn(async move {
            let mut authority = TcpStream::connect(relay::SECURE).await?;
            copy_bidirectional(&mut agent, &mut authority).await
        });
    }
}
