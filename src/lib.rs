//! bpmgate: an authenticating gateway for Camunda-7-family BPMN engines.
#![forbid(unsafe_code)]

pub mod access;
pub mod body;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "fetch")]
pub mod engine;
pub mod forwarded;
#[cfg(feature = "fetch")]
pub mod gateway;
pub mod identity;
pub mod initiator;
pub mod layer;
pub mod operation;
pub mod path;
pub mod problem;
pub mod request_info;
#[cfg(feature = "server")]
pub mod server;
pub mod splice;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod telemetry;
pub mod token;

pub use identity::Identity;
pub use problem::Problem;
