//! Tokens that were verified before, so that a caller's next request costs a hash and not a signature check.
//!
//! An entry answers only what a new verification would: it holds for the very key set that verified it, and
//! its times are looked at each time. So a token that expires, or whose key an issuer takes back, is refused
//! no later than without the cache. What is refused is never kept.
//!
//! The key is the token's SHA-256, signature included: no token is kept, and none is found by a part of it.
//! Bounds: so many entries, each of a token of at most [`MAX_CACHED_BYTES`] and at most ten minutes old.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use moka::sync::Cache;

use super::{BearerToken, KeySet, VerifiedToken, check_times};

/// The longest token that is kept, in bytes; a longer one is verified every time.
const MAX_CACHED_BYTES: usize = 4 * 1024;

/// How long what somebody's token said may stay in memory after its last verification.
const MAX_AGE: Duration = Duration::from_mins(10);

pub(super) struct TokenCache(Cache<TokenHash, Entry>);

/// Names a token without being one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; SHA256_OUTPUT_LEN]);

#[derive(Clone)]
struct Entry {
    token: VerifiedToken,
    /// Which of the verifier's issuers.
    issuer: usize,
    /// The set that verified it. `Weak` keeps the address from being used again, but not the keys.
    keys: Weak<KeySet>,
}

impl TokenCache {
    pub(super) fn new(entries: usize) -> Self {
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        Self(
            Cache::builder()
                .max_capacity(entries)
                .time_to_live(MAX_AGE)
                .build(),
        )
    }

    /// `None` if the token is too long to be kept.
    pub(super) fn hash(token: BearerToken<'_>) -> Option<TokenHash> {
        let token = token.as_str().as_bytes();
        if token.len() > MAX_CACHED_BYTES {
            return None;
        }
        let hash = digest(&SHA256, token);
        hash.as_ref().try_into().ok().map(TokenHash)
    }

    /// The token, if it would be verified with these keys at this time.
    pub(super) fn get(
        &self,
        hash: &TokenHash,
        now: SystemTime,
        current: impl FnOnce(usize) -> Option<Arc<KeySet>>,
    ) -> Option<VerifiedToken> {
        let Entry {
            token,
            issuer,
            keys,
        } = self.0.get(hash)?;
        let same_keys =
            current(issuer).is_some_and(|now| std::ptr::eq(keys.as_ptr(), &raw const *now));
        let leeway = token.issuer().rules().leeway;
        if same_keys && check_times(token.claims(), now, leeway).is_ok() {
            return Some(token);
        }
        self.0.invalidate(hash);
        None
    }

    /// Keeps a token that these keys have verified.
    pub(super) fn insert(
        &self,
        hash: TokenHash,
        token: VerifiedToken,
        issuer: usize,
        keys: &Arc<KeySet>,
    ) {
        let keys = Arc::downgrade(keys);
        let entry = Entry {
            token,
            issuer,
            keys,
        };
        self.0.insert(hash, entry);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }
}

/// Shows how many entries there are, about.
impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("entries", &self.0.entry_count())
            .finish()
    }
}

#[cfg(test)]
mod tests;
