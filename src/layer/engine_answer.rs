//! Header hygiene on the way out, and the engine's addresses turned into the public ones.
//!
//! 1. Removed: hop-by-hop headers, `Set-Cookie`, `WWW-Authenticate`, `Server`, the engine's own CORS
//!    headers. Status, the other headers and the body pass as the engine sent them, streamed.
//! 2. A 401 of the engine means the gateway's own account: 502 `engine_rejected_credentials`, so a
//!    browser never sees a Basic challenge.
//! 3. `Location`, and `links[].href` in the JSON of operations whose catalogue row says `links`, get the
//!    public address; such an answer is collected up to [`MAX_LINKS_BYTES`], a longer one passes as it is.
//! 4. A 101 is refused: nobody asked for an upgrade.
//!
//! Stands above the path rewrite, as it must know the public prefix.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, CONTENT_LENGTH, HeaderName, LOCATION, SERVER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::engine_headers::hop_by_hop_and;
use crate::body::{Body, BoxError};
use crate::forwarded::{Origin, TrustedProxies};
use crate::model::{Believed, Models};
use crate::operation::{Matched, Response as Answer};
use crate::path::strip_prefix;
use crate::problem::Problem;
use crate::request_info::{Findings, Peer, RequestIds, RequestInfo};
use crate::waiting::waiting;

/// How long an answer with links is waited for, once it has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers with links are looked into up to this size; longer ones pass as they are.
pub const MAX_LINKS_BYTES: usize = 64 * 1024;

/// Cleans the engine's answer for the client.
///
/// # Examples
/// ```
/// use bpmgate::{body::Body, layer::EngineAnswerLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let engine = tower::service_fn(|_: Request<()>| async {
///     let challenge = Response::builder().status(401).header("www-authenticate", "Basic");
///     Ok::<_, Problem>(challenge.body(Body::empty()).unwrap())
/// });
/// let layer = EngineAnswerLayer::new(vec!["/api".into()], "/engine-rest", None, Default::default());
/// let problem = layer.layer(engine).oneshot(Request::new(())).await.unwrap_err();
/// assert_eq!(problem.code(), "engine_rejected_credentials");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EngineAnswerLayer {
    addresses: Arc<Addresses>,
    models: Option<Models>,
}

#[derive(Debug)]
struct Addresses {
    prefixes: Vec<String>,
    engine_path: String,
    public_url: Option<String>,
    trusted: TrustedProxies,
}

impl EngineAnswerLayer {
    /// `public_url` is what clients call the gateway (scheme and authority, maybe a path); without it
    /// the request says so.
    #[must_use]
    pub fn new(
        prefixes: Vec<String>,
        engine_path: &str,
        public_url: Option<String>,
        trusted: TrustedProxies,
    ) -> Self {
        let addresses = Arc::new(Addresses {
            prefixes,
            engine_path: engine_path.trim_end_matches('/').to_owned(),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            trusted,
        });
        Self {
            addresses,
            models: None,
        }
    }

    /// Tells these models when the engine started another definition than they believed.
    #[must_use]
    pub fn with_models(self, models: Option<Models>) -> Self {
        Self { models, ..self }
    }
}

impl<S> Layer<S> for EngineAnswerLayer {
    type Service = EngineAnswer<S>;

    fn layer(&self, inner: S) -> EngineAnswer<S> {
        EngineAnswer {
            addresses: self.addresses.clone(),
            models: self.models.clone(),
            inner,
        }
    }
}

/// The service of [`EngineAnswerLayer`].
#[derive(Debug, Clone)]
pub struct EngineAnswer<S> {
    addresses: Arc<Addresses>,
    models: Option<Models>,
    inner: S,
}

impl<S, B> Service<Request<B>> for EngineAnswer<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Error: Into<Problem>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = Answered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let peer = extensions
            .get::<RequestInfo>()
            .and_then(|info| info.peer)
            .or_else(|| extensions.get::<Peer>().copied());
        let has_links = matches!(
            extensions.get(),
            Some(Matched::Operation(found)) if found.operation.response == Answer::Links
        );
        let links = Links {
            origin: Origin::of(
                request.headers(),
                request.uri(),
                peer,
                &self.addresses.trusted,
            ),
            prefix: self.addresses.prefix_of(request.uri().path()),
            addresses: self.addresses.clone(),
        };
        if has_links {
            // What is read here must not be in another form.
            let plain = HeaderValue::from_static("identity");
            request.headers_mut().insert(ACCEPT_ENCODING, plain);
        }
        if !has_links {
            return Answered {
                state: AnsweredState::Plain {
                    future: self.inner.call(request),
                    links,
                },
            };
        }
        let reader = Reader {
            links,
            models: self.models.clone(),
            ids: RequestIds::of(request.extensions()),
        };
        let answer = self.inner.call(request);
        let future = Box::pin(async move {
            let answer = clean(answer.await.map_err(Into::into)?, &reader.links)?;
            reader.in_body(answer).await
        });
        Answered {
            state: AnsweredState::Links { future },
        }
    }
}

