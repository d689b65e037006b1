//! The objects of one kind, by namespace and name.

use std::collections::{BTreeMap, btree_map};
use std::ops::Deref;
use std::sync::Arc;

/// Namespace and name.
pub type Key = (String, String);

/// The objects of one kind. A clone costs nothing, and is one with its original until either changes.
#[derive(Debug)]
pub(crate) struct Table<T>(Arc<BTreeMap<Key, Arc<T>>>);

impl<T> Table<T> {
    pub(crate) fn insert(&mut self, key: Key, object: Arc<T>) {
        Arc::make_mut(&mut self.0).insert(key, object);
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if self.0.contains_key(key) {
            Arc::make_mut(&mut self.0).remove(key);
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Table<T> {
    type Target = BTreeMap<Key, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a, T> IntoIterator for &'a Table<T> {
    type Item = (&'a Key, &'a Arc<T>);
    type IntoIter = btree_map::Iter<'a, Key, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Two tables are equal when they are one: nobody looks at the objects, so two that are not may hold the same.
impl<T> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("n".to_owned(), name.to_owned())
    }

    #[test]
    fn a_clone_is_one_with_its_original_until_either_changes() {
        let mut table = Table::default();
        table.insert(key("a"), Arc::new(1));
        let mut clone = table.clone();
        clone.remove(&key("b"));
        assert_eq!(clone, table);
        clone.insert(key("b"), Arc::new(2));
        assert_ne!(clone, table);
        assert_eq!((table.len(), clone.len()), (1, 2));
    }
}
