//! Messages that nothing stands before or behind: read, handled and answered in one loop.
//!
//! Most messages of most games are for a handler of this shard or for a worker, with no filter,
//! schema or bound on their rate. A handler can't touch the shard, it can only ask
//! ([`Link::ops`]); so what has been looked up for one message of a buffer holds for the next.
//! Those for a worker go there together. Whatever is out of the ordinary ends the loop and goes
//! the way that all other messages go, with the same outcome.
//!
//! [`Link::ops`]: crate::dispatch::context::Link::ops

use std::rc::Rc;

use super::Shard;
use super::config::{KeptAliveBy, ShardConfig};
use super::connection::{Connection, Transport};
use super::courier::{Filling, Room};
use super::global_handle::{RecentRoutes, Target};
use crate::dispatch::chain;
use crate::dispatch::context::{ClientCall, Link};
use crate::dispatch::reply::{Reply, ReplyBody};
use crate::dispatch::{Registry, Request, Session};
use crate::forward::Carrier;
use crate::forward::parcel;
use crate::route::edition::Edition;
use crate::route::table::{RouteEntry, RouteId, RouteTable};
use crate::session::{BufferPool, SessionId, Slot, Snapshot};
use crate::wire::answer;
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::{self, HEADER_BYTES, PackageType, Status};
use crate::wire::websocket::{self, HeaderStatus, Opcode};

/// What is done with the messages of a route.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direct {
    /// Something that they need is not done here.
    No,
    /// A handler of this shard is called, by its place.
    Handle(usize),
    /// They go to a worker of a server type, by its place.
    Forward(usize),
}

/// How far [`Shard::handle_directly`] has come.
pub(super) struct Run {
    pub(super) consumed: usize,
    /// Something else was done on the way, which may have changed the session, or has yet to be
    /// done: what follows may be for this loop again.
    pub(super) is_interrupted: bool,
}

/// Why a run has ended before a message that is none for it.
enum Interruption<'a> {
    /// The handler has asked for something, failed, or answers later.
    Handled { client: ClientCall, request: Request<'a>, reply: Reply<'a> },
    /// So much waits to be sent to the client that it is not read on.
    Full,
    /// The next message goes into another parcel.
    Parcel,
}

/// A message as the loop sees it.
struct Piece<'a> {
    /// 0 for a notify.
    id: u32,
    is_notify: bool,
    route: RouteId,
    body: &'a [u8],
    /// Where what follows it starts.
    end: usize,
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

/// What is done with messages of each route, by route.
pub(super) fn direct_routes(
    config: &ShardConfig,
    registry: &Registry,
    targets: &[Target],
) -> Vec<Direct> {
    let is_bare = registry.global_filters.is_empty() && config.limits.messages_per_second == 0;
    #[cfg(feature = "crypto")]
    let is_bare = is_bare && !config.use_crypto;
    let direct = |(entry, target): (&RouteEntry, &Target)| match *target {
        _ if !is_bare || entry.client.is_some() || entry.server.is_some() => Direct::No,
        Target::Local(Some(handler)) if registry.filters.is_empty() => Direct::Handle(handler),
        Target::Forward(place) => match config.server_types[place].carrier {
            Carrier::Workers { route: None, .. } => Direct::Forward(place),
            _ => Direct::No,
        },
        _ => Direct::No,
    };
    config.routes.iter().zip(targets).map(direct).collect()
}

