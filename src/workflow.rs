//! The workflow API: what frontends call, translated onto the engine's own operations.
//!
//! `POST /api/processes/order/start` becomes `POST /api/process-definition/key/order/start`, its plain JSON
//! becomes typed variables, and the engine's errors become problems. The translated request goes on inwards as if
//! the caller had sent it: it passes the same operation match, access check, initiator and audit. There is no second
//! path to the engine, and nothing here is trusted by what stands below.
//!
//! 1. The routes are one table; a path that is none of them passes as it is, so that the transparent gateway
//!    lives under the same prefix. `GET /user` alone hides an operation of the engine.
//! 2. An answer that is no error streams through; the links in it are turned by
//!    [`EngineAnswerLayer`](crate::layer::EngineAnswerLayer) as everywhere.
//! 3. Bodies that are translated are read as strictly as everywhere, within [`JsonBodies`].
//!
//! Stands below [`ExtractIdentityLayer`](crate::layer::ExtractIdentityLayer) and above
//! [`MatchOperationLayer`](crate::layer::MatchOperationLayer); without an [`Identity`] it fails closed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join4;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue,
    TRAILER, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode, request};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Collected, Limited};
use pin_project_lite::pin_project;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};

use crate::access::AccessRules;
use crate::audit::cut;
use crate::body::{Body, BoxError};
use crate::identity::Identity;
use crate::json_body::{JsonBodies, Memory, declare};
use crate::layer::own::json_answer;
use crate::operation::Catalogue;
use crate::path::strip_prefix;
use crate::problem::Problem;
use crate::request_info::Findings;
use crate::waiting::waiting;

mod answer;
pub mod openapi;
mod route;
mod variables;

use route::{Call, DefaultParameter, Found, Translation};

/// Serves the workflow API below one prefix.
///
/// # Examples
/// ```
/// use std::time::{Duration, SystemTime};
/// use bpmgate::{body::Body, identity::{Identity, Parts}, json_body::JsonBodies, Problem};
/// use bpmgate::workflow::WorkflowLayer;
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let engine = tower::service_fn(|request: Request<Body>| async move {
///     assert_eq!(request.uri(), "/api/process-definition/key/order");
///     Ok::<_, Problem>(Response::new(Body::empty()))
/// });
/// let service = WorkflowLayer::new("/api", JsonBodies::new(1 << 20)).layer(engine);
/// let mut request = Request::get("/api/processes/order").body(Body::empty()).unwrap();
/// let expires = SystemTime::now() + Duration::from_mins(1);
/// request.extensions_mut().insert(Identity::new(Parts::new("https://id.example", "alice", expires)));
/// assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WorkflowLayer {
    /// One, or none.
    prefix: Arc<[String]>,
    bodies: JsonBodies,
    access: Option<Arc<AccessRules>>,
}

impl WorkflowLayer {
    /// Serves it below `prefix` (`/api`) alone, and without one nowhere; `bodies` bounds those that are translated.
    #[must_use]
    pub fn new<'a>(prefix: impl Into<Option<&'a str>>, bodies: JsonBodies) -> Self {
        let prefix = prefix.into();
        let prefix = prefix.map(|prefix| prefix.trim_end_matches('/').to_owned());
        Self {
            prefix: prefix.into_iter().collect(),
            bodies,
            access: None,
        }
    }

    /// Asks these rules before a body is read or several requests are made of one, so that neither is done for
    /// those who may not. What is denied goes on inwards without a body, to be denied there.
    #[must_use]
    pub fn with_access(self, access: Arc<AccessRules>) -> Self {
        Self {
            access: Some(access),
            ..self
        }
    }

    /// Whether a request to the engine would be denied.
    fn denies(&self, caller: &Identity, method: &Method, path: &str, query: &str) -> bool {
        let matched = Catalogue::builtin().find(method, path);
        self.access
            .as_ref()
            .is_some_and(|access| access.decide(caller, &matched, Some(query)).is_err())
    }
}

