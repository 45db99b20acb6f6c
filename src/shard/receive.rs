//! Bytes into packages, in place wherever they are whole.

use std::sync::atomic::Ordering;

use super::Shard;
use super::close::CloseCode;
use super::connection::{CloseReason, FragmentedMessage, Layer, Partial, State, Transport};
use super::dialect::Dialect;
use super::memory::UNCOUNTED_BYTES;
use crate::session::{SessionId, Slot};
use crate::wire::http::{self, UpgradeStatus};
use crate::wire::package::{self, HEADER_BYTES, PackageError, Status};
use crate::wire::sniff::{Sniff, sniff};
use crate::wire::websocket::{
    self, CLOSE_PROTOCOL_ERROR, Fragments, FrameError, FrameHeader, HeaderStatus, Opcode,
};

/// How far a piece of input was read.
struct Progress {
    consumed: usize,
    /// The length that what is left has to grow to before it is worth a look.
    needed: usize,
    /// The session's share of the turn is used up; what is left was not looked at.
    is_spent: bool,
}

impl Shard {
    /// A client has sent bytes. They are unmasked in place, so the buffer is changed.
    pub(crate) fn handle_receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.counters.bytes_in.add(input.len() as u64);
        let Some((_, connection)) = self.find(session) else { return };
        match connection.layer {
            Layer::Plain => self.handle_bytes(session, input),
            _ => self.handle_layered(session, input),
        }
    }

    /// Bytes of the client itself.
    #[inline]
    pub(super) fn handle_bytes(&mut self, session: SessionId, mut input: &mut [u8]) {
        let keeps_alive = self.config.heartbeat.is_none();
        let now_ms = self.clock.patient_ms;
        let slot = session.slot();
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if keeps_alive && connection.state.is_working() {
            connection.heard_ms = now_ms;
        }
        let mut partial = connection.partial.take();
        if !self.budgets.begin(session) && self.hold_bytes(session, input) {
            // What is held stands behind what has been begun.
            if let Some(connection) = self.connections.at_mut(slot) {
                connection.partial = partial;
            }
            return;
        }
        let (len, left) = (input.len(), self.budgets.left);
        while !input.is_empty() && self.is_reading(slot) {
            let Some(mut kept) = partial.take() else {
                let progress = self.read_share(session, input);
                let rest = &input[progress.consumed..];
                if !rest.is_empty() && self.is_reading(slot) {
                    let mut buffer = self.pool.take();
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
                self.pool.give(kept.buffer);
            } else {
                kept.buffer.drain(..progress.consumed);
                kept.needed = progress.needed;
                partial = Some(kept);
            }
            if progress.is_spent && self.hold_bytes(session, input) {
                break;
            }
        }
        self.budgets.end(session, len, left);
        self.keep_partial(slot, partial);
    }

    /// Keeps what has come of an element that is not whole, for as long as its client is read.
    #[inline]
    fn keep_partial(&mut self, slot: Slot, partial: Option<Box<Partial>>) {
        match self.connections.at_mut(slot) {
            Some(connection) if connection.state.is_reading() => {
                let is_counted = connection.io_bytes > 0
                    || partial.as_ref().is_some_and(|it| it.buffer.len() > UNCOUNTED_BYTES / 2)
                    || connection.message.is_some();
                connection.partial = partial;
                if is_counted {
                    self.recount(slot);
                }
            }
            _ => {
                if let Some(partial) = partial {
                    self.pool.give(partial.buffer);
                }
            }
        }
    }

    fn is_reading(&self, slot: Slot) -> bool {
        self.connections.at(slot).is_some_and(|connection| connection.state.is_reading())
    }

    /// Whether a head may have come to its end with what follows on the bytes that were seen. So
    /// what drips in is not looked at from its start for each byte.
    fn may_end(&self, slot: Slot, head: &[u8], seen: usize) -> bool {
        let state = self.connections.at(slot).map(|connection| connection.state);
        state != Some(State::Http)
            || head.len() >= self.config.limits.http_head_bytes_max
            || ends_head(&head[seen.saturating_sub(2)..])
    }

    /// Whether the length of what is being read shows only at its end.
    fn is_head(&self, slot: Slot) -> bool {
        let state = self.connections.at(slot).map(|connection| connection.state);
        matches!(state, Some(State::Sniff | State::Http))
    }

    /// Reads all that is whole, as far as the session's share of the turn goes; the rest is held.
    fn read_share(&mut self, session: SessionId, input: &mut [u8]) -> Progress {
        let mut progress = self.read(session, input);
        while progress.is_spent {
            let consumed = progress.consumed;
            if self.hold_bytes(session, &input[consumed..]) {
                return Progress { consumed: input.len(), ..progress };
            }
            self.budgets.extend();
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
            if self.budgets.left == 0 {
                return Progress { consumed, needed: 0, is_spent: true };
            }
            let Some(connection) = self.connections.at(slot) else { break };
            if connection.state == State::Working(Dialect::Pomelo) {
                let run = self.handle_fast(session, &mut input[consumed..]);
                consumed += run.consumed;
                if run.is_interrupted || self.budgets.left == 0 {
                    continue;
                }
            }
            self.budgets.left -= 1;
            let rest = &mut input[consumed..];
            let Some(connection) = self.connections.at(slot) else { break };
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
        if !input.is_empty() && !self.budgets.may_take_handshake_step() {
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
            self.budgets.took_handshake_step(consumed);
            self.budgets.has_strayed |=
                self.connections.at(slot).is_some_and(|connection| connection.state == state);
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
        let number = self.config.session_numbers.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.state = state;
            connection.number = number;
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
        let Some(connection) = self.connections.at_mut(slot) else {
            return Status::Partial { needed: 0 };
        };
        match decoded {
            Ok(UpgradeStatus::Partial) => Status::Partial { needed: input.len() + 1 },
            Ok(UpgradeStatus::Complete { upgrade, consumed }) => {
                http::encode_accept(&upgrade, connection.outbox.open(&mut self.pool));
                connection.transport = Transport::WebSocket;
                connection.state = State::Inited;
                self.mark_dirty(slot);
                Status::Complete { value: (), consumed }
            }
            Err(error) => {
                let out = connection.outbox.open(&mut self.pool);
                out.extend_from_slice(error.response());
                self.counters.refused_http.one();
                self.close(slot, CloseReason::Refused, CloseCode::None);
                Status::Complete { value: (), consumed: input.len() }
            }
        }
    }

    fn body_bytes_max(&self, slot: Slot) -> usize {
        let state = self.connections.at(slot).map(|connection| connection.state);
        match state {
            Some(State::Working(_)) => self.config.limits.package_bytes_max,
            _ => self.config.limits.handshake_package_bytes_max,
        }
    }

    #[inline]
    fn read_package(
        &mut self,
        session: SessionId,
        input: &[u8],
        body_bytes_max: usize,
    ) -> Status<()> {
        match package::decode(input, body_bytes_max) {
            Ok(Status::Complete { value, consumed }) => {
                self.handle_package(session, value);
                Status::Complete { value: (), consumed }
            }
            Ok(Status::Partial { needed }) => Status::Partial { needed },
            Err(error) => {
                self.bad_package(session.slot(), error);
                Status::Complete { value: (), consumed: input.len() }
            }
        }
    }

    fn bad_package(&mut self, slot: Slot, error: PackageError) {
        match error {
            PackageError::TooLong { .. } => self.counters.package_too_long.one(),
            _ => self.counters.bad_package_type.one(),
        }
        self.protocol_error(slot, CloseCode::Normal);
    }

    /// Reads one frame, once all of it is there.
    fn read_frame(&mut self, session: SessionId, input: &mut [u8]) -> Status<()> {
        let slot = session.slot();
        let payload_max = 2 * (HEADER_BYTES + self.body_bytes_max(slot));
        let header = match websocket::decode_header(input, payload_max) {
            Ok(HeaderStatus::Complete(header)) => header,
            // Looked at with each byte, so that what is wrong shows at the byte that proves it.
            Ok(HeaderStatus::Partial { .. }) => return Status::Partial { needed: input.len() + 1 },
            Err(error) => return self.bad_frame(slot, error, input.len()),
        };
        let end = header.header_len + header.payload_len;
        // What its message comes to with it shows before its payload is kept.
        let missing = end.saturating_sub(input.len());
        let fragments = match self.fragments_with(slot, &header, payload_max, missing) {
            Ok(fragments) => fragments,
            Err(error) => return self.bad_frame(slot, error, input.len()),
        };
        let Some(payload) = input.get_mut(header.header_len..end) else {
            return Status::Partial { needed: end };
        };
        websocket::unmask(payload, header.mask, 0);
        match self.handle_frame(session, &header, fragments, payload) {
            Ok(()) => Status::Complete { value: (), consumed: end },
            Err(error) => self.bad_frame(slot, error, input.len()),
        }
    }

    pub(super) fn bad_frame(
        &mut self,
        slot: Slot,
        error: FrameError,
        consumed: usize,
    ) -> Status<()> {
        match error {
            FrameError::TooLong { .. } => self.counters.package_too_long.one(),
            _ => self.counters.bad_websocket.one(),
        }
        self.protocol_error(slot, CloseCode::Error(error.close_code()));
        Status::Complete { value: (), consumed }
    }

    fn handle_frame(
        &mut self,
        session: SessionId,
        header: &FrameHeader,
        fragments: Fragments,
        payload: &[u8],
    ) -> Result<(), FrameError> {
        let slot = session.slot();
        let Some(connection) = self.connections.at_mut(slot) else { return Ok(()) };
        match header.opcode {
            Opcode::Ping => {
                websocket::encode_pong(payload, connection.outbox.open(&mut self.pool));
                self.queued(slot);
                self.answered(slot);
                return Ok(());
            }
            Opcode::Pong => return Ok(()),
            Opcode::Close => {
                // The code comes back to the client, as RFC 6455 section 5.5.1 has it.
                let code = websocket::decode_close(payload)?;
                let code = code.map_or(CloseCode::Normal, CloseCode::Error);
                self.close(slot, CloseReason::Peer, code);
                return Ok(());
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        let Some(mut message) = connection.message.take() else {
            if header.fin {
                return self.handle_websocket_message(session, header.opcode, payload);
            }
            let payload = payload.to_vec();
            connection.message = Some(Box::new(FragmentedMessage { fragments, payload }));
            return Ok(());
        };
        let opcode = message.fragments.open().unwrap_or(header.opcode);
        message.fragments = fragments;
        make_room(&mut message.payload, payload.len(), fragments.message_bytes_max());
        message.payload.extend_from_slice(payload);
        if header.fin {
            let handled = self.handle_websocket_message(session, opcode, &message.payload);
            self.pool.give(message.payload);
            return handled;
        }
        connection.message = Some(message);
        Ok(())
    }

    /// Where a message stands with a frame whose header has come, if the frame may follow.
    ///
    /// Room that the message does not fill yet goes where the frame, of which some bytes are yet to
    /// come, is kept beside it, so that both take no more than the longest message. Of a message
    /// that long this happens a few times at most, as each time less is left of it.
    fn fragments_with(
        &mut self,
        slot: Slot,
        header: &FrameHeader,
        message_max: usize,
        missing: usize,
    ) -> Result<Fragments, FrameError> {
        let message = self.connections.at_mut(slot).and_then(|it| it.message.as_mut());
        let before = message.as_ref().map(|message| message.fragments);
        let mut fragments = before.unwrap_or_else(|| Fragments::new(message_max));
        fragments.on_frame(header)?;
        if missing > 0
            && let Some(message) = message
        {
            let bytes_max = fragments.message_bytes_max();
            message.payload.shrink_to(bytes_max.saturating_sub(header.payload_len));
        }
        Ok(fragments)
    }

    /// A WebSocket message holds one package, or several, which no stock client sends and which
    /// does no harm (docs/protocol/differences.md, "Compatibility", C1), as long as there are no
    /// more than a turn may bring. A package that is not whole is an error: the original pads it
    /// with zeros.
    pub(super) fn handle_websocket_message(
        &mut self,
        session: SessionId,
        opcode: Opcode,
        mut payload: &[u8],
    ) -> Result<(), FrameError> {
        let slot = session.slot();
        if opcode == Opcode::Text {
            websocket::check_text(payload)?;
            if payload.is_empty() {
                return Ok(());
            }
        }
        let mut packages = 0;
        while (packages == 0 || !payload.is_empty()) && self.is_reading(slot) {
            packages += 1;
            if packages > self.budgets.messages_max() {
                self.counters.bad_websocket_message.one();
                self.protocol_error(slot, CloseCode::Error(CLOSE_PROTOCOL_ERROR));
                break;
            }
            match package::decode(payload, self.body_bytes_max(slot)) {
                Ok(Status::Complete { value, consumed }) => {
                    self.handle_package(session, value);
                    payload = &payload[consumed..];
                    if !payload.is_empty() && self.hold_packages(session, payload) {
                        break;
                    }
                }
                Ok(Status::Partial { .. }) => {
                    self.counters.bad_websocket_message.one();
                    self.protocol_error(slot, CloseCode::Error(CLOSE_PROTOCOL_ERROR));
                }
                Err(error) => self.bad_package(slot, error),
            }
        }
        Ok(())
    }
}

/// Makes room for more of something that takes so many bytes in all. A header that promises much
/// gets no more than twice of what has come, and what is long no more than it takes.
fn make_room(buffer: &mut Vec<u8>, more: usize, needed: usize) {
    let len = buffer.len() + more;
    if len > buffer.capacity() {
        let room = needed.min(2 * buffer.capacity()).max(len);
        buffer.reserve_exact(room - buffer.len());
    }
}

/// Whether there is an empty line, whatever ends the lines.
fn ends_head(input: &[u8]) -> bool {
    input.windows(2).any(|pair| pair == b"\n\n") || input.windows(3).any(|w| w == b"\n\r\n")
}
