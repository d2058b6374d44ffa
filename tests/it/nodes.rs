//! Several nodes of one engine: who gets what, who is left out, and what a node that goes away costs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bpmgate::body::{Body, BoxError};
use bpmgate::config::Config;
use bpmgate::demo::engine::{Engine, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use super::support::{
    Client, Gateway, Process, Protocol, alice, code, config, eventually, soon, whole,
};

const START: &str = "/api/process-definition/key/approval/start";

/// Engines in memory as nodes, and a gateway before them in this process, which checks no health unless it is asked.
struct Cluster {
    nodes: Vec<Engine>,
    _issuer: Issuer,
    gateway: Gateway,
    token: String,
}

impl Cluster {
    async fn start(count: usize, change: impl FnOnce(&mut Config)) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Engine::start().await.unwrap());
        }
        // The host of the URL is nobody.
        let mut config = config(&issuer, "http://engine.invalid/engine-rest");
        config.engine.nodes = nodes
            .iter()
            .map(|node| format!("http://{}", node.address()).parse().unwrap())
            .collect();
        change(&mut config);
        Self {
            gateway: Gateway::start(&config).await,
            token: alice(&issuer),
            _issuer: issuer,
            nodes,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.gateway.address, Protocol::Http1).await
    }

    fn request(&self, method: Method, path: &str) -> Request<Body> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", &self.token);
        request.body(Body::empty()).unwrap()
    }

    async fn send(&self, method: Method, path: &str) -> Response<Bytes> {
        let answer = self.client().await.send(self.request(method, path)).await;
        whole(answer.unwrap()).await.unwrap()
    }

    /// Requests that each node has seen for paths that begin so.
    fn seen(&self, path: &str) -> Vec<usize> {
        let path = format!("/engine-rest{path}");
        let seen = self.nodes.iter().map(|node| node.requests_to(&path));
        seen.collect()
    }
}

#[tokio::test]
async fn requests_take_turns_and_those_that_are_held_count() {
    let cluster = Cluster::start(3, |_| ()).await;
    for node in &cluster.nodes {
        node.script("/engine-rest/x", Script::Echo);
        node.script("/engine-rest/slow", Script::Gate(Box::new(Script::Echo)));
    }
    for _ in 0..6 {
        assert_eq!(cluster.send(Method::GET, "/api/x").await.status(), 200);
    }
    assert_eq!(cluster.seen("/x"), [2, 2, 2]);

    // Three are held, one by each node, and then one more by one.
    let mut held = Vec::new();
    for number in 1..=4 {
        let client = cluster.client().await;
        let request = cluster.request(Method::GET, "/api/slow");
        held.push(tokio::spawn(async move {
            client.send(request).await.unwrap().status()
        }));
        eventually("the request", || {
            cluster.seen("/slow").iter().sum::<usize>() == number
        })
        .await;
    }
    let slow = cluster.seen("/slow");
    let busy = slow.iter().position(|count| *count == 2).unwrap();
    for _ in 0..6 {
        assert_eq!(cluster.send(Method::GET, "/api/x").await.status(), 200);
    }
    let mut want = [5, 5, 5];
    want[busy] = 2;
    assert_eq!(cluster.seen("/x"), want, "the other two share them");
    for (node, count) in cluster.nodes.iter().zip(slow) {
        node.release(count);
    }
    for held in held {
        assert_eq!(soon("the answer", held).await.unwrap(), 200);
    }
}

/// Else whoever sends what an engine does not want could have its nodes left out.
#[tokio::test]
async fn a_node_that_breaks_off_uploads_is_not_left_out() {
    let cluster = Cluster::start(2, |config| config.engine.breaker.failures = 3).await;
    cluster.nodes[0].script("/engine-rest/upload", Script::CloseUnread);
    cluster.nodes[1].script("/engine-rest/upload", Script::Upload);
    let mut broken = 0;
    while broken < 6 {
        let frame = || Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![b'x'; 64 << 10])));
        let frames = futures_util::stream::iter(std::iter::repeat_with(frame).take(64));
        let mut request = cluster.request(Method::POST, "/api/upload");
        *request.body_mut() = Body::stream(http_body_util::StreamBody::new(frames));
        let answer = cluster.client().await.send(request).await.unwrap();
        let status = whole(answer).await.unwrap().status().as_u16();
        assert!(matches!(status, 200 | 502), "{status}");
        broken += usize::from(status == 502);
    }
    let before = cluster.nodes[0].request_count();
    for _ in 0..4 {
        cluster.send(Method::GET, "/api/task").await;
    }
    assert_eq!(cluster.nodes[0].request_count() - before, 2);
}

