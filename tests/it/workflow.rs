//! The workflow API over sockets: what frontends call, what the engine then sees, and what they read.
//!
//! What a real engine makes of it is in `tests/engine/workflow.rs`.

use std::time::Duration;

use bpmgate::access::Builtin;
use bpmgate::body::Body;
use bpmgate::config::{Config, Profile};
use bpmgate::demo::engine::{Framing, Script};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::problem::{problem, refused};
use super::support::{Protocol, World, eventually, soon, whole};

const START: &str = "/api/processes/approval/start";

async fn as_user(change: impl FnOnce(&mut Config)) -> World {
    World::with(|config| {
        Builtin::User
            .as_str()
            .clone_into(&mut config.access.default);
        change(config);
    })
    .await
}

async fn send(world: &World, method: Method, path: &str, body: &str) -> Response<Bytes> {
    let mut request = world.request(method, path);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let body = Body::from(Bytes::from(body.to_owned()));
    world.send(request.body(body).unwrap()).await
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn a_process_is_started_claimed_and_completed_in_plain_json() {
    let world = as_user(|_| ()).await;
    let processes = json_of(&world.get("/api/processes").await);
    assert_eq!(processes[0]["key"], "approval");
    let body = json!({
        "variables": {
            "subject": "A desk", "amount": 5_000_000_000_u64, "urgent": true, "of": ["a", 1.50], "initiator": "eve",
            "typed": {"value": "x", "type": "String"},
        },
        "businessKey": "B-1", "skipCustomListeners": true,
    });
    let started = send(&world, Method::POST, START, &body.to_string()).await;
    assert_eq!(started.status(), 201);
    let instance = json_of(&started);
    assert_eq!(instance["businessKey"], "B-1");
    let link = instance["links"][0]["href"].as_str().unwrap();
    assert!(link.contains("/api/process-instance/") && !link.contains(&world.engine.url()));
    let id = instance["id"].as_str().unwrap();
    let variables = world.get(&format!("/api/instances/{id}/variables")).await;
    let variables = json_of(&variables);
    for (name, value, r#type) in [
        ("subject", json!("A desk"), "String"),
        ("amount", json!(5_000_000_000_u64), "Long"),
        ("urgent", json!(true), "Boolean"),
        ("of", json!(r#"["a",1.5]"#), "Json"),
        ("initiator", json!("alice"), "String"),
        ("initiatorName", json!("Alice Example"), "String"),
        ("typed", json!("x"), "String"),
    ] {
        assert_eq!(variables[name]["value"], value, "{name}");
        assert_eq!(variables[name]["type"], r#type, "{name}");
    }
    assert!(
        world
            .engine
            .requests()
            .last()
            .unwrap()
            .target
            .contains("deserializeValues=false")
    );

    let tasks = json_of(
        &world
            .get(&format!("/api/tasks?processInstanceId={id}"))
            .await,
    );
    let task = tasks[0]["id"].as_str().unwrap();
    for (action, body, want) in [
        ("claim", r#"{"userId":"bob"}"#, 403),
        ("claim", "", 204),
        ("unclaim", "{}", 204),
        ("claim", "{}", 204),
        ("claim", r#"{"userId":"alice"}"#, 204),
    ] {
        let answer = send(
            &world,
            Method::POST,
            &format!("/api/tasks/{task}/{action}"),
            body,
        )
        .await;
        assert_eq!(answer.status().as_u16(), want, "{action} {body}");
    }
    let body = r#"{"variables":{"approved":true,"initiator":"eve"},"withVariablesInReturn":true}"#;
    let path = format!("/api/tasks/{task}/complete");
    let completed = send(&world, Method::POST, &path, body).await;
    assert_eq!(completed.status(), 200);
    let returned = json_of(&completed);
    assert_eq!(returned["approved"]["value"], true);
    assert_eq!(returned["initiator"]["value"], "alice");
    let again = send(&world, Method::POST, &path, "").await;
    assert_eq!(refused(&again), (404, "engine_refused".to_owned()));
    assert_eq!(problem(&again)["engine"]["type"], "RestException");

    let counted = json_of(&world.get("/api/statistics").await);
    let want = json!({"totalProcesses": 1, "activeInstances": 0, "completedInstances": 1, "activeTasks": 0});
    assert_eq!(counted, want);
}

#[tokio::test]
async fn every_read_asks_the_engine_for_what_it_says() {
    let world = as_user(|_| ()).await;
    world.engine.script("/engine-rest", Script::Echo);
    for (path, engine, query) in [
        (
            "/api/processes",
            "/process-definition",
            "latestVersion=true",
        ),
        (
            "/api/processes?latestVersion=false&key=a%20b",
            "/process-definition",
            "latestVersion=false&key=a%20b",
        ),
        ("/api/processes/a%20b", "/process-definition/key/a%20b", ""),
        ("/api/processes/a/xml", "/process-definition/key/a/xml", ""),
        (
            "/api/processes/a/form",
            "/process-definition/key/a/form-variables",
            "",
        ),
        (
            "/api/instances?processDefinitionKey=a&active=true",
            "/process-instance",
            "processDefinitionKey=a&active=true",
        ),
        ("/api/instances/1", "/process-instance/1", ""),
        (
            "/api/instances/1/variables",
            "/process-instance/1/variables",
            "deserializeValues=false",
        ),
        (
            "/api/instances/1/variables?deserializeValues=true",
            "/process-instance/1/variables",
            "deserializeValues=true",
        ),
        (
            "/api/instances/1/activity-instances",
            "/process-instance/1/activity-instances",
            "",
        ),
        (
            "/api/history/activity-instances?processInstanceId=1",
            "/history/activity-instance",
            "processInstanceId=1",
        ),
        (
            "/api/tasks?firstResult=0&maxResults=5&sortBy=created&sortOrder=asc",
            "/task",
            "firstResult=0&maxResults=5&sortBy=created&sortOrder=asc",
        ),
        ("/api/tasks/1", "/task/1", ""),
        (
            "/api/tasks/1/form",
            "/task/1/form-variables",
            "deserializeValues=false",
        ),
        ("/api/tasks/1/", "/task/1", ""),
    ] {
        let request = world
            .request(Method::GET, path)
            .header("accept", "text/html")
            .body(Body::empty());
        let seen = json_of(&world.send(request.unwrap()).await);
        assert_eq!(seen["method"], "GET", "{path}");
        assert_eq!(seen["path"], format!("/engine-rest{engine}"), "{path}");
        assert_eq!(seen["query"].as_str().unwrap_or_default(), query, "{path}");
        let headers = seen["headers"].to_string();
        assert!(
            headers.contains(r#"["accept","application/json"]"#),
            "{headers}"
        );
    }
}

#[tokio::test]
async fn writes_reach_the_engine_in_its_own_words() {
    let world = World::start().await;
    world.engine.script("/engine-rest", Script::Echo);
    for (method, path, body, want, sent) in [
        (
            Method::POST,
            "/api/instances/1/suspend",
            "",
            "PUT /process-instance/1/suspended",
            r#"{"suspended":true}"#,
        ),
        (
            Method::POST,
            "/api/instances/1/activate",
            "{}",
            "PUT /process-instance/1/suspended",
            r#"{"suspended":false}"#,
        ),
        (
            Method::POST,
            "/api/tasks/1/claim",
            "",
            "POST /task/1/claim",
            r#"{"userId":"alice"}"#,
        ),
        (
            Method::POST,
            "/api/tasks/1/unclaim",
            "{}",
            "POST /task/1/unclaim",
            "",
        ),
        (
            Method::POST,
            "/api/tasks/1/complete",
            "",
            "POST /task/1/complete",
            "{}",
        ),
        (
            Method::POST,
            "/api/tasks/1/complete",
            r#"{"variables":{"n":null}}"#,
            "POST /task/1/complete",
            r#"{"variables":{"n":{"value":null,"type":"Null"}}}"#,
        ),
        (
            Method::DELETE,
            "/api/instances/1",
            r#"{"reason":"a mistake"}"#,
            "DELETE /process-instance/1",
            "",
        ),
        (
            Method::DELETE,
            "/api/instances/1",
            "",
            "DELETE /process-instance/1",
            "",
        ),
    ] {
        world.engine.forget_requests();
        let answer = send(&world, method.clone(), path, body).await;
        assert_eq!(answer.status(), 200, "{method} {path}");
        let requests = world.engine.requests();
        let seen = requests.last().unwrap();
        assert_eq!(
            format!(
                "{} {}",
                seen.method,
                seen.target.replacen("/engine-rest", "", 1)
            ),
            want
        );
        assert_eq!(seen.body, sent, "{method} {path}");
        assert_eq!(
            seen.headers.contains_key("content-type"),
            !sent.is_empty(),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn what_the_default_profile_may_not_is_refused_before_the_engine() {
    let world = as_user(|_| ()).await;
    for (method, path, operation) in [
        (Method::DELETE, "/api/instances/1", "deleteProcessInstance"),
        (
            Method::POST,
            "/api/instances/1/suspend",
            "updateSuspensionStateById",
        ),
        (
            Method::POST,
            "/api/instances/1/activate",
            "updateSuspensionStateById",
        ),
    ] {
        let answer = send(&world, method, path, "").await;
        assert_eq!(
            refused(&answer),
            (403, "access_denied".to_owned()),
            "{path}"
        );
        let detail = problem(&answer)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(operation), "{detail}");
    }
    for (body, media_type, want) in [
        (
            r#"{"variables":{"n":9223372036854775808}}"#,
            "application/json",
            (400, "body_invalid"),
        ),
        (
            r#"{"variables":[]}"#,
            "application/json",
            (400, "body_invalid"),
        ),
        ("{", "application/json", (400, "body_invalid")),
        ("{}", "text/plain", (415, "unsupported_media_type")),
    ] {
        let request = world
            .request(Method::POST, START)
            .header("content-type", media_type)
            .body(Body::from(Bytes::from(body)));
        let answer = world.send(request.unwrap()).await;
        assert_eq!(refused(&answer), (want.0, want.1.to_owned()), "{body}");
    }
    let none = world
        .request(Method::GET, "/api/tasks")
        .body(Body::empty())
        .unwrap();
    let (mut head, body) = none.into_parts();
    head.headers.remove("authorization");
    let answer = world.send(Request::from_parts(head, body)).await;
    assert_eq!(refused(&answer), (401, "token_missing".to_owned()));
    for (method, path, allow) in [
        (Method::PUT, "/api/instances/1", "GET, HEAD, DELETE"),
        (Method::POST, "/api/tasks", "GET, HEAD"),
        (Method::GET, START, "POST"),
    ] {
        let answer = send(&world, method, path, "").await;
        assert_eq!(refused(&answer).0, 405, "{path}");
        assert_eq!(answer.headers()["allow"], allow, "{path}");
    }
    assert_eq!(world.engine.request_count(), 0);
}

#[tokio::test]
async fn user_is_the_caller_here_and_the_engines_list_there() {
    let world = World::start().await;
    let user = world.get("/api/user").await;
    let want = json!({
        "sub": "alice", "email": "alice@example.org", "first_name": null, "last_name": null,
        "name": "Alice Example", "roles": [], "issuer": world.issuer.url(),
    });
    assert_eq!(json_of(&user), want);
    assert_eq!(world.engine.request_count(), 0);
    world.engine.script("/engine-rest/user", Script::Echo);
    for path in ["/engine-rest/user", "/api/user/count"] {
        let seen = json_of(&world.get(path).await);
        assert_eq!(seen["path"], path.replacen("/api", "/engine-rest", 1));
    }
}

#[tokio::test]
async fn the_four_counts_are_asked_at_the_same_time() {
    let world = World::start().await;
    let count = Script::Answer {
        status: StatusCode::OK,
        headers: vec![],
        body: Bytes::from(r#"{"count":7}"#),
        trailers: None,
    };
    world
        .engine
        .script("/engine-rest", Script::Gate(Box::new(count)));
    let client = world.client(Protocol::Http1).await;
    let request = world.request(Method::GET, "/api/statistics");
    let asked = client.send(request.body(Body::empty()).unwrap());
    let (answer, ()) = tokio::join!(asked, async {
        let engine = &world.engine;
        eventually("four requests at once", || engine.request_count() == 4).await;
        engine.release(4);
    });
    let answer = whole(answer.unwrap()).await.unwrap();
    assert_eq!(json_of(&answer)["completedInstances"], 7);
    let mut asked: Vec<_> = world
        .engine
        .requests()
        .iter()
        .map(|seen| seen.target.clone())
        .collect();
    asked.sort();
    assert_eq!(
        asked,
        [
            "/engine-rest/history/process-instance/count?finished=true",
            "/engine-rest/process-definition/count?latestVersion=true",
            "/engine-rest/process-instance/count",
            "/engine-rest/task/count",
        ]
    );
}

#[tokio::test]
async fn an_engine_that_fails_is_told_from_a_mistake_of_the_caller() {
    let world = World::with(|config| {
        config.engine.timeouts.response = Duration::from_millis(200);
    })
    .await;
    let fails = |status, body: &'static str| Script::Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: vec![],
        body: Bytes::from(body),
        trailers: None,
    };
    for (script, want) in [
        (
            fails(500, r#"{"type":"X","message":"boom"}"#),
            (502, "engine_failed"),
        ),
        (fails(503, "<html>"), (502, "engine_failed")),
        (
            fails(
                500,
                r#"{"type":"TaskAlreadyClaimedException","message":"m"}"#,
            ),
            (409, "engine_refused"),
        ),
        (fails(418, ""), (400, "engine_refused")),
        (fails(401, ""), (502, "engine_rejected_credentials")),
        (Script::HangBeforeHeaders, (504, "engine_timeout")),
    ] {
        let name = format!("{script:?}");
        world.engine.script("/engine-rest/task", script);
        let client = world.client(Protocol::Http1).await;
        let request = world.request(Method::GET, "/api/tasks").body(Body::empty());
        let answer = client.send(request.unwrap()).await.unwrap();
        let answer = whole(answer).await.unwrap();
        assert_eq!(refused(&answer), (want.0, want.1.to_owned()), "{name}");
    }
    // One count of four that fails is a failure.
    let script = fails(500, "");
    world.engine.script("/engine-rest/task", script);
    let answer = world.get("/api/statistics").await;
    assert_eq!(refused(&answer), (502, "engine_failed".to_owned()));
}

#[tokio::test]
async fn a_large_list_streams() {
    let world = World::start().await;
    let download = Script::Download {
        length: 256 << 20,
        framing: Framing::Chunked,
    };
    world.engine.script("/engine-rest/task", download);
    let client = world.client(Protocol::Http1).await;
    let request = world.request(Method::GET, "/api/tasks").body(Body::empty());
    let answer = soon("the head", client.send(request.unwrap()))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    // Dropped with its connection: had it been collected, there would be no head yet.
    drop((answer, client));
    let engine = &world.engine;
    eventually("the end of the engine's connection", || {
        engine.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn it_can_be_moved_and_switched_off() {
    let moved = as_user(|config| {
        config.workflow_api.prefix = "/engine-rest".parse().unwrap();
    })
    .await;
    assert_eq!(moved.get("/engine-rest/user").await.status(), 200);
    assert_eq!(moved.engine.request_count(), 0);
    assert_eq!(refused(&moved.get("/api/processes").await).0, 404);
    let document = json_of(&moved.get("/openapi.json").await);
    assert!(document["paths"].get("/engine-rest/tasks").is_some());

    let off = as_user(|config| config.workflow_api.enabled = false).await;
    for path in ["/openapi.json", "/docs", "/docs/index.html"] {
        assert_eq!(
            refused(&off.get(path).await),
            (404, "not_found".to_owned()),
            "{path}"
        );
    }
    assert_eq!(refused(&off.get("/api/tasks").await).0, 404);
    assert_eq!(off.get("/api/task").await.status(), 200);
}

/// Who takes nothing of an answer that is whole in memory must not take a place from those who ask for more.
#[tokio::test]
async fn pages_that_nobody_takes_take_no_place_in_flight() {
    let world = World::with(|config| config.server.limits.requests_in_flight = 1).await;
    let stream = tokio::net::TcpStream::connect(world.gateway.address)
        .await
        .unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for path in ["/openapi.json", "/docs/index.html", "/health"] {
        let uri = format!("http://g.example{path}");
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let untaken = soon("the head", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(untaken.status(), 200, "{path}");
        assert_eq!(world.get("/api/task").await.status(), 200, "{path}");
        drop(untaken);
    }
}

#[tokio::test]
async fn refused_statistics_reach_no_engine() {
    for deny in [
        "getProcessDefinitionsCount",
        "getProcessInstancesCount",
        "getHistoricProcessInstancesCount",
        "getTasksCount",
    ] {
        let world = World::with(|config: &mut Config| {
            let own = Profile {
                extends: Some("user".into()),
                allow: Vec::new(),
                deny: vec![deny.into()],
            };
            config.access.profiles.insert("own".into(), own);
            config.access.default = "own".into();
        })
        .await;
        assert_eq!(world.get("/api/statistics").await.status(), 403, "{deny}");
        // Connections are taken in their order: one of before would be there when this one is.
        assert_eq!(world.get("/api/tasks").await.status(), 200, "{deny}");
        assert_eq!(world.engine.connections(), 1, "{deny}");
    }
}

#[tokio::test]
async fn a_body_of_one_who_may_not_is_not_waited_for() {
    let world = World::with(|config| config.access.default = "none".into()).await;
    for (method, path) in [
        ("POST", "/api/processes/approval/start"),
        ("POST", "/api/tasks/1/complete"),
        ("POST", "/api/tasks/1/claim"),
        ("DELETE", "/api/instances/1"),
    ] {
        let rest = "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{";
        let mut client = world.raw_client().await;
        let asked = client.ask(world.text(&format!("{method} {path} HTTP/1.1"), rest));
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
        assert_eq!(answer.map(|answer| answer.status), Ok(403), "{path}");
    }
}

#[tokio::test]
async fn an_engine_that_stops_in_its_answer_is_not_waited_for() {
    let world =
        World::with(|config| config.engine.timeouts.response = Duration::from_millis(300)).await;
    world.engine.script(
        "/engine-rest",
        Script::HangInBody {
            after: 3,
            framing: Framing::Length,
        },
    );
    let answer = soon("an answer", world.get("/api/statistics")).await;
    assert_eq!(refused(&answer), (504, "engine_timeout".to_owned()));
}
