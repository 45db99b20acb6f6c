//! The sessions that have ended last, as operators ask for them.
//!
//! They are written once, when a session ends; nothing is done for them while it lasts, but that
//! the time of its accept is noted.

use std::collections::VecDeque;

use super::Connections;
use super::connection::{CloseReason, Transport};
use crate::limits::turn::SESSIONS_SHOWN_PER_TURN;
use crate::session::{CloseText, ClosedSession, SessionPage, Slot};

/// Ended sessions that a shard keeps; `docs/limits.md` lists both.
const CLOSED_SESSIONS_MAX: usize = 4_096;
/// The bytes that they may take.
const CLOSED_BYTES_MAX: usize = 1024 * 1024;

/// The ended sessions of one shard, and when those that are open were accepted.
#[derive(Debug, Default)]
pub(super) struct ClosedSessions {
    sessions: VecDeque<ClosedSession>,
    /// The number of the first of them.
    first: u32,
    /// Bytes of their uids.
    uid_bytes: usize,
    /// The accept of the connection in each slot, in hundredths of a second of the shard's clock,
    /// which wraps after 497 days. It stands here so that no connection is larger for it.
    opened: Vec<u32>,
}

fn hundredths(now_us: u64) -> u32 {
    (now_us / 10_000) as u32
}

impl ClosedSessions {
    pub(super) fn note_opened(&mut self, slot: Slot, now_us: u64) {
        let at = slot.index();
        if self.opened.len() <= at {
            self.opened.resize(at + 1, 0);
        }
        self.opened[at] = hundredths(now_us);
    }

    /// Milliseconds since the accept of the connection in a slot.
    pub(super) fn age_ms(&self, slot: Slot, now_us: u64) -> u64 {
        let opened = self.opened.get(slot.index()).copied().unwrap_or_default();
        u64::from(hundredths(now_us).wrapping_sub(opened)) * 10
    }

    fn push(&mut self, session: ClosedSession) {
        self.uid_bytes += uid_bytes(&session);
        self.sessions.push_back(session);
        while (self.sessions.len() > CLOSED_SESSIONS_MAX || self.bytes() > CLOSED_BYTES_MAX)
            && let Some(oldest) = self.sessions.pop_front()
        {
            self.uid_bytes -= uid_bytes(&oldest);
            self.first = self.first.wrapping_add(1);
        }
    }

    fn bytes(&self) -> usize {
        self.sessions.len() * size_of::<ClosedSession>() + self.uid_bytes
    }

    fn page(&self, from: Option<u32>) -> SessionPage {
        let len = self.sessions.len();
        let start = from.map_or(0, |from| from.wrapping_sub(self.first) as usize);
        // Those that have made room since are before the first.
        let start = if start > len { 0 } else { start };
        let end = len.min(start + SESSIONS_SHOWN_PER_TURN as usize);
        let closed = self.sessions.range(start..end).cloned().collect();
        let next = (end < len).then(|| self.first.wrapping_add(end as u32));
        SessionPage { sessions: Vec::new(), closed, next }
    }
}

fn uid_bytes(session: &ClosedSession) -> usize {
    session.uid.as_ref().map_or(0, |uid| uid.text().len())
}

impl Connections {
    /// Notes that a session ends. It is as it was, still.
    #[cold]
    pub(super) fn note_closed(&mut self, slot: Slot, reason: CloseReason) {
        let (id, now_us, now_ms) = (self.id_of(slot), self.now_us(), self.patient_ms());
        let Some(connection) = self.table.at(slot) else { return };
        let session = ClosedSession {
            id,
            number: connection.session.number,
            uid: connection.uid().cloned(),
            peer: connection.peer,
            listener: connection.listener.0,
            transport: match connection.transport {
                Transport::Tcp => "tcp",
                Transport::WebSocket => "websocket",
            },
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
        };
        self.closed.push(session);
    }

    /// The sessions that have ended, from one on, as many as a turn has time for.
    #[cold]
    pub(in crate::shard) fn page_of_closed(&self, from: Option<u32>) -> SessionPage {
        self.closed.page(from)
    }

