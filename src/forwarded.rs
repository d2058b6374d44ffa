//! Who the client is and how it reached us: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! The client's own headers are believed only from a trusted proxy; from anybody else they are
//! replaced. So the engine's log shows the address that the gateway saw.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ipnet::IpNet;

use crate::request_info::Peer;

/// The networks of the proxies whose word is taken.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts the proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this address is a trusted proxy's.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// How the client reached the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`, as the client used it.
    pub proto: &'static str,
    /// The host that the client asked for.
    pub host: Option<HeaderValue>,
}

impl Origin {
    /// Reads it from a request's headers, its target and its peer.
    #[must_use]
    pub fn of(
        headers: &HeaderMap,
        uri: &Uri,
        peer: Option<Peer>,
        trusted: &TrustedProxies,
    ) -> Self {
        let own_proto = if peer.is_some_and(|peer| peer.tls) {
            "https"
        } else {
            "http"
        };
        if !peer.is_some_and(|peer| trusted.contains(peer.address)) {
            return Self {
                proto: own_proto,
                host: own_host(headers, uri),
            };
        }
        let proto = match headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ => own_proto,
        };
        let host = headers
            .get(X_FORWARDED_HOST)
            .cloned()
            .or_else(|| own_host(headers, uri));
        Self { proto, host }
    }

    /// The host as text, where it is made of a host's characters alone.
    #[must_use]
    pub fn plain_host(&self) -> Option<&str> {
        let host = self.host.as_ref()?.to_str().ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
        (!host.is_empty() && host.bytes().all(plain)).then_some(host)
    }
}

/// The host of this very request: its `Host`, or the authority of its target (HTTP/2).
#[must_use]
pub fn own_host(headers: &HeaderMap, uri: &Uri) -> Option<HeaderValue> {
    headers.get(HOST).cloned().or_else(|| {
        uri.authority()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    })
}

/// What the engine is told of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The addresses, the client's first, the peer's last.
    pub chain: Vec<String>,
    /// How the client reached us.
    pub origin: Origin,
}

impl Forwarded {
    /// Reads it from a request's headers, its target and its peer.
    #[must_use]
    pub fn of(
        headers: &HeaderMap,
        uri: &Uri,
        peer: Option<Peer>,
        trusted: &TrustedProxies,
    ) -> Self {
        let origin = Origin::of(headers, uri, peer, trusted);
        let own_address = peer.map(|peer| address_text(peer.address));
        if !peer.is_some_and(|peer| trusted.contains(peer.address)) {
            return Self {
                chain: own_address.into_iter().collect(),
                origin,
            };
        }
        let mut chain: Vec<String> = own_address.into_iter().collect();
        chain.extend(hops(headers, trusted).map(address_text));
        chain.reverse();
        Self { chain, origin }
    }

    /// The client's address.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.chain.first().map(String::as_str)
    }

    /// The headers that say it.
    #[must_use]
    pub fn headers(&self) -> ForwardedHeaders {
        let plain_host = self.origin.plain_host();
        let mut forwarded = String::with_capacity(64 + plain_host.map_or(0, str::len));
        for address in &self.chain {
            if !forwarded.is_empty() {
                forwarded.push_str(", ");
            }
            // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
            if address.contains(':') {
                forwarded.extend(["for=\"[", address, "]\""]);
            } else {
                forwarded.extend(["for=", address]);
            }
        }
        if !forwarded.is_empty() {
            forwarded.push(';');
        }
        forwarded.extend(["proto=", self.origin.proto]);
        if let Some(host) = plain_host {
            forwarded.extend([";host=\"", host, "\""]);
        }
        // A copy, as what was read from the client lies in a buffer of its connection.
        let own = |host: &HeaderValue| HeaderValue::from_bytes(host.as_bytes()).ok();
        ForwardedHeaders {
            host: plain_host.and(self.origin.host.as_ref()).and_then(own),
            chain: match self.chain.as_slice() {
                [] => None,
                [only] => HeaderValue::from_str(only).ok(),
                several => HeaderValue::try_from(several.join(", ")).ok(),
            },
            forwarded: HeaderValue::try_from(forwarded).ok(),
            proto: self.origin.proto,
        }
    }
}

/// `Forwarded` and `X-Forwarded-*`, ready to be sent.
#[derive(Debug, Clone)]
pub struct ForwardedHeaders {
    forwarded: Option<HeaderValue>,
    chain: Option<HeaderValue>,
    host: Option<HeaderValue>,
    proto: &'static str,
}

impl ForwardedHeaders {
    /// Writes them to headers out of which all went that [say so](says_who_the_client_is).
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (X_FORWARDED_HOST, &self.host),
            (FORWARDED, &self.forwarded),
            (X_FORWARDED_FOR, &self.chain),
        ] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.proto));
    }
}

/// The client's address: the peer's own, or what trusted proxies say of it.
#[must_use]
pub fn client_address(headers: &HeaderMap, peer: Peer, trusted: &TrustedProxies) -> IpAddr {
    let peer = peer.address.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    hops(headers, trusted).last().unwrap_or(peer)
}

