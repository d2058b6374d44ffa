//! Only one thing over somebody else's client: who starts a process is written in, and nobody else can
//! say so. No token, no path rewrite; the caller is whom your own program knows.
//!
//! ```console
//! $ cargo run --example compose
//! $ cargo run --example compose http://localhost:8080/engine-rest
//! ```
//!
//! In your own program: `bpmgate = { version = "0.1", default-features = false }`, as the client is yours.
#![expect(clippy::print_stdout, reason = "shows the answer")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bpmgate::access::{AccessRules, Builtin};
use bpmgate::body::BoxError;
use bpmgate::identity::{Identity, Parts};
use bpmgate::json_body::JsonBodies;
use bpmgate::layer::{AuthorizeLayer, InitiatorLayer, MatchOperationLayer};
use bpmgate::{Problem, initiator};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The engine at the URL given, or one in memory.
    let demo = bpmgate::demo::engine::Engine::start().await?;
    let engine: Uri = std::env::args()
        .nth(1)
        .unwrap_or_else(|| demo.url())
        .parse()?;

    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = ServiceBuilder::new()
        // which operation of the engine's API a request is, and where its variables sit
        .layer(MatchOperationLayer::new(vec![engine.path().to_owned()]))
        // what may be in its body: everything
        .layer(AuthorizeLayer::new(Arc::new(AccessRules::new(
            Builtin::Transparent,
        ))))
        .layer(InitiatorLayer::new(
            initiator::Settings::default(),
            JsonBodies::new(1 << 20),
        ))
        .map_err(|_| Problem::EngineUnreachable)
        .service(client);

    let mut start = Request::post(format!("{engine}/process-definition/key/approval/start"))
        .header("authorization", "Basic ZGVtbzpkZW1v")
        .header("content-type", "application/json")
        .body(Full::from(
            r#"{"variables": {"initiator": {"value": "the-director"}}, "withVariablesInReturn": true}"#,
        ))?;
    start.extensions_mut().insert(alice());

    let answer = client.oneshot(start).await?;
    println!("{}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Whom your own program knows: a session, a job, a certificate.
fn alice() -> Identity {
    let expires = SystemTime::now() + Duration::from_mins(1);
    let mut alice = Parts::new("my-program", "alice", expires);
    alice.name = Some("Alice Example".to_owned());
    Identity::new(alice)
}
