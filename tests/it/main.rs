//! The gateway over real sockets: a client on one side, an engine on the other, nothing in between mocked.
//!
//! One binary, because each one more costs a link; a module per subject. Needs nothing but Rust.

#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test ends at what it did not expect, also where it is set up"
)]

mod access;
mod admin;
mod apart;
mod audit;
mod check;
mod collector;
mod cors;
mod demo;
mod errors;
mod explain;
mod faults;
mod framing;
mod headers;
mod https;
mod initiator;
mod limits;
mod links;
mod log;
mod long_polls;
mod metrics;
mod models;
mod nodes;
mod problem;
mod reload;
mod routes;
mod serve;
mod shutdown;
mod streaming;
mod support;
mod tls;
mod tokens;
mod traces;
mod workflow;
