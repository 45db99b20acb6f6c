//! Input that was held, in a later turn.

use super::Inbound;
use crate::session::SessionId;
use crate::shard::connections::HeldInput;
use crate::shard::shell::Command;
use crate::wire::websocket::Opcode;

impl Inbound {
    /// Gives held sessions their share of this turn, and the unauthenticated their steps.
    pub(in crate::shard) fn read_held(&mut self) {
        let [ready, behind] = self.connections().budgets().ready_len();
        self.read_ready(ready, false);
        self.read_ready(behind, true);
        self.connections().budgets_mut().begin_unauthenticated();
        while let Some((session, held)) = self.connections().budgets_mut().next_unauthenticated() {
            if let Some(held) = held {
                self.read_share_of(session, held);
            }
        }
        self.connections().budgets_mut().end_unauthenticated();
    }

    /// Reads so many of the held sessions whose turn has come, or of those behind them, up to the
    /// first whose answers are more than the turn takes.
    fn read_ready(&mut self, sessions: usize, is_behind: bool) {
        for _ in 0..sessions {
            let next = self.connections().budgets_mut().next_ready(is_behind);
            let Some((session, held)) = next else { break };
            let taken = self.connections().budgets().long_answer_bytes();
            if let Some(held) = held {
                self.read_share_of(session, held);
            }
            if self.connections().budgets().has_answered_enough_since(taken) {
                break;
            }
        }
    }

    fn read_share_of(&mut self, session: SessionId, mut held: HeldInput) {
        let slot = session.slot();
        let now_ms = self.connections().patient_ms();
        let held_back_ms = held.take_held_back_ms(now_ms);
        let Some((_, connection)) = self.connections().find(session) else { return };
        // The time that it had to wait does not count for its handshake's deadline.
        if !connection.state.is_working() {
            connection.heard_ms += held_back_ms;
        }
        if !held.packages.is_empty() {
            self.read_packages(session, &std::mem::take(&mut held.packages));
            let budgets = self.connections().budgets_mut();
            if budgets.is_held(session) {
                return budgets.put_back(session, held, 0, false);
            }
        }
        let len = self.connections().budgets().piece_len(&held);
        self.handle_bytes(session, &mut held.bytes[held.at..held.at + len]);
        held.at += len;
        let Some(connection) = self.connections().at_mut(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let (socket, is_working) = (connection.socket, connection.state.is_working());
        if held.at < held.bytes.len() || self.connections().budgets().is_held(session) {
            let budgets = self.connections().budgets_mut();
            return budgets.put_back(session, held, len, !is_working);
        }
        if held.is_paused {
            self.connections().command(Command::ResumeReading(socket));
        }
        if is_working && let Some(connection) = self.connections().at_mut(slot) {
            // Its heartbeat may be what comes next.
            connection.heard_ms = now_ms;
        }
        self.connections().pool().give(held.bytes);
        if let Some(end) = held.end {
            self.outbound().handle_receive_end(session, end);
        }
    }

    /// Reads what was kept of a WebSocket message.
    fn read_packages(&mut self, session: SessionId, packages: &[u8]) {
        let budgets = self.connections().budgets_mut();
        budgets.begin(session, 0);
        let left = budgets.left;
        if let Err(error) = self.handle_websocket_message(session, Opcode::Binary, packages) {
            self.bad_frame(session.slot(), error, 0);
        }
        self.connections().budgets_mut().end(session, 0, left);
    }
}
