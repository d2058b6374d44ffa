//! Reads of a BPMN document what the small engine runs: one process, its start form, its user tasks in turn.
//!
//! This is no XML parser and no BPMN engine: one token follows the sequence flows (in a model without any,
//! user tasks follow each other in the order of the document), exclusive gateways ask one variable, and
//! what else stands in its way is passed over. It is enough for the model's `initiator`
//! (`camunda:` or `operaton:`, as Operaton reads both), its forms and its assignees.

use std::collections::HashMap;

/// A process as the engine would deploy it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Model {
    pub(super) key: String,
    pub(super) name: Option<String>,
    pub(super) version_tag: Option<String>,
    pub(super) time_to_live: Option<i64>,
    pub(super) category: Option<String>,
    pub(super) start: Step,
    pub(super) tasks: Vec<Step>,
    pub(super) decisions: Vec<Step>,
    pub(super) ends: Vec<Step>,
    pub(super) flows: Vec<Flow>,
}

/// A sequence flow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Flow {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) condition: Option<String>,
}

/// What of a model an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'m> {
    Task(&'m Step),
    Decision(&'m Step),
    End(&'m Step),
    /// What this engine does not know: it is passed over.
    Other,
}

/// A start event, user task, exclusive gateway or end event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Step {
    pub(super) id: String,
    pub(super) name: Option<String>,
    /// The variable that a start event fills with the account that started.
    pub(super) initiator: Option<String>,
    pub(super) assignee: Option<String>,
    pub(super) candidate_groups: Vec<String>,
    pub(super) form_key: Option<String>,
    /// The flow of a gateway that is taken when no other is.
    pub(super) default: Option<String>,
    pub(super) documentation: Option<String>,
    pub(super) fields: Vec<Field>,
}

/// A form field of a start event or user task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Field {
    pub(super) id: String,
    /// `string`, `long`, `boolean`, `date` or `enum`.
    pub(super) kind: String,
    pub(super) default: Option<String>,
    pub(super) required: bool,
    /// The values an `enum` may have.
    pub(super) values: Vec<String>,
}

/// A document without a process or without a key for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a BPMN document with one process that has an id")]
pub struct NoProcess;

impl Model {
    /// Reads the first process of a document.
    pub(super) fn parse(xml: &str) -> Result<Self, NoProcess> {
        let mut model = Self::default();
        let mut place = Place::Elsewhere;
        for tag in (Tags { rest: xml }) {
            match tag.name {
                _ if tag.closes => {
                    if matches!(tag.name, "startEvent" | "userTask" | "sequenceFlow") {
                        place = Place::Elsewhere;
                    }
                }
                "definitions" => model.category = tag.attribute("targetNamespace"),
                "process" if model.key.is_empty() => {
                    model.key = tag.attribute("id").ok_or(NoProcess)?;
                    model.name = tag.attribute("name");
                    model.version_tag = tag.attribute("versionTag");
                    model.time_to_live = tag
                        .attribute("historyTimeToLive")
                        .and_then(|days| days.parse().ok());
                }
                "startEvent" if model.start.id.is_empty() => {
                    model.start = Step::from(&tag);
                    place = if tag.opens {
                        Place::Start
                    } else {
                        Place::Elsewhere
                    };
                }
                "userTask" => {
                    model.tasks.push(Step::from(&tag));
                    place = if tag.opens {
                        Place::Task
                    } else {
                        Place::Elsewhere
                    };
                }
                "exclusiveGateway" => model.decisions.push(Step::from(&tag)),
                "endEvent" => model.ends.push(Step::from(&tag)),
                "sequenceFlow" => {
                    model.flows.push(Flow {
                        id: tag.attribute("id").unwrap_or_default(),
                        source: tag.attribute("sourceRef").unwrap_or_default(),
                        target: tag.attribute("targetRef").unwrap_or_default(),
                        condition: None,
                    });
                    if tag.opens {
                        place = Place::Flow;
                    }
                }
                _ => match place {
                    Place::Start => model.start.add(&tag),
                    Place::Task => model
                        .tasks
                        .last_mut()
                        .into_iter()
                        .for_each(|task| task.add(&tag)),
                    Place::Flow if tag.name == "conditionExpression" => model
                        .flows
                        .last_mut()
                        .into_iter()
                        .for_each(|flow| flow.condition = Some(unescape(tag.text))),
                    Place::Flow | Place::Elsewhere => {}
                },
            }
        }
        if model.key.is_empty() {
            Err(NoProcess)
        } else {
            Ok(model)
        }
    }

