//! One worker: the thread behind a server of a forwarded type.
//!
//! As the shard, it is a state machine without I/O: [`Worker::run`] reads the lanes, calls
//! handlers and puts their answers and wishes into the lanes back.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};

use super::asker::{self, AskCompletion, Asker, PendingAsks};
use super::hub::{Endpoint, Hub};
use super::mail::{Forward, ForwardRoute, Mail, Outcome, WorkerBody, WorkerReply};
use super::message_batch::MessageBatch;
use super::party::Party;
use super::session_futures::SessionFutures;
use crate::dispatch::chain;
use crate::dispatch::context::{BatchPart, Call, Host, Op, Origin, ThreadState};
use crate::dispatch::handler_thread::HandlerThread;
use crate::dispatch::mail::{MailQueue, Post};
use crate::dispatch::reply::{INTERNAL_ERROR, Reply, ReplyBody};
use crate::dispatch::tasks::{Tasks, tell_no_room};
use crate::dispatch::{
    Failure, FailureBodies, Handlers, Register, Registry, Request, Session, Undelivered,
};
use crate::limits::Limits;
use crate::limits::turn::{MAILS_PER_PARTY, MESSAGES_PER_SHARD};
use crate::metrics::{Counters, ForwardEnd};
use crate::route::edition::Edition;
use crate::route::registration::{Mistakes, schemas_without_handler};
use crate::route::table::RouteTable;
use crate::session::{SessionData, SessionId, SessionSnapshot, SessionView, ShardIndex, Uid};
use crate::wire::answer;

/// A worker's handlers and everything under way on it.
pub(crate) struct Worker {
    thread: Rc<ThreadState>,
    registry: Rc<Registry>,
    /// The handler of each known route.
    by_route: Vec<Option<usize>>,
    tasks: Tasks,
    session_futures: SessionFutures,
    counters: Arc<Counters>,
    failures: Arc<FailureBodies>,
    /// The time of a turn above which it is told of.
    turn_warning_us: u64,
    asks: PendingAsks<AskCompletion>,
    endpoint: Endpoint,
    /// The shards have ended, and all sessions before them.
    has_lost_shards: bool,
    mail: OwnMail,
}

/// The embedder's own messages to a worker, which end with it.
struct OwnMail(Arc<MailQueue>);

impl Drop for OwnMail {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Sizes of what a worker keeps, for a simulation.
#[cfg(feature = "internals")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // For the crate's own tests.
pub struct WorkerProbe {
    /// Questions to shards that wait.
    pub asks: usize,
    /// Futures alive.
    pub tasks: usize,
    /// Sleeps under way.
    pub timers: usize,
    /// Mails that wait for room in a lane.
    pub backlog: usize,
}

/// The settings of a worker.
pub(crate) struct WorkerConfig {
    pub(crate) server_type: Arc<str>,
    pub(crate) server_id: Arc<str>,
    pub(crate) frontend_id: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) edition: Arc<Edition>,
    pub(crate) register: Register,
    pub(crate) mistakes: Arc<Mistakes>,
    pub(crate) post: Arc<Post>,
    /// The engine's handle; none where no engine runs the worker.
    pub(crate) host: Option<Host>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) failures: Arc<FailureBodies>,
}

impl Worker {
    pub(crate) fn new(config: &WorkerConfig, hub: &Arc<Hub>, me: Party) -> Self {
        let thread = ThreadState::new(
            Arc::clone(&config.server_id),
            Arc::clone(&config.frontend_id),
            Arc::clone(&config.routes),
            Arc::clone(&config.edition),
            Arc::clone(&config.counters),
        );
        thread.post.set(Arc::clone(&config.post)).ok();
        if let Some(host) = &config.host {
            thread.host.set(Arc::clone(host)).ok();
        }
        let worker = hub.worker_of(me).expect("a worker is no shard");
        let (own, mistakes) = (&config.server_type, &config.mistakes);
        let registry = Handlers::collect(&thread, own, [&config.register], mistakes);
        registry.check_of_worker(own, mistakes);
        let has_handler = |route: &str| registry.find(route).is_some();
        let schemas = config.edition.schemas();
        schemas_without_handler(&config.routes, schemas, own, has_handler, mistakes);
        let limits = &config.limits;
        let bell = Arc::clone(hub.bell(me));
        let by_route = config.routes.iter().map(|entry| registry.find(&entry.text)).collect();
        let mut worker = Self {
            thread,
            registry,
            by_route,
            tasks: Tasks::new(limits.tasks_max, bell, Arc::clone(&config.counters)),
            session_futures: SessionFutures::new(limits),
            counters: Arc::clone(&config.counters),
            failures: Arc::clone(&config.failures),
            turn_warning_us: limits.turn_warning_us(),
            asks: PendingAsks::new(hub, me, limits.backlog_len_max),
            endpoint: Endpoint::new(Arc::clone(hub), me, limits.backlog_len_max),
            has_lost_shards: false,
            mail: OwnMail(Arc::clone(hub.mail_queue(worker))),
        };
        worker.apply_ops();
        worker
    }

