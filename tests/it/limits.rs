//! Limits: how many requests in a time, how many at once, how many long polls.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::config::{RateLimit, RateLimitBy, RateLimitCounts};
use bpmgate::demo::engine::Script;
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};

use super::apart::Apart;
use super::support::{AUDIENCE, Raw, World, bearer, code, eventually, soon};

const START: &str = "/api/process-definition/key/approval/start";
const POLL: &str = "/api/external-task/fetchAndLock";

/// So many requests an hour, and so many at once.
fn limit(name: &str, by: RateLimitBy, requests: u32) -> RateLimit {
    RateLimit {
        name: name.to_owned(),
        by,
        claim: String::new(),
        counts: RateLimitCounts::Requests,
        operations: Vec::new(),
        requests,
        per: Duration::from_hours(1),
        burst: 0,
        keys: 1000,
    }
}

async fn limited(limits: Vec<RateLimit>) -> World {
    World::with(|config| config.rate_limits = limits).await
}

/// Somebody's token, with these claims beside the usual ones.
fn token(issuer: &Issuer, subject: &str, mut claims: Value) -> String {
    claims["sub"] = subject.into();
    claims["aud"] = AUDIENCE.into();
    format!("Bearer {}", issuer.token(&claims))
}

async fn ask(
    world: &World,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

async fn get(world: &World, token: &str) -> u16 {
    let answer = ask(
        world,
        Method::GET,
        "/api/engine",
        &[("authorization", token)],
    )
    .await;
    answer.status().as_u16()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .unwrap_or_else(|| panic!("no {name}: {headers:?}"))
        .to_str()
        .unwrap()
}

#[tokio::test]
async fn a_request_over_the_limit_is_429_and_says_which_limit_and_when_to_come_again() {
    let world = limited(vec![limit("hourly", RateLimitBy::Subject, 3)]).await;
    for left in [2, 1, 0] {
        let answer = world.get("/api/engine").await;
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        assert_eq!(text(headers, "ratelimit-policy"), "\"hourly\";q=3;w=3600");
        assert_eq!(text(headers, "ratelimit"), format!("\"hourly\";r={left}"));
    }
    let request = world.request(Method::GET, "/api/engine");
    let request = request.header("origin", "http://localhost:3000");
    let refused = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (refused.status().as_u16(), code(refused.body()).as_str()),
        (429, "rate_limited")
    );
    let headers = refused.headers();
    let after: u64 = text(headers, "retry-after").parse().unwrap();
    assert!((1000..=1200).contains(&after), "{after}");
    assert_eq!(text(headers, "ratelimit-policy"), "\"hourly\";q=3;w=3600");
    assert_eq!(
        text(headers, "ratelimit"),
        format!("\"hourly\";r=0;t={after}")
    );
    assert_eq!(text(headers, "cache-control"), "no-store");
    let exposed = text(headers, "access-control-expose-headers");
    for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
        assert!(exposed.split(',').any(|other| other == name), "{exposed}");
    }
    assert_eq!(world.engine.request_count(), 3);
    // What somebody else has is theirs.
    let bob = token(&world.issuer, "bob", json!({}));
    assert_eq!(get(&world, &bob).await, 200);
}

#[tokio::test]
async fn what_was_taken_comes_back() {
    let mut each_second = limit("each-second", RateLimitBy::Subject, 1);
    each_second.per = Duration::from_secs(1);
    let world = limited(vec![each_second]).await;
    let mut served = 0;
    let refused = soon("a refusal", async {
        loop {
            let answer = world.get("/api/engine").await;
            match answer.status().as_u16() {
                200 => served += 1,
                _ => return answer,
            }
        }
    })
    .await;
    assert!(served > 0);
    assert_eq!(text(refused.headers(), RETRY_AFTER.as_str()), "1");
    // What is refused takes nothing, so asking again does not put it off.
    soon("what was taken", async {
        while world.get("/api/engine").await.status() != 200 {}
    })
    .await;
}

