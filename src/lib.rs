//! bpmgate: an authenticating gateway for Camunda-7-family BPMN engines.
#![forbid(unsafe_code)]

pub mod access;
pub mod body;
#[cfg(feature = "server")]
pub mod config;
pub mod forwarded;
pub mod identity;
pub mod layer;
pub mod operation;
pub mod path;
pub mod problem;
pub mod request_info;

pub use identity::Identity;
pub use problem::Problem;
