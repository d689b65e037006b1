//! Injected delays and aborts (`http[].fault`).

use api_envoy::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier};
use api_envoy::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType};
use api_envoy::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use api_envoy::wkt;
use api_istio::networking::{FaultAbort as Abort, FaultDelay as Delay, HttpFaultInjection, Percent};

/// gRPC status names in numerical order (`google.rpc.Code`).
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The fault filter's configuration of a route.
pub(crate) fn build(fault: &HttpFaultInjection) -> HttpFault {
    HttpFault {
        delay: fault.delay.as_ref().and_then(delay),
        abort: fault.abort.as_ref().and_then(abort),
        ..HttpFault::default()
    }
}

fn delay(delay: &Delay) -> Option<FaultDelay> {
    let duration = delay.fixed_delay?;
    let percent = u32::try_from(delay.percent).unwrap_or(0);
    let percentage = delay
        .percentage
        .as_ref()
        .map_or_else(|| hundredths(percent), percentage);
    Some(FaultDelay {
        percentage: Some(percentage),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(wkt::duration(duration.0))),
    })
}

fn abort(abort: &Abort) -> Option<FaultAbort> {
    let error = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => ErrorType::HttpStatus(u32::try_from(status).ok()?),
        (None, Some(name)) => {
            let code = GRPC_STATUS.iter().position(|n| n.eq_ignore_ascii_case(name))?;
            ErrorType::GrpcStatus(u32::try_from(code).ok()?)
        }
        (None, None) => return None,
    };
    Some(FaultAbort {
        percentage: abort.percentage.as_ref().map(percentage),
        error_type: Some(error),
        ..FaultAbort::default()
    })
}

fn percentage(percent: &Percent) -> FractionalPercent {
    millionths(percent.value)
}

/// A percentage as parts of a million, Envoy's finest.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped to 0..=100 first.
pub(crate) fn millionths(percent: f64) -> FractionalPercent {
    let numerator = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32;
    FractionalPercent {
        numerator,
        denominator: DenominatorType::Million.into(),
    }
}

/// A whole percentage.
pub(crate) fn hundredths(percent: u32) -> FractionalPercent {
    FractionalPercent {
        numerator: percent,
        denominator: DenominatorType::Hundred.into(),
    }
}
