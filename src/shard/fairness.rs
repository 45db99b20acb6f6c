//! Each session's share of a turn, and what waits for the next one.
//!
//! A client may send as fast as it likes; what it has sent above its share of a turn is held, and
//! read in later turns, a share in each, while the others come first. Meanwhile its socket is not
//! read, so that it is the client's own sending that slows down.
//!
//! Unauthenticated connections share something, too: a turn takes a few steps of their handshakes,
//! and holds what the others have sent, so that thousands who connect again at once are answered
//! between the messages of those who are in.
//!
//! What holds a session's bytes for a turn also holds them for as long as something else has to
//! come first: a [`Pause`].

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{Command, ReceiveEnd, Shard};
use crate::limits::Limits;
use crate::session::SessionId;
use crate::wire::websocket::Opcode;

/// What each session of a shard may read in a turn. Sessions that send little have no entry
/// anywhere.
#[derive(Debug)]
pub(super) struct ReadBudgets {
    bytes_max: usize,
    messages_max: u32,
    held_bytes_max: usize,
    /// Messages that the session which is being read may yet have in this turn.
    pub(super) left: u32,
    /// Steps of handshakes that this turn may yet take; long ones are several.
    handshake_steps: u32,
    /// Somebody waits for those already, and comes first.
    has_unauthenticated: bool,
    /// The session that is being read.
    reading: Option<SessionId>,
    /// Work has used up its share.
    is_charged: bool,
    /// A step of that one was none of a handshake's: it has changed nothing.
    pub(super) has_strayed: bool,
    /// What sessions have used of this turn's share that have sent much at once.
    used: FxHashMap<SessionId, Used>,
    held: FxHashMap<SessionId, Held>,
    held_bytes: usize,
    /// Held sessions whose turn has come, in order.
    ready: VecDeque<SessionId>,
    /// Those that were held in this turn.
    next: Vec<SessionId>,
    /// Held ones whose handshake is not done, in the order they came.
    unauthenticated: VecDeque<SessionId>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    messages: u32,
}

/// What a session has sent and nobody has read yet.
#[derive(Debug, Default)]
struct Held {
    /// What stood behind the last package in its WebSocket message.
    packages: Vec<u8>,
    bytes: Vec<u8>,
    /// How much of `bytes` has been read.
    at: usize,
    /// The stream has ended behind it.
    end: Option<ReceiveEnd>,
    /// Its socket is not read meanwhile. Who waits for the first answer sends no more until then,
    /// mostly, so it is stopped only if it does.
    is_paused: bool,
    /// The pauses that have to end before it is read, by their bits.
    pauses: u8,
    /// Whether its turn is set: it is in `ready` or `next`.
    is_listed: bool,
    /// Since when, on the shard's patient clock.
    since_ms: u64,
    /// It waits for what it has sent itself and no handshake needs.
    is_own_doing: bool,
}

/// Why a session is not read on before something has happened, however long that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
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
}

impl Held {
    fn len(&self) -> usize {
        self.packages.len() + self.bytes.len() - self.at
    }

    fn held_back_ms(&self, now_ms: u64) -> u64 {
        if self.is_own_doing { 0 } else { now_ms.saturating_sub(self.since_ms) }
    }
}

/// Held sessions that get their share in one turn.
const HELD_PER_TURN: usize = 8;
/// What a turn does for those who are yet to come in: a look at the first bytes, at a request for
/// an upgrade, at a handshake and at its acknowledgement are a step each. About as many as the
/// connections that a turn lets in.
const HANDSHAKE_STEPS_PER_TURN: u32 = 16;
/// A handshake takes as many steps more as it has these: its JSON takes 13 ns for a byte.
const HANDSHAKE_STEP_BYTES: usize = 4096;
/// A session has to send this part of its share at once to be remembered for the turn. Others
/// can't come to much, as a shard's buffers bound the turn.
const REMEMBERED_PART: u32 = 16;

