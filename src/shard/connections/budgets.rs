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
//! Long answers count, too: few bytes ask for many, and those take time. Once a turn has taken
//! some, sessions that get long answers, or are new, are held, and come behind the others.
//!
//! What holds a session's bytes for a turn also holds them for as long as something else has to
//! come first: a [`Pause`].

use rustc_hash::FxHashMap;

use super::handshake_steps::HandshakeSteps;
use super::held_input::{HeldInput, Pause};
use super::long_answers::LongAnswers;
use super::read_order::ReadOrder;
use crate::limits::Limits;
use crate::limits::turn::{HELD_PER_TURN, LONG_ANSWER_BYTES};
use crate::session::SessionId;
use crate::shard::shell::ReceiveEnd;

/// The share of a turn that each session may read. Sessions that send little have no entry
/// anywhere.
#[derive(Debug)]
pub(in crate::shard) struct ReadBudgets {
    bytes_max: usize,
    messages_max: u32,
    held_bytes_max: usize,
    /// Messages that the session which is being read may yet have in this turn.
    pub(in crate::shard) left: u32,
    handshake_steps: HandshakeSteps,
    /// The session that is being read.
    reading: Option<SessionId>,
    /// The one whose held input this turn has taken out last: its turn has come.
    taken: Option<SessionId>,
    /// Work has used up its share.
    is_charged: bool,
    /// The session that is being read comes behind others.
    is_behind: bool,
    /// A step of that one was none of a handshake's: it has changed nothing.
    pub(in crate::shard) has_strayed: bool,
    /// The part of this turn's share that sessions have used which have sent much at once.
    used: FxHashMap<SessionId, Used>,
    held: FxHashMap<SessionId, HeldInput>,
    held_bytes: usize,
    order: ReadOrder,
    long_answers: LongAnswers,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    messages: u32,
}

/// The effect of holding some bytes.
pub(super) struct HeldNow {
    /// Nothing of the session was held before.
    pub(super) is_first: bool,
    /// The session's socket has to be stopped.
    pub(super) pauses: bool,
}

/// A session has to send this part of its share at once to be remembered for the turn. Others
/// can't come to much, as a shard's buffers bound the turn.
const REMEMBERED_PART: u32 = 16;

/// A session with fewer messages is new: nobody knows what it will ask for.
const NEW_MESSAGES: u32 = 16;

