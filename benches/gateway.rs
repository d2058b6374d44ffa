//! The gateway beside a bare forwarder, over loopback, in one run.
//!
//! ```console
//! $ cargo bench --bench gateway
//! $ cargo bench --bench gateway -- --json --rounds 20 --connections 64
//! ```
//!
//! The gateway is the program `bpmgate serve` with one worker and the defaults, its access log in a file;
//! the forwarder is `examples/bare_forwarder.rs` with one worker; the engine is a hyper server that answers
//! at once. Each is a process of its own, and this one sends the requests, on kept connections and as fast
//! as they are answered. All works take turns, so that what else the machine does hits all alike:
//! look at the ratios, and at their range, rather than at the figures.
#![expect(clippy::print_stdout, reason = "this is the report")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails ends the bench"
)]

#[path = "../examples/bare_forwarder.rs"]
#[expect(dead_code, reason = "its `main` is the example's")]
mod bare_forwarder;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bpmgate::body::BoxError;
use bpmgate::demo::engine::SAMPLE;
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)
    };
    match after("--role").map(String::as_str) {
        Some("engine") => return one_worker()?.block_on(serve_engine()),
        Some("forwarder") => {
            let engine = after("--engine").ok_or("no --engine")?;
            return one_worker()?.block_on(serve_forwarder(engine));
        }
        Some(role) => return Err(format!("no role {role}").into()),
        None => {}
    }
    // `cargo test --benches` only wants to know whether it runs.
    let measures = arguments.iter().any(|argument| argument == "--bench");
    let plan = Plan {
        rounds: match after("--rounds") {
            Some(rounds) => rounds.parse()?,
            None if measures => 10,
            None => 1,
        },
        round: Duration::from_millis(if measures { 1000 } else { 50 }),
        connections: match after("--connections") {
            Some(connections) => connections.parse()?,
            None => 16,
        },
    };
    let report = Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(compare(&plan))?;
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

struct Plan {
    rounds: usize,
    round: Duration,
    connections: usize,
}

/// What is asked for.
struct Work {
    name: &'static str,
    method: Method,
    path: &'static str,
    body: Bytes,
}

/// Who answers.
struct Contender {
    name: &'static str,
    address: SocketAddr,
    /// What `/engine-rest` is called there.
    prefix: &'static str,
    process: u32,
}

async fn compare(plan: &Plan) -> Result<Report, BoxError> {
    let issuer = Issuer::start().await?;
    let directory = tempfile::tempdir()?;
    let (_engine, engine) = started(&["--role", "engine"]).await?;
    let url = format!("http://{engine}");
    let (forwarder, forwarder_at) = started(&["--role", "forwarder", "--engine", &url]).await?;
    let (gateway, gateway_at) = start_gateway(&url, &issuer, directory.path()).await?;
    let contenders = [
        Contender {
            name: "bare forwarder",
            address: forwarder_at,
            prefix: "/engine-rest",
            process: forwarder.id().unwrap_or_default(),
        },
        Contender {
            name: "bpmgate",
            address: gateway_at,
            prefix: "/api",
            process: gateway.id().unwrap_or_default(),
        },
    ];
    let works = [
        Work {
            name: "GET, 1 KB answer, one token",
            method: Method::GET,
            path: "/task?assignee=alice",
            body: Bytes::new(),
        },
        Work {
            name: "start, 1 KB body",
            method: Method::POST,
            path: "/process-definition/key/order/start",
            body: start_body().into(),
        },
    ];
    let token = issuer.token(&json!({
        "sub": "alice", "email": "alice@example.org", "name": "Alice Example", "aud": AUDIENCE,
    }));
    let bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
    for contender in &contenders {
        check(contender, &bearer).await?;
    }

    let mut report = Report {
        connections: plan.connections,
        works: works
            .iter()
            .map(|work| {
                (
                    work.name,
                    contenders.each_ref().map(|one| (one.name, Vec::new())),
                )
            })
            .collect(),
    };
    let mut connections = Vec::new();
    for contender in &contenders {
        connections.push(connect(contender.address, plan.connections).await?);
    }
    // The first round of each warms up.
    for round in 0..=plan.rounds {
        for (work, (_, rows)) in works.iter().zip(&mut report.works) {
            for turn in 0..contenders.len() {
                // Who comes first changes, as a machine gets slower or faster in the course of time.
                let turn = (turn + round) % contenders.len();
                let contender = &contenders[turn];
                let request = work.request(contender, &bearer)?;
                let senders = std::mem::take(&mut connections[turn]);
                let (senders, measured) = load(senders, &request, plan.round, contender).await?;
                connections[turn] = senders;
                if round > 0 {
                    rows[turn].1.push(measured);
                }
            }
        }
    }
    Ok(report)
}

impl Work {
    fn request(
        &self,
        contender: &Contender,
        bearer: &HeaderValue,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(format!("{}{}", contender.prefix, self.path))
            .header(header::HOST, contender.address.to_string())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "bench")
            .header(header::AUTHORIZATION, bearer);
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(self.body.clone()))
    }
}

