//! Spans on their way to a collector, by OTLP over HTTP.
//!
//! They never hold up a request: a span that has ended goes into a queue of bounded length, and one that finds no room there is dropped and
//! counted. A thread of its own takes them out, in batches, with a runtime of its own. A collector that is down, slow or refuses costs
//! the spans, one log line a minute, and nothing else.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler,
    SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::{self, Runtime};
use tracing::{info, warn};

use crate::body::BoxError;
use crate::metrics::{Metrics, SpanEnd};
use crate::token::refresh::https_connector;
use crate::traces::SaidBy;

/// Where spans go, and how many.
#[derive(Debug, Clone)]
pub(crate) struct ExportSettings {
    /// The collector's URL, to which `/v1/traces` is added.
    pub(crate) endpoint: String,
    /// The share of traces that begin here and are sampled, 0 to 1.
    pub(crate) sampling: f64,
    /// Spans that wait or are being sent, at most.
    pub(crate) queue: usize,
}

/// Starts the thread that sends. What is sent, dropped and lost is counted.
///
/// # Errors
/// The URL, or a variable `OTEL_EXPORTER_OTLP_…`, cannot be used.
pub(crate) fn provider(
    settings: &ExportSettings,
    metrics: Metrics,
) -> Result<SdkTracerProvider, BoxError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(Https(
            Client::builder(TokioExecutor::new())
                // The runtime stands still between two batches: a connection kept would be closed unnoticed.
                .pool_max_idle_per_host(0)
                .build(https_connector()?),
        ))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", settings.endpoint))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let collector = Collector {
        exporter,
        runtime: runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        waiting: waiting.clone(),
        metrics: metrics.clone(),
        reported: Mutex::default(),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(BATCH.min(settings.queue))
        .with_scheduled_delay(PAUSE)
        .build();
    let queue = Queue {
        batches: BatchSpanProcessor::builder(collector)
            .with_batch_config(batches)
            .build(),
        waiting,
        most: settings.queue,
        metrics,
    };
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampling::of(settings.sampling))
        .with_resource(resource())
        .with_span_processor(queue)
        .build())
}

/// Samples what a trusted parent samples, and else a share: of the traces that begin here, and of those that a stranger calls
/// sampled. Else anybody could have every request recorded (W3C Trace Context, "Denial of Service").
#[derive(Debug, Clone)]
struct Sampling {
    share: Sampler,
    as_parent: Sampler,
    ids: RandomIdGenerator,
}

impl Sampling {
    fn of(share: f64) -> Self {
        let share = Sampler::TraceIdRatioBased(share);
        Self {
            as_parent: Sampler::ParentBased(Box::new(share.clone())),
            share,
            ids: RandomIdGenerator::default(),
        }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let by_stranger = parent.is_some_and(|parent| {
            parent.get::<SaidBy>() == Some(&SaidBy::Stranger)
                && parent.span().span_context().is_sampled()
        });
        // The share is taken by the trace's id, which the stranger has chosen.
        let (sampler, trace_id) = if by_stranger {
            (&self.share, self.ids.new_trace_id())
        } else {
            (&self.as_parent, trace_id)
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let given = Resource::builder().build();
    let name = given.get(&"service.name".into());
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let mut ours = vec![];
    // The specification prefers it to a name among the attributes; the SDK does not.
    let preferred = std::env::var("OTEL_SERVICE_NAME").ok();
    if let Some(name) = preferred.filter(|name| !name.is_empty()) {
        ours.push(KeyValue::new("service.name", name));
    } else if !is_named {
        ours.push(KeyValue::new("service.name", env!("CARGO_PKG_NAME")));
    }
    if given.get(&"service.version".into()).is_none() {
        ours.push(version);
    }
    Resource::builder().with_attributes(ours).build()
}

/// Bounds the spans that wait, and counts those that find no room: the processor behind it drops in silence.
#[derive(Debug)]
struct Queue {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    most: usize,
    metrics: Metrics,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.spans_ended(SpanEnd::Dropped, 1);
            return;
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends batches, on the thread of the processor.
#[derive(Debug)]
struct Collector {
    exporter: opentelemetry_otlp::SpanExporter,
    runtime: Runtime,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
    /// When a failure was logged last, while sending fails.
    reported: Mutex<Option<Instant>>,
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        // It blocks nobody: the processor's thread does nothing else.
        let sent = self.runtime.block_on(async {
            tokio::time::timeout(EXPORT_TIMEOUT, self.exporter.export(batch))
                .await
                .unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)))
        });
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        self.report(spans, &sent);
        if sent.is_err() {
            // Another try at once would fail too: what comes meanwhile waits, or is dropped.
            self.runtime
                .block_on(async { tokio::time::sleep(PAUSE).await });
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl Collector {
    /// A warning at the first failure, and then at most once a minute.
    fn report(&self, spans: usize, sent: &OTelSdkResult) {
        let end = match sent {
            Ok(()) => SpanEnd::Sent,
            Err(_) => SpanEnd::Failed,
        };
        self.metrics
            .spans_ended(end, u64::try_from(spans).unwrap_or(u64::MAX));
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = reported.is_none_or(|last| last.elapsed() >= REPORT_PAUSE);
        match sent {
            Err(error) if is_due => {
                *reported = Some(Instant::now());
                warn!(%error, spans, "traces cannot be sent, they are lost");
            }
            Ok(()) if reported.take().is_some() => info!("traces can be sent again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// The client that the exporter sends with.
#[derive(Debug)]
struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient for Https {
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        Box::pin(async move {
            let answer = self.0.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
    }
}

/// How long a batch may take, with its tries.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// From one batch to the next, where fewer than [`BATCH`] spans wait, and from a failure to the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// How many spans are sent at once, at most.
const BATCH: usize = 512;

/// A collector has little to say.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// From one logged failure to the next.
const REPORT_PAUSE: Duration = Duration::from_mins(1);
