//! What every answer of the gateway's own must be, whatever the problem.

use bytes::Bytes;
use http::Response;
use serde_json::Value;

/// The problem in an answer, each of whose promises is checked.
#[track_caller]
pub(crate) fn problem(answer: &Response<Bytes>) -> Value {
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{answer:?}"));
    let headers = answer.headers();
    assert_eq!(
        headers["content-type"], "application/problem+json",
        "{text}"
    );
    assert_eq!(headers["cache-control"], "no-store", "{text}");
    let mut members: Vec<&String> = problem.as_object().unwrap().keys().collect();
    members.sort();
    let is_engines = matches!(
        problem["code"].as_str(),
        Some("engine_refused" | "engine_failed")
    );
    // What the engine said, where it said something, in its own words.
    members.retain(|member| !(is_engines && *member == "engine"));
    assert_eq!(
        members,
        [
            "code",
            "detail",
            "error",
            "requestId",
            "status",
            "timestamp",
            "title",
            "type"
        ]
    );
    assert_eq!(problem["status"], answer.status().as_u16());
    assert_eq!(problem["error"], problem["title"]);
    assert_eq!(
        problem["type"],
        format!("urn:bpmgate:problem:{}", problem["code"].as_str().unwrap())
    );
    assert_eq!(
        headers["x-request-id"],
        problem["requestId"].as_str().unwrap()
    );
    let timestamp = problem["timestamp"].as_str().unwrap();
    assert!(timestamp.ends_with('Z'), "{timestamp}");
    humantime::parse_rfc3339(timestamp).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(is_engines || detail.ends_with('.'), "{text}");
    problem
}

/// The problem without what differs from run to run, for snapshots.
#[track_caller]
pub(crate) fn redacted(answer: &Response<Bytes>) -> Value {
    let mut problem = problem(answer);
    problem["timestamp"] = "(now)".into();
    problem["requestId"] = "(id)".into();
    problem
}

/// Status and code, for tables.
#[track_caller]
pub(crate) fn refused(answer: &Response<Bytes>) -> (u16, String) {
    let problem = problem(answer);
    let code = problem["code"].as_str().unwrap().to_owned();
    (answer.status().as_u16(), code)
}
