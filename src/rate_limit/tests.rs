use super::*;
use crate::identity::Parts;
use serde_json::json;
use std::time::SystemTime;

fn settings(by: RateLimitBy, requests: u32, per: Duration, burst: u32) -> RateLimitSettings {
    RateLimitSettings {
        name: "limit".to_owned(),
        by,
        operations: Vec::new(),
        requests: requests.try_into().unwrap(),
        per,
        burst: burst.try_into().unwrap(),
        keys: 1000,
    }
}

/// One request a minute.
fn one(by: RateLimitBy) -> RateLimit {
    RateLimit::new(settings(by, 1, Duration::from_mins(1), 1)).unwrap()
}

fn caller(issuer: &str, id: &str, claims: Value) -> Identity {
    let mut parts = Parts::new(issuer, id, SystemTime::now());
    if let Value::Object(claims) = claims {
        parts.claims = claims.into();
    }
    Identity::new(parts)
}

fn retry_after(taken: Result<u32, Problem>) -> u64 {
    taken.unwrap_err().retry_after().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_and_what_was_taken_comes_back_one_by_one() {
    let limit = settings(RateLimitBy::Client, 10, Duration::from_mins(1), 3);
    let limit = RateLimit::new(limit).unwrap();
    let address = "192.0.2.1".parse().unwrap();
    for left in [2, 1, 0] {
        assert_eq!(limit.take_of_client(address).unwrap(), left);
    }
    // A request is back each 6 s; a refusal takes none.
    for _ in 0..3 {
        assert_eq!(retry_after(limit.take_of_client(address)), 6);
    }
    tokio::time::advance(Duration::from_millis(4500)).await;
    assert_eq!(retry_after(limit.take_of_client(address)), 2);
    tokio::time::advance(Duration::from_millis(1500)).await;
    assert_eq!(limit.take_of_client(address).unwrap(), 0);
    assert_eq!(retry_after(limit.take_of_client(address)), 6);
    assert_eq!(limit.refused(), 5);
    // However long nobody comes, no more than the burst is there.
    tokio::time::advance(Duration::from_hours(1)).await;
    for left in [2, 1, 0] {
        assert_eq!(limit.take_of_client(address).unwrap(), left);
    }
    assert_eq!(retry_after(limit.take_of_client(address)), 6);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_less_than_a_second_is_one() {
    let limit = settings(RateLimitBy::Client, 1000, Duration::from_secs(1), 1);
    let limit = RateLimit::new(limit).unwrap();
    let address = "192.0.2.1".parse().unwrap();
    limit.take_of_client(address).unwrap();
    assert_eq!(retry_after(limit.take_of_client(address)), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_are_counted_apart_as_the_limit_says() {
    let claim = RateLimitBy::Claim("org.id".to_owned());
    let org = |id: Value| json!({"org": {"id": id}});
    let (a, b) = ("https://a.example", "https://b.example");
    for (by, first, second, together) in [
        (
            RateLimitBy::Subject,
            caller(a, "x", json!({})),
            caller(a, "x", json!({})),
            true,
        ),
        (
            RateLimitBy::Subject,
            caller(a, "x", json!({})),
            caller(a, "y", json!({})),
            false,
        ),
        (
            RateLimitBy::Subject,
            caller(a, "x", json!({})),
            caller(b, "x", json!({})),
            false,
        ),
        (
            RateLimitBy::Issuer,
            caller(a, "x", json!({})),
            caller(a, "y", json!({})),
            true,
        ),
        (
            RateLimitBy::Issuer,
            caller(a, "x", json!({})),
            caller(b, "x", json!({})),
            false,
        ),
        (
            claim.clone(),
            caller(a, "x", org("1".into())),
            caller(a, "y", org("1".into())),
            true,
        ),
        (
            claim.clone(),
            caller(a, "x", org("1".into())),
            caller(a, "x", org("2".into())),
            false,
        ),
        (
            claim.clone(),
            caller(a, "x", org("1".into())),
            caller(b, "x", org("1".into())),
            false,
        ),
        (
            claim.clone(),
            caller(a, "x", org(1.into())),
            caller(a, "y", org(1.into())),
            true,
        ),
        (
            claim.clone(),
            caller(a, "x", org(1.into())),
            caller(a, "y", org("1".into())),
            false,
        ),
        // Whoever has no organisation is one of their own, and not the organisation of that name.
        (
            claim.clone(),
            caller(a, "x", json!({})),
            caller(a, "x", org(Value::Null)),
            true,
        ),
        (
            claim.clone(),
            caller(a, "x", json!({})),
            caller(a, "y", json!({})),
            false,
        ),
        (
            claim,
            caller(a, "x", json!({})),
            caller(a, "y", org("x".into())),
            false,
        ),
    ] {
        let limit = one(by.clone());
        assert!(limit.take_of_caller(&first).is_ok());
        let is_refused = limit.take_of_caller(&second).is_err();
        assert_eq!(is_refused, together, "{by:?} {first:?} {second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_a_clients_and_of_ipv6_a_network() {
    for (first, second, together) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
    ] {
        let limit = one(RateLimitBy::Client);
        assert!(limit.take_of_client(first.parse().unwrap()).is_ok());
        let is_refused = limit.take_of_client(second.parse().unwrap()).is_err();
        assert_eq!(is_refused, together, "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn made_up_keys_take_bounded_memory_and_nobody_is_refused_for_them() {
    let limit = one(RateLimitBy::Subject);
    let alice = caller("https://a.example", "alice", json!({}));
    limit.take_of_caller(&alice).unwrap();
    for number in 0..20_000 {
        let made_up = caller("https://a.example", &format!("made-up-{number}"), json!({}));
        limit.take_of_caller(&made_up).unwrap();
        // Who is still there keeps their bucket.
        if number < 500 {
            assert!(limit.take_of_caller(&alice).is_err(), "{number}");
        }
    }
    assert!(limit.keys() <= 1000, "{}", limit.keys());
    limit
        .take_of_caller(&alice)
        .expect("forgotten, and so served");
}

#[test]
fn the_policy_is_the_rate_in_whole_seconds() {
    for (requests, per, burst, want) in [
        (100, "1s", 200, "\"limit\";q=200;w=2"),
        (100, "1s", 50, "\"limit\";q=50;w=1"),
        (10, "1m", 10, "\"limit\";q=10;w=60"),
        (1000, "24h", 1, "\"limit\";q=1;w=87"),
    ] {
        let per = humantime::parse_duration(per).unwrap();
        let limit = RateLimit::new(settings(RateLimitBy::Client, requests, per, burst)).unwrap();
        assert_eq!(limit.policy(), want);
    }
}

#[test]
fn a_limit_stands_as_high_as_what_it_counts_by_is_known() {
    for (by, operations, want) in [
        (RateLimitBy::Client, &[][..], RateLimitStage::Client),
        (RateLimitBy::NewTokens, &[], RateLimitStage::Client),
        (RateLimitBy::Subject, &[], RateLimitStage::Caller),
        (RateLimitBy::Issuer, &[], RateLimitStage::Caller),
        (RateLimitBy::Client, &["start"], RateLimitStage::Operation),
        (RateLimitBy::Subject, &["start"], RateLimitStage::Operation),
    ] {
        let mut settings = settings(by, 1, Duration::from_secs(1), 1);
        settings.operations = operations.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(RateLimit::new(settings).unwrap().stage(), want);
    }
}

#[test]
fn operations_are_named_by_id_group_or_kind() {
    let catalogue = Catalogue::builtin();
    let matched = |method: &str, path| catalogue.find(&method.parse().unwrap(), path);
    let start = matched("POST", "/process-definition/key/x/start");
    let tasks = matched("GET", "/task");
    for (name, counts_start, counts_tasks) in [
        ("start", true, false),
        ("startProcessInstanceByKey", true, false),
        ("Process Definition", true, false),
        ("Task", false, true),
        ("read", false, true),
    ] {
        let mut settings = settings(RateLimitBy::Subject, 1, Duration::from_secs(1), 1);
        settings.operations = vec![name.to_owned()];
        let limit = RateLimit::new(settings).unwrap();
        assert_eq!(limit.counts(Some(&start)), Ok(counts_start), "{name}");
        assert_eq!(limit.counts(Some(&tasks)), Ok(counts_tasks), "{name}");
        assert_eq!(limit.counts(Some(&Matched::Unknown)), Ok(false), "{name}");
    }
}

/// Else it would not be clear which is meant.
#[test]
fn no_kind_is_also_an_id_or_a_group() {
    let rows = Catalogue::builtin().operations();
    let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    for row in rows {
        assert!(
            !kinds.contains(&row.id) && !kinds.contains(&row.group),
            "{row:?}"
        );
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let second = Duration::from_secs(1);
    let good = || settings(RateLimitBy::Client, 1, second, 1);
    assert!(RateLimit::new(good()).is_ok());
    for name in ["", "a b", "a\"", "ä", &"a".repeat(65)] {
        let name = name.to_owned();
        let limit = RateLimit::new(RateLimitSettings { name, ..good() });
        assert!(matches!(limit, Err(RateLimitError::Name(_))));
    }
    for (requests, per, burst) in [
        (u32::MAX, Duration::from_millis(1), 1),
        (1, Duration::ZERO, 1),
        (1, Duration::from_hours(24 * 365), 2),
        (1, Duration::MAX, u32::MAX),
    ] {
        let limit = RateLimit::new(settings(RateLimitBy::Client, requests, per, burst));
        assert!(
            matches!(limit, Err(RateLimitError::Quota { .. })),
            "{limit:?}"
        );
    }
    let operations = vec!["nonsense".to_owned()];
    let limit = RateLimit::new(RateLimitSettings {
        operations,
        ..good()
    });
    assert!(matches!(limit, Err(RateLimitError::UnknownOperation(_))));
    let limit = RateLimit::new(RateLimitSettings {
        by: RateLimitBy::NewTokens,
        operations: vec!["start".to_owned()],
        ..good()
    });
    assert!(matches!(limit, Err(RateLimitError::NewTokensOfOperations)));
}
