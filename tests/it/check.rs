//! `bpmgate check --engine` and `--issuers`: what it finds out, and how carefully.

use bpmgate::config::Config;
use bpmgate::demo::engine::{Engine, Script, Settings};
use bpmgate::demo::issuer::{Fault, Issuer};
use bytes::Bytes;
use http::StatusCode;
use http::header::DATE;

use crate::support::soon;

struct Checked {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Checked {
    /// Runs it with the engine's account and these flags; `more` is TOML at the top level.
    async fn of(flags: &[&str], engine: &str, issuers: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("admin.listen = \"\"\nengine.url = \"{engine}\"\n{more}\n{issuers}");
        std::fs::write(directory.path().join("config.toml"), text).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .arg("check")
            .args(flags)
            .env_clear()
            .current_dir(directory.path())
            .kill_on_drop(true)
            .output();
        let output = soon("its end", output).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What it found, line by line; and that the whole is still the configuration.
    fn found(&self) -> Vec<&str> {
        let config: Config = toml::from_str(&self.stdout).unwrap();
        assert_eq!(config.issuers.len(), 1);
        let lines = self
            .stdout
            .lines()
            .filter(|line| line.starts_with("# ") || line.starts_with("#  "));
        lines
            .map(|line| line.trim_start_matches(['#', ' ']))
            .collect()
    }

    fn warnings(&self) -> Vec<&str> {
        self.stderr
            .lines()
            .filter_map(|line| line.strip_prefix("warning: "))
            .collect()
    }
}

const CLERK: &str = "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://clerk.example.com\"\nauthorized_parties = [\"https://app.example.com\"]\n";

#[tokio::test]
async fn what_stands_open_by_configuration_is_warned_of() {
    let loopback = "http://127.0.0.1:1/engine-rest";
    let none: [&str; 0] = [];
    for (engine, more, warnings) in [
        (loopback, "", &none[..]),
        (
            "http://engine.example.com/engine-rest",
            "",
            &[
                "`engine.url` is an http:// URL: the engine's credentials can be read and changed on the way",
            ],
        ),
        (
            loopback,
            "cors.origins = [\"*\"]",
            &[
                "`cors.origins` is `[\"*\"]` with `cors.credentials = true`: every web page may call the gateway with its user's cookies and certificates",
            ],
        ),
        (
            loopback,
            "cors = { origins = [\"*\"], credentials = false }",
            &none,
        ),
    ] {
        let checked = Checked::of(&[], engine, CLERK, more).await;
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        assert_eq!(checked.warnings(), warnings, "{engine} {more}");
    }
}

fn json(status: StatusCode, body: &'static str) -> Script {
    Script::Answer {
        status,
        headers: vec![(
            http::header::CONTENT_TYPE,
            "application/json".parse().unwrap(),
        )],
        body: Bytes::from_static(body.as_bytes()),
        trailers: None,
    }
}

async fn engine(username: &str, password: &str) -> Engine {
    let settings = Settings {
        username: username.to_owned(),
        password: password.to_owned(),
        ..Settings::default()
    };
    Engine::start_with(settings).await.unwrap()
}

#[tokio::test]
async fn an_issuer_whose_tokens_for_others_are_accepted_is_warned_of() {
    let issuer = Issuer::start().await.unwrap();
    let title = "`issuers.0.audience` is empty: tokens that the issuer made for any other application are accepted too";
    for (more, warnings) in [
        ("", &[title][..]),
        ("audience = [\"bpmgate\"]", &[]),
        ("authorized_parties = [\"https://app.example.com\"]", &[]),
    ] {
        let table = issuers(&issuer, &format!("preset = \"clerk\"\n{more}"));
        let table = table.replace("audience = [\"gate\"]\n", "");
        for arguments in [&["--issuers"][..], &[]] {
            let checked = Checked::of(arguments, "http://127.0.0.1:1", &table, "").await;
            assert_eq!(checked.code, Some(0), "{}", checked.stderr);
            assert_eq!(checked.warnings(), warnings, "{arguments:?} {more}");
        }
    }
}

#[tokio::test]
async fn an_engine_with_the_well_known_account_is_warned_of() {
    let engine = engine("demo", "demo").await;
    let checked = Checked::of(&["--engine"], &engine.url(), CLERK, "").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(
        checked.found(),
        [
            &format!("engine {}", engine.url())[..],
            "version              1.0.3",
            "product              of the Camunda 7 family: GET /telemetry/data did not tell",
            "without credentials  refuses",
            "demo/demo            accepted",
            "authorizations       unknown: GET /authorization/check gave no answer that tells",
        ]
    );
    assert_eq!(
        checked.warnings(),
        ["the gateway's account on the engine is demo/demo, which everybody knows"]
    );
}

#[tokio::test]
async fn flavour_and_authorizations_are_what_the_engine_says() {
    for (check, fact, warned) in [
        (
            json(StatusCode::OK, r#"{"authorized":true}"#),
            "off: even a user who does not exist may delete authorizations",
            true,
        ),
        (
            json(StatusCode::OK, r#"{"authorized":false}"#),
            "on: a user who does not exist may not delete authorizations",
            false,
        ),
        (
            json(StatusCode::FORBIDDEN, "{}"),
            "on: a user who does not exist may not delete authorizations",
            false,
        ),
    ] {
        let engine = engine("gate", "hunter2").await;
        engine.script("/engine-rest/telemetry/data", json(StatusCode::OK, r#"{"installation":"x","product":{"name":"Operaton BPM Runtime","version":"1.0.3"}}"#));
        engine.script("/engine-rest/authorization/check", check);
        let account = "engine.credentials = { username = \"gate\", password = \"hunter2\" }";
        let checked = Checked::of(&["--engine"], &engine.url(), CLERK, account).await;
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let found = checked.found();
        assert_eq!(found[2], "product              Operaton BPM Runtime");
        assert_eq!(found[4], "demo/demo            refused");
        assert_eq!(found[5], format!("authorizations       {fact}"));
        assert_eq!(
            checked.warnings().len(),
            usize::from(warned),
            "{}",
            checked.stderr
        );
        assert!(!checked.stdout.contains("hunter2") && !checked.stderr.contains("hunter2"));
        // One wrong password, for an account that is not ours.
        let wrong = engine.requests().into_iter().filter(|seen| {
            let given = seen
                .headers
                .get("authorization")
                .map(|value| value.to_str().unwrap());
            given.is_some_and(|given| given != "Basic Z2F0ZTpodW50ZXIy")
        });
        let wrong: Vec<_> = wrong
            .map(|seen| seen.headers["authorization"].clone())
            .collect();
        assert_eq!(wrong, ["Basic ZGVtbzpkZW1v"]);
    }
}

#[tokio::test]
async fn the_gateways_own_account_is_never_tried_with_a_wrong_password() {
    let engine = engine("demo", "hunter2").await;
    let account = "engine.credentials.password = \"hunter2\"";
    let checked = Checked::of(&["--engine"], &engine.url(), CLERK, account).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(
        checked.found()[4],
        "demo/demo            not asked: a wrong password would lock the gateway's own account, `demo`"
    );
    for seen in engine.requests() {
        let given = seen.headers.get("authorization");
        assert!(
            given.is_none_or(|given| given == "Basic ZGVtbzpodW50ZXIy"),
            "{given:?}"
        );
    }
}

#[tokio::test]
async fn an_open_engine_is_warned_of() {
    // The demo's engine always asks for credentials; this one answers everybody.
    let open = bpmgate::demo::raw::RawEngine::answering(
        "HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"version\":\"7.24.0\"}",
        bpmgate::demo::raw::Then::Continue,
    )
    .await
    .unwrap();
    for mode in ["basic", "none"] {
        let account = format!("engine.credentials.mode = \"{mode}\"");
        let checked = Checked::of(&["--engine"], &open.url(), CLERK, &account).await;
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let found = checked.found();
        assert_eq!(found[1], "version              7.24.0");
        assert_eq!(found[3], "without credentials  answers");
        assert_eq!(
            found[4],
            "demo/demo            not asked: it answers everybody"
        );
        assert_eq!(
            checked.warnings(),
            ["the engine answers without credentials: whoever reaches it may do everything"]
        );
    }
}

#[tokio::test]
async fn an_engine_that_cannot_be_used_is_an_error_that_says_why() {
    let engine = engine("gate", "hunter2").await;
    let url = engine.url();
    let unused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/engine-rest", listener.local_addr().unwrap())
    };
    let elsewhere = url.replace("/engine-rest", "/rest");
    for (url, more, says) in [
        (
            &url,
            "",
            "error: the engine refuses the account `demo`, expected user name and password in `engine.credentials`",
        ),
        (
            &url,
            "engine.credentials.mode = \"none\"",
            "error: the engine asks for credentials, and `engine.credentials.mode` is \"none\"",
        ),
        (
            &elsewhere,
            "",
            "/rest/version answers 404 Not Found, expected the engine's REST root in `engine.url`",
        ),
        (&unused, "", "Connection refused"),
    ] {
        let checked = Checked::of(&["--engine"], url, CLERK, more).await;
        assert_eq!(checked.code, Some(1), "{}", checked.stderr);
        assert!(
            checked.stderr.contains(says),
            "{says} in {}",
            checked.stderr
        );
        assert!(!checked.stderr.contains("hunter2"));
    }
}

#[tokio::test]
async fn each_node_of_the_engine_is_asked_and_named() {
    let (first, second) = (
        engine("gate", "hunter2").await,
        engine("gate", "hunter2").await,
    );
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_address = gone.local_addr().unwrap();
    drop(gone);
    let more = |password: &str| {
        format!(
            "engine.credentials = {{ username = \"gate\", password = \"{password}\" }}\n\
             engine.nodes = [\"http://{}\", \"http://{gone_address}\", \"http://{}\"]",
            first.address(),
            second.address()
        )
    };
    let nobody = "http://engine.invalid/engine-rest";
    let checked = Checked::of(&["--engine"], nobody, CLERK, &more("hunter2")).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    assert_eq!(
        checked.found(),
        [
            &format!("engine {}", first.url())[..],
            "version              1.0.3",
            "product              of the Camunda 7 family: GET /telemetry/data did not tell",
            "without credentials  refuses",
            "demo/demo            refused",
            "authorizations       unknown: GET /authorization/check gave no answer that tells",
            &format!("engine http://{gone_address}/engine-rest"),
            &format!("engine {}", second.url()),
            "version              1.0.3",
            "without credentials  refuses",
        ]
    );
    let error = format!("error: the engine at http://{gone_address}/engine-rest: ");
    assert!(checked.stderr.contains(&error), "{}", checked.stderr);

    // The nodes have one account, which a wrong password locks.
    second.forget_requests();
    let checked = Checked::of(&["--engine"], nobody, CLERK, &more("wrong")).await;
    assert_eq!(checked.code, Some(1));
    let error = format!(
        "error: the engine's node {} refuses the account `gate`",
        first.address()
    );
    assert!(checked.stderr.contains(&error), "{}", checked.stderr);
    assert_eq!(second.request_count(), 0);
}

fn issuers(issuer: &Issuer, more: &str) -> String {
    format!(
        "[[issuers]]\nissuer = \"{}\"\njwks_url = \"{}\"\naudience = [\"gate\"]\n{more}\n",
        issuer.url(),
        issuer.jwks_url()
    )
}

#[tokio::test]
async fn keys_and_clock_of_an_issuer_are_shown() {
    let issuer = Issuer::start().await.unwrap();
    let url = "http://localhost:1/engine-rest";
    let checked = Checked::of(&["--issuers"], url, &issuers(&issuer, ""), "").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(checked.stderr, "");
    assert_eq!(
        checked.found(),
        [
            format!("issuer {}", issuer.url()),
            format!("key                  {} RS256", issuer.kid()),
            "clock                agrees with ours".to_owned(),
        ]
    );
    assert_eq!(issuer.fetches(), 1);

    let checked = Checked::of(
        &["--issuers"],
        url,
        &issuers(&issuer, "algorithms = [\"ES256\"]"),
        "",
    )
    .await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(
        checked.warnings(),
        [format!(
            "no key of {} is for one of its `algorithms`: no token would be accepted",
            issuer.url()
        )]
    );
}

#[tokio::test]
async fn a_clock_that_is_off_is_warned_of() {
    // The demo's engine answers whatever it is told to, so it plays an issuer from the past.
    let issuer = Issuer::start().await.unwrap();
    let elsewhen = Engine::start().await.unwrap();
    elsewhen.script(
        "/engine-rest/engine",
        Script::Answer {
            status: StatusCode::OK,
            headers: vec![(DATE, "Tue, 15 Nov 1994 08:12:31 GMT".parse().unwrap())],
            body: issuer.jwks().to_string().into(),
            trailers: None,
        },
    );
    // The list of engines needs no credentials.
    let table =
        issuers(&issuer, "").replace(&issuer.jwks_url(), &format!("{}/engine", elsewhen.url()));
    let checked = Checked::of(&["--issuers"], "http://localhost:1/engine-rest", &table, "").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.found()[2].ends_with(" s behind ours"),
        "{}",
        checked.stdout
    );
    assert!(
        checked.warnings()[0].ends_with(" s behind ours, more than `leeway`"),
        "{}",
        checked.stderr
    );
}

#[tokio::test]
async fn every_issuer_and_the_engine_are_asked_although_one_fails() {
    let (good, bad) = (
        Issuer::start().await.unwrap(),
        Issuer::start().await.unwrap(),
    );
    bad.set_fault(Fault::Status(StatusCode::NOT_FOUND));
    let table = issuers(&bad, "id_prefix = \"bad:\"") + &issuers(&good, "id_prefix = \"good:\"");
    let checked = Checked::of(
        &["--engine", "--issuers"],
        "http://localhost:1/engine-rest",
        &table,
        "",
    )
    .await;
    assert_eq!(checked.code, Some(1));
    assert!(checked.stdout.contains(&good.kid()), "{}", checked.stdout);
    let errors: Vec<_> = checked
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 2, "{}", checked.stderr);
    assert!(
        errors[0].starts_with("error: the engine at http://localhost:1/engine-rest: "),
        "{}",
        errors[0]
    );
    assert_eq!(
        errors[1],
        format!(
            "error: no keys of the issuer {}: {} answered 404 Not Found, expected 200",
            bad.url(),
            bad.jwks_url()
        )
    );
}
