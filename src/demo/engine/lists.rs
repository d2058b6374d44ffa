//! The lists of the API: which things a query's filters let through, and what they can be sorted by.

use serde_json::{Value, json};

use super::query::Query;
use super::refusal::Refusal;
use super::show::PRIORITY;
use super::store::{Activity, Definition, Instance, State, Store, Task};
use super::variables::show_date;

pub(super) fn definitions<'a>(
    store: &'a Store,
    query: &'a Query,
) -> impl Iterator<Item = &'a Definition> {
    store
        .definitions
        .iter()
        .map(AsRef::as_ref)
        .filter(move |definition: &&Definition| {
            query.equals("processDefinitionId", Some(&definition.id))
                && query.lists("processDefinitionIdIn", Some(&definition.id))
                && query.equals("key", Some(&definition.model.key))
                && query.lists("keysIn", Some(&definition.model.key))
                && query.like("keyLike", Some(&definition.model.key))
                && query.equals("name", definition.model.name.as_deref())
                && query.like("nameLike", definition.model.name.as_deref())
                && query.equals("version", Some(&definition.version.to_string()))
                && query.equals("deploymentId", Some(&definition.deployment))
                && query.lists("tenantIdIn", definition.tenant.as_deref())
                && query.demands("withoutTenantId", definition.tenant.is_none())
                && query.demands("latestVersion", store.is_latest(definition))
                && query.demands("suspended", false)
        })
}

pub(super) fn instances<'a>(
    store: &'a Store,
    query: &'a Query,
) -> impl Iterator<Item = &'a Instance> {
    store
        .instances
        .values()
        .filter(|instance| instance.runs())
        .filter(move |instance| {
            let definition = &instance.definition;
            query.lists("processInstanceIds", Some(&instance.id))
                && query.equals("businessKey", instance.business_key.as_deref())
                && query.like("businessKeyLike", instance.business_key.as_deref())
                && query.equals("caseInstanceId", instance.case.as_deref())
                // No instance calls another here.
                && query.equals("superProcessInstance", None)
                && query.equals("subProcessInstance", None)
                && query.equals("processDefinitionId", Some(&definition.id))
                && query.equals("processDefinitionKey", Some(&definition.model.key))
                && query.lists("processDefinitionKeyIn", Some(&definition.model.key))
                && query.lists("tenantIdIn", definition.tenant.as_deref())
                && query.demands("withoutTenantId", definition.tenant.is_none())
                && query.demands("active", instance.state == State::Active)
                && query.demands("suspended", instance.state == State::Suspended)
        })
}

pub(super) fn tasks<'a>(
    store: &'a Store,
    query: &'a Query,
) -> Result<impl Iterator<Item = (&'a Task, &'a Instance)>, Refusal> {
    let priority = query.integer("priority")?;
    let with_instance = |task: &'a Task| {
        store
            .instances
            .get(&task.instance)
            .map(|instance| (task, instance))
    };
    Ok(store.tasks.values().filter_map(with_instance).filter(move |(task, instance)| {
        let assignee = task.assignee.as_deref();
        let groups = &task.step.candidate_groups;
        query.equals("taskId", Some(&task.id))
            && query.equals("processInstanceId", Some(&task.instance))
            && query.lists("processInstanceIdIn", Some(&task.instance))
            && query.equals("processInstanceBusinessKey", instance.business_key.as_deref())
            && query.equals("processDefinitionId", Some(&task.definition.id))
            && query.equals("processDefinitionKey", Some(&task.definition.model.key))
            && query.lists("processDefinitionKeyIn", Some(&task.definition.model.key))
            && query.equals("taskDefinitionKey", Some(&task.step.id))
            && query.equals("name", task.step.name.as_deref())
            && query.like("nameLike", task.step.name.as_deref())
            && query.equals("assignee", assignee)
            && query.lists("assigneeIn", assignee)
            && query.demands("assigned", assignee.is_some())
            && query.demands("unassigned", assignee.is_none())
            // A group's tasks are those that nobody has yet, unless the assigned ones are asked for too.
            && query.first("candidateGroup").is_none_or(|group| {
                groups.iter().any(|known| known == group) && (assignee.is_none() || query.on("includeAssignedTasks"))
            })
            && query.demands("withCandidateGroups", !groups.is_empty())
            && query.lists("tenantIdIn", task.definition.tenant.as_deref())
            && query.demands("active", instance.state == State::Active)
            && query.demands("suspended", instance.state == State::Suspended)
            && priority.is_none_or(|priority| priority == PRIORITY)
    }))
}

pub(super) fn past_instances<'a>(
    store: &'a Store,
    query: &'a Query,
) -> impl Iterator<Item = &'a Instance> {
    store.instances.values().filter(move |instance| {
        let definition = &instance.definition;
        query.equals("processInstanceId", Some(&instance.id))
            && query.lists("processInstanceIds", Some(&instance.id))
            && query.equals(
                "processInstanceBusinessKey",
                instance.business_key.as_deref(),
            )
            && query.equals("processDefinitionId", Some(&definition.id))
            && query.equals("processDefinitionKey", Some(&definition.model.key))
            && query.equals("startedBy", Some(&instance.started_by))
            && query.demands("finished", !instance.runs())
            && query.demands("unfinished", instance.runs())
            && query.demands("active", instance.state == State::Active)
            && query.demands("suspended", instance.state == State::Suspended)
            && query.demands("completed", matches!(instance.state, State::Completed(_)))
            && query.demands(
                "externallyTerminated",
                matches!(instance.state, State::Deleted(_)),
            )
    })
}