    pub(super) fn element(&self, id: &str) -> Element<'_> {
        let named = |steps: &'_ [Step]| steps.iter().position(|step| step.id == id);
        if let Some(task) = named(&self.tasks).and_then(|place| self.tasks.get(place)) {
            Element::Task(task)
        } else if let Some(decision) =
            named(&self.decisions).and_then(|place| self.decisions.get(place))
        {
            Element::Decision(decision)
        } else if let Some(end) = named(&self.ends).and_then(|place| self.ends.get(place)) {
            Element::End(end)
        } else {
            Element::Other
        }
    }

    /// The flows out of an element, but for a gateway's default one, which comes last.
    pub(super) fn flows_from(&self, id: &str) -> Vec<&Flow> {
        let default = match self.element(id) {
            Element::Decision(step) => step.default.as_deref(),
            Element::Task(_) | Element::End(_) | Element::Other => None,
        };
        let mut flows: Vec<&Flow> = self.flows.iter().filter(|flow| flow.source == id).collect();
        flows.sort_by_key(|flow| default == Some(flow.id.as_str()));
        flows
    }

    /// What follows an element in a model without flows.
    pub(super) fn next_in_document(&self, id: &str) -> Option<&str> {
        let steps = [&self.start]
            .into_iter()
            .chain(&self.tasks)
            .chain(self.ends.first());
        let mut ids = steps.map(|step| step.id.as_str());
        ids.find(|known| *known == id)?;
        ids.next()
    }
}

impl Step {
    /// Takes in what stands inside the event or task.
    fn add(&mut self, tag: &Tag<'_>) {
        match tag.name {
            "documentation" => self.documentation = Some(unescape(tag.text)),
            "formField" => self.fields.push(Field {
                id: tag.attribute("id").unwrap_or_default(),
                kind: tag.attribute("type").unwrap_or_default(),
                default: tag.attribute("defaultValue"),
                ..Field::default()
            }),
            "constraint" if tag.attribute("name").as_deref() == Some("required") => {
                self.fields
                    .last_mut()
                    .into_iter()
                    .for_each(|field| field.required = true);
            }
            "value" => {
                self.fields
                    .last_mut()
                    .into_iter()
                    .for_each(|field| field.values.extend(tag.attribute("id")));
            }
            _ => {}
        }
    }
}

impl From<&Tag<'_>> for Step {
    fn from(tag: &Tag<'_>) -> Self {
        let groups = tag.attribute("candidateGroups").unwrap_or_default();
        Self {
            id: tag.attribute("id").unwrap_or_default(),
            name: tag.attribute("name"),
            initiator: tag.attribute("initiator"),
            assignee: tag.attribute("assignee"),
            candidate_groups: groups
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty())
                .map(String::from)
                .collect(),
            form_key: tag.attribute("formKey"),
            default: tag.attribute("default"),
            documentation: None,
            fields: Vec::new(),
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Elsewhere,
    Start,
    Task,
    Flow,
}

/// A tag: its name and attributes without their prefixes, and the text after it.
struct Tag<'a> {
    name: &'a str,
    attributes: HashMap<&'a str, &'a str>,
    opens: bool,
    closes: bool,
    text: &'a str,
}

impl Tag<'_> {
    fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.get(name).map(|value| unescape(value))
    }
}

/// The tags of a document; comments and processing instructions are passed over.
struct Tags<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let (_, after) = self.rest.split_once('<')?;
            if let Some(comment) = after.strip_prefix("!--") {
                self.rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            if after.starts_with(['?', '!']) {
                self.rest = after.split_once('>').map_or("", |(_, rest)| rest);
                continue;
            }
            let (closing, after) = after
                .strip_prefix('/')
                .map_or((false, after), |after| (true, after));
            let end = after
                .find(|c: char| c.is_whitespace() || matches!(c, '>' | '/'))
                .unwrap_or(after.len());
            let (name, mut rest) = after.split_at(end);
            let mut attributes = HashMap::new();
            while let Some((key, value, left)) = attribute(rest) {
                attributes.insert(local(key), value);
                rest = left;
            }
            let (inside, left) = rest.split_once('>').unwrap_or((rest, ""));
            self.rest = left;
            return Some(Tag {
                name: local(name),
                attributes,
                opens: !closing && !inside.trim_end().ends_with('/'),
                closes: closing,
                text: left.split('<').next().unwrap_or_default(),
            });
        }
    }
}