impl<S> Layer<S> for WorkflowLayer {
    type Service = Workflow<S>;

    fn layer(&self, inner: S) -> Workflow<S> {
        Workflow {
            api: self.clone(),
            inner,
        }
    }
}

/// The service of [`WorkflowLayer`].
#[derive(Debug, Clone)]
pub struct Workflow<S> {
    api: WorkflowLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for Workflow<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<Problem> + Send,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Problem;
    type Future = WorkflowFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = strip_prefix(&self.api.prefix, request.uri().path());
        let found = path.map_or(Found::None, |path| route::find(request.method(), path));
        let (call, parameter) = match found {
            Found::None => {
                return WorkflowFuture {
                    state: State::Transparent {
                        future: self.inner.call(request),
                    },
                };
            }
            Found::OtherMethods(allow) => {
                let problem = Problem::MethodNotAllowed(allow.into());
                return WorkflowFuture::boxed(async { Err(problem) });
            }
            Found::Call(call, parameter) => (call, parameter.to_owned()),
        };
        let Some(caller) = request.extensions().get::<Identity>().cloned() else {
            let missing = "WorkflowLayer needs ExtractIdentityLayer outside of it";
            return WorkflowFuture::boxed(async { Err(Problem::Misconfigured(missing)) });
        };
        // The service that is ready is the one to call; its clone need not be.
        let unready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, unready);
        let asking = Asking {
            api: self.api.clone(),
            caller,
            inner,
        };
        WorkflowFuture::boxed(async move {
            match call {
                Call::Engine(template, translation) => {
                    let path = template.replace("{}", &parameter);
                    let is_list = parameter.is_empty();
                    asking.engine(request, &path, is_list, translation).await
                }
                Call::User => {
                    note_route(&request, "/user");
                    Ok(user(&asking.caller))
                }
                Call::Statistics => asking.statistics(request).await,
            }
        })
    }
}

pin_project! {
    /// The future of [`Workflow`]: boxed only for the workflow API's own routes.
    pub struct WorkflowFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Transparent { #[pin] future: F },
        Translated { future: Translated },
    }
}

type Translated = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send>>;

impl<F> WorkflowFuture<F> {
    fn boxed(
        future: impl Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
    ) -> Self {
        let future = Box::pin(future);
        Self {
            state: State::Translated { future },
        }
    }
}

impl<F, E> Future for WorkflowFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<Problem>,
{
    type Output = Result<Response<Body>, Problem>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Transparent { future } => future.poll(cx).map_err(Into::into),
            StateProjection::Translated { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F> std::fmt::Debug for WorkflowFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowFuture").finish_non_exhaustive()
    }
}

/// One request's way to the engine.
struct Asking<S> {
    api: WorkflowLayer,
    caller: Identity,
    inner: S,
}

