//! The compact serialization of a JWS (RFC 7515 §7.1), read strictly, and its signature.
//!
//! It stands below the claims: a [`Jws`] knows nothing of issuers and times. Rules:
//!
//! 1. Exactly three parts, each strict base64url without padding or unused bits (RFC 7515 §2).
//! 2. The header is one JSON object without a duplicate member (§4).
//! 3. `crit` is refused: no extension is understood here (§4.1.11). `b64: false` likewise (RFC 7797).
//! 4. `typ`, if there, is `JWT` or `at+jwt` (RFC 9068 §4), so that no logout or `DPoP` token passes for one.
//! 5. `alg` must be one of the caller's list, and the key must be one for that `alg` (RFC 8725 §3.1).
//! 6. `jku`, `jwk`, `x5u` and `x5c` are not looked at: a token never brings its own key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::KeySet;
use super::{BearerToken, TokenError, json};

/// The longest `kid` that is looked up, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 512;

/// A signature algorithm of RFC 7518 §3.1 or RFC 8037 that a token may use. None is symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[non_exhaustive]
#[serde(rename_all = "UPPERCASE")]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in `alg`, which is case-sensitive (RFC 7515 §4.1.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) const fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Rs384 => jsonwebtoken::Algorithm::RS384,
            Self::Rs512 => jsonwebtoken::Algorithm::RS512,
            Self::Ps256 => jsonwebtoken::Algorithm::PS256,
            Self::Ps384 => jsonwebtoken::Algorithm::PS384,
            Self::Ps512 => jsonwebtoken::Algorithm::PS512,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Es384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not one of [`Algorithm::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown algorithm, expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or(UnknownAlgorithm)
    }
}

/// A JWS in compact form whose signature was **not** verified yet.
pub struct Jws<'a> {
    signing_input: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
    payload: Vec<u8>,
}

/// Shows which key and algorithm the token names, and nothing else of it.
impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl<'a> Jws<'a> {
    /// Reads the three parts and the header.
    ///
    /// # Errors
    /// [`TokenError`] of the first of the module's rules 1 to 4 that is broken, or of an `alg` that is
    /// no [`Algorithm`].
    pub fn parse(token: BearerToken<'a>) -> Result<Self, TokenError> {
        let token = token.as_str();
        let parts = token.split('.').count();
        let (Some((signing_input, signature)), 3) = (token.rsplit_once('.'), parts) else {
            return Err(TokenError::Parts(parts));
        };
        let (header, payload) = signing_input
            .split_once('.')
            .ok_or(TokenError::Parts(parts))?;
        let (algorithm, key_id) = read_header(&decode(header, "header")?)?;
        let payload = decode(payload, "payload")?;
        decode(signature, "signature")?;
        Ok(Self {
            signing_input,
            signature,
            algorithm,
            key_id,
            payload,
        })
    }

    /// The header's `alg`.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The header's `kid`.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The payload, **not verified**.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Verifies the signature with the key that the token names; see [`KeySet::verify`].
    ///
    /// # Errors
    /// [`TokenError::AlgorithmNotAllowed`] if `alg` is not in `algorithms`; else as [`KeySet::verify`].
    pub fn verify(&self, algorithms: &[Algorithm], keys: &KeySet) -> Result<(), TokenError> {
        if !algorithms.contains(&self.algorithm) {
            return Err(TokenError::AlgorithmNotAllowed(self.algorithm));
        }
        keys.verify(
            self.key_id(),
            self.algorithm,
            self.signing_input.as_bytes(),
            self.signature,
        )
    }
}

fn decode(part: &str, name: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Base64 { part: name })
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, Option<String>), TokenError> {
    let mut header = json::object(bytes).map_err(|source| TokenError::Json {
        part: "header",
        source,
    })?;
    let refuse = |name, expected| Err(TokenError::Header { name, expected });

    if header.contains_key("crit") {
        return refuse("crit", "no critical extension");
    }
    match header.get("b64") {
        None | Some(Value::Bool(true)) => {}
        Some(_) => return refuse("b64", "true or nothing"),
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_jwt(typ) => {}
        Some(_) => return refuse("typ", "JWT, at+jwt or nothing"),
    }
    let Some(Value::String(algorithm)) = header.get("alg") else {
        return refuse("alg", "the name of an algorithm");
    };
    let algorithm = algorithm
        .parse()
        .map_err(|UnknownAlgorithm| TokenError::AlgorithmUnknown)?;
    let key_id = match header.remove("kid") {
        None => None,
        Some(Value::String(key_id)) if key_id.len() <= MAX_KEY_ID_BYTES => Some(key_id),
        Some(_) => return refuse("kid", "a string of at most 512 bytes"),
    };
    Ok((algorithm, key_id))
}

/// `typ` is compared without case, and `application/` may be left out (RFC 7515 §4.1.9).
fn is_jwt(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let short = match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => typ,
    };
    short.eq_ignore_ascii_case("JWT") || short.eq_ignore_ascii_case("at+jwt")
}
