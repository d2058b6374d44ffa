//! `bpmgate explain-request`: what a request means, who may send it, and what becomes of it.
//!
//! Every answer comes from the code that decides real requests; nothing is sent, and the body is not known, so what
//! depends on it is told as a rule. With a token its caller's profile decides; without one every profile is told.

use http::{Method, Request};

use super::explain_token::{chosen_by, examine, plain, quiet, read};
use super::{ExplainRequest, Failure, print, serve, tell_warnings};
use crate::access::{AccessRules, Members};
use crate::config::{ByteSize, Config};
use crate::gateway::Resources;
use crate::identity::{Identity, Parts};
use crate::initiator::{Plan, Protection, plan};
use crate::layer::{Check as _, MatchOperation, OWN_PATHS, RewritePath};
use crate::operation::{Encoding, Guarded, Matched, Operation};
use crate::path::{normalize, strip_prefix};
use crate::problem::Problem;
use crate::workflow::{self, Meaning};

/// Explains the request.
pub(super) fn run(explain: ExplainRequest) -> Result<(), Failure> {
    let loaded = explain.config.load()?;
    tell_warnings(&loaded.warnings);
    let token = explain.token.map(|token| read(Some(token))).transpose()?;
    let mut config = quiet(loaded.config);
    if token.is_none() {
        // Nobody's token is looked at, so no keys are fetched.
        config.issuers.clear();
    }
    serve::runtime()?.block_on(async {
        let resources = Resources::from_config(&config).map_err(Failure::Running)?;
        let request = Explained::new(&explain.method, &explain.target, &resources)?;
        let Some(request) = request else {
            return Ok(());
        };
        match token {
            Some(token) => {
                let examined = examine(&resources, &token).await;
                let caller = match examined.result {
                    Ok(caller) => caller,
                    Err(why) => {
                        line("caller", &format!("refused: {why}"))?;
                        return Err(refused(&why.into()));
                    }
                };
                request.tell_caller(&caller, &resources)
            }
            None => request.tell_everybody(&config, &resources),
        }
    })
}

/// A request that is below one of the prefixes.
struct Explained {
    request: Request<()>,
    matched: Matched,
}

