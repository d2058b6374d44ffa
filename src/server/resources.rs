//! From the configuration to what the layers work with.

use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;

use crate::access::{AccessRules, Profile};
use crate::body::BoxError;
use crate::config::{self, Config, CredentialsMode, HttpUrl};
use crate::engine::{ClientSettings, EngineClient};
use crate::forwarded::TrustedProxies;
use crate::gateway::Resources;
use crate::initiator::{self, Messages, Missing, Names, Restarts};
use crate::layer::{CorsLayer, CorsOrigins, CredentialsLayer};
use crate::token::refresh::{KeySource, Keys, RefreshSettings};
use crate::token::{ClaimPaths, Issuer, IssuerRules, Verifier};

use super::Limits;

impl Resources {
    /// Takes them from the configuration; the issuers' keys are fetched in the background.
    ///
    /// # Errors
    /// What is in the configuration cannot be used: a key file, a name of a variable.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, which the background fetches need.
    pub fn from_config(config: &Config) -> Result<Self, BoxError> {
        let engine = &config.engine;
        let keys = config.issuers.iter().map(|issuer| {
            let rules = issuer_of(issuer)?;
            let source = key_source(issuer, &rules)?;
            let settings = RefreshSettings {
                refresh: issuer.jwks_refresh,
                cooldown: issuer.jwks_cooldown,
                timeout: issuer.jwks_timeout,
                stale: issuer.jwks_stale,
            };
            Ok::<_, BoxError>((rules.clone(), Keys::spawn(rules, source, settings)))
        });
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
            cors: cors(&config.cors)?,
            verifier: Verifier::new(keys.collect::<Result<Vec<_>, _>>()?)?,
            access: Arc::new(AccessRules::new(profile(&config.access.default)?)),
            initiator: initiator_of(&config.initiator)?,
            rewritten_body: config.server.limits.rewritten_body.bytes(),
            request_body: request_body(config),
            requests_in_flight: config.server.limits.requests_in_flight,
            response_timeout: engine.timeouts.response,
            retry_attempts: engine.retry.attempts,
            retry_backoff: engine.retry.backoff,
        })
    }
}

impl EngineClient {
    /// The client for the configured engine.
    ///
    /// # Errors
    /// The trusted certificates cannot be had.
    pub fn from_config(config: &Config) -> Result<Self, BoxError> {
        let engine = &config.engine;
        let roots = None;
        Self::new(
            engine.url.as_uri(),
            ClientSettings {
                connect: engine.timeouts.connect,
                idle_connection: engine.timeouts.idle_connection,
                body_idle: config.server.limits.body_idle_timeout,
                roots,
            },
        )
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

/// `0` is unlimited.
fn request_body(config: &Config) -> Option<u64> {
    Some(config.server.limits.request_body.bytes()).filter(|&bytes| bytes > 0)
}

fn profile(name: &str) -> Result<Profile, BoxError> {
    [Profile::None, Profile::User, Profile::Transparent]
        .into_iter()
        .find(|profile| profile.name() == name)
        .ok_or_else(|| format!("access.default {name:?} is not enforced yet").into())
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

fn issuer_of(table: &config::Issuer) -> Result<Issuer, BoxError> {
    let preset = of_name(&table.preset)?;
    let mut rules = IssuerRules::new(preset, table.issuer.as_str());
    rules.audience.clone_from(&table.audience);
    rules
        .authorized_parties
        .clone_from(&table.authorized_parties);
    rules.algorithms = table
        .algorithms
        .iter()
        .map(of_name)
        .collect::<Result<_, _>>()?;
    rules.leeway = table.leeway;
    rules.id_prefix.clone_from(&table.id_prefix);
    rules.claims = claims(&table.claims, preset.claims());
    Ok(Issuer::new(rules)?)
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

fn key_source(table: &config::Issuer, issuer: &Issuer) -> Result<KeySource, BoxError> {
    if let Some(file) = given(&table.public_key_file) {
        return Ok(KeySource::File(file.to_owned()));
    }
    match &table.jwks_url {
        Some(url) => Ok(KeySource::JwksUrl(HttpUrl::as_uri(url).clone())),
        None => Ok(KeySource::of_preset(issuer)?),
    }
}

/// An empty path is none.
fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// The same thing by the same name.
fn of_name<T>(named: &impl serde::Serialize) -> Result<T, BoxError>
where
    T: std::str::FromStr<Err: Into<BoxError>>,
{
    let name = serde_json::to_value(named)?;
    name.as_str()
        .unwrap_or_default()
        .parse()
        .map_err(Into::into)
}
