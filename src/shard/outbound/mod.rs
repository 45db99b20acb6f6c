//! Output to clients: packages, answers and pushes into outboxes, outboxes to the shell, and
//! how sessions are closed behind what is queued for them.
//!
//! The second part of a [`Shard`](super::Shard), above its [`Connections`].

mod beats;
mod close;
mod compressor;
mod deadlines;
mod drain;
mod draining;
mod editions;
mod kick;
mod outbox_pauses;
mod package;
mod pitaya;
#[cfg(feature = "admin")]
mod recording;
#[cfg(feature = "admin")]
mod recordings;
mod send;
mod send_queue;
mod slow;
#[cfg(feature = "tls")]
mod tls_output;
#[cfg(feature = "tls")]
mod tls_streams;
mod transmit;
mod wide_ids;

use std::sync::Arc;

use rustc_hash::FxHashMap;

pub(in crate::shard) use close::CloseCode;
pub(in crate::shard) use wide_ids::{NAMES_FIRST, rename, wide_id};

use beats::Beats;
use compressor::Compressor;
use draining::Draining;
use editions::Editions;
use outbox_pauses::{OutboxPauses, Sweep};
#[cfg(feature = "admin")]
use recordings::Recordings;
use send_queue::SendQueue;
#[cfg(feature = "tls")]
use tls_streams::TlsStreams;
use wide_ids::WideIds;

use super::config::ShardConfig;
use super::connections::{CloseReason, Connection, Connections};
use crate::limits::turn::ANSWER_BYTES_PER_TURN;
use crate::metrics::Counters;
use crate::route::edition::{Edition, EditionId};
use crate::route::table::RouteId;
use crate::session::{BufferPool, SessionId, Slot};

/// The outboxes of one shard's sessions.
pub(super) struct Outbound {
    pub(super) connections: Connections,
    config: Arc<ShardConfig>,
    counters: Arc<Counters>,
    editions: Editions,
    queue: SendQueue,
    /// Sessions that are not read because they do not read their answers.
    pauses: OutboxPauses,
    sweep: Sweep,
    compressor: Compressor,
    wide_ids: WideIds,
    /// Heartbeats that were due for clients of Pitaya's.
    beats: FxHashMap<SessionId, Beats>,
    #[cfg(feature = "tls")]
    tls: TlsStreams,
    draining: Draining,
    #[cfg(feature = "admin")]
    recordings: Recordings,
}

/// A connection that is being read, and the parts beside it that its answers need.
pub(super) struct SessionIo<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) pool: &'a mut BufferPool,
    /// The dictionary and schemas that the session was told of.
    pub(super) edition: Option<&'a Edition>,
    /// The bytes in the outbox.
    pub(super) outbox_bytes: usize,
    /// Those above which an answer pauses the session, or is the turn's last.
    pub(super) outbox_bytes_max: usize,
}

impl Outbound {
    pub(super) fn new(connections: Connections, config: &Arc<ShardConfig>) -> Self {
        Self {
            editions: Editions::new(config.edition()),
            queue: SendQueue::default(),
            pauses: OutboxPauses::new(&config.limits),
            sweep: Sweep::default(),
            compressor: Compressor::default(),
            wide_ids: WideIds::default(),
            beats: FxHashMap::default(),
            #[cfg(feature = "tls")]
            tls: TlsStreams::new(&config.listeners),
            draining: Draining::default(),
            #[cfg(feature = "admin")]
            recordings: Recordings::default(),
            counters: Arc::clone(&config.counters[connections.index().index()]),
            config: Arc::clone(config),
            connections,
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.queue.begin_turn();
        self.compressor.begin_turn();
        #[cfg(feature = "admin")]
        self.recordings.begin_turn();
    }

    /// Forgets what is kept by the id of a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.pauses.forget(session);
        self.wide_ids.forget(session);
        self.beats.remove(&session);
        self.draining.forget(session);
    }

    /// True if nothing is kept by the id of a session that is gone.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        self.pauses.has_forgotten(session)
            && self.wide_ids.has_forgotten(session)
            && !self.beats.contains_key(&session)
            && self.draining.has_forgotten(session)
            && self.connections.has_forgotten(session)
    }

    /// Removes a connection whose socket is closed.
    pub(super) fn remove(&mut self, session: SessionId) {
        #[cfg(feature = "tls")]
        self.tls.remove(session);
        #[cfg(feature = "admin")]
        self.recordings.remove(session, &self.connections);
        self.connections.remove(session);
        debug_assert!(self.has_forgotten(session), "{session:?} has left something behind");
    }

    /// The connection in a slot, with what its answers are written to.
    #[inline]
    pub(super) fn session_io(&mut self, slot: Slot) -> Option<SessionIo<'_>> {
        let (connection, pool) = self.connections.at_with_pool(slot)?;
        let edition = self.editions.get(connection.session.edition);
        let outbox_bytes = connection.outbox.bytes();
        let outbox_bytes_max = self.pauses.pause_bytes().min(outbox_bytes + ANSWER_BYTES_PER_TURN);
        Some(SessionIo { connection, pool, edition, outbox_bytes, outbox_bytes_max })
    }

    #[inline]
    pub(super) fn edition(&self, id: EditionId) -> Option<&Edition> {
        self.editions.get(id)
    }

    /// True if a route has a schema in the edition of any session.
    pub(super) fn has_schema(&self, route: RouteId) -> bool {
        self.editions.iter().any(|edition| edition.schemas().has_any(route))
    }

    pub(super) fn newest_edition(&self) -> &Arc<Edition> {
        self.editions.newest()
    }

    /// Takes a newer edition. Sessions that were told of another one keep that.
    pub(super) fn add_edition(&mut self, edition: Arc<Edition>) {
        let mut used = Vec::new();
        for slot in self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            let (state, known) = (connection.state, connection.session.edition);
            if !state.knows_edition() {
                continue;
            }
            // Ids come again after a long time, and then mean something else.
            if known == edition.id() {
                self.connections.cut(slot, CloseReason::Protocol);
            } else if !used.contains(&known) {
                used.push(known);
            }
        }
        self.editions.add(edition, &used);
    }

    pub(super) fn wide_ids(&mut self) -> &mut WideIds {
        &mut self.wide_ids
    }

    #[cfg(test)]
    pub(super) fn has_no_pauses(&self) -> bool {
        self.pauses.is_empty()
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(&mut self) -> &mut TlsStreams {
        &mut self.tls
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.draining.has_begun()
    }
}
