//! Answers the long polls that are left when the gateway ends, as the engine does when it has found nothing: 200 and `[]`.
//!
//! A worker asks again then, at another gateway, and has no error to cope with. It acts shortly before `server.shutdown_grace` is over and
//! not earlier: a poll that is given up may still lock a task at the engine, for nobody, until the engine would have answered it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tower::{Layer, Service};

use crate::body::Body;
use crate::operation::Matched;

/// Ends the long polls that wait. Clones share it.
#[derive(Debug, Clone)]
pub struct EndOfLongPolls(Arc<watch::Sender<bool>>);

impl Default for EndOfLongPolls {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl EndOfLongPolls {
    /// Answers all that wait, and from now on each that comes.
    pub fn end(&self) {
        self.0.send_replace(true);
    }

    async fn ended(mut told: watch::Receiver<bool>) {
        if told.wait_for(|ended| *ended).await.is_err() {
            // Nobody is left who could end them.
            std::future::pending::<()>().await;
        }
    }
}

/// Answers long polls when they are ended.
#[derive(Debug, Clone)]
pub struct EndLongPollsLayer {
    end: EndOfLongPolls,
}

impl EndLongPollsLayer {
    /// They end when `end` says so.
    #[must_use]
    pub fn new(end: EndOfLongPolls) -> Self {
        Self { end }
    }
}

impl<S> Layer<S> for EndLongPollsLayer {
    type Service = EndLongPolls<S>;

    fn layer(&self, inner: S) -> EndLongPolls<S> {
        EndLongPolls {
            end: self.end.clone(),
            inner,
        }
    }
}

/// The service of [`EndLongPollsLayer`].
#[derive(Debug, Clone)]
pub struct EndLongPolls<S> {
    end: EndOfLongPolls,
    inner: S,
}

impl<S> Service<Request<Body>> for EndLongPolls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = EndLongPollsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_long_poll = matches!(
            request.extensions().get(),
            Some(Matched::Operation(found)) if found.operation.is_long_poll()
        );
        let ended = is_long_poll
            .then(|| -> Ended { Box::pin(EndOfLongPolls::ended(self.end.0.subscribe())) });
        EndLongPollsFuture {
            ended,
            inner: self.inner.call(request),
        }
    }
}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

pin_project! {
    /// The future of [`EndLongPolls`].
    pub struct EndLongPollsFuture<F> {
        ended: Option<Ended>,
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for EndLongPollsFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = this.inner.poll(cx);
        match this.ended {
            Some(ended) if answer.is_pending() => ended.as_mut().poll(cx).map(|()| Ok(nothing())),
            Some(_) | None => answer,
        }
    }
}

impl<F> std::fmt::Debug for EndLongPollsFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndLongPollsFuture")
            .field("is_long_poll", &self.ended.is_some())
            .finish_non_exhaustive()
    }
}

/// What the engine says when it has found nothing in time.
fn nothing() -> Response<Body> {
    let mut answer = Response::new(Body::from(Bytes::from_static(b"[]")));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
