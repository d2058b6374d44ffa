//! Which of the gateway's threads this is.
//!
//! Each worker has a runtime of its own. What its connections use and give back, such as connections to the
//! engine, stays with it: no other thread is woken for it, and none is waited for.

use std::cell::Cell;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The worker whose thread this is, from 1; 0 on every other thread.
pub(crate) fn current() -> usize {
    INDEX.get()
}

/// Makes this thread that worker's.
#[cfg(feature = "server")]
pub(crate) fn become_worker(index: usize) {
    INDEX.set(index);
}
