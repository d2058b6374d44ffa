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
//! A body that is read:
//!
//! 1. must be declared `application/json`, once; without case, parameters ignored. The engine would take
//!    more (`*/json`), and ignores `Content-Encoding`; here another type or encoding is 415, since its
//!    bytes could not be understood. Only an empty body needs no type.
//! 2. is at most `max_body_bytes` long, inclusive; else 413, before it is read where `Content-Length` says so.
//! 3. leaves with `Content-Type: application/json` and its exact `Content-Length`; `Transfer-Encoding`,
//!    `Content-Encoding`, `Expect` and trailers go.
//! 4. counts against a memory for all such bodies together, but for its first 64 KiB, until the
//!    engine has answered; where that is taken, it is 503 `overloaded`: nobody can fill the machine with
//!    bodies that never end.
//! 5. leaves as the very bytes that came where nothing had to be changed.
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
//!     .layer(InitiatorLayer::new(Settings::default(), 16 << 20))
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
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Request};
use http_body::Body;
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{BoxError, Layer, Service};

use super::Checked;
use crate::access::Access;
use crate::body::problem_in;
use crate::identity::Identity;
use crate::initiator::{Plan, Rules, Settings, plan};
use crate::model::Models;
use crate::operation::{BodyPath, Encoding, Match, Matched};
use crate::problem::Problem;
use crate::request_info::Findings;

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
    max_body_bytes: u64,
    /// What all bodies together may hold, in KiB, beside the first of each.
    memory: Arc<Semaphore>,
    models: Option<Models>,
}

impl InitiatorLayer {
    /// Bodies that must be read may have up to `max_body_bytes`, inclusive.
    #[must_use]
    pub fn new(settings: Settings, max_body_bytes: u64) -> Self {
        Self {
            rules: Arc::new(Shared {
                settings,
                max_body_bytes,
                memory: Arc::new(Semaphore::new(budget_kib(max_body_bytes))),
                models: None,
            }),
        }
    }

