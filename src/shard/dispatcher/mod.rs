//! Messages to handlers and workers, and answers back: Pomelo's `globalHandle`
//! (docs/protocol/sessions.md, "Life of a message").
//!
//! The fourth part of a [`Shard`](super::Shard), above its [`Forwarder`]. Handlers and filters
//! can't touch the shard, they can only ask: what they ask for is done in [`Dispatcher::settle`].

mod admissions;
mod admit;
mod answers;
mod completed;
mod forward;
mod inflate;
mod mail;
mod messages;
mod ops;
mod pitaya;
mod plan;
mod prepare;
mod run;
#[cfg(feature = "crypto")]
mod signed;
mod turn;
mod work;
mod work_waits;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

#[cfg(feature = "crypto")]
use rustc_hash::FxHashMap;

use admissions::Admissions;
use completed::Completed;
use plan::{Plan, RecentRoutes};
use work::Work;

use super::config::ShardConfig;
use super::connections::Connections;
use super::forwarder::{Forwarder, copies};
use super::outbound::Outbound;
use super::rate::{MessageRate, Rate};
#[cfg(feature = "testing")]
use crate::dispatch::Session;
use crate::dispatch::context::ThreadState;
use crate::dispatch::handler_thread::HandlerThread as _;
use crate::dispatch::tasks::Tasks;
use crate::dispatch::{Handlers, Registry};
use crate::forward::{Hub, Party};
use crate::metrics::{Counters, RouteAnswers, RouteLatencies, ShardFigures};
use crate::session::{SessionId, ShardIndex};
#[cfg(feature = "crypto")]
use crate::wire::signature::PublicKey;

/// The handlers, filters and futures of one shard.
pub(super) struct Dispatcher {
    pub(super) forwarder: Forwarder,
    config: Arc<ShardConfig>,
    counters: Arc<Counters>,
    /// The state that handlers, filters and futures share with this shard.
    thread: Rc<ThreadState>,
    registry: Rc<Registry>,
    /// The plan for each known route.
    plans: Vec<Plan>,
    recent_routes: RecentRoutes,
    tasks: Tasks,
    /// Messages that filters, futures or lanes are done with, and that are yet to go on.
    completed: VecDeque<Completed>,
    /// The keys of clients, where requests are signed.
    #[cfg(feature = "crypto")]
    keys: FxHashMap<SessionId, PublicKey>,
    admissions: Admissions,
    work: Work,
    /// There where it is bounded.
    message_rate: Option<MessageRate>,
    /// Memory for JSON that is made of protobuf.
    scratch: Vec<u8>,
    figures: Arc<ShardFigures>,
    /// Requests answered in the turn they came in.
    answers_this_turn: u64,
    /// The same by route, where that is measured.
    route_answers: Option<RouteAnswers>,
    /// The time of a turn above which it is told of.
    turn_warning_us: u64,
    /// The time from which figures that are sums are shown again.
    show_us: u64,
}

/// The time between two looks at figures that have to be summed up.
const SHOW_EVERY_US: u64 = 100_000;

impl Dispatcher {
    /// A dispatcher with the handlers that the embedder registers on this thread.
    pub(super) fn new(config: &Arc<ShardConfig>, index: ShardIndex, hub: &Arc<Hub>) -> Self {
        let limits = &config.limits;
        let id = || Arc::clone(&config.server_id);
        let counters = Arc::clone(&config.counters[index.index()]);
        let (routes, edition) = (Arc::clone(&config.routes), config.edition());
        let thread =
            ThreadState::new(id(), id(), routes, Arc::clone(&edition), Arc::clone(&counters));
        thread.post.set(hub.post(&config.server_types)).ok();
        if let Some(host) = config.host() {
            thread.host.set(host).ok();
        }
        let bell = Arc::clone(hub.bell(Party::from(index)));
        let (own, mistakes) = (&config.server_type, &config.mistakes);
        let registry = Handlers::collect(&thread, own, &config.registers, mistakes);
        registry.check_of_shard(own, mistakes);
        plan::check_schemas(config, &edition, &registry);
        let plans = plan::plans(config, &registry, |route| edition.schemas().has_any(route));
        let copies = copies(!registry.global_filters.is_empty());
        let connections = Connections::new(config, index, copies);
        let outbound = Outbound::new(connections, config);
        let figures = Arc::clone(outbound.connections.figures());
        Self {
            route_answers: figures.routes.as_ref().map(RouteLatencies::no_answers),
            figures,
            forwarder: Forwarder::new(outbound, config, hub, &thread.last_call),
            thread,
            registry,
            plans,
            recent_routes: RecentRoutes::default(),
            tasks: Tasks::new(limits.tasks_max, bell, Arc::clone(&counters)),
            completed: VecDeque::new(),
            #[cfg(feature = "crypto")]
            keys: FxHashMap::default(),
            admissions: Admissions::default(),
            work: Work::new(limits),
            message_rate: Rate::new(limits.messages_per_second, limits.messages_burst)
                .map(MessageRate::new),
            scratch: Vec::new(),
            answers_this_turn: 0,
            turn_warning_us: limits.turn_warning_us(),
            show_us: 0,
            counters,
            config: Arc::clone(config),
        }
    }

