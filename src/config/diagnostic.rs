//! What an operator reads when the configuration is wrong: file, line, key, what is wrong, what would be right.
//!
//! One block per problem, in the manner of rustc, all problems at once. What comes from the environment names the variable instead of a line.
//! No block shows a secret (see [`super::source`]).
//!
//! ```
//! # use bpmgate::config::load;
//! let error = load::parse("config.toml", "[engine]\nurI = \"http://localhost\"", []).unwrap_err();
//! assert!(error.to_string().starts_with("error: unknown key `engine.urI`\n --> config.toml:2:1\n"));
//! assert!(error.to_string().contains("hint: did you mean `engine.url`?"));
//! ```

use std::fmt;

use annotate_snippets::{Group, Level, Renderer};

use super::schema::keys;
use super::secret::MASK;
use super::source::{Excerpt, Source, is_secret, user_information};
use super::tree::{Node, Origin, join};

/// Why a configuration cannot be used: every problem that was found, and the warnings beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    diagnostics: Vec<Diagnostic>,
}

impl ConfigError {
    pub(super) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics }
    }

    /// Returns the problems, in the order of the file; those of the environment follow.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Writes a block per problem, with an empty line between; `colour` adds ANSI colours.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let blocks: Vec<_> = self
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(colour))
            .collect();
        blocks.join("\n\n")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong, or does not do what one could think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    key: String,
    title: String,
    place: Option<Place>,
    hint: Option<String>,
}

/// A configuration that can be used, but not quite as it reads. Of [`Severity::Warning`].
pub type Warning = Diagnostic;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// The configuration is used.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(Excerpt),
    Environment(String),
}

impl Diagnostic {
    /// Returns how bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the key it is about, such as `engine.url` or `issuers.0.audience`; empty where there is none.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns what is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Returns where it was said: `config.toml:14`, or the name of a variable.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.place.as_ref().map(|place| match place {
            Place::File(excerpt) => format!("{}:{}", excerpt.path, excerpt.line_number),
            Place::Environment(name) => name.clone(),
        })
    }

    /// Returns what could be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Writes the block; `colour` adds ANSI colours.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.title.as_str());
        let hint = self.hint.as_ref().map(|hint| {
            Group::with_title(Level::HELP.with_name("hint").secondary_title(hint.as_str()))
        });
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        match &self.place {
            Some(Place::File(excerpt)) => {
                let groups: Vec<_> = std::iter::once(title.element(excerpt.snippet()))
                    .chain(hint)
                    .collect();
                renderer.render(&groups)
            }
            // Each by itself, or the renderer draws a gutter between them although no line is quoted.
            Some(Place::Environment(_)) | None => {
                let groups = std::iter::once(Group::with_title(title)).chain(hint);
                let blocks: Vec<_> = groups.map(|group| renderer.render(&[group])).collect();
                blocks.join("\n")
            }
        }
    }

    fn order(&self) -> (usize, usize, usize, &str) {
        match &self.place {
            Some(Place::File(excerpt)) => (1, excerpt.line_number, excerpt.marked.start, ""),
            Some(Place::Environment(name)) => (2, 0, 0, name),
            None => (3, 0, 0, ""),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Something that was found about a key, before it is known how to show where.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) key: String,
    pub(super) what: What,
    pub(super) hint: Option<String>,
    /// Absent: the key's, or the table's that it is missing in.
    pub(super) origin: Option<Origin>,
}

/// What was found about a key.
#[derive(Debug)]
pub(super) enum What {
    /// A value that would have to be another.
    Expected { found: String, expected: String },
    /// No such key.
    Unknown,
    /// Anything else: in one line, and in the few words that stand beside the marked text.
    Said {
        title: String,
        label: Option<String>,
    },
}

impl Finding {
    pub(super) fn error(key: &str, what: What) -> Self {
        Self {
            severity: Severity::Error,
            key: key.to_owned(),
            what,
            hint: None,
            origin: None,
        }
    }

    /// Says that a value would have to be another. `found` is shown quoted, unless it is a secret.
    pub(super) fn expected(key: &str, found: &str, expected: impl Into<String>) -> Self {
        let found = if is_secret(key) {
            MASK.to_owned()
        } else {
            shown(found)
        };
        Self::error(
            key,
            What::Expected {
                found,
                expected: expected.into(),
            },
        )
    }

    pub(super) fn said(key: &str, title: impl Into<String>) -> Self {
        Self::error(
            key,
            What::Said {
                title: title.into(),
                label: None,
            },
        )
    }

