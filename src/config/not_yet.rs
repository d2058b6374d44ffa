//! Keys that are accepted but do nothing yet, as one table: a row goes when its key starts to work.
//!
//! A row speaks only where the user set the key himself. It is an error where going on in silence would be unsafe: plain HTTP where TLS was asked
//! for, an access rule that nobody enforces, an audit log that nobody writes.

use super::diagnostic::{Finding, Severity};
use super::{Algorithm, Config, CredentialsMode, Issuer};

struct NotYet {
    severity: Severity,
    /// The keys whose present values ask for what is not there.
    asked: fn(&Config) -> Vec<String>,
    title: &'static str,
}

/// Finds the keys that were set and do nothing yet.
pub(super) fn findings(config: &Config, is_set: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in &NOT_YET {
        for key in (row.asked)(config).into_iter().filter(|key| is_set(key)) {
            let title = format!("`{key}` {}", row.title);
            findings.push(Finding {
                severity: row.severity,
                ..Finding::said(&key, title).with_label("not supported yet")
            });
        }
    }
    findings
}

const NOT_YET: [NotYet; 16] = [
    NotYet {
        severity: Severity::Error,
        asked: |config| when(config.server.tls.is_some(), "server.tls"),
        title: "is not supported yet, and clients would be served in plain text",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |config| when(config.admin.listen.is_some(), "admin.listen"),
        title: "does nothing yet",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| when(!config.engine.nodes.is_empty(), "engine.nodes"),
        title: "is not supported yet, and all requests would go to `engine.url`",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| {
            let mode = config.engine.credentials.mode;
            when(
                matches!(mode, CredentialsMode::MintedJwt | CredentialsMode::Relay),
                "engine.credentials.mode",
            )
        },
        title: "supports `basic` and `none` so far",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| each_issuer(config, "hs_secret", |issuer| !issuer.hs_secret.is_empty()),
        title: "is not supported yet",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| {
            each_issuer(config, "algorithms", |issuer| {
                !issuer.algorithms.iter().all(is_supported)
            })
        },
        title: "supports RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA so far",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |config| {
            when(
                config.initiator.model_initiator,
                "initiator.model_initiator",
            )
        },
        title: "does nothing yet: the model's own initiator variable is not filled",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |_| when(true, "initiator.model_cache"),
        title: "does nothing yet",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |config| {
            when(
                !config.initiator.model_names.is_empty(),
                "initiator.model_names",
            )
        },
        title: "does nothing yet: these names are not protected",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| {
            when(
                !["user", "transparent", "none"].contains(&config.access.default.as_str()),
                "access.default",
            )
        },
        title: "is not enforced yet but for `user`, `transparent` and `none`",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| when(!config.access.rules.is_empty(), "access.rules"),
        title: "is not enforced yet",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| when(!config.access.profiles.is_empty(), "access.profiles"),
        title: "is not enforced yet",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |config| when(config.workflow_api.enabled, "workflow_api.enabled"),
        title: "does nothing yet: the workflow API is not served",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |_| when(true, "workflow_api.prefix"),
        title: "does nothing yet: the workflow API is not served",
    },
    NotYet {
        severity: Severity::Warning,
        asked: |config| {
            when(
                config.telemetry.otlp_endpoint.is_some(),
                "telemetry.otlp_endpoint",
            )
        },
        title: "does nothing yet: no traces are sent",
    },
    NotYet {
        severity: Severity::Error,
        asked: |config| {
            when(
                !config.telemetry.audit_log.is_empty(),
                "telemetry.audit_log",
            )
        },
        title: "is not supported yet, and no audit log would be written",
    },
];

fn when(asked: bool, key: &str) -> Vec<String> {
    asked.then(|| key.to_owned()).into_iter().collect()
}

fn each_issuer(config: &Config, key: &str, asked: fn(&Issuer) -> bool) -> Vec<String> {
    let issuers = config
        .issuers
        .iter()
        .enumerate()
        .filter(|(_, issuer)| asked(issuer));
    issuers
        .map(|(index, _)| format!("issuers.{index}.{key}"))
        .collect()
}

fn is_supported(algorithm: &Algorithm) -> bool {
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
