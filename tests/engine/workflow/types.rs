//! Which type and value a variable has on the engine: plain JSON and typed, at a start and at a completion.
//!
//! Operaton's data format for JSON is not to be had from Maven Central: there an array or an object is refused in
//! words that can be read. Camunda 7 has it.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::World;
use crate::support::http::Answer;
use crate::support::issuer::ADA;
use crate::support::{Engine, model};

const KEY: &str = "workflow-types";

#[tokio::test]
async fn plain_json_has_on_operaton_the_type_that_it_is() {
    let mut rows = primitives();
    rows.extend(documents().into_iter().map(|Row { json, .. }| {
        let why = ": Unsupported value type 'Json'".to_owned();
        let is = Is::Refused("engine_refused", why);
        Row { json, is }
    }));
    check(Engine::shared().await, rows).await;
}

#[tokio::test]
async fn plain_json_has_on_camunda_the_type_that_it_is() {
    let mut rows = primitives();
    rows.extend(documents());
    check(Engine::camunda().await, rows).await;
}

#[tokio::test]
#[rustfmt::skip]
async fn typed_variables_pass_to_operaton_as_they_are() {
    let mut rows = typed();
    let unsupported = |json: &str| refused(json, "engine_refused", "Unsupported value type");
    let unknown = |json: &str| refused(json, "engine_refused", "Cannot find serializer for value");
    rows.extend([
        unsupported(JSON),
        unsupported(XML),
        unknown(OBJECT),
        refused(r#"{"value":"!!","type":"File","valueInfo":{"filename":"a"}}"#, "engine_refused", "Illegal base64 character"),
        refused(r#"{"value":"eA==x","type":"File","valueInfo":{"filename":"a"}}"#, "engine_refused", "Input byte array"),
    ]);
    check(Engine::shared().await, rows).await;
}

#[tokio::test]
async fn typed_variables_pass_to_camunda_as_they_are() {
    let mut rows = typed();
    rows.extend([
        held(JSON, "Json", r#""{\"a\": [1, 2.50]}""#),
        held(r#"{"value":null,"type":"Json"}"#, "Json", "null"),
        // The engine looks at it when it is deserialized.
        held(r#"{"value":"[1,","type":"Json"}"#, "Json", r#""[1,""#),
        held(XML, "Xml", r#""<a b=\"c\"/>""#),
        held(OBJECT, "Object", r#""{\"a\":[1,2]}""#),
        refused(
            r#"{"value":{"a":1},"type":"Json"}"#,
            "engine_refused",
            "Must provide 'null' or String value",
        ),
    ]);
    check(Engine::camunda().await, rows).await;
}

const JSON: &str = r#"{"value":"{\"a\": [1, 2.50]}","type":"Json"}"#;
const XML: &str = r#"{"value":"<a b=\"c\"/>","type":"Xml"}"#;
const OBJECT: &str = r#"{"value":"{\"a\":[1,2]}","type":"Object","valueInfo":
    {"objectTypeName":"java.util.LinkedHashMap","serializationDataFormat":"application/json"}}"#;

/// A variable in a request, and what becomes of it.
struct Row {
    json: String,
    is: Is,
}

enum Is {
    /// The engine holds this type, and the value that this JSON is.
    Held(&'static str, String),
    /// The engine holds no such variable.
    Gone,
    /// The answer is 400 with this code, and says this.
    Refused(&'static str, String),
}

fn held(json: &str, r#type: &'static str, value: &str) -> Row {
    let is = Is::Held(r#type, value.to_owned());
    Row {
        json: json.to_owned(),
        is,
    }
}

fn refused(json: &str, code: &'static str, why: &str) -> Row {
    let is = Is::Refused(code, why.to_owned());
    Row {
        json: json.to_owned(),
        is,
    }
}

/// Every row of the type table that needs no data format.
#[rustfmt::skip]
fn primitives() -> Vec<Row> {
    let same = |json: &str, r#type| held(json, r#type, json);
    let text = |text: &str| same(&json!(text).to_string(), "String");
    let too_large = |json| {
        refused(json, "body_invalid", "The variable `v` is an integer of more than 64 bits")
    };
    let too_far = |json| {
        refused(json, "body_invalid", "The variable `v` is a number beyond those of a double")
    };
    let too_long = |text: &str| {
        refused(&json!(text).to_string(), "engine_refused", "of a string it is 4000 characters")
    };
    vec![
        same("true", "Boolean"),
        same("false", "Boolean"),
        same("0", "Integer"),
        held("-0", "Integer", "0"),
        same("-1", "Integer"),
        same("2147483647", "Integer"),
        same("-2147483648", "Integer"),
        same("2147483648", "Long"),
        same("-2147483649", "Long"),
        same("5000000000", "Long"),
        same("9007199254740993", "Long"),
        same("9223372036854775807", "Long"),
        same("-9223372036854775808", "Long"),
        too_large("9223372036854775808"),
        too_large("-9223372036854775809"),
        too_large("123456789012345678901234567890"),
        same("1.0", "Double"),
        same("0.1", "Double"),
        same("-12.75", "Double"),
        held("100.50", "Double", "100.5"),
        held("1e3", "Double", "1000.0"),
        held("-2.5E-3", "Double", "-0.0025"),
        held("12345678901234567890.0", "Double", "1.2345678901234567E19"),
        held("3.141592653589793238462643383279", "Double", "3.141592653589793"),
        held("0.1234567890123456789", "Double", "0.12345678901234568"),
        held("1.7976931348623157e308", "Double", "1.7976931348623157E308"),
        held("2.2250738585072014e-308", "Double", "2.2250738585072014E-308"),
        held("1e-400", "Double", "0.0"),
        // H2 keeps no sign of a zero.
        held("-0.0", "Double", "0.0"),
        too_far("1e400"),
        too_far("-1e309"),
        text(""),
        text(" \t\n\r\u{8}\u{c}"),
        text("a\"b\\c/d"),
        text("true"),
        text("42"),
        text("null"),
        text("{\"a\":1}"),
        text("2026-11-28"),
        text("2026-11-28T10:20:30.000+0000"),
        text("Grüße, 世界, שלום, नमस्ते"),
        text("e\u{301}\u{200d}\u{202e}\u{feff}"),
        text("👩‍🚀 🧮 🇺🇳 \u{10ffff}"),
        held(r#""\u0041\ud83e\uddee\/""#, "String", r#""A🧮/""#),
        text(&"x".repeat(4000)),
        text(&"é".repeat(4000)),
        // Of two units each.
        text(&"🧮".repeat(2000)),
        too_long(&"x".repeat(4001)),
        too_long(&"🧮".repeat(4001)),
        same("null", "Null"),
    ]
}

/// The rows for the type Json: its text is kept, to the last digit and blank.
fn documents() -> Vec<Row> {
    [
        "[]",
        "{}",
        "[ ]",
        "[null]",
        r#"["a","",true,false,null,1,-1.50,1e3]"#,
        r#"{"a":{"b":{"c":[{"d":[]},{}]}}}"#,
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        r#"{ "spaced" : [ 1 , 2 ],
    "out" : null }"#,
        r#"{"large":123456789012345678901234567890,"small":0.1234567890123456789012345678901,"far":1e400,"-":-0.0}"#,
        r#"{"value":1,"unit":"kg"}"#,
        r#"{"type":"String"}"#,
        r#"{"value":"x","type":"String","valueInfo":{},"local":true,"more":1}"#,
        r#"{"Grüße":"世界","🧮":"👩‍🚀","\u0041\ud83e\uddee":"\u0042\n\"\\"}"#,
        r#"{"":"","initiator":"eve"}"#,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        // Of any length: it is no column of characters.
        format!(r#"["{}"]"#, "x".repeat(100_000)),
        format!("[{}0]", "1234.5678,".repeat(1000)),
    ])
    .map(|json| {
        let is = Is::Held("Json", json!(json).to_string());
        Row { json, is }
    })
    .collect()
}

/// Typed variables that both engines know, or both refuse.
#[rustfmt::skip]
fn typed() -> Vec<Row> {
    let wrong = |json| refused(json, "engine_refused", "Cannot convert value ");
    let unsound = |json| refused(json, "body_invalid", "The variable `v` is not typed well");
    let no_file = |json, why| refused(json, "engine_refused", why);
    vec![
        held(r#"{"value":7,"type":"Integer"}"#, "Integer", "7"),
        held(r#"{"value":"7","type":"Integer"}"#, "Integer", "7"),
        held(r#"{"value":null,"type":"Integer"}"#, "Integer", "null"),
        held(r#"{"value":7,"type":"Long"}"#, "Long", "7"),
        held(r#"{"value":7,"type":"Short"}"#, "Short", "7"),
        held(r#"{"value":7,"type":"Double"}"#, "Double", "7.0"),
        held(r#"{"value":7,"type":"String"}"#, "String", r#""7""#),
        held(r#"{"value":true,"type":"Boolean"}"#, "Boolean", "true"),
        held(r#"{"value":"x","type":"string"}"#, "String", r#""x""#),
        held(r#"{"value":null,"type":"Null"}"#, "Null", "null"),
        held(r#"{"type":"Date","value":"2026-01-02T03:04:05.678+0000"}"#, "Date", r#""2026-01-02T03:04:05.678+0000""#),
        held(r#"{"value":"2026-01-02T03:04:05.678+0200","type":"Date"}"#, "Date", r#""2026-01-02T01:04:05.678+0000""#),
        // Without a type the engine tells one itself.
        held(r#"{"value":7}"#, "Integer", "7"),
        held(r#"{"value":5000000000}"#, "Long", "5000000000"),
        held(r#"{"value":"x"}"#, "String", r#""x""#),
        held(r#"{"value":"x","type":null,"valueInfo":null}"#, "String", r#""x""#),
        held(r#"{"value":"x","type":"String","valueInfo":{"transient":false},"local":false}"#, "String", r#""x""#),
        Row {
            json: r#"{"value":"x","type":"String","valueInfo":{"transient":true}}"#.to_owned(),
            is: Is::Gone,
        },
        // Their content is elsewhere, see below.
        held(r#"{"value":"aGVsbG8=","type":"Bytes"}"#, "Bytes", "null"),
        held(r#"{"value":"aGVsbG8=","type":"File","valueInfo":{"filename":"a.txt","mimeType":"text/plain","encoding":"UTF-8"}}"#, "File", "null"),
        wrong(r#"{"value":"x","type":"Integer"}"#),
        wrong(r#"{"value":1.5,"type":"Integer"}"#),
        wrong(r#"{"value":2147483648,"type":"Integer"}"#),
        wrong(r#"{"value":9223372036854775808,"type":"Long"}"#),
        wrong(r#"{"value":70000,"type":"Short"}"#),
        wrong(r#"{"value":"x","type":"Boolean"}"#),
        wrong(r#"{"value":"2026-01-02","type":"Date"}"#),
        wrong(r#"{"value":"tomorrow","type":"Date"}"#),
        wrong(r#"{"value":"x","type":"Bytes"}"#),
        wrong(r#"{"value":1,"type":"Null"}"#),
        refused(r#"{"value":"x","type":"Nope"}"#, "engine_refused", "Unsupported value type 'Nope'"),
        refused(r#"{"value":1,"type":"Number"}"#, "engine_refused", "Cannot serialize value of abstract type number"),
        unsound(r#"{"value":"x","type":""}"#),
        unsound(r#"{"value":"x","type":7}"#),
        unsound(r#"{"value":"x","valueInfo":"y"}"#),
        unsound(r#"{"value":"{}","type":"Object","valueInfo":{"objectTypeName":7,"serializationDataFormat":"application/json"}}"#),
        no_file(r#"{"value":"eA==","type":"File"}"#, "Cannot create file without valueInfo."),
        no_file(r#"{"value":"eA==","type":"File","valueInfo":{}}"#, "Cannot create file without filename!"),
        no_file(r#"{"value":7,"type":"File","valueInfo":{"filename":"a"}}"#, "Provided value is not of File"),
    ]
}

/// Starts with each row and completes with each row; what the engine then holds is what it says, and what was
/// refused did nothing.
async fn check(engine: &Engine, rows: Vec<Row>) {
    let world = World::new(engine).await;
    let key = format!("{KEY}-{}", rows.len());
    engine.deploy(&model::waiting([&key]), None).await;
    let start = format!("/api/processes/{key}/start");
    let mut wrong = String::new();
    for Row { json, is } in &rows {
        let body = format!(r#"{{"variables":{{"v":{json}}}}}"#);
        let short: String = json.chars().take(100).collect();
        let mut note = |what: &str, found: String| {
            if !is.agrees(&found) {
                let found: String = found.chars().take(400).collect();
                writeln!(wrong, "{what} {short}: {found}").unwrap();
            }
        };

        let before = engine.instances(&key).await.len();
        let answer = world.post(&start, &body).await;
        let found = if answer.status == 201 {
            held_by(engine, &super::id(&answer.json())).await
        } else {
            let after = engine.instances(&key).await.len();
            refusal(&answer, after == before)
        };
        note("start", found);

        let (instance, task) = world.started(&key).await;
        let path = format!("/api/tasks/{task}/complete");
        let answer = world.post(&path, &body).await;
        let found = if answer.status == 204 {
            held_by(engine, &instance).await
        } else {
            let left = engine.get(&format!("/task/{task}")).await;
            refusal(&answer, left.status == 200)
        };
        note("complete", found);
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

impl Is {
    fn agrees(&self, found: &str) -> bool {
        match self {
            Self::Held(r#type, value) => found == shown(r#type, value),
            Self::Gone => found == GONE,
            Self::Refused(code, why) => {
                found.starts_with(&format!("400 {code}, nothing was done: ")) && found.contains(why)
            }
        }
    }
}

/// The variable `v` of an instance, which may have ended; a number to its last digit, as the engine wrote it.
async fn held_by(engine: &Engine, instance: &str) -> String {
    #[derive(Deserialize)]
    struct Variable {
        r#type: String,
        value: Box<RawValue>,
    }
    let path = format!(
        "/history/variable-instance?processInstanceId={instance}&variableName=v&deserializeValues=false"
    );
    let answer = engine.get(&path).await.expect(200);
    let held: Vec<Variable> = serde_json::from_slice(&answer.body).unwrap();
    match held.as_slice() {
        [] => GONE.to_owned(),
        [Variable { r#type, value }] => shown(r#type, value.get()),
        [_, _, ..] => format!("{} variables", held.len()),
    }
}

fn shown(r#type: &str, value: &str) -> String {
    // The engine may escape what the request did not, and the other way round.
    let text = serde_json::from_str::<String>(value);
    let value = text.map_or_else(|_| value.to_owned(), |text| json!(text).to_string());
    format!("{type} {value}")
}

fn refusal(answer: &Answer, is_as_before: bool) -> String {
    let (problem, done) = (
        answer.json(),
        if is_as_before { "nothing" } else { "something" },
    );
    let (code, detail) = (problem["code"].as_str().unwrap(), &problem["detail"]);
    format!(
        "{} {code}, {done} was done: {}",
        answer.status.as_u16(),
        detail.as_str().unwrap()
    )
}

const GONE: &str = "no variable";

/// What a form sends, all at once; and what is read back through the gateway is what was sent.
#[tokio::test]
async fn plain_and_typed_variables_stand_in_one_body() {
    const KEY: &str = "workflow-types-mixed";
    let world = World::new(Engine::camunda().await).await;
    world.engine.deploy(&model::waiting([KEY]), None).await;
    let variables = |value: &str| {
        format!(
            r#"{{"variables":{{"name":"{value}","amount":{{"value":"12","type":"Long"}},"rate":0.175,"of":["{value}",1.50],
            "due":{{"value":"2026-11-28T10:20:30.000+0000","type":"Date"}},"none":null,"urgent":false,
            "scan":{{"value":"aGVsbG8=","type":"File","valueInfo":{{"filename":"scan.txt","mimeType":"text/plain"}}}},
            "raw":{{"value":"aGVsbG8=","type":"Bytes"}},"secret":{{"value":"x","valueInfo":{{"transient":true}}}},
            "Grüße 🧮":"{value}","":"{value}","initiator":"eve"}},"withVariablesInReturn":true}}"#
        )
    };
    let want = |value: &str| {
        [
            ("name", "String", json!(value)),
            ("amount", "Long", json!(12)),
            ("rate", "Double", json!(0.175)),
            ("of", "Json", json!(format!(r#"["{value}",1.50]"#))),
            ("due", "Date", json!("2026-11-28T10:20:30.000+0000")),
            ("none", "Null", Value::Null),
            ("urgent", "Boolean", json!(false)),
            ("scan", "File", Value::Null),
            ("raw", "Bytes", json!("aGVsbG8=")),
            ("Grüße 🧮", "String", json!(value)),
            ("", "String", json!(value)),
            ("initiator", "String", json!(ADA.id)),
            ("initiatorName", "String", json!(ADA.name)),
            ("initiatorEmail", "String", json!(ADA.email)),
        ]
    };
    let compare = |shown: &Value, want: &[(&str, &str, Value)]| {
        for (name, r#type, value) in want {
            assert_eq!(shown[name]["type"], *r#type, "{name}: {shown}");
            assert_eq!(shown[name]["value"], *value, "{name}: {shown}");
        }
        assert_eq!(shown.as_object().unwrap().len(), want.len(), "{shown}");
    };

    let instance = world.start(KEY, &variables("first")).await;
    let path = format!("/process-instance/{instance}/variables");
    let told = world.told(&format!("{path}?deserializeValues=false")).await;
    compare(&told, &want("first"));
    let path = format!("/api/instances/{instance}/variables");
    assert_eq!(world.get(&path).await.expect(200).json(), told);
    for name in ["scan", "raw"] {
        let path = format!("/process-instance/{instance}/variables/{name}/data");
        let content = world.engine.get(&path).await.expect(200);
        assert_eq!(content.body, "hello");
        let through = world.gateway.get(&format!("/api{path}"), &world.ada).await;
        assert_eq!(through.expect(200).body, "hello");
    }

    let task = world.task(&instance).await;
    let path = format!("/api/tasks/{task}/complete");
    let answer = world.post(&path, &variables("second")).await.expect(200);
    let mut shown = answer.json();
    // Of those that are not stored the engine knows as long as it answers.
    shown.as_object_mut().unwrap().remove("secret");
    compare(&shown, &want("second"));
}
