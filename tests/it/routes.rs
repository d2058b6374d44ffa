//! Which paths are whose: the gateway's own, the engine's by each prefix, and nobody's.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::problem::refused;
use crate::support::{Gateway, Raw, World, config, eventually};

async fn health(world: &World) -> (Response<Bytes>, Value) {
    let request = Request::get("/health").body(Body::empty()).unwrap();
    let answer = world.send(request).await;
    let mut shape: Value = serde_json::from_slice(answer.body()).unwrap();
    let timestamp = shape.as_object_mut().unwrap().remove("timestamp").unwrap();
    humantime::parse_rfc3339(timestamp.as_str().unwrap()).unwrap();
    (answer, shape)
}

#[tokio::test]
async fn health_needs_no_token_and_asks_the_engine_once_a_second() {
    let world = World::start().await;
    let (answer, shape) = health(&world).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(
        shape,
        json!({"status": "healthy", "engine_reachable": true})
    );
    let seen = world.engine.requests();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("GET", "/engine-rest/version")
    );
    assert_eq!(seen[0].headers["authorization"], "Basic ZGVtbzpkZW1v");

    let crowd = (0..20).map(|_| health(&world));
    for (_, shape) in futures_util::future::join_all(crowd).await {
        assert_eq!(shape["status"], "healthy");
    }
    let asked = world.engine.request_count();
    assert!(
        asked <= 2,
        "{asked}: only a crowd that took a second may ask again"
    );

    let mut raw = Raw::connect(world.gateway.address).await;
    raw.write("HEAD /health HTTP/1.1\r\nHost: gate\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert_eq!(
        (head.status, &head.headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    // No body follows: the next answer is the next bytes.
    assert_eq!(
        raw.ask("GET /health/ HTTP/1.1\r\nHost: gate\r\n\r\n")
            .await
            .status,
        200
    );

    for (method, path, want) in [
        (Method::POST, "/health", (405, "method_not_allowed")),
        (Method::GET, "/health/live", (404, "not_found")),
        (Method::GET, "/healthy", (404, "not_found")),
        (Method::POST, "/docs", (405, "method_not_allowed")),
        (Method::GET, "/docs/nothing", (404, "not_found")),
        (Method::GET, "/docsets", (404, "not_found")),
        (Method::DELETE, "/openapi.json", (405, "method_not_allowed")),
        (Method::GET, "/openapi.json/x", (404, "not_found")),
        (Method::GET, "/", (404, "not_found")),
        (Method::GET, "/demo/", (404, "not_found")),
        (Method::GET, "/demo/config.json", (404, "not_found")),
        (Method::GET, "/engine", (404, "not_found")),
        (Method::GET, "/metrics", (404, "not_found")),
    ] {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .body(Body::empty());
        let answer = world.send(request.unwrap()).await;
        assert_eq!(
            refused(&answer),
            (want.0, want.1.to_owned()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn health_is_degraded_while_the_engine_is_away_and_heals() {
    let world = World::with(|config| config.engine.retry.attempts = 0).await;
    for (script, reachable) in [
        (Script::CloseUnanswered, false),
        (Script::status(StatusCode::INTERNAL_SERVER_ERROR, ""), false),
        (Script::status(StatusCode::OK, "{}"), true),
    ] {
        world.engine.script("/engine-rest/version", script.clone());
        let status = if reachable { "healthy" } else { "degraded" };
        // What was said last is believed for a second.
        let what = format!("{status} for {script:?}");
        crate::support::soon(&what, async {
            loop {
                let (answer, shape) = health(&world).await;
                assert_eq!(answer.status(), 200);
                if shape == json!({"status": status, "engine_reachable": reachable}) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn health_shows_the_engine_where_it_is_told_to() {
    let world = World::with(|config| {
        config.workflow_api.show_engine_url = true;
        "wrong"
            .to_owned()
            .clone_into(&mut config.engine.credentials.username);
    })
    .await;
    let (_, shape) = health(&world).await;
    assert_eq!(
        shape,
        json!({"status": "degraded", "engine_reachable": false, "engine_url": world.engine.url()})
    );
    health(&world).await;
    // A wrong password locks the account; how long it is left alone, the layer's own test says.
    assert_eq!(world.engine.request_count(), 1);
}

#[tokio::test]
async fn each_prefix_is_the_engines_root_and_a_custom_one_replaces_them() {
    let world = World::start().await;
    for path in [
        "/api/version",
        "/engine-rest/version",
        "/api/version/",
        "/api/engine/default/version",
    ] {
        assert_eq!(
            world.get(path).await.body(),
            r#"{"version":"1.0.3"}"#,
            "{path}"
        );
    }

    let issuer = Issuer::start().await.unwrap();
    let engine = Engine::start().await.unwrap();
    let mut config = config(&issuer, &engine.url());
    config.routes.prefixes = vec!["/bpm/v1".parse().unwrap()];
    let world = World {
        gateway: Gateway::start(&config).await,
        token: crate::support::alice(&issuer),
        engine,
        issuer,
    };
    assert_eq!(world.get("/bpm/v1/version").await.status(), 200);
    assert_eq!(world.engine.requests()[0].target, "/engine-rest/version");
    for path in [
        "/api/version",
        "/engine-rest/version",
        "/bpm/version",
        "/bpm/v10/version",
        "/bpm/v1version",
    ] {
        assert_eq!(
            refused(&world.get(path).await),
            (404, "not_found".to_owned()),
            "{path}"
        );
    }
    assert_eq!(world.engine.request_count(), 1);
}

#[tokio::test]
async fn an_engine_at_another_path_or_at_the_root_gets_its_own_paths() {
    for (base, want) in [
        ("/rest/v1", "/rest/v1/task?x=1"),
        ("", "/task?x=1"),
        ("/", "/task?x=1"),
    ] {
        let world = World::with(|config| {
            let address = config.engine.url.as_uri().authority().unwrap().to_string();
            config.engine.url = format!("http://{address}{base}").parse().unwrap();
        })
        .await;
        // The demo's engine lives below /engine-rest alone: what it was asked for is what matters.
        assert_eq!(world.get("/api/task?x=1").await.status(), 404);
        eventually("the request", || world.engine.request_count() > 0).await;
        assert_eq!(world.engine.requests()[0].target, want);
    }
}
