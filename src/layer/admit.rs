//! Bounds the requests in flight and the declared size of their bodies, before any work is done.
//!
//! A permit lives until the answer's **body** has ended; one that is whole in memory has none, as whoever does not
//! take it (HTTP/2, a window of 0) must not take a place from others. Where all are taken, a bounded number of requests
//! waits for its turn, in order and for a bounded time; more are 503 `overloaded` with `Retry-After`. Long polls, which the
//! engine may hold for 30 minutes, have permits of their own, and do not wait.
//!
//! A declared `Content-Length` over the limit is 413 at once. A request that names two
//! hosts, or none though its version asks for one, is 400 (RFC 9112 §3.2), and so is one with two lengths.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, Version};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::{Layer, Service};

use super::checked::CheckedLater;
use crate::body::{Body, Guarded};
use crate::metrics::Metrics;
use crate::operation::looks_like_long_poll;
use crate::problem::Problem;
use crate::request_info::Findings;
use crate::waiting::waiting;

/// Lets so many requests in at once.
///
/// # Examples
/// ```
/// use bpmgate::{layer::AdmitLayer, Problem};
/// use bpmgate::body::Body;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let hello = tower::service_fn(|_: Request<()>| async {
///     Ok::<_, Problem>(Response::new(Body::stream(Full::new(Bytes::from("hello")))))
/// });
/// let service = AdmitLayer::new(1, None).layer(hello);
/// let request = || Request::get("/task").header("host", "bpm.example.com").body(()).unwrap();
/// let first = service.clone().oneshot(request()).await.unwrap();
/// let second = service.clone().oneshot(request()).await;
/// assert_eq!(second.unwrap_err().code(), "overloaded");
/// drop(first);
/// assert!(service.oneshot(request()).await.is_ok());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct AdmitLayer(Arc<Limits>);

#[derive(Debug, Clone)]
struct Limits {
    permits: Arc<Semaphore>,
    max_body_bytes: Option<u64>,
    long_polls: Option<Arc<Semaphore>>,
    /// Places of those that wait.
    queue: Arc<Semaphore>,
    queue_timeout: Duration,
    metrics: Option<Metrics>,
}

impl AdmitLayer {
    /// At most `in_flight` requests at once, and no declared body over `max_body_bytes`. Nobody waits, and long polls are as others.
    #[must_use]
    pub fn new(in_flight: usize, max_body_bytes: Option<u64>) -> Self {
        Self(Arc::new(Limits {
            permits: permits(in_flight),
            max_body_bytes,
            long_polls: None,
            queue: permits(0),
            queue_timeout: Duration::ZERO,
            metrics: None,
        }))
    }

    /// Lets so many requests more wait for so long, instead of refusing them at once.
    #[must_use]
    pub fn with_queue(self, requests: usize, timeout: Duration) -> Self {
        self.with(|limits| {
            limits.queue = permits(requests);
            limits.queue_timeout = timeout;
        })
    }

    /// Gives long polls so many permits of their own.
    #[must_use]
    pub fn with_long_polls(self, at_once: usize) -> Self {
        self.with(|limits| limits.long_polls = Some(permits(at_once)))
    }

    /// Counts those that wait.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        self.with(|limits| limits.metrics = Some(metrics))
    }

    fn with(self, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Arc::unwrap_or_clone(self.0);
        change(&mut limits);
        Self(Arc::new(limits))
    }
}

fn permits(at_once: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)))
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            limits: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`AdmitLayer`].
#[derive(Debug, Clone)]
pub struct Admit<S> {
    limits: Arc<Limits>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Problem>,
    B: Send + 'static,
{
    type Response = Response<Guarded<Body>>;
    type Error = Problem;
    type Future = CheckedLater<Admitted<S::Future>, Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Err(problem) = self.limits.check_head(&request) {
            return CheckedLater::rejected(problem);
        }
        let limits = &self.limits;
        let long_polls = limits.long_polls.as_ref();
        let long_polls = long_polls.filter(|_| looks_like_long_poll(request.uri().path()));
        let permits = long_polls.unwrap_or(&limits.permits);
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return CheckedLater::passed(Admitted {
                permit: Some(permit),
                inner: self.inner.call(request),
            });
        }
        let place = limits.queue.clone().try_acquire_owned();
        let (None, Ok(place)) = (long_polls, place) else {
            return CheckedLater::rejected(Problem::Overloaded);
        };
        let limits = limits.clone();
        // The clone may not be ready; the one that was polled goes into the future.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        CheckedLater::waiting(async move {
            let findings = request.extensions().get::<Findings>().cloned();
            let permit = waiting(findings.as_ref(), limits.wait(place)).await?;
            let inner = ready.call(request);
            let permit = Some(permit);
            Admitted { permit, inner }.await
        })
    }
}

