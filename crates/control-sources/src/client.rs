//! Clients of the Kubernetes API.

use std::path::Path;

use http::{Request, Response};
use tower::{BoxError, Service};

/// A client of one API server. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) kube::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig file does not read or does not make sense.
    #[error("kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// TLS or authentication cannot be set up from it.
    #[error("client for kubeconfig {path}")]
    Setup {
        /// The file.
        path: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client over HTTPS, from the current context of a kubeconfig file. No connection is made yet.
///
/// # Errors
/// The file does not read, or its certificates and tokens do not.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, ClientError> {
    let shown = || path.display().to_string();
    let file = kube::config::Kubeconfig::read_from(path).map_err(|source| ClientError::Kubeconfig {
        path: shown(),
        source: Box::new(source),
    })?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
        .await
        .map_err(|source| ClientError::Kubeconfig {
            path: shown(),
            source: Box::new(source),
        })?;
    // A watch is silent for as long as nothing changes; kube's own default of none is kept, but said here.
    config.read_timeout = None;
    let client = kube::Client::try_from(config).map_err(|source| ClientError::Setup {
        path: shown(),
        source: Box::new(source),
    })?;
    Ok(Client(client))
}

/// A client directly over the service of an API server in this process: no socket, no TLS, no token.
///
/// Must be called inside a tokio runtime.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<kube::client::Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client(kube::Client::new(service, "default"))
}
