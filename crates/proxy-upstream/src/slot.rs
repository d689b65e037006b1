//! Interning of cluster names ([`ClusterSlot`]), done on the main thread while configuration is compiled.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use proxy_core::ClusterSlot;

/// Cluster names and their slots. Slots are never given back: names are few and come again.
#[derive(Debug)]
pub struct SlotTable {
    names: Vec<Arc<str>>,
    slots: HashMap<Arc<str>, ClusterSlot>,
}

impl Default for SlotTable {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotTable {
    /// A table without names.
    #[must_use]
    pub fn new() -> Self {
        Self {
            names: Vec::new(),
            slots: HashMap::new(),
        }
    }

    /// The slot of `name`, made on first use.
    ///
    /// # Panics
    /// When 2³² names have been interned.
    pub fn intern(&mut self, name: &str) -> ClusterSlot {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let slot = ClusterSlot(u32::try_from(self.names.len()).expect("fewer than 2^32 cluster names"));
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.slots.insert(name, slot);
        slot
    }

    /// The slot of `name`, if somebody interned it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<ClusterSlot> {
        self.slots.get(name).copied()
    }

    /// The name behind a slot.
    #[must_use]
    pub fn name(&self, slot: ClusterSlot) -> Option<&Arc<str>> {
        self.names.get(slot.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slot() {
        let mut table = SlotTable::new();
        let a = table.intern("a");
        let b = table.intern("b");
        assert_ne!(a, b);
        assert_eq!(table.intern("a"), a);
        assert_eq!(table.get("b"), Some(b));
        assert_eq!(table.get("c"), None);
        assert_eq!(table.name(b).map(|n| &**n), Some("b"));
    }
}
