//! What keeps the node from taking work, by name: raised and cleared by whoever notices, read by `/readyz`.
//!
//! A condition is a state, not an event: it is raised for as long as it holds, with words that say what to do.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can keep the node from taking work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The node stops.
    Stopping,
    /// The core thread does not answer.
    Core,
    /// The store cannot be written.
    Store,
    /// The file system is full, or about to be, or fails.
    Disk,
    /// There is no room for results and scratch.
    Quota,
    /// The node ended shortly after its last starts: nothing is run for a while.
    CrashLoop,
}

impl Condition {
    /// Every condition, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Stopping, Self::Core, Self::Store, Self::Disk, Self::Quota, Self::CrashLoop];

    /// Its name, as `/readyz` shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Core => "core",
            Self::Store => "store",
            Self::Disk => "disk",
            Self::Quota => "quota",
            Self::CrashLoop => "crash-loop",
        }
    }
}

/// The conditions that hold now.
#[derive(Debug, Default)]
pub struct Health(Mutex<[Option<String>; Condition::ALL.len()]>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, [Option<String>; Condition::ALL.len()]> {
        // Each condition is set in one step: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The condition holds from now on, for this reason. Says whether it did not hold before.
    pub fn raise(&self, condition: Condition, why: impl Into<String>) -> bool {
        self.lock()[condition as usize].replace(why.into()).is_none()
    }

    /// It no longer holds. Says whether it did.
    pub fn clear(&self, condition: Condition) -> bool {
        self.lock()[condition as usize].take().is_some()
    }

    /// Why it holds, if it does.
    #[must_use]
    pub fn why(&self, condition: Condition) -> Option<String> {
        self.lock()[condition as usize].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_until_it_is_cleared() {
        let health = Health::default();
        for condition in Condition::ALL {
            assert_eq!(Condition::ALL[condition as usize], condition);
            assert_eq!(health.why(condition), None);
            assert!(!health.clear(condition));
            assert!(health.raise(condition, "first"));
            assert!(!health.raise(condition, "second"));
            assert_eq!(health.why(condition).as_deref(), Some("second"));
        }
        assert!(health.clear(Condition::Store));
        assert_eq!(health.why(Condition::Store), None);
        assert!(health.why(Condition::Quota).is_some());
    }
}
