//! The loop of messages: global filters, handler or worker, answer.
//!
//! Every message goes through [`handle_one`]: those that need nothing before their filters straight
//! from the buffer that they came in, the others by [`Dispatcher::handle_request`] once they are
//! prepared. Handlers and filters can't touch the shard, they can only ask ([`ThreadState::ops`]);
//! so what has been looked up for one message of a buffer holds for the next. Those for a worker go
//! there together. Whatever is out of the ordinary ends the loop.

use std::ops::Range;
use std::rc::Rc;

use super::Dispatcher;
use super::plan::{Plan, RecentRoutes, Target, is_same};
use crate::dispatch::chain::{self, Stop};
use crate::dispatch::context::{ClientCall, HeldRequest, ThreadState};
use crate::dispatch::reply::{Failure, Reply, ReplyBody};
use crate::dispatch::{Registry, Request, Session};
use crate::forward::message_batch::Head;
use crate::route::edition::Edition;
use crate::route::table::{RouteId, RouteTable};
use crate::session::{BufferPool, SessionId, Slot};
use crate::shard::config::{KeptAliveBy, ShardConfig};
use crate::shard::connections::{CloseReason, Connection, Transport};
use crate::shard::forwarder::{Alone, BatchBuilder, BatchTarget, Batching, Destination};
use crate::shard::outbound::SessionIo;
use crate::wire::answer;
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::{self, HEADER_BYTES, Package, PackageType, Status};
use crate::wire::websocket::{self, HeaderStatus, Opcode};

/// The reason that clients are kicked with for an attack.
const ATTACK_REASON: &str = "attack";

/// Progress of [`Dispatcher::handle_packages`].
pub(super) struct Run {
    pub(super) consumed: usize,
    /// Something else was done on the way, which may have changed the session: what follows may be
    /// for the loop again.
    pub(super) is_interrupted: bool,
    /// The message behind those that were handled, which needs something before its filters.
    pub(super) apart: Option<Range<usize>>,
}

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

/// A message of a route whose messages need nothing before their filters.
struct Plain<'a> {
    /// 0 for a notify.
    id: u32,
    is_notify: bool,
    route: Known<'a>,
    body: &'a [u8],
}

/// A route whose messages need nothing before their filters.
#[derive(Clone, Copy)]
struct Known<'a> {
    id: RouteId,
    text: &'a str,
    target: Target,
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
}

/// The session whose messages are handled, and what they meet.
struct Tools<'a> {
    config: &'a ShardConfig,
    thread: &'a Rc<ThreadState>,
    registry: &'a Rc<Registry>,
    is_filtered: bool,
    connection: &'a mut Connection,
    pool: &'a mut BufferPool,
    /// The bytes in the outbox above which the session is not read on.
    pause_bytes: usize,
}

/// What one message leaves for the next.
struct Carried<'a> {
    batching: Batching<'a>,
    builder: Option<BatchBuilder>,
    /// The session as the last message has left it.
    seen: Option<Session>,
}

