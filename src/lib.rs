//! bpmgate: an authenticating gateway for Camunda-7-family BPMN engines.
//!
//! A bearer token comes in, the engine's `BasicAuth` goes out, `/api/...` becomes `/engine-rest/...`, and
//! every process that is started gets its caller's name from the verified token, whatever the request
//! says. All else passes as bytes.
//!
//! ```text
//!  client   Authorization: Bearer ...
//!    |
//!    |  ObserveLayer          request id, access log                        puts RequestInfo
//!    |  CorsLayer             preflights; errors a frontend can read
//!    |  ProblemLayer          the only place that makes answers of problems
//!    |  AdmitLayer            requests at once                       503
//!    |  NormalizePathLayer    one reading of the path                400
//!    |  RouteLayer            /health and the like need no token     404
//!    |  VerifyTokenLayer      signature, issuer, audience, times     401   puts VerifiedToken
//!    |  ExtractIdentityLayer  who calls                              401   puts Identity
//!    |  MatchOperationLayer   which operation of the engine this is        puts Matched
//!    |  AuditLayer            who did what, if that is asked for  503
//!    |  AuthorizeLayer        what the caller may do                 403   puts Access
//!    |  EngineAnswerLayer     the answer: headers cleaned, links made public
//!    |  RewritePathLayer      /api to /engine-rest
//!    |  EngineHeadersLayer    nothing that the engine could read as identity
//!    |  CredentialsLayer      the engine's own account
//!    |  InitiatorLayer        writes who starts a process            400 413 415
//!    |  DeadlineLayer, RetryLayer                                    504
//!    v
//!  engine   Authorization: Basic ...
//! ```
//!
//! # Ways to use it
//!
//! - As a program: `bpmgate serve` with a configuration file, `bpmgate demo` to try it.
//! - As the whole stack over a client of your own: `gateway::stack` (feature `fetch`).
//! - As single [layers](layer) in any [tower] service, an axum router or a hyper server: each is usable
//!   alone, says what it needs in the request's extensions, and fails closed without.
//!
//! The programs in `examples/` show one of these each.
//!
//! # The layers in their order
//!
//! ```
//! use std::sync::Arc;
//!
//! use bpmgate::access::{AccessRules, Builtin};
//! use bpmgate::layer::{
//!     AuthorizeLayer, CredentialsLayer, EngineAnswerLayer, EngineHeadersLayer, ExtractIdentityLayer,
//!     InitiatorLayer, MatchOperationLayer, NormalizePathLayer, ProblemLayer, RewritePathLayer,
//!     VerifyTokenLayer,
//! };
//! use bpmgate::token::{Algorithm, Issuer, IssuerRules, KeySet, Preset};
//! use bpmgate::{Body, Problem, Verifier};
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::BodyExt;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Whose tokens are taken. With the feature `fetch` keys come by URL and are kept fresh.
//! let mut rules = IssuerRules::new(Preset::Oidc, "https://id.example");
//! rules.audience = vec!["orders".into()];
//! rules.algorithms = vec![Algorithm::Es256];
//! let keys = KeySet::from_jwks(br#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1",
//!     "x": "N0U0ckBkXWOPF7WWaerl33KpJ0e1MWFfBh40fHeIwYE",
//!     "y": "HeGSQ9kTPF4kmJXU-DMxxwhOap5FKvi3ZNpHmAuUS58"}]}"#)?;
//! let verifier = Verifier::new([(Issuer::new(rules)?, keys)])?;
//!
//! // Any client; this one answers the body that it was to send.
//! let engine = service_fn(|request: Request<Body>| async {
//!     assert_eq!(request.uri(), "/engine-rest/process-definition/key/order/start");
//!     assert_eq!(request.headers()["authorization"], "Basic ZGVtbzpkZW1v");
//!     Ok::<_, Problem>(Response::new(request.into_body()))
//! });
//!
//! let prefixes = vec!["/api".to_owned()];
//! let gateway = ServiceBuilder::new()
//!     .layer(ProblemLayer::new())
//!     .layer(NormalizePathLayer::new())
//!     .layer(VerifyTokenLayer::new(verifier))
//!     .layer(ExtractIdentityLayer::new())
//!     .layer(MatchOperationLayer::new(prefixes.clone()))
//!     .layer(AuthorizeLayer::new(Arc::new(AccessRules::new(Builtin::User))))
//!     .layer(EngineAnswerLayer::new(prefixes.clone(), "/engine-rest", None, Default::default()))
//!     .layer(RewritePathLayer::new(prefixes, "/engine-rest"))
//!     .layer(EngineHeadersLayer::new(Default::default(), true))
//!     .layer(CredentialsLayer::basic("demo", "demo"))
//!     .layer(InitiatorLayer::new(Default::default(), bpmgate::json_body::JsonBodies::new(16 << 20)))
//!     .service(engine);
//!
//! // Alice starts a process and says that somebody else did.
//! let token = concat!(
//!     "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJvcmRlcnMiLCJzd",
//!     "WIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.UTwvc2QnOC1zXfRDTjNoXVTicMHEuHlIP1H1T4AIQ_LC6P8RRBUKmWWXr",
//!     "O9scJRup2Rkq_nxgqr5aLF-5h5TwA",
//! );
//! let start = |token: &str| {
//!     Request::post("/api/process-definition/key/order/start")
//!         .header("authorization", format!("Bearer {token}"))
//!         .header("content-type", "application/json")
//!         .body(Body::from(Bytes::from(r#"{"variables":{"initiator":{"value":"the-director"}}}"#)))
//! };
//! let sent = gateway.clone().oneshot(start(token)?).await?;
//! assert_eq!(
//!     sent.into_body().collect().await?.to_bytes(),
//!     concat!(
//!         r#"{"variables":{"initiator":{"value":"alice","type":"String"},"#,
//!         r#""initiatorEmail":{"value":"","type":"String"},"#,
//!         r#""initiatorName":{"value":"alice","type":"String"}}}"#,
//!     )
//! );
//!
//! // Without a good token the engine is not reached.
//! let refused = gateway.oneshot(start("eyJhbGciOiJub25lIn0.e30.")?).await?;
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! A feature adds items and never changes what others do.
//!
//! | feature | adds | default |
//! |---|---|---|
//! | none | every layer but `RetryLayer`; tokens with keys that are given; access rules, initiator, splice | |
//! | `fetch` | keys by URL, kept fresh ([`token`]`::refresh`); `engine`, the client with its pool; `gateway::stack`; `RetryLayer` | yes |
//! | `server` | `server`, the hyper server; `config`, the configuration file; `demo`, an issuer and an engine to try things with | yes |
//! | `cli` | the program `bpmgate` | yes |
//!
//! A library takes what it needs:
//!
//! ```toml
//! bpmgate = { version = "0.1", default-features = false }
//! ```
// The stack is one type of some thirty layers.
#![recursion_limit = "256"]
#![forbid(unsafe_code)]

pub mod access;
pub mod access_log;
#[cfg(feature = "server")]
pub mod admin;
pub mod audit;
pub mod body;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "docs")]
#[doc(hidden)]
pub mod docs;
pub mod engine;
pub mod forwarded;
#[cfg(feature = "fetch")]
pub mod gateway;
pub mod identity;
pub mod initiator;
pub mod json_body;
mod json_string;
pub mod layer;
pub mod metrics;
pub mod model;
pub mod operation;
pub mod path;
pub mod problem;
pub mod rate_limit;
pub mod request_info;
#[cfg(feature = "server")]
pub mod server;
pub mod splice;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod telemetry;
pub mod token;
pub mod trace_context;
#[cfg(feature = "fetch")]
pub mod traces;
mod waiting;
#[cfg(feature = "fetch")]
mod worker;
pub mod workflow;

pub use body::Body;
pub use identity::Identity;
pub use problem::Problem;
pub use token::Verifier;
