//! The audit log: what is in it and what never is, and what happens when it cannot be written.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bpmgate::body::Body;
use bpmgate::config::{self, Config};
use bpmgate::demo::engine::{Framing, Script};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::problem::refused;
use crate::support::{AUDIENCE, Client, Process, Protocol, World, bearer, eventually, soon};

const START: &str = "/api/process-definition/key/approval/start";

/// A world whose gateway writes an audit log.
struct Audited {
    world: World,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Audited {
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.log");
        let world = World::with(|config| {
            config.telemetry.audit_log = file.display().to_string();
            change(config);
        })
        .await;
        Self {
            world,
            file,
            _directory: directory,
        }
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        send(&self.world, method, path, body).await
    }

    /// Stops the gateway, and reads what it has written.
    async fn records(self) -> Vec<Value> {
        self.world.gateway.stop().await;
        records(&self.file)
    }
}

async fn send(
    world: &World,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let body = body.into();
    let mut request = world.request(method, path);
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    world.send(request.body(Body::from(body)).unwrap()).await
}

fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn json_answer(body: &'static str) -> Script {
    Script::Answer {
        status: StatusCode::OK,
        headers: vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body: Bytes::from_static(body.as_bytes()),
        trailers: None,
    }
}

/// The record without what differs from run to run, which is checked.
fn redacted(mut record: Value, world: (&str, &str)) -> Value {
    let members = record.as_object_mut().unwrap();
    let time = members.remove("time").unwrap();
    humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    assert!(time.as_str().unwrap().ends_with('Z'));
    assert!(members.remove("duration_ms").unwrap().as_f64().unwrap() > 0.0);
    assert_eq!(members.remove("issuer").unwrap(), world.0);
    assert_eq!(members.remove("client").unwrap(), world.1);
    record
}

#[tokio::test]
async fn a_start_is_recorded_with_who_what_and_the_instance() {
    let audited = Audited::with(|config| config.access.default = "user".to_owned()).await;
    let issuer = audited.world.issuer.url();
    let body =
        r#"{"businessKey":"order-\u0034711","variables":{"secretName":{"value":"secretValue"}}}"#;
    let answer = audited.send(Method::POST, START, body).await;
    assert_eq!(answer.status(), 200);
    let started: Value = serde_json::from_slice(answer.body()).unwrap();
    let token = audited.world.token.trim_start_matches("Bearer ").to_owned();
    let file = audited.file.clone();
    audited.world.gateway.stop().await;

    let text = std::fs::read_to_string(file).unwrap();
    for never in ["secretName", "secretValue", &token, "Bearer"] {
        assert!(!text.contains(never), "{never} in {text}");
    }
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        redacted(record, (&issuer, "127.0.0.1")),
        json!({
            "request_id": answer.headers()["x-request-id"].to_str().unwrap(),
            "outcome": "forwarded", "status": 200, "complete": true,
            "subject": "alice", "profile": "user",
            "operation": "startProcessInstanceByKey", "group": "Process Definition", "kind": "start",
            "method": "POST", "params": {"key": "approval"}, "business_key": "order-4711",
            "instances": [{"id": started["id"], "definition_id": started["definitionId"]}],
        })
    );
}

#[tokio::test]
async fn what_writes_is_recorded_and_what_reads_is_not() {
    let audited = Audited::with(|_| ()).await;
    audited.world.engine.script("/", json_answer("{}"));
    for (method, path, want) in [
        ("GET", "/api/task", None),
        ("POST", "/api/task", None),
        ("GET", "/api/no/such", None),
        ("HEAD", "/api/no/such", None),
        ("OPTIONS", "/api/no/such", None),
        ("GET", "/health", None),
        (
            "POST",
            "/api/task/7/complete",
            Some(("complete", json!({"id": "7"}))),
        ),
        (
            "PUT",
            "/engine-rest/engine/default/process-instance/7/variables/salary",
            Some(("setProcessInstanceVariable", json!({"id": "7"}))),
        ),
        (
            "DELETE",
            "/api/tenant/t%C3%BC/user-members/eve",
            Some(("deleteUserMembership", json!({"id": "tü", "userId": "eve"}))),
        ),
        ("POST", "/api/no/such", Some(("", Value::Null))),
        ("PURGE", "/api/task", Some(("", Value::Null))),
    ] {
        let method: Method = method.parse().unwrap();
        let body = if method == Method::PUT {
            r#"{"value":1}"#
        } else {
            ""
        };
        audited.send(method.clone(), path, body).await;
        // The own routes stand above it all, so their answer says nothing of the log.
        if let Some((operation, params)) = want {
            let file = audited.file.clone();
            eventually("the record", || !records(&file).is_empty()).await;
            let mut found = records(&file);
            assert_eq!(found.len(), 1, "{method} {path}: {found:?}");
            let record = found.remove(0);
            let known = record.get("operation").and_then(Value::as_str);
            assert_eq!(known.unwrap_or_default(), operation, "{record}");
            assert_eq!(record.get("params").cloned().unwrap_or_default(), params);
            let is_row = !operation.is_empty();
            assert_eq!(record.get("path").is_none(), is_row, "{record}");
            assert!(!record.to_string().contains("salary"));
            std::fs::write(&file, "").unwrap();
        } else {
            assert!(records(&audited.file).is_empty(), "{method} {path}");
        }
    }
    assert!(audited.records().await.is_empty());
}

