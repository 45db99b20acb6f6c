//! WebSocket messages in fragments: what a connection keeps of them.

use super::*;

const PACKAGE_BYTES_MAX: usize = 1_000;
/// The longest message: two of the longest packages.
const MESSAGE_BYTES_MAX: usize = 2 * (4 + PACKAGE_BYTES_MAX);
/// The longest header of a frame.
const HEADER_BYTES: usize = 14;
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn working(package_bytes_max: usize) -> (Rig, SessionId) {
    let handshake_package_bytes_max = package_bytes_max.min(64);
    let limits = Limits { package_bytes_max, handshake_package_bytes_max, ..Limits::default() };
    let mut rig = Rig::new(None, limits);
    let session = rig.accept().unwrap();
    rig.receive(session, UPGRADE);
    rig.receive(session, &frame(0x82, &handshake()));
    rig.receive(session, &frame(0x82, &ack()));
    (rig, session)
}

/// A frame with a mask of zeros, or as much of it as has been sent.
fn long(first: u8, len: usize, sent: usize) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 127];
    out.extend((len as u64).to_be_bytes());
    out.extend([0; 4]);
    out.resize(out.len() + sent, 0);
    out
}

/// Bytes that the connection has allocated for what it keeps.
fn kept(rig: &Rig, session: SessionId) -> usize {
    let connection = rig.shard.connections().at(session.slot()).unwrap();
    let partial = connection.partial.as_ref().map_or(0, |partial| partial.buffer.capacity());
    partial + connection.message.as_ref().map_or(0, |message| message.payload.capacity())
}

#[test]
fn a_message_is_too_long_as_soon_as_the_header_of_the_frame_is_there_that_makes_it_so() {
    for before in cases(61, 1..=MESSAGE_BYTES_MAX) {
        let (mut rig, session) = working(PACKAGE_BYTES_MAX);
        rig.receive(session, &long(0x02, before, before));
        let more = MESSAGE_BYTES_MAX - before;
        // The last byte of the mask ends the header.
        let header = long(0x00, more + 1, 0);
        rig.receive(session, &header[..HEADER_BYTES - 1]);
        assert_eq!(rig.counters().package_too_long, 0, "{before}");
        rig.receive(session, &header[HEADER_BYTES - 1..]);
        assert_eq!(rig.counters().package_too_long, 1, "{before}");
        assert_eq!(rig.counters().closed_protocol, 1, "{before}");
    }
}

/// However the frames are cut, and however the bytes are: both buffers together.
#[test]
fn no_more_is_kept_than_twice_of_what_has_come_nor_than_the_longest_message() {
    const PACKAGE_BYTES_MAX: usize = 1_000_000;
    const MESSAGE_BYTES_MAX: usize = 2 * (4 + PACKAGE_BYTES_MAX);
    // A buffer of the pool may be larger than what is in it; of those there are few.
    const SLACK_BYTES: usize = 64 * 1024 + 2 * HEADER_BYTES;
    let splits = [1, 50_000, 600_000, 1_000_004, 1_400_000, 2_000_000];
    let all = splits.into_iter().flat_map(|first| [50_000, 16_384].map(|cut| (first, cut)));
    for (first, cut) in cases(3, all) {
        let (mut rig, session) = working(PACKAGE_BYTES_MAX);
        let mut sent = 0;
        let (mut left, mut opcode) = (MESSAGE_BYTES_MAX, 0x02);
        // Each frame takes half of what is left, but the first, so that buffers grow at each.
        let mut len = first;
        while left > 1 {
            let frame = long(opcode, len, len);
            for piece in frame.chunks(cut) {
                rig.receive(session, piece);
                sent += piece.len();
                let kept = kept(&rig, session);
                assert!(kept <= 2 * sent + SLACK_BYTES, "{kept} of {sent}, {first}, {cut}");
                assert!(kept <= MESSAGE_BYTES_MAX + SLACK_BYTES, "{kept}, {first}, {cut}");
            }
            (left, opcode) = (left - len, 0x00);
            len = (left / 2).max(1);
        }
        assert_eq!(rig.counters().closed_protocol, 0, "{first}, {cut}");
        rig.receive(session, &long(0x00, 2, 0));
        assert_eq!(rig.counters().package_too_long, 1);
        assert!(rig.shard.connections().at(session.slot()).is_none_or(|it| it.message.is_none()));
    }
}

/// They take a share of the turn as all frames do, and no memory.
#[test]
fn empty_fragments_without_end_keep_nothing() {
    let (mut rig, session) = working(PACKAGE_BYTES_MAX);
    rig.receive(session, &frame(0x02, b"\x03"));
    rig.receive(session, &frame(0x00, b"").repeat(10_000));
    rig.receive(session, &frame(0x89, b"between"));
    assert!(kept(&rig, session) <= 16);
    assert!(rig.counters().reading_pauses > 0, "they were read in one turn");
    rig.receive(session, &frame(0x80, b"\0\0\0"));
    assert_eq!(rig.counters().closed_protocol, 0);
    assert_eq!(rig.counters().ignored_packages + rig.counters().heartbeats, 0);
}
