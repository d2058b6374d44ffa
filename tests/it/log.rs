//! What stands in the log of a running gateway, and what never does.

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{AUDIENCE, Client, Process, Protocol, alice, eventually, whole};

const BASIC: &str = "ZGVtbzpodW50ZXIy";

/// A gateway that logs everything, and what it was asked.
struct Logged {
    process: Process,
    token: String,
    bad_token: String,
    requests: usize,
}

impl Logged {
    /// Sends one request of each kind.
    async fn of(format: &str) -> Self {
        let settings = bpmgate::demo::engine::Settings {
            password: "hunter2".to_owned(),
            ..Default::default()
        };
        let engine = Engine::start_with(settings).await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let more = format!(
            "telemetry.log_format = \"{format}\"\ntelemetry.log_level = \"trace\"\nengine.credentials.password = \"hunter2\""
        );
        let process = Process::start(&issuer, &engine.url(), &more).await;
        let token = alice(&issuer);
        let claims = json!({"sub": "alice", "aud": AUDIENCE, "exp": 1, "private": "claim-secret"});
        let bad_token = format!("Bearer {}", issuer.token(&claims));
        let client = Client::connect(process.address, Protocol::Http1).await;
        let body = r#"{"variables":{"subject":{"value":"body-secret"},"initiator":{"value":"eve"}},"businessKey":"key-secret"}"#;
        let rows = [
            (
                "GET",
                "/api/task?assignee=query-secret",
                Some(&token),
                "",
                200,
            ),
            (
                "GET",
                "/engine-rest/engine/default/process-instance/path-secret",
                Some(&token),
                "",
                404,
            ),
            (
                "POST",
                "/api/process-definition/key/approval/start?x=query-secret",
                Some(&token),
                body,
                200,
            ),
            ("GET", "/api/task?access_token=query-secret", None, "", 401),
            ("GET", "/api/task", Some(&bad_token), "", 401),
            ("GET", "/health", None, "", 200),
            ("GET", "/nowhere/path-secret", None, "", 404),
            ("GET", "/api/path-secret", Some(&token), "", 404),
            ("BREW", "/api/task", Some(&token), "", 405),
            (
                "POST",
                "/api/process-definition/key/approval/start;path-secret",
                Some(&token),
                body,
                400,
            ),
        ];
        for (method, path, token, body, status) in rows {
            let mut request = Request::builder()
                .method(method.parse::<Method>().unwrap())
                .uri(path)
                .header("cookie", "session=cookie-secret")
                .header("x-custom", "header-secret")
                .header("x-request-id", "test-id")
                .header("content-type", "application/json");
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let body = Body::from(Bytes::from(body));
            let answer = client.send(request.body(body).unwrap()).await.unwrap();
            let answer = whole(answer).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path}: {answer:?}");
        }
        let requests = rows.len();
        let logged = Self {
            process,
            token,
            bad_token,
            requests,
        };
        eventually("the last line", || logged.lines().len() >= requests).await;
        logged
    }

    fn text(&self) -> String {
        self.process.log.lock().unwrap().clone()
    }

    /// The access log.
    fn lines(&self) -> Vec<String> {
        let text = self.text();
        let access = text.lines().filter(|line| line.contains("outcome"));
        access.map(str::to_owned).collect()
    }

    fn holds_no_secret(&self) {
        let text = self.text();
        let mut secrets = vec![
            "query-secret",
            "path-secret",
            "body-secret",
            "key-secret",
            "cookie-secret",
            "header-secret",
            "claim-secret",
            "hunter2",
            BASIC,
            "alice@example.org",
            "Alice Example",
        ];
        // A token's parts, too: header, claims, signature.
        for token in [&self.token, &self.bad_token] {
            secrets.extend(
                token[7..]
                    .split('.')
                    .map(|part| &part[..20.min(part.len())]),
            );
        }
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
        }
    }
}

#[tokio::test]
async fn each_request_is_one_line_of_json_without_a_secret() {
    let logged = Logged::of("json").await;
    logged.holds_no_secret();
    let lines = logged.lines();
    assert_eq!(lines.len(), logged.requests, "{lines:#?}");
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (&line["level"], &line["message"]),
                (&"INFO".into(), &"request".into())
            );
            assert!(line["timestamp"].is_string());
            assert!(line["duration_ms"].as_f64().unwrap() >= 0.0);
            assert_eq!(line["request_id"], "test-id");
            assert_eq!(line["client"], "127.0.0.1");
            let text = |name: &str| {
                line[name]
                    .as_str()
                    .unwrap_or_else(|| panic!("{name} in {line}"))
                    .to_owned()
            };
            let status = line["status"].as_u64().unwrap();
            format!(
                "{} {} {status} {} {} {}",
                text("method"),
                text("route"),
                text("outcome"),
                text("subject"),
                text("profile")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "GET /task 200 forwarded alice transparent",
            "GET /process-instance/{id} 404 forwarded alice transparent",
            "POST /process-definition/key/{key}/start 200 forwarded alice transparent",
            "GET - 401 token_missing - -",
            "GET - 401 token_expired - -",
            "GET /health 200 forwarded - -",
            "GET - 404 not_found - -",
            "GET - 404 forwarded alice transparent",
            "_OTHER - 405 forwarded alice transparent",
            "POST - 400 bad_path - -",
        ]
    );
    // Every line is JSON, those of the start too.
    for line in logged.text().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}