impl ReadBudgets {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.bytes_per_turn_max,
            messages_max: limits.messages_per_turn_max,
            held_bytes_max: limits.held_bytes_max,
            left: 0,
            handshake_steps: 0,
            has_unauthenticated: false,
            reading: None,
            is_charged: false,
            has_strayed: false,
            used: FxHashMap::default(),
            held: FxHashMap::default(),
            held_bytes: 0,
            ready: VecDeque::new(),
            next: Vec::new(),
            unauthenticated: VecDeque::new(),
        }
    }

    pub(super) fn begin_turn(&mut self) {
        if !self.used.is_empty() {
            self.used.clear();
        }
        self.handshake_steps = HANDSHAKE_STEPS_PER_TURN;
    }

    /// Whether a step of a handshake may be taken; if not, it has to wait for a later turn.
    pub(super) fn may_take_handshake_step(&self) -> bool {
        self.handshake_steps > 0 && !self.has_unauthenticated
    }

    /// One has been taken, with so many bytes.
    pub(super) fn took_handshake_step(&mut self, bytes: usize) {
        let steps = 1 + bytes / HANDSHAKE_STEP_BYTES;
        self.handshake_steps =
            self.handshake_steps.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    }

    /// Whether many come at once: this turn has taken many steps of handshakes, or some wait.
    pub(super) fn is_crowded(&self) -> bool {
        !self.unauthenticated.is_empty() || self.handshake_steps < HANDSHAKE_STEPS_PER_TURN / 2
    }

    /// A session is to be read; whether it has anything left of its share.
    #[inline]
    pub(super) fn begin(&mut self, session: SessionId) -> bool {
        self.left = self.messages_max;
        self.reading = Some(session);
        (self.is_charged, self.has_strayed) = (false, false);
        (self.used.is_empty() && self.held.is_empty()) || self.begin_again(session)
    }

    #[inline(never)]
    fn begin_again(&mut self, session: SessionId) -> bool {
        if self.held.contains_key(&session) {
            return false;
        }
        let Some(used) = self.used.get(&session) else { return true };
        self.left = self.messages_max.saturating_sub(used.messages);
        self.left > 0 && used.bytes < self.bytes_max
    }

    /// A session has been read, with so many bytes and from that many messages left.
    #[inline]
    pub(super) fn end(&mut self, session: SessionId, bytes: usize, left_before: u32) {
        self.reading = None;
        let messages = left_before.saturating_sub(self.left);
        if bytes > self.bytes_max / REMEMBERED_PART as usize
            || messages > self.messages_max / REMEMBERED_PART
        {
            let used = self.used.entry(session).or_default();
            used.bytes += bytes;
            used.messages += messages;
        }
    }

    /// Counts what a message has taken besides its bytes against the share of the session that is
    /// being read. Behind the message it is not read on where that was all of it.
    pub(super) fn charge(&mut self, bytes: usize) {
        let Some(slot) = self.reading else { return };
        let used = self.used.entry(slot).or_default();
        used.bytes += bytes;
        if used.bytes >= self.bytes_max {
            (self.left, self.is_charged) = (0, true);
        }
    }

    /// There is no room to hold anything: the session is read on.
    pub(super) fn extend(&mut self) {
        (self.left, self.is_charged) = (self.messages_max, false);
        (self.handshake_steps, self.has_unauthenticated) = (HANDSHAKE_STEPS_PER_TURN, false);
    }

    pub(super) fn messages_max(&self) -> u32 {
        self.messages_max
    }

    pub(super) fn is_held(&self, session: SessionId) -> bool {
        !self.held.is_empty() && self.held.contains_key(&session)
    }

    /// For how long something of a session has been held, if that is the shard's doing.
    pub(super) fn held_back_ms(&self, session: SessionId, now_ms: u64) -> u64 {
        self.held.get(&session).map_or(0, |held| held.held_back_ms(now_ms))
    }

    /// Whether a session waits for its own requests, and for nothing else.
    fn waits_for_answers(&self, session: SessionId) -> bool {
        self.held.get(&session).is_some_and(|held| held.pauses == Pause::InFlight as u8)
    }

    /// Keeps an end for after what is held; whether there is anything.
    pub(super) fn defer_end(&mut self, session: SessionId, end: ReceiveEnd) -> bool {
        if self.held.is_empty() {
            return false;
        }
        self.held.get_mut(&session).map(|held| held.end = Some(end)).is_some()
    }

    /// Whether a held session is to be read on in the next turn.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.next.is_empty() || !self.unauthenticated.is_empty()
    }

    /// Whether that many bytes more may be kept of what sessions have sent.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.held_bytes + bytes <= self.held_bytes_max
    }

    /// Counts a message that is kept elsewhere.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.held_bytes += bytes;
    }

    /// It is kept no more.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held_bytes -= bytes;
    }

    /// Bytes of all sessions that wait.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Holds what a session sends until the pause ends; whether its socket has yet to be stopped.
    fn pause(&mut self, session: SessionId, why: Pause) -> bool {
        if self.reading == Some(session) {
            // What of it is being read stops behind this package.
            self.left = 0;
        }
        let held = self.held.entry(session).or_default();
        held.pauses |= why as u8;
        !std::mem::replace(&mut held.is_paused, true)
    }

    /// A pause has ended. Behind the last one the session's turn comes as that of others does.
    pub(super) fn resume(&mut self, session: SessionId, why: Pause) {
        let Some(held) = self.held.get_mut(&session) else { return };
        held.pauses &= !(why as u8);
        if held.pauses == 0 && !std::mem::replace(&mut held.is_listed, true) {
            self.next.push(session);
        }
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        if self.held.is_empty() {
            return;
        }
        if let Some(held) = self.held.remove(&session) {
            self.held_bytes -= held.len();
        }
    }

    /// Whether nothing is held of a session.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.held.contains_key(&session)
    }

    /// Takes out what is held of a session whose turn has come, unless it is paused.
    fn take(&mut self, session: SessionId) -> Option<Held> {
        let held = self.held.get_mut(&session)?;
        held.is_listed = false;
        if held.pauses != 0 {
            return None;
        }
        let held = self.held.remove(&session)?;
        self.held_bytes -= held.len();
        self.used.remove(&session);
        Some(held)
    }

    /// Puts back what has not been read of it. What of the last piece was held anew stands at the
    /// piece's end, and is not needed twice.
    fn put_back(
        &mut self,
        session: SessionId,
        mut held: Held,
        piece_len: usize,
        is_unauthenticated: bool,
    ) {
        match self.held.get_mut(&session) {
            None => {
                self.held_bytes += held.len();
                held.is_own_doing |= self.has_strayed;
                held.is_listed = true;
                self.held.insert(session, held);
                self.line_up(session, is_unauthenticated);
            }
            Some(again) if again.bytes.len() <= piece_len => {
                self.held_bytes += held.len();
                held.at -= again.bytes.len();
                held.packages = std::mem::take(&mut again.packages);
                (held.pauses, held.is_listed) = (again.pauses, again.is_listed);
                held.is_paused |= again.is_paused;
                held.is_own_doing |= again.is_own_doing;
                *again = held;
            }
            // A head that had come in pieces, with what stood behind it.
            Some(again) => {
                let rest = &held.bytes[held.at..];
                self.held_bytes += rest.len();
                again.bytes.extend_from_slice(rest);
                again.end = held.end;
                again.is_paused |= held.is_paused;
                again.is_own_doing |= held.is_own_doing;
            }
        }
    }

    fn line_up(&mut self, session: SessionId, is_unauthenticated: bool) {
        if is_unauthenticated {
            self.unauthenticated.push_back(session);
        } else {
            self.next.push(session);
        }
    }
}

