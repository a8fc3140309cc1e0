//! Whose bundles are taken: Ed25519 public keys, one to a file.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::UpdateError;

/// Bytes of a key.
const KEY: usize = 32;

/// What comes before the key in a SubjectPublicKeyInfo of Ed25519 (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Largest file that may be a key.
const FILE_MAX: u64 = 4096;

/// Most keys.
pub const KEYS_MAX: usize = 32;

/// Keys that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<[u8; KEY]>);

impl Keys {
    /// Those in the `*.pub` files of a directory.
    ///
    /// # Errors
    /// There are none, or one of the files cannot be read or is no key.
    pub fn load(dir: &Path) -> Result<Self, UpdateError> {
        let listed = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(UpdateError::NoKeys(dir.into())),
            listed => listed.map_err(UpdateError::io("read", dir))?,
        };
        let mut files: Vec<PathBuf> = listed
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "pub"))
            .take(KEYS_MAX)
            .collect();
        files.sort();
        let keys: Vec<[u8; KEY]> = files
            .iter()
            .map(|path| {
                let mut text = Vec::new();
                let file = File::open(path).map_err(UpdateError::io("read", path))?;
                file.take(FILE_MAX).read_to_end(&mut text).map_err(UpdateError::io("read", path))?;
                parse(&text).ok_or_else(|| UpdateError::BadKey(path.clone()))
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(UpdateError::NoKeys(dir.into())) } else { Ok(Self(keys)) }
    }

    /// Whether one of them signed `message`.
    ///
    /// # Errors
    /// None did.
    #[cfg(feature = "tls")]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), UpdateError> {
        use ring::signature::{ED25519, UnparsedPublicKey};
        let by = |key: &[u8; KEY]| UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok();
        if self.0.iter().any(by) { Ok(()) } else { Err(UpdateError::Signature(self.0.len())) }
    }

    /// This build cannot tell.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "tls"))]
    pub fn verify(&self, _message: &[u8], _signature: &[u8; 64]) -> Result<(), UpdateError> {
        Err(UpdateError::CannotVerify)
    }
}

/// A key as base64 of its 32 bytes, or as `openssl pkey -pubout` prints it.
fn parse(text: &[u8]) -> Option<[u8; KEY]> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let body = match text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
        Some(rest) => rest.strip_suffix("-----END PUBLIC KEY-----")?,
        None => text,
    };
    let plain: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(plain).ok()?;
    bytes.strip_prefix(&SPKI).unwrap_or(&bytes).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::Scratch;

    /// A key and a signature of its over the empty message, of RFC 8032 (7.1, test 1).
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
    }

    #[test]
    fn keys_in_both_forms() {
        let key: [u8; KEY] = bytes(PUBLIC);
        let raw = STANDARD.encode(key);
        let spki = STANDARD.encode([&SPKI[..], &key].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        for text in [raw.clone(), format!("{raw}\n"), pem.clone(), pem.replace('\n', "\r\n")] {
            assert_eq!(parse(text.as_bytes()), Some(key), "{text}");
        }
        for text in ["", "AAAA", "-----BEGIN PUBLIC KEY-----", &raw[1..], &pem[5..], "\u{ff}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_signature_counts_for_its_key_and_message_only() {
        let (right, other) = (bytes(PUBLIC), [9; KEY]);
        let signature = bytes(SIGNATURE);
        assert!(Keys(vec![other, right]).verify(b"", &signature).is_ok());
        assert!(Keys(vec![other]).verify(b"", &signature).is_err());
        assert!(Keys(vec![right]).verify(b"x", &signature).is_err());
        for at in 0..64 {
            let mut altered = signature;
            altered[at] ^= 1;
            assert!(Keys(vec![right]).verify(b"", &altered).is_err(), "{at}");
        }
    }

    #[test]
    fn a_directory_without_keys_trusts_nobody() {
        let scratch = Scratch::new();
        let dir = scratch.path().join("keys");
        assert!(matches!(Keys::load(&dir), Err(UpdateError::NoKeys(_))));
        scratch.write("keys/readme.txt", "no key");
        assert!(matches!(Keys::load(&dir), Err(UpdateError::NoKeys(_))));
        scratch.write("keys/x.pub", "no key");
        assert!(matches!(Keys::load(&dir), Err(UpdateError::BadKey(_))));
        scratch.write("keys/x.pub", STANDARD.encode([1; KEY]));
        assert_eq!(Keys::load(&dir).unwrap(), Keys(vec![[1; KEY]]));
    }
}
