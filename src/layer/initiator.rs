//! Writes who started a process into the bodies that start one, and keeps it from being forged.
//!
//! Acts on the operations that the catalogue says write variables, name users or have guarded members;
//! what becomes of each is decided in [`crate::initiator`]. Every other request passes with its body
//! untouched, streaming, and without an allocation.
//!
//! Stands below [`AuthorizeLayer`](crate::layer::AuthorizeLayer) and above the engine's client. It reads
//! [`Matched`], [`Identity`] and [`Access`] from the request's extensions; where one that it needs is
//! missing it fails closed with [`Problem::Misconfigured`].
//!
//! A body that is read is one that [`JsonBodies`] takes. It leaves with `Content-Type: application/json` and its
//! exact `Content-Length`; `Transfer-Encoding`, `Content-Encoding`, `Expect` and trailers go. Where nothing had to
//! be changed it leaves as the very bytes that came. What it holds of the memory is held until the engine has answered.
//!
//! A refused request never reaches the inner service.
//!
//! # Examples
//! Over somebody else's client, here one that answers what it was sent:
//!
//! ```
//! use std::{convert::Infallible, time::SystemTime};
//!
//! use bpmgate::access::{Access, Builtin};
//! use bpmgate::identity::{Identity, Parts};
//! use bpmgate::initiator::Settings;
//! use bpmgate::json_body::JsonBodies;
//! use bpmgate::layer::InitiatorLayer;
//! use bpmgate::operation::Catalogue;
//! use bytes::Bytes;
//! use http::{Method, Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let client = service_fn(|request: Request<Full<Bytes>>| async {
//!     Ok::<_, Infallible>(Response::new(request.into_body()))
//! });
//! let service = ServiceBuilder::new()
//!     .layer(InitiatorLayer::new(Settings::default(), JsonBodies::new(16 << 20)))
//!     .service(client);
//!
//! let path = "/process-definition/key/order/start";
//! let mut request = Request::post(path)
//!     .header("content-type", "application/json")
//!     .body(Full::from(r#"{"variables":{"initiator":{"value":"eve"},"n":{"value":1}}}"#))
//!     .unwrap();
//! // In the gateway the layers above put these.
//! request.extensions_mut().insert(Catalogue::builtin().find(&Method::POST, path));
//! request.extensions_mut().insert(Access {
//!     profile: "user".into(),
//!     rule: None,
//!     object_types: Default::default(),
//!     members: Builtin::User.members(),
//! });
//! let mut alice = Parts::new("https://id.example", "alice", SystemTime::now());
//! alice.email = Some("alice@example.org".into());
//! request.extensions_mut().insert(Identity::new(alice));
//!
//! let sent = service.oneshot(request).await.unwrap().into_body();
//! assert_eq!(
//!     sent.collect().await.unwrap().to_bytes(),
//!     concat!(
//!         r#"{"variables":{"n":{"value":1},"#,
//!         r#""initiator":{"value":"alice","type":"String"},"#,
//!         r#""initiatorEmail":{"value":"alice@example.org","type":"String"},"#,
//!         r#""initiatorName":{"value":"alice@example.org","type":"String"}}}"#,
//!     )
//! );
//! # }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use super::Checked;
use crate::access::Access;
use crate::identity::Identity;
use crate::initiator::{Plan, Rules, Settings, plan};
use crate::json_body::{JsonBodies, declare};
use crate::metrics::Metrics;
use crate::model::Models;
use crate::operation::{BodyPath, Encoding, Match, Matched};
use crate::problem::Problem;
use crate::request_info::{Findings, RequestIds};
use crate::waiting::waiting;
use reading::Reading;

mod reading;

/// Writes and protects the initiator; see the [module](self).
#[derive(Debug, Clone)]
pub struct InitiatorLayer {
    rules: Arc<Shared>,
}

/// The service of [`InitiatorLayer`].
#[derive(Debug, Clone)]
pub struct Initiator<S> {
    inner: S,
    rules: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    bodies: JsonBodies,
    models: Option<Models>,
    metrics: Option<Metrics>,
}

impl InitiatorLayer {
    /// `bodies` bounds those that must be read: share it among all layers that read some.
    #[must_use]
    pub fn new(settings: Settings, bodies: JsonBodies) -> Self {
        Self {
            rules: Arc::new(Shared {
                settings,
                bodies,
                models: None,
                metrics: None,
            }),
        }
    }

