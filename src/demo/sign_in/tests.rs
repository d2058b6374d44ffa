use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;

use super::super::issuer::Issuer;
use super::super::people::{ALICE, AUDIENCE, OLGA, OPERATOR};
use super::*;

const CLIENT: &str = "demo-app";
const REDIRECT: &str = "http://127.0.0.1:8000/demo/";
/// The pair of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

type Pairs<'a> = &'a [(&'a str, &'a str)];

async fn issuer() -> Issuer {
    let issuer = Issuer::start().await.unwrap();
    issuer.offer_sign_in(Client {
        id: CLIENT.into(),
        redirects: vec![REDIRECT.into()],
    });
    issuer
}

/// What a well-behaved client asks for, but for these parameters; an empty one is left out.
fn asked(changes: Pairs<'_>) -> String {
    let mut parameters = vec![
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT),
        ("response_type", "code"),
        ("scope", "openid profile"),
        ("state", "s<1>"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    parameters.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    parameters.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

async fn send(request: http::request::Builder, body: String) -> Response<Bytes> {
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let request = request.body(http_body_util::Full::<Bytes>::from(body));
    let (head, body) = client.request(request.unwrap()).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

async fn show(issuer: &Issuer, changes: Pairs<'_>) -> Response<Bytes> {
    let url = format!("{}{AUTHORIZE}?{}", issuer.url(), asked(changes));
    send(Request::get(url), String::new()).await
}

fn form(issuer: &Issuer, path: &str) -> http::request::Builder {
    Request::post(format!("{}{path}", issuer.url())).header(
        header::CONTENT_TYPE,
        "application/x-www-form-urlencoded;charset=UTF-8",
    )
}

async fn post(issuer: &Issuer, path: &str, pairs: Pairs<'_>) -> (u16, Value) {
    let body = Serializer::new(String::new()).extend_pairs(pairs).finish();
    let answer = send(form(issuer, path), body).await;
    let body = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), body)
}

/// The query of the address that an answer sends to, which is the client's.
fn sent_back(answer: &Response<Bytes>) -> Parameters {
    assert_eq!(answer.status(), 303, "{:?}", answer.body());
    let to = answer.headers()[header::LOCATION].to_str().unwrap();
    Parameters::parse(to.strip_prefix(&format!("{REDIRECT}?")).unwrap().as_bytes())
}

async fn code(issuer: &Issuer, person: Person) -> String {
    let body = asked(&[("person", person.subject)]);
    let answer = send(form(issuer, AUTHORIZE), body).await;
    sent_back(&answer).one("code").unwrap().to_owned()
}

/// An exchange as it must be, but for these parameters.
async fn exchange(issuer: &Issuer, code: &str, changes: Pairs<'_>) -> (u16, Value) {
    let mut pairs = vec![
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    pairs.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    pairs.extend(changes);
    post(issuer, TOKEN, &pairs).await
}

fn claims(issuer: &Issuer, token: &Value, audience: &str) -> Value {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::JwkSet};
    let keys: JwkSet = serde_json::from_value(issuer.jwks()).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&issuer.kid()).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_issuer(&[issuer.url()]);
    rules.set_audience(&[audience]);
    decode::<Value>(token.as_str().unwrap(), &key, &rules)
        .unwrap()
        .claims
}

fn refused(error: &str) -> (u16, Value) {
    (400, json!({"error": error}))
}

