//! The acceptance tests: the gateway's own binary in front of a real Operaton, some in front of a real Camunda 7 too.
//!
//! They need a JDK 17 and Maven, so they are built with the feature `acceptance` alone
//! (`make test` switches it on). Each engine is started once for all of them; each test deploys
//! models of its own and looks at nothing else.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at what it did not expect, also where it is set up, and says what it saw"
)]

mod access;
mod captures;
mod catalogue;
mod check;
mod events;
mod later;
mod model;
mod openapi;
mod review;
mod starts;
mod support;
mod tricks;
mod workflow;
