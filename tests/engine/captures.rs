//! The recorded exchanges (`tests/captures`), asked again through the gateway: what answers is the
//! engine, as it did when it was recorded.
//!
//! Compared are status, kind of content, caching, and the names of all members; ids, times and what
//! other tests have deployed are not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::gateway::Options;
use crate::support::http::send;
use crate::support::issuer::ADA;
use crate::support::{Engine, Gateway, Issuer, model};

/// What the gateway answers itself, with its own words: the token, and bodies that it must read.
const OWN: [&str; 4] = [
    "err-no-auth",
    "err-json-syntax",
    "err-json-mapping",
    "err-ctype",
];

/// What the gateway has written beside what was sent.
const WRITTEN: [&str; 2] = ["initiatorEmail", "initiatorName"];

/// The processes of the recording, but for `order`, which is in it.
const MODELS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:camunda="http://camunda.org/schema/1.0/bpmn"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" targetNamespace="http://lab">
  <message id="message" name="OrderReceived"/>
  <process id="simple" name="Simple" isExecutable="true">
    <startEvent id="simple-start"/><userTask id="simple-task"/>
    <sequenceFlow id="simple-flow" sourceRef="simple-start" targetRef="simple-task"/>
  </process>
  <process id="failing" isExecutable="true">
    <startEvent id="failing-start"/><serviceTask id="failing-task" camunda:expression="${noSuchBean.call()}"/>
    <sequenceFlow id="failing-flow" sourceRef="failing-start" targetRef="failing-task"/>
  </process>
  <process id="byMessage" isExecutable="true">
    <startEvent id="by-message"><messageEventDefinition messageRef="message"/></startEvent>
    <userTask id="message-task"/>
    <sequenceFlow id="message-flow" sourceRef="by-message" targetRef="message-task"/>
  </process>
  <process id="byCondition" isExecutable="true">
    <startEvent id="by-condition"><conditionalEventDefinition>
      <condition xsi:type="tFormalExpression">${execution.getVariable('amount') > 100}</condition>
    </conditionalEventDefinition></startEvent>
    <userTask id="condition-task"/>
    <sequenceFlow id="condition-flow" sourceRef="by-condition" targetRef="condition-task"/>
  </process>
</definitions>
"#;

