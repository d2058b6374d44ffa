//! Who is let in: tokens good and bad, keys there, away and changing. Whoever is refused costs the engine nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bpmgate::body::Body;
use bpmgate::config;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::{Fault, Issuer, OldKeys};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::problem::{problem, refused};
use crate::support::{AUDIENCE, Client, Gateway, Protocol, World, config, whole};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Alice's claims with these over them; `null` takes one away.
fn claims(issuer: &Issuer, over: &Value) -> Value {
    let mut claims = json!({
        "iss": issuer.url(), "sub": "alice", "aud": AUDIENCE, "azp": "frontend",
        "iat": now(), "exp": now() + 600,
    });
    for (name, value) in over.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A token of the issuer's current key, with these claims over Alice's.
pub(crate) fn token(issuer: &Issuer, over: &Value) -> String {
    let header = json!({"alg": "RS256", "kid": issuer.kid()});
    signed(issuer, &header, &claims(issuer, over))
}

fn signed(issuer: &Issuer, header: &Value, claims: &Value) -> String {
    issuer.sign(header.to_string().as_bytes(), claims.to_string().as_bytes())
}

fn encoded(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// The issuer's public key as everybody can have it: `SubjectPublicKeyInfo` in DER and in PEM.
fn public_key(issuer: &Issuer) -> (Vec<u8>, String) {
    let jwks = issuer.jwks();
    let part = |name: &str| {
        let text = jwks["keys"][0][name].as_str().unwrap();
        URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let components = PublicKeyComponents {
        n: part("n"),
        e: part("e"),
    };
    let key: PublicEncryptingKey = components.try_into().unwrap();
    let der: PublicKeyX509Der<'_> = key.as_der().unwrap();
    let der = der.as_ref().to_vec();
    let lines: Vec<String> = STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    (der, pem)
}

/// `GET /api/task` with these `Authorization` headers: status and, of a problem, its code.
async fn ask(gateway: &Gateway, authorizations: &[String]) -> (u16, String) {
    let mut request = Request::get("/api/task");
    for authorization in authorizations {
        request = request.header(AUTHORIZATION, authorization);
    }
    let client = Client::connect(gateway.address, Protocol::Http1).await;
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    let answer = whole(answer.unwrap()).await.unwrap();
    if answer.status() == StatusCode::OK {
        return (200, String::new());
    }
    refused(&answer)
}

pub(crate) async fn ask_with(gateway: &Gateway, token: &str) -> (u16, String) {
    ask(gateway, &[format!("Bearer {token}")]).await
}

pub(crate) fn ok() -> (u16, String) {
    (200, String::new())
}

pub(crate) fn invalid() -> (u16, String) {
    (401, "token_invalid".to_owned())
}

#[tokio::test]
async fn requests_without_one_bearer_token_are_refused() {
    let world = World::start().await;
    let good = world.token.trim_start_matches("Bearer ");
    let missing = (401, "token_missing".to_owned());
    let two = (400, "two_credentials".to_owned());
    for (authorizations, want) in [
        (vec![], &missing),
        (vec!["Basic ZGVtbzpkZW1v".to_owned()], &missing),
        (vec!["Bearer".to_owned()], &invalid()),
        (vec![format!("Token {good}")], &missing),
        (vec![good.to_owned()], &missing),
        (vec![world.token.clone(), world.token.clone()], &two),
        (
            vec![world.token.clone(), "Basic ZGVtbzpkZW1v".to_owned()],
            &two,
        ),
        (
            vec![format!("{}, {}", world.token, world.token)],
            &invalid(),
        ),
        (vec!["Bearer x".to_owned()], &invalid()),
    ] {
        let got = ask(&world.gateway, &authorizations).await;
        assert_eq!(got, *want, "{authorizations:?}");
    }
    // Nowhere else is a token looked for.
    let by_query = Request::get(format!("/api/task?access_token={good}"))
        .header(
            "cookie",
            format!("access_token={good}; Authorization={good}"),
        )
        .header("x-authorization", &world.token)
        .body(Body::empty());
    assert_eq!(refused(&world.send(by_query.unwrap()).await), missing);
    assert_eq!(world.engine.connections(), 0);
    // The scheme is compared without case (RFC 9110 §11.1).
    assert_eq!(ask(&world.gateway, &[format!("bEARER {good}")]).await, ok());
}

#[tokio::test]
async fn challenges_say_no_more_than_rfc_6750_asks() {
    let world = World::start().await;
    let expired = token(&world.issuer, &json!({"exp": now() - 3600}));
    for (authorization, challenge) in [
        (None, r#"Bearer realm="bpmgate""#),
        (Some("Basic eDp5".to_owned()), r#"Bearer realm="bpmgate""#),
        (
            Some("Bearer x.y.z".to_owned()),
            r#"Bearer realm="bpmgate", error="invalid_token", error_description="it is not a well-formed signed JWT""#,
        ),
        (
            Some(format!("Bearer {expired}")),
            r#"Bearer realm="bpmgate", error="invalid_token", error_description="the token has expired""#,
        ),
    ] {
        let mut request = Request::get("/engine-rest/task");
        if let Some(authorization) = &authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        problem(&answer);
        let challenges: Vec<_> = answer.headers().get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, [challenge], "{authorization:?}");
    }
    assert_eq!(world.engine.connections(), 0);
}

#[tokio::test]
async fn tokens_are_taken_for_their_time_issuer_audience_and_party_alone() {
    let world = World::with(|config| {
        config.issuers[0].leeway = Duration::from_mins(1);
        config.issuers[0].authorized_parties = vec!["frontend".to_owned()];
    })
    .await;
    let slash = format!("{}/", world.issuer.url());
    let expired = (401, "token_expired".to_owned());
    // Inside and outside a leeway of 60 s, by as much as a slow machine may need.
    let rows = [
        (json!({"exp": now() - 61}), &expired),
        (json!({"exp": null}), &invalid()),
        (json!({"exp": "tomorrow"}), &invalid()),
        (json!({"nbf": now() + 90}), &invalid()),
        (json!({"iat": now() + 90}), &invalid()),
        (json!({"iss": "https://elsewhere.example"}), &invalid()),
        (json!({"iss": slash}), &invalid()),
        (json!({"iss": null}), &invalid()),
        (json!({"aud": "another"}), &invalid()),
        (json!({"aud": ["another", "bpmgate2"]}), &invalid()),
        (json!({"aud": null}), &invalid()),
        (json!({"azp": "another"}), &invalid()),
        (json!({"azp": null}), &invalid()),
        (json!({"azp": ["frontend"]}), &invalid()),
        (json!({"sub": null}), &invalid()),
        (json!({"sub": ""}), &invalid()),
        (json!({"sub": 7}), &invalid()),
        (json!({"sub": "a\nb"}), &invalid()),
        (json!({"sub": "a".repeat(256)}), &invalid()),
    ];
    for (over, want) in rows {
        let got = ask_with(&world.gateway, &token(&world.issuer, &over)).await;
        assert_eq!(got, *want, "{over}");
    }
    assert_eq!(world.engine.connections(), 0);
    for over in [
        json!({}),
        json!({"exp": now() - 20}),
        json!({"nbf": now() + 50, "iat": now() + 50}),
        json!({"aud": ["another", AUDIENCE]}),
        json!({"sub": "a".repeat(255)}),
    ] {
        let got = ask_with(&world.gateway, &token(&world.issuer, &over)).await;
        assert_eq!(got, ok(), "{over}");
    }
}

#[tokio::test]
async fn forged_signatures_are_refused() {
    let world = World::start().await;
    let issuer = &world.issuer;
    let stranger = Issuer::start().await.unwrap();
    let kid = issuer.kid();
    let mine = claims(issuer, &json!({}));
    let good = token(issuer, &json!({}));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("{good}");
    };
    let mut tokens = vec![
        (
            "of a stranger's key under our key's id",
            signed(&stranger, &json!({"alg": "RS256", "kid": kid}), &mine),
        ),
        (
            "of a stranger's key without an id",
            signed(&stranger, &json!({"alg": "RS256"}), &mine),
        ),
        (
            "that names itself another's algorithm",
            signed(issuer, &json!({"alg": "PS256", "kid": kid}), &mine),
        ),
        (
            "with an algorithm's name in lower case",
            signed(issuer, &json!({"alg": "rs256", "kid": kid}), &mine),
        ),
        (
            "with a critical extension",
            signed(
                issuer,
                &json!({"alg": "RS256", "kid": kid, "crit": ["b64"], "b64": true}),
                &mine,
            ),
        ),
        (
            "of another type",
            signed(
                issuer,
                &json!({"alg": "RS256", "kid": kid, "typ": "logout+jwt"}),
                &mine,
            ),
        ),
        ("of another payload", {
            let eve = URL_SAFE_NO_PAD.encode(claims(issuer, &json!({"sub": "eve"})).to_string());
            format!("{header}.{eve}.{signature}")
        }),
        ("of another signature", {
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[10] ^= 1;
            format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(bytes))
        }),
        ("without a signature", format!("{header}.{payload}.")),
        ("with padding", format!("{good}==")),
        ("of two parts", format!("{header}.{payload}")),
        ("with its own key", {
            let jwk = &stranger.jwks()["keys"][0];
            signed(
                &stranger,
                &json!({"alg": "RS256", "jwk": jwk, "jku": stranger.jwks_url()}),
                &mine,
            )
        }),
        ("with a claim twice", {
            let twice = mine.to_string().replacen('{', r#"{"sub":"eve","#, 1);
            let header = json!({"alg": "RS256", "kid": kid}).to_string();
            issuer.sign(header.as_bytes(), twice.as_bytes())
        }),
    ];
    for name in ["none", "None", "nOnE", ""] {
        let unsigned = encoded(&json!({"alg": name, "kid": kid}), &mine);
        tokens.push(("that says it is not signed", format!("{unsigned}.")));
        tokens.push((
            "that says it is not signed",
            format!("{unsigned}.{signature}"),
        ));
    }
    // RFC 8725 §2.1: whoever takes `alg` from the token lets everybody sign with the public key.
    let (der, pem) = public_key(issuer);
    let modulus = issuer.jwks()["keys"][0]["n"].as_str().unwrap().to_owned();
    for secret in [
        pem.as_bytes().to_vec(),
        pem.trim_end().as_bytes().to_vec(),
        der,
        URL_SAFE_NO_PAD.decode(&modulus).unwrap(),
        modulus.into_bytes(),
        Vec::new(),
    ] {
        let input = encoded(&json!({"alg": "HS256", "kid": kid}), &mine);
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &secret),
            input.as_bytes(),
        );
        tokens.push((
            "signed with our public key",
            format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag)),
        ));
    }
    for (what, token) in &tokens {
        assert_eq!(
            ask_with(&world.gateway, token).await,
            invalid(),
            "a token {what}: {token}"
        );
    }
    assert_eq!(world.engine.connections(), 0);
    assert_eq!(stranger.fetches(), 0, "a token never says where keys are");
    assert_eq!(ask_with(&world.gateway, &good).await, ok());
}

