use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

/// Reads a whole document and changes nothing.
fn accepts(body: &[u8]) -> Result<(), SpliceError> {
    let mut reader = Reader::new(body)?;
    reader.skip()?;
    assert_eq!(reader.finish()?, None);
    Ok(())
}

/// Removes members of the top-level object and appends one.
fn edit(body: &str, remove: &[&str], append: &str) -> Result<Option<String>, SpliceError> {
    let mut reader = Reader::new(body.as_bytes())?;
    let top = reader.object(|reader, name| {
        reader.skip()?;
        Ok::<_, SpliceError>(if remove.contains(&name) {
            Fate::Remove
        } else {
            Fate::Keep
        })
    })?;
    if !append.is_empty() {
        reader.append(top, append);
    }
    Ok(reader
        .finish()?
        .map(|edited| String::from_utf8(edited).unwrap()))
}

/// Whether `serde_json` reads a document: its grammar at once, then every name and every string, one
/// value after the other; numbers stay the text they are.
fn oracle(body: &[u8]) -> bool {
    std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
        .is_some_and(strings_are_read)
}

fn strings_are_read(value: &RawValue) -> bool {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => read(text).is_ok_and(|members| {
            members
                .into_iter()
                .all(|(_, value)| strings_are_read(value))
        }),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
            .is_ok_and(|elements| elements.into_iter().all(strings_are_read)),
        Some(b'"') => serde_json::from_str::<String>(text).is_ok(),
        _ => true,
    }
}

