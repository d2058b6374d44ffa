//! `bpmgate serve`: runs the gateway until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime;
use tower::Layer as _;
use tracing::{info, warn};

use super::{Failure, tell_warnings};
use crate::admin::Admin;
use crate::config::{Config, Loaded};
use crate::engine::EngineClient;
use crate::gateway::{Resources, stack};
use crate::server::{Connections, Limits, Server, Tls, stop_signal, workers};
use crate::telemetry;

/// Runs the gateway.
#[expect(clippy::needless_pass_by_value, reason = "the gateway keeps it")]
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    tell_warnings(&loaded.warnings);
    let _logging = telemetry::start(&loaded.config.telemetry);
    runtime()?.block_on(async {
        let config = &loaded.config;
        raise_open_files(config.server.limits.connections);
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
        let resources = resources(config)?;
        let engine =
            EngineClient::from_config(config, &resources.nodes).map_err(Failure::Running)?;
        let admin = Admin::new(config, &resources, engine.clone()).map_err(Failure::Running)?;
        let draining = admin.draining();
        let stopping = Arc::new(OnceLock::new());
        let begun = stopping.clone();
        let serving = gateway(config, &resources, engine, server, move || {
            let _ = begun.set(Instant::now());
            draining.begin();
        })?;
        info!(%address, admin = admin_address.map(tracing::field::display), "listening");
        let admin = async {
            match admin_server {
                Some(server) => admin.serve(server, Limits::from_config(config)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serving => served?,
            // It answers until the last request is done.
            () = admin => {}
        }
        if let Some(traces) = &resources.traces {
            // The last spans have what is left of the grace, and no collector holds up the end.
            let spent = stopping.get().map(Instant::elapsed).unwrap_or_default();
            let left = config.server.shutdown_grace.saturating_sub(spent);
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
fn raise_open_files(connections: usize) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(most) if most > u64::try_from(connections).unwrap_or(u64::MAX) => {}
        Ok(most) => warn!(
            most,
            connections, "fewer open files are allowed than `server.limits.connections`"
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

/// The gateway, which serves, until a signal stops it, while the future is polled. `stopping` is called before it
/// accepts no more.
pub(super) fn gateway<F: FnOnce() + Send + 'static>(
    config: &Config,
    resources: &Resources,
    engine: EngineClient,
    server: Server,
    stopping: F,
) -> Result<impl Future<Output = io::Result<()>> + use<F>, Failure> {
    let tls = Tls::from_config(config).map_err(|error| Failure::Running(error.into()))?;
    let health = resources.nodes.health().clone();
    let asked = resources.credentials.layer(engine.clone());
    let root = resources.engine_path.clone();
    let watching = async move { health.watch(asked, &root).await };
    let connections = Connections::new(stack(resources, engine), Limits::from_config(config))
        .with_tls(tls)
        .with_metrics(resources.metrics.clone());
    let signalled = stop_signal()?;
    let stop = async {
        signalled.await;
        stopping();
    };
    let grace = config.server.shutdown_grace;
    let serving = server.serve_on(workers(config), connections, stop, grace);
    Ok(async {
        tokio::select! {
            served = serving => served,
            () = watching => Ok(()),
        }
    })
}
