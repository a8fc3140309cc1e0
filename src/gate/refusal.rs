//! Why the gate itself answers a request, and with what.

use std::borrow::Cow;

use crate::wire::{ApiError, Code};

/// An answer that the gate gives without asking the handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, and with it the HTTP status.
    pub code: Code,
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// What to do next; may be empty.
    pub hint: &'static str,
}

impl Refusal {
    /// A refusal without a hint.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), hint: "" }
    }

    /// 400.
    pub fn bad(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// 503: as much as the node takes is under way.
    pub fn full(message: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: "try again in a moment", ..Self::new(Code::ServiceUnavailable, message) }
    }

    /// The whole response. `head_only` leaves the body out, as an answer to HEAD must.
    pub fn response(&self, request_id: &str, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let mut error = ApiError::new(self.code, self.message.as_ref()).component("Gate").hint(self.hint);
        error.request_id = request_id.into();
        let body = error.body();
        let extra = match self.code {
            Code::ServiceUnavailable => "Retry-After: 1\r\n",
            Code::UpgradeRequired => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            Code::Unauthorized => "WWW-Authenticate: Bearer\r\n",
            _ => "",
        };
        let mut response = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{extra}Connection: {}\r\n\r\n",
            self.code.status(),
            reason(self.code.status()),
            body.len(),
            if keep_alive { "keep-alive" } else { "close" },
        )
        .into_bytes();
        if !head_only {
            response.extend_from_slice(&body);
        }
        response
    }
}

/// The words after a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Other",
    }
}
