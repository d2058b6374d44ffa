//! Bounds the requests in flight and the declared size of their bodies, before any work is done.
//!
//! A permit lives until the answer's **body** has ended; one that is whole in memory has none, as whoever does not
//! take it (HTTP/2, a window of 0) must not take a place from others. More requests are 503 `overloaded` with
//! `Retry-After`; a declared `Content-Length` over the limit is 413 at once. A request that names two
//! hosts, or none though its version asks for one, is 400 (RFC 9112 §3.2), and so is one with two lengths.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, Version};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::checked::Checked;
use crate::body::{Body, Guarded};
use crate::problem::Problem;

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
pub struct AdmitLayer {
    permits: Arc<Semaphore>,
    max_body_bytes: Option<u64>,
}

impl AdmitLayer {
    /// At most `in_flight` requests at once, and no declared body over `max_body_bytes`.
    #[must_use]
    pub fn new(in_flight: usize, max_body_bytes: Option<u64>) -> Self {
        let permits = Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)));
        Self {
            permits,
            max_body_bytes,
        }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            rules: self.clone(),
            inner,
        }
    }
}

/// The service of [`AdmitLayer`].
#[derive(Debug, Clone)]
pub struct Admit<S> {
    rules: AdmitLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Error: Into<Problem>,
{
    type Response = Response<Guarded<Body>>;
    type Error = Problem;
    type Future = Checked<Admitted<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !has_one_host(&request) {
            return Checked::rejected(Problem::BadRequest(
                "The request must name its host once, in Host.",
            ));
        }
        let mut lengths = request.headers().get_all(CONTENT_LENGTH).iter();
        let declared = lengths
            .next()
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if lengths.next().is_some() {
            return Checked::rejected(Problem::BadRequest(
                "The request must give its length once, in Content-Length.",
            ));
        }
        if let (Some(declared), Some(limit)) = (declared, self.rules.max_body_bytes)
            && declared > limit
        {
            return Checked::rejected(Problem::BodyTooLarge(limit));
        }
        match self.rules.permits.clone().try_acquire_owned() {
            Ok(permit) => Checked::passed(Admitted {
                permit: Some(permit),
                inner: self.inner.call(request),
            }),
            Err(_) => Checked::rejected(Problem::Overloaded),
        }
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
    use tower::ServiceExt;

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
