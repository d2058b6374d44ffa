use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::super::tests::testing::{
    ED, OTHER_RSA, P256 as P256_KEY, P384 as P384_KEY, P521 as P521_KEY, RSA as RSA_KEY, SECRET,
    base64url, ec_jwk, jwks, key_set, rsa_jwk,
};
use super::*;

fn reason(jwk: &Value) -> &'static str {
    match KeySet::from_jwks(&jwks(std::slice::from_ref(jwk))) {
        Err(KeySetError::NoneUsable(ignored)) => ignored[0].reason,
        other => panic!("{jwk} was taken: {other:?}"),
    }
}

fn with(mut jwk: Value, member: &str, value: Value) -> Value {
    jwk[member] = value;
    jwk
}

fn without(mut jwk: Value, member: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

/// The key's `x` with its last bit changed.
fn off_curve(jwk: &Value) -> String {
    let x = jwk["x"].as_str().unwrap();
    let mut x = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(x)
        .unwrap();
    *x.last_mut().unwrap() ^= 1;
    base64url(x)
}

#[test]
fn document_that_is_no_key_set_is_refused() {
    let good = rsa_jwk("one", &RSA_KEY);
    for document in [
        String::new(),
        "<html>".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"keys": {}}"#.to_owned(),
        r#"{"keys": []}"#.to_owned(),
        good.to_string(),
        format!(r#"{{"keys": [{good}], "keys": []}}"#),
        format!(r#"{{"keys": [{good}]}}x"#),
        format!(
            r#"{{"keys": [{}]}}"#,
            good.to_string().replacen('{', r#"{"kid":"two","#, 1)
        ),
    ] {
        let result = KeySet::from_jwks(document.as_bytes());
        assert!(result.is_err(), "{document}");
    }
}

#[test]
fn size_and_count_are_bounded() {
    let good = rsa_jwk("one", &RSA_KEY);
    let padded = |length: usize| {
        let text = json!({ "keys": [good] }).to_string();
        [text.as_str(), &" ".repeat(length - text.len())].concat()
    };
    assert!(KeySet::from_jwks(padded(MAX_SET_BYTES).as_bytes()).is_ok());
    assert_eq!(
        KeySet::from_jwks(padded(MAX_SET_BYTES + 1).as_bytes()).unwrap_err(),
        KeySetError::TooLarge(MAX_SET_BYTES + 1)
    );
    let point = ec_jwk("", "P-256", &P256_KEY);
    let many = |count: usize| -> Vec<_> {
        (0..count)
            .map(|kid| with(point.clone(), "kid", kid.to_string().into()))
            .collect()
    };
    assert_eq!(key_set(&many(MAX_KEYS)).len(), MAX_KEYS);
    assert_eq!(
        KeySet::from_jwks(&jwks(&many(MAX_KEYS + 1))).unwrap_err(),
        KeySetError::TooMany(MAX_KEYS + 1)
    );
}

#[test]
fn key_that_is_not_to_verify_with_is_passed_over() {
    let rsa = || rsa_jwk("one", &RSA_KEY);
    let ec = || ec_jwk("one", "P-256", &P256_KEY);
    for (jwk, expected) in [
        (json!("key"), "no JSON object"),
        (with(rsa(), "d", "AQAB".into()), "private"),
        (with(rsa(), "d", Value::Null), "private"),
        (
            json!({"kty": "oct", "k": "AQAB", "alg": "HS256"}),
            "private",
        ),
        (with(rsa(), "use", "enc".into()), "use"),
        (with(rsa(), "use", Value::Null), "use"),
        (with(rsa(), "key_ops", json!(["encrypt"])), "key_ops"),
        (with(rsa(), "key_ops", json!([])), "key_ops"),
        (with(rsa(), "key_ops", json!("verify")), "key_ops"),
        (with(rsa(), "kid", 1.into()), "kid"),
        (with(rsa(), "kid", "k".repeat(513).into()), "kid"),
        (with(rsa(), "alg", "RSA-OAEP".into()), "alg"),
        (with(rsa(), "alg", "HS256".into()), "alg"),
        (with(rsa(), "alg", "none".into()), "alg"),
        (with(rsa(), "alg", "ES256".into()), "alg"),
        (with(rsa(), "alg", Value::Null), "alg"),
        (with(ec(), "alg", "RS256".into()), "alg"),
        (with(ec(), "alg", "ES384".into()), "alg"),
        (with(ec(), "crv", "P-521".into()), "length of the curve"),
        (with(ec(), "crv", "p-256".into()), "a curve other"),
        (with(ec(), "alg", "ES512".into()), "alg"),
        (with(ec(), "crv", "secp256k1".into()), "a curve other"),
        (with(ec(), "crv", "P-384".into()), "length of the curve"),
        (with(ec(), "kty", "RSA".into()), "base64url"),
        (with(rsa(), "kty", "EC".into()), "crv"),
        (with(rsa(), "kty", "rsa".into()), "kty"),
        (without(rsa(), "kty"), "kty"),
        (without(rsa(), "e"), "base64url"),
        (with(rsa(), "n", "A+B/".into()), "base64url"),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": base64url([9; 32])}),
            "kty",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url([9; 31])}),
            "32 bytes",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url([9; 33])}),
            "32 bytes",
        ),
        (
            // A whole SubjectPublicKeyInfo, which the crypto library would take.
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(ED.public_key().as_der().unwrap().as_ref())}),
            "32 bytes",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed448", "x": base64url([9; 57])}),
            "kty",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "ES256", "x": base64url(ED.public_key())}),
            "alg",
        ),
        (
            // One bit off the curve.
            with(ec(), "x", off_curve(&ec()).into()),
            "no point of the curve",
        ),
        (
            with(
                with(ec(), "x", base64url([0; 32]).into()),
                "y",
                base64url([0; 32]).into(),
            ),
            "no point of the curve",
        ),
    ] {
        let found = reason(&jwk);
        assert!(found.contains(expected), "{jwk}: {found}");
    }
    // Beside good ones they do no harm.
    let set = key_set(&[json!({"kty": "oct", "kid": "s", "k": "AQAB"}), rsa()]);
    assert_eq!(set.key_ids().collect::<Vec<_>>(), ["one"]);
    assert_eq!(set.ignored()[0].key_id.as_deref(), Some("s"));
}

