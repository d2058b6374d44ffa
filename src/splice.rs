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
//! 4. At most [`MAX_MEMBERS`] members in all objects that are walked.
//! 5. At most [`MAX_DEPTH`] levels of nesting, as in the engine. What the peer nests costs one bit a
//!    level, no stack: only the places that the caller walks recurse.
//!
//! **Why no parser underneath.** `serde_json`'s `RawValue` finds values by offset too, but a pass over
//! each nested place starts again from its beginning, it bounds the depth at 128 and recurses, it does
//! not look into strings (a lone surrogate passes), and it drops where the commas are, which is what an
//! edit needs. The [`Reader`] here goes over each byte once and keeps nothing but the names of the objects
//! it is in. The tests hold it against `serde_json`, for what is accepted and for what
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
use std::collections::HashSet;
use std::ops::Range;

use foldhash::quality::RandomState;

mod error;
mod plain;
mod scan;

pub use error::SpliceError;

/// The deepest nesting that is read: the engine's own bound (engine fact "nesting > 1000": 500).
pub const MAX_DEPTH: usize = 1000;

/// The members of walked objects that are read in one body. Each costs memory and time, and a body of tiny ones
/// has millions; a process has some dozens of variables.
pub const MAX_MEMBERS: usize = 100_000;

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
    /// The names of all objects being walked, and where they begin; each object has its tail of the list.
    names: Vec<(usize, Cow<'a, str>)>,
    /// The members of walked objects so far.
    members: usize,
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
            members: 0,
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
            let begin = self.at;
            let name = self.name()?;
            self.members += 1;
            if self.members > MAX_MEMBERS {
                return Err(SpliceError::TooMany { at: begin }.into());
            }
            if let Some(from) = leading.take() {
                self.cut(from..begin);
            }
            match member(self, &name)? {
                Fate::Keep => object.occupied = true,
                // Behind a member that stays: the comma before goes.
                Fate::Remove if object.occupied => self.cut(object.end..self.at),
                // In front of all that stay: the comma behind goes, up to the next name.
                Fate::Remove => leading = Some(begin),
            }
            self.names.push((begin, name));
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

    /// Walks an object as [`object`](Self::object) does, where nothing is removed and the usual names are `known`:
    /// those need no list to be told apart.
    ///
    /// # Errors
    /// As [`object`](Self::object); a known name that occurs again is refused at once.
    #[inline]
    pub fn record<E, const N: usize>(
        &mut self,
        known: [&'static str; N],
        mut member: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<SpliceError>,
    {
        const { assert!(N <= 64, "a bit for each known name") };
        self.blanks();
        self.open(b'{', "an object")?;
        let first_name = self.names.len();
        let mut seen = 0_u64;
        self.blanks();
        if self.byte() == Some(b'}') {
            self.close();
            return Ok(());
        }
        loop {
            self.blanks();
            let begin = self.at;
            self.members += 1;
            if self.members > MAX_MEMBERS {
                return Err(SpliceError::TooMany { at: begin }.into());
            }
            let as_it_is = known.iter().position(|known| self.over_name(known));
            let (index, name) = if let Some(name) = as_it_is.and_then(|index| known.get(index)) {
                (as_it_is, Cow::Borrowed(*name))
            } else {
                let name = self.name()?;
                (known.iter().position(|known| *known == name), name)
            };
            if let Some(index) = index {
                if seen & (1 << index) != 0 {
                    return Err(SpliceError::duplicate(&name, begin).into());
                }
                seen |= 1 << index;
            }
            member(self, &name)?;
            if index.is_none() {
                self.names.push((begin, name));
            }
            self.blanks();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Ok(self.expected("`,` or `}`")?),
            }
        }
        if self.names.len() > first_name {
            self.unique(first_name)?;
            self.names.truncate(first_name);
        }
        self.close();
        Ok(())
    }

    /// Skips `{"value":"…","type":"String"}`, in either order or without the type, spelled without blanks; `false` where
    /// the next value is any other. Nearly every variable is one of these, and takes a quarter of the time of a
    /// [`record`](Self::record) so.
    #[inline]
    pub fn skip_typed_string(&mut self) -> bool {
        self.blanks();
        let begin = self.at;
        let members = self.over_typed_string().unwrap_or_default();
        let is_one = members > 0
            && self.depth < MAX_DEPTH
            && self.members + members <= MAX_MEMBERS
            && !self.refuses("value")
            && !self.refuses("type");
        if is_one {
            self.members += members;
        } else {
            self.at = begin;
        }
        is_one
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
        self.text()
    }

    /// Skips a string if it is this text, spelled without escapes.
    #[inline]
    pub fn skip_str(&mut self, text: &'static str) -> bool {
        self.blanks();
        self.over_text(text)
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

    /// Refuses a name that occurs twice among those from `first` on.
    ///
    /// A few names are compared pairwise; many are looked up by a hash that is seeded anew for each object, so that
    /// nobody can send names that collide, which takes no quadratic time.
    fn unique(&self, first: usize) -> Result<(), SpliceError> {
        let names = self.names.get(first..).unwrap_or_default();
        let again = if names.len() <= FEW {
            let mut named = names.iter().enumerate();
            named.find_map(|(index, again)| {
                let mut before = names.iter().take(index);
                before.any(|(_, name)| *name == again.1).then_some(again)
            })
        } else {
            let mut seen = HashSet::with_capacity_and_hasher(names.len(), RandomState::default());
            names.iter().find(|(_, name)| !seen.insert(&**name))
        };
        match again {
            Some((at, name)) => Err(SpliceError::duplicate(name, *at)),
            None => Ok(()),
        }
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

/// Up to here names are compared pairwise.
const FEW: usize = 8;

#[cfg(test)]
mod tests;
