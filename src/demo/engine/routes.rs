//! The paths of this engine, found the way Jersey finds them.
//!
//! Matrix parameters (`;x=y`) are cut off, literal segments are compared as they came, parameters are
//! percent-decoded, one trailing slash is ignored. A literal beats a parameter. There is no second try,
//! unlike in a real engine; no path of this table needs one.

use std::sync::LazyLock;

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Version,
    Engines,
    Definitions,
    DefinitionCount,
    Definition,
    Xml,
    StartForm,
    Start,
    SubmitStartForm,
    Instances,
    InstanceCount,
    Instance,
    Execution,
    DeleteInstance,
    Suspend,
    Variables,
    ModifyVariables,
    Variable,
    PutVariable,
    DeleteVariable,
    ActivityTree,
    Tasks,
    TaskCount,
    Task,
    TaskForm,
    TaskVariables,
    Claim,
    Unclaim,
    Assign,
    Complete,
    SubmitTaskForm,
    PastInstances,
    PastInstanceCount,
    PastInstance,
    PastActivities,
    PastVariables,
    Message,
    Signal,
    FetchAndLock,
}

/// A path found: what it asks for, and its parameters from left to right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) operation: Operation,
    pub(super) parameters: Vec<String>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To an operation.
    Found(Found),
    /// To the answer of OPTIONS: the methods of this path, but for OPTIONS itself.
    Options(Vec<&'static str>),
}

/// Finds the operation of a path below the engine's name.
///
/// # Errors
/// 404 for an unknown path, 405 for a method it does not have.
pub(super) fn find(method: &Method, path: &str) -> Result<Route, Refusal> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments: Vec<&str> = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .collect();
    if segments.len() > 1 && segments.last() == Some(&"") {
        segments.pop();
    }
    let unknown = || Refusal::http(StatusCode::NOT_FOUND);
    let mut rows: Vec<&Split> = TABLE
        .iter()
        .filter(|row| row.segments.len() == segments.len())
        .collect();
    for (place, segment) in segments.iter().enumerate() {
        let at = |row: &Split| row.segments.get(place).copied().unwrap_or_default();
        let literal = rows.iter().any(|row| at(row) == *segment);
        rows.retain(|row| {
            if literal {
                at(row) == *segment
            } else {
                at(row).starts_with('{')
            }
        });
    }
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let Some(any) = rows.first() else {
        return Err(unknown());
    };
    let parameters: Vec<String> = any
        .segments
        .iter()
        .zip(&segments)
        .filter(|(name, _)| name.starts_with('{'))
        .map(|(_, segment)| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    if parameters
        .iter()
        .any(|parameter| parameter.is_empty() || matches!(parameter.as_str(), "." | ".."))
    {
        return Err(unknown());
    }
    if method == Method::OPTIONS {
        return Ok(Route::Options(rows.iter().map(|row| row.method).collect()));
    }
    let row = rows
        .iter()
        .find(|row| row.method == wanted.as_str())
        .ok_or_else(|| Refusal::http(StatusCode::METHOD_NOT_ALLOWED))?;
    Ok(Route::Found(Found {
        operation: row.operation,
        parameters,
    }))
}

struct Row(&'static str, &'static str, Operation);

/// A row with its path taken apart.
struct Split {
    method: &'static str,
    segments: Vec<&'static str>,
    operation: Operation,
}

static TABLE: LazyLock<Vec<Split>> = LazyLock::new(|| {
    ROWS.iter()
        .map(|Row(method, path, operation)| Split {
            method,
            segments: path.split('/').skip(1).collect(),
            operation: *operation,
        })
        .collect()
});

