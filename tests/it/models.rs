//! The initiator variable that a process model names itself: filled at starts, protected later.

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{AUDIENCE, Client, Process, Protocol, World, alice, eventually, whole};

/// A process whose model calls the one who started it `starter`.
const MODEL: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="t">
  <process id="asked" name="Asked" isExecutable="true" camunda:historyTimeToLive="1">
    <startEvent id="start" camunda:initiator="starter"/>
    <sequenceFlow id="a" sourceRef="start" targetRef="task"/>
    <userTask id="task" name="Task"/>
    <sequenceFlow id="b" sourceRef="task" targetRef="end"/>
    <endEvent id="end"/>
  </process>
</definitions>"#;

const START: &str = "/api/process-definition/key/asked/start";

async fn world() -> World {
    let world = World::with(|config| config.initiator.model_initiator = true).await;
    world.engine.deploy(MODEL, None).unwrap();
    world.engine.forget_requests();
    world
}

impl World {
    async fn json(&self, method: Method, path: &str, body: &Value) -> Response<Bytes> {
        let request = self
            .request(method, path)
            .header("content-type", "application/json");
        self.send(
            request
                .body(Body::from(Bytes::from(body.to_string())))
                .unwrap(),
        )
        .await
    }

    /// Starts the process and gives the instance's id and its variables, as the engine has them.
    async fn started(&self, body: &Value) -> (String, Value) {
        let answer = self.json(Method::POST, START, body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        let started: Value = serde_json::from_slice(answer.body()).unwrap();
        let id = started["id"].as_str().unwrap().to_owned();
        let variables = self.variables(&id).await;
        (id, variables)
    }

    async fn variables(&self, instance: &str) -> Value {
        let answer = self
            .get(&format!("/api/process-instance/{instance}/variables"))
            .await;
        serde_json::from_slice(answer.body()).unwrap()
    }

    fn paths(&self) -> Vec<String> {
        self.engine
            .requests()
            .iter()
            .map(|request| request.target.clone())
            .collect()
    }
}

#[tokio::test]
async fn the_models_own_variable_is_the_callers_whatever_the_body_says() {
    let world = world().await;
    for body in [
        json!({}),
        json!({"variables": {"starter": {"value": "eve"}, "n": {"value": 1}}}),
    ] {
        let (_, variables) = world.started(&body).await;
        for name in ["starter", "initiator"] {
            assert_eq!(variables[name]["value"], "alice", "{name} {body}");
        }
    }
}

#[tokio::test]
async fn the_model_is_asked_after_every_check_and_once() {
    let world = world().await;
    let refused = world.json(Method::POST, START, &json!([])).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        world.engine.request_count(),
        0,
        "a refused start asks for nothing"
    );
    world.started(&json!({})).await;
    let asked: Vec<_> = world
        .paths()
        .into_iter()
        .filter(|path| path.ends_with("/xml"))
        .collect();
    assert_eq!(asked.len(), 1);
    world.engine.forget_requests();
    world.started(&json!({})).await;
    assert!(
        !world.paths().iter().any(|path| path.ends_with("/xml")),
        "{:?}",
        world.paths()
    );
}

/// What is kept of a model makes one look at the body enough; what other versions name is protected all the same.
#[tokio::test]
async fn what_another_version_names_is_the_callers_too_when_the_newest_is_known() {
    let world = world().await;
    let path = "/api/process-definition/key/asked";
    let first: Value = serde_json::from_slice(world.get(path).await.body()).unwrap();
    let first = first["id"].as_str().unwrap();
    let start = format!("/api/process-definition/{first}/start");
    let answer = world.json(Method::POST, &start, &json!({})).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let second = MODEL.replace("\"starter\"", "\"requester\"");
    world.engine.deploy(&second, None).unwrap();
    world.started(&json!({})).await;
    world.engine.forget_requests();
    let other = json!({"variables": {"n": {"value": 1}}});
    let (_, variables) = world.started(&other).await;
    assert_eq!(variables["starter"], Value::Null);
    assert_eq!(variables["requester"]["value"], "alice");
    let forged = json!({"variables": {"starter": {"value": "eve"}, "requester": {"value": "eve"}}});
    let (_, variables) = world.started(&forged).await;
    for name in ["starter", "requester", "initiator"] {
        assert_eq!(variables[name]["value"], "alice", "{name}");
    }
}

#[tokio::test]
async fn an_engine_that_does_not_show_the_model_starts_nothing() {
    let world = world().await;
    world.engine.script(
        "/engine-rest/process-definition/key/asked",
        Script::status(StatusCode::INTERNAL_SERVER_ERROR, ""),
    );
    let answer = world.json(Method::POST, START, &json!({})).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    let problem: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(problem["code"], "model_unavailable");
    assert!(!world.paths().iter().any(|path| path.ends_with("/start")));
}