#[tokio::test]
async fn each_request_is_one_line_of_text_without_a_secret() {
    let logged = Logged::of("text").await;
    logged.holds_no_secret();
    let lines = logged.lines();
    assert_eq!(lines.len(), logged.requests, "{lines:#?}");
    for part in [
        " INFO ",
        " request ",
        "method=\"POST\"",
        "route=\"/process-definition/key/{key}/start\"",
        "status=200",
        "subject=\"alice\"",
        "duration_ms=",
    ] {
        assert!(lines[2].contains(part), "{part} in {}", lines[2]);
    }
    // No colours where nobody looks.
    assert!(!logged.text().contains('\u{1b}'));
}

#[tokio::test]
async fn a_subject_cannot_forge_a_line() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    for format in ["text", "json"] {
        let more = format!("telemetry.log_format = \"{format}\"");
        let process = Process::start(&issuer, &engine.url(), &more).await;
        let client = Client::connect(process.address, Protocol::Http1).await;
        // Line and paragraph separators are no control characters; quotes are anybody's.
        for (subject, status) in [
            (
                "eve\u{2028}x INFO request\u{2029}subject=\"alice\" \u{202e}",
                200,
            ),
            ("eve\u{9b}31m", 401),
            ("eve\u{85}x", 401),
            ("eve\nx", 401),
        ] {
            let token = issuer.token(&json!({"sub": subject, "aud": AUDIENCE}));
            let request = Request::get("/api/task")
                .header("authorization", format!("Bearer {token}"))
                .body(Body::empty());
            let answer = client.send(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{subject:?}");
            whole(answer).await.unwrap();
        }
        let lines = || {
            let log = process.log.lock().unwrap().clone();
            let lines = log.lines().filter(|line| line.contains("outcome"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        eventually("the lines", || lines().len() >= 4).await;
        assert_eq!(lines().len(), 4);
        if format == "json" {
            let line: Value = serde_json::from_str(&lines()[0]).unwrap();
            assert!(line["subject"].as_str().unwrap().starts_with("eve"));
        } else {
            let log = lines().concat();
            assert!(
                !log.contains(['\u{2028}', '\u{2029}', '\u{202e}', '\u{9b}', '\u{85}']),
                "{log}"
            );
            assert!(log.contains(r#"subject=\"alice\""#), "{log}");
        }
    }
}

/// What is logged while requests come, and is of none of them.
const OF_NO_REQUEST: [&str; 5] = [
    "connection ended",
    "connection lost",
    "connection to the engine ended",
    "issuer keys changed",
    "silent connection closed",
];

#[tokio::test]
async fn every_line_of_a_failing_request_names_it_and_its_trace() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let more = |attempts: &str| {
        format!(
            "telemetry.log_format = \"json\"\ntelemetry.log_level = \"debug\"\ninitiator.model_cache = \"0s\"\n\
             [engine.retry]\nbackoff = \"1ms\"\n{attempts}\n"
        )
    };
    let good = Process::start(&issuer, &engine.url(), &more("attempts = 2")).await;
    let stingy = "attempts = 1\nbudget_percent = 0\nbudget_floor = 0";
    let stingy = Process::start(&issuer, &engine.url(), &more(stingy)).await;
    let gone = "http://127.0.0.1:1/engine-rest";
    let gone = Process::start(&issuer, gone, &more("attempts = 1")).await;
    let broken = "/engine-rest/task";
    engine.script(broken, Script::CloseUnanswered);
    let other = Script::status(
        StatusCode::OK,
        r#"{"links":[],"definitionId":"approval:9:x"}"#,
    );
    engine.script("/engine-rest/process-definition/key/approval/start", other);

    let start = "/api/process-definition/key/approval/start";
    let token = alice(&issuer);
    let late = json!({"sub": "alice", "aud": AUDIENCE, "exp": 1});
    let late = format!("Bearer {}", issuer.token(&late));
    let nobody = format!(
        "Bearer {}",
        issuer.token(&json!({"sub": "", "aud": AUDIENCE}))
    );
    for (process, method, path, token, status, messages) in [
        (
            &good,
            Method::GET,
            "/api/task",
            &token,
            502,
            &["exchange with the engine broke", "trying the engine again"][..],
        ),
        (
            &good,
            Method::POST,
            start,
            &token,
            200,
            &["the engine started a newer definition than the model that was asked for"],
        ),
        (
            &good,
            Method::GET,
            "/api/task",
            &late,
            401,
            &["token refused"],
        ),
        (
            &good,
            Method::GET,
            "/api/task",
            &nobody,
            401,
            &["token refused"],
        ),
        (
            &stingy,
            Method::GET,
            "/api/task",
            &token,
            502,
            &["no try left in the budget"],
        ),
        (
            &gone,
            Method::POST,
            start,
            &token,
            502,
            &["no connection to the engine", "the model cannot be had"],
        ),
        (
            &gone,
            Method::GET,
            "/api/task/1",
            &token,
            502,
            &["no connection to the engine", "trying the engine again"],
        ),
    ] {
        let before = process.log.lock().unwrap().len();
        let client = Client::connect(process.address, Protocol::Http1).await;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", token)
            .header("x-request-id", "test-id")
            .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .body(Body::empty());
        let answer = whole(client.send(request.unwrap()).await.unwrap());
        assert_eq!(answer.await.unwrap().status(), status, "{path}");
        let log = || process.log.lock().unwrap()[before..].to_owned();
        eventually("the request's line", || log().contains("\"request\"")).await;
        let log = log();
        for message in messages {
            assert!(log.contains(&format!("{message:?}")), "{message}\n{log}");
        }
        for line in log.lines() {
            let shape: Value = serde_json::from_str(line).unwrap();
            if !OF_NO_REQUEST.contains(&shape["message"].as_str().unwrap()) {
                assert_eq!(shape["request_id"], "test-id", "{line}\n{log}");
                assert_eq!(shape["trace_id"], TRACE, "{line}\n{log}");
            }
        }
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
