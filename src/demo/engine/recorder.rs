//! Remembers what arrived, so that a test can say "the engine saw exactly this", or nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use super::super::lock;

/// A request as it arrived at the engine.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// Path and query as they came, nothing decoded.
    pub target: String,
    /// The HTTP version.
    pub version: Version,
    /// All header fields in the order of arrival.
    pub headers: HeaderMap,
    /// The body, up to [`MAX_RECORDED_BODY`] bytes; what a script leaves unread is missing.
    pub body: Bytes,
    /// How many bytes of body were read.
    pub body_length: u64,
    /// The trailers, when there were any.
    pub trailers: Option<HeaderMap>,
    /// The number of the connection, from 0.
    pub connection: usize,
}

/// How many bytes of a body are kept.
pub const MAX_RECORDED_BODY: usize = 64 * 1024;

/// The last requests and some counts.
#[derive(Debug)]
pub(super) struct Recorder {
    keep: usize,
    total: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the first one kept.
    first: usize,
    requests: VecDeque<(Recorded, BytesMut)>,
    by_path: BTreeMap<String, usize>,
}

/// A request's place in the recorder; none when nothing is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(Option<usize>);

impl Recorder {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            total: AtomicUsize::new(0),
            kept: Mutex::default(),
        }
    }

    /// Takes down a request's head.
    pub(super) fn begin(&self, head: &Parts, connection: usize) -> Place {
        self.total.fetch_add(1, Ordering::SeqCst);
        if self.keep == 0 {
            return Place(None);
        }
        let target = head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.to_string(), ToString::to_string);
        let request = Recorded {
            method: head.method.clone(),
            target,
            version: head.version,
            headers: head.headers.clone(),
            body: Bytes::new(),
            body_length: 0,
            trailers: None,
            connection,
        };
        let kept = &mut *lock(&self.kept);
        if kept.requests.len() == self.keep {
            kept.requests.pop_front();
            kept.first += 1;
        }
        // Bounded, whatever paths a client thinks up.
        if kept.by_path.len() < MAX_PATHS || kept.by_path.contains_key(head.uri.path()) {
            *kept.by_path.entry(head.uri.path().to_owned()).or_default() += 1;
        }
        kept.requests.push_back((request, BytesMut::new()));
        Place(Some(kept.first + kept.requests.len() - 1))
    }

    /// Adds a piece of its body.
    pub(super) fn data(&self, place: Place, data: &[u8]) {
        self.change(place, |request, body| {
            request.body_length += data.len() as u64;
            let room = MAX_RECORDED_BODY.saturating_sub(body.len());
            body.extend_from_slice(data.get(..room).unwrap_or(data));
        });
    }

    /// Adds its trailers.
    pub(super) fn trailers(&self, place: Place, trailers: &HeaderMap) {
        self.change(place, |request, _| {
            request.trailers = Some(trailers.clone());
        });
    }

    fn change(&self, place: Place, change: impl FnOnce(&mut Recorded, &mut BytesMut)) {
        let Place(Some(number)) = place else { return };
        let kept = &mut *lock(&self.kept);
        let index = number.checked_sub(kept.first);
        if let Some((request, body)) = index.and_then(|index| kept.requests.get_mut(index)) {
            change(request, body);
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    /// How many requests came for paths that begin so.
    pub(super) fn count(&self, prefix: &str) -> usize {
        lock(&self.kept)
            .by_path
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, count)| count)
            .sum()
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        let with_body = |(request, body): &(Recorded, BytesMut)| Recorded {
            body: body.clone().freeze(),
            ..request.clone()
        };
        lock(&self.kept).requests.iter().map(with_body).collect()
    }

    /// Forgets all requests and counts.
    pub(super) fn clear(&self) {
        let kept = &mut *lock(&self.kept);
        kept.first += kept.requests.len();
        kept.requests.clear();
        kept.by_path.clear();
        self.total.store(0, Ordering::SeqCst);
    }
}

const MAX_PATHS: usize = 10_000;
