//! Rate limits: so many requests in a time, counted apart for each caller, issuer, client address or claim.
//!
//! A limit is a set of token buckets (GCRA, crate `governor`): each holds `burst` requests, and `requests` come back within `per`,
//! one by one. [`LimitRateLayer`](crate::layer::LimitRateLayer) counts a request as soon as it is known what it is counted by.
//!
//! The buckets are bounded by `keys`. Above that the one that was not used for the longest is forgotten, and each is once it must be
//! full again; who comes back has a full one. So nobody is refused for what others do, however many keys somebody makes up: who has
//! more of them than are kept had as many full buckets anyway. Two keys of one hash share a bucket, no more; nobody can aim at that.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter, clock};
use http::HeaderValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;

use crate::identity::Identity;
use crate::operation::{Catalogue, Matched};
use crate::problem::{Problem, RateLimited};
use crate::token::claims;

/// One limit, with its buckets.
pub struct RateLimit {
    name: Arc<str>,
    by: RateLimitBy,
    /// The rows of the catalogue that count, by place; `None`: all requests do.
    operations: Option<Box<[bool]>>,
    buckets: RateLimiter<u64, Buckets, Clock, StateInformationMiddleware>,
    /// The same, as they are kept.
    kept: Buckets,
    hasher: RandomState,
    /// The field `RateLimit-Policy`.
    policy: HeaderValue,
    refused: AtomicU64,
}

/// What a [`RateLimit`] is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitSettings {
    /// Says in answers and metrics which limit it is: from 1 to 64 letters and digits of ASCII, `-`, `_` and `.`.
    pub name: String,
    /// Whose requests are counted together.
    pub by: RateLimitBy,
    /// Ids, groups or kinds of the catalogue's operations that alone are counted; none: all requests are.
    pub operations: Vec<String>,
    /// So many requests come back within `per`.
    pub requests: NonZeroU32,
    /// The time in which they do.
    pub per: Duration,
    /// So many requests at most at once, of somebody who sent none for long.
    pub burst: NonZeroU32,
    /// So many buckets are kept.
    pub keys: u64,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitBy {
    /// One caller's: one id of one issuer.
    Subject,
    /// All callers' of one issuer.
    Issuer,
    /// All callers' of one issuer who have the same value in this claim; who has none is counted as by [`Subject`](Self::Subject).
    Claim(String),
    /// All of one client address; of IPv6, of one /64, which is what one client has.
    Client,
    /// As [`Client`](Self::Client), but requests alone whose token is not among those verified before.
    NewTokens,
}

/// When it is known what a limit counts by: each limit stands as high as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitStage {
    /// From the first byte on: before any token is looked at.
    Client,
    /// Once it is known who calls.
    Caller,
    /// Once it is known what for.
    Operation,
}

/// Why a limit cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// The name is none.
    #[error("the name {0:?} is not from 1 to 64 letters and digits of ASCII, `-`, `_` and `.`")]
    Name(String),
    /// A name that is no operation's id, group or kind.
    #[error("`{0}` is neither the id of an operation nor a group nor a kind")]
    UnknownOperation(String),
    /// New tokens are counted before it is known which operation is meant.
    #[error("new tokens are counted whatever the operation")]
    NewTokensOfOperations,
    /// More than a request a nanosecond, or a bucket that takes more than a year to fill.
    #[error(
        "{requests} requests per {per:?} with a burst of {burst} are beyond what can be counted"
    )]
    Quota {
        /// So many requests.
        requests: NonZeroU32,
        /// In this time.
        per: Duration,
        /// And so many at once.
        burst: NonZeroU32,
    },
}

