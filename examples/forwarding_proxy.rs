//! The layers on a bare hyper proxy: the server, the client and the order of the layers are yours.
//!
//! ```console
//! $ cargo run --example forwarding_proxy
//! $ cargo run --example forwarding_proxy http://localhost:8080/engine-rest
//! ```
//!
//! In your own program: `bpmgate = { version = "0.1", default-features = false, features = ["fetch"] }`.
#![expect(clippy::print_stdout, reason = "says what to do")]

use std::sync::Arc;

use bpmgate::access::{AccessRules, Builtin};
use bpmgate::body::{Body, BoxError};
use bpmgate::forwarded::TrustedProxies;
use bpmgate::json_body::JsonBodies;
use bpmgate::layer::{
    AuthorizeLayer, CorsLayer, CorsOrigins, CredentialsLayer, EngineAnswerLayer,
    EngineHeadersLayer, ExtractIdentityLayer, InitiatorLayer, MatchOperationLayer,
    NormalizePathLayer, ObserveLayer, ProblemLayer, RewritePathLayer, VerifyTokenLayer,
};
use bpmgate::request_info::Peer;
use bpmgate::token::{Issuer, IssuerRules, KeySource, Keys, Preset, RefreshSettings, Verifier};
use bpmgate::{Problem, demo, initiator};
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // To try this out: an issuer that signs for anybody, and the engine at the URL given or one in memory.
    let issuer = demo::issuer::Issuer::start().await?;
    let in_memory = demo::engine::Engine::start().await?;
    let engine: Uri = std::env::args()
        .nth(1)
        .unwrap_or_else(|| in_memory.url())
        .parse()?;
    let token = issuer.token(&json!({"sub": "alice", "name": "Alice Example", "aud": "my-proxy"}));

    let prefixes = vec!["/api".to_owned()];
    let path = engine.path().to_owned();
    let app = HeaderValue::from_static("https://app.example");
    let proxy = ServiceBuilder::new()
        // an id, and a line in the log when the answer has ended
        .layer(ObserveLayer::new())
        // browsers read errors too, so above what makes answers of them
        .layer(CorsLayer::new(CorsOrigins::List(vec![app]), true))
        .layer(ProblemLayer::new())
        .layer(NormalizePathLayer::new())
        // who calls, what they want, and whether they may
        .layer(VerifyTokenLayer::new(verifier(&issuer.url())?))
        .layer(ExtractIdentityLayer::new())
        .layer(MatchOperationLayer::new(prefixes.clone()))
        .layer(AuthorizeLayer::new(Arc::new(AccessRules::new(
            Builtin::User,
        ))))
        // from here on the request becomes the engine's
        .layer(EngineAnswerLayer::new(
            prefixes.clone(),
            &path,
            None,
            TrustedProxies::default(),
        ))
        .layer(RewritePathLayer::new(prefixes, &path))
        .layer(EngineHeadersLayer::new(TrustedProxies::default(), true))
        .layer(CredentialsLayer::basic("demo", "demo"))
        .layer(InitiatorLayer::new(
            initiator::Settings::default(),
            JsonBodies::new(1 << 20),
        ))
        // the client
        .map_err(|_| Problem::EngineUnreachable)
        .map_request(move |request| addressed_to(&engine, request))
        .map_response(|answer: Response<Incoming>| answer.map(Body::stream))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/api", listener.local_addr()?);
    let start =
        r#"{"variables": {"initiator": {"value": "the-director"}}, "withVariablesInReturn": true}"#;
    println!("curl -i {url}/process-definition");
    println!(
        "curl -i -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{start}' \
         {url}/process-definition/key/approval/start"
    );
    loop {
        let (stream, client) = listener.accept().await?;
        let peer = Peer {
            address: client.ip(),
            tls: false,
        };
        let service = proxy
            .clone()
            .map_request(move |request: Request<Incoming>| {
                let mut request = request.map(Body::stream);
                request.extensions_mut().insert(peer);
                request
            });
        let service = TowerToHyperService::new(service);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// The same request, to this host.
fn addressed_to(engine: &Uri, mut request: Request<Body>) -> Request<Body> {
    let mut parts = engine.clone().into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Takes tokens that this issuer made for us; its keys are fetched and kept fresh.
fn verifier(issuer: &str) -> Result<Verifier, BoxError> {
    let mut rules = IssuerRules::new(Preset::Oidc, issuer);
    rules.audience = vec!["my-proxy".to_owned()];
    let issuer = Issuer::new(rules)?;
    let keys = Keys::spawn(
        issuer.clone(),
        KeySource::Discovery,
        RefreshSettings::default(),
    );
    Ok(Verifier::new([(issuer, keys)])?)
}
