use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::Layer as _;
use tower::ServiceExt as _;
use tower_test::mock;

use super::*;
use crate::identity::Identity;
use crate::token::tests::testing::{good_claims, issuer, one_key, token};
use crate::token::{BearerToken, UnverifiedToken, verify};

fn verified(payload: &serde_json::Value) -> VerifiedToken {
    let text = token(&payload.to_string());
    let token = UnverifiedToken::parse(BearerToken::parse(text.as_bytes()).unwrap()).unwrap();
    verify(token, std::time::SystemTime::now(), &issuer(), &one_key()).unwrap()
}

macro_rules! service {
    () => {
        mock::spawn_with::<Request<()>, (), _, _>(|inner| {
            ExtractIdentityLayer::new().layer(inner.map_err(|_| Problem::EngineUnreachable))
        })
    };
}

#[tokio::test]
async fn without_a_verified_token_nothing_passes() {
    let (mut service, mut inner) = service!();
    assert_ready_ok!(service.poll_ready());
    let mut request = Request::new(());
    // An identity that someone else put there does not help.
    let stranger = verified(&good_claims()).identity().unwrap();
    request.extensions_mut().insert(stranger);
    let problem = service.call(request).await.unwrap_err();
    assert!(matches!(problem, Problem::Misconfigured(_)));
    assert_pending!(inner.poll_request());
}

#[tokio::test]
async fn token_without_a_usable_id_is_refused() {
    for sub in [
        serde_json::json!(""),
        7.into(),
        "a\u{0}".into(),
        serde_json::Value::Null,
    ] {
        let (mut service, mut inner) = service!();
        assert_ready_ok!(service.poll_ready());
        let mut claims = good_claims();
        claims["sub"] = sub.clone();
        let mut request = Request::new(());
        request.extensions_mut().insert(verified(&claims));
        let problem = service.call(request).await.unwrap_err();
        assert!(
            matches!(problem, Problem::TokenInvalid(_)),
            "{sub}: {problem}"
        );
        assert_pending!(inner.poll_request());
    }
}

#[tokio::test]
async fn identity_of_the_token_replaces_any_other() {
    let (mut service, mut inner) = service!();
    assert_ready_ok!(service.poll_ready());
    let mut mallory = good_claims();
    mallory["sub"] = "mallory".into();
    let mut request = Request::new(());
    let extensions = request.extensions_mut();
    extensions.insert(verified(&mallory).identity().unwrap());
    extensions.insert(verified(&good_claims()));
    let answer = service.call(request);
    let (request, respond) = inner.next_request().await.unwrap();
    assert_eq!(
        request.extensions().get::<Identity>().unwrap().id(),
        "alice"
    );
    respond.send_response(());
    answer.await.unwrap();
}

#[tokio::test]
async fn readiness_and_errors_are_those_of_the_inner_service() {
    let (mut service, mut inner) = service!();
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut request = Request::new(());
    request.extensions_mut().insert(verified(&good_claims()));
    let answer = service.call(request);
    let (_, respond) = inner.next_request().await.unwrap();
    respond.send_error("gone");
    assert_eq!(answer.await.unwrap_err(), Problem::EngineUnreachable);
    inner.send_error("closed");
    assert_eq!(
        assert_ready_err!(service.poll_ready()),
        Problem::EngineUnreachable
    );
}
