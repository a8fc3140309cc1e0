//! The files of a certificate and its key: PEM, as every authority gives them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::Error as RustlsError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::model::Timestamp;

use super::validity;

/// Bytes of either file: a chain of certificates has a few thousand.
const FILE_MAX: u64 = 128 << 10;

/// Why a certificate cannot be used. No message repeats what the files hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file is something else.
    #[error("{path} has more than {} KiB: it is no certificate or key", FILE_MAX >> 10)]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// No certificate.
    #[error("{0} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// A certificate that is none.
    #[error("{0}: the certificate is damaged, or not of X.509 version 3")]
    BadCertificate(PathBuf),
    /// No key.
    #[error("{0} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)")]
    NoKey(PathBuf),
    /// A key with a passphrase, which nobody is there to give.
    #[error("{0} holds an encrypted key; decrypt it with `openssl pkey -in {0} -out <file>`")]
    EncryptedKey(PathBuf),
    /// A key that is not understood.
    #[error(
        "{0}: this kind of key cannot be used; take ECDSA (P-256, P-384), Ed25519, or RSA of 2048 bits or more"
    )]
    BadKey(PathBuf),
    /// They do not belong together.
    #[error("the key in {key} is not that of the certificate in {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[source] RustlsError),
}

/// Reads and checks both; warns of what will trouble clients.
pub fn read(certificate: &Path, key: &Path, now: Option<Timestamp>) -> Result<CertifiedKey, TlsError> {
    let (text, _) = text(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|_| TlsError::BadCertificate(certificate.into()))?;
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate(certificate.into()))?;
    check_time(certificate, first, now);
    let der = private_key(key)?;
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(der).map_err(|_| TlsError::BadKey(key.into()))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(RustlsError::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.into(), key: key.into() })
        }
        Err(_) => Err(TlsError::BadCertificate(certificate.into())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (text, mode) = text(path)?;
    if mode & 0o007 != 0 {
        log::warn!("others can read the key {}; chmod 600 it", path.display());
    }
    // PKCS #8, and what OpenSSL wrote before it.
    let has = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey(path.into()));
    }
    // The reader's errors may quote the file.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey(path.into()))
}

/// What the file holds, and its mode.
fn text(path: &Path) -> Result<(Vec<u8>, u32), TlsError> {
    let unreadable = |cause| TlsError::Unreadable { path: path.into(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_MAX {
        return Err(TlsError::TooLarge { path: path.into() });
    }
    Ok((text, mode))
}

/// A certificate out of its time is served all the same: it is the clients' to judge, and clocks of boards are wrong.
fn check_time(path: &Path, certificate: &CertificateDer<'_>, now: Option<Timestamp>) {
    let (Some(now), Some((from, until))) = (now, validity::of(certificate)) else { return };
    if now > until {
        log::warn!("{}: the certificate expired at {until}; clients will refuse it", path.display());
    } else if now < from {
        log::warn!("{}: the certificate is not valid before {from}", path.display());
    }
}
