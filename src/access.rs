//! Who may do what: rules choose a profile, and a profile allows operations.
//!
//! Pure: [`AccessRules::decide`] looks at the identity, the catalogue's row and the query's names, and
//! at nothing else. The first rule whose conditions all hold gives the profile, else the default does.
//! What a profile does not name is denied; a request that is no row of the catalogue passes for
//! `transparent` alone.
//!
//! A gateway that swaps any token for the engine's service account would turn every caller into that
//! account; deploying a process is running code on the engine. So `user` is a short list of what a
//! person at a task list does, and leaves out what only looks harmless (engine facts §11).

mod builtin;
mod object_types;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

pub use builtin::Builtin;
pub use object_types::ObjectTypes;

use crate::identity::{Identity, RulesId};
use crate::operation::{Catalogue, Guarded, Matched, Operation};
use crate::problem::Problem;
use crate::token::claims;

/// What the access check granted.
///
/// Put into the request's extensions by [`AuthorizeLayer`](crate::layer::AuthorizeLayer), read where
/// the body is read.
#[derive(Debug, Clone)]
pub struct Access {
    /// The name of the profile that allowed the operation.
    pub profile: Arc<str>,
    /// The place of the rule that chose it, from 0; `None` for the default.
    pub rule: Option<usize>,
    /// What of the request's members may be used.
    pub members: Members,
    /// The classes that `Object` variables may name.
    pub object_types: ObjectTypes,
}

/// What of a request's members a profile may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a permission of its own"
)]
pub struct Members {
    /// Members that skip steps of a process (`startInstructions`, `skipCustomListeners`, ...).
    pub skips: bool,
    /// Members that the engine evaluates as code (`...Expression`).
    pub expressions: bool,
    /// Users other than the caller in the operation's `user_fields`; else each of these must be there and
    /// be the caller's id.
    pub others: bool,
    /// Names and addresses of people, which HAL answers show.
    pub people: bool,
}

impl Members {
    /// Whether a guarded member of the catalogue may be used.
    #[must_use]
    pub fn may_use(self, guarded: Guarded) -> bool {
        match guarded {
            Guarded::Member(_) => self.skips,
            Guarded::Suffix(_) => self.expressions,
        }
    }
}

/// A profile: which operations its callers may use, and what of their members.
#[derive(Debug, Clone)]
pub struct Profile {
    name: Arc<str>,
    base: Builtin,
    members: Members,
    allow: BTreeSet<&'static str>,
    deny: BTreeSet<&'static str>,
    /// What comes of all that, by the row's place in the catalogue.
    allows: Arc<[bool]>,
}

/// A name in `allow` or `deny` that is neither an operation's id nor a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither the id of an operation nor a group")]
pub struct UnknownOperation(pub String);

impl Profile {
    /// A profile of one's own: `base` with some operations more and some less; `deny` beats `allow`, in every
    /// profile that it comes from too. Each
    /// name is an operation's id or a group of the catalogue.
    ///
    /// # Errors
    /// [`UnknownOperation`] for a name that is neither.
    pub fn new(
        name: impl Into<Arc<str>>,
        base: &Self,
        allow: &[String],
        deny: &[String],
    ) -> Result<Self, UnknownOperation> {
        let mut profile = Self {
            name: name.into(),
            ..base.clone()
        };
        profile.allow.extend(named(allow)?);
        profile.deny.extend(named(deny)?);
        Ok(profile.settled())
    }

    /// The name in the configuration and in answers.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Decides on every row once for all requests.
    fn settled(mut self) -> Self {
        let rows = Catalogue::builtin().operations();
        let allows = |row: &Operation| {
            !self.deny.contains(row.id) && (self.allow.contains(row.id) || self.base.allows(row))
        };
        self.members.people = rows.iter().any(|row| row.id == READS_PEOPLE && allows(row));
        self.allows = rows.iter().map(allows).collect();
        self
    }

    /// Whether the profile allows this row.
    #[must_use]
    pub fn allows(&self, operation: &Operation) -> bool {
        self.allows.get(operation.place) == Some(&true)
    }
}

impl From<Builtin> for Profile {
    fn from(base: Builtin) -> Self {
        let name = base.as_str().into();
        Self {
            name,
            base,
            members: base.members(),
            allow: BTreeSet::new(),
            deny: BTreeSet::new(),
            allows: Arc::default(),
        }
        .settled()
    }
}

/// Whom a rule means; all conditions that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// One of the caller's roles.
    pub role: Option<String>,
    /// A claim by name or by a path with dots, and what it must be; of an array one element.
    pub claim: Option<(String, String)>,
    /// The exact issuer.
    pub issuer: Option<String>,
    /// The exact id, `id_prefix` included.
    pub subject: Option<String>,
}