#[tokio::test]
async fn one_who_chooses_a_person_goes_back_with_a_code_good_for_tokens() {
    let issuer = issuer().await;
    let page = show(&issuer, &[]).await;
    assert_eq!(page.status(), 200);
    let html = std::str::from_utf8(page.body()).unwrap();
    for person in PEOPLE {
        assert!(
            html.contains(&format!("name=\"person\" value=\"{}\"", person.subject)),
            "{html}"
        );
    }
    assert!(
        html.contains("name=\"state\" value=\"s&lt;1&gt;\""),
        "{html}"
    );
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(
        policy.contains("form-action 'self' http://127.0.0.1:8000;"),
        "{policy}"
    );

    let chosen = send(
        form(&issuer, AUTHORIZE).header("sec-fetch-site", "same-origin"),
        asked(&[("person", "alice")]),
    )
    .await;
    let back = sent_back(&chosen);
    assert_eq!(back.one("state"), Some("s<1>"));
    assert_eq!(back.one("iss"), Some(issuer.url().as_str()));
    let code = back.one("code").unwrap();

    let body = Serializer::new(String::new())
        .extend_pairs([("grant_type", "authorization_code"), ("client_id", CLIENT)])
        .extend_pairs([("redirect_uri", REDIRECT), ("code", code)])
        .append_pair("code_verifier", VERIFIER)
        .finish();
    let answer = send(
        form(&issuer, TOKEN).header(header::ORIGIN, "http://127.0.0.1:8000"),
        body,
    )
    .await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let tokens: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"]),
        (&json!("Bearer"), &json!(300))
    );
    let access = claims(&issuer, &tokens["access_token"], AUDIENCE);
    assert_eq!(access["sub"], ALICE.subject);
    assert_eq!(access["email"], ALICE.email);
    assert_eq!(access["roles"], Value::Null);
    assert_eq!(
        access["exp"].as_u64().unwrap() - access["iat"].as_u64().unwrap(),
        300
    );
    let id = claims(&issuer, &tokens["id_token"], CLIENT);
    assert_eq!(
        (&id["sub"], &id["name"], &id["nonce"]),
        (&json!("alice"), &json!(ALICE.name), &json!("n-1"))
    );
}

#[tokio::test]
async fn a_code_is_good_once_and_for_its_client_address_and_verifier_alone() {
    let issuer = issuer().await;
    let good = code(&issuer, ALICE).await;
    assert_eq!(exchange(&issuer, &good, &[]).await.0, 200);
    assert_eq!(
        exchange(&issuer, &good, &[]).await,
        refused("invalid_grant")
    );
    let other = "EBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    for (change, error) in [
        (("code_verifier", other), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (("code_verifier", CHALLENGE), "invalid_grant"),
        (
            ("redirect_uri", "http://127.0.0.1:8000/demo"),
            "invalid_grant",
        ),
        (("code", "unknown"), "invalid_grant"),
        (("client_id", "other"), "invalid_client"),
        (("grant_type", "password"), "unsupported_grant_type"),
    ] {
        let code = code(&issuer, ALICE).await;
        assert_eq!(
            exchange(&issuer, &code, &[change]).await,
            refused(error),
            "{change:?}"
        );
    }
    // A wrong verifier uses the code up: whoever stole it has one guess.
    let tried = code(&issuer, ALICE).await;
    assert_eq!(
        exchange(&issuer, &tried, &[("code_verifier", other)])
            .await
            .0,
        400
    );
    assert_eq!(
        exchange(&issuer, &tried, &[]).await,
        refused("invalid_grant")
    );
}

#[tokio::test(start_paused = true)]
async fn a_code_expires_after_a_minute() {
    let issuer = issuer().await;
    let (early, late) = (code(&issuer, ALICE).await, code(&issuer, ALICE).await);
    tokio::time::advance(CODE_LIFE.checked_sub(Duration::from_secs(1)).unwrap()).await;
    assert_eq!(exchange(&issuer, &early, &[]).await.0, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        exchange(&issuer, &late, &[]).await,
        refused("invalid_grant")
    );
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_not_after_it_was_revoked() {
    let issuer = issuer().await;
    let renew = async |token: &Value| {
        let token = token.as_str().unwrap();
        let pairs = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT),
        ];
        post(&issuer, TOKEN, &pairs).await
    };
    let code = code(&issuer, OLGA).await;
    let (_, first) = exchange(&issuer, &code, &[]).await;
    let (status, second) = renew(&first["refresh_token"]).await;
    assert_eq!(status, 200);
    assert_ne!(first["access_token"], second["access_token"]);
    let access = claims(&issuer, &second["access_token"], AUDIENCE);
    assert_eq!(
        (&access["sub"], &access["roles"]),
        (&json!("olga"), &json!([OPERATOR]))
    );
    assert_eq!(
        renew(&first["refresh_token"]).await,
        refused("invalid_grant")
    );
    let token = second["refresh_token"].as_str().unwrap();
    assert_eq!(post(&issuer, REVOKE, &[("token", token)]).await.0, 200);
    assert_eq!(
        renew(&second["refresh_token"]).await,
        refused("invalid_grant")
    );
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered() {
    let issuer = issuer().await;
    for change in [
        ("redirect_uri", "http://127.0.0.1:8000/demo/x"),
        ("redirect_uri", "http://127.0.0.1:8001/demo/"),
        ("redirect_uri", "http://evil.example/demo/"),
        ("redirect_uri", "javascript:alert(1)"),
        ("redirect_uri", ""),
        ("client_id", "other"),
        ("client_id", ""),
    ] {
        let shown = show(&issuer, &[change]).await;
        let chosen = send(
            form(&issuer, AUTHORIZE),
            asked(&[change, ("person", "alice")]),
        )
        .await;
        for answer in [shown, chosen] {
            assert_eq!(answer.status(), 400, "{change:?}");
            assert_eq!(answer.headers().get(header::LOCATION), None, "{change:?}");
        }
    }
    let twice = format!("{}&redirect_uri=http%3A%2F%2Fevil.example", asked(&[]));
    let url = format!("{}{AUTHORIZE}?{twice}", issuer.url());
    assert_eq!(send(Request::get(url), String::new()).await.status(), 400);
}

