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
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bpmgate::access::{AccessRules, Builtin};
use bpmgate::body::Body;
use bpmgate::engine::EngineError;
use bpmgate::forwarded::TrustedProxies;
use bpmgate::gateway::{Resources, stack};
use bpmgate::json_body::JsonBodies;
use bpmgate::layer::{
    AuthorizeLayer, CorsLayer, CorsOrigins, CredentialsLayer, EngineAnswerLayer,
    EngineHeadersLayer, ExtractIdentityLayer, InitiatorLayer, MatchOperationLayer,
    NormalizePathLayer, ObserveLayer, ProblemLayer, RewritePathLayer, VerifyTokenLayer,
};
use bpmgate::model::ModelSettings;
use bpmgate::request_info::Peer;
use bpmgate::token::{Issuer, IssuerRules, KeySet, Preset, Verifier};
use bpmgate::{Problem, demo, initiator};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

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
    logging(|| measure(c, "observe/log", &mut observe, || get(TASKS)));
}

/// The gateway's stack, its access log written to nowhere, before an engine that answers at once.
fn whole(c: &mut Criterion) {
    let issued = Issued::new();
    let resources = Resources {
        prefixes: prefixes(),
        engine_path: "/engine-rest".to_owned(),
        shown_engine_url: None,
        public_url: None,
        trusted_proxies: TrustedProxies::default(),
        preserve_host: true,
        credentials: CredentialsLayer::basic("demo", "demo"),
        pages: None,
        cors: CorsLayer::new(CorsOrigins::List(Vec::new()), true),
        verifier: issued.verifier.clone(),
        access: Arc::new(AccessRules::new(Builtin::User)),
        audit: None,
        initiator: initiator::Settings::default(),
        models: Some(ModelSettings {
            believed: Duration::from_secs(1),
            entries: 10_000,
            names: Vec::new(),
        }),
        workflow_prefix: Some("/api".into()),
        rewritten_body: 16 << 20,
        request_body: Some(1 << 30),
        requests_in_flight: 10_000,
        requests_in_flight_per_caller: 10_000,
        response_timeout: Duration::from_secs(30),
        retry_attempts: 3,
        retry_backoff: Duration::from_millis(500),
    };
    let xml = json!({"id": "order:1:7", "bpmn20Xml": demo::engine::SAMPLE});
    let (xml, definition) = (Bytes::from(xml.to_string()), r#"{"id":"order:1:7"}"#);
    let engine = service_fn(move |request: Request<Body>| {
        let body = match request.uri().path() {
            path if path.ends_with("/xml") => xml.clone(),
            path if path.ends_with("/key/order") => Bytes::from_static(definition.as_bytes()),
            _ => Bytes::from_static(&[b' '; 1024]),
        };
        ready(Ok::<_, EngineError>(Response::new(Body::from(body))))
    });
    let gateway = stack(&resources, engine);
    let received = |request: Ask| {
        let mut request = request.map(Body::stream);
        request.extensions_mut().insert(Peer {
            address: Ipv4Addr::LOCALHOST.into(),
            tls: false,
        });
        request
    };
    // The server does so for each request.
    c.bench_function("gateway/clone", |bencher| bencher.iter(|| gateway.clone()));
    let mut gateway = drained(gateway.map_request(received));
    // The deadline's timer is a runtime's.
    let runtime = runtime();
    let _inside = runtime.enter();
    logging(|| {
        for (name, request, status) in [
            ("gateway/get", issued.by_alice(get(TASKS)), 200),
            ("gateway/browser", issued.by_alice(browser(get(TASKS))), 200),
            ("gateway/start 1KB", issued.by_alice(start(small())), 200),
            ("gateway/refused", get(TASKS), 401),
        ] {
            assert_eq!(take(&mut gateway, request.clone()).unwrap(), status);
            measure(c, name, &mut gateway, || request.clone());
        }
    });
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

fn take<S: Service<Ask>>(service: &mut S, request: Ask) -> Result<S::Response, S::Error> {
    let answer = service.call(request).now_or_never();
    answer.expect("nothing here waits")
}

/// A request as a client sends it.
type Ask = Request<Full<Bytes>>;

fn get(target: &str) -> Ask {
    Request::get(target)
        .header(header::HOST, "gate.example")
        .header(header::ACCEPT, "application/json")
        .body(Full::default())
        .unwrap()
}

fn start(body: Bytes) -> Ask {
    Request::post("/api/process-definition/key/order/start")
        .header(header::HOST, "gate.example")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(Full::new(body))
        .unwrap()
}

/// Adds what a browser sends from a frontend on another origin.
fn browser(mut request: Ask) -> Ask {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";
    for (name, value) in [
        (header::USER_AGENT, agent),
        (header::ACCEPT_LANGUAGE, "de-DE,de;q=0.9,en;q=0.8"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::ORIGIN, "https://app.example"),
        (header::REFERER, "https://app.example/tasks"),
        (header::COOKIE, "session=1; theme=dark"),
        (header::HeaderName::from_static("sec-fetch-dest"), "empty"),
        (header::HeaderName::from_static("sec-fetch-mode"), "cors"),
        (
            header::HeaderName::from_static("sec-fetch-site"),
            "cross-site",
        ),
        (header::HeaderName::from_static("sec-ch-ua-mobile"), "?0"),
    ] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    request
}

/// A start of 1 KB that claims to be somebody else's.
fn small() -> Bytes {
    body(9)
}

/// The same with 256 KB.
fn large() -> Bytes {
    body(2700)
}

fn body(variables: usize) -> Bytes {
    let text = "An order of seven desks and \"a chair\", to be paid in the next month.";
    let mut map = serde_json::Map::new();
    for number in 0..variables {
        let value = json!({"value": text, "type": "String"});
        map.insert(format!("line{number}"), value);
    }
    let director = json!({"value": "the-director"});
    map.insert("initiator".to_owned(), director);
    json!({"variables": map}).to_string().into()
}

fn prefixes() -> Vec<String> {
    ["/api", "/engine-rest"].map(str::to_owned).to_vec()
}

/// An issuer's keys and a token that is good for an hour.
struct Issued {
    verifier: Verifier,
    bearer: HeaderValue,
}

impl Issued {
    fn new() -> Self {
        runtime().block_on(async {
            let issuer = demo::issuer::Issuer::start().await.unwrap();
            let mut rules = IssuerRules::new(Preset::Oidc, issuer.url());
            rules.audience = vec!["bench".to_owned()];
            let keys = KeySet::from_jwks(issuer.jwks().to_string().as_bytes()).unwrap();
            let token = issuer.token(&json!({
                "sub": "3f6c2c52-8a4e-4a63-9b7e-0d5f6a1c2b3d", "aud": "bench",
                "email": "alice@example.org", "name": "Alice Example",
            }));
            Self {
                verifier: Verifier::new([(Issuer::new(rules).unwrap(), keys)]).unwrap(),
                bearer: HeaderValue::try_from(format!("Bearer {token}")).unwrap(),
            }
        })
    }

    fn by_alice(&self, mut request: Ask) -> Ask {
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.bearer.clone());
        request
    }
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

/// Reads the answer's body to its end, as the server does.
fn drained<S, R>(service: S) -> impl Service<Ask, Response = StatusCode, Error = S::Error>
where
    S: Service<Ask, Response = Response<R>>,
    R: http_body::Body,
{
    service.map_response(|answer: Response<R>| {
        let status = answer.status();
        let body = answer.into_body().collect().now_or_never();
        assert!(body.is_some_and(|body| body.is_ok()));
        status
    })
}

/// Runs `measuring` with log lines as the gateway writes them, to nowhere.
fn logging(measuring: impl FnOnce()) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::sink)
        .with_target(false)
        .with_ansi(false);
    let ours = Targets::new().with_target("bpmgate", LevelFilter::INFO);
    let subscriber = tracing_subscriber::registry().with(ours).with(lines);
    tracing::subscriber::with_default(subscriber, measuring);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

const TASKS: &str = "/api/task?assignee=alice&sortBy=created&sortOrder=desc";
