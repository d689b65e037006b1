//! CONNECT that ends here (`RouteAction.UpgradeConfig.connect_config`): what the client sends through its tunnel goes to a
//! host of the route's cluster as it is, and the client is told that the tunnel is there once the host is connected.

use std::rc::Rc;

use proxy_core::ConnectionInfo;
use proxy_core::proxy_protocol::{self, Endpoints};
use proxy_http::BodyFraming;
use proxy_router::Terminate;
use proxy_upstream::proxy_protocol::Announcement;
use proxy_upstream::{
    ConnectError, ConnectionPermit, Dialer, HandshakeOptions, Host, PoolKey, Stream, connect_with,
};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::{Answer, TryEnd};
use super::downlink::Downlink;
use super::exchange::Exchange;
use super::failures::overflow;
use super::local::Heads;
use super::routing::Routed;
use super::uplink::Uplink;
use super::upstream::{CheckoutError, UpstreamConnection};

impl<D: Downlink> ActiveStream<D> {
    /// Connects to the host, and makes the answer that opens the tunnel.
    pub(crate) async fn connect_tunnel(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        host: &Rc<Host>,
        terminate: Terminate,
    ) -> TryEnd {
        let Ok(permit) = ConnectionPermit::take(&routed.cluster, host, routed.priority, PoolKey::tcp())
        else {
            return overflow(exchange);
        };
        let dialer = self.worker.dialer();
        let downstream = Rc::clone(&exchange.info.connection);
        let connecting = Box::pin(async {
            let connected = dial(&permit, dialer.as_deref(), &downstream, terminate).await;
            connected.map_err(|error| CheckoutError::Connect(Rc::new(error)))
        });
        let stream = match self.wait_to_connect(exchange, routed, host, connecting).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        let now = Instant::now();
        let begun = routed
            .cluster
            .begin_request(host, routed.priority, now.into_std());
        let Ok(request) = begun else {
            return overflow(exchange);
        };
        let connection = Box::new(UpstreamConnection::new(stream, permit, &self.manager.local));
        let upstream = &mut exchange.info.upstream;
        upstream.local_address.clone_from(&connection.local_address);
        upstream.connection_id = Some(connection.id);
        upstream.tls.clone_from(&connection.tls);
        exchange.has_waited = true;
        exchange.info.timing.first_upstream_tx_byte = Some(now.saturating_duration_since(exchange.began));
        heads.response.clear();
        heads.response.set_status(200);
        self.note_response_head(heads, exchange, routed, host);
        TryEnd::Response(Answer {
            connection: Uplink::Http1(connection),
            request,
            framing: BodyFraming::None,
            upload_broken: false,
        })
    }
}

async fn dial(
    permit: &ConnectionPermit,
    dialer: Option<&dyn Dialer>,
    downstream: &ConnectionInfo,
    terminate: Terminate,
) -> Result<Stream, ConnectError> {
    let endpoints = downstream.endpoints();
    let options = HandshakeOptions {
        announcement: endpoints.map(|endpoints| Announcement { endpoints, tlvs: &[] }),
        ..HandshakeOptions::default()
    };
    let mut stream = connect_with(permit, dialer, options).await?;
    if let Some(version) = terminate.announces {
        stream.write_all(&header(version, endpoints)?).await?;
        stream.flush().await?;
    }
    Ok(stream)
}

/// What tells the host of the client (`connect_config.proxy_protocol_config`).
fn header(version: proxy_protocol::Version, endpoints: Option<Endpoints>) -> Result<Vec<u8>, ConnectError> {
    match version {
        proxy_protocol::Version::V1 => Ok(proxy_protocol::encode_v1(endpoints)),
        proxy_protocol::Version::V2 => {
            proxy_protocol::encode_v2(endpoints, std::iter::empty()).map_err(|_| ConnectError::TlvsTooLong)
        }
    }
}
