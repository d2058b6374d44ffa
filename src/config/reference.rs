//! Keeps `config.toml.example` and `docs/configuration.md` equal to the tables' types.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::diagnostic::variable;
use super::not_yet::{NOT_YET, NotYet};
use super::schema::{keys, resolve};
use super::tree::join;
use super::{Config, Issuer, Preset, load};

const EXAMPLE: &str = include_str!("../../config.toml.example");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const MARK: &str = "<!-- Generated";

#[test]
fn the_example_loads_and_holds_the_defaults_whose_missing_audience_is_warned_of() {
    let loaded = load::parse("config.toml.example", EXAMPLE, []).unwrap();
    let warned: Vec<_> = loaded.warnings.iter().map(super::Warning::key).collect();
    assert_eq!(warned, ["issuers.0.audience"]);
    let issuer = Issuer {
        preset: Preset::Clerk,
        issuer: "https://clerk.example.com".parse().unwrap(),
        ..Issuer::default()
    };
    assert_eq!(
        loaded.config,
        Config {
            issuers: vec![issuer],
            ..Config::default()
        }
    );
}

#[test]
fn the_example_names_exactly_the_keys_of_the_schema() {
    let named: BTreeSet<_> = keys_in_order().into_iter().collect();
    let known: BTreeSet<_> = keys().into_iter().collect();
    assert_eq!(named, known);
}

#[test]
fn the_schema_accepts_the_example_and_refuses_other_keys_and_types() {
    let schema = jsonschema::validator_for(Config::json_schema().as_value()).unwrap();
    let refuses = |text: &str| {
        !schema
            .is_valid(&serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap())
    };
    assert!(!refuses(EXAMPLE));
    assert!(!refuses(&uncommented()));
    for wrong in [
        "server.worker = 1",
        "server.workers = \"four\"",
        "server.limits.headers = 0",
        "server.limits.request_body = 1",
        "server.limits.request_body = \"1KB\"",
        "engine.timeouts.connect = \"5\"",
        "engine.credentials.mode = \"digest\"",
        "[[issuers]]\npreset = \"clerk\"",
        "[[access.rules]]\nprofile = \"admin\"",
    ] {
        assert!(refuses(wrong), "{wrong}");
    }
}

#[test]
fn the_reference_is_that_of_the_types() {
    let written = std::fs::read_to_string(REFERENCE).unwrap();
    let (by_hand, rest) = written.split_once(MARK).unwrap();
    let (mark, _) = rest.split_once('\n').unwrap();
    let right = format!("{by_hand}{MARK}{mark}\n{}", generated());
    if std::env::var_os("BPMGATE_BLESS").is_some() {
        std::fs::write(REFERENCE, right).unwrap();
    } else {
        assert!(
            written == right,
            "docs/configuration.md is not what src/config.rs says; run with BPMGATE_BLESS=1 to write it"
        );
    }
    for name in load::OLD_NAMES {
        assert!(
            by_hand.contains(&format!("`{name}`")),
            "{name} is not in docs/configuration.md"
        );
    }
}

/// The example with what it comments out: `#key = value`, where prose has a blank after the hash.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest,
        _ => line,
    };
    EXAMPLE
        .lines()
        .map(line)
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The keys as the example orders them.
fn keys_in_order() -> Vec<String> {
    fn add(keys: &mut Vec<(usize, String)>, key: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = if key == "access.profiles" {
                join(key, "NAME")
            } else {
                join(key, name.get_ref())
            };
            match value.get_ref() {
                DeValue::Table(table) => add(keys, &key, table),
                DeValue::Array(elements)
                    if elements.iter().any(|element| element.get_ref().is_table()) =>
                {
                    for table in elements
                        .iter()
                        .filter_map(|element| element.get_ref().as_table())
                    {
                        add(keys, &join(&key, "0"), table);
                    }
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => keys.push((name.span().start, key)),
            }
        }
    }
    let text = uncommented();
    let document = DeTable::parse(&text).unwrap();
    let mut keys = Vec::new();
    add(&mut keys, "", document.get_ref());
    keys.sort();
    let mut seen = BTreeSet::new();
    keys.into_iter()
        .map(|(_, key)| key)
        .filter(|key| seen.insert(key.clone()))
        .collect()
}

