//! A small client of the HTTP API: bounded answers, timeouts, errors that say what to do.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::exit::{CliError, Exit};
use super::older;
use super::target::Target;
use super::trust::{Trouble, trouble};
use crate::wire::Dialect;
use crate::wire::dialect::{BACALHAU_VERSION, VERSION_HEADER};

/// Largest answer that is read into memory.
pub const MAX_ANSWER: u64 = 32 << 20;

/// Of an error's body, this much is read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// Of a body that is no API error, this many characters are shown.
const MAX_SHOWN: usize = 300;

/// The way to a node must be there within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// Nothing read or written for this long: the link is dead.
const STALLED: Duration = Duration::from_secs(60);
/// One call of the API, answer included.
const CALL: Duration = Duration::from_secs(300);
/// A call whose time is over; no time at all would mean no limit.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Why something underneath failed.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error("cannot reach a node at {address}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The host's name is not known.
    #[error("cannot find {address}")]
    UnknownHost {
        /// `host:port`.
        address: String,
        /// Why.
        source: Cause,
    },
    /// Too slow.
    #[error("{address} did not answer in time ({what})")]
    Slow {
        /// `host:port`.
        address: String,
        /// Which limit was hit.
        what: String,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broken {
        /// `host:port`.
        address: String,
        /// Why.
        source: Cause,
    },
    /// TLS failed.
    #[error("{address} cannot be spoken with over TLS")]
    Tls {
        /// `host:port`.
        address: String,
        /// At what.
        trouble: Trouble,
        /// Why.
        source: Cause,
    },
    /// The node said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// In the node's words.
        message: String,
        /// What the node advises; may be empty.
        hint: String,
    },
    /// More than [`MAX_ANSWER`].
    #[error("the answer of {address} is larger than {} MiB", MAX_ANSWER >> 20)]
    TooLarge {
        /// `host:port`.
        address: String,
    },
    /// Not the JSON that the API has.
    #[error("{address} does not answer as the API does")]
    Malformed {
        /// `host:port`.
        address: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether the same call may work a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::UnknownHost { .. } | Self::Slow { .. } | Self::Broken { .. } => {
                true
            }
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether the node says that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. }) && !self.is_unknown_path()
    }

    /// Whether the node does not know the request itself. This is what 1.4 and 1.9 say then; of a job that they do not
    /// have they say more.
    #[must_use]
    pub fn is_unknown_path(&self) -> bool {
        let said = ["Not Found", "The requested resource/URL was not found."];
        matches!(self, Self::Refused { status: 404, message, .. } if said.contains(&message.as_str()))
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } | Self::UnknownHost { .. } => Exit::Unavailable,
            Self::Slow { .. } | Self::Broken { .. } => Exit::TryAgain,
            Self::Tls { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => Exit::Protocol,
            Self::Refused { .. } if self.is_unknown_path() => Exit::Unavailable,
            Self::Refused { status, .. } => match status {
                401 | 403 => Exit::Denied,
                404 | 410 => Exit::NotFound,
                429 | 502..=504 => Exit::TryAgain,
                405 | 501 => Exit::Unavailable,
                400..=499 => Exit::Data,
                _ => Exit::Internal,
            },
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unreachable { .. } => {
                "start a node with 'codling serve', or name another one with --api-host and --api-port".into()
            }
            Self::UnknownHost { .. } => "check --api-host (or BACALHAU_API_HOST)".into(),
            Self::Slow { .. } | Self::Broken { .. } => "try again".into(),
            Self::Tls { trouble: Trouble::Certificate, .. } => {
                "name its authority, or the certificate itself, with --cacert; --insecure takes any".into()
            }
            Self::Tls { trouble: Trouble::Authority, .. } => {
                "the node's certificate was made as one of an authority (openssl does that); make it again with \
                 `-addext basicConstraints=critical,CA:FALSE`"
                    .into()
            }
            Self::Tls { .. } => "if it speaks plain HTTP, leave out --tls or https://".into(),
            Self::Malformed { .. } => {
                "check that --api-host and --api-port name a codling or Bacalhau API".into()
            }
            Self::TooLarge { .. } => "ask for less at a time, e.g. with --limit".into(),
            // How a header is to look is of no use to somebody at the command line.
            Self::Refused { status: 401, .. } => {
                "set BACALHAU_API_KEY to the node's token, or name a file that holds it with --token-file"
                    .into()
            }
            Self::Refused { hint, .. } if !hint.is_empty() => hint.clone(),
            Self::Refused { .. } if self.is_unknown_path() => {
                "the node does not know such a request: its version may be too old ('codling agent version')".into()
            }
            Self::Refused { status: 403, .. } => {
                "set BACALHAU_API_KEY, or name a file with --token-file".into()
            }
            Self::Refused { .. } => String::new(),
        }
    }

    /// The error of a command that wanted to do `what`.
    #[must_use]
    pub fn doing(self, what: &str) -> CliError {
        let (exit, hint) = (self.exit(), self.hint());
        CliError::caused(exit, format!("cannot {what}"), self).hint(hint)
    }
}

