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

/// A process that waits everywhere at once: at the user task `task`, the external task `external` of the
/// topic [`EVERYWHERE`], the receive task `receive` and the signal event `catch`; a message
/// `everywhere-aside` opens a scope of its own with the task `aside-task`. Its ids are those of
/// every other key, so that an instance of one can be migrated to the other.
pub(crate) fn everywhere(key: &str) -> String {
    let mut flows = String::new();
    for (number, (from, to)) in [
        ("start", "fork"),
        ("fork", "task"),
        ("fork", "external"),
        ("fork", "receive"),
        ("fork", "catch"),
        ("task", "after"),
        ("task-error", "after"),
        ("task-escalation", "after"),
        ("external", "after"),
        ("external-error", "after"),
        ("receive", "after"),
        ("catch", "after"),
    ]
    .iter()
    .enumerate()
    {
        let written = writeln!(
            flows,
            r#"    <sequenceFlow id="flow-{number}" sourceRef="{from}" targetRef="{to}"/>"#
        );
        written.expect("memory");
    }
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="acceptance">
  <message id="message" name="{EVERYWHERE}"/>
  <message id="aside" name="{EVERYWHERE}-aside"/>
  <signal id="signal" name="{EVERYWHERE}"/>
  <error id="error" errorCode="{EVERYWHERE}"/>
  <escalation id="escalation" escalationCode="{EVERYWHERE}"/>
  <process id="{key}" isExecutable="true">
    <startEvent id="start"/>
    <parallelGateway id="fork"/>
    <userTask id="task"/>
    <boundaryEvent id="task-error" attachedToRef="task"><errorEventDefinition errorRef="error"/></boundaryEvent>
    <boundaryEvent id="task-escalation" attachedToRef="task"><escalationEventDefinition escalationRef="escalation"/></boundaryEvent>
    <serviceTask id="external" camunda:type="external" camunda:topic="{EVERYWHERE}"/>
    <boundaryEvent id="external-error" attachedToRef="external"><errorEventDefinition errorRef="error"/></boundaryEvent>
    <receiveTask id="receive" messageRef="message"/>
    <intermediateCatchEvent id="catch"><signalEventDefinition signalRef="signal"/></intermediateCatchEvent>
    <userTask id="after"/>
    <subProcess id="beside" triggeredByEvent="true">
      <startEvent id="aside-start" isInterrupting="false"><messageEventDefinition messageRef="aside"/></startEvent>
      <userTask id="aside-task"/>
      <sequenceFlow id="aside-flow" sourceRef="aside-start" targetRef="aside-task"/>
    </subProcess>
{flows}  </process>
</definitions>
"#
    )
}

/// The name of all that [`everywhere`] waits for.
pub(crate) const EVERYWHERE: &str = "everywhere";

/// A process that waits in a task once the message `KEY-message`, the signal `KEY-signal` or a variable
/// `KEY` has started it. `initiator`, if not empty, is the model's name for its initiator.
pub(crate) fn by_event(key: &str, initiator: &str) -> String {
    let task = task(key);
    let initiator = if initiator.is_empty() {
        String::new()
    } else {
        format!(r#" operaton:initiator="{initiator}""#)
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:operaton="http://operaton.org/schema/1.0/bpmn" targetNamespace="acceptance">
  <message id="message" name="{key}-message"/>
  <signal id="signal" name="{key}-signal"/>
  <process id="{key}" isExecutable="true">
    <startEvent id="by-message"{initiator}><messageEventDefinition messageRef="message"/></startEvent>
    <startEvent id="by-signal"{initiator}><signalEventDefinition signalRef="signal"/></startEvent>
    <startEvent id="by-condition"{initiator}><conditionalEventDefinition>
      <condition xsi:type="tFormalExpression">${{execution.getVariable('{key}') == 'yes'}}</condition>
    </conditionalEventDefinition></startEvent>
    <sequenceFlow id="a" sourceRef="by-message" targetRef="{task}"/>
    <sequenceFlow id="b" sourceRef="by-signal" targetRef="{task}"/>
    <sequenceFlow id="c" sourceRef="by-condition" targetRef="{task}"/>
    <userTask id="{task}"/>
  </process>
</definitions>
"#
    )
}

/// A process whose start and task have forms: `amount`, at least 10, and `note` with a default.
pub(crate) fn with_forms(key: &str) -> String {
    let task = task(key);
    let form = r#"<extensionElements><camunda:formData>
      <camunda:formField id="amount" type="long"><camunda:validation>
        <camunda:constraint name="required"/><camunda:constraint name="min" config="10"/>
      </camunda:validation></camunda:formField>
      <camunda:formField id="note" type="string" defaultValue="none"/>
    </camunda:formData></extensionElements>"#;
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="acceptance">
  <process id="{key}" name="With forms" isExecutable="true">
    <startEvent id="start">{form}</startEvent>
    <sequenceFlow id="flow" sourceRef="start" targetRef="{task}"/>
    <userTask id="{task}" name="Fill in">{form}</userTask>
  </process>
</definitions>
"#
    )
}

