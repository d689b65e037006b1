//! The hosts of a cluster by priority, with what load balancing keeps over them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::endpoints::{Assignment, Health, PrioritySpec};
use crate::host::Host;
use crate::load_balancer::{Edf, LbConfig, PickInput, Picker};
use crate::priority_load::{Availability, Census, PriorityLoad};

/// All priorities of a cluster.
#[derive(Debug, Default)]
pub(crate) struct PrioritySet {
    load: PriorityLoad,
    priorities: Vec<HostSet>,
    overprovisioning_percent: u32,
    may_panic: bool,
}

/// One priority.
#[derive(Debug)]
struct HostSet {
    spec: Arc<PrioritySpec>,
    healthy: Source,
    degraded: Source,
    all: Picker,
    census: Census,
}

/// Hosts of one availability: together, or by weighted locality.
#[derive(Debug)]
enum Source {
    Together(Picker),
    ByLocality {
        schedule: RefCell<Edf>,
        weights: Vec<f64>,
        pickers: Vec<Picker>,
    },
}

/// A host, if there is one, and whether panic chose it.
pub(crate) struct Pick<'a> {
    pub(crate) host: Option<&'a Rc<Host>>,
    pub(crate) panic: bool,
}

/// Finds hosts and makes seeds while a set is built.
pub(crate) struct Builder<'a> {
    pub(crate) lb: &'a LbConfig,
    pub(crate) host: &'a mut dyn FnMut(&Arc<crate::HostSpec>) -> Rc<Host>,
    pub(crate) seed: &'a mut dyn FnMut() -> u64,
    pub(crate) now: Instant,
}

impl Builder<'_> {
    fn picker(&mut self, hosts: Vec<Rc<Host>>) -> Picker {
        Picker::new(self.lb, hosts, (self.seed)(), self.now)
    }
}

impl PrioritySet {
    /// The set for `assignment`; priorities whose configuration is the same value as before are taken over with the
    /// state of their policy.
    pub(crate) fn rebuild(self, assignment: &Assignment, builder: &mut Builder<'_>) -> Self {
        // Locality weights depend on this factor.
        let same_policy = self.overprovisioning_percent == assignment.overprovisioning_percent;
        let mut before: Vec<Option<HostSet>> = self.priorities.into_iter().map(Some).collect();
        let priorities: Vec<HostSet> = assignment
            .priorities
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let kept = before.get_mut(index).and_then(Option::take);
                let kept = kept.filter(|old| same_policy && Arc::ptr_eq(&old.spec, spec));
                kept.unwrap_or_else(|| HostSet::new(Arc::clone(spec), assignment, builder))
            })
            .collect();
        Self {
            load: priority_load(&priorities, assignment, builder.lb),
            priorities,
            overprovisioning_percent: assignment.overprovisioning_percent,
            may_panic: builder.lb.panic_threshold_percent > 0.0,
        }
    }

    /// Recomputes everything after a host's health changed without a change of configuration (ejection).
    pub(crate) fn refresh(&mut self, assignment: &Assignment, builder: &mut Builder<'_>) {
        for set in &mut self.priorities {
            *set = HostSet::new(Arc::clone(&set.spec), assignment, builder);
        }
        self.load = priority_load(&self.priorities, assignment, builder.lb);
    }

    /// Every host, by priority.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Rc<Host>> {
        self.priorities.iter().flat_map(|set| set.all.hosts())
    }

    pub(crate) fn pick(&self, input: PickInput, random: &mut dyn FnMut() -> u64) -> Pick<'_> {
        let point = input.hash.unwrap_or_else(&mut *random);
        let chosen = self.load.choose(point);
        let Some((set, priority, availability)) =
            chosen.and_then(|(p, availability)| self.priorities.get(p).map(|set| (set, p, availability)))
        else {
            // Without any host there is nothing but panic, unless that is switched off.
            return Pick {
                host: None,
                panic: self.may_panic,
            };
        };
        if self.load.in_panic(priority) {
            return Pick {
                host: set.all.pick(input, random),
                panic: true,
            };
        }
        let source = match availability {
            Availability::Healthy => &set.healthy,
            Availability::Degraded => &set.degraded,
        };
        Pick {
            host: source.pick(input, random),
            panic: false,
        }
    }
}

