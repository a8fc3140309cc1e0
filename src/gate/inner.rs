//! The way to the handlers: a fixed number of connections to tiny_http on a Unix socket, one request at a time on each.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::body::{Body, Budget};
use super::head::end_of_head;
use super::limits::{ANSWER_BYTES, ANSWER_HEAD_BYTES, HEAD_FIELDS};
use super::parcels::{FOLLOW, INSTRUCTION, Instruction};
use super::race::{Won, race};

/// How often a connection is tried while the handlers are restarted, and how long after the last try.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// tiny_http takes two file descriptors for a connection and panics if it gets only one.
const DESCRIPTORS: usize = 8;

/// Whether there are file descriptors for a connection and a few to spare.
fn headroom() -> io::Result<()> {
    let taken: io::Result<Vec<_>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    taken.map(drop)
}

/// Connects twice more and hangs up. tiny_http's pool counts a thread that has just been woken as still waiting, and
/// may leave a new connection to it that it never takes; whichever thread ends a later one looks for such leftovers.
async fn nudge(path: PathBuf) {
    for pause in [PAUSE / 2, PAUSE * 4] {
        sleep(pause).await;
        if headroom().is_ok() {
            // Nobody there is no news.
            drop(UnixStream::connect(&path).await);
        }
    }
}

/// Where the handlers listen now: a new socket after each restart.
#[derive(Debug, Clone, Default)]
pub struct InnerAddress(Arc<RwLock<PathBuf>>);

