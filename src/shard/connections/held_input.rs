//! Input that nobody has read yet.

use crate::shard::shell::ReceiveEnd;

/// Input of a session that nobody has read yet.
#[derive(Debug, Default)]
pub(in crate::shard) struct HeldInput {
    /// The packages behind the last one that was read of its WebSocket message.
    pub(in crate::shard) packages: Vec<u8>,
    pub(in crate::shard) bytes: Vec<u8>,
    /// The part of `bytes` that has been read.
    pub(in crate::shard) at: usize,
    /// The stream has ended behind it.
    pub(in crate::shard) end: Option<ReceiveEnd>,
    /// Its socket is not read meanwhile. Who waits for the first answer sends no more until then,
    /// mostly, so it is stopped only if it does.
    pub(in crate::shard) is_paused: bool,
    /// The pauses that have to end before it is read, by their bits.
    pub(super) pauses: u8,
    /// It is lined up to be read.
    pub(super) is_listed: bool,
    /// Since when, on the shard's patient clock.
    pub(super) since_ms: u64,
    /// It waits for what it has sent itself and no handshake needs.
    pub(super) is_own_doing: bool,
    /// It comes behind others.
    pub(super) is_behind: bool,
}

/// The reason why a session is not read on before something has happened, however long that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Pause {
    /// One of its messages waits for room in a lane.
    Lane = 1,
    /// It does not read its answers.
    Outbox = 2,
    /// One of its messages waits for what has to be done for it first.
    Work = 4,
    /// Its share of the turn is used up in the middle of a WebSocket message.
    Turn = 8,
    /// So many of its requests wait for answers as may.
    InFlight = 16,
    /// Its handshake waits for the embedder's verdict.
    Handshake = 32,
}

impl HeldInput {
    pub(super) fn len(&self) -> usize {
        self.packages.len() + self.bytes.len() - self.at
    }

    pub(super) fn waits_for_verdict(&self) -> bool {
        self.pauses & Pause::Handshake as u8 != 0
    }

    /// Takes the time that it was held back for since then.
    pub(in crate::shard) fn take_held_back_ms(&mut self, now_ms: u64) -> u64 {
        let held_back_ms = self.held_back_ms(now_ms);
        self.since_ms = now_ms;
        held_back_ms
    }

    pub(super) fn held_back_ms(&self, now_ms: u64) -> u64 {
        if self.is_own_doing { 0 } else { now_ms.saturating_sub(self.since_ms) }
    }
}
