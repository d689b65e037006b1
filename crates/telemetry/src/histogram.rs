//! Log-linear buckets with two significant digits, the resolution of the histograms that Envoy keeps (circllhist).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Buckets in a decade: the two leading digits run from 10 to 99.
const PER_DECADE: usize = 90;
/// Decades that a `u64` can need beyond the first hundred values, which are exact.
const DECADES: usize = 19;

type Decade = Box<[AtomicU32]>;

/// One thread's share of a histogram. Written by its owner only, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    exact: OnceLock<Decade>,
    decades: [OnceLock<Decade>; DECADES],
    sum: AtomicU64,
}

fn decade(size: usize) -> Decade {
    (0..size).map(|_| AtomicU32::new(0)).collect()
}

impl Cells {
    /// Counts one value. Only the owning thread calls this, hence no read-modify-write instruction.
    pub(crate) fn record(&self, value: u64) {
        let cell = if value < 100 {
            &self.exact.get_or_init(|| decade(100))[usize::try_from(value).unwrap_or(0)]
        } else {
            let (index, digits) = locate(value);
            &self.decades[index].get_or_init(|| decade(PER_DECADE))[digits]
        };
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.sum.store(
            self.sum.load(Ordering::Relaxed).wrapping_add(value),
            Ordering::Relaxed,
        );
    }

    /// Adds this share to `into`.
    pub(crate) fn merge(&self, into: &mut Merged) {
        into.sum = into.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
        let mut add = |lower: u64, width: u64, cell: &AtomicU32| {
            let count = u64::from(cell.load(Ordering::Relaxed));
            if count > 0 {
                into.add(Bucket { lower, width, count });
            }
        };
        for (value, cell) in self.exact.get().into_iter().flatten().enumerate() {
            add(value as u64, 1, cell);
        }
        for (index, cells) in self.decades.iter().enumerate() {
            let width = 10_u64.pow(u32::try_from(index).unwrap_or(0) + 1);
            for (digits, cell) in cells.get().into_iter().flatten().enumerate() {
                add((digits as u64 + 10).saturating_mul(width), width, cell);
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.sum.store(0, Ordering::Relaxed);
        for cell in self
            .exact
            .get()
            .into_iter()
            .chain(self.decades.iter().filter_map(OnceLock::get))
            .flatten()
        {
            cell.store(0, Ordering::Relaxed);
        }
    }
}

/// The decade (0 for 100..1000) and the index of the two leading digits of a value of at least 100.
fn locate(value: u64) -> (usize, usize) {
    let exponent = value.ilog10() - 1;
    let digits = value / 10_u64.pow(exponent) - 10;
    ((exponent - 1) as usize, usize::try_from(digits).unwrap_or(0))
}

/// A non-empty bucket: `count` values in `[lower, lower + width)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Smallest value of the bucket.
    pub lower: u64,
    /// Width of the bucket.
    pub width: u64,
    /// Values counted.
    pub count: u64,
}

/// A histogram summed over all threads.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Non-empty buckets in ascending order.
    pub buckets: Vec<Bucket>,
    /// Sum of all values.
    pub sum: u64,
}

impl Merged {
    fn add(&mut self, bucket: Bucket) {
        match self.buckets.binary_search_by_key(&bucket.lower, |b| b.lower) {
            Ok(at) => self.buckets[at].count += bucket.count,
            Err(at) => self.buckets.insert(at, bucket),
        }
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.count).sum()
    }

    /// How many values were at most `limit`, interpolated inside the bucket that holds it.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub fn at_most(&self, limit: f64) -> u64 {
        let mut total = 0;
        for bucket in &self.buckets {
            let (lower, width) = (bucket.lower as f64, bucket.width as f64);
            // Values below 100 are kept exactly; wider buckets are taken to be evenly filled.
            if bucket.width == 1 {
                total += if lower <= limit { bucket.count } else { 0 };
            } else if lower + width <= limit {
                total += bucket.count;
            } else if lower < limit {
                total += (bucket.count as f64 * (limit - lower) / width) as u64;
            }
        }
        total
    }

    /// The value below which the fraction `q` (0 to 1) of all values lies; NaN when nothing was recorded.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn quantile(&self, q: f64) -> f64 {
        let total = self.count();
        let wanted = q * total as f64;
        let mut seen = 0.0;
        for bucket in &self.buckets {
            let count = bucket.count as f64;
            if seen + count >= wanted {
                return bucket.lower as f64 + bucket.width as f64 * ((wanted - seen) / count).clamp(0.0, 1.0);
            }
            seen += count;
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_land_in_buckets_of_two_significant_digits() {
        let cells = Cells::default();
        for value in [0, 7, 99, 100, 109, 110, 12_345, u64::MAX] {
            cells.record(value);
        }
        let mut merged = Merged::default();
        cells.merge(&mut merged);
        let lowers: Vec<u64> = merged.buckets.iter().map(|b| b.lower).collect();
        assert_eq!(lowers, [0, 7, 99, 100, 110, 12_000, 18_000_000_000_000_000_000]);
        assert_eq!(merged.count(), 8);
    }

    #[test]
    fn quantiles_and_cumulative_counts_agree_with_the_values() {
        let cells = Cells::default();
        (1..=1000).for_each(|v| cells.record(v));
        let mut merged = Merged::default();
        cells.merge(&mut merged);
        assert!(
            (merged.quantile(0.5) - 500.0).abs() < 10.0,
            "{}",
            merged.quantile(0.5)
        );
        assert_eq!(merged.at_most(50.0), 50);
        assert_eq!(merged.sum, 500_500);
    }
}