    /// One turn: reads mail, runs what is ready. Whether there is more to do at once.
    pub(crate) fn run(&mut self, now_us: u64) -> bool {
        self.thread.last_call.begin_turn(now_us);
        self.thread.handle_time(now_us);
        self.run_ticks();
        if self.has_lost_shards {
            self.endpoint.discard_outgoing();
        }
        self.endpoint.flush();
        for shard in (0..self.endpoint.hub().shards()).map(Party) {
            let mut messages = 0;
            for _ in 0..self.endpoint.waiting(shard) {
                // A shard that does not take its answers gets no further messages handled.
                if messages >= MESSAGES_PER_SHARD || self.endpoint.is_backed_up(shard) {
                    break;
                }
                let Some(mail) = self.endpoint.receive(shard) else { break };
                messages += mail.messages();
                self.handle_mail(mail);
            }
        }
        if !self.mail.0.is_empty() {
            self.receive_own_mail();
        }
        self.run_tasks();
        self.has_work()
    }

    /// Hands the embedder's own messages to whoever receives them here.
    #[cold]
    fn receive_own_mail(&mut self) {
        for _ in 0..MAILS_PER_PARTY {
            let Some(mailed) = self.mail.0.take() else { break };
            let (mail, worker) = (mailed.type_name, &*self.thread.server_id);
            self.thread.last_call.note_callback(mail);
            let delivered = self.registry.deliver(mailed);
            self.thread.last_call.end();
            match delivered {
                Ok(()) => {}
                Err(Undelivered::Unknown) => {
                    self.counters.worker_mail_unhandled.one();
                    crate::log::seldom!(
                        of mail,
                        error,
                        mail,
                        worker,
                        "nobody receives this mail: register its type by `mail`"
                    );
                }
                Err(Undelivered::Panicked(panic)) => {
                    self.counters.callback_panics.one();
                    crate::log::seldom!(
                        of mail,
                        error,
                        mail,
                        worker,
                        %panic,
                        "the receiver of mail panicked"
                    );
                }
            }
            self.apply_ops();
        }
        self.count_refused_mail();
    }

    /// Counts the messages to it that its queue has had no room for.
    fn count_refused_mail(&self) {
        let refused = self.mail.0.take_refused();
        if refused > 0 {
            self.counters.worker_mail_rejects.add(refused);
            let worker = &*self.thread.server_id;
            crate::log::seldom!(
                of worker,
                warn,
                worker,
                refused,
                "too many messages of the game's own wait for a worker; some were refused"
            );
        }
    }

