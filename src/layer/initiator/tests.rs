#![expect(clippy::string_slice, reason = "the texts that are cut are ASCII")]

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Frame;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok};
use tower_test::mock::{self, Handle, Mock, Spawn};

use super::*;
use crate::access::{Builtin, ObjectTypes};
use crate::identity::Parts;
use crate::initiator::{Names, Restarts};
use crate::operation::Catalogue;

const START: &str = "/process-definition/key/order/start";
const EVE: &str = r#"{"variables":{"initiator":{"value":"eve"}}}"#;
const ALICE: &str = concat!(
    r#"{"variables":{"initiator":{"value":"alice","type":"String"},"#,
    r#""initiatorEmail":{"value":"","type":"String"},"#,
    r#""initiatorName":{"value":"alice","type":"String"}}}"#,
);
const MAX: u64 = 200;

/// A body of scripted frames.
#[derive(Debug)]
struct Script(std::collections::VecDeque<Result<Frame<Bytes>, BoxError>>);

impl Script {
    fn new(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>) -> Self {
        Self(frames.into_iter().collect())
    }

    fn of(chunks: &[&str]) -> Self {
        Self::new(
            chunks
                .iter()
                .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk.as_bytes())))),
        )
    }

    fn text(&self) -> String {
        self.0
            .iter()
            .map(|frame| {
                let data = frame.as_ref().unwrap().data_ref().expect("no trailers");
                String::from_utf8(data.to_vec()).unwrap()
            })
            .collect()
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front())
    }
}

impl From<Bytes> for Script {
    fn from(bytes: Bytes) -> Self {
        Self::new([Ok(Frame::data(bytes))])
    }
}

type Service_ = Spawn<Initiator<MapError>>;
type Engine = Handle<Request<Script>, Response<()>>;
type MapError = tower::util::MapErr<Mock<Request<Script>, Response<()>>, fn(BoxError) -> Problem>;

fn service(settings: &Settings) -> (Service_, Engine) {
    mock::spawn_with(|inner| {
        let inner = tower::util::MapErr::new(
            inner,
            (|_| Problem::EngineUnreachable) as fn(BoxError) -> Problem,
        );
        InitiatorLayer::new(settings.clone(), JsonBodies::new(MAX)).layer(inner)
    })
}

fn alice() -> Identity {
    Identity::new(Parts {
        issuer: "https://id.example".into(),
        id: "alice".into(),
        email: None,
        name: None,
        first_name: None,
        last_name: None,
        roles: vec![],
        tenant: None,
        expires: SystemTime::now() + Duration::from_hours(1),
        claims: Arc::default(),
    })
}

fn request(method: &Method, path: &str, headers: &[(&str, &str)], body: Script) -> Request<Script> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(body).unwrap();
    let extensions = request.extensions_mut();
    extensions.insert(Catalogue::builtin().find(method, path));
    extensions.insert(alice());
    extensions.insert(Access {
        profile: "user".into(),
        rule: None,
        object_types: ObjectTypes::default(),
        members: Builtin::User.members(),
    });
    request
}

fn post(path: &str, headers: &[(&str, &str)], body: Script) -> Request<Script> {
    request(&Method::POST, path, headers, body)
}

/// The request as the engine sees it.
fn passed(request: Request<Script>) -> Request<Script> {
    let (mut service, mut engine) = service(&Settings::default());
    engine.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(request));
    if let Poll::Ready(Err(problem)) = answer.poll() {
        panic!("refused: {problem:?}");
    }
    let (seen, send) = assert_ready!(engine.poll_request()).unwrap();
    send.send_response(Response::new(()));
    assert_ready_ok!(answer.poll());
    seen
}

/// The problem, after making sure that the engine saw nothing.
fn refused_by(settings: &Settings, request: Request<Script>) -> Problem {
    let (mut service, mut engine) = service(settings);
    engine.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(request));
    let Poll::Ready(Err(problem)) = answer.poll() else {
        panic!("not refused")
    };
    assert!(
        engine.poll_request().is_pending(),
        "the engine saw a request"
    );
    problem
}

fn refused(request: Request<Script>) -> Problem {
    refused_by(&Settings::default(), request)
}

