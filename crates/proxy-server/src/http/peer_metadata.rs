//! `istio.metadata_exchange` on requests: what proxies tell each other of themselves in headers.

use proxy_filters::peer_metadata::PeerMetadataConfig;
use proxy_http::{HeaderId, Headers};
use proxy_upstream::ClusterConfig;
use proxy_upstream::metadata_exchange::Told;

/// What a client has told of itself, and so is told in return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTold {
    id: bool,
    metadata: bool,
}

/// Takes what a client tells out of its request.
pub(crate) fn learn_of_client(config: PeerMetadataConfig, request: &mut Headers) -> ClientTold {
    if !config.learns_of_client {
        return ClientTold::default();
    }
    ClientTold {
        id: request.remove(&HeaderId::XEnvoyPeerMetadataId),
        metadata: request.remove(&HeaderId::XEnvoyPeerMetadata),
    }
}

/// Tells the hosts of a cluster.
pub(crate) fn tell_host(
    config: PeerMetadataConfig,
    cluster: &ClusterConfig,
    told: &Told,
    request: &mut Headers,
) {
    let tells = config.tells_host;
    if tells.is_some_and(|tells| !(tells.not_external && cluster.is_external)) {
        request.set(&HeaderId::XEnvoyPeerMetadataId, told.id.as_bytes());
        request.set(&HeaderId::XEnvoyPeerMetadata, told.metadata.as_bytes());
    }
}

/// Takes what a host tells out of its answer, and tells the client.
pub(crate) fn answer(config: PeerMetadataConfig, client: ClientTold, told: &Told, answer: &mut Headers) {
    if config.learns_of_host {
        answer.remove(&HeaderId::XEnvoyPeerMetadataId);
        answer.remove(&HeaderId::XEnvoyPeerMetadata);
    }
    if config.tells_client && client.id {
        answer.set(&HeaderId::XEnvoyPeerMetadataId, told.id.as_bytes());
    }
    if config.tells_client && client.metadata {
        answer.set(&HeaderId::XEnvoyPeerMetadata, told.metadata.as_bytes());
    }
}
