//! The engine's variables: which types it infers, which values it takes for a type, how it shows them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use super::model::Field;
use super::refusal::Refusal;

/// A variable's value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variable {
    /// `String`, `Integer`, `Json`, ...
    pub(super) kind: &'static str,
    /// As it was stored: text for `Json` and `File`, JSON for an inferred `Object`.
    value: Value,
    info: Value,
}

/// Variables by name. A name has one value: of duplicate JSON members the last one wins, as in the engine.
pub(super) type Variables = BTreeMap<String, Variable>;

impl Variable {
    pub(super) fn string(value: &str) -> Self {
        Self::of("String", json!(value))
    }

    fn of(kind: &'static str, value: Value) -> Self {
        Self {
            kind,
            value,
            info: json!({}),
        }
    }

    /// The value as an expression in a model sees it.
    pub(super) fn text(&self) -> String {
        self.value
            .as_str()
            .map_or_else(|| self.value.to_string(), String::from)
    }

    /// Reads `{"value":..,"type":..,"valueInfo":..}`; `None` for a transient one, which is never stored.
    pub(super) fn read(given: &Value, spin: bool) -> Result<Option<Self>, Refusal> {
        let members = match given {
            Value::Object(members) => members,
            Value::Null => return Err(Refusal::null_pointer()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Refusal::mapping("a value that is no object"));
            }
        };
        let value = members.get("value").unwrap_or(&Value::Null);
        let info = members
            .get("valueInfo")
            .filter(|info| info.is_object())
            .cloned()
            .unwrap_or_else(|| json!({}));
        if info.get("transient") == Some(&Value::Bool(true)) {
            return Ok(None);
        }
        let variable = match members.get("type") {
            None | Some(Value::Null) => Self::inferred(value),
            Some(Value::String(kind)) => Self::typed(kind, value, info, spin)?,
            Some(_) => return Err(Refusal::mapping("a type that is no string")),
        };
        if variable.kind == "String"
            && variable
                .value
                .as_str()
                .is_some_and(|text| text.chars().count() > MAX_STRING)
        {
            return Err(bad("Variable value is too long"));
        }
        Ok(Some(variable))
    }

    fn inferred(value: &Value) -> Self {
        match value {
            Value::Null => Self::of("Null", Value::Null),
            Value::Bool(_) => Self::of("Boolean", value.clone()),
            Value::String(_) => Self::of("String", value.clone()),
            Value::Number(number) => match number.as_i64() {
                Some(whole) if i32::try_from(whole).is_ok() => Self::of("Integer", value.clone()),
                Some(_) => Self::of("Long", value.clone()),
                None if number.is_u64() => Self::object("java.math.BigInteger", value),
                None => Self::of("Double", value.clone()),
            },
            Value::Array(_) => Self::object("java.util.ArrayList", value),
            Value::Object(members) if members.is_empty() => Self::of("Null", Value::Null),
            Value::Object(_) => Self::object("java.util.LinkedHashMap", value),
        }
    }

    fn object(class: &str, value: &Value) -> Self {
        Self {
            kind: "Object",
            value: value.clone(),
            info: json!({"objectTypeName": class, "serializationDataFormat": JAVA}),
        }
    }

    /// A type's first letter may have either case: `integer` is `Integer`, `INTEGER` is unknown.
    fn typed(kind: &str, value: &Value, info: Value, spin: bool) -> Result<Self, Refusal> {
        let mut letters = kind.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        let name: String = first.into_iter().chain(letters).collect();
        let Some(kind) = TYPES.iter().find(|known| **known == name) else {
            return Err(bad(&format!("Unsupported value type '{kind}'")));
        };
        if matches!(*kind, "Json" | "Xml") && !spin {
            return Err(Refusal::engine(
                "ProcessEngineException",
                &format!("Cannot find serializer for value '{value}'."),
            ));
        }
        if *kind == "File" {
            return Self::file(value, info);
        }
        if value.is_null() || *kind == "Null" {
            return Ok(Self::of(kind, Value::Null));
        }
        let text = value.as_str();
        let converted = match *kind {
            "Boolean" => value
                .as_bool()
                .or_else(|| text.and_then(|text| text.parse().ok()))
                .map(Value::from),
            "Integer" => whole(value)
                .filter(|whole| i32::try_from(*whole).is_ok())
                .map(Value::from),
            "Short" => whole(value)
                .filter(|whole| i16::try_from(*whole).is_ok())
                .map(Value::from),
            "Long" => whole(value).map(Value::from),
            "Double" => value
                .as_f64()
                .or_else(|| text.and_then(|text| text.parse().ok()))
                .map(Value::from),
            "String" => Some(text.map_or_else(|| json!(value.to_string()), |text| json!(text))),
            "Date" => text.and_then(parse_date).map(|date| json!(show_date(date))),
            "Json" | "Xml" => text.map(|text| json!(text)),
            "Bytes" => match text.map(|text| STANDARD.decode(text)) {
                Some(Ok(_)) => Some(value.clone()),
                Some(Err(_)) => {
                    return Err(Refusal::engine(
                        "IllegalArgumentException",
                        "Illegal base64 character",
                    ));
                }
                None => None,
            },
            "Object"
                if info.get("serializationDataFormat") == Some(&json!("application/json"))
                    && spin =>
            {
                return text
                    .map(|_| Self {
                        kind: "Object",
                        value: value.clone(),
                        info,
                    })
                    .ok_or_else(|| unfit(kind, value));
            }
            "Object" if text.is_some() => {
                return Err(Refusal::engine(
                    "ProcessEngineException",
                    "ENGINE-17007 Cannot set variable with name. Java serialization format is prohibited",
                ));
            }
            _ => None,
        };
        converted
            .map(|value| Self::of(kind, value))
            .ok_or_else(|| unfit(kind, value))
    }

    fn file(value: &Value, info: Value) -> Result<Self, Refusal> {
        if info.get("filename").and_then(Value::as_str).is_none() {
            return Err(Refusal::engine(
                "IllegalArgumentException",
                "File name must not be null",
            ));
        }
        match value.as_str().map(|text| STANDARD.decode(text)) {
            Some(Err(_)) => Err(Refusal::engine(
                "IllegalArgumentException",
                "Illegal base64 character",
            )),
            _ => Ok(Self {
                kind: "File",
                value: value.clone(),
                info,
            }),
        }
    }

    /// `{"type","value","valueInfo"}` as a GET answers it.
    ///
    /// # Errors
    /// With `deserialize`, a `Json` variable that holds no JSON is 500, as in the engine.
    pub(super) fn show(&self, deserialize: bool) -> Result<Value, Refusal> {
        let value = match self.kind {
            "File" => Value::Null,
            "Json" if deserialize => bean(&self.value)?,
            // The engine's text is Java's serialization, which means nothing to a client either.
            "Object" if !deserialize && self.is_java() => {
                json!(STANDARD.encode(self.value.to_string()))
            }
            "Object" if deserialize && !self.is_java() => parsed(&self.value)?,
            _ => self.value.clone(),
        };
        Ok(json!({"type": self.kind, "value": value, "valueInfo": self.info}))
    }

    fn is_java(&self) -> bool {
        self.info
            .get("serializationDataFormat")
            .and_then(Value::as_str)
            == Some(JAVA)
    }

    /// What a submitted value becomes in a form's field; text is read as the field's type.
    pub(super) fn for_field(field: &Field, given: &Self) -> Result<Self, Refusal> {
        let wrong = || {
            Refusal::engine(
                "FormException",
                &format!("Invalid value submitted for form field '{}'", field.id),
            )
        };
        if field.required && matches!(&given.value, Value::Null) {
            return Err(wrong());
        }
        let kind = match field.kind.as_str() {
            "long" => "Long",
            "boolean" => "Boolean",
            "date" => "Date",
            _ => "String",
        };
        if !field.values.is_empty() && !field.values.contains(&given.text()) {
            return Err(wrong());
        }
        Self::typed(kind, &given.value, json!({}), true).map_err(|_| wrong())
    }

    /// What a form shows in a field before anybody wrote in it.
    pub(super) fn of_field(field: &Field) -> Self {
        match &field.default {
            Some(default) => Self::for_field(field, &Self::string(default))
                .unwrap_or_else(|_| Self::string(default)),
            // Operaton 1.0.3 shows an empty date as an empty String, other fields as null.
            None if field.kind == "date" => Self::string(""),
            None => Self::of("String", Value::Null),
        }
    }
}

