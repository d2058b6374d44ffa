//! The outermost layer: gives the request its id, and reports it once its answer's body has ended.
//!
//! Puts [`RequestInfo`] and an empty [`Findings`] into the extensions, which inner layers fill. The
//! report is one access log line: method, normalized route, status, duration, subject; never a token,
//! a raw path or a query. A client that goes away before its answer is reported as `aborted`.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tower::{Layer, Service};
use uuid::{NoContext, Timestamp, Uuid};

use super::engine_headers::X_REQUEST_ID;
use crate::access_log::{AccessLine, AccessLog};
use crate::body::{BoxError, Ended, Guarded};
use crate::metrics::Metrics;
use crate::request_info::{Findings, Peer, RequestInfo};
use crate::trace_context::{TraceId, TraceParent};

/// Gives every request an id and logs one line when its answer has ended.
///
/// # Examples
/// ```
/// use bpmgate::layer::ObserveLayer;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let hello = tower::service_fn(|_: Request<()>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
/// });
/// let answer = ObserveLayer::new().layer(hello).oneshot(Request::new(())).await.unwrap();
/// assert!(answer.headers().contains_key("x-request-id"));
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ObserveLayer(Arc<Observers>);

#[derive(Debug, Clone, Default)]
struct Observers {
    metrics: Option<Metrics>,
    access_log: Option<AccessLog>,
}

impl ObserveLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts every request too.
    #[must_use]
    pub fn with_metrics(metrics: Metrics) -> Self {
        Self(Arc::new(Observers {
            metrics: Some(metrics),
            access_log: None,
        }))
    }

    /// Gives the lines of the access log to this one, in place of `tracing`.
    #[must_use]
    pub fn with_access_log(self, access_log: Option<AccessLog>) -> Self {
        Self(Arc::new(Observers {
            access_log,
            ..Arc::unwrap_or_clone(self.0)
        }))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            observers: self.0.clone(),
        }
    }
}

/// The service of [`ObserveLayer`].
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    observers: Arc<Observers>,
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: HttpBody<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<Guarded<R>>;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let time = SystemTime::now();
        let info = RequestInfo {
            id: request_id(request.headers().get(X_REQUEST_ID), time),
            peer: request.extensions().get::<Peer>().copied(),
            received: Instant::now(),
            time,
        };
        let findings = Findings::default();
        if let Some(parent) = TraceParent::of(request.headers()) {
            findings.note_trace_id(parent.trace_id);
        }
        let report = Report {
            method: request.method().clone(),
            info: info.clone(),
            findings: findings.clone(),
            status: None,
            observers: self.observers.clone(),
        };
        if let Some(metrics) = &self.observers.metrics {
            metrics.began();
        }
        request.extensions_mut().insert(info);
        request.extensions_mut().insert(findings);
        Observed {
            report: Some(report),
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`Observe`].
    #[derive(Debug)]
    pub struct Observed<F> {
        report: Option<Report>,
        #[pin]
        inner: F,
    }

    impl<F> PinnedDrop for Observed<F> {
        fn drop(this: Pin<&mut Self>) {
            // Still here: the client went away before there was an answer.
            if let Some(report) = this.project().report.take() {
                report.tell(Ended { bytes: 0, complete: false });
            }
        }
    }
}

impl<F, R> Future for Observed<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
    R: HttpBody<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Guarded<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx))?;
        let Some(mut report) = this.report.take() else {
            return Poll::Pending;
        };
        answer
            .headers_mut()
            .insert(X_REQUEST_ID, report.info.id.clone());
        report.status = Some(answer.status());
        report.gateway_took();
        Poll::Ready(Ok(answer.map(|body| {
            Guarded::new(body).on_end(move |ended| report.tell(ended))
        })))
    }
}

/// What the log line says.
#[derive(Debug)]
struct Report {
    method: Method,
    info: RequestInfo,
    findings: Findings,
    status: Option<StatusCode>,
    observers: Arc<Observers>,
}

