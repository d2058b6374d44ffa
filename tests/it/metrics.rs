//! What the figures at `/metrics` are after requests whose number and sizes are known.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Framing, Script};
use bpmgate::demo::issuer::{Fault, Issuer};
use bytes::Bytes;
use http::{Method, Request, StatusCode};

use crate::support::{AUDIENCE, Client, Process, Protocol, alice, soon, whole};

/// A gateway before engines that it asks nothing of its own accord.
struct Counted {
    issuer: Issuer,
    gateway: Process,
    token: String,
}

impl Counted {
    /// `more` are keys of `[engine]`, and tables.
    async fn start(engines: &[&Engine], more: &str) -> Self {
        Self::of(Issuer::start().await.unwrap(), engines, more).await
    }

    async fn of(issuer: Issuer, engines: &[&Engine], more: &str) -> Self {
        let nodes = engines
            .iter()
            .map(|engine| format!("\"http://{}\"", engine.address()));
        let nodes = nodes.collect::<Vec<_>>().join(",");
        let (name, keys) = (issuer.url(), issuer.jwks_url());
        let gateway = Process::with_config(&format!(
            "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\ninitiator.model_initiator = false\n\
             [[issuers]]\nissuer = \"{name}\"\njwks_url = \"{keys}\"\naudience = [\"{AUDIENCE}\"]\njwks_cooldown = \"100ms\"\n\
             [engine]\nnodes = [{nodes}]\nhealth.interval = \"0s\"\n{more}\n"
        ))
        .await;
        Self {
            token: alice(&issuer),
            issuer,
            gateway,
        }
    }

    /// The status of a request, whose answer may break off.
    async fn ask(&self, method: Method, path: &str) -> StatusCode {
        let client = Client::connect(self.gateway.address, Protocol::Http1).await;
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("authorization", &self.token)
            .header("content-type", "application/json");
        let body = match method {
            Method::POST => Body::from(Bytes::from_static(b"{}")),
            _ => Body::empty(),
        };
        let answer = client.send(request.body(body).unwrap()).await.unwrap();
        let status = answer.status();
        let _ = whole(answer).await;
        status
    }

    async fn text(&self) -> String {
        let client = Client::connect(self.gateway.admin.unwrap(), Protocol::Http1).await;
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }

    /// What stands behind a series; nothing where it is not there.
    async fn figure(&self, series: &str) -> Option<String> {
        let text = self.text().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map(|figure| figure.trim().to_owned())
    }

    /// The value of a series that counts; 0 for one that is not there.
    async fn count(&self, series: &str) -> u64 {
        let figure = self.figure(series).await;
        figure.map_or(0, |figure| figure.parse().unwrap())
    }

