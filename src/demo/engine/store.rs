//! What the engine remembers: definitions, instances with their tasks, variables and history.
//!
//! An instance is one token on its way through the model. Nothing is written down: the oldest
//! ended instances, then the oldest of all, are forgotten when there are too many.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::model::{Field, Model, Step};
use super::refusal::Refusal;
use super::variables::{Variable, Variables, read_all};
use super::walk::{Entry, advance, enter, place_of};

/// All state of one engine. Ids are UUIDs of version 7, so maps by id are in the order of creation.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) definitions: Vec<Arc<Definition>>,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) tasks: BTreeMap<String, Task>,
    /// Ids in the order in which they ended.
    ended: VecDeque<String>,
    keep: usize,
    /// Whether values of type `Json` and `Xml` are known.
    spin: bool,
}

/// A deployed process.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) id: String,
    pub(super) deployment: String,
    pub(super) version: usize,
    pub(super) tenant: Option<String>,
    pub(super) model: Model,
    pub(super) xml: String,
}

/// A running or ended instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) definition: Arc<Definition>,
    pub(super) business_key: Option<String>,
    pub(super) case: Option<String>,
    pub(super) variables: BTreeMap<String, Kept>,
    pub(super) activities: Vec<Activity>,
    pub(super) started: SystemTime,
    pub(super) started_by: String,
    pub(super) state: State,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Suspended,
    Completed(SystemTime),
    Deleted(SystemTime),
}

/// A variable with what the history says of it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) variable: Variable,
    pub(super) created: SystemTime,
}

/// One passage through a start event, user task, gateway or end event.
#[derive(Debug)]
pub(super) struct Activity {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) step: Step,
    pub(super) task: Option<String>,
    pub(super) assignee: Option<String>,
    pub(super) started: SystemTime,
    pub(super) ended: Option<SystemTime>,
    pub(super) canceled: bool,
}

/// A user task that waits.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) instance: String,
    pub(super) definition: Arc<Definition>,
    pub(super) step: Step,
    pub(super) assignee: Option<String>,
    pub(super) description: Option<String>,
    pub(super) created: SystemTime,
    pub(super) updated: Option<SystemTime>,
}

impl Instance {
    pub(super) fn runs(&self) -> bool {
        self.ended().is_none()
    }

    pub(super) fn ended(&self) -> Option<SystemTime> {
        match self.state {
            State::Active | State::Suspended => None,
            State::Completed(at) | State::Deleted(at) => Some(at),
        }
    }

    /// Sets these variables; ones that exist keep their id.
    pub(super) fn set(&mut self, variables: Variables) {
        for (name, variable) in variables {
            match self.variables.get_mut(&name) {
                Some(kept) => kept.variable = variable,
                None => {
                    self.variables.insert(
                        name,
                        Kept {
                            id: new_id(),
                            variable,
                            created: SystemTime::now(),
                        },
                    );
                }
            }
        }
    }

    pub(super) fn plain_variables(&self) -> impl Iterator<Item = (&String, &Variable)> {
        self.variables
            .iter()
            .map(|(name, kept)| (name, &kept.variable))
    }
}

impl Store {
    pub(super) fn new(keep: usize, spin: bool) -> Self {
        Self {
            definitions: Vec::new(),
            instances: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ended: VecDeque::new(),
            keep: keep.max(1),
            spin,
        }
    }

    /// Adds a definition, as the next version of its key, and returns its id.
    pub(super) fn deploy(&mut self, model: Model, xml: &str, tenant: Option<&str>) -> String {
        let version = 1 + self
            .definitions
            .iter()
            .filter(|d| d.model.key == model.key && d.tenant.as_deref() == tenant)
            .count();
        let id = format!("{}:{version}:{}", model.key, new_id());
        self.definitions.push(Arc::new(Definition {
            id: id.clone(),
            deployment: new_id(),
            version,
            tenant: tenant.map(String::from),
            model,
            xml: xml.to_owned(),
        }));
        id
    }

    /// The newest version of a key among the definitions of one tenant, or of none.
    pub(super) fn newest(&self, key: &str, tenant: Option<&str>) -> Option<&Arc<Definition>> {
        self.definitions
            .iter()
            .rfind(|d| d.model.key == key && d.tenant.as_deref() == tenant)
    }

    pub(super) fn is_latest(&self, definition: &Definition) -> bool {
        self.newest(&definition.model.key, definition.tenant.as_deref())
            .is_some_and(|newest| newest.id == definition.id)
    }

    pub(super) fn spin(&self) -> bool {
        self.spin
    }

    /// An instance that runs.
    pub(super) fn running(&self, id: &str) -> Option<&Instance> {
        self.instances.get(id).filter(|instance| instance.runs())
    }

    pub(super) fn running_mut(&mut self, id: &str) -> Option<&mut Instance> {
        self.instances
            .get_mut(id)
            .filter(|instance| instance.runs())
    }