#[tokio::test]
async fn a_get_that_broke_goes_to_another_node_and_a_start_does_not() {
    let cluster = Cluster::start(2, |config| config.engine.retry.attempts = 1).await;
    cluster.nodes[0].script("/engine-rest/", Script::CloseUnanswered);
    cluster.nodes[1].script("/engine-rest/", Script::Echo);
    for _ in 0..4 {
        assert_eq!(cluster.send(Method::GET, "/api/x").await.status(), 200);
    }
    let seen = cluster.seen("/x");
    assert_eq!(seen[1], 4, "one more try was enough for each: {seen:?}");
    assert!(seen[0] >= 1, "{seen:?}");

    let mut answers = Vec::new();
    for _ in 0..2 {
        let answer = cluster.send(Method::POST, START).await;
        answers.push(answer.status().as_u16());
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 502]);
    assert_eq!(cluster.seen("/process-definition"), [1, 1]);
}

#[tokio::test]
async fn what_was_not_sent_goes_to_another_node_whatever_it_is() {
    let mut cluster = Cluster::start(2, |_| ()).await;
    drop(cluster.nodes.remove(0));
    for _ in 0..6 {
        assert_eq!(cluster.send(Method::POST, START).await.status(), 200);
    }
    assert_eq!(cluster.seen("/process-definition"), [6]);
}

#[tokio::test]
async fn a_breaker_keeps_requests_from_a_node_until_one_request_finds_it_well() {
    let pause = Duration::from_millis(300);
    let cluster = Cluster::start(2, |config| {
        config.engine.breaker.failures = 2;
        config.engine.breaker.pause = pause;
        config.engine.retry.attempts = 0;
    })
    .await;
    cluster.nodes[0].script("/engine-rest/", Script::CloseUnanswered);
    cluster.nodes[1].script("/engine-rest/", Script::Echo);
    let mut failed = 0;
    while failed < 2 {
        let answer = cluster.send(Method::DELETE, "/api/x").await;
        if answer.status() == 502 {
            assert_eq!(code(answer.body()), "engine_unreachable");
            failed += 1;
        }
    }
    let opened = Instant::now();
    let mut asked = 0;
    while opened.elapsed() < pause / 2 {
        assert_eq!(cluster.send(Method::DELETE, "/api/x").await.status(), 200);
        asked += 1;
    }
    assert!(asked > 2, "{asked}");
    assert_eq!(cluster.seen("/x")[0], 2, "it was left alone");
    cluster.nodes[0].clear_scripts();
    cluster.nodes[0].script("/engine-rest/", Script::Echo);
    soon("its next request", async {
        while cluster.seen("/x")[0] == 2 {
            assert_eq!(cluster.send(Method::DELETE, "/api/x").await.status(), 200);
        }
    })
    .await;
    let before = cluster.seen("/x")[0];
    for _ in 0..4 {
        assert_eq!(cluster.send(Method::DELETE, "/api/x").await.status(), 200);
    }
    assert_eq!(cluster.seen("/x")[0], before + 2, "it has its share again");
}

#[tokio::test]
async fn one_node_alone_gets_every_request_however_often_it_fails() {
    let cluster = Cluster::start(1, |config| {
        config.engine.breaker.failures = 1;
        config.engine.retry.attempts = 0;
    })
    .await;
    cluster.nodes[0].script("/engine-rest/", Script::CloseUnanswered);
    for _ in 0..5 {
        assert_eq!(cluster.send(Method::DELETE, "/api/x").await.status(), 502);
    }
    cluster.nodes[0].clear_scripts();
    cluster.nodes[0].script("/engine-rest/", Script::Echo);
    assert_eq!(cluster.send(Method::DELETE, "/api/x").await.status(), 200);
    assert_eq!(cluster.seen("/x"), [6]);
}

