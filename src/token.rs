//! From a bearer token to who it speaks for: pure, no I/O, no clock of its own.
//!
//! [`BearerToken`] → [`UnverifiedToken`] → [`verify`] → [`VerifiedToken`] → [`Identity`]; each can only be
//! made from the one before. What is behind the signature is in [`jws`]. The claims' rules, all fail closed:
//!
//! 1. The payload is one JSON object without a duplicate member, at any depth (RFC 7519 §4).
//! 2. `iss` is there and exactly the issuer's (RFC 7519 §4.1.1).
//! 3. `aud`, if there, is a string or an array of strings; with a configured audience it is there and has one
//!    of those (§4.1.3). With configured authorized parties the client is named and one of them.
//! 4. It is an access token: nothing in it says that it is an ID, refresh or logout token, a security event
//!    (RFC 8725 §3.12) or bound to a key (`cnf`, RFC 7800) that a bearer does not show; and it is marked as one
//!    where the issuer marks them, by `at+jwt` (RFC 9068 §4) or as its [`Preset`] knows.
//! 5. `exp` is there; it, `nbf` and `iat` are numbers not below 0 (§2 `NumericDate`). With the leeway `l`:
//!    `nbf` ≤ now + l, `iat` ≤ now + l, now < `exp` + l.
//!
//! Time is looked at last, so [`TokenError::Expired`] is said of a token that was good.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use serde_json::{Map, Value};

use crate::identity::Identity;
use crate::problem::Problem;

mod algorithm;
mod cache;
pub mod claims;
pub mod issuer;
mod json;
pub mod jws;
pub mod keys;
pub(crate) mod last;
#[cfg(feature = "fetch")]
pub mod refresh;
pub(crate) mod verifier;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claims::ClaimPaths;
use issuer::Access;
pub use issuer::{Issuer, IssuerError, IssuerRules, Preset};
pub use json::NotStrict;
pub use jws::Jws;
pub use keys::{KeySet, KeySetError};
#[cfg(feature = "fetch")]
pub use refresh::{KeySource, Keys, KeysStatus, RefreshSettings};
pub use verifier::{IssuerKeys, Verifier, VerifierError};

/// The longest token that is read, in bytes. The engine's own limit for all headers together is 8 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A `b64token` of RFC 6750 §2.1, of at most [`MAX_TOKEN_BYTES`]; nothing is known of what it says.
#[derive(Clone, Copy)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// Takes the token out of an `Authorization` header; `None` if that is of another scheme.
    ///
    /// The scheme is compared without case (RFC 9110 §11.1).
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_header(value: &'a HeaderValue) -> Result<Option<Self>, TokenError> {
        Self::in_header(value).map(Self::parse).transpose()
    }

    /// What stands where the token should, whatever it is.
    pub(crate) fn in_header(value: &HeaderValue) -> Option<&[u8]> {
        let value = value.as_bytes();
        let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            return None;
        }
        let token = value.get(scheme.len()..).unwrap_or_default();
        Some(token.trim_ascii_start())
    }

    /// Takes the bare token.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] or [`TokenError::Syntax`].
    pub fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(token.len()));
        }
        let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
        let (signs, _) = token.split_at(token.len().saturating_sub(padding));
        // Looked at to the end, as that is done for many bytes at once: tokens are long and come with every request.
        let plain = signs
            .iter()
            .fold(true, |plain, byte| plain & is_token_sign(*byte));
        if signs.is_empty() || !plain {
            return Err(TokenError::Syntax);
        }
        std::str::from_utf8(token)
            .map(Self)
            .map_err(|_| TokenError::Syntax)
    }

    pub(crate) fn as_str(&self) -> &'a str {
        self.0
    }
}

/// `b64token` of RFC 6750 §2.1 without its padding. `-`, `.`, `/` and the digits follow each other in ASCII.
const fn is_token_sign(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit_or_mark = byte.wrapping_sub(b'-') < 13;
    letter || digit_or_mark || byte == b'+' || byte == b'_' || byte == b'~'
}

/// Shows nothing of the token.
impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(***)")
    }
}

/// A token whose form is right and whose signature was **not** verified yet.
#[derive(Debug)]
pub struct UnverifiedToken<'a> {
    jws: Jws<'a>,
    claims: UnverifiedClaims,
}

struct UnverifiedClaims(Map<String, Value>);