    /// Fills and protects the initiator variables of the process models too, which the engine is asked for.
    #[must_use]
    pub fn with_models(self, models: Option<Models>) -> Self {
        Self {
            rules: Arc::new(Shared {
                settings: self.rules.settings.clone(),
                bodies: self.rules.bodies.clone(),
                models,
                metrics: self.rules.metrics.clone(),
            }),
        }
    }

    /// Counts the bodies that are changed.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self {
            rules: Arc::new(Shared {
                settings: self.rules.settings.clone(),
                bodies: self.rules.bodies.clone(),
                models: self.rules.models.clone(),
                metrics: Some(metrics),
            }),
        }
    }
}

impl<S> Layer<S> for InitiatorLayer {
    type Service = Initiator<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Initiator {
            inner,
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<S, B> Service<Request<B>> for Initiator<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Response: 'static,
    S::Error: Into<Problem>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Problem;
    type Future = InitiatorFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let plan = match extensions.get::<Matched>() {
            Some(Matched::Operation(matched)) => plan(&self.rules.settings, matched),
            // The access check has let them pass: nothing is known of their bodies.
            Some(Matched::Unknown | Matched::OtherMethods(_)) => Plan::Pass,
            None => Plan::Refuse(Problem::Misconfigured("initiator: no matched operation")),
        };
        let rules = match plan {
            Plan::Pass => {
                if let Err(problem) = check_upload(extensions.get(), extensions.get()) {
                    return InitiatorFuture::rejected(problem);
                }
                let Some((models, matched)) = self.rules.named_in_path(extensions.get()) else {
                    return InitiatorFuture::checked(Checked::passed(self.inner.call(request)));
                };
                let ids = RequestIds::of(extensions);
                let models = models.on_behalf_of(ids.clone());
                let mut inner = self.take_ready();
                return InitiatorFuture::collecting(Box::pin(async move {
                    waiting(ids.findings(), models.protect_name_in_path(&matched)).await?;
                    inner.call(request).await.map_err(Into::into)
                }));
            }
            Plan::Refuse(problem) => return InitiatorFuture::rejected(problem),
            Plan::Rewrite(rules) => rules,
        };
        let (Some(identity), Some(access)) = (
            extensions.get::<Identity>().cloned(),
            extensions.get::<Access>().cloned(),
        ) else {
            return InitiatorFuture::rejected(Problem::Misconfigured(
                "initiator: no identity or no access decision",
            ));
        };
        if let Err(problem) = self.rules.bodies.check(request.headers()) {
            return InitiatorFuture::rejected(problem);
        }
        let caller = Caller { identity, access };
        let shared = Arc::clone(&self.rules);
        let mut inner = self.take_ready();
        InitiatorFuture::collecting(Box::pin(async move {
            // The memory is held until the engine has answered: only then has it all of the body.
            let (request, _reading) = rewrite(request, rules, caller, shared).await?;
            inner.call(request).await.map_err(Into::into)
        }))
    }
}

impl<S: Clone> Initiator<S> {
    /// The service that is ready is the one to call; its clone need not be.
    fn take_ready(&mut self) -> S {
        let unready = self.inner.clone();
        std::mem::replace(&mut self.inner, unready)
    }
}

impl Shared {
    /// What to ask where the path names a variable that some model uses for its initiator.
    fn named_in_path(&self, matched: Option<&Matched>) -> Option<(Models, Match)> {
        let (Some(models), Some(Matched::Operation(matched))) = (&self.models, matched) else {
            return None;
        };
        let name = matched.param("varName")?;
        let writes = matched.operation.body_paths.contains(&BodyPath::Segment);
        (writes && self.settings.protect_later_writes && models.known().contains(name))
            .then(|| (models.clone(), matched.clone()))
    }
}

impl Models {
    /// Refuses a path whose variable is the initiator of the model that the request is about.
    async fn protect_name_in_path(&self, matched: &Match) -> Result<(), Problem> {
        let Some(name) = matched.param("varName") else {
            return Ok(());
        };
        let protected = self.protected(matched, None, vec![name.into()]).await?;
        if protected.names.iter().any(|known| **known == *name) {
            return Err(Problem::ProtectedVariable(name.into()));
        }
        Ok(())
    }
}

/// Who sends the request, and what they may.
struct Caller {
    identity: Identity,
    access: Access,
}

