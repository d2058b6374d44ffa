//! `[server]` and the tables below it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, HttpUrl, units};

/// `[server]`: how clients reach the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on, such as `"0.0.0.0:8000"` or `"[::]:8000"`. Port 0 takes a free one; the log line `listening` names it.
    #[serde(deserialize_with = "units::socket_address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Worker threads, at most 1024; 0: one per core.
    #[serde(deserialize_with = "units::workers")]
    #[schemars(range(max = 1024))]
    pub workers: usize,
    /// How long the gateway goes on to serve after SIGTERM or SIGINT, while `/readyz` says already that it is not ready: the time that a load
    /// balancer needs to send nobody here any more.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to finish after that.
    /// `"0s"`: they are cut at once.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub shutdown_grace: Duration,
    /// Networks (CIDR) or addresses whose `X-Forwarded-*` and `Forwarded` headers are believed, such as `["10.0.0.0/8"]`. Everybody else's are dropped.
    #[serde(with = "units::networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// What clients call the gateway, such as `"https://bpm.example.com"`, for links in answers. Empty: taken from each request.
    #[serde(with = "units::optional")]
    #[schemars(with = "String")]
    pub public_url: Option<HttpUrl>,
    /// TLS towards clients. Without this table the gateway speaks plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
    /// What one client, and all together, may ask for.
    pub limits: Limits,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            workers: 0,
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            public_url: None,
            tls: None,
            limits: Limits::default(),
        }
    }
}

/// `[server.tls]`: TLS towards clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and its chain. Read again when it changes: new connections get the new one, and one that cannot be used is logged and not taken.
    pub certificate_file: PathBuf,
    /// PEM file of the certificate's private key. Read again when it changes.
    pub private_key_file: PathBuf,
    /// PEM file of the authorities whose client certificates are demanded (mutual TLS): nobody connects without one. Read again when it changes. Empty: none are asked for.
    #[serde(default)]
    pub client_ca_file: PathBuf,
}

/// `[server.limits]`: what one client, and all together, may ask for. Limits are inclusive: the value itself still passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at one time, at least 1. More wait to be accepted.
    #[schemars(range(min = 1))]
    pub connections: usize,
    /// Size of a request's line and headers together, from `"8KiB"` to `"1MiB"`. More is 431, or the end of the connection where it comes in pieces.
    pub header_bytes: ByteSize,
    /// Number of a request's headers, from 1 to 4096. More is 431.
    #[schemars(range(min = 1, max = 4096))]
    pub headers: usize,
    /// How long a request's headers may take to arrive. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub header_read_timeout: Duration,
    /// How long a body may pause, in either direction, before the request is given up. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub body_idle_timeout: Duration,
    /// How long a silent client's connection is kept open for its next request. Not zero.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub idle_connection: Duration,
    /// Size of a body that is streamed to the engine. More is 413; 0: unlimited.
    pub request_body: ByteSize,
    /// Size of a body that bpmgate must rewrite and so holds in memory, from `"1B"` to `"1GiB"`. More is 413. All
    /// such bodies together may take 16 times that; more are 503.
    pub rewritten_body: ByteSize,
    /// Requests at one time, from the first byte of the request to the last of the answer, at least 1. Long polls have a limit of their
    /// own. More wait (`requests_queued`), or are 503 `overloaded` with `Retry-After`.
    #[schemars(range(min = 1))]
    pub requests_in_flight: usize,
    /// Requests that wait for their turn where so many are in flight, so that a short burst is served. More is 503; 0: nobody waits.
    pub requests_queued: usize,
    /// How long such a request waits before it is 503.
    #[serde(with = "units::duration")]
    #[schemars(schema_with = "units::duration_schema")]
    pub queue_timeout: Duration,
    /// Requests of one caller in progress at the same time; more are 429 `too_many_requests`. An engine has some
    /// 200 threads, and a slow upload holds one, so a single caller should not be given them all.
    #[schemars(range(min = 1))]
    pub requests_in_flight_per_caller: usize,
    /// Long polls (`fetchAndLock` of external tasks) at one time, beside the other requests, as the engine may hold one for 30 minutes.
    /// More is 503 with `Retry-After`. Each takes a connection to the engine.
    #[schemars(range(min = 1))]
    pub long_polls: usize,
    /// Long polls of one caller at the same time, beside the caller's other requests; more are 429 `too_many_requests`.
    #[schemars(range(min = 1))]
    pub long_polls_per_caller: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            header_bytes: ByteSize::from_kib(64),
            headers: 128,
            header_read_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_mins(1),
            idle_connection: Duration::from_secs(75),
            request_body: ByteSize::from_mib(1024),
            rewritten_body: ByteSize::from_mib(16),
            requests_in_flight: 10_000,
            requests_queued: 1000,
            queue_timeout: Duration::from_secs(1),
            requests_in_flight_per_caller: 100,
            long_polls: 2000,
            long_polls_per_caller: 50,
        }
    }
}
