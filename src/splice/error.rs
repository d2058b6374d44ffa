//! Why a body is refused.

use super::{Kind, MAX_DEPTH, MAX_MEMBERS};

/// Why a body is refused: it is not the JSON that can be read in one way only.
///
/// Places are offsets in bytes from the beginning of the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpliceError {
    /// The body is in another encoding, or broken.
    #[error("the body is no UTF-8 at byte {at}: send JSON in UTF-8")]
    NotUtf8 {
        /// Where the first bad sequence begins.
        at: usize,
    },
    /// The body begins with U+FEFF.
    #[error("the body begins with a byte order mark: send it without")]
    ByteOrderMark,
    /// The text is no JSON by RFC 8259.
    #[error("the body is no JSON: expected {expected} at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
        /// What JSON would have there.
        expected: &'static str,
    },
    /// Half of a surrogate pair as an escape.
    #[error(
        "the escape at byte {at} is half of a surrogate pair: send both halves, or the character"
    )]
    LoneSurrogate {
        /// Where the escape begins.
        at: usize,
    },
    /// More than [`MAX_DEPTH`] levels.
    #[error("the body nests deeper than {MAX_DEPTH} levels at byte {at}: send a flatter one")]
    TooDeep {
        /// Where the level beyond begins.
        at: usize,
    },
    /// More than [`MAX_MEMBERS`] members of objects that are walked.
    #[error("the body has more than {MAX_MEMBERS} members at byte {at}: send fewer at a time")]
    TooMany {
        /// Where the member beyond begins.
        at: usize,
    },
    /// A name twice in an object that is walked.
    #[error("`{name}` occurs twice at byte {at}: send each member once")]
    Duplicate {
        /// The name, shortened.
        name: Box<str>,
        /// Where it occurs again.
        at: usize,
    },
    /// A value of another kind than is taken at its place.
    #[error("{place} is {found} at byte {at}: send {wanted}")]
    WrongKind {
        /// The place, as it may stand in a message.
        place: Box<str>,
        /// What is there.
        found: Kind,
        /// What would be taken.
        wanted: Kind,
        /// Where.
        at: usize,
    },
    /// A member whose name ends as [`Reader::refuse_names_ending`](super::Reader::refuse_names_ending) said.
    #[error("`{name}` at byte {at} is not accepted here")]
    NameRefused {
        /// The name, shortened.
        name: Box<str>,
        /// Where.
        at: usize,
    },
}

impl SpliceError {
    pub(super) fn duplicate(name: &str, at: usize) -> Self {
        let name = shown(name);
        Self::Duplicate { name, at }
    }

    pub(super) fn name_refused(name: &str, at: usize) -> Self {
        let name = shown(name);
        Self::NameRefused { name, at }
    }
}

/// A name as it may be shown to the caller: escaped, and no longer than is useful.
fn shown(name: &str) -> Box<str> {
    let mut shown: String = name
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown.into_boxed_str()
}

/// How much of a name is shown to the caller.
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_names_are_short_and_escaped() {
        assert_eq!(&*shown("a\n\u{202e}b"), "a\\n\\u{202e}b");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 41);
    }
}
