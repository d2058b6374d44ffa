use std::cell::RefCell;
use std::ops::Deref;

use super::super::last::LastToken;
use super::super::tests::testing::{
    HEADER, ISSUER, OTHER_RSA, good_claims, issuer, one_key, sign_as, token,
};
use super::super::{Algorithm, Issuer, IssuerRules, Preset, Verifier};
use super::*;
use crate::problem::Problem;

/// A verifier, and a connection over which it is asked.
struct Asked {
    verifier: Verifier,
    last: RefCell<LastToken>,
}

impl Deref for Asked {
    type Target = Verifier;

    fn deref(&self) -> &Verifier {
        &self.verifier
    }
}

impl From<Verifier> for Asked {
    fn from(verifier: Verifier) -> Self {
        let last = RefCell::default();
        Self { verifier, last }
    }
}

/// What it says over a new connection and, three times, over its own, which is all the same.
fn ask(asked: &Asked, token: &str, now: SystemTime) -> Result<VerifiedToken, Problem> {
    let over = |last: &mut LastToken| {
        let said = asked.verify_now(token.as_bytes(), last, now);
        said.map_err(super::super::verifier::Refusal::into_problem)
    };
    let anew = over(&mut LastToken::default());
    for _ in 0..3 {
        match (&anew, over(&mut asked.last.borrow_mut())) {
            (Ok(one), Ok(other)) => assert_eq!(one.claims(), other.claims()),
            (one, other) => assert_eq!(one.as_ref().err(), other.as_ref().err()),
        }
    }
    anew
}

fn verifier(entries: usize) -> Asked {
    let verifier = Verifier::new([(issuer(), one_key())]).unwrap();
    verifier.with_cache(entries).into()
}

fn is_hit(one: &VerifiedToken, other: &VerifiedToken) -> bool {
    std::ptr::eq(one.claims(), other.claims())
}

const EXPIRES: u64 = 1_900_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn signed(more: &str) -> String {
    token(&format!(
        r#"{{"iss":"{ISSUER}","sub":"alice","exp":{EXPIRES}{more}}}"#
    ))
}

#[test]
fn expired_token_is_refused_although_cached() {
    let verifier = verifier(10);
    let token = signed("");
    // The leeway is 5 s.
    let last = at(EXPIRES + 4);
    let first = ask(&verifier, &token, last).unwrap();
    assert_eq!(verifier.cached(), 1);
    assert!(is_hit(&first, &ask(&verifier, &token, last).unwrap()));
    for over in [5, 6, 100_000] {
        let refused = ask(&verifier, &token, at(EXPIRES + over));
        assert_eq!(refused.unwrap_err(), Problem::TokenExpired, "{over}");
        assert_eq!(verifier.cached(), 0, "{over}");
    }
}