impl Explained {
    /// Tells path, prefix and operation; `None` where the gateway answers itself.
    fn new(method: &Method, target: &str, resources: &Resources) -> Result<Option<Self>, Failure> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let normal = match normalize(path) {
            Ok(normal) => normal,
            Err(bad) => {
                line("path", &format!("refused: {}", bad.reason()))?;
                return Err(refused(&Problem::BadPath(bad.reason())));
            }
        };
        let changed = if *normal == *path {
            ""
        } else {
            " (normalized)"
        };
        line("path", &format!("{normal}{changed}"))?;
        if strip_prefix(&OWN_PATHS.map(str::to_owned), &normal).is_some() {
            line("answered", "by the gateway itself, without a token")?;
            return Ok(None);
        }
        let Some(rest) = strip_prefix(&resources.prefixes, &normal) else {
            let prefixes = resources.prefixes.join(", ");
            line("prefix", &format!("none of {prefixes}"))?;
            return Err(refused(&Problem::NotFound));
        };
        let prefix = normal.get(..normal.len().saturating_sub(rest.len()));
        line("prefix", prefix.unwrap_or_default())?;
        let uri = match query {
            Some(query) => format!("{normal}?{query}"),
            None => normal.clone().into_owned(),
        };
        let (method, uri) = match translated(method, &normal, query, resources)? {
            Translated::NoRoute => (method.clone(), uri),
            Translated::Into(method, uri) => (method, uri),
            Translated::Answered => return Ok(None),
        };
        let request = Request::builder().method(method).uri(uri).body(());
        let mut request = request.map_err(|error| Failure::Running(error.into()))?;
        let matching = MatchOperation::new(resources.prefixes.clone());
        if let Err(problem) = matching.check(&mut request) {
            line(
                "operation",
                &format!("refused, in every profile: {}", in_short(&problem)),
            )?;
            line("  because", &problem.detail())?;
            return Err(refused(&problem));
        }
        let matched = request.extensions().get::<Matched>().cloned();
        let matched = matched.unwrap_or(Matched::Unknown);
        match &matched {
            Matched::Operation(found) => {
                let Operation { id, group, .. } = found.operation;
                let kind = found.operation.kind.as_str();
                line("operation", &format!("{id} (group {group}, kind {kind})"))?;
                for (name, value) in &found.params {
                    line(&format!("  {name}"), &plain(value))?;
                }
                if let Some(name) = &found.engine_name {
                    line("  engine", &plain(name))?;
                }
            }
            Matched::OtherMethods(allow) => {
                line("operation", &format!("none: this path takes {allow}"))?;
            }
            Matched::Unknown => line("operation", "none has this path")?,
        }
        Ok(Some(Self { request, matched }))
    }

    /// Tells what this caller may, and what becomes of the request.
    fn tell_caller(mut self, caller: &Identity, resources: &Resources) -> Result<(), Failure> {
        let (id, issuer) = (plain(caller.id()), caller.issuer());
        line("caller", &format!("{id} of {issuer}"))?;
        let (profile, rule) = resources.access.profile_of(caller);
        line(
            "profile",
            &format!("{} ({})", profile.name(), chosen_by(rule)),
        )?;
        let query = self.request.uri().query();
        let access = match resources.access.decide(caller, &self.matched, query) {
            Ok(access) => access,
            Err(problem) => {
                line("access", &in_short(&problem))?;
                line("  because", &problem.detail())?;
                return Err(refused(&problem));
            }
        };
        line("access", "allowed")?;
        self.rest(Some(access.members), resources)
    }

    /// Tells what each profile may, and what becomes of the request.
    fn tell_everybody(mut self, config: &Config, resources: &Resources) -> Result<(), Failure> {
        let nobody = Identity::new(Parts::new("", "", std::time::SystemTime::UNIX_EPOCH));
        let query = self.request.uri().query();
        line("access", "by profile")?;
        for profile in config.access.all_profiles().map_err(Failure::Running)? {
            let name = profile.name().clone();
            let decision = AccessRules::new(profile).decide(&nobody, &self.matched, query);
            let told = match decision {
                Ok(access) => {
                    let refusals = self.refusals(access.members);
                    let but = if refusals.is_empty() { "" } else { ", " };
                    format!("allowed{but}{}", refusals.join(", "))
                }
                Err(problem) => in_short(&problem),
            };
            line(&format!("  {name}"), &told)?;
        }
        self.rest(None, resources)
    }

    /// What of the body is refused to callers with this profile.
    fn refusals(&self, members: Members) -> Vec<String> {
        let Matched::Operation(found) = &self.matched else {
            return Vec::new();
        };
        let operation = found.operation;
        let guarded: Vec<_> = operation
            .guarded
            .iter()
            .filter(|&&guarded| !members.may_use(guarded))
            .map(|guarded| match guarded {
                Guarded::Member(member) => format!("`{member}`"),
                Guarded::Suffix(suffix) => format!("members ending in `{suffix}`"),
            })
            .collect();
        let mut refusals = Vec::new();
        if !guarded.is_empty() {
            refusals.push(format!("without {}", guarded.join(", ")));
        }
        if !members.others {
            let users = operation.user_fields.iter();
            refusals.extend(users.map(|field| format!("with the caller's id as `{field}`")));
            if !operation.body_paths.is_empty() && operation.encoding == Encoding::Json {
                refusals.push("without Java-serialized objects".to_owned());
            }
        }
        refusals
    }

    /// Tells what becomes of the body, and what goes to the engine.
    fn rest(&mut self, members: Option<Members>, resources: &Resources) -> Result<(), Failure> {
        let plan = match &self.matched {
            Matched::Operation(found) => plan(&resources.initiator, found),
            Matched::Unknown | Matched::OtherMethods(_) => Plan::Pass,
        };
        match plan {
            Plan::Pass => line("body", "passes as it comes")?,
            Plan::Refuse(problem) => {
                line(
                    "initiator",
                    &format!("{}, in every profile", in_short(&problem)),
                )?;
                line("  because", &problem.detail())?;
                return Err(refused(&problem));
            }
            Plan::Rewrite(rules) => {
                let size = ByteSize::from_bytes(resources.rewritten_body);
                line("body", &format!("is read: strict JSON of at most {size}"))?;
                let names = &resources.initiator.names;
                let protections = rules.protections();
                let models = resources.models.is_some() && !protections.is_empty();
                for (place, protection) in protections {
                    let told = match protection {
                        Protection::Written => {
                            format!("{names} are removed, and the caller's are written")
                        }
                        Protection::Removed => format!("{names} are removed"),
                        Protection::Refused => format!("is refused if it names one of {names}"),
                    };
                    line(&format!("  {place}"), &told)?;
                }
                if models {
                    let told = "the variable that the model itself names for its initiator is treated so too";
                    line("  model", told)?;
                }
                for refusal in members
                    .map(|members| self.refusals(members))
                    .unwrap_or_default()
                {
                    line("  only", &refusal)?;
                }
            }
        }
        let rewrite = RewritePath::new(resources.prefixes.clone(), &resources.engine_path);
        rewrite
            .check(&mut self.request)
            .map_err(|problem| refused(&problem))?;
        let (method, uri) = (self.request.method(), self.request.uri());
        line("engine", &format!("{method} {uri}"))
    }
}

