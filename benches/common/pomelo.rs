//! The part of Pomelo's protocol that an echo needs, shared by the servers that Shaddock is
//! compared with.

/// One connection's half-read package.
#[derive(Default)]
pub(crate) struct Conversation {
    partial: Vec<u8>,
}

const HANDSHAKE: u8 = 1;
const ACK: u8 = 2;
const HEARTBEAT: u8 = 3;
const DATA: u8 = 4;
const HELLO: &[u8] = b"\x01\x00\x00\x23{\"code\":200,\"sys\":{\"heartbeat\":30}}";
const BEAT: &[u8] = b"\x03\x00\x00\x00";

impl Conversation {
    /// Reads received bytes, and appends the answers.
    pub(crate) fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.partial.is_empty() {
            let consumed = answer_all(input, out);
            if consumed < input.len() {
                self.partial.extend_from_slice(&input[consumed..]);
            }
        } else {
            self.partial.extend_from_slice(input);
            let consumed = answer_all(&self.partial, out);
            self.partial.drain(..consumed);
        }
    }
}

/// Encodes a request's body as a push. True if the input was one whole request for a push.
pub(crate) fn push_of(input: &[u8], push: &mut Vec<u8>) -> bool {
    const ROUTE: &[u8] = b"\x06\x05onAll";
    if input[0] != DATA {
        return false;
    }
    let (message, body) = (&input[4..], body_of(&input[4..]));
    if !message[..message.len() - body.len()].ends_with(b".toAll") {
        return false;
    }
    let [_, a, b, c] = ((ROUTE.len() + body.len()) as u32).to_be_bytes();
    push.clear();
    push.extend_from_slice(&[DATA, a, b, c]);
    push.extend_from_slice(ROUTE);
    push.extend_from_slice(body);
    true
}

fn answer_all(input: &[u8], out: &mut Vec<u8>) -> usize {
    let mut consumed = 0;
    while let Some((head, rest)) = input[consumed..].split_first_chunk::<4>() {
        let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let Some(body) = rest.get(..len) else { break };
        consumed += 4 + len;
        match head[0] {
            HANDSHAKE => out.extend_from_slice(HELLO),
            ACK | HEARTBEAT => out.extend_from_slice(BEAT),
            DATA => answer(body, out),
            _ => {}
        }
    }
    consumed
}

/// The offset of a request's route, behind the flag and the id.
fn route_at(message: &[u8]) -> usize {
    2 + message[1..].iter().position(|byte| byte & 0x80 == 0).expect("an id ends")
}

fn body_of(message: &[u8]) -> &[u8] {
    let route_at = route_at(message);
    &message[route_at + 1 + usize::from(message[route_at])..]
}

/// Copies id and body of a request: flag, id, route length, route, body.
fn answer(message: &[u8], out: &mut Vec<u8>) {
    let (route_at, body) = (route_at(message), body_of(message));
    let id_len = route_at - 1;
    let len = (1 + id_len + body.len()) as u32;
    let [_, a, b, c] = len.to_be_bytes();
    out.extend_from_slice(&[DATA, a, b, c, 0x04]);
    out.extend_from_slice(&message[1..route_at]);
    out.extend_from_slice(body);
}
