//! What the engine refuses, told as a problem.
//!
//! 403, 404 and 409 keep their status. Engines answer 500 for the caller's mistakes too (engine facts §8), and one
//! and the same mistake with 400 in one operation and with 500 in another: what says so by its type, its number or in
//! the engine's own words becomes the status that fits. Every other 4xx is 400, every other 5xx 502.

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
    let mistake = mistake(&error, message, is_list);
    let mistake = match status {
        // A query parameter that is no number.
        StatusCode::NOT_FOUND if is_list => Some(StatusCode::BAD_REQUEST),
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::CONFLICT => Some(status),
        _ if status.is_client_error() => mistake.or(Some(StatusCode::BAD_REQUEST)),
        _ => mistake,
    };
    let detail = match (message, mistake) {
        ("", Some(_)) => REFUSED.to_owned(),
        ("", None) => FAILED.to_owned(),
        _ if error.code == Some(COLUMN_TOO_SMALL) => TOO_LONG.to_owned(),
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
const TOO_LONG: &str = "A value is longer than the engine's database holds: of a string it is 4000 characters, of a \
    variable's name, a business key or a user's id 255.";

/// The engine's own numbers, of `BuiltinExceptionCode`; those of models lie outside of their range.
const OPTIMISTIC_LOCKING: i64 = 1;
const COLUMN_TOO_SMALL: i64 = 10_002;

#[derive(Default, Deserialize)]
struct Error<'a> {
    #[serde(borrow)]
    r#type: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<std::borrow::Cow<'a, str>>,
    code: Option<i64>,
}

/// The status of what is the caller's mistake; `None` where nothing says that it is.
fn mistake(error: &Error<'_>, message: &str, is_list: bool) -> Option<StatusCode> {
    match error.code {
        Some(OPTIMISTIC_LOCKING) => return Some(StatusCode::CONFLICT),
        Some(COLUMN_TOO_SMALL) => return Some(StatusCode::BAD_REQUEST),
        Some(_) | None => {}
    }
    let is_missing = error.r#type.as_deref() == Some("NullValueException")
        && message.ends_with(" is null")
        // `BadUserRequestException` of a form, `RestException` of a completion.
        || message.contains("Cannot find task with id ") && message.ends_with(": task is null");
    if is_missing {
        return Some(StatusCode::NOT_FOUND);
    }
    match error.r#type.as_deref().unwrap_or_default() {
        "NotFoundException" => Some(StatusCode::NOT_FOUND),
        "TaskAlreadyClaimedException"
        | "SuspendedEntityInteractionException"
        | "OptimisticLockingException" => Some(StatusCode::CONFLICT),
        "AuthorizationException" => Some(StatusCode::FORBIDDEN),
        "BadUserRequestException" | "InvalidRequestException" | "NotValidException" => {
            Some(StatusCode::BAD_REQUEST)
        }
        // What a model's own code threw has the same type, so the reader of files is known by its words.
        "IllegalArgumentException" if begins(message, &FILES) => Some(StatusCode::BAD_REQUEST),
        "NullPointerException" if message.contains(LOST_RACE) => Some(StatusCode::CONFLICT),
        // Of a query it is what is asked: parameters that exclude each other, an empty list, a version of 0. What
        // the database fails at has a type of its own.
        "ProcessEngineException" if is_list => Some(StatusCode::BAD_REQUEST),
        "RestException" | "ProcessEngineException" => told(message),
        _ => None,
    }
}

/// What the engine says of a caller's mistake in an error that has no type of its own.
fn told(message: &str) -> Option<StatusCode> {
    // `ENGINE-03043 task with id '1' is suspended.`
    let is_suspended = message.contains("ENGINE-03043 ") && message.ends_with(" is suspended.");
    // `Cannot complete task 1: Cannot restore state of process instance 2: list of executions is empty`
    let is_gone = message.contains("Cannot restore state of process instance ");
    if is_suspended || is_gone {
        return Some(StatusCode::CONFLICT);
    }
    // An object that a model's own code made is deserialized.
    let cannot_be_stored = message.contains(": Cannot find serializer for value 'ObjectValue [")
        && message.contains(", isDeserialized=false,")
        || message.contains(": Cannot write serialized value for variable ")
        || message.contains(": Cannot serialize value of abstract type ")
        || message.ends_with(". Java serialization format is prohibited");
    cannot_be_stored.then_some(StatusCode::BAD_REQUEST)
}

fn begins(message: &str, with: &[&str]) -> bool {
    with.iter().any(|with| message.starts_with(with))
}

/// How the reader of a variable of type File refuses it.
const FILES: [&str; 4] = [
    "Cannot create file without ",
    "Provided value is not of File",
    "Illegal base64 character ",
    "Input byte",
];

