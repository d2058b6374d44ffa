//! Header hygiene on the way in: nothing of the client's that the engine could read as identity.
//!
//! 1. Removed: `Authorization`, `Proxy-Authorization`, `Cookie`; every hop-by-hop header (RFC 9110
//!    §7.6.1) and those that `Connection` names; method overrides; headers by which common proxies say
//!    who the user is; what only a browser's peer needs (`Origin`, `Referer`, `Sec-*`), as the engine
//!    refuses more than 8 KB of headers (engine facts §6).
//! 2. Written: `X-Forwarded-For/-Proto/-Host` and `Forwarded` (see [`crate::forwarded`]),
//!    `X-Request-Id`.
//! 3. Kept: everything else, W3C trace context among it, byte for byte.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Request, Version};
use tower::{Layer, Service};

use crate::forwarded::{
    Forwarded, ForwardedHeaders, TrustedProxies, own_host, says_who_the_client_is,
};
use crate::request_info::{Peer, RequestInfo};

/// Cleans the request's headers for the engine and writes those that the gateway answers for.
///
/// # Examples
/// ```
/// use bpmgate::{layer::EngineHeadersLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let echo = tower::service_fn(|request: Request<()>| async move {
///     Ok::<_, Problem>(Response::new(request.headers().clone()))
/// });
/// let service = EngineHeadersLayer::new(Default::default(), true).layer(echo);
/// let request = Request::get("/task").header("cookie", "a=b").header("accept", "*/*").body(()).unwrap();
/// let seen = service.oneshot(request).await.unwrap().into_body();
/// assert!(!seen.contains_key("cookie") && seen.contains_key("accept"));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EngineHeadersLayer(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    trusted: TrustedProxies,
    preserve_host: bool,
}

impl EngineHeadersLayer {
    /// `preserve_host` passes the client's `Host` on, so that the engine's links carry it.
    #[must_use]
    pub fn new(trusted: TrustedProxies, preserve_host: bool) -> Self {
        Self(Arc::new(Rules {
            trusted,
            preserve_host,
        }))
    }
}

impl<S> Layer<S> for EngineHeadersLayer {
    type Service = EngineHeaders<S>;

    fn layer(&self, inner: S) -> EngineHeaders<S> {
        EngineHeaders {
            rules: self.0.clone(),
            last: None,
            inner,
        }
    }
}

/// The service of [`EngineHeadersLayer`].
#[derive(Debug, Clone)]
pub struct EngineHeaders<S> {
    rules: Arc<Rules>,
    /// The server has a service for each connection, over which nearly always the same client asks the same host.
    last: Option<Arc<Said>>,
    inner: S,
}

/// What the engine was told of a client that is no proxy.
#[derive(Debug)]
struct Said {
    peer: Peer,
    host: HeaderValue,
    headers: ForwardedHeaders,
}

impl<S, B> Service<Request<B>> for EngineHeaders<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let extensions = request.extensions();
        let info = extensions.get::<RequestInfo>();
        let peer = info
            .and_then(|info| info.peer)
            .or_else(|| extensions.get::<Peer>().copied());
        let id = info.map(|info| info.id.clone());
        self.tell_of_client(&mut request, peer);
        if let Some(id) = id {
            request.headers_mut().insert(X_REQUEST_ID, id);
        }
        self.inner.call(request)
    }
}

impl<S> EngineHeaders<S> {
    fn tell_of_client<B>(&mut self, request: &mut Request<B>, peer: Option<Peer>) {
        let host = request.headers().get(HOST);
        if let (Some(last), Some(peer)) = (&self.last, peer)
            && (last.peer, Some(&last.host)) == (peer, host)
        {
            clean(request, self.rules.preserve_host);
            last.headers.write(request.headers_mut());
            return;
        }
        let trusted = &self.rules.trusted;
        let forwarded = Forwarded::of(request.headers(), request.uri(), peer, trusted);
        let headers = forwarded.headers();
        if let (Some(peer), Some(host)) = (peer, host)
            && !trusted.contains(peer.address)
            && host.len() <= LONGEST_HOST
            && let Ok(host) = HeaderValue::from_bytes(host.as_bytes())
        {
            self.last = Some(Arc::new(Said {
                peer,
                host,
                headers: headers.clone(),
            }));
        }
        clean(request, self.rules.preserve_host);
        headers.write(request.headers_mut());
    }
}

/// The bytes of a host that is remembered: a name has 253 at most (RFC 1035 §2.3.4), and a port.
const LONGEST_HOST: usize = 260;

