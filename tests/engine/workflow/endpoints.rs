//! Each endpoint beside what the engine says when it is asked itself.

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use super::{World, id};
use crate::starts::{initiator, of};
use crate::support::gateway::Options;
use crate::support::http::{json_request, send};
use crate::support::issuer::{ADA, MALLORY};
use crate::support::{DEADLINE, Engine, model};

#[tokio::test]
async fn reads_answer_what_operaton_answers_and_head_is_their_head() {
    reads(Engine::shared().await).await;
}

#[tokio::test]
async fn reads_answer_what_camunda_answers_and_head_is_their_head() {
    reads(Engine::camunda().await).await;
}

#[rustfmt::skip]
async fn reads(engine: &Engine) {
    const KEY: &str = "workflow-reads";
    let world = World::new(engine).await;
    world.engine.deploy(&model::with_forms(KEY), None).await;
    let body = r#"{"businessKey":"B 1","variables":{"amount":12,"name":"Ada","of":{"value":[1]}}}"#;
    let instance = world.start(KEY, body).await;
    let task = world.task(&instance).await;

    let definition_members = "id key category description name version resource deploymentId diagram suspended \
        tenantId versionTag";
    let instance_members = "id definitionId businessKey caseInstanceId ended suspended tenantId";
    let task_members = "id name assignee created due followUp delegationState description executionId owner \
        parentTaskId priority processDefinitionId processInstanceId taskDefinitionKey caseExecutionId \
        caseInstanceId caseDefinitionId suspended formKey tenantId";
    let activity_members =
        "id activityId activityType processInstanceId childActivityInstances executionIds";
    let history_members =
        "id activityId activityType processInstanceId taskId assignee startTime endTime canceled";
    // Path, the engine's path, where what is shown has members, and which; variables are named by hand.
    for (path, engine_path, shown, members) in [
        (format!("processes?key={KEY}"), format!("process-definition?key={KEY}&latestVersion=true"), "/0", definition_members),
        (format!("processes/{KEY}"), format!("process-definition/key/{KEY}"), "", definition_members),
        (format!("processes/{KEY}/xml"), format!("process-definition/key/{KEY}/xml"), "", "id bpmn20Xml"),
        (format!("processes/{KEY}/form"), format!("process-definition/key/{KEY}/form-variables"), "/amount", "value type valueInfo"),
        (format!("instances?processDefinitionKey={KEY}"), format!("process-instance?processDefinitionKey={KEY}"), "/0", instance_members),
        (format!("instances/{instance}"), format!("process-instance/{instance}"), "", instance_members),
        (format!("instances/{instance}/variables"), format!("process-instance/{instance}/variables?deserializeValues=false"), "/name", "value type valueInfo"),
        (format!("instances/{instance}/activity-instances"), format!("process-instance/{instance}/activity-instances"), "", activity_members),
        (format!("history/activity-instances?processInstanceId={instance}"), format!("history/activity-instance?processInstanceId={instance}"), "/0", history_members),
        (format!("tasks?processInstanceId={instance}"), format!("task?processInstanceId={instance}"), "/0", task_members),
        (format!("tasks/{task}"), format!("task/{task}"), "", task_members),
        (format!("tasks/{task}/form"), format!("task/{task}/form-variables?deserializeValues=false"), "/note", "value type valueInfo"),
    ] {
        let path = format!("/api/{path}");
        let answer = world.get(&path).await.expect(200);
        let told = world
            .engine
            .get(&format!("/{engine_path}"))
            .await
            .expect(200);
        assert_eq!(answer.body, told.body, "{path}");
        let json = answer.json();
        let shown = json
            .pointer(shown)
            .unwrap_or_else(|| panic!("{path}: {json}"));
        for member in members.split(' ') {
            assert!(shown.get(member).is_some(), "{path}: no {member} in {shown}");
        }
        let head = world.ask(&world.ada, Method::HEAD, &path, None).await;
        head.expect(200);
    }
}

