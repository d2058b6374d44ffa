use super::*;
use crate::config::{Algorithm, CredentialsMode, LogLevel, Preset};

const ISSUER: &str = "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://clerk.example.com\"\nauthorized_parties = [\"https://app.example.com\"]\n";

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Loads a file's text with the issuer that every configuration needs.
fn with_issuer(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    parse(
        "config.toml",
        &format!("{text}\n{ISSUER}"),
        variables(environment),
    )
}

/// The titles of what is said about a configuration: errors if there are any, else warnings.
fn said(loaded: &Result<Loaded, ConfigError>) -> Vec<String> {
    let diagnostics = match loaded {
        Ok(loaded) => &loaded.warnings[..],
        Err(error) => error.diagnostics(),
    };
    diagnostics
        .iter()
        .map(|diagnostic| {
            let level = match diagnostic.severity() {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            format!("{level}: {}", diagnostic.title())
        })
        .collect()
}

/// Each row: a file's text, and what is said about it (nothing: it loads without a warning).
fn check_rows(rows: &[(&str, &[&str])]) {
    for (text, expected) in rows {
        assert_eq!(said(&with_issuer(text, &[])), *expected, "{text}");
    }
}

#[test]
fn the_defaults_need_an_issuer_and_nothing_else() {
    let loaded = with_issuer("", &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.issuers.len(), 1);

    let error = parse("", "", []).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: no issuer is configured, so no token could be accepted\n\
         hint: add `[[issuers]]` with `issuer = \"https://...\"`, or set BPMGATE__ISSUERS__0__ISSUER (for Clerk, CLERK_JWKS_URL is enough)"
    );
}

#[test]
fn numbers_and_sizes_keep_their_ranges() {
    check_rows(&[
        ("server.workers = 1024", &[]),
        (
            "server.workers = 1025",
            &["error: `server.workers` is 1025"],
        ),
        ("server.workers = -1", &["error: `server.workers` is -1"]),
        (
            "server.workers = \"4\"",
            &["error: `server.workers` is \"4\""],
        ),
        ("server.workers = 4.0", &["error: `server.workers` is 4.0"]),
        ("engine.retry.budget_percent = 100", &[]),
        (
            "engine.retry.budget_percent = 101",
            &["error: `engine.retry.budget_percent` is 101"],
        ),
        ("engine.retry.budget_floor = 1000000", &[]),
        (
            "engine.retry.budget_floor = 1000001",
            &["error: `engine.retry.budget_floor` is 1000001"],
        ),
        ("engine.health.interval = \"0s\"", &[]),
        ("server.limits.connections = 1", &[]),
        (
            "server.limits.connections = 0",
            &["error: `server.limits.connections` is 0"],
        ),
        ("server.limits.headers = 4096", &[]),
        (
            "server.limits.headers = 4097",
            &["error: `server.limits.headers` is 4097"],
        ),
        (
            "server.limits.headers = 0",
            &["error: `server.limits.headers` is 0"],
        ),
        ("server.limits.requests_in_flight = 1", &[]),
        (
            "server.limits.requests_in_flight = 0",
            &["error: `server.limits.requests_in_flight` is 0"],
        ),
        ("server.limits.header_bytes = \"8KiB\"", &[]),
        (
            "server.limits.header_bytes = \"8191B\"",
            &["error: `server.limits.header_bytes` is \"8191B\""],
        ),
        ("server.limits.header_bytes = \"1MiB\"", &[]),
        (
            "server.limits.header_bytes = \"1025KiB\"",
            &["error: `server.limits.header_bytes` is \"1025KiB\""],
        ),
        ("server.limits.request_body = 0", &[]),
        ("server.limits.request_body = \"0B\"", &[]),
        (
            "server.limits.request_body = 1024",
            &["error: `server.limits.request_body` is 1024"],
        ),
        ("server.limits.rewritten_body = \"1B\"", &[]),
        (
            "server.limits.rewritten_body = \"0B\"",
            &["error: `server.limits.rewritten_body` is \"0\""],
        ),
        ("server.limits.rewritten_body = \"1GiB\"", &[]),
        (
            "server.limits.rewritten_body = \"1025MiB\"",
            &["error: `server.limits.rewritten_body` is \"1025MiB\""],
        ),
        ("engine.retry.attempts = 0", &[]),
        ("engine.retry.attempts = 10", &[]),
        (
            "engine.retry.attempts = 11",
            &["error: `engine.retry.attempts` is 11"],
        ),
        (
            "engine.retry.attempts = 4294967296",
            &["error: `engine.retry.attempts` is 4294967296"],
        ),
        (
            "engine.retry.attempts = 99999999999999999999",
            &["error: `engine.retry.attempts` is 99999999999999999999"],
        ),
    ]);
}

#[test]
fn times_that_would_end_at_once_are_refused() {
    check_rows(&[
        ("server.shutdown_grace = \"0s\"", &[]),
        ("engine.retry.backoff = 0", &[]),
        ("engine.timeouts.response = \"1ms\"", &[]),
        (
            "engine.timeouts.response = \"0s\"",
            &["error: `engine.timeouts.response` is \"0\""],
        ),
        (
            "engine.timeouts.connect = \"0s\"",
            &["error: `engine.timeouts.connect` is \"0\""],
        ),
        (
            "engine.timeouts.idle_connection = \"0s\"",
            &["error: `engine.timeouts.idle_connection` is \"0\""],
        ),
        (
            "server.limits.header_read_timeout = \"0s\"",
            &["error: `server.limits.header_read_timeout` is \"0\""],
        ),
        (
            "server.limits.body_idle_timeout = \"0s\"",
            &["error: `server.limits.body_idle_timeout` is \"0\""],
        ),
        (
            "server.limits.idle_connection = \"0s\"",
            &["error: `server.limits.idle_connection` is \"0\""],
        ),
        (
            "engine.timeouts.response = 30",
            &["error: `engine.timeouts.response` is 30"],
        ),
        (
            "engine.timeouts.response = \"30 s\"",
            &["error: `engine.timeouts.response` is \"30 s\""],
        ),
    ]);
}

#[test]
fn addresses_are_parsed() {
    check_rows(&[
        ("server.listen = \"[::]:0\"", &[]),
        (
            "server.listen = \"localhost:8000\"",
            &["error: `server.listen` is \"localhost:8000\""],
        ),
        ("server.listen = \"\"", &["error: `server.listen` is \"\""]),
        ("admin.listen = \"\"", &[]),
        (
            "admin.listen = \"9000\"",
            &["error: `admin.listen` is \"9000\""],
        ),
        ("server.trusted_proxies = [\"10.0.0.0/8\", \"::1\"]", &[]),
        (
            "server.trusted_proxies = [\"10.0.0.0/33\", \"::1\", 5]",
            &[
                "error: `server.trusted_proxies.0` is \"10.0.0.0/33\"",
                "error: `server.trusted_proxies.2` is 5",
            ],
        ),
    ]);
}