    /// Ends the turn, at the given time.
    pub(crate) fn end_turn(&mut self, now_us: u64) {
        let took_us = now_us.saturating_sub(self.thread.now_us.get());
        self.thread.lag_us.set(took_us);
        if took_us > self.turn_warning_us {
            self.tell_long_turn(took_us);
        }
    }

    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.endpoint.poll_bell()
    }

    /// The shards have ended. Whatever waits for one of them, or asks it for anything from here on,
    /// is answered as for sessions that are gone.
    pub(crate) fn lose_shards(&mut self) {
        if !std::mem::replace(&mut self.has_lost_shards, true) {
            self.asks.refuse_all();
        }
    }

    /// Runs the hooks of a shutdown: once, when all sessions have ended.
    pub(crate) fn begin_shutdown(&mut self) {
        HandlerThread::begin_shutdown(self);
    }

    /// True if mail of the shards is left.
    pub(crate) fn has_mail(&self) -> bool {
        self.endpoint.has_work()
    }

    /// Futures that a drain waits for.
    pub(crate) fn tasks_owed(&self) -> usize {
        self.tasks.owed()
    }

    /// True if something came in since the last turn.
    pub(crate) fn has_work(&self) -> bool {
        self.endpoint.has_work() || self.tasks.has_ready() || !self.mail.0.is_empty()
    }

    /// Futures alive on this worker.
    #[cfg(feature = "testing")]
    pub(crate) fn tasks_alive(&self) -> usize {
        self.tasks.len()
    }

    #[cfg(feature = "internals")]
    pub(crate) fn outgoing_len(&self, to: Party) -> usize {
        self.endpoint.outgoing_len(to)
    }

    #[cfg(feature = "internals")]
    pub(crate) fn incoming_len(&self, from: Party) -> usize {
        self.endpoint.incoming_len(from)
    }

    #[cfg(feature = "internals")]
    pub(crate) fn probe(&self) -> WorkerProbe {
        WorkerProbe {
            asks: self.asks.len(),
            tasks: self.tasks.len(),
            timers: self.thread.timers_len(),
            backlog: self.endpoint.outgoing_len_sum(),
        }
    }

    /// The time at which the shell has to run it again at the latest, even if nothing happens;
    /// `None` where the bound of its own sleep is soon enough.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let backlog = self.endpoint.backlog_retry_us(self.thread.now_us.get());
        let timers = [self.thread.next_timer_us(), self.registry.ticks.next_us()];
        timers.into_iter().chain([backlog]).flatten().min()
    }

    fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Batch(batch) => self.handle_batch(batch),
            Mail::Forward(forward) => self.handle_forward(forward),
            Mail::Closed { session, data } => {
                let view = SessionView { id: session, data: &data };
                self.registry.tell_closed(&self.thread, &view);
                self.apply_ops();
            }
            Mail::Result { token, outcome } => self.asks.complete(token, outcome),
            Mail::Edition(edition) => drop(self.thread.edition.replace(edition)),
            // For a forwarder whose bit is the same as this worker's.
            Mail::Login { .. } | Mail::Logout { .. } => {}
            _ => debug_assert!(false, "mail for a shard reached a worker"),
        }
    }

    fn handle_forward(&mut self, forward: Forward) {
        let Forward { token, session: id, data, route, id: request_id, mut bytes } = forward;
        let counted = bytes.len();
        let thread = Rc::clone(&self.thread);
        let (text, body) = route.split(&thread.routes, &bytes);
        let handler = match route {
            ForwardRoute::Known(route) => {
                thread.last_call.note_route(route);
                self.by_route[route.index()]
            }
            ForwardRoute::Inline { .. } => {
                thread.last_call.note_text(text);
                self.registry.find(text)
            }
        };
        let request = Request::new(text, request_id, body);
        let mut session = Session::new(id, SessionSnapshot::Worker(data), Rc::clone(&thread));
        let mut reply = Reply::error();
        chain::handle(&self.registry, handler, &request, &mut session, &mut reply);
        self.apply_ops();
        match reply.body {
            ReplyBody::Later(_) => {
                let reply = reply.into_owned();
                let origin = Origin::Shard { session: id, token, bytes: counted as u32 };
                return self.answer_later(origin, reply, handler);
            }
            ReplyBody::Borrowed(slice) if let Some(part) = part_of(&bytes, slice) => {
                // A body that is the request's own goes back without a copy.
                let failed = reply.failed;
                bytes.truncate(part.end);
                bytes.advance(part.start);
                let data = session.into_shared();
                self.mail_answer(
                    id.shard(),
                    token,
                    WorkerReply {
                        body: WorkerBody::Bytes(bytes),
                        end: ForwardEnd::of_handler(failed),
                        data,
                    },
                );
            }
            _ => self.send_answer(id.shard(), token, reply, session.into_shared()),
        }
        self.endpoint.add_handled(id.shard().into(), counted);
    }

    fn handle_batch(&mut self, batch: Box<MessageBatch>) {
        match self.thread.last_call.is_timed() {
            true => self.handle_timed_batch(batch),
            false => self.handle_messages::<false>(batch),
        }
    }

    /// The same with the time of each message, for a while behind a turn that has taken long.
    #[cold]
    fn handle_timed_batch(&mut self, batch: Box<MessageBatch>) {
        self.handle_messages::<true>(batch);
    }

    /// Handles the messages of a batch, which goes back with the answers. What a handler asks for
    /// comes behind the answers to what was before it, and ahead of its own.
    #[inline]
    fn handle_messages<const ARE_TIMED: bool>(&mut self, mut batch: Box<MessageBatch>) {
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let MessageBatch { token, session: id, is_websocket, tells_all, .. } = *batch;
        let Some([kept, data]) = batch.data.take() else { return };
        let kept = SessionSnapshot::Worker(kept);
        let mut session = Session::new(id, SessionSnapshot::Worker(data), Rc::clone(&thread));
        let messages = std::mem::take(&mut batch.messages);
        let (mut handled, mut last) = (messages.bytes(), None);
        for (index, (head, body)) in messages.iter().enumerate() {
            if !session.renew(id, &kept) {
                session = Session::new(id, kept.clone(), Rc::clone(&thread));
            }
            let request = Request::new(&thread.routes.entry(head.route).text, head.id, body);
            let mut reply = Reply::error();
            let handler = self.by_route[head.route.index()];
            last = Some(head.route);
            if ARE_TIMED {
                thread.last_call.note_route(head.route);
            }
            chain::handle(&registry, handler, &request, &mut session, &mut reply);
            let is_later = matches!(reply.body, ReplyBody::Later(_));
            let is_told = tells_all && !is_ordinary(head.id, &reply);
            if is_later || is_told || thread.has_ops() {
                self.send_answers(&mut batch);
                self.apply_ops();
            }
            if is_later || is_told {
                let (index, bytes) = (index as u8, body.len() as u32);
                let part = BatchPart { token, index, id: head.id, is_websocket, tells_all, bytes };
                let origin = Origin::Batch { session: id, part };
                if is_later {
                    handled -= body.len();
                    self.answer_later(origin, reply.into_owned(), handler);
                } else {
                    self.answer_origin(origin, reply);
                }
            } else if head.id != 0 {
                let text = reply.text(&self.failures);
                encode_answer(is_websocket, head.id, &text, &mut batch.answers);
                batch.answered |= 1 << index;
                batch.failed += u16::from(reply.failed);
            }
        }
        if let Some(last) = last {
            thread.last_call.note_run(last);
        }
        batch.messages = messages;
        self.endpoint.add_handled(id.shard().into(), handled);
        // As they came, unless a handler has changed the last one.
        batch.data = kept.into_shared().zip(session.into_shared()).map(<[_; 2]>::from);
        self.endpoint.send(id.shard().into(), Mail::Batch(batch));
    }

    /// Sends off the answers that a batch has so far.
    fn send_answers(&mut self, batch: &mut MessageBatch) {
        let answered = std::mem::take(&mut batch.answered);
        if answered != 0 {
            let (token, bytes) = (batch.token, std::mem::take(&mut batch.answers));
            let (shard, failed) = (batch.session.shard(), std::mem::take(&mut batch.failed));
            self.endpoint.send(shard.into(), Mail::Answers { token, answered, failed, bytes });
        }
    }

    /// Answers once the handler has. Its message counts for the lane until then.
    fn answer_later(&mut self, origin: Origin, reply: Reply<'static>, handler: Option<usize>) {
        let Some((session, bytes)) = counted(&origin) else { return };
        match self.session_futures.begin(session, bytes) {
            false => {
                self.counters.session_in_flight_rejects.one();
                crate::log::seldom!(
                    warn,
                    ?session,
                    "a session has too much in flight on a worker; some is refused"
                );
            }
            true if self.tasks.is_full() => {
                self.session_futures.end(session, bytes);
                tell_no_room(&self.counters, "an async handler or filter");
            }
            true => return self.spawn_answer(session, origin, reply, handler),
        }
        self.endpoint.add_handled(session.shard().into(), bytes);
        self.answer_origin(origin, Reply::failure(Failure::Busy));
    }

    fn spawn_answer(
        &mut self,
        session: SessionId,
        origin: Origin,
        reply: Reply<'static>,
        handler: Option<usize>,
    ) {
        let registry = Rc::clone(&self.registry);
        let (thread, at_end) = (Rc::clone(&self.thread), reply.at_end());
        let future = Box::pin(async move {
            let reply = chain::settle(reply, &registry, handler, session, &thread).await;
            thread.ask(Op::Answer { call: Call { origin, held: None }, reply });
        });
        let spawned = self.tasks.spawn(future, at_end);
        debug_assert!(spawned.is_ok());
        self.run_tasks();
    }

    /// An async handler has answered.
    fn finish_later(&mut self, origin: Origin, reply: Reply<'_>) {
        if let Some((session, bytes)) = counted(&origin) {
            self.session_futures.end(session, bytes);
            self.endpoint.add_handled(session.shard().into(), bytes);
        }
        self.answer_origin(origin, reply);
    }

    fn answer_origin(&mut self, origin: Origin, reply: Reply<'_>) {
        match origin {
            Origin::Shard { session, token, .. } => {
                self.send_answer(session.shard(), token, reply, None);
            }
            Origin::Batch { session, part } if part.tells_all => {
                let (token, index) = (part.token, part.index);
                let reply = WorkerReply::new(reply, None);
                self.endpoint.send(session.shard().into(), Mail::Part { token, index, reply });
            }
            Origin::Batch { session, part } if part.id != 0 => {
                let mut bytes = Vec::new();
                let text = reply.text(&self.failures);
                encode_answer(part.is_websocket, part.id, &text, &mut bytes);
                let (token, answered) = (part.token, 1 << part.index);
                let mail = Mail::Answers { token, answered, failed: reply.failed.into(), bytes };
                self.endpoint.send(session.shard().into(), mail);
            }
            // Nobody waits for the answer to a notify.
            Origin::Batch { .. } => {}
            Origin::Client(_) => debug_assert!(false, "a worker has no clients"),
        }
    }

    fn send_answer(
        &mut self,
        shard: ShardIndex,
        token: u64,
        reply: Reply<'_>,
        data: Option<Arc<SessionData>>,
    ) {
        self.mail_answer(shard, token, WorkerReply::new(reply, data));
    }

    fn mail_answer(&mut self, shard: ShardIndex, token: u64, reply: WorkerReply) {
        // Nobody waits for the answer to a notify.
        if token != 0 {
            self.endpoint.send(shard.into(), Mail::Answer { token, reply });
        }
    }
}

