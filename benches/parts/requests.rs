//! What the benches share: requests, a token, the gateway before an engine that answers at once.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "each bench uses its part of it"
)]

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bpmgate::access::{AccessRules, Builtin};
use bpmgate::access_log::AccessLog;
use bpmgate::body::Body;
use bpmgate::config::LogFormat;
use bpmgate::engine::{EngineError, Nodes};
use bpmgate::forwarded::TrustedProxies;
use bpmgate::gateway::{Resources, stack};
use bpmgate::layer::{CorsLayer, CorsOrigins, CredentialsLayer, EndOfLongPolls, RetryBudget};
use bpmgate::metrics::Metrics;
use bpmgate::model::{ModelMemory, ModelSettings};
use bpmgate::rate_limit::RateLimits;
use bpmgate::request_info::Peer;
use bpmgate::telemetry::with_text;
use bpmgate::token::{Issuer, IssuerRules, KeySet, Preset, Verifier};
use bpmgate::{demo, initiator};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::{Service, ServiceExt, service_fn};

/// The gateway's stack with the defaults, before an engine that answers at once.
pub fn gateway(
    issued: &Issued,
) -> impl Service<Ask, Response = StatusCode, Error = Infallible> + Clone + use<> {
    gateway_with(issued, AccessRules::new(Builtin::User))
}

/// The same with these rules.
pub fn gateway_with(
    issued: &Issued,
    access: AccessRules,
) -> impl Service<Ask, Response = StatusCode, Error = Infallible> + Clone + use<> {
    let resources = Resources {
        traces: None,
        engine_addresses: vec![("127.0.0.1".to_owned(), 8080)],
        prefixes: prefixes(),
        engine_path: "/engine-rest".to_owned(),
        shown_engine_url: None,
        metrics: Metrics::default(),
        access_log: Some(log_to_nowhere()),
        nodes: Nodes::default(),
        public_url: None,
        trusted_proxies: TrustedProxies::default(),
        preserve_host: true,
        credentials: CredentialsLayer::basic("demo", "demo"),
        pages: None,
        cors: CorsLayer::new(CorsOrigins::List(Vec::new()), true),
        verifier: issued.verifier.clone().with_cache(10_000),
        access: Arc::new(access),
        audit: None,
        initiator: initiator::Settings::default(),
        models: Some(ModelMemory::new(ModelSettings {
            // Longer than a busy machine takes from one request to the next.
            believed: Duration::from_hours(1),
            entries: 10_000,
            names: Vec::new(),
        })),
        workflow_prefix: Some("/api".into()),
        rewritten_body: 16 << 20,
        request_body: Some(1 << 30),
        requests_in_flight: 10_000,
        requests_queued: 1000,
        queue_timeout: Duration::from_secs(1),
        requests_in_flight_per_caller: 10_000,
        long_polls: 2000,
        end_of_long_polls: EndOfLongPolls::default(),
        long_polls_per_caller: 50,
        rate_limits: RateLimits::default(),
        response_timeout: Duration::from_secs(30),
        retry_attempts: 3,
        retry_backoff: Duration::from_millis(500),
        retry_budget: RetryBudget::new(20, 10, 0),
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
    drained(gateway.map_request(received))
}

pub fn take<S: Service<Ask>>(service: &mut S, request: Ask) -> Result<S::Response, S::Error> {
    let answer = service.call(request).now_or_never();
    answer.expect("nothing here waits")
}

/// A request as a client sends it.
pub type Ask = Request<Full<Bytes>>;

pub fn get(target: &str) -> Ask {
    Request::get(target)
        .header(header::HOST, "gate.example")
        .header(header::ACCEPT, "application/json")
        .body(Full::default())
        .unwrap()
}

pub fn start(body: Bytes) -> Ask {
    Request::post("/api/process-definition/key/order/start")
        .header(header::HOST, "gate.example")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(Full::new(body))
        .unwrap()
}

/// Adds what a browser sends from a frontend on another origin.
pub fn browser(mut request: Ask) -> Ask {
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
pub fn small() -> Bytes {
    body(9)
}

/// The same with 256 KB.
pub fn large() -> Bytes {
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

pub fn prefixes() -> Vec<String> {
    ["/api", "/engine-rest"].map(str::to_owned).to_vec()
}

fn alices(issuer: &demo::issuer::Issuer, number: u32) -> HeaderValue {
    let token = issuer.token(&json!({
        "sub": "3f6c2c52-8a4e-4a63-9b7e-0d5f6a1c2b3d", "aud": "bench", "jti": number,
        "email": "alice@example.org", "name": "Alice Example",
    }));
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

/// An issuer's keys and a token that is good for an hour.
pub struct Issued {
    pub verifier: Verifier,
    issuer: demo::issuer::Issuer,
    bearer: HeaderValue,
}

impl Issued {
    pub fn new() -> Self {
        runtime().block_on(async {
            let issuer = demo::issuer::Issuer::start().await.unwrap();
            let mut rules = IssuerRules::new(Preset::Oidc, issuer.url());
            rules.audience = vec!["bench".to_owned()];
            let keys = KeySet::from_jwks(issuer.jwks().to_string().as_bytes()).unwrap();
            let verifier = Verifier::new([(Issuer::new(rules).unwrap(), keys)]).unwrap();
            let bearer = alices(&issuer, 0);
            Self {
                verifier,
                issuer,
                bearer,
            }
        })
    }

    /// A token that differs from every other.
    pub fn another(&self) -> HeaderValue {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        alices(&self.issuer, NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    pub fn by_alice(&self, mut request: Ask) -> Ask {
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.bearer.clone());
        request
    }
}

/// Reads the answer's body to its end, as the server does.
pub fn drained<S, R>(
    service: S,
) -> impl Service<Ask, Response = StatusCode, Error = S::Error> + Clone
where
    S: Service<Ask, Response = Response<R>> + Clone,
    R: http_body::Body,
{
    service.map_response(|answer: Response<R>| {
        let status = answer.status();
        let body = answer.into_body().collect().now_or_never();
        assert!(body.is_some_and(|body| body.is_ok()));
        status
    })
}

/// Writes the lines of the access log as the gateway does, to nowhere.
pub fn log_to_nowhere() -> AccessLog {
    AccessLog::new(|line| {
        with_text(LogFormat::Json, line, |text| {
            black_box(text);
        });
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

pub const TASKS: &str = "/api/task?assignee=alice&sortBy=created&sortOrder=desc";
