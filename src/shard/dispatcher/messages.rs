//! The loop of messages: global filters, handler or worker, answer.
//!
//! Every message goes through [`Dispatcher::handle_all`]: those that need nothing before their
//! filters straight from the buffer that they came in ([`Packages`]), the others by themselves once
//! they are prepared ([`Prepared`]). Handlers and filters can't touch the shard, they can only ask
//! ([`ThreadState::ops`]); so what has been looked up for one message of a buffer holds for the
//! next. Those for a worker go there together. Whatever is out of the ordinary ends the loop.
//!
//! [`ThreadState::ops`]: crate::dispatch::context::ThreadState::has_ops

use std::rc::Rc;

use super::Dispatcher;
use super::plan::Target;
use super::run::{Known, Messages, NotedPackages, Packages, Prepared, Ready, Routes, Run};
use crate::dispatch::chain::{self, Stop};
use crate::dispatch::context::{ClientCall, HeldRequest, ThreadState};
use crate::dispatch::reply::{Reply, ReplyBody};
use crate::dispatch::{Failure, Request, Session};
use crate::metrics::RouteAnswers;
use crate::route::table::RouteId;
use crate::session::{BufferPool, SessionId, SessionSnapshot, Slot};
use crate::shard::config::ShardConfig;
use crate::shard::connections::{CloseReason, Connection, Transport};
use crate::shard::forwarder::{Alone, BatchBuilder, BatchTarget, Destination};
use crate::shard::outbound::SessionIo;
use crate::wire::answer;

/// The reason that clients are kicked with for an attack.
const ATTACK_REASON: &str = "attack";

