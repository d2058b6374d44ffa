//! The longest wait for the engine's answer: 504 `engine_timeout` when it is over.
//!
//! The clock runs until the answer's head is there, and stands still while the client is still sending
//! its body: a large upload over a slow line is no slow engine. A long poll gets what its body asks the engine
//! to wait (`asyncResponseTimeout`, engine facts §9) on top, at most 30 minutes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, Service};

use crate::body::{Body, BoxError};
use crate::operation::Matched;
use crate::problem::Problem;
use crate::request_info::Findings;
use long_poll::Seen;

mod long_poll;

/// Ends requests that the engine does not answer in time.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    response: Duration,
}

impl DeadlineLayer {
    /// Waits so long for the head of an answer.
    #[must_use]
    pub fn new(response: Duration) -> Self {
        Self { response }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            response: self.response,
            inner,
        }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    response: Duration,
    inner: S,
}

impl<S> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>>,
    S::Error: Into<Problem>,
{
    type Response = S::Response;
    type Error = Problem;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let long_poll = matches!(
            request.extensions().get(),
            Some(Matched::Operation(found)) if found.operation.is_long_poll()
        );
        let mut progress = None;
        // One that is whole is not sent by the client any more; but what a long poll asks for is read as it passes.
        let body = request.body();
        let passes = body.is_whole() && (!long_poll || body.is_end_stream());
        let request = if passes {
            request
        } else {
            let shared = progress.insert(Arc::new(Progress::default())).clone();
            let findings = request.extensions().get::<Findings>().cloned();
            request.map(|inner| {
                Body::stream(Tracked {
                    inner,
                    progress: shared,
                    long_poll: long_poll.then(Seen::nothing),
                    _findings: findings,
                })
            })
        };
        DeadlineFuture {
            timer: sleep(self.response),
            budget: self.response,
            progress,
            inner: self.inner.call(request),
        }
    }
}

/// How far the request's body has come.
#[derive(Debug, Default)]
struct Progress {
    /// Frames that the engine's connection has taken.
    frames: AtomicU64,
    /// Whether the next frame has yet to come from the client.
    client_is_late: AtomicBool,
    /// Once the engine's connection has all of it.
    sent: OnceLock<Sent>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    /// What the engine may take beyond the budget.
    more: Duration,
}

impl Progress {
    /// When the time is over, as far as that can be said now; `None` where it is.
    fn next_look(&self, budget: Duration) -> Option<Instant> {
        let now = Instant::now();
        if let Some(sent) = self.sent.get() {
            return Some(sent.at + budget + sent.more).filter(|end| *end > now);
        }
        let moved = self.frames.swap(0, Ordering::Relaxed) > 0
            || self.client_is_late.load(Ordering::Relaxed);
        moved.then(|| now + budget)
    }
}

pin_project! {
    /// The future of [`Deadline`].
    #[derive(Debug)]
    pub struct DeadlineFuture<F> {
        #[pin]
        timer: Sleep,
        budget: Duration,
        progress: Option<Arc<Progress>>,
        #[pin]
        inner: F,
    }
}

impl<F, T, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Problem>,
{
    type Output = Result<T, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.inner.poll(cx) {
            return Poll::Ready(answer.map_err(Into::into));
        }
        loop {
            // An engine that sends without end, as interim answers, takes all that the task may do at once; a timer that is
            // asked after that would say each time that it has not been looked at.
            ready!(pin!(unconstrained(this.timer.as_mut())).poll(cx));
            let progress = this.progress.as_ref();
            match progress.and_then(|progress| progress.next_look(*this.budget)) {
                Some(next) => this.timer.as_mut().reset(next),
                None => return Poll::Ready(Err(Problem::EngineTimeout)),
            }
        }
    }
}

