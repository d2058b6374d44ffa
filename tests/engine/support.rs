//! What the tests stand on: an engine, a gateway, an issuer, all of them real.

pub(crate) mod engine;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod jar;
pub(crate) mod model;
pub(crate) mod raw;
pub(crate) mod target;

pub(crate) use engine::Engine;
pub(crate) use gateway::Gateway;
pub(crate) use issuer::{Issuer, Person};
pub(crate) use target::Target;

/// How long anything that must come may take before the test fails: generous, as a wait ends with
/// what it waits for.
pub(crate) const DEADLINE: std::time::Duration = std::time::Duration::from_mins(1);