    /// Waits until a series has such a value.
    async fn until(&self, series: &str, is_so: impl Fn(u64) -> bool) {
        soon(series, async {
            while !is_so(self.count(series).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_and_completions_are_counted() {
    let engine = Engine::start().await.unwrap();
    let length = 1000;
    let framing = Framing::Length;
    engine.script("/engine-rest/x", Script::Download { length, framing });
    let done = || Script::status(StatusCode::NO_CONTENT, "");
    let failed = || Script::status(StatusCode::INTERNAL_SERVER_ERROR, "{}");
    engine.script("/engine-rest/task/1/complete", done());
    engine.script("/engine-rest/task/2/complete", failed());
    engine.script("/engine-rest/task/3/submit-form", done());
    engine.script("/engine-rest/external-task/4/complete", done());
    let world = Counted::start(&[&engine], "[access]\ndefault = \"transparent\"").await;
    for _ in 0..3 {
        assert_eq!(world.ask(Method::GET, "/api/x").await, 200);
    }
    world
        .until("bpmgate_answer_body_bytes_total", |bytes| bytes == 3000)
        .await;
    for (path, status) in [
        ("/engine-rest/task/1/complete", 204),
        ("/engine-rest/task/2/complete", 500),
        ("/engine-rest/task/3/submit-form", 204),
        ("/engine-rest/external-task/4/complete", 204),
    ] {
        assert_eq!(world.ask(Method::POST, path).await, status, "{path}");
    }
    world
        .until("bpmgate_completions_total", |count| count == 3)
        .await;
}

#[tokio::test]
async fn each_way_to_end_is_counted_as_what_it_is() {
    let engine = Engine::start().await.unwrap();
    engine.script("/engine-rest/task/breaks", Script::CloseUnanswered);
    engine.script("/engine-rest/task/hangs", Script::HangBeforeHeaders);
    let torn = Script::AbortInBody {
        after: 1000,
        framing: Framing::Chunked,
    };
    engine.script("/engine-rest/task/torn", torn);
    let world = Counted::start(
        &[&engine],
        "timeouts.response = \"300ms\"\nretry.attempts = 0",
    )
    .await;
    for (path, operation, group, status, class, outcome) in [
        (
            "/api/task/breaks",
            "getTask",
            "Task",
            502,
            "5xx",
            "engine_error",
        ),
        ("/api/task/hangs", "getTask", "Task", 504, "5xx", "timeout"),
        ("/api/task/torn", "getTask", "Task", 200, "2xx", "aborted"),
        (
            "/api/deployment/1/resources",
            "getDeploymentResources",
            "Deployment",
            403,
            "4xx",
            "denied",
        ),
    ] {
        assert_eq!(world.ask(Method::GET, path).await, status, "{path}");
        let series = format!(
            "bpmgate_requests_total{{operation=\"{operation}\",group=\"{group}\",method=\"GET\",status=\"{class}\",outcome=\"{outcome}\"}}"
        );
        world.until(&series, |count| count == 1).await;
    }
}

#[tokio::test]
async fn retries_are_counted_and_those_that_the_budget_does_not_have() {
    let engine = Engine::start().await.unwrap();
    engine.script("/engine-rest/task/1", Script::CloseUnanswered);
    let retry =
        "retry = { attempts = 2, backoff = \"1ms\", budget_percent = 50, budget_floor = 0 }";
    let world = Counted::start(&[&engine], retry).await;
    for _ in 0..10 {
        assert_eq!(world.ask(Method::GET, "/api/task/1").await, 502);
    }
    let tries = engine.requests_to("/engine-rest/task/1");
    let again = world.count("bpmgate_engine_retries_total").await;
    assert!(again > 0);
    assert_eq!(
        again + 10,
        tries as u64,
        "each is one more that the engine saw"
    );
    assert!(world.count("bpmgate_engine_retries_withheld_total").await > 0);
}

#[tokio::test]
async fn a_breaker_is_shown_in_the_state_that_it_is_in() {
    let (broken, well) = (
        Engine::start().await.unwrap(),
        Engine::start().await.unwrap(),
    );
    broken.script("/engine-rest/", Script::CloseUnanswered);
    well.script("/engine-rest/", Script::Echo);
    let more = "retry.attempts = 0\nbreaker = { failures = 1, pause = \"3s\" }";
    let world = Counted::start(&[&broken, &well], more).await;
    let state = |state: &str| {
        let node = broken.address();
        format!("bpmgate_engine_breaker{{node=\"{node}\",state=\"{state}\"}}")
    };
    world.until(&state("closed"), |is_so| is_so == 1).await;
    while world.ask(Method::GET, "/api/task").await != 502 {}
    world.until(&state("open"), |is_so| is_so == 1).await;
    assert_eq!(world.count(&state("closed")).await, 0);
    world.until(&state("half_open"), |is_so| is_so == 1).await;
    broken.clear_scripts();
    broken.script("/engine-rest/", Script::Echo);
    soon("the request that tries it", async {
        while world.count(&state("closed")).await != 1 {
            assert_eq!(world.ask(Method::GET, "/api/task").await, 200);
        }
    })
    .await;
    assert_eq!(world.count(&state("half_open")).await, 0);
}

#[tokio::test]
async fn keys_have_an_age_once_they_were_fetched_and_failures_are_counted() {
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    issuer.set_fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let world = Counted::of(issuer, &[&engine], "").await;
    let name = world.issuer.url();
    let refreshes = |result: &str| {
        format!("bpmgate_jwks_refreshes_total{{issuer=\"{name}\",result=\"{result}\"}}")
    };
    world.until(&refreshes("failure"), |count| count > 0).await;
    let age = format!("bpmgate_jwks_age_seconds{{issuer=\"{name}\"}}");
    assert!(!world.text().await.contains(&age), "there are none yet");
    world.issuer.set_fault(Fault::None);
    world.until(&refreshes("success"), |count| count == 1).await;
    let seconds = async || -> f64 { world.figure(&age).await.unwrap().parse().unwrap() };
    let first = seconds().await;
    assert!((0.0..60.0).contains(&first), "{first}");
    soon("an older key", async {
        while seconds().await <= first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
