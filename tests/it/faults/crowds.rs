//! Good callers are served while others send slowly, hold connections, or flood.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bpmgate::body::Body;
use http::Request;
use http::header::AUTHORIZATION;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::apart::Apart;
use crate::support::{Client, Protocol, bearer, connect, eventually, soon, whole};

const START: &str = "/api/process-definition/key/approval/start";

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
pub(super) async fn send_slowly(address: SocketAddr, begins: String) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(begins.as_bytes()).await?;
    // Its pace is what it is about: it waits for nothing.
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
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
    assert!(world.gateway.open_files() > 2000, "they are open");
    assert_served("2000 idle connections", quiet, meanwhile);
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
