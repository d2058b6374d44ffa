//! `explain-token` and `explain-request` as a person has them: arguments and standard input in, plain words out.

use std::process::Stdio;

use bpmgate::demo::issuer::{Fault, Issuer};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::{AUDIENCE, soon};

/// A directory with a configuration for this issuer.
struct Here {
    issuer: Issuer,
    directory: tempfile::TempDir,
}

struct Explained {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Here {
    async fn with(more: &str) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (name, keys) = (issuer.url(), issuer.jwks_url());
        let text = format!(
            "admin.listen = \"\"\ntelemetry.audit_log = \"audit.log\"\n\
             [[issuers]]\nissuer = \"{name}\"\njwks_url = \"{keys}\"\naudience = [\"{AUDIENCE}\"]\n{more}\n"
        );
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        Self { issuer, directory }
    }

    async fn run(&self, arguments: &[&str], stdin: &str) -> Explained {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .args(arguments)
            .env_clear()
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // A program that does not read its input may be gone already.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let output = soon("its end", child.wait_with_output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let explained = Explained {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!self.directory.path().join("audit.log").exists());
        explained
    }

    /// Explains a token, which must not be in the output, nor one of its parts.
    async fn token(&self, token: &str) -> Explained {
        let explained = self.run(&["explain-token", token], "").await;
        for part in token.split('.').filter(|part| part.len() > 8) {
            assert!(!explained.stdout.contains(part), "{}", explained.stdout);
            assert!(!explained.stderr.contains(part), "{}", explained.stderr);
        }
        explained
    }

    /// A token of Alice's with these claims beside or instead of her own.
    fn alice(&self, claims: &Value) -> String {
        let mut all = json!({
            "sub": "alice", "aud": AUDIENCE, "email": "alice@example.org", "name": "Alice Example",
            "iat": 1_700_000_000, "exp": 4_102_444_800_u64,
        });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        self.issuer.token(&all)
    }

    /// What was told, without what differs from run to run.
    fn redacted(&self, explained: &Explained) -> String {
        let told = format!(
            "{}exit {}\n{}",
            explained.stdout,
            explained.code.unwrap(),
            explained.stderr
        );
        let told = told
            .replace(&self.issuer.url(), "(issuer)")
            .replace(&self.issuer.kid(), "(kid)");
        let mut lines = String::new();
        for line in told.lines() {
            let line = line.split_once(", now ").map_or(line, |(line, _)| line);
            lines.push_str(line);
            lines.push('\n');
        }
        lines
    }
}

impl Explained {
    /// The checks by name, in order, of one verdict.
    fn checks(&self, verdict: &str) -> Vec<&str> {
        let lines = self.stdout.lines();
        lines
            .filter_map(|line| line.strip_prefix(verdict))
            .map(str::trim_start)
            .map(|rest| rest.split_once("  ").map_or(rest, |(name, _)| name))
            .collect()
    }
}

const RULES: &str = r#"
[[access.rules]]
when = { subject = "nobody" }
profile = "admin"
[[access.rules]]
when = { role = "staff" }
profile = "clerk-staff"
[access.profiles.clerk-staff]
extends = "user"
allow = ["deleteProcessInstance"]
"#;

#[tokio::test]
async fn an_accepted_token_is_explained_check_by_check() {
    let here = Here::with(RULES).await;
    let token = here.alice(&json!({"roles": ["staff", "accounting"]}));
    let explained = here.token(&token).await;
    assert_eq!(explained.code, Some(0), "{}", explained.stderr);
    assert_eq!(explained.stderr, "");
    insta::assert_snapshot!("explain_token_accepted", here.redacted(&explained));
    assert_eq!(here.issuer.fetches(), 1);
}

