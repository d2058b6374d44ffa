//! The bodies of the workflow API, made into the engine's: plain JSON becomes typed variables.
//!
//! A variable is typed where it is an object with a `value` member and no member other than `value`, `type`,
//! `valueInfo`, `local`; it passes as it is. Anything else is plain, and its type is told from what it is:
//!
//! | JSON | type |
//! |---|---|
//! | `true`, `false` | Boolean |
//! | an integer of 32 bits | Integer |
//! | an integer of 64 bits | Long |
//! | a larger one, a number beyond a double | none: refused, never silently damaged |
//! | a number with a fraction or an exponent | Double |
//! | a string | String; dates are never guessed |
//! | an array, an object | Json: its text, as it came, as a string |
//! | `null` | Null |
//!
//! Members that these bodies do not know are left out, as the service before did.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::audit::cut;
use crate::problem::Problem;
use crate::splice::{Fate, Kind, Reader};

/// The body of a start at the engine.
///
/// # Errors
/// [`Problem::BodyInvalid`] names the member, or the place.
pub(super) fn start(body: &[u8]) -> Result<Vec<u8>, Problem> {
    #[derive(Default, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Start<'a> {
        #[serde(
            skip_serializing_if = "Option::is_none",
            serialize_with = "variables_out"
        )]
        variables: Option<Vec<(String, Typed<'a>)>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        business_key: Option<Cow<'a, str>>,
    }
    let mut start = Start::default();
    members(body, |reader, name| {
        match name {
            "variables" => start.variables = variables(reader, body)?,
            "businessKey" | "business_key" => {
                if let Some(key) = text(reader, name)? {
                    start.business_key.get_or_insert(key);
                }
            }
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    written(&start)
}

/// The body of a completion at the engine.
///
/// # Errors
/// As [`start`].
pub(super) fn complete(body: &[u8]) -> Result<Vec<u8>, Problem> {
    #[derive(Default, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Complete<'a> {
        #[serde(
            skip_serializing_if = "Option::is_none",
            serialize_with = "variables_out"
        )]
        variables: Option<Vec<(String, Typed<'a>)>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        with_variables_in_return: bool,
    }
    let mut complete = Complete::default();
    members(body, |reader, name| {
        match name {
            "variables" => complete.variables = variables(reader, body)?,
            "withVariablesInReturn" => {
                complete.with_variables_in_return = flag(reader, body, name)?;
            }
            _ => {
                reader.skip()?;
            }
        }
        Ok(())
    })?;
    written(&complete)
}

/// The body of a claim at the engine: for the user in the body, else for the caller.
///
/// # Errors
/// As [`start`].
pub(super) fn claim(body: &[u8], caller: &str) -> Result<Vec<u8>, Problem> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Claim<'a> {
        user_id: Cow<'a, str>,
    }
    let user_id = member(body, "userId")?.unwrap_or(Cow::Borrowed(caller));
    written(&Claim { user_id })
}

/// Why an instance is deleted.
///
/// # Errors
/// As [`start`].
pub(super) fn reason(body: &[u8]) -> Result<Option<String>, Problem> {
    Ok(member(body, "reason")?.map(Cow::into_owned))
}

