//! What goes wrong at the engine, and that nobody takes it for something right.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::engine::{Framing, Script};
use bpmgate::demo::raw::{RawEngine, Then, read_request, reset};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::apart::Apart;
use crate::support::{Client, Protocol, Raw, World, code, eventually, soon, whole};

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

/// What an engine does with a request once it has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Silent,
    Closes,
    Resets,
    ClosesInTheHead,
    Garbage,
    /// Header after header, for ever.
    EndlessHeaders,
    /// One header that does not end.
    EndlessHeader,
    /// The same, a byte at a time.
    SlowHeader,
    /// `103` after `103`, for ever.
    EndlessInterim,
    /// The same, without a pause.
    FastInterim,
}

/// An engine whose mood can change, and what it has read.
struct Moody {
    engine: RawEngine,
    mood: Arc<Mutex<Mood>>,
    read: Arc<Mutex<Vec<String>>>,
}

impl Moody {
    async fn start() -> Self {
        let mood = Arc::new(Mutex::new(Mood::Well));
        let read = Arc::<Mutex<Vec<_>>>::default();
        let (feels, notes) = (mood.clone(), read.clone());
        let engine = RawEngine::start(move |_, mut stream| {
            let (mood, read) = (feels.clone(), notes.clone());
            async move {
                loop {
                    let request = read_request(&mut stream).await?;
                    let mood = *mood.lock().unwrap();
                    let line = request.head_text();
                    let method = line.split(' ').next().unwrap().to_owned();
                    read.lock().unwrap().push(method);
                    match mood {
                        Mood::Well => stream.write_all(WELL).await?,
                        Mood::Silent => return std::future::pending().await,
                        Mood::Closes => return Ok(()),
                        Mood::Resets => return reset(stream),
                        Mood::ClosesInTheHead => return stream.write_all(&WELL[..20]).await,
                        Mood::Garbage => stream.write_all(b"\0\0no HTTP at all\r\n\r\n").await?,
                        Mood::EndlessHeaders => {
                            stream.write_all(b"HTTP/1.1 200 \r\n").await?;
                            let header = "X-Long: 0123456789abcdef\r\n".repeat(1000);
                            return endless(stream, header.as_bytes(), None).await;
                        }
                        Mood::EndlessHeader => {
                            stream.write_all(b"HTTP/1.1 200 \r\nX-Long: ").await?;
                            return endless(stream, &[b'x'; 16 << 10], None).await;
                        }
                        Mood::SlowHeader => {
                            stream.write_all(b"HTTP/1.1 200 \r\nX-Long: ").await?;
                            return endless(stream, b"x", Some(SHORT / 20)).await;
                        }
                        Mood::FastInterim => {
                            let long = "x".repeat(200);
                            let interim =
                                format!("HTTP/1.1 103 \r\nX: {long}\r\n\r\n").repeat(1000);
                            return endless(stream, interim.as_bytes(), None).await;
                        }
                        Mood::EndlessInterim => {
                            let interim = "HTTP/1.1 103 \r\nLink: </a>\r\n\r\n".repeat(10);
                            return endless(stream, interim.as_bytes(), Some(SHORT / 100)).await;
                        }
                    }
                }
            }
        });
        Self {
            engine: engine.await.unwrap(),
            mood,
            read,
        }
    }

    /// How many requests of this method it has read.
    fn count(&self, method: &str) -> usize {
        let read = self.read.lock().unwrap();
        read.iter().filter(|read| *read == method).count()
    }
}

