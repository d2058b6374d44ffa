//! HTTP/1.1 to the engine over pooled connections (engine fact: the plain port knows no HTTP/2).
//!
//! The engine closes a connection after its 100th answer, which it announces with `Connection: close`,
//! and after 60 s of silence, which it does not announce. So:
//! 1. A connection that was silent for nearly `idle_connection` is not used again but closed, as the
//!    engine may be closing it at this moment.
//! 2. Where a pooled connection turns out to be closed **before a byte of the request was written**,
//!    hyper gives the request back and it goes over another connection. In every other case the error
//!    says that something was sent, and a start is not sent twice.
//! 3. A connection returns to the pool when its answer's body has ended; an answer that is dropped
//!    before closes its connection, so the engine sees that the client went away.
//! 4. The task that makes a request moves its connection on, and nobody while it is idle.
//! 5. Each worker of the server has idle connections of its own, so that no thread is woken for another's.
//! 6. A connection is given up at a certain age, so that a change of the node's address is followed: a new one asks for it anew.
//! 7. An answer that is no HTTP is `engine_bad_answer`, and not asked for again; a connection that ends
//!    before an answer's head is complete is `engine_unreachable`, and a `GET` is sent again.

use std::collections::VecDeque;
use std::future::{self, Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::EngineError;
use super::connection::{EngineConnection, frame_now};
use super::health::OnNode;
use super::nodes::{InFlight, Nodes, Open, SentTo, Tried};
use crate::body::{Body, BoxError, Guarded, problem_in};
use crate::problem::Problem;
use crate::request_info::RequestIds;
use crate::worker;

/// How the client connects and waits.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The longest wait for a connection, TLS included.
    pub connect: Duration,
    /// How long the engine keeps a silent connection.
    pub idle_connection: Duration,
    /// The longest that a connection is used.
    pub connection_age: Duration,
    /// The longest silence within an answer's body.
    pub body_idle: Duration,
    /// PEM certificates to trust instead of the system's, where given.
    pub roots: Option<Vec<u8>>,
    /// The certificate that the gateway shows, where given.
    pub identity: Option<ClientIdentity>,
    /// The threads that the server serves on, each with connections of its own; 0 where it serves on the runtime
    /// that it is called in.
    pub workers: usize,
}

/// A certificate with its chain and its private key, which nothing prints.
#[derive(Clone)]
pub struct ClientIdentity(Arc<SingleCertAndKey>);

impl From<CertifiedKey> for ClientIdentity {
    fn from(pair: CertifiedKey) -> Self {
        Self(Arc::new(SingleCertAndKey::from(pair)))
    }
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity(***)")
    }
}

/// Sends requests to the nodes of one engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineClient(Arc<Pools>);

#[derive(Debug)]
struct Pools {
    nodes: Nodes,
    /// In the nodes' order.
    pools: Box<[Arc<Pool>]>,
}

/// Finds the addresses of a name, anew for each connection.
type Resolver = BoxCloneSyncService<Name, vec::IntoIter<SocketAddr>, io::Error>;

/// The connections to a node.
struct Pool {
    nodes: Nodes,
    node: usize,
    connector: HttpsConnector<HttpConnector<Resolver>>,
    base: Uri,
    host: HeaderValue,
    settings: ClientSettings,
    /// Those of each worker; the first are those of all other threads.
    idle: Box<[Mutex<IdleConnections>]>,
}

#[derive(Default)]
struct IdleConnections {
    /// The oldest first.
    queue: VecDeque<Idle>,
    /// Whether a task closes those that are silent for too long.
    watched: bool,
}

/// A connection that waits for its next request.
struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    inner: EngineConnection<MaybeHttpsStream<TokioIo<TcpStream>>>,
    /// Whether nothing of it goes on once the answer has ended.
    rests: bool,
    opened: Instant,
    _open: Open,
}