impl<S> Asking<S> {
    /// One request, one answer.
    async fn engine<B>(
        mut self,
        request: Request<B>,
        path: &str,
        is_list: bool,
        translation: Translation,
    ) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<B>, Response = Response<Body>>,
        S::Error: Into<Problem>,
        B: HttpBody<Data = Bytes> + From<Bytes>,
        B::Error: Into<BoxError>,
    {
        let (mut head, body) = request.into_parts();
        let query = query(head.uri.query(), translation.default())?;
        head.uri = self.target(path, &query)?;
        head.method = translation.method(&head.method);
        as_plain_json(&mut head);
        let denied =
            translation.reads_body() && self.api.denies(&self.caller, &head.method, path, &query);
        let request = if denied {
            without_body(head)
        } else {
            translated(&self.api.bodies, head, body, translation, &self.caller).await?
        };
        let findings = request.extensions().get::<Findings>().cloned();
        let mut answer = self.inner.call(request).await.map_err(Into::into)?;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            return Err(waiting(findings.as_ref(), refusal(answer, is_list)).await);
        }
        if translation == Translation::Start && answer.status() == StatusCode::OK {
            *answer.status_mut() = StatusCode::CREATED;
        }
        Ok(answer)
    }

    /// Asks for four counts at once.
    async fn statistics<B>(self, request: Request<B>) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<B>, Response = Response<Body>> + Clone,
        S::Error: Into<Problem>,
        B: From<Bytes>,
    {
        note_route(&request, "/statistics");
        let mut head = request.into_parts().0;
        head.method = Method::GET;
        as_plain_json(&mut head);
        // Where one is denied none is asked for: it is the only one sent on, to be denied.
        let denied = COUNTS
            .iter()
            .find(|(path, query)| self.api.denies(&self.caller, &Method::GET, path, query));
        if let Some((path, query)) = denied {
            head.uri = self.target(path, query)?;
            let answer = self.inner.oneshot(without_body(head)).await;
            return answer.map_err(Into::into);
        }
        let counts = {
            let count = |path: &str, query: &str| {
                let (inner, target, mut head) =
                    (self.inner.clone(), self.target(path, query), head.clone());
                async move {
                    head.uri = target?;
                    let findings = head.extensions.get::<Findings>().cloned();
                    let answer = inner.oneshot(without_body(head)).await;
                    waiting(findings.as_ref(), counted(answer.map_err(Into::into)?)).await
                }
            };
            let [processes, active, completed, tasks] = COUNTS;
            try_join4(
                count(processes.0, processes.1),
                count(active.0, active.1),
                count(completed.0, completed.1),
                count(tasks.0, tasks.1),
            )
        };
        let (total_processes, active_instances, completed_instances, active_tasks) = counts.await?;
        Ok(json_answer(
            json!({
                "totalProcesses": total_processes,
                "activeInstances": active_instances,
                "completedInstances": completed_instances,
                "activeTasks": active_tasks,
            })
            .to_string()
            .into(),
        ))
    }

    fn target(&self, path: &str, query: &str) -> Result<http::Uri, Problem> {
        let prefix = self.api.prefix.first().map_or("", String::as_str);
        let mark = if query.is_empty() { "" } else { "?" };
        [prefix, path, mark, query]
            .concat()
            .parse()
            .map_err(|_| Problem::Internal)
    }
}

/// The request in the engine's own words. What was read is dropped here; the body that takes its place is counted
/// where it is read again.
async fn translated<B>(
    bodies: &JsonBodies,
    mut head: request::Parts,
    body: B,
    translation: Translation,
    caller: &Identity,
) -> Result<Request<B>, Problem>
where
    B: HttpBody<Data = Bytes> + From<Bytes>,
    B::Error: Into<BoxError>,
{
    let json = match translation {
        Translation::Read(_) => return Ok(without_body(head)),
        Translation::Start => {
            let (body, _memory) = read(bodies, &head, body).await?;
            variables::start(&body)?
        }
        Translation::Complete => {
            let (body, _memory) = read(bodies, &head, body).await?;
            variables::complete(&body)?
        }
        Translation::Claim => {
            let (body, _memory) = read(bodies, &head, body).await?;
            variables::claim(&body, caller.id())?
        }
        Translation::Suspend(suspended) => {
            let json = json!({"suspended": suspended});
            json.to_string().into_bytes()
        }
        Translation::Delete => {
            let (body, _memory) = read(bodies, &head, body).await?;
            caller.check_not_long_over()?;
            if let Some(reason) = variables::reason(&body)?
                && let Some(findings) = head.extensions.get::<Findings>()
            {
                findings.note_reason(cut(&reason));
            }
            return Ok(without_body(head));
        }
        Translation::Unclaim => {
            let mut request = without_body(head);
            // Without a length a POST is refused by strict proxies (RFC 9110 §8.6).
            request.headers_mut().insert(CONTENT_LENGTH, 0.into());
            return Ok(request);
        }
    };
    let json = Bytes::from(json);
    declare(&mut head.headers, &json);
    Ok(Request::from_parts(head, json.into()))
}

