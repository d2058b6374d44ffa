//! Problems: every answer that the gateway itself gives instead of the engine's.
//!
//! A [`Problem`] is the error type of every layer, so layers never build responses.
//! [`ProblemLayer`](crate::layer::ProblemLayer) alone turns one into `application/problem+json`
//! (RFC 9457), in the shape that existing frontends read:
//! `{"type","title","status","detail","error","code","timestamp","requestId"}`.
//!
//! One variant per `code`; a code is never renamed. `detail` says what was refused and what would be
//! accepted; it holds no internals, no secret, and nothing of the token.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// Why the gateway answers itself, one variant per stable `code`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// 400 `bad_path`: the path has a form that gateway and engine could read in two ways.
    #[error("bad path: {0}")]
    BadPath(&'static str),
    /// 400 `bad_request`: the request is well-formed HTTP and still no request for us.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// 400 `two_credentials`: more than one `Authorization`.
    #[error("more than one credential")]
    TwoCredentials,
    /// 400 `body_invalid`: the body is not the strict JSON that can be read in one way only.
    #[error("body refused: {0}")]
    BodyInvalid(Box<str>),
    /// 401 `token_missing`: no bearer token.
    #[error("no bearer token")]
    TokenMissing,
    /// 401 `token_invalid`: the token did not pass; why is logged, and told in general words only.
    #[error("invalid token: {0}")]
    TokenInvalid(&'static str),
    /// 401 `token_expired`: the token was good and its time is over.
    #[error("token expired")]
    TokenExpired,
    /// 403 `access_denied`: the caller's profile may not use this operation, or not with this member.
    #[error("access to {} denied", .0.operation)]
    AccessDenied(Box<Denial>),
    /// 403 `protected_variable`: the request edits by name a variable that says who started the process.
    #[error("variable {0} is protected")]
    ProtectedVariable(Box<str>),
    /// 403 `cannot_attribute`: the request starts instances that could not be said to be the caller's.
    #[error("operation {0} cannot be attributed to the caller")]
    CannotAttribute(&'static str),
    /// 404 `not_found`: no such route or operation.
    #[error("no such route")]
    NotFound,
    /// 405 `method_not_allowed`: the path exists, with these methods.
    #[error("method not allowed")]
    MethodNotAllowed(Box<str>),
    /// 408 `request_timeout`: the client stopped sending.
    #[error("the client stopped sending")]
    RequestTimeout,
    /// 413 `body_too_large`: more than the limit, in bytes.
    #[error("body over {0} bytes")]
    BodyTooLarge(u64),
    /// 415 `unsupported_media_type`: a body that must be read and is not declared as JSON.
    #[error("unsupported media type: {0}")]
    UnsupportedMediaType(&'static str),
    /// 499-like, never sent: the client went away while its body was read.
    #[error("the client went away")]
    ClientGone,
    /// 429 `too_many_requests`: the caller has too many requests in flight.
    #[error("too many requests of one caller")]
    TooManyRequests,
    /// 429 `rate_limited`: more requests in a time than a limit of the configuration allows.
    #[error("rate limit {} exceeded", .0.limit)]
    RateLimited(Box<RateLimited>),
    /// 500 `internal`: our mistake.
    #[error("internal error")]
    Internal,
    /// 500 `misconfigured`: a layer misses what another one must provide; it fails closed.
    #[error("misconfigured: {0}")]
    Misconfigured(&'static str),
    /// 502 `engine_unreachable`: no connection, or it broke before an answer.
    #[error("engine unreachable")]
    EngineUnreachable,
    /// 502 `engine_bad_answer`: the engine's answer is no HTTP that could be passed on.
    #[error("bad answer of the engine")]
    EngineBadAnswer,
    /// 502 `engine_rejected_credentials`: the engine refused the gateway's own account.
    #[error("the engine rejected the gateway's credentials")]
    EngineRejectedCredentials,
    /// 502 `model_unavailable`: the engine did not show the process model, so its initiator variable is unknown.
    #[error("process model unavailable")]
    ModelUnavailable,
    /// 503 `keys_unavailable`: the issuer's keys could not be fetched yet.
    #[error("issuer keys unavailable")]
    KeysUnavailable,
    /// 503 `overloaded`: too many requests in flight.
    #[error("overloaded")]
    Overloaded,
    /// 503 `audit_unavailable`: what was asked for could not be recorded, so it was not done.
    #[error("audit log unavailable")]
    AuditUnavailable,
    /// 504 `engine_timeout`: no answer in time.
    #[error("engine timeout")]
    EngineTimeout,
    /// 400, 403, 404 or 409 `engine_refused`: in the workflow API, what the engine says of the caller's request.
    #[error("the engine refused the request: {}", .0.detail)]
    EngineRefused(Box<EngineRefusal>),
    /// 502 `engine_failed`: in the workflow API, the engine's own failure.
    #[error("the engine failed: {}", .0.detail)]
    EngineFailed(Box<EngineRefusal>),
}

/// What the engine said instead of doing what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRefusal {
    /// The status of the answer to the client.
    pub status: StatusCode,
    /// The engine's message, or a sentence where it has none.
    pub detail: Box<str>,
    /// The engine's name for the error: `InvalidRequestException`.
    pub r#type: Option<Box<str>>,
    /// The engine's number for the error.
    pub code: Option<i64>,
}

/// Which rate limit refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimited {
    /// Its name.
    pub limit: Arc<str>,
    /// What it allows, as the field `RateLimit-Policy` says it.
    pub policy: HeaderValue,
    /// After so many seconds the next request passes, if nobody else's comes first; at least 1.
    pub retry_after: u64,
}

/// What was denied, and to which profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The operation's id.
    pub operation: &'static str,
    /// The profile that does not allow it.
    pub profile: Box<str>,
    /// What of the request is not allowed.
    pub what: Denied,
}

/// What of a request a profile does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// The operation itself.
    Operation,
    /// This member of the body or query; the operation alone would be allowed.
    Member(Box<str>),
    /// A user other than the caller, or none, in this member.
    OtherUser(Box<str>),
}

