//! Limits: how many requests in a time, how many at once, how many long polls; and that good callers are served while others
//! send slowly, hold connections, or flood.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::config::{RateLimit, RateLimitBy, RateLimitCounts};
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::{
    AUDIENCE, Client, Process, Protocol, Raw, World, bearer, code, connect, eventually, soon, whole,
};

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
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.get("/api/engine").await.status(), 200);
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

/// A gateway in a process of its own, with its admin listener, so that its peers' work is not its own.
struct Apart {
    engine: Engine,
    issuer: Issuer,
    gateway: Process,
    /// Of a good caller.
    token: String,
}

impl Apart {
    /// `more` are environment variables without `BPMGATE__`.
    async fn start(more: &[(&str, &str)]) -> Self {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let usual = [
            ("SERVER__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("ENGINE__URL", &engine.url()),
            // So that it sees the clients' requests alone.
            ("ENGINE__HEALTH__INTERVAL", "0s"),
            ("ACCESS__DEFAULT", "transparent"),
            ("INITIATOR__MODEL_INITIATOR", "false"),
            ("ISSUERS__0__ISSUER", &issuer.url()),
            ("ISSUERS__0__JWKS_URL", &issuer.jwks_url()),
            ("ISSUERS__0__AUDIENCE", AUDIENCE),
        ];
        let names = usual.iter().chain(more);
        let environment: Vec<_> = names
            .map(|(name, value)| (format!("BPMGATE__{name}"), *value))
            .collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let apart = Self {
            gateway: Process::with_environment(&environment).await,
            token: bearer(&issuer, "good", "good@example.org", "Good"),
            engine,
            issuer,
        };
        // The keys come in the background.
        soon("the first answer", async {
            while apart.status(&apart.token).await != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        apart
    }

    async fn status(&self, token: &str) -> u16 {
        let client = Client::connect(self.gateway.address, Protocol::Http1).await;
        let request = Request::get("/api/engine").header(AUTHORIZATION, token);
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        whole(answer.unwrap()).await.unwrap().status().as_u16()
    }

    /// The operator's word, as text.
    async fn admin(&self, path: &str) -> String {
        let client = Client::connect(self.gateway.admin.unwrap(), Protocol::Http1).await;
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }

    async fn metric(&self, series: &str) -> u64 {
        let text = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Waits until a metric is so high.
    async fn until(&self, series: &str, least: u64) {
        soon(series, async {
            while self.metric(series).await < least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
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

/// How many requests of the good caller are served in [`WINDOW`]; each must be.
async fn served(world: &Apart) -> usize {
    let ends = tokio::time::Instant::now() + WINDOW;
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (address, token) = (world.gateway.address, world.token.clone());
        callers.spawn(async move {
            let client = Client::connect(address, Protocol::Http1).await;
            let mut served = 0;
            while tokio::time::Instant::now() < ends {
                let request = Request::get("/api/engine").header(AUTHORIZATION, &token);
                let answer = client.send(request.body(Body::empty()).unwrap()).await;
                let answer = whole(answer.unwrap()).await.unwrap();
                assert_eq!(answer.status(), 200, "{:?}", answer.body());
                served += 1;
            }
            served
        });
    }
    soon("the good callers", callers.join_all())
        .await
        .iter()
        .sum()
}

const WINDOW: Duration = Duration::from_secs(2);

/// Good callers are served while the others are at it. The machine has few cores and the others have theirs of it too, so a
/// small part of what it is without them is enough; each request is served at any rate.
fn assert_served(what: &str, quiet: usize, meanwhile: usize) {
    assert!(
        meanwhile > 20 && meanwhile * 20 > quiet,
        "{what}: {quiet} without, {meanwhile} with"
    );
}

/// A body, or a head, that comes byte by byte, until it is refused or closed.
async fn send_slowly(address: SocketAddr, begins: String) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(begins.as_bytes()).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_callers_are_served_while_200_others_send_slowly() {
    let world = Apart::start(&[]).await;
    let quiet = served(&world).await;
    let slow = bearer(&world.issuer, "slow", "slow@example.org", "Slow");
    let mut others = JoinSet::new();
    for number in 0..200 {
        let begins = match number % 4 {
            0 => format!("GET /api/task HTTP/1.1\r\nHost: g\r\nAuthorization: {slow}\r\nX-Long: "),
            // A start is read before it is sent, anything else streams to the engine.
            1 => format!(
                "POST {START} HTTP/1.1\r\nHost: g\r\nAuthorization: {slow}\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{\""
            ),
            _ => format!(
                "POST /api/task/x/comment/create HTTP/1.1\r\nHost: g\r\nAuthorization: {slow}\r\nContent-Length: 100000\r\n\r\n{{"
            ),
        };
        others.spawn(send_slowly(world.gateway.address, begins));
    }
    // As many as one caller may have; the rest is refused, or has not come to its end.
    world.until("bpmgate_requests_in_flight", 50).await;
    let meanwhile = served(&world).await;
    assert!(world.metric("bpmgate_requests_in_flight").await >= 50);
    assert_served("200 slow senders", quiet, meanwhile);
    assert_eq!(
        world.status(&slow).await,
        429,
        "the slow one has no place left"
    );
    others.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_callers_are_served_while_2000_connections_are_idle() {
    let world = Apart::start(&[]).await;
    let quiet = served(&world).await;
    let mut idle = Vec::new();
    for _ in 0..2000 {
        idle.push(connect(world.gateway.address).await);
    }
    let meanwhile = served(&world).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", world.gateway.id())).unwrap();
    assert!(open.count() > 2000, "they are open");
    assert_served("2000 idle connections", quiet, meanwhile);
}

/// Many shells give a process 1024 open files; idle connections would take them all.
#[tokio::test]
async fn the_gateway_takes_as_many_open_files_as_it_may_have() {
    let directory = tempfile::tempdir().unwrap();
    let command = "ulimit -Sn 300 && ulimit -Hn 900 && exec \"$0\" serve";
    let gateway = tokio::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_bpmgate")])
        .env_clear()
        .env("BPMGATE__SERVER__LISTEN", "127.0.0.1:0")
        .env("BPMGATE__ADMIN__LISTEN", "")
        .env("CLERK_JWKS_URL", "http://127.0.0.1:9/.well-known/jwks.json")
        .current_dir(directory.path())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", gateway.id().unwrap());
    eventually("the raised limit", || {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix("Max open files"));
        let numbers: Vec<_> = line.unwrap().split_whitespace().collect();
        numbers[..2] == ["900", "900"]
    })
    .await;
}

#[tokio::test]
async fn too_few_open_files_for_clients_and_engine_together_are_warned_of() {
    for (connections, in_flight, long_polls, is_warned) in [
        ("400", "300", "199", false),
        ("400", "300", "200", true),
        ("899", "1", "1", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let command = "ulimit -n 900 && exec \"$0\" serve";
        let mut gateway = tokio::process::Command::new("sh")
            .args(["-c", command, env!("CARGO_BIN_EXE_bpmgate")])
            .env_clear()
            .env("BPMGATE__SERVER__LISTEN", "127.0.0.1:0")
            .env("BPMGATE__ADMIN__LISTEN", "")
            .env("BPMGATE__SERVER__LIMITS__CONNECTIONS", connections)
            .env("BPMGATE__SERVER__LIMITS__REQUESTS_IN_FLIGHT", in_flight)
            .env("BPMGATE__SERVER__LIMITS__LONG_POLLS", long_polls)
            .env("CLERK_JWKS_URL", "http://127.0.0.1:9/.well-known/jwks.json")
            .current_dir(directory.path())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
        let mut warned = false;
        loop {
            let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
            warned |= line.contains("fewer open files are allowed");
            if line.contains("listening") {
                break;
            }
        }
        assert_eq!(warned, is_warned, "{connections} {in_flight} {long_polls}");
    }
}

/// Bad tokens, each of a signature of its own, as fast as they go; what came of them is counted by status.
struct Flood {
    unauthorized: AtomicUsize,
    refused: AtomicUsize,
    stop: AtomicBool,
}

impl Flood {
    async fn pour(&self, address: SocketAddr, token: &str, first: usize) {
        let client = Client::connect(address, Protocol::Http1).await;
        let (unsigned, signature) = token.rsplit_once('.').unwrap();
        let signature = &signature[8..];
        for number in (first..).step_by(8) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let bad = format!("{unsigned}.{number:08}{signature}");
            let request = Request::get("/api/engine").header(AUTHORIZATION, bad);
            let answer = client.send(request.body(Body::empty()).unwrap()).await;
            let answer = whole(answer.unwrap()).await.unwrap();
            match answer.status().as_u16() {
                401 => self.unauthorized.fetch_add(1, Ordering::Relaxed),
                429 => self.refused.fetch_add(1, Ordering::Relaxed),
                other => panic!("{other}"),
            };
        }
    }
}

/// How many good requests are served with and without the flood, and how often it was answered 401 and 429.
async fn flooded(world: &Apart) -> (usize, usize, usize, usize) {
    let quiet = served(world).await;
    let flood = Arc::new(Flood {
        unauthorized: AtomicUsize::default(),
        refused: AtomicUsize::default(),
        stop: AtomicBool::default(),
    });
    let mallory = bearer(&world.issuer, "mallory", "m@example.org", "Mallory");
    let mut pouring = JoinSet::new();
    for first in 0..8 {
        let (flood, mallory, address) = (flood.clone(), mallory.clone(), world.gateway.address);
        pouring.spawn(async move { flood.pour(address, &mallory, first).await });
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    eventually("the flood", || count(&flood.unauthorized) > 0).await;
    let meanwhile = served(world).await;
    flood.stop.store(true, Ordering::Relaxed);
    soon("the flood's end", pouring.join_all()).await;
    let counts = (count(&flood.unauthorized), count(&flood.refused));
    (quiet, meanwhile, counts.0, counts.1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_callers_are_served_in_a_flood_of_bad_tokens() {
    let world = Apart::start(&[]).await;
    let (quiet, meanwhile, unauthorized, refused) = flooded(&world).await;
    assert_served("a flood of bad tokens", quiet, meanwhile);
    assert!(unauthorized > 50, "{unauthorized} are no flood");
    assert_eq!(refused, 0);
    assert_eq!(
        world.engine.requests_to("/engine-rest/engine"),
        world.engine.request_count()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_cost_no_more_signature_checks_than_a_limit_allows_and_known_ones_pass() {
    let world = Apart::start(&[
        ("RATE_LIMITS__0__NAME", "new-tokens"),
        ("RATE_LIMITS__0__BY", "client"),
        ("RATE_LIMITS__0__COUNTS", "new_tokens"),
        ("RATE_LIMITS__0__REQUESTS", "20"),
        ("RATE_LIMITS__0__PER", "1h"),
    ])
    .await;
    // All come from one address; the good caller's token was verified before the flood.
    let (quiet, meanwhile, unauthorized, refused) = flooded(&world).await;
    assert_served("a flood of bad tokens and a limit", quiet, meanwhile);
    assert!((1..=20).contains(&unauthorized), "{unauthorized}");
    assert!(refused > 50, "{refused} are no flood");
    let series = "bpmgate_rate_limited_total{limit=\"new-tokens\"}";
    assert_eq!(world.metric(series).await, refused as u64);
    // Another good token has to wait, as nobody knows yet that it is one.
    let other = bearer(&world.issuer, "other", "o@example.org", "Other");
    assert_eq!(world.status(&other).await, 429);
    assert_eq!(world.status(&world.token).await, 200);
}