/// The next `name="value"` before the end of a tag, and what follows it.
fn attribute(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start();
    if text.starts_with(['>', '/']) {
        return None;
    }
    let (name, rest) = text.split_once('=')?;
    let rest = rest.trim_start();
    let quote = rest
        .chars()
        .next()
        .filter(|quote| matches!(quote, '"' | '\''))?;
    let (value, rest) = rest.get(1..)?.split_once(quote)?;
    Some((name.trim(), value, rest))
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn unescape(text: &str) -> String {
    text.trim()
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_read_whole() {
        let model = Model::parse(super::super::SAMPLE).unwrap();
        assert_eq!(
            (model.key.as_str(), model.name.as_deref()),
            ("approval", Some("Approval"))
        );
        assert_eq!(model.version_tag.as_deref(), Some("1.0.0"));
        assert_eq!(model.time_to_live, Some(30));
        assert_eq!(
            (model.start.id.as_str(), model.start.initiator.as_deref()),
            ("requested", Some("initiator"))
        );
        let fields: Vec<_> = model
            .start
            .fields
            .iter()
            .map(|f| {
                (
                    f.id.as_str(),
                    f.kind.as_str(),
                    f.default.as_deref(),
                    f.required,
                )
            })
            .collect();
        assert_eq!(
            fields,
            [
                ("subject", "string", None, true),
                ("amount", "long", Some("10"), false),
                ("due", "date", None, false),
                ("urgent", "boolean", Some("false"), false),
                ("kind", "enum", None, false),
            ]
        );
        let [approve] = model.tasks.as_slice() else {
            panic!("one user task: {:?}", model.tasks)
        };
        assert_eq!(
            (approve.id.as_str(), approve.name.as_deref()),
            ("approve", Some("Approve the request"))
        );
        assert_eq!(model.start.fields[4].values, ["purchase", "travel"]);
        assert_eq!(approve.candidate_groups, ["approvers"]);
        assert_eq!(
            approve.documentation.as_deref(),
            Some("Requested by ${initiator}")
        );
        assert_eq!(approve.fields.len(), 2);
        assert_eq!(model.ends[0].id, "decided");
        assert_eq!(model.flows_from("approve")[0].target, "decided");
    }

    #[test]
    fn a_gateways_flows_have_conditions_and_its_default_comes_last() {
        let model = Model::parse(
            "<process id='p'><startEvent id='s'/><sequenceFlow id='f0' sourceRef='s' targetRef='g'/>\
             <exclusiveGateway id='g' default='f1'/><sequenceFlow id='f1' sourceRef='g' targetRef='e1'/>\
             <sequenceFlow id='f2' sourceRef='g' targetRef='e2'><conditionExpression>${!a}</conditionExpression></sequenceFlow>\
             <endEvent id='e1'/><endEvent id='e2'/></process>",
        )
        .unwrap();
        let flows = model.flows_from("g").into_iter();
        let seen: Vec<_> = flows
            .map(|flow| (flow.target.as_str(), flow.condition.as_deref()))
            .collect();
        assert_eq!(seen, [("e2", Some("${!a}")), ("e1", None)]);
        assert_eq!(model.element("e2"), Element::End(&model.ends[1]));
        assert_eq!(model.element("s"), Element::Other);
    }

    #[test]
    fn comments_quotes_and_either_prefix_are_understood() {
        let model = Model::parse(
            "<?xml version='1.0'?><!-- <process id=\"no\"> --><definitions targetNamespace='t'><process id='a&amp;b'>\
             <startEvent id='s' operaton:initiator = \"starter>\"/><documentation>not the task's</documentation>\
             <userTask id='u' camunda:assignee='${starter}'/><endEvent id='e'/></process></definitions>",
        )
        .unwrap();
        assert_eq!(model.key, "a&b");
        assert_eq!(model.start.initiator.as_deref(), Some("starter>"));
        assert_eq!(model.start.documentation, None);
        assert_eq!(model.tasks[0].assignee.as_deref(), Some("${starter}"));
        assert_eq!(Model::parse("<definitions/>"), Err(NoProcess));
        assert_eq!(Model::parse(""), Err(NoProcess));
        assert_eq!(Model::parse("<process"), Err(NoProcess));
    }
}