impl Dispatcher {
    /// Handles the messages at the start of what a working session of Pomelo's has sent, as far as
    /// they need nothing before their filters. What is unmasked on the way has a mask of zeros from
    /// then on.
    #[inline(never)] // It has the registers to itself.
    pub(super) fn handle_packages(&mut self, session: SessionId, input: &mut [u8]) -> Run {
        let mut run = Run { consumed: 0, is_interrupted: false, apart: None };
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let (config, plans) = (&*self.config, &self.plans);
        let (body_bytes_max, is_filtered) =
            (config.limits.package_bytes_max, !registry.global_filters.is_empty());
        let (batching, outbound) = self.forwarder.batching(is_filtered);
        let started_us = outbound.connections.now_us();
        let messages_max = u64::from(outbound.connections.budgets().left);
        let pause_bytes = outbound.pause_bytes();
        let Some(io) = outbound.session_io(session.slot()) else { return run };
        let SessionIo { connection, pool, edition } = io;
        if connection.message.is_some() {
            return run;
        }
        let transport = connection.transport;
        let routes = Routes { table: &thread.routes, edition, plans };
        let (thread, registry) = (&thread, &registry);
        let mut tools =
            Tools { config, thread, registry, is_filtered, connection, pool, pause_bytes };
        let mut carried = Carried { batching, builder: None, seen: None };
        let (mut tally, mut last) = (Tally::default(), None);
        let interruption = loop {
            let is_spent = tally.messages == messages_max;
            let rest = &mut input[run.consumed..];
            let package = if is_spent { None } else { next_data(transport, rest, body_bytes_max) };
            let Some((data, package_end)) = package else { break None };
            run.consumed += package_end;
            let plain = routes.read(data, &mut self.recent_routes, &mut last);
            let Some(Plain { id, is_notify, route, body }) = plain else {
                // A package ends with its body.
                run.apart = Some(run.consumed - data.len()..run.consumed);
                break None;
            };
            tally.count(is_notify);
            let client = ClientCall { session, id, route: Some(route.id), bytes: 0, started_us };
            let request = Request::new(route.text, id, body);
            let handled = handle_one(&mut tools, &mut carried, client, route.target, request, true);
            match handled {
                Outcome::Done { is_answered } => tally.answers += u64::from(is_answered),
                Outcome::Ends { is_answered, interruption } => {
                    tally.answers += u64::from(is_answered);
                    break Some(interruption);
                }
            }
        };
        if tally.messages > 0 {
            let Carried { builder, seen, .. } = carried;
            self.end_run(session.slot(), &tally);
            run.is_interrupted = interruption.is_some();
            self.finish_run(builder, interruption, seen);
        }
        run
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
    fn handle_single(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: Request<'_>,
        admitted: Option<Session>,
    ) {
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let (config, is_filtered) = (&*self.config, !registry.global_filters.is_empty());
        let (batching, outbound) = self.forwarder.batching(is_filtered);
        let pause_bytes = outbound.pause_bytes();
        let Some(io) = outbound.session_io(client.session.slot()) else { return };
        let SessionIo { connection, pool, .. } = io;
        let (thread, registry) = (&thread, &registry);
        let mut tools =
            Tools { config, thread, registry, is_filtered, connection, pool, pause_bytes };
        let is_admitted = admitted.is_some();
        let mut carried = Carried { batching, builder: None, seen: admitted };
        let outcome = match is_admitted {
            true => handle_admitted(&mut tools, &mut carried, *client, target, request, false),
            false => handle_one(&mut tools, &mut carried, *client, target, request, false),
        };
        if let (Outcome::Ends { interruption, .. }, Some(seen)) = (outcome, carried.seen) {
            self.finish_run(None, Some(interruption), Some(seen));
        }
    }

    /// Counts the messages of a run.
    fn end_run(&mut self, slot: Slot, tally: &Tally) {
        let connections = &mut self.forwarder.outbound.connections;
        connections.budgets_mut().left -= tally.messages as u32;
        self.counters.requests.add(tally.messages - tally.notifies);
        self.counters.notifies.add(tally.notifies);
        let now_ms = connections.patient_ms();
        if self.config.heartbeat.is_some_and(|it| it.kept_alive_by == KeptAliveBy::AnyPackage)
            && let Some(connection) = connections.at_mut(slot)
        {
            connection.heard_ms = now_ms;
        }
        if tally.answers > 0 {
            self.counters.answers.add(tally.answers);
            self.answers_this_turn += tally.answers;
            self.forwarder.outbound.mark_dirty(slot);
        }
    }

    /// Sends the batch of a run, and does what the message that has ended it needs besides.
    fn finish_run(
        &mut self,
        builder: Option<BatchBuilder>,
        interruption: Option<Interruption<'_>>,
        seen: Option<Session>,
    ) {
        if let Some(builder) = builder {
            self.forwarder.send_batch(builder);
        }
        let (Some(interruption), Some(mut session)) = (interruption, seen) else { return };
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
                self.counters.unknown_route.one();
                let reply = Reply::failure(Failure::NoServer);
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
        let HeldRequest { request, mut session } = held;
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
        self.counters.unknown_route.one();
        self.outbound().answer(client, &Reply::failure(Failure::BadRoute));
    }
}

/// The outcome of a message.
enum Outcome<'a> {
    /// It is done with; its answer may be in the outbox.
    Done { is_answered: bool },
    /// It ends the loop.
    Ends { is_answered: bool, interruption: Interruption<'a> },
}

impl<'a> Outcome<'a> {
    #[inline(always)]
    fn ends(interruption: Interruption<'a>) -> Self {
        Self::Ends { is_answered: false, interruption }
    }
}

/// Lets the global filters see a message, and then handles it.
#[inline(always)]
fn handle_one<'a>(
    tools: &mut Tools<'_>,
    carried: &mut Carried<'_>,
    client: ClientCall,
    target: Target,
    request: Request<'a>,
    is_plain: bool,
) -> Outcome<'a> {
    let data = tools.connection.data();
    if !carried.seen.as_mut().is_some_and(|seen| seen.renew(client.session, data)) {
        let thread = Rc::clone(tools.thread);
        carried.seen = Some(Session::new(client.session, data.clone(), thread));
    }
    if tools.is_filtered
        && let Some(seen) = &mut carried.seen
        && let Err(stop) = chain::before(&tools.registry.global_filters, 0, &request, seen)
    {
        return Outcome::ends(Interruption::Stopped { client, request, stop });
    }
    handle_admitted(tools, carried, client, target, request, is_plain)
}