/// Reads a map of variables; absent and `null` are none.
pub(super) fn read_all(given: Option<&Value>, spin: bool) -> Result<Variables, Refusal> {
    let mut variables = Variables::new();
    match given {
        None | Some(Value::Null) => {}
        Some(Value::Object(members)) => {
            for (name, value) in members {
                if let Some(variable) = Variable::read(value, spin)? {
                    variables.insert(name.clone(), variable);
                }
            }
        }
        Some(_) => return Err(Refusal::mapping("variables that are no object")),
    }
    Ok(variables)
}

/// Shows a map of variables.
pub(super) fn show_all<'a>(
    variables: impl IntoIterator<Item = (&'a String, &'a Variable)>,
    deserialize: bool,
) -> Result<Value, Refusal> {
    let mut shown = serde_json::Map::new();
    for (name, variable) in variables {
        shown.insert(name.clone(), variable.show(deserialize)?);
    }
    Ok(Value::Object(shown))
}

/// `2026-11-24T10:20:30.000+0000`, the engine's only form.
pub(super) fn show_date(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at)
        .to_string()
        .replace('Z', "+0000")
}

/// Reads the engine's form alone, with any offset `+hhmm`; dates before 1970 are not needed here.
fn parse_date(text: &str) -> Option<SystemTime> {
    let (local, offset) = text.split_at_checked(23)?;
    let at = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (sign, digits) = offset.split_at_checked(1)?;
    if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at_checked(2)?;
    let offset =
        Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
    match sign {
        "+" => at.checked_sub(offset).filter(|at| *at >= UNIX_EPOCH),
        "-" => at.checked_add(offset),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn parsed(text: &Value) -> Result<Value, Refusal> {
    serde_json::from_str(text.as_str().unwrap_or_default()).map_err(|_| {
        Refusal::engine(
            "SpinJsonException",
            "SPIN/JACKSON-JSON-01002 Unable to read JSON",
        )
    })
}

/// The useless bean that the engine makes of a `Json` variable when it is asked to deserialize.
fn bean(text: &Value) -> Result<Value, Refusal> {
    let json = parsed(text)?;
    let kind = match &json {
        Value::Null => "NULL",
        Value::Bool(_) => "BOOLEAN",
        Value::Number(_) => "NUMBER",
        Value::String(_) => "STRING",
        Value::Array(_) => "ARRAY",
        Value::Object(_) => "OBJECT",
    };
    Ok(json!({
        "array": json.is_array(),
        "boolean": json.is_boolean(),
        "dataFormatName": "application/json",
        "nodeType": kind,
        "null": json.is_null(),
        "number": json.is_number(),
        "object": json.is_object(),
        "string": json.is_string(),
        "value": !json.is_array() && !json.is_object(),
    }))
}

fn bad(message: &str) -> Refusal {
    Refusal::invalid(StatusCode::BAD_REQUEST, message)
}

fn unfit(kind: &str, value: &Value) -> Refusal {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), String::from);
    let class = match kind {
        "Date" => "java.util.Date".to_owned(),
        kind => format!("java.lang.{kind}"),
    };
    bad(&format!(
        "Cannot convert value '{text}' of type '{kind}' to java type {class}"
    ))
}

