//! A model's own variable for its initiator is the caller, filled at the start and protected later.

use http::Method;
use serde_json::json;

use crate::support::gateway::Options;
use crate::support::http::{json_request, send};
use crate::support::issuer::{ADA, MALLORY};
use crate::support::model::{self, with_initiator};
use crate::support::{Engine, Gateway, Issuer};

/// The bodies: with the variable, and without.
const BODIES: [&str; 3] = [
    "{}",
    r#"{"variables":{"initiator":{"value":"mallory"}}}"#,
    r#"{"variables":{"starter":{"value":"mallory"},"\u0073tarte\u0072Too":{"value":"mallory"}}}"#,
];

#[tokio::test]
async fn the_models_initiator_is_the_caller_and_so_is_the_assignee_that_it_names() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    let off = Options {
        more: "[initiator]\nmodel_initiator = false\n",
        ..Options::default()
    };
    let off = Gateway::start(engine, &issuer, off).await;

    for prefix in ["operaton", "camunda"] {
        let key = format!("model-{prefix}");
        engine
            .deploy(&with_initiator(&key, prefix, "starter"), None)
            .await;
        engine
            .deploy(&with_initiator(&key, prefix, "starter"), Some("acme"))
            .await;
        let id = engine.definition(&key).await;

        // The engine's own account where nobody says otherwise; and whoever the caller says.
        let start = format!("/process-definition/key/{key}/start");
        for (body, starter) in BODIES.iter().zip(["demo", "demo", "mallory"]) {
            let answer = engine.post(&start, *body).await.expect(200);
            let instance = answer.json()["id"].as_str().unwrap().to_owned();
            assert_eq!(seen(engine, &instance, "starter").await, starter, "{body}");
        }
        // Nothing of this is done where it is switched off.
        let answer = off
            .post(&format!("/api{start}"), &issuer.bearer(ADA), "{}")
            .await;
        let instance = answer.expect(200).json()["id"].as_str().unwrap().to_owned();
        assert_eq!(seen(engine, &instance, "starter").await, "demo");

        for definition in [
            format!("key/{key}"),
            format!("key/{key}/tenant-id/acme"),
            id.clone(),
        ] {
            for operation in ["start", "submit-form"] {
                for body in BODIES {
                    let path = format!("/api/process-definition/{definition}/{operation}");
                    let answer = gateway.post(&path, &issuer.bearer(ADA), body).await;
                    let instance = answer.expect(200).json()["id"].as_str().unwrap().to_owned();
                    let row = format!("{path} {body}");
                    for name in ["starter", "initiator"] {
                        assert_eq!(seen(engine, &instance, name).await, ADA.id, "{row}");
                    }
                    let tasks = format!("/task?processInstanceId={instance}&assignee={}", ADA.id);
                    let tasks = engine.get(&tasks).await.expect(200).json();
                    assert_eq!(tasks.as_array().unwrap().len(), 1, "{row}");
                }
            }
        }
    }
}

/// Definitions never change; which one is the newest is believed for `model_cache`.
#[tokio::test]
async fn a_new_version_that_names_another_variable_is_filled_once_the_old_one_is_not_believed() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let start = async |more| {
        let options = Options {
            more,
            ..Options::default()
        };
        Gateway::start(engine, &issuer, options).await
    };
    let at_once = start("[initiator]\nmodel_cache = \"0s\"\n").await;
    let late = start("[initiator]\nmodel_cache = \"1h\"\n").await;
    let path = "/api/process-definition/key/model-versions/start";
    let started = async |gateway: &Gateway| {
        let answer = gateway.post(path, &issuer.bearer(ADA), "{}").await;
        let answer = answer.expect(200).json();
        answer["id"].as_str().unwrap().to_owned()
    };

    let model = with_initiator("model-versions", "operaton", "first");
    engine.deploy(&model, None).await;
    for gateway in [&at_once, &late] {
        let instance = started(gateway).await;
        assert_eq!(seen(engine, &instance, "first").await, ADA.id);
    }
    let model = with_initiator("model-versions", "operaton", "second");
    engine.deploy(&model, None).await;
    let instance = started(&at_once).await;
    assert_eq!(seen(engine, &instance, "second").await, ADA.id);

    // The answer of this one tells that there is another, and then it is known.
    let instance = started(&late).await;
    assert_eq!(seen(engine, &instance, "second").await, "demo");
    let instance = started(&late).await;
    assert_eq!(seen(engine, &instance, "second").await, ADA.id);
}