pin_project! {
    /// The future of [`EngineAnswer`].
    pub struct Answered<F> {
        #[pin]
        state: AnsweredState<F>,
    }
}

pin_project! {
    #[project = AnsweredProjection]
    enum AnsweredState<F> {
        Plain { #[pin] future: F, links: Links },
        Links { future: Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>> },
    }
}

impl<F> std::fmt::Debug for Answered<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

impl<F, E> Future for Answered<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<Problem>,
{
    type Output = Result<Response<Body>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            AnsweredProjection::Plain { future, links } => {
                Poll::Ready(clean(ready!(future.poll(cx)).map_err(Into::into)?, links))
            }
            AnsweredProjection::Links { future } => future.as_mut().poll(cx),
        }
    }
}

/// Rules 1, 2 and 4, and the `Location` of rule 3.
fn clean(mut answer: Response<Body>, links: &Links) -> Result<Response<Body>, Problem> {
    match answer.status() {
        StatusCode::UNAUTHORIZED => return Err(Problem::EngineRejectedCredentials),
        StatusCode::SWITCHING_PROTOCOLS => return Err(Problem::EngineBadAnswer),
        _ => {}
    }
    let headers = answer.headers_mut();
    for name in hop_by_hop_and(headers, |name| ENGINE_ONLY.contains(name)) {
        headers.remove(name);
    }
    if let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok())
        && let Some(public) = links.public(location)
        && let Ok(value) = HeaderValue::try_from(public)
    {
        headers.insert(LOCATION, value);
    }
    Ok(answer)
}

impl Addresses {
    fn prefix_of(&self, path: &str) -> Option<usize> {
        self.prefixes
            .iter()
            .position(|prefix| strip_prefix(std::slice::from_ref(prefix), path).is_some())
    }
}

/// How one request's engine addresses become public ones.
#[derive(Debug)]
struct Links {
    addresses: Arc<Addresses>,
    origin: Origin,
    prefix: Option<usize>,
}

impl Links {
    /// The public form of an address of the engine; `None` for any other address.
    fn public(&self, address: &str) -> Option<String> {
        let uri: Uri = address.parse().ok()?;
        let target = uri.path_and_query()?.as_str();
        let rest = target.strip_prefix(self.addresses.engine_path.as_str())?;
        if !rest.starts_with('/') || uri.authority().is_none() {
            return None;
        }
        let prefix = self.addresses.prefixes.get(self.prefix?)?;
        if let Some(base) = &self.addresses.public_url {
            return Some([base, prefix.as_str(), rest].concat());
        }
        // Who named no host gets a reference without one (RFC 3986 §4.2), never the engine's.
        let Some(host) = self.origin.plain_host() else {
            return Some([prefix.as_str(), rest].concat());
        };
        Some([self.origin.proto, "://", host, prefix, rest].concat())
    }

    /// The document with its links changed; `None` where there is nothing to change.
    fn in_json(&self, read: &Read<'_>) -> Option<Vec<u8>> {
        #[derive(Deserialize)]
        struct Link<'a> {
            #[serde(borrow)]
            href: &'a RawValue,
        }
        let json = read.text.as_bytes();
        let links: Vec<Link<'_>> = serde_json::from_str(read.members.links?.get()).ok()?;
        let mut changed = Vec::with_capacity(json.len() + 64);
        let mut rest = 0;
        for Link { href } in links {
            let raw = href.get();
            let address: String = serde_json::from_str(raw).ok()?;
            let Some(public) = self.public(&address) else {
                continue;
            };
            // `raw` borrows from the text, so the difference is its offset there.
            let start = (raw.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
            changed.extend_from_slice(json.get(rest..start)?);
            changed.extend(serde_json::to_vec(&public).ok()?);
            rest = start.checked_add(raw.len())?;
        }
        if rest == 0 {
            return None;
        }
        changed.extend_from_slice(json.get(rest..)?);
        Some(changed)
    }
}