#[test]
fn urls_are_absolute_and_plain_http_is_warned_of() {
    check_rows(&[
        (
            "engine.url = \"https://engine.example.com/engine-rest/\"",
            &[],
        ),
        ("engine.url = \"http://127.0.0.1:8080\"", &[]),
        (
            "engine.url = \"http://engine:8080/engine-rest\"",
            &[
                "warning: `engine.url` is an http:// URL: the engine's credentials can be read and changed on the way",
            ],
        ),
        (
            "engine.url = \"engine:8080\"",
            &["error: `engine.url` is \"engine:8080\""],
        ),
        (
            "engine.url = \"https://engine/rest?x\"",
            &["error: `engine.url` is \"https://engine/rest?x\""],
        ),
        (
            "engine.url = \"https://engine/rest#x\"",
            &["error: `engine.url` is \"https://engine/rest#x\""],
        ),
        (
            "engine.url = \"https://engine/a/../b\"",
            &["error: `engine.url` is \"https://engine/a/../b\""],
        ),
        (
            "engine.url = \"https://engine//rest\"",
            &["error: `engine.url` is \"https://engine//rest\""],
        ),
        (
            "engine.url = \"https://demo:demo@engine/\"",
            &["error: `engine.url` is \"https://***@engine/\""],
        ),
        ("server.public_url = \"https://bpm.example.com/x\"", &[]),
        (
            "server.public_url = \"bpm.example.com\"",
            &["error: `server.public_url` is \"bpm.example.com\""],
        ),
    ]);
}

#[test]
fn prefixes_are_normal_paths_apart_from_each_other() {
    check_rows(&[
        ("routes.prefixes = [\"/api\"]", &[]),
        ("routes.prefixes = [\"/api\", \"/apis\"]", &[]),
        (
            "routes.prefixes = []",
            &["error: `routes.prefixes` is empty, so no request would reach the engine"],
        ),
        (
            "routes.prefixes = [\"/\"]",
            &["error: `routes.prefixes.0` is \"/\""],
        ),
        (
            "routes.prefixes = [\"/api/\"]",
            &["error: `routes.prefixes.0` is \"/api/\""],
        ),
        (
            "routes.prefixes = [\"/docs/api\"]",
            &["error: `routes.prefixes.0` is \"/docs/api\""],
        ),
        (
            "routes.prefixes = [\"/api\", \"/api\"]",
            &["error: `routes.prefixes.1` is \"/api\""],
        ),
        (
            "routes.prefixes = [\"/api/v1\", \"/api\"]",
            &["error: `routes.prefixes.0` is \"/api/v1\""],
        ),
    ]);
}

#[test]
fn engine_credentials_fit_basic_authentication() {
    check_rows(&[
        ("engine.credentials.mode = \"none\"", &[]),
        (
            "engine.credentials.username = \"a:b\"",
            &["error: `engine.credentials.username` is \"a:b\""],
        ),
        (
            "engine.credentials.username = \"\"",
            &["error: `engine.credentials.username` is \"\""],
        ),
        ("engine.credentials.password = \"a:b\"", &[]),
        (
            "engine.credentials.password = \"a\\nb\"",
            &["error: `engine.credentials.password` is ***"],
        ),
        (
            "engine.credentials = { mode = \"none\", username = \"\" }",
            &[],
        ),
    ]);
}

#[test]
fn initiator_names_are_three_different_variables() {
    let long = "x".repeat(255);
    let longer = format!("initiator.id = \"{long}x\"");
    let rows: [(&str, bool); 7] = [
        (&format!("initiator.id = \"{long}\""), true),
        (&longer, false),
        ("initiator.id = \"\"", false),
        ("initiator.id = \"a\\u0007\"", false),
        ("initiator.id = \"initiatorName\"", false),
        ("initiator.missing = \"reject\"", true),
        ("initiator.missing = \"Reject\"", false),
    ];
    for (text, good) in rows {
        assert_eq!(with_issuer(text, &[]).is_ok(), good, "{text}");
    }
}

#[test]
fn a_rate_limit_is_named_once_and_counts_what_can_be_counted() {
    let limit = |rest: &str| {
        format!(
            "[[rate_limits]]\nname = \"a\"\nby = \"subject\"\nrequests = 1\nper = \"1s\"\n{rest}"
        )
    };
    let client = |rest: &str| limit(rest).replace("subject", "client");
    let claim = |rest: &str| limit(rest).replace("subject", "claim");
    for (text, wrong) in [
        (limit(""), &[][..]),
        (
            limit("operations = [\"start\", \"Task\", \"fetchAndLock\"]"),
            &[],
        ),
        (claim("claim = \"org.id\""), &[]),
        (client("counts = \"new_tokens\""), &[]),
        (
            limit("") + &limit(""),
            &["error: `rate_limits.1.name` is \"a\""],
        ),
        (claim(""), &["error: `rate_limits.0.claim` is \"\""]),
        (
            limit("claim = \"x\""),
            &["error: `rate_limits.0.claim` is \"x\""],
        ),
        (
            limit("operations = [\"starts\"]"),
            &["error: `rate_limits.0.operations.0` is \"starts\""],
        ),
        (
            limit("counts = \"new_tokens\""),
            &["error: `rate_limits.0.counts` is \"new_tokens\""],
        ),
        (
            client("counts = \"new_tokens\"\noperations = [\"read\"]"),
            &["error: `rate_limits.0.counts` is \"new_tokens\""],
        ),
        (limit("keys = 0"), &["error: `rate_limits.0.keys` is 0"]),
        (
            limit("").replace("requests = 1", "requests = 0"),
            &["error: `rate_limits.0.requests` is 0"],
        ),
        (
            limit("").replace("\"1s\"", "\"0s\""),
            &["error: `rate_limits.0.per` is \"0\""],
        ),
        (
            limit("burst = 4000000000"),
            &["error: `rate_limits.0.per` cannot be:"],
        ),
        (
            limit("").replace("\"a\"", "\"a b\""),
            &["error: `rate_limits.0.name` cannot be:"],
        ),
        (
            limit("").replace("name = \"a\"\n", ""),
            &["error: `rate_limits.0.name` is missing"],
        ),
        (
            limit("").replace("\"subject\"", "\"user\""),
            &["error: `rate_limits.0.by` is \"user\""],
        ),
    ] {
        let said = said(&with_issuer(&text, &[]));
        let agrees = |(said, wanted): (&String, &&str)| said.starts_with(wanted);
        assert!(
            said.len() == wrong.len() && said.iter().zip(wrong).all(agrees),
            "{text}: {said:?}"
        );
    }
}

