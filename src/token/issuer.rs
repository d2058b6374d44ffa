//! The rules of one issuer, and what is known of well-known ones.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::claims::{ClaimPaths, MAX_ID_BYTES};
use super::jws::Algorithm;

/// What a token must say to be this issuer's, and how its claims are read.
///
/// Cheap to clone. Made from [`IssuerRules`].
#[derive(Clone)]
pub struct Issuer(Arc<Rules>);

struct Rules {
    issuer: Arc<str>,
    rules: IssuerRules,
}

/// The rules of one issuer, as an operator writes them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IssuerRules {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// What the other defaults come from; default [`Preset::Oidc`].
    pub preset: Preset,
    /// One of these must be in `aud`; empty only where [`Preset::allows_any_audience`].
    pub audience: Vec<String>,
    /// If not empty, `azp` must be there and be one of these.
    pub authorized_parties: Vec<String>,
    /// The algorithms its tokens may use; default RS256.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours; default 5 s, at most [`IssuerRules::MAX_LEEWAY`].
    pub leeway: Duration,
    /// Put before the caller's id; default empty.
    pub id_prefix: String,
    /// Which claims are what; default those of the preset.
    pub claims: ClaimPaths,
}

impl IssuerRules {
    /// The greatest `leeway`: more would let a token outlive its end by a time that nobody expects.
    pub const MAX_LEEWAY: Duration = Duration::from_mins(5);

    /// The defaults for an issuer of this kind: no audience yet, RS256, 5 s.
    #[must_use]
    pub fn new(preset: Preset, issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            preset,
            audience: Vec::new(),
            authorized_parties: Vec::new(),
            algorithms: vec![Algorithm::Rs256],
            leeway: Duration::from_secs(5),
            id_prefix: String::new(),
            claims: preset.claims(),
        }
    }
}

/// Why the rules of an issuer cannot stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// `issuer` is empty.
    #[error("the issuer is empty")]
    NoIssuer,
    /// `audience` is empty and the preset does not allow it.
    #[error(
        "the audience is empty: a token that the issuer {issuer} made for any other application would be accepted"
    )]
    NoAudience {
        /// Of which issuer.
        issuer: String,
    },
    /// `audience` or `authorized_parties` has an empty string.
    #[error("an audience or authorized party is empty")]
    EmptyName,
    /// `algorithms` is empty.
    #[error("no algorithm is allowed")]
    NoAlgorithm,
    /// `leeway` is over five minutes.
    #[error("the leeway is {0:?}, more than 5 minutes")]
    Leeway(Duration),
    /// `id_prefix` is too long or has a control character.
    #[error("the id prefix is too long or has a control character")]
    IdPrefix,
    /// `claims.id` is empty.
    #[error("no claim is named for the id")]
    NoIdClaim,
}

impl Issuer {
    /// Takes the rules, if they can stand.
    ///
    /// # Errors
    /// [`IssuerError`] for the first rule that cannot.
    pub fn new(rules: IssuerRules) -> Result<Self, IssuerError> {
        if rules.issuer.is_empty() {
            return Err(IssuerError::NoIssuer);
        }
        if rules.audience.is_empty() && !rules.preset.allows_any_audience() {
            return Err(IssuerError::NoAudience {
                issuer: rules.issuer,
            });
        }
        let mut names = rules.audience.iter().chain(&rules.authorized_parties);
        if names.any(String::is_empty) {
            return Err(IssuerError::EmptyName);
        }
        if rules.algorithms.is_empty() {
            return Err(IssuerError::NoAlgorithm);
        }
        if rules.leeway > IssuerRules::MAX_LEEWAY {
            return Err(IssuerError::Leeway(rules.leeway));
        }
        if rules.id_prefix.len() >= MAX_ID_BYTES || rules.id_prefix.chars().any(char::is_control) {
            return Err(IssuerError::IdPrefix);
        }
        if rules.claims.id.is_empty() {
            return Err(IssuerError::NoIdClaim);
        }
        Ok(Self(Arc::new(Rules {
            issuer: rules.issuer.as_str().into(),
            rules,
        })))
    }

