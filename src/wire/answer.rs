//! The answer to a request as its client receives it: a response in a package, on a WebSocket in a
//! frame.

use super::package::{BODY_BYTES_MAX, HEADER_BYTES, Header, PackageType};
use super::{message, varint, websocket};

/// True if an answer with this body fits into a package, whatever its id.
#[inline]
pub(crate) const fn fits(body: &[u8]) -> bool {
    message::RESPONSE_HEAD_BYTES_MAX + body.len() <= BODY_BYTES_MAX
}

/// The size in which a head is stored; its own length is less.
const HEAD_BYTES: usize = size_of::<u128>();

/// Appends an answer that [`fits`].
#[inline(always)]
pub(crate) fn encode(is_websocket: bool, id: u32, body: &[u8], out: &mut Vec<u8>) {
    if is_websocket {
        let len = message::response_head_len(id) + body.len();
        websocket::encode_binary_header(HEADER_BYTES + len, out);
    }
    encode_package(message::RESPONSE_FLAG, id, body, out);
}

/// Appends the package of a message that has an id, from its flag and the bytes behind the id. The
/// package must fit.
#[inline(always)]
pub(crate) fn encode_package(flag: u8, id: u32, rest: &[u8], out: &mut Vec<u8>) {
    let (id, id_len) = varint::to_word(id);
    let len = 1 + id_len + rest.len();
    out.reserve(HEAD_BYTES + rest.len());
    let header = u32::from_le_bytes(Header::encode(PackageType::Data, len));
    let head = u128::from(header) | u128::from(flag) << 32 | u128::from(id) << 40;
    // Heads are stored with one length and cut to their own. A copy of variable length would be a
    // call, and would stall on reading what was just written in pieces.
    let start = out.len();
    out.extend_from_slice(&head.to_le_bytes());
    out.truncate(start + HEADER_BYTES + 1 + id_len);
    out.extend_from_slice(rest);
}

/// The bodies of consecutive answers written by [`encode`].
pub(crate) fn bodies(mut answers: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // The first byte tells a frame from a package.
        let frame_head = websocket::binary_header_bytes(answers).unwrap_or(0);
        let (head, rest) = answers.get(frame_head..)?.split_first_chunk()?;
        let (response, rest) = rest.split_at_checked(Header::decode(*head).ok()?.body_len)?;
        answers = rest;
        Some(message::decode(response).ok()?.body)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::package;

    #[test]
    fn is_what_its_parts_are() {
        for (id, body_len) in
            [(1, 0), (127, 9), (128, 9), (200, 64), (16_383, 70), (16_384, 3), (u32::MAX, 70_000)]
        {
            let body = vec![b'x'; body_len];
            let mut response = Vec::new();
            message::encode_response_head(id, &mut response);
            response.extend_from_slice(&body);
            let mut package = Vec::new();
            package::encode(PackageType::Data, &response, &mut package).unwrap();
            let mut out = Vec::new();
            encode(false, id, &body, &mut out);
            assert_eq!(out, package);
            let mut frame = Vec::new();
            websocket::encode_binary_header(package.len(), &mut frame);
            frame.extend_from_slice(&package);
            out.clear();
            encode(true, id, &body, &mut out);
            assert_eq!(out, frame);
        }
    }

    #[test]
    fn bodies_come_out_again() {
        let written: Vec<Vec<u8>> =
            [0, 9, 119, 120, 70, 65_529, 65_530, 3].map(|len| vec![b'x'; len]).into();
        for is_websocket in [false, true] {
            let mut out = Vec::new();
            for (id, body) in [1, 200, 70_000].into_iter().cycle().zip(&written) {
                encode(is_websocket, id, body, &mut out);
            }
            assert!(bodies(&out).eq(&written));
            // An answer that is cut off does not count.
            assert_eq!(bodies(&out[..out.len() - 1]).count(), written.len() - 1);
        }
    }
}
