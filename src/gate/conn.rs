//! One public connection, from its first byte to its last.

mod admission;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::wire::{Code, websocket};

use self::admission::no_memory;
use super::courier::Load;
use super::followers::Arrival;
use super::head::{self, Head, PASSED};
use super::inner::{Answer, InnerError, Request};
use super::limits::{HEAD_BYTES, LINGER_BYTES};
use super::pace::{Lost, Pace, cut, receive, receive_plain, send};
use super::race::{Won, race};
use super::refusal::{Refusal, reason};
use super::slots::{Phase, Slot};
use super::stream::Stream;
use super::{SITE_FIELD, Shared, Site};

/// Empty lines that are forgiven before a request: some old clients end a body with one.
const EMPTY_LINES: u32 = 4;
/// An answer of up to so many bytes is sent in one piece with its head.
const ONE_PIECE: usize = 16 << 10;

/// A connection and what has been received on it.
pub struct Conn {
    shared: Rc<Shared>,
    site: Rc<Site>,
    peer: SocketAddr,
    local: String,
    slot: Slot,
    /// Received and not yet looked at: the rest of a request, or the beginning of the next.
    buffer: Vec<u8>,
}

/// How a request ended for the connection.
enum Next {
    /// Another may follow.
    Request,
    /// It is over; the peer knows.
    Close,
    /// It is over; the peer may still be sending, and should get to see the answer.
    Linger,
}

/// Why there is no request.
enum End {
    /// The peer is gone, or idle for too long, or has to leave.
    Quiet,
    /// It is too slow to be worth a word more.
    Slow,
    /// It is told.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Gone => Self::Quiet,
            Lost::Slow => Self::Slow,
        }
    }
}

impl Conn {
    /// A connection that has just been accepted.
    pub fn new(shared: Rc<Shared>, site: Rc<Site>, stream: &Stream, peer: SocketAddr, slot: Slot) -> Self {
        let local = stream.tcp.local_addr().map(|address| address.to_string()).unwrap_or_default();
        Self { shared, site, peer, local, slot, buffer: Vec::new() }
    }

    /// Serves it until it ends.
    pub async fn serve(mut self, mut stream: Stream) {
        for n in 1..=self.shared.limits.requests {
            let last = n == self.shared.limits.requests;
            let head = match self.head(&stream, n == 1).await {
                Ok(head) => head,
                Err(end) => return self.end(stream, end).await,
            };
            match self.request(stream, &head, last).await {
                Ok((Next::Request, open)) => stream = open,
                Ok((Next::Close, open)) => {
                    let mut pace = Pace::of_body(&self.shared.limits);
                    return open.close(&mut pace).await;
                }
                Ok((Next::Linger, open)) => return self.linger(open).await,
                Err(None) => return,
                Err(Some((end, open))) => return self.end(open, end).await,
            }
        }
    }

    /// Waits for a request's head and reads it.
    async fn head(&mut self, stream: &Stream, first: bool) -> Result<Head, End> {
        let limits = self.shared.limits;
        let mut empty_lines = 0;
        let mut looked_at = 0;
        if self.buffer.is_empty() {
            // Nobody needs memory while it waits.
            self.buffer = Vec::new();
            let (phase, time) =
                if first { (Phase::New, limits.head_time) } else { (Phase::Idle, limits.idle_time) };
            self.first_bytes(stream, phase, time).await?;
        }
        let deadline = Instant::now() + limits.head_time;
        loop {
            while self.buffer.starts_with(b"\r\n") && empty_lines < EMPTY_LINES {
                self.buffer.drain(..2);
                (empty_lines, looked_at) = (empty_lines + 1, 0);
            }
            if let Some(refusal) = head::foreign(&self.buffer) {
                return Err(refusal.into());
            }
            let tail = self.buffer.get(looked_at..).unwrap_or_default();
            if let Some(end) = head::end_of_head(tail).map(|end| end + looked_at).filter(|e| *e <= HEAD_BYTES)
            {
                let parsed = head::parse(self.buffer.get(..end).unwrap_or_default());
                self.buffer.drain(..end);
                return Ok(parsed?);
            }
            if self.buffer.len() >= HEAD_BYTES {
                return Err(head::too_large(&self.buffer).into());
            }
            looked_at = self.buffer.len().saturating_sub(3);
            match receive(stream, &mut self.buffer, deadline).await {
                Ok(_) => {}
                Err(Lost::Slow) => {
                    return Err(Refusal::new(Code::RequestTimeout, "the request's head took too long").into());
                }
                Err(Lost::Gone) => return Err(End::Quiet),
            }
        }
    }

