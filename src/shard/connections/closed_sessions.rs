//! The sessions that have ended last, as operators ask for them.
//!
//! They are written once, when a session ends; nothing is done for them while it lasts, but that
//! the time of its accept is noted.

use std::collections::VecDeque;

use super::connection::CloseReason;
use crate::limits::turn::SESSIONS_SHOWN_PER_TURN;
use crate::session::{CloseText, ClosedSession, SessionId, SessionPage, Slot};

/// Ended sessions that a shard keeps; `docs/limits.md` lists these bounds.
const CLOSED_SESSIONS_MAX: usize = 4_096;
/// The bytes that they may take.
const CLOSED_BYTES_MAX: usize = 1024 * 1024;
/// Those that never worked, beside them: no crowd of strangers washes out those that did.
const CLOSED_EARLY_MAX: usize = 256;
const _: () = assert!(CLOSED_EARLY_MAX <= SESSIONS_SHOWN_PER_TURN as usize);

/// The ended sessions of one shard, and when those that are open were accepted.
#[derive(Debug, Default)]
pub(super) struct ClosedSessions {
    sessions: VecDeque<ClosedSession>,
    /// The number of the first of them.
    first: u32,
    /// Bytes of their uids.
    uid_bytes: usize,
    /// Those that never worked. None of them has a uid.
    early: VecDeque<ClosedSession>,
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

    pub(super) fn push(&mut self, session: ClosedSession) {
        if !session.worked {
            if self.early.len() >= CLOSED_EARLY_MAX {
                self.early.pop_front();
            }
            return self.early.push_back(session);
        }
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

    pub(super) fn page(&self, from: Option<u32>) -> SessionPage {
        let len = self.sessions.len();
        let start = from.map_or(0, |from| from.wrapping_sub(self.first) as usize);
        // Those that have made room since are before the first.
        let start = if start > len { 0 } else { start };
        let end = len.min(start + SESSIONS_SHOWN_PER_TURN as usize);
        let closed = self.sessions.range(start..end).cloned().collect();
        let next = (end < len).then(|| self.first.wrapping_add(end as u32));
        SessionPage { sessions: Vec::new(), closed, next }
    }

    pub(super) fn page_of_early(&self) -> SessionPage {
        let closed = self.early.iter().cloned().collect();
        SessionPage { sessions: Vec::new(), closed, next: None }
    }

    /// The reason for which a session has ended, if it is kept.
    pub(super) fn reason_of(&self, id: SessionId) -> Option<CloseText> {
        let mut newest_first = self.sessions.iter().rev().chain(self.early.iter().rev());
        newest_first.find(|closed| closed.id == id).map(|closed| closed.reason)
    }
}

fn uid_bytes(session: &ClosedSession) -> usize {
    session.uid.as_ref().map_or(0, |uid| uid.text().len())
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
    use super::*;
    use crate::session::{Generation, ShardIndex, Uid};

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
            received_bytes: 0,
            sent_bytes: 0,
            received_messages: 0,
            sent_messages: 0,
            last_route: None,
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
    fn strangers_wash_out_strangers_alone() {
        let mut list = ClosedSessions::default();
        list.push(closed(1, "amy"));
        for number in 2..10_000 {
            list.push(ClosedSession { uid: None, worked: false, ..closed(number, "") });
        }
        assert_eq!(all(&list), [1]);
        let early = list.page_of_early().closed;
        assert_eq!((early.len(), early[255].number), (CLOSED_EARLY_MAX, 9_999));
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
        for row in [
            "| fixed (`CLOSED_SESSIONS_MAX`) | 4,096 |",
            "| fixed (`CLOSED_BYTES_MAX`) | 1 MiB |",
            "| fixed (`CLOSED_EARLY_MAX`) | 256 |",
        ] {
            assert!(text.contains(row), "docs/limits.md lacks the row: {row}");
        }
        assert_eq!((CLOSED_SESSIONS_MAX, CLOSED_BYTES_MAX), (4_096, 1024 * 1024));
    }
}
