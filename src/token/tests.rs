use super::jws::MAX_KEY_ID_BYTES;
use super::last::LastToken;
use super::*;
use testing::*;

/// Keys made once per test binary, and tokens of any form signed with them.
pub(crate) mod testing {
    use std::sync::LazyLock;

    use aws_lc_rs::hmac;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaKeyPair,
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::super::*;

    pub(crate) const ISSUER: &str = "https://issuer.example";

    pub(crate) static RSA: LazyLock<RsaKeyPair> =
        LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    pub(crate) static OTHER_RSA: LazyLock<RsaKeyPair> =
        LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    pub(crate) static P256: LazyLock<EcdsaKeyPair> =
        LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
    pub(crate) static P384: LazyLock<EcdsaKeyPair> =
        LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
    pub(crate) static P521: LazyLock<EcdsaKeyPair> =
        LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap());
    /// Just long enough for HS512.
    pub(crate) const SECRET: &[u8; 64] =
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    pub(crate) static ED: LazyLock<Ed25519KeyPair> =
        LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

    pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn rsa_jwk(kid: &str, key: &RsaKeyPair) -> Value {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
        json!({"kty": "RSA", "kid": kid, "n": base64url(n), "e": base64url(e)})
    }

    pub(crate) fn ec_jwk(kid: &str, crv: &str, key: &EcdsaKeyPair) -> Value {
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "crv": crv, "kid": kid, "x": base64url(x), "y": base64url(y)})
    }

    pub(crate) fn jwks(keys: &[Value]) -> Vec<u8> {
        json!({ "keys": keys }).to_string().into_bytes()
    }

    pub(crate) fn key_set(keys: &[Value]) -> KeySet {
        KeySet::from_jwks(&jwks(keys)).unwrap()
    }

    /// The key `RSA` by the name `one`.
    pub(crate) fn one_key() -> KeySet {
        key_set(&[rsa_jwk("one", &RSA)])
    }

    /// Signs whatever header and payload with the key that `alg` asks for.
    pub(crate) fn sign_as(alg: Algorithm, key: &RsaKeyPair, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", base64url(header), base64url(payload));
        let random = SystemRandom::new();
        let rsa = |encoding| {
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(encoding, &random, input.as_bytes(), &mut signature)
                .unwrap();
            signature
        };
        let ec = |key: &EcdsaKeyPair| {
            key.sign(&random, input.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec()
        };
        let mac = |hash| {
            let key = hmac::Key::new(hash, SECRET);
            hmac::sign(&key, input.as_bytes()).as_ref().to_vec()
        };
        let signature = match alg {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Rs384 => rsa(&RSA_PKCS1_SHA384),
            Algorithm::Rs512 => rsa(&RSA_PKCS1_SHA512),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::Ps384 => rsa(&RSA_PSS_SHA384),
            Algorithm::Ps512 => rsa(&RSA_PSS_SHA512),
            Algorithm::Es256 => ec(&P256),
            Algorithm::Es384 => ec(&P384),
            Algorithm::Es512 => ec(&P521),
            Algorithm::EdDsa | Algorithm::Ed25519 => ED.sign(input.as_bytes()).as_ref().to_vec(),
            Algorithm::Hs256 => mac(hmac::HMAC_SHA256),
            Algorithm::Hs384 => mac(hmac::HMAC_SHA384),
            Algorithm::Hs512 => mac(hmac::HMAC_SHA512),
        };
        format!("{input}.{}", base64url(signature))
    }

    pub(crate) const HEADER: &str = r#"{"alg":"RS256","kid":"one","typ":"JWT"}"#;

    /// A token of the key `one` with this payload.
    pub(crate) fn token(payload: &str) -> String {
        sign_as(Algorithm::Rs256, &RSA, HEADER, payload)
    }

    /// Good for an hour from now on, for `alice`.
    pub(crate) fn good_claims() -> Value {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        json!({"iss": ISSUER, "sub": "alice", "exp": now + 3600})
    }

    /// Rules without an audience.
    pub(crate) fn rules() -> IssuerRules {
        IssuerRules::new(Preset::Clerk, ISSUER)
    }

    pub(crate) fn issuer() -> Issuer {
        Issuer::new(rules()).unwrap()
    }
}

const NOW: u64 = 1_800_000_000;

fn check_with(token: &str, rules: IssuerRules, keys: &KeySet) -> Result<VerifiedToken, TokenError> {
    let token = UnverifiedToken::parse(BearerToken::parse(token.as_bytes())?)?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    verify(token, now, &Issuer::new(rules).unwrap(), keys)
}

fn check(token: &str) -> Result<VerifiedToken, TokenError> {
    check_with(token, rules(), &one_key())
}

