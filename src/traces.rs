//! Spans of requests: who makes them, and what all of them say alike.
//!
//! The layers that make them are [`TraceLayer`](crate::layer::TraceLayer), for a request as its client sees it, and
//! [`TraceEngineLayer`](crate::layer::TraceEngineLayer), for what the engine takes of it. With the feature `server`, `export` sends them away.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use crate::operation::Operation;
use crate::request_info::Findings;

#[cfg(feature = "server")]
pub(crate) mod export;

/// Makes spans. Clones make them for the same provider.
#[derive(Debug, Clone)]
pub struct Traces(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    users: bool,
}

impl Traces {
    /// The provider samples, and sends what has ended.
    #[must_use]
    pub fn new(provider: SdkTracerProvider) -> Self {
        Self::naming_users(provider, false)
    }

    /// `users` says whether spans name the caller (`enduser.id`).
    #[must_use]
    pub fn naming_users(provider: SdkTracerProvider, users: bool) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self(Arc::new(Shared {
            tracer: provider.tracer_with_scope(scope),
            provider,
            users,
        }))
    }

    /// Sends what has ended, waits for that at most so long, and makes no more spans.
    pub fn shutdown(&self, within: Duration) {
        // Who does not answer in time is not waited for; what is lost then has been counted or is told by nobody.
        let _ = self.0.provider.shutdown_with_timeout(within);
    }

    pub(crate) fn begin(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: SpanContext,
        said_by: SaidBy,
    ) -> Span {
        // The sampler takes a context of nothing for one that is not sampled.
        let parent = if parent.is_valid() {
            Context::new()
                .with_remote_span_context(parent)
                .with_value(said_by)
        } else {
            Context::new()
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        self.0.tracer.build_with_context(builder, &parent)
    }

    pub(crate) fn names_users(&self) -> bool {
        self.0.users
    }
}

/// Whose word it is that a parent is sampled; the sampler finds it in the parent's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaidBy {
    /// Ours, or that of a trusted proxy.
    Trusted,
    /// Anybody's.
    Stranger,
}

/// The context as `traceparent` says it.
pub(crate) fn traceparent(context: &SpanContext) -> Option<HeaderValue> {
    let text = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags().to_u8()
    );
    HeaderValue::try_from(text).ok()
}

/// `{method} {route}`, which are few; a method that a client made up is `HTTP`.
pub(crate) fn name(method: &'static str, route: Option<&str>) -> String {
    let method = if method == OTHER { "HTTP" } else { method };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

/// Which operation it is.
pub(crate) fn set_operation(span: &mut Span, operation: Option<&Operation>, findings: &Findings) {
    if let Some(operation) = operation {
        set(span, "bpmgate.operation", operation.id);
    }
    if let Some(key) = findings.process_key() {
        set(span, "bpmgate.process_key", key.clone());
    }
}

/// What came of it: the status from `least_error` on is an error, and `code` says which where there was no such status to tell.
pub(crate) fn set_outcome(
    span: &mut Span,
    status: Option<StatusCode>,
    least_error: u16,
    code: Option<&'static str>,
) {
    if let Some(status) = status {
        set(
            span,
            "http.response.status_code",
            i64::from(status.as_u16()),
        );
    }
    let is_error = status.is_none_or(|status| status.as_u16() >= least_error);
    match (code, status) {
        (Some(code), _) => set(span, "error.type", code),
        (None, Some(status)) if is_error => set(span, "error.type", status.as_str().to_owned()),
        (None, _) => {}
    }
    if is_error {
        span.set_status(Status::error(""));
    }
}

pub(crate) fn set(span: &mut Span, key: &'static str, value: impl Into<Value>) {
    span.set_attribute(KeyValue::new(key, value));
}

/// A method that is none of the known ones.
pub(crate) const OTHER: &str = "_OTHER";

/// Of what has no answer, as the client went away.
pub(crate) const ABORTED: &str = "aborted";