#[test]
fn a_start_leaves_with_the_callers_initiator_and_its_exact_length() {
    for chunks in [
        &[EVE][..],
        &[&EVE[..20], &EVE[20..]],
        &["", &EVE[..1], "", &EVE[1..9], &EVE[9..], ""],
    ] {
        let seen = passed(post(
            START,
            &[
                ("content-type", "Application/JSON ; charset=utf-16"),
                ("content-encoding", "Identity"),
                ("transfer-encoding", "chunked"),
                ("trailer", "x-sum"),
                ("expect", "100-continue"),
                ("accept", "*/*"),
            ],
            Script::of(chunks),
        ));
        assert_eq!(seen.body().text(), ALICE);
        let headers: Vec<_> = seen
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let length = ALICE.len().to_string();
        assert_eq!(
            headers,
            [
                ("content-type", "application/json"),
                ("accept", "*/*"),
                ("content-length", &length)
            ]
        );
    }
}

#[test]
fn a_start_without_a_body_becomes_one_with_its_type() {
    for headers in [
        &[][..],
        &[
            ("content-type", "application/json"),
            ("content-length", "0"),
        ],
    ] {
        for body in [Script::of(&[]), Script::of(&[""])] {
            let seen = passed(post(START, headers, body));
            assert_eq!(seen.body().text(), ALICE);
            assert_eq!(seen.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(seen.headers()[CONTENT_LENGTH], ALICE.len().to_string());
        }
    }
}

#[test]
fn a_body_that_needs_no_change_leaves_as_the_bytes_that_came() {
    let text = "{ \"variables\":{\"a\" : {\"value\":1e999}} }\n";
    let seen = passed(post(
        "/task/1/complete",
        &[("content-type", "application/json;x=y")],
        Script::of(&[&text[..7], &text[7..]]),
    ));
    assert_eq!(seen.body().text(), text);
    assert_eq!(seen.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(seen.headers()[CONTENT_LENGTH], text.len().to_string());
    // Nothing stays nothing, with a type: without one the engine would fail.
    let seen = passed(post("/task/1/complete", &[], Script::of(&[])));
    assert_eq!(seen.body().text(), "");
    assert_eq!(seen.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(seen.headers()[CONTENT_LENGTH], "0");
}

#[test]
fn trailers_of_a_collected_body_are_dropped() {
    let trailers = HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("x"))]);
    let body = Script::new([
        Ok(Frame::data(Bytes::from_static(EVE.as_bytes()))),
        Ok(Frame::trailers(trailers)),
    ]);
    assert_eq!(
        passed(post(START, &[("content-type", "application/json")], body))
            .body()
            .text(),
        ALICE
    );
}

#[test]
fn what_is_not_declared_as_json_is_415_and_never_sent() {
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "*/json")],
        &[("content-type", "application/*+json")],
        &[("content-type", "application/hal+json")],
        &[("content-type", "application/json, application/json")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "")],
        &[("content-type", ";application/json")],
        &[("content-type", "application / json")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[
            ("content-type", "application/json"),
            ("content-type", "application/json"),
        ],
        &[
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ],
        &[
            ("content-type", "application/json"),
            ("content-encoding", ""),
        ],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "identity, gzip"),
        ],
        &[
            ("content-type", "application/json"),
            ("content-encoding", "identity"),
            ("content-encoding", "gzip"),
        ],
    ] {
        let problem = refused(post(START, headers, Script::of(&[EVE])));
        assert_eq!(problem.code(), "unsupported_media_type", "{headers:?}");
    }
    // A wrong type is wrong without a body too.
    let problem = refused(post(
        START,
        &[("content-type", "text/plain")],
        Script::of(&[]),
    ));
    assert_eq!(problem.code(), "unsupported_media_type");
}

#[test]
fn the_limit_is_inclusive_and_a_declared_length_is_believed_before_reading() {
    let json = ("content-type", "application/json");
    let body = |length: usize| format!("{EVE}{}", " ".repeat(length - EVE.len()));
    let full = usize::try_from(MAX).unwrap();
    let seen = passed(post(START, &[json], Script::of(&[&body(full)])));
    assert!(seen.body().text().starts_with(ALICE));
    for chunks in [
        &[&*body(full + 1)][..],
        &[&body(full), " "],
        &[&body(150), " ", &" ".repeat(50)],
    ] {
        assert_eq!(
            refused(post(START, &[json], Script::of(chunks))),
            Problem::BodyTooLarge(MAX)
        );
    }
    // The body would fail if it were read.
    let untouched = || Script::new([Err("read".into())]);
    let too_long = [json, ("content-length", "201")];
    assert_eq!(
        refused(post(START, &too_long, untouched())),
        Problem::BodyTooLarge(MAX)
    );
    assert_eq!(
        refused(post(START, &[json, ("content-length", "200")], untouched())),
        Problem::ClientGone
    );
}

