//! The operation catalogue: every operation of the engine's REST API, and the row a request means.
//!
//! The table `operation/operations.tsv` is read once; it alone says which requests start processes,
//! where their variables sit, and what each operation is called in access rules, metrics and logs.
//!
//! A path is matched as the engines match it (JAX-RS 3.7.2): where a segment equals a literal of the
//! table, the literal is taken if any row has the rest of the path below it, else the parameter in its
//! place; **then** the method is looked at, with no second try. So `/process-definition/key/start` has
//! no POST, as it is the key `start`, and `/task/count/complete` completes the task `count`.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;
use percent_encoding::percent_decode_str;

/// One row of the catalogue.
#[derive(Debug)]
#[non_exhaustive]
pub struct Operation {
    /// The `operationId` of the engine's `OpenAPI` document; ours, beginning with `x`, where that has none.
    pub id: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path template, below the engine's REST root: `/process-definition/key/{key}/start`.
    pub path: &'static str,
    /// The tag of the `OpenAPI` document: `Process Definition`.
    pub group: &'static str,
    /// What the operation does.
    pub kind: Kind,
    /// Where the request writes variables.
    pub body_paths: Vec<BodyPath>,
    /// What the request's body is.
    pub encoding: Encoding,
    /// What the answer's body is.
    pub response: Response,
    /// Body members that name a user.
    pub user_fields: Vec<&'static str>,
    /// Body and query members that need more than the operation.
    pub guarded: Vec<Guarded>,
    /// The row's place in the table.
    pub(crate) place: usize,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Reads; queries by POST too.
    Read,
    /// Starts process or case instances.
    Start,
    /// Writes variables of running instances.
    WriteVars,
    /// Messages, signals and conditions, which may start instances.
    Correlate,
    /// Evaluates a decision.
    Evaluate,
    /// Acts as, or for, a user.
    ActAs,
    /// Administers the engine.
    Admin,
    /// Deletes.
    Delete,
    /// Anything else.
    Other,
}

/// What a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    None,
    /// JSON.
    Json,
    /// `multipart/form-data`.
    Multipart,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// JSON.
    Json,
    /// JSON with absolute links in `links[].href`.
    Links,
    /// JSON, or HAL where the client asks for it, which shows the people and groups that it names.
    Hal,
    /// Not to be parsed: files, forms, HTML, CSV.
    Opaque,
}

/// A place of a request where variables are written (column `body_paths`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyPath {
    /// An object of variable name to value: `variables`, `startInstructions[].variables`.
    Map(Vec<Step>),
    /// A list of variable names: `deletions[]`.
    Names(Vec<Step>),
    /// A list of objects whose `name` is a variable's: `deletions[].name`.
    NamedObjects(Vec<Step>),
    /// The path segment `{varName}`; the body is the one value.
    Segment,
}

/// One member on the way to a place in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The member's name.
    pub member: &'static str,
    /// Whether its value is an array, each element of which is meant.
    pub each: bool,
}

/// A member that needs more than the operation (column `guarded`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// The member of exactly this name, at the top level.
    Member(&'static str),
    /// Every member whose name ends so, at any depth.
    Suffix(&'static str),
}

/// The catalogue's row for a request, or that there is none.
///
/// Put into the request's extensions by [`MatchOperationLayer`](crate::layer::MatchOperationLayer).
#[derive(Debug, Clone)]
pub enum Matched {
    /// The request is this operation.
    Operation(Match),
    /// The path exists with other methods: these, for `Allow`.
    OtherMethods(Box<str>),
    /// No row has this path.
    Unknown,
}

/// An operation with what its path says.
#[derive(Debug, Clone)]
pub struct Match {
    /// The row.
    pub operation: &'static Operation,
    /// The path's parameters, percent-decoded, by their names in the template.
    pub params: Vec<(&'static str, Box<str>)>,
    /// The engine's name, where the path was `/engine/{name}/...`.
    pub engine_name: Option<Box<str>>,
}

impl Match {
    /// The value of a path parameter, percent-decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| &**value)
    }

    /// The key of a process definition, where the path names one.
    #[must_use]
    pub fn process_key(&self) -> Option<&str> {
        let is_of_process = self.operation.path.starts_with("/process-definition/key/");
        self.param("key").filter(|_| is_of_process)
    }
}

/// The table, compiled into a tree of path segments.
#[derive(Debug)]
pub struct Catalogue {
    operations: Vec<Operation>,
    root: Node,
}

/// A place in the tree: where the next segment leads, and the rows that end here.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<&'static str, Node, foldhash::fast::RandomState>,
    parameter: Option<Box<Node>>,
    rows: Vec<usize>,
}

