//! The rules of one issuer, and what is known of well-known ones.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::claims::{ClaimPaths, MAX_ID_BYTES};

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
    /// If not empty, the client must be named (`azp`, or as the [`Preset`] names it) and be one of these.
    pub authorized_parties: Vec<String>,
    /// The algorithms its tokens may use, all of public keys or all of a shared secret; default RS256.
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
    /// `algorithms` has both kinds: who can get hold of a public key must never be able to sign with it.
    #[error("algorithms of public keys and of a shared secret are mixed")]
    MixedAlgorithms,
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
        let mut symmetric = rules.algorithms.iter().map(|one| one.is_symmetric());
        let first = symmetric.next();
        if symmetric.any(|next| Some(next) != first) {
            return Err(IssuerError::MixedAlgorithms);
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

/// A well-known kind of issuer: where its keys are, what its tokens look like, and how its access tokens
/// are told from its other ones.
///
/// A header `typ` of `at+jwt` always tells (RFC 9068 §2.1). Other presets than those that say so below take
/// any token for the configured audience, as they have no other mark or give only one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Clerk. Its session tokens have no `aud`; `azp` says which front end. Tokens with `at_hash` or `c_hash` are ID tokens, and refused.
    Clerk,
    /// Auth0. The issuer ends with a slash. Access tokens name the client in `azp` or `client_id`; ID tokens do not, and are refused.
    Auth0,
    /// Keycloak: `https://host/realms/name`. Only tokens whose claim `typ` is `Bearer` are accepted: no ID, refresh or offline tokens.
    Keycloak,
    /// Microsoft Entra ID. Access tokens name the client in `azp` or `appid`; ID tokens do not, and are refused.
    Entra,
    /// Amazon Cognito. Only tokens whose `token_use` is `access` are accepted. They have no `aud`, and the client is in `client_id`; groups are the roles.
    Cognito,
    /// ZITADEL. Its roles are an object. Tokens with `at_hash` or `c_hash` are ID tokens, and refused.
    Zitadel,
    /// Supabase: `https://ref.supabase.co/auth/v1`; audience `authenticated`. Tokens with `at_hash` or `c_hash` are ID tokens, and refused. A project's old JWT secret goes into `hs_secret`.
    Supabase,
    /// Firebase Authentication: `https://securetoken.google.com/project`, audience the project. It gives ID tokens only, so these are accepted.
    Firebase,
    /// Okta, a custom authorization server. Access tokens name the client in `cid`; ID tokens do not, and are refused.
    Okta,
    /// Google: `https://accounts.google.com`, audience the client id. It gives ID tokens only, so these are accepted.
    Google,
    /// Any other, with a discovery document. How its access tokens differ from its ID tokens is not known, so the audience must tell them apart.
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
    /// The claims that name the client that asked for the token; the first that is there counts.
    client: &'static [&'static str],
    access: Access,
}

/// How an access token is told from other tokens, where its header does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A claim has this value.
    Says(&'static str, &'static str),
    /// It names the client that asked for it.
    NamesClient,
    /// It has no hash of another token (`OpenID` Connect Core 1.0 §3.1.3.6, §3.3.2.11).
    HasNoHash,
    /// Not at all.
    Unmarked,
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
        use Access::{HasNoHash, NamesClient, Says, Unmarked};
        use KnownKeys::{Discovery, Path, Url};
        // RFC 9068 §2.2 and RFC 8693 §4.3 name it `client_id`, OpenID Connect Core 1.0 §2 `azp`.
        const CLIENT: &[&str] = &["azp", "client_id"];
        match self {
            Self::Clerk => &Known { name: "clerk", keys: Path("/.well-known/jwks.json"), any_audience: true, roles: &[], client: CLIENT, access: HasNoHash },
            Self::Auth0 => &Known { name: "auth0", keys: Path("/.well-known/jwks.json"), any_audience: false, roles: &[], client: CLIENT, access: NamesClient },
            Self::Keycloak => &Known { name: "keycloak", keys: Path("/protocol/openid-connect/certs"), any_audience: false, roles: &[], client: CLIENT, access: Says("typ", "Bearer") },
            Self::Entra => &Known { name: "entra", keys: Discovery, any_audience: false, roles: &[], client: &["azp", "appid"], access: NamesClient },
            Self::Cognito => &Known { name: "cognito", keys: Path("/.well-known/jwks.json"), any_audience: true, roles: &["cognito:groups"], client: &["client_id"], access: Says("token_use", "access") },
            Self::Zitadel => &Known { name: "zitadel", keys: Discovery, any_audience: false, roles: &["urn:zitadel:iam:org:project:roles"], client: CLIENT, access: HasNoHash },
            Self::Supabase => &Known { name: "supabase", keys: Path("/.well-known/jwks.json"), any_audience: false, roles: &[], client: CLIENT, access: HasNoHash },
            Self::Firebase => &Known { name: "firebase", keys: Url("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"), any_audience: false, roles: &[], client: CLIENT, access: Unmarked },
            Self::Okta => &Known { name: "okta", keys: Discovery, any_audience: false, roles: &[], client: &["cid"], access: NamesClient },
            Self::Google => &Known { name: "google", keys: Url("https://www.googleapis.com/oauth2/v3/certs"), any_audience: false, roles: &[], client: CLIENT, access: Unmarked },
            Self::Oidc => &Known { name: "oidc", keys: Discovery, any_audience: false, roles: &[], client: CLIENT, access: Unmarked },
        }
    }

    /// The claims that name the client that asked for a token; the first that is there counts.
    #[must_use]
    pub fn client_claims(self) -> &'static [&'static str] {
        self.known().client
    }

    pub(super) fn access(self) -> Access {
        self.known().access
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
        for (algorithms, result) in [
            (
                [Algorithm::Hs256, Algorithm::Rs256],
                Err(IssuerError::MixedAlgorithms),
            ),
            (
                [Algorithm::Es512, Algorithm::Hs512],
                Err(IssuerError::MixedAlgorithms),
            ),
            ([Algorithm::Hs256, Algorithm::Hs512], Ok(())),
            ([Algorithm::Rs256, Algorithm::Ed25519], Ok(())),
        ] {
            let mut rules = IssuerRules::new(Preset::Clerk, "https://issuer.example");
            rules.algorithms = algorithms.to_vec();
            assert_eq!(Issuer::new(rules).map(drop), result, "{algorithms:?}");
        }
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
}