/// Talks to one node.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    target: Target,
    deadline: Option<Instant>,
}

/// Query parameters.
pub type Query<'a> = [(&'a str, &'a str)];

enum Call<'a> {
    Get,
    Put(&'a Value),
    Post(&'a Value),
    Delete(&'a Value),
}

impl Client {
    /// A client of that node. Nothing is sent yet.
    #[must_use]
    pub fn new(target: Target) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(STALLED))
            .timeout_per_write(Some(STALLED))
            .timeout_global(Some(CALL))
            .max_redirects(3)
            .user_agent(concat!("codling/", env!("CARGO_PKG_VERSION")));
        if target.is_local {
            // A proxy cannot reach this machine's loopback.
            config = config.proxy(None);
        }
        let agent = target.trust.of(config).build().new_agent();
        Self { agent, target, deadline: None }
    }

    /// The same client, whose calls end by `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Option<Instant>) -> Self {
        Self { agent: self.agent.clone(), target: self.target.clone(), deadline }
    }

    /// The node it talks to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// GET of a path below `/api/v1/`.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is none.
    pub fn get(&self, path: &str, query: &Query<'_>) -> Result<Value, ClientError> {
        self.call(&Call::Get, path, query)
    }

    /// PUT of a path below `/api/v1/`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(&Call::Put(body), path, &[])
    }

    /// POST of a path below `/api/v1/`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(&Call::Post(body), path, &[])
    }

    /// DELETE of a path below `/api/v1/`, with the body that Bacalhau's clients send.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(&Call::Delete(body), path, &[])
    }

    /// Whether the node can take work: GET of `/readyz`, which is codling's own.
    ///
    /// # Errors
    /// It cannot, or does not answer.
    pub fn ready(&self) -> Result<(), ClientError> {
        let response = self.headers(self.agent.get(format!("{}/readyz", self.target.base))).call();
        self.read(response.map_err(|e| self.broken(e))?).map(drop)
    }

    fn call(&self, call: &Call<'_>, path: &str, query: &Query<'_>) -> Result<Value, ClientError> {
        let url = format!("{}/api/v1/{path}", self.target.base);
        let query = query.iter().copied();
        let send = |request: ureq::RequestBuilder<ureq::typestate::WithBody>, body: &Value| {
            let request = self.headers(request).header("Content-Type", "application/json");
            request.query_pairs(query.clone()).send(body.to_string())
        };
        let response = match call {
            Call::Get => self.headers(self.agent.get(&url)).query_pairs(query).call(),
            Call::Put(body) => send(self.agent.put(&url), body),
            Call::Post(body) => send(self.agent.post(&url), body),
            Call::Delete(body) => send(self.agent.delete(&url).force_send_body(), body),
        };
        self.read(response.map_err(|e| self.broken(e))?)
    }

    fn headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let left =
            self.deadline.map_or(CALL, |d| d.saturating_duration_since(Instant::now()).clamp(AT_ONCE, CALL));
        let request = request.config().timeout_global(Some(left)).build();
        let request = request.header(VERSION_HEADER, BACALHAU_VERSION).header("Accept", "application/json");
        match &self.target.token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.reveal())),
            None => request,
        }
    }

    fn read(&self, response: Response<Body>) -> Result<Value, ClientError> {
        let status = response.status().as_u16();
        // Bacalhau says its version with each answer.
        let version = response.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
        let is_old = version.is_some_and(|version| Dialect::of(Some(version)) == Dialect::A);
        let body = response.into_body();
        if !(200..300).contains(&status) {
            let mut text = Vec::new();
            // Whatever part of the explanation arrives is better than none.
            let _ = body.into_reader().take(MAX_ERROR_BODY).read_to_end(&mut text);
            return Err(refusal(status, &text));
        }
        let bytes = body.into_with_config().limit(MAX_ANSWER).read_to_vec().map_err(|e| self.broken(e))?;
        let mut answer = serde_json::from_slice(&bytes)
            .map_err(|source| ClientError::Malformed { address: self.target.address.clone(), source })?;
        if is_old {
            older::renumber(&mut answer);
        }
        Ok(answer)
    }

    fn broken(&self, error: ureq::Error) -> ClientError {
        let address = self.target.address.clone();
        if let Some(trouble) = trouble(&error) {
            return ClientError::Tls { address, trouble, source: cause(error) };
        }
        match error {
            ureq::Error::BodyExceedsLimit(_) => ClientError::TooLarge { address },
            ureq::Error::Timeout(limit) => ClientError::Slow { address, what: limit.to_string() },
            ureq::Error::Io(source) if no_connection(&source) => ClientError::Unreachable { address, source },
            error if no_such_host(&error) => ClientError::UnknownHost { address, source: cause(error) },
            error => ClientError::Broken { address, source: cause(error) },
        }
    }
}

