//! From the configuration to what the layers work with.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, Uri};

use crate::access::{AccessRules, Builtin, ObjectTypes, Profile, When};
use crate::audit::{AuditLog, Target};
use crate::body::BoxError;
use crate::config::{self, Config, CredentialsMode, RateLimitCounts};
use crate::engine::{
    BreakerSettings, ClientSettings, EngineClient, EngineHealth, HealthSettings, Nodes,
};
use crate::forwarded::TrustedProxies;
use crate::gateway::Resources;
use crate::initiator::{self, Messages, Missing, Names, Restarts};
use crate::layer::{CorsLayer, CorsOrigins, CredentialsLayer, EndOfLongPolls, RetryBudget};
use crate::metrics::Metrics;
use crate::model::{ModelMemory, ModelSettings};
use crate::rate_limit::{RateLimit, RateLimitBy, RateLimitError, RateLimitSettings, RateLimits};
use crate::token::refresh::{KeySource, Keys, RefreshSettings};
use crate::token::{ClaimPaths, Issuer, IssuerKeys, IssuerRules, KeySet, Verifier};
use crate::traces::Traces;
use crate::traces::export::{self, ExportSettings};

use super::{Limits, Tls, TlsFileError, tls};

impl Resources {
    /// Takes them from the configuration; the issuers' keys are fetched in the background.
    ///
    /// # Errors
    /// What is in the configuration cannot be used: a key file, a name of a variable, the audit log's file.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, which the background fetches need.
    pub fn from_config(config: &Config) -> Result<Self, BoxError> {
        Self::following(config, None, Nodes::from_config(config))
    }

