//! The gateway's end: it loses no request in flight, unless the grace is over or it is told twice.

use std::net::SocketAddr;
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::{Engine, Framing, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::{
    AUDIENCE, Client, Process, Protocol, Raw, World, alice, eventually, soon, whole,
};

struct Ending {
    engine: Engine,
    gateway: Process,
    token: String,
    _issuer: Issuer,
}

impl Ending {
    async fn start(grace: &str) -> Self {
        Self::with(&format!("server.shutdown_grace = \"{grace}\"")).await
    }

    /// `more` is TOML.
    async fn with(more: &str) -> Self {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let text = format!(
            "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nengine.url = \"{}\"\n\
             access.default = \"transparent\"\n{more}\n\
             [[issuers]]\nissuer = \"{}\"\njwks_url = \"{}\"\naudience = [\"{AUDIENCE}\"]\n",
            engine.url(),
            issuer.url(),
            issuer.jwks_url()
        );
        engine.script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
        Self {
            gateway: Process::with_config(&text).await,
            engine,
            token: alice(&issuer),
            _issuer: issuer,
        }
    }

    fn get(&self, path: &str) -> Request<Body> {
        let request = Request::get(path).header("authorization", &self.token);
        request.body(Body::empty()).unwrap()
    }
}

async fn refused(address: SocketAddr) {
    soon("the refusal", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_in_flight_end_well_after_a_signal_and_new_connections_are_refused() {
    for signal in ["TERM", "INT"] {
        let mut ending = Ending::start("30s").await;
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            let (address, request) = (ending.gateway.address, ending.get("/api/slow"));
            tasks.spawn(async move {
                let client = Client::connect(address, Protocol::BOTH[number % 2]).await;
                let answer = client.send(request).await.unwrap();
                whole(answer).await.unwrap().status()
            });
        }
        // Connections without a request do not hold it up, said anything or not.
        let mut silent = Raw::connect(ending.gateway.address).await;
        let mut idle = Raw::connect(ending.gateway.address).await;
        let health = idle.ask("GET /health HTTP/1.1\r\nHost: g\r\n\r\n").await;
        assert_eq!(health.status, 200);
        ending.engine.forget_requests();
        let engine = &ending.engine;
        eventually("the requests", || engine.open_connections() >= 20).await;
        ending.gateway.signal(signal).await;
        refused(ending.gateway.address).await;
        assert!(silent.until_closed().await.is_empty());
        assert!(idle.until_closed().await.is_empty());
        assert_eq!(
            ending.gateway.child.try_wait().unwrap(),
            None,
            "requests are in flight"
        );
        ending.engine.release(20);
        for status in soon("the answers", tasks.join_all()).await {
            assert_eq!(status, 200, "{signal}");
        }
        assert_eq!(ending.gateway.ended().await, Some(0), "{signal}");
    }
}

#[tokio::test]
async fn an_answer_that_is_being_sent_is_sent_to_its_end_after_a_signal() {
    let mut ending = Ending::start("30s").await;
    let (length, framing) = (64 << 20, Framing::Length);
    ending
        .engine
        .script("/engine-rest/long", Script::Download { length, framing });
    let mut answers = Vec::new();
    for protocol in Protocol::BOTH {
        let client = Client::connect(ending.gateway.address, protocol).await;
        let answer = client.send(ending.get("/api/long")).await.unwrap();
        answers.push((client, answer));
    }
    ending.gateway.signal("TERM").await;
    refused(ending.gateway.address).await;
    for (_client, answer) in answers {
        assert_eq!(whole(answer).await.unwrap().body().len() as u64, length);
    }
    assert_eq!(ending.gateway.ended().await, Some(0));
}

#[tokio::test]
async fn what_is_left_when_the_grace_is_over_is_cut() {
    let mut ending = Ending::start("300ms").await;
    let client = Client::connect(ending.gateway.address, Protocol::Http1).await;
    let (answer, ended) = tokio::join!(client.send(ending.get("/api/slow")), async {
        let engine = &ending.engine;
        eventually("the request", || {
            engine.requests_to("/engine-rest/slow") == 1
        })
        .await;
        ending.gateway.signal("TERM").await;
        let status = ending.gateway.child.wait();
        soon("its end", status).await.unwrap().code()
    });
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(ended, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut ending = Ending::start("1h").await;
    let client = Client::connect(ending.gateway.address, Protocol::Http1).await;
    let (answer, ended) = tokio::join!(client.send(ending.get("/api/slow")), async {
        let engine = &ending.engine;
        eventually("the request", || {
            engine.requests_to("/engine-rest/slow") == 1
        })
        .await;
        ending.gateway.signal("TERM").await;
        // Two signals at the same moment would be one.
        refused(ending.gateway.address).await;
        ending.gateway.signal("TERM").await;
        let status = ending.gateway.child.wait();
        soon("its end", status).await.unwrap().code()
    });
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(ended, Some(1));
}

/// A worker that has waited in vain asks again; one whose connection breaks has an error.
#[tokio::test]
async fn long_polls_that_are_left_are_answered_as_the_engine_would_and_all_else_is_cut() {
    let mut ending = Ending::start("2s").await;
    let path = "/engine-rest/external-task/fetchAndLock";
    ending
        .engine
        .script(path, Script::Gate(Box::new(Script::Echo)));
    let mut polls = JoinSet::new();
    for number in 0..4 {
        let address = ending.gateway.address;
        let request = Request::post("/api/external-task/fetchAndLock")
            .header("authorization", &ending.token)
            .header("content-type", "application/json")
            .body(Body::from(Bytes::from_static(
                br#"{"workerId":"w","maxTasks":1,"asyncResponseTimeout":1800000,"topics":[]}"#,
            )));
        polls.spawn(async move {
            let client = Client::connect(address, Protocol::BOTH[number % 2]).await;
            whole(client.send(request.unwrap()).await.unwrap())
                .await
                .unwrap()
        });
    }
    let other = Client::connect(ending.gateway.address, Protocol::Http1).await;
    let request = ending.get("/api/slow");
    let other = tokio::spawn(async move { other.send(request).await });
    let engine = &ending.engine;
    eventually("the requests", || {
        engine.requests_to(path) == 4 && engine.requests_to("/engine-rest/slow") == 1
    })
    .await;
    let began = std::time::Instant::now();
    ending.gateway.signal("TERM").await;
    for answer in soon("the answers", polls.join_all()).await {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.body().as_ref(), b"[]");
    }
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "not earlier than needed"
    );
    assert!(soon("the cut", other).await.unwrap().is_err());
    assert_eq!(ending.gateway.ended().await, Some(0));
}

/// What a load balancer sends until it has seen that the gateway is not ready is served as before.
#[tokio::test]
async fn it_serves_on_while_it_says_that_it_is_not_ready_for_as_long_as_it_is_told() {
    let mut ending = Ending::with("server.shutdown_delay = \"1500ms\"").await;
    let admin = ending.gateway.admin.unwrap();
    let kept = Client::connect(ending.gateway.address, Protocol::Http1).await;
    let status = async |client: &Client| {
        let answer = client.send(ending.get("/api/task")).await.unwrap();
        whole(answer).await.unwrap().status()
    };
    assert_eq!(status(&kept).await, 200);
    let began = std::time::Instant::now();
    ending.gateway.signal("TERM").await;
    soon("the word that it drains", async {
        while !Raw::connect(admin)
            .await
            .ask("GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n")
            .await
            .body
            .windows(15)
            .any(|text| text == b"\"draining\":true")
        {}
    })
    .await;
    let new = Client::connect(ending.gateway.address, Protocol::Http2).await;
    assert_eq!(status(&new).await, 200);
    assert_eq!(status(&kept).await, 200);
    refused(ending.gateway.address).await;
    assert!(began.elapsed() >= Duration::from_millis(1500));
    assert_eq!(ending.gateway.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_delay_too() {
    let mut ending = Ending::with("server.shutdown_delay = \"1h\"").await;
    let stopping = "a second signal ends it at once";
    ending.gateway.signal("TERM").await;
    eventually(stopping, || ending.gateway.logged(stopping) == 1).await;
    ending.gateway.signal("INT").await;
    assert_eq!(ending.gateway.ended().await, Some(1));
}

#[tokio::test]
async fn a_server_that_has_ended_serves_nobody_any_more() {
    let world = World::with(|config| config.server.shutdown_grace = Duration::ZERO).await;
    let framing = Framing::Length;
    world
        .engine
        .script("/engine-rest/x", Script::HangInBody { after: 10, framing });
    let mut clients = Vec::new();
    for protocol in Protocol::BOTH {
        let client = world.client(protocol).await;
        let request = world
            .request(Method::GET, "/api/x")
            .body(Body::empty())
            .unwrap();
        let mut answer = client.send(request).await.unwrap();
        soon("the first bytes", answer.frame())
            .await
            .unwrap()
            .unwrap();
        clients.push((client, answer));
    }
    world.gateway.stop().await;
    for (_client, answer) in clients {
        assert!(whole(answer).await.is_err());
    }
    let engine = &world.engine;
    eventually("the end of the engine's connections", || {
        engine.open_connections() == 0
    })
    .await;
}
