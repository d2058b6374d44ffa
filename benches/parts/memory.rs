//! How much memory the gateway has, and how soon it listens.

use std::net::TcpStream;
use std::time::Duration;

use bpmgate::body::BoxError;

use super::contenders::{Body, Contender, Place, pause};
use super::engine::FILE;
use super::load::{self, Drive, Requests, Until};
use super::machine;
use super::report::{Judged, Section, Spread};
use super::wire::Wire;
use super::works::Plan;

/// The keys of the lines here.
pub const LINES: [&str; 5] = [
    "memory-rest",
    "memory-idle",
    "memory-tokens",
    "memory-stream",
    "listening",
];

/// Measures one of them.
pub fn measure(key: &'static str, plan: &Plan, place: &Place<'_>) -> Result<Section, BoxError> {
    let (name, judged) = match key {
        "memory-rest" => ("memory at rest", vec![at_rest(plan, place)?]),
        "memory-idle" => ("memory of idle connections", idle(plan, place)?),
        "memory-tokens" => ("memory of kept tokens", vec![kept_tokens(plan, place)?]),
        "memory-stream" => ("memory while streaming", vec![streaming(plan, place)?]),
        _ => ("from start to `listening`", vec![startup(plan, place)?]),
    };
    Ok(Section {
        key,
        name,
        rows: Vec::new(),
        judged,
        notes: Vec::new(),
    })
}

fn at_rest(plan: &Plan, place: &Place<'_>) -> Result<Judged, BoxError> {
    let mut sizes = Vec::new();
    for _ in 0..plan.rounds {
        let (gateway, _) = place.gateway(1)?;
        settle();
        sizes.push(machine::memory(gateway.process) / MIB);
    }
    Ok(alone("RSS", "bpmgate", &sizes, " MiB", Some(16.0)))
}

fn startup(plan: &Plan, place: &Place<'_>) -> Result<Judged, BoxError> {
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        times.push(place.gateway(1)?.1.as_secs_f64() * 1e3);
    }
    Ok(alone("time", "bpmgate", &times, " ms", Some(50.0)))
}

/// Connections that have served a request each.
fn idle(plan: &Plan, place: &Place<'_>) -> Result<Vec<Judged>, BoxError> {
    // Each process has a file for each, and some more.
    let held = plan
        .held
        .min(machine::allow_open_files().saturating_sub(500));
    let what = format!("RSS for each of {held} connections");
    let size = |contender: &Contender| {
        let request = task(contender, place.tokens.hot());
        Wire::connect(contender.address)?.exchange(&request)?;
        settle();
        let before = machine::memory(contender.process);
        let mut held_open: Vec<TcpStream> = Vec::new();
        for _ in 0..held {
            let mut wire = Wire::connect(contender.address)?;
            let answered = wire.exchange(&request)?;
            assert!(answered.status == 200 && answered.kept);
            held_open.push(wire.into_stream());
        }
        settle();
        let more = machine::memory(contender.process) - before;
        Ok::<_, BoxError>([more / KIB / f64::from(u32::try_from(held)?)])
    };
    let ours = size(&place.gateway(1)?.0)?;
    let bare = size(&place.forwarder()?)?;
    Ok(vec![
        alone(&what, "bpmgate", &ours, " KiB", Some(20.0)),
        alone(&what, "bare forwarder", &bare, " KiB", None),
    ])
}

fn kept_tokens(plan: &Plan, place: &Place<'_>) -> Result<Judged, BoxError> {
    let (gateway, _) = place.gateway(1)?;
    settle();
    let before = machine::memory(gateway.process);
    let mut wire = Wire::connect(gateway.address)?;
    let tokens = place.tokens.all().iter().take(plan.in_turn);
    for token in tokens {
        assert_eq!(wire.exchange(&task(&gateway, token))?.status, 200);
    }
    settle();
    let more = machine::memory(gateway.process) - before;
    let what = format!("RSS over rest after {} tokens", plan.in_turn);
    Ok(alone(&what, "bpmgate", &[more / MIB], " MiB", Some(20.0)))
}

fn streaming(plan: &Plan, place: &Place<'_>) -> Result<Judged, BoxError> {
    let (gateway, _) = place.gateway(1)?;
    let (hot, deployer) = (Some(place.tokens.hot()), Some(place.tokens.deployer()));
    let file = "/process-instance/1f2e/variables/file/data";
    let down = gateway.request("GET", file, hot, &Body::default());
    let deployment = Body::deployment(FILE);
    let up = gateway.request("POST", "/deployment/create", deployer, &deployment);
    settle();
    machine::forget_peak(gateway.process);
    let before = machine::memory(gateway.process);
    for request in [down, up] {
        let (requests, until) = (Requests::new(vec![request]), Until::Count(plan.files));
        load::round(&gateway, 4, &requests, Drive::Kept, until)?;
    }
    let more = machine::memory_peak(gateway.process) - before;
    let what = format!("highest RSS over rest, {} x 10 MB down and up", plan.files);
    Ok(alone(&what, "bpmgate", &[more / MIB], " MiB", None))
}

fn task(contender: &Contender, token: &str) -> Vec<u8> {
    let path = "/task?assignee=alice";
    contender.request("GET", path, Some(token), &Body::default())
}

fn alone(what: &str, who: &str, figures: &[f64], unit: &'static str, limit: Option<f64>) -> Judged {
    Judged {
        what: what.to_owned(),
        beside: who.to_owned(),
        figure: Spread::of(figures.iter().copied()),
        unit,
        limit,
        least: false,
    }
}

/// What is done in the background after a start or a request is over by then.
fn settle() {
    pause(Duration::from_millis(300));
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
