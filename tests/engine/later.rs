//! Once started, an instance keeps its initiator, whichever way variables are written later.
//!
//! Each way is first shown to change the initiator when it is sent to the engine itself, and then
//! sent through the gateway by somebody else than who started the instance.

use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::starts::of;
use crate::support::gateway::Options;
use crate::support::http::{Answer, json_request, request, send};
use crate::support::issuer::{ADA, MALLORY};
use crate::support::target::{CASE, FORGED, KEY, deploy};
use crate::support::{DEADLINE, Engine, Gateway, Issuer, Target};

/// One way to write; of path and body the names in braces are filled in, see [`Target::fill`].
struct Write {
    name: String,
    method: Method,
    path: String,
    body: Body,
    direct: Direct,
    gateway: u16,
}

enum Body {
    None,
    Json(String),
    /// JSON, and not in UTF-8.
    Bytes(Vec<u8>),
    /// An upload, of the type.
    Upload(&'static str),
}

/// What it does on the engine itself.
#[derive(PartialEq)]
enum Direct {
    /// The instance has another initiator, or none, at least in some scope.
    Changed,
    /// As it says, and a batch does it: not at once.
    ChangedByBatch,
    /// Nothing, or it is refused.
    Kept,
}

const REFUSED: u16 = 403;
const BOUNDARY: &str = "a-boundary-that-is-in-no-part";

#[tokio::test]
async fn no_later_write_changes_the_initiator_of_an_instance() {
    check(KEY, writes()).await;
}

#[tokio::test]
async fn no_batch_changes_the_initiator_of_an_instance() {
    check(KEY, batches()).await;
}

#[tokio::test]
async fn no_write_into_a_case_changes_its_initiator() {
    check(CASE, into_cases()).await;
}

/// Where an operator has switched it off, on purpose: an instance's form may name another.
#[tokio::test]
async fn later_writes_pass_where_they_are_not_to_be_protected() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let off = Options {
        profile: "transparent",
        more: "[initiator]\nprotect_later_writes = false\n",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, off).await;
    deploy(engine).await;
    for write in [
        Write::put("task/{task}/variables/initiator", 204),
        Write::delete(
            "process-instance/{instance}/variables/initiator",
            Direct::Changed,
            204,
        ),
        Write::json(
            "task/{task}/complete",
            r#"{"variables":{forged}}"#,
            Direct::Changed,
            204,
        ),
    ] {
        let target = Target {
            base: gateway.url("/api"),
            authorization: issuer.bearer(MALLORY),
            ..Target::start(engine, &gateway, &issuer, KEY).await
        };
        let answer = target.send(&write).await;
        assert_eq!(answer.status, write.gateway, "{}: {answer:?}", write.name);
        assert_ne!(target.held().await, of(ADA), "{}", write.name);
    }
    // Messages have a setting of their own, and starts none.
    let target = Target {
        base: gateway.url("/api"),
        authorization: issuer.bearer(MALLORY),
        ..Target::start(engine, &gateway, &issuer, KEY).await
    };
    let message = r#"{"messageName":"everywhere","processInstanceId":"{instance}","processVariables":{forged}}"#;
    let message = Write::json("message", message, Direct::Changed, 204);
    target.send(&message).await.expect(204);
    assert_eq!(target.held().await, of(ADA));
}