#[tokio::test]
async fn unknown_key_ids_cost_no_fetch_within_the_cooldown_and_one_after_it() {
    let ghost = |issuer: &Issuer, number: usize| {
        let header = json!({"alg": "RS256", "kid": format!("ghost-{number}")});
        signed(issuer, &header, &claims(issuer, &json!({})))
    };
    let world = World::with(|config| {
        config.issuers[0].jwks_cooldown = Duration::from_hours(1);
    })
    .await;
    assert_eq!(
        ask_with(&world.gateway, &token(&world.issuer, &json!({}))).await,
        ok()
    );
    world.engine.forget_requests();
    for number in 0..20 {
        let got = ask_with(&world.gateway, &ghost(&world.issuer, number)).await;
        assert_eq!(got, invalid());
    }
    assert_eq!(
        (world.issuer.fetches(), world.engine.request_count()),
        (1, 0)
    );

    let world = World::with(|config| {
        config.issuers[0].jwks_cooldown = Duration::from_millis(1);
        config.issuers[0].jwks_timeout = Duration::from_mins(1);
    })
    .await;
    assert_eq!(
        ask_with(&world.gateway, &token(&world.issuer, &json!({}))).await,
        ok()
    );
    world.engine.forget_requests();
    // Slow enough that all of them come while it runs.
    world
        .issuer
        .set_fault(Fault::Slow(Duration::from_millis(10)));
    let crowd = (0..20).map(|number| {
        let token = ghost(&world.issuer, number);
        let gateway = &world.gateway;
        async move { ask_with(gateway, &token).await }
    });
    for got in futures_util::future::join_all(crowd).await {
        assert_eq!(got, invalid());
    }
    assert_eq!(
        (world.issuer.fetches(), world.engine.request_count()),
        (2, 0)
    );
}

