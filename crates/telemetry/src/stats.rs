//! Counters, gauges and histograms under Envoy's names ("Statistics" in Envoy's operations guide).
//!
//! A [`Registry`] gives out handles when configuration is compiled: [`Scope::counter`] and its like. A handle is an
//! index. Each thread takes one [`Shard`] and increments plain cells in it: no lock and no atomic read-modify-write.
//! Readers sum over all shards with [`Registry::snapshot`].
//!
//! A scope owns its statistics: when the last clone of a [`Scope`] is dropped they disappear and their slots are used
//! again. So whoever keeps handles keeps the scope beside them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::histogram::{Cells, Merged};
use crate::names::{Kind, NameId, Names};

/// Cells in a page; shards grow by pages.
const PAGE_CELLS: usize = 1024;
/// Most statistics that a registry holds; beyond it handles share one overflow slot, which is never reported.
pub const MAX_STATS: usize = 1 << 20;
/// Where statistics beyond [`MAX_STATS`] are counted together; slots of real ones start at 1.
const OVERFLOW_SLOT: u32 = 0;

/// Below so many scopes nobody looks for those that are gone.
const SWEEP_SCOPES: usize = 64;

type Page = Arc<[AtomicU64]>;

/// A count that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter(u32);

/// A value that goes up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gauge(u32);

/// A distribution of values, in the unit that its name says (Envoy: milliseconds or bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Histogram(u32);

/// A tag, as Envoy extracts it from a name: `envoy.cluster_name` = `app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// The tag's name, with dots.
    pub name: &'static str,
    /// Its value.
    pub value: Arc<str>,
}

#[derive(Debug)]
struct ScopeInner {
    prefix: String,
    tag_free: String,
    tags: Vec<Tag>,
    leaves: Leaves,
}

/// The statistics of one scope. The table keeps them too, to free the slots when the scope is gone.
type Leaves = Arc<Mutex<Vec<Leaf>>>;

/// A statistic of a scope. A mesh has tens of thousands, and most scopes have the same ones, so that it is small.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    name: NameId,
    slot: u32,
}

#[derive(Debug)]
struct ScopeEntry {
    alive: Weak<ScopeInner>,
    leaves: Leaves,
}

#[derive(Debug, Default)]
struct Table {
    scopes: Vec<ScopeEntry>,
    by_prefix: HashMap<Box<str>, Weak<ScopeInner>>,
    names: Names,
    /// How many scopes there are before the next look for those that are gone.
    sweep_at: usize,
    stats: usize,
    next_slot: u32,
    free_slots: Vec<u32>,
    next_histogram: u32,
    free_histograms: Vec<u32>,
    shards: Vec<Arc<ShardInner>>,
}

#[derive(Debug, Default)]
struct ShardInner {
    pages: Mutex<Vec<Page>>,
    histograms: Mutex<Vec<Option<Arc<Cells>>>>,
}

/// All statistics of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    table: Arc<Mutex<Table>>,
}

/// A set of statistics with a common prefix, such as `cluster.app.`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scope {
    registry: Registry,
    inner: Arc<ScopeInner>,
}

/// One thread's cells. Cheap to clone within the thread, and not `Send`.
#[derive(Clone, Debug)]
pub struct Shard {
    local: Rc<Local>,
}

#[derive(Debug)]
struct Local {
    pages: RefCell<Vec<Page>>,
    histograms: RefCell<Vec<Option<Arc<Cells>>>>,
    shared: Arc<ShardInner>,
}

/// A statistic's value at the time of the snapshot.
#[derive(Clone, Debug)]
pub enum Value {
    /// A counter's total.
    Counter(u64),
    /// A gauge's value. Never negative in sum.
    Gauge(u64),
    /// A histogram since the start.
    Histogram(Merged),
}

