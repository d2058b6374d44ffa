//! An axum API that knows who calls: tokens verified, the caller in the request's extensions.
//!
//! ```console
//! $ cargo run --example axum_api
//! ```
//!
//! In your own program: `bpmgate = { version = "0.1", default-features = false, features = ["fetch"] }`,
//! and without `fetch` where the keys are given ([`KeySet::from_jwks`](bpmgate::token::KeySet::from_jwks)).
#![expect(clippy::print_stdout, reason = "says what to do")]

use axum::routing::get;
use axum::{Extension, Json, Router};
use bpmgate::Identity;
use bpmgate::body::BoxError;
use bpmgate::layer::{ExtractIdentityLayer, ProblemLayer, VerifyTokenLayer};
use bpmgate::token::{Issuer, IssuerRules, KeySource, Keys, Preset, RefreshSettings, Verifier};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Signs tokens for anybody, to try this out: in its place stands your identity provider.
    let demo = bpmgate::demo::issuer::Issuer::start().await?;
    let token = demo.token(&json!({"sub": "alice", "name": "Alice Example", "aud": "my-api"}));

    let app = Router::new().route("/me", get(me)).layer(
        ServiceBuilder::new()
            // The router cannot fail, and a problem can: forgetting this line does not compile.
            .layer(ProblemLayer::new())
            .layer(VerifyTokenLayer::new(verifier(&demo.url())?))
            .layer(ExtractIdentityLayer::new()),
    );

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/me", listener.local_addr()?);
    println!("curl -i {url}");
    println!("curl -i -H 'Authorization: Bearer {token}' {url}");
    axum::serve(listener, app).await?;
    Ok(())
}

/// Answers who calls.
async fn me(Extension(caller): Extension<Identity>) -> Json<Value> {
    Json(json!({"id": caller.id(), "name": caller.name(), "issuer": caller.issuer()}))
}

/// Takes tokens that this issuer made for us; its keys are fetched and kept fresh.
fn verifier(issuer: &str) -> Result<Verifier, BoxError> {
    let mut rules = IssuerRules::new(Preset::Oidc, issuer);
    rules.audience = vec!["my-api".to_owned()];
    let issuer = Issuer::new(rules)?;
    let keys = Keys::spawn(
        issuer.clone(),
        KeySource::Discovery,
        RefreshSettings::default(),
    );
    Ok(Verifier::new([(issuer, keys)])?)
}
