//! The model's own initiator: the variable that a process model names with `camunda:initiator` or
//! `operaton:initiator`.
//!
//! The engine writes its authenticated user there, which is always the gateway's account, unless the
//! start submits the variable (engine facts §2). So the gateway fills it with the caller's id, and
//! protects it as it protects `initiator`.
//!
//! 1. The model is asked for only after every check of the request has passed, with the gateway's own
//!    account. A definition never changes, so its names are kept by its id, up to a bound; which
//!    definition is the newest of a key is believed for a moment only.
//! 2. Engine 404: there is no such definition, the request goes on and the engine says so. Engine 401
//!    is 502 `engine_rejected_credentials`, any other failure 502 `model_unavailable`; nothing is started.
//! 3. A later write is looked into only where it has a name that some known model uses; then the
//!    engine is asked which definition the task, execution or instance belongs to. Where a request does
//!    not say which instances it means, or names none that the engine knows, every such name is protected; so
//!    it is in an instance that another one or a case has called, which may hand its variables back.
//!
//! What it does not do: a conditional start (`POST /condition`) that names no definition starts what the
//! gateway cannot know; names that are known are written there if the caller sends them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use moka::future::Cache;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::{debug, warn};

use crate::body::Body;
use crate::engine::EngineService;
use crate::operation::{Kind, Match};
use crate::problem::Problem;
use crate::request_info::RequestIds;

mod bpmn;
mod known;

pub use known::Known;
use known::{MAX_KNOWN, UsedNames};

/// A model's initiator variables; mostly none, sometimes one.
pub type Names = Arc<[Box<str>]>;

/// How models are asked for and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// How long "the newest version of this key" is believed.
    pub believed: Duration,
    /// Definitions whose names are kept.
    pub entries: u64,
    /// Names that are some model's from the beginning.
    pub names: Vec<String>,
}

/// What is known of the engine's models; cheap to clone.
#[derive(Clone)]
pub struct Models(Arc<Shared>, RequestIds);

struct Shared {
    engine: BoxCloneSyncService<Request<Body>, Response<Body>, Problem>,
    /// The path of the engine's REST root.
    root: String,
    memory: ModelMemory,
}

/// What an engine has told of its models: it outlives the [`Models`] that asked, so that a reload forgets nothing. Cheap to clone.
#[derive(Clone)]
pub struct ModelMemory(Arc<Memory>);

struct Memory {
    settings: ModelSettings,
    /// The names of the settings.
    given: Arc<UsedNames>,
    /// By the path of a definition with its id.
    by_id: Cache<Box<str>, Protected>,
    /// By the path of a definition with its key: that of the newest one.
    newest: Cache<Box<str>, Protected>,
    /// Those that models were seen to use; memories that follow each other share them.
    learned: LearnedNames,
}

/// Replaced where somebody still reads it.
type LearnedNames = Arc<RwLock<Arc<UsedNames>>>;

/// The definition that a start is believed to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// The definition's id.
    pub id: Box<str>,
    /// The key that its versions share.
    key: Option<Box<str>>,
    /// What to forget if the engine starts another.
    by_key: Option<Box<str>>,
}

/// What a request must protect beside the three names; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Protected {
    /// The names.
    pub names: Names,
    /// For a start: of which definition.
    pub believed: Option<Arc<Believed>>,
}

impl ModelMemory {
    /// Knows the names of the settings, and nothing else yet.
    #[must_use]
    pub fn new(settings: ModelSettings) -> Self {
        Self::sharing(LearnedNames::default(), settings)
    }

    fn sharing(learned: LearnedNames, settings: ModelSettings) -> Self {
        Self(Arc::new(Memory {
            by_id: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(KEPT)
                .build(),
            newest: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(settings.believed)
                .build(),
            given: Arc::new(UsedNames::given(&settings.names)),
            learned,
            settings,
        }))
    }

    /// The same memory under other settings of the same engine: what models were seen to use is protected as before.
    #[must_use]
    pub fn with_settings(&self, settings: ModelSettings) -> Self {
        if self.0.settings == settings {
            return self.clone();
        }
        self.at_another_address(settings)
    }

    /// The memory for an engine at another address. It may be the same engine, so what models were seen to use is protected as
    /// before; it may be another one, where a definition's id means another model, so nothing else is kept.
    #[must_use]
    pub fn at_another_address(&self, settings: ModelSettings) -> Self {
        Self::sharing(self.0.learned.clone(), settings)
    }