#[tokio::test]
async fn what_the_budget_does_not_have_is_not_sent_again() {
    let cluster = Cluster::start(1, |config| {
        config.engine.retry.budget_percent = 20;
        config.engine.retry.budget_floor = 0;
    })
    .await;
    cluster.nodes[0].script("/engine-rest/", Script::CloseUnanswered);
    for _ in 0..10 {
        assert_eq!(cluster.send(Method::GET, "/api/x").await.status(), 502);
    }
    assert_eq!(cluster.seen("/x"), [12]);
}

#[tokio::test]
async fn each_node_is_told_its_own_host_where_the_clients_is_not_kept() {
    let cluster = Cluster::start(2, |config| config.engine.preserve_host = false).await;
    for node in &cluster.nodes {
        node.script("/engine-rest/x", Script::Echo);
    }
    for _ in 0..2 {
        cluster.send(Method::GET, "/api/x").await;
    }
    for node in &cluster.nodes {
        let requests = node.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].headers["host"], node.address().to_string());
    }
}

#[tokio::test]
async fn a_connection_is_given_up_at_its_age() {
    let age = Duration::from_millis(500);
    let cluster = Cluster::start(1, |config| config.engine.timeouts.connection_age = age).await;
    let node = &cluster.nodes[0];
    node.script("/engine-rest/x", Script::Echo);
    let opened = Instant::now();
    cluster.send(Method::GET, "/api/x").await;
    // It is used again and again, so it is never silent for long; but less than the hundred times after which the
    // engine closes it.
    soon("another connection", async {
        while node.connections() == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(cluster.send(Method::GET, "/api/x").await.status(), 200);
        }
    })
    .await;
    assert!(opened.elapsed() + Duration::from_millis(50) >= age);
    assert!(node.requests_to("/engine-rest/x") > 2, "it was used again");
}

/// The gateway's own binary before these nodes.
pub(crate) struct Watched {
    pub(crate) gateway: Process,
    _issuer: Issuer,
    pub(crate) token: String,
}

