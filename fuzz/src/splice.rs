//! The rewriting of a body: what a reader for whom the last of two names wins holds afterwards is the
//! caller's document, with our initiator in every place and with nobody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use bpmgate::access::{Access, Builtin, ObjectTypes};
use bpmgate::identity::{Identity, Parts};
use bpmgate::initiator::{Messages, Plan, Settings, plan};
use bpmgate::operation::{Catalogue, Matched};
use http::Method;
use serde_json::value::RawValue;

/// A request whose body is rewritten, and its places as they are known here, apart from the catalogue.
struct Request {
    path: &'static str,
    places: &'static [&'static [&'static str]],
    /// The member that gets our initiator.
    written: Option<&'static str>,
    messages: Messages,
}

const REQUESTS: [Request; 4] = [
    Request {
        path: "/process-definition/key/order/start",
        places: &[&["variables"], &["startInstructions", EACH, "variables"]],
        written: Some("variables"),
        messages: Messages::Protect,
    },
    Request {
        path: "/task/t/complete",
        places: &[&["variables"]],
        written: None,
        messages: Messages::Protect,
    },
    Request {
        path: "/message",
        places: MESSAGE,
        written: None,
        messages: Messages::Protect,
    },
    Request {
        path: "/message",
        places: MESSAGE,
        written: Some("processVariables"),
        messages: Messages::Inject,
    },
];

const MESSAGE: &[&[&str]] = &[
    &["processVariables"],
    &["processVariablesLocal"],
    &["processVariablesToTriggeredScope"],
];

/// Each element of an array, as a step.
const EACH: &str = "[]";

/// The protected names, the model's own last, and what they must be.
const OURS: [(&str, &str); 4] = [
    ("initiator", r#"{"value":"user_ada","type":"String"}"#),
    (
        "initiatorEmail",
        r#"{"value":"ada@example.org","type":"String"}"#,
    ),
    ("initiatorName", r#"{"value":"Ada \"\\","type":"String"}"#),
    ("starter", r#"{"value":"user_ada","type":"String"}"#),
];

static ADA: LazyLock<Identity> = LazyLock::new(|| {
    let mut ada = Parts::new("https://id.example", "user_ada", SystemTime::UNIX_EPOCH);
    ada.email = Some("ada@example.org".into());
    ada.name = Some("Ada \"\\".into());
    Identity::new(ada)
});

/// The input is a request's body.
pub fn check(input: &[u8]) {
    for request in &REQUESTS {
        for profile in [Builtin::User, Builtin::Transparent] {
            if let Some(sent) = rewritten(request, profile, input) {
                assert_rewritten(request, input, &sent);
                if profile == Builtin::User && request.path.ends_with("/start") {
                    assert_skips_nothing(&sent);
                }
                assert_eq!(
                    rewritten(request, profile, &sent).as_deref(),
                    Some(&*sent),
                    "not idempotent"
                );
            }
        }
    }
}

/// The body that is sent, or `None` where it is refused.
fn rewritten(request: &Request, profile: Builtin, body: &[u8]) -> Option<Vec<u8>> {
    let mut settings = Settings::default();
    settings.messages = request.messages;
    let Matched::Operation(matched) = Catalogue::builtin().find(&Method::POST, request.path) else {
        unreachable!("{} is a row", request.path)
    };
    let Plan::Rewrite(rules) = plan(&settings, &matched) else {
        unreachable!("{} is read", request.path)
    };
    let access = Access {
        profile: Arc::from(profile.as_str()),
        rule: None,
        object_types: ObjectTypes::default(),
        members: profile.members(),
    };
    let model = ["starter".into()];
    let applied = rules.apply(&settings, &ADA, &access, &model, None, body);
    applied
        .ok()
        .map(|edited| edited.unwrap_or_else(|| body.to_vec()))
}

fn assert_rewritten(request: &Request, input: &[u8], sent: &[u8]) {
    let input = if input.is_empty() { b"{}" } else { input };
    let sent = if sent.is_empty() { b"{}" } else { sent };
    let mut wanted = Reading::of(std::str::from_utf8(input).expect("UTF-8"));
    for place in request.places {
        wanted.remove_protected(place);
    }
    if let (Some(member), Reading::Object(document)) = (request.written, &mut wanted) {
        let map = document
            .entry(member.to_owned())
            .or_insert_with(|| Reading::Object(BTreeMap::new()));
        if matches!(map, Reading::Leaf(null) if null == "null") {
            *map = Reading::Object(BTreeMap::new());
        }
        let Reading::Object(map) = map else {
            panic!("accepted with a `{member}` that is no object")
        };
        for (name, value) in OURS {
            map.insert(name.to_owned(), Reading::of(value));
        }
    }
    let read = Reading::of(std::str::from_utf8(sent).expect("UTF-8"));
    assert_eq!(read, wanted, "another document on {}", request.path);
}

/// The profile `user` starts processes from their beginning.
fn assert_skips_nothing(sent: &[u8]) {
    if let Reading::Object(document) = Reading::of(std::str::from_utf8(sent).expect("UTF-8")) {
        for name in ["startInstructions", "skipCustomListeners", "skipIoMappings"] {
            assert!(!document.contains_key(name), "{name} passes");
        }
    }
}

/// A document as `serde_json` reads it, the last of two names wins; a scalar stays the text it is.
#[derive(Debug, PartialEq)]
enum Reading {
    Object(BTreeMap<String, Reading>),
    Array(Vec<Reading>),
    Leaf(String),
}

impl Reading {
    /// Level by level, as a whole `Value` has bounds of its own: 128 levels, numbers that fit an `f64`.
    fn of(text: &str) -> Self {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.starts_with('{') {
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).expect("an object");
            let members = members.into_iter();
            Self::Object(
                members
                    .map(|(name, value)| (name, Self::of(value.get())))
                    .collect(),
            )
        } else if text.starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
            Self::Array(
                elements
                    .into_iter()
                    .map(|value| Self::of(value.get()))
                    .collect(),
            )
        } else {
            let scalar: &RawValue = serde_json::from_str(text).expect("a scalar");
            Self::Leaf(scalar.get().to_owned())
        }
    }

    fn remove_protected(&mut self, place: &[&str]) {
        match (place.split_first(), self) {
            (None, Self::Object(map)) => {
                map.retain(|name, _| !OURS.iter().any(|(protected, _)| protected == name));
            }
            (Some((&EACH, rest)), Self::Array(elements)) => {
                for element in elements {
                    element.remove_protected(rest);
                }
            }
            (Some((step, rest)), Self::Object(members)) => {
                if let Some(member) = members.get_mut(*step) {
                    member.remove_protected(rest);
                }
            }
            (_, Self::Array(_) | Self::Leaf(_)) => {}
        }
    }
}
