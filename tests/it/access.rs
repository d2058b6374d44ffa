//! Who may do what, and by which spellings of a path: what is refused never reaches the engine, and what
//! passes reaches it as it was judged.

use bpmgate::body::Body;
use http::Method;
use http::header::ALLOW;

use crate::problem::{problem, refused};
use crate::support::{Raw, World, code};

async fn world(profile: &str) -> World {
    World::with(|config| profile.clone_into(&mut config.access.default)).await
}

/// Sends JSON with Alice's token.
async fn send(
    world: &World,
    method: &str,
    path: &str,
    body: &'static str,
) -> http::Response<bytes::Bytes> {
    let method: Method = method.parse().unwrap();
    let mut request = world.request(method, path);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let body = Body::from(bytes::Bytes::from(body));
    world.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn what_a_profile_does_not_allow_is_refused_with_its_name() {
    for (profile, method, path, operation) in [
        ("none", "GET", "/api/task", "getTasks"),
        (
            "none",
            "POST",
            "/api/process-definition/key/approval/start",
            "startProcessInstanceByKey",
        ),
        ("none", "GET", "/engine-rest/version", "getRestAPIVersion"),
        ("user", "POST", "/api/deployment/create", "createDeployment"),
        (
            "user",
            "POST",
            "/engine-rest/engine/default/deployment/create",
            "createDeployment",
        ),
        ("user", "GET", "/engine-rest/user", "getUsers"),
        ("user", "POST", "/api/message", "deliverMessage"),
        ("user", "POST", "/api/identity/verify", "verifyUser"),
        ("user", "POST", "/api/filter/create", "createFilter"),
        (
            "user",
            "POST",
            "/api/external-task/fetchAndLock",
            "fetchAndLock",
        ),
        ("user", "POST", "/api/task/1/assignee", "setAssignee"),
        (
            "user",
            "DELETE",
            "/api/process-instance/1",
            "deleteProcessInstance",
        ),
        (
            "user",
            "PUT",
            "/api/process-instance/1/variables/x",
            "setProcessInstanceVariable",
        ),
        (
            "user",
            "POST",
            "/api/process-definition/a:1:b/restart",
            "restartProcessInstance",
        ),
    ] {
        let world = world(profile).await;
        let answer = send(&world, method, path, "").await;
        let told = problem(&answer);
        assert_eq!(
            (answer.status().as_u16(), &told["code"]),
            (403, &"access_denied".into()),
            "{method} {path}"
        );
        assert_eq!(
            told["detail"],
            format!("The profile `{profile}` does not allow the operation `{operation}`.")
        );
        assert_eq!(world.engine.connections(), 0, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_no_operation_is_404_or_405_but_for_transparent() {
    let rows = [
        ("GET", "/api/nothing", 404, ""),
        ("GET", "/api", 404, ""),
        ("GET", "/api/engine/a/engine/b/task", 404, ""),
        (
            "POST",
            "/api/process-definition/key/approval/start.json",
            404,
            "",
        ),
        (
            "POST",
            "/api/process-definition/key/approval/START",
            404,
            "",
        ),
        ("GET", "/api/TASK", 404, ""),
        ("PATCH", "/api/task", 405, "GET, HEAD, POST"),
        ("BREW", "/api/task", 405, "GET, HEAD, POST"),
        ("get", "/api/task", 405, "GET, HEAD, POST"),
        (
            "post",
            "/api/process-definition/key/approval/start",
            405,
            "POST",
        ),
        (
            "GET",
            "/api/process-definition/key/approval/start",
            405,
            "POST",
        ),
        // No preflight without `Origin` and `Access-Control-Request-Method`.
        (
            "OPTIONS",
            "/api/process-definition/key/approval/start",
            405,
            "POST",
        ),
        ("TRACE", "/api/task", 405, "GET, HEAD, POST"),
    ];
    for profile in ["user", "none"] {
        let world = world(profile).await;
        for (method, path, status, allow) in rows {
            let answer = send(&world, method, path, "").await;
            let code = if status == 404 {
                "not_found"
            } else {
                "method_not_allowed"
            };
            assert_eq!(
                refused(&answer),
                (status, code.to_owned()),
                "{method} {path}"
            );
            let told = answer
                .headers()
                .get(ALLOW)
                .map_or("", |allow| allow.to_str().unwrap());
            assert_eq!(told, allow, "{method} {path}");
        }
        assert_eq!(world.engine.connections(), 0);
    }
    let world = world("transparent").await;
    let mut forwarded = 0;
    for (method, path, ..) in rows {
        let answer = send(&world, method, path, "").await;
        let content_type = answer.headers().get("content-type");
        let ours = content_type.is_some_and(|value| value == "application/problem+json");
        // Another case is another engine's method, and TRACE would show our credentials.
        let never = ["get", "post", "TRACE"].contains(&method);
        assert_eq!(ours, never, "{method} {path}");
        forwarded += usize::from(!never);
        let seen = world.engine.requests();
        assert_eq!(seen.len(), forwarded, "{method} {path}");
        if !never {
            let last = seen.last().unwrap();
            assert_eq!(last.method.as_str(), method);
            assert_eq!(last.target, path.replacen("/api", "/engine-rest", 1));
        }
    }
}

/// What becomes of a spelling of a path.
enum Fate {
    /// The engine gets this.
    Passes(&'static str),
    /// It is refused with this status and code; no code where it is no HTTP at all.
    Refused(u16, &'static str),
}

#[tokio::test]
async fn every_spelling_of_a_path_is_refused_or_reaches_the_engine_as_it_was_judged() {
    use Fate::{Passes, Refused};
    const START: &str = "/engine-rest/process-definition/key/approval/start";
    let bad = || Refused(400, "bad_path");
    let rows: Vec<(&[u8], Fate)> = vec![
        (b"/api/process-definition/key/approval/start", Passes(START)),
        (
            b"/api/process-definition/key/approval/start/",
            Passes(START),
        ),
        (
            b"/api/process-definition/key/%61pproval/start",
            Passes(START),
        ),
        (
            b"/api/process-definition/key/approval/st%61rt",
            Passes(START),
        ),
        (
            b"/api/process%2Ddefinition/key/approval/start",
            Passes(START),
        ),
        (
            b"/%61pi/process-definition/key/approval/start",
            Passes(START),
        ),
        (
            b"/api/process-definition/key/approval/start?x=%2F;y=..&z=%00",
            Passes("/engine-rest/process-definition/key/approval/start?x=%2F;y=..&z=%00"),
        ),
        (
            b"/api/process-definition/key/a%3Ab/start",
            Passes("/engine-rest/process-definition/key/a%3Ab/start"),
        ),
        (
            b"/api/process-definition/key/a%3ab/start",
            Passes("/engine-rest/process-definition/key/a%3Ab/start"),
        ),
        (
            b"/api/process-definition/key/%c3%A4/start",
            Passes("/engine-rest/process-definition/key/%C3%A4/start"),
        ),
        // decoded once, never twice
        (
            b"/api/process-definition/key/%2561pproval/start",
            Passes("/engine-rest/process-definition/key/%2561pproval/start"),
        ),
        (b"/api/process-definition/key/approval/start;x=y", bad()),
        (b"/api/process-definition/key/approval/start;", bad()),
        (b"/api/process-definition;a=b/key;c/approval;d/start", bad()),
        (b"/api;x/process-definition/key/approval/start", bad()),
        (b"/api/process-definition/key/approval//start", bad()),
        (b"/api//process-definition/key/approval/start", bad()),
        (b"//api/process-definition/key/approval/start", bad()),
        (b"/api/process-definition/key/approval/start//", bad()),
        (b"/api/x/../process-definition/key/approval/start", bad()),
        (b"/api/x/..;/process-definition/key/approval/start", bad()),
        (b"/api/./process-definition/key/approval/start", bad()),
        (
            b"/api/%2e%2e/api/process-definition/key/approval/start",
            bad(),
        ),
        (
            b"/health/../api/process-definition/key/approval/start",
            bad(),
        ),
        (b"/api/process-definition/key/approval%2Fstart", bad()),
        (b"/api/process-definition/key/approval%5Cstart", bad()),
        (b"/api/process-definition/key/approval\\start", bad()),
        (b"/api/process-definition/key/approval/start%00", bad()),
        (b"/api/process-definition/key/approval/start%0A", bad()),
        (b"/api/process-definition/key/approval/start%09", bad()),
        (b"/api/process-definition/key/approval/start%7F", bad()),
        (b"/api/process-definition/key/%zz/start", bad()),
        (b"/api/process-definition/key/approval/start%", bad()),
        (b"/api/process-definition/key/%ff/start", bad()),
        (b"/api/process-definition/key/%c0%ae/start", bad()),
        (b"/api/process-definition/key/\xff/start", bad()),
        (b"/api/process-definition/key/\xc3\xa4/start", bad()),
        (
            b"/api/process-definition/key/a%3bb/start",
            Passes("/engine-rest/process-definition/key/a%3Bb/start"),
        ),
        (
            b"/api/process-definition/key/approval/start%3Bx=y",
            Refused(404, "not_found"),
        ),
        (
            b"/api/process-definition/key/approval/start%20",
            Refused(404, "not_found"),
        ),
        (
            b"/api/process-definition/key/approval/start%3F",
            Refused(404, "not_found"),
        ),
        (
            b"/API/process-definition/key/approval/start",
            Refused(404, "not_found"),
        ),
        (
            b"/api/Process-Definition/key/approval/start",
            Refused(404, "not_found"),
        ),
        (
            b"/apiprocess-definition/key/approval/start",
            Refused(404, "not_found"),
        ),
        (
            b"/engine-rest2/process-definition/key/approval/start",
            Refused(404, "not_found"),
        ),
        (
            b"/api/api/process-definition/key/approval/start",
            Refused(404, "not_found"),
        ),
        (b"*", bad()),
        (
            b"http://elsewhere.example/api/process-definition/key/approval/start",
            Passes(START),
        ),
    ];
    let world = world("user").await;
    for (path, fate) in rows {
        world.engine.forget_requests();
        let mut request = b"POST ".to_vec();
        request.extend(path);
        request.extend(
            format!(
                " HTTP/1.1\r\nHost: gate\r\nAuthorization: {}\r\nContent-Length: 0\r\n\r\n",
                world.token
            )
            .bytes(),
        );
        let answer = Raw::connect(world.gateway.address).await.ask(request).await;
        let path = String::from_utf8_lossy(path);
        match fate {
            Passes(target) => {
                let seen = world.engine.requests();
                assert_eq!(seen.len(), 1, "{path}: {answer:?}");
                assert_eq!(seen[0].target, target, "{path}");
                // whichever spelling it was, the initiator is written
                assert!(
                    seen[0]
                        .body
                        .starts_with(br#"{"variables":{"initiator":{"value":"alice""#),
                    "{path}"
                );
            }
            Refused(status, expected) => {
                assert_eq!(answer.status, status, "{path}: {answer:?}");
                if !answer.body.is_empty() || expected != "bad_path" {
                    assert_eq!(code(&answer.body), expected, "{path}");
                }
                assert_eq!(world.engine.request_count(), 0, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn one_claims_and_completes_for_oneself_alone() {
    let world = world("user").await;
    let started = send(
        &world,
        "POST",
        "/api/process-definition/key/approval/start",
        "",
    )
    .await;
    assert_eq!(started.status(), 200);
    let tasks: serde_json::Value =
        serde_json::from_slice(world.get("/api/task").await.body()).unwrap();
    let task = tasks[0]["id"].as_str().unwrap().to_owned();
    world.engine.forget_requests();
    for path in ["/api/task", "/engine-rest/engine/default/task"] {
        for body in [
            r#"{"userId":"bob"}"#,
            r#"{"userId":"Alice"}"#,
            r#"{"userId":null}"#,
            r#"{"userId":["alice"]}"#,
            r#"{"user\u0049d":"bob"}"#,
            "{}",
            "",
            r#"{"userId":"alice","userId":"bob"}"#,
            r#"{"userId":"bob","userId":"alice"}"#,
        ] {
            let answer = send(&world, "POST", &format!("{path}/{task}/claim"), body).await;
            assert_eq!(
                refused(&answer),
                (403, "access_denied".to_owned()),
                "{body}"
            );
        }
        for body in [r#"{"userId":"alice","userId":"alice"}"#, "[]", "null"] {
            let answer = send(&world, "POST", &format!("{path}/{task}/claim"), body).await;
            assert_eq!(refused(&answer), (400, "body_invalid".to_owned()), "{body}");
        }
    }
    assert_eq!(world.engine.request_count(), 0);
    let claim = format!("/api/task/{task}/claim");
    assert_eq!(
        send(&world, "POST", &claim, r#"{"userId":"alice"}"#)
            .await
            .status(),
        204
    );
    let seen = world.engine.requests().pop().unwrap();
    assert_eq!(
        seen.body, r#"{"userId":"alice"}"#,
        "nothing to change, so nothing is"
    );
}

#[tokio::test]
async fn expressions_are_refused_wherever_they_stand() {
    let world = world("user").await;
    for (method, path, body, member) in [
        (
            "GET",
            "/api/task?assigneeExpression=%24%7Bx%7D",
            "",
            "assigneeExpression",
        ),
        (
            "GET",
            "/api/task?a=1&%61ssignee%45xpression=x",
            "",
            "assigneeExpression",
        ),
        (
            "GET",
            "/api/task/count?dueAfterExpression",
            "",
            "dueAfterExpression",
        ),
        (
            "POST",
            "/api/task",
            r#"{"assigneeExpression":"${x}"}"#,
            "assigneeExpression",
        ),
        (
            "POST",
            "/api/task",
            r#"{"orQueries":[{"a":1},{"dueBefore\u0045xpression":"${x}"}]}"#,
            "dueBeforeExpression",
        ),
        (
            "POST",
            "/api/task/count",
            r#"{"candidateGroupsExpression":"${x}"}"#,
            "candidateGroupsExpression",
        ),
        (
            "POST",
            "/api/process-definition/key/approval/start",
            r#"{"startInstructions":[]}"#,
            "startInstructions",
        ),
        (
            "POST",
            "/api/process-definition/key/approval/start",
            r#"{"skipCustomListeners":true}"#,
            "skipCustomListeners",
        ),
    ] {
        let answer = send(&world, method, path, body).await;
        let told = problem(&answer);
        assert_eq!(
            (answer.status().as_u16(), &told["code"]),
            (403, &"access_denied".into()),
            "{method} {path} {body}"
        );
        assert!(
            told["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("`{member}`")),
            "{told}"
        );
    }
    assert_eq!(world.engine.connections(), 0);
    world
        .engine
        .script("/engine-rest/task", bpmgate::demo::engine::Script::Echo);
    assert_eq!(
        send(&world, "GET", "/api/task?assignee=someExpression", "")
            .await
            .status(),
        200
    );
    assert_eq!(
        send(&world, "POST", "/api/task", r#"{"assignee":"alice"}"#)
            .await
            .status(),
        200
    );
}
