//! Tokens that were verified before, so that a caller's next request costs a tag and not a signature check.
//!
//! An entry answers only what a new verification would: it holds for the very key set that verified it, and
//! its times are looked at each time. So a token that expires, or whose key an issuer takes back, is refused
//! no later than without the cache. What is refused is never kept.
//!
//! A token is found by its GMAC tag (NIST SP 800-38D), signature included, under a key that is made for this
//! cache and never leaves it: no token is kept here, and none is found by a part of it. Nobody sees a tag, so nobody
//! can learn the key; without it, the chance that two given tokens have one tag is less than 2^-119, whoever
//! chose them. It takes a quarter of the time of a SHA-256.
//! Bounds: so many entries, each of a token of at most [`MAX_CACHED_BYTES`] and at most ten minutes old.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use moka::sync::Cache;

use super::{KeySet, VerifiedToken};

/// The longest token that is kept, in bytes; a longer one is verified every time.
const MAX_CACHED_BYTES: usize = 4 * 1024;

/// How long an entry stays after its signature was checked.
const MAX_AGE: Duration = Duration::from_mins(10);

pub(super) struct TokenCache {
    key: LessSafeKey,
    entries: Cache<TokenTag, Entry, foldhash::fast::RandomState>,
}

/// Names a token without being one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenTag([u8; MAX_TAG_LEN]);

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) token: VerifiedToken,
    /// Which of the verifier's issuers.
    issuer: usize,
    /// The set that verified it. `Weak` keeps the address from being used again, but not the keys.
    keys: Weak<KeySet>,
}

impl Entry {
    /// A token that these keys have verified.
    pub(super) fn new(token: VerifiedToken, issuer: usize, keys: &Arc<KeySet>) -> Self {
        Self {
            token,
            issuer,
            keys: Arc::downgrade(keys),
        }
    }

    /// Whether it would be verified with these keys at this time.
    pub(super) fn holds(
        &self,
        now: SystemTime,
        current: impl FnOnce(usize) -> Option<Arc<KeySet>>,
    ) -> bool {
        let same_keys = current(self.issuer)
            .is_some_and(|now| std::ptr::eq(self.keys.as_ptr(), &raw const *now));
        let leeway = self.token.issuer().rules().leeway;
        same_keys && self.token.0.validity.check(now, leeway).is_ok()
    }
}

impl TokenCache {
    /// `None` where the system has no random numbers for its key: nothing is kept then.
    pub(super) fn new(entries: usize) -> Option<Self> {
        let mut key = [0; 16];
        rand::fill(&mut key).ok()?;
        let key = UnboundKey::new(&AES_128_GCM, &key).ok()?;
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        Some(Self {
            key: LessSafeKey::new(key),
            entries: Cache::builder()
                .max_capacity(entries)
                .time_to_live(MAX_AGE)
                .build_with_hasher(foldhash::fast::RandomState::default()),
        })
    }

    /// `None` if the token is too long to be kept.
    pub(super) fn tag(&self, token: &[u8]) -> Option<TokenTag> {
        if token.len() > MAX_CACHED_BYTES {
            return None;
        }
        // Nothing is encrypted, and the tag is told to nobody: the nonce may be one for all, so that a token has
        // one tag.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(token), &mut [])
            .ok()?;
        tag.as_ref().try_into().ok().map(TokenTag)
    }

    /// The token, if it would be verified with these keys at this time.
    pub(super) fn get(
        &self,
        tag: &TokenTag,
        now: SystemTime,
        current: impl FnOnce(usize) -> Option<Arc<KeySet>>,
    ) -> Option<Entry> {
        let entry = self.entries.get(tag)?;
        if entry.holds(now, current) {
            return Some(entry);
        }
        self.entries.invalidate(tag);
        None
    }

    /// Keeps what was verified.
    pub(super) fn insert(&self, tag: TokenTag, entry: Entry) {
        self.entries.insert(tag, entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }
}

/// Shows how many entries there are, about.
impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
