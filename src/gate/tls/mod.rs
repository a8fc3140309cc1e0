//! TLS with the user's certificate: rustls, as the command line uses it, on the gate's own sockets.
//!
//! The handshake is part of waiting for the first bytes of a connection, so it has that deadline, and whoever is in
//! it has to leave when the room is needed. What a session holds is bounded: [`BUFFER`] to send, one record
//! (16 KiB) or one handshake message (64 KiB) received.

mod files;
mod validity;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub use files::TlsError;

use crate::model::Timestamp;

use super::pace::{Lost, Pace};
use super::refusal::Refusal;

/// Bytes that a session holds to be sent.
const BUFFER: usize = 32 << 10;
/// Bytes that are encrypted at a time: one record.
pub const RECORD: usize = 16 << 10;
/// Bytes that are taken out of a session at a time.
const STEP: usize = 4 << 10;

/// A certificate and its key, and the files that they come from. All copies change together.
#[derive(Debug, Clone)]
pub struct Tls {
    certificate: Arc<Path>,
    key: Arc<Path>,
    chosen: Arc<Chosen>,
    config: Arc<ServerConfig>,
}

/// The certificate for the next handshake.
#[derive(Debug)]
struct Chosen(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads both files. `now` is the time if it is known well enough to say that a certificate is too old.
    ///
    /// # Errors
    /// A file cannot be read or used; the error names it and what is wrong.
    pub fn open(certificate: PathBuf, key: PathBuf, now: Option<Timestamp>) -> Result<Self, TlsError> {
        let chosen = files::read(&certificate, &key, now)?;
        let chosen = Arc::new(Chosen(RwLock::new(Arc::new(chosen))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&chosen) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { certificate: certificate.into(), key: key.into(), chosen, config: Arc::new(config) })
    }

    /// Reads the files again, for the connections to come; says whether the certificate is another.
    ///
    /// # Errors
    /// As [`Tls::open`]; the certificate of before is kept.
    pub fn reload(&self, now: Option<Timestamp>) -> Result<bool, TlsError> {
        let new = files::read(&self.certificate, &self.key, now)?;
        let mut chosen = self.chosen.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = chosen.cert != new.cert;
        *chosen = Arc::new(new);
        Ok(changed)
    }

    /// The file of the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The server's side of a new connection.
    pub(super) fn session(&self) -> io::Result<Session> {
        let mut session = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(BUFFER));
        Ok(Session { tls: RefCell::new(session), first: Cell::new(None) })
    }
}

/// One connection's TLS. Its socket stays outside, and is never waited for while the session is borrowed.
pub struct Session {
    tls: RefCell<ServerConnection>,
    /// The first byte that came.
    first: Cell<Option<u8>>,
}

/// What has to happen before there is more.
enum More {
    /// So many bytes are there.
    Have(usize),
    /// Nothing: something came that was not for us.
    Again,
    /// The socket's turn.
    Wait(Interest),
}