/// The text of one member, if it is there and not null.
fn member<'a>(body: &'a [u8], wanted: &str) -> Result<Option<Cow<'a, str>>, Problem> {
    let mut found = None;
    members(body, |reader, name| {
        if name == wanted {
            found = text(reader, name)?;
        } else {
            reader.skip()?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Walks the body's members; an empty body has none.
fn members<'a>(
    body: &'a [u8],
    mut member: impl FnMut(&mut Reader<'a>, &str) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(body)?;
    reader.object(|reader, name| {
        member(reader, name)?;
        Ok::<_, Problem>(Fate::Keep)
    })?;
    reader.finish()?;
    Ok(())
}

fn text<'a>(reader: &mut Reader<'a>, name: &str) -> Result<Option<Cow<'a, str>>, Problem> {
    match reader.kind()? {
        Kind::String => Ok(Some(reader.str()?)),
        Kind::Null => {
            reader.skip()?;
            Ok(None)
        }
        Kind::Object | Kind::Array | Kind::Number | Kind::Boolean => {
            Err(invalid(format!("`{name}` must be a string.")))
        }
    }
}

fn flag(reader: &mut Reader<'_>, body: &[u8], name: &str) -> Result<bool, Problem> {
    match reader.kind()? {
        Kind::Boolean | Kind::Null => Ok(body.get(reader.skip()?) == Some(b"true")),
        Kind::Object | Kind::Array | Kind::Number | Kind::String => {
            Err(invalid(format!("`{name}` must be true or false.")))
        }
    }
}

fn variables<'a>(
    reader: &mut Reader<'a>,
    body: &'a [u8],
) -> Result<Option<Vec<(String, Typed<'a>)>>, Problem> {
    match reader.kind()? {
        Kind::Object => {}
        Kind::Null => {
            reader.skip()?;
            return Ok(None);
        }
        Kind::Array | Kind::String | Kind::Number | Kind::Boolean => {
            return Err(invalid("`variables` must be an object.".to_owned()));
        }
    }
    let mut variables = Vec::new();
    reader.object(|reader, name| {
        let kind = reader.kind()?;
        let span = reader.skip()?;
        let json = body
            .get(span)
            .and_then(|json| serde_json::from_slice(json).ok())
            .ok_or_else(|| invalid(format!("The variable `{}` cannot be read.", cut(name))))?;
        variables.push((name.to_owned(), typed(name, kind, json)?));
        Ok::<_, Problem>(Fate::Keep)
    })?;
    Ok(Some(variables))
}

/// A variable as the engine takes it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Typed<'a> {
    AsItIs(&'a RawValue),
    Inferred {
        value: Value<'a>,
        r#type: &'static str,
    },
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

fn typed<'a>(name: &str, kind: Kind, json: &'a RawValue) -> Result<Typed<'a>, Problem> {
    if kind == Kind::Object && is_typed(name, json)? {
        return Ok(Typed::AsItIs(json));
    }
    let (value, r#type) = match kind {
        Kind::Boolean => (Value::Json(json), "Boolean"),
        Kind::Number => (Value::Json(json), number(name, json.get())?),
        Kind::String => (Value::Json(json), "String"),
        Kind::Array | Kind::Object => (Value::Text(json.get()), "Json"),
        Kind::Null => (Value::Json(json), "Null"),
    };
    Ok(Typed::Inferred { value, r#type })
}

/// Whether it is a typed variable; one that the engine's reader breaks on, with a 500, is refused.
fn is_typed(name: &str, json: &RawValue) -> Result<bool, Problem> {
    let (mut has_value, mut has_others, mut is_sound) = (false, false, true);
    members(json.get().as_bytes(), |reader, member| {
        match (member, reader.kind()?) {
            ("type", Kind::String) => {
                is_sound &= !reader.str()?.is_empty();
                return Ok(());
            }
            ("valueInfo", Kind::Object) => {
                reader.object(|reader, member| {
                    let is_name = matches!(reader.kind()?, Kind::String | Kind::Null);
                    let must_be = matches!(member, "objectTypeName" | "serializationDataFormat");
                    is_sound &= is_name || !must_be;
                    reader.skip()?;
                    Ok::<_, Problem>(Fate::Keep)
                })?;
                return Ok(());
            }
            ("type" | "valueInfo", kind) => is_sound &= kind == Kind::Null,
            ("value", _) => has_value = true,
            ("local", _) => {}
            _ => has_others = true,
        }
        reader.skip()?;
        Ok(())
    })?;
    if !has_value || has_others {
        return Ok(false);
    }
    if is_sound {
        return Ok(true);
    }
    Err(invalid(format!(
        "The variable `{}` is not typed well: `type` must be a name, `valueInfo` an object, and its \
         `objectTypeName` and `serializationDataFormat` strings.",
        cut(name)
    )))
}

fn number(name: &str, digits: &str) -> Result<&'static str, Problem> {
    let refused = |why: &str| {
        Err(invalid(format!(
            "The variable `{}` is {why}: send it as a string, or with a type.",
            cut(name)
        )))
    };
    if digits.contains(['.', 'e', 'E']) {
        return match digits.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok("Double"),
            Ok(_) | Err(_) => refused("a number beyond those of a double"),
        };
    }
    match digits.parse::<i64>() {
        Ok(number) if i32::try_from(number).is_ok() => Ok("Integer"),
        Ok(_) => Ok("Long"),
        Err(_) => refused("an integer of more than 64 bits"),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::BodyInvalid(detail.into_boxed_str())
}

