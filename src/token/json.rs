//! JSON that can be read in one way only: no member name twice in one object, at any depth.
//!
//! A parser that takes the last of two equal members and one that takes the first see two different
//! tokens (RFC 7515 §4, RFC 7519 §4 let a receiver refuse them). Depth is bounded by `serde_json` (128).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads one JSON object, and nothing after it.
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, NotStrict> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    match value {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(NotStrict {
                reason: "no object",
                column: 1,
            })
        }
    }
}

/// Why a text is not one strict JSON object. Holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at column {column}")]
pub struct NotStrict {
    reason: &'static str,
    column: usize,
}

impl From<serde_json::Error> for NotStrict {
    fn from(error: serde_json::Error) -> Self {
        Self {
            // The visitor below accepts every value, so what it refuses is a second member.
            reason: if error.is_data() {
                "a member is there twice"
            } else {
                "not valid JSON"
            },
            column: error.column(),
        }
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element_seed(Strict)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1} x"#,
            r#"{"a":1}{"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":1e999}"#,
            "{'a':1}",
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
            "[]",
            "null",
            "1",
            "\"{}\"",
            "",
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(object(deep.as_bytes()).is_err());
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#" {"a":[1,-2,1.5,true,null,"x"],"b":{"a":18446744073709551615}} "#;
        let expected: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert_eq!(object(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn says_a_duplicate_apart_from_bad_syntax_and_never_quotes() {
        let twice = object(br#"{"secret":1,"secret":2}"#)
            .unwrap_err()
            .to_string();
        assert!(twice.starts_with("a member is there twice"), "{twice}");
        let broken = object(br#"{"secret""#).unwrap_err().to_string();
        assert!(broken.starts_with("not valid JSON"), "{broken}");
        assert!(!twice.contains("secret") && !broken.contains("secret"));
    }
}
