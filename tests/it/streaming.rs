//! Bodies of any size pass in constant memory, at the pace of the slower side, byte for byte.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use bpmgate::body::{Body, BoxError};
use bpmgate::demo::engine::{Engine, Framing, PATTERN, Script, download_sha256};
use bpmgate::demo::issuer::Issuer;
use bpmgate::demo::raw::RawEngine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{Method, Request};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore};

use super::support::{Client, Process, Protocol, World, alice, eventually, soon, whole};

const MIB: u64 = 1 << 20;

/// What the gateway may grow by while a body of any size passes.
const ALLOWED_GROWTH: u64 = 32 * MIB;

/// An engine, and a gateway in a process of its own: here its peers' memory would count as well.
struct Measured {
    engine: Engine,
    _issuer: Issuer,
    gateway: Process,
    token: String,
}

impl Measured {
    async fn start() -> Self {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let more = "server.limits.request_body = \"2GiB\"";
        let measured = Self {
            gateway: Process::start(&issuer, &engine.url(), more).await,
            engine,
            token: alice(&issuer),
            _issuer: issuer,
        };
        // What is made once for all is no growth.
        for protocol in Protocol::BOTH {
            measured.upload(protocol, Framing::Chunked, MIB).await;
            measured.download(protocol, Framing::Length, MIB).await;
        }
        measured
    }

    async fn upload(&self, protocol: Protocol, framing: Framing, length: u64) {
        self.engine.script("/engine-rest/up", Script::Upload);
        let client = Client::connect(self.gateway.address, protocol).await;
        let answer =
            client.send(self.request(Method::POST, "/api/up", Pattern::body(length, framing)));
        let answer = whole(answer.await.unwrap()).await.unwrap();
        let seen: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(seen["length"], length, "{protocol:?} {framing:?}");
        assert_eq!(
            seen["sha256"],
            download_sha256(length),
            "{protocol:?} {framing:?}"
        );
    }

