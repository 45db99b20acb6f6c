//! Sessions: ids, data, outboxes, and the directory of uids.

mod buffer_pool;
mod buffers;
#[cfg(feature = "admin")]
mod closed;
pub(crate) mod data;
mod directory;
mod id;
#[cfg(feature = "admin")]
mod info;
mod outbox;
mod queue;
mod segment;
#[cfg(feature = "admin")]
mod shown;
mod table;
mod uid;

pub(crate) use buffer_pool::BufferPool;
#[cfg(feature = "admin")]
pub(crate) use closed::{CLOSE_REASONS, CloseText, ClosedSession};
pub(crate) use data::SessionSnapshot;
pub use data::{SessionData, SessionView};
pub(crate) use directory::Directory;
pub use directory::OnSecondBind;
#[cfg(feature = "pitaya")]
pub(crate) use id::shard_of;
pub(crate) use id::{Generation, Slot, session_number};
pub use id::{SessionId, ShardIndex};
#[cfg(feature = "admin")]
pub(crate) use info::{SessionInfo, SessionPage};
pub(crate) use outbox::Outbox;
pub(crate) use queue::{Framing, LossyPush, PushLoss};
pub(crate) use segment::Segment;
pub(crate) use table::{CAPACITY_MAX, Table, place_of, token_of};
pub use uid::{Uid, UidError};
