//! Where records are written: one thread, one file.
//!
//! No record is lost in silence, and nothing is carried out that could not be recorded:
//!
//! 1. A request that writes takes a [`Slot`] before it goes to the engine, and is refused with 503
//!    `audit_unavailable` if none is free within [`PATIENCE`]. So there is room for its record, whatever happens.
//! 2. While writing fails no slot is given at once; records that have one wait in memory, in their order.
//!    The writer logs the failure, tries the same bytes again every [`PAUSE`], and goes on where it had stopped,
//!    so that lines stay whole.
//! 3. When the last [`AuditLog`] is dropped, the drop waits until all records are written. What cannot be written
//!    then is counted in an `error` event.
//!
//! Each batch is one write to the operating system, which has the line even if the gateway is killed at once; the
//! disk has it when the operating system thinks fit.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit, Receiver, Sender};
use tracing::{error, info};

use super::Record;
use crate::problem::Problem;

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output, which has nothing else then.
    Stdout,
    /// A file, made with mode 0600 where there is none, and appended to.
    File(PathBuf),
}

impl Target {
    /// Reads the configuration's `telemetry.audit_log`; empty is no audit log.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "stdout" => Some(Self::Stdout),
            path => Some(Self::File(path.into())),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            Self::Stdout => stdout(),
            Self::File(path) => append(path),
        }
    }
}

/// The audit log's end that takes records. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Arc<Shared>);

struct Shared {
    /// Always there until the drop, which must close the channel before it waits for the thread.
    records: Option<Sender<Box<Record>>>,
    state: Arc<State>,
    writer: Option<JoinHandle<()>>,
}

/// Room for one record.
#[derive(Debug)]
pub struct Slot {
    permit: OwnedPermit<Box<Record>>,
    // Behind the permit: the drop of the last log waits for the channel's end.
    _log: AuditLog,
}

/// How the audit log is, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Records written since the start.
    pub written: u64,
    /// Attempts to write that failed since the start.
    pub failures: u64,
    /// Whether the last attempt failed, so that requests that write are refused.
    pub failing: bool,
}

#[derive(Default)]
struct State {
    written: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
    /// Where to go on, if elsewhere.
    next: Mutex<Option<Output>>,
}

type Output = Box<dyn Write + Send>;

impl AuditLog {
    /// Opens the target, and starts the thread that writes. `in_flight` requests can have a slot at once while
    /// [`QUEUE`] records of earlier ones wait to be written.
    ///
    /// # Errors
    /// The file cannot be opened, the thread not started.
    pub fn open(target: &Target, in_flight: usize) -> io::Result<Self> {
        Self::over(Box::new(target.open()?), in_flight.saturating_add(QUEUE))
    }

    fn over(output: Output, slots: usize) -> io::Result<Self> {
        let slots = slots.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, records) = mpsc::channel(slots);
        let state = Arc::new(State::default());
        let writer = Writer {
            output,
            records,
            state: state.clone(),
            reported: None,
        };
        let writer = thread::Builder::new()
            .name("bpmgate-audit".to_owned())
            .spawn(|| writer.run())?;
        Ok(Self(Arc::new(Shared {
            records: Some(sender),
            state,
            writer: Some(writer),
        })))
    }

    /// Opens the target, and goes on there from the next line on: after a rename, as `logrotate` does it, in a new file.
    ///
    /// # Errors
    /// It cannot be opened; then all goes on as before.
    pub fn reopen(&self, target: &Target) -> io::Result<()> {
        self.go_on_in(Box::new(target.open()?));
        Ok(())
    }

    fn go_on_in(&self, output: Output) {
        let state = &self.0.state;
        *state.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        // It may be pausing after a failure, which may be over there.
        if let Some(writer) = &self.0.writer {
            writer.thread().unpark();
        }
    }

    /// Room for a record, if there is any now; none while writing fails.
    #[must_use]
    pub fn try_slot(&self) -> Option<Slot> {
        let permit = self.records()?.try_reserve_owned().ok()?;
        Some(self.slot_of(permit))
    }

    /// Room for a record; waits for it up to [`PATIENCE`], and not at all while writing fails.
    ///
    /// # Errors
    /// [`Problem::AuditUnavailable`] if there is none.
    pub async fn slot(&self) -> Result<Slot, Problem> {
        let records = self.records().ok_or(Problem::AuditUnavailable)?;
        match tokio::time::timeout(PATIENCE, records.reserve_owned()).await {
            Ok(Ok(permit)) if !self.status().failing => Ok(self.slot_of(permit)),
            Ok(_) | Err(_) => Err(Problem::AuditUnavailable),
        }
    }

    /// What it has written so far.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = &self.0.state;
        Status {
            written: state.written.load(Ordering::Relaxed),
            failures: state.failures.load(Ordering::Relaxed),
            failing: state.failing.load(Ordering::Relaxed),
        }
    }

    fn records(&self) -> Option<Sender<Box<Record>>> {
        self.0.records.clone().filter(|_| !self.status().failing)
    }

    fn slot_of(&self, permit: OwnedPermit<Box<Record>>) -> Slot {
        Slot {
            permit,
            _log: self.clone(),
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuditLog").field(&self.status()).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.records = None;
        if let Some(writer) = self.writer.take() {
            // It may be pausing after a failure.
            writer.thread().unpark();
            let _ = writer.join();
        }
    }
}

