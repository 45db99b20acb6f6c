//! One direction of a recorded session: its bytes, cut into packages as they come.
//!
//! It reads what the shard reads, or has written, by itself, and never more of it than is kept. A
//! recording begins wherever the session is, so the start of what has come before is fed first.
//! What it cuts out has secrets in it still: nothing of that is kept before a
//! [`Redactor`](super::Redactor) has seen it.

use super::options::RecordOptions;
use super::recording::{Direction, RecordKind};
use crate::wire::message;
use crate::wire::package::{HEADER_BYTES, Header, PackageType};

/// Bytes of a message that its head takes at most: flag, id, route.
const MESSAGE_HEAD_BYTES_MAX: usize =
    message::RESPONSE_HEAD_BYTES_MAX + 1 + message::ROUTE_BYTES_MAX;

/// The reader of one direction.
#[derive(Debug)]
pub(crate) struct Tap {
    direction: Direction,
    options: RecordOptions,
    carrier: Carrier,
    packages: Packages,
}

/// Something that was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) kind: RecordKind,
    /// Bytes of the body on the wire.
    pub(crate) len: usize,
    pub(crate) kept: Vec<u8>,
}

/// The carrier of the packages.
#[derive(Debug)]
enum Carrier {
    /// The first byte tells it.
    First {
        is_websocket: bool,
    },
    /// The head of a request or an answer; so many bytes of its end are there.
    Http {
        len: usize,
        matched: usize,
    },
    Packages,
    /// A package whose frame's head was sent before; frames follow.
    Loose,
    Frames(Frames),
    Unreadable,
}

#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Frame {
    opcode: u8,
    len: u64,
    left: u64,
    mask: [u8; 4],
    /// The beginning of a control frame's payload, as far as a code goes.
    control: Vec<u8>,
}

#[derive(Debug, Default)]
struct Packages {
    head: Vec<u8>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    kind: PackageType,
    len: usize,
    seen: usize,
    kept: Vec<u8>,
}

/// An end of a head in HTTP.
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
const CLOSE: u8 = 8;

impl Tap {
    /// A reader of a session that has a WebSocket already or may yet have one.
    pub(crate) fn new(direction: Direction, is_websocket: bool, options: &RecordOptions) -> Self {
        Self {
            direction,
            options: options.clone(),
            carrier: Carrier::First { is_websocket },
            packages: Packages::default(),
        }
    }

    /// Reads the beginning of a WebSocket message without its frames.
    pub(crate) fn feed_packages(&mut self, bytes: &[u8], out: &mut Vec<Cut>) {
        if !self.packages.feed(bytes, &self.options, out) {
            self.carrier = Carrier::Unreadable;
        }
    }

    /// Reads bytes as they stand on the wire.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Cut>) {
        while let Some(&first) = bytes.first() {
            let consumed = match &mut self.carrier {
                Carrier::First { is_websocket } => {
                    self.carrier = carrier(self.direction, first, *is_websocket);
                    0
                }
                Carrier::Http { len, matched } => {
                    *len += 1;
                    *matched = match first == HEAD_END[*matched] {
                        true => *matched + 1,
                        false => usize::from(first == HEAD_END[0]),
                    };
                    if *matched == HEAD_END.len() {
                        out.push(Cut { kind: RecordKind::Http, len: *len, kept: Vec::new() });
                        self.carrier = Carrier::Frames(Frames::default());
                    }
                    1
                }
                Carrier::Packages => match self.packages.feed(bytes, &self.options, out) {
                    true => bytes.len(),
                    false => return self.carrier = Carrier::Unreadable,
                },
                Carrier::Loose => match self.packages.step(bytes, &self.options, out) {
                    Some(consumed) => {
                        if self.packages.is_between() {
                            self.carrier = Carrier::Frames(Frames::default());
                        }
                        consumed
                    }
                    None => return self.carrier = Carrier::Unreadable,
                },
                Carrier::Frames(frames) => {
                    let packages = &mut self.packages;
                    match frames.step(bytes, packages, &self.options, out) {
                        Some(consumed) => consumed,
                        None => return self.carrier = Carrier::Unreadable,
                    }
                }
                Carrier::Unreadable => return,
            };
            bytes = &bytes[consumed..];
        }
    }
}

fn carrier(direction: Direction, first: u8, is_websocket: bool) -> Carrier {
    let is_type = PackageType::from_byte(first).is_some();
    match direction {
        // What is left of the answer to the request for the WebSocket.
        Direction::ToClient if first == b'H' => Carrier::Http { len: 0, matched: 0 },
        Direction::ToClient if is_websocket && is_type => Carrier::Loose,
        Direction::FromClient if !is_websocket && first.is_ascii_graphic() => {
            Carrier::Http { len: 0, matched: 0 }
        }
        _ if is_websocket => Carrier::Frames(Frames::default()),
        _ => Carrier::Packages,
    }
}

