//! Which chat server a session talks to.

use std::fmt::{self, Write as _};

use shaddock::{ServerId, SessionView};

/// Picks the chat server of a session: by its uid, or by its number before it is logged in.
pub(crate) fn pick(session: &SessionView<'_>, servers: &[ServerId]) -> Option<usize> {
    let mut hash = Hash::default();
    match session.uid() {
        Some(uid) => hash.write_str(uid.text()),
        None => write!(hash, "{}", session.number()),
    }
    .expect("hashing can't fail");
    place(hash, servers)
}

/// The server that a hash leads to when they stand sorted by name.
fn place(Hash(hash): Hash, servers: &[ServerId]) -> Option<usize> {
    let place = (hash as usize).checked_rem(servers.len())?;
    if servers.is_sorted() {
        return Some(place);
    }
    // From ten workers on `chat-10` comes before `chat-2`.
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.sort_unstable_by_key(|index| &servers[*index]);
    Some(order[place])
}

/// `h = h * 31 + unit` modulo 2^32, over the UTF-16 units of what is written into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hash(u32);

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text
            .encode_utf16()
            .fold(self.0, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: impl fmt::Display) -> Hash {
        let mut hash = Hash::default();
        write!(hash, "{text}").unwrap();
        hash
    }

    fn servers(count: usize) -> Vec<ServerId> {
        (1..=count).map(|n| ServerId::from(format!("chat-{n}").as_str())).collect()
    }

    #[test]
    fn the_hash_is_that_of_the_reference() {
        assert_eq!(hash(""), Hash(0));
        assert_eq!(hash("ab"), Hash(97 * 31 + 98));
        assert_eq!(hash(12), hash("12"));
        assert_eq!(hash("🎈"), Hash(0xd83c * 31 + 0xdf88));
        assert_eq!(hash("carol"), Hash(94_431_409));
    }

    /// As the real Pomelo answered when it was recorded.
    #[test]
    fn carol_talks_to_the_second_server() {
        assert_eq!(place(hash("carol"), &servers(2)), Some(1));
    }

    #[test]
    fn servers_count_in_the_order_of_their_names() {
        let servers = servers(11);
        let names: Vec<_> =
            (0..11).map(|hash| servers[place(Hash(hash), &servers).unwrap()].as_str()).collect();
        assert_eq!(names[..4], ["chat-1", "chat-10", "chat-11", "chat-2"]);
        assert_eq!(place(Hash(11), &servers), Some(0));
        assert_eq!(place(Hash(1), &[]), None);
    }
}
