//! Whether each node of the engine answers, by `GET {path}/version`.
//!
//! A node is asked every `engine.health.interval`, and when somebody wants to know (`/health`, `/readyz`, `/status`); never more
//! than once a second, however many want to know, as they wait for the one answer; a question goes on when they all have left. After
//! a 401 it is asked once a minute, as a wrong password locks the engine's account (engine facts §7), and at once with another. A node that takes longer than `engine.health.timeout`, or answers
//! with anything but 2xx, is down. Before its first check it is taken for one that is up.
//!
//! The number of a version is the same for all flavours; `/telemetry/data` has the product's name, for an administrator's account
//! alone. It is asked once for each version seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt as _};
use tracing::{info, warn};

use crate::body::Body;
use crate::problem::Problem;

/// What the nodes said when they were asked last. Clones share it, so that all who want to know ask once.
#[derive(Debug, Clone)]
pub struct EngineHealth {
    shared: Arc<Shared>,
    /// The account of whoever asks by this one.
    account: u64,
}

#[derive(Debug)]
struct Shared {
    nodes: Box<[NodeHealth]>,
    settings: HealthSettings,
    /// The account of the engine's that is asked by from now on: counted on at each change.
    account: AtomicU64,
}

#[derive(Debug)]
struct NodeHealth {
    name: String,
    /// One of [`UNKNOWN`], [`UP`], [`DOWN`].
    state: AtomicU8,
    /// Held while it is asked.
    last: Arc<Mutex<Option<Seen>>>,
}

#[derive(Debug)]
struct Seen {
    asked: Instant,
    account: u64,
    status: StatusCode,
    version: Option<String>,
    product: Option<String>,
}

/// How nodes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// The pause between two checks; zero asks only when somebody wants to know.
    pub interval: Duration,
    /// The longest wait for an answer.
    pub timeout: Duration,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

/// What a node said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its host and port, as configured.
    pub name: String,
    /// Whether it answered its last check.
    pub is_up: bool,
    /// What it answered with then; 502 or 504 where it did not.
    pub status: Option<u16>,
    /// When that was.
    pub age: Option<Duration>,
    /// The engine's version.
    pub version: Option<String>,
    /// The engine's flavour, by the name that it gives itself.
    pub product: Option<String>,
}

/// The node that a request is for, whatever speaks against it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(feature = "fetch", test)),
    expect(dead_code, reason = "for the client")
)]
pub(crate) struct OnNode(pub(crate) usize);

impl Default for EngineHealth {
    /// Of a single node without a name.
    fn default() -> Self {
        Self::new([String::new()], HealthSettings::default())
    }
}

impl EngineHealth {
    /// Of nodes with these names.
    pub fn new(names: impl IntoIterator<Item = String>, settings: HealthSettings) -> Self {
        let node = |name| NodeHealth {
            name,
            state: AtomicU8::new(UNKNOWN),
            last: Arc::default(),
        };
        let shared = Arc::new(Shared {
            nodes: names.into_iter().map(node).collect(),
            settings,
            account: AtomicU64::default(),
        });
        Self { shared, account: 0 }
    }

    /// The same, for those who ask by the account that is in force at this moment.
    #[must_use]
    pub fn of_now(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            account: self.shared.account.load(Ordering::Relaxed),
        }
    }

    /// The nodes' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shared.nodes.iter().map(|node| node.name.as_str())
    }

    /// What the last check of a node found; `None` before the first.
    #[must_use]
    pub fn is_up(&self, node: usize) -> Option<bool> {
        match self.shared.nodes.get(node)?.state.load(Ordering::Relaxed) {
            UP => Some(true),
            DOWN => Some(false),
            _ => None,
        }
    }

    /// Asks every node, or believes what it said a moment ago; says whether one is reachable. `root` is the path of
    /// the engine's REST root.
    pub async fn ask<E>(&self, engine: E, root: &str) -> bool
    where
        E: Service<Request<Body>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
        E::Error: Into<Problem>,
    {
        let places = 0..self.shared.nodes.len();
        let asked = places.map(|place| self.ask_node(place, engine.clone(), root));
        join_all(asked).await.contains(&true)
    }

    /// From here on there is another account: what was said of the one before is not believed by those who ask by it. Who began
    /// with the account before goes on with it, and speaks for it alone.
    pub fn account_changed(&self) {
        self.shared.account.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks again and again, for as long as the future is polled.
    pub async fn watch<E>(self, engine: E, root: &str)
    where
        E: Service<Request<Body>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
        E::Error: Into<Problem>,
    {
        if self.shared.settings.interval.is_zero() {
            return std::future::pending().await;
        }
        loop {
            self.ask(engine.clone(), root).await;
            sleep(self.shared.settings.interval).await;
        }
    }

    /// What each node said of itself.
    pub async fn report(&self) -> Vec<NodeReport> {
        join_all(self.shared.nodes.iter().map(NodeHealth::report)).await
    }

    async fn ask_node<E>(&self, place: usize, engine: E, root: &str) -> bool
    where
        E: Service<Request<Body>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
        E::Error: Into<Problem>,
    {
        let Some(node) = self.shared.nodes.get(place) else {
            return false;
        };
        let account = self.account;
        let mut last = node.last.clone().lock_owned().await;
        if let Some(status) = last.as_ref().and_then(|seen| seen.believed(account)) {
            return status.is_success();
        }
        let (shared, root) = (self.shared.clone(), root.to_owned());
        let patience = self.shared.settings.timeout;
        // A task of its own: who comes, asks and leaves, again and again, would send a question to the engine each time.
        let asking = tokio::spawn(async move {
            let known = last.take();
            let seen = Seen::of(known, place, account, engine, &root, patience).await;
            let status = last.insert(seen).status;
            if let Some(node) = shared.nodes.get(place) {
                node.note(status);
            }
            status.is_success()
        });
        asking.await.unwrap_or(false)
    }
}

