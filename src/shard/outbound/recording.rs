//! Sessions that are recorded: their bytes, on their way in and out, through a [`Tap`] each.
//!
//! A recorded session has a layer of its own, which every receive and every send looks at anyway;
//! what is here is reached by that alone, and by who connects or logs in while a recording waits.
//! A shard is told of recordings by mail, so it asks nobody.

use std::net::IpAddr;
use std::sync::Arc;

use super::Outbound;
use super::recordings::Taps;
use crate::record::{Direction, News, RECORDINGS_MAX, Recording, Tap, Target};
use crate::session::{Segment, SessionId, Slot, Uid};
use crate::shard::connections::{State, Transport};

impl Outbound {
    /// Records a session from here on.
    #[cold]
    pub(in crate::shard) fn record(&mut self, session: SessionId, recording: Arc<Recording>) {
        self.record_from(session, recording, false);
    }

    /// Records a session from here on, or from behind the request for its WebSocket, which is being
    /// handled.
    fn record_from(&mut self, session: SessionId, recording: Arc<Recording>, is_upgrading: bool) {
        self.drop_recordings_over();
        if self.recordings.has(session) {
            self.end_recording(session, "another has begun");
        }
        let (at_us, edition) = (self.unix_us(), self.edition_of(session));
        let Some((_, connection)) = self.connections.find(session) else {
            return recording.end("the session was gone");
        };
        let layer = connection.layer.recorded().filter(|_| connection.state.is_reading());
        let Some(layer) = layer else {
            return recording.end("the session was not open");
        };
        connection.layer = layer;
        let is_websocket = connection.transport == Transport::WebSocket;
        let (is_input_framed, options) = (is_websocket || is_upgrading, &recording.options);
        let input = Tap::new(Direction::FromClient, is_input_framed, options);
        let output = Tap::new(Direction::ToClient, is_websocket, options);
        let mut taps = Taps::new(recording, input, output);
        // What has come before and is not read yet.
        let cuts = &mut self.recordings.cuts;
        if let Some(message) = &connection.message {
            taps.input.feed_packages(&message.payload, cuts);
        }
        if let Some(partial) = &connection.partial {
            taps.input.feed(&partial.buffer, cuts);
        }
        if let Some(held) = self.connections.budgets().held(session) {
            taps.input.feed_packages(&held.packages, cuts);
            taps.input.feed(&held.bytes[held.at.min(held.bytes.len())..], cuts);
        }
        let edition = edition.and_then(|edition| self.editions.get(edition));
        self.recordings.insert(session, taps);
        self.recordings.write(session, Direction::FromClient, edition, at_us);
    }

    /// Has a recording wait for the next session that it wants.
    #[cold]
    pub(in crate::shard) fn record_next(&mut self, recording: Arc<Recording>) {
        let now_us = self.unix_us();
        let waiting = &mut self.recordings.waiting;
        waiting.retain(|it| it.is_waiting(now_us));
        // No more than there are in all.
        if waiting.len() < RECORDINGS_MAX {
            waiting.push(recording);
        }
    }

    /// Records a session that has just connected, if a recording waits for its address.
    #[inline]
    pub(in crate::shard) fn record_peer(&mut self, session: SessionId) {
        if !self.recordings.waiting.is_empty() {
            self.record_if(session, |target, peer| *target == Target::Peer(peer));
        }
    }

    /// Records a session that has just logged in, if a recording waits for its uid.
    #[inline]
    pub(in crate::shard) fn record_login(&mut self, session: SessionId, uid: &Uid) {
        if !self.recordings.waiting.is_empty() {
            self.record_if(session, |target, _| match target {
                Target::Uid(wanted) => wanted == uid.text(),
                _ => false,
            });
        }
    }

    #[cold]
    fn record_if(&mut self, session: SessionId, is_wanted: impl Fn(&Target, IpAddr) -> bool) {
        let Some(connection) = self.connections.get(session) else { return };
        if connection.layer.recorded().is_none() {
            return;
        }
        let (is_upgrading, peer) = (connection.state == State::Http, connection.peer.ip());
        let now_us = self.unix_us();
        self.recordings.waiting.retain(|it| it.is_waiting(now_us));
        // Another shard may have begun it a moment ago.
        let is_mine = |it: &&Arc<Recording>| is_wanted(&it.target, peer) && it.begin();
        let found = self.recordings.waiting.iter().find(is_mine).cloned();
        let Some(recording) = found else { return };
        let info = self.connections.info(session, connection);
        self.recordings.put(&recording, News::Session(Box::new(info)));
        self.record_from(session, recording, is_upgrading);
    }

    /// Records no more of a session.
    #[cold]
    pub(in crate::shard) fn stop_recording(&mut self, session: SessionId) {
        self.end_recording(session, "stopped");
    }

    /// Records bytes that a client has sent.
    #[cold]
    pub(in crate::shard) fn record_input(&mut self, session: SessionId, bytes: &[u8]) {
        if self.connections.is_reading(session.slot()) {
            self.record_bytes(session, Direction::FromClient, bytes);
        }
    }

    /// The next segment to send to a recorded session.
    #[cold]
    pub(super) fn take_recorded(&mut self, slot: Slot) -> Option<Segment> {
        let (connection, pool) = self.connections.at_with_pool(slot)?;
        let segment = connection.outbox.take(pool)?;
        self.record_output(slot, segment.as_slice());
        Some(segment)
    }

    /// Records bytes that are sent to a client.
    #[cold]
    pub(super) fn record_output(&mut self, slot: Slot, bytes: &[u8]) {
        self.record_bytes(self.connections.id_of(slot), Direction::ToClient, bytes);
    }

    fn record_bytes(&mut self, session: SessionId, direction: Direction, bytes: &[u8]) {
        let (at_us, edition) = (self.unix_us(), self.edition_of(session));
        let edition = edition.and_then(|edition| self.editions.get(edition));
        if !self.recordings.note(session, direction, bytes, edition, at_us) {
            self.end_recording(session, "its time is over");
        }
    }

    fn edition_of(&self, session: SessionId) -> Option<crate::route::edition::EditionId> {
        self.connections.get(session).map(|connection| connection.session.edition)
    }

    /// Ends the recordings of sessions that are silent, and whose time is over.
    fn drop_recordings_over(&mut self) {
        for session in self.recordings.over(self.unix_us()) {
            self.end_recording(session, "its time is over");
        }
    }

    fn end_recording(&mut self, session: SessionId, reason: &'static str) {
        if self.recordings.end(session, reason, &self.connections)
            && let Some(connection) = self.connections.get_mut(session)
        {
            connection.layer = connection.layer.unrecorded();
        }
    }

    /// Microseconds since 1970, of this turn.
    fn unix_us(&self) -> u64 {
        self.config.started_unix_ms.saturating_mul(1000) + self.connections.now_us()
    }
}
