//! `bpmgate check`: validates the configuration and prints what it comes to.
//!
//! The output is the effective configuration as TOML, in the order of the reference, secrets masked. Where a key was set stands beside it
//! as a comment; a key without one has its default. What `--engine` and `--issuers` found follows as comments, so that the whole stays TOML;
//! what should not be so is a warning on standard error.

use super::{Check, Failure, colour, print, serve, tell, tell_warnings};
use crate::config::{Loaded, Origins};

mod engine;
mod issuers;

/// Validates, prints, and asks engine and issuers if that is wanted.
pub(super) fn run(check: Check) -> Result<(), Failure> {
    let loaded = check.config.load()?;
    tell_warnings(&loaded.warnings);
    print(&effective(&loaded)?)?;
    let mut failures = Vec::new();
    if check.engine || check.issuers {
        serve::runtime()?.block_on(async {
            if check.engine {
                failures.extend(engine::ask(&loaded.config).await);
            }
            if check.issuers {
                failures.extend(issuers::ask(&loaded.config).await);
            }
        });
    }
    // All of them are told; the last one by the caller, who knows the exit code.
    let last = failures.pop();
    for failure in failures {
        tell(&failure.render(colour()));
    }
    last.map_or(Ok(()), Err)
}

/// Prints a line of what was found.
fn found(what: &str, fact: &str) -> Result<(), Failure> {
    print(&format_args!("#   {what:<20} {fact}\n"))
}

/// Says what should not be so.
fn warn(title: &str, hint: &str) {
    tell(&format!("warning: {title}\nhint: {hint}\n"));
}

/// Writes the effective configuration as TOML.
fn effective(loaded: &Loaded) -> Result<String, Failure> {
    let toml = toml::to_string(&loaded.config).map_err(|error| Failure::Running(error.into()))?;
    let mut lines = Lines {
        origins: &loaded.origins,
        table: String::new(),
        index: 0,
    };
    Ok(toml.lines().map(|line| lines.annotate(line)).collect())
}

/// Where in the document a line stands. The serializer writes a header or a key with its whole value on each line.
struct Lines<'a> {
    origins: &'a Origins,
    table: String,
    /// Of the list of tables that the lines are in.
    index: usize,
}

impl Lines<'_> {
    fn annotate(&mut self, line: &str) -> String {
        if let Some(header) = line
            .strip_prefix("[[")
            .and_then(|line| line.strip_suffix("]]"))
        {
            let again = self
                .table
                .strip_prefix(header)
                .is_some_and(|rest| rest.starts_with('.'));
            self.index = if again { self.index + 1 } else { 0 };
            self.table = format!("{header}.{}", self.index);
        } else if let Some(header) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            let list = self
                .table
                .split_once(&format!(".{}", self.index))
                .map_or("", |(list, _)| list);
            self.table = match header
                .strip_prefix(list)
                .filter(|rest| !list.is_empty() && rest.starts_with('.'))
            {
                Some(rest) => format!("{list}.{}{rest}", self.index),
                None => header.to_owned(),
            };
        } else if let Some((key, _)) = line.split_once(" = ") {
            let key = if self.table.is_empty() {
                key.to_owned()
            } else {
                format!("{}.{key}", self.table)
            };
            if let Some(place) = self.origins.place(&key) {
                return format!("{line}  # {place}\n");
            }
        }
        format!("{line}\n")
    }
}
