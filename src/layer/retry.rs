//! Tries again where that cannot do a thing twice.
//!
//! Any request of which not a byte was sent; and `GET` or `HEAD` without a body, which change nothing
//! at the engine. A start that was sent and got no answer is **not** sent again: the engine may have
//! started it. Long polls are never sent again: their workers ask anew by themselves. Waits grow from `backoff` by two each
//! time, with jitter; the deadline above bounds them all. A try goes rather to a node that the request was not tried on.
//!
//! All requests together have a [budget](RetryBudget) of tries, so that an engine that is full does not get several times as many.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Layer, Service};
use tracing::debug;

use crate::body::Body;
use crate::engine::EngineError;
use crate::engine::nodes::{SentTo, Tried};
use crate::metrics::Metrics;
use crate::operation::Matched;
use crate::problem::Problem;
use crate::request_info::RequestIds;
use crate::worker;

/// Repeats what may be repeated.
#[derive(Debug, Clone)]
pub struct RetryLayer(Arc<Rules>);

#[derive(Debug, Clone)]
struct Rules {
    attempts: u32,
    backoff: Duration,
    budget: Option<RetryBudget>,
    metrics: Option<Metrics>,
}

/// How many tries beyond the first all requests of ten seconds may have together. Clones share it.
///
/// Each worker has its own share, as the account needs a lock.
#[derive(Debug, Clone)]
pub struct RetryBudget(Arc<[Share]>);

#[derive(Debug)]
#[repr(align(128))]
struct Share(TpsBudget);

impl RetryBudget {
    /// So many for a hundred requests, and so many a second beside; for requests that come on so many `workers` threads.
    #[must_use]
    pub fn new(percent: u8, floor_per_second: u32, workers: usize) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let of_worker = floor_per_second.div_ceil(workers.max(1));
        let floors = (0..=workers).map(|worker| match worker {
            // Where there are no workers, and for what the gateway asks itself.
            0 => floor_per_second,
            _ => of_worker,
        });
        let percent = f32::from(percent.min(100)) / 100.0;
        let share = |floor: u32| Share(TpsBudget::new(WINDOW, floor.min(MAX_FLOOR), percent));
        Self(floors.map(share).collect())
    }

    fn of_this_worker(&self) -> Option<&TpsBudget> {
        let share = self.0.get(worker::current()).or(self.0.first())?;
        Some(&share.0)
    }

    fn deposit(&self) {
        if let Some(budget) = self.of_this_worker() {
            budget.deposit();
        }
    }

    fn withdraw(&self) -> bool {
        self.of_this_worker().is_none_or(TpsBudget::withdraw)
    }
}

const WINDOW: Duration = Duration::from_secs(10);
/// The greatest of `engine.retry.budget_floor`.
pub const MAX_FLOOR: u32 = 1_000_000;

impl RetryLayer {
    /// Sends a request again at most `attempts` times; 0 is never.
    #[must_use]
    pub fn new(attempts: u32, backoff: Duration) -> Self {
        Self(Arc::new(Rules {
            attempts,
            backoff,
            budget: None,
            metrics: None,
        }))
    }

    /// Sends nothing again that is not in this budget.
    #[must_use]
    pub fn with_budget(self, budget: RetryBudget) -> Self {
        self.with(|rules| rules.budget = Some(budget))
    }

    /// Counts what is sent again.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        self.with(|rules| rules.metrics = Some(metrics))
    }

    fn with(self, change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Arc::unwrap_or_clone(self.0);
        change(&mut rules);
        Self(Arc::new(rules))
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            rules: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct Retry<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = EngineError>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = Retried<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rules = &self.rules;
        if rules.attempts == 0 {
            return Retried {
                again: None,
                state: RetryState::First {
                    future: self.inner.call(request),
                },
            };
        }
        if let Some(budget) = &rules.budget {
            budget.deposit();
        }
        let spare = is_repeatable(&request).then(|| Spare::of(&request));
        let next = self.inner.clone();
        let mut engine = std::mem::replace(&mut self.inner, next);
        let future = engine.call(request);
        Retried {
            again: Some(Again {
                rules: rules.clone(),
                spare,
                engine,
            }),
            state: RetryState::First { future },
        }
    }
}

pin_project! {
    /// The future of [`Retry`]: boxed only where something is sent again.
    pub struct Retried<S>
    where
        S: Service<Request<Body>>,
    {
        again: Option<Again<S>>,
        #[pin]
        state: RetryState<S::Future>,
    }
}