impl HandlerThread for Worker {
    fn thread(&self) -> &Rc<ThreadState> {
        &self.thread
    }

    fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    fn tasks_mut(&mut self) -> &mut Tasks {
        &mut self.tasks
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Session(op) if self.has_lost_shards => asker::refuse(op),
            Op::Session(op) => asker::apply(self, op),
            Op::Spawn { future, at_end } => {
                if self.tasks.spawn(future, at_end).is_err() {
                    tell_no_room(&self.counters, "a spawned future");
                }
            }
            Op::Answer { call, reply } => self.finish_later(call.origin, reply),
            Op::Admit { .. } => debug_assert!(false, "a worker has no global filters"),
            Op::Welcome { .. } => debug_assert!(false, "a worker has no handshakes"),
        }
    }
}

impl Asker for Worker {
    type Caller = AskCompletion;

    fn asks_mut(&mut self) -> &mut PendingAsks<AskCompletion> {
        &mut self.asks
    }

    fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        let Self { endpoint, counters, .. } = self;
        endpoint.try_send(to.into(), mail).inspect_err(|_| asker::tell_refused(counters))
    }

    fn outlives_shards(&self) -> bool {
        true
    }

    fn note_refused(&mut self) {
        asker::tell_refused(&self.counters);
    }

    fn handle_refused_push(&mut self, token: u64, uids: Vec<Uid>) -> Result<(), AskCompletion> {
        self.asks.complete(token, Outcome::Pushed(uids));
        Ok(())
    }
}

