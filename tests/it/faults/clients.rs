//! Clients that are slow, silent, too many, or gone: they cost themselves, and nobody else.

use std::time::{Duration, Instant};

use bpmgate::body::{Body, BoxError};
use bpmgate::config::Config;
use bpmgate::demo::engine::{Framing, Script};
use bpmgate::demo::raw::RawEngine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::apart::Apart;
use crate::support::{Protocol, Raw, World, bearer, code, eventually, soon, whole};

/// A time that must pass in a test: short, and longer than anything that should come before.
const SHORT: Duration = Duration::from_millis(400);

const START: &str = "/api/process-definition/key/approval/start";

#[tokio::test]
async fn a_client_that_falls_silent_in_its_body_is_408() {
    let world = World::with(|config| {
        config.server.limits.body_idle_timeout = SHORT;
        // The engine is not to blame, however short its time is.
        config.engine.timeouts.response = SHORT / 4;
    })
    .await;
    world.engine.script("/engine-rest/x", Script::Upload);
    for path in ["/api/x", START] {
        for framing in [
            "Content-Length: 10\r\n\r\nhel",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        ] {
            let rest = format!("Content-Type: application/json\r\n{framing}");
            let answer = world.ask(&format!("POST {path} HTTP/1.1"), &rest).await;
            assert_eq!(
                (answer.status, code(&answer.body).as_str()),
                (408, "request_timeout"),
                "{path} {framing}"
            );
        }
        let silent = futures_util::stream::unfold(true, |first| async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Some((
                Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"hel"))),
                false,
            ))
        });
        let client = world.client(Protocol::Http2).await;
        let request = world
            .request(Method::POST, path)
            .header("content-type", "application/json");
        let request = request.body(Body::stream(StreamBody::new(silent))).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(
            (answer.status(), code(answer.body()).as_str()),
            (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            "{path}"
        );
    }
    let engine = &world.engine;
    eventually("the end of the engine's connections", || {
        engine.open_connections() == 0
    })
    .await;
    assert_eq!(
        world.engine.requests_to("/engine-rest/process-definition"),
        0
    );
}

