//! A collector of OTLP over HTTP, which keeps what it is sent.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::eventually;

/// What a collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Fails,
    Hangs,
}

/// A collector of OTLP over HTTP.
pub(crate) struct Collector {
    pub(crate) url: String,
    pub(crate) seen: Arc<Seen>,
}

pub(crate) struct Seen {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) requests: Mutex<Vec<ExportTraceServiceRequest>>,
    /// Those of each request.
    pub(crate) headers: Mutex<Vec<HeaderMap>>,
}

impl Collector {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen {
            mood: mood.into(),
            requests: Mutex::default(),
            headers: Mutex::default(),
        });
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(seen.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, seen }
    }

    pub(crate) fn posts(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// All spans that came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.seen.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans, once there are so many, and no more.
    pub(crate) async fn exactly(&self, count: usize) -> Vec<Span> {
        eventually("the spans", || self.spans().len() >= count).await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

async fn take(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    seen.requests.lock().unwrap().push(request);
    seen.headers.lock().unwrap().push(headers);
    let mood = *seen.mood.lock().unwrap();
    match mood {
        Mood::Takes => StatusCode::OK,
        Mood::Fails => StatusCode::INTERNAL_SERVER_ERROR,
        Mood::Hangs => std::future::pending().await,
    }
}
