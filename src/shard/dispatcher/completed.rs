//! A message that filters, a future or a lane are done with.

use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::dispatch::reply::Reply;
use crate::shard::forwarder::ForwardMessage;

/// A message that somebody is done with, and that is yet to go on.
pub(super) enum Completed {
    /// A future has answered.
    Answered { client: ClientCall, held: Option<Box<HeldRequest>>, reply: Reply<'static> },
    /// The global before filters, one of which waited, have come to a verdict.
    Admitted { client: ClientCall, held: Box<HeldRequest>, admitted: Result<(), Reply<'static>> },
    /// It has waited for a lane in vain.
    Rejected(ForwardMessage),
}
