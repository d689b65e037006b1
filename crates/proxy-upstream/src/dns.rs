//! `STRICT_DNS` and `LOGICAL_DNS` clusters: names are resolved on the main thread, workers get addresses.
//!
//! The system's resolver answers (`getaddrinfo`), so `/etc/hosts` and `resolv.conf` hold as they do for any program; it
//! tells no TTL, so `respect_dns_ttl` takes effect only with a [`Resolve`] that does. Its lookups hold threads, so they
//! take [`Turns`].

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use crate::config::{ClusterConfig, Discovery, DnsConfig, LookupFamily};
use crate::endpoints::{Assignment, HostAddress, HostSpec, LocalitySpec, PrioritySpec};
use crate::limits;

mod turns;

pub use turns::Turns;

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses, in the resolver's order.
    pub addresses: Vec<IpAddr>,
    /// How long they hold, where the resolver says so.
    pub ttl: Option<Duration>,
}

/// The future of [`Resolve::resolve`].
pub type ResolveFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Answer>> + Send + 'a>>;

/// Resolves names.
pub trait Resolve: Send + Sync {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a>;
}

/// The system's resolver. A lookup that nobody waits for any more goes on, and holds its thread, until it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            let mut addresses = Vec::new();
            for address in found.take(limits::MAX_DNS_ADDRESSES) {
                if !addresses.contains(&address.ip()) {
                    addresses.push(address.ip());
                }
            }
            Ok(Answer { addresses, ttl: None })
        })
    }
}

/// The addresses of a family's choice.
fn choose(addresses: &[IpAddr], family: LookupFamily) -> Vec<IpAddr> {
    let of = |v4: bool| {
        addresses
            .iter()
            .copied()
            .filter(|a| a.is_ipv4() == v4)
            .collect::<Vec<_>>()
    };
    let prefer = |v4: bool| Some(of(v4)).filter(|a| !a.is_empty()).unwrap_or_else(|| of(!v4));
    match family {
        LookupFamily::V4Only => of(true),
        LookupFamily::V6Only => of(false),
        LookupFamily::Auto => prefer(false),
        LookupFamily::V4Preferred => prefer(true),
        LookupFamily::All => addresses.to_vec(),
    }
}

/// One name of a cluster, and what is known of it.
struct Lookup<'a> {
    template: &'a Arc<HostSpec>,
    addresses: Option<Vec<IpAddr>>,
    failures: u32,
    next: Next,
}

/// What comes next for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it is an address.
    Nothing,
    /// It is looked up then.
    Due(Instant),
    /// It is being looked up, and that takes too long from then on.
    Overdue(Instant),
    /// It is being looked up for too long already: nobody waits for the answer, but it is taken when it comes.
    Late,
}

/// Resolves the names of a DNS cluster for as long as it is polled, and publishes its endpoints: once all names have
/// been tried, and again after each change. Names that cannot be resolved keep their last addresses. A name is not
/// asked for again before the last lookup has ended.
///
/// `random` spreads refreshes. Drop the future to stop.
pub async fn run(
    config: Arc<ClusterConfig>,
    resolver: Arc<dyn Resolve>,
    mut random: impl FnMut() -> u64 + Send,
    mut publish: impl FnMut(Arc<Assignment>) + Send,
) {
    let (dns, logical) = match &config.discovery {
        Discovery::StrictDns(dns) => (dns, false),
        Discovery::LogicalDns(dns) => (dns, true),
        _ => return,
    };
    let resolver = &*resolver;
    let mut lookups: Vec<Lookup<'_>> = config.static_endpoints.hosts().map(Lookup::new).collect();
    let mut asked = FuturesUnordered::new();
    let mut published: Option<Arc<Assignment>> = None;
    let mut changed = true;
    loop {
        for (index, lookup) in lookups.iter_mut().enumerate() {
            if let Some(name) = lookup.begin() {
                asked.push(async move { (index, resolver.resolve(name).await) });
            }
        }
        let all_tried = published.is_some() || lookups.iter().all(Lookup::is_tried);
        if changed && all_tried {
            let mut next = assemble(&config.static_endpoints, &lookups, logical);
            if let Some(previous) = &published {
                next.share_with(previous);
            }
            let next = Arc::new(next);
            published = Some(Arc::clone(&next));
            publish(next);
            changed = false;
        }
        let wake = lookups.iter().filter_map(Lookup::wake).min();
        if asked.is_empty() && wake.is_none() {
            return;
        }
        tokio::select! {
            Some((index, answer)) = asked.next() => {
                changed |= lookups[index].take(answer, dns, random());
                // What is there already is published together.
                while let Some(Some((index, answer))) = asked.next().now_or_never() {
                    changed |= lookups[index].take(answer, dns, random());
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                lookups.iter_mut().for_each(Lookup::note_overdue);
            }
        }
    }
}

impl<'a> Lookup<'a> {
    fn new(template: &'a Arc<HostSpec>) -> Self {
        let next = match template.address {
            HostAddress::Name(..) => Next::Due(Instant::now()),
            _ => Next::Nothing,
        };
        Self {
            template,
            addresses: None,
            failures: 0,
            next,
        }
    }

    /// The name, when it is to be looked up now.
    fn begin(&mut self) -> Option<&'a str> {
        let HostAddress::Name(name, _) = &self.template.address else {
            return None;
        };
        let now = Instant::now();
        if !matches!(self.next, Next::Due(due) if due <= now) {
            return None;
        }
        self.next = Next::Overdue(now + limits::DNS_LOOKUP_TIMEOUT);
        Some(name)
    }

    /// When something is to be done about it.
    fn wake(&self) -> Option<Instant> {
        match self.next {
            Next::Due(at) | Next::Overdue(at) => Some(at),
            Next::Nothing | Next::Late => None,
        }
    }

    /// Whether no first answer is waited for.
    fn is_tried(&self) -> bool {
        self.addresses.is_some() || self.failures > 0 || self.next == Next::Nothing
    }

    /// Counts a lookup that takes too long as failed.
    fn note_overdue(&mut self) {
        if matches!(self.next, Next::Overdue(at) if at <= Instant::now()) {
            tracing::debug!(name = %self.template.address, "name was not resolved in time");
            self.failures = self.failures.saturating_add(1);
            self.next = Next::Late;
        }
    }

    /// Notes an answer and when to ask again; whether the addresses changed.
    fn take(&mut self, answer: io::Result<Answer>, dns: &DnsConfig, random: u64) -> bool {
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                self.failures = 0;
                let ttl = answer.ttl.filter(|ttl| dns.respect_ttl && !ttl.is_zero());
                self.next = Next::Due(now + ttl.unwrap_or(dns.refresh_rate) + up_to(dns.jitter, random));
                let addresses = choose(&answer.addresses, dns.family);
                let changed = self.addresses.as_ref() != Some(&addresses);
                self.addresses = Some(addresses);
                changed
            }
            Err(error) => {
                tracing::debug!(name = %self.template.address, %error, "name was not resolved");
                // One that came too late was counted when it did not come in time.
                let counted = u32::from(self.next == Next::Late);
                let failures = self.failures.saturating_sub(counted);
                self.next = Next::Due(now + failure_interval(dns, failures, random));
                self.failures = failures.saturating_add(1);
                false
            }
        }
    }
}

