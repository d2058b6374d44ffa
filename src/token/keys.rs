//! An issuer's public keys: a JWK set (RFC 7517 §5) or a PEM file, made into keys that can verify.
//!
//! Everything is checked once, here, so that nothing has to be checked per request:
//!
//! 1. The set is one JSON object without a duplicate member; at most [`MAX_SET_BYTES`] and [`MAX_KEYS`].
//! 2. A key is taken if it is public, RSA, EC (P-256, P-384) or Ed25519, and meant to verify: `use` is
//!    `sig` or absent, `key_ops` holds `verify` or is absent, `alg` is one of ours that fits its type or absent.
//!    All others are passed over, as RFC 7517 §5 wants it; [`KeySet::ignored`] says why.
//! 3. RSA keys have 2048 to 8192 bits, an odd exponent from 3 to 2³² - 1 (RFC 7518 §3.3), and not the
//!    form of ROCA (CVE-2017-15361), whose private key can be had from the public one.
//! 4. A key is bound to the algorithms it may be used with: its `alg`, else those of its type.
//! 5. Two equal keys count once; two different ones with one `kid` that fit the same `alg` are ambiguous,
//!    and a token that names them is refused.

use std::fmt;

use aws_lc_rs::rsa::{PublicKey, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::TokenError;
use super::json::{self, NotStrict};
use super::jws::{Algorithm, MAX_KEY_ID_BYTES};

/// The largest key set that is read, in bytes.
pub const MAX_SET_BYTES: usize = 1024 * 1024;

/// The most keys that a set may have.
pub const MAX_KEYS: usize = 256;

/// How many keys are tried when the token does not name one that is known by its name.
///
/// Each try costs a signature check, so a caller must not be able to ask for many.
pub const MAX_KEYS_TRIED: usize = 4;

/// The public keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    ignored: Vec<Ignored>,
}

/// One key, ready to verify.
#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    /// The key's public bytes: for equality only.
    material: Material,
    decoding: DecodingKey,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
}

impl Key {
    /// The only place where a signature is checked.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        let algorithm = algorithm.of_library();
        jsonwebtoken::crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.id == other.id
            && self.algorithms == other.algorithms
            && self.material == other.material
    }
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
            match read_jwk(entry) {
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
            set.add(read_pem(format!("{BEGIN}{block}").as_bytes())?);
        }
        if set.keys.is_empty() {
            return Err(KeySetError::Pem);
        }
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
        self.keys.iter().filter_map(|key| key.id.as_deref())
    }

    /// Every usable key: its `kid`, if it has one, and the algorithms it may be used with.
    pub fn keys(&self) -> impl Iterator<Item = (Option<&str>, &'static [Algorithm])> {
        self.keys
            .iter()
            .map(|key| (key.id.as_deref(), key.algorithms))
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

    /// Verifies a signature (base64url, RFC 7515 §2) of a message with the key of that name.
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
        signature: &str,
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
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        if let Some(id) = id {
            let named = || self.keys.iter().filter(|key| key.id.as_deref() == Some(id));
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
            .filter(|key| id.is_none() || key.id.is_none())
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

/// Reads one member of `keys`, or says why it cannot be used.
fn read_jwk(entry: &Value) -> Result<Key, &'static str> {
    let jwk = entry.as_object().ok_or("no JSON object")?;
    if jwk.contains_key("d") || jwk.contains_key("k") {
        return Err("a private or symmetric key");
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.as_str().into()),
        Some(_) => return Err("kid is no string of at most 512 bytes"),
    };
    match jwk.get("use") {
        None => {}
        Some(Value::String(usage)) if usage == "sig" => {}
        Some(_) => return Err("use is not sig"),
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations)) if operations.iter().any(|name| name == "verify") => {}
        Some(_) => return Err("key_ops has no verify"),
    }
    let text = |name, otherwise| jwk.get(name).and_then(Value::as_str).ok_or(otherwise);
    let (by_type, material, decoding) = match text("kty", "kty is no string")? {
        "RSA" => {
            let (material, decoding) = rsa(bytes(jwk, "n")?, bytes(jwk, "e")?)?;
            (RSA, material, decoding)
        }
        "EC" => match text("crv", "crv is no string")? {
            "P-256" => {
                let (material, decoding) = ec(&ECDSA_P256_SHA256_FIXED, &point(jwk, 32)?)?;
                (P256, material, decoding)
            }
            "P-384" => {
                let (material, decoding) = ec(&ECDSA_P384_SHA384_FIXED, &point(jwk, 48)?)?;
                (P384, material, decoding)
            }
            _ => return Err("a curve other than P-256 and P-384"),
        },
        "OKP" if text("crv", "crv is no string")? == "Ed25519" => {
            let (material, decoding) = ed25519(&bytes(jwk, "x")?)?;
            (ED, material, decoding)
        }
        _ => return Err("a kty other than RSA, EC and OKP with Ed25519"),
    };
    Ok(Key {
        id,
        algorithms: bind(jwk.get("alg"), by_type)?,
        material,
        decoding,
    })
}

