//! What one more review found: ways round the rules that lead over something else.

use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::Options;
use crate::support::http::{json_request, send};
use crate::support::issuer::{ADA, MALLORY};
use crate::support::model::{self, with_initiator};
use crate::support::{Engine, Gateway, Issuer};

const FORGED: &str = r#"{"variables":{"starter":{"value":"mallory"},"color":{"value":"blue"}}}"#;

/// A task's outer scope is its parent, also where it belongs to no process itself (engine fact).
#[tokio::test]
async fn a_task_below_another_cannot_write_the_models_initiator_of_its_process() {
    const KEY: &str = "review-subtask";
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let user = Gateway::start(engine, &issuer, Options::default()).await;
    let operator = operator(engine, &issuer).await;
    let document = with_initiator(KEY, "operaton", "starter");
    engine.deploy(&document, None).await;
    // Each has seen the model.
    for gateway in [&user, &operator] {
        started(engine, gateway, &issuer, KEY).await;
    }

    let value = r#"{"value":"mallory"}"#;
    let modifications = r#"{"modifications":{"starter":{"value":"mallory"}}}"#;
    for (row, (gateway, method, path, body, status)) in [
        (&operator, Method::PUT, "variables/starter", value, 403),
        (&operator, Method::DELETE, "variables/starter", "", 403),
        (&operator, Method::POST, "variables", modifications, 403),
        (&operator, Method::POST, "resolve", FORGED, 204),
        (&user, Method::POST, "complete", FORGED, 204),
        (&user, Method::POST, "submit-form", FORGED, 204),
    ]
    .into_iter()
    .enumerate()
    {
        for direct in [true, false] {
            let (instance, task) = started(engine, gateway, &issuer, KEY).await;
            let below = format!("review-below-{row}-{direct}");
            let task = json!({"id": below, "name": "below", "parentTaskId": task}).to_string();
            let create = "/api/task/create";
            operator
                .post(create, &issuer.bearer(MALLORY), task)
                .await
                .expect(204);
            let path = format!("/task/{below}/{path}");
            let (url, who, status) = if direct {
                (
                    format!("{}{path}", engine.url()),
                    Engine::authorization(),
                    204,
                )
            } else {
                (
                    gateway.url(&format!("/api{path}")),
                    issuer.bearer(MALLORY),
                    status,
                )
            };
            send(json_request(method.clone(), &url, &who, body))
                .await
                .expect(status);
            let held = held(engine, &instance, "starter").await;
            assert_eq!(held != [ADA.id], direct, "{method} {path}: {held:?}");
        }
    }
}

/// HAL puts the people and groups of a task into it, with their addresses (engine fact).
#[tokio::test]
async fn nobody_reads_of_other_people_by_asking_for_hal() {
    const KEY: &str = "review-hal";
    const ADDRESS: &str = "vic.tim@example.org";
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    engine.deploy(&model::waiting([KEY]), None).await;
    let victim = json!({"profile": {"id": "reviewvictim", "firstName": "Vic", "lastName": "Tim", "email": ADDRESS},
        "credentials": {"password": "e"}});
    engine
        .post("/user/create", victim.to_string())
        .await
        .expect(204);
    for (profile, sees) in [("user", false), ("operator", false), ("admin", true)] {
        let options = Options {
            profile,
            ..Options::default()
        };
        let gateway = Gateway::start(engine, &issuer, options).await;
        let (instance, task) = started(engine, &admin(engine, &issuer).await, &issuer, KEY).await;
        let assign = format!("/task/{task}/assignee");
        engine
            .post(&assign, r#"{"userId":"reviewvictim"}"#)
            .await
            .expect(204);
        for path in [
            format!("task?processInstanceId={instance}"),
            format!("task/{task}"),
        ] {
            let mut request = gateway.bare(
                Method::GET,
                &format!("/api/{path}"),
                &issuer.bearer(MALLORY),
            );
            request
                .headers_mut()
                .insert("accept", "application/hal+json".parse().unwrap());
            let answer = send(request).await.expect(200);
            let told = String::from_utf8_lossy(&answer.body);
            assert!(told.contains(&task), "{told}");
            assert_eq!(told.contains(ADDRESS), sees, "{profile} {path}: {told}");
        }
    }
}

/// What is an ordinary variable in one version is the initiator once the instance is migrated to another;
/// whoever starts the older version by its id must not choose it.
#[tokio::test]
async fn the_initiator_of_another_version_is_not_chosen_at_the_start() {
    // The engine leaves a key of more than some 25 letters out of the definition's id.
    for key in [
        "review-versions",
        "review-versions-with-a-key-that-is-no-part-of-the-id",
    ] {
        let engine = Engine::shared().await;
        let issuer = Issuer::start().await;
        let operator = operator(engine, &issuer).await;
        engine
            .deploy(&with_initiator(key, "operaton", "first"), None)
            .await;
        let first = engine.definition(key).await;
        started(engine, &operator, &issuer, key).await;
        engine
            .deploy(&with_initiator(key, "operaton", "second"), None)
            .await;
        let second = engine.definition(key).await;
        let by_id = format!("/api/process-definition/{second}/start");
        operator
            .post(&by_id, &issuer.bearer(ADA), "{}")
            .await
            .expect(200);

        let path = format!("/api/process-definition/{first}/start");
        let body = r#"{"variables":{"second":{"value":"user_ada"}}}"#;
        let answer = operator
            .post(&path, &issuer.bearer(MALLORY), body)
            .await
            .expect(200);
        let instance = answer.json()["id"].as_str().unwrap().to_owned();
        let task = model::task(key);
        let plan = json!({"processInstanceIds": [instance], "migrationPlan": {
            "sourceProcessDefinitionId": first, "targetProcessDefinitionId": second,
            "instructions": [{"sourceActivityIds": [task], "targetActivityIds": [task]}]}});
        let execute = "/api/migration/execute";
        operator
            .post(execute, &issuer.bearer(ADA), plan.to_string())
            .await
            .expect(204);
        assert_eq!(
            held(engine, &instance, "second").await,
            [MALLORY.id],
            "{key}"
        );

        // And that of the version before stays.
        let url = operator.url(&format!("/api/process-instance/{instance}/variables/first"));
        let body = r#"{"value":"user_ada"}"#;
        let answer = send(json_request(
            Method::PUT,
            &url,
            &issuer.bearer(MALLORY),
            body,
        ))
        .await;
        assert_eq!(answer.status, 403, "{key}: {answer:?}");
    }
}

/// The engine makes of an `Object`, in whichever format, what its Java class is, and asks all its getters
/// when it is read: with a data source that runs code.
#[tokio::test]
async fn no_variable_names_a_java_class_but_an_administrators() {
    const KEY: &str = "review-object";
    const OBJECT: &str = r#"{"variables":{"x":{"type":"Object","value":"{}","valueInfo":{
        "objectTypeName":"org.apache.ibatis.datasource.unpooled.UnpooledDataSource","serializationDataFormat":"application/json"}}}}"#;
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    engine.deploy(&model::waiting([KEY]), None).await;
    let (_, task) = started(engine, &admin(engine, &issuer).await, &issuer, KEY).await;
    for profile in ["user", "operator"] {
        let gateway = Gateway::start(
            engine,
            &issuer,
            Options {
                profile,
                ..Options::default()
            },
        )
        .await;
        for path in [
            format!("process-definition/key/{KEY}/start"),
            format!("task/{task}/complete"),
        ] {
            for body in [
                OBJECT.to_owned(),
                OBJECT.replace("Object", "\\u006fbject"),
                OBJECT.replace("json", "xml"),
            ] {
                let answer = gateway
                    .post(&format!("/api/{path}"), &issuer.bearer(MALLORY), body)
                    .await;
                assert_eq!(answer.status, 403, "{profile} {path}: {answer:?}");
            }
        }
    }
}

