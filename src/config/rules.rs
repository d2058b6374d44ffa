//! What must hold beyond the type of a value: ranges, pairs, names that must differ.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::diagnostic::Finding;
use super::{
    Access, ByteSize, Config, Cors, CredentialsMode, Engine, HttpUrl, Initiator, RateLimit,
    RateLimitBy, RateLimitCounts, Rule, Server, Telemetry,
};
use crate::access::{Builtin, ObjectTypes};
use crate::engine::nodes::MAX_NODES;
use crate::layer::retry::MAX_FLOOR;
use crate::operation::Catalogue;
use crate::rate_limit::RateLimitError;
use crate::server::tls::{self, TlsFileError};

mod issuers;

/// Finds every rule that the configuration breaks, and what it should be warned of.
pub(super) fn findings(config: &Config, is_set: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    server(&config.server, &mut findings);
    admin(config, &mut findings);
    engine(&config.engine, &mut findings);
    prefixes(config, &mut findings);
    issuers::issuers(config, is_set, &mut findings);
    findings.extend(within(
        "token_cache.entries",
        config.token_cache.entries,
        0,
        1_000_000,
    ));
    rate_limits(&config.rate_limits, &mut findings);
    initiator(&config.initiator, &mut findings);
    access(&config.access, &mut findings);
    roles_of_any_issuer(config, &mut findings);
    cors(&config.cors, &mut findings);
    telemetry(&config.telemetry, &mut findings);
    findings
}

fn server(server: &Server, findings: &mut Vec<Finding>) {
    let limits = &server.limits;
    findings.extend(within("server.workers", server.workers, 0, 1024));
    findings.extend(within(
        "server.limits.connections",
        limits.connections,
        1,
        usize::MAX,
    ));
    findings.extend(within("server.limits.headers", limits.headers, 1, 4096));
    findings.extend(within(
        "server.limits.requests_in_flight",
        limits.requests_in_flight,
        1,
        usize::MAX,
    ));
    findings.extend(within(
        "server.limits.requests_in_flight_per_caller",
        limits.requests_in_flight_per_caller,
        1,
        usize::MAX,
    ));
    for (key, number) in [
        ("long_polls", limits.long_polls),
        ("long_polls_per_caller", limits.long_polls_per_caller),
    ] {
        let key = format!("server.limits.{key}");
        findings.extend(within(&key, number, 1, usize::MAX));
    }
    // hyper reads headers into a buffer of at least 8 KiB.
    findings.extend(size(
        "server.limits.header_bytes",
        limits.header_bytes,
        ByteSize::from_kib(8),
        ByteSize::from_mib(1),
    ));
    findings.extend(size(
        "server.limits.rewritten_body",
        limits.rewritten_body,
        ByteSize::from_bytes(1),
        ByteSize::from_mib(1024),
    ));
    findings.extend(lasting(
        "server.limits.header_read_timeout",
        limits.header_read_timeout,
    ));
    findings.extend(lasting(
        "server.limits.body_idle_timeout",
        limits.body_idle_timeout,
    ));
    findings.extend(lasting(
        "server.limits.idle_connection",
        limits.idle_connection,
    ));
    if let Some(url) = &server.public_url {
        findings.extend(without_query("server.public_url", url));
    }
    if let Some(tls) = &server.tls {
        let before = findings.len();
        for (key, path) in [
            ("certificate_file", &tls.certificate_file),
            ("private_key_file", &tls.private_key_file),
        ] {
            if path.as_os_str().is_empty() {
                findings.push(Finding::expected(
                    &format!("server.tls.{key}"),
                    "",
                    "the path of a PEM file",
                ));
            }
        }
        if findings.len() == before {
            findings.extend(tls::server_config(tls).err().map(unusable));
        }
    }
}

fn admin(config: &Config, findings: &mut Vec<Finding>) {
    let Some(listen) = config.admin.listen else {
        return;
    };
    let key = "admin.listen";
    let public = config.server.listen;
    let is_taken = covers(public.ip(), listen.ip()) || covers(listen.ip(), public.ip());
    if listen.port() != 0 && listen.port() == public.port() && is_taken {
        let expected = format!("another address or port than `server.listen` ({public})");
        findings.push(Finding::expected(key, &listen.to_string(), expected));
    } else if is_public(listen.ip()) {
        let title = format!(
            "`{key}` is {listen}: whoever reaches that needs no token to read the metrics and the configuration"
        );
        findings.push(Finding::warning(key, title).with_hint(
            "listen on 127.0.0.1 or in a private network, or let a firewall or network policy admit the monitoring alone",
        ));
    }
}

