//! The only place where a [`Problem`] becomes an answer.
//!
//! Stands above everything that can fail and below CORS and observation, so that a browser can read
//! the answer and the log knows its code. Adds the challenge of RFC 6750 §3, `Allow`, `Retry-After`,
//! `RateLimit` and `RateLimit-Policy`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::debug;

use super::limit_rate::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::problem::{Problem, RateLimited};
use crate::request_info::{Findings, RequestInfo};
use crate::trace_context::TraceId;

/// Turns problems into `application/problem+json` answers; the service above it cannot fail.
///
/// # Examples
/// ```
/// use bpmgate::{layer::ProblemLayer, Problem};
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let fails = tower::service_fn(|_: Request<()>| async {
///     Err::<Response<Bytes>, _>(Problem::TokenExpired)
/// });
/// let answer = ProblemLayer::new().layer(fails).oneshot(Request::new(())).await.unwrap();
/// assert_eq!(answer.status(), 401);
/// assert_eq!(answer.headers()["content-type"], "application/problem+json");
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemLayer(());

impl ProblemLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for ProblemLayer {
    type Service = Problems<S>;

    fn layer(&self, inner: S) -> Problems<S> {
        Problems { inner }
    }
}

/// The service of [`ProblemLayer`].
#[derive(Debug, Clone)]
pub struct Problems<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Problems<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Problem>,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = ProblemsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A service that is not well fails the request that meets it, not the one before.
        let _ = ready!(self.inner.poll_ready(cx));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        ProblemsFuture {
            id: extensions.get::<RequestInfo>().map(|info| info.id.clone()),
            findings: extensions.get::<Findings>().cloned(),
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`Problems`].
    #[derive(Debug)]
    pub struct ProblemsFuture<F> {
        id: Option<HeaderValue>,
        findings: Option<Findings>,
        #[pin]
        inner: F,
    }
}

impl<F, R, E> Future for ProblemsFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Problem>,
    R: From<Bytes>,
{
    type Output = Result<Response<R>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match ready!(this.inner.poll(cx)) {
            Ok(answer) => answer,
            Err(error) => {
                let problem = error.into();
                if let Some(findings) = this.findings {
                    findings.note_code(problem.code());
                }
                let id = this
                    .id
                    .as_ref()
                    .and_then(|id| id.to_str().ok())
                    .unwrap_or_default();
                debug!(
                    code = problem.code(),
                    reason = %problem,
                    request_id = id,
                    trace_id = this.findings.as_ref().and_then(|findings| findings.trace_id()).map(TraceId::as_str),
                    "answered by the gateway"
                );
                answer(&problem, id)
            }
        };
        Poll::Ready(Ok(answer))
    }
}

fn answer<R: From<Bytes>>(problem: &Problem, request_id: &str) -> Response<R> {
    let body = Bytes::from(problem.to_json(request_id, SystemTime::now()));
    let mut response = Response::new(R::from(body));
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut insert = |name, value: Option<String>| {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    };
    insert(WWW_AUTHENTICATE, problem.challenge());
    insert(
        RETRY_AFTER,
        problem.retry_after().map(|seconds| seconds.to_string()),
    );
    if let Problem::MethodNotAllowed(allow) = problem {
        insert(ALLOW, Some(allow.to_string()));
    }
    if let Problem::RateLimited(exceeded) = problem {
        let RateLimited {
            limit,
            policy,
            retry_after,
        } = &**exceeded;
        headers.insert(RATE_LIMIT_POLICY, policy.clone());
        let state = format!("\"{limit}\";r=0;t={retry_after}");
        if let Ok(state) = HeaderValue::try_from(state) {
            headers.insert(RATE_LIMIT, state);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn of(problem: &Problem) -> (Response<Bytes>, Value) {
        let answer: Response<Bytes> = answer(problem, "r-1");
        let body = serde_json::from_slice(answer.body()).unwrap();
        (answer, body)
    }

    #[test]
    fn the_body_has_the_members_that_frontends_read() {
        let (answer, body) = of(&Problem::denied("createDeployment", "user"));
        assert_eq!(answer.status(), 403);
        for (member, want) in [
            ("type", Value::from("urn:bpmgate:problem:access_denied")),
            ("title", "Access denied".into()),
            ("status", 403.into()),
            ("code", "access_denied".into()),
            ("error", "Access denied".into()),
            ("requestId", "r-1".into()),
            (
                "detail",
                "The profile `user` does not allow the operation `createDeployment`.".into(),
            ),
        ] {
            assert_eq!(body[member], want, "{member}");
        }
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        for (problem, want) in [
            (Problem::TokenMissing, Some("Bearer realm=\"bpmgate\"")),
            (
                Problem::TokenInvalid("bad signature"),
                Some(
                    "Bearer realm=\"bpmgate\", error=\"invalid_token\", error_description=\"bad signature\"",
                ),
            ),
            (Problem::EngineRejectedCredentials, None),
            (Problem::NotFound, None),
        ] {
            let (answer, _) = of(&problem);
            let challenge = answer.headers().get(WWW_AUTHENTICATE);
            assert_eq!(challenge.map(|value| value.to_str().unwrap()), want);
        }
    }

    #[test]
    fn allow_and_retry_after_are_set_where_they_mean_something() {
        let (answer, _) = of(&Problem::MethodNotAllowed("GET, HEAD".into()));
        assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        let (answer, _) = of(&Problem::Overloaded);
        assert_eq!(answer.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn a_problem_fits_24_bytes() {
        assert_eq!(size_of::<Problem>(), 24);
    }
}
