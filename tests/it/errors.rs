//! Every documented problem, brought about over a socket.

use std::collections::BTreeMap;
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::config::{ByteSize, RateLimit, RateLimitBy, RateLimitCounts};
use bpmgate::demo::engine::Script;
use bpmgate::demo::issuer::{Fault, Issuer};
use bpmgate::demo::raw::{RawEngine, Then};
use bytes::Bytes;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;

use crate::problem::problem;
use crate::support::{
    AUDIENCE, Client, Gateway, Protocol, Raw, RawAnswer, World, alice, config, eventually, whole,
};

const START: &str = "/api/process-definition/key/approval/start";

/// What nobody can bring about from outside.
const OUT_OF_REACH: [&str; 2] = ["internal", "misconfigured"];

/// The codes of `docs/errors.md` with their status.
fn documented() -> BTreeMap<String, u16> {
    let document = include_str!("../../docs/errors.md");
    let rows = document.lines().filter_map(|line| {
        let (code, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((code.to_owned(), rest.split(' ').next()?.parse().unwrap()))
    });
    rows.filter(|(code, _)| !OUT_OF_REACH.contains(&code.as_str()))
        .collect()
}

fn whole_of(raw: RawAnswer) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(raw.body));
    *answer.status_mut() = StatusCode::from_u16(raw.status).unwrap();
    *answer.headers_mut() = raw.headers;
    answer
}

