//! Earliest-deadline-first scheduling: a weighted round robin that interleaves (Envoy's `EdfScheduler`).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Ties go to the entry that was queued first.
    order: u64,
    index: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    // The heap gives the greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then_with(|| other.order.cmp(&self.order))
    }
}

/// Schedules indexes in proportion to their weights.
#[derive(Debug)]
pub(crate) struct Edf {
    queue: BinaryHeap<Entry>,
    now: f64,
    next_order: u64,
}

impl Edf {
    /// A schedule over indexes 0, 1, … with these weights, `skip` picks after its beginning.
    pub(crate) fn new(weights: impl Iterator<Item = f64>, skip: usize) -> Self {
        let weights: Vec<f64> = weights.collect();
        let mut this = Self {
            queue: BinaryHeap::with_capacity(weights.len()),
            now: 0.0,
            next_order: 0,
        };
        for (index, weight) in weights.iter().enumerate() {
            this.push(index, *weight);
        }
        for _ in 0..skip {
            this.pick(|index| weights[index]);
        }
        this
    }

    fn push(&mut self, index: usize, weight: f64) {
        if weight > 0.0 {
            let entry = Entry {
                deadline: self.now + 1.0 / weight,
                order: self.next_order,
                index,
            };
            self.next_order += 1;
            self.queue.push(entry);
        }
    }

    /// The next index; `weight` says what it weighs from now on.
    pub(crate) fn pick(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        self.push(entry.index, weight(entry.index));
        Some(entry.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_in_proportion_and_interleaved() {
        let weights = [1.0, 3.0, 2.0];
        let mut edf = Edf::new(weights.into_iter(), 0);
        let picks: Vec<usize> = (0..12).filter_map(|_| edf.pick(|i| weights[i])).collect();
        for (index, weight) in weights.iter().enumerate() {
            let count = picks.iter().filter(|p| **p == index).count();
            assert_eq!(count as f64, 2.0 * weight, "index {index} in {picks:?}");
        }
        assert!(picks.windows(3).all(|w| w != [1, 1, 1]), "{picks:?}");
    }

    #[test]
    fn a_weight_of_zero_is_never_picked() {
        let mut edf = Edf::new([0.0, 1.0].into_iter(), 1);
        assert!((0..5).all(|_| edf.pick(|i| i as f64) == Some(1)));
    }
}
