//! A cluster as a worker sees it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use proxy_core::Random;
use telemetry::stats::{Counter, Shard};

use crate::circuit_breaker::RequestPriority;
use crate::config::{ClusterConfig, Discovery, OriginalDstConfig};
use crate::endpoints::{Assignment, Health, HostSpec};
use crate::grpc_stats::GrpcCounters;
use crate::host::Host;
use crate::host_set::{Builder, PrioritySet};
use crate::limits;
use crate::load_balancer::PickInput;
use crate::original_dst::OriginalDst;
use crate::outlier::Outcome;

/// A cluster on one worker.
#[derive(Debug)]
pub struct Cluster {
    config: Arc<ClusterConfig>,
    name: Rc<str>,
    observability_name: Rc<str>,
    shard: Shard,
    endpoints: RefCell<Arc<Assignment>>,
    hosts: RefCell<HashMap<Box<str>, Rc<Host>>>,
    set: RefCell<PrioritySet>,
    original_dst: OriginalDst,
    outlier_epoch: Cell<u64>,
    /// Where load balancing policies begin.
    seeds: Random,
    reports_membership: bool,
    /// Counters of single status codes, made when a code first comes.
    codes: RefCell<Vec<(u16, Counter)>>,
    /// Counters of gRPC calls, by what their names begin with.
    grpc: RefCell<HashMap<Box<str>, Rc<GrpcCounters>>>,
}

/// What the choice of a host may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// Where the downstream connection was going, for `ORIGINAL_DST` clusters.
    pub original_destination: Option<SocketAddr>,
    /// The value of the header that [`Cluster::destination_header`] names.
    pub destination_header: Option<&'a [u8]>,
    /// The request's hash, for consistent hashing.
    pub hash: Option<u64>,
    /// Hosts that the retry policy does not want again (`previous_hosts`).
    pub previous_hosts: &'a [Rc<Host>],
    /// How many more times to pick when a host is not wanted (`host_selection_retry_max_attempts`).
    pub more_attempts: u32,
}

/// Why no host was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No host may be used: Envoy's "no healthy upstream", flag UH.
    #[error("no healthy upstream")]
    NoHealthyUpstream,
}

/// A circuit breaker is open: Envoy's flag UO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a circuit breaker is open")]
pub struct Overflow;

impl Cluster {
    pub(crate) fn new(
        config: Arc<ClusterConfig>,
        endpoints: Arc<Assignment>,
        shard: Shard,
        seed: u64,
        reports_membership: bool,
        now: Instant,
    ) -> Rc<Self> {
        let this = Rc::new(Self {
            name: Rc::from(&*config.name),
            observability_name: Rc::from(&*config.stat_name),
            config,
            shard,
            endpoints: RefCell::default(),
            hosts: RefCell::new(HashMap::new()),
            set: RefCell::default(),
            original_dst: OriginalDst::new(),
            outlier_epoch: Cell::new(0),
            seeds: Random::new(seed),
            reports_membership,
            codes: RefCell::default(),
            grpc: RefCell::default(),
        });
        this.update_endpoints(endpoints, now);
        this
    }

    /// The compiled configuration.
    #[must_use]
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Its name, to keep without allocating.
    #[must_use]
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// Its name in statistics, to keep without allocating.
    #[must_use]
    pub fn observability_name(&self) -> &Rc<str> {
        &self.observability_name
    }

    /// The configuration, to keep.
    #[must_use]
    pub fn shared_config(&self) -> &Arc<ClusterConfig> {
        &self.config
    }

    /// The cells in which this worker counts.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The endpoints at this moment.
    #[must_use]
    pub fn endpoints(&self) -> Arc<Assignment> {
        Arc::clone(&self.endpoints.borrow())
    }

    /// Takes over an endpoint set: hosts that stay keep their pools and counts, hosts that go are closed.
    pub(crate) fn update_endpoints(&self, endpoints: Arc<Assignment>, now: Instant) {
        let mut before = self.hosts.replace(HashMap::new());
        let mut after = HashMap::with_capacity(endpoints.hosts().size_hint().0);
        let mut added = 0_usize;
        for spec in endpoints.hosts() {
            let host = before.remove(&spec.key).unwrap_or_else(|| {
                added += 1;
                self.new_host(spec)
            });
            host.update(spec);
            if let Some(twice) = after.insert(spec.key.clone(), host) {
                self.let_go(&spec.key, &twice);
            }
        }
        self.hosts.replace(after);
        let set = self.set.take();
        let rebuilt = self.with_builder(now, |builder| set.rebuild(&endpoints, builder));
        self.set.replace(rebuilt);
        let changed = added > 0 || !before.is_empty();
        self.endpoints.replace(endpoints);
        self.report_membership(changed);
        for (key, host) in before {
            self.let_go(&key, &host);
        }
    }