impl Session {
    /// As [`super::pace::receive`]; does the handshake first.
    pub async fn receive(
        &self,
        tcp: &TcpStream,
        buffer: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<usize, Lost> {
        loop {
            match self.take(tcp, buffer) {
                Ok(More::Have(n)) => return Ok(n),
                // What carries no data does not move the deadline, and lets the others have their turn.
                Ok(More::Again) if Instant::now() >= deadline => return Err(Lost::Slow),
                Ok(More::Again) => tokio::task::yield_now().await,
                Ok(More::Wait(interest)) => match timeout_at(deadline, tcp.ready(interest)).await {
                    Err(_) => return Err(Lost::Slow),
                    Ok(Err(_)) => return Err(Lost::Gone),
                    Ok(Ok(_)) => {}
                },
                Err(error) => {
                    log::debug!("a TLS connection ended: {error}");
                    return Err(Lost::Gone);
                }
            }
        }
    }

    fn take(&self, tcp: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<More> {
        let mut tls = self.tls.borrow_mut();
        let waiting = flush(&mut tls, tcp)?;
        let before = buffer.len();
        buffer.resize(before + STEP, 0);
        let read = tls.reader().read(buffer.get_mut(before..).unwrap_or_default());
        buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => return Ok(More::Have(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match tls.read_tls(&mut Socket { tcp, first: Some(&self.first) }) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let interest =
                    if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                return Ok(More::Wait(interest));
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = tls.process_new_packets() {
            if tls.is_handshaking() && self.first.get().is_some_and(|byte| byte.is_ascii_uppercase()) {
                say_that_this_is_tls(tcp);
            } else {
                // The alert that says why; if there is no room for it, then without.
                let _ = flush(&mut tls, tcp);
            }
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(More::Again)
    }

    /// As [`super::pace::send`]. Without bytes, it sends what [`Session::load`] has left.
    pub async fn send(&self, tcp: &TcpStream, mut bytes: &[u8], pace: &mut Pace) -> Result<(), Lost> {
        self.send_rest(tcp, &mut bytes, pace).await
    }

    /// As [`super::pace::send_rest`]. What has been taken out of `bytes` is sent before anything else.
    pub async fn send_rest(&self, tcp: &TcpStream, bytes: &mut &[u8], pace: &mut Pace) -> Result<(), Lost> {
        loop {
            let sent = {
                let mut tls = self.tls.borrow_mut();
                if !bytes.is_empty() && !tls.wants_write() {
                    let record = bytes.get(..RECORD.min(bytes.len())).unwrap_or_default();
                    let n = tls.writer().write(record).map_err(|_| Lost::Gone)?;
                    *bytes = bytes.get(n..).unwrap_or_default();
                }
                if !tls.wants_write() {
                    return Ok(());
                }
                tls.write_tls(&mut Socket { tcp, first: None })
            };
            match sent {
                Ok(0) => return Err(Lost::Gone),
                Ok(n) => pace.moved(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match timeout_at(pace.deadline(), tcp.writable()).await {
                        Err(_) => return Err(Lost::Slow),
                        Ok(Err(_)) => return Err(Lost::Gone),
                        Ok(Ok(())) => {}
                    }
                }
                Err(_) => return Err(Lost::Gone),
            }
        }
    }

    /// Encrypts up to [`RECORD`] of the `want` bytes of `file` at `offset`; says how many. They are sent by
    /// [`Session::send`], which must have sent all that was there before. Reads the disk: not for the core thread.
    pub fn load(&self, file: &File, offset: u64, want: u64) -> io::Result<usize> {
        let mut record = [0; RECORD];
        let want = usize::try_from(want).unwrap_or(RECORD).min(RECORD);
        let n = file.read_at(record.get_mut(..want).unwrap_or_default(), offset)?;
        self.tls.borrow_mut().writer().write_all(record.get(..n).unwrap_or_default())?;
        Ok(n)
    }

    /// Says that nothing more comes, so that the peer knows that nobody cut it off.
    pub fn goodbye(&self, tcp: &TcpStream) {
        let mut tls = self.tls.borrow_mut();
        tls.send_close_notify();
        // If there is no room, it is not said.
        let _ = flush(&mut tls, tcp);
    }
}

/// Sends what there is; whether some of it has to wait.
fn flush(tls: &mut ServerConnection, tcp: &TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(&mut Socket { tcp, first: None }) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// To somebody who speaks plain HTTP.
fn say_that_this_is_tls(tcp: &TcpStream) {
    let refusal = Refusal::bad("this port speaks TLS");
    let hint = "use https://, or --tls with codling and bacalhau";
    // Whoever does not read it will find out otherwise.
    let _ = tcp.try_write(&Refusal { hint, ..refusal }.response("", false, false));
}

/// The socket without waiting.
struct Socket<'a> {
    tcp: &'a TcpStream,
    first: Option<&'a Cell<Option<u8>>>,
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.tcp.try_read(buffer)?;
        if let Some(first) = self.first
            && first.get().is_none()
        {
            first.set(buffer.first().copied().filter(|_| n > 0));
        }
        Ok(n)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
