//! The hyper server: binds, accepts, and lets every request in flight finish before it ends.

mod activity;
mod connection;
mod current;
pub(crate) mod reload;
mod resources;
pub(crate) mod tls;
mod unread;
mod workers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tower::Service;
use tracing::{info, warn};

pub use connection::{Connections, Limits};
pub use current::Current;
pub use reload::{History, Reloading, Reloads};
#[cfg(feature = "cli")]
pub(crate) use resources::ConfiguredKeys;
pub use resources::workers;
pub use tls::{Tls, TlsFileError};

use workers::Worker;

use crate::body::{Body, BoxError};

/// Listens with room for a burst of clients that have not been accepted yet: where there is none, Linux falls
/// back to SYN cookies, and resets connections that it had confirmed.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As other servers do: the port can be taken again at once after a restart.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Clients that wait to be accepted; the kernel's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4096;

/// What answers requests, from any thread, whatever happens: a whole stack of layers. Every such service is one.
pub trait Stack:
    Service<
        Request<Body>,
        Response = Response<<Self as Stack>::Answer>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its answers.
    type Answer: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, R> Stack for S
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = R;
}

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
    #[expect(clippy::unused_async, reason = "it must be called within a runtime")]
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = listen(address)?;
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
    pub async fn serve<S: Stack>(
        self,
        connections: Connections<S>,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) {
        let mut worker = Worker::new(Arc::new(connections));
        let draining = worker.accept(self.listener, Vec::new(), shutdown).await;
        drain(draining, grace).await;
        worker.tasks.shutdown().await;
    }
}

/// Lets every request in flight finish, for so long. Each connection listens as long as it stands.
async fn drain(draining: watch::Sender<()>, grace: Duration) {
    info!(connections = draining.receiver_count(), "draining");
    let _ = draining.send(());
    let drained = tokio::time::timeout(grace, draining.closed());
    if drained.await.is_err() {
        warn!("the grace time is over, connections were cut");
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;

    /// Fewer than any kernel of these days lets wait.
    #[tokio::test]
    async fn a_burst_of_clients_waits_to_be_accepted() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = JoinSet::new();
        for _ in 0..1000 {
            clients.spawn(TcpStream::connect(address));
        }
        let connected = tokio::time::timeout(Duration::from_secs(20), clients.join_all());
        let connected = connected.await.expect("nobody is sent away");
        assert!(connected.iter().all(Result::is_ok));
    }
}
