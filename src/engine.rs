//! The way to the engine: one exchange over a pooled connection, and what can go wrong with it.

pub mod client;
mod connection;

use http::Request;

use crate::body::Body;
use crate::problem::Problem;

pub use client::{ClientIdentity, ClientSettings, EngineClient};

/// Why an exchange with the engine failed, and whether it may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct EngineError {
    /// What the client is told.
    pub problem: Problem,
    /// The request, where not a byte of it was sent: then, and only then, it may be sent again
    /// whatever it asks for.
    pub unsent: Option<Box<Request<Body>>>,
    /// The cause, for the log.
    #[source]
    pub source: Option<crate::body::BoxError>,
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        error.problem
    }
}
