//! CORS: preflights are answered here, and every answer to an allowed origin says so, errors too.
//!
//! Stands above [`ProblemLayer`](super::ProblemLayer): a browser shows a frontend only answers that
//! carry its origin, so a 401 without it would look like a network failure. The engine's own CORS
//! headers never reach the client (see [`EngineAnswerLayer`](super::EngineAnswerLayer)).
//!
//! A preflight is `OPTIONS` with `Origin` and `Access-Control-Request-Method` (Fetch standard); any
//! other `OPTIONS` is an ordinary request. The headers themselves are tower-http's work.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_DISPOSITION, HeaderName, HeaderValue, LOCATION, ORIGIN,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tower_http::cors::{self, AllowHeaders, AllowMethods, AllowOrigin};

use super::limit_rate::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// Which origins may read the answers.
#[derive(Debug, Clone)]
pub enum CorsOrigins {
    /// These, compared exactly: `https://app.example`.
    List(Vec<HeaderValue>),
    /// Every origin, each by its own name, as `*` is not allowed together with credentials.
    Any,
}

/// Answers preflights and adds the CORS headers.
///
/// # Examples
/// ```
/// use bpmgate::layer::{CorsLayer, CorsOrigins};
/// use bytes::Bytes;
/// use http::{HeaderValue, Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let app = HeaderValue::from_static("https://app.example");
/// let hello = tower::service_fn(|_: Request<()>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(Bytes::from("hello")))
/// });
/// let service = CorsLayer::new(CorsOrigins::List(vec![app.clone()]), true).layer(hello);
/// let request = Request::get("/").header("origin", &app).body(()).unwrap();
/// let answer = service.oneshot(request).await.unwrap();
/// assert_eq!(answer.headers()["access-control-allow-origin"], app);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CorsLayer {
    cors: cors::CorsLayer,
    allows_none: bool,
}

impl CorsLayer {
    /// Without any origin no answer is changed, and preflights get no permission. `credentials` lets a browser send cookies and read the answer to such a request.
    #[must_use]
    pub fn new(origins: CorsOrigins, credentials: bool) -> Self {
        let allows_none = matches!(&origins, CorsOrigins::List(list) if list.is_empty());
        let origins = match origins {
            // Not `AllowOrigin::list`, which is copied with every clone of the stack.
            CorsOrigins::List(list) => {
                AllowOrigin::predicate(move |origin, _| list.contains(origin))
            }
            CorsOrigins::Any => AllowOrigin::mirror_request(),
        };
        let cors = cors::CorsLayer::new()
            .allow_origin(origins)
            .allow_credentials(credentials)
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(Duration::from_mins(10));
        Self { cors, allows_none }
    }
}

impl<S> Layer<S> for CorsLayer {
    type Service = Cors<S>;

    fn layer(&self, inner: S) -> Cors<S> {
        Cors {
            marked: self.cors.layer(inner),
            allows_none: self.allows_none,
        }
    }
}

/// The service of [`CorsLayer`].
#[derive(Debug, Clone)]
pub struct Cors<S> {
    marked: cors::Cors<S>,
    allows_none: bool,
}

impl<S, B, R> Service<Request<B>> for Cors<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = CorsFuture<<cors::Cors<S> as Service<Request<B>>>::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.marked.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let headers = request.headers();
        let preflight =
            headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        // tower-http would answer every OPTIONS as a preflight. Without a frontend elsewhere, answers
        // stay as they are.
        let ordinary = request.method() == Method::OPTIONS || self.allows_none;
        if ordinary && !preflight {
            CorsFuture {
                state: CorsState::Plain {
                    future: self.marked.get_mut().call(request),
                },
            }
        } else if !headers.contains_key(ORIGIN) {
            // No browser asks from elsewhere; but a cache must not give it to one that does.
            CorsFuture {
                state: CorsState::SameOrigin {
                    future: self.marked.get_mut().call(request),
                },
            }
        } else {
            CorsFuture {
                state: CorsState::Cors {
                    future: Box::pin(self.marked.call(request)),
                },
            }
        }
    }
}