/// A start of 1 KB that claims to be somebody else's.
fn start_body() -> String {
    let text = "An order of seven desks and \"a chair\", to be paid in the next month.";
    let mut variables = serde_json::Map::new();
    for number in 0..9 {
        variables.insert(
            format!("line{number}"),
            json!({"value": text, "type": "String"}),
        );
    }
    variables.insert("initiator".to_owned(), json!({"value": "the-director"}));
    json!({"variables": variables}).to_string()
}

/// Makes sure that each does its own job, or the figures mean nothing.
async fn check(contender: &Contender, bearer: &HeaderValue) -> Result<(), BoxError> {
    let mut senders = connect(contender.address, 1).await?;
    let mut ask = async |method: Method, path: &str, token: Option<&HeaderValue>, body: String| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", contender.prefix))
            .header(header::HOST, contender.address.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let sender = &mut senders[0];
        sender.ready().await?;
        let (head, body) = sender
            .send_request(request.body(Full::from(body))?)
            .await?
            .into_parts();
        Ok::<_, BoxError>((head.status, body.collect().await?.to_bytes()))
    };
    let (status, body) = ask(Method::GET, "/task", Some(bearer), String::new()).await?;
    assert_eq!((status, body.len()), (StatusCode::OK, 1024));
    // This one answers what it was sent.
    let path = "/process-definition/key/echo/start";
    let (status, body) = ask(Method::POST, path, Some(bearer), start_body()).await?;
    assert_eq!(status, StatusCode::OK);
    let sent: Value = serde_json::from_slice(&body)?;
    let (initiator, refused) = match contender.name {
        "bpmgate" => ("alice", StatusCode::UNAUTHORIZED),
        _ => ("the-director", StatusCode::OK),
    };
    assert_eq!(sent["variables"]["initiator"]["value"], initiator);
    let (status, _) = ask(Method::GET, "/task", None, String::new()).await?;
    assert_eq!(status, refused);
    Ok(())
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr, connections: usize) -> Result<Vec<Sender>, BoxError> {
    let mut senders = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    Ok(senders)
}

/// Sends the request over every connection again and again until the time is over.
async fn load(
    senders: Vec<Sender>,
    request: &Request<Full<Bytes>>,
    time: Duration,
    contender: &Contender,
) -> Result<(Vec<Sender>, Measured), BoxError> {
    let before = cpu_time(contender.process);
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for mut sender in senders {
        let request = request.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begin.elapsed() < time {
                let sent = Instant::now();
                sender.ready().await?;
                let answer = sender.send_request(request.clone()).await?;
                if answer.status() != StatusCode::OK {
                    return Err(format!("answered {}", answer.status()).into());
                }
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                latencies.push(sent.elapsed());
            }
            Ok::<_, BoxError>((sender, latencies))
        });
    }
    let (mut senders, mut latencies) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let (sender, mut its) = ended??;
        senders.push(sender);
        latencies.append(&mut its);
    }
    let elapsed = begin.elapsed();
    let used = cpu_time(contender.process).zip(before);
    latencies.sort_unstable();
    let requests = f64::from(u32::try_from(latencies.len().max(1))?);
    let percentile = |percent: usize| {
        let place = latencies.len() * percent / 100;
        latencies.get(place).map_or(0.0, micros)
    };
    let measured = Measured {
        per_second: requests / elapsed.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
        cpu: used.map_or(f64::NAN, |(after, before)| {
            micros(&after.saturating_sub(before)) / requests
        }),
    };
    Ok((senders, measured))
}

fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The time that a process was on a processor, as Linux's scheduler counts it; none elsewhere.
fn cpu_time(process: u32) -> Option<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

/// One round of one work at one contender; times in microseconds.
struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

