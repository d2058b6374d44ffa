//! `bpmgate serve` as an operator meets it.

use std::process::{Command, Output};

use bpmgate::body::Body;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::Issuer;
use http::Request;
use serde_json::{Value, json};

use crate::support::{Client, Process, Protocol, soon, whole};

/// Runs it to its end, which must come by itself.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpmgate"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(directory.path());
    let mut command = tokio::process::Command::from(command);
    let output: Output = soon("its end", command.kill_on_drop(true).output())
        .await
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

const CLERK: (&str, &str) = (
    "CLERK_JWKS_URL",
    "https://clerk.example.com/.well-known/jwks.json",
);

const NO_ADMIN: (&str, &str) = ("BPMGATE__ADMIN__LISTEN", "");

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_ends_it_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, told) = run(&["serve"], &[CLERK, ("BPMGATE__SERVER__LISTEN", &address)]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.ends_with(&format!(
            "error: cannot listen on {address}: Address already in use (os error 98)\n"
        )),
        "{told}"
    );
}

#[tokio::test]
async fn an_admin_port_that_is_taken_is_said_and_ends_it_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0");
    let admin = ("BPMGATE__ADMIN__LISTEN", address.as_str());
    let (code, told) = run(&["serve"], &[CLERK, listen, admin]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.ends_with(&format!(
            "error: cannot listen on {address} (`admin.listen`): Address already in use (os error 98)\n"
        )),
        "{told}"
    );
}

#[tokio::test]
async fn a_bad_configuration_ends_it_with_2_before_it_listens() {
    for (environment, says) in [
        (vec![], "no issuer is configured"),
        (
            vec![CLERK, ("BPMGATE__ENGINE__TIME_OUTS", "1s")],
            "is no key of the configuration",
        ),
        (
            vec![("BPMGATE__ISSUERS__0__ISSUER", "https://a.example")],
            "`issuers.0.audience` is empty",
        ),
    ] {
        let (code, told) = run(&["serve"], &environment).await;
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(says) && told.contains("hint: "), "{told}");
        assert!(!told.contains("listening"));
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let listen = ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0");
    let missing = ("BPMGATE__ENGINE__CA_FILE", "/nowhere/ca.pem");
    let (code, told) = run(&["serve"], &[CLERK, listen, NO_ADMIN, missing]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("engine.ca_file /nowhere/ca.pem cannot be read: No such file"),
        "{told}"
    );
}

#[tokio::test]
async fn the_old_services_jwks_url_alone_is_enough_to_run() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let process = Process::with_environment(&[
        ("CLERK_JWKS_URL", &issuer.jwks_url()),
        ("ENGINE_URL", &engine.url()),
        ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
        NO_ADMIN,
    ])
    .await;
    // A session token of Clerk's: no `aud`.
    let token = issuer.token(&json!({"sub": "user_1", "email": "alice@example.org"}));
    let client = Client::connect(process.address, Protocol::Http1).await;
    let request = Request::post("/api/process-definition/key/approval/start")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty());
    let answer = whole(client.send(request.unwrap()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(
        answer.status(),
        200,
        "{answer:?}\n{}",
        process.log.lock().unwrap()
    );
    let requests = engine.requests();
    let start = requests
        .iter()
        .find(|request| request.method == http::Method::POST);
    let start = start.unwrap();
    let body: Value = serde_json::from_slice(&start.body).unwrap();
    assert_eq!(body["variables"]["initiator"]["value"], "user_1");
    assert_eq!(
        body["variables"]["initiatorName"]["value"],
        "alice@example.org"
    );
    // Only that tokens for others are taken too is warned of.
    let log = process.log.lock().unwrap().clone();
    let warned: Vec<_> = log
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    let audience = "warning: CLERK_JWKS_URL: `issuers.0.audience` is empty: tokens that the issuer made for any other application are accepted too";
    assert_eq!(warned, [audience], "{log}");
}
