//! The lines of the table: what is asked for, and what it may cost.

use std::time::Duration;

use bpmgate::body::BoxError;

use super::contenders::{Body, Contender, Kind, Place, started};
use super::engine::FILE;
use super::load::{self, Drive, Measured, Requests, Until};
use super::report::{Judged, Row, Section, Spread};
use super::tokens::Tokens;

/// How much is measured.
pub struct Plan {
    pub rounds: usize,
    pub round: Duration,
    /// The round before the first; Java needs a longer one until its code is compiled.
    pub warm_up: Duration,
    pub connections: usize,
    /// The tokens that are sent in turn.
    pub in_turn: usize,
    /// The tokens of a round of which each is new.
    pub new: usize,
    /// The connections that are held.
    pub held: usize,
    /// The files that are streamed, up and down.
    pub files: usize,
}

/// A line of the table.
pub struct Line {
    pub key: &'static str,
    name: &'static str,
    drive: Drive,
    asks: Asks,
    limit: Limit,
}

#[derive(Clone, Copy, PartialEq)]
enum Asks {
    /// The one token.
    Hot,
    /// As many tokens as the gateway keeps, again and again.
    InTurn,
    /// Tokens that were never sent before.
    New,
    /// A start with so many variables.
    Start(usize),
    Download,
    Upload,
}

/// What bpmgate may take beside the bare forwarder.
#[derive(Clone, Copy)]
enum Limit {
    /// So many times its CPU.
    Cpu(f64),
    /// Its CPU, one check of a signature, and so many microseconds.
    Signature(f64),
    /// So many times its latency, for half of the requests and for all but one in a hundred.
    Latency(f64, f64),
}

/// Who is faster leaves those who send and answer more time to sleep, and pays for it: a socket's other end that sleeps must
/// be woken, which takes longer than a system call. With as many requests for all, each has as many to wake.
const EVEN: Drive = Drive::Rate(20_000);

pub const LINES: [Line; 14] = [
    Line {
        key: "get-hot",
        name: "GET, 1 KB answer, one token",
        drive: Drive::Kept,
        asks: Asks::Hot,
        limit: Limit::Cpu(1.15),
    },
    Line {
        key: "get-10k",
        name: "GET, 1 KB answer, 10,000 tokens in turn",
        drive: Drive::Kept,
        asks: Asks::InTurn,
        limit: Limit::Cpu(1.2),
    },
    Line {
        key: "get-new",
        name: "GET, 1 KB answer, every token new",
        drive: Drive::Kept,
        asks: Asks::New,
        limit: Limit::Signature(5.0),
    },
    Line {
        key: "start-1k",
        name: "start, 1 KB body rewritten",
        drive: Drive::Kept,
        asks: Asks::Start(9),
        limit: Limit::Cpu(1.3),
    },
    Line {
        key: "start-256k",
        name: "start, 256 KB body rewritten",
        drive: Drive::Kept,
        asks: Asks::Start(2700),
        limit: Limit::Cpu(2.5),
    },
    Line {
        key: "even-get-hot",
        name: "GET, one token, 20,000 a second",
        drive: EVEN,
        asks: Asks::Hot,
        limit: Limit::Cpu(1.15),
    },
    Line {
        key: "even-get-10k",
        name: "GET, 10,000 tokens in turn, 20,000 a second",
        drive: EVEN,
        asks: Asks::InTurn,
        limit: Limit::Cpu(1.2),
    },
    Line {
        key: "even-get-new",
        name: "GET, every token new, 20,000 a second",
        drive: EVEN,
        asks: Asks::New,
        limit: Limit::Signature(5.0),
    },
    Line {
        key: "even-start-1k",
        name: "start, 1 KB body rewritten, 20,000 a second",
        drive: EVEN,
        asks: Asks::Start(9),
        limit: Limit::Cpu(1.3),
    },
    Line {
        key: "even-start-256k",
        name: "start, 256 KB body rewritten, 2,000 a second",
        drive: Drive::Rate(2000),
        asks: Asks::Start(2700),
        limit: Limit::Cpu(2.5),
    },
    Line {
        key: "download",
        name: "10 MB answer, streamed",
        drive: Drive::Kept,
        asks: Asks::Download,
        limit: Limit::Cpu(1.1),
    },
    Line {
        key: "upload",
        name: "10 MB upload, streamed",
        drive: Drive::Kept,
        asks: Asks::Upload,
        limit: Limit::Cpu(1.1),
    },
    Line {
        key: "connect",
        name: "GET, 1 KB answer, each over a new connection",
        drive: Drive::Connect,
        asks: Asks::Hot,
        limit: Limit::Cpu(1.15),
    },
    Line {
        key: "rate",
        name: "GET, 1 KB answer, 1,000 a second",
        drive: Drive::Rate(1000),
        asks: Asks::Hot,
        limit: Limit::Latency(1.15, 1.5),
    },
];

