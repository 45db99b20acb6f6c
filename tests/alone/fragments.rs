//! Clients that leave WebSocket messages open: a fragment, and the most of another frame.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use shaddock::Limits;
use support::alone::{is_alone, resident_bytes};
use support::{PATIENCE, ack, builder, eventually, handshake};

const CLIENTS: usize = 60;
const PACKAGE_BYTES_MAX: usize = 512 * 1024 - 4;
/// Twice a package and its header, as documented.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// A frame with a mask of zeros, without its payload.
fn header(first: u8, len: usize) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 127];
    out.extend((len as u64).to_be_bytes());
    out.extend([0; 4]);
    out
}

fn upgraded(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let hello = [handshake(), ack()];
    let frames =
        hello.iter().flat_map(|package| [&header(0x82, package.len())[..], package].concat());
    let bytes: Vec<u8> = head.iter().copied().chain(frames).collect();
    stream.write_all(&bytes).unwrap();
    stream
}

#[test]
fn open_messages_take_no_more_than_the_longest_message_each() {
    if !is_alone("fragments::open_messages_take_no_more_than_the_longest_message_each") {
        return;
    }
    let limits = Limits { package_bytes_max: PACKAGE_BYTES_MAX, ..Limits::default() };
    let engine = builder(1).limits(limits).start().unwrap();
    let zeros = vec![0; MESSAGE_BYTES_MAX];
    let before = resident_bytes();
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| upgraded(engine.local_addr())).collect();
    // More than the half, so that there would be room for twice as much.
    let (first, second) = (MESSAGE_BYTES_MAX / 2 + 1, MESSAGE_BYTES_MAX / 2 - 1);
    for stream in &mut streams {
        stream.write_all(&[&header(0x02, first), &zeros[..first]].concat()).unwrap();
        stream.write_all(&[&header(0x00, second), &zeros[..second - 1]].concat()).unwrap();
    }
    let sent = CLIENTS * (MESSAGE_BYTES_MAX - 1);
    eventually("all was read", || engine.handle().counters().bytes_in as usize > sent);
    let grown = resident_bytes().saturating_sub(before);
    // Receive buffers, what the pool keeps, and the stacks of the threads besides.
    let allowed = CLIENTS * MESSAGE_BYTES_MAX + 24 * 1024 * 1024;
    assert!(grown < allowed, "{grown} bytes for {sent}");

    // One more byte, and the header alone closes each.
    drop(streams);
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| upgraded(engine.local_addr())).collect();
    for stream in &mut streams {
        stream.write_all(&[&header(0x02, first), &zeros[..first]].concat()).unwrap();
        stream.write_all(&header(0x00, second + 1)).unwrap();
    }
    for mut stream in streams {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it is closed before the payload is there");
        assert!(answer.ends_with(&[0x88, 2, 0x03, 0xf1]), "{answer:?}");
    }
    assert_eq!(engine.handle().counters().package_too_long, CLIENTS as u64);
}
