use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use self::server::{Answer, Server, until};
use super::*;
use crate::token::tests::testing::{self, OTHER_RSA, RSA, jwks, rsa_jwk};

/// An issuer's HTTP server that answers as told, on a port of its own.
pub(crate) mod server {
    use std::collections::HashMap;
    use std::future::pending;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::body::{Body, Bytes};
    use axum::http::{Request, Response, header};
    use futures_util::{StreamExt as _, stream};
    use tokio::sync::Semaphore;

    #[derive(Debug, Clone)]
    pub(crate) enum Answer {
        Json(Vec<u8>),
        /// As `Json`, once the gate is open.
        Gated(Arc<Semaphore>, Vec<u8>),
        Status(u16),
        Redirect(String),
        /// Never.
        Hang,
        /// A body without an end.
        Endless,
        /// A body that ends before it is whole.
        BreakOff,
    }

    #[derive(Clone)]
    pub(crate) struct Server {
        address: SocketAddr,
        answers: Arc<Mutex<HashMap<String, Answer>>>,
        hits: Arc<AtomicUsize>,
    }

    impl Server {
        pub(crate) async fn start() -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = Self {
                address: listener.local_addr().unwrap(),
                answers: Arc::default(),
                hits: Arc::default(),
            };
            let handler = server.clone();
            let router = axum::Router::new().fallback(move |request: Request<Body>| {
                let server = handler.clone();
                async move { server.respond(request.uri().path()).await }
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
            server
        }

        pub(crate) fn url(&self, path: &str) -> String {
            format!("http://{}{path}", self.address)
        }

        pub(crate) fn answer(&self, path: &str, answer: Answer) {
            self.answers.lock().unwrap().insert(path.to_owned(), answer);
        }

        /// How many requests came.
        pub(crate) fn hits(&self) -> usize {
            self.hits.load(Ordering::SeqCst)
        }

        async fn respond(&self, path: &str) -> Response<Body> {
            self.hits.fetch_add(1, Ordering::SeqCst);
            let answer = self.answers.lock().unwrap().get(path).cloned();
            let status = |status| Response::builder().status(status);
            match answer {
                None => status(404).body(Body::empty()),
                Some(Answer::Json(body)) => status(200).body(body.into()),
                Some(Answer::Gated(gate, body)) => {
                    gate.acquire().await.unwrap().forget();
                    status(200).body(body.into())
                }
                Some(Answer::Status(code)) => status(code).body(Body::empty()),
                Some(Answer::Redirect(to)) => {
                    status(302).header(header::LOCATION, to).body(Body::empty())
                }
                Some(Answer::Hang) => pending().await,
                Some(Answer::Endless) => {
                    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]));
                    status(200).body(Body::from_stream(stream::repeat_with(chunk)))
                }
                Some(Answer::BreakOff) => {
                    let start = stream::iter([Ok(Bytes::from_static(b"{\"keys\":["))]);
                    let end = stream::once(async {
                        // What is there goes out first.
                        tokio::task::yield_now().await;
                        Err(std::io::Error::other("broken off on purpose"))
                    });
                    status(200).body(Body::from_stream(start.chain(end)))
                }
            }
            .unwrap()
        }
    }

    /// Waits until it is so; ten seconds are far more than any of it takes.
    pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(std::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn one() -> Vec<u8> {
    jwks(&[rsa_jwk("one", &RSA)])
}

fn two() -> Vec<u8> {
    jwks(&[rsa_jwk("one", &RSA), rsa_jwk("two", &OTHER_RSA)])
}

fn spawn(server: &Server, settings: RefreshSettings) -> Keys {
    let url = server.url("/keys").parse().unwrap();
    Keys::spawn(testing::issuer(), KeySource::JwksUrl(url), settings)
}

/// Fast enough for a test, with everything that must not happen in it far away.
fn settings() -> RefreshSettings {
    RefreshSettings {
        refresh: Duration::from_hours(1),
        cooldown: Duration::from_hours(1),
        timeout: Duration::from_secs(10),
        stale: Duration::from_hours(1),
    }
}

fn ids(keys: &Keys) -> Vec<String> {
    keys.status().key_ids
}

#[tokio::test]
async fn start_waits_for_no_issuer_and_a_hanging_one_times_out() {
    let server = Server::start().await;
    server.answer("/keys", Answer::Hang);
    let settings = RefreshSettings {
        timeout: Duration::from_millis(100),
        ..settings()
    };
    let keys = spawn(&server, settings);
    assert!(keys.current().is_none());
    assert!(!keys.ready().await);
    until("the fetch is given up", || keys.status().failures == 1).await;
    let error = keys.status().last_error.unwrap();
    assert!(error.contains("no answer within 100ms"), "{error}");
}

#[tokio::test]
async fn ready_waits_for_the_first_fetch() {
    let server = Server::start().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    server.answer("/keys", Answer::Gated(Arc::clone(&gate), one()));
    let keys = spawn(&server, settings());
    until("the issuer is asked", || server.hits() == 1).await;
    assert!(keys.current().is_none());
    gate.add_permits(1);
    assert!(keys.ready().await);
    let status = keys.status();
    assert_eq!(
        (status.key_ids, status.keys, status.fetches),
        (vec!["one".to_owned()], 1, 1)
    );
    assert!(status.age.is_some() && status.last_error.is_none());
}

#[tokio::test]
async fn two_hundred_unknown_keys_share_one_fetch_that_brings_the_rotated_key() {
    let server = Server::start().await;
    server.answer("/keys", Answer::Json(one()));
    let cooldown = Duration::from_millis(50);
    let keys = spawn(
        &server,
        RefreshSettings {
            cooldown,
            ..settings()
        },
    );
    assert!(keys.ready().await);
    let begin = Instant::now();
    until("the cool-down is over", || begin.elapsed() > cooldown).await;

    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    server.answer("/keys", Answer::Gated(Arc::clone(&gate), two()));
    let waiting = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..200)
        .map(|_| {
            let (keys, waiting) = (keys.clone(), Arc::clone(&waiting));
            tokio::spawn(async move {
                let fetch = keys.fetch_if_due().expect("the cool-down is over");
                waiting.fetch_add(1, Ordering::SeqCst);
                fetch.await;
                ids(&keys)
            })
        })
        .collect();
    until("all wait", || waiting.load(Ordering::SeqCst) == 200).await;
    until("the issuer is asked", || server.hits() == 2).await;
    gate.add_permits(1000);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), ["one", "two"]);
    }
    assert_eq!(server.hits(), 2, "one fetch at the start, one for all");
}