    /// The exact `iss` of its tokens.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.issuer
    }

    /// The rules it was made from.
    #[must_use]
    pub fn rules(&self) -> &IssuerRules {
        &self.0.rules
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.0.issuer
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.rules.fmt(f)
    }
}

/// A well-known kind of issuer: where its keys are, and what its tokens look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Clerk. Its session tokens have no `aud`; `azp` says which front end.
    Clerk,
    /// Auth0. The issuer ends with a slash.
    Auth0,
    /// Keycloak: `https://host/realms/name`.
    Keycloak,
    /// Microsoft Entra ID.
    Entra,
    /// Amazon Cognito. Its access tokens have no `aud`; its groups are the roles.
    Cognito,
    /// ZITADEL. Its roles are an object.
    Zitadel,
    /// Supabase: `https://ref.supabase.co/auth/v1`; asymmetric signing keys only, audience `authenticated`.
    Supabase,
    /// Firebase Authentication: `https://securetoken.google.com/project`, audience the project.
    Firebase,
    /// Okta, the organization or a custom authorization server.
    Okta,
    /// Google: `https://accounts.google.com`, audience the client id.
    Google,
    /// Any other, with a discovery document.
    #[default]
    Oidc,
}

/// What is known of one kind of issuer: a row of the table in [`Preset::known`].
struct Known {
    name: &'static str,
    keys: KnownKeys,
    any_audience: bool,
    /// Roles beside the default ones.
    roles: &'static [&'static str],
}

