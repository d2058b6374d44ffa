//! Checks what the caller may do, before a byte goes to the engine.
//!
//! Needs [`Identity`] and [`Matched`]; without them it fails closed. Puts [`Access`](crate::access::Access)
//! into the extensions, where the layer that reads bodies finds which members to refuse.

use std::sync::Arc;

use http::Request;
use http::header::{ACCEPT, HeaderValue};

use super::checked::{Check, CheckLayer};
use crate::access::AccessRules;
use crate::identity::Identity;
use crate::operation::{Matched, Response};
use crate::problem::Problem;
use crate::request_info::Findings;

/// The check of [`AuthorizeLayer`].
#[derive(Debug)]
pub struct Authorize {
    rules: Arc<AccessRules>,
}

/// Rejects what the caller's profile does not allow: 403 `access_denied`, 404 or 405 for what is no operation.
///
/// # Examples
/// ```
/// use bpmgate::access::{AccessRules, Builtin};
/// use bpmgate::{layer::AuthorizeLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let engine = tower::service_fn(|_: Request<()>| async { Ok::<_, Problem>(Response::new(())) });
/// let service = AuthorizeLayer::new(AccessRules::new(Builtin::User).into()).layer(engine);
/// // Nobody has verified a token here: it fails closed.
/// let problem = service.oneshot(Request::get("/api/task").body(()).unwrap()).await.unwrap_err();
/// assert_eq!(problem.code(), "misconfigured");
/// # }
/// ```
pub type AuthorizeLayer = CheckLayer<Authorize>;

impl AuthorizeLayer {
    /// Decides by these rules.
    #[must_use]
    pub fn new(rules: Arc<AccessRules>) -> Self {
        Self::of(Authorize { rules })
    }
}

impl Check for Authorize {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let extensions = request.extensions();
        let caller = extensions.get::<Identity>().ok_or(Problem::Misconfigured(
            "the access check stands before identity extraction",
        ))?;
        let matched = extensions.get::<Matched>().ok_or(Problem::Misconfigured(
            "the access check stands before the operation match",
        ))?;
        if let Some(findings) = extensions.get::<Findings>() {
            let (profile, rule) = self.rules.profile_of(caller);
            findings.note_profile(profile.name().clone());
            if let Some(rule) = rule {
                findings.note_rule(rule);
            }
        }
        let access = self.rules.decide(caller, matched, request.uri().query())?;
        if let Matched::Operation(found) = matched
            && found.operation.response == Response::Hal
            && !access.members.people
        {
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        request.extensions_mut().insert(access);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Builtin};
    use crate::operation::Catalogue;

    fn request(path: &str) -> Request<()> {
        let mut request = Request::post(path).body(()).unwrap();
        let identity = crate::identity::tests::alice();
        let matched = Catalogue::builtin().find(request.method(), request.uri().path());
        request.extensions_mut().insert(identity);
        request.extensions_mut().insert(matched);
        request
    }

    #[test]
    fn grants_and_denies_by_the_profile() {
        let check = Authorize {
            rules: AccessRules::new(Builtin::User).into(),
        };
        let mut start = request("/process-definition/key/order/start");
        check.check(&mut start).unwrap();
        let access = start.extensions().get::<Access>().unwrap();
        assert!(!access.members.others && !access.members.skips);
        let problem = check.check(&mut request("/deployment/create")).unwrap_err();
        assert_eq!(problem, Problem::denied("createDeployment", "user"));
    }
}
