//! Lets a request pass only with a bearer token that verifies, and puts the [`VerifiedToken`] into its
//! extensions.
//!
//! Reads `Authorization` and nothing else of the request, and removes nothing from it; a [`VerifiedToken`]
//! or [`Identity`] that someone put there before is dropped first, whatever happens after.
//!
//! | the request has | answer |
//! |---|---|
//! | no `Authorization`, or one of another scheme than `Bearer` (RFC 9110 §11.1, case ignored) | [`Problem::TokenMissing`] |
//! | more than one `Authorization` | [`Problem::TwoCredentials`] |
//! | a token that breaks a rule of [`token`](crate::token) | [`Problem::TokenInvalid`], [`Problem::TokenExpired`] |
//! | a token of an issuer whose keys are not there | waits for the fetch, then [`Problem::KeysUnavailable`] |
//! | a token of a key that is not known | waits for one shared fetch, then, or within the cool-down, [`Problem::TokenInvalid`] |
//!
//! A verifier [with a cache](Verifier::with_cache) looks there before it reads the token. A request
//! costs no allocation unless it waits, or is one of those from which a connection's last token is kept. Why a token was refused is told in a `debug` event.

use std::task::{Context, Poll};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};
use tower::{Layer, Service};

use super::checked::CheckedLater;
use crate::identity::Identity;
use crate::problem::Problem;
use crate::request_info::{Findings, RequestIds};
use crate::token::last::LastToken;
use crate::token::verifier::Fetch;
use crate::token::{BearerToken, VerifiedToken, Verifier};
use crate::waiting::waiting;

/// Applies [`VerifyToken`].
///
/// # Examples
/// ```
/// use bpmgate::Problem;
/// use bpmgate::layer::{ExtractIdentityLayer, VerifyTokenLayer};
/// use bpmgate::token::{Issuer, IssuerRules, KeySet, Preset, Verifier};
/// use http::Request;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// let keys = KeySet::from_jwks(br#"{"keys": [{
///     "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "kid-ec-sign",
///     "x": "04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY",
///     "y": "UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw"
/// }]}"#)?;
/// let issuer = Issuer::new(IssuerRules::new(Preset::Clerk, "https://clerk.example.com"))?;
/// let verifier = Verifier::new([(issuer, keys)])?;
///
/// let service = ServiceBuilder::new()
///     .layer(VerifyTokenLayer::new(verifier))
///     .layer(ExtractIdentityLayer::new())
///     .service(service_fn(|_: Request<()>| async { Ok::<_, Problem>(()) }));
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let answer = service.oneshot(Request::new(())).await;
/// assert_eq!(answer, Err(Problem::TokenMissing));
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct VerifyTokenLayer {
    verifier: Verifier,
}

impl VerifyTokenLayer {
    /// Tokens are checked with these issuers and keys.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for VerifyTokenLayer {
    type Service = VerifyToken<S>;

    fn layer(&self, inner: S) -> VerifyToken<S> {
        VerifyToken {
            inner,
            verifier: self.verifier.clone(),
            last: LastToken::default(),
        }
    }
}

/// Verifies the bearer token of each request; see the [layer](VerifyTokenLayer).
#[derive(Debug, Clone)]
pub struct VerifyToken<S> {
    inner: S,
    verifier: Verifier,
    /// The server has a service for each connection.
    last: LastToken,
}

impl<S, B> Service<Request<B>> for VerifyToken<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Problem>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = Problem;
    type Future = CheckedLater<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let extensions = request.extensions_mut();
        extensions.remove::<VerifiedToken>();
        extensions.remove::<Identity>();

        match check(&self.verifier, &mut self.last, &request) {
            Ok(token) => {
                request.extensions_mut().insert(token);
                CheckedLater::passed(self.inner.call(request))
            }
            Err(Refused::Now(problem)) => CheckedLater::rejected(problem),
            Err(Refused::Until { fetch, .. }) => {
                // The clone may not be ready; the one that was polled goes into the future.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                CheckedLater::waiting(wait(self.verifier.clone(), fetch, ready, request))
            }
        }
    }
}

enum Refused {
    Now(Problem),
    /// `problem`, unless the fetch brings a key that helps.
    Until {
        fetch: Fetch,
        problem: Problem,
    },
}

/// Checks with what is known now.
fn check<B>(
    verifier: &Verifier,
    last: &mut LastToken,
    request: &Request<B>,
) -> Result<VerifiedToken, Refused> {
    let now = SystemTime::now();
    let token = || read_token(request.headers()).map_err(Refused::Now);
    let refusal = match verifier.verify_now(token()?, last, now) {
        Ok(token) => return Ok(token),
        Err(refusal) => refusal,
    };
    let ids = RequestIds::at_debug(request.extensions());
    tracing::debug!(
        error = %refusal,
        request_id = ids.request(),
        trace_id = ids.trace(),
        "token refused"
    );
    if let Some(fetch) = refusal.fetch() {
        return Err(Refused::Until {
            fetch,
            problem: refusal.into_problem(),
        });
    }
    if refusal.is_of_the_token() {
        return Err(Refused::Now(refusal.into_problem()));
    }
    // No fetch is due, maybe because one has ended since the first look: its keys deserve a second.
    verifier
        .verify_now(token()?, last, now)
        .map_err(|refusal| Refused::Now(refusal.into_problem()))
}

fn read_token(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut values = headers.get_all(AUTHORIZATION).into_iter();
    let value = values.next().ok_or(Problem::TokenMissing)?;
    if values.next().is_some() {
        return Err(Problem::TwoCredentials);
    }
    BearerToken::in_header(value).ok_or(Problem::TokenMissing)
}

/// Waits for the one fetch that may help, then checks again; a second fetch is not waited for.
async fn wait<S, B>(
    verifier: Verifier,
    fetch: Fetch,
    mut inner: S,
    mut request: Request<B>,
) -> Result<S::Response, Problem>
where
    S: Service<Request<B>>,
    S::Error: Into<Problem>,
{
    let findings = request.extensions().get::<Findings>().cloned();
    waiting(findings.as_ref(), fetch).await;
    match check(&verifier, &mut LastToken::default(), &request) {
        Ok(token) => {
            request.extensions_mut().insert(token);
            inner.call(request).await.map_err(Into::into)
        }
        Err(Refused::Now(problem) | Refused::Until { problem, .. }) => Err(problem),
    }
}

#[cfg(test)]
mod tests;
