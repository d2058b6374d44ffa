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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The activity of one connection. Only notes what happens, as a look at the clock with each byte would cost more.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose answer's body has not ended, and bodies of requests that have not.
    in_flight: AtomicUsize,
    /// Those of them whose answer has no head yet.
    unanswered: AtomicUsize,
    /// Whether a byte moved since the last look.
    moved: AtomicBool,
    /// The heads that have begun.
    heads: AtomicUsize,
    /// Whether the last of them is not complete.
    head_is_coming: AtomicBool,
    /// The bytes of it that have been read.
    head_bytes: AtomicUsize,
    http2: AtomicBool,
    /// Whether the end of the connection is not to look like the end of an answer.
    broken: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            moved: AtomicBool::new(false),
            heads: AtomicUsize::new(0),
            // A new connection owes its first head at once.
            head_is_coming: AtomicBool::new(true),
            head_bytes: AtomicUsize::new(0),
            http2: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.head_is_coming.store(false, Ordering::Relaxed);
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

    /// A request's body is coming, until what is returned is dropped: what is read of it after the answer is no head.
    pub(super) fn body_began(self: &Arc<Self>) -> ComingBody {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        ComingBody(self.clone())
    }

    /// An answer broke off whose end only the end of the connection tells, as in HTTP/1.0.
    pub(super) fn answer_broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn note_moved(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    fn note_read(&self, bytes: &[u8]) {
        self.note_moved();
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.http2.load(Ordering::Relaxed) {
            return;
        }
        if !self.head_is_coming.swap(true, Ordering::Relaxed) {
            self.heads.fetch_add(1, Ordering::Relaxed);
            self.head_bytes.store(0, Ordering::Relaxed);
        }
        self.head_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
    }

    /// The client speaks HTTP/2, whose frames are no heads.
    fn note_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
        self.head_is_coming.store(false, Ordering::Relaxed);
    }

    /// Whether a head is not complete although this many bytes of it have been read.
    fn head_is_over(&self, limit: usize) -> bool {
        self.head_is_coming.load(Ordering::Relaxed)
            && self.head_bytes.load(Ordering::Relaxed) > limit
    }
}

/// A request's body that has not ended.
#[derive(Debug)]
pub(super) struct ComingBody(Arc<Activity>);

impl Drop for ComingBody {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Looks at an [`Activity`] from time to time. A limit is met after its time, and within that of one more look.
#[derive(Debug)]
pub(super) struct Lookout {
    activity: Arc<Activity>,
    idle: Duration,
    head: Duration,
    /// When it was seen last that a byte moved.
    moved: Instant,
    /// Which head was coming when it was looked for last, and when it was seen first.
    coming: (usize, Instant),
}

impl Lookout {
    pub(super) fn new(
        activity: Arc<Activity>,
        began: Instant,
        idle: Duration,
        head: Duration,
    ) -> Self {
        Self {
            activity,
            idle,
            head,
            moved: began,
            coming: (0, began),
        }
    }

    /// When to look again. Short limits are met within twice their time.
    pub(super) fn next(&self, now: Instant) -> Instant {
        now + LOOK.min(self.idle).min(self.head)
    }

    /// When the connection is to be closed if nothing happens; `None` while it has no limit.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let activity = &*self.activity;
        if activity.moved.swap(false, Ordering::Relaxed) {
            self.moved = now;
        }
        if activity.unanswered.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let coming = activity.head_is_coming.load(Ordering::Relaxed);
        if activity.in_flight.load(Ordering::Relaxed) == 0 && coming {
            let which = activity.heads.load(Ordering::Relaxed);
            if self.coming.0 != which {
                self.coming = (which, now);
            }
            return Some(self.coming.1 + self.head);
        }
        Some(self.moved + self.idle)
    }
}

/// How often a connection's activity is looked at, at the latest.
const LOOK: Duration = Duration::from_secs(5);

