//! A public path under which the engine's REST API is served, such as `/api`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::units::{Expected, Text, text};

/// A normal path prefix: begins with `/`, ends without, holds one segment or more and none that needs decoding.
///
/// `/` alone is none: the gateway's own routes (`/health`, `/docs`, `/openapi.json`) and every other prefix would lie under it.
///
/// ```
/// # use bpmgate::config::Prefix;
/// let prefix: Prefix = "/engine-rest".parse().unwrap();
/// assert!(prefix.covers("/engine-rest/task") && !prefix.covers("/engine-rests"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Makes a prefix of a literal that is known to be one.
    pub(super) fn from_static(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the prefix as a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether a path is the prefix or lies under it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        is_under(path, &self.0)
    }
}

impl FromStr for Prefix {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(Expected("a path that begins with `/`"));
        };
        if path.is_empty() {
            return Err(Expected(
                "a path of at least one segment: under `/` alone would lie the gateway's own routes",
            ));
        }
        if path.ends_with('/') {
            return Err(Expected("a path without a slash at its end"));
        }
        if path
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err(Expected("a path without empty segments, `.` or `..`"));
        }
        if !path.bytes().all(is_plain) {
            return Err(Expected("a path of letters, digits and `-._~/` alone"));
        }
        let prefix = Self(text.to_owned());
        if OWN_ROUTES
            .iter()
            .any(|own| prefix.covers(own) || is_under(text, own))
        {
            return Err(Expected(
                "a path apart from `/health`, `/docs` and `/openapi.json`, which the gateway answers itself",
            ));
        }
        Ok(prefix)
    }
}

impl Text for Prefix {
    const EXPECTED: &'static str = "a path such as \"/api\"";
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(/[A-Za-z0-9._~-]+)+$" })
    }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// RFC 3986 §2.3 unreserved, or the slash: what normalization leaves as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte)
}

/// Answered by the gateway without a token; see the routes of the contract.
const OWN_ROUTES: [&str; 3] = ["/health", "/docs", "/openapi.json"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_paths_apart_from_our_own_parse() {
        let rows = [
            ("/api", true),
            ("/engine-rest", true),
            ("/bpm/api.v1_~", true),
            ("/healthy", true),
            ("/doc", true),
            ("/api/health", true),
            ("", false),
            ("/", false),
            ("//", false),
            ("api", false),
            ("/api/", false),
            ("//api", false),
            ("/a//b", false),
            ("/a/./b", false),
            ("/a/..", false),
            ("/a%2fb", false),
            ("/a;b", false),
            ("/a\\b", false),
            ("/a b", false),
            ("/ä", false),
            ("/api?x", false),
            ("/health", false),
            ("/docs", false),
            ("/docs/api", false),
            ("/health/engine", false),
            ("/openapi.json", false),
        ];
        for (text, good) in rows {
            assert_eq!(text.parse::<Prefix>().is_ok(), good, "{text:?}");
        }
    }
}
