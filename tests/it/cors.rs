//! What a browser at another origin gets to see: preflights, answers and errors.

use bpmgate::body::Body;
use bpmgate::demo::engine::Script;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use crate::problem::refused;
use crate::support::World;

const APP: &str = "http://localhost:3000";

fn allowed(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all("access-control-allow-origin").iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

async fn preflight(world: &World, origin: &str, path: &str) -> Response<Bytes> {
    let request = Request::options(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        )
        .body(Body::empty());
    world.send(request.unwrap()).await
}

#[tokio::test]
async fn preflights_are_answered_here_and_without_a_token() {
    let world = World::start().await;
    for path in [
        "/api/process-definition/key/approval/start",
        "/api/nothing",
        "/nowhere",
        "/health",
    ] {
        let answer = preflight(&world, APP, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let headers = answer.headers();
        assert_eq!(allowed(headers), [APP]);
        assert_eq!(headers["access-control-allow-methods"], "POST");
        assert_eq!(
            headers["access-control-allow-headers"],
            "authorization,content-type"
        );
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(headers["access-control-max-age"], "600");
        assert!(headers["vary"].to_str().unwrap().contains("origin"));
        assert!(answer.body().is_empty());

        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000/",
            "http://LOCALHOST:3000",
            "https://localhost:3000",
        ] {
            let answer = preflight(&world, origin, path).await;
            assert_eq!(allowed(answer.headers()), [""; 0], "{origin} {path}");
        }
    }
    assert_eq!(world.engine.connections(), 0);
}

#[tokio::test]
async fn an_options_that_is_no_preflight_needs_a_token() {
    let world = World::start().await;
    for (name, value) in [("origin", APP), ("access-control-request-method", "POST")] {
        let request = Request::options("/api/task")
            .header(name, value)
            .body(Body::empty());
        let answer = world.send(request.unwrap()).await;
        assert_eq!(
            refused(&answer),
            (401, "token_missing".to_owned()),
            "{name}"
        );
    }
    assert_eq!(world.engine.connections(), 0);
}

#[tokio::test]
async fn a_frontend_can_read_answers_and_errors_alike() {
    let world = World::start().await;
    let engine_says = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-engine"),
        ("access-control-max-age", "1"),
    ];
    world.engine.script(
        "/engine-rest/task",
        Script::Answer {
            status: StatusCode::OK,
            headers: engine_says
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect(),
            body: Bytes::from_static(b"[]"),
            trailers: None,
        },
    );
    let token = world.token.as_str();
    for (path, authorization, status) in [
        ("/api/task", token, 200),
        ("/api/task", "", 401),
        ("/api/task", "Bearer x", 401),
        ("/api//task", token, 400),
        ("/nowhere", token, 404),
        ("/health", "", 200),
        ("/api/process-instance/unknown", token, 404),
    ] {
        for (origin, want) in [(APP, &[APP][..]), ("https://evil.example", &[])] {
            let mut request = Request::get(path).header("origin", origin);
            if !authorization.is_empty() {
                request = request.header("authorization", authorization);
            }
            let answer = world.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), status, "{path}");
            let headers = answer.headers();
            assert_eq!(allowed(headers), want, "{path}");
            let exposed = headers["access-control-expose-headers"].to_str().unwrap();
            for name in [
                "x-request-id",
                "www-authenticate",
                "retry-after",
                "location",
            ] {
                assert!(exposed.contains(name), "{exposed}");
            }
            assert!(
                !exposed.contains("x-engine") && !headers.contains_key("access-control-max-age")
            );
            // A cache must not hand one origin's answer to another.
            let vary: Vec<_> = headers.get_all("vary").iter().collect();
            assert!(format!("{vary:?}").contains("origin"), "{vary:?}");
        }
    }
}

#[tokio::test]
async fn any_origin_with_credentials_is_named_and_none_gets_nothing() {
    let world = World::with(|config| {
        config.cors.origins = vec!["*".to_owned()];
        config.cors.credentials = true;
    })
    .await;
    let answer = preflight(&world, "https://any.example", "/api/task").await;
    assert_eq!(allowed(answer.headers()), ["https://any.example"]);
    assert_eq!(answer.headers()["access-control-allow-credentials"], "true");

    let world = World::with(|config| config.cors.origins.clear()).await;
    let answer = preflight(&world, APP, "/api/task").await;
    assert_eq!(allowed(answer.headers()), [""; 0]);
    let request = world
        .request(Method::GET, "/api/task")
        .header("origin", APP);
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    let named = answer
        .headers()
        .keys()
        .any(|name| name.as_str().starts_with("access-control-"));
    assert!(!named, "{:?}", answer.headers());
}
