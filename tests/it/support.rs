//! What the tests stand on: a gateway in this process or in one of its own, clients of HTTP and of bytes.
//!
//! The issuer and the engines are those of [`bpmgate::demo`]. Every wait ends with what it waits for, and
//! fails the test after [`DEADLINE`].

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::config::{self, Config};
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::Issuer;
use bpmgate::demo::raw::RawEngine;
use bpmgate::engine::EngineClient;
use bpmgate::gateway::{Resources, stack};
use bpmgate::server::{Connections, Limits, Server, Tls};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Request, Response, Uri, request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything that must come may take before the test fails: generous, for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come within {DEADLINE:?}"))
}

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An engine, an issuer and a gateway between them, which lets Alice do everything.
pub(crate) struct World<E = Engine> {
    pub(crate) engine: E,
    pub(crate) issuer: Issuer,
    pub(crate) gateway: Gateway,
    /// `Bearer …` of Alice, as [`alice`] signs it.
    pub(crate) token: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// `change` has the last word on the configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let engine = Engine::start().await.unwrap();
        let url = engine.url();
        Self::over(engine, &url, change).await
    }

    /// Over an engine with settings of its own.
    pub(crate) async fn over_engine(engine: Engine) -> Self {
        let url = engine.url();
        Self::over(engine, &url, |_| ()).await
    }
}

impl World<RawEngine> {
    /// Over an engine of bytes.
    pub(crate) async fn raw(engine: std::io::Result<RawEngine>) -> Self {
        let engine = engine.unwrap();
        let url = engine.url();
        Self::over(engine, &url, |_| ()).await
    }
}

impl<E> World<E> {
    /// Over an engine of one's own; `change` has the last word on the configuration.
    pub(crate) async fn over(engine: E, url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let mut config = config(&issuer, url);
        change(&mut config);
        Self {
            gateway: Gateway::start(&config).await,
            token: alice(&issuer),
            engine,
            issuer,
        }
    }

    /// A connection of its own.
    pub(crate) async fn client(&self, protocol: Protocol) -> Client {
        Client::connect(self.gateway.address, protocol).await
    }

    /// A connection of its own.
    pub(crate) async fn raw_client(&self) -> Raw {
        Raw::connect(self.gateway.address).await
    }

    /// The bytes of an HTTP/1 request with Alice's token; `rest` begins with further header fields.
    pub(crate) fn text(&self, line: &str, rest: &str) -> String {
        let token = &self.token;
        format!("{line}\r\nHost: g.example\r\nAuthorization: {token}\r\n{rest}")
    }

    /// Sends such a request on a connection of its own.
    pub(crate) async fn ask(&self, line: &str, rest: &str) -> RawAnswer {
        self.raw_client().await.ask(self.text(line, rest)).await
    }

    /// A request with Alice's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, &self.token)
    }

    /// One request on a connection of its own, with its whole answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Bytes> {
        let client = Client::connect(self.gateway.address, Protocol::Http1).await;
        whole(client.send(request).await.unwrap()).await.unwrap()
    }

    /// `GET` of the path with Alice's token.
    pub(crate) async fn get(&self, path: &str) -> Response<Bytes> {
        let request = self.request(Method::GET, path).body(Body::empty());
        self.send(request.unwrap()).await
    }
}

/// `Bearer …` of Alice: subject `alice`, `alice@example.org`, `Alice Example`.
pub(crate) fn alice(issuer: &Issuer) -> String {
    bearer(issuer, "alice", "alice@example.org", "Alice Example")
}

/// `Bearer …` of anybody.
pub(crate) fn bearer(issuer: &Issuer, subject: &str, email: &str, name: &str) -> String {
    let token =
        issuer.token(&json!({"sub": subject, "email": email, "name": name, "aud": AUDIENCE}));
    format!("Bearer {token}")
}

/// The `aud` that the gateway asks for.
pub(crate) const AUDIENCE: &str = "bpmgate";

/// A configuration for this issuer and this engine: a free port, everything allowed, short pauses between tries.
pub(crate) fn config(issuer: &Issuer, engine_url: &str) -> Config {
    let mut config = Config::default();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.admin.listen = None;
    config.engine.url = engine_url.parse().unwrap();
    config.engine.retry.backoff = Duration::from_millis(20);
    "transparent".clone_into(&mut config.access.default);
    // So that the engine sees the client's requests alone; `models.rs` tests those of the gateway.
    config.initiator.model_initiator = false;
    // All tests are Alice's; `faults.rs` tests what one caller may have at once.
    config.server.limits.requests_in_flight_per_caller = 10_000;
    config.issuers = vec![config::Issuer {
        issuer: issuer.url().parse().unwrap(),
        jwks_url: Some(issuer.jwks_url().parse().unwrap()),
        audience: vec![AUDIENCE.to_owned()],
        ..config::Issuer::default()
    }];
    config
}

