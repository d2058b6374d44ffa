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
