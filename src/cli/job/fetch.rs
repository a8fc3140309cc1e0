//! Fetching one archive over a bad link: it goes on where it broke off, also in a later run, and is verified.
//!
//! The bytes are kept as `<name>.partial`, with the server's tag of the content beside them as
//! `<name>.partial.etag`. They are added to only if the server says (`If-Range`, then 206) that the content is still
//! that one; otherwise everything is fetched again.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Response;
use ureq::{Agent, Body};

use crate::cli::Context;
use crate::cli::client::{Cause, ClientError, cause, no_connection, no_such_host, refusal};
use crate::cli::progress::Bar;
use crate::cli::target::is_loopback;
use crate::cli::trust::{Trouble, Trust, trouble};
use crate::model::{Bytes, Sha256};

mod headers;
mod part;
use headers::{content_range, named_digest, number, strong_etag, unsatisfied};
use part::{MAX_ARCHIVE, Part};

/// Attempts in a row that bring nothing new before the fetch is given up: with pauses that double from half a second,
/// about 15 seconds.
const TRIES: u32 = 6;

/// Attempts in all. Each of them but [`TRIES`] brought at least a byte.
const ATTEMPTS: u32 = 10_000;

const CONNECT: Duration = Duration::from_secs(10);
/// Nothing received for this long: the link is dead.
const STALLED: Duration = Duration::from_secs(60);

/// Of the body of a refusal, this much is read.
const MAX_REFUSAL: u64 = 64 << 10;

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Where it is.
    pub url: String,
    /// A plain file name for it.
    pub name: String,
    /// Digest, if the node named one.
    pub sha256: Option<Sha256>,
    /// Size, if the node named one.
    pub size: Option<u64>,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub size: u64,
    /// Its digest, as computed here.
    pub sha256: Sha256,
    /// Whether node or server named that digest, too.
    pub verified: bool,
}

/// Why an archive could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It was deleted: in the server's words, with reason and time.
    #[error("the result is gone: {0}")]
    Gone(String),
    /// The server does not have it.
    #[error("{0} does not have it")]
    NotFound(String),
    /// The server says no.
    #[error("the server refused it (status {status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In its words.
        message: String,
    },
    /// No connection.
    #[error("cannot reach {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why.
        source: Cause,
    },
    /// The link broke too often.
    #[error("the link to {host} broke {TRIES} times in a row; {kept} are kept")]
    Link {
        /// Host and port.
        host: String,
        /// What is there so far.
        kept: Bytes,
        /// Why, the last time.
        source: Cause,
    },
    /// Not what was published.
    #[error("its SHA-256 is {actual}, but should be {expected}")]
    WrongDigest {
        /// Computed.
        actual: Sha256,
        /// Named by node or server.
        expected: Sha256,
    },
    /// Not what was published.
    #[error("its size is {actual} bytes, but should be {expected}")]
    WrongSize {
        /// Of the server's file.
        actual: u64,
        /// Named by the node.
        expected: u64,
    },
    /// It answers other ranges than those asked for, again and again.
    #[error("{0} does not send it in one piece, nor in pieces that fit")]
    Incoherent(String),
    /// More than anybody publishes.
    #[error("it is larger than {}", Bytes(MAX_ARCHIVE))]
    TooLarge,
    /// This disk is too small.
    #[error("{need} are needed in {}, {free} are free", dir.display())]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// What is missing to the end.
        need: Bytes,
        /// What is there.
        free: Bytes,
    },
    /// The URL is none of http or https.
    #[error("its address cannot be used: {0}")]
    BadUrl(String),
    /// A file on this side.
    #[error("{}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How one attempt ended.
enum Attempt {
    Done,
    /// The link broke, or the server wants to be asked again later.
    Again(ureq::Error),
    /// What is here does not fit what the server has: from the beginning.
    Restart,
}

/// Fetches archives.
pub struct Fetcher<'a> {
    context: &'a Context<'a>,
    remote: Agent,
    local: Agent,
}