pin_project! {
    /// A stream that notes when bytes move.
    #[derive(Debug)]
    pub(super) struct Watched<T> {
        #[pin]
        inner: T,
        // What was read to tell the protocol, until it is read again.
        first: BytesMut,
        activity: Arc<Activity>,
        head_limit: usize,
        reset: fn(&T),
        lingering: Option<Pin<Box<Sleep>>>,
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
    /// No more is read of a head that is not complete after `head_limit` bytes, as hyper would keep as much of it as
    /// of a body. `reset` makes the stream's coming end one that no client takes for a good one.
    pub(super) fn new(inner: T, activity: Arc<Activity>, head_limit: usize, reset: fn(&T)) -> Self {
        Self {
            inner,
            first: BytesMut::new(),
            activity,
            head_limit,
            reset,
            lingering: None,
        }
    }
}

impl<T: AsyncRead + Unpin> Watched<T> {
    /// Whether the client speaks HTTP/2 (RFC 9113 §3.4): as was `agreed`, or as its first bytes say.
    ///
    /// hyper-util's own look at them reads these alone, so that each head would be read and parsed in two pieces.
    pub(super) async fn is_http2(&mut self, agreed: Option<bool>) -> io::Result<bool> {
        if let Some(agreed) = agreed {
            if agreed {
                self.activity.note_http2();
            }
            return Ok(agreed);
        }
        let mut first = BytesMut::with_capacity(FIRST_READ);
        loop {
            let read = self.read_buf(&mut first).await?;
            let known = first.len().min(PREFACE.len());
            let is_preface = first.get(..known) == PREFACE.get(..known);
            if read == 0 || !is_preface || known == PREFACE.len() {
                self.first = first;
                let is_http2 = is_preface && known == PREFACE.len();
                if is_http2 {
                    self.activity.note_http2();
                }
                return Ok(is_http2);
            }
        }
    }
}

/// What a client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a closed connection of HTTP/2 is read.
const LINGER: Duration = Duration::from_secs(1);

/// As much as most heads take.
const FIRST_READ: usize = 4096;

impl<T: AsyncRead> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if !this.first.is_empty() {
            let bytes = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(bytes));
            if this.first.is_empty() {
                *this.first = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if this.activity.head_is_over(*this.head_limit) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
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

impl<T: AsyncRead + AsyncWrite> AsyncWrite for Watched<T> {
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

    /// A client of HTTP/2 writes while it reads. Closed at once, its words would be answered with a reset, and the
    /// end of an answer could be lost: so what still comes is read for a while, until the client closes too.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        let lingering = if let Some(lingering) = this.lingering {
            lingering
        } else {
            ready!(this.inner.as_mut().poll_shutdown(cx))?;
            if !this.activity.http2.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            this.lingering.insert(Box::pin(sleep(LINGER)))
        };
        // A client that floods would end neither the reading nor, at work all the time, the wait.
        if Instant::now() >= lingering.deadline() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match this.inner.as_mut().poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return lingering.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(75);
    const HEAD: Duration = Duration::from_secs(10);

    fn watched() -> (Arc<Activity>, Lookout) {
        let activity = Activity::new();
        let lookout = Lookout::new(activity.clone(), Instant::now(), IDLE, HEAD);
        (activity, lookout)
    }

    fn left(lookout: &mut Lookout) -> Option<u64> {
        let now = Instant::now();
        let at = lookout.deadline(now)?;
        Some(at.saturating_duration_since(now).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_has_its_own_limit() {
        let (activity, mut lookout) = watched();
        let mut left = || left(&mut lookout);
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
        assert_eq!(left(), Some(5), "nothing moved");
        activity.note_moved();
        assert_eq!(left(), Some(75), "a byte moved");
        activity.request_ended();
        assert_eq!(left(), Some(75), "between requests");
        activity.note_read(b"G");
        assert_eq!(left(), Some(10), "the next head began");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(left(), Some(6), "it has its time");
        activity.request_began();
        activity.head_ended();
        activity.request_ended();
        activity.note_read(b"G");
        assert_eq!(left(), Some(10), "one more head has all of it");
    }

    #[test]
    fn a_head_that_is_over_its_limit_is_no_longer_read_unless_it_is_complete() {
        let activity = Activity::new();
        activity.note_read(&[b'a'; 10]);
        assert!(!activity.head_is_over(10));
        activity.note_read(b"a");
        assert!(activity.head_is_over(10));
        activity.request_began();
        assert!(!activity.head_is_over(10), "complete");
        activity.note_read(&[b'a'; 100]);
        assert!(!activity.head_is_over(10), "a body");
        activity.head_ended();
        activity.request_ended();
        activity.note_read(b"a");
        assert!(!activity.head_is_over(10), "the next head");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_body_after_its_answer_is_no_head() {
        let (activity, mut lookout) = watched();
        activity.request_began();
        let body = activity.body_began();
        activity.head_ended();
        activity.request_ended();
        activity.note_read(&[b'a'; 100]);
        assert!(!activity.head_is_over(10));
        assert_eq!(left(&mut lookout), Some(75), "it may take its time");
        drop(body);
        activity.note_read(&[b'a'; 11]);
        assert!(activity.head_is_over(10), "the next head");
        assert_eq!(left(&mut lookout), Some(10));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_are_no_heads() {
        let (activity, mut lookout) = watched();
        activity.note_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        activity.note_http2();
        activity.note_read(b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!(left(&mut lookout), Some(75));
    }
}
