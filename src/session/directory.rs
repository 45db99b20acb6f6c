//! The sessions of each uid, over all shards.
//!
//! Each uid has a home shard, found by a hash of its text, which alone keeps the uid's entry. So
//! all logins of one uid meet on one shard, and the order in which their mail arrives there
//! decides.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;

use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::{SessionId, ShardIndex};

/// The fate of a second session that binds a uid, where one is allowed; see
/// [`Builder::single_session`](crate::Builder::single_session).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSecondBind {
    /// The second bind fails with [`BindError::InUse`](crate::BindError), until the first session
    /// has ended or is unbound: the original's `singleSession`.
    Refuse,
    /// The newest login wins: the first session is kicked for this reason, and the second one is
    /// bound.
    KickFirst(Arc<str>),
    /// The newest login wins as well, and the first session closes without a word: its client finds
    /// its connection at an end, and may connect again.
    CloseFirst,
}

impl OnSecondBind {
    /// The reason that the first session is kicked for, if it is kicked.
    pub(crate) fn reason(&self) -> Option<&Arc<str>> {
        match self {
            Self::KickFirst(reason) => Some(reason),
            Self::Refuse | Self::CloseFirst => None,
        }
    }
}

/// The uids whose home is one shard.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: HashMap<Box<str>, Sessions>,
}

/// A uid that another session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InUse;

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

    /// Adds a session. Gives the others that have had the uid and have lost it by that, to be
    /// closed.
    ///
    /// # Errors
    /// The uid is another session's, and stays so.
    pub(crate) fn bind(
        &mut self,
        uid: &str,
        session: SessionId,
        on_second: Option<&OnSecondBind>,
    ) -> Result<Sessions, InUse> {
        let Some(sessions) = self.entries.get_mut(uid) else {
            self.entries.insert(uid.into(), SmallVec::from_iter([session]));
            return Ok(Sessions::new());
        };
        if sessions.contains(&session) {
            return Ok(Sessions::new());
        }
        match on_second {
            None => sessions.push(session),
            Some(OnSecondBind::Refuse) => return Err(InUse),
            Some(OnSecondBind::KickFirst(_) | OnSecondBind::CloseFirst) => {
                return Ok(std::mem::replace(sessions, SmallVec::from_iter([session])));
            }
        }
        Ok(Sessions::new())
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
        let (none, refuse) = (Ok(Sessions::new()), Some(&OnSecondBind::Refuse));
        let mut directory = Directory::default();
        assert_eq!(directory.bind("amy", session(1), None), none);
        assert_eq!(directory.bind("amy", session(2), None), none);
        assert_eq!(directory.bind("amy", session(3), refuse), Err(InUse));
        assert_eq!(directory.bind("amy", session(2), refuse), none, "bound already");
        assert_eq!(directory.get("amy"), [session(1), session(2)]);
    }

    #[test]
    fn the_newest_session_takes_the_uid_from_the_first() {
        for on_second in [OnSecondBind::KickFirst("elsewhere".into()), OnSecondBind::CloseFirst] {
            let mut directory = Directory::default();
            let mut bind = |slot| directory.bind("amy", session(slot), Some(&on_second)).unwrap();
            assert_eq!(bind(1).len(), 0);
            assert_eq!(bind(1).len(), 0, "its own is no other");
            assert_eq!(bind(2)[..], [session(1)]);
            assert_eq!(bind(1)[..], [session(2)]);
            assert_eq!(directory.get("amy"), [session(1)]);
            assert!(!directory.unbind("amy", session(2)), "its end comes late");
            assert_eq!(directory.get("amy"), [session(1)]);
        }
    }

    #[test]
    fn the_last_unbind_frees_the_entry() {
        let mut directory = Directory::default();
        directory.bind("amy", session(1), None).unwrap();
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
