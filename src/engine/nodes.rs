//! The nodes of one engine cluster: which of them gets a request, and which is left alone for a while.
//!
//! 1. The node with the fewest requests in flight is chosen, until the ends of their answers; equal ones in turn.
//! 2. A node is left out while its [health check](super::health) fails, or while its breaker is open: after so many failed
//!    exchanges in a row, for a pause; then one request tries it, and opens or closes it. Any answer closes it, a health check's too.
//! 3. A request that is sent again goes to a node that it was not tried on before.
//! 4. None of this refuses a request: where no node is as it should be, the least bad one is chosen. So with one node alone there is
//!    nothing to choose, nothing is counted for it, and there is no breaker.
//!
//! An answer of the engine's is a success, whatever its status: it says nothing of the node. One that takes too long is
//! none either way, as it may be the request; a node that hangs is found by its health check. So is an exchange whose body was
//! streamed and that broke, as an engine closes in the middle of an upload that it does not want.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::health::EngineHealth;

/// The nodes, and what is known of them. Clones share it.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    nodes: Box<[Node]>,
    health: EngineHealth,
    breaker: BreakerSettings,
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    in_flight: AtomicUsize,
    open: AtomicUsize,
    workers: Box<[PerWorker]>,
    breaker: Mutex<Breaker>,
    /// Whether there is anything in the breaker, so that a node without trouble costs no lock.
    is_troubled: AtomicBool,
}

/// What each worker counts for itself; a cache line of its own, so that none waits for another's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct PerWorker {
    requests: AtomicU64,
    idle: AtomicUsize,
}

/// When a node is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// After so many failed exchanges in a row; 0 is never.
    pub failures: u32,
    /// So long, before one request tries it again.
    pub pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(5),
        }
    }
}

/// Whether a node gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It does.
    Closed,
    /// One request is to try it.
    HalfOpen,
    /// It is left alone.
    Open,
}

impl BreakerState {
    /// Every state there is.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// A node at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFigures<'a> {
    /// Its host and port, as configured.
    pub name: &'a str,
    /// What its last health check found; `None` before the first.
    pub is_up: Option<bool>,
    /// Its breaker.
    pub breaker: BreakerState,
    /// Requests that were sent to it.
    pub requests: u64,
    /// Connections that stand.
    pub open: usize,
    /// Those of them that wait for a request.
    pub idle: usize,
}

/// The nodes that a request was tried on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tried(u64);

impl Tried {
    pub(crate) fn add(&mut self, node: usize) {
        self.0 |= bit(node);
    }

    fn has(self, node: usize) -> bool {
        self.0 & bit(node) != 0
    }
}

/// The node that a request was sent to last; put into its extensions by who wants to be told.
#[derive(Debug, Clone)]
pub(crate) struct SentTo(Arc<AtomicUsize>);

impl SentTo {
    pub(crate) fn nobody() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    pub(crate) fn note(&self, node: usize) {
        self.0.store(node, Ordering::Relaxed);
    }

    /// Its place among the nodes.
    pub(crate) fn node(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|node| *node != usize::MAX)
    }
}

fn bit(node: usize) -> u64 {
    1 << node.min(MAX_NODES - 1)
}

/// The most nodes that there can be.
pub const MAX_NODES: usize = 64;

impl Default for Nodes {
    /// A single one without a name.
    fn default() -> Self {
        Self::new(EngineHealth::default(), BreakerSettings::default(), 0)
    }
}

impl Nodes {
    /// Those whose health is asked for; each of `workers` threads counts for itself.
    #[must_use]
    pub fn new(health: EngineHealth, breaker: BreakerSettings, workers: usize) -> Self {
        let node = |_| Node {
            in_flight: AtomicUsize::default(),
            open: AtomicUsize::default(),
            workers: (0..=workers).map(|_| PerWorker::default()).collect(),
            breaker: Mutex::default(),
            is_troubled: AtomicBool::default(),
        };
        Self(Arc::new(Shared {
            nodes: health.names().map(node).collect(),
            health,
            breaker,
            turn: AtomicUsize::default(),
        }))
    }

    /// What their health checks say, for those who ask by the engine's account of this moment.
    #[must_use]
    pub fn health(&self) -> EngineHealth {
        self.0.health.of_now()
    }

