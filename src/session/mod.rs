//! Sessions: ids, data, outboxes, and the directory of uids.

#[cfg(feature = "admin")]
mod closed;
pub(crate) mod data;
mod directory;
mod id;
#[cfg(feature = "admin")]
mod info;
mod outbox;
mod queue;
mod table;
mod uid;

#[cfg(feature = "admin")]
pub(crate) use closed::{CloseText, ClosedSession};
pub(crate) use data::SessionSnapshot;
pub use data::{SessionData, SessionView};
pub(crate) use directory::Directory;
pub use directory::OnSecondBind;
pub(crate) use id::{Generation, Slot};
pub use id::{SessionId, ShardIndex};
#[cfg(feature = "admin")]
pub(crate) use info::{SessionInfo, SessionPage};
pub(crate) use outbox::{BufferPool, Outbox, Segment};
pub(crate) use queue::{Framing, LossyPush, PushLoss};
pub(crate) use table::{CAPACITY_MAX, Table, place_of, token_of};
pub use uid::{Uid, UidError};
