//! The gateway itself: its own binary, as a user would start it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{Method, Request};
use http_body_util::Full;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::http::{Answer, json_request, request, send};
use super::issuer::ADA;
use super::{DEADLINE, Engine, Issuer};

/// A running gateway; it ends with this value, and with the test's process in any case.
pub(crate) struct Gateway {
    address: SocketAddr,
    watchdog: Child,
    log: Arc<Mutex<String>>,
    directory: TempDir,
}

/// What one gateway's configuration has that another's has not.
pub(crate) struct Options {
    /// `access.default`.
    pub(crate) profile: &'static str,
    /// `engine.credentials`: user, password.
    pub(crate) credentials: (&'static str, &'static str),
    /// Tables to add, as TOML; they stand behind `[access]`.
    pub(crate) more: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: "user",
            credentials: ("demo", "demo"),
            more: "",
        }
    }
}

impl Gateway {
    /// Starts one and waits until it has the issuer's keys.
    pub(crate) async fn start(engine: &Engine, issuer: &Issuer, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, configuration(engine, issuer, &options)).unwrap();

        // The shell ends the gateway when this process's end of the pipe is closed: also when the
        // tests are killed, when no destructor runs. It keeps no hand on the log, so that the log
        // ends where the gateway ends.
        let mut watchdog = Command::new("sh")
            .args([
                "-c",
                r#""$@" & exec 2>&-; cat >/dev/null; kill -KILL $!"#,
                "watchdog",
            ])
            .args([env!("CARGO_BIN_EXE_bpmgate"), "serve", "--config"])
            .arg(&file)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let log = Arc::new(Mutex::new(String::new()));
        let (listening, address) = oneshot::channel();
        let lines = BufReader::new(watchdog.stderr.take().unwrap()).lines();
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut listening = Some(listening);
            for line in lines.map_while(Result::ok) {
                if let Some(address) = bound_address(&line)
                    && let Some(listening) = listening.take()
                {
                    let _: Result<_, _> = listening.send(address);
                }
                *copy.lock().unwrap() += &(line + "\n");
            }
        });
        let address = tokio::time::timeout(DEADLINE, address).await;
        let Ok(Ok(address)) = address else {
            panic!("the gateway does not listen:\n{}", log.lock().unwrap());
        };

        let gateway = Self {
            address,
            watchdog,
            log,
            directory,
        };
        gateway.wait_for_keys(issuer).await;
        gateway
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// What it has written so far into a file that its configuration names.
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    pub(crate) async fn get(&self, path: &str, authorization: &str) -> Answer {
        send(request(Method::GET, &self.url(path), authorization)).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        authorization: &str,
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        send(json_request(
            Method::POST,
            &self.url(path),
            authorization,
            body,
        ))
        .await
    }

    /// A request without a body and without a content type, to be changed before it is sent.
    pub(crate) fn bare(
        &self,
        method: Method,
        path: &str,
        bearer: &str,
    ) -> Request<Full<bytes::Bytes>> {
        request(method, &self.url(path), bearer)
    }

    /// The URL of a path, prefix and all.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Keys are fetched beside the start, and 503 says that they are not there yet. The path asked
    /// for is the one that the engine answers without looking at credentials, so that a gateway
    /// with wrong ones locks no account here.
    async fn wait_for_keys(&self, issuer: &Issuer) {
        let deadline = Instant::now() + DEADLINE;
        while self
            .get("/engine-rest/engine", &issuer.bearer(ADA))
            .await
            .status
            == 503
        {
            assert!(
                Instant::now() < deadline,
                "no keys after {DEADLINE:?}:\n{}",
                self.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        drop(self.watchdog.wait());
        if std::thread::panicking() {
            // The test harness shows it with the failed test.
            println!("the gateway's log:\n{}", self.log());
        }
    }
}

fn configuration(engine: &Engine, issuer: &Issuer, options: &Options) -> String {
    let (user, password) = options.credentials;
    format!(
        r#"
[server]
listen = "127.0.0.1:0"

[admin]
listen = ""

[engine]
url = "{engine}"
[engine.credentials]
username = "{user}"
password = "{password}"

[[issuers]]
preset = "oidc"
issuer = "{issuer}"
jwks_url = "{jwks_url}"
audience = ["{audience}"]
jwks_cooldown = "50ms"

[access]
default = "{profile}"

{more}
"#,
        engine = engine.url(),
        issuer = issuer.name(),
        jwks_url = issuer.jwks_url(),
        audience = Issuer::AUDIENCE,
        profile = options.profile,
        more = options.more,
    )
}

/// The address in the line that says `listening`.
fn bound_address(line: &str) -> Option<SocketAddr> {
    let (_, port) = line
        .contains("listening")
        .then(|| line.split_once("127.0.0.1:"))??;
    let digits = port.split(|sign: char| !sign.is_ascii_digit()).next()?;
    format!("127.0.0.1:{digits}").parse().ok()
}
