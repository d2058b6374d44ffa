//! Keys that are accepted but do nothing yet, as one table: a row goes when its key starts to work.
//!
//! A row speaks only where the user set the key himself. It is an error where going on in silence would be unsafe: plain HTTP where TLS was asked
//! for, one node where several were.

use super::diagnostic::{Finding, Severity};
use super::{Algorithm, Config, CredentialsMode, Issuer};

/// A row of the table.
pub(super) struct NotYet {
    /// The key; for one of an issuer's, without the place in the list.
    pub(super) key: &'static str,
    severity: Severity,
    asked: Asked,
    /// Follows the key in a message.
    pub(super) title: &'static str,
}

/// Whether the value asks for what is not there.
enum Asked {
    Once(fn(&Config) -> bool),
    EachIssuer(fn(&Issuer) -> bool),
}

/// Finds the keys that were set and do nothing yet.
pub(super) fn findings(config: &Config, is_set: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in &NOT_YET {
        let keys: Vec<String> = match row.asked {
            Asked::Once(asked) => asked(config)
                .then(|| row.key.to_owned())
                .into_iter()
                .collect(),
            Asked::EachIssuer(asked) => {
                let issuers = config
                    .issuers
                    .iter()
                    .enumerate()
                    .filter(|(_, issuer)| asked(issuer));
                issuers
                    .map(|(index, _)| row.key.replacen('.', &format!(".{index}."), 1))
                    .collect()
            }
        };
        for key in keys.into_iter().filter(|key| is_set(key)) {
            let finding = Finding::said(&key, format!("`{key}` {}", row.title))
                .with_label("not supported yet");
            findings.push(Finding {
                severity: row.severity,
                ..finding
            });
        }
    }
    findings
}

pub(super) const NOT_YET: [NotYet; 12] = [
    NotYet {
        key: "server.tls",
        severity: Severity::Error,
        asked: Asked::Once(|config| config.server.tls.is_some()),
        title: "is not supported yet, and clients would be served in plain text",
    },
    NotYet {
        key: "admin.listen",
        severity: Severity::Warning,
        asked: Asked::Once(|config| config.admin.listen.is_some()),
        title: "does nothing yet",
    },
    NotYet {
        key: "engine.nodes",
        severity: Severity::Error,
        asked: Asked::Once(|config| !config.engine.nodes.is_empty()),
        title: "is not supported yet, and all requests would go to `engine.url`",
    },
    NotYet {
        key: "engine.credentials.mode",
        severity: Severity::Error,
        asked: Asked::Once(|config| !is_supported_mode(config.engine.credentials.mode)),
        title: "supports `basic` and `none` so far",
    },
    NotYet {
        key: "issuers.algorithms",
        severity: Severity::Error,
        asked: Asked::EachIssuer(|issuer| {
            !issuer
                .algorithms
                .iter()
                .copied()
                .all(is_supported_algorithm)
        }),
        title: "supports RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA so far",
    },
    NotYet {
        key: "issuers.hs_secret",
        severity: Severity::Error,
        asked: Asked::EachIssuer(|issuer| !issuer.hs_secret.is_empty()),
        title: "is not supported yet",
    },
    NotYet {
        key: "initiator.model_initiator",
        severity: Severity::Warning,
        asked: Asked::Once(|config| config.initiator.model_initiator),
        title: "does nothing yet: the model's own initiator variable is not filled",
    },
    NotYet {
        key: "initiator.model_cache",
        severity: Severity::Warning,
        asked: Asked::Once(|_| true),
        title: "does nothing yet",
    },
    NotYet {
        key: "initiator.model_names",
        severity: Severity::Warning,
        asked: Asked::Once(|config| !config.initiator.model_names.is_empty()),
        title: "does nothing yet: these names are not protected",
    },
    NotYet {
        key: "workflow_api.enabled",
        severity: Severity::Warning,
        asked: Asked::Once(|config| config.workflow_api.enabled),
        title: "does nothing yet: the workflow API is not served",
    },
    NotYet {
        key: "workflow_api.prefix",
        severity: Severity::Warning,
        asked: Asked::Once(|_| true),
        title: "does nothing yet: the workflow API is not served",
    },
    NotYet {
        key: "telemetry.otlp_endpoint",
        severity: Severity::Warning,
        asked: Asked::Once(|config| config.telemetry.otlp_endpoint.is_some()),
        title: "does nothing yet: no traces are sent",
    },
];

fn is_supported_mode(mode: CredentialsMode) -> bool {
    match mode {
        CredentialsMode::Basic | CredentialsMode::None => true,
        CredentialsMode::MintedJwt | CredentialsMode::Relay => false,
    }
}

fn is_supported_algorithm(algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::EdDsa => true,
        Algorithm::Es512
        | Algorithm::Ed25519
        | Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512 => false,
    }
}
