//! What goes wrong at the engine, and that nobody takes it for something right.

use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::engine::{Framing, Script};
use bpmgate::demo::raw::{RawEngine, Then, read_request};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Protocol, World, code, eventually, soon, whole};

/// A time that must pass in a test: short, and longer than anything that should come before.
const SHORT: Duration = Duration::from_millis(400);

const START: &str = "/api/process-definition/key/approval/start";

#[tokio::test]
async fn an_answer_that_the_engine_breaks_off_is_broken_for_the_client() {
    let world = World::start().await;
    for framing in [Framing::Length, Framing::Chunked] {
        for after in [0, 10, 50_000] {
            world
                .engine
                .script("/engine-rest/x", Script::AbortInBody { after, framing });
            for protocol in Protocol::BOTH {
                let what = format!("{framing:?} {after} {protocol:?}");
                let client = world.client(protocol).await;
                let request = world
                    .request(Method::GET, "/api/x")
                    .body(Body::empty())
                    .unwrap();
                // The head may be lost with the rest.
                if let Ok(answer) = client.send(request).await {
                    assert_eq!(answer.status(), 200, "{what}");
                    assert!(whole(answer).await.is_err(), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_broken_answer_is_no_whole_one_for_an_http_1_0_client() {
    let world = World::start().await;
    let framing = Framing::Chunked;
    world
        .engine
        .script("/engine-rest/x", Script::AbortInBody { after: 10, framing });
    let mut client = world.raw_client().await;
    client
        .write(world.text("GET /api/x HTTP/1.0", "\r\n"))
        .await;
    let mut read = Vec::new();
    // Its end is all that ends the body, so it must not be a good one.
    let end = soon("the end", client.stream.read_to_end(&mut read)).await;
    assert!(end.is_err(), "{}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn an_engine_that_closes_unanswered_is_502_engine_unreachable() {
    let world = World::start().await;
    for script in [Script::CloseUnanswered, Script::CloseUnread] {
        world.engine.script("/engine-rest/", script);
        for (method, path, sent) in [
            (Method::GET, "/api/x", 4),
            (Method::POST, START, 1),
            (Method::DELETE, "/api/x", 1),
        ] {
            world.engine.forget_requests();
            let request = world
                .request(method.clone(), path)
                .body(Body::empty())
                .unwrap();
            let answer = world.send(request).await;
            assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "{method}");
            assert_eq!(code(answer.body()), "engine_unreachable", "{method}");
            assert_eq!(world.engine.request_count(), sent, "{method}");
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_502_engine_bad_answer_and_not_asked_for_again() {
    for garbage in [
        "no HTTP at all\r\n\r\n",
        "HTTP/1.1 2000 \r\n\r\n",
        "HTTP/1.1 200 \r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 \r\nContent-Length: x\r\n\r\nab",
        "HTTP/1.1 200 \r\nBad(Name: x\r\n\r\n",
        "HTTP/1.1 200 \r\nX: a\0b\r\n\r\n",
        "HTTP/2.0 200 \r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        for then in [Then::Close, Then::Hang] {
            let world = World::raw(RawEngine::answering(garbage, then).await).await;
            let answer = world.get("/api/x").await;
            assert_eq!(
                answer.status(),
                StatusCode::BAD_GATEWAY,
                "{garbage:?} {then:?}"
            );
            assert_eq!(
                code(answer.body()),
                "engine_bad_answer",
                "{garbage:?} {then:?}"
            );
            assert_eq!(world.engine.received().len(), 1, "{garbage:?} {then:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_protocol_is_502_engine_bad_answer() {
    let answer: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let engine = RawEngine::start(move |_, mut stream| async move {
        let request = read_request(&mut stream).await?;
        assert_eq!(
            (request.header("upgrade"), request.header("connection")),
            (None, None)
        );
        stream.write_all(answer).await?;
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    });
    let world = World::raw(engine.await).await;
    let rest = "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = world.ask("GET /api/x HTTP/1.1", rest).await;
    assert_eq!(
        (answer.status, code(&answer.body).as_str()),
        (502, "engine_bad_answer")
    );
    let engine = &world.engine;
    eventually("the end of the engine's connection", || {
        engine.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_never_answers_is_504_and_its_connection_ends() {
    let world = World::with(|config| config.engine.timeouts.response = SHORT).await;
    world
        .engine
        .script("/engine-rest/", Script::HangBeforeHeaders);
    for (method, path) in [(Method::GET, "/api/x"), (Method::POST, START)] {
        world.engine.forget_requests();
        let asked = Instant::now();
        let request = world.request(method, path).body(Body::empty()).unwrap();
        let answer = world.send(request).await;
        assert_eq!(
            (answer.status(), code(answer.body()).as_str()),
            (StatusCode::GATEWAY_TIMEOUT, "engine_timeout")
        );
        assert!(asked.elapsed() >= SHORT);
        assert_eq!(world.engine.request_count(), 1);
        let engine = &world.engine;
        eventually("the end of the engine's connection", || {
            engine.open_connections() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn an_engine_that_takes_no_body_is_504() {
    let (look, looks) = tokio::sync::watch::channel(());
    let engine = RawEngine::start(move |_, mut stream| {
        let mut looks = looks.clone();
        async move {
            stream.read_u8().await?;
            looks.changed().await.unwrap();
            tokio::io::copy(&mut stream, &mut tokio::io::sink())
                .await
                .map(drop)
        }
    })
    .await
    .unwrap();
    let url = engine.url();
    let world = World::over(engine, &url, |config| {
        config.engine.timeouts.response = SHORT;
    })
    .await;
    // More than the sockets on the way hold.
    let body = Body::from(Bytes::from(vec![b'x'; 64 << 20]));
    let request = world.request(Method::POST, "/api/x").body(body).unwrap();
    let answer = world.send(request).await;
    assert_eq!(
        (answer.status(), code(answer.body()).as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "engine_timeout")
    );
    look.send(()).unwrap();
    let engine = &world.engine;
    eventually("the end of the engine's connection", || {
        engine.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_falls_silent_in_its_answer_breaks_the_clients() {
    let world = World::with(|config| config.server.limits.body_idle_timeout = SHORT).await;
    for framing in [Framing::Length, Framing::Chunked] {
        world
            .engine
            .script("/engine-rest/x", Script::HangInBody { after: 10, framing });
        for protocol in Protocol::BOTH {
            let client = world.client(protocol).await;
            let request = world
                .request(Method::GET, "/api/x")
                .body(Body::empty())
                .unwrap();
            let answer = client.send(request).await.unwrap();
            let came = Instant::now();
            assert!(whole(answer).await.is_err(), "{framing:?} {protocol:?}");
            assert!(
                came.elapsed() + Duration::from_millis(50) >= SHORT,
                "{framing:?} {protocol:?}"
            );
            let engine = &world.engine;
            eventually("the end of the engine's connection", || {
                engine.open_connections() == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_trickles_is_no_silent_one() {
    let world = World::with(|config| {
        config.server.limits.body_idle_timeout = SHORT;
        config.server.limits.idle_connection = SHORT;
        config.engine.timeouts.response = SHORT;
    })
    .await;
    let pause = SHORT / 8;
    world
        .engine
        .script("/engine-rest/x", Script::Trickle { length: 24, pause });
    for protocol in Protocol::BOTH {
        let client = world.client(protocol).await;
        let request = world
            .request(Method::GET, "/api/x")
            .body(Body::empty())
            .unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.body().len(), 24, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_engine_that_answers_before_the_body_is_there_is_heard() {
    let answer = b"HTTP/1.1 413 \r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
    let engine = RawEngine::start(move |_, mut stream| async move {
        let mut head = [0; 64];
        stream.read_exact(&mut head).await?;
        stream.write_all(answer).await?;
        std::future::pending().await
    });
    let world = World::raw(engine.await).await;
    for protocol in Protocol::BOTH {
        let client = world.client(protocol).await;
        let body = Body::from(Bytes::from(vec![b'x'; 64 << 20]));
        let request = world.request(Method::POST, "/api/x").body(body).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(
            (answer.status(), &answer.body()[..]),
            (StatusCode::PAYLOAD_TOO_LARGE, &b"big"[..]),
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_keeps_its_announced_length_when_it_comes_short() {
    // The engine says 9, sends 3 and closes: the client must see 9 announced and miss 6.
    let engine = RawEngine::start(|_, mut stream| async move {
        read_request(&mut stream).await?;
        stream
            .write_all(b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\nabc")
            .await
    });
    let world = World::raw(engine.await).await;
    let mut client = world.raw_client().await;
    client
        .write(world.text("GET /api/x HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(client.head().await.headers[CONTENT_LENGTH], "9");
    assert_eq!(client.until_closed().await, b"abc");
}

#[tokio::test]
async fn an_http2_stream_that_breaks_leaves_the_others_alone() {
    let world = World::start().await;
    let framing = Framing::Length;
    world.engine.script(
        "/engine-rest/broken",
        Script::AbortInBody { after: 10, framing },
    );
    world
        .engine
        .script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
    let client = world.client(Protocol::Http2).await;
    let get = |path| {
        world
            .request(Method::GET, path)
            .body(Body::empty())
            .unwrap()
    };
    let (slow, ()) = tokio::join!(client.send(get("/api/slow")), async {
        let broken = client.send(get("/api/broken")).await.unwrap();
        assert!(broken.into_body().collect().await.is_err());
        world.engine.release(1);
    });
    assert_eq!(whole(slow.unwrap()).await.unwrap().status(), 200);
}
