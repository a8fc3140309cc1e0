//! The wall clock, and whether to believe it: boards without a clock battery start in the past.
//!
//! Timeouts never come here; they run on [`std::time::Instant`].

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use super::judge::Doubt;
use crate::model::{ClockNote, Timestamp};

/// A source of wall-clock time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Whether deletions by age may rest on [`Clock::now`].
    fn is_trusted(&self) -> bool;

    /// Time since some instant before this program started, sleep included. It never jumps.
    fn uptime(&self) -> Duration;

    /// Whether something besides the clock itself vouches for it.
    fn is_confirmed(&self) -> bool {
        self.is_trusted()
    }

    /// How often it has jumped so far: dates from before the last jump are not to be compared with what it shows now.
    fn jumps(&self) -> u64 {
        0
    }

    /// Why it is not to be believed, if it is not.
    fn doubt(&self) -> Option<Doubt> {
        (!self.is_trusted()).then_some(Doubt::NotSet)
    }

    /// Takes what the last run knew of it.
    fn remember(&self, _note: ClockNote) {}

    /// What the next run should know of it, if anything.
    fn note(&self) -> Option<ClockNote> {
        None
    }
}

/// 2026-01-01T00:00:00Z: a clock that shows an earlier time has never been set since the board got its power.
pub const EARLIEST_BELIEVABLE: Timestamp = Timestamp(1_767_225_600_000_000_000);

/// The system's clock, as it is; [`super::JudgedClock`] is the one to delete by.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }

    fn is_trusted(&self) -> bool {
        self.now() >= EARLIEST_BELIEVABLE
    }

    fn uptime(&self) -> Duration {
        // In whole seconds, which is enough to tell a jump from time that passed.
        Duration::from_secs(u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0))
    }
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
pub struct FakeClock {
    now: AtomicI64,
    untrusted: AtomicBool,
}

impl FakeClock {
    /// A trusted clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now: AtomicI64::new(now.0), untrusted: AtomicBool::new(false) }
    }

    /// Moves it, in either direction.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Says whether it is to be believed.
    pub fn trust(&self, trusted: bool) {
        self.untrusted.store(!trusted, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn is_trusted(&self) -> bool {
        !self.untrusted.load(Ordering::SeqCst)
    }

    /// It stands still: nobody witnesses how time passes here.
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}
