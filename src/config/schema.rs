//! The JSON Schema of the configuration, and the keys that it knows.

use schemars::Schema;
use serde_json::Value;

use super::Config;
use super::tree::join;

impl Config {
    /// Returns the JSON Schema (draft 2020-12) of the configuration.
    #[must_use]
    pub fn json_schema() -> Schema {
        schemars::schema_for!(Config)
    }
}

/// The stand-in of [`Issuer::default`] is no default for users.
pub(super) fn issuer_is_required(schema: &mut Schema) {
    let issuer = schema.pointer_mut("/properties/issuer");
    if let Some(issuer) = issuer.and_then(Value::as_object_mut) {
        issuer.remove("default");
    }
    schema.insert("required".to_owned(), serde_json::json!(["issuer"]));
}

/// Every key of the configuration, such as `engine.url`; `0` stands for the place in a list of tables, `NAME` for a name of the user's.
pub(super) fn keys() -> Vec<String> {
    let schema = Config::json_schema().to_value();
    let mut keys = Vec::new();
    add_keys(&mut keys, "", &schema, &schema);
    keys
}

fn add_keys(keys: &mut Vec<String>, key: &str, schema: &Value, root: &Value) {
    let inside = |name: &str| {
        let schema = resolve(schema.get(name)?, root);
        schema.get("properties").map(|_| schema)
    };
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            add_keys(keys, &join(key, name), resolve(property, root), root);
        }
    } else if let Some(elements) = inside("items") {
        add_keys(keys, &join(key, "0"), elements, root);
    } else if let Some(values) = inside("additionalProperties") {
        add_keys(keys, &join(key, "NAME"), values, root);
    } else {
        keys.push(key.to_owned());
    }
}

/// Follows a `$ref` of the schema.
pub(super) fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    reference
        .and_then(|reference| root.pointer(reference.trim_start_matches('#')))
        .unwrap_or(schema)
}
