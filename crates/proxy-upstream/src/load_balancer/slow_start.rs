//! Slow start (`slow_start_config`; Envoy, "Slow start mode"): a host that is new gets its share of the requests bit by bit.

use std::time::{Duration, Instant};

use api_envoy::envoy::config::cluster::v3::cluster;
use api_envoy::envoy::config::core::v3::RuntimeDouble;
use api_envoy::envoy::extensions::load_balancing_policies::common;
use api_envoy::envoy::r#type::v3::Percent;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

use crate::host::Host;
use crate::limits;

/// How the weight of a host grows after it has become healthy for the first time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long it grows.
    window: Duration,
    /// 1 is a straight line; the more, the sooner much of the weight is there.
    aggression: f64,
    /// The part of its weight that a host has at least.
    least: f64,
}

/// `slow_start_config`, of a cluster or of an extension.
pub(super) trait SlowStartProto {
    fn window(&self) -> Option<&prost_types::Duration>;
    fn aggression(&self) -> Option<&RuntimeDouble>;
    fn least(&self) -> Option<&Percent>;
}

macro_rules! slow_start_proto {
    ($message:ty) => {
        impl SlowStartProto for $message {
            fn window(&self) -> Option<&prost_types::Duration> {
                self.slow_start_window.as_ref()
            }

            fn aggression(&self) -> Option<&RuntimeDouble> {
                self.aggression.as_ref()
            }

            fn least(&self) -> Option<&Percent> {
                self.min_weight_percent.as_ref()
            }
        }
    };
}

slow_start_proto!(cluster::SlowStartConfig);
slow_start_proto!(common::v3::SlowStartConfig);

impl SlowStart {
    /// Reads the field; `None` also where the window is empty, which turns it off.
    ///
    /// # Errors
    /// A window below zero, or a percentage that is none.
    pub(super) fn compile(proto: Option<&impl SlowStartProto>) -> ConfigResult<Option<Self>> {
        let Some(proto) = proto else { return Ok(None) };
        let compile = || {
            let window = proto.window().map_or(Ok(Duration::ZERO), |window| {
                Duration::try_from(*window)
                    .map_err(|_| ConfigError::at("slow_start_window", "must not be negative"))
            })?;
            let percent = proto
                .least()
                .map_or(limits::DEFAULT_SLOW_START_PERCENT, |percent| percent.value);
            if !(0.0..=100.0).contains(&percent) {
                return Err(ConfigError::at("min_weight_percent", "must be between 0 and 100"));
            }
            // What would make no curve is a straight line, as in Envoy.
            let aggression = proto.aggression().map_or(1.0, |runtime| runtime.default_value);
            Ok(Self {
                window: Duration::from_millis(window.as_millis() as u64),
                aggression: if aggression > 0.0 { aggression } else { 1.0 },
                least: percent / 100.0,
            })
        };
        let this = compile().within("slow_start_config")?;
        Ok(Some(this).filter(|this| !this.window.is_zero()))
    }

    /// Whether a host is healthy for no longer than the window; its time begins when this is asked first.
    pub(super) fn is_new(&self, host: &Host, now: Instant) -> bool {
        let since = host.healthy_since(now);
        since.is_some_and(|since| now.saturating_duration_since(since) <= self.window)
    }

    /// The part of its weight that a host has now.
    pub(super) fn factor(&self, host: &Host, now: Instant) -> f64 {
        let Some(since) = host.healthy_since(now) else {
            return 1.0;
        };
        self.growth(now.saturating_duration_since(since))
    }

    fn growth(&self, healthy_for: Duration) -> f64 {
        if healthy_for >= self.window {
            return 1.0;
        }
        let millis = |duration: Duration| duration.as_millis() as f64;
        let time = millis(healthy_for).max(1.0) / millis(self.window);
        time.powf(1.0 / self.aggression).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_start(aggression: f64, percent: Option<f64>) -> SlowStart {
        let proto = cluster::SlowStartConfig {
            slow_start_window: Some(Duration::from_secs(100).try_into().unwrap()),
            aggression: Some(RuntimeDouble {
                default_value: aggression,
                ..Default::default()
            }),
            min_weight_percent: percent.map(|value| Percent { value }),
        };
        SlowStart::compile(Some(&proto)).unwrap().unwrap()
    }

    fn at(slow_start: &SlowStart, seconds: [u64; 4]) -> [f64; 4] {
        seconds.map(|seconds| slow_start.growth(Duration::from_secs(seconds)))
    }

    #[test]
    fn the_weight_grows_in_a_straight_line_or_a_curve() {
        assert_eq!(at(&slow_start(1.0, None), [0, 5, 50, 100]), [0.1, 0.1, 0.5, 1.0]);
        assert_eq!(at(&slow_start(2.0, None), [0, 25, 64, 100]), [0.1, 0.5, 0.8, 1.0]);
        assert_eq!(
            at(&slow_start(0.5, Some(1.0)), [0, 50, 75, 200]),
            [0.01, 0.25, 0.5625, 1.0]
        );
        assert_eq!(
            at(&slow_start(-1.0, Some(60.0)), [0, 50, 80, 100]),
            [0.6, 0.6, 0.8, 1.0]
        );
    }

    #[test]
    fn a_host_has_some_weight_at_once() {
        assert!(slow_start(1.0, Some(0.0)).growth(Duration::ZERO) > 0.0);
    }

    #[test]
    fn an_empty_window_is_none_and_what_is_out_of_bounds_is_refused() {
        let compile = |window: i64, percent: f64| {
            SlowStart::compile(Some(&common::v3::SlowStartConfig {
                slow_start_window: Some(prost_types::Duration {
                    seconds: window,
                    nanos: 0,
                }),
                min_weight_percent: Some(Percent { value: percent }),
                aggression: None,
            }))
            .map_err(|error| error.to_string())
        };
        assert_eq!(compile(0, 10.0), Ok(None));
        let refused = [
            (compile(-1, 10.0), "slow_start_config.slow_start_window"),
            (compile(1, 101.0), "slow_start_config.min_weight_percent"),
            (compile(1, f64::NAN), "slow_start_config.min_weight_percent"),
        ];
        for (outcome, field) in refused {
            let error = outcome.unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