/// Members after `iss` and `sub`.
fn payload(more: &str) -> String {
    format!(r#"{{"iss":"{ISSUER}","sub":"alice"{more}}}"#)
}

fn with_header(header: &str) -> Result<VerifiedToken, TokenError> {
    check(&sign_as(
        Algorithm::Rs256,
        &RSA,
        header,
        &payload(r#","exp":1900000000"#),
    ))
}

#[test]
fn authorization_header_is_read_as_rfc_6750_says() {
    let read = |value: &str| {
        let value = HeaderValue::from_str(value).unwrap();
        match BearerToken::from_header(&value) {
            Ok(Some(token)) => format!("token {}", token.as_str()),
            Ok(None) => "none".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    };
    for (value, expected) in [
        ("Basic ZGVtbzpkZW1v", "none"),
        ("", "none"),
        ("Bearertoken", "none"),
        ("Bearer\ttoken", "none"),
        ("Bearer", "Syntax"),
        ("Bearer ", "Syntax"),
        ("Bearer =", "Syntax"),
        ("Bearer a b", "Syntax"),
        ("Bearer a,Bearer", "Syntax"),
        ("Bearer a\tb", "Syntax"),
        ("Bearer a=b", "Syntax"),
        ("Bearer \"a\"", "Syntax"),
        ("Bearer a.b.c ", "Syntax"),
        ("Bearer a.b.c", "token a.b.c"),
        ("bEARER a.b.c", "token a.b.c"),
        ("Bearer   a", "token a"),
        ("Bearer aZ09-._~+/==", "token aZ09-._~+/=="),
    ] {
        assert_eq!(read(value), expected, "{value:?}");
    }
    let bytes = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
    assert_eq!(
        BearerToken::from_header(&bytes).unwrap_err(),
        TokenError::Syntax
    );
}

#[test]
fn only_the_signs_of_a_b64token_pass() {
    let signs = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";
    for byte in 0..=u8::MAX {
        let token = [b'a', byte, b'b'];
        let passes = BearerToken::parse(&token).is_ok();
        assert_eq!(passes, signs.contains(&byte), "{byte:#x}");
    }
}

#[test]
fn token_of_16_kib_is_read_and_one_byte_more_is_refused() {
    let longest = "a".repeat(MAX_TOKEN_BYTES);
    assert!(BearerToken::parse(longest.as_bytes()).is_ok());
    let longer = format!("{longest}a");
    assert_eq!(
        BearerToken::parse(longer.as_bytes()).unwrap_err(),
        TokenError::TooLong(16385)
    );
}

#[test]
fn form_of_the_token_is_strict() {
    let good = token(&payload(r#","exp":1900000000"#));
    assert!(check(&good).is_ok());
    let cut = |end: usize| good.split_at(good.len() - end).0.to_owned();
    let parts: Vec<_> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    for (name, bad) in [
        ("two parts", format!("{header}.{body}")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, a JWE", format!("{good}.{body}.{signature}")),
        ("empty fourth part", format!("{good}.")),
        ("empty header", format!(".{body}.{signature}")),
        ("empty payload", format!("{header}..{signature}")),
        ("empty signature", format!("{header}.{body}.")),
        ("padded header", format!("{header}=.{body}.{signature}")),
        ("padded signature", format!("{good}==")),
        (
            "standard alphabet",
            format!("{header}.{body}.+/{signature}"),
        ),
        ("signature cut", cut(4)),
        ("signature twice", format!("{good}{signature}")),
        (
            "header and payload swapped",
            format!("{body}.{header}.{signature}"),
        ),
    ] {
        assert!(check(&bad).is_err(), "{name}");
    }
    // The last sign of 256 bytes has four unused bits: only the one with zeros there counts.
    let last = signature.chars().last().unwrap();
    let others = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .filter(|sign| *sign != last);
    for other in others {
        let bad = format!("{}{other}", cut(1));
        assert!(check(&bad).is_err(), "last sign {last} as {other}");
    }
}

#[test]
fn every_changed_byte_breaks_the_token() {
    let good = token(&payload(r#","exp":1900000000"#));
    let keys = one_key();
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(check_with(&bad, rules(), &keys).is_err(), "byte {at}");
    }
}

#[test]
fn header_members_are_what_they_must_be() {
    let long = "k".repeat(MAX_KEY_ID_BYTES + 1);
    for header in [
        r#"{"alg":"RS256","kid":"one","crit":["exp"],"exp":1}"#,
        r#"{"alg":"RS256","kid":"one","crit":[]}"#,
        r#"{"alg":"RS256","kid":"one","crit":null}"#,
        r#"{"alg":"RS256","kid":"one","zip":"DEF"}"#,
        r#"{"alg":"RS256","kid":"one","zip":null}"#,
        r#"{"alg":"RS256","kid":"one","cty":"JWT"}"#,
        r#"{"alg":"RS256","kid":"one","cty":"application/jwt"}"#,
        r#"{"alg":"RS256","kid":"one","cty":null}"#,
        r#"{"alg":"RS256","kid":"one","b64":false}"#,
        r#"{"alg":"RS256","kid":"one","b64":null}"#,
        r#"{"alg":"RS256","kid":"one","typ":"logout+jwt"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"dpop+jwt"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"text/JWT"}"#,
        r#"{"alg":"RS256","kid":"one","typ":""}"#,
        r#"{"alg":"RS256","kid":"one","typ":null}"#,
        r#"{"alg":"RS256","kid":"one","typ":["JWT"]}"#,
        r#"{"alg":"RS256","kid":1}"#,
        r#"{"alg":"RS256","kid":null}"#,
        r#"{"kid":"one"}"#,
        r#"{"alg":["RS256"],"kid":"one"}"#,
        r#"{"alg":null,"kid":"one"}"#,
        &format!(r#"{{"alg":"RS256","kid":"{long}"}}"#),
    ] {
        let error = with_header(header).unwrap_err();
        assert!(
            matches!(error, TokenError::Header { .. }),
            "{header}: {error:?}"
        );
    }
    for header in [
        r#"{"alg":"RS256","alg":"RS256","kid":"one"}"#,
        r#"{"alg":"RS256","kid":"one","kid":"one"}"#,
        r#"{"alg":"RS256","kid":"one","jwk":{"a":1,"a":1}}"#,
        r#"["RS256"]"#,
        r#"{"alg":"RS256","kid":"one"} "x""#,
    ] {
        let error = with_header(header).unwrap_err();
        assert!(
            matches!(error, TokenError::Json { part: "header", .. }),
            "{header}: {error:?}"
        );
    }
    for alg in [
        "none", "None", "NONE", "nOnE", "rs256", "ES256K", "Ed448", "RS1", "", "RS256 ",
    ] {
        let error = with_header(&format!(r#"{{"alg":"{alg}","kid":"one"}}"#)).unwrap_err();
        assert_eq!(error, TokenError::AlgorithmUnknown, "{alg}");
    }
    for header in [
        HEADER,
        r#"{"alg":"RS256","kid":"one"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"jwt"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"at+JWT"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"application/at+jwt"}"#,
        r#"{"alg":"RS256","kid":"one","typ":"Application/JWT"}"#,
        r#"{"alg":"RS256","kid":"one","b64":true}"#,
        r#"{"alg":"RS256","kid":"one","cty":"json"}"#,
        r#"{"alg":"RS256","kid":"one","jku":"https://evil.example","x5u":"https://evil.example","x5c":[],"jwk":{"kty":"RSA"}}"#,
        r#"{"alg":"RS256"}"#,
    ] {
        assert!(with_header(header).is_ok(), "{header}");
    }
}

#[test]
fn token_cannot_bring_its_own_key() {
    let own = rsa_jwk("one", &OTHER_RSA);
    let header = format!(r#"{{"alg":"RS256","kid":"one","jwk":{own}}}"#);
    let forged = sign_as(
        Algorithm::Rs256,
        &OTHER_RSA,
        &header,
        &payload(r#","exp":1900000000"#),
    );
    assert_eq!(check(&forged).unwrap_err(), TokenError::Signature);
}

/// A key for every asymmetric algorithm.
fn public_keys() -> KeySet {
    let ed = base64url(aws_lc_rs::signature::KeyPair::public_key(&*ED));
    key_set(&[
        rsa_jwk("one", &RSA),
        ec_jwk("p256", "P-256", &P256),
        ec_jwk("p384", "P-384", &P384),
        ec_jwk("p521", "P-521", &P521),
        serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": ed}),
    ])
}

/// A token of this algorithm, whose header claims that one.
fn signed_as(alg: Algorithm, claimed: Algorithm) -> String {
    let kid = match alg {
        Algorithm::Es256 => "p256",
        Algorithm::Es384 => "p384",
        Algorithm::Es512 => "p521",
        Algorithm::EdDsa | Algorithm::Ed25519 => "ed",
        Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => "any",
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => "one",
    };
    let header = format!(r#"{{"alg":"{claimed}","kid":"{kid}"}}"#);
    sign_as(alg, &RSA, &header, &payload(r#","exp":1900000000"#))
}

#[test]
fn algorithm_must_be_the_issuers_and_the_keys() {
    let (symmetric, asymmetric): (Vec<_>, Vec<_>) = Algorithm::ALL
        .into_iter()
        .partition(|algorithm| algorithm.is_symmetric());
    let public = public_keys();
    let secret = KeySet::from_secret(SECRET, &symmetric).unwrap();
    for alg in Algorithm::ALL {
        let signed = signed_as(alg, alg);
        for allowed in Algorithm::ALL {
            let mut rules = rules();
            rules.algorithms = vec![allowed];
            for keys in [&public, &secret] {
                let result = check_with(&signed, rules.clone(), keys);
                let fits = alg.is_symmetric() == std::ptr::eq(keys, &raw const secret);
                match result {
                    Ok(_) => assert!(alg == allowed && fits, "{alg} {allowed}"),
                    Err(TokenError::AlgorithmNotAllowed(refused)) => {
                        assert!(alg != allowed && refused == alg, "{alg} {allowed}");
                    }
                    Err(error) => assert!(alg == allowed && !fits, "{alg} {allowed} {error}"),
                }
            }
        }
        // The header names another algorithm than the signature has; only the two names of one are one.
        for claimed in Algorithm::ALL.into_iter().filter(|other| *other != alg) {
            for (algorithms, keys) in [(&asymmetric, &public), (&symmetric, &secret)] {
                let mut rules = rules();
                rules.algorithms.clone_from(algorithms);
                let result = check_with(&signed_as(alg, claimed), rules, keys);
                let names = [Algorithm::EdDsa, Algorithm::Ed25519];
                let one = names.contains(&alg) && names.contains(&claimed);
                assert_eq!(
                    result.is_ok(),
                    one && algorithms.contains(&alg),
                    "{alg} as {claimed}"
                );
            }
        }
    }
}

/// The oldest attack on JWTs: what everybody knows is taken as the secret (RFC 8725 §2.1).
#[test]
fn public_key_is_never_taken_as_a_secret() {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::hmac;
    use aws_lc_rs::signature::KeyPair as _;
    let jwk = rsa_jwk("one", &RSA);
    let der = RSA.public_key().as_der().unwrap();
    let pem = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n");
    let input = format!(
        "{}.{}",
        base64url(r#"{"alg":"HS256","kid":"one"}"#),
        base64url(payload(r#","exp":1900000000"#))
    );
    for secret in [
        der.as_ref(),
        RSA.public_key().as_ref(),
        pem.as_bytes(),
        jwk.to_string().as_bytes(),
        jwk["n"].as_str().unwrap().as_bytes(),
        b"",
    ] {
        let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        let forged = format!("{input}.{}", base64url(code));
        for keys in [one_key(), KeySet::from_pem(&pem).unwrap()] {
            for allowed in [Algorithm::Rs256, Algorithm::Hs256] {
                let mut rules = rules();
                rules.algorithms = vec![allowed];
                assert!(check_with(&forged, rules, &keys).is_err());
            }
        }
    }
    // A set that holds a secret, even one in the open, gives none.
    let published = serde_json::json!({
        "kty": "oct", "kid": "one", "alg": "HS256", "use": "sig", "k": base64url(SECRET),
    });
    let keys = key_set(&[jwk, published]);
    let mut rules = rules();
    rules.algorithms = vec![Algorithm::Hs256];
    let signed = signed_as(Algorithm::Hs256, Algorithm::Hs256);
    assert!(check_with(&signed, rules, &keys).is_err());
}

#[test]
fn key_bound_to_an_algorithm_verifies_no_other() {
    let mut key = rsa_jwk("one", &RSA);
    key["alg"] = "RS512".into();
    let error = check_with(
        &token(&payload(r#","exp":1900000000"#)),
        rules(),
        &key_set(&[key]),
    );
    assert_eq!(error.unwrap_err(), TokenError::KeyUnfit(Algorithm::Rs256));
}

#[test]
fn token_without_kid_tries_four_keys_and_no_five() {
    let mut keys: Vec<_> = (0..3)
        .map(|kid| rsa_jwk(&kid.to_string(), &OTHER_RSA))
        .collect();
    // Keys for something else do not count.
    keys.push(ec_jwk("p256", "P-256", &P256));
    keys.push(rsa_jwk("one", &RSA));
    let signed = sign_as(
        Algorithm::Rs256,
        &RSA,
        r#"{"alg":"RS256"}"#,
        &payload(r#","exp":1900000000"#),
    );
    assert!(check_with(&signed, rules(), &key_set(&keys)).is_ok());
    keys.push(rsa_jwk("five", &OTHER_RSA));
    assert_eq!(
        check_with(&signed, rules(), &key_set(&keys)).unwrap_err(),
        TokenError::KeyAmbiguous
    );
}

#[test]
fn kid_that_is_not_known_is_told_apart_from_a_bad_signature() {
    let signed = |kid: &str| {
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
        sign_as(
            Algorithm::Rs256,
            &RSA,
            &header,
            &payload(r#","exp":1900000000"#),
        )
    };
    let named = key_set(&[rsa_jwk("other", &OTHER_RSA)]);
    assert_eq!(
        check_with(&signed("other"), rules(), &named).unwrap_err(),
        TokenError::Signature
    );
    assert_eq!(
        check_with(&signed("new"), rules(), &named).unwrap_err(),
        TokenError::KeyUnknown
    );
    // A key without a name serves any name (a PEM file has none).
    let nameless = |key| {
        let mut jwk = rsa_jwk("", key);
        jwk.as_object_mut().unwrap().remove("kid");
        key_set(&[jwk])
    };
    assert!(check_with(&signed("new"), rules(), &nameless(&RSA)).is_ok());
    assert_eq!(
        check_with(&signed("new"), rules(), &nameless(&OTHER_RSA)).unwrap_err(),
        TokenError::KeyUnknown
    );
}

#[test]
fn claims_are_what_they_must_be() {
    let duplicate = |text: &str| {
        matches!(
            check(&token(text)),
            Err(TokenError::Json {
                part: "payload",
                ..
            })
        )
    };
    assert!(duplicate(&payload(r#","exp":1900000000,"sub":"mallory""#)));
    assert!(duplicate(&payload(
        r#","exp":1900000000,"realm_access":{"roles":[],"roles":["admin"]}"#
    )));
    assert!(duplicate(&payload(
        r#","exp":1900000000,"\u0065xp":1900000000"#
    )));
    assert!(duplicate("[]"));
    assert!(duplicate("foo"));

    for (claims, expected) in [
        (
            r#"{"exp":1900000000}"#.to_owned(),
            TokenError::ClaimMissing("iss"),
        ),
        (
            r#"{"iss":null,"exp":1900000000}"#.to_owned(),
            TokenError::Claim {
                claim: "iss",
                expected: "a string",
            },
        ),
        (
            format!(r#"{{"iss":"{ISSUER}/","exp":1900000000}}"#),
            TokenError::IssuerUnknown,
        ),
        (
            format!(r#"{{"iss":"{}","exp":1900000000}}"#, ISSUER.to_uppercase()),
            TokenError::IssuerUnknown,
        ),
        (payload(""), TokenError::ClaimMissing("exp")),
    ] {
        assert_eq!(check(&token(&claims)).unwrap_err(), expected, "{claims}");
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            r#""1700000000""#,
            "null",
            "true",
            "[1]",
            "{}",
            "-1",
            "-0.5",
            "1e300",
            "99999999999999999999",
        ] {
            let more = if claim == "exp" {
                format!(r#","exp":{value}"#)
            } else {
                format!(r#","exp":1900000000,"{claim}":{value}"#)
            };
            let error = check(&token(&payload(&more))).unwrap_err();
            assert!(
                matches!(error, TokenError::Claim { claim: found, .. } if found == claim),
                "{more}: {error:?}"
            );
        }
    }
}

#[test]
fn times_hold_to_the_second_with_five_seconds_leeway() {
    let good = |more: &str| check(&token(&payload(more)));
    for (more, passes) in [
        // exp > now - 5
        (r#","exp":1799999995"#, false),
        (r#","exp":1799999995.25"#, true),
        (r#","exp":1799999996"#, true),
        (r#","exp":0"#, false),
        (r#","exp":1800000000.5"#, true),
        (r#","exp":1.9e9"#, true),
        (r#","exp":9007199254740993"#, true),
        // nbf <= now + 5
        (r#","exp":1900000000,"nbf":1800000006"#, false),
        (r#","exp":1900000000,"nbf":1800000005.25"#, false),
        (r#","exp":1900000000,"nbf":1800000005"#, true),
        (r#","exp":1900000000,"nbf":0"#, true),
        // iat <= now + 5
        (r#","exp":1900000000,"iat":1800000006"#, false),
        (r#","exp":1900000000,"iat":1800000005"#, true),
    ] {
        assert_eq!(good(more).is_ok(), passes, "{more}: {:?}", good(more));
    }
    assert_eq!(
        good(r#","exp":1799999688"#).unwrap_err(),
        TokenError::Expired {
            ago: Duration::from_secs(312)
        }
    );
    assert!(matches!(
        good(r#","exp":1900000000,"nbf":1800000100"#).unwrap_err(),
        TokenError::NotYet { claim: "nbf", .. }
    ));
    let mut exact = rules();
    exact.leeway = Duration::ZERO;
    for (exp, passes) in [(NOW, false), (NOW + 1, true)] {
        let signed = token(&payload(&format!(
            r#","exp":{exp},"nbf":{NOW},"iat":{NOW}"#
        )));
        assert_eq!(
            check_with(&signed, exact.clone(), &one_key()).is_ok(),
            passes,
            "{exp}"
        );
    }
    let expires = good(r#","exp":1800000000.5"#).unwrap().expires();
    assert_eq!(
        expires,
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500)
    );
}

#[test]
fn audience_must_meet_the_configured_one() {
    let with = |audience: &[&str], aud: &str| {
        let mut rules = rules();
        rules.audience = audience.iter().map(|name| (*name).to_owned()).collect();
        check_with(
            &token(&payload(&format!(r#","exp":1900000000{aud}"#))),
            rules,
            &one_key(),
        )
        .map(drop)
    };
    let bad_type = Err(TokenError::Claim {
        claim: "aud",
        expected: "a string or an array of strings",
    });
    for (configured, aud, expected) in [
        (
            &["us", "them"][..],
            "",
            Err(TokenError::ClaimMissing("aud")),
        ),
        (&["us"], r#","aud":"other""#, Err(TokenError::Audience)),
        (&["us"], r#","aud":"US""#, Err(TokenError::Audience)),
        (&["us"], r#","aud":"us them""#, Err(TokenError::Audience)),
        (&["us"], r#","aud":[]"#, Err(TokenError::Audience)),
        (
            &["us"],
            r#","aud":["other","usa"]"#,
            Err(TokenError::Audience),
        ),
        (&["us"], r#","aud":null"#, bad_type.clone()),
        (&["us"], r#","aud":{"us":1}"#, bad_type.clone()),
        (&["us"], r#","aud":["us",1]"#, bad_type.clone()),
        (&["us"], r#","aud":[["us"]]"#, bad_type.clone()),
        (&[], r#","aud":7"#, bad_type),
        (&["us"], r#","aud":"us""#, Ok(())),
        (&["us", "them"], r#","aud":["other","them"]"#, Ok(())),
        (&[], "", Ok(())),
        (&[], r#","aud":"anyone""#, Ok(())),
        (&[], r#","aud":[]"#, Ok(())),
    ] {
        assert_eq!(with(configured, aud), expected, "{configured:?} {aud}");
    }
}

#[test]
fn authorized_party_must_be_there_and_known_if_configured() {
    let with = |azp: &str| {
        let mut rules = rules();
        rules.authorized_parties = vec!["https://app.example".to_owned()];
        check_with(
            &token(&payload(&format!(r#","exp":1900000000{azp}"#))),
            rules,
            &one_key(),
        )
        .map(drop)
    };
    assert_eq!(with(""), Err(TokenError::ClaimMissing("azp")));
    assert_eq!(
        with(r#","azp":"https://evil.example""#),
        Err(TokenError::AuthorizedParty)
    );
    assert!(with(r#","azp":["https://app.example"]"#).is_err());
    assert_eq!(with(r#","azp":"https://app.example""#), Ok(()));
    // The first claim that names the client counts, and only where this kind of issuer writes it.
    let evil = r#","azp":"https://evil.example","client_id":"https://app.example""#;
    assert_eq!(with(evil), Err(TokenError::AuthorizedParty));
    assert_eq!(with(r#","client_id":"https://app.example""#), Ok(()));
    assert_eq!(
        with(r#","cid":"https://app.example""#),
        Err(TokenError::ClaimMissing("azp"))
    );
    for (preset, claim) in [
        (Preset::Cognito, "client_id"),
        (Preset::Okta, "cid"),
        (Preset::Entra, "appid"),
    ] {
        let party = |name: &str| {
            let mut rules = IssuerRules::new(preset, ISSUER);
            rules.audience = vec!["us".to_owned()];
            rules.authorized_parties = vec!["app".to_owned()];
            let more =
                format!(r#","exp":1900000000,"aud":"us","token_use":"access","{claim}":"{name}""#);
            check_with(&token(&payload(&more)), rules, &one_key()).map(drop)
        };
        assert_eq!(party("other"), Err(TokenError::AuthorizedParty), "{preset}");
        assert_eq!(party("app"), Ok(()), "{preset}");
    }
}

/// Tokens of the same issuer, key and audience that are for something else (RFC 8725 §3.11, §3.12).
#[test]
fn only_an_access_token_passes_where_the_issuer_tells_them_apart() {
    const MARKED: &str = r#"{"alg":"RS256","kid":"one","typ":"at+jwt"}"#;
    let with = |preset, header: &str, more: &str| {
        let mut rules = IssuerRules::new(preset, ISSUER);
        rules.audience = vec!["us".to_owned()];
        let claims = payload(&format!(r#","exp":1900000000,"aud":"us"{more}"#));
        let signed = sign_as(Algorithm::Rs256, &RSA, header, &claims);
        check_with(&signed, rules, &one_key()).map(drop)
    };
    let refused = |preset, more, claim| {
        let error = with(preset, HEADER, more).unwrap_err();
        assert!(
            matches!(error, TokenError::Purpose { claim: found, .. } if found == claim),
            "{preset} {more}: {error:?}"
        );
        assert!(matches!(Problem::from(error), Problem::TokenInvalid(_)));
    };
    for preset in Preset::ALL {
        for header in [HEADER, MARKED] {
            for more in [
                r#","azp":"app","cid":"app","client_id":"app","typ":"ID","token_use":"access""#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Refresh","token_use":"access""#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Offline","token_use":"access""#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Logout","token_use":"access""#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Bearer","token_use":"id""#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Bearer","token_use":null"#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Bearer","token_use":"access","events":{"http://schemas.openid.net/event/backchannel-logout":{}}"#,
                r#","azp":"app","cid":"app","client_id":"app","typ":"Bearer","token_use":"access","events":null"#,
            ] {
                let error = with(preset, header, more).unwrap_err();
                assert!(
                    matches!(error, TokenError::Purpose { .. }),
                    "{preset} {more}"
                );
            }
            let bound = r#","azp":"app","cid":"app","client_id":"app","typ":"Bearer","token_use":"access","cnf":{"jkt":"x"}"#;
            assert_eq!(
                with(preset, header, bound),
                Err(TokenError::Bound),
                "{preset}"
            );
        }
        // RFC 9068 says it, whatever the issuer.
        assert_eq!(with(preset, MARKED, ""), Ok(()), "{preset}");
    }
    for (preset, more, claim) in [
        (Preset::Keycloak, "", "typ"),
        (Preset::Keycloak, r#","typ":"bearer""#, "typ"),
        (Preset::Keycloak, r#","typ":"DPoP""#, "typ"),
        (Preset::Keycloak, r#","typ":["Bearer"]"#, "typ"),
        (Preset::Keycloak, r#","typ":null"#, "typ"),
        (Preset::Cognito, "", "token_use"),
        (Preset::Cognito, r#","token_use":"Access""#, "token_use"),
        (
            Preset::Entra,
            r#","nonce":"n","preferred_username":"a""#,
            "azp",
        ),
        (Preset::Entra, r#","client_id":"app","cid":"app""#, "azp"),
        (Preset::Auth0, r#","nonce":"n","sid":"s""#, "azp"),
        (
            Preset::Okta,
            r#","azp":"app","jti":"ID.x","at_hash":"h""#,
            "cid",
        ),
        (Preset::Clerk, r#","azp":"app","at_hash":"h""#, "at_hash"),
        (Preset::Zitadel, r#","azp":"app","at_hash":"h""#, "at_hash"),
        (Preset::Zitadel, r#","azp":"app","c_hash":"h""#, "c_hash"),
        (Preset::Supabase, r#","at_hash":null"#, "at_hash"),
    ] {
        refused(preset, more, claim);
    }
    for (preset, more) in [
        (Preset::Keycloak, r#","typ":"Bearer","azp":"app""#),
        (
            Preset::Cognito,
            r#","token_use":"access","client_id":"app""#,
        ),
        (Preset::Entra, r#","azp":"app""#),
        (Preset::Entra, r#","appid":"app""#),
        (Preset::Auth0, r#","azp":"app","scope":"openid""#),
        (Preset::Auth0, r#","client_id":"app""#),
        (Preset::Okta, r#","cid":"app","jti":"AT.x""#),
        (Preset::Clerk, r#","azp":"https://app.example","sid":"s""#),
        (Preset::Zitadel, r#","azp":"app","jti":"x""#),
        (Preset::Supabase, r#","role":"authenticated""#),
        // These give ID tokens only.
        (Preset::Google, r#","azp":"app","at_hash":"h""#),
        (Preset::Firebase, r#","auth_time":1700000000"#),
        // Not known.
        (Preset::Oidc, ""),
        (Preset::Oidc, r#","nonce":"n","at_hash":"h""#),
        (Preset::Oidc, r#","typ":"Bearer""#),
        (Preset::Oidc, r#","typ":7"#),
    ] {
        assert_eq!(with(preset, HEADER, more), Ok(()), "{preset} {more}");
    }
}

#[test]
fn expired_is_said_only_of_a_token_that_was_good() {
    let mut strict = rules();
    strict.audience = vec!["us".to_owned()];
    let expired = token(&payload(r#","exp":1,"aud":"other""#));
    assert_eq!(
        check_with(&expired, strict, &one_key()).unwrap_err(),
        TokenError::Audience
    );
    let forged = sign_as(
        Algorithm::Rs256,
        &OTHER_RSA,
        HEADER,
        &payload(r#","exp":1"#),
    );
    assert_eq!(check(&forged).unwrap_err(), TokenError::Signature);
    let problem = Problem::from(check(&token(&payload(r#","exp":1"#))).unwrap_err());
    assert_eq!(problem, Problem::TokenExpired);
}

/// What a verifier of now says of a token: whose it is, or the answer.
fn ask(verifier: &Verifier, signed: &str) -> Result<VerifiedToken, Problem> {
    ask_at(verifier, signed, SystemTime::now())
}

fn ask_at(verifier: &Verifier, signed: &str, now: SystemTime) -> Result<VerifiedToken, Problem> {
    verifier
        .verify_now(signed.as_bytes(), &mut LastToken::default(), now)
        .map_err(verifier::Refusal::into_problem)
}

const OTHER: &str = "https://other.example";

/// Rules of an issuer whose ids begin so.
fn prefixed(issuer: &str, prefix: &str) -> IssuerRules {
    let mut rules = IssuerRules::new(Preset::Clerk, issuer);
    rules.id_prefix = prefix.to_owned();
    rules
}

/// Both issuers have a key by the name `one`, and they are different keys.
#[test]
fn issuers_that_share_a_kid_never_share_keys() {
    let verifier = Verifier::new([
        (Issuer::new(prefixed(ISSUER, "a:")).unwrap(), one_key()),
        (
            Issuer::new(prefixed(OTHER, "b:")).unwrap(),
            key_set(&[rsa_jwk("one", &OTHER_RSA)]),
        ),
    ])
    .unwrap();
    let mut refused = Vec::new();
    for (signer, claimed, id) in [
        (&*RSA, ISSUER, Some("a:alice")),
        (&*OTHER_RSA, OTHER, Some("b:alice")),
        (&*OTHER_RSA, ISSUER, None),
        (&*RSA, OTHER, None),
        (&*RSA, "https://nobody.example", None),
        (&*RSA, "", None),
    ] {
        for header in [
            HEADER,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":"two"}"#,
        ] {
            let mut claims = good_claims();
            claims["iss"] = claimed.into();
            let signed = sign_as(Algorithm::Rs256, signer, header, &claims.to_string());
            let result = ask(&verifier, &signed);
            if let Some(id) = id.filter(|_| !header.contains("two")) {
                let token = result.unwrap();
                assert_eq!(token.issuer().as_str(), claimed);
                assert_eq!(token.identity().unwrap().id(), id);
            } else {
                refused.push(result.unwrap_err());
            }
        }
    }
    assert_eq!(refused.len(), 14);
    assert!(matches!(refused[0], Problem::TokenInvalid(_)));
    assert!(
        refused.iter().all(|problem| *problem == refused[0]),
        "an outsider must not learn which issuers and keys there are: {refused:?}"
    );
}

/// A secret of one issuer is no key of another, whatever the token claims.
#[test]
fn secret_of_one_issuer_signs_for_no_other() {
    let mut secret = prefixed(OTHER, "b:");
    secret.algorithms = vec![Algorithm::Hs512];
    let verifier = Verifier::new([
        (Issuer::new(prefixed(ISSUER, "a:")).unwrap(), one_key()),
        (
            Issuer::new(secret).unwrap(),
            KeySet::from_secret(SECRET, &[Algorithm::Hs512]).unwrap(),
        ),
    ])
    .unwrap();
    let signed = |alg, issuer: &str| {
        let mut claims = good_claims();
        claims["iss"] = issuer.into();
        let header = format!(r#"{{"alg":"{alg}","kid":"one"}}"#);
        ask(&verifier, &sign_as(alg, &RSA, &header, &claims.to_string())).is_ok()
    };
    for (alg, issuer, passes) in [
        (Algorithm::Hs512, ISSUER, false),
        (Algorithm::Hs256, ISSUER, false),
        (Algorithm::Rs256, OTHER, false),
        (Algorithm::Hs256, OTHER, false),
        (Algorithm::Hs512, OTHER, true),
        (Algorithm::Rs256, ISSUER, true),
    ] {
        assert_eq!(signed(alg, issuer), passes, "{alg} {issuer}");
    }
}

#[test]
fn several_issuers_never_have_one_id_space() {
    let take = |one: &str, two: &str| {
        Verifier::new([
            (Issuer::new(prefixed(ISSUER, one)).unwrap(), one_key()),
            (Issuer::new(prefixed(OTHER, two)).unwrap(), one_key()),
        ])
        .map(drop)
    };
    let clash = || VerifierError::SameIds(ISSUER.to_owned(), OTHER.to_owned());
    for (one, two) in [
        ("", ""),
        ("a:", ""),
        ("", "b:"),
        ("a", "a"),
        ("a", "ab"),
        ("ab", "a"),
    ] {
        assert_eq!(take(one, two), Err(clash()), "{one} {two}");
    }
    for (one, two) in [("a:", "b:"), ("ab", "ac")] {
        assert_eq!(take(one, two), Ok(()), "{one} {two}");
    }
    let shared = Verifier::with_shared_ids([
        (Issuer::new(prefixed(ISSUER, "")).unwrap(), one_key()),
        (Issuer::new(prefixed(OTHER, "")).unwrap(), one_key()),
    ]);
    assert!(shared.is_ok());
    let twice = Verifier::new([
        (Issuer::new(prefixed(OTHER, "a:")).unwrap(), one_key()),
        (Issuer::new(prefixed(OTHER, "b:")).unwrap(), one_key()),
    ]);
    assert_eq!(
        twice.unwrap_err(),
        VerifierError::SameIssuer(OTHER.to_owned())
    );
}

#[test]
fn identity_is_read_once_and_shared() {
    let verified = check(&token(&payload(
        r#","exp":1900000000,"email":"a@example.com""#,
    )))
    .unwrap();
    let clone = verified.clone();
    let identity = clone.identity().unwrap();
    assert_eq!(identity.id(), "alice");
    assert_eq!(identity.email(), Some("a@example.com"));
    assert_eq!(identity.issuer(), ISSUER);
    assert_eq!(identity.expires(), verified.expires());
    let again = verified.identity().unwrap();
    assert!(
        std::ptr::eq(identity.id(), again.id()),
        "read a second time"
    );
}

#[test]
fn nothing_of_the_token_is_shown() {
    let signed = token(&payload(r#","exp":1,"email":"secret@example.com""#));
    let bearer = BearerToken::parse(signed.as_bytes()).unwrap();
    let unverified = UnverifiedToken::parse(bearer).unwrap();
    let good = check(&token(&payload(
        r#","exp":1900000000,"email":"secret@example.com""#,
    )))
    .unwrap();
    for text in [
        format!("{bearer:?}"),
        format!("{unverified:?}"),
        format!("{good:?}"),
    ] {
        assert!(
            !text.contains("secret@example.com") && !text.contains("eyJ"),
            "{text}"
        );
    }
}

#[test]
fn what_the_caller_is_told_fits_into_a_quoted_header_parameter() {
    let samples = [
        TokenError::TooLong(1),
        TokenError::Syntax,
        TokenError::Signature,
        TokenError::ClaimMissing("exp"),
        TokenError::Claim {
            claim: "exp",
            expected: "a number",
        },
        TokenError::Audience,
        TokenError::AuthorizedParty,
        TokenError::Purpose {
            claim: "typ",
            expected: "Bearer",
        },
        TokenError::Bound,
        TokenError::NotYet {
            claim: "nbf",
            ahead: Duration::ZERO,
        },
        TokenError::Caller(claims::ClaimError::Id(claims::BadId::Empty)),
    ];
    for sample in samples {
        let Problem::TokenInvalid(text) = Problem::from(sample.clone()) else {
            panic!("{sample:?}");
        };
        assert!(
            text.bytes()
                .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'),
            "{text}"
        );
    }
}
