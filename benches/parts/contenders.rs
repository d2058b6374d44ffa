//! Who is measured: bpmgate, the bare forwarder, and others that run already.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bpmgate::body::BoxError;
use serde_json::{Value, json};

use super::machine::Cores;
use super::tokens::{AUDIENCE, ISSUER, Tokens};
use super::wire::Wire;

/// Who answers.
pub struct Contender {
    pub name: String,
    pub address: SocketAddr,
    /// What `/engine-rest` is called there.
    pub prefix: String,
    /// It and its children are what is measured.
    pub process: u32,
    pub kind: Kind,
    /// Ends with it.
    _running: Option<Running>,
}

#[derive(Clone, PartialEq)]
pub enum Kind {
    Forwarder,
    Gateway,
    /// Another's; it takes part in all lines where none is named, and bpmgate's CPU is at most so much of its.
    Peer(Vec<(String, Option<f64>)>),
}

/// Where the contenders of this run are started.
pub struct Place<'a> {
    pub cores: Cores,
    pub engine: SocketAddr,
    pub tokens: &'a Tokens,
    pub directory: &'a Path,
}

impl Place<'_> {
    /// The same on other cores, before another engine.
    pub fn with(&self, cores: Cores, engine: SocketAddr) -> Self {
        Self {
            cores,
            engine,
            ..*self
        }
    }

    pub fn forwarder(&self) -> Result<Contender, BoxError> {
        let engine = format!("http://{}", self.engine);
        let role = ["--role", "forwarder", "--engine", &engine];
        let (running, address) = self.cores.for_contender(|| started(&role))?;
        Ok(Contender {
            name: "bare forwarder".to_owned(),
            address,
            prefix: "/engine-rest".to_owned(),
            process: running.0.id(),
            kind: Kind::Forwarder,
            _running: Some(running),
        })
    }

    /// The program `bpmgate serve` with the defaults, but for what must be said; and how long it took until it listened.
    pub fn gateway(&self, workers: usize) -> Result<(Contender, Duration), BoxError> {
        let config = self.directory.join("config.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = {workers}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [engine]\nurl = \"http://{}/engine-rest\"\n\
             [telemetry]\nlog_format = \"json\"\n\
             [[issuers]]\npreset = \"oidc\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
             public_key_file = '{}'\n\
             [[access.rules]]\nwhen = {{ role = \"deployer\" }}\nprofile = \"deployer\"\n",
            self.engine,
            self.tokens.jwks().display(),
        );
        fs::write(&config, text)?;
        let log = self.directory.join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bpmgate"));
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(File::create(&log)?);
        let begin = Instant::now();
        let running = Running(self.cores.for_contender(|| command.spawn())?);
        let (address, took) = loop {
            if let Some(address) = listening(&log)? {
                break (address, begin.elapsed());
            }
            if begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(&log)?;
                return Err(format!("the gateway does not listen: {log}").into());
            }
            pause(Duration::from_millis(1));
        };
        let contender = Contender {
            name: match workers {
                1 => "bpmgate".to_owned(),
                _ => format!("bpmgate, {workers} workers"),
            },
            address,
            prefix: "/api".to_owned(),
            process: running.0.id(),
            kind: Kind::Gateway,
            _running: Some(running),
        };
        Ok((contender, took))
    }
}

/// The address in the log's line `listening`.
fn listening(log: &Path) -> Result<Option<SocketAddr>, BoxError> {
    let lines = fs::read_to_string(log)?;
    let line = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == "listening");
    let address = line.as_ref().and_then(|line| line["address"].as_str());
    Ok(address.map(str::parse).transpose()?)
}

/// `NAME=URL,PID`, and if it must be said `,prefix=/PATH`, `,works=LINE:LIMIT/LINE`.
pub fn peer(text: &str) -> Result<Contender, BoxError> {
    let (name, rest) = text.split_once('=').ok_or("no `=`")?;
    let mut parts = rest.split(',');
    let url = parts.next().unwrap_or_default();
    let address = url.strip_prefix("http://").ok_or("no http:// URL")?;
    let process = parts.next().ok_or("no process")?;
    let (mut prefix, mut works) = ("/api", Vec::new());
    for part in parts {
        match part.split_once('=') {
            Some(("prefix", value)) => prefix = value,
            Some(("works", value)) => {
                for work in value.split('/') {
                    works.push(match work.split_once(':') {
                        Some((line, limit)) => (line.to_owned(), Some(limit.parse()?)),
                        None => (work.to_owned(), None),
                    });
                }
            }
            _ => return Err(format!("`{part}` is neither prefix= nor works=").into()),
        }
    }
    Ok(Contender {
        name: name.to_owned(),
        address: address.trim_end_matches('/').parse()?,
        prefix: prefix.to_owned(),
        process: process.parse()?,
        kind: Kind::Peer(works),
        _running: None,
    })
}

impl Contender {
    /// Whether it takes part in this line.
    pub fn works(&self, line: &str) -> bool {
        match &self.kind {
            Kind::Peer(works) => works.is_empty() || works.iter().any(|(name, _)| name == line),
            Kind::Forwarder | Kind::Gateway => true,
        }
    }