#[tokio::test]
async fn the_newest_versions_are_listed_unless_the_caller_says_otherwise() {
    const KEY: &str = "workflow-versions";
    let world = World::new(Engine::shared().await).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    world.engine.deploy(&model::with_forms(KEY), None).await;
    let first = world
        .told(&format!("/process-definition?key={KEY}&version=1"))
        .await;
    let (first_id, deployment) = (id(&first[0]), first[0]["deploymentId"].as_str().unwrap());
    for (query, versions) in [
        (String::new(), [2].as_slice()),
        ("&latestVersion=true".to_owned(), &[2]),
        (
            "&latestVersion=false&sortBy=version&sortOrder=asc".to_owned(),
            &[1, 2],
        ),
        (
            "&latestVersion=false&sortBy=version&sortOrder=desc".to_owned(),
            &[2, 1],
        ),
        (
            "&latestVersion=false&maxResults=1&sortBy=version&sortOrder=asc".to_owned(),
            &[1],
        ),
        (
            "&latestVersion=false&firstResult=1&sortBy=version&sortOrder=asc".to_owned(),
            &[2],
        ),
        // With these the engine refuses `latestVersion`, so it is not asked for.
        ("&version=1".to_owned(), &[1]),
        (format!("&deploymentId={deployment}"), &[1]),
        (format!("&processDefinitionId={first_id}"), &[1]),
        ("&name=With%20forms".to_owned(), &[2]),
        ("&suspended=true".to_owned(), &[]),
    ] {
        let listed = world.get(&format!("/api/processes?key={KEY}{query}")).await;
        let listed = listed.expect(200).json();
        let found = listed.as_array().unwrap().iter();
        let found: Vec<_> = found
            .map(|shown| shown["version"].as_i64().unwrap())
            .collect();
        assert_eq!(found, versions, "{query}");
    }
    let newest = world
        .get(&format!("/api/processes/{KEY}"))
        .await
        .expect(200);
    assert_eq!(newest.json()["version"], 2);
}

#[tokio::test]
async fn values_are_shown_as_they_are_stored_unless_the_caller_says_otherwise() {
    const KEY: &str = "workflow-deserialized";
    // What the engine makes of an array without a type is an object of Java.
    let stored = r#"{"variables":{"list":{"value":[1]}}}"#;
    for (engine, body, default, deserialized) in [
        (Engine::shared().await, stored, json!("rO0AB"), json!([1])),
        (
            Engine::camunda().await,
            r#"{"variables":{"list":[1]}}"#,
            json!("[1]"),
            json!({"nodeType": "ARRAY"}),
        ),
    ] {
        let world = World::new(engine).await;
        engine.deploy(&model::waiting([KEY]), None).await;
        let instance = world.start(KEY, body).await;
        let task = world.task(&instance).await;
        for path in [
            format!("/api/instances/{instance}/variables"),
            format!("/api/tasks/{task}/form"),
        ] {
            for (query, want) in [
                ("", &default),
                ("?deserializeValues=false", &default),
                ("?deserializeValues=true", &deserialized),
            ] {
                let shown = world
                    .get(&format!("{path}{query}"))
                    .await
                    .expect(200)
                    .json();
                let value = &shown["list"]["value"];
                let is = match want {
                    Value::String(begin) => value.as_str().unwrap().starts_with(begin),
                    Value::Object(members) => {
                        members.iter().all(|(name, want)| value[name] == *want)
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                        value == want
                    }
                };
                assert!(is, "{path}{query}: {shown}, not {want}");
            }
        }
    }
}

