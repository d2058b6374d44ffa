//! What the user configures: one struct per table of the configuration file, in the file's order.
//!
//! The documentation of each field is the user's reference: it becomes `docs/configuration.md` and the descriptions of the JSON Schema.
//! `Default` of a table is what holds when the file says nothing. Values are parsed, not checked later: a [`HttpUrl`], a [`Prefix`], a
//! [`ByteSize`] can only be made valid. What needs several keys at once is checked on loading.
//!
//! ```
//! use bpmgate::config::{Config, Issuer};
//!
//! let issuer = Issuer { issuer: "https://clerk.example.com".parse().unwrap(), ..Issuer::default() };
//! let config = Config { issuers: vec![issuer], ..Config::default() };
//! assert_eq!(config.engine.url.as_str(), "http://localhost:8080/engine-rest");
//! assert_eq!(config.server.limits.headers, 128);
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod deserialize;
mod diagnostic;
mod engine;
pub mod load;
mod not_yet;
mod prefix;
#[cfg(test)]
mod reference;
mod rules;
mod schema;
mod secret;
mod server;
mod source;
mod tree;
mod units;
mod url;

pub use self::diagnostic::{ConfigError, Diagnostic, Severity, Warning};
pub use self::engine::{Breaker, Credentials, CredentialsMode, Engine, Health, Retry, Timeouts};
pub use self::load::{Loaded, Origins};
pub use self::prefix::Prefix;
pub use self::secret::Secret;
pub use self::server::{Limits, Server, Tls};
pub use self::units::{ByteSize, Expected};
pub use self::url::HttpUrl;
pub use crate::token::{Algorithm, Preset};

/// The configuration of bpmgate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Says that all issuers name the same people by the same ids, so that `issuers.id_prefix` is not asked for.
    ///
    /// Leave it `false` unless one directory stands behind all of them: else two issuers' `alice` would be one person.
    pub shared_ids: bool,
    /// How clients reach the gateway.
    pub server: Server,
    /// The operator's own listener.
    pub admin: Admin,
    /// The engine behind the gateway.
    pub engine: Engine,
    /// The public paths of the engine's REST API.
    pub routes: Routes,
    /// Who may sign tokens; at least one `[[issuers]]`.
    ///
    /// With several, each needs its own `id_prefix`, unless `shared_ids = true`.
    pub issuers: Vec<Issuer>,
    /// Tokens that were verified before.
    pub token_cache: TokenCache,
    /// How many requests may come in a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// The variables that say who started a process.
    pub initiator: Initiator,
    /// Who may do what.
    pub access: Access,
    /// Which web pages may call the gateway from a browser.
    pub cors: Cors,
    /// The workflow API for frontends.
    pub workflow_api: WorkflowApi,
    /// Logs, traces and the audit log.
    pub telemetry: Telemetry,
}

/// `[admin]`: the operator's own listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port of `/livez`, `/readyz`, `/metrics` and `/status`, another than `server.listen`; whoever reaches it needs no token, so one
    /// that is not of this machine or a private network is warned of. Port 0 takes a free one; the log line `listening` names it. Empty: turned off.
    #[serde(with = "units::optional_socket_address")]
    #[schemars(with = "String")]
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9000))),
        }
    }
}

/// `[routes]`: the public paths of the engine's REST API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routes {
    /// Each maps onto the path of `engine.url`: with `/api`, a call of `/api/task` goes to `/engine-rest/task`.
    ///
    /// At least one; none under another, and none that meets `/health`, `/docs` or `/openapi.json`.
    pub prefixes: Vec<Prefix>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            prefixes: vec![
                Prefix::from_static("/api"),
                Prefix::from_static("/engine-rest"),
            ],
        }
    }
}

