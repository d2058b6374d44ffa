//! Measures how long the engine takes, and counts the long polls that wait there.
//!
//! Stands next to the engine, above deadline and retries: all tries of one request are one measurement, which ends with the head of
//! the answer. A request that its client gave up is not measured. The gateway's own time leaves out what is measured here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::metrics::{LongPoll, Metrics};
use crate::operation::Matched;
use crate::request_info::Findings;

/// Measures the service below it.
#[derive(Debug, Clone)]
pub struct MeasureEngineLayer {
    metrics: Metrics,
}

impl MeasureEngineLayer {
    /// What is measured is added to these.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for MeasureEngineLayer {
    type Service = MeasureEngine<S>;

    fn layer(&self, inner: S) -> MeasureEngine<S> {
        MeasureEngine {
            metrics: self.metrics.clone(),
            inner,
        }
    }
}

/// The service of [`MeasureEngineLayer`].
#[derive(Debug, Clone)]
pub struct MeasureEngine<S> {
    metrics: Metrics,
    inner: S,
}

impl<S, B> Service<Request<B>> for MeasureEngine<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Measured<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let long_poll = match request.extensions().get::<Matched>() {
            Some(Matched::Operation(found)) => self.metrics.long_poll(found.operation),
            Some(Matched::OtherMethods(_) | Matched::Unknown) | None => None,
        };
        Measured {
            began: Instant::now(),
            metrics: self.metrics.clone(),
            findings: request.extensions().get().cloned(),
            _long_poll: long_poll,
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`MeasureEngine`].
    #[derive(Debug)]
    pub struct Measured<F> {
        began: Instant,
        metrics: Metrics,
        findings: Option<Findings>,
        _long_poll: Option<LongPoll>,
        #[pin]
        inner: F,
    }

    impl<F> PinnedDrop for Measured<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Still here: somebody else answers in the engine's place, as to a long poll when the gateway ends.
            if let Some(findings) = this.findings.take() {
                findings.note_wait(this.began.elapsed());
            }
        }
    }
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        let took = this.began.elapsed();
        this.metrics.engine_took(took);
        if let Some(findings) = this.findings.take() {
            findings.note_wait(took);
        }
        Poll::Ready(answer)
    }
}
