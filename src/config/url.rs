//! An absolute `http://` or `https://` URL, kept exactly as it was written.
//!
//! `issuer` is compared with a token's `iss` byte by byte (RFC 7519 §4.1.1), so nothing is normalized here.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::units::{Expected, Text, text};

/// An absolute `http://` or `https://` URL with a host and without user, password or fragment.
///
/// ```
/// # use bpmgate::config::HttpUrl;
/// let url: HttpUrl = "http://localhost:8080/engine-rest/".parse().unwrap();
/// assert_eq!((url.host(), url.port(), url.base_path()), ("localhost", 8080, "/engine-rest"));
/// assert!("http://demo:demo@localhost/".parse::<HttpUrl>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    text: String,
    uri: Uri,
}

impl HttpUrl {
    /// Makes a URL of a literal that is known to be one.
    pub(super) fn from_static(text: &'static str) -> Self {
        let uri = Uri::from_static(text);
        let text = text.to_owned();
        Self { text, uri }
    }

    /// Returns the URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL as the http crate knows it.
    #[must_use]
    pub fn as_uri(&self) -> &Uri {
        &self.uri
    }

    /// Says whether it is an `https://` URL.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Returns the host; an IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Returns the port, 80 or 443 where none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(default)
    }

    /// Returns the path without a trailing slash: empty for the root, else beginning with `/`.
    #[must_use]
    pub fn base_path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// Returns the query, where there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Says whether what is sent there stays on this machine: `localhost`, `*.localhost` (RFC 6761 §6.3), 127.0.0.0/8, `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host().to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        match address.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

impl FromStr for HttpUrl {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let uri: Uri = text.parse().map_err(|_| Expected(Self::EXPECTED))?;
        let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        let Some(authority) = uri.authority().filter(|_| known) else {
            return Err(Expected(Self::EXPECTED));
        };
        if authority.as_str().contains('@') {
            return Err(Expected("a URL without user name and password"));
        }
        // The http crate drops a fragment without a word.
        if text.contains('#') {
            return Err(Expected("a URL without a fragment (`#`)"));
        }
        if authority.host().is_empty() {
            return Err(Expected("a URL with a host"));
        }
        let after_host = authority.as_str().get(authority.host().len()..);
        if after_host.is_some_and(|port| !port.is_empty())
            && authority.port_u16().is_none_or(|port| port == 0)
        {
            return Err(Expected("a URL with a port from 1 to 65535"));
        }
        let text = text.to_owned();
        Ok(Self { text, uri })
    }
}

impl Text for HttpUrl {
    const EXPECTED: &'static str = "an absolute URL with `http://` or `https://`";
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

impl JsonSchema for HttpUrl {
    fn schema_name() -> Cow<'static, str> {
        "HttpUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_without_credentials_or_fragment_parse() {
        let rows = [
            ("http://localhost:8080/engine-rest", true),
            ("https://clerk.example.com", true),
            ("https://clerk.example.com/", true),
            ("HTTPS://EXAMPLE.com", true),
            ("http://[::1]:8080/engine-rest", true),
            ("http://127.0.0.1", true),
            ("https://example.com/jwks?tenant=a", true),
            ("", false),
            ("localhost:8080", false),
            ("/engine-rest", false),
            ("ftp://example.com", false),
            ("http://", false),
            ("http:///engine-rest", false),
            ("http://:8080/engine-rest", false),
            ("http://example.com:0/", false),
            ("http://example.com:65536/", false),
            ("http://example.com:/", false),
            ("http://example.com:80a/", false),
            ("http://demo:demo@example.com/", false),
            ("http://demo@example.com/", false),
            ("http://example.com/#top", false),
            ("http://example.com/a b", false),
            (" http://example.com/", false),
            ("http://exämple.com/", false),
        ];
        for (text, good) in rows {
            assert_eq!(text.parse::<HttpUrl>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn the_text_stays_as_written() {
        for text in [
            "https://EXAMPLE.com",
            "https://example.com/",
            "https://example.com:443",
        ] {
            assert_eq!(text.parse::<HttpUrl>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn loopback_hosts_are_known() {
        let rows = [
            ("http://localhost", true),
            ("http://LOCALHOST:8080", true),
            ("http://engine.localhost", true),
            ("http://127.0.0.1", true),
            ("http://127.8.9.10", true),
            ("http://[::1]:8080", true),
            ("http://localhost.example.com", false),
            ("http://notlocalhost", false),
            ("http://10.0.0.1", false),
            ("http://[::2]", false),
            ("http://0.0.0.0", false),
        ];
        for (text, loopback) in rows {
            assert_eq!(
                text.parse::<HttpUrl>().unwrap().is_loopback(),
                loopback,
                "{text}"
            );
        }
    }
}