/// One statistic of a snapshot.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Envoy's full name, `cluster.app.upstream_rq_total`.
    pub name: String,
    /// The name without its tags, `cluster.upstream_rq_total`.
    pub tag_free: String,
    /// The tags.
    pub tags: Vec<Tag>,
    /// The value.
    pub value: Value,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope without tags. `prefix` is empty or ends in a dot: `server.`, `listener_manager.`.
    #[must_use]
    pub fn scope(&self, prefix: &str) -> Scope {
        self.tagged_scope(prefix, prefix, Vec::new())
    }

    /// A scope whose prefix holds tag values: `cluster.app.` is `cluster.` with tag `envoy.cluster_name`. Whoever asks for
    /// a prefix that somebody has gets the same statistics, as in Envoy: listeners with one `stat_prefix` count together,
    /// and what is replaced by a new version goes on counting.
    #[must_use]
    pub fn tagged_scope(&self, prefix: &str, tag_free: &str, tags: Vec<Tag>) -> Scope {
        let mut table = self.table.lock();
        if let Some(inner) = table.by_prefix.get(prefix).and_then(Weak::upgrade) {
            return Scope {
                registry: self.clone(),
                inner,
            };
        }
        let leaves = Leaves::default();
        let inner = Arc::new(ScopeInner {
            prefix: prefix.to_owned(),
            tag_free: tag_free.to_owned(),
            tags,
            leaves: Arc::clone(&leaves),
        });
        let alive = Arc::downgrade(&inner);
        table.by_prefix.insert(prefix.into(), Weak::clone(&alive));
        table.add_scope(ScopeEntry { alive, leaves });
        drop(table);
        Scope {
            registry: self.clone(),
            inner,
        }
    }

    /// The scope of a cluster's statistics.
    #[must_use]
    pub fn cluster_scope(&self, cluster: &str) -> Scope {
        // Envoy writes a colon in a stat name as an underscore.
        let name = cluster.replace(':', "_");
        let tag = Tag {
            name: "envoy.cluster_name",
            value: name.as_str().into(),
        };
        self.tagged_scope(&format!("cluster.{name}."), "cluster.", vec![tag])
    }

    /// The scope of an HTTP connection manager's statistics.
    #[must_use]
    pub fn http_scope(&self, stat_prefix: &str) -> Scope {
        let name = stat_prefix.replace(':', "_");
        let tag = Tag {
            name: "envoy.http_conn_manager_prefix",
            value: name.as_str().into(),
        };
        self.tagged_scope(&format!("http.{name}."), "http.", vec![tag])
    }

    /// The scope of a listener's statistics; `address` as Envoy prints it, `0.0.0.0_15006`.
    #[must_use]
    pub fn listener_scope(&self, address: &str) -> Scope {
        let name = address.replace(':', "_");
        let tag = Tag {
            name: "envoy.listener_address",
            value: name.as_str().into(),
        };
        self.tagged_scope(&format!("listener.{name}."), "listener.", vec![tag])
    }

    /// The scope of a TCP proxy's statistics.
    #[must_use]
    pub fn tcp_scope(&self, stat_prefix: &str) -> Scope {
        let name = stat_prefix.replace(':', "_");
        let tag = Tag {
            name: "envoy.tcp_prefix",
            value: name.as_str().into(),
        };
        self.tagged_scope(&format!("tcp.{name}."), "tcp.", vec![tag])
    }

    /// A shard for the calling thread. Take one per thread and clone it.
    #[must_use]
    pub fn shard(&self) -> Shard {
        let shared = Arc::new(ShardInner::default());
        self.table.lock().shards.push(Arc::clone(&shared));
        let local = Local {
            pages: RefCell::default(),
            histograms: RefCell::default(),
            shared,
        };
        Shard {
            local: Rc::new(local),
        }
    }

    /// All statistics, sorted by name.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Stat> {
        let mut table = self.table.lock();
        table.sweep();
        let mut stats = Vec::with_capacity(table.stats);
        for scope in &table.scopes {
            if let Some(inner) = scope.alive.upgrade() {
                stats.extend(scope.leaves.lock().iter().map(|leaf| table.read(&inner, leaf)));
            }
        }
        stats.sort_by(|a, b| a.name.cmp(&b.name));
        stats
    }

    /// Sets all counters and histograms to zero, as Envoy's `/reset_counters` does; gauges stay.
    pub fn reset_counters(&self) {
        let table = self.table.lock();
        for scope in &table.scopes {
            for leaf in scope.leaves.lock().iter() {
                let (kind, _) = table.names.of(leaf.name);
                if kind != Kind::Gauge {
                    table.clear(kind, leaf.slot);
                }
            }
        }
    }

    fn register(&self, scope: &ScopeInner, name: &str, kind: Kind) -> u32 {
        let mut table = self.table.lock();
        let mut leaves = scope.leaves.lock();
        let known = table.names.find(kind, name);
        if let Some(leaf) = leaves.iter().find(|leaf| Some(leaf.name) == known) {
            return leaf.slot;
        }
        if table.stats >= MAX_STATS {
            return OVERFLOW_SLOT;
        }
        let slot = table.slot(kind);
        table.stats += 1;
        let name = table.names.acquire(kind, name);
        leaves.push(Leaf { name, slot });
        slot
    }
}

