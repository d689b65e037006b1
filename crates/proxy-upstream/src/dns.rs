//! `STRICT_DNS` and `LOGICAL_DNS` clusters: names are resolved on the main thread, workers get addresses.
//!
//! The system's resolver answers (`getaddrinfo`), so `/etc/hosts` and `resolv.conf` hold as they do for any program; it
//! tells no TTL, so `respect_dns_ttl` takes effect only with a [`Resolve`] that does.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{ClusterConfig, Discovery, DnsConfig, LookupFamily};
use crate::endpoints::{Assignment, HostAddress, HostSpec, LocalitySpec, PrioritySpec};
use crate::limits;

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

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a> {
        Box::pin(async move {
            let found = tokio::time::timeout(limits::DNS_LOOKUP_TIMEOUT, tokio::net::lookup_host((name, 0)))
                .await??;
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
struct Lookup {
    template: Arc<HostSpec>,
    addresses: Option<Vec<IpAddr>>,
    failures: u32,
    due: Instant,
}

/// Resolves the names of a DNS cluster for as long as it is polled, and publishes its endpoints: once all names have
/// been tried, and again after each change. Names that cannot be resolved keep their last addresses.
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
    let mut lookups: Vec<Lookup> = config
        .static_endpoints
        .hosts()
        .map(|host| Lookup {
            template: Arc::clone(host),
            addresses: None,
            failures: 0,
            due: Instant::now(),
        })
        .collect();
    let mut published: Option<Arc<Assignment>> = None;
    loop {
        let changed = resolve_due(&mut lookups, dns, &*resolver, &mut random).await;
        if changed || published.is_none() {
            let mut next = assemble(&config.static_endpoints, &lookups, logical);
            if let Some(previous) = &published {
                next.share_with(previous);
            }
            let next = Arc::new(next);
            published = Some(Arc::clone(&next));
            publish(next);
        }
        let by_name = lookups
            .iter()
            .filter(|l| matches!(l.template.address, HostAddress::Name(..)));
        let Some(next_due) = by_name.map(|l| l.due).min() else {
            return;
        };
        tokio::time::sleep_until(next_due).await;
    }
}

/// Looks up the names that are due; whether an answer differs from the one before.
async fn resolve_due(
    lookups: &mut [Lookup],
    dns: &DnsConfig,
    resolver: &dyn Resolve,
    random: &mut (impl FnMut() -> u64 + Send),
) -> bool {
    let now = Instant::now();
    let due: Vec<(usize, Arc<HostSpec>)> = lookups
        .iter()
        .enumerate()
        .filter(|(_, lookup)| lookup.due <= now)
        .map(|(index, lookup)| (index, Arc::clone(&lookup.template)))
        .collect();
    let answers = futures::future::join_all(due.into_iter().map(|(index, template)| async move {
        match &template.address {
            HostAddress::Name(name, _) => Some((index, resolver.resolve(name).await)),
            _ => None,
        }
    }));
    let mut changed = false;
    for (index, answer) in answers.await.into_iter().flatten() {
        changed |= lookups[index].take(answer, dns, random());
    }
    changed
}

impl Lookup {
    /// Notes an answer and when to ask again; whether the addresses changed.
    fn take(&mut self, answer: io::Result<Answer>, dns: &DnsConfig, random: u64) -> bool {
        match answer {
            Ok(answer) => {
                self.failures = 0;
                let ttl = answer.ttl.filter(|ttl| dns.respect_ttl && !ttl.is_zero());
                self.due = Instant::now() + ttl.unwrap_or(dns.refresh_rate) + up_to(dns.jitter, random);
                let addresses = choose(&answer.addresses, dns.family);
                let changed = self.addresses.as_ref() != Some(&addresses);
                self.addresses = Some(addresses);
                changed
            }
            Err(error) => {
                tracing::debug!(name = %self.template.address, %error, "name was not resolved");
                self.due = Instant::now() + failure_interval(dns, self.failures, random);
                self.failures = self.failures.saturating_add(1);
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
fn assemble(names: &Assignment, lookups: &[Lookup], logical: bool) -> Assignment {
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
