//! Where an update stands: a pure state machine. What a state asks for on disk is `slots`' business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How often a version on trial is started before it is given up.
pub const STARTS_MAX: u8 = 3;

/// One of the two places that a version can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `slots/a`
    A,
    /// `slots/b`
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The one that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its name, and that of its directory.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Slot {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|slot| slot.as_str() == text).ok_or(())
    }
}

/// Whether the databases of before are kept while a version is on trial that will write them anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Copy {
    /// It writes them as they are.
    Unneeded,
    /// To be made before its first start.
    Wanted,
    /// Made.
    Kept,
}

/// Where an update stands. [`State::Settled`] is when nothing of it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum State {
    /// One version runs, and is known to be good.
    Settled {
        /// Where it lies.
        slot: Slot,
    },
    /// The version in the other slot is to prove itself.
    Trial {
        /// Where the good one lies.
        from: Slot,
        /// How often it was started.
        starts: u8,
        /// The databases of before.
        copy: Copy,
    },
    /// It did; what is left is to write that down.
    Good {
        /// Where it lies.
        slot: Slot,
    },
    /// The version in that slot is to run again.
    Back {
        /// Where it lies.
        slot: Slot,
        /// Whether it gets the databases of before.
        restore: bool,
        /// Whether the other one had been found good.
        proven: bool,
        /// Why.
        reason: String,
    },
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A bundle lies whole in the other slot.
    Applied {
        /// Whether its version writes the databases anew.
        copy: bool,
    },
    /// The databases were copied.
    Copied,
    /// The program is about to be started.
    Start,
    /// It is ready and did a job.
    Healthy,
    /// It is not, or a step before it could be failed.
    Failed(String),
    /// Somebody wants the other version.
    RollBack {
        /// With the databases that were kept.
        restore: bool,
    },
    /// What [`State::Good`] or [`State::Back`] asks for is done.
    Done,
}

/// An event that cannot happen there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen in {state:?}")]
pub struct IllegalTransition {
    /// Where.
    pub state: State,
    /// What.
    pub event: Event,
}

/// What follows.
///
/// # Errors
/// The event cannot happen in that state.
pub fn next(state: &State, event: Event) -> Result<State, IllegalTransition> {
    let back =
        |slot, copy, reason: String| State::Back { slot, restore: copy == Copy::Kept, proven: false, reason };
    Ok(match (state.clone(), event) {
        (State::Settled { slot }, Event::Applied { copy }) => {
            let copy = if copy { Copy::Wanted } else { Copy::Unneeded };
            State::Trial { from: slot, starts: 0, copy }
        }
        (State::Settled { slot }, Event::RollBack { restore }) => {
            State::Back { slot: slot.other(), restore, proven: true, reason: "asked for".into() }
        }
        (state @ State::Settled { .. }, Event::Start) => state,
        (State::Trial { from, starts, copy: Copy::Wanted }, Event::Copied) => {
            State::Trial { from, starts, copy: Copy::Kept }
        }
        (State::Trial { from, starts, copy: copy @ (Copy::Unneeded | Copy::Kept) }, Event::Start) => {
            if starts < STARTS_MAX {
                State::Trial { from, starts: starts + 1, copy }
            } else {
                back(from, copy, format!("it was started {STARTS_MAX} times and never became healthy"))
            }
        }
        (State::Trial { from, starts: 1.., .. }, Event::Healthy) => State::Good { slot: from.other() },
        (State::Trial { from, copy, .. }, Event::Failed(reason)) => back(from, copy, reason),
        (State::Trial { from, copy, .. }, Event::RollBack { .. }) => back(from, copy, "asked for".into()),
        (State::Good { slot } | State::Back { slot, .. }, Event::Done) => State::Settled { slot },
        (state, event) => return Err(IllegalTransition { state, event }),
    })
}

impl State {
    /// The version that is known to work.
    #[must_use]
    pub const fn good(&self) -> Slot {
        match self {
            Self::Settled { slot } | Self::Good { slot } | Self::Back { slot, .. } => *slot,
            Self::Trial { from, .. } => *from,
        }
    }

