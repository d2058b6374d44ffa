//! One connection: over TLS or not, HTTP/1.1 or HTTP/2, within its limits.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;
use tower::Service;
use tracing::{debug, trace};

use super::Stack;
use super::activity::{Activity, Lookout, Watched};
use super::current::Current;
use super::tls::Tls;
use super::unread::Unread;
use crate::body::{Body, BoxError, Guarded};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::request_info::Peer;

/// What a connection may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// The bytes of a request's head.
    pub header_bytes: usize,
    /// The number of its headers.
    pub headers: usize,
    /// How long a head may take; a new connection's TLS handshake is part of that.
    pub header_read_timeout: Duration,
    /// The longest silence within a request's body.
    pub body_idle_timeout: Duration,
    /// The longest silence between requests, or of a client that takes no more of its answer.
    pub idle_connection: Duration,
    /// The bytes of a request's body; `None` is unlimited.
    pub request_body: Option<u64>,
}

/// Serves connections with a stack of layers.
#[derive(Debug)]
pub struct Connections<S> {
    current: Current<S>,
    /// Connections at once.
    most: usize,
    tls: Option<Arc<Tls>>,
    metrics: Option<Metrics>,
}

impl<S> Connections<S> {
    /// Every request goes to `stack`.
    pub fn new(stack: S, limits: Limits) -> Self {
        Self {
            most: limits.connections,
            current: Current::new(stack, limits),
            tls: None,
            metrics: None,
        }
    }

    /// To replace what is served while it is served.
    #[must_use]
    pub fn current(&self) -> Current<S> {
        self.current.clone()
    }

    /// Takes TLS alone, where there is any, and nothing in plain text.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls.map(Arc::new);
        self
    }

    pub(super) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Counts the bytes of requests' bodies.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Connections at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Serves one connection until it ends, is silent for too long, or the server drains, which `draining` says. Who has
    /// not shaken hands by then, or sent nothing, is not waited for; what has come is served.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        mut draining: watch::Receiver<()>,
    ) where
        S: Stack,
    {
        let _ = stream.set_nodelay(true);
        let began = Instant::now();
        let Some(tls) = &self.tls else {
            let knows = Knows {
                peer,
                began,
                http2: None,
            };
            return self.exchange(stream, reset, knows, draining).await;
        };
        // In a place of its own, so that connections without it are no larger.
        let over_tls = async {
            let deadline = began + self.current.served().limits.header_read_timeout;
            let accepted = tokio::select! {
                biased;
                accepted = timeout_at(deadline, tls.accept(stream)) => accepted,
                _ = draining.changed() => return,
            };
            match accepted {
                Ok(Ok(stream)) => {
                    let reset = |stream: &TlsStream<TcpStream>| reset(stream.get_ref().0);
                    let agreed = stream.get_ref().1.alpn_protocol();
                    let http2 = agreed.map(|protocol| protocol == b"h2");
                    let knows = Knows { peer, began, http2 };
                    self.exchange(stream, reset, knows, draining).await;
                }
                Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
                Err(_) => debug!(%peer, "no TLS handshake in time"),
            }
        };
        Box::pin(over_tls).await;
    }

    /// Serves what comes over a stream that stands; `reset` makes its coming end one that no client takes for
    /// a good one.
    async fn exchange<T>(
        &self,
        stream: T,
        reset: fn(&T),
        knows: Knows,
        mut draining: watch::Receiver<()>,
    ) where
        S: Stack,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Knows { peer, began, http2 } = knows;
        let activity = Activity::new();
        let entry = Entry {
            own: RefCell::new(Own::copy(&self.current)),
            current: self.current.clone(),
            peer: Peer {
                address: peer.ip(),
                tls: self.tls.is_some(),
            },
            activity: activity.clone(),
            metrics: self.metrics.clone(),
        };
        let (idle, head, header_bytes) = {
            let limits = &self.current.served().limits;
            (
                limits.idle_connection,
                limits.header_read_timeout,
                limits.header_bytes,
            )
        };
        let mut stream = Watched::new(stream, activity.clone(), header_bytes, reset);
        // Who has sent nothing yet is not waited for at the end.
        let is_http2 = tokio::select! {
            biased;
            is_http2 = timeout_at(began + head, stream.is_http2(http2)) => is_http2,
            _ = draining.changed() => return,
        };
        let mut lookout = Lookout::new(activity, began, idle, head);
        match is_http2 {
            Ok(Ok(false)) => {
                let served = self.current.served();
                let connection = served.http1.serve_connection(TokioIo::new(stream), entry);
                // No connection keeps what is replaced later.
                drop(served);
                keep(connection, peer, draining, &mut lookout).await;
            }
            // In a place of its own, so that connections of HTTP/1.1 are no larger.
            Ok(Ok(true)) => {
                let served = self.current.served();
                let connection = served.http2.serve_connection(TokioIo::new(stream), entry);
                drop(served);
                Box::pin(keep(connection, peer, draining, &mut lookout)).await;
            }
            Ok(Err(error)) => trace!(%peer, %error, "connection ended"),
            Err(_) => debug!(%peer, "silent connection closed"),
        }
    }
}

