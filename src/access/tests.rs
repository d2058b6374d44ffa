use std::fmt::Write as _;

use http::Method;
use serde_json::json;

use super::*;
use crate::identity::Parts;
use crate::identity::tests::alice;

fn decide(rules: &AccessRules, method: &Method, path_and_query: &str) -> Result<Access, Problem> {
    let (path, query) = path_and_query.split_once('?').unzip();
    let path = path.unwrap_or(path_and_query);
    rules.decide(&alice(), &Catalogue::builtin().find(method, path), query)
}

/// A caller with these claims; roles are those of the claim `roles`.
fn caller(issuer: &str, id: &str, claims: Value) -> Identity {
    let Value::Object(claims) = claims else {
        panic!("claims are an object")
    };
    let roles = claims
        .get("roles")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    Identity::new(Parts {
        issuer: issuer.into(),
        id: id.to_owned(),
        email: None,
        name: None,
        first_name: None,
        last_name: None,
        roles: roles
            .filter_map(|role| role.as_str().map(str::to_owned))
            .collect(),
        tenant: None,
        expires: std::time::SystemTime::UNIX_EPOCH,
        claims: Arc::new(claims),
    })
}

#[test]
fn user_does_what_a_person_at_a_task_list_does_and_no_more() {
    let rules = AccessRules::new(Builtin::User);
    for (method, path, allowed) in [
        ("GET", "/process-definition?latestVersion=true", true),
        ("GET", "/process-definition/key/a/xml", true),
        ("POST", "/process-definition/key/a/start", true),
        (
            "POST",
            "/engine/default/process-definition/a:1:b/submit-form",
            true,
        ),
        ("GET", "/process-instance/1/variables", true),
        ("POST", "/task", true),
        ("POST", "/task/1/claim", true),
        ("POST", "/task/1/complete", true),
        ("GET", "/history/process-instance/count", true),
        ("GET", "/process-definition/statistics", false),
        ("GET", "/history/task/report", false),
        ("POST", "/process-definition/a:1:b/restart", false),
        ("POST", "/case-definition/key/a/create", false),
        ("POST", "/deployment/create", false),
        ("GET", "/deployment", false),
        ("GET", "/user", false),
        ("GET", "/user/bob/profile", false),
        ("POST", "/identity/verify", false),
        ("GET", "/filter/1/list", false),
        ("POST", "/filter/create", false),
        ("POST", "/external-task/fetchAndLock", false),
        ("POST", "/message", false),
        ("POST", "/signal", false),
        ("PUT", "/process-instance/1/variables/initiator", false),
        ("POST", "/process-instance/1/modification", false),
        ("DELETE", "/process-instance/1", false),
        ("POST", "/task/1/assignee", false),
        ("POST", "/task/1/delegate", false),
        ("POST", "/task/create", false),
        ("GET", "/history/user-operation", false),
        ("GET", "/optimize/process-instance/running", false),
        ("POST", "/setup/user/create", false),
        ("GET", "/job", false),
        ("GET", "/incident", false),
        ("POST", "/migration/execute", false),
        ("GET", "/batch", false),
    ] {
        match decide(&rules, &method.parse().unwrap(), path) {
            Ok(access) => assert!(allowed && !access.members.others, "{method} {path}"),
            Err(Problem::AccessDenied(_)) => assert!(!allowed, "{method} {path}"),
            Err(other) => panic!("{method} {path}: {other}"),
        }
    }
}