    /// Takes them from a configuration that follows another one: what is the same goes on with all that it knows, counts and keeps.
    ///
    /// The verified tokens are forgotten, so that none passes that would not pass now. `nodes` are those of this configuration.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config); the resources before are as they were then.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn following(
        config: &Config,
        before: Option<(&Config, &Self)>,
        nodes: Nodes,
    ) -> Result<Self, BoxError> {
        let engine = &config.engine;
        let kept = before.map(|(_, resources)| resources);
        let keys = config.issuers.iter().map(|issuer| {
            let (rules, source) = match issuer.rules_and_keys()? {
                (rules, ConfiguredKeys::Secret(keys)) => return Ok((rules, keys.into())),
                (rules, ConfiguredKeys::Fetched(source)) => (rules, source),
            };
            let settings = RefreshSettings {
                refresh: issuer.jwks_refresh,
                cooldown: issuer.jwks_cooldown,
                timeout: issuer.jwks_timeout,
                stale: issuer.jwks_stale,
            };
            let keys = kept
                .and_then(|kept| kept.verifier.keys_of(&rules))
                .and_then(|keys| keys.following(&rules, &source, settings))
                .unwrap_or_else(|| Keys::spawn(rules.clone(), source, settings));
            Ok::<_, BoxError>((rules, IssuerKeys::from(keys)))
        });
        let issuers = keys.collect::<Result<Vec<_>, _>>()?;
        let verifier = if config.shared_ids {
            Verifier::with_shared_ids(issuers)?
        } else {
            Verifier::new(issuers)?
        };
        let metrics = kept.map_or_else(Metrics::default, |kept| kept.metrics.clone());
        Ok(Self {
            prefixes: config
                .routes
                .prefixes
                .iter()
                .map(|prefix| prefix.as_str().to_owned())
                .collect(),
            engine_path: engine.url.base_path().to_owned(),
            shown_engine_url: config
                .workflow_api
                .show_engine_url
                .then(|| engine.url.as_str().to_owned()),
            traces: match kept {
                Some(kept) => kept.traces.clone(),
                None => traces(config, &metrics)?,
            },
            engine_addresses: engine_addresses(engine),
            metrics,
            access_log: kept.and_then(|kept| kept.access_log.clone()),
            nodes,
            public_url: config
                .server
                .public_url
                .as_ref()
                .map(|url| url.as_str().to_owned()),
            trusted_proxies: TrustedProxies::new(config.server.trusted_proxies.clone()),
            preserve_host: engine.preserve_host,
            credentials: match engine.credentials.mode {
                CredentialsMode::Basic => CredentialsLayer::basic(
                    &engine.credentials.username,
                    engine.credentials.password.expose(),
                ),
                CredentialsMode::None => CredentialsLayer::none(),
                mode @ (CredentialsMode::MintedJwt | CredentialsMode::Relay) => {
                    return Err(format!("engine.credentials.mode {mode:?} is not supported").into());
                }
            },
            pages: kept.and_then(|kept| kept.pages.clone()),
            cors: cors(&config.cors)?,
            verifier: verifier.with_cache(config.token_cache.entries),
            access: Arc::new(access(&config.access)?),
            initiator: initiator_of(&config.initiator)?,
            models: config.initiator.model_initiator.then(|| {
                let settings = ModelSettings {
                    believed: config.initiator.model_cache,
                    entries: config.initiator.model_entries,
                    names: config.initiator.model_names.clone(),
                };
                match before.and_then(|(config, kept)| Some((config, kept.models.as_ref()?))) {
                    Some((before, memory)) if is_same_engine(&before.engine, engine) => {
                        memory.with_settings(settings)
                    }
                    Some((_, memory)) => memory.at_another_address(settings),
                    None => ModelMemory::new(settings),
                }
            }),
            workflow_prefix: workflow_prefix(config),
            rewritten_body: config.server.limits.rewritten_body.bytes(),
            request_body: request_body(config),
            requests_in_flight: config.server.limits.requests_in_flight,
            requests_queued: config.server.limits.requests_queued,
            queue_timeout: config.server.limits.queue_timeout,
            requests_in_flight_per_caller: config.server.limits.requests_in_flight_per_caller,
            long_polls: config.server.limits.long_polls,
            end_of_long_polls: kept.map_or_else(EndOfLongPolls::default, |kept| {
                kept.end_of_long_polls.clone()
            }),
            long_polls_per_caller: config.server.limits.long_polls_per_caller,
            rate_limits: rate_limits(config, before)?,
            response_timeout: engine.timeouts.response,
            retry_attempts: engine.retry.attempts,
            retry_backoff: engine.retry.backoff,
            retry_budget: RetryBudget::new(
                engine.retry.budget_percent,
                engine.retry.budget_floor,
                workers(config).get(),
            ),
            // The last that can fail, as it touches the log before.
            audit: audit(config, before)?,
        })
    }
}

/// The prefix, where the workflow API is served: it must be one that leads to the engine.
fn workflow_prefix(config: &Config) -> Option<String> {
    let api = &config.workflow_api;
    let is_served = api.enabled && config.routes.prefixes.contains(&api.prefix);
    is_served.then(|| api.prefix.as_str().to_owned())
}

impl config::Engine {
    /// The nodes, or the one of `url`.
    fn bases(&self) -> Vec<Uri> {
        let one = std::slice::from_ref(&self.url);
        let urls = if self.nodes.is_empty() {
            one
        } else {
            &self.nodes
        };
        urls.iter().map(|url| url.as_uri().clone()).collect()
    }
}

impl Nodes {
    /// The configured engine's.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let engine = &config.engine;
        let names = engine.bases().into_iter().map(|base| {
            let authority = base.authority();
            authority.map_or(String::new(), ToString::to_string)
        });
        let health = HealthSettings {
            interval: engine.health.interval,
            timeout: engine.health.timeout,
        };
        let breaker = BreakerSettings {
            failures: engine.breaker.failures,
            pause: engine.breaker.pause,
        };
        let health = EngineHealth::new(names, health);
        Self::new(health, breaker, workers(config).get())
    }

    /// Those of a configuration that follows another one: the same, with all that is known of them, or new ones.
    #[must_use]
    pub fn following(config: &Config, before: (&Config, &Self)) -> Self {
        let (before, nodes) = before;
        let (then, now) = (&before.engine, &config.engine);
        if is_same_engine(then, now) && then.health == now.health && then.breaker == now.breaker {
            nodes.clone()
        } else {
            Self::from_config(config)
        }
    }
}

