//! Answers to clients, at once or later, and the global after filters that see them.

use std::rc::Rc;

use super::Dispatcher;
use super::plan::Target;
use crate::dispatch::at_end::AtEnd;
use crate::dispatch::chain::{self, Stop};
use crate::dispatch::context::{Call, ClientCall, HeldRequest, Op, Origin};
use crate::dispatch::reply::{LocalFuture, Reply, ReplyBody};
use crate::dispatch::tasks::tell_no_room;
use crate::dispatch::{Failure, Request, Session, Verdict};
use crate::forward::ServerTypeIndex;
use crate::forward::pending_forwards::Counted;
use crate::route::table::RouteId;
use crate::shard::forwarder::copies;

impl Dispatcher {
    /// Goes on with a message that a global filter has not let by.
    pub(super) fn handle_stopped(
        &mut self,
        client: &ClientCall,
        stop: Stop,
        request: &Request<'_>,
        mut session: Session,
    ) {
        match stop {
            Stop::Refused(reply) => {
                self.do_ops();
                self.finish(client, &reply, request, &mut session);
            }
            Stop::Waiting { index, verdict } => {
                self.wait_for_filters(client, index, verdict, request, session);
            }
        }
    }

    fn wait_for_filters(
        &mut self,
        client: &ClientCall,
        index: usize,
        verdict: LocalFuture<Verdict>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        let Some(client) = self.begin_task(client, request.body().len()) else {
            self.do_ops();
            return self.finish(client, &Reply::failure(Failure::Busy), request, &mut session);
        };
        let (registry, thread) = (Rc::clone(&self.registry), Rc::clone(&self.thread));
        let request = request.to_owned();
        let future = Box::pin(async move {
            let filters = &registry.global_filters;
            let admitted = chain::wait(filters, index, verdict, &request, &mut session).await;
            thread.ask(Op::Admit { client, held: session.hold(request), admitted });
        });
        let spawned = self.tasks.spawn(future, AtEnd::Wait);
        debug_assert!(spawned.is_ok());
        self.do_ops();
    }

    /// Goes on with a message that a handler of this shard was called for.
    pub(super) fn finish_handled(
        &mut self,
        client: &ClientCall,
        reply: Reply<'_>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        self.do_ops();
        match reply.body {
            ReplyBody::Later(_) => self.answer_later(client, reply, request, session),
            _ => {
                self.count_now(client);
                self.finish(client, &reply, request, &mut session);
            }
        }
    }

    /// Counts an answer in the turn in which its request was read, where one is sent.
    fn count_now(&mut self, client: &ClientCall) {
        if client.id == 0 {
            return;
        }
        self.answers_this_turn += 1;
        if let Some(answers) = &mut self.route_answers {
            answers.note(client.route.map(RouteId::index));
        }
    }

    /// Answers, and lets the global after filters look at what was answered.
    pub(super) fn finish(
        &mut self,
        client: &ClientCall,
        reply: &Reply<'_>,
        request: &Request<'_>,
        session: &mut Session,
    ) {
        self.outbound().answer(client, reply);
        if !self.registry.global_filters.is_empty() {
            chain::after_answer(&self.registry.global_filters, request, session, reply);
            self.do_ops();
        }
    }

    /// A copy of a message for the global after filters, where there are any.
    pub(super) fn hold(&self, request: &Request<'_>, session: Session) -> Option<Box<HeldRequest>> {
        (!self.registry.global_filters.is_empty()).then(|| session.hold(request.to_owned()))
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
            self.do_ops();
            return self.finish(client, &Reply::failure(Failure::Busy), request, &mut session);
        };
        let (held, at_end) = (self.hold(request, session), reply.at_end());
        let (thread, reply) = (Rc::clone(&self.thread), reply.into_owned());
        let (registry, handler) = (Rc::clone(&self.registry), self.handler_of(&client, request));
        let future = Box::pin(async move {
            let session = client.session;
            let reply = chain::settle(reply, &registry, handler, session, &thread).await;
            thread.ask(Op::Answer { call: Call { origin: Origin::Client(client), held }, reply });
        });
        let spawned = self.tasks.spawn(future, at_end);
        debug_assert!(spawned.is_ok());
    }

    /// The place of the handler that a message was handled by.
    fn handler_of(&self, client: &ClientCall, request: &Request<'_>) -> Option<usize> {
        match client.route.map(|route| self.plans[route.index()].target) {
            Some(Target::Handler(handler)) => Some(handler as usize),
            _ => self.registry.find(request.route()),
        }
    }

    /// Counts a message that waits in a future, where it may.
    fn begin_task(&mut self, client: &ClientCall, bytes: usize) -> Option<ClientCall> {
        if self.tasks.is_full() {
            tell_no_room(&self.counters, "an async handler or filter");
            return None;
        }
        self.connections().begin_in_flight(client, bytes)
    }

    /// Takes the answer of an async handler, or of a server of some type.
    pub(super) fn handle_answer(
        &mut self,
        client: &ClientCall,
        held: Option<Box<HeldRequest>>,
        reply: &Reply<'_>,
        server_type: Option<ServerTypeIndex>,
    ) {
        self.count_answer(client, server_type, client.route);
        self.end_answer(client, held, reply);
    }

    /// Takes the answer to one message of a batch.
    pub(super) fn handle_part_answer(
        &mut self,
        client: &ClientCall,
        held: Option<Box<HeldRequest>>,
        reply: &Reply<'_>,
        counted: Counted,
    ) {
        self.count_answer(client, Some(counted.server_type), counted.route);
        self.end_answer(client, held, reply);
    }

    /// Counts an answer that came later, where one is sent.
    fn count_answer(
        &mut self,
        client: &ClientCall,
        server_type: Option<ServerTypeIndex>,
        route: Option<RouteId>,
    ) {
        if client.id == 0 {
            return;
        }
        let took_us = self.connections().now_us().saturating_sub(client.started_us);
        let figures = match server_type {
            None => &self.figures.local,
            Some(server_type) => &self.figures.forwards[server_type.index()].answered,
        };
        figures.record(took_us, 1);
        if let Some(routes) = &self.figures.routes {
            routes.record(route.map(RouteId::index), took_us);
        }
    }

    fn end_answer(
        &mut self,
        client: &ClientCall,
        held: Option<Box<HeldRequest>>,
        reply: &Reply<'_>,
    ) {
        self.connections().end_in_flight(client);
        match held {
            None => self.outbound().answer(client, reply),
            Some(held) => {
                let (request, mut session) = Session::resume(*held, &self.thread);
                self.finish(client, reply, &request.get(), &mut session);
            }
        }
        self.outbound().close_if_done(client.session);
    }
}
