//! Reads the claims of the [`VerifiedToken`] and puts the caller's [`Identity`](crate::Identity) into the request's extensions.
//!
//! Acts after [`VerifyTokenLayer`](super::VerifyTokenLayer). Without a verified token it fails closed
//! with [`Problem::Misconfigured`]; a token whose id is missing, empty, no string, longer than 255 bytes or
//! with a control character is [`Problem::TokenInvalid`]: an id is never changed to fit.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};

use super::Checked;
use crate::problem::Problem;
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
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ExtractIdentityLayer;

impl ExtractIdentityLayer {
    /// The claim paths are the issuer's; there is nothing to set here.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for ExtractIdentityLayer {
    type Service = ExtractIdentity<S>;

    fn layer(&self, inner: S) -> ExtractIdentity<S> {
        ExtractIdentity { inner }
    }
}

/// Puts the caller's identity into each request; see the [layer](ExtractIdentityLayer).
#[derive(Debug, Clone)]
pub struct ExtractIdentity<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for ExtractIdentity<S>
where
    S: Service<Request<B>>,
    S::Error: Into<Problem>,
{
    type Response = S::Response;
    type Error = Problem;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(token) = request.extensions().get::<VerifiedToken>() else {
            return Checked::rejected(Problem::Misconfigured(
                "ExtractIdentityLayer needs VerifyTokenLayer outside of it",
            ));
        };
        match token.identity() {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Checked::passed(self.inner.call(request))
            }
            Err(error) => {
                tracing::debug!(issuer = token.issuer().as_str(), %error, "token refused");
                Checked::rejected(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
