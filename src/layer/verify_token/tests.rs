use http::HeaderValue;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::ServiceExt as _;
use tower_test::mock;

use super::*;
use crate::token::tests::testing::{
    HEADER, ISSUER, OTHER_RSA, good_claims, issuer, one_key, sign_as, token,
};
use crate::token::{Algorithm, UnverifiedToken, verify};

fn fixed() -> Verifier {
    Verifier::new([(issuer(), one_key())]).unwrap()
}

macro_rules! service {
    ($verifier:expr) => {
        mock::spawn_with::<Request<()>, (), _, _>(|inner| {
            VerifyTokenLayer::new($verifier).layer(inner.map_err(|_| Problem::EngineUnreachable))
        })
    };
}

fn with_headers(values: &[&str]) -> Request<()> {
    let mut request = Request::new(());
    for value in values {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(AUTHORIZATION, value);
    }
    request
}

fn bearer(token: &str) -> Request<()> {
    with_headers(&[&format!("Bearer {token}")])
}

/// Puts there what a careless outer layer might have left.
fn with_strangers(mut request: Request<()>) -> Request<()> {
    let mut claims = good_claims();
    claims["sub"] = "mallory".into();
    let text = token(&claims.to_string());
    let token = UnverifiedToken::parse(BearerToken::parse(text.as_bytes()).unwrap()).unwrap();
    let token = verify(token, SystemTime::now(), &issuer(), &one_key()).unwrap();
    request.extensions_mut().insert(token.identity().unwrap());
    request.extensions_mut().insert(token);
    request
}

#[tokio::test]
async fn request_without_one_good_token_is_refused_and_not_passed_on() {
    let good = token(&good_claims().to_string());
    let bearer_good = format!("Bearer {good}");
    let with = |claim: &str, value: serde_json::Value| {
        let mut claims = good_claims();
        claims[claim] = value;
        format!("Bearer {}", token(&claims.to_string()))
    };
    let forged = sign_as(
        Algorithm::Rs256,
        &OTHER_RSA,
        HEADER,
        &good_claims().to_string(),
    );
    let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
    let unknown_kid = sign_as(
        Algorithm::Rs256,
        &OTHER_RSA,
        r#"{"alg":"RS256","kid":"new"}"#,
        &good_claims().to_string(),
    );
    let long = format!("Bearer {}", "a".repeat(16385));
    for (headers, code) in [
        (&[][..], "token_missing"),
        (&["Basic ZGVtbzpkZW1v"], "token_missing"),
        (&[&good], "token_missing"),
        (&[&format!("DPoP {good}")], "token_missing"),
        (&[&bearer_good, &bearer_good], "two_credentials"),
        (&[&bearer_good, "Basic ZGVtbzpkZW1v"], "two_credentials"),
        (&["Basic ZGVtbzpkZW1v", &bearer_good], "two_credentials"),
        (&["Bearer"], "token_invalid"),
        (&["Bearer a b"], "token_invalid"),
        (&["Bearer a.b.c"], "token_invalid"),
        (&[&format!("{bearer_good}, {bearer_good}")], "token_invalid"),
        (&[&long], "token_invalid"),
        (&[&format!("Bearer {forged}")], "token_invalid"),
        (&[&format!("Bearer {unsigned}")], "token_invalid"),
        (&[&format!("Bearer {unknown_kid}")], "token_invalid"),
        (
            &[&with("iss", "https://nobody.example".into())],
            "token_invalid",
        ),
        (&[&with("iss", serde_json::Value::Null)], "token_invalid"),
        (&[&with("exp", "never".into())], "token_invalid"),
        (&[&with("exp", 1.into())], "token_expired"),
    ] {
        let (mut service, mut inner) = service!(fixed());
        assert_ready_ok!(service.poll_ready());
        let problem = service
            .call(with_strangers(with_headers(headers)))
            .await
            .unwrap_err();
        assert_eq!(problem.code(), code, "{headers:?}");
        assert_pending!(inner.poll_request(), "{headers:?}");
    }
}

