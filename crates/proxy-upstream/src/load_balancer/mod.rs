//! Load balancing policies (Envoy, "Supported load balancers").
//!
//! A [`Picker`] chooses among hosts that are all eligible; which are is decided before (priority, health, locality).

mod config;
mod consistent_hash;
mod edf;
mod slow_start;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use twox_hash::XxHash64;

pub use config::{LbConfig, LbPolicy, LeastRequestConfig, RingHashConfig};

use crate::host::Host;
use consistent_hash::{MaglevTable, Ring};
pub(crate) use edf::Edf;
pub use slow_start::SlowStart;

/// Eligible hosts and the state of the policy over them.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    hosts: Vec<Rc<Host>>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Also for policies that do not choose among configured hosts.
    #[default]
    Random,
    RoundRobin(Cell<usize>),
    LeastRequest(LeastRequestConfig),
    /// Hosts have different weights, or some are new.
    Weighted {
        edf: RefCell<Edf>,
        weighing: Weighing,
    },
    RingHash(Ring),
    Maglev(MaglevTable),
}

/// What hosts weigh.
#[derive(Debug)]
struct Weighing {
    /// How much active requests weigh in, if they do.
    active_request_bias: Option<f64>,
    slow_start: Option<SlowStart>,
}

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PickInput {
    /// The request's hash, for consistent hashing.
    pub(crate) hash: Option<u64>,
    /// How many times a host was picked and not wanted.
    pub(crate) attempt: u32,
    pub(crate) now: Instant,
}

impl Picker {
    /// A picker over `hosts`. `seed` sets where it begins, so that workers do not all begin at the first host.
    pub(crate) fn new(lb: &LbConfig, hosts: Vec<Rc<Host>>, seed: u64, now: Instant) -> Self {
        let state = Self::state(lb, &hosts, seed, now);
        Self { hosts, state }
    }

    fn state(lb: &LbConfig, hosts: &[Rc<Host>], seed: u64, now: Instant) -> State {
        let start = usize::try_from(seed % hosts.len().max(1) as u64).unwrap_or_default();
        // All hosts are asked, because their time begins with it.
        let some_are_new = lb.slow_start.is_some_and(|slow_start| {
            let new = hosts.iter().filter(|host| slow_start.is_new(host, now));
            new.count() > 0
        });
        let in_turn = !some_are_new && weights_are_equal(hosts);
        let weighted = |active_request_bias| {
            let weighing = Weighing {
                active_request_bias,
                slow_start: lb.slow_start.filter(|_| some_are_new),
            };
            let weights = hosts.iter().map(|host| weighing.initial_weight(host, now));
            State::Weighted {
                edf: RefCell::new(Edf::new(weights, start)),
                weighing,
            }
        };
        match &lb.policy {
            LbPolicy::Random | LbPolicy::ClusterProvided => State::Random,
            LbPolicy::RoundRobin if in_turn => State::RoundRobin(Cell::new(start)),
            LbPolicy::RoundRobin => weighted(None),
            LbPolicy::LeastRequest(config) if in_turn || (config.full_scan && !some_are_new) => {
                State::LeastRequest(config.clone())
            }
            LbPolicy::LeastRequest(config) => weighted(Some(config.active_request_bias)),
            LbPolicy::RingHash(config) => State::RingHash(Ring::new(config, hosts)),
            LbPolicy::Maglev {
                table_size,
                use_hostname,
            } => State::Maglev(MaglevTable::new(*table_size, *use_hostname, hosts)),
        }
    }

    pub(crate) fn hosts(&self) -> &[Rc<Host>] {
        &self.hosts
    }

    pub(crate) fn pick(&self, input: PickInput, random: &mut dyn FnMut() -> u64) -> Option<&Rc<Host>> {
        let hosts = &self.hosts;
        if hosts.is_empty() {
            return None;
        }
        let index = match &self.state {
            State::Random => below(random(), hosts.len()),
            State::RoundRobin(next) => {
                let index = next.get() % hosts.len();
                next.set(index + 1);
                index
            }
            State::LeastRequest(config) => least_request(hosts, config, random),
            State::Weighted { edf, weighing } => {
                let weigh = |index: usize| weighing.weight(&hosts[index], input.now);
                edf.borrow_mut().pick(weigh)?
            }
            State::RingHash(ring) => ring.pick(input.hash.unwrap_or_else(random), input.attempt)?,
            State::Maglev(table) => table.pick(input.hash.unwrap_or_else(random), input.attempt)?,
        };
        hosts.get(index)
    }
}

/// The hash of a client's address, for consistent hashing of connections that carry no requests
/// (`envoy.type.v3.HashPolicy.source_ip`): that of its text.
#[must_use]
pub fn hash_address(address: IpAddr) -> u64 {
    XxHash64::oneshot(0, address.to_string().as_bytes())
}

fn weight(host: &Host) -> u32 {
    host.with_spec(|spec| spec.weight)
}

fn weights_are_equal(hosts: &[Rc<Host>]) -> bool {
    hosts
        .split_first()
        .is_none_or(|(first, rest)| rest.iter().all(|h| weight(h) == weight(first)))
}

impl Weighing {
    /// What a host weighs before anything was sent to it.
    fn initial_weight(&self, host: &Host, now: Instant) -> f64 {
        let factor = self
            .slow_start
            .map_or(1.0, |slow_start| slow_start.factor(host, now));
        f64::from(weight(host)) * factor
    }

    /// In a least-request policy `weight / (active requests + 1) ^ bias`, else its weight; less while it is new.
    fn weight(&self, host: &Host, now: Instant) -> f64 {
        let weight = self.initial_weight(host, now);
        let active = f64::from(host.active_requests()) + 1.0;
        match self.active_request_bias {
            None | Some(0.0) => weight,
            Some(bias) if (bias - 1.0).abs() < f64::EPSILON => weight / active,
            Some(bias) => weight / active.powf(bias),
        }
    }
}

/// Of `choice_count` hosts taken at random (one may come twice) the one with the fewest requests; of equals the first.
fn least_request(hosts: &[Rc<Host>], config: &LeastRequestConfig, random: &mut dyn FnMut() -> u64) -> usize {
    if config.full_scan {
        return fewest_requests_of_all(hosts, random);
    }
    let mut best = below(random(), hosts.len());
    for _ in 1..config.choice_count {
        let candidate = below(random(), hosts.len());
        if hosts[candidate].active_requests() < hosts[best].active_requests() {
            best = candidate;
        }
    }
    best
}

/// The host with the fewest requests; of equals one at random (reservoir of one).
fn fewest_requests_of_all(hosts: &[Rc<Host>], random: &mut dyn FnMut() -> u64) -> usize {
    let mut best = 0;
    let mut equals = 1;
    for index in 1..hosts.len() {
        let (candidate, current) = (hosts[index].active_requests(), hosts[best].active_requests());
        if candidate < current {
            (best, equals) = (index, 1);
        } else if candidate == current {
            equals += 1;
            if random().is_multiple_of(equals) {
                best = index;
            }
        }
    }
    best
}

/// A number below `bound`, which is not 0.
fn below(random: u64, bound: usize) -> usize {
    usize::try_from(random % bound as u64).unwrap_or_default()
}