/// What `contract.md` promises of the other profiles, row by row where it is easy to get wrong.
#[test]
fn the_other_profiles_stop_where_they_should() {
    for (profile, method, path, allowed) in [
        (Builtin::Worker, "POST", "/external-task/fetchAndLock", true),
        (Builtin::Worker, "POST", "/external-task/1/bpmnError", true),
        (Builtin::Worker, "PUT", "/external-task/1/retries", false),
        (Builtin::Worker, "PUT", "/external-task/1/priority", false),
        (Builtin::Worker, "GET", "/process-definition/key/a", true),
        (
            Builtin::Worker,
            "POST",
            "/process-definition/key/a/start",
            false,
        ),
        (Builtin::Worker, "GET", "/task", false),
        (Builtin::Operator, "POST", "/task/1/assignee", true),
        (Builtin::Operator, "POST", "/message", true),
        (Builtin::Operator, "POST", "/signal", true),
        (Builtin::Operator, "DELETE", "/process-instance/1", true),
        (
            Builtin::Operator,
            "PUT",
            "/process-instance/1/suspended",
            true,
        ),
        (
            Builtin::Operator,
            "POST",
            "/process-instance/1/modification",
            true,
        ),
        (Builtin::Operator, "POST", "/migration/execute", true),
        (Builtin::Operator, "POST", "/job/1/execute", true),
        (
            Builtin::Operator,
            "PUT",
            "/job-definition/1/suspended",
            true,
        ),
        (Builtin::Operator, "DELETE", "/incident/1", true),
        (Builtin::Operator, "PUT", "/external-task/1/retries", true),
        (
            Builtin::Operator,
            "POST",
            "/external-task/fetchAndLock",
            false,
        ),
        (Builtin::Operator, "GET", "/history/user-operation", true),
        (Builtin::Operator, "POST", "/deployment/create", false),
        (Builtin::Operator, "GET", "/user", false),
        (Builtin::Operator, "POST", "/authorization/create", false),
        (Builtin::Operator, "POST", "/history/cleanup", false),
        (Builtin::Operator, "DELETE", "/metrics/task-worker", false),
        (Builtin::Operator, "GET", "/metrics", true),
        (Builtin::Operator, "POST", "/setup/user/create", false),
        (Builtin::Operator, "POST", "/filter/create", false),
        (Builtin::Deployer, "POST", "/deployment/create", true),
        (Builtin::Deployer, "POST", "/deployment/1/redeploy", true),
        (Builtin::Deployer, "DELETE", "/deployment/1", true),
        (
            Builtin::Deployer,
            "PUT",
            "/process-definition/key/a/suspended",
            true,
        ),
        (
            Builtin::Deployer,
            "DELETE",
            "/process-definition/key/a",
            false,
        ),
        (
            Builtin::Deployer,
            "POST",
            "/process-definition/key/a/start",
            false,
        ),
        (
            Builtin::Deployer,
            "PUT",
            "/process-instance/1/suspended",
            false,
        ),
        (Builtin::Admin, "POST", "/setup/user/create", true),
        (Builtin::Admin, "POST", "/filter/create", true),
    ] {
        let decision = decide(&AccessRules::new(profile), &method.parse().unwrap(), path);
        assert_eq!(
            decision.is_ok(),
            allowed,
            "{profile:?} {method} {path}: {decision:?}"
        );
    }
}

#[test]
fn expression_in_a_query_is_denied_however_it_is_written() {
    for profile in [Builtin::User, Builtin::Operator] {
        let rules = AccessRules::new(profile);
        for query in [
            "assigneeExpression=x",
            "a=1&assignee%45xpression=x",
            "dueAfterExpression",
        ] {
            let problem = decide(&rules, &Method::GET, &format!("/task?{query}")).unwrap_err();
            assert_eq!(problem.code(), "access_denied", "{query}");
        }
        decide(&rules, &Method::GET, "/task?assignee=someExpression").unwrap();
    }
    for profile in [Builtin::Admin, Builtin::Transparent] {
        decide(
            &AccessRules::new(profile),
            &Method::GET,
            "/task?assigneeExpression=x",
        )
        .unwrap();
    }
}

#[test]
fn what_is_no_row_passes_for_transparent_alone() {
    for (method, path, want) in [
        ("GET", "/nothing", "not_found"),
        ("PATCH", "/task", "method_not_allowed"),
        (
            "post",
            "/process-definition/key/a/start",
            "method_not_allowed",
        ),
    ] {
        let method = method.parse().unwrap();
        for profile in Builtin::ALL {
            let decision = decide(&AccessRules::new(profile), &method, path);
            let code = decision.err().map(|problem| problem.code());
            assert_eq!(
                code,
                (profile != Builtin::Transparent).then_some(want),
                "{profile:?} {path}"
            );
        }
    }
}

#[test]
fn the_first_rule_that_holds_gives_the_profile() {
    let role = |role: &str| When {
        role: Some(role.to_owned()),
        ..When::default()
    };
    let claim = |path: &str, value: &str| When {
        claim: Some((path.to_owned(), value.to_owned())),
        ..When::default()
    };
    let both = When {
        issuer: Some("https://b".to_owned()),
        ..role("boss")
    };
    let subject = When {
        subject: Some("b:carol".to_owned()),
        ..When::default()
    };
    let rules = AccessRules::new(Builtin::User)
        .rule(When::default(), Builtin::Transparent)
        .rule(both, Builtin::Admin)
        .rule(role("worker"), Builtin::Worker)
        .rule(claim("org.level", "3"), Builtin::Operator)
        .rule(claim("https://x/groups", "deploy"), Builtin::Deployer)
        .rule(subject, Builtin::None);
    for (issuer, id, claims, want) in [
        ("https://a", "alice", json!({}), "user"),
        ("https://a", "alice", json!({"roles": ["boss"]}), "user"),
        (
            "https://b",
            "alice",
            json!({"roles": ["x", "boss"]}),
            "admin",
        ),
        (
            "https://b",
            "alice",
            json!({"roles": ["boss", "worker"]}),
            "admin",
        ),
        (
            "https://a",
            "alice",
            json!({"roles": ["boss", "worker"]}),
            "worker",
        ),
        ("https://a", "alice", json!({"roles": ["Worker"]}), "user"),
        (
            "https://a",
            "alice",
            json!({"org": {"level": 3}}),
            "operator",
        ),
        (
            "https://a",
            "alice",
            json!({"org": {"level": [1, 3]}}),
            "operator",
        ),
        (
            "https://a",
            "alice",
            json!({"org": {"level": [[3]]}}),
            "user",
        ),
        (
            "https://a",
            "alice",
            json!({"org.level": "4", "org": {"level": 3}}),
            "user",
        ),
        (
            "https://a",
            "alice",
            json!({"https://x/groups": "deploy"}),
            "deployer",
        ),
        (
            "https://a",
            "alice",
            json!({"https://x/groups": {"deploy": true}}),
            "user",
        ),
        ("https://a", "b:carol", json!({}), "none"),
    ] {
        let caller = caller(issuer, id, claims);
        let (profile, _) = rules.profile_of(&caller);
        assert_eq!(
            &**profile.name(),
            want,
            "{issuer} {id} {:?}",
            caller.claims()
        );
    }
}

