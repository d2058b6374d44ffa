//! The `bpmgate` binary: parses the command line and runs it.

use std::process::ExitCode;

/// A request makes and drops some sixty small things, of which the system's allocator is slow for those over a
/// kilobyte; and what many connections have used at once is given back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    bpmgate::cli::run()
}
