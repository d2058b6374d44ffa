//! Tokens: none is accepted that our keys did not sign, and of those that they signed none that breaks a
//! rule of the claims.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bpmgate::token::{
    Algorithm, BearerToken, Issuer, IssuerRules, KeySet, Preset, UnverifiedToken, VerifiedToken,
    verify,
};
use http::HeaderValue;
use serde_json::Value;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "orders";
const NOW: u64 = 1_800_000_000;
/// Far enough beyond the default leeway, which is 5 s.
const LEEWAY: f64 = 6.0;

/// All that the keys `rsa` and `ec`, whose private halves are gone, have ever signed; so has `ed`, once.
pub const SIGNED: [&str; 4] = [
    include_str!("../corpus/token/signed_rs256"),
    include_str!("../corpus/token/signed_ps256"),
    include_str!("../corpus/token/signed_es256"),
    include_str!("../corpus/token/signed_eddsa"),
];

static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::from_jwks(include_bytes!("keys.json")).expect("keys"));

/// The private half of `ed`.
static ED: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"));

static TRUSTED: LazyLock<Issuer> = LazyLock::new(|| {
    let mut rules = IssuerRules::new(Preset::Oidc, ISSUER);
    rules.audience = vec![AUDIENCE.to_owned()];
    rules.algorithms = vec![
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::EdDsa,
        Algorithm::Ed25519,
    ];
    Issuer::new(rules).expect("rules that can stand")
});

/// The input is a header's value or a bare token; or, with a line break, a JOSE header and a payload, which
/// get a good signature first: so what is behind the signature is reached too.
pub fn check(input: &[u8]) {
    if let Some(at) = input.iter().position(|byte| *byte == b'\n') {
        let (header, payload) = input.split_at(at);
        check_signed(header, payload.get(1..).unwrap_or_default());
        return;
    }
    for token in [input, input.strip_prefix(b"Bearer ").unwrap_or_default()] {
        if let Ok(token) = BearerToken::parse(token) {
            assert_eq!(format!("{token:?}"), "BearerToken(***)");
        }
        if let Some(verified) = accepted(token) {
            assert_rules(&verified);
            let text = std::str::from_utf8(token).expect("ASCII");
            assert!(was_signed(text), "nobody signed {text}");
        }
    }
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    if let Ok(Some(token)) = BearerToken::from_header(&value)
        && let Some(verified) = verified(token)
    {
        assert_rules(&verified);
        let text = value.to_str().expect("ASCII");
        let (scheme, token) = text.split_once(' ').expect("a scheme and a token");
        assert!(scheme.eq_ignore_ascii_case("bearer"));
        assert!(was_signed(token.trim_start()), "nobody signed {text}");
    }
}

/// Whether a token's signed part is one of those that were; of an ECDSA signature there are two forms.
fn was_signed(token: &str) -> bool {
    let part = |token: &str| {
        token
            .rsplit_once('.')
            .map(|(signed, _)| signed.trim_start_matches("Bearer ").to_owned())
    };
    SIGNED.iter().any(|known| part(known) == part(token))
}

/// Whether a header with this value is let in.
pub fn is_accepted(header: &str) -> bool {
    HeaderValue::from_str(header).is_ok_and(|value| {
        let token = BearerToken::from_header(&value);
        token.is_ok_and(|token| token.and_then(verified).is_some())
    })
}

fn accepted(token: &[u8]) -> Option<VerifiedToken> {
    verified(BearerToken::parse(token).ok()?)
}

fn verified(token: BearerToken<'_>) -> Option<VerifiedToken> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let unverified = UnverifiedToken::parse(token).ok()?;
    verify(unverified, now, &TRUSTED, &KEYS).ok()
}

fn check_signed(header: &[u8], payload: &[u8]) {
    let mut token = [header, payload]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let mut signature = ED.sign(token.as_bytes()).as_ref().to_vec();
    let with = |signature: &[u8]| {
        let encoded = URL_SAFE_NO_PAD.encode(signature);
        [token.as_str(), ".", &encoded].concat()
    };
    let good = with(&signature);
    if let Some(first) = signature.first_mut() {
        *first ^= 1;
    }
    let broken = with(&signature);
    assert!(accepted(broken.as_bytes()).is_none(), "a broken signature");
    if let Some(verified) = accepted(good.as_bytes()) {
        assert_rules(&verified);
        assert_header(header);
        let read: Value = serde_json::from_slice(payload).expect("JSON");
        assert_eq!(read.as_object(), Some(verified.claims()));
        // The payload under a name that was not signed.
        token.insert(0, 'A');
        let moved = [
            token.as_str(),
            good.get(good.rfind('.').unwrap_or(0)..).unwrap_or_default(),
        ];
        assert!(accepted(moved.concat().as_bytes()).is_none());
    }
}

fn assert_header(header: &[u8]) {
    let header: Value = serde_json::from_slice(header).expect("JSON");
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    assert!(matches!(text("alg"), Some("EdDSA" | "Ed25519")));
    for refused in ["crit", "zip"] {
        assert!(header.get(refused).is_none(), "{refused}");
    }
    assert!(header.get("b64").is_none_or(|encoded| *encoded == true));
    if let Some(kid) = header.get("kid") {
        // A name that no key has is passed by; a name of another key is not.
        assert!(kid.is_string() && kid != "rsa" && kid != "ec", "{kid}");
    }
}

/// The module's rules of claims, read again by themselves.
fn assert_rules(token: &VerifiedToken) {
    let claims = token.claims();
    assert_eq!(claims.get("iss"), Some(&ISSUER.into()));
    let is_ours = |audience: &Value| audience == AUDIENCE;
    assert!(match claims.get("aud") {
        Some(Value::Array(audiences)) =>
            audiences.iter().any(is_ours) && audiences.iter().all(Value::is_string),
        Some(one) => is_ours(one),
        None => false,
    });
    let time = |name: &str| {
        claims
            .get(name)
            .map(|value| value.as_f64().expect("a number"))
    };
    let now = f64::from(u32::try_from(NOW).expect("32 bits"));
    assert!(time("exp").expect("an end") > now - LEEWAY);
    for begin in ["nbf", "iat"] {
        assert!(time(begin).is_none_or(|begin| (0.0..=now + LEEWAY).contains(&begin)));
    }
    for other in ["cnf", "events"] {
        assert!(!claims.contains_key(other), "{other}");
    }
    if let Ok(identity) = token.identity() {
        assert_eq!(identity.issuer(), ISSUER);
        assert!(!identity.id().is_empty() && !identity.id().contains(char::is_control));
        assert_eq!(claims.get("sub"), Some(&identity.id().into()));
        let _ = (identity.name(), identity.email(), identity.roles());
    }
}
