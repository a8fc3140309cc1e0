//! Whether a request is taken, and its body.

use tokio::time::sleep;

use super::super::body::Body;
use super::super::chunked::{self, Chunked};
use super::super::head::{Framing, Head};
use super::super::pace::{Lost, Pace, receive, send};
use super::super::race::{Won, race};
use super::super::refusal::Refusal;
use super::super::slots::Phase;
use super::super::stream::Stream;
use super::{Conn, End};
use crate::wire::Code;

impl Conn {
    /// Everything that can be said against a request before its body is there, then the body.
    pub(super) async fn checked_body(&mut self, stream: &Stream, head: &Head) -> Result<Body, End> {
        let rule = (self.site.rules)(head.method, head.path());
        if let Some(origin) = &head.origin
            && (head.websocket.is_some() || !matches!(head.method, "GET" | "HEAD" | "OPTIONS"))
            && !same_origin(origin, &head.host)
        {
            return Err(Refusal::new(
                Code::Forbidden,
                "pages of other sites may neither change nor follow anything here",
            )
            .into());
        }
        if !rule.open
            && let Some(token) = &self.shared.token
            && let given = head.authorization.as_deref().and_then(bearer)
            && !given.is_some_and(|given| token.matches(given))
        {
            if given.is_some() {
                self.wrong_token(head).await?;
            }
            let refusal = Refusal::new(Code::Unauthorized, "this request needs the node's API token");
            let hint = "send it as 'Authorization: Bearer <token>'";
            return Err(Refusal { hint, ..refusal }.into());
        }
        if let Framing::Length(length) = head.framing
            && length > rule.body
        {
            return Err(chunked::too_large(rule.body).into());
        }
        let mut body = self.shared.budget.body();
        if !head.has_body() {
            return Ok(body);
        }
        let mut pace = Pace::of_body(&self.shared.limits);
        if head.expects_continue && self.buffer.is_empty() {
            send(stream, b"HTTP/1.1 100 Continue\r\n\r\n", &mut pace).await?;
        }
        match head.framing {
            Framing::Length(length) => self.counted_body(stream, length, &mut body, &mut pace).await?,
            Framing::Chunked => self.chunked_body(stream, rule.body, &mut body, &mut pace).await?,
        }
        Ok(body)
    }

    /// Lets whoever showed a wrong token wait for the answer, as others who do that from there have to. The
    /// connection takes nobody's place meanwhile.
    pub(super) async fn wrong_token(&self, head: &Head) -> Result<(), End> {
        let (path, now) = (head.path(), self.shared.started.elapsed());
        log::warn!("{} {} {path}: a wrong API token", self.peer, head.method);
        let wait = self.shared.attempts.borrow_mut().wrong(self.peer.ip().into(), now);
        if wait.is_zero() {
            return Ok(());
        }
        let mut stopping = self.shared.stopping.clone();
        self.slot.phase(Phase::Idle);
        let over = race(stopping.wait_for(|stopping| *stopping), self.slot.must_leave());
        let waited = race(over, sleep(wait)).await;
        self.slot.phase(Phase::Moving);
        match waited {
            Won::First(_) => Err(End::Quiet),
            Won::Second(()) => Ok(()),
        }
    }

    async fn counted_body(
        &mut self,
        stream: &Stream,
        length: u64,
        body: &mut Body,
        pace: &mut Pace,
    ) -> Result<(), End> {
        // At most the route's limit, which fits.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        loop {
            let n = self.buffer.len().min(length - body.bytes().len());
            body.make_room(n).map_err(|_| no_memory())?;
            body.push(self.buffer.get(..n).unwrap_or_default());
            self.buffer.drain(..n);
            if body.bytes().len() == length {
                return Ok(());
            }
            self.more_body(stream, pace).await?;
        }
    }

    async fn chunked_body(
        &mut self,
        stream: &Stream,
        limit: u64,
        body: &mut Body,
        pace: &mut Pace,
    ) -> Result<(), End> {
        let mut decoder = Chunked::new(limit);
        loop {
            // The data is never more than what it comes in.
            body.make_room(self.buffer.len()).map_err(|_| no_memory())?;
            let n = decoder.feed(&self.buffer, body.vec())?;
            self.buffer.drain(..n);
            if decoder.is_done() {
                return Ok(());
            }
            self.more_body(stream, pace).await?;
        }
    }

    async fn more_body(&mut self, stream: &Stream, pace: &mut Pace) -> Result<(), End> {
        match receive(stream, &mut self.buffer, pace.deadline()).await {
            Ok(n) => {
                pace.moved(n);
                Ok(())
            }
            Err(Lost::Slow) => {
                Err(Refusal::new(Code::RequestTimeout, "the request's body came too slowly").into())
            }
            Err(Lost::Gone) => Err(End::Quiet),
        }
    }
}

/// What a request is told whose body finds no room.
pub(super) fn no_memory() -> Refusal {
    Refusal::full("the bodies under way need all the memory there is for them")
}

/// The token in an `Authorization` field.
fn bearer(field: &str) -> Option<&str> {
    let (scheme, token) = field.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whether a page of `origin` is one of ours.
fn same_origin(origin: &str, host: &str) -> bool {
    let authority = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}
