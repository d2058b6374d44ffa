//! The command line: what was asked for, and the exit code.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 fine, 1 failed while running, 2 bad usage or configuration.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use http::Method;

use crate::config::{ConfigError, HttpUrl, Loaded, Warning, load};

mod check;
mod completions;
mod demo;
mod explain_request;
mod explain_token;
mod health;
mod man;
mod schema;
mod serve;

/// Runs what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    // Bad usage ends here with 2, `--help` and `--version` with 0.
    let command_line = CommandLine::parse();
    let serve = Command::Serve(command_line.serve);
    let done = match command_line.command.unwrap_or(serve) {
        Command::Serve(serve) => serve.load().and_then(serve::run),
        Command::Check(check) => check::run(check),
        Command::Demo(demo) => demo::run(demo.engine.as_ref()),
        Command::ExplainToken(explain) => explain_token::run(explain),
        Command::ExplainRequest(explain) => explain_request::run(explain),
        Command::Health(config) => health::run(config),
        Command::Schema => schema::run(),
        Command::Completions(completions) => completions::run(completions.shell),
        Command::Man => man::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure.render(colour()));
            failure.exit_code()
        }
    }
}

/// An authenticating gateway for Camunda-7-family BPMN engines
#[derive(Debug, Parser)]
#[command(name = "bpmgate", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ConfigFile,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (what happens without a command, too)
    Serve(ConfigFile),
    /// Validate the configuration and print what it comes to, with secrets masked
    Check(Check),
    /// Run issuer, engine and gateway on this machine, to try things out
    Demo(Demo),
    /// Say which checks a token passes, whom it speaks for, and which profile that gives
    ExplainToken(ExplainToken),
    /// Say what a request means, who may send it, and what becomes of it
    ExplainRequest(ExplainRequest),
    /// Ask the running gateway whether it lives (for health checks of containers): 0 if it does, else 1
    Health(ConfigFile),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print what a shell needs to complete this command line
    Completions(Completions),
    /// Print the manual page, as roff
    Man,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file [default: ./config.toml, else /etc/bpmgate/config.toml, else the environment alone]
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Ask the engine too: flavour and version, and whether it is protected
    #[arg(long)]
    engine: bool,
    /// Fetch the issuers' keys too
    #[arg(long)]
    issuers: bool,
}

#[derive(Debug, Args)]
struct ExplainToken {
    #[command(flatten)]
    config: ConfigFile,
    /// The token, or `-` for standard input, where it is not seen in the list of processes [default: -]
    #[arg(value_name = "TOKEN")]
    token: Option<GivenToken>,
}

#[derive(Debug, Args)]
struct ExplainRequest {
    #[command(flatten)]
    config: ConfigFile,
    /// The method
    #[arg(value_parser = method)]
    method: Method,
    /// The path as a client sends it, with its query: `/api/task?assignee=x`
    #[arg(value_name = "PATH")]
    target: String,
    /// Whose request it is: a token, or `-` for standard input [default: anybody's]
    #[arg(long, value_name = "TOKEN")]
    token: Option<GivenToken>,
}

/// A token as it was given; never shown.
#[derive(Clone)]
struct GivenToken(String);

impl From<String> for GivenToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenToken(***)")
    }
}

#[derive(Debug, Args)]
struct Demo {
    /// Use the engine at this URL instead of the small one in memory
    #[arg(long, value_name = "URL", value_parser = engine_url)]
    engine: Option<HttpUrl>,
}

#[derive(Debug, Args)]
struct Completions {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl ConfigFile {
    fn load(self) -> Result<Loaded, Failure> {
        let file = load::locate(self.path);
        Ok(load::load(file.as_deref(), std::env::vars_os())?)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// Something failed while running.
    Running(Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            Self::Running(_) => ExitCode::FAILURE,
        }
    }

    fn render(&self, colour: bool) -> String {
        match self {
            Self::Config(error) => error.render(colour),
            Self::Running(error) => {
                let causes = std::iter::successors(error.source(), |cause| cause.source());
                causes.fold(format!("error: {error}"), |text, cause| {
                    format!("{text}: {cause}")
                })
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Running(error.into())
    }
}

/// Writes data to standard output. A reader that went away (`| head`) has what it wanted.
fn print(data: &dyn fmt::Display) -> Result<(), Failure> {
    match write!(io::stdout().lock(), "{data}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes to standard error, where nobody can be told if that fails.
fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn tell_warnings(warnings: &[Warning]) {
    for warning in warnings {
        tell(&format!("{}\n", warning.render(colour())));
    }
}

/// Colours are for people at a terminal who do not set `NO_COLOR` (no-color.org).
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn method(text: &str) -> Result<Method, http::method::InvalidMethod> {
    text.parse()
}

fn engine_url(text: &str) -> Result<HttpUrl, crate::config::Expected> {
    text.parse()
}
