//! Keys that are accepted but do nothing yet, as one table: a row goes when its key starts to work.
//!
//! A row speaks only where the user set the key himself. It is an error, as going on in silence would be unsafe: another
//! account than the one that was asked for.

use super::diagnostic::{Finding, Severity};
use super::{Config, CredentialsMode};

/// A row of the table.
pub(super) struct NotYet {
    /// The key.
    pub(super) key: &'static str,
    /// Whether the value asks for what is not there.
    asked: fn(&Config) -> bool,
    /// Follows the key in a message.
    pub(super) title: &'static str,
}

/// Finds the keys that were set and do nothing yet.
pub(super) fn findings(config: &Config, is_set: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    NOT_YET
        .iter()
        .filter(|row| (row.asked)(config) && is_set(row.key))
        .map(|row| {
            let finding = Finding::said(row.key, format!("`{}` {}", row.key, row.title))
                .with_label("not supported yet");
            Finding {
                severity: Severity::Error,
                ..finding
            }
        })
        .collect()
}

pub(super) const NOT_YET: [NotYet; 1] = [NotYet {
    key: "engine.credentials.mode",
    asked: |config| !is_supported_mode(config.engine.credentials.mode),
    title: "supports `basic` and `none` so far",
}];

fn is_supported_mode(mode: CredentialsMode) -> bool {
    match mode {
        CredentialsMode::Basic | CredentialsMode::None => true,
        CredentialsMode::MintedJwt | CredentialsMode::Relay => false,
    }
}
