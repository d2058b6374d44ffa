//! What goes wrong, on either side and in the machine: `make test-faults` runs all of it, and `docs/faults.md` has what each shows.

mod clients;
mod connections;
mod crowds;
mod engine;
mod issuer;
#[cfg(target_os = "linux")]
mod machine;
mod nodes;
mod soak;