/// The machine's clock may be set back.
#[test]
fn token_that_is_not_valid_yet_is_refused_although_cached() {
    for claim in ["nbf", "iat"] {
        let verifier = verifier(10);
        let token = signed(&format!(r#","{claim}":1800000000"#));
        assert!(ask(&verifier, &token, at(1_800_000_000)).is_ok());
        assert!(ask(&verifier, &token, at(1_799_999_995)).is_ok());
        let refused = ask(&verifier, &token, at(1_799_999_994));
        assert!(matches!(refused, Err(Problem::TokenInvalid(_))), "{claim}");
    }
}

#[test]
fn entry_holds_for_the_very_keys_that_verified_it() {
    let token = signed("");
    let cache = TokenCache::new(10).unwrap();
    let hash = || cache.tag(token.as_bytes()).unwrap();
    let now = at(1_800_000_000);
    let verified = ask(&verifier(0), &token, now).unwrap();
    let keys = Arc::new(one_key());
    for (current, hit) in [
        (None, false),
        // Even an equal set is another one.
        (Some(Arc::new(one_key())), false),
        (Some(Arc::clone(&keys)), true),
    ] {
        let cache = TokenCache::new(10).unwrap();
        cache.insert(hash(), Entry::new(verified.clone(), 7, &keys));
        let found = cache.get(&hash(), now, |issuer| {
            assert_eq!(issuer, 7);
            current.clone()
        });
        assert_eq!(found.is_some(), hit, "{current:?}");
        assert_eq!(cache.len(), u64::from(hit));
    }
    // A set that is gone is not kept alive, and no new one takes its place.
    let cache = TokenCache::new(10).unwrap();
    cache.insert(hash(), Entry::new(verified, 0, &keys));
    let weak = Arc::downgrade(&keys);
    drop(keys);
    assert!(weak.upgrade().is_none());
    let many: Vec<_> = (0..1000).map(|_| Arc::new(one_key())).collect();
    assert!(many.iter().all(|keys| {
        let verified = cache.get(&hash(), now, |_| Some(Arc::clone(keys)));
        verified.is_none()
    }));
}

/// What a connection keeps of its last token is the token's text, for so long, and only once it has come again.
#[test]
fn last_token_is_known_by_its_text_for_ten_seconds() {
    let (good, now) = (signed(""), at(1_800_000_000));
    let entry = |verifier: &Verifier| {
        let mut last = LastToken::default();
        let verified = verifier.verify_now(good.as_bytes(), &mut last, now);
        Entry::new(verified.unwrap(), 0, &Arc::new(one_key()))
    };
    let entry = entry(&verifier(1).verifier);
    let mut last = LastToken::default();
    last.note(good.as_bytes(), &entry, now);
    assert!(last.entry(good.as_bytes(), now).is_none(), "it came once");
    last.note(good.as_bytes(), &entry, now);
    let found = |token: &[u8], now| last.entry(token, now).is_some();
    assert!(found(good.as_bytes(), now));
    for place in 0..good.len() {
        let mut other = good.clone().into_bytes();
        other[place] ^= 1;
        assert!(!found(&other, now), "{place}");
        assert!(!found(&good.as_bytes()[..place], now), "{place}");
        assert!(!found(&good.as_bytes()[place + 1..], now), "{place}");
    }
    for (seconds, known) in [(9, true), (10, false), (11, false)] {
        let later = now + Duration::from_secs(seconds);
        assert_eq!(found(good.as_bytes(), later), known, "{seconds}");
    }
    assert!(
        !found(good.as_bytes(), now - Duration::from_secs(1)),
        "the clock was set back"
    );
    last.note(b"short", &entry, now);
    last.note(signed(r#","jti":"1""#).as_bytes(), &entry, now);
    assert!(last.entry(good.as_bytes(), now).is_none(), "another came");
}

#[test]
fn nothing_but_the_same_bytes_is_found() {
    let verifier = verifier(10);
    let now = at(1_800_000_000);
    let good = signed("");
    let first = ask(&verifier, &good, now).unwrap();
    let (input, signature) = good.rsplit_once('.').unwrap();
    let forged = sign_as(
        Algorithm::Rs256,
        &OTHER_RSA,
        HEADER,
        &format!(r#"{{"iss":"{ISSUER}","sub":"alice","exp":{EXPIRES}}}"#),
    );
    for bad in [
        forged.clone(),
        format!("{input}."),
        format!("{input}.{}", signature.to_lowercase()),
        format!("{good}="),
        format!("{good}A"),
        format!("{}.{signature}", forged.rsplit_once('.').unwrap().1),
    ] {
        assert!(ask(&verifier, &bad, now).is_err(), "{bad}");
        assert!(ask(&verifier, &bad, now).is_err(), "the second time: {bad}");
    }
    assert_eq!(verifier.cached(), 1, "what is refused is not kept");
    let again = ask(&verifier, &good, now).unwrap();
    assert!(is_hit(&first, &again));
    assert_eq!(again.identity().unwrap().id(), "alice");
}

#[test]
fn entries_and_their_size_are_bounded() {
    let now = SystemTime::now();
    let few = verifier(10);
    for number in 0..50 {
        let mut claims = good_claims();
        claims["jti"] = number.into();
        assert!(ask(&few, &token(&claims.to_string()), now).is_ok());
    }
    assert!((1..=10).contains(&few.cached()), "{}", few.cached());

    let with_length = |length: usize| {
        let padded = |pad: usize| signed(&format!(r#","pad":"{}""#, "x".repeat(pad)));
        let least = (length - padded(0).len()) * 3 / 4;
        (least..length)
            .map(padded)
            .find(|token| token.len() >= length)
    };
    for (length, kept) in [(MAX_CACHED_BYTES, 1), (MAX_CACHED_BYTES + 1, 0)] {
        let token = with_length(length).unwrap();
        assert_eq!(token.len() > MAX_CACHED_BYTES, kept == 0);
        let verifier = verifier(10);
        assert!(ask(&verifier, &token, at(1_800_000_000)).is_ok());
        assert_eq!(verifier.cached(), kept, "{}", token.len());
    }

    let none = verifier(0);
    let first = ask(&none, &signed(""), now).unwrap();
    assert!(!is_hit(&first, &ask(&none, &signed(""), now).unwrap()));
}

/// The cache is a verifier's own: another one's rules are asked anew.
#[test]
fn other_rules_ask_anew() {
    let now = at(1_800_000_000);
    let cached = verifier(10);
    assert!(ask(&cached, &signed(""), now).is_ok());
    let mut rules = IssuerRules::new(Preset::Clerk, ISSUER);
    rules.audience = vec!["us".to_owned()];
    let stricter = Verifier::new([(Issuer::new(rules).unwrap(), one_key())]).unwrap();
    let stricter = stricter.with_cache(10).into();
    assert!(ask(&stricter, &signed(""), now).is_err());
    assert!(ask(&cached.verifier.with_cache(10).into(), &signed(""), now).is_ok());
}

#[cfg(feature = "fetch")]
mod live {
    use super::super::super::refresh::tests::server::{Answer, Server};
    use super::super::super::tests::testing::{RSA, jwks, rsa_jwk};
    use super::super::super::{KeySource, Keys, RefreshSettings};
    use super::*;

    async fn fetch(keys: &Keys) {
        let fetches = keys.status().fetches;
        keys.fetch_if_due().expect("no cool-down").await;
        assert!(keys.status().fetches > fetches);
    }

    #[tokio::test]
    async fn token_of_a_key_that_was_taken_back_is_refused_although_cached() {
        let (one, other) = (rsa_jwk("one", &RSA), rsa_jwk("one", &OTHER_RSA));
        let two = rsa_jwk("two", &OTHER_RSA);
        for (after, passes) in [
            // The same key beside a new one is verified with anew.
            (vec![one.clone(), two.clone()], true),
            (vec![two], false),
            // Another key of the same name, alone or beside it.
            (vec![other.clone()], false),
            (vec![one.clone(), other], false),
        ] {
            let server = Server::start().await;
            server.answer("/keys", Answer::Json(jwks(std::slice::from_ref(&one))));
            let settings = RefreshSettings {
                cooldown: Duration::ZERO,
                ..RefreshSettings::default()
            };
            let url = server.url("/keys").parse().unwrap();
            let keys = Keys::spawn(issuer(), KeySource::JwksUrl(url), settings);
            assert!(keys.ready().await);
            let verifier = Verifier::new([(issuer(), keys.clone())]).unwrap();
            let verifier = verifier.with_cache(10).into();
            let (token, now) = (token(&good_claims().to_string()), SystemTime::now());

            let first = ask(&verifier, &token, now).unwrap();
            fetch(&keys).await;
            let again = ask(&verifier, &token, now).unwrap();
            assert!(is_hit(&first, &again), "the keys have not changed");
            server.answer("/keys", Answer::Json(jwks(&after)));
            fetch(&keys).await;
            match ask(&verifier, &token, now) {
                Ok(anew) => assert!(passes && !is_hit(&first, &anew), "{after:?}"),
                Err(Problem::TokenInvalid(_)) => assert!(!passes, "{after:?}"),
                Err(other) => panic!("{other:?}"),
            }
            // Bad news keep the old keys, and what they have verified.
            if passes {
                let before = ask(&verifier, &token, now).unwrap();
                server.answer("/keys", Answer::Status(500));
                fetch(&keys).await;
                assert!(is_hit(&before, &ask(&verifier, &token, now).unwrap()));
            }
        }
    }
}
