//! `bpmgate serve`: runs the gateway until it is told to stop.

use std::net::SocketAddr;

use tokio::runtime;
use tracing::info;

use super::{Failure, tell_warnings};
use crate::config::{Config, Loaded};
use crate::engine::EngineClient;
use crate::gateway::{Resources, stack};
use crate::server::{Connections, Limits, Server, Tls, stop_signal};
use crate::telemetry;

/// Runs the gateway.
#[expect(clippy::needless_pass_by_value, reason = "the gateway keeps it")]
pub(super) fn run(loaded: Loaded) -> Result<(), Failure> {
    tell_warnings(&loaded.warnings);
    let _logging = telemetry::start(&loaded.config.telemetry);
    runtime(&loaded.config)?.block_on(async {
        let server = bind(loaded.config.server.listen).await?;
        let address = server.address();
        let resources = resources(&loaded.config)?;
        let serving = gateway(&loaded.config, &resources, server)?;
        info!(%address, "listening");
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
    server: Server,
) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let engine = EngineClient::from_config(config).map_err(Failure::Running)?;
    let tls = Tls::from_config(config).map_err(|error| Failure::Running(error.into()))?;
    let connections =
        Connections::new(stack(resources, engine), Limits::from_config(config)).with_tls(tls);
    let stop = stop_signal()?;
    let grace = config.server.shutdown_grace;
    Ok(server.serve(connections, stop, grace))
}