    /// Waits for a request to begin. Who waits here has to leave when the room is needed.
    async fn first_bytes(&mut self, stream: &Stream, phase: Phase, time: Duration) -> Result<(), End> {
        let mut stopping = self.shared.stopping.clone();
        let deadline = Instant::now() + time;
        self.slot.phase(phase);
        let over = race(stopping.wait_for(|stopping| *stopping), self.slot.must_leave());
        let received = race(over, receive(stream, &mut self.buffer, deadline)).await;
        self.slot.phase(Phase::Moving);
        match received {
            Won::Second(Ok(_)) => Ok(()),
            _ => Err(End::Quiet),
        }
    }

    /// Serves one request. The connection comes back unless it is gone.
    async fn request(
        &mut self,
        stream: Stream,
        head: &Head,
        last: bool,
    ) -> Result<(Next, Stream), Option<(End, Stream)>> {
        let body = match self.checked_body(&stream, head).await {
            Ok(body) => body,
            Err(End::Refused(refusal)) => {
                return match self.refuse(&stream, head, &refusal, false).await {
                    Ok(()) => Ok((Next::Linger, stream)),
                    Err(lost) => Err(Some((lost.into(), stream))),
                };
            }
            Err(end) => return Err(Some((end, stream))),
        };
        let repeatable = matches!(head.method, "GET" | "HEAD" | "OPTIONS");
        let head_only = head.method == "HEAD";
        let request =
            Request { head: self.inner_head(head, body.bytes().len()), body, head_only, repeatable };
        // Who only waits for a handler can be asked to leave.
        let begins = || self.slot.phase(Phase::Handled);
        let answer = self.shared.inner.exchange(&request, left(&stream.tcp), begins).await;
        self.slot.phase(Phase::Moving);
        // Its memory is needed for others' bodies.
        drop(request);
        let keep = head.keep_alive && !last && !*self.shared.stopping.borrow();
        let next = |keep: bool, more: bool| match (keep, more) {
            (true, _) => Next::Request,
            (false, false) => Next::Close,
            (false, true) => Next::Linger,
        };
        let more = !self.buffer.is_empty();
        let sent = match answer {
            Ok(answer) => {
                log::debug!("{} {} {} {}", self.peer, head.method, head.path(), answer.status);
                // Of the handshake, which the handlers check.
                if answer.status == 401
                    && let Err(end) = self.wrong_token(head).await
                {
                    return Err(Some((end, stream)));
                }
                if let Some(token) = answer.follow {
                    return self.follow(stream, head, token, keep).await;
                }
                match answer.send.filter(|send| send.token != 0) {
                    Some(_) => return self.archive(stream, head, answer, keep).await,
                    None => self.answer(&stream, head, &answer, keep).await,
                }
            }
            Err(InnerError::Left) => return Err(Some((End::Quiet, stream))),
            Err(error) => self.refuse(&stream, head, &no_answer(&error, head), keep).await,
        };
        match sent {
            Ok(()) => Ok((next(keep, more), stream)),
            Err(lost) => Err(Some((lost.into(), stream))),
        }
    }

    /// The request as the handlers get it: nothing in it that was not looked at.
    fn inner_head(&self, head: &Head, length: usize) -> String {
        let host = if head.host.is_empty() { &self.local } else { &head.host };
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", head.method, head.target);
        text.extend([SITE_FIELD, ": ", self.site.name, "\r\n"]);
        for (i, value) in &head.passed {
            text.extend([PASSED.get(*i).copied().unwrap_or_default(), ": ", value, "\r\n"]);
        }
        text.push_str(&format!("Content-Length: {length}\r\n\r\n"));
        text
    }