/// Whether the error says that a connection never came about.
#[must_use]
pub fn no_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionRefused
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::AddrNotAvailable
            | K::PermissionDenied
    )
}

/// Whether the name could not be resolved. The standard library has no kind for that, only this text.
#[must_use]
pub fn no_such_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address"),
        _ => false,
    }
}

/// The cause itself, without the library's word for its kind.
#[must_use]
pub fn cause(error: ureq::Error) -> Cause {
    match error {
        ureq::Error::Io(error) => error.into(),
        other => other.into(),
    }
}

/// What an answer other than 2xx says: Bacalhau 1.9's error object, older shapes, or plain text.
#[must_use]
pub fn refusal(status: u16, body: &[u8]) -> ClientError {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|n| json.get(n).and_then(Value::as_str));
        found.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned)
    };
    let message = text(&["Message", "message", "Error", "error"]).unwrap_or_else(|| {
        let plain = String::from_utf8_lossy(body);
        let shown: String = plain.trim().chars().take(MAX_SHOWN).collect();
        match shown.as_str() {
            "" => format!("the node answered with status {status} and no explanation"),
            shown => format!("the node answered with status {status}: {shown}"),
        }
    });
    ClientError::Refused { status, message, hint: text(&["Hint", "hint"]).unwrap_or_default() }
}

