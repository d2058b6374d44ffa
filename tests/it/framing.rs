//! HTTP as it is on the wire: what is passed on, what is answered, and what is refused.

use std::fmt::Write as _;

use bpmgate::body::{Body, BoxError};
use bpmgate::config::ByteSize;
use bpmgate::demo::engine::{Engine, Framing, PATTERN, Recorded, Script};
use bpmgate::demo::raw::{RawEngine, RawRequest, Then, read_request};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER};
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::support::{Protocol, World, bearer, code, eventually, soon, whole};

/// A gateway in front of an engine that answers every request with these bytes.
async fn answering(answer: &'static [u8]) -> World<RawEngine> {
    World::raw(RawEngine::answering(answer, Then::Continue).await).await
}

/// The one request that the engine saw.
fn only(engine: &RawEngine) -> RawRequest {
    let received = engine.received();
    assert_eq!(received.len(), 1, "{received:?}");
    received[0].clone()
}

/// The last request that the engine saw.
fn last(engine: &Engine) -> Recorded {
    engine.requests().pop().expect("a request at the engine")
}

const OK: &[u8] = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_answer_to_head_keeps_its_length_and_has_no_body() {
    let world = World::start().await;
    let framing = Framing::Length;
    world.engine.script(
        "/engine-rest/file",
        Script::Download {
            length: 1000,
            framing,
        },
    );
    let mut client = world.raw_client().await;
    client
        .write(world.text("HEAD /api/file HTTP/1.1", "\r\n"))
        .await;
    client
        .write(world.text("GET /api/file HTTP/1.1", "\r\n"))
        .await;
    let head = client.head().await;
    assert_eq!(
        (head.status, &head.headers[CONTENT_LENGTH]),
        (200, &"1000".parse().unwrap())
    );
    let get = client.answer().await;
    assert_eq!(get.body.len(), 1000);
    assert_eq!(world.engine.requests()[0].method, Method::HEAD);
}

#[tokio::test]
async fn answers_204_and_304_have_no_body_and_the_connection_goes_on() {
    for answer in [
        "HTTP/1.1 204 \r\nX-Kept: 1\r\n\r\n",
        "HTTP/1.1 304 \r\nETag: \"v1\"\r\nX-Kept: 1\r\n\r\n",
        "HTTP/1.1 304 \r\nContent-Length: 7\r\nX-Kept: 1\r\n\r\n",
    ] {
        let world = answering(answer.as_bytes()).await;
        let mut client = world.raw_client().await;
        for _ in 0..2 {
            let got = client.ask(world.text("GET /api/x HTTP/1.1", "\r\n")).await;
            assert_eq!(got.status.to_string(), answer[9..12], "{answer}");
            assert_eq!(got.headers["x-kept"], "1", "{answer}");
            assert!(got.body.is_empty(), "{answer}");
            if got.status == 204 {
                assert!(!got.headers.contains_key(CONTENT_LENGTH), "{got:?}");
            }
        }
        assert_eq!(world.engine.connections(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_chunked_request_stays_chunked_and_keeps_its_bytes() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    let rest =
        "Transfer-Encoding: chunked\r\n\r\n3;ext=\"a\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n";
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"] {
        let answer = world.ask(&format!("{method} /api/x HTTP/1.1"), rest).await;
        assert_eq!(answer.status, 200, "{method}");
        let seen = last(&world.engine);
        assert_eq!(seen.method.as_str(), method);
        assert_eq!(seen.body, "abc0123456789", "{method}");
        assert_eq!(seen.headers["transfer-encoding"], "chunked", "{method}");
        assert!(!seen.headers.contains_key(CONTENT_LENGTH), "{method}");
    }
}

#[tokio::test]
async fn a_body_with_a_length_passes_with_every_method() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"] {
        let mut client = world.raw_client().await;
        let line = format!("{method} /api/x HTTP/1.1");
        client
            .write(world.text(&line, "Content-Length: 5\r\n\r\nhello"))
            .await;
        assert_eq!(client.head().await.status, 200, "{method}");
        let seen = last(&world.engine);
        assert_eq!(
            (seen.method.as_str(), &seen.body[..]),
            (method, &b"hello"[..])
        );
        assert_eq!(seen.headers[CONTENT_LENGTH], "5", "{method}");
        assert!(!seen.headers.contains_key("transfer-encoding"), "{method}");
    }
}