#[test]
fn what_the_guide_to_limits_shows_can_be_used() {
    let guide = include_str!("../../../docs/limits.md");
    let blocks = guide.split("```toml\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|block| block.split_once("```")).collect();
    assert_eq!(blocks.len(), 2);
    for (block, _) in blocks {
        check_rows(&[(block, &[])]);
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    check_rows(&[
        ("cors.origins = []", &[]),
        (
            "cors.origins = [\"https://app.example.com\", \"http://[::1]:3000\"]",
            &[],
        ),
        (
            "cors.origins = [\"https://app.example.com/\"]",
            &["error: `cors.origins.0` is \"https://app.example.com/\""],
        ),
        (
            "cors.origins = [\"https://app.example.com/x\"]",
            &["error: `cors.origins.0` is \"https://app.example.com/x\""],
        ),
        (
            "cors.origins = [\"https://App.example.com\"]",
            &["error: `cors.origins.0` is \"https://App.example.com\""],
        ),
        (
            "cors.origins = [\"https://app.example.com:443\"]",
            &["error: `cors.origins.0` is \"https://app.example.com:443\""],
        ),
        (
            "cors.origins = [\"null\"]",
            &["error: `cors.origins.0` is \"null\""],
        ),
        (
            "cors.origins = [\"*\"]",
            &[
                "warning: `cors.origins` is `[\"*\"]` with `cors.credentials = true`: every web page may call the gateway with its user's cookies and certificates",
            ],
        ),
        ("cors = { origins = [\"*\"], credentials = false }", &[]),
        (
            "cors = { origins = [\"*\", \"https://a.b\"], credentials = false }",
            &["error: `cors.origins.0` is \"*\""],
        ),
    ]);
}

#[test]
fn nodes_are_places_that_differ() {
    check_rows(&[
        ("engine.nodes = []", &[]),
        (
            "engine.nodes = [\"http://localhost:1\", \"http://localhost:2\"]",
            &[],
        ),
        ("engine.nodes = [\"http://localhost:1/\"]", &[]),
        (
            "engine.nodes = [\"http://localhost:1/engine-rest\"]",
            &["error: `engine.nodes.0` is \"http://localhost:1/engine-rest\""],
        ),
        (
            "engine.nodes = [\"http://localhost:80\", \"http://LOCALHOST\"]",
            &["error: `engine.nodes.1` is http://LOCALHOST, which is there already"],
        ),
        (
            "engine = { url = \"http://unused.example/x\", nodes = [\"http://engine.example\"] }",
            &[
                "warning: `engine.nodes.0` is an http:// URL: the engine's credentials can be read and changed on the way",
            ],
        ),
    ]);
    let many: Vec<_> = (1..=65)
        .map(|port| format!("\"http://localhost:{port}\""))
        .collect();
    let given = format!("engine.nodes = [{}]", many.join(", "));
    check_rows(&[(&given, &["error: `engine.nodes` is 65"])]);
}

#[test]
fn keys_that_do_nothing_yet_are_said_and_dangerous_ones_refused() {
    check_rows(&[
        ("admin.listen = \"127.0.0.1:9000\"", &[]),
        (
            "engine.credentials.mode = \"relay\"",
            &["error: `engine.credentials.mode` supports `basic` and `none` so far"],
        ),
        (
            "engine.credentials.mode = \"minted_jwt\"",
            &["error: `engine.credentials.mode` supports `basic` and `none` so far"],
        ),
        ("initiator.model_initiator = false", &[]),
        (
            "initiator = { messages = \"inject\", protect_later_writes = false, restarts = \"keep\" }",
            &[],
        ),
        ("access.default = \"none\"", &[]),
        ("access.default = \"transparent\"", &[]),
        ("access.default = \"user\"", &[]),
        (
            "access.default = \"usr\"",
            &["error: `access.default` is \"usr\""],
        ),
        ("access.object_types = [\"com.example.*\", \"a.B\"]", &[]),
        (
            "access.object_types = [\"*\"]",
            &["error: `access.object_types.0` is \"*\""],
        ),
        ("workflow_api.enabled = false", &[]),
        ("workflow_api.enabled = true", &[]),
        ("workflow_api.prefix = \"/engine-rest\"", &[]),
        (
            "workflow_api.prefix = \"/x\"",
            &["warning: the workflow API is not served: `/x` is none of `routes.prefixes`"],
        ),
        (
            "workflow_api.prefix = \"/x\"\nworkflow_api.enabled = false",
            &[],
        ),
        ("workflow_api.show_engine_url = true", &[]),
        ("telemetry.otlp_endpoint = \"\"", &[]),
        ("telemetry.otlp_endpoint = \"http://localhost:4318\"", &[]),
        (
            "telemetry.otlp_endpoint = \"http://collector.example:4318\"",
            &[
                "warning: `telemetry.otlp_endpoint` is an http:// URL: what the spans say can be read and changed on the way",
            ],
        ),
        (
            "telemetry.otlp_endpoint = \"https://collector.example/?key=1\"",
            &["error: `telemetry.otlp_endpoint` is \"https://collector.example/?key=1\""],
        ),
        ("telemetry.trace_sampling = 0", &[]),
        ("telemetry.trace_sampling = 0.05", &[]),
        ("telemetry.trace_sampling = 1.0", &[]),
        (
            "telemetry.trace_sampling = 1.01",
            &["error: `telemetry.trace_sampling` is 1.01"],
        ),
        (
            "telemetry.trace_sampling = -0.1",
            &["error: `telemetry.trace_sampling` is -0.1"],
        ),
        (
            "telemetry.trace_sampling = nan",
            &["error: `telemetry.trace_sampling` is NaN"],
        ),
        (
            "telemetry.trace_sampling = \"0.5\"",
            &["error: `telemetry.trace_sampling` is \"0.5\""],
        ),
        ("telemetry.trace_queue = 1", &[]),
        (
            "telemetry.trace_queue = 0",
            &["error: `telemetry.trace_queue` is 0"],
        ),
        ("telemetry.audit_log = \"\"", &[]),
        ("telemetry.audit_log = \"stdout\"", &[]),
    ]);
}

#[test]
fn rules_and_profiles_name_what_there_is() {
    check_rows(&[
        (
            "access.rules = [{ when = { role = \"a\" }, profile = \"admin\" }]",
            &[],
        ),
        (
            "access.rules = [{ when = {}, profile = \"admin\" }]",
            &["error: `access.rules.0.when` is empty, so the rule would mean everybody"],
        ),
        (
            "access.rules = [{ when = { claim = \"a\" }, profile = \"admin\" }]",
            &["error: `access.rules.0.when` has one of `claim` and `value`"],
        ),
        (
            "access.rules = [{ when = { role = \"\" }, profile = \"admin\" }]",
            &["error: `access.rules.0.when` has an empty member"],
        ),
        (
            "access.rules = [{ when = { role = \"a\" }, profile = \"nobody\" }]",
            &["error: `access.rules.0.profile` is \"nobody\""],
        ),
        (
            "access.rules = [{ when = { rol = \"a\" }, profile = \"admin\" }]",
            &["error: unknown key `access.rules.0.when.rol`"],
        ),
        (
            "access.rules = [{ profile = \"admin\" }]",
            &["error: `access.rules.0.when` is missing"],
        ),
        (
            "access.profiles.admin = {}",
            &["error: `admin` is a built-in profile"],
        ),
        (
            "access.profiles = { a = { extends = \"b\" }, b = { extends = \"a\" } }",
            &[
                "error: `access.profiles.a.extends` is \"b\"",
                "error: `access.profiles.b.extends` is \"a\"",
            ],
        ),
        (
            "access.profiles.a.extends = \"c\"",
            &["error: `access.profiles.a.extends` is \"c\""],
        ),
        (
            "access.profiles.a.allow = [\"complete\", \"Process Instance\"]",
            &[],
        ),
        (
            "access.profiles.a.deny = [\"Complete\"]",
            &["error: `access.profiles.a.deny` is \"Complete\""],
        ),
        (
            "access = { default = \"a\", profiles = { a = { extends = \"worker\" } } }",
            &[],
        ),
    ]);
}

