//! `bpmgate serve`: runs the gateway until it is told to stop.

use std::net::SocketAddr;

use tokio::runtime;
use tracing::info;

use super::{Failure, tell_warnings};
use crate::body::BoxError;
use crate::config::{Config, Loaded};
use crate::engine::EngineClient;
use crate::gateway::{Resources, stack};
use crate::server::{Connections, Limits, Server, stop_signal};
use crate::telemetry;

/// Runs the gateway.
#[expect(clippy::needless_pass_by_value, reason = "the gateway keeps it")]
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    tell_warnings(&loaded.warnings);
    telemetry::start(&loaded.config.telemetry);
    runtime(&loaded.config)?.block_on(async {
        let (server, serving) = gateway(&loaded.config).await?;
        info!(address = %server, "listening");
        serving.await;
        info!("stopped");
        Ok(())
    })
}

/// The runtime with as many workers as configured.
pub(super) fn runtime(config: &Config) -> Result<runtime::Runtime, Failure> {
    let mut builder = runtime::Builder::new_multi_thread();
    if config.server.workers > 0 {
        builder.worker_threads(config.server.workers);
    }
    Ok(builder.thread_name("bpmgate").enable_all().build()?)
}

/// Binds the gateway; it serves, until a signal stops it, while the future is polled.
pub(super) async fn gateway(
    config: &Config,
) -> Result<(SocketAddr, impl Future<Output = ()> + use<>), Failure> {
    let running = |error: BoxError| Failure::Running(error);
    let resources = Resources::from_config(config).map_err(running)?;
    let engine = EngineClient::from_config(config).map_err(running)?;
    let connections = Connections::new(stack(&resources, engine), Limits::from_config(config));
    let server = Server::bind(config.server.listen).await.map_err(|error| {
        running(format!("cannot listen on {}: {error}", config.server.listen).into())
    })?;
    let stop = stop_signal()?;
    let grace = config.server.shutdown_grace;
    Ok((server.address(), server.serve(connections, stop, grace)))
}
