//! Bytes of clients through TLS.

use super::Inbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::CloseReason;
use crate::shard::outbound::CloseCode;
use crate::shard::shell::ReceiveEnd;
use crate::tls::TlsRead;

impl Inbound {
    /// Reads bytes of a connection with TLS.
    pub(super) fn handle_tls_bytes<const IS_RECORDED: bool>(
        &mut self,
        session: SessionId,
        slot: Slot,
        input: &mut [u8],
    ) {
        let Some(connection) = self.connections().at(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let listener = connection.listener;
        let mut plain = self.connections().pool().take();
        let Some(stream) = self.outbound().tls().open(session, listener) else {
            crate::log::seldom!(error, "a listener's TLS can't be used");
            self.connections().pool().give(plain);
            return self.connections().cut(slot, CloseReason::Refused);
        };
        let outcome = stream.read(input, &mut plain);
        if stream.has_output() {
            self.outbound().mark_dirty(slot);
        }
        if !plain.is_empty() {
            #[cfg(feature = "admin")]
            if IS_RECORDED {
                self.outbound().record_input(session, &plain);
            }
            self.handle_bytes(session, &mut plain);
        }
        self.connections().pool().give(plain);
        match outcome {
            Ok(TlsRead::Open) => {}
            Ok(TlsRead::Established { is_resumed }) => {
                self.counters.tls_handshakes.one();
                self.counters.tls_resumptions.add(u64::from(is_resumed));
            }
            Ok(TlsRead::PeerClosed) => {
                self.outbound().handle_receive_end(session, ReceiveEnd::Eof);
            }
            Err(error) => {
                tracing::debug!(session = ?session, %error, "TLS has failed");
                self.counters.bad_tls.one();
                // Nothing but the alert can be sealed any more.
                if let Some((connection, pool)) = self.connections().at_with_pool(slot) {
                    connection.outbox.clear(pool);
                }
                self.outbound().close(slot, CloseReason::Refused, CloseCode::None);
            }
        }
    }
}
