//! The other end of a websocket: what is said to it, what it says, and when it has to go.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::wire::log_line::LogMessage;
use crate::wire::websocket::{self, Event, Fault, From, Opcode, Reader, close, frame};

use super::super::conn::linger;
use super::super::limits::{FOLLOWER_BUFFER, FOLLOWER_MESSAGE, FOLLOWER_PENDING, FOLLOWER_TALK, Limits};
use super::super::pace::{Lost, Pace, receive, send_rest};
use super::super::race::{Won, race};
use super::super::stream::Stream;

/// What the last word may take, and the answer to it.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How long whoever was too slow may still read what is on its way, and why nothing more comes.
const LATE_READING: Duration = Duration::from_secs(10);
/// Pings that may stay without an answer.
const PINGS: u32 = 2;

/// Why no more is sent.
#[derive(Debug)]
pub enum End {
    /// All was sent.
    Over,
    /// There is something to say in place of more.
    Error(String),
    /// The peer wants no more.
    Closed(Option<u16>),
    /// What it sent is not to be taken.
    Fault(Fault),
    /// It sends too much.
    Talks,
    /// It does not read, or too slowly.
    Slow,
    /// Somebody else has more right to the place.
    Displaced,
    /// The node stops.
    Stopping,
    /// The connection is gone.
    Gone,
}

/// The other end.
pub struct Peer {
    stream: Stream,
    address: SocketAddr,
    limits: Limits,
    reader: Reader,
    received: Vec<u8>,
    place: oneshot::Sender<()>,
    stopping: watch::Receiver<bool>,
    pace: Pace,
    /// What the connection was still to take when it stopped taking anything.
    unsent: Vec<u8>,
    next_ping: Instant,
    unanswered: u32,
    talked: usize,
}

impl Peer {
    /// One that asked for a websocket and has not been answered.
    pub fn new(
        stream: Stream,
        address: SocketAddr,
        received: Vec<u8>,
        place: oneshot::Sender<()>,
        stopping: watch::Receiver<bool>,
        limits: Limits,
    ) -> Self {
        // A fixed size is a bound; without it, the kernel takes as much as it likes for those who are slow.
        let _ = set_socket_send_buffer_size(&stream.tcp, FOLLOWER_BUFFER / 2);
        Self {
            stream,
            address,
            limits,
            reader: Reader::new(From::Client, FOLLOWER_MESSAGE),
            received,
            place,
            stopping,
            pace: Pace::of_archive(&limits),
            unsent: Vec::new(),
            next_ping: Instant::now() + limits.ping_time,
            unanswered: 0,
            talked: 0,
        }
    }