/// Of two who complete a task at the same time, one may find the execution gone under the task.
const LOST_RACE: &str = "ExecutionEntity.removeTask(";

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
            (
                400,
                r#"{"type":"BadUserRequestException","message":"Cannot find task with id 'nope'.: task is null","code":0}"#,
                "404 engine_refused",
            ),
            (
                400,
                r#"{"type":"NotFoundException","message":"Cannot find task with id nope: task is null","code":0}"#,
                "404 engine_refused",
            ),
            (
                400,
                r#"{"type":"SuspendedEntityInteractionException","message":"ENGINE-03043 task with id '1' is suspended.","code":0}"#,
                "409 engine_refused",
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
                r#"{"type":"RestException","message":"Cannot instantiate process definition a:1: ENGINE-03043 Process Definition with id 'a:1' is suspended.","code":0}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: ENGINE-03005 Execution of 'DELETE TaskEntity[1]' failed. Entity was updated by another transaction concurrently.","code":1}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: Cannot restore state of process instance 2: list of executions is empty","code":0}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"NullPointerException","message":"Cannot invoke \"org.operaton.bpm.engine.impl.persistence.entity.ExecutionEntity.removeTask(org.operaton.bpm.engine.impl.persistence.entity.TaskEntity)\" because \"exec\" is null","code":null}"#,
                "409 engine_refused",
            ),
            (
                500,
                r#"{"type":"NullPointerException","message":"Cannot invoke \"Order.total()\" because \"order\" is null","code":null}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot instantiate process definition a:1: An exception occurred in the persistence layer. Please check the server logs for a detailed message and the entire exception stack trace.","code":10002}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"ProcessEnginePersistenceException","message":"An exception occurred in the persistence layer. Please check the server logs for a detailed message and the entire exception stack trace.","code":0}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"IllegalArgumentException","message":"Cannot create file without valueInfo.","code":null}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"IllegalArgumentException","message":"Illegal base64 character 21","code":null}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"IllegalArgumentException","message":"Input byte array has incorrect ending byte at 4","code":null}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"IllegalArgumentException","message":"Provided value is not of File, InputStream or byte[] type.","code":null}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"IllegalArgumentException","message":"the order is empty","code":null}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: Cannot find serializer for value 'ObjectValue [value=null, isDeserialized=false, serializationDataFormat=application/json, objectTypeName=java.util.HashMap, serializedValue=2 chars, isTransient=false]'.","code":0}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: Cannot find serializer for value 'ObjectValue [value=Order@1, isDeserialized=true, serializationDataFormat=null, objectTypeName=Order, serializedValue=null, isTransient=false]'.","code":0}"#,
                "502 engine_failed",
            ),
            // The plugin for JSON is there, and the data format is not: nothing that the caller could mend.
            (
                500,
                r#"{"type":"RestException","message":"Cannot complete task 1: Cannot find serializer for value 'Value 'null' of type 'json', isTransient=false'.","code":0}"#,
                "502 engine_failed",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot instantiate process definition a:1: Cannot write serialized value for variable 'v': no 'objectTypeName' provided for non-null value.","code":0}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot instantiate process definition a:1: Cannot serialize value of abstract type number","code":0}"#,
                "400 engine_refused",
            ),
            (
                500,
                r#"{"type":"RestException","message":"Cannot instantiate process definition a:1: ENGINE-17007 Cannot set variable with name v. Java serialization format is prohibited","code":0}"#,
                "400 engine_refused",
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
    }

    #[test]
    fn a_list_that_cannot_be_had_is_for_what_is_asked_of_it() {
        for (status, body, want) in [
            (
                404,
                r#"{"type":"QueryParamException","message":"HTTP 404 Not Found","code":null}"#,
                400,
            ),
            (
                500,
                r#"{"type":"ProcessEngineException","message":"Invalid query usage: cannot set both candidateUser and candidateGroup","code":0}"#,
                400,
            ),
            (
                500,
                r#"{"type":"ProcessEngineException","message":"Already querying for activity instance state <scopeComplete>","code":0}"#,
                400,
            ),
            (
                500,
                r#"{"type":"ProcessEnginePersistenceException","message":"An exception occurred in the persistence layer. Please check the server logs for a detailed message and the entire exception stack trace.","code":0}"#,
                502,
            ),
            (500, "", 502),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let problem = refused(status, body.as_bytes(), true);
            assert_eq!(problem.status().as_u16(), want, "{status} {body}");
        }
        let single = r#"{"type":"ProcessEngineException","message":"Cannot deserialize object in variable 'v': no","code":0}"#;
        let problem = refused(StatusCode::INTERNAL_SERVER_ERROR, single.as_bytes(), false);
        assert_eq!(problem.status(), StatusCode::BAD_GATEWAY);
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
        assert_eq!(told(r#"{"message":"See the log.","code":10002}"#), TOO_LONG);
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