    pub(super) fn warning(key: &str, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::said(key, title)
        }
    }

    pub(super) fn with_label(mut self, text: impl Into<String>) -> Self {
        if let What::Said { label, .. } = &mut self.what {
            *label = Some(text.into());
        }
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Says that there is no such key, and which of its siblings, or which other key of the same name, may be meant.
    pub(super) fn unknown(key: String, siblings: &[&'static str], origin: Origin) -> Self {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let meant = match nearest(name, siblings.iter().copied()) {
            Some(sibling) => Some(join(table, sibling)),
            None => elsewhere(name),
        };
        let hint = meant.map(|key| match &origin {
            Origin::File { .. } => format!("did you mean `{key}`?"),
            Origin::Environment { .. } => format!("did you mean `{}`?", variable(&key)),
        });
        Self {
            severity: Severity::Error,
            key,
            what: What::Unknown,
            hint,
            origin: Some(origin),
        }
    }

    /// Finds the place that the finding is about and says it there.
    pub(super) fn locate(self, source: &Source<'_>, root: &Node) -> Diagnostic {
        let origin = self.origin.or_else(|| nearest_origin(root, &self.key));
        let key = self.key.escape_debug().to_string();
        let (title, place) = match origin {
            Some(Origin::Environment { name }) => {
                let name = name.escape_debug().to_string();
                let title = match self.what {
                    What::Expected { found, expected } => {
                        format!("{name} is {found}, expected {expected}")
                    }
                    What::Unknown => format!("{name} is no key of the configuration"),
                    What::Said { title, .. } => format!("{name}: {title}"),
                };
                (title, Some(Place::Environment(name)))
            }
            Some(Origin::File {
                key: key_span,
                value: value_span,
            }) => {
                let (title, span, label) = match self.what {
                    What::Expected { found, expected } => (
                        format!("`{key}` is {found}"),
                        value_span,
                        Some(format!("expected {expected}")),
                    ),
                    What::Unknown => {
                        let table = match key.rsplit_once('.') {
                            Some((table, _)) => header(table),
                            None => "the configuration".to_owned(),
                        };
                        (
                            format!("unknown key `{key}`"),
                            key_span,
                            Some(format!("not a key of {table}")),
                        )
                    }
                    What::Said { title, label } => (title, key_span, label),
                };
                (title, Some(Place::File(source.excerpt(span, label))))
            }
            None => {
                let title = match self.what {
                    What::Expected { found, expected } => {
                        format!("`{key}` is {found}, expected {expected}")
                    }
                    What::Unknown => format!("unknown key `{key}`"),
                    What::Said { title, .. } => title,
                };
                (title, None)
            }
        };
        Diagnostic {
            severity: self.severity,
            key,
            title,
            place,
            hint: self.hint,
        }
    }
}

/// Writes a table's key as its header: `issuers.0` is `[[issuers]]`.
fn header(table: &str) -> String {
    match table.rsplit_once('.') {
        Some((list, index)) if index.parse::<usize>().is_ok() => format!("`[[{list}]]`"),
        _ => format!("`[{table}]`"),
    }
}

/// Sorts what was found for the reader.
pub(super) fn sorted(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| a.order().cmp(&b.order()));
    diagnostics
}

/// Where the key was set, or else the table that it would be in; the whole file is no place.
fn nearest_origin(root: &Node, key: &str) -> Option<Origin> {
    let mut key = key;
    loop {
        if let Some(node) = root.find(key) {
            return Some(node.origin.clone());
        }
        key = key.rsplit_once('.')?.0;
    }
}

/// The environment variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        key.replace('.', "__").to_ascii_uppercase()
    )
}

/// What the variables that set keys begin with.
pub(super) const VARIABLE_PREFIX: &str = "BPMGATE__";

/// Quotes a text for a message: escaped, without the credentials of a URL, and not too long.
pub(super) fn shown(text: &str) -> String {
    let mut masked = String::new();
    let mut position = 0;
    for range in user_information(text) {
        masked.push_str(text.get(position..range.start).unwrap_or_default());
        masked.push_str(MASK);
        position = range.end;
    }
    masked.push_str(text.get(position..).unwrap_or_default());
    match masked.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}…", masked.get(..end).unwrap_or_default()),
        None => format!("{masked:?}"),
    }
}

/// Finds the name that is most like one, if any is like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], "");
    known
        .map(|known| {
            (
                strsim::normalized_damerau_levenshtein(&plain(name), &plain(known)),
                known,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Finds a key of that very name in another table.
fn elsewhere(name: &str) -> Option<String> {
    let keys = keys();
    keys.into_iter()
        .find(|key| key.rsplit('.').next() == Some(name))
}

/// In characters; about what fits beside a message.
const MAX_SHOWN: usize = 120;
