use super::*;
use crate::identity::{Parts, tests::alice};
use crate::operation::{Catalogue, Matched};
use serde_json::{Value, json};

/// A record with every member; a new one must be put in here, and so into the reference.
fn full() -> Record {
    Record {
        time: SystemTime::UNIX_EPOCH,
        request_id: "r-1".to_owned(),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        outcome: Outcome::Forwarded,
        code: Some("access_denied"),
        status: Some(200),
        complete: Some(true),
        duration_ms: 1.5,
        issuer: "https://id.example".to_owned(),
        subject: "alice".to_owned(),
        actor: Some("root".to_owned()),
        profile: Some("user".to_owned()),
        rule: Some(0),
        operation: Some("startProcessInstanceByKey"),
        group: Some("Process Definition"),
        kind: Some("start"),
        method: "POST".to_owned(),
        path: Some("/x".to_owned()),
        engine: Some("default".to_owned()),
        params: vec![("key", "order".to_owned())],
        business_key: Some("b".to_owned()),
        event: Some("e".to_owned()),
        reason: Some("why".to_owned()),
        instances: instances(br#"{"id":"1","definitionId":"order:3:7"}"#),
        instances_cut: true,
        model_changed: true,
        client: Some("203.0.113.9".to_owned()),
    }
}

fn members(record: &Record) -> Vec<String> {
    let line = serde_json::to_string(record).unwrap();
    let value: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
    value.keys().cloned().collect()
}

#[test]
fn the_reference_names_every_member_and_no_other() {
    let reference = include_str!("../../docs/audit.md");
    let mut described: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, _)| name)
        .collect();
    described.sort_unstable();
    let mut written = members(&full());
    written.sort_unstable();
    assert_eq!(described, written);
}

#[test]
fn a_line_is_the_members_that_are_known_in_their_order() {
    let line = serde_json::to_string(&full()).unwrap();
    let start = r#"{"time":"1970-01-01T00:00:00.000Z","request_id":"r-1","trace_id":"4bf92f35"#;
    assert!(line.starts_with(start), "{line}");
    assert!(line.contains(r#""params":{"key":"order"}"#), "{line}");
    let instances = r#""instances":[{"id":"1","definition_id":"order:3:7"}]"#;
    assert!(line.contains(instances), "{line}");

    let least = Record::new(SystemTime::UNIX_EPOCH, "r-1", &alice(), "POST");
    assert_eq!(
        serde_json::to_value(least).unwrap(),
        json!({
            "time": "1970-01-01T00:00:00.000Z", "request_id": "r-1", "outcome": "abandoned",
            "duration_ms": 0.0, "issuer": "https://issuer.example", "subject": "alice", "method": "POST",
        })
    );
}

#[test]
fn parameters_are_kept_but_for_a_variables_name() {
    let path = "/engine/other/task/7/variables/salary";
    let Matched::Operation(matched) = Catalogue::builtin().find(&http::Method::PUT, path) else {
        panic!("no row");
    };
    let mut record = Record::new(SystemTime::UNIX_EPOCH, "", &alice(), "PUT");
    record.set_operation(&matched);
    assert_eq!(record.operation, Some("putTaskVariable"));
    assert_eq!(record.kind, Some("write_vars"));
    assert_eq!(record.engine.as_deref(), Some("other"));
    assert_eq!(record.params, [("id", "7".to_owned())]);
    assert!(!serde_json::to_string(&record).unwrap().contains("salary"));
}

/// Other columns may come; what names a variable in a path must be left out.
#[test]
fn no_other_parameter_of_the_catalogue_names_a_variable() {
    let mut names: Vec<&str> = Catalogue::builtin()
        .operations()
        .iter()
        .flat_map(|row| row.path.split('/'))
        .filter(|segment| segment.starts_with('{'))
        .collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names,
        [
            "{attachmentId}",
            "{commentId}",
            "{groupId}",
            "{id}",
            "{key}",
            "{messageName}",
            "{metrics-name}",
            "{operationId}",
            "{resourceId}",
            "{tenant-id}",
            "{userId}",
            "{varName}",
        ]
    );
}

#[test]
fn the_actor_is_the_outermost_of_rfc_8693() {
    for (claim, want) in [
        (None, None),
        (Some(json!({"sub": "root"})), Some("root")),
        (
            Some(json!({"sub": "root", "act": {"sub": "earlier"}})),
            Some("root"),
        ),
        // An impersonation whose actor is not said is one all the same.
        (Some(json!({"client_id": "x"})), Some("")),
        (Some(json!({"sub": 7})), Some("")),
        (Some(json!("root")), Some("")),
    ] {
        let mut parts = Parts::new("https://id.example", "alice", SystemTime::now());
        let claims = claim.clone().map(|act| ("act".to_owned(), act));
        parts.claims = std::sync::Arc::new(claims.into_iter().collect());
        assert_eq!(actor(&Identity::new(parts)).as_deref(), want, "{claim:?}");
    }
}

#[test]
fn text_of_the_callers_is_cut_between_characters() {
    let fits = "ü".repeat(MAX_TEXT_CHARS);
    assert_eq!(cut(&fits), fits);
    assert_eq!(cut(&(fits.clone() + "x")), fits);
}

#[test]
fn instances_are_those_that_the_answer_names() {
    let of = |json: &str| -> Vec<(String, Option<String>)> {
        let found = instances(json.as_bytes()).into_iter();
        found.map(|one| (one.id, one.definition_id)).collect()
    };
    let started = |id: &str, definition: &str| (id.to_owned(), Some(definition.to_owned()));
    for (json, want) in [
        (
            r#"{"links":[{"rel":"self"}],"id":"i1","definitionId":"order:1:d","businessKey":null,"variables":{"x":{"value":[[1]]}}}"#,
            vec![started("i1", "order:1:d")],
        ),
        (
            r#"{"id":"c1","caseDefinitionId":"case:1:d"}"#,
            vec![started("c1", "case:1:d")],
        ),
        // `POST /message` with `resultEnabled`: one started, one hit
        (
            r#"[{"resultType":"ProcessDefinition","execution":null,"processInstance":{"id":"i1","definitionId":"order:1:d","ended":false}},
                {"resultType":"Execution","execution":{"id":"e1","processInstanceId":"i2","ended":false},"processInstance":null}]"#,
            vec![started("i1", "order:1:d"), ("i2".to_owned(), None)],
        ),
        // `POST /condition`
        (
            r#"[{"id":"i1","definitionId":"a"},{"id":"i2","definitionId":"b"}]"#,
            vec![started("i1", "a"), started("i2", "b")],
        ),
        // cut off within the second
        (
            r#"[{"id":"i1","definitionId":"a"},{"id":"i2","definit"#,
            vec![started("i1", "a")],
        ),
        // a batch is no instance
        (
            r#"{"id":"b1","type":"instance-restart","totalJobs":1}"#,
            vec![],
        ),
        (r#"{"id":7,"definitionId":"a"}"#, vec![]),
        (r#"{"id":"i1","definitionId":"a""#, vec![]),
        (r#""i1""#, vec![]),
        ("", vec![]),
        ("<html>", vec![]),
    ] {
        assert_eq!(of(json), want, "{json}");
    }
}
