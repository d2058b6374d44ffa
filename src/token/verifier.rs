//! The configured issuers with their keys: what [`VerifyTokenLayer`](crate::layer::VerifyTokenLayer) asks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::cache::{Entry, TokenCache};
use super::last::LastToken;
use super::{BearerToken, Issuer, KeySet, TokenError, UnverifiedToken, VerifiedToken, verify};
use crate::problem::Problem;

#[cfg(feature = "fetch")]
use super::refresh::Keys;

/// Issuers and their keys. Cheap to clone.
///
/// A token is verified with the keys of the issuer that it names, never with another's: there is no
/// common pool, so one issuer cannot speak for another.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    issuers: Arc<[(Issuer, IssuerKeys)]>,
    cache: Option<TokenCache>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Where the keys of one issuer come from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IssuerKeys {
    /// Given once.
    Fixed(Arc<KeySet>),
    /// Fetched, and fetched again.
    #[cfg(feature = "fetch")]
    Live(Keys),
}

impl IssuerKeys {
    /// The keys that hold now.
    #[cfg_attr(
        not(feature = "fetch"),
        expect(
            clippy::unnecessary_wraps,
            reason = "fetched keys may not be there yet"
        )
    )]
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            #[cfg(feature = "fetch")]
            Self::Live(keys) => keys.current(),
        }
    }
}

impl From<KeySet> for IssuerKeys {
    fn from(keys: KeySet) -> Self {
        Self::Fixed(Arc::new(keys))
    }
}

#[cfg(feature = "fetch")]
impl From<Keys> for IssuerKeys {
    fn from(keys: Keys) -> Self {
        Self::Live(keys)
    }
}

/// Why these issuers cannot stand beside each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// Two have the same `iss`, so it would not be clear whose rules hold.
    #[error("the issuer {0} is there twice")]
    SameIssuer(String),
    /// The id prefix of one begins as another's, so that two people could get one id.
    #[error("the id prefixes of the issuers {0} and {1} do not keep their ids apart")]
    SameIds(String, String),
}

impl Verifier {
    /// Takes the issuers. Where there are several, their `id_prefix`es keep the ids of each apart.
    ///
    /// # Errors
    /// [`VerifierError`].
    pub fn new<K: Into<IssuerKeys>>(
        issuers: impl IntoIterator<Item = (Issuer, K)>,
    ) -> Result<Self, VerifierError> {
        let verifier = Self::with_shared_ids(issuers)?;
        for (index, (issuer, _)) in verifier.0.issuers.iter().enumerate() {
            // "a" + "b1" and "ab" + "1" are one id, so it is not enough that the prefixes differ.
            let prefix = &issuer.rules().id_prefix;
            let clashes = |other: &&(Issuer, _)| {
                let other = &other.0.rules().id_prefix;
                other.starts_with(prefix) || prefix.starts_with(other)
            };
            if let Some((other, _)) = verifier.0.issuers.iter().take(index).find(clashes) {
                let name = |issuer: &Issuer| issuer.as_str().to_owned();
                return Err(VerifierError::SameIds(name(other), name(issuer)));
            }
        }
        Ok(verifier)
    }

    /// Takes issuers that name the same people by the same ids.
    ///
    /// # Errors
    /// [`VerifierError::SameIssuer`].
    pub fn with_shared_ids<K: Into<IssuerKeys>>(
        issuers: impl IntoIterator<Item = (Issuer, K)>,
    ) -> Result<Self, VerifierError> {
        let mut taken: Vec<(Issuer, IssuerKeys)> = Vec::new();
        for (issuer, keys) in issuers {
            if taken
                .iter()
                .any(|(other, _)| other.as_str() == issuer.as_str())
            {
                return Err(VerifierError::SameIssuer(issuer.as_str().to_owned()));
            }
            taken.push((issuer, keys.into()));
        }
        Ok(Self(Arc::new(Shared {
            issuers: taken.into(),
            cache: None,
            hits: AtomicU64::default(),
            misses: AtomicU64::default(),
        })))
    }

    /// Remembers so many verified tokens, so that each is verified once; 0 remembers none, as does a new verifier.
    ///
    /// A token that has expired meanwhile, or whose issuer's keys have changed, is verified anew.
    #[must_use]
    pub fn with_cache(self, entries: usize) -> Self {
        Self(Arc::new(Shared {
            issuers: Arc::clone(&self.0.issuers),
            cache: (entries > 0).then(|| TokenCache::new(entries)).flatten(),
            hits: AtomicU64::default(),
            misses: AtomicU64::default(),
        }))
    }

    /// The issuers with their keys, in the order given.
    pub fn issuers(&self) -> impl Iterator<Item = (&Issuer, &IssuerKeys)> {
        self.0.issuers.iter().map(|(issuer, keys)| (issuer, keys))
    }

    /// The fetched keys of an issuer of this name.
    #[cfg(feature = "server")]
    pub(crate) fn keys_of(&self, issuer: &Issuer) -> Option<&Keys> {
        let mut issuers = self.issuers();
        issuers.find_map(|(other, keys)| match keys {
            IssuerKeys::Live(keys) if other.as_str() == issuer.as_str() => Some(keys),
            IssuerKeys::Live(_) | IssuerKeys::Fixed(_) => None,
        })
    }

