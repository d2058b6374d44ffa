//! An issuer that is down, slow, rotating, or sends without end: who was let in goes on, nobody waits for it, and it fills no memory.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::{Fault, Issuer, OldKeys};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Request, StatusCode};
use serde_json::json;

use crate::apart::Apart;
use crate::problem::refused;
use crate::support::{
    Client, Gateway, Protocol, World, alice, bearer, config, eventually, soon, whole,
};
use crate::tokens::{ask_with, invalid, ok, token};

#[tokio::test]
async fn a_new_key_is_picked_up_and_a_withdrawn_one_forgotten() {
    let world = World::with(|config| {
        config.issuers[0].jwks_cooldown = Duration::from_millis(1);
    })
    .await;
    let first = token(&world.issuer, &json!({}));
    assert_eq!(ask_with(&world.gateway, &first).await, ok());

    world.issuer.rotate(OldKeys::Kept).unwrap();
    let second = token(&world.issuer, &json!({}));
    assert_eq!(ask_with(&world.gateway, &second).await, ok());
    assert_eq!(ask_with(&world.gateway, &first).await, ok());

    world.issuer.rotate(OldKeys::Gone).unwrap();
    let third = token(&world.issuer, &json!({}));
    assert_eq!(ask_with(&world.gateway, &third).await, ok());
    assert_eq!(ask_with(&world.gateway, &first).await, invalid());
    assert_eq!(ask_with(&world.gateway, &second).await, invalid());

    // A failed fetch keeps what is known.
    for fault in [
        Fault::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Text("{\"keys\":[]}"),
        Fault::TooLarge(2 << 20),
        Fault::Close,
    ] {
        world.issuer.set_fault(fault.clone());
        let fetches = world.issuer.fetches();
        assert_eq!(ask_with(&world.gateway, &first).await, invalid());
        eventually("a fetch", || world.issuer.fetches() > fetches).await;
        assert_eq!(ask_with(&world.gateway, &third).await, ok(), "{fault:?}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_stops_nobody_for_longer_than_it_is_down() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    issuer.set_fault(Fault::Status(StatusCode::BAD_GATEWAY));
    let mut config = config(&issuer, &engine.url());
    config.issuers[0].jwks_cooldown = Duration::from_millis(20);
    let gateway = Gateway::start(&config).await;

    let request = Request::get("/api/task").header(AUTHORIZATION, alice(&issuer));
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    let answer = whole(answer.unwrap()).await.unwrap();
    assert_eq!(refused(&answer), (503, "keys_unavailable".to_owned()));
    assert_eq!(answer.headers()[RETRY_AFTER], "5");
    // The gateway's own routes work meanwhile, and a token of nobody's is told apart.
    let stranger = Issuer::start().await.unwrap();
    let unknown = token(&stranger, &json!({}));
    assert_eq!(ask_with(&gateway, &unknown).await, invalid());
    assert_eq!(engine.connections(), 0);

    issuer.set_fault(Fault::None);
    let good = token(&issuer, &json!({}));
    soon("the keys", async {
        while ask_with(&gateway, &good).await != ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_issuer_does_known_keys_serve_on_and_it_is_logged_counted_and_bounded() {
    const FAILED: &str = "key refresh failed";
    let elsewhere = Issuer::start().await.unwrap();
    let mut world = Apart::start(&[
        ("ISSUERS__0__JWKS_COOLDOWN", "10ms"),
        ("ISSUERS__0__JWKS_REFRESH", "50ms"),
        ("ISSUERS__0__JWKS_TIMEOUT", "200ms"),
    ])
    .await;
    let refreshes = |name: &str, result: &str| {
        format!("bpmgate_jwks_refreshes_total{{issuer=\"{name}\",result=\"{result}\"}}")
    };
    let name = world.issuer.url();
    let (success, failure) = (refreshes(&name, "success"), refreshes(&name, "failure"));
    let files = world.gateway.open_files();
    let memory = world.gateway.memory("VmRSS");
    let ghost = {
        let header = json!({"alg": "RS256", "kid": "ghost"}).to_string();
        let signed = world.issuer.sign(header.as_bytes(), b"{}");
        format!("Bearer {signed}")
    };
    let mut told = 0;
    for fault in [
        Fault::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Close,
        Fault::Hang,
        Fault::Slow(Duration::from_millis(10)),
        Fault::TooLarge(10 << 20),
        Fault::Endless,
        Fault::Text("{\"keys\":[]}"),
        Fault::Text("<html>"),
        Fault::Redirect(elsewhere.jwks_url()),
    ] {
        let failures = world.metric(&failure).await;
        world.issuer.set_fault(fault.clone());
        world.until(&failure, failures + 3).await;
        // A token that was seen before, a new one, and one of a key that nobody knows: none waits for the issuer for long.
        let new = bearer(&world.issuer, "new", "new@example.org", "New");
        for (token, status) in [(&world.token, 200), (&new, 200), (&ghost, 401)] {
            let asked = std::time::Instant::now();
            assert_eq!(world.status(token).await, status, "{fault:?}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{fault:?}");
        }
        told += 1;
        eventually(FAILED, || world.gateway.logged(FAILED) == told).await;
        world.issuer.set_fault(Fault::None);
        let successes = world.metric(&success).await;
        world.until(&success, successes + 1).await;
        assert_eq!(world.gateway.logged(FAILED), told, "{fault:?}: told once");
    }
    let highest = world.gateway.memory("VmHWM").saturating_sub(memory);
    assert!(highest < 16 << 20, "{highest} bytes more at the highest");

    // A rotation: those of both keys are let in, then those of the new one alone.
    let old = world.token.clone();
    world.issuer.rotate(OldKeys::Kept).unwrap();
    let new = bearer(&world.issuer, "good", "good@example.org", "Good");
    let changed = "issuer keys changed";
    eventually(changed, || world.gateway.logged(changed) == 2).await;
    assert_eq!(
        (world.status(&old).await, world.status(&new).await),
        (200, 200)
    );
    world.issuer.rotate(OldKeys::Gone).unwrap();
    let newest = bearer(&world.issuer, "good", "good@example.org", "Good");
    eventually(changed, || world.gateway.logged(changed) == 3).await;
    assert_eq!(
        (world.status(&old).await, world.status(&newest).await),
        (401, 200)
    );

    // Nobody listens there any more.
    let failures = world.metric(&failure).await;
    world.issuer = Issuer::start().await.unwrap();
    world.until(&failure, failures + 3).await;
    assert_eq!(world.status(&newest).await, 200);
    world.calms_down_to(files).await;
}
