//! The tokens of RFC 8259, and the way in and out of containers.

use std::borrow::Cow;

use super::plain::plain;
use super::{MAX_DEPTH, Reader, SpliceError};

impl<'a> Reader<'a> {
    pub(super) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    pub(super) fn expected<T>(&self, expected: &'static str) -> Result<T, SpliceError> {
        Err(SpliceError::Syntax {
            at: self.at,
            expected,
        })
    }

    /// Steps into a container.
    pub(super) fn open(&mut self, bracket: u8, expected: &'static str) -> Result<(), SpliceError> {
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
    pub(super) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }

    /// Whether the innermost open container is an object.
    pub(super) fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        self.objects
            .get(level / 64)
            .is_some_and(|word| word & (1 << (level % 64)) != 0)
    }

    /// Reads a name and its colon.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Cow<'a, str>, SpliceError> {
        let begin = self.at;
        if self.byte() != Some(b'"') {
            return self.expected("a member's name in double quotes");
        }
        let name = self.text()?;
        self.blanks();
        if self.byte() != Some(b':') {
            return self.expected("`:`");
        }
        self.at += 1;
        if self.refuses(&name) {
            return Err(SpliceError::name_refused(&name, begin));
        }
        Ok(name)
    }

    /// Reads a name and its colon if it is this name, spelled without escapes or a blank behind, and not refused.
    ///
    /// Where the name is a constant, the processor need not wait for its end to be found.
    #[inline]
    pub(super) fn over_name(&mut self, name: &str) -> bool {
        let Some(end) = self.behind_text(name) else {
            return false;
        };
        if self.text.as_bytes().get(end) != Some(&b':') || self.refuses(name) {
            return false;
        }
        self.at = end + 1;
        true
    }

    /// Reads a string if it is this text, spelled without escapes.
    #[inline]
    pub(super) fn over_text(&mut self, text: &str) -> bool {
        let end = self.behind_text(text);
        if let Some(end) = end {
            self.at = end;
        }
        end.is_some()
    }

    /// Where such a string ends.
    #[inline]
    fn behind_text(&self, text: &str) -> Option<usize> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let behind = rest
            .strip_prefix(b"\"")?
            .strip_prefix(text.as_bytes())?
            .strip_prefix(b"\"")?;
        Some(self.text.len() - behind.len())
    }

    pub(super) fn refuses(&self, name: &str) -> bool {
        self.refused_ending
            .is_some_and(|ending| name.ends_with(ending))
    }

    /// Reads `{"value":"…","type":"String"}`, in either order or without the type, and tells how many members that were. The
    /// reader stands anywhere where it is something else.
    #[inline]
    pub(super) fn over_typed_string(&mut self) -> Option<usize> {
        let typed = self.over(br#"{"type":"String","value":"#);
        let is_string = (typed || self.over(br#"{"value":"#))
            && self.byte() == Some(b'"')
            && self.string().is_ok();
        if !is_string {
            return None;
        }
        if self.over(b"}") {
            return Some(if typed { 2 } else { 1 });
        }
        (!typed && self.over(br#","type":"String"}"#)).then_some(2)
    }

    #[inline]
    fn over(&mut self, text: &'static [u8]) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let is_next = rest.starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    /// Reads a string, the reader standing before its quote, and returns it unescaped.
    #[inline]
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, SpliceError> {
        // Nearly every name and type is all plain text.
        if let Some(plain) = self.plain_text() {
            return Ok(Cow::Borrowed(plain));
        }
        self.escaped_text().map(Cow::Owned)
    }

    /// Reads a string that has no escapes.
    #[inline]
    pub(super) fn plain_text(&mut self) -> Option<&'a str> {
        let inside = self.text.as_bytes().get(self.at..)?.strip_prefix(b"\"")?;
        let length = plain(inside);
        if inside.get(length) != Some(&b'"') {
            return None;
        }
        let begin = self.at + 1;
        let text = self.text.get(begin..begin + length)?;
        self.at = begin + length + 1;
        Some(text)
    }

    #[inline(never)]
    fn escaped_text(&mut self) -> Result<String, SpliceError> {
        let begin = self.at;
        self.string()?;
        // Escapes are left to `serde_json`: a second reader, and an error of its refuses the body.
        let quoted = self.text.get(begin..self.at).unwrap_or_default();
        serde_json::from_str(quoted).map_err(|_| SpliceError::Syntax {
            at: begin,
            expected: "a string",
        })
    }

    /// Reads a string, the reader standing before its quote.
    pub(super) fn string(&mut self) -> Result<(), SpliceError> {
        let bytes = self.text.as_bytes();
        // Kept out of memory: each look at a byte waits for where it is.
        let mut at = self.at + 1;
        loop {
            at += plain(bytes.get(at..).unwrap_or_default());
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'"'), _) => {
                    self.at = at + 1;
                    return Ok(());
                }
                (Some(b'\\'), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                    at += 2;
                }
                (Some(b'\\'), escaped) => {
                    self.at = at + 1;
                    if escaped != Some(&b'u') {
                        return self.expected("an escape of JSON");
                    }
                    self.code_unit(at)?;
                    at = self.at;
                }
                (other, _) => {
                    self.at = at;
                    return self.expected(match other {
                        Some(_) => "control characters as escapes",
                        None => "the end of a string",
                    });
                }
            }
        }
    }

    /// Reads the rest of the escape `\u…` at `begin`, and where it is half of a surrogate pair, its other half.
    #[inline(never)]
    fn code_unit(&mut self, begin: usize) -> Result<(), SpliceError> {
        self.at += 1;
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

    pub(super) fn number(&mut self) -> Result<(), SpliceError> {
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

    pub(super) fn word(&mut self, word: &'static str) -> Result<(), SpliceError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return self.expected("`true`, `false` or `null`");
        }
        self.at += word.len();
        Ok(())
    }
}
