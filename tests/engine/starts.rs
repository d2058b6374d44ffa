//! Whoever starts a process through the gateway is its initiator, whatever the request claims.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::support::gateway::Options;
use crate::support::issuer::{ADA, MALLORY};
use crate::support::{DEADLINE, Engine, Gateway, Issuer, Person, model};

#[tokio::test]
async fn each_of_the_six_starts_under_each_prefix_is_the_callers() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["six-starts"]), None).await;
    engine
        .deploy(&model::waiting(["six-starts-tenant"]), Some("acme"))
        .await;
    let id = engine.definition("six-starts").await;

    for prefix in [
        "/api",
        "/engine-rest",
        "/api/engine/default",
        "/engine-rest/engine/default",
    ] {
        for definition in [
            "key/six-starts",
            id.as_str(),
            "key/six-starts-tenant/tenant-id/acme",
        ] {
            for start in ["start", "submit-form"] {
                let path = format!("{prefix}/process-definition/{definition}/{start}");
                let answer = gateway
                    .post(&path, &issuer.bearer(ADA), forged().to_string())
                    .await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                let instance = answer.json()["id"].as_str().unwrap().to_owned();
                assert_eq!(initiator(engine, &instance).await, of(ADA), "{path}");

                let variables = engine.variables(&instance).await;
                let color = ("color".to_owned(), "String".to_owned(), json!("blue"));
                assert!(variables.contains(&color), "{path}: {variables:?}");
            }
        }
    }
}

#[tokio::test]
async fn start_instructions_cannot_overwrite_the_initiator() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let transparent = Options {
        profile: "transparent",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, transparent).await;
    engine.deploy(&model::waiting(["instructions"]), None).await;

    let forged = forged()["variables"].clone();
    let local: Value = {
        let mut local = forged.clone();
        for variable in local.as_object_mut().unwrap().values_mut() {
            variable["local"] = json!(true);
        }
        local
    };
    for variables in [&forged, &local] {
        let body = json!({"startInstructions": [
            {"type": "startBeforeActivity", "activityId": model::task("instructions"), "variables": variables},
            {"type": "startBeforeActivity", "activityId": model::task("instructions"), "variables": variables},
        ]});
        let path = "/api/process-definition/key/instructions/start";
        let answer = gateway
            .post(path, &issuer.bearer(ADA), body.to_string())
            .await
            .expect(200);
        let instance = answer.json()["id"].as_str().unwrap().to_owned();
        for (name, _, value) in initiator(engine, &instance).await {
            let own = of(ADA).into_iter().find(|own| own.0 == name).unwrap();
            assert_eq!(value, own.2, "{name} with {variables}");
        }
        let holder = engine
            .get(&format!("/process-instance/{instance}/variables/initiator"))
            .await;
        assert_eq!(holder.expect(200).json()["value"], ADA.id, "{variables}");
    }
}

#[tokio::test]
async fn a_start_without_a_body_is_the_callers() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["no-body"]), None).await;
    let bearer = issuer.bearer(ADA);

    for start in ["start", "submit-form"] {
        let path = format!("/api/process-definition/key/no-body/{start}");
        let bare = crate::support::http::send(gateway.bare(Method::POST, &path, &bearer)).await;
        let empty = gateway.post(&path, &bearer, "").await;
        for answer in [bare, empty] {
            let instance = answer.expect(200).json()["id"].as_str().unwrap().to_owned();
            assert_eq!(initiator(engine, &instance).await, of(ADA), "{path}");
        }
    }
}

#[tokio::test]
async fn an_initiator_without_email_and_name_has_them_empty_and_from_the_id() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine
        .deploy(&model::waiting(["bare-identity"]), None)
        .await;

    let bearer = issuer.bearer_with(ADA, &json!({"email": null, "name": null}));
    let path = "/api/process-definition/key/bare-identity/start";
    let answer = gateway
        .post(path, &bearer, forged().to_string())
        .await
        .expect(200);
    let instance = answer.json()["id"].as_str().unwrap().to_owned();
    let nobody = Person {
        id: ADA.id,
        email: "",
        name: ADA.id,
    };
    assert_eq!(initiator(engine, &instance).await, of(nobody));
}

