//! What the machine may lack: file descriptors, room on the disk, a clock that goes on evenly.

use std::net::SocketAddr;
use std::process::Command;

use bpmgate::body::Body;
use bpmgate::demo::engine::Script;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::apart::Apart;
use crate::problem::refused;
use crate::support::{AUDIENCE, Client, Protocol, Raw, eventually, soon, whole};

const START: &str = "/api/process-definition/key/approval/start";

async fn send(address: SocketAddr, request: http::request::Builder, body: &str) -> Response<Bytes> {
    let client = Client::connect(address, Protocol::Http1).await;
    let body = Body::from(Bytes::from(body.to_owned()));
    let answer = client.send(request.body(body).unwrap()).await;
    whole(answer.unwrap()).await.unwrap()
}

fn get(token: &str) -> http::request::Builder {
    Request::get("/api/task").header(AUTHORIZATION, token)
}

fn start(token: &str) -> http::request::Builder {
    let request = Request::post(START).header(AUTHORIZATION, token);
    request.header(CONTENT_TYPE, "application/json")
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

/// Who is connected is served on; who is not waits, and loses nothing by it.
#[tokio::test]
async fn without_descriptors_who_is_connected_is_served_and_the_others_wait() {
    const FAILED: &str = "accept failed";
    let world = Apart::start(&[("ENGINE__RETRY__BACKOFF", "10ms")]).await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world.engine.script("/engine-rest/slow", gate);
    let address = world.gateway.address;
    let task = || get(&world.token).body(Body::empty()).unwrap();
    let client = Client::connect(address, Protocol::Http2).await;
    assert_eq!(client.send(task()).await.unwrap().status(), 200);
    // Its own admin listener would need one too.
    let before = world.gateway.open_files();
    let most = u64::try_from(before + 20).unwrap();
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let process = i32::try_from(world.gateway.id()).unwrap();
    prlimit(Pid::from_raw(process), Resource::Nofile, limit).unwrap();

    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(Raw::connect(address).await);
    }
    eventually(FAILED, || world.gateway.logged(FAILED) > 0).await;
    world.engine.forget_requests();
    for _ in 0..100 {
        let answer = client.send(task()).await.unwrap();
        assert_eq!(whole(answer).await.unwrap().status(), 200);
    }
    assert_eq!(world.engine.request_count(), 100);
    // A start that finds no connection to the engine is refused, and was not sent.
    let slow = Request::get("/api/slow").header(AUTHORIZATION, &world.token);
    let slow = slow.body(Body::empty()).unwrap();
    let starting = async {
        eventually("the slow request", || world.engine.request_count() == 101).await;
        let answer = client.send(start(&world.token).body(Body::empty()).unwrap());
        let answer = whole(answer.await.unwrap()).await.unwrap();
        assert_eq!(refused(&answer), (502, "engine_unreachable".to_owned()));
        assert_eq!(world.engine.request_count(), 101);
        world.engine.release(1);
    };
    let (slow, ()) = tokio::join!(client.send(slow), starting);
    assert_eq!(whole(slow.unwrap()).await.unwrap().status(), 200);
    let mut late = Raw::connect(address).await;
    let text = format!(
        "GET /api/task HTTP/1.1\r\nHost: g\r\nAuthorization: {}\r\n\r\n",
        world.token
    );
    late.write(&text).await;
    assert_eq!(world.engine.request_count(), 101);
    // However often it is tried, it is told once a minute.
    assert_eq!(world.gateway.logged(FAILED), 1);

    drop(idle);
    assert_eq!(late.answer().await.status, 200);
    let answer = send(address, start(&world.token), "{}").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(world.engine.request_count(), 103);
    drop((late, client));
    let outcome = "outcome=\"engine_error\"";
    assert_eq!(world.sum("bpmgate_requests_total", outcome).await, 1);
    // What may stay are connections to the engine.
    let kept = world.engine.open_connections();
    world.calms_down_to(before + kept).await;
}

/// `/dev/full` takes no byte: `ENOSPC`, as a full disk.
#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_go_on_and_no_record_is_lost() {
    const FAILING: &str = "the audit log cannot be written, requests that write are refused";
    const AGAIN: &str = "the audit log can be written again";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let world = Apart::start(&[
        ("TELEMETRY__AUDIT_LOG", file.to_str().unwrap()),
        ("ACCESS__DEFAULT", "user"),
    ])
    .await;
    let address = world.gateway.address;
    let begin = async |number: usize| {
        let body = json!({"businessKey": format!("key-{number}")}).to_string();
        send(address, start(&world.token), &body).await
    };
    world.engine.forget_requests();
    // Nothing is known of the disk before the first record.
    let mut started = 0;
    let refusal = soon("a refusal", async {
        loop {
            let answer = begin(started).await;
            if answer.status() != 200 {
                return answer;
            }
            started += 1;
        }
    })
    .await;
    assert!(started > 0);
    assert_eq!(refused(&refusal), (503, "audit_unavailable".to_owned()));
    assert_eq!(refusal.headers()["retry-after"], "5");
    let memory = world.gateway.memory("VmRSS");
    for number in started..started + 200 {
        assert_eq!(begin(number).await.status(), 503);
    }
    assert_eq!(world.engine.request_count(), started, "no refused one came");
    let read = send(address, get(&world.token), "").await;
    assert_eq!(read.status(), 200);
    // A denial that cannot be recorded is refused all the same, and told.
    let users = Request::get("/engine-rest/user").header(AUTHORIZATION, &world.token);
    let denied = send(address, users, "").await;
    assert_eq!(refused(&denied), (503, "audit_unavailable".to_owned()));
    assert_eq!(world.engine.request_count(), started + 1);
    assert_eq!(world.gateway.logged(FAILING), 1);
    let told = "a denial is not in the audit log";
    eventually(told, || world.gateway.logged(told) == 1).await;
    let counted = world.sum("bpmgate_requests_total", "outcome=\"rejected\"");
    assert_eq!(counted.await, 202);
    let grown = world.gateway.memory("VmRSS").saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown}");

    // Room: in another file, which a signal has it open.
    std::fs::remove_file(&file).unwrap();
    world.gateway.signal("HUP").await;
    eventually(AGAIN, || world.gateway.logged(AGAIN) == 1).await;
    assert_eq!(begin(usize::MAX).await.status(), 200);
    let keys = || -> Vec<String> {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| {
            let record: Value = serde_json::from_str(line).expect(line);
            record["business_key"].as_str().unwrap().to_owned()
        });
        lines.collect()
    };
    let whole = (0..started).chain([usize::MAX]);
    let whole: Vec<_> = whole.map(|number| format!("key-{number}")).collect();
    eventually("the records", || keys().len() >= whole.len()).await;
    assert_eq!(keys(), whole);
}

