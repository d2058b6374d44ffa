//! The compact serialization of a JWS (RFC 7515 §7.1), read strictly, and its signature.
//!
//! It stands below the claims: a [`Jws`] knows nothing of issuers and times. Rules:
//!
//! 1. Exactly three parts, each strict base64url without padding or unused bits (RFC 7515 §2).
//! 2. The header is one JSON object without a duplicate member (§4).
//! 3. `crit` is refused: no extension is understood here (§4.1.11). `b64: false` likewise (RFC 7797), and
//!    `zip`, which a JWS cannot have.
//! 4. `typ`, if there, is `JWT` or `at+jwt` (RFC 9068 §4), so that no logout or `DPoP` token passes for one;
//!    `cty`, if there, is not `JWT`: no token is looked for inside a token (RFC 7519 §5.2).
//! 5. `alg` must be one of the caller's list, and the key must be one for that `alg` (RFC 8725 §3.1).
//! 6. `jku`, `jwk`, `x5u` and `x5c` are not looked at: a token never brings its own key.
//!
//! The header's size is bounded by the token's, its depth by the JSON reader's.

use std::cell::RefCell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::{Algorithm, UnknownAlgorithm};
use super::keys::KeySet;
use super::{BearerToken, TokenError, json};

/// The longest `kid` that is looked up, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 512;

/// A JWS in compact form whose signature was **not** verified yet.
pub struct Jws<'a> {
    signing_input: &'a str,
    signature: Vec<u8>,
    header: Header,
    payload: Vec<u8>,
}

/// What of a header is looked at.
#[derive(Clone)]
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
    is_access_token: bool,
}

/// Shows which key and algorithm the token names, and nothing else of it.
impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws")
            .field("algorithm", &self.header.algorithm)
            .field("key_id", &self.header.key_id)
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
        let refused = || TokenError::Parts(token.split('.').count());
        let (header, rest) = token.split_once('.').ok_or_else(refused)?;
        let (payload, signature) = rest.split_once('.').ok_or_else(refused)?;
        if signature.contains('.') {
            return Err(refused());
        }
        let signing_input = token.get(..=header.len() + payload.len());
        let signing_input = signing_input.unwrap_or_default();
        let header = Header::read(header)?;
        let payload = decode(payload, "payload")?;
        let signature = decode(signature, "signature")?;
        Ok(Self {
            signing_input,
            signature,
            header,
            payload,
        })
    }

    /// The header's `alg`.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    /// The header's `kid`.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// Whether the header's `typ` is `at+jwt`: an access token of RFC 9068, and nothing else.
    #[must_use]
    pub fn is_access_token(&self) -> bool {
        self.header.is_access_token
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
        if !algorithms.contains(&self.header.algorithm) {
            return Err(TokenError::AlgorithmNotAllowed(self.algorithm()));
        }
        keys.verify(
            self.key_id(),
            self.algorithm(),
            self.signing_input.as_bytes(),
            &self.signature,
        )
    }
}

fn decode(part: &str, name: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Base64 { part: name })
}

impl Header {
    /// What the part says. All tokens of one key have the same: it is read once for many of them.
    fn read(part: &str) -> Result<Self, TokenError> {
        LAST_HEADER.with_borrow_mut(|last| {
            if let Some((known, header)) = last
                && **known == *part
            {
                return Ok(header.clone());
            }
            let header = read_header(&decode(part, "header")?)?;
            if part.len() <= MAX_KEY_ID_BYTES {
                *last = Some((part.into(), header.clone()));
            }
            Ok(header)
        })
    }
}

thread_local! {
    /// The last header that a thread read, and what it says: nothing of it is secret.
    static LAST_HEADER: RefCell<Option<(Box<str>, Header)>> = const { RefCell::new(None) };
}

fn read_header(bytes: &[u8]) -> Result<Header, TokenError> {
    let mut header = json::object(bytes).map_err(|source| TokenError::Json {
        part: "header",
        source,
    })?;
    let refuse = |name, expected| Err(TokenError::Header { name, expected });

    if header.contains_key("crit") {
        return refuse("crit", "no critical extension");
    }
    if header.contains_key("zip") {
        return refuse("zip", "no compression");
    }
    match header.get("b64") {
        None | Some(Value::Bool(true)) => {}
        Some(_) => return refuse("b64", "true or nothing"),
    }
    match header.get("cty") {
        None => {}
        Some(Value::String(cty)) if !is_media_type(cty, "JWT") => {}
        Some(_) => return refuse("cty", "no nested token"),
    }
    let is_access_token = match header.get("typ") {
        None => false,
        Some(Value::String(typ)) if is_media_type(typ, "JWT") => false,
        Some(Value::String(typ)) if is_media_type(typ, "at+jwt") => true,
        Some(_) => return refuse("typ", "JWT, at+jwt or nothing"),
    };
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
    Ok(Header {
        algorithm,
        key_id,
        is_access_token,
    })
}

/// Media types are compared without case, and `application/` may be left out (RFC 7515 §4.1.9, §4.1.10).
fn is_media_type(found: &str, short: &str) -> bool {
    const PREFIX: &str = "application/";
    let found = match found.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => found,
    };
    found.eq_ignore_ascii_case(short)
}
