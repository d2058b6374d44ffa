//! `--issuers`: fetches the keys of each issuer once and prints them; of a secret, what it is for.

use std::time::{Duration, SystemTime};

use super::super::Failure;
use super::{found, print, warn};
use crate::body::BoxError;
use crate::config::{self, Config};
use crate::server::ConfiguredKeys;
use crate::token::KeySet;
use crate::token::refresh::{FetchError, fetch};

/// Asks every issuer; gives why for each that failed.
pub(super) async fn ask(config: &Config) -> Vec<Failure> {
    let mut failures = Vec::new();
    for issuer in &config.issuers {
        failures.extend(keys(issuer).await.err());
    }
    failures
}

async fn keys(table: &config::Issuer) -> Result<(), Failure> {
    let name = table.issuer.as_str();
    let failed = |error: BoxError| Failure::Running(Box::new(Unusable(name.to_owned(), error)));
    print(&format_args!("\n# issuer {name}\n"))?;
    let (issuer, source) = match table.rules_and_keys().map_err(failed)? {
        (_, ConfiguredKeys::Secret(keys)) => return list(&keys),
        (issuer, ConfiguredKeys::Fetched(source)) => (issuer, source),
    };
    let timeout = table.jwks_timeout;
    let fetched = tokio::time::timeout(timeout, fetch(&issuer, &source))
        .await
        .unwrap_or(Err(FetchError::Timeout(timeout)))
        .map_err(|error| failed(error.into()))?;
    let now = SystemTime::now();

    let allowed = &issuer.rules().algorithms;
    list(&fetched.keys)?;
    for ignored in fetched.keys.ignored() {
        let id = ignored.key_id.as_deref().unwrap_or("(no kid)");
        let id: String = id.escape_debug().collect();
        found("key passed over", &format!("{id}: {}", ignored.reason))?;
    }
    let fits = |(_, algorithms): (_, Vec<_>)| algorithms.iter().any(|one| allowed.contains(one));
    if !fetched.keys.keys().any(fits) {
        warn(
            &format!("no key of {name} is for one of its `algorithms`: no token would be accepted"),
            "name the algorithm that the issuer signs with",
        );
    }
    match fetched.date {
        None => found("clock", "not told"),
        Some(date) => clock(name, date, now, table.leeway),
    }
}

fn list(keys: &KeySet) -> Result<(), Failure> {
    for (id, algorithms) in keys.keys() {
        let names: Vec<_> = algorithms
            .iter()
            .map(|algorithm| algorithm.as_str())
            .collect();
        let id: String = id.unwrap_or("(no kid)").escape_debug().collect();
        found("key", &format!("{id} {}", names.join(", ")))?;
    }
    Ok(())
}

/// Compares clocks; the issuer tells whole seconds, so one more is no difference.
fn clock(
    name: &str,
    theirs: SystemTime,
    ours: SystemTime,
    leeway: Duration,
) -> Result<(), Failure> {
    let (behind, ahead) = (ours.duration_since(theirs), theirs.duration_since(ours));
    let (difference, direction) = match (behind, ahead) {
        (Ok(behind), _) => (behind, "behind"),
        (_, Ok(ahead)) => (ahead, "ahead of"),
        (Err(_), Err(_)) => (Duration::ZERO, "with"),
    };
    if difference <= Duration::from_secs(2) {
        return found("clock", "agrees with ours");
    }
    let seconds = difference.as_secs();
    found("clock", &format!("{seconds} s {direction} ours"))?;
    if difference > leeway {
        warn(
            &format!("the clock of {name} is {seconds} s {direction} ours, more than `leeway`"),
            "set this machine's clock by NTP; tokens may be refused as expired or not yet valid",
        );
    }
    Ok(())
}

/// The keys of this issuer cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("no keys of the issuer {0}")]
struct Unusable(String, #[source] BoxError);