/// `[[issuers]]`: who may sign tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(transform = schema::issuer_is_required)]
pub struct Issuer {
    /// The product behind the issuer: it knows where the keys are and which claims mean what. `oidc` fits any other.
    pub preset: Preset,
    /// The exact `iss` of the tokens, compared byte by byte. Required.
    pub issuer: HttpUrl,
    /// Where the keys are (a JWK set). Empty: the preset's place, or the issuer's discovery document.
    #[serde(with = "units::optional")]
    #[schemars(with = "String")]
    pub jwks_url: Option<HttpUrl>,
    /// PEM or JWKS file to read the keys from instead of a URL. Empty: none.
    pub public_key_file: PathBuf,
    /// Tokens must name one of these in `aud`. Empty: not asked, which is allowed only where the product writes no `aud`: the presets `clerk` (session tokens) and `cognito` (access tokens).
    pub audience: Vec<String>,
    /// The client that the token was made for must be one of these: its `azp`, else `client_id` (`entra`: `azp`, `appid`; `okta`: `cid`; `cognito`: `client_id`). Empty: not asked.
    pub authorized_parties: Vec<String>,
    /// Signature algorithms that are accepted, at least one and each once. The asymmetric ones, or with `hs_secret` those that begin with `HS`; never both.
    pub algorithms: Vec<Algorithm>,
    /// Shared secret of an issuer that signs with HS256, HS384 or HS512; no keys are fetched then. Taken byte by byte as it is, at least 32, 48 or 64 bytes long. Empty: none.
    ///
    /// Whoever knows it can make tokens. Prefer an asymmetric algorithm wherever the issuer has one.
    pub hs_secret: Secret,
    /// File to read `hs_secret` from instead; one newline at its end is cut. Read again on reload.
    #[serde(skip_serializing_if = "units::is_no_path")]
    pub hs_secret_file: PathBuf,
    /// Put before the caller's id everywhere, such as `"clerk:"`. Required, and different, where there are several issuers (see `shared_ids`).
    pub id_prefix: String,
    /// How far the issuer's clock may be off when `exp`, `nbf` and `iat` are checked, at most `"5m"`.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub leeway: Duration,
    /// How often the keys are fetched, in the background; a failed fetch keeps the old keys. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub jwks_refresh: Duration,
    /// At most one fetch per this time, however many tokens with unknown key ids come. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub jwks_cooldown: Duration,
    /// How long one fetch may take. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub jwks_timeout: Duration,
    /// How long old keys may serve while the issuer cannot be reached.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub jwks_stale: Duration,
    /// Which claims say what about the caller.
    pub claims: Claims,
}

impl Default for Issuer {
    /// An issuer that signs nothing: `issuer` is a name that cannot exist (RFC 2606 §2) until it is set.
    fn default() -> Self {
        Self {
            preset: Preset::Oidc,
            issuer: HttpUrl::from_static(UNSET_ISSUER),
            jwks_url: None,
            public_key_file: PathBuf::new(),
            audience: Vec::new(),
            authorized_parties: Vec::new(),
            algorithms: vec![Algorithm::Rs256],
            hs_secret: Secret::default(),
            hs_secret_file: PathBuf::new(),
            id_prefix: String::new(),
            leeway: Duration::from_secs(5),
            jwks_refresh: Duration::from_mins(10),
            jwks_cooldown: Duration::from_secs(10),
            jwks_timeout: Duration::from_secs(5),
            jwks_stale: Duration::from_hours(24),
            claims: Claims::default(),
        }
    }
}

/// `[issuers.claims]`: which claims say what about the caller.
///
/// Of each list the first claim that is present wins. A claim of the whole name is looked for first; then dots reach inside objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Claims {
    /// The caller's id; at least one claim. A token whose id is missing, empty, no text, longer than 255 bytes or holds a control character is 401.
    pub id: Vec<String>,
    /// The caller's email address.
    pub email: Vec<String>,
    /// The caller's full name.
    pub name: Vec<String>,
    /// The caller's first name, for the name where `name` has none.
    pub first_name: Vec<String>,
    /// The caller's last name, for the name where `name` has none.
    pub last_name: Vec<String>,
    /// The caller's roles: a text or an array of texts; all claims count.
    pub roles: Vec<String>,
    /// The caller's tenant.
    pub tenant: Vec<String>,
}

impl Default for Claims {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            id: list(&["sub"]),
            email: list(&["email"]),
            name: list(&["name"]),
            first_name: list(&["given_name", "first_name"]),
            last_name: list(&["family_name", "last_name"]),
            roles: list(&["roles", "realm_access.roles"]),
            tenant: Vec::new(),
        }
    }
}

/// `[token_cache]`: tokens that were verified before.
///
/// A token in it costs no signature check. It is refused all the same once it has expired, or once the issuer takes its key back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenCache {
    /// How many tokens are remembered, at most 1000000; 0: none. Each takes about 4 KiB of memory. Tokens longer than 4 KiB are not remembered.
    #[schemars(range(max = 1_000_000))]
    pub entries: usize,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self { entries: 10_000 }
    }
}