    async fn answer(&self, stream: &Stream, head: &Head, answer: &Answer, keep: bool) -> Result<(), Lost> {
        let mut response = response_head(answer, keep);
        let body = if head.method == "HEAD" { &[] } else { answer.body.bytes() };
        let mut pace = Pace::of_body(&self.shared.limits);
        if body.len() <= ONE_PIECE {
            response.extend_from_slice(body);
            return send(stream, &response, &mut pace).await;
        }
        send(stream, &response, &mut pace).await?;
        send(stream, body, &mut pace).await
    }

    /// Hands the connection to the courier and waits until it comes back.
    async fn archive(
        &mut self,
        stream: Stream,
        head: &Head,
        answer: Answer,
        keep: bool,
    ) -> Result<(Next, Stream), Option<(End, Stream)>> {
        let parcel = answer.send.and_then(|send| Some((send, self.shared.parcels.take(send.token)?)));
        let Ok(_turn) = self.shared.downloads.try_acquire() else {
            let refusal = Refusal::full("as many downloads as this node takes are under way");
            return match self.refuse(&stream, head, &refusal, keep).await {
                Ok(()) if keep => Ok((Next::Request, stream)),
                Ok(()) => Ok((Next::Close, stream)),
                Err(lost) => Err(Some((lost.into(), stream))),
            };
        };
        let (Some((send, parcel)), Ok(stream)) = (parcel, stream.detach()) else {
            log::error!("a handler's file is not there");
            return Err(None);
        };
        let (back, returned) = oneshot::channel();
        let load = Load {
            stream,
            peer: self.peer.ip().into(),
            head: response_head(&answer, keep),
            file: parcel.file,
            offset: send.offset,
            length: send.length,
            keep: parcel.keep,
            sent: parcel.sent,
            back,
        };
        if self.shared.courier.send(load).is_err() {
            return Err(None);
        }
        let stream = returned.await.ok().and_then(|stream| Stream::attach(stream).ok());
        match stream {
            Some(stream) if keep => Ok((Next::Request, stream)),
            Some(stream) => Ok((Next::Close, stream)),
            None => Err(None),
        }
    }

    /// Makes the connection a websocket and hands it to the thread that sends logs.
    async fn follow(
        &mut self,
        stream: Stream,
        head: &Head,
        token: u64,
        keep: bool,
    ) -> Result<(Next, Stream), Option<(End, Stream)>> {
        let wanted = self.shared.parcels.take_log(token);
        let refusal = match handshake(head).and_then(|accept| Ok((accept, self.follower()?))) {
            Ok((accept, place)) => {
                let (Some(wanted), Ok(stream)) = (wanted, stream.detach()) else {
                    log::error!("a log that a handler promised is not there");
                    return Err(None);
                };
                let (peer, received) = (self.peer, std::mem::take(&mut self.buffer));
                let arrival = Arrival { stream, peer, received, accept, wanted, place };
                // If that thread is gone, so is the connection.
                let _ = self.shared.followers.send(arrival);
                return Err(None);
            }
            Err(refusal) => refusal,
        };
        match self.refuse(&stream, head, &refusal, keep).await {
            Ok(()) if keep => Ok((Next::Request, stream)),
            Ok(()) => Ok((Next::Close, stream)),
            Err(lost) => Err(Some((lost.into(), stream))),
        }
    }

    /// A place among the followers, which are no connections any more. As long as the answer lives, it is taken; it
    /// says by being closed that another has more right to it.
    fn follower(&self) -> Result<oneshot::Sender<()>, Refusal> {
        let (places, most) = (&self.shared.places, self.shared.limits.followers);
        let slot = places.admit(self.peer.ip().into(), most, most, Duration::ZERO).map_err(|_| {
            let refusal = Refusal::full("as many logs as this node lets follow are being followed");
            Refusal { hint: "try again later, or fetch the result with 'codling job get'", ..refusal }
        })?;
        slot.phase(Phase::Moving);
        let (id, (place, taken)) = (slot.id(), oneshot::channel());
        let task = tokio::task::spawn_local(async move {
            // Nothing is ever sent: it ends with the other half.
            let _ = taken.await;
            drop(slot);
        });
        Slot::task(places, id, task.abort_handle());
        Ok(place)
    }

