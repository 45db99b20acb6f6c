//! The core: sessions, dispatch and forwarding of one shard as one deterministic state machine.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Shard::begin_turn`] with the time;
//! 2. [`Shard::handle_accept_at`], [`Shard::handle_receive`], [`Shard::handle_receive_end`],
//!    [`Shard::handle_sent`] and [`Shard::handle_socket_closed`] for what the sockets did;
//! 3. [`Shard::run`], which reads mail, runs futures and lets deadlines pass;
//! 4. [`Shard::poll_transmit`], for a while at least, [`Shard::poll_command`] and
//!    [`Shard::poll_bell`], each until it gives nothing more;
//! 5. [`Shard::end_turn`] with the time again; then it waits for the next completion, for no longer
//!    than [`Shard::next_deadline_us`] allows.
//!
//! It is made of five parts. Each owns its fields and the part below it, uses that, and is unknown
//! to it; what a part leads to above itself it leaves there to be taken:
//!
//! | part | what it does |
//! |---|---|
//! | [`Inbound`](inbound::Inbound) | accepts connections; bytes, frames, packages, handshakes |
//! | [`Dispatcher`](dispatcher::Dispatcher) | messages to filters, handlers and workers; answers |
//! | [`Forwarder`](forwarder::Forwarder) | lanes, mail, the directory of uids |
//! | [`Outbound`](outbound::Outbound) | packages, answers and pushes into outboxes; closing |
//! | [`Connections`](connections::Connections) | connections, their input, memory, deadlines |

mod clock;
mod config;
mod connections;
mod dispatcher;
mod drain_plan;
mod forwarder;
mod inbound;
mod listener_config;
mod outbound;
#[cfg(feature = "internals")]
mod probe;
mod rate;
mod shell;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) use config::{
    Changing, CheckClient, Heartbeat, KeptAliveBy, ShardConfig, Subscribers, measured_routes,
};
#[cfg(feature = "internals")]
pub(crate) use connections::Connection;
pub(crate) use drain_plan::DrainPlan;
pub use listener_config::Dialect;
pub(crate) use listener_config::{ListenerConfig, ListenerIndex};
#[cfg(feature = "internals")]
pub use probe::{SessionProbe, ShardProbe, Stage};
pub(crate) use shell::{Command, ReceiveEnd, SendEnd, SocketIndex, Transmit};

use connections::CloseReason;
use inbound::Inbound;

#[cfg(feature = "testing")]
use crate::dispatch::Session;
use crate::dispatch::handler_thread::HandlerThread as _;
use crate::forward::mail::Mail;
use crate::forward::{Hub, Party};
use crate::limits::turn::MAILS_PER_PARTY;
use crate::metrics::Counters;
use crate::session::{Segment, SessionId, ShardIndex, Slot};

/// One shard: the order of its turns.
pub(crate) struct Shard {
    /// The uppermost of its parts.
    inbound: Inbound,
    counters: Arc<Counters>,
    /// Memory for the slots whose deadlines have passed; empty between turns.
    due: Vec<Slot>,
    /// Memory for how much mail each worker had sent when the turn's reading began.
    waiting: Vec<usize>,
    /// The next turn follows at once.
    has_more: bool,
}

impl Shard {
    /// A shard, with the handlers that the embedder registers on its thread.
    pub(crate) fn new(config: Arc<ShardConfig>, index: ShardIndex, hub: &Arc<Hub>) -> Self {
        let mut shard = Self {
            inbound: Inbound::new(&config, index, hub),
            counters: Arc::clone(&config.counters[index.index()]),
            due: Vec::new(),
            waiting: Vec::new(),
            has_more: false,
        };
        shard.inbound.dispatcher.settle();
        shard
    }

    /// Begins a turn at the given time.
    pub(crate) fn begin_turn(&mut self, now_us: u64) {
        self.inbound.dispatcher.begin_turn(now_us);
    }

    /// Ends the turn: what it has answered is now with the sockets.
    pub(crate) fn end_turn(&mut self, now_us: u64) {
        let lag_us = now_us.saturating_sub(self.inbound.connections().now_us());
        self.inbound.dispatcher.end_turn(lag_us);
    }

    /// A connection has been accepted. `None` turns it away: the shell closes the socket.
    pub(crate) fn handle_accept_at(
        &mut self,
        listener: ListenerIndex,
        socket: SocketIndex,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        self.inbound.handle_accept(listener, socket, peer)
    }

