//! Messages that wait for a worker or a future, by session.

use super::connection::{Connection, State};
use super::{Connections, Pause};
use crate::dispatch::context::ClientCall;
use crate::session::SessionId;
use crate::shard::listener_config::Dialect;

impl Connections {
    /// Counts a message that waits for a worker or a future. `None` where the session has too many
    /// of them, or of their bytes: whoever asks then finishes it, so that the filters that let it
    /// in hear of its end.
    pub(in crate::shard) fn begin_in_flight(
        &mut self,
        client: &ClientCall,
        bytes: usize,
    ) -> Option<ClientCall> {
        let limits = &self.config.limits;
        let (len_max, bytes_max) =
            (limits.in_flight_per_session_max, limits.in_flight_bytes_per_session_max);
        let left = self.memory.left();
        let (_, connection) = self.find(client.session)?;
        let in_flight_bytes = connection.session.in_flight_bytes as usize + bytes;
        let is_too_much = connection.session.in_flight_bytes > 0 && in_flight_bytes > bytes_max;
        if connection.session.in_flight >= len_max || is_too_much {
            self.counters.session_in_flight_rejects.one();
            let session = client.session;
            crate::log::seldom!(
                warn,
                ?session,
                "a session has too much in flight; some is refused"
            );
            return None;
        }
        if connection.kept_bytes() + bytes > left {
            self.counters.memory_rejects.one();
            let session = client.session;
            crate::log::seldom!(
                warn,
                ?session,
                "a shard keeps too much for its sessions; messages are refused"
            );
            return None;
        }
        connection.session.in_flight += 1;
        connection.session.in_flight_bytes = in_flight_bytes as u32;
        self.memory.add(bytes);
        if self.is_full(client.session) {
            self.pause_in_flight(client.session);
        }
        Some(ClientCall { bytes: bytes as u32, ..*client })
    }

    /// Counts the messages of a batch, of which so many are answered.
    pub(in crate::shard) fn add_in_flight(
        &mut self,
        session: SessionId,
        answered: u32,
        bytes: usize,
    ) {
        self.memory.add(bytes);
        if let Some((_, connection)) = self.find(session) {
            connection.session.in_flight += answered as u16;
            connection.session.in_flight_bytes += bytes as u32;
        }
    }

    /// True if another message of a session may find no room, however long that is.
    fn is_full(&self, session: SessionId) -> bool {
        let limits = &self.config.limits;
        let longest = self.copies * limits.package_bytes_max;
        self.get(session).is_some_and(|Connection { session, .. }| {
            session.in_flight >= limits.in_flight_per_session_max
                || session.in_flight > 0
                    && session.in_flight_bytes as usize + longest
                        > limits.in_flight_bytes_per_session_max
        })
    }

    /// Ends the waiting of a message.
    pub(in crate::shard) fn end_in_flight(&mut self, client: &ClientCall) {
        self.release_in_flight(client.session, client.bytes as usize);
        if let Some((_, connection)) = self.find(client.session) {
            debug_assert!(connection.session.in_flight > 0);
            connection.session.in_flight = connection.session.in_flight.saturating_sub(1);
            if connection.state == State::Working(Dialect::Pitaya) && !self.is_full(client.session)
            {
                self.resume_in_flight(client.session);
            }
        }
    }

    /// Gives back the bytes of messages that were in flight.
    pub(in crate::shard) fn release_in_flight(&mut self, session: SessionId, bytes: usize) {
        self.memory.remove(bytes);
        if let Some((_, Connection { session, .. })) = self.find(session) {
            debug_assert!(session.in_flight_bytes as usize >= bytes);
            session.in_flight_bytes = session.in_flight_bytes.saturating_sub(bytes as u32);
        }
    }

    /// The bytes of a session's messages in flight.
    pub(in crate::shard) fn in_flight_bytes(&self, session: SessionId) -> usize {
        self.get(session).map_or(0, |connection| connection.session.in_flight_bytes as usize)
    }

    /// Reads a session of Pitaya's no further, as many of its requests wait for answers as may; one
    /// of Pomelo's has the next one answered 500.
    #[cold]
    fn pause_in_flight(&mut self, session: SessionId) {
        let is_pitaya = |it: &Connection| it.state == State::Working(Dialect::Pitaya);
        if self.get(session).is_some_and(is_pitaya) {
            self.counters.in_flight_pauses.one();
            self.pause_reading(session, Pause::InFlight);
        }
    }

    /// Reads a session on, as a request is done and there is room for another one.
    #[cold]
    fn resume_in_flight(&mut self, session: SessionId) {
        if !self.budgets.is_held(session) {
            return;
        }
        self.budgets.resume(session, Pause::InFlight);
        // It is silent because it was not read. If nothing is ever answered it is not kept.
        let now_ms = self.clock.patient_ms();
        if let Some((_, connection)) = self.find(session) {
            connection.heard_ms = now_ms;
        }
    }
}
