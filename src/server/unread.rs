//! What becomes of a request's body that nobody reads to its end.
//!
//! hyper closes an HTTP/1.1 connection whose request body is left unread. A rejected call of a frontend
//! would then cost it its connection, and a client that is still sending can lose the answer with it
//! (RFC 9112 §9.6). So a short rest is read and thrown away; only a longer one ends the connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::activity::ComingBody;

/// A request's body whose short rest is read when it is dropped.
#[derive(Debug)]
pub(super) struct Unread {
    /// `None` once it has ended.
    inner: Option<(Incoming, ComingBody)>,
    /// Whether reading would make hyper ask for a body that is not wanted (`100 Continue`).
    asks: bool,
    patience: Duration,
}

impl Unread {
    /// Takes a request's body; its rest may take this long to come.
    pub(super) fn of(
        request: Request<Incoming>,
        coming: ComingBody,
        patience: Duration,
    ) -> Request<Self> {
        let asks = request.headers().contains_key(EXPECT);
        request.map(|inner| Self {
            inner: Some((inner, coming)),
            asks,
            patience,
        })
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.asks = false;
        let Some((inner, _)) = self.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.inner = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_none_or(|(inner, _)| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, |(inner, _)| inner.size_hint())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some((mut body, coming)) = self.inner.take() else {
            return;
        };
        if self.asks || body.is_end_stream() || body.size_hint().lower() > SHORT {
            return;
        }
        // Without a runtime the connection is ending anyway.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let patience = self.patience;
        runtime.spawn(async move {
            let _ = timeout(patience, async {
                let mut left = SHORT;
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    match left.checked_sub(length) {
                        Some(rest) => left = rest,
                        None => return,
                    }
                }
            })
            .await;
            drop(coming);
        });
    }
}

/// The longest rest that is read for the sake of the connection, in bytes.
const SHORT: u64 = 64 * 1024;
