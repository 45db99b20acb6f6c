//! Grouping by shard of what is for several of them, such as the uids of a push.

use smallvec::SmallVec;

use crate::session::{Directory, ShardIndex, Uid};

/// Items by the shard that they are for. Shards are few, so a search finds one soonest.
pub(crate) struct ByShard<T> {
    groups: SmallVec<[(ShardIndex, Vec<T>); 4]>,
}

impl<T> ByShard<T> {
    pub(crate) fn new() -> Self {
        Self { groups: SmallVec::new() }
    }

    pub(crate) fn add(&mut self, shard: ShardIndex, item: T) {
        match self.groups.iter_mut().find(|(other, _)| *other == shard) {
            Some((_, group)) => group.push(item),
            None => self.groups.push((shard, vec![item])),
        }
    }

    /// Shards that get something.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }
}

impl<T> IntoIterator for ByShard<T> {
    type Item = (ShardIndex, Vec<T>);
    type IntoIter = smallvec::IntoIter<[(ShardIndex, Vec<T>); 4]>;

    fn into_iter(self) -> Self::IntoIter {
        self.groups.into_iter()
    }
}

/// Uids by the shard that knows their sessions.
pub(crate) fn by_home(uids: Vec<Uid>, shards: u16) -> ByShard<Uid> {
    let mut parts = ByShard::new();
    for uid in uids {
        parts.add(Directory::home(uid.text(), shards), uid);
    }
    parts
}
