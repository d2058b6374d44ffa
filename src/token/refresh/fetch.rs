//! One fetch of an issuer's keys: a JWK set by URL, by discovery, or from a file.
//!
//! What comes from the network is bounded ([`MAX_SET_BYTES`]) and never leads elsewhere than the
//! configured host: at most three redirects, each to the same scheme, host and port. Only
//! `jwks_uri` of a discovery document whose `issuer` is ours may name another host, and no plain `http`
//! where the issuer itself is `https`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, DATE, HeaderMap, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::KeySource;
use crate::token::json::{self, NotStrict};
use crate::token::keys::{KeySetError, MAX_SET_BYTES};
use crate::token::{Issuer, KeySet};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// A cause of another crate.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No TLS client can be made.
    #[error("no TLS client")]
    Tls(#[source] Cause),
    /// No connection, or it broke.
    #[error("{0} cannot be reached")]
    Connection(Uri, #[source] Cause),
    /// The answer's body broke off.
    #[error("the answer of {0} broke off")]
    Body(Uri, #[source] Cause),
    /// Another status than 200.
    #[error("{0} answered {1}, expected 200")]
    Status(Uri, StatusCode),
    /// More than [`MAX_SET_BYTES`].
    #[error("the answer of {0} has more than {MAX_SET_BYTES} bytes")]
    TooLarge(Uri),
    /// A redirect without a usable target, or to another scheme, host or port.
    #[error("{0} redirects to another host, or to nowhere; name the final address instead")]
    Redirect(Uri),
    /// More than three redirects.
    #[error("{0} redirects more than {MAX_REDIRECTS} times")]
    Redirects(Uri),
    /// No URL can be made for discovery.
    #[error("the issuer {0} is no http or https URL, so discovery does not work")]
    IssuerUrl(String),
    /// The discovery document is no JSON.
    #[error("the discovery document is not strict JSON: {0}")]
    Discovery(#[from] NotStrict),
    /// The discovery document is another issuer's.
    #[error("the discovery document is not that of the issuer {0}: its \"issuer\" differs")]
    OtherIssuer(String),
    /// The discovery document names no usable `jwks_uri`.
    #[error("the discovery document has no https \"jwks_uri\"")]
    NoJwksUri,
    /// The file cannot be read.
    #[error("{} cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// What was fetched is no key set.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// What one fetch brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// The keys.
    pub keys: KeySet,
    /// The clock of the server they came from, to the second (`Date`, RFC 9110 §6.6.1), if it told.
    pub date: Option<SystemTime>,
}

/// Fetches the keys once. There is no time limit in here.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(issuer: &Issuer, source: &KeySource) -> Result<Fetched, FetchError> {
    let url = match source {
        KeySource::JwksUrl(url) => url.clone(),
        KeySource::Discovery => discover(client().await?, issuer).await?,
        KeySource::File(path) => {
            let owned = path.clone();
            let content = tokio::task::spawn_blocking(move || read(&owned))
                .await
                .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
                .map_err(|error| FetchError::File(path.clone(), error))?;
            let keys = KeySet::from_file_content(&content)?;
            return Ok(Fetched { keys, date: None });
        }
    };
    let (document, date) = get(client().await?, &url).await?;
    let keys = KeySet::from_jwks(&document)?;
    Ok(Fetched { keys, date })
}

/// Reads one byte more than is allowed, so that the parser sees that it is too much.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_SET_BYTES as u64 + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}

type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The one client: reading the platform's certificates takes milliseconds and blocks, so that is done
/// once, when a URL is first needed.
async fn client() -> Result<&'static HttpsClient, FetchError> {
    static CLIENT: OnceCell<HttpsClient> = OnceCell::const_new();
    let new = || async {
        tokio::task::spawn_blocking(new_client)
            .await
            .unwrap_or_else(|panic| Err(FetchError::Tls(panic.into())))
    };
    CLIENT.get_or_try_init(new).await
}

fn new_client() -> Result<HttpsClient, FetchError> {
    // Fetches are minutes apart: a connection kept would be closed by then.
    Ok(Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(https_connector()?))
}

/// Connects over http and https, and trusts whom the platform trusts.
pub(crate) fn https_connector() -> Result<HttpsConnector<HttpConnector>, FetchError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = || {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
    };
    let config = match builder().and_then(BuilderVerifierExt::with_platform_verifier) {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            // An image without any certificates is fine where all that is asked is plain http; no https
            // server is trusted then.
            tracing::warn!(%error, "no platform certificates");
            builder()
                .map_err(|error| FetchError::Tls(error.into()))?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    };
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .build())
}