#[tokio::test]
async fn within_the_cooldown_nothing_is_fetched() {
    let server = Server::start().await;
    server.answer("/keys", Answer::Json(one()));
    let keys = spawn(&server, settings());
    assert!(keys.ready().await);
    for _ in 0..200 {
        assert!(keys.fetch_if_due().is_none());
    }
    assert_eq!((server.hits(), keys.status().fetches), (1, 1));
}

#[tokio::test]
async fn failed_fetch_keeps_the_old_keys_and_is_tried_again() {
    let server = Server::start().await;
    server.answer("/keys", Answer::Json(one()));
    let settings = RefreshSettings {
        refresh: Duration::from_millis(20),
        cooldown: Duration::from_millis(5),
        ..settings()
    };
    let keys = spawn(&server, settings);
    assert!(keys.ready().await);
    for answer in [
        Answer::Status(500),
        Answer::Json(b"{}".to_vec()),
        Answer::BreakOff,
    ] {
        let failures = keys.status().failures;
        server.answer("/keys", answer.clone());
        until("two fetches fail", || {
            keys.status().failures >= failures + 2
        })
        .await;
        assert_eq!(ids(&keys), ["one"], "{answer:?}");
        assert!(keys.status().last_error.is_some());
    }
    server.answer("/keys", Answer::Json(two()));
    until("the new keys are there", || ids(&keys) == ["one", "two"]).await;
    assert_eq!(keys.status().last_error, None);
}

#[tokio::test]
async fn key_taken_back_by_the_issuer_is_gone_after_the_refresh() {
    let server = Server::start().await;
    server.answer("/keys", Answer::Json(two()));
    let settings = RefreshSettings {
        refresh: Duration::from_millis(20),
        cooldown: Duration::from_millis(5),
        ..settings()
    };
    let keys = spawn(&server, settings);
    assert!(keys.ready().await);
    assert_eq!(ids(&keys), ["one", "two"]);
    server.answer("/keys", Answer::Json(one()));
    until("the old key is gone", || ids(&keys) == ["one"]).await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_task() {
    let server = Server::start().await;
    for answer in [Answer::Json(one()), Answer::Hang] {
        server.answer("/keys", answer);
        let before = server.hits();
        let keys = spawn(&server, settings());
        until("the issuer is asked", || server.hits() > before).await;
        let shared = Arc::downgrade(&keys.shared);
        let clone = keys.clone();
        drop(keys);
        assert!(shared.strong_count() >= 2, "the clone keeps the task");
        drop(clone);
        until("the task ends", || shared.strong_count() == 0).await;
    }
}

/// A key file, so that time can be paused: there is no socket to wait for.
fn spawn_file(content: &[u8], settings: RefreshSettings) -> (TempDir, Keys) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, content).unwrap();
    let keys = Keys::spawn(testing::issuer(), KeySource::File(path), settings);
    (folder, keys)
}

