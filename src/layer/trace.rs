//! A span for each request as its client sees it, and the trace it belongs to.
//!
//! The span begins when the request's head has been read and ends with the answer's body. It continues the trace of a valid
//! `traceparent`; without one it begins a trace, and a `tracestate` that belongs to none goes. That a trace is sampled is believed of
//! trusted proxies: of what others call sampled, no larger share is than of the traces that begin here. Names and attributes are those of
//! OpenTelemetry's conventions for HTTP servers, with one exception: a path stands there as its route, since paths hold ids, and queries
//! never do.
//!
//! Stands next below [`ObserveLayer`](crate::layer::ObserveLayer), which puts [`Findings`] and [`RequestInfo`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::Span;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::observe::method_label;
use crate::body::Guarded;
use crate::forwarded::{Forwarded, TrustedProxies};
use crate::request_info::{Findings, RequestInfo};
use crate::trace_context::{self, TRACESTATE, TraceParent};
use crate::traces::{self, ABORTED, SaidBy, Traces, set};

/// Makes a span of each request; see the [module](self).
#[derive(Debug, Clone)]
pub struct TraceLayer(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    traces: Traces,
    trusted: TrustedProxies,
}

impl TraceLayer {
    /// Clients' addresses, and which traces are sampled, are taken from what `trusted` proxies say. Without `traces` it does
    /// nothing.
    #[must_use]
    pub fn new(traces: impl Into<Option<Traces>>, trusted: TrustedProxies) -> Self {
        let traces = traces.into();
        Self(traces.map(|traces| Arc::new(Rules { traces, trusted })))
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace {
            rules: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`TraceLayer`].
#[derive(Debug, Clone)]
pub struct Trace<S> {
    rules: Option<Arc<Rules>>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<Guarded<R>>, Error = Infallible>,
    R: HttpBody,
{
    type Response = Response<Guarded<R>>;
    type Error = Infallible;
    type Future = Traced<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let span = self
            .rules
            .as_ref()
            .and_then(|rules| rules.begin(&mut request));
        Traced {
            span,
            inner: self.inner.call(request),
        }
    }
}

impl Rules {
    /// The span, where it is recorded; inner layers hear of it in any case.
    fn begin<B>(&self, request: &mut Request<B>) -> Option<Box<ServerSpan>> {
        let Self { traces, trusted } = self;
        let parent = context_of(request);
        let method = method_label(request.method());
        let peer = request.extensions().get::<RequestInfo>();
        let peer = peer.and_then(|info| info.peer);
        let said_by = if peer.is_some_and(|peer| trusted.contains(peer.address)) {
            SaidBy::Trusted
        } else {
            SaidBy::Stranger
        };
        let span = traces.begin(method, SpanKind::Server, parent, said_by);
        let context = span.span_context().clone();
        let findings = request.extensions().get::<Findings>().cloned();
        // It is none once the provider has been shut down.
        let findings = findings.filter(|_| context.is_valid())?;
        let trace_id = trace_context::TraceId::parse(&context.trace_id().to_string());
        if let Some(trace_id) = trace_id {
            findings.note_trace_id(trace_id);
        }
        let recorded = span.is_recording().then(|| {
            findings.note_recorded(());
            let span = ServerSpan::of(request, span, findings, trusted, traces);
            Box::new(span)
        });
        request.extensions_mut().insert(context);
        recorded
    }
}

/// The context that the client names; without one `tracestate` has no meaning (W3C Trace Context §3.3).
fn context_of<B>(request: &mut Request<B>) -> SpanContext {
    let headers = request.headers_mut();
    let named = TraceParent::of(headers).and_then(|parent| {
        let trace_id = TraceId::from_hex(parent.trace_id.as_str()).ok()?;
        let span_id = SpanId::from_hex(parent.parent_id()).ok()?;
        let states = headers.get_all(TRACESTATE).iter();
        let states: Result<Vec<_>, _> = states.map(http::HeaderValue::to_str).collect();
        let state = states.ok().and_then(|states| states.join(",").parse().ok());
        let flags = TraceFlags::new(parent.flags());
        let state: TraceState = state.unwrap_or_default();
        Some(SpanContext::new(trace_id, span_id, flags, true, state))
    });
    named.unwrap_or_else(|| {
        headers.remove(TRACESTATE);
        SpanContext::empty_context()
    })
}

pin_project! {
    /// The future of [`Trace`].
    pub struct Traced<F> {
        // Boxed, as most gateways make no spans, and futures are moved from layer to layer.
        span: Option<Box<ServerSpan>>,
        #[pin]
        inner: F,
    }

    impl<F> PinnedDrop for Traced<F> {
        fn drop(this: Pin<&mut Self>) {
            // Still here: the client went away before there was an answer.
            if let Some(span) = this.project().span.take() {
                span.end(None, false);
            }
        }
    }
}

impl<F, R> Future for Traced<F>
where
    F: Future<Output = Result<Response<Guarded<R>>, Infallible>>,
    R: HttpBody,
{
    type Output = Result<Response<Guarded<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx))?;
        let Some(span) = this.span.take() else {
            return Poll::Ready(Ok(answer));
        };
        let status = answer.status();
        Poll::Ready(Ok(answer.map(|body| {
            body.on_end(move |ended| span.end(Some(status), ended.complete))
        })))
    }
}

