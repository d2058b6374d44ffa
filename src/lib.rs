//! bpmgate: an authenticating gateway for Camunda-7-family BPMN engines.
#![forbid(unsafe_code)]

pub mod access;
pub mod identity;
pub mod initiator;
pub mod layer;
pub mod operation;
pub mod problem;
pub mod splice;

pub use identity::Identity;
pub use problem::Problem;