impl Seen {
    /// The status, while nobody need ask again: not by an account of before either.
    fn believed(&self, account: u64) -> Option<StatusCode> {
        let believed = if self.status == StatusCode::UNAUTHORIZED {
            AFTER_REFUSAL
        } else {
            BELIEVED
        };
        (self.account >= account && self.asked.elapsed() < believed).then_some(self.status)
    }

    /// Asks a node of which this was known.
    async fn of<E>(
        known: Option<Self>,
        place: usize,
        account: u64,
        engine: E,
        root: &str,
        patience: Duration,
    ) -> Self
    where
        E: Service<Request<Body>, Response = Response<Body>> + Clone,
        E::Error: Into<Problem>,
    {
        let (status, body) = get(engine.clone(), place, root, "/version", patience).await;
        let version = Version::of(&body).filter(|_| status.is_success());
        let (known, product) = known.map_or((None, None), |seen| (seen.version, seen.product));
        let product = if version.is_none() || version == known {
            product
        } else {
            let (_, body) = get(engine, place, root, "/telemetry/data", patience).await;
            Telemetry::of(&body)
        };
        Self {
            asked: Instant::now(),
            account,
            status,
            version: version.or(known),
            product,
        }
    }
}

impl NodeHealth {
    fn note(&self, status: StatusCode) {
        let node = self.name.as_str();
        let state = if status.is_success() { UP } else { DOWN };
        let before = self.state.swap(state, Ordering::Relaxed);
        if state == DOWN && before != DOWN {
            let status = status.as_u16();
            warn!(node, status, "engine node fails its health check");
        } else if state == UP && before == DOWN {
            info!(node, "engine node passes its health check again");
        }
    }

    async fn report(&self) -> NodeReport {
        let last = self.last.lock().await;
        let seen = last.as_ref();
        NodeReport {
            name: self.name.clone(),
            is_up: seen.is_some_and(|seen| seen.status.is_success()),
            status: seen.map(|seen| seen.status.as_u16()),
            age: seen.map(|seen| seen.asked.elapsed()),
            version: seen.and_then(|seen| seen.version.clone()),
            product: seen.and_then(|seen| seen.product.clone()),
        }
    }
}

/// The status that stands for what came, and a short body.
async fn get<E>(
    engine: E,
    place: usize,
    root: &str,
    path: &str,
    patience: Duration,
) -> (StatusCode, Bytes)
where
    E: Service<Request<Body>, Response = Response<Body>>,
    E::Error: Into<Problem>,
{
    let mut request = Request::new(Body::empty());
    let Ok(uri) = format!("{}{path}", root.trim_end_matches('/')).parse() else {
        return (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new());
    };
    *request.uri_mut() = uri;
    request.extensions_mut().insert(OnNode(place));
    let answered = async {
        let (head, body) = engine
            .oneshot(request)
            .await
            .map_err(Into::into)?
            .into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| Problem::EngineBadAnswer)?.to_bytes();
        Ok((head.status, body))
    };
    let answered = timeout(patience, answered).await;
    answered
        .unwrap_or(Err(Problem::EngineTimeout))
        .unwrap_or_else(|problem: Problem| (problem.status(), Bytes::new()))
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Version {
    fn of(body: &[u8]) -> Option<String> {
        let told: Self = serde_json::from_slice(body).ok()?;
        Some(short(&told.version))
    }
}

#[derive(Deserialize)]
struct Telemetry {
    product: Product,
}

#[derive(Deserialize)]
struct Product {
    name: String,
}

