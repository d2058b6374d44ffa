//! The operator's own listener.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    AUDIENCE, Client, Process, Protocol, Raw, alice, code, eventually, soon, whole,
};

/// A gateway with an admin listener, an engine and an issuer.
struct Watched {
    engine: Engine,
    issuer: Issuer,
    gateway: Process,
    admin: SocketAddr,
    token: String,
}

impl Watched {
    async fn start() -> Self {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let gateway = start(&issuer.url(), &issuer.jwks_url(), &engine.url()).await;
        Self {
            admin: gateway.admin.unwrap(),
            token: alice(&issuer),
            engine,
            issuer,
            gateway,
        }
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        send(self.admin, Method::GET, path).await
    }

    async fn status(&self) -> Value {
        serde_json::from_slice(self.get("/status").await.body()).unwrap()
    }
}

async fn start(issuer: &str, jwks_url: &str, engine: &str) -> Process {
    Process::with_environment(&[
        ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
        ("BPMGATE__ADMIN__LISTEN", "127.0.0.1:0"),
        ("BPMGATE__ENGINE__URL", engine),
        ("BPMGATE__ENGINE__RETRY__ATTEMPTS", "0"),
        ("BPMGATE__ACCESS__DEFAULT", "transparent"),
        ("BPMGATE__INITIATOR__MODEL_INITIATOR", "false"),
        ("BPMGATE__ISSUERS__0__ISSUER", issuer),
        ("BPMGATE__ISSUERS__0__JWKS_URL", jwks_url),
        ("BPMGATE__ISSUERS__0__AUDIENCE", AUDIENCE),
    ])
    .await
}

async fn send(address: SocketAddr, method: Method, path: &str) -> Response<Bytes> {
    let client = Client::connect(address, Protocol::Http1).await;
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    whole(client.send(request).await.unwrap()).await.unwrap()
}