/// A gateway in this process, on a port of its own; it is cut when dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(config: &Config) -> Self {
        let resources = Resources::from_config(config).unwrap();
        let engine = EngineClient::from_config(config, &resources.nodes).unwrap();
        let connections = Connections::new(stack(&resources, engine), Limits::from_config(config))
            .with_tls(Tls::from_config(config).unwrap());
        let server = Server::bind(config.server.listen).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        Self {
            address: server.address(),
            stop: Some(stop),
            serving: tokio::spawn(server.serve(connections, stopped, config.server.shutdown_grace)),
        }
    }

    /// Stops it as a signal would, and waits until it has ended.
    pub(crate) async fn stop(mut self) {
        self.stop.take();
        soon("the gateway's end", &mut self.serving).await.unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The gateway's own binary, configured by a file of its own; it is killed when dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    /// Of the operator's listener, where it is on.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) child: tokio::process::Child,
    /// What it has written to standard error so far.
    pub(crate) log: Arc<Mutex<String>>,
    /// Where it works, if that is its own.
    directory: Option<tempfile::TempDir>,
}

impl Process {
    /// Runs `bpmgate serve` for this issuer and this engine, which is asked nothing of the gateway's own accord; `more` is TOML that follows, tables and all.
    pub(crate) async fn start(issuer: &Issuer, engine_url: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let (name, keys) = (issuer.url(), issuer.jwks_url());
        let text = format!(
            "server.listen = \"127.0.0.1:0\"\nserver.limits.requests_in_flight_per_caller = 10000\nadmin.listen = \"\"\nengine.url = \"{engine_url}\"\nengine.health.interval = \"0s\"\n\
             access.default = \"transparent\"\n{more}\n\
             [[issuers]]\nissuer = \"{name}\"\njwks_url = \"{keys}\"\naudience = [\"{AUDIENCE}\"]\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::serve(directory, &[]).await
    }

    /// Runs `bpmgate serve` with nothing but these environment variables.
    pub(crate) async fn with_environment(environment: &[(&str, &str)]) -> Self {
        Self::serve(tempfile::tempdir().unwrap(), environment).await
    }

    /// Runs it with this text as its `config.toml`.
    pub(crate) async fn with_config(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        Self::serve(directory, &[]).await
    }

    /// Runs it in this directory, where a `config.toml` may be.
    async fn serve(directory: tempfile::TempDir, environment: &[(&str, &str)]) -> Self {
        let mut process = Self::serve_in(directory.path(), environment).await;
        process.directory = Some(directory);
        process
    }

    /// Runs it in this directory, where a `config.toml` may be.
    pub(crate) async fn serve_in(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .arg("serve")
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, told) = oneshot::channel();
        let kept = log.clone();
        tokio::spawn(async move {
            let mut tell = Some(tell);
            while let Ok(Some(line)) = lines.next_line().await {
                let address = line.split_once("listening address=");
                // The same line as JSON: `"address":"127.0.0.1:1"`.
                let address = address.or_else(|| {
                    let (_, rest) = line.split_once("\"message\":\"listening\"")?;
                    let (_, rest) = rest.split_once("\"address\":\"")?;
                    rest.split_once('"').map(|(address, rest)| (rest, address))
                });
                if let Some((_, address)) = address
                    && let Some(tell) = tell.take()
                {
                    let (address, admin) = match address.split_once(" admin=") {
                        Some((address, admin)) => (address, Some(admin.parse().unwrap())),
                        None => (address, None),
                    };
                    tell.send((address.parse().unwrap(), admin)).unwrap();
                }
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Ok((address, admin)) = soon("the line `listening`", told).await else {
            panic!("the gateway did not start:\n{}", log.lock().unwrap());
        };
        Self {
            address,
            admin,
            child,
            log,
            directory: None,
        }
    }

    /// A file in the directory that it works in.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.as_ref().expect("its own").path().join(name)
    }

    /// How often this stands in its log so far.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().matches(text).count()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.id()));
        open.unwrap().count()
    }

    /// A line of its `/proc/PID/status`, in bytes: `VmRSS` or `VmHWM`.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        let kib = line.trim_matches([':', ' ', '\t', 'k', 'B']);
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Sends it a signal, by the name that kill(1) knows.
    pub(crate) async fn signal(&self, name: &str) {
        let status = tokio::process::Command::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status();
        assert!(soon("kill", status).await.unwrap().success());
    }

    /// Waits until it has ended; the exit code, `None` after a signal.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        soon("its end", self.child.wait()).await.unwrap().code()
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// With prior knowledge.
    Http2,
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];
}

