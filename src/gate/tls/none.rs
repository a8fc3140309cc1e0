//! In place of TLS where it is not built in: there is none, and the types say so.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::model::Timestamp;

use super::pace::{Lost, Pace};

/// Bytes that are encrypted at a time.
pub const RECORD: usize = 16 << 10;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("this codling was built without TLS; put a reverse proxy before it, or use a full build")]
pub struct TlsError;

/// A certificate; there is none.
#[derive(Debug, Clone)]
pub struct Tls(Infallible);

impl Tls {
    /// Fails.
    ///
    /// # Errors
    /// Always.
    pub fn open(_certificate: PathBuf, _key: PathBuf, _now: Option<Timestamp>) -> Result<Self, TlsError> {
        Err(TlsError)
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn reload(&self, _now: Option<Timestamp>) -> Result<bool, TlsError> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        match self.0 {}
    }

    pub(super) fn session(&self) -> io::Result<Session> {
        match self.0 {}
    }
}

/// A connection's TLS; there is none.
pub struct Session(Infallible);

impl Session {
    pub async fn receive(&self, _: &TcpStream, _: &mut Vec<u8>, _: Instant) -> Result<usize, Lost> {
        match self.0 {}
    }

    pub async fn send_rest(&self, _: &TcpStream, _: &mut &[u8], _: &mut Pace) -> Result<(), Lost> {
        match self.0 {}
    }

    pub async fn send(&self, _: &TcpStream, _: &[u8], _: &mut Pace) -> Result<(), Lost> {
        match self.0 {}
    }

    pub fn load(&self, _: &File, _: u64, _: u64) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn goodbye(&self, _: &TcpStream) {
        match self.0 {}
    }
}
