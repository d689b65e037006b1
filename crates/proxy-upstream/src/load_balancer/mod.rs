//! Load balancing policies (Envoy, "Supported load balancers").
//!
//! A [`Picker`] chooses among hosts that are all eligible; which are is decided before (priority, health, locality).

mod config;
mod consistent_hash;
mod edf;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use twox_hash::XxHash64;

pub use config::{LbConfig, LbPolicy, LeastRequestConfig, RingHashConfig};

use crate::host::Host;
use consistent_hash::{MaglevTable, Ring};
pub(crate) use edf::Edf;

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
    /// Hosts have different weights; active requests weigh in when a bias is given.
    Weighted {
        edf: RefCell<Edf>,
        active_request_bias: Option<f64>,
    },
    RingHash(Ring),
    Maglev(MaglevTable),
}

/// What a pick may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PickInput {
    /// The request's hash, for consistent hashing.
    pub(crate) hash: Option<u64>,
    /// How many times a host was picked and not wanted.
    pub(crate) attempt: u32,
}

impl Picker {
    /// A picker over `hosts`. `seed` sets where it begins, so that workers do not all begin at the first host.
    pub(crate) fn new(policy: &LbPolicy, hosts: Vec<Rc<Host>>, seed: u64) -> Self {
        let state = Self::state(policy, &hosts, seed);
        Self { hosts, state }
    }

    fn state(policy: &LbPolicy, hosts: &[Rc<Host>], seed: u64) -> State {
        let start = usize::try_from(seed % hosts.len().max(1) as u64).unwrap_or_default();
        let edf = || RefCell::new(Edf::new(hosts.iter().map(|h| f64::from(weight(h))), start));
        match policy {
            LbPolicy::Random | LbPolicy::ClusterProvided => State::Random,
            LbPolicy::RoundRobin if weights_are_equal(hosts) => State::RoundRobin(Cell::new(start)),
            LbPolicy::RoundRobin => State::Weighted {
                edf: edf(),
                active_request_bias: None,
            },
            LbPolicy::LeastRequest(config) if config.full_scan || weights_are_equal(hosts) => {
                State::LeastRequest(config.clone())
            }
            LbPolicy::LeastRequest(config) => State::Weighted {
                edf: edf(),
                active_request_bias: Some(config.active_request_bias),
            },
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
            State::Weighted {
                edf,
                active_request_bias,
            } => {
                let weigh = |index: usize| match active_request_bias {
                    None => f64::from(weight(&hosts[index])),
                    Some(bias) => biased_weight(&hosts[index], *bias),
                };
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

/// `weight / (active requests + 1) ^ bias`, Envoy's weight of a host in a least-request policy with unequal weights.
fn biased_weight(host: &Host, bias: f64) -> f64 {
    let weight = f64::from(weight(host));
    let active = f64::from(host.active_requests()) + 1.0;
    if bias == 0.0 {
        weight
    } else if (bias - 1.0).abs() < f64::EPSILON {
        weight / active
    } else {
        weight / active.powf(bias)
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