impl<'a> Fetcher<'a> {
    /// Nothing is sent yet; servers are trusted as the node's API is. No token of the API goes to the servers of results: they may be anybody's.
    pub fn new(context: &'a Context<'a>, trust: &Trust) -> Self {
        let config = || {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(STALLED))
                .timeout_per_read(Some(STALLED))
                .user_agent(concat!("codling/", env!("CARGO_PKG_VERSION")));
            trust.of(config)
        };
        Self {
            context,
            remote: config().build().new_agent(),
            local: config().proxy(None).build().new_agent(),
        }
    }

    /// Brings `archive` into `dir`, whole and verified.
    ///
    /// # Errors
    /// It cannot be had, or not now, or is not what it should be. What came so far is kept where that helps.
    pub fn fetch(&self, archive: &Archive, dir: &Path) -> Result<Fetched, FetchError> {
        let host = host(&archive.url)?;
        let mut part = Part::open(dir, archive)?;
        let fetched = self.fill(archive, host, &mut part);
        if fetched.is_err() && part.len == 0 {
            part.remove();
        }
        fetched
    }

    fn fill(&self, archive: &Archive, host: &str, part: &mut Part) -> Result<Fetched, FetchError> {
        let mut bar = Bar::new(&self.context.out, &archive.name, part.len);
        // A partial file that turns out wrong is worth one more try from the beginning.
        let mut restarts = if part.len > 0 { 1 } else { 0 };
        let (mut fruitless, mut best, mut pause) = (0, part.len, self.context.pace.retry);
        for _ in 0..ATTEMPTS {
            let broken = match self.attempt(archive, host, part, &mut bar)? {
                Attempt::Done => match part.verify(archive) {
                    Ok(fetched) => return Ok(fetched),
                    Err(FetchError::WrongDigest { .. }) if restarts > 0 => {
                        (restarts, best) = (restarts - 1, 0);
                        part.restart(None)?;
                        continue;
                    }
                    Err(error) => {
                        part.remove();
                        return Err(error);
                    }
                },
                Attempt::Restart => None,
                Attempt::Again(source) => Some(source),
            };
            if part.len > best {
                (fruitless, best, pause) = (0, part.len, self.context.pace.retry);
            }
            if broken.is_none() {
                part.restart(None)?;
            }
            fruitless += 1;
            match broken {
                Some(source) if fruitless >= TRIES => return Err(gave_up(host, source, part.len)),
                None if fruitless >= TRIES => break,
                _ => std::thread::sleep(pause),
            }
            pause *= 2;
        }
        Err(FetchError::Incoherent(host.to_owned()))
    }

    fn attempt(
        &self,
        archive: &Archive,
        host: &str,
        part: &mut Part,
        bar: &mut Bar<'_>,
    ) -> Result<Attempt, FetchError> {
        let agent = if is_loopback(host_name(host)) { &self.local } else { &self.remote };
        let mut request = agent.get(&archive.url).header("Accept-Encoding", "identity");
        if part.len > 0 {
            request = request.header("Range", format!("bytes={}-", part.len));
            if let Some(etag) = &part.etag {
                request = request.header("If-Range", etag);
            }
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(ureq::Error::BadUri(why)) => return Err(FetchError::BadUrl(why)),
            Err(ureq::Error::Http(why)) => return Err(FetchError::BadUrl(why.to_string())),
            // Trying again brings no other certificate.
            Err(error) if matches!(trouble(&error), Some(Trouble::Certificate | Trouble::Authority)) => {
                return Err(FetchError::Unreachable { host: host.to_owned(), source: cause(error) });
            }
            Err(error) => return Ok(Attempt::Again(error)),
        };
        let headers = response.headers();
        let total = match response.status().as_u16() {
            200 => {
                part.restart(strong_etag(headers))?;
                number(headers, "content-length")
            }
            206 => match content_range(headers) {
                Some((start, total))
                    if start == part.len && part.is_same(strong_etag(headers).as_deref()) =>
                {
                    Some(total)
                }
                _ => return Ok(Attempt::Restart),
            },
            416 if unsatisfied(headers) == Some(part.len) => {
                part.named = part.named.or_else(|| named_digest(headers));
                return Ok(Attempt::Done);
            }
            416 => return Ok(Attempt::Restart),
            status => return refused(status, response, host),
        };
        part.named = named_digest(headers).or(part.named);
        if let (Some(actual), Some(expected)) = (total, archive.size)
            && actual != expected
        {
            return Err(FetchError::WrongSize { actual, expected });
        }
        bar.total(total);
        part.check_room(total)?;
        part.fill(response.into_body(), total, bar)
    }
}

fn gave_up(host: &str, error: ureq::Error, kept: u64) -> FetchError {
    let host = host.to_owned();
    let nobody = no_such_host(&error) || matches!(&error, ureq::Error::Io(error) if no_connection(error));
    if nobody {
        return FetchError::Unreachable { host, source: cause(error) };
    }
    FetchError::Link { host, kept: Bytes(kept), source: cause(error) }
}

/// An answer that is no content: final, or worth another try.
fn refused(status: u16, response: Response<Body>, host: &str) -> Result<Attempt, FetchError> {
    if matches!(status, 408 | 425 | 429 | 500 | 502..=504) {
        return Ok(Attempt::Again(ureq::Error::StatusCode(status)));
    }
    let mut text = Vec::new();
    // Whatever part of the explanation arrives is better than none.
    let _ = response.into_body().into_reader().take(MAX_REFUSAL).read_to_end(&mut text);
    let message = match refusal(status, &text) {
        ClientError::Refused { message, .. } => message,
        other => other.to_string(),
    };
    Err(match status {
        410 => FetchError::Gone(message),
        404 => FetchError::NotFound(host.to_owned()),
        _ => FetchError::Refused { status, message },
    })
}

/// `host:port` of a URL, for messages.
fn host(url: &str) -> Result<&str, FetchError> {
    let rest = match url.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest
        }
        _ => return Err(FetchError::BadUrl(url.chars().take(200).collect())),
    };
    Ok(rest.split(['/', '?', '#']).next().unwrap_or_default())
}

/// The host alone.
pub fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests;