/// What the workflow API makes of a request.
enum Translated {
    /// It is none of its routes, or it is not served.
    NoRoute,
    /// The request that goes on in its place.
    Into(Method, String),
    /// Nothing goes on.
    Answered,
}

/// Tells what the workflow API makes of a request.
fn translated(
    method: &Method,
    path: &str,
    query: Option<&str>,
    resources: &Resources,
) -> Result<Translated, Failure> {
    let Some(prefix) = &resources.workflow_prefix else {
        return Ok(Translated::NoRoute);
    };
    let Some(rest) = strip_prefix(std::slice::from_ref(prefix), path) else {
        return Ok(Translated::NoRoute);
    };
    let meaning = workflow::meaning(method, rest, query).or_else(|problem| {
        line(
            "workflow API",
            &format!("refused, in every profile: {}", in_short(&problem)),
        )?;
        line("  because", &problem.detail())?;
        Err(refused(&problem))
    })?;
    match meaning {
        Meaning::Transparent => Ok(Translated::NoRoute),
        Meaning::OtherMethods(allow) => {
            line("workflow API", &format!("none: this path takes {allow}"))?;
            Err(refused(&Problem::MethodNotAllowed(allow.into())))
        }
        Meaning::Own => {
            line(
                "answered",
                "by the gateway itself: whom the token speaks for",
            )?;
            Ok(Translated::Answered)
        }
        Meaning::Counts(counts) => {
            line(
                "answered",
                "with four counts, each asked as the caller's own request",
            )?;
            for (path, query) in counts {
                let mark = if query.is_empty() { "" } else { "?" };
                line("  count", &format!("GET {prefix}{path}{mark}{query}"))?;
            }
            Ok(Translated::Answered)
        }
        Meaning::Engine {
            method,
            target,
            body,
        } => {
            let uri = format!("{prefix}{target}");
            line("workflow API", &format!("goes on as {method} {uri}"))?;
            if let Some(body) = body {
                line("  body", body)?;
            }
            Ok(Translated::Into(method, uri))
        }
    }
}

/// One line: what, and what it is.
fn line(what: &str, told: &str) -> Result<(), Failure> {
    print(&format_args!("{what:<15} {told}\n"))
}

fn in_short(problem: &Problem) -> String {
    format!("{} {}", problem.status().as_u16(), problem.code())
}

fn refused(problem: &Problem) -> Failure {
    Failure::Running(format!("the request is refused: {}", in_short(problem)).into())
}
