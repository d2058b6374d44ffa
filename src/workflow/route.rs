//! The routes of the workflow API, as one table: what each asks of the engine.

use http::Method;

/// A row of the table.
#[derive(Debug)]
pub(super) struct Route {
    /// The method; HEAD is a GET here.
    pub(super) method: Method,
    /// The path below the prefix; `{}` is a parameter.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "its parts are what is compared")
    )]
    pub(super) path: &'static str,
    /// What of it stands before the parameter, and behind it where there is one.
    parts: (&'static str, Option<&'static str>),
    /// What is done.
    pub(super) call: Call,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// One request to the engine, at this path.
    Engine(&'static str, Translation),
    /// Tells the caller who they are; the engine is not asked.
    User,
    /// Four counts, asked at the same time.
    Statistics,
}

/// What of the request or the answer is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Translation {
    /// Nothing but the path, and this default of the query.
    Read(Option<DefaultParameter>),
    /// The variables of a start; the answer is 201.
    Start,
    /// The variables of a completion.
    Complete,
    /// A body without a user means the caller.
    Claim,
    /// The body is left out.
    Unclaim,
    /// A PUT of `{"suspended": ..}`.
    Suspend(bool),
    /// The reason in the body goes into the audit log, as the engine has no place for it.
    Delete,
}

impl Translation {
    /// Whether the request's body is read.
    pub(super) fn reads_body(self) -> bool {
        match self {
            Self::Read(_) | Self::Suspend(_) | Self::Unclaim => false,
            Self::Start | Self::Complete | Self::Claim | Self::Delete => true,
        }
    }

    /// The method at the engine. HEAD is asked as GET, since an error to HEAD would not say what it is; nobody
    /// sends the body on.
    pub(super) fn method(self, asked: &Method) -> Method {
        match self {
            Self::Read(_) => Method::GET,
            Self::Suspend(_) => Method::PUT,
            Self::Start | Self::Complete | Self::Claim | Self::Unclaim | Self::Delete => {
                asked.clone()
            }
        }
    }

    /// What is asked for unless the caller says otherwise.
    pub(super) fn default(self) -> Option<DefaultParameter> {
        match self {
            Self::Read(default) => default,
            Self::Start
            | Self::Complete
            | Self::Claim
            | Self::Unclaim
            | Self::Suspend(_)
            | Self::Delete => None,
        }
    }

    /// What becomes of the body, in words.
    pub(super) fn of_the_body(self) -> Option<&'static str> {
        match self {
            Self::Read(_) => None,
            Self::Start | Self::Complete => Some("plain variables get a type, typed ones pass"),
            Self::Claim => Some("without `userId` the caller's is written"),
            Self::Unclaim => Some("is left out"),
            Self::Suspend(true) => Some(r#"is `{"suspended":true}`"#),
            Self::Suspend(false) => Some(r#"is `{"suspended":false}`"#),
            Self::Delete => Some("is left out; a `reason` goes into the audit log"),
        }
    }
}

/// A parameter that is asked for unless the caller says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DefaultParameter {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    /// Other parameters with which the engine refuses it.
    pub(super) refused_with: &'static [&'static str],
}

/// What a method and a path below the prefix mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A route and its parameter, as it stands in the path.
    Call(Call, &'a str),
    /// The path is one, with these methods.
    OtherMethods(String),
    /// None of the workflow API: the transparent way.
    None,
}

/// Finds the route of a normalized path below the prefix.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut allow = Vec::new();
    for route in &ROUTES {
        let Some(parameter) = route.parameter(path) else {
            continue;
        };
        if route.method == *wanted {
            return Found::Call(route.call, parameter);
        }
        if !route.shares_its_path() {
            allow.push(route.method.as_str());
            if route.method == Method::GET {
                allow.push("HEAD");
            }
        }
    }
    if allow.is_empty() {
        Found::None
    } else {
        Found::OtherMethods(allow.join(", "))
    }
}

impl Route {
    /// The parameter of a path that fits, empty where the template has none.
    fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (before, after) = self.parts;
        let rest = path.strip_prefix(before)?;
        let Some(after) = after else {
            return rest.is_empty().then_some("");
        };
        let parameter = rest.strip_suffix(after)?;
        (!parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
    }

    /// `/user` is the engine's too, for every other method.
    fn shares_its_path(&self) -> bool {
        self.call == Call::User
    }
}

const fn route(method: Method, path: &'static str, call: Call) -> Route {
    let parts = parts(path);
    Route {
        method,
        path,
        parts,
        call,
    }
}

/// Taken apart once, as every request of the transparent way is held against all rows.
#[expect(clippy::indexing_slicing, reason = "within the text")]
const fn parts(path: &'static str) -> (&'static str, Option<&'static str>) {
    let mut at = 0;
    while at < path.len() {
        if path.as_bytes()[at] == b'{' {
            let (before, rest) = path.split_at(at);
            return (before, Some(rest.split_at("{}".len()).1));
        }
        at += 1;
    }
    (path, None)
}

const fn read(path: &'static str, engine: &'static str) -> Route {
    route(
        Method::GET,
        path,
        Call::Engine(engine, Translation::Read(None)),
    )
}

const fn write(path: &'static str, engine: &'static str, translation: Translation) -> Route {
    route(Method::POST, path, Call::Engine(engine, translation))
}