    /// How many times this one's CPU bpmgate may take.
    pub fn limit(&self, line: &str) -> Option<f64> {
        match &self.kind {
            Kind::Peer(works) => works.iter().find(|(name, _)| name == line)?.1,
            Kind::Forwarder | Kind::Gateway => None,
        }
    }

    /// A whole request.
    pub fn request(&self, method: &str, path: &str, token: Option<&str>, body: &Body) -> Vec<u8> {
        let mut head = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nUser-Agent: bench\r\n",
            self.prefix, self.address,
        );
        if let Some(token) = token {
            head = head + "Authorization: Bearer " + token + "\r\n";
        }
        if let Some(content_type) = body.content_type {
            let length = body.bytes.len();
            head = format!("{head}Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
        }
        let mut request = (head + "\r\n").into_bytes();
        request.extend_from_slice(&body.bytes);
        request
    }

    /// Makes sure that it does its job, or the figures mean nothing, and tells what it does not do.
    ///
    /// # Errors
    /// When a good token does not reach the engine; when bpmgate misses anything at all, or a peer lets anybody in.
    pub fn check(&self, tokens: &Tokens) -> Result<Vec<&'static str>, BoxError> {
        let mut wire = Wire::connect(self.address)?;
        let mut ask = |method: &str, path: &str, token: Option<&str>, body: &Body| {
            let request = self.request(method, path, token, body);
            let (answered, body) = wire.ask(&request)?;
            if !answered.kept {
                wire.reconnect(self.address)?;
            }
            Ok::<_, BoxError>((answered.status, body))
        };
        let (status, body) = ask("GET", "/task", Some(tokens.hot()), &Body::default())?;
        if (status, body.len()) != (200, 1024) {
            return Err(format!("it answers a good token with {status}").into());
        }
        let mut misses = Vec::new();
        let forged = tokens.forged();
        for (token, misses_it) in [
            (None, "lets in who has no token"),
            (Some(forged.as_str()), "lets in who forged a token"),
            (Some(tokens.expired()), "lets in whose token has expired"),
        ] {
            let (status, _) = ask("GET", "/task", token, &Body::default())?;
            if !matches!(status, 401 | 403) {
                misses.push(misses_it);
            }
        }
        let lets_in = !misses.is_empty();
        // This one answers what it was sent.
        let echo = "/process-definition/key/echo/start";
        let (status, body) = ask("POST", echo, Some(tokens.hot()), &Body::start(9))?;
        if status != 200 {
            return Err(format!("it answers a start with {status}").into());
        }
        let sent: Value = serde_json::from_slice(&body)?;
        if sent["variables"]["initiator"]["value"] != Tokens::hot_subject() {
            misses.push("does not write the initiator");
        }
        let told = format!("{} {}", self.name, misses.join(", "));
        match &self.kind {
            Kind::Gateway if !misses.is_empty() => Err(told.into()),
            Kind::Peer(_) if lets_in => Err(told.into()),
            Kind::Forwarder if misses.len() != 4 => Err("the forwarder is not bare".into()),
            Kind::Forwarder | Kind::Gateway | Kind::Peer(_) => Ok(misses),
        }
    }
}

/// What a request carries.
#[derive(Default)]
pub struct Body {
    content_type: Option<&'static str>,
    bytes: Vec<u8>,
}

impl Body {
    /// A start with so many variables that claims to be somebody else's: 9 are 1 KB, 2700 are 256 KB.
    pub fn start(variables: usize) -> Self {
        let text = "An order of seven desks and \"a chair\", to be paid in the next month.";
        let mut map = serde_json::Map::new();
        for number in 0..variables {
            let value = json!({"value": text, "type": "String"});
            map.insert(format!("line{number}"), value);
        }
        let director = json!({"value": "the-director"});
        map.insert("initiator".to_owned(), director);
        Self {
            content_type: Some("application/json"),
            bytes: json!({"variables": map}).to_string().into_bytes(),
        }
    }

    /// A deployment with a file of so many bytes.
    pub fn deployment(file: usize) -> Self {
        let mut bytes = b"--bench\r\n\
            Content-Disposition: form-data; name=\"deployment-name\"\r\n\r\nbench\r\n--bench\r\n\
            Content-Disposition: form-data; name=\"data\"; filename=\"bench.bin\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n"
            .to_vec();
        bytes.resize(bytes.len() + file, b'f');
        bytes.extend_from_slice(b"\r\n--bench--\r\n");
        Self {
            content_type: Some("multipart/form-data; boundary=bench"),
            bytes,
        }
    }
}

/// A process that ends with this.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this program in another role.
pub fn started(role: &[&str]) -> Result<(Running, SocketAddr), BoxError> {
    let child = Command::new(std::env::current_exe()?)
        .args(role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let address = line.trim().parse()?;
    Ok((running, address))
}

pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "nothing else is to be done")]
    thread::sleep(time);
}

const PATIENCE: Duration = Duration::from_secs(30);
