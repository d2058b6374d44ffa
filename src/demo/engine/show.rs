//! How the engine shows definitions, instances, tasks and history: the members of Operaton 1.0.3, by name and type.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::store::{Activity, Definition, Instance, State, Task};
use super::variables::show_date;

pub(super) fn show_definition(definition: &Definition) -> Value {
    let model = &definition.model;
    json!({
        "id": definition.id, "key": model.key, "category": model.category, "description": null, "name": model.name,
        "version": definition.version, "resource": format!("{}.bpmn", model.key), "deploymentId": definition.deployment,
        "diagram": null, "suspended": false, "tenantId": definition.tenant, "versionTag": model.version_tag,
        "historyTimeToLive": model.time_to_live, "startableInTasklist": true,
    })
}

pub(super) fn show_instance(instance: &Instance) -> Value {
    json!({
        "links": [], "id": instance.id, "definitionId": instance.definition.id, "businessKey": instance.business_key,
        "caseInstanceId": instance.case, "ended": !instance.runs(), "suspended": instance.state == State::Suspended,
        "tenantId": instance.definition.tenant, "definitionKey": instance.definition.model.key,
    })
}

/// The only execution that an instance has here.
pub(super) fn show_execution(instance: &Instance) -> Value {
    json!({
        "links": [], "id": instance.id, "processInstanceId": instance.id, "ended": !instance.runs(),
        "tenantId": instance.definition.tenant,
    })
}

pub(super) fn show_task((task, instance): (&Task, &Instance)) -> Value {
    json!({
        "id": task.id, "name": task.step.name, "assignee": task.assignee, "created": show_date(task.created),
        "due": null, "followUp": null, "lastUpdated": task.updated.map(show_date), "delegationState": null,
        "description": task.description, "executionId": task.instance, "owner": null, "parentTaskId": null,
        "priority": PRIORITY, "processDefinitionId": task.definition.id, "processInstanceId": task.instance,
        "taskDefinitionKey": task.step.id, "caseExecutionId": null, "caseInstanceId": null, "caseDefinitionId": null,
        "suspended": instance.state == State::Suspended, "formKey": task.step.form_key, "operatonFormRef": null,
        "tenantId": task.definition.tenant, "taskState": if task.updated.is_some() { "Updated" } else { "Created" },
    })
}

/// The tree of what is active: the instance with its one waiting task.
pub(super) fn show_tree(instance: &Instance) -> Value {
    let (id, definition) = (&instance.id, &instance.definition);
    let node = |own: &str,
                parent: Option<&str>,
                activity: &str,
                kind: &str,
                name: Option<&str>,
                children: Vec<Value>| {
        json!({
            "id": own, "parentActivityInstanceId": parent, "activityId": activity, "activityType": kind,
            "processInstanceId": id, "processDefinitionId": definition.id, "childActivityInstances": children,
            "childTransitionInstances": [], "executionIds": [id], "activityName": name, "incidentIds": [],
            "incidents": [], "name": name,
        })
    };
    let waiting = instance
        .activities
        .iter()
        .filter(|activity| activity.ended.is_none());
    let children = waiting
        .map(|activity| {
            node(
                &activity.id,
                Some(id),
                &activity.step.id,
                activity.kind,
                activity.step.name.as_deref(),
                Vec::new(),
            )
        })
        .collect();
    node(
        id,
        None,
        &definition.id,
        "processDefinition",
        definition.model.name.as_deref(),
        children,
    )
}

pub(super) fn show_past_instance(instance: &Instance) -> Value {
    let (id, definition) = (&instance.id, &instance.definition);
    json!({
        "id": id, "businessKey": instance.business_key, "processDefinitionId": definition.id,
        "processDefinitionKey": definition.model.key, "processDefinitionName": definition.model.name,
        "processDefinitionVersion": definition.version, "startTime": show_date(instance.started),
        "endTime": instance.ended().map(show_date), "removalTime": null,
        "durationInMillis": instance.ended().map(|ended| millis_between(instance.started, ended)),
        "startUserId": instance.started_by,
        "startActivityId": instance.activities.first().map(|activity| activity.step.id.as_str()),
        "deleteReason": null, "rootProcessInstanceId": id, "superProcessInstanceId": null, "superCaseInstanceId": null,
        "caseInstanceId": instance.case, "tenantId": definition.tenant,
        "state": match instance.state {
            State::Active => "ACTIVE",
            State::Suspended => "SUSPENDED",
            State::Completed(_) => "COMPLETED",
            State::Deleted(_) => "EXTERNALLY_TERMINATED",
        },
        "restartedProcessInstanceId": null,
    })
}

pub(super) fn show_past_activity((activity, instance): (&Activity, &Instance)) -> Value {
    let (id, definition) = (&instance.id, &instance.definition);
    json!({
        "id": activity.id, "parentActivityInstanceId": id, "activityId": activity.step.id, "activityName": activity.step.name,
        "activityType": activity.kind, "processDefinitionKey": definition.model.key, "processDefinitionId": definition.id,
        "processInstanceId": id, "executionId": id, "taskId": activity.task, "calledProcessInstanceId": null,
        "calledCaseInstanceId": null, "assignee": activity.assignee, "startTime": show_date(activity.started),
        "endTime": activity.ended.map(show_date),
        "durationInMillis": activity.ended.map(|ended| millis_between(activity.started, ended)),
        "canceled": activity.canceled, "completeScope": activity.kind == "noneEndEvent", "tenantId": definition.tenant,
        "removalTime": null, "rootProcessInstanceId": id,
    })
}

fn millis_between(start: SystemTime, end: SystemTime) -> u64 {
    end.duration_since(start).map_or(0, |taken| {
        u64::try_from(taken.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Every task of a model that says nothing of it.
pub(super) const PRIORITY: i64 = 50;
