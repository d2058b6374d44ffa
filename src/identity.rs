//! Who calls: the one value that every later decision rests on.
//!
//! An [`Identity`] is made from the claims of a verified token (see [`crate::token`]) and from
//! nothing else; no header, path or body of the request takes part. It is cheap to clone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::problem::Problem;

/// The caller, as the verified token names them.
///
/// Put into the request's extensions by [`ExtractIdentityLayer`](crate::layer::ExtractIdentityLayer).
#[derive(Clone)]
pub struct Identity(Arc<Known>);

struct Known {
    parts: Parts,
    /// Which access rule holds for them, by the rules that were asked first.
    rule: OnceLock<(RulesId, Option<usize>)>,
}

/// Tells sets of access rules apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RulesId(u64);

impl RulesId {
    /// One that no other has.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What an [`Identity`] is made of.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Parts {
    /// The token's `iss`.
    pub issuer: Arc<str>,
    /// The caller's id, the issuer's `id_prefix` included; never empty, at most 255 bytes, no control characters.
    pub id: String,
    /// The email, if a configured claim has one; at most 4000 characters, no control characters.
    pub email: Option<String>,
    /// The full name, if the token has any: `name`, else first and last name joined.
    pub name: Option<String>,
    /// The first name.
    pub first_name: Option<String>,
    /// The last name.
    pub last_name: Option<String>,
    /// The roles of all configured role claims.
    pub roles: Vec<String>,
    /// The tenant, if configured.
    pub tenant: Option<String>,
    /// When the token ends.
    pub expires: SystemTime,
    /// Every claim of the token.
    pub claims: Arc<Map<String, Value>>,
}

impl Parts {
    /// What nobody is without; everything else is empty.
    ///
    /// For callers whom something else than a token names, such as a session of your own.
    ///
    /// # Examples
    /// ```
    /// use bpmgate::identity::{Identity, Parts};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let mut alice = Parts::new("https://id.example", "alice", SystemTime::now() + Duration::from_mins(1));
    /// alice.email = Some("alice@example.org".into());
    /// assert_eq!(Identity::new(alice).name(), "alice@example.org");
    /// ```
    #[must_use]
    pub fn new(issuer: impl Into<Arc<str>>, id: impl Into<String>, expires: SystemTime) -> Self {
        Self {
            issuer: issuer.into(),
            id: id.into(),
            email: None,
            name: None,
            first_name: None,
            last_name: None,
            roles: Vec::new(),
            tenant: None,
            expires,
            claims: Arc::default(),
        }
    }
}

impl Identity {
    /// Wraps the parts. The token layer makes sure that they come from a verified token.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let rule = OnceLock::new();
        Self(Arc::new(Known { parts, rule }))
    }

    /// The token's `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.parts.issuer
    }

    /// The caller's id: what is written as `initiator`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.parts.id
    }

    /// The email, if the token has one.
    #[must_use]
    pub fn email(&self) -> Option<&str> {
        self.0.parts.email.as_deref()
    }

    /// The full name: the token's name, else the email, else the id; so there always is one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0
            .parts
            .name
            .as_deref()
            .or(self.email())
            .unwrap_or(self.id())
    }

    /// The first name, if the token has one.
    #[must_use]
    pub fn first_name(&self) -> Option<&str> {
        self.0.parts.first_name.as_deref()
    }

    /// The last name, if the token has one.
    #[must_use]
    pub fn last_name(&self) -> Option<&str> {
        self.0.parts.last_name.as_deref()
    }

    /// The caller's roles.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.0.parts.roles
    }

    /// The caller's tenant, if one is configured and present.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.parts.tenant.as_deref()
    }

    /// When the token ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.parts.expires
    }

    /// Refuses what has been read of a request long after its token's end: whoever sends a body for hours would
    /// else act with a token that is over.
    ///
    /// # Errors
    /// [`Problem::TokenExpired`], a minute after the end.
    pub fn check_not_long_over(&self) -> Result<(), Problem> {
        if self.expires() + LATE_BODY < SystemTime::now() {
            return Err(Problem::TokenExpired);
        }
        Ok(())
    }

    /// What `find` finds for these parts, which never change; it is asked once for a token, however many its requests are.
    pub(crate) fn rule_by(
        &self,
        rules: RulesId,
        find: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        match self.0.rule.get() {
            Some((known, rule)) if *known == rules => *rule,
            Some(_) => find(),
            None => {
                let rule = find();
                let _ = self.0.rule.set((rules, rule));
                rule
            }
        }
    }

    /// Every claim of the token.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.0.parts.claims
    }
}

/// How long after its token's end a request's body may have arrived.
const LATE_BODY: Duration = Duration::from_mins(1);

/// Shows whose identity it is, but no claim.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.0.parts.issuer)
            .field("id", &self.0.parts.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Somebody with an email and a name.
    pub(crate) fn alice() -> Identity {
        Identity::new(Parts {
            issuer: "https://issuer.example".into(),
            id: "alice".to_owned(),
            email: Some("alice@example.org".to_owned()),
            name: Some("Alice Liddell".to_owned()),
            first_name: None,
            last_name: None,
            roles: Vec::new(),
            tenant: None,
            expires: SystemTime::now() + Duration::from_hours(1),
            claims: Arc::default(),
        })
    }

    #[test]
    fn there_always_is_a_name() {
        let nameless = Parts {
            name: None,
            ..alice().0.parts.clone()
        };
        assert_eq!(Identity::new(nameless.clone()).name(), "alice@example.org");
        assert_eq!(
            Identity::new(Parts {
                email: None,
                ..nameless
            })
            .name(),
            "alice"
        );
    }

    #[test]
    fn debug_shows_no_claim() {
        let mut parts = alice().0.parts.clone();
        parts.claims = Arc::new(
            [("secret".to_owned(), Value::from("hush"))]
                .into_iter()
                .collect(),
        );
        assert!(!format!("{:?}", Identity::new(parts)).contains("hush"));
    }
}