impl EngineClient {
    /// Makes a client for the nodes at `bases`, of which scheme and authority count; what happens with them is noted in `nodes`.
    ///
    /// # Errors
    /// A base has no authority, or the trusted certificates cannot be had.
    pub fn new(bases: &[Uri], nodes: Nodes, settings: &ClientSettings) -> Result<Self, BoxError> {
        let resolver =
            GaiResolver::new().map_response(|found| found.collect::<Vec<_>>().into_iter());
        Self::resolving(Resolver::new(resolver), bases, nodes, settings)
    }

    /// The same, with names that are asked for at `resolver`.
    fn resolving(
        resolver: Resolver,
        bases: &[Uri],
        nodes: Nodes,
        settings: &ClientSettings,
    ) -> Result<Self, BoxError> {
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(settings)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let pools = bases.iter().enumerate().map(|(node, base)| {
            let authority = base.authority().ok_or("the engine's URL has no host")?;
            Ok::<_, BoxError>(Arc::new(Pool {
                nodes: nodes.clone(),
                node,
                connector: connector.clone(),
                base: base.clone(),
                host: HeaderValue::from_str(authority.as_str())?,
                idle: (0..=settings.workers).map(|_| Mutex::default()).collect(),
                settings: settings.clone(),
            }))
        });
        let pools = pools.collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Pools { nodes, pools })))
    }
}

impl Service<Request<Body>> for EngineClient {
    type Response = Response<Body>;
    type Error = EngineError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let way = match Way::of(&self.0, &mut request) {
            Ok(way) => way,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        Box::pin(way.send(request))
    }
}

impl Pools {
    fn node_for(&self, request: &Request<Body>) -> usize {
        if self.nodes.is_single() {
            return 0;
        }
        let extensions = request.extensions();
        if let Some(on) = extensions.get::<OnNode>() {
            return on.0;
        }
        let tried = extensions.get::<Tried>().copied();
        let node = self.nodes.choose(tried.unwrap_or_default());
        if let Some(sent_to) = extensions.get::<SentTo>() {
            sent_to.note(node);
        }
        node
    }
}

/// Where a request goes, and what must be known of it afterwards.
struct Way {
    nodes: Nodes,
    node: usize,
    pool: Arc<Pool>,
    in_flight: Option<InFlight>,
    /// All of its body is in memory: it is sent with the head.
    is_whole: bool,
    ids: RequestIds,
}

