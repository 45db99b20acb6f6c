//! `globalHandle`: what becomes of a message (docs/protocol/sessions.md, "Life of a message").

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::close::CloseCode;
use super::config::ShardConfig;
use super::connection::CloseReason;
use super::forward_batch::copies;
use super::lane_full::{Destination, ForwardMessage};
use crate::dispatch::chain::{self, Stop};
use crate::dispatch::context::{Call, ClientCall, HeldRequest, Op, Origin};
use crate::dispatch::reply::{Failure, Reply, ReplyBody};
use crate::dispatch::{Registry, Request, Session};
use crate::forward::Carrier;
use crate::forward::mail::{ForwardRoute, WorkerReply};
use crate::forward::pending_forwards::PendingForward;
use crate::route::default_route;
use crate::route::edition::Edition;
use crate::route::table::{RouteEntry, RouteId, RouteTable};
use crate::session::{SessionId, SessionView, Slot};
use crate::wire::message::{self, Message, MessageError, MessageType, RouteRef};
use crate::wire::protobuf::Schema;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A handler of this shard; `None` if the own server type has no such handler.
    Local(Option<usize>),
    /// A server type by its place in the configuration.
    Forward(usize),
    /// A server type that nobody has heard of: the global filters see it, then it fails.
    Nowhere,
    /// Not three parts, or no server type: refused before any filter.
    Unknown,
    /// The method `constructor`: the client is kicked.
    Attack,
}

/// JSON of a body in protobuf counts against the session's share of the turn from this length on:
/// it may be many times as long as the body.
const CHARGED_BYTES_MIN: usize = 4 * 1024;
/// A buffer for JSON that has grown above this is not kept.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// The reason that clients are kicked with for an attack.
const ATTACK_REASON: &str = "attack";

/// Places for routes that came lately.
pub(super) const RECENT_ROUTES: usize = 32;
const _: () = assert!(RECENT_ROUTES.is_power_of_two());

/// Routes that came lately by text, each where its text has its place. Most messages are of a few
/// routes, and to compare two texts is quicker than to look one up.
#[derive(Debug, Default)]
pub(super) struct RecentRoutes([Option<RouteId>; RECENT_ROUTES]);

impl RecentRoutes {
    #[inline(always)] // Every message by text asks.
    pub(super) fn find(&mut self, routes: &RouteTable, text: &[u8]) -> Option<RouteId> {
        let recent = &mut self.0[recent_place(text)];
        if let Some(recent) = *recent
            && is_same(routes.entry(recent).text.as_bytes(), text)
        {
            return Some(recent);
        }
        let found = routes.find(text);
        if found.is_some() {
            *recent = found;
        }
        found
    }
}

/// Where a route's text has its place: routes of one server type differ in their ends, if not in
/// their lengths.
#[inline]
fn recent_place(text: &[u8]) -> usize {
    let end = text.last_chunk().map_or(0, |end| u16::from_le_bytes(*end));
    let mixed = usize::from(end).wrapping_mul(31).wrapping_add(text.len());
    (mixed ^ mixed >> 5) & (RECENT_ROUTES - 1)
}

/// Whether two texts are the same, of the length that routes mostly have: by two halves, which
/// overlap. Others are compared by a call.
#[inline(always)]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    const HALF: usize = size_of::<u128>();
    if a.len() != b.len() || !(HALF..=2 * HALF).contains(&a.len()) {
        return a == b;
    }
    a.first_chunk::<HALF>() == b.first_chunk() && a.last_chunk::<HALF>() == b.last_chunk()
}

impl ShardConfig {
    /// Where a route leads, by its text.
    pub(super) fn target(&self, registry: &Registry, route: &str) -> Target {
        let mut parts = route.split('.');
        let (Some(server_type), Some(handler), Some(method), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Target::Unknown;
        };
        // Pomelo drops a route without a server type before it looks at the method.
        if server_type.is_empty() {
            return Target::Unknown;
        }
        if method == "constructor" {
            return Target::Attack;
        }
        if server_type == &*self.server_type {
            // Empty names can't be registered on purpose.
            let handler = registry.find(route).filter(|_| !handler.is_empty());
            return Target::Local(handler);
        }
        let place = self.server_types.iter().position(|other| &*other.name == server_type);
        place.map_or(Target::Nowhere, Target::Forward)
    }