#[tokio::test]
async fn an_unknown_definition_is_the_engines_to_say() {
    let world = world().await;
    let answer = world
        .json(
            Method::POST,
            "/api/process-definition/key/nobody/start",
            &json!({}),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert!(
        world
            .paths()
            .iter()
            .any(|path| path.ends_with("/nobody/start"))
    );
}

#[tokio::test]
async fn later_writes_leave_it_alone_in_its_own_model_only() {
    let world = world().await;
    let (asked, _) = world.started(&json!({})).await;
    let other = world
        .json(
            Method::POST,
            "/api/process-definition/key/approval/start",
            &json!({"variables": {"subject": {"value": "x"}}}),
        )
        .await;
    let other: Value = serde_json::from_slice(other.body()).unwrap();
    let other = other["id"].as_str().unwrap();
    let eve = json!({"value": "eve", "type": "String"});

    for (method, path, body, want) in [
        (
            Method::PUT,
            "variables/starter",
            eve.clone(),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::PUT,
            "variables/%73tarter",
            eve.clone(),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::DELETE,
            "variables/starter",
            json!(null),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::POST,
            "variables",
            json!({"modifications": {"starter": eve}}),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::POST,
            "variables",
            json!({"deletions": ["starter"]}),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::POST,
            "variables",
            json!({"modifications": {"other": eve}}),
            StatusCode::NO_CONTENT,
        ),
    ] {
        let answer = world
            .json(
                method.clone(),
                &format!("/api/process-instance/{asked}/{path}"),
                &body,
            )
            .await;
        assert_eq!(answer.status(), want, "{method} {path} {body}");
    }
    let answer = world
        .json(
            Method::PUT,
            &format!("/api/process-instance/{other}/variables/starter"),
            &eve,
        )
        .await;
    assert_eq!(
        answer.status(),
        StatusCode::NO_CONTENT,
        "another model's variable"
    );

    let tasks = world
        .get(&format!("/api/task?processInstanceId={asked}"))
        .await;
    let tasks: Value = serde_json::from_slice(tasks.body()).unwrap();
    let task = tasks[0]["id"].as_str().unwrap();
    let form = json!({"variables": {"starter": eve, "note": {"value": "y"}}});
    let answer = world
        .json(Method::POST, &format!("/api/task/{task}/complete"), &form)
        .await;
    assert_eq!(
        answer.status(),
        StatusCode::NO_CONTENT,
        "a form may send all of its variables back"
    );
    let sent = world
        .engine
        .requests()
        .into_iter()
        .rfind(|sent| sent.target.ends_with("/complete"));
    let sent: Value = serde_json::from_slice(&sent.unwrap().body).unwrap();
    assert_eq!(sent, json!({"variables": {"note": {"value": "y"}}}));
}

#[tokio::test]
async fn what_was_learned_is_protected_when_a_reload_has_changed_the_nodes() {
    let engine = Engine::start().await.unwrap();
    engine.deploy(MODEL, None).unwrap();
    let issuer = Issuer::start().await.unwrap();
    let (url, name, keys) = (engine.url(), issuer.url(), issuer.jwks_url());
    let text = |nodes: &str| {
        format!(
            "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"\"\nengine.url = \"{url}\"\nengine.health.interval = \"0s\"\n\
             access.default = \"transparent\"\n{nodes}\n\
             [[issuers]]\nissuer = \"{name}\"\njwks_url = \"{keys}\"\naudience = [\"{AUDIENCE}\"]\n"
        )
    };
    let gateway = Process::with_config(&text("")).await;
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    let send = async |method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("authorization", alice(&issuer))
            .header("content-type", "application/json")
            .body(Body::from(Bytes::from(body.to_string())));
        let answer = client.send(request.unwrap()).await.unwrap();
        whole(answer).await.unwrap()
    };
    let started = send(Method::POST, START, json!({})).await;
    let started: Value = serde_json::from_slice(started.body()).unwrap();
    let id = started["id"].as_str().unwrap();

    let nodes = format!("engine.nodes = [\"http://{}\"]", engine.address());
    std::fs::write(gateway.file("config.toml"), text(&nodes)).unwrap();
    gateway.signal("HUP").await;
    let loaded = "the configuration was loaded again";
    eventually(loaded, || gateway.logged(loaded) > 0).await;

    let path = format!("/api/process-instance/{id}/variables/starter");
    let eve = json!({"value": "eve", "type": "String"});
    let answer = send(Method::PUT, &path, eve).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{answer:?}");
}
