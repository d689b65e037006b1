//! The two variants of a stream, for servers that tell them apart as little as possible.

use super::{Content, Received, Refusal, Stream};
use crate::Variant;
use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::google::rpc::Status;

/// One variant of a stream.
pub trait Protocol: Send + Sync + 'static {
    /// What the client sends.
    type Request: Send + Sync;
    /// What the server sends.
    type Response: Send + Sync;
    /// Which variant it is.
    const VARIANT: Variant;

    /// The resource type of a request.
    fn type_url(request: &Self::Request) -> &str;
    /// The node of a request.
    fn node(request: &Self::Request) -> Option<&Node>;
    /// The error of a request.
    fn error(request: &Self::Request) -> Option<&Status>;
    /// The resource type of a response.
    fn response_type(response: &Self::Response) -> &str;
    /// Takes a request in.
    ///
    /// # Errors
    /// The request breaks the protocol.
    fn receive(stream: &mut Stream, request: &Self::Request) -> Result<Received, Refusal>;
    /// Makes a response, unless the client has refused the same content.
    fn respond(
        stream: &mut Stream,
        type_url: &str,
        version: &str,
        content: Content,
    ) -> Option<Self::Response>;
}

/// `DeltaAggregatedResources`, `DeltaSecrets`.
#[derive(Clone, Copy, Debug)]
pub struct Delta;

/// `StreamAggregatedResources`, `StreamSecrets`.
#[derive(Clone, Copy, Debug)]
pub struct StateOfTheWorld;

/// A variant whose messages have the fields that both have, under the same names.
macro_rules! variant {
    ($name:ident, $variant:expr, $request:ty, $response:ty, $receive:ident, $respond:ident) => {
        impl Protocol for $name {
            type Request = $request;
            type Response = $response;
            const VARIANT: Variant = $variant;

            fn type_url(request: &Self::Request) -> &str {
                &request.type_url
            }

            fn node(request: &Self::Request) -> Option<&Node> {
                request.node.as_ref()
            }

            fn error(request: &Self::Request) -> Option<&Status> {
                request.error_detail.as_ref()
            }

            fn response_type(response: &Self::Response) -> &str {
                &response.type_url
            }

            fn receive(stream: &mut Stream, request: &Self::Request) -> Result<Received, Refusal> {
                stream.$receive(request)
            }

            fn respond(
                stream: &mut Stream,
                type_url: &str,
                version: &str,
                content: Content,
            ) -> Option<Self::Response> {
                stream.$respond(type_url, version, content)
            }
        }
    };
}

variant!(
    Delta,
    Variant::Delta,
    ads::DeltaDiscoveryRequest,
    ads::DeltaDiscoveryResponse,
    receive_delta,
    respond_delta
);
variant!(
    StateOfTheWorld,
    Variant::StateOfTheWorld,
    ads::DiscoveryRequest,
    ads::DiscoveryResponse,
    receive_sotw,
    respond_sotw
);