impl Catalogue {
    /// The catalogue that is built in.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalogue> =
            LazyLock::new(|| Catalogue::parse(include_str!("operation/operations.tsv")));
        &BUILTIN
    }

    /// Every row, in the table's order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The row that the engine runs for this method and path.
    ///
    /// `path` is normalized (see [`crate::path`]) and begins below the engine's REST root. `HEAD` is
    /// decided as its `GET`. The optional `/engine/{name}` in front is taken off once.
    #[must_use]
    pub fn find(&'static self, method: &Method, path: &str) -> Matched {
        let (engine_name, path) = match split_engine(path) {
            Split::Named(name, rest) => (Some(name), rest),
            Split::Plain => (None, path),
            Split::Nested => return Matched::Unknown,
        };
        let mut values: Vec<&str> = Vec::new();
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let Some(node) = self.root.below(segments, &mut values) else {
            return Matched::Unknown;
        };
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let mut rows = node.rows.iter().filter_map(|&row| self.operations.get(row));
        match rows.clone().find(|row| row.method == wanted) {
            Some(operation) => Matched::Operation(Match {
                operation,
                params: parameters(operation.path)
                    .zip(values)
                    .map(|(name, value)| {
                        let decoded = percent_decode_str(value).decode_utf8_lossy();
                        (name, decoded.into_owned().into_boxed_str())
                    })
                    .collect(),
                engine_name: engine_name
                    .map(|name| percent_decode_str(name).decode_utf8_lossy().into()),
            }),
            None => Matched::OtherMethods(allow(&mut rows)),
        }
    }

    /// Reads the table. Its columns are found by name; the table is part of the program, so what it
    /// holds is an invariant, checked by the tests.
    #[expect(
        clippy::expect_used,
        reason = "the table is compiled in; every test reads it"
    )]
    fn parse(table: &'static str) -> Self {
        let mut lines = table.lines();
        let header: Vec<&str> = lines.next().expect("a header line").split('\t').collect();
        let column = |name: &str| {
            header
                .iter()
                .position(|&known| known == name)
                .expect("the column exists")
        };
        let columns = [
            "method",
            "path",
            "operationId",
            "group",
            "kind",
            "body_paths",
            "encoding",
            "response",
            "user_fields",
            "guarded",
        ]
        .map(column);
        let mut operations = Vec::new();
        let mut root = Node::default();
        for line in lines {
            let cells: Vec<&'static str> = line.split('\t').collect();
            let [
                method,
                path,
                id,
                group,
                kind,
                body_paths,
                encoding,
                response,
                user_fields,
                guarded,
            ] = columns.map(|index| cells.get(index).copied().unwrap_or_default());
            root.insert(path, operations.len());
            operations.push(Operation {
                id,
                method: method.parse().expect("a method"),
                path,
                group,
                kind: Kind::parse(kind).expect("a known kind"),
                body_paths: list(body_paths).map(BodyPath::parse).collect(),
                encoding: Encoding::parse(encoding).expect("a known encoding"),
                response: Response::parse(response),
                user_fields: list(user_fields).collect(),
                guarded: list(guarded).map(Guarded::parse).collect(),
                place: operations.len(),
            });
        }
        Self { operations, root }
    }
}

impl Node {
    /// The node with rows to which the segments lead, and the values of the parameters on the way.
    fn below<'n, 'p>(
        &'n self,
        mut segments: std::str::Split<'p, char>,
        values: &mut Vec<&'p str>,
    ) -> Option<&'n Self> {
        let Some(segment) = segments.next() else {
            return (!self.rows.is_empty()).then_some(self);
        };
        if let Some(next) = self.literals.get(segment)
            && let Some(found) = next.below(segments.clone(), values)
        {
            return Some(found);
        }
        let next = self.parameter.as_deref()?;
        let before = values.len();
        values.push(segment);
        let found = next.below(segments, values);
        if found.is_none() {
            values.truncate(before);
        }
        found
    }

    fn insert(&mut self, path: &'static str, row: usize) {
        let mut node = self;
        for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
            node = if segment.starts_with('{') {
                node.parameter.get_or_insert_default()
            } else {
                node.literals.entry(segment).or_default()
            };
        }
        node.rows.push(row);
    }
}