#[tokio::test]
#[rustfmt::skip]
async fn query_parameters_reach_the_engine() {
    const KEY: &str = "workflow-queries";
    const OTHER: &str = "workflow-queries-other";
    let world = World::new(Engine::shared().await).await;
    world
        .engine
        .deploy(&model::waiting([KEY, OTHER]), None)
        .await;
    let one = world.start(KEY, r#"{"businessKey":"queries-1"}"#).await;
    let two = world.start(KEY, r#"{"business_key":"queries-2"}"#).await;
    let other = world.start(OTHER, r#"{"businessKey":"queries-3"}"#).await;
    let task = world.task(&one).await;
    world
        .post(&format!("/api/tasks/{task}/claim"), "")
        .await
        .expect(204);
    let suspended = format!("/process-instance/{other}/suspended");
    let url = format!("{}{suspended}", world.engine.url());
    let request = json_request(Method::PUT, &url, &Engine::authorization(), r#"{"suspended":true}"#);
    send(request).await.expect(204);

    let all = [one.as_str(), &two, &other];
    let ids = format!("processInstanceIds={}", all.join(","));
    for (path, member, want) in [
        (format!("instances?processDefinitionKey={KEY}&sortBy=businessKey&sortOrder=desc"), "id", [&*two, &*one].as_slice()),
        (format!("instances?processDefinitionKey={KEY}&sortBy=businessKey&sortOrder=asc"), "id", &[&one, &two]),
        (format!("instances?{ids}&sortBy=businessKey&sortOrder=asc&firstResult=1&maxResults=1"), "id", &[&two]),
        (format!("instances?{ids}&sortBy=businessKey&sortOrder=asc&firstResult=2&maxResults=10"), "id", &[&other]),
        (format!("instances?{ids}&maxResults=0"), "id", &[]),
        ("instances?businessKey=queries-2".to_owned(), "id", &[&two]),
        (
            "instances?businessKeyLike=queries-%25&active=true&sortBy=businessKey&sortOrder=asc"
                .to_owned(),
            "id",
            &[&one, &two],
        ),
        ("instances?businessKeyLike=queries-%25&suspended=true".to_owned(), "id", &[&other]),
        (format!("tasks?processDefinitionKey={KEY}&assignee=user_ada"), "processInstanceId", &[&one]),
        (format!("tasks?processDefinitionKey={KEY}&unassigned=true"), "processInstanceId", &[&two]),
        (format!("tasks?processInstanceId={other}"), "processInstanceId", &[&other]),
        (format!("tasks?processInstanceId={other}&active=true"), "processInstanceId", &[]),
        (format!("tasks?processDefinitionKey={KEY}&sortBy=assignee&sortOrder=desc&maxResults=1&unassigned=false"), "processInstanceId", &[&one]),
        (format!("tasks?taskDefinitionKey={}", model::task(OTHER)), "processInstanceId", &[&other]),
        (format!("history/activity-instances?processInstanceId={two}&activityType=userTask"), "processInstanceId", &[&two]),
        (format!("history/activity-instances?processInstanceId={two}&finished=true"), "processInstanceId", &[&two]),
        (format!("history/activity-instances?processInstanceId={two}&sortBy=activityName&sortOrder=asc&firstResult=2"), "processInstanceId", &[]),
        // Unknown ones are ignored, as by the engine.
        (format!("tasks?processInstanceId={two}&noSuch=parameter"), "processInstanceId", &[&two]),
    ] {
        let listed = world.get(&format!("/api/{path}")).await.expect(200).json();
        let found = listed.as_array().unwrap().iter();
        let found: Vec<_> = found.map(|shown| shown[member].as_str().unwrap()).collect();
        assert_eq!(found, want, "{path}");
    }
}

#[tokio::test]
#[rustfmt::skip]
async fn a_start_answers_201_with_links_to_the_gateway_and_the_caller_is_its_initiator() {
    const KEY: &str = "workflow-starts";
    let world = World::new(Engine::shared().await).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    let path = format!("/api/processes/{KEY}/start");
    for (body, business_key, variables) in [
        (None, Value::Null, [].as_slice()),
        (Some(""), Value::Null, &[]),
        (Some("{}"), Value::Null, &[]),
        (Some(r#"{"variables":{}}"#), Value::Null, &[]),
        (Some(r#"{"variables":null,"businessKey":null}"#), Value::Null, &[]),
        (Some(r#"{"businessKey":"B-1"}"#), json!("B-1"), &[]),
        (Some(r#"{"business_key":"B-2"}"#), json!("B-2"), &[]),
        (Some(r#"{"businessKey":"","variables":{"a":"b"}}"#), json!(""), &["a"]),
        (Some(r#"{"variables":{"initiator":"eve"}}"#), Value::Null, &[]),
        (Some(r#"{"variables":{"initiator":{"value":"eve","type":"String"},"initiatorName":"Eve","initiatorEmail":null,"a":1}}"#), Value::Null, &["a"]),
        (Some(r#"{"variables":{"initiator":["eve"],"\u0069nitiatorName":{"Eve":1}}}"#), Value::Null, &[]),
        (Some(r#"{"variables":{"a":1},"startInstructions":[{"type":"startAfterActivity","activityId":"workflow-starts-task"}],"withVariablesInReturn":true}"#), Value::Null, &["a"]),
    ] {
        let started = world.ask(&world.ada, Method::POST, &path, body).await;
        let started = started.expect(201).json();
        let instance = id(&started);
        assert_eq!(started["businessKey"], business_key, "{body:?}");
        assert_eq!(started["ended"], false, "{body:?}");
        assert_eq!(started.get("variables"), None, "{body:?}");
        let link = json!([{
            "method": "GET", "rel": "self", "href": world.gateway.url(&format!("/api/process-instance/{instance}")),
        }]);
        assert_eq!(started["links"], link, "{body:?}");
        world
            .gateway
            .get(&format!("/api/process-instance/{instance}"), &world.ada)
            .await
            .expect(200);

        assert_eq!(initiator(world.engine, &instance).await, of(ADA), "{body:?}");
        let mut held = world.engine.variables(&instance).await;
        held.retain(|(name, ..)| !name.starts_with("initiator"));
        let held: Vec<_> = held.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(held, variables, "{body:?}");
        let shown = world.told(&format!("/process-instance/{instance}")).await;
        assert_eq!(shown["businessKey"], business_key, "{body:?}");
    }
}

#[tokio::test]
#[rustfmt::skip]
async fn a_completion_answers_204_or_the_variables_and_leaves_the_initiator() {
    const KEY: &str = "workflow-completes";
    let world = World::new(Engine::shared().await).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    for (body, status, held) in [
        (None, 204, Value::Null),
        (Some(""), 204, Value::Null),
        (Some("{}"), 204, Value::Null),
        (Some(r#"{"variables":null,"withVariablesInReturn":null}"#), 204, Value::Null),
        (Some(r#"{"variables":{"ok":true}}"#), 204, json!(true)),
        (Some(r#"{"variables":{"ok":true},"withVariablesInReturn":false}"#), 204, json!(true)),
        (Some(r#"{"variables":{"ok":true},"withVariablesInReturn":true}"#), 200, json!(true)),
        (Some(r#"{"variables":{"initiator":"eve","ok":1}}"#), 204, json!(1)),
        (Some(r#"{"variables":{"initiator":{"value":"eve"},"initiatorName":[1],"initiatorEmail":{},"ok":1},"withVariablesInReturn":true}"#), 200, json!(1)),
    ] {
        let (instance, task) = world.started(KEY).await;
        let path = format!("/api/tasks/{task}/complete");
        let answer = world.ask(&world.ada, Method::POST, &path, body).await;
        let answer = answer.expect(status);
        if status == 200 {
            let shown = answer.json();
            assert_eq!(shown["ok"]["value"], held, "{body:?}: {shown}");
            assert_eq!(shown["initiator"]["value"], ADA.id, "{body:?}: {shown}");
        }
        let ended = world
            .told(&format!("/history/process-instance/{instance}"))
            .await;
        assert_eq!(ended["state"], "COMPLETED", "{body:?}");
        assert_eq!(initiator(world.engine, &instance).await, of(ADA), "{body:?}");
        let variables = world.engine.variables(&instance).await;
        let ok = variables.iter().find(|(name, ..)| name == "ok");
        let ok = ok.map_or(Value::Null, |(.., value)| value.clone());
        assert_eq!(ok, held, "{body:?}");
    }
}

#[tokio::test]
async fn a_task_is_claimed_for_the_caller_alone_and_given_back() {
    const KEY: &str = "workflow-claims";
    let world = World::new(Engine::shared().await).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    let mallory = r#"{"userId":"mallory"}"#;
    for (bearer, body, status, assignee) in [
        (&world.ada, None, 204, json!(ADA.id)),
        (&world.ada, Some(""), 204, json!(ADA.id)),
        (&world.ada, Some("{}"), 204, json!(ADA.id)),
        (&world.ada, Some(r#"{"userId":null}"#), 204, json!(ADA.id)),
        (
            &world.ada,
            Some(r#"{"userId":"user_ada"}"#),
            204,
            json!(ADA.id),
        ),
        (&world.ada, Some(mallory), 403, Value::Null),
        (&world.ada, Some(r#"{"userId":""}"#), 403, Value::Null),
        (
            &world.ada,
            Some(r#"{"userId":"USER_ADA"}"#),
            403,
            Value::Null,
        ),
        (&world.operator, Some("{}"), 204, json!(ADA.id)),
        (&world.operator, Some(mallory), 204, json!("mallory")),
    ] {
        let (_, task) = world.started(KEY).await;
        let path = format!("/api/tasks/{task}/claim");
        let answer = world.ask(bearer, Method::POST, &path, body).await;
        let answer = answer.expect(status);
        if status == 403 {
            assert_eq!(answer.json()["code"], "access_denied", "{body:?}");
        }
        let told = format!("/task/{task}");
        assert_eq!(world.told(&told).await["assignee"], assignee, "{body:?}");

        let path = format!("/api/tasks/{task}/unclaim");
        for body in [
            None,
            Some(""),
            Some(r#"{"userId":"whatever"}"#),
            Some("not JSON"),
        ] {
            let answer = world.ask(&world.ada, Method::POST, &path, body).await;
            answer.expect(204);
            assert_eq!(world.told(&told).await["assignee"], Value::Null);
        }
    }
}

#[tokio::test]
async fn instances_are_suspended_activated_and_deleted_by_operators_alone() {
    const KEY: &str = "workflow-operators";
    let options = Options {
        more: "[telemetry]\naudit_log = \"audit.jsonl\"\n",
        ..Options::default()
    };
    let world = World::with(Engine::shared().await, options).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    let (instance, _) = world.started(KEY).await;
    let path = format!("/api/instances/{instance}");
    let state = async || {
        world
            .told(&format!("/history/process-instance/{instance}"))
            .await["state"]
            .clone()
    };
    for (method, path, body, after) in [
        (Method::POST, format!("{path}/suspend"), None, "SUSPENDED"),
        (
            Method::POST,
            format!("{path}/activate"),
            Some("{}"),
            "ACTIVE",
        ),
        (
            Method::POST,
            format!("{path}/suspend"),
            Some(r#"{"suspended":false}"#),
            "SUSPENDED",
        ),
        (Method::POST, format!("{path}/activate"), None, "ACTIVE"),
        (
            Method::DELETE,
            path.clone(),
            Some(r#"{"reason":"a \"mistake\" of ours 🧮"}"#),
            "EXTERNALLY_TERMINATED",
        ),
    ] {
        let before = state().await;
        let refused = world.ask(&world.ada, method.clone(), &path, body).await;
        assert_eq!(
            refused.expect(403).json()["code"],
            "access_denied",
            "{path}"
        );
        assert_eq!(state().await, before, "{path}");
        let done = world.ask(&world.operator, method, &path, body).await;
        done.expect(204);
        assert_eq!(state().await, after, "{path}");
    }
    // The engine has no place for the reason, as its own answer shows.
    let ended = world
        .told(&format!("/history/process-instance/{instance}"))
        .await;
    assert_eq!(ended["deleteReason"], Value::Null);
    for body in [None, Some(""), Some("{}"), Some(r#"{"reason":null}"#)] {
        let (instance, _) = world.started(KEY).await;
        let path = format!("/api/instances/{instance}");
        let done = world
            .ask(&world.operator, Method::DELETE, &path, body)
            .await;
        done.expect(204);
    }

    let deadline = Instant::now() + DEADLINE;
    let deletions = loop {
        let records = world.gateway.file("audit.jsonl");
        let records = records
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let deletions = records.filter(|record: &Value| {
            record["operation"] == "deleteProcessInstance" && record["outcome"] == "forwarded"
        });
        let deletions: Vec<_> = deletions.collect();
        if deletions.len() == 5 {
            break deletions;
        }
        assert!(Instant::now() < deadline, "{deletions:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let first = &deletions[0];
    assert_eq!(first["reason"], "a \"mistake\" of ours 🧮");
    assert_eq!(first["subject"], ADA.id);
    assert_eq!(first["params"]["id"], instance);
    for other in &deletions[1..] {
        assert_eq!(other.get("reason"), None, "{other}");
    }
}

#[tokio::test]
async fn the_callers_identity_stands_beside_the_engines_list_of_users() {
    let world = World::new(Engine::shared().await).await;
    for (claims, want) in [
        (
            json!({}),
            json!({"sub": ADA.id, "email": ADA.email, "name": ADA.name, "first_name": null, "last_name": null}),
        ),
        (
            json!({"name": null, "given_name": "Ada", "family_name": "King"}),
            json!({"sub": ADA.id, "name": "Ada King", "first_name": "Ada", "last_name": "King"}),
        ),
        (
            json!({"name": null, "first_name": "Ada", "last_name": "King"}),
            json!({"name": "Ada King"}),
        ),
        (json!({"name": null}), json!({"name": ADA.email})),
        (
            json!({"name": null, "email": null}),
            json!({"name": ADA.id, "email": null}),
        ),
        (json!({"sub": MALLORY.id}), json!({"sub": MALLORY.id})),
    ] {
        let bearer = world.issuer.bearer_with(ADA, &claims);
        let answer = world.ask(&bearer, Method::GET, "/api/user", None).await;
        let user = answer.expect(200).json();
        for (member, want) in want.as_object().unwrap() {
            assert_eq!(user[member], *want, "{claims}: {user}");
        }
        world
            .ask(&bearer, Method::HEAD, "/api/user", None)
            .await
            .expect(200);
    }
    let refused = world.gateway.get("/engine-rest/user", &world.ada).await;
    assert_eq!(refused.expect(403).json()["code"], "access_denied");
    let admin = world.issuer.bearer_with(ADA, &json!({"roles": ["admin"]}));
    let users = world
        .gateway
        .get("/engine-rest/user?id=demo", &admin)
        .await
        .expect(200);
    assert_eq!(users.json()[0]["id"], "demo");
    assert_eq!(users.body, world.engine.get("/user?id=demo").await.body);
    let count = world
        .gateway
        .get("/api/user/count", &admin)
        .await
        .expect(200);
    assert!(count.json()["count"].is_u64(), "{count:?}");
}
