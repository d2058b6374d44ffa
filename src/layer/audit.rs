//! Records who did what: one record in the audit log per operation that writes, and per denial.
//!
//! Recorded are every operation of the catalogue whose kind is not `read`, what is no operation and is sent with
//! another method than GET, HEAD or OPTIONS, and whatever is denied below: 403 `access_denied`,
//! `protected_variable` and `cannot_attribute`, 404 and 405. A read that passes costs no record.
//!
//! 1. A request that writes goes on only with a [`Slot`], so there is room for its record; without one it is 503
//!    `audit_unavailable`, and the engine does not see it. A denied read takes its slot when it is denied; if there
//!    is none it is 503 too, and an `error` event says what is not in the audit log.
//! 2. The record is written when the answer's body has ended, has broken off, or was dropped with its client.
//! 3. Which instances were started is read from a copy of the answer's first [`MAX_LOOKED_AT`] bytes while they pass;
//!    nothing is held back, and nothing is changed.
//!
//! Stands below [`MatchOperationLayer`](crate::layer::MatchOperationLayer), whose [`Matched`] says what it is, and above
//! [`AuthorizeLayer`](crate::layer::AuthorizeLayer), whose denials it sees. Needs [`Identity`] and [`Matched`]; without
//! them it fails closed. What layers below it find out comes back in [`Findings`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::error;

use crate::access_log::milliseconds;
use crate::audit::{AuditLog, Outcome, Record, Slot, cut, instances};
use crate::body::{Body, BoxError};
use crate::forwarded::{Forwarded, TrustedProxies};
use crate::identity::Identity;
use crate::operation::{Kind, Matched};
use crate::problem::Problem;
use crate::request_info::{Findings, RequestInfo};
use crate::trace_context::TraceId;

/// How much of an answer is looked at for the instances it names.
pub const MAX_LOOKED_AT: usize = 64 * 1024;

/// Records what is done and what is denied; see the [module](self).
///
/// # Examples
/// ```
/// use bpmgate::audit::{AuditLog, Target};
/// use bpmgate::identity::{Identity, Parts};
/// use bpmgate::layer::AuditLayer;
/// use bpmgate::{Body, Problem, operation::Catalogue};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("audit.log");
/// let log = AuditLog::open(&Target::File(file.clone()), 100)?;
/// let engine = tower::service_fn(|_: Request<()>| async { Ok::<_, Problem>(Response::new(Body::empty())) });
/// let service = AuditLayer::new(log, Default::default()).layer(engine);
///
/// let mut request = Request::delete("/process-instance/17").body(())?;
/// // In the gateway the layers above put these.
/// let matched = Catalogue::builtin().find(request.method(), request.uri().path());
/// request.extensions_mut().insert(matched);
/// let alice = Parts::new("https://id.example", "alice", std::time::SystemTime::now());
/// request.extensions_mut().insert(Identity::new(alice));
/// service.oneshot(request).await?;
///
/// // The last handle of the log is gone with the service: all is written.
/// let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
/// assert_eq!(line["subject"], "alice");
/// assert_eq!(line["operation"], "deleteProcessInstance");
/// assert_eq!(line["params"]["id"], "17");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct AuditLayer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    log: AuditLog,
    trusted: TrustedProxies,
}

impl AuditLayer {
    /// Records to this log; clients' addresses are taken from what `trusted` proxies say. Without a log it does nothing.
    #[must_use]
    pub fn new(log: impl Into<Option<AuditLog>>, trusted: TrustedProxies) -> Self {
        let log = log.into();
        Self(log.map(|log| Arc::new(Shared { log, trusted })))
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// The service of [`AuditLayer`].
#[derive(Debug, Clone)]
pub struct Audit<S> {
    inner: S,
    shared: Option<Arc<Shared>>,
}

impl<S, B> Service<Request<B>> for Audit<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<Problem>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = AuditFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(shared) = &self.shared else {
            return AuditFuture::watching(self.inner.call(request), None);
        };
        let mut recording = match Recording::begin(shared, &mut request) {
            Ok(recording) => Box::new(recording),
            Err(problem) => return AuditFuture::waiting(async move { Err(problem) }),
        };
        if recording.writes {
            // Which instances were started is read from the answer: no caller chooses a form that hides them.
            let plain = HeaderValue::from_static("identity");
            request.headers_mut().insert(ACCEPT_ENCODING, plain);
            recording.slot = shared.log.try_slot();
            if recording.slot.is_none() {
                // The service that is ready is the one to call; its clone need not be.
                let unready = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, unready);
                return AuditFuture::waiting(async move {
                    recording.slot = Some(recording.shared.log.slot().await?);
                    AuditFuture::watching(inner.call(request), Some(recording)).await
                });
            }
        }
        AuditFuture::watching(self.inner.call(request), Some(recording))
    }
}

