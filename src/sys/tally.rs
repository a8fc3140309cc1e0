//! What is counted while the node works, for whoever watches it. Counting never waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long jobs took that have ended.
pub static JOB_DURATION: Histogram = Histogram::new();

/// Bytes that the stores wrote to the files of their databases.
pub static STATE_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Upper bounds of the buckets in seconds.
pub const BOUNDS: [f64; 8] = [0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0];

/// How many times something took how long.
#[derive(Debug)]
pub struct Histogram {
    /// By bucket; the last is for what is longer than the last bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    millis: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// How many were at most as long as the bound of that place.
    pub cumulated: [u64; BOUNDS.len()],
    /// All of them.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], millis: AtomicU64::new(0) }
    }

    /// One more.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// What there is now. Each number is right; those of one that is observed meanwhile may be missing in some.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let mut count = 0;
        let cumulated = std::array::from_fn(|bucket| {
            count += self.buckets[bucket].load(Ordering::Relaxed);
            count
        });
        count += self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        Observed { cumulated, count, sum: Duration::from_millis(self.millis.load(Ordering::Relaxed)) }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_observed_is_counted_once_and_cumulated() {
        let histogram = Histogram::new();
        for millis in [0, 100, 101, 5_000, 90_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let observed = histogram.observed();
        assert_eq!(observed.cumulated, [2, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!((observed.count, observed.sum), (5, Duration::from_millis(90_005_201)));
    }
}
