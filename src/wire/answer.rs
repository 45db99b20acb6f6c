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
}
