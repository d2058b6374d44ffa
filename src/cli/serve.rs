//! `bpmgate serve`: runs the gateway until it is told to stop.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::Notify;
use tower::Layer as _;
use tracing::{error, info, warn};

use super::{Failure, tell_warnings};
use crate::access_log::AccessLog;
use crate::admin::{Admin, Draining};
use crate::audit::Target;
use crate::body::BoxError;
use crate::config::{self, Config, ConfigError, Loaded, load};
use crate::engine::{EngineClient, Nodes};
use crate::gateway::{Resources, stack};
use crate::server::reload::{Stamp, stamp};
use crate::server::{Connections, Limits, Reloading, Reloads, Server, Tls, stop_signal, workers};
use crate::telemetry;

/// Runs the gateway.
#[expect(clippy::needless_pass_by_value, reason = "the gateway keeps it")]
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    tell_warnings(&loaded.warnings);
    let logging = telemetry::start(&loaded.config.telemetry);
    runtime()?.block_on(async {
        let config = &loaded.config;
        raise_open_files(&config.server.limits);
        let server = bind(config.server.listen).await?;
        let address = server.address();
        let admin_server = match config.admin.listen {
            Some(address) => Some(Server::bind(address).await.map_err(|error| {
                let told = format!("cannot listen on {address} (`admin.listen`): {error}");
                Failure::Running(told.into())
            })?),
            None => None,
        };
        let admin_address = admin_server.as_ref().map(Server::address);
        let (reloads, draining) = (Reloads::default(), Draining::default());
        let reloading = Reloading::new(&loaded, reloads.clone())?;
        let admin = |running: &Running| {
            let Running {
                config,
                resources,
                engine,
                ..
            } = running;
            Admin::new(config, resources, engine.clone(), &reloads, &draining)
        };
        let running = Running::start(config, logging.access_log())?;
        let connections = Connections::new(
            stack(&running.resources, running.engine.clone()),
            Limits::from_config(config),
        )
        .with_tls(tls(config)?)
        .with_metrics(running.resources.metrics.clone());
        let admin_connections = admin(&running)
            .map_err(Failure::Running)?
            .connections(&Limits::from_config(config));
        let (current, current_admin) = (connections.current(), admin_connections.current());

        let signalled = OnceLock::new();
        let stop = stopping(config, &running.resources, || {
            let _ = signalled.set(Instant::now());
            draining.begin();
        })?;
        let grace = config.server.shutdown_grace;
        let serving = server.serve_on(workers(config), connections, stop, grace);
        // The same after every reload.
        let traces = running.resources.traces.clone();
        info!(%address, admin = admin_address.map(tracing::field::display), "listening");
        let administering = async {
            let forever = std::future::pending();
            match admin_server {
                Some(server) => {
                    server
                        .serve(admin_connections, forever, Duration::ZERO)
                        .await;
                }
                None => forever.await,
            }
        };
        let (running, replaced) = (RefCell::new(running), Notify::new());
        let apply = |config: &Config| {
            let next = running.borrow().followed_by(config)?;
            // Before anybody asks by the new account.
            if running.borrow().config.engine.credentials != config.engine.credentials {
                next.resources.nodes.health().account_changed();
            }
            let admin = admin(&next)?;
            // From here on nothing fails.
            let limits = Limits::from_config(config);
            current.replace(stack(&next.resources, next.engine.clone()), limits.clone());
            current_admin.replace(admin.service(), limits);
            logging.set_level(config.telemetry.log_level);
            running.replace(next);
            replaced.notify_one();
            Ok(())
        };
        let watching = async {
            loop {
                let watching = running.borrow().watching();
                tokio::select! {
                    () = watching => {}
                    () = replaced.notified() => {}
                }
            }
        };
        let reloading = reloading.run(read, || running.borrow().reopen_audit_log(), apply);
        tokio::select! {
            served = serving => served?,
            // It answers until the last request is done.
            () = administering => {}
            () = reloading => {}
            () = watching => {}
        }
        if let Some(traces) = traces {
            // The last spans have what is left of the grace, and no collector holds up the end.
            let spent = signalled.get().map(Instant::elapsed).unwrap_or_default();
            let left = (config.server.shutdown_delay + grace).saturating_sub(spent);
            traces.shutdown(left.min(LAST_SPANS));
        }
        info!("stopped");
        Ok(())
    })
}