#[tokio::test]
async fn keys_come_from_a_file_too_as_jwks_or_pem() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    for content in [issuer.jwks().to_string(), public_key(&issuer).1] {
        std::fs::write(&file, &content).unwrap();
        let mut config = config(&issuer, &engine.url());
        config.issuers[0].jwks_url = None;
        config.issuers[0].public_key_file.clone_from(&file);
        let gateway = Gateway::start(&config).await;
        assert_eq!(
            ask_with(&gateway, &token(&issuer, &json!({}))).await,
            ok(),
            "{content}"
        );
        let stranger = Issuer::start().await.unwrap();
        let forged = signed(
            &stranger,
            &json!({"alg": "RS256"}),
            &claims(&issuer, &json!({})),
        );
        assert_eq!(ask_with(&gateway, &forged).await, invalid());
    }
    assert_eq!((issuer.fetches(), issuer.discoveries()), (0, 0));
}

#[tokio::test]
async fn keys_are_found_by_discovery() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let mut config = config(&issuer, &engine.url());
    config.issuers[0].jwks_url = None;
    let gateway = Gateway::start(&config).await;
    assert_eq!(ask_with(&gateway, &token(&issuer, &json!({}))).await, ok());
    assert_eq!((issuer.fetches(), issuer.discoveries()), (1, 1));
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let attacker = Issuer::start().await.unwrap();
    issuer.set_fault(Fault::Redirect(attacker.jwks_url()));
    let gateway = Gateway::start(&config(&issuer, &engine.url())).await;
    let header = json!({"alg": "RS256", "kid": attacker.kid()});
    let forged = signed(&attacker, &header, &claims(&issuer, &json!({})));
    let unavailable = (503, "keys_unavailable".to_owned());
    assert_eq!(ask_with(&gateway, &forged).await, unavailable);
    assert_eq!((issuer.fetches(), attacker.connections()), (1, 0));
    assert_eq!(engine.connections(), 0);
}

