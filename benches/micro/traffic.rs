//! Packages as real clients send them.

use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::{self, PackageType};

/// A chat message of 64 bytes.
pub(crate) const BODY: &[u8; 64] =
    br#"{"rid":"lobby-1","content":"hello, who is in today?","target":0}"#;
/// A route of ordinary length.
pub(crate) const ROUTE: &str = "connector.entryHandler.echo";
/// Other routes of the same server type, for mixed traffic.
pub(crate) const ROUTES: [&str; 8] = [
    ROUTE,
    "connector.entryHandler.enter",
    "connector.chatHandler.send",
    "connector.chatHandler.history",
    "connector.playerHandler.move",
    "connector.playerHandler.attack",
    "connector.teamHandler.invite",
    "connector.shopHandler.list",
];
/// An id of two bytes, as in a session that has run for a while.
pub(crate) const FIRST_ID: u32 = 1_000;
/// A limit that is never reached.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// A JSON text of 1 KiB.
pub(crate) fn body_1k() -> Vec<u8> {
    let mut body = br#"{"content":""#.to_vec();
    body.resize(1022, b'x');
    body.extend_from_slice(br#""}"#);
    body
}

/// A package with one request.
pub(crate) fn request(id: u32, route: RouteRef<'_>, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let kind = MessageType::Request;
    let request = Message { id, kind, route: Some(route), body, gzip: false };
    message::encode(&request, &mut out).expect("the route is short");
    package(PackageType::Data, &out)
}

/// A package.
pub(crate) fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    package::encode(kind, body, &mut out).expect("the body is short");
    out
}

/// A client's binary frame, with `payload` masked by `mask`.
pub(crate) fn frame(mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x82];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(len).expect("a short frame").to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
