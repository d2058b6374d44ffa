//! What the gateway counts, as atomics that a request adds to without a lock.
//!
//! A request's place is found by numbers alone: the row of the catalogue, the method, the class of the status, the outcome. So the labels
//! are bounded by the catalogue; what a client makes up is `_OTHER` or `-`. How it is shown is `telemetry/metrics.rs`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::layer::OWN_PATHS;
use crate::operation::{Catalogue, Kind, Operation};
use crate::request_info::Findings;

/// The counters. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Counters>);

struct Counters {
    /// By place (see [`place_of`]), then method. A table is made when it is first needed.
    requests: Box<[[OnceLock<Box<Table>>; METHODS.len()]]>,
    in_flight: AtomicU64,
    request_bytes: AtomicU64,
    answer_bytes: AtomicU64,
    retries: AtomicU64,
    retries_withheld: AtomicU64,
    rewritten: AtomicU64,
    long_polls: AtomicU64,
    queued: AtomicU64,
    /// By `SpanEnd`.
    spans: [AtomicU64; SPAN_ENDS.len()],
    whole: Histogram,
    engine: Histogram,
    gateway: Histogram,
}

/// By class of the status, then outcome.
type Table = [[AtomicU64; OUTCOMES.len()]; STATUSES.len()];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Forwarded,
    Denied,
    Unauthorized,
    Rejected,
    EngineError,
    Timeout,
    Aborted,
}

/// The names of [`Outcome`], in its order.
const OUTCOMES: [&str; 7] = [
    "forwarded",
    "denied",
    "unauthorized",
    "rejected",
    "engine_error",
    "timeout",
    "aborted",
];

/// `none`: the client was gone before there was an answer.
const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const SUCCESS: usize = 2;

/// What became of a span that had ended.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanEnd {
    /// The collector has taken it.
    Sent,
    /// There was no room for it.
    Dropped,
    /// It could not be sent.
    Failed,
}

/// The names of `SpanEnd`, in its order.
const SPAN_ENDS: [&str; 3] = ["sent", "dropped", "failed"];

/// The methods by name; all others are the last.
const METHODS: [&str; 10] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "_OTHER",
];

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) operation: &'static str,
    pub(crate) group: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) count: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let places = Catalogue::builtin().operations().len() + OWN_PATHS.len() + 1;
        Self(Arc::new(Counters {
            requests: (0..places).map(|_| Default::default()).collect(),
            in_flight: AtomicU64::default(),
            request_bytes: AtomicU64::default(),
            answer_bytes: AtomicU64::default(),
            retries: AtomicU64::default(),
            retries_withheld: AtomicU64::default(),
            rewritten: AtomicU64::default(),
            long_polls: AtomicU64::default(),
            queued: AtomicU64::default(),
            spans: Default::default(),
            whole: Histogram::default(),
            engine: Histogram::default(),
            gateway: Histogram::default(),
        }))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A request came.
    pub(crate) fn began(&self) {
        add(&self.0.in_flight, 1);
    }

    /// A request ended, with its answer or without.
    pub(crate) fn ended(
        &self,
        method: &Method,
        findings: &Findings,
        status: Option<StatusCode>,
        complete: bool,
        took: Duration,
        bytes: u64,
    ) {
        let counters = &*self.0;
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        add(&counters.answer_bytes, bytes);
        counters.whole.observe(took);
        let outcome = outcome(findings.code().is_some(), status, complete);
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        let table = counters
            .requests
            .get(place_of(findings))
            .and_then(|methods| methods.get(method_place(method)));
        let counter = table
            .map(|table| table.get_or_init(Box::default))
            .and_then(|table| table.get(class)?.get(outcome as usize));
        if let Some(counter) = counter {
            add(counter, 1);
        }
    }

    /// So many bytes of a request's body came.
    #[cfg(feature = "server")]
    pub(crate) fn received(&self, bytes: u64) {
        add(&self.0.request_bytes, bytes);
    }

    /// A request was sent to the engine again.
    #[cfg(feature = "fetch")]
    pub(crate) fn retried(&self) {
        add(&self.0.retries, 1);
    }

    /// A request was not sent to the engine again, as there was no try left for it.
    #[cfg(feature = "fetch")]
    pub(crate) fn withheld_retry(&self) {
        add(&self.0.retries_withheld, 1);
    }

    /// So many spans were sent, or were not.
    #[cfg(feature = "server")]
    pub(crate) fn spans_ended(&self, end: SpanEnd, spans: u64) {
        if let Some(counter) = self.0.spans.get(end as usize) {
            add(counter, spans);
        }
    }

    /// A body goes to the engine otherwise than it came.
    pub(crate) fn rewrote_body(&self) {
        add(&self.0.rewritten, 1);
    }

    /// The engine took so long for the head of an answer.
    pub(crate) fn engine_took(&self, took: Duration) {
        self.0.engine.observe(took);
    }

    /// The gateway itself took so long for the head of an answer.
    pub(crate) fn gateway_took(&self, took: Duration) {
        self.0.gateway.observe(took);
    }

    /// Counts a request that waits to be let in, until what is returned is dropped.
    pub(crate) fn queued(&self) -> Queued {
        add(&self.0.queued, 1);
        Queued(self.clone())
    }

    /// Counts a long poll until what is returned is dropped; `None` for any other operation.
    pub(crate) fn long_poll(&self, operation: &Operation) -> Option<LongPoll> {
        (operation.id == LONG_POLL).then(|| {
            add(&self.0.long_polls, 1);
            LongPoll(self.clone())
        })
    }
}