    fn known(&self) -> Known {
        let learned = self.0.learned.read();
        Known {
            given: self.0.given.clone(),
            learned: learned.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl std::fmt::Debug for ModelMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelMemory")
            .field("settings", &self.0.settings)
            .field("kept", &self.0.by_id.entry_count())
            .finish_non_exhaustive()
    }
}

impl Models {
    /// Asks for models through `engine`, which sends with the gateway's own account; `root` is the path
    /// of the engine's REST root.
    pub fn new<E>(engine: E, root: &str, memory: ModelMemory) -> Self
    where
        E: EngineService<Problem>,
    {
        let shared = Arc::new(Shared {
            engine: BoxCloneSyncService::new(engine),
            root: root.trim_end_matches('/').to_owned(),
            memory,
        });
        Self(shared, RequestIds::default())
    }

    /// The same, whose questions are told in the log as those of this request.
    pub(crate) fn on_behalf_of(&self, request: RequestIds) -> Self {
        Self(self.0.clone(), request)
    }

    /// What is known of all models now.
    #[must_use]
    pub fn known(&self) -> Known {
        self.0.memory.known()
    }

    fn memory(&self) -> &Memory {
        &self.0.memory.0
    }

    /// What [`protected`](Self::protected) would say of a start in whose body no other model's name is seen, if that
    /// is known without asking the engine.
    pub async fn kept(&self, matched: &Match) -> Option<Protected> {
        let (path, kept) = self.started_by(matched)?;
        kept.get(&*path).await
    }

    /// For a start: the path of the definition, and where what is known of it is kept.
    fn started_by(&self, matched: &Match) -> Option<(String, &Cache<Box<str>, Protected>)> {
        let operation = matched.operation;
        let starts_process =
            operation.kind == Kind::Start && operation.group == "Process Definition";
        if !starts_process || operation.body_paths.is_empty() {
            return None;
        }
        let kept = if by_key(matched) {
            &self.memory().newest
        } else {
            &self.memory().by_id
        };
        Some((definition_of(matched), kept))
    }

    /// What this request must protect. `definition` is the one that its body [names](definition_in); `seen` are the
    /// names in its body, or in its path, that some model uses.
    ///
    /// # Errors
    /// [`Problem::ModelUnavailable`] where the engine does not tell.
    pub async fn protected(
        &self,
        matched: &Match,
        definition: Option<&str>,
        seen: Vec<Box<str>>,
    ) -> Result<Protected, Problem> {
        if let Some((definition, _)) = self.started_by(matched) {
            let Some(mut protected) = self.of_definition(&definition, by_key(matched)).await?
            else {
                // The engine will say that there is none; where it starts one all the same, nobody is forged.
                return Ok(Protected::named(seen));
            };
            // An instance may be migrated to another version, with its variables.
            let key = protected.believed.as_ref().and_then(|it| it.key.as_deref());
            let known = self.known();
            let others = seen.into_iter().filter(|name| {
                !protected.names.contains(name) && key.is_some_and(|key| known.is_used(name, key))
            });
            let others: Vec<_> = others.collect();
            protected.add(others);
            return Ok(protected);
        }
        if names_definition(matched) {
            let mut protected = match definition {
                Some(id) => {
                    let path = self.sibling(matched, "process-definition", id);
                    self.of_definition(&path, false).await?.unwrap_or_default()
                }
                None => Protected::default(),
            };
            protected.add(seen);
            return Ok(protected);
        }
        if seen.is_empty() {
            return Ok(Protected::default());
        }
        let names = match self.target(matched).await? {
            Target::Unknown => seen,
            Target::Instance { id, definition } => {
                let path = self.sibling(matched, "process-definition", &definition);
                let model = self.of_definition(&path, false).await?.unwrap_or_default();
                // An instance may have come from another version by migration, with its variables.
                let key = model.believed.as_ref().and_then(|it| it.key.as_deref());
                let known = self.known();
                let of_a_version = |name: &str| key.is_some_and(|key| known.is_used(name, key));
                let (own, others): (Vec<_>, Vec<_>) = seen
                    .into_iter()
                    .partition(|name| model.names.contains(name) || of_a_version(name));
                if !others.is_empty() && self.is_called(matched, &id).await? {
                    [own, others].concat()
                } else {
                    own
                }
            }
        };
        Ok(Protected::named(names))
    }

    /// Asks anew for the newest definition of the key at its next start.
    pub async fn forget(&self, believed: &Believed) {
        if let Some(by_key) = &believed.by_key {
            self.memory().newest.invalidate(by_key).await;
        }
    }

    /// Forgets which definition is the newest of the key, if the engine started another than believed;
    /// says whether it did.
    pub async fn started(&self, believed: &Believed, definition: &str) -> bool {
        if *believed.id == *definition {
            return false;
        }
        self.forget(believed).await;
        true
    }

