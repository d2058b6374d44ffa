//! The way to the engine: its nodes, one exchange over a pooled connection, and what can go wrong with it.

#[cfg(feature = "fetch")]
pub mod client;
#[cfg(feature = "fetch")]
mod connection;
pub mod health;
#[cfg(feature = "fetch")]
pub mod nodes;

use http::{Request, Response};
use tower::Service;

use crate::body::Body;
use crate::problem::Problem;

#[cfg(feature = "fetch")]
pub use client::{ClientIdentity, ClientSettings, EngineClient};
pub use health::{EngineHealth, HealthSettings};
#[cfg(feature = "fetch")]
pub use nodes::{BreakerSettings, Nodes};

/// What sends requests to the engine, from any thread: `EngineClient`, and each stack of layers over it. Every such service is one.
pub trait EngineService<E>:
    Service<Request<Body>, Response = Response<Body>, Error = E, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, E> EngineService<E> for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = E, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Why an exchange with the engine failed, and whether it may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct EngineError {
    /// What the client is told.
    pub problem: Problem,
    /// The request, where not a byte of it was sent: then, and only then, it may be sent again
    /// whatever it asks for.
    pub unsent: Option<Box<Request<Body>>>,
    /// The node that it was tried on, by its place; 0 where there is one.
    pub node: usize,
    /// The cause, for the log.
    #[source]
    pub source: Option<crate::body::BoxError>,
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        error.problem
    }
}
