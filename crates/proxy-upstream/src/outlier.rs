//! Outlier detection: hosts that fail repeatedly leave load balancing for a while
//! (`envoy.config.cluster.v3.OutlierDetection`).
//!
//! A state machine without clock or threads of its own. Counts of consecutive failures and the verdicts are shared by
//! all workers; a worker compares [`Detector::epoch`] to know that verdicts changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api_envoy::envoy::config::cluster::v3 as pb;
use api_envoy::wkt;
use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;
use proxy_core::ConfigResult;
use proxy_core::error::refuse_unsupported;

use crate::limits;

/// When a host is ejected, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierConfig {
    consecutive_5xx: Rule,
    consecutive_gateway_failure: Rule,
    consecutive_local_origin_failure: Rule,
    split_local_origin: bool,
    interval: Duration,
    base_ejection_time: Duration,
    max_ejection_time: Duration,
    max_ejection_percent: f64,
    always_eject_one_host: bool,
}

/// So many failures in a row eject a host with a chance of so many percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    threshold: u32,
    enforcing_percent: u32,
}

impl OutlierConfig {
    /// Reads `Cluster.outlier_detection`, with Envoy's defaults for what is absent.
    ///
    /// # Errors
    /// Detection by success rate or failure percentage, which is not implemented. The first is on by default in the
    /// API, so a cluster must switch it off (`enforcing_success_rate: 0`), as Istio's do.
    pub fn compile(proto: &pb::OutlierDetection) -> ConfigResult<Self> {
        let split = proto.split_external_local_origin_errors;
        let local_rate = split && proto.enforcing_local_origin_success_rate != Some(0);
        refuse_unsupported(&[
            ("enforcing_success_rate", proto.enforcing_success_rate != Some(0)),
            ("enforcing_local_origin_success_rate", local_rate),
            (
                "enforcing_failure_percentage",
                proto.enforcing_failure_percentage.unwrap_or(0) > 0,
            ),
            (
                "enforcing_failure_percentage_local_origin",
                proto.enforcing_failure_percentage_local_origin.unwrap_or(0) > 0,
            ),
            (
                "max_ejection_time_jitter",
                proto.max_ejection_time_jitter.is_some(),
            ),
            ("monitors", !proto.monitors.is_empty()),
            (
                "detect_degraded_hosts",
                proto.detect_degraded_hosts.unwrap_or_default(),
            ),
        ])?;
        let rule = |threshold: Option<u32>, enforcing: Option<u32>, by_default| Rule {
            threshold: threshold.unwrap_or(limits::DEFAULT_CONSECUTIVE_FAILURES),
            enforcing_percent: enforcing.unwrap_or(by_default),
        };
        let duration = |d: &Option<_>, default| d.as_ref().map_or(default, wkt::std_duration);
        let base_ejection_time = duration(&proto.base_ejection_time, limits::DEFAULT_BASE_EJECTION_TIME);
        Ok(Self {
            consecutive_5xx: rule(proto.consecutive_5xx, proto.enforcing_consecutive_5xx, 100),
            consecutive_gateway_failure: rule(
                proto.consecutive_gateway_failure,
                proto.enforcing_consecutive_gateway_failure,
                0,
            ),
            consecutive_local_origin_failure: rule(
                proto.consecutive_local_origin_failure,
                proto.enforcing_consecutive_local_origin_failure,
                100,
            ),
            split_local_origin: split,
            interval: duration(&proto.interval, limits::DEFAULT_OUTLIER_INTERVAL),
            base_ejection_time,
            max_ejection_time: duration(&proto.max_ejection_time, limits::DEFAULT_MAX_EJECTION_TIME)
                .max(base_ejection_time),
            max_ejection_percent: f64::from(
                proto
                    .max_ejection_percent
                    .unwrap_or(limits::DEFAULT_MAX_EJECTION_PERCENT),
            ),
            always_eject_one_host: proto.always_eject_one_host.unwrap_or_default(),
        })
    }
}

/// How a request to a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// No connection could be made.
    ConnectFailed,
    /// No answer in time.
    Timeout,
    /// The host ended the stream without an answer.
    Reset,
}

/// Failures in a row of one host, counted by all workers together.
#[derive(Debug, Default)]
pub struct HostMonitor {
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    ejected: AtomicBool,
}

impl HostMonitor {
    /// Whether the host is ejected at this moment.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        for count in [
            &self.consecutive_5xx,
            &self.consecutive_gateway_failure,
            &self.consecutive_local_origin_failure,
        ] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// Sets a count to zero without writing to a shared cache line that is zero already.
