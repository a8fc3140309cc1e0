//! A token bucket: how much may pass in a time. Whoever wants something books it, and waits until its turn.
//!
//! Bookings are served in their order, so those who book one step at a time share the rate evenly; nobody looks
//! again and again whether there is something now.

use std::time::Duration;

const SECOND: u128 = 1_000_000_000;

/// Pure: the caller brings the time, counted from any moment that stays the same.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: u64,
    /// What an idle time saves up, as the time that it takes.
    burst: Duration,
    /// When all that is booked has been let through.
    paid: Duration,
}

impl Bucket {
    /// Lets `rate` units a second pass, and no more than `burst` units at once. It starts empty: a new bucket is
    /// no way around the old one.
    pub fn empty(rate: u64, burst: u64, now: Duration) -> Self {
        let rate = rate.max(1);
        Self { rate, burst: time_of(burst, rate), paid: now }
    }

    /// The same, and it starts with all of its burst.
    pub fn full(rate: u64, burst: u64, now: Duration) -> Self {
        let bucket = Self::empty(rate, burst, now);
        Self { paid: now.saturating_sub(bucket.burst), ..bucket }
    }

    /// Books `units`; they may pass after the time that is returned.
    pub fn book(&mut self, units: u64, now: Duration) -> Duration {
        let saved = now.saturating_sub(self.burst);
        self.paid = self.paid.max(saved).saturating_add(time_of(units, self.rate));
        self.paid.saturating_sub(now)
    }

    /// Since when nothing has been owed.
    pub const fn settled(&self) -> Duration {
        self.paid
    }
}

/// How long so many units take, rounded up.
fn time_of(units: u64, rate: u64) -> Duration {
    let nanos = (u128::from(units) * SECOND).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In no stretch of time more than the rate and one burst; and somebody who always wants more gets it all.
        #[test]
        fn the_rate_is_kept_and_used(
            rate in 1_u64..100_000_000,
            burst in 0_u64..1_000_000,
            begin in 0_u64..1_000_000,
            wants in prop::collection::vec((1_u64..300_000, 0_u64..3_000_000), 1..60),
        ) {
            let begin = Duration::from_millis(begin);
            let mut bucket = Bucket::empty(rate, burst, begin);
            let (mut now, mut passed) = (begin, Vec::new());
            let mut owed = begin;
            for (units, pause) in wants {
                now += Duration::from_micros(pause);
                let at = now + bucket.book(units, now);
                // It has not waited longer than what was booked before it takes, and itself.
                owed = owed.max(now) + time_of(units, rate);
                prop_assert!(at <= owed);
                passed.push((at, units));
                now = at;
            }
            for (i, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0_u128;
                for (until, units) in passed.iter().skip(i) {
                    sum += u128::from(*units);
                    let allowed = u128::from(rate) * (*until - *from).as_nanos() / SECOND;
                    // A single booking may be larger than the burst; it has waited for it.
                    let first = u128::from(passed[i].1.max(burst));
                    prop_assert!(sum <= allowed + first + 1, "{sum} in {:?}", *until - *from);
                }
            }
        }

        /// However often a new bucket takes the place of the old, no more than the rate passes.
        #[test]
        fn a_new_bucket_is_no_way_around(rate in 1_u64..1_000_000, units in prop::collection::vec(1_u64..10_000, 1..40)) {
            let (mut now, mut sum) = (Duration::ZERO, 0);
            for units in units {
                now += Bucket::empty(rate, 4096, now).book(units, now);
                sum += u128::from(units);
            }
            prop_assert!(sum <= u128::from(rate) * now.as_nanos() / SECOND + 1);
        }

        /// Those who book a step at a time get the same, whatever order they come in.
        #[test]
        fn steps_are_shared_evenly(rate in 1_000_u64..1_000_000, many in 1_usize..32, step in 1_u64..4096) {
            let mut bucket = Bucket::empty(rate, step, Duration::ZERO);
            let mut turns: Vec<(Duration, usize, u64)> = (0..many).map(|who| (Duration::ZERO, who, 0)).collect();
            for _ in 0..many * 20 {
                let next = turns.iter_mut().min_by_key(|(at, who, _)| (*at, *who)).unwrap();
                next.0 += bucket.book(step, next.0);
                next.2 += 1;
            }
            let counts = turns.iter().map(|turn| turn.2);
            prop_assert!(counts.clone().max().unwrap() - counts.min().unwrap() <= 1);
        }
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_the_rate() {
        let now = Duration::from_secs(100);
        let mut bucket = Bucket::full(2, 8, now);
        assert!((0..8).all(|_| bucket.book(1, now).is_zero()));
        assert_eq!(bucket.book(1, now), Duration::from_millis(500));
        assert_eq!(bucket.book(1, now), Duration::from_secs(1));
        // An idle time saves up no more than the burst.
        let later = Duration::from_secs(1000);
        assert!((0..8).all(|_| bucket.book(1, later).is_zero()));
        assert!(!bucket.book(1, later).is_zero());
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = Bucket::empty(0, u64::MAX, Duration::ZERO);
        assert!(bucket.book(u64::MAX, Duration::ZERO) > Duration::from_secs(1 << 33));
        assert!(bucket.book(u64::MAX, Duration::MAX) <= Duration::from_secs(u64::MAX));
        assert!(
            Bucket::empty(u64::MAX, 0, Duration::ZERO).book(1, Duration::ZERO) <= Duration::from_nanos(1)
        );
    }
}