fn priority_load(priorities: &[HostSet], assignment: &Assignment, lb: &LbConfig) -> PriorityLoad {
    let census: Vec<Census> = priorities.iter().map(|p| p.census).collect();
    PriorityLoad::new(
        &census,
        assignment.overprovisioning_percent,
        lb.panic_threshold_percent,
    )
}

impl HostSet {
    fn new(spec: Arc<PrioritySpec>, assignment: &Assignment, builder: &mut Builder<'_>) -> Self {
        let localities: Vec<(u32, Vec<Rc<Host>>)> = spec
            .localities
            .iter()
            .map(|l| (l.weight, l.hosts.iter().map(&mut *builder.host).collect()))
            .collect();
        let source =
            |health, builder: &mut Builder<'_>| Source::new(&localities, health, assignment, builder);
        let healthy = source(Health::Healthy, builder);
        let degraded = source(Health::Degraded, builder);
        let hosts: Vec<Rc<Host>> = localities.iter().flat_map(|(_, hosts)| hosts).cloned().collect();
        let census = census(&hosts, assignment.weighted_priority_health);
        let all = builder.picker(hosts);
        Self {
            spec,
            healthy,
            degraded,
            all,
            census,
        }
    }
}

fn census(hosts: &[Rc<Host>], weighted: bool) -> Census {
    let mut census = Census::default();
    for host in hosts {
        let size = if weighted {
            u64::from(host.with_spec(|s| s.weight))
        } else {
            1
        };
        census.total += size;
        census.hosts += 1;
        match host.health() {
            Health::Healthy => {
                census.healthy += size;
                census.healthy_hosts += 1;
            }
            Health::Degraded => {
                census.degraded += size;
                census.degraded_hosts += 1;
            }
            Health::Unhealthy => {}
        }
    }
    census
}

impl Source {
    fn new(
        localities: &[(u32, Vec<Rc<Host>>)],
        health: Health,
        assignment: &Assignment,
        builder: &mut Builder<'_>,
    ) -> Self {
        let of = |hosts: &[Rc<Host>]| {
            hosts
                .iter()
                .filter(|h| h.health() == health)
                .cloned()
                .collect::<Vec<_>>()
        };
        if !builder.lb.locality_weighted {
            let hosts = localities.iter().flat_map(|(_, hosts)| of(hosts)).collect();
            return Self::Together(builder.picker(hosts));
        }
        let mut weights = Vec::with_capacity(localities.len());
        let mut pickers = Vec::with_capacity(localities.len());
        for (weight, hosts) in localities {
            let eligible = of(hosts);
            weights.push(effective_weight(*weight, eligible.len(), hosts.len(), assignment));
            pickers.push(builder.picker(eligible));
        }
        let skip = usize::try_from((builder.seed)() % weights.len().max(1) as u64).unwrap_or_default();
        Self::ByLocality {
            schedule: RefCell::new(Edf::new(weights.iter().copied(), skip)),
            weights,
            pickers,
        }
    }

    fn pick(&self, input: PickInput, random: &mut dyn FnMut() -> u64) -> Option<&Rc<Host>> {
        match self {
            Self::Together(picker) => picker.pick(input, random),
            Self::ByLocality {
                schedule,
                weights,
                pickers,
            } => {
                let locality = schedule.borrow_mut().pick(|index| weights[index])?;
                pickers.get(locality)?.pick(input, random)
            }
        }
    }
}

/// A locality's weight shrinks with the share of its hosts that are available, beyond the overprovisioning factor.
#[allow(clippy::cast_precision_loss)]
fn effective_weight(weight: u32, eligible: usize, hosts: usize, assignment: &Assignment) -> f64 {
    if eligible == 0 || hosts == 0 {
        return 0.0;
    }
    let factor = f64::from(assignment.overprovisioning_percent) / 100.0;
    let availability = (factor * eligible as f64 / hosts as f64).min(1.0);
    f64::from(weight) * availability
}
