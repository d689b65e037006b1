//! The call of a discovery service: which method, and its two streams.

use std::future::Future;

use api_envoy::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use api_envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::target::Service;
use crate::client::{Request, Response};
use crate::{Variant, limits};

/// The two streams of a call.
pub(super) struct Wire {
    pub(super) requests: Sender,
    pub(super) responses: BoxStream<'static, Result<Response, tonic::Status>>,
}

/// Where requests go.
pub(super) enum Sender {
    StateOfTheWorld(mpsc::Sender<DiscoveryRequest>),
    Delta(mpsc::Sender<DeltaDiscoveryRequest>),
}

impl Sender {
    /// Sends the pending request when there is room, and does nothing when the stream is gone: its end is reported
    /// by the responses. Can be dropped at any time without losing the request.
    pub(super) async fn send(&self, pending: &mut Option<Request>) {
        match self {
            Self::StateOfTheWorld(wire) => {
                if let Ok(permit) = wire.reserve().await
                    && let Some(Request::StateOfTheWorld(request)) = pending.take()
                {
                    permit.send(request);
                }
            }
            Self::Delta(wire) => {
                if let Ok(permit) = wire.reserve().await
                    && let Some(Request::Delta(request)) = pending.take()
                {
                    permit.send(request);
                }
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::StateOfTheWorld(wire) => wire.is_closed(),
            Self::Delta(wire) => wire.is_closed(),
        }
    }
}

/// Prepares the call; it starts when its responses are first polled.
pub(super) fn call(channel: Channel, service: Service, variant: Variant) -> Wire {
    let mut aggregated = AggregatedDiscoveryServiceClient::new(channel.clone())
        .max_decoding_message_size(limits::MAX_RESPONSE_BYTES);
    let mut secrets =
        SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(limits::MAX_RESPONSE_BYTES);
    match variant {
        Variant::Delta => {
            let (sender, requests) = requests();
            let call = async move {
                match service {
                    Service::Aggregated => aggregated.delta_aggregated_resources(requests).await,
                    Service::Secrets => secrets.delta_secrets(requests).await,
                }
            };
            wire(Sender::Delta(sender), call, Response::Delta)
        }
        Variant::StateOfTheWorld => {
            let (sender, requests) = requests();
            let call = async move {
                match service {
                    Service::Aggregated => aggregated.stream_aggregated_resources(requests).await,
                    Service::Secrets => secrets.stream_secrets(requests).await,
                }
            };
            wire(Sender::StateOfTheWorld(sender), call, Response::StateOfTheWorld)
        }
    }
}

fn requests<T>() -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = mpsc::channel(limits::CLIENT_REQUEST_QUEUE);
    (sender, ReceiverStream::new(receiver))
}

fn wire<T: Send + 'static>(
    requests: Sender,
    call: impl Future<Output = Result<tonic::Response<Streaming<T>>, Status>> + Send + 'static,
    read: impl FnMut(T) -> Response + Send + 'static,
) -> Wire {
    let responses = call.map_ok(tonic::Response::into_inner).try_flatten_stream();
    Wire {
        requests,
        responses: responses.map_ok(read).boxed(),
    }
}