/// Reads a body, and notes the wait for it.
async fn read<B>(
    bodies: &JsonBodies,
    head: &request::Parts,
    body: B,
) -> Result<(Bytes, Memory), Problem>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let reading = bodies.read(&head.headers, body);
    waiting(head.extensions.get(), reading).await
}

/// What the workflow API makes of a request, before anybody sends it.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is none of its routes: it goes the transparent way.
    Transparent,
    /// The path is one of its routes, with these methods.
    OtherMethods(String),
    /// The gateway knows the answer itself.
    Own,
    /// The answer is made of counts: a GET of each of these paths and queries.
    Counts([(&'static str, &'static str); 4]),
    /// The engine is asked once.
    Engine {
        /// With this method.
        method: Method,
        /// At this path below the prefix, with its query.
        target: String,
        /// What becomes of the body, where something does.
        body: Option<&'static str>,
    },
}

/// Says what a request means whose normalized path below the prefix is `path`.
///
/// # Examples
/// ```
/// use bpmgate::workflow::{Meaning, meaning};
/// let Meaning::Engine { method, target, .. } = meaning(&http::Method::POST, "/instances/7/suspend", None)? else {
///     unreachable!();
/// };
/// assert_eq!((method.as_str(), &*target), ("PUT", "/process-instance/7/suspended"));
/// # Ok::<_, bpmgate::Problem>(())
/// ```
///
/// # Errors
/// 400 for a query that is refused.
pub fn meaning(method: &Method, path: &str, asked: Option<&str>) -> Result<Meaning, Problem> {
    let (call, parameter) = match route::find(method, path) {
        Found::None => return Ok(Meaning::Transparent),
        Found::OtherMethods(allow) => return Ok(Meaning::OtherMethods(allow)),
        Found::Call(call, parameter) => (call, parameter),
    };
    Ok(match call {
        Call::User => Meaning::Own,
        Call::Statistics => Meaning::Counts(COUNTS),
        Call::Engine(template, translation) => {
            let query = query(asked, translation.default())?;
            let mark = if query.is_empty() { "" } else { "?" };
            Meaning::Engine {
                method: translation.method(method),
                target: [&template.replace("{}", parameter), mark, &query].concat(),
                body: translation.of_the_body(),
            }
        }
    })
}

/// What [`Call::Statistics`] counts: processes, their running and their ended instances, tasks.
const COUNTS: [(&str, &str); 4] = [
    ("/process-definition/count", "latestVersion=true"),
    ("/process-instance/count", ""),
    ("/history/process-instance/count", "finished=true"),
    ("/task/count", ""),
];

/// The query with what is asked unless the caller says otherwise.
fn query(asked: Option<&str>, default: Option<DefaultParameter>) -> Result<String, Problem> {
    let asked = asked.unwrap_or_default();
    let mut default = default;
    for (name, value) in form_urlencoded::parse(asked.as_bytes()) {
        default = default
            .filter(|default| name != default.name && !default.refused_with.contains(&&*name));
        // The engine answers 404 for what is no number, and 500 for a page before the first one.
        let is_page = matches!(&*name, "firstResult" | "maxResults");
        if is_page && !value.is_empty() && !value.parse().is_ok_and(|number: i32| number >= 0) {
            return Err(Problem::BadRequest(
                "`firstResult` and `maxResults` must be integers from 0 to 2147483647.",
            ));
        }
    }
    Ok(match default {
        None => asked.to_owned(),
        Some(DefaultParameter { name, value, .. }) if asked.is_empty() => format!("{name}={value}"),
        Some(DefaultParameter { name, value, .. }) => format!("{asked}&{name}={value}"),
    })
}

