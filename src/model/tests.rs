use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bytes::Bytes;
use http::Method;

use super::*;
use crate::operation::{Catalogue, Matched};

/// An engine that answers these paths, and the paths it was asked for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn models(answers: &[(&str, u16, &str)]) -> (Models, Asked) {
    models_believing(answers, Duration::from_mins(1))
}

fn models_believing(answers: &[(&str, u16, &str)], believed: Duration) -> (Models, Asked) {
    let answers: HashMap<String, (u16, String)> = answers
        .iter()
        .map(|(path, status, body)| (format!("/rest{path}"), (*status, (*body).to_owned())))
        .collect();
    let asked = Asked::default();
    let seen = asked.clone();
    let engine = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().to_string();
        let (status, body) = answers.get(&path).cloned().unwrap_or((404, String::new()));
        seen.0
            .lock()
            .unwrap()
            .push(path.trim_start_matches("/rest").to_owned());
        let answer = Response::builder()
            .status(status)
            .body(Body::from(Bytes::from(body)));
        async move { Ok::<_, Problem>(answer.unwrap()) }
    });
    let settings = ModelSettings {
        believed,
        entries: 100,
        names: vec!["given".to_owned()],
    };
    let memory = ModelMemory::new(settings);
    (Models::new(engine, "/rest/", memory), asked)
}

/// The same engine's, with this memory.
fn remembering(models: &Models, memory: ModelMemory) -> Models {
    Models(
        Arc::new(Shared {
            engine: models.0.engine.clone(),
            root: models.0.root.clone(),
            memory,
        }),
        RequestIds::default(),
    )
}

fn matched(method: impl Borrow<Method>, path: &str) -> Match {
    let Matched::Operation(matched) = Catalogue::builtin().find(method.borrow(), path) else {
        panic!("{path} is no operation");
    };
    matched
}

fn xml(key: &str, initiator: &str) -> String {
    let xml = format!(
        "<d xmlns:camunda='c'><process id='{key}'><startEvent camunda:initiator='{initiator}'/></process></d>"
    );
    serde_json::json!({"id": "x", "bpmn20Xml": xml}).to_string()
}

fn names(protected: &Protected) -> Vec<&str> {
    protected.names.iter().map(|name| &**name).collect()
}

const ORDER: &str = "/process-definition/order:1:a";

#[tokio::test]
async fn a_start_by_key_asks_for_the_newest_and_its_model_once() {
    let order_xml = xml("order", "starter");
    let (models, asked) = models(&[
        (
            "/process-definition/key/order",
            200,
            r#"{"id":"order:1:a"}"#,
        ),
        ("/process-definition/order:1:a/xml", 200, &order_xml),
    ]);
    let start = matched(Method::POST, "/process-definition/key/order/start");
    for round in 0..2 {
        let protected = models.protected(&start, None, vec![]).await.unwrap();
        assert_eq!(names(&protected), ["starter"]);
        assert_eq!(&*protected.believed.unwrap().id, "order:1:a");
        let want: &[&str] = if round == 0 {
            &[
                "/process-definition/key/order",
                "/process-definition/order:1:a/xml",
            ]
        } else {
            &[]
        };
        assert_eq!(asked.take(), want);
    }
    // By id: the same model, kept by its id.
    let start = matched(Method::POST, &format!("{ORDER}/submit-form"));
    assert_eq!(
        names(&models.protected(&start, None, vec![]).await.unwrap()),
        ["starter"]
    );
    assert!(asked.take().is_empty());
    let known = models.known();
    assert!(known.contains("starter") && known.contains("given") && !known.contains("other"));
}

#[tokio::test]
async fn the_paths_asked_are_those_of_the_request() {
    let t_xml = xml("ö 1", "s");
    let (models, asked) = models(&[
        (
            "/engine/e%201/process-definition/key/%C3%B6%201/tenant-id/t",
            200,
            r#"{"id":"ö 1:1:a"}"#,
        ),
        (
            "/engine/e%201/process-definition/%C3%B6%201:1:a/xml",
            200,
            &t_xml,
        ),
    ]);
    let path = "/engine/e%201/process-definition/key/%C3%B6%201/tenant-id/t/start";
    let protected = models
        .protected(&matched(Method::POST, path), None, vec![])
        .await
        .unwrap();
    assert_eq!(names(&protected), ["s"]);
    assert_eq!(asked.take().len(), 2);
}