fn clear(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

/// Counts one more; whether that reaches the threshold. A count that reached it begins anew.
fn reaches(count: &AtomicU32, rule: Rule) -> bool {
    let reached = rule.threshold > 0 && count.fetch_add(1, Ordering::Relaxed) + 1 >= rule.threshold;
    if reached {
        count.store(0, Ordering::Relaxed);
    }
    reached
}

#[derive(Debug)]
struct Record {
    monitor: Arc<HostMonitor>,
    /// How many workers have the host. They follow updates one by one, so a host that leaves and comes back may be gone
    /// for some while others have it again.
    workers: usize,
    ejected_at: Option<Instant>,
    unejected_at: Option<Instant>,
    /// How many times the base ejection time a further ejection lasts.
    backoff: u32,
}

#[derive(Debug, Default)]
struct Records {
    by_key: HashMap<Box<str>, Record>,
    ejected: usize,
    last_check: Option<Instant>,
}

/// The outlier detector of one cluster, shared by all workers.
#[derive(Debug)]
pub struct Detector {
    config: OutlierConfig,
    records: Mutex<Records>,
    epoch: AtomicU64,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(config: OutlierConfig) -> Self {
        let records = Records {
            by_key: HashMap::new(),
            ..Records::default()
        };
        Self {
            config,
            records: Mutex::new(records),
            epoch: AtomicU64::new(0),
        }
    }

    /// Changes whenever a host is ejected or comes back.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The monitor of a host that a worker begins to use, the same for all workers.
    #[must_use]
    pub fn join(&self, key: &str) -> Arc<HostMonitor> {
        let mut records = self.records.lock();
        let record = records.by_key.entry(key.into()).or_insert_with(|| Record {
            monitor: Arc::default(),
            workers: 0,
            ejected_at: None,
            unejected_at: None,
            backoff: 0,
        });
        record.workers += 1;
        Arc::clone(&record.monitor)
    }

    /// The host has left a worker's cluster. When it has left all of them, it is forgotten.
    pub fn leave(&self, key: &str) {
        let mut records = self.records.lock();
        let Some(record) = records.by_key.get_mut(key) else {
            return;
        };
        record.workers = record.workers.saturating_sub(1);
        if record.workers == 0 && records.by_key.remove(key).is_some_and(|r| r.ejected_at.is_some()) {
            records.ejected -= 1;
        }
    }

    /// Counts how a request ended and ejects the host if that was one failure too many. `random` decides whether a
    /// rule that is enforced in part applies.
    pub fn record(
        &self,
        key: &str,
        monitor: &HostMonitor,
        outcome: Outcome,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) {
        let config = &self.config;
        let mut broken: Option<Rule> = None;
        let mut check = |count: &AtomicU32, rule: Rule| {
            if reaches(count, rule) && random() % 100 < u64::from(rule.enforcing_percent) {
                broken = Some(rule);
            }
        };
        let local_origin = matches!(outcome, Outcome::ConnectFailed | Outcome::Timeout);
        if config.split_local_origin && local_origin {
            check(
                &monitor.consecutive_local_origin_failure,
                config.consecutive_local_origin_failure,
            );
        } else {
            clear(&monitor.consecutive_local_origin_failure);
            let status = status_of(outcome);
            if status < 500 {
                clear(&monitor.consecutive_5xx);
                clear(&monitor.consecutive_gateway_failure);
            } else {
                if (502..=504).contains(&status) {
                    check(
                        &monitor.consecutive_gateway_failure,
                        config.consecutive_gateway_failure,
                    );
                } else {
                    clear(&monitor.consecutive_gateway_failure);
                }
                check(&monitor.consecutive_5xx, config.consecutive_5xx);
            }
        }
        if broken.is_some() {
            self.eject(key, now);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn eject(&self, key: &str, now: Instant) {
        let mut records = self.records.lock();
        let percent = 100.0 * (records.ejected + 1) as f64 / records.by_key.len().max(1) as f64;
        let first_of_all = self.config.always_eject_one_host && records.ejected == 0;
        if percent > self.config.max_ejection_percent && !first_of_all {
            return;
        }
        let Some(record) = records.by_key.get_mut(key).filter(|r| r.ejected_at.is_none()) else {
            return;
        };
        record.ejected_at = Some(now);
        record.backoff += 1;
        record.monitor.ejected.store(true, Ordering::Relaxed);
        records.ejected += 1;
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Lets hosts back whose time is over. To be called often; it acts once per `interval`.
    pub fn tick(&self, now: Instant) {
        let mut records = self.records.lock();
        let last = *records.last_check.get_or_insert(now);
        if now.saturating_duration_since(last) < self.config.interval {
            return;
        }
        records.last_check = Some(now);
        let mut returned = 0;
        for record in records.by_key.values_mut() {
            returned += usize::from(self.check(record, now));
        }
        if returned > 0 {
            records.ejected -= returned;
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether the host of this record comes back now. A host that behaves is ejected for a shorter time next time.
    fn check(&self, record: &mut Record, now: Instant) -> bool {
        let Some(ejected_at) = record.ejected_at else {
            let calm = |t: Instant| now.saturating_duration_since(t) >= self.config.interval;
            if record.unejected_at.is_none_or(calm) {
                record.backoff = record.backoff.saturating_sub(1);
            }
            return false;
        };
        let sentence =
            (self.config.base_ejection_time * record.backoff.max(1)).min(self.config.max_ejection_time);
        if now.saturating_duration_since(ejected_at) < sentence {
            return false;
        }
        record.ejected_at = None;
        record.unejected_at = Some(now);
        record.monitor.ejected.store(false, Ordering::Relaxed);
        record.monitor.reset();
        true
    }
}

/// The status that a failure counts as, unless local failures are counted apart.
fn status_of(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Status(status) => status,
        Outcome::ConnectFailed | Outcome::Reset => 503,
        Outcome::Timeout => 504,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector(change: impl FnOnce(&mut pb::OutlierDetection)) -> Detector {
        let mut proto = pb::OutlierDetection {
            enforcing_success_rate: Some(0),
            max_ejection_percent: Some(100),
            ..Default::default()
        };
        change(&mut proto);
        Detector::new(OutlierConfig::compile(&proto).unwrap())
    }

    fn fail(detector: &Detector, key: &str, outcome: Outcome, times: u32, now: Instant) -> bool {
        let monitor = detector.join(key);
        (0..times).for_each(|_| detector.record(key, &monitor, outcome, now, &mut || 0));
        monitor.is_ejected()
    }

    #[test]
    fn five_errors_in_a_row_eject_and_a_good_answer_between_does_not() {
        let detector = detector(|_| {});
        let now = Instant::now();
        assert!(!fail(&detector, "a", Outcome::Status(500), 4, now));
        assert!(!fail(&detector, "a", Outcome::Status(200), 1, now));
        assert!(!fail(&detector, "a", Outcome::Status(500), 4, now));
        assert!(fail(&detector, "a", Outcome::Status(500), 1, now));
        assert_eq!(detector.epoch(), 1);
    }

    #[test]
    fn no_more_hosts_are_ejected_than_the_percentage_allows() {
        let detector = detector(|p| p.max_ejection_percent = Some(50));
        let now = Instant::now();
        (0..4).for_each(|i| drop(detector.join(&i.to_string())));
        let ejected = (0..4)
            .filter(|i| fail(&detector, &i.to_string(), Outcome::Status(503), 5, now))
            .count();
        assert_eq!(ejected, 2);
    }

    #[test]
    fn gateway_failures_have_their_own_count() {
        let detector = detector(|p| {
            p.consecutive_5xx = Some(0);
            p.consecutive_gateway_failure = Some(2);
            p.enforcing_consecutive_gateway_failure = Some(100);
        });
        let now = Instant::now();
        assert!(!fail(&detector, "a", Outcome::Status(500), 20, now));
        assert!(!fail(&detector, "a", Outcome::Status(502), 1, now));
        assert!(
            !fail(&detector, "a", Outcome::Status(500), 1, now),
            "it starts anew after another status"
        );
        assert!(fail(&detector, "a", Outcome::Timeout, 2, now));
    }

    #[test]
    fn a_host_comes_back_after_its_time_and_stays_away_longer_the_next_time() {
        let detector = detector(|_| {});
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let monitor = detector.join("a");
        detector.tick(at(0));
        assert!(fail(&detector, "a", Outcome::Status(500), 5, at(0)));
        detector.tick(at(20));
        assert!(monitor.is_ejected());
        detector.tick(at(30));
        assert!(!monitor.is_ejected());
        assert!(fail(&detector, "a", Outcome::Status(500), 5, at(31)));
        detector.tick(at(70));
        assert!(monitor.is_ejected(), "60 seconds the second time");
        detector.tick(at(91));
        assert!(!monitor.is_ejected());
    }

    #[test]
    fn a_host_that_leaves_and_comes_back_is_one_for_all_workers_whoever_is_first() {
        let detector = detector(|_| {});
        let (_, first) = (detector.join("a"), detector.join("a"));
        // One worker has followed both updates before the other follows the first.
        detector.leave("a");
        let ahead = detector.join("a");
        detector.leave("a");
        let behind = detector.join("a");
        assert!(Arc::ptr_eq(&ahead, &behind));
        assert!(fail(&detector, "a", Outcome::Status(500), 5, Instant::now()));
        assert!(ahead.is_ejected() && behind.is_ejected() && first.is_ejected());
    }

    #[test]
    fn a_host_that_has_left_all_workers_is_forgotten() {
        let detector = detector(|_| {});
        let workers = [detector.join("a"), detector.join("a")];
        workers.iter().for_each(|_| detector.leave("a"));
        assert!(!Arc::ptr_eq(&detector.join("a"), &workers[0]));
    }

    #[test]
    fn local_failures_count_apart_when_they_are_split() {
        let detector = detector(|p| {
            p.split_external_local_origin_errors = true;
            p.enforcing_local_origin_success_rate = Some(0);
            p.consecutive_local_origin_failure = Some(2);
        });
        assert!(fail(&detector, "a", Outcome::ConnectFailed, 2, Instant::now()));
    }

    #[test]
    fn success_rate_detection_is_refused_until_it_is_switched_off() {
        let error = OutlierConfig::compile(&pb::OutlierDetection::default()).unwrap_err();
        assert_eq!(error.path(), "enforcing_success_rate");
    }
}
