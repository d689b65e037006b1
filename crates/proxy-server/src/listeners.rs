//! The listeners of one worker: their sockets, what is in force, and what drains.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;
use proxy_config::address::BindAddress;
use proxy_config::listener::{FilterChain, NetworkFilter, Transport};
use proxy_core::TrafficDirection;
use telemetry::stats::{Counter, Gauge};
use tokio::task::AbortHandle;

use crate::command::{DrainPlan, Listener};
use crate::drain::{Drain, End};
use crate::http::{HttpConfig, HttpConnectionManager, HttpLocal};
use crate::local::Local;
use crate::tcp_proxy::TcpProxy;

/// All listeners of a worker.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The number of the worker.
    worker: usize,
    local: Local,
    /// What the HTTP connections of the worker share.
    http: Rc<HttpLocal>,
    by_name: RefCell<HashMap<Arc<str>, Rc<ListenerSlot>>>,
    by_address: RefCell<HashMap<SocketAddr, Rc<ListenerSlot>>>,
    /// What is out of force and whose connections have not ended yet.
    draining: RefCell<Vec<Drain>>,
}

/// A listener across its versions: connections see the version in force when they were accepted.
#[derive(Debug)]
pub(crate) struct ListenerSlot {
    current: RefCell<Rc<ActiveListener>>,
    acceptors: RefCell<Vec<AbortHandle>>,
    stopped: Cell<bool>,
}

/// One version of a listener on a worker.
#[derive(Debug)]
pub(crate) struct ActiveListener {
    pub(crate) config: Arc<Listener>,
    /// `listener.<address>.worker_<n>.`: connections that this worker took, and has.
    pub(crate) worker_cx_total: Counter,
    pub(crate) worker_cx_active: Gauge,
    /// For connections that have no filter chain yet.
    pub(crate) drain: Drain,
    chains: Vec<Rc<Chain>>,
    default_chain: Option<Rc<Chain>>,
}

/// A filter chain on a worker.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: Rc<str>,
    pub(crate) transport: Transport,
    pub(crate) filter: Filter,
    pub(crate) drain: Drain,
    fingerprint: u64,
}

/// The filter that ends a chain, with what it keeps per worker.
#[derive(Debug)]
pub(crate) enum Filter {
    Http(Rc<HttpConnectionManager>),
    Tcp(Rc<TcpProxy>),
    Close,
}

impl Chain {
    fn new(
        config: &Arc<Listener>,
        chain: &FilterChain<Arc<HttpConfig>>,
        index: Option<usize>,
        listeners: &Listeners,
    ) -> Rc<Self> {
        let Listeners {
            local, http: shared, ..
        } = listeners;
        let filter = match &chain.filter {
            NetworkFilter::Http(http) => {
                Filter::Http(HttpConnectionManager::new(Arc::clone(http), local, shared))
            }
            NetworkFilter::Tcp(_) => Filter::Tcp(Rc::new(TcpProxy::new(Arc::clone(config), index, local))),
            NetworkFilter::Close => Filter::Close,
        };
        let fingerprint = chain.fingerprint;
        Rc::new(Self {
            name: (&*chain.name).into(),
            transport: chain.transport.clone(),
            filter,
            drain: Drain::new(config.is_modify_only),
            fingerprint,
        })
    }
}

impl ActiveListener {
    /// Takes over the chains of `before` that are the same, so that their connections are not drained.
    fn new(config: Arc<Listener>, before: Option<&Self>, listeners: &Listeners) -> Self {
        let same_listener = before.filter(|b| b.config.is_same_but_for_chains(&config));
        let kept = |chain: &FilterChain<Arc<HttpConfig>>| {
            let before = same_listener?;
            before
                .all_chains()
                .find(|old| old.fingerprint == chain.fingerprint && !old.drain.is_started())
                .cloned()
        };
        let make = |chain, index| kept(chain).unwrap_or_else(|| Chain::new(&config, chain, index, listeners));
        let chains = config
            .chains
            .iter()
            .enumerate()
            .map(|(i, chain)| make(chain, Some(i)))
            .collect();
        let default_chain = config.default_chain.as_ref().map(|chain| make(chain, None));
        let scope = &config.stats.scope;
        let drain = same_listener
            .map(|before| before.drain.clone())
            .unwrap_or_default();
        let worker = |leaf: &str| format!("worker_{}.{leaf}", listeners.worker);
        Self {
            worker_cx_total: scope.counter(&worker("downstream_cx_total")),
            worker_cx_active: scope.gauge(&worker("downstream_cx_active")),
            drain,
            chains,
            default_chain,
            config,
        }
    }

    fn all_chains(&self) -> impl Iterator<Item = &Rc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// The drains of its connections.
    fn all_drains(&self) -> impl Iterator<Item = Drain> {
        let chains = self.all_chains().map(|chain| chain.drain.clone());
        chains.chain([self.drain.clone()])
    }

    /// The chain that takes a connection.
    pub(crate) fn chain_for(&self, connection: &proxy_core::ConnectionInfo) -> Option<&Rc<Chain>> {
        match self.config.matcher.find(connection) {
            Some(index) => self.chains.get(index),
            None => self.default_chain.as_ref(),
        }
    }
}

impl ListenerSlot {
    /// The version in force.
    pub(crate) fn current(&self) -> Rc<ActiveListener> {
        Rc::clone(&self.current.borrow())
    }

