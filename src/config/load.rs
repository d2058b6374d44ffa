//! Reads the configuration: the file, then the environment over it, then the old service's variables where nothing newer is said.
//!
//! - A file is TOML. Without `--config` it is `./config.toml`, else `/etc/bpmgate/config.toml`, else none.
//! - `BPMGATE__ENGINE__URL` sets `engine.url`, `BPMGATE__ISSUERS__0__ISSUER` the first issuer's. A list is a TOML array or `a,b`.
//!   A variable of such a name that is no key is an error.
//! - An old variable (`ENGINE_URL`, …) counts where neither the file nor a new variable sets its key, else a warning says that it is ignored.
//!   An empty one counts as absent, as Compose files write them.
//! - `password_file` in a source stands for `password` in that source; both in one are an error.
//!
//! Paths are relative to the working directory. All problems are found at once, but for a file that is no TOML: then only that is said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::deserialize::deserialize;
use super::diagnostic::{
    ConfigError, Finding, Severity, VARIABLE_PREFIX, Warning, sorted, variable,
};
use super::source::Source;
use super::tree::{Misplaced, Node, Origin, Segment, Value, join};
use super::{Config, not_yet, rules};

/// A configuration that can be used, and where it comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration itself.
    pub config: Config,
    /// What the operator should know nevertheless.
    pub warnings: Vec<Warning>,
    /// Which key was set where.
    pub origins: Origins,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Which key was set where; what is not in it has its default.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, String>);

impl Origins {
    /// Returns where a key such as `engine.url` or `issuers.0.issuer` was set: `config.toml:14` or a variable's name.
    #[must_use]
    pub fn place(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// Finds the configuration file: the given one, or the first of the usual places that exists.
#[must_use]
pub fn locate(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| {
        let usual = ["config.toml", "/etc/bpmgate/config.toml"];
        usual
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    })
}

/// Loads the configuration from a file, if any, and an environment such as [`std::env::vars_os`].
///
/// # Errors
/// Returns every problem found, with its place. A file that cannot be read is one.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let Some(path) = file else {
        return parse("", "", environment);
    };
    let name = path.display().to_string();
    let text = read_text(path, MAX_FILE_BYTES).map_err(|problem| {
        let finding = Finding::said(
            "",
            format!("cannot read the configuration file {name:?}: {problem}"),
        );
        ConfigError::new(vec![
            finding.locate(&Source::unreadable("", ""), &Node::empty()),
        ])
    })?;
    let mut loaded = parse(&name, &text, environment)?;
    loaded.file = Some(path.to_owned());
    Ok(loaded)
}

/// Loads the configuration from a file's text; `name` stands in messages.
///
/// ```
/// use bpmgate::config::load;
///
/// let text = "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://clerk.example.com\"\n";
/// let loaded = load::parse("config.toml", text, [("ENGINE_URL".into(), "http://localhost:8080/rest".into())]).unwrap();
/// assert_eq!(loaded.config.engine.url.as_str(), "http://localhost:8080/rest");
/// assert_eq!(loaded.origins.place("engine.url"), Some("ENGINE_URL"));
/// assert_eq!(loaded.origins.place("issuers.0.issuer"), Some("config.toml:3"));
/// ```
///
/// # Errors
/// Returns every problem found, with its place.
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let source = Source::unreadable(name, text);
        let syntax = |error: &toml::de::Error| {
            let span = error.span().unwrap_or_default();
            let at = Origin::File {
                key: span.clone(),
                value: span,
            };
            let finding =
                Finding::said("", "the file is not valid TOML").with_label(error.message());
            finding.at(at).locate(&source, &Node::empty())
        };
        return Err(ConfigError::new(sorted(
            errors.iter().map(syntax).collect(),
        )));
    }
    let mut root = Node::from_table(
        document.get_ref(),
        &Origin::File {
            key: 0..0,
            value: 0..0,
        },
    );

    let environment = Environment::new(environment);
    let mut findings = environment.findings;
    findings.extend(put_variables(&mut root, &environment.variables));
    findings.extend(put_old_variables(&mut root, &environment.old));
    findings.extend(read_secrets(&mut root));

    let (config, wrong) = deserialize::<Config>(&root);
    let source = Source::read(name, text, &root, &wrong);
    findings.extend(wrong);
    let is_set = |key: &str| root.find(key).is_some();
    let mut broken = rules::findings(&config, &is_set);
    let mut not_yet = not_yet::findings(&config, &is_set);
    not_yet.retain(|finding| broken.iter().all(|broken| broken.key != finding.key));
    broken.extend(not_yet);
    broken.retain(|finding| !is_muted(finding, &findings));
    findings.extend(broken);

    let diagnostics = sorted(
        findings
            .into_iter()
            .map(|finding| finding.locate(&source, &root))
            .collect(),
    );
    if diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity() == Severity::Error)
    {
        return Err(ConfigError::new(diagnostics));
    }
    let mut origins = Origins::default();
    root.walk("", &mut |key, node| {
        let place = match &node.origin {
            Origin::Environment { name } => name.clone(),
            Origin::File { key, .. } => source.place(key),
        };
        origins.0.insert(key.to_owned(), place);
    });
    Ok(Loaded {
        config,
        warnings: diagnostics,
        origins,
        file: None,
    })
}

