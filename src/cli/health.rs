//! `bpmgate health`: asks the running gateway's `/livez`, for health checks of containers.
//!
//! Exits with 0 or 1 and nothing else, as those that ask give other numbers a meaning of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ConfigFile, Failure, colour, tell};
use crate::body::BoxError;

/// Asks, and fails unless the answer is 200.
pub(super) fn run(config: ConfigFile) -> Result<(), Failure> {
    let loaded = config.load().map_err(|failure| {
        tell(&failure.render(colour()));
        Failure::Running("the configuration says not whom to ask".into())
    })?;
    let Some(listen) = loaded.config.admin.listen else {
        let told = "`admin.listen` is empty, so there is no /livez to ask";
        return Err(Failure::Running(told.into()));
    };
    if listen.port() == 0 {
        let told = "`admin.listen` has port 0, so nobody knows where /livez is";
        return Err(Failure::Running(told.into()));
    }
    let address = reachable(listen);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let failed = |why: BoxError| Failure::Running(format!("http://{address}/livez: {why}").into());
    match runtime.block_on(async { timeout(PATIENCE, ask(address)).await }) {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("answered {status}").into())),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(format!("no answer within {PATIENCE:?}").into())),
    }
}

async fn ask(address: SocketAddr) -> Result<StatusCode, BoxError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/livez")
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.status())
}

/// Who listens on all addresses is asked on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.0.0.7:9000", "10.0.0.7:9000"),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
