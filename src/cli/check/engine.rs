//! `--engine`: what the engine is, and how open it stands.
//!
//! It asks seldom and carefully: one wrong password locks an engine's account for seconds, ten for good
//! (engine facts §7). So the configured account is tried once with its password, and `demo/demo` once where
//! that is another account. Of several nodes each is asked whether it is there, with the account that the first one took; what is
//! the same for the whole cluster is asked once.

use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tower::ServiceExt;

use super::super::Failure;
use super::{found, print, warn};
use crate::body::{Body, BoxError};
use crate::config::{self, Config, CredentialsMode};
use crate::engine::health::OnNode;
use crate::engine::{EngineClient, Nodes};
use crate::layer::{Check, Credentials};

/// Asks each node, prints what was found and warns; gives why for each that cannot be reached, is none, or refuses the configured
/// account.
pub(super) async fn ask(config: &Config) -> Vec<Failure> {
    let client = match EngineClient::from_config(config, &Nodes::from_config(config)) {
        Ok(client) => client,
        Err(error) => return vec![Failure::Running(error)],
    };
    let table = &config.engine;
    let engine = |place, url: String, name| Engine {
        client: client.clone(),
        place,
        url,
        name,
        root: table.url.base_path(),
        patience: table.timeouts.response,
    };
    let mut engines: Vec<_> = table
        .nodes
        .iter()
        .enumerate()
        .map(|(place, node)| {
            let base = node.as_str().trim_end_matches('/');
            let url = format!("{base}{}", table.url.base_path());
            let name = format!("the engine's node {}:{}", node.host(), node.port());
            engine(place, url, name)
        })
        .collect();
    if engines.is_empty() {
        let url = table.url.as_str().to_owned();
        engines.push(engine(0, url, "the engine".to_owned()));
    }
    let mut failures = Vec::new();
    let mut is_known = false;
    for engine in &engines {
        match engine.look(&table.credentials, &mut is_known).await {
            Ok(()) => {}
            Err(Unusable::Node(failure)) => failures.push(failure),
            // All nodes have the same accounts, and would count a wrong password once more.
            Err(Unusable::Account(failure)) => {
                failures.push(failure);
                break;
            }
        }
    }
    failures
}

/// A node, and how it is asked.
struct Engine<'a> {
    client: EngineClient,
    place: usize,
    url: String,
    /// How messages call it.
    name: String,
    root: &'a str,
    patience: Duration,
}

/// Why a node is of no use.
enum Unusable {
    /// It refuses the configured account.
    Account(Failure),
    /// Anything else.
    Node(Failure),
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self::Node(failure)
    }
}

struct Answer {
    status: StatusCode,
    body: Bytes,
}

/// Whether the engine looks at what an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authorizations {
    On,
    Off,
    Unknown,
}

impl Authorizations {
    /// The finding, and how it is known.
    const fn fact(self) -> &'static str {
        match self {
            Self::On => "on: a user who does not exist may not delete authorizations",
            Self::Off => "off: even a user who does not exist may delete authorizations",
            Self::Unknown => "unknown: GET /authorization/check gave no answer that tells",
        }
    }
}