impl Operation {
    /// Whether the gateway must read the body: to write or protect variables, or to look at members.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        !(self.body_paths.is_empty() && self.user_fields.is_empty() && self.guarded.is_empty())
    }

    /// Whether an answer may be held back by the engine for up to 30 minutes (engine fact
    /// "asyncResponseTimeout": over 1800000 ms is refused).
    #[must_use]
    pub fn is_long_poll(&self) -> bool {
        self.path == LONG_POLL
    }
}

/// Whether a request of this path is a [long poll](Operation::is_long_poll), as far as that can be said before it is known below
/// which prefix it is. What is none takes a long poll's place for as long as it lasts, and no other.
#[must_use]
pub fn looks_like_long_poll(path: &str) -> bool {
    path.ends_with(LONG_POLL)
}

const LONG_POLL: &str = "/external-task/fetchAndLock";

impl Kind {
    /// The word of the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Start => "start",
            Self::WriteVars => "write_vars",
            Self::Correlate => "correlate",
            Self::Evaluate => "evaluate",
            Self::ActAs => "act_as",
            Self::Admin => "admin",
            Self::Delete => "delete",
            Self::Other => "other",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [
            Self::Read,
            Self::Start,
            Self::WriteVars,
            Self::Correlate,
            Self::Evaluate,
            Self::ActAs,
            Self::Admin,
            Self::Delete,
            Self::Other,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

impl Encoding {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "none" => Some(Self::None),
            "json" => Some(Self::Json),
            "multipart" => Some(Self::Multipart),
            _ => None,
        }
    }
}

impl Response {
    fn parse(word: &str) -> Self {
        match word {
            "json" => Self::Json,
            "links" => Self::Links,
            "json|hal" => Self::Hal,
            _ => Self::Opaque,
        }
    }
}

impl BodyPath {
    /// Reads one entry of the column `body_paths`.
    #[must_use]
    pub fn parse(entry: &'static str) -> Self {
        if entry.starts_with('{') {
            return Self::Segment;
        }
        let steps = |path: &'static str| {
            path.split('.')
                .map(|part| match part.strip_suffix("[]") {
                    Some(member) => Step { member, each: true },
                    None => Step {
                        member: part,
                        each: false,
                    },
                })
                .collect()
        };
        if let Some(path) = entry.strip_suffix("[].name") {
            Self::NamedObjects(steps(path))
        } else if let Some(path) = entry.strip_suffix("[]") {
            Self::Names(steps(path))
        } else {
            Self::Map(steps(entry))
        }
    }
}

impl Guarded {
    /// Whether a member of this name is meant.
    #[must_use]
    pub fn matches(self, name: &str) -> bool {
        match self {
            Self::Member(member) => name == member,
            Self::Suffix(suffix) => name.ends_with(suffix),
        }
    }

    fn parse(entry: &'static str) -> Self {
        entry
            .strip_prefix('*')
            .map_or(Self::Member(entry), Self::Suffix)
    }
}

/// Whether `/engine/{name}` stands in front of the path.
enum Split<'a> {
    Plain,
    Named(&'a str, &'a str),
    Nested,
}

fn split_engine(path: &str) -> Split<'_> {
    let Some(rest) = path.strip_prefix("/engine/") else {
        return Split::Plain;
    };
    match rest.split_once('/') {
        // `/engine/a/engine/b/..` is 404 on the engines.
        Some((_, below)) if below == "engine" || below.starts_with("engine/") => Split::Nested,
        Some((name, _)) => Split::Named(name, rest.get(name.len()..).unwrap_or_default()),
        None => Split::Nested,
    }
}

fn list(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(',').filter(|entry| !entry.is_empty())
}

