//! The engine's REST API over the store: one function per operation, answers shaped as Operaton 1.0.3's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::lock;
use super::json;
use super::lists::{
    DEFINITION_SORTS, INSTANCE_SORTS, PAST_ACTIVITY_SORTS, PAST_INSTANCE_SORTS, TASK_SORTS,
    definitions, instances, past_activities, past_instances, past_variables, tasks,
};
use super::query::Query;
use super::refusal::Refusal;
use super::routes::{Found, Operation, Route, find};
use super::show::{
    show_definition, show_execution, show_instance, show_past_activity, show_past_instance,
    show_task, show_tree,
};
use super::store::{Definition, Instance, Store, Task};
use super::variables::{Variable, Variables, read_all, show_all};

/// A request that reached the API: credentials checked, path below the engine's name.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// The account of the Basic credentials.
    pub(super) account: &'a str,
    /// What absolute links begin with: scheme, the request's `Host`, path up to the engine.
    pub(super) base: &'a str,
}

/// An answer before it becomes HTTP.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// 200 with JSON.
    Json(Value),
    /// 200 with JSON that may be kept (`/xml`): no `Cache-Control`.
    Lasting(Value),
    /// 204.
    Empty,
    /// The answer of OPTIONS: the methods.
    Options(Vec<&'static str>),
}

/// Answers a call. A long poll waits outside the lock.
pub(super) async fn answer(store: &Mutex<Store>, call: Call<'_>) -> Result<Answer, Refusal> {
    let found = match find(call.method, call.path) {
        Ok(Route::Found(found)) => found,
        Ok(Route::Options(methods)) => return Ok(Answer::Options(methods)),
        // A definition's key is looked up before the method is: `POST /process-definition/key/start` asks for key `start`.
        Err(refusal) => return Err(unknown_key(&lock(store), call.path).unwrap_or(refusal)),
    };
    if !accepts_json(call.headers) {
        return Err(Refusal::http(StatusCode::NOT_ACCEPTABLE));
    }
    if found.operation == Operation::FetchAndLock {
        return fetch_and_lock(&call).await;
    }
    let Found {
        operation,
        parameters,
    } = found;
    let request = Request { call, parameters };
    request.run(operation, &mut lock(store))
}

struct Request<'a> {
    call: Call<'a>,
    parameters: Vec<String>,
}