#[tokio::test]
async fn the_first_check_that_fails_is_named_and_those_behind_it_are_not_made() {
    const CHECKS: [&str; 10] = [
        "form",
        "issuer",
        "keys",
        "signature",
        "audience",
        "authorized party",
        "purpose",
        "not before",
        "expiry",
        "id",
    ];
    let here = Here::with("authorized_parties = [\"web\"]").await;
    let other = Issuer::start().await.unwrap();
    let good = json!({"azp": "web"});
    let with = |claims: Value| {
        let mut all = good.clone();
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        here.alice(&all)
    };
    let foreign = other.token(&json!({"iss": here.issuer.url(), "sub": "alice", "aud": AUDIENCE}));
    let claims = json!({"iss": here.issuer.url()}).to_string();
    let unknown = br#"{"alg":"none"}"#;
    for (token, check, said) in [
        ("x".to_owned(), "form", "the token has 1 parts, expected 3"),
        (
            here.issuer.sign(unknown, claims.as_bytes()),
            "form",
            "header member \"alg\" names an algorithm that is never accepted",
        ),
        (
            with(json!({"iss": "https://other.example"})),
            "issuer",
            "iss \"https://other.example\", expected ",
        ),
        (
            foreign,
            "signature",
            "RS256, expected RS256; the issuer's keys: ",
        ),
        (
            with(json!({"aud": ["shop", "mail"]})),
            "audience",
            "aud [\"shop\", \"mail\"], expected \"bpmgate\"",
        ),
        (
            with(json!({"azp": "cron"})),
            "authorized party",
            "azp \"cron\", expected \"web\"",
        ),
        (
            with(json!({"cnf": {"jkt": "x"}})),
            "purpose",
            "claim \"cnf\" binds the token to a key",
        ),
        (
            with(json!({"nbf": 4_000_000_000_u64})),
            "not before",
            "nbf 2096-10-02T07:06:40Z, iat 2023-11-14T22:13:20Z",
        ),
        (
            with(json!({"exp": 1_700_000_100})),
            "expiry",
            "exp 2023-11-14T22:15:00Z, now 2",
        ),
        (
            with(json!({"sub": "a\nb"})),
            "id",
            "the caller's id is with a control character",
        ),
    ] {
        let explained = here.token(&token).await;
        assert_eq!(explained.code, Some(1), "{check}: {}", explained.stdout);
        assert!(
            explained.stdout.contains(said),
            "{check}: {}",
            explained.stdout
        );
        let place = CHECKS.iter().position(|known| *known == check).unwrap();
        assert_eq!(explained.checks("passed "), CHECKS[..place]);
        assert_eq!(explained.checks("failed "), [check]);
        assert_eq!(explained.checks("not checked "), CHECKS[place + 1..]);
        assert!(!explained.stdout.contains("identity"));
        let error = explained
            .stderr
            .strip_prefix("error: the token is refused: ");
        assert!(error.is_some(), "{}", explained.stderr);
    }
    assert_eq!(here.token(&with(json!({}))).await.code, Some(0));
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_told_with_their_reason() {
    let here = Here::with("").await;
    here.issuer
        .set_fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let explained = here.token(&here.alice(&json!({}))).await;
    assert_eq!(explained.code, Some(1));
    assert_eq!(explained.checks("failed "), ["keys"]);
    assert!(explained.stdout.contains("500"), "{}", explained.stdout);
}

#[tokio::test]
async fn the_token_comes_from_standard_input_too_as_a_header_has_it() {
    let here = Here::with("").await;
    let token = here.alice(&json!({}));
    for (arguments, stdin) in [
        (&["explain-token"][..], format!("{token}\n")),
        (&["explain-token", "-"], token.clone()),
        (
            &["explain-token", "--config", "config.toml"],
            format!("bearer  {token} \r\n"),
        ),
    ] {
        let explained = here.run(arguments, &stdin).await;
        assert_eq!(explained.code, Some(0), "{stdin}: {}", explained.stdout);
        assert!(explained.stdout.contains("  id          alice\n"));
    }
    // More than a token can be is not read to its end, and said to be too long.
    let explained = here.run(&["explain-token"], &"a".repeat(1 << 20)).await;
    assert_eq!(explained.code, Some(1));
    assert!(
        explained.stdout.contains("bytes, more than 16384"),
        "{}",
        explained.stdout
    );
}

#[tokio::test]
async fn what_a_token_says_cannot_move_the_cursor() {
    let here = Here::with("").await;
    for claims in [
        json!({"iss": "https://a\u{1b}[2J\u{202e}"}),
        json!({"aud": ["\u{1b}]0;x\u{7}"]}),
        json!({"email": "a\u{202e}b@example.org", "roles": ["\u{9b}2J", "x\u{200f}"]}),
    ] {
        let explained = here.token(&here.alice(&claims)).await;
        for sign in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}', '\u{200f}'] {
            let said = [&*explained.stdout, &explained.stderr].concat();
            assert!(!said.contains(sign), "{claims}: {said:?}");
        }
    }
}

