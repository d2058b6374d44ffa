//! What the engine refuses, told as a problem.
//!
//! 400, 403, 404 and 409 keep their status. Engines answer 500 for the caller's mistakes too (engine facts §8):
//! what says so by its type or in the engine's own words becomes the status that fits. Every other 5xx is 502.

use http::StatusCode;
use serde::Deserialize;

use crate::audit::cut;
use crate::problem::{EngineRefusal, Problem};

/// The problem of an engine's answer that is an error, from its status and its body; `is_list` where the path
/// names nothing that could be missing.
pub(super) fn refused(status: StatusCode, body: &[u8], is_list: bool) -> Problem {
    let error: Error<'_> = serde_json::from_slice(body).unwrap_or_default();
    // A mapping error of the JSON reader is plain text; pages of a web server are of no use.
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let is_page = text.starts_with(['<', '{']);
    let message = match error.message.as_deref() {
        Some(message) => message,
        None if is_page => "",
        None => text,
    };
    let mistake = match status {
        // A query parameter that is no number.
        StatusCode::NOT_FOUND if is_list => Some(StatusCode::BAD_REQUEST),
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT => Some(status),
        _ if status.is_client_error() => Some(StatusCode::BAD_REQUEST),
        _ => mistake(error.r#type.as_deref().unwrap_or_default(), message),
    };
    let detail = match (message, mistake) {
        ("", Some(_)) => REFUSED.to_owned(),
        ("", None) => FAILED.to_owned(),
        (message, _) => cut(message),
    };
    let refusal = Box::new(EngineRefusal {
        status: mistake.unwrap_or(StatusCode::BAD_GATEWAY),
        detail: detail.into(),
        r#type: error.r#type.map(|r#type| cut(&r#type).into()),
        code: error.code,
    });
    if mistake.is_some() {
        Problem::EngineRefused(refusal)
    } else {
        Problem::EngineFailed(refusal)
    }
}

const REFUSED: &str = "The process engine refused the request and did not say why.";
const FAILED: &str = "The process engine failed and did not say why. Its log knows more.";

#[derive(Default, Deserialize)]
struct Error<'a> {
    #[serde(borrow)]
    r#type: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<std::borrow::Cow<'a, str>>,
    code: Option<i64>,
}

/// The status of a 500 that is the caller's mistake; `None` where it is the engine's.
fn mistake(r#type: &str, message: &str) -> Option<StatusCode> {
    let is_missing = r#type == "NullValueException" && message.ends_with(" is null")
        || message.contains("Cannot find task with id ") && message.ends_with(": task is null");
    // `ENGINE-03043 task with id '1' is suspended.`
    let is_suspended = message.ends_with(" is suspended.");
    match r#type {
        "NotFoundException" => Some(StatusCode::NOT_FOUND),
        _ if is_missing => Some(StatusCode::NOT_FOUND),
        "TaskAlreadyClaimedException"
        | "SuspendedEntityInteractionException"
        | "OptimisticLockingException" => Some(StatusCode::CONFLICT),
        _ if is_suspended => Some(StatusCode::CONFLICT),
        // `Invalid query usage: cannot set both candidateUser and candidateGroup`
        _ if message.starts_with("Invalid query usage: ") => Some(StatusCode::BAD_REQUEST),
        "AuthorizationException" => Some(StatusCode::FORBIDDEN),
        "BadUserRequestException"
        | "InvalidRequestException"
        | "NotValidException"
        | "FormFieldValidationException"
        | "FormFieldValidatorException" => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_did_wrong_is_no_error_of_the_engine() {
        for (status, body, want) in [
            (
                404,
                r#"{"type":"RestException","message":"No matching process definition with key: nope and no tenant-id","code":null}"#,
                "404 engine_refused",
            ),
            (
                400,
                r#"{"type":"InvalidRequestException","message":"","code":null}"#,
                "400 engine_refused",
            ),
            (
                400,
                "Cannot deserialize value of type `x`",
                "400 engine_refused",
            ),
            (
                403,
                r#"{"type":"AuthorizationException","message":"no","code":0,"missingAuthorizations":[]}"#,
                "403 engine_refused",
            ),
            (405, "", "400 engine_refused"),
            (409, "", "409 engine_refused"),
            (
                500,
                r#"{"type":"NullValueException","message":"execution nope doesn't exist: execution is null","code":0}"#,
                "404 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task nope: Cannot find task with id nope: task is null","code":0}"#,
                "404 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: ENGINE-03043 task with id '1' is suspended.","code":0}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"TaskAlreadyClaimedException","message":"Task '1' is already claimed by someone else.","code":0}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot instantiate process definition failing:1: Unknown property used in expression: ${noSuchBean.call()}","code":0}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: the order is null","code":0}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"ProcessEngineException","message":"Invalid query usage: cannot set both candidateUser and candidateGroup","code":0}"#,
                "400 engine_refused",
            ),
            (500, "<!doctype html><html>", "502 engine_failed"),
            (503, "", "502 engine_failed"),
        ] {
            let problem = refused(
                StatusCode::from_u16(status).unwrap(),
                body.as_bytes(),
                false,
            );
            let got = format!("{} {}", problem.status().as_u16(), problem.code());
            assert_eq!(got, want, "{status} {body}");
        }
        let not_a_number =
            r#"{"type":"QueryParamException","message":"HTTP 404 Not Found","code":null}"#;
        let problem = refused(StatusCode::NOT_FOUND, not_a_number.as_bytes(), true);
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_engines_words_are_told_where_there_are_some() {
        let told = |body: &str| {
            refused(StatusCode::BAD_REQUEST, body.as_bytes(), false)
                .detail()
                .into_owned()
        };
        assert_eq!(
            told(r#"{"type":"X","message":"No \"such\" thing","code":7}"#),
            "No \"such\" thing"
        );
        assert_eq!(told("Unexpected character"), "Unexpected character");
        for silent in [
            "",
            "<html>secret</html>",
            "{}",
            r#"{"message":""}"#,
            r#"{"broken"#,
        ] {
            assert_eq!(told(silent), REFUSED, "{silent}");
        }
        let long = told(&format!(r#"{{"message":"{}"}}"#, "x".repeat(1 << 20)));
        assert!(long.len() < 8192, "{}", long.len());
    }
}