const RSA: &[Algorithm] = &[
    Algorithm::Rs256,
    Algorithm::Rs384,
    Algorithm::Rs512,
    Algorithm::Ps256,
    Algorithm::Ps384,
    Algorithm::Ps512,
];
const P256: &[Algorithm] = &[Algorithm::Es256];
const P384: &[Algorithm] = &[Algorithm::Es384];
const ED: &[Algorithm] = &[Algorithm::EdDsa];

/// The key's own `alg`, as the one algorithm of a static slice; else all of its type.
fn bind(
    alg: Option<&Value>,
    by_type: &'static [Algorithm],
) -> Result<&'static [Algorithm], &'static str> {
    let Some(alg) = alg else { return Ok(by_type) };
    alg.as_str()
        .and_then(|name| {
            by_type
                .chunks(1)
                .find(|one| one.iter().any(|algorithm| algorithm.as_str() == name))
        })
        .ok_or("alg is none that this key can verify")
}

/// A base64url member, decoded.
fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, &'static str> {
    jwk.get(name)
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or("n, e, x or y is not strict base64url")
}

/// The uncompressed point of `x` and `y`, each exactly as long as the curve asks (RFC 7518 §6.2.1.2).
fn point(jwk: &Map<String, Value>, length: usize) -> Result<Vec<u8>, &'static str> {
    const UNCOMPRESSED: u8 = 4;
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return Err("x or y has not the length of the curve");
    }
    Ok([&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat())
}

fn ec(
    curve: &'static dyn VerificationAlgorithm,
    point: &[u8],
) -> Result<(Material, DecodingKey), &'static str> {
    ParsedPublicKey::new(curve, point).map_err(|_| "no point of the curve")?;
    Ok((
        Material::Point(point.to_vec()),
        DecodingKey::from_ec_der(point),
    ))
}

fn ed25519(point: &[u8]) -> Result<(Material, DecodingKey), &'static str> {
    ParsedPublicKey::new(&ED25519, point).map_err(|_| "no Ed25519 key")?;
    Ok((
        Material::Point(point.to_vec()),
        DecodingKey::from_ed_der(point),
    ))
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<(Material, DecodingKey), &'static str> {
    // RFC 7518 §2 forbids leading zeros, and §6.3.1.1 knows of issuers that send one.
    let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
    let bits = n.first().map_or(0, |first| {
        n.len()
            .saturating_mul(8)
            .saturating_sub(first.leading_zeros() as usize)
    });
    if bits < 2048 {
        return Err("an RSA key of less than 2048 bits");
    }
    if bits > 8192 {
        return Err("an RSA key of more than 8192 bits");
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    if !odd(&n) || !odd(&e) || e == [1] || e.len() > 4 {
        return Err("an RSA key with a bad modulus or exponent");
    }
    if is_roca(&n) {
        return Err("an RSA key that is weak by ROCA (CVE-2017-15361)");
    }
    let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
    Ok((Material::Rsa { n, e }, decoding))
}

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// Whether a modulus has the form that ROCA's generator gives: a power of 65537 modulo each of these
/// primes. By chance that is so for one key in 2²⁷ (Nemec et al., "The Return of Coppersmith's
/// Attack", §3.2), and a fresh key is easily had.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.into_iter().all(|prime| {
        let remainder = modulus
            .iter()
            .fold(0, |sum, byte| (sum * 256 + u32::from(*byte)) % prime);
        std::iter::successors(Some(1), |power| Some(power * (65537 % prime) % prime))
            .take(prime as usize)
            .any(|power| power == remainder)
    })
}

/// Reads one PEM block of a public key.
fn read_pem(block: &[u8]) -> Result<Key, KeySetError> {
    let der = |key: &DecodingKey| key.try_get_as_bytes().unwrap_or_default().to_vec();
    let (algorithms, (material, decoding)) = if let Ok(key) = DecodingKey::from_rsa_pem(block) {
        let key = PublicKey::from_der(&der(&key)).map_err(|_| KeySetError::Pem)?;
        let PublicKeyComponents { n, e } = PublicKeyComponents::from(&key);
        (RSA, rsa(n, e).map_err(KeySetError::PemKey)?)
    } else if let Ok(key) = DecodingKey::from_ec_pem(block) {
        let point = der(&key);
        let read = |curve| ec(curve, &point).map_err(KeySetError::PemKey);
        match point.len() {
            65 => (P256, read(&ECDSA_P256_SHA256_FIXED)?),
            97 => (P384, read(&ECDSA_P384_SHA384_FIXED)?),
            _ => return Err(KeySetError::PemKey("a curve other than P-256 and P-384")),
        }
    } else if let Ok(key) = DecodingKey::from_ed_pem(block) {
        (ED, ed25519(&der(&key)).map_err(KeySetError::PemKey)?)
    } else {
        return Err(KeySetError::Pem);
    };
    Ok(Key {
        id: None,
        algorithms,
        material,
        decoding,
    })
}

#[cfg(test)]
mod tests;
