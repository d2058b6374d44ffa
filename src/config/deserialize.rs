//! Turns the tree of values into the tables' types, and finds everything that is wrong on the way, not only the first.
//!
//! Serde stops at the first error. So the node in error is noted and marked, and the whole is read again without it, until nothing
//! is left to complain about; each round marks one node more. Keys that a struct does not know are noted and passed over.
//! The text of an environment variable is read as the type at its place wants it: a number, `true`, a list `a,b` or `["a", "b"]`.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::de::DeValue;

use super::diagnostic::{Finding, What, nearest, shown};
use super::secret::MASK;
use super::source::may_hold_secret;
use super::tree::{Node, Value, join};

/// Reads a tree. What is wrong with it is in the findings, and left out of the value.
pub(super) fn deserialize<T: for<'de> Deserialize<'de> + Default>(
    root: &Node,
) -> (T, Vec<Finding>) {
    let findings = RefCell::new(Vec::new());
    loop {
        let reader = Reader {
            node: root,
            key: String::new(),
            findings: &findings,
        };
        match T::deserialize(reader) {
            Ok(value) => return (value, findings.into_inner()),
            Err(Fault::Noted) => {}
            Err(fault) => {
                findings.borrow_mut().push(fault.at("", root));
                return (T::default(), findings.into_inner());
            }
        }
    }
}

/// A node about to be read.
struct Reader<'a> {
    node: &'a Node,
    key: String,
    findings: &'a RefCell<Vec<Finding>>,
}

impl<'a> Reader<'a> {
    /// Reads something inside this node; what is wrong there is noted there.
    fn read<'de, S: DeserializeSeed<'de>>(
        &self,
        segment: &str,
        node: &'a Node,
        seed: S,
    ) -> Result<S::Value, Fault> {
        let key = join(&self.key, segment);
        let inner = Reader {
            node,
            key: key.clone(),
            findings: self.findings,
        };
        seed.deserialize(inner).map_err(|fault| {
            if !matches!(fault, Fault::Noted) {
                let mut findings = self.findings.borrow_mut();
                // What was left out because it is wrong is not missing too.
                let is_told = |field| findings.iter().any(|told| told.key == join(&key, field));
                if !matches!(fault, Fault::Missing(field) if is_told(field)) {
                    findings.push(fault.at(&key, node));
                }
                node.rejected.set(true);
            }
            Fault::Noted
        })
    }

    fn refuse<T>(&self, expected: &dyn Expected) -> Result<T, Fault> {
        Err(Fault::expected(self.node.unexpected(), expected))
    }

    fn read_table<'de, V: Visitor<'de>>(
        &self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Table(table) = &self.node.value else {
            return self.refuse(&visitor);
        };
        let known = |name: &str| fields.is_none_or(|fields| fields.contains(&name));
        for (name, node) in table {
            if !known(name) && !node.rejected.replace(true) {
                let siblings = fields.unwrap_or_default();
                self.findings.borrow_mut().push(Finding::unknown(
                    join(&self.key, name),
                    siblings,
                    node.origin.clone(),
                ));
            }
        }
        let entries = table.iter().filter(|(_, node)| !node.rejected.get());
        visitor.visit_map(Entries {
            reader: self,
            rest: entries,
            value: None,
        })
    }