impl Request<'_> {
    fn run(&self, operation: Operation, store: &mut Store) -> Result<Answer, Refusal> {
        let query = Query::parse(self.call.query);
        let id = self
            .parameters
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        Ok(Answer::Json(match operation {
            Operation::Version => json!({"version": "1.0.3"}),
            Operation::Engines => json!([{"name": "default"}]),
            Operation::Definitions => {
                query.page(definitions(store, &query), &DEFINITION_SORTS, |d| {
                    show_definition(d)
                })?
            }
            Operation::DefinitionCount => count(definitions(store, &query)),
            Operation::Definition => show_definition(self.definition(store)?),
            Operation::Xml => {
                let definition = self.definition(store)?;
                return Ok(Answer::Lasting(
                    json!({"id": definition.id, "bpmn20Xml": definition.xml}),
                ));
            }
            Operation::StartForm => {
                let definition = self.definition(store)?;
                let fields: Variables = definition
                    .model
                    .start
                    .fields
                    .iter()
                    .map(|field| (field.id.clone(), Variable::of_field(field)))
                    .collect();
                show_all(
                    fields
                        .iter()
                        .filter(|(name, _)| query.lists("variableNames", Some(name))),
                    true,
                )?
            }
            Operation::Start => self.start(store, false)?,
            Operation::SubmitStartForm => self.start(store, true)?,
            Operation::Instances => {
                query.page(instances(store, &query), &INSTANCE_SORTS, show_instance)?
            }
            Operation::InstanceCount => count(instances(store, &query)),
            Operation::Instance => show_instance(store.running(id).ok_or_else(|| no_instance(id))?),
            Operation::Execution => {
                show_execution(store.running(id).ok_or_else(|| no_instance(id))?)
            }
            Operation::DeleteInstance => {
                store.delete(id)?;
                return Ok(Answer::Empty);
            }
            Operation::Suspend => {
                let suspended = self
                    .body()?
                    .get("suspended")
                    .and_then(Value::as_bool)
                    .unwrap_or(false);
                store.suspend(id, suspended);
                return Ok(Answer::Empty);
            }
            Operation::Variables => {
                show_all(running(store, id)?.plain_variables(), query.deserializes())?
            }
            Operation::Variable => {
                let name = self.second();
                let kept = running(store, id)?.variables.get(name).ok_or_else(|| {
                    not_found(&format!(
                        "process instance variable with name {name} does not exist"
                    ))
                })?;
                kept.variable
                    .show(query.first("deserializeValue") != Some("false"))?
            }
            Operation::PutVariable => {
                let variable = Variable::read(&Value::Object(self.body()?), store.spin())?;
                let variables = variable.map(|variable| (self.second().to_owned(), variable));
                running_mut(store, id)?.set(variables.into_iter().collect());
                return Ok(Answer::Empty);
            }
            Operation::DeleteVariable => {
                running_mut(store, id)?.variables.remove(self.second());
                return Ok(Answer::Empty);
            }
            Operation::ModifyVariables => {
                let body = self.body()?;
                let modifications = read_all(body.get("modifications"), store.spin())?;
                let instance = running_mut(store, id)?;
                instance.set(modifications);
                let deletions = body
                    .get("deletions")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                for name in deletions.filter_map(Value::as_str) {
                    instance.variables.remove(name);
                }
                return Ok(Answer::Empty);
            }
            Operation::ActivityTree => show_tree(store.running(id).ok_or_else(|| no_instance(id))?),
            Operation::Tasks => {
                let tasks = tasks(store, &query)?;
                query.page(tasks, &TASK_SORTS, show_task)?
            }
            Operation::TaskCount => count(tasks(store, &query)?),
            Operation::Task => show_task(task(store, id)?),
            Operation::TaskForm => {
                let (task, _) = task(store, id)?;
                let generated = (!task.step.fields.is_empty())
                    .then(|| format!("embedded:engine://engine/:engine/task/{id}/rendered-form"));
                json!({"key": task.step.form_key.clone().or(generated), "operatonFormRef": null, "contextPath": null})
            }
            Operation::TaskVariables => {
                let (task, instance) = task(store, id)?;
                let mut variables: Variables = task
                    .step
                    .fields
                    .iter()
                    .map(|field| (field.id.clone(), Variable::of_field(field)))
                    .collect();
                variables.extend(
                    instance
                        .plain_variables()
                        .map(|(name, variable)| (name.clone(), variable.clone())),
                );
                show_all(
                    variables
                        .iter()
                        .filter(|(name, _)| query.lists("variableNames", Some(name))),
                    query.deserializes(),
                )?
            }
            Operation::Claim | Operation::Assign => {
                let body = self.body()?;
                let person = body.get("userId").and_then(Value::as_str);
                store.assign(id, person, operation == Operation::Claim)?;
                return Ok(Answer::Empty);
            }
            Operation::Unclaim => {
                store.assign(id, None, false)?;
                return Ok(Answer::Empty);
            }
            Operation::Complete | Operation::SubmitTaskForm => {
                let body = self.body()?;
                let instance = store.complete(id, &body, operation == Operation::SubmitTaskForm)?;
                if !returns_variables(&body) {
                    return Ok(Answer::Empty);
                }
                show_all(instance.plain_variables(), false)?
            }
            Operation::PastInstances => query.page(
                past_instances(store, &query),
                &PAST_INSTANCE_SORTS,
                show_past_instance,
            )?,
            Operation::PastInstanceCount => count(past_instances(store, &query)),
            Operation::PastInstance => {
                show_past_instance(store.instances.get(id).ok_or_else(|| {
                    not_found(&format!(
                        "Historic process instance with id {id} does not exist"
                    ))
                })?)
            }
            Operation::PastActivities => query.page(
                past_activities(store, &query),
                &PAST_ACTIVITY_SORTS,
                show_past_activity,
            )?,
            Operation::PastVariables => past_variables(store, &query)?,
            Operation::Message => {
                let body = self.body()?;
                let name = body
                    .get("messageName")
                    .and_then(Value::as_str)
                    .ok_or_else(|| {
                        Refusal::invalid(StatusCode::BAD_REQUEST, "No message name supplied")
                    })?;
                // No model here waits for a message.
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "RestException",
                    &format!(
                        "org.operaton.bpm.engine.MismatchingMessageCorrelationException: Cannot correlate message '{name}': \
                         No process definition or execution matches the parameters"
                    ),
                    Some(0),
                ));
            }
            // A signal that nothing waits for is 204.
            Operation::Signal => {
                self.body()?;
                return Ok(Answer::Empty);
            }
            Operation::FetchAndLock => json!([]),
        }))
    }

    fn body(&self) -> Result<Map<String, Value>, Refusal> {
        json::read(self.call.headers, self.call.body)
    }

    fn second(&self) -> &str {
        self.parameters
            .get(1)
            .map(String::as_str)
            .unwrap_or_default()
    }

    /// The definition that the path names by id, by key, or by key and tenant.
    fn definition<'s>(&self, store: &'s Store) -> Result<&'s Arc<Definition>, Refusal> {
        let first = self
            .parameters
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        if let Some(refusal) = unknown_key(store, self.call.path) {
            return Err(refusal);
        }
        let by_key = key_segments(self.call.path).is_some();
        let found = if by_key {
            store.newest(first, self.parameters.get(1).map(String::as_str))
        } else {
            store
                .definitions
                .iter()
                .find(|definition| definition.id == first)
        };
        found.ok_or_else(|| {
            let status = if self.call.path.ends_with("/xml") {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::NOT_FOUND
            };
            Refusal::invalid(status, &format!("No matching definition with id {first}"))
        })
    }

    fn start(&self, store: &mut Store, form: bool) -> Result<Value, Refusal> {
        if let Some(refusal) = unknown_key(store, self.call.path) {
            return Err(refusal);
        }
        let body = self.body()?;
        let first = self
            .parameters
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        // Unlike a GET, a start by an unknown id is the engine's own failure.
        let definition = Arc::clone(self.definition(store).map_err(|_| {
            Refusal::rest(&format!(
                "Cannot instantiate process definition {first}: no deployed process definition found with id '{first}': \
                 processDefinition is null"
            ))
        })?);
        let instance = if form {
            store.submit_start_form(&definition, &body, self.call.account)?
        } else {
            store.start(&definition, &body, self.call.account)?
        };
        let mut shown = show_instance(instance);
        if let Value::Object(members) = &mut shown {
            let href = format!("{}/process-instance/{}", self.call.base, instance.id);
            members.insert(
                "links".to_owned(),
                json!([{"method": "GET", "href": href, "rel": "self"}]),
            );
            if !form && returns_variables(&body) {
                members.insert(
                    "variables".to_owned(),
                    show_all(instance.plain_variables(), false)?,
                );
            }
        }
        Ok(shown)
    }
}

