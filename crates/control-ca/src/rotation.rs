//! When a self-signed root is renewed (Istio's root certificate rotator).

use std::time::{Duration, SystemTime};

use identity::Certificate;

use crate::limits::{ROOT_CHECK_INTERVAL, ROOT_GRACE_PERCENT, ROOT_LIFETIME};

/// How roots are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootRotation {
    /// How often to look.
    pub check_interval: Duration,
    /// Renew when this percentage of the lifetime is left; 100 and more renew at every look.
    pub grace_percent: u32,
    /// How long the new root is valid.
    pub lifetime: Duration,
}

/// What to do about a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and look again after this long.
    Keep {
        /// How long to wait.
        check_in: Duration,
    },
    /// Renew it now.
    Rotate(Why),
}

/// Why a root is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its grace period has begun.
    Grace {
        /// How long it is still valid.
        left: Duration,
    },
    /// It is too late: it has expired.
    Expired,
}

impl Default for RootRotation {
    fn default() -> Self {
        Self {
            check_interval: ROOT_CHECK_INTERVAL,
            grace_percent: ROOT_GRACE_PERCENT,
            lifetime: ROOT_LIFETIME,
        }
    }
}

impl RootRotation {
    /// When to look first after a start: `jitter` (0 to 1) of the interval, so that replicas that start together do
    /// not look, and renew, together. With no jitter, after a whole interval (`CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR`).
    pub fn first_check(&self, jitter: Option<f64>) -> Duration {
        match jitter {
            Some(part) => self.check_interval.mul_f64(part.clamp(0.0, 1.0)),
            None => self.check_interval,
        }
    }

    /// What to do about `root` at `now`.
    pub fn decide(&self, now: SystemTime, root: &Certificate) -> Decision {
        let Ok(left) = root.not_after().duration_since(now) else {
            return Decision::Rotate(Why::Expired);
        };
        let lifetime = root
            .not_after()
            .duration_since(root.not_before())
            .unwrap_or(Duration::ZERO);
        let grace = lifetime * self.grace_percent.min(100) / 100;
        if left <= grace {
            return Decision::Rotate(Why::Grace { left });
        }
        // The grace period may begin before the next look.
        Decision::Keep {
            check_in: self.check_interval.min(left - grace),
        }
    }
}
