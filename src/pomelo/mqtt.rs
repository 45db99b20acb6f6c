//! MQTT 3.1.1 packets, which Pomelo's RPC and its master use as frames and for nothing else
//! (docs/protocol/rpc.md, "Transport").
//!
//! ```text
//! | type, flags 1 byte | remaining length 1-4 bytes, 7 bits each | ... |
//! PUBLISH, QoS 0:  30 | length | 0003 "rpc" | JSON |
//! ```

use std::ops::Range;

/// One packet, as far as it concerns anybody here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Connect,
    /// The answer to a CONNECT: 0 is a yes. Only the master gives one.
    ConnAck {
        code: u8,
    },
    Publish {
        topic: &'a [u8],
        payload: &'a [u8],
    },
    PingReq,
    PingResp,
    Disconnect,
    /// Of a type that Pomelo does not use; to be passed over, as the original does.
    Other,
}

/// The packet at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A packet and its length.
    Packet(Packet<'a>, usize),
    /// The start of a packet, which can't be told before there are `needed` bytes.
    Partial { needed: usize },
}

/// Bytes that are no MQTT, or too many of them (made by the peer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PacketError {
    /// The remaining length takes more than four bytes.
    BadLength,
    /// The packet is longer than allowed.
    TooLong { bytes: usize },
    /// The packet is too short for what its type holds.
    Malformed,
}

impl std::fmt::Display for PacketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadLength => f.write_str("a length of more than four bytes"),
            Self::TooLong { bytes } => write!(f, "a packet of {bytes} bytes"),
            Self::Malformed => f.write_str("a packet that is too short"),
        }
    }
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];
#[cfg(test)]
pub(crate) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
/// The type of a PUBLISH of quality of service 0.
const PUBLISH: u8 = 0x30;
/// A remaining length has at most that many bytes.
const LENGTH_BYTES_MAX: usize = 4;

/// Reads the packet that `input` starts with, of `bytes_max` bytes at most.
pub(crate) fn decode(input: &[u8], bytes_max: usize) -> Result<Decoded<'_>, PacketError> {
    let Some(&first) = input.first() else { return Ok(Decoded::Partial { needed: 2 }) };
    let mut remaining = 0_usize;
    let mut at = 1;
    loop {
        let Some(&byte) = input.get(at) else { return Ok(Decoded::Partial { needed: at + 1 }) };
        remaining |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > LENGTH_BYTES_MAX {
            return Err(PacketError::BadLength);
        }
    }
    let end = at + remaining;
    if end > bytes_max {
        return Err(PacketError::TooLong { bytes: end });
    }
    let Some(body) = input.get(at..end) else { return Ok(Decoded::Partial { needed: end }) };
    let packet = match first >> 4 {
        1 => Packet::Connect,
        2 => Packet::ConnAck { code: *body.get(1).ok_or(PacketError::Malformed)? },
        3 => publish(first, body)?,
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => Packet::Disconnect,
        _ => Packet::Other,
    };
    Ok(Decoded::Packet(packet, end))
}

fn publish(first: u8, body: &[u8]) -> Result<Packet<'_>, PacketError> {
    let (len, rest) = body.split_first_chunk().ok_or(PacketError::Malformed)?;
    let len = usize::from(u16::from_be_bytes(*len));
    let (topic, rest) = rest.split_at_checked(len).ok_or(PacketError::Malformed)?;
    // Above quality of service 0 a packet id follows, which nobody here asks for.
    let payload = match first >> 1 & 3 {
        0 => rest,
        1 | 2 => rest.get(2..).ok_or(PacketError::Malformed)?,
        _ => return Err(PacketError::Malformed),
    };
    Ok(Packet::Publish { topic, payload })
}

/// Appends a CONNECT of a clean session without keepalive.
pub(crate) fn encode_connect(client_id: &str, out: &mut Vec<u8>) {
    debug_assert!(client_id.len() < 100, "the length takes one byte");
    out.extend_from_slice(&[0x10, 12 + client_id.len() as u8, 0, 4]);
    out.extend_from_slice(b"MQTT\x04\x02\0\0\0");
    out.push(client_id.len() as u8);
    out.extend_from_slice(client_id.as_bytes());
}

/// Appends a PUBLISH whose payload `write` appends.
pub(crate) fn encode_publish(topic: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // Most packets need two bytes for their length; the others are moved once.
    const LENGTH_BYTES: usize = 2;
    let start = out.len();
    out.extend_from_slice(&[PUBLISH, 0, 0]);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    write(out);
    let (length, len) = remaining_length(out.len() - start - 1 - LENGTH_BYTES);
    let place: Range<usize> = start + 1..start + 1 + LENGTH_BYTES;
    if len == LENGTH_BYTES {
        out[place].copy_from_slice(&length[..len]);
    } else {
        out.splice(place, length[..len].iter().copied());
    }
}

/// A remaining length on the wire, and how many bytes of it count.
fn remaining_length(mut remaining: usize) -> ([u8; LENGTH_BYTES_MAX], usize) {
    debug_assert!(remaining < 1 << (7 * LENGTH_BYTES_MAX));
    let mut bytes = [0; LENGTH_BYTES_MAX];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (remaining & 0x7f) as u8;
        remaining >>= 7;
        if remaining == 0 {
            return (bytes, at + 1);
        }
        *byte |= 0x80;
    }
    (bytes, LENGTH_BYTES_MAX)
}

/// Puts packets together from a stream that is cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The start of a packet whose rest has not come yet.
    partial: Vec<u8>,
    /// The length at which it makes sense to look again.
    needed: usize,
}