/// A span that is recorded.
struct ServerSpan {
    span: Span,
    method: Method,
    findings: Findings,
    users: bool,
}

impl ServerSpan {
    fn of<B>(
        request: &Request<B>,
        mut span: Span,
        findings: Findings,
        trusted: &TrustedProxies,
        traces: &Traces,
    ) -> Self {
        let method = request.method().clone();
        set(&mut span, "http.request.method", method_label(&method));
        if let Some(version) = protocol(request.version()) {
            set(&mut span, "network.protocol.version", version);
        }
        let info = request.extensions().get::<RequestInfo>();
        let peer = info.and_then(|info| info.peer);
        let forwarded = Forwarded::of(request.headers(), request.uri(), peer, trusted);
        set(&mut span, "url.scheme", forwarded.origin.proto);
        if let Some(client) = forwarded.client() {
            set(&mut span, "client.address", client.to_owned());
        }
        let host = forwarded.origin.plain_host();
        if let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) {
            set(&mut span, "server.address", host.host().to_owned());
            if let Some(port) = host.port_u16() {
                set(&mut span, "server.port", i64::from(port));
            }
        }
        if let Some(info) = info {
            set(&mut span, "bpmgate.request_id", info.id().to_owned());
        }
        Self {
            span,
            method,
            findings,
            users: traces.names_users(),
        }
    }

    fn end(self, status: Option<StatusCode>, complete: bool) {
        let Self {
            mut span,
            method,
            findings,
            users,
        } = self;
        let operation = findings.operation().copied();
        let route = operation.map(|row| row.path).or(findings.route().copied());
        span.update_name(traces::name(method_label(&method), route));
        if let Some(route) = route {
            set(&mut span, "http.route", route);
            set(&mut span, "url.path", route);
        }
        traces::set_operation(&mut span, operation, &findings);
        if let Some(profile) = findings.profile() {
            set(&mut span, "bpmgate.profile", profile.clone());
        }
        if let (true, Some(identity)) = (users, findings.subject()) {
            set(&mut span, "enduser.id", identity.id().to_owned());
        }
        // The body of an answer to HEAD is not asked for.
        let complete = complete || (method == Method::HEAD && status.is_some());
        let code = (!complete).then_some(ABORTED).or(findings.code().copied());
        traces::set_outcome(&mut span, status, SERVER_ERROR, code);
        span.end();
    }
}

fn protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// What a client did wrong is no error of a server.
const SERVER_ERROR: u16 = 500;
