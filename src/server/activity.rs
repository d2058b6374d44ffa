//! What happens on a connection, and when nothing has happened for too long.
//!
//! hyper's own header time-out also runs while a kept-alive connection waits for its next request, so
//! it cannot tell a silent client from a slow sender of headers. This can:
//! 1. while a request waits for its answer's head, the connection has no limit of its own;
//! 2. while an answer is streamed, some byte must move within `idle`;
//! 3. between requests, the client may be silent for `idle`; once it began a request over HTTP/1.1,
//!    the head must be complete within `head`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The activity of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    idle: Duration,
    head: Duration,
    /// Requests whose answer's body has not ended.
    in_flight: AtomicUsize,
    /// Those of them whose answer has no head yet.
    unanswered: AtomicUsize,
    /// When a byte moved last, in milliseconds since `began`.
    moved: AtomicU64,
    /// When the first byte of the head that is being read came, in milliseconds since `began` plus one.
    head_began: AtomicU64,
    http2: AtomicBool,
    /// Whether the end of the connection is not to look like the end of an answer.
    broken: AtomicBool,
}

impl Activity {
    pub(super) fn new(idle: Duration, head: Duration) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            idle,
            head,
            in_flight: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            // A new connection owes its first head at once.
            head_began: AtomicU64::new(1),
            http2: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When the connection is to be closed if nothing happens; `None` while it has no limit.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.unanswered.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let head_began = self.head_began.load(Ordering::Relaxed);
        if self.in_flight.load(Ordering::Relaxed) == 0 && head_began > 0 {
            return Some(self.began + Duration::from_millis(head_began) + self.head);
        }
        Some(self.began + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + self.idle)
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.head_began.store(0, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer has a head, or never will.
    pub(super) fn head_ended(&self) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.note_moved();
    }

    /// Its answer's body has ended, or never will.
    pub(super) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.note_moved();
    }

    /// An answer broke off whose end only the end of the connection tells, as in HTTP/1.0.
    pub(super) fn answer_broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn note_moved(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn note_read(&self, bytes: &[u8]) {
        self.note_moved();
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.http2.load(Ordering::Relaxed) {
            return;
        }
        if bytes.starts_with(b"PRI * HTTP/2") {
            self.http2.store(true, Ordering::Relaxed);
            self.head_began.store(0, Ordering::Relaxed);
        } else if self.head_began.load(Ordering::Relaxed) == 0 {
            self.head_began.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

pin_project! {
    /// A stream that notes when bytes move.
    #[derive(Debug)]
    pub(super) struct Watched<T> {
        #[pin]
        inner: T,
        activity: Arc<Activity>,
        reset: fn(&T),
    }

    impl<T> PinnedDrop for Watched<T> {
        fn drop(this: Pin<&mut Self>) {
            if this.activity.broken.load(Ordering::Relaxed) {
                (this.reset)(&this.inner);
            }
        }
    }
}

impl<T> Watched<T> {
    /// `reset` makes the stream's coming end one that no client takes for a good one.
    pub(super) fn new(inner: T, activity: Arc<Activity>, reset: fn(&T)) -> Self {
        Self {
            inner,
            activity,
            reset,
        }
    }
}

impl<T: AsyncRead> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let read = this.inner.poll_read(cx, buffer);
        if let Some(bytes) = buffer
            .filled()
            .get(before..)
            .filter(|bytes| !bytes.is_empty())
        {
            this.activity.note_read(bytes);
        }
        read
    }
}

impl<T: AsyncWrite> AsyncWrite for Watched<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        this.inner.poll_write(cx, bytes).map_ok(|written| {
            this.activity.note_moved();
            written
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        this.inner
            .poll_write_vectored(cx, buffers)
            .map_ok(|written| {
                this.activity.note_moved();
                written
            })
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const HEAD: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn each_state_has_its_own_limit() {
        let activity = Activity::new(IDLE, HEAD);
        let left = || {
            activity
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()).as_secs())
        };
        assert_eq!(left(), Some(10), "a new connection owes a head");
        activity.note_read(b"GET / HTTP/1.1\r\n");
        tokio::time::advance(Duration::from_secs(4)).await;
        activity.note_read(b"Host: a\r\n");
        assert_eq!(left(), Some(6), "more bytes of the head give no more time");
        activity.request_began();
        assert_eq!(left(), None, "the engine is waited for");
        activity.head_ended();
        assert_eq!(left(), Some(75), "the answer is streamed");
        tokio::time::advance(Duration::from_secs(70)).await;
        activity.note_moved();
        assert_eq!(left(), Some(75), "a byte moved");
        activity.request_ended();
        assert_eq!(left(), Some(75), "between requests");
        activity.note_read(b"G");
        assert_eq!(left(), Some(10), "the next head began");
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_are_no_heads() {
        let activity = Activity::new(IDLE, HEAD);
        activity.note_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        activity.note_read(b"\0\0\0\x04\0\0\0\0\0");
        let left = activity
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        assert_eq!(left, Some(IDLE));
    }
}