/// Shows nothing of the claims.
impl fmt::Debug for UnverifiedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'a> UnverifiedToken<'a> {
    /// Reads header and payload.
    ///
    /// # Errors
    /// As [`Jws::parse`], and [`TokenError::Json`] if the payload is no strict JSON object.
    pub fn parse(token: BearerToken<'a>) -> Result<Self, TokenError> {
        let jws = Jws::parse(token)?;
        let claims = json::object(jws.payload()).map_err(|source| TokenError::Json {
            part: "payload",
            source,
        })?;
        Ok(Self {
            jws,
            claims: UnverifiedClaims(claims),
        })
    }

    /// The `iss` it claims: good for choosing whose keys to verify with, and for nothing else.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.0.get("iss").and_then(Value::as_str)
    }

    /// Header and signature.
    #[must_use]
    pub fn jws(&self) -> &Jws<'a> {
        &self.jws
    }
}

/// Verifies a token: its signature, then every rule of this module.
///
/// # Errors
/// [`TokenError`] for the first rule that is broken.
pub fn verify(
    token: UnverifiedToken<'_>,
    now: SystemTime,
    issuer: &Issuer,
    keys: &KeySet,
) -> Result<VerifiedToken, TokenError> {
    let rules = issuer.rules();
    token.jws.verify(&rules.algorithms, keys)?;
    let claims = token.claims.0;
    if text(&claims, "iss")? != issuer.as_str() {
        return Err(TokenError::IssuerUnknown);
    }
    check_audience(claims.get("aud"), &rules.audience)?;
    let client = client(&claims, rules.preset);
    if !rules.authorized_parties.is_empty() {
        let party = text(&claims, client.map_or("azp", |(claim, _)| claim))?;
        if !rules.authorized_parties.iter().any(|known| known == party) {
            return Err(TokenError::AuthorizedParty);
        }
    }
    check_purpose(&claims, token.jws.is_access_token(), rules.preset)?;
    let validity = Validity::of(&claims)?;
    validity.check(now, rules.leeway)?;
    Ok(VerifiedToken(Arc::new(Verified {
        issuer: issuer.clone(),
        claims: Arc::new(claims),
        validity,
        identity: OnceLock::new(),
    })))
}

/// The claim that names the client that asked for the token.
fn client(claims: &Map<String, Value>, preset: Preset) -> Option<(&'static str, &Value)> {
    let mut names = preset.client_claims().iter();
    names.find_map(|name| claims.get(*name).map(|value| (*name, value)))
}

/// Refuses what is no access token for a bearer.
fn check_purpose(
    claims: &Map<String, Value>,
    marked: bool,
    preset: Preset,
) -> Result<(), TokenError> {
    let refuse = |claim, expected| Err(TokenError::Purpose { claim, expected });
    // Said by Keycloak and Cognito, which an issuer of any preset may be in truth.
    if let Some(Value::String(typ)) = claims.get("typ")
        && OTHER_PURPOSES.contains(&typ.as_str())
    {
        return refuse("typ", "that of an access token");
    }
    if claims.get("token_use").is_some_and(|used| used != "access") {
        return refuse("token_use", "\"access\"");
    }
    // Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4) and other security events (RFC 8417 §2.2).
    if claims.contains_key("events") {
        return refuse("events", "absent");
    }
    // RFC 9449 §6.1 and RFC 8705 §3.1: stolen, such a token must be worth nothing.
    if claims.contains_key("cnf") {
        return Err(TokenError::Bound);
    }
    if marked {
        return Ok(());
    }
    match preset.access() {
        Access::Says(claim, value) if claims.get(claim).is_none_or(|said| said != value) => {
            refuse(claim, value)
        }
        Access::NamesClient if client(claims, preset).is_none() => refuse(
            preset.client_claims().first().copied().unwrap_or("azp"),
            "there",
        ),
        Access::HasNoHash if claims.contains_key("at_hash") => refuse("at_hash", "absent"),
        Access::HasNoHash if claims.contains_key("c_hash") => refuse("c_hash", "absent"),
        Access::Says(..) | Access::NamesClient | Access::HasNoHash | Access::Unmarked => Ok(()),
    }
}

/// What Keycloak writes into the claim `typ` of tokens that are not for a service.
const OTHER_PURPOSES: [&str; 4] = ["ID", "Refresh", "Offline", "Logout"];