/// The `jwks_uri` of the issuer's own discovery document.
async fn discover(client: &HttpsClient, issuer: &Issuer) -> Result<Uri, FetchError> {
    let name = issuer.as_str();
    // OpenID Connect Discovery 1.0 §4.1: a final slash is taken off first.
    let base = name.strip_suffix('/').unwrap_or(name);
    let url = name
        .parse()
        .ok()
        .filter(|name: &Uri| matches!(name.scheme_str(), Some("https" | "http")))
        .filter(|name| name.query().is_none())
        .and_then(|_| {
            format!("{base}/.well-known/openid-configuration")
                .parse()
                .ok()
        })
        .ok_or_else(|| FetchError::IssuerUrl(name.to_owned()))?;
    let (document, _) = get(client, &url).await?;
    read_discovery(&document, name, &url)
}

fn read_discovery(document: &[u8], issuer: &str, url: &Uri) -> Result<Uri, FetchError> {
    let document = json::object(document)?;
    // §4.3: else one host could hand out the keys of another issuer.
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(FetchError::OtherIssuer(issuer.to_owned()));
    }
    document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .and_then(|found| found.parse::<Uri>().ok())
        .filter(|found| match found.scheme_str() {
            Some("https") => true,
            Some("http") => url.scheme_str() == Some("http"),
            Some(_) | None => false,
        })
        .ok_or(FetchError::NoJwksUri)
}

async fn get(client: &HttpsClient, url: &Uri) -> Result<(Bytes, Option<SystemTime>), FetchError> {
    let mut at = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = at.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, JSON);
        headers.insert(USER_AGENT, AGENT);
        let response = client
            .request(request)
            .await
            .map_err(|error| FetchError::Connection(at.clone(), error.into()))?;
        match response.status() {
            StatusCode::OK => {
                let date = date(response.headers());
                return Ok((read_body(response.into_body(), at).await?, date));
            }
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                at = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|target| same_origin(&at, target.to_str().ok()?))
                    .ok_or(FetchError::Redirect(at))?;
            }
            status => return Err(FetchError::Status(at, status)),
        }
    }
    Err(FetchError::Redirects(url.clone()))
}

const JSON: http::HeaderValue =
    http::HeaderValue::from_static("application/json, application/jwk-set+json");
const AGENT: http::HeaderValue =
    http::HeaderValue::from_static(concat!("bpmgate/", env!("CARGO_PKG_VERSION")));

async fn read_body(body: Incoming, url: Uri) -> Result<Bytes, FetchError> {
    match Limited::new(body, MAX_SET_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(url)),
        Err(error) => Err(FetchError::Body(url, error)),
    }
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// The target of a redirect, if it is an absolute path, or a URL of the same scheme, host and port.
fn same_origin(from: &Uri, target: &str) -> Option<Uri> {
    // RFC 3986 §4.2: `//host/path` names another host, and `Uri` takes it for a path.
    let target: Uri = Some(target)
        .filter(|target| !target.starts_with("//"))?
        .parse()
        .ok()?;
    let same = match (target.scheme(), target.authority()) {
        (None, None) => true,
        (scheme, authority) => scheme == from.scheme() && authority == from.authority(),
    };
    let path = target.path_and_query().filter(|_| same)?;
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(path.clone());
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests;
