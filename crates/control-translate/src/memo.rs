//! Values by all that they are made of: each is made once, for as long as somebody holds it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::limits;

/// Values that those who ask with equal keys share. A value must be a function of its key alone.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(Mutex<Table<K, V>>);

#[derive(Debug)]
struct Table<K, V> {
    /// The table holds no value alive, but the keys of values that are gone until it is swept.
    values: HashMap<K, Weak<V>, RandomState>,
    /// It is swept when it would grow beyond this many entries.
    sweep_at: usize,
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Table {
            values: HashMap::default(),
            sweep_at: limits::MEMO_SWEEP_ENTRIES,
        }))
    }
}

impl<K: Eq + Hash, V> Memo<K, V> {
    /// The value of a key, made now or found.
    pub(crate) fn get(&self, key: K, make: impl FnOnce(&K) -> V) -> Arc<V> {
        if let Some(found) = self.0.lock().find(&key) {
            return found;
        }
        // Nobody waits for somebody else's: two may make the same at the same time, and one of them is kept.
        let made = Arc::new(make(&key));
        let mut table = self.0.lock();
        if let Some(found) = table.find(&key) {
            return found;
        }
        table.make_room();
        table.values.insert(key, Arc::downgrade(&made));
        made
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().values.len()
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    fn find(&self, key: &K) -> Option<Arc<V>> {
        self.values.get(key).and_then(Weak::upgrade)
    }

    /// Drops the entries of values that nobody holds, seldom enough that it costs next to nothing for each that came.
    fn make_room(&mut self) {
        if self.values.len() < self.sweep_at {
            return;
        }
        self.values.retain(|_, value| value.strong_count() > 0);
        self.sweep_at = limits::MEMO_SWEEP_ENTRIES.max(2 * self.values.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_for_as_long_as_somebody_holds_it() {
        let memo = Memo::<u32, String>::default();
        let one = memo.get(1, u32::to_string);
        assert!(Arc::ptr_eq(
            &one,
            &memo.get(1, |_| unreachable!("it is there already"))
        ));
        assert_eq!(*memo.get(2, u32::to_string), "2");
        drop(one);
        assert_eq!(*memo.get(1, |_| "again".to_owned()), "again");
    }

    #[test]
    fn values_that_nobody_holds_do_not_pile_up() {
        let memo = Memo::<usize, usize>::default();
        let held = memo.get(0, |_| 0);
        for key in 1..10 * limits::MEMO_SWEEP_ENTRIES {
            memo.get(key, |key| *key);
        }
        assert!(memo.len() <= limits::MEMO_SWEEP_ENTRIES);
        assert!(Arc::ptr_eq(&held, &memo.get(0, |_| unreachable!("it is held"))));
    }
}
