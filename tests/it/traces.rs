//! Spans of requests, as a collector gets them, and the trace context that the engine gets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::config::Config;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as Code};
use tokio::net::TcpListener;

use crate::collector::{Collector, Mood};
use crate::support::{AUDIENCE, Client, Process, Protocol, World, alice, eventually, soon, whole};

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    let mut found = spans.iter().filter(|span| span.kind == kind as i32);
    let span = found.next().expect("a span of this kind");
    assert!(found.next().is_none(), "one span of this kind");
    span
}

/// The attributes as text.
fn attributes(pairs: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    pairs
        .iter()
        .map(|pair| (pair.key.as_str(), text(&pair.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn sent_to(collector: &Collector) -> impl FnOnce(&mut Config) {
    let url = collector.url.parse().unwrap();
    |config| config.telemetry.otlp_endpoint = Some(url)
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().unwrap());
    assert!(values.next().is_none(), "{name} once");
    value
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const START: &str = "/api/process-definition/key/approval/start";

#[tokio::test]
async fn a_start_is_a_span_of_the_request_and_one_of_the_engine() {
    let collector = Collector::start(Mood::Takes).await;
    let world = World::with(sent_to(&collector)).await;
    let request = world
        .request(Method::POST, &format!("{START}?x=query-secret"))
        .header("host", "gate.example:81")
        .header("content-type", "application/json")
        .header("x-request-id", "mine-1")
        .header("traceparent", SAMPLED)
        .header("tracestate", "congo=t61rcWkgMzE,a=b")
        .header("baggage", "c=d")
        .body(Body::from(Bytes::from("{}")));
    assert_eq!(world.send(request.unwrap()).await.status(), 200);
    let spans = collector.exactly(2).await;
    let (server, client) = (
        of_kind(&spans, SpanKind::Server),
        of_kind(&spans, SpanKind::Client),
    );
    let name = "POST /process-definition/key/{key}/start";
    for span in [server, client] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.name, name);
        assert_eq!(span.trace_state, "congo=t61rcWkgMzE,a=b");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0);
    }
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(client.parent_span_id, server.span_id);
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);

    let route = "/process-definition/key/{key}/start";
    let want = [
        ("bpmgate.operation", "startProcessInstanceByKey"),
        ("bpmgate.process_key", "approval"),
        ("bpmgate.profile", "transparent"),
        ("bpmgate.request_id", "mine-1"),
        ("client.address", "127.0.0.1"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", route),
        ("network.protocol.version", "1.1"),
        ("server.address", "gate.example"),
        ("server.port", "81"),
        ("url.path", route),
        ("url.scheme", "http"),
    ];
    let want: BTreeMap<_, _> = want.map(|(key, value)| (key, value.to_owned())).into();
    assert_eq!(attributes(&server.attributes), want);
    let port = world.engine.address().port().to_string();
    let want = [
        ("bpmgate.operation", "startProcessInstanceByKey"),
        ("bpmgate.process_key", "approval"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("url.template", route),
    ];
    let want: BTreeMap<_, _> = want.map(|(key, value)| (key, value.to_owned())).into();
    assert_eq!(attributes(&client.attributes), want);

    let seen = world.engine.requests().pop().unwrap().headers;
    let traceparent = format!("00-{TRACE}-{}-01", hex(&client.span_id));
    assert_eq!(value(&seen, "traceparent"), Some(&*traceparent));
    assert_eq!(value(&seen, "tracestate"), Some("congo=t61rcWkgMzE,a=b"));
    assert_eq!(value(&seen, "baggage"), Some("c=d"));

    let requests = collector.seen.requests.lock().unwrap();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "bpmgate");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!format!("{requests:?}").contains("secret"));
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one() {
    let collector = Collector::start(Mood::Takes).await;
    let world = World::with(sent_to(&collector)).await;
    let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let mut traces = std::collections::BTreeSet::new();
    for (number, given) in [None, Some(zeros), Some("x")].into_iter().enumerate() {
        let mut request = world
            .request(Method::GET, "/api/task")
            .header("tracestate", "orphan=1");
        if let Some(given) = given {
            request = request.header("traceparent", given);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let spans = collector.exactly(2 * (number + 1)).await;
        let spans: Vec<_> = spans
            .into_iter()
            .filter(|span| traces.insert((span.trace_id.clone(), span.kind)))
            .collect();
        let server = of_kind(&spans, SpanKind::Server);
        let client = of_kind(&spans, SpanKind::Client);
        assert_eq!(hex(&server.parent_span_id), "", "{given:?}");
        assert_eq!(client.parent_span_id, server.span_id);
        assert_eq!(client.trace_id, server.trace_id);
        let seen = world.engine.requests().pop().unwrap().headers;
        let want = format!("00-{}-{}-01", hex(&client.trace_id), hex(&client.span_id));
        assert_eq!(value(&seen, "traceparent"), Some(&*want));
        assert_eq!(value(&seen, "tracestate"), None, "it belongs to no trace");
    }
}

#[tokio::test]
async fn what_is_not_sampled_sends_no_span_and_passes_its_context() {
    let collector = Collector::start(Mood::Takes).await;
    let sent = sent_to(&collector);
    let world = World::with(|config| {
        sent(config);
        config.telemetry.trace_sampling = 0.0;
        // Else nobody's word is taken that a trace is sampled.
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for (given, flags) in [
        (None, "00"),
        (Some(NOT_SAMPLED), "00"),
        (Some(SAMPLED), "01"),
    ] {
        let mut request = world.request(Method::GET, "/api/task");
        if let Some(given) = given {
            request = request
                .header("traceparent", given)
                .header("tracestate", "a=b");
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        let seen = world.engine.requests().pop().unwrap().headers;
        let traceparent = value(&seen, "traceparent").unwrap();
        assert!(traceparent.ends_with(&format!("-{flags}")), "{traceparent}");
        assert_eq!(given.is_some(), traceparent.contains(TRACE));
        assert_eq!(value(&seen, "tracestate"), given.map(|_| "a=b"));
    }
    // The last one alone: its client has decided.
    let spans = collector.exactly(2).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

/// The trace goes on all the same.
#[tokio::test]
async fn a_stranger_has_no_more_traces_sampled_than_begin_here() {
    let collector = Collector::start(Mood::Takes).await;
    let sent = sent_to(&collector);
    let world = World::with(|config| {
        sent(config);
        // The share is taken by the trace's id, and a stranger may choose one of the smallest.
        config.telemetry.trace_sampling = 0.000_001;
    })
    .await;
    let smallest = "00-00000000000000000000000000000001-00f067aa0ba902b7-01";
    for given in [SAMPLED, smallest] {
        let request = world
            .request(Method::GET, "/api/task")
            .header("traceparent", given)
            .header("tracestate", "a=b")
            .body(Body::empty());
        assert_eq!(world.send(request.unwrap()).await.status(), 200);
        let seen = world.engine.requests().pop().unwrap().headers;
        let traceparent = value(&seen, "traceparent").unwrap();
        assert_eq!(traceparent[3..35], given[3..35]);
        assert!(traceparent.ends_with("-00"), "{traceparent}");
        assert_eq!(value(&seen, "tracestate"), Some("a=b"));
    }
}

#[tokio::test]
async fn what_went_wrong_is_told_by_its_code() {
    let collector = Collector::start(Mood::Takes).await;
    let sent = sent_to(&collector);
    let world = World::with(|config| {
        sent(config);
        "user".clone_into(&mut config.access.default);
        config.engine.retry.attempts = 0;
        config.telemetry.trace_users = true;
    })
    .await;
    let broken = Script::status(StatusCode::INTERNAL_SERVER_ERROR, "{}");
    world.engine.script("/engine-rest/task/broken", broken);
    let error = Code::Error as i32;
    // Path; status, `error.type` and state of the server's span; the same of the client's, where there is one.
    for (method, path, token, server, client) in [
        (
            Method::GET,
            "/api/task",
            false,
            (401, Some("token_missing"), 0),
            None,
        ),
        (
            Method::DELETE,
            "/api/deployment/path-secret",
            true,
            (403, Some("access_denied"), 0),
            None,
        ),
        (
            Method::GET,
            "/api/task/path-secret",
            true,
            (404, None, 0),
            Some((404, Some("404"), error)),
        ),
        (
            Method::GET,
            "/api/task/broken",
            true,
            (500, Some("500"), error),
            Some((500, Some("500"), error)),
        ),
        (Method::GET, "/health", false, (200, None, 0), None),
        (
            Method::GET,
            "/nowhere/path-secret",
            false,
            (404, Some("not_found"), 0),
            None,
        ),
    ] {
        collector.seen.requests.lock().unwrap().clear();
        let mut request = world.request(method, path);
        if !token {
            request.headers_mut().unwrap().remove("authorization");
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), server.0, "{path}");
        let spans = collector.exactly(1 + usize::from(client.is_some())).await;
        assert!(!format!("{spans:?}").contains("secret"), "{spans:#?}");
        let told = |kind| {
            let span = of_kind(&spans, kind);
            let attributes = attributes(&span.attributes);
            let user = attributes.get("enduser.id").map(String::as_str);
            assert_eq!(
                user,
                (token && kind == SpanKind::Server).then_some("alice"),
                "{path}"
            );
            (
                attributes["http.response.status_code"]
                    .parse::<u16>()
                    .unwrap(),
                attributes.get("error.type").cloned(),
                span.status.as_ref().map_or(0, |status| status.code),
            )
        };
        let want = |(status, kind, state): (u16, Option<&str>, i32)| {
            (status, kind.map(str::to_owned), state)
        };
        assert_eq!(told(SpanKind::Server), want(server), "{path}");
        if let Some(client) = client {
            assert_eq!(told(SpanKind::Client), want(client), "{path}");
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_both_spans() {
    let collector = Collector::start(Mood::Takes).await;
    let world = World::with(sent_to(&collector)).await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world.engine.script("/engine-rest/task", gate);
    let mut client = world.raw_client().await;
    client
        .write(world.text("GET /api/task HTTP/1.1", "\r\n"))
        .await;
    eventually("the request", || world.engine.request_count() == 1).await;
    drop(client);
    for span in collector.exactly(2).await {
        assert_eq!(attributes(&span.attributes)["error.type"], "aborted");
        assert_eq!(span.status.unwrap().code, Code::Error as i32);
    }
}

const ENDPOINT: &str = "BPMGATE__TELEMETRY__OTLP_ENDPOINT";

/// A gateway of its own with an operator's listener.
struct Running {
    process: Process,
    token: String,
    _issuer: Issuer,
    engine: Engine,
}

impl Running {
    async fn start(telemetry: &[(&str, &str)]) -> Self {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let (url, name, keys) = (engine.url(), issuer.url(), issuer.jwks_url());
        let mut environment = vec![
            ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__SERVER__SHUTDOWN_GRACE", "2s"),
            ("BPMGATE__ADMIN__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__ENGINE__URL", &url),
            // The engine is to see nothing but the test's requests.
            ("BPMGATE__ENGINE__HEALTH__INTERVAL", "0s"),
            ("BPMGATE__INITIATOR__MODEL_INITIATOR", "false"),
            ("BPMGATE__ISSUERS__0__ISSUER", &name),
            ("BPMGATE__ISSUERS__0__JWKS_URL", &keys),
            ("BPMGATE__ISSUERS__0__AUDIENCE", AUDIENCE),
        ];
        environment.extend(telemetry);
        Self {
            process: Process::with_environment(&environment).await,
            token: alice(&issuer),
            _issuer: issuer,
            engine,
        }
    }

    /// How many spans came to this end, as its metrics say.
    async fn counted(&self, result: &str) -> u64 {
        let client = Client::connect(self.process.admin.unwrap(), Protocol::Http1).await;
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        let text = String::from_utf8(answer.into_body().into()).unwrap();
        let name = format!("bpmgate_trace_spans_total{{result=\"{result}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("the metric").parse().unwrap()
    }

    async fn ask(&self, count: usize, traceparent: Option<&str>) {
        let client = Client::connect(self.process.address, Protocol::Http1).await;
        for _ in 0..count {
            let mut request = Request::get("/api/task").header("authorization", &self.token);
            if let Some(traceparent) = traceparent {
                request = request.header("traceparent", traceparent);
            }
            let answer = client.send(request.body(Body::empty()).unwrap()).await;
            let answer = whole(answer.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }

    fn lines_with(&self, text: &str) -> usize {
        let log = self.process.log.lock().unwrap();
        log.lines().filter(|line| line.contains(text)).count()
    }

    /// Stops it, and says how long that took.
    async fn stop(&mut self) -> Duration {
        let began = Instant::now();
        self.process.signal("TERM").await;
        assert_eq!(self.process.ended().await, Some(0));
        began.elapsed()
    }
}

#[tokio::test]
async fn a_collector_that_is_no_use_costs_the_spans_and_one_line_in_the_log() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let down = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let fails = Collector::start(Mood::Fails).await;
    let hangs = Collector::start(Mood::Hangs).await;
    for (url, name) in [
        (&down, "down"),
        (&fails.url, "fails"),
        (&hangs.url, "hangs"),
    ] {
        let mut running =
            Running::start(&[(ENDPOINT, url), ("BPMGATE__TELEMETRY__TRACE_QUEUE", "10")]).await;
        // Far more spans than there is room for, and several batches of them.
        for _ in 0..4 {
            let before = running.counted("failed").await;
            running.ask(50, None).await;
            soon("a batch", async {
                let is_over = async || match name {
                    "hangs" => hangs.posts() > 0,
                    _ => running.counted("failed").await > before,
                };
                while !is_over().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
        assert_eq!(running.engine.request_count(), 200, "{name}");
        soon("the end of all but ten spans", async {
            while running.counted("dropped").await + running.counted("failed").await < 390 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let (dropped, failed) = (
            running.counted("dropped").await,
            running.counted("failed").await,
        );
        // Ten at most are on their way.
        assert!(
            (390..=400).contains(&(dropped + failed)),
            "{name}: {dropped} {failed}"
        );
        assert!(dropped > 300, "{name}: {dropped}");
        assert!(failed > 0 || name == "hangs", "{name}: {failed}");
        assert_eq!(running.counted("sent").await, 0);
        let took = running.stop().await;
        assert!(took < Duration::from_secs(8), "{name}: {took:?}");
        let failures = running.lines_with("traces cannot be sent");
        // One that hangs is given up after ten seconds.
        let least = usize::from(name != "hangs");
        assert!((least..=1).contains(&failures), "{name}: {failures}");
        let log = running.process.log.lock().unwrap().clone();
        let others = log.lines().filter(|line| !line.contains("outcome="));
        let told = others.filter(|line| line.to_lowercase().contains("trace"));
        assert_eq!(told.count(), failures, "{name}: {log}");
        assert_eq!(running.lines_with("outcome="), 200, "{name}");
    }
    assert!(fails.posts() > 1 && hangs.posts() > 0);
}

#[tokio::test]
async fn a_share_of_the_traces_that_begin_here_is_sampled() {
    let collector = Collector::start(Mood::Takes).await;
    let mut running = Running::start(&[
        (ENDPOINT, &collector.url),
        ("BPMGATE__TELEMETRY__TRACE_SAMPLING", "0.25"),
    ])
    .await;
    running.ask(600, None).await;
    running.stop().await;
    let spans = collector.spans();
    let servers = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    // 150 are expected; beyond these are more than 6 standard deviations.
    let servers = servers.count();
    assert!((85..=215).contains(&servers), "{servers}");
    // Each has the engine's, or neither is there; and the engine was told which.
    assert_eq!(spans.len(), 2 * servers);
    let requests = running.engine.requests();
    let told = requests
        .iter()
        .filter_map(|request| value(&request.headers, "traceparent"));
    assert_eq!(told.filter(|told| told.ends_with("-01")).count(), servers);
}

#[tokio::test]
async fn the_variables_of_opentelemetry_name_the_service_and_add_headers() {
    let collector = Collector::start(Mood::Takes).await;
    let mut running = Running::start(&[
        (ENDPOINT, &collector.url),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "x-api-key=the%20key,x-tenant=orders",
        ),
        ("OTEL_SERVICE_NAME", "orders-gateway"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment=test,service.name=ignored",
        ),
    ])
    .await;
    running.ask(1, None).await;
    running.stop().await;
    let headers = collector.seen.headers.lock().unwrap();
    assert_eq!(value(&headers[0], "x-api-key"), Some("the key"));
    assert_eq!(value(&headers[0], "x-tenant"), Some("orders"));
    let requests = collector.seen.requests.lock().unwrap();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "orders-gateway");
    assert_eq!(resource["deployment.environment"], "test");
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_end() {
    let collector = Collector::start(Mood::Takes).await;
    let mut running = Running::start(&[(ENDPOINT, &collector.url)]).await;
    running.ask(30, None).await;
    running.stop().await;
    assert_eq!(collector.spans().len(), 60);
}

#[tokio::test]
async fn the_log_names_the_trace() {
    let collector = Collector::start(Mood::Takes).await;
    for traces in ["", &collector.url] {
        for format in ["text", "json"] {
            let running = Running::start(&[
                (ENDPOINT, traces),
                ("BPMGATE__TELEMETRY__LOG_FORMAT", format),
                ("BPMGATE__TELEMETRY__LOG_LEVEL", "debug"),
            ])
            .await;
            let (text, begins) = match format {
                "text" => (format!("trace_id=\"{TRACE}\""), "trace_id="),
                _ => (format!("\"trace_id\":\"{TRACE}\""), "\"trace_id\":"),
            };
            // The first waits for the issuer's keys, which is another line.
            running.ask(1, None).await;
            running.ask(1, Some(SAMPLED)).await;
            eventually("its line", || running.lines_with(&text) == 1).await;
            // Of a problem, both its own line and that of the access log.
            let client = Client::connect(running.process.address, Protocol::Http1).await;
            let request = Request::get("/api/task")
                .header("traceparent", NOT_SAMPLED)
                .header("x-request-id", "a-problem");
            let answer = client.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.unwrap().status(), 401);
            eventually("its lines", || running.lines_with(&text) == 3).await;
            assert_eq!(running.lines_with("a-problem"), 2, "{format}");
            let before = running.lines_with(begins);
            running.ask(1, Some("not a traceparent")).await;
            eventually("its line", || running.lines_with("forwarded") == 3).await;
            let named = running.lines_with(begins) - before;
            assert_eq!(named, usize::from(!traces.is_empty()), "{traces}{format}");
        }
    }
}

#[tokio::test]
async fn without_a_collector_the_context_passes_as_it_came() {
    let world = World::start().await;
    for given in [SAMPLED, NOT_SAMPLED, "00-x", "  odd  "] {
        let answer = world
            .ask(
                "GET /api/task HTTP/1.1",
                &format!("traceparent: {given}\r\ntracestate: a=1\r\ntracestate: b=2\r\nbaggage: x=y\r\n\r\n"),
            )
            .await;
        assert_eq!(answer.status, 200);
        let seen = world.engine.requests().pop().unwrap().headers;
        assert_eq!(value(&seen, "traceparent"), Some(given.trim()));
        let states: Vec<_> = seen.get_all("tracestate").iter().collect();
        assert_eq!(states, ["a=1", "b=2"]);
    }
    assert_eq!(world.engine.requests().len(), 4);
    let seen = soon("an answer", world.get("/api/task")).await;
    assert_eq!(seen.status(), 200);
    let headers = world.engine.requests().pop().unwrap().headers;
    assert_eq!(value(&headers, "traceparent"), None);
}

#[tokio::test]
async fn the_engines_span_names_the_node_that_answered() {
    let collector = Collector::start(Mood::Takes).await;
    let broken = Engine::start().await.unwrap();
    broken.script("/engine-rest/", Script::CloseUnanswered);
    let other = Engine::start().await.unwrap();
    let nodes = [&broken, &other].map(|node| format!("http://{}", node.address()));
    let world = World::with(|config| {
        let own = config.engine.url.to_string();
        let own = own.strip_suffix("/engine-rest").unwrap().to_owned();
        let nodes = nodes.into_iter().chain([own]);
        config.engine.nodes = nodes.map(|node| node.parse().unwrap()).collect();
        // Else the broken one would be asked no more.
        config.engine.breaker.failures = 0;
        sent_to(&collector)(config);
    })
    .await;
    for _ in 0..6 {
        let request = world.request(Method::GET, "/api/task");
        let request = request.header("traceparent", SAMPLED).body(Body::empty());
        assert_eq!(world.send(request.unwrap()).await.status(), 200);
    }
    assert!(broken.requests_to("/engine-rest/task") > 0);
    let spans = collector.exactly(12).await;
    let spans = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Client as i32);
    let mut answered = [0, 0];
    for span in spans {
        let traceparent = format!("00-{TRACE}-{}-01", hex(&span.span_id));
        let at = [&world.engine, &other].map(|engine| {
            let requests = engine.requests();
            let mut seen = requests
                .iter()
                .map(|request| value(&request.headers, "traceparent"));
            seen.any(|seen| seen == Some(&*traceparent))
        });
        let node = at.iter().position(|seen| *seen).expect("one of them");
        answered[node] += 1;
        let port = [&world.engine, &other][node].address().port().to_string();
        assert_eq!(attributes(&span.attributes)["server.port"], port);
    }
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
}