/// `[[rate_limits]]`: how many requests may come in a time, counted apart for each caller, issuer, client address or claim.
///
/// Who sends faster gets 429 `rate_limited` with `Retry-After`. Without such a table nothing is counted; `docs/limits.md` has examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Names the limit in answers (`RateLimit-Policy`) and metrics; another for each. From 1 to 64 letters and digits of ASCII, `-`, `_` and `.`.
    pub name: String,
    /// Whose requests are counted together.
    pub by: RateLimitBy,
    /// The claim, by name or by a path with dots, where `by = "claim"`. A caller without it is counted by subject.
    #[serde(default)]
    pub claim: String,
    /// Which requests are counted.
    #[serde(default)]
    pub counts: RateLimitCounts,
    /// Operations that alone are counted: ids and groups of the engine's API, or kinds such as `"start"`. Empty: all requests but `/health`, `/docs` and `/openapi.json`.
    #[serde(default)]
    pub operations: Vec<String>,
    /// So many requests come back within `per`, one by one; at least 1.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The time for `requests`. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub per: Duration,
    /// So many requests pass at once, from somebody who sent none for long. 0: as many as `requests`.
    #[serde(default)]
    pub burst: u32,
    /// So many callers, issuers, addresses or claims are remembered, from 1 to 10000000; about 200 bytes each. Above that the one whose last request is the
    /// oldest is forgotten, and begins anew; nobody is refused for that.
    #[serde(default = "rate_limit_keys")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub keys: u64,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitBy {
    /// One caller's: one id of one issuer.
    Subject,
    /// All callers' of one issuer.
    Issuer,
    /// All of one client address, of IPv6 of one /64. Without `operations` it is counted before the token is looked at.
    Client,
    /// All callers' of one issuer with the same value in `claim`.
    Claim,
}

/// Which requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitCounts {
    /// All of them.
    #[default]
    Requests,
    /// Those whose token is not among the ones verified before (`token_cache`), as bad ones never are: a flood of them costs no signature checks, and
    /// who has called before goes on. With `by = "client"` alone, and without `operations`.
    NewTokens,
}

fn rate_limit_keys() -> u64 {
    100_000
}

/// `[initiator]`: the variables that say who started a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Initiator {
    /// Name of the variable that holds the caller's id, from 1 to 255 characters.
    pub id: String,
    /// Name of the variable that holds the caller's email address; as `id`.
    pub email: String,
    /// Name of the variable that holds the caller's name; as `id`.
    pub name: String,
    /// What is written when the email, or a name without any fallback, cannot be had from the token.
    pub missing: Missing,
    /// What happens to these names in `POST /message` and `POST /signal`, which may start instances and may hit running ones.
    pub messages: Messages,
    /// Also fills the variable that the model itself names (`camunda:initiator`).
    pub model_initiator: bool,
    /// How long "the newest version of this key" is believed. `"0s"`: the engine is asked each time.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub model_cache: Duration,
    /// How many definitions' models are remembered; the least used are asked for again.
    #[schemars(range(min = 1))]
    pub model_entries: u64,
    /// Names of model initiators to protect from the first request on.
    pub model_names: Vec<String>,
    /// Keeps later writes of variables (task completion, forms, `PUT .../variables`) away from these names.
    pub protect_later_writes: bool,
    /// What happens to a restart, which copies the old instance's variables with its initiator.
    pub restarts: Restarts,
}

impl Default for Initiator {
    fn default() -> Self {
        Self {
            id: "initiator".to_owned(),
            email: "initiatorEmail".to_owned(),
            name: "initiatorName".to_owned(),
            missing: Missing::Empty,
            messages: Messages::Protect,
            model_initiator: true,
            model_cache: Duration::from_secs(1),
            model_entries: 10_000,
            model_names: Vec::new(),
            protect_later_writes: true,
            restarts: Restarts::Deny,
        }
    }
}

/// What is written when the email or the name cannot be had from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// An empty text.
    Empty,
    /// A null variable.
    Null,
    /// No variable.
    Omit,
    /// Nothing: the request is refused.
    Reject,
}

/// What happens to the protected names in messages and signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Messages {
    /// They are removed, so that no running instance loses its initiator; an instance started this way has none.
    Protect,
    /// They are removed and written with the caller's; for where only starts are expected.
    Inject,
}

/// What happens to a restart of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restarts {
    /// It is refused: 403 `cannot_attribute`.
    Deny,
    /// It passes, and the new instances keep the old initiator.
    Keep,
}