impl Line {
    /// Measures all who take part, in turns.
    pub fn measure(
        &self,
        plan: &Plan,
        place: &Place<'_>,
        peers: &[Contender],
    ) -> Result<Section, BoxError> {
        // Both are new for each line, so no line's tokens and memory are the next one's.
        let (forwarder, (gateway, _)) = (place.forwarder()?, place.gateway(1)?);
        forwarder.check(place.tokens)?;
        gateway.check(place.tokens)?;
        let peers = peers.iter().filter(|peer| peer.works(self.key));
        let mut turns = [&forwarder, &gateway]
            .into_iter()
            .chain(peers)
            .map(|contender| self.turn(plan, place.tokens, contender))
            .collect::<Vec<_>>();
        let (mut checks, mut notes) = (Vec::new(), Vec::new());
        // The first round of each warms up.
        for round in 0..=plan.rounds {
            // Who comes first changes, as a machine gets slower or faster in the course of time.
            let count = turns.len();
            turns.rotate_left(1 % count);
            for turn in &mut turns {
                match turn.round(self, self.until(plan, round)) {
                    Ok(measured) if round > 0 => turn.measured.push(measured),
                    Ok(_) => {}
                    Err(failed) if matches!(turn.contender.kind, Kind::Peer(_)) => {
                        notes.push(format!("{}: {failed}", turn.contender.name));
                        turn.failed = true;
                    }
                    Err(failed) => return Err(failed.into()),
                }
            }
            turns.retain(|turn| !turn.failed);
            if round > 0 {
                checks.push(place.tokens.signature_check());
            }
        }
        turns.sort_by_key(|turn| match turn.contender.kind {
            Kind::Forwarder => 0,
            Kind::Gateway => 1,
            Kind::Peer(_) => 2,
        });
        let rows: Vec<Row> = turns.into_iter().map(|turn| turn.row(self.key)).collect();
        Ok(Section {
            key: self.key,
            name: self.name,
            judged: self.judged(&rows, &checks),
            rows,
            notes,
        })
    }

