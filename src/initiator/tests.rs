use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::access::{Members, ObjectTypes};
use crate::identity::Parts;
use crate::operation::{Catalogue, Guarded, Matched};

const START: (&str, &str) = ("POST", "/process-definition/key/order/start");
const SUBMIT: (&str, &str) = ("POST", "/process-definition/order:1:a/submit-form");
const COMPLETE: (&str, &str) = ("POST", "/task/1/complete");
const MODIFY: (&str, &str) = ("POST", "/process-instance/1/variables");
const MESSAGE: (&str, &str) = ("POST", "/message");
const SIGNAL: (&str, &str) = ("POST", "/signal");
const CONDITION: (&str, &str) = ("POST", "/condition");

/// What is written for [`alice`], as JSON members.
const OURS: &str = concat!(
    r#""initiator":{"value":"alice","type":"String"},"#,
    r#""initiatorEmail":{"value":"a@example.org","type":"String"},"#,
    r#""initiatorName":{"value":"Alice \"A\" Ä","type":"String"}"#,
);

fn identity(email: Option<&str>) -> Identity {
    Identity::new(Parts {
        issuer: "https://id.example".into(),
        id: "alice".into(),
        email: email.map(Into::into),
        name: Some("Alice \"A\" Ä".into()),
        first_name: None,
        last_name: None,
        roles: vec![],
        tenant: None,
        expires: SystemTime::now() + std::time::Duration::from_hours(1),
        claims: Arc::default(),
    })
}

fn alice() -> Identity {
    identity(Some("a@example.org"))
}

fn profile(guarded_allowed: bool, own_user_only: bool) -> Access {
    Access {
        profile: "p".into(),
        rule: None,
        object_types: ObjectTypes::default(),
        members: Members {
            skips: guarded_allowed,
            expressions: guarded_allowed,
            others: !own_user_only,
            people: false,
        },
    }
}

fn admin() -> Access {
    profile(true, false)
}

fn matched((method, path): (&str, &str)) -> Match {
    match Catalogue::builtin().find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Matched::Operation(matched) => matched,
        Matched::OtherMethods(_) | Matched::Unknown => panic!("no row: {method} {path}"),
    }
}

fn run_as(
    settings: &Settings,
    identity: &Identity,
    access: &Access,
    request: (&str, &str),
    body: &[u8],
) -> Result<Option<String>, Problem> {
    match plan(settings, &matched(request)) {
        Plan::Pass => Ok(None),
        Plan::Refuse(problem) => Err(problem),
        Plan::Rewrite(rules) => Ok(rules
            .apply(settings, identity, access, &[], None, body)?
            .map(|body| String::from_utf8(body).unwrap())),
    }
}

fn run(request: (&str, &str), body: &str) -> Result<Option<String>, Problem> {
    run_as(
        &Settings::default(),
        &alice(),
        &admin(),
        request,
        body.as_bytes(),
    )
}

/// The body that is sent.
fn sent(request: (&str, &str), body: &str) -> String {
    run(request, body)
        .unwrap()
        .unwrap_or_else(|| body.to_owned())
}

fn code(result: Result<Option<String>, Problem>) -> &'static str {
    result.map_or_else(|problem| problem.code(), |_| "passed")
}