    /// The version that is to be started next.
    #[must_use]
    pub const fn current(&self) -> Slot {
        match self {
            Self::Trial { from, .. } => from.other(),
            _ => self.good(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots() -> impl Strategy<Value = Slot> {
        prop_oneof![Just(Slot::A), Just(Slot::B)]
    }

    fn states() -> impl Strategy<Value = State> {
        let copies = prop_oneof![Just(Copy::Unneeded), Just(Copy::Wanted), Just(Copy::Kept)];
        prop_oneof![
            slots().prop_map(|slot| State::Settled { slot }),
            slots().prop_map(|slot| State::Good { slot }),
            (slots(), 0..=STARTS_MAX, copies).prop_map(|(from, starts, copy)| State::Trial {
                from,
                starts,
                copy
            }),
            (slots(), any::<bool>()).prop_map(|(slot, restore)| State::Back {
                slot,
                restore,
                proven: false,
                reason: "x".into()
            }),
        ]
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<bool>().prop_map(|copy| Event::Applied { copy }),
            Just(Event::Copied),
            Just(Event::Start),
            Just(Event::Healthy),
            Just(Event::Failed("x".into())),
            any::<bool>().prop_map(|restore| Event::RollBack { restore }),
            Just(Event::Done),
        ]
    }

    proptest! {
        /// The good version changes only by a version that proved itself, or by somebody's wish.
        #[test]
        fn the_good_version_stays_good(state in states(), event in events()) {
            let Ok(after) = next(&state, event.clone()) else { return Ok(()) };
            if after.good() != state.good() {
                let proved = event == Event::Healthy && matches!(state, State::Trial { starts: 1.., .. });
                let wished = matches!((&state, event), (State::Settled { .. }, Event::RollBack { .. }));
                prop_assert!(proved || wished, "{state:?} to {after:?}");
            }
        }

        /// Whatever happens, a version that never becomes healthy is not started for ever.
        #[test]
        fn a_trial_ends(copy in any::<bool>(), slot in slots()) {
            let mut state = next(&State::Settled { slot }, Event::Applied { copy }).unwrap();
            if copy {
                prop_assert!(next(&state, Event::Start).is_err(), "not without the copy");
                state = next(&state, Event::Copied).unwrap();
            }
            prop_assert!(next(&state, Event::Healthy).is_err(), "it was not started yet");
            for n in 1..=STARTS_MAX {
                state = next(&state, Event::Start).unwrap();
                prop_assert_eq!(state.current(), slot.other());
                let started = matches!(&state, State::Trial { starts, .. } if *starts == n);
                prop_assert!(started);
            }
            state = next(&state, Event::Start).unwrap();
            let back = matches!(state, State::Back { slot: s, restore, .. } if s == slot && restore == copy);
            prop_assert!(back);
        }

        #[test]
        fn what_is_on_disk_is_read_again(state in states()) {
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }

    /// Every pair, named: who may do what.
    #[test]
    fn every_pair_of_state_and_event() {
        let a = Slot::A;
        let trial = |starts, copy| State::Trial { from: a, starts, copy };
        let back = State::Back { slot: a, restore: false, proven: false, reason: String::new() };
        let table = [
            (State::Settled { slot: a }, "applied start rollback"),
            (trial(0, Copy::Unneeded), "start failed rollback"),
            (trial(0, Copy::Wanted), "copied failed rollback"),
            (trial(0, Copy::Kept), "start failed rollback"),
            (trial(1, Copy::Unneeded), "start healthy failed rollback"),
            (State::Good { slot: a }, "done"),
            (back, "done"),
        ];
        let events = [
            ("applied", Event::Applied { copy: false }),
            ("copied", Event::Copied),
            ("start", Event::Start),
            ("healthy", Event::Healthy),
            ("failed", Event::Failed(String::new())),
            ("rollback", Event::RollBack { restore: false }),
            ("done", Event::Done),
        ];
        for (state, allowed) in table {
            let taken: Vec<&str> = events
                .iter()
                .filter(|(_, event)| next(&state, event.clone()).is_ok())
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(taken.join(" "), allowed, "{state:?}");
        }
    }
}