/// A request that waits to be let in.
#[derive(Debug)]
pub(crate) struct Queued(Metrics);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A long poll that waits for the engine.
#[derive(Debug)]
pub(crate) struct LongPoll(Metrics);

impl Drop for LongPoll {
    fn drop(&mut self) {
        self.0.0.long_polls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has been counted, for whoever shows it.
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "the server alone shows it")
)]
impl Metrics {
    /// All kinds of requests that there were.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Requests> {
        self.tables().flat_map(|(place, method, table)| {
            let (operation, group) = name_of(place);
            let cells = STATUSES.iter().zip(table).flat_map(|(status, row)| {
                let cells = OUTCOMES.iter().zip(row);
                cells.map(move |(outcome, counter)| (status, outcome, read(counter)))
            });
            cells
                .filter(|(.., count)| *count > 0)
                .map(move |(status, outcome, count)| Requests {
                    operation,
                    group,
                    method,
                    status,
                    outcome,
                    count,
                })
        })
    }

    /// How often an operation that `is_meant` succeeded.
    fn succeeded(&self, is_meant: impl Fn(&Operation) -> bool) -> u64 {
        let rows = Catalogue::builtin().operations();
        self.tables()
            .filter(|(place, ..)| rows.get(*place).is_some_and(&is_meant))
            .filter_map(|(_, _, table)| table.get(SUCCESS)?.first())
            .map(read)
            .sum()
    }

    pub(crate) fn starts(&self) -> u64 {
        self.succeeded(|row| row.kind == Kind::Start)
    }

    pub(crate) fn completions(&self) -> u64 {
        self.succeeded(|row| COMPLETIONS.contains(&row.id))
    }

    fn tables(&self) -> impl Iterator<Item = (usize, &'static str, &Table)> {
        let places = self.0.requests.iter().enumerate();
        places.flat_map(|(place, methods)| {
            let methods = METHODS.iter().zip(methods);
            methods.filter_map(move |(method, table)| Some((place, *method, &**table.get()?)))
        })
    }

    pub(crate) fn in_flight(&self) -> u64 {
        read(&self.0.in_flight)
    }

    pub(crate) fn request_bytes(&self) -> u64 {
        read(&self.0.request_bytes)
    }

    pub(crate) fn answer_bytes(&self) -> u64 {
        read(&self.0.answer_bytes)
    }

    pub(crate) fn retries(&self) -> u64 {
        read(&self.0.retries)
    }

    pub(crate) fn retries_withheld(&self) -> u64 {
        read(&self.0.retries_withheld)
    }

    pub(crate) fn rewritten_bodies(&self) -> u64 {
        read(&self.0.rewritten)
    }

    pub(crate) fn long_polls(&self) -> u64 {
        read(&self.0.long_polls)
    }

    pub(crate) fn requests_queued(&self) -> u64 {
        read(&self.0.queued)
    }

    /// What became of spans.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SPAN_ENDS.into_iter().zip(self.0.spans.iter().map(read))
    }

    /// The durations of whole requests, of the engine alone, and of the gateway alone.
    pub(crate) fn durations(&self) -> [(&'static str, &Histogram); 3] {
        [
            ("whole", &self.0.whole),
            ("engine", &self.0.engine),
            ("gateway", &self.0.gateway),
        ]
    }
}

/// How many durations fell below which bound.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// By [`BOUNDS`]; the last is beyond all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

/// As OpenTelemetry advises for HTTP, in seconds; below these what the gateway itself takes.
const BOUNDS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
    0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

