//! A websocket client for tests: it says exactly what it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;

use codling::wire::log_line::LogMessage;
use codling::wire::websocket::{Event, From, Opcode, Reader, frame};

use crate::hostile;
use crate::node::{Node, text};

/// What the key below, the RFC's example, is answered with.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
pub const MASK: [u8; 4] = [9, 8, 7, 6];

/// Fields of a handshake.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The path of a job's log.
pub fn path(job: &str, query: &str) -> String {
    format!("/api/v1/orchestrator/jobs/{job}/logs?{query}")
}

/// A whole handshake.
pub fn handshake(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{UPGRADE}{fields}\r\n")
}

/// An open log.
pub struct Socket<S = TcpStream> {
    pub stream: S,
    reader: Reader,
    received: Vec<u8>,
}

/// Everything that came until the end.
#[derive(Debug, Default)]
pub struct Told {
    pub stdout: String,
    pub stderr: String,
    pub error: Option<String>,
    /// Code and reason of the close frame; none if the connection just ended.
    pub close: Option<(u16, String)>,
}

impl Socket {
    /// Follows a job's log from an address of 127/8.
    pub fn open(node: &Node, address: [u8; 4], job: &str, query: &str) -> Self {
        Self::begin(hostile::from(address, &node.api).unwrap(), &path(job, query), "").unwrap()
    }
}

impl<S: Read + Write> Socket<S> {
    /// Shakes hands; the error is the answer if it is no.
    pub fn begin(mut stream: S, path: &str, fields: &str) -> Result<Self, String> {
        stream.write_all(handshake(path, fields).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return Err(text(&head));
            }
            head.push(byte[0]);
        }
        let head = text(&head);
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head);
        }
        assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
        Ok(Self { stream, reader: Reader::new(From::Server, 1 << 20), received: Vec::new() })
    }

    /// The next thing that comes; none at the end of the connection.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.reader.next(&mut self.received).unwrap() {
                return Some(event);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next message.
    pub fn message(&mut self) -> LogMessage {
        loop {
            match self.event() {
                Some(Event::Message(bytes)) => return serde_json::from_slice(&bytes).unwrap(),
                Some(Event::Ping(_) | Event::Pong) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// Everything until the end.
    pub fn all(&mut self) -> Told {
        let mut told = Told::default();
        while let Some(event) = self.event() {
            match event {
                Event::Message(bytes) => {
                    let message: LogMessage = serde_json::from_slice(&bytes).unwrap();
                    if !message.error.is_empty() {
                        told.error = Some(message.error);
                    }
                    match message.value.kind {
                        1 => told.stdout.push_str(&message.value.line),
                        2 => told.stderr.push_str(&message.value.line),
                        _ => assert_eq!(message.value.line, ""),
                    }
                }
                Event::Close(code, reason) => told.close = Some((code.unwrap_or(0), reason)),
                Event::Ping(_) | Event::Pong => {}
            }
        }
        told
    }

    /// Sends a frame as a client must.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.stream.write_all(&frame(opcode, payload, Some(MASK))).unwrap();
    }
}

impl Told {
    /// It ended as clients want it to.
    pub fn is_whole(&self) -> bool {
        self.error.is_none() && self.close.as_ref().is_some_and(|(code, _)| *code == 1000)
    }
}