    async fn refuse(&self, stream: &Stream, head: &Head, refusal: &Refusal, keep: bool) -> Result<(), Lost> {
        let (peer, path, status) = (self.peer, head.path(), refusal.code.status());
        log::debug!("{peer} {} {path} {status}: {}", head.method, refusal.message);
        let response = refusal.response(head.field("X-Request-ID"), keep, head.method == "HEAD");
        send(stream, &response, &mut Pace::of_body(&self.shared.limits)).await
    }

    async fn end(&self, stream: Stream, end: End) {
        match end {
            End::Quiet => stream.goodbye(),
            End::Slow => cut(stream),
            End::Refused(refusal) => {
                log::debug!("{} {}: {}", self.peer, refusal.code.status(), refusal.message);
                let response = refusal.response("", false, false);
                let mut pace = Pace::of_body(&self.shared.limits);
                if send(&stream, &response, &mut pace).await.is_ok() {
                    self.linger(stream).await;
                }
            }
        }
    }

    async fn linger(&self, stream: Stream) {
        linger(stream, self.shared.limits.linger_time).await;
    }
}

/// Ends when the peer has ended its side. A crowd that gave up would otherwise keep its places, and the handlers busy with
/// what nobody waits for, while it comes back.
async fn left(stream: &TcpStream) {
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        // The next request is there: an end behind it cannot be seen.
        Ok(_) => std::future::pending().await,
    }
}

/// Reads on for a while: closing with bytes unread would make the kernel throw away the answer, too. What comes
/// is not even decrypted.
pub async fn linger(stream: Stream, time: Duration) {
    stream.goodbye();
    let mut stream = stream.tcp;
    let read_on = async {
        let mut left = LINGER_BYTES;
        let mut buffer = Vec::new();
        if stream.shutdown().await.is_err() {
            return;
        }
        while left > 0 {
            buffer.clear();
            match receive_plain(&stream, &mut buffer, Instant::now() + time).await {
                Ok(n) => left = left.saturating_sub(n),
                Err(_) => return,
            }
        }
    };
    // If time is up, it is up.
    let _ = timeout(time, read_on).await;
}

fn response_head(answer: &Answer, keep: bool) -> Vec<u8> {
    let connection = if keep { "keep-alive" } else { "close" };
    let (status, reason, fields) = (answer.status, reason(answer.status), &answer.fields);
    // Neither has a body; a length with 304 would have to be that of the body that is not sent.
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("Content-Length: {}\r\n", answer.length),
    };
    format!("HTTP/1.1 {status} {reason}\r\n{fields}{length}Connection: {connection}\r\n\r\n").into_bytes()
}

/// What the peer is told when the handlers did not answer.
fn no_answer(error: &InnerError, head: &Head) -> Refusal {
    match error {
        InnerError::Busy => return Refusal::full("all handlers are busy"),
        InnerError::NoMemory => return no_memory(),
        InnerError::Unreachable(cause) => {
            log::error!("{} {}: {error}: {cause}", head.method, head.path());
            return Refusal::full("the handlers are being restarted");
        }
        InnerError::Gone(cause) => log::error!("{} {}: {error}: {cause}", head.method, head.path()),
        _ => log::error!("{} {}: {error}", head.method, head.path()),
    }
    let code = if matches!(error, InnerError::Slow) { Code::TimeOut } else { Code::BadGateway };
    Refusal::new(code, error.to_string())
}

/// What a websocket's handshake is answered with.
fn handshake(head: &Head) -> Result<String, Refusal> {
    let wrong = |message: &'static str| Refusal {
        hint: "use 'codling job logs', or a websocket client",
        ..Refusal::new(Code::UpgradeRequired, message)
    };
    let Some(handshake) = &head.websocket else {
        return Err(wrong("logs are sent over a websocket, and this request does not ask for one"));
    };
    if handshake.version != websocket::VERSION {
        return Err(wrong("Sec-WebSocket-Version must be 13"));
    }
    let accept = websocket::accept(&handshake.key);
    accept.ok_or_else(|| Refusal::bad("Sec-WebSocket-Key is not 16 bytes in Base64"))
}