impl Report {
    /// Counts what was the gateway's own part of the time so far.
    fn gateway_took(&self) {
        if let Some(metrics) = &self.observers.metrics {
            let so_far = self.info.received.elapsed();
            // Waits at the same time may be more together than has passed; then its own part is not known.
            if let Some(own) = so_far.checked_sub(self.findings.waited()) {
                metrics.gateway_took(own);
            }
        }
    }

    fn tell(self, ended: Ended) {
        let findings = &self.findings;
        let operation = findings.operation();
        // The body of an answer to HEAD is not asked for.
        let complete = ended.complete || (self.method == Method::HEAD && self.status.is_some());
        let outcome = match (findings.code(), complete) {
            (_, false) => "aborted",
            (Some(code), true) => code,
            (None, true) => "forwarded",
        };
        let took = self.info.received.elapsed();
        if let Some(metrics) = &self.observers.metrics {
            metrics.ended(
                &self.method,
                findings,
                self.status,
                complete,
                took,
                ended.bytes,
            );
        }
        let line = AccessLine {
            // The clock is not asked again.
            time: self.info.time + took,
            method: method_label(&self.method),
            route: operation
                .map(|row| row.path)
                .or(findings.route().copied())
                .unwrap_or("-"),
            operation: operation.map_or("-", |row| row.id),
            status: self.status.map_or(0, |status| status.as_u16()),
            outcome,
            duration: took,
            bytes: ended.bytes,
            subject: findings.subject().map_or("-", |identity| identity.id()),
            profile: findings.profile().map_or("-", |profile| &**profile),
            client: self.info.peer.map(|peer| peer.address),
            request_id: self.info.id(),
            trace_id: findings.trace_id().map(TraceId::as_str),
        };
        match &self.observers.access_log {
            Some(log) => log.write(&line),
            None => line.trace(),
        }
    }
}

/// A client's own id is kept where it is short and plain; else there is a new one.
fn request_id(given: Option<&HeaderValue>, now: SystemTime) -> HeaderValue {
    let is_plain = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    given.filter(is_plain).cloned().unwrap_or_else(|| {
        let mut text = Uuid::encode_buffer();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_unix(NoContext, now.as_secs(), now.subsec_nanos());
        HeaderValue::from_str(Uuid::new_v7(now).hyphenated().encode_lower(&mut text))
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}

/// The method where it is a known one; a client can make up any number of others.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::MeasureEngineLayer;
    use crate::waiting::waiting;
    use http_body_util::{BodyExt, Full};
    use std::time::Duration;
    use tokio::time::sleep;
    use tower::ServiceExt;

    #[test]
    fn only_a_plain_request_id_is_kept() {
        let now = SystemTime::now();
        for (given, kept) in [
            ("abc-1.2:3_4", true),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
        ] {
            let value = HeaderValue::from_str(given).unwrap();
            assert_eq!(request_id(Some(&value), now) == value, kept, "{given}");
        }
        assert_ne!(request_id(None, now), request_id(None, now));
    }

    #[tokio::test(start_paused = true)]
    async fn the_gateways_own_time_leaves_out_what_it_waits_for() {
        let metrics = Metrics::default();
        // The gateway works for a second between a client's slow body and a slow engine.
        let engine = MeasureEngineLayer::new(metrics.clone()).layer(tower::service_fn(
            |_: Request<()>| async {
                sleep(Duration::from_secs(30)).await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            },
        ));
        let gateway = tower::service_fn(move |request: Request<()>| {
            let engine = engine.clone();
            async move {
                let findings = request.extensions().get::<Findings>().cloned();
                waiting(findings.as_ref(), sleep(Duration::from_secs(200))).await;
                sleep(Duration::from_secs(1)).await;
                engine.oneshot(request).await
            }
        });
        let service = ObserveLayer::with_metrics(metrics.clone()).layer(gateway);
        let answer = service.oneshot(Request::new(())).await.unwrap();
        assert!(answer.into_body().collect().await.is_ok());
        let took: Vec<_> = metrics
            .durations()
            .into_iter()
            .map(|(kind, histogram)| (kind, histogram.read().0))
            .collect();
        assert_eq!(took, [("whole", 231.0), ("engine", 30.0), ("gateway", 1.0)]);
    }
}
