//! Bytes into packages, in place wherever they are whole.

use std::sync::atomic::Ordering;

use super::Inbound;
use super::frames::make_room;
use crate::session::{SessionId, Slot, session_number};
use crate::shard::connections::{CloseReason, Partial, State, Transport, UNCOUNTED_BYTES};
use crate::shard::listener_config::Dialect;
use crate::shard::outbound::CloseCode;
use crate::wire::http::{self, HttpError, UpgradeStatus};
use crate::wire::package::Status;
use crate::wire::sniff::{Sniff, sniff};

/// The progress in a piece of input.
struct Progress {
    consumed: usize,
    /// The length that what is left has to grow to before it is worth a look.
    needed: usize,
    /// The session's share of the turn is used up; what is left was not looked at.
    is_spent: bool,
}

impl Inbound {
    /// Bytes of the client itself.
    #[inline]
    pub(super) fn handle_bytes(&mut self, session: SessionId, mut input: &mut [u8]) {
        let keeps_alive = self.config.heartbeat.is_none();
        let now_ms = self.connections().patient_ms();
        let slot = session.slot();
        let Some(connection) = self.connections().at_mut(slot) else { return };
        if keeps_alive && connection.state.is_working() {
            connection.heard_ms = now_ms;
        }
        let mut partial = connection.partial.take();
        let messages = connection.traffic.received_messages;
        if !self.connections().budgets_mut().begin(session, messages)
            && self.connections().hold_bytes(session, input)
        {
            // What is held stands behind what has been begun.
            if let Some(connection) = self.connections().at_mut(slot) {
                connection.partial = partial;
            }
            return;
        }
        let (len, left) = (input.len(), self.connections().budgets_mut().left);
        while !input.is_empty() && self.connections().is_reading(slot) {
            let Some(mut kept) = partial.take() else {
                let progress = self.read_share(session, input);
                let rest = &input[progress.consumed..];
                if !rest.is_empty() && self.connections().is_reading(slot) {
                    let mut buffer = self.connections().pool().take();
                    buffer.extend_from_slice(rest);
                    partial = Some(Box::new(Partial { buffer, needed: progress.needed }));
                }
                break;
            };
            // Only as much as completes the element, so that what follows it stays in place.
            let more = kept.needed.saturating_sub(kept.buffer.len()).clamp(1, input.len());
            let is_head = self.is_head(slot);
            let more = if is_head { input.len() } else { more };
            let (head, tail) = input.split_at_mut(more);
            make_room(&mut kept.buffer, more, kept.needed);
            let seen = kept.buffer.len();
            kept.buffer.extend_from_slice(head);
            input = tail;
            if kept.buffer.len() < kept.needed || is_head && !self.may_end(slot, &kept.buffer, seen)
            {
                partial = Some(kept);
                break;
            }
            let progress = self.read_share(session, &mut kept.buffer);
            if progress.consumed == kept.buffer.len() {
                self.connections().pool().give(kept.buffer);
            } else {
                kept.buffer.drain(..progress.consumed);
                kept.needed = progress.needed;
                partial = Some(kept);
            }
            if progress.is_spent && self.connections().hold_bytes(session, input) {
                break;
            }
        }
        self.connections().budgets_mut().end(session, len, left);
        self.keep_partial(slot, partial);
    }

    /// Keeps what has come of an element that is not whole, for as long as its client is read.
    #[inline]
    fn keep_partial(&mut self, slot: Slot, partial: Option<Box<Partial>>) {
        match self.connections().at_mut(slot) {
            Some(connection) if connection.state.is_reading() => {
                let is_counted = connection.io_bytes > 0
                    || partial.as_ref().is_some_and(|it| it.buffer.len() > UNCOUNTED_BYTES / 2)
                    || connection.message.is_some();
                connection.partial = partial;
                if is_counted {
                    self.connections().recount(slot);
                }
            }
            _ => {
                if let Some(partial) = partial {
                    self.connections().pool().give(partial.buffer);
                }
            }
        }
    }