/// Leaves what the engine is to have. Looks once at each header that is there, rather than for each that could be.
fn clean<B>(request: &mut Request<B>, preserve_host: bool) {
    let version = request.version();
    let headers = request.headers_mut();
    let mut expect = false;
    let unwanted = hop_by_hop_and(headers, |name| {
        expect |= name == EXPECT;
        is_unwanted(name.as_str())
    });
    let takes_trailers = version >= Version::HTTP_11
        && unwanted.contains(&TE)
        && headers
            .get(TE)
            .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in unwanted {
        headers.remove(name);
    }
    // hyper has answered 100-continue, or will when the body is asked for (RFC 9110 §10.1.1).
    if expect
        && headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(EXPECT);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if !preserve_host {
        headers.remove(HOST);
    } else if !headers.contains_key(HOST)
        && let Some(host) = own_host(request.headers(), request.uri())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// What no engine is to see, but for what is a hop's own.
fn is_unwanted(name: &str) -> bool {
    is_for_us_alone(name)
        || says_who_the_client_is(name)
        || name == "x-request-id"
        || name.starts_with("sec-")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-auth-request-")
        || name.starts_with("x-remote-")
        // Servers of the CGI family read `_` as `-`: `X_Forwarded_For` is another spelling.
        || name.contains('_')
}

/// The headers that are for this connection alone, those that `Connection` names, and the `unwanted`.
pub(super) fn hop_by_hop_and(
    headers: &HeaderMap,
    mut unwanted: impl FnMut(&HeaderName) -> bool,
) -> Vec<HeaderName> {
    let mut has_connection = false;
    let goes = |name: &&HeaderName| {
        has_connection |= **name == CONNECTION;
        is_hop_by_hop(name.as_str()) || unwanted(name)
    };
    let mut names: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    if has_connection {
        let named = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // No client makes the framing, the routing or what the body is a matter of one hop.
            .filter(|name: &HeaderName| name != HOST && !name.as_str().starts_with("content-"));
        names.extend(named);
    }
    names
}

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

fn is_for_us_alone(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "origin"
            | "referer"
            | "access-control-request-method"
            | "access-control-request-headers"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
            | "remote-user"
            | "x-user"
            | "x-authenticated-user"
            | "x-webauth-user"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::get("/task");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let mut seen = HeaderMap::new();
        let engine = tower::service_fn(|request: Request<()>| {
            seen.clone_from(request.headers());
            std::future::ready(Ok::<_, std::convert::Infallible>(()))
        });
        let layer = EngineHeadersLayer::new(TrustedProxies::default(), true);
        drop(layer.layer(engine).call(request));
        seen
    }

    #[test]
    fn each_request_over_a_connection_has_its_own_client_and_host() {
        let mut seen = Vec::new();
        let engine = tower::service_fn(|request: Request<()>| {
            let header = |name: &str| request.headers().get(name).cloned();
            seen.push([header("forwarded"), header("x-forwarded-host")]);
            std::future::ready(Ok::<_, std::convert::Infallible>(()))
        });
        let mut service = EngineHeadersLayer::new(TrustedProxies::default(), true).layer(engine);
        let asked = [
            ("192.0.2.7", false, Some("a")),
            ("192.0.2.7", false, Some("a")),
            ("192.0.2.7", false, Some("b")),
            ("192.0.2.8", false, Some("b")),
            ("192.0.2.8", true, Some("b")),
            ("192.0.2.8", true, None),
            ("192.0.2.8", true, Some("b")),
        ];
        for (address, tls, host) in asked {
            let mut request = Request::get("/task").header("forwarded", "for=1.2.3.4");
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let address = address.parse().unwrap();
            let peer = Peer { address, tls };
            drop(service.call(request.extension(peer).body(()).unwrap()));
        }
        let want = asked.map(|(address, tls, host)| {
            let proto = if tls { "https" } else { "http" };
            let named = host.map_or(String::new(), |host| format!(";host=\"{host}\""));
            let forwarded = format!("for={address};proto={proto}{named}");
            [Some(forwarded), host.map(str::to_owned)]
                .map(|value| value.map(|value| HeaderValue::try_from(value).unwrap()))
        });
        assert_eq!(seen, want);
    }

    #[test]
    fn what_could_be_read_as_identity_or_method_is_gone() {
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic eA=="),
            ("cookie", "JSESSIONID=1"),
            ("x-http-method-override", "DELETE"),
            ("x-forwarded-user", "root"),
            ("x-auth-request-email", "root@x"),
            ("x-remote-user", "root"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("origin", "https://evil.example"),
            ("sec-fetch-mode", "cors"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("x-real-ip", "1.2.3.4"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("x-request-id", "mine"),
        ] {
            assert!(!sent(&[(name, value)]).contains_key(name), "{name}");
        }
    }

    #[test]
    fn what_connection_names_is_gone_but_not_framing_or_host() {
        let headers = sent(&[
            (
                "connection",
                "close, X-Secret, Host, Content-Length, content-type",
            ),
            ("content-type", "application/json"),
            ("x-secret", "1"),
            ("host", "gate"),
            ("content-length", "3"),
        ]);
        assert!(!headers.contains_key("x-secret") && !headers.contains_key("connection"));
        for name in ["host", "content-length", "content-type"] {
            assert!(headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn everything_else_stays() {
        for (name, value) in [
            ("accept", "application/hal+json"),
            ("accept-language", "de"),
            ("content-type", "multipart/form-data; boundary=x"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("user-agent", "curl"),
            ("trailer", "x-checksum"),
            ("expect", "something-else"),
            ("x-custom", "1"),
        ] {
            assert_eq!(sent(&[(name, value)]).get(name).unwrap(), value, "{name}");
        }
        assert!(!sent(&[("expect", "100-Continue")]).contains_key("expect"));
    }
}
