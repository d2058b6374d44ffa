//! How far the plain text of a string goes: up to a quote, a backslash or a control character.
//!
//! Most of a body is this, and no other loop sees each of its bytes. Most strings are short, so the first bytes
//! are taken eight at a time in a register; what goes on is searched with vectors.

/// The number of bytes before the first that is other than plain text.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> usize {
    match bytes.split_first_chunk::<8>() {
        Some((word, rest)) => match ends_in(u64::from_le_bytes(*word)) {
            0 => 8 + plain_from_afar(rest),
            ends => ends.trailing_zeros() as usize / 8,
        },
        None => plain_from_afar(bytes),
    }
}

/// The same where the text is longer, or nearly at its end.
#[inline(never)]
fn plain_from_afar(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    // The compiler makes one vector of each.
    while let Some((chunk, behind)) = rest.split_first_chunk::<CHUNK>()
        && !chunk.iter().fold(false, |any, &byte| any | is_end(byte))
    {
        rest = behind;
    }
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let ends = ends_in(u64::from_le_bytes(*word));
        if ends != 0 {
            return bytes.len() - rest.len() + ends.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    bytes.len() - rest.len() + byte_by_byte(rest)
}

fn byte_by_byte(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|&byte| is_end(byte));
    end.unwrap_or(bytes.len())
}

const fn is_end(byte: u8) -> bool {
    byte < FIRST_PLAIN || byte == b'"' || byte == b'\\'
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

/// So many bytes make a vector.
const CHUNK: usize = 16;

/// Below are control characters, which are written as escapes (RFC 8259 §7).
const FIRST_PLAIN: u8 = 0x20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written anew, as it is what the rest is held against.
    fn naive(bytes: &[u8]) -> usize {
        bytes
            .iter()
            .take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
            .count()
    }

    #[test]
    fn every_byte_at_every_place_is_plain_text_or_ends_it() {
        for length in [1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 65, 200] {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    assert_eq!(plain(&text), naive(&text), "{byte} at {at} of {length}");
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
            prop_assert_eq!(plain(text), naive(text));
        }
    }
}
