//! A websocket to a node, for logs: the handshake with the same token and the same trust as every other call.

#[cfg(feature = "tls")]
mod secure;
#[cfg(not(feature = "tls"))]
#[path = "none.rs"]
mod secure;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::{ClientError, no_connection, refusal};
use super::target::Target;
use crate::wire::dialect::{BACALHAU_VERSION, VERSION_HEADER};
use crate::wire::websocket::{self, Event, From, Opcode, Reader, close, frame};

/// The way to a node must be there within this time, and the handshake be answered.
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(60);
/// A node sends a ping every 45 s, and Bacalhau's none: then a ping of ours is what tells that it is there.
const QUIET: Duration = Duration::from_secs(60);
/// Bytes of a refused handshake.
const HEAD_MAX: usize = 64 << 10;
/// Bytes of one message.
const MESSAGE_MAX: usize = 16 << 20;

/// A socket as it is, or inside TLS.
enum Wire {
    Plain(TcpStream),
    Secure(Box<secure::Secure>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Secure(secure) => secure.tcp(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Secure(secure) => secure.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Secure(secure) => secure.flush(),
        }
    }
}

/// What comes over a socket.
pub enum Came {
    /// A message.
    Message(Vec<u8>),
    /// The other end has closed, with this code and reason.
    Closed(u16, String),
    /// Nothing, until the deadline.
    Nothing,
}

/// An open websocket.
pub struct Socket {
    wire: Wire,
    address: String,
    reader: Reader,
    received: Vec<u8>,
    deadline: Option<Instant>,
}

impl Socket {
    /// Opens one at a path below `/api/v1/`.
    ///
    /// # Errors
    /// No connection, no websocket, or a refusal.
    pub fn open(target: &Target, path: &str, deadline: Option<Instant>) -> Result<Self, ClientError> {
        let tcp = connect(target)?;
        let broken = |error| broken(&target.address, error);
        // Small frames, answered at once.
        tcp.set_nodelay(true).and_then(|()| tcp.set_write_timeout(Some(HANDSHAKE))).map_err(broken)?;
        tcp.set_read_timeout(Some(HANDSHAKE)).map_err(broken)?;
        let wire = if target.base.starts_with("https://") {
            Wire::Secure(Box::new(secure::connect(tcp, target).map_err(broken)?))
        } else {
            Wire::Plain(tcp)
        };
        let reader = Reader::new(From::Server, MESSAGE_MAX);
        let mut socket =
            Self { wire, address: target.address.clone(), reader, received: Vec::new(), deadline };
        socket.handshake(target, path)?;
        Ok(socket)
    }

    fn handshake(&mut self, target: &Target, path: &str) -> Result<(), ClientError> {
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let (_, rest) = target.base.split_once("://").unwrap_or_default();
        let prefix = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        let mut request = format!(
            "GET {prefix}/api/v1/{path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {}\r\nSec-WebSocket-Key: {key}\r\n{VERSION_HEADER}: {BACALHAU_VERSION}\r\n\
             User-Agent: codling/{}\r\n",
            target.address,
            websocket::VERSION,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(token) = &target.token {
            request.extend(["Authorization: Bearer ", token.reveal(), "\r\n"]);
        }
        request.push_str("\r\n");
        let sent = self.wire.write_all(request.as_bytes()).and_then(|()| self.wire.flush());
        sent.map_err(|error| self.broken(error))?;
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if self.received.len() > HEAD_MAX {
                return Err(self.broken(io::Error::new(ErrorKind::InvalidData, "its answer has no end")));
            }
            if self.more()? == 0 {
                return Err(self.broken(ErrorKind::UnexpectedEof.into()));
            }
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok()).unwrap_or(0);
        let field = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
        };
        if status != 101 {
            let length = field("Content-Length").and_then(|text| text.parse().ok()).unwrap_or(HEAD_MAX);
            // Whatever part of the explanation arrives is better than none.
            while self.received.len() < length.min(HEAD_MAX) && self.more().unwrap_or(0) > 0 {}
            return Err(refusal(status, &self.received));
        }
        if field("Sec-WebSocket-Accept") != websocket::accept(&key).as_deref() {
            return Err(self.broken(io::Error::new(ErrorKind::InvalidData, "its handshake is wrong")));
        }
        Ok(())
    }

    /// Waits for the next message, or for the end.
    ///
    /// # Errors
    /// The connection broke, or what came is no websocket.
    pub fn next(&mut self) -> Result<Came, ClientError> {
        let mut asked = false;
        loop {
            let event = self
                .reader
                .next(&mut self.received)
                .map_err(|fault| self.broken(io::Error::new(ErrorKind::InvalidData, fault.to_string())))?;
            match event {
                Some(Event::Message(bytes)) => return Ok(Came::Message(bytes)),
                Some(Event::Ping(payload)) => self.send(Opcode::Pong, &payload)?,
                Some(Event::Pong) => {}
                Some(Event::Close(code, reason)) => {
                    self.close();
                    return Ok(Came::Closed(code.unwrap_or(websocket::NORMAL), reason));
                }
                None => {
                    let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Ok(Came::Nothing);
                    }
                    let wait = left.map_or(QUIET, |left| left.min(QUIET));
                    self.wire.tcp().set_read_timeout(Some(wait)).map_err(|error| self.broken(error))?;
                    match self.more() {
                        Ok(0) => return Err(self.broken(ErrorKind::UnexpectedEof.into())),
                        Ok(_) => asked = false,
                        Err(ClientError::Slow { .. }) if wait < QUIET => {}
                        Err(ClientError::Slow { .. }) if !asked => {
                            self.send(Opcode::Ping, &[])?;
                            asked = true;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Says that no more is wanted. Whether that arrives is of no interest.
    pub fn close(&mut self) {
        let bytes = close(websocket::NORMAL, "", Some(mask()));
        let _ = self.wire.write_all(&bytes).and_then(|()| self.wire.flush());
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let bytes = frame(opcode, payload, Some(mask()));
        self.wire.write_all(&bytes).and_then(|()| self.wire.flush()).map_err(|error| self.broken(error))
    }

    fn more(&mut self) -> Result<usize, ClientError> {
        let mut buffer = [0; 8192];
        loop {
            match self.wire.read(&mut buffer) {
                Ok(n) => {
                    self.received.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&self, error: io::Error) -> ClientError {
        broken(&self.address, error)
    }
}

/// Four bytes that nobody could foresee: what a mask is to be.
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    [a, b, c, d]
}

fn connect(target: &Target) -> Result<TcpStream, ClientError> {
    let address = target.address.clone();
    let found = target.address.to_socket_addrs();
    let found =
        found.map_err(|error| ClientError::UnknownHost { address: address.clone(), source: error.into() })?;
    let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
    for one in found {
        match TcpStream::connect_timeout(&one, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(match failed.kind() {
        ErrorKind::TimedOut => ClientError::Slow { address, what: "connect".into() },
        _ => ClientError::Unreachable { address, source: failed },
    })
}

fn broken(address: &str, error: io::Error) -> ClientError {
    let address = address.to_owned();
    match error.kind() {
        _ if let Some(trouble) = secure::trouble(&error) => {
            ClientError::Tls { address, trouble, source: error.into() }
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Slow { address, what: "logs".into() },
        _ if no_connection(&error) => ClientError::Unreachable { address, source: error },
        _ => ClientError::Broken { address, source: error.into() },
    }
}
