//! bpmgate

#[cfg(feature = "server")]
pub mod config;
