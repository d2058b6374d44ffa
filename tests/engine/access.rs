//! What a caller's profile does not allow never reaches the engine, which would have done it.
//!
//! Each request is first refused by the gateway, and the engine is as it was; then the engine itself
//! does the very same, so that it was the gateway's refusal that counted.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::support::gateway::Options;
use crate::support::http::{Answer, json_request, request, send};
use crate::support::issuer::ADA;
use crate::support::{Engine, Gateway, Issuer, Target, model};

/// A request that `user` may not make; [`Target::fill`] fills path and body.
struct Refused {
    method: Method,
    path: &'static str,
    body: &'static str,
    /// What the refusal names: the operation, and the member where it is only that.
    names: &'static str,
    effect: Effect,
}

/// What it does on the engine itself.
enum Effect {
    /// The engine answers this GET differently.
    Changes(&'static str),
    /// Its answer holds this text.
    Shows(&'static str),
    /// The engine as it is here refuses it too, another one need not.
    RefusedToo,
}

const KEY: &str = "access";
const SIMPLE: &str = "access-simple";
const TREE: &str = "/process-instance/{instance}/activity-instances";
const TASK: &str = "/task/{task}";
const VARIABLES: &str = "/process-instance/{instance}/variables";
const STARTED: &str = "/history/process-instance/count?processDefinitionKey=access-simple";
const FILTERS: &str = "/filter/count?name=evil";

use Effect::{Changes, RefusedToo, Shows};

#[rustfmt::skip]
const ROWS: &[Refused] = &[
    // Code.
    post("filter/create", FILTER, "createFilter", Changes(FILTERS)),
    upload("deployment/create", "createDeployment", Changes("/deployment/count?name=evil")),
    // Steps that are skipped.
    post("process-definition/key/access-simple/start", SKIPS_TASK, "startInstructions", Changes("/history/process-instance/count?processDefinitionKey=access-simple&finished=true")),
    post("process-definition/key/access-simple/start", r#"{"start\u0049nstructions":[{"type":"startBeforeActivity","activityId":"access-simple-task"}]}"#, "startInstructions", Changes(STARTED)),
    post("process-definition/key/access-simple/start", r#"{"skipCustomListeners":true,"startInstructions":[{"type":"startBeforeActivity","activityId":"access-simple-task"}]}"#, "skipCustomListeners", Changes(STARTED)),
    post("process-definition/key/access-simple/start", r#"{"skipIoMappings":true,"startInstructions":[{"type":"startBeforeActivity","activityId":"access-simple-task"}]}"#, "skipIoMappings", Changes(STARTED)),
    post("process-instance/{instance}/modification", r#"{"instructions":[{"type":"startBeforeActivity","activityId":"after"}]}"#, "modifyProcessInstance", Changes(TREE)),
    post("migration/execute", MIGRATION, "executeMigrationPlan", Changes("/process-instance/{instance}")),
    post("execution/{at:receive}/signal", "{}", "signalExecution", Changes(TREE)),
    post("execution/{at:receive}/messageSubscriptions/everywhere/trigger", "{}", "triggerEvent", Changes(TREE)),
    post("task/{task}/bpmnError", r#"{"errorCode":"everywhere"}"#, "handleBpmnError", Changes(TREE)),
    post("task/{task}/bpmnEscalation", r#"{"escalationCode":"everywhere"}"#, "handleEscalation", Changes(TREE)),
    post("message", r#"{"messageName":"everywhere","processInstanceId":"{instance}"}"#, "deliverMessage", Changes(TREE)),
    post("signal", r#"{"name":"everywhere","executionId":"{at:catch}"}"#, "throwSignal", Changes(TREE)),
    // The work of others.
    post("external-task/fetchAndLock", FETCH, "fetchAndLock", Changes("/external-task?processInstanceId={instance}")),
    post("task/{task}/claim", r#"{"userId":"eve"}"#, "claim", Changes(TASK)),
    post("task/{task}/claim", "{}", "claim", Shows("")),
    post("task/{task}/assignee", r#"{"userId":"user_ada"}"#, "setAssignee", Changes(TASK)),
    post("task/{task}/delegate", r#"{"userId":"eve"}"#, "delegateTask", Changes(TASK)),
    post("task/{task}/identity-links", r#"{"userId":"eve","type":"candidate"}"#, "addIdentityLink", Changes("/task/{task}/identity-links")),
    post("task/create", r#"{"name":"evil","assignee":"user_ada"}"#, "createTask", Changes("/task/count?name=evil")),
    put("task/{task}", r#"{"name":"evil"}"#, "updateTask", Changes(TASK)),
    // Instances.
    put("process-instance/{instance}/suspended", r#"{"suspended":true}"#, "updateSuspensionStateById", Changes("/process-instance/{instance}")),
    put("process-definition/key/access-simple/suspended", r#"{"suspended":true}"#, "updateProcessDefinitionSuspensionStateByKey", Shows("")),
    put("process-instance/{instance}/variables/color", r#"{"value":1}"#, "setProcessInstanceVariable", Changes(VARIABLES)),
    put("execution/{instance}/localVariables/color", r#"{"value":1}"#, "putLocalExecutionVariable", Changes(VARIABLES)),
    post("task/{task}/variables", r#"{"modifications":{"color":{"value":1}}}"#, "modifyTaskVariables", Changes(VARIABLES)),
    post("task/{task}/resolve", r#"{"variables":{"color":{"value":1}}}"#, "resolve", Changes(VARIABLES)),
    delete("process-instance/{instance}", "deleteProcessInstance", Changes("/process-instance/count?processInstanceIds={instance}")),
    post("process-instance/delete", r#"{"processInstanceIds":["{instance}"]}"#, "deleteProcessInstancesAsyncOperation", Shows("\"type\":\"instance-deletion\"")),
    // People, and what they did.
    post("identity/verify", r#"{"username":"demo","password":"demo"}"#, "verifyUser", Shows("\"authenticated\":true")),
    get("identity/groups?userId=demo", "getGroupInfo", Shows("\"groups\"")),
    // `/api/user` is the workflow API's.
    get("engine/default/user", "getUsers", Shows("\"demo\"")),
    get("user/demo/profile", "getUserProfile", Shows("\"demo\"")),
    get("group", "getQueryGroups", Shows("operaton-admin")),
    get("history/user-operation?entityType=Task", "queryUserOperationEntries", Shows("\"userId\":\"demo\"")),
    get("optimize/process-instance/running", "OptimizeProcessInstanceRunning", Shows("\"access\"")),
    post("user/create", r#"{"profile":{"id":"eve","firstName":"","lastName":"","email":""},"credentials":{"password":"e"}}"#, "createUser", Changes("/user/count?id=eve")),
    post("authorization/create", r#"{"type":1,"permissions":["ALL"],"userId":"eve","resourceType":0,"resourceId":"*"}"#, "createAuthorization", Changes("/authorization/count")),
    post("setup/user/create", r#"{"profile":{"id":"eve2","firstName":"","lastName":"","email":""},"credentials":{"password":"e"}}"#, "etup", RefusedToo),
    post("task", RUNS_JAVA, "assigneeExpression", Shows("\"of-runtime\"")),
    post("task/count", RUNS_JAVA, "assigneeExpression", Shows("\"count\":1")),
    // Off by default in the engine, on by a setting of its own.
    post("task", r#"{"assigneeExpression":"${'x'}"}"#, "assigneeExpression", RefusedToo),
    get("task?createdAfterExpression=x", "createdAfterExpression", RefusedToo),
    get("task/count?%61ssigneeExpression=x", "assigneeExpression", RefusedToo),
    post("process-definition/key/access-simple/start", r#"{"variables":{"x":{"value":"rO0ABXA=","type":"Object","valueInfo":{"objectTypeName":"java.util.Date","serializationDataFormat":"application/x-java-serialized-object"}}}}"#, "Object", RefusedToo),
];

const FILTER: &str = r#"{"resourceType":"Task","name":"evil","owner":"user_ada","query":{"assigneeExpression":"${\"\".getClass().forName(\"java.lang.Runtime\").getName()}"}}"#;
/// The engine's own check of queries that are sent directly does not look into `orQueries`.
const RUNS_JAVA: &str = r#"{"orQueries":[{"assigneeExpression":"${\"\".getClass().forName(\"java.lang.Runtime\").getName()}"}]}"#;
const SKIPS_TASK: &str =
    r#"{"startInstructions":[{"type":"startAfterActivity","activityId":"access-simple-task"}]}"#;
const FETCH: &str = r#"{"workerId":"eve","maxTasks":100,"topics":[{"topicName":"everywhere","lockDuration":600000,"processDefinitionKey":"access"}]}"#;
const MIGRATION: &str = r#"{"processInstanceIds":["{instance}"],"migrationPlan":{
    "sourceProcessDefinitionId":"{access}","targetProcessDefinitionId":"{other}",
    "instructions":[{"sourceActivityIds":["task"],"targetActivityIds":["task"]},
        {"sourceActivityIds":["external"],"targetActivityIds":["external"]},
        {"sourceActivityIds":["receive"],"targetActivityIds":["receive"]},
        {"sourceActivityIds":["catch"],"targetActivityIds":["catch"]}]}}"#;
const BOUNDARY: &str = "a-boundary-that-is-in-no-part";
/// Instead of a body: a deployment.
const DEPLOYMENT: &str = "--a-boundary-that-is-in-no-part\r\n\
    Content-Disposition: form-data; name=\"deployment-name\"\r\n\r\nevil\r\n\
    --a-boundary-that-is-in-no-part\r\n\
    Content-Disposition: form-data; name=\"x\"; filename=\"x.txt\"\r\n\r\nx\r\n\
    --a-boundary-that-is-in-no-part--\r\n";

#[tokio::test]
async fn what_looks_harmless_is_refused_to_users_and_done_by_the_engine() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    crate::support::target::deploy(engine).await;
    engine.deploy(&model::everywhere(KEY), None).await;
    engine.deploy(&model::waiting([SIMPLE]), None).await;
    let definition = engine.definition(KEY).await;
    assign_task(engine).await;

    let mut wrong = String::new();
    for row in ROWS {
        let target = Target::start(engine, &gateway, &issuer, KEY).await;
        let path = target.fill(row.path).await;
        let body = target.fill(row.body).await.replace("{access}", &definition);
        let label = format!("{} /{} {}", row.method, row.path, row.body);
        let state = async || match row.effect {
            Changes(path) => {
                let answer = engine.get(&target.fill(path).await).await;
                String::from_utf8(answer.body.to_vec()).unwrap()
            }
            Shows(_) | RefusedToo => String::new(),
        };

        let before = state().await;
        let url = gateway.url(&format!("/engine-rest/{path}"));
        let answer = ask(&row.method, &url, &issuer.bearer(ADA), &body).await;
        let refused = answer.status == 403 && {
            let problem = answer.json();
            problem["code"] == "access_denied"
                && problem["detail"].as_str().unwrap().contains(row.names)
        };
        if !refused {
            writeln!(wrong, "{label}: the gateway answers {answer:?}").unwrap();
        }
        let after = state().await;
        if before != after {
            writeln!(wrong, "{label}: refused, and still {before} became {after}").unwrap();
        }

        let url = format!("{}/{path}", engine.url());
        let answer = ask(&row.method, &url, &Engine::authorization(), &body).await;
        let text = String::from_utf8_lossy(&answer.body);
        let works = match row.effect {
            Changes(_) => answer.status.is_success() && state().await != before,
            Shows(shown) => answer.status.is_success() && text.contains(shown),
            RefusedToo => !answer.status.is_success(),
        };
        if !works {
            writeln!(wrong, "{label}: the engine answers {answer:?}, {before}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whoever may save a filter may run Java in the engine: not even those who may save filters may do so
/// with an expression, but for administrators.
#[tokio::test]
async fn a_stored_filter_runs_java_and_only_administrators_may_store_one() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let options = Options {
        profile: "filters",
        more: "[access.profiles.filters]\nextends = \"operator\"\nallow = [\"Filter\"]\n\
            [[access.rules]]\nwhen = { role = \"boss\" }\nprofile = \"admin\"\n",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, options).await;
    assign_task(engine).await;

    let runs = async |filter: &Value| {
        let path = format!("/filter/{}/list", filter["id"].as_str().unwrap());
        let found = engine.get(&path).await.expect(200).json();
        found[0]["id"] == "of-runtime"
    };
    let name = |name: &str| FILTER.replace("\"evil\"", &format!("\"{name}\""));
    let stored = engine
        .post("/filter/create", name("java"))
        .await
        .expect(200);
    assert!(runs(&stored.json()).await, "{stored:?}");

    let bearer = issuer.bearer(ADA);
    let nested = name("through")
        .replace(r#""query":{"#, r#""query":{"orQueries":[{"#)
        .replace("}}", "}]}}");
    let escaped = name("through").replace("assigneeExpression", r"assignee\u0045xpression");
    let harmless = r#"{"resourceType":"Task","name":"harmless","query":{"assignee":"ada"}}"#;
    let harmless = gateway.post("/api/filter/create", &bearer, harmless).await;
    let harmless = harmless.expect(200).json();
    for body in [name("through"), nested, escaped] {
        let id = harmless["id"].as_str().unwrap();
        for (method, path) in [
            (Method::POST, "/api/filter/create".to_owned()),
            (Method::PUT, format!("/api/filter/{id}")),
            (Method::POST, format!("/api/filter/{id}/list")),
        ] {
            let answer = ask(&method, &gateway.url(&path), &bearer, &body).await;
            let answer = answer.expect(403);
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("assigneeExpression"), "{detail}");
        }
        let held = engine
            .get(&format!("/filter/{id}"))
            .await
            .expect(200)
            .json();
        let query = &held["query"];
        assert_eq!(query["assignee"], "ada");
        assert_eq!(query["orQueries"], json!([]));
        assert_eq!(query["assigneeExpression"], Value::Null);
    }
    let stored = engine.get("/filter/count?name=through").await.expect(200);
    assert_eq!(stored.json()["count"], 0);

    let boss = issuer.bearer_with(ADA, &json!({"roles": ["boss"]}));
    let stored = gateway
        .post("/api/filter/create", &boss, name("through"))
        .await;
    assert!(runs(&stored.expect(200).json()).await);
}

#[tokio::test]
async fn a_role_makes_an_operator_and_each_profile_may_what_it_is_for() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let options = Options {
        more: r#"
[[access.rules]]
when = { role = "boss" }
profile = "operator"
[[access.rules]]
when = { claim = "org.profile", value = "worker" }
profile = "worker"
[[access.rules]]
when = { claim = "org.profile", value = "deployer" }
profile = "deployer"
[[access.rules]]
when = { claim = "org.profile", value = "admin" }
profile = "admin"
[[access.rules]]
when = { claim = "org.profile", value = "transparent" }
profile = "transparent"
[[access.rules]]
when = { claim = "org.profile", value = "none" }
profile = "none"
[[access.rules]]
when = { claim = "org.profile", value = "own" }
profile = "own"
[access.profiles.own]
extends = "worker"
allow = ["Filter"]
deny = ["fetchAndLock"]
"#,
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, options).await;
    crate::support::target::deploy(engine).await;
    engine.deploy(&model::waiting(["access-roles"]), None).await;

    let get = || Method::GET;
    let post = || Method::POST;
    let worker =
        r#"{"workerId":"w","maxTasks":1,"topics":[{"topicName":"nothing","lockDuration":1000}]}"#;
    let user = r#"{"profile":{"id":"UID","firstName":"","lastName":"","email":""},"credentials":{"password":"e"}}"#;
    let rows: &[(&str, Method, &str, &str, u16)] = &[
        (
            "user",
            post(),
            "process-definition/key/access-roles/start",
            "{}",
            200,
        ),
        (
            "user",
            post(),
            "task/{task}/claim",
            r#"{"userId":"user_ada"}"#,
            204,
        ),
        ("user", post(), "task/{task}/complete", "{}", 204),
        (
            "user",
            Method::DELETE,
            "process-instance/{instance}",
            "",
            403,
        ),
        ("user", get(), "nothing", "", 404),
        (
            "operator",
            Method::DELETE,
            "process-instance/{instance}",
            "",
            204,
        ),
        (
            "operator",
            post(),
            "task/{task}/claim",
            r#"{"userId":"eve"}"#,
            204,
        ),
        ("operator", post(), "deployment/create", DEPLOYMENT, 403),
        ("operator", get(), "engine/default/user", "", 403),
        ("worker", post(), "external-task/fetchAndLock", worker, 200),
        ("worker", get(), "task", "", 403),
        ("deployer", post(), "deployment/create", DEPLOYMENT, 200),
        (
            "deployer",
            Method::PUT,
            "process-definition/key/access-roles/suspended",
            r#"{"suspended":false}"#,
            204,
        ),
        (
            "deployer",
            post(),
            "process-definition/key/access-roles/start",
            "{}",
            403,
        ),
        ("admin", post(), "user/create", user, 204),
        ("admin", get(), "nothing", "", 404),
        ("transparent", get(), "engine/default/user", "", 200),
        ("transparent", get(), "nothing", "", 404),
        (
            "transparent",
            Method::PUT,
            "process-instance/{instance}/variables/initiator",
            "{}",
            403,
        ),
        ("own", get(), "filter", "", 200),
        ("own", post(), "external-task/fetchAndLock", worker, 403),
        ("none", get(), "version", "", 403),
    ];
    let starter = issuer.bearer(ADA);
    for (profile, method, path, body, status) in rows {
        let bearer = match *profile {
            "user" => starter.clone(),
            "operator" => issuer.bearer_with(ADA, &json!({"roles": ["boss"]})),
            profile => issuer.bearer_with(ADA, &json!({"org": {"profile": profile}})),
        };
        let target = Target::start(engine, &gateway, &issuer, crate::support::target::KEY).await;
        let url = gateway.url(&format!("/engine-rest/{}", target.fill(path).await));
        let body = body.replace("UID", "madeByAnAdmin");
        let answer = ask(method, &url, &bearer, &body).await;
        assert_eq!(
            answer.status.as_u16(),
            *status,
            "{profile} {method} {path}: {answer:?}"
        );
        let code = match (*profile, *status) {
            ("transparent", 403) => json!("protected_variable"),
            (_, 403) => json!("access_denied"),
            // What is nowhere: the engine's own words, or the gateway's.
            ("transparent", 404) => Value::Null,
            (_, 404) => json!("not_found"),
            _ => continue,
        };
        let problem = answer.json();
        assert_eq!(
            problem["code"], code,
            "{profile} {method} {path}: {answer:?}"
        );
        if code == "access_denied" {
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains(profile),
                "{profile} {method} {path}: {detail}"
            );
        }
    }
}

/// A task that is found by the name that [`FILTER`] and [`RUNS_JAVA`] get from a class.
async fn assign_task(engine: &Engine) {
    static ONCE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    ONCE.get_or_init(|| async {
        let task = r#"{"id":"of-runtime","name":"of-runtime","assignee":"java.lang.Runtime"}"#;
        engine.post("/task/create", task).await.expect(204);
    })
    .await;
}

async fn ask(method: &Method, url: &str, authorization: &str, body: &str) -> Answer {
    if body.is_empty() {
        return send(request(method.clone(), url, authorization)).await;
    }
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let mut request = json_request(method.clone(), url, authorization, bytes);
    if body == DEPLOYMENT {
        let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
        let multipart = multipart.parse().unwrap();
        request.headers_mut().insert("content-type", multipart);
    }
    send(request).await
}

const fn get(path: &'static str, names: &'static str, effect: Effect) -> Refused {
    row(Method::GET, path, "", names, effect)
}

const fn delete(path: &'static str, names: &'static str, effect: Effect) -> Refused {
    row(Method::DELETE, path, "", names, effect)
}

const fn post(
    path: &'static str,
    body: &'static str,
    names: &'static str,
    effect: Effect,
) -> Refused {
    row(Method::POST, path, body, names, effect)
}

const fn put(
    path: &'static str,
    body: &'static str,
    names: &'static str,
    effect: Effect,
) -> Refused {
    row(Method::PUT, path, body, names, effect)
}

const fn upload(path: &'static str, names: &'static str, effect: Effect) -> Refused {
    row(Method::POST, path, DEPLOYMENT, names, effect)
}

const fn row(
    method: Method,
    path: &'static str,
    body: &'static str,
    names: &'static str,
    effect: Effect,
) -> Refused {
    Refused {
        method,
        path,
        body,
        names,
        effect,
    }
}
