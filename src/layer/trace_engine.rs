//! A span for what the engine takes of a request, which the engine can continue.
//!
//! The engine gets this span as `traceparent`, also where it is not sampled; `tracestate` and `baggage` pass as they came. The span is around
//! all tries, and ends with the head of the answer; of several nodes it names the last that was tried. Attributes are those of OpenTelemetry's conventions for HTTP clients but `url.full`:
//! paths hold ids.
//!
//! Stands next to the engine, and does nothing where [`TraceLayer`](crate::layer::TraceLayer) does not stand above.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use opentelemetry::trace::{Span as _, SpanContext, SpanKind};
use opentelemetry_sdk::trace::Span;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::observe::method_label;
use crate::engine::nodes::SentTo;
use crate::problem::Problem;
use crate::request_info::Findings;
use crate::trace_context::TRACEPARENT;
use crate::traces::{self, ABORTED, SaidBy, Traces, set};

/// Makes a span of each call of the engine; see the [module](self).
#[derive(Debug, Clone)]
pub struct TraceEngineLayer(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    traces: Traces,
    /// In the nodes' order.
    addresses: Arc<[(Arc<str>, u16)]>,
}

impl TraceEngineLayer {
    /// The engine's nodes are at these hosts and ports. Without `traces` it does nothing.
    #[must_use]
    pub fn new(traces: impl Into<Option<Traces>>, addresses: &[(String, u16)]) -> Self {
        let addresses = addresses.iter();
        let addresses = addresses
            .map(|(host, port)| (Arc::from(host.as_str()), *port))
            .collect();
        let rules = |traces| Arc::new(Rules { traces, addresses });
        Self(traces.into().map(rules))
    }
}

impl<S> Layer<S> for TraceEngineLayer {
    type Service = TraceEngine<S>;

    fn layer(&self, inner: S) -> TraceEngine<S> {
        TraceEngine {
            rules: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`TraceEngineLayer`].
#[derive(Debug, Clone)]
pub struct TraceEngine<S> {
    rules: Option<Arc<Rules>>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for TraceEngine<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Problem>,
{
    type Response = Response<R>;
    type Error = Problem;
    type Future = TracedEngine<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let span = self.rules.as_ref().and_then(|rules| {
            let parent = request.extensions().get::<SpanContext>().cloned();
            rules.begin(&mut request, parent?)
        });
        TracedEngine {
            span: span.map(Box::new),
            inner: self.inner.call(request),
        }
    }
}

impl Rules {
    /// The span, where it is recorded; the engine hears of it in any case.
    fn begin<B>(&self, request: &mut Request<B>, parent: SpanContext) -> Option<EngineSpan> {
        let method = method_label(request.method());
        let (kind, said_by) = (SpanKind::Client, SaidBy::Trusted);
        let mut span = self.traces.begin(method, kind, parent, said_by);
        let context = span.span_context();
        if let Some(value) = traces::traceparent(context).filter(|_| context.is_valid()) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        if !span.is_recording() {
            return None;
        }
        set(&mut span, "http.request.method", method);
        if let Some(findings) = request.extensions().get::<Findings>() {
            let operation = findings.operation().copied();
            let template = operation.map(|row| row.path);
            span.update_name(traces::name(method, template));
            if let Some(template) = template {
                set(&mut span, "url.template", template);
            }
            traces::set_operation(&mut span, operation, findings);
        }
        let sent_to = (self.addresses.len() > 1).then(SentTo::nobody);
        if let Some(sent_to) = &sent_to {
            request.extensions_mut().insert(sent_to.clone());
        }
        Some(EngineSpan {
            span,
            addresses: self.addresses.clone(),
            sent_to,
        })
    }
}

/// A span that is recorded.
struct EngineSpan {
    span: Span,
    addresses: Arc<[(Arc<str>, u16)]>,
    /// Where there are several nodes.
    sent_to: Option<SentTo>,
}

impl EngineSpan {
    fn end(mut self, status: Option<StatusCode>, code: Option<&'static str>) {
        let node = match &self.sent_to {
            Some(sent_to) => sent_to.node(),
            None => Some(0),
        };
        if let Some((host, port)) = node.and_then(|node| self.addresses.get(node)) {
            set(&mut self.span, "server.address", host.clone());
            set(&mut self.span, "server.port", i64::from(*port));
        }
        traces::set_outcome(&mut self.span, status, CLIENT_ERROR, code);
        self.span.end();
    }
}

pin_project! {
    /// The future of [`TraceEngine`].
    pub struct TracedEngine<F> {
        // Boxed, as most gateways make no spans, and futures are moved from layer to layer.
        span: Option<Box<EngineSpan>>,
        #[pin]
        inner: F,
    }

    impl<F> PinnedDrop for TracedEngine<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(span) = this.project().span.take() {
                span.end(None, Some(ABORTED));
            }
        }
    }
}

impl<F, R> Future for TracedEngine<F>
where
    F: Future<Output = Result<Response<R>, Problem>>,
{
    type Output = Result<Response<R>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        if let Some(span) = this.span.take() {
            match &answer {
                Ok(answer) => span.end(Some(answer.status()), None),
                Err(problem) => span.end(None, Some(problem.code())),
            }
        }
        Poll::Ready(answer)
    }
}

/// Who asked for something wrong has an error.
const CLIENT_ERROR: u16 = 400;
