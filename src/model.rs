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
//!    not say which instances it means, every such name is protected.
//!
//! What it does not do: a conditional start (`POST /condition`) that names no definition starts what the
//! gateway cannot know; names that are known are written there if the caller sends them.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use moka::future::Cache;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};
use tracing::debug;

use crate::body::Body;
use crate::operation::{Kind, Match};
use crate::problem::Problem;

mod bpmn;

/// A model's initiator variables; mostly none, sometimes one.
pub type Names = Arc<[Box<str>]>;

/// How models are asked for and kept.
#[derive(Debug, Clone)]
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
pub struct Models(Arc<Shared>);

struct Shared {
    engine: BoxCloneSyncService<Request<Body>, Response<Body>, Problem>,
    /// The path of the engine's REST root.
    root: String,
    /// By the path of a definition with its id.
    names: Cache<Box<str>, Names>,
    /// By the path of a definition with its key: the newest one's id.
    newest: Cache<Box<str>, Box<str>>,
    /// Every name that some model uses.
    known: RwLock<HashSet<Box<str>>>,
}

/// The definition that a start is believed to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// The definition's id.
    pub id: Box<str>,
    /// What to forget if the engine starts another.
    by_key: Option<Box<str>>,
}

/// What a request must protect beside the three names.
#[derive(Debug, Clone, Default)]
pub struct Protected {
    /// The names.
    pub names: Vec<Box<str>>,
    /// For a start: of which definition.
    pub believed: Option<Believed>,
}

impl Models {
    /// Asks for models through `engine`, which sends with the gateway's own account; `root` is the path
    /// of the engine's REST root.
    pub fn new<E>(engine: E, root: &str, settings: ModelSettings) -> Self
    where
        E: Service<Request<Body>, Response = Response<Body>, Error = Problem>
            + Clone
            + Send
            + Sync
            + 'static,
        E::Future: Send,
    {
        Self(Arc::new(Shared {
            engine: BoxCloneSyncService::new(engine),
            root: root.trim_end_matches('/').to_owned(),
            names: Cache::new(settings.entries),
            newest: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(settings.believed)
                .build(),
            known: RwLock::new(settings.names.into_iter().map(Into::into).collect()),
        }))
    }

