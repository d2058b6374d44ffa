//! From a verified token's claims to [`Identity`](crate::Identity): which claim is what.
//!
//! Acts after verification and never refuses for a missing email, name or role; it refuses only an id or
//! tenant that cannot be taken as it is, because changing one would make two people one.
//!
//! A *path* is a claim's name, or names joined by dots that reach inside objects. A claim whose whole name
//! is the path is taken before dots are followed (`https://example.com/roles` is one name).

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::identity::Parts;

/// The longest id or tenant, prefix included, in bytes: what the engine's columns hold.
pub const MAX_ID_BYTES: usize = 255;

/// The longest email or name, in characters: what the engine's text columns hold; the rest is cut.
pub const MAX_TEXT_CHARS: usize = 4000;

/// Where in a token the caller's properties stand. Of each list the first claim present wins; a text
/// that is null or empty counts as absent, so the next is looked at. All claims of `roles` count.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimPaths {
    /// The id; default `sub`.
    pub id: Vec<String>,
    /// The email; default `email`.
    pub email: Vec<String>,
    /// The full name; default `name`.
    pub name: Vec<String>,
    /// The first name; default `given_name`, `first_name`.
    pub first_name: Vec<String>,
    /// The last name; default `family_name`, `last_name`.
    pub last_name: Vec<String>,
    /// The roles; default `roles`, `realm_access.roles`.
    pub roles: Vec<String>,
    /// The tenant; default none.
    pub tenant: Vec<String>,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Self {
            id: list(&["sub"]),
            email: list(&["email"]),
            name: list(&["name"]),
            first_name: list(&["given_name", "first_name"]),
            last_name: list(&["family_name", "last_name"]),
            roles: list(&["roles", "realm_access.roles"]),
            tenant: Vec::new(),
        }
    }
}

/// Why a claim cannot be the caller's id or tenant. It is never changed to make it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadId {
    /// No claim of the configured paths is there.
    #[error("missing")]
    Missing,
    /// It is a number, null, a list or anything else but a string.
    #[error("no string")]
    NoString,
    /// It is the empty string.
    #[error("empty")]
    Empty,
    /// More than [`MAX_ID_BYTES`], the issuer's prefix included.
    #[error("{0} bytes long, more than {MAX_ID_BYTES}")]
    TooLong(usize),
    /// It holds a control character.
    #[error("with a control character")]
    Control,
}

/// Which of the two could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The id.
    #[error("the caller's id is {0}")]
    Id(BadId),
    /// The tenant.
    #[error("the caller's tenant is {0}")]
    Tenant(BadId),
}

/// Reads the parts of an identity out of verified claims.
///
/// # Errors
/// [`ClaimError`] if the id, or a tenant that is there, is none.
pub fn read(
    claims: &Arc<Map<String, Value>>,
    paths: &ClaimPaths,
    issuer: &Arc<str>,
    id_prefix: &str,
    expires: SystemTime,
) -> Result<Parts, ClaimError> {
    let id = first(claims, &paths.id).ok_or(ClaimError::Id(BadId::Missing))?;
    let id = read_id(id, id_prefix).map_err(ClaimError::Id)?;
    let tenant = first(claims, &paths.tenant)
        .map(|tenant| read_id(tenant, ""))
        .transpose()
        .map_err(ClaimError::Tenant)?;
    let first_name = first_text(claims, &paths.first_name);
    let last_name = first_text(claims, &paths.last_name);
    let name = first_text(claims, &paths.name)
        .or_else(|| join(first_name.as_deref(), last_name.as_deref()));
    Ok(Parts {
        issuer: Arc::clone(issuer),
        id,
        email: first_text(claims, &paths.email),
        name,
        first_name,
        last_name,
        roles: read_roles(claims, &paths.roles),
        tenant,
        expires,
        claims: Arc::clone(claims),
    })
}

/// The claim at a path: the one of that whole name, else the one that the dots lead to.
#[must_use]
pub fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        let (outer, inner) = path.split_once('.')?;
        inner
            .split('.')
            .try_fold(claims.get(outer)?, |value, name| {
                value.as_object()?.get(name)
            })
    })
}

fn first<'a>(claims: &'a Map<String, Value>, paths: &[String]) -> Option<&'a Value> {
    paths.iter().find_map(|path| at(claims, path))
}

fn read_id(value: &Value, prefix: &str) -> Result<String, BadId> {
    let id = value.as_str().ok_or(BadId::NoString)?;
    let length = prefix.len().saturating_add(id.len());
    if id.is_empty() {
        Err(BadId::Empty)
    } else if length > MAX_ID_BYTES {
        Err(BadId::TooLong(length))
    } else if id.chars().any(char::is_control) {
        Err(BadId::Control)
    } else {
        Ok([prefix, id].concat())
    }
}

fn first_text(claims: &Map<String, Value>, paths: &[String]) -> Option<String> {
    paths
        .iter()
        .filter_map(|path| at(claims, path)?.as_str())
        .map(clean)
        .find(|text| !text.is_empty())
}

fn clean(text: &str) -> String {
    text.chars()
        .filter(|sign| !sign.is_control())
        .take(MAX_TEXT_CHARS)
        .collect()
}

fn join(first: Option<&str>, last: Option<&str>) -> Option<String> {
    match (first, last) {
        (Some(first), Some(last)) => Some(clean(&format!("{first} {last}"))),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// The roles of all paths, each once: a string is one role, an array has one in each string, and an
/// object of objects has one in each name (ZITADEL: `{"admin": {"<organization>": "<domain>"}}`).
fn read_roles(claims: &Map<String, Value>, paths: &[String]) -> Vec<String> {
    let mut roles = Vec::<String>::new();
    let mut add = |role: &str| {
        if !role.is_empty() && !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    };
    for value in paths.iter().filter_map(|path| at(claims, path)) {
        match value {
            Value::String(role) => add(role),
            Value::Array(list) => list.iter().filter_map(Value::as_str).for_each(&mut add),
            Value::Object(members) => members
                .iter()
                .filter(|(_, grants)| grants.is_object())
                .for_each(|(role, _)| add(role)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    roles
}

#[cfg(test)]
mod tests;