#[tokio::test]
async fn good_token_passes_and_nothing_else_changes() {
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let (mut service, mut inner) = service!(fixed());
        assert_ready_ok!(service.poll_ready());
        let header = format!("{scheme} {}", token(&good_claims().to_string()));
        let answer = service.call(with_strangers(with_headers(&[&header])));
        let (request, respond) = inner.next_request().await.unwrap();
        let token = request.extensions().get::<VerifiedToken>().unwrap();
        assert_eq!(token.claims()["sub"], "alice");
        assert_eq!(token.issuer().as_str(), ISSUER);
        assert!(
            request.extensions().get::<Identity>().is_none(),
            "mallory stayed"
        );
        assert_eq!(request.headers()[AUTHORIZATION], header.as_str());
        respond.send_response(());
        answer.await.unwrap();
    }
}

#[tokio::test]
async fn readiness_and_errors_are_those_of_the_inner_service() {
    let (mut service, mut inner) = service!(fixed());
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let answer = service.call(bearer(&token(&good_claims().to_string())));
    let (_, respond) = inner.next_request().await.unwrap();
    respond.send_error("gone");
    assert_eq!(answer.await.unwrap_err(), Problem::EngineUnreachable);
    inner.send_error("closed");
    assert_eq!(
        assert_ready_err!(service.poll_ready()),
        Problem::EngineUnreachable
    );
}

#[test]
fn only_a_request_that_waits_is_boxed() {
    // The state is no larger than the inner future and a pointer or a problem need.
    type Future = CheckedLater<std::future::Ready<Result<(), Problem>>, ()>;
    assert!(size_of::<Future>() <= 48, "{}", size_of::<Future>());
}

#[cfg(feature = "fetch")]
mod live {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::token::refresh::tests::server::{Answer, Server, until};
    use crate::token::tests::testing::{RSA, jwks, rsa_jwk};
    use crate::token::{KeySource, Keys, RefreshSettings};

    fn settings(cooldown: Duration) -> RefreshSettings {
        RefreshSettings {
            cooldown,
            ..RefreshSettings::default()
        }
    }

    fn live(server: &Server, settings: RefreshSettings) -> (Verifier, Keys) {
        let url = server.url("/keys").parse().unwrap();
        let keys = Keys::spawn(issuer(), KeySource::JwksUrl(url), settings);
        (Verifier::new([(issuer(), keys.clone())]).unwrap(), keys)
    }

    fn rotated() -> String {
        sign_as(
            Algorithm::Rs256,
            &OTHER_RSA,
            r#"{"alg":"RS256","kid":"two"}"#,
            &good_claims().to_string(),
        )
    }

    /// A request that never comes fails the test instead of holding it.
    async fn passed_on<T>(request: impl Future<Output = T>) -> T {
        let deadline = Duration::from_secs(10);
        tokio::time::timeout(deadline, request)
            .await
            .expect("the request was not passed on")
    }