fn written(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(body).map_err(|_| Problem::Internal)
}

#[expect(clippy::ref_option, reason = "what serde calls it with")]
fn variables_out<S: serde::Serializer>(
    variables: &Option<Vec<(String, Typed<'_>)>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let variables = variables.as_deref().unwrap_or_default();
    to.collect_map(variables.iter().map(|(name, typed)| (name, typed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(variable: &str) -> Result<String, String> {
        let body = format!(r#"{{"variables":{{"v":{variable}}}}}"#);
        match start(body.as_bytes()) {
            Ok(body) => {
                let body = String::from_utf8(body).unwrap();
                let inner = body.strip_prefix(r#"{"variables":{"v":"#);
                Ok(inner.unwrap().strip_suffix("}}").unwrap().to_owned())
            }
            Err(problem) => {
                assert_eq!(problem.code(), "body_invalid");
                Err(problem.detail().into_owned())
            }
        }
    }

    #[test]
    fn plain_json_gets_the_type_that_it_is() {
        for (json, value, r#type) in [
            ("true", "true", "Boolean"),
            ("false", "false", "Boolean"),
            ("0", "0", "Integer"),
            ("-0", "-0", "Integer"),
            ("2147483647", "2147483647", "Integer"),
            ("-2147483648", "-2147483648", "Integer"),
            ("2147483648", "2147483648", "Long"),
            ("-2147483649", "-2147483649", "Long"),
            ("5000000000", "5000000000", "Long"),
            ("9223372036854775807", "9223372036854775807", "Long"),
            ("-9223372036854775808", "-9223372036854775808", "Long"),
            ("1.0", "1.0", "Double"),
            ("1e3", "1e3", "Double"),
            ("-0.0", "-0.0", "Double"),
            ("0.1234567890123456789", "0.1234567890123456789", "Double"),
            ("1E400", "", ""),
            (r#""2026-11-28""#, r#""2026-11-28""#, "String"),
            (r#""""#, r#""""#, "String"),
            (r#""\u0041😀""#, r#""\u0041😀""#, "String"),
            ("null", "null", "Null"),
            ("[]", r#""[]""#, "Json"),
            ("{}", r#""{}""#, "Json"),
            (r#"[1, 1.50,"\n"]"#, r#""[1, 1.50,\"\\n\"]""#, "Json"),
            (
                r#"{"a":{"b":[12345678901234567890]}}"#,
                r#""{\"a\":{\"b\":[12345678901234567890]}}""#,
                "Json",
            ),
            (
                r#"{"value":1,"unit":"kg"}"#,
                r#""{\"value\":1,\"unit\":\"kg\"}""#,
                "Json",
            ),
            (r#"{"type":"String"}"#, r#""{\"type\":\"String\"}""#, "Json"),
        ] {
            let want = format!(r#"{{"value":{value},"type":"{type}"}}"#);
            if r#type.is_empty() {
                assert!(started(json).is_err(), "{json}");
            } else {
                assert_eq!(started(json), Ok(want), "{json}");
            }
        }
    }

    #[test]
    fn typed_variables_pass_as_they_are() {
        for json in [
            r#"{"value":1}"#,
            r#"{ "value" : 12345678901234567890 , "type":"Long"}"#,
            r#"{"type":"Object","value":"{}","valueInfo":{"objectTypeName":"x"},"local":true}"#,
            r#"{"value":{"a":1}}"#,
            r#"{"value":1,"type":null,"valueInfo":null}"#,
            r#"{"value":"eA==","type":"File","valueInfo":{"filename":7,"objectTypeName":null}}"#,
        ] {
            assert_eq!(started(json).as_deref(), Ok(json));
        }
        for json in [
            r#"{"value":1,"type":""}"#,
            r#"{"value":1,"type":7}"#,
            r#"{"value":1,"type":["Integer"]}"#,
            r#"{"value":1,"valueInfo":7}"#,
            r#"{"value":1,"valueInfo":[]}"#,
            r#"{"value":"{}","type":"Object","valueInfo":{"objectTypeName":7}}"#,
            r#"{"valueInfo":{"serializationDataFormat":{}},"value":"{}"}"#,
        ] {
            let refused = started(json).unwrap_err();
            assert!(
                refused.starts_with("The variable `v` is not typed well"),
                "{json}: {refused}"
            );
        }
        // Not typed at all, so nothing of it is looked at.
        assert!(started(r#"{"value":1,"type":"","unit":"kg"}"#).is_ok());
    }

    #[test]
    fn what_would_be_damaged_is_refused_by_its_name() {
        for (json, why) in [
            (
                "9223372036854775808",
                "The variable `v` is an integer of more than 64 bits",
            ),
            (
                "-9223372036854775809",
                "The variable `v` is an integer of more than 64 bits",
            ),
            (
                "1e309",
                "The variable `v` is a number beyond those of a double",
            ),
        ] {
            let refused = started(json).unwrap_err();
            assert!(refused.starts_with(why), "{json}: {refused}");
        }
        for json in [r#"{"value":1,"value":2}"#, "tru", "01", "", r#""\ud800""#] {
            started(json).unwrap_err();
        }
    }

    #[test]
    fn the_members_of_a_start() {
        for (body, want) in [
            ("", "{}"),
            ("{}", "{}"),
            (r#"{"variables":null,"businessKey":null}"#, "{}"),
            (r#"{"variables":{}}"#, r#"{"variables":{}}"#),
            (r#"{"businessKey":"a\"b"}"#, r#"{"businessKey":"a\"b"}"#),
            (r#"{"business_key":"a"}"#, r#"{"businessKey":"a"}"#),
            (
                r#"{"businessKey":null,"business_key":"a"}"#,
                r#"{"businessKey":"a"}"#,
            ),
            (
                r#"{"businessKey":"a","business_key":"b"}"#,
                r#"{"businessKey":"a"}"#,
            ),
            (
                r#"{"startInstructions":[],"skipIoMappings":true,"x":1}"#,
                "{}",
            ),
            (
                r#"{"variables":{"a\u0062":1,"":2}}"#,
                r#"{"variables":{"ab":{"value":1,"type":"Integer"},"":{"value":2,"type":"Integer"}}}"#,
            ),
        ] {
            let got = start(body.as_bytes()).map(|body| String::from_utf8(body).unwrap());
            assert_eq!(got.as_deref(), Ok(want), "{body}");
        }
        for body in [
            "[]",
            "null",
            "1",
            "{",
            "{}x",
            r#"{"variables":[]}"#,
            r#"{"variables":"x"}"#,
            r#"{"businessKey":1}"#,
            r#"{"variables":{},"variables":{}}"#,
            r#"{"variables":{"a":1,"\u0061":2}}"#,
        ] {
            assert!(start(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn the_members_of_the_other_bodies() {
        let text = |body: Result<Vec<u8>, Problem>| String::from_utf8(body.unwrap()).unwrap();
        assert_eq!(text(complete(b"")), "{}");
        assert_eq!(
            text(complete(
                br#"{"withVariablesInReturn":true,"variables":{"a":null}}"#
            )),
            r#"{"variables":{"a":{"value":null,"type":"Null"}},"withVariablesInReturn":true}"#
        );
        assert_eq!(text(complete(br#"{"withVariablesInReturn":null}"#)), "{}");
        complete(br#"{"withVariablesInReturn":"true"}"#).unwrap_err();
        assert_eq!(text(claim(b"", "alice")), r#"{"userId":"alice"}"#);
        assert_eq!(
            text(claim(br#"{"userId":null}"#, "alice")),
            r#"{"userId":"alice"}"#
        );
        assert_eq!(
            text(claim(br#"{"userId":"bob"}"#, "alice")),
            r#"{"userId":"bob"}"#
        );
        claim(br#"{"userId":7}"#, "alice").unwrap_err();
        assert_eq!(reason(b"{}").unwrap(), None);
        assert_eq!(
            reason(br#"{"reason":"a \"mistake\""}"#).unwrap().unwrap(),
            "a \"mistake\""
        );
    }
}
