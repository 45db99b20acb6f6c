//! The end of a session, noted for operators.

use super::Connections;
use super::connection::CloseReason;
use crate::session::{CloseText, ClosedSession, SessionPage, Slot};

impl Connections {
    /// Notes that a session ends. It is as it was, still.
    #[cold]
    pub(super) fn note_closed(&mut self, slot: Slot, reason: CloseReason) {
        let (id, now_us, now_ms) = (self.id_of(slot), self.now_us(), self.patient_ms());
        let Some(connection) = self.table.at(slot) else { return };
        let traffic = connection.traffic;
        let session = ClosedSession {
            id,
            number: connection.session.number,
            uid: connection.uid().cloned(),
            peer: connection.peer,
            listener: connection.listener.0,
            transport: connection.transport.text(),
            tls: connection.layer.has_tls(),
            reason: reason.text(),
            worked: connection.state.is_working(),
            closed_unix_ms: self.config.started_unix_ms + now_us / 1000,
            age_ms: self.closed.age_ms(slot, now_us),
            silent_ms: now_ms.saturating_sub(connection.heard_ms),
            outbox_bytes: connection.outbox.bytes(),
            outbox_ms: connection.outbox.wait_ms(now_ms).unwrap_or(0),
            in_flight: connection.session.in_flight,
            kept_bytes: connection.kept_bytes(),
            received_bytes: traffic.received_bytes,
            sent_bytes: traffic.sent_bytes,
            received_messages: traffic.received_messages,
            sent_messages: traffic.sent_messages,
            last_route: self.route_text(traffic.last_route),
        };
        self.closed.push(session);
    }

    /// The sessions that have ended, from one on, as many as a turn has time for.
    #[cold]
    pub(in crate::shard) fn page_of_closed(&self, from: Option<u32>) -> SessionPage {
        self.closed.page(from)
    }

    /// Those of them that never worked, as many as there are.
    #[cold]
    pub(in crate::shard) fn page_of_closed_early(&self) -> SessionPage {
        self.closed.page_of_early()
    }

    /// The reason for which the session in a slot has ended, if it is the last that did.
    pub(in crate::shard) fn last_close(&self, slot: Slot) -> Option<CloseText> {
        self.closed.reason_of(self.id_of(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Connection;
    use super::*;
    use crate::record::Recording;
    use crate::route::table::RouteTable;
    use crate::session::ShardIndex;
    use crate::shard::config::ShardConfig;
    use crate::shard::shell::SocketIndex;

    #[test]
    fn each_end_is_told_by_its_reason() {
        let config = ShardConfig::bare(RouteTable::default(), None, Arc::new(|_| {}));
        let mut connections = Connections::new(&Arc::new(config), ShardIndex(0), 1);
        connections.begin_turn(1_000_000);
        for (reason, text) in [
            (CloseReason::Peer, "peer"),
            (CloseReason::Kick, "kick"),
            (CloseReason::HeartbeatTimeout, "heartbeat_timeout"),
            (CloseReason::Idle, "idle"),
            (CloseReason::HandshakeTimeout, "handshake_timeout"),
            (CloseReason::Protocol, "protocol"),
            (CloseReason::Refused, "refused"),
            (CloseReason::SlowConsumer, "slow_consumer"),
            (CloseReason::OutboxAge, "outbox_age"),
            (CloseReason::Shutdown, "shutdown"),
            (CloseReason::Memory, "memory"),
        ] {
            let peer = "10.0.0.7:4000".parse().unwrap();
            let connection = Connection::new(SocketIndex(0), peer, connections.patient_ms());
            let id = connections.accept(connection).unwrap();
            connections.begin_turn(connections.now_us() + 50_000);
            connections.end(id.slot(), reason);
            // A session ends once.
            connections.cut(id.slot(), CloseReason::Shutdown);
            let page = connections.page_of_closed_early();
            let last = page.closed.last().unwrap();
            assert_eq!((last.id, last.reason, last.age_ms, last.peer), (id, text, 50, peer));
            assert_eq!(connections.last_close(id.slot()), Some(text));
            assert!(Recording::knows(text), "{text}");
            connections.remove(id);
        }
        assert_eq!(connections.page_of_closed_early().closed.len(), 11);
        assert!(connections.page_of_closed(None).closed.is_empty());
    }
}
