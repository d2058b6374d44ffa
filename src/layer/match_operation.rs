//! Finds the row of the operation catalogue that the engine will run for the request.
//!
//! Looks at the method and the normalized path below one of the public prefixes; puts [`Matched`]
//! into the extensions, also where there is no row: whether that may pass is the access check's word.

use http::Request;

use super::checked::{Check, CheckLayer};
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
        Self::of(MatchOperation { prefixes })
    }
}

impl Check for MatchOperation {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let matched = match strip_prefix(&self.prefixes, request.uri().path()) {
            Some(path) => Catalogue::builtin().find(request.method(), path),
            None => Matched::Unknown,
        };
        if let (Matched::Operation(found), Some(findings)) =
            (&matched, request.extensions().get::<Findings>())
        {
            findings.note_operation(found.operation);
        }
        request.extensions_mut().insert(matched);
        Ok(())
    }
}