    #[tokio::test]
    async fn request_waits_for_the_first_fetch() {
        let server = Server::start().await;
        let gate = Arc::new(Semaphore::new(0));
        let one = jwks(&[rsa_jwk("one", &RSA)]);
        server.answer("/keys", Answer::Gated(Arc::clone(&gate), one));
        let (verifier, _keys) = live(&server, RefreshSettings::default());
        let (mut service, mut inner) = service!(verifier.clone());
        assert_ready_ok!(service.poll_ready());
        let request = with_strangers(bearer(&token(&good_claims().to_string())));
        let mut answer = tokio_test::task::spawn(service.call(request));
        assert_pending!(answer.poll());
        assert_pending!(inner.poll_request());
        gate.add_permits(1);
        let answer = tokio::spawn(answer.into_inner());
        let (request, respond) = passed_on(inner.next_request()).await.unwrap();
        let token = request.extensions().get::<VerifiedToken>().unwrap();
        assert_eq!(token.claims()["sub"], "alice");
        assert!(request.extensions().get::<Identity>().is_none());
        respond.send_response(());
        answer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn keys_that_cannot_be_had_are_503_for_any_token_of_that_issuer() {
        let server = Server::start().await;
        server.answer("/keys", Answer::Status(500));
        let (verifier, keys) = live(&server, RefreshSettings::default());
        let forged = sign_as(
            Algorithm::Rs256,
            &OTHER_RSA,
            HEADER,
            &good_claims().to_string(),
        );
        for text in [token(&good_claims().to_string()), forged] {
            // The first waits for the fetch, the second comes within the cool-down.
            let (mut service, mut inner) = service!(verifier.clone());
            assert_ready_ok!(service.poll_ready());
            let problem = service.call(bearer(&text)).await.unwrap_err();
            assert_eq!(problem, Problem::KeysUnavailable);
            assert_pending!(inner.poll_request());
        }
        assert_eq!((server.hits(), keys.status().fetches), (1, 1));
    }

    #[tokio::test]
    async fn hanging_issuer_holds_a_request_no_longer_than_the_timeout() {
        let server = Server::start().await;
        server.answer("/keys", Answer::Hang);
        let settings = RefreshSettings {
            timeout: Duration::from_millis(100),
            ..RefreshSettings::default()
        };
        let (verifier, _keys) = live(&server, settings);
        let (mut service, _inner) = service!(verifier.clone());
        assert_ready_ok!(service.poll_ready());
        let answer = service.call(bearer(&token(&good_claims().to_string())));
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        assert_eq!(answer.unwrap().unwrap_err(), Problem::KeysUnavailable);
    }

    #[tokio::test]
    async fn token_of_a_new_key_passes_after_one_fetch() {
        let server = Server::start().await;
        server.answer("/keys", Answer::Json(jwks(&[rsa_jwk("one", &RSA)])));
        let (verifier, keys) = live(&server, settings(Duration::ZERO));
        assert!(keys.ready().await);
        server.answer("/keys", Answer::Json(jwks(&[rsa_jwk("two", &OTHER_RSA)])));
        let (mut service, mut inner) = service!(verifier.clone());
        assert_ready_ok!(service.poll_ready());
        let answer = tokio::spawn(service.call(bearer(&rotated())));
        let (request, respond) = passed_on(inner.next_request()).await.unwrap();
        assert!(request.extensions().get::<VerifiedToken>().is_some());
        respond.send_response(());
        answer.await.unwrap().unwrap();
        assert_eq!(server.hits(), 2);
    }

    #[tokio::test]
    async fn two_hundred_requests_with_an_unknown_key_cost_one_fetch() {
        let server = Server::start().await;
        server.answer("/keys", Answer::Json(jwks(&[rsa_jwk("one", &RSA)])));
        let cooldown = Duration::from_millis(300);
        let begin = std::time::Instant::now();
        let (verifier, keys) = live(&server, settings(cooldown));
        assert!(keys.ready().await);
        until("the cool-down is over", || begin.elapsed() > cooldown * 2).await;
        let gate = Arc::new(Semaphore::new(0));
        let one = jwks(&[rsa_jwk("one", &RSA)]);
        server.answer("/keys", Answer::Gated(Arc::clone(&gate), one));

        let service =
            VerifyTokenLayer::new(verifier).layer(tower::service_fn(|_: Request<()>| async {
                Ok::<_, Problem>(())
            }));
        let requests: Vec<_> = (0..200)
            .map(|_| tokio::spawn(service.clone().oneshot(bearer(&rotated()))))
            .collect();
        until("the issuer is asked", || server.hits() == 2).await;
        gate.add_permits(1000);
        for request in requests {
            let problem = request.await.unwrap().unwrap_err();
            assert!(matches!(problem, Problem::TokenInvalid(_)));
        }
        // Whoever came after that fetch came within its cool-down.
        assert_eq!((server.hits(), keys.status().fetches), (2, 2));
        // The known key never waits.
        let good = service.oneshot(bearer(&token(&good_claims().to_string())));
        tokio_test::assert_ready_ok!(tokio_test::task::spawn(good).poll());
    }
}
