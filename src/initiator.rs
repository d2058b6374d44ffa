//! Decides what happens to a request so that the process knows who started it, and nobody else can say so.
//!
//! [`plan`] looks at the operation and its path; where the body matters, [`Rules::apply`] reads it once,
//! strictly ([`crate::splice`]), and returns the body to send. Where variables sit is what the catalogue
//! says (`body_paths`), never a list in code.
//!
//! *Protected names* are the three variables of [`Names`]. By kind of operation:
//!
//! | kind | what happens to protected names |
//! |---|---|
//! | `start`, and `evaluateCondition`, which only starts | removed from every map, the caller's written into the first |
//! | `start` without a place for variables (restarts) | refused, unless [`Restarts::Keep`] |
//! | `correlate` | removed from every map; with [`Messages::Inject`] then written into the first |
//! | `write_vars` by name: `{varName}`, `modifications`, `deletions`, `variables-async` | refused |
//! | `write_vars` otherwise, `evaluate` and every other kind that has maps | removed from every map |
//!
//! The last two rows stand under [`Settings::protect_later_writes`]. Why every map of a start: the
//! engine applies `startInstructions[].variables` after `variables`, so they would overwrite ours (engine
//! fact, "All ways to start an instance"). Why the value's type is not looked at: the engine stores any
//! type under the name, a file or a transient value too.
//!
//! In the same pass the members that the caller's profile may not use are refused, and in profiles that
//! act for oneself alone ([`Members::others`](crate::access::Members::others)) the members that must name the caller are compared,
//! and Java-serialized objects are refused.
//!
//! What it does not do: it takes no part in who may call the operation, and it does not look into
//! multipart bodies; of those only the variable's name in the path is checked, and the layer refuses them
//! to profiles that act for oneself alone.

use std::cell::RefCell;
use std::fmt;

use crate::access::Access;
use crate::identity::Identity;
use crate::json_string;
use crate::operation::{BodyPath, Encoding, Kind, Match, Operation, Step};
use crate::problem::Problem;
use crate::request_info::Findings;

mod body;
mod explain;

pub use explain::Protection;

/// How the initiator is written and protected (the table `[initiator]` of the configuration).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The variables' names.
    pub names: Names,
    /// What is written where the token has no email. Default: [`Missing::Empty`].
    pub missing: Missing,
    /// Messages and signals. Default: [`Messages::Protect`].
    pub messages: Messages,
    /// Whether protected names are kept from every later write. Default: `true`.
    pub protect_later_writes: bool,
    /// Restarts of ended instances. Default: [`Restarts::Deny`].
    pub restarts: Restarts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Names::default(),
            missing: Missing::default(),
            messages: Messages::default(),
            protect_later_writes: true,
            restarts: Restarts::default(),
        }
    }
}

/// The three variables' names; never empty, never two alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names([Box<str>; 3]);

/// Why names were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// A name is the empty text.
    #[error("a variable's name is empty, expected one like `initiator`")]
    Empty,
    /// Two variables have one name: the second would overwrite the first.
    #[error("`{0}` is named for two variables, expected three different names")]
    Alike(Box<str>),
}

/// What is written for an email that the token does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// The empty text.
    #[default]
    Empty,
    /// A variable that is null.
    Null,
    /// Nothing; the caller's own is removed all the same.
    Omit,
    /// The request is refused.
    Reject,
}

/// What becomes of the initiator in messages and signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Messages {
    /// Removed: a running instance that is hit keeps its own.
    #[default]
    Protect,
    /// Removed, and the caller's written: right where messages only start instances.
    Inject,
}

/// What becomes of requests that start copies of old instances, with the old initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restarts {
    /// Refused.
    #[default]
    Deny,
    /// Passed: the copies keep the old initiator.
    Keep,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Plan {
    /// Nothing: it passes, its body unread.
    Pass,
    /// It ends here; its body need not be read.
    Refuse(Problem),
    /// Its body is read by these rules.
    Rewrite(Rules),
}