    /// The place, among all workers, of the one that a session's messages go to.
    pub(super) fn pick_worker(&self, place: usize, view: &SessionView<'_>) -> Option<u16> {
        let (servers, first_worker, route) = match &self.server_types[place].carrier {
            Carrier::Workers { servers, first_worker, route } => (servers, first_worker, route),
            Carrier::Remote { worker } => return Some(*worker),
        };
        let index = match route {
            None => default_route(view.uid().map_or("", |uid| uid.text()), servers.len()),
            Some(route) => chain::guarded(|| route(view, servers)).flatten(),
        };
        let index = u16::try_from(index.filter(|index| *index < servers.len())?).ok()?;
        Some(first_worker + index)
    }
}

impl Shard {
    /// A DATA package of a working session.
    ///
    /// Inlined, as a call of its own costs each message of Pomelo's a twentieth: where it is called
    /// for others it stands behind a function that is not.
    #[inline(always)]
    pub(super) fn handle_data(&mut self, session: SessionId, body: &[u8]) {
        if let Some((client, message)) = self.admit(session, body) {
            self.handle_message(&client, &message, body);
        }
    }

    /// The message in a DATA package, unless it is none, or one too many.
    #[inline(always)]
    pub(super) fn admit<'a>(
        &mut self,
        session: SessionId,
        body: &'a [u8],
    ) -> Option<(ClientCall, Message<'a>)> {
        let message = match message::decode(body) {
            Ok(message) => message,
            Err(MessageError::UnknownType(_)) => {
                self.counters.bad_message_type.one();
                return None;
            }
            Err(_) => {
                self.counters.bad_message.one();
                self.protocol_error(session.slot(), CloseCode::Normal);
                return None;
            }
        };
        let id = match message.kind {
            MessageType::Request => {
                self.counters.requests.one();
                message.id
            }
            // A push from a client counts as a notify.
            MessageType::Notify | MessageType::Push => {
                self.counters.notifies.one();
                0
            }
            _ => {
                self.counters.bad_message_type.one();
                return None;
            }
        };
        let thread = Rc::clone(&self.thread);
        let known = self.find_route(&thread.routes, session.slot(), message.route?);
        let client =
            ClientCall { session, id, route: known, bytes: 0, started_us: self.clock.now_us };
        if let Some(message_rate) = &mut self.message_rate
            && !message_rate.take(session.slot(), self.clock.now_us)
        {
            self.counters.message_rate_rejects.one();
            self.answer(&client, &Reply::error());
            return None;
        }
        Some((client, message))
    }

    /// A message that may be sent, and the body of the package that it came in.
    #[inline(always)]
    fn handle_message(&mut self, client: &ClientCall, message: &Message<'_>, package: &[u8]) {
        #[cfg(feature = "crypto")]
        if self.config.use_crypto && !self.may_verify(client.session) {
            return self.wait_for_work(client, package);
        }
        #[cfg(not(feature = "crypto"))]
        let _ = package;
        self.handle_ready(client, message);
    }

    /// A message for which all is done that had to be done first.
    #[inline(never)]
    pub(super) fn handle_message_apart(&mut self, client: &ClientCall, message: &Message<'_>) {
        self.handle_ready(client, message);
    }

    #[inline(always)]
    fn handle_ready(&mut self, client: &ClientCall, message: &Message<'_>) {
        let (session, id) = (client.session, client.id);
        let Some(route) = message.route else { return };
        match client.route {
            Some(known) => {
                let thread = Rc::clone(&self.thread);
                let entry = thread.routes.entry(known);
                let target = self.targets[known.index()];
                // Clients of Pitaya have not been told of schemas.
                let schema = entry.client.as_ref().filter(|_| !self.is_pitaya(session.slot()));
                match schema {
                    None => {
                        let request = Request::new(&entry.text, id, message.body);
                        self.global_handle(client, target, &request);
                    }
                    Some(schema) => self.handle_protobuf(client, target, entry, schema, message),
                }
            }
            None => {
                let (text, target) = self.unknown_route(session.slot(), route);
                let request = Request::new(&text, id, message.body);
                self.global_handle(client, target, &request);
            }
        }
    }

    /// A message whose body has a schema goes on as JSON.
    fn handle_protobuf(
        &mut self,
        client: &ClientCall,
        target: Target,
        entry: &RouteEntry,
        schema: &Schema,
        message: &Message<'_>,
    ) {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        let bytes_max = self.config.limits.package_bytes_max;
        if schema.decode_to_json_within(bytes_max, message.body, &mut body).is_ok() {
            if body.len() > CHARGED_BYTES_MIN {
                self.budgets.charge(body.len());
            }
            let request = Request::new(&entry.text, client.id, &body);
            self.global_handle(client, target, &request);
        } else {
            self.counters.bad_protobuf.one();
            self.answer(client, &Reply::error());
        }
        match body.capacity() <= SCRATCH_BYTES_MAX {
            true => self.scratch = body,
            false => self.pool.give(body),
        }
    }

    /// Finds a route by its text or code.
    fn find_route(
        &mut self,
        routes: &RouteTable,
        slot: Slot,
        route: RouteRef<'_>,
    ) -> Option<RouteId> {
        match route {
            RouteRef::Text(text) => self.recent_routes.find(routes, text),
            RouteRef::Code(code) => self.edition_of(slot)?.find(code),
        }
    }

    fn edition_of(&self, slot: Slot) -> Option<&Edition> {
        self.editions.get(self.connections.at(slot)?.edition)
    }

    /// The text of a route that is in no table, and where it leads.
    fn unknown_route<'a>(&self, slot: Slot, route: RouteRef<'a>) -> (Cow<'a, str>, Target) {
        let text = match route {
            RouteRef::Text(_) => route.to_text_lossy().unwrap_or_default(),
            // A code of a dictionary that is newer than the table, or of none: then it has no text.
            RouteRef::Code(code) => {
                let text = self.edition_of(slot).and_then(|edition| edition.text(code));
                text.unwrap_or_default().to_owned().into()
            }
        };
        // Text that is not UTF-8 names nothing, though it may look like something.
        let is_lossy = matches!(route, RouteRef::Text(bytes) if bytes != text.as_bytes());
        let target = match is_lossy {
            true => Target::Unknown,
            false => self.config.target(&self.registry, &text),
        };
        (text, target)
    }

    #[inline]
    fn global_handle(&mut self, client: &ClientCall, target: Target, request: &Request<'_>) {
        #[cfg(feature = "crypto")]
        if self.config.use_crypto {
            return self.handle_signed(client, target, request);
        }
        self.handle_authentic(client, target, request);
    }

    /// A message that its client has sent, as far as anybody asks.
    pub(super) fn handle_authentic(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: &Request<'_>,
    ) {
        match target {
            Target::Unknown => return self.handle_unknown_route(client, request),
            Target::Attack => return self.handle_attack(client.session.slot()),
            Target::Local(_) | Target::Forward(_) | Target::Nowhere => {}
        }
        self.handle_routed(client, target, request);
    }

    /// A message that leads somewhere. Inlined for the same reason as [`Self::handle_data`].
    #[inline(always)]
    pub(super) fn handle_routed(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: &Request<'_>,
    ) {
        let Some(connection) = self.connections.at_mut(client.session.slot()) else { return };
        let data = connection.data().clone();
        let mut session = Session::new(client.session, data, Rc::clone(&self.thread));
        if !self.registry.global_filters.is_empty() {
            let registry = Rc::clone(&self.registry);
            let admitted = chain::before(&registry.global_filters, 0, request, &mut session);
            if let Err(stop) = admitted {
                return self.handle_stopped(client, stop, request, session);
            }
        }
        self.handle_admitted(client, target, request, session);
    }

    /// A message that a global filter has not let by.
    pub(super) fn handle_stopped(
        &mut self,
        client: &ClientCall,
        stop: Stop,
        request: &Request<'_>,
        mut session: Session,
    ) {
        match stop {
            Stop::Refused(reply) => {
                self.apply_ops();
                self.finish(client, &reply, request, &mut session);
            }
            Stop::Waiting { index, verdict } => {
                self.wait_for_filters(client, index, verdict, request, session);
            }
        }
    }

    pub(super) fn handle_attack(&mut self, slot: Slot) {
        self.counters.attacks.one();
        self.kick(slot, Some(ATTACK_REASON), CloseReason::Protocol);
    }

    fn wait_for_filters(
        &mut self,
        client: &ClientCall,
        index: usize,
        verdict: crate::dispatch::reply::LocalFuture<crate::dispatch::Verdict>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        let Some(client) = self.begin_task(client, request.body().len()) else {
            self.apply_ops();
            return self.finish(client, &Reply::error(), request, &mut session);
        };
        let (registry, thread) = (Rc::clone(&self.registry), Rc::clone(&self.thread));
        let mut held = Box::new(HeldRequest { request: request.to_owned(), session });
        let future = Box::pin(async move {
            let HeldRequest { request, session } = &mut *held;
            let filters = &registry.global_filters;
            let admitted = chain::wait(filters, index, verdict, request, session).await;
            thread.ask(Op::Admit { client, held, admitted });
        });
        let spawned = self.tasks.spawn(future);
        debug_assert!(spawned.is_ok());
        self.apply_ops();
        self.run_tasks();
    }

    /// The global before filters that waited are done.
    pub(super) fn handle_admit(
        &mut self,
        client: &ClientCall,
        held: HeldRequest,
        admitted: Result<(), Reply<'static>>,
    ) {
        self.end_in_flight(client);
        let HeldRequest { request, mut session } = held;
        let request = request.get();
        let is_there = self.find(client.session).is_some_and(|(_, c)| c.state.is_working());
        match admitted {
            Ok(()) if is_there => {
                let target = match client.route {
                    Some(route) => self.targets[route.index()],
                    None => self.config.target(&self.registry, request.route()),
                };
                self.handle_admitted(client, target, &request, session);
            }
            // The filters that let it in still hear of its end.
            Ok(()) => self.finish(client, &Reply::error(), &request, &mut session),
            Err(reply) => self.finish(client, &reply, &request, &mut session),
        }
        // What it waits for now counts again; otherwise this was all.
        self.kick_if_drained_id(client.session);
    }

    fn handle_admitted(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: &Request<'_>,
        mut session: Session,
    ) {
        match target {
            Target::Local(handler) => {
                if handler.is_none() {
                    self.counters.unknown_route.one();
                }
                let mut reply = Reply::error();
                chain::handle(&self.registry, handler, request, &mut session, &mut reply);
                self.finish_handled(client, reply, request, session);
            }
            Target::Forward(place) => self.forward(client, place, request, session),
            Target::Nowhere => {
                self.counters.unknown_route.one();
                let reply = Reply::failure(Failure::NoServer);
                self.finish(client, &reply, request, &mut session);
            }
            Target::Unknown | Target::Attack => {}
        }
    }

    /// What becomes of a message that a handler of this shard was called for.
    pub(super) fn finish_handled(
        &mut self,
        client: &ClientCall,
        reply: Reply<'_>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        self.apply_ops();
        match reply.body {
            ReplyBody::Later(_) => self.answer_later(client, reply, request, session),
            _ => {
                self.answers_this_turn += u64::from(client.id != 0);
                self.finish(client, &reply, request, &mut session);
            }
        }
    }

    /// Answers, and lets the global after filters look at what was answered.
    fn finish(
        &mut self,
        client: &ClientCall,
        reply: &Reply<'_>,
        request: &Request<'_>,
        session: &mut Session,
    ) {
        self.answer(client, reply);
        if self.registry.global_filters.is_empty() {
            return;
        }
        let registry = Rc::clone(&self.registry);
        chain::after_answer(&registry.global_filters, request, session, reply);
        self.apply_ops();
    }

    fn hold(&self, request: &Request<'_>, session: Session) -> Option<Box<HeldRequest>> {
        (!self.registry.global_filters.is_empty())
            .then(|| Box::new(HeldRequest { request: request.to_owned(), session }))
    }

    fn answer_later(
        &mut self,
        client: &ClientCall,
        reply: Reply<'_>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        let copies = copies(!self.registry.global_filters.is_empty());
        let Some(client) = self.begin_task(client, copies * request.body().len()) else {
            // The local after filters run when the future is dropped, so before the global ones.
            drop(reply);
            self.apply_ops();
            return self.finish(client, &Reply::error(), request, &mut session);
        };
        let held = self.hold(request, session);
        let (thread, reply) = (Rc::clone(&self.thread), reply.into_owned());
        let future = Box::pin(async move {
            let reply = chain::settle(reply).await;
            thread.ask(Op::Answer { call: Call { origin: Origin::Client(client), held }, reply });
        });
        let spawned = self.tasks.spawn(future);
        debug_assert!(spawned.is_ok());
        self.run_tasks();
    }

    /// An async handler or a worker has answered.
    pub(super) fn handle_answer(
        &mut self,
        client: &ClientCall,
        held: Option<Box<HeldRequest>>,
        reply: &Reply<'_>,
    ) {
        self.end_in_flight(client);
        if client.id != 0 {
            self.latency.record(self.clock.now_us.saturating_sub(client.started_us), 1);
        }
        match held {
            None => self.answer(client, reply),
            Some(mut held) => {
                let HeldRequest { request, session } = &mut *held;
                self.finish(client, reply, &request.get(), session);
            }
        }
        self.kick_if_drained_id(client.session);
    }

    pub(super) fn kick_if_drained_id(&mut self, session: SessionId) {
        if self.is_draining
            && let Some((slot, _)) = self.find(session)
        {
            self.kick_if_drained(slot);
        }
    }

    /// Counts a message that waits in a future, where it may.
    fn begin_task(&mut self, client: &ClientCall, bytes: usize) -> Option<ClientCall> {
        if self.tasks.is_full() {
            self.counters.task_rejects.one();
            return None;
        }
        self.begin_in_flight(client, bytes)
    }

    fn forward(
        &mut self,
        client: &ClientCall,
        place: usize,
        request: &Request<'_>,
        session: Session,
    ) {
        let worker = self.config.pick_worker(place, &session.view());
        self.forward_to(client, place, worker, request, session);
    }

    /// Forwards a message to the worker that was picked for it, if any was.
    pub(super) fn forward_to(
        &mut self,
        client: &ClientCall,
        place: usize,
        worker: Option<u16>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        let Some(worker) = worker else {
            let reply = Reply::failure(Failure::NoServer);
            return self.finish(client, &reply, request, &mut session);
        };
        let body = self.forwarded_body(client.session.slot(), request);
        let copies = copies(!self.registry.global_filters.is_empty());
        let Some(client) = self.begin_in_flight(client, copies * body.len()) else {
            return self.finish(client, &Reply::error(), request, &mut session);
        };
        let data = Arc::clone(session.data().shared());
        let held = self.hold(request, session);
        let destination = Destination { place, worker };
        let has_room = self.has_lane_room(destination, client.session);
        let waits = match has_room {
            true => None,
            false => self.may_wait(client.session, destination, body, held.is_some()),
        };
        if !has_room && waits.is_none()
            || self.calls.len() >= self.config.limits.forwards_in_flight_max
        {
            self.counters.forward_rejects.one();
            return self.handle_answer(&client, held, &Reply::error());
        }
        let (route, bytes) = self.carve(worker, client.route, request.route(), body);
        let message = ForwardMessage { client, destination, data, held, route, bytes };
        match waits {
            None => self.send_message(message),
            Some(counted) => self.wait_for_lane(message, counted),
        }
    }

    /// The bytes that go to the worker: the body, behind the route's text where it has no id.
    fn carve(
        &mut self,
        worker: u16,
        known: Option<RouteId>,
        text: &str,
        body: &[u8],
    ) -> (ForwardRoute, Bytes) {
        let (route, text) = match known {
            Some(id) => (ForwardRoute::Known(id), ""),
            // A route's length has one byte on the wire.
            None => (ForwardRoute::Inline { len: text.len() as u8 }, text),
        };
        (route, self.chunks[usize::from(worker)].carve([text.as_bytes(), body]))
    }

    /// A worker has answered. An answer after its deadline finds nothing.
    pub(super) fn handle_worker_answer(&mut self, token: u64, reply: WorkerReply) {
        let Some(PendingForward::One { client, held }) = self.calls.take(token) else { return };
        self.handle_answer(&client, held, &reply.into_reply());
    }

    /// Answers for workers that have not.
    pub(super) fn expire_calls(&mut self) {
        while let Some(call) = self.calls.take_due(self.clock.now_us) {
            let reply = Reply::failure(Failure::TimedOut);
            match call {
                PendingForward::One { client, held } => {
                    self.counters.forward_timeouts.one();
                    self.handle_answer(&client, held, &reply);
                }
                PendingForward::Batch(batch) => self.expire_batch(batch, &reply),
            }
        }
    }
}
