//! Shared immutable values that compare and hash in constant time.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// An `Arc` that remembers the hash of its content, so that a view of thousands of objects is a cheap cache key.
///
/// Equality is equality of content: the same allocation is equal at once, different hashes are unequal at once, and
/// everything else is compared. The hash is stable within one process only.
#[derive(Debug)]
pub struct Shared<T>(Arc<Hashed<T>>);

#[derive(Debug)]
struct Hashed<T> {
    hash: u64,
    value: T,
}

impl<T: Hash> Shared<T> {
    /// Shares a value; its hash is computed here, once.
    pub fn new(value: T) -> Self {
        let hash = foldhash::fast::FixedState::default().hash_one(&value);
        Self(Arc::new(Hashed { hash, value }))
    }
}

impl<T: Eq> Shared<T> {
    /// Becomes one with an equal value of an earlier world, so that whoever compares the two later need not look at them.
    pub(crate) fn reuse(&mut self, earlier: &Self) {
        if self == earlier {
            *self = earlier.clone();
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Eq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || (self.0.hash == other.0.hash && self.0.value == other.0.value)
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<T: Hash + Default> Default for Shared<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_equality_of_content() {
        let one = Shared::new(vec![1, 2]);
        assert_eq!(one, one.clone());
        assert_eq!(one, Shared::new(vec![1, 2]));
        assert_ne!(one, Shared::new(vec![2, 1]));
    }

    #[test]
    fn what_is_equal_to_something_earlier_becomes_one_with_it() {
        let earlier = Shared::new(vec![1, 2]);
        let (mut same, mut other) = (Shared::new(vec![1, 2]), Shared::new(vec![3]));
        same.reuse(&earlier);
        other.reuse(&earlier);
        assert!(same.is(&earlier) && !other.is(&earlier));
        assert_eq!(*other, [3]);
    }
}