/// Host and port of each node.
fn engine_addresses(engine: &config::Engine) -> Vec<(String, u16)> {
    let nodes = match &engine.nodes[..] {
        [] => std::slice::from_ref(&engine.url),
        nodes => nodes,
    };
    let address = |node: &config::HttpUrl| (node.host().to_owned(), node.port());
    nodes.iter().map(address).collect()
}

/// Whether requests go to the same nodes.
fn is_same_engine(before: &config::Engine, now: &config::Engine) -> bool {
    before.url == now.url && before.nodes == now.nodes
}

impl EngineClient {
    /// The client for the configured engine's nodes.
    ///
    /// # Errors
    /// The trusted certificates, or the one to show, cannot be had.
    pub fn from_config(config: &Config, nodes: &Nodes) -> Result<Self, BoxError> {
        let engine = &config.engine;
        let roots = given(&engine.ca_file)
            .map(|file| {
                std::fs::read(file).map_err(|error| {
                    format!("engine.ca_file {} cannot be read: {error}", file.display())
                })
            })
            .transpose()?;
        Self::new(
            &engine.bases(),
            nodes.clone(),
            &ClientSettings {
                connect: engine.timeouts.connect,
                idle_connection: engine.timeouts.idle_connection,
                connection_age: engine.timeouts.connection_age,
                body_idle: config.server.limits.body_idle_timeout,
                roots,
                identity: given(&engine.certificate_file)
                    .map(|_| tls::engine_identity(engine))
                    .transpose()?
                    .map(Into::into),
                workers: workers(config).get(),
            },
        )
    }
}

impl Tls {
    /// What `[server.tls]` names; `None` without that table.
    ///
    /// # Errors
    /// A file cannot be read, or holds nothing that can be used.
    pub fn from_config(config: &Config) -> Result<Option<Self>, TlsFileError> {
        config.server.tls.clone().map(Self::open).transpose()
    }
}

impl Limits {
    /// The limits of `[server.limits]`.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let limits = &config.server.limits;
        Self {
            connections: limits.connections,
            header_bytes: limits.header_bytes.as_usize(),
            headers: limits.headers,
            header_read_timeout: limits.header_read_timeout,
            body_idle_timeout: limits.body_idle_timeout,
            idle_connection: limits.idle_connection,
            request_body: request_body(config),
        }
    }
}

/// `0` is one per core.
#[must_use]
pub fn workers(config: &Config) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(config.server.workers).unwrap_or_else(cores)
}

/// `0` is unlimited.
fn request_body(config: &Config) -> Option<u64> {
    Some(config.server.limits.request_body.bytes()).filter(|&bytes| bytes > 0)
}

/// The rules of `[access]`.
fn access(table: &config::Access) -> Result<AccessRules, BoxError> {
    let rules = AccessRules::new(profile(table, &table.default, table.profiles.len())?)
        .with_object_types(ObjectTypes::new(&table.object_types));
    table.rules.iter().try_fold(rules, |rules, rule| {
        let when = When {
            role: rule.when.role.clone(),
            claim: rule.when.claim.clone().zip(rule.when.value.clone()),
            issuer: rule.when.issuer.clone(),
            subject: rule.when.subject.clone(),
        };
        Ok(rules.rule(when, profile(table, &rule.profile, table.profiles.len())?))
    })
}

impl config::Access {
    /// Every profile there is: the built-in ones, then those of one's own.
    ///
    /// # Errors
    /// One names an operation that there is not, or extends a profile that there is not.
    #[cfg(feature = "cli")]
    pub(crate) fn all_profiles(&self) -> Result<Vec<Profile>, BoxError> {
        let names = Builtin::ALL.iter().map(|builtin| builtin.as_str());
        let own = self.profiles.keys().map(String::as_str);
        names
            .chain(own)
            .map(|name| profile(self, name, self.profiles.len()))
            .collect()
    }
}

