//! Normalizes the request's path once; everything after it looks at the result alone.
//!
//! Refuses with 400 `bad_path` what gateway and engine could read in two ways; see [`crate::path`]. The
//! query stays as it came. Where the target has an authority (HTTP/2, absolute form), that becomes the one
//! `Host` (RFC 9113 §8.3.1, RFC 9112 §3.2.2): else the engine would be asked by its own address, which
//! it then writes into its links.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Uri};

use super::checked::{Check, CheckLayer};
use crate::path::normalize;
use crate::problem::Problem;

/// The check of [`NormalizePathLayer`].
#[derive(Debug)]
pub struct NormalizePath(());

/// Normalizes the request's path, or rejects it with 400 `bad_path`.
///
/// # Examples
/// ```
/// use bpmgate::{layer::NormalizePathLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, Service, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let path = tower::service_fn(|request: Request<()>| async move {
///     Ok::<_, Problem>(Response::new(request.uri().path().to_owned()))
/// });
/// let service = NormalizePathLayer::new().layer(path);
/// let seen = service.clone().oneshot(Request::get("/t%61sk/?a=b").body(()).unwrap()).await.unwrap();
/// assert_eq!(seen.into_body(), "/task");
/// let refused = service.oneshot(Request::get("/task;x=y").body(()).unwrap()).await;
/// assert_eq!(refused.unwrap_err().code(), "bad_path");
/// # }
/// ```
pub type NormalizePathLayer = CheckLayer<NormalizePath>;

impl NormalizePathLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self::of(NormalizePath(()))
    }
}

impl Default for NormalizePathLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Check for NormalizePath {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let uri = request.uri();
        let changed = match normalize(uri.path()).map_err(|bad| Problem::BadPath(bad.reason()))? {
            Cow::Borrowed(path) if path.len() == uri.path().len() && uri.scheme().is_none() => None,
            Cow::Borrowed(path) => Some(with_path(&[path], uri.query())?),
            Cow::Owned(path) => Some(with_path(&[&path], uri.query())?),
        };
        let host = uri.authority().and_then(host_of);
        if let Some(uri) = changed {
            *request.uri_mut() = uri;
        }
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host);
        }
        Ok(())
    }
}

/// The authority without its user information, which no `Host` has.
fn host_of(authority: &Authority) -> Option<HeaderValue> {
    let host = authority.as_str().rsplit('@').next()?;
    HeaderValue::from_str(host).ok()
}

/// An origin-form target of this path and query.
pub(super) fn with_path(path: &[&str], query: Option<&str>) -> Result<Uri, Problem> {
    let length: usize = path.iter().map(|part| part.len()).sum();
    let mut target = String::with_capacity(length + query.map_or(0, |query| query.len() + 1));
    target.extend(path.iter().copied());
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let unwritable = |_| Problem::BadPath("it cannot be written as a request target");
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(unwritable)?;
    Ok(Uri::from(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_changes() {
        for (target, want) in [
            ("/api/task?x=%61&y=;..", "/api/task?x=%61&y=;.."),
            ("/api/t%61sk/?x=%61", "/api/task?x=%61"),
            ("http://other.example/api/task?x", "/api/task?x"),
            ("/api/task?", "/api/task?"),
        ] {
            let mut request = Request::get(target).body(()).unwrap();
            NormalizePath(()).check(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), want);
        }
    }

    #[test]
    fn the_authority_of_the_target_is_the_one_host() {
        for (target, want) in [
            ("http://gate.example:8000/api/task", "gate.example:8000"),
            ("http://u:p@gate.example/api/task", "gate.example"),
            ("/api/task", "first.example, second.example"),
        ] {
            let mut request = Request::get(target)
                .header("host", "first.example")
                .header("host", "second.example")
                .body(())
                .unwrap();
            NormalizePath(()).check(&mut request).unwrap();
            let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
            let hosts: Vec<_> = hosts.iter().map(|host| host.to_str().unwrap()).collect();
            assert_eq!(hosts.join(", "), want, "{target}");
        }
    }

    #[test]
    fn a_target_without_a_path_is_refused() {
        let mut request = Request::builder()
            .method("OPTIONS")
            .uri("*")
            .body(())
            .unwrap();
        assert_eq!(
            NormalizePath(()).check(&mut request).unwrap_err().code(),
            "bad_path"
        );
    }
}