/// `[access]`: who may do what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Profile of a caller whom no rule matches: `user`, `worker`, `operator`, `deployer`, `admin`, `transparent`, one of `access.profiles`, or `none`, which denies.
    pub default: String,
    /// Rules, tried in order; the first whose `when` holds gives the profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Profiles of your own, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, Profile>,
    /// Java classes that variables of type `Object` may name, as JSON or XML, beside values and collections of the language:
    /// whole names, or `com.example.orders.*` for a package and what is below it. The engine makes an instance of whatever
    /// class it is given, which can be running code; `admin` and `transparent` may name any, and they alone may send
    /// serialized Java objects.
    pub object_types: Vec<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            default: "user".to_owned(),
            rules: Vec::new(),
            profiles: BTreeMap::new(),
            object_types: Vec::new(),
        }
    }
}

/// `[[access.rules]]`: gives a profile to the callers whom `when` describes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whom the rule means, such as `{ role = "admin" }`; all members must hold, and there must be one.
    pub when: When,
    /// The profile they get: `user`, `worker`, `operator`, `deployer`, `admin`, `transparent`, or one of `access.profiles`.
    pub profile: String,
}

/// Whom a rule means. All members that are given must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// A role among the claims of `issuers.claims.roles`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub role: Option<String>,
    /// A claim, by name or by a path with dots; needs `value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub claim: Option<String>,
    /// What `claim` must be; an array matches if one element does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub value: Option<String>,
    /// The exact issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub issuer: Option<String>,
    /// The exact id of the caller, `id_prefix` included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub subject: Option<String>,
}

/// `[access.profiles.NAME]`: a profile of your own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// The profile to start from: a built-in one, or another of your own. Absent: nothing is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub extends: Option<String>,
    /// Operation ids or groups of the engine's API that are allowed as well.
    pub allow: Vec<String>,
    /// Operation ids or groups that are refused, whatever allows them.
    pub deny: Vec<String>,
}

/// `[cors]`: which web pages may call the gateway from a browser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins of these pages: scheme, host and port without a path, such as `"https://app.example.com"`. `["*"]` means any page.
    pub origins: Vec<String>,
    /// Lets these pages send cookies and client certificates, and read the answers (`Access-Control-Allow-Credentials`).
    pub credentials: bool,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: vec!["http://localhost:3000".to_owned()],
            credentials: true,
        }
    }
}

/// `[workflow_api]`: the workflow API for frontends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkflowApi {
    /// Serves the workflow API; `false` leaves the transparent gateway alone.
    pub enabled: bool,
    /// The workflow API exists under this prefix alone.
    pub prefix: Prefix,
    /// Shows the engine's address as `engine_url` in `GET /health`, which needs no token.
    pub show_engine_url: bool,
}

impl Default for WorkflowApi {
    fn default() -> Self {
        Self {
            enabled: true,
            prefix: Prefix::from_static("/api"),
            show_engine_url: false,
        }
    }
}

/// `[telemetry]`: logs, traces and the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// How log lines look.
    pub log_format: LogFormat,
    /// The least important log lines that are written.
    pub log_level: LogLevel,
    /// OTLP collector that traces are sent to, by OTLP over HTTP with Protobuf: `"http://localhost:4318"`. `/v1/traces` is added. Empty: no
    /// traces. `docs/traces.md` describes the spans.
    #[serde(with = "units::optional")]
    #[schemars(with = "String")]
    pub otlp_endpoint: Option<HttpUrl>,
    /// Share of traces that are sampled, from 0 to 1: of those that begin here, and of those that a client's `traceparent` calls sampled.
    /// What a proxy of `server.trusted_proxies` calls sampled is; what is not sampled before the gateway is not sampled here.
    #[schemars(range(min = 0, max = 1))]
    pub trace_sampling: f64,
    /// Spans that wait to be sent, at most. More are dropped and counted: requests never wait for a collector.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub trace_queue: usize,
    /// Whether spans name the caller (`enduser.id`), as the access log does.
    pub trace_users: bool,
    /// Where the audit log goes: `"stdout"` or a file, which is appended to. Empty: there is none. A request that writes and cannot be
    /// recorded is refused; `docs/audit.md` describes the lines.
    pub audit_log: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            otlp_endpoint: None,
            trace_sampling: 1.0,
            trace_queue: 2048,
            trace_users: false,
            audit_log: String::new(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The importance of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Degraded, but coped with.
    Warn,
    /// Start, stop, reload, and a line per request.
    Info,
    /// Decisions: which rule, which key.
    Debug,
    /// Bytes moved.
    Trace,
}

/// Cannot exist (RFC 2606 §2), so an issuer that nobody named signs nothing.
const UNSET_ISSUER: &str = "https://issuer.invalid";
