//! The people whom the demo's issuer speaks for.

use serde_json::{Value, json};

use super::issuer::Issuer;

/// A person of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The `sub` of the tokens.
    pub subject: &'static str,
    /// The `email` of the tokens.
    pub email: &'static str,
    /// The `name` of the tokens.
    pub name: &'static str,
    /// The one element of `roles` in the tokens, if any.
    pub role: Option<&'static str>,
    /// What the person is there for, in a few words.
    pub part: &'static str,
}

impl Person {
    /// What a token for the gateway says of this person.
    #[must_use]
    pub fn claims(self) -> Value {
        let mut claims = json!({
            "sub": self.subject,
            "email": self.email,
            "name": self.name,
            "aud": AUDIENCE,
        });
        if let (Some(role), Some(members)) = (self.role, claims.as_object_mut()) {
            members.insert("roles".to_owned(), json!([role]));
        }
        claims
    }

    /// A token for this person, good for an hour.
    #[must_use]
    pub fn token(self, issuer: &Issuer) -> String {
        issuer.token(&self.claims())
    }
}

/// The `aud` of the tokens.
pub const AUDIENCE: &str = "bpmgate-demo";

/// The role that the demo gives the profile `operator`.
pub const OPERATOR: &str = "operator";

/// Who asks.
pub const ALICE: Person = Person {
    subject: "alice",
    email: "alice@example.org",
    name: "Alice Example",
    role: None,
    part: "asks for things",
};

/// Who decides.
pub const BOB: Person = Person {
    subject: "bob",
    email: "bob@example.org",
    name: "Bob Example",
    role: None,
    part: "decides",
};

/// Who may suspend and cancel.
pub const OLGA: Person = Person {
    subject: "olga",
    email: "olga@example.org",
    name: "Olga Operator",
    role: Some(OPERATOR),
    part: "may suspend and cancel",
};

/// All of them.
pub const PEOPLE: [Person; 3] = [ALICE, BOB, OLGA];
