//! An answer as its client gets it: a response in a package, in a WebSocket frame where there is
//! one.

use super::package::{BODY_BYTES_MAX, HEADER_BYTES, Header, PackageType};
use super::{message, websocket};

/// Whether an answer of this body surely fits into a package.
#[inline]
pub(crate) const fn fits(body: &[u8]) -> bool {
    message::RESPONSE_HEAD_BYTES_MAX + body.len() <= BODY_BYTES_MAX
}

/// Appends an answer that fits.
#[inline]
pub(crate) fn encode(is_websocket: bool, id: u32, body: &[u8], out: &mut Vec<u8>) {
    let len = message::response_head_len(id) + body.len();
    if is_websocket {
        websocket::encode_binary_header(HEADER_BYTES + len, out);
    }
    let [kind, high, middle, low] = Header::encode(PackageType::Data, len);
    let flag = message::RESPONSE_FLAG;
    // Heads of one fixed length are stored at once, and cut to their own: nearly all ids take one
    // byte or two.
    let (head, id_len) = match id {
        0..0x80 => ([kind, high, middle, low, flag, id as u8, 0, 0], 1),
        0x80..0x4000 => ([kind, high, middle, low, flag, id as u8 | 0x80, (id >> 7) as u8, 0], 2),
        _ => ([kind, high, middle, low, 0, 0, 0, 0], 0),
    };
    let start = out.len();
    out.extend_from_slice(&head);
    if id_len > 0 {
        out.truncate(start + HEADER_BYTES + 1 + id_len);
    } else {
        out.truncate(start + HEADER_BYTES);
        message::encode_response_head(id, out);
    }
    out.extend_from_slice(body);
}

/// The bodies of answers that stand one behind the other, as [`encode`] lays them out.
pub(crate) fn bodies(mut answers: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // Their first byte tells a frame from a package.
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
            // What is cut off is none.
            assert_eq!(bodies(&out[..out.len() - 1]).count(), written.len() - 1);
        }
    }
}