#[test]
fn key_that_is_to_verify_with_is_taken() {
    let rsa = || rsa_jwk("one", &RSA_KEY);
    let PublicKeyComponents { n, .. } = PublicKeyComponents::<Vec<u8>>::from(RSA_KEY.public_key());
    for jwk in [
        rsa(),
        with(rsa(), "use", "sig".into()),
        with(rsa(), "key_ops", json!(["sign", "verify"])),
        with(rsa(), "alg", "PS512".into()),
        with(rsa(), "x5c", json!(["MII"])),
        without(rsa(), "kid"),
        // Some issuers send the leading zero that RFC 7518 §6.3.1.1 warns of.
        with(rsa(), "n", base64url([&[0], n.as_slice()].concat()).into()),
        ec_jwk("one", "P-256", &P256_KEY),
        ec_jwk("one", "P-384", &P384_KEY),
        ec_jwk("one", "P-521", &P521_KEY),
        with(ec_jwk("one", "P-521", &P521_KEY), "alg", "ES512".into()),
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "x": base64url(ED.public_key())}),
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": base64url(ED.public_key())}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(ED.public_key())}),
    ] {
        assert_eq!(key_set(&[jwk]).len(), 1);
    }
}

#[test]
fn rsa_modulus_and_exponent_have_bounds() {
    let jwk = |n: &[u8], e: &[u8]| json!({"kty": "RSA", "n": base64url(n), "e": base64url(e)});
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(RSA_KEY.public_key());
    assert_eq!(n.len(), 256);
    let modulus =
        |length: usize| [&[0xff], &n[1..], &vec![0xff; 1024][..]].concat()[..length].to_vec();

    let mut bits_2047 = n.clone();
    bits_2047[0] = 0x7f;
    assert!(reason(&jwk(&bits_2047, &e)).contains("less than 2048"));
    assert!(reason(&jwk(&n[..128], &e)).contains("less than 2048"));
    assert!(reason(&jwk(&[], &e)).contains("less than 2048"));
    assert!(reason(&jwk(&modulus(1025), &e)).contains("more than 8192"));
    assert_eq!(key_set(&[jwk(&modulus(1024), &e)]).len(), 1);

    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert!(reason(&jwk(&even, &e)).contains("bad modulus"));
    for exponent in [
        &[][..],
        &[0],
        &[1],
        &[2],
        &[1, 0, 0],
        &[1, 0, 0, 0, 1],
        &[0, 1],
    ] {
        assert!(
            reason(&jwk(&n, exponent)).contains("exponent"),
            "{exponent:?}"
        );
    }
    for exponent in [&[3][..], &[1, 0, 1], &[0, 1, 0, 1], &[0xff; 4]] {
        assert_eq!(key_set(&[jwk(&n, exponent)]).len(), 1, "{exponent:?}");
    }
}

