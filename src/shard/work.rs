//! Work that a client can ask for with few bytes: bodies to inflate, signatures to check.
//!
//! It counts in bytes, as long as one that is inflated takes. It is of the session's share of the
//! turn, and a turn does only so much of it for all sessions together: what comes above that waits
//! for a later turn, its session paused, in the order it came.
//!
//! A body that grows above a session's share is inflated a part in each turn, one such body after
//! another, so that a shard has one buffer of that length.

use std::collections::VecDeque;

use super::Shard;
use super::close::CloseCode;
use super::fairness::Pause;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::limits::Limits;
use crate::wire::message::{self, Message};
use crate::wire::pitaya::{self, Compression, Deflater, InflateError, Inflated, Inflater};

/// The work of one shard.
pub(super) struct Work {
    per_turn: usize,
    /// What this turn may yet do.
    left: usize,
    /// What is done of one body in a turn.
    part: usize,
    /// What this turn may yet compress.
    deflate_left: usize,
    deflater: Deflater,
    inflater: Inflater,
    /// Messages that came when no more could be done.
    waiting: VecDeque<Waiting>,
    /// Those whose bodies grow above a part.
    large: VecDeque<Waiting>,
    /// The first of these.
    begun: Option<Begun>,
    large_inflater: Inflater,
}

/// A message that waits. INVARIANT: its session is paused, or has ended.
struct Waiting {
    client: ClientCall,
    /// The body of its package.
    message: Vec<u8>,
}

/// A message whose body is being inflated.
struct Begun {
    waiting: Waiting,
    plain: Vec<u8>,
}

/// A smaller share is no use.
const PART_MIN: usize = 4096;
/// What a turn compresses of answers: half a millisecond or so. Others go as they are.
const DEFLATED_PER_TURN: usize = 128 * 1024;
/// What a message that waits counts for besides its bytes, against `held_bytes_max`.
const WAITING_BYTES: usize = 256;

impl Waiting {
    fn bytes(&self) -> usize {
        WAITING_BYTES + self.message.len()
    }
}

impl Work {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            per_turn: limits.work_per_turn_max,
            left: limits.work_per_turn_max,
            part: limits.bytes_per_turn_max.min(limits.work_per_turn_max).max(PART_MIN),
            deflate_left: DEFLATED_PER_TURN,
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            waiting: VecDeque::new(),
            large: VecDeque::new(),
            begun: None,
            large_inflater: Inflater::default(),
        }
    }

    /// What comes next is of another turn.
    pub(super) fn end_turn(&mut self) {
        self.left = self.per_turn;
        self.deflate_left = DEFLATED_PER_TURN;
    }

    /// Whether the next turn has something to do.
    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty() || !self.large.is_empty() || self.begun.is_some()
    }

    /// Where a push or the answer to a handshake is compressed: not on demand, or made once.
    pub(super) fn deflater(&mut self) -> &mut Deflater {
        &mut self.deflater
    }
}

impl Shard {
    /// Whether a message that needs work may have it now: some is left, and nobody waits for it.
    #[inline]
    pub(super) fn may_work(&self) -> bool {
        self.work.left > 0 && self.work.waiting.is_empty()
    }

    /// Counts work that was done for a message of the session that is being read.
    pub(super) fn charge(&mut self, work: usize) {
        self.work.left = self.work.left.saturating_sub(work);
        self.budgets.charge(work);
    }

    /// Keeps a message until there is work left for it, and pauses its session. Where there is no
    /// room for it, it is refused.
    #[cold]
    pub(super) fn wait_for_work(&mut self, client: &ClientCall, message: &[u8]) {
        if let Some(waiting) = self.keep_for_work(client, message) {
            self.work.waiting.push_back(waiting);
        }
    }

    fn keep_for_work(&mut self, client: &ClientCall, message: &[u8]) -> Option<Waiting> {
        if !self.budgets.has_room(WAITING_BYTES + message.len()) {
            self.counters.work_rejects.one();
            self.answer(client, &Reply::error());
            return None;
        }
        let waiting = Waiting { client: *client, message: message.to_vec() };
        self.budgets.keep(waiting.bytes());
        self.counters.work_waits.one();
        self.pause_reading(client.session, Pause::Work);
        Some(waiting)
    }

    /// Does what waits, as much as the turn allows.
    pub(super) fn do_work(&mut self) {
        if self.work.has_more() {
            self.do_waiting();
        }
    }

