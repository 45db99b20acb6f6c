//! Steps that a message may need before its filters: a look at its rate, a signature, a schema.

use std::borrow::Cow;
use std::rc::Rc;

use super::Dispatcher;
use super::plan::Target;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::dispatch::{Failure, Request};
use crate::route::edition::Edition;
use crate::route::table::{RouteEntry, RouteId, RouteTable};
use crate::session::{SessionId, Slot};
use crate::shard::outbound::CloseCode;
use crate::wire::message::{self, Message, MessageError, MessageType, RouteRef};

/// JSON of a body in protobuf counts against the session's share of the turn from this length on:
/// it may be many times as long as the body.
const CHARGED_BYTES_MIN: usize = 4 * 1024;
/// A buffer for JSON that has grown above this is not kept.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

impl Dispatcher {
    /// Handles a DATA package of a working session, whatever its message needs.
    #[inline(never)]
    pub(super) fn handle_data(&mut self, session: SessionId, body: &[u8]) {
        let Some((client, message)) = self.admit(session, body) else { return };
        #[cfg(feature = "crypto")]
        if self.config.use_crypto && !self.may_verify(session) {
            return self.wait_for_work(&client, body);
        }
        self.handle_ready(&client, &message);
    }

    /// The message in a DATA package, unless it is none, or one too many.
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
                self.outbound().protocol_error(session.slot(), CloseCode::Normal);
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
        let route = self.find_route(&thread.routes, session.slot(), message.route?);
        let started_us = self.connections().now_us();
        if let Some(connection) = self.connections().at_mut(session.slot()) {
            connection.traffic.note(1, 0, route);
        }
        let client = ClientCall { session, id, route, bytes: 0, started_us };
        if let Some(message_rate) = &mut self.message_rate
            && !message_rate.take(session.slot(), started_us)
        {
            self.refuse_for_rate(&client);
            return None;
        }
        Some((client, message))
    }

    /// Refuses a message of a session that sends too fast.
    #[cold]
    fn refuse_for_rate(&mut self, client: &ClientCall) {
        self.counters.message_rate_rejects.one();
        let session = client.session;
        let peer = self
            .connections()
            .get(session)
            .map(|connection| tracing::field::display(connection.peer));
        crate::log::seldom!(warn, ?session, peer, "a session sends more than its rate");
        self.outbound().answer(client, &Reply::failure(Failure::RateLimited));
    }

    /// Handles a message for which all work is done that had to be done first.
    #[inline(never)]
    pub(super) fn handle_ready(&mut self, client: &ClientCall, message: &Message<'_>) {
        let (slot, id) = (client.session.slot(), client.id);
        let Some(route) = message.route else { return };
        match client.route {
            Some(known) => {
                let thread = Rc::clone(&self.thread);
                let entry = thread.routes.entry(known);
                let target = self.plans[known.index()].target;
                if self.has_client_schema(slot, known) {
                    return self.handle_protobuf(client, target, (known, entry), message);
                }
                let request = Request::new(&entry.text, id, message.body);
                self.handle_sent(client, target, request);
            }
            None => {
                let (text, target) = self.unknown_route(slot, route);
                let request = Request::new(&text, id, message.body);
                self.handle_sent(client, target, request);
            }
        }
    }

    /// Handles a message that its client has to have signed, if signatures are asked for.
    fn handle_sent(&mut self, client: &ClientCall, target: Target, request: Request<'_>) {
        #[cfg(feature = "crypto")]
        if self.config.use_crypto {
            return self.handle_signed(client, target, &request);
        }
        self.handle_request(client, target, request);
    }

    /// Handles a message whose body has a schema as one in JSON.
    fn handle_protobuf(
        &mut self,
        client: &ClientCall,
        target: Target,
        (route, entry): (RouteId, &RouteEntry),
        message: &Message<'_>,
    ) {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        let bytes_max = self.config.limits.package_bytes_max;
        let schema = self.edition_of(client.session.slot()).and_then(|it| it.client_schema(route));
        let decoded = schema.map(|it| it.decode_to_json_within(bytes_max, message.body, &mut body));
        if matches!(decoded, Some(Ok(_))) {
            if body.len() > CHARGED_BYTES_MIN {
                self.connections().budgets_mut().charge(body.len());
            }
            let request = Request::new(&entry.text, client.id, &body);
            self.handle_sent(client, target, request);
        } else {
            self.counters.bad_protobuf.one();
            self.outbound().answer(client, &Reply::error());
        }
        match body.capacity() <= SCRATCH_BYTES_MAX {
            true => self.scratch = body,
            false => self.connections().pool().give(body),
        }
    }

    /// True if a session has been told of a schema for a route's requests, which clients of Pitaya
    /// are not.
    fn has_client_schema(&mut self, slot: Slot, route: RouteId) -> bool {
        let has_schema = self.edition_of(slot).is_some_and(|it| it.client_schema(route).is_some());
        has_schema && !self.connections().is_pitaya(slot)
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
        let outbound = &self.forwarder.outbound;
        outbound.edition(outbound.connections.at(slot)?.session.edition)
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
            false => Target::of(&self.config, &self.registry, &text),
        };
        (text, target)
    }
}