impl Problem {
    /// A denial of a whole operation.
    #[must_use]
    pub fn denied(operation: &'static str, profile: &str) -> Self {
        Self::denial(operation, profile, Denied::Operation)
    }

    /// A denial of one member of a body or query.
    #[must_use]
    pub fn denied_member(operation: &'static str, profile: &str, member: &str) -> Self {
        Self::denial(operation, profile, Denied::Member(member.into()))
    }

    /// A denial of a member that must be the caller's own id and is not.
    #[must_use]
    pub fn denied_user(operation: &'static str, profile: &str, member: &str) -> Self {
        Self::denial(operation, profile, Denied::OtherUser(member.into()))
    }

    fn denial(operation: &'static str, profile: &str, what: Denied) -> Self {
        let profile = profile.into();
        Self::AccessDenied(Box::new(Denial {
            operation,
            profile,
            what,
        }))
    }

    /// Status, `code` and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadPath(_) => (StatusCode::BAD_REQUEST, "bad_path", "Bad path"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request", "Bad request"),
            Self::TwoCredentials => (
                StatusCode::BAD_REQUEST,
                "two_credentials",
                "Two credentials",
            ),
            Self::BodyInvalid(_) => (StatusCode::BAD_REQUEST, "body_invalid", "Invalid body"),
            Self::TokenMissing => (StatusCode::UNAUTHORIZED, "token_missing", "Token missing"),
            Self::TokenInvalid(_) => (StatusCode::UNAUTHORIZED, "token_invalid", "Invalid token"),
            Self::TokenExpired => (StatusCode::UNAUTHORIZED, "token_expired", "Token expired"),
            Self::AccessDenied(_) => (StatusCode::FORBIDDEN, "access_denied", "Access denied"),
            Self::ProtectedVariable(_) => (
                StatusCode::FORBIDDEN,
                "protected_variable",
                "Protected variable",
            ),
            Self::CannotAttribute(_) => (
                StatusCode::FORBIDDEN,
                "cannot_attribute",
                "Cannot attribute",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::MethodNotAllowed(_) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
            ),
            Self::RequestTimeout | Self::ClientGone => (
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "Request timeout",
            ),
            Self::BodyTooLarge(_) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "Body too large",
            ),
            Self::UnsupportedMediaType(_) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
            ),
            Self::TooManyRequests => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many requests",
            ),
            Self::RateLimited(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "Rate limited",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
            ),
            Self::Misconfigured(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "misconfigured",
                "Misconfigured gateway",
            ),
            Self::EngineUnreachable => (
                StatusCode::BAD_GATEWAY,
                "engine_unreachable",
                "Engine unreachable",
            ),
            Self::EngineBadAnswer => (
                StatusCode::BAD_GATEWAY,
                "engine_bad_answer",
                "Bad answer of the engine",
            ),
            Self::EngineRejectedCredentials => (
                StatusCode::BAD_GATEWAY,
                "engine_rejected_credentials",
                "Engine rejected the gateway's credentials",
            ),
            Self::ModelUnavailable => (
                StatusCode::BAD_GATEWAY,
                "model_unavailable",
                "Process model unavailable",
            ),
            Self::KeysUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "keys_unavailable",
                "Issuer keys unavailable",
            ),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::AuditUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "audit_unavailable",
                "Audit log unavailable",
            ),
            Self::EngineTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "engine_timeout",
                "Engine timeout",
            ),
            Self::EngineRefused(refusal) => {
                (refusal.status, "engine_refused", "The engine refused")
            }
            Self::EngineFailed(_) => (
                StatusCode::BAD_GATEWAY,
                "engine_failed",
                "The engine failed",
            ),
        }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// The stable machine word of the answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().1
    }

    /// A short name of the kind of problem.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.kind().2
    }

    /// One or two sentences for the caller: what was refused and what would be accepted.
    #[must_use]
    pub fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::BadPath(why) => {
                format!("The path was refused: {why}. Send it in its plain form.").into()
            }
            Self::TwoCredentials => {
                "The request has more than one Authorization. Send one bearer token.".into()
            }
            Self::BodyInvalid(why) => why.clone().into_string().into(),
            Self::TokenMissing => {
                "A bearer token is needed: send the header `Authorization: Bearer <token>`.".into()
            }
            Self::TokenInvalid(why) => format!("The token was refused: {why}.").into(),
            Self::TokenExpired => "The token has expired. Get a new one and try again.".into(),
            Self::AccessDenied(denial) => {
                let Denial { operation, profile, what } = &**denial;
                match what {
                    Denied::Operation => format!(
                        "The profile `{profile}` does not allow the operation `{operation}`."
                    ),
                    Denied::Member(member) => format!(
                        "The profile `{profile}` does not allow `{member}` in the operation `{operation}`."
                    ),
                    Denied::OtherUser(member) => format!(
                        "The profile `{profile}` allows the operation `{operation}` for oneself: `{member}` must be your own id."
                    ),
                }
                .into()
            }
            Self::ProtectedVariable(name) => {
                format!("The variable `{name}` says who started the process and cannot be changed.").into()
            }
            Self::CannotAttribute(operation) => format!(
                "`{operation}` would start instances with another caller's initiator. Start new ones instead."
            )
            .into(),
            Self::NotFound => "There is no such route here.".into(),
            Self::MethodNotAllowed(allow) => format!("This path takes {allow}.").into(),
            Self::RequestTimeout | Self::ClientGone => {
                "The request's body did not arrive in time.".into()
            }
            Self::BodyTooLarge(limit) => {
                format!("The body is larger than the {limit} bytes that are accepted here.").into()
            }
            Self::BadRequest(why) | Self::UnsupportedMediaType(why) => (*why).into(),
            Self::TooManyRequests => {
                "You have too many requests in flight. Wait for some of them, then try again.".into()
            }
            Self::RateLimited(exceeded) => format!(
                "You have sent more requests than the limit `{}` allows. Try again in {} s.",
                exceeded.limit, exceeded.retry_after
            )
            .into(),
            Self::Internal | Self::Misconfigured(_) => {
                "The gateway made a mistake. Its log has the request id.".into()
            }
            Self::EngineUnreachable => {
                "The process engine cannot be reached. Try again later.".into()
            }
            Self::EngineBadAnswer => "The process engine sent no valid answer.".into(),
            Self::EngineRejectedCredentials => {
                "The process engine refused the gateway's own account. Tell its operator; a new token does not help.".into()
            }
            Self::ModelUnavailable => {
                "The process engine did not show the model, so nothing was started or written. Try again later.".into()
            }
            Self::KeysUnavailable => {
                "The keys to check the token with cannot be had yet. Try again in some seconds.".into()
            }
            Self::Overloaded => "Too many requests are in flight. Try again in some seconds.".into(),
            Self::AuditUnavailable => {
                "The request could not be recorded for the audit, so it was not carried out. Try again later.".into()
            }
            Self::EngineTimeout => "The process engine did not answer in time.".into(),
            Self::EngineRefused(refusal) | Self::EngineFailed(refusal) => {
                refusal.detail.clone().into_string().into()
            }
        }
    }

    /// The `WWW-Authenticate` challenge, RFC 6750 §3: a bare one where no token came.
    #[must_use]
    pub fn challenge(&self) -> Option<String> {
        const REALM: &str = "Bearer realm=\"bpmgate\"";
        let description = if let Self::TokenInvalid(why) = self {
            why
        } else if *self == Self::TokenExpired {
            "the token has expired"
        } else {
            return (*self == Self::TokenMissing).then(|| REALM.to_owned());
        };
        Some(format!(
            "{REALM}, error=\"invalid_token\", error_description=\"{description}\""
        ))
    }

    /// After how many seconds it makes sense to try again.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        if let Self::RateLimited(exceeded) = self {
            Some(exceeded.retry_after)
        } else if matches!(self, Self::KeysUnavailable | Self::AuditUnavailable) {
            Some(5)
        } else if matches!(self, Self::Overloaded | Self::TooManyRequests) {
            Some(1)
        } else {
            None
        }
    }

    /// The answer's body.
    #[must_use]
    pub fn to_json(&self, request_id: &str, now: SystemTime) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            error: &'a str,
            code: &'a str,
            timestamp: String,
            request_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            engine: Option<Engine<'a>>,
        }
        #[derive(Serialize)]
        struct Engine<'a> {
            r#type: Option<&'a str>,
            code: Option<i64>,
        }
        let engine = if let Self::EngineRefused(refusal) | Self::EngineFailed(refusal) = self {
            let (r#type, code) = (refusal.r#type.as_deref(), refusal.code);
            (r#type.is_some() || code.is_some()).then_some(Engine { r#type, code })
        } else {
            None
        };
        let (status, code, title) = self.kind();
        serde_json::to_vec(&Shape {
            r#type: format!("urn:bpmgate:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail(),
            error: title,
            code,
            timestamp: humantime::format_rfc3339_millis(now).to_string(),
            request_id,
            engine,
        })
        .unwrap_or_default()
    }
}