/// A rule says nothing of a key that was found wrong before and so has its default, nor of a list from which an element is missing.
fn is_muted(finding: &Finding, wrong: &[Finding]) -> bool {
    let is_under = |key: &str, table: &str| {
        key.strip_prefix(table)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    wrong
        .iter()
        .filter(|wrong| wrong.severity == Severity::Error && !wrong.key.is_empty())
        .any(|wrong| {
            let table = match wrong.key.rsplit_once('.') {
                Some((list, index)) if index.parse::<usize>().is_ok() => list,
                _ => wrong.key.as_str(),
            };
            is_under(&finding.key, table) || is_under(table, &finding.key)
        })
}

/// The variables that concern us, and what is wrong with them by themselves.
struct Environment {
    variables: Vec<(Vec<Segment>, String, String)>,
    old: BTreeMap<&'static str, String>,
    findings: Vec<Finding>,
}

impl Environment {
    fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self {
            variables: Vec::new(),
            old: BTreeMap::new(),
            findings: Vec::new(),
        };
        for (name, text) in variables {
            let name = name.to_string_lossy().into_owned();
            let old = OLD_NAMES.iter().find(|old| **old == name).copied();
            let new = name.strip_prefix(VARIABLE_PREFIX);
            if old.is_none() && new.is_none() {
                continue;
            }
            let Ok(text) = text.into_string() else {
                let finding = Finding::said("", "expected text in UTF-8");
                environment
                    .findings
                    .push(finding.at(Origin::Environment { name }));
                continue;
            };
            match (new, old) {
                (Some(key), _) => environment
                    .variables
                    .push((Segment::parse_all(key), name, text)),
                (None, Some(old)) if !text.is_empty() => {
                    environment.old.insert(old, text);
                }
                (None, _) => {}
            }
        }
        // Sorted by key, so that the elements of a list come in order (2 before 10) and a whole before its parts.
        environment.variables.sort();
        environment
    }
}