impl InnerAddress {
    /// Says where they listen.
    pub fn set(&self, path: PathBuf) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = path;
    }

    /// Where they listen; nothing if not yet.
    #[must_use]
    pub fn get(&self) -> PathBuf {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InnerError {
    /// Whoever asked has left before there was a connection.
    #[error("nobody waits for the answer any more")]
    Left,
    /// All connections are in use, and were until the deadline.
    #[error("all handlers are busy")]
    Busy,
    /// The answer is large, and others wait already for memory for theirs.
    #[error("there is no memory for the answer")]
    NoMemory,
    /// A handler did not answer in time.
    #[error("the handler did not answer in time")]
    Slow,
    /// Nobody listens.
    #[error("the handlers cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The connection ended before the answer did.
    #[error("the handler went away")]
    Gone(#[source] io::Error),
    /// The answer is not one of ours.
    #[error("the handler's answer {0}")]
    Malformed(&'static str),
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Fields to pass on, as lines that end with CR LF.
    pub fields: String,
    /// The body; empty if there is an instruction.
    pub body: Body,
    /// Value of `Content-Length`.
    pub length: u64,
    /// What to send in place of a body.
    pub send: Option<Instruction>,
    /// The parcel of a log to follow in place of all that.
    pub follow: Option<u64>,
}

/// The connections.
pub struct Inner {
    address: InnerAddress,
    free: Semaphore,
    idle: RefCell<Vec<(PathBuf, UnixStream)>>,
    budget: Budget,
    /// Answers that may wait for memory: each keeps a handler waiting, and never all of them.
    may_wait: Semaphore,
    answer_time: Duration,
}

impl Inner {
    /// As many connections as `connections`; none is open yet.
    pub fn new(address: InnerAddress, connections: usize, budget: Budget, answer_time: Duration) -> Self {
        let free = Semaphore::new(connections);
        let may_wait = Semaphore::new(connections / 2);
        Self { address, free, idle: RefCell::default(), budget, may_wait, answer_time }
    }

    /// Sends a request and waits for its answer. A request that may be repeated is, once, if the connection on
    /// which it was sent turns out to have been closed. `begins` is called when there is a connection for it; if `left`
    /// ends before that, nothing is sent.
    pub async fn exchange(
        &self,
        request: &Request,
        left: impl Future<Output = ()>,
        begins: impl FnOnce(),
    ) -> Result<Answer, InnerError> {
        let deadline = Instant::now() + self.answer_time;
        // A turn comes first: who ends only its own side and need not wait is answered.
        let _turn = match race(timeout_at(deadline, self.free.acquire()), left).await {
            Won::First(Ok(Ok(turn))) => turn,
            Won::First(_) => return Err(InnerError::Busy),
            Won::Second(()) => return Err(InnerError::Left),
        };
        begins();
        let talk = async {
            loop {
                let (path, mut stream, reused) = self.connect().await?;
                match self.talk(&mut stream, request).await {
                    Ok(answer) => {
                        self.idle.borrow_mut().push((path, stream));
                        return Ok(answer);
                    }
                    Err(InnerError::NoMemory) => {
                        self.idle.borrow_mut().push((path, stream));
                        return Err(InnerError::NoMemory);
                    }
                    Err(InnerError::Gone(_)) if reused && request.repeatable => {}
                    Err(error) => return Err(error),
                }
            }
        };
        timeout_at(deadline, talk).await.unwrap_or(Err(InnerError::Slow))
    }

    /// An open connection, where it leads, and whether it has been used before.
    async fn connect(&self) -> Result<(PathBuf, UnixStream, bool), InnerError> {
        let current = self.address.get();
        loop {
            let Some((path, stream)) = self.idle.borrow_mut().pop() else { break };
            // Nothing may come by itself: an end or a byte is the sign that this connection is over. One that
            // leads to handlers that were replaced would never be answered.
            match stream.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && path == current => {
                    return Ok((path, stream, true));
                }
                _ => {}
            }
        }
        let mut tries = 0;
        loop {
            let path = self.address.get();
            let connected = match headroom() {
                Ok(()) => UnixStream::connect(&path).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(stream) => {
                    tokio::task::spawn_local(nudge(path.clone()));
                    return Ok((path, stream, false));
                }
                Err(error) if tries >= TRIES => return Err(InnerError::Unreachable(error)),
                Err(_) => {}
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }

    async fn talk(&self, stream: &mut UnixStream, request: &Request) -> Result<Answer, InnerError> {
        stream.write_all(request.head.as_bytes()).await.map_err(InnerError::Gone)?;
        stream.write_all(request.body.bytes()).await.map_err(InnerError::Gone)?;
        let mut received = Vec::with_capacity(1 << 10);
        let end = loop {
            if let Some(end) = end_of_head(&received) {
                break end;
            }
            if received.len() > ANSWER_HEAD_BYTES {
                return Err(InnerError::Malformed("has too large a head"));
            }
            match stream.read_buf(&mut received).await {
                Ok(0) => return Err(InnerError::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(InnerError::Gone(error)),
            }
        };
        let mut answer = self.head(received.get(..end).unwrap_or_default())?;
        let rest = received.get(end..).unwrap_or_default();
        if answer.send.is_some() || request.head_only || matches!(answer.status, 204 | 304) {
            return if rest.is_empty() { Ok(answer) } else { Err(InnerError::Malformed("has a body")) };
        }
        let length = usize::try_from(answer.length).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES {
            return Err(InnerError::Malformed("is too large"));
        }
        if answer.body.make_room(length).is_err() {
            let Ok(_turn) = self.may_wait.try_acquire() else {
                return Err(discard(stream, length.saturating_sub(rest.len())).await);
            };
            let room = answer.body.wait_for_room(length).await;
            room.map_err(|_| InnerError::Malformed("is larger than all memory for bodies"))?;
        }
        answer.body.push(rest);
        let missing = length.saturating_sub(answer.body.bytes().len());
        let body = answer.body.vec();
        stream.take(missing as u64).read_to_end(body).await.map_err(InnerError::Gone)?;
        match body.len().cmp(&length) {
            std::cmp::Ordering::Less => Err(InnerError::Gone(io::ErrorKind::UnexpectedEof.into())),
            std::cmp::Ordering::Equal => Ok(answer),
            std::cmp::Ordering::Greater => Err(InnerError::Malformed("has more than it says")),
        }
    }

    fn head(&self, bytes: &[u8]) -> Result<Answer, InnerError> {
        let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        if !matches!(response.parse(bytes), Ok(httparse::Status::Complete(_))) {
            return Err(InnerError::Malformed("is no HTTP"));
        }
        let status = response.code.unwrap_or(0);
        let (mut length, mut send, mut follow, mut lines) = (None, None, None, String::new());
        for field in response.headers.iter() {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            let value = std::str::from_utf8(field.value).unwrap_or_default();
            if is("Transfer-Encoding") {
                return Err(InnerError::Malformed("is chunked"));
            } else if is("Content-Length") {
                length = value.parse().ok();
            } else if is(INSTRUCTION) {
                send = Instruction::parse(value);
            } else if is(FOLLOW) {
                follow = value.parse().ok();
            } else if !is("Connection") && !is("Keep-Alive") && !is("Upgrade") && !is("Server") {
                lines.extend([field.name, ": ", value, "\r\n"]);
            }
        }
        let length = send.map(|send: Instruction| send.length).or(length);
        let Some(length) = length else { return Err(InnerError::Malformed("has no length")) };
        Ok(Answer { status, fields: lines, body: self.budget.body(), length, send, follow })
    }
}

/// Takes an answer off a connection, which can then be used again.
async fn discard(stream: &mut UnixStream, length: usize) -> InnerError {
    let mut unwanted = stream.take(length as u64);
    match tokio::io::copy(&mut unwanted, &mut tokio::io::sink()).await {
        Ok(n) if n == length as u64 => InnerError::NoMemory,
        Ok(_) => InnerError::Gone(io::ErrorKind::UnexpectedEof.into()),
        Err(error) => InnerError::Gone(error),
    }
}

/// A checked request on its way in.
#[derive(Debug)]
pub struct Request {
    /// Request line and fields, with the empty line.
    pub head: String,
    /// The body, whole.
    pub body: Body,
    /// HEAD: no body will come back.
    pub head_only: bool,
    /// Sending it twice does no harm.
    pub repeatable: bool,
}
