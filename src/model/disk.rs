//! The state of the node's disk: a pure machine, fed with what was seen, asked what may be done.

use std::io;

use serde::{Deserialize, Serialize};

use super::units::Bytes;

/// What keeps a file system from doing what it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It has no room (`ENOSPC`), or the user has none on it (`EDQUOT`).
    Full,
    /// It takes no writes (`EROFS`).
    ReadOnly,
    /// Anything else: the medium fails (`EIO`), a file is not there.
    Failing,
}

impl Trouble {
    /// What this error says of the file system.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Failing,
        }
    }
}

/// How much room the file system has, against what it is to keep free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Less than half of `Results.MinFree`.
    Scarce,
    /// Less than `Results.MinFree`.
    Tight,
    /// Not less, but not so much more that it would stay so.
    Enough,
    /// Enough, and [`MARGIN`] besides.
    Ample,
}

/// What must be free beyond the least before new work is taken again: without it, the state would flutter.
pub const MARGIN: Bytes = Bytes::mib(1);

impl Room {
    /// With `free` where `min_free` is to stay, and `wanted` besides (a reserve that is to be made again).
    #[must_use]
    pub fn of(free: Bytes, min_free: Bytes, wanted: Bytes) -> Self {
        if free < Bytes(min_free.0 / 2) {
            Self::Scarce
        } else if free < min_free {
            Self::Tight
        } else if free < min_free.plus(wanted).plus(MARGIN) {
            Self::Enough
        } else {
            Self::Ample
        }
    }
}

/// What was seen of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskEvent {
    /// So much room.
    Room(Room),
    /// A write or read failed.
    Trouble(Trouble),
    /// What had failed works again, or nothing had.
    Works,
}

/// The disk, as far as the node's work is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// All is well.
    #[default]
    Fine,
    /// Less is free than is to be: results go by policy, new work waits.
    Tight,
    /// Somebody takes what is left: whoever writes most is stopped, too.
    Scarce,
    /// A write found no room: the same, and what was set aside for the records is in use.
    Full,
    /// Nothing can be written.
    ReadOnly,
    /// Reads or writes fail.
    Failing,
}

impl DiskState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Fine, Self::Tight, Self::Scarce, Self::Full, Self::ReadOnly, Self::Failing];

    /// The state after `event`; there is one for each.
    #[must_use]
    pub const fn next(self, event: DiskEvent) -> Self {
        match (self, event) {
            (_, DiskEvent::Trouble(Trouble::Full)) => Self::Full,
            (_, DiskEvent::Trouble(Trouble::ReadOnly)) => Self::ReadOnly,
            (_, DiskEvent::Trouble(Trouble::Failing)) => Self::Failing,
            // How much room there is says nothing of whether it can be written.
            (Self::Full | Self::ReadOnly | Self::Failing, DiskEvent::Room(_)) => self,
            // From there on the room counts.
            (Self::Full | Self::ReadOnly | Self::Failing, DiskEvent::Works) => Self::Tight,
            (Self::Fine | Self::Tight | Self::Scarce, DiskEvent::Works) => self,
            (_, DiskEvent::Room(Room::Scarce)) => Self::Scarce,
            (_, DiskEvent::Room(Room::Tight)) => Self::Tight,
            (Self::Fine, DiskEvent::Room(Room::Enough)) => Self::Fine,
            (_, DiskEvent::Room(Room::Enough)) => Self::Tight,
            (_, DiskEvent::Room(Room::Ample)) => Self::Fine,
        }
    }

    /// Whether new work is taken, and work that waits is begun.
    #[must_use]
    pub const fn takes_work(self) -> bool {
        matches!(self, Self::Fine)
    }

    /// Whether results are to go, as far as the policy lets them.
    #[must_use]
    pub const fn evicts(self) -> bool {
        matches!(self, Self::Tight | Self::Scarce | Self::Full)
    }

    /// Whether whoever writes most is to be stopped.
    #[must_use]
    pub const fn stops_writers(self) -> bool {
        matches!(self, Self::Scarce | Self::Full)
    }

    /// Whether more room is what is needed.
    #[must_use]
    pub const fn wants_room(self) -> bool {
        self.evicts()
    }

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Tight => "tight",
            Self::Scarce => "scarce",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Failing => "failing",
        }
    }
}