/// A larger buffer is given back once it has been used.
const KEPT_BYTES_MAX: usize = 16 * 1024;

impl Reader {
    /// The memory that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Keeps bytes for later. Memory is taken as they come, and no more than the packet needs.
    fn keep(&mut self, bytes: &[u8]) {
        let len = self.partial.len() + bytes.len();
        if len > self.partial.capacity() {
            let wanted = self.needed.min(len.max(2 * self.partial.capacity())).max(len);
            self.partial.reserve_exact(wanted - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their packet.
    #[cfg(feature = "internals")]
    pub(crate) fn partial_len(&self) -> usize {
        self.partial.len()
    }

    /// Takes what came, and shows each packet that is complete.
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        bytes_max: usize,
        mut each: impl FnMut(Packet<'_>),
    ) -> Result<(), PacketError> {
        while !self.partial.is_empty() {
            // No more than the packet needs, so that what follows is read where it is.
            let wanted = self.needed.saturating_sub(self.partial.len()).min(input.len());
            let (more, rest) = input.split_at(wanted);
            self.keep(more);
            input = rest;
            if self.partial.len() < self.needed {
                return Ok(());
            }
            match decode(&self.partial, bytes_max)? {
                Decoded::Partial { needed } => self.needed = needed,
                Decoded::Packet(packet, len) => {
                    debug_assert_eq!(len, self.partial.len());
                    each(packet);
                    self.partial.clear();
                    self.partial.shrink_to(KEPT_BYTES_MAX);
                }
            }
        }
        loop {
            match decode(input, bytes_max)? {
                Decoded::Packet(packet, len) => {
                    each(packet);
                    input = &input[len..];
                }
                Decoded::Partial { needed } => {
                    self.needed = needed;
                    self.keep(input);
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    /// A packet as text, and its payload as it is: to print one of many bytes takes long in Miri.
    fn parts(packet: Packet<'_>) -> (String, Vec<u8>) {
        let (head, payload) = match packet {
            Packet::Publish { topic, payload } => {
                (Packet::Publish { topic, payload: b"" }, payload)
            }
            other => (other, &b""[..]),
        };
        (format!("{head:?}"), payload.to_vec())
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<(String, Vec<u8>)>, PacketError> {
        let mut reader = Reader::default();
        let mut packets = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.read(piece, BYTES_MAX, |packet| packets.push(parts(packet)))?;
        }
        Ok(packets)
    }

    #[test]
    fn every_cut_of_a_stream_gives_the_same_packets() {
        let mut bytes = Vec::new();
        encode_connect("MQTT_RPC_1700000000000", &mut bytes);
        encode_publish("rpc", &mut bytes, |out| out.extend_from_slice(b"{}"));
        bytes.extend_from_slice(&PINGREQ);
        encode_publish("rpc", &mut bytes, |out| out.extend(std::iter::repeat_n(b'x', 300)));
        encode_publish("monitor", &mut bytes, |out| out.extend_from_slice(&[b'y'; 20_000]));
        bytes.extend_from_slice(&[0x82, 1, 0]);
        bytes.extend_from_slice(&CONNACK);
        let whole = read_in_pieces(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 7);
        for piece in crate::test_cases::cases(97, (1..40).rev()).chain([299, 300, 301, 20_000]) {
            assert_eq!(read_in_pieces(&bytes, piece).unwrap(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn lengths_of_each_size_come_back() {
        for len in [0, 121, 122, 123, 16_377, 16_378, 16_379, 2_097_146, 2_097_147] {
            let mut bytes = vec![1, 2, 3];
            encode_publish("rpc", &mut bytes, |out| out.extend_from_slice(&vec![b'x'; len]));
            let Ok(Decoded::Packet(Packet::Publish { topic: b"rpc", payload }, total)) =
                decode(&bytes[3..], usize::MAX)
            else {
                panic!("no packet of {len}")
            };
            assert_eq!((payload.len(), total), (len, bytes.len() - 3));
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for (bytes, error) in [
            (&[0x30, 0x80, 0x80, 0x80, 0x80][..], PacketError::BadLength),
            (&[0x30, 0x81, 0x80, 0x40], PacketError::TooLong { bytes: (1 << 20) + 5 }),
            (&[0x30, 0], PacketError::Malformed),
            (&[0x30, 3, 0, 2, b'r'], PacketError::Malformed),
            (&[0x32, 3, 0, 0, 1], PacketError::Malformed),
            (&[0x36, 4, 0, 0, 1, 1], PacketError::Malformed),
            (&[0x20, 1, 0], PacketError::Malformed),
        ] {
            assert_eq!(decode(bytes, BYTES_MAX), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_packet_in_part_takes_no_more_memory_than_it_needs() {
        let mut bytes = Vec::new();
        encode_publish("rpc", &mut bytes, |out| out.extend_from_slice(&vec![b'x'; 1_000_000]));
        let (mut reader, mut came, mut packets) = (Reader::default(), 0, 0);
        for piece in bytes.chunks(60_000) {
            came += piece.len();
            reader.read(piece, usize::MAX, |_| packets += 1).unwrap();
            assert!(reader.held_bytes() <= (2 * came).min(bytes.len()));
        }
        assert_eq!((packets, reader.held_bytes() <= KEPT_BYTES_MAX), (1, true));
    }

    #[test]
    fn a_packet_id_is_passed_over() {
        let bytes = [0x32, 8, 0, 3, b'r', b'p', b'c', 0, 7, b'!'];
        let packet = Packet::Publish { topic: b"rpc", payload: b"!" };
        assert_eq!(decode(&bytes, BYTES_MAX), Ok(Decoded::Packet(packet, 10)));
    }
}