#[test]
fn equal_keys_count_once_and_different_ones_of_one_kid_are_ambiguous() {
    let one = rsa_jwk("one", &RSA_KEY);
    assert_eq!(key_set(&[one.clone(), one.clone()]).len(), 1);

    let ambiguous = key_set(&[one.clone(), rsa_jwk("one", &OTHER_RSA)]);
    let found = ambiguous.candidates(Some("one"), Algorithm::Rs256);
    assert!(matches!(found, Candidates::Ambiguous));

    // One name for keys of two types is clear by `alg` (RFC 7517 §4.5).
    let types = key_set(&[one, ec_jwk("one", "P-256", &P256_KEY)]);
    for (algorithm, clear) in [
        (Algorithm::Rs256, true),
        (Algorithm::Es256, true),
        (Algorithm::EdDsa, false),
    ] {
        let found = types.candidates(Some("one"), algorithm);
        assert_eq!(matches!(found, Candidates::Named(_)), clear, "{algorithm}");
    }
}

#[test]
fn sets_are_the_same_whatever_the_order() {
    let (one, two) = (rsa_jwk("one", &RSA_KEY), rsa_jwk("two", &OTHER_RSA));
    let both = key_set(&[one.clone(), two.clone()]);
    assert!(both.is_same_as(&key_set(&[two.clone(), one.clone()])));
    assert!(!both.is_same_as(&key_set(std::slice::from_ref(&one))));
    assert!(!both.is_same_as(&key_set(&[one.clone(), rsa_jwk("two", &RSA_KEY)])));
    assert!(!both.is_same_as(&key_set(&[one, with(two, "alg", "RS256".into())])));
}

fn pem(tag: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {tag}-----\n{}\n-----END {tag}-----\n",
        STANDARD.encode(der)
    )
}

