//! The operator's own listener: whether the gateway lives, whether it is ready, and what it works with.
//!
//! It has an address of its own, and nothing of it is reachable on the public one. There is no token: who
//! reaches the address may read it all, so it belongs on the loopback or on a network of the operator's.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 `ok`, as long as the process answers at all |
//! | `/readyz` | 200 if there are keys for every issuer, a node of the engine answers and the gateway does not drain; else 503. The JSON names what is missing |
//! | `/metrics` | what is counted, as Prometheus text, or as `OpenMetrics` where `Accept` names it (docs/metrics.md) |
//! | `/status` | versions, the effective configuration with secrets masked, when it was loaded and why it could not be loaded again, the engine's nodes with health, breaker, version and flavour, issuers with key ids and ages, requests in flight, and what each rate limit keeps and has refused |
//!
//! GET and HEAD alone; every other answer is a problem. Each node of the engine is asked at most once a second, together with `/health`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer, Service};

use crate::body::{Body, BoxError};
use crate::config::Config;
use crate::engine::health::NodeReport;
use crate::engine::nodes::NodeFigures;
use crate::engine::{EngineError, EngineHealth, EngineService, Nodes};
use crate::gateway::Resources;
use crate::layer::own::json_answer;
use crate::layer::{ProblemLayer, Problems};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rate_limit::RateLimits;
use crate::server::{Connections, Limits, Reloads};
use crate::telemetry::metrics::{Format, exposition};
use crate::token::{IssuerKeys, Verifier};

/// Answers an operator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin<E> {
    engine: E,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    verifier: Verifier,
    health: EngineHealth,
    nodes: Nodes,
    engine_path: String,
    /// The effective configuration, secrets masked.
    config: Value,
    metrics: Metrics,
    rate_limits: RateLimits,
    reloads: Reloads,
    draining: Draining,
}

/// Whether the gateway takes leave. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on the gateway is not ready.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Admin<()> {
    /// For a gateway of this configuration with these resources, before this engine. A reload makes another one, which shares
    /// `reloads` and `draining`.
    ///
    /// # Errors
    /// The configuration cannot be shown.
    pub fn new<E>(
        config: &Config,
        resources: &Resources,
        engine: E,
        reloads: &Reloads,
        draining: &Draining,
    ) -> Result<Admin<impl EngineService<Problem> + use<E>>, BoxError>
    where
        E: EngineService<EngineError>,
    {
        Ok(Admin {
            engine: resources.credentials.layer(engine),
            shared: Arc::new(Shared {
                verifier: resources.verifier.clone(),
                nodes: resources.nodes.clone(),
                health: resources.nodes.health(),
                engine_path: resources.engine_path.clone(),
                config: serde_json::to_value(config)?,
                metrics: resources.metrics.clone(),
                rate_limits: resources.rate_limits.clone(),
                reloads: reloads.clone(),
                draining: draining.clone(),
            }),
        })
    }
}