impl Table {
    fn slot(&mut self, kind: Kind) -> u32 {
        let (free, next) = match kind {
            Kind::Histogram => (&mut self.free_histograms, &mut self.next_histogram),
            _ => (&mut self.free_slots, &mut self.next_slot),
        };
        free.pop().unwrap_or_else(|| {
            *next += 1;
            *next
        })
    }

    /// Adds a scope. Whenever their number has doubled those that are gone are forgotten: configuration may change for
    /// ever in a process whose statistics nobody reads.
    fn add_scope(&mut self, scope: ScopeEntry) {
        if self.scopes.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = (self.scopes.len() * 2).max(SWEEP_SCOPES);
        }
        self.scopes.push(scope);
    }

    /// Forgets statistics whose scope is gone.
    fn sweep(&mut self) {
        let scopes = std::mem::take(&mut self.scopes);
        let (alive, dead): (Vec<_>, Vec<_>) = scopes.into_iter().partition(|s| s.alive.strong_count() > 0);
        self.scopes = alive;
        self.by_prefix.retain(|_, scope| scope.strong_count() > 0);
        for leaf in dead.iter().flat_map(|s| std::mem::take(&mut *s.leaves.lock())) {
            let kind = self.names.release(leaf.name);
            self.clear(kind, leaf.slot);
            self.stats -= 1;
            match kind {
                Kind::Histogram => self.free_histograms.push(leaf.slot),
                _ => self.free_slots.push(leaf.slot),
            }
        }
    }

    fn clear(&self, kind: Kind, slot: u32) {
        for shard in &self.shards {
            if kind == Kind::Histogram {
                if let Some(Some(cells)) = shard.histograms.lock().get(slot as usize) {
                    cells.clear();
                }
            } else if let Some(page) = shard.pages.lock().get(slot as usize / PAGE_CELLS) {
                page[slot as usize % PAGE_CELLS].store(0, Ordering::Relaxed);
            }
        }
    }

    fn sum(&self, slot: u32) -> u64 {
        let (page, cell) = (slot as usize / PAGE_CELLS, slot as usize % PAGE_CELLS);
        let values = self
            .shards
            .iter()
            .filter_map(|s| s.pages.lock().get(page).map(|p| p[cell].load(Ordering::Relaxed)));
        values.fold(0, u64::wrapping_add)
    }

    fn read(&self, scope: &ScopeInner, leaf: &Leaf) -> Stat {
        let (kind, name) = self.names.of(leaf.name);
        let value = match kind {
            Kind::Counter => Value::Counter(self.sum(leaf.slot)),
            Kind::Gauge => Value::Gauge(u64::try_from(self.sum(leaf.slot).cast_signed()).unwrap_or(0)),
            Kind::Histogram => {
                let mut merged = Merged::default();
                for shard in &self.shards {
                    if let Some(Some(cells)) = shard.histograms.lock().get(leaf.slot as usize) {
                        cells.merge(&mut merged);
                    }
                }
                Value::Histogram(merged)
            }
        };
        Stat {
            name: format!("{}{name}", scope.prefix),
            tag_free: format!("{}{name}", scope.tag_free),
            tags: scope.tags.clone(),
            value,
        }
    }
}

