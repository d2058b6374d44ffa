//! A client that shows whole answers.

use std::fmt;

use ::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::DEADLINE;

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// This answer, if it has the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(formatter, "{} {:?} {body}", self.status, self.headers)
    }
}

/// A request without a body.
pub(crate) fn request(method: Method, url: &str, authorization: &str) -> Request<Full<Bytes>> {
    request_with(method, url, authorization, Full::default())
}

/// A request with a JSON body.
pub(crate) fn json_request(
    method: Method,
    url: &str,
    authorization: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = request_with(method, url, authorization, Full::new(body.into()));
    let json = ::http::HeaderValue::from_static("application/json");
    request.headers_mut().insert("content-type", json);
    request
}

fn request_with(
    method: Method,
    url: &str,
    authorization: &str,
    body: Full<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(url);
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    request.body(body).expect("a URL that the test wrote")
}

/// Sends it over a connection of its own: no pooled one can be closed under it.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Answer {
    let asked = format!("{} {}", request.method(), request.uri());
    let answer = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await;
        let (head, body) = answer
            .unwrap_or_else(|error| panic!("{asked}: {error:?}"))
            .into_parts();
        let body = body.collect().await;
        let body = body
            .unwrap_or_else(|error| panic!("{asked}: {error:?}"))
            .to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    };
    let within = tokio::time::timeout(DEADLINE, answer).await;
    within.unwrap_or_else(|_| panic!("{asked}: no answer in {DEADLINE:?}"))
}

/// The value of an `Authorization` header.
pub(crate) fn basic(user: &str, password: &str) -> String {
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}
