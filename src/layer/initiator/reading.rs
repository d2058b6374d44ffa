//! The reading of one body: at once where it is small, else where it holds up nobody.
//!
//! A body of 16 MiB takes some 20 ms, and while a worker reads it, no other request of that worker goes on. So a
//! large one is read in a thread of its own, as many at a time as there are processors; the next waits its turn.
//! Without a tokio runtime there is no such thread, and every body is read where it is.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Caller, Shared};
use crate::initiator::{Applied, Rules};
use crate::json_body::Memory;
use crate::model::{Known, Names, definition_in, names_definition};
use crate::operation::Match;
use crate::problem::Problem;
use crate::request_info::Findings;

/// A request's body, and what its reading needs.
pub(super) struct Reading {
    pub(super) rules: Rules,
    pub(super) caller: Caller,
    pub(super) shared: Arc<Shared>,
    pub(super) known: Option<Known>,
    pub(super) findings: Option<Findings>,
    pub(super) body: Bytes,
    pub(super) _memory: Memory,
}

impl Reading {
    /// Reads the body for a model with these initiator variables.
    pub(super) async fn read(self: &Arc<Self>, model: Names) -> Result<Applied, Problem> {
        self.aside(move |reading| reading.apply(&model)).await
    }

    /// The definition that the body names, where the operation takes it from there.
    pub(super) async fn definition(
        self: &Arc<Self>,
        matched: &Match,
    ) -> Result<Option<Box<str>>, Problem> {
        if !names_definition(matched) {
            return Ok(None);
        }
        self.aside(|reading| definition_in(&reading.body)).await
    }

    async fn aside<T>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
    {
        if self.body.len() <= LARGE_BYTES {
            return work(self);
        }
        let Ok(runtime) = Handle::try_current() else {
            return work(self);
        };
        let turn = self.shared.bodies.turn().await?;
        let reading = Arc::clone(self);
        let done = runtime.spawn_blocking(move || {
            let _turn = turn;
            work(&reading)
        });
        done.await.unwrap_or(Err(Problem::Internal))
    }

    fn apply(&self, model: &[Box<str>]) -> Result<Applied, Problem> {
        let is_known = |name: &str| self.known.as_ref().is_some_and(|it| it.contains(name));
        self.rules.apply_and_see(
            &self.shared.settings,
            &self.caller.identity,
            &self.caller.access,
            model,
            is_known,
            self.findings.as_ref(),
            &self.body,
        )
    }
}

/// A body up to here is read in less time than it takes to hand it over and back, or in not much more than a
/// worker may be held: half a millisecond.
const LARGE_BYTES: usize = 512 * 1024;
