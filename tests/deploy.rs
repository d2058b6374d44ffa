//! What operators get beside the binary, held against the binary: the dashboard and the alert rules name metrics and labels that a
//! running gateway shows, the guide has every log event and every alert, and versions are the same everywhere.
//!
//! What needs more than Rust (helm, promtool, ...) is in `tests/deploy` and run by `make test-deploy`.

#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "what fails in a set-up fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpmgate::demo::engine::{Engine, Framing, Script};
use bpmgate::demo::issuer::Issuer;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_name_metrics_and_labels_that_a_running_gateway_shows() {
    let shown = Shown::of_a_running_gateway().await;
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/bpmgate.json")).unwrap();
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    assert!(queries.len() > 30, "{}", queries.len());
    for query in &queries {
        shown.assert_has(query, "deploy/grafana/bpmgate.json");
    }
    let rules = read("deploy/prometheus/alerts.yaml");
    shown.assert_has(&without_comments(&rules), "deploy/prometheus/alerts.yaml");
}

#[test]
fn the_dashboard_shows_each_metric_of_the_guide() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/bpmgate.json")).unwrap();
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    let shown: BTreeSet<_> = queries
        .iter()
        .flat_map(|query| words(query).map(|(_, name)| name))
        .collect();
    let guide = read("docs/metrics.md");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.map(|row| row.split('`').next().unwrap());
    let metrics: Vec<_> = names
        .filter(|name| name.starts_with("bpmgate_") || name.starts_with("process_"))
        .collect();
    assert!(metrics.len() > 30, "{metrics:?}");
    for metric in metrics {
        let series = [metric.to_owned(), format!("{metric}_bucket")];
        assert!(
            series.iter().any(|series| shown.contains(series.as_str())),
            "no panel shows {metric}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_of_the_guide_comes_about_and_no_other() {
    let shown = Shown::of_a_running_gateway().await;
    let guide = read("docs/metrics.md");
    let table = guide.split_once("| outcome |").unwrap().1;
    let table = table.split("\n\n").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<_> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    assert_eq!(shown.0["bpmgate_requests_total"]["outcome"], told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_gateway_shows_is_found_in_a_query() {
    let shown = Shown::of_a_running_gateway().await;
    for (query, want) in [
        ("rate(bpmgate_request_total[5m])", "bpmgate_request_total"),
        ("sum by (path) (bpmgate_requests_total)", "path"),
        (r#"bpmgate_requests_total{code="x"}"#, "code"),
        (r#"bpmgate_requests_total{outcome="failed"}"#, "failed"),
        (
            r#"bpmgate_requests_total{outcome=~"denied|failed"}"#,
            "failed",
        ),
        (r#"bpmgate_issuer_keys{outcome="denied"}"#, "outcome"),
    ] {
        assert_eq!(shown.unknown(query), [want], "{query}");
    }
}

#[test]
fn every_log_event_of_the_source_is_in_the_operations_guide_with_its_level() {
    let guide = read("docs/operations.md");
    let mut told = BTreeSet::new();
    for (level, message, place) in log_events() {
        // Markdown's way to have backticks in code.
        let code = if message.contains('`') {
            format!("`` {message} ``")
        } else {
            format!("`{message}`")
        };
        let row = format!("| {level} | {code} |");
        assert!(
            guide.contains(&row),
            "{place}: no row in docs/operations.md begins with {row}"
        );
        told.insert(row);
    }
    assert!(told.len() > 40, "{told:?}");
    for line in guide.lines() {
        let is_event = LEVELS
            .iter()
            .any(|level| line.starts_with(&format!("| {level} | `")));
        let is_true = told.iter().any(|row| line.starts_with(row.as_str()));
        assert!(
            !is_event || is_true,
            "docs/operations.md has an event that is not logged: {line}"
        );
    }
}

#[test]
fn every_alert_is_in_the_operations_guide() {
    let guide = read("docs/operations.md");
    let rules = read("deploy/prometheus/alerts.yaml");
    let names: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        assert!(guide.contains(&format!("| `{name}` |")), "{name}");
    }
    for line in guide.lines().filter(|line| line.starts_with("| `Bpmgate")) {
        assert!(
            names
                .iter()
                .any(|name| line.starts_with(&format!("| `{name}` |"))),
            "{line}"
        );
    }
}

#[test]
fn every_test_that_the_guide_of_faults_names_is_there() {
    let guide = read("docs/faults.md");
    let names = guide.split('`').filter(|code| code.contains("::"));
    let mut found = 0;
    for name in names {
        let (module, test) = name.rsplit_once("::").unwrap();
        let source = read(&format!("tests/it/{}.rs", module.replace("::", "/")));
        assert!(source.contains(&format!("\nasync fn {test}()")), "{name}");
        found += 1;
    }
    assert!(found > 30, "{found}");
}

#[test]
fn the_chart_and_the_image_are_of_this_version() {
    let chart = read("deploy/helm/bpmgate/Chart.yaml");
    for key in ["version", "appVersion"] {
        let line = format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "{chart}");
    }
    let image = read("Dockerfile");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        image.contains(&format!("\nFROM docker.io/library/rust:{rust}-")),
        "{image}"
    );
}

/// What `/metrics` shows: for each series name its labels, and for each of these its values.
struct Shown(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Shown {
    /// After requests that end in every way that there is.
    async fn of_a_running_gateway() -> Self {
        let engine = Engine::start().await.unwrap();
        engine.script("/engine-rest/task/hangs", Script::HangBeforeHeaders);
        let torn = Script::AbortInBody {
            after: 1000,
            framing: Framing::Chunked,
        };
        engine.script("/engine-rest/task/torn", torn);
        let issuer = Issuer::start().await.unwrap();
        let gateway = Gateway::start(&issuer, &engine.url());
        let bearer = issuer.token(&json!({"sub": "alice", "aud": AUDIENCE}));
        gateway.is_ready().await;
        for (path, token, status) in [
            ("/health", "", 200),
            ("/api/task", &*bearer, 200),
            ("/api/task", &*bearer, 200),
            ("/api/task", "", 401),
            ("/api/deployment/x/resources", &*bearer, 403),
            ("/api//task", &*bearer, 400),
            ("/api/task/hangs", &*bearer, 504),
            ("/api/task/torn", &*bearer, 200),
        ] {
            assert_eq!(gateway.get(path, token).0, status, "{path}");
        }
        let without_engine = Gateway::start(&issuer, "http://127.0.0.1:1/engine-rest");
        assert_eq!(without_engine.get("/api/task", &bearer).0, 502);
        let mut shown = Self(BTreeMap::new());
        for gateway in [gateway, without_engine] {
            shown.read(&gateway.metrics());
        }
        shown
    }

    fn read(&mut self, exposition: &str) {
        for line in exposition
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let end = line.find(['{', ' ']).unwrap();
            let series = self.0.entry(line[..end].to_owned()).or_default();
            if let Some((labels, _)) = line[end..]
                .strip_prefix('{')
                .and_then(|rest| rest.rsplit_once('}'))
            {
                for (label, _, value) in matchers(labels) {
                    series.entry(label).or_default().insert(value);
                }
            }
        }
    }

    fn assert_has(&self, query: &str, place: &str) {
        let unknown = self.unknown(query);
        assert!(
            unknown.is_empty(),
            "{place}: no gateway shows {unknown:?}: {query}"
        );
    }

    /// The metrics, labels and values in a query that are not shown.
    fn unknown(&self, query: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut all_labels: BTreeSet<&str> = SCRAPED.into_iter().collect();
        for (at, name) in words(query) {
            let is_metric = name.starts_with("bpmgate_") || name.starts_with("process_");
            if !is_metric || name == "process_" {
                continue;
            }
            let Some(labels) = self.0.get(name) else {
                unknown.push(name.to_owned());
                continue;
            };
            all_labels.extend(labels.keys().map(String::as_str));
            let Some(rest) = query[at + name.len()..].strip_prefix('{') else {
                continue;
            };
            for (label, operator, wanted) in matchers(&rest[..rest.find('}').unwrap()]) {
                if SCRAPED.contains(&&*label) {
                    continue;
                }
                let Some(values) = labels.get(&label) else {
                    unknown.push(label);
                    continue;
                };
                let alternatives: Vec<_> = match &*operator {
                    "=~" | "!~" => wanted.split('|').collect(),
                    _ => vec![&*wanted],
                };
                let is_class = |value: &str| label == "status" && value.ends_with("xx");
                let missing = |value: &&str| !values.contains(*value) && !is_class(value);
                unknown.extend(alternatives.into_iter().filter(missing).map(str::to_owned));
            }
        }
        for grouping in ["by (", "on (", "without ("] {
            for (at, _) in query.match_indices(grouping) {
                let list = &query[at + grouping.len()..];
                let list = list[..list.find(')').unwrap()].split(',').map(str::trim);
                unknown.extend(
                    list.filter(|label| !all_labels.contains(label))
                        .map(str::to_owned),
                );
            }
        }
        unknown
    }
}

/// What Prometheus adds to what it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// The identifiers of a text, with where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = 0;
    std::iter::from_fn(move || {
        let begin = rest + text[rest..].find(is_word)?;
        let end = text[begin..]
            .find(|c| !is_word(c))
            .map_or(text.len(), |length| begin + length);
        rest = end;
        Some((begin, &text[begin..end]))
    })
}

/// `a="b",c=~"d"` as name, operator and value.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((matcher, after)) = rest.split_once('"') {
        let (value, after) = after.split_once('"').unwrap();
        let matcher = matcher.trim_start_matches([',', ' ']);
        let name = matcher.trim_end_matches(['=', '~', '!']);
        found.push((
            name.trim().to_owned(),
            matcher[name.len()..].to_owned(),
            value.to_owned(),
        ));
        rest = after;
    }
    found
}

