//! Who started a process: what the engine receives, byte by byte, whoever the caller claims to be.

use std::collections::BTreeMap;

use bpmgate::body::Body;
use bpmgate::config::ByteSize;
use bpmgate::demo::engine::{Recorded, SAMPLE, Script};
use bytes::Bytes;
use http::{Method, Response};

use crate::problem::{problem, redacted, refused};
use crate::support::World;

const CALLER: &str = r#""initiator":{"value":"alice","type":"String"},"initiatorEmail":{"value":"alice@example.org","type":"String"},"initiatorName":{"value":"Alice Example","type":"String"}"#;

/// The six starts, each by a path below `/engine-rest` or `/engine-rest/engine/default`.
const STARTS: [&str; 6] = [
    "/process-definition/key/approval/start",
    "/process-definition/key/approval/tenant-id/t1/start",
    "/process-definition/approval:1:f443b8c5-0000-0000-0000-000000000000/start",
    "/process-definition/key/approval/submit-form",
    "/process-definition/key/approval/tenant-id/t1/submit-form",
    "/process-definition/approval:1:f443b8c5-0000-0000-0000-000000000000/submit-form",
];

/// Where they are to be had: public path, and what the engine must see.
const ROOTS: [(&str, &str); 4] = [
    ("/api", "/engine-rest"),
    ("/engine-rest", "/engine-rest"),
    ("/api/engine/default", "/engine-rest/engine/default"),
    ("/engine-rest/engine/default", "/engine-rest/engine/default"),
];

async fn send(
    world: &World,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut request = world.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world
        .send(request.body(Body::from(body.into())).unwrap())
        .await
}

async fn post(world: &World, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let json = [("content-type", "application/json")];
    send(world, Method::POST, path, &json, body).await
}

/// The only request that the engine saw since the last time.
fn seen(world: &World) -> Recorded {
    let mut seen = world.engine.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
    world.engine.forget_requests();
    seen.remove(0)
}

