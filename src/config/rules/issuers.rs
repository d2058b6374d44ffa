//! What must hold of `[[issuers]]`.

use super::{in_plain_text, lasting, no_empty_text, without_query};
use crate::config::diagnostic::Finding;
use crate::config::units::DurationText;
use crate::config::{Algorithm, Config, Issuer, UNSET_ISSUER};
use crate::token::IssuerRules;

pub(super) fn issuers(config: &Config, is_set: &dyn Fn(&str) -> bool, findings: &mut Vec<Finding>) {
    if config.issuers.is_empty() {
        let finding = Finding::said(
            "issuers",
            "no issuer is configured, so no token could be accepted",
        );
        findings.push(finding.with_hint(
            "add `[[issuers]]` with `issuer = \"https://...\"`, or set BPMGATE__ISSUERS__0__ISSUER (for Clerk, CLERK_JWKS_URL is enough)",
        ));
    }
    for (index, issuer) in config.issuers.iter().enumerate() {
        self::issuer(&format!("issuers.{index}"), issuer, findings);
        let earlier = config.issuers.iter().take(index);
        if earlier.clone().any(|other| other.issuer == issuer.issuer)
            && issuer.issuer.as_str() != UNSET_ISSUER
        {
            let key = format!("issuers.{index}.issuer");
            findings.push(Finding::expected(
                &key,
                issuer.issuer.as_str(),
                "each issuer once",
            ));
        }
        if config.issuers.len() > 1 && !config.shared_ids {
            let key = format!("issuers.{index}.id_prefix");
            // "a" + "b1" and "ab" + "1" are one id, so it is not enough that the prefixes differ.
            let clashes = |other: &&Issuer| {
                other.id_prefix.starts_with(&issuer.id_prefix)
                    || issuer.id_prefix.starts_with(&other.id_prefix)
            };
            if !is_set(&key) {
                let finding = Finding::said(
                    &key,
                    format!("`{key}` is missing, and there are several issuers"),
                );
                findings.push(finding.with_label("has no `id_prefix`").with_hint(
                    "give each issuer an `id_prefix` such as \"clerk:\", or set `shared_ids = true` if all name the same people by the same ids",
                ));
            } else if let Some(other) = earlier.clone().find(clashes) {
                let expected = format!(
                    "a prefix that does not begin as another issuer's ({:?})",
                    other.id_prefix
                );
                findings.push(Finding::expected(&key, &issuer.id_prefix, expected));
            }
        }
    }
}

fn issuer(table: &str, issuer: &Issuer, findings: &mut Vec<Finding>) {
    let key = |name: &str| format!("{table}.{name}");
    if issuer.issuer.as_str() == UNSET_ISSUER {
        let finding = Finding::said(&key("issuer"), format!("`{table}.issuer` is missing"));
        findings.push(
            finding
                .with_label("has no `issuer`")
                .with_hint("set `issuer` to the exact `iss` of its tokens"),
        );
    }
    findings.extend(without_query(&key("issuer"), &issuer.issuer));
    findings.extend(in_plain_text(&key("issuer"), &issuer.issuer, "keys"));
    if let Some(url) = &issuer.jwks_url {
        findings.extend(in_plain_text(&key("jwks_url"), url, "keys"));
        if !issuer.public_key_file.as_os_str().is_empty() {
            let title = format!("`{table}.jwks_url` and `{table}.public_key_file` are both set");
            findings.push(
                Finding::said(&key("public_key_file"), title).with_label("expected one of the two"),
            );
        }
    }
    if issuer.audience.is_empty() && !issuer.preset.allows_any_audience() {
        let title = format!(
            "`{table}.audience` is empty: a token that the issuer made for any other application would be accepted too"
        );
        findings.push(
            Finding::said(&key("audience"), title)
                .with_label("expected at least one")
                .with_hint("set `audience` to the `aud` of the tokens meant for this gateway, such as [\"bpmgate\"]"),
        );
    }
    if issuer.audience.is_empty()
        && issuer.authorized_parties.is_empty()
        && issuer.preset.allows_any_audience()
    {
        let title = format!(
            "`{table}.audience` is empty: tokens that the issuer made for any other application are accepted too"
        );
        findings.push(
            Finding::warning(&key("audience"), title).with_hint(
                "set `audience`, or `authorized_parties` to the front ends that may call",
            ),
        );
    }
    for (name, list) in [
        ("audience", &issuer.audience),
        ("authorized_parties", &issuer.authorized_parties),
    ] {
        findings.extend(no_empty_text(&key(name), list));
    }
    algorithms(table, issuer, findings);
    if issuer.id_prefix.chars().any(char::is_control) || issuer.id_prefix.len() > 100 {
        findings.push(Finding::expected(
            &key("id_prefix"),
            &issuer.id_prefix,
            "at most 100 bytes without control characters",
        ));
    }
    if issuer.leeway > IssuerRules::MAX_LEEWAY {
        findings.push(Finding::expected(
            &key("leeway"),
            &DurationText(issuer.leeway).to_string(),
            "at most \"5m\"",
        ));
    }
    findings.extend(lasting(&key("jwks_refresh"), issuer.jwks_refresh));
    findings.extend(lasting(&key("jwks_cooldown"), issuer.jwks_cooldown));
    findings.extend(lasting(&key("jwks_timeout"), issuer.jwks_timeout));
    let claims = &issuer.claims;
    if claims.id.is_empty() {
        findings.push(
            Finding::said(&key("claims.id"), format!("`{table}.claims.id` is empty"))
                .with_label("expected at least one claim"),
        );
    }
    let lists = [
        ("id", &claims.id),
        ("email", &claims.email),
        ("name", &claims.name),
        ("first_name", &claims.first_name),
        ("last_name", &claims.last_name),
        ("roles", &claims.roles),
        ("tenant", &claims.tenant),
    ];
    for (name, list) in lists {
        findings.extend(no_empty_text(&key(&format!("claims.{name}")), list));
    }
}