impl Limits {
    fn check_head<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if !has_one_host(request) {
            return Err(Problem::BadRequest(
                "The request must name its host once, in Host.",
            ));
        }
        let mut lengths = request.headers().get_all(CONTENT_LENGTH).iter();
        let declared = lengths
            .next()
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if lengths.next().is_some() {
            return Err(Problem::BadRequest(
                "The request must give its length once, in Content-Length.",
            ));
        }
        match (declared, self.max_body_bytes) {
            (Some(declared), Some(limit)) if declared > limit => Err(Problem::BodyTooLarge(limit)),
            _ => Ok(()),
        }
    }

    /// Waits for a permit; the place in the queue is free again when this ends.
    async fn wait(&self, _place: OwnedSemaphorePermit) -> Result<OwnedSemaphorePermit, Problem> {
        let _counted = self.metrics.as_ref().map(Metrics::queued);
        let permit = timeout(self.queue_timeout, self.permits.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(Problem::Overloaded)
    }
}

/// `Host` once, or the authority of the target alone; before HTTP/1.1 neither is asked for.
fn has_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = hosts.next().is_some() || request.uri().authority().is_some();
    (named || request.version() < Version::HTTP_11) && hosts.next().is_none()
}

pin_project! {
    /// The future of an admitted request; it holds the permit.
    #[derive(Debug)]
    pub struct Admitted<F> {
        permit: Option<OwnedSemaphorePermit>,
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for Admitted<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<Problem>,
{
    type Output = Result<Response<Guarded<Body>>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx)).map_err(Into::into)?;
        let permit = this.permit.take();
        if answer.body().is_whole() {
            return Poll::Ready(Ok(answer.map(Guarded::new)));
        }
        Poll::Ready(Ok(
            answer.map(|body| Guarded::new(body).on_end(move |_| drop(permit)))
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use tower::ServiceExt;

    type Answer = Result<Response<Guarded<Body>>, Problem>;

    /// A stack whose answers hold their permits until they are dropped.
    fn streams(
        layer: &AdmitLayer,
    ) -> impl Fn(&'static str) -> Pin<Box<dyn Future<Output = Answer>>> {
        let inner = tower::service_fn(|_: Request<()>| async {
            let body = Body::stream(Full::new(Bytes::from_static(b"x")));
            Ok::<_, Problem>(Response::new(body))
        });
        let service = layer.layer(inner);
        move |path| {
            let request = Request::post(path).header(HOST, "bpm.example.com");
            Box::pin(service.clone().oneshot(request.body(()).unwrap()))
        }
    }

    fn code(answer: Answer) -> &'static str {
        answer.err().map_or("served", |problem| problem.code())
    }

    const WAIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_turn_and_who_finds_no_place_is_refused() {
        let metrics = Metrics::default();
        let layer = AdmitLayer::new(1, None)
            .with_queue(2, WAIT)
            .with_metrics(metrics.clone());
        let send = streams(&layer);
        let first = send("/").await.unwrap();
        let (mut second, mut third) = (send("/"), send("/"));
        for waiting in [&mut second, &mut third] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        assert_eq!(metrics.requests_queued(), 2);
        assert_eq!(code(send("/").await), "overloaded");
        drop(first);
        assert!(futures_util::poll!(&mut third).is_pending(), "not its turn");
        let second = second.await.unwrap();
        assert_eq!(metrics.requests_queued(), 1);
        // Who gives up leaves the place to others.
        drop(third);
        assert_eq!(metrics.requests_queued(), 0);
        let mut fourth = send("/");
        assert!(futures_util::poll!(&mut fourth).is_pending());
        drop(second);
        assert_eq!(code(fourth.await), "served");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_too_long_is_refused() {
        let layer = AdmitLayer::new(1, None).with_queue(1, WAIT);
        let send = streams(&layer);
        let _first = send("/").await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(code(send("/").await), "overloaded");
        assert_eq!(began.elapsed(), WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn long_polls_and_others_take_no_place_from_each_other() {
        let layer = AdmitLayer::new(1, None)
            .with_queue(1, WAIT)
            .with_long_polls(2);
        let send = streams(&layer);
        let poll = "/api/external-task/fetchAndLock";
        let mut held = vec![send(poll).await.unwrap(), send(poll).await.unwrap()];
        // A long poll does not queue for one that may take half an hour.
        let began = tokio::time::Instant::now();
        assert_eq!(code(send(poll).await), "overloaded");
        assert_eq!(began.elapsed(), Duration::ZERO);
        held.push(send("/api/task").await.unwrap());
        assert_eq!(code(send("/api/task").await), "overloaded");
        held.remove(0);
        assert_eq!(code(send(poll).await), "served");
    }

    #[tokio::test]
    async fn a_declared_body_of_the_limit_passes_and_one_byte_more_is_refused() {
        let inner = tower::service_fn(|_: Request<()>| async {
            Ok::<_, Problem>(Response::new(Body::empty()))
        });
        let service = AdmitLayer::new(1, Some(10)).layer(inner);
        for (length, want) in [("10", None), ("11", Some(Problem::BodyTooLarge(10)))] {
            let request = Request::post("/")
                .header(HOST, "bpm.example.com")
                .header(CONTENT_LENGTH, length)
                .body(())
                .unwrap();
            assert_eq!(
                service.clone().oneshot(request).await.err(),
                want,
                "{length}"
            );
        }
    }
}