#[tokio::test]
async fn every_documented_problem_is_answered_as_documented() {
    let mut answers = Vec::new();

    let user = World::with(|config| config.access.default = "user".to_owned()).await;
    let late = user
        .issuer
        .token(&json!({"sub": "alice", "aud": AUDIENCE, "exp": 1}));
    for (path, authorizations) in [
        ("/api/task;x=y", vec![user.token.as_str()]),
        ("/api/task", vec![]),
        ("/api/task", vec![user.token.as_str(), user.token.as_str()]),
        ("/api/task", vec!["Bearer x"]),
        ("/api/task", vec![&format!("Bearer {late}")]),
        ("/api/nothing", vec![user.token.as_str()]),
        ("/api/deployment", vec![user.token.as_str()]),
        (START, vec![user.token.as_str()]),
    ] {
        let mut request = Request::get(path);
        for authorization in authorizations {
            request = request.header("authorization", authorization);
        }
        answers.push(user.send(request.body(Body::empty()).unwrap()).await);
    }
    let hostless = format!(
        "GET /api/task HTTP/1.1\r\nAuthorization: {}\r\n\r\n",
        user.token
    );
    answers.push(whole_of(
        Raw::connect(user.gateway.address).await.ask(hostless).await,
    ));
    assert_eq!(user.engine.connections(), 0);

    let all = World::with(|config| {
        config.server.limits.rewritten_body = ByteSize::from_bytes(100);
        config.server.limits.body_idle_timeout = Duration::from_millis(100);
    })
    .await;
    for (method, path, media_type, body) in [
        (Method::POST, START, "application/json", "[]".to_owned()),
        (Method::POST, START, "text/plain", "{}".to_owned()),
        (Method::POST, START, "application/json", " ".repeat(101)),
        (
            Method::PUT,
            "/api/process-instance/1/variables/initiator",
            "application/json",
            "{}".to_owned(),
        ),
        (
            Method::POST,
            "/api/process-definition/a:1:b/restart",
            "application/json",
            "{}".to_owned(),
        ),
    ] {
        let request = all.request(method, path).header("content-type", media_type);
        answers.push(
            all.send(request.body(Body::from(Bytes::from(body))).unwrap())
                .await,
        );
    }
    let pausing = format!(
        "POST {START} HTTP/1.1\r\nHost: gate\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{",
        all.token
    );
    answers.push(whole_of(
        Raw::connect(all.gateway.address).await.ask(pausing).await,
    ));
    assert_eq!(all.engine.connections(), 0);

    let busy = World::with(|config| {
        config.server.limits.requests_in_flight = 1;
        config.server.limits.requests_queued = 0;
        config.engine.timeouts.response = Duration::from_millis(300);
        config.engine.retry.attempts = 0;
    })
    .await;
    busy.engine
        .script("/engine-rest/task", Script::HangBeforeHeaders);
    let (hanging, overloaded) = tokio::join!(busy.get("/api/task"), async {
        eventually("the first request", || busy.engine.request_count() == 1).await;
        busy.get("/api/task").await
    });
    answers.extend([hanging, overloaded]);
    busy.engine
        .script("/engine-rest/task", Script::CloseUnanswered);
    answers.push(
        busy.send(
            busy.request(Method::POST, "/api/task")
                .body(Body::empty())
                .unwrap(),
        )
        .await,
    );

    let modelless = World::with(|config| config.initiator.model_initiator = true).await;
    let broken = Script::status(StatusCode::INTERNAL_SERVER_ERROR, "");
    modelless
        .engine
        .script("/engine-rest/process-definition/", broken);
    let request = modelless.request(Method::POST, START).body(Body::empty());
    answers.push(modelless.send(request.unwrap()).await);
    assert_eq!(
        modelless
            .engine
            .requests_to(&START.replace("/api", "/engine-rest")),
        0
    );

    let greedy = World::with(|config| {
        config.server.limits.requests_in_flight_per_caller = 1;
        config.engine.timeouts.response = Duration::from_millis(300);
    })
    .await;
    greedy
        .engine
        .script("/engine-rest/task", Script::HangBeforeHeaders);
    let (_, refused) = tokio::join!(greedy.get("/api/task"), async {
        eventually("the first request", || greedy.engine.request_count() == 1).await;
        greedy.get("/api/engine").await
    });
    answers.push(refused);

    let fast = World::with(|config| {
        config.rate_limits = vec![RateLimit {
            name: "once".to_owned(),
            by: RateLimitBy::Subject,
            claim: String::new(),
            counts: RateLimitCounts::Requests,
            operations: Vec::new(),
            requests: 1,
            per: Duration::from_hours(1),
            burst: 0,
            keys: 1,
        }];
    })
    .await;
    fast.get("/api/engine").await;
    answers.push(fast.get("/api/engine").await);

    let issuer = Issuer::start().await.unwrap();
    let garbage = RawEngine::answering("SMTP ready\r\n\r\n", Then::Close)
        .await
        .unwrap();
    let locked =
        World::with(|config| config.engine.credentials.username = "other".to_owned()).await;
    answers.push(locked.get("/api/task").await);
    let down = Issuer::start().await.unwrap();
    down.set_fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    for (issuer, engine) in [(&issuer, garbage.url()), (&down, locked.engine.url())] {
        let gateway = Gateway::start(&config(issuer, &engine)).await;
        let client = Client::connect(gateway.address, Protocol::Http1).await;
        let request = Request::post("/api/task").header("authorization", alice(issuer));
        let answer = client
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        answers.push(whole(answer).await.unwrap());
    }

    let broken = Script::status(StatusCode::INTERNAL_SERVER_ERROR, "");
    all.engine.script("/engine-rest/task", broken);
    for path in ["/api/processes/approval/start", "/api/tasks"] {
        let method = if path == "/api/tasks" {
            Method::GET
        } else {
            Method::POST
        };
        let body = r#"{"variables":{"amount":{"value":"x","type":"Integer"}}}"#;
        let request = all
            .request(method, path)
            .header("content-type", "application/json");
        answers.push(
            all.send(request.body(Body::from(Bytes::from(body))).unwrap())
                .await,
        );
    }

    let strict = World::with(|config| {
        config.initiator.model_initiator = true;
        config.telemetry.audit_log = "/dev/full".to_owned();
    })
    .await;
    strict.engine.script(
        "/engine-rest/process-definition",
        Script::status(StatusCode::INTERNAL_SERVER_ERROR, ""),
    );
    let start = || {
        strict
            .request(Method::POST, START)
            .body(Body::empty())
            .unwrap()
    };
    answers.push(strict.send(start()).await);
    // The record of that one found no room on the disk.
    let answer = until(&strict, start, "audit_unavailable").await;
    answers.push(answer);

    let mut seen = BTreeMap::new();
    for answer in &answers {
        let problem = problem(answer);
        let code = problem["code"].as_str().unwrap();
        seen.insert(code.to_owned(), answer.status().as_u16());
        let headers = answer.headers();
        assert_eq!(
            headers.contains_key(WWW_AUTHENTICATE),
            answer.status() == 401,
            "{code}"
        );
        assert_eq!(
            headers.contains_key(RETRY_AFTER),
            [429, 503].contains(&answer.status().as_u16()),
            "{code}"
        );
        // Nobody's token and nothing of the inside is told.
        let text = String::from_utf8_lossy(answer.body());
        for secret in ["demo:demo", "ZGVtbzpkZW1v", "127.0.0.1", &user.token[7..40]] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(seen, documented());
}

#[tokio::test]
async fn the_engines_own_401_never_asks_a_browser_for_a_password() {
    let world = World::with(|config| config.engine.credentials.username = "other".to_owned()).await;
    for (method, path) in [
        (Method::GET, "/api/task"),
        (Method::POST, START),
        (Method::HEAD, "/api/task"),
    ] {
        let request = world.request(method.clone(), path);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), 502);
        assert!(!answer.headers().contains_key(WWW_AUTHENTICATE));
        if method == Method::HEAD {
            assert!(answer.body().is_empty());
        } else {
            assert_eq!(problem(&answer)["code"], "engine_rejected_credentials");
        }
    }
}

#[tokio::test]
async fn a_problem_is_json_whatever_was_asked_for() {
    let world = World::start().await;
    for accept in ["text/html", "application/xml", "application/json;q=0"] {
        let request = Request::get("/api/task").header("accept", accept);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(problem(&answer)["code"], "token_missing");
    }
}

/// Sends such requests until one is answered with the code.
async fn until(world: &World, request: impl Fn() -> Request<Body>, code: &str) -> Response<Bytes> {
    let answered = async {
        loop {
            let answer = world.send(request()).await;
            if problem(&answer)["code"] == code {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered)
        .await
        .unwrap()
}
