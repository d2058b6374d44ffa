//! One connection to the engine, moved on by whoever uses it.
//!
//! hyper hands out a connection as a future that somebody has to poll. Spawned, each request would wake its task
//! twice, and be woken by it twice. Here the request's own task polls it, and nobody does while it is idle; so
//! before its next request it is [looked at](EngineConnection::is_good).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use tokio::task::coop::unconstrained;
use tracing::debug;

use crate::body::Body;

/// A connection for one request at a time.
pub(super) struct EngineConnection<T: Read + Write> {
    sender: SendRequest<Body>,
    /// `None` once it has ended.
    driver: Option<Pin<Box<http1::Connection<T, Body>>>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

/// Wakes the task that uses the connection, unless that is at work on it: hyper tells both ends of its channels
/// of each other, and both are in the same task here, which would run once more for nothing.
#[derive(Default)]
struct Bell {
    task: AtomicWaker,
    is_heard: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_heard.load(Ordering::Acquire) {
            self.task.wake();
        }
    }
}

impl<T: Read + Write + Unpin> EngineConnection<T> {
    pub(super) async fn over(stream: T) -> hyper::Result<Self> {
        let (sender, driver) = http1::handshake(stream).await?;
        let bell = Arc::<Bell>::default();
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            waker: bell.clone().into(),
            bell,
        })
    }

    /// Moves it on as far as it can go now. From here on the task is woken when it can go on.
    fn drive(&mut self, cx: &Context<'_>) {
        self.bell.task.register(cx.waker());
        self.bell.is_heard.store(true, Ordering::Release);
        self.poll_driver();
    }

    fn poll_driver(&mut self) {
        let Some(driver) = &mut self.driver else {
            return;
        };
        if let Poll::Ready(ended) = driver.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            if let Err(error) = ended {
                debug!(%error, "connection to the engine ended");
            }
            // What waits for it learns of the end when it is dropped.
            self.driver = None;
        }
    }

    /// Nobody is woken until it is driven again.
    fn rest(&self) {
        self.bell.is_heard.store(false, Ordering::Release);
    }

    /// Whether it can take a request: it has not been closed, and nothing of the last exchange is left.
    pub(super) fn is_good(&mut self) -> bool {
        self.rest();
        self.poll_driver();
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Moves it on until it can take a request, or has ended: an engine may answer before it has read the body.
    pub(super) async fn settle(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.driver.is_some() && !self.sender.is_ready() {
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Lets the task that used it last go, whose memory the wake-up for it holds. Not at the end of each request, as the next one
    /// is often the same task's.
    pub(super) fn forget_task(&self) {
        drop(self.bell.task.take());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.driver.is_none()
    }

    /// Sends a request as soon as it is [polled](Self::poll_answer).
    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<T>
    {
        // It can be ready only after the connection moved; a budget of its own would end a wait that nobody ends.
        unconstrained(self.sender.try_send_request(request))
    }

    /// Waits for the head of the answer to what was [sent](Self::send); an error has the request, where nothing of it was
    /// sent.
    pub(super) fn poll_answer<A: Future>(
        &mut self,
        answer: Pin<&mut A>,
        cx: &Context<'_>,
    ) -> Poll<A::Output> {
        self.drive(cx);
        let answered = answer.poll(&mut Context::from_waker(Waker::noop()));
        if answered.is_ready() {
            self.rest();
        }
        answered
    }

    /// The next frame of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        mut body: Pin<&mut Incoming>,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut quietly = Context::from_waker(Waker::noop());
        self.rest();
        let mut frame = body.as_mut().poll_frame(&mut quietly);
        if frame.is_pending() {
            self.drive(cx);
            frame = body.poll_frame(&mut quietly);
            if frame.is_ready() {
                self.rest();
            }
        }
        frame
    }
}

/// The next frame, where it has come already.
pub(super) fn frame_now(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    let mut quietly = Context::from_waker(Waker::noop());
    match Pin::new(body).poll_frame(&mut quietly) {
        Poll::Ready(frame) => frame,
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;

    use std::pin::pin;

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test]
    async fn an_idle_connection_keeps_no_task_that_is_forgotten() {
        let (gateway, _engine) = tokio::io::duplex(1024);
        let mut connection = EngineConnection::over(TokioIo::new(gateway)).await.unwrap();
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let settled = pin!(connection.settle()).poll(&mut Context::from_waker(&waker));
        assert!(settled.is_ready() && connection.is_good());
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2);
        connection.forget_task();
        assert_eq!(Arc::strong_count(&task), 1);
        assert!(connection.is_good());
    }
}
