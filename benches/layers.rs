//! What each layer costs a request, and all of them together: over an inner service that answers at once.
//!
//! ```console
//! $ cargo bench --bench layers
//! $ cargo bench --bench layers -- initiator
//! ```
//!
//! Making the request and dropping the answer are not measured. Checks pass their request on as the
//! answer, so dropping it is not measured either; the other layers' figures hold some 0.3 us of that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a set-up ends the bench"
)]

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bpmgate::access::{AccessRules, Builtin};
use bpmgate::body::Body;
use bpmgate::forwarded::TrustedProxies;
use bpmgate::json_body::JsonBodies;
use bpmgate::layer::{
    AuthorizeLayer, CorsLayer, CorsOrigins, CredentialsLayer, EngineAnswerLayer,
    EngineHeadersLayer, ExtractIdentityLayer, InitiatorLayer, MatchOperationLayer,
    NormalizePathLayer, ObserveLayer, ProblemLayer, RewritePathLayer, VerifyTokenLayer,
};
use bpmgate::{Problem, initiator};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, Method, Response, header};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer, Service, ServiceBuilder, service_fn};

#[path = "parts/requests.rs"]
mod requests;
use requests::{
    Ask, Issued, TASKS, browser, drained, gateway, get, large, log_to_nowhere, prefixes, runtime,
    small, start, take,
};

criterion_group! {
    name = layers;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(40);
    targets = paths, tokens, access, headers, bodies, answers, outermost, whole
}
criterion_main!(layers);

fn paths(c: &mut Criterion) {
    let mut normalize = NormalizePathLayer::new().layer(echo());
    measure(c, "normalize_path/plain", &mut normalize, || get(TASKS));
    measure(c, "normalize_path/changed", &mut normalize, || {
        get("/api/t%61sk/?assignee=alice")
    });

    let mut rewrite = RewritePathLayer::new(prefixes(), "/engine-rest").layer(echo());
    measure(c, "rewrite_path/api", &mut rewrite, || get(TASKS));
    measure(c, "rewrite_path/engine-rest", &mut rewrite, || {
        get("/engine-rest/task?assignee=alice")
    });

    let mut operation = MatchOperationLayer::new(prefixes()).layer(echo());
    measure(c, "match_operation/get", &mut operation, || get(TASKS));
    measure(
        c,
        "match_operation/start",
        &mut operation,
        || start(small()),
    );
    measure(c, "match_operation/unknown", &mut operation, || {
        get("/api/no/such/operation")
    });
}

fn tokens(c: &mut Criterion) {
    let issued = Issued::new();
    let request = || issued.by_alice(get(TASKS));
    let mut verify = VerifyTokenLayer::new(issued.verifier.clone()).layer(echo());
    measure(c, "verify_token/rs256", &mut verify, request);
    let cached = issued.verifier.clone().with_cache(10);
    let mut cached = VerifyTokenLayer::new(cached).layer(echo());
    measure(c, "verify_token/cached", &mut cached, request);
    measure(c, "verify_token/missing", &mut verify, || get(TASKS));

    let mut extract = ExtractIdentityLayer::new().layer(echo());
    let verified = || take(&mut verify.clone(), request()).unwrap();
    measure(c, "extract_identity/first", &mut extract, verified);
    let seen = take(&mut extract, verified()).unwrap();
    measure(c, "extract_identity/again", &mut extract, || seen.clone());
}

fn access(c: &mut Criterion) {
    let issued = Issued::new();
    let mut before = ServiceBuilder::new()
        .layer(VerifyTokenLayer::new(issued.verifier.clone()))
        .layer(ExtractIdentityLayer::new())
        .layer(MatchOperationLayer::new(prefixes()))
        .service(echo());
    let rules = Arc::new(AccessRules::new(Builtin::User));
    let mut authorize = AuthorizeLayer::new(rules).layer(echo());
    let read = take(&mut before, issued.by_alice(get(TASKS))).unwrap();
    measure(c, "authorize/read", &mut authorize, || read.clone());
    let denied = issued.by_alice(get("/api/user"));
    let denied = take(&mut before, denied).unwrap();
    measure(c, "authorize/denied", &mut authorize, || denied.clone());
}

fn headers(c: &mut Criterion) {
    let mut clean = EngineHeadersLayer::new(TrustedProxies::default(), true).layer(echo());
    measure(c, "engine_headers/browser", &mut clean, || {
        browser(get(TASKS))
    });
    measure(c, "engine_headers/program", &mut clean, || get(TASKS));
    let mut basic = CredentialsLayer::basic("demo", "demo").layer(echo());
    measure(c, "credentials/basic", &mut basic, || get(TASKS));
}