pin_project! {
    #[project = RetryProjection]
    enum RetryState<F> {
        First { #[pin] future: F },
        Again { future: Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>> },
    }
}

impl<S> Future for Retried<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = EngineError> + Send + 'static,
    S::Future: Send,
{
    type Output = Result<Response<Body>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let RetryProjection::First { future } = this.state.as_mut().project() {
            let error = match ready!(future.poll(cx)) {
                Ok(answer) => return Poll::Ready(Ok(answer)),
                Err(error) => error,
            };
            let Some(again) = this.again.take() else {
                return Poll::Ready(Err(error.into()));
            };
            let future = Box::pin(again.send(error));
            this.state.set(RetryState::Again { future });
        }
        match this.state.project() {
            RetryProjection::Again { future } => future.as_mut().poll(cx),
            RetryProjection::First { .. } => Poll::Pending,
        }
    }
}

impl<S: Service<Request<Body>>> std::fmt::Debug for Retried<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retried").finish_non_exhaustive()
    }
}

/// What a request is sent again with.
struct Again<S> {
    rules: Arc<Rules>,
    spare: Option<Spare>,
    engine: S,
}

impl<S> Again<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = EngineError>,
{
    /// Sends it until there is an answer or it may not be sent again.
    async fn send(mut self, mut error: EngineError) -> Result<Response<Body>, Problem> {
        let rules = &self.rules;
        let mut tried = Tried::default();
        for attempt in 1..=rules.attempts {
            tried.add(error.node);
            let mut again = match (error.unsent, &self.spare) {
                (Some(unsent), _) if is_long_poll(&unsent) => return Err(error.problem),
                (Some(unsent), _) => *unsent,
                (None, Some(spare)) if error.problem == Problem::EngineUnreachable => {
                    spare.to_request()
                }
                (None, _) => return Err(error.problem),
            };
            let ids = RequestIds::at_debug(again.extensions());
            let (request_id, trace_id) = (ids.request(), ids.trace());
            let metrics = rules.metrics.as_ref();
            let budget = rules.budget.as_ref();
            if budget.is_some_and(|budget| !budget.withdraw()) {
                if let Some(metrics) = metrics {
                    metrics.withheld_retry();
                }
                debug!(attempt, request_id, trace_id, "no try left in the budget");
                return Err(error.problem);
            }
            // Rather on another node.
            again.extensions_mut().insert(tried);
            if let Some(metrics) = metrics {
                metrics.retried();
            }
            debug!(attempt, request_id, trace_id, "trying the engine again");
            tokio::time::sleep(jittered(rules.backoff, attempt)).await;
            std::future::poll_fn(|cx| self.engine.poll_ready(cx)).await?;
            error = match self.engine.call(again).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
        }
        Err(error.into())
    }
}

fn is_repeatable(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream()
}

fn is_long_poll(request: &Request<Body>) -> bool {
    matches!(
        request.extensions().get(),
        Some(Matched::Operation(found)) if found.operation.is_long_poll()
    )
}

/// What a request without a body can be made of again. Nearly every one is thrown away: to write the values one after the
/// other costs less than half of what it costs to count who else holds each.
struct Spare {
    method: Method,
    uri: Uri,
    /// Each with the end of its value.
    names: Vec<(HeaderName, usize)>,
    values: Vec<u8>,
    ids: RequestIds,
    sent_to: Option<SentTo>,
}

impl Spare {
    fn of(request: &Request<Body>) -> Self {
        let headers = request.headers();
        let mut values = Vec::with_capacity(512);
        let named = headers.iter().map(|(name, value)| {
            values.extend_from_slice(value.as_bytes());
            (name.clone(), values.len())
        });
        Self {
            names: named.collect(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            values,
            ids: RequestIds::at_debug(request.extensions()),
            sent_to: request.extensions().get().cloned(),
        }
    }

    fn to_request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        let mut begin = 0;
        for (name, end) in &self.names {
            let value = self.values.get(begin..*end).map(HeaderValue::from_bytes);
            if let Some(Ok(mut value)) = value {
                value.set_sensitive(*name == AUTHORIZATION);
                request.headers_mut().append(name, value);
            }
            begin = *end;
        }
        self.ids.put_into(request.extensions_mut());
        if let Some(sent_to) = &self.sent_to {
            request.extensions_mut().insert(sent_to.clone());
        }
        request
    }
}