impl Scope {
    /// The counter called `leaf` in this scope, made on first use.
    #[must_use]
    pub fn counter(&self, leaf: &str) -> Counter {
        Counter(self.registry.register(&self.inner, leaf, Kind::Counter))
    }

    /// The gauge called `leaf` in this scope, made on first use.
    #[must_use]
    pub fn gauge(&self, leaf: &str) -> Gauge {
        Gauge(self.registry.register(&self.inner, leaf, Kind::Gauge))
    }

    /// The histogram called `leaf` in this scope, made on first use.
    #[must_use]
    pub fn histogram(&self, leaf: &str) -> Histogram {
        Histogram(self.registry.register(&self.inner, leaf, Kind::Histogram))
    }

    /// The scope of `path`, which ends in a dot, within this one, for one `value` of tag `name`: `ssl.certificate.` and
    /// `default` give `listener.0.0.0.0_15006.ssl.certificate.default.`.
    #[must_use]
    pub fn tagged(&self, path: &str, name: &'static str, value: &str) -> Self {
        // As Envoy makes a name fit for a place between dots.
        let value = value.replace("://", "_").replace(":/", "_").replace(':', "_");
        let ScopeInner {
            prefix,
            tag_free,
            tags,
            ..
        } = &*self.inner;
        let prefix = format!("{prefix}{path}{value}.");
        let tag = Tag {
            name,
            value: value.into(),
        };
        let tags = std::iter::once(tag).chain(tags.iter().cloned()).collect();
        self.registry
            .tagged_scope(&prefix, &format!("{tag_free}{path}"), tags)
    }

    /// The prefix of the names in this scope, with its final dot.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }
}