/// A message that ends the loop.
enum Interruption<'a> {
    /// A global filter has not let it by.
    Stopped { client: ClientCall, request: Request<'a>, stop: Stop },
    /// Its handler has asked for something, failed, or answers later.
    Handled { client: ClientCall, request: Request<'a>, reply: Reply<'a> },
    /// It goes to a worker by itself, if one was picked.
    Alone { client: ClientCall, request: Request<'a>, to: Option<Destination> },
    /// No server has its type.
    Nowhere { client: ClientCall, request: Request<'a> },
    /// It is answered, and its filters have asked for something, or so much waits to be sent to
    /// the client that it is not read on.
    Answered,
}

fn id_of<R: Into<Option<RouteId>>>(route: Option<Known<'_, R>>) -> Option<RouteId> {
    route?.id.into()
}

/// The sums of a run.
#[derive(Default)]
struct Tally {
    messages: u64,
    notifies: u64,
    answers: u64,
}

impl Tally {
    #[inline(always)]
    fn count(&mut self, is_notify: bool) {
        self.messages += 1;
        self.notifies += u64::from(is_notify);
    }

    #[inline(always)]
    fn count_answer<M: Messages>(
        &mut self,
        id: u32,
        route: Option<RouteId>,
        by_route: &mut Option<RouteAnswers>,
    ) {
        self.answers += u64::from(id != 0);
        if M::COUNTS_ROUTES
            && id != 0
            && let Some(answers) = by_route
        {
            answers.note(route.map(RouteId::index));
        }
    }
}

impl Dispatcher {
    /// Handles the messages at the start of what a working session of Pomelo's has sent, as far as
    /// they need nothing before their filters. What is unmasked on the way has a mask of zeros from
    /// then on.
    #[inline(never)] // It has the registers to itself.
    pub(super) fn handle_packages(&mut self, session: SessionId, input: &mut [u8]) -> Run {
        let connections = &self.forwarder.outbound.connections;
        let (started_us, messages_max) = (connections.now_us(), connections.budgets().left);
        let body_bytes_max = self.config.limits.package_bytes_max;
        let packages = Packages { input, transport: Transport::Tcp, body_bytes_max };
        if self.thread.last_call.is_timed() || self.route_answers.is_some() {
            return self.handle_noted(packages, session, started_us, messages_max.into());
        }
        self.handle_all(packages, session, started_us, messages_max.into(), None)
    }

    #[inline(never)]
    fn handle_noted(
        &mut self,
        packages: Packages<'_>,
        session: SessionId,
        started_us: u64,
        messages_max: u64,
    ) -> Run {
        let packages = NotedPackages { packages, thread: Rc::clone(&self.thread) };
        self.handle_all(packages, session, started_us, messages_max, None)
    }

    /// Handles a message for which all is done that had to be done before its filters.
    #[inline(never)]
    pub(super) fn handle_request(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: Request<'_>,
    ) {
        match target {
            Target::Unknown => self.handle_unknown_route(client, &request),
            Target::Attack => self.handle_attack(client.session.slot()),
            _ => self.handle_single(client, target, request, None),
        }
    }

    /// Handles a message by itself; where there is a session, global filters have let it by.
    #[inline(never)]
    fn handle_single(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: Request<'_>,
        admitted: Option<Session>,
    ) {
        let route = Known { id: client.route, text: request.route(), target };
        match client.route {
            Some(route) => self.thread.last_call.note_route(route),
            None => self.thread.last_call.note_text(request.route()),
        }
        let (id, body) = (request.id(), request.sent_body());
        let prepared = Prepared(Some(Ready { id, is_notify: id == 0, route, body }));
        self.handle_all(prepared, client.session, client.started_us, 1, admitted);
        self.thread.last_call.end();
    }

    /// The loop. Where there is a session, global filters have let the first message by.
    #[inline(always)]
    fn handle_all<M: Messages>(
        &mut self,
        mut messages: M,
        session: SessionId,
        started_us: u64,
        messages_max: u64,
        admitted: Option<Session>,
    ) -> Run {
        let mut run = Run::default();
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let (config, filters) = (&*self.config, &registry.global_filters);
        let (is_filtered, is_admitted) = (!filters.is_empty(), admitted.is_some());
        let (mut batching, outbound) = self.forwarder.batching(is_filtered);
        let io = outbound.session_io(session.slot());
        let Some(io) = io.filter(|io| messages.begin(io.connection)) else { return run };
        let SessionIo { connection, pool, edition, outbox_bytes, outbox_bytes_max } = io;
        let (table, plans, recent) = (&thread.routes, &self.plans, &mut self.recent_routes);
        let mut routes = Routes { table, edition, plans, recent };
        let (mut tally, mut snapshot, mut builder, mut last) =
            (Tally::default(), admitted, None, None);
        let interruption = loop {
            let is_spent = tally.messages == messages_max;
            let next =
                if is_spent { None } else { messages.next(&mut run, &mut routes, &mut last) };
            let Some(Ready { id, is_notify, route, body }) = next else { break None };
            tally.count(is_notify);
            let known = route.id.into();
            let client = || ClientCall { session, id, route: known, bytes: 0, started_us };
            let seen = seen_by::<M>(&mut snapshot, session, connection.data(), &thread);
            let request = Request::new(route.text, id, body);
            if is_filtered
                && (M::ARE_PLAIN || !is_admitted)
                && let Err(stop) = chain::before(filters, 0, &request, seen)
            {
                break Some(Interruption::Stopped { client: client(), request, stop });
            }
            let handler = match route.target {
                Target::Handler(handler) => Some(handler as usize),
                Target::NoHandler if !M::ARE_PLAIN => None,
                Target::Workers(server_type) if M::ARE_PLAIN => {
                    let to = BatchTarget { session, connection, server_type, id, route: known };
                    let sent = batching.put(&mut builder, to, body, &mut snapshot);
                    let Err(Alone { to }) = sent else { continue };
                    break Some(Interruption::Alone { client: client(), request, to });
                }
                target => break Some(leave(config, seen, client(), target, request)),
            };
            let mut reply = Reply::error();
            chain::handle(&registry, handler, &request, seen, &mut reply);
            let is_plain =
                M::ARE_PLAIN && !reply.failed && !matches!(reply.body, ReplyBody::Later(_));
            if !is_plain || thread.has_ops() || !answer(connection, pool, id, &reply) {
                break Some(Interruption::Handled { client: client(), request, reply });
            }
            tally.count_answer::<M>(id, known, &mut self.route_answers);
            if is_filtered {
                chain::after_answer(filters, &request, seen, &reply);
            }
            let has_ops = is_filtered && thread.has_ops();
            if has_ops || connection.outbox.bytes() > outbox_bytes_max {
                break Some(Interruption::Answered);
            }
        };
        if M::ARE_PLAIN && tally.messages > 0 {
            self.end_run(session, &tally, id_of(last), outbox_bytes + run.consumed);
        }
        run.is_interrupted = interruption.is_some();
        self.finish_run(builder, interruption, snapshot);
        run
    }

    /// Counts the messages of a run, and notes the route of the last of them. Its answers are long
    /// for what is more in the outbox than was there before and has come: as much is expected.
    #[inline(always)]
    fn end_run(
        &mut self,
        session: SessionId,
        tally: &Tally,
        last: Option<RouteId>,
        expected_bytes: usize,
    ) {
        let slot = session.slot();
        if let Some(last) = last {
            self.thread.last_call.note_run(last);
        }
        let connections = &mut self.forwarder.outbound.connections;
        connections.budgets_mut().left -= tally.messages as u32;
        self.counters.requests.add(tally.messages - tally.notifies);
        self.counters.notifies.add(tally.notifies);
        self.counters.answers.add(tally.answers);
        self.answers_this_turn += tally.answers;
        connections.hear_package(slot);
        if let Some(connection) = connections.at_mut(slot) {
            connection.traffic.note(tally.messages, tally.answers, last);
            let answered = connection.outbox.bytes().saturating_sub(expected_bytes);
            connections.budgets_mut().answered(session, answered);
        }
        if tally.answers > 0 {
            self.forwarder.outbound.mark_dirty(slot);
        }
    }

    /// Sends the batch of a run, and does what the message that has ended the run needs besides.
    #[inline(always)]
    fn finish_run(
        &mut self,
        batch: Option<BatchBuilder>,
        interruption: Option<Interruption<'_>>,
        seen: Option<Session>,
    ) {
        if let Some(batch) = batch {
            self.forwarder.send_batch(batch);
        }
        if let (Some(interruption), Some(seen)) = (interruption, seen) {
            self.handle_interruption(interruption, seen);
        }
    }

    fn handle_interruption(&mut self, interruption: Interruption<'_>, mut session: Session) {
        match interruption {
            Interruption::Stopped { client, request, stop } => {
                self.handle_stopped(&client, stop, &request, session);
            }
            Interruption::Handled { client, request, reply } => {
                self.finish_handled(&client, reply, &request, session);
            }
            Interruption::Alone { client, request, to } => {
                self.forward(&client, to, &request, session);
            }
            Interruption::Nowhere { client, request } => {
                chain::tell_unknown_route(request.route(), client.session, &self.counters);
                let reply = Reply::failure(Failure::NoServerType);
                self.finish(&client, &reply, &request, &mut session);
            }
            Interruption::Answered => {
                self.outbound().pause_for_outbox(session.id().slot());
                self.do_ops();
            }
        }
    }

    /// Handles a message whose global before filters waited, and are done.
    pub(super) fn handle_admit(
        &mut self,
        client: &ClientCall,
        held: HeldRequest,
        admitted: Result<(), Reply<'static>>,
    ) {
        self.connections().end_in_flight(client);
        let (request, mut session) = Session::resume(held, &self.thread);
        let request = request.get();
        let connection = self.connections().find(client.session);
        let is_there = connection.is_some_and(|(_, it)| it.state.is_working());
        match admitted {
            Ok(()) if is_there => {
                let target = match client.route {
                    Some(route) => self.plans[route.index()].target,
                    None => Target::of(&self.config, &self.registry, request.route()),
                };
                self.handle_single(client, target, request, Some(session));
            }
            // The filters that let it in still hear of its end.
            Ok(()) => self.finish(client, &Reply::error(), &request, &mut session),
            Err(reply) => self.finish(client, &reply, &request, &mut session),
        }
        // What it waits for now counts again; otherwise this was all.
        self.outbound().close_if_done(client.session);
    }

    fn handle_attack(&mut self, slot: Slot) {
        self.counters.attacks.one();
        self.outbound().kick(slot, Some(ATTACK_REASON), CloseReason::Protocol);
    }

    /// Handles a message whose route is none of Pomelo's. Of Pitaya's clients one of two parts
    /// names a handler of the server that they are connected to (docs/protocol/pitaya.md,
    /// "Forwarding a client message").
    #[cold]
    fn handle_unknown_route(&mut self, client: &ClientCall, request: &Request<'_>) {
        let is_short = request.route().split('.').count() == 2;
        if is_short && self.connections().is_pitaya(client.session.slot()) {
            let text = format!("{}.{}", self.config.server_type, request.route());
            let target = Target::of(&self.config, &self.registry, &text);
            match target {
                Target::Unknown => {}
                Target::Attack => return self.handle_attack(client.session.slot()),
                _ => {
                    let route = self.thread.routes.find(text.as_bytes());
                    let client = ClientCall { route, ..*client };
                    let request = Request::new(&text, request.id(), request.sent_body());
                    return self.handle_single(&client, target, request, None);
                }
            }
        }
        chain::tell_unknown_route(request.route(), client.session, &self.counters);
        self.outbound().answer(client, &Reply::failure(Failure::BadRoute));
    }
}

/// The snapshot for a message: the one of the message before, where its handler has left it as it
/// was. A message by itself has the session as filters have left it, if they have seen it.
#[inline(always)]
fn seen_by<'a, M: Messages>(
    snapshot: &'a mut Option<Session>,
    session: SessionId,
    data: &SessionSnapshot,
    thread: &Rc<ThreadState>,
) -> &'a mut Session {
    if M::ARE_PLAIN && !snapshot.as_mut().is_some_and(|it| it.renew(session, data)) {
        *snapshot = None;
    }
    snapshot.get_or_insert_with(|| Session::new(session, data.clone(), Rc::clone(thread)))
}

/// Leaves a message that is not handled here to [`Dispatcher::handle_interruption`].
#[cold]
fn leave<'a>(
    config: &ShardConfig,
    seen: &Session,
    client: ClientCall,
    target: Target,
    request: Request<'a>,
) -> Interruption<'a> {
    match target {
        Target::Workers(server_type) | Target::Cluster(server_type) => {
            let worker = config.pick_worker(server_type, &seen.view(), seen.counters());
            let to = worker.map(|worker| Destination { server_type, worker });
            Interruption::Alone { client, request, to }
        }
        _ => Interruption::Nowhere { client, request },
    }
}

/// Queues an answer, unless it is too long for a package.
#[inline(always)]
fn answer(connection: &mut Connection, pool: &mut BufferPool, id: u32, reply: &Reply<'_>) -> bool {
    if id == 0 {
        return true;
    }
    let body = reply.spoken().unwrap_or(b"{}");
    if !answer::fits(body) {
        return false;
    }
    let is_websocket = connection.transport == Transport::WebSocket;
    answer::encode(is_websocket, id, body, connection.outbox.open(pool));
    true
}