/// Each row: lines of the one issuer, and what is said.
#[test]
fn an_issuer_says_whose_tokens_and_which_keys() {
    let rows: [(&str, &[&str]); 32] = [
        ("issuer = \"https://a.b\"\naudience = [\"gate\"]", &[]),
        ("issuer = \"https://a.b\"\npreset = \"cognito\"", &[]),
        (
            "issuer = \"https://a.b\"",
            &[
                "error: `issuers.0.audience` is empty: a token that the issuer made for any other application would be accepted too",
            ],
        ),
        (
            "preset = \"clerk\"",
            &["error: `issuers.0.issuer` is missing"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"a.b\"",
            &["error: `issuers.0.issuer` is \"a.b\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"\"",
            &["error: `issuers.0.issuer` is \"\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b?x\"",
            &["error: `issuers.0.issuer` is \"https://a.b?x\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"http://a.b\"",
            &[
                "warning: `issuers.0.issuer` is an http:// URL: keys can be read and changed on the way",
            ],
        ),
        (
            "preset = \"clerk\"\nissuer = \"http://localhost:1\"\njwks_url = \"http://localhost:1/keys\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\njwks_url = \"http://a.b/keys?x\"",
            &[
                "warning: `issuers.0.jwks_url` is an http:// URL: keys can be read and changed on the way",
            ],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\npublic_key_file = \"a.pem\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\npublic_key_file = \"a.pem\"\njwks_url = \"https://a.b/keys\"",
            &["error: `issuers.0.jwks_url` and `issuers.0.public_key_file` are both set"],
        ),
        (
            "preset = \"klerk\"\nissuer = \"https://a.b\"\naudience = [\"gate\"]",
            &["error: `issuers.0.preset` is \"klerk\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"ES512\", \"EdDSA\", \"Ed25519\"]",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = []",
            &["error: `issuers.0.algorithms` is empty"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"none\"]",
            &["error: `issuers.0.algorithms.0` is \"none\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]",
            &["error: `issuers.0.algorithms` has HS256, and `issuers.0.hs_secret` is missing"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nhs_secret = \"0123456789abcdef0123456789abcdef\"",
            &[
                "error: `issuers.0.hs_secret` is set, and `issuers.0.algorithms` has none that uses a secret",
            ],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"0123456789abcdef0123456789abcdef\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"0123456789abcdef0123456789abcde\"",
            &["error: `issuers.0.hs_secret` is too short for HS256"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS384\"]\nhs_secret = \"0123456789abcdef0123456789abcdef0123456789abcdef\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS384\"]\nhs_secret = \"0123456789abcdef0123456789abcdef0123456789abcde\"",
            &["error: `issuers.0.hs_secret` is too short for HS384"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\", \"HS512\"]\nhs_secret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\", \"HS512\"]\nhs_secret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\"",
            &["error: `issuers.0.hs_secret` is too short for HS512"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"RS256\", \"HS256\"]\nhs_secret = \"0123456789abcdef0123456789abcdef\"",
            &[
                "error: `issuers.0.algorithms` mixes HS256, HS384 or HS512 with algorithms of public keys",
            ],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"-----BEGIN PUBLIC KEY-----0123456789abcdef0123456789abcdef\"",
            &["error: `issuers.0.hs_secret` is a PEM text, which is no secret"],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"0123456789abcdef0123456789abcdef\"\njwks_url = \"https://a.b/keys\"\npublic_key_file = \"a.pem\"",
            &[
                "error: `issuers.0.hs_secret` and `issuers.0.jwks_url` are both set",
                "error: `issuers.0.jwks_url` and `issuers.0.public_key_file` are both set",
                "error: `issuers.0.hs_secret` and `issuers.0.public_key_file` are both set",
            ],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"ES256\", \"RS256\", \"ES256\"]",
            &["error: `issuers.0.algorithms.2` is \"ES256\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nleeway = \"5m\"",
            &[],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nleeway = \"301s\"",
            &["error: `issuers.0.leeway` is \"301s\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\njwks_cooldown = \"0s\"",
            &["error: `issuers.0.jwks_cooldown` is \"0\""],
        ),
        (
            "preset = \"clerk\"\nissuer = \"https://a.b\"\nclaims = { id = [], name = [\"\"] }",
            &[
                "error: `issuers.0.claims.id` is empty",
                "error: `issuers.0.claims.name.0` is \"\"",
            ],
        ),
    ];
    for (lines, expected) in rows {
        let loaded = parse("config.toml", &format!("[[issuers]]\n{lines}\n"), []);
        let mut said = said(&loaded);
        said.retain(|said| *said != tokens_for_others("issuers.0"));
        assert_eq!(said, expected, "{lines}");
    }
}

/// What is said of an issuer that needs no audience and has none.
fn tokens_for_others(table: &str) -> String {
    format!(
        "warning: `{table}.audience` is empty: tokens that the issuer made for any other application are accepted too"
    )
}

#[test]
fn an_issuer_whose_tokens_for_others_are_accepted_is_warned_of() {
    let warned = [tokens_for_others("issuers.0")];
    for (more, expected) in [
        ("", &warned[..]),
        ("audience = [\"bpmgate\"]", &[]),
        ("authorized_parties = [\"https://app.example.com\"]", &[]),
    ] {
        let text = format!("[[issuers]]\npreset = \"clerk\"\nissuer = \"https://a.b\"\n{more}");
        assert_eq!(said(&parse("config.toml", &text, [])), expected, "{more}");
    }
}

#[test]
fn a_role_that_each_of_several_issuers_can_give_is_warned_of() {
    let rule = |issuer: &str| {
        format!(
            "access.rules = [{{ when = {{ role = \"boss\"{issuer} }}, profile = \"admin\" }}]\n"
        )
    };
    let other = ISSUER.replace("clerk.", "other.");
    let two = format!("{ISSUER}{other}");
    let warned = "warning: `access.rules.0.when` names the role \"boss\" and no issuer: each of the issuers can give it";
    for (rule, issuers, expected) in [
        (rule(""), ISSUER, &[][..]),
        (rule(""), &two, &[warned]),
        (rule(", issuer = \"https://other.example.com\""), &two, &[]),
    ] {
        let text = format!("shared_ids = true\n{rule}{issuers}");
        assert_eq!(said(&parse("config.toml", &text, [])), expected, "{text}");
    }
}

#[test]
fn the_operators_address_is_another_one_and_not_for_everybody() {
    let taken = |listen: &str| vec![format!("error: `admin.listen` is \"{listen}\"")];
    let open = |listen: &str| {
        vec![format!(
            "warning: `admin.listen` is {listen}: whoever reaches that needs no token to read the metrics and the configuration"
        )]
    };
    for (public, listen, expected) in [
        ("127.0.0.1:9000", "127.0.0.1:9000", taken("127.0.0.1:9000")),
        ("0.0.0.0:9000", "127.0.0.1:9000", taken("127.0.0.1:9000")),
        ("127.0.0.1:9000", "0.0.0.0:9000", taken("0.0.0.0:9000")),
        ("[::]:9000", "127.0.0.1:9000", taken("127.0.0.1:9000")),
        ("0.0.0.0:9000", "[::1]:9000", vec![]),
        ("127.0.0.1:9000", "127.0.0.2:9000", vec![]),
        ("127.0.0.1:9000", "127.0.0.1:9001", vec![]),
        ("127.0.0.1:0", "127.0.0.1:0", vec![]),
        ("0.0.0.0:8000", "10.1.2.3:9000", vec![]),
        ("0.0.0.0:8000", "192.168.0.1:9000", vec![]),
        ("0.0.0.0:8000", "[fd00::1]:9000", vec![]),
        ("0.0.0.0:8000", "[::ffff:10.0.0.1]:9000", vec![]),
        ("0.0.0.0:8000", "0.0.0.0:9000", open("0.0.0.0:9000")),
        ("0.0.0.0:8000", "[::]:9000", open("[::]:9000")),
        ("0.0.0.0:8000", "203.0.113.7:9000", open("203.0.113.7:9000")),
        (
            "0.0.0.0:8000",
            "[2001:db8::1]:9000",
            open("[2001:db8::1]:9000"),
        ),
    ] {
        let text = format!("server.listen = {public:?}\nadmin.listen = {listen:?}\n");
        assert_eq!(said(&with_issuer(&text, &[])), expected, "{text}");
    }
    let text = "server.listen = \"127.0.0.1:9000\"\n";
    assert_eq!(
        said(&with_issuer(text, &[])),
        [
            "error: `admin.listen` is \"127.0.0.1:9000\", expected another address or port than `server.listen` (127.0.0.1:9000)"
        ],
    );
    let text = "server.listen = \"127.0.0.1:9000\"\nadmin.listen = \"\"\n";
    assert_eq!(said(&with_issuer(text, &[])), [""; 0]);
}

#[test]
fn several_issuers_need_prefixes_that_keep_their_ids_apart() {
    let missing = |index| {
        format!("error: `issuers.{index}.id_prefix` is missing, and there are several issuers")
    };
    let rows: [(&str, &str, &str, Vec<String>); 7] = [
        ("", "id_prefix = \"a:\"", "id_prefix = \"b:\"", vec![]),
        ("shared_ids = true", "", "", vec![]),
        ("", "", "", vec![missing(0), missing(1)]),
        ("", "id_prefix = \"a:\"", "", vec![missing(1)]),
        (
            "",
            "id_prefix = \"a:\"",
            "id_prefix = \"a:\"",
            vec!["error: `issuers.1.id_prefix` is \"a:\"".to_owned()],
        ),
        // "a" + "b1" would be "ab" + "1".
        (
            "",
            "id_prefix = \"a\"",
            "id_prefix = \"ab\"",
            vec!["error: `issuers.1.id_prefix` is \"ab\"".to_owned()],
        ),
        (
            "",
            "id_prefix = \"a\"",
            "id_prefix = \"\"",
            vec!["error: `issuers.1.id_prefix` is \"\"".to_owned()],
        ),
    ];
    for (top, first, second, expected) in rows {
        let text = format!(
            "{top}\n{ISSUER}{first}\n{}{second}\n",
            ISSUER.replace("clerk.", "other.")
        );
        assert_eq!(said(&parse("config.toml", &text, [])), expected, "{text}");
    }
    let twice = format!("{ISSUER}id_prefix = \"a:\"\n{ISSUER}id_prefix = \"b:\"\n");
    assert_eq!(
        said(&parse("config.toml", &twice, [])),
        ["error: `issuers.1.issuer` is \"https://clerk.example.com\""]
    );
}

#[test]
fn a_variable_wins_over_the_file_and_is_read_as_its_key_wants_it() {
    let text = "[server]\nworkers = 2\n[cors]\norigins = [\"https://file.example.com\"]\n";
    let loaded = with_issuer(
        text,
        &[
            ("BPMGATE__SERVER__WORKERS", "4"),
            ("BPMGATE__ADMIN__LISTEN", ""),
            ("BPMGATE__ENGINE__PRESERVE_HOST", "false"),
            ("BPMGATE__ENGINE__TIMEOUTS__RESPONSE", "90s"),
            ("BPMGATE__ENGINE__CREDENTIALS__USERNAME", "42"),
            ("BPMGATE__ENGINE__CREDENTIALS__MODE", "none"),
            (
                "BPMGATE__CORS__ORIGINS",
                "https://a.example.com, https://b.example.com",
            ),
            (
                "BPMGATE__SERVER__TRUSTED_PROXIES",
                "[\"10.0.0.0/8\", \"::1\"]",
            ),
            ("BPMGATE__ISSUERS__0__ALGORITHMS", "ES256,ES384"),
            ("BPMGATE_SERVICE_HOST", "no key: no double underscore"),
        ],
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.server.workers, 4);
    assert_eq!(config.admin.listen, None);
    assert!(!config.engine.preserve_host);
    assert_eq!(config.engine.timeouts.response.as_secs(), 90);
    assert_eq!(config.engine.credentials.username, "42");
    assert_eq!(config.engine.credentials.mode, CredentialsMode::None);
    assert_eq!(
        config.cors.origins,
        ["https://a.example.com", "https://b.example.com"]
    );
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert_eq!(
        config.issuers[0].algorithms,
        [Algorithm::Es256, Algorithm::Es384]
    );
    assert_eq!(
        loaded.origins.place("server.workers"),
        Some("BPMGATE__SERVER__WORKERS")
    );
    assert_eq!(
        loaded.origins.place("issuers.0.issuer"),
        Some("config.toml:8")
    );
    assert_eq!(loaded.origins.place("server.listen"), None);
}

#[test]
fn the_environment_alone_can_name_issuers() {
    let many: Vec<_> = (0..12)
        .map(|index| {
            (
                format!("BPMGATE__ISSUERS__{index}__ISSUER"),
                format!("https://{index}.example.com"),
            )
        })
        .collect();
    let mut pairs: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    pairs.push(("BPMGATE__SHARED_IDS", "true"));
    let presets: Vec<_> = (0..12)
        .map(|index| format!("BPMGATE__ISSUERS__{index}__PRESET"))
        .collect();
    pairs.extend(presets.iter().map(|name| (name.as_str(), "clerk")));
    let loaded = parse("", "", variables(&pairs)).unwrap();
    assert_eq!(loaded.config.issuers.len(), 12);
    assert_eq!(
        loaded.config.issuers[10].issuer.as_str(),
        "https://10.example.com"
    );

    let whole = [(
        "BPMGATE__ISSUERS",
        "[{ preset = \"clerk\", issuer = \"https://a.b\" }]",
    )];
    assert_eq!(
        parse("", "", variables(&whole)).unwrap().config.issuers[0].preset,
        Preset::Clerk
    );
}

#[test]
fn variables_without_a_place_or_a_right_value_are_errors() {
    let rows: [(&[(&str, &str)], &str); 15] = [
        (
            &[("BPMGATE__SERVER__WORKERS", "four")],
            "error: BPMGATE__SERVER__WORKERS is \"four\", expected a whole number (0: one per core)",
        ),
        (
            &[("BPMGATE__ENGINE__TIME_OUTS__CONNECT", "5s")],
            "error: BPMGATE__ENGINE__TIME_OUTS__CONNECT is no key of the configuration\nhint: did you mean `BPMGATE__ENGINE__TIMEOUTS`?",
        ),
        (
            &[("BPMGATE__NONSENSE", "hunter2")],
            "error: BPMGATE__NONSENSE is no key of the configuration",
        ),
        (
            &[("BPMGATE__", "")],
            "error: BPMGATE__ is no key of the configuration",
        ),
        (
            &[("BPMGATE__CONNECTIONS", "5")],
            "error: BPMGATE__CONNECTIONS is no key of the configuration\nhint: did you mean `BPMGATE__SERVER__LIMITS__CONNECTIONS`?",
        ),
        (
            &[("BPMGATE__ENGINE__PRESERVE_HOST", "yes")],
            "error: BPMGATE__ENGINE__PRESERVE_HOST is \"yes\", expected `true` or `false`",
        ),
        (
            &[("BPMGATE__TELEMETRY__LOG_FORMAT", "jsn")],
            "error: BPMGATE__TELEMETRY__LOG_FORMAT is \"jsn\", expected one of `text`, `json`\nhint: did you mean `json`?",
        ),
        (
            &[("BPMGATE__ROUTES__PREFIXES", "/api,/")],
            "error: BPMGATE__ROUTES__PREFIXES is \"/\", expected a path of at least one segment: under `/` alone would lie the gateway's own routes",
        ),
        (
            &[("BPMGATE__ROUTES__PREFIXES", "[\"/api\"")],
            "error: BPMGATE__ROUTES__PREFIXES is \"[\\\"/api\\\"\", expected a TOML array such as `[\"a\", \"b\"]`, or `a,b`",
        ),
        (
            &[("BPMGATE__ISSUERS__2__ISSUER", "https://a.b")],
            "error: BPMGATE__ISSUERS__2__ISSUER: the list has 1 elements so far, so the next one is number 1",
        ),
        (
            &[("BPMGATE__SERVER", "x")],
            "error: BPMGATE__SERVER is \"x\", expected a table",
        ),
        (
            &[
                ("BPMGATE__SERVER__WORKERS", "1"),
                ("BPMGATE__SERVER__workers", "2"),
            ],
            "error: BPMGATE__SERVER__workers: BPMGATE__SERVER__WORKERS sets the same",
        ),
        (
            &[
                ("BPMGATE__ENGINE__URL", "https://a.b"),
                ("BPMGATE__ENGINE__URL__HOST", "a.b"),
            ],
            "error: BPMGATE__ENGINE__URL__HOST: BPMGATE__ENGINE__URL sets the same",
        ),
        (
            &[("BPMGATE__ENGINE__RETRY__ATTEMPTS", "-1")],
            "error: BPMGATE__ENGINE__RETRY__ATTEMPTS is -1, expected a whole number, 0 or more",
        ),
        (
            &[("BPMGATE__ACCESS__RULES__0__PROFILE", "admin")],
            "error: BPMGATE__ACCESS__RULES__0__PROFILE: `access.rules.0.when` is missing",
        ),
    ];
    for (pairs, expected) in rows {
        assert_eq!(with_issuer("", pairs).unwrap_err().to_string(), expected);
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let environment = [(
        "BPMGATE__ENGINE__URL".into(),
        OsString::from_vec(vec![0xff]),
    )];
    let error = parse("", ISSUER, environment).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: BPMGATE__ENGINE__URL: expected text in UTF-8"
    );
}

#[test]
fn the_old_variables_alone_are_enough() {
    let loaded = parse(
        "",
        "",
        variables(&[
            (
                "CLERK_JWKS_URL",
                "https://clerk.example.com/.well-known/jwks.json",
            ),
            ("CLERK_AUDIENCE", "gate"),
            ("ENGINE_URL", "http://localhost:9999/engine-rest"),
            ("ENGINE_USER", "kermit"),
            ("ENGINE_PASS", "hunter2"),
            ("ENGINE_TIMEOUT", "30"),
            ("MAX_RETRIES", "5"),
            ("RETRY_BACKOFF", "0.25"),
            (
                "CORS_ORIGINS",
                "http://localhost:3000,https://app.example.com",
            ),
            ("LOG_LEVEL", "WARNING"),
        ]),
    )
    .unwrap();
    assert_eq!(loaded.warnings, []);
    let config = &loaded.config;
    let issuer = &config.issuers[0];
    assert_eq!(issuer.preset, Preset::Clerk);
    assert_eq!(issuer.issuer.as_str(), "https://clerk.example.com");
    assert_eq!(
        issuer.jwks_url.as_ref().unwrap().as_str(),
        "https://clerk.example.com/.well-known/jwks.json"
    );
    assert_eq!(issuer.audience, ["gate"]);
    assert_eq!(
        config.engine.url.as_str(),
        "http://localhost:9999/engine-rest"
    );
    assert_eq!(config.engine.credentials.username, "kermit");
    assert_eq!(config.engine.credentials.password.expose(), "hunter2");
    assert_eq!(config.engine.timeouts.response.as_secs(), 30);
    assert_eq!(config.engine.retry.attempts, 5);
    assert_eq!(config.engine.retry.backoff.as_millis(), 250);
    assert_eq!(
        config.cors.origins,
        ["http://localhost:3000", "https://app.example.com"]
    );
    assert_eq!(config.telemetry.log_level, LogLevel::Warn);

    let clerk_alone = [(
        "CLERK_JWKS_URL",
        "https://clerk.example.com/.well-known/jwks.json",
    )];
    let loaded = parse("", "", variables(&clerk_alone)).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].key(), "issuers.0.audience");
    assert_eq!(loaded.config.issuers[0].audience, [""; 0]);
}

#[test]
fn an_old_variable_counts_only_where_nothing_newer_is_said() {
    let file = "[engine]\nurl = \"http://localhost:1\"\n";
    let loaded = with_issuer(
        file,
        &[
            ("ENGINE_URL", "http://localhost:2"),
            ("ENGINE_USER", "old"),
            ("BPMGATE__ENGINE__CREDENTIALS__USERNAME", "new"),
            (
                "CLERK_JWKS_URL",
                "https://old.example.com/.well-known/jwks.json",
            ),
            ("CLERK_AUDIENCE", "gate"),
            ("LOG_LEVEL", ""),
        ],
    );
    assert_eq!(
        said(&loaded),
        [
            "warning: CLERK_JWKS_URL: ignored, since `issuers.0.issuer` is set",
            "warning: ENGINE_URL: ignored, since `engine.url` is set",
            "warning: ENGINE_USER: ignored, since `engine.credentials.username` is set",
        ]
    );
    let config = loaded.unwrap().config;
    assert_eq!(config.engine.url.as_str(), "http://localhost:1");
    assert_eq!(config.engine.credentials.username, "new");
    assert_eq!(
        config.issuers[0].issuer.as_str(),
        "https://clerk.example.com"
    );
    // No new key says which audience is meant, so the old one must not be dropped.
    assert_eq!(config.issuers[0].audience, ["gate"]);
}

#[test]
fn wrong_old_variables_are_errors_under_their_own_name() {
    let rows = [
        (
            "ENGINE_TIMEOUT",
            "soon",
            "error: ENGINE_TIMEOUT is \"soon\", expected a number of seconds",
        ),
        (
            "ENGINE_TIMEOUT",
            "-1",
            "error: ENGINE_TIMEOUT is \"-1\", expected a number of seconds, 0 or more",
        ),
        (
            "ENGINE_TIMEOUT",
            "NaN",
            "error: ENGINE_TIMEOUT is \"NaN\", expected a number of seconds, 0 or more",
        ),
        (
            "ENGINE_TIMEOUT",
            "0",
            "error: ENGINE_TIMEOUT is \"0\", expected more than zero",
        ),
        (
            "MAX_RETRIES",
            "many",
            "error: MAX_RETRIES is \"many\", expected a whole number, 0 or more",
        ),
        (
            "LOG_LEVEL",
            "LOUD",
            "error: LOG_LEVEL is \"loud\", expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
        (
            "CORS_ORIGINS",
            "*,https://a.b",
            "error: CORS_ORIGINS is \"*\", expected the origins by name, or `[\"*\"]` alone",
        ),
    ];
    for (name, value, expected) in rows {
        assert_eq!(
            with_issuer("", &[(name, value)]).unwrap_err().to_string(),
            expected
        );
    }
    let error = parse("", "", variables(&[("CLERK_JWKS_URL", "https://a.b/keys")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: CLERK_JWKS_URL is \"https://a.b/keys\", expected a URL that ends in `/.well-known/jwks.json`\n\
         hint: set BPMGATE__ISSUERS__0__ISSUER and BPMGATE__ISSUERS__0__JWKS_URL"
    );
}

#[test]
fn secrets_are_read_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let password = |text: &[u8]| {
        let path = write("password", text);
        let loaded = with_issuer(&format!("engine.credentials.password_file = {path:?}"), &[])?;
        Ok::<_, ConfigError>(
            loaded
                .config
                .engine
                .credentials
                .password
                .expose()
                .to_owned(),
        )
    };
    assert_eq!(password(b"hunter2").unwrap(), "hunter2");
    assert_eq!(password(b"hunter2\n").unwrap(), "hunter2");
    assert_eq!(password(b"hunter2\r\n").unwrap(), "hunter2");
    assert_eq!(password(b" hunter2 ").unwrap(), " hunter2 ");
    assert_eq!(password(&vec![b'x'; 64 * 1024]).unwrap().len(), 64 * 1024);
    for (text, why) in [
        (&b""[..], "expected a file that is not empty"),
        (b"\n", "expected a file that is not empty"),
        (
            b"hunter2\n\n",
            "expected a password without control characters",
        ),
        (
            b"hunter2\xff",
            "expected a file that can be read: stream did not contain valid UTF-8",
        ),
        (
            &vec![b'x'; 64 * 1024 + 1],
            "expected a file that can be read: it is larger than 65536 bytes",
        ),
    ] {
        let error = password(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    let path = write("from-environment", b"swordfish\n");
    let file = [("BPMGATE__ENGINE__CREDENTIALS__PASSWORD_FILE", path.as_str())];
    let loaded = with_issuer("engine.credentials.password = \"hunter2\"", &file).unwrap();
    assert_eq!(
        loaded.config.engine.credentials.password.expose(),
        "swordfish"
    );

    let text = format!("engine.credentials.password_file = {path:?}");
    let loaded = with_issuer(
        &text,
        &[("BPMGATE__ENGINE__CREDENTIALS__PASSWORD", "hunter2")],
    )
    .unwrap();
    assert_eq!(
        loaded.config.engine.credentials.password.expose(),
        "hunter2"
    );
    assert_eq!(
        loaded.config.engine.credentials.password_file,
        PathBuf::new()
    );
}

#[test]
fn a_secret_given_twice_or_out_of_reach_is_an_error() {
    let error = with_issuer(
        "engine.credentials = { password = \"hunter2\", password_file = \"/nowhere\" }",
        &[],
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "\
error: `engine.credentials.password` and `engine.credentials.password_file` are both set
 --> config.toml:1:45
  |
1 | engine.credentials = { password = ***, password_file = \"/nowhere\" }
  |                                        ^^^^^^^^^^^^^ expected one of the two"
            .replace("1:45", "1:40")
    );
    let pairs = [
        ("BPMGATE__ENGINE__CREDENTIALS__PASSWORD", "hunter2"),
        ("BPMGATE__ENGINE__CREDENTIALS__PASSWORD_FILE", "/nowhere"),
    ];
    assert_eq!(
        with_issuer("", &pairs).unwrap_err().to_string(),
        "error: BPMGATE__ENGINE__CREDENTIALS__PASSWORD_FILE: `engine.credentials.password` and `engine.credentials.password_file` are both set"
    );
    assert_eq!(
        with_issuer("", &pairs[1..]).unwrap_err().to_string(),
        "error: BPMGATE__ENGINE__CREDENTIALS__PASSWORD_FILE is \"/nowhere\", expected a file that can be read: No such file or directory (os error 2)"
    );
    let hs_secret = parse(
        "config.toml",
        &format!("{ISSUER}hs_secret = \"\"\nhs_secret_file = \"/nowhere\"\n"),
        [],
    );
    assert_eq!(
        said(&hs_secret),
        ["error: `issuers.0.hs_secret_file` is \"/nowhere\""]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_naming_it() {
    let error = load(Some(Path::new("/nowhere/config.toml")), []).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: cannot read the configuration file \"/nowhere/config.toml\": No such file or directory (os error 2)"
    );
    let directory = tempfile::tempdir().unwrap();
    assert!(load(Some(directory.path()), []).is_err());
    let file = directory.path().join("config.toml");
    std::fs::write(&file, ISSUER).unwrap();
    assert_eq!(load(Some(&file), []).unwrap().file, Some(file));
}

#[test]
fn a_file_that_is_no_toml_is_shown_where_it_breaks() {
    let error = parse(
        "config.toml",
        "[server\nworkers = 1\n[engine]\nurl = \"x\n",
        [],
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "\
error: the file is not valid TOML
 --> config.toml:1:8
  |
1 | [server
  |        ^ unclosed table, expected `]`

error: the file is not valid TOML
 --> config.toml:4:9
  |
4 | url = \"x
  |         ^ invalid basic string, expected `\"`"
    );
}

#[test]
fn all_problems_are_shown_at_once_in_the_order_of_the_file() {
    let text = "\
[server]
workers = \"four\"

[engine.time_outs]
connect = \"5s\"

[engine.timeouts]
connect = \"5\"

[telemetry]
log_level = \"inf\"
";
    let error = with_issuer(text, &[("BPMGATE__CORS__CREDENTIALS", "maybe")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\
error: `server.workers` is \"four\"
 --> config.toml:2:11
  |
2 | workers = \"four\"
  |           ^^^^^^ expected a whole number (0: one per core)

error: unknown key `engine.time_outs`
 --> config.toml:4:9
  |
4 | [engine.time_outs]
  |         ^^^^^^^^^ not a key of `[engine]`
  |
hint: did you mean `engine.timeouts`?

error: `engine.timeouts.connect` is \"5\"
 --> config.toml:8:11
  |
8 | connect = \"5\"
  |           ^^^ expected a whole number with `ms`, `s`, `m` or `h`, such as \"30s\"

error: `telemetry.log_level` is \"inf\"
  --> config.toml:11:13
   |
11 | log_level = \"inf\"
   |             ^^^^^ expected one of `error`, `warn`, `info`, `debug`, `trace`
   |
hint: did you mean `info`?

error: BPMGATE__CORS__CREDENTIALS is \"maybe\", expected `true` or `false`"
    );
}

#[test]
fn one_table_where_a_list_of_tables_belongs_is_said_once() {
    let error = parse("config.toml", "[issuers]\nissuer = \"https://a.b\"\n", []).unwrap_err();
    assert_eq!(said(&Err(error.clone())), ["error: `issuers` is a table"]);
    assert_eq!(
        error.diagnostics()[0].hint(),
        Some("write the header as `[[issuers]]`")
    );
}

/// Each row puts a secret where it does not belong, or something wrong beside it.
#[test]
fn no_secret_shows_in_any_message() {
    let file = [
        "[engine.credentials]\npassword = \"hunter2\"\nusername = \"a:b\"\n",
        "[engine.credentials]\npassword = \"\"\"\nhunter2\n\"\"\"\n",
        "[engine]\ncredentials = { mode = 5, password = \"hunter2\" }\n",
        "[engine]\ncredentials = { mode = 5, passwrd = \"hunter2\", usrname = \"x\" }\n",
        "[engine]\ncredentials = \"hunter2\"\n",
        "[engine.credentials]\npasswort = \"hunter2\"\n",
        "[engine.credentials]\npassword = [\"hunter2\"]\n",
        "[engine.credentials]\npassword = { text = \"hunter2\" }\n",
        "[engine.credentials]\npassword = \"hunter2\n",
        "[engine.credentials]\npassword = hunter2\n",
        "[engine.credentials]\npassword = \"\"\"\nhunter2\\q\n\"\"\"\n",
        "[engine.credentials]\npassword = '''\nhunter2\n",
        "engine.credentials = { password = \"hunter2\" \n",
        "[engine.credentials]\npassword = \"x\"\npassword = \"hunter2\"\n",
        "engine.url = \"https://demo:hunter2@engine/\"\n",
        "engine.url = \"https://demo:hunter2@engine/\n",
        "telemetry.otlp_endpoint = \"https://hunter2@collector/\"\n",
        "[[issuers]]\nissuer = \"https://a.b\"\nhs_secret = \"hunter2\"\n",
        "[[issuers]]\nhs_secret = \"hunter2\"\n",
        "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"hunter2\"\n",
        "[[issuers]]\npreset = \"clerk\"\nissuer = \"https://a.b\"\nalgorithms = [\"HS256\"]\nhs_secret = \"-----BEGIN hunter2 hunter2 hunter2 hunter2\"\njwks_url = \"https://a.b\"\n",
    ];
    for text in file {
        let error = parse("config.toml", text, []).unwrap_err();
        for shown in [error.to_string(), error.render(true), format!("{error:?}")] {
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
        }
    }
    let environment = [
        ("BPMGATE__ENGINE__CREDENTIALS__PASSWORD", "hunter2\n"),
        ("BPMGATE__ENGINE__CREDENTIALS__PASSWRD", "hunter2"),
        ("BPMGATE__ENGINE__URL", "https://demo:hunter2@engine/"),
        ("BPMGATE__ENGINE__CREDENTIALS", "{ password = \"hunter2\" }"),
        ("BPMGATE__ISSUERS__0__HS_SECRET", "hunter2"),
        ("BPMGATE__ISSUERS", "[{ hs_secret = \"hunter2\" }]"),
        ("BPMGATE__ISSUERS", "[{ hs_secret = \"hunter2\" "),
    ];
    for pair in environment {
        let error = parse("", "", variables(&[pair])).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("hunter2"), "{pair:?}\n{shown}");
        }
    }
}

#[test]
fn no_secret_shows_in_what_was_loaded() {
    let loaded = with_issuer(
        "engine.credentials.password = \"hunter2\"\nengine.url = \"http://engine/\"",
        &[],
    )
    .unwrap();
    assert_eq!(
        loaded.config.engine.credentials.password.expose(),
        "hunter2"
    );
    assert_eq!(loaded.warnings.len(), 1);
    for shown in [
        format!("{loaded:?}"),
        toml::to_string(&loaded.config).unwrap(),
        loaded.warnings[0].to_string(),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// Spans that leave the line, or cut a character, would panic in the renderer.
#[test]
fn any_damage_to_a_file_is_answered_with_a_message() {
    let example = include_str!("../../../config.toml.example")
        .replace("mode = \"basic\" ", "mode = \"bäsic\"");
    let mut refused = 0;
    for (index, character) in example.char_indices().step_by(11) {
        let (before, rest) = example.split_at(index);
        let (_, after) = rest.split_at(character.len_utf8());
        for damaged in ["", "\"", "é", "\r\n", "=", "]"] {
            if let Err(error) = parse("config.toml", &format!("{before}{damaged}{after}"), []) {
                assert!(error.to_string().contains("error: "));
                refused += 1;
            }
        }
        if let Err(error) = parse("config.toml", before, []) {
            assert!(error.to_string().contains("error: "));
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_share_may_come_from_the_environment() {
    const NAME: &str = "BPMGATE__TELEMETRY__TRACE_SAMPLING";
    for (text, want) in [("0.25", 0.25), ("1", 1.0)] {
        let loaded = with_issuer("", &[(NAME, text)]).unwrap();
        let found = loaded.config.telemetry.trace_sampling;
        assert!((found - want).abs() < f64::EPSILON, "{text}");
    }
    for text in ["10%", ""] {
        assert_eq!(
            said(&with_issuer("", &[(NAME, text)])),
            [format!("error: {NAME} is \"{text}\", expected a number")]
        );
    }
}

/// Numbers are kept in types of several widths, each of which is read on its own.
#[test]
fn every_number_may_come_from_the_environment() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut numbers = Vec::new();
    numbers_of(&defaults, "BPMGATE", &mut numbers);
    assert!(numbers.len() > 10, "{numbers:?}");
    assert!(
        numbers
            .iter()
            .any(|(name, _)| name.ends_with("BUDGET_PERCENT"))
    );
    for (name, value) in numbers {
        let loaded = with_issuer("", &[(&name, &value)]);
        assert!(loaded.is_ok(), "{name}={value}: {loaded:?}");
        let refused = with_issuer("", &[(&name, "many")]).unwrap_err().to_string();
        assert!(refused.contains("number"), "{refused}");
    }
}

fn numbers_of(value: &serde_json::Value, name: &str, into: &mut Vec<(String, String)>) {
    if let Some(members) = value.as_object() {
        for (member, value) in members {
            let name = format!("{name}__{}", member.to_uppercase());
            numbers_of(value, &name, into);
        }
    } else if value.is_number() {
        into.push((name.to_owned(), value.to_string()));
    }
}
