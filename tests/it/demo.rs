//! `bpmgate demo`: what it prints is pasted into a shell, and does what it says.

use std::process::Stdio;

use bpmgate::demo::engine::{Engine, Script, VACATION};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::soon;

/// The demo as a process, and what it printed.
struct Demo {
    child: Child,
    text: String,
}

impl Demo {
    async fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .arg("demo")
            .args(arguments)
            .env_clear()
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        while !text.contains("/deployment/create\n") {
            let line = soon("the demo's text", lines.next_line()).await.unwrap();
            text.push_str(&line.unwrap_or_else(|| panic!("it ended:\n{text}")));
            text.push('\n');
        }
        Self { child, text }
    }

    /// The commands, as one would paste them.
    fn commands(&self) -> &str {
        let start = self.text.find("\nAPI=").expect("commands");
        &self.text[start..]
    }

    async fn ended_by(mut self, signal: &str) -> Option<i32> {
        let id = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(soon("kill", kill).await.unwrap().success());
        soon("its end", self.child.wait()).await.unwrap().code()
    }
}

/// Whether there is a curl; without one there is nothing to paste into.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
fn has_curl() -> bool {
    let found = std::process::Command::new("curl").arg("--version").output();
    if found.is_err() {
        eprintln!("skipped: this machine has no curl");
    }
    found.is_ok()
}

/// Runs text in a shell: standard output, nothing on standard error.
async fn paste(text: &str) -> String {
    let mut shell = Command::new("sh")
        .arg("-u")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_bytes()).await.unwrap();
    drop(input);
    let output = soon("the shell's end", shell.wait_with_output())
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

/// The output without what differs from run to run.
fn redacted(output: &str) -> String {
    let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut text = String::new();
    let mut rest = output;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        text.push_str(&rest[..at]);
        let word = &rest[at..];
        let end = word.find(|c: char| !hex(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        text.push_str(if is_id { "(id)" } else { word });
        rest = after;
    }
    text.push_str(rest);
    // Times and ports.
    let mut shown = String::new();
    for piece in text.split_inclusive('"') {
        let is_time = piece.len() >= 20 && piece.starts_with("20") && piece.as_bytes()[10] == b'T';
        if is_time {
            shown.push_str("(time)\"");
        } else if let Some((before, after)) = piece.split_once("127.0.0.1:") {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            shown.extend([before, "(gateway)", after]);
        } else {
            shown.push_str(piece);
        }
    }
    shown
}

#[tokio::test]
async fn its_commands_do_in_a_shell_what_they_say() {
    if !has_curl() {
        return;
    }
    let demo = Demo::start(&[]).await;
    let output = paste(demo.commands()).await;
    assert!(output.ends_with('\n'));
    assert!(!output.contains("the-director"), "{output}");
    assert!(
        output.contains(r#""initiator":{"type":"String","value":"alice""#),
        "{output}"
    );
    assert_eq!(
        output.lines().filter(|line| *line == "204").count(),
        2,
        "{output}"
    );
    assert_eq!(
        output.lines().filter(|line| *line == "403").count(),
        2,
        "{output}"
    );
    insta::assert_snapshot!("demo_output", redacted(&output));
    assert_eq!(demo.ended_by("INT").await, Some(0));
}

#[tokio::test]
async fn it_tells_what_it_is_and_runs_beside_another() {
    let first = Demo::start(&[]).await;
    let second = Demo::start(&[]).await;
    let gateway = |demo: &Demo| {
        let line = demo
            .text
            .lines()
            .find(|line| line.starts_with("  gateway  http://127.0.0.1:"));
        line.unwrap_or_else(|| panic!("{}", demo.text)).to_owned()
    };
    assert_ne!(gateway(&first), gateway(&second));
    let (told, _) = first.text.split_once("\nAPI=").unwrap();
    assert!(
        told.contains("for trying out only") && told.contains("loopback"),
        "{told}"
    );
    assert_eq!(first.ended_by("TERM").await, Some(0));
    assert_eq!(second.ended_by("INT").await, Some(0));
}

#[tokio::test]
async fn a_given_engine_is_used_and_gets_the_sample_where_it_lacks_it() {
    if !has_curl() {
        return;
    }
    let engine = Engine::start().await.unwrap();
    engine.deploy(VACATION, None).unwrap();
    let url = engine.url();
    let demo = Demo::start(&["--engine", &url]).await;
    assert!(
        demo.text.contains(&format!("  engine   {url}\n")),
        "{}",
        demo.text
    );
    let output = paste(demo.commands()).await;
    assert!(
        output.contains(r#""initiator":{"type":"String","value":"alice""#),
        "{output}"
    );
    assert_eq!(
        engine.requests_to("/engine-rest/deployment"),
        0,
        "it has the process"
    );
    drop(demo);

    engine.script_once(
        "/engine-rest/process-definition/key/approval",
        Script::status(StatusCode::NOT_FOUND, "{}"),
    );
    engine.script_once(
        "/engine-rest/deployment/create",
        Script::status(StatusCode::OK, "{}"),
    );
    let _demo = Demo::start(&["--engine", &url]).await;
    let deployed = engine
        .requests()
        .into_iter()
        .find(|seen| seen.target == "/engine-rest/deployment/create");
    let body = deployed.expect("a deployment").body;
    assert!(String::from_utf8_lossy(&body).contains("filename=\"approval.bpmn\""));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_listens_on_loopback_only() {
    let demo = Demo::start(&[]).await;
    let id = demo.child.id().unwrap();
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(link.to_owned())
        })
        .collect();
    let mut listening = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{id}/net/{table}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            // State 0A is LISTEN; the tenth field is the inode.
            if fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]) {
                listening.push(fields[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    // Gateway, issuer and engine, each on 127.0.0.1 as the kernel writes it.
    assert_eq!(listening, ["0100007F"; 3]);
}
