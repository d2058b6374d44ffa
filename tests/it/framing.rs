//! HTTP as it is on the wire: what is passed on, what is answered, and what is refused.

use http::StatusCode;

use super::support::{Client, Process, Protocol, Raw, World, code, whole};

#[tokio::test]
async fn a_call_with_a_token_reaches_the_engine_over_both_protocols() {
    let world = World::start().await;
    for protocol in Protocol::BOTH {
        let client = Client::connect(world.gateway.address, protocol).await;
        let request = world.request(http::Method::GET, "/api/engine");
        let request = request.body(bpmgate::body::Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.body(), r#"[{"name":"default"}]"#);
    }
}

#[tokio::test]
async fn a_call_without_a_token_is_401() {
    let world = World::start().await;
    let mut client = Raw::connect(world.gateway.address).await;
    let answer = client
        .ask("GET /api/task HTTP/1.1\r\nHost: g\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, code(&answer.body).as_str()),
        (401, "token_missing")
    );
    assert_eq!(world.engine.request_count(), 0);
}

#[tokio::test]
async fn the_binary_serves() {
    let world = World::start().await;
    let mut process = Process::start(&world.issuer, &world.engine.url(), "").await;
    let mut client = Raw::connect(process.address).await;
    let answer = client
        .ask(format!(
            "GET /api/engine HTTP/1.1\r\nHost: g\r\nAuthorization: {}\r\n\r\n",
            world.token
        ))
        .await;
    assert_eq!(answer.status, 200);
    process.signal("TERM").await;
    assert_eq!(process.ended().await, Some(0));
}
