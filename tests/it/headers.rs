//! Which headers reach the engine, and which the client.

use bpmgate::body::Body;
use bpmgate::demo::engine::{Recorded, Script};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::support::{Client, Protocol, Raw, World, whole};

/// `GET /api/task` with these headers, and what the engine saw.
async fn through(world: &World, protocol: Protocol, headers: &[(&str, &str)]) -> Recorded {
    world.engine.forget_requests();
    let mut request = world.request(Method::GET, "/api/task");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::connect(world.gateway.address, protocol).await;
    let answer = client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(whole(answer).await.unwrap().status(), 200);
    world.engine.requests().remove(0)
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn nothing_that_could_be_identity_reaches_the_engine_and_the_rest_does() {
    let world = World::start().await;
    let dropped = [
        "cookie",
        "proxy-authorization",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "remote-user",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-auth-request-user",
        "x-remote-user",
        "x_forwarded_for",
        "origin",
        "referer",
        "sec-fetch-site",
        "keep-alive",
        "proxy-connection",
        "x-named",
    ];
    let kept = [
        ("accept", "application/json"),
        ("accept-language", "de, en;q=0.5"),
        ("if-none-match", "\"x\""),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "congo=t61rcWkgMzE"),
        ("baggage", "a=b"),
        ("x-custom", "one"),
        ("user-agent", "test/1"),
    ];
    let mut request = format!(
        "GET /api/task HTTP/1.1\r\nHost: gate.example:81\r\nAuthorization: {}\r\nConnection: keep-alive, X-Named, Authorization, Host, Content-Length\r\n",
        world.token
    );
    for name in dropped {
        request.extend([name, ": admin\r\n"]);
    }
    for (name, value) in kept {
        request.extend([name, ": ", value, "\r\n"]);
    }
    let answer = Raw::connect(world.gateway.address)
        .await
        .ask(request + "\r\n")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = world.engine.requests().remove(0).headers;
    for name in dropped {
        assert_eq!(values(&seen, name), [""; 0], "{name}");
    }
    for (name, value) in kept {
        assert_eq!(values(&seen, name), [value], "{name}");
    }
    assert_eq!(values(&seen, "authorization"), ["Basic ZGVtbzpkZW1v"]);
    assert_eq!(values(&seen, "host"), ["gate.example:81"]);
    assert!(!format!("{seen:?}").contains(&world.token[7..]));
}

#[tokio::test]
async fn the_client_is_who_holds_the_connection_whatever_it_says() {
    let world = World::start().await;
    for protocol in Protocol::BOTH {
        let seen = through(
            &world,
            protocol,
            &[
                ("x-forwarded-for", "10.9.9.9"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("forwarded", "for=10.9.9.9;proto=https;host=evil.example"),
                ("x-real-ip", "10.9.9.9"),
                ("x-forwarded-prefix", "/evil"),
            ],
        )
        .await;
        let host = world.gateway.address.to_string();
        assert_eq!(values(&seen.headers, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&seen.headers, "x-forwarded-host"), [&host]);
        assert_eq!(
            values(&seen.headers, "forwarded"),
            [format!("for=127.0.0.1;proto=http;host=\"{host}\"")]
        );
        assert_eq!(values(&seen.headers, "x-real-ip"), [""; 0]);
        assert_eq!(values(&seen.headers, "x-forwarded-prefix"), [""; 0]);
        // In HTTP/2 the target names the host.
        assert_eq!(values(&seen.headers, "host"), [&host]);
    }
}

#[tokio::test]
async fn a_trusted_proxys_word_is_taken_up_to_the_first_stranger() {
    let world = World::with(|config| {
        config.server.trusted_proxies = vec![
            "127.0.0.0/8".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ];
    })
    .await;
    let seen = through(
        &world,
        Protocol::Http1,
        &[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bpm.example.com"),
        ],
    )
    .await;
    assert_eq!(
        values(&seen.headers, "x-forwarded-for"),
        ["203.0.113.7, 10.0.0.1, 127.0.0.1"]
    );
    assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(
        values(&seen.headers, "x-forwarded-host"),
        ["bpm.example.com"]
    );
    assert_eq!(
        values(&seen.headers, "forwarded"),
        ["for=203.0.113.7, for=10.0.0.1, for=127.0.0.1;proto=https;host=\"bpm.example.com\""]
    );
}

#[tokio::test]
async fn the_host_is_kept_or_the_engines_own() {
    for (preserve, protocol) in [
        (true, Protocol::Http1),
        (true, Protocol::Http2),
        (false, Protocol::Http1),
        (false, Protocol::Http2),
    ] {
        let world = World::with(|config| config.engine.preserve_host = preserve).await;
        let seen = through(&world, protocol, &[]).await;
        let want = if preserve {
            world.gateway.address
        } else {
            world.engine.address()
        };
        assert_eq!(
            values(&seen.headers, "host"),
            [want.to_string()],
            "{preserve} {protocol:?}"
        );
    }
}

#[tokio::test]
async fn the_request_id_is_the_same_everywhere() {
    let world = World::start().await;
    for (given, kept) in [
        (Some("abc-1.2:3_4"), true),
        (Some("a b"), false),
        (Some("x\"y"), false),
        (None, false),
    ] {
        world.engine.forget_requests();
        let mut request = world.request(Method::GET, "/api/task");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        let told = answer.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(given == Some(told), kept, "{given:?} {told}");
        assert_eq!(
            values(&world.engine.requests()[0].headers, "x-request-id"),
            [told]
        );
    }
}

#[tokio::test]
async fn the_client_gets_the_engines_headers_without_what_is_the_engines_own() {
    let world = World::start().await;
    let dropped = [
        ("set-cookie", "JSESSIONID=1"),
        ("www-authenticate", "Basic realm=\"default\""),
        ("server", "Apache-Coyote/1.1"),
        ("access-control-allow-origin", "*"),
        ("keep-alive", "timeout=60"),
        ("proxy-authenticate", "Basic"),
    ];
    let kept = [
        ("content-type", "application/problem+xml; charset=utf-16"),
        (
            "content-disposition",
            "attachment; filename=\"h.txt\"; filename*=UTF-8''h.txt",
        ),
        ("cache-control", "no-cache"),
        ("etag", "\"x\""),
        ("x-engine", "one"),
    ];
    for status in [200, 201, 400, 403, 404, 409, 500, 503] {
        let script = Script::Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: dropped
                .iter()
                .chain(&kept)
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect(),
            body: Bytes::from_static(b"{\"type\":\"RestException\"}"),
            trailers: None,
        };
        world.engine.script("/engine-rest/task", script);
        let answer = world.get("/api/task").await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.body(), "{\"type\":\"RestException\"}");
        for (name, _) in dropped {
            assert_eq!(values(answer.headers(), name), [""; 0], "{name}");
        }
        for (name, value) in kept {
            assert_eq!(values(answer.headers(), name), [value], "{name}");
        }
        assert_eq!(values(answer.headers(), "x-request-id").len(), 1);
    }
}
