//! The connections of a shard: what each has sent that is not read yet, what is kept for it, and
//! how it ends.
//!
//! This is the lowest part of a [`Shard`](super::Shard). It changes nothing but connections. What
//! others have to hear of a session's end is left in [`Connections::take_ended`].

mod budgets;
#[cfg(feature = "admin")]
mod closed;
#[cfg(feature = "admin")]
mod closed_sessions;
mod connection;
mod end;
mod ended;
mod handshake_steps;
mod held;
mod held_input;
mod in_flight;
mod long_answers;
mod memory;
#[cfg(feature = "admin")]
mod page;
mod read_order;
mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use connection::Connection;
pub(in crate::shard) use connection::{
    CloseReason, FragmentedMessage, Layer, Listed, Partial, State, Transport,
};
pub(in crate::shard) use ended::Ended;
pub(in crate::shard) use held_input::{HeldInput, Pause};
pub(in crate::shard) use memory::UNCOUNTED_BYTES;
pub(in crate::shard) use session::Binding;

use budgets::ReadBudgets;
#[cfg(feature = "admin")]
use closed_sessions::ClosedSessions;
use memory::Memory;

use super::clock::Clock;
use super::config::ShardConfig;
use super::listener_config::{Dialect, ListenerConfig};
use super::shell::Command;
use crate::metrics::{Counters, ShardFigures};
use crate::session::{BufferPool, SessionId, ShardIndex, Slot, Table};
use crate::wheel::Wheel;

/// The connections of one shard, with their input, their memory and their deadlines.
pub(super) struct Connections {
    config: Arc<ShardConfig>,
    counters: Arc<Counters>,
    /// The shard's figures besides its counters.
    figures: Arc<ShardFigures>,
    /// The shard that the ids of sessions name.
    index: ShardIndex,
    clock: Clock,
    table: Table<Connection>,
    /// A deadline of each connection that has one, on the patient clock.
    wheel: Wheel,
    pool: BufferPool,
    memory: Memory,
    /// The copies kept of a message in flight: two where global filters see it again.
    copies: usize,
    budgets: ReadBudgets,
    /// Requests to the shell, in order.
    commands: VecDeque<Command>,
    /// Sessions of whose end nobody was told yet.
    ended: VecDeque<Ended>,
    #[cfg(feature = "admin")]
    closed: ClosedSessions,
}

impl Connections {
    /// No connections yet. `copies` is how often a message in flight is kept.
    pub(super) fn new(config: &Arc<ShardConfig>, index: ShardIndex, copies: usize) -> Self {
        let limits = &config.limits;
        let len_max = limits.connections_per_shard_max as usize;
        let (types, listeners) = (config.server_types.len(), config.listeners.len());
        let (workers, routes) = (config.counters.len(), config.measured_routes.as_ref());
        let figures = ShardFigures::new(types, listeners, workers, routes);
        config.figures.add_shard(index.index(), &figures);
        Self {
            index,
            clock: Clock::default(),
            table: Table::with_capacity(len_max),
            wheel: Wheel::with_capacity(len_max),
            pool: BufferPool::default(),
            memory: Memory::new(limits.shard_bytes_max),
            copies,
            budgets: ReadBudgets::new(limits),
            commands: VecDeque::new(),
            ended: VecDeque::new(),
            #[cfg(feature = "admin")]
            closed: ClosedSessions::default(),
            counters: Arc::clone(&config.counters[index.index()]),
            figures,
            config: Arc::clone(config),
        }
    }

    pub(super) fn begin_turn(&mut self, now_us: u64) {
        self.clock.advance(now_us);
        self.budgets.begin_turn(self.clock.patient_ms());
        self.pool.begin_turn(self.clock.patient_ms());
    }

    /// Takes in an accepted connection; `None` where there is no room for one more.
    pub(super) fn accept(&mut self, connection: Connection) -> Option<SessionId> {
        // Only connections that are admitted are counted, unlike in the original, which locks
        // itself out (docs/protocol/differences.md, "Exhaustion", B6).
        let open = self.config.connections.fetch_add(1, Ordering::Relaxed);
        let listener = usize::from(connection.listener.0);
        let entry = (open < self.config.limits.connections_max)
            .then(|| self.table.insert(connection))
            .flatten();
        let Some((slot, generation)) = entry else {
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
            self.counters.refused_max_connections.one();
            crate::log::seldom!(warn, open, "too many connections; some are turned away");
            return None;
        };
        self.counters.connections_accepted.one();
        #[cfg(feature = "admin")]
        self.closed.note_opened(slot, self.clock.now_us());
        self.figures.connections[listener].one();
        self.wheel.set(slot, self.clock.patient_ms() + self.config.handshake_timeout_ms());
        Some(SessionId::new(self.index, slot, generation))
    }

