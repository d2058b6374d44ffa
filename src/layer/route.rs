//! Tells the gateway's own routes from the engine's.
//!
//! A path below one of the public prefixes goes on inwards; one of the gateway's own goes to its own
//! service, without a token; anything else is 404. Looks at the normalized path.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::path::strip_prefix;
use crate::problem::Problem;

/// Sends the own paths to the service `own`, those below a prefix inwards.
#[derive(Debug, Clone)]
pub struct RouteLayer<O> {
    own: O,
    paths: Arc<Paths>,
}

#[derive(Debug)]
struct Paths {
    own: Vec<String>,
    prefixes: Vec<String>,
}

impl<O> RouteLayer<O> {
    /// `own_paths` and everything below them belong to `own`; they are looked at first.
    pub fn new(own: O, own_paths: Vec<String>, prefixes: Vec<String>) -> Self {
        Self {
            own,
            paths: Arc::new(Paths {
                own: own_paths,
                prefixes,
            }),
        }
    }
}

impl<S, O: Clone> Layer<S> for RouteLayer<O> {
    type Service = Route<S, O>;

    fn layer(&self, inner: S) -> Self::Service {
        Route {
            inner,
            own: self.own.clone(),
            paths: self.paths.clone(),
        }
    }
}

/// The service of [`RouteLayer`].
#[derive(Debug, Clone)]
pub struct Route<S, O> {
    inner: S,
    own: O,
    paths: Arc<Paths>,
}

impl<S, O, B, R> Service<Request<B>> for Route<S, O>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Problem>,
    O: Service<Request<B>, Response = Response<R>>,
    O::Error: Into<Problem>,
{
    type Response = Response<R>;
    type Error = Problem;
    type Future = Routed<S::Future, O::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        ready!(self.own.poll_ready(cx)).map_err(Into::into)?;
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let state = if strip_prefix(&self.paths.own, path).is_some() {
            RoutedState::Own {
                future: self.own.call(request),
            }
        } else if strip_prefix(&self.paths.prefixes, path).is_some() {
            RoutedState::Inner {
                future: self.inner.call(request),
            }
        } else {
            RoutedState::Nowhere
        };
        Routed { state }
    }
}

pin_project! {
    /// The future of [`Route`].
    #[derive(Debug)]
    pub struct Routed<F, G> {
        #[pin]
        state: RoutedState<F, G>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = RoutedProjection]
    enum RoutedState<F, G> {
        Inner { #[pin] future: F },
        Own { #[pin] future: G },
        Nowhere,
    }
}

impl<F, G, T, E, H> Future for Routed<F, G>
where
    F: Future<Output = Result<T, E>>,
    G: Future<Output = Result<T, H>>,
    E: Into<Problem>,
    H: Into<Problem>,
{
    type Output = Result<T, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            RoutedProjection::Inner { future } => future.poll(cx).map_err(Into::into),
            RoutedProjection::Own { future } => future.poll(cx).map_err(Into::into),
            RoutedProjection::Nowhere => Poll::Ready(Err(Problem::NotFound)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt;

    #[tokio::test]
    async fn own_routes_prefixes_and_nothing_else() {
        let named = |name: &'static str| {
            tower::service_fn(
                move |_: Request<()>| async move { Ok::<_, Problem>(Response::new(name)) },
            )
        };
        let service = RouteLayer::new(
            named("own"),
            vec!["/health".into(), "/docs".into()],
            vec!["/api".into()],
        )
        .layer(named("engine"));
        for (path, want) in [
            ("/health", Ok("own")),
            ("/docs/index.html", Ok("own")),
            ("/healthy", Err(Problem::NotFound)),
            ("/api", Ok("engine")),
            ("/api/health", Ok("engine")),
            ("/apis", Err(Problem::NotFound)),
            ("/", Err(Problem::NotFound)),
        ] {
            let answer = service
                .clone()
                .oneshot(Request::get(path).body(()).unwrap())
                .await;
            assert_eq!(answer.map(Response::into_body), want, "{path}");
        }
    }
}
