//! Header hygiene on the way in: nothing of the client's that the engine could read as identity.
//!
//! 1. Removed: `Authorization`, `Proxy-Authorization`, `Cookie`; every hop-by-hop header (RFC 9110
//!    §7.6.1) and those that `Connection` names; method overrides; headers by which common proxies say
//!    who the user is; what only a browser's peer needs (`Origin`, `Referer`, `Sec-*`), as the engine
//!    refuses more than 8 KB of headers (engine facts §6).
//! 2. Written: `X-Forwarded-For/-Proto/-Host` and `Forwarded` (see [`crate::forwarded`]),
//!    `X-Request-Id`.
//! 3. Kept: everything else, W3C trace context among it, byte for byte.

use http::header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Request, Version};

use super::checked::{Check, CheckLayer};
use crate::forwarded::{Forwarded, TrustedProxies, own_host};
use crate::problem::Problem;
use crate::request_info::{Peer, RequestInfo};

/// The check of [`EngineHeadersLayer`].
#[derive(Debug)]
pub struct EngineHeaders {
    trusted: TrustedProxies,
    preserve_host: bool,
}

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
pub type EngineHeadersLayer = CheckLayer<EngineHeaders>;

impl EngineHeadersLayer {
    /// `preserve_host` passes the client's `Host` on, so that the engine's links carry it.
    #[must_use]
    pub fn new(trusted: TrustedProxies, preserve_host: bool) -> Self {
        Self::of(EngineHeaders {
            trusted,
            preserve_host,
        })
    }
}

impl Check for EngineHeaders {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let info = request.extensions().get::<RequestInfo>().cloned();
        let peer = info
            .as_ref()
            .and_then(|info| info.peer)
            .or_else(|| request.extensions().get::<Peer>().copied());
        let forwarded = Forwarded::of(request.headers(), request.uri(), peer, &self.trusted);
        let own_host = own_host(request.headers(), request.uri());
        let version = request.version();
        let headers = request.headers_mut();
        let takes_trailers = version >= Version::HTTP_11
            && headers
                .get(TE)
                .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        remove_hop_by_hop(headers, |name| {
            let text = name.as_str();
            is_for_us_alone(text)
                || text.starts_with("sec-")
                || text.starts_with("x-forwarded-")
                || text.starts_with("x-auth-request-")
                || text.starts_with("x-remote-")
                // Servers of the CGI family read `_` as `-`: `X_Forwarded_For` is another spelling.
                || text.contains('_')
        });
        // hyper has answered 100-continue, or will when the body is asked for (RFC 9110 §10.1.1).
        if headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        {
            headers.remove(EXPECT);
        }
        if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if !self.preserve_host {
            headers.remove(HOST);
        } else if let (false, Some(host)) = (headers.contains_key(HOST), own_host) {
            headers.insert(HOST, host);
        }
        forwarded.write(headers);
        match info {
            Some(info) => drop(headers.insert(X_REQUEST_ID, info.id)),
            None => drop(headers.remove(X_REQUEST_ID)),
        }
        Ok(())
    }
}

/// Removes the headers that are for this connection alone, those that `Connection` names, and the `unwanted`.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // No client makes the framing, the routing or what the body is a matter of one hop.
            .filter(|name: &HeaderName| name != HOST && !name.as_str().starts_with("content-"))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_where(headers, |name| is_hop_by_hop(name) || unwanted(name));
}

/// Looks once at each header that is there, rather than for each that could be.
pub(crate) fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
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
        let mut request = request.body(()).unwrap();
        let check = EngineHeaders {
            trusted: TrustedProxies::default(),
            preserve_host: true,
        };
        check.check(&mut request).unwrap();
        request.headers().clone()
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
