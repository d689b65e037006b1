//! How load spreads over priorities (Envoy, "Priority levels", "Overprovisioning" and "Panic threshold").
//!
//! Pure arithmetic in whole percents, as Envoy does it, so that the shares agree to the last percent.

/// What is known of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// All hosts, or their weights.
    pub(crate) total: u64,
    /// The healthy ones.
    pub(crate) healthy: u64,
    /// The degraded ones.
    pub(crate) degraded: u64,
    /// All hosts, never weighted.
    pub(crate) hosts: u64,
    /// Healthy hosts, never weighted.
    pub(crate) healthy_hosts: u64,
    /// Degraded hosts, never weighted.
    pub(crate) degraded_hosts: u64,
}

/// Which hosts of a priority a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Healthy,
    Degraded,
}

/// The share of each priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriorityLoad {
    healthy_percent: Vec<u64>,
    degraded_percent: Vec<u64>,
    panic: Vec<bool>,
}

impl PriorityLoad {
    pub(crate) fn new(
        census: &[Census],
        overprovisioning_percent: u32,
        panic_threshold_percent: f64,
    ) -> Self {
        let factor = u64::from(overprovisioning_percent);
        let share = |part: u64, total: u64| {
            (factor * part)
                .checked_div(total)
                .map_or(0, |percent| percent.min(100))
        };
        let health: Vec<u64> = census.iter().map(|c| share(c.healthy, c.total)).collect();
        let degraded: Vec<u64> = census.iter().map(|c| share(c.degraded, c.total)).collect();
        let available = (health.iter().sum::<u64>() + degraded.iter().sum::<u64>()).min(100);

        let mut this = Self {
            healthy_percent: vec![0; census.len()],
            degraded_percent: vec![0; census.len()],
            panic: vec![false; census.len()],
        };
        if available == 0 {
            if let Some(first) = this.healthy_percent.first_mut() {
                *first = 100;
            }
        } else {
            this.distribute(&health, &degraded, available);
        }
        if available < 100 {
            this.panic = census
                .iter()
                .map(|c| in_panic(*c, panic_threshold_percent))
                .collect();
        }
        if !this.panic.is_empty() && this.panic.iter().all(|p| *p) {
            this.spread_by_host_count(census);
        }
        this
    }

    /// Healthy hosts take what they can, in order of priority, then degraded ones; what rounding left over goes to the
    /// first that took a share.
    fn distribute(&mut self, health: &[u64], degraded: &[u64], available: u64) {
        let mut left = 100;
        let take = |from: &[u64], into: &mut [u64], left: &mut u64| {
            for (percent, availability) in into.iter_mut().zip(from) {
                *percent = (*left).min(availability * 100 / available);
                *left -= *percent;
            }
        };
        take(health, &mut self.healthy_percent, &mut left);
        take(degraded, &mut self.degraded_percent, &mut left);
        if let Some(first) = self.healthy_percent.iter_mut().find(|p| **p > 0) {
            *first += left;
        } else if let Some(first) = self.degraded_percent.iter_mut().find(|p| **p > 0) {
            *first += left;
        }
    }

    /// In panic everywhere health says nothing, so hosts count.
    fn spread_by_host_count(&mut self, census: &[Census]) {
        let total: u64 = census.iter().map(|c| c.hosts).sum();
        self.degraded_percent.fill(0);
        self.healthy_percent.fill(0);
        if total == 0 {
            self.healthy_percent[0] = 100;
            return;
        }
        let mut left = 100;
        for (percent, c) in self.healthy_percent.iter_mut().zip(census) {
            *percent = 100 * c.hosts / total;
            left -= *percent;
        }
        if let Some(first) = self.healthy_percent.iter_mut().find(|p| **p > 0) {
            *first += left;
        }
    }

    /// Chooses a priority by a random number.
    pub(crate) fn choose(&self, random: u64) -> Option<(usize, Availability)> {
        let point = random % 100 + 1;
        let mut reached = 0;
        let mut find = |percents: &[u64]| {
            percents.iter().position(|p| {
                reached += p;
                point <= reached
            })
        };
        find(&self.healthy_percent)
            .map(|p| (p, Availability::Healthy))
            .or_else(|| find(&self.degraded_percent).map(|p| (p, Availability::Degraded)))
    }

    /// Whether a priority is in panic: then all its hosts are used, healthy or not.
    pub(crate) fn in_panic(&self, priority: usize) -> bool {
        self.panic.get(priority).copied().unwrap_or_default()
    }
}

#[allow(clippy::cast_precision_loss)]
fn in_panic(census: Census, threshold_percent: f64) -> bool {
    if threshold_percent == 0.0 {
        return false;
    }
    let percent = |n: u64| {
        if census.hosts == 0 {
            0.0
        } else {
            100.0 * n as f64 / census.hosts as f64
        }
    };
    percent(census.healthy_hosts) + percent(census.degraded_hosts) < threshold_percent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: u64, healthy: u64, degraded: u64) -> Census {
        Census {
            total: hosts,
            healthy,
            degraded,
            hosts,
            healthy_hosts: healthy,
            degraded_hosts: degraded,
        }
    }

    fn load(census: &[Census]) -> PriorityLoad {
        PriorityLoad::new(census, 140, 50.0)
    }

    // The figures of these two tests are those of Envoy's documentation, "Priority levels".
    #[test]
    fn load_spills_to_the_next_priority_below_72_percent_health() {
        let shares = |healthy| load(&[of(100, healthy, 0), of(100, 100, 0)]).healthy_percent;
        assert_eq!(shares(72), [100, 0]);
        assert_eq!(shares(71), [99, 1]);
        assert_eq!(shares(50), [70, 30]);
        assert_eq!(shares(25), [35, 65]);
        assert_eq!(shares(0), [0, 100]);
    }

    #[test]
    fn three_priorities_take_their_share_in_order() {
        let shares = |a, b, c| load(&[of(100, a, 0), of(100, b, 0), of(100, c, 0)]).healthy_percent;
        assert_eq!(shares(100, 100, 100), [100, 0, 0]);
        assert_eq!(shares(71, 71, 100), [99, 1, 0]);
        assert_eq!(shares(50, 50, 50), [70, 30, 0]);
        assert_eq!(shares(25, 25, 100), [35, 35, 30]);
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        let shares = load(&[of(100, 50, 50)]);
        assert_eq!(
            (&*shares.healthy_percent, &*shares.degraded_percent),
            (&[70][..], &[30][..])
        );
        assert_eq!(shares.choose(69), Some((0, Availability::Healthy)));
        assert_eq!(shares.choose(70), Some((0, Availability::Degraded)));
    }

    #[test]
    fn a_priority_below_the_threshold_panics_only_when_the_others_do_not_suffice() {
        let enough = load(&[of(10, 3, 0), of(10, 10, 0)]);
        assert!(!enough.in_panic(0) && !enough.in_panic(1));
        let scarce = load(&[of(10, 1, 0), of(10, 6, 0)]);
        assert!(scarce.in_panic(0) && !scarce.in_panic(1));
    }

    #[test]
    fn total_panic_spreads_by_host_count() {
        let all = load(&[of(30, 0, 0), of(10, 1, 0)]);
        assert!(all.in_panic(0) && all.in_panic(1));
        assert_eq!(all.healthy_percent, [75, 25]);
    }

    #[test]
    fn a_threshold_of_zero_never_panics() {
        assert!(!PriorityLoad::new(&[of(10, 0, 0)], 140, 0.0).in_panic(0));
    }
}
