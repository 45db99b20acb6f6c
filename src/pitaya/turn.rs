//! The parts of a member that all others work with.

use bytes::Bytes;

use super::commands::Commands;
use super::member_config::MemberConfig;
use crate::forward::remote::Remote;

/// The token of a question to shards among those that wait, if anybody waits.
pub(crate) type Caller = Option<u64>;

/// The surroundings of a part of a member, and the time.
pub(super) struct Turn<'a> {
    pub(super) config: &'a MemberConfig,
    pub(super) remote: &'a mut Remote<Caller, Bytes>,
    pub(super) commands: &'a mut Commands,
    pub(super) now_us: u64,
}
