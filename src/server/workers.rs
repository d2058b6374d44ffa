//! Serves on several threads, each with a runtime of its own.
//!
//! The first worker accepts, and gives each connection to the one that has the fewest: so a few long ones do not
//! meet on one thread. From then on the connection, and the connections to the engine that it uses, stay there.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::{Connections, Server, Stack, drain};
use crate::worker;

impl Server {
    /// As [`serve`](Self::serve), on so many threads, each with a runtime of its own.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub async fn serve_on<S: Stack>(
        self,
        workers: NonZeroUsize,
        connections: Connections<S>,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) -> io::Result<()> {
        let connections = Arc::new(connections);
        // Nothing is sent over these: an end is the word.
        let (stop, mut stopping) = watch::channel(());
        let (cut, cutting) = watch::channel(());
        let (running, mut ended) = mpsc::channel::<Infallible>(1);

        let mut others = Vec::new();
        for index in 1..workers.get() {
            let worker = Worker::new(connections.clone());
            let (give, given) = mpsc::unbounded_channel();
            others.push(Other {
                give,
                open: worker.open.clone(),
            });
            let (cutting, running) = (cutting.clone(), running.clone());
            spawn(index, async move {
                worker.work(given, cutting).await;
                drop(running);
            })?;
        }
        let listener = self.listener.into_std()?;
        let mut worker = Worker::new(connections);
        let (tell, told) = oneshot::channel();
        let mut cutting = cutting;
        spawn(0, async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let stopped = async { drop(stopping.changed().await) };
                    let draining = worker.accept(listener, others, stopped).await;
                    let _ = tell.send(draining);
                    let _ = cutting.changed().await;
                    worker.tasks.shutdown().await;
                }
                Err(error) => error!(%error, "the listener cannot be used"),
            }
            drop(running);
        })?;

        shutdown.await;
        drop(stop);
        let draining = told
            .await
            .map_err(|_| io::Error::other("the thread that accepts has ended"))?;
        drain(draining, grace).await;
        drop(cut);
        let _ = ended.recv().await;
        Ok(())
    }
}

/// Runs `work` on a thread of its own.
fn spawn(index: usize, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(format!("bpmgate-{index}"))
        .spawn(move || {
            worker::become_worker(index + 1);
            runtime.block_on(work);
        })?;
    Ok(())
}

/// Serves connections on the runtime that it is polled in.
pub(super) struct Worker<S> {
    connections: Arc<Connections<S>>,
    /// The connections that it has, and those on their way to it.
    open: Arc<AtomicUsize>,
    /// They end with it: what the caller stopped serves nobody any more.
    pub(super) tasks: JoinSet<()>,
}

/// Another worker, as the accepting one sees it.
pub(super) struct Other {
    give: mpsc::UnboundedSender<(std::net::TcpStream, Arrived)>,
    open: Arc<AtomicUsize>,
}

/// What belongs to a new connection.
struct Arrived {
    peer: SocketAddr,
    draining: watch::Receiver<()>,
    place: Place,
}

/// A connection's place among those of its worker, and among all.
struct Place {
    open: Arc<AtomicUsize>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Stack> Worker<S> {
    pub(super) fn new(connections: Arc<Connections<S>>) -> Self {
        Self {
            connections,
            open: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    /// Accepts for all until `stopped`; then nobody can connect any more, and what is returned tells all connections to end.
    pub(super) async fn accept(
        &mut self,
        listener: TcpListener,
        others: Vec<Other>,
        stopped: impl Future<Output = ()>,
    ) -> watch::Sender<()> {
        let (drain, _) = watch::channel(());
        let slots = self.connections.most();
        let slots = Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)));
        let mut reported = None;
        if let Some(tls) = self.connections.tls() {
            self.tasks.spawn(tls.clone().keep_fresh());
        }
        tokio::pin!(stopped);
        loop {
            let (stream, peer, slot) = tokio::select! {
                biased;
                () = &mut stopped => return drain,
                Some(_) = self.tasks.join_next() => continue,
                accepted = accept(&listener, &slots, &mut reported) => accepted,
            };
            let fewest = others
                .iter()
                .map(|other| (other.open.load(Ordering::Relaxed), other))
                .min_by_key(|(open, _)| *open)
                .filter(|(open, _)| *open < self.open.load(Ordering::Relaxed))
                .map(|(_, other)| other);
            let open = fewest.map_or(&self.open, |other| &other.open).clone();
            open.fetch_add(1, Ordering::Relaxed);
            let arrived = Arrived {
                peer,
                draining: drain.subscribe(),
                place: Place { open, _slot: slot },
            };
            match fewest {
                None => self.take(stream, arrived),
                // Its socket leaves this runtime, and joins the other's there.
                Some(other) => match stream.into_std() {
                    Ok(stream) => drop(other.give.send((stream, arrived))),
                    Err(error) => debug!(%peer, %error, "connection lost"),
                },
            }
        }
    }