/// The engine shows such a document as UTF-8, which it is not, and so with another name in it.
#[tokio::test]
async fn a_model_whose_initiator_cannot_be_read_starts_nothing() {
    const KEY: &str = "review-latin";
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let user = Gateway::start(engine, &issuer, Options::default()).await;
    let text = with_initiator(KEY, "operaton", "gründer").replace("UTF-8", "ISO-8859-1");
    let latin: Vec<u8> = text
        .chars()
        .map(|sign| u8::try_from(u32::from(sign)).unwrap())
        .collect();
    let head =
        "--x\r\nContent-Disposition: form-data; name=\"r\"; filename=\"m.bpmn\"\r\n\r\n".as_bytes();
    let body = [head, &latin, b"\r\n--x--\r\n"].concat();
    let url = format!("{}/deployment/create", engine.url());
    let mut request = json_request(Method::POST, &url, &Engine::authorization(), body);
    let multipart = "multipart/form-data; boundary=x".parse().unwrap();
    request.headers_mut().insert("content-type", multipart);
    send(request).await.expect(200);
    let body = json!({"variables": {"gründer": {"value": "user_ada"}}}).to_string();
    let path = format!("/api/process-definition/key/{KEY}/start");
    user.post(&path, &issuer.bearer(MALLORY), body)
        .await
        .expect(502);
    assert!(engine.instances(KEY).await.is_empty());
}

async fn operator(engine: &Engine, issuer: &Issuer) -> Gateway {
    let options = Options {
        profile: "operator",
        ..Options::default()
    };
    Gateway::start(engine, issuer, options).await
}

async fn admin(engine: &Engine, issuer: &Issuer) -> Gateway {
    let options = Options {
        profile: "admin",
        ..Options::default()
    };
    Gateway::start(engine, issuer, options).await
}

/// An instance that Ada has started, and its task.
async fn started(
    engine: &Engine,
    gateway: &Gateway,
    issuer: &Issuer,
    key: &str,
) -> (String, String) {
    let start = format!("/api/process-definition/key/{key}/start");
    let answer = gateway
        .post(&start, &issuer.bearer(ADA), "{}")
        .await
        .expect(200);
    let instance = answer.json()["id"].as_str().unwrap().to_owned();
    let tasks = format!("/task?processInstanceId={instance}");
    let tasks = engine.get(&tasks).await.expect(200).json();
    (instance, tasks[0]["id"].as_str().unwrap().to_owned())
}

/// The values that a variable has in all the scopes that there were.
async fn held(engine: &Engine, instance: &str, name: &str) -> Vec<Value> {
    let mut held = engine.variables(instance).await;
    held.retain(|(held, ..)| held == name);
    held.into_iter().map(|(.., value)| value).collect()
}
