//! `bpmgate explain-token`: which checks a token passes, in their order, and whom it speaks for.
//!
//! The checks are those of [`Verifier`](crate::Verifier) itself, with keys fetched as `serve` fetches them: the first
//! one that fails is told, what comes before has passed, and what comes behind was not looked at. Facts beside them
//! are read from the token as they stand; before the signature is verified anybody may have written them. The token
//! itself is never printed.

use std::fmt;
use std::io::{self, Read as _};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::{ExplainToken, Failure, GivenToken, print, serve, tell_warnings};
use crate::config::Config;
use crate::gateway::Resources;
use crate::identity::Identity;
use crate::problem::Problem;
use crate::token::last::LastToken;
use crate::token::verifier::Refusal;
use crate::token::{BearerToken, Issuer, IssuerKeys, MAX_TOKEN_BYTES, TokenError, UnverifiedToken};

/// Explains the token.
pub(super) fn run(explain: ExplainToken) -> Result<(), Failure> {
    let loaded = explain.config.load()?;
    tell_warnings(&loaded.warnings);
    let token = read(explain.token)?;
    let config = quiet(loaded.config);
    serve::runtime()?.block_on(async {
        let resources = Resources::from_config(&config).map_err(Failure::Running)?;
        let examined = examine(&resources, &token).await;
        print(&examined)?;
        let identity = examined.result.map_err(|refused| {
            Failure::Running(format!("the token is refused: {refused}").into())
        })?;
        print(&Whom(&identity))?;
        let (profile, rule) = resources.access.profile_of(&identity);
        print(&format_args!(
            "\naccess\n  profile     {}\n  chosen by   {}\n",
            profile.name(),
            chosen_by(rule)
        ))
    })
}

/// The configuration to explain with: it writes no audit log.
pub(super) fn quiet(mut config: Config) -> Config {
    config.telemetry.audit_log.clear();
    config
}

/// Takes the token from where it is: the argument, or standard input. `Bearer ` before it is taken off.
pub(super) fn read(given: Option<GivenToken>) -> Result<String, Failure> {
    let text = match given {
        Some(GivenToken(token)) if token != "-" => token,
        Some(_) | None => {
            // One byte more than the longest token and its surroundings, so that a longer one is told as too long.
            let limit = 2 * MAX_TOKEN_BYTES as u64;
            let mut text = Vec::new();
            io::stdin().lock().take(limit).read_to_end(&mut text)?;
            String::from_utf8_lossy(&text).into_owned()
        }
    };
    let token = text.trim();
    let bare = match token.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim_start(),
        _ => token,
    };
    Ok(bare.to_owned())
}

/// Which access rule chose a profile, in words.
pub(super) fn chosen_by(rule: Option<usize>) -> String {
    rule.map_or_else(
        || "access.default: no rule matches".to_owned(),
        |rule| format!("access.rules.{rule}"),
    )
}

/// What was found out about a token.
pub(super) struct Examined {
    facts: Option<Facts>,
    pub(super) result: Result<Identity, Refused>,
}

/// Why a token is refused.
#[derive(Debug)]
pub(super) enum Refused {
    Token(TokenError),
    /// The keys to check it with are not there.
    NoKeys(Option<String>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::NoKeys(None) => f.write_str("the issuer's keys cannot be had"),
            Self::NoKeys(Some(why)) => write!(f, "the issuer's keys cannot be had: {why}"),
        }
    }
}

/// What a request with the token is answered.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Token(error) => error.into(),
            Refused::NoKeys(_) => Self::KeysUnavailable,
        }
    }
}

/// What the token says, and what is expected of it.
struct Facts {
    now: SystemTime,
    algorithm: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
    /// The issuer that it names, with its place, where there is one.
    issuer: Option<(usize, Issuer)>,
    issuers: Vec<String>,
    /// The ids of that issuer's keys.
    key_ids: Vec<String>,
}

