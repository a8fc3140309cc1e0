//! Whether the wall clock is to be believed, judged by what can be known on a board without a clock battery: how much
//! time has passed (a clock that never jumps), what the kernel says of synchronisation, and what the time was when
//! it was last believed.
//!
//! A clock that jumped, or that shows an implausible time when the node starts, is not believed until
//! something confirms it: the kernel says for [`SYNC_FOR`] that it is synchronised, or it goes on for [`STEADY_FOR`]
//! without another jump.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::{Clock, EARLIEST_BELIEVABLE, SystemClock};
use crate::model::{ClockNote, Timestamp};

/// How far the wall clock may run away from the time that passed before that is a jump: what a daemon steps
/// it by when nothing is wrong.
pub const JUMP: Duration = Duration::from_secs(60);

/// And this part of the time that passed, as a divisor: a clock that is being slewed, or a bad crystal.
const DRIFT: u32 = 1000;

/// How long the kernel has to say that the clock is synchronised.
pub const SYNC_FOR: Duration = Duration::from_secs(600);

/// How long a clock that nobody vouches for has to go on without a jump.
pub const STEADY_FOR: Duration = Duration::from_secs(86_400);

/// A node that was off for longer than this cannot tell by itself whether the clock is right.
pub const GAP: Duration = Duration::from_secs(86_400);

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It shows a time before this program was written.
    NotSet,
    /// It shows an earlier time than one that was believed before.
    Earlier,
    /// The node starts much later than it last ran.
    Gap,
    /// It jumped ahead.
    Ahead,
    /// It jumped back.
    Back,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotSet => "it has not been set since the board got its power",
            Self::Earlier => "it shows an earlier time than it has shown before",
            Self::Gap => "it shows a much later time than when the node last ran",
            Self::Ahead => "it jumped ahead",
            Self::Back => "it jumped back",
        })
    }
}

/// What can be seen of the time at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since the machine started, sleep included. It never jumps.
    pub uptime: Duration,
    /// The kernel says that the wall clock is synchronised.
    pub synchronised: bool,
}

/// A doubt that lasts.
#[derive(Debug, Clone, Copy)]
struct Held {
    doubt: Doubt,
    since: Duration,
    synchronised_since: Option<Duration>,
}

/// The judgement: a pure function of the readings so far and of what the last run believed.
#[derive(Debug)]
pub struct Judge {
    note: ClockNote,
    last: Option<Reading>,
    held: Option<Held>,
    /// When the clock last jumped, or was first looked at.
    steady_since: Duration,
    confirmed: bool,
    jumps: u64,
}

impl Judge {
    /// One that knows what the last run believed.
    #[must_use]
    pub fn new(note: ClockNote) -> Self {
        Self { note, last: None, held: None, steady_since: Duration::ZERO, confirmed: false, jumps: 0 }
    }

    /// Takes what the last run believed, if that was not known when the first reading was taken.
    fn remember(&mut self, note: ClockNote) {
        if note != ClockNote::default() {
            self.note = note;
            if let Some(last) = self.last {
                self.begin(&last);
            }
        }
    }

    /// Takes a reading. Readings may be as far apart as they like: a jump between them shows in any case.
    pub fn observe(&mut self, reading: Reading) {
        match self.last.replace(reading) {
            None => self.begin(&reading),
            Some(last) => {
                let passed = reading.uptime.saturating_sub(last.uptime);
                let expected = last.wall.plus(passed);
                let allowed = JUMP + passed / DRIFT;
                if reading.wall.since(expected) > allowed {
                    self.jumped(Doubt::Ahead, &reading, reading.wall.since(expected));
                } else if expected.since(reading.wall) > allowed {
                    self.jumped(Doubt::Back, &reading, expected.since(reading.wall));
                }
            }
        }
        self.weigh(&reading);
    }

    fn begin(&mut self, reading: &Reading) {
        self.steady_since = reading.uptime;
        if self.note.last == Timestamp(0) {
            return;
        }
        if self.note.last.since(reading.wall) > JUMP {
            self.hold(Doubt::Earlier, reading);
        } else if reading.wall.since(self.note.last) > GAP {
            self.jumps += 1;
            self.hold(Doubt::Gap, reading);
        }
    }

    fn jumped(&mut self, doubt: Doubt, reading: &Reading, by: Duration) {
        self.jumps += 1;
        self.steady_since = reading.uptime;
        self.confirmed = false;
        self.hold(doubt, reading);
        if by > GAP {
            self.note.floor = reading.wall;
        }
    }

    fn hold(&mut self, doubt: Doubt, reading: &Reading) {
        self.held = Some(Held { doubt, since: reading.uptime, synchronised_since: None });
    }

