//! An engine of raw bytes, for the answers that an HTTP library refuses to give: bytes that are no HTTP,
//! 1xx answers before the real one, half a header, a connection that ends in the middle of anything.
//!
//! ```
//! # tokio_test::block_on(async {
//! use bpmgate::demo::raw::{RawEngine, read_request};
//! use tokio::io::AsyncWriteExt as _;
//!
//! let engine = RawEngine::start(|_, mut stream| async move {
//!     read_request(&mut stream).await?;
//!     stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 \r\n\r\n").await
//! })
//! .await?;
//! assert!(engine.url().ends_with("/engine-rest"));
//! # std::io::Result::Ok(()) }).unwrap();
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::listening::{ANY_LOOPBACK_PORT, Listening};
use super::lock;

/// A listener whose connections are served by a closure; it runs until it is dropped.
#[derive(Debug)]
pub struct RawEngine {
    listening: Listening,
    received: Arc<Mutex<Vec<RawRequest>>>,
}

/// A request as it came off the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRequest {
    /// Request line and header fields with the blank line after them.
    pub head: Vec<u8>,
    /// The body with its framing: chunk sizes and trailers are left in.
    pub body: Vec<u8>,
}

impl RawRequest {
    /// The head as text, for assertions; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn head_text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The value of the first header field of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.head_text()
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    }
}

impl RawEngine {
    /// Runs the closure for each connection, whose number (from 0) it is given. The connection is closed when
    /// the closure is done, with or without an error.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start<F, S>(serve: F) -> io::Result<Self>
    where
        F: FnMut(usize, TcpStream) -> S + Send + 'static,
        S: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_at(ANY_LOOPBACK_PORT, serve).await
    }

    /// As [`RawEngine::start`] at an address of one's own, such as that of an engine that has ended.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn start_at<F, S>(address: SocketAddr, mut serve: F) -> io::Result<Self>
    where
        F: FnMut(usize, TcpStream) -> S + Send + 'static,
        S: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listening = Listening::start(address, move |number, stream| {
            let served = serve(number, stream);
            async move {
                // The peer's going away is what many a test is about.
                let _ = served.await;
            }
        })
        .await?;
        Ok(Self {
            listening,
            received: Arc::default(),
        })
    }

    /// Reads request after request and answers each with these bytes, whatever they are; `then` says what follows.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn answering(answer: impl Into<Bytes>, then: Then) -> io::Result<Self> {
        let answer = answer.into();
        let received = Arc::<Mutex<Vec<RawRequest>>>::default();
        let kept = Arc::clone(&received);
        let engine = Self::start(move |_, mut stream| {
            let (answer, kept) = (answer.clone(), Arc::clone(&kept));
            async move {
                loop {
                    let request = read_request(&mut stream).await?;
                    lock(&kept).push(request);
                    stream.write_all(&answer).await?;
                    match then {
                        Then::Continue => {}
                        Then::Close => return stream.shutdown().await,
                        Then::Hang => return std::future::pending().await,
                        Then::Reset => return reset(stream),
                    }
                }
            }
        })
        .await?;
        Ok(Self { received, ..engine })
    }

    /// The address bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The URL that a gateway is given as `engine.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/engine-rest", self.address())
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

    /// What [`RawEngine::answering`] has read; a closure of one's own keeps its own notes.
    #[must_use]
    pub fn received(&self) -> Vec<RawRequest> {
        lock(&self.received).clone()
    }
}

/// What [`RawEngine::answering`] does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request of the connection.
    Continue,
    /// Closes the connection in good order.
    Close,
    /// Keeps it open and says nothing more.
    Hang,
    /// Closes it with a reset.
    Reset,
}

/// Reads one request: the head, then as much body as `Content-Length` or chunks announce.
///
/// # Errors
/// When the connection ends before the request does, or more than [`MAX_REQUEST`] bytes come.
pub async fn read_request(stream: &mut TcpStream) -> io::Result<RawRequest> {
    let head = read_until(stream, b"\r\n\r\n").await?;
    let mut request = RawRequest {
        head,
        body: Vec::new(),
    };
    if request
        .header("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let line = read_until(stream, b"\r\n").await?;
            request.body.extend_from_slice(&line);
            let digits = String::from_utf8_lossy(&line);
            let digits = digits.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                break;
            }
            read_exactly(stream, size + 2, &mut request.body).await?;
        }
        loop {
            let line = read_until(stream, b"\r\n").await?;
            request.body.extend_from_slice(&line);
            if line == b"\r\n" {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
        read_exactly(stream, length, &mut request.body).await?;
    }
    Ok(request)
}

/// Closes a connection with a reset, as a crash does.
///
/// # Errors
/// When the socket is gone already.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    // A linger of zero makes the close send RST.
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// The most that [`read_request`] reads, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// Byte by byte, so that nothing of what follows is taken from the socket.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        if read.len() >= MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        read.push(stream.read_u8().await?);
    }
    Ok(read)
}

async fn read_exactly(stream: &mut TcpStream, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
    if length > MAX_REQUEST.saturating_sub(into.len()) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let start = into.len();
    into.resize(start + length, 0);
    stream
        .read_exact(into.get_mut(start..).unwrap_or_default())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::get;
    use super::*;

    async fn send(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn requests_are_kept_with_their_framing() {
        let engine = RawEngine::answering("HTTP/1.1 204 \r\n\r\n", Then::Close)
            .await
            .unwrap();
        let chunked = b"POST /a HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let sized = b"POST /b HTTP/1.1\r\nhost: e\r\ncontent-length: 3\r\n\r\nabc";
        for request in [chunked.as_slice(), sized.as_slice()] {
            assert_eq!(
                send(engine.address(), request).await.unwrap(),
                b"HTTP/1.1 204 \r\n\r\n"
            );
        }
        let received = engine.received();
        assert_eq!(received[0].body, b"3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n");
        assert_eq!(
            (
                received[1].body.as_slice(),
                received[1].header("Host").as_deref()
            ),
            (b"abc".as_slice(), Some("e"))
        );
        assert!(received[1].head_text().starts_with("POST /b HTTP/1.1\r\n"));
        assert_eq!(engine.connections(), 2);
    }

    #[tokio::test]
    async fn garbage_and_resets_reach_the_client() {
        let garbage = RawEngine::answering("no HTTP at all\r\n\r\n", Then::Close)
            .await
            .unwrap();
        assert!(get(&garbage.url()).await.is_err());
        let broken =
            RawEngine::answering("HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\nabc", Then::Reset)
                .await
                .unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: e\r\n\r\n";
        let ended = send(broken.address(), request).await;
        assert_eq!(
            ended.map_err(|error| error.kind()),
            Err(io::ErrorKind::ConnectionReset)
        );
    }

    #[tokio::test]
    async fn a_connection_can_serve_several_requests() {
        let engine = RawEngine::answering(
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
            Then::Continue,
        )
        .await
        .unwrap();
        let mut stream = TcpStream::connect(engine.address()).await.unwrap();
        for _ in 0..3 {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 38];
            stream.read_exact(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 \r\n"));
        }
        assert_eq!((engine.connections(), engine.received().len()), (1, 3));
    }
}
