//! Messages that need work: bodies to inflate, signatures to check.

use super::Dispatcher;
use super::work::Waiting;
use crate::dispatch::context::ClientCall;
use crate::session::SessionId;
use crate::shard::connections::Pause;
use crate::shard::outbound::CloseCode;
use crate::wire::message::{self, Message};
use crate::wire::pitaya::{self, InflateError, Inflated};

impl Dispatcher {
    /// Handles a message whose body is compressed: whether it may be sent is looked at before
    /// anything is done for it.
    pub(super) fn handle_compressed_data(&mut self, session: SessionId, body: &[u8]) {
        let Some((client, _)) = self.admit(session, body) else { return };
        match self.work.is_free() {
            true => self.handle_compressed(&client, body),
            false => self.wait_for_work(&client, body),
        }
    }

    /// Does what waits, as much as the turn allows. True if something did.
    #[inline]
    pub(in crate::shard) fn do_work(&mut self) -> bool {
        let has_waited = self.work.has_more();
        if has_waited {
            self.do_waiting();
        }
        has_waited
    }

    #[cold]
    fn do_waiting(&mut self) {
        self.inflate_part();
        while !self.connections().budgets().has_answered_enough()
            && let Some(waiting) = self.work.next_waiting()
        {
            self.connections().budgets_mut().release(waiting.bytes());
            if self.end_wait(&waiting.client) {
                self.handle_costly(&waiting.client, &waiting.message);
            }
        }
    }

    /// Ends the wait of a message; false if its session has ended. What it has sent behind the
    /// message is read in a later turn.
    fn end_wait(&mut self, client: &ClientCall) -> bool {
        let Some((_, connection)) = self.connections().find(client.session) else { return false };
        if !connection.state.is_working() {
            return false;
        }
        self.connections().budgets_mut().resume(client.session, Pause::Work);
        true
    }

    /// Handles a message that may have its work.
    fn handle_costly(&mut self, client: &ClientCall, body: &[u8]) {
        if self.connections().is_pitaya(client.session.slot()) && pitaya::is_compressed(body) {
            return self.handle_compressed(client, body);
        }
        if let Ok(message) = message::decode(body) {
            self.handle_ready(client, &message);
        }
    }

    /// Handles a message whose body is compressed as the same message without.
    ///
    /// What it may grow to is bounded as a package is, and what happens beyond is the same: the
    /// client is closed, here after no more than that many bytes were made.
    fn handle_compressed(&mut self, client: &ClientCall, body: &[u8]) {
        let Ok(message) = message::decode(body) else { return };
        let mut plain = self.connections().pool().take();
        let mut left = self.work.part;
        let bytes_max = self.config.limits.package_bytes_max;
        let inflater = &mut self.work.inflater;
        inflater.begin();
        let outcome = inflater.advance(message.body, bytes_max, &mut left, &mut plain);
        self.charge(self.work.part - left);
        match outcome {
            Ok(Inflated::Whole) => {
                self.handle_ready(client, &Message { body: &plain, ..message });
            }
            // Its part of the turn was in vain, which others do not feel.
            Ok(Inflated::Part) => {
                if let Some(waiting) = self.keep_for_work(client, body) {
                    self.work.large.push_back(waiting);
                }
            }
            Err(error) => self.refuse_compressed(client, error),
        }
        self.connections().pool().give(plain);
    }

    /// Inflates a part of the first large body, and handles its message if that was all.
    fn inflate_part(&mut self) {
        let begun = self.work.begun.take().or_else(|| {
            let waiting = self.work.large.pop_front()?;
            self.work.large_inflater.begin();
            Some(waiting)
        });
        let Some(begun) = begun else { return };
        let Waiting { client, message: body } = &begun;
        let client = *client;
        let connection = self.connections().find(client.session);
        let is_there = connection.is_some_and(|(_, it)| it.state.is_working());
        let message = message::decode(body).ok().filter(|_| is_there);
        if let Some(message) = message {
            let bytes_max = self.config.limits.package_bytes_max;
            let mut plain = std::mem::take(&mut self.work.large_plain);
            let (inflater, mut left) = (&mut self.work.large_inflater, self.work.part);
            // A buffer that grew would be copied.
            plain.reserve_exact(bytes_max.saturating_add(1).saturating_sub(plain.len()));
            let outcome = inflater.advance(message.body, bytes_max, &mut left, &mut plain);
            match outcome {
                Ok(Inflated::Part) => {}
                Ok(Inflated::Whole) => {
                    let message = Message { body: &plain, ..message };
                    self.end_wait(&client);
                    self.handle_ready(&client, &message);
                }
                Err(error) => self.refuse_compressed(&client, error),
            }
            self.work.large_plain = plain;
            if outcome == Ok(Inflated::Part) {
                self.work.begun = Some(begun);
                return;
            }
        }
        self.connections().budgets_mut().release(begun.bytes());
        self.work.large_plain.clear();
        if self.work.large.is_empty() {
            let plain = std::mem::take(&mut self.work.large_plain);
            self.connections().pool().give(plain);
        }
    }

    fn refuse_compressed(&mut self, client: &ClientCall, error: InflateError) {
        tracing::debug!(session = ?client.session, %error, "a compressed message is not taken");
        match error {
            InflateError::TooLong => self.counters.package_too_long.one(),
            _ => self.counters.bad_compression.one(),
        }
        self.outbound().protocol_error(client.session.slot(), CloseCode::Normal);
    }
}
