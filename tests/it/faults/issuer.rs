//! An issuer that is down, slow, rotating, or sends without end: who was let in goes on, nobody waits for it, and it fills no memory.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::{Fault, Issuer, OldKeys};
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Request, StatusCode};
use serde_json::json;

use crate::problem::refused;
use crate::support::{Client, Gateway, Protocol, World, alice, config, eventually, soon, whole};
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
