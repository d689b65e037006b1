//! Which server a client speaks to: where it is, what is called there, and what secures the connection.

use std::path::PathBuf;

use tls::{ClientContext, Current};

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket (the agent's `XDS` socket in Istio).
    Unix(PathBuf),
}

/// The gRPC service that is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
    #[default]
    Aggregated,
    /// `envoy.service.secret.v3.SecretDiscoveryService`, for secrets alone.
    Secrets,
}

/// A server: where it is, what is called there, and what secures the connection.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub target: Target,
    /// What is called.
    pub service: Service,
    /// TLS, or plaintext.
    pub security: Option<Security>,
}

/// TLS towards a server.
#[derive(Clone, Debug)]
pub struct Security {
    /// What a handshake is done with; while there is nothing, connecting fails and is tried again.
    pub context: Current<ClientContext>,
    /// The name of the server's host, for contexts that ask for it (`auto_host_sni`).
    pub hostname: Option<String>,
}

impl From<Target> for Server {
    /// ADS in plaintext.
    fn from(target: Target) -> Self {
        Self {
            target,
            service: Service::Aggregated,
            security: None,
        }
    }
}