/// The state with its figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// The state.
    pub state: DiskState,
    /// Free on the file system.
    pub free: Bytes,
    /// What is to stay free.
    pub min_free: Bytes,
    /// What failed, if something did.
    pub cause: String,
}

impl DiskReport {
    /// What is wrong, for people; empty if nothing is.
    #[must_use]
    pub fn message(&self) -> String {
        let Self { free, min_free, cause, .. } = self;
        match self.state {
            DiskState::Fine => String::new(),
            DiskState::Tight | DiskState::Scarce => {
                format!("the disk runs full: {free} free where {min_free} are to stay free (Results.MinFree)")
            }
            DiskState::Full if cause.is_empty() => format!("the disk is full: {free} free"),
            DiskState::Full => format!("the disk is full: {free} free ({cause})"),
            DiskState::ReadOnly => format!("the disk cannot be written: {cause}"),
            DiskState::Failing => format!("the disk fails: {cause}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self.state {
            DiskState::Fine => "",
            DiskState::Tight | DiskState::Scarce | DiskState::Full => {
                "free disk space (`codling results df` shows what results take), then try again; the node \
                 recovers by itself"
            }
            DiskState::ReadOnly => {
                "see the kernel's log for the reason, and mount the file system writable again; the node \
                 recovers by itself"
            }
            DiskState::Failing => {
                "see the kernel's log, and check the medium; the node goes on by itself once it works"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [DiskEvent; 8] = [
        DiskEvent::Room(Room::Ample),
        DiskEvent::Room(Room::Enough),
        DiskEvent::Room(Room::Tight),
        DiskEvent::Room(Room::Scarce),
        DiskEvent::Trouble(Trouble::Full),
        DiskEvent::Trouble(Trouble::ReadOnly),
        DiskEvent::Trouble(Trouble::Failing),
        DiskEvent::Works,
    ];

    #[test]
    fn every_state_meets_every_event() {
        use DiskState::{Failing, Fine, Full, ReadOnly, Scarce, Tight};
        let table = [
            (Fine, [Fine, Fine, Tight, Scarce, Full, ReadOnly, Failing, Fine]),
            (Tight, [Fine, Tight, Tight, Scarce, Full, ReadOnly, Failing, Tight]),
            (Scarce, [Fine, Tight, Tight, Scarce, Full, ReadOnly, Failing, Scarce]),
            (Full, [Full, Full, Full, Full, Full, ReadOnly, Failing, Tight]),
            (ReadOnly, [ReadOnly, ReadOnly, ReadOnly, ReadOnly, Full, ReadOnly, Failing, Tight]),
            (Failing, [Failing, Failing, Failing, Failing, Full, ReadOnly, Failing, Tight]),
        ];
        assert_eq!(table.map(|(state, _)| state), DiskState::ALL);
        for (state, row) in table {
            for (event, next) in EVENTS.into_iter().zip(row) {
                assert_eq!(state.next(event), next, "{state:?} after {event:?}");
            }
            // Whatever it was: a disk that works and has room is fine in the end.
            let healed = state.next(DiskEvent::Works).next(DiskEvent::Room(Room::Ample));
            assert_eq!(healed, Fine, "{state:?}");
        }
    }

    #[test]
    fn states_allow_less_and_less_and_say_why() {
        for state in DiskState::ALL {
            assert_eq!(state.takes_work(), state == DiskState::Fine);
            assert!(!state.stops_writers() || state.evicts(), "{state:?}");
            let report = DiskReport { state, cause: "the cause".into(), ..DiskReport::default() };
            assert_eq!(report.message().is_empty(), state.takes_work());
            assert_eq!(report.hint().is_empty(), state.takes_work());
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.as_str()));
        }
    }

    #[test]
    fn room_has_a_band_in_which_nothing_changes() {
        let of = |free| Room::of(Bytes(free), Bytes::mib(8), Bytes::mib(2));
        let mib = 1 << 20;
        assert_eq!([0, 4 * mib - 1].map(of), [Room::Scarce; 2]);
        assert_eq!([4 * mib, 8 * mib - 1].map(of), [Room::Tight; 2]);
        assert_eq!([8 * mib, 11 * mib - 1].map(of), [Room::Enough; 2]);
        assert_eq!(of(11 * mib), Room::Ample);
        // Nothing is to stay free: only a failed write says that there is nothing.
        assert_eq!(Room::of(Bytes::ZERO, Bytes::ZERO, Bytes::ZERO), Room::Enough);
    }
}
