//! The gateway's own routes, which need no token: `/health`, `/openapi.json`, `/docs`.
//!
//! `/health` says whether a node of the engine is reachable, as [its health check](crate::engine::health) finds it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use tower::Service;

use super::Pages;
use crate::body::Body;
use crate::engine::EngineHealth;
#[cfg(feature = "docs")]
use crate::path::strip_prefix;
use crate::problem::Problem;
use crate::request_info::Findings;
use crate::waiting::waiting;

/// The paths that are never the engine's.
pub const OWN_PATHS: [&str; 3] = ["/health", "/docs", "/openapi.json"];

/// The service of the own routes.
#[derive(Debug, Clone)]
pub struct Own<E> {
    engine: E,
    health: Arc<Health>,
    pages: Option<Pages>,
    /// The `OpenAPI` document, where the workflow API is served.
    document: Option<Bytes>,
    #[cfg_attr(
        not(feature = "docs"),
        expect(dead_code, reason = "for the page alone")
    )]
    public_url: Option<Arc<str>>,
}

#[derive(Debug)]
struct Health {
    /// The path of its REST root.
    engine_path: String,
    /// The engine's address, where answers may name it.
    engine_url: Option<String>,
    engine: EngineHealth,
}

impl<E> Own<E> {
    /// `engine` sends a request with the gateway's own credentials; `engine_path` is the path of its
    /// REST root; `engine_url` is shown in `/health` where given.
    pub fn new(engine: E, engine_path: &str, engine_url: Option<String>) -> Self {
        let health = Health {
            engine_path: engine_path.to_owned(),
            engine_url,
            engine: EngineHealth::default(),
        };
        Self {
            engine,
            health: Arc::new(health),
            pages: None,
            document: None,
            public_url: None,
        }
    }

    /// Believes what others have asked the engine, and lets them believe it.
    #[must_use]
    pub fn with_health(self, engine: EngineHealth) -> Self {
        let Health {
            engine_path,
            engine_url,
            ..
        } = &*self.health;
        let health = Arc::new(Health {
            engine_path: engine_path.clone(),
            engine_url: engine_url.clone(),
            engine,
        });
        Self { health, ..self }
    }

    /// Adds pages below a path of their own.
    #[must_use]
    pub fn with_pages(self, pages: Option<Pages>) -> Self {
        Self { pages, ..self }
    }

    /// Serves this document at `/openapi.json` and, with the feature `docs`, a page for it at `/docs`, which
    /// clients call below `public_url`.
    #[must_use]
    pub fn with_document(self, document: Option<Bytes>, public_url: Option<&str>) -> Self {
        Self {
            document,
            public_url: public_url.map(Into::into),
            ..self
        }
    }

    /// The added pages; `/openapi.json` and `/docs`, where the workflow API is served.
    fn page(&self, path: &str) -> Result<Response<Body>, Problem> {
        let added = self.pages.as_ref();
        if let Some((pages, rest)) = added.and_then(|pages| Some((pages, pages.below(path)?))) {
            return pages.answer(rest).ok_or(Problem::NotFound);
        }
        let document = self.document.as_ref().ok_or(Problem::NotFound)?;
        if path == "/openapi.json" {
            let mut answer = json_answer(document.clone());
            let headers = answer.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            return Ok(answer);
        }
        #[cfg(feature = "docs")]
        if let Some(file) = strip_prefix(&["/docs".to_owned()], path) {
            return crate::docs::page(file, self.public_url.as_deref());
        }
        Err(Problem::NotFound)
    }
}