/// One connection of a well-behaved client; it is closed when dropped.
pub(crate) struct Client {
    address: SocketAddr,
    scheme: http::uri::Scheme,
    sender: tokio::sync::Mutex<Sender>,
    connection: JoinHandle<hyper::Result<()>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, protocol: Protocol) -> Self {
        Self::over(connect(address).await, "http", address, protocol).await
    }

    /// Over a stream that stands.
    pub(crate) async fn over<T>(
        stream: T,
        scheme: &str,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let (sender, connection) = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                (Sender::Http1(sender), tokio::spawn(connection))
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io).await.unwrap();
                (Sender::Http2(sender), tokio::spawn(connection))
            }
        };
        Self {
            address,
            scheme: scheme.parse().unwrap(),
            sender: sender.into(),
            connection,
        }
    }

    /// Sends a request whose URI is a path, once the connection is free, and waits for the answer's head.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        let authority = self.address.to_string();
        let answer = async {
            let mut guard = self.sender.lock().await;
            match &mut *guard {
                Sender::Http1(sender) => {
                    if !request.headers().contains_key(HOST) {
                        let host = authority.parse().unwrap();
                        request.headers_mut().insert(HOST, host);
                    }
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    let mut parts = request.uri().clone().into_parts();
                    parts.scheme = Some(self.scheme.clone());
                    parts.authority = Some(authority.parse().unwrap());
                    *request.uri_mut() = Uri::from_parts(parts).unwrap();
                    *request.version_mut() = http::Version::HTTP_2;
                    let mut stream = sender.clone();
                    // Others need not wait for the answer.
                    drop(guard);
                    stream.ready().await?;
                    stream.send_request(request).await
                }
            }
        };
        soon("the answer's head", answer).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// An answer with its whole body; an error when the body breaks off.
pub(crate) async fn whole(answer: Response<Incoming>) -> hyper::Result<Response<Bytes>> {
    let (head, body) = answer.into_parts();
    let body = soon("the answer's end", body.collect()).await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// The body's `code`: which problem of ours it is.
pub(crate) fn code(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)));
    problem["code"].as_str().expect("a code").to_owned()
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = soon("a connection", TcpStream::connect(address)).await;
    let stream = stream.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client of bytes, for requests and answers that a library would not let through.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// Read from the socket, and not yet taken.
    read: Vec<u8>,
}

/// An answer as it came off the wire.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body without its chunks.
    pub(crate) body: Vec<u8>,
    /// What followed the last chunk.
    pub(crate) trailers: String,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: connect(address).await,
            read: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.stream.write_all(bytes.as_ref());
        soon("the socket to take the bytes", written).await.unwrap();
    }

    /// Writes a request and reads its answer.
    pub(crate) async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> RawAnswer {
        self.write(bytes).await;
        self.answer().await
    }

    /// Reads the next answer, to its end.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        let mut answer = self.head().await;
        let length = answer.headers.get(CONTENT_LENGTH);
        let length = length.map(|length| length.to_str().unwrap().parse().unwrap());
        if matches!(answer.status, 100..200 | 204 | 304) {
            assert!(
                !answer.headers.contains_key(TRANSFER_ENCODING),
                "{answer:?}"
            );
        } else if answer.headers.contains_key(TRANSFER_ENCODING) {
            assert_eq!(length, None, "two framings: {answer:?}");
            loop {
                let size = self.until(b"\r\n").await;
                let size = String::from_utf8(size).unwrap();
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                if size == 0 {
                    break;
                }
                answer.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            while !answer.trailers.ends_with("\r\n\r\n") && answer.trailers != "\r\n" {
                let line = self.until(b"\r\n").await;
                answer
                    .trailers
                    .push_str(std::str::from_utf8(&line).unwrap());
            }
        } else if let Some(length) = length {
            answer.body = self.exactly(length).await;
        } else {
            answer.body = self.until_closed().await;
        }
        answer
    }

    /// Reads the next answer's head alone: to `HEAD` there is no more.
    pub(crate) async fn head(&mut self) -> RawAnswer {
        let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n").await).into_owned();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        let mut headers = HeaderMap::new();
        for line in head.trim_end().split("\r\n").skip(1) {
            let (name, value) = line.split_once(':').expect(line);
            let name = name.parse::<http::HeaderName>().unwrap();
            headers.append(name, value.trim().parse().unwrap());
        }
        RawAnswer {
            status,
            headers,
            body: Vec::new(),
            trailers: String::new(),
        }
    }

    /// Everything until the gateway closes the connection, in whichever way.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Up to and with these bytes.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.read.windows(end.len()).position(|at| at == end);
            if let Some(found) = found {
                return self.read.drain(..found + end.len()).collect();
            }
            let more = self.more().await;
            assert!(
                more,
                "closed after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(
                self.more().await,
                "closed {} bytes short",
                length - self.read.len()
            );
        }
        self.read.drain(..length).collect()
    }

    /// Reads what is there; `false` once the connection is closed.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read);
        soon("more bytes, or the end", read)
            .await
            .is_ok_and(|read| read > 0)
    }
}