#[tokio::test]
async fn one_issuer_cannot_speak_for_another() {
    let engine = Engine::start().await.unwrap();
    let (a, b) = (
        Issuer::start().await.unwrap(),
        Issuer::start().await.unwrap(),
    );
    let mut config = config(&a, &engine.url());
    config.issuers[0].id_prefix = "a:".to_owned();
    config.issuers.push(config::Issuer {
        issuer: b.url().parse().unwrap(),
        jwks_url: Some(b.jwks_url().parse().unwrap()),
        id_prefix: "b:".to_owned(),
        ..config.issuers[0].clone()
    });
    let gateway = Gateway::start(&config).await;
    for header in [
        json!({"alg": "RS256", "kid": b.kid()}),
        json!({"alg": "RS256", "kid": a.kid()}),
        json!({"alg": "RS256"}),
    ] {
        let forged = signed(&b, &header, &claims(&a, &json!({})));
        assert_eq!(ask_with(&gateway, &forged).await, invalid(), "{header}");
    }
    assert_eq!(engine.connections(), 0);

    for (issuer, id) in [(&a, "a:alice"), (&b, "b:alice")] {
        let request = Request::post("/api/process-definition/key/approval/start")
            .header(
                AUTHORIZATION,
                format!("Bearer {}", token(issuer, &json!({}))),
            )
            .body(Body::empty())
            .unwrap();
        let client = Client::connect(gateway.address, Protocol::Http1).await;
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let seen = engine.requests().pop().unwrap();
        assert_eq!(seen.method, Method::POST);
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["variables"]["initiator"]["value"], id);
    }
}