/// The profile of this name; `steps` bounds the chain of `extends`, which the loader has checked.
fn profile(table: &config::Access, name: &str, steps: usize) -> Result<Profile, BoxError> {
    if let Some(builtin) = Builtin::ALL
        .into_iter()
        .find(|builtin| builtin.as_str() == name)
    {
        return Ok(builtin.into());
    }
    let own = table
        .profiles
        .get(name)
        .ok_or_else(|| format!("no profile {name:?}"))?;
    let base = match &own.extends {
        None => Builtin::None.into(),
        Some(base) => {
            let steps = steps
                .checked_sub(1)
                .ok_or("profiles that extend each other")?;
            profile(table, base, steps)?
        }
    };
    Ok(Profile::new(name, &base, &own.allow, &own.deny)?)
}

/// Those of the configuration; one that was there before goes on with its buckets.
fn rate_limits(
    config: &Config,
    before: Option<(&Config, &Resources)>,
) -> Result<RateLimits, RateLimitError> {
    let limits = config.rate_limits.iter().map(|table| {
        let kept = before.and_then(|(before, resources)| {
            let mut pairs = before.rate_limits.iter().zip(resources.rate_limits.iter());
            pairs.find_map(|(other, limit)| (other == table).then(|| Arc::clone(limit)))
        });
        kept.map_or_else(|| table.limit().map(Arc::new), Ok)
    });
    Ok(RateLimits::of(limits.collect::<Result<_, _>>()?))
}

impl config::RateLimit {
    /// The limit itself.
    pub(crate) fn limit(&self) -> Result<RateLimit, RateLimitError> {
        let by = match (self.by, self.counts) {
            (config::RateLimitBy::Subject, _) => RateLimitBy::Subject,
            (config::RateLimitBy::Issuer, _) => RateLimitBy::Issuer,
            (config::RateLimitBy::Claim, _) => RateLimitBy::Claim(self.claim.clone()),
            (config::RateLimitBy::Client, RateLimitCounts::Requests) => RateLimitBy::Client,
            (config::RateLimitBy::Client, RateLimitCounts::NewTokens) => RateLimitBy::NewTokens,
        };
        let requests = NonZeroU32::new(self.requests).unwrap_or(NonZeroU32::MIN);
        RateLimit::new(RateLimitSettings {
            name: self.name.clone(),
            by,
            operations: self.operations.clone(),
            requests,
            per: self.per,
            burst: NonZeroU32::new(self.burst).unwrap_or(requests),
            keys: self.keys,
        })
    }
}

/// Opens the audit log, or has the one before go on there.
fn audit(
    config: &Config,
    before: Option<(&Config, &Resources)>,
) -> Result<Option<AuditLog>, BoxError> {
    let in_flight = config.server.limits.requests_in_flight;
    let kept = before
        .filter(|(before, _)| before.server.limits.requests_in_flight == in_flight)
        .and_then(|(before, resources)| Some((before, resources.audit.as_ref()?)));
    let open = |target: Target| match kept {
        Some((before, log)) => {
            if before.telemetry.audit_log != config.telemetry.audit_log {
                log.reopen(&target)?;
            }
            Ok(log.clone())
        }
        None => AuditLog::open(&target, in_flight),
    };
    let log = Target::parse(&config.telemetry.audit_log).map(open);
    log.transpose().map_err(|error: std::io::Error| {
        let target = &config.telemetry.audit_log;
        format!("telemetry.audit_log {target:?} cannot be opened: {error}").into()
    })
}

/// Starts what sends spans to the collector.
fn traces(config: &Config, metrics: &Metrics) -> Result<Option<Traces>, BoxError> {
    let telemetry = &config.telemetry;
    let Some(endpoint) = &telemetry.otlp_endpoint else {
        return Ok(None);
    };
    let settings = ExportSettings {
        endpoint: endpoint.as_str().trim_end_matches('/').to_owned(),
        sampling: telemetry.trace_sampling,
        queue: telemetry.trace_queue,
    };
    let provider = export::provider(&settings, metrics.clone())
        .map_err(|error| format!("no traces can be sent (`telemetry.otlp_endpoint`): {error}"))?;
    let traces = Traces::naming_users(provider, telemetry.trace_users);
    Ok(Some(traces))
}