/// How the body of one operation is read and changed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    operation: &'static Operation,
    treatment: Treatment,
}

/// What came of reading a body.
#[derive(Debug)]
pub struct Applied {
    /// The body to send in its place, if it is another.
    pub body: Option<Vec<u8>>,
    /// The names that were meant, each once.
    pub seen: Vec<Box<str>>,
}

/// What happens to protected names in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Nothing.
    Leave,
    /// Removed, or refused where the body edits by name.
    Protect,
    /// Removed, and the caller's written into this place, a member of the top level.
    Write(&'static str),
}

impl Names {
    /// The names of the variables for the caller's id, email and name.
    ///
    /// # Errors
    /// [`NamesError`] where one is empty or two are alike.
    pub fn new(id: &str, email: &str, name: &str) -> Result<Self, NamesError> {
        if [id, email, name].contains(&"") {
            return Err(NamesError::Empty);
        }
        if id == email || id == name {
            return Err(NamesError::Alike(id.into()));
        }
        if email == name {
            return Err(NamesError::Alike(email.into()));
        }
        Ok(Self([id.into(), email.into(), name.into()]))
    }

    /// Whether a variable's name, unescaped, is one of these. Exact, as in the engine.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| **known == *name)
    }
}

/// For people: `` `initiator`, `initiatorEmail`, `initiatorName` ``.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([id, email, name]) = self;
        write!(f, "`{id}`, `{email}`, `{name}`")
    }
}

/// `initiator`, `initiatorEmail`, `initiatorName`.
impl Default for Names {
    fn default() -> Self {
        Self(["initiator", "initiatorEmail", "initiatorName"].map(Into::into))
    }
}

/// Says what to do with a request, from its operation and path alone.
#[must_use]
pub fn plan(settings: &Settings, matched: &Match) -> Plan {
    let operation = matched.operation;
    if operation.body_paths.contains(&BodyPath::Segment) && settings.protect_later_writes {
        match matched.param("varName") {
            Some(name) if settings.names.contains(name) => {
                return Plan::Refuse(Problem::ProtectedVariable(name.into()));
            }
            Some(_) => {}
            None => return Plan::Refuse(Problem::Misconfigured("no `varName` in the path")),
        }
    }
    if operation.kind == Kind::Start && operation.body_paths.is_empty() {
        return match settings.restarts {
            Restarts::Deny => Plan::Refuse(Problem::CannotAttribute(operation.id)),
            Restarts::Keep => Plan::Pass,
        };
    }
    if operation.encoding != Encoding::Json || !operation.reads_body() {
        return Plan::Pass;
    }
    let writes = match operation.kind {
        Kind::Start => true,
        Kind::Correlate => operation.id == CONDITION || settings.messages == Messages::Inject,
        Kind::Read
        | Kind::WriteVars
        | Kind::Evaluate
        | Kind::ActAs
        | Kind::Admin
        | Kind::Delete
        | Kind::Other => false,
    };
    let treatment = if writes {
        match first_map(operation) {
            Some(member) => Treatment::Write(member),
            None => return Plan::Refuse(Problem::CannotAttribute(operation.id)),
        }
    } else if operation.kind == Kind::Correlate || settings.protect_later_writes {
        Treatment::Protect
    } else {
        Treatment::Leave
    };
    Plan::Rewrite(Rules {
        operation,
        treatment,
    })
}