/// The clock that says what time it is, moved while the gateway runs. That which says how long something takes cannot be moved.
#[cfg(target_env = "gnu")]
#[tokio::test]
async fn a_clock_that_jumps_ends_and_revives_tokens_and_nothing_else() {
    const DAY: i64 = 24 * 3600;
    let directory = tempfile::tempdir().unwrap();
    let (library, clock) = (
        directory.path().join("clock.so"),
        directory.path().join("clock"),
    );
    // The crate itself needs a compiler of C.
    let built = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()))
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/faults/clock.c"
        ))
        .status();
    assert!(built.unwrap().success());
    let jump = |seconds: i64| {
        let mut text = seconds.to_string();
        text.push('\n');
        std::fs::write(&clock, text).unwrap();
    };
    jump(0);
    let world = Apart::start(&[
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("CLOCK_FILE", clock.to_str().unwrap()),
        ("ENGINE__TIMEOUTS__RESPONSE", "20s"),
        ("RATE_LIMITS__0__NAME", "starts"),
        ("RATE_LIMITS__0__BY", "issuer"),
        ("RATE_LIMITS__0__OPERATIONS", "start"),
        ("RATE_LIMITS__0__REQUESTS", "2"),
        ("RATE_LIMITS__0__PER", "12h"),
    ])
    .await;
    let gate = Script::Gate(Box::new(Script::Echo));
    world.engine.script("/engine-rest/slow", gate);
    let address = world.gateway.address;
    let code = async |token: &str| {
        let answer = send(address, get(token), "").await;
        match answer.status().as_u16() {
            200 => "ok".to_owned(),
            _ => refused(&answer).1,
        }
    };
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let of_day = |day: i64| {
        let (from, until) = (now + day * DAY - 600, now + day * DAY + 600);
        let claims =
            json!({"sub": "good", "aud": AUDIENCE, "iat": from, "nbf": from, "exp": until});
        format!("Bearer {}", world.issuer.token(&claims))
    };
    let [yesterday, today, tomorrow] = [of_day(-1), of_day(0), of_day(1)];
    for _ in 0..2 {
        assert_eq!(send(address, start(&today), "{}").await.status(), 200);
    }
    let mut before = &today;
    for (day, good, old, new) in [
        (0, &today, &yesterday, &tomorrow),
        (1, &tomorrow, &today, &of_day(2)),
        (-1, &yesterday, &of_day(-2), &today),
        (0, &today, &yesterday, &tomorrow),
    ] {
        // One request is on its way meanwhile.
        let mut slow = Raw::connect(address).await;
        let asked = world.engine.requests_to("/engine-rest/slow");
        let text = format!("GET /api/slow HTTP/1.1\r\nHost: g\r\nAuthorization: {before}\r\n\r\n");
        if day != 0 {
            slow.write(&text).await;
            eventually("the slow request", || {
                world.engine.requests_to("/engine-rest/slow") > asked
            })
            .await;
        }
        jump(day * DAY);
        world.engine.forget_requests();
        // What was verified before is looked at anew.
        assert_eq!(code(old).await, "token_expired", "{day}");
        assert_eq!(code(new).await, "token_invalid", "{day}");
        assert_eq!(world.engine.request_count(), 0, "{day}");
        assert_eq!(code(good).await, "ok", "{day}");
        // Limits of a time count time that has passed.
        assert_eq!(send(address, start(good), "{}").await.status(), 429);
        let age = format!(
            "bpmgate_jwks_age_seconds{{issuer=\"{}\"}}",
            world.issuer.url()
        );
        let metrics = world.admin("/metrics").await;
        let age = metrics.lines().find_map(|line| line.strip_prefix(&age));
        assert!(age.unwrap().trim().parse::<f64>().unwrap() < 600.0);
        if day != 0 {
            world.engine.release(1);
            assert_eq!(slow.answer().await.status, 200, "{day}");
        }
        before = good;
    }
    // Nothing took a day, or less than nothing.
    let line = "duration_ms=";
    eventually("the log", || world.gateway.logged(line) >= 20).await;
    let log = world.gateway.log.lock().unwrap().clone();
    let took = log.lines().filter_map(|log| log.split_once(line));
    let took: Vec<f64> = took
        .map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(
        took.iter().all(|took| (0.0..60_000.0).contains(took)),
        "{took:?}"
    );
}
