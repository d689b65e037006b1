//! Retries (`http[].retries`, `MeshConfig.defaultHttpRetryPolicy`).

use api_envoy::any;
use api_envoy::envoy::config::route::v3::{
    RetryPolicy,
    retry_policy::{RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority},
};
use api_envoy::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use api_envoy::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use api_envoy::wkt;
use api_istio::networking::HttpRetry;
use control_snapshot::Mesh;

use crate::limits;

/// What is retried where nothing says otherwise.
const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// How often, in addition to the first attempt.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Retries to the own application: only requests that it cannot have seen.
const INBOUND_RETRY_ON: &str = "reset-before-request";
/// The condition that makes `retriable_status_codes` count.
const STATUS_CODES: &str = "retriable-status-codes";
/// Attempts after which the priorities tried are looked at again.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// The policy of a route: its own, else the mesh's, else Istio's. None when retries are off.
///
/// With a hash policy the same host is wanted again, so hosts that were tried are not avoided. Other localities are
/// preferred by proxies that can (`elsewhere`); the others would refuse every route of the port.
pub(crate) fn of_route(
    own: Option<&HttpRetry>,
    mesh: &Mesh,
    hashed: bool,
    elsewhere: bool,
) -> Option<RetryPolicy> {
    let Some(settings) = own.or(mesh.default_http_retry_policy.as_ref()) else {
        return Some(default(hashed));
    };
    let attempts = u32::try_from(settings.attempts).ok().filter(|n| *n > 0)?;
    let mut policy = RetryPolicy {
        num_retries: Some(attempts),
        ..default(hashed)
    };
    if !settings.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&settings.retry_on);
    }
    policy.per_try_timeout = settings.per_try_timeout.map(|d| wkt::duration(d.0));
    if settings.retry_remote_localities == Some(true) && elsewhere {
        policy.retry_priority = Some(previous_priorities());
    }
    match settings.retry_ignore_previous_hosts {
        Some(true) => policy.retry_host_predicate = vec![previous_hosts()],
        Some(false) => policy.retry_host_predicate.clear(),
        None => {}
    }
    policy.retry_back_off = settings.backoff.map(|d| RetryBackOff {
        base_interval: Some(wkt::duration(d.0)),
        ..RetryBackOff::default()
    });
    Some(policy)
}

/// The policy towards the own application.
pub(crate) fn inbound() -> RetryPolicy {
    RetryPolicy {
        retry_on: INBOUND_RETRY_ON.to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        ..RetryPolicy::default()
    }
}

fn default(hashed: bool) -> RetryPolicy {
    RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        retry_host_predicate: if hashed {
            Vec::new()
        } else {
            vec![previous_hosts()]
        },
        host_selection_retry_max_attempts: limits::HOST_SELECTION_RETRY_MAX_ATTEMPTS,
        ..RetryPolicy::default()
    }
}

fn previous_hosts() -> RetryHostPredicate {
    let config = any::pack(&PreviousHostsPredicate {});
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
    }
}

fn previous_priorities() -> RetryPriority {
    let config = any::pack(&PreviousPrioritiesConfig {
        update_frequency: PRIORITY_UPDATE_FREQUENCY,
    });
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(config)),
    }
}

/// `retryOn` may hold status codes among the conditions; Envoy wants them apart.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut codes = Vec::new();
    let mut names = Vec::new();
    for part in retry_on.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.parse() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&STATUS_CODES) {
        names.push(STATUS_CODES);
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(attempts: i32, retry_on: &str) -> HttpRetry {
        HttpRetry {
            attempts,
            retry_on: retry_on.to_owned(),
            ..HttpRetry::default()
        }
    }

    #[test]
    fn no_attempts_mean_no_policy() {
        assert_eq!(
            of_route(Some(&retries(0, "")), &Mesh::default(), false, true),
            None
        );
    }

    #[test]
    fn status_codes_in_retry_on_are_told_apart() {
        let policy = of_route(
            Some(&retries(3, "5xx, 429,gateway-error")),
            &Mesh::default(),
            false,
            true,
        )
        .expect("policy");
        assert_eq!(policy.retry_on, "5xx,gateway-error,retriable-status-codes");
        assert_eq!(policy.retriable_status_codes, [429]);
        assert_eq!(policy.num_retries, Some(3));
    }

    #[test]
    fn other_localities_are_preferred_by_proxies_that_can_whoever_asks_for_it() {
        let remote = HttpRetry {
            retry_remote_localities: Some(true),
            ..retries(2, "")
        };
        let yaml = "defaultHttpRetryPolicy: { attempts: 2, retryRemoteLocalities: true }";
        let of_mesh = Mesh::from_yaml(yaml, "istio-system").expect("a MeshConfig");
        for (own, mesh) in [(Some(&remote), &Mesh::default()), (None, &of_mesh)] {
            let prefers = |elsewhere| {
                let policy = of_route(own, mesh, false, elsewhere).expect("policy");
                policy.retry_priority.is_some()
            };
            assert!(prefers(true) && !prefers(false));
        }
    }

    #[test]
    fn the_default_avoids_hosts_that_were_tried_unless_hashing_wants_the_same_one() {
        let plain = of_route(None, &Mesh::default(), false, true).expect("policy");
        let hashed = of_route(None, &Mesh::default(), true, true).expect("policy");
        assert_eq!(
            (
                plain.retry_host_predicate.len(),
                hashed.retry_host_predicate.len()
            ),
            (1, 0)
        );
    }
}