impl<E, B> Service<Request<B>> for Own<E>
where
    E: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    E::Error: Into<Problem> + Send,
    E::Future: Send,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let added = self.pages.iter().map(Pages::path);
        let known = OWN_PATHS
            .into_iter()
            .chain(added)
            .find(|known| path.starts_with(known));
        if let (Some(findings), Some(route)) = (request.extensions().get::<Findings>(), known) {
            findings.note_route(route);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if path != "/health" {
            let mut answer = self.page(path);
            if !reads && answer.is_ok() {
                answer = Err(Problem::MethodNotAllowed("GET, HEAD".into()));
            }
            return Box::pin(async { answer });
        }
        if !reads {
            return Box::pin(async { Err(Problem::MethodNotAllowed("GET, HEAD".into())) });
        }
        let (engine, health) = (self.engine.clone(), self.health.clone());
        let findings = request.extensions().get::<Findings>().cloned();
        Box::pin(async move { Ok(waiting(findings.as_ref(), health.answer(engine)).await) })
    }
}

impl Health {
    async fn answer<E>(&self, engine: E) -> Response<Body>
    where
        E: Service<Request<Body>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
        E::Error: Into<Problem>,
    {
        let reachable = self.engine.ask(engine, &self.engine_path).await;
        let mut shape = json!({
            "status": if reachable { "healthy" } else { "degraded" },
            "timestamp": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "engine_reachable": reachable,
        });
        if let (Some(url), Some(members)) = (&self.engine_url, shape.as_object_mut()) {
            members.insert("engine_url".to_owned(), url.clone().into());
        }
        json_answer(shape.to_string().into())
    }
}

/// JSON that nobody keeps.
pub(crate) fn json_answer(json: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::from(json));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::HealthSettings;
    use http_body_util::BodyExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    /// Asks so often, this far apart; gives the answers' `status` and how often the engine was asked.
    async fn health(engine_status: u16, apart: Duration) -> (String, u32) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let engine = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri(), "/engine-rest/version");
            count.fetch_add(1, Ordering::Relaxed);
            let answer = Response::builder()
                .status(engine_status)
                .body(Body::empty())
                .unwrap();
            async { Ok::<_, Problem>(answer) }
        });
        let own = Own::new(engine, "/engine-rest/", None);
        let mut status = String::new();
        for _ in 0..2 {
            let request = Request::get("/health").body(Body::empty()).unwrap();
            let answer = own.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(body.get("engine_url").is_none());
            status = body["status"].as_str().unwrap().to_owned();
            tokio::time::advance(apart).await;
        }
        (status, asked.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn the_engine_is_asked_once_a_second() {
        assert_eq!(
            health(200, Duration::from_millis(999)).await,
            ("healthy".to_owned(), 1)
        );
        assert_eq!(
            health(200, Duration::from_millis(1001)).await,
            ("healthy".to_owned(), 2)
        );
        assert_eq!(
            health(500, Duration::from_secs(2)).await,
            ("degraded".to_owned(), 2)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_not_tried_again_for_a_minute() {
        assert_eq!(
            health(401, Duration::from_secs(59)).await,
            ("degraded".to_owned(), 1)
        );
        assert_eq!(
            health(401, Duration::from_secs(61)).await,
            ("degraded".to_owned(), 2)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_is_not_waited_for() {
        let engine =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<_, Problem>>());
        let own = Own::new(engine, "", None);
        let before = Instant::now();
        let asks = (0..10).map(|_| {
            let request = Request::get("/health").body(Body::empty()).unwrap();
            own.clone().oneshot(request)
        });
        for answer in futures_util::future::join_all(asks).await {
            let body = answer.unwrap().into_body().collect().await.unwrap();
            assert!(body.to_bytes().starts_with(br#"{"engine_reachable":false"#));
        }
        assert!(before.elapsed() <= HealthSettings::default().timeout + Duration::from_millis(10));
    }

    #[tokio::test]
    async fn only_get_and_head_of_health_are_answered() {
        let engine = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(Problem::Internal)
        });
        let own = Own::new(engine, "", None);
        for (method, path, want) in [
            ("POST", "/health", "method_not_allowed"),
            ("GET", "/docs", "not_found"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            assert_eq!(own.clone().oneshot(request).await.unwrap_err().code(), want);
        }
    }
}
