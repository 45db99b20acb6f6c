//! Messages that nothing has to wait for: read, handled and answered in one loop.
//!
//! Most messages of most games are for a handler of this shard or for a worker, with no schema or
//! bound on their rate, and with no filter that has to wait. Handlers and filters can't touch the
//! shard, they can only ask ([`ThreadState::ops`]); so what has been looked up for one message of a
//! buffer holds for the next. Those for a worker go there together. Whatever is out of the ordinary
//! ends the loop and goes the way that all other messages go, with the same outcome.
//!
//! [`ThreadState::ops`]: crate::dispatch::context::ThreadState::ops

use std::rc::Rc;

use super::Shard;
use super::config::{KeptAliveBy, ShardConfig};
use super::connection::{Connection, Transport};
use super::forward_batch::{BatchTarget, Room};
use super::global_handle::{RecentRoutes, Target, is_same};
use crate::dispatch::chain::{self, Stop};
use crate::dispatch::context::{ClientCall, ThreadState};
use crate::dispatch::reply::{Reply, ReplyBody};
use crate::dispatch::{Request, Session};
use crate::forward::Carrier;
use crate::forward::message_batch::Head;
use crate::route::edition::Edition;
use crate::route::table::{RouteEntry, RouteId, RouteTable};
use crate::session::{BufferPool, SessionId, SessionSnapshot, Slot};
use crate::wire::answer;
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::{self, HEADER_BYTES, Package, PackageType, Status};
use crate::wire::websocket::{self, HeaderStatus, Opcode};

/// What is done here with the messages of a route.
#[derive(Debug, Clone, Copy)]
pub(super) enum FastPath {
    /// A handler of this shard is called, by its place.
    Handle(usize),
    /// They go to a worker of a server type, by its place.
    Forward(usize),
}

/// How far [`Shard::handle_fast`] has come.
pub(super) struct Run {
    pub(super) consumed: usize,
    /// Something else was done on the way, which may have changed the session, or has yet to be
    /// done: what follows may be for this loop again.
    pub(super) is_interrupted: bool,
}

/// A message that ends a run, though it was one for it.
enum Interruption<'a> {
    /// A global filter has not let it by.
    Stopped { client: ClientCall, request: Request<'a>, stop: Stop },
    /// Its handler has asked for something, failed, or answers later.
    Handled { client: ClientCall, request: Request<'a>, reply: Reply<'a> },
    /// It goes to a worker by itself, if one was picked.
    Alone { client: ClientCall, request: Request<'a>, place: usize, worker: Option<u16> },
    /// It is answered, and its filters have asked for something, or so much waits to be sent to
    /// the client that it is not read on.
    Answered,
}

/// A message as the loop sees it.
struct Piece<'a> {
    /// 0 for a notify.
    id: u32,
    is_notify: bool,
    route: Known<'a>,
    body: &'a [u8],
    /// Where what follows it starts.
    end: usize,
}

/// A route of messages that are handled here.
#[derive(Clone, Copy)]
struct Known<'a> {
    id: RouteId,
    text: &'a str,
    path: FastPath,
}

/// What a run has come to.
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

/// What is done here with messages of each route, by route; `None` where they need something that
/// is not done here.
pub(super) fn fast_paths(config: &ShardConfig, targets: &[Target]) -> Vec<Option<FastPath>> {
    let is_bare = config.limits.messages_per_second == 0;
    #[cfg(feature = "crypto")]
    let is_bare = is_bare && !config.use_crypto;
    let path = |(entry, target): (&RouteEntry, &Target)| match *target {
        _ if !is_bare || entry.client.is_some() || entry.server.is_some() => None,
        Target::Local(handler) => handler.map(FastPath::Handle),
        Target::Forward(place) => {
            let is_near = matches!(config.server_types[place].carrier, Carrier::Workers { .. });
            is_near.then_some(FastPath::Forward(place))
        }
        _ => None,
    };
    config.routes.iter().zip(targets).map(path).collect()
}

