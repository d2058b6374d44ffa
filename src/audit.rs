//! The audit log: who did what, one JSON line for each operation that writes and for each that was denied.
//!
//! Pure but for [`AuditLog`], which writes. [`AuditLayer`](crate::layer::AuditLayer) makes a [`Record`] of
//! each request and hands it over when the answer's body has ended. `docs/audit.md` describes the record
//! for its readers; a test compares the two.
//!
//! A record never holds a token, a variable's name or a variable's value. What the caller wrote into it
//! (ids, business keys, names) is cut to [`MAX_TEXT_CHARS`].

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::identity::Identity;
use crate::operation::Match;

mod answer;
mod log;

pub use answer::{Instance, instances};
pub use log::{AuditLog, PATIENCE, PAUSE, QUEUE, Slot, Status, Target};

/// The longest text of the caller's in a record, in characters: as much as the engine's columns hold.
pub const MAX_TEXT_CHARS: usize = 255;

/// One line of the audit log. What is not known, or does not apply, is left out of the line.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Record {
    /// When the request came: RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The request's id, which the access log, the client and the engine have too.
    pub request_id: String,
    /// The trace that it belongs to, as in the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The code of the problem that the gateway answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether the engine's answer reached its end; `false` if it broke off or the client went away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// From the request's head to the end of the answer, in milliseconds.
    pub duration_ms: f64,
    /// The token's issuer.
    pub issuer: String,
    /// The caller's id, the issuer's `id_prefix` included: what is written as initiator.
    pub subject: String,
    /// Who acts as the subject, if the token is an impersonation: the `sub` of its claim `act` (RFC 8693
    /// §4.1); empty if the claim does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The profile that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The place of the access rule that chose the profile, from 0; left out for the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The operation's id; left out where the request is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// The operation's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'static str>,
    /// What the operation does, as in the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The HTTP method.
    pub method: String,
    /// The normalized path without its query, where the request is no operation of the catalogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The engine's name, where the path was `/engine/{name}/...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The path's parameters by their names in the catalogue (`key`, `id`, ...); never a variable's name.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "map")]
    pub params: Vec<(&'static str, String)>,
    /// The body's `businessKey`, where the gateway has read the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    /// The name of the message or signal in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Why, in the caller's words, where the engine has no place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The instances that the engine's answer names: started ones with their definition, others without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Whether the answer was longer than what was looked at, so that `instances` may lack some.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub instances_cut: bool,
    /// Whether the engine started another definition than the one whose model was asked for, so that the model's
    /// own initiator may be missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub model_changed: bool,
    /// The client's address; a trusted proxy's word is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The engine has answered; `status` is its.
    Forwarded,
    /// Access or the protection of the initiator refused it; the engine never saw it.
    Denied,
    /// The gateway answered with another problem; `code` says which, and by that whether the engine may have seen it.
    Failed,
    /// The client went away before there was an answer; the engine may have carried it out all the same.
    Abandoned,
}

impl Record {
    /// What is known when a request comes: who sends it and how. Its outcome is [`Outcome::Abandoned`] until
    /// something else is known.
    #[must_use]
    pub fn new(time: SystemTime, request_id: &str, caller: &Identity, method: &str) -> Self {
        Self {
            time,
            request_id: request_id.to_owned(),
            trace_id: None,
            outcome: Outcome::Abandoned,
            code: None,
            status: None,
            complete: None,
            duration_ms: 0.0,
            issuer: caller.issuer().to_owned(),
            subject: caller.id().to_owned(),
            actor: actor(caller),
            profile: None,
            rule: None,
            operation: None,
            group: None,
            kind: None,
            method: cut(method),
            path: None,
            engine: None,
            params: Vec::new(),
            business_key: None,
            event: None,
            reason: None,
            instances: Vec::new(),
            instances_cut: false,
            model_changed: false,
            client: None,
        }
    }

    /// Takes over what the catalogue and the path say.
    pub fn set_operation(&mut self, matched: &Match) {
        let operation = matched.operation;
        self.operation = Some(operation.id);
        self.group = Some(operation.group);
        self.kind = Some(operation.kind.as_str());
        self.engine = matched.engine_name.as_deref().map(cut);
        self.params = matched
            .params
            .iter()
            .filter(|(name, _)| *name != VARIABLE)
            .map(|(name, value)| (*name, cut(value)))
            .collect();
    }
}

/// The parameter that names a variable.
const VARIABLE: &str = "varName";

/// Cuts a text to [`MAX_TEXT_CHARS`].
#[must_use]
pub fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// RFC 8693 §4.1: the outermost `act` is who acts now; those inside it acted before.
fn actor(caller: &Identity) -> Option<String> {
    let act = caller.claims().get("act")?;
    let subject = act.get("sub").and_then(serde_json::Value::as_str);
    Some(subject.map(cut).unwrap_or_default())
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn map<S: Serializer>(params: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(params.iter().map(|(name, value)| (name, value)))
}

#[cfg(test)]
mod tests;