impl Shard {
    /// Adds one.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.change(counter.0, 1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        self.change(counter.0, n);
    }

    /// Moves a gauge by `delta`.
    #[inline]
    pub fn move_gauge(&self, gauge: Gauge, delta: i64) {
        self.change(gauge.0, delta.cast_unsigned());
    }

    /// Sets this thread's part of a gauge. For gauges that one thread owns.
    pub fn set_gauge(&self, gauge: Gauge, value: u64) {
        self.with_cell(gauge.0, |cell| cell.store(value, Ordering::Relaxed));
    }

    /// Counts a value.
    pub fn record(&self, histogram: Histogram, value: u64) {
        let index = histogram.0 as usize;
        if let Some(Some(cells)) = self.local.histograms.borrow().get(index) {
            cells.record(value);
            return;
        }
        let mut shared = self.local.shared.histograms.lock();
        if shared.len() <= index {
            shared.resize(index + 1, None);
        }
        shared[index].get_or_insert_default().record(value);
        self.local.histograms.borrow_mut().clone_from(&shared);
    }

    #[inline]
    fn change(&self, slot: u32, by: u64) {
        self.with_cell(slot, |cell| {
            // The owner is the only writer, so a load and a store suffice.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        });
    }

    #[inline]
    fn with_cell(&self, slot: u32, f: impl FnOnce(&AtomicU64)) {
        let (page, cell) = (slot as usize / PAGE_CELLS, slot as usize % PAGE_CELLS);
        if let Some(cells) = self.local.pages.borrow().get(page) {
            f(&cells[cell]);
            return;
        }
        self.grow(page);
        f(&self.local.pages.borrow()[page][cell]);
    }

    #[cold]
    fn grow(&self, page: usize) {
        let mut shared = self.local.shared.pages.lock();
        while shared.len() <= page {
            shared.push((0..PAGE_CELLS).map(|_| AtomicU64::new(0)).collect());
        }
        self.local.pages.borrow_mut().clone_from(&shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(registry: &Registry, name: &str) -> Option<u64> {
        registry
            .snapshot()
            .into_iter()
            .find(|s| s.name == name)
            .map(|s| match s.value {
                Value::Counter(n) | Value::Gauge(n) => n,
                Value::Histogram(m) => m.count(),
            })
    }

    #[test]
    fn shards_of_several_threads_are_summed() {
        let registry = Registry::new();
        let scope = registry.cluster_scope("outbound|80||a.b");
        let (total, active) = (
            scope.counter("upstream_rq_total"),
            scope.gauge("upstream_cx_active"),
        );
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let registry = registry.clone();
                std::thread::spawn(move || {
                    let shard = registry.shard();
                    (0..1000).for_each(|_| shard.inc(total));
                    shard.move_gauge(active, 2);
                    shard.move_gauge(active, -1);
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(
            value(&registry, "cluster.outbound|80||a.b.upstream_rq_total"),
            Some(3000)
        );
        assert_eq!(
            value(&registry, "cluster.outbound|80||a.b.upstream_cx_active"),
            Some(3)
        );
    }

    #[test]
    fn the_same_name_in_the_same_scope_is_the_same_statistic() {
        let registry = Registry::new();
        let scope = registry.scope("server.");
        assert_eq!(scope.counter("live"), scope.counter("live"));
        assert_ne!(scope.counter("live"), scope.counter("dead"));
    }

    #[test]
    fn scopes_of_one_prefix_are_one_as_long_as_somebody_has_them() {
        let registry = Registry::new();
        let shard = registry.shard();
        let (first, second) = (registry.tcp_scope("a"), registry.tcp_scope("a"));
        shard.inc(first.counter("downstream_cx_total"));
        drop(first);
        shard.inc(second.counter("downstream_cx_total"));
        assert_eq!(registry.snapshot().len(), 1);
        assert_eq!(value(&registry, "tcp.a.downstream_cx_total"), Some(2));
        drop(second);
        let third = registry.tcp_scope("a").counter("downstream_cx_total");
        assert_eq!(value(&registry, "tcp.a.downstream_cx_total"), None);
        let _ = third;
    }

    #[test]
    fn a_dropped_scope_takes_its_statistics_along_and_its_slots_start_again_at_zero() {
        let registry = Registry::new();
        let shard = registry.shard();
        let old = registry.cluster_scope("old");
        shard.inc(old.counter("upstream_rq_total"));
        drop(old);
        assert_eq!(value(&registry, "cluster.old.upstream_rq_total"), None);
        let new = registry.cluster_scope("new");
        let _counter = new.counter("upstream_rq_total");
        assert_eq!(value(&registry, "cluster.new.upstream_rq_total"), Some(0));
    }

    #[test]
    fn scopes_that_come_and_go_do_not_pile_up_while_nobody_reads() {
        let registry = Registry::new();
        let kept = registry.scope("kept.");
        let _counter = kept.counter("a");
        for round in 0..1000 {
            let _counter = registry.scope(&format!("{round}.")).counter("a");
        }
        let table = registry.table.lock();
        assert!(table.scopes.len() <= 2 * SWEEP_SCOPES, "{}", table.scopes.len());
        assert!(table.next_slot <= 2 * SWEEP_SCOPES as u32, "{}", table.next_slot);
    }

    #[test]
    fn histograms_grow_on_first_use() {
        let registry = Registry::new();
        let shard = registry.shard();
        let scope = registry.scope("x.");
        let (a, b) = (scope.histogram("a"), scope.histogram("b"));
        shard.record(b, 12);
        shard.record(b, 13);
        shard.record(a, 1);
        assert_eq!(value(&registry, "x.b"), Some(2));
        assert_eq!(value(&registry, "x.a"), Some(1));
    }
}