fn silences(config: &mut Config) {
    config.server.limits.header_read_timeout = SHORT;
    config.server.limits.idle_connection = 3 * SHORT;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_the_connection() {
    let world = World::with(silences).await;
    let began = Instant::now();
    let mut silent = world.raw_client().await;
    let mut slow = world.raw_client().await;
    let (mut later, get) = (
        world.raw_client().await,
        world.text("GET /api/engine HTTP/1.1", "\r\n"),
    );
    assert_eq!(later.ask(&get).await.status, 200);
    later.write("GET /api/engine HTTP/1.1\r\nHost:").await;
    slow.write("GET /api/x HTTP/1.1\r\n").await;
    let slowly = async {
        // A byte now and then is no help; the socket says when it is over.
        loop {
            tokio::time::sleep(SHORT / 10).await;
            if slow.stream.write_all(b"X").await.is_err() {
                return;
            }
        }
    };
    soon("the close", slowly).await;
    assert!(began.elapsed() >= SHORT);
    assert!(silent.until_closed().await.is_empty());
    assert!(later.until_closed().await.is_empty());
    assert_eq!(world.engine.request_count(), 1);
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_a_waiting_one_is_not() {
    let world = World::with(silences).await;
    let waits = Script::Delay(8 * SHORT, Box::new(Script::Echo));
    world.engine.script("/engine-rest/slow", waits);
    let mut waiting = world.raw_client().await;
    waiting
        .write(world.text("GET /api/slow HTTP/1.1", "\r\n"))
        .await;
    let mut idle = world.raw_client().await;
    assert_eq!(
        idle.ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
            .await
            .status,
        200
    );
    let began = Instant::now();
    assert!(idle.until_closed().await.is_empty());
    let took = began.elapsed();
    assert!(took + Duration::from_millis(50) >= 3 * SHORT, "{took:?}");
    assert_eq!(waiting.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_its_answer_is_closed() {
    let world = World::with(silences).await;
    let framing = Framing::Length;
    world.engine.script(
        "/engine-rest/x",
        Script::Download {
            length: 1 << 30,
            framing,
        },
    );
    let mut client = world.raw_client().await;
    client
        .write(world.text("GET /api/x HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(client.head().await.status, 200);
    let engine = &world.engine;
    eventually("the end of the engine's connection", || {
        engine.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn requests_over_the_limit_are_503_and_those_in_flight_go_on() {
    let world = World::with(|config| config.server.limits.requests_in_flight = 2).await;
    world
        .engine
        .script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = world.raw_client().await;
        client
            .write(world.text("GET /api/slow HTTP/1.1", "\r\n"))
            .await;
        served.push(client);
    }
    let engine = &world.engine;
    eventually("both requests", || engine.request_count() == 2).await;
    let mut client = world.raw_client().await;
    let refused = client
        .ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(
        (refused.status, code(&refused.body).as_str()),
        (503, "overloaded")
    );
    assert!(
        refused.headers[RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
    assert_eq!(world.engine.request_count(), 2);
    world.engine.release(2);
    for mut client in served {
        assert_eq!(client.answer().await.status, 200);
    }
    // On the same connection, once there is room.
    let answer = client
        .ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_its_turn() {
    let world = World::with(|config| config.server.limits.connections = 2).await;
    let text = world.text("GET /api/engine HTTP/1.1", "\r\n");
    let mut first = world.raw_client().await;
    let mut second = world.raw_client().await;
    assert_eq!(first.ask(&text).await.status, 200);
    assert_eq!(second.ask(&text).await.status, 200);
    let mut third = world.raw_client().await;
    third.write(&text).await;
    for _ in 0..3 {
        assert_eq!(first.ask(&text).await.status, 200);
    }
    assert_eq!(world.engine.request_count(), 5);
    drop(second);
    assert_eq!(third.answer().await.status, 200);
}

/// Slow uploads of one caller take their own places and nobody else's.
#[tokio::test]
async fn a_caller_with_many_slow_uploads_leaves_the_engine_to_the_others() {
    let world = World::with(|config| config.server.limits.requests_in_flight_per_caller = 5).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut client = world.raw_client().await;
        let request = world.text(
            "POST /api/task/x/comment/create HTTP/1.1",
            "Content-Length: 1000\r\n\r\n{",
        );
        client.write(request).await;
        slow.push(client);
    }
    eventually("the uploads at the engine", || {
        world.engine.open_connections() == 5
    })
    .await;
    assert_eq!(world.get("/api/engine").await.status(), 429);
    let bob = bearer(&world.issuer, "bob", "bob@example.org", "Bob");
    let request = Request::get("/api/engine").header(AUTHORIZATION, bob);
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    drop(slow);
    let freed = async { while world.get("/api/engine").await.status() != 200 {} };
    soon("a place of Alice's", freed).await;
}

/// An engine that answers before it has the body ends the request, not the upload.
#[tokio::test]
async fn an_upload_keeps_its_place_after_an_early_answer() {
    let engine = RawEngine::start(|_, mut stream| async move {
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await?;
            if buffer[..read].windows(5).any(|at| at == b"HTTP/") {
                stream
                    .write_all(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok")
                    .await?;
            } else if read == 0 {
                return Ok(());
            }
        }
    });
    let engine = engine.await.unwrap();
    let url = engine.url();
    let world = World::over(engine, &url, |config| {
        config.server.limits.requests_in_flight_per_caller = 1;
    })
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::poll_fn(move |cx| {
            let data = receiver.poll_recv(cx);
            data.map(|data| data.map(|data| Ok::<_, BoxError>(Frame::data(data))))
        });
        let request = world.request(Method::POST, "/api/x");
        let request = request.body(Body::stream(StreamBody::new(frames))).unwrap();
        sender.send(Bytes::from_static(b"x")).await.unwrap();
        let client = world.client(protocol).await;
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.body(), "ok");
        if sender.send(Bytes::from_static(b"x")).await.is_ok() {
            let status = world.get("/api/engine").await.status();
            assert!(
                sender.is_closed() || status == 429,
                "{protocol:?}: {status}"
            );
        }
        drop((sender, client));
        let freed = async { while world.get("/api/engine").await.status() != 200 {} };
        soon("the place", freed).await;
    }
}

/// Each row: where the client goes, what it has sent by then, how often the engine has seen it, and how it is logged and counted.
/// Who goes within a body may still read, so it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_is_logged_and_counted_and_leaves_nothing_behind() {
    const MANY: usize = 20;
    const RESTS: (&str, &str) = ("request_timeout", "rejected");
    const GOES: (&str, &str) = ("aborted", "aborted");
    let world = Apart::start(&[]).await;
    let (engine, address) = (&world.engine, world.gateway.address);
    let hold = |path: &str| engine.script(path, Script::HangBeforeHeaders);
    hold("/engine-rest/silent");
    hold("/engine-rest/process-definition");
    engine.script("/engine-rest/upload", Script::Upload);
    let (length, framing) = (1 << 40, Framing::Chunked);
    engine.script("/engine-rest/long", Script::Download { length, framing });
    let json = "Content-Type: application/json\r\n";
    let rows = [
        (
            "in-a-start",
            format!("POST {START}"),
            format!("{json}Content-Length: 9\r\n\r\n{{"),
            0,
            RESTS,
        ),
        (
            "in-an-upload",
            "POST /api/upload".to_owned(),
            "Content-Length: 9\r\n\r\n{".to_owned(),
            1,
            RESTS,
        ),
        (
            "before-the-answer",
            "GET /api/silent".to_owned(),
            "\r\n".to_owned(),
            1,
            GOES,
        ),
        (
            "before-a-start-is-answered",
            format!("POST {START}"),
            format!("{json}Content-Length: 2\r\n\r\n{{}}"),
            1,
            GOES,
        ),
        (
            "in-the-answer",
            "GET /api/long".to_owned(),
            "\r\n".to_owned(),
            1,
            GOES,
        ),
    ];
    let files = world.gateway.open_files();
    let memory = world.gateway.memory("VmRSS");
    for (what, line, rest, seen, (logged, counted_as)) in rows {
        let logged = format!("outcome=\"{logged}\"");
        let outcome = format!("outcome=\"{counted_as}\"");
        engine.forget_requests();
        let counted = world.sum("bpmgate_requests_total", &outcome).await;
        let token = &world.token;
        let mut clients = Vec::new();
        for _ in 0..MANY {
            let mut client = Raw::connect(address).await;
            client.write(format!("{line} HTTP/1.1\r\nHost: g\r\nX-Request-Id: {what}\r\nAuthorization: {token}\r\n{rest}")).await;
            clients.push(client);
        }
        let all = u64::try_from(MANY).unwrap();
        world.is_exactly("bpmgate_requests_in_flight", all).await;
        eventually(what, || engine.request_count() == seen * MANY).await;
        if what == "in-the-answer" {
            for client in &mut clients {
                assert_eq!(client.head().await.status, 200);
            }
        }
        drop(clients);
        let id = format!("request_id=\"{what}\"");
        eventually("the log", || {
            let log = world.gateway.log.lock().unwrap();
            let told = log.lines().filter(|line| line.contains(&logged));
            told.filter(|line| line.contains(&id)).count() == MANY
        })
        .await;
        let now = world.sum("bpmgate_requests_total", &outcome).await;
        assert_eq!(now - counted, all, "{what}");
        world.calms_down_to(files).await;
        assert_eq!(engine.request_count(), seen * MANY, "{what}: no more came");
        assert_eq!(world.status(token).await, 200, "{what}");
    }
    let highest = world.gateway.memory("VmHWM").saturating_sub(memory);
    assert!(highest < 32 << 20, "{highest} bytes more at the highest");
}
