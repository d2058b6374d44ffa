//! JSON bodies that must be read whole: what is taken for one, how large it may be, and what all of them
//! together may hold of the machine's memory.
//!
//! 1. Declared `application/json`, once; without case, parameters ignored. The engine would take more
//!    (`*/json`), and ignores `Content-Encoding`; here another type or encoding is 415, since its bytes could
//!    not be understood. Only an empty body needs no type.
//! 2. At most [`JsonBodies::max_bytes`] long, inclusive; else 413, before it is read where `Content-Length` says so.
//! 3. Counts against a memory for all such bodies together, but for its first 64 KiB, until its [`Memory`] is
//!    dropped; where that is taken, it is 503 `overloaded`: nobody can fill the machine with bodies that never end.

use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{BoxError, problem_in};
use crate::problem::Problem;

/// The bounds of the bodies that are read; clones share one memory.
#[derive(Debug, Clone)]
pub struct JsonBodies {
    max_bytes: u64,
    /// What all bodies together may hold, in KiB, beside the first of each.
    memory: Arc<Semaphore>,
    /// How many large ones may be worked on at a time.
    turns: Arc<Semaphore>,
}

/// What one body holds of the memory for all.
#[derive(Debug)]
pub struct Memory {
    _held: Option<OwnedSemaphorePermit>,
}

impl JsonBodies {
    /// Bodies of up to `max_bytes`, inclusive; all together may hold as much as 16 of the largest.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            memory: Arc::new(Semaphore::new(budget_kib(max_bytes))),
            turns: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, NonZero::get),
            )),
        }
    }

    /// The size of the largest body, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Reads a request's body, after its headers have been checked; trailers are dropped.
    ///
    /// # Errors
    /// 415 `unsupported_media_type`, 413 `body_too_large`, 503 `overloaded`, or what made the body fail.
    pub async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<(Bytes, Memory), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.check(headers)?;
        let (received, held) = self.collect(body).await?;
        if !received.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            return Err(Problem::UnsupportedMediaType(NOT_JSON));
        }
        Ok((received, Memory { _held: held }))
    }

    /// Waits until a large body may be worked on, outside the workers: as many at a time as there are processors.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turns = Arc::clone(&self.turns);
        turns.acquire_owned().await.map_err(|_| Problem::Internal)
    }

    /// Refuses what can be refused before the body is read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        if types.next().is_some_and(|value| !is_json(value)) || types.next().is_some() {
            return Err(Problem::UnsupportedMediaType(NOT_JSON));
        }
        if headers.get_all(CONTENT_ENCODING).iter().any(|value| {
            !value
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        }) {
            return Err(Problem::UnsupportedMediaType(
                "The body must be read and is declared as encoded. Send it without Content-Encoding.",
            ));
        }
        let declared = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > self.max_bytes) {
            return Err(Problem::BodyTooLarge(self.max_bytes));
        }
        Ok(())
    }

    /// Collects a body, and holds what it takes of the memory for all.
    async fn collect<B>(&self, body: B) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let max_bytes = self.max_bytes;
        let too_large = |bytes: usize| u64::try_from(bytes).is_ok_and(|bytes| bytes > max_bytes);
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let declared = body.size_hint().exact();
        let declared = declared.and_then(|bytes| usize::try_from(bytes).ok());
        let mut body = pin!(body);
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame
                .map_err(|error| problem_in(&*error.into()).unwrap_or(Problem::ClientGone))?
                .into_data()
            else {
                continue;
            };
            let so_far = first.len().saturating_add(all.len());
            if too_large(so_far.saturating_add(data.len())) {
                return Err(Problem::BodyTooLarge(max_bytes));
            }
            let taken = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let needed = so_far
                .saturating_add(data.len())
                .saturating_sub(SMALL_BYTES);
            if let Some(more) = needed
                .div_ceil(1024)
                .checked_sub(taken)
                .filter(|&more| more > 0)
            {
                let more = u32::try_from(more).map_err(|_| Problem::Overloaded)?;
                let more = Arc::clone(&self.memory)
                    .try_acquire_many_owned(more)
                    .map_err(|_| Problem::Overloaded)?;
                match &mut memory {
                    Some(memory) => memory.merge(more),
                    None => memory = Some(more),
                }
            }
            if so_far == 0 {
                // Most bodies are one piece, which is not copied.
                first = data;
            } else {
                let needed = so_far.saturating_add(data.len());
                if all.capacity() < needed {
                    let room = room(needed, declared);
                    all.reserve_exact(room.saturating_sub(all.len()));
                }
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
        let whole = if all.is_empty() {
            first
        } else {
            Bytes::from(all)
        };
        Ok((whole, memory))
    }
}

