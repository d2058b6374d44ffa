//! Who may do what: a profile allows operations, and says what of their members.
//!
//! Pure: [`AccessRules::decide`] looks at the identity, the catalogue's row and the query's names, and
//! at nothing else. What a profile does not name is denied; a request that is no row of the catalogue
//! passes for `transparent` alone.
//!
//! A gateway that swaps any token for the engine's service account would turn every caller into that
//! account; deploying a process is running code on the engine. So `user` is a short list of what a
//! person at a task list does, and leaves out what only looks harmless (engine facts §11).

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::operation::{Catalogue, Guarded, Kind, Matched, Operation};
use crate::problem::Problem;

/// What the access check granted.
///
/// Put into the request's extensions by [`AuthorizeLayer`](crate::layer::AuthorizeLayer), read where
/// the body is read.
#[derive(Debug, Clone)]
pub struct Access {
    /// The profile that allowed the operation.
    pub profile: Arc<str>,
    /// Whether the `guarded` members of the operation (catalogue column) may be used.
    pub guarded_allowed: bool,
    /// Whether every member of the operation's `user_fields` must be present and be the caller's id.
    pub own_user_only: bool,
}

/// A profile: which operations a caller may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Nothing.
    None,
    /// What a person at a task list does: see the table in `docs/access.md`.
    User,
    /// Everything, also what is no row of the catalogue.
    Transparent,
}

/// The configured access rules.
#[derive(Debug, Clone)]
pub struct AccessRules {
    default: Profile,
    name: Arc<str>,
}

impl AccessRules {
    /// Every caller has this profile.
    #[must_use]
    pub fn new(default: Profile) -> Self {
        Self {
            default,
            name: default.name().into(),
        }
    }

    /// The name of the callers' profile.
    #[must_use]
    pub fn profile(&self) -> &Arc<str> {
        &self.name
    }

    /// Decides one request; `query` is the raw query string, without its `?`.
    ///
    /// # Errors
    /// [`Problem::AccessDenied`] for an operation or a query member that the profile does not allow,
    /// [`Problem::NotFound`] and [`Problem::MethodNotAllowed`] for what is no row of the catalogue.
    pub fn decide(&self, matched: &Matched, query: Option<&str>) -> Result<Access, Problem> {
        let access = Access {
            profile: self.name.clone(),
            guarded_allowed: self.default == Profile::Transparent,
            own_user_only: self.default != Profile::Transparent,
        };
        let operation = match matched {
            _ if self.default == Profile::Transparent => return Ok(access),
            Matched::Unknown => return Err(Problem::NotFound),
            Matched::OtherMethods(allow) => return Err(Problem::MethodNotAllowed(allow.clone())),
            Matched::Operation(found) => found.operation,
        };
        if !self.default.allows(operation) {
            return Err(Problem::denied(operation.id, &self.name));
        }
        // Any read may carry an expression in its query; only the POST queries are marked in the table.
        match query.and_then(|query| guarded_name(operation, query)) {
            Some(member) => Err(Problem::denied_member(operation.id, &self.name, &member)),
            None => Ok(access),
        }
    }
}

impl Profile {
    /// The name in the configuration and in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
            Self::Transparent => "transparent",
        }
    }

    /// Whether the profile allows this row.
    #[must_use]
    pub fn allows(self, operation: &Operation) -> bool {
        match self {
            Self::None => false,
            Self::Transparent => true,
            Self::User => {
                let readable = operation.kind == Kind::Read
                    && USER_READS.contains(&operation.group)
                    && !operation.path.contains("/statistics")
                    && !operation.path.contains("/report");
                let startable = operation.kind == Kind::Start
                    && operation.group == "Process Definition"
                    && !operation.body_paths.is_empty();
                readable || startable || USER_WRITES.contains(&operation.id)
            }
        }
    }
}

/// Every operation that a profile allows, in the catalogue's order.
pub fn allowed(profile: Profile) -> impl Iterator<Item = &'static Operation> {
    Catalogue::builtin()
        .operations()
        .iter()
        .filter(move |row| profile.allows(row))
}

/// The first query parameter that needs more than the operation.
fn guarded_name(operation: &Operation, query: &str) -> Option<String> {
    let guards = [Guarded::Suffix("Expression")];
    query.split('&').find_map(|pair| {
        let name = pair
            .split_once('=')
            .map_or(pair, |(name, _)| name)
            .replace('+', " ");
        let name = percent_decode_str(&name).decode_utf8_lossy().into_owned();
        guards
            .iter()
            .chain(&operation.guarded)
            .any(|guard| match guard {
                Guarded::Member(member) => name == *member,
                Guarded::Suffix(suffix) => name.ends_with(suffix),
            })
            .then_some(name)
    })
}

/// The groups that `user` may read: definitions, forms, instances, tasks and their history. Not
/// filters (a stored one runs expressions), not people, not the operation log.
const USER_READS: [&str; 16] = [
    "Engine",
    "Version",
    "Process Definition",
    "Decision Definition",
    "Process Instance",
    "Process Instance Comment",
    "Task",
    "Task Attachment",
    "Task Comment",
    "Task Local Variable",
    "Task Variable",
    "Variable Instance",
    "Historic Process Instance",
    "Historic Activity Instance",
    "Historic Task Instance",
    "Historic Variable Instance",
];