    fn read_list<'de, V: Visitor<'de>>(
        &self,
        elements: &'a [Node],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let elements = elements
            .iter()
            .enumerate()
            .filter(|(_, node)| !node.rejected.get());
        visitor.visit_seq(Elements {
            reader: self,
            elements,
        })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::String(text) | Value::Raw(text) => visitor.visit_str(text),
            Value::Other(_) => self.refuse(&visitor),
            Value::List(elements) => self.read_list(elements, visitor),
            Value::Table(_) => self.read_table(None, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.as_raw() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            Some(_) => self.refuse(&visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.as_raw().map(str::parse) {
            Some(Ok(number)) => visitor.visit_i64(number),
            Some(Err(_)) => self.refuse(&visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = match &self.node.value {
            Value::Other(text) => text.parse().ok(),
            Value::Raw(text) => text.parse().ok(),
            Value::Integer(_) => return self.deserialize_any(visitor),
            Value::Boolean(_) | Value::String(_) | Value::List(_) | Value::Table(_) => None,
        };
        match number {
            Some(number) => visitor.visit_f64(number),
            None => Err(Fault::expected(self.node.unexpected(), &"a number")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(elements) => self.read_list(elements, visitor),
            Value::Raw(text) => {
                let elements = self.node.split(text)?;
                // These nodes live for this reading alone, so the variable itself is marked, or the next reading would fail again.
                let read = Reader {
                    node: self.node,
                    key: self.key,
                    findings: self.findings,
                }
                .read_list(&elements, visitor);
                if read.is_err() {
                    self.node.rejected.set(true);
                }
                read
            }
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::String(_)
            | Value::Other(_)
            | Value::Table(_) => self.refuse(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.read_table(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node.as_text() {
            Some(text) => {
                let text: StrDeserializer<'_, Fault> = text.into_deserializer();
                visitor.visit_enum(text)
            }
            None => self.refuse(&visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u16 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct map identifier ignored_any
    }
}

struct Entries<'r, 'a, I> {
    reader: &'r Reader<'a>,
    rest: I,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de, 'a, I: Iterator<Item = (&'a String, &'a Node)>> MapAccess<'de> for Entries<'_, 'a, I> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, node)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some((name, node));
        let name: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, node) = self
            .value
            .take()
            .ok_or(Fault::Said("value asked for before its key".to_owned()))?;
        self.reader.read(name, node, seed)
    }
}

struct Elements<'r, 'a, I> {
    reader: &'r Reader<'a>,
    elements: I,
}

impl<'de, 'a, I: Iterator<Item = (usize, &'a Node)>> SeqAccess<'de> for Elements<'_, 'a, I> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.elements.next() else {
            return Ok(None);
        };
        self.reader.read(&index.to_string(), node, seed).map(Some)
    }
}

impl Node {
    fn as_raw(&self) -> Option<&str> {
        match &self.value {
            Value::Raw(text) => Some(text),
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::String(_)
            | Value::Other(_)
            | Value::List(_)
            | Value::Table(_) => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Boolean(boolean) => Unexpected::Bool(*boolean),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::String(text) | Value::Raw(text) => Unexpected::Str(text),
            Value::Other(text) => Unexpected::Other(text),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }

    /// Reads the text of a variable as a list: a TOML array, else elements between commas.
    fn split(&self, text: &str) -> Result<Vec<Self>, Fault> {
        if text.trim_start().starts_with('[') {
            let parsed =
                DeValue::parse(text).map(|value| Self::from_toml(&value, &self.origin).value);
            return match parsed {
                Ok(Value::List(elements)) => Ok(elements),
                Ok(_) | Err(_) => Err(Fault::expected(
                    Unexpected::Str(text),
                    &"a TOML array such as `[\"a\", \"b\"]`, or `a,b`",
                )),
            };
        }
        let elements = text
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty());
        Ok(elements
            .map(|element| Self::new(self.origin.clone(), Value::Raw(element.to_owned().into())))
            .collect())
    }
}

/// Why a node cannot be read.
#[derive(Debug)]
enum Fault {
    /// Already among the findings.
    Noted,
    Expected {
        found: String,
        expected: String,
        hint: Option<String>,
    },
    Missing(&'static str),
    Said(String),
}

impl Fault {
    fn expected(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(boolean) => boolean.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Str(text) => shown(text),
            Unexpected::Other(text) => text.to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            Unexpected::Unsigned(_)
            | Unexpected::Float(_)
            | Unexpected::Char(_)
            | Unexpected::Bytes(_)
            | Unexpected::Unit
            | Unexpected::Option
            | Unexpected::NewtypeStruct
            | Unexpected::Enum
            | Unexpected::UnitVariant
            | Unexpected::NewtypeVariant
            | Unexpected::TupleVariant
            | Unexpected::StructVariant => found.to_string(),
        };
        Self::Expected {
            found,
            expected: in_words(expected.to_string()),
            hint: None,
        }
    }

    /// Says it of the node at a key.
    fn at(self, key: &str, node: &Node) -> Finding {
        let (what, hint) = match self {
            Self::Expected {
                found,
                expected,
                hint,
            } => {
                let found = if may_hold_secret(key, node) {
                    MASK.to_owned()
                } else {
                    found
                };
                let is_list_header = expected == "a list" && matches!(node.value, Value::Table(_));
                let hint = hint
                    .or_else(|| is_list_header.then(|| format!("write the header as `[[{key}]]`")));
                (What::Expected { found, expected }, hint)
            }
            Self::Missing(field) => {
                let title = format!("`{}` is missing", join(key, field));
                (
                    What::Said {
                        title,
                        label: Some(format!("has no `{field}`")),
                    },
                    None,
                )
            }
            Self::Said(title) => (What::Said { title, label: None }, None),
            Self::Noted => (
                What::Said {
                    title: "is wrong".to_owned(),
                    label: None,
                },
                None,
            ),
        };
        let mut finding = Finding::error(key, what);
        finding.hint = hint;
        finding.origin = Some(node.origin.clone());
        finding
    }
}

/// Says what serde expects in the words of the reference.
fn in_words(expected: String) -> String {
    let words = match expected.as_str() {
        "a boolean" => "`true` or `false`",
        "a string" | "path string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        "u8" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        text if text.starts_with("struct ") => "a table",
        text if text.starts_with("enum ") => "a text",
        _ => return expected,
    };
    words.to_owned()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Said(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(found, expected)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let nearest = nearest(variant, known.iter().copied());
        Self::Expected {
            found: shown(variant),
            expected: format!("one of {}", names.join(", ")),
            hint: nearest.map(|name| format!("did you mean `{name}`?")),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}