    /// Ends a doubt that something has settled, and writes down what is believed.
    fn weigh(&mut self, reading: &Reading) {
        if reading.wall < EARLIEST_BELIEVABLE {
            return;
        }
        if let Some(held) = &mut self.held {
            held.synchronised_since =
                reading.synchronised.then(|| held.synchronised_since.unwrap_or(reading.uptime));
            let for_long = |since: Duration, long| reading.uptime.saturating_sub(since) >= long;
            let settled = for_long(held.since, STEADY_FOR)
                || held.synchronised_since.is_some_and(|since| for_long(since, SYNC_FOR));
            if !settled {
                return;
            }
            self.held = None;
            self.confirmed = true;
            self.note.last = reading.wall;
        }
        let steady = reading.uptime.saturating_sub(self.steady_since) >= STEADY_FOR;
        self.confirmed |= reading.synchronised || steady;
        self.note.last = self.note.last.max(reading.wall);
    }

    /// Why the clock is not believed, if it is not.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        match self.last {
            Some(last) if last.wall >= EARLIEST_BELIEVABLE => self.held.map(|held| held.doubt),
            _ => Some(Doubt::NotSet),
        }
    }
}

/// Where readings come from.
pub trait TimeSource: Send + Sync {
    /// What can be seen now.
    fn read(&self) -> Reading;
}

/// The system's clocks.
#[derive(Debug, Default)]
pub struct SystemTimes;

impl TimeSource for SystemTimes {
    fn read(&self) -> Reading {
        Reading {
            wall: SystemClock.now(),
            uptime: SystemClock.uptime(),
            synchronised: super::kernel_time::is_synchronised(),
        }
    }
}

/// A clock that is judged each time it is asked for.
pub struct JudgedClock<S = SystemTimes> {
    source: S,
    judge: Mutex<Judge>,
}

impl<S: TimeSource> JudgedClock<S> {
    /// A clock that knows what the last run believed.
    #[must_use]
    pub fn new(source: S, note: ClockNote) -> Self {
        let clock = Self { source, judge: Mutex::new(Judge::new(note)) };
        drop(clock.judged());
        clock
    }

    fn judged(&self) -> MutexGuard<'_, Judge> {
        // Whole between statements, and nothing panics in them.
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if judge.last.is_none() { None } else { judge.doubt() };
        judge.observe(self.source.read());
        let after = judge.doubt();
        if before != after {
            match after {
                Some(doubt) => {
                    log::warn!("the clock is not believed: {doubt}; nothing is deleted by age until it is")
                }
                None => log::info!("the clock is believed"),
            }
        }
        judge
    }
}

impl<S: TimeSource> Clock for JudgedClock<S> {
    fn now(&self) -> Timestamp {
        self.source.read().wall
    }

    fn uptime(&self) -> Duration {
        self.source.read().uptime
    }

    fn is_trusted(&self) -> bool {
        self.judged().doubt().is_none()
    }

    fn is_confirmed(&self) -> bool {
        let judge = self.judged();
        judge.confirmed && judge.doubt().is_none()
    }

    fn jumps(&self) -> u64 {
        self.judged().jumps
    }

    fn doubt(&self) -> Option<Doubt> {
        self.judged().doubt()
    }

    fn remember(&self, note: ClockNote) {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner).remember(note);
        // What follows from that is told at once.
        drop(self.judged());
    }

    fn note(&self) -> Option<ClockNote> {
        let note = self.judged().note;
        (note != ClockNote::default()).then_some(note)
    }
}

/// Times that stand where they are put.
#[cfg(test)]
pub struct FakeTimes(pub std::sync::Arc<Mutex<Reading>>);

#[cfg(test)]
impl TimeSource for FakeTimes {
    fn read(&self) -> Reading {
        *self.0.lock().unwrap()
    }
}

#[cfg(test)]
impl FakeTimes {
    /// That wall clock, an hour after the machine started.
    pub fn at(wall: Timestamp) -> Self {
        let uptime = Duration::from_secs(3600);
        Self(std::sync::Arc::new(Mutex::new(Reading { wall, uptime, synchronised: false })))
    }

    /// A second hand on the same times.
    pub fn hand(&self) -> Self {
        Self(std::sync::Arc::clone(&self.0))
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut reading = self.0.lock().unwrap();
        reading.wall = reading.wall.plus(time);
        reading.uptime += time;
    }

    /// The wall clock is set.
    pub fn set(&self, wall: Timestamp) {
        self.0.lock().unwrap().wall = wall;
    }

