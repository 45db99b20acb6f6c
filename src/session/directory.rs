//! The sessions of each uid, over all shards.
//!
//! Each uid has a home shard, found by a hash of its text, which alone keeps the uid's entry. So
//! all logins of one uid meet on one shard, and the order in which their mail arrives there
//! decides.

use std::collections::HashMap;
use std::hash::Hasher;

use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::{SessionId, ShardIndex};

/// The uids whose home is one shard.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: HashMap<Box<str>, Sessions>,
}

/// The sessions of one uid, in the order they were bound.
pub(crate) type Sessions = SmallVec<[SessionId; 2]>;

impl Directory {
    /// The shard that keeps the entry of `uid`.
    pub(crate) fn home(uid: &str, shards: u16) -> ShardIndex {
        let mut hasher = FxHasher::default();
        hasher.write(uid.as_bytes());
        ShardIndex((hasher.finish() % u64::from(shards)) as u16)
    }

    pub(crate) fn get(&self, uid: &str) -> &[SessionId] {
        self.entries.get(uid).map_or(&[], |sessions| sessions)
    }

    /// Adds a session; with `single` only if the uid has no other. True if the session is bound
    /// now.
    pub(crate) fn bind(&mut self, uid: &str, session: SessionId, single: bool) -> bool {
        match self.entries.get_mut(uid) {
            None => {
                self.entries.insert(uid.into(), SmallVec::from_iter([session]));
            }
            Some(sessions) if sessions.contains(&session) => {}
            Some(_) if single => return false,
            Some(sessions) => sessions.push(session),
        }
        true
    }

    /// Removes a session. True if it was there.
    pub(crate) fn unbind(&mut self, uid: &str, session: SessionId) -> bool {
        let Some(sessions) = self.entries.get_mut(uid) else { return false };
        let before = sessions.len();
        sessions.retain(|other| *other != session);
        let found = sessions.len() < before;
        if sessions.is_empty() {
            self.entries.remove(uid);
        }
        found
    }

    /// Removes all sessions of a uid and returns them, to be kicked.
    pub(crate) fn remove(&mut self, uid: &str) -> Sessions {
        self.entries.remove(uid).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Generation, Slot};

    fn session(slot: u32) -> SessionId {
        SessionId::new(ShardIndex(0), Slot(slot), Generation::FIRST)
    }

    #[test]
    fn several_sessions_share_a_uid_unless_single() {
        let mut directory = Directory::default();
        assert!(directory.bind("amy", session(1), false));
        assert!(directory.bind("amy", session(2), false));
        assert!(!directory.bind("amy", session(3), true));
        assert!(directory.bind("amy", session(2), true), "bound already");
        assert_eq!(directory.get("amy"), [session(1), session(2)]);
    }

    #[test]
    fn the_last_unbind_frees_the_entry() {
        let mut directory = Directory::default();
        directory.bind("amy", session(1), false);
        assert!(!directory.unbind("amy", session(2)));
        assert!(directory.unbind("amy", session(1)));
        assert!(!directory.unbind("amy", session(1)));
        assert_eq!(directory.len(), 0);
    }

    #[test]
    fn homes_are_stable_and_spread() {
        let draws = if cfg!(miri) { 100 } else { 4_000 };
        let mut counts = [0; 4];
        for n in 0..draws {
            let home = Directory::home(&format!("player-{n}"), 4);
            assert_eq!(home, Directory::home(&format!("player-{n}"), 4));
            counts[home.index()] += 1;
        }
        assert!(counts.iter().all(|count| *count > draws / 8), "{counts:?}");
    }
}
