//! TLS towards clients, over real handshakes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::config::{self, Config};
use bpmgate::demo::engine::{Engine, Framing, Script};
use bpmgate::demo::issuer::Issuer;
use bytes::Bytes;
use http::{Method, Request, Response};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::support::{
    Client, Process, Protocol, Raw, World, alice, connect, eventually, soon, whole,
};
use crate::tls::authority;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key.
pub(crate) struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Pair {
    pub(crate) fn new(authority: &Authority, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Self {
            certificate: params.signed_by(&key, authority).unwrap(),
            key,
        }
    }

    /// Writes both into the directory; the paths.
    pub(crate) fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
        std::fs::write(&certificate, self.certificate.pem()).unwrap();
        std::fs::write(&key, self.key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

/// The authority that clients trust, and the files of a gateway's certificate.
struct Files {
    authority: Authority,
    pair: Pair,
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let authority = authority();
        let pair = Pair::new(&authority, "localhost");
        let directory = tempfile::tempdir().unwrap();
        pair.write(directory.path());
        Self {
            authority,
            pair,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn table(&self) -> config::Tls {
        config::Tls {
            certificate_file: self.path("tls.crt"),
            private_key_file: self.path("tls.key"),
            client_ca_file: PathBuf::new(),
        }
    }

    /// The same as text.
    fn toml(&self) -> String {
        let (certificate, key) = (
            self.line("certificate_file", "tls.crt"),
            self.line("private_key_file", "tls.key"),
        );
        format!("[server.tls]\n{certificate}{key}")
    }

    /// A key that names a file.
    fn line(&self, key: &str, file: &str) -> String {
        format!("{key} = '{}'\n", self.path(file).display())
    }

    /// A world whose gateway speaks TLS.
    async fn world(&self, change: impl FnOnce(&mut Config)) -> World {
        World::with(|config| {
            config.server.tls = Some(self.table());
            change(config);
        })
        .await
    }

    /// How a client trusts the authority, and what it offers.
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        shown: Option<&Pair>,
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::try_from(pair.key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![pair.der()], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// The usual client.
    fn usual(&self) -> TlsConnector {
        self.client(&[&TLS13, &TLS12], &["http/1.1"], None)
    }

    /// The certificate that a new handshake is given.
    async fn given(&self, address: SocketAddr) -> CertificateDer<'static> {
        let stream = handshake(&self.usual(), address).await.unwrap();
        let (_, connection) = stream.get_ref();
        connection.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }

    /// Waits until new handshakes are given this one's certificate.
    async fn is_given(&self, address: SocketAddr, pair: &Pair) {
        soon("the new certificate", async {
            while self.given(address).await != pair.der() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

async fn handshake(
    connector: &TlsConnector,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = connect(address).await;
    let name = "localhost".try_into().unwrap();
    soon("the handshake", connector.connect(name, stream)).await
}

async fn client(connector: &TlsConnector, address: SocketAddr, protocol: Protocol) -> Client {
    let stream = handshake(connector, address).await.unwrap();
    Client::over(stream, "https", address, protocol).await
}

async fn get(client: &Client, token: &str) -> Response<Bytes> {
    let request = Request::get("/api/version").header("authorization", token);
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    whole(answer.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_process_is_started_over_each_version_and_protocol() {
    let files = Files::new();
    let world = files.world(|_| ()).await;
    let address = world.gateway.address;
    for (version, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (offered, chosen, protocol) in [
            (&["h2", "http/1.1"][..], Some("h2"), Protocol::Http2),
            (&["http/1.1"], Some("http/1.1"), Protocol::Http1),
            (&[], None, Protocol::Http1),
        ] {
            let connector = files.client(&[version], offered, None);
            let stream = handshake(&connector, address).await.unwrap();
            let (_, connection) = stream.get_ref();
            assert_eq!(connection.protocol_version(), Some(spoken));
            assert_eq!(connection.alpn_protocol(), chosen.map(str::as_bytes));

            let client = Client::over(stream, "https", address, protocol).await;
            let request = world
                .request(Method::POST, "/api/process-definition/key/approval/start")
                .header("content-type", "application/json")
                .body(Body::from(Bytes::from_static(
                    br#"{"variables":{"initiator":{"value":"mallory"}}}"#,
                )))
                .unwrap();
            let answer = whole(client.send(request).await.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200, "{answer:?}");
            let started: Value = serde_json::from_slice(answer.body()).unwrap();
            let link = started["links"][0]["href"].as_str().unwrap();
            let instance = format!("https://{address}/api/process-instance/");
            assert!(link.starts_with(&instance), "{link}");
            let seen = world.engine.requests().pop().unwrap();
            assert_eq!(seen.headers["x-forwarded-proto"], "https");
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            assert_eq!(body["variables"]["initiator"]["value"], "alice");
        }
    }
    assert_eq!(world.engine.request_count(), 6);
    let no_common = files.client(&[&TLS13], &["smtp"], None);
    assert!(handshake(&no_common, address).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_serves_without_a_restart_and_a_bad_one_does_not() {
    let files = Files::new();
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let gateway = Process::start(&issuer, &engine.url(), &files.toml()).await;
    let address = gateway.address;
    let token = alice(&issuer);
    let old = client(&files.usual(), address, Protocol::Http1).await;
    assert_eq!(get(&old, &token).await.status(), 200);
    assert_eq!(files.given(address).await, files.pair.der());

    let renewed = Pair::new(&files.authority, "localhost");
    renewed.write(files.directory.path());
    files.is_given(address, &renewed).await;
    assert_eq!(get(&old, &token).await.status(), 200, "it goes on");

    // Half of the next one: its key is not the certificate's.
    let next = Pair::new(&files.authority, "localhost");
    std::fs::write(files.path("tls.key"), next.key.serialize_pem()).unwrap();
    let log = || gateway.log.lock().unwrap().clone();
    eventually("the error", || {
        log().contains("it is not the key of the certificate in")
    })
    .await;
    assert_eq!(files.given(address).await, renewed.der(), "it is kept");
    std::fs::write(files.path("tls.crt"), "no certificate").unwrap();
    eventually("the error", || log().contains("it holds no certificate")).await;
    std::fs::remove_file(files.path("tls.crt")).unwrap();
    eventually("the error", || log().contains("it cannot be read")).await;
    assert_eq!(files.given(address).await, renewed.der(), "it is kept");

    next.write(files.directory.path());
    files.is_given(address, &next).await;
    assert_eq!(get(&old, &token).await.status(), 200, "it goes on");
    let log = log();
    for pair in [&files.pair, &renewed, &next] {
        let pem = pair.key.serialize_pem();
        for line in pem.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!log.contains(line), "{log}");
        }
    }
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_gets_in() {
    let files = Files::new();
    let (clients, strangers) = (authority(), authority());
    std::fs::write(files.path("clients.pem"), clients.pem()).unwrap();
    let world = files
        .world(|config| {
            config.server.tls.as_mut().unwrap().client_ca_file = files.path("clients.pem");
        })
        .await;
    let address = world.gateway.address;
    for version in [&TLS12, &TLS13] {
        for shown in [None, Some(Pair::new(&strangers, "somebody"))] {
            let connector = files.client(&[version], &["http/1.1"], shown.as_ref());
            assert!(!gets_in(&connector, &world).await);
        }
        let pair = Pair::new(&clients, "somebody");
        let connector = files.client(&[version], &["h2"], Some(&pair));
        let client = client(&connector, address, Protocol::Http2).await;
        assert_eq!(get(&client, &world.token).await.status(), 200);
        let nobody = get(&client, "Bearer x").await;
        assert_eq!(nobody.status(), 401, "it replaces no token");
    }
    assert_eq!(world.engine.request_count(), 2);
}

/// Whether a request over a new connection is answered.
async fn gets_in(connector: &TlsConnector, world: &World) -> bool {
    // In TLS 1.3 the client's side has ended when it is refused.
    let Ok(mut stream) = handshake(connector, world.gateway.address).await else {
        return false;
    };
    let text = world.text("GET /api/version HTTP/1.1", "Connection: close\r\n\r\n");
    let mut read = Vec::new();
    let asked = async {
        stream.write_all(text.as_bytes()).await?;
        stream.read_to_end(&mut read).await
    };
    let asked = soon("the answer or a refusal", asked).await;
    asked.is_ok() && read.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn an_authority_that_is_trusted_no_more_lets_nobody_resume() {
    let files = Files::new();
    let (before, after) = (authority(), authority());
    std::fs::write(files.path("clients.pem"), before.pem()).unwrap();
    let world = files
        .world(|config| {
            config.server.tls.as_mut().unwrap().client_ca_file = files.path("clients.pem");
        })
        .await;
    // Each of them keeps what it needs to resume.
    let of = |authority, version| {
        let pair = Pair::new(authority, "somebody");
        files.client(&[version], &["http/1.1"], Some(&pair))
    };
    let [old12, old13] = [&TLS12, &TLS13].map(|version| of(&before, version));
    let new = of(&after, &TLS13);
    for old in [&old12, &old13] {
        assert!(gets_in(old, &world).await);
        let resumed = handshake(old, world.gateway.address).await.unwrap();
        let (_, connection) = resumed.get_ref();
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    assert!(!gets_in(&new, &world).await);
    std::fs::write(files.path("clients.pem"), after.pem()).unwrap();
    soon("the new authority", async {
        while !gets_in(&new, &world).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    for old in [&old12, &old13] {
        assert!(!gets_in(old, &world).await);
    }
}

#[tokio::test]
async fn a_slow_or_broken_handshake_takes_a_place_for_a_while_and_nothing_else() {
    let files = Files::new();
    let world = files
        .world(|config| {
            config.server.limits.connections = 4;
            config.server.limits.header_read_timeout = Duration::from_secs(4);
        })
        .await;
    let address = world.gateway.address;
    let served = client(&files.usual(), address, Protocol::Http1).await;
    assert_eq!(get(&served, &world.token).await.status(), 200);

    let began = std::time::Instant::now();
    let mut silent = Raw::connect(address).await;
    // A record that does not end, and one that is no handshake.
    let mut slow = Raw::connect(address).await;
    slow.write([22, 3, 1, 2, 0, 1]).await;
    let mut broken = Raw::connect(address).await;
    broken.write([22, 3, 1, 0, 4, 9, 9, 9, 9]).await;
    broken.until_closed().await;
    // The broken one's place, which is the last.
    let other = client(&files.usual(), address, Protocol::Http1).await;
    assert_eq!(get(&other, &world.token).await.status(), 200);
    // One that must wait until the slow ones are cut.
    let waiting = client(&files.usual(), address, Protocol::Http1).await;
    assert!(began.elapsed() >= Duration::from_millis(3900));
    assert_eq!(get(&waiting, &world.token).await.status(), 200);
    assert_eq!(silent.until_closed().await, b"");
    assert_eq!(slow.until_closed().await, b"");
    assert_eq!(get(&served, &world.token).await.status(), 200);
}

#[tokio::test]
async fn the_time_of_a_head_counts_from_before_the_handshake() {
    let files = Files::new();
    let world = files
        .world(|config| config.server.limits.header_read_timeout = Duration::from_secs(3))
        .await;
    let mut stream = handshake(&files.usual(), world.gateway.address)
        .await
        .unwrap();
    let read = soon("the end", stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn a_broken_answer_is_no_whole_one_for_an_http_1_0_client() {
    let files = Files::new();
    let world = files.world(|_| ()).await;
    let framing = Framing::Chunked;
    world
        .engine
        .script("/engine-rest/x", Script::AbortInBody { after: 10, framing });
    let mut stream = handshake(&files.usual(), world.gateway.address)
        .await
        .unwrap();
    let text = world.text("GET /api/x HTTP/1.0", "\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let end = soon("the end", stream.read_to_end(&mut read)).await;
    assert!(end.is_err(), "{}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn plain_http_gets_no_answer() {
    let files = Files::new();
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let more = format!("telemetry.log_level = \"debug\"\n{}", files.toml());
    let gateway = Process::start(&issuer, &engine.url(), &more).await;
    for text in [
        "GET /api/version HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut raw = Raw::connect(gateway.address).await;
        raw.write(text).await;
        assert_eq!(raw.until_closed().await, b"");
    }
    eventually("the lines", || {
        let log = gateway.log.lock().unwrap();
        log.matches("no TLS, but perhaps plain HTTP").count() == 2
    })
    .await;
    assert_eq!(engine.connections(), 0);
}

#[tokio::test]
async fn a_handshake_does_not_hold_up_the_end() {
    let files = Files::new();
    let world = files
        .world(|config| {
            config.server.limits.header_read_timeout = Duration::from_hours(1);
            config.server.shutdown_grace = Duration::from_hours(1);
        })
        .await;
    let mut silent = Raw::connect(world.gateway.address).await;
    // Accepted in turn: the one before is too.
    let other = client(&files.usual(), world.gateway.address, Protocol::Http1).await;
    assert_eq!(get(&other, &world.token).await.status(), 200);
    world.gateway.stop().await;
    assert_eq!(silent.until_closed().await, b"");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let files = Files::new();
    let other = Pair::new(&files.authority, "localhost");
    let write = |name: &str, text: &str| std::fs::write(files.path(name), text).unwrap();
    let key = other.key.serialize_pem();
    write("other.key", &key);
    write(
        "encrypted.key",
        &key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
    );
    write("broken.key", &key.replace("-----END", "MMMM-----BEGIN"));
    write(
        "damaged.key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    write("empty.pem", "");
    write(
        "damaged.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    for (table, changed, file, problem) in [
        (
            "server.tls",
            "certificate_file",
            "nowhere",
            "it cannot be read: No such file",
        ),
        (
            "server.tls",
            "certificate_file",
            "empty.pem",
            "it holds no certificate in PEM",
        ),
        (
            "server.tls",
            "certificate_file",
            "damaged.pem",
            "its first certificate cannot be used",
        ),
        (
            "server.tls",
            "private_key_file",
            "tls.crt",
            "it holds no private key in PEM",
        ),
        (
            "server.tls",
            "private_key_file",
            "encrypted.key",
            "or an encrypted one",
        ),
        (
            "server.tls",
            "private_key_file",
            "broken.key",
            "it holds no private key in PEM",
        ),
        (
            "server.tls",
            "private_key_file",
            "damaged.key",
            "its private key is damaged",
        ),
        (
            "server.tls",
            "private_key_file",
            "other.key",
            "it is not the key of the certificate",
        ),
        (
            "server.tls",
            "client_ca_file",
            "empty.pem",
            "it holds no certificate in PEM",
        ),
        (
            "server.tls",
            "client_ca_file",
            "damaged.pem",
            "it holds no good certificate",
        ),
        (
            "engine",
            "certificate_file",
            "empty.pem",
            "it holds no certificate in PEM",
        ),
        (
            "engine",
            "private_key_file",
            "other.key",
            "it is not the key of the certificate",
        ),
    ] {
        let rest: String = [
            ("certificate_file", "tls.crt"),
            ("private_key_file", "tls.key"),
        ]
        .into_iter()
        .filter(|(name, _)| *name != changed)
        .map(|(name, usual)| files.line(name, usual))
        .collect();
        let line = files.line(changed, file);
        let text = format!(
            "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://a.example\"\n[{table}]\n{rest}{line}"
        );
        write("config.toml", &text);
        for command in ["check", "serve"] {
            let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bpmgate"))
                .arg(command)
                .env_clear()
                .current_dir(files.directory.path())
                .kill_on_drop(true)
                .output();
            let output = soon("its end", output).await.unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{told}");
            for part in [
                format!(
                    "error: `{table}.{changed}` \"{}\": ",
                    files.path(file).display()
                ),
                problem.to_owned(),
                " --> config.toml:".to_owned(),
            ] {
                assert!(told.contains(&part), "{part}\n{told}");
            }
            for line in key.lines().filter(|line| !line.starts_with("-----")) {
                assert!(!told.contains(line), "{told}");
            }
        }
    }
    for (one, other) in [
        ("certificate_file", "private_key_file"),
        ("private_key_file", "certificate_file"),
    ] {
        let text = format!("engine.{one} = \"x\"\n[[issuers]]\nissuer = \"https://a.example\"\n");
        let error = config::load::parse("config.toml", &text, []).unwrap_err();
        let said = format!("`engine.{one}` needs `engine.{other}` beside it");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn the_private_key_is_in_no_debug_output() {
    let files = Files::new();
    let tls = bpmgate::server::Tls::open(files.table()).unwrap();
    let shown = format!("{tls:?}");
    assert!(shown.contains("tls.key"), "{shown}");
    assert!(
        !shown.contains("CertifiedKey") && !shown.contains("current"),
        "{shown}"
    );
}
