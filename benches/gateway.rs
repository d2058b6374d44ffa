//! The gateway beside a bare forwarder, and beside others if wanted, over loopback, in one run.
//!
//! ```console
//! $ cargo bench --bench gateway
//! $ cargo bench --bench gateway -- --only start --rounds 20 --markdown
//! ```
//!
//! The gateway is the program `bpmgate serve` with one worker and the defaults, its access log in a file;
//! the forwarder is `examples/bare_forwarder.rs` with one worker; the engine answers at once. Each is a
//! process of its own, and this one sends the requests. Contenders have a core for themselves, load and
//! engine share the others. All take turns, so that what else the machine does hits all alike: look at the
//! ratios, and at their range, rather than at the figures. CPU for a request is the figure that says most:
//! requests a second say as much of who sends and who answers.
#![expect(clippy::print_stdout, reason = "this is the report")]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a program of several files; what fails ends the bench"
)]

#[path = "../examples/bare_forwarder.rs"]
#[expect(dead_code, reason = "its `main` is the example's")]
mod bare_forwarder;
#[path = "parts/contenders.rs"]
mod contenders;
#[path = "parts/engine.rs"]
mod engine;
#[path = "parts/load.rs"]
mod load;
#[path = "parts/machine.rs"]
mod machine;
#[path = "parts/memory.rs"]
mod memory;
#[path = "parts/report.rs"]
mod report;
#[path = "parts/tokens.rs"]
mod tokens;
#[path = "parts/wire.rs"]
mod wire;
#[path = "parts/works.rs"]
mod works;

use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use bpmgate::body::BoxError;
use clap::{Parser, ValueEnum};
use http::Uri;

use contenders::{Contender, Place, started};
use machine::Cores;
use report::{Report, Section};
use tokens::Tokens;
use works::Plan;

/// Measures bpmgate beside a bare forwarder
#[derive(Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
struct Arguments {
    /// Lines whose name has this in it; all if not given
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds of each line
    #[arg(long)]
    rounds: Option<usize>,
    /// How long the round before them is, in seconds
    #[arg(long, value_name = "SECONDS")]
    warm_up: Option<u64>,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How many workers the line `workers` holds against one
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Another one that runs already: NAME=URL,PID[,prefix=/api][,works=LINE:LIMIT/LINE]
    ///
    /// LIMIT is how many times its CPU bpmgate may take. The process and its children are measured.
    #[arg(long, value_name = "CONTENDER")]
    contender: Vec<String>,
    /// Where the engine listens
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    engine: String,
    /// Make the tokens and tell where they are, no more: the others want the key
    #[arg(long)]
    prepare: bool,
    #[arg(long)]
    json: bool,
    /// Tables, as in docs/performance.md
    #[arg(long)]
    markdown: bool,
    /// `cargo bench` says so; without, as in `cargo test`, the bench only shows that it runs
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    role: Option<Role>,
}

/// What this program is started as by itself.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Engine,
    Forwarder,
}

fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Engine) => serve_engine(&arguments.engine),
        Some(Role::Forwarder) => serve_forwarder(arguments.engine.parse()?),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<(), BoxError> {
    let plan = arguments.plan();
    let directory = tempfile::tempdir()?;
    let kept = if arguments.bench {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../bench")
    } else {
        directory.path().join("tokens")
    };
    let tokens = Tokens::at(&kept, plan.in_turn + plan.new * (plan.rounds + 1))?;
    if arguments.prepare {
        println!("{}", kept.canonicalize()?.display());
        return Ok(());
    }
    machine::allow_open_files();
    let cores = Cores::found();
    cores.load_here();
    let (_engine, engine) = started(&["--role", "engine", "--engine", &arguments.engine])?;
    let place = Place {
        cores,
        engine,
        tokens: &tokens,
        directory: directory.path(),
    };
    let mut peers = Vec::new();
    let mut notes = Vec::new();
    for text in &arguments.contender {
        let peer = contenders::peer(text)?;
        match peer.check(&tokens) {
            Ok(misses) if misses.is_empty() => {}
            Ok(misses) => notes.push(format!("{}: {}", peer.name, misses.join(", "))),
            Err(error) => {
                notes.push(format!("{} is left out: {error}", peer.name));
                continue;
            }
        }
        peers.push(peer);
    }
    let report = Report {
        connections: plan.connections,
        rounds: plan.rounds,
        pinned: place.cores.pinned(),
        sections: arguments.sections(&plan, &place, &peers)?,
        notes,
    };
    if arguments.json {
        println!("{:#}", report.json());
    } else if arguments.markdown {
        print!("{}", report.markdown());
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

impl Arguments {
    fn plan(&self) -> Plan {
        let round = Duration::from_millis(if self.bench { 1000 } else { 50 });
        Plan {
            rounds: self.rounds.unwrap_or(if self.bench { 10 } else { 1 }),
            round,
            warm_up: self.warm_up.map_or(round, Duration::from_secs),
            connections: self.connections,
            in_turn: if self.bench { 10_000 } else { 20 },
            new: if self.bench { 2000 } else { 20 },
            held: if self.bench { 10_000 } else { 20 },
            files: if self.bench { 108 } else { 4 },
        }
    }

    fn sections(
        &self,
        plan: &Plan,
        place: &Place<'_>,
        peers: &[Contender],
    ) -> Result<Vec<Section>, BoxError> {
        let wanted = |key: &str| {
            self.only.is_empty() || self.only.iter().any(|only| key.contains(only.as_str()))
        };
        let mut sections = Vec::new();
        for line in works::LINES.iter().filter(|line| wanted(line.key)) {
            sections.push(line.measure(plan, place, peers)?);
        }
        for key in memory::LINES.into_iter().filter(|key| wanted(key)) {
            sections.push(memory::measure(key, plan, place)?);
        }
        if wanted("workers") {
            sections.push(works::workers(plan, place, self.workers)?);
        }
        Ok(sections)
    }
}

fn serve_engine(listen: &str) -> Result<(), BoxError> {
    let listener = TcpListener::bind(listen)?;
    println!("{}", listener.local_addr()?);
    end_with_parent();
    Ok(engine::serve(&listener)?)
}

fn serve_forwarder(engine: Uri) -> Result<(), BoxError> {
    // As many as the gateway has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        end_with_parent();
        bare_forwarder::serve(listener, engine).await
    })
}

/// Ends this process when the one who started it has ended.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        #[expect(clippy::exit, reason = "nobody is left to tell")]
        std::process::exit(0);
    });
}
