//! Messages to workers by themselves, and the answers of workers.

use std::rc::Rc;
use std::sync::Arc;

use super::Dispatcher;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::dispatch::{Failure, Request, Session, chain};
use crate::forward::ServerTypeIndex;
use crate::forward::mail::WorkerReply;
use crate::forward::message_batch::MessageBatch;
use crate::forward::pending_forwards::{HeldMessages, PendingBatch, PendingForward};
use crate::metrics::ForwardEnd;
use crate::shard::forwarder::{AnsweredBatch, Destination, Rejected, copies};
use crate::wire::answer;

impl Dispatcher {
    /// Forwards a message to the worker that was picked for it, if any was.
    pub(super) fn forward(
        &mut self,
        client: &ClientCall,
        to: Option<Destination>,
        request: &Request<'_>,
        mut session: Session,
    ) {
        let Some(to) = to else {
            let reply = Reply::failure(Failure::NoServer);
            return self.finish(client, &reply, request, &mut session);
        };
        // An empty body is `{}` to everybody here; of a client of Pitaya's it stays empty, as by
        // Pitaya: in protobuf it is a message of its own.
        let body = match self.connections().is_pitaya(client.session.slot()) {
            true => request.sent_body(),
            false => request.body(),
        };
        let copies = copies(!self.registry.global_filters.is_empty());
        let counted = self.connections().begin_in_flight(client, copies * body.len());
        let Some(client) = counted else {
            return self.finish(client, &Reply::failure(Failure::Busy), request, &mut session);
        };
        let data = Arc::clone(session.data().shared());
        let held = self.hold(request, session);
        let sent = self.forwarder.forward(client, to, (request.route(), body), data, held);
        if let Err(Rejected { held }) = sent {
            let server_type = Some(to.server_type);
            self.handle_answer(&client, held, &Reply::failure(Failure::Busy), server_type);
        }
    }

    /// Takes the answer of a worker to a message that went by itself. One after its deadline finds
    /// nothing.
    pub(super) fn handle_worker_answer(&mut self, token: u64, reply: WorkerReply) {
        let pending = self.forwarder.take_pending(token);
        let Some(PendingForward::One { client, server_type, held, span }) = pending else { return };
        self.forwarder.end_span(span, reply.end);
        self.figures.forwards[server_type.index()].end(reply.end, 1);
        self.handle_answer(&client, held, &reply.into_reply(), Some(server_type));
    }

    /// Takes a batch that has come back.
    pub(super) fn handle_batch(&mut self, batch: Box<MessageBatch>) {
        self.forwarder.note_batch(&batch);
        if batch.answered != 0 {
            self.handle_answers(batch.token, batch.answered, batch.failed, &batch.answers);
        }
        self.forwarder.give_batch(batch);
    }

    /// Takes the answers of a worker to some messages of a batch. One after its deadline finds
    /// nothing.
    pub(super) fn handle_answers(&mut self, token: u64, answered: u64, failed: u16, bytes: &[u8]) {
        let Some(batch) = self.forwarder.answered_batch(token) else { return };
        let AnsweredBatch { session, server_type, started_us, held } = batch;
        let answers = answered.count_ones();
        self.forwarder.count_answers(server_type, started_us, answers, failed);
        self.forwarder.count_routes(token, answered);
        self.outbound().append_answers(session, answers as u16, bytes);
        if let Some(mut held) = held {
            self.show_answers(&mut held, answered, bytes);
            // For those that are answered later.
            self.forwarder.hold_batch(token, held);
        }
        self.forwarder.settle_batch(token, answered);
        self.outbound().close_if_done(session);
    }

    /// Lets the global after filters see answers as they were laid out.
    fn show_answers(&mut self, held: &mut HeldMessages, answered: u64, bytes: &[u8]) {
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let mut bodies = answer::bodies(bytes);
        for (index, (head, body, session)) in held.iter_mut().enumerate() {
            if answered >> index & 1 == 1 {
                let reply = bodies.next().map_or_else(Reply::error, Reply::borrowed);
                let request = Request::new(&thread.routes.entry(head.route).text, head.id, body);
                chain::after_answer(&registry.global_filters, &request, session, &reply);
            }
        }
        self.do_ops();
    }

    /// Takes the answer of a worker to one message of a batch that global filters are to see.
    pub(super) fn handle_part(&mut self, token: u64, index: u8, reply: WorkerReply) {
        let part = self.forwarder.take_part(token, usize::from(index));
        if let Some((counted, client, held)) = part {
            self.figures.forwards[counted.server_type.index()].end(reply.end, 1);
            self.handle_part_answer(&client, held, &reply.into_reply(), counted);
        }
    }

    /// Answers for workers that have not.
    pub(in crate::shard) fn expire_forwards(&mut self) {
        while let Some(pending) = self.forwarder.take_due() {
            let reply = Reply::failure(Failure::TimedOut);
            match pending {
                PendingForward::One { client, server_type, held, span } => {
                    self.forwarder.end_span(span, ForwardEnd::TimedOut);
                    self.count_timeout(server_type);
                    self.handle_answer(&client, held, &reply, Some(server_type));
                }
                PendingForward::Batch(batch) => self.expire_batch(batch, &reply),
            }
        }
    }

    /// Counts a message that was not answered in time, and logs it.
    fn count_timeout(&self, server_type: ServerTypeIndex) {
        self.counters.forward_timeouts.one();
        self.figures.forwards[server_type.index()].end(ForwardEnd::TimedOut, 1);
        let server_type = &*self.config.server_types[server_type.index()].name;
        crate::log::seldom!(
            of server_type,
            warn,
            server_type,
            "a forwarded message was not answered in time"
        );
    }

    fn expire_batch(&mut self, batch: PendingBatch, reply: &Reply<'_>) {
        for index in (0..batch.ids.len()).filter(|index| batch.pending >> index & 1 == 1) {
            self.count_timeout(batch.server_type);
            let (client, held) = batch.part(index, &self.config.routes);
            self.handle_part_answer(&client, held, reply, batch.counted(index));
        }
        self.forwarder.end_batch(batch);
    }
}
