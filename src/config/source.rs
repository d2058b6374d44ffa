//! The line of the file that a message quotes, without what nobody may see.
//!
//! Masked are: the values of secret keys, the values of unknown keys (which may be secrets misspelt), a text where a table with a
//! secret belongs, and user and password in a URL. Only the masked line is kept, so a [`super::Diagnostic`] cannot give the rest away.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Snippet};

use super::diagnostic::{Finding, What};
use super::secret::MASK;
use super::tree::{Node, Origin};

/// The file's text, and what of it must not be seen.
pub(super) struct Source<'a> {
    path: &'a str,
    text: &'a str,
    masked: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    /// A file that is no TOML: where its secrets are can only be guessed from the words of a line.
    pub(super) fn unreadable(path: &'a str, text: &'a str) -> Self {
        let mut source = Self {
            path,
            text,
            masked: user_information(text),
        };
        let mut start = 0;
        let mut open: Option<&str> = None;
        for line in text.split_inclusive('\n') {
            let end = start + line.len();
            let value = match open {
                Some(_) => Some(0),
                None => line
                    .find('=')
                    .filter(|_| sounds_secret(line))
                    .map(|equals| equals + 1),
            };
            if let Some(value) = value {
                let text = line.get(value..).unwrap_or_default();
                let masked = start + value..start + line.trim_end().len();
                source.masked.push(masked);
                open = match open {
                    Some(quotes) => Some(quotes).filter(|quotes| !text.contains(quotes)),
                    None => ["\"\"\"", "'''"]
                        .into_iter()
                        .find(|quotes| text.matches(quotes).count() == 1),
                };
            }
            start = end;
        }
        source
    }

    /// A file that was read: secrets are where the tree has them. A key that was rejected as unknown may be a secret misspelt.
    pub(super) fn read(path: &'a str, text: &'a str, root: &Node, unknown: &[Finding]) -> Self {
        let mut masked = user_information(text);
        root.walk("", &mut |key, node| {
            if let Origin::File { value, .. } = &node.origin
                && may_hold_secret(key, node)
            {
                masked.push(value.clone());
            }
        });
        for finding in unknown
            .iter()
            .filter(|finding| matches!(finding.what, What::Unknown))
        {
            if let Some(Origin::File { key, value }) = &finding.origin {
                // The value of a `[table]` is its header, which the key is part of.
                if value.start >= key.end {
                    masked.push(value.clone());
                }
            }
        }
        Self { path, text, masked }
    }

    /// Names the line where a span begins: `config.toml:14`.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.path, self.line_number(span.start))
    }

    fn line_number(&self, position: usize) -> usize {
        1 + self
            .text
            .get(..position)
            .unwrap_or_default()
            .matches('\n')
            .count()
    }

    /// Cuts out the line where a span begins.
    pub(super) fn excerpt(&self, span: Range<usize>, label: Option<String>) -> Excerpt {
        let start = self
            .text
            .get(..span.start)
            .and_then(|before| before.rfind('\n'))
            .map_or(0, |newline| newline + 1);
        let rest = self.text.get(start..).unwrap_or_default();
        let end = start + rest.lines().next().unwrap_or_default().len();
        let mut cut = Cut {
            text: self.text,
            line: String::new(),
            position: start,
            span: &span,
            marked: None,
        };
        let mut masked: Vec<_> = self
            .masked
            .iter()
            .filter(|masked| masked.start < end && masked.end > start)
            .collect();
        masked.sort_by_key(|masked| masked.start);
        for masked in masked {
            cut.copy_until(masked.start.min(end));
            cut.replace_until(masked.end.min(end));
        }
        cut.copy_until(end);
        let marked = cut.marked();
        let line_number = self.line_number(start);
        Excerpt {
            path: self.path.to_owned(),
            line_number,
            line: cut.line,
            marked,
            label,
        }
    }
}

/// A line being copied with its masked parts replaced, and where the marked span comes to lie in it.
struct Cut<'a> {
    text: &'a str,
    line: String,
    position: usize,
    span: &'a Range<usize>,
    marked: Option<Range<usize>>,
}

impl Cut<'_> {
    fn copy_until(&mut self, end: usize) {
        let piece = self.position..end.max(self.position);
        let offset = self.line.len();
        self.line
            .push_str(self.text.get(piece.clone()).unwrap_or_default());
        let from = self.span.start.max(piece.start);
        let to = self.span.end.min(piece.end);
        if from <= to && (from < piece.end || piece.is_empty()) {
            self.mark(offset + (from - piece.start)..offset + (to - piece.start));
        }
        self.position = piece.end;
    }

    fn replace_until(&mut self, end: usize) {
        let piece = self.position..end.max(self.position);
        let offset = self.line.len();
        if !piece.is_empty() {
            self.line.push_str(MASK);
        }
        if self.span.start < piece.end && self.span.end > piece.start {
            self.mark(offset..self.line.len());
        }
        self.position = piece.end;
    }

    fn mark(&mut self, range: Range<usize>) {
        self.marked = Some(match self.marked.take() {
            Some(marked) => marked.start..range.end.max(marked.end),
            None => range,
        });
    }

    fn marked(&self) -> Range<usize> {
        self.marked
            .clone()
            .unwrap_or(self.line.len()..self.line.len())
    }
}

/// The line in question, with what must not be seen taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) path: String,
    pub(super) line_number: usize,
    line: String,
    pub(super) marked: Range<usize>,
    label: Option<String>,
}

impl Excerpt {
    pub(super) fn snippet(&self) -> Snippet<'_, Annotation<'_>> {
        let marked = AnnotationKind::Primary
            .span(self.marked.clone())
            .label(self.label.as_deref());
        Snippet::source(self.line.as_str())
            .line_start(self.line_number)
            .path(self.path.as_str())
            .annotation(marked)
    }
}

/// Says whether the value of a key is never shown.
pub(super) fn is_secret(key: &str) -> bool {
    key == "engine.credentials.password"
        || (key.starts_with("issuers.") && key.ends_with(".hs_secret"))
}

/// Says whether a text at this key may hold a secret nevertheless, such as `"demo:demo"` where `[engine.credentials]` belongs.
pub(super) fn may_hold_secret(key: &str, node: &Node) -> bool {
    let is_table_with_secret = ["engine", "engine.credentials", "issuers"].contains(&key)
        || key
            .strip_prefix("issuers.")
            .is_some_and(|index| !index.contains('.'));
    is_secret(key) || (is_table_with_secret && node.as_text().is_some())
}

/// Where user and password stand in the URLs of a text (RFC 3986 §3.2.1).
pub(super) fn user_information(text: &str) -> Vec<Range<usize>> {
    let found = text.match_indices("://").filter_map(|(at, scheme_end)| {
        let start = at + scheme_end.len();
        let rest = text.get(start..)?;
        let end = rest
            .find(['/', '"', '\'', ',', '\n', '\r'])
            .unwrap_or(rest.len());
        let at_sign = rest.get(..end)?.rfind('@')?;
        Some(start..start + at_sign)
    });
    found.collect()
}

fn sounds_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["pass", "secret", "token", "credential", "private"]
        .iter()
        .any(|word| line.contains(word))
}