fn parameters(template: &'static str) -> impl Iterator<Item = &'static str> {
    template.split('/').filter_map(|segment| {
        segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
    })
}

/// The value of `Allow` for the rows of one path: HEAD where there is GET.
fn allow(rows: &mut dyn Iterator<Item = &'static Operation>) -> Box<str> {
    let mut methods = Vec::new();
    for row in rows {
        methods.push(row.method.as_str());
        if row.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.join(", ").into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> &'static str {
        match Catalogue::builtin().find(&method.parse().unwrap(), path) {
            Matched::Operation(matched) => matched.operation.id,
            Matched::OtherMethods(_) => "405",
            Matched::Unknown => "404",
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_path() {
        for row in Catalogue::builtin().operations() {
            let path: String = row
                .path
                .split('/')
                .map(|segment| {
                    if segment.starts_with('{') {
                        "a%3A1"
                    } else {
                        segment
                    }
                })
                .collect::<Vec<_>>()
                .join("/");
            for path in [path.clone(), format!("/engine/default{path}")] {
                if row.path == "/engine" && path != row.path {
                    continue;
                }
                assert_eq!(
                    found(row.method.as_str(), &path),
                    row.id,
                    "{} {path}",
                    row.method
                );
            }
        }
        assert_eq!(Catalogue::builtin().operations().len(), 494);
    }

    #[test]
    fn literals_beat_parameters_where_a_row_is_below_them() {
        for (method, path, want) in [
            (
                "POST",
                "/process-definition/key/order/start",
                "startProcessInstanceByKey",
            ),
            (
                "HEAD",
                "/process-definition/key/order",
                "getProcessDefinitionByKey",
            ),
            (
                "POST",
                "/process-definition/order:1:abc/start",
                "startProcessInstance",
            ),
            // `key` is taken as the literal; then there is only {key}
            ("POST", "/process-definition/key/start", "405"),
            ("POST", "/task/count/complete", "complete"),
            ("POST", "/task/count/nothing", "404"),
            ("post", "/process-definition/key/order/start", "405"),
            ("POST", "/Process-definition/key/order/start", "404"),
            ("POST", "/process-definition/key/order/start/", "404"),
            ("GET", "/engine", "getProcessEngineNames"),
            ("GET", "/engine/default", "404"),
            ("GET", "/engine/default/engine", "404"),
            ("GET", "/engine/a/engine/b/task", "404"),
            ("GET", "/engine/default/task", "getTasks"),
            ("GET", "", "404"),
            ("GET", "/", "404"),
        ] {
            assert_eq!(found(method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn parameters_are_percent_decoded() {
        let Matched::Operation(matched) = Catalogue::builtin().find(
            &Method::PUT,
            "/engine/default/task/a%3Ab/variables/gr%C3%BC%C3%9Fe",
        ) else {
            panic!("no match")
        };
        assert_eq!(matched.operation.id, "putTaskVariable");
        assert_eq!(matched.param("id"), Some("a:b"));
        assert_eq!(matched.param("varName"), Some("grüße"));
        assert_eq!(matched.engine_name.as_deref(), Some("default"));
        assert_eq!(matched.operation.body_paths, [BodyPath::Segment]);
    }

    #[test]
    fn allow_lists_the_methods_of_the_path() {
        let Matched::OtherMethods(allow) = Catalogue::builtin().find(&Method::PATCH, "/task")
        else {
            panic!("no path")
        };
        assert_eq!(&*allow, "GET, HEAD, POST");
    }

    #[test]
    fn ids_are_unique_and_places_are_read() {
        let rows = Catalogue::builtin().operations();
        let ids: std::collections::HashSet<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), rows.len());
        assert_eq!(
            BodyPath::parse("startInstructions[].variables"),
            BodyPath::Map(vec![
                Step {
                    member: "startInstructions",
                    each: true
                },
                Step {
                    member: "variables",
                    each: false
                }
            ])
        );
        assert_eq!(
            BodyPath::parse("deletions[].name"),
            BodyPath::NamedObjects(vec![Step {
                member: "deletions",
                each: false
            }])
        );
        assert_eq!(
            BodyPath::parse("deletions[]"),
            BodyPath::Names(vec![Step {
                member: "deletions",
                each: false
            }])
        );
    }
}