    /// The reason for which the session in a slot has ended, if it is the last that did.
    pub(in crate::shard) fn last_close(&self, slot: Slot) -> Option<CloseText> {
        let id = self.id_of(slot);
        let mut newest_first = self.closed.sessions.iter().rev();
        newest_first.find(|closed| closed.id == id).map(|closed| closed.reason)
    }
}

impl CloseReason {
    /// The reason as metrics name it.
    pub(in crate::shard) fn text(self) -> CloseText {
        match self {
            Self::Peer => "peer",
            Self::Kick => "kick",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Idle => "idle",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::SlowConsumer => "slow_consumer",
            Self::OutboxAge => "outbox_age",
            Self::Shutdown => "shutdown",
            Self::Memory => "memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Connection;
    use super::*;
    use crate::route::table::RouteTable;
    use crate::session::{Generation, SessionId, ShardIndex, Uid};
    use crate::shard::config::ShardConfig;
    use crate::shard::shell::SocketIndex;

    fn closed(number: u64, uid: &str) -> ClosedSession {
        ClosedSession {
            id: SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST),
            number,
            uid: Some(Uid::from(uid)),
            peer: "127.0.0.1:1".parse().unwrap(),
            listener: 0,
            transport: "tcp",
            tls: false,
            reason: CloseReason::Peer.text(),
            worked: true,
            closed_unix_ms: 0,
            age_ms: 0,
            silent_ms: 0,
            outbox_bytes: 0,
            outbox_ms: 0,
            in_flight: 0,
            kept_bytes: 0,
        }
    }

    fn all(list: &ClosedSessions) -> Vec<u64> {
        let (mut numbers, mut from) = (Vec::new(), None);
        loop {
            let page = list.page(from);
            assert!(page.closed.len() <= SESSIONS_SHOWN_PER_TURN as usize);
            numbers.extend(page.closed.iter().map(|closed| closed.number));
            match page.next {
                Some(next) => from = Some(next),
                None => return numbers,
            }
        }
    }

    #[test]
    fn the_last_ones_are_kept_in_number_and_in_bytes() {
        let mut list = ClosedSessions { first: u32::MAX - 5, ..ClosedSessions::default() };
        for number in 0..5_000 {
            list.push(closed(number, "amy"));
        }
        assert_eq!(all(&list), (5_000 - 4_096..5_000).collect::<Vec<_>>());
        let uid = "x".repeat(64 * 1024);
        for number in 0..100 {
            list.push(closed(number, &uid));
            assert!(list.bytes() <= CLOSED_BYTES_MAX);
        }
        assert_eq!(all(&list).last(), Some(&99));
        assert!(all(&list).len() < 16);
        // A page that was asked for meanwhile.
        assert_eq!(list.page(Some(list.first.wrapping_sub(9))).closed[0].number, all(&list)[0]);
    }

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
            let page = connections.page_of_closed(None);
            let last = page.closed.last().unwrap();
            assert_eq!((last.id, last.reason, last.age_ms, last.peer), (id, text, 50, peer));
            assert_eq!(connections.last_close(id.slot()), Some(text));
            connections.remove(id);
        }
        assert_eq!(connections.page_of_closed(None).closed.len(), 11);
    }

    #[test]
    fn a_session_has_an_age_however_long_the_shard_runs() {
        let mut list = ClosedSessions::default();
        let start_us = u64::from(u32::MAX) * 10_000;
        list.note_opened(Slot(3), start_us);
        assert_eq!(list.age_ms(Slot(3), start_us + 1_234_000), 1_230);
    }

    #[test]
    fn the_documentation_lists_the_bounds() {
        let text = include_str!("../../../docs/limits.md");
        for row in
            ["| fixed (`CLOSED_SESSIONS_MAX`) | 4,096 |", "| fixed (`CLOSED_BYTES_MAX`) | 1 MiB |"]
        {
            assert!(text.contains(row), "docs/limits.md lacks the row: {row}");
        }
        assert_eq!((CLOSED_SESSIONS_MAX, CLOSED_BYTES_MAX), (4_096, 1024 * 1024));
    }
}