/// Handles a message that the global filters have let by: calls its handler and answers, or puts
/// it into the batch for its worker. Where its route is not plain, the answer and the way to the
/// worker are left to [`Dispatcher::finish_run`].
#[inline(always)]
fn handle_admitted<'a>(
    tools: &mut Tools<'_>,
    carried: &mut Carried<'_>,
    client: ClientCall,
    target: Target,
    request: Request<'a>,
    is_plain: bool,
) -> Outcome<'a> {
    let handler = match target {
        Target::Handler(handler) => Some(handler as usize),
        Target::Workers(place) if is_plain => {
            return match put(tools, carried, &client, place, &request) {
                Ok(()) => Outcome::Done { is_answered: false },
                Err(to) => Outcome::ends(Interruption::Alone { client, request, to }),
            };
        }
        Target::Workers(place) | Target::Cluster(place) => {
            let to = pick(tools.config, carried.seen.as_ref(), place);
            return Outcome::ends(Interruption::Alone { client, request, to });
        }
        Target::NoHandler => None,
        Target::Nowhere | Target::Unknown | Target::Attack => {
            return Outcome::ends(Interruption::Nowhere { client, request });
        }
    };
    let Some(seen) = &mut carried.seen else {
        return Outcome::Done { is_answered: false };
    };
    let mut reply = Reply::error();
    chain::handle(tools.registry, handler, &request, seen, &mut reply);
    let is_ready = is_plain && !reply.failed && !matches!(reply.body, ReplyBody::Later(_));
    if !is_ready || tools.thread.has_ops() || !answer(tools, client.id, &reply) {
        return Outcome::ends(Interruption::Handled { client, request, reply });
    }
    let is_answered = client.id != 0;
    if tools.is_filtered {
        chain::after_answer(&tools.registry.global_filters, &request, seen, &reply);
    }
    let has_ops = tools.is_filtered && tools.thread.has_ops();
    if has_ops || tools.connection.outbox.bytes() > tools.pause_bytes {
        return Outcome::Ends { is_answered, interruption: Interruption::Answered };
    }
    Outcome::Done { is_answered }
}

/// Puts a message into the batch for its worker. An error is where it has to go alone.
#[inline(always)]
fn put(
    tools: &mut Tools<'_>,
    carried: &mut Carried<'_>,
    client: &ClientCall,
    place: u16,
    request: &Request<'_>,
) -> Result<(), Option<Destination>> {
    let Some(route) = client.route else {
        return Err(pick(tools.config, carried.seen.as_ref(), place));
    };
    let (session, head) = (client.session, Head { id: client.id, route });
    let place = usize::from(place);
    let to = BatchTarget { session, connection: tools.connection, place, head };
    let body = request.sent_body();
    let sent = carried.batching.put(&mut carried.builder, to, body, &mut carried.seen);
    sent.map_err(|Alone { worker }| worker.map(|worker| Destination { place, worker }))
}