/// A process that goes on to a service task which fails: at once, or once its task is complete.
pub(crate) fn failing(key: &str, at_once: bool) -> String {
    let task = task(key);
    let first = if at_once { "fail" } else { &task };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="acceptance">
  <process id="{key}" isExecutable="true">
    <startEvent id="start"/>
    <sequenceFlow id="flow" sourceRef="start" targetRef="{first}"/>
    <userTask id="{task}"/>
    <sequenceFlow id="on" sourceRef="{task}" targetRef="fail"/>
    <serviceTask id="fail" camunda:expression="${{noSuchBean.call()}}"/>
  </process>
</definitions>
"#
    )
}

/// A process that a timer starts, far from now.
pub(crate) fn by_timer(key: &str) -> String {
    let task = task(key);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" targetNamespace="acceptance">
  <process id="{key}" isExecutable="true">
    <startEvent id="start"><timerEventDefinition><timeDate>2999-01-01T00:00:00</timeDate></timerEventDefinition></startEvent>
    <sequenceFlow id="flow" sourceRef="start" targetRef="{task}"/>
    <userTask id="{task}"/>
  </process>
</definitions>
"#
    )
}

/// A process whose model names its initiator `name`, with the prefix for the namespace of Operaton or of
/// Camunda, and gives its task to that one.
pub(crate) fn with_initiator(key: &str, prefix: &str, name: &str) -> String {
    let task = task(key);
    let namespace = if prefix == "operaton" {
        "http://operaton.org/schema/1.0/bpmn"
    } else {
        "http://camunda.org/schema/1.0/bpmn"
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:{prefix}="{namespace}" targetNamespace="acceptance">
  <process id="{key}" isExecutable="true">
    <startEvent id="start" {prefix}:initiator="{name}"/>
    <sequenceFlow id="flow" sourceRef="start" targetRef="{task}"/>
    <userTask id="{task}" {prefix}:assignee="${{{name}}}"/>
  </process>
</definitions>
"#
    )
}

/// A process whose model names its initiator `starter`, and which calls another with all its variables and
/// takes all of its back; then it waits in a task.
pub(crate) fn calling(key: &str, called: &str) -> String {
    let task = task(key);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:operaton="http://operaton.org/schema/1.0/bpmn" targetNamespace="acceptance">
  <process id="{key}" isExecutable="true">
    <startEvent id="start" operaton:initiator="starter"/>
    <sequenceFlow id="in" sourceRef="start" targetRef="call"/>
    <callActivity id="call" calledElement="{called}">
      <extensionElements><operaton:in variables="all"/><operaton:out variables="all"/></extensionElements>
    </callActivity>
    <sequenceFlow id="out" sourceRef="call" targetRef="{task}"/>
    <userTask id="{task}"/>
  </process>
</definitions>
"#
    )
}

/// A case with two things to be started by hand: the task `human`, and `called`, a process that gets all
/// variables.
pub(crate) fn case(key: &str, process: &str) -> String {
    format!(
        r#"<definitions xmlns="http://www.omg.org/spec/CMMN/20151109/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/cmmn" targetNamespace="acceptance">
  <case id="{key}">
    <casePlanModel id="plan">
      <planItem id="human" definitionRef="human-task"><itemControl><manualActivationRule/></itemControl></planItem>
      <planItem id="called" definitionRef="process-task"><itemControl><manualActivationRule/></itemControl></planItem>
      <humanTask id="human-task"/>
      <processTask id="process-task" processRef="{process}">
        <extensionElements><camunda:in variables="all"/></extensionElements>
      </processTask>
    </casePlanModel>
  </case>
</definitions>"#
    )
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