impl From<std::convert::Infallible> for Problem {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<crate::splice::SpliceError> for Problem {
    fn from(error: crate::splice::SpliceError) -> Self {
        Self::BodyInvalid(format!("The body was refused: {error}.").into_boxed_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> EngineRefusal {
        EngineRefusal {
            status: StatusCode::BAD_REQUEST,
            detail: "No".into(),
            r#type: Some("X".into()),
            code: None,
        }
    }

    #[test]
    fn what_the_engine_says_has_a_member_of_its_own() {
        let json = |problem: &Problem| {
            let json = problem.to_json("1", SystemTime::UNIX_EPOCH);
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()
        };
        let told = json(&Problem::EngineRefused(refusal().into()));
        assert_eq!(
            told["engine"],
            serde_json::json!({"type": "X", "code": null})
        );
        assert!(json(&Problem::NotFound).get("engine").is_none());
        let silent = EngineRefusal {
            r#type: None,
            ..refusal()
        };
        let told = json(&Problem::EngineFailed(silent.into()));
        assert!(told.get("engine").is_none());
    }

    /// One of each. The match makes the compiler ask for a new one, which the list below then needs too.
    fn every() -> Vec<Problem> {
        let all = vec![
            Problem::BadPath(""),
            Problem::BadRequest(""),
            Problem::TwoCredentials,
            Problem::BodyInvalid("".into()),
            Problem::TokenMissing,
            Problem::TokenInvalid(""),
            Problem::TokenExpired,
            Problem::denied("", ""),
            Problem::ProtectedVariable("".into()),
            Problem::CannotAttribute(""),
            Problem::NotFound,
            Problem::MethodNotAllowed("".into()),
            Problem::RequestTimeout,
            Problem::BodyTooLarge(0),
            Problem::UnsupportedMediaType(""),
            Problem::TooManyRequests,
            Problem::RateLimited(Box::new(RateLimited {
                limit: "".into(),
                policy: HeaderValue::from_static(""),
                retry_after: 1,
            })),
            Problem::Internal,
            Problem::Misconfigured(""),
            Problem::EngineUnreachable,
            Problem::EngineBadAnswer,
            Problem::EngineRejectedCredentials,
            Problem::ModelUnavailable,
            Problem::KeysUnavailable,
            Problem::Overloaded,
            Problem::AuditUnavailable,
            Problem::EngineTimeout,
            Problem::EngineRefused(refusal().into()),
            Problem::EngineFailed(refusal().into()),
        ];
        for problem in &all {
            match problem {
                Problem::BadPath(_)
                | Problem::BadRequest(_)
                | Problem::TwoCredentials
                | Problem::BodyInvalid(_)
                | Problem::TokenMissing
                | Problem::TokenInvalid(_)
                | Problem::TokenExpired
                | Problem::AccessDenied(_)
                | Problem::ProtectedVariable(_)
                | Problem::CannotAttribute(_)
                | Problem::NotFound
                | Problem::MethodNotAllowed(_)
                | Problem::RequestTimeout
                | Problem::BodyTooLarge(_)
                | Problem::UnsupportedMediaType(_)
                | Problem::TooManyRequests
                | Problem::RateLimited(_)
                | Problem::Internal
                | Problem::Misconfigured(_)
                | Problem::EngineUnreachable
                | Problem::EngineBadAnswer
                | Problem::EngineRejectedCredentials
                | Problem::ModelUnavailable
                | Problem::KeysUnavailable
                | Problem::Overloaded
                | Problem::AuditUnavailable
                | Problem::EngineTimeout
                | Problem::EngineRefused(_)
                | Problem::EngineFailed(_) => {}
                Problem::ClientGone => panic!("never sent"),
            }
        }
        all
    }

    #[test]
    fn the_documented_codes_are_those_there_are() {
        let known: Vec<_> = every()
            .iter()
            .map(|problem| {
                (
                    problem.code().to_owned(),
                    problem.status().as_u16().to_string(),
                )
            })
            .collect();
        let document = include_str!("../docs/errors.md");
        let documented: Vec<_> = document
            .lines()
            .filter_map(|line| {
                let (code, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
                let (status, _) = rest.split_once(" | ")?;
                Some((code.to_owned(), status.to_owned()))
            })
            .collect();
        assert_eq!(documented, known);
    }
}
