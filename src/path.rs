//! One normalization of the request's path; everything after it looks at its result alone.
//!
//! What gateway and engine could read in two ways is refused, not repaired: engines decode
//! parameters but not literals, take `;x=y` off every segment, and answer 400 in HTML to the rest
//! (engine facts §5). What remains is RFC 3986 §6.2.2: unreserved characters decoded, escapes in upper
//! case, no trailing slash. The engine gets the bytes that were matched.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum BadPath {
    /// Not beginning with a slash.
    NoSlash,
    /// `//` within.
    EmptySegment,
    /// `.` or `..`, plain or encoded.
    DotSegment,
    /// `;`, which the engine would take as the beginning of matrix parameters.
    Parameter,
    /// `\` or `/`, encoded, or a plain `\`.
    Slash,
    /// NUL or another control character, plain or encoded.
    Control,
    /// `%` without two hexadecimal digits.
    BadEscape,
    /// Escapes that are no UTF-8 together.
    NotUtf8,
    /// A character that RFC 3986 does not allow in a path unencoded.
    Unencoded,
}

impl BadPath {
    /// The reason in words that fit a sentence.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoSlash => "it does not begin with a slash",
            Self::EmptySegment => "it has an empty segment",
            Self::DotSegment => "it has a dot segment",
            Self::Parameter => "it has a `;` parameter",
            Self::Slash => "it has an encoded slash or a backslash",
            Self::Control => "it has a control character",
            Self::BadEscape => "it has a broken percent-escape",
            Self::NotUtf8 => "it is not UTF-8",
            Self::Unencoded => "it has a character that must be percent-encoded",
        }
    }
}

/// Normalizes a path (without its query); borrows where nothing changes.
///
/// # Errors
/// [`BadPath`] says which form was refused.
///
/// # Examples
/// ```
/// use bpmgate::path::{normalize, BadPath};
/// assert_eq!(normalize("/api/t%61sk/")?, "/api/task");
/// assert_eq!(normalize("/api/task;x=y"), Err(BadPath::Parameter));
/// # Ok::<(), BadPath>(())
/// ```
pub fn normalize(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if is_normal(path) {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(BadPath::NoSlash);
    }
    if path.ends_with("//") {
        return Err(BadPath::EmptySegment);
    }
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter,
    };
    let plain = path.bytes().all(|byte| is_plain(byte) || byte == b'/');
    let normal = if plain {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(decode(path)?)
    };
    if normal.len() > 1 {
        for segment in normal.split('/').skip(1) {
            match segment {
                "" => return Err(BadPath::EmptySegment),
                "." | ".." => return Err(BadPath::DotSegment),
                _ => {}
            }
        }
    }
    Ok(normal)
}

/// Whether it is plain to see in one pass that nothing is to be changed or refused, as with most paths.
fn is_normal(path: &str) -> bool {
    let mut before = b'x';
    let mut is_good = |byte| {
        let after = std::mem::replace(&mut before, byte);
        if byte == b'/' {
            after != b'/'
        } else {
            is_plain(byte) && byte != b'.'
        }
    };
    path.starts_with('/') && !path.ends_with('/') && path.bytes().all(&mut is_good)
}

/// What is left of a normalized path below one of the prefixes: the first that fits whole segments.
#[must_use]
pub fn strip_prefix<'a>(prefixes: &[String], path: &'a str) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| {
        path.strip_prefix(prefix.as_str())
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Decodes escapes of unreserved characters, puts the others in upper case, refuses the rest.
fn decode(path: &str) -> Result<String, BadPath> {
    let mut normal = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let value = match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(BadPath::BadEscape),
                };
                match value {
                    b'/' | b'\\' => return Err(BadPath::Slash),
                    0..=0x1f | 0x7f => return Err(BadPath::Control),
                    _ if is_unreserved(value) => normal.push(char::from(value)),
                    _ => {
                        const DIGITS: [char; 16] = [
                            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D',
                            'E', 'F',
                        ];
                        normal.push('%');
                        for half in [value >> 4, value & 15] {
                            normal.extend(DIGITS.get(usize::from(half)));
                        }
                    }
                }
            }
            b'/' => normal.push('/'),
            b';' => return Err(BadPath::Parameter),
            b'\\' => return Err(BadPath::Slash),
            0..=0x1f | 0x7f => return Err(BadPath::Control),
            _ if is_plain(byte) => normal.push(char::from(byte)),
            _ => return Err(BadPath::Unencoded),
        }
    }
    if percent_decode_str(&normal).decode_utf8().is_err() {
        return Err(BadPath::NotUtf8);
    }
    Ok(normal)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §3.3 `pchar` without `%` and without `;`.
#[inline]
const fn is_plain(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_that_can_be_read_in_two_ways_are_refused() {
        use BadPath::*;
        for (path, want) in [
            ("", NoSlash),
            ("*", NoSlash),
            ("api", NoSlash),
            ("//", EmptySegment),
            ("/a//b", EmptySegment),
            ("/a/b//", EmptySegment),
            ("/a/./b", DotSegment),
            ("/a/..", DotSegment),
            ("/a/%2e%2E/b", DotSegment),
            ("/a/.%2e/b", DotSegment),
            ("/a/start;x=y", Parameter),
            ("/a;b/start", Parameter),
            ("/a/;", Parameter),
            ("/a%2Fb", Slash),
            ("/a%5cb", Slash),
            ("/a\\b", Slash),
            ("/a%00", Control),
            ("/a%0d%0ab", Control),
            ("/a%7f", Control),
            ("/a\u{1}", Control),
            ("/a%", BadEscape),
            ("/a%4", BadEscape),
            ("/a%zz", BadEscape),
            ("/a%FF", NotUtf8),
            ("/a%C1%A9nitiator", NotUtf8),
            ("/a%C3/%A9", NotUtf8),
            ("/a%ED%A0%80", NotUtf8),
            ("/a b", Unencoded),
            ("/a|b", Unencoded),
            ("/ä", Unencoded),
            ("/a{b}", Unencoded),
            ("/a\"b", Unencoded),
        ] {
            assert_eq!(normalize(path), Err(want), "{path:?}");
        }
    }

    #[test]
    fn equal_forms_become_one() {
        for (path, want) in [
            ("/", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/api/st%61rt", "/api/start"),
            ("/a%3ab", "/a%3Ab"),
            ("/order:1:f4-3", "/order:1:f4-3"),
            ("/gr%c3%bc%C3%9Fe", "/gr%C3%BC%C3%9Fe"),
            ("/a%2541", "/a%2541"),
            ("/a%3Bb", "/a%3Bb"),
            ("/...", "/..."),
            ("/a+b%20c", "/a+b%20c"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(want), "{path:?}");
        }
    }

    #[test]
    fn a_prefix_fits_whole_segments_only() {
        let prefixes = ["/api".to_owned(), "/engine-rest".to_owned()];
        for (path, want) in [
            ("/api/task", Some("/task")),
            ("/engine-rest/task", Some("/task")),
            ("/api", Some("")),
            ("/apix/task", None),
            ("/health", None),
        ] {
            assert_eq!(strip_prefix(&prefixes, path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(path in "/([a-zA-Z0-9.~_;%/\\\\ -]|%[0-9a-fA-F]{2}){0,20}") {
            if let Ok(once) = normalize(&path) {
                let twice = normalize(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(!once.contains(';') && !once.contains("//") && !once.contains('\\'));
            }
        }
    }
}