    /// Removes a connection that has ended and whose socket is closed.
    pub(super) fn remove(&mut self, session: SessionId) {
        self.wheel.clear(session.slot());
        if let Some(connection) = self.table.remove(session.slot()) {
            debug_assert!(!connection.outbox.is_in_flight());
            self.memory.remove(connection.io_bytes as usize);
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
            self.counters.connections_closed.one();
            self.figures.connections[usize::from(connection.listener.0)].one_less();
        }
    }

    /// True if nothing is kept by the id of a session that is gone.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        self.budgets.has_forgotten(session) && !self.wheel.is_set(session.slot())
    }

    /// The connection of a session, unless it is gone or another shard's.
    pub(super) fn find(&mut self, session: SessionId) -> Option<(Slot, &mut Connection)> {
        if session.shard() != self.index {
            return None;
        }
        let slot = session.slot();
        Some((slot, self.table.get_mut(slot, session.generation())?))
    }

    /// The connection of a session of this shard, unless it is gone.
    #[inline]
    pub(super) fn get(&self, session: SessionId) -> Option<&Connection> {
        self.table.get(session.slot(), session.generation())
    }

    #[inline]
    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Connection> {
        self.table.get_mut(session.slot(), session.generation())
    }

    #[inline]
    pub(super) fn at(&self, slot: Slot) -> Option<&Connection> {
        self.table.at(slot)
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.table.at_mut(slot)
    }

    /// The connection in a slot, and the pool that its outbox takes buffers from.
    #[inline]
    pub(super) fn at_with_pool(
        &mut self,
        slot: Slot,
    ) -> Option<(&mut Connection, &mut BufferPool)> {
        Some((self.table.at_mut(slot)?, &mut self.pool))
    }

    /// The connection of a session, and the pool that its outbox takes buffers from.
    #[inline]
    pub(super) fn get_with_pool(
        &mut self,
        session: SessionId,
    ) -> Option<(&mut Connection, &mut BufferPool)> {
        let connection = self.table.get_mut(session.slot(), session.generation())?;
        Some((connection, &mut self.pool))
    }

    #[inline]
    pub(super) fn id_of(&self, slot: Slot) -> SessionId {
        SessionId::new(self.index, slot, self.table.generation(slot))
    }

    /// The slots of all connections.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.table.slots()
    }

    /// Slots so far, taken or free.
    pub(super) fn slots_len(&self) -> usize {
        self.table.slots_len()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    #[cfg(feature = "internals")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &Connection)> {
        let id = |slot, generation| SessionId::new(self.index, slot, generation);
        self.table.iter().map(move |(slot, generation, it)| (id(slot, generation), it))
    }

    /// True if what the client in a slot sends still counts.
    #[inline]
    pub(super) fn is_reading(&self, slot: Slot) -> bool {
        self.at(slot).is_some_and(|connection| connection.state.is_reading())
    }

    /// The configuration of the listener that the client in a slot came in by.
    #[inline]
    pub(super) fn listener_of(&self, slot: Slot) -> Option<&ListenerConfig> {
        Some(self.config.listener(self.at(slot)?.listener))
    }

    /// True if a client speaks Pitaya's dialect, in any state.
    #[inline]
    pub(super) fn is_pitaya(&self, slot: Slot) -> bool {
        self.listener_of(slot).is_some_and(|listener| listener.dialect == Dialect::Pitaya)
    }

    #[inline]
    pub(super) fn index(&self) -> ShardIndex {
        self.index
    }

    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// The time that deadlines of clients are compared with, in milliseconds.
    #[inline]
    pub(super) fn patient_ms(&self) -> u64 {
        self.clock.patient_ms()
    }

    /// Sets the deadline of the connection in a slot.
    pub(super) fn set_deadline(&mut self, slot: Slot, deadline_ms: u64) {
        self.wheel.set(slot, deadline_ms);
    }

    /// Takes the slots whose deadlines have passed.
    pub(super) fn take_due(&mut self, due: &mut Vec<Slot>) {
        self.wheel.advance(self.clock.patient_ms(), due);
    }

    #[cfg(feature = "internals")]
    pub(super) fn deadlines(&self) -> usize {
        self.wheel.len()
    }

    #[inline]
    pub(super) fn pool(&mut self) -> &mut BufferPool {
        &mut self.pool
    }

    #[inline]
    pub(super) fn budgets(&self) -> &ReadBudgets {
        &self.budgets
    }

    #[inline]
    pub(super) fn budgets_mut(&mut self) -> &mut ReadBudgets {
        &mut self.budgets
    }

    pub(super) fn figures(&self) -> &Arc<ShardFigures> {
        &self.figures
    }

    /// Shows what is kept of sessions.
    pub(super) fn show(&self) {
        self.figures.held_bytes.set(self.budgets.held_bytes() as u64);
        self.figures.kept_bytes.set(self.memory.kept() as u64);
    }

    /// The bytes left of `shard_bytes_max`.
    #[inline]
    pub(super) fn bytes_left(&self) -> usize {
        self.memory.left()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn kept_bytes(&self) -> usize {
        self.memory.kept()
    }

    pub(super) fn command(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    pub(super) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}