#[tokio::test]
async fn an_http2_body_without_a_length_reaches_the_engine_whole() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let client = world.client(Protocol::Http2).await;
        let frames = ["hel", "lo"].map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from(part))));
        let body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
        let request = world.request(method.clone(), "/api/x").body(body).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200, "{method}");
        assert_eq!(last(&world.engine).body, "hello", "{method}");
    }
}

#[tokio::test]
async fn a_chunked_answer_keeps_its_bytes_over_both_protocols() {
    let world = World::start().await;
    let framing = Framing::Chunked;
    world.engine.script(
        "/engine-rest/file",
        Script::Download {
            length: 100_000,
            framing,
        },
    );
    let answer = world.ask("GET /api/file HTTP/1.1", "\r\n").await;
    assert_eq!(answer.headers["transfer-encoding"], "chunked");
    assert!(answer.body.iter().eq(PATTERN.iter().cycle().take(100_000)));
    let client = world.client(Protocol::Http2).await;
    let request = world
        .request(Method::GET, "/api/file")
        .body(Body::empty())
        .unwrap();
    let answer = whole(client.send(request).await.unwrap()).await.unwrap();
    assert!(
        answer
            .body()
            .iter()
            .eq(PATTERN.iter().cycle().take(100_000))
    );
    assert!(!answer.headers().contains_key("transfer-encoding"));
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_engine() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    let rest =
        "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n";
    assert_eq!(world.ask("POST /api/x HTTP/1.1", rest).await.status, 200);
    let trailers = last(&world.engine).trailers.expect("trailers");
    assert_eq!(
        (trailers.len(), &trailers["x-sum"]),
        (1, &"42".parse().unwrap())
    );
}

#[tokio::test]
async fn trailers_of_an_answer_reach_the_client_that_takes_them() {
    let world = World::start().await;
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "42".parse().unwrap())]
        .into_iter()
        .collect();
    let script = Script::Answer {
        status: StatusCode::OK,
        headers: vec![(TRAILER, "x-sum".parse().unwrap())],
        body: Bytes::from("abc"),
        trailers: Some(trailers),
    };
    world.engine.script("/engine-rest/x", script);
    let takes = world
        .ask(
            "GET /api/x HTTP/1.1",
            "TE: trailers\r\nConnection: TE\r\n\r\n",
        )
        .await;
    assert_eq!(
        (&takes.body[..], takes.trailers.as_str()),
        (&b"abc"[..], "x-sum: 42\r\n\r\n")
    );
    let not = world.ask("GET /api/x HTTP/1.1", "\r\n").await;
    assert_eq!(
        (&not.body[..], not.trailers.as_str()),
        (&b"abc"[..], "\r\n")
    );

    let client = world.client(Protocol::Http2).await;
    let request = world.request(Method::GET, "/api/x").header(TE, "trailers");
    let answer = client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let collected = soon("the body", answer.into_body().collect())
        .await
        .unwrap();
    assert_eq!(collected.trailers().expect("trailers")["x-sum"], "42");
}