/// Verifies the token as a request's would be, and gathers what there is to tell.
pub(super) async fn examine(resources: &Resources, token: &str) -> Examined {
    let refused = |facts, error| Examined {
        facts,
        result: Err(Refused::Token(error)),
    };
    let bearer = match BearerToken::parse(token.as_bytes()) {
        Ok(bearer) => bearer,
        Err(error) => return refused(None, error),
    };
    let token = match UnverifiedToken::parse(bearer) {
        Ok(token) => token,
        Err(error) => return refused(None, error),
    };
    let claimed = token.issuer().map(str::to_owned);
    let mut issuers = resources.verifier.issuers().enumerate();
    let found = issuers.find(|(_, (issuer, _))| Some(issuer.as_str()) == claimed.as_deref());
    if let Some((_, (_, IssuerKeys::Live(keys)))) = found {
        keys.ready().await;
    }
    let jws = token.jws();
    let facts = Facts {
        now: SystemTime::now(),
        algorithm: jws.algorithm().to_string(),
        key_id: jws.key_id().map(str::to_owned),
        claims: serde_json::from_slice(jws.payload()).unwrap_or_default(),
        issuer: found.map(|(place, (issuer, _))| (place, issuer.clone())),
        issuers: resources
            .verifier
            .issuers()
            .map(|(issuer, _)| issuer.as_str().to_owned())
            .collect(),
        key_ids: match found {
            Some((_, (_, IssuerKeys::Live(keys)))) => keys.status().key_ids,
            Some((_, (_, IssuerKeys::Fixed(keys)))) => keys.key_ids().map(str::to_owned).collect(),
            None => Vec::new(),
        },
    };
    let verified = resources.verifier.verify_now(
        bearer.as_str().as_bytes(),
        &mut LastToken::default(),
        facts.now,
    );
    let result = match verified {
        Ok(verified) => verified.identity().map_err(Refused::Token),
        Err(Refusal::Token(error)) => Err(Refused::Token(error)),
        Err(Refusal::KeyUnknown(_)) => Err(Refused::Token(TokenError::KeyUnknown)),
        Err(Refusal::NoKeys(keys)) => Err(Refused::NoKeys(match keys {
            IssuerKeys::Live(keys) => keys.status().last_error,
            IssuerKeys::Fixed(_) => None,
        })),
    };
    Examined {
        facts: Some(facts),
        result,
    }
}

/// A check, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Form,
    Issuer,
    Keys,
    Signature,
    Audience,
    Party,
    Purpose,
    NotBefore,
    Expiry,
    Caller,
}

impl Check {
    const ALL: [Self; 10] = [
        Self::Form,
        Self::Issuer,
        Self::Keys,
        Self::Signature,
        Self::Audience,
        Self::Party,
        Self::Purpose,
        Self::NotBefore,
        Self::Expiry,
        Self::Caller,
    ];

    fn that_failed(refused: &Refused) -> Self {
        let error = match refused {
            Refused::Token(error) => error,
            Refused::NoKeys(_) => return Self::Keys,
        };
        match error {
            TokenError::TooLong(_)
            | TokenError::Syntax
            | TokenError::Parts(_)
            | TokenError::Base64 { .. }
            | TokenError::Json { .. }
            | TokenError::Header { .. }
            | TokenError::AlgorithmUnknown => Self::Form,
            TokenError::IssuerUnknown => Self::Issuer,
            TokenError::AlgorithmNotAllowed(_)
            | TokenError::KeyUnfit(_)
            | TokenError::KeyAmbiguous
            | TokenError::KeyUnknown
            | TokenError::Signature => Self::Signature,
            TokenError::Audience => Self::Audience,
            TokenError::AuthorizedParty => Self::Party,
            TokenError::Purpose { .. } | TokenError::Bound => Self::Purpose,
            TokenError::NotYet { .. } => Self::NotBefore,
            TokenError::Expired { .. } => Self::Expiry,
            TokenError::Caller(_) => Self::Caller,
            TokenError::ClaimMissing(claim) | TokenError::Claim { claim, .. } => match *claim {
                "iss" => Self::Issuer,
                "aud" => Self::Audience,
                "nbf" | "iat" => Self::NotBefore,
                "exp" => Self::Expiry,
                // The client is named differently by different issuers.
                _ => Self::Party,
            },
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Issuer => "issuer",
            Self::Keys => "keys",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Party => "authorized party",
            Self::Purpose => "purpose",
            Self::NotBefore => "not before",
            Self::Expiry => "expiry",
            Self::Caller => "id",
        }
    }

