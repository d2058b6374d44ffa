//! Which of our lines are wanted: a level that can be changed while the process runs.
//!
//! What it says of a place in the code is kept there until the level changes, so that a line that is not wanted costs
//! as little as under a level that is fixed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::config::LogLevel;

/// Lets our own lines pass, of this importance or more. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Wanted(Arc<AtomicUsize>);

impl Wanted {
    pub(super) fn new(level: LogLevel) -> Self {
        Self(Arc::new(AtomicUsize::new(place(level))))
    }

    pub(super) fn set(&self, level: LogLevel) {
        if self.0.swap(place(level), Ordering::Relaxed) != place(level) {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    fn level(&self) -> LevelFilter {
        let place = self.0.load(Ordering::Relaxed);
        FILTERS.get(place).copied().unwrap_or(LevelFilter::INFO)
    }

    /// Whether the lines of the access log are, which are of the level `info`.
    pub(super) fn wants_access(&self) -> bool {
        self.level() >= LevelFilter::INFO
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        // Only our own targets: hyper's debug lines hold header values.
        *metadata.level() <= self.level() && metadata.target().starts_with("bpmgate")
    }
}

impl<S: Subscriber> Layer<S> for Wanted {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }
}

const FILTERS: [LevelFilter; 5] = [
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// Its place in [`FILTERS`].
fn place(level: LogLevel) -> usize {
    match level {
        LogLevel::Error => 0,
        LogLevel::Warn => 1,
        LogLevel::Info => 2,
        LogLevel::Debug => 3,
        LogLevel::Trace => 4,
    }
}