pin_project! {
    /// The future of [`Audit`]: boxed only where there is no room for a record at once.
    pub struct AuditFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        // Boxed, as futures are moved from layer to layer, and most gateways keep no such log.
        Watching { #[pin] inner: F, recording: Option<Box<Recording>> },
        Waiting { future: Waiting },
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>>;

impl<F> AuditFuture<F> {
    fn watching(inner: F, recording: Option<Box<Recording>>) -> Self {
        Self {
            state: State::Watching { inner, recording },
        }
    }

    fn waiting(
        future: impl Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
    ) -> Self {
        let future = Box::pin(future);
        Self {
            state: State::Waiting { future },
        }
    }
}

impl<F, E> Future for AuditFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<Problem>,
{
    type Output = Result<Response<Body>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Waiting { future } => future.as_mut().poll(cx),
            StateProjection::Watching { inner, recording } => {
                let answer = ready!(inner.poll(cx)).map_err(Into::into);
                Poll::Ready(match (recording.take(), answer) {
                    (None, answer) => answer,
                    (Some(recording), Ok(answer)) => Ok(recording.answered(answer)),
                    (Some(recording), Err(problem)) => Err(recording.refused(problem)),
                })
            }
        }
    }
}

impl<F> std::fmt::Debug for AuditFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditFuture").finish_non_exhaustive()
    }
}

/// What is known of a request so far. With a slot it becomes a record when it is dropped, however that comes about.
struct Recording {
    shared: Arc<Shared>,
    slot: Option<Slot>,
    writes: bool,
    received: Instant,
    time: SystemTime,
    request_id: Option<RequestInfo>,
    caller: Identity,
    matched: Matched,
    method: Method,
    /// Of a request that is no operation.
    path: Option<String>,
    client: Option<String>,
    findings: Findings,
    outcome: Outcome,
    code: Option<&'static str>,
    status: Option<u16>,
    complete: Option<bool>,
    look: Look,
}

/// What of the answer is kept to look for instances in.
enum Look {
    Not,
    At(Vec<u8>),
    Beyond(Vec<u8>),
}

impl Recording {
    fn begin<B>(shared: &Arc<Shared>, request: &mut Request<B>) -> Result<Self, Problem> {
        let missing = "AuditLayer needs ExtractIdentityLayer and MatchOperationLayer outside of it";
        let extensions = request.extensions();
        let (Some(caller), Some(matched)) = (
            extensions.get::<Identity>().cloned(),
            extensions.get::<Matched>().cloned(),
        ) else {
            return Err(Problem::Misconfigured(missing));
        };
        let info = extensions.get::<RequestInfo>().cloned();
        let (writes, path) = match &matched {
            Matched::Operation(found) => (found.operation.kind != Kind::Read, None),
            Matched::Unknown | Matched::OtherMethods(_) => {
                let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
                let path = cut(request.uri().path());
                (!reads.contains(request.method()), Some(path))
            }
        };
        let peer = info.as_ref().and_then(|info| info.peer);
        let forwarded = Forwarded::of(request.headers(), request.uri(), peer, &shared.trusted);
        let (now, received) = match &info {
            Some(info) => (SystemTime::now(), info.received),
            None => (SystemTime::now(), Instant::now()),
        };
        Ok(Self {
            shared: shared.clone(),
            slot: None,
            writes,
            received,
            time: now.checked_sub(received.elapsed()).unwrap_or(now),
            request_id: info,
            caller,
            matched,
            method: request.method().clone(),
            path,
            client: forwarded.client().map(str::to_owned),
            findings: request
                .extensions_mut()
                .get_or_insert_default::<Findings>()
                .clone(),
            outcome: Outcome::Abandoned,
            code: None,
            status: None,
            complete: None,
            look: Look::Not,
        })
    }

