//! Bounds the requests that one caller has in flight, so that no single token starves the others.
//!
//! The engine gives each request a thread until it is answered, and reads a body only as fast as the
//! client sends it (engine facts §6): without this, a few hundred slow uploads of one caller would
//! stop the engine for everybody. More is 429 `too_many_requests` with `Retry-After`.
//!
//! Stands below [`ExtractIdentityLayer`](super::ExtractIdentityLayer), without which it fails closed. A
//! request counts until its answer's body has ended where [`ObserveLayer`](super::ObserveLayer) stands
//! outermost, else until it is sent; and as long as its own body is still being sent. Long polls, which wait at the engine without a
//! thread of it, may be counted apart.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::{fast, quality};
use http::Request;

use super::checked::{Check, CheckLayer};
use crate::identity::Identity;
use crate::operation::looks_like_long_poll;
use crate::problem::Problem;
use crate::request_info::Findings;

/// The check of [`LimitCallerLayer`].
#[derive(Debug)]
pub struct LimitCaller {
    in_flight: usize,
    /// `None`: they count as all others.
    long_polls: Option<usize>,
    callers: Arc<Callers>,
}

/// How many requests each caller has in flight; who has none is not in it.
#[derive(Debug, Default)]
struct Callers {
    hasher: quality::RandomState,
    counts: Mutex<HashMap<u64, usize, fast::RandomState>>,
}

/// A request in flight; it counts until it is dropped.
#[derive(Debug, Clone)]
pub struct CallerPermit {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    caller: u64,
    callers: Arc<Callers>,
}

/// Lets each caller have so many requests in flight.
///
/// # Examples
/// ```
/// use bpmgate::{layer::LimitCallerLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let engine = tower::service_fn(|_: Request<()>| async { Ok::<_, Problem>(Response::new(())) });
/// let service = LimitCallerLayer::new(100).layer(engine);
/// // Nobody has verified a token here: it fails closed.
/// assert_eq!(service.oneshot(Request::new(())).await.unwrap_err().code(), "misconfigured");
/// # }
/// ```
pub type LimitCallerLayer = CheckLayer<LimitCaller>;

impl LimitCallerLayer {
    /// At most so many requests of one caller at once.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        Self::of(LimitCaller {
            in_flight,
            long_polls: None,
            callers: Arc::default(),
        })
    }

    /// The same, but for long polls, of which each caller may have so many beside the others.
    #[must_use]
    pub fn with_long_polls(in_flight: usize, long_polls: usize) -> Self {
        Self::of(LimitCaller {
            in_flight,
            long_polls: Some(long_polls),
            callers: Arc::default(),
        })
    }
}

impl Check for LimitCaller {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let extensions = request.extensions();
        let caller = extensions.get::<Identity>().ok_or(Problem::Misconfigured(
            "LimitCallerLayer needs ExtractIdentityLayer outside of it",
        ))?;
        let long_polls = self.long_polls;
        let long_polls = long_polls.filter(|_| looks_like_long_poll(request.uri().path()));
        // Two callers with one hash would share a limit, no more.
        let caller = (caller.issuer(), caller.id(), long_polls.is_some());
        let caller = self.callers.hasher.hash_one(caller);
        let limit = long_polls.unwrap_or(self.in_flight);
        let permit = self.admit(caller, limit).ok_or(Problem::TooManyRequests)?;
        match extensions.get::<Findings>() {
            Some(findings) => findings.note_permit(permit),
            None => drop(request.extensions_mut().insert(permit)),
        }
        Ok(())
    }
}

impl LimitCaller {
    fn admit(&self, caller: u64, limit: usize) -> Option<CallerPermit> {
        let mut counts = self
            .callers
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(CallerPermit {
            _held: Arc::new(Held {
                caller,
                callers: self.callers.clone(),
            }),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self
            .callers
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Parts;
    use std::time::SystemTime;

    fn request(id: &str) -> Request<()> {
        let mut request = Request::new(());
        let parts = Parts::new("https://issuer.example", id, SystemTime::now());
        request.extensions_mut().insert(Identity::new(parts));
        request
    }

    #[test]
    fn one_caller_more_than_the_limit_is_refused_and_others_are_not() {
        let limit = LimitCaller {
            in_flight: 2,
            long_polls: None,
            callers: Arc::default(),
        };
        let mut held = [request("alice"), request("alice")];
        for request in &mut held {
            limit.check(request).unwrap();
        }
        assert_eq!(
            limit.check(&mut request("alice")),
            Err(Problem::TooManyRequests)
        );
        limit.check(&mut request("bob")).unwrap();
        drop(held);
        assert!(limit.callers.counts.lock().unwrap().is_empty());
        limit.check(&mut request("alice")).unwrap();
    }

    #[test]
    fn long_polls_are_counted_apart() {
        let poll = || {
            let mut request = request("alice");
            *request.uri_mut() = http::Uri::from_static("/api/external-task/fetchAndLock");
            request
        };
        let limit = LimitCaller {
            in_flight: 1,
            long_polls: Some(2),
            callers: Arc::default(),
        };
        let mut held = [poll(), poll(), request("alice")];
        for request in &mut held {
            limit.check(request).unwrap();
        }
        for mut more in [poll(), request("alice")] {
            assert_eq!(limit.check(&mut more), Err(Problem::TooManyRequests));
        }
        drop(held);
        limit.check(&mut poll()).unwrap();
    }

    #[test]
    fn a_request_counts_until_it_has_been_reported() {
        let limit = LimitCaller {
            in_flight: 1,
            long_polls: None,
            callers: Arc::default(),
        };
        let findings = Findings::default();
        let mut first = request("alice");
        first.extensions_mut().insert(findings.clone());
        limit.check(&mut first).unwrap();
        drop(first);
        assert_eq!(
            limit.check(&mut request("alice")),
            Err(Problem::TooManyRequests)
        );
        drop(findings);
        limit.check(&mut request("alice")).unwrap();
    }
}