pin_project! {
    /// A request body that says how far it has come.
    struct Tracked {
        #[pin]
        inner: Body,
        progress: Arc<Progress>,
        // What has passed of a long poll.
        long_poll: Option<Seen>,
        // They hold the caller's place, which is taken as long as their body is still being sent, also where the
        // engine answered before.
        _findings: Option<Findings>,
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let frame = this.inner.as_mut().poll_frame(cx);
        this.progress
            .client_is_late
            .store(frame.is_pending(), Ordering::Relaxed);
        this.progress.frames.fetch_add(1, Ordering::Relaxed);
        if let (Some(seen), Poll::Ready(Some(Ok(frame)))) = (&mut *this.long_poll, &frame)
            && let Some(data) = frame.data_ref()
        {
            seen.add(data);
        }
        // hyper asks for no more where the length was told.
        let is_all = match &frame {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => {
                this.inner.is_end_stream() || this.inner.size_hint().upper() == Some(0)
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if is_all {
            this.progress.sent.get_or_init(|| Sent {
                at: Instant::now(),
                more: this
                    .long_poll
                    .take()
                    .map_or(Duration::ZERO, |seen| seen.wait()),
            });
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Catalogue;
    use http::Method;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    async fn wait(request: Request<Body>, engine: Duration) -> (Result<(), Problem>, Duration) {
        let inner = tower::service_fn(move |request: Request<Body>| async move {
            let _ = request.into_body().collect().await;
            sleep(engine).await;
            Ok::<_, Problem>(())
        });
        let began = Instant::now();
        let answer = DeadlineLayer::new(Duration::from_secs(30))
            .layer(inner)
            .oneshot(request)
            .await;
        (answer, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_after_the_deadline_is_a_timeout() {
        let (answer, _) = wait(Request::new(Body::empty()), Duration::from_secs(29)).await;
        assert_eq!(answer, Ok(()));
        let (answer, after) = wait(Request::new(Body::empty()), Duration::from_secs(31)).await;
        assert_eq!(answer, Err(Problem::EngineTimeout));
        assert_eq!(after.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_upload_is_no_slow_engine() {
        let slow = futures_util::stream::unfold(0, |sent| async move {
            sleep(Duration::from_secs(20)).await;
            (sent < 5).then(|| {
                (
                    Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))),
                    sent + 1,
                )
            })
        });
        let slow = Body::stream(http_body_util::StreamBody::new(slow));
        let (answer, after) = wait(Request::new(slow), Duration::from_secs(10)).await;
        assert_eq!(answer, Ok(()));
        assert_eq!(after.as_secs(), 130);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_sent_at_once_gives_the_engine_no_more_time() {
        let body = Body::from(Bytes::from_static(b"{}"));
        let (answer, after) = wait(Request::new(body), Duration::from_secs(31)).await;
        assert_eq!(answer, Err(Problem::EngineTimeout));
        assert_eq!(after.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_poll_may_take_what_it_asks_for_and_the_time_of_any_request() {
        for (body, seconds) in [
            (
                r#"{"workerId":"w","asyncResponseTimeout":1800000}"#,
                30 + 1800,
            ),
            (r#"{"workerId":"w","asyncResponseTimeout":1000}"#, 30 + 1),
            (r#"{"workerId":"w","asyncResponseTimeout":0}"#, 30),
            (r#"{"workerId":"w"}"#, 30),
            ("no json", 30 + 1800),
            ("", 30),
        ] {
            let poll = || {
                let mut request = Request::new(Body::from(Bytes::from_static(body.as_bytes())));
                let matched =
                    Catalogue::builtin().find(&Method::POST, "/external-task/fetchAndLock");
                request.extensions_mut().insert(matched);
                request
            };
            let (answer, _) = wait(poll(), Duration::from_secs(seconds - 1)).await;
            assert_eq!(answer, Ok(()), "{body}");
            let (answer, after) = wait(poll(), Duration::from_secs(seconds + 1)).await;
            assert_eq!(answer, Err(Problem::EngineTimeout), "{body}");
            assert_eq!(after.as_secs(), seconds, "{body}");
        }
    }
}