/// The session whose message waits for an answer, and the bytes that it counts for.
fn counted(origin: &Origin) -> Option<(SessionId, usize)> {
    match *origin {
        Origin::Shard { session, bytes, .. } => Some((session, bytes as usize)),
        Origin::Batch { session, part } => Some((session, part.bytes as usize)),
        Origin::Client(_) => None,
    }
}

/// True if nothing is to be known of a message's reply but what its client gets.
fn is_ordinary(id: u32, reply: &Reply<'_>) -> bool {
    id != 0 && !reply.failed && reply.spoken().is_some_and(answer::fits)
}

/// Lays out the answer to a message of a batch.
#[inline]
fn encode_answer(is_websocket: bool, id: u32, text: &[u8], out: &mut Vec<u8>) {
    if answer::fits(text) {
        answer::encode(is_websocket, id, text, out);
    } else {
        crate::log::seldom!(warn, bytes = text.len(), "an answer is too long for a package");
        answer::encode(is_websocket, id, INTERNAL_ERROR, out);
    }
}

/// The range of `slice` in `bytes`, if it is a part of it.
fn part_of(bytes: &Bytes, slice: &[u8]) -> Option<Range<usize>> {
    let start = slice.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
    let end = start + slice.len();
    (end <= bytes.len()).then_some(start..end)
}
