//! One key: what it may be used for, and the one place where a signature is checked.
//!
//! A key is parsed and bound to its algorithms once, when it is read; nothing is left to decide per token.

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rsa::{PublicKey, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::super::jws::MAX_KEY_ID_BYTES;
use super::{Algorithm, KeySetError};

/// One key, ready to verify.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<Box<str>>,
    checks: Checks,
    /// For equality only.
    material: Material,
}

/// What a key may be used with, each with the key as that algorithm wants it. Never empty.
type Checks = Box<[(Algorithm, Check)]>;

/// A key bound to one algorithm.
#[derive(Clone)]
enum Check {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Point(Vec<u8>),
    /// The hash of a shared secret, which itself is not kept.
    Secret(Vec<u8>),
}

impl Key {
    /// The only place where a signature is checked; `false` also where the key is not for the algorithm.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let mut checks = self.checks.iter();
        match checks.find(|(bound, _)| *bound == algorithm) {
            Some((_, Check::Public(key))) => key.verify_sig(message, signature).is_ok(),
            // In constant time, and a shortened code is refused (RFC 7518 §3.2).
            Some((_, Check::Secret(key))) => hmac::verify(key, message, signature).is_ok(),
            None => false,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.checks.iter().map(|(algorithm, _)| *algorithm)
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms().any(|bound| bound == algorithm)
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.id == other.id
            && self.material == other.material
            && self.algorithms().eq(other.algorithms())
    }

    /// A shared secret for these algorithms.
    pub(super) fn from_secret(
        secret: &[u8],
        algorithms: &[Algorithm],
    ) -> Result<Self, KeySetError> {
        let bind = |&algorithm: &Algorithm| {
            let (_, hash) = HMAC
                .iter()
                .find(|(hmac, _)| *hmac == algorithm)
                .ok_or(KeySetError::NotSymmetric(algorithm))?;
            let needed = algorithm.min_secret_bytes().unwrap_or(usize::MAX);
            if secret.len() < needed {
                return Err(KeySetError::ShortSecret { algorithm, needed });
            }
            Ok((
                algorithm,
                Check::Secret(Box::new(hmac::Key::new(*hash, secret))),
            ))
        };
        Ok(Self {
            id: None,
            checks: algorithms.iter().map(bind).collect::<Result<_, _>>()?,
            material: Material::Secret(digest::digest(&digest::SHA256, secret).as_ref().to_vec()),
        })
    }

    /// Reads one member of a set's `keys`, or says why it cannot be used.
    pub(super) fn from_jwk(entry: &Value) -> Result<Self, &'static str> {
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
        let alg = jwk.get("alg");
        let (checks, material) = match text("kty", "kty is no string")? {
            "RSA" => rsa(bytes(jwk, "n")?, bytes(jwk, "e")?, alg)?,
            "EC" => {
                let name = text("crv", "crv is no string")?;
                let curve = CURVES
                    .iter()
                    .find(|curve| curve.name == name)
                    .ok_or(NO_CURVE)?;
                ec(curve, point(jwk, curve)?, alg)?
            }
            "OKP" if text("crv", "crv is no string")? == "Ed25519" => {
                ed25519(bytes(jwk, "x")?, alg)?
            }
            _ => return Err("a kty other than RSA, EC and OKP with Ed25519"),
        };
        Ok(Self {
            id,
            checks,
            material,
        })
    }

    /// Reads one PEM block of a public key.
    pub(super) fn from_pem(block: &[u8]) -> Result<Self, KeySetError> {
        let der = |key: &DecodingKey| key.try_get_as_bytes().unwrap_or_default().to_vec();
        let read = if let Ok(key) = DecodingKey::from_rsa_pem(block) {
            let key = PublicKey::from_der(&der(&key)).map_err(|_| KeySetError::Pem)?;
            let PublicKeyComponents { n, e } = PublicKeyComponents::from(&key);
            rsa(n, e, None)
        } else if let Ok(key) = DecodingKey::from_ec_pem(block) {
            let point = der(&key);
            let mut curves = CURVES.iter();
            match curves.find(|curve| curve.point_bytes() == point.len()) {
                Some(curve) => ec(curve, point, None),
                None => Err(NO_CURVE),
            }
        } else if let Ok(key) = DecodingKey::from_ed_pem(block) {
            ed25519(der(&key), None)
        } else {
            return Err(KeySetError::Pem);
        };
        let (checks, material) = read.map_err(KeySetError::PemKey)?;
        Ok(Self {
            id: None,
            checks,
            material,
        })
    }
}

