//! What a user should hear about a packing or unpacking run that went well all the same.

use std::fmt;

/// Warnings that are kept; the rest are counted.
pub const WARNINGS_MAX: usize = 32;
/// Characters of a path in a message.
const SHOWN_MAX: usize = 200;

/// What was odd about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oddity {
    /// Neither file, directory nor link (the kind is named): left out.
    Special(&'static str),
    /// It was there when the directory was listed, and gone when it was to be read: left out.
    Vanished,
    /// It became shorter while it was read: the end is zeros.
    Shrunk,
    /// It became longer while it was read: cut where it ended at first.
    Grew,
    /// A link to a place outside the directory: left out.
    LeadsOutside,
    /// A link to nowhere, as Bacalhau's own publisher writes them: left out.
    NoTarget,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(kind) => write!(f, "is a {kind}: left out"),
            Self::Vanished => f.write_str("vanished before it was read: left out"),
            Self::Shrunk => f.write_str("became shorter while it was read: its end is zeros"),
            Self::Grew => f.write_str("became longer while it was read: cut at its first length"),
            Self::NoTarget => f.write_str("is a link without a target: left out"),
            Self::LeadsOutside => f.write_str("is a link that leads outside: left out"),
        }
    }
}

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The entry, quoted for people.
    pub path: String,
    /// What is odd about it.
    pub oddity: Oddity,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.oddity)
    }
}

/// The first [`WARNINGS_MAX`] warnings of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    kept: heapless::Vec<Warning, WARNINGS_MAX>,
    dropped: u64,
}

impl Warnings {
    pub(super) fn add(&mut self, path: &[u8], oddity: Oddity) {
        if self.kept.is_full() {
            self.dropped += 1;
        } else {
            // There is room: asked just above.
            let _ = self.kept.push(Warning { path: shown(path), oddity });
        }
    }

    /// Those that were kept.
    #[must_use]
    pub fn kept(&self) -> &[Warning] {
        &self.kept
    }

    /// How many more there were.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// A path for a message: quoted, what is not plain text escaped (file names may hold anything, terminal commands
/// too), its middle left out if it is long.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let length = text.chars().count();
    if length <= SHOWN_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN_MAX / 2).collect();
    let tail: String = text.chars().skip(length - SHOWN_MAX / 2).collect();
    format!("{:?}", format!("{head}...{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_free_of_control_characters() {
        let mut warnings = Warnings::default();
        for _ in 0..WARNINGS_MAX + 5 {
            warnings.add(b"a\x1b[2J\xff\nb", Oddity::Special("socket"));
        }
        assert_eq!((warnings.kept().len(), warnings.dropped()), (WARNINGS_MAX, 5));
        assert_eq!(warnings.kept()[0].to_string(), "\"a\\u{1b}[2J\u{fffd}\\nb\" is a socket: left out");
        assert!(shown(&[b'x'; 4000]).len() < SHOWN_MAX + 10);
    }
}