/// What `user` may write, beside starts. Every `user_fields` member must be the caller.
const USER_WRITES: [&str; 6] = [
    "claim",
    "unclaim",
    "complete",
    "submit",
    "createComment",
    "addAttachment",
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn decide(profile: Profile, method: &Method, path_and_query: &str) -> Result<Access, Problem> {
        let (path, query) = path_and_query.split_once('?').unzip();
        let path = path.unwrap_or(path_and_query);
        AccessRules::new(profile).decide(&Catalogue::builtin().find(method, path), query)
    }

    #[test]
    fn user_does_what_a_person_at_a_task_list_does_and_no_more() {
        for (method, path, allowed) in [
            ("GET", "/process-definition?latestVersion=true", true),
            ("GET", "/process-definition/key/a/xml", true),
            ("POST", "/process-definition/key/a/start", true),
            (
                "POST",
                "/engine/default/process-definition/a:1:b/submit-form",
                true,
            ),
            ("GET", "/process-instance/1/variables", true),
            ("POST", "/task", true),
            ("POST", "/task/1/claim", true),
            ("POST", "/task/1/complete", true),
            ("GET", "/history/process-instance/count", true),
            ("GET", "/process-definition/statistics", false),
            ("GET", "/history/task/report", false),
            ("POST", "/process-definition/a:1:b/restart", false),
            ("POST", "/case-definition/key/a/create", false),
            ("POST", "/deployment/create", false),
            ("GET", "/deployment", false),
            ("GET", "/user", false),
            ("GET", "/user/bob/profile", false),
            ("POST", "/identity/verify", false),
            ("GET", "/filter/1/list", false),
            ("POST", "/filter/create", false),
            ("POST", "/external-task/fetchAndLock", false),
            ("POST", "/message", false),
            ("POST", "/signal", false),
            ("PUT", "/process-instance/1/variables/initiator", false),
            ("POST", "/process-instance/1/modification", false),
            ("DELETE", "/process-instance/1", false),
            ("POST", "/task/1/assignee", false),
            ("POST", "/task/1/delegate", false),
            ("POST", "/task/create", false),
            ("GET", "/history/user-operation", false),
            ("GET", "/optimize/process-instance/running", false),
            ("POST", "/setup/user/create", false),
        ] {
            let decision = decide(Profile::User, &method.parse().unwrap(), path);
            match decision {
                Ok(access) => assert!(allowed && access.own_user_only, "{method} {path}"),
                Err(Problem::AccessDenied(_)) => assert!(!allowed, "{method} {path}"),
                Err(other) => panic!("{method} {path}: {other}"),
            }
        }
    }

    #[test]
    fn expression_in_a_query_is_denied_however_it_is_written() {
        for query in [
            "assigneeExpression=x",
            "a=1&assignee%45xpression=x",
            "dueAfterExpression",
        ] {
            let problem =
                decide(Profile::User, &Method::GET, &format!("/task?{query}")).unwrap_err();
            assert_eq!(problem.code(), "access_denied", "{query}");
        }
        decide(Profile::User, &Method::GET, "/task?assignee=someExpression").unwrap();
        decide(
            Profile::Transparent,
            &Method::GET,
            "/task?assigneeExpression=x",
        )
        .unwrap();
    }

    #[test]
    fn what_is_no_row_passes_for_transparent_alone() {
        for (method, path, want) in [
            ("GET", "/nothing", "not_found"),
            ("PATCH", "/task", "method_not_allowed"),
            (
                "post",
                "/process-definition/key/a/start",
                "method_not_allowed",
            ),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(
                decide(Profile::User, &method, path).unwrap_err().code(),
                want,
                "{path}"
            );
            assert_eq!(
                decide(Profile::None, &method, path).unwrap_err().code(),
                want,
                "{path}"
            );
            decide(Profile::Transparent, &method, path).unwrap();
        }
    }

    #[test]
    fn none_denies_every_row() {
        assert_eq!(allowed(Profile::None).count(), 0);
        assert_eq!(
            allowed(Profile::Transparent).count(),
            Catalogue::builtin().operations().len()
        );
    }

    /// `docs/access.md` holds every row that `user` may use: a change there is a change of what every
    /// logged-in caller may do. `BPMGATE_BLESS=1 cargo test --lib access` writes it.
    #[test]
    fn the_documented_rows_of_user_are_those_that_are_allowed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md");
        let mut table = String::from("| operation | request |\n|---|---|\n");
        for row in allowed(Profile::User) {
            table.push_str(&format!(
                "| `{}` | `{} {}` |\n",
                row.id, row.method, row.path
            ));
        }
        let document = std::fs::read_to_string(path).unwrap();
        let (by_hand, generated) = document.split_once(MARKER).unwrap();
        if std::env::var_os("BPMGATE_BLESS").is_some() {
            std::fs::write(path, format!("{by_hand}{MARKER}\n\n{table}")).unwrap();
        } else {
            assert_eq!(generated.trim(), table.trim());
        }
    }

    const MARKER: &str =
        "<!-- Generated by `BPMGATE_BLESS=1 cargo test --lib access` from here on. -->";
}
