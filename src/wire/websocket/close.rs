//! The close frame.

use super::fragments::check_text;
use super::frame::{FIN_BIT, Opcode};
use super::frame_error::FrameError;

/// Reads the unmasked payload of a close frame: the code, or `None` if the peer gave none.
///
/// # Errors
/// [`FrameError::CloseTruncated`], [`FrameError::CloseCode`], or [`FrameError::BadText`] for the
/// reason.
pub fn decode_close(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    // RFC 6455 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
    // unsigned integer (in network byte order)", "the body MAY contain UTF-8-encoded data".
    if payload.is_empty() {
        return Ok(None);
    }
    let (code, reason) = payload.split_first_chunk().ok_or(FrameError::CloseTruncated)?;
    let code = u16::from_be_bytes(*code);
    if !is_valid(code) {
        return Err(FrameError::CloseCode(code));
    }
    check_text(reason)?;
    Ok(Some(code))
}

/// Appends a close frame without a reason, as the stock server does.
pub fn encode_close(code: u16, out: &mut Vec<u8>) {
    debug_assert!(is_valid(code));
    let [high, low] = code.to_be_bytes();
    out.extend_from_slice(&[FIN_BIT | Opcode::Close as u8, 2, high, low]);
}

/// True if an endpoint may send the code: those that the RFC and the IANA registry define, without
/// the three (1005, 1006, 1015) that "MUST NOT be set as a status code in a Close control frame",
/// and the ranges 3000 to 4999 for libraries and applications.
const fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::super::close_code::*;
    use super::*;

    #[test]
    fn the_code_is_read_and_the_reason_checked() {
        assert_eq!(decode_close(&[]), Ok(None));
        assert_eq!(decode_close(&[3]), Err(FrameError::CloseTruncated));
        assert_eq!(decode_close(&[0x03, 0xe8]), Ok(Some(CLOSE_NORMAL)));
        assert_eq!(decode_close(b"\x03\xe9going"), Ok(Some(1001)));
        assert_eq!(decode_close(b"\x03\xe9\xff"), Err(FrameError::BadText));
    }

    #[test]
    fn only_codes_that_may_be_sent_are_accepted() {
        for code in [1000, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(decode_close(&u16::to_be_bytes(code)), Ok(Some(code)));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            let refused = FrameError::CloseCode(code);
            assert_eq!(decode_close(&u16::to_be_bytes(code)), Err(refused));
            assert_eq!(refused.close_code(), CLOSE_PROTOCOL_ERROR);
        }
    }

    #[test]
    fn an_encoded_close_reads_back() {
        let mut out = Vec::new();
        encode_close(CLOSE_TOO_BIG, &mut out);
        assert_eq!(out, [0x88, 2, 0x03, 0xf1]);
        assert_eq!(decode_close(&out[2..]), Ok(Some(CLOSE_TOO_BIG)));
    }
}