#[tokio::test]
async fn operations_are_limited_apart_however_they_are_called() {
    let mut starts = limit("starts", RateLimitBy::Subject, 2);
    starts.operations = vec!["start".to_owned()];
    let world = limited(vec![starts]).await;
    let send = async |path: &str, body: &'static str| {
        let request = world
            .request(Method::POST, path)
            .header("content-type", "application/json");
        let body = Body::from(Bytes::from_static(body.as_bytes()));
        world.send(request.body(body).unwrap()).await
    };
    assert_eq!(send(START, "{}").await.status(), 200);
    // The workflow API's start is the engine's own; another prefix is no other operation.
    let started = send("/api/processes/approval/start", "{}").await;
    assert!(started.status().is_success(), "{started:?}");
    assert!(started.headers().contains_key("ratelimit"));
    let before = world.engine.request_count();
    for path in [
        START,
        "/api/processes/approval/start",
        "/engine-rest/process-definition/key/approval/start",
        "/api/process-definition/key/%61pproval/start",
    ] {
        let refused = send(path, "{}").await;
        assert_eq!(refused.status(), 429, "{path}");
        assert_eq!(code(refused.body()), "rate_limited", "{path}");
    }
    assert_eq!(world.engine.request_count(), before);
    for _ in 0..5 {
        let read = world.get("/api/task").await;
        assert_eq!(read.status(), 200);
        assert!(!read.headers().contains_key("ratelimit"));
    }
}

#[tokio::test]
async fn a_group_of_operations_is_one_limit() {
    let mut tasks = limit("tasks", RateLimitBy::Subject, 2);
    tasks.operations = vec!["Task".to_owned()];
    let world = limited(vec![tasks]).await;
    let path = async |path: &str| world.get(path).await.status().as_u16();
    assert_eq!(path("/api/task").await, 200);
    assert_eq!(path("/api/task/count").await, 200);
    // Whichever of the group it is.
    assert_eq!(path("/api/task").await, 429);
    assert_eq!(path("/api/task/1").await, 429);
    for other in ["/api/process-instance", "/api/engine"] {
        assert_eq!(path(other).await, 200, "{other}");
    }
}

#[tokio::test]
async fn an_issuer_is_one_limit_for_all_its_callers() {
    let other = Issuer::start().await.unwrap();
    let world = World::with(|config| {
        let mut table = config.issuers[0].clone();
        table.issuer = other.url().parse().unwrap();
        table.jwks_url = Some(other.jwks_url().parse().unwrap());
        config.issuers.push(table);
        config.shared_ids = true;
        config.rate_limits = vec![limit("issuers", RateLimitBy::Issuer, 2)];
    })
    .await;
    let of = |issuer, subject| token(issuer, subject, json!({}));
    assert_eq!(get(&world, &of(&world.issuer, "anne")).await, 200);
    assert_eq!(get(&world, &of(&world.issuer, "ben")).await, 200);
    assert_eq!(get(&world, &of(&world.issuer, "cleo")).await, 429);
    assert_eq!(get(&world, &of(&world.issuer, "anne")).await, 429);
    assert_eq!(get(&world, &of(&other, "anne")).await, 200);
}

#[tokio::test]
async fn a_claim_is_one_limit_for_all_who_have_it() {
    let mut each_org = limit("each-org", RateLimitBy::Claim, 2);
    each_org.claim = "org.id".to_owned();
    let world = limited(vec![each_org]).await;
    let of = |subject, org: &str| token(&world.issuer, subject, json!({"org": {"id": org}}));
    let (anne, ben, cleo) = (of("anne", "a"), of("ben", "a"), of("cleo", "c"));
    assert_eq!(get(&world, &anne).await, 200);
    assert_eq!(get(&world, &ben).await, 200);
    assert_eq!(get(&world, &anne).await, 429);
    assert_eq!(get(&world, &ben).await, 429);
    assert_eq!(get(&world, &cleo).await, 200);
}

