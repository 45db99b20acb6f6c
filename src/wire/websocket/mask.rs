//! The mask of a client's payload.

/// Unmasks a part of a payload in place. `offset` is the number of bytes of the payload that
/// precede this part, so a frame cut over several reads is unmasked as it arrives.
///
/// RFC 6455 5.3: "octet i of the transformed data is the XOR of octet i of the original data with
/// octet at index i modulo 4 of the masking key".
#[inline]
pub fn unmask(payload: &mut [u8], mut mask: [u8; MASK_BYTES], offset: usize) {
    // The key is rotated to the part's start and repeated to one word. Whole words need no index
    // arithmetic, so the compiler can use vector registers.
    mask.rotate_left(offset % MASK_BYTES);
    let key: [u8; WORD_BYTES] = std::array::from_fn(|index| mask[index % MASK_BYTES]);
    let word_key = u64::from_ne_bytes(key);
    let (words, tail) = payload.as_chunks_mut::<WORD_BYTES>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ word_key).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key) {
        *byte ^= key;
    }
}

pub(super) const MASK_BYTES: usize = 4;
const WORD_BYTES: usize = size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x6d, 0xb6, 0xb2, 0x80];

    fn masked(len: usize) -> (Vec<u8>, Vec<u8>) {
        let plain: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
        let masked = plain.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]).collect();
        (plain, masked)
    }

    #[test]
    fn every_length_gives_the_plain_bytes() {
        for len in 0..200 {
            let (plain, mut bytes) = masked(len);
            unmask(&mut bytes, MASK, 0);
            assert_eq!(bytes, plain, "{len}");
        }
    }

    #[test]
    fn a_payload_cut_anywhere_is_unmasked_in_parts() {
        let (plain, whole) = masked(70);
        let len = whole.len();
        let cuts = (0..=len).flat_map(|first| (first..=len).map(move |second| (first, second)));
        for (first, second) in crate::test_cases::cases(97, cuts) {
            let mut bytes = whole.clone();
            unmask(&mut bytes[..first], MASK, 0);
            unmask(&mut bytes[first..second], MASK, first);
            unmask(&mut bytes[second..], MASK, second);
            assert_eq!(bytes, plain, "cut at {first} and {second}");
        }
    }

    #[test]
    fn the_largest_offset_does_not_overflow() {
        let mut bytes = [0; 9];
        unmask(&mut bytes, MASK, usize::MAX - 3);
        assert_eq!(bytes[..4], MASK);
    }
}
