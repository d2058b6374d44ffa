//! Reads JSON strictly, member by member, and edits it so that every other byte stays.
//!
//! The engine reads far more than JSON (engine facts, "How it reads JSON": of duplicate names the
//! last wins; UTF-16, overlong UTF-8 and a byte order mark are taken; a lone `\ud800` too). Every text
//! that the gateway reads one way and the engine another is a forgery, so a body is either the JSON
//! that both read alike, or refused:
//!
//! 1. RFC 8259 to the letter, in valid UTF-8 without a byte order mark, one document and nothing after it.
//! 2. No name twice in any object that is walked ([`Reader::object`]); names are compared after
//!    unescaping, as the engine does. An object that is only skipped may repeat names: nothing in it is
//!    looked at or changed.
//! 3. No escaped surrogate without its other half, in names and in values.
//! 4. At most [`MAX_DEPTH`] levels of nesting, as in the engine. What the peer nests costs one bit a
//!    level, no stack: only the places that the caller walks recurse.
//!
//! **Why no parser underneath.** `serde_json`'s `RawValue` finds values by offset too, but a pass over
//! each nested place starts again from its beginning, it bounds the depth at 128 and recurses, it does
//! not look into strings (a lone surrogate passes), and it drops where the commas are, which is what an
//! edit needs. The [`Reader`] here goes over each byte once and keeps nothing but the spans of the names
//! of the objects it is in. The tests hold it against `serde_json`, for what is accepted and for what
//! an edited text means.
//!
//! Numbers are never converted: they stay the text they are, beyond `f64` too.
//!
//! New members are put **last** in their object: the engine lets the last win, so even a duplicate that
//! slipped through would lose.
//!
//! ```
//! use bpmgate::splice::{Fate, Reader, SpliceError};
//!
//! let body = br#"{ "variables": {"initiator": {"value": "eve"}, "sum": {"value": 1e999}}, "x": 1 }"#;
//! let mut reader = Reader::new(body)?;
//! reader.object(|reader, name| {
//!     if name != "variables" {
//!         reader.skip()?;
//!         return Ok::<_, SpliceError>(Fate::Keep);
//!     }
//!     let variables = reader.object(|reader, name| {
//!         reader.skip()?;
//!         Ok::<_, SpliceError>(if name == "initiator" { Fate::Remove } else { Fate::Keep })
//!     })?;
//!     reader.append(variables, r#""initiator":{"value":"alice"}"#);
//!     Ok(Fate::Keep)
//! })?;
//! let edited = reader.finish()?.expect("it was edited");
//! assert_eq!(
//!     std::str::from_utf8(&edited).unwrap(),
//!     r#"{ "variables": {"sum": {"value": 1e999},"initiator":{"value":"alice"}}, "x": 1 }"#
//! );
//! # Ok::<_, SpliceError>(())
//! ```

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;

/// The deepest nesting that is read: the engine's own bound (engine fact "nesting > 1000": 500).
pub const MAX_DEPTH: usize = 1000;

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
    /// A member whose name ends as [`Reader::refuse_names_ending`] said.
    #[error("`{name}` at byte {at} is not accepted here")]
    NameRefused {
        /// The name, shortened.
        name: Box<str>,
        /// Where.
        at: usize,
    },
}

/// What a JSON value is, told from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`
    Null,
}

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays, with the edits made inside it.
    Keep,
    /// It goes, its comma with it. Its value must have been skipped, not walked.
    Remove,
}

/// An object that was walked: where a member can be put in.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// The end of the last member, kept or not; behind the brace where there is none.
    end: usize,
    /// Whether any member stays, so that a comma is needed.
    occupied: bool,
}