impl Frames {
    /// Reads as much as belongs together; `None` where it can't be read.
    fn step(
        &mut self,
        bytes: &[u8],
        packages: &mut Packages,
        options: &RecordOptions,
        out: &mut Vec<Cut>,
    ) -> Option<usize> {
        let Some(frame) = &mut self.frame else {
            self.head.push(*bytes.first()?);
            self.frame = frame_of(&self.head)?;
            if let Some(frame) = &self.frame {
                self.head.clear();
                if frame.left == 0 {
                    self.end(out);
                }
            }
            return Some(1);
        };
        let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let at = frame.len - frame.left;
        frame.left -= here as u64;
        let payload = bytes[..here].iter().zip(at..);
        let payload: Vec<u8> =
            payload.map(|(byte, at)| byte ^ frame.mask[(at % 4) as usize]).collect();
        if frame.opcode < CLOSE {
            if !packages.feed(&payload, options, out) {
                return None;
            }
        } else if frame.control.len() < 2 {
            frame.control.extend(payload.iter().take(2 - frame.control.len()));
        }
        if self.frame.as_ref().is_some_and(|frame| frame.left == 0) {
            self.end(out);
        }
        Some(here)
    }

    fn end(&mut self, out: &mut Vec<Cut>) {
        let Some(frame) = self.frame.take().filter(|frame| frame.opcode >= CLOSE) else { return };
        let code = <[u8; 2]>::try_from(&frame.control[..]).ok().map(u16::from_be_bytes);
        let code = code.filter(|_| frame.opcode == CLOSE);
        let kind = RecordKind::Control { opcode: frame.opcode, code };
        out.push(Cut { kind, len: frame.len as usize, kept: Vec::new() });
    }
}

/// The frame whose head is there; an inner `None` if more of it has to come.
#[allow(clippy::option_option)] // An error tells nothing more.
fn frame_of(head: &[u8]) -> Option<Option<Frame>> {
    let opcode = head[0] & 0x0f;
    if !matches!(opcode, 0..=2 | 8..=10) || head[0] & 0x70 != 0 {
        return None;
    }
    let Some(second) = head.get(1) else { return Some(None) };
    let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
    let len_bytes = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if head.len() < 2 + len_bytes + if is_masked { 4 } else { 0 } {
        return Some(None);
    }
    let len = match len_bytes {
        0 => u64::from(short),
        _ => head[2..2 + len_bytes].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
    };
    let mask = if is_masked { head[2 + len_bytes..].try_into().ok()? } else { [0; 4] };
    Some(Some(Frame { opcode, len, left: len, mask, control: Vec::new() }))
}

impl Packages {
    fn is_between(&self) -> bool {
        self.head.is_empty() && self.body.is_none()
    }

    /// Reads packages; false where there is none.
    fn feed(&mut self, mut bytes: &[u8], options: &RecordOptions, out: &mut Vec<Cut>) -> bool {
        while !bytes.is_empty() {
            let Some(consumed) = self.step(bytes, options, out) else { return false };
            bytes = &bytes[consumed..];
        }
        true
    }

    /// Reads a head's byte, or what there is of a body; `None` where it can't be read.
    fn step(&mut self, bytes: &[u8], options: &RecordOptions, out: &mut Vec<Cut>) -> Option<usize> {
        let consumed = match &mut self.body {
            Some(body) => {
                let here = (body.len - body.seen).min(bytes.len());
                let room = keep_max(body.kind, options).saturating_sub(body.kept.len());
                body.kept.extend_from_slice(&bytes[..here.min(room)]);
                body.seen += here;
                here
            }
            None => {
                self.head.push(*bytes.first()?);
                if let Ok(head) = <[u8; HEADER_BYTES]>::try_from(&self.head[..]) {
                    let Ok(Header { kind, body_len: len }) = Header::decode(head) else {
                        let kind = RecordKind::Unreadable;
                        out.push(Cut { kind, len: bytes.len(), kept: Vec::new() });
                        return None;
                    };
                    self.head.clear();
                    self.body = Some(Body { kind, len, seen: 0, kept: Vec::new() });
                }
                1
            }
        };
        if let Some(body) = self.body.take_if(|body| body.seen == body.len) {
            let kind = RecordKind::Package(body.kind);
            out.push(Cut { kind, len: body.len, kept: body.kept });
        }
        Some(consumed)
    }
}