/// What the gateway itself reads of an answer must not be in another form.
fn as_plain_json(head: &mut request::Parts) {
    for (name, value) in [(ACCEPT, "application/json"), (ACCEPT_ENCODING, "identity")] {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
}

fn without_body<B: From<Bytes>>(mut head: request::Parts) -> Request<B> {
    for name in [
        CONTENT_TYPE,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        TRANSFER_ENCODING,
        TRAILER,
        EXPECT,
    ] {
        head.headers.remove(name);
    }
    Request::from_parts(head, Bytes::new().into())
}

fn note_route<B>(request: &Request<B>, route: &'static str) {
    if let Some(findings) = request.extensions().get::<Findings>() {
        findings.note_route(route);
    }
}

/// Who the token says that the caller is.
fn user(caller: &Identity) -> Response<Body> {
    json_answer(
        json!({
            "sub": caller.id(),
            "email": caller.email(),
            "first_name": caller.first_name(),
            "last_name": caller.last_name(),
            "name": caller.name(),
            "roles": caller.roles(),
            "issuer": caller.issuer(),
        })
        .to_string()
        .into(),
    )
}

/// The problem that an engine's error is.
async fn refusal(answer: Response<Body>, is_list: bool) -> Problem {
    let status = answer.status();
    // What is too long to be a message, or does not come, has none that could be told.
    let body = collected(answer).await.unwrap_or_default();
    answer::refused(status, &body, is_list)
}

async fn counted(answer: Response<Body>) -> Result<u64, Problem> {
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    if !answer.status().is_success() {
        return Err(refusal(answer, true).await);
    }
    let body = collected(answer).await?;
    let Count { count } = serde_json::from_slice(&body).map_err(|_| Problem::EngineBadAnswer)?;
    Ok(count)
}

async fn collected(answer: Response<Body>) -> Result<Bytes, Problem> {
    let body = Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect();
    let body = timeout(PATIENCE, body)
        .await
        .map_err(|_| Problem::EngineTimeout)?;
    body.map(Collected::to_bytes)
        .map_err(|_| Problem::EngineBadAnswer)
}

/// How long an engine may take over a short answer that is read here, once it has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest error of the engine that is read for its message.
const MAX_ERROR_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_gives_way_to_what_the_caller_asks() {
        let latest = DefaultParameter {
            name: "latestVersion",
            value: "true",
            refused_with: &["version"],
        };
        for (asked, want) in [
            (None, "latestVersion=true"),
            (Some(""), "latestVersion=true"),
            (Some("key=a%20b"), "key=a%20b&latestVersion=true"),
            (Some("latestVersion=false"), "latestVersion=false"),
            (Some("a&latest%56ersion"), "a&latest%56ersion"),
            (
                Some("latestversion=false"),
                "latestversion=false&latestVersion=true",
            ),
            (Some("key=a&version=2"), "key=a&version=2"),
            (Some("versionTag=2"), "versionTag=2&latestVersion=true"),
        ] {
            assert_eq!(query(asked, Some(latest)).unwrap(), want, "{asked:?}");
        }
        assert_eq!(query(Some("a=b"), None).unwrap(), "a=b");
    }

    #[test]
    fn pages_are_counted_from_0() {
        for good in [
            "maxResults=0",
            "firstResult=2147483647",
            "maxResults=",
            "maxResults=%31",
            "maxresults=x",
        ] {
            assert_eq!(query(Some(good), None).as_deref(), Ok(good));
        }
        for bad in [
            "maxResults=x",
            "firstResult=-1",
            "maxResults=2147483648",
            "a=b&maxResults=1.0",
            "max%52esults=+1",
        ] {
            assert_eq!(
                query(Some(bad), None).unwrap_err().code(),
                "bad_request",
                "{bad}"
            );
        }
    }

    #[tokio::test]
    async fn without_an_identity_nothing_is_translated() {
        let inner = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(Problem::Internal)
        });
        let service = WorkflowLayer::new("/api", JsonBodies::new(1)).layer(inner);
        for path in ["/api/user", "/api/tasks", "/api/statistics"] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let refused = service.clone().oneshot(request).await.unwrap_err();
            assert_eq!(refused.code(), "misconfigured", "{path}");
        }
    }
}
