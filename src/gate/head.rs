//! The head of a request: read strictly, so that what is passed on has one meaning only.

use crate::wire::Code;

use super::limits::{HEAD_BYTES, HEAD_FIELDS, TARGET_BYTES};
use super::refusal::Refusal;

/// Header fields that the handlers get to see. All others end here.
pub const PASSED: [&str; 9] = [
    "Accept",
    "Content-Type",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Range",
    "X-Bacalhau-Git-Version",
    "X-Request-ID",
];

/// Methods that are passed on; what they may be used on is the handlers' business.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, or 0 without.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A checked head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// One of the methods that are passed on.
    pub method: &'static str,
    /// Path and query; begins with a slash, printable ASCII without blanks.
    pub target: String,
    /// The host asked for; empty only in HTTP/1.0.
    pub host: String,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the peer wants another request on this connection.
    pub keep_alive: bool,
    /// Whether the peer waits for `100 Continue`.
    pub expects_continue: bool,
    /// `Authorization`, for the gate alone: never logged, never passed on.
    pub authorization: Option<String>,
    /// What a websocket's handshake brings, if this is one.
    pub websocket: Option<Handshake>,
    /// `Origin`: the page that a browser sends this for.
    pub origin: Option<String>,
    /// Index into [`PASSED`] and value.
    pub passed: Vec<(usize, String)>,
}

/// A websocket's handshake, not yet looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handshake {
    /// `Sec-WebSocket-Key`; empty if it is not there.
    pub key: String,
    /// `Sec-WebSocket-Version`; empty if it is not there.
    pub version: String,
}

impl Head {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of one of the fields that are passed on.
    pub fn field(&self, name: &str) -> &str {
        let wanted = |(i, _): &&(usize, String)| PASSED.get(*i).is_some_and(|n| *n == name);
        self.passed.iter().find(wanted).map_or("", |(_, value)| value)
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }
}

/// Where a head ends in what has been received: after its empty line.
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What to say at once to who has begun with what begins no request, such as TLS: it waits for an answer, and no end of
/// a head would come.
pub fn foreign(bytes: &[u8]) -> Option<Refusal> {
    match bytes.first()? {
        // A handshake record (RFC 8446 5.1).
        0x16 => Some(Refusal {
            hint: "ask for http://, without TLS",
            ..Refusal::bad("this port speaks plain HTTP")
        }),
        b'\r' => None,
        first if first.is_ascii_graphic() => None,
        _ => Some(Refusal::bad("the request line is malformed")),
    }
}

/// What to say when no head ends within the limit.
pub fn too_large(bytes: &[u8]) -> Refusal {
    if bytes.contains(&b'\n') {
        Refusal::new(Code::HeadersTooLarge, format!("the request's head has more than {HEAD_BYTES} bytes"))
    } else {
        Refusal::new(Code::UriTooLong, format!("the request line has more than {HEAD_BYTES} bytes"))
    }
}

/// Reads a head that ends with its empty line.
pub fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    only_whole_line_ends(bytes)?;
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(Refusal::bad("the request's head is cut off")),
        Err(error) => return Err(syntax(error)),
    }
    let http_1_1 = request.version == Some(1);
    let named = request.method.unwrap_or_default();
    let Some(method) = METHODS.into_iter().find(|method| *method == named) else {
        return Err(Refusal::new(Code::NotImplemented, "this method is not known here"));
    };
    let (target, authority) = target(request.path.unwrap_or_default())?;
    let mut found = Found::default();
    for field in request.headers.iter() {
        found.add(field.name, field.value)?;
    }
    let framing = found.framing(http_1_1)?;
    // The authority of an absolute target stands above the Host field, which must be there all the same.
    let host = match found.host.take() {
        Some(host) => authority.unwrap_or(host),
        None if http_1_1 => return Err(Refusal::bad("HTTP/1.1 needs a Host field")),
        None => authority.unwrap_or_default(),
    };
    if !host.is_empty() || http_1_1 {
        check_host(&host)?;
    }
    let websocket = found.handshake().filter(|_| http_1_1 && method == "GET");
    Ok(Head {
        method,
        target,
        host,
        framing,
        keep_alive: http_1_1 && !found.close,
        expects_continue: http_1_1 && found.expects_continue,
        authorization: found.authorization,
        websocket,
        origin: found.origin,
        passed: found.passed,
    })
}

/// httparse takes a bare LF for the end of a line; others do not, and that difference is how requests are smuggled.
fn only_whole_line_ends(bytes: &[u8]) -> Result<(), Refusal> {
    let mut before = 0;
    for &byte in bytes {
        if (byte == b'\n') != (before == b'\r') {
            return Err(Refusal::bad("a line ends with CR LF, and neither is allowed elsewhere"));
        }
        before = byte;
    }
    Ok(())
}