#[tokio::test(start_paused = true)]
async fn file_is_read_again_at_the_refresh_and_not_before() {
    let (folder, keys) = spawn_file(&one(), RefreshSettings::default());
    assert!(keys.ready().await);
    std::fs::write(folder.path().join("keys"), two()).unwrap();
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!((ids(&keys).len(), keys.status().fetches), (1, 1));
    let mut progress = keys.shared.progress.subscribe();
    progress
        .wait_for(|progress| progress.ended == 2)
        .await
        .unwrap();
    assert_eq!(ids(&keys), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn keys_serve_for_a_day_after_the_last_good_fetch_and_no_longer() {
    let (folder, keys) = spawn_file(&one(), RefreshSettings::default());
    assert!(keys.ready().await);
    let fetched = Instant::now();
    std::fs::remove_file(folder.path().join("keys")).unwrap();
    let day = Duration::from_hours(24);
    tokio::time::sleep_until(fetched + day - Duration::from_secs(1)).await;
    assert!(keys.current().is_some());
    tokio::time::sleep_until(fetched + day).await;
    assert!(keys.current().is_none());
    assert!(keys.status().failures > 100, "it was not tried again");
    assert!(keys.status().age.is_some_and(|age| age >= day));
}

#[tokio::test(start_paused = true)]
async fn unknown_key_asks_once_per_cooldown_however_long_it_is_asked() {
    let (_folder, keys) = spawn_file(&one(), RefreshSettings::default());
    assert!(keys.ready().await);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(100) {
        if let Some(fetch) = keys.fetch_if_due() {
            fetch.await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first one, then one in each of the ten cool-downs of 10 s.
    assert!(
        (10..=11).contains(&keys.status().fetches),
        "{:?}",
        keys.status()
    );
}

#[tokio::test(start_paused = true)]
async fn wish_left_over_from_a_fetch_starts_none_within_the_cooldown() {
    let (_folder, keys) = spawn_file(&one(), RefreshSettings::default());
    assert!(keys.ready().await);
    for _ in 0..9 {
        keys.shared.wanted.notify_one();
        // Paused time goes on only when the task has nothing to do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(keys.status().fetches, 1);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(keys.status().fetches, 1, "nobody has asked again");
    assert!(keys.fetch_if_due().is_some());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(keys.status().fetches, 2);
}

#[test]
fn pauses_grow_from_the_cooldown_to_the_refresh_interval() {
    let settings = RefreshSettings::default();
    let pause = |count| {
        Failures {
            count,
            reported: None,
        }
        .pause(settings)
        .as_secs_f64()
    };
    assert!(
        (pause(0) - 600.0).abs() < f64::EPSILON,
        "no jitter without a failure"
    );
    for (count, least) in [
        (1, 10.0),
        (2, 20.0),
        (3, 40.0),
        (6, 320.0),
        (7, 600.0),
        (40, 600.0),
        (u32::MAX, 600.0),
    ] {
        let pause = pause(count);
        assert!((least..=least * 1.5).contains(&pause), "{count}: {pause}");
    }
}

#[test]
fn source_comes_from_the_preset() {
    use crate::token::{IssuerRules, Preset};
    let source = |preset, name: &str| {
        let mut rules = IssuerRules::new(preset, name);
        rules.audience = vec!["us".to_owned()];
        KeySource::of_preset(&Issuer::new(rules).unwrap())
    };
    assert_eq!(
        source(Preset::Clerk, "https://clerk.example.com").unwrap(),
        KeySource::JwksUrl(
            "https://clerk.example.com/.well-known/jwks.json"
                .parse()
                .unwrap()
        )
    );
    assert_eq!(
        source(Preset::Oidc, "https://a.example").unwrap(),
        KeySource::Discovery
    );
    assert!(source(Preset::Clerk, "not a url").is_err());
}
