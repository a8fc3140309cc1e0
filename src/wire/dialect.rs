//! Which generation of Bacalhau's clients is asking, and the words that only one of them knows.

use crate::model::job::NetworkKind;
use crate::model::{DesiredState, ExecutionState};

/// The request header in which clients name their version.
pub const VERSION_HEADER: &str = "X-Bacalhau-Git-Version";

/// The version of Bacalhau whose interface this program speaks, and names as its own where clients ask for one.
pub const BACALHAU_VERSION: &str = "v1.9.3";

/// A generation of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Older than 1.5: the 1.4 command line, the Python SDK, and whoever names no version.
    A,
    /// 1.5 and later, development builds included.
    B,
}

impl Dialect {
    /// The dialect of a request with this version header.
    #[must_use]
    pub fn of(version: Option<&str>) -> Self {
        let Some(text) = version.map(str::trim).filter(|text| !text.is_empty()) else {
            return Self::A;
        };
        match version_of(text) {
            // v0.0.0 is what development builds call themselves.
            Some((0, 0)) | None => Self::B,
            Some(pair) if pair < (1, 5) => Self::A,
            Some(_) => Self::B,
        }
    }

    /// The number that stands for an execution's state. 1.4 knows neither Running nor Publishing.
    #[must_use]
    pub const fn execution_code(self, state: ExecutionState) -> u8 {
        use ExecutionState as S;
        match (state, self) {
            (S::New, _) => 1,
            (S::AskForBid, _) => 2,
            (S::AskForBidAccepted, _) => 3,
            (S::AskForBidRejected, _) => 4,
            (S::BidAccepted, _) | (S::Running | S::Publishing, Self::A) => 5,
            (S::Running, Self::B) | (S::BidRejected, Self::A) => 6,
            (S::Publishing, Self::B) | (S::Completed, Self::A) => 7,
            (S::BidRejected, Self::B) | (S::Failed, Self::A) => 8,
            (S::Completed, Self::B) | (S::Cancelled, Self::A) => 9,
            (S::Failed, Self::B) => 10,
            (S::Cancelled, Self::B) => 11,
        }
    }

    /// The word for a kind of network; `None` if the field has to be left out. A word that 1.4 does not know
    /// would make it fail to read the whole answer.
    #[must_use]
    pub const fn network_word(self, kind: NetworkKind) -> Option<&'static str> {
        match (kind, self) {
            (NetworkKind::None, _) => Some("None"),
            (NetworkKind::HTTP, _) => Some("HTTP"),
            (NetworkKind::Full, _) | (NetworkKind::Host | NetworkKind::Bridge, Self::A) => Some("Full"),
            (NetworkKind::Host, Self::B) => Some("Host"),
            (NetworkKind::Bridge, Self::B) => Some("Bridge"),
            (NetworkKind::Default, Self::A) => None,
            (NetworkKind::Default, Self::B) => Some("Default"),
        }
    }
}

/// The number that stands for a desired state, for both generations.
#[must_use]
pub const fn desired_code(state: DesiredState) -> u8 {
    match state {
        DesiredState::Pending => 0,
        DesiredState::Running => 1,
        DesiredState::Stopped => 2,
    }
}

/// Major and minor version of `v1.10.0-rc1+build`; compared as numbers, not as text.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let core = text.strip_prefix('v').unwrap_or(text);
    let core = core.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| {
        let plain = part.len() <= 9 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u32>().ok()).flatten()
    });
    let (major, minor, _patch) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_chooses() {
        let table = [
            (None, Dialect::A),
            (Some(""), Dialect::A),
            (Some("v1.4.0"), Dialect::A),
            (Some("1.4.2-rc3"), Dialect::A),
            (Some("v1.5.0"), Dialect::B),
            (Some("v1.9.3"), Dialect::B),
            (Some("v1.10.0"), Dialect::B),
            (Some("v2.0.0+x"), Dialect::B),
            (Some("v0.0.0-abcdef0"), Dialect::B),
            (Some("nonsense"), Dialect::B),
            (Some("v1.4"), Dialect::B),
            (Some("v1.99999999999.0"), Dialect::B),
        ];
        for (header, wanted) in table {
            assert_eq!(Dialect::of(header), wanted, "{header:?}");
        }
    }

    #[test]
    fn state_numbers_are_those_of_each_generation() {
        let codes = |dialect: Dialect| -> Vec<u8> {
            ExecutionState::ALL.iter().map(|state| dialect.execution_code(*state)).collect()
        };
        // New, AskForBid, ..Accepted, ..Rejected, BidAccepted, Running, Publishing, BidRejected, Completed, Failed, Cancelled
        assert_eq!(codes(Dialect::A), [1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9]);
        assert_eq!(codes(Dialect::B), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn old_clients_see_only_old_network_words() {
        for kind in [
            NetworkKind::None,
            NetworkKind::Full,
            NetworkKind::HTTP,
            NetworkKind::Default,
            NetworkKind::Host,
            NetworkKind::Bridge,
        ] {
            let word = Dialect::A.network_word(kind);
            assert!(matches!(word, None | Some("None" | "Full" | "HTTP")), "{word:?}");
            assert!(Dialect::B.network_word(kind).is_some());
        }
    }
}