/// The engine is asked what it holds after a start through the gateway and after the same bytes
/// sent to it directly: numbers that a rewriter would round or widen, text that it would escape.
#[tokio::test]
async fn the_callers_other_values_reach_the_engine_as_they_were() {
    const BODY: &str = r#"{ "variables" : {
        "aboveF64": {"value": 9007199254740993, "type": "Long"},
        "beyond64": {"value": 123456789012345678901234567890},
        "exponent": {"value":1E3}, "fraction": {"value": 0.1000000000000000055511151231257827},
        "huge": {"value": 1e400}, "integer": {"value": -0}, "long": {"value": 3000000000},
        "maximum": {"value": 9223372036854775807, "type": "Long"},
        "text": {"value": "12345678901234567890.123456789", "type": "String"},
        "unicode é 名 🧮": {"value": "é \u00e9 e\u0301 名前 🧮 \ud83e\uddee \u2028 \u0000 \/ \" \\"},
        "nothing": {}, "null": {"value": null, "type": "Null"},
        "date": {"value": "2026-11-24T10:20:30.000+0000", "type": "Date"},
        "bytes": {"value": "AAECAwQ=", "type": "Bytes"},
        "list": {"value": [1, 2.50, "x", {"a": 1e2}]},
        "file": {"value": "aGVsbG8=", "type": "File", "valueInfo": {"filename": "h.txt", "mimeType": "text/plain"}}
    }, "businessKey" : "Bestellung-é-\u540d" , "unknown member": [ 1.0, 1.00 ] }"#;

    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["values"]), None).await;

    let path = "/process-definition/key/values/start";
    let through = gateway
        .post(&format!("/api{path}"), &issuer.bearer(ADA), BODY)
        .await;
    let through = through.expect(200).json();
    let direct = engine.post(path, BODY).await.expect(200).json();
    assert_eq!(through["businessKey"], "Bestellung-é-名");
    assert_eq!(through["businessKey"], direct["businessKey"]);

    let mut held = engine.variables(through["id"].as_str().unwrap()).await;
    let (own, held_directly): (Vec<_>, _) = (
        held.extract_if(.., |variable| variable.0.starts_with("initiator"))
            .collect(),
        engine.variables(direct["id"].as_str().unwrap()).await,
    );
    assert_eq!(own, of(ADA));
    assert_eq!(held_directly.len(), 16, "{held_directly:?}");
    assert_eq!(held, held_directly);
}

#[tokio::test]
async fn a_token_that_is_not_good_starts_nothing() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let stranger = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["bad-token"]), None).await;

    let altered = |change: fn(&mut Vec<&str>)| {
        let bearer = issuer.bearer(ADA);
        let mut segments = bearer.split('.').collect();
        change(&mut segments);
        segments.join(".")
    };
    let impostor = stranger.bearer_with(ADA, &json!({"iss": issuer.name()}));
    let rows: &[(&str, String, &str)] = &[
        ("none", String::new(), "token_missing"),
        ("not a token", "Bearer x".to_owned(), "token_invalid"),
        (
            "the engine's own credentials",
            Engine::authorization(),
            "token_missing",
        ),
        (
            "the right issuer's name, another's key",
            impostor,
            "token_invalid",
        ),
        ("another issuer", stranger.bearer(ADA), "token_invalid"),
        (
            "no signature",
            altered(|segments| segments[2] = ""),
            "token_invalid",
        ),
        (
            "alg none",
            altered(|segments| segments[0] = "Bearer eyJhbGciOiJub25lIn0"),
            "token_invalid",
        ),
        (
            "expired",
            issuer.bearer_with(ADA, &json!({"exp": 1_700_000_000})),
            "token_expired",
        ),
        (
            "not yet",
            issuer.bearer_with(ADA, &json!({"nbf": 4_000_000_000_u64})),
            "token_invalid",
        ),
        (
            "for others",
            issuer.bearer_with(ADA, &json!({"aud": "others"})),
            "token_invalid",
        ),
        (
            "for nobody",
            issuer.bearer_with(ADA, &json!({"aud": null})),
            "token_invalid",
        ),
        (
            "of nobody",
            issuer.bearer_with(ADA, &json!({"sub": null})),
            "token_invalid",
        ),
        (
            "of the empty one",
            issuer.bearer_with(ADA, &json!({"sub": ""})),
            "token_invalid",
        ),
        (
            "for ever",
            issuer.bearer_with(ADA, &json!({"exp": null})),
            "token_invalid",
        ),
    ];
    for (row, bearer, code) in rows {
        let path = "/api/process-definition/key/bad-token/start";
        let answer = gateway.post(path, bearer, forged().to_string()).await;
        assert_eq!(answer.status, 401, "{row}: {answer:?}");
        assert_eq!(answer.json()["code"], *code, "{row}: {answer:?}");
        let challenge = challenge(&answer.headers);
        assert!(challenge.starts_with("Bearer"), "{row}: {answer:?}");
        assert_eq!(
            challenge.contains(r#"error="invalid_token""#),
            *code != "token_missing",
            "{row}: {answer:?}"
        );
    }
    assert_eq!(engine.instances("bad-token").await, Vec::<String>::new());
    assert!(
        !gateway.log().contains("eyJ"),
        "a token is in the log:\n{}",
        gateway.log()
    );
}