fn cors(cors: &config::Cors) -> Result<CorsLayer, BoxError> {
    let origins = if cors.origins.iter().any(|origin| origin == "*") {
        CorsOrigins::Any
    } else {
        let list: Result<_, _> = cors
            .origins
            .iter()
            .map(|origin| HeaderValue::from_str(origin))
            .collect();
        CorsOrigins::List(list?)
    };
    Ok(CorsLayer::new(origins, cors.credentials))
}

fn initiator_of(table: &config::Initiator) -> Result<initiator::Settings, BoxError> {
    Ok(initiator::Settings {
        names: Names::new(&table.id, &table.email, &table.name)?,
        missing: match table.missing {
            config::Missing::Empty => Missing::Empty,
            config::Missing::Null => Missing::Null,
            config::Missing::Omit => Missing::Omit,
            config::Missing::Reject => Missing::Reject,
        },
        messages: match table.messages {
            config::Messages::Protect => Messages::Protect,
            config::Messages::Inject => Messages::Inject,
        },
        protect_later_writes: table.protect_later_writes,
        restarts: match table.restarts {
            config::Restarts::Deny => Restarts::Deny,
            config::Restarts::Keep => Restarts::Keep,
        },
    })
}

impl config::Issuer {
    /// What its tokens must say, and its keys.
    ///
    /// # Errors
    /// The rules cannot stand, the secret is none, or no URL of keys can be made of the issuer.
    pub(crate) fn rules_and_keys(&self) -> Result<(Issuer, ConfiguredKeys), BoxError> {
        let mut rules = IssuerRules::new(self.preset, self.issuer.as_str());
        rules.audience.clone_from(&self.audience);
        rules
            .authorized_parties
            .clone_from(&self.authorized_parties);
        rules.algorithms.clone_from(&self.algorithms);
        rules.leeway = self.leeway;
        rules.id_prefix.clone_from(&self.id_prefix);
        rules.claims = claims(&self.claims, self.preset.claims());
        let issuer = Issuer::new(rules)?;
        if !self.hs_secret.is_empty() {
            let secret = self.hs_secret.expose().as_bytes();
            let keys = KeySet::from_secret(secret, &self.algorithms)?;
            return Ok((issuer, ConfiguredKeys::Secret(keys)));
        }
        let source = match (given(&self.public_key_file), &self.jwks_url) {
            (Some(file), _) => KeySource::File(file.to_owned()),
            (None, Some(url)) => KeySource::JwksUrl(url.as_uri().clone()),
            (None, None) => KeySource::of_preset(&issuer)?,
        };
        Ok((issuer, ConfiguredKeys::Fetched(source)))
    }
}

/// The keys of a configured issuer.
pub(crate) enum ConfiguredKeys {
    /// Its `hs_secret`: there from the start, and for ever.
    Secret(KeySet),
    /// To be had from there.
    Fetched(KeySource),
}

/// The configured paths; where they are the defaults, the preset knows better.
fn claims(table: &config::Claims, of_preset: ClaimPaths) -> ClaimPaths {
    let default = config::Claims::default();
    let mut paths = of_preset;
    for (configured, default, path) in [
        (&table.id, default.id, &mut paths.id),
        (&table.email, default.email, &mut paths.email),
        (&table.name, default.name, &mut paths.name),
        (&table.first_name, default.first_name, &mut paths.first_name),
        (&table.last_name, default.last_name, &mut paths.last_name),
        (&table.roles, default.roles, &mut paths.roles),
        (&table.tenant, default.tenant, &mut paths.tenant),
    ] {
        if *configured != default {
            path.clone_from(configured);
        }
    }
    paths
}

/// An empty path is none.
fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}