    async fn download(&self, protocol: Protocol, framing: Framing, length: u64) {
        self.engine
            .script("/engine-rest/down", Script::Download { length, framing });
        let client = Client::connect(self.gateway.address, protocol).await;
        let request = self.request(Method::GET, "/api/down", Body::empty());
        let mut answer = client.send(request).await.unwrap();
        let announced = answer
            .headers()
            .get(CONTENT_LENGTH)
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(
            announced,
            (framing == Framing::Length).then(|| length.to_string())
        );
        let (mut digest, mut came) = (digest::Context::new(&SHA256), 0);
        while let Some(frame) = soon("more of the answer", answer.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            came += data.len() as u64;
            digest.update(&data);
        }
        assert_eq!(came, length, "{protocol:?} {framing:?}");
        let digest = digest.finish();
        let hex = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        assert_eq!(hex, download_sha256(length), "{protocol:?} {framing:?}");
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Request<Body> {
        let request = Request::builder().method(method).uri(path);
        request
            .header(AUTHORIZATION, &self.token)
            .body(body)
            .unwrap()
    }

    /// How much more than now the gateway's memory is at its highest while the future runs.
    async fn growth(&self, future: impl Future<Output = ()>) -> u64 {
        let before = self.gateway.memory("VmRSS");
        future.await;
        self.gateway.memory("VmHWM").saturating_sub(before)
    }
}

/// So many bytes of [`PATTERN`], in pieces.
struct Pattern {
    left: u64,
    offset: usize,
    announced: bool,
}

impl Pattern {
    fn body(length: u64, framing: Framing) -> Body {
        Body::stream(Self {
            left: length,
            offset: 0,
            announced: framing == Framing::Length,
        })
    }
}

impl http_body::Body for Pattern {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        static PIECES: std::sync::LazyLock<Bytes> = std::sync::LazyLock::new(|| {
            PATTERN
                .iter()
                .copied()
                .cycle()
                .take(300 * PATTERN.len())
                .collect()
        });
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = (64 << 10).min(self.left);
        let piece = PIECES.slice(self.offset..self.offset + usize::try_from(most).unwrap());
        self.offset = (self.offset + piece.len()) % PATTERN.len();
        self.left -= most;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.announced {
            SizeHint::with_exact(self.left)
        } else {
            SizeHint::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_1_gib_passes_while_memory_grows_by_less_than_32_mib() {
    let measured = Measured::start().await;
    let upload = measured.upload(Protocol::Http1, Framing::Length, 1024 * MIB);
    let growth = measured.growth(upload).await;
    assert!(growth < ALLOWED_GROWTH, "{growth} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_of_1_gib_passes_while_memory_grows_by_less_than_32_mib() {
    let measured = Measured::start().await;
    let download = measured.download(Protocol::Http1, Framing::Length, 1024 * MIB);
    let growth = measured.growth(download).await;
    assert!(growth < ALLOWED_GROWTH, "{growth} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_in_constant_memory_whatever_their_framing_and_protocol() {
    let measured = Measured::start().await;
    for protocol in Protocol::BOTH {
        for framing in [Framing::Length, Framing::Chunked] {
            let length = 64 * MIB + 17;
            let growth = measured
                .growth(measured.upload(protocol, framing, length))
                .await;
            assert!(
                growth < ALLOWED_GROWTH,
                "upload {protocol:?} {framing:?}: {growth} bytes"
            );
            let growth = measured
                .growth(measured.download(protocol, framing, length))
                .await;
            assert!(
                growth < ALLOWED_GROWTH,
                "download {protocol:?} {framing:?}: {growth} bytes"
            );
        }
    }
}

/// A write that takes longer has stalled: the peer's side of the gateway is full.
const STALLED: Duration = Duration::from_millis(500);

/// What may be under way between two peers that do not go on: the sockets' buffers and ours.
const UNDER_WAY: u64 = 48 * MIB;

#[tokio::test]
async fn a_client_that_does_not_read_stalls_the_engine() {
    for protocol in Protocol::BOTH {
        let (written, stalled) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let (count, tell) = (written.clone(), stalled.clone());
        let engine = RawEngine::start(move |_, mut stream| {
            let (count, tell) = (count.clone(), tell.clone());
            async move {
                stream.read_u8().await?;
                let head = format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n", 1024 * MIB);
                stream.write_all(head.as_bytes()).await?;
                let piece = vec![b'x'; 64 << 10];
                loop {
                    let write = stream.write(&piece);
                    tokio::pin!(write);
                    let wrote = if let Ok(wrote) = tokio::time::timeout(STALLED, &mut write).await {
                        wrote?
                    } else {
                        tell.notify_one();
                        write.await?
                    };
                    count.fetch_add(wrote as u64, Ordering::SeqCst);
                }
            }
        });
        let world = World::raw(engine.await).await;
        let client = world.client(protocol).await;
        let request = world
            .request(Method::GET, "/api/x")
            .body(Body::empty())
            .unwrap();
        let mut answer = client.send(request).await.unwrap();
        soon("the stall", stalled.notified()).await;
        let before = written.load(Ordering::SeqCst);
        assert!(before < UNDER_WAY, "{protocol:?}: {before} bytes");
        let mut came = 0;
        while came < before + MIB {
            let frame = soon("more of the answer", answer.frame())
                .await
                .unwrap()
                .unwrap();
            came += frame.into_data().unwrap().len() as u64;
        }
        assert!(written.load(Ordering::SeqCst) > before, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_engine_that_does_not_read_stalls_the_client() {
    const LENGTH: u64 = 128 * MIB;
    for (protocol, framing) in [
        (Protocol::Http1, Framing::Length),
        (Protocol::Http1, Framing::Chunked),
        (Protocol::Http2, Framing::Chunked),
    ] {
        let gate = Arc::new(Semaphore::new(0));
        let opens = gate.clone();
        let engine = RawEngine::start(move |_, mut stream| {
            let opens = opens.clone();
            async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let _open = opens.acquire().await;
                let (mut read, mut end, mut buffer) = (0, Vec::new(), vec![0; 64 << 10]);
                while framing == Framing::Chunked && !end.ends_with(b"\r\n0\r\n\r\n")
                    || framing == Framing::Length && read < LENGTH
                {
                    let came = stream.read(&mut buffer).await?;
                    read += came as u64;
                    end.extend_from_slice(&buffer[came.saturating_sub(7)..came]);
                    end.drain(..end.len().saturating_sub(7));
                }
                stream.write_all(b"HTTP/1.1 204 \r\n\r\n").await
            }
        });
        let world = World::raw(engine.await).await;
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let body = Pattern::body(LENGTH, framing).map_frame(move |frame| {
            count.fetch_add(frame.data_ref().unwrap().len() as u64, Ordering::SeqCst);
            frame
        });
        let client = world.client(protocol).await;
        let mut request = world.request(Method::POST, "/api/x");
        if framing == Framing::Length {
            request = request.header(CONTENT_LENGTH, LENGTH);
        }
        let request = request.body(Body::stream(body)).unwrap();
        let stalls = async {
            let (mut last, mut since) = (0, tokio::time::Instant::now());
            eventually("the stall", || {
                let now = taken.load(Ordering::SeqCst);
                if now != last {
                    (last, since) = (now, tokio::time::Instant::now());
                }
                now > 0 && since.elapsed() > STALLED
            })
            .await;
            assert!(last < UNDER_WAY, "{protocol:?} {framing:?}: {last} bytes");
            gate.add_permits(1);
        };
        let (answer, ()) = tokio::join!(client.send(request), stalls);
        let answer = whole(answer.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 204, "{protocol:?} {framing:?}: {answer:?}");
        assert_eq!(
            taken.load(Ordering::SeqCst),
            LENGTH,
            "{protocol:?} {framing:?}"
        );
    }
}

#[tokio::test]
async fn an_upload_begins_at_the_engine_before_the_client_has_sent_it_all() {
    let world = World::start().await;
    world.engine.script("/engine-rest/up", Script::Upload);
    for (protocol, announced) in [
        (Protocol::Http1, true),
        (Protocol::Http1, false),
        (Protocol::Http2, false),
    ] {
        world.engine.forget_requests();
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::poll_fn(move |cx| {
            receiver
                .poll_recv(cx)
                .map(|data| data.map(|data| Ok::<_, BoxError>(Frame::data(data))))
        });
        let mut request = world.request(Method::POST, "/api/up");
        if announced {
            request = request.header(CONTENT_LENGTH, "10");
        }
        let body = Body::stream(http_body_util::StreamBody::new(frames));
        let client = world.client(protocol).await;
        let sends = async {
            sender.send(Bytes::from_static(b"hello")).await.unwrap();
            let engine = &world.engine;
            eventually("the first half at the engine", || {
                engine
                    .requests()
                    .first()
                    .is_some_and(|request| request.body == "hello")
            })
            .await;
            sender.send(Bytes::from_static(b"world")).await.unwrap();
            drop(sender);
        };
        let (answer, ()) = tokio::join!(client.send(request.body(body).unwrap()), sends);
        let answer = whole(answer.unwrap()).await.unwrap();
        let seen: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(seen["length"], 10, "{protocol:?} {announced}");
    }
}

#[tokio::test]
async fn an_answer_begins_at_the_client_before_the_engine_has_sent_it_all() {
    let world = World::start().await;
    for framing in [Framing::Length, Framing::Chunked] {
        world.engine.script(
            "/engine-rest/down",
            Script::HangInBody { after: 10, framing },
        );
        for protocol in Protocol::BOTH {
            let client = world.client(protocol).await;
            let request = world
                .request(Method::GET, "/api/down")
                .body(Body::empty())
                .unwrap();
            let mut answer = client.send(request).await.unwrap();
            let mut came = Vec::new();
            while came.len() < 10 {
                let frame = soon("the first bytes", answer.frame())
                    .await
                    .unwrap()
                    .unwrap();
                came.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(came, PATTERN[..10], "{framing:?} {protocol:?}");
        }
    }
}
