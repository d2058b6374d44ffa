//! The way of an instance's one token through its model.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::model::{Element, Model};
use super::refusal::Refusal;
use super::store::{Activity, Instance, State, Task, new_id};

/// Where a new instance begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Start,
    Before(String),
    After(String),
}

/// Takes an instance from the element that it leaves to its next user task, or to its end.
pub(super) fn advance(instance: &mut Instance, left: &str) -> Result<Option<Task>, Refusal> {
    let next = following(instance, left)?;
    enter(instance, next)
}

/// The element that comes after this one, by the flow whose condition holds.
fn following(instance: &Instance, left: &str) -> Result<Option<String>, Refusal> {
    let model = &instance.definition.model;
    if model.flows.is_empty() {
        return Ok(model.next_in_document(left).map(String::from));
    }
    let flows = model.flows_from(left);
    for flow in &flows {
        let taken = match &flow.condition {
            None => true,
            Some(condition) => instance.holds(condition)?,
        };
        if taken {
            return Ok(Some(flow.target.clone()));
        }
    }
    if flows.is_empty() {
        return Ok(None);
    }
    Err(Refusal::engine(
        "ProcessEngineException",
        &format!(
            "ENGINE-02004 No outgoing sequence flow for the element with id '{left}' could be selected for continuing the process."
        ),
    ))
}

/// Enters an element, and goes on until a user task waits or the instance has ended.
pub(super) fn enter(
    instance: &mut Instance,
    mut next: Option<String>,
) -> Result<Option<Task>, Refusal> {
    let now = SystemTime::now();
    let definition = Arc::clone(&instance.definition);
    let mut step = None;
    // A model may go round in circles.
    for _ in 0..MAX_STEPS {
        let Some(id) = &next else { break };
        match definition.model.element(id) {
            Element::Task(task) => {
                step = Some(task);
                break;
            }
            Element::End(end) => {
                instance
                    .activities
                    .push(Activity::passed("noneEndEvent", end, now));
                next = None;
            }
            Element::Decision(decision) => {
                let passed = Activity::passed("exclusiveGateway", decision, now);
                instance.activities.push(passed);
                next = following(instance, id)?;
            }
            Element::Other => next = following(instance, id)?,
        }
    }
    let Some(step) = step else {
        instance.state = State::Completed(now);
        return Ok(None);
    };
    let task = Task {
        id: new_id(),
        instance: instance.id.clone(),
        definition: Arc::clone(&definition),
        step: step.clone(),
        assignee: step
            .assignee
            .as_deref()
            .map(|expression| instance.evaluate(expression))
            .transpose()?,
        description: step
            .documentation
            .as_deref()
            .map(|text| instance.evaluate(text))
            .transpose()?,
        created: now,
        updated: None,
    };
    let passing = Activity::passed("userTask", step, now);
    instance.activities.push(Activity {
        task: Some(task.id.clone()),
        assignee: task.assignee.clone(),
        ended: None,
        ..passing
    });
    Ok(Some(task))
}

/// The place that a start instruction names.
pub(super) fn place_of(model: &Model, instruction: &Value) -> Option<Entry> {
    let activity = instruction["activityId"].as_str()?.to_owned();
    if model.start.id == activity {
        return Some(Entry::Start);
    }
    if model.element(&activity) == Element::Other {
        return None;
    }
    match instruction["type"].as_str()? {
        "startBeforeActivity" => Some(Entry::Before(activity)),
        "startAfterActivity" => Some(Entry::After(activity)),
        _ => None,
    }
}

impl Instance {
    /// Whether a condition holds: `${name}` or `${!name}`, of a Boolean.
    fn holds(&self, condition: &str) -> Result<bool, Refusal> {
        let (plain, wanted) = match condition.strip_prefix("${!") {
            Some(name) => (format!("${{{name}"), "false"),
            None => (condition.to_owned(), "true"),
        };
        Ok(self.evaluate(&plain)? == wanted)
    }

    /// Fills `${name}` with variables; nothing else of the expression language is known.
    fn evaluate(&self, expression: &str) -> Result<String, Refusal> {
        let mut result = String::new();
        let mut rest = expression;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            let kept = self.variables.get(name).ok_or_else(|| {
                Refusal::rest(&format!(
                    "Cannot instantiate process definition {}: Unknown property used in expression: {expression}. \
                     Cause: Cannot resolve identifier '{name}'",
                    self.definition.id
                ))
            })?;
            result.push_str(before);
            result.push_str(&kept.variable.text());
            rest = after;
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// How many elements an instance passes without waiting.
const MAX_STEPS: usize = 1000;
