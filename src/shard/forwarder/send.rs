//! Mail to other parties, and questions.

use super::Forwarder;
use crate::forward::asks::Ask;
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::session::ShardIndex;
use crate::shard::connections::worker_bit;

impl Forwarder {
    /// Sends mail that must arrive, to any shard, this one included.
    pub(super) fn send(&mut self, to: ShardIndex, mail: Mail) {
        if to == self.outbound.connections.index() {
            self.own_mail.push_back(mail);
        } else {
            self.endpoint.send(to.into(), mail);
        }
    }

    /// Sends mail that may be refused, which is counted.
    pub(in crate::shard) fn try_send(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        if to == self.outbound.connections.index() {
            self.own_mail.push_back(mail);
            return Ok(());
        }
        self.endpoint.try_send(to.into(), mail).inspect_err(|_| self.counters.mail_rejects.one())
    }

    pub(super) fn reply(&mut self, to: ReplyTo, outcome: Outcome) {
        if to.party == self.endpoint.me() {
            self.asks.finish(to.token, outcome);
        } else {
            self.endpoint.send(to.party, Mail::Result { token: to.token, outcome });
        }
    }

    /// Keeps a question and asks a shard.
    pub(in crate::shard) fn ask(
        &mut self,
        to: ShardIndex,
        ask: Ask,
        mail: impl FnOnce(ReplyTo) -> Mail,
    ) {
        let token = match self.asks.add(ask) {
            Ok(token) => token,
            Err(ask) => return ask.refuse(),
        };
        let reply_to = ReplyTo { party: self.endpoint.me(), token };
        if self.try_send(to, mail(reply_to)).is_err()
            && let Some(ask) = self.asks.take(token)
        {
            ask.refuse();
        }
    }

    /// Sends mail about a session to several workers, by their bits.
    pub(super) fn tell_workers(&mut self, workers: u64, mail: impl Fn() -> Mail) {
        if workers == 0 {
            return;
        }
        let count = self.endpoint.hub().parties() - self.endpoint.hub().shards();
        for worker in (0..count).filter(|worker| workers & worker_bit(*worker) != 0) {
            let party = self.endpoint.hub().worker(worker);
            self.endpoint.send(party, mail());
        }
    }
}