impl Shard {
    /// Keeps what a session has sent for a later turn, and stops reading from it. `false` where
    /// too much is held; what follows on something held is taken all the same, as the kernel has
    /// been told to stop, and no more is coming than its buffers hold.
    #[inline(never)]
    pub(super) fn hold_bytes(&mut self, session: SessionId, bytes: &[u8]) -> bool {
        let Some(connection) = self.connections.get(session.slot(), session.generation()) else {
            return true;
        };
        if bytes.is_empty() || !connection.state.is_reading() {
            return true;
        }
        let is_unauthenticated = !connection.state.is_working();
        let budgets = &mut self.budgets;
        let is_held = budgets.held.contains_key(&session);
        if !is_held {
            if budgets.held_bytes + bytes.len() > budgets.held_bytes_max {
                self.counters.hold_overflows.one();
                return false;
            }
            budgets.line_up(session, is_unauthenticated);
            let since_ms = self.clock.patient_ms;
            let is_own_doing = budgets.has_strayed;
            let held = Held { is_listed: true, since_ms, is_own_doing, ..Held::default() };
            budgets.held.insert(session, held);
            if is_unauthenticated {
                self.counters.handshake_waits.one();
            }
        }
        let held = budgets.held.entry(session).or_default();
        if !held.is_paused && (is_held || !is_unauthenticated) {
            held.is_paused = true;
            if !is_unauthenticated {
                self.counters.reading_pauses.one();
            }
            self.commands.push_back(Command::PauseReading(connection.socket));
        }
        held.bytes.extend_from_slice(bytes);
        budgets.held_bytes += bytes.len();
        true
    }