/// An issuer with a shared secret: nothing is fetched, so nobody needs to answer.
#[tokio::test]
async fn tokens_of_a_shared_secret_need_no_keys_and_take_no_public_ones() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let world = World::with(|config| {
        config.issuers[0].algorithms = vec![config::Algorithm::Hs256];
        config.issuers[0].hs_secret = SECRET.to_owned().into();
    })
    .await;
    let issuer = &world.issuer;
    let with = |secret: &str, alg: &str, over: &Value| {
        let input = encoded(&json!({"alg": alg, "kid": "any"}), &claims(issuer, over));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let good = with(SECRET, "HS256", &json!({}));
    let (_, pem) = public_key(issuer);
    for bad in [
        with("0123456789abcdef0123456789abcdeg", "HS256", &json!({})),
        with(&pem, "HS256", &json!({})),
        with("", "HS256", &json!({})),
        with(SECRET, "HS512", &json!({})),
        with(SECRET, "RS256", &json!({})),
        with(SECRET, "none", &json!({})),
        with(
            SECRET,
            "HS256",
            &json!({"iss": "https://elsewhere.example"}),
        ),
        good.rsplit_once('.').unwrap().0.to_owned() + ".",
        // What the issuer signs with its own key is not asked for.
        token(issuer, &json!({})),
    ] {
        assert_eq!(ask_with(&world.gateway, &bad).await, invalid(), "{bad}");
    }
    assert_eq!(world.engine.connections(), 0);
    assert_eq!(ask_with(&world.gateway, &good).await, ok());
    assert_eq!(issuer.fetches(), 0);
}

/// The same issuer, key and audience, but for something else than calling a service.
#[tokio::test]
async fn id_and_refresh_tokens_are_no_access_tokens() {
    let world = World::with(|config| config.issuers[0].preset = config::Preset::Keycloak).await;
    for over in [
        json!({"typ": "ID", "nonce": "n"}),
        json!({"typ": "Refresh"}),
        json!({"typ": "Offline"}),
        json!({"typ": "Logout"}),
        json!({"typ": "DPoP", "cnf": {"jkt": "x"}}),
        json!({"typ": "Bearer", "cnf": {"x5t#S256": "x"}}),
        json!({}),
    ] {
        let got = ask_with(&world.gateway, &token(&world.issuer, &over)).await;
        assert_eq!(got, invalid(), "{over}");
    }
    assert_eq!(world.engine.connections(), 0);
    let access = token(&world.issuer, &json!({"typ": "Bearer"}));
    assert_eq!(ask_with(&world.gateway, &access).await, ok());
}

/// A cached token ends with its time, and with its key.
#[tokio::test]
async fn token_used_before_is_refused_once_its_key_is_gone() {
    let world = World::with(|config| {
        config.issuers[0].jwks_cooldown = Duration::from_millis(1);
        config.issuers[0].jwks_refresh = Duration::from_millis(50);
    })
    .await;
    let old = token(&world.issuer, &json!({}));
    for _ in 0..3 {
        assert_eq!(ask_with(&world.gateway, &old).await, ok());
    }
    world.issuer.rotate(OldKeys::Gone).unwrap();
    // Within the next refresh, which a request does not wait for.
    let deadline = tokio::time::Instant::now() + crate::support::DEADLINE;
    while ask_with(&world.gateway, &old).await != invalid() {
        assert!(tokio::time::Instant::now() < deadline, "still accepted");
    }
    let new = token(&world.issuer, &json!({}));
    assert_eq!(ask_with(&world.gateway, &new).await, ok());
}
