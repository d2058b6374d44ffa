//! The `bpmgate` binary: parses the command line and runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bpmgate::cli::run()
}