fn text<'a>(claims: &'a Map<String, Value>, claim: &'static str) -> Result<&'a str, TokenError> {
    claims
        .get(claim)
        .ok_or(TokenError::ClaimMissing(claim))?
        .as_str()
        .ok_or(TokenError::Claim {
            claim,
            expected: "a string",
        })
}

fn check_audience(audience: Option<&Value>, accepted: &[String]) -> Result<(), TokenError> {
    let found: Vec<&str> = match audience {
        None if accepted.is_empty() => return Ok(()),
        None => return Err(TokenError::ClaimMissing("aud")),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or(NO_AUDIENCE)?,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err(NO_AUDIENCE);
        }
    };
    if accepted.is_empty() || accepted.iter().any(|name| found.contains(&name.as_str())) {
        Ok(())
    } else {
        Err(TokenError::Audience)
    }
}

const NO_AUDIENCE: TokenError = TokenError::Claim {
    claim: "aud",
    expected: "a string or an array of strings",
};

/// When a token holds, by its own word and without leeway.
#[derive(Debug, Clone, Copy)]
struct Validity {
    /// `nbf` and `iat`, in which order they are looked at.
    since: [(&'static str, Option<SystemTime>); 2],
    expires: SystemTime,
}

impl Validity {
    fn of(claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let since = |claim| match claims.get(claim) {
            Some(value) => Ok((claim, Some(numeric_date(claim, value)?))),
            None => Ok((claim, None)),
        };
        let since = [since("nbf")?, since("iat")?];
        let expires = claims.get("exp").ok_or(TokenError::ClaimMissing("exp"))?;
        let expires = numeric_date("exp", expires)?;
        Ok(Self { since, expires })
    }

    fn check(&self, now: SystemTime, leeway: Duration) -> Result<(), TokenError> {
        let latest = now.checked_add(leeway).unwrap_or(now);
        for (claim, since) in self.since {
            if let Some(since) = since.filter(|since| *since > latest) {
                let ahead = since.duration_since(now).unwrap_or_default();
                return Err(TokenError::NotYet { claim, ahead });
            }
        }
        let expires = self.expires;
        let end = expires.checked_add(leeway).unwrap_or(expires);
        if now >= end {
            let ago = now.duration_since(expires).unwrap_or_default();
            return Err(TokenError::Expired { ago });
        }
        Ok(())
    }
}

/// RFC 7519 §2: seconds since 1970, fractions allowed.
fn numeric_date(claim: &'static str, value: &Value) -> Result<SystemTime, TokenError> {
    let since_1970 = match value.as_u64() {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => value
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    };
    since_1970
        .and_then(|duration| SystemTime::UNIX_EPOCH.checked_add(duration))
        .ok_or(TokenError::Claim {
            claim,
            expected: "a number of seconds since 1970",
        })
}

/// A token that passed every check. Only [`verify`] makes one; cheap to clone.
///
/// Put into the request's extensions by [`VerifyTokenLayer`](crate::layer::VerifyTokenLayer).
#[derive(Clone)]
pub struct VerifiedToken(Arc<Verified>);

struct Verified {
    issuer: Issuer,
    claims: Arc<Map<String, Value>>,
    validity: Validity,
    identity: OnceLock<Result<Identity, claims::ClaimError>>,
}

impl VerifiedToken {
    /// The issuer, with its rules.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// Every claim.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.0.claims
    }

    /// The token's `exp`, without leeway.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.validity.expires
    }

    /// Who the token speaks for, by the issuer's claim paths. Read once, then the same for every clone.
    ///
    /// # Errors
    /// [`TokenError::Caller`] if the token has no id, or one that cannot be taken as it is.
    pub fn identity(&self) -> Result<Identity, TokenError> {
        let token = &*self.0;
        token
            .identity
            .get_or_init(|| {
                claims::read(
                    &token.claims,
                    &token.issuer.rules().claims,
                    token.issuer.shared_name(),
                    &token.issuer.rules().id_prefix,
                    token.validity.expires,
                )
                .map(Identity::new)
            })
            .clone()
            .map_err(TokenError::Caller)
    }
}

/// Shows whose token it is, but no claim.
impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("issuer", &self.0.issuer.as_str())
            .field("expires", &self.0.validity.expires)
            .finish_non_exhaustive()
    }
}