    /// The names of the definition at this path, by key or by id; `None` where there is no such.
    async fn of_definition(&self, path: &str, by_key: bool) -> Result<Option<Protected>, Problem> {
        if !by_key {
            return found(self.by_id(path).await);
        }
        let asking = async {
            let newest = self.ask::<Definition>(path).await?.ok_or(Asked::Nothing)?;
            let root = path.rfind("/process-definition/");
            let root = root.and_then(|at| path.get(..at)).unwrap_or_default();
            let by_id = format!("{root}/process-definition/{}", encoded(&newest.id));
            let Protected { names, believed } = self.by_id(&by_id).await?;
            let believed = Believed {
                id: newest.id,
                key: believed.and_then(|it| it.key.clone()),
                by_key: Some(path.into()),
            };
            Ok(Protected {
                names,
                believed: Some(Arc::new(believed)),
            })
        };
        let newest = self.memory().newest.try_get_with(path.into(), asking).await;
        found(newest.map_err(|asked: Arc<Asked>| (*asked).clone()))
    }

    async fn by_id(&self, path: &str) -> Result<Protected, Asked> {
        let asking = async {
            let id = path.rsplit('/').next().unwrap_or_default();
            let id = percent_decode_str(id).decode_utf8_lossy();
            let xml = self
                .ask::<Xml>(&format!("{path}/xml"))
                .await?
                .ok_or(Asked::Nothing)?;
            let key = match key_of(&id) {
                Some(key) => Some(key.into()),
                None => self.ask::<Definition>(path).await?.and_then(|it| it.key),
            };
            let names = xml
                .bpmn20_xml
                .as_deref()
                .and_then(|xml| bpmn::initiators(xml, key.as_deref()))
                .ok_or(Asked::Failed(Problem::ModelUnavailable))?;
            self.learn(&names, key.as_deref());
            let believed = Believed {
                id: id.into(),
                key,
                by_key: None,
            };
            Ok(Protected {
                names: names.into(),
                believed: Some(Arc::new(believed)),
            })
        };
        let kept = self.memory().by_id.try_get_with(path.into(), asking).await;
        kept.map_err(|asked: Arc<Asked>| (*asked).clone())
    }

    /// Which instance a later write is about.
    async fn target(&self, matched: &Match) -> Result<Target, Asked> {
        let Some(id) = matched.param("id") else {
            return Ok(Target::Unknown);
        };
        let resource = matched.operation.path.split('/').nth(1).unwrap_or_default();
        let instance: Box<str> = match resource {
            "task" | "external-task" => {
                let owned = self.ask(&self.sibling(matched, resource, id)).await?;
                let Some(owned): Option<Owned> = owned else {
                    return Ok(Target::Unknown);
                };
                return Ok(
                    match (owned.process_instance_id, owned.process_definition_id) {
                        (Some(id), Some(definition)) => Target::Instance { id, definition },
                        // A case that a process calls may hand its variables back too, and a task below another
                        // writes through it into its process (engine: a parent task is a task's outer scope).
                        _ => Target::Unknown,
                    },
                );
            }
            // The engine writes variables to any execution under either name, and an instance is one.
            "process-instance" | "execution" => {
                let execution = self.ask(&self.sibling(matched, "execution", id)).await?;
                let Some(Execution {
                    process_instance_id,
                }) = execution
                else {
                    return Ok(Target::Unknown);
                };
                process_instance_id
            }
            _ => return Ok(Target::Unknown),
        };
        let asked = self.sibling(matched, "process-instance", &instance);
        Ok(match self.ask::<Instance>(&asked).await? {
            Some(found) => Target::Instance {
                id: instance,
                definition: found.definition_id,
            },
            None => Target::Unknown,
        })
    }

    /// Whether an instance was called by another or by a case: what it holds at its end may become the
    /// caller's (engine: `out` mappings of a call activity), whose model has names of its own.
    async fn is_called(&self, matched: &Match, instance: &str) -> Result<bool, Asked> {
        let asked = self.sibling(matched, "process-instance", instance);
        let Some(found) = self.ask::<Instance>(&asked).await? else {
            return Ok(true);
        };
        if found.case_instance_id.is_some() {
            return Ok(true);
        }
        let root = engine_of(matched);
        let asked = format!(
            "{root}/process-instance?subProcessInstance={}",
            encoded(instance)
        );
        let callers = self.ask::<Vec<serde::de::IgnoredAny>>(&asked).await?;
        Ok(callers.is_some_and(|callers| !callers.is_empty()))
    }

    /// GET of a path below the engine's root; `None` for 404.
    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Asked> {
        let failed = |why: &dyn std::fmt::Display| {
            let (request_id, trace_id) = (self.1.request(), self.1.trace());
            debug!(%why, request_id, trace_id, "the model cannot be had");
            Asked::Failed(Problem::ModelUnavailable)
        };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{}{path}", self.0.root)
            .parse()
            .map_err(|error| failed(&error))?;
        self.1.put_into(request.extensions_mut());
        let answer = self
            .0
            .engine
            .clone()
            .oneshot(request)
            .await
            .map_err(|problem| failed(&problem))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            // Says more than that there is no model, and is what the start itself would have got.
            StatusCode::UNAUTHORIZED => {
                return Err(Asked::Failed(Problem::EngineRejectedCredentials));
            }
            status => return Err(failed(&status)),
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| failed(&error))
    }

