//! What the sources say, before anybody asks what it means: one tree of values, each with the place it comes from.
//!
//! The file is put in first; a variable `BPMGATE__ENGINE__URL` then replaces what the file says at `engine.url`. Values of variables stay raw
//! texts here: whether `a,b` is a text or a list is known only where the tree meets the type (see [`super::deserialize`]).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// A value and where it comes from. Not `Debug`, as it may be a secret.
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// Reported as wrong; passed over from then on, so that the next problem can be found.
    pub(super) rejected: Cell<bool>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file, by byte offsets. An element of a list has no key: both are the element.
    File {
        key: Range<usize>,
        value: Range<usize>,
    },
    /// The environment variable of this name.
    Environment { name: String },
}

/// A value as its source writes it; texts are cleared from memory when dropped.
pub(super) enum Value {
    Boolean(bool),
    Integer(i64),
    String(Zeroizing<String>),
    /// A number with a fraction, one too large, or a date: few keys have a place for the first, none for the others.
    Other(String),
    /// The text of an environment variable.
    Raw(Zeroizing<String>),
    List(Vec<Node>),
    Table(Table),
}

pub(super) type Table = BTreeMap<String, Node>;

impl Node {
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        let rejected = Cell::new(false);
        Self {
            origin,
            value,
            rejected,
        }
    }

    /// A tree in which nothing is said.
    pub(super) fn empty() -> Self {
        Self::new(
            Origin::File {
                key: 0..0,
                value: 0..0,
            },
            Value::Table(Table::new()),
        )
    }

    /// Takes over a table of a TOML document.
    pub(super) fn from_table(table: &DeTable<'_>, origin: &Origin) -> Self {
        let entries = table.iter().map(|(key, value)| {
            let node = Self::from_toml(value, &origin.of_entry(key.span(), value.span()));
            (key.get_ref().to_string(), node)
        });
        Self::new(origin.clone(), Value::Table(entries.collect()))
    }

    /// Takes over a value of a TOML document.
    pub(super) fn from_toml(value: &Spanned<DeValue<'_>>, origin: &Origin) -> Self {
        let value = match value.get_ref() {
            DeValue::String(text) => Value::String(Zeroizing::new(text.to_string())),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Other(number.as_str().to_owned()), Value::Integer),
            DeValue::Float(number) => Value::Other(number.as_str().to_owned()),
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
            DeValue::Array(elements) => {
                let node = |element: &Spanned<DeValue<'_>>| {
                    Self::from_toml(element, &origin.of_entry(element.span(), element.span()))
                };
                Value::List(elements.iter().map(node).collect())
            }
            DeValue::Table(table) => return Self::from_table(table, origin),
        };
        Self::new(origin.clone(), value)
    }

    /// Puts the text of an environment variable in at a key, whatever stood there.
    pub(super) fn insert(
        &mut self,
        key: &[Segment],
        name: &str,
        text: &str,
    ) -> Result<(), Misplaced> {
        let origin = || Origin::Environment {
            name: name.to_owned(),
        };
        let Some((segment, rest)) = key.split_first() else {
            if let Origin::Environment { name } = &self.origin
                && matches!(self.value, Value::Raw(_))
            {
                return Err(Misplaced::Twice(name.clone()));
            }
            *self = Self::new(origin(), Value::Raw(Zeroizing::new(text.to_owned())));
            return Ok(());
        };
        let absent = || {
            let value = match rest.first() {
                None => Value::Other(String::new()),
                Some(Segment::Index(_)) => Value::List(Vec::new()),
                Some(Segment::Name(_)) => Value::Table(Table::new()),
            };
            Self::new(origin(), value)
        };
        match &mut self.value {
            Value::Table(table) => table
                .entry(segment.to_string())
                .or_insert_with(absent)
                .insert(rest, name, text),
            Value::List(elements) => {
                let Segment::Index(index) = *segment else {
                    return Err(Misplaced::Unknown);
                };
                if index == elements.len() {
                    elements.push(absent());
                }
                match elements.get_mut(index) {
                    Some(element) => element.insert(rest, name, text),
                    None => Err(Misplaced::Gap(elements.len())),
                }
            }
            Value::Raw(_) => match &self.origin {
                Origin::Environment { name } => Err(Misplaced::Twice(name.clone())),
                Origin::File { .. } => Err(Misplaced::Unknown),
            },
            Value::Boolean(_) | Value::Integer(_) | Value::String(_) | Value::Other(_) => {
                Err(Misplaced::Unknown)
            }
        }
    }

    /// Finds the node at a key such as `issuers.0.issuer`.
    pub(super) fn find(&self, key: &str) -> Option<&Self> {
        key.split('.')
            .try_fold(self, |node, segment| match &node.value {
                Value::Table(table) => table.get(segment),
                Value::List(elements) => elements.get(segment.parse::<usize>().ok()?),
                Value::Boolean(_)
                | Value::Integer(_)
                | Value::String(_)
                | Value::Other(_)
                | Value::Raw(_) => None,
            })
    }

    /// Calls `visit` with the key of every node below this one, and the node.
    pub(super) fn walk<'a>(&'a self, key: &str, visit: &mut impl FnMut(&str, &'a Self)) {
        let mut step = |segment: &str, node: &'a Self| {
            let key = join(key, segment);
            visit(&key, node);
            node.walk(&key, visit);
        };
        match &self.value {
            Value::Table(table) => table.iter().for_each(|(name, node)| step(name, node)),
            Value::List(elements) => {
                for (index, node) in elements.iter().enumerate() {
                    step(&index.to_string(), node);
                }
            }
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::String(_)
            | Value::Other(_)
            | Value::Raw(_) => {}
        }
    }

    /// The text, where the value is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) | Value::Raw(text) => Some(text),
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::Other(_)
            | Value::List(_)
            | Value::Table(_) => None,
        }
    }
}

impl Origin {
    /// The origin of something inside: by its own spans in a file; all of a variable is that variable.
    fn of_entry(&self, key: Range<usize>, value: Range<usize>) -> Self {
        match self {
            Self::File { .. } => Self::File { key, value },
            Self::Environment { .. } => self.clone(),
        }
    }
}

/// One step of a key in a variable's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Index(usize),
    Name(String),
}

impl Segment {
    /// Reads the part of a variable's name after `BPMGATE__`.
    pub(super) fn parse_all(name: &str) -> Vec<Self> {
        let segment = |text: &str| match text.parse() {
            Ok(index) => Self::Index(index),
            Err(_) => Self::Name(text.to_ascii_lowercase()),
        };
        name.split("__").map(segment).collect()
    }
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why a variable has no place in the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// No key can be there.
    Unknown,
    /// The variable of this name says it already.
    Twice(String),
    /// The list ends before; it has so many elements.
    Gap(usize),
}

/// The key of something inside a table or list.
pub(super) fn join(key: &str, segment: &str) -> String {
    if key.is_empty() {
        segment.to_owned()
    } else {
        format!("{key}.{segment}")
    }
}