#[tokio::test]
async fn a_record_names_the_trace_of_its_request() {
    let audited = Audited::with(|_| ()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = audited
        .world
        .request(Method::POST, "/api/task/7/complete")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-00"))
        .header(CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(Bytes::from_static(b"{}")));
    audited.world.send(request.unwrap()).await;
    let records = audited.records().await;
    assert_eq!(records[0]["trace_id"], trace, "{records:?}");
}

#[tokio::test]
async fn denials_are_recorded_and_never_reach_the_engine() {
    let audited = Audited::with(|config| {
        config.access.rules = vec![config::Rule {
            when: config::When {
                subject: Some("alice".to_owned()),
                ..config::When::default()
            },
            profile: "operator".to_owned(),
        }];
        config.access.default = "none".to_owned();
    })
    .await;
    for (method, path, body, status, code) in [
        ("GET", "/engine-rest/user", "", 403, "access_denied"),
        ("POST", "/api/deployment/create", "", 403, "access_denied"),
        (
            "PUT",
            "/api/process-instance/7/variables/initiator",
            r#"{"value":"eve"}"#,
            403,
            "protected_variable",
        ),
        (
            "POST",
            "/api/process-definition/order:1:7/restart",
            "{}",
            403,
            "cannot_attribute",
        ),
        ("GET", "/api/no/such", "", 404, "not_found"),
        ("PATCH", "/api/task", "", 405, "method_not_allowed"),
    ] {
        let answer = audited.send(method.parse().unwrap(), path, body).await;
        assert_eq!(
            refused(&answer),
            (status, code.to_owned()),
            "{method} {path}"
        );
    }
    // Not a denial: there is nobody whom it could name.
    let nobody = http::Request::get("/engine-rest/user")
        .body(Body::empty())
        .unwrap();
    assert_eq!(audited.world.send(nobody).await.status(), 401);
    assert_eq!(audited.world.engine.request_count(), 0);

    let records = audited.records().await;
    let said: Vec<_> = records
        .iter()
        .map(|record| {
            assert_eq!(record["outcome"], "denied");
            assert_eq!(record["subject"], "alice");
            assert_eq!(
                (&record["profile"], &record["rule"]),
                (&"operator".into(), &0.into())
            );
            let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("-");
            format!(
                "{} {} {}",
                record["status"],
                text("code"),
                text("operation")
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "403 access_denied getUsers",
            "403 access_denied createDeployment",
            "403 protected_variable setProcessInstanceVariable",
            "403 cannot_attribute restartProcessInstance",
            "404 not_found -",
            "405 method_not_allowed -",
        ]
    );
}

#[tokio::test]
async fn messages_and_signals_say_which_who_sent_them_and_what_they_hit() {
    let audited = Audited::with(|_| ()).await;
    let result = r#"[{"resultType":"Execution","execution":{"id":"e1","processInstanceId":"i1","ended":false},"processInstance":null},
        {"resultType":"ProcessDefinition","execution":null,"processInstance":{"id":"i2","definitionId":"order:1:d"}}]"#;
    audited
        .world
        .engine
        .script("/engine-rest/message", json_answer(result));
    audited.world.engine.script(
        "/engine-rest/signal",
        Script::status(StatusCode::NO_CONTENT, ""),
    );
    let message = r#"{"messageName":"paid","businessKey":"b-1","resultEnabled":true}"#;
    let answer = audited.send(Method::POST, "/api/message", message).await;
    assert_eq!(answer.body(), result);
    audited
        .send(Method::POST, "/api/signal", r#"{"name":"alarm"}"#)
        .await;

    let records = audited.records().await;
    assert_eq!(records[0]["event"], "paid");
    assert_eq!(records[0]["business_key"], "b-1");
    assert_eq!(
        records[0]["instances"],
        json!([{"id": "i1"}, {"id": "i2", "definition_id": "order:1:d"}])
    );
    assert_eq!(records[1]["event"], "alarm");
    assert_eq!(records[1]["status"], 204);
    assert_eq!(records[1]["complete"], true);
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn an_impersonation_names_who_acts() {
    let mut audited = Audited::with(|_| ()).await;
    let claims = json!({"sub": "alice", "aud": AUDIENCE, "act": {"sub": "support-7"}});
    audited.world.token = format!("Bearer {}", audited.world.issuer.token(&claims));
    audited.send(Method::POST, "/api/task/7/complete", "").await;
    let records = audited.records().await;
    assert_eq!(records[0]["subject"], "alice");
    assert_eq!(records[0]["actor"], "support-7");
}

#[tokio::test]
async fn an_answer_that_breaks_off_and_a_client_that_goes_are_in_it() {
    let audited = Audited::with(|_| ()).await;
    let engine = &audited.world.engine;
    let framing = Framing::Length;
    engine.script_once(
        "/",
        Script::AbortInBody {
            after: 100,
            framing,
        },
    );
    let client = Client::connect(audited.world.gateway.address, Protocol::Http1).await;
    let complete = |id| {
        let path = format!("/api/task/{id}/complete");
        let request = audited.world.request(Method::POST, &path);
        request.body(Body::empty()).unwrap()
    };
    let answer = client.send(complete("broken")).await.unwrap();
    crate::support::whole(answer).await.unwrap_err();

    engine.script_once("/", Script::HangBeforeHeaders);
    let asked = engine.request_count();
    let client = Client::connect(audited.world.gateway.address, Protocol::Http1).await;
    let mut asking = Box::pin(client.send(complete("left")));
    tokio::select! {
        answer = &mut asking => panic!("{answer:?}"),
        () = eventually("the request at the engine", || engine.request_count() > asked) => {}
    }
    drop(asking);
    drop(client);
    let file = audited.file.clone();
    eventually("the second record", || records(&file).len() == 2).await;
    let records = records(&file);
    assert_eq!(records[0]["params"]["id"], "broken");
    assert_eq!(records[0]["outcome"], "forwarded");
    assert_eq!(records[0]["complete"], false);
    assert_eq!(records[1]["params"]["id"], "left");
    assert_eq!(records[1]["outcome"], "abandoned");
    assert_eq!(records[1].get("status"), None);
}

#[tokio::test]
async fn an_engine_that_gives_no_answer_is_a_failure_with_its_code() {
    let audited = Audited::with(|_| ()).await;
    audited.world.engine.script("/", Script::CloseUnanswered);
    let answer = audited.send(Method::POST, "/api/task/7/complete", "").await;
    assert_eq!(refused(&answer), (502, "engine_unreachable".to_owned()));
    let records = audited.records().await;
    assert_eq!(records[0]["outcome"], "failed");
    assert_eq!(records[0]["code"], "engine_unreachable");
    assert_eq!(records[0].get("complete"), None);
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is_and_a_stranger_does_not() {
    for (trusted, want) in [("127.0.0.0/8", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let audited = Audited::with(|config| {
            config.server.trusted_proxies = vec![trusted.parse().unwrap()];
        })
        .await;
        let request = audited.world.request(Method::POST, "/api/task/7/complete");
        let request = request.header("x-forwarded-for", "203.0.113.9");
        audited
            .world
            .send(request.body(Body::empty()).unwrap())
            .await;
        assert_eq!(audited.records().await[0]["client"], want);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let world = World::start().await;
    let mut config = crate::support::config(&world.issuer, &world.engine.url());
    config.telemetry.audit_log = "/dev/null/audit.log".to_owned();
    let error = bpmgate::gateway::Resources::from_config(&config).unwrap_err();
    let said = error.to_string();
    let want = "telemetry.audit_log \"/dev/null/audit.log\" cannot be opened: ";
    assert!(said.starts_with(want), "{said}");
}

#[tokio::test]
async fn the_gateway_ends_only_when_all_is_written() {
    let world = World::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    let more = format!("telemetry.audit_log = {file:?}");
    let mut process = Process::start(&world.issuer, &world.engine.url(), &more).await;
    let client = Client::connect(process.address, Protocol::Http1).await;
    for id in 0..100 {
        let request = world.request(Method::POST, &format!("/api/task/{id}/complete"));
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        crate::support::whole(answer.unwrap()).await.unwrap();
    }
    drop(client);
    process.signal("TERM").await;
    assert_eq!(process.ended().await, Some(0));
    let ids: Vec<u32> = records(&file)
        .iter()
        .map(|record| record["params"]["id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn standard_output_has_the_records_and_nothing_else() {
    let world = World::start().await;
    let (name, keys) = (world.issuer.url(), world.issuer.jwks_url());
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bpmgate"))
        .env_clear()
        .envs([
            ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__ADMIN__LISTEN", ""),
            ("BPMGATE__ENGINE__URL", &world.engine.url()),
            ("BPMGATE__ISSUERS__0__ISSUER", &name),
            ("BPMGATE__ISSUERS__0__JWKS_URL", &keys),
            ("BPMGATE__ISSUERS__0__AUDIENCE", AUDIENCE),
            ("BPMGATE__TELEMETRY__AUDIT_LOG", "stdout"),
        ])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = soon("the line `listening`", async {
        loop {
            let line = log.next_line().await.unwrap().expect("it listens");
            if let Some((_, address)) = line.split_once("listening address=") {
                return address.parse().unwrap();
            }
        }
    })
    .await;
    let client = Client::connect(address, Protocol::Http1).await;
    let token = bearer(&world.issuer, "bob", "bob@example.org", "Bob");
    let request = http::Request::get("/engine-rest/user").header("authorization", token);
    client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon("a record", output.next_line()).await.unwrap().unwrap();
    let record: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(record["subject"], "bob");
    assert_eq!(record["code"], "access_denied");
}
