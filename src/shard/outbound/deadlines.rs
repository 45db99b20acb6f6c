//! Deadlines of clients: of their handshakes, their silence and their ends.

use super::Outbound;
use super::beats::Beats;
use super::close::CloseCode;
use crate::session::Slot;
use crate::shard::connections::{CloseReason, State};
use crate::shard::listener_config::Dialect;
use crate::wire::package::PackageType;

impl Outbound {
    /// Handles the deadline of the connection in a slot.
    pub(in crate::shard) fn handle_deadline(&mut self, slot: Slot) {
        let now_ms = self.connections.patient_ms();
        let session = self.connections.id_of(slot);
        self.connections.hear_held(session);
        let Some(connection) = self.connections.at(slot) else { return };
        match connection.state {
            State::Sniff | State::Http | State::Inited | State::WaitAck => {
                let held_back_ms = self.connections.budgets().held_back_ms(session, now_ms);
                let begun_ms = connection.heard_ms + held_back_ms;
                let deadline_ms = begun_ms + self.config.handshake_timeout_ms();
                if now_ms < deadline_ms {
                    self.connections.set_deadline(slot, deadline_ms);
                } else {
                    self.connections.cut(slot, CloseReason::HandshakeTimeout);
                }
            }
            State::Working(Dialect::Pitaya) => self.beat(slot),
            State::Working(Dialect::Pomelo) => {
                // Heartbeats only store when they came; the wheel is asked here.
                let deadline_ms = connection.heard_ms + self.config.silence_ms();
                if now_ms < deadline_ms {
                    self.connections.set_deadline(slot, deadline_ms);
                } else if self.config.heartbeat.is_some() {
                    self.close(slot, CloseReason::HeartbeatTimeout, CloseCode::Normal);
                } else {
                    self.close(slot, CloseReason::Idle, CloseCode::Normal);
                }
            }
            State::Closing | State::Lingering => {
                self.counters.linger_cuts.one();
                self.connections.cut(slot, CloseReason::Peer);
            }
            State::Dead => {}
        }
    }

    /// Sends a heartbeat that is due, or closes a client that has been silent for too long. As by
    /// Pitaya one is looked at when the other is due: the client is closed by the first heartbeat
    /// that is due after its time is over, so by the third one since it was heard.
    fn beat(&mut self, slot: Slot) {
        let now_ms = self.connections.patient_ms();
        let (silence_ms, beat_ms) =
            (self.config.pitaya_silence_ms(), self.config.pitaya_heartbeat_ms());
        let session = self.connections.id_of(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        let heard_ms = connection.heard_ms;
        let beats = self.beats.entry(session).or_default();
        if beats.heard_ms != heard_ms {
            *beats = Beats { heard_ms, silent: 0 };
        }
        beats.silent += 1;
        // Heartbeats are counted, as each comes a little late.
        if beats.silent > silence_ms / beat_ms.max(1) && now_ms >= heard_ms + silence_ms {
            self.close(slot, CloseReason::HeartbeatTimeout, CloseCode::Normal);
            return;
        }
        self.connections.set_deadline(slot, now_ms + beat_ms);
        self.send_package(slot, PackageType::Heartbeat, b"");
    }
}
