//! The command line as a user has it: arguments and environment in, standard output, standard error and exit code out. No sockets.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "what fails in a set-up fails the test")]

use std::path::Path;
use std::process::{Command, Output};

/// A directory of its own for each test, so that `./config.toml` is the test's.
struct Here(tempfile::TempDir);

impl Here {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(name: &str, text: &str) -> Self {
        let here = Self::new();
        std::fs::write(here.path().join(name), text).unwrap();
        here
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_bpmgate"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(self.path())
            .output()
            .unwrap();
        Run::of(&output)
    }
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

const GOOD: &str = "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://clerk.example.com\"\nauthorized_parties = [\"https://app.example.com\"]\n[engine.credentials]\npassword = \"hunter2\"\n";
const ISSUER: &str = "[[issuers]]\nissuer = \"https://id.example.com\"\naudience = [\"bpm\"]\n";
const CLERK: (&str, &str) = (
    "CLERK_JWKS_URL",
    "https://clerk.example.com/.well-known/jwks.json",
);

#[test]
fn check_prints_the_effective_configuration_with_secrets_masked() {
    let here = Here::with("config.toml", GOOD);
    let run = here.run(&["check"], &[("BPMGATE__SERVER__WORKERS", "3")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr, "");
    assert!(
        run.stdout
            .contains("\nissuer = \"https://clerk.example.com\"  # config.toml:3\n")
    );
    assert!(
        run.stdout
            .contains("\npassword = \"***\"  # config.toml:6\n")
    );
    assert!(
        run.stdout
            .contains("\nworkers = 3  # BPMGATE__SERVER__WORKERS\n")
    );
    assert!(run.stdout.contains("\nlisten = \"127.0.0.1:8000\"\n"));
    assert!(!run.stdout.contains("hunter2"));
    let printed: toml::Table = run.stdout.parse().unwrap();
    assert_eq!(
        printed["routes"]["prefixes"][1].as_str(),
        Some("/engine-rest")
    );
}

#[test]
fn each_issuer_is_printed_with_its_own_places() {
    let text = "\
[[issuers]]
issuer = \"https://a.example.com\"
audience = [\"gate\"]
id_prefix = \"a:\"
claims.email = [\"mail\"]
[[issuers]]
issuer = \"https://b.example.com\"
audience = [\"gate\"]
id_prefix = \"b:\"
claims.name = [\"nick\"]
";
    let run = Here::with("config.toml", text).run(&["check"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let placed: Vec<_> = run
        .stdout
        .lines()
        .filter(|line| line.contains("  # "))
        .collect();
    assert_eq!(
        placed,
        [
            "issuer = \"https://a.example.com\"  # config.toml:2",
            "audience = [\"gate\"]  # config.toml:3",
            "id_prefix = \"a:\"  # config.toml:4",
            "email = [\"mail\"]  # config.toml:5",
            "issuer = \"https://b.example.com\"  # config.toml:7",
            "audience = [\"gate\"]  # config.toml:8",
            "id_prefix = \"b:\"  # config.toml:9",
            "name = [\"nick\"]  # config.toml:10",
        ]
    );
}

#[test]
fn what_check_prints_is_a_configuration_again() {
    let here = Here::new();
    let first = here.run(&["check"], &[CLERK]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    std::fs::write(here.path().join("again.toml"), &first.stdout).unwrap();
    let second = here.run(&["check", "--config", "again.toml"], &[]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    let parsed = |run: &Run| run.stdout.parse::<toml::Table>().unwrap();
    assert_eq!(parsed(&first), parsed(&second));
}

#[test]
fn warnings_go_to_standard_error_and_are_no_failure() {
    let here = Here::with(
        "config.toml",
        &format!("{GOOD}[telemetry]\notlp_endpoint = \"http://collector:4318\"\n"),
    );
    let run = here.run(&["check"], &[]);
    assert_eq!(run.code, Some(0));
    assert_eq!(
        run.stderr,
        "\
warning: `telemetry.otlp_endpoint` is an http:// URL: what the spans say can be read and changed on the way
 --> config.toml:8:1
  |
8 | otlp_endpoint = \"http://collector:4318\"
  | ^^^^^^^^^^^^^
  |
hint: use https:// unless the network between is trusted

"
    );
    assert!(run.stdout.parse::<toml::Table>().is_ok());
}

#[test]
fn a_wrong_configuration_is_2_with_nothing_on_standard_output() {
    let text = format!("[engine.time_outs]\nconnect = \"5s\"\n{ISSUER}");
    let here = Here::with("config.toml", &text);
    for arguments in [&["check"][..], &["serve"], &[]] {
        let run = here.run(arguments, &[]);
        assert_eq!(run.code, Some(2), "{arguments:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert_eq!(
            run.stderr,
            "\
error: unknown key `engine.time_outs`
 --> config.toml:1:9
  |
1 | [engine.time_outs]
  |         ^^^^^^^^^ not a key of `[engine]`
  |
hint: did you mean `engine.timeouts`?
"
        );
    }
}

#[test]
fn the_given_file_is_read_and_no_other() {
    let here = Here::with("config.toml", "nonsense");
    std::fs::write(here.path().join("other.toml"), GOOD).unwrap();
    assert_eq!(here.run(&["check"], &[]).code, Some(2));
    let run = here.run(&["check", "--config", "other.toml"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("# other.toml:3"));
}

#[test]
fn a_given_file_that_is_not_there_is_2() {
    let run = Here::with("config.toml", GOOD).run(&["check", "--config", "missing.toml"], &[]);
    assert_eq!(run.code, Some(2));
    assert_eq!(
        run.stderr,
        "error: cannot read the configuration file \"missing.toml\": No such file or directory (os error 2)\n"
    );
}

#[test]
fn bad_usage_is_2_and_help_is_0() {
    let here = Here::new();
    for arguments in [
        &["nonsense"][..],
        &["--nonsense"],
        &["check", "--config"],
        &["schema", "--config", "x"],
        &["--config", "x", "check"],
        &["demo", "--engine", "localhost"],
    ] {
        let run = here.run(arguments, &[CLERK]);
        assert_eq!(run.code, Some(2), "{arguments:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"]] {
        let run = here.run(arguments, &[]);
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    let version = format!("bpmgate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(here.run(&["--version"], &[]).stdout, version);
}

#[test]
fn schema_prints_a_json_schema_that_knows_every_table() {
    let run = Here::new().run(&["schema"], &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    for table in [
        "server",
        "admin",
        "engine",
        "routes",
        "issuers",
        "initiator",
        "access",
        "cors",
        "workflow_api",
        "telemetry",
    ] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good: toml::Table = GOOD.parse().unwrap();
    assert!(validator.is_valid(&serde_json::to_value(good).unwrap()));
    assert!(!validator.is_valid(&serde_json::json!({ "server": { "worker": 1 } })));
}

#[test]
fn the_example_file_passes_check_as_it_is() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example");
    let run = Here::new().run(&["check", "--config", example], &[]);
    assert_eq!(run.code, Some(0));
    // It names no audience, as there is none that would be right.
    let warned = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning"));
    let audience = "warning: `issuers.0.audience` is empty: tokens that the issuer made for any other application are accepted too";
    assert_eq!(warned.collect::<Vec<_>>(), [audience], "{}", run.stderr);
}

#[test]
fn completions_know_every_command_in_every_shell() {
    let here = Here::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let run = here.run(&["completions", shell], &[]);
        assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{shell}");
        for word in ["explain-request", "completions", "--config", "--issuers"] {
            // fish writes options without their dashes.
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(run.stdout.contains(word), "{shell} {word}");
        }
    }
    let run = here.run(&["completions", "tcsh"], &[]);
    assert_eq!((run.code, &*run.stdout), (Some(2), ""));
}

#[test]
fn bash_takes_the_completions() {
    let here = Here::new();
    let script = here.run(&["completions", "bash"], &[]).stdout;
    std::fs::write(here.path().join("bpmgate.bash"), script).unwrap();
    let ask = "source ./bpmgate.bash; COMP_WORDS=(bpmgate explain-r); COMP_CWORD=1; \
               _bpmgate bpmgate explain-r bpmgate; echo \"${COMPREPLY[*]}\"";
    let bash = Command::new("bash")
        .args(["--norc", "-c", ask])
        .current_dir(here.path())
        .output();
    // Where there is no bash, nobody needs them.
    let Ok(output) = bash else { return };
    assert_eq!(Run::of(&output).stdout, "explain-request\n");
}

#[test]
fn the_manual_page_has_every_command_and_no_line_that_roff_would_eat() {
    let here = Here::new();
    let page = here.run(&["man"], &[]);
    assert_eq!((page.code, &*page.stderr), (Some(0), ""));
    let help = here.run(&["--help"], &[]).stdout;
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    let mut count = 0;
    for name in names {
        let heading = format!("\n.SS {}\n", name.replace('-', "\\-"));
        let plain = format!("\n.SS {name}\n");
        assert!(
            page.stdout.contains(&heading) || page.stdout.contains(&plain),
            "{name}"
        );
        count += 1;
    }
    assert!(count >= 9, "{commands}");
    for section in [
        "NAME",
        "SYNOPSIS",
        "OPTIONS",
        "COMMANDS",
        "FILES",
        "ENVIRONMENT",
        "\"EXIT STATUS\"",
    ] {
        assert!(
            page.stdout.contains(&format!("\n.SH {section}\n")),
            "{section}"
        );
    }
    // A request of roff is known, or the line is lost.
    for line in page
        .stdout
        .lines()
        .filter(|line| line.starts_with(['.', '\'']))
    {
        let request = line.split(' ').next().unwrap();
        assert!(
            [
                ".TH", ".SH", ".SS", ".TP", ".ie", ".el", ".RS", ".RE", ".IP", ".br"
            ]
            .contains(&request),
            "{line}"
        );
    }
}