#[test]
fn an_error_of_the_body_is_its_problem_or_a_client_that_went_away() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Problem);
    for (error, expected) in [
        (
            BoxError::from(Problem::RequestTimeout),
            Problem::RequestTimeout,
        ),
        (
            Outer(Problem::RequestTimeout).into(),
            Problem::RequestTimeout,
        ),
        ("connection reset".into(), Problem::ClientGone),
    ] {
        let body = Script::new([Ok(Frame::data(Bytes::from_static(b"{"))), Err(error)]);
        let problem = refused(post(START, &[("content-type", "application/json")], body));
        assert_eq!(problem, expected);
    }
}

#[test]
fn refusals_end_here() {
    let json = [("content-type", "application/json")];
    let off = || Script::new([Err("read".into())]);
    for (request, code) in [
        (
            post(
                START,
                &json,
                Script::of(&[r#"{"variables":{},"variables":{}}"#]),
            ),
            "body_invalid",
        ),
        (
            post(START, &json, Script::of(&[r#"{"startInstructions":[]}"#])),
            "access_denied",
        ),
        (
            post("/task/1/claim", &json, Script::of(&[r#"{"userId":"bob"}"#])),
            "access_denied",
        ),
        (
            post("/process-definition/1/restart", &json, off()),
            "cannot_attribute",
        ),
        (
            request(&Method::PUT, "/task/1/variables/initiator", &json, off()),
            "protected_variable",
        ),
        (
            request(&Method::DELETE, "/task/1/variables/initiator", &[], off()),
            "protected_variable",
        ),
        (
            post(
                "/task/1/variables/initiator/data",
                &[("content-type", "multipart/form-data")],
                off(),
            ),
            "protected_variable",
        ),
    ] {
        assert_eq!(refused(request).code(), code);
    }
}

#[test]
fn settings_reach_the_body() {
    let settings = Settings {
        names: Names::new("starter", "initiatorEmail", "initiatorName").unwrap(),
        restarts: Restarts::Keep,
        ..Settings::default()
    };
    let problem = refused_by(
        &settings,
        request(
            &Method::PUT,
            "/task/1/variables/starter",
            &[],
            Script::of(&[]),
        ),
    );
    assert_eq!(problem, Problem::ProtectedVariable("starter".into()));
}

#[test]
fn missing_extensions_fail_closed() {
    let json = [("content-type", "application/json")];
    let mut without = post(START, &json, Script::of(&[EVE]));
    without.extensions_mut().remove::<Matched>();
    assert_eq!(refused(without).code(), "misconfigured");
    let mut without = post(START, &json, Script::of(&[EVE]));
    without.extensions_mut().remove::<Identity>();
    assert_eq!(refused(without).code(), "misconfigured");
    let mut without = post(START, &json, Script::of(&[EVE]));
    without.extensions_mut().remove::<Access>();
    assert_eq!(refused(without).code(), "misconfigured");
}

#[test]
fn other_requests_pass_untouched_and_unread() {
    for (method, path) in [
        (Method::GET, "/task"),
        (Method::GET, "/process-instance/1/variables/initiator"),
        (Method::DELETE, "/process-instance/1/variables/a"),
        (Method::POST, "/deployment/create"),
        (Method::POST, "/task/1/attachment/create"),
        (Method::POST, "/process-instance"),
        (Method::POST, "/no/such/path"),
        (Method::PATCH, "/task"),
    ] {
        let headers = [
            ("content-type", "text/x; y"),
            ("content-encoding", "gzip"),
            ("trailer", "t"),
            ("content-length", "999999"),
        ];
        let body = Script::new([Err("never read".into())]);
        let seen = passed(request(&method, path, &headers, body));
        assert_eq!(seen.body().0.len(), 1, "{method} {path}");
        let kept: Vec<_> = seen
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(kept, headers, "{method} {path}");
    }
    // Even without an identity: there is nothing to write.
    let mut anonymous = request(&Method::GET, "/task", &[], Script::of(&[]));
    anonymous.extensions_mut().remove::<Identity>();
    anonymous.extensions_mut().remove::<Access>();
    passed(anonymous);
}

#[test]
fn a_query_by_post_is_read_and_passes_as_it_is() {
    let query = r#"{ "assignee":"alice" }"#;
    let seen = passed(post(
        "/task",
        &[("content-type", "application/json")],
        Script::of(&[query]),
    ));
    assert_eq!(seen.body().text(), query);
    let hidden = r#"{"orQueries":[{"assignee\u0045xpression":"${1}"}]}"#;
    let problem = refused(post(
        "/task",
        &[("content-type", "application/json")],
        Script::of(&[hidden]),
    ));
    assert_eq!(problem.code(), "access_denied");
}

#[test]
fn readiness_is_the_inner_services_and_its_error_becomes_a_problem() {
    let (mut service, mut engine) = service(&Settings::default());
    engine.allow(0);
    assert_pending!(service.poll_ready());
    engine.allow(1);
    assert_ready_ok!(service.poll_ready());
    let json = [("content-type", "application/json")];
    let mut answer = tokio_test::task::spawn(service.call(post(START, &json, Script::of(&[EVE]))));
    assert_pending!(answer.poll());
    let (_, send) = assert_ready!(engine.poll_request()).unwrap();
    send.send_error("gone");
    assert_eq!(
        assert_ready!(answer.poll()).unwrap_err(),
        Problem::EngineUnreachable
    );
}

#[test]
fn a_variable_by_upload_is_for_those_who_may_run_code() {
    let path = "/task/1/variables/photo/data";
    let headers = [("content-type", "multipart/form-data; boundary=x")];
    let upload = |profile: Builtin| {
        let mut request = post(path, &headers, Script::of(&["--x--"]));
        request.extensions_mut().insert(Access {
            profile: profile.as_str().into(),
            rule: None,
            object_types: ObjectTypes::default(),
            members: profile.members(),
        });
        request
    };
    for profile in [Builtin::User, Builtin::Operator] {
        let (operation, part) = ("setBinaryTaskVariable", "multipart/form-data");
        let denied = Problem::denied_member(operation, profile.as_str(), part);
        assert_eq!(refused(upload(profile)), denied);
    }
    passed(upload(Builtin::Admin));
    // An attachment is no variable.
    passed(post(
        "/task/1/attachment/create",
        &headers,
        Script::of(&["--x--"]),
    ));
}

#[test]
fn a_body_that_arrives_long_after_its_tokens_end_starts_nothing() {
    let json = [("content-type", "application/json")];
    for (ago, is_late) in [(59, false), (61, true)] {
        let mut request = post(START, &json, Script::of(&["{}"]));
        let ended = SystemTime::now() - Duration::from_secs(ago);
        let parts = Parts::new("https://issuer.example", "alice", ended);
        request.extensions_mut().insert(Identity::new(parts));
        if is_late {
            assert_eq!(refused(request), Problem::TokenExpired);
        } else {
            passed(request);
        }
    }
}

/// How often another task had its turn while a body was read, on the only worker there is.
async fn turns_of_others(body: String) -> u32 {
    let echo = tower::service_fn(|request: Request<Script>| async {
        Ok::<_, Problem>(Response::new(request.into_body()))
    });
    let bodies = JsonBodies::new(16 << 20);
    let mut service = InitiatorLayer::new(Settings::default(), bodies).layer(echo);
    let length = body.len();
    let request = post(
        START,
        &[("content-type", "application/json")],
        Script::of(&[&body]),
    );
    let mut turns = 0;
    let others = async {
        loop {
            tokio::task::yield_now().await;
            turns += 1;
        }
    };
    let sent = tokio::select! {
        answer = service.call(request) => answer.unwrap().into_body().text(),
        () = others => unreachable!("they never end"),
    };
    assert!(sent.len() > length && sent.contains(r#""initiator":{"value":"alice""#));
    turns
}

#[tokio::test]
async fn a_large_body_does_not_hold_up_its_worker_and_a_small_one_is_read_at_once() {
    let body = |lines: usize| {
        let lines = vec![r#""a line of an order""#; lines].join(",");
        format!(r#"{{"variables":{{"lines":{{"value":[{lines}]}}}}}}"#)
    };
    assert!(turns_of_others(body(1000)).await <= 1);
    let turns = turns_of_others(body(700_000)).await;
    assert!(turns > 10, "{turns}");
}
