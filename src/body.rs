//! Bodies: what the gateway carries, and the guard that bounds and counts a streamed one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::problem::Problem;

/// The error of any body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// The body of the gateway's own requests and answers: bytes in memory, or a stream.
    pub struct Body {
        #[pin]
        kind: BodyKind,
    }
}

pin_project! {
    #[project = BodyKindProjection]
    enum BodyKind {
        Bytes { #[pin] full: Full<Bytes> },
        Boxed { #[pin] stream: UnsyncBoxBody<Bytes, BoxError> },
    }
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Bytes::new().into()
    }

    /// Whether all of it is in memory, so that it costs nothing more to send it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.kind, BodyKind::Bytes { .. })
    }

    /// A stream of any type.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            kind: BodyKind::Boxed {
                stream: body.map_err(Into::into).boxed_unsync(),
            },
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self {
            kind: BodyKind::Bytes {
                full: Full::new(bytes),
            },
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size_hint().exact())
            .finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            BodyKindProjection::Bytes { full } => full.poll_frame(cx).map_err(Into::into),
            BodyKindProjection::Boxed { stream } => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Bytes { full } => full.is_end_stream(),
            BodyKind::Boxed { stream } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Bytes { full } => full.size_hint(),
            BodyKind::Boxed { stream } => stream.size_hint(),
        }
    }
}

/// How a guarded body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The bytes that passed.
    pub bytes: u64,
    /// Whether the body came to its end; else it failed or was dropped before.
    pub complete: bool,
}

type EndHook = Box<dyn FnOnce(Ended) + Send>;

pin_project! {
    /// A streamed body with a byte limit, an idle limit and a word at its end; each optional.
    ///
    /// Frames pass as they came, trailers too. A timer exists only while the body waits.
    pub struct Guarded<B>
    where
        B: HttpBody,
    {
        #[pin]
        inner: B,
        idle: Option<Idle>,
        limit: Option<u64>,
        bytes: u64,
        end: Option<EndHook>,
    }

    impl<B> PinnedDrop for Guarded<B>
    where
        B: HttpBody,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // A body that has been sent whole is often not polled to its `None`.
            let complete = this.inner.is_end_stream();
            if let Some(end) = this.end.take() {
                end(Ended { bytes: *this.bytes, complete });
            }
        }
    }
}

/// The longest wait for the next frame, what it is called when that is over, and the running timer.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    problem: Problem,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: HttpBody> Guarded<B> {
    /// Wraps a body; nothing is limited yet.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            idle: None,
            limit: None,
            bytes: 0,
            end: None,
        }
    }

    /// Fails the body with `problem` when no frame came for this long while one was asked for.
    #[must_use]
    pub fn idle(mut self, limit: Duration, problem: Problem) -> Self {
        self.idle = Some(Idle {
            limit,
            problem,
            timer: None,
        });
        self
    }

    /// Fails the body with [`Problem::BodyTooLarge`] once it is longer than this many bytes.
    #[must_use]
    pub fn limit(mut self, bytes: Option<u64>) -> Self {
        self.limit = bytes;
        self
    }

    /// Calls `hook` once: when the body has ended, has failed, or is dropped; after a hook that is there already.
    #[must_use]
    pub fn on_end(mut self, hook: impl FnOnce(Ended) + Send + 'static) -> Self {
        self.end = Some(match self.end.take() {
            None => Box::new(hook),
            Some(earlier) => Box::new(move |ended| {
                earlier(ended);
                hook(ended);
            }),
        });
        self
    }
}

impl<B: HttpBody + From<Bytes>> From<Bytes> for Guarded<B> {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes.into())
    }
}

impl<B: HttpBody + Default> Default for Guarded<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B> HttpBody for Guarded<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let finish = |end: &mut Option<EndHook>, bytes, complete| {
            if let Some(end) = end.take() {
                end(Ended { bytes, complete });
            }
        };
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let Some(idle) = this.idle.as_mut() else {
                return Poll::Pending;
            };
            let limit = idle.limit;
            ready!(
                idle.timer
                    .get_or_insert_with(|| Box::pin(sleep(limit)))
                    .as_mut()
                    .poll(cx)
            );
            let problem = idle.problem.clone();
            finish(this.end, *this.bytes, false);
            return Poll::Ready(Some(Err(problem.into())));
        };
        if let Some(Idle {
            limit,
            timer: Some(timer),
            ..
        }) = this.idle.as_mut()
        {
            timer.as_mut().reset(Instant::now() + *limit);
        }
        Poll::Ready(match frame {
            None => {
                finish(this.end, *this.bytes, true);
                None
            }
            Some(Err(error)) => {
                finish(this.end, *this.bytes, false);
                Some(Err(error.into()))
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                *this.bytes = this.bytes.saturating_add(length);
                match *this.limit {
                    Some(limit) if *this.bytes > limit => {
                        finish(this.end, *this.bytes, false);
                        Some(Err(Problem::BodyTooLarge(limit).into()))
                    }
                    _ => Some(Ok(frame)),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: HttpBody> std::fmt::Debug for Guarded<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The [`Problem`] that made a body or an exchange fail, if one of ours did: found by type among the
/// error and its sources.
#[must_use]
pub fn problem_in(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<Problem>().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::sync::mpsc;

    fn frames(frames: Vec<&'static str>) -> impl HttpBody<Data = Bytes, Error = BoxError> {
        StreamBody::new(futures_util::stream::iter(
            frames
                .into_iter()
                .map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
        ))
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_fails() {
        let fits = Guarded::new(frames(vec!["ab", "cd"])).limit(Some(4));
        assert_eq!(fits.collect().await.unwrap().to_bytes(), "abcd");
        let long = Guarded::new(frames(vec!["ab", "cde"])).limit(Some(4));
        let error = long.collect().await.unwrap_err();
        assert_eq!(problem_in(&*error), Some(Problem::BodyTooLarge(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_fails_after_the_idle_limit() {
        let silent = StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BoxError>,
        >());
        let guarded = Guarded::new(silent).idle(Duration::from_mins(1), Problem::RequestTimeout);
        let before = Instant::now();
        let error = guarded.collect().await.unwrap_err();
        assert_eq!(problem_in(&*error), Some(Problem::RequestTimeout));
        assert!(before.elapsed() >= Duration::from_mins(1));
    }

    #[tokio::test]
    async fn the_end_is_told_once_and_says_whether_it_was_reached() {
        let (tell, told) = mpsc::channel();
        let hook = |tell: &mpsc::Sender<Ended>| {
            let tell = tell.clone();
            move |ended| tell.send(ended).unwrap()
        };
        let _ = Guarded::new(frames(vec!["abc"]))
            .on_end(hook(&tell))
            .collect()
            .await
            .unwrap();
        assert_eq!(
            told.try_recv(),
            Ok(Ended {
                bytes: 3,
                complete: true
            })
        );
        drop(Guarded::new(frames(vec!["abc"])).on_end(hook(&tell)));
        assert_eq!(
            told.try_recv(),
            Ok(Ended {
                bytes: 0,
                complete: false
            })
        );
        drop(Guarded::new(Body::empty()).on_end(hook(&tell)));
        assert_eq!(
            told.try_recv(),
            Ok(Ended {
                bytes: 0,
                complete: true
            })
        );
        assert!(told.try_recv().is_err());
    }
}
