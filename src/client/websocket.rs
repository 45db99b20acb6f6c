//! The client's side of a WebSocket: the upgrade, and frames as a stream of packages.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::error::{Closed, Fault};
use crate::wire::websocket::{
    CLOSE_NORMAL, CONTROL_BYTES_MAX, Fragments, FrameError, FrameHeader, Opcode, unmask,
};

/// The longest head of the answer to the upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// RFC 6455 4.1.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const FIN_BIT: u8 = 0x80;
const MASK_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;

/// A WebSocket over bytes.
///
/// A server puts whole packages into its messages, mostly one and sometimes several. The payloads
/// are read as one stream of packages all the same: then no frame has to be kept until it is
/// whole, and its length needs no bound.
#[derive(Debug)]
pub(super) struct WebSocket {
    state: State,
    /// The key of the upgrade, in base64.
    key: String,
    /// A header, the payload of a control frame or the head of HTTP, as far as it is there.
    partial: Vec<u8>,
    fragments: Fragments,
    /// The source of masks, which others must not be able to guess.
    random: RandomState,
    masks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Upgrade,
    Header,
    /// Inside a data frame, of which so many bytes have not come yet.
    Payload(u64),
    /// Inside a control frame of this length.
    Control(Opcode, usize),
}

/// The outcome of a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Open,
    /// The server's last frame was there.
    Ended,
}

impl WebSocket {
    /// The state before the upgrade, and the request for it, which goes to `out`.
    pub(super) fn new(host: &str, path: &str, out: &mut Vec<u8>) -> Self {
        let random = RandomState::new();
        let halves = [random.hash_one("a"), random.hash_one("b")].map(u64::to_ne_bytes);
        let key = STANDARD.encode(halves.as_flattened());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Self {
            state: State::Upgrade,
            key,
            partial: Vec::new(),
            // Messages of any length, as nothing of them is kept.
            fragments: Fragments::new(usize::MAX),
            random,
            masks: 0,
        }
    }

