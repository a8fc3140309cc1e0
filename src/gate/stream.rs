//! A public connection: as it is, or inside TLS.

use std::io;
use std::net::TcpStream as StdStream;

use tokio::net::TcpStream;

use super::pace::Pace;
use super::tls::{Session, Tls};

/// An open connection.
pub struct Stream {
    /// The socket.
    pub tcp: TcpStream,
    /// What goes through it, if that is TLS.
    pub tls: Option<Box<Session>>,
}

/// The same on its way to another thread.
pub struct Detached {
    tcp: StdStream,
    tls: Option<Box<Session>>,
}

impl Stream {
    /// A connection that has just been accepted. The handshake, if there is one, happens while the first bytes are
    /// waited for.
    ///
    /// # Errors
    /// TLS cannot be spoken now.
    pub fn new(tcp: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let tls = tls.map(Tls::session).transpose()?.map(Box::new);
        Ok(Self { tcp, tls })
    }

    /// Says that nothing more comes, as far as that can be said without waiting.
    pub fn goodbye(&self) {
        if let Some(tls) = &self.tls {
            tls.goodbye(&self.tcp);
        }
    }

    /// Closes it after all that was sent. The kernel may have no room yet for the word that this is the end, and
    /// without it a client cannot tell an end from a cut.
    pub async fn close(self, pace: &mut Pace) {
        self.goodbye();
        if let Some(tls) = &self.tls {
            // Whoever does not take it does not get it.
            let _ = tls.send(&self.tcp, &[], pace).await;
        }
    }

    /// Takes it off this thread.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(Detached { tcp: self.tcp.into_std()?, tls: self.tls })
    }

    /// Puts it on this thread.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        Ok(Self { tcp: TcpStream::from_std(detached.tcp)?, tls: detached.tls })
    }
}
