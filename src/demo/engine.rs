//! A small engine that lives in memory and answers like Operaton 1.0.3, over real HTTP/1.1.
//!
//! It serves the part of the REST API that the workflow API needs, below `/engine-rest` and
//! `/engine-rest/engine/default`, for the process in `sample.bpmn` and others deployed with
//! [`Engine::deploy`]. The habits of the real one that matter to a gateway are kept: Basic credentials with
//! a lock after a wrong password, 500 for callers' mistakes, the last of duplicate JSON members, links that
//! follow `Host`, `Connection: close` on the 100th answer of a connection, chunks from 8 KB on, no reason
//! phrase, headers of at most 8 KB. It runs no BPMN beyond user tasks and decisions, and keeps nothing on disk.
//!
//! Tests script it ([`Engine::script`]) and ask what it saw ([`Engine::requests`]).

mod api;
mod json;
mod lists;
mod model;
mod query;
mod recorder;
mod refusal;
mod routes;
mod script;
mod show;
mod store;
mod variables;
mod walk;

pub use model::NoProcess;
pub use recorder::{MAX_RECORDED_BODY, Recorded};
pub use script::{Framing, PATTERN, Script, download_sha256};

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::api::{Answer, Call};
use self::model::Model;
use self::recorder::{Place, Recorder};
use self::refusal::Refusal;
use self::script::Upload;
use self::store::Store;
use super::listening::{ANY_LOOPBACK_PORT, Listening};
use super::{Body, lock, sized, unsized_body};

/// An engine that runs until it is dropped.
#[derive(Debug)]
pub struct Engine {
    listening: Listening,
    shared: Arc<Shared>,
}

/// What may differ from engine to engine.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen. Default: loopback, a port that the system chooses.
    pub listen: SocketAddr,
    /// The one account's name. Default: `demo`.
    pub username: String,
    /// Its password. Default: `demo`.
    pub password: String,
    /// Whether a wrong password locks the account for 3 s, then twice as long each time up to 60 s. Default: true.
    pub locks_account: bool,
    /// How long a silent connection stays open. Default: 60 s.
    pub idle_timeout: Duration,
    /// How many answers a connection gets before `Connection: close`. Default: 100.
    pub answers_per_connection: usize,
    /// Whether values of type `Json` and `Xml` are known, as with the Spin plugin. Default: true.
    pub spin: bool,
    /// How many requests are remembered; 0 costs least. Default: 1000.
    pub keep_requests: usize,
    /// How many instances are remembered, ended ones included. Default: 10 000.
    pub keep_instances: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: ANY_LOOPBACK_PORT,
            username: "demo".to_owned(),
            password: "demo".to_owned(),
            locks_account: true,
            idle_timeout: Duration::from_mins(1),
            answers_per_connection: 100,
            spin: true,
            keep_requests: 1000,
            keep_instances: 10_000,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("username", &self.username)
            .field("password", &"***")
            .field("locks_account", &self.locks_account)
            .field("idle_timeout", &self.idle_timeout)
            .field("answers_per_connection", &self.answers_per_connection)
            .field("spin", &self.spin)
            .field("keep_requests", &self.keep_requests)
            .field("keep_instances", &self.keep_instances)
            .finish()
    }
}