    /// Fills and protects the initiator variables of the process models too, which the engine is asked for.
    #[must_use]
    pub fn with_models(self, models: Option<Models>) -> Self {
        Self {
            rules: Arc::new(Shared {
                settings: self.rules.settings.clone(),
                max_body_bytes: self.rules.max_body_bytes,
                memory: Arc::clone(&self.rules.memory),
                models,
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
                let mut inner = self.take_ready();
                return InitiatorFuture::collecting(Box::pin(async move {
                    models.protect_name_in_path(&matched).await?;
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
        if let Err(problem) = check_headers(request.headers(), self.rules.max_body_bytes) {
            return InitiatorFuture::rejected(problem);
        }
        let caller = Caller { identity, access };
        let shared = Arc::clone(&self.rules);
        let mut inner = self.take_ready();
        InitiatorFuture::collecting(Box::pin(async move {
            // The memory is held until the engine has answered: only then has it all of the body.
            let (request, _memory) = rewrite(request, rules, &caller, &shared).await?;
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
        (writes && self.settings.protect_later_writes && models.knows(name))
            .then(|| (models.clone(), matched.clone()))
    }
}

impl Models {
    /// Refuses a path whose variable is the initiator of the model that the request is about.
    async fn protect_name_in_path(&self, matched: &Match) -> Result<(), Problem> {
        let Some(name) = matched.param("varName") else {
            return Ok(());
        };
        let protected = self.protected(matched, &[], vec![name.into()]).await?;
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

/// Reads a request's body and puts the one to send in its place.
async fn rewrite<B>(
    request: Request<B>,
    rules: Rules,
    caller: &Caller,
    shared: &Shared,
) -> Result<(Request<B>, Option<Memory>), Problem>
where
    B: Body<Data = Bytes> + From<Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = request.into_parts();
    let (received, memory) = collect(body, shared).await?;
    if !received.is_empty() && !head.headers.contains_key(CONTENT_TYPE) {
        return Err(Problem::UnsupportedMediaType(NOT_JSON));
    }
    let apply = |model: &[Box<str>]| {
        rules.apply(
            &shared.settings,
            &caller.identity,
            &caller.access,
            model,
            head.extensions.get(),
            &received,
        )
    };
    // The engine is asked for the model only once everything else has been checked.
    let mut rewritten = apply(&[])?;
    if let (Some(models), Some(Matched::Operation(matched))) =
        (&shared.models, head.extensions.get::<Matched>())
    {
        if let Some((models, matched)) = shared.named_in_path(head.extensions.get()) {
            models.protect_name_in_path(&matched).await?;
        }
        let seen = if models.know_any() {
            let meant = |name: &str| models.knows(name);
            rules.names_in(
                &shared.settings,
                &caller.identity,
                &caller.access,
                meant,
                &received,
            )
        } else {
            Vec::new()
        };
        let protected = models.protected(matched, &received, seen).await?;
        if !protected.names.is_empty() {
            rewritten = apply(&protected.names)?;
        }
        if let (Some(believed), Some(findings)) =
            (protected.believed, head.extensions.get::<Findings>())
        {
            findings.note_believed(believed);
        }
    }
    let body = rewritten.map_or_else(|| received.clone(), Bytes::from);
    for name in [TRANSFER_ENCODING, CONTENT_ENCODING, TRAILER, EXPECT] {
        head.headers.remove(name);
    }
    head.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    Ok((Request::from_parts(head, B::from(body)), memory))
}

/// Refuses a variable by upload to those who act for themselves alone: a part of it may name a Java class
/// that the engine would make of the rest (engine fact, "Multipart, binary, long polls"), and such a body
/// is not read.
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
    if access.members.others {
        return Ok(());
    }
    Err(Problem::denied_member(
        operation.id,
        &access.profile,
        "multipart/form-data",
    ))
}

/// Refuses what can be refused before the body is read.
fn check_headers(headers: &HeaderMap, max_bytes: u64) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if types.next().is_some_and(|value| !is_json(value)) || types.next().is_some() {
        return Err(Problem::UnsupportedMediaType(NOT_JSON));
    }
    if headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        !value
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
    }) {
        return Err(Problem::UnsupportedMediaType(
            "The body must be read and is declared as encoded. Send it without Content-Encoding.",
        ));
    }
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > max_bytes) {
        return Err(Problem::BodyTooLarge(max_bytes));
    }
    Ok(())
}

fn is_json(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b';')
        .next()
        .is_some_and(|media_type| {
            media_type
                .trim_ascii()
                .eq_ignore_ascii_case(JSON.as_bytes())
        })
}

/// What one body holds of the memory for all.
type Memory = OwnedSemaphorePermit;

/// Collects a body of at most `max_body_bytes`, and holds what it takes of the memory for all; its
/// trailers are dropped.
async fn collect<B>(body: B, shared: &Shared) -> Result<(Bytes, Option<Memory>), Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let max_bytes = shared.max_body_bytes;
    let too_large = |bytes: usize| u64::try_from(bytes).is_ok_and(|bytes| bytes > max_bytes);
    let mut memory: Option<Memory> = None;
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame
            .map_err(|error| problem_in(&*error.into()).unwrap_or(Problem::ClientGone))?
            .into_data()
        else {
            continue;
        };
        let so_far = first.len().saturating_add(all.len());
        if too_large(so_far.saturating_add(data.len())) {
            return Err(Problem::BodyTooLarge(max_bytes));
        }
        let taken = memory.as_ref().map_or(0, Memory::num_permits);
        let needed = so_far
            .saturating_add(data.len())
            .saturating_sub(SMALL_BYTES);
        if let Some(more) = needed
            .div_ceil(1024)
            .checked_sub(taken)
            .filter(|&more| more > 0)
        {
            let more = u32::try_from(more).map_err(|_| Problem::Overloaded)?;
            let more = Arc::clone(&shared.memory)
                .try_acquire_many_owned(more)
                .map_err(|_| Problem::Overloaded)?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
        }
        if so_far == 0 {
            // Most bodies are one piece, which is not copied.
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    Ok((whole, memory))
}

/// As much as [`LARGEST_BODIES`] of the largest take.
fn budget_kib(max_body_bytes: u64) -> usize {
    let budget = max_body_bytes.div_ceil(1024).saturating_mul(LARGEST_BODIES);
    usize::try_from(budget).map_or(Semaphore::MAX_PERMITS, |budget| {
        budget.min(Semaphore::MAX_PERMITS)
    })
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

const JSON: &str = "application/json";

/// A body up to here takes nothing of the memory for all: starts go on while others send large bodies, and
/// the requests in flight are bounded anyway.
const SMALL_BYTES: usize = 64 * 1024;

/// So many of the largest bodies may be held at once; more are 503 `overloaded`.
const LARGEST_BODIES: u64 = 64;

/// What the caller reads where the body is declared as something else.
const NOT_JSON: &str =
    "The body must be read and is not declared as JSON. Send one Content-Type: application/json.";

#[cfg(test)]
mod tests;
