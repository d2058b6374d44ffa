//! Refuses requests that come faster than a [`RateLimit`] allows: 429 `rate_limited`, with `Retry-After`.
//!
//! Stands as high as what its limits count by is known (see [`RateLimitStage`](crate::rate_limit::RateLimitStage)), so that nothing is
//! done for what is refused; without that it fails closed. A request that several limits count is taken out of each bucket in
//! turn, until one refuses it.
//!
//! An answer to a counted request says what is left, a refusal also when to come again, in the fields `RateLimit-Policy` and
//! `RateLimit` of `draft-ietf-httpapi-ratelimit-headers-10`: `q` requests at once, and `q` again in `w` seconds; `r` are left, the
//! next one comes in `t` seconds.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::checked::Checked;
use crate::forwarded::{TrustedProxies, client_address};
use crate::identity::Identity;
use crate::operation::Matched;
use crate::problem::Problem;
use crate::rate_limit::{RateLimit, RateLimitBy};
use crate::request_info::Peer;
use crate::token::{BearerToken, Verifier};

/// Applies rate limits.
///
/// # Examples
/// ```
/// use bpmgate::identity::{Identity, Parts};
/// use bpmgate::layer::LimitRateLayer;
/// use bpmgate::rate_limit::{RateLimit, RateLimitBy, RateLimitSettings};
/// use bpmgate::Problem;
/// use http::{Request, Response};
/// use std::time::{Duration, SystemTime};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limit = RateLimit::new(RateLimitSettings {
///     name: "callers".into(),
///     by: RateLimitBy::Subject,
///     operations: vec![],
///     requests: 1.try_into()?,
///     per: Duration::from_mins(1),
///     burst: 2.try_into()?,
///     keys: 100_000,
/// })?;
/// let engine = tower::service_fn(|_: Request<()>| async { Ok::<_, Problem>(Response::new(())) });
/// let service = LimitRateLayer::new(vec![limit.into()]).layer(engine);
/// let request = || {
///     let mut request = Request::new(());
///     let alice = Parts::new("https://id.example", "alice", SystemTime::now());
///     request.extensions_mut().insert(Identity::new(alice));
///     request
/// };
/// let answer = service.clone().oneshot(request()).await?;
/// assert_eq!(answer.headers()["ratelimit-policy"], "\"callers\";q=2;w=120");
/// assert_eq!(answer.headers()["ratelimit"], "\"callers\";r=1");
/// service.clone().oneshot(request()).await?;
/// let refused = service.oneshot(request()).await.unwrap_err();
/// assert_eq!((refused.code(), refused.retry_after()), ("rate_limited", Some(60)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LimitRateLayer(Arc<Counting>);

#[derive(Debug, Clone)]
struct Counting {
    limits: Vec<Arc<RateLimit>>,
    trusted_proxies: TrustedProxies,
    verifier: Option<Verifier>,
}

impl LimitRateLayer {
    /// Counts each request by each of these limits that means it.
    #[must_use]
    pub fn new(limits: Vec<Arc<RateLimit>>) -> Self {
        Self(Arc::new(Counting {
            limits,
            trusted_proxies: TrustedProxies::default(),
            verifier: None,
        }))
    }

    /// Takes the word of these proxies for who the client is.
    #[must_use]
    pub fn with_trusted_proxies(self, trusted_proxies: TrustedProxies) -> Self {
        Self(Arc::new(Counting {
            trusted_proxies,
            ..Arc::unwrap_or_clone(self.0)
        }))
    }

    /// Asks this verifier's cache whether a token is new.
    #[must_use]
    pub fn with_verifier(self, verifier: Verifier) -> Self {
        Self(Arc::new(Counting {
            verifier: Some(verifier),
            ..Arc::unwrap_or_clone(self.0)
        }))
    }
}

impl<S> Layer<S> for LimitRateLayer {
    type Service = LimitRate<S>;

    fn layer(&self, inner: S) -> LimitRate<S> {
        LimitRate {
            counting: self.0.clone(),
            inner,
        }
    }
}

/// The service of [`LimitRateLayer`].
#[derive(Debug, Clone)]
pub struct LimitRate<S> {
    counting: Arc<Counting>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for LimitRate<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Problem>,
{
    type Response = Response<R>;
    type Error = Problem;
    type Future = Checked<RateCounted<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.counting.count(&request) {
            Ok(counted) => Checked::passed(RateCounted {
                counted,
                inner: self.inner.call(request),
            }),
            Err(problem) => Checked::rejected(problem),
        }
    }
}

/// A limit that counted a request, and how many it has left.
type Left = (Arc<RateLimit>, u32);

