//! The future that check-then-call layers share.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::problem::Problem;

pin_project! {
    /// The future of a layer that checks a request and then passes it on, or rejects it.
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