/// Reads a request's body and puts the one to send in its place; what is returned beside holds its memory.
async fn rewrite<B>(
    request: Request<B>,
    rules: Rules,
    caller: Caller,
    shared: Arc<Shared>,
) -> Result<(Request<B>, Arc<Reading>), Problem>
where
    B: Body<Data = Bytes> + From<Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    let findings = head.extensions.get::<Findings>().cloned();
    let findings = findings.as_ref();
    let body = shared.bodies.read(&head.headers, body);
    let (body, memory) = waiting(findings, body).await?;
    caller.identity.check_not_long_over()?;
    let models = match (&shared.models, head.extensions.get::<Matched>()) {
        (Some(models), Some(Matched::Operation(matched))) => Some((models, matched)),
        _ => None,
    };
    // A model that is known need not be asked for: then one look at the body is enough.
    let kept = match models {
        Some((models, matched)) => waiting(findings, models.kept(matched)).await,
        None => None,
    };
    let reading = Arc::new(Reading {
        rules,
        caller,
        shared: Arc::clone(&shared),
        known: models.map(|(models, _)| models.known()),
        findings: findings.cloned(),
        body,
        _memory: memory,
    });
    let names = kept.as_ref().map(|kept| kept.names.clone());
    let mut applied = reading.read(names.unwrap_or_default()).await?;
    if let Some((models, matched)) = models {
        if let Some((models, matched)) = shared.named_in_path(head.extensions.get()) {
            let models = models.on_behalf_of(RequestIds::of(&head.extensions));
            let asking = Box::pin(models.protect_name_in_path(&matched));
            waiting(findings, asking).await?;
        }
        let protected = match kept {
            Some(kept) if applied.seen.is_empty() => kept,
            // The engine is asked for the model only once everything else has been checked. Boxed, as it is large.
            kept => {
                let definition = reading.definition(matched).await?;
                // What the first look protected is in the body too, though it was not noted there.
                let mut seen = applied.seen;
                if let Some(kept) = kept {
                    seen.extend(kept.names.iter().cloned());
                }
                let models = models.on_behalf_of(RequestIds::of(&head.extensions));
                let asking = Box::pin(models.protected(matched, definition.as_deref(), seen));
                let protected = waiting(findings, asking).await?;
                if !protected.names.is_empty() {
                    applied.body = reading.read(protected.names.clone()).await?.body;
                }
                protected
            }
        };
        if let (Some(believed), Some(findings)) = (protected.believed, &reading.findings) {
            findings.note_believed(believed);
        }
    }
    if let (Some(metrics), Some(_)) = (&shared.metrics, &applied.body) {
        metrics.rewrote_body();
    }
    let body = applied.body;
    let body = body.map_or_else(|| reading.body.clone(), Bytes::from);
    declare(&mut head.headers, &body);
    Ok((Request::from_parts(head, B::from(body)), reading))
}

/// Refuses a variable by upload to those who may not run code: a part of it may name a Java class that the
/// engine would make of the rest (engine fact, "Multipart, binary, long polls"), and such a body is not read.
fn check_upload(matched: Option<&Matched>, access: Option<&Access>) -> Result<(), Problem> {
    let Some(Matched::Operation(matched)) = matched else {
        return Ok(());
    };
    let operation = matched.operation;
    if operation.encoding != Encoding::Multipart
        || !operation.body_paths.contains(&BodyPath::Segment)
    {
        return Ok(());
    }
    let access = access.ok_or(Problem::Misconfigured("initiator: no access decision"))?;
    if access.members.expressions {
        return Ok(());
    }
    Err(Problem::denied_member(
        operation.id,
        &access.profile,
        "multipart/form-data",
    ))
}

pin_project! {
    /// The future of [`Initiator`]: boxed only where a body is collected.
    pub struct InitiatorFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, R> {
        Checked { #[pin] checked: Checked<F> },
        Collecting { collecting: Collecting<R> },
    }
}

type Collecting<R> = Pin<Box<dyn Future<Output = Result<R, Problem>> + Send>>;

impl<F, R> InitiatorFuture<F, R> {
    fn checked(checked: Checked<F>) -> Self {
        Self {
            state: State::Checked { checked },
        }
    }

    fn rejected(problem: Problem) -> Self {
        Self::checked(Checked::rejected(problem))
    }

    fn collecting(collecting: Collecting<R>) -> Self {
        Self {
            state: State::Collecting { collecting },
        }
    }
}

impl<F, R, E> Future for InitiatorFuture<F, R>
where
    F: Future<Output = Result<R, E>>,
    E: Into<Problem>,
{
    type Output = Result<R, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Checked { checked } => checked.poll(cx),
            StateProjection::Collecting { collecting } => collecting.as_mut().poll(cx),
        }
    }
}

impl<F, R> std::fmt::Debug for InitiatorFuture<F, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitiatorFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
