//! `bpmgate demo`: a development issuer, an engine and the gateway on this machine.

use super::Failure;
use crate::config::HttpUrl;

/// Runs the demo, with the engine at `engine` or a small one in memory.
pub(super) fn run(_engine: Option<HttpUrl>) -> Result<(), Failure> {
    Err(Failure::Running("not built yet".into()))
}