    /// Starts an instance of a definition with the members of a start request.
    ///
    /// # Errors
    /// As the engine has them: 400 for a bad value, 500 for bad start instructions and failing expressions.
    pub(super) fn start(
        &mut self,
        definition: &Arc<Definition>,
        body: &Map<String, Value>,
        account: &str,
    ) -> Result<&Instance, Refusal> {
        let failed = |refusal: Refusal| {
            refusal.prefixed(&format!(
                "Cannot instantiate process definition {}: ",
                definition.id
            ))
        };
        let mut variables = read_all(body.get("variables"), self.spin).map_err(failed)?;
        let mut first = Entry::Start;
        let instructions = match body.get("startInstructions") {
            None | Some(Value::Null) => [].as_slice(),
            Some(Value::Array(instructions)) => instructions,
            Some(_) => return Err(Refusal::mapping("start instructions that are no array")),
        };
        let flag = |name: &str| body.get(name).and_then(Value::as_bool).unwrap_or(false);
        if instructions.is_empty() && (flag("skipCustomListeners") || flag("skipIoMappings")) {
            return Err(Refusal::engine(
                "ProcessEngineException",
                "ENGINE-13024 Cannot skip custom listeners or input/output mappings: no start instruction given",
            ));
        }
        for (number, instruction) in instructions.iter().enumerate() {
            // These win over the request's own variables, `"local":true` included.
            variables.extend(read_all(instruction.get("variables"), self.spin).map_err(failed)?);
            let place = place_of(&definition.model, instruction).ok_or_else(|| {
                failed(Refusal::rest(&format!(
                    "element {} does not exist in process",
                    instruction["activityId"]
                )))
            })?;
            // Several tokens are beyond this engine: the first instruction says where the one starts.
            if number == 0 {
                first = place;
            }
        }
        self.run(definition, variables, body, &first, account)
    }

    /// Starts an instance from its start form, whose fields give the values their types and defaults.
    ///
    /// # Errors
    /// 500 for a value that does not fit its field, as in the engine.
    pub(super) fn submit_start_form(
        &mut self,
        definition: &Arc<Definition>,
        body: &Map<String, Value>,
        account: &str,
    ) -> Result<&Instance, Refusal> {
        let failed = |refusal: Refusal| {
            refusal.prefixed(&format!(
                "Cannot instantiate process definition {}: ",
                definition.id
            ))
        };
        let given = read_all(body.get("variables"), self.spin).map_err(failed)?;
        let variables = fill_form(&definition.model.start.fields, given).map_err(failed)?;
        self.run(definition, variables, body, &Entry::Start, account)
    }

    fn run(
        &mut self,
        definition: &Arc<Definition>,
        mut variables: Variables,
        body: &Map<String, Value>,
        first: &Entry,
        account: &str,
    ) -> Result<&Instance, Refusal> {
        let now = SystemTime::now();
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(String::from);
        if let Some(name) = &definition.model.start.initiator {
            // The submitted value wins over the engine's own account.
            variables
                .entry(name.clone())
                .or_insert_with(|| Variable::string(account));
        }
        let mut instance = Instance {
            id: new_id(),
            definition: Arc::clone(definition),
            business_key: text("businessKey"),
            case: text("caseInstanceId"),
            variables: BTreeMap::new(),
            activities: Vec::new(),
            started: now,
            started_by: account.to_owned(),
            state: State::Active,
        };
        instance.set(variables);
        let id = instance.id.clone();
        let task = match first {
            Entry::Start => {
                let start = &definition.model.start;
                instance
                    .activities
                    .push(Activity::passed("startEvent", start, now));
                advance(&mut instance, &start.id)?
            }
            Entry::Before(activity) => enter(&mut instance, Some(activity.clone()))?,
            Entry::After(activity) => advance(&mut instance, activity)?,
        };
        self.forget();
        if let Some(task) = task {
            self.tasks.insert(task.id.clone(), task);
        } else {
            self.ended.push_back(id.clone());
        }
        Ok(self.instances.entry(id).or_insert(instance))
    }

    /// Ends a task and takes its instance to the next one; returns the instance's variables.
    ///
    /// # Errors
    /// 500 for an unknown task and a suspended one, 400 for a bad value.
    pub(super) fn complete(
        &mut self,
        id: &str,
        body: &Map<String, Value>,
        form: bool,
    ) -> Result<&Instance, Refusal> {
        let failed = |refusal: Refusal| refusal.prefixed(&format!("Cannot complete task {id}: "));
        let Some(task) = self.tasks.get(id) else {
            return Err(Refusal::rest(&format!(
                "Cannot complete task {id}: Cannot find task with id {id}: task is null"
            )));
        };
        let mut variables = read_all(body.get("variables"), self.spin).map_err(failed)?;
        if form {
            variables = fill_form(&task.step.fields, variables).map_err(failed)?;
        }
        let gone = || {
            Refusal::rest(&format!(
                "Cannot complete task {id}: Cannot find task with id {id}: task is null"
            ))
        };
        let instance = self.instances.get_mut(&task.instance).ok_or_else(gone)?;
        if instance.state == State::Suspended {
            return Err(failed(suspended(id)));
        }
        let before = instance.variables.clone();
        let passed = instance.activities.len();
        instance.set(variables);
        if let Some(activity) = instance.activities.last_mut() {
            activity.ended = Some(SystemTime::now());
            activity.assignee.clone_from(&task.assignee);
        }
        let next = match advance(instance, &task.step.id) {
            Ok(next) => next,
            Err(refusal) => {
                // All of it or nothing.
                instance.variables = before;
                instance.activities.truncate(passed);
                if let Some(activity) = instance.activities.last_mut() {
                    activity.ended = None;
                }
                return Err(failed(refusal));
            }
        };
        let instance_id = instance.id.clone();
        self.tasks.remove(id);
        match next {
            Some(task) => {
                self.tasks.insert(task.id.clone(), task);
            }
            None => self.ended.push_back(instance_id.clone()),
        }
        self.instances.get(&instance_id).ok_or_else(gone)
    }

