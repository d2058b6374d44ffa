//! An instance that waits at everything that an engine can wait for, and the places for its ids.

use serde_json::Value;

use super::issuer::ADA;
use super::{Engine, Gateway, Issuer, model};

/// An instance, and where and as whom to write into it: at first as the engine's own account.
pub(crate) struct Target<'a> {
    /// `processInstanceId` or `caseInstanceId`.
    pub(crate) kind: &'static str,
    pub(crate) instance: String,
    pub(crate) base: String,
    pub(crate) authorization: String,
    pub(crate) engine: &'a Engine,
}

/// The key of such a process; its instances can be migrated to [`OTHER`].
pub(crate) const KEY: &str = "everywhere";
pub(crate) const OTHER: &str = "everywhere-other";
/// The key of a case like it, and of the process that it starts.
pub(crate) const CASE: &str = "everywhere-case";
pub(crate) const CALLED: &str = "everywhere-called";

/// What a form that holds everything sends: the protected names too, and one of its own.
pub(crate) const FORGED: &str = r#"{"initiator":{"value":"mallory","type":"String"},
    "initiatorEmail":{"value":"mallory@example.org","type":"String"},"color":{"value":"blue","type":"String"},
    "initiatorName":{"value":"Mallory","type":"String"}}"#;

/// Deploys the processes and the case, once for all tests.
pub(crate) async fn deploy(engine: &Engine) {
    static ONCE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    ONCE.get_or_init(|| async {
        engine.deploy(&model::everywhere(KEY), None).await;
        engine.deploy(&model::everywhere(OTHER), None).await;
        engine.deploy(&model::waiting([CALLED]), None).await;
        engine
            .deploy_file("case.cmmn", &model::case(CASE, CALLED), None)
            .await;
    })
    .await;
}

impl<'a> Target<'a> {
    /// Ada's own instance, started as everybody starts one.
    pub(crate) async fn start(
        engine: &'a Engine,
        gateway: &Gateway,
        issuer: &Issuer,
        key: &str,
    ) -> Self {
        let (kind, path) = if key == CASE {
            (
                "caseInstanceId",
                format!("case-definition/key/{key}/create"),
            )
        } else {
            (
                "processInstanceId",
                format!("process-definition/key/{key}/start"),
            )
        };
        let answer = gateway
            .post(&format!("/api/{path}"), &issuer.bearer(ADA), "{}")
            .await
            .expect(200);
        Self {
            kind,
            instance: answer.json()["id"].as_str().unwrap().to_owned(),
            base: engine.url(),
            authorization: Engine::authorization(),
            engine,
        }
    }

    /// Puts ids into the places for them: `{instance}`, `{task}`, `{external}` (locked by `worker`),
    /// `{at:ACTIVITY}`, `{plan:ITEM}`, `{started:ITEM}`, `{disabled:ITEM}`, `{completed}`, `{definition}`,
    /// `{other}`, and the variables `{forged}`.
    pub(crate) async fn fill(&self, text: &str) -> String {
        let mut filled = text
            .replace("{forged}", FORGED)
            .replace("{instance}", &self.instance);
        for (place, path) in [
            ("{task}", "task?taskDefinitionKey=task&processInstanceId="),
            ("{external}", "external-task?processInstanceId="),
        ] {
            if filled.contains(place) {
                let found = self.ask(&format!("/{path}{}", self.instance)).await;
                let id = found[0]["id"].as_str().unwrap();
                if place == "{external}" {
                    let worker = r#"{"workerId":"worker","lockDuration":600000}"#;
                    let lock = format!("/external-task/{id}/lock");
                    self.engine.post(&lock, worker).await.expect(204);
                }
                filled = filled.replace(place, id);
            }
        }
        for (place, key) in [("{definition}", KEY), ("{other}", OTHER)] {
            if filled.contains(place) {
                filled = filled.replace(place, &self.engine.definition(key).await);
            }
        }
        if filled.contains("{completed}") {
            let path = format!("/case-instance/{}/complete", self.instance);
            self.engine.post(&path, "{}").await.expect(204);
            filled = filled.replace("{completed}", &self.instance);
        }
        for (place, step) in [
            ("{at:", ""),
            ("{plan:", ""),
            ("{started:", "manual-start"),
            ("{disabled:", "disable"),
        ] {
            let Some((before, rest)) = filled.split_once(place) else {
                continue;
            };
            let (name, after) = rest.split_once('}').unwrap();
            let id = if place == "{at:" {
                self.execution(name).await
            } else {
                let path = format!(
                    "/case-execution?activityId={name}&caseInstanceId={}",
                    self.instance
                );
                self.ask(&path).await[0]["id"].as_str().unwrap().to_owned()
            };
            if !step.is_empty() {
                let path = format!("/case-execution/{id}/{step}");
                self.engine.post(&path, "{}").await.expect(204);
            }
            filled = [before, &id, after].concat();
        }
        filled
    }

    /// The execution that waits at an activity.
    async fn execution(&self, activity: &str) -> String {
        let path = format!("/process-instance/{}/activity-instances", self.instance);
        let tree = self.ask(&path).await;
        let children = tree["childActivityInstances"].as_array().unwrap();
        let there = children
            .iter()
            .find(|child| child["activityId"] == activity);
        let there = there.unwrap_or_else(|| panic!("nothing waits at {activity}: {tree}"));
        there["executionIds"][0].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ask(&self, path: &str) -> Value {
        self.engine.get(path).await.expect(200).json()
    }

    /// What the engine holds about the initiator, in every scope that there ever was.
    pub(crate) async fn held(&self) -> Vec<(String, String, Value)> {
        let mut held = self.engine.variables_of(self.kind, &self.instance).await;
        held.retain(|(name, ..)| name.starts_with("initiator"));
        held
    }
}
