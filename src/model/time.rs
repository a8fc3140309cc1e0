//! Wall-clock instants as Bacalhau exchanges them: Unix nanoseconds, printed as RFC 3339.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01T00:00:00Z. Good until the year 2262.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The instant of a system time; times outside the range stop at its ends.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n)),
        }
    }

    /// This instant plus `duration`, stopping at the end of the range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Time passed since `earlier`; zero if it lies ahead (clocks go backwards on boards).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with nine fractional digits.
    #[must_use]
    pub fn rfc3339(self) -> String {
        humantime::format_rfc3339_nanos(self.system()).to_string()
    }

    /// RFC 3339 in UTC, whole seconds, for people.
    #[must_use]
    pub fn rfc3339_seconds(self) -> String {
        humantime::format_rfc3339_seconds(self.system()).to_string()
    }

    /// As a system time; instants before 1970 become 1970 (no such record is written, and printing must not fail).
    fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// What a run of the node leaves the next one to know of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockNote {
    /// The latest time that was believed; 0 if none was.
    pub last: Timestamp,
    /// Since when dates can be compared: the clock was set by days then. 0 if it never was.
    #[serde(default)]
    pub floor: Timestamp,
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.rfc3339_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_subtracts() {
        let t = Timestamp(1_719_930_417_160_015_000);
        assert_eq!(t.rfc3339(), "2024-07-02T14:26:57.160015000Z");
        assert_eq!(t.to_string(), "2024-07-02T14:26:57Z");
        assert_eq!(t.plus(Duration::from_secs(5)).since(t), Duration::from_secs(5));
        assert_eq!(t.since(t.plus(Duration::from_secs(5))), Duration::ZERO);
        assert_eq!(Timestamp(i64::MAX).plus(Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(Timestamp(-5).to_string(), "1970-01-01T00:00:00Z");
    }
}