/// A curve of RFC 7518 §6.2.1.1, and the one algorithm that it is for (§3.4).
struct Curve {
    name: &'static str,
    coordinate_bytes: usize,
    bound: [(Algorithm, &'static dyn VerificationAlgorithm); 1],
}

impl Curve {
    /// Of an uncompressed point.
    const fn point_bytes(&self) -> usize {
        1 + 2 * self.coordinate_bytes
    }
}

static CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        coordinate_bytes: 32,
        bound: [(Algorithm::Es256, &ECDSA_P256_SHA256_FIXED)],
    },
    Curve {
        name: "P-384",
        coordinate_bytes: 48,
        bound: [(Algorithm::Es384, &ECDSA_P384_SHA384_FIXED)],
    },
    Curve {
        name: "P-521",
        coordinate_bytes: 66,
        bound: [(Algorithm::Es512, &ECDSA_P521_SHA512_FIXED)],
    },
];

const NO_CURVE: &str = "a curve other than P-256, P-384 and P-521";

static RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

static ED: [(Algorithm, &dyn VerificationAlgorithm); 2] =
    [(Algorithm::EdDsa, &ED25519), (Algorithm::Ed25519, &ED25519)];

static HMAC: [(Algorithm, hmac::Algorithm); 3] = [
    (Algorithm::Hs256, hmac::HMAC_SHA256),
    (Algorithm::Hs384, hmac::HMAC_SHA384),
    (Algorithm::Hs512, hmac::HMAC_SHA512),
];

/// Binds a key to the algorithm that its own `alg` names, else to all of its type.
fn bind<P: Copy>(
    by_type: &[(Algorithm, P)],
    alg: Option<&Value>,
    parse: impl Fn(P) -> Result<ParsedPublicKey, KeyRejected>,
    rejected: &'static str,
) -> Result<Checks, &'static str> {
    let checks = by_type
        .iter()
        .filter(|(algorithm, _)| alg.is_none_or(|name| name.as_str() == Some(algorithm.as_str())))
        .map(|(algorithm, parameters)| Ok((*algorithm, Check::Public(parse(*parameters)?))))
        .collect::<Result<Checks, KeyRejected>>()
        .map_err(|_| rejected)?;
    if checks.is_empty() {
        return Err("alg is none that this key can verify");
    }
    Ok(checks)
}

/// A base64url member, decoded.
fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, &'static str> {
    jwk.get(name)
        .and_then(Value::as_str)
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or("n, e, x or y is not strict base64url")
}

/// The uncompressed point of `x` and `y`, each exactly as long as the curve asks (RFC 7518 §6.2.1.2).
fn point(jwk: &Map<String, Value>, curve: &Curve) -> Result<Vec<u8>, &'static str> {
    const UNCOMPRESSED: u8 = 4;
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != curve.coordinate_bytes || y.len() != curve.coordinate_bytes {
        return Err("x or y has not the length of the curve");
    }
    Ok([&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat())
}

/// The library refuses what is not on the curve.
fn ec(
    curve: &Curve,
    point: Vec<u8>,
    alg: Option<&Value>,
) -> Result<(Checks, Material), &'static str> {
    let parse = |algorithm| ParsedPublicKey::new(algorithm, &point);
    let checks = bind(&curve.bound, alg, parse, "no point of the curve")?;
    Ok((checks, Material::Point(point)))
}

fn ed25519(point: Vec<u8>, alg: Option<&Value>) -> Result<(Checks, Material), &'static str> {
    // The library would take a whole SubjectPublicKeyInfo too, which RFC 8037 §2 does not allow.
    if point.len() != 32 {
        return Err("an Ed25519 key that has not 32 bytes");
    }
    let parse = |algorithm| ParsedPublicKey::new(algorithm, &point);
    let checks = bind(&ED, alg, parse, "no Ed25519 key")?;
    Ok((checks, Material::Point(point)))
}

fn rsa(n: Vec<u8>, e: Vec<u8>, alg: Option<&Value>) -> Result<(Checks, Material), &'static str> {
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
    let components = PublicKeyComponents { n: &n, e: &e };
    let parse = |parameters| components.to_parsed_public_key(parameters);
    let checks = bind(
        &RSA,
        alg,
        parse,
        "an RSA key with a bad modulus or exponent",
    )?;
    Ok((checks, Material::Rsa { n, e }))
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::super::super::tests::testing::{OTHER_RSA, RSA as RSA_KEY};
    use super::*;

    #[test]
    fn fresh_keys_have_not_the_form_of_roca() {
        for key in [&RSA_KEY, &OTHER_RSA] {
            let PublicKeyComponents { n, .. } =
                PublicKeyComponents::<Vec<u8>>::from(key.public_key());
            assert!(!is_roca(&n));
        }
        // 65537² is a power of 65537 modulo anything.
        assert!(is_roca(&(65537_u64 * 65537).to_be_bytes()));
    }
}
