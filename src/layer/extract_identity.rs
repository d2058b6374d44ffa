//! Reads the claims of the [`VerifiedToken`] and puts the caller's [`Identity`](crate::Identity) into the request's extensions.
//!
//! Acts after [`VerifyTokenLayer`](super::VerifyTokenLayer). Without a verified token it fails closed
//! with [`Problem::Misconfigured`]; a token whose id is missing, empty, no string, longer than 255 bytes or
//! with a control character is [`Problem::TokenInvalid`]: an id is never changed to fit.

use http::Request;

use super::checked::{Check, CheckLayer};
use crate::problem::Problem;
use crate::request_info::{Findings, RequestIds};
use crate::token::VerifiedToken;

/// Applies [`ExtractIdentity`].
///
/// # Examples
/// ```
/// use bpmgate::Problem;
/// use bpmgate::layer::ExtractIdentityLayer;
/// use http::Request;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// let inner = service_fn(|_: Request<()>| async { Ok::<_, Problem>("reached") });
/// let service = ExtractIdentityLayer::new().layer(inner);
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// // No `VerifyTokenLayer` outside of it: nobody gets through.
/// let answer = service.oneshot(Request::new(())).await;
/// assert!(matches!(answer, Err(Problem::Misconfigured(_))));
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type ExtractIdentityLayer = CheckLayer<ExtractIdentity>;

impl ExtractIdentityLayer {
    /// The claim paths are the issuer's; there is nothing to set here.
    #[must_use]
    pub fn new() -> Self {
        Self::of(ExtractIdentity(()))
    }
}

impl Default for ExtractIdentityLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// The check of [`ExtractIdentityLayer`].
#[derive(Debug)]
pub struct ExtractIdentity(());

impl Check for ExtractIdentity {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let token = request
            .extensions()
            .get::<VerifiedToken>()
            .ok_or(Problem::Misconfigured(
                "ExtractIdentityLayer needs VerifyTokenLayer outside of it",
            ))?;
        let identity = token.identity().map_err(|error| {
            let ids = RequestIds::at_debug(request.extensions());
            tracing::debug!(
                issuer = token.issuer().as_str(),
                %error,
                request_id = ids.request(),
                trace_id = ids.trace(),
                "token refused"
            );
            Problem::from(error)
        })?;
        if let Some(findings) = request.extensions().get::<Findings>() {
            findings.note_subject(identity.clone());
        }
        request.extensions_mut().insert(identity);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
