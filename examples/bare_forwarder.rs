//! The simplest correct forwarder, without anything of ours: what the benches measure the gateway against.
//!
//! A hyper server, hyper-util's pooled client, the headers copied without those of the hop, and the
//! engine's `Authorization` in place of the caller's. No check of any kind: it lets everybody in.
//!
//! ```console
//! $ cargo run --example bare_forwarder http://localhost:8080
//! ```
#![expect(clippy::print_stdout, reason = "says where it listens")]

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let engine = std::env::args().nth(1).ok_or("give the engine's address")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, engine.parse()?).await
}

/// Forwards every request to the engine, for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Uri,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, engine) = (client.clone(), engine.clone());
        tokio::spawn(async move {
            let forward = service_fn(|request| forward(&client, &engine, request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), forward);
            // A client that goes away is not worth a word.
            let _ = connection.await;
        });
    }
}

async fn forward(
    client: &Client<HttpConnector, Incoming>,
    engine: &Uri,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Empty<Bytes>>>, Infallible> {
    let mut target = engine.clone().into_parts();
    target.path_and_query = request.uri().path_and_query().cloned();
    let Ok(target) = Uri::from_parts(target) else {
        return Ok(refused(StatusCode::BAD_REQUEST));
    };
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(request.headers_mut());
    let account = HeaderValue::from_static("Basic ZGVtbzpkZW1v");
    request.headers_mut().insert(AUTHORIZATION, account);

    let Ok(mut answer) = client.request(request).await else {
        return Ok(refused(StatusCode::BAD_GATEWAY));
    };
    remove_hop_by_hop(answer.headers_mut());
    Ok(answer.map(Either::Left))
}

fn refused<B>(status: StatusCode) -> Response<Either<B, Empty<Bytes>>> {
    let mut answer = Response::new(Either::Right(Empty::new()));
    *answer.status_mut() = status;
    answer
}

/// RFC 9110 §7.6.1: what is for this connection alone.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