    fn take(&mut self, stream: TcpStream, arrived: Arrived) {
        let connections = self.connections.clone();
        self.tasks.spawn(async move {
            let Arrived {
                peer,
                draining,
                place,
            } = arrived;
            connections.serve(stream, peer, draining).await;
            drop(place);
        });
    }

    /// Serves what it is given until it is cut off.
    async fn work(
        mut self,
        mut given: mpsc::UnboundedReceiver<(std::net::TcpStream, Arrived)>,
        mut cutting: watch::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                biased;
                _ = cutting.changed() => break,
                Some(_) = self.tasks.join_next() => {}
                Some((stream, arrived)) = given.recv() => match TcpStream::from_std(stream) {
                    Ok(stream) => self.take(stream, arrived),
                    Err(error) => debug!(peer = %arrived.peer, %error, "connection lost"),
                },
            }
        }
        self.tasks.shutdown().await;
    }
}

/// The next connection, once there is a slot for it: others wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    reported: &mut Option<Instant>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            // Out of file descriptors, or the client was gone already: neither ends the server.
            Err(error) => {
                if reported.is_none_or(|last| last.elapsed() >= REPORT_PAUSE) {
                    *reported = Some(Instant::now());
                    warn!(%error, "accept failed");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The pause after a failed accept, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// From one failed accept that is logged to the next.
const REPORT_PAUSE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http::header::HOST;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tower::service_fn;

    use super::*;
    use crate::body::Body;
    use crate::server::Limits;

    fn limits() -> Limits {
        Limits {
            connections: 100,
            header_bytes: 64 * 1024,
            headers: 128,
            header_read_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(10),
            idle_connection: Duration::from_secs(10),
            request_body: None,
        }
    }

    /// Asks over a connection of its own which worker serves it, and keeps the connection.
    async fn ask(address: SocketAddr) -> (String, http1::SendRequest<Empty<Bytes>>) {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/").header(HOST, "localhost");
        let request = request.body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (String::from_utf8(body.to_vec()).unwrap(), sender)
    }

    #[tokio::test]
    async fn each_worker_serves_as_many_connections_as_the_others_and_all_end() {
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = server.address();
        let which = service_fn(|_: Request<Body>| async {
            let worker = Bytes::from(worker::current().to_string());
            Ok::<_, Infallible>(Response::new(Body::from(worker)))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.serve_on(
            NonZeroUsize::new(3).unwrap(),
            Connections::new(which, limits()),
            async { drop(stopped.await) },
            Duration::from_secs(10),
        );
        let serving = tokio::spawn(serving);
        let mut kept = Vec::new();
        for _ in 0..9 {
            kept.push(ask(address).await);
        }
        let mut by_worker: Vec<&str> = kept.iter().map(|(worker, _)| worker.as_str()).collect();
        by_worker.sort_unstable();
        assert_eq!(by_worker, ["1", "1", "1", "2", "2", "2", "3", "3", "3"]);
        // The places of those that have gone are taken first.
        kept.retain(|(worker, _)| worker != "2");
        let second = async { while ask(address).await.0 != "2" {} };
        let found = tokio::time::timeout(Duration::from_secs(10), second).await;
        found.expect("the worker without a connection gets one");
        stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), serving).await;
        ended
            .expect("idle connections are closed")
            .unwrap()
            .unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