fn collect_queries(shape: &Value, queries: &mut Vec<String>) {
    for (name, value) in shape.as_object().into_iter().flatten() {
        if name == "expr" || name == "definition" {
            queries.extend(value.as_str().map(str::to_owned));
        }
        collect_queries(value, queries);
    }
    for item in shape.as_array().into_iter().flatten() {
        collect_queries(item, queries);
    }
}

fn without_comments(yaml: &str) -> String {
    let lines = yaml
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Level, message and place of every event that is logged.
fn log_events() -> Vec<(&'static str, String, String)> {
    let mut events = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let source = source.split("\n#[cfg(test)]\nmod ").next().unwrap();
                for level in LEVELS {
                    for (at, name) in source.match_indices(&format!("{level}!(")) {
                        let begins = !source[..at]
                            .ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                        if begins {
                            let place =
                                format!("{}:{}", path.display(), source[..at].lines().count());
                            events.push((
                                level,
                                message(&source[at + name.len()..], &place),
                                place,
                            ));
                        }
                    }
                }
            }
        }
    }
    events
}

/// The last string of a macro's arguments, where it is not a field's.
fn message(arguments: &str, place: &str) -> String {
    let mut depth = 1;
    let mut last = String::new();
    let mut characters = arguments.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                last.clear();
                while let Some(inner) = characters.next() {
                    match inner {
                        '"' => break,
                        '\\' => match characters.next() {
                            // A line that goes on.
                            Some('\n') => {
                                let rest = characters.as_str();
                                characters = rest.trim_start().chars();
                            }
                            escaped => last.extend(escaped),
                        },
                        inner => last.push(inner),
                    }
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    assert!(!last.is_empty(), "{place}: an event without a message");
    last
}

/// A gateway in a process of its own.
struct Gateway {
    process: Child,
    address: String,
    admin: String,
}

impl Gateway {
    fn start(issuer: &Issuer, engine: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .env_clear()
            .envs([
                ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
                ("BPMGATE__ADMIN__LISTEN", "127.0.0.1:0"),
                ("BPMGATE__ENGINE__URL", engine),
                ("BPMGATE__ENGINE__RETRY__ATTEMPTS", "0"),
                ("BPMGATE__ENGINE__TIMEOUTS__RESPONSE", "500ms"),
                ("BPMGATE__RATE_LIMITS__0__NAME", "addresses"),
                ("BPMGATE__RATE_LIMITS__0__BY", "client"),
                ("BPMGATE__RATE_LIMITS__0__REQUESTS", "1000"),
                ("BPMGATE__RATE_LIMITS__0__PER", "1m"),
                ("BPMGATE__ISSUERS__0__ISSUER", &issuer.url()),
                ("BPMGATE__ISSUERS__0__JWKS_URL", &issuer.jwks_url()),
                ("BPMGATE__ISSUERS__0__AUDIENCE", AUDIENCE),
                ("BPMGATE__TELEMETRY__LOG_FORMAT", "json"),
            ])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .find(|line| line["message"] == "listening");
        let listening = listening.unwrap();
        // A pipe that nobody reads would stop it.
        std::thread::spawn(|| lines.for_each(drop));
        let of = |name: &str| listening[name].as_str().unwrap().to_owned();
        Self {
            address: of("address"),
            admin: of("admin"),
            process,
        }
    }

    /// Waits for the issuer's keys.
    async fn is_ready(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while get(&self.admin, "/readyz", "").0 != 200 {
            assert!(Instant::now() < deadline, "it is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn get(&self, path: &str, token: &str) -> (u16, String) {
        get(&self.address, path, token)
    }

    fn metrics(&self) -> String {
        let (status, text) = get(&self.admin, "/metrics", "");
        assert_eq!(status, 200);
        text
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and whole text of an answer.
fn get(address: &str, path: &str, token: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let bearer = if token.is_empty() {
        String::new()
    } else {
        format!("Authorization: Bearer {token}\r\n")
    };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: g\r\n{bearer}Connection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    // One that is torn may end with an error.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const AUDIENCE: &str = "bpmgate-test";
