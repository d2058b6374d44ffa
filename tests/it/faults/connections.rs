//! Connections, the engine's and the clients': none is lost a request by, no start is sent twice, none is left over.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Framing, Script, Settings};
use bpmgate::demo::issuer::Issuer;
use bpmgate::demo::raw::{RawEngine, Then, read_request, reset};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::support::{Client, Process, Protocol, World, alice, code, eventually, soon, whole};

/// An engine that remembers all that the busy tests send.
async fn engine_with(change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings {
        keep_requests: 5000,
        ..Settings::default()
    };
    change(&mut settings);
    Engine::start_with(settings).await.unwrap()
}

fn start<E>(world: &World<E>, key: &str) -> Request<Body> {
    world
        .request(Method::POST, START)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(Bytes::from(
            json!({"businessKey": key}).to_string(),
        )))
        .unwrap()
}

/// How often each business key was started.
fn starts(engine: &Engine) -> HashMap<String, usize> {
    let mut starts = HashMap::new();
    for request in engine.requests() {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["variables"]["initiator"]["value"], "alice");
        let key = body["businessKey"].as_str().unwrap().to_owned();
        *starts.entry(key).or_default() += 1;
    }
    starts
}

fn assert_each_once(engine: &Engine, wanted: usize) {
    let starts = starts(engine);
    assert_eq!(starts.len(), wanted);
    assert!(starts.values().all(|count| *count == 1), "{starts:?}");
}