#[tokio::test]
async fn the_recorded_exchanges_are_answered_alike_through_the_gateway() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let transparent = Options {
        profile: "transparent",
        // The recorded message brings an initiator for the instance that it starts.
        more: "[initiator]\nmessages = \"inject\"\n",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, transparent).await;
    let order: Value = serde_json::from_str(&capture("process-definition-xml.json")).unwrap();
    engine
        .deploy(order["bpmn20Xml"].as_str().unwrap(), None)
        .await;
    engine.deploy(MODELS, None).await;

    // Ids of the recording that none of its answers introduces in time, and what they are here.
    let start = async |key: &str| {
        let path = format!("/process-definition/key/{key}/start");
        let answer = engine.post(&path, "{}").await.expect(200);
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let task = async |instance: &str| {
        let path = format!("/task?processInstanceId={instance}");
        let found = engine.get(&path).await.expect(200).json();
        found[0]["id"].as_str().unwrap().to_owned()
    };
    let later = start("order").await;
    let mut ids = vec![
        (
            "00e7a784-e852-11f1-9691-02fc00000001".to_owned(),
            task(&later).await,
        ),
        ("00e7806e-e852-11f1-9691-02fc00000001".to_owned(), later),
        (
            "f6be86fd-e7be-11f1-bd24-02fc00000001".to_owned(),
            start("simple").await,
        ),
    ];

    let mut wrong = Vec::new();
    let exchanges = capture("index.jsonl");
    for line in exchanges.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let name = exchange["id"].as_str().unwrap();
        let asked = &exchange["request"];
        let path = asked["path"].as_str().unwrap();
        let path = ids.iter().fold(path.to_owned(), |path, (theirs, ours)| {
            path.replace(theirs, ours)
        });
        let mut request = Request::builder()
            .method(asked["method"].as_str().unwrap())
            .uri(gateway.url(&format!("/engine-rest{path}")));
        if name != "err-no-auth" {
            request = request.header("authorization", issuer.bearer(ADA));
        }
        for pair in asked["headers"].as_array().unwrap() {
            request = request.header(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        }
        let body = match asked["body"].as_str() {
            // Recorded as far as its document begins.
            Some(text) if name == "deployment-create" => {
                let (head, _) = text.split_once("<?xml").unwrap();
                let document = model::waiting(["embedded"]);
                [head, &document, "\r\n--LAB--\r\n"].concat()
            }
            Some(text) => text.to_owned(),
            None if asked["body"].is_null() => String::new(),
            None => asked["body"].to_string(),
        };
        let answer = send(request.body(Full::new(Bytes::from(body))).unwrap()).await;

        if exchange["status"] != answer.status.as_u16() {
            wrong.push(format!("{name}: {answer:?}"));
            continue;
        }
        let header = |name: &str| {
            answer
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        if OWN.contains(&name) {
            if header("content-type") != Some("application/problem+json") {
                wrong.push(format!("{name}: {answer:?}"));
            }
            continue;
        }
        for field in ["Content-Type", "Cache-Control", "Allow"] {
            if header(field) != exchange["headers"][field].as_str() {
                wrong.push(format!("{name}: {field} of {answer:?}"));
            }
        }
        let recorded = exchange["file"].as_str().map(capture).unwrap_or_default();
        let (Ok(recorded), Ok(ours)) = (
            serde_json::from_str::<Value>(&recorded),
            serde_json::from_slice::<Value>(&answer.body),
        ) else {
            if recorded.trim_end().as_bytes() != answer.body {
                wrong.push(format!("{name}: {answer:?}"));
            }
            continue;
        };
        if !covers(&names(&ours), &names(&recorded)) {
            wrong.push(format!("{name}:\n  here {ours}\n  recorded {recorded}"));
        }
        for text in [ours.to_string(), format!("{:?}", answer.headers)] {
            if text.contains(&engine.address().to_string()) {
                wrong.push(format!("{name} tells where the engine is: {text}"));
            }
        }
        let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
        match name {
            "start" => ids.push((id(&recorded), id(&ours))),
            "start-with-variables" => ids.push((
                "f68e28ec-e7be-11f1-bd24-02fc00000001".to_owned(),
                task(&id(&ours)).await,
            )),
            "task-list" => ids.push((id(&recorded[0]), id(&ours[0]))),
            _ => {}
        }
        if name == "process-instance-variable" && ours["value"] != json!(ADA.id) {
            wrong.push(format!("{name}: the initiator is {ours}"));
        }
    }
    assert!(exchanges.lines().count() > 50);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The names of a value's members, down to the leaves; an array is the set of its elements' names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Names {
    Leaf,
    Array(BTreeSet<Names>),
    Object(BTreeMap<String, Names>),
}

fn names(value: &Value) -> Names {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Names::Leaf,
        Value::Array(items) => Names::Array(items.iter().map(names).collect()),
        Value::Object(members) => Names::Object(
            members
                .iter()
                .map(|(name, value)| {
                    // The id of a definition, which is another one here.
                    let is_id = name.split(':').count() == 3;
                    let name = if is_id { "id" } else { name };
                    (name.to_owned(), names(value))
                })
                .collect(),
        ),
    }
}

/// Whether what was recorded is also here, and nothing else; a list may hold more kinds of elements here.
fn covers(ours: &Names, recorded: &Names) -> bool {
    match (ours, recorded) {
        (Names::Array(ours), Names::Array(recorded)) => recorded
            .iter()
            .all(|one| ours.iter().any(|our| covers(our, one))),
        (Names::Object(ours), Names::Object(recorded)) => {
            recorded
                .iter()
                .all(|(name, one)| ours.get(name).is_some_and(|our| covers(our, one)))
                && ours
                    .keys()
                    .all(|name| recorded.contains_key(name) || WRITTEN.contains(&&**name))
        }
        // What is null in one place may be an object in another.
        (Names::Leaf, _) | (_, Names::Leaf) => ours == recorded,
        (Names::Array(_), Names::Object(_)) | (Names::Object(_), Names::Array(_)) => false,
    }
}

fn capture(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    std::fs::read_to_string(path.join(file)).unwrap()
}