async fn fetch_and_lock(call: &Call<'_>) -> Result<Answer, Refusal> {
    let body = json::read(call.headers, call.body)?;
    if body.get("workerId").and_then(Value::as_str).is_none() {
        return Err(Refusal::engine("NullValueException", "workerId is null"));
    }
    match body.get("asyncResponseTimeout").and_then(Value::as_u64) {
        Some(millis) if millis > LONGEST_POLL_MILLIS => Err(Refusal::invalid(
            StatusCode::BAD_REQUEST,
            &format!(
                "The asynchronous response timeout cannot be set to a value greater than {LONGEST_POLL_MILLIS} milliseconds"
            ),
        )),
        Some(millis) => {
            // No external task is ever made here, so the whole time passes.
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(Answer::Json(json!([])))
        }
        None => Ok(Answer::Json(json!([]))),
    }
}

/// The segments after `/process-definition/key`, when the path is of that form.
fn key_segments(path: &str) -> Option<Vec<String>> {
    let mut segments = path
        .split('/')
        .skip(1)
        .map(|segment| segment.split(';').next().unwrap_or_default());
    (segments.next() == Some("process-definition") && segments.next() == Some("key")).then(|| {
        segments
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect()
    })
}

/// The refusal of a path that names a definition by a key, or key and tenant, that does not exist.
fn unknown_key(store: &Store, path: &str) -> Option<Refusal> {
    let segments = key_segments(path)?;
    let key = segments.first().filter(|key| !key.is_empty())?;
    let tenant = segments.get(2).filter(|_| {
        segments
            .get(1)
            .is_some_and(|segment| segment == "tenant-id")
    });
    if store.newest(key, tenant.map(String::as_str)).is_some() {
        return None;
    }
    let tenant = tenant.map_or_else(
        || "no tenant-id".to_owned(),
        |tenant| format!("tenant-id: {tenant}"),
    );
    Some(Refusal::new(
        StatusCode::NOT_FOUND,
        "RestException",
        &format!("No matching process definition with key: {key} and {tenant}"),
        None,
    ))
}

/// The engine's negotiation, as far as JSON alone is offered; `q=0` is ignored there too.
fn accepts_json(headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(http::header::ACCEPT).iter().peekable();
    given.peek().is_none()
        || given.any(|value| {
            value.to_str().unwrap_or_default().split(',').any(|range| {
                let range = range.split(';').next().unwrap_or_default().trim();
                ["*/*", "application/*", "application/json"]
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(range))
            })
        })
}

fn returns_variables(body: &Map<String, Value>) -> bool {
    body.get("withVariablesInReturn")
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

fn count<T>(items: impl Iterator<Item = T>) -> Value {
    json!({"count": items.count()})
}

fn running<'s>(store: &'s Store, id: &str) -> Result<&'s Instance, Refusal> {
    store.running(id).ok_or_else(|| no_execution(id))
}

fn running_mut<'s>(store: &'s mut Store, id: &str) -> Result<&'s mut Instance, Refusal> {
    store.running_mut(id).ok_or_else(|| no_execution(id))
}

fn task<'s>(store: &'s Store, id: &str) -> Result<(&'s Task, &'s Instance), Refusal> {
    let task = store
        .tasks
        .get(id)
        .and_then(|task| Some((task, store.instances.get(&task.instance)?)));
    task.ok_or_else(|| not_found(&format!("No matching task with id {id}")))
}

fn not_found(message: &str) -> Refusal {
    Refusal::invalid(StatusCode::NOT_FOUND, message)
}

fn no_instance(id: &str) -> Refusal {
    not_found(&format!("Process instance with id {id} does not exist"))
}

/// For the variables of an unknown or ended instance: 500, not 404.
fn no_execution(id: &str) -> Refusal {
    Refusal::engine(
        "NullValueException",
        &format!("execution {id} doesn't exist: execution is null"),
    )
}

const LONGEST_POLL_MILLIS: u64 = 1_800_000;