impl<E> Admin<E>
where
    E: EngineService<Problem>,
{
    /// What serves it, within these limits; [`CONNECTIONS`] at once are enough.
    #[must_use]
    pub fn connections(self, limits: &Limits) -> Connections<Problems<Self>> {
        let limits = Limits {
            connections: CONNECTIONS,
            ..limits.clone()
        };
        Connections::new(self.service(), limits)
    }

    /// What answers, its problems too.
    #[must_use]
    pub fn service(self) -> Problems<Self> {
        ProblemLayer::new().layer(self)
    }

    async fn ready(self) -> Response<Body> {
        let without_keys: Vec<&str> = self
            .shared
            .verifier
            .issuers()
            .filter(|(_, keys)| keys.current().is_none_or(|keys| keys.is_empty()))
            .map(|(issuer, _)| issuer.as_str())
            .collect();
        let engine_reachable = self.engine_is_reachable().await;
        let nodes = self.shared.health.report().await;
        let nodes_down: Vec<&str> = nodes
            .iter()
            .filter(|node| !node.is_up)
            .map(|node| node.name.as_str())
            .collect();
        let draining = self.shared.draining.has_begun();
        let ready = without_keys.is_empty() && engine_reachable && !draining;
        let shape = json!({
            "ready": ready,
            "draining": draining,
            "engine_reachable": engine_reachable,
            "engine_nodes_down": nodes_down,
            "issuers_without_keys": without_keys,
        });
        let mut answer = json_answer(shape.to_string().into());
        if !ready {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    }

    async fn status(self) -> Response<Body> {
        let shared = &self.shared;
        let issuers: Vec<Value> = shared
            .verifier
            .issuers()
            .map(|(issuer, keys)| issuer_status(issuer.as_str(), keys))
            .collect();
        let rate_limits: Vec<Value> = shared
            .rate_limits
            .iter()
            .map(|limit| json!({"name": limit.name(), "keys": limit.keys(), "refused": limit.refused()}))
            .collect();
        let history = shared.reloads.history();
        let time = |time: SystemTime| humantime::format_rfc3339_millis(time).to_string();
        let reload = json!({
            "loaded_at": time(history.loaded_at),
            "reloads": history.succeeded,
            "failures": history.failed,
            "last_failed": history.failure.is_some(),
            "failed_at": history.failure.as_ref().map(|(at, _)| time(*at)),
            "last_error": history.failure.as_ref().map(|(_, why)| why),
            "needs_restart": history.waiting,
        });
        let engine_reachable = self.engine_is_reachable().await;
        let reports = shared.nodes.health().report().await;
        let nodes: Vec<Value> = reports
            .iter()
            .zip(shared.nodes.figures())
            .map(|(report, figures)| node_status(report, &figures))
            .collect();
        let shape = json!({
            "versions": { "bpmgate": env!("CARGO_PKG_VERSION") },
            "started_at": time(history.began_at),
            "uptime_seconds": history.began.elapsed().as_secs(),
            "configuration": reload,
            "draining": shared.draining.has_begun(),
            "engine_reachable": engine_reachable,
            "engine_nodes": nodes,
            "issuers": issuers,
            "requests_in_flight": shared.metrics.in_flight(),
            "requests_queued": shared.metrics.requests_queued(),
            "long_polls_waiting": shared.metrics.long_polls(),
            "rate_limits": rate_limits,
            "config": shared.config,
        });
        json_answer(shape.to_string().into())
    }

    fn metrics(&self, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let format = Format::asked_for(&headers.get_all(ACCEPT));
        let Shared {
            verifier,
            metrics,
            rate_limits,
            nodes,
            reloads,
            ..
        } = &*self.shared;
        let loads = reloads.history();
        let text = exposition(metrics, verifier, rate_limits, nodes, &loads, format)
            .map_err(|_| Problem::Internal)?;
        Ok(text_answer(text.into(), format.content_type()))
    }

    async fn engine_is_reachable(&self) -> bool {
        let Shared {
            health,
            engine_path,
            ..
        } = &*self.shared;
        health.ask(self.engine.clone(), engine_path).await
    }
}

fn node_status(report: &NodeReport, figures: &NodeFigures<'_>) -> Value {
    json!({
        "node": report.name,
        "up": report.is_up,
        "status": report.status,
        "asked_seconds_ago": report.age.map(|age| age.as_secs()),
        "version": report.version,
        "product": report.product,
        "breaker": figures.breaker.as_str(),
        "connections_open": figures.open,
        "connections_idle": figures.idle,
        "requests": figures.requests,
    })
}

fn issuer_status(issuer: &str, keys: &IssuerKeys) -> Value {
    match keys {
        IssuerKeys::Fixed(keys) => json!({
            "issuer": issuer,
            "keys": keys.len(),
            "key_ids": keys.key_ids().collect::<Vec<_>>(),
        }),
        IssuerKeys::Live(keys) => {
            let status = keys.status();
            json!({
                "issuer": issuer,
                "keys": status.keys,
                "key_ids": status.key_ids,
                "age_seconds": status.age.map(|age| age.as_secs()),
                "fetches": status.fetches,
                "failures": status.failures,
                "last_error": status.last_error,
            })
        }
    }
}

impl<E> Service<Request<Body>> for Admin<E>
where
    E: EngineService<Problem>,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let admin = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            if !PATHS.contains(&path) {
                return Err(Problem::NotFound);
            }
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                return Err(Problem::MethodNotAllowed("GET, HEAD".into()));
            }
            match path {
                "/livez" => Ok(text_answer(Bytes::from_static(b"ok\n"), PLAIN)),
                "/metrics" => admin.metrics(request.headers()),
                "/readyz" => Ok(admin.ready().await),
                _ => Ok(admin.status().await),
            }
        })
    }
}

/// Text that nobody keeps.
fn text_answer(text: Bytes, content_type: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Connections of operators at once; more wait.
pub const CONNECTIONS: usize = 64;

const PATHS: [&str; 4] = ["/livez", "/metrics", "/readyz", "/status"];
const PLAIN: &str = "text/plain; charset=utf-8";