impl RateLimit {
    /// A limit whose buckets are all full.
    ///
    /// # Errors
    /// [`RateLimitError`].
    pub fn new(settings: RateLimitSettings) -> Result<Self, RateLimitError> {
        let RateLimitSettings {
            name,
            by,
            operations,
            requests,
            per,
            burst,
            keys,
        } = settings;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(RateLimitError::Name(name));
        }
        if by == RateLimitBy::NewTokens && !operations.is_empty() {
            return Err(RateLimitError::NewTokensOfOperations);
        }
        let beyond = RateLimitError::Quota {
            requests,
            per,
            burst,
        };
        let period = per / requests.get();
        let full_after = period
            .checked_mul(burst.get())
            .filter(|full_after| *full_after <= LONGEST);
        let quota = Quota::with_period(period).map(|quota| quota.allow_burst(burst));
        let (Some(full_after), Some(quota)) = (full_after, quota) else {
            return Err(beyond);
        };
        // What holds in the long run, in the whole seconds of the draft: q requests at once, and q again in w.
        let window = full_after.as_secs_f64().ceil().max(1.0);
        let policy = HeaderValue::try_from(format!("\"{name}\";q={burst};w={window}"))
            .map_err(|_| RateLimitError::Name(name.clone()))?;
        let kept = Buckets::new(keys, full_after);
        Ok(Self {
            name: name.into(),
            by,
            operations: rows(&operations)?,
            buckets: RateLimiter::new(quota, kept.clone(), Clock::start()),
            kept,
            hasher: RandomState::new(),
            policy,
            refused: AtomicU64::default(),
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose requests are counted together.
    #[must_use]
    pub fn by(&self) -> &RateLimitBy {
        &self.by
    }

    /// When a request can be counted.
    #[must_use]
    pub fn stage(&self) -> RateLimitStage {
        if self.operations.is_some() {
            return RateLimitStage::Operation;
        }
        match self.by {
            RateLimitBy::Client | RateLimitBy::NewTokens => RateLimitStage::Client,
            RateLimitBy::Subject | RateLimitBy::Issuer | RateLimitBy::Claim(_) => {
                RateLimitStage::Caller
            }
        }
    }

    /// How many requests it has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many buckets there are, about.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let Buckets(buckets) = &self.kept;
        buckets.run_pending_tasks();
        buckets.entry_count()
    }

    /// The field `RateLimit-Policy` for this limit.
    #[must_use]
    pub fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    /// Whether it counts what the caller wants to do; `matched` is asked for where that matters alone.
    pub(crate) fn counts(&self, matched: Option<&Matched>) -> Result<bool, Problem> {
        let Some(operations) = &self.operations else {
            return Ok(true);
        };
        match matched {
            Some(Matched::Operation(found)) => {
                Ok(operations.get(found.operation.place) == Some(&true))
            }
            Some(Matched::OtherMethods(_) | Matched::Unknown) => Ok(false),
            None => Err(Problem::Misconfigured(
                "LimitRateLayer by operation needs MatchOperationLayer outside of it",
            )),
        }
    }

    /// Takes a request out of the caller's bucket.
    ///
    /// # Errors
    /// [`Problem::RateLimited`] where it is empty.
    pub(crate) fn take_of_caller(&self, caller: &Identity) -> Result<u32, Problem> {
        let issuer = caller.issuer();
        let claim = match &self.by {
            RateLimitBy::Issuer => return self.take((issuer, "", "")),
            RateLimitBy::Claim(path) => {
                claims::at(caller.claims(), path).filter(|value| !is_nothing(value))
            }
            RateLimitBy::Subject | RateLimitBy::Client | RateLimitBy::NewTokens => None,
        };
        match claim {
            Some(Value::String(text)) => self.take((issuer, "claim", &**text)),
            Some(other) => self.take((issuer, "json", &*other.to_string())),
            None => self.take((issuer, "subject", caller.id())),
        }
    }

    /// Takes a request out of the address's bucket.
    ///
    /// # Errors
    /// [`Problem::RateLimited`] where it is empty.
    pub(crate) fn take_of_client(&self, address: IpAddr) -> Result<u32, Problem> {
        self.take(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
                address.to_bits() & !u128::from(u64::MAX),
            )),
        })
    }

    /// How many are left at least.
    fn take(&self, key: impl Hash) -> Result<u32, Problem> {
        match self.buckets.check_key(&self.hasher.hash_one(key)) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let wait = until.wait_time_from(clock::Clock::now(self.buckets.clock()));
                let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Problem::RateLimited(Box::new(RateLimited {
                    limit: self.name.clone(),
                    policy: self.policy.clone(),
                    retry_after: whole.max(1),
                })))
            }
        }
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("name", &self.name)
            .field("by", &self.by)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// All limits. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct RateLimits(Arc<[Arc<RateLimit>]>);

impl RateLimits {
    /// Takes the limits; a request is counted in their order.
    #[must_use]
    pub fn new(limits: Vec<RateLimit>) -> Self {
        Self(limits.into_iter().map(Arc::new).collect())
    }

    /// Takes limits that may be those of others: who shares one shares its buckets.
    #[must_use]
    pub fn of(limits: Vec<Arc<RateLimit>>) -> Self {
        Self(limits.into())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.0.iter()
    }

    /// Those that count at this stage.
    #[must_use]
    pub fn at(&self, stage: RateLimitStage) -> Vec<Arc<RateLimit>> {
        let mut limits = self.0.to_vec();
        limits.retain(|limit| limit.stage() == stage);
        limits
    }
}

/// Whether a claim says nothing, as where it is missing.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// Which rows the names mean; `None` for no name.
fn rows(names: &[String]) -> Result<Option<Box<[bool]>>, RateLimitError> {
    if names.is_empty() {
        return Ok(None);
    }
    let rows = Catalogue::builtin().operations();
    let mut means = vec![false; rows.len()];
    for name in names {
        let mut is_known = false;
        for (row, means) in rows.iter().zip(&mut means) {
            if [row.id, row.group, row.kind.as_str()].contains(&&**name) {
                (*means, is_known) = (true, true);
            }
        }
        if !is_known {
            return Err(RateLimitError::UnknownOperation(name.clone()));
        }
    }
    Ok(Some(means.into()))
}

/// The buckets that are not full, by the hash of the key. Clones share them.
#[derive(Clone)]
struct Buckets(Cache<u64, Arc<InMemoryState>>);

impl Buckets {
    fn new(keys: u64, full_after: Duration) -> Self {
        let cache = Cache::builder()
            .max_capacity(keys)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(full_after.max(Duration::from_secs(1)));
        Self(cache.build())
    }
}

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let bucket = self.0.get_with(*key, Arc::default);
        bucket.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

/// Tokio's, so that tests can stop it.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// The longest that a bucket may take to fill: what is counted in nanoseconds has an end.
const LONGEST: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests;
