//! A recording as Wireshark reads it: packages without a network below them, by the link type
//! `WIRESHARK_UPPER_PDU`, for the dissector `pomelo` (`packaging/wireshark/pomelo.lua`).
//!
//! Three kinds of blocks are all there is to write, so no crate does it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::bounds::RECORDING_BYTES_MAX;
use super::transcript::Routes;
use crate::record::{Direction, Record, RecordKind, Snapshot};
use crate::wire::package::{HEADER_BYTES, Header};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Packages with tags in front that tell their dissector and addresses.
const LINK_TYPE: u32 = 252;
const COMMENT: u16 = 1;
const FLAGS: u16 = 2;

/// The bytes of a file. `local` is where the session's listener is.
pub(super) fn of(snapshot: &Snapshot, local: Option<SocketAddr>) -> Vec<u8> {
    let mut out = Vec::new();
    let magic = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
    push_block(&mut out, SECTION, &magic);
    push_block(&mut out, INTERFACE, &[LINK_TYPE.to_le_bytes(), [0; 4]].concat());
    let peer = snapshot.session.as_ref().map(|session| session.peer);
    let peer = peer.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
    let local = local_of(local, peer);
    let mut routes = Routes::default();
    for record in &snapshot.records {
        if out.len() > RECORDING_BYTES_MAX {
            break;
        }
        let (summary, _) = routes.summary(record);
        if let RecordKind::Package(kind) = record.kind {
            let head = Header::encode(kind, record.len);
            push_package(&mut out, record, head, (peer, local), &summary);
        }
    }
    out
}

/// The server's address, of the same family as the client's.
fn local_of(local: Option<SocketAddr>, peer: SocketAddr) -> SocketAddr {
    let port = local.map_or(0, |local| local.port());
    let ip = local.map_or_else(|| peer.ip(), |local| local.ip().to_canonical());
    match (peer.ip(), ip) {
        (IpAddr::V4(_), IpAddr::V6(_)) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        (IpAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), port),
        _ => SocketAddr::new(ip, port),
    }
}

fn push_package(
    out: &mut Vec<u8>,
    record: &Record,
    head: [u8; HEADER_BYTES],
    (peer, local): (SocketAddr, SocketAddr),
    summary: &str,
) {
    let (from, to, flags) = match record.direction {
        Direction::FromClient => (peer, local, 1_u32),
        Direction::ToClient => (local, peer, 2),
    };
    let mut data = tags(from, to);
    let tags_len = data.len();
    data.extend(head);
    data.extend(&record.kept);
    let whole_len = tags_len + head.len() + record.len;
    let mut block = Vec::new();
    for word in [
        0,
        (record.at_us >> 32) as u32,
        record.at_us as u32,
        data.len() as u32,
        u32::try_from(whole_len).unwrap_or(u32::MAX),
    ] {
        block.extend(word.to_le_bytes());
    }
    block.extend(data);
    pad(&mut block);
    push_option(&mut block, COMMENT, summary.as_bytes());
    push_option(&mut block, FLAGS, &flags.to_le_bytes());
    push_option(&mut block, 0, b"");
    push_block(out, PACKET, &block);
}

/// The tags in front of a package.
fn tags(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut tags = Vec::new();
    let mut push = |tag: u16, value: &[u8]| {
        let padded = value.len().next_multiple_of(4);
        tags.extend(tag.to_be_bytes());
        tags.extend((padded as u16).to_be_bytes());
        tags.extend(value);
        tags.extend(&[0; 3][..padded - value.len()]);
    };
    push(12, b"pomelo");
    for (ip, v4, v6) in [(from.ip(), 20, 22), (to.ip(), 21, 23)] {
        match ip {
            IpAddr::V4(ip) => push(v4, &ip.octets()),
            IpAddr::V6(ip) => push(v6, &ip.octets()),
        }
    }
    // TCP.
    push(24, &2_u32.to_be_bytes());
    push(25, &u32::from(from.port()).to_be_bytes());
    push(26, &u32::from(to.port()).to_be_bytes());
    push(0, b"");
    tags
}

fn push_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend(value);
    pad(block);
}

fn push_block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    debug_assert!(body.len().is_multiple_of(4));
    let len = (body.len() + 12) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(body);
    out.extend(len.to_le_bytes());
}

fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}