    /// Reads nothing more of a session until the pause ends.
    #[cold]
    pub(super) fn pause_reading(&mut self, session: SessionId, why: Pause) {
        let connection = self.connections.get(session.slot(), session.generation());
        let Some(connection) = connection else { return };
        if connection.state.is_reading() && self.budgets.pause(session, why) {
            self.commands.push_back(Command::PauseReading(connection.socket));
        }
    }

    /// Keeps what stands behind a package in its WebSocket message, if the package has paused its
    /// session or used up its share of the turn; whether it has.
    pub(super) fn hold_packages(&mut self, session: SessionId, packages: &[u8]) -> bool {
        if self.budgets.is_charged && self.budgets.has_room(packages.len()) {
            self.pause_reading(session, Pause::Turn);
            self.budgets.resume(session, Pause::Turn);
        }
        let budgets = &mut self.budgets;
        let Some(held) = budgets.held.get_mut(&session) else { return false };
        held.packages = packages.to_vec();
        budgets.held_bytes += packages.len();
        true
    }

    /// Gives held sessions their share of this turn, and the unauthenticated their steps.
    pub(super) fn read_held(&mut self) {
        for _ in 0..self.budgets.ready.len().min(HELD_PER_TURN) {
            let Some(session) = self.budgets.ready.pop_front() else { break };
            if let Some(held) = self.budgets.take(session) {
                self.read_share_of(session, held);
            }
        }
        self.budgets.ready.extend(self.budgets.next.drain(..));
        if std::mem::take(&mut self.budgets.has_unauthenticated) {
            self.budgets.handshake_steps = HANDSHAKE_STEPS_PER_TURN;
        }
        while self.budgets.handshake_steps > 0 {
            let Some(session) = self.budgets.unauthenticated.pop_front() else { break };
            if let Some(held) = self.budgets.take(session) {
                self.read_share_of(session, held);
            }
        }
        self.budgets.has_unauthenticated = !self.budgets.unauthenticated.is_empty();
    }

    fn read_share_of(&mut self, session: SessionId, mut held: Held) {
        let slot = session.slot();
        let now_ms = self.clock.patient_ms;
        let held_back_ms = held.held_back_ms(now_ms);
        held.since_ms = now_ms;
        let Some((_, connection)) = self.find(session) else { return };
        // The time that it had to wait does not count for its handshake's deadline.
        if !connection.state.is_working() {
            connection.heard_ms += held_back_ms;
        }
        if !held.packages.is_empty() {
            self.read_packages(session, &std::mem::take(&mut held.packages));
            if self.budgets.is_held(session) {
                return self.budgets.put_back(session, held, 0, false);
            }
        }
        let len = (held.bytes.len() - held.at).min(self.budgets.bytes_max);
        self.handle_bytes(session, &mut held.bytes[held.at..held.at + len]);
        held.at += len;
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let (socket, is_unauthenticated) = (connection.socket, !connection.state.is_working());
        if held.at < held.bytes.len() || self.budgets.is_held(session) {
            return self.budgets.put_back(session, held, len, is_unauthenticated);
        }
        if held.is_paused {
            self.commands.push_back(Command::ResumeReading(socket));
        }
        if connection.state.is_working() {
            // Its heartbeat may be what comes next.
            connection.heard_ms = now_ms;
        }
        self.pool.give(held.bytes);
        if let Some(end) = held.end {
            self.handle_receive_end(session, end);
        }
    }

    /// Reads what was kept of a WebSocket message.
    fn read_packages(&mut self, session: SessionId, packages: &[u8]) {
        self.budgets.begin(session);
        let left = self.budgets.left;
        if let Err(error) = self.handle_websocket_message(session, Opcode::Binary, packages) {
            self.bad_frame(session.slot(), error, 0);
        }
        self.budgets.end(session, 0, left);
    }

    /// A client whose sending waits for this shard is not silent. Whose waits for its own requests
    /// is heard when one of them is answered: futures have no deadline.
    pub(super) fn hear_held(&mut self, session: SessionId) {
        let now_ms = self.clock.patient_ms;
        if self.budgets.is_held(session)
            && !self.budgets.waits_for_answers(session)
            && let Some((_, connection)) = self.find(session)
            && connection.state.is_working()
        {
            connection.heard_ms = now_ms;
        }
    }
}