    /// Accepts by these tasks from now on, instead of those before.
    pub(crate) fn accept_from(&self, acceptors: impl Iterator<Item = AbortHandle>) {
        self.stop();
        self.stopped.set(false);
        self.acceptors.borrow_mut().extend(acceptors);
    }

    fn stop(&self) {
        self.stopped.set(true);
        self.acceptors
            .borrow_mut()
            .drain(..)
            .for_each(|task| task.abort());
    }
}

impl Listeners {
    /// None yet, on the worker of that number.
    pub(crate) fn new(worker: usize, local: Local) -> Self {
        Self {
            worker,
            local,
            http: Rc::default(),
            by_name: RefCell::default(),
            by_address: RefCell::default(),
            draining: RefCell::default(),
        }
    }

    /// Puts a listener in force, or replaces it behind its sockets. `drain`: how connections of the version before end.
    pub(crate) fn put(&self, config: Arc<Listener>, drain: DrainPlan) -> Rc<ListenerSlot> {
        let name = Arc::clone(&config.name);
        let known = self.by_name.borrow().get(&name).cloned();
        let before = known.as_ref().map(|slot| slot.current());
        let active = Rc::new(ActiveListener::new(config, before.as_deref(), self));
        let slot = match known {
            Some(slot) => {
                slot.current.replace(Rc::clone(&active));
                slot
            }
            None => Rc::new(ListenerSlot {
                current: RefCell::new(Rc::clone(&active)),
                acceptors: RefCell::default(),
                stopped: Cell::new(false),
            }),
        };
        if let Some(before) = &before {
            self.forget_addresses(before, &slot);
        }
        self.index_addresses(&active, &slot);
        self.by_name.borrow_mut().insert(name, Rc::clone(&slot));
        if let Some(before) = before {
            let gone = before
                .all_chains()
                .filter(|old| !active.all_chains().any(|new| Rc::ptr_eq(old, new)));
            let gone = gone.map(|chain| chain.drain.clone());
            if before.config.is_same_but_for_chains(&active.config) {
                self.drain_to_end(gone.collect(), drain, End::FilterChain);
            } else {
                let whole = gone.chain([before.drain.clone()]);
                self.drain_to_end(whole.collect(), drain, End::Listener);
            }
        }
        slot
    }

    /// Removes a listener; its connections drain.
    pub(crate) fn remove(&self, name: &str, plan: DrainPlan) {
        let Some(slot) = self.by_name.borrow_mut().remove(name) else {
            return;
        };
        slot.stop();
        self.forget_addresses(&slot.current(), &slot);
        self.drain_to_end(slot.current().all_drains().collect(), plan, End::Listener);
    }

    /// Drains all listeners, or those of direction inbound. As in Envoy that ends none of their connections by force.
    pub(crate) fn drain_all(&self, plan: DrainPlan, inbound_only: bool, stop_accepting: bool) {
        for slot in self.by_name.borrow().values() {
            let active = slot.current();
            if inbound_only && active.config.direction != TrafficDirection::Inbound {
                continue;
            }
            if stop_accepting {
                slot.stop();
            }
            active.all_drains().for_each(|drain| start(&drain, plan));
        }
    }

    /// Starts draining, and ends it when the time is over.
    fn drain_to_end(&self, drains: Vec<Drain>, plan: DrainPlan, end: End) {
        let mut draining = self.draining.borrow_mut();
        draining.retain(|drain| drain.over().is_none());
        draining.extend(drains.iter().cloned());
        drains.iter().for_each(|drain| start(drain, plan));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(plan.time).await;
            drains.iter().for_each(|drain| drain.end(end));
        });
    }

    /// Takes no more connections, and ends those that there are.
    pub(crate) fn end_all(&self) {
        for slot in self.by_name.borrow().values() {
            slot.stop();
            slot.current()
                .all_drains()
                .for_each(|drain| drain.end(End::Listener));
        }
        let draining = self.draining.take();
        draining.iter().for_each(|drain| drain.end(End::Listener));
    }

    fn forget_addresses(&self, active: &ActiveListener, slot: &Rc<ListenerSlot>) {
        let mut index = self.by_address.borrow_mut();
        for address in active
            .config
            .addresses
            .iter()
            .filter_map(BindAddress::socket_addr)
        {
            // The address may belong to another listener by now.
            if index.get(&address).is_some_and(|owner| Rc::ptr_eq(owner, slot)) {
                index.remove(&address);
            }
        }
    }

    fn index_addresses(&self, active: &ActiveListener, slot: &Rc<ListenerSlot>) {
        let addresses = active
            .config
            .addresses
            .iter()
            .filter_map(BindAddress::socket_addr);
        self.by_address
            .borrow_mut()
            .extend(addresses.map(|address| (address, Rc::clone(slot))));
    }

    /// The listener called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Rc<ListenerSlot>> {
        self.by_name.borrow().get(name).cloned()
    }

    /// The listener for a destination: of exactly that address, else of the wildcard address with that port.
    pub(crate) fn for_destination(&self, destination: SocketAddr) -> Option<Rc<ListenerSlot>> {
        let index = self.by_address.borrow();
        let (v4, v6) = (
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        );
        let wildcard = if destination.ip().to_canonical().is_ipv4() {
            v4
        } else {
            v6
        };
        let found = index
            .get(&destination)
            .or_else(|| index.get(&SocketAddr::new(wildcard, destination.port())));
        found.filter(|slot| !slot.stopped.get()).cloned()
    }
}

/// Starts draining by a plan.
fn start(drain: &Drain, plan: DrainPlan) {
    drain.start(Instant::now(), plan.time, plan.immediate);
}
