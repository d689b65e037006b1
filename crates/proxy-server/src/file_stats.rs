//! Statistics of log files (`filesystem.`). Workers and the thread that writes count for themselves; the main thread
//! takes the counts over when somebody wants to see them.

use std::cell::Cell;

use proxy_observe::FileCounts;
use telemetry::stats::{Counter, Gauge, Registry, Scope, Shard};

/// Handles of these statistics.
#[derive(Debug)]
pub(crate) struct FileStats {
    /// Keeps the handles valid.
    _scope: Scope,
    write_buffered: Counter,
    write_completed: Counter,
    write_failed: Counter,
    flushed_by_timer: Counter,
    reopen_failed: Counter,
    write_total_buffered: Gauge,
    /// What is taken over already.
    counted: Cell<FileCounts>,
}

impl FileStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let scope = registry.scope("filesystem.");
        Self {
            write_buffered: scope.counter("write_buffered"),
            write_completed: scope.counter("write_completed"),
            write_failed: scope.counter("write_failed"),
            flushed_by_timer: scope.counter("flushed_by_timer"),
            reopen_failed: scope.counter("reopen_failed"),
            write_total_buffered: scope.gauge("write_total_buffered"),
            _scope: scope,
            counted: Cell::default(),
        }
    }

    /// Takes over what has been counted since the last time.
    pub(crate) fn follow(&self, shard: &Shard, now: FileCounts) {
        let before = self.counted.replace(now);
        for (counter, now, before) in [
            (self.write_buffered, now.write_buffered, before.write_buffered),
            (self.write_completed, now.write_completed, before.write_completed),
            (self.write_failed, now.write_failed, before.write_failed),
            (
                self.flushed_by_timer,
                now.flushed_by_timer,
                before.flushed_by_timer,
            ),
            (self.reopen_failed, now.reopen_failed, before.reopen_failed),
        ] {
            shard.add(counter, now - before);
        }
        shard.set_gauge(self.write_total_buffered, now.write_total_buffered);
    }
}
