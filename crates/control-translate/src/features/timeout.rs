//! Request timeouts (`http[].timeout`).

use api_envoy::envoy::config::route::v3::RouteAction;
use api_envoy::{Duration, wkt};

/// Sets the timeout; none means no timeout at all (Envoy's own default would be 15 s). A gRPC client's `grpc-timeout` is
/// honoured up to the same bound, or as it is where there is no bound.
#[allow(deprecated)] // Istio's proxies read `max_grpc_timeout`; its successor behaves differently for streams.
pub(crate) fn apply(action: &mut RouteAction, timeout: Option<api_istio::Duration>) {
    let timeout = timeout.map_or(Duration::default(), |d| wkt::duration(d.0));
    action.max_grpc_timeout = Some(timeout);
    action.timeout = Some(timeout);
}
