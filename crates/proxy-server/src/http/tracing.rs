//! The trace decision, which travels in `x-request-id` and `x-envoy-decorator-operation` even where no spans are
//! exported (`HttpConnectionManager.Tracing`). A provider, which would export spans, is refused.

use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use api_envoy::envoy::r#type::v3::Percent;
use proxy_core::ConfigResult;
use proxy_core::error::refuse_unsupported;
use proxy_http::{HeaderId, RequestHead};

use super::config::RequestIdOptions;
use super::request_id::{TraceReason, trace_reason, with_trace_reason};

/// Probabilities are kept in ten-thousandths, Envoy's resolution.
const WHOLE: u64 = 10_000;

/// Sampling, in ten-thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TracingConfig {
    client: u64,
    random: u64,
    overall: u64,
}

impl TracingConfig {
    pub(crate) fn compile(proto: &Tracing) -> ConfigResult<Self> {
        refuse_unsupported(&[("provider", proto.provider.is_some())])?;
        Ok(TracingConfig {
            client: parts(proto.client_sampling.as_ref()),
            random: parts(proto.random_sampling.as_ref()),
            overall: parts(proto.overall_sampling.as_ref()),
        })
    }

    /// Makes the trace decision of a request and writes it into its id; says whether it is traced.
    pub(crate) fn decide(&self, head: &mut RequestHead, options: RequestIdOptions, random: u64) -> bool {
        let Some(id) = head.headers.get(&HeaderId::XRequestId) else {
            return false;
        };
        let Some(before) = trace_reason(id) else {
            return false;
        };
        let mut reason = before;
        // An id that somebody has decided on already keeps its decision, unless one is forced.
        if before == TraceReason::NotTraced {
            // One random number serves all three draws: its digits in base ten thousand are independent enough.
            let draws = [
                random % WHOLE,
                random / WHOLE % WHOLE,
                random / (WHOLE * WHOLE) % WHOLE,
            ];
            if head.headers.contains(&HeaderId::XClientTraceId) && draws[0] < self.client {
                reason = TraceReason::ClientForced;
            } else if head.headers.contains(&HeaderId::XEnvoyForceTrace) {
                reason = TraceReason::ServiceForced;
            } else if options.use_for_trace_sampling && draws[1] < self.random {
                reason = TraceReason::Sampled;
            }
            if reason != TraceReason::NotTraced && draws[2] >= self.overall {
                reason = TraceReason::NotTraced;
            }
        }
        if reason != before
            && options.pack_trace_reason
            && let Some(id) = with_trace_reason(id, reason)
        {
            head.headers.set(&HeaderId::XRequestId, &id);
        }
        reason != TraceReason::NotTraced
    }
}

/// A percentage in ten-thousandths; absent is all.
fn parts(percent: Option<&Percent>) -> u64 {
    percent.map_or(WHOLE, |percent| (percent.value.clamp(0.0, 100.0) * 100.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: RequestIdOptions = RequestIdOptions {
        generate: true,
        preserve_external: false,
        always_in_response: false,
        pack_trace_reason: true,
        use_for_trace_sampling: true,
    };
    const ALWAYS: TracingConfig = TracingConfig {
        client: WHOLE,
        random: WHOLE,
        overall: WHOLE,
    };

    fn digit(config: TracingConfig, id: &str, field: Option<HeaderId>, random: u64) -> char {
        let mut head = RequestHead::with("GET", "http", "a", "/");
        head.headers.set(&HeaderId::XRequestId, id.as_bytes());
        if let Some(field) = field {
            head.headers.set(&field, b"1");
        }
        config.decide(&mut head, OPTIONS, random);
        char::from(head.headers.get(&HeaderId::XRequestId).expect("an id")[14])
    }

    #[test]
    fn the_decision_goes_into_the_request_id() {
        const ID: &str = "d36a654e-3be8-40f0-b7a9-bfff5256b371";
        let never = TracingConfig { random: 0, ..ALWAYS };
        assert_eq!(digit(ALWAYS, ID, None, 0), '9');
        assert_eq!(digit(never, ID, None, 0), '4');
        assert_eq!(digit(never, ID, Some(HeaderId::XClientTraceId), 0), 'b');
        assert_eq!(digit(never, ID, Some(HeaderId::XEnvoyForceTrace), 0), 'a');
        assert_eq!(digit(TracingConfig { overall: 0, ..ALWAYS }, ID, None, 0), '4');
        assert_eq!(
            digit(never, "d36a654e-3be8-90f0-b7a9-bfff5256b371", None, 0),
            '9',
            "decided before"
        );
        assert_eq!(
            digit(ALWAYS, "my-own-id-is-not-a-uuid", None, 0),
            'o',
            "foreign ids are left alone"
        );
    }
}