impl Watched {
    pub(crate) async fn start(nodes: &[SocketAddr], more: &[(&str, &str)]) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let nodes = nodes.iter().map(|node| format!("http://{node}"));
        let nodes = nodes.collect::<Vec<_>>().join(",");
        let (name, keys) = (issuer.url(), issuer.jwks_url());
        let mut environment = vec![
            ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__ADMIN__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__ENGINE__NODES", &nodes),
            ("BPMGATE__ENGINE__HEALTH__INTERVAL", "100ms"),
            ("BPMGATE__ENGINE__HEALTH__TIMEOUT", "2s"),
            ("BPMGATE__ENGINE__RETRY__BACKOFF", "20ms"),
            ("BPMGATE__ACCESS__DEFAULT", "transparent"),
            ("BPMGATE__INITIATOR__MODEL_INITIATOR", "false"),
            ("BPMGATE__ISSUERS__0__ISSUER", &name),
            ("BPMGATE__ISSUERS__0__JWKS_URL", &keys),
            ("BPMGATE__ISSUERS__0__AUDIENCE", super::support::AUDIENCE),
        ];
        environment.extend(more);
        Self {
            gateway: Process::with_environment(&environment).await,
            token: alice(&issuer),
            _issuer: issuer,
        }
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let client = Client::connect(self.gateway.admin.unwrap(), Protocol::Http1).await;
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        let text = String::from_utf8(answer.body().to_vec()).unwrap();
        (answer.status().as_u16(), text)
    }

    async fn shape(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.admin(path).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Asks until that is missing.
    pub(crate) async fn nodes_down(&self, want: &[SocketAddr]) {
        let want: Vec<_> = want.iter().map(ToString::to_string).collect();
        soon("that health", async {
            loop {
                let (_, ready) = self.shape("/readyz").await;
                if ready["engine_nodes_down"] == json!(want) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn get(&self, path: &str) -> u16 {
        let client = Client::connect(self.gateway.address, Protocol::Http1).await;
        let request = Request::get(path).header("authorization", &self.token);
        let request = request.body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        answer.status().as_u16()
    }
}

#[tokio::test]
async fn a_node_that_fails_its_check_gets_nothing_while_another_is_there_and_all_is_told() {
    let nodes = [
        Engine::start().await.unwrap(),
        Engine::start().await.unwrap(),
    ];
    let [first, second] = &nodes;
    for node in &nodes {
        node.script("/engine-rest/x", Script::Echo);
    }
    let addresses = [first.address(), second.address()];
    let timeout = ("BPMGATE__ENGINE__HEALTH__TIMEOUT", "300ms");
    let world = Watched::start(&addresses, &[timeout]).await;
    world.nodes_down(&[]).await;
    // It takes connections and never answers.
    first.script("/engine-rest/version", Script::HangBeforeHeaders);
    world.nodes_down(&addresses[..1]).await;
    for _ in 0..6 {
        assert_eq!(world.get("/api/x").await, 200);
    }
    let seen = |node: &Engine| node.requests_to("/engine-rest/x");
    assert_eq!((seen(first), seen(second)), (0, 6));

    let (status, ready) = world.shape("/readyz").await;
    assert_eq!((status, &ready["engine_reachable"]), (200, &json!(true)));
    let (_, status) = world.shape("/status").await;
    let [down, up] = [&status["engine_nodes"][0], &status["engine_nodes"][1]];
    assert_eq!(down["node"], addresses[0].to_string());
    assert_eq!((&down["up"], &down["status"]), (&json!(false), &json!(504)));
    assert_eq!(up["node"], addresses[1].to_string());
    assert_eq!((&up["up"], &up["status"]), (&json!(true), &json!(200)));
    assert_eq!(up["breaker"], "closed");
    assert!(up["version"].as_str().unwrap().starts_with('1'), "{up}");
    let (_, metrics) = world.admin("/metrics").await;
    for line in [
        format!("bpmgate_engine_node_up{{node=\"{}\"}} 0\n", addresses[0]),
        format!("bpmgate_engine_node_up{{node=\"{}\"}} 1\n", addresses[1]),
        format!(
            "bpmgate_engine_breaker{{node=\"{}\",state=\"closed\"}} 1\n",
            addresses[1]
        ),
        format!(
            "bpmgate_engine_breaker{{node=\"{}\",state=\"open\"}} 0\n",
            addresses[1]
        ),
    ] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let value = |series: String| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.expect(&series).trim().parse().unwrap()
    };
    let second_label = format!("{{node=\"{}\"", addresses[1]);
    assert!(value(format!("bpmgate_engine_requests_total{second_label}}}")) >= 6.0);
    let connections = |state| {
        value(format!(
            "bpmgate_engine_connections{second_label},state=\"{state}\"}}"
        ))
    };
    assert!(
        connections("busy") + connections("idle") >= 1.0,
        "{metrics}"
    );

    // Where both are down they are better than nothing, and the gateway is not ready.
    second.script("/engine-rest/version", Script::HangBeforeHeaders);
    world.nodes_down(&addresses).await;
    assert_eq!(world.shape("/readyz").await.0, 503);
    assert_eq!(world.get("/api/x").await, 200);
    first.clear_scripts();
    first.script("/engine-rest/x", Script::Echo);
    world.nodes_down(&addresses[1..]).await;
    let (before, other) = (seen(first), seen(second));
    for _ in 0..4 {
        assert_eq!(world.get("/api/x").await, 200);
    }
    assert_eq!((seen(first), seen(second)), (before + 4, other));
    let log = world.gateway.log.lock().unwrap();
    for event in [
        "engine node fails its health check",
        "engine node passes its health check again",
    ] {
        assert!(log.contains(event), "{log}");
    }
}
