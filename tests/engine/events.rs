//! Starts that no definition is named for: messages, signals and conditions; and those that leave no
//! place for the caller.

use serde_json::{Value, json};

use crate::starts::{initiator, of};
use crate::support::gateway::Options;
use crate::support::http::Answer;
use crate::support::issuer::{ADA, MALLORY};
use crate::support::{Engine, Gateway, Issuer, model};

/// What sends an event, and a body for it; `{key}` is filled in.
const EVENTS: [(&str, &str); 5] = [
    (
        "/message",
        r#"{"messageName":"{key}-message","processVariables":{forged}}"#,
    ),
    (
        "/message",
        r#"{"messageName":"{key}-message","processVariablesLocal":{forged}}"#,
    ),
    (
        "/message",
        r#"{"messageName":"{key}-message","processVariablesToTriggeredScope":{forged}}"#,
    ),
    ("/signal", r#"{"name":"{key}-signal","variables":{forged}}"#),
    ("/condition", r#"{"variables":{forged}}"#),
];

#[tokio::test]
async fn an_event_starts_nothing_with_a_forged_initiator() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let start = async |more| {
        let options = Options {
            profile: "operator",
            more,
            ..Options::default()
        };
        Gateway::start(engine, &issuer, options).await
    };
    let gateways = [
        ("protect", start("").await),
        (
            "inject",
            start("[initiator]\nmessages = \"inject\"\n").await,
        ),
    ];

    for (number, (path, body)) in EVENTS.iter().enumerate() {
        let key = format!("events-{number}");
        engine.deploy(&model::by_event(&key, ""), None).await;
        // What makes the condition hold and is of this row alone.
        let forged = json!({
            "initiator": {"value": MALLORY.id}, "initiatorEmail": {"value": MALLORY.email},
            &key: {"value": "yes"}, "initiatorName": {"value": MALLORY.name},
        });
        let body = body
            .replace("{key}", &key)
            .replace("{forged}", &forged.to_string());
        let answer = engine.post(path, body.clone()).await;
        let started = new(engine, &key, &[], &answer).await;
        assert_eq!(initiator(engine, &started).await, of(MALLORY), "{body}");

        let mut known = vec![started];
        for (mode, gateway) in &gateways {
            let row = format!("{mode}: {body}");
            let answer = gateway
                .post(&format!("/api{path}"), &issuer.bearer(ADA), body.clone())
                .await;
            let started = new(engine, &key, &known, &answer).await;
            let expected = if *mode == "inject" || *path == "/condition" {
                of(ADA)
            } else {
                Vec::new()
            };
            assert_eq!(initiator(engine, &started).await, expected, "{row}");
            let variables = engine.variables(&started).await;
            assert!(
                variables.iter().any(|(name, ..)| *name == key),
                "{row}: {variables:?}"
            );
            known.push(started);
        }
    }
}

/// The copies would have the old instance's initiator, and that may be anybody.
#[tokio::test]
async fn a_restart_that_would_carry_an_initiator_on_is_refused_unless_configured() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let start = async |profile, more| {
        let options = Options {
            profile,
            more,
            ..Options::default()
        };
        Gateway::start(engine, &issuer, options).await
    };
    let denies = start("transparent", "").await;
    let keeps = start("operator", "[initiator]\nrestarts = \"keep\"\n").await;

    engine.deploy(&model::waiting(["restart"]), None).await;
    let id = engine.definition("restart").await;
    let path = "/api/process-definition/key/restart/start";
    let answer = keeps
        .post(path, &issuer.bearer(ADA), "{}")
        .await
        .expect(200);
    let ended = answer.json()["id"].as_str().unwrap().to_owned();
    let delete =
        json!({"instructions": [{"type": "cancel", "activityId": model::task("restart")}]});
    let path = format!("/process-instance/{ended}/modification");
    engine.post(&path, delete.to_string()).await.expect(204);

    let body = json!({"processInstanceIds": [ended], "instructions":
        [{"type": "startBeforeActivity", "activityId": model::task("restart")}]});
    let forms = [
        format!("/process-definition/{id}/restart"),
        "/process-definition/key/restart/restart".to_owned(),
    ];
    let mut known = vec![ended];
    for path in &forms {
        for suffix in ["", "-async"] {
            let path = format!("/api{path}{suffix}");
            let answer = denies
                .post(&path, &issuer.bearer(MALLORY), body.to_string())
                .await;
            let answer = answer.expect(403);
            assert_eq!(answer.json()["code"], "cannot_attribute", "{path}");
        }
    }
    assert_eq!(engine.instances("restart").await, known);

    let through = format!("/api{}", forms[0]);
    for row in ["engine", "keep"] {
        let answer = if row == "engine" {
            engine.post(&forms[0], body.to_string()).await
        } else {
            let bearer = issuer.bearer(MALLORY);
            keeps.post(&through, &bearer, body.to_string()).await
        };
        let copy = new(engine, "restart", &known, &answer).await;
        assert_eq!(initiator(engine, &copy).await, of(ADA), "{row}");
        known.push(copy);
    }
}

/// As when the timer itself fires: nobody has started it, and nobody is said to have.
#[tokio::test]
async fn a_timer_that_is_fired_by_hand_starts_an_instance_without_an_initiator() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    engine.deploy(&model::by_timer("timer"), None).await;
    let jobs = engine
        .get("/job?processDefinitionKey=timer")
        .await
        .expect(200);
    let path = format!("/job/{}/execute", jobs.json()[0]["id"].as_str().unwrap());

    for (profile, status) in [("user", 403), ("operator", 204)] {
        let options = Options {
            profile,
            ..Options::default()
        };
        let gateway = Gateway::start(engine, &issuer, options).await;
        assert_eq!(engine.instances("timer").await, Vec::<String>::new());
        let body = json!({"variables": {"initiator": {"value": MALLORY.id}}}).to_string();
        let answer = gateway
            .post(&format!("/api{path}"), &issuer.bearer(ADA), body)
            .await;
        answer.expect(status);
    }
    let instances = engine.instances("timer").await;
    let [instance] = instances.as_slice() else {
        panic!("{instances:?}");
    };
    assert_eq!(
        engine.variables(instance).await,
        Vec::<(String, String, Value)>::new()
    );
}

/// The one instance of a key beside those that are known.
async fn new(engine: &Engine, key: &str, known: &[String], answer: &Answer) -> String {
    let mut instances = engine.instances(key).await;
    instances.retain(|instance| !known.contains(instance));
    let [instance] = instances.as_slice() else {
        panic!("{key}: new are {instances:?} after {answer:?}");
    };
    instance.clone()
}