/// Whether who listens on the one address has the other too; `[::]` has those of IPv4 as well.
fn covers(one: IpAddr, other: IpAddr) -> bool {
    match one {
        IpAddr::V4(all) if all.is_unspecified() => other.is_ipv4(),
        IpAddr::V6(all) if all.is_unspecified() => true,
        IpAddr::V4(_) | IpAddr::V6(_) => one == other,
    }
}

/// Whether others than those of this machine or of a private network may reach it.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

/// A file that TLS cannot stand on.
fn unusable(error: TlsFileError) -> Finding {
    Finding::said(error.key, error.to_string()).with_label(error.problem)
}

fn engine(engine: &Engine, findings: &mut Vec<Finding>) {
    findings.extend(without_query("engine.url", &engine.url));
    if engine.nodes.is_empty() {
        findings.extend(in_plain_text(
            "engine.url",
            &engine.url,
            "the engine's credentials",
        ));
    }
    let path = engine.url.base_path();
    if path
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        findings.push(Finding::expected(
            "engine.url",
            engine.url.as_str(),
            "a path without empty segments, `.` or `..`",
        ));
    }
    for (index, node) in engine.nodes.iter().enumerate() {
        let key = format!("engine.nodes.{index}");
        if !node.base_path().is_empty() || node.query().is_some() {
            findings.push(Finding::expected(
                &key,
                node.as_str(),
                "a URL without path and query",
            ));
        }
        findings.extend(in_plain_text(&key, node, "the engine's credentials"));
        // Else two of them would be one in metrics and status.
        if engine
            .nodes
            .iter()
            .take(index)
            .any(|other| same_place(other, node))
        {
            let said = format!("`{key}` is {node}, which is there already");
            findings.push(Finding::said(&key, said));
        }
    }
    findings.extend(within("engine.nodes", engine.nodes.len(), 0, MAX_NODES));
    let has = |path: &Path| !path.as_os_str().is_empty();
    match (has(&engine.certificate_file), has(&engine.private_key_file)) {
        (false, false) => {}
        (true, true) => findings.extend(tls::engine_identity(engine).err().map(unusable)),
        (certificate, _) => {
            let (key, other) = if certificate {
                ("engine.certificate_file", "engine.private_key_file")
            } else {
                ("engine.private_key_file", "engine.certificate_file")
            };
            findings.push(Finding::said(
                key,
                format!("`{key}` needs `{other}` beside it"),
            ));
        }
    }
    let credentials = &engine.credentials;
    if credentials.mode == CredentialsMode::Basic {
        let username = &credentials.username;
        if username.is_empty() || username.contains(|c: char| c == ':' || c.is_control()) {
            let expected = "a name without `:` and control characters (RFC 7617 §2)";
            findings.push(Finding::expected(
                "engine.credentials.username",
                username,
                expected,
            ));
        }
        if credentials.password.expose().contains(char::is_control) {
            let expected = "a password without control characters (RFC 7617 §2)";
            findings.push(Finding::expected(
                "engine.credentials.password",
                "",
                expected,
            ));
        }
    }
    findings.extend(lasting("engine.timeouts.connect", engine.timeouts.connect));
    findings.extend(lasting(
        "engine.timeouts.response",
        engine.timeouts.response,
    ));
    findings.extend(lasting(
        "engine.timeouts.idle_connection",
        engine.timeouts.idle_connection,
    ));
    findings.extend(lasting(
        "engine.timeouts.connection_age",
        engine.timeouts.connection_age,
    ));
    findings.extend(lasting("engine.health.timeout", engine.health.timeout));
    findings.extend(lasting("engine.breaker.pause", engine.breaker.pause));
    findings.extend(within(
        "engine.retry.attempts",
        engine.retry.attempts as usize,
        0,
        10,
    ));
    findings.extend(within(
        "engine.retry.budget_percent",
        engine.retry.budget_percent.into(),
        0,
        100,
    ));
    findings.extend(within(
        "engine.retry.budget_floor",
        engine.retry.budget_floor as usize,
        0,
        MAX_FLOOR as usize,
    ));
}

fn same_place(one: &HttpUrl, other: &HttpUrl) -> bool {
    one.host().eq_ignore_ascii_case(other.host()) && one.port() == other.port()
}

