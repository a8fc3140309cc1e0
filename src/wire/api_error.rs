//! The one shape of errors that all clients read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kind of error it is, and with it the HTTP status: Bacalhau's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub enum Code {
    BadRequest,
    ValidationError,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    MultipleJobsFound,
    Gone,
    PreconditionFailed,
    TooLarge,
    UriTooLong,
    RangeNotSatisfiable,
    ExpectationFailed,
    Misdirected,
    UpgradeRequired,
    HeadersTooLarge,
    InternalError,
    NotImplemented,
    BadGateway,
    ServiceUnavailable,
    TimeOut,
    VersionNotSupported,
    InsufficientStorage,
    ResourceExhausted,
    DatastoreFailure,
}

impl Code {
    /// The word that clients may compare.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().0
    }

    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BadRequest"),
            Self::ValidationError => (400, "ValidationError"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::RequestTimeout => (408, "RequestTimeout"),
            Self::Conflict => (409, "ResourceInUse"),
            Self::MultipleJobsFound => (409, "MultipleJobsFound"),
            Self::Gone => (410, "Gone"),
            Self::PreconditionFailed => (412, "PreconditionFailed"),
            Self::TooLarge => (413, "RequestTooLarge"),
            Self::UriTooLong => (414, "URITooLong"),
            Self::RangeNotSatisfiable => (416, "RangeNotSatisfiable"),
            Self::ExpectationFailed => (417, "ExpectationFailed"),
            Self::Misdirected => (421, "MisdirectedRequest"),
            Self::UpgradeRequired => (426, "UpgradeRequired"),
            Self::HeadersTooLarge => (431, "HeadersTooLarge"),
            Self::InternalError => (500, "InternalError"),
            Self::NotImplemented => (501, "NotImplemented"),
            Self::BadGateway => (502, "InternalError"),
            Self::ServiceUnavailable => (503, "ServiceUnavailable"),
            Self::TimeOut => (504, "TimeOut"),
            Self::VersionNotSupported => (505, "VersionNotSupported"),
            Self::InsufficientStorage => (507, "ResourceExhausted"),
            Self::ResourceExhausted => (429, "ResourceExhausted"),
            Self::DatastoreFailure => (500, "DatastoreFailure"),
        }
    }
}

/// `APIError`: what happened and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ApiError {
    /// The HTTP status again.
    pub status: u16,
    /// What happened, to what.
    pub message: String,
    /// The request's `X-Request-ID`, if it had one.
    #[serde(rename = "RequestID")]
    pub request_id: Box<str>,
    /// One of [`Code`]'s words.
    pub code: Box<str>,
    /// Which part of the node.
    pub component: Box<str>,
    /// What to do next.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: Box<str>,
    /// Facts for programs; texts all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Default for ApiError {
    fn default() -> Self {
        Self::new(Code::InternalError, "")
    }
}

impl ApiError {
    /// An error without a hint.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            message: message.into(),
            request_id: Box::default(),
            code: code.as_str().into(),
            component: Box::default(),
            hint: Box::default(),
            details: BTreeMap::new(),
        }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with the part of the node that it comes from.
    #[must_use]
    pub fn component(mut self, component: &str) -> Self {
        self.component = component.into();
        self
    }

    /// The same with one fact more.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    /// The body to send.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        // A struct of texts and numbers always encodes.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn has_the_shape_that_clients_read() {
        let error = ApiError::new(Code::NotFound, "job not found: j-0f3c")
            .component("JobStore")
            .hint("use the full job id")
            .detail("k", "v");
        let wanted = json!({"Status": 404, "Message": "job not found: j-0f3c", "RequestID": "",
            "Code": "NotFound", "Component": "JobStore", "Hint": "use the full job id", "Details": {"k": "v"}});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&error.body()).unwrap(), wanted);
        assert_eq!(serde_json::from_slice::<ApiError>(&error.body()).unwrap(), error);
        let small = serde_json::to_value(ApiError::new(Code::BadRequest, "x")).unwrap();
        assert_eq!((small.get("Hint"), small.get("Details")), (None, None));
        // What others send may lack fields.
        assert_eq!(serde_json::from_str::<ApiError>(r#"{"Message":"m"}"#).unwrap().message, "m");
    }
}
