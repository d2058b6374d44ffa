//! Accepts connections on loopback and ends all of them when dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};

use crate::server::listen;

/// A listening socket with the task that accepts; the connections are that task's own, so they end with it.
#[derive(Debug)]
pub(super) struct Listening {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Listening {
    /// Binds `address` and runs `serve(number, stream)` for each connection; numbers start at 0.
    ///
    /// # Errors
    /// When the address cannot be bound.
    #[expect(clippy::unused_async, reason = "it must be called within a runtime")]
    pub(super) async fn start<F, S>(address: SocketAddr, mut serve: F) -> io::Result<Self>
    where
        F: FnMut(usize, TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let counts = (Arc::clone(&accepted), Arc::clone(&open));
        let accepting = tokio::spawn(async move {
            let (accepted, open) = counts;
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    arrived = listener.accept() => match arrived {
                        Ok((stream, _)) => {
                            // Answers are small: without this the peer's delayed ACK costs 40 ms each.
                            let _ = stream.set_nodelay(true);
                            let number = accepted.fetch_add(1, Ordering::SeqCst);
                            connections.spawn(serve(number, stream));
                        }
                        // Out of file descriptors: try again when some have been closed.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    },
                    Some(_) = connections.join_next() => {}
                }
                open.store(connections.len(), Ordering::SeqCst);
            }
        })
        .abort_handle();
        Ok(Self {
            address,
            accepted,
            open,
            accepting,
        })
    }

    /// The address bound, with the port the system chose.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Loopback, with a port that the system chooses.
pub(super) const ANY_LOOPBACK_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