struct Report {
    connections: usize,
    works: Vec<(&'static str, [Row; 2])>,
}

/// A contender with what was measured in each round.
type Row = (&'static str, Vec<Measured>);

/// A figure of each round.
type Figure = (&'static str, fn(&Measured) -> f64);

const FIGURES: [Figure; 4] = [
    ("requests_per_second", |measured| measured.per_second),
    ("p50_us", |measured| measured.p50),
    ("p99_us", |measured| measured.p99),
    ("cpu_us_per_request", |measured| measured.cpu),
];

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for (work, rows) in &self.works {
            let rounds = rows[0].1.len();
            let _ = writeln!(
                text,
                "{work} ({} connections, {rounds} rounds)\n{:22}{:>18}{:>18}{:>18}{:>18}",
                self.connections, "", "requests/s", "p50 us", "p99 us", "CPU us/request"
            );
            for (name, measured) in rows {
                let _ = write!(text, "  {name:20}");
                for (_, figure) in FIGURES {
                    let middle = Spread::of(measured.iter().map(figure)).median;
                    let _ = write!(text, "{middle:>18.1}");
                }
                text.push('\n');
            }
            let _ = write!(text, "  {:20}", "ratio (range)");
            for (_, figure) in FIGURES {
                let Spread {
                    median,
                    least,
                    most,
                } = ratios(rows, figure);
                let shown = format!("{median:.2} ({least:.2}-{most:.2})");
                let _ = write!(text, "{shown:>18}");
            }
            text.push_str("\n\n");
        }
        text
    }

    fn json(&self) -> Value {
        let works = self.works.iter().map(|(work, rows)| {
            let mut figures = serde_json::Map::new();
            for (key, figure) in FIGURES {
                let [bare, bpmgate] = rows
                    .each_ref()
                    .map(|(_, measured)| Spread::of(measured.iter().map(figure)));
                let ratio = ratios(rows, figure).json();
                let figure =
                    json!({"bare": bare.json(), "bpmgate": bpmgate.json(), "ratio": ratio});
                figures.insert(key.to_owned(), figure);
            }
            json!({"work": work, "rounds": rows[0].1.len(), "figures": figures})
        });
        json!({"connections": self.connections, "works": works.collect::<Vec<_>>()})
    }
}

/// bpmgate's figure over the forwarder's, round by round.
fn ratios(rows: &[Row; 2], figure: fn(&Measured) -> f64) -> Spread {
    let [(_, bare), (_, bpmgate)] = rows;
    Spread::of(
        bpmgate
            .iter()
            .zip(bare)
            .map(|(ours, bare)| figure(ours) / figure(bare)),
    )
}

struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    fn json(&self) -> Value {
        json!({"median": self.median, "least": self.least, "most": self.most})
    }
}

/// Runs this program in another role; it ends with this one.
async fn started(role: &[&str]) -> Result<(Child, SocketAddr), BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let line = timeout(PATIENCE, lines.next_line()).await??;
    Ok((child, line.ok_or("a process ended at once")?.parse()?))
}

/// Runs the gateway, with the defaults but for what must be said.
async fn start_gateway(
    engine: &str,
    issuer: &Issuer,
    directory: &Path,
) -> Result<(Child, SocketAddr), BoxError> {
    let config = directory.join("config.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
         [engine]\nurl = \"{engine}/engine-rest\"\n\
         [admin]\nlisten = \"\"\n\
         [telemetry]\nlog_format = \"json\"\n\
         [[issuers]]\npreset = \"oidc\"\nissuer = \"{}\"\njwks_url = \"{}\"\naudience = [\"{AUDIENCE}\"]\n",
        issuer.url(),
        issuer.jwks_url(),
    );
    fs::write(&config, text)?;
    let log = directory.join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_bpmgate"))
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(File::create(&log)?)
        .kill_on_drop(true)
        .spawn()?;
    let address = timeout(PATIENCE, async {
        loop {
            let lines = fs::read_to_string(&log)?;
            let listening = lines
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["message"] == "listening");
            if let Some(line) = listening {
                let address = line["address"].as_str().unwrap_or_default();
                return Ok::<SocketAddr, BoxError>(address.parse()?);
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    match address.await {
        Ok(address) => Ok((child, address?)),
        Err(_) => Err(format!("the gateway does not listen: {}", fs::read_to_string(&log)?).into()),
    }
}

fn one_worker() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// Ends when the one who started this process has ended.
async fn orphaned() {
    let mut nothing = [0; 1];
    while tokio::io::stdin()
        .read(&mut nothing)
        .await
        .is_ok_and(|read| read > 0)
    {}
}

async fn serve_forwarder(engine: &str) -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::select! {
        ended = bare_forwarder::serve(listener, engine.parse()?) => ended,
        () = orphaned() => Ok(()),
    }
}

/// An engine that answers every GET with 1 KB and every POST with a process instance.
async fn serve_engine() -> Result<(), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let accepting = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    };
    tokio::select! {
        ended = accepting => ended,
        () = orphaned() => Ok(()),
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let has_account = |headers: &HeaderMap| {
        headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value == "Basic ZGVtbzpkZW1v")
    };
    let (head, body) = request.into_parts();
    let sent = body.collect().await.map(Collected::to_bytes);
    let mut answer = match sent {
        _ if !has_account(&head.headers) => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer
        }
        Ok(sent) if head.uri.path().contains("/echo/") => Response::new(Full::new(sent)),
        Ok(_) if head.method == Method::POST => Response::new(Full::from(INSTANCE)),
        // The gateway asks which variable the process model names for its initiator.
        Ok(_) if head.uri.path().ends_with("/xml") => {
            let model = json!({"id": "order:1:7", "bpmn20Xml": SAMPLE});
            Response::new(Full::from(model.to_string()))
        }
        Ok(_) if head.uri.path().contains("/process-definition/key/") => {
            Response::new(Full::from(r#"{"id":"order:1:7"}"#))
        }
        _ => Response::new(Full::from(&[b' '; 1024][..])),
    };
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}

const INSTANCE: &str = r#"{"links":[],"id":"1f2e","definitionId":"order:1:7","businessKey":null,"caseInstanceId":null,"ended":false,"suspended":false,"tenantId":null}"#;

const AUDIENCE: &str = "bench";

const PATIENCE: Duration = Duration::from_secs(30);