    /// A host is used no more.
    fn let_go(&self, key: &str, host: &Host) {
        host.remove();
        if let Some(detector) = &self.config.outlier_detector {
            detector.leave(key);
        }
    }

    /// Sets the gauges of the hosts, on the worker that does so for all.
    fn report_membership(&self, changed: bool) {
        if !self.reports_membership {
            return;
        }
        let (stats, set) = (&self.config.stats, self.set.borrow());
        let count = |health| set.hosts().filter(|host| host.health() == health).count() as u64;
        self.shard
            .set_gauge(stats.membership_total, set.hosts().count() as u64);
        self.shard
            .set_gauge(stats.membership_healthy, count(Health::Healthy));
        self.shard
            .set_gauge(stats.membership_degraded, count(Health::Degraded));
        if changed {
            self.shard.inc(stats.membership_change);
        }
    }

    fn new_host(&self, spec: &Arc<HostSpec>) -> Rc<Host> {
        let monitor = self
            .config
            .outlier_detector
            .as_ref()
            .map(|detector| detector.join(&spec.key));
        Host::new(Arc::clone(spec), monitor)
    }

    fn with_builder<T>(&self, now: Instant, build: impl FnOnce(&mut Builder<'_>) -> T) -> T {
        let hosts = self.hosts.borrow();
        let mut host = |spec: &Arc<HostSpec>| match hosts.get(&spec.key) {
            Some(host) => Rc::clone(host),
            None => self.new_host(spec),
        };
        build(&mut Builder {
            lb: &self.config.lb,
            host: &mut host,
            seed: &mut || self.seeds.next(),
            now,
        })
    }

    /// Chooses a host.
    ///
    /// # Errors
    /// There is none that may be used.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Rc<Host>, PickError> {
        let picked = match &self.config.discovery {
            Discovery::OriginalDst(config) => self.pick_destination(config, context, now),
            _ => self.pick_balanced(context, now, random),
        };
        picked.ok_or_else(|| {
            self.shard.inc(self.config.stats.upstream_cx_none_healthy);
            PickError::NoHealthyUpstream
        })
    }

    fn pick_balanced(
        &self,
        context: &PickContext<'_>,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Rc<Host>> {
        self.follow_outlier_verdicts(now);
        let set = self.set.borrow();
        let mut attempt = 0;
        loop {
            let pick = set.pick(
                PickInput {
                    hash: context.hash,
                    attempt,
                    now,
                },
                random,
            );
            let wanted = |host| !context.previous_hosts.iter().any(|h| Rc::ptr_eq(h, host));
            if attempt >= context.more_attempts || pick.host.is_none_or(wanted) {
                if pick.panic {
                    self.shard.inc(self.config.stats.lb_healthy_panic);
                }
                return pick.host.cloned();
            }
            attempt += 1;
        }
    }

    fn pick_destination(
        &self,
        config: &OriginalDstConfig,
        context: &PickContext<'_>,
        now: Instant,
    ) -> Option<Rc<Host>> {
        let by_header = context.destination_header.filter(|_| config.header.is_some());
        let mut destination = match by_header {
            None => context.original_destination?,
            Some(value) => {
                let parsed = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                if parsed.is_none() {
                    self.shard.inc(self.config.stats.original_dst_host_invalid);
                }
                parsed?
            }
        };
        if let Some(port) = config.port_override {
            destination.set_port(port);
        }
        let transport = self.config.transport.default_transport();
        Some(self.original_dst.host(destination, transport, now))
    }

    /// The header that overrides the destination of an `ORIGINAL_DST` cluster, if it has one.
    #[must_use]
    pub fn destination_header(&self) -> Option<&str> {
        match &self.config.discovery {
            Discovery::OriginalDst(config) => config.header.as_deref(),
            _ => None,
        }
    }

    /// Counts how a request to `host` ended, for outlier detection. Does nothing where that is not configured.
    pub fn record_outcome(
        &self,
        host: &Host,
        outcome: Outcome,
        now: Instant,
        random: &mut dyn FnMut() -> u64,
    ) {
        if let (Some(detector), Some(monitor)) = (&self.config.outlier_detector, host.monitor()) {
            host.with_spec(|spec| detector.record(&spec.key, monitor, outcome, now, random));
        }
    }

    fn follow_outlier_verdicts(&self, now: Instant) {
        let Some(detector) = &self.config.outlier_detector else {
            return;
        };
        let epoch = detector.epoch();
        if self.outlier_epoch.replace(epoch) == epoch {
            return;
        }
        let endpoints = self.endpoints();
        let mut set = self.set.take();
        self.with_builder(now, |builder| set.refresh(&endpoints, builder));
        self.set.replace(set);
        self.report_membership(true);
    }