#[tokio::test]
async fn a_client_is_refused_before_its_token_is_looked_at() {
    let by_client = limit("clients", RateLimitBy::Client, 2);
    let world = World::with(|config| {
        config.rate_limits = vec![by_client];
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let from = async |address: &str, token: &str| {
        let headers = [("authorization", token), ("x-forwarded-for", address)];
        ask(&world, Method::GET, "/api/engine", &headers).await
    };
    let bad = "Bearer x.y.z";
    assert_eq!(from("192.0.2.1", bad).await.status(), 401);
    assert_eq!(from("192.0.2.1", bad).await.status(), 401);
    let refused = from("192.0.2.1", bad).await;
    assert_eq!(code(refused.body()), "rate_limited");
    // A good token is of the same address, and what stands left of the proxy's word was made up.
    assert_eq!(from("192.0.2.1", &world.token).await.status(), 429);
    assert_eq!(from("198.51.100.1, 192.0.2.1", bad).await.status(), 429);
    assert_eq!(from("192.0.2.1:4711", bad).await.status(), 429);
    assert_eq!(world.engine.connections(), 0);
    // Another address, and of IPv6 another /64, is another client.
    assert_eq!(from("192.0.2.2", &world.token).await.status(), 200);
    for (address, want) in [
        ("2001:db8::1", 200),
        ("2001:db8::ffff:0:2", 200),
        ("2001:db8::3", 429),
        ("2001:db8:0:1::3", 200),
    ] {
        assert_eq!(
            from(address, &world.token).await.status(),
            want,
            "{address}"
        );
    }
    // The gateway's own routes are for everybody.
    let health = [("x-forwarded-for", "192.0.2.1")];
    let health = ask(&world, Method::GET, "/health", &health).await;
    assert_eq!(health.status(), 200);
}

#[tokio::test]
async fn a_stranger_does_not_make_up_addresses() {
    let world = limited(vec![limit("clients", RateLimitBy::Client, 2)]).await;
    for (number, want) in [(1, 401), (2, 401), (3, 429), (4, 429)] {
        let address = format!("192.0.2.{number}");
        let headers = [
            ("authorization", "Bearer x.y.z"),
            ("x-forwarded-for", &address),
        ];
        let answer = ask(&world, Method::GET, "/api/engine", &headers).await;
        assert_eq!(answer.status(), want, "{address}");
    }
}

/// A request with this token, without a body.
fn plain(method: &str, path: &str, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: g\r\nAuthorization: {token}\r\n\r\n")
}

#[tokio::test]
async fn a_burst_waits_for_its_turn_and_what_finds_no_place_is_503() {
    let world = Apart::start(&[
        ("SERVER__LIMITS__REQUESTS_IN_FLIGHT", "1"),
        ("SERVER__LIMITS__REQUESTS_QUEUED", "2"),
        ("SERVER__LIMITS__QUEUE_TIMEOUT", "5m"),
    ])
    .await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world.engine.script("/engine-rest/slow", gate);
    let mut clients = Vec::new();
    for queued in 0..3 {
        let mut client = Raw::connect(world.gateway.address).await;
        client.write(plain("GET", "/api/slow", &world.token)).await;
        clients.push(client);
        world.until("bpmgate_requests_in_flight", queued + 1).await;
        world.until("bpmgate_requests_queued", queued).await;
    }
    let mut refused = Raw::connect(world.gateway.address).await;
    let refused = refused.ask(plain("GET", "/api/slow", &world.token)).await;
    assert_eq!(
        (refused.status, code(&refused.body).as_str()),
        (503, "overloaded")
    );
    assert_eq!(refused.headers[RETRY_AFTER], "1");
    let slow = || world.engine.requests_to("/engine-rest/slow");
    assert_eq!(slow(), 1);
    let status: Value = serde_json::from_str(&world.admin("/status").await).unwrap();
    assert_eq!(status["requests_queued"], 2);
    world.engine.release(3);
    for mut client in clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(slow(), 3);
    assert_eq!(world.metric("bpmgate_requests_queued").await, 0);
}

#[tokio::test]
async fn who_waits_for_too_long_is_503() {
    let world = World::with(|config| {
        config.server.limits.requests_in_flight = 1;
        config.server.limits.queue_timeout = Duration::from_millis(50);
    })
    .await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world.engine.script("/engine-rest/slow", gate);
    let mut slow = world.raw_client().await;
    slow.write(plain("GET", "/api/slow", &world.token)).await;
    let engine = &world.engine;
    eventually("the request", || engine.request_count() == 1).await;
    let refused = world.get("/api/engine").await;
    assert_eq!(code(refused.body()), "overloaded");
    world.engine.release(1);
    assert_eq!(slow.answer().await.status, 200);
    assert_eq!(world.get("/api/engine").await.status(), 200);
}

#[tokio::test]
async fn long_polls_leave_the_places_of_the_others_and_are_bounded_by_caller_and_all_together() {
    let world = World::with(|config| {
        let limits = &mut config.server.limits;
        limits.requests_in_flight = 1;
        limits.requests_queued = 0;
        limits.requests_in_flight_per_caller = 1;
        limits.long_polls = 3;
        limits.long_polls_per_caller = 2;
    })
    .await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world
        .engine
        .script("/engine-rest/external-task/fetchAndLock", gate);
    let bob = bearer(&world.issuer, "bob", "bob@example.org", "Bob");
    let polls = || {
        world
            .engine
            .requests_to("/engine-rest/external-task/fetchAndLock")
    };
    let mut waiting = Vec::new();
    for (token, refusal) in [
        (&world.token, None),
        (&world.token, Some((&world.token, "too_many_requests"))),
        (&bob, Some((&bob, "overloaded"))),
    ] {
        let before = polls();
        let mut client = world.raw_client().await;
        client.write(plain("POST", POLL, token)).await;
        waiting.push(client);
        eventually("the poll", || polls() == before + 1).await;
        // An ordinary request of the same caller finds its place meanwhile.
        assert_eq!(get(&world, token).await, 200);
        if let Some((token, want)) = refusal {
            let mut client = world.raw_client().await;
            let refused = client.ask(plain("POST", POLL, token)).await;
            assert_eq!(code(&refused.body), want);
            assert_eq!(refused.headers[RETRY_AFTER], "1");
            assert_eq!(polls(), before + 1);
        }
    }
    world.engine.release(3);
    for mut client in waiting {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test]
async fn the_operator_sees_what_limits_refuse() {
    let world = Apart::start(&[
        ("RATE_LIMITS__0__NAME", "hourly"),
        ("RATE_LIMITS__0__BY", "subject"),
        ("RATE_LIMITS__0__REQUESTS", "2"),
        ("RATE_LIMITS__0__PER", "1h"),
        ("RATE_LIMITS__1__NAME", "starts"),
        ("RATE_LIMITS__1__BY", "issuer"),
        ("RATE_LIMITS__1__OPERATIONS", "start"),
        ("RATE_LIMITS__1__REQUESTS", "2"),
        ("RATE_LIMITS__1__PER", "1h"),
    ])
    .await;
    // The first was asked for at the start.
    assert_eq!(world.status(&world.token).await, 200);
    for _ in 0..3 {
        assert_eq!(world.status(&world.token).await, 429);
    }
    for (limit, want) in [("hourly", 3), ("starts", 0)] {
        let series = format!("bpmgate_rate_limited_total{{limit=\"{limit}\"}}");
        assert_eq!(world.metric(&series).await, want, "{limit}");
    }
    let status: Value = serde_json::from_str(&world.admin("/status").await).unwrap();
    assert_eq!(
        status["rate_limits"],
        json!([
            {"name": "hourly", "keys": 1, "refused": 3},
            {"name": "starts", "keys": 0, "refused": 0},
        ])
    );
    assert_eq!(status["config"]["rate_limits"][0]["name"], "hourly");
}