    /// Whether some known model uses this name for its initiator.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.0
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    /// Whether any model is known that names a variable for its initiator.
    #[must_use]
    pub fn know_any(&self) -> bool {
        !self
            .0
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// What this request must protect. `seen` are the names in its body, or in its path, that some model
    /// uses; `body` is the body, empty where it was not read.
    ///
    /// # Errors
    /// [`Problem::ModelUnavailable`] where the engine does not tell.
    pub async fn protected(
        &self,
        matched: &Match,
        body: &[u8],
        seen: Vec<Box<str>>,
    ) -> Result<Protected, Problem> {
        let operation = matched.operation;
        let starts_process =
            operation.kind == Kind::Start && operation.group == "Process Definition";
        if starts_process && !operation.body_paths.is_empty() {
            let definition = parent(&path_of(matched));
            return Ok(self
                .of_definition(&definition, by_key(matched))
                .await?
                .unwrap_or_default());
        }
        if operation.group == "Condition" {
            let Condition {
                process_definition_id,
            } = serde_json::from_slice(body).unwrap_or_default();
            let mut protected = match process_definition_id {
                Some(id) => {
                    let path = self.sibling(matched, "process-definition", &id);
                    self.of_definition(&path, false).await?.unwrap_or_default()
                }
                None => Protected::default(),
            };
            protected.names.extend(seen);
            return Ok(protected);
        }
        if seen.is_empty() {
            return Ok(Protected::default());
        }
        let names = match self.target(matched).await? {
            Target::Unknown => seen,
            Target::None => Vec::new(),
            Target::Definition(id) => {
                let path = self.sibling(matched, "process-definition", &id);
                let model = self.of_definition(&path, false).await?.unwrap_or_default();
                seen.into_iter()
                    .filter(|name| model.names.contains(name))
                    .collect()
            }
        };
        Ok(Protected {
            names,
            believed: None,
        })
    }

    /// Forgets which definition is the newest of the key, if the engine started another than believed;
    /// says whether it did.
    pub async fn started(&self, believed: &Believed, definition: &str) -> bool {
        if *believed.id == *definition {
            return false;
        }
        if let Some(by_key) = &believed.by_key {
            self.0.newest.invalidate(by_key).await;
        }
        true
    }

    /// The names of the definition at this path, by key or by id; `None` where there is no such.
    async fn of_definition(&self, path: &str, by_key: bool) -> Result<Option<Protected>, Problem> {
        let (path, believed) = if by_key {
            let asking = async {
                match self.ask::<Definition>(path).await? {
                    Some(Definition { id }) => Ok(id),
                    None => Err(Asked::Nothing),
                }
            };
            let id = match self
                .0
                .newest
                .try_get_with(path.into(), asking)
                .await
                .map_err(|error: Arc<Asked>| (*error).clone())
            {
                Ok(id) => id,
                Err(Asked::Nothing) => return Ok(None),
                Err(Asked::Failed(problem)) => return Err(problem),
            };
            let root = path
                .find("/process-definition/")
                .and_then(|at| path.get(..at));
            let by_id = format!(
                "{}/process-definition/{}",
                root.unwrap_or_default(),
                encoded(&id)
            );
            (
                by_id,
                Believed {
                    id,
                    by_key: Some(path.into()),
                },
            )
        } else {
            let id = path.rsplit('/').next().unwrap_or_default();
            let id = percent_encoding::percent_decode_str(id)
                .decode_utf8_lossy()
                .as_ref()
                .into();
            (path.to_owned(), Believed { id, by_key: None })
        };
        let asking = async {
            let xml = self
                .ask::<Xml>(&format!("{path}/xml"))
                .await?
                .ok_or(Asked::Nothing)?;
            let names = xml
                .bpmn20_xml
                .as_deref()
                .and_then(|xml| bpmn::initiators(xml, key_of(&believed.id)))
                .ok_or(Asked::Failed(Problem::ModelUnavailable))?;
            self.learn(&names);
            Ok(Names::from(names))
        };
        match self
            .0
            .names
            .try_get_with(path.as_str().into(), asking)
            .await
            .map_err(|error: Arc<Asked>| (*error).clone())
        {
            Ok(names) => Ok(Some(Protected {
                names: names.to_vec(),
                believed: Some(believed),
            })),
            Err(Asked::Nothing) => Ok(None),
            Err(Asked::Failed(problem)) => Err(problem),
        }
    }

    /// Which definition a later write is about.
    async fn target(&self, matched: &Match) -> Result<Target, Problem> {
        let Some(id) = matched.param("id") else {
            return Ok(Target::Unknown);
        };
        let resource = matched.operation.path.split('/').nth(1).unwrap_or_default();
        let of = |resource, id: &str| self.sibling(matched, resource, id);
        let asked = match resource {
            "task" | "external-task" => {
                let answer = self.ask::<Owned>(&of(resource, id)).await;
                answer.map(|answer| answer.and_then(|owned| owned.process_definition_id))
            }
            "process-instance" => {
                let answer = self.ask::<Instance>(&of(resource, id)).await;
                answer.map(|answer| answer.map(|instance| instance.definition_id))
            }
            "execution" => match self.ask::<Execution>(&of(resource, id)).await {
                Ok(Some(execution)) => {
                    let path = of("process-instance", &execution.process_instance_id);
                    let answer = self.ask::<Instance>(&path).await;
                    answer.map(|answer| answer.map(|instance| instance.definition_id))
                }
                Ok(None) => Ok(None),
                Err(failed) => Err(failed),
            },
            _ => return Ok(Target::Unknown),
        };
        match asked {
            Ok(Some(id)) => Ok(Target::Definition(id)),
            Ok(None) | Err(Asked::Nothing) => Ok(Target::None),
            Err(Asked::Failed(problem)) => Err(problem),
        }
    }

    /// GET of a path below the engine's root; `None` for 404.
    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Asked> {
        let failed = |why: &dyn std::fmt::Display| {
            debug!(%why, "the model cannot be had");
            Asked::Failed(Problem::ModelUnavailable)
        };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{}{path}", self.0.root)
            .parse()
            .map_err(|error| failed(&error))?;
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

    fn learn(&self, names: &[Box<str>]) {
        if names.is_empty() {
            return;
        }
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever deploys models may use any number of names; a model whose names do not fit here is
        // still filled at its starts.
        for name in names {
            if known.len() < MAX_KNOWN {
                known.insert(name.clone());
            }
        }
    }
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("kept", &self.0.names.entry_count())
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

enum Target {
    /// The request does not say which instances it means.
    Unknown,
    /// Nothing that belongs to a process.
    None,
    Definition(Box<str>),
}

#[derive(Deserialize)]
struct Definition {
    id: Box<str>,
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
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    definition_id: Box<str>,
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

/// The request's path below the engine's root, from the template and the parameters.
fn path_of(matched: &Match) -> String {
    let mut params = matched.params.iter();
    let segments = matched.operation.path.split('/').skip(1).map(|segment| {
        if segment.starts_with('{') {
            params
                .next()
                .map(|(_, value)| encoded(value))
                .unwrap_or_default()
        } else {
            segment.to_owned()
        }
    });
    segments.fold(engine_of(matched), |path, segment| {
        format!("{path}/{segment}")
    })
}

/// `/engine/{name}` where the request had it.
fn engine_of(matched: &Match) -> String {
    matched
        .engine_name
        .as_deref()
        .map(|name| format!("/engine/{}", encoded(name)))
        .unwrap_or_default()
}

fn parent(path: &str) -> String {
    path.rsplit_once('/')
        .map_or(path, |(parent, _)| parent)
        .to_owned()
}

fn by_key(matched: &Match) -> bool {
    matched.param("key").is_some()
}

/// `order` of `order:3:f443b8c5-...`; a long key is left out by the engine, and then all processes of the
/// model count.
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

/// Names of initiators that are remembered.
const MAX_KNOWN: usize = 10_000;

#[cfg(test)]
mod tests;
