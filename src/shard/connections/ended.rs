//! A session that has ended, as its shard is told of it.

use std::sync::Arc;

use super::session::Binding;
use crate::session::{SessionData, SessionId, Uid};

/// A session that has ended, for those who have to hear of it.
pub(in crate::shard) struct Ended {
    pub(in crate::shard) id: SessionId,
    /// Its data, if it has worked.
    pub(in crate::shard) worked: Option<Arc<SessionData>>,
    /// The uid that it was bound to.
    pub(in crate::shard) uid: Option<Uid>,
    /// The uid that it was about to be bound to, and who waits for that.
    pub(in crate::shard) binding: Option<Box<Binding>>,
    /// The workers that know of it, by their bits.
    pub(in crate::shard) workers: u64,
}