const TYPES: [&str; 13] = [
    "Boolean", "Bytes", "Date", "Double", "File", "Integer", "Json", "Long", "Null", "Object",
    "Short", "String", "Xml",
];
const JAVA: &str = "application/x-java-serialized-object";
const MAX_STRING: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_inferred_as_the_engine_does() {
        for (value, kind) in [
            ("1", "Integer"),
            ("2147483647", "Integer"),
            ("2147483648", "Long"),
            ("-2147483649", "Long"),
            ("9223372036854775807", "Long"),
            ("9223372036854775808", "Object"),
            ("0.1", "Double"),
            ("1E3", "Double"),
            ("1.0", "Double"),
            ("true", "Boolean"),
            ("\"2026-11-24\"", "String"),
            ("null", "Null"),
            ("{}", "Null"),
            ("[]", "Object"),
            ("{\"a\":1}", "Object"),
        ] {
            let given = json!({"value": serde_json::from_str::<Value>(value).unwrap()});
            assert_eq!(
                Variable::read(&given, true).unwrap().unwrap().kind,
                kind,
                "{value}"
            );
        }
        assert_eq!(
            Variable::read(&json!({}), true).unwrap().unwrap().kind,
            "Null"
        );
    }

    #[test]
    fn typed_values_are_converted_or_refused() {
        for (kind, value, expected) in [
            ("Integer", json!("5"), Some(json!(5))),
            ("integer", json!(5), Some(json!(5))),
            ("INTEGER", json!(5), None),
            ("Integer", json!("abc"), None),
            ("Integer", json!(3_000_000_000_u64), None),
            ("Integer", json!(1.5), None),
            ("Integer", json!(5.0), None),
            ("Boolean", json!("true"), Some(json!(true))),
            ("Boolean", json!("yes"), None),
            ("Double", json!("1e3"), Some(json!(1000.0))),
            ("String", json!(5), Some(json!("5"))),
            ("Json", json!({"a": 1}), None),
            ("Json", json!("{\"a\":1}"), Some(json!("{\"a\":1}"))),
            ("Integer", Value::Null, Some(Value::Null)),
            ("Nope", json!(1), None),
        ] {
            let read = Variable::read(&json!({"value": value, "type": kind}), true);
            match expected {
                Some(expected) => {
                    assert_eq!(read.unwrap().unwrap().value, expected, "{kind} {value}");
                }
                None => assert_eq!(read.unwrap_err().status, 400, "{kind} {value}"),
            }
        }
    }

    #[test]
    fn only_the_engines_date_form_is_taken() {
        let read = |text: &str| Variable::read(&json!({"value": text, "type": "Date"}), true);
        for (given, shown) in [
            (
                "2026-11-24T10:20:30.000+0000",
                "2026-11-24T10:20:30.000+0000",
            ),
            (
                "2026-11-24T10:20:30.123+0230",
                "2026-11-24T07:50:30.123+0000",
            ),
            (
                "2026-11-24T23:20:30.000-0100",
                "2026-11-25T00:20:30.000+0000",
            ),
        ] {
            assert_eq!(read(given).unwrap().unwrap().value, shown, "{given}");
        }
        for given in [
            "2026-11-24T10:20:30.000Z",
            "2026-11-24T10:20:30+0000",
            "2026-11-24T10:20:30.000+00:00",
            "2026-11-24",
            "0",
            "",
        ] {
            assert_eq!(read(given).unwrap_err().status, 400, "{given}");
        }
    }

    #[test]
    fn callers_mistakes_that_are_500() {
        for given in [
            Value::Null,
            json!({"value": "x", "type": "File"}),
            json!({"value": "%", "type": "Bytes"}),
            json!({"value": "rO0", "type": "Object", "valueInfo": {"serializationDataFormat": JAVA}}),
        ] {
            assert_eq!(
                Variable::read(&given, true).unwrap_err().status,
                500,
                "{given}"
            );
        }
        assert_eq!(
            Variable::read(&json!({"value": "{}", "type": "Json"}), false)
                .unwrap_err()
                .status,
            500
        );
    }

    #[test]
    fn json_is_a_bean_unless_left_serialized() {
        let json = Variable::read(&json!({"value": "{\"a\":[1]}", "type": "Json"}), true)
            .unwrap()
            .unwrap();
        assert_eq!(json.show(false).unwrap()["value"], "{\"a\":[1]}");
        assert_eq!(json.show(true).unwrap()["value"]["nodeType"], "OBJECT");
        let broken = Variable::read(&json!({"value": "{", "type": "Json"}), true)
            .unwrap()
            .unwrap();
        assert_eq!(broken.show(true).unwrap_err().status, 500);
        assert!(broken.show(false).is_ok());
    }

    #[test]
    fn strings_end_at_4000_characters_and_transient_ones_are_not_kept() {
        let of = |length| Variable::read(&json!({"value": "é".repeat(length)}), true);
        assert!(of(4000).is_ok());
        assert_eq!(of(4001).unwrap_err().status, 400);
        assert_eq!(
            Variable::read(&json!({"value": 1, "valueInfo": {"transient": true}}), true),
            Ok(None)
        );
    }
}