impl Engine {
    /// Listens on a loopback port, with the sample process deployed.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Listens with these settings, with the sample process deployed.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_with(settings: Settings) -> io::Result<Self> {
        let mut store = Store::new(settings.keep_instances, settings.spin);
        store.deploy(
            Model::parse(SAMPLE).map_err(io::Error::other)?,
            SAMPLE,
            None,
        );
        let listen = settings.listen;
        let shared = Arc::new(Shared {
            recorder: Recorder::new(settings.keep_requests),
            store: Mutex::new(store),
            scripts: Mutex::default(),
            gate: Semaphore::new(0),
            lock: Mutex::default(),
            settings,
        });
        let served = Arc::clone(&shared);
        let listening = Listening::start(listen, move |number, stream| {
            Arc::clone(&served).serve(number, stream)
        })
        .await?;
        Ok(Self { listening, shared })
    }

    /// The address bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The URL that a gateway is given as `engine.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{ROOT}", self.address())
    }

    /// Deploys the process of a BPMN document, as the next version of its key, and returns the definition's id.
    ///
    /// # Errors
    /// When the document holds no process with an id.
    pub fn deploy(&self, xml: &str, tenant: Option<&str>) -> Result<String, NoProcess> {
        Ok(lock(&self.shared.store).deploy(Model::parse(xml)?, xml, tenant))
    }

    /// Plays the script for every path that begins so, from now on. Of several the longest prefix decides.
    pub fn script(&self, prefix: impl Into<String>, script: Script) {
        let prefix = prefix.into();
        let mut scripts = lock(&self.shared.scripts);
        scripts.standing.retain(|(known, _)| *known != prefix);
        scripts.standing.push((prefix, script));
    }

    /// Plays the script for the next request whose path begins so, before any standing one; the first given comes first.
    pub fn script_once(&self, prefix: impl Into<String>, script: Script) {
        lock(&self.shared.scripts)
            .once
            .push_back((prefix.into(), script));
    }

    /// Forgets all scripts.
    pub fn clear_scripts(&self) {
        *lock(&self.shared.scripts) = Scripts::default();
    }

    /// Lets this many requests that wait at a [`Script::Gate`] go on, now or when they come.
    pub fn release(&self, requests: usize) {
        self.shared.gate.add_permits(requests);
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.listening.accepted()
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.listening.open()
    }

    /// Requests whose head arrived since the start, or since they were forgotten.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.recorder.total()
    }

    /// Requests for paths that begin so. Counts nothing when [`Settings::keep_requests`] is 0.
    #[must_use]
    pub fn requests_to(&self, prefix: &str) -> usize {
        self.shared.recorder.count(prefix)
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorder.requests()
    }

    /// Forgets requests and their counts; connections stay counted.
    pub fn forget_requests(&self) {
        self.shared.recorder.clear();
    }
}

/// The process deployed from the start, with its diagram.
pub const SAMPLE: &str = include_str!("sample.bpmn");

/// Another process, with a decision in it: [`Engine::deploy`] takes it.
pub const VACATION: &str = include_str!("vacation.bpmn");

/// What the connections share with the handle.
struct Shared {
    settings: Settings,
    store: Mutex<Store>,
    scripts: Mutex<Scripts>,
    gate: Semaphore,
    recorder: Recorder,
    lock: Mutex<AccountLock>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables are their owners' business.
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Scripts {
    standing: Vec<(String, Script)>,
    once: VecDeque<(String, Script)>,
}

impl Scripts {
    fn next(&mut self, path: &str) -> Option<Script> {
        if let Some(place) = self
            .once
            .iter()
            .position(|(prefix, _)| path.starts_with(prefix))
        {
            return self.once.remove(place).map(|(_, script)| script);
        }
        let fitting = self
            .standing
            .iter()
            .filter(|(prefix, _)| path.starts_with(prefix));
        fitting
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, script)| script.clone())
    }
}

/// Wrong passwords since the last right one, and until when even the right one is refused.
#[derive(Debug, Default)]
struct AccountLock {
    failures: u32,
    until: Option<Instant>,
}