#[test]
fn pem_text_with_anything_but_public_keys_is_refused() {
    let public = pem(
        "PUBLIC KEY",
        RSA_KEY.public_key().as_der().unwrap().as_ref(),
    );
    for (text, expected) in [
        ("-----BEGIN ".to_owned(), KeySetError::Pem),
        (String::new(), KeySetError::Pem),
        (pem("PRIVATE KEY", b"x"), KeySetError::PrivatePem),
        (
            format!("{public}{}", pem("RSA PRIVATE KEY", b"x")),
            KeySetError::PrivatePem,
        ),
        (pem("EC PRIVATE KEY", b"x"), KeySetError::PrivatePem),
        (pem("CERTIFICATE", b"x"), KeySetError::Pem),
        (pem("PUBLIC KEY", b"x"), KeySetError::Pem),
        (
            format!("{public}{}", pem("PUBLIC KEY", b"")),
            KeySetError::Pem,
        ),
        (public.replacen("-----END", "", 1), KeySetError::Pem),
    ] {
        assert_eq!(KeySet::from_pem(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn pem_keys_are_the_same_as_their_jwks() {
    let nameless = |jwk| without(jwk, "kid");
    let spki = pem(
        "PUBLIC KEY",
        RSA_KEY.public_key().as_der().unwrap().as_ref(),
    );
    let pkcs1 = pem("RSA PUBLIC KEY", RSA_KEY.public_key().as_ref());
    let p256 = pem(
        "PUBLIC KEY",
        P256_KEY.public_key().as_der().unwrap().as_ref(),
    );
    let p384 = pem(
        "PUBLIC KEY",
        P384_KEY.public_key().as_der().unwrap().as_ref(),
    );
    let p521 = pem(
        "PUBLIC KEY",
        P521_KEY.public_key().as_der().unwrap().as_ref(),
    );
    let ed = pem("PUBLIC KEY", ED.public_key().as_der().unwrap().as_ref());
    let rsa = nameless(rsa_jwk("", &RSA_KEY));
    for (text, jwk) in [
        (&spki, rsa.clone()),
        (&pkcs1, rsa),
        (&p256, nameless(ec_jwk("", "P-256", &P256_KEY))),
        (&p384, nameless(ec_jwk("", "P-384", &P384_KEY))),
        (&p521, nameless(ec_jwk("", "P-521", &P521_KEY))),
        (
            &ed,
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(ED.public_key())}),
        ),
    ] {
        let set = KeySet::from_file_content(text.as_bytes()).unwrap();
        assert!(set.is_same_as(&key_set(&[jwk])), "{text}");
    }
    let all = KeySet::from_pem(&format!("# ours\n{spki}{pkcs1}\n{p256}{ed}")).unwrap();
    assert_eq!(all.len(), 3, "the first two are one");
}

#[test]
fn small_rsa_key_in_pem_is_refused() {
    // 1024 bits, from the Wycheproof key set `keysize_too_small`.
    let der = STANDARD
        .decode(
            "MIGJAoGBAKyQSKek9WCvkbT8r2KhRZXLnKnsEgAPyEXkhXIRPKsokK2wEakZV1pAdg0fI/6S\
             UJyKWBC20FmQuQndD0xgFPKzG2q9gFus6ZgW4u2kH9e5VAXbfFyPTPa6uxT1UNXQ3VF5tUlR\
             //aqlobzD0eNtkm3xwRMwgLcytADQ0aOqs+/AgMBAAE=",
        )
        .unwrap();
    let error = KeySet::from_pem(&pem("RSA PUBLIC KEY", &der)).unwrap_err();
    assert_eq!(
        error,
        KeySetError::PemKey("an RSA key of less than 2048 bits")
    );
}

#[test]
fn secret_is_as_long_as_the_hash_and_never_for_public_keys() {
    for (algorithm, needed) in [
        (Algorithm::Hs256, 32),
        (Algorithm::Hs384, 48),
        (Algorithm::Hs512, 64),
    ] {
        let take = |bytes: usize| KeySet::from_secret(&SECRET[..bytes], &[algorithm]);
        for short in [0, 1, needed - 1] {
            assert_eq!(
                take(short).unwrap_err(),
                KeySetError::ShortSecret { algorithm, needed }
            );
        }
        let set = take(needed).unwrap();
        let bound: Vec<_> = set.keys().collect();
        assert_eq!(bound, [(None, vec![algorithm])]);
    }
    let two = [Algorithm::Hs256, Algorithm::Hs512];
    assert!(KeySet::from_secret(&SECRET[..63], &two).is_err());
    for algorithm in Algorithm::ALL {
        assert_eq!(
            KeySet::from_secret(SECRET, &[algorithm]).is_ok(),
            algorithm.is_symmetric(),
            "{algorithm}"
        );
    }
}

#[test]
fn shortened_code_of_a_secret_is_refused() {
    use aws_lc_rs::hmac;
    let set = KeySet::from_secret(SECRET, &[Algorithm::Hs256, Algorithm::Hs512]).unwrap();
    let sign = |hash| hmac::sign(&hmac::Key::new(hash, SECRET), b"message");
    let (short, long) = (sign(hmac::HMAC_SHA256), sign(hmac::HMAC_SHA512));
    let verify = |algorithm, code: &[u8]| set.verify(Some("any"), algorithm, b"message", code);
    for (algorithm, code) in [
        (Algorithm::Hs256, &short.as_ref()[..31]),
        (Algorithm::Hs256, &short.as_ref()[..16]),
        (Algorithm::Hs256, &[]),
        (Algorithm::Hs256, &long.as_ref()[..32]),
        (Algorithm::Hs256, long.as_ref()),
        (Algorithm::Hs512, short.as_ref()),
        (Algorithm::Hs384, &long.as_ref()[..48]),
    ] {
        assert_eq!(verify(algorithm, code), Err(TokenError::KeyUnknown));
    }
    assert_eq!(verify(Algorithm::Hs256, short.as_ref()), Ok(()));
    assert_eq!(verify(Algorithm::Hs512, long.as_ref()), Ok(()));
}
