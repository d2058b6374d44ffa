//! Key sets: none is taken with a key that no token may be verified with.

use bpmgate::token::keys::{MAX_KEYS, MAX_SET_BYTES};
use bpmgate::token::{Algorithm, KeySet};
use serde_json::Value;

/// The input is a document of keys, JSON or PEM.
pub fn check(input: &[u8]) {
    if let Ok(set) = KeySet::from_file_content(input) {
        assert_public(&set);
    }
    let Ok(set) = KeySet::from_jwks(input) else {
        return;
    };
    assert_public(&set);
    assert!(input.len() <= MAX_SET_BYTES);
    assert!(set.is_same_as(&set.clone()));

    let document: Value = serde_json::from_slice(input).expect("JSON");
    let entries = document
        .get("keys")
        .and_then(Value::as_array)
        .expect("an array `keys`");
    let usable = entries.iter().filter(|key| may_verify(key)).count();
    assert!(set.len() <= usable, "more keys than may verify");
    // Equal keys count once.
    assert!(set.len() + set.ignored().len() <= entries.len());
    for ignored in set.ignored() {
        assert!(!ignored.reason.is_empty());
    }
    for id in set.key_ids() {
        assert!(
            entries
                .iter()
                .any(|key| may_verify(key) && key.get("kid") == Some(&id.into())),
            "a key of a name that no usable one has"
        );
    }
}

fn assert_public(set: &KeySet) {
    assert!(!set.is_empty() && set.len() <= MAX_KEYS);
    for (_, algorithms) in set.keys() {
        assert!(!algorithms.is_empty());
        assert!(
            !algorithms.iter().any(|algorithm| matches!(
                algorithm,
                Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512
            )),
            "a shared secret out of a document"
        );
    }
}

/// What RFC 7517 §4 says of a public key for signatures, as far as its members tell.
fn may_verify(key: &Value) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let has = |name: &str| key.get(name).is_some();
    let shape = match text("kty") {
        Some("RSA") => has("n") && has("e"),
        Some("EC") => {
            has("x") && has("y") && matches!(text("crv"), Some("P-256" | "P-384" | "P-521"))
        }
        Some("OKP") => has("x") && text("crv") == Some("Ed25519"),
        _ => false,
    };
    shape
        && !has("d")
        && !has("k")
        && key.get("use").is_none_or(|usage| usage == "sig")
        && key.get("key_ops").is_none_or(|operations| {
            operations
                .as_array()
                .is_some_and(|names| names.iter().any(|name| name == "verify"))
        })
        && key
            .get("alg")
            .is_none_or(|alg| alg.as_str().is_some_and(|alg| !alg.starts_with("HS")))
}