/// The addresses before a trusted peer, from the last to the client's. What stands left of a stranger was written by that
/// stranger, and left of what is no address by nobody known.
fn hops(headers: &HeaderMap, trusted: &TrustedProxies) -> impl Iterator<Item = IpAddr> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut is_known = true;
    values
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
        .map_while(move |text| {
            let address = address(text).filter(|_| is_known)?;
            is_known = trusted.contains(address);
            Some(address)
        })
        .take(MAX_HOPS)
}

/// An address as proxies write it, some of them with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = text.parse().ok().or_else(with_port);
    bare.map(|address: IpAddr| address.to_canonical())
}

/// An address as the log and the headers show it; an IPv4 address that came over IPv6 as what it is.
#[must_use]
pub(crate) fn address_text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address.to_canonical() else {
        return address.to_string();
    };
    // Written with every request, and four times as fast as by its `Display`.
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// A chain of more proxies than this is cut at its far end.
const MAX_HOPS: usize = 16;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Everything by which the common servers let a proxy say who the client is.
pub(crate) fn says_who_the_client_is(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "x-forwarded-prefix"
            | "x-forwarded-server"
            | "x-forwarded-ssl"
            | "x-forwarded-scheme"
            | "x-forwarded-by"
            | "x-real-ip"
            | "x-client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "x-original-forwarded-for"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn peer(address: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            tls: false,
        }
    }

    fn sent(pairs: &[(&'static str, &str)], from: &str) -> HeaderMap {
        let given = headers(pairs);
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let uri = Uri::from_static("/x");
        let forwarded = Forwarded::of(&given, &uri, Some(peer(from)), &trusted);
        let mut sent = HeaderMap::new();
        forwarded.headers().write(&mut sent);
        sent
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let headers = sent(
            &[
                ("host", "gate.example:8000"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("forwarded", "for=1.2.3.4"),
                ("x-real-ip", "1.2.3.4"),
            ],
            "192.0.2.7",
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "gate.example:8000");
        assert_eq!(
            headers["forwarded"],
            "for=192.0.2.7;proto=http;host=\"gate.example:8000\""
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_named() {
        let headers = sent(
            &[
                ("host", "internal"),
                (
                    "x-forwarded-for",
                    "6.6.6.6, nonsense, 2001:db8::1, 10.9.9.9",
                ),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "app.example"),
            ],
            "10.1.2.3",
        );
        assert_eq!(
            headers["x-forwarded-for"],
            "2001:db8::1, 10.9.9.9, 10.1.2.3"
        );
        assert_eq!(
            headers["forwarded"],
            "for=\"[2001:db8::1]\", for=10.9.9.9, for=10.1.2.3;proto=https;host=\"app.example\""
        );
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn the_client_is_whom_the_nearest_trusted_proxy_names() {
        let many = ["6.6.6.6"; 40].join(", ");
        for (from, named, want) in [
            ("192.0.2.7", vec!["1.2.3.4"], "192.0.2.7"),
            ("::ffff:192.0.2.7", vec!["1.2.3.4"], "192.0.2.7"),
            ("10.1.2.3", vec![], "10.1.2.3"),
            ("10.1.2.3", vec!["1.2.3.4"], "1.2.3.4"),
            ("10.1.2.3", vec!["6.6.6.6, 1.2.3.4, 10.9.9.9"], "1.2.3.4"),
            ("10.1.2.3", vec!["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            ("10.1.2.3", vec!["6.6.6.6, 1.2.3.4:5678"], "1.2.3.4"),
            (
                "10.1.2.3",
                vec!["6.6.6.6, [2001:db8::1]:5678"],
                "2001:db8::1",
            ),
            ("10.1.2.3", vec!["6.6.6.6, ::ffff:1.2.3.4"], "1.2.3.4"),
            // Nobody knows who that is: the last who is known stands for them.
            ("10.1.2.3", vec!["6.6.6.6, unknown, 10.9.9.9"], "10.9.9.9"),
            ("10.1.2.3", vec!["6.6.6.6, "], "10.1.2.3"),
            // Nobody writes themselves out of the chain.
            ("10.1.2.3", vec![&many, "1.2.3.4"], "1.2.3.4"),
        ] {
            let mut all = HeaderMap::new();
            for value in &named {
                all.append(X_FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
            }
            let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
            let found = client_address(&all, peer(from), &trusted);
            assert_eq!(found.to_string(), want, "{from} {named:?}");
            let uri = Uri::from_static("/x");
            let forwarded = Forwarded::of(&all, &uri, Some(peer(from)), &trusted);
            assert_eq!(forwarded.client(), Some(want), "{from} {named:?}");
        }
    }

    #[test]
    fn a_host_that_would_break_the_header_is_left_out() {
        let headers = sent(&[("host", "a\";for=1.2.3.4")], "192.0.2.7");
        assert_eq!(headers["forwarded"], "for=192.0.2.7;proto=http");
    }
}
