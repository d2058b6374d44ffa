//! The guides, run as their readers run them: every command in them, every answer they show, every piece of configuration.
//!
//! - `sh` blocks are one shell session per guide, against `bpmgate demo`. The text behind a block begins with the
//!   statuses that its `curl` lines get (`` `204`, `409` ``), and `for an operator` names those of that profile;
//!   a `json` block behind that is in the last answer.
//! - `console` blocks run in a directory whose `config.toml` is the last `toml` block before; the lines they show
//!   are in the output, in that order, where `...` stands for anything.
//! - `toml` blocks pass `bpmgate check` without a warning.
//! - Links lead somewhere.

#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "what fails in a set-up fails the test"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::Issuer;
use serde_json::{Value, json};

#[test]
fn the_workflow_api_answers_as_its_guide_says() {
    if !has_curl() {
        return;
    }
    let guide = Guide::read("docs/workflow-api.md");
    let demo = Demo::start();
    guide.assert_statuses(&Session::run(&guide, &demo.assignments, &[]), "");

    let engine_and_issuer = format!(
        "engine.url = \"{}\"\nserver.listen = \"127.0.0.1:0\"\naccess.default = \"operator\"\n\
         [[issuers]]\nissuer = \"{}\"\naudience = [\"bpmgate-demo\"]\n",
        demo.engine,
        demo.issuer()
    );
    let (_gateway, address) = serve(&engine_and_issuer);
    let assignments = demo
        .assignments
        .replace(&demo.gateway, &format!("http://{address}"));
    let session = Session::run(&guide, &assignments, &[]);
    guide.assert_statuses(&session, "for an operator ");
}

