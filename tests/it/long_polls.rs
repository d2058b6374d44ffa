//! What a long poll may take: the time of any request, and what its body asks the engine to wait.

use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::engine::Script;
use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::support::{Protocol, World, code, whole};

const PATH: &str = "/api/external-task/fetchAndLock";
const RESPONSE: Duration = Duration::from_millis(300);

async fn world() -> World {
    World::with(|config| {
        config.engine.timeouts.response = RESPONSE;
        config.engine.retry.attempts = 0;
    })
    .await
}

/// Polls with this `asyncResponseTimeout` in milliseconds; also says how long that took.
async fn poll(world: &World, protocol: Protocol, wait: Option<u64>) -> (Response<Bytes>, Duration) {
    let wait = wait.map_or(String::new(), |wait| {
        format!(r#","asyncResponseTimeout":{wait}"#)
    });
    let body = format!(r#"{{"workerId":"w","maxTasks":1,"topics":[]{wait}}}"#);
    let request = world
        .request(Method::POST, PATH)
        .header("content-type", "application/json")
        .body(Body::from(Bytes::from(body)))
        .unwrap();
    let began = Instant::now();
    let client = world.client(protocol).await;
    let answer = whole(client.send(request).await.unwrap()).await.unwrap();
    (answer, began.elapsed())
}

#[tokio::test]
async fn the_engine_may_hold_it_for_as_long_as_it_asks() {
    let world = world().await;
    let (answer, took) = poll(&world, Protocol::Http1, Some(1000)).await;
    assert_eq!(
        (answer.status(), &answer.body()[..]),
        (StatusCode::OK, &b"[]"[..])
    );
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let (answer, _) = poll(&world, Protocol::Http1, None).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_engine_that_hangs_is_waited_for_that_long_and_no_longer() {
    let world = world().await;
    world.engine.script(
        "/engine-rest/external-task/fetchAndLock",
        Script::HangBeforeHeaders,
    );
    let long = poll(&world, Protocol::Http1, Some(1_800_000));
    let short = async {
        for (protocol, wait, least) in [
            (Protocol::Http1, None, 0),
            (Protocol::Http1, Some(0), 0),
            (Protocol::Http1, Some(1000), 1000),
            (Protocol::Http2, Some(0), 0),
            (Protocol::Http2, Some(1000), 1000),
        ] {
            let (answer, took) = poll(&world, protocol, wait).await;
            assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT, "{wait:?}");
            assert_eq!(code(answer.body()), "engine_timeout");
            assert!(
                took >= RESPONSE + Duration::from_millis(least),
                "{wait:?}: {took:?}"
            );
        }
    };
    tokio::select! {
        (answer, _) = long => panic!("the long one ended: {answer:?}"),
        () = short => {}
    }
}
