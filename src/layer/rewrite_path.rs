//! Turns the public path into the engine's: `/api/task` into `/engine-rest/task`.
//!
//! The query stays byte for byte: of repeated parameters the engine takes the first, and it refuses
//! characters that others accept (engine facts §5).

use http::Request;

use super::checked::{Check, CheckLayer};
use super::normalize_path::with_path;
use crate::path::strip_prefix;
use crate::problem::Problem;

/// The check of [`RewritePathLayer`].
#[derive(Debug)]
pub struct RewritePath {
    prefixes: Vec<String>,
    engine_path: String,
}

/// Replaces the public prefix by the path of the engine's REST root; a path below no prefix is 404.
///
/// # Examples
/// ```
/// use bpmgate::{layer::RewritePathLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let target = tower::service_fn(|request: Request<()>| async move {
///     Ok::<_, Problem>(Response::new(request.uri().to_string()))
/// });
/// let service = RewritePathLayer::new(vec!["/api".into()], "/engine-rest").layer(target);
/// let seen = service.oneshot(Request::get("/api/task?assignee=%61").body(()).unwrap()).await.unwrap();
/// assert_eq!(seen.into_body(), "/engine-rest/task?assignee=%61");
/// # }
/// ```
pub type RewritePathLayer = CheckLayer<RewritePath>;

impl RewritePathLayer {
    /// `engine_path` is the path of the engine's URL; a slash at its end is dropped.
    #[must_use]
    pub fn new(prefixes: Vec<String>, engine_path: &str) -> Self {
        Self::of(RewritePath::new(prefixes, engine_path))
    }
}

impl RewritePath {
    pub(crate) fn new(prefixes: Vec<String>, engine_path: &str) -> Self {
        Self {
            prefixes,
            engine_path: engine_path.trim_end_matches('/').to_owned(),
        }
    }
}

impl Check for RewritePath {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let uri = request.uri();
        let rest = strip_prefix(&self.prefixes, uri.path()).ok_or(Problem::NotFound)?;
        if self.engine_path.len() + rest.len() == uri.path().len()
            && uri.path().starts_with(&self.engine_path)
        {
            return Ok(());
        }
        let path: &[&str] = match (self.engine_path.as_str(), rest) {
            ("", "") => &["/"],
            (engine_path, rest) => &[engine_path, rest],
        };
        let uri = with_path(path, uri.query())?;
        *request.uri_mut() = uri;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_becomes_the_engine_path() {
        for (engine, target, want) in [
            ("/engine-rest", "/api/task?a=b", "/engine-rest/task?a=b"),
            ("/engine-rest/", "/engine-rest/task", "/engine-rest/task"),
            ("/other", "/engine-rest/task", "/other/task"),
            ("/", "/api/task", "/task"),
            ("", "/api", "/"),
        ] {
            let check = RewritePath::new(vec!["/api".into(), "/engine-rest".into()], engine);
            let mut request = Request::get(target).body(()).unwrap();
            check.check(&mut request).unwrap();
            assert_eq!(request.uri().to_string(), want, "{engine} {target}");
        }
    }

    #[test]
    fn a_path_below_no_prefix_is_not_found() {
        let check = RewritePath {
            prefixes: vec!["/api".into()],
            engine_path: String::new(),
        };
        let mut request = Request::get("/apix/task").body(()).unwrap();
        assert_eq!(check.check(&mut request), Err(Problem::NotFound));
    }
}
