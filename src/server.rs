//! The hyper server: binds, accepts, and lets every request in flight finish before it ends.

mod activity;
mod connection;
mod resources;
mod unread;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Service;
use tracing::{info, warn};

pub use connection::{Connections, Limits};
#[cfg(feature = "cli")]
pub(crate) use resources::ConfiguredKeys;

use crate::body::{Body, BoxError};

/// A bound listener that is ready to accept.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then accepts no more, lets every request in flight finish, and
    /// cuts what is left after `grace`.
    pub async fn serve<S, R>(
        self,
        connections: Connections<S>,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(
            connections.limits().connections.min(Semaphore::MAX_PERMITS),
        ));
        let connections = Arc::new(connections);
        // They end with it: what the caller stopped serves nobody any more.
        let mut tasks = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let (stream, peer, slot) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => continue,
                accepted = self.accept(&slots) => accepted,
            };
            let connections = connections.clone();
            let watcher = graceful.watcher();
            tasks.spawn(async move {
                connections.serve(stream, peer, watcher).await;
                drop(slot);
            });
        }
        drop(self.listener);
        info!(connections = graceful.count(), "draining");
        if tokio::time::timeout(grace, graceful.shutdown())
            .await
            .is_err()
        {
            warn!("the grace time is over, connections were cut");
        }
        tasks.shutdown().await;
    }

    /// The next connection, once there is a slot for it: others wait in the kernel's queue.
    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        let slot = slots.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (stream, peer, slot),
                // Out of file descriptors, or the client was gone already: neither ends the server.
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A future that is ready at the first SIGINT or SIGTERM; the second one ends the process at once.
///
/// # Errors
/// The signals cannot be listened for.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("stopping; a second signal ends it at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            #[expect(clippy::exit, reason = "the operator asked twice")]
            std::process::exit(1);
        });
    })
}

/// The pause after a failed accept, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
