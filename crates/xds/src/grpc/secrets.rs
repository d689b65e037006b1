//! The secret discovery service over gRPC (`envoy.service.secret.v3`), on a Unix socket: what an agent serves to its
//! proxy. Its streams are those of ADS under other names, so that the same [`Streams`] serve them.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Status, Streaming};

use super::server::{ResponseStream, Service, Streams, accept, builder};
use crate::limits;

/// Nobody but the owner may connect, since whoever can gets the keys.
const OWNER_ONLY: u32 = 0o600;

#[tonic::async_trait]
impl<S: Streams> SecretDiscoveryService for Service<S> {
    type DeltaSecretsStream = ResponseStream<ads::DeltaDiscoveryResponse>;
    type StreamSecretsStream = ResponseStream<ads::DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: tonic::Request<Streaming<ads::DeltaDiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::DeltaSecretsStream>, Status> {
        let (connection, responses) = accept(request);
        let streams = self.0.clone();
        tokio::spawn(async move { streams.delta(connection).await });
        Ok(tonic::Response::new(responses))
    }

    async fn stream_secrets(
        &self,
        request: tonic::Request<Streaming<ads::DiscoveryRequest>>,
    ) -> Result<tonic::Response<Self::StreamSecretsStream>, Status> {
        let (connection, responses) = accept(request);
        let streams = self.0.clone();
        tokio::spawn(async move { streams.sotw(connection).await });
        Ok(tonic::Response::new(responses))
    }

    /// Only REST clients ask once; Istio's agents refuse it as well.
    async fn fetch_secrets(
        &self,
        _: tonic::Request<ads::DiscoveryRequest>,
    ) -> Result<tonic::Response<ads::DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "secrets come by StreamSecrets and DeltaSecrets",
        ))
    }
}

/// Listens at `path`, for processes of this user only. What a killed process left there is replaced.
///
/// # Errors
/// `InvalidInput` when the path is longer than the 107 bytes that a Unix address holds, and what `bind` reports.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(OWNER_ONLY))?;
    Ok(listener)
}

/// Serves secrets until `shutdown` resolves and the open streams have ended.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: UnixListener,
    streams: impl Streams,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = SecretDiscoveryServiceServer::new(Service(streams))
        .max_decoding_message_size(limits::MAX_REQUEST_BYTES);
    builder()
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
}
