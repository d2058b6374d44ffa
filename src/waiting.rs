//! Time that passes while a request waits for others: the engine, an issuer, its client's body, a place in the queue.
//!
//! [`Findings`] sum it up, and the gateway's own time is the rest. Only what is not there at once costs a look at the clock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::request_info::Findings;

pin_project! {
    /// A future of others, whose time is noted once it has ended.
    pub(crate) struct Waiting<'a, F> {
        findings: Option<&'a Findings>,
        since: Option<Instant>,
        #[pin]
        inner: F,
    }
}

/// Notes how long this takes, if it is not there at once.
pub(crate) fn waiting<F: Future>(findings: Option<&Findings>, inner: F) -> Waiting<'_, F> {
    Waiting {
        findings,
        since: None,
        inner,
    }
}

impl<F: Future> Future for Waiting<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.inner.poll(cx);
        match (&polled, *this.since) {
            (Poll::Pending, None) => *this.since = Some(Instant::now()),
            (Poll::Ready(_), Some(since)) => {
                if let Some(findings) = this.findings {
                    findings.note_wait(since.elapsed());
                }
            }
            (Poll::Pending, Some(_)) | (Poll::Ready(_), None) => {}
        }
        polled
    }
}
