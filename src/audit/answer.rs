//! Which instances an engine's answer names, read from the beginning of its JSON.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// An instance that the engine's answer names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The id of its definition, if the request started it; an instance that a message hit has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition_id: Option<String>,
}

/// Reads an answer to a start, a message or a condition; of a list, those elements that are whole.
///
/// A batch has an id and no definition, and is no instance. What is no such answer names none.
///
/// # Examples
/// ```
/// use bpmgate::audit::instances;
/// let started = instances(br#"{"id":"1","definitionId":"order:3:7","links":[]}"#);
/// assert_eq!(started[0].definition_id.as_deref(), Some("order:3:7"));
/// let cut_off = instances(br#"[{"id":"1","definitionId":"a"},{"id":"2","defin"#);
/// assert_eq!(cut_off.len(), 1);
/// ```
#[must_use]
pub fn instances(json: &[u8]) -> Vec<Instance> {
    let mut found = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(json);
    // An answer that breaks off, or is another, has named what was found before.
    let _ = json.deserialize_any(Answer(&mut found));
    found
}

/// `ProcessInstance`, `CaseInstance`, or `MessageCorrelationResult` of `POST /message`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    id: Option<String>,
    definition_id: Option<String>,
    case_definition_id: Option<String>,
    process_instance: Option<Box<Named>>,
    execution: Option<Execution>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execution {
    process_instance_id: Option<String>,
}

impl Named {
    fn instance(self) -> Option<Instance> {
        if let Some(started) = self.process_instance {
            return started.instance();
        }
        if let Some(id) = self.execution.and_then(|hit| hit.process_instance_id) {
            let definition_id = None;
            return Some(Instance { id, definition_id });
        }
        let definition_id = Some(self.definition_id.or(self.case_definition_id)?);
        let id = self.id?;
        Some(Instance { id, definition_id })
    }
}

/// One object, or a list of them.
struct Answer<'a>(&'a mut Vec<Instance>);

impl<'de> Visitor<'de> for Answer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let named = Named::deserialize(MapAccessDeserializer::new(map))?;
        self.0.extend(named.instance());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(named) = list.next_element::<Named>()? {
            self.0.extend(named.instance());
        }
        Ok(())
    }
}