impl Shard {
    /// Handles the messages at the start of what a working session of Pomelo's has sent, as far as
    /// they are such. What is unmasked on the way has a mask of zeros from then on.
    #[inline(never)] // It has the registers to itself.
    pub(super) fn handle_fast(&mut self, session: SessionId, input: &mut [u8]) -> Run {
        let mut run = Run { consumed: 0, is_interrupted: false };
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let (config, endpoint, calls) = (&self.config, &self.endpoint, &self.calls);
        let Some(connection) = self.connections.at_mut(session.slot()) else { return run };
        if connection.message.is_some() {
            return run;
        }
        let (transport, body_bytes_max) = (connection.transport, config.limits.package_bytes_max);
        let filters = &registry.global_filters;
        let is_filtered = !filters.is_empty();
        let (lane_waits, memory_left) = (&self.lane_waits, self.memory.left());
        let room = Room { config, endpoint, calls, lane_waits, memory_left, is_filtered };
        let routes = Routes {
            table: &thread.routes,
            edition: self.editions.get(connection.edition),
            fast_paths: &self.fast_paths,
        };
        let (started_us, messages_max) = (self.clock.now_us, u64::from(self.budgets.left));
        let (mut tally, mut snapshot, mut builder, mut last) = (Tally::default(), None, None, None);
        let interruption = loop {
            let is_spent = tally.messages == messages_max;
            let rest = &mut input[run.consumed..];
            let package = if is_spent { None } else { next_data(transport, rest, body_bytes_max) };
            let recent = &mut self.recent_routes;
            let piece = package.and_then(|package| routes.read(package, recent, &mut last));
            let Some(Piece { id, is_notify, route, body, end }) = piece else { break None };
            run.consumed += end;
            tally.count(is_notify);
            let client = || ClientCall { session, id, route: Some(route.id), bytes: 0, started_us };
            let seen = session_for(&mut snapshot, session, connection.data(), &thread);
            let request = Request::new(route.text, id, body);
            if is_filtered && let Err(stop) = chain::before(filters, 0, &request, seen) {
                break Some(Interruption::Stopped { client: client(), request, stop });
            }
            let handler = match route.path {
                FastPath::Handle(handler) => handler,
                FastPath::Forward(place) => {
                    let head = Head { id, route: route.id };
                    let to = BatchTarget { session, connection, place, head };
                    let sent = self.batches.put(&mut builder, to, body, &mut snapshot, &room);
                    let Err(worker) = sent else { continue };
                    break Some(Interruption::Alone { client: client(), request, place, worker });
                }
            };
            let mut reply = Reply::error();
            chain::handle(&registry, Some(handler), &request, seen, &mut reply);
            let is_plain = !reply.failed && !matches!(reply.body, ReplyBody::Later(_));
            if !is_plain || thread.has_ops() || !answer(connection, &mut self.pool, id, &reply) {
                break Some(Interruption::Handled { client: client(), request, reply });
            }
            tally.answers += u64::from(id != 0);
            if is_filtered {
                chain::after_answer(filters, &request, seen, &reply);
            }
            let has_ops = is_filtered && thread.has_ops();
            if has_ops || connection.outbox.bytes() > self.outbox_pauses.pause_bytes() {
                break Some(Interruption::Answered);
            }
        };
        if tally.messages > 0 {
            self.end_run(session.slot(), &tally);
            run.is_interrupted = interruption.is_some();
            builder.into_iter().for_each(|builder| self.send_batch(builder));
            if let (Some(interruption), Some(seen)) = (interruption, snapshot) {
                self.finish_run(interruption, seen);
            }
        }
        run
    }

    /// Counts what was handled.
    fn end_run(&mut self, slot: Slot, tally: &Tally) {
        self.budgets.left -= tally.messages as u32;
        self.counters.requests.add(tally.messages - tally.notifies);
        self.counters.notifies.add(tally.notifies);
        self.counters.answers.add(tally.answers);
        self.answers_this_turn += tally.answers;
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if self.config.heartbeat.is_some_and(|it| it.kept_alive_by == KeptAliveBy::AnyPackage) {
            connection.heard_ms = self.clock.patient_ms;
        }
        if tally.answers > 0 {
            self.mark_dirty(slot);
        }
    }

    /// Does what the message that has ended a run needs besides.
    fn finish_run(&mut self, interruption: Interruption<'_>, session: Session) {
        match interruption {
            Interruption::Stopped { client, request, stop } => {
                self.handle_stopped(&client, stop, &request, session);
            }
            Interruption::Handled { client, request, reply } => {
                self.finish_handled(&client, reply, &request, session);
            }
            Interruption::Alone { client, request, place, worker } => {
                self.forward_to(&client, place, worker, &request, session);
            }
            Interruption::Answered => {
                self.pause_for_outbox(session.id().slot());
                self.apply_ops();
            }
        }
    }
}

/// The snapshot for a message: the one of the message before, where its handler has left it as it
/// was.
#[inline(always)]
fn session_for<'a>(
    snapshot: &'a mut Option<Session>,
    session: SessionId,
    data: &SessionSnapshot,
    thread: &Rc<ThreadState>,
) -> &'a mut Session {
    if !snapshot.as_mut().is_some_and(|it| it.renew(session, data)) {
        *snapshot = None;
    }
    snapshot.get_or_insert_with(|| Session::new(session, data.clone(), Rc::clone(thread)))
}

/// The routes as one session knows them.
struct Routes<'r, 's> {
    table: &'r RouteTable,
    edition: Option<&'s Edition>,
    fast_paths: &'s [Option<FastPath>],
}

impl<'r> Routes<'r, '_> {
    /// The message in a DATA package, if it is one that a client may send, and its route one of
    /// which messages are handled here. What comes in one piece is mostly of one route.
    #[inline(always)]
    fn read<'a>(
        &self,
        (data, end): (&'a [u8], usize),
        recent: &mut RecentRoutes,
        last: &mut Option<Known<'r>>,
    ) -> Option<Piece<'a>>
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
                    return Some(Piece { id, is_notify, route, body, end });
                }
                _ => recent.find(self.table, text)?,
            },
            RouteRef::Code(code) => self.edition?.find(code)?,
        };
        let path = self.fast_paths[id_of_route.index()]?;
        let route = Known { id: id_of_route, text: &self.table.entry(id_of_route).text, path };
        *last = Some(route);
        Some(Piece { id, is_notify, route, body, end })
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