impl Slot {
    /// Hands over the record; waits for nothing.
    pub fn write(self, record: Record) {
        self.permit.send(Box::new(record));
    }
}

/// What the thread has.
struct Writer {
    output: Output,
    records: Receiver<Box<Record>>,
    state: Arc<State>,
    /// When a failure was logged last.
    reported: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut lines = Vec::new();
        let mut lost: u64 = 0;
        while self.records.blocking_recv_many(&mut batch, BATCH) > 0 {
            let records = batch.len() as u64;
            for record in batch.drain(..) {
                write_line(&mut lines, &record);
            }
            if self.put(&lines) {
                self.state.written.fetch_add(records, Ordering::Relaxed);
            } else {
                lost = lost.saturating_add(records);
            }
            lines.clear();
        }
        if lost > 0 {
            error!(records = lost, "audit records are lost");
        }
    }

    /// Writes all of it, however long that takes; `false` if it fails when nobody waits for it any more.
    fn put(&mut self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while !rest.is_empty() {
            if let Some(output) = self.next() {
                self.output = output;
                rest = from_line_start(lines, lines.len().saturating_sub(rest.len()));
            }
            let closed = self.records.is_closed();
            let error = match self.output.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.report(&error);
            if closed {
                return false;
            }
            thread::park_timeout(PAUSE);
        }
        if self.state.failing.swap(false, Ordering::Relaxed) {
            self.reported = None;
            info!("the audit log can be written again");
        }
        true
    }

    fn next(&self) -> Option<Output> {
        let mut next = self.state.next.lock();
        next.as_mut()
            .map_or_else(|poisoned| poisoned.get_mut().take(), |next| next.take())
    }

    /// An error at the first failure and then at most once a minute.
    fn report(&mut self, error: &io::Error) {
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        self.state.failing.store(true, Ordering::Relaxed);
        let is_due = |last: Instant| last.elapsed() >= REPORT_PAUSE;
        if self.reported.is_none_or(is_due) {
            self.reported = Some(Instant::now());
            error!(%error, "the audit log cannot be written, requests that write are refused");
        }
    }
}

/// What is not written yet, with the whole of the line that was begun.
fn from_line_start(lines: &[u8], written: usize) -> &[u8] {
    let before = lines.get(..written).unwrap_or_default();
    let begun = before.iter().rposition(|byte| *byte == b'\n');
    lines
        .get(begun.map_or(0, |end| end.saturating_add(1))..)
        .unwrap_or_default()
}

fn write_line(lines: &mut Vec<u8>, record: &Record) {
    let before = lines.len();
    match serde_json::to_writer(&mut *lines, record) {
        Ok(()) => lines.push(b'\n'),
        Err(error) => {
            lines.truncate(before);
            let (request_id, trace_id) = (&record.request_id, &record.trace_id);
            error!(%error, request_id, trace_id, "an audit record is no JSON");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The descriptor itself: a buffer between would not know how much of a line was written before an error.
#[cfg(unix)]
fn stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn stdout() -> io::Result<File> {
    Err(ErrorKind::Unsupported.into())
}

/// How many records may wait to be written beside those of the requests in flight.
pub const QUEUE: usize = 1024;

/// How long a request waits for a slot.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// From a failed attempt to the next.
pub const PAUSE: Duration = Duration::from_secs(1);

/// From one logged failure to the next.
const REPORT_PAUSE: Duration = Duration::from_mins(1);

/// How many records make one write at most.
const BATCH: usize = 256;

#[cfg(test)]
mod tests;
