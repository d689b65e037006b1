//! What a failed try is answered with: Envoy's statuses, bodies, flags and details.

use proxy_core::ResponseFlag;
use proxy_router::TryFailure;
use proxy_upstream::{ConnectError, PickError};

use super::attempt::TryEnd;
use super::exchange::Exchange;
use super::forward::Expiry;
use super::local_reply::LocalReply;

/// `DEADLINE_EXCEEDED`.
const GRPC_DEADLINE_EXCEEDED: u8 = 4;

/// What an open circuit breaker leads to. As in Envoy the request has no host then.
pub(crate) fn overflow(exchange: &mut Exchange<'_>) -> TryEnd {
    let upstream = &mut exchange.info.upstream;
    (upstream.host, upstream.host_name) = (None, None);
    let reply = reset_reply(503, "overflow", "overflow", "").flag(ResponseFlag::UpstreamOverflow);
    TryEnd::Failed(TryFailure::Overflow, reply)
}

/// What a connection that could not be made leads to.
pub(crate) fn connect_failure(exchange: &mut Exchange<'_>, error: &ConnectError) -> TryEnd {
    let reason = error.to_string().replace(' ', "_");
    let (words, name) = match error {
        ConnectError::Timeout => ("connection timeout", "connection_timeout"),
        ConnectError::TransportUnavailable(_) | ConnectError::TlvsTooLong | ConnectError::Bind { .. } => {
            ("local connection failure", "local_connection_failure")
        }
        ConnectError::Io(_) | ConnectError::Handshake(_) | ConnectError::SecretsNotReady => {
            ("remote connection failure", "remote_connection_failure")
        }
    };
    let reply = reset_reply(503, words, name, &reason).flag(ResponseFlag::UpstreamConnectionFailure);
    exchange.info.upstream.transport_failure_reason = reason.into();
    TryEnd::Failed(TryFailure::ConnectFailure, reply)
}

/// Envoy's body and details for a reset before the response.
pub(crate) fn reset_reply(status: u16, words: &str, name: &str, transport_failure: &str) -> LocalReply {
    let separator = if transport_failure.is_empty() { "" } else { "|" };
    let mut reply = LocalReply::new(status, "");
    reply.body = format!("upstream connect error or disconnect/reset before headers. reset reason: {words}")
        .into_bytes()
        .into();
    reply.details =
        format!("upstream_reset_before_response_started{{{name}{separator}{transport_failure}}}").into();
    reply
}

/// What a request leads to that HTTP/2 cannot say: the client's mistake, since HTTP/1 would have carried it.
pub(crate) fn unsayable() -> TryEnd {
    TryEnd::Over(Box::new(LocalReply::new(
        400,
        "http2.invalid_request_for_upstream",
    )))
}

/// What the lack of a host leads to.
pub(crate) fn no_host(error: PickError) -> TryEnd {
    let PickError::NoHealthyUpstream = error;
    let reply = LocalReply::new(503, "no_healthy_upstream")
        .body("no healthy upstream")
        .flag(ResponseFlag::NoHealthyUpstream);
    TryEnd::Over(Box::new(reply))
}

/// Says in the body that this was not the first try.
pub(crate) fn mention_retries(reply: &mut LocalReply) {
    let text = String::from_utf8_lossy(&reply.body);
    let text = text.replace(". reset reason", ". retried and the latest reset reason");
    reply.body = text.into_bytes().into();
}

/// What a deadline leads to before the response has begun. `alt_response`: the request asked for a 204 when its
/// upstream is too slow (`x-envoy-upstream-rq-timeout-alt-response`).
pub(crate) fn expired(expiry: Expiry, request_is_complete: bool, alt_response: bool) -> TryEnd {
    let timeout = |details| {
        let reply = if alt_response {
            LocalReply::new(204, details)
        } else {
            LocalReply::new(504, details).body("upstream request timeout")
        };
        reply.flag(ResponseFlag::UpstreamRequestTimeout)
    };
    let reply = match expiry {
        Expiry::Route => timeout("response_timeout"),
        Expiry::PerTry => {
            return TryEnd::Failed(TryFailure::PerTryTimeout, timeout("upstream_per_try_timeout"));
        }
        Expiry::PerTryIdle => {
            return TryEnd::Failed(
                TryFailure::PerTryTimeout,
                timeout("upstream_per_try_idle_timeout"),
            );
        }
        Expiry::MaxStream => {
            let mut reply = LocalReply::new(408, "max_duration_timeout")
                .body("downstream duration timeout")
                .flag(ResponseFlag::DurationTimeout)
                .close();
            reply.grpc_status = Some(GRPC_DEADLINE_EXCEEDED);
            reply
        }
        Expiry::Request => LocalReply::new(408, "request_overall_timeout")
            .body("request timeout")
            .close(),
        Expiry::Idle => LocalReply::new(if request_is_complete { 504 } else { 408 }, "stream_idle_timeout")
            .body("stream timeout")
            .flag(ResponseFlag::StreamIdleTimeout)
            .close(),
    };
    TryEnd::Over(Box::new(reply))
}