/// Picks the worker, or the network forwarder, that a message goes to.
fn pick(config: &ShardConfig, seen: Option<&Session>, place: u16) -> Option<Destination> {
    let place = usize::from(place);
    let worker = config.pick_worker(place, &seen?.view())?;
    Some(Destination { place, worker })
}

/// Queues an answer, unless it is too long for a package.
#[inline(always)]
fn answer(tools: &mut Tools<'_>, id: u32, reply: &Reply<'_>) -> bool {
    if id == 0 {
        return true;
    }
    let body = reply.spoken().unwrap_or(b"{}");
    if !answer::fits(body) {
        return false;
    }
    let is_websocket = tools.connection.transport == Transport::WebSocket;
    answer::encode(is_websocket, id, body, tools.connection.outbox.open(tools.pool));
    true
}

/// The routes as one session knows them.
struct Routes<'r, 's> {
    table: &'r RouteTable,
    edition: Option<&'s Edition>,
    plans: &'s [Plan],
}

impl<'r> Routes<'r, '_> {
    /// The message in a DATA package, if it is one that a client may send, and its route one whose
    /// messages need nothing before their filters. What comes in one piece is mostly of one route.
    #[inline(always)]
    fn read<'a>(
        &self,
        data: &'a [u8],
        recent: &mut RecentRoutes,
        last: &mut Option<Known<'r>>,
    ) -> Option<Plain<'a>>
    where
        'r: 'a,
    {
        let message = message::decode(data).ok()?;
        let (id, is_notify) = match message.kind {
            MessageType::Request => (message.id, false),
            MessageType::Notify => (0, true),
            _ => return None,
        };
        let body = message.body;
        let id_of_route = match message.route? {
            RouteRef::Text(text) => match *last {
                Some(route) if is_same(route.text.as_bytes(), text) => {
                    return Some(Plain { id, is_notify, route, body });
                }
                _ => recent.find(self.table, text)?,
            },
            RouteRef::Code(code) => self.edition?.find(code)?,
        };
        let Plan { target, is_plain } = self.plans[id_of_route.index()];
        if !is_plain {
            return None;
        }
        let route = Known { id: id_of_route, text: &self.table.entry(id_of_route).text, target };
        *last = Some(route);
        Some(Plain { id, is_notify, route, body })
    }
}

/// The body of the DATA package that `input` starts with, and where what follows it starts; `None`
/// for anything else, and for more than one package in a WebSocket frame.
#[inline(always)]
fn next_data(
    transport: Transport,
    input: &mut [u8],
    body_bytes_max: usize,
) -> Option<(&[u8], usize)> {
    match transport {
        Transport::Tcp => first_data(input, body_bytes_max),
        Transport::WebSocket => {
            let (start, end) = unmask_first(input, body_bytes_max)?;
            let (body, package_len) = first_data(&input[start..end], body_bytes_max)?;
            (start + package_len == end).then_some((body, end))
        }
    }
}

/// The body of the DATA package that `input` starts with, and how long the package is.
#[inline(always)]
fn first_data(input: &[u8], body_bytes_max: usize) -> Option<(&[u8], usize)> {
    match package::decode(input, body_bytes_max) {
        Ok(Status::Complete { value: Package { kind: PackageType::Data, body }, consumed }) => {
            Some((body, consumed))
        }
        _ => None,
    }
}

/// Where the payload of the frame at the start of `input` is, now without its mask.
#[inline]
fn unmask_first(input: &mut [u8], body_bytes_max: usize) -> Option<(usize, usize)> {
    let payload_max = 2 * (HEADER_BYTES + body_bytes_max);
    let Ok(HeaderStatus::Complete(header)) = websocket::decode_header(input, payload_max) else {
        return None;
    };
    let end = header.header_len + header.payload_len;
    if !header.fin || header.opcode != Opcode::Binary || end > input.len() {
        return None;
    }
    let (head, payload) = input[..end].split_at_mut(header.header_len);
    websocket::unmask(payload, header.mask, 0);
    if let Some(mask) = head.last_chunk_mut() {
        *mask = [0; 4];
    }
    Some((header.header_len, end))
}