fn prefixes(config: &Config, findings: &mut Vec<Finding>) {
    let prefixes = &config.routes.prefixes;
    if prefixes.is_empty() {
        let finding = Finding::said(
            "routes.prefixes",
            "`routes.prefixes` is empty, so no request would reach the engine",
        );
        findings.push(
            finding
                .with_label("expected at least one")
                .with_hint("leave it out for `[\"/api\", \"/engine-rest\"]`"),
        );
    }
    let api = &config.workflow_api;
    if api.enabled && !prefixes.is_empty() && !prefixes.contains(&api.prefix) {
        let finding = Finding::warning(
            "workflow_api.prefix",
            format!(
                "the workflow API is not served: `{}` is none of `routes.prefixes`",
                api.prefix
            ),
        );
        findings.push(finding.with_hint("set `workflow_api.enabled = false` if it is not wanted"));
    }
    for (index, prefix) in prefixes.iter().enumerate() {
        let others = prefixes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        // Of two that are the same only the second is said to be wrong.
        let covering = |(other, outer): &(usize, &super::Prefix)| {
            outer.covers(prefix.as_str()) && (*outer != prefix || *other < index)
        };
        if let Some((_, outer)) = others.into_iter().find(covering) {
            let key = format!("routes.prefixes.{index}");
            findings.push(Finding::expected(
                &key,
                prefix.as_str(),
                format!("a path apart from the prefix `{outer}`"),
            ));
        }
    }
}

fn rate_limits(limits: &[RateLimit], findings: &mut Vec<Finding>) {
    for (index, limit) in limits.iter().enumerate() {
        let key = |name: &str| format!("rate_limits.{index}.{name}");
        let before = findings.len();
        if limits
            .iter()
            .take(index)
            .any(|other| other.name == limit.name)
        {
            let expected = "another name for each limit";
            findings.push(Finding::expected(&key("name"), &limit.name, expected));
        }
        if (limit.by == RateLimitBy::Claim) == limit.claim.is_empty() {
            let expected = match limit.by {
                RateLimitBy::Claim => "the name of a claim, as `by` is \"claim\"",
                RateLimitBy::Subject | RateLimitBy::Issuer | RateLimitBy::Client => {
                    "none, unless `by` is \"claim\""
                }
            };
            findings.push(Finding::expected(&key("claim"), &limit.claim, expected));
        }
        if limit.counts == RateLimitCounts::NewTokens
            && !(limit.by == RateLimitBy::Client && limit.operations.is_empty())
        {
            let expected = "\"requests\", unless `by` is \"client\" and there are no `operations`";
            findings.push(Finding::expected(&key("counts"), "new_tokens", expected));
        }
        for (place, name) in limit.operations.iter().enumerate() {
            let key = key(&format!("operations.{place}"));
            let mut rows = Catalogue::builtin().operations().iter();
            if !rows.any(|row| row.kind.as_str() == name) {
                findings.extend(no_operation(&key, name));
            }
        }
        let requests = usize::try_from(limit.requests).unwrap_or(usize::MAX);
        findings.extend(within(&key("requests"), requests, 1, usize::MAX));
        findings.extend(lasting(&key("per"), limit.per));
        let keys = usize::try_from(limit.keys).unwrap_or(usize::MAX);
        findings.extend(within(&key("keys"), keys, 1, 10_000_000));
        if findings.len() == before
            && let Err(error) = limit.limit()
        {
            let at = match &error {
                RateLimitError::Name(_) => "name",
                RateLimitError::Quota { .. } => "per",
                RateLimitError::UnknownOperation(_) => "operations",
                RateLimitError::NewTokensOfOperations => "counts",
            };
            let title = format!("`{}` cannot be: {error}", key(at));
            findings.push(Finding::said(&key(at), title));
        }
    }
}

fn initiator(initiator: &Initiator, findings: &mut Vec<Finding>) {
    let names = [
        ("id", &initiator.id),
        ("email", &initiator.email),
        ("name", &initiator.name),
    ];
    for (index, (field, name)) in names.iter().enumerate() {
        let key = format!("initiator.{field}");
        findings.extend(variable_name(&key, name));
        if let Some((other, _)) = names.iter().take(index).find(|(_, other)| other == name) {
            findings.push(Finding::expected(
                &key,
                name,
                format!("another name than `initiator.{other}`"),
            ));
        }
    }
    for (index, name) in initiator.model_names.iter().enumerate() {
        findings.extend(variable_name(
            &format!("initiator.model_names.{index}"),
            name,
        ));
    }
}

