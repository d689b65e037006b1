//! What the admin interface asks of the running proxy.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::Any;
use api_envoy::envoy::admin::v3::CommandLineOptions;
use api_envoy::envoy::config::bootstrap::v3::Bootstrap;
use proxy_upstream::snapshot::ClusterSnapshot;
use telemetry::stats::Registry;

/// `envoy.admin.v3.ServerInfo.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Serving.
    Live,
    /// Draining, or told to fail health checks.
    Draining,
    /// Waiting for the first clusters.
    PreInitializing,
    /// Waiting for the first listeners and routes.
    Initializing,
}

impl ServerState {
    /// The name that `/ready` and `/server_info` print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// Where a resource came from and how far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the bootstrap.
    Static,
    /// From the control plane, in use.
    Active,
    /// From the control plane, waiting for what it needs.
    Warming,
    /// Taken away, its connections finishing.
    Draining,
    /// From the control plane, and never taken.
    Refused,
}

/// One resource of a configuration dump.
#[derive(Clone, Debug)]
pub struct DumpEntry {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub phase: Phase,
    /// The version of the response that brought it.
    pub version: String,
    /// The resource, absent when it was never taken.
    pub resource: Option<Any>,
    /// When it was taken, or refused.
    pub last_updated: SystemTime,
    /// The last update, if it was refused.
    pub error: Option<Refusal>,
}

/// An update that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The resource as it came.
    pub resource: Option<Any>,
    /// Its version.
    pub version: String,
    /// Why it was refused.
    pub details: String,
    /// When.
    pub at: SystemTime,
}

/// All configuration of the proxy.
#[derive(Clone, Debug, Default)]
pub struct ConfigSnapshot {
    /// Clusters.
    pub clusters: Vec<DumpEntry>,
    /// Listeners.
    pub listeners: Vec<DumpEntry>,
    /// Route configurations, those inside listeners as [`Phase::Static`].
    pub routes: Vec<DumpEntry>,
    /// Endpoint assignments.
    pub endpoints: Vec<DumpEntry>,
    /// Secrets.
    pub secrets: Vec<DumpEntry>,
}

/// What one TLS context holds.
#[derive(Clone, Debug)]
pub struct ContextCertificates {
    /// The first certificate that peers are verified by.
    pub authority: Option<ShownCertificate>,
    /// The context's own certificates.
    pub chain: Vec<ShownCertificate>,
}

/// A certificate, and where it came from.
#[derive(Clone, Debug)]
pub struct ShownCertificate {
    /// A file, or `<inline>`.
    pub path: String,
    /// The name of the secret that it came as, or Envoy's name for those without one.
    pub name: Arc<str>,
    /// The certificate.
    pub certificate: tls::Certificate,
}

/// A bound listener.
#[derive(Clone, Debug)]
pub struct BoundListener {
    /// Its name.
    pub name: String,
    /// The address, with the port that it got.
    pub address: String,
}

/// A cluster with the sums of all workers.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Its configuration, and its hosts.
    pub snapshot: ClusterSnapshot,
    /// Whether it came from the control plane.
    pub added_via_api: bool,
}

/// How `/drain_listeners` is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// Go through the drain period first.
    pub graceful: bool,
    /// Inbound listeners only.
    pub inbound_only: bool,
    /// Drain connections, but keep the listeners.
    pub skip_exit: bool,
}

/// The future that a source returns.
pub type Answer<T> = Pin<Box<dyn Future<Output = T>>>;

/// The running proxy, as the admin interface sees it. Lives on the main thread.
pub trait AdminSource: 'static {
    /// All statistics.
    fn stats(&self) -> Registry;
    /// The state that `/ready` and `/server_info` tell.
    fn state(&self) -> ServerState;
    /// The bootstrap, with the node as it was announced.
    fn bootstrap(&self) -> Bootstrap;
    /// When the process started.
    fn started_at(&self) -> SystemTime;
    /// How long it has run.
    fn uptime(&self) -> Duration;
    /// The command line.
    fn options(&self) -> CommandLineOptions;
    /// Everything that is configured.
    fn config(&self) -> ConfigSnapshot;
    /// The certificates of every TLS context.
    fn certificates(&self) -> Vec<ContextCertificates>;
    /// Bound listeners.
    fn listeners(&self) -> Vec<BoundListener>;
    /// Clusters and hosts, summed over the workers.
    fn clusters(&self) -> Answer<Vec<ClusterView>>;
    /// Starts to drain.
    fn drain_listeners(&self, request: DrainRequest);
    /// Ends the process.
    fn quit(&self);
    /// Makes `/ready` fail, or succeed again.
    fn fail_health_check(&self, fail: bool);
    /// Closes and opens the log files.
    fn reopen_logs(&self);
    /// Where the admin interface listens, once it does.
    fn admin_bound(&self, address: SocketAddr);
    /// Hears that an answer was made, which takes much memory for a moment if it is a dump.
    fn answered(&self);
}