/// What is known of a connection before its first byte.
#[derive(Clone, Copy)]
struct Knows {
    peer: SocketAddr,
    began: Instant,
    /// Whether HTTP/2 was agreed on, or HTTP/1.1; else the first bytes say which it is.
    http2: Option<bool>,
}

/// Keeps a connection going until it ends or is silent for too long; while the server drains, no longer than its requests.
async fn keep(
    connection: impl GracefulConnection<Error = hyper::Error>,
    peer: SocketAddr,
    mut draining: watch::Receiver<()>,
    lookout: &mut Lookout,
) {
    tokio::pin!(connection);
    let drains = draining.changed();
    tokio::pin!(drains);
    let mut is_draining = false;
    let look_again = sleep_until(lookout.next(Instant::now()));
    tokio::pin!(look_again);
    loop {
        tokio::select! {
            // What has come is read first: on a machine that is busy for long, nobody was silent.
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    trace!(%peer, %error, "connection ended");
                }
                return;
            }
            // Below the connection: hyper closes one of which it has read nothing, though a request has come.
            _ = &mut drains, if !is_draining => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut look_again => {
                let now = Instant::now();
                match lookout.deadline(now) {
                    Some(deadline) if deadline <= now => {
                        debug!(%peer, "silent connection closed");
                        return;
                    }
                    deadline => {
                        let next = lookout.next(now);
                        look_again.as_mut().reset(deadline.map_or(next, |at| at.min(next)));
                    }
                }
            }
        }
    }
}

/// HTTP/1.1 within these limits.
pub(super) fn http1(limits: &Limits) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // The head's time is `Activity`'s.
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(READ_AT_ONCE))
        .max_headers(limits.headers);
    http1
}

/// HTTP/2 within these limits.
pub(super) fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .adaptive_window(true);
    http2
}

/// The service of one connection: gives each request its peer and its guarded body.
#[derive(Debug, Clone)]
struct Entry<S> {
    current: Current<S>,
    own: RefCell<Own<S>>,
    peer: Peer,
    activity: Arc<Activity>,
    metrics: Option<Metrics>,
}

/// A copy of the connection's own: a copy for each request would cost as much as a layer does.
#[derive(Debug, Clone)]
struct Own<S> {
    generation: u64,
    stack: S,
    limits: RequestLimits,
}

#[derive(Debug, Clone, Copy)]
struct RequestLimits {
    head: usize,
    body: Option<u64>,
    idle: Duration,
    /// How long the rest of a body that nobody wants may take.
    rest: Duration,
}

impl<S: Clone> Own<S> {
    fn copy(current: &Current<S>) -> Self {
        let (generation, served) = current.served_at();
        Self {
            generation,
            stack: served.stack.clone(),
            limits: RequestLimits {
                head: served.limits.header_bytes,
                body: served.limits.request_body,
                idle: served.limits.body_idle_timeout,
                rest: served.limits.header_read_timeout,
            },
        }
    }
}

impl<S, R> hyper::service::Service<Request<Incoming>> for Entry<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible> + Clone,
{
    type Response = Response<Counted<R>>;
    type Error = Infallible;
    type Future = EntryFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut own = self.own.borrow_mut();
        if own.generation != self.current.generation() {
            *own = Own::copy(&self.current);
        }
        let limits = own.limits;
        let mut request = if request.body().is_end_stream() {
            request.map(|_| Body::empty())
        } else if request.version() == Version::HTTP_2 {
            // Its streams end one by one.
            request.map(|incoming| self.guarded(incoming, limits))
        } else {
            Unread::of(request, self.activity.body_began(), limits.rest)
                .map(|incoming| self.guarded(incoming, limits))
        };
        settle_host(&mut request);
        request.extensions_mut().insert(self.peer);
        let exchange = Exchange::begin(self.activity.clone(), request.version());
        // Every layer of the gateway is always ready: those that wait, wait in `call`.
        let inner = (head_bytes(&request) <= limits.head).then(|| own.stack.call(request));
        EntryFuture {
            inner,
            exchange: Some(exchange),
        }
    }
}

