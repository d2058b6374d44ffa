//! The signature algorithms that a token may use: the one list of them.
//!
//! `none` is not in it, and what is not in it cannot be configured, bound to a key or named by a token.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signature algorithm of RFC 7518 §3.1, RFC 8037 §3.1 or RFC 9864 §2.2 that a token may use.
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
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519 by its old name of RFC 8037; Ed448, which that name means too, is not supported.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// Ed25519 by its own name (RFC 9864). The two names are two algorithms: list the one that the issuer writes.
    #[serde(rename = "Ed25519")]
    Ed25519,
    /// HMAC with SHA-256 and a shared secret of at least 32 bytes.
    Hs256,
    /// HMAC with SHA-384 and a shared secret of at least 48 bytes.
    Hs384,
    /// HMAC with SHA-512 and a shared secret of at least 64 bytes.
    Hs512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 14] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
        Self::Ed25519,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
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
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// The length in bytes that a shared secret must have, which is that of the hash (RFC 7518 §3.2);
    /// `None` if the algorithm is asymmetric.
    #[must_use]
    pub const fn min_secret_bytes(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            Self::Rs256
            | Self::Rs384
            | Self::Rs512
            | Self::Ps256
            | Self::Ps384
            | Self::Ps512
            | Self::Es256
            | Self::Es384
            | Self::Es512
            | Self::EdDsa
            | Self::Ed25519 => None,
        }
    }

    /// Whether one shared secret both signs and verifies.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        self.min_secret_bytes().is_some()
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
    "unknown algorithm, expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519, HS256, HS384, HS512"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_registry_and_no_others() {
        for name in [
            "none", "None", "", "rs256", "RS1", "ES256K", "Ed448", "ED25519", "EDDSA", "HS1",
            "ESP256", "RS256 ",
        ] {
            assert_eq!(name.parse::<Algorithm>(), Err(UnknownAlgorithm), "{name}");
            assert!(serde_json::from_value::<Algorithm>(name.into()).is_err());
        }
        for algorithm in Algorithm::ALL {
            let name = algorithm.as_str();
            assert_eq!(name.parse(), Ok(algorithm));
            assert_eq!(serde_json::to_value(algorithm).unwrap(), name);
            assert!(UnknownAlgorithm.to_string().contains(name));
            assert_eq!(algorithm.is_symmetric(), name.starts_with("HS"), "{name}");
        }
    }
}
