//! The configuration is loaded again: by a signal, and when a file changes; all of it or nothing, and nobody is lost.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Script, Settings};
use bpmgate::demo::issuer::{Fault, Issuer};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::support::{AUDIENCE, Client, Process, Protocol, alice, code, eventually, soon, whole};

/// An engine, two issuers, and a gateway that knows them by its file.
struct Reloaded {
    engine: Engine,
    issuers: [Issuer; 2],
    gateway: Process,
    token: String,
}

impl Reloaded {
    async fn start(more: &str) -> Self {
        Self::over(Engine::start().await.unwrap(), more).await
    }

    async fn over(engine: Engine, more: &str) -> Self {
        let issuers = [
            Issuer::start().await.unwrap(),
            Issuer::start().await.unwrap(),
        ];
        let gateway = Process::with_config(&text(&engine, &issuers, more)).await;
        Self {
            token: alice(&issuers[0]),
            gateway,
            engine,
            issuers,
        }
    }

    /// Writes the file anew, with so many of the issuers, and waits until it was noticed.
    async fn change(&self, issuers: usize, more: &str) {
        let text = text(&self.engine, &self.issuers[..issuers], more);
        self.write(&text);
        self.hang_up(LOADED).await;
    }

    fn write(&self, text: &str) {
        std::fs::write(self.gateway.file("config.toml"), text).unwrap();
    }

    /// Sends SIGHUP and waits until this stands in the log once more.
    async fn hang_up(&self, said: &str) {
        let before = self.gateway.logged(said);
        self.gateway.signal("HUP").await;
        eventually(said, || self.gateway.logged(said) > before).await;
    }

    async fn client(&self, protocol: Protocol) -> Client {
        Client::connect(self.gateway.address, protocol).await
    }

    async fn status(&self) -> Value {
        let answer = ask(self.gateway.admin.unwrap(), "/status").await;
        serde_json::from_slice(answer.body()).unwrap()
    }
}

const LOADED: &str = "the configuration was loaded again";
const KEPT: &str = "the configuration cannot be loaded again";

/// `more` comes first: keys of the root, then tables.
fn text(engine: &Engine, issuers: &[Issuer], more: &str) -> String {
    let mut text = format!(
        "engine.url = \"{}\"\nserver.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\ninitiator.model_initiator = false\nshared_ids = true\n{more}\n",
        engine.url()
    );
    if !more.contains("access.") {
        text.insert_str(0, "access.default = \"transparent\"\n");
    }
    // The engine is to see nothing but the test's requests.
    if !more.contains("engine.health.") {
        text.insert_str(0, "engine.health.interval = \"0s\"\n");
    }
    for issuer in issuers {
        let (name, keys) = (issuer.url(), issuer.jwks_url());
        let table = format!("issuer = \"{name}\"\njwks_url = \"{keys}\"");
        text = format!("{text}[[issuers]]\n{table}\naudience = [\"{AUDIENCE}\"]\n");
    }
    text
}

async fn ask(address: SocketAddr, path: &str) -> Response<Bytes> {
    let client = Client::connect(address, Protocol::Http1).await;
    let request = Request::get(path).body(Body::empty()).unwrap();
    whole(client.send(request).await.unwrap()).await.unwrap()
}