/// How long the last spans may take on their way.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// Each connection is an open file, and many systems give a process 1024 of them unless it asks for more: idle clients would
/// have them all.
fn raise_open_files(limits: &config::Limits) {
    // Each request and each long poll may have a connection to the engine as well.
    let may_be_open = limits
        .connections
        .saturating_add(limits.requests_in_flight)
        .saturating_add(limits.long_polls);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(most) if most > u64::try_from(may_be_open).unwrap_or(u64::MAX) => {}
        Ok(most) => warn!(
            most,
            may_be_open,
            "fewer open files are allowed than connections of clients and to the engine by `server.limits`"
        ),
        Err(error) => warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// The runtime of this thread, for all that serves no request.
pub(super) fn runtime() -> Result<runtime::Runtime, Failure> {
    Ok(runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

pub(super) async fn bind(address: SocketAddr) -> Result<Server, Failure> {
    Server::bind(address)
        .await
        .map_err(|error| Failure::Running(format!("cannot listen on {address}: {error}").into()))
}

pub(super) fn resources(config: &Config) -> Result<Resources, Failure> {
    Resources::from_config(config).map_err(Failure::Running)
}

/// The gateway, which serves, until a signal stops it, while the future is polled.
pub(super) fn gateway(
    config: &Config,
    resources: &Resources,
    engine: EngineClient,
    server: Server,
) -> Result<impl Future<Output = io::Result<()>> + use<>, Failure> {
    let watching = watching(resources, engine.clone());
    let connections = Connections::new(stack(resources, engine), Limits::from_config(config))
        .with_tls(tls(config)?)
        .with_metrics(resources.metrics.clone());
    let stop = stopping(config, resources, || ())?;
    let grace = config.server.shutdown_grace;
    let serving = server.serve_on(workers(config), connections, stop, grace);
    Ok(async {
        tokio::select! {
            served = serving => served,
            () = watching => Ok(()),
        }
    })
}

/// Asks the engine's nodes whether they are there, for ever.
fn watching(resources: &Resources, engine: EngineClient) -> impl Future<Output = ()> + use<> {
    let health = resources.nodes.health();
    let asked = resources.credentials.layer(engine);
    let root = resources.engine_path.clone();
    async move { health.watch(asked, &root).await }
}

fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    Tls::from_config(config).map_err(|error| Failure::Running(error.into()))
}

/// Ready when the gateway is to accept no more. `begin` is called at the signal, `server.shutdown_delay` before that.
fn stopping<F: FnOnce()>(
    config: &Config,
    resources: &Resources,
    begin: F,
) -> Result<impl Future<Output = ()> + use<F>, Failure> {
    let signalled = stop_signal()?;
    let delay = config.server.shutdown_delay;
    let grace = config.server.shutdown_grace;
    let long_polls = resources.end_of_long_polls.clone();
    Ok(async move {
        signalled.await;
        begin();
        tokio::time::sleep(delay).await;
        // Time enough to write the answers, before what is left is cut.
        let patience = grace.saturating_sub(LAST_ANSWERS.min(grace / 4));
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            long_polls.end();
        });
    })
}

/// What is in force.
struct Running {
    config: Config,
    resources: Resources,
    engine: EngineClient,
    engine_settings: EngineSettings,
}

/// What the client of the engine is made of: while that is the same, its connections go on.
#[derive(PartialEq)]
struct EngineSettings {
    table: config::Engine,
    body_idle: Duration,
    files: [Option<Stamp>; 3],
}

impl EngineSettings {
    fn of(config: &Config) -> Self {
        let defaults = config::Engine::default();
        let table = config.engine.clone();
        Self {
            files: [
                &table.ca_file,
                &table.certificate_file,
                &table.private_key_file,
            ]
            .map(|path| stamp(path)),
            body_idle: config.server.limits.body_idle_timeout,
            // Without what the layers above it are made of.
            table: config::Engine {
                preserve_host: defaults.preserve_host,
                credentials: defaults.credentials,
                retry: defaults.retry,
                timeouts: config::Timeouts {
                    response: defaults.timeouts.response,
                    ..table.timeouts
                },
                ..table
            },
        }
    }
}

impl Running {
    fn start(config: &Config, access_log: Option<AccessLog>) -> Result<Self, Failure> {
        let resources = Resources {
            access_log,
            ..resources(config)?
        };
        Ok(Self {
            config: config.clone(),
            engine_settings: EngineSettings::of(config),
            engine: EngineClient::from_config(config, &resources.nodes)
                .map_err(Failure::Running)?,
            resources,
        })
    }

    /// What this configuration comes to: of what is in force, all that it does not change goes on.
    fn followed_by(&self, config: &Config) -> Result<Self, BoxError> {
        let engine_settings = EngineSettings::of(config);
        let before = &self.resources;
        // A client that goes on has nodes that go on: what makes them is among its settings.
        let nodes = Nodes::following(config, (&self.config, &before.nodes));
        let engine = if self.engine_settings == engine_settings {
            self.engine.clone()
        } else {
            EngineClient::from_config(config, &nodes)?
        };
        Ok(Self {
            config: config.clone(),
            resources: Resources::following(config, Some((&self.config, before)), nodes)?,
            engine,
            engine_settings,
        })
    }

    fn watching(&self) -> impl Future<Output = ()> + use<> {
        watching(&self.resources, self.engine.clone())
    }

    /// So that a file that was renamed is let go.
    fn reopen_audit_log(&self) {
        let target = Target::parse(&self.config.telemetry.audit_log);
        if let Some((log, target)) = self.resources.audit.as_ref().zip(target)
            && let Err(error) = log.reopen(&target)
        {
            error!(%error, "the audit log cannot be opened again, and goes on in the file before");
        }
    }
}

/// Reads it again, from where it came at the start.
fn read(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    load::load(file, std::env::vars_os())
}

/// How long before the end of `server.shutdown_grace` long polls are answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
