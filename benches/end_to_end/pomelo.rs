//! Just enough of Pomelo for an echo: what the servers that Shaddock is compared with share.

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
    /// Reads what came, and appends the answers.
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

/// Copies id and body of a request: flag, id, route length, route, body.
fn answer(message: &[u8], out: &mut Vec<u8>) {
    let id_len = 1 + message[1..].iter().position(|byte| byte & 0x80 == 0).expect("an id ends");
    let route_at = 1 + id_len;
    let body = &message[route_at + 1 + usize::from(message[route_at])..];
    let len = (1 + id_len + body.len()) as u32;
    let [_, a, b, c] = len.to_be_bytes();
    out.extend_from_slice(&[DATA, a, b, c, 0x04]);
    out.extend_from_slice(&message[1..route_at]);
    out.extend_from_slice(body);
}
