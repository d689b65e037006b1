//! Spreading connections over the workers (Envoy's connection balance), and numbering them.
//!
//! The counts of active connections are all that workers read of each other; a connection moves as a command.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use crate::command::{Command, HandedOver};

/// Active connections per worker.
pub(crate) type Load = Arc<[AtomicU32]>;

/// One worker among its peers.
#[derive(Debug)]
pub(crate) struct Balancer {
    index: usize,
    load: Load,
    peers: Vec<mpsc::Sender<Command>>,
    next_connection: Cell<u64>,
}

impl Balancer {
    /// `peers` is where the workers take commands, the one of number `index` included.
    pub(crate) fn new(index: usize, load: Load, peers: Vec<mpsc::Sender<Command>>) -> Self {
        Self {
            index,
            load,
            peers,
            next_connection: Cell::new(index as u64),
        }
    }

    /// A connection id that no other worker gives.
    pub(crate) fn connection_id(&self) -> u64 {
        let id = self.next_connection.get();
        self.next_connection.set(id + self.peers.len() as u64);
        id
    }

    /// Counts a connection on this worker until the guard is dropped.
    pub(crate) fn count_connection(&self) -> ConnectionCount {
        let load = Arc::clone(&self.load);
        load[self.index].fetch_add(1, Ordering::Relaxed);
        ConnectionCount {
            load,
            index: self.index,
        }
    }

    /// Connections on this worker.
    pub(crate) fn connections(&self) -> u32 {
        self.load[self.index].load(Ordering::Relaxed)
    }

    /// The worker that a new connection is better given to. Unless the balance must be exact, a worker keeps a
    /// connection while it has at most a quarter more than the least loaded, because handing over costs a wake-up.
    pub(crate) fn less_loaded_peer(&self, exact: bool) -> Option<usize> {
        let of = |worker: usize| self.load[worker].load(Ordering::Relaxed);
        let (mine, least) = (
            of(self.index),
            (0..self.load.len()).min_by_key(|worker| of(*worker))?,
        );
        let tolerance = if exact { 0 } else { of(least) / 4 };
        (mine > of(least) + tolerance).then_some(least)
    }

    /// Gives a connection to another worker, or gets it back when that worker's queue is full.
    pub(crate) fn hand_over(&self, peer: usize, connection: HandedOver) -> Result<(), HandedOver> {
        let sent = self.peers[peer].try_send(Command::Connection(connection));
        sent.map_err(|error| match error.into_inner() {
            Command::Connection(connection) => connection,
            _ => unreachable!("what was not sent comes back"),
        })
    }
}

/// Counts one connection of a worker.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    load: Load,
    index: usize,
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.load[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The balancer of the first of two workers that have `counts` connections.
    fn balancer(counts: [u32; 2]) -> Balancer {
        let load = counts.into_iter().map(AtomicU32::new).collect();
        let peers = (0..counts.len()).map(|_| mpsc::channel(1).0).collect();
        Balancer::new(0, load, peers)
    }

    #[test]
    fn a_quarter_more_than_the_least_loaded_worker_has_is_kept() {
        assert_eq!(balancer([10, 8]).less_loaded_peer(false), None);
        assert_eq!(balancer([11, 8]).less_loaded_peer(false), Some(1));
    }

    #[test]
    fn an_exact_balance_gives_away_whatever_another_worker_has_fewer_of() {
        assert_eq!(balancer([8, 8]).less_loaded_peer(true), None);
        assert_eq!(balancer([9, 8]).less_loaded_peer(true), Some(1));
    }

    #[test]
    fn a_connection_counts_until_its_guard_is_dropped() {
        let balancer = balancer([0, 0]);
        let count = balancer.count_connection();
        assert_eq!(balancer.less_loaded_peer(true), Some(1));
        drop(count);
        assert_eq!(balancer.less_loaded_peer(true), None);
    }

    #[test]
    fn workers_give_different_connection_ids() {
        let ids = |index| {
            let load: Load = (0..2).map(AtomicU32::new).collect();
            let peers = (0..2).map(|_| mpsc::channel(1).0).collect();
            let balancer = Balancer::new(index, load, peers);
            [balancer.connection_id(), balancer.connection_id()]
        };
        assert_eq!((ids(0), ids(1)), ([0, 2], [1, 3]));
    }
}