#[tokio::test]
async fn an_unknown_definition_goes_on_and_any_other_failure_does_not() {
    let start = matched(Method::POST, "/process-definition/key/order/start");
    let (none, _) = models(&[]);
    assert!(
        none.protected(&start, None, vec![])
            .await
            .unwrap()
            .names
            .is_empty()
    );
    let good = (
        "/process-definition/key/order",
        200,
        r#"{"id":"order:1:a"}"#,
    );
    for (row, answers) in [
        (
            "key 500",
            vec![("/process-definition/key/order", 500, "{}")],
        ),
        (
            "key no JSON",
            vec![("/process-definition/key/order", 200, "<html>")],
        ),
        (
            "xml 500",
            vec![good, ("/process-definition/order:1:a/xml", 500, "")],
        ),
        (
            "no xml",
            vec![good, ("/process-definition/order:1:a/xml", 200, "{}")],
        ),
        (
            "null",
            vec![
                good,
                (
                    "/process-definition/order:1:a/xml",
                    200,
                    r#"{"bpmn20Xml":null}"#,
                ),
            ],
        ),
        (
            "broken",
            vec![
                good,
                (
                    "/process-definition/order:1:a/xml",
                    200,
                    r#"{"bpmn20Xml":"<a>"}"#,
                ),
            ],
        ),
    ] {
        let (models, asked) = models(&answers);
        for _ in 0..2 {
            let failed = models.protected(&start, None, vec![]).await;
            assert_eq!(failed.unwrap_err(), Problem::ModelUnavailable, "{row}");
            assert!(!asked.take().is_empty(), "{row}: a failure is not kept");
        }
    }
}

#[tokio::test]
async fn another_definition_than_believed_is_asked_for_anew() {
    let order_xml = xml("order", "starter");
    let (models, asked) = models(&[
        (
            "/process-definition/key/order",
            200,
            r#"{"id":"order:1:a"}"#,
        ),
        ("/process-definition/order:1:a/xml", 200, &order_xml),
    ]);
    let start = matched(Method::POST, "/process-definition/key/order/start");
    let believed = models
        .protected(&start, None, vec![])
        .await
        .unwrap()
        .believed
        .unwrap();
    asked.take();
    assert!(!models.started(&believed, "order:1:a").await);
    models.protected(&start, None, vec![]).await.unwrap();
    assert!(asked.take().is_empty());
    assert!(models.started(&believed, "order:2:b").await);
    models.protected(&start, None, vec![]).await.unwrap();
    assert_eq!(asked.take(), ["/process-definition/key/order"]);
}