    /// What it looks at, and what would be right.
    fn facts(self, facts: &Facts) -> String {
        let rules = facts.issuer.as_ref().map(|(_, issuer)| issuer.rules());
        let claim = |name: &str| {
            let value = facts.claims.get(name);
            format!(
                "{name} {}",
                value.map_or_else(|| "absent".to_owned(), shown)
            )
        };
        let time = |name: &str| {
            let since_1970 = facts.claims.get(name).and_then(Value::as_f64);
            since_1970
                .filter(|seconds| *seconds < LAST_RFC3339)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .map_or_else(
                    || claim(name),
                    |at| {
                        let at = SystemTime::UNIX_EPOCH + at;
                        format!("{name} {}", humantime::format_rfc3339_seconds(at))
                    },
                )
        };
        let one_of = |names: &[String]| {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(" or ")
        };
        match self {
            Self::Form => match &facts.key_id {
                Some(id) => format!("alg {}, kid {}", facts.algorithm, cut(&format!("{id:?}"))),
                None => format!("alg {}, no kid", facts.algorithm),
            },
            Self::Issuer => match &facts.issuer {
                Some((place, issuer)) => format!("{:?} is issuers.{place}", issuer.as_str()),
                None => format!("{}, expected {}", claim("iss"), one_of(&facts.issuers)),
            },
            Self::Keys => "fetched, or read from their file".to_owned(),
            Self::Signature => {
                let allowed = rules.map_or(&[][..], |rules| &rules.algorithms);
                let names: Vec<_> = allowed.iter().map(|one| one.as_str()).collect();
                format!(
                    "{}, expected {}; the issuer's keys: {}",
                    facts.algorithm,
                    names.join(" or "),
                    cut(&one_of(&facts.key_ids))
                )
            }
            Self::Audience => match rules.map(|rules| &rules.audience) {
                Some(audience) if !audience.is_empty() => {
                    format!("{}, expected {}", claim("aud"), one_of(audience))
                }
                _ => format!("{}, any is accepted", claim("aud")),
            },
            Self::Party => {
                let names = rules.map_or(&["azp"][..], |rules| rules.preset.client_claims());
                let mut names = names.iter().copied();
                let first = names.clone().next().unwrap_or("azp");
                let found = names.find(|name| facts.claims.contains_key(*name));
                let client = claim(found.unwrap_or(first));
                match rules.map(|rules| &rules.authorized_parties) {
                    Some(parties) if !parties.is_empty() => {
                        format!("{client}, expected {}", one_of(parties))
                    }
                    _ => format!("{client}, any is accepted"),
                }
            }
            Self::Purpose => "an access token for a bearer, as far as the issuer tells".to_owned(),
            Self::NotBefore => format!("{}, {}", time("nbf"), time("iat")),
            Self::Expiry => {
                let now = humantime::format_rfc3339_seconds(facts.now);
                format!("{}, now {now}", time("exp"))
            }
            Self::Caller => {
                let paths = rules.map_or(&[][..], |rules| &rules.claims.id);
                format!("from the first claim present of {}", one_of(paths))
            }
        }
    }
}

/// The end of the year 9999, the last that RFC 3339 can write, in seconds since 1970.
const LAST_RFC3339: f64 = 253_402_300_800.0;

/// The checks, one a line.
impl fmt::Display for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.result.as_ref().err().map(|refused| {
            let check = Check::that_failed(refused);
            (check, refused)
        });
        for check in Check::ALL {
            let name = check.name();
            let facts = self.facts.as_ref().map(|facts| check.facts(facts));
            match failed {
                Some((failing, refused)) if failing == check => {
                    writeln!(f, "failed      {name:<17} {refused}")?;
                    if let Some(facts) = facts {
                        writeln!(f, "{:30}{facts}", "")?;
                    }
                }
                Some((failing, _)) if failing < check => {
                    writeln!(f, "not checked {name}")?;
                }
                Some(_) | None => {
                    writeln!(f, "passed      {name:<17} {}", facts.unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }
}

/// Whom a token speaks for.
struct Whom<'a>(&'a Identity);

impl fmt::Display for Whom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(identity) = self;
        let or_none = |text: Option<&str>| text.map_or_else(|| "none".to_owned(), plain);
        let roles = identity.roles().join(", ");
        writeln!(f, "\nidentity")?;
        writeln!(f, "  id          {}", plain(identity.id()))?;
        writeln!(f, "  email       {}", or_none(identity.email()))?;
        writeln!(f, "  name        {}", plain(identity.name()))?;
        let roles = Some(roles.as_str()).filter(|roles| !roles.is_empty());
        writeln!(f, "  roles       {}", or_none(roles))?;
        writeln!(f, "  tenant      {}", or_none(identity.tenant()))
    }
}

/// A claim's value, short; of what is no text, number or list of them only the kind.
fn shown(value: &Value) -> String {
    cut(&match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(list) => {
            let list: Vec<_> = list.iter().take(10).map(shown).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    })
}

/// Text of a token's without what would move a terminal's cursor or turn its direction.
pub(super) fn plain(text: &str) -> String {
    let quoted = format!("{text:?}");
    let inner = quoted
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'));
    if inner == Some(text) {
        cut(text)
    } else {
        cut(&quoted)
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text.to_owned(),
    }
}

/// How much of a value is shown.
const MAX_SHOWN_CHARS: usize = 200;
