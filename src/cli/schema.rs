//! `bpmgate schema`: prints the JSON Schema of the configuration, for editors and generators.

use super::{Failure, print};
use crate::config::Config;

/// Prints the schema.
pub(super) fn run() -> Result<(), Failure> {
    let schema = Config::json_schema();
    print(&format_args!("{:#}\n", schema.as_value()))
}