/// The account is one of this test's own: a wrong password locks it for seconds, and `demo` is
/// what the other tests live on.
#[tokio::test]
async fn an_engine_that_refuses_the_gateways_password_is_502_without_its_challenge() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    engine.deploy(&model::waiting(["bad-password"]), None).await;
    let account = json!({
        "profile": {"id": "gatekeeper", "firstName": "", "lastName": "", "email": ""},
        "credentials": {"password": "the right one"},
    });
    engine
        .post("/user/create", account.to_string())
        .await
        .expect(204);

    let path = "/api/process-definition/key/bad-password/start";
    for (password, status) in [("the right one", 200), ("a wrong one", 502)] {
        let options = Options {
            credentials: ("gatekeeper", password),
            ..Options::default()
        };
        let gateway = Gateway::start(engine, &issuer, options).await;
        let answer = gateway
            .post(path, &issuer.bearer(ADA), forged().to_string())
            .await;
        let answer = answer.expect(status);
        assert_eq!(challenge(&answer.headers), "");
        if status == 502 {
            assert_eq!(answer.json()["code"], "engine_rejected_credentials");
        }
        assert!(!gateway.log().contains(password), "{}", gateway.log());
    }
    assert_eq!(engine.instances("bad-password").await.len(), 1);
}

#[tokio::test]
async fn a_key_that_the_issuer_takes_into_use_is_fetched_and_the_old_one_is_over() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    let gateway = Gateway::start(engine, &issuer, Options::default()).await;
    engine.deploy(&model::waiting(["rotation"]), None).await;
    let path = "/api/process-definition/key/rotation/start";

    let old = issuer.bearer(ADA);
    gateway.post(path, &old, "{}").await.expect(200);
    let fetched = issuer.fetches();
    issuer.rotate("second");

    // Unknown to the gateway for no longer than its `jwks_cooldown`.
    let deadline = Instant::now() + DEADLINE;
    while gateway.post(path, &issuer.bearer(ADA), "{}").await.status != 200 {
        assert!(Instant::now() < deadline, "{}", gateway.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(issuer.fetches() > fetched);
    let answer = gateway.post(path, &old, "{}").await.expect(401);
    assert_eq!(answer.json()["code"], "token_invalid");
    assert_eq!(engine.instances("rotation").await.len(), 2);
}

/// A body that claims another to be the initiator.
fn forged() -> Value {
    json!({"variables": {
        "initiator": {"value": MALLORY.id, "type": "String"},
        "initiatorEmail": {"value": MALLORY.email, "type": "String"},
        "color": {"value": "blue", "type": "String"},
        "initiatorName": {"value": MALLORY.name, "type": "String"},
    }})
}

/// What the engine holds about the initiator of an instance, in whichever scope.
pub(crate) async fn initiator(engine: &Engine, instance: &str) -> Vec<(String, String, Value)> {
    let mut held = engine.variables(instance).await;
    held.retain(|(name, ..)| name.starts_with("initiator"));
    held
}

/// What the engine should hold when this person started the instance.
pub(crate) fn of(person: Person) -> Vec<(String, String, Value)> {
    let variable = |name: &str, value: &str| (name.to_owned(), "String".to_owned(), json!(value));
    vec![
        variable("initiator", person.id),
        variable("initiatorEmail", person.email),
        variable("initiatorName", person.name),
    ]
}

fn challenge(headers: &HeaderMap) -> String {
    let challenge = headers.get("www-authenticate");
    challenge
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}
