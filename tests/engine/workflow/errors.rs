//! What callers do wrong, on both engines: a 4xx that says what, and nothing is done.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::World;
use crate::support::http::{Answer, json_request, send};
use crate::support::issuer::ADA;
use crate::support::{Engine, model};

const KEY: &str = "workflow-errors";
const FAILING: &str = "workflow-errors-failing";
const FAILING_LATER: &str = "workflow-errors-failing-later";
const FORMS: &str = "workflow-errors-forms";

#[tokio::test]
async fn mistakes_of_callers_are_4xx_on_operaton() {
    mistakes(Engine::shared().await).await;
}

#[tokio::test]
async fn mistakes_of_callers_are_4xx_on_camunda() {
    mistakes(Engine::camunda().await).await;
}

/// What is asked, by whom, and the status, the code and words of the detail of the answer.
type Row<'a> = (&'a str, &'a str, String, u16, &'a str, &'a str);

#[rustfmt::skip]
async fn mistakes(engine: &Engine) {
    let world = World::new(engine).await;
    deploy(engine).await;
    let (ended, ended_task) = world.started(KEY).await;
    world
        .post(&format!("/api/tasks/{ended_task}/complete"), "")
        .await
        .expect(204);
    let (instance, task) = world.started(KEY).await;
    let (deleted, deleted_task) = world.started(KEY).await;
    delete(&world, &deleted).await.expect(204);
    let (suspended, suspended_task) = world.started(KEY).await;
    let path = format!("/api/instances/{suspended}/suspend");
    world
        .ask(&world.operator, Method::POST, &path, None)
        .await
        .expect(204);
    let (_, held_task) = world.started(KEY).await;
    let bob = world
        .issuer
        .bearer_with(ADA, &json!({"sub": "bob"}));
    let claim = format!("/api/tasks/{held_task}/claim");
    world
        .ask(&bob, Method::POST, &claim, None)
        .await
        .expect(204);
    let started = engine.instances(KEY).await.len();

    let start = format!("/api/processes/{KEY}/start");
    let complete = format!("/api/tasks/{task}/complete");
    let none = String::new;
    let variable = |json: &str| format!(r#"{{"variables":{{"v":{json}}}}}"#);
    let long = |characters: usize| "x".repeat(characters);
    let mut rows: Vec<Row<'_>> = Vec::new();

    // Nothing has that key or id.
    for path in ["", "/xml", "/form"] {
        rows.push(("GET", leak(format!("/api/processes/nope{path}")), none(), 404, "engine_refused", "No matching process definition with key: nope"));
    }
    rows.push(("POST", "/api/processes/nope/start", none(), 404, "engine_refused", "No matching process definition with key: nope"));
    for id in ["nope", &ended, &deleted] {
        rows.push(("GET", leak(format!("/api/instances/{id}")), none(), 404, "engine_refused", "does not exist"));
        rows.push(("GET", leak(format!("/api/instances/{id}/variables")), none(), 404, "engine_refused", "execution is null"));
        rows.push(("GET", leak(format!("/api/instances/{id}/activity-instances")), none(), 404, "engine_refused", "does not exist"));
        rows.push(("DELETE", leak(format!("/api/instances/{id}")), none(), 404, "engine_refused", "No process instance found for id"));
    }
    for id in ["nope", &ended_task, &deleted_task] {
        rows.push(("GET", leak(format!("/api/tasks/{id}")), none(), 404, "engine_refused", "No matching task with id"));
        rows.push(("GET", leak(format!("/api/tasks/{id}/form")), none(), 404, "engine_refused", "task is null"));
        for what in ["complete", "claim", "unclaim"] {
            rows.push(("POST", leak(format!("/api/tasks/{id}/{what}")), none(), 404, "engine_refused", "task is null"));
        }
    }

    // What is not in the state for it.
    for what in ["complete", "claim", "unclaim"] {
        rows.push(("POST", leak(format!("/api/tasks/{suspended_task}/{what}")), none(), 409, "engine_refused", "is suspended."));
    }
    rows.push(("POST", "/api/processes/workflow-errors-suspended/start", none(), 409, "engine_refused", "is suspended."));
    rows.push(("POST", &claim, none(), 409, "engine_refused", "is already claimed by someone else."));

    // Bodies.
    for (body, code, why) in [
        ("{", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":1}", "body_invalid", "refused"),
        ("{}x", "body_invalid", "refused"),
        ("[]", "body_invalid", "refused"),
        ("null", "body_invalid", "refused"),
        ("\"x\"", "body_invalid", "refused"),
        ("{'variables':{}}", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":01}}", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":NaN}}", "body_invalid", "refused"),
        ("{\"variables\":[]}", "body_invalid", "`variables` must be an object."),
        ("{\"variables\":\"x\"}", "body_invalid", "`variables` must be an object."),
        ("{\"variables\":{},\"variables\":{}}", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":1,\"\\u0076\":2}}", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":{\"value\":1,\"value\":2}}}", "body_invalid", "refused"),
        ("{\"variables\":{\"v\":9223372036854775808}}", "body_invalid", "The variable `v` is"),
        ("{\"variables\":{\"v\":{\"value\":\"x\",\"type\":\"Integer\"}}}", "engine_refused", "Cannot convert value 'x'"),
        ("{\"variables\":{\"v\":\"\\ud800\"}}", "body_invalid", "refused"),
    ] {
        rows.push(("POST", &start, body.to_owned(), 400, code, why));
        rows.push(("POST", &complete, body.to_owned(), 400, code, why));
    }
    for body in [r#"{"businessKey":7}"#, r#"{"businessKey":["a"]}"#] {
        rows.push(("POST", &start, body.to_owned(), 400, "body_invalid", "`businessKey` must be a string."));
    }
    rows.push(("POST", &start, r#"{"business_key":{}}"#.to_owned(), 400, "body_invalid", "`business_key` must be a string."));
    rows.push(("POST", &complete, r#"{"withVariablesInReturn":"true"}"#.to_owned(), 400, "body_invalid", "`withVariablesInReturn` must be true or false."));
    let own_claim = leak(format!("/api/tasks/{task}/claim"));
    rows.push(("POST", own_claim, r#"{"userId":7}"#.to_owned(), 400, "body_invalid", "`userId` must be a string."));
    rows.push(("POST", own_claim, "{".to_owned(), 400, "body_invalid", "refused"));
    let own = leak(format!("/api/instances/{instance}"));
    rows.push(("DELETE", own, r#"{"reason":7}"#.to_owned(), 400, "body_invalid", "`reason` must be a string."));
    rows.push(("DELETE", own, "[]".to_owned(), 400, "body_invalid", "refused"));

    // Longer than the engine's columns.
    let key = |length| format!(r#"{{"businessKey":"{}"}}"#, long(length));
    rows.push(("POST", &start, key(256), 400, "engine_refused", "a business key"));
    let name = format!(r#"{{"variables":{{"{}":1}}}}"#, long(256));
    for path in [&start, &complete] {
        rows.push(("POST", path, name.clone(), 400, "engine_refused", "of a variable's name"));
        rows.push(("POST", path, variable(&format!("\"{}\"", long(4001))), 400, "engine_refused", "4000 characters"));
        rows.push(("POST", path, variable(&format!(r#"{{"value":"{}","type":"String"}}"#, long(5000))), 400, "engine_refused", "4000 characters"));
    }

    // The model's own failure is the engine's, and says what failed.
    for (path, body) in [
        (format!("/api/processes/{FAILING}/start"), "{}".to_owned()),
        (format!("/api/processes/{FAILING}/start"), variable("true")),
        (format!("/api/tasks/{}/complete", world.started(FAILING_LATER).await.1), "{}".to_owned()),
    ] {
        rows.push(("POST", leak(path), body, 502, "engine_failed", "Unknown property used in expression: ${noSuchBean.call()}"));
    }

    // Queries.
    let page = "`firstResult` and `maxResults` must be integers";
    for (path, code, why) in [
        ("tasks?maxResults=abc", "bad_request", page),
        ("tasks?firstResult=-1", "bad_request", page),
        ("instances?maxResults=1.5", "bad_request", page),
        ("processes?firstResult=2147483648", "bad_request", page),
        ("history/activity-instances?maxResults=x", "bad_request", page),
        ("tasks?sortBy=nope&sortOrder=asc", "engine_refused", "sortBy"),
        ("tasks?sortBy=created", "engine_refused", "sortBy and sortOrder required"),
        ("tasks?sortBy=created&sortOrder=up", "engine_refused", "sortOrder"),
        ("tasks?candidateGroups=", "engine_refused", "Candidate group list is empty"),
        ("tasks?includeAssignedTasks=true", "engine_refused", "Invalid query usage"),
        ("processes?version=-1", "engine_refused", "version is not greater than 0"),
        ("instances?rootProcessInstances=true&superProcessInstance=x", "engine_refused", "Invalid query usage"),
        ("history/activity-instances?canceled=true&completeScope=true", "engine_refused", "Already querying"),
        ("tasks?candidateUser=a&candidateGroup=b", "engine_refused", "Invalid query usage"),
        ("tasks?priority=abc", "engine_refused", "priority"),
        ("tasks?unassigned=maybe", "engine_refused", "unassigned"),
        ("tasks?createdAfter=yesterday", "engine_refused", "createdAfter"),
        ("instances?sortBy=nope&sortOrder=asc", "engine_refused", "sortBy"),
        ("instances?variables=x", "engine_refused", "KEY_OPERATOR_VALUE"),
        ("processes?sortBy=nope&sortOrder=asc", "engine_refused", "sortBy"),
        ("processes?latestVersion=maybe", "engine_refused", "latestVersion"),
        ("processes?latestVersion=true&version=1", "engine_refused", "Calling latest() can only be used"),
        ("history/activity-instances?sortBy=nope&sortOrder=asc", "engine_refused", "sortBy"),
        ("history/activity-instances?startedAfter=x", "engine_refused", "startedAfter"),
    ] {
        rows.push(("GET", leak(format!("/api/{path}")), none(), 400, code, why));
    }

    let mut wrong = String::new();
    for (method, path, body, status, code, words) in &rows {
        let body = (*method != "GET").then_some(body.as_str());
        let bearer = if *method == "DELETE" {
            &world.operator
        } else {
            &world.ada
        };
        let answer = world.ask(bearer, method.parse().unwrap(), path, body).await;
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        // What the engine said is there for programs too.
        let is_told = problem["code"] != "engine_refused" || problem["engine"]["type"].is_string();
        if answer.status != *status
            || problem["code"] != *code
            || !detail.contains(words)
            || !is_told
        {
            let body: String = body.unwrap_or_default().chars().take(80).collect();
            writeln!(wrong, "{method} {path} {body}: {problem}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");

    assert_eq!(engine.instances(KEY).await.len(), started);
    assert_eq!(engine.instances(FAILING).await.len(), 0);
    assert_eq!(world.told(&format!("/task/{task}")).await["assignee"], Value::Null);
    assert_eq!(world.told(&format!("/task/{held_task}")).await["assignee"], "bob");
    assert_eq!(engine.get(&format!("/task/{suspended_task}")).await.status, 200);
    // One less is taken.
    world.post(&start, &key(255)).await.expect(201);
    world
        .post(&start, &name.replacen('x', "", 1))
        .await
        .expect(201);
}

async fn deploy(engine: &Engine) {
    const SUSPENDED: &str = "workflow-errors-suspended";
    engine.deploy(&model::waiting([KEY, SUSPENDED]), None).await;
    engine.deploy(&model::failing(FAILING, true), None).await;
    engine
        .deploy(&model::failing(FAILING_LATER, false), None)
        .await;
    let url = format!(
        "{}/process-definition/key/{SUSPENDED}/suspended",
        engine.url()
    );
    let suspend = json_request(
        Method::PUT,
        &url,
        &Engine::authorization(),
        r#"{"suspended":true}"#,
    );
    send(suspend).await.expect(204);
}

/// As long as the test: the rows borrow it.
fn leak(text: String) -> &'static str {
    text.leak()
}

async fn delete(world: &World<'_>, instance: &str) -> Answer {
    let path = format!("/api/instances/{instance}");
    world
        .ask(&world.operator, Method::DELETE, &path, None)
        .await
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_415() {
    let world = World::new(Engine::shared().await).await;
    world
        .engine
        .deploy(&model::waiting(["workflow-errors-media"]), None)
        .await;
    let (instance, task) = world.started("workflow-errors-media").await;
    for (method, path) in [
        (
            Method::POST,
            "/api/processes/workflow-errors-media/start".to_owned(),
        ),
        (Method::POST, format!("/api/tasks/{task}/complete")),
        (Method::POST, format!("/api/tasks/{task}/claim")),
        (Method::DELETE, format!("/api/instances/{instance}")),
    ] {
        for (media_type, encoding) in [
            ("text/plain", None),
            ("application/x-www-form-urlencoded", None),
            ("application/merge-patch+json", None),
            ("application/json", Some("gzip")),
        ] {
            let url = world.gateway.url(&path);
            let mut request = json_request(method.clone(), &url, &world.operator, "{}");
            let headers = request.headers_mut();
            headers.insert("content-type", media_type.parse().unwrap());
            if let Some(encoding) = encoding {
                headers.insert("content-encoding", encoding.parse().unwrap());
            }
            let answer = send(request).await;
            world.is_documented(&method, &path, &answer);
            let answer = answer.expect(415);
            assert_eq!(
                answer.json()["code"],
                "unsupported_media_type",
                "{path} {media_type}"
            );
        }
    }
    let shown = world.told(&format!("/task/{task}")).await;
    assert_eq!(shown["assignee"], Value::Null);
    assert_eq!(
        world.engine.instances("workflow-errors-media").await,
        [instance]
    );
}

#[tokio::test]
async fn objects_that_java_would_read_are_refused_to_users_and_by_the_engine_to_administrators() {
    const KEY: &str = "workflow-errors-java";
    const JAVA: &str = r#"{"value":"rO0ABXA=","type":"Object","valueInfo":
        {"objectTypeName":"java.util.Date","serializationDataFormat":"application/x-java-serialized-object"}}"#;
    const UNNAMED: &str = r#"{"value":"{}","type":"Object","valueInfo":{"serializationDataFormat":"application/json"}}"#;
    let (operaton, camunda) = (Engine::shared().await, Engine::camunda().await);
    for (engine, json, words) in [
        (operaton, JAVA, "Java serialization format is prohibited"),
        (camunda, JAVA, "Java serialization format is prohibited"),
        (operaton, UNNAMED, "Cannot find serializer for value"),
        (camunda, UNNAMED, "no 'objectTypeName' provided"),
    ] {
        let world = World::new(engine).await;
        engine.deploy(&model::waiting([KEY]), None).await;
        let before = engine.instances(KEY).await;
        let path = format!("/api/processes/{KEY}/start");
        let body = format!(r#"{{"variables":{{"v":{json}}}}}"#);
        for bearer in [&world.ada, &world.operator] {
            let refused = world.ask(bearer, Method::POST, &path, Some(&body)).await;
            assert_eq!(
                refused.expect(403).json()["code"],
                "access_denied",
                "{json}"
            );
        }
        let admin = world.issuer.bearer_with(ADA, &json!({"roles": ["admin"]}));
        let refused = world.ask(&admin, Method::POST, &path, Some(&body)).await;
        let refused = refused.expect(400).json();
        assert_eq!(refused["code"], "engine_refused");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
        assert_eq!(engine.instances(KEY).await, before);
    }
}

/// The engine checks a form where a form is submitted: a completion is none, and the workflow API has no other.
#[tokio::test]
async fn forms_are_checked_where_they_are_submitted() {
    let world = World::new(Engine::shared().await).await;
    world.engine.deploy(&model::with_forms(FORMS), None).await;
    let bad = r#"{"variables":{"amount":{"value":5,"type":"Long"}}}"#;
    let (_, task) = world.started(FORMS).await;
    let submit = format!("/api/task/{task}/submit-form");
    let answer = world.gateway.post(&submit, &world.ada, bad).await;
    let direct = world
        .engine
        .post(&format!("/task/{task}/submit-form"), bad)
        .await;
    assert_eq!((answer.status, &answer.body), (direct.status, &direct.body));
    let why = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        why.contains("Invalid value submitted for form field 'amount'"),
        "{why}"
    );
    world
        .post(
            &format!("/api/tasks/{task}/complete"),
            r#"{"variables":{"amount":5}}"#,
        )
        .await
        .expect(204);
}

/// The engine answers that nothing was wrong, and there is nobody else to ask.
#[tokio::test]
async fn suspending_what_is_not_there_is_204_as_on_the_engine() {
    let world = World::new(Engine::shared().await).await;
    for what in ["suspend", "activate"] {
        let path = format!("/api/instances/nope/{what}");
        let answer = world.ask(&world.operator, Method::POST, &path, None).await;
        answer.expect(204);
    }
    let history = world
        .get("/api/history/activity-instances?processInstanceId=nope")
        .await;
    assert_eq!(history.expect(200).json(), json!([]));
}

#[tokio::test]
async fn of_many_who_act_at_the_same_time_one_does_it_and_the_others_are_told_so() {
    const KEY: &str = "workflow-races";
    for engine in [Engine::shared().await, Engine::camunda().await] {
        let world = World::new(engine).await;
        engine.deploy(&model::waiting([KEY]), None).await;
        let people: Vec<_> = (0..6)
            .map(|number| {
                let claims = json!({"sub": format!("user-{number}")});
                world.issuer.bearer_with(ADA, &claims)
            })
            .collect();
        let mut seen = BTreeMap::new();
        for _ in 0..10 {
            let (_, task) = world.started(KEY).await;
            for (what, lost) in [("claim", [409].as_slice()), ("complete", &[404, 409])] {
                let path = format!("/api/tasks/{task}/{what}");
                let all = people
                    .iter()
                    .map(|bearer| world.ask(bearer, Method::POST, &path, None));
                let answers = join_all(all).await;
                let done = answers.iter().filter(|answer| answer.status == 204).count();
                assert_eq!(done, 1, "{what}: {answers:?}");
                for answer in answers.iter().filter(|answer| answer.status != 204) {
                    assert!(lost.contains(&answer.status.as_u16()), "{what}: {answer:?}");
                    assert_eq!(answer.json()["code"], "engine_refused");
                    *seen.entry((what, answer.status.as_u16())).or_insert(0) += 1;
                }
            }
        }
        println!("{} on {}: {seen:?}", KEY, engine.url());
    }
}
