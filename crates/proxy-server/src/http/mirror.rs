//! Copies of requests for other clusters (`request_mirror_policies`). Their answers are read and dropped; nothing
//! that happens to a copy touches the request.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use proxy_core::ConnectionInfo;
use proxy_core::stream_info::StreamBytes;
use proxy_http::{BodyFraming, HeaderId, Headers, RequestHead};
use proxy_upstream::{Cluster, HttpVersions, PickContext, RequestPriority};
use tokio::time::{Instant, timeout};

use super::active_stream::ActiveStream;
use super::attempt::upstream_persists;
use super::body::{BodySink, Piece, Pulled};
use super::buffer::BufferPool;
use super::downlink::Downlink;
use super::download::Download;
use super::exchange::Exchange;
use super::forward::Reception;
use super::limits;
use super::local::{Heads, HttpLocal};
use super::routing::Routed;
use super::uplink::Uplink;
use super::upstream::{ServerName, Wanted, checkout, versions};
use crate::local::Local;

impl<D: Downlink> ActiveStream<D> {
    /// Starts the copies of a request whose body is complete and was kept. Larger bodies are not mirrored, as Envoy
    /// gives up on them too.
    pub(crate) fn start_mirrors(&self, heads: &Heads, exchange: &Exchange<'_>, routed: &Routed<'_>) {
        let mirrors = routed.matched.mirrors();
        if mirrors.is_empty() || !exchange.upload.is_complete() || exchange.tunnel.is_some() {
            return;
        }
        let Some(body) = exchange.upload.recorded() else {
            return;
        };
        for mirror in mirrors {
            let Some(cluster) = self.worker.cluster(mirror.cluster.slot) else {
                continue;
            };
            if !mirror.applies(self.worker.random()) {
                continue;
            }
            let mut head = heads.request.clone();
            mirror.rewrite(&mut head);
            head.headers.remove(&HeaderId::TransferEncoding);
            if !body.is_empty() || head.headers.contains(&HeaderId::ContentLength) {
                head.headers.set(
                    &HeaderId::ContentLength,
                    itoa::Buffer::new().format(body.len()).as_bytes(),
                );
            }
            let (worker, local) = (self.worker.clone(), Rc::clone(&self.manager.local));
            let (body, downstream) = (body.to_vec(), Rc::clone(&exchange.info.connection));
            let version = exchange.info.protocol.unwrap_or_default();
            let server_name = ServerName::of_request(&cluster, &head);
            let asked = server_name.offering(self.manager.alpn.offered(&cluster, version));
            tokio::task::spawn_local(async move {
                let request = (head, body, versions(&cluster, version));
                let copy = send_copy((&worker, &local), &cluster, (&asked, &downstream), request);
                let _ = timeout(limits::MIRROR_TIMEOUT, copy).await;
            });
        }
    }
}

/// Sends a copy and reads its answer. Failures are counted by the cluster and go no further.
async fn send_copy(
    (worker, local): (&Local, &Rc<HttpLocal>),
    cluster: &Rc<Cluster>,
    (asked, downstream): (&ServerName, &ConnectionInfo),
    (head, body, versions): (RequestHead, Vec<u8>, HttpVersions),
) -> Option<()> {
    let now = Instant::now();
    let host = cluster
        .pick(&PickContext::default(), now.into_std(), &mut || worker.random())
        .ok()?;
    let server_name = asked.for_host(&host, downstream);
    let wanted = Wanted {
        priority: RequestPriority::Default,
        versions,
        server_name: &server_name,
    };
    let mut connection = checkout((worker, local), cluster, &host, wanted).await.ok()?;
    let _request = cluster
        .begin_request(&host, RequestPriority::Default, now.into_std())
        .ok()?;
    let pool = &local.buffers;
    connection
        .write_request(&head, body.is_empty(), false, pool)
        .ok()?;
    if !body.is_empty() {
        connection.data(Piece::Shared(body.into()), true, pool);
    }
    let (answered, persists) = read_answer(local, &mut connection, head.is_head()).await?;
    host.record_status(answered);
    if let Some(class) = cluster.config().stats.status_class(answered) {
        cluster.shard().inc(class);
    }
    connection.end_request(&mut StreamBytes::default());
    if persists {
        connection.give_back(Instant::now(), pool);
    }
    Some(())
}

/// Where the answer to a copy goes.
struct Nowhere;

impl BodySink for Nowhere {
    fn data(&mut self, _: Piece<'_>, _: bool, _: &BufferPool) {}

    fn finish(&mut self, _: Option<&Headers>, _: &BufferPool) {}
}

/// Writes what waits, and reads an answer to its end; its status, and whether the connection may be used again.
async fn read_answer(local: &HttpLocal, connection: &mut Uplink, to_head: bool) -> Option<(u16, bool)> {
    let pool = &local.buffers;
    let mut heads = Heads::default();
    let mut reception = Reception::unseen(&mut heads.response, to_head);
    let mut download: Option<Download> = None;
    poll_fn(|context| {
        if let Poll::Ready(Err(_)) = connection.poll_flush(context, pool) {
            return Poll::Ready(None);
        }
        if download.is_none() {
            match connection.poll_head(&mut reception, |_| {}, pool, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(())) => {}
            }
        }
        let download = download.get_or_insert_with(|| Download::new(reception.framing));
        while !download.is_done() {
            match connection.pull(download, &mut Nowhere, pool, context) {
                Ok(Pulled::Moved | Pulled::Read) => {}
                Ok(Pulled::Starved) => return Poll::Pending,
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(()))
    })
    .await?;
    let framing = reception.framing;
    Some((
        heads.response.status(),
        may_be_reused(&heads, framing, connection),
    ))
}

fn may_be_reused(heads: &Heads, framing: BodyFraming, connection: &Uplink) -> bool {
    let is_clean = match connection {
        Uplink::Http1(connection) => connection.is_clean(),
        Uplink::Http2(_) => true,
    };
    is_clean && framing != BodyFraming::UntilClose && upstream_persists(heads)
}