    /// Answers the handshake, and looks at what came behind it.
    pub async fn welcome(&mut self, accept: &str) -> Result<(), End> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.send(head.as_bytes()).await?;
        self.hear().await
    }

    /// Sends a message.
    pub async fn say(&mut self, message: &LogMessage) -> Result<(), End> {
        let bytes = frame(Opcode::Text, &message.encode(), None);
        debug_assert!(bytes.len() <= FOLLOWER_PENDING || !message.error.is_empty());
        self.send(&bytes).await
    }

    /// From now on it has to be as fast as those who send a body: others wait for it.
    pub fn hurry(&mut self) {
        self.pace = Pace::of_body(&self.limits);
    }

    /// It may take its time again, as long as it takes something.
    pub fn relax(&mut self) {
        self.pace = Pace::of_archive(&self.limits);
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Self { place, stopping, stream, pace, .. } = self;
        let mut rest = bytes;
        let sent = race(send_rest(stream, &mut rest, pace), leave(place, stopping)).await;
        let end = match sent {
            Won::First(Ok(())) => return Ok(()),
            Won::First(Err(Lost::Gone)) => End::Gone,
            Won::First(Err(Lost::Slow)) => End::Slow,
            Won::Second(end) => end,
        };
        self.unsent = rest.to_vec();
        Err(end)
    }

    /// Waits for something to happen, and meanwhile listens to the peer and looks after it.
    pub async fn wait<T>(&mut self, event: impl Future<Output = T>) -> Result<T, End> {
        let mut event = pin!(event);
        loop {
            let Self { place, stopping, stream, received, next_ping, .. } = self;
            let leave = leave(place, stopping);
            let heard = race(receive(stream, received, *next_ping), event.as_mut());
            match race(leave, heard).await {
                Won::First(end) => return Err(end),
                Won::Second(Won::First(Ok(n))) => {
                    (self.unanswered, self.talked) = (0, self.talked + n);
                    self.hear().await?;
                }
                Won::Second(Won::First(Err(Lost::Gone))) => return Err(End::Gone),
                Won::Second(Won::First(Err(Lost::Slow))) => self.ping().await?,
                Won::Second(Won::Second(value)) => return Ok(value),
            }
        }
    }

    /// Lets the others have their turn, and listens to the peer.
    pub async fn turn(&mut self) -> Result<(), End> {
        self.wait(tokio::task::yield_now()).await
    }

    async fn ping(&mut self) -> Result<(), End> {
        self.next_ping = Instant::now() + self.limits.ping_time;
        if self.unanswered >= PINGS {
            log::debug!("{}: a follower does not answer", self.address);
            return Err(End::Gone);
        }
        (self.unanswered, self.talked) = (self.unanswered + 1, 0);
        self.send(&frame(Opcode::Ping, &[], None)).await
    }

    /// Takes in what came.
    async fn hear(&mut self) -> Result<(), End> {
        if self.talked > FOLLOWER_TALK {
            return Err(End::Talks);
        }
        let mut pong = None;
        while let Some(event) = self.reader.next(&mut self.received).map_err(End::Fault)? {
            match event {
                // Nothing is expected of a follower, and nothing done with it.
                Event::Message(_) | Event::Pong => {}
                // Of several, the last is to be answered.
                Event::Ping(payload) => pong = Some(payload),
                Event::Close(code, _) => return Err(End::Closed(code)),
            }
        }
        if self.received.is_empty() {
            // Nobody needs memory while nothing is said.
            self.received = Vec::new();
        }
        match pong {
            Some(payload) => self.send(&frame(Opcode::Pong, &payload, None)).await,
            None => Ok(()),
        }
    }

    /// Says why this is the end, and closes.
    pub async fn end(self, end: End) {
        use websocket::{NORMAL, POLICY, TRY_AGAIN};
        let say = |code, reason: &str| close(code, reason, None);
        let error = |text: &str| frame(Opcode::Text, &LogMessage::error(text).encode(), None);
        let mut last = self.unsent;
        let mut time = LAST_WORD;
        match end {
            End::Gone => return,
            End::Over => last.extend(say(NORMAL, "")),
            End::Closed(code) => last.extend(say(code.unwrap_or(NORMAL), "")),
            End::Error(text) => last.extend([error(&text), say(NORMAL, "")].concat()),
            // Clients take any code but 1000 for a failure that they have no words for.
            End::Stopping => last.extend([error("the node is stopping"), say(NORMAL, "")].concat()),
            End::Fault(fault) => last.extend(say(fault.code(), &fault.to_string())),
            End::Talks => last.extend(say(POLICY, "a follower that sends so much is not served")),
            End::Displaced => {
                log::info!("{}: a follower leaves its place to another", self.address);
                last.extend(say(TRY_AGAIN, "its place is needed for somebody who follows fewer logs"));
            }
            End::Slow => {
                log::info!("{}: a follower is too slow for its log and is dropped", self.address);
                last.extend(say(TRY_AGAIN, "too slow: the log goes on without this follower"));
                // What it does not take within the time is to be gone with it.
                let _ = self.stream.tcp.set_zero_linger();
                time = LATE_READING;
            }
        }
        let mut rest = &last[..];
        // Whoever does not take it does not get it.
        if send_rest(&self.stream, &mut rest, &mut Pace::of_goodbye(time)).await.is_ok() {
            linger(self.stream, time).await;
        }
    }
}

/// Waits until the peer has to leave.
async fn leave(place: &mut oneshot::Sender<()>, stopping: &mut watch::Receiver<bool>) -> End {
    match race(place.closed(), stopping.wait_for(|stopping| *stopping)).await {
        Won::First(()) => End::Displaced,
        Won::Second(_) => End::Stopping,
    }
}