/// Every endpoint but `/health`, which needs no token and is [`Own`](crate::layer::Own)'s.
pub(super) static ROUTES: [Route; 21] = [
    route(
        Method::GET,
        "/processes",
        Call::Engine("/process-definition", Translation::Read(Some(LATEST))),
    ),
    read("/processes/{}", "/process-definition/key/{}"),
    read("/processes/{}/xml", "/process-definition/key/{}/xml"),
    read(
        "/processes/{}/form",
        "/process-definition/key/{}/form-variables",
    ),
    write(
        "/processes/{}/start",
        "/process-definition/key/{}/start",
        Translation::Start,
    ),
    read("/instances", "/process-instance"),
    read("/instances/{}", "/process-instance/{}"),
    route(
        Method::DELETE,
        "/instances/{}",
        Call::Engine("/process-instance/{}", Translation::Delete),
    ),
    route(
        Method::GET,
        "/instances/{}/variables",
        // Else the engine shows a JSON value as the bean that holds it.
        Call::Engine(
            "/process-instance/{}/variables",
            Translation::Read(Some(AS_TEXT)),
        ),
    ),
    write(
        "/instances/{}/suspend",
        "/process-instance/{}/suspended",
        Translation::Suspend(true),
    ),
    write(
        "/instances/{}/activate",
        "/process-instance/{}/suspended",
        Translation::Suspend(false),
    ),
    read(
        "/instances/{}/activity-instances",
        "/process-instance/{}/activity-instances",
    ),
    read("/history/activity-instances", "/history/activity-instance"),
    read("/tasks", "/task"),
    read("/tasks/{}", "/task/{}"),
    route(
        Method::GET,
        "/tasks/{}/form",
        Call::Engine("/task/{}/form-variables", Translation::Read(Some(AS_TEXT))),
    ),
    write(
        "/tasks/{}/complete",
        "/task/{}/complete",
        Translation::Complete,
    ),
    write("/tasks/{}/claim", "/task/{}/claim", Translation::Claim),
    write(
        "/tasks/{}/unclaim",
        "/task/{}/unclaim",
        Translation::Unclaim,
    ),
    route(Method::GET, "/user", Call::User),
    route(Method::GET, "/statistics", Call::Statistics),
];

const LATEST: DefaultParameter = DefaultParameter {
    name: "latestVersion",
    value: "true",
    // 500 "Calling latest() can only be used in combination with key ..", Operaton 1.0.3 and Camunda 7.24.
    refused_with: &["version", "deploymentId", "processDefinitionId"],
};

/// Values of JSON and of objects as they are stored.
const AS_TEXT: DefaultParameter = DefaultParameter {
    name: "deserializeValues",
    value: "false",
    refused_with: &[],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Catalogue, Matched};

    #[test]
    fn paths_and_methods_find_their_route_and_the_rest_is_the_engines() {
        let call = |method: Method, path| match find(&method, path) {
            Found::Call(Call::Engine(engine, _), parameter) => format!("{engine} {parameter}"),
            Found::Call(call, _) => format!("{call:?}"),
            Found::OtherMethods(allow) => format!("405 {allow}"),
            Found::None => "the engine".to_owned(),
        };
        for (method, path, want) in [
            (Method::GET, "/processes", "/process-definition "),
            (Method::HEAD, "/processes", "/process-definition "),
            (
                Method::GET,
                "/processes/a%20b",
                "/process-definition/key/{} a%20b",
            ),
            (
                Method::GET,
                "/processes/xml",
                "/process-definition/key/{} xml",
            ),
            (
                Method::GET,
                "/processes/start/xml",
                "/process-definition/key/{}/xml start",
            ),
            (
                Method::POST,
                "/processes/a/start",
                "/process-definition/key/{}/start a",
            ),
            (Method::GET, "/processes/a/start", "405 POST"),
            (Method::GET, "/processes/a/b/start", "the engine"),
            (Method::GET, "/processes/a/start/b", "the engine"),
            (Method::GET, "/processes//start", "the engine"),
            (Method::POST, "/processes", "405 GET, HEAD"),
            (Method::PUT, "/instances/1", "405 GET, HEAD, DELETE"),
            (Method::DELETE, "/instances/1", "/process-instance/{} 1"),
            (Method::GET, "/instance", "the engine"),
            (Method::GET, "/user", "User"),
            (Method::POST, "/user", "the engine"),
            (Method::GET, "/user/count", "the engine"),
            (Method::GET, "/statistics", "Statistics"),
            (Method::GET, "", "the engine"),
            (Method::GET, "/", "the engine"),
        ] {
            assert_eq!(call(method.clone(), path), want, "{method} {path}");
        }
    }

    #[test]
    fn what_a_route_asks_is_in_the_catalogue_and_no_route_hides_an_operation() {
        for route in &ROUTES {
            let path = route.path.replace("{}", "x");
            let hidden = Catalogue::builtin().find(&route.method, &path);
            assert_eq!(
                matches!(hidden, Matched::Operation(_)),
                route.shares_its_path(),
                "{path}"
            );
            if let Call::Engine(engine, translation) = route.call {
                let method = match translation {
                    Translation::Suspend(_) => Method::PUT,
                    Translation::Read(_)
                    | Translation::Start
                    | Translation::Complete
                    | Translation::Claim
                    | Translation::Unclaim
                    | Translation::Delete => route.method.clone(),
                };
                let asked = Catalogue::builtin().find(&method, &engine.replace("{}", "x"));
                assert!(matches!(asked, Matched::Operation(_)), "{method} {engine}");
            }
        }
    }
}