/// The bytes of a body that are looked at.
fn keep_max(kind: PackageType, options: &RecordOptions) -> usize {
    match kind {
        PackageType::Handshake | PackageType::Data | PackageType::Kick if options.has_bodies => {
            options.body_bytes_max()
        }
        PackageType::Data => MESSAGE_HEAD_BYTES_MAX,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::secrets::Secrets;
    use super::*;
    use crate::wire::websocket;

    const BODIES: bool = true;

    fn options(has_bodies: bool) -> RecordOptions {
        let secrets = Arc::new(Secrets::default());
        RecordOptions { bytes_max: 64 * 1024, has_bodies, seconds: 1, secrets }
    }

    fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
        [&Header::encode(kind, body.len())[..], body].concat()
    }

    fn cut(direction: Direction, is_websocket: bool, pieces: &[&[u8]]) -> Vec<Cut> {
        let mut tap = Tap::new(direction, is_websocket, &options(BODIES));
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| tap.feed(piece, &mut out));
        out
    }

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode, 0x80 | 126];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn packages_are_cut_the_same_however_they_come() {
        let message = b"\x00\x07\x03a.b{\"a\":1}";
        let packages = [
            package(PackageType::Handshake, b"{}"),
            package(PackageType::HandshakeAck, b""),
            package(PackageType::Data, message),
            package(PackageType::Heartbeat, b""),
        ]
        .concat();
        let expected: Vec<_> = [
            (PackageType::Handshake, &b"{}"[..]),
            (PackageType::HandshakeAck, b""),
            (PackageType::Data, message),
            (PackageType::Heartbeat, b""),
        ]
        .iter()
        .map(|&(kind, body)| {
            let kind = RecordKind::Package(kind);
            Cut { kind, len: body.len(), kept: body.to_vec() }
        })
        .collect();
        let request = b"GET / HTTP/1.1\r\nCookie: hunter2\r\n\r\n";
        let http = Cut { kind: RecordKind::Http, len: request.len(), kept: Vec::new() };
        let close = RecordKind::Control { opcode: CLOSE, code: Some(1000) };
        let close = Cut { kind: close, len: 2, kept: Vec::new() };
        let frames =
            [&request[..], &masked(2, &packages[..9]), &masked(0, &packages[9..])].concat();
        let frames = [&frames[..], &masked(CLOSE, &1000_u16.to_be_bytes())].concat();
        for step in [1, 2, 3, 7, 1000] {
            let pieces: Vec<_> = packages.chunks(step).collect();
            assert_eq!(cut(Direction::FromClient, false, &pieces), expected);
            let pieces: Vec<_> = frames.chunks(step).collect();
            let found = cut(Direction::FromClient, false, &pieces);
            assert_eq!(found[0], http);
            assert_eq!(found[1..5], expected);
            assert_eq!(found[5..], [close.clone_for_test()]);
        }
    }

    impl Cut {
        fn clone_for_test(&self) -> Self {
            Self { kind: self.kind, len: self.len, kept: self.kept.clone() }
        }
    }

    #[test]
    fn output_is_read_from_wherever_it_is() {
        let push = package(PackageType::Data, b"\x06\x06onChat{}");
        let mut frame = Vec::new();
        websocket::encode_binary_header(push.len(), &mut frame);
        frame.extend(&push);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        for (is_websocket, pieces, records) in [
            (false, vec![&push[..], &push], 2),
            (true, vec![&frame[..], &frame], 2),
            // The head of its frame was sent before.
            (true, vec![&push[..], &frame], 2),
            (true, vec![&answer[..], &frame], 2),
            (false, vec![&answer[..], &frame], 2),
        ] {
            let found = cut(Direction::ToClient, is_websocket, &pieces);
            assert_eq!(found.len(), records, "{found:?}");
            assert_eq!(found[1].kind, RecordKind::Package(PackageType::Data));
        }
    }

    #[test]
    fn nonsense_is_told_once_and_no_more_is_kept_than_asked_for() {
        let found = cut(Direction::FromClient, false, &[b"\xff\xff\xff\xff\xff", b"\x04\0\0\0"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, RecordKind::Unreadable);
        assert!(cut(Direction::FromClient, true, &[b"\x93\x81\0\0"]).is_empty());
        let long =
            package(PackageType::Data, &[&b"\x02\x03a.b{\"a\":\""[..], &[b'x'; 99_999]].concat());
        let found = cut(Direction::FromClient, false, &[&long]);
        assert_eq!((found[0].len, found[0].kept.len()), (100_010, 4 * 1024));
        let mut tap = Tap::new(Direction::FromClient, false, &options(false));
        let mut out = Vec::new();
        tap.feed(&long, &mut out);
        assert_eq!(out[0].kept.len(), MESSAGE_HEAD_BYTES_MAX);
    }
}