fn generated() -> String {
    let schema = Config::json_schema().to_value();
    let mut text = String::new();
    let mut tables = BTreeSet::new();
    for key in keys_in_order() {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let (table_schema, property, required) = find(&schema, table, name);
        if tables.insert(table.to_owned()) {
            let heading = match table {
                "" => "Top level".to_owned(),
                "access.rules.0.when" => "`when` of `[[access.rules]]`".to_owned(),
                _ if table.ends_with(".0") => format!("`[[{}]]`", table.trim_end_matches(".0")),
                _ => format!("`[{}]`", table.replace(".0", "")),
            };
            let description = description(table_schema);
            let description = description
                .split_once(": ")
                .filter(|(head, _)| head.starts_with('`'))
                .map_or(description.clone(), |(_, rest)| capital(rest));
            write!(text, "\n## {heading}\n\n{description}\n").unwrap();
        }
        write!(
            text,
            "\n### `{}`\n\n{}\n",
            key.replace(".0.", "."),
            description(property)
        )
        .unwrap();
        text.push_str(&choices(resolve(property, &schema), &schema));
        text.push_str(&not_yet(&key));
        let default = property
            .get("default")
            .map(toml_text)
            .filter(|_| !is_masked(property));
        let default = match (default, required) {
            (_, true) => "Required".to_owned(),
            (Some(default), false) => format!("Default: `{default}`"),
            (None, false) => "Default: none".to_owned(),
        };
        let default = if is_masked(property) {
            String::new()
        } else {
            format!("{default} · ")
        };
        write!(text, "\n{default}Environment: `{}`\n", variable(&key)).unwrap();
    }
    text
}

fn not_yet(key: &str) -> String {
    let key = key.replace(".0.", ".");
    let covers = |row: &&NotYet| {
        key.strip_prefix(row.key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    NOT_YET.iter().find(covers).map_or(String::new(), |row| {
        format!("\n**Not yet:** `{}` {}.\n", row.key, row.title)
    })
}

/// A table's schema, that of one of its properties, and whether the property is required.
fn find<'a>(schema: &'a Value, table: &str, name: &str) -> (&'a Value, &'a Value, bool) {
    let segments = table.split('.').filter(|segment| !segment.is_empty());
    let table = segments.fold(schema, |table, segment| {
        let inside = match segment {
            "0" => table.get("items"),
            "NAME" => table.get("additionalProperties"),
            name => table
                .get("properties")
                .and_then(|properties| properties.get(name)),
        };
        resolve(inside.unwrap(), schema)
    });
    let required = table
        .get("required")
        .and_then(Value::as_array)
        .is_some_and(|required| required.contains(&name.into()));
    (
        table,
        table.pointer(&format!("/properties/{name}")).unwrap(),
        required,
    )
}

fn description(schema: &Value) -> String {
    schema
        .get("description")
        .and_then(Value::as_str)
        .unwrap()
        .to_owned()
}

fn choices(schema: &Value, root: &Value) -> String {
    let schema = schema
        .get("items")
        .map_or(schema, |items| resolve(items, root));
    let row = |choice: &Value| {
        let description = choice
            .get("description")
            .and_then(Value::as_str)
            .map_or(String::new(), |text| format!(": {text}"));
        let values = choice.get("const").into_iter().chain(
            choice
                .get("enum")
                .and_then(Value::as_array)
                .into_iter()
                .flatten(),
        );
        let values: Vec<_> = values.map(|value| format!("`{value}`")).collect();
        format!("- {}{description}\n", values.join(", "))
    };
    match (
        schema.get("oneOf").and_then(Value::as_array),
        schema.get("enum"),
    ) {
        (Some(choices), _) => format!("\n{}", choices.iter().map(row).collect::<String>()),
        (None, Some(_)) => format!("\n{}", row(&serde_json::json!({ "enum": schema["enum"] }))),
        (None, None) => String::new(),
    }
}

fn is_masked(property: &Value) -> bool {
    property.get("default").and_then(Value::as_str) == Some(super::secret::MASK)
}

fn toml_text(value: &Value) -> String {
    value.to_string().replace("\",\"", "\", \"")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
