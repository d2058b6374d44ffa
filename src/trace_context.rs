//! The trace that a request belongs to, as its client says: `traceparent` of W3C Trace Context (§3.2).
//!
//! Read strictly: a header that is there twice, of zeros, or in another form says nothing.

use http::header::{HeaderMap, HeaderName};

/// The header that says which span asks.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header that vendors add to; it means nothing without the other.
#[cfg(feature = "fetch")]
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The id of a trace, as 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// Reads it; zeros are none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, rest) = hex(text.as_bytes())?;
        (rest.is_empty() && digits != [b'0'; 32]).then_some(Self(digits))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    parent_id: [u8; 16],
    flags: [u8; 2],
}

impl TraceParent {
    /// Reads it from a request's headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let only = values.next()?;
        values
            .next()
            .is_none()
            .then(|| Self::parse(only.as_bytes()))?
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = hex::<2>(text)?;
        let (trace_id, rest) = hex::<32>(rest.strip_prefix(b"-")?)?;
        let (parent_id, rest) = hex::<16>(rest.strip_prefix(b"-")?)?;
        let (flags, rest) = hex::<2>(rest.strip_prefix(b"-")?)?;
        // A later version may have more behind another dash.
        let ends = rest.is_empty() || (version != *b"00" && rest.starts_with(b"-"));
        let is_given = trace_id != [b'0'; 32] && parent_id != [b'0'; 16];
        (version != *b"ff" && ends && is_given).then_some(Self {
            trace_id: TraceId(trace_id),
            parent_id,
            flags,
        })
    }

    /// The id of the span that asks, as 16 hexadecimal digits.
    #[must_use]
    pub fn parent_id(&self) -> &str {
        std::str::from_utf8(&self.parent_id).unwrap_or_default()
    }

    /// The flags; the lowest bit says that the trace is sampled.
    #[must_use]
    pub fn flags(&self) -> u8 {
        let flags = std::str::from_utf8(&self.flags).unwrap_or_default();
        u8::from_str_radix(flags, 16).unwrap_or_default()
    }
}

/// The first `N` signs, where they are lowercase hexadecimal digits, and what follows.
fn hex<const N: usize>(text: &[u8]) -> Option<([u8; N], &[u8])> {
    let (digits, rest) = text.split_first_chunk::<N>()?;
    let is_hex = digits
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then_some((*digits, rest))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn only_a_strict_traceparent_is_read() {
        for (text, is_one) in [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                true,
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                true,
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                true,
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                false,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            ("", false),
        ] {
            let found = TraceParent::parse(text.as_bytes());
            assert_eq!(found.is_some(), is_one, "{text}");
            if let Some(found) = found {
                assert_eq!(found.trace_id, TraceId::parse(TRACE).unwrap());
                assert_eq!(found.parent_id(), "00f067aa0ba902b7");
                assert_eq!(found.flags(), u8::from(text.contains("-01")));
            }
        }
        assert_eq!(TraceId::parse(&"0".repeat(32)), None);
        assert_eq!(TraceId::parse(TRACE).unwrap().as_str(), TRACE);
    }

    #[test]
    fn two_traceparents_are_none() {
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(value));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(value));
        assert_eq!(TraceParent::of(&headers), None);
    }
}