    #[cold]
    fn do_waiting(&mut self) {
        self.inflate_part();
        while self.work.left > 0
            && let Some(waiting) = self.work.waiting.pop_front()
        {
            self.budgets.release(waiting.bytes());
            if self.end_wait(&waiting.client) {
                self.handle_costly(&waiting.client, &waiting.message);
            }
        }
    }

    /// A message has waited for long enough; whether its session is still there. What it has sent
    /// behind the message is read in a later turn.
    fn end_wait(&mut self, client: &ClientCall) -> bool {
        let Some((_, connection)) = self.find(client.session) else { return false };
        if !connection.state.is_working() {
            return false;
        }
        self.budgets.resume(client.session, Pause::Work);
        true
    }

    /// A message that may have its work.
    fn handle_costly(&mut self, client: &ClientCall, body: &[u8]) {
        if self.is_pitaya(client.session.slot()) && pitaya::is_compressed(body) {
            return self.handle_compressed(client, body);
        }
        if let Ok(message) = message::decode(body) {
            self.handle_message_apart(client, &message);
        }
    }

    /// A message whose body is compressed goes on as the same message without.
    ///
    /// What it may grow to is bounded as a package is, and what happens beyond is the same: the
    /// client is closed, here after no more than that many bytes were made.
    pub(super) fn handle_compressed(&mut self, client: &ClientCall, body: &[u8]) {
        let Ok(message) = message::decode(body) else { return };
        let mut plain = self.pool.take();
        let mut left = self.work.part;
        let bytes_max = self.config.limits.package_bytes_max;
        let inflater = &mut self.work.inflater;
        inflater.begin();
        let outcome = inflater.advance(message.body, bytes_max, &mut left, &mut plain);
        self.charge(self.work.part - left);
        match outcome {
            Ok(Inflated::Whole) => {
                self.handle_message_apart(client, &Message { body: &plain, ..message });
            }
            // Its part of the turn was in vain, which others do not feel.
            Ok(Inflated::Part) => {
                if let Some(waiting) = self.keep_for_work(client, body) {
                    self.work.large.push_back(waiting);
                }
            }
            Err(error) => self.refuse_compressed(client, error),
        }
        self.pool.give(plain);
    }

    /// Inflates a part of the first large body, and handles its message if that was all.
    fn inflate_part(&mut self) {
        let begun = self.work.begun.take().or_else(|| {
            let waiting = self.work.large.pop_front()?;
            self.work.large_inflater.begin();
            Some(Begun { waiting, plain: self.pool.take() })
        });
        let Some(mut begun) = begun else { return };
        let Waiting { client, message: body } = &begun.waiting;
        let client = *client;
        let is_there = self.find(client.session).is_some_and(|(_, it)| it.state.is_working());
        let message = message::decode(body).ok().filter(|_| is_there);
        if let Some(message) = message {
            let bytes_max = self.config.limits.package_bytes_max;
            let (inflater, mut left) = (&mut self.work.large_inflater, self.work.part);
            match inflater.advance(message.body, bytes_max, &mut left, &mut begun.plain) {
                Ok(Inflated::Part) => {
                    self.work.begun = Some(begun);
                    return;
                }
                Ok(Inflated::Whole) => {
                    let message = Message { body: &begun.plain, ..message };
                    self.end_wait(&client);
                    self.handle_message_apart(&client, &message);
                }
                Err(error) => self.refuse_compressed(&client, error),
            }
        }
        self.budgets.release(begun.waiting.bytes());
        self.pool.give(begun.plain);
    }

    fn refuse_compressed(&mut self, client: &ClientCall, error: InflateError) {
        tracing::debug!(session = ?client.session, %error, "a compressed message is not taken");
        match error {
            InflateError::TooLong => self.counters.package_too_long.one(),
            _ => self.counters.bad_compression.one(),
        }
        self.protocol_error(client.session.slot(), CloseCode::Normal);
    }

    /// Compresses an answer, where that makes it shorter and the turn has not compressed enough.
    pub(super) fn deflate(
        &mut self,
        body: &[u8],
        compression: Compression,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_tried = pitaya::is_worth_compressing(body.len(), compression);
        if !is_tried {
            return false;
        }
        if self.work.deflate_left == 0 {
            self.counters.compression_skips.one();
            return false;
        }
        self.work.deflate_left = self.work.deflate_left.saturating_sub(body.len());
        self.work.deflater.compress(body, compression, out)
    }

    /// Messages that wait for work.
    #[cfg(test)]
    pub(super) fn work_waits(&self) -> usize {
        self.work.waiting.len() + self.work.large.len() + usize::from(self.work.begun.is_some())
    }
}