#[tokio::test]
async fn later_writes_leave_the_models_initiator_as_it_is() {
    const KEY: &str = "model-later";
    const FORGED: &str = r#"{"starter":{"value":"mallory"},"color":{"value":"blue"}}"#;

    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let start = async |more| {
        let options = Options {
            profile: "transparent",
            more,
            ..Options::default()
        };
        Gateway::start(engine, &issuer, options).await
    };
    let gateway = start("").await;
    // This one has not seen the model when the first write comes.
    let told = start("[initiator]\nmodel_names = [\"starter\"]\n").await;
    engine
        .deploy(&with_initiator(KEY, "operaton", "starter"), None)
        .await;
    engine
        .deploy(&model::waiting(["model-without"]), None)
        .await;

    let rows: [(Method, &str, String, u16); 15] = [
        (
            Method::POST,
            "task/{task}/bpmnError",
            format!(r#"{{"errorCode":"unheard","variables":{FORGED}}}"#),
            204,
        ),
        (
            Method::PUT,
            "process-instance/{instance}/variables/starter",
            r#"{"value":"mallory"}"#.into(),
            403,
        ),
        // An execution within the instance under an instance's name: the engine writes the instance's variable.
        (
            Method::PUT,
            "process-instance/{execution}/variables/starter",
            r#"{"value":"mallory"}"#.into(),
            403,
        ),
        (
            Method::DELETE,
            "process-instance/{execution}/variables/starter",
            String::new(),
            403,
        ),
        (
            Method::PUT,
            "execution/{instance}/localVariables/start%65r",
            r#"{"value":"mallory"}"#.into(),
            403,
        ),
        (
            Method::PUT,
            "task/{task}/variables/starter",
            r#"{"value":"mallory"}"#.into(),
            403,
        ),
        (
            Method::PUT,
            "task/{task}/localVariables/starter",
            r#"{"value":"mallory"}"#.into(),
            403,
        ),
        (
            Method::DELETE,
            "task/{task}/variables/starter",
            String::new(),
            403,
        ),
        (
            Method::DELETE,
            "engine/default/process-instance/{instance}/variables/starter",
            String::new(),
            403,
        ),
        (
            Method::POST,
            "process-instance/{instance}/variables",
            r#"{"deletions":["start\u0065r"]}"#.into(),
            403,
        ),
        (
            Method::POST,
            "task/{task}/localVariables",
            format!(r#"{{"modifications":{FORGED}}}"#),
            403,
        ),
        (
            Method::POST,
            "task/{task}/resolve",
            format!(r#"{{"variables":{FORGED}}}"#),
            204,
        ),
        (
            Method::POST,
            "task/{task}/complete",
            format!(r#"{{"variables":{FORGED}}}"#),
            204,
        ),
        (
            Method::POST,
            "task/{task}/submit-form",
            format!(r#"{{"variables":{FORGED}}}"#),
            204,
        ),
        (
            Method::POST,
            "process-instance/{instance}/modification",
            format!(
                r#"{{"instructions":[{{"type":"startBeforeActivity","activityId":"{}","variables":{FORGED}}}]}}"#,
                model::task(KEY)
            ),
            204,
        ),
    ];
    // Whoever sends it knows the model's initiator only from what is configured, or from the start.
    for (writer, starter) in [(&gateway, &gateway), (&told, &gateway)] {
        for (method, path, body, status) in &rows {
            let target = async || {
                let start = format!("/api/process-definition/key/{KEY}/start");
                let answer = starter.post(&start, &issuer.bearer(ADA), "{}").await;
                let instance = answer.expect(200).json()["id"].as_str().unwrap().to_owned();
                let tasks = engine
                    .get(&format!("/task?processInstanceId={instance}"))
                    .await;
                let tasks = tasks.expect(200).json();
                let path = if path.contains("{execution}") {
                    let execution = second_execution(engine, KEY, &instance).await;
                    path.replace("{execution}", &execution)
                } else {
                    (*path).to_owned()
                };
                let path = path
                    .replace("{instance}", &instance)
                    .replace("{task}", tasks[0]["id"].as_str().unwrap());
                (instance, path)
            };
            let write = async |url: String, authorization: &str| {
                send(json_request(
                    method.clone(),
                    &url,
                    authorization,
                    body.clone(),
                ))
                .await
            };
            let row = format!("{method} {path} {body}");

            let (instance, path) = target().await;
            let url = format!("{}/{path}", engine.url());
            let answer = write(url, &Engine::authorization()).await.expect(204);
            let held = held(engine, &instance, "starter").await;
            assert!(
                held != [ADA.id],
                "{row}: does nothing on the engine, {answer:?}"
            );

            let (instance, path) = target().await;
            let url = writer.url(&format!("/api/{path}"));
            let answer = write(url, &issuer.bearer(MALLORY)).await.expect(*status);
            if *status == 403 {
                assert_eq!(answer.json()["code"], "protected_variable", "{row}");
            } else {
                let color = self::held(engine, &instance, "color").await;
                assert_eq!(color, ["blue"], "{row}: the rest did not arrive");
            }
            let held = self::held(engine, &instance, "starter").await;
            assert_eq!(held, [ADA.id], "{row}: {answer:?}");
        }
    }

    // A variable of the name is like any other where the model does not name it.
    let path = "/api/process-definition/key/model-without/start";
    let answer = gateway
        .post(path, &issuer.bearer(ADA), BODIES[2])
        .await
        .expect(200);
    let instance = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(seen(engine, &instance, "starter").await, "mallory");
    let url = gateway.url(&format!(
        "/api/process-instance/{instance}/variables/starter"
    ));
    let body = r#"{"value":"eve"}"#;
    let put = json_request(Method::PUT, &url, &issuer.bearer(ADA), body);
    send(put).await.expect(204);
    assert_eq!(seen(engine, &instance, "starter").await, json!("eve"));
}

/// Puts a second token into the instance, and gives one of the executions that it then has.
async fn second_execution(engine: &Engine, key: &str, instance: &str) -> String {
    let body =
        json!({"instructions": [{"type": "startBeforeActivity", "activityId": model::task(key)}]});
    let path = format!("/process-instance/{instance}/modification");
    engine.post(&path, body.to_string()).await.expect(204);
    let path = format!("/execution?processInstanceId={instance}");
    let executions = engine.get(&path).await.expect(200).json();
    let executions = executions.as_array().unwrap().iter();
    let mut ids = executions.map(|found| found["id"].as_str().unwrap());
    ids.find(|id| *id != instance).unwrap().to_owned()
}

/// What a called process hands back overwrites the caller's variables, so whoever completes a task of it
/// would be able to write the initiator of a model that is not its own.
#[tokio::test]
async fn a_called_process_cannot_hand_back_another_initiator_of_the_model() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["model-called"]), None).await;
    engine
        .deploy(&model::calling("model-calling", "model-called"), None)
        .await;

    let path = "/api/process-definition/key/model-calling/start";
    for direct in [true, false] {
        let answer = gateway
            .post(path, &issuer.bearer(ADA), "{}")
            .await
            .expect(200);
        let instance = answer.json()["id"].as_str().unwrap().to_owned();
        let called = format!("/process-instance?superProcessInstance={instance}");
        let called = engine.get(&called).await.expect(200).json();
        let called = called[0]["id"].as_str().unwrap();
        let tasks = engine
            .get(&format!("/task?processInstanceId={called}"))
            .await;
        let tasks = tasks.expect(200).json();
        let complete = format!("/task/{}/complete", tasks[0]["id"].as_str().unwrap());
        let body = r#"{"variables":{"starter":{"value":"mallory"},"color":{"value":"blue"}}}"#;
        let starter = if direct {
            engine.post(&complete, body).await.expect(204);
            "mallory"
        } else {
            let bearer = issuer.bearer(MALLORY);
            gateway
                .post(&format!("/api{complete}"), &bearer, body)
                .await
                .expect(204);
            ADA.id
        };
        assert_eq!(seen(engine, &instance, "color").await, "blue");
        assert_eq!(seen(engine, &instance, "starter").await, starter);
    }
}

/// The engine starts it, and writes the account that it is asked with, as it does without a gateway.
#[tokio::test]
async fn the_models_initiator_of_a_called_process_is_the_engines_account() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    let called = with_initiator("model-owned", "operaton", "owner");
    engine.deploy(&called, None).await;
    engine
        .deploy(&model::calling("model-owning", "model-owned"), None)
        .await;
    let path = "/api/process-definition/key/model-owning/start";
    let answer = gateway.post(path, &issuer.bearer(ADA), "{}").await;
    let instance = answer.expect(200).json()["id"].as_str().unwrap().to_owned();
    let called = format!("/process-instance?superProcessInstance={instance}");
    let called = engine.get(&called).await.expect(200).json();
    let called = called[0]["id"].as_str().unwrap();
    for (name, value) in [
        ("owner", "demo"),
        ("starter", ADA.id),
        ("initiator", ADA.id),
    ] {
        assert_eq!(seen(engine, called, name).await, value, "{name}");
    }
}

/// Nobody is forged there. Who is nobody is the engine's own account: of an event the gateway cannot know
/// which model it starts, unless a condition says of which definition.
#[tokio::test]
async fn an_event_starts_nothing_with_a_forged_initiator_of_the_model() {
    const KEY: &str = "model-events";
    const SENT: &str = r#"{"model-events":{"value":"yes"},"starter":{"value":"mallory"}}"#;
    const WITHOUT: &str = r#"{"model-events":{"value":"yes"}}"#;

    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let options = Options {
        profile: "operator",
        more: "[initiator]\nmodel_names = [\"starter\"]\n",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, options).await;
    engine.deploy(&model::by_event(KEY, "starter"), None).await;
    let definition = format!(
        r#","processDefinitionId":"{}"}}"#,
        engine.definition(KEY).await
    );

    let message = r#"{"messageName":"model-events-message","processVariables":{forged}}"#;
    let signal = r#"{"name":"model-events-signal","variables":{forged}}"#;
    let condition = r#"{"variables":{forged}}"#;
    let exact = r#"{"variables":{forged}"#.to_owned() + &definition;
    let mut known = Vec::new();
    let mut started = async || {
        let mut instances = engine.instances(KEY).await;
        instances.retain(|instance| !known.contains(instance));
        assert_eq!(instances.len(), 1, "{instances:?}");
        known.extend_from_slice(&instances);
        instances.remove(0)
    };
    for (path, body, variables, starter) in [
        ("/message", message, SENT, "demo"),
        ("/signal", signal, SENT, "demo"),
        ("/condition", condition, SENT, ADA.id),
        ("/condition", condition, WITHOUT, "demo"),
        ("/condition", &exact, SENT, ADA.id),
        ("/condition", &exact, WITHOUT, ADA.id),
    ] {
        let body = body.replace("{forged}", variables);
        let direct = engine.post(path, body.clone()).await;
        let instance = started().await;
        let expected = if variables == SENT { "mallory" } else { "demo" };
        assert_eq!(
            seen(engine, &instance, "starter").await,
            expected,
            "{body} {direct:?}"
        );

        let through = gateway
            .post(&format!("/api{path}"), &issuer.bearer(ADA), body.clone())
            .await;
        let instance = started().await;
        assert_eq!(
            seen(engine, &instance, "starter").await,
            starter,
            "{body} {through:?}"
        );
    }
}

/// The value of a variable of a running instance.
async fn seen(engine: &Engine, instance: &str, name: &str) -> serde_json::Value {
    let path = format!("/process-instance/{instance}/variables/{name}");
    engine.get(&path).await.expect(200).json()["value"].clone()
}

/// The values that a variable has in all the scopes that there were.
async fn held(engine: &Engine, instance: &str, name: &str) -> Vec<serde_json::Value> {
    let mut held = engine.variables(instance).await;
    held.retain(|(held, ..)| held == name);
    held.into_iter().map(|(.., value)| value).collect()
}
