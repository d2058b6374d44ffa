//! The engine's ways of saying no: its exception names, its status codes (500 for many a mistake of the
//! caller), its messages. Observed on Operaton 1.0.3.

use http::StatusCode;
use serde_json::{Value, json};

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Refusal {
    /// `code` is null or 0, whatever the engine gives for this exception.
    pub(super) fn new(status: StatusCode, kind: &str, message: &str, code: Option<i64>) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: json!({"type": kind, "message": message, "code": code.map_or(Value::Null, Value::from)}).to_string(),
        }
    }

    /// A wrong value or a thing that does not exist, told by the REST layer.
    pub(super) fn invalid(status: StatusCode, message: &str) -> Self {
        Self::new(status, "InvalidRequestException", message, None)
    }

    /// A failure of the engine proper that the REST layer wrapped: always 500.
    pub(super) fn rest(message: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "RestException",
            message,
            Some(0),
        )
    }

    /// A failure of the engine proper under its own name: always 500.
    pub(super) fn engine(kind: &str, message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind, message, Some(0))
    }

    /// The same refusal as an operation that failed of it tells it: a 500 becomes a `RestException`.
    pub(super) fn prefixed(self, what: &str) -> Self {
        let Ok(Value::Object(members)) = serde_json::from_str(&self.body) else {
            return self;
        };
        let message = format!(
            "{what}{}",
            members
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default()
        );
        match members.get("type").and_then(Value::as_str) {
            // Not wrapped, as it comes before the operation begins.
            Some("NullPointerException") | None => self,
            Some(_) if self.status == StatusCode::INTERNAL_SERVER_ERROR => Self::rest(&message),
            Some(kind) => Self::new(self.status, kind, &message, None),
        }
    }

    /// What Java does with a member that is `null` where an object is expected.
    pub(super) fn null_pointer() -> Self {
        Self::engine(
            "NullPointerException",
            "Cannot invoke method on a value that is null",
        )
    }

    /// What Jersey says where no method of ours was reached.
    pub(super) fn http(status: StatusCode) -> Self {
        let kind = match status {
            StatusCode::NOT_FOUND => "NotFoundException",
            StatusCode::METHOD_NOT_ALLOWED => "NotAllowedException",
            StatusCode::NOT_ACCEPTABLE => "NotAcceptableException",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "NotSupportedException",
            _ => "BadRequestException",
        };
        Self::new(status, kind, &format!("HTTP {status}"), None)
    }

    /// Jackson's complaint about JSON of the wrong shape, which comes as plain text.
    pub(super) fn mapping(what: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            content_type: "text/plain",
            body: format!(
                "Cannot deserialize value of type `org.operaton.bpm.engine.rest.dto` from {what}"
            ),
        }
    }

    /// Tomcat's page, for requests that it never hands on.
    pub(super) fn tomcat() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            content_type: "text/html;charset=utf-8",
            body: "<!doctype html><html lang=\"en\"><head><title>HTTP Status 400 – Bad Request</title></head>\
                   <body><h1>HTTP Status 400 – Bad Request</h1></body></html>"
                .to_owned(),
        }
    }
}