fn put_variables(root: &mut Node, variables: &[(Vec<Segment>, String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (segments, name, text) in variables {
        let Err(misplaced) = root.insert(segments, name, text) else {
            continue;
        };
        let origin = Origin::Environment { name: name.clone() };
        let key = segments.iter().fold(String::new(), |key, segment| {
            join(&key, &segment.to_string())
        });
        findings.push(match misplaced {
            Misplaced::Unknown => Finding::unknown(key, &[], origin),
            Misplaced::Twice(other) => {
                Finding::said(&key, format!("{other} sets the same")).at(origin)
            }
            Misplaced::Gap(length) => {
                let title = format!(
                    "the list has {length} elements so far, so the next one is number {length}"
                );
                Finding::said(&key, title).at(origin)
            }
        });
    }
    findings
}

fn put_old_variables(root: &mut Node, old: &BTreeMap<&'static str, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let put = |root: &mut Node, name: &str, key: &str, text: &str| {
        let segments = Segment::parse_all(&key.replace('.', "__"));
        if let Err(misplaced) = root.insert(&segments, name, text) {
            tracing::debug!(name, key, ?misplaced, "old variable has no place");
        }
    };
    let ignored = |name: &str, key: &str| {
        let title = format!("ignored, since `{key}` is set");
        Finding::warning(key, title).at(Origin::Environment {
            name: name.to_owned(),
        })
    };
    for (name, key, convert) in OLD_VARIABLES {
        let Some(text) = old.get(name) else {
            continue;
        };
        let set = [key.to_owned(), format!("{key}_file")]
            .into_iter()
            .find(|key| root.find(key).is_some());
        if let Some(set) = set {
            findings.push(ignored(name, &set));
            continue;
        }
        match convert(text) {
            Ok(text) => put(root, name, key, &text),
            Err(expected) => {
                let origin = Origin::Environment {
                    name: name.to_owned(),
                };
                findings.push(Finding::expected(key, text, expected).at(origin));
            }
        }
    }

    if let Some(url) = old.get(CLERK_JWKS_URL) {
        let named = [
            "issuers.1",
            "issuers.0.issuer",
            "issuers.0.jwks_url",
            "issuers.0.public_key_file",
        ];
        if let Some(key) = named.into_iter().find(|key| root.find(key).is_some()) {
            findings.push(ignored(CLERK_JWKS_URL, key));
        } else if let Some(issuer) = url.strip_suffix(JWKS_PATH) {
            if root.find("issuers.0.preset").is_none() {
                put(root, CLERK_JWKS_URL, "issuers.0.preset", "clerk");
            }
            put(root, CLERK_JWKS_URL, "issuers.0.issuer", issuer);
            put(root, CLERK_JWKS_URL, "issuers.0.jwks_url", url);
        } else {
            let finding =
                Finding::expected("issuers", url, format!("a URL that ends in `{JWKS_PATH}`"));
            let hint = format!(
                "set {} and {}",
                variable("issuers.0.issuer"),
                variable("issuers.0.jwks_url")
            );
            findings.push(finding.with_hint(hint).at(Origin::Environment {
                name: CLERK_JWKS_URL.to_owned(),
            }));
        }
    }
    if let Some(audience) = old.get(CLERK_AUDIENCE) {
        let set = ["issuers.1", "issuers.0.audience"]
            .into_iter()
            .find(|key| root.find(key).is_some());
        match set {
            Some(key) => findings.push(ignored(CLERK_AUDIENCE, key)),
            None if root.find("issuers.0").is_some() => {
                put(root, CLERK_AUDIENCE, "issuers.0.audience", audience);
            }
            None => {}
        }
    }
    findings
}

/// Puts what a `*_file` holds in the place of the secret.
fn read_secrets(root: &mut Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Value::Table(tables) = &mut root.value else {
        return findings;
    };
    if let Some(Value::Table(engine)) = tables.get_mut("engine").map(|node| &mut node.value)
        && let Some(credentials) = engine.get_mut("credentials")
    {
        findings.extend(read_secret("engine.credentials", credentials, "password"));
    }
    if let Some(Value::List(issuers)) = tables.get_mut("issuers").map(|node| &mut node.value) {
        for (index, issuer) in issuers.iter_mut().enumerate() {
            findings.extend(read_secret(
                &format!("issuers.{index}"),
                issuer,
                "hs_secret",
            ));
        }
    }
    findings
}

fn read_secret(table_key: &str, node: &mut Node, name: &str) -> Option<Finding> {
    let Value::Table(table) = &mut node.value else {
        return None;
    };
    let file_name = format!("{name}_file");
    let file = table
        .get(&file_name)
        .filter(|node| node.as_text() != Some(""))?;
    let path = PathBuf::from(file.as_text()?);
    let origin = file.origin.clone();
    if let Some(secret) = table.get(name).filter(|node| node.as_text() != Some("")) {
        match (&secret.origin, &origin) {
            (Origin::File { .. }, Origin::File { .. })
            | (Origin::Environment { .. }, Origin::Environment { .. }) => {
                let title =
                    format!("`{table_key}.{name}` and `{table_key}.{file_name}` are both set");
                return Some(
                    Finding::said(&join(table_key, &file_name), title)
                        .with_label("expected one of the two"),
                );
            }
            (Origin::Environment { .. }, Origin::File { .. }) => {
                table.remove(&file_name);
                return None;
            }
            (Origin::File { .. }, Origin::Environment { .. }) => {}
        }
    }
    let key = join(table_key, &file_name);
    let path_text = path.display().to_string();
    let refused = |expected: String| Some(Finding::expected(&key, &path_text, expected));
    match read_text(&path, MAX_SECRET_BYTES) {
        Err(problem) => refused(format!("a file that can be read: {problem}")),
        Ok(text) => {
            let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| {
                line.strip_suffix('\r').unwrap_or(line)
            });
            if secret.is_empty() {
                return refused("a file that is not empty".to_owned());
            }
            table.insert(
                name.to_owned(),
                Node::new(origin, Value::String(secret.to_owned().into())),
            );
            None
        }
    }
}

