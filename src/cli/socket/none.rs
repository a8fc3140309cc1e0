//! In place of TLS where it is not built in.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::super::target::Target;
use super::super::trust::Trouble;

/// A connection inside TLS; there is none.
pub struct Secure(Infallible);

impl Secure {
    pub const fn tcp(&self) -> &TcpStream {
        match self.0 {}
    }
}

impl Read for Secure {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Write for Secure {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

/// Fails: no target asks for it.
pub fn connect(_: TcpStream, _: &Target) -> io::Result<Secure> {
    Err(io::ErrorKind::Unsupported.into())
}

/// TLS is never what failed.
pub const fn trouble(_: &io::Error) -> Option<Trouble> {
    None
}
