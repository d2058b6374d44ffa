//! The programs in `examples/`, run as their readers run them: as processes, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a set-up fails the test"
)]

use std::process::Stdio;
use std::time::Duration;

use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

#[tokio::test]
async fn axum_api_answers_who_calls_and_lets_nobody_else_in() {
    let mut example = Example::start("axum_api", &[]);
    let url = url_in(&example.line().await);
    let with_token = example.line().await;
    let token = token_in(&with_token);
    assert_eq!(url_in(&with_token), url);

    let answer = send(get(&url, Some(&token))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let caller = json(&answer);
    assert_eq!(caller["id"], "alice");
    assert_eq!(caller["name"], "Alice Example");

    let stranger = Issuer::start().await.unwrap();
    let same_claims =
        |issuer: &str| stranger.token(&json!({"iss": issuer, "sub": "alice", "aud": "my-api"}));
    let issuer = caller["issuer"].as_str().unwrap();
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (good, strange) = (parts(&token), parts(&same_claims(issuer)));
    let other_claims = [&*good[0], &*strange[1], &*good[2]].join(".");
    for (token, code) in [
        (None, "token_missing"),
        (Some(same_claims(&stranger.url())), "token_invalid"),
        (Some(same_claims(issuer)), "token_invalid"),
        (Some(other_claims), "token_invalid"),
    ] {
        let answer = send(get(&url, token.as_deref())).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{code}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert!(answer.headers().contains_key("www-authenticate"));
        assert_eq!(json(&answer)["code"], code);
    }
}

#[tokio::test]
async fn forwarding_proxy_writes_the_initiator_and_swaps_the_credentials() {
    let engine = Engine::start().await.unwrap();
    let mut example = Example::start("forwarding_proxy", &[&engine.url()]);
    let definitions = url_in(&example.line().await);
    let start = example.line().await;
    let (url, token) = (url_in(&start), token_in(&start));

    let mut refused = get(&definitions, None);
    let origin = "https://app.example";
    refused
        .headers_mut()
        .insert("origin", origin.parse().unwrap());
    let refused = send(refused).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["access-control-allow-origin"], origin);
    assert_eq!(json(&refused)["code"], "token_missing");
    let deployment = url.replace("process-definition/key/approval/start", "deployment/create");
    let denied = send(post(&deployment, &token, "{}")).await;
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    assert_eq!(engine.request_count(), 0);
    assert_eq!(engine.connections(), 0);

    let body = json!({
        "variables": {"initiator": {"value": "the-director"}, "amount": {"value": 7}},
        "withVariablesInReturn": true,
    });
    let started = send(post(&url, &token, &body.to_string())).await;
    assert_eq!(started.status(), StatusCode::OK, "{:?}", started.body());
    let started = json(&started);
    assert_eq!(started["variables"]["initiator"]["value"], "alice");
    assert_eq!(started["variables"]["amount"]["value"], 7);
    let link = started["links"][0]["href"].as_str().unwrap();
    let instances = url.replace("process-definition/key/approval/start", "process-instance/");
    assert!(link.starts_with(&instances), "{link}");

    let seen = engine.requests();
    let [seen] = seen.as_slice() else {
        panic!("the engine saw {} requests", seen.len());
    };
    assert_eq!(
        seen.target,
        "/engine-rest/process-definition/key/approval/start"
    );
    assert_eq!(seen.headers["authorization"], "Basic ZGVtbzpkZW1v");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert!(!String::from_utf8_lossy(&seen.body).contains("the-director"));

    let listed = send(get(&definitions, Some(&token))).await;
    assert_eq!(listed.status(), StatusCode::OK);
    assert_eq!(json(&listed)[0]["key"], "approval");
}

#[tokio::test]
async fn forwarding_proxy_answers_502_without_its_engine() {
    let engine = Engine::start().await.unwrap();
    let mut example = Example::start("forwarding_proxy", &[&engine.url()]);
    let definitions = url_in(&example.line().await);
    let token = token_in(&example.line().await);
    drop(engine);
    let answer = send(get(&definitions, Some(&token))).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(json(&answer)["code"], "engine_unreachable");
}

#[tokio::test]
async fn compose_names_the_caller_whom_the_program_knows() {
    let engine = Engine::start().await.unwrap();
    let mut example = Example::start("compose", &[&engine.url()]);
    assert_eq!(example.line().await, "200 OK");
    let answer: Value = serde_json::from_str(&example.line().await).unwrap();
    assert_eq!(answer["variables"]["initiator"]["value"], "alice");
    assert_eq!(
        answer["variables"]["initiatorName"]["value"],
        "Alice Example"
    );
    let seen = engine.requests();
    assert_eq!(seen.len(), 1);
    assert!(!String::from_utf8_lossy(&seen[0].body).contains("the-director"));
}

#[tokio::test]
async fn bare_forwarder_copies_everything_but_credentials_and_the_hops_headers() {
    let engine = Engine::start().await.unwrap();
    engine.script("/engine-rest/echo", Script::Echo);
    let authority = engine.address().to_string();
    let mut example = Example::start("bare_forwarder", &[&format!("http://{authority}")]);
    let forwarder = example.line().await;

    let mut request = post(&format!("{forwarder}/engine-rest/echo?a=%61"), "x", "body");
    for (name, value) in [
        ("connection", "x-of-this-hop"),
        ("x-of-this-hop", "1"),
        ("x-end-to-end", "1"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = send(request).await;
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    let seen = json(&answer);
    assert_eq!(seen["path"], "/engine-rest/echo");
    assert_eq!(seen["query"], "a=%61");
    assert_eq!(seen["length"], 4);
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
    let values = |wanted: &str| -> Vec<&str> {
        let of_name = headers.iter().filter(|(name, _)| name == wanted);
        of_name.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(values("authorization"), ["Basic ZGVtbzpkZW1v"]);
    assert_eq!(values("x-end-to-end"), ["1"]);
    assert_eq!(values("x-of-this-hop"), [""; 0]);

    drop(engine);
    let answer = send(get(&forwarder, None)).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
}

/// A running example, which ends with the test.
struct Example {
    _process: Child,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Example {
    /// Runs the program that `cargo test` has built beside this one.
    fn start(name: &str, arguments: &[&str]) -> Self {
        let this = std::env::current_exe().unwrap();
        let built = this.parent().unwrap().parent().unwrap();
        let program = built.join("examples").join(name);
        let mut process = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; `cargo build --examples` makes it",
                    program.display()
                )
            });
        let printed = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            _process: process,
            printed,
        }
    }

    /// The next line on its standard output.
    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.printed.next_line())
            .await
            .expect("the example says nothing")
            .unwrap()
            .expect("the example has ended")
    }
}

/// The last word of a `curl` line.
fn url_in(line: &str) -> String {
    let url = line.split(' ').next_back().unwrap();
    assert!(url.starts_with("http://127.0.0.1:"), "{line}");
    url.to_owned()
}

/// The token of a `curl` line.
fn token_in(line: &str) -> String {
    let (_, rest) = line.split_once("Authorization: Bearer ").expect(line);
    rest.split('\'').next().unwrap().to_owned()
}

fn get(url: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::default()).unwrap()
}

fn post(url: &str, token: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(url)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    timeout(PATIENCE, exchange).await.expect("no answer")
}

fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(30);