    /// Each of them, at this moment.
    pub fn figures(&self) -> impl Iterator<Item = NodeFigures<'_>> {
        let now = Instant::now();
        let named = self.0.health.names().zip(&self.0.nodes).enumerate();
        named.map(move |(place, (name, node))| NodeFigures {
            name,
            is_up: self.0.health.is_up(place),
            breaker: node.state(now),
            requests: node.workers.iter().map(PerWorker::requests).sum(),
            open: node.open.load(Ordering::Relaxed),
            idle: node.workers.iter().map(PerWorker::idle).sum(),
        })
    }

    pub(super) fn is_single(&self) -> bool {
        self.0.nodes.len() <= 1
    }

    /// The node for a request that was tried on these before.
    pub(super) fn choose(&self, tried: Tried) -> usize {
        let now = Instant::now();
        let candidates = self.0.nodes.iter().enumerate().map(|(place, node)| {
            let is_left_out =
                self.0.health.is_up(place) == Some(false) || node.state(now) == BreakerState::Open;
            Candidate {
                is_left_out,
                was_tried: tried.has(place),
                in_flight: node.in_flight.load(Ordering::Relaxed),
            }
        });
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = least_loaded(candidates, turn);
        if let Some(node) = self.0.nodes.get(chosen)
            && node.is_troubled()
        {
            node.breaker().probe(now, self.0.breaker);
        }
        chosen
    }

    /// Counts a request until what is returned is dropped; where there is a choice.
    pub(super) fn enter(&self, node: usize) -> Option<InFlight> {
        if self.is_single() {
            return None;
        }
        let counter = &self.0.nodes.get(node)?.in_flight;
        counter.fetch_add(1, Ordering::Relaxed);
        Some(InFlight {
            nodes: self.clone(),
            node,
        })
    }

    /// Counts a connection until what is returned is dropped.
    pub(super) fn opened(&self, node: usize) -> Open {
        if let Some(node) = self.0.nodes.get(node) {
            node.open.fetch_add(1, Ordering::Relaxed);
        }
        Open {
            nodes: self.clone(),
            node,
        }
    }

    /// What this worker counts for that node.
    pub(super) fn of_worker(&self, node: usize, worker: usize) -> Option<&PerWorker> {
        let workers = &self.0.nodes.get(node)?.workers;
        workers.get(worker).or(workers.first())
    }

    /// The node answered.
    pub(super) fn succeeded(&self, place: usize) {
        let Some(node) = self.0.nodes.get(place).filter(|node| node.is_troubled()) else {
            return;
        };
        let mut breaker = node.breaker();
        let was_open = breaker.succeeded();
        node.is_troubled.store(false, Ordering::Relaxed);
        drop(breaker);
        if was_open {
            info!(node = self.name(place), "engine node is used again");
        }
    }

    /// An exchange with the node failed.
    pub(super) fn failed(&self, place: usize) {
        if self.is_single() {
            return;
        }
        let Some(node) = self.0.nodes.get(place) else {
            return;
        };
        let mut breaker = node.breaker();
        let opens = breaker.failed(Instant::now(), self.0.breaker);
        node.is_troubled.store(true, Ordering::Relaxed);
        drop(breaker);
        if opens {
            let failures = self.0.breaker.failures;
            warn!(node = self.name(place), failures, "engine node is left out");
        }
    }

    fn name(&self, place: usize) -> &str {
        self.0.health.names().nth(place).unwrap_or_default()
    }
}

impl Node {
    fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, now: Instant) -> BreakerState {
        if self.is_troubled() {
            self.breaker().state(now)
        } else {
            BreakerState::Closed
        }
    }
}

impl PerWorker {
    /// A request more, and so many connections that wait. Whoever calls it holds the worker's lock.
    pub(super) fn took(&self, idle: usize) {
        let requests = self.requests().wrapping_add(1);
        self.requests.store(requests, Ordering::Relaxed);
        self.keeps(idle);
    }

    /// So many connections wait.
    pub(super) fn keeps(&self, idle: usize) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    nodes: Nodes,
    node: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(node) = self.nodes.0.nodes.get(self.node) {
            node.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Open {
    nodes: Nodes,
    node: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(node) = self.nodes.0.nodes.get(self.node) {
            node.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What counts of a node. The order is that of the choice: rather one that was tried than one that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    is_left_out: bool,
    was_tried: bool,
    in_flight: usize,
}

/// The place of the best; among equals that of the turn. The candidates are looked at once, as other workers change
/// them meanwhile.
fn least_loaded(candidates: impl Iterator<Item = Candidate>, turn: usize) -> usize {
    let candidates: Vec<Candidate> = candidates.collect();
    let best = candidates.iter().min();
    let equals = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| Some(*candidate) == best);
    let count = equals.clone().count().max(1);
    let mut equals = equals.map(|(place, _)| place);
    equals.nth(turn % count).unwrap_or(0)
}

/// Failures in a row, and what follows from them.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Where it is open: when the next request may try the node.
    next_try: Option<Instant>,
}

impl Breaker {
    fn state(&self, now: Instant) -> BreakerState {
        match self.next_try {
            None => BreakerState::Closed,
            Some(time) if time <= now => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }

    /// A request is sent there: while that is under way, and no longer than a pause, no other is needed.
    fn probe(&mut self, now: Instant, settings: BreakerSettings) {
        if self.state(now) == BreakerState::HalfOpen {
            self.next_try = Some(now + settings.pause);
        }
    }

    /// Says whether it was open.
    fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.next_try.take().is_some()
    }

