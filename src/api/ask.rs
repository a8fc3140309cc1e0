//! A request as the handlers see it, and what they answer.

use serde::Serialize;

use crate::gate::Instruction;
use crate::wire::dialect::VERSION_HEADER;
use crate::wire::tree::{self, Tree, TreeError};
use crate::wire::{ApiError, Code, Dialect};

/// A request. The gate has checked its form.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// `GET`, `PUT`, ...; `HEAD` has become `GET`.
    pub method: String,
    /// Whether it was `HEAD`: the body is dropped on the way back.
    pub head_only: bool,
    /// The target without its query, still encoded.
    pub path: String,
    /// The query's parameters.
    pub query: Query,
    /// Header fields.
    pub fields: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Ask {
    /// Takes a target apart.
    ///
    /// # Errors
    /// The query's percent-encoding is broken.
    pub fn new(method: &str, target: &str) -> Result<Self, ApiError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let head_only = method == "HEAD";
        let method = if head_only { "GET" } else { method }.to_owned();
        let query = Query::parse(query)?;
        Ok(Self { method, head_only, path: path.to_owned(), query, fields: Vec::new(), body: Vec::new() })
    }

    /// The value of a header field; empty if it is not there.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The generation of the client that asks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        Dialect::of(Some(self.field(VERSION_HEADER)))
    }

    /// The path's parts, decoded.
    ///
    /// # Errors
    /// The percent-encoding is broken.
    pub fn segments(&self) -> Result<Vec<String>, ApiError> {
        self.path.strip_prefix('/').unwrap_or(&self.path).split('/').map(|part| decode(part, false)).collect()
    }

    /// The body as JSON; nothing is null.
    ///
    /// # Errors
    /// It is not JSON, or exceeds a limit; the error says where.
    pub fn json(&self) -> Result<Tree, ApiError> {
        if self.body.trim_ascii().is_empty() {
            return Ok(Tree::Null);
        }
        let parsed = tree::parse_json(&self.body, &tree::Limits::default());
        parsed.map_err(|error: TreeError| {
            ApiError::new(Code::BadRequest, format!("the request's body cannot be read: {error}"))
                .hint("the body must be one JSON value; 'codling job run' takes YAML, too")
        })
    }
}

/// The parameters of a query, decoded. One without a value is absent.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name, true)?, decode(value, true)?))
        });
        Ok(Self(pairs.collect::<Result<_, ApiError>>()?))
    }

    /// The first value of that name that is not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// Whether there is a parameter of that name, with a value or without.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// All values of that name that are not empty.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
    }

    /// A truth value in Go's words; absent is false.
    ///
    /// # Errors
    /// It is another word.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(bad(name, other, "true or false")),
        }
    }

    /// A number; absent and 0 are `None`.
    ///
    /// # Errors
    /// It is no number of 32 bits.
    pub fn number(&self, name: &str) -> Result<Option<u32>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u32>() {
                Ok(0) => Ok(None),
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(bad(name, text, "a number")),
            },
        }
    }
}

/// A parameter has a value that it cannot have.
pub fn bad(name: &str, value: &str, wanted: &str) -> ApiError {
    let value: String = value.chars().take(64).collect();
    ApiError::new(Code::BadRequest, format!("{name}: '{value}' is not {wanted}"))
}

/// Undoes percent-encoding; in queries a plus is a blank.
fn decode(text: &str, query: bool) -> Result<String, ApiError> {
    let error = || {
        let text: String = text.chars().take(64).collect();
        ApiError::new(Code::BadRequest, format!("'{text}' is not percent-encoded UTF-8"))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(error);
                u8::try_from(digit()? << 4 | digit()?).map_err(|_| error())?
            }
            b'+' if query => b' ',
            plain => plain,
        });
    }
    if bytes.contains(&0) {
        return Err(error());
    }
    String::from_utf8(bytes).map_err(|_| error())
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header fields besides length, date and connection.
    pub fields: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// A file in place of the body.
    pub send: Option<Instruction>,
}

impl Reply {
    /// JSON that is there already.
    #[must_use]
    pub fn text(body: Vec<u8>) -> Self {
        Self { status: 200, fields: vec![("Content-Type", "application/json".into())], body, send: None }
    }

    /// A value as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::text(body),
            Err(error) => {
                ApiError::new(Code::InternalError, format!("the answer cannot be encoded: {error}")).into()
            }
        }
    }

    /// The same with one field more.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self { status: error.status, ..Self::text(error.body()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let ask =
            Ask::new("HEAD", "/api/v1/jobs/a%2Fb%20c+d?labels=a%21%3Db&labels=c+d&x=&limit=5&k").unwrap();
        assert_eq!((ask.method.as_str(), ask.head_only), ("GET", true));
        assert_eq!(ask.segments().unwrap(), ["api", "v1", "jobs", "a/b c+d"]);
        assert_eq!(ask.query.all("labels").collect::<Vec<_>>(), ["a!=b", "c d"]);
        assert_eq!((ask.query.get("x"), ask.query.get("k"), ask.query.get("y")), (None, None, None));
        assert_eq!(ask.query.number("limit").unwrap(), Some(5));
        for bad in ["/?a=%", "/?a=%1", "/?a=%zz", "/?a=%ff", "/?a=%00", "/?%2=1"] {
            assert_eq!(Ask::new("GET", bad).unwrap_err().status, 400, "{bad}");
        }
        assert!(Ask::new("GET", "/%ff").unwrap().segments().is_err());
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        let query = |text: &str| Query::parse(text).unwrap();
        for (text, wanted) in [("", false), ("r=", false), ("r=False", false), ("r=T", true), ("r=1", true)] {
            assert_eq!(query(text).flag("r").unwrap(), wanted, "{text}");
        }
        assert!(query("r=yes").flag("r").is_err());
        assert_eq!(query("n=0").number("n").unwrap(), None);
        assert!(query("n=-1").number("n").is_err() && query("n=4294967296").number("n").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(target in "[ -~]{0,60}") {
            if let Ok(ask) = Ask::new("GET", &target) {
                let _ = ask.segments();
                let _ = (ask.query.flag("a"), ask.query.number("a"));
            }
        }
    }
}