/// Reads an answer with links.
struct Reader {
    links: Links,
    models: Option<Models>,
    ids: RequestIds,
}

impl Reader {
    /// Collects a JSON answer up to the bound and changes its `links[].href`; every other byte stays.
    async fn in_body(&self, answer: Response<Body>) -> Result<Response<Body>, Problem> {
        let (mut head, mut body) = answer.into_parts();
        if body.size_hint().lower() > MAX_LINKS_BYTES as u64 || body.is_end_stream() {
            self.unseen().await;
            return Ok(Response::from_parts(head, body));
        }
        let mut collected = BytesMut::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = timeout_at(deadline, body.frame());
            let Ok(frame) = waiting(self.ids.findings(), frame).await else {
                // The engine takes its time: what is there is sent on, and what comes follows.
                self.unseen().await;
                let whole = Chained {
                    front: Some(collected.freeze()),
                    rest: body,
                };
                return Ok(Response::from_parts(head, Body::stream(whole)));
            };
            let Some(frame) = frame else {
                break;
            };
            // The engine broke off: so does the client's answer, with status and headers as they came.
            let Ok(frame) = frame else {
                self.unseen().await;
                let broken = Chained {
                    front: Some(collected.freeze()),
                    rest: Broken,
                };
                return Ok(Response::from_parts(head, Body::stream(broken)));
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            collected.extend_from_slice(&data);
            if collected.len() > MAX_LINKS_BYTES {
                self.unseen().await;
                let whole = Chained {
                    front: Some(collected.freeze()),
                    rest: body,
                };
                return Ok(Response::from_parts(head, Body::stream(whole)));
            }
        }
        let bytes = {
            let read = Read::of(&collected);
            self.compare(&read).await;
            self.links.in_json(&read).map(Bytes::from)
        };
        let bytes = bytes.unwrap_or_else(|| collected.freeze());
        if head.headers.contains_key(CONTENT_LENGTH) {
            head.headers.insert(CONTENT_LENGTH, bytes.len().into());
        }
        Ok(Response::from_parts(head, bytes.into()))
    }

    /// The models, and the definition whose model was asked for before a start.
    fn believing(&self) -> Option<(&Models, &Believed)> {
        let believed = self.ids.findings().and_then(Findings::believed);
        self.models
            .as_ref()
            .zip(believed.map(|believed| &**believed))
    }

    /// An answer that is not read may tell of another definition than was believed.
    async fn unseen(&self) {
        if let Some((models, believed)) = self.believing() {
            models.forget(believed).await;
        }
    }

    /// Whether the engine started the definition whose model was asked for.
    async fn compare(&self, answer: &Read<'_>) {
        if let (Some((models, believed)), Some(id)) =
            (self.believing(), answer.members.definition_id)
            && let Ok(started) = serde_json::from_str::<String>(id.get())
            && models.started(believed, &started).await
        {
            if let Some(findings) = self.ids.findings() {
                findings.note_model_changed(());
            }
            tracing::warn!(
                request_id = self.ids.request(),
                trace_id = self.ids.trace(),
                "the engine started a newer definition than the model that was asked for"
            );
        }
    }
}

/// An answer with links, as far as it is looked into; nothing of it where it is no JSON object.
#[derive(Default)]
struct Read<'a> {
    text: &'a str,
    members: Members<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Members<'a> {
    #[serde(borrow)]
    links: Option<&'a RawValue>,
    #[serde(borrow)]
    definition_id: Option<&'a RawValue>,
}

impl<'a> Read<'a> {
    fn of(json: &'a [u8]) -> Self {
        let Ok(text) = std::str::from_utf8(json) else {
            return Self::default();
        };
        let members = serde_json::from_str(text).unwrap_or_default();
        Self { text, members }
    }
}

pin_project! {
    /// What has been collected, then what remains.
    struct Chained<B> {
        front: Option<Bytes>,
        #[pin]
        rest: B,
    }
}

impl<B> HttpBody for Chained<B>
where
    B: HttpBody<Data = Bytes, Error = BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        match this.front.take().filter(|front| !front.is_empty()) {
            Some(front) => Poll::Ready(Some(Ok(Frame::data(front)))),
            None => this.rest.poll_frame(cx),
        }
    }
}

/// An answer that the engine did not finish.
struct Broken;

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err(Problem::EngineBadAnswer.into())))
    }
}

