//! What is served now. A reload replaces it as a whole, and each connection notices that at its next request.
//!
//! A connection has a copy of its own, made when it begins and again when the generation is another than the copy's. So a request
//! pays for reloads with one relaxed load, and who is served already is served to the end by what he began with. A connection
//! without a request keeps what it had last, no longer than `server.limits.idle_connection`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;

use super::Limits;
use super::connection;

/// The stack of layers and the limits that hold now. Clones share it.
pub struct Current<S>(Arc<Shared<S>>);

struct Shared<S> {
    generation: AtomicU64,
    served: ArcSwap<Served<S>>,
}

/// What new connections and new requests get.
#[derive(Debug)]
pub(super) struct Served<S> {
    pub(super) stack: S,
    pub(super) limits: Limits,
    /// The protocols within these limits.
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl<S> Served<S> {
    fn new(stack: S, limits: Limits) -> Self {
        Self {
            http1: connection::http1(&limits),
            http2: connection::http2(&limits),
            stack,
            limits,
        }
    }
}

impl<S> Current<S> {
    pub(super) fn new(stack: S, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            generation: AtomicU64::new(0),
            served: ArcSwap::from_pointee(Served::new(stack, limits)),
        }))
    }

    /// From now on every request goes to this stack, whatever the connection; requests in flight are not touched. The number of
    /// connections at once stays what it was at the start.
    pub fn replace(&self, stack: S, limits: Limits) {
        self.0.served.store(Arc::new(Served::new(stack, limits)));
        // After the store, so that whoever sees it sees what was stored.
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn served(&self) -> Arc<Served<S>> {
        self.0.served.load_full()
    }

    /// Differs once what a copy was made of is no longer what is served.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }

    /// What is served, with a generation that is not newer: at worst a copy is made once more.
    pub(super) fn served_at(&self) -> (u64, Arc<Served<S>>) {
        let generation = self.0.generation.load(Ordering::Acquire);
        (generation, self.served())
    }
}

impl<S> Clone for Current<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for Current<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}
