//! The engine's addresses in answers, which become public ones.

use bpmgate::body::Body;
use bpmgate::config::Config;
use bpmgate::demo::engine::Script;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::World;

/// Starts a process by this path: the link to it, and its id.
async fn start(world: &World, prefix: &str, headers: &[(&str, &str)]) -> (String, String) {
    let path = format!("{prefix}/process-definition/key/approval/start");
    let mut request = world.request(Method::POST, &path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(
        answer.headers()[CONTENT_LENGTH],
        answer.body().len().to_string()
    );
    let started: Value = serde_json::from_slice(answer.body()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&started["links"][0]["href"]), text(&started["id"]))
}

#[tokio::test]
async fn the_link_of_a_start_leads_back_through_the_gateway() {
    for preserve_host in [true, false] {
        let world = World::with(|config| config.engine.preserve_host = preserve_host).await;
        for (prefix, shown) in [
            ("/api", "/api"),
            ("/engine-rest", "/engine-rest"),
            ("/api/engine/default", "/api/engine/default"),
        ] {
            let (href, id) = start(&world, prefix, &[]).await;
            let gateway = format!("http://{}", world.gateway.address);
            assert_eq!(href, format!("{gateway}{shown}/process-instance/{id}"));
            let found = world.get(href.strip_prefix(&gateway).unwrap()).await;
            assert_eq!(found.status(), 200, "{href}");
        }
    }
}

type Change = fn(&mut Config);

/// A configuration, headers of the request, and the address that the client is to see.
type Row<'a> = (Change, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn the_public_address_is_the_configured_one_else_the_proxys_else_the_requests() {
    let public: Change =
        |config| config.server.public_url = Some("https://bpm.example.com/gate/".parse().unwrap());
    let trusting: Change =
        |config| config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let proxied = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "front.example"),
    ];
    let rows: [Row<'_>; 6] = [
        (public, &[], "https://bpm.example.com/gate"),
        (public, &proxied, "https://bpm.example.com/gate"),
        (trusting, &proxied, "https://front.example"),
        (|_| (), &proxied, "http://own.example:81"),
        (trusting, &[], "http://own.example:81"),
        (|_| (), &[], "http://own.example:81"),
    ];
    for (change, headers, want) in rows {
        let world = World::with(change).await;
        let mut all = vec![("host", "own.example:81")];
        all.extend(headers);
        let (href, id) = start(&world, "/api", &all).await;
        assert_eq!(href, format!("{want}/api/process-instance/{id}"));
    }
}

#[tokio::test]
async fn a_location_of_the_engines_is_made_public_and_another_is_left() {
    let world = World::start().await;
    let gateway = world.gateway.address;
    for (from, to) in [
        (
            "http://10.0.0.1:8080/engine-rest/task/1?x=%2F",
            format!("http://{gateway}/api/task/1?x=%2F"),
        ),
        (
            "https://login.example/engine",
            "https://login.example/engine".to_owned(),
        ),
        (
            "http://10.0.0.1:8080/engine-rest2/task",
            "http://10.0.0.1:8080/engine-rest2/task".to_owned(),
        ),
    ] {
        world.engine.script(
            "/engine-rest/task",
            Script::Answer {
                status: StatusCode::SEE_OTHER,
                headers: vec![(LOCATION, from.parse().unwrap())],
                body: Bytes::new(),
                trailers: None,
            },
        );
        let answer = world.get("/api/task").await;
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()[LOCATION].to_str().unwrap()
            ),
            (303, to.as_str())
        );
    }
}

#[tokio::test]
async fn every_byte_that_is_no_link_stays() {
    let world = World::start().await;
    let gateway = world.gateway.address;
    let body = r#" {"links" : [{"method":"GET","href":"http:\/\/10.0.0.1\/engine-rest\/process-instance\/1"}], "n":1.50e400,"note":"http://10.0.0.1/engine-rest/x"}"#;
    let want = body.replace(
        r"http:\/\/10.0.0.1\/engine-rest\/process-instance\/1",
        &format!("http://{gateway}/api/process-instance/1"),
    );
    let script = |body: &'static str| Script::Answer {
        status: StatusCode::OK,
        headers: vec![(
            http::header::CONTENT_TYPE,
            "application/json".parse().unwrap(),
        )],
        body: Bytes::from_static(body.as_bytes()),
        trailers: None,
    };
    world.engine.script("/engine-rest", script(body));
    let request = || world.request(Method::POST, "/api/process-definition/key/approval/start");
    let answer = world.send(request().body(Body::empty()).unwrap()).await;
    assert_eq!(answer.body(), want.as_bytes());
    // An operation whose answers have no links is not looked into.
    assert_eq!(world.get("/api/task").await.body(), body);
    // Nor is what is no JSON, or has no links.
    for other in ["", "no json", "[1,2]", r#"{"links":null}"#] {
        world.engine.script("/engine-rest", script(other));
        let answer = world.send(request().body(Body::empty()).unwrap()).await;
        assert_eq!(answer.body(), other);
    }
}
