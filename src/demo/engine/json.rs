//! Reads a request's JSON as leniently as the engine does, so that what a gateway lets through here
//! would have its effect there too.
//!
//! Jackson detects UTF-16 and UTF-32 from the bytes, skips a byte order mark and takes overlong UTF-8.
//! Of duplicate members the last wins. Not copied: more than 127 levels of nesting and lone surrogates
//! are refused here.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// The body as an object.
///
/// # Errors
/// 415 for other content types, 400 for what is no JSON object, 500 for nothing at all and for `null`.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(given) = types.next() else {
        return Err(if body.is_empty() {
            Refusal::null_pointer()
        } else {
            Refusal::http(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        });
    };
    if types.next().is_some() {
        return Err(Refusal::http(StatusCode::BAD_REQUEST));
    }
    let media_type = given
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !["application/json", "*/json"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(media_type))
    {
        return Err(Refusal::http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if body.is_empty() {
        return Ok(Map::new());
    }
    let text = decode(body).ok_or_else(syntax)?;
    if text.trim_matches(BLANKS).is_empty() {
        return Err(Refusal::null_pointer());
    }
    match serde_json::from_str(&text).map_err(|_| syntax())? {
        Value::Object(members) => Ok(members),
        Value::Null => Err(Refusal::null_pointer()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Refusal::mapping("a value that is no object"))
        }
    }
}

fn syntax() -> Refusal {
    Refusal::invalid(StatusCode::BAD_REQUEST, "")
}

/// Text from bytes by Jackson's detection: a byte order mark, else the place of the zero bytes (RFC 4627 §3).
fn decode(body: &[u8]) -> Option<String> {
    let wide = |order: fn([u8; 4]) -> u32, body: &[u8]| -> Option<String> {
        let (units, []) = body.as_chunks::<4>() else {
            return None;
        };
        units
            .iter()
            .map(|unit| char::from_u32(order(*unit)))
            .collect()
    };
    let narrow = |order: fn([u8; 2]) -> u16, body: &[u8]| -> Option<String> {
        let (units, []) = body.as_chunks::<2>() else {
            return None;
        };
        Some(
            char::decode_utf16(units.iter().map(|unit| order(*unit)))
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        )
    };
    match body {
        [0, 0, 0xFE, 0xFF, rest @ ..] => wide(u32::from_be_bytes, rest),
        [0xFF, 0xFE, 0, 0, rest @ ..] => wide(u32::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => narrow(u16::from_be_bytes, rest),
        [0xFF, 0xFE, rest @ ..] => narrow(u16::from_le_bytes, rest),
        [0xEF, 0xBB, 0xBF, rest @ ..] => overlong(rest),
        [0, 0, 0, _, ..] => wide(u32::from_be_bytes, body),
        [_, 0, 0, 0, ..] => wide(u32::from_le_bytes, body),
        [0, _, ..] => narrow(u16::from_be_bytes, body),
        [_, 0, ..] => narrow(u16::from_le_bytes, body),
        _ => overlong(body),
    }
}

/// UTF-8 with the forms that a strict reader refuses: `C1 A9` is `i`; surrogates become a replacement.
fn overlong(body: &[u8]) -> Option<String> {
    if let Ok(text) = std::str::from_utf8(body) {
        return Some(text.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    let mut bytes = body.iter().copied();
    while let Some(first) = bytes.next() {
        let (mut code, more) = match first {
            0x00..=0x7F => (u32::from(first), 0),
            0xC0..=0xDF => (u32::from(first & 0x1F), 1),
            0xE0..=0xEF => (u32::from(first & 0x0F), 2),
            0xF0..=0xF7 => (u32::from(first & 0x07), 3),
            0x80..=0xBF | 0xF8..=0xFF => return None,
        };
        for _ in 0..more {
            let next = bytes.next().filter(|next| next & 0xC0 == 0x80)?;
            code = code << 6 | u32::from(next & 0x3F);
        }
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(text)
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with_type(content_type: &'static str, body: &[u8]) -> Result<Map<String, Value>, Refusal> {
        read(
            &HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]),
            body,
        )
    }

    #[test]
    fn every_encoding_of_json_is_read() {
        let text = "{\"variables\":1}";
        let utf16 =
            |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let utf32 = |order: fn(u32) -> [u8; 4]| {
            text.chars()
                .flat_map(|c| order(u32::from(c)))
                .collect::<Vec<u8>>()
        };
        let marked = |mark: &[u8], rest: Vec<u8>| [mark, &rest].concat();
        for (name, body) in [
            ("utf-8", text.as_bytes().to_vec()),
            (
                "utf-8 with mark",
                marked(&[0xEF, 0xBB, 0xBF], text.as_bytes().to_vec()),
            ),
            ("utf-16be", utf16(u16::to_be_bytes)),
            ("utf-16le", utf16(u16::to_le_bytes)),
            (
                "utf-16be with mark",
                marked(&[0xFE, 0xFF], utf16(u16::to_be_bytes)),
            ),
            (
                "utf-16le with mark",
                marked(&[0xFF, 0xFE], utf16(u16::to_le_bytes)),
            ),
            ("utf-32be", utf32(u32::to_be_bytes)),
            ("utf-32le", utf32(u32::to_le_bytes)),
            (
                "utf-32le with mark",
                marked(&[0xFF, 0xFE, 0, 0], utf32(u32::to_le_bytes)),
            ),
            (
                "overlong i and a",
                b"{\"v\xC1\xA1r\xC1\xA9ables\":1}".to_vec(),
            ),
        ] {
            assert_eq!(
                with_type("application/json", &body).unwrap()["variables"],
                1,
                "{name}"
            );
        }
        assert_eq!(
            with_type("application/json", b"{\"a\":\"\xFF\"}")
                .unwrap_err()
                .status,
            400
        );
        assert_eq!(
            with_type("application/json", b"{\"a\":\"\xE9\"}")
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn of_duplicate_members_the_last_wins_escaped_or_not() {
        let members = with_type("application/json", br#"{"a":1,"\u0061":{"b":1,"b":2}}"#).unwrap();
        assert_eq!(Value::Object(members), serde_json::json!({"a": {"b": 2}}));
    }

    #[test]
    fn content_types_and_empty_bodies() {
        for (content_type, status) in [
            ("application/json", None),
            ("APPLICATION/JSON;charset=utf-16;", None),
            ("*/json", None),
            ("application/json ;x", None),
            ("text/json", Some(415)),
            ("application/hal+json", Some(415)),
            ("*/*", Some(415)),
        ] {
            assert_eq!(
                with_type(content_type, b"{}")
                    .err()
                    .map(|refusal| refusal.status.as_u16()),
                status,
                "{content_type}"
            );
        }
        assert!(with_type("application/json", b"").unwrap().is_empty());
        assert_eq!(read(&HeaderMap::new(), b"").unwrap_err().status, 500);
        for (body, status) in [
            ("null", 500),
            (" \n", 500),
            ("[]", 400),
            ("1", 400),
            ("{} x", 400),
            ("{x", 400),
            ("{'a':1}", 400),
            ("{\"a\":1,}", 400),
        ] {
            assert_eq!(
                with_type("application/json", body.as_bytes())
                    .unwrap_err()
                    .status,
                status,
                "{body}"
            );
        }
    }
}
