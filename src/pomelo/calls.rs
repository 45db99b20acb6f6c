//! Calls to servers: clients' messages, and what servers are told of sessions that ended.

use std::sync::Arc;

use serde_json::Value;

use super::cluster::{ClosedArg, Occasion};
use super::mailbox::{Mailbox, State, Waiter};
use super::member::Member;
use super::mqtt;
use super::router::{CustomRouter, Picker, Router, Servers};
use super::rpc::{self, Message};
use crate::forward::mail::{Forward, WorkerReply};
use crate::forward::{Route, ServerId};
use crate::session::{SessionData, SessionId, SessionView, ShardIndex, Slot, Table};

/// The servers of one type.
pub(super) struct ServerType {
    pub(super) name: Box<str>,
    /// By their mailboxes, in the order they became known.
    pub(super) servers: Vec<Slot>,
    /// Their names, in the same order.
    ids: Vec<ServerId>,
    picker: Picker,
}

impl ServerType {
    pub(super) fn new(name: &str, router: &Router, routers: &[(String, Route)]) -> Self {
        // The last one that was given counts, as for workers.
        let router = match routers.iter().rev().find(|(other, _)| other == name) {
            Some((_, route)) => Router::Custom(CustomRouter(Arc::clone(route))),
            None => router.clone(),
        };
        let (servers, ids) = (Vec::new(), Vec::new());
        Self { name: name.into(), servers, ids, picker: Picker::new(router) }
    }

    /// The servers have changed.
    pub(super) fn refresh(&mut self, mailboxes: &Table<Mailbox>) {
        let servers = || self.servers.iter().filter_map(|slot| Some(&mailboxes.at(*slot)?.server));
        self.ids = servers().map(|server| server.id.clone()).collect();
        let weights = self.ids.iter().zip(servers().map(|server| server.weight));
        self.picker.set_servers(weights);
    }

    fn pick(&mut self, session: &SessionView<'_>, mailboxes: &Table<Mailbox>) -> Option<Slot> {
        let view = View { servers: &self.servers, mailboxes };
        let place = self.picker.pick(session, &self.ids, &view)?;
        self.servers.get(place).copied()
    }
}

/// The servers of a type as its router sees them.
struct View<'a> {
    servers: &'a [Slot],
    mailboxes: &'a Table<Mailbox>,
}

impl Servers for View<'_> {
    fn active(&self, place: usize) -> usize {
        self.mailboxes.at(self.servers[place]).map_or(0, |mailbox| mailbox.calls.len())
    }

    fn is_connected(&self, place: usize) -> bool {
        self.mailboxes.at(self.servers[place]).is_some_and(Mailbox::is_open)
    }
}

/// What a call takes beside its body and its route: its head, and a small session.
const CALL_BYTES: usize = 512;

/// Why a call is not made.
enum NotCalled {
    /// There is no such server, or no connection to it.
    Lost,
    /// A bound of [`PomeloLimits`](super::PomeloLimits) is reached.
    Full,
}

impl Member {
    /// A client's message for a server.
    pub(super) fn handle_forward(&mut self, forward: Forward) {
        let Forward { token, session, data, route, id, bytes } = forward;
        let routes = Arc::clone(&self.config.routes);
        let (text, body) = route.split(&routes, &bytes);
        let message = Message { id, route: text, body };
        if let Err(why) = self.call(session, &data, token, &message) {
            match why {
                NotCalled::Lost => self.config.counters.forward_lost.one(),
                NotCalled::Full => self.config.counters.forward_rejects.one(),
            }
            self.answer_failed(session.shard(), token);
        }
    }

    fn call(
        &mut self,
        session: SessionId,
        data: &Arc<SessionData>,
        token: u64,
        message: &Message<'_>,
    ) -> Result<(), NotCalled> {
        let server_type = message.route.split('.').next().unwrap_or_default();
        let slot = self.pick(server_type, session, data).ok_or(NotCalled::Lost)?;
        let bytes = message.body.len() + message.route.len() + CALL_BYTES;
        let link = self.take_place(slot, bytes)?;
        let mailbox = self.mailboxes.at_mut(slot).ok_or(NotCalled::Lost)?;
        let id = match token {
            0 => mailbox.calls.skip(),
            _ => {
                let waiter = Waiter { shard: session.shard(), token };
                mailbox.calls.add(waiter, self.now_us + self.config.call_timeout_us)
            }
        };
        let frontend_id = &self.config.frontend_id;
        let export = self.remote.export(session, data, |data| rpc::export(data, frontend_id));
        let output = &mut self.links.at_mut(link.slot).ok_or(NotCalled::Lost)?.output;
        let held = output.held_bytes();
        output.append(bytes + export.len(), |out| {
            mqtt::encode_publish(rpc::TOPIC, out, |out| {
                rpc::encode_forward(id, server_type, message, export, out);
            });
        });
        self.held.output += output.held_bytes() - held;
        self.mark_dirty(link);
        Ok(())
    }