impl Telemetry {
    fn of(body: &[u8]) -> Option<String> {
        let told: Self = serde_json::from_slice(body).ok()?;
        Some(short(&told.product.name))
    }
}

/// Whatever a node says of itself, it is not kept at any length.
fn short(text: &str) -> String {
    text.chars().take(MAX_NAME_CHARS).collect()
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

const BELIEVED: Duration = Duration::from_secs(1);
const AFTER_REFUSAL: Duration = Duration::from_mins(1);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const MAX_NAME_CHARS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as Lock;

    /// What the nodes were asked.
    type Asked = Arc<Lock<Vec<(usize, String)>>>;

    /// An engine whose second node answers with this.
    fn engine(
        second: u16,
    ) -> (
        Asked,
        impl Service<Request<Body>, Response = Response<Body>, Error = Problem, Future: Send> + Clone,
    ) {
        let asked = Asked::default();
        let kept = asked.clone();
        let engine = tower::service_fn(move |request: Request<Body>| {
            let node = request.extensions().get::<OnNode>().unwrap().0;
            let path = request.uri().path().to_owned();
            let body = if path.ends_with("/version") {
                r#"{"version":"7.24.0"}"#
            } else {
                r#"{"installation":"x","product":{"name":"Operaton BPM Runtime","version":"1"}}"#
            };
            kept.lock().unwrap().push((node, path));
            let status = if node == 1 { second } else { 200 };
            let answer = Response::builder().status(status);
            let answer = answer.body(Body::from(Bytes::from(body))).unwrap();
            async { Ok::<_, Problem>(answer) }
        });
        (asked, engine)
    }

    fn health() -> EngineHealth {
        let names = ["a:1", "b:2"].map(str::to_owned);
        EngineHealth::new(names, HealthSettings::default())
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_is_asked_for_itself_and_says_what_it_is() {
        let (asked, engine) = engine(503);
        let health = health();
        assert_eq!((health.is_up(0), health.is_up(1)), (None, None));
        assert!(health.ask(engine, "/engine-rest").await);
        assert_eq!(
            (health.is_up(0), health.is_up(1)),
            (Some(true), Some(false))
        );
        let mut asked = asked.lock().unwrap().clone();
        asked.sort();
        let path = |node, path: &str| (node, format!("/engine-rest{path}"));
        assert_eq!(
            asked,
            [
                path(0, "/telemetry/data"),
                path(0, "/version"),
                path(1, "/version")
            ]
        );
        let report = health.report().await;
        let shown = report.iter().map(|node| {
            let texts = (node.version.as_deref(), node.product.as_deref());
            (node.name.as_str(), node.is_up, node.status, texts)
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                (
                    "a:1",
                    true,
                    Some(200),
                    (Some("7.24.0"), Some("Operaton BPM Runtime"))
                ),
                ("b:2", false, Some(503), (None, None)),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_asks_every_interval_and_after_a_refusal_once_a_minute() {
        for (second, want) in [(200, (13, 13)), (503, (13, 13)), (401, (13, 2))] {
            let (asked, engine) = engine(second);
            let _ = timeout(Duration::from_millis(60_500), health().watch(engine, "")).await;
            let asked = asked.lock().unwrap();
            let count = |node| {
                let version = |asked: &&(usize, String)| **asked == (node, "/version".to_owned());
                asked.iter().filter(version).count()
            };
            assert_eq!((count(0), count(1)), want, "{second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_leaves_again_and_again_sends_one_question() {
        let asked = Arc::new(AtomicU64::default());
        let count = asked.clone();
        let engine = tower::service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<_, Problem>>()
        });
        let health = health();
        for _ in 0..10 {
            let asking = health.ask(engine.clone(), "");
            assert!(timeout(Duration::from_millis(100), asking).await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "one for each node");
        assert!(!health.ask(engine, "").await, "the answer to that one");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_another_account_is_not_believed() {
        let (asked, engine) = engine(401);
        let before = health();
        let mut health = before.clone();
        for (changes, want) in [(false, 1), (false, 1), (true, 2), (false, 2)] {
            if changes {
                health.account_changed();
                health = health.of_now();
            }
            health.ask(engine.clone(), "").await;
            // Who began before does not ask with the old account again.
            before.ask(engine.clone(), "").await;
            let asked = asked.lock().unwrap();
            assert_eq!(asked.iter().filter(|(node, _)| *node == 1).count(), want);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_hangs_is_down_and_holds_up_no_longer_than_the_timeout() {
        let engine =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<_, Problem>>());
        let began = Instant::now();
        let health = health();
        assert!(!health.ask(engine, "").await);
        assert!(began.elapsed() <= Duration::from_millis(2010));
        assert_eq!(health.is_up(0), Some(false));
    }
}
