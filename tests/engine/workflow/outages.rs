//! An engine that is slow, gone, or does not know the gateway; and what can be counted where nobody else counts.

use std::time::Instant;

use http::Method;
use serde_json::json;

use super::World;
use crate::support::gateway::Options;
use crate::support::{DEADLINE, Engine, model};

const KEY: &str = "workflow-outages";

#[tokio::test]
async fn statistics_are_the_engines_counts_and_an_engine_that_is_slow_or_gone_is_told_from_one_that_refuses()
 {
    let engine = Engine::own().await;
    let options = Options {
        more: "[engine.timeouts]\nresponse = \"2s\"\n[engine.retry]\nattempts = 1\nbackoff = \"50ms\"\n\
            [workflow_api]\nshow_engine_url = true\n",
        ..Options::default()
    };
    let world = World::with(&engine, options).await;
    let statistics = async || world.get("/api/statistics").await.expect(200).json();
    let counts = |processes: u32, active: u32, completed: u32, tasks: u32| json!({"totalProcesses": processes, "activeInstances": active, "completedInstances": completed, "activeTasks": tasks});
    assert_eq!(statistics().await, counts(0, 0, 0, 0));
    engine.deploy(&model::waiting([KEY, "another"]), None).await;
    engine.deploy(&model::with_forms(KEY), None).await;
    engine.deploy(&model::everywhere("everywhere"), None).await;
    for _ in 0..3 {
        world.start("another", "{}").await;
    }
    world.start("everywhere", "{}").await;
    let (_, task) = world.started("another").await;
    world
        .post(&format!("/api/tasks/{task}/complete"), "{}")
        .await
        .expect(204);
    // A newer version is the same process; four wait, one at more than its task; one has ended.
    assert_eq!(statistics().await, counts(3, 4, 1, 4));
    for (path, member) in [
        (
            "/process-definition/count?latestVersion=true",
            "totalProcesses",
        ),
        ("/process-instance/count", "activeInstances"),
        (
            "/history/process-instance/count?finished=true",
            "completedInstances",
        ),
        ("/task/count", "activeTasks"),
    ] {
        assert_eq!(
            world.told(path).await["count"],
            statistics().await[member],
            "{path}"
        );
    }
    let head = world
        .ask(&world.ada, Method::HEAD, "/api/statistics", None)
        .await;
    head.expect(200);
    health(&world, true).await;

    let (instance, task) = world.started("another").await;
    let (_, other_task) = world.started("another").await;
    let starts = engine.instances("another").await.len();
    let complete = format!("/api/tasks/{task}/complete");
    let requests = [
        (Method::GET, "/api/tasks"),
        (Method::GET, "/api/statistics"),
        (Method::GET, "/api/processes/another/xml"),
        (Method::POST, complete.as_str()),
        (Method::POST, "/api/processes/another/start"),
    ];
    let paused = engine.pause();
    for (method, path) in requests.clone() {
        let body = (method == Method::POST).then_some("{}");
        let answer = world.ask(&world.ada, method, path, body).await;
        let (status, code) = match path {
            // What the model is called must be known before anything is started.
            "/api/processes/another/start" => (502, "model_unavailable"),
            _ => (504, "engine_timeout"),
        };
        assert_eq!(answer.expect(status).json()["code"], code, "{path}");
    }
    health(&world, false).await;
    drop(paused);
    // It had been sent, and the engine carries out what it had not answered in time: the caller has to look.
    let deadline = Instant::now() + DEADLINE;
    while engine
        .get(&format!("/process-instance/{instance}"))
        .await
        .status
        != 404
    {
        assert!(Instant::now() < deadline, "still waiting in {task}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let again = world.post(&complete, "{}").await.expect(404).json();
    assert_eq!(again["code"], "engine_refused");
    assert_eq!(engine.instances("another").await.len(), starts);
    health(&world, true).await;

    engine.stop();
    for (method, path) in [
        (Method::GET, "/api/tasks".to_owned()),
        (Method::GET, "/api/statistics".to_owned()),
        (Method::POST, format!("/api/tasks/{other_task}/complete")),
        (Method::POST, format!("/api/tasks/{other_task}/claim")),
        (Method::POST, "/api/processes/new/start".to_owned()),
    ] {
        let body = (method == Method::POST).then_some("{}");
        let answer = world.ask(&world.ada, method, &path, body).await;
        let code = match path.as_str() {
            "/api/processes/new/start" => "model_unavailable",
            _ => "engine_unreachable",
        };
        assert_eq!(answer.expect(502).json()["code"], code, "{path}");
    }
    // Who calls is in the token, and the engine is not asked.
    world.get("/api/user").await.expect(200);
    health(&world, false).await;
}

/// What `/health` says is a second old at most, so it is asked until it says so.
async fn health(world: &World<'_>, is_reachable: bool) {
    let status = if is_reachable { "healthy" } else { "degraded" };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = world.ask("", Method::GET, "/health", None).await;
        let health = answer.expect(200).json();
        assert_eq!(health["engine_url"], world.engine.url());
        if health["status"] == status && health["engine_reachable"] == is_reachable {
            return;
        }
        assert!(Instant::now() < deadline, "not {status}: {health}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_engine_that_does_not_know_the_gateway_is_502_and_no_password_box() {
    let engine = Engine::shared().await;
    let options = Options {
        // Nobody's account, so that none is locked.
        credentials: ("nobody", "wrong"),
        ..Options::default()
    };
    let world = World::with(engine, options).await;
    engine.deploy(&model::waiting([KEY]), None).await;
    for (method, path) in [
        (Method::GET, "/api/processes"),
        (Method::GET, "/api/statistics"),
        (Method::GET, "/api/instances/nope/variables"),
        (Method::POST, "/api/tasks/nope/complete"),
        (Method::POST, "/api/processes/workflow-outages/start"),
    ] {
        let body = (method == Method::POST).then_some("{}");
        let answer = world.ask(&world.ada, method, path, body).await;
        let answer = answer.expect(502);
        assert_eq!(
            answer.json()["code"],
            "engine_rejected_credentials",
            "{path}"
        );
        assert_eq!(answer.headers.get("www-authenticate"), None, "{path}");
    }
    assert_eq!(engine.instances(KEY).await.len(), 0);
    assert!(
        !world.gateway.log().contains("wrong"),
        "{}",
        world.gateway.log()
    );
}
