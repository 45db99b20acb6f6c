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
    out.reserve(websocket::BINARY_HEADER_BYTES_MAX + HEADER_BYTES + len);
    if is_websocket {
        websocket::encode_binary_header(HEADER_BYTES + len, out);
    }
    out.extend_from_slice(&Header::encode(PackageType::Data, len));
    message::encode_response_head(id, out);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::package;

    #[test]
    fn is_what_its_parts_are() {
        for (id, body_len) in [(1, 0), (200, 64), (70_000, 130), (u32::MAX, 70_000)] {
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