/// The time to the next lookup after so many failed ones: it doubles up to the maximum, and part of it is random. When
/// no failure rate is configured base and maximum are the refresh rate, which is kept exactly.
fn failure_interval(dns: &DnsConfig, failures: u32, random: u64) -> Duration {
    let (base, max) = dns.failure_refresh;
    if base == max {
        return base;
    }
    let interval = base.saturating_mul(2_u32.saturating_pow(failures)).min(max);
    (interval / 2 + up_to(interval / 2, random)).max(limits::MIN_DNS_REFRESH_RATE)
}

/// A duration below `limit`, in whole milliseconds.
fn up_to(limit: Duration, random: u64) -> Duration {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(if milliseconds == 0 {
        0
    } else {
        random % milliseconds
    })
}

/// The endpoints with addresses in place of names.
fn assemble(names: &Assignment, lookups: &[Lookup<'_>], logical: bool) -> Assignment {
    let mut lookups = lookups.iter();
    let mut seen = std::collections::HashSet::new();
    let mut resolve = |template: &Arc<HostSpec>| -> Vec<Arc<HostSpec>> {
        let addresses = lookups
            .next()
            .and_then(|l| l.addresses.as_deref())
            .unwrap_or_default();
        let HostAddress::Name(_, port) = &template.address else {
            return vec![Arc::clone(template)];
        };
        let hosts = addresses
            .iter()
            .map(|ip| at(template, SocketAddr::new(*ip, *port), logical));
        let hosts = hosts.filter(|host| seen.insert(host.key.clone())).map(Arc::new);
        if logical {
            hosts.take(1).collect()
        } else {
            hosts.collect()
        }
    };
    let priorities = names.priorities.iter().map(|priority| {
        let localities = priority.localities.iter().map(|locality| LocalitySpec {
            locality: Arc::clone(&locality.locality),
            weight: locality.weight,
            hosts: locality.hosts.iter().flat_map(&mut resolve).collect(),
        });
        Arc::new(PrioritySpec {
            localities: localities.collect(),
        })
    });
    Assignment {
        priorities: priorities.collect(),
        ..names.clone()
    }
}

/// A host at one of its name's addresses. A logical host is the same whatever the address, so it keeps its pool.
fn at(template: &HostSpec, address: SocketAddr, logical: bool) -> HostSpec {
    let key = if logical {
        template.key.clone()
    } else {
        address.to_string().into()
    };
    HostSpec {
        key,
        address: HostAddress::Ip(address),
        ..template.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lookup_family_decides_which_addresses_are_used() {
        let both: Vec<IpAddr> = vec!["1.2.3.4".parse().unwrap(), "::1".parse().unwrap()];
        let v4_alone = &both[..1];
        assert_eq!(choose(&both, LookupFamily::V4Only), both[..1]);
        assert_eq!(choose(&both, LookupFamily::Auto), both[1..]);
        assert_eq!(choose(v4_alone, LookupFamily::Auto), both[..1]);
        assert_eq!(choose(&both, LookupFamily::All), both);
        assert!(choose(v4_alone, LookupFamily::V6Only).is_empty());
    }

    #[test]
    fn failures_are_retried_ever_more_slowly_up_to_the_maximum() {
        let dns = DnsConfig {
            refresh_rate: Duration::from_secs(60),
            jitter: Duration::ZERO,
            failure_refresh: (Duration::from_secs(1), Duration::from_secs(10)),
            respect_ttl: false,
            family: LookupFamily::Auto,
        };
        let seconds = |failures| failure_interval(&dns, failures, 0).as_millis();
        assert_eq!(
            [seconds(0), seconds(1), seconds(2), seconds(9)],
            [500, 1000, 2000, 5000]
        );
    }
}