/// Makes the headers say that this JSON is the body.
pub fn declare(headers: &mut HeaderMap, body: &Bytes) {
    for name in [TRANSFER_ENCODING, CONTENT_ENCODING, TRAILER, EXPECT] {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CONTENT_LENGTH, body.len().into());
}

fn is_json(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b';')
        .next()
        .is_some_and(|media_type| {
            media_type
                .trim_ascii()
                .eq_ignore_ascii_case(JSON.as_bytes())
        })
}

/// For how many bytes to make room, where `needed` have come. All that is declared, so that they need not move
/// again; but nobody gets much for declaring what they do not send.
fn room(needed: usize, declared: Option<usize>) -> usize {
    let twice = needed.saturating_mul(2);
    let room = declared.map_or(twice, |declared| declared.min(twice.max(AHEAD_BYTES)));
    room.max(needed)
}

/// As much as [`LARGEST_BODIES`] of the largest take.
fn budget_kib(max_bytes: u64) -> usize {
    let budget = max_bytes.div_ceil(1024).saturating_mul(LARGEST_BODIES);
    usize::try_from(budget).map_or(Semaphore::MAX_PERMITS, |budget| {
        budget.min(Semaphore::MAX_PERMITS)
    })
}

const JSON: &str = "application/json";

/// A body up to here takes nothing of the memory for all: starts go on while others send large bodies, and
/// the requests in flight are bounded anyway.
const SMALL_BYTES: usize = 64 * 1024;

/// For so many declared bytes there is room once some have come.
const AHEAD_BYTES: usize = 1 << 20;

/// So many of the largest bodies may be held at once; more are 503 `overloaded`.
const LARGEST_BODIES: u64 = 16;

/// What the caller reads where the body is declared as something else.
const NOT_JSON: &str =
    "The body must be read and is not declared as JSON. Send one Content-Type: application/json.";

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok};

    use super::*;

    const TEXT: &str = r#"{"variables":{"n":{"value":1}}}"#;

    #[tokio::test]
    async fn a_body_that_trickles_in_is_collected() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<&'static str>(1);
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
            let chunk = receiver.recv().await?;
            Some((
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk.as_bytes()))),
                receiver,
            ))
        });
        let sending = tokio::spawn(async move {
            for chunk in ["{\"variables\"", ":{\"n\":{\"val", "ue\":1}}}"] {
                sender.send(chunk).await.unwrap();
            }
        });
        let bodies = JsonBodies::new(1024);
        let (collected, _) = bodies.collect(StreamBody::new(frames)).await.unwrap();
        sending.await.unwrap();
        assert_eq!(collected, TEXT);
    }

    #[test]
    fn room_is_made_once_for_what_is_declared_and_not_for_much_that_never_comes() {
        for (needed, declared, want) in [
            (10, Some(300_000), 300_000),
            (10, Some(1 << 30), AHEAD_BYTES),
            (3 << 20, Some(1 << 30), 6 << 20),
            (3 << 20, Some(5 << 20), 5 << 20),
            // A body that is longer than it says.
            (10, Some(9), 10),
            (10, None, 20),
        ] {
            assert_eq!(room(needed, declared), want, "{needed} of {declared:?}");
        }
    }

    /// Who sends much and slowly must not take the memory from all others.
    #[test]
    fn bodies_together_hold_no_more_than_the_memory_for_all() {
        // A frame over what is free of charge, and then nothing more.
        struct Stalled(Option<Bytes>);
        impl Body for Stalled {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                match self.0.take() {
                    Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    None => Poll::Pending,
                }
            }
        }
        let max = 128 * 1024;
        let bodies = JsonBodies::new(max);
        let large = || Stalled(Some(Bytes::from(vec![b' '; 128 * 1024])));
        // Each of them takes the half of its length.
        let mut held: Vec<_> = (0..2 * LARGEST_BODIES)
            .map(|_| tokio_test::task::spawn(bodies.collect(large())))
            .collect();
        for stalled in &mut held {
            assert_pending!(stalled.poll());
        }
        let mut next = tokio_test::task::spawn(bodies.collect(large()));
        assert_eq!(assert_ready!(next.poll()).unwrap_err(), Problem::Overloaded);
        let small = Full::new(Bytes::from("{}"));
        let mut small = tokio_test::task::spawn(bodies.collect(small));
        assert_ready_ok!(small.poll());
        drop(held.pop());
        let mut next = tokio_test::task::spawn(bodies.collect(large()));
        assert_pending!(next.poll());
    }
}