impl When {
    /// Whether the caller is meant. Without any condition nobody is.
    #[must_use]
    pub fn holds(&self, caller: &Identity) -> bool {
        let role = self.role.as_ref().map(|role| caller.roles().contains(role));
        let claim = self.claim.as_ref().map(|(path, wanted)| {
            claims::at(caller.claims(), path).is_some_and(|value| is_or_has(value, wanted))
        });
        let issuer = self.issuer.as_ref().map(|issuer| caller.issuer() == issuer);
        let subject = self.subject.as_ref().map(|subject| caller.id() == subject);
        let mut conditions = [role, claim, issuer, subject]
            .into_iter()
            .flatten()
            .peekable();
        conditions.peek().is_some() && conditions.all(|holds| holds)
    }
}

/// The configured access rules.
#[derive(Debug, Clone)]
pub struct AccessRules {
    /// Another one for each change of the rules.
    id: RulesId,
    rules: Vec<(When, Arc<Profile>)>,
    default: Arc<Profile>,
    object_types: ObjectTypes,
}

impl AccessRules {
    /// Every caller has this profile.
    #[must_use]
    pub fn new(default: impl Into<Profile>) -> Self {
        Self {
            id: RulesId::new(),
            rules: Vec::new(),
            default: Arc::new(default.into()),
            object_types: ObjectTypes::default(),
        }
    }

    /// Lets `Object` variables name these classes, in place of the harmless ones of the language.
    #[must_use]
    pub fn with_object_types(self, object_types: ObjectTypes) -> Self {
        Self {
            object_types,
            ..self
        }
    }

    /// Adds a rule behind those that are there: the first that holds counts.
    #[must_use]
    pub fn rule(mut self, when: When, profile: impl Into<Profile>) -> Self {
        self.rules.push((when, Arc::new(profile.into())));
        self.id = RulesId::new();
        self
    }

    /// The caller's profile, and the place of the rule that chose it.
    #[must_use]
    pub fn profile_of(&self, caller: &Identity) -> (&Profile, Option<usize>) {
        let holds = |(when, _): &(When, _)| when.holds(caller);
        let rule = caller.rule_by(self.id, || self.rules.iter().position(holds));
        match rule.and_then(|place| self.rules.get(place)) {
            Some((_, profile)) => (profile, rule),
            None => (&self.default, None),
        }
    }

    /// Decides one request; `query` is the raw query string, without its `?`.
    ///
    /// # Errors
    /// [`Problem::AccessDenied`] for an operation or a query member that the profile does not allow,
    /// [`Problem::NotFound`] and [`Problem::MethodNotAllowed`] for what is no row of the catalogue.
    pub fn decide(
        &self,
        caller: &Identity,
        matched: &Matched,
        query: Option<&str>,
    ) -> Result<Access, Problem> {
        let (profile, rule) = self.profile_of(caller);
        let members = profile.members;
        let access = Access {
            profile: profile.name.clone(),
            rule,
            members,
            object_types: self.object_types.clone(),
        };
        let operation = match matched {
            Matched::Operation(found) => found.operation,
            Matched::Unknown | Matched::OtherMethods(_) if profile.base == Builtin::Transparent => {
                return Ok(access);
            }
            Matched::Unknown => return Err(Problem::NotFound),
            Matched::OtherMethods(allow) => return Err(Problem::MethodNotAllowed(allow.clone())),
        };
        if !profile.allows(operation) {
            return Err(Problem::denied(operation.id, &profile.name));
        }
        match query.and_then(|query| guarded_name(operation, members, query)) {
            Some(member) => Err(Problem::denied_member(operation.id, &profile.name, &member)),
            None => Ok(access),
        }
    }
}

/// The engine takes an expression for many a parameter by its name with this at the end.
const EXPRESSIONS: Guarded = Guarded::Suffix("Expression");

/// Who may ask for people may see them in HAL answers too.
const READS_PEOPLE: &str = "getUserProfile";

/// The ids of the operations that are named, by id or by group.
fn named(names: &[String]) -> Result<BTreeSet<&'static str>, UnknownOperation> {
    let mut ids = BTreeSet::new();
    for name in names {
        let rows = Catalogue::builtin().operations().iter();
        let meant: Vec<_> = rows
            .filter(|row| row.id == name || row.group == name)
            .map(|row| row.id)
            .collect();
        if meant.is_empty() {
            return Err(UnknownOperation(name.clone()));
        }
        ids.extend(meant);
    }
    Ok(ids)
}

/// Whether a claim's value is the wanted text, or an array with such an element.
fn is_or_has(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Array(elements) => elements
            .iter()
            .any(|element| !element.is_array() && is_or_has(element, wanted)),
        Value::Bool(truth) => wanted == if *truth { "true" } else { "false" },
        Value::Number(number) => number.to_string() == wanted,
        Value::Null | Value::Object(_) => false,
    }
}

/// The first query parameter that needs more than the operation. Any read may carry an expression in
/// its query; in the table only those that take one in their body are marked.
fn guarded_name(operation: &Operation, members: Members, query: &str) -> Option<String> {
    let guards = operation.guarded.iter().chain([&EXPRESSIONS]);
    let guards = guards.filter(|guarded| !members.may_use(**guarded));
    form_urlencoded::parse(query.as_bytes())
        .map(|(name, _)| name)
        .find(|name| guards.clone().any(|guarded| guarded.matches(name)))
        .map(Cow::into_owned)
}

#[cfg(test)]
mod tests;