    /// Another resource of the same engine: `/engine/{name}/task/{id}`.
    #[expect(clippy::unused_self, reason = "reads as a part of asking")]
    fn sibling(&self, matched: &Match, resource: &str, id: &str) -> String {
        format!("{}/{resource}/{}", engine_of(matched), encoded(id))
    }

    fn learn(&self, names: &[Box<str>], key: Option<&str>) {
        if names.is_empty() {
            return;
        }
        let known = &self.memory().learned;
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        if names
            .iter()
            .all(|name| key.is_some_and(|key| known.is_used(name, key)))
        {
            return;
        }
        let known = Arc::make_mut(&mut known);
        let was_full = known.size >= MAX_KNOWN;
        known.add(names, key);
        if !was_full && known.size >= MAX_KNOWN {
            warn!(
                bound = MAX_KNOWN,
                "too many models name a variable for their initiator; those that come now are filled at \
                 starts, but not protected later"
            );
        }
    }
}

impl Protected {
    fn named(names: Vec<Box<str>>) -> Self {
        Self {
            names: names.into(),
            believed: None,
        }
    }

    fn add(&mut self, others: Vec<Box<str>>) {
        if !others.is_empty() {
            self.names = self.names.iter().cloned().chain(others).collect();
        }
    }
}

/// No such definition is no failure.
fn found(kept: Result<Protected, Asked>) -> Result<Option<Protected>, Problem> {
    match kept {
        Ok(kept) => Ok(Some(kept)),
        Err(Asked::Nothing) => Ok(None),
        Err(Asked::Failed(problem)) => Err(problem),
    }
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("memory", &self.0.memory)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone)]
enum Asked {
    /// There is no such thing.
    Nothing,
    /// The engine did not tell.
    Failed(Problem),
}

impl From<Asked> for Problem {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Nothing => Self::ModelUnavailable,
            Asked::Failed(problem) => problem,
        }
    }
}

enum Target {
    /// The request does not say which instances it means, or the engine does not know the id there.
    Unknown,
    Instance {
        id: Box<str>,
        definition: Box<str>,
    },
}

#[derive(Deserialize)]
struct Definition {
    id: Box<str>,
    key: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Xml {
    #[serde(rename = "bpmn20Xml")]
    bpmn20_xml: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    process_definition_id: Option<Box<str>>,
    process_instance_id: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    definition_id: Box<str>,
    case_instance_id: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execution {
    process_instance_id: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    process_definition_id: Option<Box<str>>,
}

/// Whether the body names the definition: so it is in conditional starts.
#[must_use]
pub fn names_definition(matched: &Match) -> bool {
    matched.operation.group == "Condition"
}

/// The definition that a body [names](names_definition), which has been read strictly.
///
/// # Errors
/// [`Problem::BodyInvalid`] where it is no text.
pub fn definition_in(body: &[u8]) -> Result<Option<Box<str>>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<Condition>(body)
        .map(|condition| condition.process_definition_id)
        .map_err(|error| Problem::BodyInvalid(error.to_string().into()))
}

/// The path, below the engine's root, of what the last segment of the request's is done to: from the template and
/// the parameters.
fn definition_of(matched: &Match) -> String {
    let mut path = engine_of(matched);
    path.reserve(128);
    let mut params = matched.params.iter();
    let template = matched.operation.path;
    let parent = template
        .rsplit_once('/')
        .map_or(template, |(parent, _)| parent);
    for segment in parent.split('/').skip(1) {
        path.push('/');
        if segment.starts_with('{') {
            let value = params.next().map_or("", |(_, value)| value);
            path.extend(utf8_percent_encode(value, RESERVED));
        } else {
            path.push_str(segment);
        }
    }
    path
}

/// `/engine/{name}` where the request had it.
fn engine_of(matched: &Match) -> String {
    matched
        .engine_name
        .as_deref()
        .map(|name| format!("/engine/{}", encoded(name)))
        .unwrap_or_default()
}

fn by_key(matched: &Match) -> bool {
    matched.param("key").is_some()
}

/// `order` of `order:3:f443b8c5-...`; a long key is left out by the engine.
fn key_of(definition_id: &str) -> Option<&str> {
    let mut parts = definition_id.rsplitn(3, ':');
    let (_, _, key) = (parts.next(), parts.next(), parts.next());
    key
}

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, RESERVED).to_string()
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// The largest model that is read; an engine's own limit for a deployment is far above what people draw.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// How long a model is kept by its definition's id. The engine never changes one, but a database made anew
/// may give its id to another.
const KEPT: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests;
