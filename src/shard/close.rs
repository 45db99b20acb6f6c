//! How sessions end.

use std::rc::Rc;
use std::sync::Arc;

use super::connection::{CloseReason, State, Transport, worker_bit};
use super::dialect::Dialect;
use super::{Command, ReceiveEnd, SendEnd, Shard};
use crate::dispatch::{Context, chain};
use crate::forward::mail::Mail;
use crate::session::{Segment, SessionId, SessionView, Slot};
use crate::wire::package::PackageType;
use crate::wire::websocket;

impl Shard {
    /// The client's stream has ended.
    pub(crate) fn handle_receive_end(&mut self, session: SessionId, end: ReceiveEnd) {
        if end == ReceiveEnd::Eof && self.budgets.defer_end(session, end) {
            return;
        }
        let Some((slot, connection)) = self.find(session) else { return };
        connection.is_read_to_end = true;
        match (connection.state, end) {
            (State::Dead, _) => {}
            (_, ReceiveEnd::Error) | (State::Lingering, _) => self.cut(slot, CloseReason::Peer),
            // What is queued is for a client that may still read.
            (State::Closing, ReceiveEnd::Eof) => {}
            (_, ReceiveEnd::Eof) => self.close(slot, CloseReason::Peer, CloseCode::None),
        }
    }

    /// A segment from [`Self::poll_transmit`] is done with.
    pub(crate) fn handle_sent(&mut self, session: SessionId, segment: Segment, end: SendEnd) {
        let bytes = segment.as_slice().len() as u64;
        let slot = session.slot();
        let generation = session.generation();
        let Some(connection) = self.connections.get_mut(slot, generation) else { return };
        connection.outbox.finish(segment, &mut self.pool);
        let is_counted = connection.io_bytes > 0;
        match end {
            SendEnd::Error => self.cut(slot, CloseReason::Peer),
            SendEnd::Sent => {
                self.counters.bytes_out.add(bytes);
                let (state, layer) = (connection.state, connection.layer);
                let is_waiting = connection.outbox.is_waiting();
                if !self.outbox_pauses.is_empty() {
                    self.resume_for_outbox(session, bytes as usize);
                }
                if is_counted {
                    self.recount(slot);
                }
                if is_waiting || self.has_tls_output(slot, layer) {
                    self.mark_dirty(slot);
                } else if state == State::Closing {
                    self.finish_writing(slot);
                }
            }
        }
    }

    /// A slot's deadline has come.
    pub(super) fn handle_deadline(&mut self, slot: Slot) {
        let now_ms = self.clock.patient_ms;
        let silence_ms = self.config.silence_ms();
        let session = self.id_of(slot);
        self.hear_held(session);
        let Some(connection) = self.connections.at(slot) else { return };
        match connection.state {
            State::Sniff | State::Http | State::Inited | State::WaitAck => {
                let begun_ms = connection.heard_ms + self.budgets.held_back_ms(session, now_ms);
                let deadline_ms = begun_ms + self.config.handshake_timeout_ms();
                if now_ms < deadline_ms {
                    self.wheel.set(slot, deadline_ms);
                } else {
                    self.cut(slot, CloseReason::HandshakeTimeout);
                }
            }
            State::Working(Dialect::Pitaya) => self.beat(slot),
            State::Working(Dialect::Pomelo) => {
                // Heartbeats only store when they came; the wheel is asked here.
                let deadline_ms = connection.heard_ms + silence_ms;
                if now_ms < deadline_ms {
                    self.wheel.set(slot, deadline_ms);
                } else if self.config.heartbeat.is_some() {
                    self.close(slot, CloseReason::HeartbeatTimeout, CloseCode::Normal);
                } else {
                    self.close(slot, CloseReason::Idle, CloseCode::Normal);
                }
            }
            State::Closing | State::Lingering => self.cut(slot, CloseReason::Peer),
            State::Dead => {}
        }
    }

