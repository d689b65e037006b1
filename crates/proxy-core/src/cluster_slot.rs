//! The number that stands for a cluster's name at request time.
//!
//! Route compilation interns cluster names into slots on the main thread, so that a request finds its cluster by index
//! and not by hashing a name. A slot stays with its name for the life of the process, whether or not a cluster of that
//! name exists: a route may name a cluster that arrives later, or never.

/// Stands for a cluster name. Slots are dense and begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterSlot(pub u32);

impl ClusterSlot {
    /// The slot as an index into a table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
