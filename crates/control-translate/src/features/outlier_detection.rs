//! Outlier detection (`trafficPolicy.outlierDetection`): endpoints that fail are left alone for a while.

use api_envoy::envoy::config::cluster::v3::OutlierDetection;
use api_envoy::wkt;
use api_istio::networking::OutlierDetection as Settings;

/// Envoy's outlier detection for these settings. Ejection by success rate, which Envoy does by default, is off: Istio
/// has no setting for it.
pub(crate) fn build(settings: &Settings) -> OutlierDetection {
    let enforced = |count: Option<u32>| count.map(|count| if count > 0 { 100 } else { 0 });
    let percent = |value: i32| u32::try_from(value).ok().filter(|v| *v > 0);
    let deprecated = u32::try_from(settings.consecutive_errors).ok().filter(|v| *v > 0);
    let gateway = settings.consecutive_gateway_errors.or(deprecated);
    let mut out = OutlierDetection {
        consecutive_5xx: settings.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforced(settings.consecutive_5xx_errors),
        consecutive_gateway_failure: gateway,
        enforcing_consecutive_gateway_failure: enforced(gateway),
        enforcing_success_rate: Some(0),
        interval: settings.interval.map(|d| wkt::duration(d.0)),
        base_ejection_time: settings.base_ejection_time.map(|d| wkt::duration(d.0)),
        max_ejection_percent: percent(settings.max_ejection_percent),
        ..OutlierDetection::default()
    };
    if settings.split_external_local_origin_errors {
        out.split_external_local_origin_errors = true;
        out.enforcing_local_origin_success_rate = Some(0);
        let local = settings
            .consecutive_local_origin_failures
            .filter(|count| *count > 0);
        out.consecutive_local_origin_failure = local;
        out.enforcing_consecutive_local_origin_failure = enforced(local);
    }
    out
}
