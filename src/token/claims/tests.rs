use serde_json::json;

use super::*;

fn read_with(claims: &Value, paths: &ClaimPaths, prefix: &str) -> Result<Parts, ClaimError> {
    let claims = Arc::new(claims.as_object().unwrap().clone());
    let issuer = "https://issuer.example".into();
    read(&claims, paths, &issuer, prefix, SystemTime::UNIX_EPOCH)
}

fn parts(claims: &Value) -> Parts {
    read_with(claims, &ClaimPaths::default(), "").unwrap()
}

fn paths(list: &[&str]) -> Vec<String> {
    list.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn id_is_refused_where_it_cannot_be_taken_as_it_is() {
    let long = "x".repeat(256);
    let wide = "é".repeat(128);
    for (claims, expected) in [
        (json!({}), BadId::Missing),
        (json!({"sub": ""}), BadId::Empty),
        (json!({"sub": null}), BadId::NoString),
        (json!({"sub": 7}), BadId::NoString),
        (json!({"sub": ["alice"]}), BadId::NoString),
        (json!({"sub": {"id": "alice"}}), BadId::NoString),
        (json!({ "sub": long }), BadId::TooLong(256)),
        (json!({ "sub": wide }), BadId::TooLong(256)),
        (json!({"sub": "ali\u{0}ce"}), BadId::Control),
        (json!({"sub": "alice\n"}), BadId::Control),
        (json!({"sub": "alice\u{7f}"}), BadId::Control),
        (json!({"sub": "alice\u{85}"}), BadId::Control),
    ] {
        let error = read_with(&claims, &ClaimPaths::default(), "").unwrap_err();
        assert_eq!(error, ClaimError::Id(expected), "{claims}");
    }
    for id in [
        "alice",
        " alice ",
        "auth0|507f1f77",
        "Ünïcode",
        &"x".repeat(255),
    ] {
        assert_eq!(parts(&json!({ "sub": id })).id, id);
    }
}

#[test]
fn prefix_counts_into_the_length_of_the_id() {
    let claims = |length| json!({"sub": "x".repeat(length)});
    let with = |length| read_with(&claims(length), &ClaimPaths::default(), "corp:");
    assert_eq!(with(251).unwrap_err(), ClaimError::Id(BadId::TooLong(256)));
    assert_eq!(with(250).unwrap().id.len(), 255);
    assert!(with(3).unwrap().id.starts_with("corp:xxx"));
    let empty = read_with(&json!({"sub": ""}), &ClaimPaths::default(), "corp:");
    assert_eq!(empty.unwrap_err(), ClaimError::Id(BadId::Empty));
}

#[test]
fn first_id_claim_present_wins_even_if_it_is_bad() {
    let both = ClaimPaths {
        id: paths(&["oid", "sub"]),
        ..ClaimPaths::default()
    };
    let id = |claims| read_with(&claims, &both, "").map(|parts| parts.id);
    assert_eq!(id(json!({"sub": "s", "oid": "o"})).unwrap(), "o");
    assert_eq!(id(json!({"sub": "s"})).unwrap(), "s");
    assert_eq!(
        id(json!({"sub": "s", "oid": ""})),
        Err(ClaimError::Id(BadId::Empty))
    );
}

#[test]
fn tenant_that_is_there_is_as_strict_as_the_id() {
    let tenants = ClaimPaths {
        tenant: paths(&["org.id"]),
        ..ClaimPaths::default()
    };
    let tenant = |claims| read_with(&claims, &tenants, "corp:").map(|parts| parts.tenant);
    assert_eq!(
        tenant(json!({"sub": "a", "org": {"id": "t\n"}})),
        Err(ClaimError::Tenant(BadId::Control))
    );
    assert_eq!(tenant(json!({"sub": "a"})), Ok(None));
    let found = tenant(json!({"sub": "a", "org": {"id": "t1"}}));
    assert_eq!(found, Ok(Some("t1".to_owned())), "without the id's prefix");
}

#[test]
fn whole_name_is_taken_before_dots() {
    let claims = json!({
        "a.b": "whole",
        "a": {"b": "inside", "c": {"d": "deep"}, "x.y": "not by dots"},
        "https://example.com/roles": "url",
    });
    let claims = claims.as_object().unwrap();
    for (path, expected) in [
        ("a.b", Some("whole")),
        ("a.c.d", Some("deep")),
        ("https://example.com/roles", Some("url")),
        ("a.c.d.e", None),
        ("a.x.y", None),
        ("a.", None),
        (".a", None),
        ("", None),
        ("b", None),
    ] {
        assert_eq!(at(claims, path).and_then(Value::as_str), expected, "{path}");
    }
}

#[test]
fn names_fall_back_as_the_contract_says() {
    for (claims, name, first, last) in [
        (
            json!({"name": "Alice A.", "given_name": "Al", "family_name": "A"}),
            Some("Alice A."),
            Some("Al"),
            Some("A"),
        ),
        (
            json!({"given_name": "Al", "family_name": "A"}),
            Some("Al A"),
            Some("Al"),
            Some("A"),
        ),
        (
            json!({"name": "", "first_name": "Al", "last_name": null}),
            Some("Al"),
            Some("Al"),
            None,
        ),
        (
            json!({"name": null, "family_name": "A"}),
            Some("A"),
            None,
            Some("A"),
        ),
        (json!({"name": 7}), None, None, None),
        (json!({}), None, None, None),
    ] {
        let mut claims = claims;
        claims["sub"] = "id".into();
        let parts = parts(&claims);
        let found = (
            parts.name.as_deref(),
            parts.first_name.as_deref(),
            parts.last_name.as_deref(),
        );
        assert_eq!(found, (name, first, last), "{claims}");
    }
}

#[test]
fn texts_are_cleaned_and_cut_to_4000_characters() {
    let cut = parts(&json!({
        "sub": "id",
        "email": "a\r\nX: y\u{0}@example.com",
        "name": "ü".repeat(4001),
    }));
    assert_eq!(cut.email.as_deref(), Some("aX: y@example.com"));
    assert_eq!(cut.name.unwrap(), "ü".repeat(4000));
    let kept = parts(&json!({"sub": "id", "name": "ü".repeat(4000), "email": "\n\t"}));
    assert_eq!(kept.name.unwrap().chars().count(), 4000);
    assert_eq!(kept.email, None, "nothing is left of it");
    let joined = parts(&json!({
        "sub": "id",
        "given_name": "a".repeat(4000),
        "family_name": "b",
    }));
    assert_eq!(joined.name.unwrap().len(), 4000);
}

#[test]
fn roles_of_all_paths_count_once_each() {
    let roles = |claims: Value| {
        let mut claims = claims;
        claims["sub"] = "id".into();
        parts(&claims).roles
    };
    for (claims, expected) in [
        (json!({}), &[][..]),
        (json!({"roles": "admin user"}), &["admin user"]),
        (
            json!({"roles": ["a", "b", "a", 1, null, ["c"], ""]}),
            &["a", "b"],
        ),
        (
            json!({"roles": ["a"], "realm_access": {"roles": ["b", "a"]}}),
            &["a", "b"],
        ),
        (json!({"roles": true}), &[]),
        // Only ZITADEL's form of an object names roles.
        (json!({"roles": {"admin": false, "x": "y"}}), &[]),
        (
            json!({"roles": {"admin": {"1": "example.com"}}}),
            &["admin"],
        ),
    ] {
        assert_eq!(roles(claims.clone()), expected, "{claims}");
    }
}

#[test]
fn claims_go_along_whole() {
    let claims = json!({"sub": "id", "org": {"role": "x"}});
    assert_eq!(Value::Object((*parts(&claims).claims).clone()), claims);
}