/// A case hands its variables on to the processes that it starts, so theirs are forged through it.
#[tokio::test]
async fn a_process_that_a_case_starts_has_the_initiator_of_the_case() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let transparent = Options {
        profile: "transparent",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, transparent).await;
    deploy(engine).await;

    let create = format!("/engine-rest/case-definition/key/{CASE}/create");
    let body = format!(r#"{{"variables":{FORGED}}}"#);
    let direct = async |body: &str| {
        let path = create.strip_prefix("/engine-rest").unwrap();
        engine.post(path, body.to_owned()).await
    };
    let through = async |body: &str| {
        let bearer = issuer.bearer(ADA);
        gateway.post(&create, &bearer, body.to_owned()).await
    };
    for (row, case, base, authorization, starter) in [
        (
            "forged by create",
            direct(&body).await,
            engine.url(),
            Engine::authorization(),
            MALLORY,
        ),
        (
            "forged by manual-start",
            through("{}").await,
            engine.url(),
            Engine::authorization(),
            MALLORY,
        ),
        (
            "both",
            through(&body).await,
            gateway.url("/api"),
            issuer.bearer(MALLORY),
            ADA,
        ),
    ] {
        let case = case.expect(200).json()["id"].as_str().unwrap().to_owned();
        let target = Target {
            kind: "caseInstanceId",
            instance: case,
            base,
            authorization,
            engine,
        };
        let body = if row == "forged by create" {
            "{}"
        } else {
            r#"{"variables":{forged}}"#
        };
        let start = "case-execution/{plan:called}/manual-start";
        let answer = target
            .send(&Write::json(start, body, Direct::Changed, 204))
            .await;
        answer.expect(204);
        let called = format!("/process-instance?caseInstanceId={}", target.instance);
        let called = target.ask(&called).await;
        let called = called[0]["id"].as_str().unwrap();
        let mut held = engine.variables(called).await;
        held.retain(|(name, ..)| name.starts_with("initiator"));
        assert_eq!(held, of(starter), "{row}");
    }
}

