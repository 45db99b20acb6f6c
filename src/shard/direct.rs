//! Messages that nothing stands before or behind: read, handled and answered in one loop.
//!
//! Most messages of most games are for a handler of this shard, with no filter, schema or bound on
//! their rate. A handler can't touch the shard, it can only ask ([`Link::ops`]); so what has been
//! looked up for one message of a buffer holds for the next. Whatever is out of the ordinary ends
//! the loop and goes the way that all other messages go, with the same outcome.
//!
//! [`Link::ops`]: crate::dispatch::context::Link::ops

use std::rc::Rc;

use super::Shard;
use super::config::{KeptAliveBy, ShardConfig};
use super::connection::{Connection, Listed, Transport};
use super::global_handle::Target;
use super::send::queue_answer;
use crate::dispatch::chain;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::{Reply, ReplyBody};
use crate::dispatch::{Registry, Request, Session};
use crate::route::table::RouteEntry;
use crate::session::{BufferPool, SessionId};
use crate::wire::message::{self, MessageType, RouteRef};
use crate::wire::package::{self, BODY_BYTES_MAX, HEADER_BYTES, PackageType, Status};
use crate::wire::websocket::{self, HeaderStatus, Opcode};

/// How far [`Shard::handle_directly`] has come.
pub(super) struct Run {
    pub(super) consumed: usize,
    /// Something else was done on the way, which may have changed the session.
    pub(super) is_interrupted: bool,
}

/// Why a run has ended before a message that is none for it.
enum Interruption<'a> {
    /// The handler has asked for something, failed, or answers later.
    Handled { client: ClientCall, request: Request<'a>, reply: Reply<'a> },
    /// More waits to be sent to the client than may.
    Full,
}

/// The handler of each route whose messages need nothing else, by route.
pub(super) fn direct_handlers(
    config: &ShardConfig,
    registry: &Registry,
    targets: &[Target],
) -> Vec<Option<usize>> {
    let is_bare = registry.filters.is_empty()
        && registry.global_filters.is_empty()
        && config.limits.messages_per_second == 0;
    #[cfg(feature = "crypto")]
    let is_bare = is_bare && !config.use_crypto;
    let direct = |(entry, target): (&RouteEntry, &Target)| match target {
        Target::Local(handler) if entry.client.is_none() && entry.server.is_none() => *handler,
        _ => None,
    };
    match is_bare {
        true => config.routes.iter().zip(targets).map(direct).collect(),
        false => vec![None; targets.len()],
    }
}

impl Shard {
    /// Handles the messages at the start of what a working session of Pomelo's has sent, as far as
    /// they are such. What is unmasked on the way has a mask of zeros from then on.
    #[inline(never)] // It has the registers to itself.
    pub(super) fn handle_directly(&mut self, session: SessionId, input: &mut [u8]) -> Run {
        let mut run = Run { consumed: 0, is_interrupted: false };
        let slot = session.slot();
        let (link, registry) = (Rc::clone(&self.link), Rc::clone(&self.registry));
        let Some(connection) = self.connections.at_mut(slot) else { return run };
        if connection.message.is_some() {
            return run;
        }
        let edition = self.editions.get(connection.edition);
        let (transport, limits) = (connection.transport, &self.config.limits);
        let (package_bytes_max, outbox_bytes_max) =
            (limits.package_bytes_max, limits.outbox_bytes_max);
        let (mut notifies, mut answers, mut left) = (0, 0, self.shares.left);
        let mut snapshot = None;
        let interruption = loop {
            if left == 0 {
                break None;
            }
            let rest = &mut input[run.consumed..];
            let Some((data, end)) = next_data(transport, rest, package_bytes_max) else {
                break None;
            };
            let Ok(message) = message::decode(data) else { break None };
            let (id, is_notify) = match message.kind {
                MessageType::Request => (message.id, false),
                MessageType::Notify => (0, true),
                _ => break None,
            };
            let route = match message.route {
                Some(RouteRef::Text(text)) => self.recent_routes.find(&link.routes, text),
                Some(RouteRef::Code(code)) => edition.and_then(|edition| edition.find(code)),
                None => None,
            };
            let Some(route) = route else { break None };
            let Some(handler) = self.direct[route.index()] else { break None };
            run.consumed += end;
            left -= 1;
            notifies += u64::from(is_notify);
            let data = connection.data();
            // Kept for the next message where the handler has left it as it was.
            if !snapshot.as_ref().is_some_and(|it| Session::is_as_new(it, session, data)) {
                snapshot = Some(Session::new(session, data.clone(), Rc::clone(&link)));
            }
            let Some(seen) = &mut snapshot else { break None };
            let request = Request::new(&link.routes.entry(route).text, id, message.body);
            let mut reply = Reply::error();
            chain::call(&registry, Some(handler), &request, seen, &mut reply);
            let is_plain = !reply.failed && !matches!(reply.body, ReplyBody::Later(_));
            if !is_plain || link.has_ops() || !answer(connection, &mut self.pool, id, &reply) {
                let started_us = self.clock.now_us;
                let client = ClientCall { session, id, route: Some(route), started_us };
                break Some(Interruption::Handled { client, request, reply });
            }
            answers += u64::from(id != 0);
            if connection.outbox.bytes() > outbox_bytes_max {
                break Some(Interruption::Full);
            }
        };
        let handled = u64::from(self.shares.left - left);
        self.shares.left = left;
        if handled == 0 {
            return run;
        }
        self.counters.requests.add(handled - notifies);
        self.counters.notifies.add(notifies);
        self.counters.answers.add(answers);
        self.answers_this_turn += answers;
        if self.config.heartbeat.is_some_and(|it| it.kept_alive_by == KeptAliveBy::AnyPackage) {
            connection.heard_ms = self.clock.patient_ms;
        }
        if answers > 0 && connection.listed == Listed::Not {
            connection.listed = Listed::Dirty;
            self.dirty.push_back(slot);
        }
        match (interruption, snapshot) {
            (Some(Interruption::Handled { client, request, reply }), Some(session)) => {
                self.finish_handled(&client, reply, &request, session);
            }
            (Some(_), _) => self.make_room(slot),
            (None, _) => return run,
        }
        run.is_interrupted = true;
        run
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
fn answer(
    connection: &mut Connection,
    pool: &mut BufferPool,
    id: u32,
    reply: &Reply<'_>,
) -> bool {
    if id == 0 {
        return true;
    }
    let body = reply.spoken().unwrap_or(b"{}");
    if message::RESPONSE_HEAD_BYTES_MAX + body.len() > BODY_BYTES_MAX {
        return false;
    }
    queue_answer(connection, pool, id, body);
    true
}
