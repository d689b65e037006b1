//! Answers that gRPC-Web cannot carry as they are: the client is told of them as a status.

use std::future::poll_fn;
use std::task::Poll;

use proxy_http::{BodyFraming, Headers};
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::attempt::Answer;
use super::body::{BodySink, Piece, Pulled};
use super::buffer::BufferPool;
use super::downlink::Downlink;
use super::download::Download;
use super::exchange::{Exchange, Outcome};
use super::forward::PhaseEnd;
use super::grpc;
use super::limits;
use super::local::Heads;
use super::routing::Routed;

/// The beginning of a body, as a message.
#[derive(Default)]
struct Message(Vec<u8>);

impl BodySink for Message {
    fn data(&mut self, piece: Piece<'_>, _: bool, _: &BufferPool) {
        let room = limits::GRPC_MESSAGE_BYTES.saturating_sub(self.0.len());
        self.0.extend_from_slice(&piece[..room.min(piece.len())]);
    }

    fn finish(&mut self, _: Option<&Headers>, _: &BufferPool) {}
}

impl<D: Downlink> ActiveStream<D> {
    /// Reads an answer that is not gRPC, and sends its status and the beginning of its body as a head alone.
    pub(crate) async fn relay_as_status(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'_>,
        routed: &mut Routed<'_>,
        mut answer: Answer,
    ) -> Outcome {
        let mut message = Message::default();
        let end = self.read_message(routed, &mut answer, &mut message).await;
        let now = Instant::now();
        exchange.ended = Some(now);
        answer.connection.end_request(&mut exchange.info.bytes);
        if let PhaseEnd::Client(_) = end {
            return self.explain_end(heads, exchange, routed, end).await;
        }
        // An answer that breaks off is a failure of the host; what it has said is told all the same.
        let has_ended = end == PhaseEnd::Done;
        if answer.framing != BodyFraming::None {
            grpc::tell_as_status(&mut heads.response, &message.0, !D::MULTIPLEXED);
        }
        self.decide_closing(exchange);
        routed.cluster.count_status(heads.response.status());
        self.write_head(heads, exchange, false, true);
        let persists = super::attempt::upstream_persists(heads) && answer.framing != BodyFraming::UntilClose;
        if has_ended {
            self.give_back(exchange, answer, persists, now);
        }
        match self.flush().await {
            Ok(()) => Outcome::Complete,
            Err(_) => {
                self.life.client_is_gone();
                Outcome::Broken
            }
        }
    }

    async fn read_message(
        &mut self,
        routed: &Routed<'_>,
        answer: &mut Answer,
        message: &mut Message,
    ) -> PhaseEnd {
        let pool = &self.manager.local.buffers;
        let mut download = Download::new(answer.framing);
        poll_fn(|context| {
            while !download.is_done() {
                match answer.connection.pull(&mut download, message, pool, context) {
                    Ok(Pulled::Moved | Pulled::Read) => {}
                    Ok(Pulled::Starved) => {
                        if let Err(fault) = self.down.watch(pool, context) {
                            return Poll::Ready(PhaseEnd::Client(fault));
                        }
                        let deadlines = &routed.deadlines;
                        let expired = self.timer.poll(deadlines.next(), context);
                        return expired.map(|due| deadlines.phase_end(due));
                    }
                    Err(reset) => return Poll::Ready(PhaseEnd::Upstream(reset)),
                }
            }
            Poll::Ready(PhaseEnd::Done)
        })
        .await
    }
}