fn bodies(c: &mut Criterion) {
    let issued = Issued::new();
    let mut before = ServiceBuilder::new()
        .layer(VerifyTokenLayer::new(issued.verifier.clone()))
        .layer(ExtractIdentityLayer::new())
        .layer(MatchOperationLayer::new(prefixes()))
        .layer(AuthorizeLayer::new(Arc::new(AccessRules::new(
            Builtin::User,
        ))))
        .service(echo());
    let mut write = InitiatorLayer::new(initiator::Settings::default(), JsonBodies::new(16 << 20))
        .layer(echo());
    for (name, body) in [("initiator/1KB", small()), ("initiator/256KB", large())] {
        let request = take(&mut before, issued.by_alice(start(body))).unwrap();
        measure(c, name, &mut write, || request.clone());
    }
    let request = take(&mut before, issued.by_alice(get(TASKS))).unwrap();
    measure(c, "initiator/pass", &mut write, || request.clone());
}

fn answers(c: &mut Criterion) {
    let layer = EngineAnswerLayer::new(prefixes(), "/engine-rest", None, TrustedProxies::default());
    let mut plain = layer.layer(answering(Bytes::from(vec![b' '; 1024])));
    measure(c, "engine_answer/plain", &mut plain, || get(TASKS));

    let links = json!({"links": [{
        "method": "GET", "rel": "self",
        "href": "http://10.0.0.1:8080/engine-rest/process-instance/8f6b",
    }], "id": "8f6b", "definitionId": "order:1:7", "ended": false});
    let links = ServiceBuilder::new()
        .layer(MatchOperationLayer::new(prefixes()))
        .layer(layer)
        .service(answering(links.to_string().into()));
    let mut links = links;
    measure(c, "engine_answer/links", &mut links, || start(small()));
}

fn outermost(c: &mut Criterion) {
    let app = HeaderValue::from_static("https://app.example");
    let layer = CorsLayer::new(CorsOrigins::List(vec![app]), true);
    let mut cors = layer.layer(service_fn(hello));
    measure(c, "cors/same origin", &mut cors, || get(TASKS));
    measure(c, "cors/other origin", &mut cors, || browser(get(TASKS)));
    measure(c, "cors/preflight", &mut cors, || {
        let mut request = browser(get(TASKS));
        *request.method_mut() = Method::OPTIONS;
        let asked = HeaderValue::from_static("POST");
        let headers = request.headers_mut();
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, asked);
        request
    });

    let mut passed = ProblemLayer::new().layer(service_fn(hello));
    measure(c, "problems/passed", &mut passed, || get(TASKS));
    let mut refused = ProblemLayer::new().layer(service_fn(|_: Ask| {
        ready(Err::<Response<Body>, _>(Problem::TokenExpired))
    }));
    measure(c, "problems/refused", &mut refused, || get(TASKS));

    let mut observe = drained(ObserveLayer::new().layer(service_fn(hello)));
    measure(c, "observe/no log", &mut observe, || get(TASKS));
    let logged = ObserveLayer::new().with_access_log(Some(log_to_nowhere()));
    let mut logged = drained(logged.layer(service_fn(hello)));
    measure(c, "observe/log", &mut logged, || get(TASKS));
}

/// The gateway's stack, its access log written to nowhere, before an engine that answers at once.
fn whole(c: &mut Criterion) {
    let issued = Issued::new();
    let mut gateway = gateway(&issued);
    // The server does so for each request.
    c.bench_function("gateway/clone", |bencher| bencher.iter(|| gateway.clone()));
    // The deadline's timer is a runtime's.
    let runtime = runtime();
    let _inside = runtime.enter();
    for (name, request, status) in [
        ("gateway/get", issued.by_alice(get(TASKS)), 200),
        ("gateway/browser", issued.by_alice(browser(get(TASKS))), 200),
        ("gateway/start 1KB", issued.by_alice(start(small())), 200),
        ("gateway/refused", get(TASKS), 401),
    ] {
        assert_eq!(take(&mut gateway, request.clone()).unwrap(), status);
        measure(c, name, &mut gateway, || request.clone());
    }
}

/// Measures calls of a service that is always ready and never waits.
fn measure<S>(c: &mut Criterion, name: &str, service: &mut S, request: impl Fn() -> Ask)
where
    S: Service<Ask>,
{
    c.bench_function(name, |bencher| {
        bencher.iter_batched(
            &request,
            |request| take(service, black_box(request)),
            BatchSize::SmallInput,
        );
    });
}

/// Answers with the request.
fn echo() -> impl Service<Ask, Response = Ask, Error = Problem, Future: Send> + Clone + Send {
    service_fn(|request: Ask| ready(Ok(request)))
}

fn answering(
    body: Bytes,
) -> impl Service<Ask, Response = Response<Body>, Error = Problem, Future: Send> + Clone + Send {
    service_fn(move |_: Ask| ready(Ok(Response::new(Body::from(body.clone())))))
}

async fn hello(_: Ask) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}