    /// Says whether this opens it.
    fn failed(&mut self, now: Instant, settings: BreakerSettings) -> bool {
        self.failures = self.failures.saturating_add(1);
        if settings.failures == 0 || self.failures < settings.failures {
            return false;
        }
        self.next_try.replace(now + settings.pause).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::HealthSettings;
    use super::*;

    fn nodes(count: usize) -> Nodes {
        let names = (0..count).map(|place| format!("engine-{place}:8080"));
        let health = EngineHealth::new(names, HealthSettings::default());
        let breaker = BreakerSettings {
            failures: 3,
            pause: PAUSE,
        };
        Nodes::new(health, breaker, 2)
    }

    const PAUSE: Duration = Duration::from_secs(5);

    fn state(nodes: &Nodes, node: usize) -> BreakerState {
        nodes.figures().nth(node).unwrap().breaker
    }

    #[test]
    fn the_best_is_chosen_and_equals_in_turn() {
        // (left out, tried, in flight)
        type Row = (&'static [(bool, bool, usize)], &'static [usize]);
        let rows: [Row; 8] = [
            (&[], &[0, 0]),
            (&[(false, false, 7)], &[0, 0]),
            (&[(false, false, 2), (false, false, 1)], &[1, 1]),
            (
                &[(false, false, 1), (false, false, 2), (false, false, 1)],
                &[0, 2, 0, 2],
            ),
            (&[(true, false, 0), (false, false, 9)], &[1, 1]),
            (&[(false, true, 0), (false, false, 9)], &[1, 1]),
            // Rather twice on a good one than on a bad one.
            (&[(true, false, 0), (false, true, 9)], &[1, 1]),
            (&[(true, true, 0), (true, false, 9)], &[1, 1]),
        ];
        for (given, want) in rows {
            let candidates = given
                .iter()
                .map(|&(is_left_out, was_tried, in_flight)| Candidate {
                    is_left_out,
                    was_tried,
                    in_flight,
                });
            let chosen: Vec<_> = (0..want.len())
                .map(|turn| least_loaded(candidates.clone(), turn))
                .collect();
            assert_eq!(chosen, want, "{given:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_flight_count_until_they_end() {
        let nodes = nodes(3);
        let choose = || nodes.choose(Tried::default());
        let mut held: Vec<_> = (0..6).map(|_| nodes.enter(choose()).unwrap()).collect();
        for node in 0..3 {
            assert_eq!(held.iter().filter(|held| held.node == node).count(), 2);
        }
        held.retain(|held| held.node != 1);
        for _ in 0..5 {
            assert_eq!(choose(), 1);
        }
        let mut tried = Tried::default();
        tried.add(1);
        assert_ne!(nodes.choose(tried), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_breaker_opens_after_failures_in_a_row_and_one_request_tries_it_after_the_pause() {
        let nodes = nodes(2);
        let busy: Vec<_> = (0..9).map(|_| nodes.enter(1).unwrap()).collect();
        let choose = || nodes.choose(Tried::default());
        // One success in between, and it is no row.
        for outcome in [false, false, true, false, false] {
            if outcome {
                nodes.succeeded(0);
            } else {
                nodes.failed(0);
            }
            assert_eq!((state(&nodes, 0), choose()), (BreakerState::Closed, 0));
        }
        nodes.failed(0);
        assert_eq!((state(&nodes, 0), choose()), (BreakerState::Open, 1));
        tokio::time::advance(PAUSE / 2).await;
        assert_eq!(choose(), 1);
        tokio::time::advance(PAUSE / 2).await;
        assert_eq!(state(&nodes, 0), BreakerState::HalfOpen);
        assert_eq!((choose(), choose()), (0, 1), "one request tries it");
        nodes.failed(0);
        assert_eq!((state(&nodes, 0), choose()), (BreakerState::Open, 1));
        tokio::time::advance(PAUSE).await;
        assert_eq!((choose(), choose()), (0, 1));
        // Whoever tried it went away without a word: another may.
        tokio::time::advance(PAUSE).await;
        assert_eq!(choose(), 0);
        nodes.succeeded(0);
        assert_eq!((state(&nodes, 0), choose()), (BreakerState::Closed, 0));
        drop(busy);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_breakers_are_open_requests_still_go_out() {
        let nodes = nodes(2);
        for _ in 0..3 {
            nodes.failed(0);
            nodes.failed(1);
        }
        let chosen: Vec<_> = (0..4).map(|_| nodes.choose(Tried::default())).collect();
        assert_eq!(chosen, [0, 1, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_alone_has_no_breaker() {
        let nodes = nodes(1);
        for _ in 0..100 {
            nodes.failed(0);
        }
        assert_eq!(state(&nodes, 0), BreakerState::Closed);
        assert!(nodes.enter(0).is_none(), "and nothing is counted");
    }

    #[test]
    fn a_breaker_that_is_off_never_opens() {
        let settings = BreakerSettings {
            failures: 0,
            ..BreakerSettings::default()
        };
        let mut breaker = Breaker::default();
        let now = Instant::now();
        assert!((0..100).all(|_| !breaker.failed(now, settings)));
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }
}