    /// Ends a session, sends what is queued for it, and closes.
    pub(super) fn close(&mut self, slot: Slot, reason: CloseReason, code: CloseCode) {
        let Some(connection) = self.connections.at(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let is_upgraded =
            connection.transport == Transport::WebSocket && connection.state != State::Http;
        self.end_session(slot, reason);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if let Some(code) = code.number().filter(|_| is_upgraded) {
            websocket::encode_close(code, connection.outbox.open(&mut self.pool));
        }
        self.wheel.set(slot, self.clock.patient_ms + self.config.linger_ms());
        let is_sent = !connection.outbox.is_waiting() && !connection.outbox.is_in_flight();
        if is_sent {
            self.finish_writing(slot);
        } else {
            self.mark_dirty(slot);
        }
    }

    /// Ends a session and closes at once; what is queued is lost.
    pub(super) fn cut(&mut self, slot: Slot, reason: CloseReason) {
        self.end_session(slot, reason);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.state == State::Dead {
            return;
        }
        connection.state = State::Dead;
        connection.outbox.clear(&mut self.pool);
        let socket = connection.socket;
        if connection.io_bytes > 0 {
            self.recount(slot);
        }
        self.wheel.clear(slot);
        self.commands.push_back(Command::Close(socket));
    }

    /// All is sent: tells the client, and waits for it to close.
    fn finish_writing(&mut self, slot: Slot) {
        #[cfg(feature = "tls")]
        if !self.finish_tls(slot) {
            return;
        }
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.is_read_to_end {
            self.cut(slot, CloseReason::Peer);
            return;
        }
        connection.state = State::Lingering;
        self.commands.push_back(Command::FinishWriting(connection.socket));
    }

    /// Takes the session out of everything that knows it, once: from here on nothing it sends
    /// counts, and nothing but its outbox reaches it.
    pub(super) fn end_session(&mut self, slot: Slot, reason: CloseReason) {
        let id = self.id_of(slot);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let was_working = connection.state.is_working();
        connection.state = State::Closing;
        self.budgets.forget(id);
        self.outbox_pauses.forget(id);
        self.wide_ids.forget(id);
        self.beats.remove(&id);
        #[cfg(feature = "crypto")]
        self.keys.remove(&id);
        let partial = connection.partial.take();
        let message = connection.message.take();
        let binding = connection.binding.take();
        let data = connection.data.as_ref().map(|data| Arc::clone(data.shared()));
        let workers = connection.workers | self.config.subscribers_to_all;
        if let Some(partial) = partial {
            self.pool.give(partial.buffer);
        }
        if let Some(message) = message {
            self.pool.give(message.payload);
        }
        self.forget_waiting(id);
        self.count_close(reason);
        tracing::debug!(session = ?id, ?reason, "session closed");

        let uid = data.as_ref().and_then(|data| data.uid.clone());
        if let Some(uid) = &uid {
            self.logins.remove(uid);
        }
        if let Some(uid) = uid.or_else(|| binding.map(|binding| binding.uid)) {
            let home = self.endpoint.hub().home(&uid);
            self.mail(home, Mail::HomeUnbind { session: id, uid });
        }
        let Some(data) = data.filter(|_| was_working) else { return };
        self.tell_workers(workers, || Mail::Closed { session: id, data: Arc::clone(&data) });
        let registry = Rc::clone(&self.registry);
        if !registry.on_closed.is_empty() {
            let context = Context { thread: Rc::clone(&self.thread) };
            let view = SessionView { id, data: &data };
            for told in &registry.on_closed {
                chain::guarded(|| told(&view, &context));
            }
            // What they ask for is done when the turn comes to it; the session is half closed.
        }
    }

    /// Tells several workers, by their bits, of something that became of a session.
    pub(super) fn tell_workers(&mut self, workers: u64, mail: impl Fn() -> Mail) {
        if workers == 0 {
            return;
        }
        let count = self.endpoint.hub().parties() - self.endpoint.hub().shards();
        for worker in (0..count).filter(|worker| workers & worker_bit(*worker) != 0) {
            let party = self.endpoint.hub().worker(worker);
            self.endpoint.send(party, mail());
        }
    }

    fn count_close(&self, reason: CloseReason) {
        let counters = &self.counters;
        match reason {
            CloseReason::Peer => counters.closed_by_peer.one(),
            CloseReason::Kick => counters.closed_by_kick.one(),
            CloseReason::HeartbeatTimeout => counters.closed_heartbeat_timeout.one(),
            CloseReason::Idle => counters.closed_idle.one(),
            CloseReason::HandshakeTimeout => counters.closed_handshake_timeout.one(),
            CloseReason::Protocol => counters.closed_protocol.one(),
            CloseReason::SlowConsumer => counters.closed_slow_consumer.one(),
            CloseReason::OutboxAge => counters.closed_outbox_age.one(),
            CloseReason::Shutdown => counters.closed_shutdown.one(),
            CloseReason::Memory => counters.closed_memory.one(),
            CloseReason::Refused => {}
        }
    }

    /// Closes a session for good behaviour's sake: with a KICK package if there is a reason, and
    /// behind all that was queued before.
    ///
    /// Clients of Pitaya are told no reasons, but of every kick; not of the engine's shutdown,
    /// behind which they connect again, as Pomelo's do unless a reason is set for it.
    pub(super) fn kick(&mut self, slot: Slot, reason: Option<&str>, why: CloseReason) {
        let Some(connection) = self.connections.at(slot) else { return };
        match (connection.state, reason) {
            (State::Working(Dialect::Pomelo), Some(reason)) => {
                let body = serde_json::json!({ "reason": reason }).to_string();
                self.send_package(slot, PackageType::Kick, body.as_bytes());
            }
            (State::Working(Dialect::Pitaya), _) if why != CloseReason::Shutdown => {
                self.send_package(slot, PackageType::Kick, b"");
            }
            _ => {}
        }
        let code = match why {
            CloseReason::Shutdown => CloseCode::GoingAway,
            _ => CloseCode::Normal,
        };
        self.close(slot, why, code);
    }

    /// Begins to stop: sessions that wait for nothing are closed now, the others once they have
    /// got their answers.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        for slot in self.connections.slots() {
            self.kick_if_drained(slot);
        }
    }

    /// Stops waiting for answers.
    pub(crate) fn drain_now(&mut self) {
        for slot in self.connections.slots() {
            self.close_for_shutdown(slot);
        }
    }

    /// A stop is no kick, which clients take for final: the original ends its connections bare.
    fn close_for_shutdown(&mut self, slot: Slot) {
        let config = Arc::clone(&self.config);
        self.kick(slot, config.shutdown_kick.as_deref(), CloseReason::Shutdown);
    }

    /// Cuts what is still there.
    pub(crate) fn cut_all(&mut self) {
        for slot in self.connections.slots() {
            self.cut(slot, CloseReason::Shutdown);
        }
    }

    pub(super) fn kick_if_drained(&mut self, slot: Slot) {
        let is_idle = self.connections.at(slot).is_some_and(|connection| connection.in_flight == 0);
        if self.is_draining && is_idle {
            self.close_for_shutdown(slot);
        }
    }
}

/// What a WebSocket client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// Nothing: it has said goodbye itself, or is no WebSocket yet.
    None,
    /// 1000, as the original for everything.
    Normal,
    /// 1001: the engine stops.
    GoingAway,
    Error(u16),
}

impl CloseCode {
    fn number(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Normal => Some(websocket::CLOSE_NORMAL),
            Self::GoingAway => Some(websocket::CLOSE_GOING_AWAY),
            Self::Error(code) => Some(code),
        }
    }
}