    /// Gives a task to a person, or with `None` back to nobody; `strictly` refuses to take it from another.
    ///
    /// # Errors
    /// 500, for an unknown task too.
    pub(super) fn assign(
        &mut self,
        id: &str,
        person: Option<&str>,
        strictly: bool,
    ) -> Result<(), Refusal> {
        let Some(task) = self.tasks.get_mut(id) else {
            return Err(Refusal::engine(
                "NullValueException",
                &format!("Cannot find task with id {id}: task is null"),
            ));
        };
        let instance = self.instances.get_mut(&task.instance);
        if instance
            .as_ref()
            .is_some_and(|instance| instance.state == State::Suspended)
        {
            return Err(suspended(id));
        }
        if strictly
            && person.is_some()
            && task.assignee.is_some()
            && task.assignee.as_deref() != person
        {
            return Err(Refusal::engine(
                "TaskAlreadyClaimedException",
                &format!("Task '{id}' is already claimed by someone else."),
            ));
        }
        task.assignee = person.map(String::from);
        task.updated = Some(SystemTime::now());
        if let Some(activity) = instance.and_then(|instance| instance.activities.last_mut()) {
            activity.assignee.clone_from(&task.assignee);
        }
        Ok(())
    }

    /// Suspends or activates; an unknown instance is no error, as nothing was to be changed.
    pub(super) fn suspend(&mut self, id: &str, suspended: bool) {
        if let Some(instance) = self.running_mut(id) {
            instance.state = if suspended {
                State::Suspended
            } else {
                State::Active
            };
        }
    }

    /// Ends an instance before its time.
    ///
    /// # Errors
    /// 404 for one that does not run.
    pub(super) fn delete(&mut self, id: &str) -> Result<(), Refusal> {
        let now = SystemTime::now();
        let Some(instance) = self
            .instances
            .get_mut(id)
            .filter(|instance| instance.runs())
        else {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "InvalidRequestException",
                &format!("No process instance found for id '{id}': processInstance is null"),
                Some(0),
            ));
        };
        instance.state = State::Deleted(now);
        for activity in instance
            .activities
            .iter_mut()
            .filter(|activity| activity.ended.is_none())
        {
            activity.ended = Some(now);
            activity.canceled = true;
        }
        for task in instance
            .activities
            .iter()
            .filter_map(|activity| activity.task.as_ref())
        {
            self.tasks.remove(task);
        }
        self.ended.push_back(id.to_owned());
        Ok(())
    }

    /// Makes room for one more instance.
    fn forget(&mut self) {
        while self.instances.len() >= self.keep {
            let Some(id) = self
                .ended
                .pop_front()
                .or_else(|| self.instances.keys().next().cloned())
            else {
                return;
            };
            let forgotten = self.instances.remove(&id);
            for task in forgotten
                .iter()
                .flat_map(|instance| &instance.activities)
                .filter_map(|activity| activity.task.as_ref())
            {
                self.tasks.remove(task);
            }
        }
    }
}

impl Activity {
    pub(super) fn passed(kind: &'static str, step: &Step, at: SystemTime) -> Self {
        Self {
            id: format!("{}:{}", step.id, new_id()),
            kind,
            step: step.clone(),
            task: None,
            assignee: None,
            started: at,
            ended: Some(at),
            canceled: false,
        }
    }
}

/// Types what was submitted by the form's fields and adds defaults; other variables pass as they are.
fn fill_form(fields: &[Field], mut given: Variables) -> Result<Variables, Refusal> {
    for field in fields {
        if let Some(submitted) = given.remove(&field.id) {
            given.insert(field.id.clone(), Variable::for_field(field, &submitted)?);
        } else if field.required {
            return Err(Refusal::engine(
                "FormFieldValidatorException",
                &format!("Invalid value submitted for form field '{}'", field.id),
            ));
        } else if field.default.is_some() {
            given.insert(field.id.clone(), Variable::of_field(field));
        }
    }
    Ok(given)
}

fn suspended(task: &str) -> Refusal {
    Refusal::engine(
        "SuspendedEntityInteractionException",
        &format!("ENGINE-03043 task with id '{task}' is suspended."),
    )
}

pub(super) fn new_id() -> String {
    Uuid::now_v7().to_string()
}
