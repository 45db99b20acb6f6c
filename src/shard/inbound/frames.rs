//! Packages and WebSocket frames, where they are whole.

use super::Inbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, FragmentedMessage, State};
use crate::shard::outbound::CloseCode;
use crate::wire::package::{self, HEADER_BYTES, PackageError, Status};
use crate::wire::websocket::{
    self, CLOSE_PROTOCOL_ERROR, Fragments, FrameError, FrameHeader, HeaderStatus, Opcode,
};

impl Inbound {
    fn body_bytes_max(&mut self, slot: Slot) -> usize {
        let state = self.connections().at(slot).map(|connection| connection.state);
        match state {
            Some(State::Working(_)) => self.config.limits.package_bytes_max,
            _ => self.config.limits.handshake_package_bytes_max,
        }
    }

    #[inline]
    pub(super) fn read_package(
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
        self.outbound().protocol_error(slot, CloseCode::Normal);
    }

    /// Reads one frame, once all of it is there.
    pub(super) fn read_frame(&mut self, session: SessionId, input: &mut [u8]) -> Status<()> {
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
        self.outbound().protocol_error(slot, CloseCode::Error(error.close_code()));
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
        let connections = &mut self.dispatcher.forwarder.outbound.connections;
        let Some((connection, pool)) = connections.at_with_pool(slot) else { return Ok(()) };
        match header.opcode {
            Opcode::Ping => {
                websocket::encode_pong(payload, connection.outbox.open(pool));
                self.outbound().queued(slot);
                self.outbound().answered(slot);
                return Ok(());
            }
            Opcode::Pong => return Ok(()),
            Opcode::Close => {
                // The code comes back to the client, as RFC 6455 section 5.5.1 has it.
                let code = websocket::decode_close(payload)?;
                let code = code.map_or(CloseCode::Normal, CloseCode::Error);
                self.outbound().close(slot, CloseReason::Peer, code);
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
            self.connections().pool().give(message.payload);
            return handled;
        }
        connection.message = Some(message);
        Ok(())
    }

    /// The state of a message with a frame whose header has come, if the frame may follow.
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
        let message = self.connections().at_mut(slot).and_then(|it| it.message.as_mut());
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
        while (packages == 0 || !payload.is_empty()) && self.connections().is_reading(slot) {
            packages += 1;
            if packages > self.connections().budgets_mut().messages_max() {
                self.counters.bad_websocket_message.one();
                self.outbound().protocol_error(slot, CloseCode::Error(CLOSE_PROTOCOL_ERROR));
                break;
            }
            match package::decode(payload, self.body_bytes_max(slot)) {
                Ok(Status::Complete { value, consumed }) => {
                    self.handle_package(session, value);
                    payload = &payload[consumed..];
                    if !payload.is_empty() && self.connections().hold_packages(session, payload) {
                        break;
                    }
                }
                Ok(Status::Partial { .. }) => {
                    self.counters.bad_websocket_message.one();
                    self.outbound().protocol_error(slot, CloseCode::Error(CLOSE_PROTOCOL_ERROR));
                }
                Err(error) => self.bad_package(slot, error),
            }
        }
        Ok(())
    }
}

/// Makes room for more of something that takes so many bytes in all. A header that promises much
/// gets no more than twice of what has come, and what is long no more than it takes.
pub(super) fn make_room(buffer: &mut Vec<u8>, more: usize, needed: usize) {
    let len = buffer.len() + more;
    if len > buffer.capacity() {
        let room = needed.min(2 * buffer.capacity()).max(len);
        buffer.reserve_exact(room - buffer.len());
    }
}
