//! The composition: a request's way through the gateway, readable from top to bottom.
//!
//! Verify the token, extract who calls, check what they may do, rewrite the path, put the engine's
//! credentials in, write the initiator, and stream it to the engine. A request that is rejected ends
//! above the deadline: it never opens or uses a connection to the engine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower::{Layer as _, Service, ServiceBuilder};

use crate::access::AccessRules;
use crate::access_log::AccessLog;
use crate::audit::AuditLog;
use crate::body::{Body, BoxError};
use crate::engine::{EngineError, EngineService, Nodes};
use crate::forwarded::TrustedProxies;
use crate::initiator;
use crate::json_body::JsonBodies;
use crate::layer::{
    AdmitLayer, AuditLayer, AuthorizeLayer, CorsLayer, CredentialsLayer, DeadlineLayer,
    EndLongPollsLayer, EndOfLongPolls, EngineAnswerLayer, EngineHeadersLayer, ExtractIdentityLayer,
    InitiatorLayer, LimitCallerLayer, LimitRateLayer, MatchOperationLayer, MeasureEngineLayer,
    NormalizePathLayer, OWN_PATHS, ObserveLayer, Own, Pages, ProblemLayer, RetryBudget, RetryLayer,
    RewritePathLayer, RouteLayer, TraceEngineLayer, TraceLayer, VerifyTokenLayer,
};
use crate::metrics::Metrics;
use crate::model::{ModelMemory, Models};
use crate::problem::Problem;
use crate::rate_limit::{RateLimitStage, RateLimits};
use crate::token::Verifier;
use crate::traces::Traces;
use crate::workflow::{WorkflowLayer, openapi};

// A layer that the configuration can switch off is there all the same, and passes: with `option_layer` everything below
// would be compiled twice, and twice again for the next.

/// What the layers work with.
#[derive(Debug, Clone)]
pub struct Resources {
    /// The public prefixes, each of which means the engine's REST root.
    pub prefixes: Vec<String>,
    /// The path of that root: `/engine-rest`.
    pub engine_path: String,
    /// The engine's address, where `/health` may name it.
    pub shown_engine_url: Option<String>,
    /// The engine's nodes.
    pub nodes: Nodes,
    /// What is counted.
    pub metrics: Metrics,
    /// Who writes the access log; without it its lines are events of `tracing`.
    pub access_log: Option<AccessLog>,
    /// Who makes spans of requests, if anybody does.
    pub traces: Option<Traces>,
    /// Host and port of each of the engine's nodes, in their order, as spans name them.
    pub engine_addresses: Vec<(String, u16)>,
    /// What clients call the gateway; without it the request says so.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether the engine gets the client's `Host`.
    pub preserve_host: bool,
    /// The engine's own account.
    pub credentials: CredentialsLayer,
    /// Pages of the gateway's own beside its usual ones.
    pub pages: Option<Pages>,
    /// Which origins may read answers.
    pub cors: CorsLayer,
    /// Whose tokens are taken.
    pub verifier: Verifier,
    /// Who may do what.
    pub access: Arc<AccessRules>,
    /// Where it is recorded who did what, if it is.
    pub audit: Option<AuditLog>,
    /// Which variables say who started a process.
    pub initiator: initiator::Settings,
    /// What is known of process models; `None` leaves their own initiator variables alone.
    pub models: Option<ModelMemory>,
    /// Where the workflow API is served; `None` leaves the transparent gateway alone.
    pub workflow_prefix: Option<String>,
    /// The largest body that is read and rewritten, in bytes.
    pub rewritten_body: u64,
    /// The largest streamed body, in bytes; `None` is unlimited.
    pub request_body: Option<u64>,
    /// Requests at once.
    pub requests_in_flight: usize,
    /// Requests that wait where so many are in flight.
    pub requests_queued: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// Requests of one caller at once.
    pub requests_in_flight_per_caller: usize,
    /// Long polls at once, beside the other requests.
    pub long_polls: usize,
    /// Ends those that wait when the gateway ends.
    pub end_of_long_polls: EndOfLongPolls,
    /// Long polls of one caller at once, beside the caller's other requests.
    pub long_polls_per_caller: usize,
    /// How many requests in a time.
    pub rate_limits: RateLimits,
    /// The longest wait for the head of the engine's answer.
    pub response_timeout: Duration,
    /// How often a request is sent again, where it may be.
    pub retry_attempts: u32,
    /// The first wait between two tries.
    pub retry_backoff: Duration,
    /// How many of these there may be.
    pub retry_budget: RetryBudget,
}

/// Builds the gateway over a service that sends requests to the engine.
pub fn stack<E>(
    resources: &Resources,
    engine: E,
) -> impl Service<
    Request<Body>,
    Response = Response<impl HttpBody<Data = Bytes, Error = BoxError> + Send + use<E>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<E>