    /// How often the cache knew a token, and how often it did not.
    #[must_use]
    pub fn cache_lookups(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.0.hits), count(&self.0.misses))
    }

    /// Whether a token passes without its signature being checked anew.
    pub(crate) fn remembers(&self, token: BearerToken<'_>, now: SystemTime) -> bool {
        let Shared { issuers, cache, .. } = &*self.0;
        let current = |index| issuers.get::<usize>(index)?.1.current();
        let found = |cache: &TokenCache| {
            let tag = cache.tag(token.as_str().as_bytes())?;
            cache.get(&tag, now, current)
        };
        cache.as_ref().and_then(found).is_some()
    }

    /// Verifies what should be a token with what is known now; waits for nothing.
    ///
    /// A token that was verified before needs no look at its syntax; one that was the `last` too, no look into the cache.
    ///
    /// # Errors
    /// [`Refusal`] says whether it is the token, or keys that are not there.
    pub(crate) fn verify_now(
        &self,
        token: &[u8],
        last: &mut LastToken,
        now: SystemTime,
    ) -> Result<VerifiedToken, Refusal<'_>> {
        let Shared {
            issuers,
            cache,
            hits,
            misses,
        } = &*self.0;
        let current = |index| issuers.get::<usize>(index)?.1.current();
        if let Some(entry) = last.entry(token, now)
            && entry.holds(now, current)
        {
            hits.fetch_add(1, Ordering::Relaxed);
            return Ok(entry.token.clone());
        }
        let place = cache
            .as_ref()
            .and_then(|cache| Some((cache, cache.tag(token)?)));
        let Some((cache, tag)) = place else {
            return Ok(self.verify_anew(token, now)?.token);
        };
        let entry = if let Some(entry) = cache.get(&tag, now, current) {
            hits.fetch_add(1, Ordering::Relaxed);
            entry
        } else {
            misses.fetch_add(1, Ordering::Relaxed);
            let entry = self.verify_anew(token, now)?;
            cache.insert(tag, entry.clone());
            entry
        };
        last.note(token, &entry, now);
        Ok(entry.token)
    }

    fn verify_anew(&self, token: &[u8], now: SystemTime) -> Result<Entry, Refusal<'_>> {
        let token = BearerToken::parse(token)
            .and_then(UnverifiedToken::parse)
            .map_err(Refusal::Token)?;
        let claimed = token
            .issuer()
            .ok_or(Refusal::Token(TokenError::ClaimMissing("iss")))?;
        // Few issuers: a scan is faster than a hash.
        let (index, (issuer, keys)) = self
            .0
            .issuers
            .iter()
            .enumerate()
            .find(|(_, (issuer, _))| issuer.as_str() == claimed)
            .ok_or(Refusal::Token(TokenError::IssuerUnknown))?;
        let current = keys.current().ok_or(Refusal::NoKeys(keys))?;
        let verified = verify(token, now, issuer, &current).map_err(|error| {
            if error == TokenError::KeyUnknown {
                Refusal::KeyUnknown(keys)
            } else {
                Refusal::Token(error)
            }
        })?;
        Ok(Entry::new(verified, index, &current))
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> u64 {
        self.0.cache.as_ref().map_or(0, TokenCache::len)
    }
}

/// Why [`Verifier::verify_now`] does not let a token pass.
#[derive(Debug)]
pub(crate) enum Refusal<'a> {
    /// The token is bad, whatever the keys.
    Token(TokenError),
    /// None of the keys known now has signed it; newer ones may have.
    KeyUnknown(&'a IssuerKeys),
    /// The issuer's keys are not there, or too old.
    NoKeys(&'a IssuerKeys),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::KeyUnknown(_) => TokenError::KeyUnknown.fmt(f),
            Self::NoKeys(_) => f.write_str("the issuer's keys are not there"),
        }
    }
}

/// Ends when a fetch of keys has ended, well or badly, or took too long.
pub(crate) type Fetch = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Refusal<'_> {
    /// The fetch that may help: the running one, or a new one where the cool-down is over.
    pub(crate) fn fetch(&self) -> Option<Fetch> {
        match self {
            Self::Token(_) => None,
            Self::KeyUnknown(keys) | Self::NoKeys(keys) => match keys {
                IssuerKeys::Fixed(_) => None,
                #[cfg(feature = "fetch")]
                IssuerKeys::Live(keys) => keys
                    .fetch_if_due()
                    .map(|fetch| -> Fetch { Box::pin(fetch) }),
            },
        }
    }

    /// Whether no keys whatsoever would help.
    pub(crate) fn is_of_the_token(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// The answer, if no fetch helps.
    pub(crate) fn into_problem(self) -> Problem {
        match self {
            Self::Token(error) => error.into(),
            Self::KeyUnknown(_) => TokenError::KeyUnknown.into(),
            Self::NoKeys(_) => Problem::KeysUnavailable,
        }
    }
}
