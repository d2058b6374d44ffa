//! The token that came last over a connection: the next request over it nearly always has the same.
//!
//! It is known by its whole text, so no tag has to be computed. Its times and its issuer's keys are looked at each time, as an entry's
//! of the [cache](super::cache), which is asked again after [`MAX_AGE`].
//!
//! A text is kept from its second request on, as long as the connection or until another comes, is overwritten when it is let go, and is
//! compared from its end: nobody who shares
//! a connection with others, behind a proxy, learns of a token by how long it takes to refuse a guess, as the first 32 bytes
//! that are compared are of the signature and are compared at once.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::cache::Entry;

/// How long a text is enough.
const MAX_AGE: Duration = Duration::from_secs(10);

/// What the last request's token was.
#[derive(Clone, Default)]
pub(crate) struct LastToken {
    end: [u8; 32],
    kept: Option<Arc<Kept>>,
}

struct Kept {
    text: Zeroizing<Box<[u8]>>,
    entry: Entry,
    since: SystemTime,
}

impl LastToken {
    /// What is known of this token, where the last one was the same.
    pub(super) fn entry(&self, token: &[u8], now: SystemTime) -> Option<&Entry> {
        let kept = self.kept.as_ref()?;
        let is_same = token.last_chunk() == Some(&self.end) && **kept.text == *token;
        let is_fresh = now
            .duration_since(kept.since)
            .is_ok_and(|age| age < MAX_AGE);
        (is_same && is_fresh).then_some(&kept.entry)
    }

    /// Takes notice of a token that was verified.
    pub(super) fn note(&mut self, token: &[u8], entry: &Entry, now: SystemTime) {
        let Some(end) = token.last_chunk() else {
            return;
        };
        // The text of who comes once is not worth a copy.
        self.kept = (self.end == *end).then(|| {
            Arc::new(Kept {
                text: Zeroizing::new(token.into()),
                entry: entry.clone(),
                since: now,
            })
        });
        self.end = *end;
    }
}

impl fmt::Debug for LastToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastToken").finish_non_exhaustive()
    }
}
