//! `bpmgate completions`: prints what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{CommandLine, Failure, print};

/// Prints the completions for a shell.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    let mut command = CommandLine::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "bpmgate", &mut script);
    print(&String::from_utf8_lossy(&script))
}