#[tokio::test]
async fn interim_answers_of_the_engine_do_not_stand_for_the_real_one() {
    let world = answering(
        b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let mut client = world.raw_client().await;
    for _ in 0..2 {
        let answer = client.ask(world.text("GET /api/x HTTP/1.1", "\r\n")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        assert!(!answer.headers.contains_key("link"));
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_before_it_sends() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    for (path, body) in [
        ("/api/x", "hello"),
        ("/api/process-definition/key/approval/start", "{}"),
    ] {
        let mut client = world.raw_client().await;
        let length = body.len();
        let rest = format!(
            "Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-Continue\r\n\r\n"
        );
        let interim = client
            .ask(world.text(&format!("POST {path} HTTP/1.1"), &rest))
            .await;
        assert_eq!((interim.status, interim.headers.len()), (100, 0), "{path}");
        let answer = client.ask(body).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !last(&world.engine).headers.contains_key("expect"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_rejected_request_gets_no_100() {
    let world =
        World::with(|config| config.server.limits.request_body = ByteSize::from_kib(1)).await;
    let expects = "Expect: 100-continue\r\n\r\n";
    for (request, status) in [
        (
            format!("POST /api/x HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n{expects}"),
            401,
        ),
        (
            world.text(
                "POST /api/x HTTP/1.1",
                &format!("Content-Length: 1025\r\n{expects}"),
            ),
            413,
        ),
        (
            world.text(
                "POST /api/x;y HTTP/1.1",
                &format!("Content-Length: 5\r\n{expects}"),
            ),
            400,
        ),
        (
            world.text(
                "POST /api/process-definition/key/approval/start HTTP/1.1",
                &format!("Content-Type: text/plain\r\nContent-Length: 5\r\n{expects}"),
            ),
            415,
        ),
    ] {
        let mut client = world.raw_client().await;
        let answer = client.ask(&request).await;
        assert_eq!(answer.status, status, "{request}");
        // The client cannot know whether its body is read now, so the connection ends.
        assert!(client.until_closed().await.is_empty(), "{request}");
    }
    assert_eq!(world.engine.request_count(), 0);
}

#[tokio::test]
async fn two_framings_of_a_request_become_one() {
    let bodies = "3\r\nabc\r\n0\r\n\r\n";
    for headers in [
        "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let world = answering(OK).await;
        let mut client = world.raw_client().await;
        let smuggled = world.text("GET /api/smuggled HTTP/1.1", "\r\n");
        let request = world.text(
            "POST /api/x HTTP/1.1",
            &format!("{headers}\r\n{bodies}{smuggled}"),
        );
        assert_eq!(client.ask(&request).await.status, 200, "{headers}");
        // RFC 9112 §6.1: the connection is closed, whatever follows.
        assert!(client.until_closed().await.is_empty(), "{headers}");
        let seen = only(&world.engine);
        assert_eq!(
            seen.header("transfer-encoding").as_deref(),
            Some("chunked"),
            "{headers}"
        );
        assert_eq!(seen.header("content-length"), None, "{headers}");
        assert_eq!(seen.body, bodies.as_bytes(), "{headers}");
    }
}

#[tokio::test]
async fn what_could_be_framed_in_two_ways_is_400_and_closes() {
    let world = answering(OK).await;
    for (line, rest) in [
        (
            "POST /api/x HTTP/1.1",
            "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        ("POST /api/x HTTP/1.1", "Content-Length: 3, 4\r\n\r\nabcd"),
        ("POST /api/x HTTP/1.1", "Content-Length: +3\r\n\r\nabc"),
        ("POST /api/x HTTP/1.1", "Content-Length: -3\r\n\r\nabc"),
        ("POST /api/x HTTP/1.1", "Content-Length: 0x3\r\n\r\nabc"),
        (
            "POST /api/x HTTP/1.1",
            "Content-Length: 99999999999999999999999\r\n\r\nabc",
        ),
        (
            "POST /api/x HTTP/1.1",
            "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        ),
        (
            "POST /api/x HTTP/1.1",
            "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "POST /api/x HTTP/1.1",
            "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "POST /api/x HTTP/1.0",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("GET /api/x HTTP/1.1", "X-Folded: a\r\n b\r\n\r\n"),
        ("GET /api/x HTTP/1.1", "X-Blank : a\r\n\r\n"),
        ("GET /api/x HTTP/1.1", "X-Null: a\0b\r\n\r\n"),
        ("GET /api/x HTTP/1.1", "X-Return: a\rb\r\n\r\n"),
        ("GET /api/x HTTP/1.1", "Bad(Name: a\r\n\r\n"),
        ("GET /api/x HTTP/1.1", " Leading: a\r\n\r\n"),
        ("GET  /api/x HTTP/1.1", "\r\n"),
        ("GET /api/x y HTTP/1.1", "\r\n"),
        ("GET /api/x HTTP/1.2", "\r\n"),
        ("GET /api/x HTTP/3.0", "\r\n"),
        ("GET /api/x", "\r\n"),
    ] {
        let mut client = world.raw_client().await;
        let answer = client.ask(world.text(line, rest)).await;
        assert_eq!(answer.status, 400, "{line} {rest:?}: {answer:?}");
        assert!(client.until_closed().await.is_empty(), "{line} {rest:?}");
    }
    assert_eq!(world.engine.received(), []);
}

#[tokio::test]
async fn a_broken_chunk_breaks_the_request_off() {
    for chunks in [
        "z\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "ffffffffffffffffff\r\nabc",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
    ] {
        let world = World::start().await;
        world.engine.script("/engine-rest/x", Script::Upload);
        let mut client = world.raw_client().await;
        let rest = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
        client
            .write(world.text("POST /api/x HTTP/1.1", &rest))
            .await;
        let answer = String::from_utf8(client.until_closed().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        let engine = &world.engine;
        eventually("the end of the engine's connection", || {
            engine.open_connections() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn bare_line_feeds_change_nothing_of_what_the_engine_sees() {
    let world = answering(OK).await;
    let mut client = world.raw_client().await;
    let token = &world.token;
    let request =
        format!("GET /api/x HTTP/1.1\nHost: g.example\nAuthorization: {token}\nX-A: 1\n\n");
    assert_eq!(client.ask(&request).await.status, 200);
    let head = only(&world.engine).head_text();
    assert!(
        head.starts_with("GET /engine-rest/x HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(
        head.matches('\n').count(),
        head.matches("\r\n").count(),
        "{head}"
    );
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_that_ends_with_its_connection() {
    let world = World::start().await;
    let framing = Framing::Chunked;
    world.engine.script(
        "/engine-rest/file",
        Script::Download {
            length: 10_000,
            framing,
        },
    );
    let answer = world.ask("GET /api/file HTTP/1.0", "\r\n").await;
    assert_eq!((answer.status, answer.body.len()), (200, 10_000));
    assert!(
        !answer.headers.contains_key("transfer-encoding"),
        "{answer:?}"
    );
    assert_eq!(last(&world.engine).version, http::Version::HTTP_11);
}

#[tokio::test]
async fn pipelined_starts_are_answered_in_order_each_with_its_own_initiator() {
    let world = World::start().await;
    let mut requests = String::new();
    for number in 0..20 {
        let name = format!("user{number}");
        let token = bearer(&world.issuer, &name, &format!("{name}@example.org"), &name);
        let body = format!(r#"{{"businessKey":"{name}"}}"#);
        write!(
            requests,
            "POST /api/process-definition/key/approval/start HTTP/1.1\r\nHost: g\r\nAuthorization: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
    let mut client = world.raw_client().await;
    client.write(requests).await;
    for number in 0..20 {
        let answer = client.answer().await;
        let started: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(started["businessKey"], format!("user{number}"));
    }
    for (number, seen) in world.engine.requests().iter().enumerate() {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["businessKey"], format!("user{number}"));
        assert_eq!(
            body["variables"]["initiator"]["value"],
            format!("user{number}")
        );
    }
    assert_eq!(world.engine.request_count(), 20);
}

#[tokio::test]
async fn the_host_of_an_absolute_target_is_the_host() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    for (target, want) in [
        ("/api/x", "g.example"),
        ("http://other.example:81/api/x", "other.example:81"),
        ("HTTP://user:pw@other.example/api/x", "other.example"),
    ] {
        let answer = world.ask(&format!("GET {target} HTTP/1.1"), "\r\n").await;
        assert_eq!(answer.status, 200, "{target}");
        let seen = last(&world.engine);
        assert_eq!(seen.target, "/engine-rest/x", "{target}");
        assert_eq!(
            (&seen.headers[HOST], &seen.headers["x-forwarded-host"]),
            (&want.parse().unwrap(), &want.parse().unwrap()),
            "{target}"
        );
    }
}

#[tokio::test]
async fn the_authority_of_http2_is_the_host() {
    let world = World::start().await;
    world.engine.script("/engine-rest/x", Script::Echo);
    for host in [None, Some("another.example")] {
        let client = world.client(Protocol::Http2).await;
        let mut request = world.request(Method::GET, "/api/x");
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        client
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let seen = last(&world.engine);
        let want = world.gateway.address.to_string();
        assert_eq!(
            (&seen.headers[HOST], &seen.headers["x-forwarded-host"]),
            (&want.parse().unwrap(), &want.parse().unwrap()),
            "{host:?}"
        );
    }
}

#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_400() {
    let world = World::start().await;
    let token = &world.token;
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "Host: a\r\nHost: b\r\n", 400),
        ("1.1", "Host: a\r\nHost: a\r\n", 400),
        ("1.0", "Host: a\r\nHost: b\r\n", 400),
        ("1.0", "", 200),
        ("1.1", "Host:\r\n", 200),
        ("1.1", "Host: a\r\n", 200),
    ] {
        let mut client = world.raw_client().await;
        let answer = client
            .ask(format!(
                "GET /api/engine HTTP/{version}\r\n{hosts}Authorization: {token}\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, status, "{version} {hosts:?}");
        if status == 400 {
            assert_eq!(code(&answer.body), "bad_request", "{version} {hosts:?}");
        }
    }
    assert_eq!(world.engine.request_count(), 3);
}

#[tokio::test]
async fn a_head_over_the_limit_is_431_and_one_under_it_passes() {
    let world = World::with(|config| {
        config.server.limits.header_bytes = ByteSize::from_kib(16);
        config.server.limits.headers = 20;
    })
    .await;
    for (rest, status) in [
        // The engine takes 8 KB.
        (format!("X-Long: {}\r\n\r\n", "a".repeat(5000)), 200),
        (format!("X-Long: {}\r\n\r\n", "a".repeat(17_000)), 431),
        ("X-Many: a\r\n".repeat(18) + "\r\n", 200),
        ("X-Many: a\r\n".repeat(19) + "\r\n", 431),
    ] {
        let answer = world.ask("GET /api/engine HTTP/1.1", &rest).await;
        assert_eq!(answer.status, status, "{} bytes", rest.len());
    }
    assert_eq!(world.engine.request_count(), 2);
}

#[tokio::test]
async fn a_body_of_the_limit_passes_and_one_byte_more_is_413() {
    let limit = 100_000;
    let world =
        World::with(|config| config.server.limits.request_body = "100000B".parse().unwrap()).await;
    world.engine.script("/engine-rest/x", Script::Upload);
    for (length, status) in [
        (limit, StatusCode::OK),
        (limit + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        for protocol in Protocol::BOTH {
            for declared in [true, false] {
                let what = format!("{length} {protocol:?} declared {declared}");
                let bytes = Bytes::from(vec![b'x'; length]);
                let body = if declared {
                    Body::from(bytes)
                } else {
                    let frame = Ok::<_, BoxError>(Frame::data(bytes));
                    Body::stream(StreamBody::new(futures_util::stream::iter([frame])))
                };
                let request = world.request(Method::POST, "/api/x").body(body).unwrap();
                let before = world.engine.request_count();
                let client = world.client(protocol).await;
                let answer = whole(client.send(request).await.expect(&what))
                    .await
                    .expect(&what);
                assert_eq!(answer.status(), status, "{what}");
                if status == StatusCode::OK {
                    let seen: Value = serde_json::from_slice(answer.body()).unwrap();
                    assert_eq!(seen["length"], length, "{what}");
                } else {
                    assert_eq!(code(answer.body()), "body_too_large", "{what}");
                    if declared {
                        assert_eq!(world.engine.request_count(), before, "{what}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_rewritten_body_of_the_limit_passes_and_one_byte_more_is_413() {
    let world =
        World::with(|config| config.server.limits.rewritten_body = ByteSize::from_kib(1)).await;
    for (length, status) in [(1024, 200), (1025, 413)] {
        let body = format!("{{\"businessKey\":\"{}\"}}", "k".repeat(length - 18));
        assert_eq!(body.len(), length);
        let chunked =
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        for rest in [format!("Content-Length: {length}\r\n\r\n{body}"), chunked] {
            let rest = format!("Content-Type: application/json\r\n{rest}");
            let before = world.engine.request_count();
            let answer = world
                .ask(
                    "POST /api/process-definition/key/approval/start HTTP/1.1",
                    &rest,
                )
                .await;
            assert_eq!(answer.status, status, "{rest}");
            assert_eq!(
                world.engine.request_count() - before,
                usize::from(status == 200)
            );
        }
    }
}

#[tokio::test]
async fn after_a_rejection_with_a_small_unread_body_the_connection_goes_on() {
    let world = World::start().await;
    let mut client = world.raw_client().await;
    for rest in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let refused = client
            .ask(format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{rest}"))
            .await;
        assert_eq!(refused.status, 401, "{rest}");
        let answer = client
            .ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
            .await;
        assert_eq!(answer.status, 200, "{rest}");
    }
}

#[tokio::test]
async fn a_small_body_that_comes_after_the_rejection_is_no_next_request() {
    let world = World::start().await;
    let mut client = world.raw_client().await;
    let head = "POST /api/x HTTP/1.1\r\nHost: g\r\nContent-Length: 27\r\n\r\n";
    assert_eq!(client.ask(head).await.status, 401);
    client.write("GET /api/x HTTP/1.1\r\nA: b\r\n").await;
    let answer = client
        .ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.engine.request_count(), 1);
}

#[tokio::test]
async fn the_rest_of_a_refused_body_is_no_head_that_is_too_large() {
    let world =
        World::with(|config| config.server.limits.header_bytes = ByteSize::from_kib(2)).await;
    let mut client = world.raw_client().await;
    let head = "POST /api/x HTTP/1.1\r\nHost: g\r\nContent-Length: 60000\r\n\r\n";
    assert_eq!(client.ask(head).await.status, 401);
    for _ in 0..20 {
        client.write([b'x'; 3000]).await;
        tokio::task::yield_now().await;
    }
    let answer = client
        .ask(world.text("GET /api/engine HTTP/1.1", "\r\n"))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_large_unread_body_does_not_hide_the_rejection() {
    let world =
        World::with(|config| config.server.limits.request_body = ByteSize::from_mib(1)).await;
    let mut client = world.raw_client().await;
    let length = 64 << 20;
    client
        .write(world.text(
            "POST /api/x HTTP/1.1",
            &format!("Content-Length: {length}\r\n\r\n"),
        ))
        .await;
    // Sends until it is told to stop, and reads afterwards, as simple clients do.
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    while sent < length {
        match soon("the socket", client.stream.write(&piece)).await {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, code(&answer.body).as_str()),
        (413, "body_too_large")
    );
}

#[tokio::test]
async fn a_multipart_upload_passes_byte_for_byte() {
    let world = World::start().await;
    world
        .engine
        .script("/engine-rest/deployment/create", Script::Echo);
    let mut body =
        b"--b\r\nContent-Disposition: form-data; name=\"data\"; filename=\"\xc3\xa9.bin\"\r\n\r\n"
            .to_vec();
    body.extend((0..=255).cycle().take(20_000));
    body.extend(b"\r\n--b--\r\n");
    let request = world
        .request(Method::POST, "/api/deployment/create")
        .header(CONTENT_TYPE, "multipart/form-data; boundary=b")
        .body(Body::from(Bytes::from(body.clone())))
        .unwrap();
    assert_eq!(world.send(request).await.status(), 200);
    let seen = last(&world.engine);
    assert_eq!(seen.body, body);
    assert_eq!(
        seen.headers[CONTENT_TYPE],
        "multipart/form-data; boundary=b"
    );
    assert_eq!(seen.headers[CONTENT_LENGTH], body.len().to_string());
}

#[tokio::test]
async fn every_byte_of_a_query_passes_unchanged_or_is_refused() {
    let world = answering(OK).await;
    let mut refused = Vec::new();
    for byte in 0x21..=0xff_u8 {
        let mut client = world.raw_client().await;
        let mut request = b"GET /api/task?a=".to_vec();
        request.push(byte);
        request.extend(b"&a;=%zz&%00=[x]{y}|^`'\\&=&&?+%2f/../ HTTP/1.1\r\nHost: g\r\n");
        request.extend(format!("Authorization: {}\r\n\r\n", world.token).bytes());
        let before = world.engine.received().len();
        let answer = client.ask(&request).await;
        if answer.status == 400 {
            refused.push(byte);
            assert_eq!(world.engine.received().len(), before, "{byte:#x}");
            continue;
        }
        assert_eq!(answer.status, 200, "{byte:#x}");
        let seen = world.engine.received().pop().unwrap();
        let line = seen.head.split(|byte| *byte == b'\r').next().unwrap();
        let mut want = b"GET /engine-rest/task?a=".to_vec();
        want.push(byte);
        want.extend(b"&a;=%zz&%00=[x]{y}|^`'\\&=&&?+%2f/../ HTTP/1.1");
        if byte == b'#' {
            // A fragment is no part of a target (RFC 9112 §3.2).
            want = b"GET /engine-rest/task?a= HTTP/1.1".to_vec();
        }
        assert_eq!(
            String::from_utf8_lossy(line),
            String::from_utf8_lossy(&want),
            "{byte:#x}"
        );
    }
    // No part of a URI (RFC 3986 §2); raw bytes over 0x7f are no UTF-8 alone, and Tomcat refuses them all.
    let no_uri = b"\"<>".iter().copied().chain(0x7f..=0xff);
    assert_eq!(refused, no_uri.collect::<Vec<_>>());
}

#[tokio::test]
async fn odd_header_values_pass_both_ways_and_cookies_do_not() {
    let world = answering(
        b"HTTP/1.1 200 \r\nX-Odd: caf\xe9\t\"\\,;\xff\r\nX-Empty:\r\nX-Two: 1\r\nX-Two: 2\r\n\
          Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: Tomcat\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let mut client = world.raw_client().await;
    let mut request = world
        .text(
            "GET /api/x HTTP/1.1",
            "X-Empty:\r\nX-Two: 1\r\nX-Two: 2\r\nX-Odd: ",
        )
        .into_bytes();
    request.extend(b"caf\xe9\t\"\\,;\xff\r\n\r\n");
    client.write(&request).await;
    let head = client.until(b"\r\n\r\n").await;
    let has = |head: &[u8], wanted: &[u8]| {
        head.windows(wanted.len())
            .any(|at| at.eq_ignore_ascii_case(wanted))
    };
    for head in [&head, &only(&world.engine).head] {
        assert!(
            has(head, b"\r\nx-odd: caf\xe9\t\"\\,;\xff\r\n"),
            "{}",
            String::from_utf8_lossy(head)
        );
        assert!(
            has(head, b"\r\nx-empty: \r\n"),
            "{}",
            String::from_utf8_lossy(head)
        );
        assert!(
            has(head, b"\r\nx-two: 1\r\nx-two: 2\r\n"),
            "{}",
            String::from_utf8_lossy(head)
        );
    }
    assert!(
        !has(&head, b"set-cookie"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    assert_eq!(client.exactly(2).await, b"ok");
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_passes_whole() {
    let engine = RawEngine::start(|_, mut stream| async move {
        read_request(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 \r\n\r\n").await?;
        stream.write_all(&[b'x'; 5000]).await
    })
    .await;
    let world = World::raw(engine).await;
    let mut client = world.raw_client().await;
    for _ in 0..2 {
        let answer = client.ask(world.text("GET /api/x HTTP/1.1", "\r\n")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 5000));
    }
}