impl Way {
    /// Finds it, and makes the head one of HTTP/1.1.
    fn of(pools: &Pools, request: &mut Request<Body>) -> Result<Self, EngineError> {
        let node = pools.node_for(request);
        let Some(pool) = pools.pools.get(node).cloned() else {
            return Err(EngineError {
                problem: Problem::Misconfigured("no such engine node"),
                unsent: None,
                node,
                source: None,
            });
        };
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, pool.host.clone());
        }
        *request.version_mut() = Version::HTTP_11;
        // hyper leaves out a GET's body of unknown length unless it is told to send it.
        let body = request.body();
        let is_whole = body.is_whole();
        if !is_whole
            && !body.is_end_stream()
            && body.size_hint().exact().is_none()
            && !request.headers().contains_key(CONTENT_LENGTH)
        {
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        Ok(Self {
            nodes: pools.nodes.clone(),
            in_flight: pools.nodes.enter(node),
            node,
            pool,
            is_whole,
            ids: RequestIds::at_debug(request.extensions()),
        })
    }

    /// Sends it over the next pooled connection, and over a new one where there is none that is good.
    async fn send(self, mut request: Request<Body>) -> Result<Response<Body>, EngineError> {
        loop {
            let (mut connection, pooled) = match self.pool.take() {
                Some(connection) => (connection, true),
                // Rare, and large: not a part of what each request takes.
                None => match Box::pin(self.pool.connect()).await {
                    Ok(connection) => (connection, false),
                    Err(source) => return Err(self.pool.unsent(request, source)),
                },
            };
            let answer = {
                let mut answer = pin!(connection.inner.send(request));
                poll_fn(|cx| connection.inner.poll_answer(answer.as_mut(), cx)).await
            };
            match answer {
                Ok(answer) => return Ok(self.answered(connection, answer)),
                Err(mut error) => match error.take_message() {
                    Some(back) if pooled => request = back,
                    Some(back) => return Err(self.pool.unsent(back, error.into_error().into())),
                    None => return Err(self.broke(error.into_error())),
                },
            }
        }
    }

    fn answered(self, mut connection: Connection, answer: Response<Incoming>) -> Response<Body> {
        self.nodes.succeeded(self.node);
        // It is over with the answer, and is looked at when it is taken.
        connection.rests = self.is_whole
            && answer.version() == Version::HTTP_11
            && !answer.headers().contains_key(CONNECTION);
        answer.map(|body| self.pool.body(body, connection, self.in_flight))
    }

    /// The exchange ended after something was sent.
    fn broke(&self, source: hyper::Error) -> EngineError {
        debug!(
            error = %source,
            request_id = self.ids.request(),
            trace_id = self.ids.trace(),
            "exchange with the engine broke"
        );
        // A body of ours that failed says why: too large, too slow.
        let problem = problem_in(&source).unwrap_or_else(|| {
            if source.is_parse() {
                Problem::EngineBadAnswer
            } else if source.is_user() {
                Problem::ClientGone
            } else {
                Problem::EngineUnreachable
            }
        });
        // Who closes in the middle of an upload may not want it: else its sender could open the breaker.
        if problem == Problem::EngineUnreachable && self.is_whole {
            self.nodes.failed(self.node);
        }
        EngineError {
            problem,
            unsent: None,
            node: self.node,
            source: Some(source.into()),
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, EngineError>> + Send>>;

impl Pool {
    fn unsent(&self, request: Request<Body>, source: BoxError) -> EngineError {
        let ids = RequestIds::at_debug(request.extensions());
        debug!(
            error = %source,
            request_id = ids.request(),
            trace_id = ids.trace(),
            "no connection to the engine"
        );
        self.nodes.failed(self.node);
        EngineError {
            problem: Problem::EngineUnreachable,
            unsent: Some(Box::new(request)),
            node: self.node,
            source: Some(source),
        }
    }

    /// The idle connections of this thread.
    fn idle(&self, worker: usize) -> Option<MutexGuard<'_, IdleConnections>> {
        let idle = self.idle.get(worker).or(self.idle.first())?;
        Some(idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection that was used last and is still good.
    fn take(&self) -> Option<Connection> {
        let worker = worker::current();
        let mut idle = self.idle(worker)?;
        let mut found = None;
        while let Some(mut newest) = idle.queue.pop_back() {
            if self.given_up_at(&newest) > Instant::now() && newest.connection.inner.is_good() {
                found = Some(newest.connection);
                break;
            }
        }
        if let Some(counts) = self.nodes.of_worker(self.node, worker) {
            counts.took(idle.queue.len());
        }
        found
    }

    /// Keeps a connection for the next request, where it can take one.
    fn put(self: &Arc<Self>, mut connection: Connection) {
        if connection.inner.has_ended() {
            return;
        }
        if !connection.rests && !connection.inner.is_good() {
            if !connection.inner.has_ended() {
                let pool = self.clone();
                tokio::spawn(async move {
                    let settled = timeout(pool.settings.body_idle, connection.inner.settle());
                    if settled.await.is_ok() && connection.inner.is_good() {
                        pool.put(connection);
                    }
                });
            }
            return;
        }
        let worker = worker::current();
        let Some(mut idle) = self.idle(worker) else {
            return;
        };
        idle.queue.push_back(Idle {
            connection,
            since: Instant::now(),
        });
        self.count_idle(&idle, worker);
        if !std::mem::replace(&mut idle.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), worker));
        }
    }

    fn count_idle(&self, idle: &IdleConnections, worker: usize) {
        if let Some(counts) = self.nodes.of_worker(self.node, worker) {
            counts.keeps(idle.queue.len());
        }
    }

    /// A tenth before the engine may close it, a connection is given up; and when it has its age.
    fn given_up_at(&self, idle: &Idle) -> Instant {
        let silent = idle.since + self.settings.idle_connection / 10 * 9;
        silent.min(idle.connection.opened + self.settings.connection_age)
    }

    /// Closes the connections that were silent for too long or that the engine closed, and says when to look again.
    fn close_silent(&self, worker: usize) -> Option<Instant> {
        let mut idle = self.idle(worker)?;
        let now = Instant::now();
        idle.queue
            .retain_mut(|idle| self.given_up_at(idle) > now && idle.connection.inner.is_good());
        for idle in &idle.queue {
            idle.connection.inner.forget_task();
        }
        self.count_idle(&idle, worker);
        let Some(oldest) = idle.queue.front() else {
            idle.watched = false;
            return None;
        };
        Some(self.given_up_at(oldest).min(now + LOOK))
    }

    async fn connect(&self) -> Result<Connection, BoxError> {
        let connecting = async {
            let stream = self.connector.clone().oneshot(self.base.clone()).await?;
            Ok::<_, BoxError>(Connection {
                inner: EngineConnection::over(stream).await?,
                rests: false,
                opened: Instant::now(),
                _open: self.nodes.opened(self.node),
            })
        };
        timeout(self.settings.connect, connecting).await?
    }

    fn body(
        self: &Arc<Self>,
        mut body: Incoming,
        connection: Connection,
        in_flight: Option<InFlight>,
    ) -> Body {
        if body.is_end_stream() {
            self.put(connection);
            return Body::empty();
        }
        // A short answer has mostly come with its head: it needs no stream, and its connection is free.
        let first = frame_now(&mut body);
        if let Some(Ok(frame)) = &first
            && let Some(whole) = frame.data_ref()
            && body.is_end_stream()
        {
            self.put(connection);
            return whole.clone().into();
        }
        let lent = Lent {
            first,
            inner: body,
            connection: Some(connection),
            in_flight,
            pool: Arc::downgrade(self),
        };
        Body::stream(Guarded::new(lent).idle(self.settings.body_idle, Problem::EngineTimeout))
    }
}