impl ReadBudgets {
    pub(in crate::shard) fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.bytes_per_turn_max,
            messages_max: limits.messages_per_turn_max,
            held_bytes_max: limits.held_bytes_max,
            left: 0,
            handshake_steps: HandshakeSteps::default(),
            reading: None,
            taken: None,
            is_charged: false,
            is_behind: false,
            has_strayed: false,
            used: FxHashMap::default(),
            held: FxHashMap::default(),
            held_bytes: 0,
            order: ReadOrder::default(),
            long_answers: LongAnswers::default(),
        }
    }

    pub(in crate::shard) fn begin_turn(&mut self, now_ms: u64) {
        if !self.used.is_empty() {
            self.used.clear();
        }
        self.taken = None;
        self.order.begin_turn();
        self.handshake_steps.begin_turn();
        self.long_answers.begin_turn(now_ms);
    }

    /// True if a step of a handshake may be taken; if not, it has to wait for a later turn.
    pub(in crate::shard) fn may_take_handshake_step(&self) -> bool {
        self.handshake_steps.may_take()
    }

    /// One has been taken, with so many bytes.
    pub(in crate::shard) fn took_handshake_step(&mut self, bytes: usize) {
        self.handshake_steps.took(bytes);
    }

    /// True if many come at once: this turn has taken many steps of handshakes, or some wait.
    pub(in crate::shard) fn is_crowded(&self) -> bool {
        self.handshake_steps.are_wanted()
    }

    /// A session that has sent so many messages so far is to be read; whether it may be in this
    /// turn, and has anything left of its share.
    #[inline]
    pub(in crate::shard) fn begin(&mut self, session: SessionId, messages: u32) -> bool {
        self.left = self.messages_max;
        self.reading = Some(session);
        (self.is_charged, self.is_behind, self.has_strayed) = (false, false, false);
        (self.used.is_empty() && self.held.is_empty()) || self.begin_again(session, messages)
    }

    #[inline(never)]
    fn begin_again(&mut self, session: SessionId, messages: u32) -> bool {
        if self.held.contains_key(&session) {
            return false;
        }
        if self.taken != Some(session) && (self.has_answered_enough() || self.order.has_behind()) {
            self.is_behind = messages < NEW_MESSAGES || self.long_answers.has_got(session);
            if self.is_behind || self.long_answers.are_too_many() {
                return false;
            }
        }
        let Some(used) = self.used.get(&session) else { return true };
        self.left = self.messages_max.saturating_sub(used.messages);
        self.left > 0 && used.bytes < self.bytes_max
    }

    /// A session has been read, with so many bytes and from that many messages left.
    #[inline]
    pub(in crate::shard) fn end(&mut self, session: SessionId, bytes: usize, left_before: u32) {
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
    pub(in crate::shard) fn charge(&mut self, bytes: usize) {
        let Some(slot) = self.reading else { return };
        let used = self.used.entry(slot).or_default();
        used.bytes += bytes;
        if used.bytes >= self.bytes_max {
            (self.left, self.is_charged) = (0, true);
        }
    }

    /// Counts what a session was answered, if that is long: against the turn, and against the share
    /// of the session, which comes behind others for a while.
    #[inline]
    pub(in crate::shard) fn answered(&mut self, session: SessionId, bytes: usize) {
        if bytes > LONG_ANSWER_BYTES {
            self.charge_answer(session, bytes);
        }
    }

    /// Counts what a handler, future or tick has pushed, if that is long, as if it was answered: to
    /// the session that is being read, if any.
    #[inline]
    pub(in crate::shard) fn pushed(&mut self, bytes: usize) {
        if bytes > LONG_ANSWER_BYTES {
            match self.reading {
                Some(session) => self.charge_answer(session, bytes),
                None => self.long_answers.charge(bytes),
            }
        }
    }

    #[cold]
    fn charge_answer(&mut self, session: SessionId, bytes: usize) {
        self.long_answers.charge_to(session, bytes);
        let used = self.used.entry(session).or_default();
        used.bytes += bytes;
        if used.bytes >= self.bytes_max && self.reading == Some(session) {
            (self.left, self.is_charged) = (0, true);
        }
    }

    /// True if whoever may get a long answer has to wait for the next turn.
    #[inline]
    pub(in crate::shard) fn has_answered_enough(&self) -> bool {
        self.long_answers.are_enough()
    }

    /// True if that is so and there was a long answer since so many bytes were taken.
    #[inline]
    pub(in crate::shard) fn has_answered_enough_since(&self, taken: usize) -> bool {
        self.long_answers.are_enough() && self.long_answers.taken() > taken
    }

    /// The bytes of long answers that this turn has taken.
    #[inline]
    pub(in crate::shard) fn long_answer_bytes(&self) -> usize {
        self.long_answers.taken()
    }

    /// There is no room to hold anything: the session is read on.
    pub(in crate::shard) fn extend(&mut self) {
        (self.left, self.is_charged) = (self.messages_max, false);
        self.handshake_steps.extend();
    }

    pub(in crate::shard) fn messages_max(&self) -> u32 {
        self.messages_max
    }

    pub(in crate::shard) fn is_held(&self, session: SessionId) -> bool {
        !self.held.is_empty() && self.held.contains_key(&session)
    }

    /// Input of a session that is held.
    #[cfg(feature = "admin")]
    pub(in crate::shard) fn held(&self, session: SessionId) -> Option<&HeldInput> {
        self.held.get(&session)
    }

    /// For how long something of a session has been held, if that is the shard's doing.
    pub(in crate::shard) fn held_back_ms(&self, session: SessionId, now_ms: u64) -> u64 {
        self.held.get(&session).map_or(0, |held| held.held_back_ms(now_ms))
    }

    /// True if a session waits for its own requests, and for nothing else.
    pub(super) fn waits_for_answers(&self, session: SessionId) -> bool {
        self.held.get(&session).is_some_and(|held| held.pauses == Pause::InFlight as u8)
    }

    /// Keeps an end for after what is held; whether there is anything. A client that leaves while
    /// its handshake waits is not waited for, whatever it has sent behind that.
    pub(in crate::shard) fn defer_end(&mut self, session: SessionId, end: ReceiveEnd) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let held = self.held.get_mut(&session).filter(|held| !held.waits_for_verdict());
        held.map(|held| held.end = Some(end)).is_some()
    }

    /// True if a held session is to be read on in the next turn.
    pub(in crate::shard) fn has_ready(&self) -> bool {
        !self.order.is_empty() || self.handshake_steps.has_waiting()
    }

    /// True if that many bytes more may be kept of what sessions have sent.
    pub(in crate::shard) fn has_room(&self, bytes: usize) -> bool {
        self.held_bytes + bytes <= self.held_bytes_max
    }

    /// Counts a message that is kept elsewhere.
    pub(in crate::shard) fn keep(&mut self, bytes: usize) {
        self.held_bytes += bytes;
    }

    /// It is kept no more.
    pub(in crate::shard) fn release(&mut self, bytes: usize) {
        self.held_bytes -= bytes;
    }

    /// Bytes of all sessions that wait.
    pub(in crate::shard) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Holds what a session sends until the pause ends; whether its socket has yet to be stopped.
    pub(super) fn pause(&mut self, session: SessionId, why: Pause) -> bool {
        if self.reading == Some(session) {
            // What of it is being read stops behind this package.
            self.left = 0;
        }
        let held = self.held.entry(session).or_default();
        held.pauses |= why as u8;
        !std::mem::replace(&mut held.is_paused, true)
    }

    /// Holds what a client sends until there is a verdict on its handshake. Its socket is read on,
    /// so that its end shows, unless it sends much more meanwhile. Unlike what the shard holds back
    /// for its own sake, this counts for the handshake's deadline.
    pub(super) fn await_verdict(&mut self, session: SessionId) {
        if self.reading == Some(session) {
            self.left = 0;
        }
        let held = self.held.entry(session).or_default();
        held.pauses |= Pause::Handshake as u8;
        held.is_own_doing = true;
    }

    /// A pause has ended. Behind the last one the session's turn comes as that of others does.
    pub(in crate::shard) fn resume(&mut self, session: SessionId, why: Pause) {
        let Some(held) = self.held.get_mut(&session) else { return };
        held.pauses &= !(why as u8);
        if held.pauses == 0 && !std::mem::replace(&mut held.is_listed, true) {
            let is_behind = held.is_behind;
            self.line_up(session, false, is_behind);
        }
    }

    /// The session has ended.
    pub(in crate::shard) fn forget(&mut self, session: SessionId) {
        if self.held.is_empty() {
            return;
        }
        if let Some(held) = self.held.remove(&session) {
            self.held_bytes -= held.len();
        }
    }

    /// True if nothing is held of a session.
    pub(in crate::shard) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.held.contains_key(&session)
    }

    /// True if work has used up the share of the session that is being read.
    pub(super) fn is_charged(&self) -> bool {
        self.is_charged
    }

    /// Keeps what a session has sent for a later turn; `None` where too much is held.
    pub(super) fn hold(
        &mut self,
        session: SessionId,
        bytes: &[u8],
        is_unauthenticated: bool,
        now_ms: u64,
    ) -> Option<HeldNow> {
        let is_first = !self.held.contains_key(&session);
        if is_first {
            if !self.has_room(bytes.len()) {
                return None;
            }
            let is_behind = self.is_behind;
            self.line_up(session, is_unauthenticated, is_behind);
            let held = HeldInput {
                is_listed: true,
                since_ms: now_ms,
                is_own_doing: self.has_strayed,
                is_behind,
                ..Default::default()
            };
            self.held.insert(session, held);
        }
        let is_much = self.held.get(&session).is_none_or(|held| {
            !held.waits_for_verdict()
                || held.bytes.len() + bytes.len() > self.bytes_max / REMEMBERED_PART as usize
                || !self.has_room(bytes.len())
        });
        let held = self.held.entry(session).or_default();
        let pauses = !held.is_paused && (!is_first || !is_unauthenticated) && is_much;
        held.is_paused |= pauses;
        held.bytes.extend_from_slice(bytes);
        self.held_bytes += bytes.len();
        Some(HeldNow { is_first, pauses })
    }

    /// Keeps packages of a WebSocket message of which those before are read, if the session is
    /// held; true if it is.
    pub(super) fn keep_packages(&mut self, session: SessionId, packages: &[u8]) -> bool {
        let Some(held) = self.held.get_mut(&session) else { return false };
        held.packages = packages.to_vec();
        self.held_bytes += packages.len();
        true
    }

    /// Sessions held in earlier turns that are to be read in this one, at most: those whose turn
    /// has come, and those behind them.
    pub(in crate::shard) fn ready_len(&self) -> [usize; 2] {
        self.order.lens().map(|len| len.min(HELD_PER_TURN))
    }

    /// The next of the one or the other, with what is held of it unless it is paused.
    pub(in crate::shard) fn next_ready(
        &mut self,
        is_behind: bool,
    ) -> Option<(SessionId, Option<HeldInput>)> {
        let session = self.order.pop(is_behind)?;
        Some((session, self.take(session)))
    }

    /// Lines up for the next turn what was held in this one, and gives the unauthenticated that
    /// wait the steps that the turn has not used.
    pub(in crate::shard) fn begin_unauthenticated(&mut self) {
        self.order.end_turn();
        self.handshake_steps.begin_waiting();
    }

    /// The next of the unauthenticated, as long as the turn has steps.
    pub(in crate::shard) fn next_unauthenticated(
        &mut self,
    ) -> Option<(SessionId, Option<HeldInput>)> {
        let session = self.handshake_steps.next_waiting()?;
        Some((session, self.take(session)))
    }

    /// Lets those that are still waiting come first in the next turn.
    pub(in crate::shard) fn end_unauthenticated(&mut self) {
        self.handshake_steps.end_waiting();
    }

    /// The length of the next piece of held input.
    pub(in crate::shard) fn piece_len(&self, held: &HeldInput) -> usize {
        (held.bytes.len() - held.at).min(self.bytes_max)
    }

    /// Takes out what is held of a session whose turn has come, unless it is paused.
    fn take(&mut self, session: SessionId) -> Option<HeldInput> {
        let held = self.held.get_mut(&session)?;
        held.is_listed = false;
        if held.pauses != 0 {
            return None;
        }
        let held = self.held.remove(&session)?;
        self.held_bytes -= held.len();
        self.used.remove(&session);
        self.taken = Some(session);
        Some(held)
    }

    /// Puts back what has not been read of it. What of the last piece was held anew stands at the
    /// piece's end, and is not needed twice.
    pub(in crate::shard) fn put_back(
        &mut self,
        session: SessionId,
        mut held: HeldInput,
        piece_len: usize,
        is_unauthenticated: bool,
    ) {
        match self.held.get_mut(&session) {
            None => {
                self.held_bytes += held.len();
                held.is_own_doing |= self.has_strayed;
                held.is_listed = true;
                self.line_up(session, is_unauthenticated, held.is_behind);
                self.held.insert(session, held);
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

    fn line_up(&mut self, session: SessionId, is_unauthenticated: bool, is_behind: bool) {
        if is_unauthenticated {
            self.handshake_steps.wait(session);
        } else {
            self.order.add(session, is_behind || self.long_answers.has_got(session));
        }
    }
}