fn syntax(error: httparse::Error) -> Refusal {
    use httparse::Error as E;
    match error {
        E::TooManyHeaders => {
            Refusal::new(Code::HeadersTooLarge, format!("more than {HEAD_FIELDS} header fields"))
        }
        E::Version => Refusal::new(Code::VersionNotSupported, "HTTP/1.1 and HTTP/1.0 are spoken here"),
        E::HeaderName => Refusal::bad("a header field's name is malformed, or its line was folded"),
        E::HeaderValue => Refusal::bad("a header field's value has a forbidden character"),
        _ => Refusal::bad("the request line is malformed"),
    }
}

/// Path and query, and the authority if the target names one (as to a proxy).
fn target(text: &str) -> Result<(String, Option<String>), Refusal> {
    if text.len() > TARGET_BYTES {
        return Err(Refusal::new(
            Code::UriTooLong,
            format!("the request's target has more than {TARGET_BYTES} bytes"),
        ));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Refusal::bad("the request's target has a character that must be percent-encoded"));
    }
    if text.starts_with('/') {
        return Ok((text.to_owned(), None));
    }
    let scheme = "http://";
    let rest = text.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme));
    let Some(rest) = rest.and_then(|_| text.get(scheme.len()..)) else {
        return Err(Refusal::bad("the request's target must begin with a slash"));
    };
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((format!("{slash}{path}"), Some(authority.to_owned())))
}

fn check_host(host: &str) -> Result<(), Refusal> {
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%');
    if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
        return Err(Refusal::bad("the Host field is malformed"));
    }
    Ok(())
}

/// What the fields say, and that none of those that matter is there twice.
#[derive(Default)]
struct Found {
    host: Option<String>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    upgrade: bool,
    websocket: bool,
    key: Option<String>,
    version: Option<String>,
    expects_continue: bool,
    authorization: Option<String>,
    origin: Option<String>,
    passed: Vec<(usize, String)>,
}

impl Found {
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("Content-Length") {
            let length = length(value)?;
            return once(self.length.replace(length).is_none(), "Content-Length");
        }
        if is("Transfer-Encoding") {
            if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::new(
                    Code::NotImplemented,
                    "no transfer coding but chunked is known here",
                ));
            }
            return once(!std::mem::replace(&mut self.chunked, true), "Transfer-Encoding");
        }
        if is("Host") {
            return once(self.host.replace(ascii(value, "Host")?).is_none(), "Host");
        }
        if is("Connection") {
            self.close |= lists(value, b"close");
            self.upgrade |= lists(value, b"upgrade");
        } else if is("Upgrade") {
            self.websocket |= lists(value, b"websocket");
        } else if is("Sec-WebSocket-Key") {
            return once(self.key.replace(ascii(value, "Sec-WebSocket-Key")?).is_none(), "Sec-WebSocket-Key");
        } else if is("Sec-WebSocket-Version") {
            let version = ascii(value, "Sec-WebSocket-Version")?;
            return once(self.version.replace(version).is_none(), "Sec-WebSocket-Version");
        } else if is("Expect") {
            if !value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(Code::ExpectationFailed, "only 100-continue can be expected here"));
            }
            self.expects_continue = true;
        } else if is("Authorization") {
            let value = ascii(value, "Authorization")?;
            return once(self.authorization.replace(value).is_none(), "Authorization");
        } else if is("Origin") {
            return once(self.origin.replace(ascii(value, "Origin")?).is_none(), "Origin");
        } else if let Some(i) = PASSED.iter().position(|passed| is(passed)) {
            // Accept may be given in several fields; nobody here looks beyond the first.
            let repeats = self.passed.iter().any(|(known, _)| *known == i);
            if repeats && PASSED[i] != "Accept" {
                return once(false, PASSED[i]);
            }
            self.passed.push((i, ascii(value, PASSED[i])?));
        }
        Ok(())
    }

    /// A websocket's handshake, if this asks for one.
    fn handshake(&mut self) -> Option<Handshake> {
        let both = self.upgrade && self.websocket;
        let (key, version) = (self.key.take().unwrap_or_default(), self.version.take().unwrap_or_default());
        both.then_some(Handshake { key, version })
    }

    fn framing(&self, http_1_1: bool) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad("both Content-Length and Transfer-Encoding are given")),
            (true, None) if !http_1_1 => Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Whether a list has that word.
fn lists(value: &[u8], word: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
}

fn once(first: bool, name: &'static str) -> Result<(), Refusal> {
    if first { Ok(()) } else { Err(Refusal::bad(format!("the {name} field is given twice"))) }
}

/// A number of bytes: digits only. A list of equal numbers is refused like any other list.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    let value = value.trim_ascii();
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match text {
        Some("") | None => Err(Refusal::bad("the Content-Length field is not a number")),
        // More than 64 bits is more than any limit.
        Some(digits) => Ok(digits.parse().unwrap_or(u64::MAX)),
    }
}