impl<S> Entry<S> {
    fn guarded<B>(&self, body: B, limits: RequestLimits) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let guarded = Guarded::new(body.map_err(refused))
            .limit(limits.body)
            .idle(limits.idle, Problem::RequestTimeout);
        match self.metrics.clone() {
            Some(metrics) => {
                Body::stream(guarded.on_end(move |ended| metrics.received(ended.bytes)))
            }
            None => Body::stream(guarded),
        }
    }
}

/// What cannot be read as chunks is the client's mistake, not its silence.
fn refused(error: impl Into<BoxError>) -> BoxError {
    let error = error.into();
    let source = error.source().and_then(|source| source.downcast_ref());
    match source.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Problem::BadRequest("The body's chunks cannot be read.").into()
        }
        _ => error,
    }
}

/// Where the target names the host, as it does in HTTP/2, that is the host, and `Host` says so
/// (RFC 9112 §3.2.2, RFC 9113 §8.3.1): two names would be two requests.
fn settle_host(request: &mut Request<Body>) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    let host = authority.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers_mut().insert(HOST, host);
    }
}

/// The size of a request's line and headers, as they are in HTTP/1.1.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + " HTTP/1.1\r\n\r\n".len();
    let headers = request.headers().iter();
    headers.fold(line, |bytes, (name, value)| {
        bytes + name.as_str().len() + value.len() + ": \r\n".len()
    })
}

/// A request between its head and the end of its answer, as the connection's [`Activity`] counts it.
struct Exchange {
    activity: Arc<Activity>,
    version: Version,
    answered: bool,
}

impl Exchange {
    fn begin(activity: Arc<Activity>, version: Version) -> Self {
        activity.request_began();
        Self {
            activity,
            version,
            answered: false,
        }
    }

    fn answered(&mut self) {
        self.answered = true;
        self.activity.head_ended();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            self.activity.head_ended();
        }
        self.activity.request_ended();
    }
}

pin_project! {
    struct EntryFuture<F> {
        // `None` where the request's head is too large.
        #[pin]
        inner: Option<F>,
        exchange: Option<Exchange>,
    }
}

impl<F, R> Future for EntryFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = Result<Response<Counted<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = if let Some(inner) = this.inner.as_pin_mut() {
            ready!(inner.poll(cx))?.map(Some)
        } else {
            let mut refused = Response::new(None);
            *refused.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            refused
        };
        if let Some(exchange) = this.exchange.as_mut() {
            exchange.answered();
        }
        let exchange = this.exchange.take();
        Poll::Ready(Ok(answer.map(|inner| Counted {
            inner,
            exchange,
            failure: None,
        })))
    }
}

pin_project! {
    /// An answer's body; the exchange ends with it.
    ///
    /// Where it fails, hyper ends the connection at once, and what has not been written yet is lost. So a failure
    /// lets what came before it be written first.
    struct Counted<R> {
        #[pin]
        inner: Option<R>,
        exchange: Option<Exchange>,
        failure: Option<BoxError>,
    }
}

impl<R> HttpBody for Counted<R>
where
    R: HttpBody,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, BoxError>>> {
        let this = self.project();
        if let Some(failure) = this.failure.take() {
            if let Some(exchange) = this.exchange.as_ref()
                && exchange.version < Version::HTTP_11
            {
                exchange.activity.answer_broke();
            }
            return Poll::Ready(Some(Err(failure)));
        }
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        match ready!(inner.poll_frame(cx)) {
            Some(Err(failure)) => {
                *this.failure = Some(failure.into());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    // Fails only where the socket is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The bytes of a body that are read at once at most, hyper's own number: in smaller pieces, an upload costs more
/// calls of the system. Heads have their own limit.
const READ_AT_ONCE: usize = 408 * 1024;

/// Concurrent HTTP/2 streams of one connection.
const STREAMS: u32 = 250;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tower::service_fn;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_first_request_that_has_come_when_the_drain_begins_is_served() {
        let served = service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::from(Bytes::from_static(b"served"))))
        });
        let connections = Connections::new(served, Limits::from_config(&Config::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: g.example\r\n\r\n";
        client.write_all(request).await.unwrap();
        stream.readable().await.unwrap();
        let (drain, draining) = watch::channel(());
        drain.send(()).unwrap();
        connections.serve(stream, peer, draining).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\nserved"), "{answer:?}");
    }
}