impl Rules {
    /// Reads a request's body and returns the one to send in its place, or `None` to send it as it is.
    ///
    /// An empty body is read as `{}`, as by the engine. `model` are the initiator variables of the process's
    /// own model: written with the caller's id, and protected, as the three names are. What an audit wants to
    /// know of the body is noted in `findings`.
    ///
    /// # Errors
    /// [`Problem::BodyInvalid`] where the body is not the JSON that the engine would read in one way only,
    /// [`Problem::ProtectedVariable`] and [`Problem::AccessDenied`] where it holds what may not be sent,
    /// [`Problem::TokenInvalid`] where the token has no email and [`Missing::Reject`] asks for one.
    pub fn apply(
        &self,
        settings: &Settings,
        identity: &Identity,
        access: &Access,
        model: &[Box<str>],
        findings: Option<&Findings>,
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, Problem> {
        self.apply_and_see(settings, identity, access, model, |_| false, findings, body)
            .map(|applied| applied.body)
    }

    /// The same, and the names that stand where names are protected, are not protected themselves, and that
    /// `is_meant` means.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own")]
    pub fn apply_and_see(
        &self,
        settings: &Settings,
        identity: &Identity,
        access: &Access,
        model: &[Box<str>],
        is_meant: impl Fn(&str) -> bool,
        findings: Option<&Findings>,
        body: &[u8],
    ) -> Result<Applied, Problem> {
        let seen: RefCell<Vec<Box<str>>> = RefCell::default();
        let protects = |name: &str| {
            if settings.names.contains(name) || model.iter().any(|known| **known == *name) {
                return true;
            }
            if is_meant(name) {
                let mut seen = seen.borrow_mut();
                if !seen.iter().any(|known| **known == *name) {
                    seen.push(name.into());
                }
            }
            false
        };
        let written = match self.treatment {
            Treatment::Write(_) => variables(settings, identity, model)?,
            Treatment::Protect | Treatment::Leave => String::new(),
        };
        let body = if body.is_empty() { b"{}" } else { body };
        let edited = body::Walk {
            rules: *self,
            is_protected: &protects,
            identity,
            access,
            written: &written,
            findings,
        }
        .run(body)?;
        Ok(Applied {
            body: edited,
            seen: seen.into_inner(),
        })
    }
}

/// The members that say who the caller is, as JSON: `"initiator":{"value":"alice","type":"String"},…`.
fn variables(
    settings: &Settings,
    identity: &Identity,
    model: &[Box<str>],
) -> Result<String, Problem> {
    let Names([id, email, name]) = &settings.names;
    let mut members = String::with_capacity(256);
    let mut push = |name: &str, value: Option<&str>| {
        if !members.is_empty() {
            members.push(',');
        }
        json_string::push(&mut members, name);
        match value {
            Some(value) => {
                members.push_str(r#":{"value":"#);
                json_string::push(&mut members, value);
                members.push_str(r#","type":"String"}"#);
            }
            // Without a type: the engine infers Null (engine fact, "Inferred types").
            None => members.push_str(r#":{"value":null}"#),
        }
    };
    push(id, Some(identity.id()));
    match (identity.email(), settings.missing) {
        (Some(value), _) => push(email, Some(value)),
        (None, Missing::Empty) => push(email, Some("")),
        (None, Missing::Null) => push(email, None),
        (None, Missing::Omit) => {}
        (None, Missing::Reject) => {
            return Err(Problem::TokenInvalid(
                "it has no email, which is needed here",
            ));
        }
    }
    push(name, Some(identity.name()));
    // The engine would write its own account there.
    for name in model.iter().filter(|name| !settings.names.contains(name)) {
        push(name, Some(identity.id()));
    }
    Ok(members)
}

/// The first map, if it is a member of the top level, where it can be made when it is missing.
fn first_map(operation: &Operation) -> Option<&'static str> {
    operation.body_paths.iter().find_map(|path| match path {
        BodyPath::Map(steps) => match steps.as_slice() {
            [
                Step {
                    member,
                    each: false,
                },
            ] => Some(*member),
            _ => None,
        },
        BodyPath::Names(_) | BodyPath::NamedObjects(_) | BodyPath::Segment => None,
    })
}

/// `POST /condition`: of the kind `correlate`, and it does nothing but start instances.
const CONDITION: &str = "evaluateCondition";

#[cfg(test)]
mod tests;