/// Between a half and the whole of `backoff * 2^(attempt - 1)`, so that many callers do not come together.
fn jittered(backoff: Duration, attempt: u32) -> Duration {
    let whole = backoff.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
    // The low bits of a fresh UUIDv7 are random.
    let random = f64::from(uuid::Uuid::now_v7().as_fields().3[7]) / 255.0;
    whole.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::MatchOperationLayer;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tower::ServiceExt;

    async fn tries(method: Method, body: Body, sent: bool) -> (u32, Result<(), Problem>) {
        let count = Arc::new(AtomicU32::new(0));
        let seen = count.clone();
        let engine = tower::service_fn(move |request: Request<Body>| {
            seen.fetch_add(1, Ordering::Relaxed);
            let unsent = (!sent).then(|| Box::new(request));
            let problem = Problem::EngineUnreachable;
            async {
                Err::<Response<Body>, _>(EngineError {
                    problem,
                    unsent,
                    node: 0,
                    source: None,
                })
            }
        });
        let request = Request::builder().method(method).body(body).unwrap();
        let metrics = Metrics::default();
        let layer = RetryLayer::new(3, Duration::from_millis(500)).with_metrics(metrics.clone());
        let answer = layer.layer(engine).oneshot(request).await;
        assert_eq!(
            metrics.retries() + 1,
            u64::from(count.load(Ordering::Relaxed))
        );
        (count.load(Ordering::Relaxed), answer.map(drop))
    }

    #[test]
    fn waits_double_and_are_spread_between_a_half_and_the_whole() {
        let backoff = Duration::from_millis(500);
        for (attempt, whole) in [(1, 500), (2, 1000), (3, 2000), (10, 256_000)] {
            let whole = Duration::from_millis(whole);
            let waits: Vec<_> = (0..300).map(|_| jittered(backoff, attempt)).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*least >= whole / 2 && *most <= whole, "{least:?} {most:?}");
            // Each eighth of the range is hit: that none of 300 is in one has a chance of 1 in 10^17.
            for eighth in 0..8 {
                let from = whole / 2 + whole / 16 * eighth;
                let hit = |wait: &&Duration| (from..=from + whole / 16).contains(*wait);
                assert!(waits.iter().any(|wait| hit(&wait)), "{from:?}");
            }
        }
        assert_eq!(jittered(Duration::ZERO, 3), Duration::ZERO);
        // What overflows waits long, and does not panic.
        assert!(jittered(Duration::from_secs(1), 200) > Duration::from_hours(1));
    }

    /// How many of so many failing requests are sent again at once.
    async fn repeated(layer: &RetryLayer, requests: u32) -> u64 {
        let metrics = Metrics::default();
        let layer = layer.clone().with_metrics(metrics.clone());
        for _ in 0..requests {
            let engine = tower::service_fn(|request: Request<Body>| async {
                Err::<Response<Body>, _>(EngineError {
                    problem: Problem::EngineUnreachable,
                    unsent: Some(Box::new(request)),
                    node: 0,
                    source: None,
                })
            });
            let answer = layer.layer(engine).oneshot(Request::new(Body::empty()));
            assert!(answer.await.is_err());
        }
        assert_eq!(
            metrics.retries() + metrics.retries_withheld(),
            u64::from(requests)
        );
        metrics.retries()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_sent_again_than_the_budget_has() {
        for (percent, floor, requests, want) in [
            (20, 0, 100, 20),
            (0, 0, 100, 0),
            (100, 0, 100, 100),
            (0, 1, 100, 10),
            (20, 1, 100, 30),
        ] {
            let budget = RetryBudget::new(percent, floor, 4);
            let layer = RetryLayer::new(1, Duration::ZERO).with_budget(budget);
            let count = repeated(&layer, requests).await;
            assert_eq!(count, want, "{percent} % and {floor} a second");
            // It is that of ten seconds.
            tokio::time::advance(WINDOW * 2).await;
            assert_eq!(repeated(&layer, requests).await, want);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_polls_are_never_sent_again() {
        for (path, want) in [
            ("/engine-rest/external-task/fetchAndLock", 1),
            ("/engine-rest/message", 4),
        ] {
            let count = Arc::new(AtomicU32::new(0));
            let seen = count.clone();
            let engine = tower::service_fn(move |request: Request<Body>| {
                seen.fetch_add(1, Ordering::Relaxed);
                async {
                    Err::<Response<Body>, _>(EngineError {
                        problem: Problem::EngineUnreachable,
                        unsent: Some(Box::new(request)),
                        node: 0,
                        source: None,
                    })
                }
            });
            let request = Request::post(path).body(Body::empty()).unwrap();
            let prefixes = vec!["/engine-rest".to_owned()];
            let service = MatchOperationLayer::new(prefixes)
                .layer(RetryLayer::new(3, Duration::ZERO).layer(engine));
            assert!(service.oneshot(request).await.is_err());
            assert_eq!(count.load(Ordering::Relaxed), want, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_is_repeated_only_for_get_and_head() {
        for (method, body, sent, want) in [
            (Method::POST, Body::from(bytes::Bytes::from("{}")), true, 1),
            (Method::POST, Body::empty(), true, 1),
            (Method::PUT, Body::empty(), true, 1),
            (Method::DELETE, Body::empty(), true, 1),
            (Method::GET, Body::from(bytes::Bytes::from("x")), true, 1),
            (Method::GET, Body::empty(), true, 4),
            (Method::HEAD, Body::empty(), true, 4),
            (Method::POST, Body::from(bytes::Bytes::from("{}")), false, 4),
        ] {
            let (tries, answer) = tries(method.clone(), body, sent).await;
            assert_eq!(
                (tries, answer),
                (want, Err(Problem::EngineUnreachable)),
                "{method} {sent}"
            );
        }
    }
}
