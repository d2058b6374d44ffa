//! The workflow API on real engines: what it answers, what the engine then holds, and what its mistakes become.
//!
//! Every answer is also held against the document that the gateway serves at `/openapi.json`.

mod endpoints;
mod errors;
mod outages;
mod types;

use http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::gateway::Options;
use crate::support::http::{Answer, json_request, request, send};
use crate::support::issuer::ADA;
use crate::support::{Engine, Gateway, Issuer};

/// A gateway in front of an engine, and who calls it.
struct World<'a> {
    engine: &'a Engine,
    gateway: Gateway,
    issuer: Issuer,
    /// Ada, with the profile `user`.
    ada: String,
    /// Ada, with the profile `operator`.
    operator: String,
    document: Value,
}

impl<'a> World<'a> {
    async fn new(engine: &'a Engine) -> Self {
        Self::with(engine, Options::default()).await
    }

    /// A gateway with these options and the tables [`PROFILES`], which `more` must not repeat.
    async fn with(engine: &'a Engine, options: Options) -> Self {
        let issuer = Issuer::start().await;
        let more = [PROFILES, options.more].concat();
        let options = Options {
            more: more.leak(),
            ..options
        };
        let gateway = Gateway::start(engine, &issuer, options).await;
        let document = gateway.get("/openapi.json", "").await.expect(200).json();
        Self {
            engine,
            gateway,
            ada: issuer.bearer(ADA),
            operator: issuer.bearer_with(ADA, &json!({"roles": ["operator"]})),
            issuer,
            document,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&self.ada, Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&self.ada, Method::POST, path, Some(body)).await
    }

    /// What the gateway answers, which must be in its document.
    async fn ask(&self, bearer: &str, method: Method, path: &str, body: Option<&str>) -> Answer {
        let url = self.gateway.url(path);
        let request = match body {
            Some(body) => json_request(method.clone(), &url, bearer, body.to_owned()),
            None => request(method.clone(), &url, bearer),
        };
        let answer = send(request).await;
        self.is_documented(&method, path, &answer);
        answer
    }

    /// Starts an instance; its id.
    async fn start(&self, key: &str, body: &str) -> String {
        let path = format!("/api/processes/{key}/start");
        id(&self.post(&path, body).await.expect(201).json())
    }

    /// An instance without variables of its own, and its task.
    async fn started(&self, key: &str) -> (String, String) {
        let instance = self.start(key, "{}").await;
        let task = self.task(&instance).await;
        (instance, task)
    }

    /// The one task of an instance.
    async fn task(&self, instance: &str) -> String {
        let path = format!("/task?processInstanceId={instance}");
        let tasks = self.told(&path).await;
        assert_eq!(tasks.as_array().map(Vec::len), Some(1), "{tasks}");
        id(&tasks[0])
    }

    /// What the engine itself says.
    async fn told(&self, path: &str) -> Value {
        self.engine.get(path).await.expect(200).json()
    }

    fn is_documented(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let paths = self.document["paths"].as_object().unwrap();
        let (template, operations) = paths
            .iter()
            .find(|(template, _)| fits(template, path))
            .unwrap_or_else(|| panic!("{path} is not in the document"));
        let name = if method == Method::HEAD {
            "get".to_owned()
        } else {
            method.as_str().to_lowercase()
        };
        let what = format!("{method} {template}: {answer:?}");
        let said = &operations[name]["responses"][answer.status.as_str()];
        assert!(!said.is_null(), "no such status in the document: {what}");
        let said = said["$ref"].as_str().map_or(said, |reference| {
            let pointer = reference.trim_start_matches('#');
            self.document.pointer(pointer).unwrap()
        });
        let Some((media_type, content)) = said["content"]
            .as_object()
            .and_then(|types| types.iter().next())
        else {
            assert!(answer.body.is_empty(), "{what}");
            return;
        };
        assert_eq!(
            answer.headers["content-type"],
            media_type.as_str(),
            "{what}"
        );
        if method == Method::HEAD {
            assert!(answer.body.is_empty(), "{what}");
            return;
        }
        let json = answer.json();
        let valid = self.validator(&content["schema"]).validate(&json);
        valid.unwrap_or_else(|error| panic!("{error} at {}: {what}", error.instance_path()));
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap()
    }
}

/// Whether a path is one of a template's.
fn fits(template: &str, path: &str) -> bool {
    let (templates, segments) = (template.split('/'), path.split('/'));
    templates.clone().count() == segments.clone().count()
        && templates
            .zip(segments)
            .all(|(template, segment)| template.starts_with('{') || template == segment)
}

fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap().to_owned()
}

/// Who has the role gets the profile of that name.
const PROFILES: &str = r#"
[[access.rules]]
when = { role = "operator" }
profile = "operator"
[[access.rules]]
when = { role = "admin" }
profile = "admin"
"#;
