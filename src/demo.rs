//! What one needs to try or test a gateway with nothing else installed: an issuer that signs tokens,
//! an engine that lives in memory, and an engine of raw bytes for the answers no HTTP library can give.
//!
//! Everything here listens on loopback only, on a port that the system chooses, and stops when dropped.
//! None of it is meant to be reached by anybody but the person trying it out.

pub mod banner;
pub mod engine;
pub mod issuer;
mod listening;
pub mod page;
pub mod people;
pub mod raw;
pub mod sign_in;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

/// The body of every answer given here; an error in it aborts the connection.
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body whose length is known, so that it is sent with `Content-Length`.
fn sized(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body whose length is not told, so that HTTP/1.1 sends it chunked.
fn unsized_body<S>(frames: S) -> Body
where
    S: futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
{
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Locks even after a panic elsewhere: one broken request must not end the demo.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod testing {
    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper_util::client::legacy::{Client, Error};
    use hyper_util::rt::TokioExecutor;

    use super::*;

    /// Sends a GET on a connection of its own and returns once the headers are there.
    pub(super) async fn fetch(url: &str) -> Result<Response<Incoming>, Error> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        client
            .request(
                Request::get(url)
                    .body(http_body_util::Empty::<Bytes>::new())
                    .unwrap(),
            )
            .await
    }

    /// Sends a GET on a connection of its own and collects the answer.
    pub(super) async fn get(url: &str) -> Result<Response<Bytes>, Box<dyn std::error::Error>> {
        let (head, body) = fetch(url).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}
