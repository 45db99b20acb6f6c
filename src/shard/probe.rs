//! The view of a shard that a simulation has.

use super::Shard;
use super::connections::{Connection, State};
use crate::forward::Party;
use crate::session::SessionId;

/// Sizes of everything that a shard keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // For the crate's own tests.
pub struct ShardProbe {
    /// Connections that are open.
    pub connections: usize,
    /// Deadlines on the wheel.
    pub deadlines: usize,
    /// Forwarded requests that wait.
    pub calls: usize,
    /// Spans of forwarded requests that wait.
    pub spans: usize,
    /// Questions to other shards that wait.
    pub asks: usize,
    /// Futures alive.
    pub tasks: usize,
    /// Sleeps under way.
    pub timers: usize,
    /// Mails that wait for room in a lane.
    pub backlog: usize,
    /// Messages that wait for room in a lane, their sessions paused.
    pub lane_waits: usize,
    /// Bytes of sessions that are read in later turns.
    pub held_bytes: usize,
    /// Bytes that count against `shard_bytes_max`.
    pub kept_bytes: usize,
    /// Uids whose home this is.
    pub uids: usize,
    /// Entries of the connection service.
    pub logins: usize,
}

/// One session.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs)] // For the crate's own tests.
pub struct SessionProbe {
    /// Its id.
    pub id: SessionId,
    /// The progress of its connection.
    pub stage: Stage,
    /// Bytes that wait for the client.
    pub outbox_bytes: usize,
    /// Bytes kept until the rest of a package, frame or head comes.
    pub partial_bytes: usize,
    /// Bytes of a WebSocket message whose last fragment has not come.
    pub message_bytes: usize,
    /// Requests that wait for an answer.
    pub in_flight: usize,
    /// The bytes of it that count against `shard_bytes_max`.
    pub kept_bytes: usize,
    /// Bytes of its messages that wait for an answer.
    pub in_flight_bytes: usize,
    /// True if something that it has sent is held for a later turn.
    pub is_held: bool,
    /// The uid it is bound to.
    pub uid: Option<String>,
}

/// The progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums)] // For the crate's own tests.
pub enum Stage {
    /// Before the handshake is acknowledged.
    Opening,
    /// It sends and gets messages.
    Working,
    /// The output queued before its end is being sent.
    Closing,
    /// All is sent; the client has yet to close.
    Lingering,
    /// The shell closes it.
    Dead,
}

impl Shard {
    pub(crate) fn probe(&self) -> ShardProbe {
        let dispatcher = &self.inbound.dispatcher;
        let forwarder = &dispatcher.forwarder;
        let connections = &forwarder.outbound.connections;
        ShardProbe {
            connections: connections.len(),
            deadlines: connections.deadlines(),
            calls: forwarder.pending_len(),
            spans: forwarder.spans_open(),
            asks: forwarder.asks_len(),
            tasks: dispatcher.tasks_alive(),
            timers: dispatcher.timers_len(),
            backlog: forwarder.endpoint_ref().outgoing_len_sum(),
            lane_waits: forwarder.lane_waits().len(),
            held_bytes: connections.budgets().held_bytes(),
            kept_bytes: connections.kept_bytes(),
            uids: forwarder.directory().len(),
            logins: forwarder.logins().len(),
        }
    }

    pub(crate) fn session_probes(&self) -> impl Iterator<Item = SessionProbe> {
        let connections = &self.inbound.dispatcher.forwarder.outbound.connections;
        connections.iter().map(|(id, connection)| {
            let is_held = connections.budgets().is_held(id);
            SessionProbe::new(id, connection, is_held)
        })
    }

    pub(crate) fn outgoing_len(&self, to: Party) -> usize {
        self.inbound.dispatcher.forwarder.endpoint_ref().outgoing_len(to)
    }

    pub(crate) fn incoming_len(&self, from: Party) -> usize {
        self.inbound.dispatcher.forwarder.endpoint_ref().incoming_len(from)
    }

    pub(crate) fn directory_entry(&self, uid: &str) -> Vec<SessionId> {
        self.inbound.dispatcher.forwarder.directory().get(uid).to_vec()
    }
}

impl SessionProbe {
    fn new(id: SessionId, connection: &Connection, is_held: bool) -> Self {
        let stage = match connection.state {
            State::Sniff | State::Http | State::Inited | State::WaitAck => Stage::Opening,
            State::Working(_) => Stage::Working,
            State::Closing => Stage::Closing,
            State::Lingering => Stage::Lingering,
            State::Dead => Stage::Dead,
        };
        Self {
            id,
            stage,
            outbox_bytes: connection.outbox.bytes(),
            partial_bytes: connection.partial.as_ref().map_or(0, |partial| partial.buffer.len()),
            message_bytes: connection.message.as_ref().map_or(0, |message| message.payload.len()),
            in_flight: usize::from(connection.session.in_flight),
            kept_bytes: connection.kept_bytes(),
            in_flight_bytes: connection.session.in_flight_bytes as usize,
            is_held,
            uid: connection.uid().map(|uid| uid.text().to_owned()),
        }
    }
}