/// Why a token is refused. Holds nothing of the token, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has {0} bytes, more than {MAX_TOKEN_BYTES}")]
    TooLong(usize),
    /// No `b64token`.
    #[error("the token is empty or has a character that RFC 6750 does not allow")]
    Syntax,
    /// Not the three parts of a signed token.
    #[error("the token has {0} parts, expected 3")]
    Parts(usize),
    /// A part is no strict base64url.
    #[error("the {part} is not base64url without padding")]
    Base64 {
        /// Which part.
        part: &'static str,
    },
    /// A part is no strict JSON object.
    #[error("the {part} is not one strict JSON object: {source}")]
    Json {
        /// Which part.
        part: &'static str,
        /// Why.
        source: NotStrict,
    },
    /// A header member is not what it must be.
    #[error("header member \"{name}\" is not what it must be, expected {expected}")]
    Header {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// `alg` is none of ours.
    #[error("header member \"alg\" names an algorithm that is never accepted")]
    AlgorithmUnknown,
    /// `alg` is not one of the issuer's `algorithms`.
    #[error("algorithm {0} is not one of the issuer's `algorithms`")]
    AlgorithmNotAllowed(Algorithm),
    /// The named key is for other algorithms.
    #[error("the key that the token names is not for {0}")]
    KeyUnfit(Algorithm),
    /// Too many keys could be meant.
    #[error("more than one key could have signed the token, and it does not say which")]
    KeyAmbiguous,
    /// No known key signed it.
    #[error("no known key of the issuer has signed the token")]
    KeyUnknown,
    /// The named key did not sign it.
    #[error("the signature does not verify with the key that the token names")]
    Signature,
    /// `iss` is not a configured issuer.
    #[error("claim \"iss\" is not a configured issuer")]
    IssuerUnknown,
    /// A claim that must be there is not.
    #[error("claim \"{0}\" is missing")]
    ClaimMissing(&'static str),
    /// A claim is not of its type.
    #[error("claim \"{claim}\" is not {expected}")]
    Claim {
        /// Its name.
        claim: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// `aud` has none of the configured.
    #[error("claim \"aud\" has none of the configured audiences")]
    Audience,
    /// The client that it was made for is none of the configured.
    #[error("the client that the token names is none of the configured authorized parties")]
    AuthorizedParty,
    /// It is no access token.
    #[error("it is no access token: claim \"{claim}\" is not {expected}")]
    Purpose {
        /// By which claim.
        claim: &'static str,
        /// What that is in an access token.
        expected: &'static str,
    },
    /// It is bound to a key, by `cnf`.
    #[error("claim \"cnf\" binds the token to a key, which a bearer does not show")]
    Bound,
    /// `nbf` or `iat` is in the future.
    #[error("claim \"{claim}\" is {} s in the future", .ahead.as_secs())]
    NotYet {
        /// Which.
        claim: &'static str,
        /// By how much, leeway not counted.
        ahead: Duration,
    },
    /// `exp` is over.
    #[error("the token expired {} s ago", .ago.as_secs())]
    Expired {
        /// How long, leeway not counted.
        ago: Duration,
    },
    /// Verified, but it does not say who the caller is.
    #[error("{0}")]
    Caller(claims::ClaimError),
}

/// What the caller is told: nothing of which issuers or keys there are.
impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        Self::TokenInvalid(match error {
            TokenError::Expired { .. } => return Self::TokenExpired,
            TokenError::TooLong(_) => "it is too long",
            TokenError::Syntax
            | TokenError::Parts(_)
            | TokenError::Base64 { .. }
            | TokenError::Json { .. }
            | TokenError::Header { .. } => "it is not a well-formed signed JWT",
            TokenError::AlgorithmUnknown
            | TokenError::AlgorithmNotAllowed(_)
            | TokenError::KeyUnfit(_)
            | TokenError::KeyAmbiguous
            | TokenError::KeyUnknown
            | TokenError::Signature
            | TokenError::IssuerUnknown => {
                "it is not signed by an issuer and with an algorithm that are accepted here"
            }
            TokenError::ClaimMissing(_) => "a claim that is needed is missing",
            TokenError::Claim { .. } => "a claim is not of the type that it must have",
            TokenError::Audience => "it is meant for another audience",
            TokenError::AuthorizedParty => "it was made for a party that is not accepted here",
            TokenError::Purpose { .. } => "it is not an access token",
            TokenError::Bound => "it is bound to a key that a bearer does not show",
            TokenError::NotYet { .. } => "it is not valid yet",
            TokenError::Caller(_) => "it does not say by a usable id who the caller is",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