/// As the engine reads it: of duplicates the last wins.
fn last_wins(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_start_gets_the_callers_initiator_whatever_it_claims() {
    for (body, expected) in [
        ("", r#"{"variables":{OURS}}"#),
        ("{}", r#"{"variables":{OURS}}"#),
        (r#"{"variables":null}"#, r#"{"variables":{OURS}}"#),
        (r#"{"variables":{}}"#, r#"{"variables":{OURS}}"#),
        (
            r#"{"businessKey":"b"}"#,
            r#"{"businessKey":"b","variables":{OURS}}"#,
        ),
        (
            r#"{ "variables" : { } , "x":1e999 }"#,
            r#"{ "variables" : {OURS } , "x":1e999 }"#,
        ),
        (
            r#"{"variables":{"a":{"value":12345678901234567890.10}}}"#,
            r#"{"variables":{"a":{"value":12345678901234567890.10},OURS}}"#,
        ),
        // Any value, of any type or none, under any of the names, however it is written.
        (
            r#"{"variables":{"initiator":null}}"#,
            r#"{"variables":{OURS}}"#,
        ),
        (
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{OURS}}"#,
        ),
        (
            r#"{"variables":{"initiator":[{"a":1,"a":2}],"b":{}}}"#,
            r#"{"variables":{"b":{},OURS}}"#,
        ),
        (
            r#"{"variables":{"initiator":{"value":"eve","type":"File","valueInfo":{"filename":"f","transient":true}}}}"#,
            r#"{"variables":{OURS}}"#,
        ),
        (
            r#"{"variables":{"\u0069nitiator":{"value":"eve"}}}"#,
            r#"{"variables":{OURS}}"#,
        ),
        (
            r#"{"\u0076ariables":{"initiator":{"value":"eve"}}}"#,
            r#"{"\u0076ariables":{OURS}}"#,
        ),
        (
            r#"{"variables":{"initiatorEmail":{"value":"e"},"a":{"value":1},"initiatorName":{"value":"e"}}}"#,
            r#"{"variables":{"a":{"value":1},OURS}}"#,
        ),
        // Look-alikes are other variables, and another map than this operation reads is none of ours.
        (
            r#"{"variables":{"Initiator":{"value":1},"initiator ":{"value":2}},"processVariables":{"initiator":{"value":3}}}"#,
            r#"{"variables":{"Initiator":{"value":1},"initiator ":{"value":2},OURS},"processVariables":{"initiator":{"value":3}}}"#,
        ),
        // The second place, which the engine applies after the first.
        (
            r#"{"startInstructions":[{"type":"startBeforeActivity","variables":{"initiator":{"value":"eve","local":true}}},{"variables":null},{}],"variables":{"x":{}}}"#,
            r#"{"startInstructions":[{"type":"startBeforeActivity","variables":{}},{"variables":null},{}],"variables":{"x":{},OURS}}"#,
        ),
        (
            r#"{"startInstructions":[{"variables":{"a":{},"initiatorName":{}}}]}"#,
            r#"{"startInstructions":[{"variables":{"a":{}}}],"variables":{OURS}}"#,
        ),
        (
            r#"{"startInstructions":null}"#,
            r#"{"startInstructions":null,"variables":{OURS}}"#,
        ),
        (
            r#"{"startInstructions":[]}"#,
            r#"{"startInstructions":[],"variables":{OURS}}"#,
        ),
    ] {
        let expected = expected.replace("OURS", OURS);
        assert_eq!(sent(START, body), expected, "{body}");
    }
}

#[test]
fn every_operation_that_starts_writes_the_callers_initiator() {
    let mut writing = 0;
    for row in Catalogue::builtin().operations() {
        let path = row.path.replace(['{', '}'], "");
        let request = (row.method.as_str(), path.as_str());
        let restarts = row.kind == Kind::Start && row.body_paths.is_empty();
        assert_eq!(
            code(run(request, "{}")) == "cannot_attribute",
            restarts,
            "{}",
            row.id
        );
        if (row.kind == Kind::Start && !restarts) || row.id == "evaluateCondition" {
            writing += 1;
            let body = r#"{"variables":{"initiator":{"value":"eve"}}}"#;
            assert_eq!(
                sent(request, body),
                format!(r#"{{"variables":{{{OURS}}}}}"#),
                "{}",
                row.id
            );
        }
    }
    // Six of process definitions, three of case definitions, and /condition.
    assert_eq!(writing, 10);
}

/// What [`body::Walk`] relies on.
#[test]
fn no_place_of_the_catalogue_lies_inside_another_and_all_bodies_with_places_are_json() {
    for row in Catalogue::builtin().operations() {
        let ways: Vec<String> = row
            .body_paths
            .iter()
            .map(|path| match path {
                BodyPath::Map(steps) | BodyPath::Names(steps) | BodyPath::NamedObjects(steps) => {
                    steps.iter().flat_map(|step| [step.member, "."]).collect()
                }
                BodyPath::Segment => String::new(),
            })
            .collect();
        for (index, way) in ways.iter().enumerate() {
            for (other, longer) in ways.iter().enumerate() {
                assert!(
                    index == other || !longer.starts_with(way.as_str()),
                    "{}",
                    row.id
                );
            }
            let segment = way.is_empty();
            assert!(segment || row.encoding == Encoding::Json, "{}", row.id);
            assert!(!segment || row.path.contains("{varName}"), "{}", row.id);
        }
        assert!(
            row.user_fields.is_empty() || !row.guarded.iter().any(|guarded| matches!(guarded, Guarded::Member(member) if row.user_fields.contains(member))),
            "{}", row.id
        );
    }
}

#[test]
fn a_missing_email_is_written_as_the_settings_say() {
    let body = r#"{"variables":{"initiatorEmail":{"value":"e@vil"}}}"#;
    let id = r#""initiator":{"value":"alice","type":"String"}"#;
    let name = r#""initiatorName":{"value":"Alice \"A\" Ä","type":"String"}"#;
    for (missing, members) in [
        (
            Missing::Empty,
            Some(format!(
                r#"{id},"initiatorEmail":{{"value":"","type":"String"}},{name}"#
            )),
        ),
        (
            Missing::Null,
            Some(format!(r#"{id},"initiatorEmail":{{"value":null}},{name}"#)),
        ),
        (Missing::Omit, Some(format!("{id},{name}"))),
        (Missing::Reject, None),
    ] {
        let settings = Settings {
            missing,
            ..Settings::default()
        };
        let result = run_as(&settings, &identity(None), &admin(), START, body.as_bytes());
        match members {
            Some(members) => assert_eq!(
                result.unwrap().unwrap(),
                format!(r#"{{"variables":{{{members}}}}}"#)
            ),
            None => assert_eq!(result.unwrap_err().code(), "token_invalid"),
        }
        // With an email all four write it, and where nothing is written nothing is asked for.
        assert_eq!(
            run_as(&settings, &alice(), &admin(), START, b"")
                .unwrap()
                .unwrap(),
            format!(r#"{{"variables":{{{OURS}}}}}"#)
        );
        assert_eq!(
            run_as(&settings, &identity(None), &admin(), COMPLETE, b"{}"),
            Ok(None)
        );
    }
}

#[test]
fn names_are_those_of_the_settings_and_written_as_json() {
    let settings = Settings {
        names: Names::new("st\"arter", "mail", "ünamed").unwrap(),
        ..Settings::default()
    };
    let body = r#"{"variables":{"initiator":{"value":1},"st\"arter":{},"\u00fcnamed":{}}}"#;
    let edited = run_as(&settings, &alice(), &admin(), START, body.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(
        last_wins(&edited),
        json!({"variables": {
            "initiator": {"value": 1},
            "st\"arter": {"value": "alice", "type": "String"},
            "mail": {"value": "a@example.org", "type": "String"},
            "ünamed": {"value": "Alice \"A\" Ä", "type": "String"},
        }})
    );
    assert_eq!(Names::new("", "b", "c"), Err(NamesError::Empty));
    for (id, email, name) in [("a", "a", "c"), ("a", "b", "a"), ("c", "a", "a")] {
        assert_eq!(
            Names::new(id, email, name),
            Err(NamesError::Alike("a".into()))
        );
    }
}

#[test]
fn a_start_that_could_be_read_in_two_ways_is_refused_with_what_to_change() {
    for (body, detail) in [
        (
            r#"{"variables":{},"variables":{"initiator":{"value":"eve"}}}"#,
            "`variables` occurs twice at byte 16: send each member once",
        ),
        (
            r#"{"variables":{},"\u0076ariables":{"initiator":{}}}"#,
            "`variables` occurs twice at byte 16: send each member once",
        ),
        (
            r#"{"x":1,"x":2}"#,
            "`x` occurs twice at byte 7: send each member once",
        ),
        (
            r#"{"variables":{"initiator":{},"initiator":{}}}"#,
            "`initiator` occurs twice at byte 29: send each member once",
        ),
        (
            r#"{"variables":{"a":{"value":1,"value":2}}}"#,
            "`value` occurs twice at byte 29: send each member once",
        ),
        (
            r#"{"variables":{"a":{"type":"x","t\u0079pe":"y"}}}"#,
            "`type` occurs twice at byte 30: send each member once",
        ),
        (
            r#"{"startInstructions":[{"variables":{},"variables":{}}]}"#,
            "`variables` occurs twice at byte 38: send each member once",
        ),
        (
            r#"{"startInstructions":[{"x":{},"x":{}}]}"#,
            "`x` occurs twice at byte 30: send each member once",
        ),
        (
            r#"{"variables":[]}"#,
            "`variables` is an array at byte 13: send an object",
        ),
        (
            r#"{"variables":"x"}"#,
            "`variables` is a string at byte 13: send an object",
        ),
        (
            r#"{"variables":false}"#,
            "`variables` is a boolean at byte 13: send an object",
        ),
        (
            r#"{"startInstructions":{}}"#,
            "`startInstructions` is an object at byte 21: send an array",
        ),
        (
            r#"{"startInstructions":""}"#,
            "`startInstructions` is a string at byte 21: send an array",
        ),
        (
            r#"{"startInstructions":[null]}"#,
            "an element of `startInstructions` is null at byte 22: send an object",
        ),
        (
            r#"{"startInstructions":[[{}]]}"#,
            "an element of `startInstructions` is an array at byte 22: send an object",
        ),
        (
            r#"{"startInstructions":[{"variables":[]}]}"#,
            "`startInstructions[].variables` is an array at byte 35: send an object",
        ),
        ("null", "the body is null at byte 0: send an object"),
        ("[]", "the body is an array at byte 0: send an object"),
        (" ", "the body is no JSON: expected a value at byte 1"),
        (
            "{}{}",
            "the body is no JSON: expected the end of the body at byte 2",
        ),
        (
            "{}x",
            "the body is no JSON: expected the end of the body at byte 2",
        ),
        (
            "\u{feff}{}",
            "the body begins with a byte order mark: send it without",
        ),
        (
            r#"{"variables":{"a":{"value":"\udc00"}}}"#,
            "the escape at byte 28 is half of a surrogate pair: send both halves, or the character",
        ),
    ] {
        assert_eq!(
            run(START, body).unwrap_err(),
            Problem::BodyInvalid(format!("The body was refused: {detail}.").into()),
            "{body}"
        );
    }
}

#[test]
fn other_encodings_of_the_same_json_are_refused() {
    let text = r#"{"variables":{"initiator":{"value":"eve"}}}"#;
    let wide =
        |encode: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(encode).collect::<Vec<u8>>();
    let mut overlong = text.as_bytes().to_vec();
    // `i` of the name as C1 A9
    overlong.splice(15..16, [0xC1, 0xA9]);
    for body in [
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        [&[0xFF, 0xFE], &wide(u16::to_le_bytes)[..]].concat(),
        text.chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect(),
        text.chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect(),
        overlong,
        // CESU-8 and a raw surrogate
        b"{\"variables\":{\"\xed\xa0\xbd\xed\xb8\x80\":{}}}".to_vec(),
        b"{\"x\":\"\xed\xa0\x80\"}".to_vec(),
        // beyond U+10FFFF, Latin-1, UTF-7
        b"{\"x\":\"\xf4\x90\x80\x80\"}".to_vec(),
        b"{\"x\":\"\xfc\"}".to_vec(),
        b"{+ACI-variables+ACI-:{}}".to_vec(),
        // what a gzip label would promise
        b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
    ] {
        let result = run_as(&Settings::default(), &alice(), &admin(), START, &body);
        assert_eq!(code(result), "body_invalid", "{body:x?}");
    }
}

#[test]
fn depth_and_size_beside_the_variables_do_not_help() {
    let nested = |levels: usize| {
        format!(
            r#"{{"x":{}{},"variables":{{"initiator":{{"value":"eve"}}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(sent(START, &nested(900)).ends_with(&format!(r#"],"variables":{{{OURS}}}}}"#)));
    assert_eq!(code(run(START, &nested(1000))), "body_invalid");

    let many: Vec<String> = (0..10_000)
        .map(|index| format!(r#""v{index}":{{"value":{index}}}"#))
        .collect();
    let many = many.join(",");
    let body = format!(r#"{{"variables":{{"initiator":{{}},{many},"initiatorName":{{}}}}}}"#);
    assert_eq!(
        sent(START, &body),
        format!(r#"{{"variables":{{{many},{OURS}}}}}"#)
    );
}

#[test]
fn messages_and_signals_lose_protected_names_and_get_ours_only_where_asked() {
    let inject = Settings {
        messages: Messages::Inject,
        ..Settings::default()
    };
    for (request, body, protected, injected) in [
        (
            MESSAGE,
            r#"{"messageName":"m","processVariablesToTriggeredScope":{"initiator":{}},"processVariables":{"a":{},"initiator":{}},"processVariablesLocal":{"initiatorName":{},"b":{}},"correlationKeys":{"initiator":{"value":"x"}}}"#,
            r#"{"messageName":"m","processVariablesToTriggeredScope":{},"processVariables":{"a":{}},"processVariablesLocal":{"b":{}},"correlationKeys":{"initiator":{"value":"x"}}}"#,
            r#"{"messageName":"m","processVariablesToTriggeredScope":{},"processVariables":{"a":{},OURS},"processVariablesLocal":{"b":{}},"correlationKeys":{"initiator":{"value":"x"}}}"#,
        ),
        (
            MESSAGE,
            r#"{"messageName":"m"}"#,
            r#"{"messageName":"m"}"#,
            r#"{"messageName":"m","processVariables":{OURS}}"#,
        ),
        (
            SIGNAL,
            r#"{"name":"s","variables":null}"#,
            r#"{"name":"s","variables":null}"#,
            r#"{"name":"s","variables":{OURS}}"#,
        ),
        (
            SIGNAL,
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{}}"#,
            r#"{"variables":{OURS}}"#,
        ),
        (
            CONDITION,
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{OURS}}"#,
            r#"{"variables":{OURS}}"#,
        ),
    ] {
        for (settings, expected) in [
            (Settings::default(), protected),
            // Later writes have nothing to do with it.
            (
                Settings {
                    protect_later_writes: false,
                    ..Settings::default()
                },
                protected,
            ),
            (inject.clone(), injected),
        ] {
            let result = run_as(&settings, &alice(), &admin(), request, body.as_bytes()).unwrap();
            let sent = result.unwrap_or_else(|| body.to_owned());
            assert_eq!(sent, expected.replace("OURS", OURS), "{request:?} {body}");
        }
    }
}

#[test]
fn later_writes_lose_protected_names_and_the_rest_goes_on() {
    let off = Settings {
        protect_later_writes: false,
        ..Settings::default()
    };
    for (request, body, expected) in [
        (
            COMPLETE,
            r#"{"variables":{"initiator":{"value":"eve"},"ok":{"value":true}},"withVariablesInReturn":true}"#,
            r#"{"variables":{"ok":{"value":true}},"withVariablesInReturn":true}"#,
        ),
        (
            ("POST", "/task/1/resolve"),
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{}}"#,
        ),
        (
            ("POST", "/task/1/bpmnError"),
            r#"{"errorCode":"e","variables":{"initiatorName":{}}}"#,
            r#"{"errorCode":"e","variables":{}}"#,
        ),
        (
            ("POST", "/external-task/1/complete"),
            r#"{"workerId":"w","localVariables":{"initiator":{}},"variables":{"initiator":{},"a":{}}}"#,
            r#"{"workerId":"w","localVariables":{},"variables":{"a":{}}}"#,
        ),
        (
            ("POST", "/migration/executeAsync"),
            r#"{"migrationPlan":{"variables":{"initiator":{}},"instructions":[]}}"#,
            r#"{"migrationPlan":{"variables":{},"instructions":[]}}"#,
        ),
        (
            ("POST", "/process-instance/1/modification"),
            r#"{"instructions":[{"variables":{"a":{},"initiator":{}}},{}]}"#,
            r#"{"instructions":[{"variables":{"a":{}}},{}]}"#,
        ),
        (
            ("POST", "/process-instance/message-async"),
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{}}"#,
        ),
        (
            (
                "POST",
                "/execution/1/messageSubscriptions/initiator/trigger",
            ),
            r#"{"variables":{"initiator":{}}}"#,
            r#"{"variables":{}}"#,
        ),
        (
            ("POST", "/decision-definition/key/d/evaluate"),
            r#"{"variables":{"initiator":{},"a":{}}}"#,
            r#"{"variables":{"a":{}}}"#,
        ),
        (
            ("POST", "/case-execution/1/manual-start"),
            r#"{"variables":{"initiator":{}},"deletions":[{"name":"a"}]}"#,
            r#"{"variables":{},"deletions":[{"name":"a"}]}"#,
        ),
    ] {
        assert_eq!(sent(request, body), expected, "{request:?}");
        assert_eq!(
            run_as(&off, &alice(), &admin(), request, body.as_bytes()),
            Ok(None),
            "{request:?}"
        );
        // The strict reading stays.
        assert_eq!(
            code(run_as(
                &off,
                &alice(),
                &admin(),
                request,
                b"{\"variables\":1,\"variables\":2}"
            )),
            "body_invalid"
        );
    }
    assert_eq!(run(COMPLETE, ""), Ok(None));
    assert_eq!(run(COMPLETE, r#"{"variables":{"a":{}}}"#), Ok(None));
    assert_eq!(
        run(SUBMIT, r#"{"variables":1}"#).unwrap_err().code(),
        "body_invalid"
    );
    assert_eq!(
        code(run(
            ("POST", "/migration/execute"),
            r#"{"migrationPlan":[]}"#
        )),
        "body_invalid"
    );
}

#[test]
fn edits_by_name_of_a_protected_variable_are_refused_in_every_profile() {
    let off = Settings {
        protect_later_writes: false,
        ..Settings::default()
    };
    let async_ = ("POST", "/process-instance/variables-async");
    let case = ("POST", "/case-instance/1/complete");
    for (request, body, expected) in [
        (
            MODIFY,
            r#"{"modifications":{"initiator":{"value":"eve"}}}"#,
            "protected_variable",
        ),
        (
            MODIFY,
            r#"{"modifications":{"a":{},"\u0069nitiatorName":{}}}"#,
            "protected_variable",
        ),
        (
            MODIFY,
            r#"{"deletions":["a","initiator"]}"#,
            "protected_variable",
        ),
        (
            MODIFY,
            r#"{"deletions":["\u0069nitiator"]}"#,
            "protected_variable",
        ),
        (
            MODIFY,
            r#"{"modifications":{"a":{"value":1}},"deletions":["b","Initiator"]}"#,
            "passed",
        ),
        (
            MODIFY,
            r#"{"modifications":null,"deletions":null}"#,
            "passed",
        ),
        (MODIFY, r#"{"deletions":"initiator"}"#, "body_invalid"),
        (MODIFY, r#"{"deletions":[null]}"#, "body_invalid"),
        (MODIFY, r#"{"deletions":[1]}"#, "body_invalid"),
        (MODIFY, r#"{"modifications":[]}"#, "body_invalid"),
        (
            MODIFY,
            r#"{"deletions":[],"deletions":["a"]}"#,
            "body_invalid",
        ),
        (
            ("POST", "/task/1/localVariables"),
            r#"{"modifications":{"initiator":{}}}"#,
            "protected_variable",
        ),
        (
            async_,
            r#"{"processInstanceIds":["1"],"variables":{"initiator":{}}}"#,
            "protected_variable",
        ),
        (
            async_,
            r#"{"processInstanceIds":["1"],"variables":{"a":{}}}"#,
            "passed",
        ),
        (
            case,
            r#"{"deletions":[{"name":"a"},{"name":"initiatorEmail"}]}"#,
            "protected_variable",
        ),
        (case, r#"{"deletions":[{"name":null},{"x":1}]}"#, "passed"),
        (
            case,
            r#"{"deletions":[{"name":"a","name":"initiator"}]}"#,
            "protected_variable",
        ),
        (
            case,
            r#"{"deletions":[{"name":["initiator"]}]}"#,
            "body_invalid",
        ),
        (case, r#"{"deletions":["initiator"]}"#, "body_invalid"),
        // In the path: the body is not read.
        (
            ("PUT", "/task/1/variables/initiator"),
            "\0",
            "protected_variable",
        ),
        (
            ("PUT", "/task/1/variables/%69nitiator"),
            "\0",
            "protected_variable",
        ),
        (
            ("DELETE", "/process-instance/1/variables/initiatorName"),
            "\0",
            "protected_variable",
        ),
        (
            ("POST", "/execution/1/localVariables/initiatorEmail/data"),
            "\0",
            "protected_variable",
        ),
        (
            ("POST", "/execution/1/localVariables/file/data"),
            "\0",
            "passed",
        ),
        (
            ("DELETE", "/process-instance/1/variables/Initiator"),
            "\0",
            "passed",
        ),
        (
            ("GET", "/process-instance/1/variables/initiator"),
            "\0",
            "passed",
        ),
        (("PUT", "/task/1/variables/a"), r#"{"value":1}"#, "passed"),
        (("PUT", "/task/1/variables/a"), "", "passed"),
        (
            ("PUT", "/task/1/variables/a"),
            r#"{"value":1,"value":2}"#,
            "body_invalid",
        ),
        (("PUT", "/task/1/variables/a"), "[]", "body_invalid"),
        (("PUT", "/task/1/variables/a"), "\0", "body_invalid"),
    ] {
        for access in [admin(), profile(false, true)] {
            let result = run_as(
                &Settings::default(),
                &alice(),
                &access,
                request,
                body.as_bytes(),
            );
            if let Ok(changed) = &result {
                assert_eq!(*changed, None, "{request:?} {body}");
            }
            assert_eq!(code(result), expected, "{request:?} {body}");
        }
        if expected == "protected_variable"
            && body != "\0"
            && !body.contains(r#""name":"a","name""#)
        {
            assert_eq!(
                run_as(&off, &alice(), &admin(), request, body.as_bytes()),
                Ok(None),
                "{request:?} {body}"
            );
        }
    }
}

#[test]
fn restarts_are_refused_unless_kept() {
    let keep = Settings {
        restarts: Restarts::Keep,
        ..Settings::default()
    };
    for request in [
        ("POST", "/process-definition/a/restart"),
        ("POST", "/process-definition/a/restart-async"),
    ] {
        assert_eq!(code(run(request, "{}")), "cannot_attribute");
        assert!(matches!(plan(&keep, &matched(request)), Plan::Pass));
    }
}

#[test]
fn guarded_members_are_refused_where_the_profile_does_not_allow_them() {
    let filter = ("POST", "/filter/create");
    for (request, body, expected) in [
        (START, r#"{"startInstructions":[]}"#, "access_denied"),
        (START, r#"{"startInstructions":null}"#, "access_denied"),
        (START, r#"{"skipCustomListeners":false}"#, "access_denied"),
        (START, r#"{"skip\u0049oMappings":true}"#, "access_denied"),
        (
            START,
            r#"{"variables":{"startInstructions":{"value":1}}}"#,
            "passed",
        ),
        (
            SUBMIT,
            r#"{"startInstructions":[{"variables":{"initiator":1}}]}"#,
            "passed",
        ),
        (
            filter,
            r#"{"query":{"orQueries":[{"assignee\u0045xpression":"${1}"}]}}"#,
            "access_denied",
        ),
        (filter, r#"{"query":{"assignee":"Expression"}}"#, "passed"),
        (
            ("POST", "/task"),
            r#"{"orQueries":[{"dueDateExpression":"x"}]}"#,
            "access_denied",
        ),
        (("POST", "/task"), r#"{"assignee":"a"}"#, "passed"),
        (("POST", "/task"), "not json", "body_invalid"),
    ] {
        let guarded = run_as(
            &Settings::default(),
            &alice(),
            &profile(false, false),
            request,
            body.as_bytes(),
        );
        assert_eq!(code(guarded), expected, "{body}");
        let allowed = code(run_as(
            &Settings::default(),
            &alice(),
            &admin(),
            request,
            body.as_bytes(),
        ));
        assert_eq!(
            allowed,
            if expected == "access_denied" {
                "passed"
            } else {
                expected
            },
            "{body}"
        );
    }
    let Err(problem) = run_as(
        &Settings::default(),
        &alice(),
        &profile(false, false),
        START,
        br#"{"startInstructions":1}"#,
    ) else {
        panic!("passed")
    };
    assert_eq!(
        problem,
        Problem::denied_member("startProcessInstanceByKey", "p", "startInstructions")
    );
}

#[test]
fn members_that_name_a_user_must_be_there_and_be_the_caller() {
    let claim = ("POST", "/task/1/claim");
    let create = ("POST", "/task/create");
    for (request, body, expected) in [
        (claim, r#"{"userId":"alice"}"#, "passed"),
        (claim, r#"{"userId":"\u0061lice"}"#, "passed"),
        (claim, r#"{"user\u0049d":"bob"}"#, "access_denied"),
        (claim, r#"{"userId":"Alice"}"#, "access_denied"),
        (claim, r#"{"userId":""}"#, "access_denied"),
        (claim, r#"{"userId":null}"#, "access_denied"),
        (claim, r#"{"userId":["alice"]}"#, "access_denied"),
        (claim, r#"{"USERID":"alice"}"#, "access_denied"),
        (claim, "{}", "access_denied"),
        (claim, "", "access_denied"),
        (
            claim,
            r#"{"userId":"alice","userId":"alice"}"#,
            "body_invalid",
        ),
        (
            claim,
            r#"{"userId":"alice","userId":"bob"}"#,
            "access_denied",
        ),
        (create, r#"{"assignee":"alice","owner":"alice"}"#, "passed"),
        (create, r#"{"assignee":"alice"}"#, "access_denied"),
        (
            create,
            r#"{"assignee":"alice","owner":"bob"}"#,
            "access_denied",
        ),
    ] {
        let own = run_as(
            &Settings::default(),
            &alice(),
            &profile(false, true),
            request,
            body.as_bytes(),
        );
        assert_eq!(code(own), expected, "{body}");
        let any = code(run(request, body));
        assert_eq!(
            any,
            if body.matches("userId").count() == 2 {
                "body_invalid"
            } else {
                "passed"
            },
            "{body}"
        );
    }
}

#[test]
fn objects_of_unknown_classes_are_refused_to_those_who_may_not_run_code() {
    for (value, denied) in [
        (r#"{"type":"Object","value":"x"}"#, true),
        (r#"{"value":"x","\u0074ype":"object"}"#, true),
        (r#"{"type":"Object","valueInfo":null}"#, true),
        (
            r#"{"type":"Object","valueInfo":{"serializationDataFormat":"application/x-java-serialized-object"}}"#,
            true,
        ),
        (
            r#"{"valueInfo":{"serializationDataFormat":"Application/X-Java-Serialized-Object "},"type":"Object"}"#,
            true,
        ),
        (
            r#"{"valueInfo":{"serializationDataFormat":null},"type":"Object"}"#,
            true,
        ),
        (
            r#"{"valueInfo":{"serializationDataFormat":"application/json"},"type":"Object"}"#,
            true,
        ),
        (
            r#"{"valueInfo":{"objectTypeName":"java.util.ArrayList","serializationDataFormat":"application/json"},"type":"Object"}"#,
            false,
        ),
        (
            r#"{"valueInfo":{"objectTypeName":"java.util.ArrayList"},"type":"Object"}"#,
            true,
        ),
        (
            r#"{"valueInfo":{"object\u0054ypeName":"org.apache.ibatis.datasource.unpooled.UnpooledDataSource","serializationDataFormat":"application/json"},"type":"Object"}"#,
            true,
        ),
        (r#"{"type":"OBJECT"}"#, false),
        (r#"{"type":"String","value":"Object"}"#, false),
        (r#"{"value":{"type":"Object"}}"#, false),
        ("{}", false),
    ] {
        for (request, body) in [
            (START, format!(r#"{{"variables":{{"a":{value}}}}}"#)),
            (COMPLETE, format!(r#"{{"variables":{{"a":{value}}}}}"#)),
            (MODIFY, format!(r#"{{"modifications":{{"a":{value}}}}}"#)),
            (("PUT", "/task/1/variables/a"), value.to_owned()),
        ] {
            let own = run_as(
                &Settings::default(),
                &alice(),
                &profile(false, true),
                request,
                body.as_bytes(),
            );
            assert_eq!(
                code(own),
                if denied { "access_denied" } else { "passed" },
                "{body}"
            );
            assert_eq!(code(run(request, &body)), "passed", "{body}");
        }
    }
}

/// The edits of a start, done on values by `serde_json`.
fn oracle(body: &str) -> Value {
    let mut body = last_wins(body);
    let strip = |value: &mut Value| {
        if let Value::Object(map) = value {
            map.retain(|name, _| !Names::default().contains(name));
        }
    };
    let top = body.as_object_mut().unwrap();
    if let Some(Value::Array(instructions)) = top.get_mut("startInstructions") {
        for instruction in instructions {
            instruction.get_mut("variables").map(strip);
        }
    }
    let variables = top.entry("variables").or_insert(Value::Null);
    if variables.is_null() {
        *variables = Value::Object(Map::new());
    }
    strip(variables);
    let ours: Map<String, Value> = serde_json::from_str(&format!("{{{OURS}}}")).unwrap();
    variables.as_object_mut().unwrap().extend(ours);
    body
}

fn blank() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,2}"
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(
        &[
            "initiator",
            "\\u0069nitiator",
            "initiatorEmail",
            "initiat\\u006frName",
            "variables",
            "v\\u0061riables",
            "startInstructions",
            "a",
            "b",
            "\\ud83d\\ude00",
            "value",
            "type",
        ][..],
    )
    .prop_map(Into::into)
}

/// An object as text, its members of `value`.
fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((blank(), name(), blank(), value, blank()), 0..5).prop_map(|members| {
        let members: Vec<String> = members
            .into_iter()
            .map(|(before, name, colon, value, after)| {
                format!("{before}\"{name}\"{colon}:{value}{after}")
            })
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

fn leaf() -> impl Strategy<Value = String> {
    prop::sample::select(
        &[
            "null",
            "{}",
            "[]",
            "1",
            "\"eve\"",
            NUMBER,
            "[{\"a\":1,\"a\":2}]",
        ][..],
    )
    .prop_map(Into::into)
}

fn start_body() -> impl Strategy<Value = String> {
    let map = object(prop_oneof![leaf(), object(leaf())]).boxed();
    let instructions = prop::collection::vec(object(prop_oneof![leaf(), map.clone()]), 0..3)
        .prop_map(|elements| format!("[{}]", elements.join(",")));
    object(prop_oneof![leaf(), map, instructions])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_is_sent_the_last_word_on_the_initiator_is_ours(body in start_body()) {
        match run(START, &body) {
            Ok(sent) => {
                let sent = sent.expect("a start is always written");
                prop_assert_eq!(last_wins(&sent), oracle(&body), "{} -> {}", body, sent);
                prop_assert!(sent.contains(NUMBER) || !keeps_number(&body), "{} -> {}", body, sent);
                // Read again, it is unchanged but for ours at its place.
                prop_assert_eq!(last_wins(&run(START, &sent).unwrap().unwrap()), last_wins(&sent));
            }
            Err(problem) => prop_assert_eq!(problem.code(), "body_invalid"),
        }
    }
}

/// Whether a number beyond `f64` stands anywhere in what should remain of a body.
fn keeps_number(body: &str) -> bool {
    let rounded = last_wins(NUMBER).to_string();
    oracle(body).to_string().contains(&rounded)
}

const NUMBER: &str = "123456789012345678901234567890";

/// Flips, drops, doubles and moves bytes of good bodies: what is not refused has our initiator.
#[test]
fn mutated_bodies_are_refused_or_ours() {
    let bodies = [
        r#"{"variables":{"initiator":{"value":"eve","type":"String"},"a":{"value":1}},"businessKey":"b"}"#,
        r#"{"\u0076ariables":{"initiatorName":{},"initiator":null},"startInstructions":[{"variables":{"initiator":{"value":"eve"}}}]}"#,
        "{ \"startInstructions\" : [ ] ,\n\"variables\" : null }",
    ];
    let interesting = b"{}[]\",:\\ \0u\xc1\xa9\xff\xed\xa01e-vi";
    let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let (mut refused, mut sent) = (0, 0);
    for _ in 0..20_000 {
        let mut body = bodies[random(bodies.len())].as_bytes().to_vec();
        for _ in 0..=random(3) {
            let at = random(body.len());
            let to = (at + random(12)).min(body.len());
            match random(5) {
                0 => body[at] ^= 1 << random(8),
                1 => body[at] = interesting[random(interesting.len())],
                2 => body.insert(at, interesting[random(interesting.len())]),
                3 => {
                    body.drain(at..to);
                }
                _ => {
                    let piece = body[at..to].to_vec();
                    let to = random(body.len());
                    body.splice(to..to, piece);
                }
            }
            if body.is_empty() {
                break;
            }
        }
        match run_as(&Settings::default(), &alice(), &admin(), START, &body) {
            Err(problem) => {
                refused += 1;
                assert_eq!(problem.code(), "body_invalid");
            }
            Ok(edited) => {
                sent += 1;
                let edited = edited.expect("a start is always written");
                let body = last_wins(&edited);
                assert_eq!(
                    body["variables"]["initiator"],
                    json!({"value": "alice", "type": "String"}),
                    "{edited}"
                );
                for instruction in body["startInstructions"].as_array().into_iter().flatten() {
                    assert_eq!(instruction["variables"].get("initiator"), None, "{edited}");
                }
            }
        }
    }
    assert!(
        refused > 1000 && sent > 1000,
        "{refused} refused, {sent} sent"
    );
}

#[test]
fn business_keys_and_the_names_of_messages_and_signals_are_noted_and_nothing_else() {
    let long = "ü".repeat(300);
    let start = ("POST", "/process-definition/key/order/start");
    for (request, body, key, event) in [
        (
            start,
            r#"{"businessKey":"b-\u0031"}"#.to_owned(),
            Some("b-1".to_owned()),
            None,
        ),
        (
            start,
            format!(r#"{{"businessKey":"{long}"}}"#),
            Some("ü".repeat(255)),
            None,
        ),
        (
            start,
            r#"{"businessKey":null,"name":"n","messageName":"m"}"#.to_owned(),
            None,
            None,
        ),
        (start, r#"{"businessKey":{"x":1}}"#.to_owned(), None, None),
        (
            start,
            r#"{"variables":{"businessKey":{"value":"v"}}}"#.to_owned(),
            None,
            None,
        ),
        (
            ("POST", "/message"),
            r#"{"name":"n","messageName":"m","businessKey":"b"}"#.to_owned(),
            Some("b".to_owned()),
            Some("m".to_owned()),
        ),
        (
            ("POST", "/signal"),
            r#"{"name":"s","messageName":"m"}"#.to_owned(),
            None,
            Some("s".to_owned()),
        ),
        (
            ("POST", "/filter/create"),
            r#"{"name":"n"}"#.to_owned(),
            None,
            None,
        ),
    ] {
        let settings = Settings::default();
        let Plan::Rewrite(rules) = plan(&settings, &matched(request)) else {
            panic!("{request:?} is not read");
        };
        let findings = Findings::default();
        rules
            .apply(
                &settings,
                &alice(),
                &admin(),
                &[],
                Some(&findings),
                body.as_bytes(),
            )
            .unwrap();
        assert_eq!(findings.business_key(), key.as_ref(), "{body}");
        assert_eq!(findings.event(), event.as_ref(), "{body}");
    }
}

#[test]
fn what_happens_to_protected_names_is_told_place_by_place() {
    use Protection::{Refused, Removed, Written};
    let inject = Settings {
        messages: Messages::Inject,
        ..Settings::default()
    };
    let unprotected = Settings {
        protect_later_writes: false,
        ..Settings::default()
    };
    let default = Settings::default();
    for (settings, request, want) in [
        (
            &default,
            ("POST", "/process-definition/key/order/start"),
            vec![
                ("variables", Written),
                ("startInstructions[].variables", Removed),
            ],
        ),
        (
            &default,
            ("POST", "/message"),
            vec![
                ("processVariables", Removed),
                ("processVariablesLocal", Removed),
                ("processVariablesToTriggeredScope", Removed),
            ],
        ),
        (
            &inject,
            ("POST", "/message"),
            vec![
                ("processVariables", Written),
                ("processVariablesLocal", Removed),
                ("processVariablesToTriggeredScope", Removed),
            ],
        ),
        (
            &default,
            ("POST", "/task/7/variables"),
            vec![("modifications", Refused), ("deletions[]", Refused)],
        ),
        (
            &default,
            ("POST", "/task/7/complete"),
            vec![("variables", Removed)],
        ),
        (&unprotected, ("POST", "/task/7/complete"), vec![]),
    ] {
        let Plan::Rewrite(rules) = plan(settings, &matched(request)) else {
            panic!("{request:?} is not read");
        };
        let told = rules.protections();
        let told: Vec<_> = told.iter().map(|(place, what)| (&**place, *what)).collect();
        assert_eq!(told, want, "{request:?}");
    }
}
