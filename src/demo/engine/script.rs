//! Scripted answers, by path: echoes, downloads and uploads of any size, and the faults a good HTTP
//! library can still produce. What it cannot (bytes that are no HTTP, 1xx answers) is [`RawEngine`]'s.
//!
//! [`RawEngine`]: crate::demo::raw::RawEngine

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Digest, SHA256};
use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::json;

use super::super::{Body, sized, unsized_body};

/// What the engine does with a request instead of its own work. Credentials are checked before.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Script {
    /// JSON of what arrived: `method`, `path`, `query`, `version`, `headers` (pairs, in order), `length` and
    /// `sha256` of the body, `trailers` (pairs), `connection`.
    Echo,
    /// Reads the body to its end and answers `{"length":..,"sha256":".."}`.
    Upload,
    /// 200 with this many bytes, the repeated [`PATTERN`], in constant memory.
    Download {
        /// How many bytes.
        length: u64,
        /// How their end is told.
        framing: Framing,
    },
    /// Reads the request and answers exactly this. Trailers reach the client only when it sent `TE: trailers`
    /// and a `Trailer` field names them.
    Answer {
        /// The status.
        status: StatusCode,
        /// Header fields; `Content-Type` too is sent only if it is among them.
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The body; empty for none.
        body: Bytes,
        /// Trailers after it, which make it chunked.
        trailers: Option<HeaderMap>,
    },
    /// Reads the request and closes the connection without an answer.
    CloseUnanswered,
    /// Closes the connection without reading the request's body.
    CloseUnread,
    /// Reads the request and never answers.
    HangBeforeHeaders,
    /// Sends headers and this many bytes of body, then nothing more.
    HangInBody {
        /// Bytes sent.
        after: u64,
        /// `Content-Length` announces one byte more.
        framing: Framing,
    },
    /// Sends headers and this many bytes of body, then closes the connection.
    AbortInBody {
        /// Bytes sent; of more than 64 KB the last ones may be lost with the connection.
        after: u64,
        /// `Content-Length` announces one byte more; chunked leaves the last chunk out.
        framing: Framing,
    },
    /// Sends this many bytes of body, one at a time with a pause before each.
    Trickle {
        /// How many bytes.
        length: u64,
        /// The pause before each.
        pause: Duration,
    },
    /// Waits, then does the other thing.
    Delay(Duration, Box<Self>),
    /// Waits for the answer to be released by [`Engine::release`], then does the other thing.
    ///
    /// [`Engine::release`]: super::Engine::release
    Gate(Box<Self>),
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What downloads repeat: the numbers 0 to 250, so that a shifted byte shows.
#[expect(clippy::indexing_slicing, reason = "evaluated when compiled")]
pub const PATTERN: [u8; 251] = {
    let mut pattern = [0; 251];
    let mut value = 0_u8;
    while value < 251 {
        pattern[value as usize] = value;
        value += 1;
    }
    pattern
};