#[test]
fn json_test_suite_is_read_as_the_engine_reads_it_or_refused() {
    let suite: Value =
        serde_json::from_str(include_str!("../../tests/vectors/json_test_suite.json")).unwrap();
    // Of what RFC 8259 leaves open: numbers stay text and depth is bounded as in the engine. All else
    // is text that the engine reads differently from us (engine facts, "How it reads JSON").
    let accepted =
        |name: &str| name.starts_with("i_number_") || name == "i_structure_500_nested_arrays.json";
    let cases = suite["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 318);
    for (name, text) in cases {
        // One character of the file is one byte of the case.
        let body: Vec<u8> = text
            .as_str()
            .unwrap()
            .chars()
            .map(|byte| u8::try_from(u32::from(byte)).unwrap())
            .collect();
        let read = accepts(&body);
        // Standing under a member that is only skipped, a text is judged alike.
        let nested = accepts(&[b"{\"a\":[", &body[..], b"]}"].concat());
        match name.split_once('_').unwrap().0 {
            "y" => assert_eq!(read, Ok(()), "{name}"),
            "n" => assert!(read.is_err(), "{name} is accepted"),
            _ => assert_eq!(read.is_ok(), accepted(name), "{name}: {read:?}"),
        }
        if read.is_ok() {
            assert_eq!(nested, Ok(()), "{name} nested");
        }
    }
}

#[test]
fn every_refusal_says_where_and_what_to_change() {
    let deep = "[".repeat(1001);
    for (body, message) in [
        (&b""[..], "the body is no JSON: expected a value at byte 0"),
        (b" ", "the body is no JSON: expected a value at byte 1"),
        (
            b"{} {}",
            "the body is no JSON: expected the end of the body at byte 3",
        ),
        (
            b"{}\0",
            "the body is no JSON: expected the end of the body at byte 2",
        ),
        (
            b"{\"a\":1,}",
            "the body is no JSON: expected a member's name in double quotes at byte 7",
        ),
        (b"[1,]", "the body is no JSON: expected a value at byte 3"),
        (b"{\"a\" 1}", "the body is no JSON: expected `:` at byte 5"),
        (
            b"{\"a\":1 \"b\":2}",
            "the body is no JSON: expected `,` or `}` at byte 7",
        ),
        (
            b"[1 2]",
            "the body is no JSON: expected `,` or `]` at byte 3",
        ),
        (b"[1}", "the body is no JSON: expected `,` or `]` at byte 2"),
        (
            b"{\"a\":1]",
            "the body is no JSON: expected `,` or `}` at byte 6",
        ),
        (
            b"[01]",
            "the body is no JSON: expected `,` or `]` at byte 2",
        ),
        (b"[-]", "the body is no JSON: expected a digit at byte 2"),
        (b"[1.]", "the body is no JSON: expected a digit at byte 3"),
        (b"[1e+]", "the body is no JSON: expected a digit at byte 4"),
        (
            b"[tru]",
            "the body is no JSON: expected `true`, `false` or `null` at byte 1",
        ),
        (b"['a']", "the body is no JSON: expected a value at byte 1"),
        (b"[NaN]", "the body is no JSON: expected a value at byte 1"),
        (
            b"[/**/1]",
            "the body is no JSON: expected a value at byte 1",
        ),
        (
            b"[\xc2\xa01]",
            "the body is no JSON: expected a value at byte 1",
        ),
        (
            b"[\x0c1]",
            "the body is no JSON: expected a value at byte 1",
        ),
        (
            b"[\"a",
            "the body is no JSON: expected the end of a string at byte 3",
        ),
        (
            b"[\"a\n\"]",
            "the body is no JSON: expected control characters as escapes at byte 3",
        ),
        (
            b"[\"\\x41\"]",
            "the body is no JSON: expected an escape of JSON at byte 3",
        ),
        (
            b"[\"\\u00g0\"]",
            "the body is no JSON: expected four hexadecimal digits at byte 6",
        ),
        (
            b"[\"\\u+123\"]",
            "the body is no JSON: expected four hexadecimal digits at byte 4",
        ),
        (
            b"[\"\\ud800\"]",
            "the escape at byte 2 is half of a surrogate pair: send both halves, or the character",
        ),
        (
            b"{\"\\udc00\":1}",
            "the escape at byte 2 is half of a surrogate pair: send both halves, or the character",
        ),
        (
            b"[\"\\ud800\\u0041\"]",
            "the escape at byte 2 is half of a surrogate pair: send both halves, or the character",
        ),
        (
            b"\xef\xbb\xbf{}",
            "the body begins with a byte order mark: send it without",
        ),
        (
            b"{\"\xc1\xa9\":1}",
            "the body is no UTF-8 at byte 2: send JSON in UTF-8",
        ),
        (
            b"\xff\xfe{\0}\0",
            "the body is no UTF-8 at byte 0: send JSON in UTF-8",
        ),
        (
            b"{\0}\0",
            "the body is no JSON: expected a member's name in double quotes at byte 1",
        ),
        (
            deep.as_bytes(),
            "the body nests deeper than 1000 levels at byte 1000: send a flatter one",
        ),
    ] {
        let error = accepts(body).unwrap_err();
        assert_eq!(
            error.to_string(),
            message,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[test]
fn a_thousand_levels_are_read_and_one_more_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let levels = MAX_DEPTH / open.matches(['[', '{']).count();
        let nest = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        assert_eq!(accepts(nest(levels).as_bytes()), Ok(()), "{open}");
        assert!(
            matches!(
                accepts(nest(levels + 1).as_bytes()),
                Err(SpliceError::TooDeep { .. })
            ),
            "{open}"
        );
    }
    // As deep as memory allows, without a recursion: the stack stays where it is.
    let hostile = "[".repeat(4 << 20);
    assert_eq!(
        accepts(hostile.as_bytes()),
        Err(SpliceError::TooDeep { at: 1000 })
    );
}

#[test]
fn a_body_of_very_many_tiny_members_is_refused_and_a_full_one_is_not() {
    let body = |members: usize| {
        let members: Vec<String> = (0..members).map(|at| format!("\"{at}\":1")).collect();
        format!("{{\"variables\":{{{}}}}}", members.join(","))
    };
    let read = |body: &str| {
        let mut reader = Reader::new(body.as_bytes())?;
        reader.object(|reader, _| {
            reader.object(|reader, _| {
                reader.skip()?;
                Ok::<_, SpliceError>(Fate::Keep)
            })?;
            Ok::<_, SpliceError>(Fate::Keep)
        })?;
        reader.finish()
    };
    assert_eq!(read(&body(MAX_MEMBERS - 1)), Ok(None));
    assert!(matches!(
        read(&body(MAX_MEMBERS)),
        Err(SpliceError::TooMany { .. })
    ));
}

#[test]
fn removing_leaves_json_and_every_other_byte() {
    for (body, remove, edited) in [
        (r#"{"a":1}"#, &["a"][..], "{}"),
        (r#"{ "a" : 1 }"#, &["a"], "{  }"),
        (r#"{"a":1,"b":2}"#, &["a"], r#"{"b":2}"#),
        (r#"{"a":1,"b":2}"#, &["b"], r#"{"a":1}"#),
        (r#"{"a":1 , "b":2}"#, &["b"], r#"{"a":1}"#),
        (r#"{ "a":1 , "b":2 }"#, &["a"], r#"{ "b":2 }"#),
        (r#"{"a":1,"b":2,"c":3}"#, &["b"], r#"{"a":1,"c":3}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &["a", "b"], r#"{"c":3}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &["a", "c"], r#"{"b":2}"#),
        (r#"{"a":1,"b":2,"c":3}"#, &["b", "c"], r#"{"a":1}"#),
        ("{\n\t\"a\":1 ,\r\n \"b\":2\n}", &["a", "b"], "{\n\t\n}"),
        (r#"{"\u0061":[{}],"b":1e999}"#, &["a"], r#"{"b":1e999}"#),
        (
            r#"{"A":1,"a ":2,"á":3,"a":4}"#,
            &["a"],
            r#"{"A":1,"a ":2,"á":3}"#,
        ),
    ] {
        assert_eq!(
            edit(body, remove, "").unwrap().as_deref(),
            Some(edited),
            "{body} - {remove:?}"
        );
    }
    assert_eq!(edit(r#"{"a":1}"#, &["b"], "").unwrap(), None);
}

#[test]
fn members_are_appended_last() {
    for (body, remove, edited) in [
        ("{}", &[][..], r#"{"z":0}"#),
        (" { } ", &[], r#" {"z":0 } "#),
        (r#"{"a":1 }"#, &[], r#"{"a":1,"z":0 }"#),
        (r#"{"a":1}"#, &["a"], r#"{"z":0}"#),
        (r#"{"a":1,"b":2}"#, &["a", "b"], r#"{"z":0}"#),
        (r#"{"a":1,"b":2}"#, &["b"], r#"{"a":1,"z":0}"#),
    ] {
        assert_eq!(
            edit(body, remove, r#""z":0"#).unwrap().as_deref(),
            Some(edited),
            "{body} - {remove:?}"
        );
    }
}

#[test]
fn duplicate_names_are_refused_where_an_object_is_walked_and_only_there() {
    let twice = |body: &str| edit(body, &[], "");
    for body in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":1}"#,
        r#"{"\u0061":1,"b":0,"a":1}"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"":1,"":1}"#,
    ] {
        assert!(
            matches!(twice(body), Err(SpliceError::Duplicate { .. })),
            "{body}"
        );
    }
    assert_eq!(
        twice(r#"{"x":0,"variables":1,"\u0076ariables":2}"#)
            .unwrap_err()
            .to_string(),
        "`variables` occurs twice at byte 21: send each member once"
    );
    assert_eq!(twice(r#"{"x":{"a":1,"a":2},"A":1,"a":1}"#), Ok(None));
    // Many names, where they are hashed.
    for count in [FEW, FEW + 1, 1000] {
        let names: Vec<String> = (0..count).map(|name| format!("\"n{name}\":0")).collect();
        assert_eq!(
            twice(&format!("{{{}}}", names.join(","))),
            Ok(None),
            "{count}"
        );
        for (name, again) in [(0, count / 2), (count - 1, 0), (1, count - 1)] {
            let mut names = names.clone();
            names.insert(again, format!("\"\\u006e{name}\":1"));
            assert!(
                matches!(
                    twice(&format!("{{{}}}", names.join(","))),
                    Err(SpliceError::Duplicate { .. })
                ),
                "{name} again at {again} of {count}"
            );
        }
    }
}

#[test]
fn members_of_records_count_as_those_of_objects() {
    let read = |records: usize| {
        let body = format!("[{}{{}}]", r#"{"a":1,"é":2},"#.repeat(records));
        let mut reader = Reader::new(body.as_bytes())?;
        reader.array(|reader| reader.record(["a"], |reader, _| reader.skip().map(drop)))?;
        reader.finish()
    };
    assert_eq!(read(MAX_MEMBERS / 2), Ok(None));
    assert!(matches!(
        read(MAX_MEMBERS / 2 + 1),
        Err(SpliceError::TooMany { .. })
    ));
}

#[test]
fn a_string_is_skipped_only_where_it_is_the_text_as_it_is_spelled() {
    for (value, skipped) in [
        (r#" "String""#, true),
        (r#""St\u0072ing""#, false),
        (r#""Strin""#, false),
        (r#""Strings""#, false),
        (r#""string""#, false),
        (r#""String"#, false),
        ("String", false),
        ("", false),
    ] {
        let mut reader = Reader::new(value.as_bytes()).unwrap();
        assert_eq!(reader.skip_str("String"), skipped, "{value}");
        assert_eq!(
            reader.finish().is_ok(),
            skipped || value.is_empty(),
            "{value}"
        );
    }
}

#[test]
fn names_ending_so_are_refused_at_any_depth() {
    for (body, refused) in [
        (r#"{"assigneeExpression":""}"#, true),
        (r#"{"q":[{"or":[{"x\u0045xpression":1}]}]}"#, true),
        (r#"{"Expression":null}"#, true),
        (r#"{"x":"assigneeExpression"}"#, false),
        (r#"{"assigneeexpression":1,"ExpressionX":2}"#, false),
    ] {
        let mut reader = Reader::new(body.as_bytes()).unwrap();
        reader.refuse_names_ending("Expression");
        assert_eq!(
            matches!(reader.skip(), Err(SpliceError::NameRefused { .. })),
            refused,
            "{body}"
        );
    }
}

#[test]
fn a_visitor_that_reads_a_value_twice_or_never_gets_an_error() {
    for times in [0, 2] {
        let mut reader = Reader::new(br#"{"a":1,"b":2}"#).unwrap();
        let read = reader.object(|reader, _| {
            for _ in 0..times {
                reader.skip()?;
            }
            Ok::<_, SpliceError>(Fate::Keep)
        });
        assert!(matches!(read, Err(SpliceError::Syntax { .. })), "{times}");
    }
}

#[test]
fn edits_inside_what_is_removed_refuse_the_whole() {
    let mut reader = Reader::new(br#"{"z":0,"a":{"b":1}}"#).unwrap();
    reader
        .object(|reader, name| {
            if name == "z" {
                reader.skip()?;
                return Ok(Fate::Keep);
            }
            let inside = reader.object(|reader, _| {
                reader.skip()?;
                Ok::<_, SpliceError>(Fate::Keep)
            })?;
            reader.append(inside, "\"c\":2");
            Ok::<_, SpliceError>(Fate::Remove)
        })
        .unwrap();
    assert!(reader.finish().is_err());
}

/// A JSON value as it may be written: names may repeat, numbers are text.
#[derive(Debug, Clone)]
enum Json {
    Bare(&'static str),
    Text(String),
    List(Vec<Json>),
    Members(Vec<(String, Json)>),
}

impl Json {
    /// Writes it with blanks and escapes as `seed` has it.
    fn write(&self, seed: &mut u64, out: &mut String) {
        blanks(seed, out);
        match self {
            Self::Bare(text) => out.push_str(text),
            Self::Text(text) => quoted(text, seed, out),
            Self::List(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    element.write(seed, out);
                }
                blanks(seed, out);
                out.push(']');
            }
            Self::Members(members) => {
                out.push('{');
                blanks(seed, out);
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                        blanks(seed, out);
                    }
                    quoted(name, seed, out);
                    blanks(seed, out);
                    out.push(':');
                    value.write(seed, out);
                }
                out.push('}');
            }
        }
        blanks(seed, out);
    }
}

fn random(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % below
}

fn blanks(seed: &mut u64, out: &mut String) {
    while random(seed, 4) == 0 {
        out.push([' ', '\t', '\n', '\r'][usize::try_from(random(seed, 4)).unwrap()]);
    }
}

fn quoted(text: &str, seed: &mut u64, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if random(seed, 3) == 0 || character < ' ' || matches!(character, '"' | '\\') {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").unwrap();
            }
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        prop::sample::select(
            &[
                "null",
                "true",
                "false",
                "0",
                "-0",
                "1e999",
                "-1.5E-400",
                "12345678901234567890123",
                "3.14159265358979323846",
                "0.1"
            ][..]
        )
        .prop_map(Json::Bare),
        "\\PC{0,20}|[a-cä]{30,90}[\"\\\\\u{0}-\u{1f}]?[a-c]{0,9}|[a-c\"\\\\\u{0}-\u{1f}😀]{0,6}"
            .prop_map(Json::Text),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::vec(("[a-d]|[a-c😀\"]{0,3}", inner), 0..8).prop_map(Json::Members),
        ]
    })
}

/// The members of an object by a second parser, their values as the text they are.
fn read(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A>(self, mut map: A) -> Result<Self::Value, A::Error>
        where
            A: serde::de::MapAccess<'de>,
        {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = serde::Deserializer::deserialize_map(&mut deserializer, Members)?;
    deserializer.end()?;
    Ok(members)
}

/// The same, as text.
fn members(text: &str) -> Vec<(String, String)> {
    let members = read(text).unwrap().into_iter();
    members
        .map(|(name, value)| (name, value.get().to_owned()))
        .collect()
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_serde_json_accepts(
        json in json(), seed in 1u64.., flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut text = String::new();
        json.write(&mut { seed }, &mut text);
        let mut body = text.into_bytes();
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        prop_assert_eq!(accepts(&body).is_ok(), oracle(&body), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn structural_noise_is_accepted_as_by_serde_json(body in "[\\[\\]{}:,\"a\\\\u0d8c 1.e+-]{0,14}") {
        prop_assert_eq!(accepts(body.as_bytes()).is_ok(), oracle(body.as_bytes()), "{}", body);
    }

    #[test]
    fn a_record_is_read_as_an_object(
        written in prop::collection::vec(("[a-d]|[a-c😀\"]{0,3}", json()), 0..8),
        refused in any::<bool>(),
        seed in 1u64..,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut text = String::new();
        Json::Members(written).write(&mut { seed }, &mut text);
        let mut body = text.into_bytes();
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let read = |as_record: bool| {
            let mut reader = Reader::new(&body)?;
            if refused {
                reader.refuse_names_ending("b");
            }
            let mut names = Vec::new();
            let mut member = |reader: &mut Reader<'_>, name: &str| {
                names.push((name.to_owned(), reader.skip()?));
                Ok::<_, SpliceError>(())
            };
            if as_record {
                reader.record(["a", "ab", "b", "c"], member)?;
            } else {
                reader.object(|reader, name| member(reader, name).map(|()| Fate::Keep))?;
            }
            assert_eq!(reader.finish()?, None);
            Ok(names)
        };
        let (record, object) = (read(true), read(false));
        if let Err(SpliceError::Duplicate { .. }) = record {
            // Found before what else may be wrong.
            prop_assert!(object.is_err());
        } else {
            prop_assert_eq!(record, object);
        }
    }

    #[test]
    fn a_typed_string_is_skipped_as_a_record_is(
        front in prop::sample::select(&[r#"{"value":"#, r#"{"type":"String","value":"#, "{\"value\" :", r#"{"type":"string","value":"#, "{"]),
        value in prop_oneof![
            "[a-zé\"\\\\]{0,9}".prop_map(|text| Value::from(text).to_string()),
            r#"("|\\\\|\\u00e9|\\ud83d|\\ude00|[a-z]|1|\n){0,6}"#.prop_map(|text| format!("\"{text}\"")),
            Just("1".to_owned()),
            Just("null".to_owned()),
        ],
        back in prop::sample::select(&["}", r#","type":"String"}"#, r#","type":"Object"}"#, r#","value":"x"}"#, r#" ,"type":"String"}"#, ",}", r#","type":"String","b":1}"#, ""]),
        refused in prop::sample::select(&[None, Some("value"), Some("e"), Some("ype"), Some("x")]),
        before in prop::sample::select(&[0, MAX_MEMBERS - 3, MAX_MEMBERS - 2, MAX_MEMBERS - 1, MAX_MEMBERS]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
    ) {
        let mut body = [front, &value, back].concat().into_bytes();
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let read = |skips: bool| {
            let mut reader = Reader::new(&body)?;
            if let Some(ending) = refused {
                reader.refuse_names_ending(ending);
            }
            reader.members = before;
            if !(skips && reader.skip_typed_string()) {
                let known = ["type", "value", "valueInfo"];
                reader.record(known, |reader, _| reader.skip().map(drop))?;
            }
            let members = reader.members;
            Ok::<_, SpliceError>((members, reader.position(), reader.finish()?))
        };
        prop_assert_eq!(read(true), read(false), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn usual_typed_strings_are_skipped(value in "[ -~é\n]{0,90}") {
        let value = Value::from(value);
        for body in [
            format!(r#"{{"value":{value}}}"#),
            format!(r#" {{"value":{value},"type":"String"}}"#),
            format!(r#"{{"type":"String","value":{value}}}"#),
        ] {
            let mut reader = Reader::new(body.as_bytes()).unwrap();
            prop_assert!(reader.skip_typed_string(), "{}", body);
            prop_assert_eq!(reader.finish(), Ok(None));
        }
    }

    #[test]
    fn an_edit_means_what_it_says_and_keeps_every_other_byte(
        written in prop::collection::vec(("[a-f]|[a-c😀\"]{0,3}", json()), 0..12),
        removed in prop::collection::vec("[a-f]", 0..4),
        append in any::<bool>(),
        seed in 1u64..,
    ) {
        let mut text = String::new();
        Json::Members(written.clone()).write(&mut { seed }, &mut text);
        let removed: Vec<&str> = removed.iter().map(String::as_str).collect();
        let append = if append { r#""zz":1e-999"# } else { "" };
        let names: HashSet<_> = written.iter().map(|(name, _)| name).collect();
        let edited = edit(&text, &removed, append);
        if names.len() < written.len() {
            prop_assert!(matches!(edited, Err(SpliceError::Duplicate { .. })), "{}", text);
            return Ok(());
        }
        let edited = edited.unwrap();
        let changes = !append.is_empty() || removed.iter().any(|name| names.contains(&(*name).to_owned()));
        prop_assert_eq!(edited.is_some(), changes);
        let edited = edited.unwrap_or_else(|| text.clone());

        let mut expected = members(&text);
        expected.retain(|(name, _)| !removed.contains(&name.as_str()));
        if !append.is_empty() {
            expected.push(("zz".to_owned(), "1e-999".to_owned()));
        }
        prop_assert_eq!(members(&edited), expected, "{} -> {}", text, edited);

        // Without what was appended, the bytes are those of the text with some left out.
        let kept = match append {
            "" => edited.clone(),
            _ => edited.replacen(&format!(",{append}"), "", 1).replacen(append, "", 1),
        };
        let mut rest = text.bytes();
        prop_assert!(kept.bytes().all(|byte| rest.any(|other| other == byte)), "{} -> {}", text, edited);
    }
}
