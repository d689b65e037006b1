//! Hosts of an `ORIGINAL_DST` cluster: one per destination, made when first needed (Envoy, "Original destination").

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api_envoy::envoy::config::core::v3::{HealthStatus, Locality};
use foldhash::{HashMap, HashMapExt as _};

use crate::config::OriginalDstConfig;
use crate::endpoints::{Health, HostAddress, HostSpec};
use crate::host::Host;
use crate::limits;
use crate::transport::Transport;

/// The hosts in use, and when they were last looked over.
#[derive(Debug)]
pub(crate) struct OriginalDst {
    hosts: RefCell<HashMap<SocketAddr, Rc<Host>>>,
    swept: Cell<Option<Instant>>,
}

impl OriginalDst {
    pub(crate) fn new() -> Self {
        Self {
            hosts: RefCell::new(HashMap::new()),
            swept: Cell::new(None),
        }
    }

    /// The host at `destination`, which is connected to by the cluster's own transport socket.
    pub(crate) fn host(&self, destination: SocketAddr, transport: &Transport, now: Instant) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if !hosts.contains_key(&destination) && hosts.len() >= limits::MAX_ORIGINAL_DST_HOSTS {
            evict_oldest(&mut hosts);
        }
        let host = hosts
            .entry(destination)
            .or_insert_with(|| Host::new(spec(destination, transport), None));
        host.touch(now);
        Rc::clone(host)
    }

    /// Drops the hosts that were not used for the cleanup interval and have nothing in flight.
    pub(crate) fn sweep(&self, now: Instant, config: &OriginalDstConfig) {
        let swept = self.swept.get().get_or_insert(now).to_owned();
        self.swept.set(Some(swept));
        if now.saturating_duration_since(swept) < config.cleanup_interval {
            return;
        }
        self.swept.set(Some(now));
        let stale = |host: &Host| {
            let idle = host
                .idle_since()
                .is_none_or(|t| now.saturating_duration_since(t) >= config.cleanup_interval);
            idle && host.active_requests() == 0
        };
        let mut removed = Vec::new();
        self.hosts.borrow_mut().retain(|_, host| {
            let keep = !stale(host);
            if !keep {
                removed.push(Rc::clone(host));
            }
            keep
        });
        for host in removed {
            host.remove();
        }
    }

    /// All hosts at this moment.
    pub(crate) fn hosts(&self) -> Vec<Rc<Host>> {
        self.hosts.borrow().values().cloned().collect()
    }
}

fn evict_oldest(hosts: &mut HashMap<SocketAddr, Rc<Host>>) {
    let oldest = hosts
        .iter()
        .min_by_key(|(_, host)| host.idle_since())
        .map(|(address, _)| *address);
    if let Some(host) = oldest.and_then(|address| hosts.remove(&address)) {
        host.remove();
    }
}

fn spec(destination: SocketAddr, transport: &Transport) -> Arc<HostSpec> {
    Arc::new(HostSpec {
        key: destination.to_string().into(),
        address: HostAddress::Ip(destination),
        hostname: "".into(),
        weight: 1,
        health: Health::Healthy,
        health_status: HealthStatus::Unknown,
        hash_key: None,
        locality: Arc::new(Locality::default()),
        priority: 0,
        transport: transport.clone(),
    })
}
