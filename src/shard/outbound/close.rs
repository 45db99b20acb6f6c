//! Sessions that are closed behind what is queued for them.

use super::Outbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, State, Transport};
use crate::shard::shell::{Command, ReceiveEnd};
use crate::wire::websocket;

impl Outbound {
    /// Handles the end of a client's stream.
    pub(in crate::shard) fn handle_receive_end(&mut self, session: SessionId, end: ReceiveEnd) {
        let budgets = self.connections.budgets_mut();
        if end == ReceiveEnd::Eof && budgets.defer_end(session, end) {
            return;
        }
        let Some((slot, connection)) = self.connections.find(session) else { return };
        connection.is_read_to_end = true;
        match (connection.state, end) {
            (State::Dead, _) => {}
            (_, ReceiveEnd::Error) | (State::Lingering, _) => {
                self.connections.cut(slot, CloseReason::Peer);
            }
            // What is queued is for a client that may still read.
            (State::Closing, ReceiveEnd::Eof) => {}
            (_, ReceiveEnd::Eof) => self.close(slot, CloseReason::Peer, CloseCode::None),
        }
    }

    /// Ends a session, sends what is queued for it, and closes.
    pub(in crate::shard) fn close(&mut self, slot: Slot, reason: CloseReason, code: CloseCode) {
        let Some(connection) = self.connections.at(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let is_upgraded =
            connection.transport == Transport::WebSocket && connection.state != State::Http;
        self.connections.end(slot, reason);
        let deadline_ms = self.connections.patient_ms() + self.config.linger_ms();
        self.connections.set_deadline(slot, deadline_ms);
        let Some((connection, pool)) = self.connections.at_with_pool(slot) else { return };
        if let Some(code) = code.number().filter(|_| is_upgraded) {
            websocket::encode_close(code, connection.outbox.open(pool));
        }
        let is_sent = !connection.outbox.is_waiting() && !connection.outbox.is_in_flight();
        if is_sent {
            self.finish_writing(slot);
        } else {
            self.mark_dirty(slot);
        }
    }

    /// Closes a connection for what it has sent.
    pub(in crate::shard) fn protocol_error(&mut self, slot: Slot, code: CloseCode) {
        self.close(slot, CloseReason::Protocol, code);
    }

    /// Tells a client to which all is sent, and waits for it to close.
    pub(super) fn finish_writing(&mut self, slot: Slot) {
        #[cfg(feature = "tls")]
        if !self.finish_tls(slot) {
            return;
        }
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.is_read_to_end {
            return self.connections.cut(slot, CloseReason::Peer);
        }
        connection.state = State::Lingering;
        let socket = connection.socket;
        self.connections.command(Command::FinishWriting(socket));
        if self.is_draining() {
            self.hurry(slot);
        }
    }

    /// Shortens the time that a client has to close, to whom all is sent, as the engine stops: one
    /// that never does would make each stop take that long.
    pub(super) fn hurry(&mut self, slot: Slot) {
        let linger_ms = self.config.linger_ms() / 4;
        self.connections.set_deadline(slot, self.connections.patient_ms() + linger_ms);
    }
}

/// The code with which a WebSocket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum CloseCode {
    /// None: the client has said goodbye itself, or is no WebSocket yet.
    None,
    /// 1000, as the original for everything.
    Normal,
    /// 1001: the engine stops.
    GoingAway,
    Error(u16),
}

impl CloseCode {
    fn number(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Normal => Some(websocket::CLOSE_NORMAL),
            Self::GoingAway => Some(websocket::CLOSE_GOING_AWAY),
            Self::Error(code) => Some(code),
        }
    }
}