fn ascii(value: &[u8], name: &'static str) -> Result<String, Refusal> {
    let text = std::str::from_utf8(value.trim_ascii()).ok();
    match text.filter(|text| text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Refusal::bad(format!("the {name} field has a forbidden character"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(text: &str) -> u16 {
        parse(text.as_bytes()).map_or_else(|refusal| refusal.code.status(), |_| 200)
    }

    #[test]
    fn a_plain_request_is_taken_apart() {
        let text = "PUT /api/v1/x?a=b HTTP/1.1\r\nHost: node:1234\r\nContent-Length: 5\r\n\
            Authorization: Bearer s\r\nX-Bacalhau-Git-Version: v1.9.3\r\nCookie: secret\r\nRange:bytes=0-\r\n\
            Connection: Keep-Alive\r\nExpect: 100-Continue\r\nX-Codling-Site: api\r\n\r\n";
        let head = parse(text.as_bytes()).unwrap();
        assert_eq!((head.method, head.target.as_str(), head.path()), ("PUT", "/api/v1/x?a=b", "/api/v1/x"));
        assert_eq!((head.host.as_str(), head.framing), ("node:1234", Framing::Length(5)));
        assert!(head.keep_alive && head.expects_continue && head.has_body());
        assert_eq!(head.authorization.as_deref(), Some("Bearer s"));
        let passed: Vec<_> = head.passed.iter().map(|(i, v)| (PASSED[*i], v.as_str())).collect();
        assert_eq!(passed, [("X-Bacalhau-Git-Version", "v1.9.3"), ("Range", "bytes=0-")]);
        assert_eq!((head.field("Range"), head.field("If-Range")), ("bytes=0-", ""));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for (fields, wanted) in [
            ("", 200),
            ("Content-Length: 5\r\n", 200),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length: 5 5\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length : 5\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 200),
            ("Transfer-Encoding: Chunked\r\n", 200),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5\r\ntransfer-encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: identity\r\n", 501),
            ("Transfer-Encoding: \x0bchunked\r\n", 400),
            ("Transfer-Encoding:\r\n", 501),
            (" Transfer-Encoding: chunked\r\n", 400),
            ("X: a\r\n b\r\n", 400),
            ("X: a\r\n\tb\r\n", 400),
            ("X: a\nY: b\r\n", 400),
            ("X: a\rY: b\r\n", 400),
            ("X: a\0b\r\n", 400),
            ("X\r\n", 400),
            (": a\r\n", 400),
            ("X Y: a\r\n", 400),
            ("Host: b\r\n", 400),
            ("Range: bytes=0-1\r\nRange: bytes=2-3\r\n", 400),
            ("Authorization: a\r\nAuthorization: b\r\n", 400),
            ("X-Request-ID: caf\u{e9}\r\n", 400),
            ("X-Other: caf\u{e9}\r\n", 200),
            ("Expect: a miracle\r\n", 417),
            ("Accept: a\r\nAccept: b\r\n", 200),
        ] {
            assert_eq!(status(&post(fields)), wanted, "{fields:?}");
        }
    }

    #[test]
    fn request_lines_and_hosts() {
        for (text, wanted) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\n\r\n", 200),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 505),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /# HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ] {
            assert_eq!(status(text), wanted, "{text:?}");
        }
        let head = parse(b"GET HTTP://b:1?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((head.target.as_str(), head.host.as_str()), ("/?x=1", "b:1"));
        assert!(!parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keep_alive);
        assert!(!parse(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").unwrap().keep_alive);
        let upgrade = |fields: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Sec-WebSocket-Key: k\r\n\r\n");
            parse(text.as_bytes()).unwrap().websocket.map(|handshake| (handshake.key, handshake.version))
        };
        let asked = "Upgrade: h2c, WebSocket\r\nConnection: keep-alive, Upgrade\r\n";
        assert_eq!(upgrade(asked), Some(("k".into(), String::new())));
        assert_eq!(upgrade("Upgrade: websocket\r\n").or_else(|| upgrade("Connection: Upgrade\r\n")), None);
        let twice = "Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: b\r\n";
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{twice}\r\n")), 400);
        let many = "X: y\r\n".repeat(HEAD_FIELDS);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), 431);
        let long = "a".repeat(TARGET_BYTES);
        assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), 414);
        assert_eq!(too_large(&[b'a'; HEAD_BYTES]).code, Code::UriTooLong);
        assert_eq!(too_large(b"GET / HTTP/1.1\r\nX: aaaa").code, Code::HeadersTooLarge);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_taken_is_clean(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "(GET|PUT|X) [/a-z?%# ]{1,12} HTTP/1[.][01]\r\n(Host: [a-z:]{1,4}\r\n)?\
                 ((Content-Length|Transfer-Encoding|Range|X|Connection)( )?:[ ]?[a-z0-9,\r\n\t]{0,9}\r\n){0,3}\r\n"
                    .prop_map(String::into_bytes),
            ]
        ) {
            if let Ok(head) = parse(&bytes) {
                let clean = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
                prop_assert!(head.target.starts_with('/') && clean(&head.target) && !head.target.contains(' '));
                prop_assert!(clean(&head.host));
                prop_assert!(head.passed.iter().all(|(_, value)| clean(value)));
            }
        }
    }
}
