//! Base-128 integers, the encoding of request ids and protobuf keys.
//!
//! ```
//! use shaddock::wire::varint;
//!
//! let mut bytes = Vec::new();
//! varint::encode(300, &mut bytes);
//! assert_eq!(bytes, [0xac, 0x02]);
//! assert_eq!(varint::decode(&bytes)?, (300, varint::len(300)));
//! # Ok::<(), varint::VarintError>(())
//! ```

use std::fmt;

/// The most bytes of a `u32`.
pub const VARINT_BYTES_MAX: usize = 5;

/// Reads a `u32` from the start of `input`. Returns the number and the bytes it took.
///
/// Non-minimal forms (`81 00` for 1) of up to [`VARINT_BYTES_MAX`] bytes are accepted, as by the
/// stock server. The stock decoder shifts in 32-bit signed arithmetic, so longer or larger numbers
/// wrap there; here they are an error.
///
/// # Errors
/// [`VarintError::Truncated`] if the input ends inside the number, [`VarintError::Overflow`] if the
/// number takes more than five bytes or does not fit a `u32`.
#[inline]
pub fn decode(input: &[u8]) -> Result<(u32, usize), VarintError> {
    // Nearly all ids of a session take at most three bytes.
    match *input {
        [first, ..] if first < 0x80 => Ok((first.into(), 1)),
        [first, second, ..] if second < 0x80 => Ok((low(first) | u32::from(second) << 7, 2)),
        [first, second, third, ..] if third < 0x80 => {
            Ok((low(first) | low(second) << 7 | u32::from(third) << 14, 3))
        }
        _ => decode_long(input),
    }
}

/// The bits of a byte that carry the value.
const fn low(byte: u8) -> u32 {
    (byte & 0x7f) as u32
}

/// Appends the minimal form of `value` to `out`.
#[inline]
pub fn encode(value: u32, out: &mut Vec<u8>) {
    // A copy of fixed length is a store, a copy of variable length is a call.
    let (word, len) = to_word(value);
    let start = out.len();
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(start + len);
}

/// The minimal form of `value`, first byte lowest, and its length in bytes.
#[inline]
pub(crate) const fn to_word(value: u32) -> (u64, usize) {
    let (value, len) = (value as u64, len(value));
    // Most values take one or two bytes; the branch costs less than the steps it saves (3 % of a
    // turn).
    let low = value & 0x7f | (value & 0x3f80) << 1;
    let word = match len {
        1 => return (value, 1),
        2 => return (low | 0x80, 2),
        _ => {
            low | (value & 0x1f_c000) << 2 | (value & 0xfe0_0000) << 3 | (value & 0xf000_0000) << 4
        }
    };
    // All bytes but the last have the bit for more bytes.
    (word | 0x80_8080_8080 & ((1 << (8 * (len - 1))) - 1), len)
}

/// The number of bytes that [`encode`] appends for `value`.
#[inline]
#[must_use]
pub const fn len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        // A byte carries seven bits.
        _ => (u32::BITS - value.leading_zeros()).div_ceil(7) as usize,
    }
}

/// The reasons why a number can't be read; the peer is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarintError {
    /// The input ends before the last byte of the number.
    Truncated,
    /// The number takes more than five bytes or exceeds 2^32 - 1.
    Overflow,
}

impl fmt::Display for VarintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the number is cut off",
            Self::Overflow => "the number does not fit 32 bits",
        })
    }
}

impl std::error::Error for VarintError {}

fn decode_long(input: &[u8]) -> Result<(u32, usize), VarintError> {
    let mut value: u32 = 0;
    for (index, &byte) in input.iter().take(VARINT_BYTES_MAX).enumerate() {
        // The fifth byte has room for the top four bits only, and must be the last.
        if index == VARINT_BYTES_MAX - 1 && byte > 0x0f {
            return Err(VarintError::Overflow);
        }
        value |= low(byte) << (7 * index);
        if byte < 0x80 {
            return Ok((value, index + 1));
        }
    }
    debug_assert!(input.len() < VARINT_BYTES_MAX);
    Err(VarintError::Truncated)
}

/// The length of the longest number of 64 bits, in bytes.
pub(crate) const LONG_BYTES_MAX: usize = 10;

/// The base-128 form of `value`, low bits first, and its length in bytes.
///
/// A fixed array keeps the check for growth out of the loop.
pub(crate) fn to_bytes(mut value: u64) -> ([u8; LONG_BYTES_MAX], usize) {
    let mut bytes = [0; LONG_BYTES_MAX];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_survives_the_round_trip_at_every_cut() {
        for shift in 0..=32_u64 {
            for value in [(1_u64 << shift).saturating_sub(1), 1 << shift, (1 << shift) + 1] {
                let Ok(value) = u32::try_from(value) else { continue };
                let mut out = Vec::new();
                encode(value, &mut out);
                assert_eq!(out.len(), len(value), "{value}");
                assert_eq!(decode(&out), Ok((value, out.len())));
                for cut in 0..out.len() {
                    assert_eq!(decode(&out[..cut]), Err(VarintError::Truncated));
                }
                out.push(0xff);
                assert_eq!(decode(&out), Ok((value, out.len() - 1)));
            }
        }
    }

    #[test]
    fn numbers_over_32_bits_or_five_bytes_are_refused() {
        for input in [
            &[0x80, 0x80, 0x80, 0x80, 0x10][..],
            &[0x80, 0x80, 0x80, 0x80, 0x80],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0xff; 10],
        ] {
            assert_eq!(decode(input), Err(VarintError::Overflow), "{input:?}");
        }
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok((u32::MAX, 5)));
    }

    #[test]
    fn non_minimal_forms_are_accepted_as_the_stock_server_does() {
        assert_eq!(decode(&[0x81, 0x00]), Ok((1, 2)));
        assert_eq!(decode(&[0x80, 0x80, 0x80, 0x80, 0x00]), Ok((0, 5)));
    }
}
