//! The name of one end of a lane.

use crate::session::ShardIndex;

/// The index of a shard, a worker or a network forwarder among all of them, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party(pub(crate) u16);

impl Party {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<ShardIndex> for Party {
    fn from(shard: ShardIndex) -> Self {
        Self(shard.0)
    }
}
