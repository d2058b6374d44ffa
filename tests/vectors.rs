//! Published vectors against the token verifier: Wycheproof and the JOSE cookbook (RFC 7520).
//!
//! Where our rules are stricter than the vectors', the difference is named in the test, vector by vector.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's own functions")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bpmgate::token::{Algorithm, BearerToken, Jws, KeySet, KeySetError, TokenError};
use serde_json::{Value, json};

macro_rules! vectors {
    ($file:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("vectors/", $file, ".json"))).unwrap()
    };
}

/// The members of an array.
fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What our gateway does with this token and these keys, every algorithm allowed.
fn verify(token: &str, keys: &Value) -> Result<(), String> {
    let document = match keys.get("keys") {
        Some(_) => keys.clone(),
        None => json!({ "keys": [keys] }),
    };
    let keys =
        KeySet::from_jwks(document.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let jws = BearerToken::parse(token.as_bytes()).and_then(Jws::parse);
    jws.and_then(|jws| jws.verify(&Algorithm::ALL, &keys))
        .map_err(|error| error.to_string())
}

/// Runs every JWS test of a Wycheproof file, and returns by `tcId` those whose result is not ours.
fn differences(vectors: &Value) -> BTreeMap<u64, String> {
    let mut differences = BTreeMap::new();
    let mut count = 0;
    for group in array(&vectors["testGroups"]) {
        // Symmetric keys have no public part. Our verifier gets what an issuer would publish by mistake.
        let keys = group.get("public").unwrap_or(&group["private"]);
        for test in array(&group["tests"]) {
            count += 1;
            let Some(token) = test.get("jws").and_then(Value::as_str) else {
                continue;
            };
            let ours = verify(token, keys);
            if ours.is_ok() != (test["result"] == "valid") {
                let told = ours.err().unwrap_or_else(|| "accepted".to_owned());
                differences.insert(test["tcId"].as_u64().unwrap(), told);
            }
        }
    }
    assert_eq!(Some(count), vectors["numberOfTests"].as_u64());
    differences
}

/// The differences are exactly these tests, and each is a refusal of ours.
#[track_caller]
fn assert_stricter(found: &BTreeMap<u64, String>, expected: &[u64]) {
    let accepted: Vec<_> = found
        .iter()
        .filter(|(_, told)| *told == "accepted")
        .collect();
    assert!(accepted.is_empty(), "accepted though invalid: {accepted:?}");
    assert_eq!(
        found.keys().copied().collect::<Vec<_>>(),
        expected,
        "{found:#?}"
    );
}

#[test]
fn wycheproof_json_web_signature() {
    let found = differences(&vectors!("wycheproof_json_web_signature"));
    assert_stricter(
        &found,
        &[
            1,   // HS256: no symmetric key is taken from a key set
            346, // RFC 7520 figure 20: signed with PS384, and the key's `alg` is PS256
            347, // RFC 7520 figure 27: ES512
            348, // HS256
            350, // as 346
            351, // as 347
            352, 357, 358, 359, 372, 373, 376, 377, // HS256
        ],
    );
}

#[test]
fn wycheproof_json_web_key() {
    let found = differences(&vectors!("wycheproof_json_web_key"));
    assert_stricter(&found, &[2, 13, 14, 15]); // HMAC
}

#[test]
fn wycheproof_json_web_crypto() {
    let found = differences(&vectors!("wycheproof_json_web_crypto"));
    assert_stricter(&found, &[1, 48]); // HMAC
}

/// The public key of a group, as a JWK.
fn jwk(group: &Value) -> Value {
    let encode = |hex: &str| URL_SAFE_NO_PAD.encode(bytes(hex));
    let key = &group["publicKey"];
    if let Some(jwk) = group.get("publicKeyJwk").or_else(|| group.get("keyJwk")) {
        jwk.clone()
    } else if let Some(point) = key.get("uncompressed").map(text) {
        let (x, y) = point.split_at(2).1.split_at((point.len() - 2) / 2);
        let crv = format!("P-{}", key["keySize"]);
        json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
    } else {
        let (n, e) = (text(&key["modulus"]), text(&key["publicExponent"]));
        json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
    }
}

/// Runs a file of raw signatures: each key goes through a key set, each signature to [`KeySet::verify`].
fn raw_signatures(vectors: &Value, algorithm: Algorithm) {
    let mut count = 0;
    for group in array(&vectors["testGroups"]) {
        let keys = KeySet::from_jwks(json!({ "keys": [jwk(group)] }).to_string().as_bytes());
        for test in array(&group["tests"]) {
            count += 1;
            let signature = URL_SAFE_NO_PAD.encode(bytes(text(&test["sig"])));
            let message = bytes(text(&test["msg"]));
            let accepted = keys
                .as_ref()
                .is_ok_and(|keys| keys.verify(None, algorithm, &message, &signature).is_ok());
            match text(&test["result"]) {
                "valid" => assert!(accepted, "{keys:?} {test}"),
                // "acceptable" is PKCS #1 v1.5 without the NULL parameter: legacy.
                "invalid" | "acceptable" => assert!(!accepted, "{test}"),
                other => panic!("unknown result {other}"),
            }
        }
    }
    assert_eq!(Some(count), vectors["numberOfTests"].as_u64());
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn wycheproof_rsa_pkcs1_v1_5() {
    raw_signatures(
        &vectors!("wycheproof_rsa_signature_2048_sha256"),
        Algorithm::Rs256,
    );
    raw_signatures(
        &vectors!("wycheproof_rsa_signature_2048_sha384"),
        Algorithm::Rs384,
    );
    raw_signatures(
        &vectors!("wycheproof_rsa_signature_2048_sha512"),
        Algorithm::Rs512,
    );
}

#[test]
fn wycheproof_rsa_pss() {
    raw_signatures(
        &vectors!("wycheproof_rsa_pss_2048_sha256_mgf1_32"),
        Algorithm::Ps256,
    );
    raw_signatures(
        &vectors!("wycheproof_rsa_pss_2048_sha384_mgf1_48"),
        Algorithm::Ps384,
    );
    raw_signatures(
        &vectors!("wycheproof_rsa_pss_4096_sha512_mgf1_64"),
        Algorithm::Ps512,
    );
}

/// RFC 7518 §3.5 wants a salt as long as the hash, and MGF1 with the same hash.
#[test]
fn wycheproof_rsa_pss_with_parameters_of_no_jws_algorithm_is_refused() {
    for vectors in [
        vectors!("wycheproof_rsa_pss_2048_sha256_mgf1_0"),
        vectors!("wycheproof_rsa_pss_2048_sha256_mgf1sha1_20"),
    ] {
        let group = &vectors["testGroups"][0];
        let keys = json!({ "keys": [jwk(group)] }).to_string();
        let keys = KeySet::from_jwks(keys.as_bytes()).unwrap();
        for test in array(&group["tests"]) {
            let message = bytes(text(&test["msg"]));
            let signature = URL_SAFE_NO_PAD.encode(bytes(text(&test["sig"])));
            let result = keys.verify(None, Algorithm::Ps256, &message, &signature);
            // Invalid there, with a salt of no byte asked for, and just what PS256 wants.
            if test["comment"] == "s_len changed to 32" && group["sLen"] == 0 {
                assert_eq!(result, Ok(()), "{test}");
            } else {
                assert_eq!(result, Err(TokenError::KeyUnknown), "{test}");
            }
        }
    }
}

#[test]
fn wycheproof_ecdsa() {
    raw_signatures(
        &vectors!("wycheproof_ecdsa_secp256r1_sha256_p1363"),
        Algorithm::Es256,
    );
    raw_signatures(
        &vectors!("wycheproof_ecdsa_secp384r1_sha384_p1363"),
        Algorithm::Es384,
    );
}

#[test]
fn wycheproof_ed25519() {
    raw_signatures(&vectors!("wycheproof_ed25519"), Algorithm::EdDsa);
}

/// The public part, as an issuer publishes it.
fn public(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        jwk.as_object_mut().unwrap().remove(member);
    }
    jwk
}

#[test]
fn jose_cookbook_signatures_of_our_algorithms_verify() {
    let cookbook = vectors!("jose_cookbook");
    for name in [
        "jws/4_1.rsa_v15_signature.json",
        "jws/4_2.rsa-pss_signature.json",
        "curve25519/jws.json",
    ] {
        let example = &cookbook[name];
        let key = public(&example["input"]["key"]);
        let token = text(&example["output"]["compact"]);
        assert_eq!(verify(token, &key), Ok(()), "{name}");
        let jws = Jws::parse(BearerToken::parse(token.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            jws.payload(),
            text(&example["input"]["payload"]).as_bytes(),
            "{name}"
        );
        // With the private parts in it the key is not used at all.
        let private = verify(token, &example["input"]["key"]).unwrap_err();
        assert!(private.contains("private"), "{name}: {private}");
    }
}

#[test]
fn jose_cookbook_forms_that_we_do_not_take_are_refused() {
    let cookbook = vectors!("jose_cookbook");
    let rsa = public(&cookbook["jwk/3_4.rsa_private_key.json"]);
    for (name, output) in [
        // Algorithms of others: ES512 and HMAC.
        ("jws/4_3.ecdsa_signature.json", "compact"),
        ("jws/4_4.hmac-sha2_integrity_protection.json", "compact"),
        // Detached and unencoded payloads.
        ("jws/4_5.signature_with_detached_content.json", "compact"),
        ("rfc7797/hmac-sha2_b64_false.json", "compact"),
        // Encrypted.
        (
            "jwe/5_1.key_encryption_using_rsa_v15_and_aes-hmac-sha2.json",
            "compact",
        ),
        // JSON serializations.
        ("jws/4_1.rsa_v15_signature.json", "json"),
        ("jws/4_1.rsa_v15_signature.json", "json_flat"),
        (
            "jws/4_6.protecting_specific_header_fields.json",
            "json_flat",
        ),
        ("jws/4_7.protecting_content_only.json", "json_flat"),
        ("jws/4_8.multiple_signatures.json", "json"),
    ] {
        let found = &cookbook[name];
        let found = found
            .get("output")
            .or_else(|| found.get("encrypting_output"));
        let Some(found) = found.and_then(|forms| forms.get(output)) else {
            panic!("no {output} in {name}: {}", cookbook[name]);
        };
        let token = found
            .as_str()
            .map_or_else(|| found.to_string(), str::to_owned);
        assert!(verify(&token, &rsa).is_err(), "{name} {output}");
    }
}

#[test]
fn jose_cookbook_keys() {
    let cookbook = vectors!("jose_cookbook");
    let read =
        |name: &str| KeySet::from_jwks(json!({ "keys": [cookbook[name]] }).to_string().as_bytes());
    assert_eq!(read("jwk/3_3.rsa_public_key.json").unwrap().len(), 1);
    for name in [
        "jwk/3_1.ec_public_key.json", // P-521
        "jwk/3_2.ec_private_key.json",
        "jwk/3_4.rsa_private_key.json",
        "jwk/3_5.symmetric_key_mac_computation.json",
        "jwk/3_6.symmetric_key_encryption.json",
    ] {
        let error = read(name).unwrap_err();
        assert!(
            matches!(error, KeySetError::NoneUsable(_)),
            "{name}: {error}"
        );
    }
}