const START: &str = "/api/process-definition/key/approval/start";
const ANSWER: &[u8] = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_thousand_starts_in_a_row_pass_although_the_engine_closes_after_each_hundredth() {
    let engine = engine_with(|_| ()).await;
    let world = World::over_engine(engine).await;
    let client = world.client(Protocol::Http1).await;
    for number in 0..1000 {
        let request = start(&world, &number.to_string());
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{number}");
    }
    assert_each_once(&world.engine, 1000);
    assert_eq!(world.engine.connections(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_starts_at_once_pass_although_the_engine_closes_after_each_tenth() {
    let engine = engine_with(|settings| settings.answers_per_connection = 10).await;
    let world = Arc::new(World::over_engine(engine).await);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Arc::new(world.client(Protocol::Http2).await));
    }
    let mut tasks = JoinSet::new();
    for number in 0..1000 {
        let (world, client) = (world.clone(), clients[number % clients.len()].clone());
        tasks.spawn(async move {
            let answer = client.send(start(&world, &number.to_string())).await;
            whole(answer.unwrap()).await.unwrap().status()
        });
    }
    for status in soon("all the answers", tasks.join_all()).await {
        assert_eq!(status, StatusCode::OK);
    }
    assert_each_once(&world.engine, 1000);
}

#[tokio::test]
async fn one_connection_to_the_engine_serves_one_client_after_the_other() {
    let world = World::start().await;
    for _ in 0..50 {
        assert_eq!(world.get("/api/engine").await.status(), 200);
    }
    assert_eq!(world.engine.connections(), 1);
}

#[tokio::test]
async fn a_start_after_the_engine_closed_its_silent_connections_is_sent_once() {
    let engine = engine_with(|settings| settings.idle_timeout = Duration::from_millis(50)).await;
    let world = World::over_engine(engine).await;
    for number in 0..5 {
        let request = start(&world, &number.to_string());
        assert_eq!(world.send(request).await.status(), 200);
        let engine = &world.engine;
        eventually("the engine's close", || engine.open_connections() == 0).await;
    }
    assert_each_once(&world.engine, 5);
    assert_eq!(world.engine.connections(), 5);
}

#[tokio::test]
async fn a_silent_connection_is_given_up_before_the_engine_closes_it() {
    let engine = engine_with(|_| ()).await;
    let url = engine.url();
    let idle = Duration::from_millis(50);
    let world = World::over(engine, &url, |config| {
        config.engine.timeouts.idle_connection = idle;
    })
    .await;
    assert_eq!(world.get("/api/engine").await.status(), 200);
    let engine = &world.engine;
    eventually("the gateway's close", || engine.open_connections() == 0).await;
}

/// What the engine does with the second request of a connection, once it has read it.
#[derive(Debug, Clone, Copy)]
enum Second {
    Closes,
    Resets,
    ClosesAfterHalfAHead,
}

/// An engine that answers the first request of each connection alone, and counts both.
async fn engine_that_breaks(second: Second) -> (io::Result<RawEngine>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let engine = RawEngine::start(move |_, mut stream| {
        let counted = counted.clone();
        async move {
            read_request(&mut stream).await?;
            counted.fetch_add(1, Ordering::SeqCst);
            stream.write_all(ANSWER).await?;
            read_request(&mut stream).await?;
            counted.fetch_add(1, Ordering::SeqCst);
            match second {
                Second::Closes => Ok(()),
                Second::Resets => reset(stream),
                Second::ClosesAfterHalfAHead => stream.write_all(b"HTTP/1.1 200 \r\nConte").await,
            }
        }
    })
    .await;
    (engine, count)
}

#[tokio::test]
async fn a_start_whose_connection_breaks_after_it_was_sent_is_not_sent_again() {
    for second in [Second::Closes, Second::Resets, Second::ClosesAfterHalfAHead] {
        let (engine, count) = engine_that_breaks(second).await;
        let world = World::raw(engine).await;
        assert_eq!(world.send(start(&world, "a")).await.status(), 200);
        let answer = world.send(start(&world, "b")).await;
        assert_eq!(answer.status(), 502, "{second:?}");
        assert_eq!(code(answer.body()), "engine_unreachable", "{second:?}");
        assert_eq!(count.load(Ordering::SeqCst), 2, "{second:?}");
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_after_it_was_sent_is_sent_again() {
    for second in [Second::Closes, Second::Resets, Second::ClosesAfterHalfAHead] {
        let (engine, count) = engine_that_breaks(second).await;
        let world = World::raw(engine).await;
        for _ in 0..2 {
            assert_eq!(world.get("/api/x").await.status(), 200, "{second:?}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 3, "{second:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_is_sent_twice_by_an_engine_that_closes_without_a_word() {
    let seen = Arc::new(std::sync::Mutex::new(HashMap::<Vec<u8>, usize>::new()));
    let noted = seen.clone();
    // It announces nothing and closes after its first answer, just when the next start may be under way.
    let engine = RawEngine::start(move |_, mut stream| {
        let noted = noted.clone();
        async move {
            let request = read_request(&mut stream).await?;
            *noted.lock().unwrap().entry(request.body).or_default() += 1;
            stream.write_all(ANSWER).await
        }
    })
    .await;
    let world = World::raw(engine).await;
    let client = world.client(Protocol::Http1).await;
    let mut passed = 0;
    for number in 0..300 {
        let request = start(&world, &number.to_string());
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        passed += usize::from(answer.status() == 200);
        assert!(matches!(answer.status().as_u16(), 200 | 502), "{answer:?}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    assert!(
        seen.len() >= passed && passed > 0,
        "{} seen, {passed} passed",
        seen.len()
    );
}

/// An address at which nobody listens, and which nobody else is given.
fn reserved() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn starts_pass_when_the_engine_was_restarted_between_them() {
    let (_reserved, listen) = reserved();
    let engine = engine_with(|settings| settings.listen = listen).await;
    let mut world = World::over_engine(engine).await;
    for _ in 0..3 {
        // Several connections that will be dead.
        let client = world.client(Protocol::Http2).await;
        let requests = (0..5).map(|number| client.send(start(&world, &number.to_string())));
        for answer in futures_util::future::join_all(requests).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
        assert_each_once(&world.engine, 5);
        drop(world.engine);
        let engine = soon("the port", async {
            loop {
                let settings = Settings {
                    listen,
                    ..Settings::default()
                };
                match Engine::start_with(settings).await {
                    Ok(engine) => return engine,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        world.engine = engine.await;
    }
}

#[tokio::test]
async fn an_engine_that_is_away_is_502_engine_unreachable() {
    let (_reserved, address) = reserved();
    let world = World::over((), &format!("http://{address}/engine-rest"), |_| ()).await;
    for request in [
        start(&world, "a"),
        world
            .request(Method::GET, "/api/task")
            .body(Body::empty())
            .unwrap(),
    ] {
        let answer = world.send(request).await;
        assert_eq!(answer.status(), 502);
        assert_eq!(code(answer.body()), "engine_unreachable");
    }
}

#[tokio::test]
async fn a_read_is_tried_as_often_as_configured() {
    for attempts in [0, 1, 4] {
        let engine = RawEngine::start(|_, stream| async move { reset(stream) })
            .await
            .unwrap();
        let url = engine.url();
        let world = World::over(engine, &url, |config| {
            config.engine.retry.attempts = attempts;
            config.engine.retry.backoff = Duration::from_millis(1);
        })
        .await;
        assert_eq!(world.get("/api/task").await.status(), 502);
        assert_eq!(world.engine.connections(), attempts as usize + 1);
    }
}

#[tokio::test]
async fn a_start_waits_for_an_engine_that_comes_back_between_the_tries() {
    let (_reserved, listen) = reserved();
    let issuer = Issuer::start().await.unwrap();
    let more =
        "engine.retry = { attempts = 10, backoff = \"20ms\" }\ntelemetry.log_level = \"debug\"";
    let url = format!("http://{listen}/engine-rest");
    let gateway = Process::start(&issuer, &url, more).await;
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    let request = Request::post(START)
        .header("authorization", alice(&issuer))
        .body(Body::empty())
        .unwrap();
    let answering = tokio::spawn(async move { whole(client.send(request).await.unwrap()).await });
    let log = gateway.log.clone();
    eventually("the first failure", || {
        log.lock().unwrap().contains("trying the engine again")
    })
    .await;
    let engine = engine_with(|settings| settings.listen = listen).await;
    assert_eq!(
        soon("the answer", answering)
            .await
            .unwrap()
            .unwrap()
            .status(),
        200
    );
    // The gateway asked for the model first.
    assert_eq!(
        engine.requests_to("/engine-rest/process-definition/key/approval/start"),
        1
    );
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_takes_the_engines_request_with_it() {
    let world = World::start().await;
    world
        .engine
        .script("/engine-rest/x", Script::HangBeforeHeaders);
    for protocol in Protocol::BOTH {
        for method in [Method::GET, Method::POST] {
            let client = world.client(protocol).await;
            let request = world
                .request(method, "/api/x")
                .body(Body::from(Bytes::from("abc")))
                .unwrap();
            let before = world.engine.request_count();
            let engine = &world.engine;
            tokio::select! {
                answer = client.send(request) => panic!("{answer:?}"),
                () = eventually("the request", || engine.request_count() > before) => {}
            }
            assert!(engine.open_connections() > 0);
            drop(client);
            eventually("the end of the engine's connection", || {
                engine.open_connections() == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_in_its_answer_ends_the_engines_answer() {
    let world = World::start().await;
    let framing = Framing::Chunked;
    world.engine.script(
        "/engine-rest/long",
        Script::Download {
            length: 1 << 40,
            framing,
        },
    );
    world.engine.script(
        "/engine-rest/silent",
        Script::HangInBody { after: 10, framing },
    );
    for path in ["/api/long", "/api/silent"] {
        for protocol in Protocol::BOTH {
            let client = world.client(protocol).await;
            let request = world
                .request(Method::GET, path)
                .body(Body::empty())
                .unwrap();
            let mut answer = client.send(request).await.unwrap();
            soon("the first bytes", answer.frame())
                .await
                .unwrap()
                .unwrap();
            drop((answer, client));
            let engine = &world.engine;
            eventually("the end of the engine's connection", || {
                engine.open_connections() == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_in_its_upload_ends_the_engines_request() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Upload);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = world.raw_client().await;
        let before = world.engine.request_count();
        client
            .write(world.text(
                "POST /api/x HTTP/1.1",
                &format!("{framing}\r\n\r\n5\r\nhello\r\n"),
            ))
            .await;
        let engine = &world.engine;
        eventually("the request", || engine.request_count() > before).await;
        drop(client);
        eventually("the end of the engine's connection", || {
            engine.open_connections() == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_and_go_leave_no_connection_behind() {
    let engine = engine_with(|_| ()).await;
    let framing = Framing::Length;
    engine.script(
        "/engine-rest/long",
        Script::Download {
            length: 1 << 30,
            framing,
        },
    );
    engine.script("/engine-rest/silent", Script::HangBeforeHeaders);
    let issuer = Issuer::start().await.unwrap();
    let gateway = Process::start(&issuer, &engine.url(), "").await;
    let token = alice(&issuer);
    // Once a request has been served, all workers are there.
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    let request = Request::get("/api/engine").header("authorization", &token);
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    whole(answer.unwrap()).await.unwrap();
    drop(client);
    let before = gateway.open_files() - engine.open_connections();
    let mut tasks = JoinSet::new();
    for number in 0..300 {
        let (token, address) = (token.clone(), gateway.address);
        tasks.spawn(async move {
            let protocol = Protocol::BOTH[number % 2];
            let client = Client::connect(address, protocol).await;
            let path = ["/api/engine", "/api/long", "/api/silent"][number % 3];
            let request = Request::get(path).header("authorization", token);
            let request = request.body(Body::empty()).unwrap();
            if path == "/api/silent" {
                let impatient =
                    tokio::time::timeout(Duration::from_millis(100), client.send(request));
                if let Ok(answer) = impatient.await {
                    panic!("{protocol:?}: {answer:?}");
                }
            } else {
                let answer = client.send(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                if path == "/api/engine" {
                    whole(answer).await.unwrap();
                }
            }
        });
    }
    soon("the clients", tasks.join_all()).await;
    // What may stay are connections to the engine that wait for the next request.
    eventually("the end of the connections", || {
        let left = engine.open_connections();
        left <= 100 && gateway.open_files() <= before + left + 5
    })
    .await;
    let accepted = engine.connections();
    // And they are used; where the client's worker has none, it opens one.
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    for _ in 0..20 {
        let request = Request::get("/api/engine").header("authorization", &token);
        let answer = client
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(whole(answer).await.unwrap().status(), 200);
    }
    assert!(engine.connections() <= accepted + 1);
}

#[tokio::test]
async fn an_engine_that_closes_in_good_order_is_not_asked_again_on_that_connection() {
    let answer: &[u8] = b"HTTP/1.1 200 \r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let world = World::raw(RawEngine::answering(answer, Then::Hang).await).await;
    for number in 1..=3 {
        assert_eq!(world.get("/api/x").await.status(), 200);
        assert_eq!(world.engine.connections(), number);
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_no_answer_to_the_next_client() {
    let answer: &[u8] = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 \r\nContent-Length: 4\r\n\r\nevil";
    let world = World::raw(RawEngine::answering(answer, Then::Continue).await).await;
    for _ in 0..20 {
        let got = world.get("/api/x").await;
        assert!(got.body() == "ok" || got.status() == 502, "{got:?}");
    }
}
