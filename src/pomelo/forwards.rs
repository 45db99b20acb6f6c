//! Calls to servers: clients' messages, and what servers are told of sessions that ended.

use std::sync::Arc;

use serde_json::Value;

use super::cluster::{ClosedArg, Occasion};
use super::mailbox::{State, Waiter};
use super::mailboxes::Mailboxes;
use super::member_config::MemberConfig;
use super::mqtt;
use super::peer::PeerId;
use super::peers::Peers;
use super::remotes::Caller;
use super::rpc::{self, Message};
use crate::dispatch::Failure;
use crate::forward::Chunk;
use crate::forward::mail::{Forward, WorkerBody, WorkerReply};
use crate::forward::remote::Remote;
use crate::metrics::ForwardEnd;
use crate::session::{SessionData, SessionId, SessionView, ShardIndex, Slot};
use crate::span::SpanContext;

/// Bytes of a call beside its body and its route: its head, and a small session.
const CALL_BYTES: usize = 512;

/// The reason why a call is not made.
enum NotCalled {
    /// There is no such server, or no connection to it.
    Lost,
    /// A bound of [`PomeloLimits`](super::PomeloLimits) is reached.
    Full,
}

/// The parts of a member that calls are made with.
pub(super) struct Forwards<'a> {
    pub(super) config: &'a MemberConfig,
    pub(super) remote: &'a mut Remote<Caller, Vec<u8>>,
    pub(super) mailboxes: &'a mut Mailboxes,
    pub(super) peers: &'a mut Peers,
    /// The answers' bodies are carved from this.
    pub(super) chunk: &'a mut Chunk,
    pub(super) now_us: u64,
}

impl Forwards<'_> {
    /// A client's message for a server.
    pub(super) fn handle_forward(&mut self, forward: Forward, span: Option<&SpanContext>) {
        let Forward { token, session, data, route, id, bytes } = forward;
        let routes = Arc::clone(&self.config.routes);
        let (text, body) = route.split(&routes, &bytes);
        let message = Message { id, route: text, body, span };
        if let Err(why) = self.call(session, &data, token, &message) {
            let (counter, end) = match why {
                NotCalled::Lost => (&self.config.counters.forward_lost, ForwardEnd::Lost),
                NotCalled::Full => (&self.config.counters.forward_rejects, ForwardEnd::Rejected),
            };
            counter.one();
            let server_type = text.split('.').next().unwrap_or_default();
            match why {
                NotCalled::Lost => crate::log::seldom!(
                    warn,
                    server_type,
                    "a message has found no server of the cluster"
                ),
                NotCalled::Full => crate::log::seldom!(
                    warn,
                    server_type,
                    "too much waits for a server of the cluster; messages are refused"
                ),
            }
            self.answer_failed(session.shard(), token, end);
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
        let peer = self.reserve(slot, bytes)?;
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
        self.peers.append(peer, bytes + export.len(), |out| {
            mqtt::encode_publish(rpc::TOPIC, out, |out| {
                rpc::encode_forward(id, server_type, message, export, out);
            });
        });
        Ok(())
    }

    fn pick(&mut self, name: &str, id: SessionId, data: &SessionData) -> Option<Slot> {
        self.mailboxes.pick(name, &SessionView { id, data }, &self.config.counters)
    }

    /// Finds the connection on which one more call of so many bytes may be made to a server: one
    /// that is open, or is being made and has room in its queue.
    fn reserve(&mut self, slot: Slot, bytes: usize) -> Result<PeerId, NotCalled> {
        let limits = &self.config.limits;
        let mailbox = self.mailboxes.at(slot).ok_or(NotCalled::Lost)?;
        let peer = match mailbox.state {
            State::Waiting { .. } => return Err(NotCalled::Lost),
            State::Connecting { peer, .. } => {
                if mailbox.queued >= limits.queue_len_max {
                    return Err(NotCalled::Full);
                }
                peer
            }
            State::Open { peer, .. } => peer,
        };
        let waiting = self.peers.get(peer).map_or(0, |peer| peer.output.len());
        if mailbox.calls.len() >= limits.calls_max
            || waiting + bytes > limits.output_bytes_max
            || !self.peers.has_room(waiting, bytes)
        {
            return Err(NotCalled::Full);
        }
        if let Some(mailbox) = self.mailboxes.at_mut(slot)
            && !mailbox.is_open()
        {
            mailbox.queued += 1;
        }
        Ok(peer)
    }

    /// Answers have come from a server.
    pub(super) fn handle_answers(&mut self, slot: Slot, payload: &[u8]) {
        let bad = rpc::decode_answers(payload, |answer| {
            let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
            // Nobody waits for what has been answered for, nor for what a notify comes to.
            let Some(waiter) = mailbox.calls.take(answer.id) else { return };
            let body = answer.body.map(|body| self.chunk.carve([body.as_bytes()]));
            let end = ForwardEnd::of_handler(answer.failed);
            let reply = WorkerReply { body: body.into(), end, data: None };
            self.remote.answer(waiter.shard, waiter.token, reply);
        });
        if bad > 0 {
            self.config.counters.cluster_bad_packets.add(bad as u64);
            tracing::debug!(bad, "a server sent what is no answer");
        }
    }

    /// Answers a request that no server will.
    pub(super) fn answer_failed(&mut self, shard: ShardIndex, token: u64, end: ForwardEnd) {
        let failure = match end {
            ForwardEnd::TimedOut => Failure::TimedOut,
            _ => Failure::Busy,
        };
        let reply = WorkerReply { body: WorkerBody::Failed(failure), end, data: None };
        self.remote.answer(shard, token, reply);
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
            let picked = self.pick(&remote.server_type, id, data).ok_or(NotCalled::Lost);
            let called = picked.and_then(|slot| Ok((slot, self.reserve(slot, CALL_BYTES)?)));
            let Ok((slot, peer)) = called else {
                self.config.counters.forward_lost.one();
                let session = data.number;
                crate::log::seldom!(warn, session, ?occasion, "no server was told of a session");
                continue;
            };
            let Some(mailbox) = self.mailboxes.at_mut(slot) else { continue };
            let call = mailbox.calls.skip();
            self.peers.write(peer, |out| {
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