impl Counting {
    fn count<B>(&self, request: &Request<B>) -> Result<Vec<Left>, Problem> {
        let matched = request.extensions().get::<Matched>();
        let mut counted = Vec::new();
        for limit in &self.limits {
            if !limit.counts(matched)? {
                continue;
            }
            let left = match limit.by() {
                RateLimitBy::Subject | RateLimitBy::Issuer | RateLimitBy::Claim(_) => {
                    let caller = request.extensions().get::<Identity>();
                    limit.take_of_caller(caller.ok_or(Problem::Misconfigured(
                        "LimitRateLayer by caller needs ExtractIdentityLayer outside of it",
                    ))?)?
                }
                RateLimitBy::Client => limit.take_of_client(self.client(request)?)?,
                RateLimitBy::NewTokens if self.has_new_token(request.headers()) => {
                    limit.take_of_client(self.client(request)?)?
                }
                RateLimitBy::NewTokens => continue,
            };
            counted.push((limit.clone(), left));
        }
        Ok(counted)
    }

    fn client<B>(&self, request: &Request<B>) -> Result<IpAddr, Problem> {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.ok_or(Problem::Misconfigured(
            "LimitRateLayer by client needs the Peer that the server knows",
        ))?;
        Ok(client_address(
            request.headers(),
            *peer,
            &self.trusted_proxies,
        ))
    }

    /// Whether a signature would have to be checked. What is no bearer token costs nothing, and is no new one.
    fn has_new_token(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(AUTHORIZATION).map(BearerToken::from_header);
        let Some(Ok(Some(token))) = token else {
            return false;
        };
        let is_remembered = |verifier: &Verifier| verifier.remembers(token, SystemTime::now());
        !self.verifier.as_ref().is_some_and(is_remembered)
    }
}

pin_project! {
    /// The future of a request that limits let pass.
    #[derive(Debug)]
    pub struct RateCounted<F> {
        counted: Vec<Left>,
        #[pin]
        inner: F,
    }
}

impl<F, R, E> Future for RateCounted<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.inner.poll(cx))?;
        let headers = answer.headers_mut();
        for (limit, left) in this.counted.iter() {
            headers.append(RATE_LIMIT_POLICY, limit.policy().clone());
            if let Ok(left) = HeaderValue::try_from(format!("\"{}\";r={left}", limit.name())) {
                headers.append(RATE_LIMIT, left);
            }
        }
        Poll::Ready(Ok(answer))
    }
}

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::alice;
    use crate::rate_limit::RateLimitSettings;
    use std::num::NonZeroU32;
    use std::time::Duration;
    use tower::ServiceExt;

    fn limit(by: RateLimitBy, operations: &[&str]) -> Arc<RateLimit> {
        let settings = RateLimitSettings {
            name: "limit".to_owned(),
            by,
            operations: operations.iter().map(|&name| name.to_owned()).collect(),
            requests: NonZeroU32::MIN,
            per: Duration::from_mins(1),
            burst: NonZeroU32::MIN,
            keys: 10,
        };
        RateLimit::new(settings).unwrap().into()
    }

    async fn send(layer: &LimitRateLayer, request: Request<()>) -> Result<Response<()>, Problem> {
        let inner = tower::service_fn(|_| async { Ok::<_, Problem>(Response::new(())) });
        layer.layer(inner).oneshot(request).await
    }

    #[tokio::test]
    async fn without_what_it_counts_by_it_fails_closed() {
        for (by, operations) in [
            (RateLimitBy::Subject, &[][..]),
            (RateLimitBy::Issuer, &[]),
            (RateLimitBy::Claim("org".to_owned()), &[]),
            (RateLimitBy::Client, &[]),
            (RateLimitBy::Subject, &["start"]),
        ] {
            let layer = LimitRateLayer::new(vec![limit(by.clone(), operations)]);
            let code = send(&layer, Request::new(())).await.unwrap_err().code();
            assert_eq!(code, "misconfigured", "{by:?}");
        }
    }

    #[tokio::test]
    async fn tokens_that_are_none_cost_nothing() {
        let layer = LimitRateLayer::new(vec![limit(RateLimitBy::NewTokens, &[])]);
        for authorization in ["Basic eDp5", "Bearer", "Bearer a b"] {
            for _ in 0..3 {
                let request = Request::get("/").header(AUTHORIZATION, authorization);
                let answer = send(&layer, request.body(()).unwrap()).await.unwrap();
                assert!(
                    !answer.headers().contains_key(RATE_LIMIT),
                    "{authorization}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_a_limit_does_not_mean_is_not_counted() {
        let layer = LimitRateLayer::new(vec![limit(RateLimitBy::Subject, &["start"])]);
        let request = |method, path| {
            let catalogue = crate::operation::Catalogue::builtin();
            let mut request = Request::new(());
            request
                .extensions_mut()
                .insert(catalogue.find(&method, path));
            request.extensions_mut().insert(alice());
            request
        };
        let start = || request(http::Method::POST, "/process-definition/key/x/start");
        let read = || request(http::Method::GET, "/task");
        assert!(
            send(&layer, start())
                .await
                .unwrap()
                .headers()
                .contains_key(RATE_LIMIT)
        );
        for _ in 0..3 {
            let answer = send(&layer, read()).await.unwrap();
            assert!(!answer.headers().contains_key(RATE_LIMIT));
        }
        assert_eq!(
            send(&layer, start()).await.unwrap_err().code(),
            "rate_limited"
        );
    }
}
