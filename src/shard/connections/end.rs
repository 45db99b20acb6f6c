//! The end of a connection: its session first, then its socket.

use std::sync::Arc;

use super::Connections;
use super::connection::{CloseReason, State};
use super::ended::Ended;
use super::memory::UNCOUNTED_BYTES;
use crate::session::Slot;
use crate::shard::shell::Command;

impl Connections {
    /// Ends the session of a connection, once: from here on nothing that the client sends counts,
    /// and nothing but its outbox reaches it. Those who know of it are told by whoever calls
    /// [`Self::take_ended`].
    pub(in crate::shard) fn end(&mut self, slot: Slot, reason: CloseReason) {
        let id = self.id_of(slot);
        let Some(connection) = self.table.at_mut(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let was_working = connection.state.is_working();
        #[cfg(feature = "admin")]
        self.note_closed(slot, reason);
        let Some(connection) = self.table.at_mut(slot) else { return };
        connection.state = State::Closing;
        self.budgets.forget(id);
        if let Some(partial) = connection.partial.take() {
            self.pool.give(partial.buffer);
        }
        if let Some(message) = connection.message.take() {
            self.pool.give(message.payload);
        }
        let session = &mut connection.session;
        let data = session.data.as_ref().map(|data| Arc::clone(data.shared()));
        self.ended.push_back(Ended {
            id,
            uid: data.as_ref().and_then(|data| data.uid.clone()),
            worked: data.filter(|_| was_working),
            binding: session.binding.take(),
            workers: session.workers,
        });
        self.count_close(reason);
        tracing::debug!(session = ?id, ?reason, "session closed");
    }

    /// Ends the session of a connection and closes at once; what is queued is lost.
    pub(in crate::shard) fn cut(&mut self, slot: Slot, reason: CloseReason) {
        self.end(slot, reason);
        let Some(connection) = self.table.at_mut(slot) else { return };
        if connection.state == State::Dead {
            return;
        }
        connection.state = State::Dead;
        connection.outbox.clear(&mut self.pool);
        self.commands.push_back(Command::Close(connection.socket));
        if connection.io_bytes > 0 {
            self.count_again(slot);
        }
        self.wheel.clear(slot);
    }

    /// Counts the input and output of a connection again, and cuts it where it has grown above
    /// what is left.
    #[cold]
    pub(in crate::shard) fn recount(&mut self, slot: Slot) {
        let has_grown = self.count_again(slot);
        let left = self.memory.left();
        if has_grown && self.at(slot).is_some_and(|connection| connection.kept_bytes() > left) {
            self.cut(slot, CloseReason::Memory);
        }
    }

    /// Counts again; true if there is more than before.
    fn count_again(&mut self, slot: Slot) -> bool {
        let Some(connection) = self.table.at_mut(slot) else { return false };
        let counted = connection.counted_bytes();
        let before = std::mem::replace(&mut connection.io_bytes, counted as u32) as usize;
        self.memory.remove(before);
        self.memory.add(counted);
        counted > before
    }

    /// Counts the output of a connection again where it is long enough to count.
    #[inline]
    pub(in crate::shard) fn recount_output(&mut self, slot: Slot) {
        let is_counted =
            |it: &super::Connection| it.io_bytes > 0 || it.outbox.bytes() > UNCOUNTED_BYTES;
        if self.at(slot).is_some_and(is_counted) {
            self.recount(slot);
        }
    }

    /// Takes a session that has ended and of which nobody was told.
    #[inline]
    pub(in crate::shard) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// True if [`Self::take_ended`] has something.
    #[inline]
    pub(in crate::shard) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    fn count_close(&self, reason: CloseReason) {
        let counters = &self.counters;
        match reason {
            CloseReason::Peer => counters.closed_by_peer.one(),
            CloseReason::Kick => counters.closed_by_kick.one(),
            CloseReason::HeartbeatTimeout => counters.closed_heartbeat_timeout.one(),
            CloseReason::Idle => counters.closed_idle.one(),
            CloseReason::HandshakeTimeout => counters.closed_handshake_timeout.one(),
            CloseReason::Protocol => counters.closed_protocol.one(),
            CloseReason::SlowConsumer => counters.closed_slow_consumer.one(),
            CloseReason::OutboxAge => counters.closed_outbox_age.one(),
            CloseReason::Shutdown => counters.closed_shutdown.one(),
            CloseReason::Memory => counters.closed_memory.one(),
            CloseReason::Refused => {}
        }
    }
}