    fn pick(&mut self, name: &str, id: SessionId, data: &SessionData) -> Option<Slot> {
        let kind = self.types.iter_mut().find(|kind| *kind.name == *name)?;
        kind.pick(&SessionView { id, data }, &self.mailboxes)
    }

    /// Whether one more call of so many bytes may be made to a server, and on which connection: one
    /// that is open, or is being made and has room in its queue.
    fn take_place(&mut self, slot: Slot, bytes: usize) -> Result<super::LinkId, NotCalled> {
        let limits = &self.config.limits;
        let mailbox = self.mailboxes.at(slot).ok_or(NotCalled::Lost)?;
        let link = match mailbox.state {
            State::Waiting { .. } => return Err(NotCalled::Lost),
            State::Connecting { link, .. } => {
                if mailbox.queued >= limits.queue_len_max {
                    return Err(NotCalled::Full);
                }
                link
            }
            State::Open { link, .. } => link,
        };
        let waiting = self.links.at(link.slot).map_or(0, |link| link.output.len());
        if mailbox.calls.len() >= limits.calls_max
            || waiting + bytes > limits.output_bytes_max
            || !self.has_room(waiting, bytes)
        {
            return Err(NotCalled::Full);
        }
        if let Some(mailbox) = self.mailboxes.at_mut(slot)
            && !mailbox.is_open()
        {
            mailbox.queued += 1;
        }
        Ok(link)
    }

    /// Answers have come from a server.
    pub(super) fn handle_answers(&mut self, slot: Slot, payload: &[u8]) {
        let bad = rpc::decode_answers(payload, |answer| {
            let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
            // Nobody waits for what has been answered for, nor for what a notify comes to.
            let Some(waiter) = mailbox.calls.take(answer.id) else { return };
            let body = answer.body.map(|body| self.chunk.carve([body.as_bytes()]));
            let reply = WorkerReply { body, failed: answer.failed, data: None };
            self.remote.answer(waiter.shard, waiter.token, reply);
        });
        if bad > 0 {
            self.config.counters.cluster_bad_packets.add(bad as u64);
            tracing::debug!(bad, "a server sent what is no answer");
        }
    }

    /// Answers a request that no server will.
    pub(super) fn answer_failed(&mut self, shard: ShardIndex, token: u64) {
        self.remote.answer(shard, token, WorkerReply { body: None, failed: true, data: None });
    }

    /// A session has ended: tells the game, if it was anybody's.
    pub(super) fn handle_session_closed(&mut self, id: SessionId, data: &Arc<SessionData>) {
        if data.uid.is_none() {
            return;
        }
        self.tell(Occasion::Closed, id, data);
    }

    /// A session has got a uid: tells the game.
    pub(super) fn handle_session_bound(&mut self, data: &Arc<SessionData>) {
        if let Ok(id) = self.remote.session(data.number) {
            self.tell(Occasion::Bound, id, data);
        }
    }

    /// Calls the game's remotes for that occasion.
    fn tell(&mut self, occasion: Occasion, id: SessionId, data: &Arc<SessionData>) {
        for at in 0..self.config.hooks.len() {
            let (when, remote, args) = &self.config.hooks[at];
            if *when != occasion {
                continue;
            }
            let (remote, args) = (remote.clone(), self.closed_args(args, data));
            let place = self.pick(&remote.server_type, id, data).ok_or(NotCalled::Lost);
            let called = place.and_then(|slot| Ok((slot, self.take_place(slot, CALL_BYTES)?)));
            let Ok((slot, link)) = called else {
                self.config.counters.forward_lost.one();
                let session = data.number;
                crate::log::seldom!(warn, session, ?occasion, "no server was told of a session");
                continue;
            };
            let Some(mailbox) = self.mailboxes.at_mut(slot) else { continue };
            let call = mailbox.calls.skip();
            self.write(link, |out| {
                mqtt::encode_publish(rpc::TOPIC, out, |out| {
                    rpc::encode_user_call(call, &remote, &args, out);
                });
            });
        }
    }

    fn closed_args(&self, args: &[ClosedArg], data: &SessionData) -> Vec<Value> {
        let frontend_id = &*self.config.frontend_id;
        let uid = || data.uid.as_ref().map_or(Value::Null, |uid| uid.to_value());
        let value = |arg: &ClosedArg| match arg {
            ClosedArg::Uid => uid(),
            ClosedArg::SessionId => data.number.into(),
            ClosedArg::FrontendId => frontend_id.into(),
            ClosedArg::Setting(key) => data.settings.get(key).cloned().unwrap_or_default(),
            ClosedArg::Session => serde_json::json!({
                "id": data.number,
                "frontendId": frontend_id,
                "uid": uid(),
                "settings": data.settings,
            }),
        };
        args.iter().map(value).collect()
    }
}
