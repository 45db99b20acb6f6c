//! Answers and pushes into outboxes, as each client's dialect has them.

use super::Outbound;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::route::push::Push;
use crate::route::table::encode_body;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{State, Transport};
use crate::shard::listener_config::Dialect;
use crate::wire::answer;

/// A session's state, as in [`Outbound::answer`].
const WORKING: State = State::Working(Dialect::Pomelo);

impl Outbound {
    /// Queues a push that is laid out already.
    pub(in crate::shard) fn send_shared(&mut self, slot: Slot, push: &Push) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.state == State::Working(Dialect::Pitaya) {
            return self.send_shared_pitaya(slot, push);
        }
        let edition = self.editions.get(connection.session.edition);
        let own;
        let package = match edition.filter(|edition| !push.suits(edition)) {
            None => push.package(),
            Some(edition) => match push.encode_for(&self.config.routes, edition) {
                Ok(package) => {
                    own = package;
                    &own
                }
                // The package was as long as can be, or the body does not fit its schema there.
                Err(error) => {
                    crate::log::seldom!(
                        warn, %error, "a push is lost on a session of other codes or schemas"
                    );
                    return;
                }
            },
        };
        self.queue_shared(slot, package, push.lossy());
    }

    /// Answers a request of a client that is still there. A notify gets nothing.
    pub(in crate::shard) fn answer(&mut self, call: &ClientCall, reply: &Reply<'_>) {
        if call.id == 0 {
            return;
        }
        let Some(connection) = self.connections.get(call.session) else { return };
        if connection.state != WORKING {
            return self.answer_pitaya(call, reply);
        }
        let text = reply.text(&self.config.failures);
        let edition = self.editions.get(connection.session.edition);
        let schema = call.route.and_then(|route| Some((route, edition?.server_schema(route)?)));
        let mut scratch = None;
        let body: &[u8] = match schema {
            None => &text,
            Some((route, schema)) => {
                let entry = self.config.routes.entry(route);
                let mut encoded = self.connections.pool().take();
                encode_body(schema, &entry.text, &text, &mut encoded);
                scratch.insert(encoded)
            }
        };
        if !answer::fits(body) {
            // No client could read it: a package's length has 24 bits.
            crate::log::seldom!(warn, bytes = body.len(), "an answer is too long for a package");
            scratch.into_iter().for_each(|buffer| self.connections.pool().give(buffer));
            return self.answer(call, &Reply::error());
        }
        let Some((connection, pool)) = self.connections.get_with_pool(call.session) else { return };
        let is_websocket = connection.transport == Transport::WebSocket;
        let out = connection.outbox.open(pool);
        let len = out.len();
        answer::encode(is_websocket, call.id, body, out);
        let len = out.len() - len;
        if let Some(buffer) = scratch {
            pool.give(buffer);
        }
        self.counters.answers.one();
        connection.traffic.note_sent(1);
        self.queue.mark_dirty(call.session, connection);
        if connection.outbox.bytes() > self.pauses.pause_bytes() {
            self.pause_for_outbox(call.session.slot());
        }
        self.connections.budgets_mut().answered(call.session, len);
    }

    /// Queues answers that are laid out already for a client of Pomelo's.
    pub(in crate::shard) fn append_answers(
        &mut self,
        session: SessionId,
        answers: u16,
        bytes: &[u8],
    ) {
        let Some((connection, pool)) = self.connections.get_with_pool(session) else { return };
        debug_assert!(connection.session.in_flight >= answers);
        connection.session.in_flight = connection.session.in_flight.saturating_sub(answers);
        if connection.state == WORKING {
            connection.outbox.open(pool).extend_from_slice(bytes);
            self.counters.answers.add(u64::from(answers));
            connection.traffic.note_sent(answers.into());
            self.queue.mark_dirty(session, connection);
            if connection.outbox.bytes() > self.pauses.pause_bytes() {
                self.pause_for_outbox(session.slot());
            }
            self.connections.budgets_mut().answered(session, bytes.len());
        }
    }
}
