//! How far the plain text of a string goes: up to a quote, a backslash or a control character.
//!
//! Most of a body is this, and no other loop sees each of its bytes. Most strings are short, so the first bytes
//! are taken eight at a time in a register; what goes on is searched with vectors, whose start costs as much as
//! some 30 bytes.

use memchr::memchr2;

/// The number of bytes before the first that is other than plain text.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < NEAR
        && let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>)
    {
        let ends = ends_in(u64::from_le_bytes(*word));
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + plain_from_afar(bytes.get(at..).unwrap_or_default())
}

/// The same where the text is long, or nearly at its end.
#[inline(never)]
fn plain_from_afar(bytes: &[u8]) -> usize {
    let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
    let text = bytes.get(..end).unwrap_or_default();
    let least = text.iter().fold(u8::MAX, |least, &byte| least.min(byte));
    if least >= FIRST_PLAIN {
        return end;
    }
    let control = text.iter().position(|&byte| byte < FIRST_PLAIN);
    control.unwrap_or(end)
}

/// The high bit of each byte that ends plain text, the first byte being the lowest. Above the first one there may
/// be more: a borrow goes upwards.
const fn ends_in(word: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let control = word.wrapping_sub(EACH * FIRST_PLAIN as u64);
    let quote = (word ^ (EACH * b'"' as u64)).wrapping_sub(EACH);
    let backslash = (word ^ (EACH * b'\\' as u64)).wrapping_sub(EACH);
    (control | quote | backslash) & !word & (EACH << 7)
}

/// So many bytes are taken eight at a time.
const NEAR: usize = 48;

/// Below are control characters, which are written as escapes (RFC 8259 §7).
const FIRST_PLAIN: u8 = 0x20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte_by_byte(bytes: &[u8]) -> usize {
        bytes
            .iter()
            .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
            .unwrap_or(bytes.len())
    }

    #[test]
    fn every_byte_at_every_place_is_plain_text_or_ends_it() {
        for length in [1, 7, 8, 9, 47, 48, 49, 56, 63, 64, 65, 80, 200] {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    assert_eq!(
                        plain(&text),
                        byte_by_byte(&text),
                        "{byte} at {at} of {length}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_look_at_each_byte_finds(
            // Around what ends plain text, where a borrow of the arithmetic would show.
            bytes in prop::collection::vec(
                prop_oneof![Just(0x1f_u8), 0x20..=0x24_u8, 0x5b..=0x5d_u8, 0x7f..=0x82_u8, 0x9f..=0xa3_u8, 0xdb..=0xdd_u8, any::<u8>()],
                0..20,
            ),
            padding in 0..80_usize,
            from in 0..90_usize,
        ) {
            let text = [&vec![b' '; padding][..], &bytes].concat();
            let text = text.get(from..).unwrap_or_default();
            prop_assert_eq!(plain(text), byte_by_byte(text));
        }
    }
}