impl Engine<'_> {
    /// `is_known`: another node was asked what is the same for all, whether it told or not.
    async fn look(
        &self,
        configured: &config::Credentials,
        is_known: &mut bool,
    ) -> Result<(), Unusable> {
        print(&format_args!("\n# engine {}\n", self.url))?;
        let nobody = Credentials::none();
        let open = self.get(&nobody, VERSION).await?.status == StatusCode::OK;
        let (account, name) = match configured.mode {
            CredentialsMode::Basic => (
                Credentials::basic(&configured.username, configured.password.expose()),
                configured.username.as_str(),
            ),
            CredentialsMode::MintedJwt | CredentialsMode::Relay | CredentialsMode::None => {
                (nobody, "")
            }
        };
        found("version", &self.version(&account, name).await?)?;
        if !*is_known {
            found("product", &self.product(&account).await?)?;
        }
        found(
            "without credentials",
            if open { "answers" } else { "refuses" },
        )?;
        if open {
            warn(
                &format!(
                    "{} answers without credentials: whoever reaches it may do everything",
                    self.name
                ),
                "switch its authentication on, and let nobody but the gateway reach it",
            );
        }
        if std::mem::replace(is_known, true) {
            return Ok(());
        }
        self.well_known_account(configured, name, open).await?;
        let authorizations = self.authorizations(&account).await?;
        found("authorizations", authorizations.fact())?;
        if authorizations == Authorizations::Off {
            warn(
                "the engine checks no authorizations: each of its accounts may do everything",
                "switch them on and give the gateway's account what its callers need",
            );
        }
        Ok(())
    }

    /// Whether `demo/demo` is let in; `name` is our own account's.
    async fn well_known_account(
        &self,
        configured: &config::Credentials,
        name: &str,
        open: bool,
    ) -> Result<(), Failure> {
        let fact = match (open, name == "demo") {
            (true, _) => "not asked: it answers everybody",
            (false, true) if configured.password.expose() == "demo" => {
                warn(
                    "the gateway's account on the engine is demo/demo, which everybody knows",
                    "give the engine an account of its own for the gateway, and delete `demo`",
                );
                "accepted"
            }
            (false, true) => {
                "not asked: a wrong password would lock the gateway's own account, `demo`"
            }
            (false, false) => {
                let known = Credentials::basic("demo", "demo");
                if self.get(&known, VERSION).await?.status == StatusCode::OK {
                    warn(
                        "the engine accepts demo/demo, which everybody knows",
                        "delete the user `demo` on the engine",
                    );
                    "accepted"
                } else {
                    "refused"
                }
            }
        };
        found("demo/demo", fact)
    }

    async fn get(&self, account: &Credentials, path: &str) -> Result<Answer, Failure> {
        let asked = async {
            let mut request = Request::get(format!("{}{path}", self.root))
                .header(ACCEPT, "application/json")
                .body(Body::empty())?;
            account.check(&mut request)?;
            request.extensions_mut().insert(OnNode(self.place));
            let answer = self.client.clone().oneshot(request).await;
            let answer = answer.map_err(|error| error.source.unwrap_or(error.problem.into()))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok::<_, BoxError>(Answer {
                status: head.status,
                body: body.to_bytes(),
            })
        };
        let answer = tokio::time::timeout(self.patience, asked).await;
        answer
            .unwrap_or_else(|_| Err("it did not answer in time".into()))
            .map_err(|error| {
                Failure::Running(format!("the engine at {}: {}", self.url, causes(&*error)).into())
            })
    }

    async fn version(&self, account: &Credentials, name: &str) -> Result<String, Unusable> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let answer = self.get(account, VERSION).await?;
        let (url, engine) = (&self.url, &self.name);
        let refusal = |why: String| Unusable::Account(Failure::Running(why.into()));
        let failure = |why: String| Unusable::Node(Failure::Running(why.into()));
        Err(match answer.status {
            StatusCode::OK => match serde_json::from_slice(&answer.body) {
                Ok(Version { version }) => return Ok(version.escape_debug().collect()),
                Err(_) => failure(format!(
                    "{url}{VERSION} answers something else than an engine's version, expected the engine's REST root in `engine.url`"
                )),
            },
            StatusCode::UNAUTHORIZED if name.is_empty() => refusal(format!(
                "{engine} asks for credentials, and `engine.credentials.mode` is \"none\""
            )),
            StatusCode::UNAUTHORIZED => refusal(format!(
                "{engine} refuses the account `{name}`, expected user name and password in `engine.credentials`; a wrong password also locks the account for some seconds"
            )),
            status => failure(format!(
                "{url}{VERSION} answers {status}, expected the engine's REST root in `engine.url`"
            )),
        })
    }

    /// The flavour by the name that it gives itself; administrators alone may ask for it.
    async fn product(&self, account: &Credentials) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Telemetry {
            product: Product,
        }
        #[derive(Deserialize)]
        struct Product {
            name: String,
        }
        let answer = self.get(account, "/telemetry/data").await?;
        let named = serde_json::from_slice::<Telemetry>(&answer.body);
        Ok(match named {
            Ok(told) if answer.status == StatusCode::OK => {
                told.product.name.escape_debug().collect()
            }
            Ok(_) | Err(_) => {
                "of the Camunda 7 family: GET /telemetry/data did not tell".to_owned()
            }
        })
    }

    /// Asks whether somebody who does not exist may do what nobody is granted in general. Without
    /// authorizations everybody may; with them nobody, or our account may not even ask.
    async fn authorizations(&self, account: &Credentials) -> Result<Authorizations, Failure> {
        #[derive(Deserialize)]
        struct Checked {
            authorized: bool,
        }
        let answer = self.get(account, AUTHORIZATION_CHECK).await?;
        Ok(match answer.status {
            StatusCode::FORBIDDEN => Authorizations::On,
            StatusCode::OK => match serde_json::from_slice(&answer.body) {
                Ok(Checked { authorized: true }) => Authorizations::Off,
                Ok(Checked { authorized: false }) => Authorizations::On,
                Err(_) => Authorizations::Unknown,
            },
            _ => Authorizations::Unknown,
        })
    }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

const VERSION: &str = "/version";
const AUTHORIZATION_CHECK: &str = "/authorization/check?permissionName=DELETE&resourceName=authorization&resourceType=4&userId=bpmgate-check-nobody";
const MAX_ANSWER_BYTES: usize = 64 * 1024;
