//! Archives on their way from a handler to the courier: what `X-Accel-Redirect` is elsewhere.
//!
//! A handler opens the file, puts it here, and answers with [`INSTRUCTION`] in place of the bytes. The gate takes
//! the file out and lets the courier send it. The field never leaves the gate, and nobody outside can send it in.

use std::any::Any;
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::logs::Wanted;

/// The internal header field: token, offset, length, separated by blanks.
pub const INSTRUCTION: &str = "X-Codling-Send";

/// Parcels that wait to be fetched: more than there can be answers on their way.
const WAITING: usize = 64;
/// A parcel whose answer never came is given up after this.
const KEPT: Duration = Duration::from_secs(300);

/// A file and whatever has to live as long as it is read.
pub struct Parcel {
    /// The open file.
    pub file: File,
    /// Dropped when it has been sent, or not.
    pub keep: Box<dyn Any + Send>,
    /// Called once all that was asked for has been sent.
    pub sent: Option<Sent>,
}

/// What is to be done once all was sent. It must not block: other downloads wait.
pub type Sent = Box<dyn FnOnce() + Send>;

/// The internal header field of an answer that is a log, to be followed: the token of a [`LogParcel`].
pub const FOLLOW: &str = "X-Codling-Follow";

/// Whose log is wanted, or why there is none: that is told once the connection is a websocket.
pub type LogParcel = Result<Wanted, String>;

struct Waiting<T> {
    last: u64,
    parcels: HashMap<u64, (Instant, T)>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { last: 0, parcels: HashMap::new() }
    }
}

impl<T> Waiting<T> {
    fn put(&mut self, parcel: T) -> Option<u64> {
        self.parcels.retain(|_, (since, _)| since.elapsed() < KEPT);
        if self.parcels.len() >= WAITING {
            return None;
        }
        self.last += 1;
        self.parcels.insert(self.last, (Instant::now(), parcel));
        Some(self.last)
    }

    fn take(&mut self, token: u64) -> Option<T> {
        self.parcels.remove(&token).map(|(_, parcel)| parcel)
    }
}

/// Where handlers put parcels and the gate fetches them.
#[derive(Clone, Default)]
pub struct Parcels {
    files: Arc<Mutex<Waiting<Parcel>>>,
    logs: Arc<Mutex<Waiting<LogParcel>>>,
}

fn lock<T>(waiting: &Mutex<T>) -> MutexGuard<'_, T> {
    // Tokens and parcels are whole in every state of the map: a panic elsewhere cannot have broken it.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Parcels {
    /// None waiting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a parcel in and returns its token; `None` if too many wait.
    #[must_use]
    pub fn put(&self, parcel: Parcel) -> Option<u64> {
        lock(&self.files).put(parcel)
    }

    /// The same for a log.
    #[must_use]
    pub fn put_log(&self, parcel: LogParcel) -> Option<u64> {
        lock(&self.logs).put(parcel)
    }

    /// Takes a parcel out.
    pub(super) fn take(&self, token: u64) -> Option<Parcel> {
        lock(&self.files).take(token)
    }

    /// Takes a log's parcel out.
    pub(super) fn take_log(&self, token: u64) -> Option<LogParcel> {
        lock(&self.logs).take(token)
    }
}

/// What an answer tells the gate to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The parcel; 0 if only the length is to be told, as to HEAD.
    pub token: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes. 64 bits also where tiny_http counts in 32.
    pub length: u64,
}

impl Instruction {
    /// The value of the field.
    #[must_use]
    pub fn value(&self) -> String {
        format!("{} {} {}", self.token, self.offset, self.length)
    }

    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut numbers = value.split(' ').map(str::parse);
        let (Some(Ok(token)), Some(Ok(offset)), Some(Ok(length)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        Some(Self { token, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_fetched_once() {
        let parcels = Parcels::new();
        let parcel = || Parcel { file: File::open("/dev/null").unwrap(), keep: Box::new(()), sent: None };
        let token = parcels.put(parcel()).unwrap();
        assert!(parcels.take(token).is_some() && parcels.take(token).is_none());
        let tokens: Vec<_> = (0..WAITING).map(|_| parcels.put(parcel()).unwrap()).collect();
        assert_eq!(parcels.put(parcel()), None);
        assert!(parcels.take(tokens[5]).is_some());
        assert!(parcels.put(parcel()).is_some());
    }

    #[test]
    fn instructions_round_trip() {
        let instruction = Instruction { token: 7, offset: 5_000_000_000, length: u64::MAX };
        assert_eq!(Instruction::parse(&instruction.value()), Some(instruction));
        for bad in ["", "1 2", "1 2 3 4", "a 2 3", "-1 2 3", "1  2 3"] {
            assert_eq!(Instruction::parse(bad), None, "{bad:?}");
        }
    }
}
