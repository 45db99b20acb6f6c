//! The bytes that a shard keeps for its sessions, against [`Limits::shard_bytes_max`].
//!
//! A session may keep as much as all of them leave free. So a few that take what they can leave
//! each other session as much as each of them has, and nobody has to be looked for when memory
//! runs short: the one that asks for more is the one that is refused.
//!
//! Messages in flight count exactly. Input and output of a connection are counted once it has been
//! read, and once a turn when its output is sent, and only above [`UNCOUNTED_BYTES`], so that an
//! ordinary session costs nothing here.
//!
//! [`Limits::shard_bytes_max`]: crate::Limits::shard_bytes_max

use super::Shard;
use super::connection::{CloseReason, Connection, State};
use super::dialect::Dialect;
use super::forward_batch::copies;
use crate::dispatch::context::ClientCall;
use crate::session::{SessionId, Slot};

/// The bytes kept for all sessions of a shard.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    kept: usize,
}

/// Input and output of a connection that do not count.
pub(super) const UNCOUNTED_BYTES: usize = 64 * 1024;

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: 0 }
    }

    /// The most that any session may keep.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.kept)
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.kept += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        debug_assert!(self.kept >= bytes, "what is given back was taken");
        self.kept = self.kept.saturating_sub(bytes);
    }
}

impl Connection {
    /// What counts of its input and output.
    fn counted_bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.buffer.capacity());
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        match partial + message + self.outbox.own_bytes() {
            0..=UNCOUNTED_BYTES => 0,
            bytes => bytes,
        }
    }

    /// What counts of everything that is kept for it.
    pub(super) fn kept_bytes(&self) -> usize {
        self.io_bytes as usize + self.in_flight_bytes as usize
    }
}

impl Shard {
    /// Counts the input and output of a connection again, and closes it where it has grown above
    /// what is left.
    #[cold]
    pub(super) fn recount(&mut self, slot: Slot) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let counted = connection.counted_bytes();
        let before = std::mem::replace(&mut connection.io_bytes, counted as u32) as usize;
        let kept = connection.kept_bytes();
        self.memory.remove(before);
        self.memory.add(counted);
        if counted > before && kept > self.memory.left() {
            self.cut(slot, CloseReason::Memory);
        }
    }

    /// Counts a message that waits for a worker or a future. `None` where the session has too many
    /// of them, or of their bytes: whoever asks then finishes it, so that the filters that let it
    /// in hear of its end.
    pub(super) fn begin_in_flight(
        &mut self,
        client: &ClientCall,
        bytes: usize,
    ) -> Option<ClientCall> {
        let limits = &self.config.limits;
        let (len_max, bytes_max) =
            (limits.in_flight_per_session_max, limits.in_flight_bytes_per_session_max);
        let left = self.memory.left();
        let (_, connection) = self.find(client.session)?;
        let in_flight_bytes = connection.in_flight_bytes as usize + bytes;
        let is_too_much = connection.in_flight_bytes > 0 && in_flight_bytes > bytes_max;
        if connection.in_flight >= len_max || is_too_much {
            self.counters.session_in_flight_rejects.one();
            return None;
        }
        if connection.kept_bytes() + bytes > left {
            self.counters.memory_rejects.one();
            return None;
        }
        connection.in_flight += 1;
        connection.in_flight_bytes = in_flight_bytes as u32;
        self.memory.add(bytes);
        if self.has_no_room_in_flight(client.session) {
            self.pause_in_flight(client.session);
        }
        Some(ClientCall { bytes: bytes as u32, ..*client })
    }

    /// Whether another message of a session may find no room, however long that is.
    fn has_no_room_in_flight(&self, session: SessionId) -> bool {
        let limits = &self.config.limits;
        let longest = copies(!self.registry.global_filters.is_empty()) * limits.package_bytes_max;
        let connection = self.connections.get(session.slot(), session.generation());
        connection.is_some_and(|it| {
            it.in_flight >= limits.in_flight_per_session_max
                || it.in_flight > 0
                    && it.in_flight_bytes as usize + longest
                        > limits.in_flight_bytes_per_session_max
        })
    }

    /// A message that has waited is done.
    pub(super) fn end_in_flight(&mut self, client: &ClientCall) {
        self.release_in_flight(client.session, client.bytes as usize);
        if let Some((_, connection)) = self.find(client.session) {
            debug_assert!(connection.in_flight > 0);
            connection.in_flight = connection.in_flight.saturating_sub(1);
            if connection.state == State::Working(Dialect::Pitaya)
                && !self.has_no_room_in_flight(client.session)
            {
                self.resume_in_flight(client.session);
            }
        }
    }

    /// The bytes of messages that were in flight are kept no longer.
    pub(super) fn release_in_flight(&mut self, session: SessionId, bytes: usize) {
        self.memory.remove(bytes);
        if let Some((_, connection)) = self.find(session) {
            debug_assert!(connection.in_flight_bytes as usize >= bytes);
            connection.in_flight_bytes = connection.in_flight_bytes.saturating_sub(bytes as u32);
        }
    }
}