static ENGINE_ONLY: [HeaderName; 9] = [
    SET_COOKIE,
    WWW_AUTHENTICATE,
    SERVER,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Catalogue;
    use tower::ServiceExt;

    async fn through(
        public_url: Option<&str>,
        status: u16,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<Response<String>, Problem> {
        asked_by("gate.example", public_url, status, headers, body).await
    }

    async fn asked_by(
        host: &str,
        public_url: Option<&str>,
        status: u16,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<Response<String>, Problem> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(Body::from(Bytes::from(body))).unwrap();
        let answer = std::sync::Mutex::new(Some(answer));
        let engine = tower::service_fn(move |_: Request<()>| {
            let answer = answer.lock().unwrap().take().unwrap();
            async { Ok::<_, Problem>(answer) }
        });
        let mut request = Request::post("/api/process-definition/key/order/start")
            .header("host", host)
            .body(())
            .unwrap();
        let matched =
            Catalogue::builtin().find(request.method(), "/process-definition/key/order/start");
        request.extensions_mut().insert(matched);
        let layer = EngineAnswerLayer::new(
            vec!["/engine-rest".into(), "/api".into()],
            "/engine-rest",
            public_url.map(str::to_owned),
            TrustedProxies::default(),
        );
        let (head, body) = layer.layer(engine).oneshot(request).await?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Response::from_parts(
            head,
            String::from_utf8(body.to_vec()).unwrap(),
        ))
    }

    #[tokio::test]
    async fn links_get_the_public_address_and_every_other_byte_stays() {
        let body = r#"{"links":[{"method":"GET","href":"http://10.0.0.1:8080/engine-rest/process-instance/1","rel":"self"}],  "id":"1",
            "variables":{"x":{"value":{"links":[{"href":"http://10.0.0.1:8080/engine-rest/x"}]}}},"n":1.50}"#;
        let answer = through(None, 200, &[("content-length", "219")], body)
            .await
            .unwrap();
        let want = body.replacen(
            "http://10.0.0.1:8080/engine-rest/process-instance/1",
            "http://gate.example/api/process-instance/1",
            1,
        );
        assert_eq!(answer.body(), &want);
        assert_eq!(answer.headers()["content-length"], want.len().to_string());
        let answer = through(Some("https://app.example/bpm/"), 200, &[], body)
            .await
            .unwrap();
        assert!(
            answer
                .body()
                .contains(r#""https://app.example/bpm/api/process-instance/1""#)
        );
    }

    #[tokio::test]
    async fn without_a_usable_host_a_link_does_not_name_the_engine() {
        let body = r#"{"links":[{"href":"http://10.0.0.1:8080/engine-rest/task/1"}]}"#;
        for host in ["", "a\"b", "u:p@gate.example"] {
            let answer = asked_by(host, None, 200, &[], body).await.unwrap();
            assert_eq!(
                answer.body(),
                r#"{"links":[{"href":"/api/task/1"}]}"#,
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_linked_json_passes_as_it_is() {
        for body in [
            "",
            "{}",
            "[1]",
            "no json",
            r#"{"links":[{"href":"http://elsewhere.example/other"}]}"#,
            r#"{"links":[],"links":[{"href":"http://e/engine-rest/x"}]}"#,
        ] {
            assert_eq!(through(None, 200, &[], body).await.unwrap().body(), body);
        }
    }

    #[tokio::test]
    async fn the_engines_own_headers_stay_behind() {
        let removed = [
            "set-cookie",
            "www-authenticate",
            "server",
            "access-control-allow-origin",
            "connection",
            "x-named",
        ];
        let mut headers: Vec<_> = removed.iter().map(|name| (*name, "x-named")).collect();
        headers.push(("cache-control", "no-cache"));
        headers.push(("location", "http://engine:8080/engine-rest/task/1?x=y"));
        let answer = through(None, 200, &headers, "{}").await.unwrap();
        for name in removed {
            assert!(!answer.headers().contains_key(name), "{name}");
        }
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        assert_eq!(
            answer.headers()["location"],
            "http://gate.example/api/task/1?x=y"
        );
    }

    #[tokio::test]
    async fn a_basic_challenge_and_an_upgrade_never_pass() {
        let refused = through(None, 401, &[("www-authenticate", "Basic")], "")
            .await
            .unwrap_err();
        assert_eq!(refused, Problem::EngineRejectedCredentials);
        let upgraded = through(None, 101, &[("upgrade", "x")], "")
            .await
            .unwrap_err();
        assert_eq!(upgraded, Problem::EngineBadAnswer);
    }
}
