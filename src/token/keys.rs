//! An issuer's keys: a JWK set (RFC 7517 §5), a PEM file or a shared secret, made into keys that can verify.
//!
//! Everything is checked once, here, so that nothing has to be checked per request:
//!
//! 1. The set is one JSON object without a duplicate member; at most [`MAX_SET_BYTES`] and [`MAX_KEYS`].
//! 2. A key is taken if it is public, RSA, EC (P-256, P-384, P-521) or Ed25519, and meant to verify: `use` is
//!    `sig` or absent, `key_ops` holds `verify` or is absent, `alg` is one of ours that fits its type or absent.
//!    All others are passed over, as RFC 7517 §5 wants it; [`KeySet::ignored`] says why.
//! 3. RSA keys have 2048 to 8192 bits, an odd exponent from 3 to 2³² - 1 (RFC 7518 §3.3), and not the
//!    form of ROCA (CVE-2017-15361), whose private key can be had from the public one.
//! 4. A key is bound to the algorithms it may be used with: its `alg`, else those of its type.
//! 5. Two equal keys count once; two different ones with one `kid` that fit the same `alg` are ambiguous,
//!    and a token that names them is refused.
//! 6. A shared secret comes from the configuration alone, never out of a document, and is as long as the hash.

use std::fmt;

use serde_json::Value;

use super::TokenError;
use super::algorithm::Algorithm;
use super::json::{self, NotStrict};

mod key;

use key::Key;

/// The largest key set that is read, in bytes.
pub const MAX_SET_BYTES: usize = 1024 * 1024;

/// The most keys that a set may have.
pub const MAX_KEYS: usize = 256;

/// How many keys are tried when the token does not name one that is known by its name.
///
/// Each try costs a signature check, so a caller must not be able to ask for many.
pub const MAX_KEYS_TRIED: usize = 4;

/// The keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    ignored: Vec<Ignored>,
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ignored {
    /// The key's `kid`, if it has one that is a string.
    pub key_id: Option<String>,
    /// What makes it unusable.
    pub reason: &'static str,
}

