//! How keys are made and read: a kind byte, then ids as the 16 bytes of their UUID and numbers in big-endian order.
//!
//! What changes together lies together: a commit rewrites every page that it touches and the path to it.

use std::str::FromStr;

use crate::model::{ExecutionId, JobDigest, JobId, Timestamp};

use super::StoreError;

/// Bytes of an id in a key.
pub(super) const ID: usize = 16;

/// A key or a bound under construction.
#[derive(Debug, Clone)]
pub(super) struct Key(Vec<u8>);

/// An id that a key can hold: a prefix of two characters and a UUID.
pub(super) trait Uuid: FromStr {
    /// `j-` or `e-`.
    const PREFIX: &'static str;
    /// The whole id.
    fn text(&self) -> &str;
}

impl Uuid for JobId {
    const PREFIX: &'static str = "j-";
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl Uuid for ExecutionId {
    const PREFIX: &'static str = "e-";
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl Key {
    /// A key of that kind, with nothing behind it.
    pub(super) fn kind(kind: u8) -> Self {
        Self(vec![kind])
    }

    /// Nothing yet.
    pub(super) fn bare() -> Self {
        Self(Vec::new())
    }

    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(super) fn id(mut self, id: &impl Uuid) -> Self {
        self.0.extend(uuid_bytes(id.text().get(2..).unwrap_or_default(), 0));
        self
    }

    pub(super) fn digest(mut self, digest: &JobDigest) -> Self {
        self.0.extend(digest.0);
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// A time, in an order that holds before 1970 too.
    pub(super) fn time(self, time: Timestamp) -> Self {
        self.number(time.0.cast_unsigned() ^ (1 << 63))
    }

    /// The key.
    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }

    /// The bounds of all keys that begin with this one. Where it ends in 255 the upper bound is carried to the
    /// left, to the kind at the latest, which is never 255.
    pub(super) fn range(self) -> (Vec<u8>, Vec<u8>) {
        let mut end = self.0.clone();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        (self.0, end)
    }

    /// The bounds of all keys that go on with an id that begins with this text of hexadecimal digits and hyphens.
    pub(super) fn id_range(self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.0.clone();
        let mut to = self.0;
        from.extend(uuid_bytes(prefix, 0x0));
        to.extend(uuid_bytes(prefix, 0xf));
        // Keys may go on behind the id: the bound lies behind all of them.
        to.extend([u8::MAX; ID]);
        (from, to)
    }
}

/// The 16 bytes of a UUID; the digits that `text` does not have are all `fill`.
fn uuid_bytes(text: &str, fill: u8) -> [u8; ID] {
    let mut nibbles = text.bytes().filter_map(|b| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    });
    let mut bytes = [0; ID];
    for byte in &mut bytes {
        *byte = nibbles.next().unwrap_or(fill) << 4 | nibbles.next().unwrap_or(fill);
    }
    bytes
}

/// The id in `key` that begins at byte `at`.
pub(super) fn id_at<I: Uuid>(key: &[u8], at: usize) -> Result<I, StoreError> {
    let corrupt = || StoreError::Corrupt { what: format!("key {key:02x?}"), cause: None };
    let bytes: [u8; ID] = key.get(at..at + ID).and_then(|b| b.try_into().ok()).ok_or_else(corrupt)?;
    let text = format!("{}{}", I::PREFIX, uuid::Uuid::from_bytes(bytes).hyphenated());
    text.parse().map_err(|_| corrupt())
}