#[tokio::test]
async fn a_later_write_protects_the_names_of_its_own_model_alone() {
    let order_xml = xml("order", "starter");
    let other_xml = xml("other", "owner");
    let (models, asked) = models(&[
        ("/process-definition/order:1:a/xml", 200, &order_xml),
        ("/process-definition/other:1:a/xml", 200, &other_xml),
        (
            "/task/1",
            200,
            r#"{"processDefinitionId":"order:1:a","processInstanceId":"5"}"#,
        ),
        ("/task/2", 200, r#"{"processDefinitionId":null}"#),
        (
            "/task/3",
            200,
            r#"{"processDefinitionId":"other:1:a","processInstanceId":"other"}"#,
        ),
        ("/process-instance?subProcessInstance=other", 200, "[]"),
        (
            "/process-instance/other",
            200,
            r#"{"definitionId":"other:1:a","caseInstanceId":null}"#,
        ),
        (
            "/external-task/4",
            200,
            r#"{"processDefinitionId":"order:1:a","processInstanceId":"5"}"#,
        ),
        (
            "/task/called",
            200,
            r#"{"processDefinitionId":"other:1:a","processInstanceId":"called"}"#,
        ),
        (
            "/process-instance/called",
            200,
            r#"{"definitionId":"other:1:a","caseInstanceId":null}"#,
        ),
        (
            "/process-instance?subProcessInstance=called",
            200,
            r#"[{"id":"5"}]"#,
        ),
        (
            "/process-instance/of-case",
            200,
            r#"{"definitionId":"other:1:a","caseInstanceId":"case"}"#,
        ),
        ("/task/in-case", 200, r#"{"caseInstanceId":"case"}"#),
        (
            "/process-instance/5",
            200,
            r#"{"definitionId":"order:1:a"}"#,
        ),
        ("/execution/5", 200, r#"{"processInstanceId":"5"}"#),
        ("/execution/6", 200, r#"{"processInstanceId":"5"}"#),
        ("/execution/other", 200, r#"{"processInstanceId":"other"}"#),
        (
            "/execution/called",
            200,
            r#"{"processInstanceId":"called"}"#,
        ),
        (
            "/execution/of-case",
            200,
            r#"{"processInstanceId":"of-case"}"#,
        ),
        ("/task/7", 500, ""),
    ]);
    for (method, path, want) in [
        (Method::POST, "/task/1/complete", &["starter"][..]),
        // It may be below another task, whose process it then writes to.
        (Method::POST, "/task/2/complete", &["starter"]),
        (Method::POST, "/task/3/complete", &[]),
        (Method::POST, "/task/404/complete", &["starter"]),
        (Method::POST, "/execution/404/signal", &["starter"]),
        (
            Method::PUT,
            "/process-instance/404/variables/starter",
            &["starter"],
        ),
        // An execution inside of the instance, under the name of one.
        (
            Method::PUT,
            "/process-instance/6/variables/starter",
            &["starter"],
        ),
        (Method::POST, "/process-instance/other/variables", &[]),
        (Method::POST, "/task/called/complete", &["starter"]),
        (
            Method::PUT,
            "/process-instance/called/variables/starter",
            &["starter"],
        ),
        (
            Method::POST,
            "/process-instance/of-case/variables",
            &["starter"],
        ),
        (Method::POST, "/task/in-case/complete", &["starter"]),
        (Method::PUT, "/task/1/variables/starter", &["starter"]),
        (Method::POST, "/external-task/4/complete", &["starter"]),
        (Method::POST, "/process-instance/5/variables", &["starter"]),
        (Method::POST, "/execution/6/signal", &["starter"]),
        (Method::POST, "/message", &["starter"]),
        (
            Method::POST,
            "/process-instance/variables-async",
            &["starter"],
        ),
        (Method::POST, "/condition", &["starter"]),
    ] {
        let seen = vec!["starter".into()];
        let protected = models
            .protected(&matched(method, path), None, seen)
            .await
            .unwrap();
        assert_eq!(names(&protected), want, "{path}");
        asked.take();
        let unseen = matched(Method::POST, "/task/1/complete");
        assert!(
            models
                .protected(&unseen, None, vec![])
                .await
                .unwrap()
                .names
                .is_empty()
        );
        assert!(asked.take().is_empty(), "nothing seen, nothing asked");
    }
    let fails = matched(Method::POST, "/task/7/complete");
    let failed = models.protected(&fails, None, vec!["starter".into()]).await;
    assert_eq!(failed.unwrap_err(), Problem::ModelUnavailable);
}

#[tokio::test]
async fn after_a_migration_the_name_of_the_version_before_is_protected_too() {
    let (first, second) = (xml("order", "starter"), xml("order", "other"));
    let stranger = xml("stranger", "elsewhere");
    let (models, _) = models(&[
        ("/process-definition/order:1:a/xml", 200, &first),
        ("/process-definition/order:2:b/xml", 200, &second),
        ("/process-definition/stranger:1:c/xml", 200, &stranger),
        (
            "/task/1",
            200,
            r#"{"processDefinitionId":"order:2:b","processInstanceId":"5"}"#,
        ),
        (
            "/process-instance/5",
            200,
            r#"{"definitionId":"order:2:b"}"#,
        ),
        ("/process-instance?subProcessInstance=5", 200, "[]"),
    ]);
    for id in ["order:1:a", "stranger:1:c"] {
        let start = matched(Method::POST, &format!("/process-definition/{id}/start"));
        models.protected(&start, None, vec![]).await.unwrap();
    }
    let complete = matched(Method::POST, "/task/1/complete");
    let seen = ["starter", "other", "elsewhere"].map(Into::into).to_vec();
    let protected = models.protected(&complete, None, seen).await.unwrap();
    assert_eq!(names(&protected), ["starter", "other"]);
}

#[tokio::test]
async fn what_is_learned_is_shared_by_all_memories_and_what_is_kept_is_not_by_another_engines() {
    let order_xml = xml("order", "starter");
    let (before, asked) = models(&[("/process-definition/order:1:a/xml", 200, &order_xml)]);
    let settings = |names: &[&str]| ModelSettings {
        believed: Duration::from_mins(1),
        entries: 100,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let memory = &before.0.memory;
    let same = remembering(&before, memory.with_settings(settings(&["given"])));
    let changed = remembering(&before, memory.with_settings(settings(&["other"])));
    let moved = remembering(&before, memory.at_another_address(settings(&["given"])));
    let start = matched(Method::POST, &format!("{ORDER}/start"));
    // A request that began before the reload.
    before.protected(&start, None, vec![]).await.unwrap();
    let known = |models: &Models| {
        let known = models.known();
        ["starter", "given", "other"].map(|name| known.contains(name))
    };
    assert_eq!(known(&before), [true, true, false]);
    assert_eq!(known(&same), [true, true, false]);
    assert_eq!(known(&changed), [true, false, true]);
    assert_eq!(known(&moved), [true, true, false]);
    assert_eq!(asked.take().len(), 1);
    same.protected(&start, None, vec![]).await.unwrap();
    assert!(asked.take().is_empty());
    moved.protected(&start, None, vec![]).await.unwrap();
    assert_eq!(asked.take().len(), 1);
}

#[test]
fn names_and_keys_are_bounded_together() {
    let mut known = UsedNames::default();
    for at in 0..MAX_KNOWN {
        known.add(&["starter".into()], Some(&at.to_string()));
        known.add(&[format!("name{at}").into()], None);
    }
    let keys: usize = known.keys_by_name.values().map(HashSet::len).sum();
    assert_eq!(known.keys_by_name.len() + keys, MAX_KNOWN);
    assert!(known.is_used("starter", "0") && !known.is_used("starter", "9999"));
}

#[test]
fn a_condition_that_cannot_be_read_is_refused() {
    for body in [
        r#"{"processDefinitionId":7}"#,
        r#"{"processDefinitionId":"order:1:a","processDefinitionId":"b"}"#,
    ] {
        let refused = definition_in(body.as_bytes());
        assert_eq!(refused.unwrap_err().code(), "body_invalid", "{body}");
    }
}

#[tokio::test]
async fn a_condition_that_names_its_definition_is_filled() {
    let order_xml = xml("order", "starter");
    let (models, _) = models(&[("/process-definition/order:1:a/xml", 200, &order_xml)]);
    let condition = matched(Method::POST, "/condition");
    let body = br#"{"processDefinitionId":"order:1:a"}"#;
    let definition = definition_in(body).unwrap();
    let protected = models.protected(&condition, definition.as_deref(), vec![]);
    assert_eq!(names(&protected.await.unwrap()), ["starter"]);
}

#[tokio::test]
async fn what_is_believed_for_no_time_is_asked_each_time() {
    let order_xml = xml("order", "starter");
    let answers = [
        (
            "/process-definition/key/order",
            200,
            r#"{"id":"order:1:a"}"#,
        ),
        ("/process-definition/order:1:a/xml", 200, &order_xml),
    ];
    let (models, asked) = models_believing(&answers, Duration::ZERO);
    let start = matched(Method::POST, "/process-definition/key/order/start");
    models.protected(&start, None, vec![]).await.unwrap();
    asked.take();
    models.protected(&start, None, vec![]).await.unwrap();
    assert_eq!(asked.take(), ["/process-definition/key/order"]);
}

#[tokio::test]
async fn an_engine_that_refuses_our_account_is_called_so() {
    let (models, _) = models(&[("/process-definition/key/order", 401, "")]);
    let start = matched(Method::POST, "/process-definition/key/order/start");
    let failed = models.protected(&start, None, vec![]).await;
    assert_eq!(failed.unwrap_err(), Problem::EngineRejectedCredentials);
}