    /// True if a head may have come to its end with what follows on the bytes that were seen. So
    /// what drips in is not looked at from its start for each byte.
    fn may_end(&mut self, slot: Slot, head: &[u8], seen: usize) -> bool {
        let state = self.connections().at(slot).map(|connection| connection.state);
        state != Some(State::Http)
            || head.len() >= self.config.limits.http_head_bytes_max
            || ends_head(&head[seen.saturating_sub(2)..])
    }

    /// True if the length of what is being read shows only at its end.
    fn is_head(&mut self, slot: Slot) -> bool {
        let state = self.connections().at(slot).map(|connection| connection.state);
        matches!(state, Some(State::Sniff | State::Http))
    }

    /// Reads all that is whole, as far as the session's share of the turn goes; the rest is held.
    fn read_share(&mut self, session: SessionId, input: &mut [u8]) -> Progress {
        let mut progress = self.read(session, input);
        while progress.is_spent {
            let consumed = progress.consumed;
            if self.connections().hold_bytes(session, &input[consumed..]) {
                return Progress { consumed: input.len(), ..progress };
            }
            self.connections().budgets_mut().extend();
            progress = self.read(session, &mut input[consumed..]);
            progress.consumed += consumed;
        }
        progress
    }

    /// Reads all that is whole.
    #[inline]
    fn read(&mut self, session: SessionId, input: &mut [u8]) -> Progress {
        let slot = session.slot();
        let mut consumed = 0;
        loop {
            if self.connections().budgets().left == 0 {
                return Progress { consumed, needed: 0, is_spent: true };
            }
            let Some(connection) = self.connections().at(slot) else { break };
            if connection.state == State::Working(Dialect::Pomelo) {
                let run = self.dispatcher.read_packages(session, &mut input[consumed..]);
                consumed += run.consumed;
                if run.is_interrupted || self.connections().budgets().left == 0 {
                    continue;
                }
            }
            self.connections().budgets_mut().left -= 1;
            let rest = &mut input[consumed..];
            let Some(connection) = self.connections().at(slot) else { break };
            let status = match (connection.state, connection.transport) {
                (State::Closing | State::Lingering | State::Dead, _) => break,
                (State::Working(_), Transport::Tcp) => {
                    self.read_package(session, rest, self.config.limits.package_bytes_max)
                }
                (State::Working(_), Transport::WebSocket) => self.read_frame(session, rest),
                (state, transport) => {
                    match self.read_unauthenticated(session, rest, state, transport) {
                        Some(status) => status,
                        None => return Progress { consumed, needed: 0, is_spent: true },
                    }
                }
            };
            match status {
                Status::Complete { value: (), consumed: more } => consumed += more,
                Status::Partial { needed } => {
                    return Progress { consumed, needed, is_spent: false };
                }
            }
        }
        // Nothing of a connection that closes is read any more.
        Progress { consumed: input.len(), needed: 0, is_spent: false }
    }

    /// Reads what comes before the handshake is done; `None` where the turn has taken enough steps
    /// of handshakes.
    #[inline(never)]
    fn read_unauthenticated(
        &mut self,
        session: SessionId,
        input: &mut [u8],
        state: State,
        transport: Transport,
    ) -> Option<Status<()>> {
        if !input.is_empty() && !self.connections().budgets_mut().may_take_handshake_step() {
            return None;
        }
        let slot = session.slot();
        let status = match (state, transport) {
            (State::Sniff, _) => self.read_first(slot, input),
            (State::Http, _) => self.read_head(slot, input),
            (_, Transport::Tcp) => {
                self.read_package(session, input, self.config.limits.handshake_package_bytes_max)
            }
            (_, Transport::WebSocket) => self.read_frame(session, input),
        };
        // What is not whole yet takes no more than a look at it.
        if let Status::Complete { consumed, .. } = status {
            self.connections().budgets_mut().took_handshake_step(consumed);
            self.connections().budgets_mut().has_strayed |=
                self.connections().at(slot).is_some_and(|connection| connection.state == state);
        }
        Some(status)
    }

