//! Copies of requests for other clusters (`request_mirror_policies`). Their answers are read and dropped; nothing
//! that happens to a copy touches the request.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use proxy_core::ConnectionInfo;
use proxy_core::stream_info::StreamBytes;
use proxy_http::{
    BodyDecoder, HeadLimits, HeaderId, RequestHead, ResponseHead, response_framing, write_request_head,
};
use proxy_upstream::{Cluster, PickContext, RequestPriority};
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::exchange::Exchange;
use super::limits;
use super::local::{Heads, HttpLocal};
use super::routing::Routed;
use super::transport::Transport;
use super::upstream::{ServerName, UpstreamConnection, checkout};
use crate::local::Local;

impl<S: Transport> Connection<S> {
    /// Starts the copies of a request whose body is complete and was kept. Larger bodies are not mirrored, as Envoy
    /// gives up on them too.
    pub(crate) fn start_mirrors(&self, heads: &Heads, exchange: &Exchange<'_>, routed: &Routed<'_>) {
        let mirrors = routed.matched.mirrors();
        if mirrors.is_empty() || !exchange.upload.is_complete() || exchange.is_upgrade {
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
            tokio::task::spawn_local(async move {
                let copy = send_copy((&worker, &local), &cluster, &downstream, (head, body));
                let _ = timeout(limits::MIRROR_TIMEOUT, copy).await;
            });
        }
    }
}

/// Sends a copy and reads its answer. Failures are counted by the cluster and go no further.
async fn send_copy(
    (worker, local): (&Local, &HttpLocal),
    cluster: &Rc<Cluster>,
    downstream: &ConnectionInfo,
    (head, body): (RequestHead, Vec<u8>),
) -> Option<()> {
    let now = Instant::now();
    let host = cluster
        .pick(&PickContext::default(), now.into_std(), &mut || worker.random())
        .ok()?;
    let server_name = ServerName::of_request(cluster, &head).for_host(&host, downstream);
    let mut connection = checkout(
        (worker, local),
        cluster,
        &host,
        RequestPriority::Default,
        &server_name,
    )
    .await
    .ok()?;
    let _request = cluster.begin_request(&host, RequestPriority::Default).ok()?;
    connection.begin_request();
    let pool = &local.buffers;
    let out = connection.write.bytes(pool);
    write_request_head(out, &head);
    out.extend_from_slice(&body);
    let answered = read_answer(local, &mut connection, head.is_head()).await?;
    host.record_status(answered);
    if let Some(class) = cluster.config().stats.status_class(answered) {
        cluster.shard().inc(class);
    }
    connection.end_request(&mut StreamBytes::default());
    connection.give_back(Instant::now(), pool);
    Some(())
}

/// Writes what waits, and reads an answer to its end; its status, when it came whole and the connection persists.
async fn read_answer(local: &HttpLocal, connection: &mut UpstreamConnection, to_head: bool) -> Option<u16> {
    let pool = &local.buffers;
    let mut head = ResponseHead::new();
    let mut body: Option<BodyDecoder> = None;
    poll_fn(|context| {
        if let Poll::Ready(Err(_)) =
            connection
                .write
                .poll_flush(&mut connection.stream, context, pool, &mut connection.sent)
        {
            return Poll::Ready(None);
        }
        loop {
            let consumed = match &mut body {
                None => {
                    let Ok(parsed) = connection.parser.response(connection.read.unread(), &mut head) else {
                        return Poll::Ready(None);
                    };
                    if parsed.complete && head.status() >= 200 {
                        let Ok(framing) = response_framing(&head, to_head) else {
                            return Poll::Ready(None);
                        };
                        body = Some(BodyDecoder::new(framing, HeadLimits::default()));
                    }
                    parsed.consumed
                }
                Some(decoder) => {
                    let Ok(step) = decoder.decode(connection.read.unread()) else {
                        return Poll::Ready(None);
                    };
                    if step.end {
                        connection.read.consume(step.consumed);
                        let closes = proxy_http::connection_lists(&head.headers, b"close");
                        return Poll::Ready((!closes && connection.read.is_empty()).then(|| head.status()));
                    }
                    step.consumed
                }
            };
            connection.read.consume(consumed);
            if consumed > 0 {
                continue;
            }
            match connection.read.poll_fill(&mut connection.stream, context, pool) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(count)) => connection.received += count as u64,
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
