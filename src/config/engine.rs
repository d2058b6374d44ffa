//! `[engine]` and the tables below it.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HttpUrl, Secret, units};

/// `[engine]`: the engine behind the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Where the engine's REST API begins, without query. `http://` to a host that is not loopback is warned of.
    pub url: HttpUrl,
    /// Several nodes of one engine cluster on one database, at most 64, as URLs without path: `["http://engine-1:8080", "http://engine-2:8080"]`.
    /// They stand in for the host of `url`, which only says the path then. The one with the fewest requests in flight gets the next.
    pub nodes: Vec<HttpUrl>,
    /// Sends the client's `Host` on to the engine; `false` sends the host of `url`, or of the node.
    pub preserve_host: bool,
    /// PEM file of the certificates to trust for an `https://` engine, instead of the system's. Empty: the system's.
    pub ca_file: PathBuf,
    /// PEM file of the certificate, with its chain, that the gateway shows to an `https://` engine. Empty: none. Read again on reload, and when the file changes;
    /// new connections have it.
    pub certificate_file: PathBuf,
    /// PEM file of that certificate's private key; one needs the other.
    pub private_key_file: PathBuf,
    /// How the gateway authenticates itself.
    pub credentials: Credentials,
    /// How long the engine may take.
    pub timeouts: Timeouts,
    /// When a failed request is sent again.
    pub retry: Retry,
    /// Whether a node is there.
    pub health: Health,
    /// When one of several nodes is left out.
    pub breaker: Breaker,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            url: HttpUrl::from_static("http://localhost:8080/engine-rest"),
            nodes: Vec::new(),
            preserve_host: true,
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            private_key_file: PathBuf::new(),
            credentials: Credentials::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            health: Health::default(),
            breaker: Breaker::default(),
        }
    }
}

/// `[engine.credentials]`: how the gateway authenticates itself to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// What goes into `Authorization` on the way to the engine.
    pub mode: CredentialsMode,
    /// User name for `basic`; without `:` (RFC 7617 §2).
    pub username: String,
    /// Password for `basic`. Default `"demo"`.
    pub password: Secret,
    /// File to read `password` from instead; one newline at its end is cut. Read again on reload.
    #[serde(skip_serializing_if = "units::is_no_path")]
    pub password_file: PathBuf,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            mode: CredentialsMode::Basic,
            username: "demo".to_owned(),
            password: Secret::from("demo".to_owned()),
            password_file: PathBuf::new(),
        }
    }
}

/// What goes into `Authorization` on the way to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialsMode {
    /// HTTP Basic with `username` and `password`.
    Basic,
    /// A token that the gateway signs for the caller.
    MintedJwt,
    /// The caller's own `Authorization`.
    Relay,
    /// Nothing.
    None,
}

/// `[engine.timeouts]`: how long the engine may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until a connection stands, TLS included. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub connect: Duration,
    /// Until the headers of the answer, from when the engine has all of the request's body; a long poll gets its own `asyncResponseTimeout` on top
    /// (30 minutes, the engine's most, where that cannot be read or the body is over 16 KiB). More is 504. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub response: Duration,
    /// How long an unused connection is kept. Not zero; keep it at or under the engine's own (60 s).
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub idle_connection: Duration,
    /// How long a connection is used, before a new one takes its place: for that the name of the engine is resolved again, so a change of
    /// its address is followed in this time. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub connection_age: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(30),
            idle_connection: Duration::from_mins(1),
            connection_age: Duration::from_mins(5),
        }
    }
}

/// `[engine.retry]`: when a failed request is sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// How often a request is sent again, from 0 (never) to 10. Only where nothing of it was sent, or for GET and HEAD; never a long poll.
    #[schemars(range(max = 10))]
    pub attempts: u32,
    /// Pause before the first of these; it doubles with each.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub backoff: Duration,
    /// So many of a hundred requests may be sent again, counted over ten seconds, from 0 to 100, so that an engine that is full does not get
    /// several times as many. It is kept as one of so many: 20 is one of five, and 30 one of three. More fail at once.
    #[schemars(range(max = 100))]
    pub budget_percent: u8,
    /// So many a second may be sent again beside that, for times of few requests. At most 1000000; the workers share it.
    #[schemars(range(max = 1_000_000))]
    pub budget_floor: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Duration::from_millis(500),
            budget_percent: 20,
            budget_floor: 10,
        }
    }
}

/// `[engine.health]`: whether a node is there, by `GET {path}/version` with the gateway's own account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Pause between two checks of a node. `"0s"`: it is asked only when `/health`, `/readyz` or `/status` are.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub interval: Duration,
    /// How long the answer may take; a node that takes longer, or answers with anything but 2xx, gets no requests where another is there. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub timeout: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

/// `[engine.breaker]`: when one of several nodes is left out. With one node alone there is no breaker, and where no other node is there it
/// gets requests all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// After so many exchanges in a row that failed: no connection, or one that broke before the answer. 0: never.
    pub failures: u32,
    /// How long it is left out, before one request tries it again. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub pause: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(5),
        }
    }
}
