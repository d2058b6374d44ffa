//! Nodes of an engine that crash and come back under load: no read fails, no start is done twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::raw::{RawEngine, read_request};
use bytes::Bytes;
use http::{Method, Request};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::nodes::Watched;
use crate::support::{Client, Protocol, eventually, soon, whole};

const START: &str = "/api/process-definition/key/approval/start";

/// What a node notes, in lists that outlive it.
#[derive(Debug, Clone, Default)]
struct Notes {
    /// The business keys of starts, done whether their answers arrive or not.
    done: Arc<Mutex<Vec<String>>>,
    /// Requests but health checks.
    requests: Arc<AtomicUsize>,
    /// Whether it is about to go, so that it fails its health check.
    is_leaving: Arc<AtomicBool>,
}

async fn node(address: SocketAddr, notes: &Notes) -> RawEngine {
    let notes = notes.clone();
    let serve = move |_, mut stream: TcpStream| {
        let notes = notes.clone();
        async move {
            loop {
                let request = read_request(&mut stream).await?;
                let head = request.head_text();
                let is_check = head.starts_with("GET /engine-rest/version ");
                if !is_check {
                    notes.requests.fetch_add(1, Ordering::SeqCst);
                }
                if head.starts_with("POST ") {
                    let key = business_key(&String::from_utf8_lossy(&request.body));
                    notes.done.lock().unwrap().push(key);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                let status = if is_check && notes.is_leaving.load(Ordering::SeqCst) {
                    503
                } else {
                    200
                };
                let answer = format!(
                    "HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{{\"version\":\"7.24.0\"}}"
                );
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    };
    soon("the address", async {
        loop {
            match RawEngine::start_at(address, serve.clone()).await {
                Ok(engine) => return engine,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

pub(super) fn business_key(body: &str) -> String {
    let from = body.find("key-").expect(body);
    let key = &body[from..];
    key[..key.find('"').unwrap()].to_owned()
}

/// What a client was told of its start, and when it had asked.
struct Told {
    key: String,
    asked: Instant,
    status: u16,
}

/// Three nodes, and clients that read and start until they are stopped.
struct Loaded {
    world: Arc<Watched>,
    nodes: Vec<(RawEngine, Notes)>,
    /// What each client has read.
    gets: Arc<[AtomicUsize; CLIENTS]>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Told>>>,
}

const CLIENTS: usize = 16;

impl Loaded {
    async fn start() -> Self {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let notes = Notes::default();
            nodes.push((node(any, &notes).await, notes));
        }
        let addresses: Vec<_> = nodes.iter().map(|(node, _)| node.address()).collect();
        let world = Arc::new(Watched::start(&addresses, &[]).await);
        world.nodes_down(&[]).await;
        let (gets, stop) = (Arc::<[_; CLIENTS]>::default(), Arc::<AtomicBool>::default());
        let clients = (0..CLIENTS)
            .map(|number| {
                let (world, stop, gets) = (world.clone(), stop.clone(), gets.clone());
                tokio::spawn(read_and_start(number, world, stop, gets))
            })
            .collect();
        Self {
            world,
            nodes,
            gets,
            stop,
            clients,
        }
    }

    /// Waits until so many more have been read.
    async fn passed(&self, more: usize) {
        let read = || -> usize { self.read().iter().sum() };
        let goal = read() + more;
        eventually("more requests", || read() >= goal).await;
    }

    /// Waits until whatever was on its way now has ended: each client has one request at a time, and reads after it.
    async fn all_passed(&self) {
        let before = self.read();
        let has_passed = |(now, before): (&usize, &usize)| *now > before + 1;
        eventually("all clients", || {
            self.read().iter().zip(&before).all(has_passed)
        })
        .await;
    }

    fn read(&self) -> Vec<usize> {
        let gets = self.gets.iter().map(|gets| gets.load(Ordering::SeqCst));
        gets.collect()
    }

    /// Ends a node as a crash does; gives its address and its notes.
    async fn end(&mut self, place: usize) -> (SocketAddr, Notes) {
        let (node, notes) = self.nodes.remove(place);
        let address = node.address();
        drop(node);
        soon("its end", async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        (address, notes)
    }

    /// Lets it come back to its address, and waits until it has its share again.
    async fn come_back(&mut self, place: usize, (address, notes): (SocketAddr, Notes)) {
        notes.is_leaving.store(false, Ordering::SeqCst);
        let back = node(address, &notes).await;
        self.nodes.insert(place, (back, notes.clone()));
        self.world.nodes_down(&[]).await;
        let before = notes.requests.load(Ordering::SeqCst);
        eventually("its share", || {
            notes.requests.load(Ordering::SeqCst) > before + 20
        })
        .await;
    }

    /// What the clients were told, and how often each start was done.
    async fn ended(self) -> (Vec<Told>, HashMap<String, usize>) {
        self.passed(100).await;
        self.stop.store(true, Ordering::SeqCst);
        let mut told = Vec::new();
        for client in self.clients {
            told.extend(soon("a client's end", client).await.unwrap());
        }
        let mut times = HashMap::<String, usize>::new();
        for (_, notes) in &self.nodes {
            for key in notes.done.lock().unwrap().iter() {
                *times.entry(key.clone()).or_default() += 1;
            }
        }
        assert!(told.len() > 500, "{}", told.len());
        (told, times)
    }
}

/// Every `GET` must succeed.
async fn read_and_start(
    number: usize,
    world: Arc<Watched>,
    stop: Arc<AtomicBool>,
    gets: Arc<[AtomicUsize; CLIENTS]>,
) -> Vec<Told> {
    let client = Client::connect(world.gateway.address, Protocol::Http1).await;
    let ask = async |method: Method, path: &str, body: String| {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("authorization", &world.token)
            .header("content-type", "application/json");
        let request = request.body(Body::from(Bytes::from(body))).unwrap();
        whole(client.send(request).await.unwrap()).await.unwrap()
    };
    let mut told = Vec::new();
    for count in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let answer = ask(Method::GET, "/api/task", String::new()).await;
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        gets[number].fetch_add(1, Ordering::SeqCst);
        let key = format!("key-{number}-{count}");
        let asked = Instant::now();
        let body = json!({"businessKey": key}).to_string();
        let status = ask(Method::POST, START, body).await.status().as_u16();
        told.push(Told { key, asked, status });
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_crash_under_load_cost_no_get_and_do_no_start_twice() {
    let mut loaded = Loaded::start().await;
    let mut crashes = Vec::new();
    for place in 0..3 {
        loaded.passed(100).await;
        let began = Instant::now();
        let gone = loaded.end(place).await;
        // The last that it was sent has broken by then.
        crashes.push((began, Instant::now() + Duration::from_millis(100)));
        loaded.passed(200).await;
        loaded.come_back(place, gone).await;
    }
    let (told, times) = loaded.ended().await;
    let mut lost = 0;
    for Told { key, asked, status } in &told {
        let times = times.get(key).copied().unwrap_or_default();
        match status {
            200 => assert_eq!(times, 1, "{key}"),
            // It was sent and got no answer: nobody knows whether it was done, so it is not sent again.
            502 => {
                lost += 1;
                assert!(times <= 1, "{key} was done {times} times");
                let in_a_crash = crashes.iter().any(|(began, over)| {
                    *asked < *over && *asked + Duration::from_secs(1) > *began
                });
                assert!(in_a_crash, "{key} could have been saved");
            }
            other => panic!("{other} for {key}"),
        }
    }
    assert!(
        lost <= CLIENTS * crashes.len(),
        "{lost} of {} starts",
        told.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_fail_their_check_before_they_restart_cost_nothing_under_load() {
    let mut loaded = Loaded::start().await;
    for place in 0..3 {
        loaded.passed(100).await;
        let (node, notes) = &loaded.nodes[place];
        let address = node.address();
        notes.is_leaving.store(true, Ordering::SeqCst);
        loaded.world.nodes_down(&[address]).await;
        loaded.all_passed().await;
        let gone = loaded.end(place).await;
        loaded.passed(200).await;
        loaded.come_back(place, gone).await;
    }
    let (told, times) = loaded.ended().await;
    for Told { key, status, .. } in &told {
        assert_eq!((*status, times.get(key)), (200, Some(&1)), "{key}");
    }
    assert_eq!(times.len(), told.len());
}