/// What holds for every body that was read: JSON, with its exact length.
fn body(recorded: &Recorded) -> &str {
    let headers = &recorded.headers;
    let types: Vec<_> = headers.get_all("content-type").iter().collect();
    assert_eq!(types, ["application/json"]);
    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
    assert_eq!(lengths, [&recorded.body.len().to_string()]);
    for name in ["transfer-encoding", "content-encoding", "trailer"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    std::str::from_utf8(&recorded.body).unwrap()
}

#[tokio::test]
async fn every_start_by_every_path_gets_the_caller_as_its_initiator() {
    let forged = concat!(
        r#" { "businessKey" : "b-1","variables":{"initiator":{"value":"the-director"}, "#,
        r#""\u0069nitiatorEmail":{"value":null,"type":"Null"},"big":{"value":1234567890123456789012345678901234567890.0e400,"#,
        r#""type":"Double"},"initiatorName":7,"text":{"value":"\u00e4 \ud83d\ude00 ä"}},"withVariablesInReturn" : true}"#,
    );
    let written = format!(
        concat!(
            r#" {{ "businessKey" : "b-1","variables":{{"big":{{"value":1234567890123456789012345678901234567890.0e400,"#,
            r#""type":"Double"}},"text":{{"value":"\u00e4 \ud83d\ude00 ä"}},{}}},"withVariablesInReturn" : true}}"#,
        ),
        CALLER
    );
    for profile in ["user", "transparent"] {
        let world = World::with(|config| config.access.default = profile.to_owned()).await;
        world.engine.script("/engine-rest", Script::Echo);
        for (public, engine) in ROOTS {
            for start in STARTS {
                let answer = post(&world, &format!("{public}{start}?x=1"), forged).await;
                assert_eq!(answer.status(), 200, "{answer:?}");
                let recorded = seen(&world);
                assert_eq!(recorded.target, format!("{engine}{start}?x=1"));
                assert_eq!(body(&recorded), written, "{public}{start}");

                // no body, of whichever kind
                for headers in [
                    &[][..],
                    &[("content-type", "application/json; charset=utf-8")],
                ] {
                    let answer = send(
                        &world,
                        Method::POST,
                        &format!("{public}{start}"),
                        headers,
                        "",
                    )
                    .await;
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    assert_eq!(
                        body(&seen(&world)),
                        format!(r#"{{"variables":{{{CALLER}}}}}"#)
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn every_place_of_the_body_where_the_engine_would_read_them_is_cleaned() {
    let world = World::start().await;
    world.engine.script("/engine-rest", Script::Echo);
    let start = "/api/process-definition/key/approval/start";
    for (sent, received) in [
        ("{}", format!(r#"{{"variables":{{{CALLER}}}}}"#)),
        (
            r#"{"variables":{}}"#,
            format!(r#"{{"variables":{{{CALLER}}}}}"#),
        ),
        (
            r#"{"variables":null}"#,
            format!(r#"{{"variables":{{{CALLER}}}}}"#),
        ),
        (
            r#"{"businessKey":"b"}"#,
            format!(r#"{{"businessKey":"b","variables":{{{CALLER}}}}}"#),
        ),
        (
            r#"{"variables":{"initiator":{"value":"eve"}}}"#,
            format!(r#"{{"variables":{{{CALLER}}}}}"#),
        ),
        (
            r#"{"startInstructions":[{"type":"startBeforeActivity","activityId":"a","variables":{"initiator":{"value":"eve","local":true},"x":{"value":1}}}]}"#,
            format!(
                r#"{{"startInstructions":[{{"type":"startBeforeActivity","activityId":"a","variables":{{"x":{{"value":1}}}}}}],"variables":{{{CALLER}}}}}"#
            ),
        ),
        // names that only look alike are the caller's own
        (
            r#"{"variables":{"Initiator":{"value":1},"initiator ":{"value":2}}}"#,
            format!(
                r#"{{"variables":{{"Initiator":{{"value":1}},"initiator ":{{"value":2}},{CALLER}}}}}"#
            ),
        ),
    ] {
        assert_eq!(post(&world, start, sent).await.status(), 200);
        assert_eq!(body(&seen(&world)), received, "{sent}");
    }
}

#[tokio::test]
async fn the_engine_keeps_the_initiator_that_was_written() {
    let world = World::start().await;
    world.engine.deploy(SAMPLE, Some("t1")).unwrap();
    for start in [STARTS[0], STARTS[1], STARTS[3], STARTS[4]] {
        let started = post(
            &world,
            &format!("/api{start}"),
            r#"{"variables":{"subject":{"value":"A desk"},"initiator":{"value":"eve"}}}"#,
        )
        .await;
        assert_eq!(started.status(), 200, "{start}: {started:?}");
        let started: serde_json::Value = serde_json::from_slice(started.body()).unwrap();
        let id = started["id"].as_str().unwrap();
        let variables = world
            .get(&format!("/api/process-instance/{id}/variables"))
            .await;
        let variables: serde_json::Value = serde_json::from_slice(variables.body()).unwrap();
        assert_eq!(variables["initiator"]["value"], "alice", "{start}");
        assert_eq!(variables["initiatorEmail"]["value"], "alice@example.org");
        assert_eq!(variables["initiatorName"]["value"], "Alice Example");
    }
}

/// What it is, its status, headers and body.
type Refused = (
    &'static str,
    u16,
    &'static [(&'static str, &'static str)],
    Bytes,
);

#[tokio::test]
async fn bodies_that_could_be_read_in_two_ways_are_refused_with_what_to_change() {
    let world = World::with(|config| {
        config.server.limits.rewritten_body = ByteSize::from_bytes(200);
    })
    .await;
    let start = "/api/process-definition/key/approval/start";
    let json = &[("content-type", "application/json")][..];
    let long = format!(r#"{{"businessKey":"{}"}}"#, "b".repeat(183));
    let rows: Vec<Refused> = vec![
        (
            "another type",
            415,
            &[("content-type", "text/plain")],
            "{}".into(),
        ),
        (
            "a type that only ends in json",
            415,
            &[("content-type", "application/hal+json")],
            "{}".into(),
        ),
        (
            "a wildcard type",
            415,
            &[("content-type", "*/json")],
            "{}".into(),
        ),
        (
            "a form",
            415,
            &[("content-type", "application/x-www-form-urlencoded")],
            "a=b".into(),
        ),
        ("no type", 415, &[], "{}".into()),
        (
            "two types",
            415,
            &[
                ("content-type", "application/json"),
                ("content-type", "application/json"),
            ],
            "{}".into(),
        ),
        (
            "a coding",
            415,
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ],
            "{}".into(),
        ),
        ("an array", 400, json, "[]".into()),
        ("null", 400, json, "null".into()),
        ("blanks", 400, json, "  ".into()),
        ("no JSON", 400, json, "{variables:{}}".into()),
        ("cut off", 400, json, r#"{"variables":{"#.into()),
        ("two documents", 400, json, "{}{}".into()),
        (
            "a member twice",
            400,
            json,
            r#"{"variables":{},"variables":{"initiator":{"value":"eve"}}}"#.into(),
        ),
        (
            "a member twice, escaped",
            400,
            json,
            r#"{"variables":{},"v\u0061riables":{}}"#.into(),
        ),
        (
            "a variable twice",
            400,
            json,
            r#"{"variables":{"x":{"value":1},"x":{"value":2}}}"#.into(),
        ),
        (
            "variables in a list",
            400,
            json,
            r#"{"variables":[]}"#.into(),
        ),
        (
            "a byte order mark",
            400,
            json,
            Bytes::from_static(b"\xef\xbb\xbf{}"),
        ),
        ("UTF-16", 400, json, Bytes::from_static(b"{\0}\0")),
        (
            "no UTF-8",
            400,
            json,
            Bytes::from_static(b"{\"a\":\"\xff\"}"),
        ),
        (
            "an overlong character",
            400,
            json,
            Bytes::from_static(b"{\"a\":\"\xc0\xae\"}"),
        ),
        (
            "half a surrogate pair",
            400,
            json,
            r#"{"variables":{"\ud800":{"value":1}}}"#.into(),
        ),
        ("one byte too many", 413, json, long.clone().into()),
    ];
    let mut told = BTreeMap::new();
    for (what, status, headers, body) in rows {
        let answer = send(&world, Method::POST, start, headers, body).await;
        assert_eq!(answer.status(), status, "{what}: {answer:?}");
        told.insert(what, redacted(&answer));
    }
    assert_eq!(world.engine.connections(), 0);
    insta::assert_json_snapshot!("bodies_refused", told);

    let fits = &long.as_bytes()[1..];
    let fits = [b"{", &fits[..fits.len() - 3], b"\"}"].concat();
    assert_eq!(fits.len(), 200);
    assert_eq!(post(&world, start, fits).await.status(), 200);
}

#[tokio::test]
async fn later_writes_lose_the_protected_names_and_keep_the_rest() {
    let world = World::start().await;
    world.engine.script("/engine-rest", Script::Echo);
    let forged = r#"{"initiator":{"value":"eve"},"x":{"value":1},"initiatorName":{"value":"Eve"}}"#;
    let kept = r#"{"x":{"value":1}}"#;
    for (path, member) in [
        ("/task/1/complete", "variables"),
        ("/task/1/submit-form", "variables"),
        ("/task/1/resolve", "variables"),
        ("/task/1/bpmnError", "variables"),
        ("/external-task/1/complete", "variables"),
        ("/external-task/1/complete", "localVariables"),
        ("/external-task/1/failure", "variables"),
        ("/execution/1/signal", "variables"),
        ("/message", "processVariables"),
        ("/message", "processVariablesLocal"),
        ("/message", "processVariablesToTriggeredScope"),
        ("/signal", "variables"),
    ] {
        for (public, engine) in ROOTS {
            let sent = format!(r#"{{"{member}":{forged}}}"#);
            assert_eq!(
                post(&world, &format!("{public}{path}"), sent)
                    .await
                    .status(),
                200
            );
            let recorded = seen(&world);
            assert_eq!(recorded.target, format!("{engine}{path}"));
            assert_eq!(
                body(&recorded),
                format!(r#"{{"{member}":{kept}}}"#),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn edits_by_name_are_refused_in_every_profile() {
    let world = World::start().await;
    world.engine.script("/engine-rest", Script::Echo);
    let value = r#"{"value":"eve","type":"String"}"#;
    let json = &[("content-type", "application/json")][..];
    let form = &[("content-type", "multipart/form-data; boundary=x")][..];
    for (method, path, headers, sent) in [
        (
            "PUT",
            "/process-instance/1/variables/initiator",
            json,
            value,
        ),
        (
            "PUT",
            "/process-instance/1/variables/%69nitiatorEmail",
            json,
            value,
        ),
        (
            "DELETE",
            "/process-instance/1/variables/initiatorName",
            &[][..],
            "",
        ),
        (
            "POST",
            "/process-instance/1/variables/initiator/data",
            form,
            "--x--",
        ),
        (
            "POST",
            "/process-instance/1/variables",
            json,
            r#"{"modifications":{"initiator":{"value":"eve"}}}"#,
        ),
        (
            "POST",
            "/process-instance/1/variables",
            json,
            r#"{"deletions":["x","initiator"]}"#,
        ),
        (
            "POST",
            "/process-instance/variables-async",
            json,
            r#"{"processInstanceIds":["1"],"variables":{"initiator":{"value":"eve"}}}"#,
        ),
        ("PUT", "/task/1/variables/initiator", json, value),
        ("PUT", "/task/1/localVariables/initiator", json, value),
        ("DELETE", "/task/1/localVariables/initiator", &[][..], ""),
        ("PUT", "/execution/1/localVariables/initiator", json, value),
    ] {
        for (public, _) in ROOTS {
            let answer = send(
                &world,
                method.parse().unwrap(),
                &format!("{public}{path}"),
                headers,
                sent,
            )
            .await;
            assert_eq!(
                refused(&answer),
                (403, "protected_variable".to_owned()),
                "{method} {path}"
            );
            let detail = problem(&answer)["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with("The variable `initiator"), "{detail}");
        }
    }
    for path in [
        "/process-definition/a:1:b/restart",
        "/process-definition/a:1:b/restart-async",
    ] {
        let answer = post(
            &world,
            &format!("/api{path}"),
            r#"{"processInstanceIds":["1"]}"#,
        )
        .await;
        assert_eq!(
            refused(&answer),
            (403, "cannot_attribute".to_owned()),
            "{path}"
        );
    }
    assert_eq!(world.engine.connections(), 0);
    // another variable is the caller's own business
    let answer = send(
        &world,
        Method::PUT,
        "/api/process-instance/1/variables/x",
        json,
        value,
    )
    .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(body(&seen(&world)), value);
}
