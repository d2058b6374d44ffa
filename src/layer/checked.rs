//! What every check-then-call layer shares: look at the request, then pass it on or reject it, at once or later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::problem::Problem;

/// A check of a request's head, which may also change it.
pub trait Check {
    /// Looks at the request.
    ///
    /// # Errors
    /// The [`Problem`] with which the request ends here; the inner service is not called.
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem>;
}

/// The layer of a [`Check`].
#[derive(Debug)]
pub struct CheckLayer<C>(Arc<C>);

impl<C> CheckLayer<C> {
    pub(crate) fn of(check: C) -> Self {
        Self(Arc::new(check))
    }

    #[cfg(test)]
    pub(crate) fn check(&self) -> &C {
        &self.0
    }
}

impl<C> Clone for CheckLayer<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C, S> Layer<S> for CheckLayer<C> {
    type Service = Checking<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Checking {
            check: self.0.clone(),
            inner,
        }
    }
}

/// The service of a [`Check`].
#[derive(Debug)]
pub struct Checking<C, S> {
    check: Arc<C>,
    inner: S,
}

impl<C, S: Clone> Clone for Checking<C, S> {
    fn clone(&self) -> Self {
        Self {
            check: self.check.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<C, S, B> Service<Request<B>> for Checking<C, S>
where
    C: Check,
    S: Service<Request<B>>,
    S::Error: Into<Problem>,
{
    type Response = S::Response;
    type Error = Problem;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.check.check(&mut request) {
            Ok(()) => Checked::passed(self.inner.call(request)),
            Err(problem) => Checked::rejected(problem),
        }
    }
}

pin_project! {
    /// The future of a layer that passed a request on, or rejected it.
    ///
    /// Named and unboxed, so that a layer costs no allocation.
    #[derive(Debug)]
    pub struct Checked<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<F> {
        Rejected { problem: Option<Problem> },
        Passed { #[pin] inner: F },
    }
}

impl<F> Checked<F> {
    /// The request went on: this is the inner service's future.
    pub fn passed(inner: F) -> Self {
        Self {
            state: State::Passed { inner },
        }
    }

    /// The request ends here; the inner service was not called.
    #[must_use]
    pub fn rejected(problem: Problem) -> Self {
        Self {
            state: State::Rejected {
                problem: Some(problem),
            },
        }
    }
}

impl<F, T, E> Future for Checked<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Problem>,
{
    type Output = Result<T, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Rejected { problem } => {
                Poll::Ready(Err(problem.take().unwrap_or(Problem::Internal)))
            }
            StateProjection::Passed { inner } => {
                Poll::Ready(ready!(inner.poll(cx)).map_err(Into::into))
            }
        }
    }
}

pin_project! {
    /// As [`Checked`], of a layer that may also have to wait before it knows. Only one that waits costs an allocation.
    pub struct CheckedLater<F, T> {
        #[pin]
        state: Later<F, T>,
    }
}

pin_project! {
    #[project = LaterProjection]
    enum Later<F, T> {
        Rejected { problem: Option<Problem> },
        Passed { #[pin] inner: F },
        Waiting { future: Pin<Box<dyn Future<Output = Result<T, Problem>> + Send>> },
    }
}

impl<F, T> CheckedLater<F, T> {
    pub(crate) fn passed(inner: F) -> Self {
        let state = Later::Passed { inner };
        Self { state }
    }

    pub(crate) fn rejected(problem: Problem) -> Self {
        let problem = Some(problem);
        let state = Later::Rejected { problem };
        Self { state }
    }

    /// The future waits, and calls the inner service itself.
    pub(crate) fn waiting(
        future: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Self {
        let future = Box::pin(future);
        let state = Later::Waiting { future };
        Self { state }
    }
}

impl<F, T, E> Future for CheckedLater<F, T>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Problem>,
{
    type Output = Result<T, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            LaterProjection::Rejected { problem } => {
                Poll::Ready(Err(problem.take().unwrap_or(Problem::Internal)))
            }
            LaterProjection::Passed { inner } => {
                Poll::Ready(ready!(inner.poll(cx)).map_err(Into::into))
            }
            LaterProjection::Waiting { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, T> fmt::Debug for CheckedLater<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedLater").finish_non_exhaustive()
    }
}
