//! The models that the tests deploy.

use std::fmt::Write as _;

/// A document with one process for each key: a start, a user task to wait in (see [`task`]), an end.
pub(crate) fn waiting<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> String {
    let mut document = String::from(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" targetNamespace="acceptance">"#,
    );
    for key in keys {
        let key = key.as_ref();
        let task = task(key);
        let written = write!(
            document,
            r#"
  <process id="{key}" isExecutable="true">
    <startEvent id="{key}-start"/>
    <sequenceFlow id="{key}-in" sourceRef="{key}-start" targetRef="{task}"/>
    <userTask id="{task}"/>
    <sequenceFlow id="{key}-out" sourceRef="{task}" targetRef="{key}-end"/>
    <endEvent id="{key}-end"/>
  </process>"#
        );
        written.expect("memory");
    }
    document + "\n</definitions>\n"
}

/// The id of the user task in the process of that key.
pub(crate) fn task(key: &str) -> String {
    format!("{key}-task")
}

/// A case, a decision and a graph of decisions, each with the key `key`: file name and document.
pub(crate) const BESIDE_BPMN: [(&str, &str); 3] = [
    (
        "case.cmmn",
        r#"<definitions xmlns="http://www.omg.org/spec/CMMN/20151109/MODEL" targetNamespace="acceptance">
  <case id="key">
    <casePlanModel id="plan"><planItem id="item" definitionRef="task"/><humanTask id="task"/></casePlanModel>
  </case>
</definitions>"#,
    ),
    (
        "decision.dmn",
        r#"<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/" id="alone" name="alone" namespace="acceptance">
  <decision id="key" name="key">
    <decisionTable id="table"><output id="output" name="output" typeRef="string"/></decisionTable>
  </decision>
</definitions>"#,
    ),
    (
        "graph.dmn",
        r##"<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/" id="key" name="key" namespace="acceptance">
  <decision id="first" name="first">
    <decisionTable id="table-1"><output id="output-1" name="output" typeRef="string"/></decisionTable>
  </decision>
  <decision id="second" name="second">
    <informationRequirement id="requirement"><requiredDecision href="#first"/></informationRequirement>
    <decisionTable id="table-2"><output id="output-2" name="output" typeRef="string"/></decisionTable>
  </decision>
</definitions>"##,
    ),
];