#[test]
fn a_profile_of_ones_own_adds_and_takes_away() {
    let strings = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let staff = Profile::new(
        "staff",
        &Builtin::User.into(),
        &strings(&["getProcessDefinitionStatistics", "Incident", "setAssignee"]),
        &strings(&["complete", "resolveIncident"]),
    )
    .unwrap();
    let lead = Profile::new(
        "lead",
        &staff,
        &strings(&["complete"]),
        &strings(&["Task Comment"]),
    )
    .unwrap();
    for (profile, id, want) in [
        (&staff, "getProcessDefinitionStatistics", true),
        (&staff, "getIncidents", true),
        (&staff, "resolveIncident", false),
        (&staff, "complete", false),
        (&staff, "claim", true),
        (&staff, "createDeployment", false),
        (&lead, "complete", false),
        (&lead, "getIncidents", true),
        (&lead, "createComment", false),
    ] {
        let rows = Catalogue::builtin().operations();
        let row = rows.iter().find(|row| row.id == id).unwrap();
        assert_eq!(profile.allows(row), want, "{} {id}", profile.name());
    }
    let access = decide(
        &AccessRules::new(staff.clone()),
        &Method::POST,
        "/task/1/assignee",
    )
    .unwrap();
    assert!(
        !access.members.others,
        "who may assign still assigns themselves alone"
    );
    let unknown = Profile::new("x", &staff, &strings(&["createdeployment"]), &[]).unwrap_err();
    assert_eq!(unknown, UnknownOperation("createdeployment".to_owned()));
}

/// `docs/access.md` holds every row with the profiles that may use it: a change there is a change of
/// what callers may do. `BPMGATE_BLESS=1 cargo test --lib access` writes it.
#[test]
fn the_documented_table_is_what_the_profiles_allow() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/access.md");
    let shown = [
        Builtin::User,
        Builtin::Worker,
        Builtin::Operator,
        Builtin::Deployer,
    ];
    let mut table = String::from(
        "| operation | request | `user` | `worker` | `operator` | `deployer` |\n|---|---|---|---|---|---|\n",
    );
    for row in Catalogue::builtin().operations() {
        let marks = shown.map(|profile| if profile.allows(row) { "yes" } else { "" });
        writeln!(
            table,
            "| `{}` | `{} {}` | {} |",
            row.id,
            row.method,
            row.path,
            marks.join(" | ")
        )
        .unwrap();
        assert!(Builtin::Admin.allows(row) && Builtin::Transparent.allows(row));
        assert!(!Builtin::None.allows(row));
    }
    let document = std::fs::read_to_string(path).unwrap();
    let (by_hand, generated) = document.split_once(MARKER).unwrap();
    if std::env::var_os("BPMGATE_BLESS").is_some() {
        std::fs::write(path, format!("{by_hand}{MARKER}\n\n{table}")).unwrap();
    } else {
        assert_eq!(generated.trim(), table.trim());
    }
}

const MARKER: &str =
    "<!-- Generated by `BPMGATE_BLESS=1 cargo test --lib access` from here on. -->";

/// The rule that holds is looked for once for a token, and anew by every other set of rules.
#[test]
fn what_one_set_of_rules_found_counts_for_no_other() {
    let of = |subject: &str| When {
        subject: Some(subject.to_owned()),
        ..When::default()
    };
    let none = AccessRules::new(Builtin::None);
    let others = none.clone().rule(of("bob"), Builtin::Admin);
    let hers = others.clone().rule(of("alice"), Builtin::Worker);
    let first = AccessRules::new(Builtin::User).rule(of("alice"), Builtin::Operator);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let caller = alice();
        let rules = [
            (&none, None, "none"),
            (&others, None, "none"),
            (&hers, Some(1), "worker"),
            (&first, Some(0), "operator"),
        ];
        for place in order.into_iter().chain(order) {
            let (rules, rule, profile) = rules[place];
            let (found, by) = rules.profile_of(&caller);
            assert_eq!((by, &*found.name), (rule, profile), "{order:?}");
        }
    }
}