fn access(access: &Access, findings: &mut Vec<Finding>) {
    for (index, name) in access.object_types.iter().enumerate() {
        if !ObjectTypes::is_name(name) {
            findings.push(Finding::expected(
                &format!("access.object_types.{index}"),
                name,
                "a class's whole name, or a package with `.*` behind it",
            ));
        }
    }
    let exists = |name: &str| built_in(name).is_some() || access.profiles.contains_key(name);
    if !exists(&access.default) {
        findings.push(no_profile("access.default", &access.default, access));
    }
    for (index, rule) in access.rules.iter().enumerate() {
        let table = format!("access.rules.{index}");
        if !exists(&rule.profile) {
            findings.push(no_profile(
                &format!("{table}.profile"),
                &rule.profile,
                access,
            ));
        }
        findings.extend(when(&table, rule));
    }
    for (name, profile) in &access.profiles {
        let table = format!("access.profiles.{name}");
        if built_in(name).is_some() {
            findings.push(
                Finding::said(&table, format!("`{name}` is a built-in profile"))
                    .with_label("expected a name of your own"),
            );
        }
        if let Some(base) = &profile.extends {
            let key = format!("{table}.extends");
            let next = |profile: &&String| access.profiles.get(*profile)?.extends.as_ref();
            // A chain without a circle ends after as many steps as there are profiles.
            let mut bases = std::iter::successors(Some(base), next).skip(access.profiles.len());
            if !exists(base) {
                findings.push(no_profile(&key, base, access));
            } else if bases.next().is_some() {
                let expected = "a profile that does not lead back to this one";
                findings.push(Finding::expected(&key, base, expected));
            }
        }
        for (list, names) in [("allow", &profile.allow), ("deny", &profile.deny)] {
            let key = format!("{table}.{list}");
            findings.extend(names.iter().filter_map(|name| no_operation(&key, name)));
        }
    }
}

/// A name that is neither an operation's id nor a group of the catalogue.
fn no_operation(key: &str, name: &str) -> Option<Finding> {
    let rows = Catalogue::builtin().operations().iter();
    let known = || rows.clone().flat_map(|row| [row.id, row.group]);
    if known().any(|known| known == name) {
        return None;
    }
    let finding = Finding::expected(
        key,
        name,
        "the id of an operation or a group of the catalogue",
    );
    Some(match super::diagnostic::nearest(name, known()) {
        Some(nearest) => finding.with_hint(format!("did you mean `{nearest}`?")),
        None => finding.with_hint("docs/access.md lists them all"),
    })
}

fn when(table: &str, rule: &Rule) -> Option<Finding> {
    let when = &rule.when;
    let members = [
        &when.role,
        &when.claim,
        &when.value,
        &when.issuer,
        &when.subject,
    ];
    let key = format!("{table}.when");
    if members.iter().all(|member| member.is_none()) {
        let title = format!("`{key}` is empty, so the rule would mean everybody");
        return Some(Finding::said(&key, title).with_hint("say it with `access.default`"));
    }
    if members
        .iter()
        .any(|member| member.as_ref().is_some_and(String::is_empty))
    {
        return Some(Finding::said(&key, format!("`{key}` has an empty member")));
    }
    if when.claim.is_some() != when.value.is_some() {
        return Some(
            Finding::said(&key, format!("`{key}` has one of `claim` and `value`"))
                .with_label("expected both"),
        );
    }
    None
}

/// With several issuers a role may come from any of them.
fn roles_of_any_issuer(config: &Config, findings: &mut Vec<Finding>) {
    if config.issuers.len() < 2 {
        return;
    }
    for (index, rule) in config.access.rules.iter().enumerate() {
        if let (Some(role), None) = (&rule.when.role, &rule.when.issuer) {
            let key = format!("access.rules.{index}.when");
            let title = format!(
                "`{key}` names the role {role:?} and no issuer: each of the issuers can give it"
            );
            findings.push(
                Finding::warning(&key, title).with_hint("name the `issuer` whose role is meant"),
            );
        }
    }
}

fn no_profile(key: &str, name: &str, access: &Access) -> Finding {
    let built_in = Builtin::ALL.map(Builtin::as_str);
    let known = built_in
        .into_iter()
        .chain(access.profiles.keys().map(String::as_str));
    let nearest = super::diagnostic::nearest(name, known);
    let finding = Finding::expected(
        key,
        name,
        format!(
            "one of {}, or one of `access.profiles`",
            built_in.join(", ")
        ),
    );
    match nearest {
        Some(profile) => finding.with_hint(format!("did you mean `{profile}`?")),
        None => finding,
    }
}

