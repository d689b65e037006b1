//! When to ask for the next certificate. Pure: time and chance are arguments.

use std::time::{Duration, SystemTime};

use super::Settings;
use crate::limits::{CSR_RETRY_BASE, CSR_RETRY_MAX, MIN_RENEWAL_WAIT};

/// When a certificate that came at `obtained` and ends at `expires` is renewed: when [`Settings::grace`] of that time is
/// left, shifted at most [`Settings::jitter`] of it by `random` (0 to 1), and not at once whatever that says.
///
/// The time counts from when it came, as in Istio's agent, and not from its beginning, which authorities write some
/// minutes into the past so that clocks may differ.
#[must_use]
pub fn due(settings: &Settings, obtained: SystemTime, expires: SystemTime, random: f64) -> SystemTime {
    let life = expires.duration_since(obtained).unwrap_or_default();
    let shift = settings.jitter * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    let left = (settings.grace + shift).clamp(0.0, 1.0);
    obtained + life.mul_f64(1.0 - left).max(MIN_RENEWAL_WAIT)
}

/// How long to wait after this many failed attempts in a row: doubled each time up to a limit, and of that a part of
/// one half to the whole, at random, so that workloads do not come back together to an authority that has been away.
#[must_use]
pub fn retry(failures: u32, random: f64) -> Duration {
    let doubled = CSR_RETRY_BASE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled
        .min(CSR_RETRY_MAX)
        .mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use identity::ServiceAccount;

    use super::*;

    fn settings() -> Settings {
        Settings::new(ServiceAccount {
            namespace: "default".to_owned(),
            name: "reviews".to_owned(),
        })
    }

    fn after(life: Duration, random: f64) -> Duration {
        let obtained = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let due = due(&settings(), obtained, obtained + life, random);
        due.duration_since(obtained).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_a_hundredth_around() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(after(day, 0.5), day / 2);
        assert_eq!(after(day, 1.0).as_secs(), 24 * 3600 * 49 / 100);
        assert_eq!(after(day, 0.0).as_secs(), 24 * 3600 * 51 / 100);
        assert_eq!(after(Duration::from_secs(30), 0.5), Duration::from_secs(15));
    }

    #[test]
    fn what_is_about_to_expire_is_not_renewed_without_end() {
        assert_eq!(after(Duration::ZERO, 0.5), MIN_RENEWAL_WAIT);
        let obtained = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let due = due(&settings(), obtained, obtained - Duration::from_secs(60), 0.5);
        assert_eq!(due, obtained + MIN_RENEWAL_WAIT, "it had expired when it came");
    }

    #[test]
    fn waits_double_up_to_a_limit_and_differ_between_workloads() {
        assert_eq!(retry(1, 1.0), CSR_RETRY_BASE);
        assert_eq!(retry(2, 1.0), CSR_RETRY_BASE * 2);
        assert_eq!(retry(3, 1.0), CSR_RETRY_BASE * 4);
        assert_eq!(retry(1000, 1.0), CSR_RETRY_MAX);
        assert_eq!(retry(1000, 0.0), CSR_RETRY_MAX / 2);
    }
}