/// Sends the same again and again until nobody takes it.
async fn endless(
    mut stream: TcpStream,
    bytes: &[u8],
    pause: Option<Duration>,
) -> std::io::Result<()> {
    loop {
        stream.write_all(bytes).await?;
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

const WELL: &[u8] = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n[]";

/// Each row: what the client sees, how it is counted, and how often a read and a start are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_answered_logged_and_counted_and_leaves_nothing_behind() {
    let rows = [
        (Mood::Silent, 504, "engine_timeout", "timeout", 1),
        (Mood::Closes, 502, "engine_unreachable", "engine_error", 4),
        (Mood::Resets, 502, "engine_unreachable", "engine_error", 4),
        (
            Mood::ClosesInTheHead,
            502,
            "engine_unreachable",
            "engine_error",
            4,
        ),
        (Mood::Garbage, 502, "engine_bad_answer", "engine_error", 1),
        (
            Mood::EndlessHeaders,
            502,
            "engine_bad_answer",
            "engine_error",
            1,
        ),
        (
            Mood::EndlessHeader,
            502,
            "engine_bad_answer",
            "engine_error",
            1,
        ),
        (Mood::SlowHeader, 504, "engine_timeout", "timeout", 1),
        (Mood::EndlessInterim, 504, "engine_timeout", "timeout", 1),
    ];
    let moody = Moody::start().await;
    let url = moody.engine.url();
    let world = Apart::over(
        moody,
        &url,
        &[
            ("ENGINE__TIMEOUTS__RESPONSE", "400ms"),
            ("ENGINE__RETRY__BACKOFF", "10ms"),
            ("ENGINE__RETRY__BUDGET_PERCENT", "100"),
            ("ENGINE__RETRY__BUDGET_FLOOR", "1000"),
        ],
    )
    .await;
    let engine = &world.engine;
    let feels = |mood| *engine.mood.lock().unwrap() = mood;
    let ask = async |method: Method, path: &str, id: &str| {
        let client = Client::connect(world.gateway.address, Protocol::Http1).await;
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header(AUTHORIZATION, &world.token)
            .header("x-request-id", id);
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        whole(answer.unwrap()).await.unwrap()
    };
    let files = world.gateway.open_files();
    let memory = world.gateway.memory("VmRSS");
    for (mood, status, problem, outcome, reads) in rows {
        let what = format!("{mood:?}");
        let outcome = format!("outcome=\"{outcome}\"");
        let counted = world.sum("bpmgate_requests_total", &outcome).await;
        let retries = world.metric("bpmgate_engine_retries_total").await;
        engine.read.lock().unwrap().clear();
        feels(mood);
        for (method, path) in [(Method::GET, "/api/task"), (Method::POST, START)] {
            // Several at once, so that what one holds would show.
            let asking = (0..5).map(|_| ask(method.clone(), path, &what));
            for answer in futures_util::future::join_all(asking).await {
                assert_eq!(answer.status(), status, "{what} {method}");
                assert_eq!(code(answer.body()), problem, "{what} {method}");
            }
        }
        assert_eq!(engine.count("GET"), 5 * reads, "{what}");
        assert_eq!(engine.count("POST"), 5, "{what}: never twice");
        let line = format!("outcome=\"{problem}\"");
        let id = format!("request_id=\"{what}\"");
        eventually("the log", || {
            let log = world.gateway.log.lock().unwrap();
            let told = log.lines().filter(|log| log.contains(&line));
            told.filter(|log| log.contains(&id)).count() == 10
        })
        .await;
        let now = world.sum("bpmgate_requests_total", &outcome).await;
        assert_eq!(now - counted, 10, "{what}");
        let now = world.metric("bpmgate_engine_retries_total").await;
        assert_eq!(now - retries, 5 * (reads as u64 - 1), "{what}");

        feels(Mood::Well);
        world.calms_down_to(files).await;
        assert_eq!(ask(Method::GET, "/api/task", "well").await.status(), 200);
    }
    let highest = world.gateway.memory("VmHWM").saturating_sub(memory);
    assert!(highest < 32 << 20, "{highest} bytes more at the highest");
}

/// Its machine is gone, or its queue is full: nobody answers the first packet.
#[tokio::test]
async fn an_engine_that_takes_no_connection_is_502_and_was_sent_nothing() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let engine = socket.listen(1).unwrap();
    let address = engine.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(queued) = timeout(SHORT, TcpStream::connect(address)).await {
        queue.push(queued.unwrap());
    }
    let url = format!("http://{address}/engine-rest");
    let world = World::over((), &url, |config| {
        config.engine.timeouts.connect = SHORT;
        config.engine.retry.attempts = 1;
    })
    .await;
    for (method, path) in [(Method::GET, "/api/x"), (Method::POST, START)] {
        let asked = Instant::now();
        let request = world.request(method, path).body(Body::empty()).unwrap();
        let answer = world.send(request).await;
        assert_eq!(
            (answer.status(), code(answer.body()).as_str()),
            (StatusCode::BAD_GATEWAY, "engine_unreachable")
        );
        assert!(asked.elapsed() >= 2 * SHORT, "it was tried twice");
    }
    // Whoever is in the queue now, is none of the gateway's.
    let waiting = queue.len();
    drop(queue);
    for _ in 0..waiting {
        let (mut stream, _) = soon("the queue", engine.accept()).await.unwrap();
        let mut read = Vec::new();
        soon("its end", stream.read_to_end(&mut read))
            .await
            .unwrap();
        assert!(read.is_empty(), "{}", String::from_utf8_lossy(&read));
    }
}

/// As fast as it can: what it sends is always there to be read, and the deadline holds all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_answers_103_for_ever_is_504() {
    let moody = Moody::start().await;
    let url = moody.engine.url();
    let world = Apart::over(moody, &url, &[("ENGINE__TIMEOUTS__RESPONSE", "400ms")]).await;
    *world.engine.mood.lock().unwrap() = Mood::FastInterim;
    let ask = async || {
        let mut client = Raw::connect(world.gateway.address).await;
        let token = &world.token;
        let text = format!("GET /api/x HTTP/1.1\r\nHost: g\r\nAuthorization: {token}\r\n\r\n");
        client.ask(text).await
    };
    let (one, other) = tokio::join!(ask(), ask());
    for answer in [one, other] {
        assert_eq!(
            (answer.status, code(&answer.body).as_str()),
            (504, "engine_timeout")
        );
    }
}