const ROWS: [Row; 50] = [
    Row("GET", "/version", Operation::Version),
    Row("GET", "/engine", Operation::Engines),
    Row("GET", "/process-definition", Operation::Definitions),
    Row(
        "GET",
        "/process-definition/count",
        Operation::DefinitionCount,
    ),
    Row("GET", "/process-definition/{id}", Operation::Definition),
    Row("GET", "/process-definition/{id}/xml", Operation::Xml),
    Row(
        "GET",
        "/process-definition/{id}/form-variables",
        Operation::StartForm,
    ),
    Row("POST", "/process-definition/{id}/start", Operation::Start),
    Row(
        "POST",
        "/process-definition/{id}/submit-form",
        Operation::SubmitStartForm,
    ),
    Row(
        "GET",
        "/process-definition/key/{key}",
        Operation::Definition,
    ),
    Row("GET", "/process-definition/key/{key}/xml", Operation::Xml),
    Row(
        "GET",
        "/process-definition/key/{key}/form-variables",
        Operation::StartForm,
    ),
    Row(
        "POST",
        "/process-definition/key/{key}/start",
        Operation::Start,
    ),
    Row(
        "POST",
        "/process-definition/key/{key}/submit-form",
        Operation::SubmitStartForm,
    ),
    Row(
        "GET",
        "/process-definition/key/{key}/tenant-id/{tenant-id}",
        Operation::Definition,
    ),
    Row(
        "GET",
        "/process-definition/key/{key}/tenant-id/{tenant-id}/xml",
        Operation::Xml,
    ),
    Row(
        "GET",
        "/process-definition/key/{key}/tenant-id/{tenant-id}/form-variables",
        Operation::StartForm,
    ),
    Row(
        "POST",
        "/process-definition/key/{key}/tenant-id/{tenant-id}/start",
        Operation::Start,
    ),
    Row(
        "POST",
        "/process-definition/key/{key}/tenant-id/{tenant-id}/submit-form",
        Operation::SubmitStartForm,
    ),
    Row("GET", "/process-instance", Operation::Instances),
    Row("GET", "/process-instance/count", Operation::InstanceCount),
    Row("GET", "/process-instance/{id}", Operation::Instance),
    Row("GET", "/execution/{id}", Operation::Execution),
    Row(
        "DELETE",
        "/process-instance/{id}",
        Operation::DeleteInstance,
    ),
    Row(
        "PUT",
        "/process-instance/{id}/suspended",
        Operation::Suspend,
    ),
    Row(
        "GET",
        "/process-instance/{id}/variables",
        Operation::Variables,
    ),
    Row(
        "POST",
        "/process-instance/{id}/variables",
        Operation::ModifyVariables,
    ),
    Row(
        "GET",
        "/process-instance/{id}/variables/{varName}",
        Operation::Variable,
    ),
    Row(
        "PUT",
        "/process-instance/{id}/variables/{varName}",
        Operation::PutVariable,
    ),
    Row(
        "DELETE",
        "/process-instance/{id}/variables/{varName}",
        Operation::DeleteVariable,
    ),
    Row(
        "GET",
        "/process-instance/{id}/activity-instances",
        Operation::ActivityTree,
    ),
    Row("GET", "/task", Operation::Tasks),
    Row("GET", "/task/count", Operation::TaskCount),
    Row("GET", "/task/{id}", Operation::Task),
    Row("GET", "/task/{id}/form", Operation::TaskForm),
    Row("GET", "/task/{id}/form-variables", Operation::TaskVariables),
    Row("GET", "/task/{id}/variables", Operation::TaskVariables),
    Row("POST", "/task/{id}/claim", Operation::Claim),
    Row("POST", "/task/{id}/unclaim", Operation::Unclaim),
    Row("POST", "/task/{id}/assignee", Operation::Assign),
    Row("POST", "/task/{id}/complete", Operation::Complete),
    Row("POST", "/task/{id}/submit-form", Operation::SubmitTaskForm),
    Row("GET", "/history/process-instance", Operation::PastInstances),
    Row(
        "GET",
        "/history/process-instance/count",
        Operation::PastInstanceCount,
    ),
    Row(
        "GET",
        "/history/process-instance/{id}",
        Operation::PastInstance,
    ),
    Row(
        "GET",
        "/history/activity-instance",
        Operation::PastActivities,
    ),
    Row(
        "GET",
        "/history/variable-instance",
        Operation::PastVariables,
    ),
    Row("POST", "/message", Operation::Message),
    Row("POST", "/signal", Operation::Signal),
    Row(
        "POST",
        "/external-task/fetchAndLock",
        Operation::FetchAndLock,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> Result<(Operation, Vec<String>), u16> {
        match find(method, path) {
            Ok(Route::Found(found)) => Ok((found.operation, found.parameters)),
            Ok(Route::Options(_)) => Err(200),
            Err(refusal) => Err(refusal.status.as_u16()),
        }
    }

    #[test]
    fn every_spelling_that_starts_an_instance_is_found() {
        for path in [
            "/process-definition/key/simple/start",
            "/process-definition/key/%73imple/start",
            "/process-definition;a=b/key;c/simple;d/start",
            "/process-definition/key/simple/start;x=y",
            "/process-definition/key/simple/start;x=%2F",
            "/process-definition/key/simple/start/",
            "/process-definition/key/simple/start;x/",
        ] {
            assert_eq!(
                found(&Method::POST, path),
                Ok((Operation::Start, vec!["simple".to_owned()])),
                "{path}"
            );
        }
        assert_eq!(
            found(&Method::POST, "/process-definition/a%3A1%3Ab/start")
                .unwrap()
                .1,
            ["a:1:b"]
        );
    }

    #[test]
    fn other_spellings_are_404() {
        for path in [
            "/process-definition/key/simple/st%61rt",
            "/process-definition/key/simple//start",
            "/process-definition/key/simple/start//",
            "/process-definition/key/simple/START",
            "/process-definition/key/simple/start.json",
            "/process-definition/key/simple/start%20",
            "/process-definition/key/simple/start%3B",
            "/process-definition/key/%2e%2e/start",
            "/nope",
            "/",
            "",
        ] {
            assert_eq!(found(&Method::POST, path), Err(404), "{path}");
        }
    }

    #[test]
    fn a_literal_beats_a_parameter_without_a_second_try() {
        assert_eq!(
            found(&Method::POST, "/process-definition/key/start"),
            Err(405)
        );
        assert_eq!(
            found(&Method::GET, "/task/count"),
            Ok((Operation::TaskCount, vec![]))
        );
        // Jakarta REST §3.7.2: a method's path that leaves a rest does not hide the longer one.
        assert_eq!(
            found(&Method::POST, "/task/count/complete"),
            Ok((Operation::Complete, vec!["count".to_owned()]))
        );
        let (operation, parameters) = found(
            &Method::POST,
            "/process-definition/key/simple/tenant-id/t1/start",
        )
        .unwrap();
        assert_eq!(
            (operation, parameters),
            (Operation::Start, vec!["simple".to_owned(), "t1".to_owned()])
        );
    }

    #[test]
    fn methods_are_looked_at_after_the_path() {
        assert_eq!(
            found(&Method::GET, "/process-definition/key/simple/start"),
            Err(405)
        );
        assert_eq!(
            found(&Method::HEAD, "/version"),
            Ok((Operation::Version, vec![]))
        );
        let options = find(&Method::OPTIONS, "/process-instance/x").unwrap();
        assert_eq!(options, Route::Options(vec!["GET", "DELETE"]));
    }
}