impl Script {
    /// A plain answer of this status and text.
    #[must_use]
    pub fn status(status: StatusCode, body: &'static str) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
            trailers: None,
        }
    }

    /// Plays the script. `read` reads the request's body and returns its length, digest and trailers.
    ///
    /// # Errors
    /// When the script is to close the connection, or the client broke off.
    pub(super) async fn play<R>(
        self,
        head: &Parts,
        connection: usize,
        gate: &tokio::sync::Semaphore,
        read: R,
    ) -> io::Result<Response<Body>>
    where
        R: AsyncFnOnce() -> io::Result<Upload>,
    {
        let mut script = self;
        loop {
            if let Self::Delay(pause, then) = script {
                tokio::time::sleep(pause).await;
                script = *then;
            } else if let Self::Gate(then) = script {
                gate.acquire().await.map_err(io::Error::other)?.forget();
                script = *then;
            } else {
                return script.answer(head, connection, read).await;
            }
        }
    }

    async fn answer<R>(self, head: &Parts, connection: usize, read: R) -> io::Result<Response<Body>>
    where
        R: AsyncFnOnce() -> io::Result<Upload>,
    {
        if matches!(self, Self::CloseUnread) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let upload = read().await?;
        let piecemeal = |sent: u64, framing, end| {
            let more = u64::from(!matches!(end, End::Finish));
            let announced = (framing == Framing::Length).then_some(sent + more);
            let mut answer = Response::new(
                Stream {
                    announced,
                    left: sent,
                    offset: 0,
                    pause: None,
                    end,
                }
                .boxed_unsync(),
            );
            answer.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            );
            answer
        };
        match self {
            Self::Echo => {
                let seen = json!({
                    "method": head.method.as_str(),
                    "path": head.uri.path(),
                    "query": head.uri.query(),
                    "version": format!("{:?}", head.version),
                    "headers": pairs(&head.headers),
                    "length": upload.length,
                    "sha256": upload.sha256,
                    "trailers": upload.trailers.as_ref().map(pairs),
                    "connection": connection,
                });
                Ok(json_answer(&seen))
            }
            Self::Upload => Ok(json_answer(
                &json!({"length": upload.length, "sha256": upload.sha256}),
            )),
            Self::Download { length, framing } => Ok(piecemeal(length, framing, End::Finish)),
            Self::HangInBody { after, framing } => Ok(piecemeal(after, framing, End::Hang)),
            Self::AbortInBody { after, framing } => Ok(piecemeal(after, framing, End::Abort)),
            Self::Trickle { length, pause } => {
                let sleep = Some((pause, Box::pin(tokio::time::sleep(pause))));
                let body = Stream {
                    announced: None,
                    left: length,
                    offset: 0,
                    pause: sleep,
                    end: End::Finish,
                };
                Ok(Response::new(body.boxed_unsync()))
            }
            Self::Answer {
                status,
                headers,
                body,
                trailers,
            } => {
                let body = match trailers {
                    // Without a known length: after `Content-Length` there is no room for trailers.
                    Some(trailers) => unsized_body(stream::iter([
                        Ok(Frame::data(body)),
                        Ok(Frame::trailers(trailers)),
                    ])),
                    None => sized(body),
                };
                let mut answer = Response::new(body);
                *answer.status_mut() = status;
                for (name, value) in headers {
                    answer.headers_mut().append(name, value);
                }
                Ok(answer)
            }
            Self::HangBeforeHeaders => pending().await,
            Self::CloseUnanswered | Self::CloseUnread | Self::Delay(..) | Self::Gate(_) => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

/// A request's body once it has been read.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) length: u64,
    pub(super) sha256: String,
    pub(super) trailers: Option<HeaderMap>,
}

impl Upload {
    /// Reads a body to its end in constant memory, giving each piece to `seen`.
    pub(super) async fn read<B>(mut body: B, mut seen: impl FnMut(&Bytes)) -> io::Result<Self>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut digest = Digest::new(&SHA256);
        let mut upload = Self {
            length: 0,
            sha256: String::new(),
            trailers: None,
        };
        while let Some(frame) = body.frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    upload.length += data.len() as u64;
                    digest.update(&data);
                    seen(&data);
                }
                Err(frame) => upload.trailers = frame.into_trailers().ok(),
            }
        }
        upload.sha256 = hex(digest.finish().as_ref());
        Ok(upload)
    }
}

/// The SHA-256, in hexadecimal digits, of a download of this length.
#[must_use]
pub fn download_sha256(length: u64) -> String {
    let mut digest = Digest::new(&SHA256);
    let mut left = length;
    while left > 0 {
        let size = usize::try_from(left).map_or(PATTERN.len(), |left| left.min(PATTERN.len()));
        digest.update(PATTERN.get(..size).unwrap_or_default());
        left -= size as u64;
    }
    hex(digest.finish().as_ref())
}

/// Pieces of the pattern until `left` is 0, then the end.
struct Stream {
    /// What `Content-Length` is to say; `None` for chunked.
    announced: Option<u64>,
    left: u64,
    offset: usize,
    pause: Option<(Duration, Pin<Box<tokio::time::Sleep>>)>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Finish,
    Abort,
    Aborted,
    Hang,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return match self.end {
                End::Finish => Poll::Ready(None),
                End::Abort => {
                    // hyper sends what it has only when a body is not ready; an error at once would lose the headers too.
                    self.end = End::Aborted;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                End::Aborted => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
                End::Hang => Poll::Pending,
            };
        }
        let mut most = MAX_PIECE;
        if let Some((pause, sleep)) = &mut self.pause {
            std::task::ready!(sleep.as_mut().poll(cx));
            sleep.as_mut().reset(tokio::time::Instant::now() + *pause);
            most = 1;
        }
        let size = usize::try_from(self.left).map_or(most, |left| left.min(most));
        let piece = PIECE.slice(self.offset..self.offset + size);
        self.offset = (self.offset + size) % PATTERN.len();
        self.left -= size as u64;
        self.announced = self.announced.map(|announced| announced - size as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// One piece and a pattern's length more, so that a piece can begin anywhere in the pattern.
static PIECE: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| {
    PATTERN
        .iter()
        .copied()
        .cycle()
        .take(MAX_PIECE + PATTERN.len())
        .collect()
});

const MAX_PIECE: usize = 64 * 1024;

fn json_answer(value: &serde_json::Value) -> Response<Body> {
    let mut answer = Response::new(sized(value.to_string()));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    headers
        .iter()
        .map(|(name, value)| {
            [
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ]
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