/// Runs while there are connections that wait.
async fn watch(pool: Weak<Pool>, worker: usize) {
    while let Some(time) = pool.upgrade().and_then(|pool| pool.close_silent(worker)) {
        sleep_until(time).await;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// The system's certificates, or the given ones; and the certificate to show.
fn tls(settings: &ClientSettings) -> Result<rustls::ClientConfig, BoxError> {
    use rustls_platform_verifier::BuilderVerifierExt;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let builder = match settings.roots.as_deref() {
        None => builder.with_platform_verifier()?,
        Some(pem) => {
            let mut store = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                store.add(certificate?)?;
            }
            if store.is_empty() {
                return Err("no certificate in the file of trusted roots".into());
            }
            builder.with_root_certificates(store)
        }
    };
    Ok(match &settings.identity {
        Some(identity) => builder.with_client_cert_resolver(identity.0.clone()),
        None => builder.with_no_client_auth(),
    })
}

/// An answer's body that gives its connection back when it has ended.
struct Lent {
    first: Option<Result<Frame<Bytes>, hyper::Error>>,
    inner: Incoming,
    connection: Option<Connection>,
    in_flight: Option<InFlight>,
    pool: Weak<Pool>,
}

impl Lent {
    fn give_back(&mut self) {
        if let (Some(connection), Some(pool)) = (self.connection.take(), self.pool.upgrade()) {
            pool.put(connection);
        }
        self.in_flight = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A body with a length is not polled again after its last byte.
        if self.is_end_stream() {
            self.give_back();
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        let frame = match &mut this.connection {
            Some(connection) => ready!(connection.inner.poll_frame(Pin::new(&mut this.inner), cx)),
            None => None,
        };
        if frame.is_none() {
            this.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) | None => 0,
        };
        match hint.exact() {
            Some(rest) => hint.set_exact(rest + first),
            None => hint.set_lower(hint.lower() + first),
        }
        hint
    }
}

/// How often the idle connections are looked at.
const LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
