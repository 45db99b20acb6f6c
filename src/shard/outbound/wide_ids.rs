//! Request ids of Pitaya's clients that are wider than Pomelo's, of 64 bits.
//!
//! Everything here has ids of 32 bits, as Pomelo's clients count from 1. A wider one goes under
//! another name, and is found again when its request is answered. Names are above all ids that
//! clients of a dialect of 32 bits come to; who has such an id gets a name for it, too.

use rustc_hash::FxHashMap;

use crate::session::SessionId;
use crate::wire::message::MessageType;
use crate::wire::varint::VARINT_BYTES_MAX;

/// The first id that is a name.
pub(in crate::shard) const NAMES_FIRST: u32 = u32::MAX - NAMES + 1;
/// Names of each session. More requests than that are never under way, as `in_flight_per_session`
/// has 16 bits.
const NAMES: u32 = 1 << 16;

/// The ids of requests that are not answered.
#[derive(Default)]
pub(in crate::shard) struct WideIds {
    sessions: FxHashMap<SessionId, Session>,
}

#[derive(Default)]
struct Session {
    ids: FxHashMap<u32, u64>,
    next: u32,
}

impl WideIds {
    /// A name for an id; `None` where all are taken.
    pub(in crate::shard) fn name(&mut self, session: SessionId, id: u64) -> Option<u32> {
        let known = self.sessions.entry(session).or_default();
        let name = NAMES_FIRST + known.next % NAMES;
        if known.ids.contains_key(&name) {
            return None;
        }
        known.next = known.next.wrapping_add(1);
        known.ids.insert(name, id);
        Some(name)
    }

    /// The id that a name stands for.
    pub(in crate::shard) fn get(&self, session: SessionId, name: u32) -> Option<u64> {
        self.sessions.get(&session)?.ids.get(&name).copied()
    }

    /// The same. It stands for nothing from here on.
    pub(in crate::shard) fn take(&mut self, session: SessionId, name: u32) -> Option<u64> {
        self.sessions.get_mut(&session)?.ids.remove(&name)
    }

    /// True if nothing is kept of a session.
    pub(in crate::shard) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.sessions.contains_key(&session)
    }

    /// The session has ended.
    pub(in crate::shard) fn forget(&mut self, session: SessionId) {
        if !self.sessions.is_empty() {
            self.sessions.remove(&session);
        }
    }
}

/// The id of a message that has one above those that are no names, and where it ends; `None` for
/// all others. Numbers are as Go's decoder has them: what is beyond 64 bits is lost.
pub(in crate::shard) fn wide_id(message: &[u8]) -> Option<(u64, usize)> {
    // Five bytes at least, after the flag; so nearly all messages are told by one look.
    let [flag, first, second, third, fourth, ..] = *message else { return None };
    let has_id = flag >> 1 & 0b111 == MessageType::Request as u8;
    if !has_id || first & second & third & fourth < 0x80 {
        return None;
    }
    let mut id = 0_u64;
    for (index, byte) in message[1..].iter().enumerate().take(ID_BYTES_MAX) {
        id |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if *byte < 0x80 {
            let is_name = id >= u64::from(NAMES_FIRST);
            let is_long = index + 1 > VARINT_BYTES_MAX;
            return (is_name || is_long).then_some((id, index + 2));
        }
    }
    None
}

/// Bytes of a number of 64 bits.
const ID_BYTES_MAX: usize = 10;

/// Appends a number of 64 bits, as ids are written.
pub(in crate::shard) fn encode(mut id: u64, out: &mut Vec<u8>) {
    while id >= 0x80 {
        out.push(id as u8 | 0x80);
        id >>= 7;
    }
    out.push(id as u8);
}

/// Appends a message whose id ends there with another one.
pub(in crate::shard) fn rename(message: &[u8], id_end: usize, name: u32, out: &mut Vec<u8>) {
    out.push(message[0]);
    encode(name.into(), out);
    out.extend_from_slice(&message[id_end..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Generation, ShardIndex, Slot};
    use crate::wire::message::{self, Message, RouteRef};

    fn request(id: &[u8]) -> Vec<u8> {
        [b"\x00", id, b"\x05a.b.cbody"].concat()
    }

    fn written(id: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(id, &mut out);
        out
    }

    #[test]
    fn wide_ids_are_told_from_others() {
        let first = u64::from(NAMES_FIRST);
        for id in [0, 1, 127, 128, 1 << 28, first - 1] {
            assert_eq!(wide_id(&request(&written(id))), None, "{id}");
        }
        for id in [first, first + 1, 1 << 32, 1 << 53, u64::MAX] {
            let id_bytes = written(id);
            assert_eq!(wide_id(&request(&id_bytes)), Some((id, 1 + id_bytes.len())));
        }
        assert_eq!(wide_id(&request(b"\x81\x80\x80\x80\x80\x00")), Some((1, 7)), "not minimal");
        assert_eq!(wide_id(&request(&[0xff; 11])), None, "no number ends here");
        assert_eq!(wide_id(&[0, 0xff, 0xff, 0xff, 0xff]), None, "cut off");
        assert_eq!(wide_id(b"\x02\xff\xff\xff\xff\xff\xff\x01a"), None, "a notify has none");
    }

    #[test]
    fn a_renamed_message_is_the_same_otherwise() {
        let message = request(&written(1 << 60));
        let (_, end) = wide_id(&message).unwrap();
        let mut out = Vec::new();
        rename(&message, end, NAMES_FIRST + 7, &mut out);
        let route = Some(RouteRef::Text(b"a.b.c"));
        let kind = MessageType::Request;
        let id = NAMES_FIRST + 7;
        let wanted = Message { id, kind, route, body: b"body", gzip: false };
        assert_eq!(message::decode(&out), Ok(wanted));
    }

    #[test]
    fn names_are_used_again_once_they_are_free() {
        let [a, b] = [1, 2].map(|at| SessionId::new(ShardIndex(0), Slot(at), Generation::FIRST));
        let mut ids = WideIds::default();
        let names: Vec<u32> =
            (0..NAMES).map(|id| ids.name(a, u64::from(id) << 40).unwrap()).collect();
        assert_eq!(ids.name(a, 5), None, "all are taken");
        assert!(ids.name(b, 5).is_some(), "those of one session");
        assert_eq!(ids.get(a, names[3]), Some(3 << 40));
        assert_eq!(ids.take(a, names[0]), Some(0));
        assert_eq!(ids.take(a, names[0]), None);
        assert_eq!(ids.name(a, 6), Some(names[0]));
        ids.forget(a);
        assert_eq!(ids.get(a, names[0]), None);
    }
}