pub(super) fn past_activities<'a>(
    store: &'a Store,
    query: &'a Query,
) -> impl Iterator<Item = (&'a Activity, &'a Instance)> {
    store
        .instances
        .values()
        .filter(|instance| {
            query.equals("processInstanceId", Some(&instance.id))
                && query.equals("processDefinitionId", Some(&instance.definition.id))
        })
        .flat_map(|instance| {
            instance
                .activities
                .iter()
                .map(move |activity| (activity, instance))
        })
        .filter(|(activity, _)| {
            query.equals("activityInstanceId", Some(&activity.id))
                && query.equals("activityId", Some(&activity.step.id))
                && query.equals("activityName", activity.step.name.as_deref())
                && query.equals("activityType", Some(activity.kind))
                && query.equals("taskAssignee", activity.assignee.as_deref())
                && query.demands("finished", activity.ended.is_some())
                && query.demands("unfinished", activity.ended.is_none())
                && query.demands("canceled", activity.canceled)
        })
}

pub(super) fn past_variables(store: &Store, query: &Query) -> Result<Value, Refusal> {
    let deserialize = query.deserializes();
    let mut found = Vec::new();
    for instance in store.instances.values().filter(|instance| {
        query.equals("processInstanceId", Some(&instance.id))
            && query.lists("processInstanceIdIn", Some(&instance.id))
    }) {
        let (definition, id) = (&instance.definition, &instance.id);
        for (name, kept) in &instance.variables {
            if !query.equals("variableName", Some(name))
                || !query.like("variableNameLike", Some(name))
            {
                continue;
            }
            let mut shown = json!({
                "id": kept.id, "name": name,
                "processDefinitionKey": definition.model.key, "processDefinitionId": definition.id,
                "processInstanceId": id, "executionId": id, "activityInstanceId": id,
                "caseDefinitionKey": null, "caseDefinitionId": null, "caseInstanceId": null, "caseExecutionId": null,
                "taskId": null, "errorMessage": null, "tenantId": definition.tenant, "state": "CREATED",
                "createTime": show_date(kept.created), "removalTime": null, "rootProcessInstanceId": id,
            });
            if let (Value::Object(shown), Value::Object(value)) =
                (&mut shown, kept.variable.show(deserialize)?)
            {
                shown.extend(value);
            }
            found.push(shown);
        }
    }
    query.page(found.into_iter(), &PAST_VARIABLE_SORTS, |shown| shown)
}

pub(super) const DEFINITION_SORTS: [(&str, &str); 7] = [
    ("category", "category"),
    ("key", "key"),
    ("id", "id"),
    ("name", "name"),
    ("version", "version"),
    ("deploymentId", "deploymentId"),
    ("tenantId", "tenantId"),
];
pub(super) const INSTANCE_SORTS: [(&str, &str); 5] = [
    ("instanceId", "id"),
    ("definitionKey", "definitionKey"),
    ("definitionId", "definitionId"),
    ("tenantId", "tenantId"),
    ("businessKey", "businessKey"),
];
pub(super) const TASK_SORTS: [(&str, &str); 13] = [
    ("instanceId", "processInstanceId"),
    ("caseInstanceId", "caseInstanceId"),
    ("dueDate", "due"),
    ("executionId", "executionId"),
    ("assignee", "assignee"),
    ("created", "created"),
    ("lastUpdated", "lastUpdated"),
    ("followUpDate", "followUp"),
    ("description", "description"),
    ("id", "id"),
    ("name", "name"),
    ("priority", "priority"),
    ("tenantId", "tenantId"),
];
pub(super) const PAST_INSTANCE_SORTS: [(&str, &str); 10] = [
    ("instanceId", "id"),
    ("definitionId", "processDefinitionId"),
    ("definitionKey", "processDefinitionKey"),
    ("definitionName", "processDefinitionName"),
    ("definitionVersion", "processDefinitionVersion"),
    ("businessKey", "businessKey"),
    ("startTime", "startTime"),
    ("endTime", "endTime"),
    ("duration", "durationInMillis"),
    ("tenantId", "tenantId"),
];
pub(super) const PAST_ACTIVITY_SORTS: [(&str, &str); 11] = [
    ("activityInstanceId", "id"),
    ("instanceId", "processInstanceId"),
    ("executionId", "executionId"),
    ("activityId", "activityId"),
    ("activityName", "activityName"),
    ("activityType", "activityType"),
    ("startTime", "startTime"),
    ("endTime", "endTime"),
    ("duration", "durationInMillis"),
    ("definitionId", "processDefinitionId"),
    ("tenantId", "tenantId"),
];
pub(super) const PAST_VARIABLE_SORTS: [(&str, &str); 3] = [
    ("instanceId", "processInstanceId"),
    ("variableName", "name"),
    ("tenantId", "tenantId"),
];