/// A path segment: everything but unreserved characters percent-encoded.
#[must_use]
pub fn segment(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::target::ConnectArgs;
    use crate::cli::testing::{Reply, Server};

    fn client(server: &Server) -> Client {
        Client::new(server.target())
    }

    #[test]
    fn sends_dialect_token_and_escaped_segments() {
        let server = Server::start(|_| Reply::json(r#"{"ok":true}"#));
        let path = format!("jobs/{}", segment("a/b ?\u{e4}"));
        let answer = client(&server).get(&path, &[("labels", "a!=b"), ("limit", "10")]).unwrap();
        assert_eq!(answer["ok"], true);
        let request = &server.requests()[0];
        assert_eq!(request.line, "GET /api/v1/jobs/a%2Fb%20%3F%C3%A4?labels=a!%3Db&limit=10 HTTP/1.1");
        assert_eq!(request.header("x-bacalhau-git-version"), Some("v1.9.3"));
        assert_eq!(request.header("authorization"), Some("Bearer test-token"));
    }

    #[test]
    fn numbers_of_1_4_are_read_as_what_they_mean_there() {
        for (version, state) in [(Some("v1.4.0"), 9), (Some("v1.9.3"), 7), (None, 7)] {
            let server = Server::start(move |_| {
                let reply = Reply::json(r#"{"Items":[{"ComputeState":{"StateType":7}}]}"#);
                version.into_iter().fold(reply, |reply, version| reply.header(VERSION_HEADER, version))
            });
            let answer = client(&server).get("x", &[]).unwrap();
            assert_eq!(answer["Items"][0]["ComputeState"]["StateType"], state, "{version:?}");
        }
    }

    #[test]
    fn a_path_that_the_node_does_not_have_is_told_from_a_job_that_it_does_not_have() {
        let path = refusal(404, br#"{"message":"Not Found"}"#);
        assert!(path.hint().contains("version") && !path.is_not_found());
        assert!(
            refusal(404, br#"{"Message":"The requested resource/URL was not found."}"#).is_unknown_path()
        );
        let job = refusal(404, br#"{"message":"job not found: j-1"}"#);
        assert!(job.hint().is_empty() && job.is_not_found());
        assert_eq!((path.exit(), job.exit()), (Exit::Unavailable, Exit::NotFound));
    }

    #[test]
    fn delete_carries_a_body() {
        let server = Server::start(|_| Reply::json("{}"));
        client(&server).delete("x", &serde_json::json!({"reason": "r"})).unwrap();
        let request = &server.requests()[0];
        assert_eq!(request.line, "DELETE /api/v1/x HTTP/1.1");
        assert_eq!(request.body, br#"{"reason":"r"}"#);
    }

    #[test]
    fn refusals_in_every_shape() {
        let table: [(&str, &str, &str); 5] = [
            (r#"{"Status":404,"Message":"no such job","Hint":"look"}"#, "no such job", "look"),
            (r#"{"message":"old","error":"code=400"}"#, "old", ""),
            (r#"{"Error":"too old"}"#, "too old", ""),
            ("<html>", "the node answered with status 404: <html>", ""),
            ("", "the node answered with status 404 and no explanation", ""),
        ];
        for (body, wanted, advice) in table {
            let ClientError::Refused { message, hint, .. } = refusal(404, body.as_bytes()) else { panic!() };
            assert_eq!((message.as_str(), hint.as_str()), (wanted, advice));
        }
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let server = Server::start(|_| Reply::endless());
        let error = client(&server).get("x", &[]).unwrap_err();
        assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
    }

    #[test]
    fn a_cut_answer_and_one_that_is_no_json() {
        let server = Server::start(|request| {
            if request.line.contains("cut") {
                Reply::json("{\"a\":1}").cut_after(3)
            } else {
                Reply::json("<html>")
            }
        });
        let error = client(&server).get("cut", &[]).unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }) && error.is_transient(), "{error:?}");
        let error = client(&server).get("text", &[]).unwrap_err();
        assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    }

    #[test]
    fn no_host_of_that_name() {
        // A label may have 63 characters: no name server needs to be asked.
        let args = ConnectArgs { api_host: Some("b".repeat(64)), ..ConnectArgs::default() };
        let error = Client::new(args.target(&|_| None).unwrap()).get("x", &[]).unwrap_err();
        assert!(matches!(error, ClientError::UnknownHost { .. }), "{error:?}");
        assert_eq!(error.doing("list jobs").exit(), Exit::Unavailable);
    }

    #[test]
    fn nobody_listens() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut target = Server::start(|_| Reply::json("{}")).target();
        target.base = format!("http://{address}");
        target.address = address.to_string();
        let error = Client::new(target).get("x", &[]).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()));
        let CliError::Failed(failed) = error.doing("list jobs") else { panic!() };
        assert_eq!(failed.exit, Exit::Unavailable);
        assert!(failed.hint.unwrap().contains("codling serve"));
    }
}