    /// Counts an answer: `upstream_rq_completed`, its class (`upstream_rq_5xx`) and its code (`upstream_rq_503`).
    pub fn count_status(&self, status: u16) {
        let stats = &self.config.stats;
        self.shard.inc(stats.upstream_rq_completed);
        let Some(class) = stats.status_class(status) else {
            return;
        };
        self.shard.inc(class);
        let mut codes = self.codes.borrow_mut();
        let known = codes
            .iter()
            .find(|(code, _)| *code == status)
            .map(|(_, counter)| *counter);
        let counter = known.unwrap_or_else(|| {
            let counter = stats.scope().counter(&format!("upstream_rq_{status}"));
            codes.push((status, counter));
            counter
        });
        self.shard.inc(counter);
    }

    /// The counters of gRPC calls whose names begin with `prefix`: `grpc` or `grpc-web`, and the method where it has some
    /// of its own.
    pub fn grpc_counters(&self, prefix: &str) -> Rc<GrpcCounters> {
        let mut all = self.grpc.borrow_mut();
        if let Some(known) = all.get(prefix) {
            return Rc::clone(known);
        }
        let prefix = match all.len() < limits::GRPC_METHODS {
            true => prefix,
            false => prefix.split('.').next().unwrap_or_default(),
        };
        let made = all.entry(prefix.into()).or_insert_with(|| {
            let scope = self.config.stats.scope();
            Rc::new(GrpcCounters::new(scope, prefix, &self.shard))
        });
        Rc::clone(made)
    }

    /// Counts a request to `host` as in flight until the returned value is dropped.
    ///
    /// # Errors
    /// [`Overflow`] when `max_requests` is reached.
    pub fn begin_request(
        self: &Rc<Self>,
        host: &Rc<Host>,
        priority: RequestPriority,
        now: Instant,
    ) -> Result<ActiveRequest, Overflow> {
        let stats = &self.config.stats;
        if !self.config.circuit_breakers.of(priority).try_acquire_request(now) {
            self.shard.inc(stats.upstream_rq_active_overflow);
            host.record_failure();
            return Err(Overflow);
        }
        host.begin_request();
        self.shard.inc(stats.upstream_rq_total);
        self.shard.move_gauge(stats.upstream_rq_active, 1);
        Ok(ActiveRequest {
            cluster: Rc::clone(self),
            host: Rc::clone(host),
            priority,
        })
    }

    /// Counts a retry as in flight until the returned value is dropped.
    ///
    /// # Errors
    /// [`Overflow`] when `max_retries` or the retry budget is reached.
    pub fn begin_retry(
        self: &Rc<Self>,
        priority: RequestPriority,
        now: Instant,
    ) -> Result<ActiveRetry, Overflow> {
        if !self.config.circuit_breakers.of(priority).try_acquire_retry(now) {
            self.shard.inc(self.config.stats.upstream_rq_retry_overflow);
            return Err(Overflow);
        }
        self.shard.inc(self.config.stats.upstream_rq_retry);
        Ok(ActiveRetry {
            cluster: Rc::clone(self),
            priority,
        })
    }

    /// Every host at this moment.
    #[must_use]
    pub fn hosts(&self) -> Vec<Rc<Host>> {
        match &self.config.discovery {
            Discovery::OriginalDst(_) => self.original_dst.hosts(),
            _ => self.set.borrow().hosts().cloned().collect(),
        }
    }

    /// Closes what was idle for too long and drops unused destinations. To be called about once a second.
    pub(crate) fn tick(&self, now: Instant) {
        let idle_timeout = self.config.http.idle_timeout;
        for host in self.hosts() {
            let closed = host.sweep(now, idle_timeout) as u64;
            self.shard.add(self.config.stats.upstream_cx_idle_timeout, closed);
        }
        if let Discovery::OriginalDst(config) = &self.config.discovery {
            self.original_dst.sweep(now, config);
        }
        if let Some(detector) = &self.config.outlier_detector {
            detector.tick(now);
        }
    }

    /// Closes the pools: the cluster is gone, or another took its place.
    pub(crate) fn close(&self) {
        self.hosts().iter().for_each(|host| host.remove());
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct ActiveRequest {
    cluster: Rc<Cluster>,
    host: Rc<Host>,
    priority: RequestPriority,
}

impl ActiveRequest {
    /// The host that it went to.
    #[must_use]
    pub fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// The cluster that it counts against.
    #[must_use]
    pub fn cluster(&self) -> &Rc<Cluster> {
        &self.cluster
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.host.end_request();
        self.cluster
            .shard
            .move_gauge(self.cluster.config.stats.upstream_rq_active, -1);
        self.cluster
            .config
            .circuit_breakers
            .of(self.priority)
            .requests
            .release();
    }
}

/// A retry in flight.
#[derive(Debug)]
pub struct ActiveRetry {
    cluster: Rc<Cluster>,
    priority: RequestPriority,
}

impl Drop for ActiveRetry {
    fn drop(&mut self) {
        self.cluster
            .config
            .circuit_breakers
            .of(self.priority)
            .release_retry();
    }
}