/// Reads one body from its beginning to its end, and gathers the edits on the way.
///
/// Call [`object`](Self::object), [`array`](Self::array) or [`skip`](Self::skip) for each value, once;
/// a caller that reads a value twice or not at all gets a [`SpliceError::Syntax`].
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// A bit per open container: set for an object.
    objects: [u64; MAX_DEPTH.div_ceil(64)],
    /// The spans of the names of all objects being walked; each object has its tail of the list.
    names: Vec<Range<usize>>,
    refused_ending: Option<&'static str>,
    /// In the order of the text, without overlaps.
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Reader<'a> {
    /// Begins to read a body.
    ///
    /// # Errors
    /// [`SpliceError::NotUtf8`] and [`SpliceError::ByteOrderMark`].
    pub fn new(body: &'a [u8]) -> Result<Self, SpliceError> {
        let text = std::str::from_utf8(body).map_err(|error| SpliceError::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        if text.starts_with('\u{feff}') {
            return Err(SpliceError::ByteOrderMark);
        }
        Ok(Self {
            text,
            at: 0,
            depth: 0,
            objects: [0; MAX_DEPTH.div_ceil(64)],
            names: Vec::new(),
            refused_ending: None,
            edits: Vec::new(),
        })
    }

    /// From here on, refuses every member whose unescaped name ends so, at any depth, skipped or walked.
    /// The comparison is exact, as the engine's.
    pub fn refuse_names_ending(&mut self, ending: &'static str) {
        self.refused_ending = Some(ending);
    }

    /// What the next value is.
    ///
    /// # Errors
    /// [`SpliceError::Syntax`] where no value begins.
    pub fn kind(&mut self) -> Result<Kind, SpliceError> {
        self.blanks();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            _ => self.expected("a value"),
        }
    }

    /// Where the reader is: the offset of the next byte.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Walks an object: calls `member` with each name, unescaped, the reader standing before the value.
    ///
    /// # Errors
    /// A [`SpliceError`] where the object is no strict JSON or has a name twice, and whatever `member`
    /// returns. What was gathered before an error is void.
    pub fn object<E>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<Fate, E>,
    ) -> Result<Object, E>
    where
        E: From<SpliceError>,
    {
        self.blanks();
        self.open(b'{', "an object")?;
        let first_name = self.names.len();
        let mut object = Object {
            end: self.at,
            occupied: false,
        };
        // Where a removed member begins, while none before it stays.
        let mut leading: Option<usize> = None;
        self.blanks();
        if self.byte() == Some(b'}') {
            self.close();
            return Ok(object);
        }
        loop {
            self.blanks();
            let name = self.name()?;
            self.names.push(name.clone());
            if let Some(from) = leading.take() {
                self.cut(from..name.start);
            }
            let unescaped = unescape(self.text, &name)?;
            match member(self, &unescaped)? {
                Fate::Keep => object.occupied = true,
                // Behind a member that stays: the comma before goes.
                Fate::Remove if object.occupied => self.cut(object.end..self.at),
                // In front of all that stay: the comma behind goes, up to the next name.
                Fate::Remove => leading = Some(name.start),
            }
            object.end = self.at;
            self.blanks();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Ok(self.expected("`,` or `}`")?),
            }
        }
        if let Some(from) = leading {
            self.cut(from..object.end);
        }
        self.unique(first_name)?;
        self.names.truncate(first_name);
        self.close();
        Ok(object)
    }

    /// Walks an array: calls `element` for each, the reader standing before it.
    ///
    /// # Errors
    /// A [`SpliceError`] where the array is no strict JSON, and whatever `element` returns.
    pub fn array<E>(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E>
    where
        E: From<SpliceError>,
    {
        self.blanks();
        self.open(b'[', "an array")?;
        self.blanks();
        if self.byte() != Some(b']') {
            loop {
                element(self)?;
                self.blanks();
                match self.byte() {
                    Some(b',') => self.at += 1,
                    Some(b']') => break,
                    _ => return Ok(self.expected("`,` or `]`")?),
                }
            }
        }
        self.close();
        Ok(())
    }

    /// Reads a value as strictly as any other and returns its span, without looking into it.
    ///
    /// # Errors
    /// A [`SpliceError`] where it is no strict JSON.
    pub fn skip(&mut self) -> Result<Range<usize>, SpliceError> {
        self.blanks();
        let begin = self.at;
        let outside = self.depth;
        loop {
            match self.byte() {
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(b'{') => {
                    self.open(b'{', "an object")?;
                    self.blanks();
                    if self.byte() == Some(b'}') {
                        self.close();
                    } else {
                        self.name()?;
                        self.blanks();
                        continue;
                    }
                }
                Some(b'[') => {
                    self.open(b'[', "an array")?;
                    self.blanks();
                    if self.byte() == Some(b']') {
                        self.close();
                    } else {
                        continue;
                    }
                }
                _ => return self.expected("a value"),
            }
            // A value has ended: close what ends with it.
            loop {
                if self.depth == outside {
                    return Ok(begin..self.at);
                }
                self.blanks();
                match (self.byte(), self.in_object()) {
                    (Some(b','), in_object) => {
                        self.at += 1;
                        self.blanks();
                        if in_object {
                            self.name()?;
                            self.blanks();
                        }
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => self.close(),
                    (_, true) => return self.expected("`,` or `}`"),
                    (_, false) => return self.expected("`,` or `]`"),
                }
            }
        }
    }

    /// Reads a string and returns it unescaped.
    ///
    /// # Errors
    /// A [`SpliceError`] where there is no string.
    pub fn str(&mut self) -> Result<Cow<'a, str>, SpliceError> {
        self.blanks();
        if self.byte() != Some(b'"') {
            return self.expected("a string");
        }
        let begin = self.at;
        self.string()?;
        unescape(self.text, &(begin..self.at))
    }

    /// Puts members, written as JSON (`"a":1,"b":2`), behind the last of an object that has just been
    /// walked.
    pub fn append(&mut self, object: Object, members: &str) {
        let comma = if object.occupied { "," } else { "" };
        self.edits
            .push((object.end..object.end, format!("{comma}{members}")));
    }

    /// Puts JSON in the place of a value that has just been skipped.
    pub fn replace(&mut self, value: Range<usize>, json: String) {
        self.edits.push((value, json));
    }

    /// Ends the reading: returns the edited body, or `None` where nothing was edited.
    ///
    /// # Errors
    /// [`SpliceError::Syntax`] where something follows the document, or where edits overlap.
    pub fn finish(mut self) -> Result<Option<Vec<u8>>, SpliceError> {
        self.blanks();
        if self.at != self.text.len() {
            return self.expected("the end of the body");
        }
        if self.edits.is_empty() {
            return Ok(None);
        }
        let added: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut edited = Vec::with_capacity(self.text.len().saturating_add(added));
        let mut from = 0;
        for (place, with) in &self.edits {
            // `get` has no such span where edits overlap or are out of order: then nothing is sent.
            let Some(kept) = self.text.get(from..place.start) else {
                self.at = place.start;
                return self.expected("edits in the order of the text");
            };
            edited.extend_from_slice(kept.as_bytes());
            edited.extend_from_slice(with.as_bytes());
            from = place.end;
        }
        edited.extend_from_slice(self.text.get(from..).unwrap_or_default().as_bytes());
        Ok(Some(edited))
    }

    fn cut(&mut self, span: Range<usize>) {
        self.edits.push((span, String::new()));
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, SpliceError> {
        Err(SpliceError::Syntax {
            at: self.at,
            expected,
        })
    }

    /// Steps into a container.
    fn open(&mut self, bracket: u8, expected: &'static str) -> Result<(), SpliceError> {
        if self.byte() != Some(bracket) {
            return self.expected(expected);
        }
        if self.depth == MAX_DEPTH {
            return Err(SpliceError::TooDeep { at: self.at });
        }
        let bit = 1 << (self.depth % 64);
        if let Some(word) = self.objects.get_mut(self.depth / 64) {
            if bracket == b'{' {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Steps out of a container, over its bracket.
    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }

    /// Whether the innermost open container is an object.
    fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        self.objects
            .get(level / 64)
            .is_some_and(|word| word & (1 << (level % 64)) != 0)
    }

    /// Reads a name and its colon; returns the name's span, quotes included.
    fn name(&mut self) -> Result<Range<usize>, SpliceError> {
        let begin = self.at;
        if self.byte() != Some(b'"') {
            return self.expected("a member's name in double quotes");
        }
        self.string()?;
        let name = begin..self.at;
        self.blanks();
        if self.byte() != Some(b':') {
            return self.expected("`:`");
        }
        self.at += 1;
        if let Some(ending) = self.refused_ending {
            let unescaped = unescape(self.text, &name)?;
            if unescaped.ends_with(ending) {
                return Err(SpliceError::NameRefused {
                    name: shown(&unescaped),
                    at: begin,
                });
            }
        }
        Ok(name)
    }

    /// Reads a string, the reader standing before its quote.
    fn string(&mut self) -> Result<(), SpliceError> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            // Most of a large body is plain text in strings: 16 bytes a step, which compiles to vectors.
            while let Some(chunk) = bytes.get(self.at..).and_then(<[u8]>::first_chunk::<16>)
                && !chunk
                    .iter()
                    .fold(false, |any, &byte| any | ends_plain_text(byte))
            {
                self.at += 16;
            }
            while let Some(byte) = self.byte()
                && !ends_plain_text(byte)
            {
                self.at += 1;
            }
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.expected("control characters as escapes"),
                None => return self.expected("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SpliceError> {
        let begin = self.at;
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => self.at += 1,
            _ => return self.expected("an escape of JSON"),
        }
        match self.four_digits()? {
            0xD800..=0xDBFF => {
                let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
                if !rest.starts_with(b"\\u") {
                    return Err(SpliceError::LoneSurrogate { at: begin });
                }
                self.at += 2;
                match self.four_digits()? {
                    0xDC00..=0xDFFF => Ok(()),
                    _ => Err(SpliceError::LoneSurrogate { at: begin }),
                }
            }
            0xDC00..=0xDFFF => Err(SpliceError::LoneSurrogate { at: begin }),
            _ => Ok(()),
        }
    }

    fn four_digits(&mut self) -> Result<u32, SpliceError> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = self.byte().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.expected("four hexadecimal digits");
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<(), SpliceError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), SpliceError> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == begin {
            return self.expected("a digit");
        }
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), SpliceError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return self.expected("`true`, `false` or `null`");
        }
        self.at += word.len();
        Ok(())
    }

    /// Refuses a name that occurs twice among those from `first` on.
    ///
    /// A few names are compared pairwise; many are sorted by a keyed hash (keyed, so that nobody can
    /// send names that collide), which costs 32 bytes a name and no quadratic time.
    fn unique(&self, first: usize) -> Result<(), SpliceError> {
        let names = self.names.get(first..).unwrap_or_default();
        if names.len() <= FEW {
            return self.distinct(names.iter());
        }
        let hasher = RandomState::new();
        let mut hashed = names
            .iter()
            .map(|name| Ok((hasher.hash_one(&*unescape(self.text, name)?), name)))
            .collect::<Result<Vec<_>, SpliceError>>()?;
        hashed.sort_unstable_by_key(|(hash, name)| (*hash, name.start));
        hashed
            .chunk_by(|(one, _), (other, _)| one == other)
            .try_for_each(|alike| self.distinct(alike.iter().map(|(_, name)| *name)))
    }

    /// Refuses the first name that equals one before it.
    fn distinct<'n>(
        &self,
        names: impl Iterator<Item = &'n Range<usize>> + Clone,
    ) -> Result<(), SpliceError> {
        for (index, name) in names.clone().enumerate().skip(1) {
            let unescaped = unescape(self.text, name)?;
            for earlier in names.clone().take(index) {
                if unescape(self.text, earlier)? == unescaped {
                    return Err(SpliceError::Duplicate {
                        name: shown(&unescaped),
                        at: name.start,
                    });
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        })
    }
}

/// A name as it may be shown to the caller: escaped, and no longer than is useful.
#[must_use]
pub fn shown(name: &str) -> Box<str> {
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

/// The text of a string that has been read, its span quotes included.
///
/// Escapes are left to `serde_json`: a second reader, and an error of its refuses the body.
fn unescape<'a>(text: &'a str, span: &Range<usize>) -> Result<Cow<'a, str>, SpliceError> {
    let refused = || SpliceError::Syntax {
        at: span.start,
        expected: "a string",
    };
    let quoted = text.get(span.clone()).ok_or_else(refused)?;
    if memchr::memchr(b'\\', quoted.as_bytes()).is_none() {
        return quoted
            .get(1..quoted.len().saturating_sub(1))
            .map(Cow::Borrowed)
            .ok_or_else(refused);
    }
    serde_json::from_str::<String>(quoted)
        .map(Cow::Owned)
        .map_err(|_| refused())
}

/// Whether a byte of a string is other than plain text: quote, backslash, control character.
const fn ends_plain_text(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Up to here names are compared pairwise.
const FEW: usize = 8;

/// How much of a name is shown to the caller.
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests;