/// Reads a file of at most so many bytes; the text is cleared from memory afterwards, as it may hold secrets.
fn read_text(path: &Path, max_bytes: u64) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file
        .take(max_bytes + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if read as u64 > max_bytes {
        return Err(format!("it is larger than {max_bytes} bytes"));
    }
    Ok(text)
}

type Convert = fn(&str) -> Result<String, &'static str>;

/// The old service's variables, the keys they stand for, and how their values read today.
const OLD_VARIABLES: [(&str, &str, Convert); 8] = [
    ("ENGINE_URL", "engine.url", as_it_is),
    ("ENGINE_USER", "engine.credentials.username", as_it_is),
    ("ENGINE_PASS", "engine.credentials.password", as_it_is),
    ("ENGINE_TIMEOUT", "engine.timeouts.response", seconds),
    ("MAX_RETRIES", "engine.retry.attempts", as_it_is),
    ("RETRY_BACKOFF", "engine.retry.backoff", seconds),
    ("CORS_ORIGINS", "cors.origins", as_it_is),
    ("LOG_LEVEL", "telemetry.log_level", log_level),
];

const CLERK_JWKS_URL: &str = "CLERK_JWKS_URL";
const CLERK_AUDIENCE: &str = "CLERK_AUDIENCE";
const JWKS_PATH: &str = "/.well-known/jwks.json";

pub(super) const OLD_NAMES: [&str; 10] = [
    CLERK_JWKS_URL,
    CLERK_AUDIENCE,
    "ENGINE_URL",
    "ENGINE_USER",
    "ENGINE_PASS",
    "ENGINE_TIMEOUT",
    "MAX_RETRIES",
    "RETRY_BACKOFF",
    "CORS_ORIGINS",
    "LOG_LEVEL",
];

#[expect(
    clippy::unnecessary_wraps,
    reason = "a row of the table like those that can fail"
)]
fn as_it_is(text: &str) -> Result<String, &'static str> {
    Ok(text.to_owned())
}

/// Bare seconds, perhaps with a fraction.
fn seconds(text: &str) -> Result<String, &'static str> {
    let seconds = text
        .trim()
        .parse::<f64>()
        .map_err(|_| "a number of seconds")?;
    let duration = std::time::Duration::try_from_secs_f64(seconds)
        .map_err(|_| "a number of seconds, 0 or more")?;
    Ok(format!("{}ms", duration.as_millis()))
}

/// The level names of Python's logging module.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a row of the table like those that can fail"
)]
fn log_level(text: &str) -> Result<String, &'static str> {
    let level = text.trim().to_ascii_lowercase();
    Ok(match level.as_str() {
        "warning" => "warn".to_owned(),
        "critical" | "fatal" => "error".to_owned(),
        "notset" => "trace".to_owned(),
        _ => level,
    })
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_SECRET_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