#[tokio::test]
async fn a_request_is_explained_for_every_profile() {
    let here = Here::with(RULES).await;
    for (name, method, path, code) in [
        (
            "start",
            "POST",
            "/api/process-definition/key/order/start",
            0,
        ),
        (
            "claim",
            "POST",
            "/engine-rest/engine/default/t%61sk/7/claim/",
            0,
        ),
        ("delete", "DELETE", "/api/process-instance/7", 0),
        ("variable", "PUT", "/api/task/7/variables/initiator", 1),
        ("no_operation", "POST", "/api/no/such?a=%20b", 0),
        ("other_case", "post", "/api/task/7/claim", 1),
        ("bad_path", "GET", "/api/task;a=b", 1),
        ("elsewhere", "GET", "/other/task", 1),
        ("own", "GET", "/health", 0),
        ("workflow_start", "POST", "/api/processes/order/start", 0),
        ("workflow_suspend", "POST", "/api/instances/7/suspend", 0),
        ("workflow_list", "GET", "/api/processes?key=a", 0),
        ("workflow_other_method", "PUT", "/api/tasks/7", 1),
        ("workflow_bad_page", "GET", "/api/tasks?maxResults=-1", 1),
        ("workflow_statistics", "GET", "/api/statistics", 0),
        ("workflow_user", "GET", "/api/user", 0),
        ("workflow_elsewhere", "GET", "/engine-rest/tasks", 0),
    ] {
        let explained = here.run(&["explain-request", method, path], "").await;
        assert_eq!(explained.code, Some(code), "{name}: {}", explained.stdout);
        insta::assert_snapshot!(format!("explain_request_{name}"), here.redacted(&explained));
    }
    // Nobody's token, so no keys.
    assert_eq!(here.issuer.connections(), 0);
}

#[tokio::test]
async fn a_request_with_a_token_is_explained_for_its_caller() {
    let here = Here::with(RULES).await;
    let staff = here.alice(&json!({"roles": "staff"}));
    let plain = here.alice(&json!({}));
    let bad = here.alice(&json!({"aud": "shop"}));
    for (name, token, method, path, code) in [
        (
            "user_start",
            &plain,
            "POST",
            "/api/process-definition/key/order/start",
            0,
        ),
        (
            "user_delete",
            &plain,
            "DELETE",
            "/api/process-instance/7",
            1,
        ),
        (
            "staff_delete",
            &staff,
            "DELETE",
            "/api/process-instance/7",
            0,
        ),
        (
            "user_query",
            &plain,
            "GET",
            "/api/task?assigneeExpression=x",
            1,
        ),
        ("refused_token", &bad, "GET", "/api/task", 1),
    ] {
        for (argument, stdin) in [(token.as_str(), ""), ("-", token.as_str())] {
            let arguments = ["explain-request", method, path, "--token", argument];
            let explained = here.run(&arguments, stdin).await;
            assert_eq!(explained.code, Some(code), "{name}: {}", explained.stdout);
            assert!(!explained.stdout.contains(token.as_str()));
            insta::assert_snapshot!(format!("explain_request_{name}"), here.redacted(&explained));
        }
    }
}

#[tokio::test]
async fn bad_usage_is_2() {
    let here = Here::with("").await;
    for arguments in [
        &["explain-request", "GET"][..],
        &["explain-request", "G T", "/api/task"],
        &["explain-token", "--config", "no-such.toml"],
    ] {
        let explained = here.run(arguments, "").await;
        assert_eq!(
            explained.code,
            Some(2),
            "{arguments:?}: {}",
            explained.stderr
        );
    }
}
