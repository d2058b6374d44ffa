//! `bpmgate serve`: runs the gateway until it is told to stop.

use super::{Failure, tell_warnings};
use crate::config::Loaded;

/// Runs the gateway.
#[expect(clippy::needless_pass_by_value, reason = "the gateway keeps it")]
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    tell_warnings(&loaded.warnings);
    Err(Failure::Running("not built yet".into()))
}