    /// A client has sent bytes. They are unmasked in place, so the buffer is changed.
    pub(crate) fn handle_receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.inbound.handle_receive(session, input);
        self.inbound.dispatcher.settle();
    }

    /// The client's stream has ended.
    pub(crate) fn handle_receive_end(&mut self, session: SessionId, end: ReceiveEnd) {
        self.inbound.outbound().handle_receive_end(session, end);
        self.inbound.dispatcher.settle();
    }

    /// A segment from [`Self::poll_transmit`] is done with.
    pub(crate) fn handle_sent(&mut self, session: SessionId, segment: Segment, end: SendEnd) {
        self.inbound.outbound().handle_sent(session, segment, end);
        self.inbound.dispatcher.settle();
    }

    /// The shell has closed the socket; nothing of the connection is under way any more.
    pub(crate) fn handle_socket_closed(&mut self, session: SessionId) {
        if self.inbound.connections().get(session).is_none() {
            return;
        }
        // Also when the shell closes on its own account.
        self.inbound.connections().end(session.slot(), CloseReason::Peer);
        self.inbound.dispatcher.settle();
        self.inbound.outbound().remove(session);
        let has_forgotten = self.inbound.dispatcher.has_forgotten(session);
        debug_assert!(has_forgotten, "{session:?} has left something behind");
    }

    /// Does what waits for its part of a turn, such as bodies to inflate. True if that took time.
    ///
    /// It stands between what the last turn has sent and what has come since, so that no answer
    /// waits for more than one part.
    pub(crate) fn do_work(&mut self) -> bool {
        let has_waited = self.inbound.dispatcher.do_work();
        if has_waited {
            self.inbound.dispatcher.settle();
        }
        has_waited
    }

    /// Reads mail, runs futures, lets deadlines pass. Whether there is more to do at once.
    pub(crate) fn run(&mut self) -> bool {
        self.inbound.dispatcher.handle_time();
        self.receive_mail();
        self.inbound.dispatcher.forwarder.send_waiting();
        self.inbound.dispatcher.settle();
        self.inbound.read_held();
        self.inbound.dispatcher.run_tasks();
        self.inbound.dispatcher.expire_forwards();
        self.expire_connections();
        self.inbound.outbound().expire_outboxes();
        self.inbound.dispatcher.settle();
        self.inbound.dispatcher.end_work();
        self.inbound.finish_handshakes();
        let has_held = self.inbound.connections().budgets().has_ready();
        let has_work = self.inbound.dispatcher.has_work_waiting();
        self.has_more = self.has_work() || has_held || has_work;
        self.inbound.connections().pool().give_back() || self.has_more
    }

    /// Reads mail in an order that keeps causes before their effects: what a worker says after it
    /// has heard that its push was delivered is read after the push, which another shard sent.
    fn receive_mail(&mut self) {
        for _ in 0..MAILS_PER_PARTY {
            let mail = self.inbound.dispatcher.forwarder.endpoint().receive_from_host();
            let Some(mail) = mail else { break };
            self.handle_mail(mail);
        }
        let endpoint = self.inbound.dispatcher.forwarder.endpoint();
        let (shards, parties) = (endpoint.hub().shards(), endpoint.hub().parties());
        // What is in a worker's lane now has its causes in the shards' lanes already.
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        waiting.extend((shards..parties).map(|from| endpoint.waiting(Party(from))));
        for from in (0..shards).map(Party) {
            // All that is there now, however much comes in meanwhile.
            for _ in 0..self.inbound.dispatcher.forwarder.endpoint().waiting(from) {
                let mail = self.inbound.dispatcher.forwarder.endpoint().receive(from);
                let Some(mail) = mail else { break };
                self.handle_mail(mail);
            }
        }
        for (from, waiting) in (shards..).map(Party).zip(&waiting) {
            let mut messages = 0;
            for _ in 0..*waiting {
                if messages >= MAILS_PER_PARTY {
                    break;
                }
                let mail = self.inbound.dispatcher.forwarder.endpoint().receive(from);
                let Some(mail) = mail else { break };
                messages += mail.messages();
                let taken = self.inbound.connections().budgets().long_answer_bytes();
                self.handle_mail(mail);
                if self.inbound.connections().budgets().has_answered_enough_since(taken) {
                    break;
                }
            }
        }
        self.waiting = waiting;
    }

    fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Hosts(hosts) => self.inbound.denied_hosts = hosts,
            Mail::ClientRules(rules) => self.inbound.client_rules = rules,
            Mail::Maintenance(maintenance) => self.inbound.maintenance = maintenance,
            #[cfg(feature = "tls")]
            Mail::Certificate { listener, config } => {
                self.inbound.outbound().tls().set_config(listener, config);
            }
            mail => self.inbound.dispatcher.handle_mail(mail),
        }
        self.inbound.dispatcher.settle();
    }

    fn expire_connections(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.inbound.connections().take_due(&mut due);
        for slot in due.drain(..) {
            self.inbound.outbound().handle_deadline(slot);
            self.inbound.dispatcher.settle();
        }
        self.due = due;
    }

    /// The next buffer to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.inbound.outbound().poll_transmit(self.has_more);
        if transmit.is_none() {
            self.inbound.dispatcher.settle();
        }
        transmit
    }

    /// True if [`Self::poll_transmit`] may have more: the shell may leave that for the next turn.
    pub(crate) fn has_transmits(&self) -> bool {
        self.inbound.dispatcher.forwarder.outbound.has_transmits()
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.inbound.connections().poll_command()
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.inbound.dispatcher.forwarder.endpoint().poll_bell()
    }

    /// True if something came in that [`Self::run`] has not seen. To be asked again once the
    /// doorbell is armed.
    pub(crate) fn has_work(&self) -> bool {
        let dispatcher = &self.inbound.dispatcher;
        // A session may have ended while its output was taken.
        dispatcher.forwarder.has_work() || dispatcher.has_ready() || dispatcher.is_unsettled()
    }

    /// The time at which the shell has to run again at the latest, even if nothing happens; `None`
    /// where the bound of its own sleep is soon enough.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let dispatcher = &self.inbound.dispatcher;
        let deadlines = [dispatcher.next_timer_us(), dispatcher.forwarder.next_deadline_us()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes the steps of a drain that are due. To be called in each turn of one, behind
    /// [`Self::run`]; from the first call on nobody is accepted any more.
    ///
    /// Sessions are closed as the plan spreads them, those that are bound to no uid first. One that
    /// waits for an answer is closed behind it, until the notice; then all others are, too.
    pub(crate) fn drain(&mut self, plan: DrainPlan) {
        self.inbound.outbound().drain(plan);
        self.inbound.dispatcher.settle();
    }

    /// Runs the hooks of a shutdown: once, when all connections have ended.
    pub(crate) fn begin_shutdown(&mut self) {
        self.inbound.dispatcher.begin_shutdown();
        self.inbound.dispatcher.settle();
    }

    /// Futures that a drain waits for.
    pub(crate) fn tasks_owed(&self) -> usize {
        self.inbound.dispatcher.tasks_owed()
    }

    /// True if mail waits for room in the lane to another party.
    pub(crate) fn has_backlog(&mut self) -> bool {
        self.inbound.dispatcher.forwarder.endpoint().has_backlog()
    }

    /// True if more clients connect than a turn has steps of handshakes for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.inbound.dispatcher.forwarder.outbound.connections.budgets().is_crowded()
    }

    /// Messages of all sessions so far, and pushes to them.
    pub(crate) fn messages_handled(&self) -> u64 {
        let counters = &self.counters;
        let messages = [&counters.requests, &counters.notifies, &counters.pushes];
        messages.iter().map(|counter| counter.value()).sum()
    }

    /// Connections that were turned away so far, at once or for what a proxy has told of them.
    pub(crate) fn connections_refused(&self) -> u64 {
        let counters = &self.counters;
        let refused = [
            &counters.refused_host,
            &counters.refused_accept_rate,
            &counters.refused_max_connections,
            &counters.refused_proxy,
            &counters.bad_proxy,
        ];
        refused.iter().map(|counter| counter.value()).sum()
    }

    /// The messages that the last turn has forwarded to workers.
    pub(crate) fn forwarded(&self) -> usize {
        self.inbound.dispatcher.forwarder.forwarded()
    }

    /// Futures alive on this shard; while there are any, the shell lets the runtime run too.
    pub(crate) fn tasks_alive(&self) -> usize {
        self.inbound.dispatcher.tasks_alive()
    }

    pub(crate) fn connections_open(&self) -> usize {
        self.inbound.dispatcher.forwarder.outbound.connections.len()
    }

    /// Shows the thread that it runs on.
    pub(crate) fn set_thread(&self, thread: rustix::thread::Pid) {
        let connections = &self.inbound.dispatcher.forwarder.outbound.connections;
        connections.figures().set_thread(thread.as_raw_nonzero().get());
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// For the kit that tests an embedder's code.
#[cfg(feature = "testing")]
impl Shard {
    /// A session as handlers see it.
    pub(crate) fn session(&mut self, session: SessionId) -> Option<Session> {
        self.inbound.dispatcher.session(session)
    }

    /// True if messages wait for room in a lane.
    pub(crate) fn waits_for_lane(&self) -> bool {
        !self.inbound.dispatcher.forwarder.lane_waits().is_empty()
    }
}

/// For code that runs a shard by itself.
#[cfg(any(test, feature = "internals"))]
impl Shard {
    /// A connection has been accepted by the first listener.
    pub(crate) fn handle_accept(
        &mut self,
        socket: SocketIndex,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        self.handle_accept_at(ListenerIndex(0), socket, peer)
    }
}