where
    E: EngineService<EngineError>,
{
    let r = resources;
    let asked_once = r.credentials.layer(engine.clone());
    let asked_by_us = asked_by_us(r, engine.clone());
    let engine = reached(r, engine);
    let models = r
        .models
        .clone()
        .map(|memory| Models::new(asked_by_us.clone(), &r.engine_path, memory));
    let bodies = JsonBodies::new(r.rewritten_body);
    let document = r
        .workflow_prefix
        .as_deref()
        .map(|prefix| openapi::document(prefix, r.public_url.as_deref()));
    let own = Own::new(asked_once, &r.engine_path, r.shown_engine_url.clone())
        .with_health(r.nodes.health())
        .with_document(document, r.public_url.as_deref())
        .with_pages(r.pages.clone());
    let pages = r.pages.iter().map(Pages::path);

    ServiceBuilder::new()
        // outermost: whatever happens has an id, and one line in the log when it has ended
        .layer(ObserveLayer::with_metrics(r.metrics.clone()).with_access_log(r.access_log.clone()))
        // the whole of what the client sees; below the line in the log, which names the trace
        .layer(TraceLayer::new(r.traces.clone(), r.trusted_proxies.clone()))
        // above the problems: a browser shows a frontend only errors that carry its origin
        .layer(r.cors.clone())
        // above everything that can fail, and the only place that makes answers of problems
        .layer(ProblemLayer::new())
        // from here on there is one path, and nobody looks at another
        .layer(NormalizePathLayer::new())
        // before any work is done
        .layer(
            AdmitLayer::new(r.requests_in_flight, r.request_body)
                .with_queue(r.requests_queued, r.queue_timeout)
                .with_long_polls(r.long_polls)
                .with_metrics(r.metrics.clone()),
        )
        // the gateway's own routes need no token
        .layer(RouteLayer::new(
            own,
            OWN_PATHS
                .into_iter()
                .chain(pages)
                .map(str::to_owned)
                .collect(),
            r.prefixes.clone(),
        ))
        // above the signature check: it is what a flood of bad tokens costs
        .layer(limit_rate(r, RateLimitStage::Client))
        // verify the JWT: nothing below runs for a caller who is nobody
        .layer(VerifyTokenLayer::new(r.verifier.clone()))
        // extract the claims: who calls
        .layer(ExtractIdentityLayer::new())
        // as soon as it is known who calls, and before anything is done for them
        .layer(LimitCallerLayer::with_long_polls(
            r.requests_in_flight_per_caller,
            r.long_polls_per_caller,
        ))
        .layer(limit_rate(r, RateLimitStage::Caller))
        // what frontends call becomes what the engine calls it; from here on there is no difference
        .layer(
            WorkflowLayer::new(r.workflow_prefix.as_deref(), bodies.clone())
                .with_access(r.access.clone()),
        )
        // what the caller wants to do; access, injection, metrics and audit all read this one row
        .layer(MatchOperationLayer::new(r.prefixes.clone()))
        // as soon as it is known what for
        .layer(limit_rate(r, RateLimitStage::Operation))
        // below the match, which says what writes, and above all that may deny: it records both
        .layer(AuditLayer::new(r.audit.clone(), r.trusted_proxies.clone()))
        // check what the caller may do
        .layer(AuthorizeLayer::new(r.access.clone()))
        // above the rewrite: it turns the engine's addresses into those that the client used
        .layer(
            EngineAnswerLayer::new(
                r.prefixes.clone(),
                &r.engine_path,
                r.public_url.clone(),
                r.trusted_proxies.clone(),
            )
            .with_models(models.clone()),
        )
        // rewrite `/api` to `/engine-rest`
        .layer(RewritePathLayer::new(r.prefixes.clone(), &r.engine_path))
        // nothing of the client's that the engine could read as identity; before ours is put in
        .layer(EngineHeadersLayer::new(
            r.trusted_proxies.clone(),
            r.preserve_host,
        ))
        // put the engine's BasicAuth in
        .layer(r.credentials.clone())
        // write `initiator`, `initiatorEmail`, `initiatorName`; innermost, so nothing changes them later
        .layer(
            InitiatorLayer::new(r.initiator.clone(), bodies)
                .with_models(models)
                .with_metrics(r.metrics.clone()),
        )
        // above the measurement, which is not to count what the engine did not answer
        .layer(EndLongPollsLayer::new(r.end_of_long_polls.clone()))
        // around all tries: how long the engine takes
        .layer(MeasureEngineLayer::new(r.metrics.clone()))
        // the same, as a span that the engine can continue
        .layer(TraceEngineLayer::new(r.traces.clone(), &r.engine_addresses))
        .service(engine)
}

/// The rate limits that count at this stage.
fn limit_rate(resources: &Resources, stage: RateLimitStage) -> LimitRateLayer {
    LimitRateLayer::new(resources.rate_limits.at(stage))
        .with_trusted_proxies(resources.trusted_proxies.clone())
        .with_verifier(resources.verifier.clone())
}

/// The engine for the gateway's own questions: they need its account, and nothing else of a request's way.
fn asked_by_us<E>(resources: &Resources, engine: E) -> impl EngineService<Problem> + use<E>
where
    E: EngineService<EngineError>,
{
    ServiceBuilder::new()
        .layer(resources.credentials.clone())
        .service(reached(resources, engine))
}

/// The engine within its time, and tried again where that does no harm.
fn reached<E>(resources: &Resources, engine: E) -> impl EngineService<Problem> + use<E>
where
    E: EngineService<EngineError>,
{
    ServiceBuilder::new()
        // above the retries, so that all of them together have one budget
        .layer(DeadlineLayer::new(resources.response_timeout))
        // next to the engine: only here it is known whether anything was sent
        .layer(
            RetryLayer::new(resources.retry_attempts, resources.retry_backoff)
                .with_budget(resources.retry_budget.clone())
                .with_metrics(resources.metrics.clone()),
        )
        .service(engine)
}
