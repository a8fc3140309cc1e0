//! How long to wait before something is run again that went down with the node, or that ended and is to run for ever.

use std::time::Duration;

/// Longest pause.
pub const LONGEST: Duration = Duration::from_secs(300);

/// A run this long counts as a success: what ends after it is run again at once, as after its first end.
pub const STEADY: Duration = Duration::from_secs(600);

/// The pause after so many times in a row: none after the first, which may have been a power cut, then `first`, and
/// twice as long each time. `first` of zero is no pause at all.
#[must_use]
pub fn pause_after(times: u32, first: Duration) -> Duration {
    match times {
        0 | 1 => Duration::ZERO,
        // 2^20 times the shortest pause is more than the longest one.
        _ => first.saturating_mul(1 << (times - 2).min(20)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_the_second_time_to_the_longest() {
        let seconds = |times| pause_after(times, Duration::from_secs(10)).as_secs();
        assert_eq!((0..9).map(seconds).collect::<Vec<_>>(), [0, 0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(seconds(u32::MAX), 300);
        assert_eq!(pause_after(u32::MAX, Duration::from_millis(1)), LONGEST);
        assert_eq!(pause_after(u32::MAX, Duration::ZERO), Duration::ZERO);
    }
}
