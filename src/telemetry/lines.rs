//! Standard error, written to in few large pieces where lines are many.
//!
//! Lines of the access log are [gathered](Lines::gather) for [`LONGEST_WAIT`] or [`LARGEST`], so that a busy gateway does not
//! make a system call for each; every other line, and what was gathered before it, is written at once. A killed
//! process loses what is gathered. A reader of standard error that stops reading stops the gateway, as with any
//! program that logs there: what was done must be told.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers of lines.
#[derive(Debug, Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gathered: Mutex<Vec<u8>>,
    /// Told when the first line has come.
    begun: Condvar,
}

impl Lines {
    /// Starts the thread that writes what has been gathered.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared {
            gathered: Mutex::default(),
            begun: Condvar::new(),
        });
        let gathers = shared.clone();
        // Without it every line is written at once.
        let thread = thread::Builder::new().name("bpmgate-log".to_owned());
        let _ = thread.spawn(move || gathers.write_in_time());
        Self(shared)
    }

    /// Takes a line that may wait.
    pub(super) fn gather(&self, line: &[u8]) {
        let mut gathered = self.0.lock();
        let is_first = gathered.is_empty();
        gathered.extend_from_slice(line);
        if gathered.len() >= LARGEST {
            write(&mut gathered);
        } else if is_first {
            self.0.begun.notify_one();
        }
    }

    /// Writes what has been gathered.
    pub(super) fn flush(&self) {
        write(&mut self.0.lock());
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::disallowed_methods, reason = "the thread is its own")]
    fn write_in_time(&self) {
        loop {
            let begun = self
                .begun
                .wait_while(self.lock(), |gathered| gathered.is_empty());
            drop(begun.unwrap_or_else(PoisonError::into_inner));
            thread::sleep(LONGEST_WAIT);
            write(&mut self.lock());
        }
    }
}

/// There is nobody to tell that standard error is gone.
fn write(gathered: &mut Vec<u8>) {
    let _ = io::stderr().write_all(gathered);
    gathered.clear();
}

/// The writer of a line that is written at once.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut gathered = self.0.lock();
        gathered.extend_from_slice(line);
        write(&mut gathered);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// The longest that a line of the access log waits.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// The bytes that are gathered at most.
const LARGEST: usize = 16 * 1024;
