//! Compares the WebSocket codec with tungstenite.
//!
//! Frame sequences, valid and invalid, come from a seeded generator; the fuzz target `websocket`
//! shares the readers. Both sides read the same client bytes, ours in reads of several sizes, and
//! must report the same messages, pongs and end. A failure prints the seed.

use shaddock::wire::websocket;
use tungstenite::{
    Message,
    protocol::{Role, WebSocket},
};

use crate::checks::websocket::{self as reader, Event, Stream, read_both};

const SEEDS: u64 = 20_000;
const FRAMES_MAX: u64 = 8;
const MESSAGE_BYTES_MAX: usize = 70_000;

#[test]
fn sequences_are_read_as_tungstenite_reads_them() {
    let mut ends = [0; 3];
    for seed in 1..=SEEDS {
        let mut random = Random::new(seed);
        let bytes = client_bytes(&mut random);
        let (ours, theirs) = read_both(&bytes, MESSAGE_BYTES_MAX);
        assert_eq!(ours.events, theirs.events, "seed {seed}");
        // The same bytes under the short limit of the fuzz target.
        reader::check(&bytes);
        ends[match ours.events.last() {
            Some(Event::Error) => 0,
            Some(Event::Close(_)) => 1,
            _ => 2,
        }] += 1;
    }
    // The generator must keep reaching every end.
    assert!(ends.iter().all(|&count| count > SEEDS / 40), "{ends:?}");
}

#[test]
fn what_a_server_sends_is_read_by_a_tungstenite_client() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
        let payload = vec![0xab; len];
        let mut bytes = Vec::new();
        websocket::encode_binary_header(len, &mut bytes);
        bytes.extend_from_slice(&payload);
        websocket::encode_pong(&payload[..len.min(125)], &mut bytes);
        websocket::encode_close(websocket::CLOSE_NORMAL, &mut bytes);
        let stream = Stream::new(&bytes);
        let mut client = WebSocket::from_raw_socket(stream, Role::Client, None);
        assert_eq!(client.read().unwrap().into_data(), payload);
        assert_eq!(client.read().unwrap(), Message::Pong(payload[..len.min(125)].to_vec().into()));
        let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(frame.code), websocket::CLOSE_NORMAL);
    }
}

/// A sequence of frames: mostly what a client may send, with now and then a mistake, and sometimes
/// cut off inside the last payload.
fn client_bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for _ in 0..=random.below(FRAMES_MAX) {
        let (mut first, payload) = match random.below(10) {
            0 => (0x89, random.bytes(126)),
            1 => (0x8a, random.bytes(126)),
            2 if random.below(4) == 0 => (0x88, close_payload(random)),
            _ if !pieces.is_empty() => {
                let piece = pieces.remove(0);
                (if pieces.is_empty() { 0x80 } else { 0x00 }, piece)
            }
            kind => {
                let (opcode, payload) =
                    if kind < 6 { (0x01, random.text()) } else { (0x02, random.payload()) };
                pieces = random.cut(payload);
                let piece = pieces.remove(0);
                (if pieces.is_empty() { 0x80 | opcode } else { opcode }, piece)
            }
        };
        let mut mask_bit = 0x80;
        match random.below(60) {
            0 => first ^= 1 << random.below(8),
            1 => mask_bit = 0,
            2 => first = random.below(256) as u8,
            _ => {}
        }
        append_frame(first, mask_bit, &payload, random, &mut bytes);
    }
    bytes
}

fn append_frame(first: u8, mask_bit: u8, payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    let len = payload.len() as u64;
    // Now and then a longer form than necessary, or a length over every limit. tungstenite accepts
    // the longer form for control frames, too; ws and Shaddock do not.
    let is_control = first & 0x08 != 0;
    let form = match len {
        0..=125 if is_control => 2,
        0..=125 => random.below(20).min(2),
        126..=0xffff => random.below(20).clamp(1, 2),
        _ => 0,
    };
    out.push(first);
    match (form, random.below(200)) {
        (_, 0) => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&random.next().to_be_bytes());
        }
        (2, _) if len <= 125 => out.push(mask_bit | len as u8),
        (1 | 2, _) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    let mask = (random.next() as u32).to_be_bytes();
    if mask_bit != 0 {
        out.extend_from_slice(&mask);
    }
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn close_payload(random: &mut Random) -> Vec<u8> {
    let code = match random.below(4) {
        0 => random.below(1 << 16) as u16,
        1 => 3000 + random.below(2000) as u16,
        _ => 995 + random.below(30) as u16,
    };
    match random.below(8) {
        0 => Vec::new(),
        1 => vec![3],
        2 => [&code.to_be_bytes()[..], &[0xff]].concat(),
        // tungstenite predates the registration of 1014 and refuses it.
        _ if code == 1014 => Vec::new(),
        3 => [&code.to_be_bytes()[..], "é".as_bytes()].concat(),
        _ => code.to_be_bytes().to_vec(),
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// Fewer than `bound` bytes.
    fn bytes(&mut self, bound: u64) -> Vec<u8> {
        (0..self.below(bound)).map(|_| self.next() as u8).collect()
    }

    /// Bytes of the lengths where the forms of the header change.
    fn payload(&mut self) -> Vec<u8> {
        let bound = match self.below(40) {
            0 => MESSAGE_BYTES_MAX as u64 + 200,
            1..=5 => 1_000,
            _ => 130,
        };
        self.bytes(bound)
    }

    /// UTF-8, now and then with a broken byte.
    fn text(&mut self) -> Vec<u8> {
        let texts = ["a", "é", "中", "😀"];
        let len = self.below(80);
        let mut text: Vec<u8> =
            (0..len).flat_map(|_| texts[self.below(4) as usize].bytes()).collect();
        if self.below(30) == 0 && !text.is_empty() {
            let index = self.below(text.len() as u64) as usize;
            text[index] ^= 1 << self.below(8);
        }
        text
    }

    fn cut(&mut self, payload: Vec<u8>) -> Vec<Vec<u8>> {
        match self.below(3) {
            0 => {
                let first = self.below(payload.len() as u64 + 1) as usize;
                let second = first + self.below((payload.len() - first) as u64 + 1) as usize;
                let pieces = [&payload[..first], &payload[first..second], &payload[second..]];
                pieces.map(<[u8]>::to_vec).to_vec()
            }
            _ => vec![payload],
        }
    }
}