impl Shared {
    async fn serve(self: Arc<Self>, number: usize, stream: TcpStream) {
        let shared = Arc::clone(&self);
        let answered = Arc::new(AtomicUsize::new(0));
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            let answered = answered.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                let mut answer = shared.answer(number, request).await?;
                if answered >= shared.settings.answers_per_connection {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                // Tomcat sends none: `HTTP/1.1 200 ` and a blank.
                answer.extensions_mut().insert(NO_REASON);
                io::Result::Ok(answer)
            }
        });
        // A broken connection is the peer's doing, or a script's.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.idle_timeout)
            .max_headers(4 * MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// # Errors
    /// When the connection is to be closed, or the client broke off.
    async fn answer(
        &self,
        connection: usize,
        request: Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let place = self.recorder.begin(&head, connection);
        if too_large(&head) || unfit_for_tomcat(&head) {
            let mut answer = refused(Refusal::tomcat());
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok(answer);
        }
        let Some((base, path)) = below_root(head.uri.path()) else {
            return Ok(refused(Refusal::http(StatusCode::NOT_FOUND)));
        };
        let (engine, path) = match named_engine(path) {
            Ok(split) => split,
            Err(name) => {
                let message = format!("Process engine {name} not available");
                let mut answer = refused(Refusal::invalid(StatusCode::NOT_FOUND, &message));
                answer.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json;charset=ISO-8859-1"),
                );
                return Ok(answer);
            }
        };
        // The list of engines is open to everybody.
        let lists_engines = path
            .split('/')
            .nth(1)
            .is_some_and(|segment| segment == "engine");
        if (!lists_engines || !engine.is_empty()) && !self.knows(&head) {
            let mut answer = Response::new(sized(Bytes::new()));
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"default\""),
            );
            return Ok(answer);
        }
        if lists_engines && !engine.is_empty() {
            return Ok(refused(Refusal::http(StatusCode::NOT_FOUND)));
        }
        let script = lock(&self.scripts).next(head.uri.path());
        if let Some(script) = script {
            let read = async || self.read_recorded(body, place).await;
            return script.play(&head, connection, &self.gate, read).await;
        }
        let body = self.collect(body, place).await?;
        let host = head
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let call = Call {
            method: &head.method,
            path,
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body: &body,
            account: &self.settings.username,
            base: &format!("http://{host}{base}{engine}"),
        };
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let lasting = |answer: &Answer| matches!(answer, Answer::Lasting(_));
        let result = api::answer(&self.store, call).await;
        let cached = result.as_ref().is_ok_and(lasting);
        let mut answer = result.map_or_else(refused, answered);
        if reads && !cached {
            answer
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        if reads && negotiates(path) {
            answer
                .headers_mut()
                .insert(header::VARY, HeaderValue::from_static("Accept"));
        }
        Ok(answer)
    }

    async fn read_recorded(&self, body: Incoming, place: Place) -> io::Result<Upload> {
        let upload = Upload::read(body, |data| self.recorder.data(place, data)).await?;
        if let Some(trailers) = &upload.trailers {
            self.recorder.trailers(place, trailers);
        }
        Ok(upload)
    }

    /// The whole body of a call of the API.
    async fn collect(&self, body: Incoming, place: Place) -> io::Result<Vec<u8>> {
        use http_body_util::BodyExt as _;
        let mut body = http_body_util::Limited::new(body, MAX_BODY);
        let mut collected = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    self.recorder.data(place, &data);
                    collected.extend_from_slice(&data);
                }
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        self.recorder.trailers(place, trailers);
                    }
                }
            }
        }
        Ok(collected)
    }

    /// Whether the first `Authorization` field holds the account's credentials; the word `Basic` is matched exactly.
    fn knows(&self, head: &Parts) -> bool {
        let given = head
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let decoded = given
            .and_then(|given| given.strip_prefix("Basic "))
            .and_then(|given| STANDARD.decode(given).ok());
        let Some((name, password)) = decoded.as_deref().and_then(|pair| {
            let colon = pair.iter().position(|byte| *byte == b':')?;
            Some((pair.get(..colon)?, pair.get(colon + 1..)?))
        }) else {
            return false;
        };
        if name != self.settings.username.as_bytes() {
            return false;
        }
        let mut state = lock(&self.lock);
        if self.settings.locks_account && state.until.is_some_and(|until| until > Instant::now()) {
            return false;
        }
        if password == self.settings.password.as_bytes() {
            *state = AccountLock::default();
            return true;
        }
        let seconds = 3_u64
            .saturating_mul(2_u64.saturating_pow(state.failures))
            .min(60);
        state.failures = state.failures.saturating_add(1);
        state.until = Some(Instant::now() + Duration::from_secs(seconds));
        false
    }
}

