//! Finds the row of the operation catalogue that the engine will run for the request.
//!
//! Looks at the method and the normalized path below one of the public prefixes; puts [`Matched`]
//! into the extensions, also where there is no row: whether that may pass is the access check's word.
//!
//! Refused in every profile, with 405: a method that is one of the path's in another case, as engines on
//! `RESTEasy` run `post` as POST (engine fact "Methods are case-sensitive on O, C, S") and its body would
//! pass unread; TRACE, whose answer may hold the engine's credentials; CONNECT, which opens a tunnel.

use http::{Method, Request};

use super::checked::{Check, CheckLayer};
use crate::audit::cut;
use crate::operation::{Catalogue, Matched};
use crate::path::strip_prefix;
use crate::problem::Problem;
use crate::request_info::Findings;

/// The check of [`MatchOperationLayer`].
#[derive(Debug)]
pub struct MatchOperation {
    prefixes: Vec<String>,
}

/// Puts the operation that the request means into its extensions.
///
/// # Examples
/// ```
/// use bpmgate::{layer::MatchOperationLayer, operation::Matched, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let name = tower::service_fn(|request: Request<()>| async move {
///     let id = match request.extensions().get() {
///         Some(Matched::Operation(found)) => found.operation.id,
///         _ => "none",
///     };
///     Ok::<_, Problem>(Response::new(id))
/// });
/// let service = MatchOperationLayer::new(vec!["/api".into()]).layer(name);
/// let start = Request::post("/api/process-definition/key/order/start").body(()).unwrap();
/// assert_eq!(service.oneshot(start).await.unwrap().into_body(), "startProcessInstanceByKey");
/// # }
/// ```
pub type MatchOperationLayer = CheckLayer<MatchOperation>;

impl MatchOperationLayer {
    /// Looks below these prefixes; a path below none of them is unknown.
    #[must_use]
    pub fn new(prefixes: Vec<String>) -> Self {
        Self::of(MatchOperation::new(prefixes))
    }
}

impl MatchOperation {
    pub(crate) fn new(prefixes: Vec<String>) -> Self {
        Self { prefixes }
    }
}

impl Check for MatchOperation {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let method = request.method();
        let matched = match strip_prefix(&self.prefixes, request.uri().path()) {
            Some(path) => Catalogue::builtin().find(request.method(), path),
            None => Matched::Unknown,
        };
        if let Matched::OtherMethods(allow) = &matched
            && allow
                .split(", ")
                .any(|known| known.eq_ignore_ascii_case(method.as_str()))
        {
            return Err(Problem::MethodNotAllowed(allow.clone()));
        }
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            let allow = match matched {
                Matched::OtherMethods(allow) => allow,
                Matched::Operation(_) | Matched::Unknown => FORWARDED.into(),
            };
            return Err(Problem::MethodNotAllowed(allow));
        }
        if let (Matched::Operation(found), Some(findings)) =
            (&matched, request.extensions().get::<Findings>())
        {
            findings.note_operation(found.operation);
            // A span alone asks for it.
            if findings.recorded().is_some()
                && let Some(key) = found.process_key()
            {
                findings.note_process_key(cut(key));
            }
        }
        request.extensions_mut().insert(matched);
        Ok(())
    }
}

/// The methods that may be an operation, or be passed as none.
const FORWARDED: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_an_engine_could_read_otherwise_are_refused() {
        let check = MatchOperation {
            prefixes: vec!["/api".into()],
        };
        for (method, path, allow) in [
            ("post", "/api/process-definition/key/a/start", Some("POST")),
            ("Get", "/api/engine", Some("GET, HEAD")),
            ("head", "/api/engine", Some("GET, HEAD")),
            ("TRACE", "/api/engine", Some("GET, HEAD")),
            ("CONNECT", "/api/nothing", Some(FORWARDED)),
            ("PATCH", "/api/engine", None),
            ("PROPFIND", "/api/engine", None),
            ("POST", "/api/nothing", None),
        ] {
            let request = Request::builder().method(method).uri(path);
            let mut request = request.body(()).unwrap();
            let want = allow.map_or(Ok(()), |allow| Err(Problem::MethodNotAllowed(allow.into())));
            assert_eq!(check.check(&mut request), want, "{method} {path}");
        }
    }
}