    #[inline]
    pub(super) fn outbound(&mut self) -> &mut Outbound {
        &mut self.forwarder.outbound
    }

    #[inline]
    pub(super) fn connections(&mut self) -> &mut Connections {
        &mut self.forwarder.outbound.connections
    }

    pub(super) fn begin_turn(&mut self, now_us: u64) {
        self.connections().begin_turn(now_us);
        self.outbound().begin_turn();
        self.forwarder.begin_turn();
        let now_us = self.forwarder.outbound.connections.now_us();
        self.thread.last_call.begin_turn(now_us);
        self.thread.now_us.set(now_us);
    }

    /// Ends the sleeps that are due, and sends what has waited for room.
    pub(super) fn handle_time(&mut self) {
        let now_us = self.connections().now_us();
        self.thread.handle_time(now_us);
        self.run_ticks();
        self.forwarder.endpoint().flush();
    }

    /// Ends what a turn does after its reading.
    pub(super) fn end_work(&mut self) {
        self.work.end_turn();
    }

    /// Ends a turn that has taken so long.
    pub(super) fn end_turn(&mut self, lag_us: u64) {
        self.thread.lag_us.set(lag_us);
        if lag_us > self.turn_warning_us {
            self.tell_long_turn(lag_us);
        }
        let answers = std::mem::take(&mut self.answers_this_turn);
        if answers > 0 {
            self.figures.local.record(lag_us, answers);
            if let (Some(routes), Some(answers)) = (&self.figures.routes, &mut self.route_answers) {
                routes.record_turn(answers, lag_us);
            }
        }
        self.figures.turns.record(lag_us, 1);
        let now_us = self.forwarder.outbound.connections.now_us();
        if now_us >= self.show_us {
            self.show_us = now_us + SHOW_EVERY_US;
            self.forwarder.show();
        }
    }

    /// Begins a session, with a full bucket of messages.
    pub(super) fn begin_session(&mut self, session: SessionId) {
        if let Some(message_rate) = &mut self.message_rate {
            message_rate.begin(session.slot());
        }
    }

    /// Keeps the key of a client whose requests are signed.
    #[cfg(feature = "crypto")]
    pub(super) fn keep_key(&mut self, session: SessionId, key: PublicKey) {
        self.keys.insert(session, key);
    }

    /// A session as handlers see it.
    #[cfg(feature = "testing")]
    pub(super) fn session(&mut self, session: SessionId) -> Option<Session> {
        let thread = Rc::clone(&self.thread);
        let data = self.connections().get_mut(session)?.data().clone();
        Some(Session::new(session, data, thread))
    }

    /// True if nothing is kept by the id of a session that is gone.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        #[cfg(feature = "crypto")]
        if self.keys.contains_key(&session) {
            return false;
        }
        self.admissions.has_forgotten(session) && self.forwarder.has_forgotten(session)
    }

    /// Futures alive on this shard.
    pub(super) fn tasks_alive(&self) -> usize {
        self.tasks.len()
    }

    /// Futures that a drain waits for.
    pub(super) fn tasks_owed(&self) -> usize {
        self.tasks.owed()
    }

    /// True if a future has something to do.
    pub(super) fn has_ready(&self) -> bool {
        self.tasks.has_ready()
    }

    /// True if messages wait for work that the next turn can do.
    pub(super) fn has_work_waiting(&self) -> bool {
        self.work.has_more()
    }

    /// The time at which a sleep ends, or a tick is due.
    pub(super) fn next_timer_us(&self) -> Option<u64> {
        let timers = [self.thread.next_timer_us(), self.registry.ticks.next_us()];
        timers.into_iter().flatten().min()
    }

    #[cfg(feature = "internals")]
    pub(super) fn timers_len(&self) -> usize {
        self.thread.timers_len()
    }

    /// Bytes of memory for a large body.
    #[cfg(test)]
    pub(super) fn work_bytes(&self) -> usize {
        self.work.large_plain.capacity()
    }

    /// Messages that wait for work.
    #[cfg(test)]
    pub(super) fn work_waits(&self) -> usize {
        self.work.len()
    }
}