pin_project! {
    /// The future of [`Cors`].
    #[derive(Debug)]
    pub struct CorsFuture<F, G> {
        #[pin]
        state: CorsState<F, G>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = CorsProjection]
    enum CorsState<F, G> {
        // Boxed, as it is large, and futures are moved from layer to layer.
        Cors { future: Pin<Box<F>> },
        Plain { #[pin] future: G },
        SameOrigin { #[pin] future: G },
    }
}

impl<F, G, R, E> Future for CorsFuture<F, G>
where
    F: Future<Output = Result<Response<R>, E>>,
    G: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CorsProjection::Cors { future } => future.as_mut().poll(cx),
            CorsProjection::Plain { future } => future.poll(cx),
            CorsProjection::SameOrigin { future } => {
                let mut answer = ready!(future.poll(cx))?;
                let vary = HeaderValue::from_static("origin");
                answer.headers_mut().append(VARY, vary);
                Poll::Ready(Ok(answer))
            }
        }
    }
}

/// What a frontend may read beside the safelisted headers.
const EXPOSED: [HeaderName; 7] = [
    HeaderName::from_static("x-request-id"),
    WWW_AUTHENTICATE,
    RETRY_AFTER,
    RATE_LIMIT,
    RATE_LIMIT_POLICY,
    LOCATION,
    CONTENT_DISPOSITION,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tower::ServiceExt;

    const APP: &str = "https://app.example";

    async fn ask(
        origins: CorsOrigins,
        method: Method,
        headers: &[(&str, &str)],
    ) -> Response<String> {
        let inner = tower::service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>(Response::new(request.method().to_string()))
        });
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        CorsLayer::new(origins, true)
            .layer(inner)
            .oneshot(request)
            .await
            .unwrap()
    }

    fn app() -> CorsOrigins {
        CorsOrigins::List(vec![HeaderValue::from_static(APP)])
    }

    #[tokio::test]
    async fn a_preflight_of_another_origin_gets_no_permission() {
        let preflight = |origin| {
            [
                ("origin", origin),
                ("access-control-request-method", "POST"),
            ]
        };
        let refused = ask(app(), Method::OPTIONS, &preflight("https://evil.example")).await;
        assert!(
            !refused
                .headers()
                .contains_key("access-control-allow-origin")
        );
        assert_eq!(refused.body(), "");
        let allowed = ask(app(), Method::OPTIONS, &preflight(APP)).await;
        assert_eq!(allowed.headers()["access-control-allow-origin"], APP);
        assert_eq!(allowed.headers()["access-control-allow-methods"], "POST");
        assert_eq!(
            allowed.headers()["access-control-allow-credentials"],
            "true"
        );
        assert_eq!(allowed.body(), "");
    }

    #[tokio::test]
    async fn any_other_options_is_an_ordinary_request() {
        for headers in [
            &[][..],
            &[("origin", APP)],
            &[("access-control-request-method", "POST")],
        ] {
            assert_eq!(ask(app(), Method::OPTIONS, headers).await.body(), "OPTIONS");
        }
    }

    #[tokio::test]
    async fn without_origins_answers_stay_as_they_are() {
        let none = || CorsOrigins::List(Vec::new());
        let answer = ask(none(), Method::GET, &[("origin", APP)]).await;
        assert!(answer.headers().is_empty());
        let preflight = [("origin", APP), ("access-control-request-method", "POST")];
        let refused = ask(none(), Method::OPTIONS, &preflight).await;
        assert_eq!(refused.body(), "");
        assert!(
            !refused
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }

    #[tokio::test]
    async fn any_names_the_origin_itself() {
        let answer = ask(
            CorsOrigins::Any,
            Method::GET,
            &[("origin", "https://x.example")],
        )
        .await;
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            "https://x.example"
        );
    }
}