async fn get(client: &Client, token: &str, path: &str) -> Response<Bytes> {
    let request = Request::get(path).header("authorization", token);
    let request = request.body(Body::empty()).unwrap();
    whole(client.send(request).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_issuer_that_is_gone_is_refused_on_connections_that_stand() {
    let world = Reloaded::start("").await;
    let token = alice(&world.issuers[1]);
    for protocol in Protocol::BOTH {
        let client = world.client(protocol).await;
        assert_eq!(get(&client, &token, "/api/task").await.status(), 200);
        world.change(1, "").await;
        // It was verified before, and is remembered no more.
        let refused = get(&client, &token, "/api/task").await;
        assert_eq!(refused.status(), 401, "{protocol:?}");
        assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
        world.change(2, "").await;
        assert_eq!(get(&client, &token, "/api/task").await.status(), 200);
    }
}

#[tokio::test]
async fn access_and_limits_that_changed_hold_for_the_next_request_of_a_connection() {
    let world = Reloaded::start("").await;
    let client = world.client(Protocol::Http1).await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    world.change(2, "access.default = \"none\"").await;
    let denied = get(&client, &world.token, "/api/task").await;
    assert_eq!(denied.status(), 403);
    assert_eq!(code(denied.body()), "access_denied");
    world
        .change(2, "server.limits.request_body = \"1KiB\"")
        .await;
    let post = |length: usize| {
        Request::post("/api/x")
            .header("authorization", &world.token)
            .body(Body::from(Bytes::from(vec![b'x'; length])))
            .unwrap()
    };
    world.engine.script("/engine-rest/x", Script::Echo);
    assert_eq!(client.send(post(1024)).await.unwrap().status(), 200);
    let client = world.client(Protocol::Http1).await;
    assert_eq!(client.send(post(1025)).await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_file_that_changed_is_noticed_without_a_signal_behind_links_too() {
    let engine = Engine::start().await.unwrap();
    let issuers = [Issuer::start().await.unwrap()];
    let directory = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a ConfigMap: config.toml → ..data/config.toml, and ..data → a directory of this version.
    let version = |name: &str, more: &str| {
        let folder = directory.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), text(&engine, &issuers, more)).unwrap();
        let link = directory.path().join("..data.new");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(link, directory.path().join("..data")).unwrap();
    };
    version("..1", "");
    std::os::unix::fs::symlink("..data/config.toml", directory.path().join("config.toml")).unwrap();
    let directory_path = directory.path().to_owned();
    let gateway = Process::serve_in(&directory_path, &[]).await;
    let (client, token) = (
        Client::connect(gateway.address, Protocol::Http1).await,
        alice(&issuers[0]),
    );
    assert_eq!(get(&client, &token, "/api/task").await.status(), 200);
    version("..2", "access.default = \"none\"");
    eventually(LOADED, || gateway.logged(LOADED) == 1).await;
    assert_eq!(get(&client, &token, "/api/task").await.status(), 403);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_bad_file_changes_nothing_and_the_log_says_file_line_and_key() {
    let world = Reloaded::start("").await;
    let client = world.client(Protocol::Http1).await;
    world.write(&text(
        &world.engine,
        &world.issuers,
        "access.default = \"none\"\nengine.uri = \"http://x\"\nengine.credentials.password = 7",
    ));
    world.hang_up(KEPT).await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    let log = world.gateway.log.lock().unwrap().clone();
    assert!(log.contains("unknown key `engine.uri`"), "{log}");
    assert!(log.contains("config.toml:8:"), "{log}");
    let status = world.status().await;
    let loads = &status["configuration"];
    assert_eq!(
        (&loads["last_failed"], &loads["failures"]),
        (&json!(true), &json!(1))
    );
    let told = loads["last_error"].as_str().unwrap();
    assert!(
        told.contains("`engine.uri`") && told.contains("config.toml:8:"),
        "{told}"
    );
    assert_eq!(status["config"]["access"]["default"], "transparent");
    // It is tried again at each look, and neither logged nor counted again. Who opens it a second time has done with the first.
    opened_twice(&world.gateway.file("config.toml")).await;
    assert_eq!(world.gateway.logged(KEPT), 1);
    let admin = world.gateway.admin.unwrap();
    let metrics = ask(admin, "/metrics").await;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    for line in [
        "bpmgate_config_reloads_total{result=\"success\"} 0",
        "bpmgate_config_reloads_total{result=\"failure\"} 1",
        "bpmgate_config_last_load_success_timestamp_seconds ",
        "bpmgate_config_last_load_successful 0",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }

    world.change(2, "access.default = \"none\"").await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 403);
    let status = world.status().await;
    assert_eq!(status["configuration"]["last_failed"], false);
    assert_eq!(status["configuration"]["last_error"], Value::Null);
    assert_eq!(status["config"]["access"]["default"], "none");
}

/// Waits until this file is opened a second time from now.
#[cfg(target_os = "linux")]
async fn opened_twice(file: &std::path::Path) {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

    let watch = init(CreateFlags::NONBLOCK).unwrap();
    add_watch(&watch, file, WatchFlags::OPEN).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut seen = Reader::new(watch, &mut buffer);
    let mut opened = 0;
    eventually("that", || {
        opened += usize::from(seen.next().is_ok());
        opened == 2
    })
    .await;
}

#[tokio::test]
async fn a_file_that_was_missing_is_found_later() {
    let world = Reloaded::start("").await;
    let more = "engine.credentials.password_file = \"secret\"";
    world.write(&text(&world.engine, &world.issuers, more));
    world.hang_up(KEPT).await;
    std::fs::write(world.gateway.file("secret"), "tiger\n").unwrap();
    eventually(LOADED, || world.gateway.logged(LOADED) == 1).await;
}

#[tokio::test]
async fn a_secret_that_changed_is_used_without_a_signal() {
    let more =
        "engine.credentials.password_file = \"secret\"\nengine.credentials.username = \"us\"";
    let engine = Engine::start().await.unwrap();
    let issuers = [Issuer::start().await.unwrap()];
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("secret", "first\n");
    write("config.toml", &text(&engine, &issuers, more));
    let gateway = Process::serve_in(directory.path(), &[]).await;
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    for (secret, basic) in [
        ("first", "Basic dXM6Zmlyc3Q="),
        ("second", "Basic dXM6c2Vjb25k"),
    ] {
        if secret == "second" {
            write("secret", "second\n");
            eventually(LOADED, || gateway.logged(LOADED) == 1).await;
        }
        engine.forget_requests();
        // The engine knows neither, and says so; what counts is what it got.
        get(&client, &alice(&issuers[0]), "/api/seen").await;
        let seen = engine.requests();
        assert_eq!(seen[0].headers["authorization"], basic);
    }
    assert_eq!(engine.connections(), 1, "the pool goes on");
    assert_eq!(gateway.logged("second"), 0);
}

#[tokio::test]
async fn a_password_that_was_put_right_makes_the_gateway_ready_at_once() {
    let settings = Settings {
        locks_account: false,
        ..Settings::default()
    };
    let engine = Engine::start_with(settings).await.unwrap();
    let world = Reloaded::over(engine, "engine.credentials.password = \"wrong\"").await;
    let admin = world.gateway.admin.unwrap();
    // Again: a wrong password is not tried twice.
    for _ in 0..2 {
        assert_eq!(ask(admin, "/readyz").await.status(), 503);
    }
    assert_eq!(world.engine.requests_to("/engine-rest/version"), 1);
    world.change(2, "").await;
    let ready = ask(admin, "/readyz").await;
    assert_eq!(ready.status(), 200, "{ready:?}");
}

#[tokio::test]
async fn a_request_in_flight_ends_under_the_configuration_that_it_began_with() {
    let world = Reloaded::start("").await;
    world
        .engine
        .script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
    for protocol in Protocol::BOTH {
        world.change(2, "").await;
        let client = Arc::new(world.client(protocol).await);
        let (slow, token) = (client.clone(), world.token.clone());
        let slow = tokio::spawn(async move { get(&slow, &token, "/api/slow").await.status() });
        world.engine.forget_requests();
        eventually("the request", || {
            world.engine.open_connections() > 0 && world.engine.request_count() > 0
        })
        .await;
        // Its issuer, its access and even its engine are gone.
        let gone = "access.default = \"none\"";
        let text = text(&world.engine, &world.issuers[1..], gone);
        world.write(&text.replace(&world.engine.url(), "http://127.0.0.1:1/engine-rest"));
        world.hang_up(LOADED).await;
        world.engine.release(1);
        assert_eq!(soon("the answer", slow).await.unwrap(), 200, "{protocol:?}");
        assert_eq!(get(&client, &world.token, "/api/task").await.status(), 401);
    }
}

#[tokio::test]
async fn many_reloads_under_load_lose_no_request() {
    let world = Reloaded::start("").await;
    let (stop, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for number in 0..8 {
        let client = world.client(Protocol::BOTH[number % 2]).await;
        let (token, stop) = (world.token.clone(), stop.clone());
        clients.spawn(async move {
            let mut answers = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let answer = get(&client, &token, "/api/task").await;
                assert_eq!(answer.status(), 200);
                answers += 1;
            }
            answers
        });
    }
    for round in 0..40 {
        let more = ["", "server.limits.requests_in_flight = 500"][round % 2];
        world.change(1 + round % 2, more).await;
    }
    stop.store(true, Ordering::Relaxed);
    for answers in soon("the clients", clients.join_all()).await {
        assert!(answers > 10, "{answers}");
    }
    assert_eq!(world.status().await["configuration"]["reloads"], 40);
    assert_eq!(world.status().await["requests_in_flight"], 0);
}

#[tokio::test]
async fn keys_outlive_a_reload_while_the_issuer_is_down() {
    let world = Reloaded::start("").await;
    let client = world.client(Protocol::Http1).await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    world.issuers[0].set_fault(Fault::Close);
    world.change(2, "access.default = \"transparent\"").await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    // Its other settings do not take its keys either.
    let text = text(&world.engine, &world.issuers, "");
    world.write(&text.replace(
        "audience",
        "jwks_stale = \"48h\"\nleeway = \"7s\"\naudience",
    ));
    world.hang_up(LOADED).await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    assert_eq!(
        world.status().await["config"]["issuers"][0]["jwks_stale"],
        "48h"
    );
}

#[tokio::test]
async fn what_needs_a_restart_is_said_and_the_rest_is_taken() {
    let world = Reloaded::start("").await;
    let more = "server.workers = 3\nserver.shutdown_grace = \"1s\"\naccess.default = \"none\"\n\
        telemetry.trace_sampling = 0.5\ntelemetry.trace_queue = 7\ntelemetry.trace_users = true";
    world.change(2, more).await;
    let log = world.gateway.log.lock().unwrap().clone();
    let keys = [
        "server.workers",
        "server.shutdown_grace",
        "telemetry.trace_sampling",
        "telemetry.trace_queue",
        "telemetry.trace_users",
    ];
    let told = format!("some changes wait for a restart keys={keys:?}");
    assert!(log.contains(&told), "{log}");
    let status = world.status().await;
    assert_eq!(status["configuration"]["needs_restart"], json!(keys));
    assert_eq!(status["config"]["server"]["workers"], 0, "in force");
    assert_eq!(status["config"]["access"]["default"], "none");
}

#[tokio::test]
async fn the_log_level_changes_while_it_runs() {
    let world = Reloaded::start("").await;
    let client = world.client(Protocol::Http1).await;
    let line = "outcome=";
    let asked = async |wanted: bool| {
        let before = world.gateway.logged(line);
        assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
        if wanted {
            eventually(line, || world.gateway.logged(line) == before + 1).await;
        } else {
            // What follows comes after it in the log.
            world.write("bad");
            world.hang_up(KEPT).await;
            assert_eq!(world.gateway.logged(line), before);
        }
    };
    asked(true).await;
    let text = |level: &str| {
        let more = format!("telemetry.log_level = \"{level}\"");
        text(&world.engine, &world.issuers, &more)
    };
    let loads = async |count: u64| {
        soon("the load", async {
            while world.status().await["configuration"]["reloads"] != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    world.write(&text("error"));
    world.gateway.signal("HUP").await;
    loads(1).await;
    asked(false).await;
    world.write(&text("debug"));
    world.gateway.signal("HUP").await;
    loads(2).await;
    assert_eq!(world.gateway.logged("answered by the gateway"), 0);
    get(&client, &world.token, "/nowhere").await;
    let line = "DEBUG answered by the gateway";
    eventually(line, || world.gateway.logged(line) == 1).await;
}

#[tokio::test]
async fn the_audit_log_goes_on_in_a_new_file_after_a_rename_and_a_signal() {
    let more = "telemetry.audit_log = \"audit.log\"";
    let world = Reloaded::start(more).await;
    let client = world.client(Protocol::Http1).await;
    let written = async |file: &str, path: &str| {
        let request = Request::delete(path).header("authorization", &world.token);
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        whole(answer.unwrap()).await.unwrap();
        let (file, text) = (world.gateway.file(file), path.rsplit('/').next().unwrap());
        eventually(path, || {
            std::fs::read_to_string(&file).is_ok_and(|lines| lines.contains(text))
        })
        .await;
    };
    let rename = |to: &str| {
        std::fs::rename(world.gateway.file("audit.log"), world.gateway.file(to)).unwrap();
    };
    written("audit.log", "/api/task/one").await;
    rename("audit.log.1");
    world.hang_up(LOADED).await;
    written("audit.log", "/api/task/two").await;
    // A bad file is no reason to keep the old one.
    rename("audit.log.2");
    world.write("bad");
    world.hang_up(KEPT).await;
    written("audit.log", "/api/task/three").await;
    let first = std::fs::read_to_string(world.gateway.file("audit.log.1")).unwrap();
    let second = std::fs::read_to_string(world.gateway.file("audit.log.2")).unwrap();
    for (lines, with) in [(first, "one"), (second, "two")] {
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains(with), "{lines}");
    }
    // Another file is taken by a reload.
    world.change(2, "telemetry.audit_log = \"other.log\"").await;
    written("other.log", "/api/task/four").await;
}

#[tokio::test]
async fn buckets_of_a_rate_limit_outlive_a_reload_that_does_not_change_it() {
    let limit = "[[rate_limits]]\nname = \"few\"\nby = \"subject\"\nrequests = 2\nper = \"1h\"";
    let world = Reloaded::start(limit).await;
    let client = world.client(Protocol::Http1).await;
    let asked = async || get(&client, &world.token, "/api/task").await.status();
    assert_eq!(asked().await, 200);
    assert_eq!(asked().await, 200);
    world
        .change(2, &format!("server.limits.queue_timeout = \"2s\"\n{limit}"))
        .await;
    assert_eq!(asked().await, 429);
    world
        .change(2, &limit.replace("requests = 2", "requests = 3"))
        .await;
    assert_eq!(asked().await, 200);
}

#[tokio::test]
async fn nodes_go_on_with_what_is_known_of_them_and_new_ones_are_looked_after() {
    let other = Engine::start().await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = gone.local_addr().unwrap();
    let world = Reloaded::start("engine.health.interval = \"1s\"").await;
    let nodes = |second: SocketAddr, more: &str| {
        let first = world.engine.address();
        format!(
            "engine.health.interval = \"1s\"\nengine.nodes = [\"http://{first}\", \"http://{second}\"]\n{more}"
        )
    };
    let checks = |engine: &Engine| engine.requests_to("/engine-rest/version");
    let failed = "engine node fails its health check";

    world.change(2, &nodes(gone, "")).await;
    eventually(failed, || world.gateway.logged(failed) == 1).await;
    let client = world.client(Protocol::Http1).await;
    assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    let before = &world.status().await["engine_nodes"];

    // The same nodes: what was found is not found anew, what was counted is not forgotten, and both are asked on.
    let denied = nodes(gone, "access.default = \"none\"");
    world.change(2, &denied).await;
    let after = &world.status().await["engine_nodes"];
    assert!(after[0]["requests"].as_u64().unwrap() >= before[0]["requests"].as_u64().unwrap());
    assert!(before[0]["requests"].as_u64().unwrap() > 0);
    assert_eq!(after[1]["up"], json!(false));
    world.engine.forget_requests();
    eventually("a check", || checks(&world.engine) > 1).await;
    assert_eq!(world.gateway.logged(failed), 1);

    // Others: they are asked though nobody wants to know, and get requests.
    assert_eq!(checks(&other), 0);
    world.change(2, &nodes(other.address(), "")).await;
    eventually("a check", || checks(&other) > 1).await;
    for _ in 0..2 {
        assert_eq!(get(&client, &world.token, "/api/task").await.status(), 200);
    }
    assert_eq!(other.requests_to("/engine-rest/task"), 1);
    assert_eq!(world.status().await["engine_nodes"][1]["up"], json!(true));
}
