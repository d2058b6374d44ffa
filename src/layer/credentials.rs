//! Puts the engine's own credentials where the caller's were.
//!
//! The engine takes HTTP Basic (RFC 7617) with the scheme word in exactly this case, and of two
//! `Authorization` headers the first (engine facts §7): so the caller's are removed, always.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};

use super::checked::{Check, CheckLayer};
use crate::problem::Problem;

/// The check of [`CredentialsLayer`].
pub struct Credentials(Option<HeaderValue>);

/// Replaces every `Authorization` of the request by the engine's.
///
/// # Examples
/// ```
/// use bpmgate::{layer::CredentialsLayer, Problem};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let echo = tower::service_fn(|request: Request<()>| async move {
///     Ok::<_, Problem>(Response::new(request.headers()["authorization"].clone()))
/// });
/// let service = CredentialsLayer::basic("demo", "demo").layer(echo);
/// let request = Request::get("/task").header("authorization", "Bearer x").body(()).unwrap();
/// assert_eq!(service.oneshot(request).await.unwrap().into_body(), "Basic ZGVtbzpkZW1v");
/// # }
/// ```
pub type CredentialsLayer = CheckLayer<Credentials>;

impl CredentialsLayer {
    /// The engine's account; the user name holds no colon (RFC 7617 §2).
    #[must_use]
    pub fn basic(username: &str, password: &str) -> Self {
        Self::of(Credentials::basic(username, password))
    }

    /// An open engine: the caller's credentials are removed and none are put in.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Credentials::none())
    }
}

impl Credentials {
    /// As [`CredentialsLayer::basic`].
    #[must_use]
    pub fn basic(username: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        let value = HeaderValue::try_from(format!("Basic {encoded}"))
            .ok()
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        Self(value)
    }

    /// As [`CredentialsLayer::none`].
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl Check for Credentials {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Problem> {
        let headers = request.headers_mut();
        match &self.0 {
            Some(value) => drop(headers.insert(AUTHORIZATION, value.clone())),
            None => drop(headers.remove(AUTHORIZATION)),
        }
        Ok(())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credentials")
            .field(&self.0.as_ref().map(|_| "***"))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_authorization_of_the_caller_stays() {
        for (layer, want) in [
            (CredentialsLayer::basic("a", "b:c"), vec!["Basic YTpiOmM="]),
            (CredentialsLayer::none(), vec![]),
        ] {
            let mut request = Request::get("/")
                .header("authorization", "Basic eA==")
                .header("authorization", "Bearer y")
                .body(())
                .unwrap();
            layer.check().check(&mut request).unwrap();
            let seen: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
            assert_eq!(seen, want);
            assert!(!format!("{layer:?}").contains("YTpi"));
        }
    }
}
