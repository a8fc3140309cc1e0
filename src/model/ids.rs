//! Identifiers. `j-`, `e-` and `n-` followed by a UUID, as Bacalhau writes them (job-spec.md section 1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest;

/// A text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {wanted}")]
pub struct IdError {
    /// What was given, cut to 64 characters.
    pub text: String,
    /// What would have been accepted.
    pub wanted: &'static str,
}

fn refuse(text: &str, wanted: &'static str) -> IdError {
    IdError { text: text.chars().take(64).collect(), wanted }
}

/// Whether `text` has the form of a lower-case hyphenated UUID.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// What ids have in common whose records lie beside each other: their first three digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u16);

impl Generation {
    const BITS: u32 = 12;

    /// How many there are.
    pub const COUNT: u32 = 1 << Self::BITS;

    /// The one after it; the first follows on the last.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1) & (u16::MAX >> (16 - Self::BITS)))
    }
}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// A new random id.
            #[must_use]
            pub fn random() -> Self {
                Self::from_uuid(uuid::Uuid::new_v4())
            }

            /// A new id that is random but for its first three digits, which put it beside others of that generation.
            #[must_use]
            pub fn of_generation(generation: Generation) -> Self {
                let random = uuid::Uuid::new_v4().as_u128() & (u128::MAX >> Generation::BITS);
                let bytes = (u128::from(generation.0) << (128 - Generation::BITS) | random).to_be_bytes();
                // Version 8 of RFC 9562: made in a way of one's own.
                Self::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
            }

            /// Its first three digits.
            #[must_use]
            pub fn generation(&self) -> Generation {
                let [first, second, ..] = *self.uuid().as_bytes();
                Generation(u16::from_be_bytes([first, second]) >> (16 - Generation::BITS))
            }

            /// The id of that UUID.
            #[must_use]
            pub fn from_uuid(uuid: uuid::Uuid) -> Self {
                Self(format!(concat!($prefix, "{}"), uuid).into_boxed_str())
            }

            /// The UUID in it: 16 bytes instead of a text, for tables in memory.
            #[must_use]
            pub fn uuid(&self) -> uuid::Uuid {
                // Every id was checked when it was made: the default never comes.
                uuid::Uuid::try_parse(self.0.get($prefix.len()..).unwrap_or_default()).unwrap_or_default()
            }

            /// The whole id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Prefix and eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> &str {
                self.0.get(..$prefix.len() + 8).unwrap_or(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_uuid(rest) => Ok(Self(text.into())),
                    _ => Err(refuse(text, $wanted)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

prefixed_id!(
    /// A job: `j-<uuid>`.
    JobId, "j-", "a job id (j- and a UUID)"
);
prefixed_id!(
    /// One run of a job's task on one node: `e-<uuid>`.
    ExecutionId, "e-", "an execution id (e- and a UUID)"
);
prefixed_id!(
    /// An evaluation: `v-<uuid>`; clients only ever echo it.
    EvaluationId, "v-", "an evaluation id (v- and a UUID)"
);

/// What sets these digests apart from every other use of the same serial number.
const SERIAL_DOMAIN: &[u8] = b"codling node id of a board's serial number, 1\0";

/// A node's id, which is also its name: no blanks and none of `.`, `*`, `>` (config.md section 6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Box<str>);

impl NodeId {
    /// `n-<uuid>`, the name of a node that nobody named.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("n-{}", uuid::Uuid::new_v4()).into_boxed_str())
    }

    /// The name of the board with that serial number: `n-<uuid>`, always the same. The number itself cannot be read
    /// from it, but who has it, or tries all there are, can tell that they belong together.
    #[must_use]
    pub fn of_serial(serial: &str) -> Self {
        let serial = serial.trim().to_ascii_lowercase();
        let digest = sha2::Sha256::new().chain_update(SERIAL_DOMAIN).chain_update(serial).finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(own, hashed)| *own = hashed);
        // Version 8 of RFC 9562: made in a way of one's own.
        let uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        Self(format!("n-{uuid}").into_boxed_str())
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>');
        if text.is_empty() || text.len() > 128 || text.chars().any(bad) {
            return Err(refuse(text, "a node name (1 to 128 characters, no blanks, none of . * >)"));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.0.into()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest; text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl FromStr for Sha256 {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wanted = "a SHA-256 digest (64 lower-case hexadecimal digits)";
        let nibble = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        if text.len() != 64 {
            return Err(refuse(text, wanted));
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(refuse(text, wanted));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(out))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> String {
        digest.hex()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// What a stored job body is found by: the SHA-256 of its encoded form.
pub type JobDigest = Sha256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_form() {
        let id = JobId::random();
        assert_eq!(id.as_str().parse::<JobId>().unwrap(), id);
        assert_eq!(id.short().len(), 10);
        assert_eq!(JobId::from_uuid(id.uuid()), id);
        let generation = Generation(0x1f5);
        let (one, other) = (JobId::of_generation(generation), JobId::of_generation(generation));
        assert!(one.as_str().starts_with("j-1f5") && one.generation() == generation && one != other);
        assert_eq!(one.as_str().parse::<JobId>().unwrap(), one);
        let long = "j-".repeat(500);
        for bad in ["", "j-", "e-0f3c", "j-0F3C1234-0000-0000-0000-000000000000", "../../etc", long.as_str()]
        {
            let error = bad.parse::<JobId>().unwrap_err();
            assert!(error.text.len() <= 64);
        }
        assert!("e-11111111-2222-3333-4444-555555555555".parse::<JobId>().is_err());
    }

    #[test]
    fn node_names_follow_the_rule() {
        assert!("n-edge_01".parse::<NodeId>().is_ok());
        for bad in ["", "a b", "a.b", "a*", "a>", "a\n"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digests_round_trip() {
        let digest = Sha256::of(b"abc");
        assert_eq!(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.hex().parse::<Sha256>().unwrap(), digest);
        assert!("xy".parse::<Sha256>().is_err());
        assert!("g".repeat(64).parse::<Sha256>().is_err());
    }
}