impl Shard {
    /// Handles the messages at the start of what a working session of Pomelo's has sent, as far as
    /// they are such. What is unmasked on the way has a mask of zeros from then on.
    #[inline(never)] // It has the registers to itself.
    pub(super) fn handle_directly(&mut self, session: SessionId, input: &mut [u8]) -> Run {
        let mut run = Run { consumed: 0, is_interrupted: false };
        let (link, registry) = (Rc::clone(&self.link), Rc::clone(&self.registry));
        let Some(connection) = self.connections.at_mut(session.slot()) else { return run };
        if connection.message.is_some() {
            return run;
        }
        let edition = self.editions.get(connection.edition);
        let transport = connection.transport;
        let package_bytes_max = self.config.limits.package_bytes_max;
        let pause_bytes = self.outbox_pauses.pause_bytes();
        let room = Room {
            config: &self.config,
            post: &self.post,
            calls: &self.calls,
            lane_waits: &self.lane_waits,
        };
        let messages_max = u64::from(self.shares.left);
        let mut tally = Tally::default();
        let (mut snapshot, mut filling) = (None, None);
        let interruption = loop {
            if tally.messages == messages_max {
                break None;
            }
            let rest = &mut input[run.consumed..];
            let Some(package) = next_data(transport, rest, package_bytes_max) else { break None };
            let recent = &mut self.recent_routes;
            let piece = read_piece(package, recent, &link.routes, edition);
            let Some(Piece { id, is_notify, route, body, end }) = piece else { break None };
            let handler = match self.direct[route.index()] {
                Direct::Handle(handler) => handler,
                Direct::Forward(place) if body.len() <= parcel::BODY_BYTES_MAX => {
                    let courier = &mut self.courier;
                    let to = courier.filling(&mut filling, session, connection, place, &room);
                    let Some(to) = to else { break None };
                    if !to.takes_more(place) {
                        break Some(Interruption::Parcel);
                    }
                    to.push(id, route, body);
                    run.consumed += end;
                    tally.count(is_notify);
                    continue;
                }
                _ => break None,
            };
            run.consumed += end;
            tally.count(is_notify);
            let seen = session_for(&mut snapshot, session, connection.data(), &link);
            let request = Request::new(&link.routes.entry(route).text, id, body);
            let mut reply = Reply::error();
            chain::call(&registry, Some(handler), &request, seen, &mut reply);
            let is_plain = !reply.failed && !matches!(reply.body, ReplyBody::Later(_));
            if !is_plain || link.has_ops() || !answer(connection, &mut self.pool, id, &reply) {
                let started_us = self.clock.now_us;
                let client = ClientCall { session, id, route: Some(route), started_us };
                break Some(Interruption::Handled { client, request, reply });
            }
            tally.answers += u64::from(id != 0);
            if connection.outbox.bytes() > pause_bytes {
                break Some(Interruption::Full);
            }
        };
        if tally.messages > 0 {
            self.end_run(session.slot(), &tally);
            run.is_interrupted = interruption.is_some();
            self.go_on(session, filling, interruption, snapshot);
        }
        run
    }

    /// Counts what was handled.
    fn end_run(&mut self, slot: Slot, tally: &Tally) {
        self.shares.left -= tally.messages as u32;
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

    /// Does what a run has left to do.
    fn go_on(
        &mut self,
        session: SessionId,
        filling: Option<Filling>,
        interruption: Option<Interruption<'_>>,
        snapshot: Option<Session>,
    ) {
        if let Some(filling) = filling {
            self.send_parcel(filling);
        }
        match (interruption, snapshot) {
            (Some(Interruption::Handled { client, request, reply }), Some(session)) => {
                self.finish_handled(&client, reply, &request, session);
            }
            (Some(Interruption::Full), _) => self.pause_for_outbox(session.slot()),
            _ => {}
        }
    }
}

/// The snapshot for a message: the one of the message before, where its handler has left it as it
/// was.
#[inline(always)]
fn session_for<'a>(
    snapshot: &'a mut Option<Session>,
    session: SessionId,
    data: &Snapshot,
    link: &Rc<Link>,
) -> &'a mut Session {
    if !snapshot.as_ref().is_some_and(|it| it.is_as_new(session, data)) {
        *snapshot = None;
    }
    snapshot.get_or_insert_with(|| Session::new(session, data.clone(), Rc::clone(link)))
}

/// The message in a DATA package, if its route is known and it is one that a client may send.
#[inline(always)]
fn read_piece<'a>(
    (data, end): (&'a [u8], usize),
    recent: &mut RecentRoutes,
    routes: &RouteTable,
    edition: Option<&Edition>,
) -> Option<Piece<'a>> {
    let message = message::decode(data).ok()?;
    let (id, is_notify) = match message.kind {
        MessageType::Request => (message.id, false),
        MessageType::Notify => (0, true),
        _ => return None,
    };
    let route = match message.route? {
        RouteRef::Text(text) => recent.find(routes, text)?,
        RouteRef::Code(code) => edition?.find(code)?,
    };
    Some(Piece { id, is_notify, route, body: message.body, end })
}

/// The body of the DATA package that `input` starts with, and where what follows it starts; `None`
/// for anything else, and for more than one package in a WebSocket frame.
#[inline(always)]
fn next_data(
    transport: Transport,
    input: &mut [u8],
    body_bytes_max: usize,
) -> Option<(&[u8], usize)> {
    let (start, end) = match transport {
        Transport::Tcp => (0, input.len()),
        Transport::WebSocket => unmask_first(input, body_bytes_max)?,
    };
    let Ok(Status::Complete { value, consumed }) =
        package::decode(&input[start..end], body_bytes_max)
    else {
        return None;
    };
    if value.kind != PackageType::Data {
        return None;
    }
    let package_end = start + consumed;
    if transport == Transport::WebSocket && package_end != end {
        return None;
    }
    Some((value.body, package_end))
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