/// Each way: alone on an instance for the engine itself, and on another through the gateway.
async fn check(key: &str, writes: Vec<Write>) {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let transparent = Options {
        profile: "transparent",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, transparent).await;
    deploy(engine).await;

    let mut wrong = String::new();
    for write in &writes {
        let direct = Target::start(engine, &gateway, &issuer, key).await;
        let through = Target {
            base: gateway.url("/engine-rest"),
            authorization: issuer.bearer(MALLORY),
            ..Target::start(engine, &gateway, &issuer, key).await
        };
        for outcome in [shown(write, &direct).await, foiled(write, &through).await] {
            if let Err(what) = outcome {
                writeln!(wrong, "{}: {what}", write.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whether it changes the initiator on the engine itself.
async fn shown(write: &Write, target: &Target<'_>) -> Result<(), String> {
    let answer = target.send(write).await;
    if write.direct == Direct::Kept {
        let held = target.held().await;
        return if held == of(ADA) {
            Ok(())
        } else {
            Err(format!(
                "does something on the engine: {answer:?}, {held:?}"
            ))
        };
    }
    let changed = async || {
        let held = target.held().await;
        if held == of(ADA) {
            Err(format!("does nothing on the engine: {answer:?}, {held:?}"))
        } else {
            Ok(())
        }
    };
    if write.direct == Direct::ChangedByBatch {
        within(changed).await
    } else {
        changed().await
    }
}

/// Whether the gateway refuses it, or lets through what is not protected and nothing else.
async fn foiled(write: &Write, target: &Target<'_>) -> Result<(), String> {
    let answer = target.send(write).await;
    if answer.status != write.gateway {
        return Err(format!("the gateway answers {answer:?}"));
    }
    if write.gateway == REFUSED && answer.json()["code"] != "protected_variable" {
        return Err(format!("the gateway answers {answer:?}"));
    }
    let carries = matches!(&write.body, Body::Json(body) if body.contains("{forged}"));
    if answer.status.is_success() && carries && write.direct != Direct::Kept {
        let arrived = async || {
            let all = target.engine.variables_of(target.kind, &target.instance);
            let all = all.await;
            if all
                .iter()
                .any(|(name, _, value)| name == "color" && value == "blue")
            {
                Ok(())
            } else {
                Err(format!("the rest did not arrive: {answer:?}, {all:?}"))
            }
        };
        if write.direct == Direct::ChangedByBatch {
            within(arrived).await?;
        } else {
            arrived().await?;
        }
    }
    let held = target.held().await;
    if held != of(ADA) {
        return Err(format!("the engine holds {held:?} after {answer:?}"));
    }
    target.seen().await
}

/// Tries until it is so.
async fn within(so: impl AsyncFn() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let result = so().await;
        if result.is_ok() || Instant::now() > deadline {
            return result;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Variable by variable, in every scope; then all the operations that take variables along.
fn writes() -> Vec<Write> {
    let mut writes = Vec::new();
    for (scope, local) in [
        ("process-instance/{instance}/variables", false),
        ("execution/{instance}/localVariables", false),
        ("execution/{at:receive}/localVariables", true),
        ("task/{task}/variables", false),
        ("task/{task}/localVariables", true),
        ("engine/default/task/{task}/variables", false),
    ] {
        writes.extend(by_name(scope, local));
    }
    let direct = || Direct::Changed;
    let passes = |path: &str, body: &str| Write::json(path, body, direct(), 204);
    writes.extend([
        passes("task/{task}/complete", r#"{"variables":{forged}}"#),
        passes("task/{task}/complete/", r#"{"v\u0061riables":{"initi\u0061tor":{"value":"mallory"}}}"#),
        passes("task/{task}/submit-form", r#"{"variables":{forged}}"#),
        passes("task/{task}/resolve", r#"{"variables":{forged}}"#),
        passes("task/{task}/bpmnError", r#"{"errorCode":"everywhere","variables":{forged}}"#),
        passes("task/{task}/bpmnEscalation", r#"{"escalationCode":"everywhere","variables":{forged}}"#),
        passes("external-task/{external}/complete", r#"{"workerId":"worker","variables":{forged}}"#),
        passes("external-task/{external}/complete", r#"{"workerId":"worker","localVariables":{forged}}"#),
        passes(
            "external-task/{external}/bpmnError",
            r#"{"workerId":"worker","errorCode":"everywhere","variables":{forged}}"#,
        ),
        passes(
            "external-task/{external}/failure",
            r#"{"workerId":"worker","retries":1,"retryTimeout":0,"variables":{forged}}"#,
        ),
        passes(
            "external-task/{external}/failure",
            r#"{"workerId":"worker","retries":1,"retryTimeout":0,"localVariables":{forged}}"#,
        ),
        passes("execution/{at:receive}/signal", r#"{"variables":{forged}}"#),
        passes(
            "execution/{at:receive}/messageSubscriptions/everywhere/trigger",
            r#"{"variables":{forged}}"#,
        ),
        passes(
            "process-instance/{instance}/modification",
            r#"{"instructions":[{"type":"startBeforeActivity","activityId":"after","variables":{forged}}]}"#,
        ),
        passes(
            "process-instance/{instance}/modification",
            r#"{"instructions":[{"type":"startBeforeActivity","activityId":"after","variables":
                {"initiator":{"value":"mallory","type":"String","local":true}}}]}"#,
        ),
        passes("migration/execute", MIGRATION),
        passes(
            "message",
            r#"{"messageName":"everywhere","processInstanceId":"{instance}","all":true,"processVariables":{forged}}"#,
        ),
        passes(
            "signal",
            r#"{"name":"everywhere","executionId":"{at:catch}","variables":{forged}}"#,
        ),
    ]);
    for (message, map) in [
        ("everywhere", "processVariables"),
        ("everywhere", "processVariablesLocal"),
        ("everywhere-aside", "processVariablesToTriggeredScope"),
    ] {
        let body = format!(
            r#"{{"messageName":"{message}","processInstanceId":"{{instance}}","{map}":{{forged}}}}"#
        );
        writes.push(passes("message", &body));
    }
    // Read in one way by the engine, and by others perhaps in another: not passed on at all.
    let twice = r#"{"variables":{},"variables":{forged}}"#;
    writes.push(Write::json("task/{task}/complete", twice, direct(), 400));
    let text = r#"{"variables":{"initiator":{"value":"mallory"}}}"#;
    let wide = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    writes.push(Write {
        body: Body::Bytes(wide),
        ..Write::json("task/{task}/complete", "", direct(), 400)
    });
    // Engine fact: no variables come along here.
    let instructions = r#"{"processDefinitionId":"{definition}","processInstanceIds":["{instance}"],
        "instructions":[{"type":"startBeforeActivity","activityId":"after","variables":{forged}}]}"#;
    for (path, gateway) in [
        ("modification/execute", 204),
        ("modification/executeAsync", 200),
    ] {
        writes.push(Write::json(path, instructions, Direct::Kept, gateway));
    }
    writes
}

/// All ways to edit one variable, or some by their names.
fn by_name(scope: &str, local: bool) -> Vec<Write> {
    let deletes = || if local { Direct::Kept } else { Direct::Changed };
    let mut writes: Vec<Write> = ["initiator", "initiatorEmail", "initiatorName"]
        .into_iter()
        .map(|name| Write::put(&format!("{scope}/{name}"), REFUSED))
        .collect();
    writes.extend([
        Write::put(&format!("{scope}/%69nitiator"), REFUSED),
        Write::put(&format!("{scope}/initiator/"), REFUSED),
        Write::put(&format!("{scope}/initiator;x=y"), 400),
        Write::upload(&format!("{scope}/initiator/data"), "Bytes", REFUSED),
        Write::upload(&format!("{scope}/%69nitiatorName/data"), "File", REFUSED),
        Write::delete(&format!("{scope}/initiator"), deletes(), REFUSED),
        Write::delete(&format!("{scope}/initiato%72Email"), deletes(), REFUSED),
        Write::json(
            scope,
            r#"{"modifications":{forged}}"#,
            Direct::Changed,
            REFUSED,
        ),
        Write::json(
            scope,
            r#"{"modifications":{"\u0069nitiator":{"value":1}}}"#,
            Direct::Changed,
            REFUSED,
        ),
        Write::json(scope, r#"{"deletions":["initiator"]}"#, deletes(), REFUSED),
        Write::json(
            scope,
            r#"{"deletions":["x","initi\u0061torName"]}"#,
            deletes(),
            REFUSED,
        ),
    ]);
    writes
}

/// What the engine's job executor does when it comes to it.
fn batches() -> Vec<Write> {
    let batch =
        |path: &str, body: &str, gateway| Write::json(path, body, Direct::ChangedByBatch, gateway);
    vec![
        batch(
            "process-instance/variables-async",
            r#"{"processInstanceIds":["{instance}"],"variables":{forged}}"#,
            REFUSED,
        ),
        batch(
            "process-instance/message-async",
            r#"{"messageName":"everywhere","processInstanceIds":["{instance}"],"variables":{forged}}"#,
            200,
        ),
        batch("migration/executeAsync", MIGRATION, 200),
    ]
}

fn into_cases() -> Vec<Write> {
    let mut writes = by_name("case-instance/{instance}/variables", false);
    writes.extend(by_name("case-execution/{plan:human}/variables", false));
    writes.extend(by_name("case-execution/{plan:human}/localVariables", true));
    let passes = |path: &str, body| Write::json(path, body, Direct::Changed, 204);
    // The steps that must come first are in the path: `{started:human}`.
    for path in [
        "case-execution/{plan:human}/manual-start",
        "case-execution/{plan:human}/disable",
        "case-execution/{disabled:human}/reenable",
        "case-execution/{started:human}/complete",
        "case-execution/{started:human}/terminate",
        "case-instance/{instance}/complete",
        "case-instance/{instance}/terminate",
        "case-instance/{completed}/close",
    ] {
        writes.push(passes(path, r#"{"variables":{forged}}"#));
        let deletions = r#"{"deletions":[{"name":"initiator"}]}"#;
        writes.push(Write::json(path, deletions, Direct::Changed, REFUSED));
    }
    writes
}

const MIGRATION: &str = r#"{"processInstanceIds":["{instance}"],"migrationPlan":{
    "sourceProcessDefinitionId":"{definition}","targetProcessDefinitionId":"{other}","variables":{forged},
    "instructions":[{"sourceActivityIds":["task"],"targetActivityIds":["task"]},
        {"sourceActivityIds":["external"],"targetActivityIds":["external"]},
        {"sourceActivityIds":["receive"],"targetActivityIds":["receive"]},
        {"sourceActivityIds":["catch"],"targetActivityIds":["catch"]}]}}"#;

impl Write {
    fn new(method: Method, path: &str, body: Body, direct: Direct, gateway: u16) -> Self {
        let what = match &body {
            Body::Json(body) => body.clone(),
            Body::None | Body::Bytes(_) | Body::Upload(_) => String::new(),
        };
        Self {
            name: format!("{method} /{path} {what}"),
            method,
            path: path.to_owned(),
            body,
            direct,
            gateway,
        }
    }

    fn json(path: &str, body: &str, direct: Direct, gateway: u16) -> Self {
        Self::new(
            Method::POST,
            path,
            Body::Json(body.to_owned()),
            direct,
            gateway,
        )
    }

    fn put(path: &str, gateway: u16) -> Self {
        let body = Body::Json(r#"{"value":"mallory","type":"String"}"#.to_owned());
        Self::new(Method::PUT, path, body, Direct::Changed, gateway)
    }

    fn upload(path: &str, r#type: &'static str, gateway: u16) -> Self {
        Self::new(
            Method::POST,
            path,
            Body::Upload(r#type),
            Direct::Changed,
            gateway,
        )
    }

    fn delete(path: &str, direct: Direct, gateway: u16) -> Self {
        Self::new(Method::DELETE, path, Body::None, direct, gateway)
    }
}

impl Target<'_> {
    async fn send(&self, write: &Write) -> Answer {
        let path = self.fill(&write.path).await;
        let url = format!("{}/{path}", self.base);
        let method = write.method.clone();
        match &write.body {
            Body::None => send(request(method, &url, &self.authorization)).await,
            Body::Json(body) => {
                let body = self.fill(body).await;
                send(json_request(method, &url, &self.authorization, body)).await
            }
            Body::Bytes(body) => {
                let body = Bytes::copy_from_slice(body);
                send(json_request(method, &url, &self.authorization, body)).await
            }
            Body::Upload(r#type) => {
                let mut body = String::new();
                for (disposition, content) in [
                    ("name=\"data\"; filename=\"who.txt\"", "mallory"),
                    ("name=\"valueType\"", *r#type),
                ] {
                    write!(
                        body,
                        "--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"
                    )
                    .unwrap();
                }
                write!(body, "--{BOUNDARY}--\r\n").unwrap();
                let mut request = json_request(method, &url, &self.authorization, body);
                let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
                let multipart = multipart.parse().unwrap();
                request.headers_mut().insert("content-type", multipart);
                send(request).await
            }
        }
    }

    /// Whether all that still runs sees the starter: the instance, and each of its tasks.
    async fn seen(&self) -> Result<(), String> {
        if self.kind == "caseInstanceId" {
            return Ok(());
        }
        let path = format!("/task?processInstanceId={}", self.instance);
        let tasks = self.ask(&path).await;
        let tasks = tasks.as_array().unwrap().iter();
        let tasks = tasks.map(|task| format!("/task/{}", task["id"].as_str().unwrap()));
        for scope in tasks.chain([format!("/process-instance/{}", self.instance)]) {
            let seen = self.ask(&format!("{scope}/variables/initiator")).await;
            if seen["value"] != json!(ADA.id) {
                return Err(format!("from {scope} the initiator is {seen}"));
            }
        }
        Ok(())
    }
}