/// Why a document is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// More than [`MAX_SET_BYTES`].
    #[error("the key set has {0} bytes, more than {MAX_SET_BYTES}")]
    TooLarge(usize),
    /// No strict JSON object.
    #[error("the key set is not strict JSON: {0}")]
    Json(#[from] NotStrict),
    /// No array `keys`.
    #[error("the key set has no array \"keys\"")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("the key set has {0} keys, more than {MAX_KEYS}")]
    TooMany(usize),
    /// No key of the set can be used.
    #[error("the key set has no usable key{}", first_reason(.0))]
    NoneUsable(Vec<Ignored>),
    /// The PEM text holds a private key; only public ones belong here.
    #[error("the PEM text holds a private key, expected public keys")]
    PrivatePem,
    /// The PEM text has no `PUBLIC KEY` or `RSA PUBLIC KEY`, or one that cannot be read.
    #[error("the PEM text has no readable PUBLIC KEY")]
    Pem,
    /// A key of the PEM text cannot be used.
    #[error("a key of the PEM text cannot be used: {0}")]
    PemKey(&'static str),
    /// A shared secret that is shorter than the algorithm's hash.
    #[error("the secret is too short for {algorithm}, which needs at least {needed} bytes")]
    ShortSecret {
        /// For which algorithm.
        algorithm: Algorithm,
        /// How many bytes it must have.
        needed: usize,
    },
    /// A shared secret for an algorithm of public keys.
    #[error("{0} works with public keys, not with a shared secret")]
    NotSymmetric(Algorithm),
}

fn first_reason(ignored: &[Ignored]) -> String {
    ignored
        .first()
        .map(|key| format!(", the first: {}", key.reason))
        .unwrap_or_default()
}

/// Which keys may have signed a token.
enum Candidates<'a> {
    /// The one key of that name.
    Named(&'a Key),
    /// There is a key of that name, for other algorithms.
    NamedUnfit,
    /// No key of that name: those that could be meant.
    Unnamed(Vec<&'a Key>),
    /// Several different keys of that name.
    Ambiguous,
}

impl KeySet {
    /// Reads a JWK set.
    ///
    /// # Errors
    /// [`KeySetError`] if the document is none, or if no key of it can be used.
    pub fn from_jwks(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge(document.len()));
        }
        let Some(Value::Array(entries)) = json::object(document)?.remove("keys") else {
            return Err(KeySetError::NoKeys);
        };
        if entries.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(entries.len()));
        }
        let mut set = Self::default();
        for entry in &entries {
            match Key::from_jwk(entry) {
                Ok(key) => set.add(key),
                Err(reason) => set.ignored.push(Ignored {
                    key_id: entry.get("kid").and_then(Value::as_str).map(str::to_owned),
                    reason,
                }),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoneUsable(set.ignored));
        }
        Ok(set)
    }

    /// Reads the public keys of a PEM text: `PUBLIC KEY` (RFC 7468 §13) or `RSA PUBLIC KEY` (PKCS #1).
    ///
    /// Such keys have no `kid`: they are tried for every token of the issuer, so there may be only a few.
    ///
    /// # Errors
    /// [`KeySetError`] if there is a private key, no public one, or one that cannot be used.
    pub fn from_pem(text: &str) -> Result<Self, KeySetError> {
        const BEGIN: &str = "-----BEGIN ";
        if text.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge(text.len()));
        }
        if text.contains("PRIVATE KEY-----") {
            return Err(KeySetError::PrivatePem);
        }
        let mut set = Self::default();
        for block in text.split(BEGIN).skip(1) {
            if set.keys.len() >= MAX_KEYS {
                return Err(KeySetError::TooMany(MAX_KEYS.saturating_add(1)));
            }
            if !block.starts_with("PUBLIC KEY-----") && !block.starts_with("RSA PUBLIC KEY-----") {
                return Err(KeySetError::Pem);
            }
            set.add(Key::from_pem(format!("{BEGIN}{block}").as_bytes())?);
        }
        if set.keys.is_empty() {
            return Err(KeySetError::Pem);
        }
        Ok(set)
    }

    /// Takes a shared secret, byte by byte as it is, for HS256, HS384 or HS512.
    ///
    /// It has no `kid`: it is tried for every token of the issuer.
    ///
    /// # Errors
    /// [`KeySetError::ShortSecret`] if it is shorter than the hash of one of the algorithms (RFC 7518 §3.2);
    /// [`KeySetError::NotSymmetric`] if one of them is for public keys.
    pub fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeySetError> {
        let mut set = Self::default();
        set.add(Key::from_secret(secret, algorithms)?);
        Ok(set)
    }

    /// Reads a file's content: PEM if it has a `-----BEGIN`, else a JWK set.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem) or [`from_jwks`](Self::from_jwks).
    pub fn from_file_content(content: &[u8]) -> Result<Self, KeySetError> {
        match std::str::from_utf8(content) {
            Ok(text) if text.contains("-----BEGIN") => Self::from_pem(text),
            Ok(_) | Err(_) => Self::from_jwks(content),
        }
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The `kid` of every usable key that has one.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(Key::id)
    }

    /// Every usable key: its `kid`, if it has one, and the algorithms it may be used with.
    pub fn keys(&self) -> impl Iterator<Item = (Option<&str>, Vec<Algorithm>)> {
        self.keys
            .iter()
            .map(|key| (key.id(), key.algorithms().collect()))
    }

    /// The keys that were passed over, and why.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// Whether both sets verify the same tokens.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len()
            && self
                .keys
                .iter()
                .all(|key| other.keys.iter().any(|known| known.is_same_as(key)))
    }

    /// Verifies a signature of a message with the key of that name.
    ///
    /// Where no key has that name, the keys without a name that fit are tried; without a name, all that
    /// fit. More than [`MAX_KEYS_TRIED`] are refused untried.
    ///
    /// # Errors
    /// [`TokenError::KeyUnfit`] if the named key is for other algorithms; [`TokenError::KeyAmbiguous`] if
    /// several keys have that name, or too many would have to be tried; [`TokenError::Signature`] if the
    /// named key did not sign this; [`TokenError::KeyUnknown`] if no known key did, so newer ones may help.
    pub fn verify(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let verifies = |key: &Key| key.verifies(algorithm, message, signature);
        match self.candidates(key_id, algorithm) {
            Candidates::Named(key) if verifies(key) => Ok(()),
            Candidates::Named(_) => Err(TokenError::Signature),
            Candidates::NamedUnfit => Err(TokenError::KeyUnfit(algorithm)),
            Candidates::Ambiguous => Err(TokenError::KeyAmbiguous),
            Candidates::Unnamed(keys) if keys.len() > MAX_KEYS_TRIED => {
                Err(TokenError::KeyAmbiguous)
            }
            Candidates::Unnamed(keys) if keys.iter().copied().any(verifies) => Ok(()),
            Candidates::Unnamed(_) => Err(TokenError::KeyUnknown),
        }
    }

    fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates<'_> {
        let fits = |key: &&Key| key.is_for(algorithm);
        if let Some(id) = id {
            let named = || self.keys.iter().filter(|key| key.id() == Some(id));
            let mut fitting = named().filter(fits);
            match (fitting.next(), fitting.next()) {
                (Some(key), None) => return Candidates::Named(key),
                (Some(_), Some(_)) => return Candidates::Ambiguous,
                (None, _) if named().next().is_some() => return Candidates::NamedUnfit,
                (None, _) => {}
            }
        }
        let unnamed = self
            .keys
            .iter()
            .filter(|key| id.is_none() || key.id().is_none())
            .filter(fits)
            .collect();
        Candidates::Unnamed(unnamed)
    }

    fn add(&mut self, key: Key) {
        if !self.keys.iter().any(|known| known.is_same_as(&key)) {
            self.keys.push(key);
        }
    }
}

/// Shows how many keys there are and their names.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.keys.len())
            .field("key_ids", &self.key_ids().collect::<Vec<_>>())
            .field("ignored", &self.ignored)
            .finish()
    }
}

#[cfg(test)]
mod tests;
