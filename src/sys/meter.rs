//! Counts what an execution writes, where it writes it, against its limit.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Bytes;

/// More was written than the execution may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} more would exceed the disk limit of {limit} ({used} used)")]
pub struct OverLimit {
    /// What was to be written.
    pub asked: Bytes,
    /// What is already there.
    pub used: Bytes,
    /// What may be there.
    pub limit: Bytes,
}

/// A counter with a limit, shared by all who write for one execution.
#[derive(Debug)]
pub struct Meter {
    limit: u64,
    used: AtomicU64,
}

impl Meter {
    /// Nothing used of `limit`.
    #[must_use]
    pub const fn new(limit: Bytes) -> Self {
        Self { limit: limit.0, used: AtomicU64::new(0) }
    }

    /// Takes `n` bytes, all or nothing. To be called before they are written.
    ///
    /// # Errors
    /// The limit would be exceeded; nothing was taken.
    pub fn charge(&self, n: Bytes) -> Result<(), OverLimit> {
        let take = |used: u64| used.checked_add(n.0).filter(|sum| *sum <= self.limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(used) => Err(OverLimit { asked: n, used: Bytes(used), limit: Bytes(self.limit) }),
        }
    }

    /// Gives back what was taken and is no longer there.
    pub fn release(&self, n: Bytes) {
        // The closure always answers Some: this cannot fail.
        let _ = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(n.0)));
    }

    /// What is taken.
    #[must_use]
    pub fn used(&self) -> Bytes {
        Bytes(self.used.load(Ordering::Acquire))
    }

    /// What may be taken in all.
    #[must_use]
    pub const fn limit(&self) -> Bytes {
        Bytes(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_all_or_nothing() {
        let meter = Meter::new(Bytes(10));
        meter.charge(Bytes(7)).unwrap();
        let error = meter.charge(Bytes(4)).unwrap_err();
        assert_eq!((error.used, error.limit), (Bytes(7), Bytes(10)));
        assert!(meter.charge(Bytes(u64::MAX)).is_err());
        meter.release(Bytes(5));
        meter.charge(Bytes(8)).unwrap();
        meter.release(Bytes(100));
        assert_eq!(meter.used(), Bytes::ZERO);
    }
}