#[test]
fn the_guide_to_the_workflow_api_has_every_endpoint() {
    let guide = Guide::read("docs/workflow-api.md");
    let document: Value = serde_json::from_str(bpmgate::workflow::openapi::DOCUMENT).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys();
        for method in methods.filter(|name| *name != "parameters") {
            let row = format!("| [`{} {path}`](#", method.to_uppercase());
            let is_there = guide.text.contains(&row) || path == "/openapi.json";
            assert!(is_there, "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_works_with_the_demo_and_with_an_engine_of_ones_own() {
    if !has_curl() {
        return;
    }
    let guide = Guide::read("docs/quickstart.md");
    let issuer = Issuer::start().await.unwrap();
    let demo = Demo::start();
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("password");
    std::fs::write(&secret, "demo\n").unwrap();
    let mut place = vec![
        (
            "http://localhost:8080/engine-rest".to_owned(),
            demo.engine.clone(),
        ),
        (
            "https://login.example.com/realms/main".to_owned(),
            issuer.url(),
        ),
        (
            "/run/secrets/engine-password".to_owned(),
            secret.display().to_string(),
        ),
        (
            "username = \"gateway\"".to_owned(),
            "username = \"demo\"".to_owned(),
        ),
    ];
    let config = replaced(guide.last("toml"), &place);
    let (_gateway, address) = serve(&format!("server.listen = \"127.0.0.1:0\"\n{config}"));
    place.push(("127.0.0.1:8000".to_owned(), address));
    let token = issuer.token(
        &json!({"sub": "user_1", "aud": "bpm", "name": "Ada Lovelace", "email": "ada@example.com"}),
    );
    guide.assert_consoles(&place, &token);
    let assignments = format!(
        "{}TOKEN={token}
",
        demo.assignments
    );
    guide.assert_statuses(&Session::run(&guide, &assignments, &place), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clerk_guide_fits_the_tokens_that_clerk_makes() {
    let issuer = Issuer::start().await.unwrap();
    let guide = Guide::read("docs/clerk.md");
    let token = issuer.token(&json!({
        "sub": "user_2aBcDeF", "azp": "https://app.example.com", "sid": "sess_1", "sts": "active", "v": 2, "fva": [1, -1],
        "email": "ada@example.com", "given_name": "Ada", "family_name": "Lovelace", "name": "Ada Lovelace",
    }));
    let place = [("https://clerk.example.com".to_owned(), issuer.url())];
    guide.assert_consoles(&place, &token);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_understands_the_old_environment_as_the_migration_guide_says() {
    let issuer = Issuer::start().await.unwrap();
    let engine = Engine::start().await.unwrap();
    let place = [
        ("https://clerk.example.com".to_owned(), issuer.url()),
        ("http://localhost:8080/engine-rest".to_owned(), engine.url()),
    ];
    Guide::read("docs/migration.md").assert_consoles(&place, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_say_what_troubleshooting_shows() {
    let guide = Guide::read("docs/troubleshooting.md");
    let issuer = Issuer::start().await.unwrap();
    let realm = "https://login.example.com/realms/main".to_owned();
    let token = issuer.token(&json!({"sub": "user_1", "aud": "account"}));
    guide.assert_consoles(&[(realm, issuer.url())], &token);
    if !has_curl() {
        return;
    }
    let demo = Demo::start();
    let place = [("http://127.0.0.1:8000".to_owned(), demo.gateway.clone())];
    guide.assert_statuses(&Session::run(&guide, &demo.assignments, &place), "");
}

#[test]
fn every_configuration_in_the_guides_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let secrets = [(
        "/run/secrets/engine-password".to_owned(),
        secret.display().to_string(),
    )];
    let mut count = 0;
    for guide in guides() {
        for block in guide.blocks.iter().filter(|block| block.language == "toml") {
            if block.text.contains("[dependencies]") {
                continue;
            }
            count += 1;
            let mut config = replaced(&block.text, &secrets);
            if !config.contains("[[issuers]]") {
                config.push_str(
                    "[[issuers]]\nissuer = \"https://id.example.com\"\naudience = [\"bpm\"]\n",
                );
            }
            let here = directory.path().join("config.toml");
            std::fs::write(&here, config).unwrap();
            let run = bpmgate()
                .args(["check", "--config"])
                .arg(here)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(
                (run.status.code(), &*said),
                (Some(0), ""),
                "{}",
                block.place
            );
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn every_link_of_the_guides_leads_somewhere() {
    for guide in guides() {
        for (place, link) in guide.links() {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let file = if file.is_empty() {
                guide.path.clone()
            } else {
                guide.path.parent().unwrap().join(file)
            };
            assert!(file.exists(), "{place}: {link}");
            if !anchor.is_empty() {
                let anchors = anchors(&std::fs::read_to_string(&file).unwrap());
                assert!(anchors.contains(anchor), "{place}: {link} of {anchors:?}");
            }
        }
    }
}

/// A guide, taken apart.
struct Guide {
    path: PathBuf,
    text: String,
    blocks: Vec<Block>,
}

/// A block of code.
struct Block {
    language: String,
    text: String,
    /// The first line of the text behind it.
    behind: String,
    place: String,
}

impl Guide {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            let last = blocks.last_mut().filter(|_| inside);
            match (last, line.strip_prefix("```")) {
                (Some(_), Some(_)) => inside = false,
                (Some(block), None) => writeln!(block.text, "{line}").unwrap(),
                (None, Some(language)) => {
                    inside = true;
                    blocks.push(Block {
                        language: language.to_owned(),
                        text: String::new(),
                        behind: String::new(),
                        place: format!("{name}:{}", number + 1),
                    });
                }
                (None, None) => {
                    for block in blocks.iter_mut().filter(|block| block.behind.is_empty()) {
                        line.clone_into(&mut block.behind);
                    }
                }
            }
        }
        Self { path, text, blocks }
    }

    /// The text of the last block in a language.
    fn last(&self, language: &str) -> &str {
        let mut blocks = self.blocks.iter().rev();
        &blocks
            .find(|block| block.language == language)
            .unwrap()
            .text
    }

    /// Holds what the session got against what the guide says of each block, or says behind `said_of`.
    fn assert_statuses(&self, session: &Session, said_of: &str) {
        let mut asked = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            if block.language != "sh" || !block.text.contains("curl") {
                continue;
            }
            let (place, behind) = (&block.place, &block.behind);
            let said = match behind.split_once(said_of) {
                Some((_, said)) => statuses(said),
                None => statuses(behind),
            };
            assert!(
                !said.is_empty(),
                "{place}: no status behind the block, but {behind:?}"
            );
            let (got, body) = session.block(number);
            assert_eq!(got, said.join("\n"), "{place}: {body}");
            asked += said.len();
            let next = self.blocks[number + 1..].iter();
            let mut next = next.take_while(|next| next.language != "sh");
            if let Some(shown) = next.find(|next| next.language == "json") {
                let shown_value: Value = serde_json::from_str(&shown.text)
                    .unwrap_or_else(|error| panic!("{}: {error}", shown.place));
                let body = serde_json::from_str(&body).unwrap_or(Value::Null);
                assert!(
                    holds(&body, &shown_value),
                    "{} shows\n{}and got\n{body}",
                    shown.place,
                    shown.text
                );
            }
        }
        assert!(asked > 0);
    }

    /// Runs the `console` blocks.
    fn assert_consoles(&self, place: &[(String, String)], token: &str) {
        let mut directory = tempfile::tempdir().unwrap();
        for block in &self.blocks {
            match &*block.language {
                "toml" => {
                    directory = tempfile::tempdir().unwrap();
                    let config = replaced(&block.text, place);
                    std::fs::write(directory.path().join("config.toml"), config).unwrap();
                }
                "console" => {
                    for command in format!("\n{}", block.text).split("\n$ ").skip(1) {
                        run_console(&block.place, command, directory.path(), place, token);
                    }
                }
                _ => {}
            }
        }
    }

    fn links(&self) -> Vec<(String, String)> {
        let outside = self
            .text
            .lines()
            .enumerate()
            .scan(false, |inside, (number, line)| {
                *inside ^= line.starts_with("```");
                Some((number, if *inside { "" } else { line }))
            });
        outside
            .flat_map(|(number, line)| {
                let place = format!("{}:{}", self.path.display(), number + 1);
                let targets = line.split("](").skip(1);
                let targets = targets.filter_map(|rest| rest.split_once(')'));
                targets.map(move |(target, _)| (place.clone(), target.to_owned()))
            })
            .filter(|(_, target)| !target.contains("://"))
            .collect()
    }
}

/// `README.md` and all of `docs`.
fn guides() -> Vec<Guide> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(root.join("docs")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let guides = names.filter(|name| Path::new(name).extension() == Some("md".as_ref()));
    let guides = guides.map(|name| Guide::read(&format!("docs/{name}")));
    guides.chain([Guide::read("README.md")]).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The statuses that a text begins with: `` `204`, `409` ``.
fn statuses(text: &str) -> Vec<&str> {
    let mut statuses = Vec::new();
    let mut rest = text;
    while let Some((status, behind)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'))
    {
        if status.len() != 3 || status.parse::<u16>().is_err() {
            break;
        }
        statuses.push(status);
        rest = behind.strip_prefix(", ").unwrap_or_default();
    }
    statuses
}

/// Whether an answer holds what is shown of it: of an object some members, of a list some elements.
fn holds(answer: &Value, shown: &Value) -> bool {
    match (answer, shown) {
        (Value::Object(answer), Value::Object(shown)) => {
            // Counts are those of the reader's engine.
            let are_counts = shown.values().all(Value::is_number);
            shown.iter().all(|(name, shown)| {
                let found = answer.get(name);
                found.is_some_and(|found| are_counts && found.is_number() || holds(found, shown))
            })
        }
        (Value::Array(answer), Value::Array(shown)) => {
            let mut shown = shown.iter();
            shown.all(|shown| answer.iter().any(|element| holds(element, shown)))
        }
        (Value::String(answer), Value::String(shown)) => masked(answer) == masked(shown),
        _ => answer == shown,
    }
}

/// A text without ids and times, which are other ones in each run.
fn masked(text: &str) -> String {
    let is_in = |c: char, more: &str| c.is_ascii_digit() || more.contains(c);
    let is_id = |word: &str| {
        let dashes = word.match_indices('-').map(|(at, _)| at);
        dashes.eq([8, 13, 18, 23]) && word.chars().all(|c| is_in(c, "abcdef-"))
    };
    let is_time = |word: &str| word.get(4..5) == Some("-") && word.get(10..11) == Some("T");
    let mut masked = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let time = rest
            .split(|c| !is_in(c, "-T:.+Z"))
            .next()
            .unwrap_or_default();
        if let Some(word) = rest.get(..36).filter(|word| is_id(word)) {
            masked.push_str("(id)");
            rest = &rest[word.len()..];
        } else if is_time(time) {
            masked.push_str("(time)");
            rest = &rest[time.len()..];
        } else {
            masked.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    masked
}

fn replaced(text: &str, place: &[(String, String)]) -> String {
    let places = place.iter();
    places.fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Runs one command of a `console` block and looks for what is shown behind it.
fn run_console(block: &str, command: &str, here: &Path, place: &[(String, String)], token: &str) {
    let command = command.replace("\\\n", "");
    let (command, shown) = command.split_once('\n').unwrap_or((&command, ""));
    // What does not end, or takes minutes.
    let runs_on = command.ends_with("bpmgate");
    if runs_on || ["make demo", "cargo install --path ."].contains(&command) {
        return;
    }
    assert!(
        command.contains("bpmgate "),
        "{block}: nobody runs {command}"
    );
    let binary = Path::new(env!("CARGO_BIN_EXE_bpmgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let run = Command::new("sh")
        .args(["-c", &replaced(command, place)])
        .env_clear()
        .envs([("PATH", &*path), ("TOKEN", token)])
        .current_dir(here)
        .output()
        .unwrap();
    let back: Vec<_> = place
        .iter()
        .map(|(from, to)| (to.clone(), from.clone()))
        .collect();
    let output = [run.stdout, run.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let output = replaced(&output.concat(), &back);
    let fails = shown.lines().any(|line| line.starts_with("error: "));
    assert_eq!(run.status.success(), !fails, "{block}: {command}\n{output}");
    let mut lines = output.lines();
    for line in shown.lines().filter(|line| !matches!(*line, "" | "...")) {
        assert!(
            lines.any(|got| is_shown_as(got, line)),
            "{block}: {command} has no\n{line}\nbut\n{output}"
        );
    }
}

/// Whether a line is the one shown, blanks aside, with `...` for anything.
fn is_shown_as(line: &str, shown: &str) -> bool {
    let plain = |text: &str| {
        masked(text)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (line, shown) = (plain(line), plain(shown));
    let mut pieces = shown.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty() || shown.ends_with("...")
}

/// A shell session in which `curl` notes what it got.
struct Session(tempfile::TempDir);

impl Session {
    /// Runs the `sh` blocks, behind these assignments.
    fn run(guide: &Guide, assignments: &str, place: &[(String, String)]) -> Self {
        let out = tempfile::tempdir().unwrap();
        let mut script = format!(
            "{}OUT={}\n\
             curl() {{\n\
             : > $OUT/body\n\
             command curl -sS -o $OUT/body -w '%{{http_code}}\\n' \"$@\" >> $OUT/$BLOCK.statuses\n\
             cp $OUT/body $OUT/$BLOCK.body; cat $OUT/body\n\
             }}\n",
            assignments,
            out.path().display()
        );
        for (number, block) in guide.blocks.iter().enumerate() {
            if block.language == "sh" {
                write!(script, "BLOCK={number}\n{}", replaced(&block.text, place)).unwrap();
            }
        }
        let mut shell = Command::new("sh")
            .arg("-eu")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        shell
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let ended = shell.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), &*said), (Some(0), ""));
        Self(out)
    }

    /// The statuses of a block, one a line, and its last answer.
    fn block(&self, number: usize) -> (String, String) {
        let read = |what| {
            std::fs::read_to_string(self.0.path().join(format!("{number}.{what}")))
                .unwrap_or_default()
        };
        (read("statuses").trim_end().to_owned(), read("body"))
    }
}

/// `bpmgate demo` as a process, and what it printed.
struct Demo {
    gateway: String,
    engine: String,
    /// The lines `API=` to `JSON=`.
    assignments: String,
    _process: Process,
}

impl Demo {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut demo = bpmgate();
        demo.arg("demo")
            .current_dir(directory.path())
            .stderr(Stdio::null());
        let mut process = Process::start(&mut demo);
        let lines = process.lines();
        let after = |start: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(start));
            line.unwrap_or_else(|| panic!("no {start} in {lines:?}"))
                .trim()
                .to_owned()
        };
        let is_assignment = |line: &&String| {
            ["API=", "ALICE=", "BOB=", "JSON="]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let assignments = lines.iter().filter(is_assignment);
        Self {
            gateway: after("  gateway  "),
            engine: after("  engine   "),
            assignments: assignments.flat_map(|line| [line, "\n"]).collect(),
            _process: process,
        }
    }

    /// The issuer, out of a token.
    fn issuer(&self) -> String {
        let token = self.assignments.split("Bearer ").nth(1).unwrap();
        let payload = token.split('.').nth(1).unwrap();
        let payload =
            base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        claims["iss"].as_str().unwrap().to_owned()
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// The lines that it prints, up to the last command of the demo.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let is_last = line.ends_with("/deployment/create");
            lines.push(line);
            if is_last {
                return lines;
            }
        }
        panic!("it ended: {lines:?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway with this configuration, and where it listens.
fn serve(config: &str) -> (Process, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), config).unwrap();
    let mut gateway = bpmgate();
    gateway.current_dir(directory.path()).stderr(Stdio::piped());
    let mut process = Process::start(&mut gateway);
    let log = BufReader::new(process.0.stderr.take().unwrap());
    let mut said = String::new();
    let mut lines = log.lines();
    while let Some(line) = lines.next() {
        let line = line.unwrap();
        if let Some((_, rest)) = line.split_once("address=") {
            let address = rest.split_whitespace().next().unwrap().trim_matches('"');
            // A pipe that nobody reads would stop it.
            std::thread::spawn(|| lines.for_each(drop));
            return (process, address.to_owned());
        }
        writeln!(said, "{line}").unwrap();
    }
    panic!("it does not listen: {said}")
}

fn bpmgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpmgate"));
    command.env_clear();
    command
}

/// Whether there is a curl; without one there is nothing to paste into.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output();
    if found.is_err() {
        eprintln!("skipped: this machine has no curl");
    }
    found.is_ok()
}
