//! Whoever makes no progress is let go: deadlines that move with the bytes.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::limits::Limits;
use super::stream::Stream;

/// Why a peer is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It closed the connection, or the connection failed.
    Gone,
    /// It made no progress.
    Slow,
}

/// How fast something moves, and until when it has to move on.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    moved: u64,
    stall: Duration,
    slowest: Option<(Duration, u64)>,
}

impl Pace {
    /// For a body: no stalls, and a rate on average.
    pub fn of_body(limits: &Limits) -> Self {
        let slowest = Some((limits.grace_time, limits.rate.max(1)));
        Self { started: Instant::now(), moved: 0, stall: limits.stall_time, slowest }
    }

    /// For a last word: within that time, or not at all.
    pub fn of_goodbye(time: Duration) -> Self {
        Self { started: Instant::now(), moved: 0, stall: time, slowest: Some((time, u64::MAX)) }
    }

    /// For an archive: no stalls.
    pub fn of_archive(limits: &Limits) -> Self {
        Self { started: Instant::now(), moved: 0, stall: limits.stall_time, slowest: None }
    }

    /// Bytes have moved.
    pub fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// When the next byte must have moved.
    pub fn deadline(&self) -> Instant {
        let stall = Instant::now() + self.stall;
        let Some((grace, rate)) = self.slowest else { return stall };
        stall.min(self.started + grace + Duration::from_secs(self.moved / rate))
    }
}

/// Waits for bytes until `deadline` and appends some to `buffer`.
pub async fn receive(stream: &Stream, buffer: &mut Vec<u8>, deadline: Instant) -> Result<usize, Lost> {
    match &stream.tls {
        None => receive_plain(&stream.tcp, buffer, deadline).await,
        Some(tls) => tls.receive(&stream.tcp, buffer, deadline).await,
    }
}

/// The same for a socket as it is.
pub async fn receive_plain(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    deadline: Instant,
) -> Result<usize, Lost> {
    const STEP: usize = 4 << 10;
    loop {
        match timeout_at(deadline, stream.readable()).await {
            Err(_) => return Err(Lost::Slow),
            Ok(Err(_)) => return Err(Lost::Gone),
            Ok(Ok(())) => {}
        }
        buffer.reserve(STEP);
        match stream.try_read_buf(buffer) {
            Ok(0) => return Err(Lost::Gone),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Lost::Gone),
        }
    }
}

/// Sends all of `bytes`.
pub async fn send(stream: &Stream, mut bytes: &[u8], pace: &mut Pace) -> Result<(), Lost> {
    send_rest(stream, &mut bytes, pace).await
}

/// Sends all of `bytes`, and leaves in it what it did not get to.
pub async fn send_rest(stream: &Stream, bytes: &mut &[u8], pace: &mut Pace) -> Result<(), Lost> {
    match &stream.tls {
        None => send_plain(&stream.tcp, bytes, pace).await,
        Some(tls) => tls.send_rest(&stream.tcp, bytes, pace).await,
    }
}

async fn send_plain(stream: &TcpStream, bytes: &mut &[u8], pace: &mut Pace) -> Result<(), Lost> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(Lost::Gone),
            Ok(n) => {
                pace.moved(n);
                *bytes = bytes.get(n..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match timeout_at(pace.deadline(), stream.writable()).await {
                    Err(_) => return Err(Lost::Slow),
                    Ok(Err(_)) => return Err(Lost::Gone),
                    Ok(Ok(())) => {}
                }
            }
            Err(_) => return Err(Lost::Gone),
        }
    }
    Ok(())
}

/// Ends a connection in a way that its peer notices, and that leaves nothing of it in the kernel.
pub fn cut(stream: Stream) {
    // If this fails the connection is gone already.
    let _ = stream.tcp.set_zero_linger();
}