    fn turn<'a>(&self, plan: &Plan, tokens: &Tokens, contender: &'a Contender) -> Turn<'a> {
        let (path, nothing) = ("/task?assignee=alice", Body::default());
        let get = |token: &String| contender.request("GET", path, Some(token), &nothing);
        let hot = Some(tokens.hot());
        let (in_turn, new) = tokens.all().split_at(plan.in_turn);
        let requests = match self.asks {
            Asks::Hot => vec![contender.request("GET", path, hot, &nothing)],
            Asks::InTurn => in_turn.iter().map(get).collect(),
            // The gateway keeps them as it would anybody's, but none is sent to it twice: every one is a miss,
            // and what keeping it costs is in the figure.
            Asks::New => new.iter().map(get).collect(),
            Asks::Start(variables) => {
                let path = "/process-definition/key/order/start";
                vec![contender.request("POST", path, hot, &Body::start(variables))]
            }
            Asks::Download => {
                let path = "/process-instance/1f2e/variables/file/data";
                vec![contender.request("GET", path, hot, &nothing)]
            }
            Asks::Upload => {
                let token = Some(tokens.deployer());
                let body = Body::deployment(FILE);
                vec![contender.request("POST", "/deployment/create", token, &body)]
            }
        };
        let connections = match self.asks {
            Asks::Download | Asks::Upload => plan.connections.min(4),
            Asks::Hot | Asks::InTurn | Asks::New | Asks::Start(_) => plan.connections,
        };
        Turn {
            contender,
            connections,
            requests: Requests::new(requests),
            measured: Vec::new(),
            failed: false,
        }
    }

    fn until(&self, plan: &Plan, round: usize) -> Until {
        match (self.asks, self.drive) {
            (Asks::InTurn, _) if round == 0 => Until::Count(plan.in_turn),
            (Asks::New, _) => Until::Count(plan.new),
            _ if round == 0 => Until::Time(plan.warm_up),
            // A thousand a second are few to tell one in a hundred from.
            (_, Drive::Rate(1000)) => Until::Time(plan.round * 3),
            _ => Until::Time(plan.round),
        }
    }

    /// What is held against a limit: bpmgate beside the forwarder, and beside each peer.
    fn judged(&self, rows: &[Row], checks: &[f64]) -> Vec<Judged> {
        let [bare, ours, peers @ ..] = rows else {
            return Vec::new();
        };
        let cpu = |measured: &Measured| measured.cpu;
        let mut judged = match self.limit {
            Limit::Cpu(limit) => vec![ours.over(bare, "CPU", cpu, Some(limit))],
            Limit::Signature(limit) => {
                let check = Spread::of(checks.iter().copied());
                let more = ours.measured.iter().zip(&bare.measured).zip(checks);
                vec![Judged {
                    what: format!(
                        "CPU over its and a signature check ({:.1} us)",
                        check.median
                    ),
                    beside: bare.contender.clone(),
                    figure: Spread::of(
                        more.map(|((ours, bare), check)| ours.cpu - bare.cpu - check),
                    ),
                    unit: " us",
                    limit: Some(limit),
                    least: false,
                }]
            }
            Limit::Latency(p50, p99) => vec![
                ours.over(bare, "p50", |measured| measured.p50, Some(p50)),
                ours.over(bare, "p99", |measured| measured.p99, Some(p99)),
            ],
        };
        judged.extend(
            peers
                .iter()
                .map(|peer| ours.over(peer, "CPU", cpu, peer.limit)),
        );
        judged
    }
}

/// A contender with what it is sent and what was measured.
struct Turn<'a> {
    contender: &'a Contender,
    connections: usize,
    requests: Requests,
    measured: Vec<Measured>,
    failed: bool,
}

impl Turn<'_> {
    fn round(&self, line: &Line, until: Until) -> std::io::Result<Measured> {
        let (connections, requests) = (self.connections, &self.requests);
        load::round(self.contender, connections, requests, line.drive, until)
    }

    fn row(self, line: &str) -> Row {
        Row {
            contender: self.contender.name.clone(),
            measured: self.measured,
            limit: self.contender.limit(line),
        }
    }
}

/// The throughput of several workers against one, where there are cores enough for them and for the load.
pub fn workers(plan: &Plan, place: &Place<'_>, workers: usize) -> Result<Section, BoxError> {
    let mut section = Section {
        key: "workers",
        name: "GET, 1 KB answer, several workers against one",
        rows: Vec::new(),
        judged: Vec::new(),
        notes: Vec::new(),
    };
    let (needed, here) = (workers * 2, place.cores.count());
    if here < needed {
        section.notes.push(format!(
            "not measured: load and engine need as many cores as {workers} workers, that is {needed}, and here are {here}"
        ));
        return Ok(section);
    }
    // The load and an engine of its own stay off the cores of both.
    let load = place.cores.divided(workers);
    load.load_here();
    let (_engine, engine) = started(&["--role", "engine"])?;
    let with = |workers: usize| {
        let cores = place.cores.divided(workers);
        place.with(cores, engine).gateway(workers)
    };
    let ((one, _), (more, _)) = (with(1)?, with(workers)?);
    load.load_here();
    let hot = &LINES[0];
    let mut turns = [
        hot.turn(plan, place.tokens, &one),
        hot.turn(plan, place.tokens, &more),
    ];
    for round in 0..=plan.rounds {
        for turn in &mut turns {
            let measured = turn.round(hot, Until::Time(plan.round))?;
            if round > 0 {
                turn.measured.push(measured);
            }
        }
    }
    let [one, more] = turns.map(|turn| turn.row(hot.key));
    let per_second = |measured: &Measured| measured.per_second;
    let mut judged = more.over(&one, "requests/s", per_second, Some(1.8));
    judged.least = true;
    section.judged.push(judged);
    section.rows = vec![one, more];
    place.cores.load_here();
    Ok(section)
}
