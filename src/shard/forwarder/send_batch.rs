//! Batches into lanes, and back.

use super::Forwarder;
use super::batches::{BatchBuilder, copies};
use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::forward::ServerTypeIndex;
use crate::forward::mail::Mail;
use crate::forward::message_batch::MessageBatch;
use crate::forward::pending_forwards::{Counted, HeldMessages, PendingBatch, PendingForward};
use crate::session::SessionId;

/// Messages of a batch that a worker has answered.
pub(in crate::shard) struct AnsweredBatch {
    pub(in crate::shard) session: SessionId,
    pub(in crate::shard) server_type: ServerTypeIndex,
    pub(in crate::shard) started_us: u64,
    /// For the global after filters, where there are any.
    pub(in crate::shard) held: Option<Box<HeldMessages>>,
}

impl Forwarder {
    /// Sends a batch to its worker.
    pub(in crate::shard) fn send_batch(&mut self, builder: BatchBuilder) {
        let BatchBuilder { mut batch, server_type, ids, pending, held, .. } = builder;
        let (session, worker) = (batch.session, batch.worker);
        let bytes = copies(held.is_some()) * batch.messages.bytes();
        let connections = &mut self.outbound.connections;
        connections.add_in_flight(session, pending.count_ones(), bytes);
        if let Some((_, connection)) = connections.find(session) {
            connection.session.workers |= worker.bit();
        }
        batch.token = 0;
        if pending == 0 {
            self.batches.give(ids, Vec::new(), held);
        } else {
            let routes = match self.figures.routes {
                Some(_) => self.batches.routes_of(&batch),
                None => Vec::new(),
            };
            let started_us = connections.now_us();
            let awaited = PendingBatch {
                session,
                server_type,
                started_us,
                ids,
                routes,
                pending,
                bytes,
                held,
            };
            self.figures.forwards[server_type.index()].awaited.add(pending.count_ones().into());
            let deadline_us = started_us + self.config.forward_timeout_us();
            batch.token = self.pending.add(PendingForward::Batch(awaited), deadline_us);
        }
        let messages = batch.messages.len();
        self.sampler.skip(messages);
        self.batches.add_away(worker, messages);
        self.counters.forwards.add(messages as u64);
        self.forwarded += messages;
        let party = self.endpoint.hub().worker(worker);
        self.endpoint.add_sent(party, batch.messages.bytes());
        self.endpoint.send(party, Mail::Batch(batch));
    }

    /// Takes note of a batch that has come back.
    pub(in crate::shard) fn note_batch(&mut self, batch: &MessageBatch) {
        self.batches.remove_away(batch.worker, batch.messages.len());
        if batch.token == 0 {
            self.outbound.connections.release_in_flight(batch.session, batch.messages.bytes());
        }
    }

    /// Takes the memory back of a batch that has come back.
    pub(in crate::shard) fn give_batch(&mut self, batch: Box<MessageBatch>) {
        self.batches.give_batch(batch);
    }

    /// The batch of a token some of whose messages are answered, unless that comes too late.
    pub(in crate::shard) fn answered_batch(&mut self, token: u64) -> Option<AnsweredBatch> {
        let awaited = self.pending.batch_mut(token)?;
        let PendingBatch { session, server_type, started_us, .. } = *awaited;
        Some(AnsweredBatch { session, server_type, started_us, held: awaited.held.take() })
    }

    /// Puts back what filters are to see of messages that are answered later.
    pub(in crate::shard) fn hold_batch(&mut self, token: u64, held: Box<HeldMessages>) {
        if let Some(awaited) = self.pending.batch_mut(token) {
            awaited.held = Some(held);
        }
    }

    /// Counts answers to messages of a batch by their routes, where those are measured.
    #[inline]
    pub(in crate::shard) fn count_routes(&mut self, token: u64, answered: u64) {
        let Some(latencies) = &self.figures.routes else { return };
        let now_us = self.outbound.connections.now_us();
        let Some(awaited) = self.pending.batch_mut(token) else { return };
        let took_us = now_us.saturating_sub(awaited.started_us);
        for (index, route) in awaited.routes.iter().enumerate() {
            if answered >> index & 1 == 1 {
                latencies.record(Some(route.index()), took_us);
            }
        }
    }

    /// Takes messages of a batch for answered.
    pub(in crate::shard) fn settle_batch(&mut self, token: u64, answered: u64) {
        let Some(awaited) = self.pending.batch_mut(token) else { return };
        debug_assert_eq!(awaited.pending & answered, answered, "a message is answered once");
        awaited.pending &= !answered;
        let figures = &self.figures.forwards[awaited.server_type.index()];
        figures.done.add(answered.count_ones().into());
        if awaited.pending == 0
            && let Some(PendingForward::Batch(awaited)) = self.pending.take(token)
        {
            self.end_batch(awaited);
        }
    }

    /// Takes out one message of a batch that is answered by itself, unless that comes too late.
    pub(in crate::shard) fn take_part(
        &mut self,
        token: u64,
        index: usize,
    ) -> Option<(Counted, ClientCall, Option<Box<HeldRequest>>)> {
        let awaited = self.pending.batch_mut(token)?;
        let counted = awaited.counted(index);
        let (client, held) = awaited.part(index, &self.config.routes);
        self.settle_batch(token, 1 << index);
        Some((counted, client, held))
    }

    /// Gives back what a batch counts for, and its memory.
    pub(in crate::shard) fn end_batch(&mut self, awaited: PendingBatch) {
        self.outbound.connections.release_in_flight(awaited.session, awaited.bytes);
        self.batches.give(awaited.ids, awaited.routes, awaited.held);
    }
}