enum KnownKeys {
    /// Below the issuer.
    Path(&'static str),
    /// The same for all issuers.
    Url(&'static str),
    /// Told by `/.well-known/openid-configuration`.
    Discovery,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 11] = [
        Self::Clerk,
        Self::Auth0,
        Self::Keycloak,
        Self::Entra,
        Self::Cognito,
        Self::Zitadel,
        Self::Supabase,
        Self::Firebase,
        Self::Okta,
        Self::Google,
        Self::Oidc,
    ];

    /// The one table of what is known.
    ///
    /// Email and name claims stay the standard ones everywhere: Supabase's `user_metadata`, for one, is
    /// the user's own to write, and must not name an initiator.
    #[rustfmt::skip]
    const fn known(self) -> &'static Known {
        use KnownKeys::{Discovery, Path, Url};
        match self {
            Self::Clerk => &Known { name: "clerk", keys: Path("/.well-known/jwks.json"), any_audience: true, roles: &[] },
            Self::Auth0 => &Known { name: "auth0", keys: Path("/.well-known/jwks.json"), any_audience: false, roles: &[] },
            Self::Keycloak => &Known { name: "keycloak", keys: Path("/protocol/openid-connect/certs"), any_audience: false, roles: &[] },
            Self::Entra => &Known { name: "entra", keys: Discovery, any_audience: false, roles: &[] },
            Self::Cognito => &Known { name: "cognito", keys: Path("/.well-known/jwks.json"), any_audience: true, roles: &["cognito:groups"] },
            Self::Zitadel => &Known { name: "zitadel", keys: Discovery, any_audience: false, roles: &["urn:zitadel:iam:org:project:roles"] },
            Self::Supabase => &Known { name: "supabase", keys: Path("/.well-known/jwks.json"), any_audience: false, roles: &[] },
            Self::Firebase => &Known { name: "firebase", keys: Url("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"), any_audience: false, roles: &[] },
            Self::Okta => &Known { name: "okta", keys: Discovery, any_audience: false, roles: &[] },
            Self::Google => &Known { name: "google", keys: Url("https://www.googleapis.com/oauth2/v3/certs"), any_audience: false, roles: &[] },
            Self::Oidc => &Known { name: "oidc", keys: Discovery, any_audience: false, roles: &[] },
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.known().name
    }

    /// Whether tokens of this kind of issuer are commonly without `aud`, so that none need be configured.
    #[must_use]
    pub fn allows_any_audience(self) -> bool {
        self.known().any_audience
    }

    /// Where the keys of an issuer of this kind are; `None` if discovery tells.
    #[must_use]
    pub fn jwks_url(self, issuer: &str) -> Option<String> {
        match self.known().keys {
            KnownKeys::Path(path) => Some([issuer.trim_end_matches('/'), path].concat()),
            KnownKeys::Url(url) => Some(url.to_owned()),
            KnownKeys::Discovery => None,
        }
    }

    /// Which claims are what in the tokens of this kind of issuer.
    #[must_use]
    pub fn claims(self) -> ClaimPaths {
        let mut paths = ClaimPaths::default();
        let more = self.known().roles.iter().map(|path| (*path).to_owned());
        paths.roles.extend(more);
        paths
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not one of [`Preset::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset")]
pub struct UnknownPreset;

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        Self::ALL
            .into_iter()
            .find(|preset| preset.as_str() == name)
            .ok_or(UnknownPreset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cannot_stand_are_refused() {
        let with = |change: fn(&mut IssuerRules)| {
            let mut rules = IssuerRules::new(Preset::Oidc, "https://issuer.example");
            rules.audience = vec!["us".to_owned()];
            change(&mut rules);
            Issuer::new(rules).map(drop)
        };
        assert_eq!(
            with(|rules| rules.issuer.clear()),
            Err(IssuerError::NoIssuer)
        );
        assert_eq!(
            with(|rules| rules.audience.clear()),
            Err(IssuerError::NoAudience {
                issuer: "https://issuer.example".to_owned()
            })
        );
        assert_eq!(
            with(|rules| rules.audience.push(String::new())),
            Err(IssuerError::EmptyName)
        );
        assert_eq!(
            with(|rules| rules.authorized_parties.push(String::new())),
            Err(IssuerError::EmptyName)
        );
        assert_eq!(
            with(|rules| rules.algorithms.clear()),
            Err(IssuerError::NoAlgorithm)
        );
        assert_eq!(
            with(|rules| rules.leeway = Duration::from_millis(300_001)),
            Err(IssuerError::Leeway(Duration::from_millis(300_001)))
        );
        assert_eq!(
            with(|rules| rules.id_prefix = "a\n".to_owned()),
            Err(IssuerError::IdPrefix)
        );
        assert_eq!(
            with(|rules| rules.id_prefix = "a".repeat(255)),
            Err(IssuerError::IdPrefix)
        );
        assert_eq!(
            with(|rules| rules.claims.id.clear()),
            Err(IssuerError::NoIdClaim)
        );
        assert_eq!(with(|rules| rules.leeway = Duration::from_mins(5)), Ok(()));
        assert_eq!(with(|rules| rules.id_prefix = "a".repeat(254)), Ok(()));
    }

    #[test]
    fn presets_know_where_keys_are_and_who_needs_no_audience() {
        let table: Vec<_> = Preset::ALL
            .into_iter()
            .map(|preset| {
                (
                    preset.as_str(),
                    preset.jwks_url("https://issuer.example/"),
                    preset.allows_any_audience(),
                )
            })
            .collect();
        let own = |path| Some(format!("https://issuer.example{path}"));
        let google = |path| Some(format!("https://www.googleapis.com/{path}"));
        assert_eq!(
            table,
            [
                ("clerk", own("/.well-known/jwks.json"), true),
                ("auth0", own("/.well-known/jwks.json"), false),
                ("keycloak", own("/protocol/openid-connect/certs"), false),
                ("entra", None, false),
                ("cognito", own("/.well-known/jwks.json"), true),
                ("zitadel", None, false),
                ("supabase", own("/.well-known/jwks.json"), false),
                (
                    "firebase",
                    google("service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"),
                    false
                ),
                ("okta", None, false),
                ("google", google("oauth2/v3/certs"), false),
                ("oidc", None, false),
            ]
        );
        for preset in Preset::ALL {
            assert_eq!(preset.as_str().parse(), Ok(preset));
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.as_str());
        }
        assert_eq!("Clerk".parse::<Preset>(), Err(UnknownPreset));
    }

    #[test]
    fn algorithm_names_are_those_of_the_registry() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
        }
    }
}