/// Request line and headers of more than 8 KB, or more than 100 headers: Tomcat's limits.
fn too_large(head: &Parts) -> bool {
    let line = head.method.as_str().len() + head.uri.to_string().len() + " HTTP/1.1\r\n ".len();
    let fields: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    head.headers.len() > MAX_HEADERS || line + fields > MAX_HEADER_BYTES
}

/// Targets that Tomcat refuses before the engine sees them.
fn unfit_for_tomcat(head: &Parts) -> bool {
    let path = head.uri.path().to_ascii_lowercase();
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&path).collect();
    ["%2f", "%5c", "%00", "\\"]
        .iter()
        .any(|bad| path.contains(bad))
        || !path.is_ascii()
        || std::str::from_utf8(&decoded).is_err()
        || head
            .uri
            .query()
            .is_some_and(|query| !query.is_ascii() || query.contains(['|', '[', ']']))
}

/// Splits `/engine-rest;x=y/task` into the service's own path and what follows.
fn below_root(path: &str) -> Option<(&'static str, &str)> {
    let rest = path.strip_prefix(ROOT)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (parameters, rest) = rest.split_at(end);
    (parameters.is_empty() || parameters.starts_with(';')).then_some((ROOT, rest))
}

/// Takes `/engine/default` off a path; `Err` names an engine that does not exist.
fn named_engine(path: &str) -> Result<(&'static str, &str), &str> {
    let mut segments = path.splitn(4, '/').skip(1);
    let first = segments
        .next()
        .and_then(|segment| segment.split(';').next());
    match (first, segments.next().filter(|name| !name.is_empty())) {
        (Some("engine"), Some("default")) => {
            let rest = segments.next().map_or("", |rest| {
                path.get(path.len() - rest.len() - 1..).unwrap_or_default()
            });
            Ok(("/engine/default", rest))
        }
        (Some("engine"), Some(name)) => Err(name),
        _ => Ok(("", path)),
    }
}

/// The reads of tasks can also answer HAL, and say so.
fn negotiates(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    segments.next() == Some("task") && segments.next() != Some("count") && segments.next().is_none()
}

fn answered(answer: Answer) -> Response<Body> {
    match answer {
        Answer::Json(value) | Answer::Lasting(value) => {
            with_type("application/json", StatusCode::OK, value.to_string())
        }
        Answer::Empty => {
            let mut answer = Response::new(sized(Bytes::new()));
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        Answer::Options(mut methods) => {
            methods.push("OPTIONS");
            let mut answer = with_type("text/plain", StatusCode::OK, methods.join(", "));
            if let Ok(allowed) = HeaderValue::from_str(&methods.join(",")) {
                answer.headers_mut().insert(header::ALLOW, allowed);
            }
            answer
        }
    }
}

fn refused(refusal: Refusal) -> Response<Body> {
    with_type(refusal.content_type, refusal.status, refusal.body)
}

/// Small answers have a length, larger ones come in chunks.
fn with_type(content_type: &'static str, status: StatusCode, body: String) -> Response<Body> {
    let body = if body.len() < CHUNKED_FROM {
        sized(body)
    } else {
        unsized_body(stream::iter([Ok(Frame::data(Bytes::from(body)))]))
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

const ROOT: &str = "/engine-rest";
const NO_REASON: ReasonPhrase = ReasonPhrase::from_static(b"");
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 8 * 1024;
const CHUNKED_FROM: usize = 8 * 1024;
/// What this engine takes; the real one has no limit.
const MAX_BODY: usize = 64 * 1024 * 1024;
