use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::audit::Target;
use crate::operation::Catalogue;

const START: (&str, &str) = ("POST", "/process-definition/key/order/start");

/// A log in a file of its own.
struct Log {
    open: Option<AuditLog>,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.log");
        Self {
            open: AuditLog::open(&Target::File(file.clone()), 8).ok(),
            file,
            _directory: directory,
        }
    }

    fn layer(&self) -> AuditLayer {
        AuditLayer::new(self.open.clone().unwrap(), TrustedProxies::default())
    }

    /// All records, once nobody holds the log any more.
    fn records(mut self) -> Vec<Value> {
        drop(self.open.take());
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn request((method, path): (&str, &str)) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap();
    let matched = Catalogue::builtin().find(request.method(), path);
    request.extensions_mut().insert(matched);
    request
        .extensions_mut()
        .insert(crate::identity::tests::alice());
    request
}

fn json(body: Body) -> Response<Body> {
    Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn without_identity_or_match_it_fails_closed() {
    let log = Log::new();
    let never = service_fn(|_: Request<()>| async { Ok::<_, Problem>(json(Body::empty())) });
    let problem = log.layer().layer(never).oneshot(Request::new(())).await;
    assert_eq!(problem.unwrap_err().code(), "misconfigured");
    assert!(log.records().is_empty());
}

#[tokio::test]
async fn frames_pass_before_the_answer_ends_and_its_instances_are_read_all_the_same() {
    let log = Log::new();
    let (send, receive) = mpsc::unbounded_channel::<Result<Frame<Bytes>, BoxError>>();
    let receive = Arc::new(Mutex::new(Some(receive)));
    let engine = service_fn(move |_: Request<()>| {
        let receive = receive.lock().unwrap().take().unwrap();
        let frames = futures_util::stream::unfold(receive, |mut receive| async {
            Some((receive.recv().await?, receive))
        });
        async { Ok::<_, Problem>(json(Body::stream(StreamBody::new(frames)))) }
    });
    let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    let answer = log.layer().layer(engine).oneshot(request(START)).await;
    let mut body = answer.unwrap().into_body();
    send.send(data(r#"{"id":"i1","#)).unwrap();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, r#"{"id":"i1","#);
    send.send(data(r#""definitionId":"order:1:d"}"#)).unwrap();
    drop(send);
    assert_eq!(
        body.collect().await.unwrap().to_bytes(),
        r#""definitionId":"order:1:d"}"#
    );
    let records = log.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["outcome"], "forwarded");
    assert_eq!(records[0]["complete"], true);
    assert_eq!(
        records[0]["instances"],
        serde_json::json!([{"id": "i1", "definition_id": "order:1:d"}])
    );
}

#[tokio::test]
async fn of_a_long_answer_the_first_64_kib_are_looked_at() {
    let first = r#"[{"id":"i1","definitionId":"a"},"#;
    let last = r#"{"id":"i2","definitionId":"b"}]"#;
    let room = MAX_LOOKED_AT - first.len() - last.len();
    let cut_off = Value::Bool(true);
    for (blanks, cut, found) in [
        (room, Value::Null, 2),
        (room + 1, cut_off.clone(), 2),
        (room + 2, cut_off, 1),
    ] {
        let log = Log::new();
        let text = [first, &" ".repeat(blanks), last].concat();
        let engine = service_fn(move |_: Request<()>| {
            let body = Body::from(Bytes::from(text.clone()));
            async { Ok::<_, Problem>(json(body)) }
        });
        let condition = request(("POST", "/condition"));
        let answer = log.layer().layer(engine).oneshot(condition).await.unwrap();
        answer.into_body().collect().await.unwrap();
        let records = log.records();
        assert_eq!(records[0]["instances_cut"], cut, "{blanks}");
        assert_eq!(records[0]["instances"].as_array().unwrap().len(), found);
    }
}

#[tokio::test]
async fn only_json_that_says_yes_is_looked_into() {
    let text = r#"{"id":"i1","definitionId":"a"}"#;
    for (status, name, value, operation, found) in [
        (200, "content-type", "application/json", START, true),
        (
            200,
            "content-type",
            "application/hal+json;charset=UTF-8",
            START,
            true,
        ),
        (400, "content-type", "application/json", START, false),
        (200, "content-type", "text/html", START, false),
        (200, "x", "application/json", START, false),
        (
            200,
            "content-type",
            "application/json",
            ("POST", "/task/create"),
            false,
        ),
    ] {
        let log = Log::new();
        let engine = service_fn(move |_: Request<()>| async move {
            let answer = Response::builder().status(status).header(name, value);
            Ok::<_, Problem>(answer.body(Body::from(Bytes::from(text))).unwrap())
        });
        let answer = log.layer().layer(engine).oneshot(request(operation)).await;
        answer.unwrap().into_body().collect().await.unwrap();
        let records = log.records();
        let is_named = records[0].get("instances").is_some();
        assert_eq!(is_named, found, "{status} {name} {value} {operation:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_dropped_is_not_complete() {
    for polled in [true, false] {
        let log = Log::new();
        let engine = service_fn(|_: Request<()>| async {
            let frames = futures_util::stream::iter([
                Ok(Frame::data(Bytes::from_static(b"{"))),
                Err(BoxError::from("broken")),
            ]);
            Ok::<_, Problem>(json(Body::stream(StreamBody::new(frames))))
        });
        let answer = log.layer().layer(engine).oneshot(request(START)).await;
        let body = answer.unwrap().into_body();
        if polled {
            body.collect().await.unwrap_err();
        } else {
            drop(body);
        }
        let records = log.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0]["outcome"], "forwarded");
        assert_eq!(records[0]["complete"], false, "{polled}");
    }
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_leaves_a_record() {
    let log = Log::new();
    let hangs =
        service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Problem>>());
    let mut future = Box::pin(log.layer().layer(hangs).oneshot(request(START)));
    assert!(futures_util::poll!(&mut future).is_pending());
    drop(future);
    let records = log.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["outcome"], "abandoned");
    assert!(records[0].get("status").is_none());
}

#[tokio::test]
async fn what_is_recorded_of_what_passes_and_of_what_is_refused() {
    let denied = || Problem::denied("x", "user");
    let get = ("GET", "/task");
    let no_row = ("POST", "/no/such");
    for (request_line, refused, outcome) in [
        (START, None, Some("forwarded")),
        (("DELETE", "/process-instance/1"), None, Some("forwarded")),
        (get, None, None),
        (("POST", "/task"), None, None),
        (("GET", "/no/such"), None, None),
        (("OPTIONS", "/no/such"), None, None),
        (no_row, None, Some("forwarded")),
        (("PATCH", "/task"), None, Some("forwarded")),
        (get, Some(denied()), Some("denied")),
        (START, Some(denied()), Some("denied")),
        (
            START,
            Some(Problem::ProtectedVariable("x".into())),
            Some("denied"),
        ),
        (START, Some(Problem::CannotAttribute("x")), Some("denied")),
        (("GET", "/no/such"), Some(Problem::NotFound), Some("denied")),
        (
            ("PATCH", "/task"),
            Some(Problem::MethodNotAllowed("GET".into())),
            Some("denied"),
        ),
        (START, Some(Problem::EngineTimeout), Some("failed")),
        (START, Some(Problem::BodyTooLarge(1)), Some("failed")),
        (get, Some(Problem::EngineTimeout), None),
    ] {
        let log = Log::new();
        let want = refused.clone();
        let inner = service_fn(move |_: Request<()>| {
            let answer = refused.clone().map_or_else(|| Ok(json(Body::empty())), Err);
            async { answer }
        });
        let answer = log
            .layer()
            .layer(inner)
            .oneshot(request(request_line))
            .await;
        assert_eq!(answer.map(drop).err(), want, "{request_line:?}");
        let records = log.records();
        assert_eq!(
            records
                .first()
                .map(|record| record["outcome"].as_str().unwrap()),
            outcome,
            "{request_line:?} {want:?}"
        );
        if let (Some(record), Some(problem)) = (records.first(), want) {
            assert_eq!(record["code"], problem.code());
            assert_eq!(record["status"], problem.status().as_u16());
        }
        let has_path = records.first().map(|record| record.get("path").is_some());
        let is_row = !["/no/such"].contains(&request_line.1) && request_line.0 != "PATCH";
        assert_ne!(has_path, Some(is_row), "{request_line:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_room_for_its_record_a_write_does_not_reach_the_engine_and_a_denial_says_so() {
    let log = Log::new();
    let layer = log.layer();
    let slots: Vec<_> = std::iter::from_fn(|| log.open.as_ref()?.try_slot()).collect();
    let calls = Arc::new(AtomicUsize::new(0));
    let service = |answer: Result<(), Problem>| {
        let calls = calls.clone();
        layer.layer(service_fn(move |_: Request<()>| {
            calls.fetch_add(1, Ordering::Relaxed);
            let answer = answer.clone().map(|()| json(Body::empty()));
            async { answer }
        }))
    };
    let refused = service(Ok(())).oneshot(request(START)).await;
    assert_eq!(refused.unwrap_err(), Problem::AuditUnavailable);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    service(Ok(()))
        .oneshot(request(("GET", "/task")))
        .await
        .unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let denied = service(Err(Problem::denied("getTasks", "none")))
        .oneshot(request(("GET", "/task")))
        .await;
    assert_eq!(denied.unwrap_err(), Problem::AuditUnavailable);

    // A slot that becomes free in time is waited for.
    let waiting = tokio::spawn(service(Ok(())).oneshot(request(START)));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(slots);
    waiting.await.unwrap().unwrap();
    drop(layer);
    let records = log.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["outcome"], "forwarded");
}

#[tokio::test]
async fn what_inner_layers_found_out_is_in_the_record() {
    let log = Log::new();
    let inner = service_fn(|request: Request<()>| async move {
        let findings = request.extensions().get::<Findings>().unwrap();
        findings.note_profile("clerk-staff".into());
        findings.note_rule(2);
        findings.note_business_key("order-4711".to_owned());
        findings.note_event("paid".to_owned());
        findings.note_reason("a mistake".to_owned());
        findings.note_model_changed(());
        Ok::<_, Problem>(json(Body::empty()))
    });
    log.layer()
        .layer(inner)
        .oneshot(request(START))
        .await
        .unwrap();
    let records = log.records();
    for (name, want) in [
        ("profile", Value::from("clerk-staff")),
        ("rule", 2.into()),
        ("business_key", "order-4711".into()),
        ("event", "paid".into()),
        ("reason", "a mistake".into()),
        ("model_changed", true.into()),
    ] {
        assert_eq!(records[0][name], want);
    }
}