impl Histogram {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            add(bucket, 1);
        }
        // Rounded, as the gateway's own time is a few of them; a sum of nanoseconds would overflow within weeks of many long polls.
        let rounded = took.saturating_add(Duration::from_nanos(500));
        let microseconds = u64::try_from(rounded.as_micros()).unwrap_or(u64::MAX);
        add(&self.microseconds, microseconds);
    }

    /// The sum in seconds, and the buckets, each with its bound.
    #[cfg_attr(
        not(any(feature = "server", test)),
        expect(dead_code, reason = "the server alone shows it")
    )]
    pub(crate) fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let sum = Duration::from_micros(read(&self.microseconds));
        let buckets = bounds.zip(self.buckets.iter().map(read)).collect();
        (sum.as_secs_f64(), buckets)
    }
}

/// The row of the catalogue; behind them what is none, and then the own routes.
fn place_of(findings: &Findings) -> usize {
    let rows = Catalogue::builtin().operations().len();
    if let Some(operation) = findings.operation() {
        return operation.place;
    }
    let own = |route: &&str| OWN_PATHS.iter().position(|path| path == route);
    findings
        .route()
        .and_then(own)
        .map_or(rows, |own| rows + 1 + own)
}

/// Operation and group of a place.
fn name_of(place: usize) -> (&'static str, &'static str) {
    let rows = Catalogue::builtin().operations();
    if let Some(row) = rows.get(place) {
        return (row.id, row.group);
    }
    let own = place.checked_sub(rows.len() + 1);
    match own.and_then(|own| OWN_PATHS.get(own)) {
        Some(path) => (path, "gateway"),
        None => ("-", "-"),
    }
}

fn method_place(method: &Method) -> usize {
    let known = METHODS.iter().position(|known| *known == method.as_str());
    known.unwrap_or(METHODS.len() - 1)
}

/// `answered_here`: by a problem of the gateway's.
fn outcome(answered_here: bool, status: Option<StatusCode>, complete: bool) -> Outcome {
    if !complete {
        return Outcome::Aborted;
    }
    if !answered_here {
        return Outcome::Forwarded;
    }
    match status {
        Some(StatusCode::UNAUTHORIZED) => Outcome::Unauthorized,
        Some(StatusCode::FORBIDDEN) => Outcome::Denied,
        Some(StatusCode::BAD_GATEWAY) => Outcome::EngineError,
        Some(StatusCode::GATEWAY_TIMEOUT) => Outcome::Timeout,
        Some(_) | None => Outcome::Rejected,
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const LONG_POLL: &str = "fetchAndLock";

/// What completes a task, a person's or a worker's.
const COMPLETIONS: [&str; 3] = ["complete", "submit", "completeExternalTaskResource"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_say_who_answered() {
        for (here, status, complete, want) in [
            (false, 200, true, "forwarded"),
            (false, 500, true, "forwarded"),
            (false, 401, true, "forwarded"),
            (true, 401, true, "unauthorized"),
            (true, 403, true, "denied"),
            (true, 404, true, "rejected"),
            (true, 503, true, "rejected"),
            (true, 502, true, "engine_error"),
            (true, 504, true, "timeout"),
            (false, 200, false, "aborted"),
        ] {
            let found = outcome(here, StatusCode::from_u16(status).ok(), complete);
            assert_eq!(OUTCOMES[found as usize], want, "{here} {status} {complete}");
        }
    }

    #[test]
    fn what_a_client_makes_up_is_one_label() {
        let metrics = Metrics::default();
        for method in ["BREW", "STEEP"] {
            metrics.began();
            let method = method.parse().unwrap();
            let none = Findings::default();
            metrics.ended(&method, &none, None, false, Duration::ZERO, 0);
        }
        let all: Vec<_> = metrics.requests().collect();
        assert_eq!(all.len(), 1);
        let Requests {
            operation,
            method,
            status,
            outcome,
            count,
            ..
        } = all[0];
        assert_eq!(
            (operation, method, status, outcome, count),
            ("-", "_OTHER", "none", "aborted", 2)
        );
        assert_eq!(metrics.in_flight(), 0);
    }

    #[test]
    fn a_duration_of_exactly_a_bound_is_within_it() {
        let histogram = Histogram::default();
        for milliseconds in [5, 6, 10_000, 10_001] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let (sum, buckets) = histogram.read();
        assert!((sum - 20.012).abs() < 1e-9);
        let filled: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(
            filled,
            [&(0.005, 1), &(0.01, 1), &(10.0, 1), &(f64::INFINITY, 1)]
        );
    }

    #[test]
    fn the_named_operations_are_in_the_catalogue() {
        for id in COMPLETIONS.into_iter().chain([LONG_POLL]) {
            assert!(
                Catalogue::builtin()
                    .operations()
                    .iter()
                    .any(|row| row.id == id),
                "{id}"
            );
        }
    }
}
