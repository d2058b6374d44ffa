//! A long time under load and under faults: memory and descriptors stay flat, each start arrives once, and good callers are served.
//!
//! `SOAK` says for how many seconds; without it a few, which `cargo test` has. All at once: reads and starts over kept connections, long
//! polls, clients that go away, bad tokens, slow senders, silent connections, tokens that are replaced, an engine that ends and comes back,
//! an audit log that is renamed, and a configuration that is loaded again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::issuer::Issuer;
use bpmgate::demo::raw::RawEngine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::crowds::send_slowly;
use super::nodes::business_key;
use crate::apart::Apart;
use crate::support::{AUDIENCE, Client, Process, Protocol, Raw, bearer, eventually, soon, whole};

const START: &str = "/api/process-definition/key/approval/start";
const POLL: &str = "/api/external-task/fetchAndLock";
const LOADED: &str = "the configuration was loaded again";

/// How often each start was done, in a list that outlives the engine.
type Starts = Arc<Mutex<HashMap<String, usize>>>;

/// An engine at this address, once that is free.
async fn engine(address: SocketAddr, starts: &Starts) -> RawEngine {
    let starts = starts.clone();
    let serve = move |_, stream: TcpStream| {
        let starts = starts.clone();
        let service = service_fn(move |request| answer(starts.clone(), request));
        async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.map_err(std::io::Error::other)
        }
    };
    soon("the address", async {
        loop {
            match RawEngine::start_at(address, serve.clone()).await {
                Ok(engine) => return engine,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

async fn answer(
    starts: Starts,
    request: Request<Incoming>,
) -> hyper::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    if path.ends_with("/start") {
        let key = business_key(&String::from_utf8_lossy(&body));
        *starts.lock().unwrap().entry(key).or_default() += 1;
    } else if path.ends_with("/fetchAndLock") || path.ends_with("/slow") {
        sleep(Duration::from_millis(200)).await;
    }
    let answer = Response::builder().header("content-type", "application/json");
    let text = format!("[\"{}\"]", "x".repeat(1000));
    Ok(answer.body(Full::from(text)).unwrap())
}

/// What all who are at it share.
struct Load {
    address: SocketAddr,
    issuer: Issuer,
    /// Of good callers; each is replaced again and again.
    tokens: Mutex<Vec<String>>,
    stop: AtomicBool,
    reads: AtomicU64,
    /// The longest that a read took, in milliseconds.
    longest: AtomicU64,
    polls: AtomicU64,
    /// Each start with the status that its caller was told.
    told: Mutex<Vec<(String, u16)>>,
    gone: AtomicUsize,
    refused: AtomicU64,
    /// How often the log said that the configuration was loaded.
    loaded: AtomicUsize,
}

impl Load {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn token(&self, number: usize) -> String {
        let tokens = self.tokens.lock().unwrap();
        tokens[number % tokens.len()].clone()
    }

    async fn read(self: Arc<Self>, number: usize) {
        let client = Client::connect(self.address, Protocol::BOTH[number % 2]).await;
        let mut pace = interval(Duration::from_millis(20));
        while !self.is_over() {
            pace.tick().await;
            let began = Instant::now();
            let answer = ask(&client, Method::GET, "/api/task", &self.token(number), "").await;
            assert_eq!(answer.status(), 200, "{:?}", answer.body());
            let took = u64::try_from(began.elapsed().as_millis()).unwrap();
            self.longest.fetch_max(took, Ordering::Relaxed);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sizes that are rewritten at once, in pieces, and outside of the workers.
    async fn start(self: Arc<Self>, number: usize) {
        let client = Client::connect(self.address, Protocol::BOTH[number % 2]).await;
        let mut pace = interval(Duration::from_millis(20));
        for count in 0_usize.. {
            if self.is_over() {
                return;
            }
            pace.tick().await;
            let key = format!("key-{number}-{count}");
            let size = match count {
                count if count % 100 == 99 => 1 << 20,
                count => [100, 4 << 10, 64 << 10][count % 3],
            };
            let filling = "x".repeat(size);
            let body = format!(
                "{{\"businessKey\":\"{key}\",\"variables\":{{\"a\":{{\"value\":\"{filling}\"}}}}}}"
            );
            let token = self.token(number);
            let answer = ask(&client, Method::POST, START, &token, &body).await;
            let status = answer.status().as_u16();
            // It was on its way when the engine ended, and nobody knows whether it was done.
            assert!(matches!(status, 200 | 502), "{:?}", answer.body());
            self.told.lock().unwrap().push((key, status));
        }
    }

    async fn poll(self: Arc<Self>, number: usize) {
        let client = Client::connect(self.address, Protocol::Http1).await;
        while !self.is_over() {
            let body = r#"{"workerId":"w","maxTasks":1,"asyncResponseTimeout":200}"#;
            let answer = ask(&client, Method::POST, POLL, &self.token(number), body).await;
            assert!(
                matches!(answer.status().as_u16(), 200 | 502),
                "{:?}",
                answer.body()
            );
            self.polls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goes away: within a head, within a body, before an answer, before that of a start, and within an answer.
    async fn go_away(self: Arc<Self>, number: usize) {
        let mut pace = interval(Duration::from_millis(20));
        for count in 0_usize.. {
            if self.is_over() {
                return;
            }
            pace.tick().await;
            let token = self.token(number);
            let head = |line: &str| {
                format!(
                    "{line} HTTP/1.1\r\nHost: g\r\nAuthorization: {token}\r\nContent-Type: application/json\r\n"
                )
            };
            let key = format!("{{\"businessKey\":\"key-gone-{number}-{count}\"}}");
            let length = key.len();
            let text = match count % 5 {
                0 => "GET /api/task HT".to_owned(),
                1 => head(&format!("POST {START}")) + "Content-Length: 100\r\n\r\n{\"a",
                2 => head("GET /api/slow") + "\r\n",
                3 => {
                    head(&format!("POST {START}"))
                        + &format!("Content-Length: {length}\r\n\r\n{key}")
                }
                _ => head("GET /api/task") + "\r\n",
            };
            let mut client = Raw::connect(self.address).await;
            client.write(text).await;
            self.gone.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(u64::try_from(count % 7).unwrap() * 3)).await;
        }
    }

    async fn flood(self: Arc<Self>, number: usize) {
        let client = Client::connect(self.address, Protocol::Http1).await;
        let mut pace = interval(Duration::from_millis(10));
        for count in 0_usize.. {
            if self.is_over() {
                return;
            }
            pace.tick().await;
            let token = self.token(number);
            let (unsigned, signature) = token.rsplit_once('.').unwrap();
            let bad = format!("{unsigned}.{count:08}{}", &signature[8..]);
            let answer = ask(&client, Method::GET, "/api/task", &bad, "").await;
            assert_eq!(answer.status(), 401, "{:?}", answer.body());
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Byte by byte, until it is closed or has had enough.
    async fn be_slow(self: Arc<Self>, number: usize) {
        let token = bearer(&self.issuer, "slow", "slow@example.org", "Slow");
        while !self.is_over() {
            let head = format!("HTTP/1.1\r\nHost: g\r\nAuthorization: {token}\r\n");
            let begins = match number % 3 {
                0 => format!("GET /api/task {head}X-Long: "),
                1 => format!(
                    "POST {START} {head}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{\""
                ),
                _ => format!(
                    "POST /api/task/x/comment/create {head}Content-Length: 100000\r\n\r\n{{"
                ),
            };
            let slowly = send_slowly(self.address, begins);
            let _ = timeout(Duration::from_secs(3), slowly).await;
        }
    }

    /// Connections that say nothing until they are closed.
    async fn be_silent(self: Arc<Self>) {
        while !self.is_over() {
            let mut silent = Vec::new();
            for _ in 0..50 {
                silent.push(Raw::connect(self.address).await);
            }
            for mut silent in silent {
                assert!(silent.until_closed().await.is_empty());
            }
        }
    }

    async fn replace_tokens(self: Arc<Self>) {
        let mut pace = interval(Duration::from_millis(100));
        for count in 0_usize.. {
            if self.is_over() {
                return;
            }
            pace.tick().await;
            let token = good(&self.issuer, count);
            let mut tokens = self.tokens.lock().unwrap();
            let place = count % tokens.len();
            tokens[place] = token;
        }
    }
}

const CALLERS: usize = 8;

/// A token of one of the good callers, as it was never seen before.
fn good(issuer: &Issuer, count: usize) -> String {
    let claims = serde_json::json!({
        "sub": format!("good-{}", count % CALLERS), "aud": AUDIENCE, "jti": count.to_string(),
        "email": "good@example.org", "name": "Good",
    });
    format!("Bearer {}", issuer.token(&claims))
}

async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    token: &str,
    body: &str,
) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path);
    let mut request = request.header("authorization", token);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let body = Body::from(Bytes::from(body.to_owned()));
    let answer = client.send(request.body(body).unwrap()).await;
    whole(answer.unwrap()).await.unwrap()
}

/// What the gateway holds at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: u64,
    files: usize,
}

/// The middle one of the second and of the last quarter: the first is for caches to fill.
fn quarters<T: Ord + Copy>(samples: &[Sample], of: impl Fn(&Sample) -> T) -> (T, T) {
    let quarter = samples.len() / 4;
    let middle = |samples: &[Sample]| {
        let mut values: Vec<T> = samples.iter().map(&of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    (
        middle(&samples[quarter..2 * quarter]),
        middle(&samples[3 * quarter..]),
    )
}

fn config(issuer: &Issuer, engine: SocketAddr, round: usize) -> String {
    let (name, keys) = (issuer.url(), issuer.jwks_url());
    // A change that is none, so that a new stack takes the place of the old one.
    let in_flight = 9000 + round % 2;
    format!(
        r#"
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
access.default = "transparent"
initiator.model_initiator = false
token_cache.entries = 200
telemetry.audit_log = "audit.log"

[server.limits]
requests_in_flight = {in_flight}
header_read_timeout = "2s"
idle_connection = "3s"

[engine]
url = "http://{engine}/engine-rest"
retry = {{ attempts = 10, backoff = "20ms", budget_percent = 100, budget_floor = 1000 }}
health.interval = "1s"

[[issuers]]
issuer = "{name}"
jwks_url = "{keys}"
audience = ["{AUDIENCE}"]
jwks_refresh = "1s"
jwks_cooldown = "500ms"
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_and_faults_nothing_grows_and_nothing_is_lost() {
    let seconds = std::env::var("SOAK").map_or(15, |text| text.parse().expect("SOAK: seconds"));
    let lasts = Duration::from_secs(seconds);
    let starts = Starts::default();
    let mut running = Some(engine(([127, 0, 0, 1], 0).into(), &starts).await);
    let engine_address = running.as_ref().unwrap().address();
    let issuer = Issuer::start().await.unwrap();
    let gateway = Process::with_config(&config(&issuer, engine_address, 0)).await;
    let token = good(&issuer, 0);
    let world = Apart {
        engine: (),
        issuer: Issuer::start().await.unwrap(),
        gateway,
        token,
    };
    soon("the first answer", async {
        while world.status(&world.token).await != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let load = Arc::new(Load {
        address: world.gateway.address,
        tokens: Mutex::new((0..CALLERS).map(|count| good(&issuer, count)).collect()),
        issuer,
        stop: AtomicBool::default(),
        reads: AtomicU64::default(),
        longest: AtomicU64::default(),
        polls: AtomicU64::default(),
        told: Mutex::default(),
        gone: AtomicUsize::default(),
        refused: AtomicU64::default(),
        loaded: AtomicUsize::default(),
    });
    let quiet = Sample {
        memory: world.gateway.memory("VmRSS"),
        files: world.gateway.open_files(),
    };

    let mut all = JoinSet::new();
    for number in 0..8 {
        all.spawn(load.clone().read(number));
    }
    for number in 0..4 {
        all.spawn(load.clone().start(number));
    }
    for number in 0..2 {
        all.spawn(load.clone().poll(number));
        all.spawn(load.clone().go_away(number));
        all.spawn(load.clone().flood(number));
    }
    for number in 0..21 {
        all.spawn(load.clone().be_slow(number));
    }
    all.spawn(load.clone().be_silent());
    all.spawn(load.clone().replace_tokens());

    let mut samples = Vec::new();
    let mut warnings = HashMap::<String, usize>::new();
    let (mut restarts, mut reloads) = (0, 0);
    let began = Instant::now();
    let mut pace = interval(Duration::from_millis(100));
    while began.elapsed() < lasts {
        pace.tick().await;
        if let Some(ended) = all.try_join_next() {
            ended.unwrap();
            panic!("one of them ended");
        }
        samples.push(Sample {
            memory: world.gateway.memory("VmRSS"),
            files: world.gateway.open_files(),
        });
        read_log(&world.gateway, &load, &mut warnings);
        match samples.len() % 50 {
            20 => {
                drop(running.take());
                restarts += 1;
            }
            22 => running = Some(engine(engine_address, &starts).await),
            10 | 30 | 45 => {
                let file = world.gateway.file("config.toml");
                reloads += 1;
                std::fs::write(file, config(&load.issuer, engine_address, reloads)).unwrap();
                let log = world.gateway.file("audit.log");
                let old = world.gateway.file(&format!("audit.log.{reloads}"));
                if let Err(error) = std::fs::rename(log, old) {
                    // The one before has not been let go yet, as there was no record since.
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                }
                world.gateway.signal("HUP").await;
            }
            _ => {}
        }
    }
    if running.is_none() {
        running = Some(engine(engine_address, &starts).await);
    }
    load.stop.store(true, Ordering::Relaxed);
    soon("the end of all", all.join_all()).await;

    for gauge in [
        "bpmgate_requests_in_flight",
        "bpmgate_requests_queued",
        "bpmgate_long_polls_waiting",
    ] {
        world.is_exactly(gauge, 0).await;
    }
    let idle = running.as_ref().unwrap().open_connections();
    eventually("the end of the connections", || {
        world.gateway.open_files() <= quiet.files + idle + 5
    })
    .await;
    eventually("the loads", || {
        read_log(&world.gateway, &load, &mut warnings);
        load.loaded.load(Ordering::Relaxed) >= reloads / 2
    })
    .await;
    let end = Sample {
        memory: world.gateway.memory("VmRSS"),
        files: world.gateway.open_files(),
    };
    let highest = world.gateway.memory("VmHWM");
    let mut world = world;
    world.gateway.signal("TERM").await;
    assert_eq!(world.gateway.ended().await, Some(0));

    let told = load.told.lock().unwrap();
    let starts = starts.lock().unwrap();
    let unknown = told.iter().filter(|(_, status)| *status != 200).count();
    let (memory, files) = (
        quarters(&samples, |sample| sample.memory),
        quarters(&samples, |sample| sample.files),
    );
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "soak of {seconds} s: {} reads (the longest {} ms), {} starts ({unknown} of unknown end), {} polls, {} clients gone, {} bad tokens, \
         {restarts} restarts of the engine, {reloads} reloads\n\
         memory: {} MiB before, {} MiB in the second quarter, {} MiB in the last, {} MiB at the highest, {} MiB after\n\
         files: {} before, {} in the second quarter, {} in the last, {} after\nwarnings: {warnings:?}",
        of(&load.reads),
        of(&load.longest),
        told.len(),
        of(&load.polls),
        load.gone.load(Ordering::Relaxed),
        of(&load.refused),
        mib(quiet.memory),
        mib(memory.0),
        mib(memory.1),
        mib(highest),
        mib(end.memory),
        quiet.files,
        files.0,
        files.1,
        end.files,
    );

    assert!(of(&load.reads) > 20 * seconds, "good callers are served");
    assert!(of(&load.longest) < 10_000, "none waits for long");
    assert!(told.len() as u64 > 10 * seconds);
    assert!(
        unknown <= 4 * restarts,
        "{unknown} starts of unknown end: more than were on their way"
    );
    let records = records(world.gateway.file("audit.log").parent().unwrap());
    assert_none_is_lost(&told, &starts, &records);

    // The longer it is, the less may be left of what fills at first.
    let (share, more) = if seconds < 120 {
        (10, 8 << 20)
    } else {
        (20, 4 << 20)
    };
    assert!(
        memory.1 <= memory.0 + memory.0 / share + more,
        "memory grew: {memory:?}"
    );
    assert!(files.1 <= files.0 + files.0 / 10 + 10, "files: {files:?}");
}

/// Each start that was told to be done was done once, none twice, and each stands once in the audit log.
fn assert_none_is_lost(
    told: &[(String, u16)],
    starts: &HashMap<String, usize>,
    records: &HashMap<String, Vec<String>>,
) {
    for (key, status) in told {
        let (times, outcome) = match status {
            200 => (Some(&1), "forwarded"),
            // It may have been done, and not twice, as none was.
            _ => (starts.get(key), "failed"),
        };
        assert_eq!(starts.get(key), times, "{key}");
        let found = records.get(key).map(Vec::as_slice);
        assert_eq!(found, Some(&[outcome.to_owned()][..]), "{key}");
    }
    for (key, times) in starts {
        assert_eq!(*times, 1, "{key} was done twice");
    }
}

/// Takes what the gateway has logged since the last time. Nobody has to act on anything of it.
fn read_log(gateway: &Process, load: &Load, warnings: &mut HashMap<String, usize>) {
    let mut log = gateway.log.lock().unwrap();
    for line in log.lines() {
        assert!(!line.contains(" ERROR "), "{line}");
        if line.contains(LOADED) {
            load.loaded.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((_, warning)) = line.split_once(" WARN ") {
            let message = warning.split('=').next().unwrap_or(warning);
            *warnings.entry(message.to_owned()).or_default() += 1;
        }
    }
    log.clear();
}

/// The outcomes of each start, out of all files of the audit log.
fn records(directory: &Path) -> HashMap<String, Vec<String>> {
    let mut outcomes = HashMap::<String, Vec<String>>::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("audit.log") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect(line);
            if let Some(key) = record["business_key"].as_str() {
                let outcome = record["outcome"].as_str().unwrap().to_owned();
                outcomes.entry(key.to_owned()).or_default().push(outcome);
            }
        }
    }
    outcomes
}