    /// True once the server has agreed to the upgrade.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Upgrade
    }

    /// Reads the socket's bytes. Packages go to `packages`, and pongs to `out` as long as it has
    /// less than `out_bytes_max`.
    ///
    /// # Errors
    /// The reason to close. The packages in front of it count.
    pub(super) fn receive(
        &mut self,
        mut input: &[u8],
        packages: &mut Vec<u8>,
        out: &mut Vec<u8>,
        out_bytes_max: usize,
    ) -> Result<Received, Closed> {
        if self.state == State::Upgrade {
            let Some(consumed) = self.read_upgrade(input)? else { return Ok(Received::Open) };
            input = &input[consumed..];
        }
        while !input.is_empty() {
            match self.state {
                State::Upgrade => unreachable!("the upgrade is done above"),
                State::Header => {
                    self.partial.push(input[0]);
                    input = &input[1..];
                    self.read_header()?;
                }
                State::Payload(left) => {
                    let len =
                        usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                    packages.extend_from_slice(&input[..len]);
                    input = &input[len..];
                    let left = left - len as u64;
                    self.state = if left == 0 { State::Header } else { State::Payload(left) };
                }
                State::Control(..) => {
                    self.partial.push(input[0]);
                    input = &input[1..];
                }
            }
            // An empty control frame is whole already.
            if let State::Control(opcode, len) = self.state
                && self.partial.len() == len
            {
                self.state = State::Header;
                let payload = std::mem::take(&mut self.partial);
                match opcode {
                    Opcode::Close => return Ok(Received::Ended),
                    // RFC 6455 5.5.3 lets an endpoint leave pings unanswered but for the last.
                    Opcode::Ping if out.len() < out_bytes_max => {
                        self.encode(Opcode::Pong, &payload, out);
                    }
                    _ => {}
                }
            }
        }
        Ok(Received::Open)
    }

    /// The bytes of `input` that end the head; `None` if it is not there yet.
    fn read_upgrade(&mut self, input: &[u8]) -> Result<Option<usize>, Closed> {
        let before = self.partial.len();
        let room = HEAD_BYTES_MAX - before;
        self.partial.extend_from_slice(&input[..input.len().min(room)]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head_len = match response.parse(&self.partial) {
            Ok(httparse::Status::Complete(head_len)) => head_len,
            Ok(httparse::Status::Partial) if self.partial.len() < HEAD_BYTES_MAX => {
                return Ok(None);
            }
            Ok(httparse::Status::Partial) | Err(_) => return Err(Fault::Upgrade.into()),
        };
        match response.code {
            Some(101) => {}
            Some(status) => return Err(Closed::Upgrade { status }),
            None => return Err(Fault::Upgrade.into()),
        }
        let mut hash = Sha1::new();
        hash.update(self.key.as_bytes());
        hash.update(ACCEPT_SUFFIX);
        let accept = STANDARD.encode(hash.finalize());
        let is_accepted = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept")
                && header.value.trim_ascii() == accept.as_bytes()
        });
        if !is_accepted {
            return Err(Fault::Upgrade.into());
        }
        self.partial = Vec::new();
        self.state = State::Header;
        // The bytes before these ended no head, so it ends in these.
        Ok(Some(head_len - before))
    }

    /// Reads the header in `partial`, if it is whole.
    fn read_header(&mut self) -> Result<(), Closed> {
        let Some(header) = decode_header(&self.partial).map_err(Fault::Frame)? else {
            return Ok(());
        };
        let (fin, opcode, len) = header;
        self.partial.clear();
        let (mask, header_len) = ([0; 4], 0);
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        let frame = FrameHeader { fin, opcode, mask, payload_len, header_len };
        self.fragments.on_frame(&frame).map_err(Fault::Frame)?;
        self.state = match len {
            _ if opcode.is_control() => State::Control(opcode, payload_len),
            0 => State::Header,
            len => State::Payload(len),
        };
        Ok(())
    }

    /// Appends a package in a frame of its own.
    pub(super) fn encode_package(&mut self, package: &[u8], out: &mut Vec<u8>) {
        self.encode(Opcode::Binary, package, out);
    }

    /// Appends the client's last frame.
    pub(super) fn encode_close(&mut self, out: &mut Vec<u8>) {
        self.encode(Opcode::Close, &CLOSE_NORMAL.to_be_bytes(), out);
    }

    fn encode(&mut self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        out.push(FIN_BIT | opcode as u8);
        match payload.len() {
            len @ 0..=125 => out.push(MASK_BIT | len as u8),
            len @ 126..=0xffff => {
                out.push(MASK_BIT | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(MASK_BIT | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        self.masks += 1;
        let [a, b, c, d, ..] = self.random.hash_one(self.masks).to_ne_bytes();
        let mask = [a, b, c, d];
        out.extend_from_slice(&mask);
        let start = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[start..], mask, 0);
    }
}

/// Reads the header of a server's frame: the final bit, the opcode and the payload's length. `None`
/// if it is not whole. `input` holds no byte behind it.
fn decode_header(input: &[u8]) -> Result<Option<(bool, Opcode, u64)>, FrameError> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    if first & RESERVED_BITS != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = match first & OPCODE_BITS {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => return Err(FrameError::ReservedOpcode(other)),
    };
    let fin = first & FIN_BIT != 0;
    if opcode.is_control() && !fin {
        return Err(FrameError::ControlFragmented);
    }
    // RFC 6455 5.1: "A client MUST close a connection if it detects a masked frame."
    if second & MASK_BIT != 0 {
        return Err(FrameError::Masked);
    }
    if opcode.is_control() && usize::from(*second) > CONTROL_BYTES_MAX {
        return Err(FrameError::ControlTooLong);
    }
    let len = match second {
        126 => rest.first_chunk().map(|len| u64::from(u16::from_be_bytes(*len))),
        127 => rest.first_chunk().map(|len| u64::from_be_bytes(*len)),
        len => Some(u64::from(*len)),
    };
    match len {
        Some(len) if len >> 63 != 0 => Err(FrameError::LengthInvalid),
        len => Ok(len.map(|len| (fin, opcode, len))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http;
    use crate::wire::websocket::{self as server, HeaderStatus};

    /// A client whose upgrade the crate's own server has accepted.
    fn open() -> WebSocket {
        let mut request = Vec::new();
        let mut client = WebSocket::new("host:1", "/", &mut request);
        let status = http::decode(&request, 8192).unwrap();
        let http::UpgradeStatus::Complete { upgrade, consumed } = status else { panic!() };
        assert_eq!((consumed, upgrade.header("host")), (request.len(), Some(&b"host:1"[..])));
        let mut answer = Vec::new();
        http::encode_accept(&upgrade, &mut answer);
        for byte in answer {
            assert!(!client.is_open());
            assert_eq!(
                client.receive(&[byte], &mut Vec::new(), &mut Vec::new(), 0),
                Ok(Received::Open)
            );
        }
        assert!(client.is_open());
        client
    }

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let mut client = open();
        for len in [0, 125, 126, 65_535, 65_536] {
            let package = vec![7; len];
            let mut out = Vec::new();
            client.encode_package(&package, &mut out);
            let HeaderStatus::Complete(header) = server::decode_header(&out, 1 << 20).unwrap()
            else {
                panic!("cut off")
            };
            let payload = &mut out[header.header_len..];
            assert_eq!((header.payload_len, payload.len()), (len, len));
            server::unmask(payload, header.mask, 0);
            assert_eq!(payload, package);
        }
    }

    #[test]
    fn payloads_are_one_stream_and_control_frames_are_no_part_of_it() {
        let frames = [
            &b"\x82\x02ab"[..],
            b"\x02\x01c",
            b"\x89\x02hi",
            b"\x80\x01d",
            b"\x8a\x00",
            b"\x89\x00",
            b"\x81\x7e\x00\x01e",
            b"\x82\x7f\0\0\0\0\0\0\0\x01f",
            b"\x82\x00",
            b"\x88\x00",
            b"\xff",
        ]
        .concat();
        for piece in 1..frames.len() {
            let mut client = open();
            let (mut packages, mut out) = (Vec::new(), Vec::new());
            let mut outcome = Received::Open;
            for piece in frames.chunks(piece) {
                outcome = client.receive(piece, &mut packages, &mut out, 1024).unwrap();
                if outcome == Received::Ended {
                    break;
                }
            }
            assert_eq!((outcome, &*packages), (Received::Ended, &b"abcdef"[..]), "{piece}");
            let mut pong = out.split_off(0);
            assert_eq!(pong[..2], [0x8a, 0x82]);
            let mask = [pong[2], pong[3], pong[4], pong[5]];
            server::unmask(&mut pong[6..8], mask, 0);
            assert_eq!(pong[6..8], *b"hi");
            assert_eq!(pong.len(), 8 + 6, "a pong for each ping");
        }
    }

    #[test]
    fn pongs_have_a_bound() {
        let mut client = open();
        let mut out = vec![0; 10];
        client.receive(b"\x89\x00\x89\x00", &mut Vec::new(), &mut out, 10).unwrap();
        assert_eq!(out.len(), 10);
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for (frame, error) in [
            (&b"\x82\x80"[..], FrameError::Masked),
            (b"\xc2\x00", FrameError::ReservedBits),
            (b"\x83\x00", FrameError::ReservedOpcode(3)),
            (b"\x09\x00", FrameError::ControlFragmented),
            (b"\x89\x7e", FrameError::ControlTooLong),
            (b"\x80\x00", FrameError::ContinuationUnexpected),
            (b"\x02\x00\x82\x00", FrameError::ContinuationExpected),
            (b"\x82\x7f\xff\0\0\0\0\0\0\0", FrameError::LengthInvalid),
        ] {
            let refused = open().receive(frame, &mut Vec::new(), &mut Vec::new(), 0);
            assert_eq!(refused, Err(Closed::Fault(Fault::Frame(error))), "{frame:x?}");
        }
    }

    #[test]
    fn an_answer_that_is_no_upgrade_is_told() {
        let upgrade = |answer: &[u8]| {
            let mut client = WebSocket::new("h", "/", &mut Vec::new());
            client.receive(answer, &mut Vec::new(), &mut Vec::new(), 0)
        };
        let status = Err(Closed::Upgrade { status: 403 });
        assert_eq!(upgrade(b"HTTP/1.1 403 Forbidden\r\n\r\n"), status);
        for answer in [
            &b"\x01\0\0\0"[..],
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            &[b"HTTP/1.1 101 S\r\nA: ", &*vec![b'x'; 20_000]].concat(),
        ] {
            assert_eq!(upgrade(answer), Err(Closed::Fault(Fault::Upgrade)));
        }
        assert_eq!(upgrade(b"HTTP/1.1 101"), Ok(Received::Open));
    }
}