#[tokio::test]
async fn other_mistakes_are_told_to_the_client() {
    let issuer = issuer().await;
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("scope", "profile"), "invalid_scope"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("response_mode", "fragment"), "invalid_request"),
        (("prompt", "none"), "login_required"),
    ] {
        let answer = show(&issuer, &[change]).await;
        let back = sent_back(&answer);
        assert_eq!(back.one("error"), Some(error), "{change:?}");
        assert_eq!(back.one("state"), Some("s<1>"));
        assert_eq!(back.one("code"), None);
    }
}

#[tokio::test]
async fn a_choice_that_nobody_made_on_the_page_gives_no_code() {
    let issuer = issuer().await;
    let alice = asked(&[("person", "alice")]);
    for (request, body, status) in [
        (
            form(&issuer, AUTHORIZE).header("sec-fetch-site", "cross-site"),
            alice.clone(),
            400,
        ),
        (
            form(&issuer, AUTHORIZE),
            asked(&[("person", "mallory")]),
            400,
        ),
        (form(&issuer, AUTHORIZE), asked(&[]), 400),
        (
            form(&issuer, AUTHORIZE).header(header::HOST, "evil.example"),
            alice.clone(),
            421,
        ),
        (
            Request::post(format!("{}{AUTHORIZE}", issuer.url())),
            alice,
            415,
        ),
        (
            form(&issuer, AUTHORIZE),
            asked(&[("state", &"x".repeat(MAX_FORM))]),
            413,
        ),
        (
            Request::delete(format!("{}{AUTHORIZE}", issuer.url())),
            String::new(),
            405,
        ),
    ] {
        let answer = send(request, body).await;
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.headers().get(header::LOCATION), None);
    }
}

#[tokio::test]
async fn discovery_tells_of_it_where_it_is_offered_and_pages_may_read_it() {
    let without = Issuer::start().await.unwrap();
    let with = issuer().await;
    for (issuer, offered) in [(&without, false), (&with, true)] {
        let url = issuer.url();
        let address = format!("{url}/.well-known/openid-configuration");
        let answer = send(Request::get(address), String::new()).await;
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let document: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(document["issuer"], url);
        let endpoint = offered.then(|| format!("{url}/authorize"));
        assert_eq!(document["authorization_endpoint"], json!(endpoint));
        assert_eq!(show(issuer, &[]).await.status() == 200, offered);
    }
    let preflight = Request::options(format!("{}{TOKEN}", with.url()));
    let answer = send(preflight, String::new()).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let style = send(
        Request::get(format!("{}{STYLE}", with.url())),
        String::new(),
    )
    .await;
    assert_eq!(
        style.headers()[header::CONTENT_TYPE],
        "text/css; charset=utf-8"
    );
}

#[test]
fn no_more_grants_are_kept_than_agreed() {
    let mut grants = Grants::new(CODE_LIFE);
    let names: Vec<String> = (0..=MAX_GRANTS).map(|number| grants.put(number)).collect();
    assert_eq!(grants.given.len(), MAX_GRANTS);
    assert_eq!(grants.take(&names[0]), None);
    assert_eq!(grants.take(&names[1]), Some(1));
    assert_eq!(grants.take(&names[1]), None);
}