    /// Tells TCP from HTTP, and takes a session number (docs/protocol/wire.md,
    /// "Port switcher").
    fn read_first(&mut self, slot: Slot, input: &[u8]) -> Status<()> {
        let state = match sniff(input) {
            Sniff::NeedMore => return Status::Partial { needed: input.len() + 1 },
            Sniff::Tcp => State::Inited,
            Sniff::Http => State::Http,
        };
        let nth = self.config.sessions_numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let number = session_number(nth, self.connections().index(), self.shards);
        if let Some(connection) = self.connections().at_mut(slot) {
            connection.state = state;
            connection.session.number = number;
        }
        Status::Complete { value: (), consumed: 0 }
    }

    /// Reads the request that opens a WebSocket.
    fn read_head(&mut self, slot: Slot, input: &[u8]) -> Status<()> {
        let head_max = self.config.limits.http_head_bytes_max;
        // A head that drips in is looked at once its end is there.
        if input.len() < head_max && !ends_head(input) {
            return Status::Partial { needed: input.len() + 1 };
        }
        let decoded = http::decode(input, head_max);
        if let Ok(UpgradeStatus::Complete { upgrade, .. }) = &decoded
            && !self.admit_upgrade(slot, upgrade)
        {
            return Status::Complete { value: (), consumed: input.len() };
        }
        if let (Err(HttpError::UpgradeRequired), Some(path)) = (&decoded, &self.config.health_path)
            && http::asks_for(input, path)
        {
            return self.answer_health(slot, input.len());
        }
        let connections = &mut self.dispatcher.forwarder.outbound.connections;
        let Some((connection, pool)) = connections.at_with_pool(slot) else {
            return Status::Partial { needed: 0 };
        };
        match decoded {
            Ok(UpgradeStatus::Partial) => Status::Partial { needed: input.len() + 1 },
            Ok(UpgradeStatus::Complete { upgrade, consumed }) => {
                http::encode_accept(&upgrade, connection.outbox.open(pool));
                connection.transport = Transport::WebSocket;
                connection.state = State::Inited;
                self.outbound().mark_dirty(slot);
                if self.config.handshake.is_some() {
                    let session = self.connections().id_of(slot);
                    self.dispatcher.keep_headers(session, upgrade.to_owned_headers());
                }
                Status::Complete { value: (), consumed }
            }
            Err(error) => {
                let out = connection.outbox.open(pool);
                out.extend_from_slice(error.response());
                self.counters.refused_http.one();
                let peer = connection.peer;
                crate::log::seldom!(info, %peer, "an HTTP request was refused");
                self.outbound().close(slot, CloseReason::Refused, CloseCode::None);
                Status::Complete { value: (), consumed: input.len() }
            }
        }
    }
}

impl Inbound {
    /// Tells a balancer if clients may be sent here.
    #[cold]
    fn answer_health(&mut self, slot: Slot, consumed: usize) -> Status<()> {
        let answer = if self.config.figures.is_ready() { http::HEALTHY } else { http::UNHEALTHY };
        self.counters.health_checks.one();
        let connections = &mut self.dispatcher.forwarder.outbound.connections;
        if let Some((connection, pool)) = connections.at_with_pool(slot) {
            connection.outbox.open(pool).extend_from_slice(answer);
        }
        // It is no client that was turned away, nor one that has gone.
        self.outbound().close(slot, CloseReason::Refused, CloseCode::None);
        Status::Complete { value: (), consumed }
    }
}

/// True if there is an empty line, whatever ends the lines.
fn ends_head(input: &[u8]) -> bool {
    input.windows(2).any(|pair| pair == b"\n\n") || input.windows(3).any(|w| w == b"\n\r\n")
}