/// What the algorithms are, and whether there is a secret where one is needed.
fn algorithms(table: &str, issuer: &Issuer, findings: &mut Vec<Finding>) {
    let key = |name: &str| format!("{table}.{name}");
    let all = &issuer.algorithms;
    if all.is_empty() {
        findings.push(
            Finding::said(&key("algorithms"), format!("`{table}.algorithms` is empty"))
                .with_label("expected at least one"),
        );
    }
    for (index, algorithm) in all.iter().enumerate() {
        if all.iter().take(index).any(|earlier| earlier == algorithm) {
            let key = key(&format!("algorithms.{index}"));
            findings.push(Finding::expected(
                &key,
                algorithm.as_str(),
                "each algorithm once",
            ));
        }
    }
    let symmetric = || all.iter().filter(|algorithm| algorithm.is_symmetric());
    if symmetric().count() > 0 && symmetric().count() < all.len() {
        let title = format!(
            "`{table}.algorithms` mixes HS256, HS384 or HS512 with algorithms of public keys"
        );
        findings.push(
            Finding::said(&key("algorithms"), title)
                .with_label("expected one kind")
                .with_hint("name only what the issuer signs with"),
        );
    }
    secret(table, issuer, symmetric().copied().collect(), findings);
}

fn secret(table: &str, issuer: &Issuer, symmetric: Vec<Algorithm>, findings: &mut Vec<Finding>) {
    let key = |name: &str| format!("{table}.{name}");
    let secret = issuer.hs_secret.expose();
    if secret.is_empty() {
        if let Some(algorithm) = symmetric.first() {
            let title =
                format!("`{table}.algorithms` has {algorithm}, and `{table}.hs_secret` is missing");
            findings.push(
                Finding::said(&key("algorithms"), title)
                    .with_label("needs a secret")
                    .with_hint("set `hs_secret` or `hs_secret_file`"),
            );
        }
        return;
    }
    if symmetric.is_empty() {
        let title = format!(
            "`{table}.hs_secret` is set, and `{table}.algorithms` has none that uses a secret"
        );
        findings.push(
            Finding::said(&key("hs_secret"), title)
                .with_hint("set `algorithms` to HS256, HS384 or HS512, or remove the secret"),
        );
    }
    for algorithm in symmetric {
        let needed = algorithm.min_secret_bytes().unwrap_or_default();
        if secret.len() < needed {
            let title = format!("`{table}.hs_secret` is too short for {algorithm}");
            findings.push(
                Finding::said(&key("hs_secret"), title)
                    .with_label(format!("expected at least {needed} bytes"))
                    .with_hint("a shorter one can be guessed (RFC 7518 §3.2)"),
            );
        }
    }
    // Whoever has the public key could make tokens.
    if secret.contains("-----BEGIN") {
        findings.push(
            Finding::said(
                &key("hs_secret"),
                format!("`{table}.hs_secret` is a PEM text, which is no secret"),
            )
            .with_hint("give public keys as `public_key_file`"),
        );
    }
    let others = [
        ("jwks_url", issuer.jwks_url.is_some()),
        (
            "public_key_file",
            !issuer.public_key_file.as_os_str().is_empty(),
        ),
    ];
    for (other, _) in others.into_iter().filter(|(_, is_set)| *is_set) {
        let title = format!("`{table}.hs_secret` and `{table}.{other}` are both set");
        findings.push(Finding::said(&key(other), title).with_label("expected one of the two"));
    }
}