    /// What the kernel says.
    pub fn synchronise(&self, synchronised: bool) {
        self.0.lock().unwrap().synchronised = synchronised;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const T: Timestamp = Timestamp(EARLIEST_BELIEVABLE.0 + 400 * 86_400 * 1_000_000_000);

    fn clock(times: &FakeTimes, last: Timestamp) -> JudgedClock<FakeTimes> {
        JudgedClock::new(times.hand(), ClockNote { last, floor: Timestamp(0) })
    }

    /// Passes time in steps, as a node that looks now and then.
    fn pass(times: &FakeTimes, clock: &impl Clock, time: Duration) {
        for _ in 0..60 {
            times.pass(time / 60);
            clock.is_trusted();
        }
    }

    #[test]
    fn a_plausible_clock_is_believed_at_once_and_stays_so() {
        let times = FakeTimes::at(T);
        let clock = clock(&times, Timestamp(0));
        assert!(clock.is_trusted() && !clock.is_confirmed());
        times.pass(30 * DAY);
        assert!(clock.is_trusted());
        assert_eq!(clock.jumps(), 0);
        assert!(clock.is_confirmed(), "a day without a jump");
        assert_eq!(clock.note().unwrap().last, T.plus(30 * DAY));
        // What a daemon does every day is no jump.
        times.set(clock.now().plus(Duration::from_secs(50)));
        assert!(clock.is_confirmed());
    }

    #[test]
    fn a_clock_from_1970_is_believed_once_it_was_set_and_confirmed() {
        let times = FakeTimes::at(Timestamp(100));
        let clock = clock(&times, Timestamp(0));
        pass(&times, &clock, 3 * DAY);
        assert_eq!(clock.doubt(), Some(Doubt::NotSet));
        assert_eq!(clock.note(), None);
        times.set(T);
        assert_eq!(clock.doubt(), Some(Doubt::Ahead));
        times.synchronise(true);
        assert!(!clock.is_trusted(), "not at once");
        pass(&times, &clock, SYNC_FOR / 2);
        times.synchronise(false);
        assert!(!clock.is_trusted());
        times.synchronise(true);
        pass(&times, &clock, SYNC_FOR / 2);
        assert!(!clock.is_trusted(), "it was interrupted");
        pass(&times, &clock, SYNC_FOR);
        assert!(clock.is_confirmed());
        // Dates before that are worth nothing.
        assert!(clock.note().unwrap().floor >= T);
    }

    #[test]
    fn a_jump_ahead_is_held_until_a_day_has_passed_without_another() {
        let times = FakeTimes::at(T);
        let clock = clock(&times, Timestamp(0));
        times.pass(2 * DAY);
        assert!(clock.is_confirmed());
        times.set(T.plus(10 * YEAR));
        assert_eq!(clock.doubt(), Some(Doubt::Ahead));
        pass(&times, &clock, DAY / 2);
        times.set(T.plus(20 * YEAR));
        pass(&times, &clock, DAY * 9 / 10);
        assert_eq!((clock.doubt(), clock.jumps()), (Some(Doubt::Ahead), 2));
        pass(&times, &clock, DAY / 5);
        assert!(clock.is_confirmed());
    }

    #[test]
    fn a_jump_back_and_forth_leaves_nothing_behind() {
        let times = FakeTimes::at(T);
        let clock = clock(&times, Timestamp(0));
        times.set(T.plus(10 * YEAR));
        assert!(!clock.is_trusted());
        times.set(T);
        assert_eq!(clock.doubt(), Some(Doubt::Back));
        assert_eq!(clock.note().unwrap().last, T, "what was not believed is not written down");
        pass(&times, &clock, DAY);
        assert!(clock.is_trusted());
    }

    #[test]
    fn a_start_at_an_earlier_time_than_known_is_not_believed() {
        let times = FakeTimes::at(T);
        let clock = clock(&times, T.plus(30 * DAY));
        assert_eq!(clock.doubt(), Some(Doubt::Earlier));
        assert_eq!(clock.note().unwrap().last, T.plus(30 * DAY));
        times.synchronise(true);
        pass(&times, &clock, 2 * SYNC_FOR);
        assert!(clock.is_trusted(), "the known time was wrong, then");
        assert!(clock.note().unwrap().last < T.plus(DAY));
    }

    #[test]
    fn a_start_long_after_the_last_one_waits_for_confirmation() {
        let times = FakeTimes::at(T);
        assert!(clock(&times, Timestamp(T.0 - 3_600_000_000_000)).is_trusted());
        let clock = clock(&times, Timestamp(T.0 - 3 * 86_400_000_000_000));
        assert_eq!((clock.doubt(), clock.jumps()), (Some(Doubt::Gap), 1));
        pass(&times, &clock, DAY);
        assert!(clock.is_trusted());
    }
}