fn cors(cors: &Cors, findings: &mut Vec<Finding>) {
    for (index, origin) in cors.origins.iter().enumerate() {
        let key = format!("cors.origins.{index}");
        if origin == "*" {
            if cors.origins.len() > 1 {
                let expected = "the origins by name, or `[\"*\"]` alone";
                findings.push(Finding::expected(&key, origin, expected));
            } else if cors.credentials {
                // A browser refuses `*` together with credentials (Fetch §3.3.5), so each origin is named.
                let title = "`cors.origins` is `[\"*\"]` with `cors.credentials = true`: every web page may call the gateway with its user's cookies and certificates";
                findings.push(
                    Finding::warning(&key, title)
                        .with_hint("name the origins, or set `cors.credentials = false`"),
                );
            }
            continue;
        }
        match serialized_origin(origin) {
            Some(right) if right == *origin => {}
            Some(right) => findings.push(Finding::expected(
                &key,
                origin,
                format!("it as a browser writes it: {right:?}"),
            )),
            None => findings.push(Finding::expected(
                &key,
                origin,
                "an origin such as \"https://app.example.com\"",
            )),
        }
    }
}

/// An origin as browsers send it (RFC 6454 §6.2): lower case, without the scheme's own port, without a path.
fn serialized_origin(text: &str) -> Option<String> {
    let url: HttpUrl = text.parse().ok()?;
    if !url.base_path().is_empty() || url.query().is_some() {
        return None;
    }
    let scheme = if url.is_https() { "https" } else { "http" };
    let host = url.host().to_ascii_lowercase();
    let port = match (url.is_https(), url.port()) {
        (true, 443) | (false, 80) => String::new(),
        (_, port) => format!(":{port}"),
    };
    Some(format!("{scheme}://{host}{port}"))
}

fn telemetry(telemetry: &Telemetry, findings: &mut Vec<Finding>) {
    if let Some(url) = &telemetry.otlp_endpoint {
        let key = "telemetry.otlp_endpoint";
        findings.extend(without_query(key, url));
        findings.extend(in_plain_text(key, url, "what the spans say"));
    }
    if !(0.0..=1.0).contains(&telemetry.trace_sampling) {
        let what = super::diagnostic::What::Expected {
            found: telemetry.trace_sampling.to_string(),
            expected: "a number from 0 to 1".to_owned(),
        };
        findings.push(Finding::error("telemetry.trace_sampling", what));
    }
    findings.extend(within(
        "telemetry.trace_queue",
        telemetry.trace_queue,
        1,
        1_000_000,
    ));
}

fn within(key: &str, number: usize, least: usize, greatest: usize) -> Option<Finding> {
    let expected = match greatest {
        usize::MAX => format!("at least {least}"),
        greatest => format!("a number from {least} to {greatest}"),
    };
    let what = super::diagnostic::What::Expected {
        found: number.to_string(),
        expected,
    };
    (number < least || number > greatest).then(|| Finding::error(key, what))
}

fn size(key: &str, size: ByteSize, least: ByteSize, greatest: ByteSize) -> Option<Finding> {
    let outside = size < least || size > greatest;
    outside.then(|| {
        Finding::expected(
            key,
            &size.to_string(),
            format!("a size from \"{least}\" to \"{greatest}\""),
        )
    })
}

fn lasting(key: &str, duration: Duration) -> Option<Finding> {
    duration
        .is_zero()
        .then(|| Finding::expected(key, "0", "more than zero"))
}

fn without_query(key: &str, url: &HttpUrl) -> Option<Finding> {
    url.query()
        .map(|_| Finding::expected(key, url.as_str(), "a URL without a query"))
}

fn in_plain_text(key: &str, url: &HttpUrl, what: &str) -> Option<Finding> {
    let seen = !url.is_https() && !url.is_loopback();
    let title = format!("`{key}` is an http:// URL: {what} can be read and changed on the way");
    seen.then(|| {
        Finding::warning(key, title).with_hint("use https:// unless the network between is trusted")
    })
}

fn no_empty_text(key: &str, list: &[String]) -> Vec<Finding> {
    let empty = list.iter().enumerate().filter(|(_, text)| text.is_empty());
    empty
        .map(|(index, _)| {
            Finding::expected(&format!("{key}.{index}"), "", "a text that is not empty")
        })
        .collect()
}

/// `ACT_RU_VARIABLE.NAME_` holds 255 characters.
fn variable_name(key: &str, name: &str) -> Option<Finding> {
    let good =
        !name.is_empty() && name.chars().count() <= 255 && !name.chars().any(char::is_control);
    (!good).then(|| {
        Finding::expected(
            key,
            name,
            "from 1 to 255 characters, none of them a control character",
        )
    })
}

fn built_in(name: &str) -> Option<Builtin> {
    Builtin::ALL
        .into_iter()
        .find(|profile| profile.as_str() == name)
}
