//! What tests of gate and handlers talk with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No test waits longer than this for what should come at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A client that says exactly what it is told to.
pub struct Client {
    /// The connection.
    pub stream: TcpStream,
    /// Received and not yet looked at.
    pub received: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answered {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    /// Connects; nothing is waited for longer than [`PATIENCE`].
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends that.
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    /// Receives some.
    pub fn more(&mut self) -> usize {
        let mut buffer = [0; 65536];
        let n = self.stream.read(&mut buffer).unwrap();
        self.received.extend_from_slice(&buffer[..n]);
        n
    }

    /// Reads one answer; after HEAD there is no body.
    pub fn answer(&mut self, head_only: bool) -> Answered {
        let end = loop {
            if let Some(end) = super::head::end_of_head(&self.received) {
                break end;
            }
            assert!(self.more() > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = if head_only { 0 } else { length.map_or(0, |length| length.parse().unwrap()) };
        while self.received.len() < length {
            assert!(self.more() > 0, "closed in the body");
        }
        Answered { status, head, body: self.received.drain(..length).collect() }
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, text: impl AsRef<[u8]>) -> Answered {
        self.send(text);
        self.answer(false)
    }

    /// Reads to the end; a reset is an end, too.
    pub fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.received);
        let _ = self.stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whether the other side has closed; waits for that.
    pub fn is_over(&mut self) -> bool {
        self.rest().is_empty()
    }
}
