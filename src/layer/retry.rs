//! Tries again where that cannot do a thing twice.
//!
//! Any request of which not a byte was sent; and `GET` or `HEAD` without a body, which change nothing
//! at the engine. A start that was sent and got no answer is **not** sent again: the engine may have
//! started it. Waits grow from `backoff` by two each time, with jitter; the deadline above bounds them all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use tower::{Layer, Service};
use tracing::debug;

use crate::body::Body;
use crate::engine::EngineError;
use crate::engine::nodes::Tried;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// Repeats what may be repeated.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    attempts: u32,
    backoff: Duration,
    metrics: Option<Metrics>,
}

impl RetryLayer {
    /// Sends a request again at most `attempts` times; 0 is never.
    #[must_use]
    pub fn new(attempts: u32, backoff: Duration) -> Self {
        Self {
            attempts,
            backoff,
            metrics: None,
        }
    }

    /// Counts what is sent again.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            rules: self.clone(),
            inner,
        }
    }
}

/// The service of [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct Retry<S> {
    rules: RetryLayer,
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
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let RetryLayer {
            attempts,
            backoff,
            metrics,
        } = self.rules.clone();
        let spare = (attempts > 0 && is_repeatable(&request)).then(|| Spare::of(&request));
        let next = self.inner.clone();
        let mut engine = std::mem::replace(&mut self.inner, next);
        let first = engine.call(request);
        Box::pin(async move {
            let mut answer = first.await;
            let mut tried = Tried::default();
            for attempt in 1..=attempts {
                let Err(error) = answer else { break };
                tried.add(error.node);
                let mut again = match (error.unsent, &spare) {
                    (Some(unsent), _) => *unsent,
                    (None, Some(spare)) if error.problem == Problem::EngineUnreachable => {
                        spare.to_request()
                    }
                    (None, _) => return Err(error.problem),
                };
                // Rather on another node.
                again.extensions_mut().insert(tried);
                if let Some(metrics) = &metrics {
                    metrics.retried();
                }
                debug!(attempt, "trying the engine again");
                tokio::time::sleep(jittered(backoff, attempt)).await;
                std::future::poll_fn(|cx| engine.poll_ready(cx)).await?;
                answer = engine.call(again).await;
            }
            answer.map_err(Into::into)
        })
    }
}

fn is_repeatable(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream()
}

/// What a request without a body can be made of again. A list costs half of what a copy of the header map does, and
/// nearly every one is thrown away.
struct Spare {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Spare {
    fn of(request: &Request<Body>) -> Self {
        let headers = request.headers().iter();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }
    }

    fn to_request(&self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

fn jittered(backoff: Duration, attempt: u32) -> Duration {
    let whole = backoff.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
    // The low bits of a fresh UUIDv7 are random.
    let random = f64::from(uuid::Uuid::now_v7().as_fields().3[7]) / 255.0;
    whole.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
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