    /// Watches the answer's body, if there is a record to write.
    fn answered(mut self: Box<Self>, answer: Response<Body>) -> Response<Body> {
        if self.slot.is_none() {
            return answer;
        }
        self.outcome = Outcome::Forwarded;
        self.status = Some(answer.status().as_u16());
        self.complete = Some(false);
        let names_instances = matches!(
            &self.matched,
            Matched::Operation(found) if matches!(found.operation.kind, Kind::Start | Kind::Correlate)
        );
        if names_instances && answer.status().is_success() && is_plain_json(&answer) {
            self.look = Look::At(Vec::new());
        }
        answer.map(|inner| {
            let recording = Some(self);
            Body::stream(Watched { inner, recording })
        })
    }

    /// The answer to a request that ended with a problem.
    fn refused(mut self: Box<Self>, problem: Problem) -> Problem {
        self.code = Some(problem.code());
        self.status = Some(problem.status().as_u16());
        let is_denial = is_denial(&problem);
        self.outcome = if is_denial {
            Outcome::Denied
        } else {
            Outcome::Failed
        };
        if is_denial && self.slot.is_none() {
            self.slot = self.shared.log.try_slot();
            if self.slot.is_none() {
                let record = self.record();
                error!(
                    request_id = record.request_id,
                    trace_id = self.findings.trace_id().map(TraceId::as_str),
                    issuer = record.issuer,
                    subject = record.subject,
                    operation = record.operation,
                    code = record.code,
                    "a denial is not in the audit log"
                );
                return Problem::AuditUnavailable;
            }
        }
        problem
    }

    fn look_at(&mut self, data: &Bytes) {
        if let Look::At(seen) = &mut self.look {
            let room = MAX_LOOKED_AT.saturating_sub(seen.len());
            seen.extend(data.iter().take(room));
            if data.len() > room {
                self.look = Look::Beyond(std::mem::take(seen));
            }
        }
    }

    fn record(&mut self) -> Record {
        let request_id = self.request_id.as_ref().map_or("", RequestInfo::id);
        let mut record = Record::new(self.time, request_id, &self.caller, self.method.as_str());
        if let Matched::Operation(matched) = &self.matched {
            record.set_operation(matched);
        }
        let findings = &self.findings;
        record.trace_id = findings.trace_id().map(|id| id.as_str().to_owned());
        record.outcome = self.outcome;
        record.code = self.code;
        record.status = self.status;
        record.complete = self.complete;
        record.duration_ms = milliseconds(self.received.elapsed());
        record.profile = findings.profile().map(ToString::to_string);
        record.rule = findings.rule().copied();
        record.path = self.path.take();
        record.business_key = findings.business_key().cloned();
        record.event = findings.event().cloned();
        record.reason = findings.reason().cloned();
        record.model_changed = findings.model_changed().is_some();
        record.client = self.client.take();
        (record.instances, record.instances_cut) = match &self.look {
            Look::Not => (Vec::new(), false),
            Look::At(seen) => (instances(seen), false),
            Look::Beyond(seen) => (instances(seen), true),
        };
        record
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.write(self.record());
        }
    }
}

/// What access and the protection of the initiator refuse.
fn is_denial(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::AccessDenied(_)
            | Problem::ProtectedVariable(_)
            | Problem::CannotAttribute(_)
            | Problem::NotFound
            | Problem::MethodNotAllowed(_)
    )
}

/// Whether the answer's bytes are JSON as they are.
fn is_plain_json(answer: &Response<Body>) -> bool {
    let is_json = |value: &[u8]| value.windows(4).any(|at| at.eq_ignore_ascii_case(b"json"));
    let headers = answer.headers();
    !headers.contains_key(CONTENT_ENCODING)
        && headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| is_json(value.as_bytes()))
}

pin_project! {
    /// An answer's body that is looked at while it passes.
    struct Watched {
        #[pin]
        inner: Body,
        recording: Option<Box<Recording>>,
    }

    impl PinnedDrop for Watched {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // A body that has been sent whole is often not polled to its `None`.
            if let Some(recording) = this.recording {
                recording.complete = Some(this.inner.is_end_stream());
            }
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(recording), Some(data)) = (&mut *this.recording, frame.data_ref()) {
                    recording.look_at(data);
                }
            }
            Some(Err(_)) => *this.recording = None,
            None => {
                if let Some(mut recording) = this.recording.take() {
                    recording.complete = Some(true);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
