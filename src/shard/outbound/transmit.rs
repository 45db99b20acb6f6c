//! Outboxes to the shell, and back once they are sent.

use super::Outbound;
use crate::limits::turn::LONG_ANSWER_BYTES;
#[cfg(any(feature = "admin", feature = "tls"))]
use crate::session::Slot;
use crate::session::{Segment, SessionId};
use crate::shard::connections::{CloseReason, Layer, Listed, State};
use crate::shard::shell::{SendEnd, Transmit};

/// Bytes of the longest segment that a socket is believed to take at once.
const LAST_BYTES_MAX: usize = 64 * 1024;

impl Outbound {
    /// The next buffer to send. `is_turn_next` tells that another turn follows at once.
    ///
    /// A session that waits for more answers is left for the next turn, once, if that follows at
    /// once: a worker answers requests in the order they came, so the rest of what the client
    /// has pipelined is on its way, and goes into the same send.
    pub(in crate::shard) fn poll_transmit(&mut self, is_turn_next: bool) -> Option<Transmit> {
        loop {
            let (session, listed) = self.queue.next()?;
            let slot = session.slot();
            let Some(connection) = self.connections.get_mut(session) else { continue };
            let waits = connection.session.in_flight > 0 && connection.listed == Listed::Dirty;
            if is_turn_next && waits {
                self.queue.defer(session, connection);
                continue;
            }
            let is_long = connection.outbox.bytes() > LONG_ANSWER_BYTES;
            connection.listed = match connection.listed {
                Listed::Both => listed,
                Listed::Dirty | Listed::Deferred if is_long => {
                    self.queue.put_behind(session, connection);
                    continue;
                }
                _ => Listed::Not,
            };
            if is_long && connection.listed != Listed::Not {
                continue;
            }
            self.connections.recount_output(slot);
            let is_calm = self.pauses.is_empty() && !self.is_draining();
            let Some((connection, pool)) = self.connections.at_with_pool(slot) else { continue };
            if connection.outbox.is_in_flight() || connection.state == State::Dead {
                continue;
            }
            let socket = connection.socket;
            let is_working = matches!(connection.state, State::Working(_));
            let (segment, is_empty) = match connection.layer {
                Layer::Plain | Layer::Proxy => {
                    (connection.outbox.take(pool), !connection.outbox.is_waiting())
                }
                #[cfg(any(feature = "admin", feature = "tls"))]
                _ => (self.take_layered(slot), false),
            };
            let is_last = is_working && is_empty && is_calm;
            if let Some(segment) = segment {
                let is_last = is_last && segment.as_slice().len() <= LAST_BYTES_MAX;
                let sending = &self.connections.figures().outbox_bytes;
                sending.add(segment.as_slice().len() as u64);
                return Some(Transmit { session, socket, segment, is_last });
            }
        }
    }

    /// The next segment of a connection on which something stands below the client's own bytes.
    #[cfg(any(feature = "admin", feature = "tls"))]
    #[inline(never)]
    fn take_layered(&mut self, slot: Slot) -> Option<Segment> {
        match self.connections.at(slot)?.layer {
            Layer::Plain | Layer::Proxy => {
                let (connection, pool) = self.connections.at_with_pool(slot)?;
                connection.outbox.take(pool)
            }
            #[cfg(feature = "tls")]
            Layer::Tls => self.take_sealed::<false>(slot),
            #[cfg(feature = "admin")]
            Layer::Recorded => self.take_recorded(slot),
            #[cfg(all(feature = "admin", feature = "tls"))]
            Layer::RecordedTls => self.take_sealed::<true>(slot),
        }
    }

    /// True if [`Self::poll_transmit`] may have more: the shell may leave that for the next turn.
    pub(in crate::shard) fn has_transmits(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes back a segment from [`Self::poll_transmit`] that is done with.
    pub(in crate::shard) fn handle_sent(
        &mut self,
        session: SessionId,
        segment: Segment,
        end: SendEnd,
    ) {
        let bytes = segment.as_slice().len();
        let sending = &self.connections.figures().outbox_bytes;
        sending.set(sending.value().saturating_sub(bytes as u64));
        let slot = session.slot();
        let Some((connection, pool)) = self.connections.get_with_pool(session) else { return };
        connection.outbox.finish(segment, pool);
        let is_counted = connection.io_bytes > 0;
        if end == SendEnd::Error {
            return self.connections.cut(slot, CloseReason::Peer);
        }
        self.counters.bytes_out.add(bytes as u64);
        connection.traffic.sent_bytes += bytes as u64;
        let state = connection.state;
        #[cfg(feature = "tls")]
        let layer = connection.layer;
        let is_waiting = connection.outbox.is_waiting();
        if !self.pauses.is_empty() {
            self.resume_for_outbox(session, bytes);
        }
        if is_counted {
            self.connections.recount(slot);
        }
        #[cfg(feature = "tls")]
        let is_waiting = is_waiting || self.has_tls_output(session, layer);
        if is_waiting {
            self.mark_dirty(slot);
        } else if state == State::Closing {
            self.finish_writing(slot);
        }
    }
}