fn shape(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

/// Asks until the gateway is ready: the keys come in the background.
async fn ready(admin: SocketAddr) -> Value {
    soon("readiness", async {
        loop {
            let answer = send(admin, Method::GET, "/readyz").await;
            if answer.status() == 200 {
                return shape(&answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn it_lives_and_is_ready_and_answers_get_and_head_of_its_paths_alone() {
    let world = Watched::start().await;
    let alive = world.get("/livez").await;
    assert_eq!(
        (alive.status().as_u16(), &alive.body()[..]),
        (200, &b"ok\n"[..])
    );
    assert_eq!(
        ready(world.admin).await,
        json!({"ready": true, "draining": false, "engine_reachable": true, "engine_nodes_down": [], "issuers_without_keys": []})
    );
    let head = send(world.admin, Method::HEAD, "/livez").await;
    assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
    for (method, path, status, want) in [
        (Method::POST, "/livez", 405, "method_not_allowed"),
        (Method::DELETE, "/status", 405, "method_not_allowed"),
        (Method::GET, "/", 404, "not_found"),
        (Method::GET, "/health", 404, "not_found"),
        (Method::GET, "/api/task", 404, "not_found"),
    ] {
        let answer = send(world.admin, method, path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(code(answer.body()), want, "{path}");
    }
}

#[tokio::test]
async fn nothing_of_it_is_reachable_on_the_public_address() {
    let world = Watched::start().await;
    for path in ["/livez", "/readyz", "/status", "/metrics"] {
        let client = Client::connect(world.gateway.address, Protocol::Http1).await;
        let request = Request::get(path).header("authorization", &world.token);
        let request = request.body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(code(answer.body()), "not_found", "{path}");
    }
}

#[tokio::test]
async fn what_is_missing_for_readiness_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let engine = format!("{gone}/engine-rest");
    let gateway = start("https://id.example", &format!("{gone}/jwks"), &engine).await;
    let answer = send(gateway.admin.unwrap(), Method::GET, "/readyz").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(
        shape(&answer),
        json!({
            "ready": false, "draining": false, "engine_reachable": false,
            "engine_nodes_down": [gone.strip_prefix("http://")],
            "issuers_without_keys": ["https://id.example"],
        })
    );
}

#[tokio::test]
async fn the_engine_is_asked_once_for_health_and_readiness() {
    // However long this machine takes: far fewer questions than answers, and never more than one a second.
    let began = Instant::now();
    let world = Watched::start().await;
    for _ in 0..20 {
        send(world.gateway.address, Method::GET, "/health").await;
        world.get("/readyz").await;
    }
    let asked = world.engine.requests_to("/engine-rest/version") as u64;
    assert!(
        (1..=began.elapsed().as_secs() + 1).contains(&asked),
        "{asked}"
    );
}

#[tokio::test]
async fn a_question_to_the_engine_outlives_who_asks_and_leaves() {
    let engine = Engine::start().await.unwrap();
    let version = "/engine-rest/version";
    engine.script(version, Script::Gate(Box::new(Script::Echo)));
    let issuer = Issuer::start().await.unwrap();
    let gateway = Process::start(&issuer, &engine.url(), "server.workers = 1").await;
    let began = Instant::now();
    for left in 1..=10 {
        let mut client = Raw::connect(gateway.address).await;
        client
            .write("GET /health HTTP/1.1\r\nHost: g.example\r\n\r\n")
            .await;
        eventually("the question", || engine.requests_to(version) > 0).await;
        // One thread serves all: what it answers later has come later.
        for _ in 0..10 {
            send(gateway.address, Method::GET, "/nothing").await;
        }
        drop(client);
        eventually("the end of the request", || {
            gateway.logged("route=\"/health\"") == left
        })
        .await;
    }
    // One ends, and another one may begin, when the engine has not answered for two seconds.
    let asked = engine.requests_to(version) as u64;
    assert!(asked <= began.elapsed().as_secs() / 2 + 1, "{asked}");
}

#[tokio::test]
async fn the_status_shows_configuration_and_keys_and_no_secret() {
    let world = Watched::start().await;
    ready(world.admin).await;
    let status = world.status().await;
    assert_eq!(status["versions"]["bpmgate"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["config"]["engine"]["credentials"]["password"], "***");
    assert_eq!(status["config"]["admin"]["listen"], "127.0.0.1:0");
    assert_eq!(status["engine_reachable"], true);
    let issuer = &status["issuers"][0];
    assert_eq!(issuer["issuer"], world.issuer.url());
    assert_eq!(issuer["keys"], issuer["key_ids"].as_array().unwrap().len());
    assert_ne!(issuer["keys"], 0);
    assert!(
        issuer["age_seconds"].is_u64() && issuer["failures"] == 0,
        "{issuer}"
    );
    assert_eq!(
        status["config"]["engine"]["credentials"]["username"],
        "demo"
    );
}

#[tokio::test]
async fn the_status_names_the_engines_product_and_keys_of_every_kind_and_no_secret() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let engine = Engine::start().await.unwrap();
    let product = r#"{"installation":"x","product":{"name":"Operaton BPM Runtime"}}"#;
    let product = Script::status(http::StatusCode::OK, product);
    engine.script("/engine-rest/telemetry/data", product);
    let issuer = Issuer::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys.json");
    std::fs::write(&keys, issuer.jwks().to_string()).unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let table = |name: &str, more: &str| {
        format!("[[issuers]]\nissuer = \"https://{name}.example\"\naudience = [\"a\"]\n{more}\n")
    };
    let gateway = Process::with_config(&format!(
        "shared_ids = true\nserver.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nengine.url = \"{}\"\n{}{}{}",
        engine.url(),
        table("file", &format!("public_key_file = {keys:?}")),
        table("secret", &format!("algorithms = [\"HS256\"]\nhs_secret = \"{SECRET}\"")),
        table("hidden", &format!("algorithms = [\"HS256\"]\nhs_secret_file = {secret:?}")),
    ))
    .await;
    let admin = gateway.admin.unwrap();
    ready(admin).await;
    let status = soon("the product", async {
        loop {
            let answer = send(admin, Method::GET, "/status").await;
            let status = shape(&answer);
            if status["engine_nodes"][0]["product"] == "Operaton BPM Runtime" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let file = &status["issuers"][0];
    assert_eq!(file["issuer"], "https://file.example");
    assert_eq!(file["keys"], file["key_ids"].as_array().unwrap().len());
    assert!(file["age_seconds"].is_u64(), "{file}");
    assert_eq!(status["issuers"][1]["keys"], 1);
    assert_eq!(status["config"]["issuers"][1]["hs_secret"], "***");
    assert_eq!(status["config"]["issuers"][2]["hs_secret"], "***");
    assert!(!status.to_string().contains(SECRET), "{status}");
}

#[tokio::test]
async fn it_says_that_it_drains_until_the_last_request_is_done() {
    let mut world = Watched::start().await;
    ready(world.admin).await;
    world
        .engine
        .script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
    let client = Client::connect(world.gateway.address, Protocol::Http1).await;
    let request = Request::get("/api/slow").header("authorization", &world.token);
    let request = request.body(Body::empty()).unwrap();
    let slow = tokio::spawn(async move { client.send(request).await.unwrap().status() });
    let engine = &world.engine;
    eventually("the request", || {
        engine.requests_to("/engine-rest/slow") == 1
    })
    .await;
    world.gateway.signal("TERM").await;
    soon("the end of accepting", async {
        while TcpStream::connect(world.gateway.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = world.get("/readyz").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(shape(&answer)["draining"], true);
    assert_eq!(world.get("/livez").await.status(), 200);
    world.engine.release(1);
    assert_eq!(soon("the answer", slow).await.unwrap(), 200);
    assert_eq!(world.gateway.ended().await, Some(0));
}

/// The value of a series, as a scraper sees it.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line?.trim().parse().ok()
}

#[tokio::test]
async fn requests_are_counted_by_what_they_are_and_how_they_ended() {
    let world = Watched::start().await;
    ready(world.admin).await;
    let client = Client::connect(world.gateway.address, Protocol::Http1).await;
    let ask = async |method: Method, path: &str, token: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("authorization", token)
            .header("content-type", "application/json");
        let body = Body::from(Bytes::from_static(body.as_bytes()));
        whole(client.send(request.body(body).unwrap()).await.unwrap())
            .await
            .unwrap()
            .status()
    };
    let start = "/api/process-definition/key/approval/start";
    for _ in 0..2 {
        assert_eq!(ask(Method::POST, start, &world.token, "{}").await, 200);
    }
    assert_eq!(ask(Method::GET, "/api/task", "Bearer x.y.z", "").await, 401);
    assert_eq!(ask(Method::GET, "/health", "", "").await, 200);
    assert_eq!(ask(Method::GET, "/nowhere/secret", "", "").await, 404);

    let answer = world.get("/metrics").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    let issuer = world.issuer.url();
    let requests = |labels: &str| format!("bpmgate_requests_total{{{labels}}}");
    for (series, want) in [
        (
            requests(
                r#"operation="startProcessInstanceByKey",group="Process Definition",method="POST",status="2xx",outcome="forwarded""#,
            ),
            2.0,
        ),
        (
            requests(r#"operation="-",group="-",method="GET",status="4xx",outcome="unauthorized""#),
            1.0,
        ),
        (
            requests(r#"operation="-",group="-",method="GET",status="4xx",outcome="rejected""#),
            1.0,
        ),
        (
            requests(
                r#"operation="/health",group="gateway",method="GET",status="2xx",outcome="forwarded""#,
            ),
            1.0,
        ),
        ("bpmgate_requests_in_flight".to_owned(), 0.0),
        ("bpmgate_starts_total".to_owned(), 2.0),
        ("bpmgate_completions_total".to_owned(), 0.0),
        ("bpmgate_rewritten_bodies_total".to_owned(), 2.0),
        ("bpmgate_request_body_bytes_total".to_owned(), 4.0),
        ("bpmgate_long_polls_waiting".to_owned(), 0.0),
        (
            r#"bpmgate_token_cache_lookups_total{result="hit"}"#.to_owned(),
            1.0,
        ),
        (
            r#"bpmgate_request_duration_seconds_count{kind="whole"}"#.to_owned(),
            5.0,
        ),
        (
            r#"bpmgate_request_duration_seconds_count{kind="engine"}"#.to_owned(),
            2.0,
        ),
        (
            format!(r#"bpmgate_jwks_refreshes_total{{issuer="{issuer}",result="failure"}}"#),
            0.0,
        ),
    ] {
        assert_eq!(value(&text, &series), Some(want), "{series}\n{text}");
    }
    assert!(
        value(&text, "process_resident_memory_bytes") > Some(1e6),
        "{text}"
    );
    assert!(!text.contains("secret"));
}

#[tokio::test]
async fn a_slow_engine_and_a_slow_client_are_not_the_gateways_own_time() {
    const SLOW: Duration = Duration::from_millis(500);
    let world = Watched::start().await;
    ready(world.admin).await;
    let start = "/engine-rest/process-definition/key/approval/start";
    let delay = Script::Delay(SLOW, Box::new(Script::Echo));
    world.engine.script(start, delay);
    let mut client = Raw::connect(world.gateway.address).await;
    let head = format!(
        "POST {start} HTTP/1.1\r\nHost: gate\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{",
        world.token
    );
    client.write(head).await;
    // The slowness itself: the body's end is late.
    tokio::time::sleep(SLOW).await;
    assert_eq!(client.ask("}").await.status, 200);
    let text = String::from_utf8(world.get("/metrics").await.body().to_vec()).unwrap();
    let sum = |kind: &str| {
        let series = format!(r#"bpmgate_request_duration_seconds_sum{{kind="{kind}"}}"#);
        value(&text, &series).unwrap()
    };
    let slow = SLOW.as_secs_f64();
    assert!(sum("engine") >= slow, "{text}");
    assert!(sum("whole") >= 2.0 * slow, "{text}");
    assert!(sum("gateway") > 0.0 && sum("gateway") < slow, "{text}");
    let bucket = r#"bpmgate_request_duration_seconds_bucket{kind="gateway",le="5e-05"}"#;
    assert!(text.contains(bucket), "{text}");
}

#[tokio::test]
async fn a_long_poll_that_waits_and_a_client_that_goes_away_are_counted() {
    let world = Watched::start().await;
    ready(world.admin).await;
    let gate = || Script::Gate(Box::new(Script::Echo));
    world
        .engine
        .script("/engine-rest/external-task/fetchAndLock", gate());
    let client = Client::connect(world.gateway.address, Protocol::Http1).await;
    let request = Request::post("/api/external-task/fetchAndLock")
        .header("authorization", &world.token)
        .header("content-type", "application/json");
    let body = Body::from(Bytes::from_static(b"{\"workerId\":\"w\",\"maxTasks\":1}"));
    let request = request.body(body).unwrap();
    let poll = tokio::spawn(async move { client.send(request).await.map(drop) });
    let until = async |series: &str, want: f64| {
        soon(series, async {
            loop {
                let answer = world.get("/metrics").await;
                let text = String::from_utf8(answer.body().to_vec()).unwrap();
                if value(&text, series) == Some(want) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    until("bpmgate_long_polls_waiting", 1.0).await;
    until("bpmgate_requests_in_flight", 1.0).await;
    poll.abort();
    until("bpmgate_long_polls_waiting", 0.0).await;
    until(
        r#"bpmgate_requests_total{operation="fetchAndLock",group="External Task",method="POST",status="none",outcome="aborted"}"#,
        1.0,
    )
    .await;
}

#[tokio::test]
async fn open_metrics_is_to_be_had_too() {
    let world = Watched::start().await;
    let client = Client::connect(world.admin, Protocol::Http1).await;
    let request = Request::get("/metrics").header("accept", "application/openmetrics-text");
    let request = request.body(Body::empty()).unwrap();
    let answer = whole(client.send(request).await.unwrap()).await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(answer.body().ends_with(b"# EOF\n"));
}

/// Runs `bpmgate health` with this `admin.listen`.
async fn health(listen: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpmgate"));
    let jwks = "https://clerk.example.com/.well-known/jwks.json";
    command
        .arg("health")
        .env_clear()
        .current_dir(directory.path());
    command.envs([("CLERK_JWKS_URL", jwks), ("BPMGATE__ADMIN__LISTEN", listen)]);
    let mut command = tokio::process::Command::from(command);
    let output = soon("its end", command.kill_on_drop(true).output())
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn health_is_0_for_a_gateway_that_lives_and_else_1() {
    let mut world = Watched::start().await;
    let listen = world.admin.to_string();
    assert_eq!(health(&listen).await, (Some(0), String::new()));
    // A public address has no `/livez`.
    let (code, told) = health(&world.gateway.address.to_string()).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.ends_with("/livez: answered 404 Not Found\n"), "{told}");
    world.gateway.signal("KILL").await;
    world.gateway.ended().await;
    for (listen, says) in [
        (listen.as_str(), "/livez: Connection refused"),
        ("", "`admin.listen` is empty"),
        ("127.0.0.1:0", "has port 0"),
        ("nonsense", "the configuration says not whom to ask"),
    ] {
        let (code, told) = health(listen).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(says), "{told}");
    }
}
